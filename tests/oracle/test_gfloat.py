"""Every rounding mode that gfloat has, in formats of every kind, against gfloat 0.5."""

import gfloat
import numpy as np
import pytest
from float_strata import around, assert_same_floats, fp32_strata, fp64_strata
from gfloat import Domain, FormatInfo, RoundMode

from numerics import FloatFormat, encode, get_format, quantize

MODES = {
    "nearest_even": RoundMode.TiesToEven,
    "nearest_away": RoundMode.TiesToAway,
    "toward_zero": RoundMode.TowardZero,
    "up": RoundMode.TowardPositive,
    "down": RoundMode.TowardNegative,
}
# One mantissa bit at least: with none, gfloat breaks ties by the parity of the code; we, ml_dtypes, PyTorch by the significand.
FORMATS = [
    *map(get_format, ("e4m3fn", "e5m2", "e4m3", "e3m4", "e4m3fnuz", "e5m2fnuz", "e2m1fn", "e2m3fn", "e3m2fn", "fp16", "bf16")),
    *map(get_format, ("tf32", "e6m9", "e8m13")),
    FloatFormat("shifted", 4, 3, bias=11),
    FloatFormat("far", 5, 2, bias=-20),
    FloatFormat("unsigned", 4, 4, signed=False),
    FloatFormat("unsigned_finite", 3, 5, signed=False, specials="none"),
    FloatFormat("wide_exponent", 9, 3),
    FloatFormat("fine", 8, 25),
    FloatFormat("fine_narrow", 5, 23),
]


def their_format(fmt):
    return FormatInfo(
        fmt.name,
        fmt.code_bits,
        fmt.mantissa_bits + 1,
        bias=fmt.bias,
        is_signed=fmt.signed,
        domain=Domain.Extended if fmt.specials == "ieee" else Domain.Finite,
        has_nz=fmt.has_negative_zero,
        num_high_nans={"ieee": (1 << fmt.mantissa_bits) - 1, "max_is_nan": 1}.get(fmt.specials, 0),
        has_subnormals=fmt.subnormals,
        is_twos_complement=False,
    )


def inputs(fmt, dtype):
    """Values, midpoints and neighbours of a format, and random numbers over its range and beyond."""
    spread = fp64_strata(4096, fmt.emin - fmt.mantissa_bits - 3, fmt.emax + 2)
    if fmt.code_bits <= 16:
        values = fmt.table()
    else:
        values = np.concatenate([np.ldexp(1.0, np.arange(max(fmt.emin, -1022), min(fmt.emax, 1021))), [fmt.max]])
    with np.errstate(over="ignore", under="ignore"):
        strata = fp32_strata(12)
        strata[np.isnan(strata)] = np.nan  # quiet ones
        x = np.concatenate([around(values, dtype), spread.astype(dtype), strata.astype(dtype)])
    if dtype == np.float64:
        x = x[~(np.abs(x) < 2.0**-1000) | (x == 0)]  # they scale x by powers of two, which takes the tiniest to zero
    if fmt.specials == "none":
        x = x[np.isfinite(x)]
    return x if fmt.signed else np.abs(x)


def fits(fmt, dtype):
    return dtype == np.float64 or (fmt.emax <= 127 and fmt.emin - fmt.mantissa_bits >= -149)


CASES = [
    (fmt, dtype, overflow)
    for fmt in FORMATS
    for dtype in (np.float32, np.float64)
    for overflow in ("saturate", *(["ieee"] if fmt.has_nan else []))
    if fits(fmt, dtype)
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("fmt", "dtype", "overflow"), CASES, ids=lambda v: getattr(v, "name", getattr(v, "__name__", v)))
def test_values(fmt, dtype, overflow, mode):
    x = inputs(fmt, dtype)
    # In fp64: their scaling by powers of two leaves the range of fp32.
    theirs = gfloat.round_ndarray(their_format(fmt), x.astype(np.float64), MODES[mode], overflow == "saturate")
    with np.errstate(over="ignore"):
        assert_same_floats(quantize(x, fmt, rounding=mode, overflow=overflow), theirs.astype(dtype), x, f"{fmt.name} {mode}")


@pytest.mark.parametrize("fmt", [f for f in FORMATS if f.code_bits <= 16 and f.specials != "none"], ids=lambda f: f.name)
def test_codes(fmt):
    x = inputs(fmt, np.float64)
    theirs = their_format(fmt)
    rounded = gfloat.round_ndarray(theirs, x, RoundMode.TowardZero)
    ours = encode(x, fmt, rounding="toward_zero")
    numbers = ~np.isnan(rounded)
    np.testing.assert_array_equal(ours[numbers], gfloat.encode_ndarray(theirs, rounded)[numbers])


@pytest.mark.parametrize("random_bits", [1, 3, 8, 16])
@pytest.mark.parametrize("name", ["e4m3fn", "e5m2", "fp16", "e2m1fn", "e4m3fnuz"])
def test_stochastic_rounding_by_given_words(name, random_bits):
    """Their "fastest": away from zero where fraction + word / 2^bits ≥ 1. On fp32 numbers, so that their fp64 sum is exact."""
    fmt = get_format(name)
    x = inputs(fmt, np.float32)
    words = np.random.default_rng(random_bits).integers(0, 1 << random_bits, x.size)
    theirs = gfloat.round_ndarray(their_format(fmt), x.astype(np.float64), RoundMode.StochasticFastest, True, words, random_bits)
    for dtype in (np.float32, np.float64):
        ours = quantize(x.astype(dtype), fmt, rounding="stochastic", overflow="saturate", seed=words, random_bits=random_bits)
        assert_same_floats(ours, theirs.astype(dtype), x, name)
