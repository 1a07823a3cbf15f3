"""Codes against ml_dtypes (and numpy's float16), bit for bit."""

import ml_dtypes
import numpy as np
import pytest
from float_strata import around, fp32_strata, without_e8m0_quirk

from numerics import decode, encode, get_format, quantize

THEIRS = {
    "bf16": ml_dtypes.bfloat16,
    "fp16": np.float16,
    "e5m2": ml_dtypes.float8_e5m2,
    "e5m2fnuz": ml_dtypes.float8_e5m2fnuz,
    "e4m3": ml_dtypes.float8_e4m3,
    "e4m3fn": ml_dtypes.float8_e4m3fn,
    "e4m3fnuz": ml_dtypes.float8_e4m3fnuz,
    "e4m3b11fnuz": ml_dtypes.float8_e4m3b11fnuz,
    "e3m4": ml_dtypes.float8_e3m4,
    "e3m2fn": ml_dtypes.float6_e3m2fn,
    "e2m3fn": ml_dtypes.float6_e2m3fn,
    "e2m1fn": ml_dtypes.float4_e2m1fn,
    "e8m0fnu": ml_dtypes.float8_e8m0fnu,
}
SWEPT = ("e4m3fn", "e5m2", "bf16", "fp16", "e4m3fnuz", "e5m2fnuz")
CHUNK_BITS = 22


@pytest.fixture(scope="module")
def strata():
    return fp32_strata(24)


def their_codes(x, name):
    kind = np.dtype(THEIRS[name])
    with np.errstate(over="ignore", invalid="ignore"):
        return x.astype(kind).view(np.uint8 if kind.itemsize == 1 else np.uint16)


def check_codes(x, name):
    """The same codes; a NaN in fp16, where numpy keeps payload bits, is any NaN."""
    if name == "e8m0fnu":
        x = without_e8m0_quirk(x)
    ours, theirs = encode(x, name, overflow="ml_dtypes"), their_codes(x, name)
    same = ours == theirs
    if name == "fp16":
        same |= is_fp16_nan(ours) & is_fp16_nan(theirs)
    if not same.all():
        i = int(np.argmin(same))
        raise AssertionError(
            f"{name}: {int((~same).sum())} of {x.size} differ: {float(x[i]).hex()} → {ours[i]:#x}, not {theirs[i]:#x}"
        )


def is_fp16_nan(codes):
    return (codes & 0x7FFF) > 0x7C00


@pytest.mark.parametrize("name", THEIRS)
def test_one_input_of_each_of_2_to_the_24_strata(name, strata):
    for start in range(0, 1 << 24, 1 << CHUNK_BITS):
        check_codes(strata[start : start + (1 << CHUNK_BITS)], name)


@pytest.mark.parametrize("name", THEIRS)
def test_values_midpoints_and_their_neighbours(name):
    check_codes(around(get_format(name).table(), np.float32), name)


@pytest.mark.parametrize("name", THEIRS)
def test_every_code_has_their_value(name):
    fmt, kind = get_format(name), np.dtype(THEIRS[name])
    codes = np.arange(1 << fmt.bits).astype(np.uint8 if kind.itemsize == 1 else np.uint16)
    values = codes.view(kind).astype(np.float32)
    np.testing.assert_array_equal(decode(codes, name), values)
    np.testing.assert_array_equal(fmt.table().astype(np.float32), values)
    zeros = values == 0
    np.testing.assert_array_equal(np.signbit(decode(codes, name))[zeros], np.signbit(values)[zeros])


@pytest.mark.parametrize("name", [n for n in THEIRS if n != "fp16"])
def test_a_format_has_their_properties(name):
    fmt, info = get_format(name), ml_dtypes.finfo(THEIRS[name])
    assert fmt.max == float(info.max)
    assert fmt.smallest_normal == float(info.smallest_normal)
    if name != "e8m0fnu":
        assert fmt.min == float(info.min)
        assert fmt.smallest_subnormal == float(info.smallest_subnormal)
    assert fmt.eps == float(info.eps)
    assert fmt.bits == info.bits
    assert fmt.mantissa_bits == info.nmant


def test_arrays_of_their_types_are_taken_and_given_back():
    x = np.float32([1.0, 1.06, -3.3, 1e-3, 500.0]).astype(ml_dtypes.bfloat16)
    result = quantize(x, "e4m3fn")
    assert result.dtype == x.dtype
    np.testing.assert_array_equal(result.astype(np.float32), quantize(x.astype(np.float32), "e4m3fn"))
    np.testing.assert_array_equal(encode(x, "e4m3fn"), encode(x.astype(np.float32), "e4m3fn"))


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", SWEPT)
def test_every_fp32_input(name):
    words = np.arange(1 << CHUNK_BITS, dtype=np.uint32)
    for high in range(1 << (32 - CHUNK_BITS)):
        check_codes((words | np.uint32(high << CHUNK_BITS)).view(np.float32), name)
