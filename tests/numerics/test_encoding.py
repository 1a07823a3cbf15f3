"""Codes: against exact rational arithmetic, against ``quantize``, and over the options of ``encode`` and ``decode``."""

import itertools
import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from exact_rounding import code_value
from float_strata import assert_same_floats, fp32_strata

from numerics import FixedFormat, FloatFormat, InputError, IntFormat, decode, encode, format_names, get_format, quantize
from numerics.rounding import ROUNDINGS

FLOATS = [
    *(get_format(n) for n in ("e4m3fn", "e5m2", "e4m3", "e4m3fnuz", "e5m2fnuz", "e2m1fn", "e3m2fn", "fp16", "bf16", "tf32")),
    *(get_format(n) for n in ("e6m9", "e8m13", "e8m0fnu", "e8m24", "fp32", "fp64")),
    FloatFormat("flushing", 4, 3, subnormals=False),
    FloatFormat("unsigned", 4, 4, signed=False),
    FloatFormat("powers", 6, 0, specials="max_is_nan"),
    FloatFormat("beyond_fp32", 9, 3),
]
STEPPED = [get_format(n) for n in ("int8", "int5_symmetric", "uint3", "uint1", "q4.12", "uq0.8", "int16", "int32", "uint32")]
BOOKS = [get_format(n) for n in ("binary", "ternary", "nf4")]


def some_codes(fmt):
    """All codes of a short format; of a long one those at its ends and some between."""
    count = 1 << fmt.code_bits
    if fmt.code_bits <= 12:
        return list(range(count))
    ends = [base + i for base in (0, count // 2, count) for i in range(-300, 300)]
    within = [int(i) for i in np.random.default_rng(0).integers(0, count, 2000, dtype=np.uint64)]
    return sorted({code % count for code in ends + within})


def unsigned(codes, bits):
    return np.array(codes, f"u{max(1, 1 << max(0, (bits - 1).bit_length() - 3))}")


@pytest.mark.parametrize("fmt", FLOATS, ids=lambda f: f.name)
def test_a_code_decodes_to_its_exact_value_and_back(fmt):
    codes = some_codes(fmt)
    values = decode(unsigned(codes, fmt.code_bits), fmt, dtype=np.float64)
    for code, value in zip(codes, values.tolist(), strict=True):
        exact = code_value(code, fmt)
        if isinstance(exact, Fraction):
            assert Fraction(value) == exact, hex(code)
            assert math.copysign(1, value) == (-1 if fmt.signed and code >> (fmt.code_bits - 1) else 1)
        else:
            assert value == exact or (math.isnan(value) and math.isnan(exact)), hex(code)
    back = encode(values, fmt)
    assert back.dtype == unsigned([0], fmt.code_bits).dtype
    numbers = ~np.isnan(values)
    if not fmt.subnormals:
        numbers &= values != 0  # every code with an exponent field of 0 is a zero
    np.testing.assert_array_equal(back[numbers], unsigned(codes, fmt.code_bits)[numbers])
    assert np.isnan(decode(back[~np.isnan(values) ^ True], fmt, dtype=np.float64)).all()


def modes(fmt, dtype):
    """All of them for short codes of fp32 numbers; three otherwise, for each combination is a kernel to compile."""
    if fmt in BOOKS:
        return ["nearest_even", "nearest_away", "toward_zero", "up", "down"]
    return list(ROUNDINGS) if fmt.bits <= 16 and dtype == np.float32 else ["nearest_even", "down", "stochastic"]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("fmt", FLOATS + STEPPED + BOOKS, ids=lambda f: f.name)
def test_decode_of_encode_is_quantize(fmt, dtype):
    x = fp32_strata(12)
    x = np.concatenate([x[~np.isnan(x)], np.random.default_rng(0).normal(0, 3, 500), [0.0, -0.0, np.inf, -np.inf]]).astype(dtype)
    if fmt.name in ("fp64", "e8m24", "beyond_fp32", "int32", "uint32") and dtype == np.float32:
        return  # quantize has no float32 result to compare with
    overflows = [None, "saturate", "torch", "ml_dtypes"] if isinstance(fmt, FloatFormat) else [None]
    if isinstance(fmt, FloatFormat) and fmt.has_nan:
        overflows.append("ieee")
    for mode, overflow, scale in itertools.product(modes(fmt, dtype), overflows, (None, 0.37)):
        if scale and mode not in ("nearest_even", "stochastic"):
            continue
        options = {"rounding": mode, "overflow": overflow, "scale": scale, "seed": 3 if mode == "stochastic" else None}
        with np.errstate(over="ignore"):
            values = decode(encode(x, fmt, **options), fmt, dtype=dtype, scale=scale)
            expected = quantize(x, fmt, **options)
        if not isinstance(fmt, FloatFormat):
            expected = expected + 0.0  # an integer has no −0
        assert_same_floats(values, expected, x, f"{fmt.name} {mode} {overflow} {scale}")


@pytest.mark.parametrize("fmt", [f for f in FLOATS if f.has_nan], ids=lambda f: f.name)
def test_nan_has_a_code(fmt):
    codes = encode(np.array([np.nan, -np.nan]), fmt)
    assert np.isnan(decode(codes, fmt, dtype=np.float64)).all()


@pytest.mark.parametrize("scale", [0.1, np.array([[0.1], [2.0], [0.5]])])
@pytest.mark.parametrize(("name", "zero_point"), [("int8", 0), ("int8", -7), ("uint8", 128), ("uint4", 15), ("int3", 1)])
def test_integers_in_twos_complement_with_scale_and_zero_point(name, zero_point, scale):
    fmt = get_format(name)
    x = np.random.default_rng(0).normal(0, 5, (3, 200))
    codes = encode(x, name, scale=scale, zero_point=zero_point)
    for v, s, code in zip(x.ravel(), np.broadcast_to(scale, x.shape).ravel(), codes.ravel(), strict=True):
        exact = min(max(round(Fraction(float(v / s))) + zero_point, fmt.code_min), fmt.code_max)
        assert int(code) == exact % (1 << fmt.bits)
    expected = quantize(x, name, scale=scale, zero_point=zero_point)
    np.testing.assert_array_equal(decode(codes, name, scale=scale, zero_point=zero_point, dtype=np.float64), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["int32", "uint32", "int16", "q8.24"])
def test_codes_wider_than_a_float_saturate_and_never_wrap(name, dtype):
    fmt = get_format(name)
    x = np.array([0, 1.5, 2.0**31, 2.0**31 - 128, 2.0**32 - 256, 3e9, 1e20, np.inf], dtype)
    x = np.concatenate([x, -x])
    for v, code in zip(x.tolist(), encode(x, name).tolist(), strict=True):
        if math.isinf(v):
            exact = fmt.code_max if v > 0 else fmt.code_min
        else:
            exact = min(max(round(Fraction(v) / Fraction(fmt.step)), fmt.code_min), fmt.code_max)
        assert code == exact % (1 << fmt.bits)


def test_the_values_of_codes_of_custom_formats():
    fmt = FixedFormat("mine", 3, 5)
    np.testing.assert_array_equal(decode(np.arange(256, dtype=np.uint8), fmt), np.arange(256, dtype=np.int8) / 32)
    assert encode(np.float32([0.99]), FloatFormat("other", 3, 2, bias=5)) == 0b0_101_00


def test_layouts_and_sizes():
    x = np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32)
    for name in ("e4m3fn", "int8", "nf4", "e8m0fnu", "fp32"):
        codes = encode(x, name)
        np.testing.assert_array_equal(encode(x.T, name), codes.T)
        np.testing.assert_array_equal(encode(x[::2, ::-2], name), codes[::2, ::-2])
        np.testing.assert_array_equal(decode(codes.T, name), decode(codes, name).T)
        assert encode(x[:0], name).shape == decode(codes[:0], name).shape == (0, 8)
        assert encode(x[0, 0], name) == codes[0, 0]
        assert decode(int(codes[0, 0]), name) == decode(codes, name)[0, 0]


@pytest.mark.parametrize(
    "name", [n for n in format_names() if not n.startswith(("bool", "complex", "mx", "nvfp4")) and "64" not in n]
)
def test_every_named_format_goes_there_and_back(name):
    x = np.random.default_rng(0).normal(0, 2, 300)
    expected = quantize(x, name)
    np.testing.assert_array_equal(decode(encode(x, name), name, dtype=np.float64), expected)
    np.testing.assert_array_equal(quantize(expected, name), expected)


@pytest.mark.parametrize("name", ["int8", "int5", "int4_symmetric", "int12", "int16", "q2.3", "q4.12", "q8.16"])
def test_codes_in_the_signed_type_of_their_width(name):
    fmt = get_format(name)
    signed = np.dtype(f"i{unsigned([0], fmt.bits).itemsize}")
    codes = np.array([fmt.code_min, -3, -1, 0, 1, fmt.code_max], signed)
    for given in (codes, torch.from_numpy(codes)):
        np.testing.assert_array_equal(decode(given, name), codes * fmt.step)
    np.testing.assert_array_equal(decode(encode(codes * fmt.step, name).view(signed), name), codes * fmt.step)
    np.testing.assert_array_equal(decode(codes.reshape(2, 3).T, name), codes.reshape(2, 3).T * fmt.step)


@pytest.mark.parametrize("dtype", [torch.float64, np.float64, "float64", np.dtype("float64")], ids=str)
def test_types_of_either_library_are_asked_for(dtype):
    codes = np.array([1, 130], np.uint8)
    for given in (codes, torch.from_numpy(codes)):
        values = decode(given, "e4m3fn", dtype=dtype)
        assert str(values.dtype).removeprefix("torch.") == "float64"
        assert type(values) is type(given)
        assert values.tolist() == [2.0**-9, -(2.0**-8)]
    blocks = encode(np.float32([1, -2] * 16), "mxfp4")
    assert decode(blocks, dtype=dtype).tolist() == [1, -2] * 16


def test_a_shape_is_of_any_integers():
    packed = encode(np.float32([1, 2, 3]), "e2m1fn", packed=True)
    for shape in (3, [3], (np.int64(3),), torch.Size([3])):
        assert decode(packed, "e2m1fn", shape=shape).tolist() == [1, 2, 3]
    assert decode(packed[:0], "e2m1fn", shape=(0, 4)).shape == (0, 4)


CODES = np.zeros(3, np.uint8)
BLOCKS = encode(np.zeros(32), "mxfp4")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: decode(np.array([1, 16]), "e2m1fn"), "codes: expected 0 to 15 (4 bits), got 16"),
        (lambda: decode(np.array([-1, 3]), "int8"), "codes: expected 0 to 255 (8 bits), got -1"),
        (lambda: decode(np.array([300]), "e4m3fn"), "codes: expected 0 to 255 (8 bits), got 300"),
        (lambda: decode(np.array([1.0]), "e4m3fn"), "codes: expected integers, got float64"),
        (lambda: decode(np.array([3]), "ternary"), "codes: 'ternary' has 3 values, got code 3"),
        (
            lambda: decode(np.array([8]), "int4_symmetric"),
            "codes: 'int4_symmetric' does not use code 8 (its smallest value is -7)",
        ),
        (lambda: decode(CODES), "fmt: expected the codes' format"),
        (lambda: decode(CODES, "mxfp4"), "codes: 'mxfp4' needs BlockCodes (codes with their scales), got ndarray"),
        (
            lambda: decode(BLOCKS, "mxfp4"),
            "decode: BlockCodes bring their format, scales and shape; leave the other arguments out",
        ),
        (lambda: decode(CODES, "e4m3fn", dtype=np.int32), "dtype: expected float32 or float64, got int32"),
        (lambda: decode(CODES, "e4m3fn", dtype=np.float16), "dtype: expected float32 or float64, got float16"),
        (lambda: decode(CODES, "e4m3fn", dtype=torch.float16), "dtype: expected float32 or float64, got float16"),
        (lambda: decode(CODES, "e4m3fn", dtype="junk"), "dtype: expected float32 or float64, got 'junk'"),
        (lambda: decode(CODES, "e4m3fn", dtype=None), "dtype: expected float32 or float64, got None"),
        (lambda: decode(CODES, "e4m3fn", shape=(6.0,)), "shape: expected integers ≥ 0, got (6.0,)"),
        (lambda: decode(CODES, "e4m3fn", shape=(-2, -3)), "shape: expected integers ≥ 0, got (-2, -3)"),
        (lambda: decode(CODES, "e4m3fn", shape=True), "shape: expected integers ≥ 0, got True"),
        (lambda: decode(torch.zeros(3, dtype=torch.uint8), "fp16", shape="3"), "shape: expected integers ≥ 0, got '3'"),
        (lambda: decode(CODES, "int32"), "dtype: float32 cannot hold the values of 'int32'; expected float64"),
        (lambda: decode(np.int8([-9, 3]), "int4"), "codes: expected -8 to 15 (4 bits), got -9"),
        (lambda: decode(np.int8([16]), "int4"), "codes: expected 0 to 15 (4 bits), got 16"),
        (
            lambda: decode(np.int8([-128]), "int8_symmetric"),
            "codes: 'int8_symmetric' does not use code 128 (its smallest value is -127)",
        ),
        (lambda: decode(np.int8([-5]), "uint8"), "codes: expected 0 to 255 (8 bits), got -5"),
        (lambda: decode(np.int8([-5]), "e4m3fn"), "codes: expected 0 to 255 (8 bits), got -5"),
        (lambda: decode(np.int16([-5]), "int8"), "codes: expected 0 to 255 (8 bits), got -5"),
        (lambda: decode(CODES, "fp64"), "dtype: float32 cannot hold the values of 'fp64'; expected float64"),
        (lambda: decode(CODES, "e8m24"), "dtype: float32 cannot hold the values of 'e8m24'; expected float64"),
        (lambda: decode(CODES, "e4m3fn", scale=0), "scale: expected positive, finite numbers, got 0.0"),
        (
            lambda: decode(CODES, "e4m3fn", zero_point=2),
            "zero_point: only integer formats have one, 'e4m3fn' has not; expected 0",
        ),
        (lambda: encode(np.zeros(3), "e4m3fx"), "format: unknown name 'e4m3fx'; did you mean 'e4m3fn' or 'e4m3' or 'e4m3fnuz'?"),
        (lambda: encode(np.array([np.nan]), "int8"), "x: holds a NaN, and 'int8' has none; expected numbers"),
        (lambda: encode(np.array([np.nan]), "e2m1fn"), "x: holds a NaN, and 'e2m1fn' has none; expected numbers"),
        (lambda: encode(np.array([np.nan]), "nf4"), "x: holds a NaN, and 'nf4' has none; expected numbers"),
        (
            lambda: encode(np.zeros(3), replace(IntFormat("int60", 64), bits=60)),
            "x: no float holds every code of 'int60'; expected a format of at most 53 bits",
        ),
        (
            lambda: encode(np.zeros(33), "mxfp4"),
            "axis: expected a length that the block size 32 of 'mxfp4' divides, got 33 (shape (33,), axis -1)",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError) as caught:
        call()
    assert str(caught.value) == message
