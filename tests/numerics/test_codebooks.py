"""Fitted codebooks against Max's tables, brute force, scikit-learn and their own definitions."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from numerics import codebooks
from numerics.codebooks import METHODS, fit_codebook, fit_groups
from numerics.encoding import decode, encode
from numerics.errors import InputError
from numerics.quantizer import quantize


def normal_sample(n):
    """The normal distribution's quantiles: a sample without chance."""
    return scipy.stats.norm.ppf((np.arange(n) + 0.5) / n)


# --- the least error ----------------------------------------------------------------------------------------------------

# Max, IRE Trans. Inf. Theory 6 (1960), tables I and II: mean square error for a Gaussian of unit variance.
MAX_1960 = {2: 0.3634, 3: 0.1902, 4: 0.1175, 5: 0.07994, 8: 0.03454, 16: 0.009497, 32: 0.002499}
MAX_1960_UNIFORM = {2: 0.3634, 4: 0.1188, 8: 0.03744, 16: 0.01154, 32: 0.003490}


@pytest.mark.parametrize("method", ["lloyd_max", "optimal"])
@pytest.mark.parametrize("levels", MAX_1960)
def test_gaussian_codebooks_are_max_s(method, levels):
    fit = fit_codebook(normal_sample(1 << 16), levels=levels, method=method, table_format="fp64")
    assert fit.converged
    assert fit.mean_square_error == pytest.approx(MAX_1960[levels], rel=3e-3)


@pytest.mark.parametrize("levels", MAX_1960_UNIFORM)
def test_uniform_codebooks_are_max_s(levels):
    fit = fit_codebook(normal_sample(1 << 16), levels=levels, method="mse_uniform", table_format="fp64")
    assert fit.mean_square_error == pytest.approx(MAX_1960_UNIFORM[levels], rel=5e-3)
    assert np.ptp(np.diff(fit.format.values)) < 1e-12


def test_the_eight_values_of_max():
    # Table I, N = 8: outputs 0.2451, 0.7560, 1.344, 2.152.
    values = fit_codebook(normal_sample(1 << 18), levels=8).format.values
    np.testing.assert_allclose(values[4:], [0.2451, 0.7560, 1.344, 2.152], atol=5e-3)
    np.testing.assert_allclose(values[:4], -np.array(values[:3:-1]), atol=1e-3)


def least_error(x, w, levels):
    """By trying every division of the sorted elements into cells."""
    order = np.argsort(x, kind="stable")
    x, w = x[order], w[order]

    def error(part):
        weights = w[part]
        if weights.sum() == 0:
            return 0.0
        mean = np.average(x[part], weights=weights)
        return float((weights * (x[part] - mean) ** 2).sum())

    return min(
        sum(error(slice(a, b)) for a, b in itertools.pairwise((0, *cuts, len(x))))
        for cuts in itertools.combinations(range(1, len(x)), levels - 1)
    )


@given(st.integers(0, 10_000), st.integers(2, 4), st.booleans())
def test_optimal_is_the_least_of_all_divisions(seed, levels, weighted):
    rng = np.random.default_rng(seed)
    x = rng.choice([rng.standard_normal(9), rng.integers(-3, 4, 9) * 1.0, 1e3 + rng.random(9)])
    w = rng.integers(0, 4, 9).astype(float) if weighted else np.ones(9)
    w[:2] = 1
    x[0] = x[1] + 1
    fit = fit_codebook(x, levels=levels, method="optimal", importance=w, table_format="fp64")
    assert fit.mean_square_error * w.sum() == pytest.approx(least_error(x, w, levels), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_lloyd_max_is_between_the_optimum_and_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    x = np.concatenate([rng.standard_normal(500), rng.laplace(size=500) * 3, [40.0]])
    optimal = fit_codebook(x, levels=8, method="optimal", table_format="fp64").mean_square_error
    lloyd = fit_codebook(x, levels=8, table_format="fp64").mean_square_error
    kmeans = KMeans(8, n_init=4, random_state=0).fit(x[:, None]).inertia_ / len(x)
    assert optimal <= lloyd * (1 + 1e-12)
    assert optimal <= kmeans * (1 + 1e-9)
    assert lloyd < 1.1 * kmeans


@given(st.integers(0, 10_000), st.sampled_from([2, 3, 8]))
def test_lloyd_max_meets_its_own_conditions(seed, levels):
    rng = np.random.default_rng(seed)
    x, w = rng.standard_t(3, 200), rng.random(200)
    fit = fit_codebook(x, levels=levels, importance=w, table_format="fp64")
    assert fit.converged
    codes = encode(x, fit.format)
    means = [np.average(x[codes == c], weights=w[codes == c]) for c in range(levels)]
    np.testing.assert_allclose(fit.format.values, means, rtol=1e-9, atol=1e-12)


@given(st.integers(0, 10_000))
def test_better_methods_are_better(seed):
    rng = np.random.default_rng(seed)
    x = rng.standard_t(2 + seed % 5, 300)
    error = {m: fit_codebook(x, levels=6, method=m, table_format="fp64").mean_square_error for m in METHODS}
    slack = 1 + 1e-9
    assert error["optimal"] <= error["lloyd_max"] * slack
    assert error["lloyd_max"] <= error["mse_uniform"] * slack
    assert error["mse_uniform"] <= error["min_max"] * slack


def test_uniform_is_the_best_of_a_dense_search():
    x = np.random.default_rng(1).gamma(2.0, size=400)
    found = fit_codebook(x, levels=5, method="mse_uniform", table_format="fp64").mean_square_error
    steps, offsets = np.meshgrid(np.linspace(0.3, 3, 120), np.linspace(0, 4, 120))
    best = min(
        np.abs(x[:, None] - (offset + step * (np.arange(5) - 2))).min(axis=1).__pow__(2).mean()
        for step, offset in zip(steps.flat, offsets.flat, strict=True)
    )
    assert found <= best
    assert found > 0.95 * best


def test_min_max_reaches_the_ends():
    values = fit_codebook(np.array([-1.0, 0.3, 5.0, 2.0, 0.1, 0.2]), levels=4, method="min_max").format.values
    assert values == (-1.0, 1.0, 3.0, 5.0)


def test_importance_pulls_the_values():
    x = np.concatenate([np.linspace(-1, 1, 100), np.linspace(9, 11, 100)])
    w = np.where(x < 5, 1.0, 100.0)
    plain, weighted = (fit_codebook(x, levels=5, importance=i).format.values for i in (None, w))
    assert sum(v > 5 for v in weighted) > sum(v > 5 for v in plain)
    # Weights are counts: twice as important is there twice.
    twice = fit_codebook(np.concatenate([x, x[100:]]), levels=5).format.values
    np.testing.assert_allclose(fit_codebook(x, levels=5, importance=np.where(x < 5, 1, 2)).format.values, twice)


def test_offsets_cost_no_precision():
    x = np.random.default_rng(2).standard_normal(1000)
    near, far = (fit_codebook(x + o, levels=4, table_format="fp64").mean_square_error for o in (0.0, 2.0**20))
    assert far == pytest.approx(near, rel=1e-6)


# --- results ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_figures_are_those_of_the_rounded_table(method):
    x = np.random.default_rng(3).standard_normal(5000)
    fit = fit_codebook(x, levels=8, method=method, table_format="e4m3fn")
    assert np.array_equal(quantize(np.array(fit.format.values), "e4m3fn"), fit.format.values)
    error = np.mean((quantize(x, fit.format) - x) ** 2)
    assert fit.mean_square_error == pytest.approx(error, rel=1e-12)
    assert fit.sqnr_db == pytest.approx(10 * math.log10(np.mean(x**2) / error), rel=1e-12)


def test_tolerance_stops_early():
    x = np.random.default_rng(4).standard_normal(20_000)
    exact, coarse = (fit_codebook(x, levels=16, tolerance=t) for t in (0.0, 1e-3))
    assert coarse.converged
    assert coarse.iterations < exact.iterations
    assert exact.mean_square_error < coarse.mean_square_error < 1.05 * exact.mean_square_error


def test_too_few_iterations_are_reported(monkeypatch):
    monkeypatch.setattr(codebooks, "MOST_ITERATIONS", 2)
    x = np.random.default_rng(5).standard_normal(5000)
    fit = fit_codebook(x, levels=16)
    assert (fit.converged, fit.iterations) == (False, 2)
    assert fit_groups(x, levels=16, group_size=1000).not_converged == 5


@pytest.mark.parametrize("method", METHODS)
def test_few_distinct_values_are_the_codebook(method):
    x = np.array([3.0, 1.0, 3.0, -2.0])
    fit = fit_codebook(x, levels=8, method=method)
    assert fit.format.values == (-2.0, 1.0, 3.0)
    assert fit.sqnr_db == math.inf


def test_empty_cells_are_used():
    # Evenly spaced values leave cells empty between two far clusters; Lloyd's steps alone would never fill them.
    x = np.concatenate([np.linspace(0, 1, 50), [1000.0]])
    fit = fit_codebook(x, levels=6)
    assert len(fit.format.values) == 6
    assert fit.mean_square_error == pytest.approx(fit_codebook(x, levels=6, method="optimal").mean_square_error, rel=0.2)


def test_torch_tensors():
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    assert fit_codebook(x, levels=4).format == fit_codebook(x.numpy(), levels=4).format
    assert fit_codebook(x.bfloat16(), levels=4).format == fit_codebook(x.bfloat16().float(), levels=4).format


# --- groups -------------------------------------------------------------------------------------------------------------


def test_groups_are_fitted_alone():
    x = np.random.default_rng(6).standard_normal((4, 128)).astype(np.float32) * np.array([[1], [10], [0.1], [3]], np.float32)
    grouped = fit_groups(x, levels=4, group_size=128, table_format="fp32")
    for row, table, codes in zip(x, grouped.tables, grouped.codes, strict=True):
        fit = fit_codebook(row, levels=4)
        assert fit.format.values == tuple(table)
        assert np.array_equal(codes, encode(row, fit.format))
        assert np.array_equal(decode(codes, fit.format), table[codes])
    values = grouped.decode()
    assert values.dtype == np.float32
    noise = np.mean((values.astype(float) - x) ** 2)
    assert grouped.sqnr_db == pytest.approx(10 * math.log10(np.mean(x.astype(float) ** 2) / noise), rel=1e-6)
    shared = fit_codebook(x, levels=4)
    assert grouped.sqnr_db > shared.sqnr_db


@pytest.mark.parametrize(
    ("levels", "group", "table", "bits"), [(4, 256, "fp16", 2.25), (16, 64, "bf16", 8.0), (8, 128, "e5m2", 3.5)]
)
def test_bits_per_weight_count_the_tables(levels, group, table, bits):
    x = np.random.default_rng(7).standard_normal((8, 256))
    grouped = fit_groups(x, levels=levels, group_size=group, method="min_max", table_format=table)
    assert grouped.bits_per_weight == bits
    assert grouped.storage_bytes == 8 * 256 * bits / 8


def test_constant_groups_and_groups_of_no_importance():
    x = np.stack([np.full(8, 2.5), np.arange(8.0), np.zeros(8)])
    importance = np.ones((3, 8))
    importance[1] = 0
    grouped = fit_groups(x, levels=8, group_size=8, importance=importance)
    assert np.array_equal(grouped.decode(dtype=np.float64), x)
    assert grouped.codes.shape == x.shape


# --- bad input ----------------------------------------------------------------------------------------------------------

X = np.arange(10.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fit_codebook(X, levels=1), "^levels: expected an integer from 2 to 4096, got 1$"),
        (lambda: fit_codebook(X, levels=4, method="kmeans"), "^method: unknown name 'kmeans'; known: lloyd_max, "),
        (lambda: fit_codebook(X, levels=4, tolerance=1), "^tolerance: expected 0 ≤ tolerance < 1, got 1$"),
        (lambda: fit_codebook(X, levels=4, table_format="int8"), "^table_format: expected a float format, got 'int8'$"),
        (lambda: fit_codebook(X, levels=4, importance=np.ones(9)), r"^importance: expected shape \(10,\), got \(9,\)$"),
        (lambda: fit_codebook(X, levels=4, importance=-np.ones(10)), r"^importance: expected finite numbers ≥ 0, got -1\.0$"),
        (lambda: fit_codebook(X, levels=4, importance=np.zeros(10)), "^importance: expected at least one element above 0"),
        (lambda: fit_codebook(X, levels=4, importance=np.array(["a"] * 10)), "^importance: expected 16-, 32- or 64-bit floats"),
        (lambda: fit_codebook(np.array([1.0, np.inf]), levels=4), "^x: expected finite numbers, got inf$"),
        (lambda: fit_codebook(np.array([]), levels=4), "^x: expected at least one element, got an empty array$"),
        (lambda: fit_codebook(np.ones(4), levels=4), r"^x: expected at least 2 distinct values \(in 'fp32'\), got 1"),
        (lambda: fit_codebook(np.arange(4), levels=4), "^x: expected 16-, 32- or 64-bit floats, got int64$"),
        (lambda: fit_groups(X, levels=4, group_size=3), "^group_size: expected a divisor of the 10 elements, got 3$"),
        (lambda: fit_groups(X * 1e6, levels=4, group_size=5), r"^table_format: 'fp16' does not hold .* group 0, up to 4e\+06$"),
    ],
)  # fmt: skip
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_optimal_says_where_it_ends(monkeypatch):
    monkeypatch.setattr(codebooks, "MOST_CHOICES", 100)
    with pytest.raises(InputError, match=r"^method: 'optimal' takes at most 100 levels × distinct elements, got 4 × 30; "):
        fit_codebook(np.arange(30.0), levels=4, method="optimal")
