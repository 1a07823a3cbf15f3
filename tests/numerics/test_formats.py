"""Number formats against the widths that PyTorch and the standards give them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from numerics import BlockFormat, FloatFormat, InputError, IntFormat, format_names, get_format
from numerics.formats import is_float

TORCH_FLOATS = {
    "fp64": torch.float64,
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "e4m3fn": torch.float8_e4m3fn,
    "e4m3fnuz": torch.float8_e4m3fnuz,
    "e5m2": torch.float8_e5m2,
    "e5m2fnuz": torch.float8_e5m2fnuz,
}
TORCH_INTS = {
    "int8": torch.int8,
    "int16": torch.int16,
    "int32": torch.int32,
    "int64": torch.int64,
    "uint8": torch.uint8,
    "uint16": torch.uint16,
    "uint32": torch.uint32,
    "uint64": torch.uint64,
}


def mantissa_bits(dtype: torch.dtype) -> float:
    """From the number of values in [1, 2): every code decoded where there are few (finfo errs on e5m2fnuz)."""
    if dtype.itemsize > 2:
        return -math.log2(torch.finfo(dtype).eps)
    codes = torch.arange(256**dtype.itemsize).to({1: torch.uint8, 2: torch.uint16}[dtype.itemsize])
    values = codes.view(dtype).double()
    return math.log2(int(((values >= 1) & (values < 2)).sum()))


@pytest.mark.parametrize("name", TORCH_FLOATS)
def test_floats_have_torchs_bits(name):
    found, dtype = get_format(name), TORCH_FLOATS[name]
    assert isinstance(found, FloatFormat)
    assert found.bits == 8 * dtype.itemsize
    assert found.mantissa_bits == mantissa_bits(dtype)
    assert found.exponent_bits == found.bits - 1 - found.mantissa_bits


@pytest.mark.parametrize("name", TORCH_INTS)
def test_integers_have_torchs_bits(name):
    found, info = get_format(name), torch.iinfo(TORCH_INTS[name])
    assert isinstance(found, IntFormat)
    assert found.bits == info.bits
    assert found.signed == (info.min < 0)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("bool", torch.bool),
        ("complex64", torch.complex64),
        ("complex128", torch.complex128),
        ("e8m0fnu", torch.float8_e8m0fnu),
    ],
)
def test_other_elements_take_torchs_bytes(name, dtype):
    assert get_format(name).storage_bytes(7) == 7 * dtype.itemsize


def test_tf32_keeps_19_bits_in_a_word_of_32():
    tf32 = get_format("tf32")
    assert (1 + tf32.exponent_bits + tf32.mantissa_bits, tf32.bits) == (19, 32)


# OCP Microscaling Formats 1.0, table 1: blocks of 32 with an 8-bit scale; NVFP4: blocks of 16 with an 8-bit scale.
@pytest.mark.parametrize(
    ("name", "element_bits", "block"),
    [
        ("mxfp8_e4m3", 8, 32),
        ("mxfp8_e5m2", 8, 32),
        ("mxfp6_e2m3", 6, 32),
        ("mxfp6_e3m2", 6, 32),
        ("mxfp4", 4, 32),
        ("mxint8", 8, 32),
        ("nvfp4", 4, 16),
    ],
)
def test_a_block_adds_one_scale_byte(name, element_bits, block):
    found = get_format(name)
    assert isinstance(found, BlockFormat)
    assert (found.element.bits, found.block_size, found.scale.bits) == (element_bits, block, 8)
    assert found.storage_bytes(block) == block * element_bits // 8 + 1
    assert found.bits == element_bits + 8 / block
    # One element more begins another block.
    assert found.storage_bytes(block + 1) == math.ceil(((block + 1) * element_bits + 16) / 8)


@given(st.sampled_from(format_names()), st.integers(0, 10_000))
def test_storage_is_the_whole_bits_rounded_up_to_bytes(name, elements):
    found = get_format(name)
    if isinstance(found, BlockFormat):
        blocks = len(range(0, elements, found.block_size))
        bits = elements * found.element.bits + blocks * found.scale.bits
    else:
        bits = elements * found.bits
    assert found.storage_bytes(elements) * 8 - bits in range(8)


def test_every_listed_format_bears_its_name():
    assert len(format_names()) == len(set(format_names()))
    assert all(get_format(name).name == name for name in format_names())


@pytest.mark.parametrize(("name", "bits", "signed"), [("q4.12", 16, True), ("uq0.8", 8, False), ("q1.2", 3, True)])
def test_fixed_point_is_understood_without_being_listed(name, bits, signed):
    assert name not in format_names()
    assert get_format(name) == IntFormat(name, bits, signed=signed)


def test_sub_byte_integers_are_packed():
    assert get_format("int4").storage_bytes(3) == 2
    assert get_format("uint1").storage_bytes(9) == 2
    assert get_format("int12").storage_bytes(2) == 3


@pytest.mark.parametrize(
    ("name", "real"),
    [
        ("fp32", True),
        ("mxint8", True),
        ("nvfp4", True),
        ("int8", False),
        ("q4.4", False),
        ("bool", False),
        ("complex64", False),
    ],
)
def test_real_formats_are_those_a_recipe_may_change(name, real):
    assert is_float(name) is real


def test_an_unknown_format_names_the_nearest():
    with pytest.raises(InputError, match=r"^format: unknown name 'pf16'; did you mean 'fp16' or 'bf16' or 'fp64'\?$"):
        get_format("pf16")


@pytest.mark.parametrize("name", ["q0.0", "q4", "uq4.", "int33", ""])
def test_what_only_resembles_a_format_is_refused(name):
    with pytest.raises(InputError, match=f"^format: unknown name '{name}'; "):
        get_format(name)


def test_a_format_is_asked_for_by_name():
    with pytest.raises(InputError, match=r"^format: expected a name such as 'bf16', got 16$"):
        get_format(16)
