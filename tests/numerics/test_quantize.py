"""Values of ``quantize``: against exact rational arithmetic, between its ways to round, and over its options."""

import itertools
import math
import re
import tracemalloc
from fractions import Fraction

import numba
import numpy as np
import pytest
from exact_rounding import code_value, largest_value, round_to_step, rounded
from float_strata import around, assert_same_floats, fp32_strata, fp64_strata

from numerics import CodebookFormat, FixedFormat, FloatFormat, InputError, IntFormat, encode, format_names, get_format, quantize
from numerics import _arrays as arrays
from numerics import _kernels as kernels
from numerics.rounding import ROUNDINGS

MODES = [mode for mode in ROUNDINGS if mode != "stochastic"]
FLOATS = [
    *map(get_format, ("e4m3fn", "e5m2", "e4m3fnuz", "e5m2fnuz", "e3m4", "e2m1fn", "e3m2fn", "fp16", "bf16", "tf32", "fp32")),
    *map(get_format, ("e8m13", "e6m9", "e8m24", "e10m40", "e11m51", "fp64")),
    FloatFormat("e1m2fn", 1, 2, specials="none"),
    FloatFormat("flushing", 4, 3, subnormals=False),
    FloatFormat("flushing_fnuz", 5, 2, subnormals=False, specials="negative_zero_is_nan"),
    FloatFormat("flushing_bf16", 8, 7, subnormals=False),
    FloatFormat("unsigned", 4, 4, signed=False),
    FloatFormat("unsigned_flushing", 4, 4, signed=False, subnormals=False),
    FloatFormat("powers", 6, 0, specials="max_is_nan"),
    FloatFormat("powers_none", 5, 0, specials="none"),
    FloatFormat("near_zero", 4, 3, bias=140),
    FloatFormat("near_the_top", 4, 3, bias=-115),
    FloatFormat("beyond_fp32", 9, 3),
    FloatFormat("below_fp32", 8, 7, bias=128),
    FloatFormat("deep_subnormals", 8, 10, bias=160),
    FloatFormat("shifted", 4, 3, bias=11),
]  # fmt: skip


def policies(fmt):
    return ("saturate", "ieee") if fmt.has_nan else ("saturate",)


def fits_fp32(fmt):
    return fmt.emax <= 127 and fmt.emin - fmt.mantissa_bits >= -149 and fmt.mantissa_bits <= 23


def inputs(fmt, dtype, count):
    """Random numbers over the format's range, those around a few of its values, and specials."""
    spread = fp64_strata(count, max(fmt.emin - fmt.mantissa_bits - 3, -1074), min(fmt.emax + 1, 1023), seed=fmt.code_bits)
    some = [fmt.smallest_subnormal, fmt.smallest_normal, 1.5 * fmt.smallest_normal, fmt.max / 2, fmt.max]
    with np.errstate(over="ignore", under="ignore"):
        return np.concatenate([around(np.array([*some, *np.negative(some)]), dtype), spread.astype(dtype)])


CASES = [(fmt, dtype) for fmt in FLOATS for dtype in (np.float64, np.float32) if dtype == np.float64 or fits_fp32(fmt)]


@pytest.mark.parametrize(("fmt", "dtype"), CASES, ids=lambda v: getattr(v, "name", getattr(v, "__name__", None)))
def test_every_mode_and_policy_against_rational_arithmetic(fmt, dtype):
    x = inputs(fmt, dtype, 400)
    for mode, overflow in itertools.product(MODES, policies(fmt)):
        given = x if fmt.has_nan else x[~np.isnan(x)]
        expected = [rounded(float(v), fmt, mode, overflow) for v in given]
        with np.errstate(over="ignore"):
            expected = np.array(expected).astype(dtype)
        ours = quantize(given, fmt, rounding=mode, overflow=overflow)
        assert_same_floats(ours, expected, given, f"{fmt.name} {mode} {overflow}")


@pytest.mark.parametrize("random_bits", [1, 5, 32])
@pytest.mark.parametrize(("fmt", "dtype"), CASES, ids=lambda v: getattr(v, "name", getattr(v, "__name__", None)))
def test_stochastic_rounding_of_given_words_against_rational_arithmetic(fmt, dtype, random_bits):
    x = inputs(fmt, dtype, 400)
    x = x if fmt.has_nan else x[~np.isnan(x)]
    words = np.random.default_rng(1).integers(0, 1 << random_bits, x.size)
    options = {"rounding": "stochastic", "overflow": "saturate", "seed": words, "random_bits": random_bits}
    # The discarded part has as many bits as the kernels keep of it: 32.
    expected = [
        rounded(float(v), fmt, "stochastic", "saturate", Fraction(int(w), 1 << random_bits))
        for v, w in zip(x, words, strict=True)
    ]
    with np.errstate(over="ignore"):
        assert_same_floats(quantize(x, fmt, **options), np.array(expected).astype(dtype), x, fmt.name)


@pytest.mark.parametrize("mode", MODES)
def test_powers_of_two_without_zero_or_sign(mode):
    """E8M0: the neighbouring power of two; what lies below the smallest becomes the smallest."""
    fmt = get_format("e8m0fnu")
    x = np.abs(np.concatenate([fp64_strata(500, -130, 130), around(fmt.table()[:40], np.float64)]))
    x = x[np.isfinite(x) & (x > 0)]
    expected = []
    for v in map(Fraction, map(float, x)):
        exponent = v.numerator.bit_length() - v.denominator.bit_length()
        exponent -= v < Fraction(2) ** exponent
        value = round_to_step(v, Fraction(2) ** exponent, mode)
        expected.append(float(min(max(value, Fraction(2) ** -127), Fraction(2) ** 127)))
    assert_same_floats(quantize(x, fmt, rounding=mode), np.array(expected), x, mode)


@pytest.mark.parametrize(
    ("overflow", "expected"),
    [
        ("saturate", [2.0**-127, 2.0**-127, 2.0**127, np.nan]),
        ("ieee", [np.nan, np.nan, np.nan, np.nan]),
        ("ml_dtypes", [np.nan, np.nan, np.nan, np.nan]),
        ("torch", [2.0**-127, 2.0, np.nan, np.nan]),
    ],
)
def test_what_e8m0_makes_of_zero_a_negative_number_inf_and_nan(overflow, expected):
    x = np.array([0.0, -2.0, np.inf, np.nan])
    np.testing.assert_array_equal(quantize(x, "e8m0fnu", overflow=overflow), expected)


SHORT = [
    fmt
    for fmt in [*FLOATS, *map(get_format, ("e4m3", "e4m3b11fnuz", "e2m3fn"))]
    if (fits_fp32(fmt) and arrays.plan(fmt, "nearest_even", "saturate", 32).how != kernels.GENERAL)
    or arrays.plan(fmt, "nearest_even", None, 32).how != kernels.GENERAL
]  # fmt: skip


@pytest.fixture(scope="module")
def strata():
    x = fp32_strata(20)
    return x[~np.isnan(x)]


@pytest.mark.parametrize("overflow", [None, "saturate"])
@pytest.mark.parametrize("fmt", SHORT, ids=lambda f: f.name)
def test_the_short_ways_equal_the_general_one(fmt, overflow, strata):
    plan = arrays.plan(fmt, "nearest_even", overflow, 32)
    if plan.how == kernels.GENERAL:
        assert overflow == "saturate", "a format is here for one of its policies"
        return
    results = []
    for how in (plan.how, kernels.GENERAL):
        out = np.empty_like(strata)
        words = np.empty(0, np.uint32)
        kernels.converter(kernels.NEAREST_EVEN, how, 0)(
            strata, out, 0, np.float32(1), plan.packed, np.uint64(0), np.uint64(0), words
        )
        results.append(out)
    assert_same_floats(*results, strata, fmt.name)


def test_both_short_ways_are_taken():
    ways = {arrays.plan(fmt, "nearest_even", None, 32).how for fmt in SHORT}
    assert {kernels.BY_ADDING, kernels.BY_SHIFTING} <= ways


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["e4m3fn", "e5m2fnuz", "e2m1fn", "bf16", "fp16", "tf32"])
def test_a_value_of_the_format_stays_as_it_is(name, mode):
    fmt = get_format(name)
    codes = range(1 << fmt.code_bits) if fmt.code_bits <= 8 else range(0, 1 << fmt.code_bits, 7)
    values = np.array([float(v) for v in (code_value(c, fmt) for c in codes) if isinstance(v, Fraction)], np.float32)
    assert_same_floats(quantize(values, name, rounding=mode), values + 0.0, values)


@pytest.mark.parametrize("name", ["e4m3fn", "bf16", "e3m2fn"])
def test_to_odd_then_nearest_is_nearest_at_once(name):
    """Boldo and Melquiond, IEEE Trans. Computers 57 (2008), theorem 3: two bits more suffice."""
    fmt = get_format(name)
    wider = FloatFormat("wider", 11, fmt.mantissa_bits + 2)
    x = inputs(fmt, np.float64, 5000)
    x = x[np.abs(x) >= fmt.smallest_normal]
    twice = quantize(quantize(x, wider, rounding="to_odd"), name)
    assert_same_floats(twice, quantize(x, name), x)
    assert (quantize(quantize(x, wider), name) != quantize(x, name)).any(), "nearest twice would have done"


# --- integers, fixed point, codebooks -------------------------------------------------------------------------------------------

STEPPED = [
    *(get_format(n) for n in ("int8", "int4_symmetric", "uint8", "uint1", "int2", "int16", "q4.12", "uq0.8", "q1.7", "q2.6")),
    FixedFormat("coarse", 9, -3),
    FixedFormat("symmetric", 2, 6, symmetric=True),
    IntFormat("int24", 24),
    IntFormat("uint24", 24, signed=False),
]


def exact_steps(v, fmt, mode, zero_point=0, chance=None):
    """A float in a format with a step, as a Fraction."""
    low, high = fmt.code_min - zero_point, fmt.code_max - zero_point
    if math.isinf(v):
        return (high if v > 0 else low) * Fraction(fmt.step)
    value = round_to_step(Fraction(v), Fraction(fmt.step), mode, chance)
    return min(max(value, low * Fraction(fmt.step)), high * Fraction(fmt.step))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fmt", STEPPED, ids=lambda f: f.name)
def test_integers_and_fixed_point_against_rational_arithmetic(fmt, mode, dtype):
    rng = np.random.default_rng(fmt.bits)
    whole = rng.integers(2 * fmt.code_min - 3, 2 * fmt.code_max + 4, 150)
    part = rng.choice([0, 0.5, -0.5, 0.25, 2.0**-20, 1e-9], 150)
    x = np.concatenate([(whole + part) * fmt.step, rng.normal(0, fmt.max, 150), [np.inf, -np.inf, 0, 1e30, -1e30, 1e-30]])
    x = x.astype(dtype)
    expected = np.array([float(exact_steps(float(v), fmt, mode)) for v in x]).astype(dtype)
    np.testing.assert_array_equal(quantize(x, fmt, rounding=mode), expected)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("name", "zero_point"), [("uint8", 128), ("int8", -5), ("int8", 127), ("uint4", 3), ("int4", -8)])
def test_a_zero_point_shifts_the_range(name, zero_point, mode):
    fmt, scale = get_format(name), 0.5
    x = np.concatenate([np.linspace(-200, 200, 1601), [np.inf, -np.inf]])
    expected = [float(exact_steps(v / scale, fmt, mode, zero_point)) * scale for v in x.tolist()]
    np.testing.assert_array_equal(quantize(x, name, rounding=mode, scale=scale, zero_point=zero_point), expected)


@pytest.mark.parametrize("name", ["int8", "q4.4", "e2m1fn", "e4m3fn", "nf4"])
@pytest.mark.parametrize("shape", [(), (1,), (6, 1), (5,), (6, 5)])
def test_a_scale_divides_and_multiplies_in_the_type_of_x(name, shape):
    rng = np.random.default_rng(0)
    x = rng.normal(0, 3, (6, 5)).astype(np.float32)
    scale = rng.uniform(0.01, 2, shape).astype(np.float32)
    np.testing.assert_array_equal(quantize(x, name, scale=scale), quantize(x / scale, name) * scale)


BOOKS = [
    get_format("binary"),
    get_format("ternary"),
    get_format("nf4"),
    CodebookFormat("uneven", (-5.0, -1e-3, 0.1, 0.3, 7.0)),
    CodebookFormat("many", tuple(math.sinh(i / 40) for i in range(-90, 90))),
    CodebookFormat("close", (1.0, math.nextafter(1.0, 2), math.nextafter(math.nextafter(1.0, 2), 2), 3.0)),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("mode", ["nearest_even", "nearest_away", "toward_zero", "up", "down"])
@pytest.mark.parametrize("fmt", BOOKS, ids=lambda f: f.name)
def test_codebooks_against_rational_arithmetic(fmt, mode, dtype):
    x = around(np.array(fmt.values), dtype)
    x = np.concatenate([x[~np.isnan(x)], np.linspace(-8, 8, 801).astype(dtype), dtype([1e-30, -1e-30])])
    table = [Fraction(v) for v in fmt.values]

    def nearest(v):
        exact = Fraction(v) if math.isfinite(v) else Fraction(10) ** 400 * (1 if v > 0 else -1)
        if mode == "up" or (mode == "toward_zero" and v <= 0):
            return next((t for t in table if t >= exact), table[-1])
        if mode in ("down", "toward_zero"):
            return next((t for t in reversed(table) if t <= exact), table[0])
        tie = (lambda i: i % 2) if mode == "nearest_even" else (lambda i: -abs(table[i]))
        return table[min(range(len(table)), key=lambda i: (abs(table[i] - exact), tie(i)))]

    np.testing.assert_array_equal(
        quantize(x, fmt, rounding=mode), np.array([float(nearest(v)) for v in x.tolist()]).astype(dtype)
    )


# --- stochastic rounding --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "step"), [("e4m3fn", 0.125), ("bf16", 2.0**-7), ("int8", 1.0), ("q4.4", 0.0625)])
@pytest.mark.parametrize("random_bits", [1, 2, 4, 7])
def test_the_probability_is_the_discarded_fraction_in_whole_parts(name, step, random_bits):
    """All words once: of 2^r, ⌊fraction · 2^r⌋ go away from zero."""
    words = np.arange(1 << random_bits)
    for sixteenths, sign in itertools.product(range(17), (1, -1)):
        x = np.full(words.size, sign * (1.0 + step * sixteenths / 16), np.float32)
        result = quantize(x, name, rounding="stochastic", seed=words, random_bits=random_bits)
        assert set(np.abs(result)) <= {1.0, 1.0 + step}
        expected = words.size if sixteenths == 16 else sixteenths * words.size // 16
        assert int((np.abs(result) > 1.0).sum()) == expected


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("name", "low", "step"), [("e4m3fn", 1.0, 0.125), ("bf16", -2.0, 2.0**-6), ("e4m3fn", 0.0, 2.0**-9), ("int8", 3.0, 1.0)]
)
@pytest.mark.parametrize("fraction", [0.03, 0.5, 0.81])
def test_mean_and_variance_of_a_seeded_stream(name, low, step, fraction, dtype):
    """2^20 draws of a Bernoulli variable: the mean within 5 standard errors (a false alarm in 1.7 million tests), the variance
    that of the mean."""
    count = 1 << 20
    away = -step if low < 0 else step
    x = np.full(count, low + fraction * away, dtype)
    result = quantize(x, name, rounding="stochastic", seed=20)
    assert set(result) == {low, low + away}
    exact = (float(x[0]) - low) / away  # x itself rounds to its type
    share = float(((result - low) / away).mean())
    assert abs(share - exact) < 5 * math.sqrt(exact * (1 - exact) / count)
    assert np.var(result) == pytest.approx(step**2 * share * (1 - share), rel=1e-6)


def test_neighbouring_seeds_and_elements_are_independent():
    """Correlations of 2^18 pairs within 5 standard errors, 1/√n each."""
    count = 1 << 18
    x = np.full(count + 64, 1.0625, np.float32)
    draws = np.stack([quantize(x, "e4m3fn", rounding="stochastic", seed=seed) > 1.0625 for seed in range(8)]).astype(float) - 0.5
    for a, b in itertools.combinations(range(8), 2):
        for shift in (0, 1, 2):
            assert abs(4 * np.mean(draws[a, :count] * draws[b, shift : count + shift])) < 5 / math.sqrt(count)
    for lag in (1, 2, 16, 64):
        assert abs(4 * np.mean(draws[:, :count] * draws[:, lag : count + lag])) < 5 / math.sqrt(8 * count)


@pytest.mark.parametrize("name", ["e4m3fn", "int8", "mxfp4", "nvfp4"])
def test_the_bits_do_not_depend_on_the_threads(name):
    x = np.random.default_rng(0).normal(0, 3, 1 << 18).astype(np.float32)
    before = numba.get_num_threads()
    try:
        results = []
        for threads in {1, min(2, numba.config.NUMBA_NUM_THREADS), numba.config.NUMBA_NUM_THREADS}:
            numba.set_num_threads(threads)
            results.append(quantize(x, name, rounding="stochastic", seed=7))
    finally:
        numba.set_num_threads(before)
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


def test_an_element_draws_by_its_place_in_the_array():
    """SplitMix64 (Steele et al. 2014, figure 16) in Python's integers, from the key of the seed."""
    mask = (1 << 64) - 1

    def mixed(z):
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return z ^ (z >> 31)

    gamma, seed = 0x9E3779B97F4A7C15, 12345
    key = mixed((seed + gamma) & mask)
    words = np.array([mixed((key + (i + 1) * gamma) & mask) >> 32 for i in range(300)])
    x = np.random.default_rng(3).normal(size=(20, 15)).astype(np.float32)
    by_seed = quantize(x, "e3m2fn", rounding="stochastic", seed=seed)
    by_words = quantize(x, "e3m2fn", rounding="stochastic", seed=words.reshape(x.shape))
    np.testing.assert_array_equal(by_seed, by_words)
    # Fewer bits are the upper ones.
    np.testing.assert_array_equal(
        quantize(x, "e3m2fn", rounding="stochastic", seed=seed, random_bits=5),
        quantize(x, "e3m2fn", rounding="stochastic", seed=(words >> 27).reshape(x.shape), random_bits=5),
    )
    assert (quantize(x, "e3m2fn", rounding="stochastic", seed=seed + 1) != by_seed).any()
    np.testing.assert_array_equal(quantize(x.T, "e3m2fn", rounding="stochastic", seed=words.reshape(x.shape).T), by_words.T)


# --- arrays ---------------------------------------------------------------------------------------------------------------------

EVERY = [
    n
    for n in format_names()
    if n not in ("bool", "complex64", "complex128", "int64", "uint64") and not n.startswith(("mx", "nvfp4"))
]


@pytest.mark.parametrize("name", EVERY)
def test_layouts_give_the_same_values(name):
    rng = np.random.default_rng(0)
    x = rng.normal(0, 2, (12, 10))
    flat = quantize(x, name)
    assert flat.dtype == x.dtype
    assert flat.shape == x.shape
    np.testing.assert_array_equal(quantize(np.asfortranarray(x), name), flat)
    np.testing.assert_array_equal(quantize(x[::2, ::-3], name), flat[::2, ::-3])
    np.testing.assert_array_equal(quantize(x.T, name), flat.T)
    np.testing.assert_array_equal(quantize(np.array(x[0, 0]), name), flat[0, 0])
    assert quantize(np.array(x[0, 0]), name).shape == ()
    assert quantize(x[0, 0], name) == flat[0, 0]
    assert isinstance(quantize(float(x[0, 0]), name), float)
    assert quantize(x[:0], name).shape == (0, 10)
    np.testing.assert_array_equal(quantize(x.tolist(), name), flat)
    # Each element of x was left alone.
    np.testing.assert_array_equal(x, np.random.default_rng(0).normal(0, 2, (12, 10)))


@pytest.mark.parametrize("name", ["e4m3fn", "int8", "nf4", "e8m0fnu", "mxfp4", "nvfp4"])
def test_out_takes_the_result(name):
    x = np.random.default_rng(0).normal(0, 2, (4, 64)).astype(np.float32)
    expected = quantize(x, name)
    out = np.empty_like(x)
    assert quantize(x, name, out=out) is out
    np.testing.assert_array_equal(out, expected)
    wide = np.empty(x.shape, np.float64)
    np.testing.assert_array_equal(quantize(x, name, out=wide), expected.astype(np.float64))
    strided = np.zeros((4, 128), np.float32)
    quantize(x, name, out=strided[:, ::2])
    np.testing.assert_array_equal(strided[:, ::2], expected)
    assert not strided[:, 1::2].any()
    same = x.copy()
    quantize(same, name, out=same)
    np.testing.assert_array_equal(same, expected)
    turned = x.copy()
    quantize(turned[::-1], name, out=turned)
    np.testing.assert_array_equal(turned, expected[::-1])


@pytest.mark.parametrize("name", ["e4m3fn", "int8", "nf4"])
def test_an_out_that_overlaps_x_elsewhere(name):
    buffer = np.random.default_rng(0).normal(0, 2, 1025).astype(np.float32)
    expected = quantize(buffer[:-1].copy(), name)
    quantize(buffer[:-1], name, out=buffer[1:])
    np.testing.assert_array_equal(buffer[1:], expected)


@pytest.mark.parametrize("name", ["e4m3fn", "int8", "nf4", "mxfp4", "nvfp4"])
def test_no_temporary_is_larger_than_the_output(name):
    x = np.random.default_rng(0).normal(0, 2, 1 << 20).astype(np.float32)
    out = np.empty_like(x)
    for call, size in ((lambda: quantize(x, name, out=out), 0), (lambda: encode(x, name), x.size)):
        call()  # compiled by now
        tracemalloc.start()
        call()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak - size < x.nbytes


def test_half_precision_arrays_come_back_as_such():
    x = np.float16([1.0, 1.06, -3.3, 1e-3, 70.0, np.inf, 6e-8])
    result = quantize(x, "e5m2")
    assert result.dtype == np.float16
    np.testing.assert_array_equal(result, quantize(x.astype(np.float32), "e5m2"))


def test_saturation_leaves_no_infinity_in_a_format_as_wide_as_the_array():
    for dtype, name in ((np.float32, "fp32"), (np.float64, "fp64")):
        top = np.finfo(dtype).max
        x = np.array([np.inf, -np.inf, 1.5, np.nan], dtype)
        np.testing.assert_array_equal(quantize(x, name, overflow="saturate"), np.array([top, -top, 1.5, np.nan], dtype))
        np.testing.assert_array_equal(quantize(x, name), x)


def test_largest_values_are_those_of_the_standards():
    """OCP OFP8 1.0, table 1; IEEE 754-2019, table 3.5; OCP MX 1.0, section 5.3."""
    known = {
        "e4m3fn": 448,
        "e5m2": 57344,
        "fp16": 65504,
        "e2m1fn": 6,
        "e2m3fn": 7.5,
        "e3m2fn": 28,
        "e4m3fnuz": 240,
        "e5m2fnuz": 57344,
    }
    for name, largest in known.items():
        assert get_format(name).max == largest == largest_value(get_format(name))


# --- errors ---------------------------------------------------------------------------------------------------------------------

X = np.zeros((2, 3), np.float32)


def read_only():
    array = X.copy()
    array.setflags(write=False)
    return array


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fmt": "e4m3fx"}, "format: unknown name 'e4m3fx'; did you mean 'e4m3fn' or 'e4m3' or 'e4m3fnuz'?"),
        ({"fmt": 8}, "format: expected a name such as 'bf16', got 8"),
        ({"rounding": "nearest"}, "rounding: unknown name 'nearest'; did you mean 'nearest_even' or 'nearest_away'?"),
        ({"overflow": "clip"}, "overflow: unknown name 'clip'; known: ieee, ml_dtypes, saturate, torch"),
        ({"fmt": "int8", "overflow": "clip"}, "overflow: unknown name 'clip'; known: ieee, ml_dtypes, saturate, torch"),
        (
            {"fmt": "int8", "overflow": "ieee"},
            "overflow: 'ieee' needs an Inf or a NaN, and 'int8' has neither; expected 'saturate'",
        ),
        (
            {"fmt": "e2m1fn", "overflow": "ieee"},
            "overflow: 'ieee' needs an Inf or a NaN, and 'e2m1fn' has neither; expected 'saturate', 'torch' or 'ml_dtypes'",
        ),
        ({"scale": 0.0}, "scale: expected positive, finite numbers, got 0.0"),
        ({"scale": -1}, "scale: expected positive, finite numbers, got -1.0"),
        ({"scale": math.nan}, "scale: expected positive, finite numbers, got nan"),
        ({"scale": np.array([1, np.inf, 2])}, "scale: expected positive, finite numbers, got inf"),
        ({"scale": "big"}, "scale: expected a number or an array of numbers, got 'big'"),
        ({"scale": np.ones(4)}, "scale: expected a shape that broadcasts to (2, 3), got (4,)"),
        ({"scale": np.ones((2, 2, 3))}, "scale: expected a shape that broadcasts to (2, 3), got (2, 2, 3)"),
        ({"zero_point": 1}, "zero_point: only integer formats have one, 'e4m3fn' has not; expected 0"),
        ({"fmt": "uint4", "zero_point": 16}, "zero_point: expected 0 to 15 (uint4), got 16"),
        ({"fmt": "uint4", "zero_point": 1.5}, "zero_point: expected an integer, got 1.5"),
        (
            {"rounding": "stochastic"},
            "seed: stochastic rounding needs one: an integer, or an array of random words of random_bits bits, of the shape of x",
        ),
        ({"seed": 1}, "seed: rounding 'nearest_even' draws no random bits; leave seed out or give rounding='stochastic'"),
        (
            {"random_bits": 8},
            "random_bits: rounding 'nearest_even' draws none; leave random_bits out or give rounding='stochastic'",
        ),
        ({"rounding": "stochastic", "seed": -1}, "seed: expected an integer from 0 to 2^64 − 1, got -1"),
        ({"rounding": "stochastic", "seed": 1 << 64}, "seed: expected an integer from 0 to 2^64 − 1, got 18446744073709551616"),
        ({"rounding": "stochastic", "seed": 1.5}, "seed: expected an integer or an array of integers, got float64"),
        ({"rounding": "stochastic", "seed": np.zeros(3, int)}, "seed: expected random words of shape (2, 3), got (3,)"),
        (
            {"rounding": "stochastic", "seed": np.full((2, 3), 256), "random_bits": 8},
            "seed: random words must lie in 0 … 2^8 − 1 (random_bits=8), got 256",
        ),
        ({"rounding": "stochastic", "seed": 1, "random_bits": 33}, "random_bits: expected an integer from 1 to 32, got 33"),
        ({"out": [0.0]}, "out: expected a numpy array, got list"),
        ({"out": np.zeros(6, np.float32)}, "out: expected shape (2, 3), got (6,)"),
        ({"out": np.zeros((2, 3), np.int8)}, "out: expected floats, got int8"),
        ({"out": read_only()}, "out: the array is read-only"),
        ({"x": np.zeros(2, np.int32)}, "x: expected 16-, 32- or 64-bit floats, got int32"),
        ({"x": np.zeros(2, complex)}, "x: expected 16-, 32- or 64-bit floats, got complex128"),
        ({"x": np.float32([np.nan]), "fmt": "int8"}, "x: holds a NaN, and 'int8' has none; expected numbers"),
        ({"x": np.float32([np.nan]), "fmt": "e2m1fn"}, "x: holds a NaN, and 'e2m1fn' has none; expected numbers"),
        ({"x": np.float32([np.nan]), "fmt": "ternary"}, "x: holds a NaN, and 'ternary' has none; expected numbers"),
        ({"fmt": "int32"}, "out: float32 cannot hold the result in 'int32'; expected a type with more bits"),
        (
            {"x": np.zeros(2), "fmt": "int64"},
            "out: float64 cannot hold the result in 'int64'; expected a type with more bits",
        ),
        (
            {"fmt": FloatFormat("below", 5, 2, bias=160)},
            "out: float32 cannot hold the result in 'below'; expected a type with more bits",
        ),
        (
            {"x": np.float32([448]), "out": np.zeros(1, np.float16), "fmt": "e8m7", "scale": 1e5},
            "out: float16 cannot hold the result in 'e8m7'; expected a type with more bits",
        ),
        (
            {"fmt": "ternary", "rounding": "to_odd"},
            "rounding: a codebook has no 'to_odd'; expected nearest_even, nearest_away, toward_zero, up or down",
        ),
    ],
)
def test_bad_input_is_named(arguments, message):
    x = arguments.pop("x", X)
    fmt = arguments.pop("fmt", "e4m3fn")
    if "scale" in arguments and "out" in arguments:
        x = x * np.float32(1e5)
    with pytest.raises(InputError) as caught:
        quantize(x, fmt, **arguments)
    assert str(caught.value) == message


# --- what a call must not do ----------------------------------------------------------------------------------------------------


def test_without_a_mantissa_bit_the_even_significand_wins_on_every_path():
    fmt = FloatFormat("x", 8, 0, specials="max_is_nan")
    x = np.array([1.5, 3.0, 6.0, 0.75])
    for given in (x, x.astype(np.float32)):
        assert quantize(given, fmt).tolist() == [2.0, 4.0, 8.0, 1.0]


def test_what_fails_leaves_out_as_it_was():
    out = np.zeros(2, np.float16)
    with pytest.raises(InputError, match=r"^out: float16 cannot hold the result in 'bf16'; expected a type with more bits$"):
        quantize(np.float32([1, 1e30]), "bf16", out=out)
    assert out.tolist() == [0, 0]
    x = np.float32([300, np.nan])
    with pytest.raises(InputError, match=r"^x: holds a NaN, and 'int8' has none; expected numbers$"):
        quantize(x, "int8", out=x)
    assert x[0] == 300


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: quantize([3.0], "bool"), "fmt: 'bool' is there for its bytes only; expected a format of real numbers"),
        (lambda: quantize([3.0], "e4m3fn", axis=7), "axis: expected -1 to 0 (x has 1 dimensions), got 7"),
        (lambda: quantize(np.ones(32), "mxfp4", axis=1.0), "axis: expected an integer, got 1.0"),
        (
            lambda: quantize(np.ones((0, 33)), "mxfp4"),
            "axis: expected a length that the block size 32 of 'mxfp4' divides, got 33 (shape (0, 33), axis -1)",
        ),
        (
            lambda: quantize(np.float16([0.3]), "int8", scale=0.1),
            "x: float16 cannot hold the result in 'int8'; expected float32 or float64, or an out of such a type",
        ),
    ],
)
def test_more_errors_in_one_line(call, text):
    with pytest.raises(InputError, match=f"^{re.escape(text)}$"):
        call()
