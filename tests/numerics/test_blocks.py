"""Block formats against the rules of OCP Microscaling Formats 1.0 and NVFP4, in rational arithmetic."""

import math
from fractions import Fraction

import numba
import numpy as np
import pytest
from exact_rounding import floor_log2, power, round_to_step, rounded
from float_strata import assert_same_floats

from numerics import BlockFormat, FixedFormat, FloatFormat, InputError, IntFormat, decode, encode, get_format, quantize

OCP = ["mxfp8_e4m3", "mxfp8_e5m2", "mxfp6_e2m3", "mxfp6_e3m2", "mxfp4", "mxint8"]
# OCP MX 1.0, table 1 and section 5.3: exponent of the largest power of two of an element, and its largest value.
ELEMENTS = {
    "mxfp8_e4m3": (8, 448.0),
    "mxfp8_e5m2": (15, 57344.0),
    "mxfp6_e2m3": (2, 7.5),
    "mxfp6_e3m2": (4, 28.0),
    "mxfp4": (2, 6.0),
    "mxint8": (0, 1 + 63 / 64),
}


def exact_element(v, element, mode, chance=None):
    """A ``Fraction`` in a saturating element format."""
    if not isinstance(element, FloatFormat):
        value = round_to_step(v, Fraction(element.step), mode, chance)
        return min(max(value, Fraction(element.min)), Fraction(element.max))
    # Rounded as a float that holds it: an element of a finite block has the 24 or 53 bits of x.
    return Fraction(rounded(float(v), element, mode, "saturate", chance))


def ocp_block(block, name, mode="nearest_even"):
    """OCP MX 1.0, section 6.3: the scale's exponent and the values of one block."""
    emax, _ = ELEMENTS[name]
    if not all(map(math.isfinite, block)):
        return None, [math.nan] * len(block)
    exact = [Fraction(float(v)) for v in block]
    largest = max(map(abs, exact))
    exponent = min(max(floor_log2(largest) - emax, -127), 127) if largest else -127
    element = get_format(name).element
    values = [float(exact_element(v / power(exponent), element, mode) * power(exponent)) for v in exact]
    return exponent, [math.copysign(v, x) for v, x in zip(values, block, strict=True)]


def blocks_of_every_kind(dtype):
    """Ordinary ones, zeros, subnormals, the largest floats, wide spreads, and one big element among small."""
    rng = np.random.default_rng(0)
    tiny, top = (2.0**-149, float(np.finfo(np.float32).max))
    rows = [
        rng.normal(0, 1, 32),
        rng.normal(0, 1, 32) * 2.0 ** rng.integers(-30, 30, 32),
        np.zeros(32),
        -np.zeros(32),
        rng.integers(-5, 6, 32) * tiny,
        rng.integers(-(2**22), 2**22, 32) * tiny,
        np.r_[tiny, np.zeros(31)],
        rng.uniform(-1, 1, 32) * top,
        np.r_[top, -top, 2.0**127, rng.normal(0, 1, 29) * 2.0**120],
        np.r_[1e30, rng.normal(0, 1, 31)],
        2.0 ** np.arange(-16, 16),
        -(1.9999 * 2.0 ** np.arange(-100, -68)),
        np.r_[np.inf, rng.normal(0, 1, 31)],
        np.r_[np.nan, rng.normal(0, 1, 31)],
        np.r_[rng.normal(0, 1, 31), -np.inf],
        # The largest element on both sides of powers of two, and what saturates: 1.75 to 2 times a power of two.
        *(np.r_[top_of_block, rng.normal(0, top_of_block / 3, 31)] for top_of_block in (1.0, math.nextafter(1, 0), 1.76, 1.999)),
        *(rng.normal(0, 2.0**e, 32) for e in (-140, -126, -120, -60, 60, 110, 118)),
    ]
    return np.array(rows).astype(dtype)


# All modes for fp32 numbers, one for fp64: each combination is a kernel to compile.
MODES = [(mode, np.float32) for mode in ("nearest_even", "nearest_away", "toward_zero", "up", "down", "to_odd")]


@pytest.mark.parametrize(("mode", "dtype"), [*MODES, ("nearest_even", np.float64)])
@pytest.mark.parametrize("name", OCP)
def test_blocks_by_the_rules_of_ocp(name, mode, dtype):
    x = blocks_of_every_kind(dtype)
    codes = encode(x, name, rounding=mode)
    expected = [ocp_block(row, name, mode) for row in x]
    values = np.array([row for _, row in expected]).astype(dtype)
    exponents = [255 if exponent is None else exponent + 127 for exponent, _ in expected]
    assert codes.scales.ravel().tolist() == exponents
    ours = quantize(x, name, rounding=mode)
    if name == "mxint8":
        ours, values = ours + 0.0, values + 0.0  # an integer has no −0
    assert_same_floats(ours, values, x, name)
    assert_same_floats(decode(codes, dtype=dtype) + 0.0, values + 0.0, x, name)


@pytest.mark.parametrize("name", OCP)
def test_elements_are_those_of_the_standard(name):
    fmt = get_format(name)
    emax, largest = ELEMENTS[name]
    assert (math.frexp(fmt.element.max)[1] - 1, fmt.element.max) == (emax, largest)
    assert (fmt.block_size, fmt.scale.name, fmt.scale_rounding) == (32, "e8m0fnu", "floor")


def few_line_quantizer(x, emax, largest, mantissa, emin):
    """Another way to the same values: numpy's rint on exponents from frexp, the whole array at once."""
    blocks = x.reshape(-1, 32).astype(np.float64)
    exponent = np.frexp(np.abs(blocks).max(1, keepdims=True))[1] - 1 - emax
    scale = np.ldexp(1.0, np.maximum(exponent, -127))
    y = blocks / scale
    step = np.ldexp(1.0, np.maximum(np.frexp(y)[1] - 1, emin) - mantissa)
    return (np.clip(np.rint(y / step) * step, -largest, largest) * scale).reshape(x.shape)


@pytest.mark.parametrize(
    ("name", "mantissa", "emin"),
    [("mxfp8_e4m3", 3, -6), ("mxfp8_e5m2", 2, -14), ("mxfp6_e2m3", 3, 0), ("mxfp6_e3m2", 2, -2), ("mxfp4", 1, 0)],
)
def test_a_million_elements_against_a_few_lines_of_numpy(name, mantissa, emin):
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((1 << 15, 32)) * np.exp2(rng.integers(-60, 60, (1 << 15, 1)))).astype(np.float32)
    emax, largest = ELEMENTS[name]
    np.testing.assert_array_equal(quantize(x, name), few_line_quantizer(x, emax, largest, mantissa, emin).astype(np.float32))


# --- scales of other kinds ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [None, 0.01])
def test_nvfp4_has_two_levels_of_scales(scale, dtype):
    """amax / (6 · 448) in FP32; block amax / 6 over it in E4M3; elements over the product of both in E2M1."""
    rng = np.random.default_rng(0)
    x = (rng.normal(0, 1, (40, 16)) * np.exp2(rng.integers(-12, 3, (40, 1)))).astype(dtype)
    x[3] = 0
    whole = float(np.float32(np.abs(x).max().astype(np.float64) / (6 * 448))) if scale is None else float(dtype(scale))
    codes = encode(x, "nvfp4", scale=scale)
    assert codes.tensor_scale == whole
    e4m3, e2m1 = get_format("e4m3fn"), get_format("e2m1fn")
    expected = []
    for block, code in zip(x, codes.scales.ravel(), strict=True):
        block_scale = rounded(float(np.abs(block).max()) / whole / 6, e4m3, "nearest_even", "saturate")
        assert decode(np.array(code), "e4m3fn") == block_scale
        factor = dtype(np.float32(block_scale * whole))
        quotients = block / factor if factor else block * 0
        expected.append([dtype(rounded(float(v), e2m1, "nearest_even", "saturate")) * factor for v in quotients])
    ours = quantize(x, "nvfp4", scale=scale)
    assert_same_floats(ours, np.array(expected, dtype), x)
    assert_same_floats(decode(codes, dtype=dtype), ours, x)


def test_nvfp4_of_no_numbers():
    x = np.ones((4, 16), np.float32)
    x[0], x[1, 3], x[2, 5] = 0, np.nan, np.inf
    result = quantize(x, "nvfp4")
    assert np.isnan(result[1:3]).all()
    np.testing.assert_array_equal(result[0], 0)
    np.testing.assert_array_equal(result[3], 1)
    np.testing.assert_array_equal(decode(encode(x, "nvfp4")), result)
    np.testing.assert_array_equal(quantize(np.zeros((2, 16), np.float32), "nvfp4"), 0)


OWN = [
    BlockFormat("up", get_format("e2m1fn"), 8, get_format("e8m0fnu"), scale_rounding="up"),
    BlockFormat("nearest", get_format("e4m3fn"), 8, get_format("e8m0fnu"), scale_rounding="nearest"),
    BlockFormat("int8_fp32", IntFormat("int8", 8), 8, get_format("fp32"), scale_rounding="nearest"),
    BlockFormat("int4_bf16", IntFormat("int4_symmetric", 4, symmetric=True), 8, get_format("bf16"), scale_rounding="up"),
    BlockFormat("e5m2_e5m2", get_format("e5m2"), 8, get_format("e5m2"), scale_rounding="floor"),
    BlockFormat("bf16_e8m0", get_format("bf16"), 8, get_format("e8m0fnu")),
    BlockFormat("fixed", FixedFormat("q1.3", 1, 3), 8, get_format("e8m0fnu"), scale_rounding="up"),
    BlockFormat("wide", get_format("tf32"), 8, get_format("e8m0fnu")),
    BlockFormat("levels", get_format("e3m2fn"), 8, get_format("e4m3fn"), scale_rounding="up", tensor_scale=True),
]


def exact_scale(largest, fmt):
    """A block's scale by its rule, without a tensor scale, as a ``Fraction``."""
    if not largest:
        return Fraction(0) if fmt.scale.zero else Fraction(fmt.scale.min)
    if fmt.scale_rounding == "floor":
        ideal = power(floor_log2(largest) - (math.frexp(fmt.element.max)[1] - 1))
    else:
        ideal = largest / Fraction(fmt.element.max)
    mode = "up" if fmt.scale_rounding == "up" else "nearest_even"
    if fmt.scale.mantissa_bits == 0:
        value = round_to_step(ideal, power(floor_log2(ideal)), mode)
        return min(max(value, power(-127)), power(127))
    return Fraction(rounded(float(ideal), fmt.scale, mode, "saturate"))


@pytest.mark.parametrize("fmt", [f for f in OWN if not f.tensor_scale], ids=lambda f: f.name)
def test_a_format_of_ones_own(fmt):
    rng = np.random.default_rng(1)
    x = rng.normal(0, 1, (200, 8)) * np.exp2(rng.integers(-6, 6, (200, 1)))
    x[0] = 0
    codes, values = encode(x, fmt), quantize(x, fmt)
    scales = decode(codes.scales, fmt.scale, dtype=np.float64).ravel()
    for row, result, scale in zip(x, values, scales, strict=True):
        exact = exact_scale(max(abs(Fraction(float(v))) for v in row), fmt)
        assert Fraction(float(scale)) == exact
        for v, r in zip(row.tolist(), result.tolist(), strict=True):
            element = exact_element(Fraction(v / float(exact)), fmt.element, "nearest_even") if exact else 0
            assert Fraction(r) == element * exact
    assert_same_floats(decode(codes, dtype=np.float64) + 0.0, values + 0.0, x)


@pytest.mark.parametrize(
    ("mode", "dtype"),
    [("nearest_even", np.float32), ("nearest_even", np.float64), ("up", np.float32), ("stochastic", np.float32)],
)
@pytest.mark.parametrize("fmt", [*OWN, *map(get_format, OCP), get_format("nvfp4")], ids=lambda f: f.name)
def test_decode_of_encode_is_quantize_along_any_axis(fmt, dtype, mode):
    x = np.random.default_rng(0).normal(0, 1, (32, 3, 32)).astype(dtype)
    for axis in (0, 2, -1):
        options = {"rounding": mode, "axis": axis, "seed": 5 if mode == "stochastic" else None}
        codes = encode(x, fmt, **options)
        assert codes.codes.shape == x.shape
        ours = quantize(x, fmt, **options)
        assert_same_floats(decode(codes, dtype=dtype) + 0.0, ours + 0.0, x, fmt.name)
        if mode != "stochastic":
            moved = np.moveaxis(quantize(np.moveaxis(x, axis, -1), fmt, rounding=mode), -1, axis)
            np.testing.assert_array_equal(ours, moved)


@pytest.mark.parametrize("name", ["mxfp4", "mxint8", "nvfp4"])
def test_stochastic_elements_by_given_words(name):
    """With words that all say "stay" or all "go": toward zero, or away from it."""
    x = np.random.default_rng(0).normal(0, 1, (64, 2, 32)).astype(np.float32)
    stay = quantize(x, name, axis=0, rounding="stochastic", seed=np.zeros(x.shape, int), random_bits=8)
    np.testing.assert_array_equal(stay, quantize(x, name, axis=0, rounding="toward_zero"))
    away = quantize(x, name, axis=0, rounding="stochastic", seed=np.full(x.shape, 255), random_bits=8)
    up, down = quantize(x, name, axis=0, rounding="up"), quantize(x, name, axis=0, rounding="down")
    assert (np.isin(away, stay) | (away == np.where(x > 0, up, down))).all()
    assert np.abs(away).sum() > np.abs(stay).sum()
    # The words belong to elements, whichever way blocks run.
    words = np.random.default_rng(1).integers(0, 256, x.shape)
    along = quantize(x, name, axis=0, rounding="stochastic", seed=words, random_bits=8)
    turned = quantize(np.moveaxis(x, 0, -1), name, rounding="stochastic", seed=np.moveaxis(words, 0, -1), random_bits=8)
    np.testing.assert_array_equal(along, np.moveaxis(turned, -1, 0))


@pytest.mark.parametrize("name", [*OCP, "nvfp4"])
def test_the_blocks_do_not_depend_on_the_threads(name):
    x = np.random.default_rng(0).normal(0, 1, (1 << 13, 64)).astype(np.float32)
    before = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        one = quantize(x, name), encode(x, name)
        numba.set_num_threads(numba.config.NUMBA_NUM_THREADS)
        many = quantize(x, name), encode(x, name)
    finally:
        numba.set_num_threads(before)
    np.testing.assert_array_equal(one[0], many[0])
    np.testing.assert_array_equal(one[1].codes, many[1].codes)
    np.testing.assert_array_equal(one[1].scales, many[1].scales)


# --- published figures ----------------------------------------------------------------------------------------------------------


def sqnr_db(x, quantised):
    return 10 * math.log10(np.square(x).mean() / np.square(quantised - x).mean())


@pytest.mark.parametrize(("outliers", "published"), [(False, (31.6, 25.6, 39.4)), (True, (31.4, 25.5, 13.1))])
def test_sqnr_of_a_gaussian_tensor(outliers, published):
    """E4M3, E5M2 and INT8 with one scale that takes the largest element to the largest value; 0.1 % outliers of 100σ."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(1 << 20)
    if outliers:
        x[rng.random(x.size) < 1e-3] *= 100
    amax = np.abs(x).max()
    found = [sqnr_db(x, quantize(x, n, scale=amax / get_format(n).max)) for n in ("e4m3fn", "e5m2", "int8")]
    assert found[:2] == pytest.approx(published[:2], abs=0.4)
    assert found[2] == pytest.approx(published[2], abs=1.5)  # depends on the largest of the sample
    if not outliers:
        assert found[2] == pytest.approx(10 * math.log10(12 * (127 / amax) ** 2), abs=0.05)


@pytest.mark.parametrize(
    ("name", "largest", "smallest", "count"), [("e4m3fn", 448, 2.0**-9, 253), ("e5m2", 57344, 2.0**-16, 247)]
)
def test_the_values_of_fp8(name, largest, smallest, count):
    """OCP OFP8 1.0, tables 1 and 2."""
    values = get_format(name).table()
    finite = np.unique(values[np.isfinite(values)])
    assert (finite.max(), finite[finite > 0].min(), finite.size) == (largest, smallest, count)


# --- errors ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: quantize(np.zeros((4, 33)), "mxfp8_e4m3"),
            "axis: expected a length that the block size 32 of 'mxfp8_e4m3' divides, got 33 (shape (4, 33), axis -1)",
        ),
        (lambda: quantize(np.zeros(32), "mxfp4", axis=1), "axis: expected -1 to 0 (x has 1 dimensions), got 1"),
        (
            lambda: quantize(1.0, "mxfp4"),
            "x: blocks of 'mxfp4' need an axis to run along; expected at least 1 dimension, got a number",
        ),
        (lambda: quantize(np.zeros(32), "mxfp4", scale=2.0), "scale: 'mxfp4' finds its blocks' scales itself; leave scale out"),
        (
            lambda: quantize(np.zeros((2, 16)), "nvfp4", scale=np.ones((2, 1))),
            "scale: 'nvfp4' takes one number for the tensor, got an array of shape (2, 1)",
        ),
        (
            lambda: quantize(np.zeros(32), "mxfp4", overflow="ieee"),
            "overflow: elements of a block saturate; expected 'saturate', got 'ieee'",
        ),
        (
            lambda: quantize(np.full(16, 1e300), "nvfp4"),
            "x: its largest magnitude 1e+300 needs a tensor scale beyond those of float32; expected smaller numbers",
        ),
        (
            lambda: BlockFormat("b", get_format("e8m0fnu"), 8, get_format("e8m0fnu")),
            "format 'b': element: expected a signed format with a zero, got 'e8m0fnu'",
        ),
        (
            lambda: BlockFormat("b", get_format("uint4"), 8, get_format("e8m0fnu")),
            "format 'b': element: expected a signed format with a zero, got 'uint4'",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError) as caught:
        call()
    assert str(caught.value) == message
