"""Digits of operands and the cycles they take: against enumeration, draws and the definitions of the encodings."""

import itertools
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelerators.bit_serial.distributions import CodeDistribution, mean_step, step_cycles, step_pmf, window_cycles
from accelerators.bit_serial.encodings import ENCODINGS, encoding
from numerics import InputError, nonzero_digits


def fewest_signed_bits(value):
    """Non-zero digits of the shortest sum of ±2^i."""
    if value == 0:
        return 0
    if value % 2 == 0:
        return fewest_signed_bits(value // 2)
    return 1 + min(fewest_signed_bits((value - 1) // 2), fewest_signed_bits((value + 1) // 2)) if abs(value) > 1 else 1


@pytest.mark.parametrize("bits", [2, 3, 4, 7, 8, 10])
@pytest.mark.parametrize("name", ENCODINGS)
def test_digits_add_up_to_the_number(name, bits):
    how, codes = encoding(name, bits), np.arange(-(1 << (bits - 1)), 1 << (bits - 1))
    digits = how.digits(codes).astype(int)
    assert digits.shape == (len(codes), how.places)
    assert np.array_equal((digits << (how.shift * np.arange(how.places))).sum(axis=1), codes)
    assert np.abs(digits).max() <= (2 if name == "booth" else 1)


def test_encodings_are_what_they_are_called():
    codes = np.arange(-128, 128)
    naf = encoding("naf").digits(codes) != 0
    assert not (naf[:, 1:] & naf[:, :-1]).any()
    assert naf.sum(axis=1).tolist() == [fewest_signed_bits(int(c)) for c in codes]
    ones = np.count_nonzero(encoding("sign_magnitude").digits(codes), axis=1)
    assert ones.tolist() == [abs(int(c)).bit_count() for c in codes]
    assert np.array_equal(np.count_nonzero(encoding("booth").digits(codes), axis=1), nonzero_digits(codes, 8))


def test_published_means():
    """3.0 of 4 digits over all codes, 2.47 of a Gaussian scaled to its largest number; lockstep lanes erase the gain."""
    uniform, gaussian = (CodeDistribution.named(name) for name in ("uniform", "gaussian"))
    assert uniform.mean_digits() == pytest.approx(3.0)
    assert gaussian.mean_digits() == pytest.approx(2.47, abs=0.01)
    for lanes, expected in ((8, 3.61), (32, 3.98)):
        assert mean_step(gaussian, lanes=lanes) == pytest.approx(expected, abs=0.01)
    for lanes, expected in ((8, 3.95), (32, 4.00)):
        assert mean_step(uniform, lanes=lanes) == pytest.approx(expected, abs=0.005)


def test_gaussian_is_that_of_scaled_samples():
    rng = np.random.default_rng(0)
    counts = np.zeros(256)
    for _ in range(300):
        x = rng.standard_normal(1000)
        counts += np.bincount(np.rint(x / np.abs(x).max() * 127).astype(int) + 128, minlength=256)
    found = CodeDistribution.named("gaussian", samples=1000)
    cumulated = np.cumsum(found.probabilities) - np.cumsum(counts / counts.sum())
    assert np.abs(cumulated).max() < 0.01
    drawn = CodeDistribution(8, tuple(counts / counts.sum()))
    assert found.mean_digits() == pytest.approx(drawn.mean_digits(), abs=0.01)
    # The scale, from the share of zeros, is the median of the largest magnitude.
    largest = 254 * NormalDist().inv_cdf((1 + found.probabilities[128]) / 2)
    assert (2 * NormalDist().cdf(largest) - 1) ** 1000 == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("name", ENCODINGS)
def test_steps_by_enumeration(name, shared):
    """All triples of 3-bit codes with unequal probabilities."""
    p = np.random.default_rng(1).dirichlet(np.ones(8))
    distribution, how = CodeDistribution(3, tuple(p)), encoding(name, 3)
    digits = how.digits(np.arange(-4, 4)) != 0
    expected = np.zeros(how.places + 1)
    for triple in itertools.product(range(8), repeat=3):
        lanes = digits[list(triple)]
        cycles = sum(lanes.any(axis=0)) if shared else max(lanes.sum(axis=1))
        expected[max(1, cycles)] += np.prod(p[list(triple)])
    assert step_pmf(distribution, how, 3, shared) == pytest.approx(expected)


@settings(max_examples=25)
@given(st.integers(0, 2**32), st.booleans(), st.sampled_from(ENCODINGS))
def test_windows_by_draws(seed, shared, name):
    rng = np.random.default_rng(seed)
    distribution = CodeDistribution(8, tuple(rng.dirichlet(np.full(256, 0.1))))
    groups = ((int(rng.integers(1, 4)), 4, 2), (1, 3, 3))
    steps = int(rng.integers(1, 5))
    draws = 4000
    slowest = np.zeros(draws)
    for count, lanes, last in groups:
        for _ in range(count):
            total = np.zeros(draws)
            for step in range(steps):
                width = last if step == steps - 1 else lanes
                codes = rng.choice(np.arange(-128, 128), (draws, width), p=distribution.probabilities)
                total += step_cycles(encoding(name).digits(codes) != 0, shared_weight=shared)
            slowest = np.maximum(slowest, total)
    expected = window_cycles(distribution, encoding(name), groups, steps, shared)
    assert expected == pytest.approx(slowest.mean(), abs=5 * slowest.std() / np.sqrt(draws) + 1e-9)


def test_one_lane_costs_its_digits():
    distribution = CodeDistribution.named("uniform")
    zeros = 1 / 256  # a product without digits takes a cycle
    assert mean_step(distribution) == pytest.approx(3 + zeros)
    assert mean_step(distribution.with_density(0.0)) == 1


def test_density_replaces_the_share_of_zeros():
    codes = np.array([0, 0, 1, 3, -8, 127])
    whole = CodeDistribution.of(codes)
    half = whole.with_density(0.5)
    assert half.probabilities[128] == 0.5
    assert half.mean_digits() == pytest.approx(0.5 * nonzero_digits(codes[2:], 8).mean())
    assert whole.mean_digits() == pytest.approx(nonzero_digits(codes, 8).mean())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: encoding("csd"), r"^encoding: unknown name 'csd'"),
        (lambda: CodeDistribution.named("normal"), r"^distribution: unknown name 'normal'"),
        (lambda: CodeDistribution.named("gaussian", samples=0), r"^samples: expected an integer ≥ 1, got 0$"),
        (lambda: CodeDistribution(2, (0.5, 0.5, 0.5, 0.5)), r"^probabilities: expected 4 of at least 0 that add up to 1, got 4"),
        (lambda: CodeDistribution.of([]), r"^codes: expected at least one, got none$"),
        (lambda: CodeDistribution.of([128]), r"^codes: expected -128 to 127 \(8 bits, signed\), got 128$"),
        (lambda: CodeDistribution.of([0.5]), r"^codes: expected integers, got float64$"),
        (lambda: CodeDistribution.of([1]).with_density(1.5), r"^density: expected a share from 0 to 1, got 1.5$"),
        (lambda: CodeDistribution.of([0]).with_density(0.5), r"^density: expected 0 where every code is 0, got 0.5$"),
        (lambda: encoding("naf").digits([200]), r"^codes: expected -128 to 127 \(8 bits, signed\), got 200$"),
    ],
)
def test_bad_input_is_one_line(call, message):
    with pytest.raises(InputError, match=message):
        call()
