"""Checks of published systems: what their number formats, coders and encoders do to numbers.

A paper's own figure stands as a reference in a comment; what is asserted is computed here. Statistical figures have a band.
"""

import math

import ml_dtypes
import numpy as np
import pytest
import torch
from torch import nn

import hwsim
from numerics.booth import bit_weight_matmul, lockstep_cycles, nonzero_digits
from numerics.codebooks import fit_codebook, fit_groups
from numerics.encoding import decode, encode
from numerics.entropy import compress, decompress, field_entropy
from numerics.formats import FloatFormat, get_format
from numerics.quantizer import quantize
from numerics.solvers import iterative_refinement


def sqnr_db(x, y):
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    return 10 * math.log10(np.sum(x**2) / np.sum((x - y) ** 2))


def scaled_to(fmt, x):
    """Quantised with the largest magnitude brought to the largest value of the format, as a scale for a tensor does."""
    found = get_format(fmt)
    return quantize(x, found, scale=float(np.abs(x).max()) / found.max)


@pytest.fixture(scope="module")
def gaussian():
    return np.random.default_rng(0).standard_normal(1 << 20).astype(np.float32)


# --- FP8 Formats for Deep Learning (arXiv 2209.05433), table 1 ------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "largest", "smallest", "finite"), [("e4m3fn", 448, 2.0**-9, 253), ("e5m2", 57344, 2.0**-16, 247)]
)
def test_fp8_ranges(name, largest, smallest, finite):
    fmt = get_format(name)
    values = np.unique(fmt.table()[np.isfinite(fmt.table())])  # ±0 are one value
    assert (fmt.max, fmt.smallest_subnormal, len(values)) == (largest, smallest, finite)
    assert (values.max(), values[values > 0].min()) == (largest, smallest)
    # The same, from another library's table.
    dtype = {"e4m3fn": ml_dtypes.float8_e4m3fn, "e5m2": ml_dtypes.float8_e5m2}[name]
    other = np.arange(256).astype(np.uint8).view(dtype).astype(np.float64)
    assert np.array_equal(values, np.unique(other[np.isfinite(other)]))


@pytest.mark.parametrize(
    ("name", "clean", "with_outliers"), [("e4m3fn", 31.6, 31.4), ("e5m2", 25.6, 25.5), ("int8_symmetric", 39.4, 13.1)]
)
def test_fp8_against_int8(name, clean, with_outliers, gaussian):
    # The step of INT8 is set by the largest of the sample: ±0.7 dB between samples of 2^16 and 2^20. Floats hardly notice.
    assert sqnr_db(gaussian, scaled_to(name, gaussian)) == pytest.approx(clean, abs=0.7 if name.startswith("int") else 0.2)
    x = gaussian.copy()
    x[::1000] *= 100  # 0.1 % of the elements
    assert sqnr_db(x, scaled_to(name, x)) == pytest.approx(with_outliers, abs=0.7 if name.startswith("int") else 0.2)


# --- Pychop (Carson and Chen): custom (exponent, mantissa) formats, and numerical methods in them ---


@pytest.mark.parametrize(
    ("exponent_bits", "mantissa_bits", "dtype"), [(8, 7, ml_dtypes.bfloat16), (5, 10, np.float16)], ids=["bf16", "fp16"]
)
def test_a_custom_format_is_the_known_one_on_all_codes(exponent_bits, mantissa_bits, dtype):
    custom = FloatFormat("custom", exponent_bits, mantissa_bits)
    codes = np.arange(1 << 16).astype(np.uint16)
    with np.errstate(invalid="ignore"):  # signalling NaNs
        values = codes.view(dtype).astype(np.float64)
    np.testing.assert_array_equal(decode(codes, custom, dtype=np.float64), values)
    numbers = ~np.isnan(values)
    assert np.array_equal(encode(values[numbers], custom), codes[numbers])
    # And what lies between two codes, and beyond the last.
    finite = np.sort(values[np.isfinite(values)])
    between = np.concatenate([(finite[:-1] + finite[1:]) / 2, [finite[-1] * (1 + custom.eps / 4), finite[-1] * 2]])
    for x in (between, np.nextafter(between, np.inf), np.nextafter(between, -np.inf)):
        with np.errstate(over="ignore"):
            narrow = x.astype(np.float32)  # the other library has no path from float64 that rounds once
        with np.errstate(over="ignore"):
            assert np.array_equal(quantize(narrow, custom), narrow.astype(dtype).astype(np.float32))


@pytest.mark.parametrize("name", ["fp16", "bf16", "e4m3fn"])
def test_low_precision_lu_with_fp64_refinement_converges(name):
    n = 80
    a = np.eye(n) + np.random.default_rng(1).standard_normal((n, n)) / (6 * math.sqrt(n))
    truth = np.random.default_rng(2).standard_normal(n)
    result = iterative_refinement(a, a @ truth, factor_format=name, most_iterations=100)
    assert result.converged
    np.testing.assert_allclose(result.x, truth, rtol=0, atol=1e-13)
    np.testing.assert_allclose(result.x, np.linalg.solve(a, a @ truth), rtol=0, atol=1e-13)


# --- NeuZip (arXiv 2410.20650): Llama-3 8B from 31 to below 16 GB ---


def test_exponents_of_bf16_gaussians_hold_two_and_a_half_bits(gaussian):
    codes = encode(gaussian, "bf16")
    found = field_entropy(codes, "bf16")
    assert found.exponent == pytest.approx(2.55, abs=0.01)
    packed = compress(codes, "bf16")
    assert packed.ratio == pytest.approx(0.66, abs=0.002)
    back = decompress(packed.data)
    assert back.tobytes() == codes.tobytes()
    # A tensor that PyTorch stores, scaled as weights are.
    weight = torch.from_numpy(gaussian).mul(0.02).bfloat16()
    again = torch.from_numpy(decompress(compress(weight)).view(np.int16)).view(torch.bfloat16)
    assert torch.equal(again.view(torch.int16), weight.view(torch.int16))


# --- JLCM: 7 B parameters in 2 GB, which is 2.29 bits a weight; Greenformer, Distiller ---


@pytest.mark.parametrize(
    ("method", "expected", "band"), [("min_max", 9.3, 0.7), ("mse_uniform", 14.2, 0.1), ("lloyd_max", 14.6, 0.05)]
)
def test_three_bit_codebooks_on_a_gaussian(method, expected, band, gaussian):
    # Min-max spreads the values over the largest of the sample, which grows with its size: here 2^15 elements.
    assert fit_codebook(gaussian[: 1 << 15], levels=8, method=method).sqnr_db == pytest.approx(expected, abs=band)


def test_two_bit_tables_reach_the_published_size(gaussian):
    published_bits = 2e9 * 8 / 7e9
    assert round(published_bits, 2) == 2.29
    grouped = fit_groups(gaussian[: 1 << 14], levels=4, group_size=256)
    assert grouped.bits_per_weight == 2 + 4 * 16 / 256 < published_bits
    assert grouped.sqnr_db > 10 * math.log10(1 / 0.1175)  # better than the best shared table (Max 1960)


@pytest.mark.parametrize(("m", "n"), [(64, 64), (48, 96), (32, 200)])
def test_factorised_layers_save_macs_only_below_the_break_even_rank(m, n):
    def macs(module):
        return hwsim.trace(module, torch.empty(5, m)).macs

    dense = macs(nn.Linear(m, n, bias=False))
    break_even = m * n / (m + n)
    for rank in (1, math.floor(break_even), math.ceil(break_even), math.ceil(break_even) + 1, min(m, n)):
        factors = macs(nn.Sequential(nn.Linear(m, rank, bias=False), nn.Linear(rank, n, bias=False)))
        assert (factors < dense) is (rank < break_even)
        assert (factors == dense) is (rank == break_even)


# --- Tensor processing engines transformed in the bit-weight dimension: radix-4 Booth digits ---


def int8_codes(x):
    return encode(x, "int8_symmetric", scale=float(np.abs(x).max()) / 127).astype(np.uint8).view(np.int8)


def test_bit_weight_loop_outermost_is_exact():
    rng = np.random.default_rng(3)
    a, b = rng.integers(-128, 128, (64, 100)), rng.integers(-128, 128, (100, 48))
    assert np.array_equal(bit_weight_matmul(a, b), a @ b)


def test_mean_non_zero_digits(gaussian):
    assert nonzero_digits(np.arange(-128, 128), 8).mean() == 3.0
    # Scaled to the largest, small codes prevail; the mean follows the largest of the sample.
    assert nonzero_digits(int8_codes(gaussian), 8).mean() == pytest.approx(2.47, abs=0.05)


@pytest.mark.parametrize(("lanes", "of_gaussian", "of_uniform"), [(8, 3.61, 3.95), (32, 3.98, 4.00)])
def test_lanes_in_lockstep_lose_the_gain(lanes, of_gaussian, of_uniform, gaussian):
    counts = nonzero_digits(int8_codes(gaussian), 8)
    assert lockstep_cycles(counts, lanes=lanes) == pytest.approx(of_gaussian, abs=0.05)
    uniform = nonzero_digits(np.random.default_rng(4).integers(-128, 128, 1 << 18), 8)
    # Independent codes: P(all lanes below 4) is the share of codes below 4 to the power of the lanes, and so on.
    share = np.bincount(nonzero_digits(np.arange(-128, 128), 8), minlength=5).cumsum() / 256
    closed = sum(1 - share[cycles] ** lanes for cycles in range(4))
    assert closed == pytest.approx(of_uniform, abs=0.005)
    assert lockstep_cycles(uniform, lanes=lanes) == pytest.approx(closed, abs=0.01)
