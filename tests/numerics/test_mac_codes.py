"""The bits in which a register holds a sum: every code of the short formats, and fp32's and integers' by other means."""

import struct

import numpy as np
import pytest
from exact_rounding import code_value

from numerics import Accumulator, FloatFormat, IntFormat, decode, encode, get_format
from numerics._mac_kernels import sum_code, sum_value
from numerics.mac import sum_bits

SHORT = ["fp16", "bf16", "e5m2", "e4m3fn", "e4m3", "e3m2fn", "e2m3fn"]
OWN = {"e4m3": FloatFormat("e4m3_ieee", 4, 3)}
"""E4M3 with Inf, as IEEE's formats have it."""


def format_of(name):
    return OWN.get(name) or get_format(name)


def layout_of(name):
    return sum_bits(Accumulator(format=format_of(name)))


def value_of(code, layout, like):
    return sum_value(np.uint64(code), like, *layout.key)


def code_of(value, layout):
    return int(sum_code(value, layout.kind, layout.bits, layout.mantissa_bits, layout.bias))


@pytest.mark.parametrize("name", SHORT)
def test_every_code_of_a_short_format_means_what_the_format_says(name):
    fmt, layout = format_of(name), layout_of(name)
    assert layout.bits == fmt.code_bits
    every = np.arange(1 << fmt.code_bits)
    decoded = decode(every.astype(np.uint32), fmt, dtype=np.float64)
    values = np.array([value_of(code, layout, np.float64(0)) for code in every])
    assert np.array_equal(values, decoded, equal_nan=True)
    numbers = ~np.isnan(decoded)
    assert np.array_equal(np.signbit(values)[numbers], np.signbit(decoded)[numbers])
    # And by fractions, from the fields of the format.
    for code in every[:: max(1, every.size // 512)].tolist():
        exact = code_value(code, fmt)
        assert values[code] == exact or (exact != exact and np.isnan(values[code]))


@pytest.mark.parametrize("name", SHORT)
def test_every_number_of_a_short_format_has_its_code(name):
    fmt, layout = format_of(name), layout_of(name)
    every = np.arange(1 << fmt.code_bits)
    decoded = decode(every.astype(np.uint32), fmt, dtype=np.float64)
    numbers = ~np.isnan(decoded)
    found = np.array([code_of(value, layout) for value in decoded])
    assert np.array_equal(found[numbers], every[numbers])
    assert np.array_equal(found[numbers], encode(decoded[numbers], fmt))
    # A NaN's code is one of a NaN.
    assert np.isnan(decoded[found[~numbers]]).all()
    assert (~numbers).any() == fmt.has_nan


def test_fp32_sums_are_their_bits():
    layout = sum_bits("fp32")
    assert layout.bits == 32
    rng = np.random.default_rng(1)
    codes = np.concatenate(
        [rng.integers(0, 1 << 32, 4000), [0, 1, 1 << 31, 0x7F7FFFFF, 0x7F800000, 0xFF800000, 0x7FC00000, 0x00800000]]
    )
    for code in codes.tolist():
        value = np.float32(struct.unpack("<f", struct.pack("<I", code))[0])
        found = value_of(code, layout, np.float32(0))
        assert found == value or (np.isnan(found) and np.isnan(value))
        assert np.isnan(value) or code_of(value, layout) == code


def test_fp32_sums_that_another_rounding_keeps_in_64_bits_have_the_same_codes():
    layout = sum_bits(Accumulator(format="fp32", rounding="toward_zero"))
    assert (layout.bits, layout.mantissa_bits, layout.bias) == (32, 23, 127)
    for code in np.random.default_rng(2).integers(0, 1 << 32, 3000).tolist():
        value = struct.unpack("<f", struct.pack("<I", code))[0]
        if value == value:
            assert code_of(np.float64(value), layout) == code
            assert value_of(code, layout, np.float64(0)) == value


@pytest.mark.parametrize(
    ("name", "kind"), [("int32", np.int32), ("int32_saturate", np.int64), ("int16", np.int64), (IntFormat("int48", 48), np.int64)]
)
def test_integers_are_in_twos_complement(name, kind):
    layout = sum_bits(name if isinstance(name, str) else Accumulator(format=name))
    low, high = -(1 << (layout.bits - 1)), (1 << (layout.bits - 1)) - 1
    values = [low, low + 1, -2, -1, 0, 1, 2, high - 1, high, *np.random.default_rng(3).integers(low, high, 500).tolist()]
    for value in values:
        code = value % (1 << layout.bits)
        assert code_of(kind(value), layout) == code
        assert int(value_of(code, layout, kind(0))) == value


def test_every_code_of_a_short_integer():
    layout = sum_bits("int8")
    values = np.arange(256).astype(np.uint8).view(np.int8)
    assert [code_of(np.int64(value), layout) for value in values] == list(range(256))
    assert [int(value_of(code, layout, np.int64(0))) for code in range(256)] == values.tolist()
