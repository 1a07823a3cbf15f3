"""Number formats against the widths that PyTorch and the standards give them."""

from __future__ import annotations

import math
import re
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from exact_rounding import code_value
from hypothesis import given
from hypothesis import strategies as st

from numerics import (
    BlockFormat,
    CodebookFormat,
    FixedFormat,
    FloatFormat,
    InputError,
    IntFormat,
    format_names,
    get_format,
    register_format,
)
from numerics import formats as formats_module
from numerics.formats import dynamic_format, is_float

NAMES = format_names()
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


@pytest.mark.parametrize(
    ("name", "whole", "fraction", "signed"), [("q4.12", 4, 12, True), ("uq0.8", 0, 8, False), ("q1.2", 1, 2, True)]
)
def test_fixed_point_is_understood_without_being_listed(name, whole, fraction, signed):
    assert name not in format_names()
    assert get_format(name) == FixedFormat(name, whole, fraction, signed=signed)
    assert get_format(name).bits == whole + fraction


@pytest.mark.parametrize(("name", "exponent", "mantissa"), [("e6m9", 6, 9), ("e11m52", 11, 52), ("e2m1", 2, 1)])
def test_an_ieee_like_float_is_understood_without_being_listed(name, exponent, mantissa):
    assert name not in format_names()
    assert get_format(name) == FloatFormat(name, exponent, mantissa)


@pytest.mark.parametrize("name", ["fp64", "fp32", "fp16", "bf16", "e5m2"])
def test_a_float_has_torchs_limits(name):
    found, info = get_format(name), torch.finfo(TORCH_FLOATS[name])
    assert (found.min, found.max, found.eps) == (info.min, info.max, info.eps)
    assert (found.smallest_normal, found.smallest_subnormal) == (info.tiny, info.tiny * info.eps)
    assert (found.has_inf, found.has_nan, found.has_negative_zero) == (True, True, True)


@pytest.mark.parametrize("name", ["int8", "int16", "int32", "uint8", "uint16", "uint32"])
def test_an_integer_has_torchs_limits(name):
    found, info = get_format(name), torch.iinfo(TORCH_INTS[name])
    assert (found.code_min, found.code_max) == (found.min, found.max) == (info.min, info.max)


SMALL = [n for n in format_names() if not isinstance(get_format(n), BlockFormat) and get_format(n).bits <= 16]


@pytest.mark.parametrize("name", SMALL)
def test_a_table_lists_every_code(name):
    found = get_format(name)
    table = found.table()
    assert table.dtype == np.float64
    assert not table.flags.writeable
    numbers = table[np.isfinite(table)]
    assert (numbers.min(), numbers.max()) == (found.min, found.max)
    if isinstance(found, FloatFormat):
        exact = [float(code_value(code, found)) for code in range(1 << found.code_bits)]
        np.testing.assert_array_equal(table, exact)
        assert numbers[numbers > 0].min() == found.smallest_subnormal
        assert np.isnan(table).any() == found.has_nan
        assert np.isinf(table).any() == found.has_inf
        assert (np.signbit(table) & (table == 0)).any() == found.has_negative_zero
    elif isinstance(found, IntFormat):
        codes = np.arange(1 << found.bits)
        expected = np.where(found.signed & (codes >> (found.bits - 1) > 0), codes - (1 << found.bits), codes).astype(float)
        expected[expected < found.code_min] = np.nan
        np.testing.assert_array_equal(table, expected)
    else:
        assert tuple(table) == found.values


def test_a_table_of_fixed_point():
    np.testing.assert_array_equal(get_format("q2.1").table(), [0, 0.5, 1, 1.5, -2, -1.5, -1, -0.5])
    np.testing.assert_array_equal(FixedFormat("coarse", 4, -1, signed=False).table(), [0, 2, 4, 6, 8, 10, 12, 14])
    assert get_format("q2.1").step == 0.5


@pytest.mark.parametrize("found", [get_format("fp32"), get_format("int32"), get_format("uq9.8")], ids=lambda f: f.name)
def test_a_table_of_a_wide_format_is_refused(found):
    with pytest.raises(InputError) as caught:
        found.table()
    assert str(caught.value) == (f"format {found.name!r}: table: {found.bits} bits have too many codes to list; expected ≤ 16")


@pytest.mark.parametrize(("values", "bits"), [((0, 1), 1), ((0, 1, 2), 2), (range(16), 4), (range(17), 5)])
def test_a_codebook_takes_the_bits_of_its_codes(values, bits):
    assert CodebookFormat("own", tuple(values)).bits == bits


def test_nf4_holds_the_quantiles_of_a_normal_distribution():
    """Dettmers et al., arXiv 2305.14314, section 3: zero, and the middles of equal shares of either half."""
    values = get_format("nf4").table()
    normal = torch.distributions.Normal(0.0, 1.0)
    offset = 0.5 * (1 / 32 + 1 / 30)
    up = normal.icdf(torch.linspace(1 - offset, 0.5, 9)[:-1].double())
    down = normal.icdf(torch.linspace(1 - offset, 0.5, 8)[:-1].double())
    expected = torch.cat([-down, torch.zeros(1), up]).sort().values / up.max()
    np.testing.assert_allclose(values, expected.numpy(), atol=2e-6)


@pytest.fixture
def registry(monkeypatch):
    monkeypatch.setattr(formats_module, "_BY_NAME", dict(formats_module._BY_NAME))


@pytest.mark.usefixtures("registry")
def test_a_registered_format_is_known_by_name():
    mine = FloatFormat("mine_e4m1", 4, 1, specials="max_is_nan")
    assert register_format(mine) is mine
    assert get_format("mine_e4m1") is mine
    assert "mine_e4m1" in format_names()
    assert register_format(FloatFormat("mine_e4m1", 4, 1, specials="max_is_nan")) == mine


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize("name", ["bf16", "q4.12", "e6m9"])
def test_a_name_that_is_taken_cannot_be_registered(name):
    with pytest.raises(InputError, match=rf"^format: the name '{name}' belongs to .*; give yours another$"):
        register_format(IntFormat(name, 5))


E4M3, E8M0 = get_format("e4m3"), get_format("e8m0fnu")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: FloatFormat("f", 0, 3), "format 'f': exponent_bits: expected 1 to 11, got 0"),
        (lambda: FloatFormat("f", 12, 3), "format 'f': exponent_bits: expected 1 to 11, got 12"),
        (lambda: FloatFormat("f", 4, 53), "format 'f': mantissa_bits: expected 0 to 52, got 53"),
        (lambda: FloatFormat("f", 4, -1), "format 'f': mantissa_bits: expected 0 to 52, got -1"),
        (
            lambda: FloatFormat("f", 4, 3, specials="fn"),
            "format 'f': specials: unknown name 'fn'; known: ieee, max_is_nan, negative_zero_is_nan, none",
        ),
        (
            lambda: FloatFormat("f", 8, 0),
            "format 'f': specials: 'ieee' needs a mantissa bit to tell NaN from Inf; expected 'max_is_nan' or 'none'",
        ),
        (
            lambda: FloatFormat("f", 4, 3, signed=False, specials="negative_zero_is_nan"),
            "format 'f': specials: 'negative_zero_is_nan' needs a sign bit (signed=True)",
        ),
        (
            lambda: FloatFormat("f", 4, 3, zero=False, specials="negative_zero_is_nan"),
            "format 'f': specials: 'negative_zero_is_nan' needs a zero (zero=True)",
        ),
        (
            lambda: FloatFormat("f", 4, 3, bias=2000),
            "format 'f': bias: 2000 puts values outside those of a 64-bit float, in which they are computed "
            "(exponents -1999 to -1986)",
        ),
        (lambda: FloatFormat("f", 1, 3), "format 'f': exponent_bits: 1 leaves no code for a normal number"),
        (lambda: IntFormat("i", 0), "format 'i': bits: expected 1 to 64, got 0"),
        (lambda: IntFormat("i", 65), "format 'i': bits: expected 1 to 64, got 65"),
        (
            lambda: IntFormat("i", 8, signed=False, symmetric=True),
            "format 'i': symmetric: only signed integers of at least 2 bits are, got 8 bits",
        ),
        (lambda: FixedFormat("q", 0, 0), "format 'q': integer_bits + fraction_bits: expected 1 to 64, got 0"),
        (lambda: FixedFormat("q", 80, -70), "format 'q': fraction_bits: expected −64 to 64, got -70"),
        (
            lambda: FixedFormat("q", 1, 0, symmetric=True),
            "format 'q': symmetric: only signed numbers of at least 2 bits are, got 1 bits",
        ),
        (lambda: CodebookFormat("c", (1.0,)), "format 'c': values: expected 2 to 65536, got 1"),
        (lambda: CodebookFormat("c", (0, math.inf)), "format 'c': values: expected finite numbers, got inf"),
        (lambda: CodebookFormat("c", (0, 1, 1)), "format 'c': values: expected ascending numbers, got 1 before 1"),
        (lambda: BlockFormat("b", E4M3, 0, E8M0), "format 'b': block_size: expected ≥ 1, got 0"),
        (
            lambda: BlockFormat("b", E4M3, 8, E8M0, scale_rounding="even"),
            "format 'b': scale_rounding: unknown name 'even'; known: floor, nearest, up",
        ),
        (
            lambda: BlockFormat("b", E4M3, 8, FloatFormat("s", 4, 3, specials="none")),
            "format 'b': scale: 's' has no NaN to mark a block with; expected one that has",
        ),
        (lambda: FloatFormat("f", 4.5, 3), "format 'f': exponent_bits: expected an integer, got 4.5"),
        (lambda: FloatFormat("f", "4", 3), "format 'f': exponent_bits: expected an integer, got '4'"),
        (lambda: FloatFormat("f", 4, True), "format 'f': mantissa_bits: expected an integer, got True"),
        (lambda: FloatFormat("f", 4, 3, bias=1.5), "format 'f': bias: expected an integer, got 1.5"),
        (lambda: FloatFormat("f", 4, 3, bias="1"), "format 'f': bias: expected an integer, got '1'"),
        (
            lambda: FloatFormat("f", 4, 3, storage_bits=-5),
            "format 'f': storage_bits: expected at least the 8 of a code, got -5",
        ),
        (
            lambda: FloatFormat("f", 4, 3, storage_bits=7),
            "format 'f': storage_bits: expected at least the 8 of a code, got 7",
        ),
        (lambda: FloatFormat("f", 4, 3, storage_bits=8.0), "format 'f': storage_bits: expected an integer, got 8.0"),
        (lambda: FloatFormat("f", 4, 3, signed=1), "format 'f': signed: expected True or False, got 1"),
        (lambda: FloatFormat("f", 4, 3, zero=None), "format 'f': zero: expected True or False, got None"),
        (lambda: FloatFormat("f", 4, 3, subnormals="no"), "format 'f': subnormals: expected True or False, got 'no'"),
        (lambda: FloatFormat(None, 4, 3), "format: name: expected a name such as 'bf16', got None"),
        (lambda: IntFormat("", 4), "format: name: expected a name such as 'bf16', got ''"),
        (lambda: FixedFormat(2.5, 3, 1), "format: name: expected a name such as 'bf16', got 2.5"),
        (lambda: CodebookFormat(1, (0, 1)), "format: name: expected a name such as 'bf16', got 1"),
        (lambda: BlockFormat(2, E4M3, 8, E8M0), "format: name: expected a name such as 'bf16', got 2"),
        (lambda: IntFormat("i", 4.0), "format 'i': bits: expected an integer, got 4.0"),
        (lambda: IntFormat("i", "4"), "format 'i': bits: expected an integer, got '4'"),
        (lambda: IntFormat("i", 4, symmetric=1), "format 'i': symmetric: expected True or False, got 1"),
        (lambda: FixedFormat("q", 2.5, 3), "format 'q': integer_bits: expected an integer, got 2.5"),
        (lambda: FixedFormat("q", 2, "3"), "format 'q': fraction_bits: expected an integer, got '3'"),
        (lambda: FixedFormat("q", 2, 3, signed=0), "format 'q': signed: expected True or False, got 0"),
        (lambda: CodebookFormat("c", None), "format 'c': values: expected a sequence of numbers, got None"),
        (lambda: CodebookFormat("c", ("x", "y")), "format 'c': values: expected numbers, got 'x'"),
        (lambda: CodebookFormat("c", "01"), "format 'c': values: expected numbers, got '0'"),
        (lambda: CodebookFormat("c", (0, 1j)), "format 'c': values: expected numbers, got 1j"),
        (lambda: BlockFormat("b", E4M3, 1.5, E8M0), "format 'b': block_size: expected an integer, got 1.5"),
        (lambda: BlockFormat("b", E4M3, True, E8M0), "format 'b': block_size: expected an integer, got True"),
        (lambda: BlockFormat("b", E4M3, 8, E8M0, tensor_scale=1), "format 'b': tensor_scale: expected True or False, got 1"),
        (lambda: BlockFormat("b", E4M3, 8, get_format("int8")), "format 'b': scale: expected a float format, got 'int8'"),
        (lambda: BlockFormat("b", E4M3, 8, "int8"), "format 'b': scale: expected a float format, got 'int8'"),
        (lambda: BlockFormat("b", E4M3, 8, None), "format 'b': scale: expected a float format, got None"),
        (
            lambda: BlockFormat("b", get_format("nf4"), 8, E8M0),
            "format 'b': element: expected a float, integer or fixed-point format, got 'nf4'",
        ),
        (
            lambda: BlockFormat("b", "pf16", 8, E8M0),
            "format 'b': element: unknown name 'pf16'; did you mean 'fp16' or 'bf16' or 'fp64'?",
        ),
        (lambda: register_format(3), "format: expected a format such as IntFormat('mine', 5), got 3"),
        (lambda: dynamic_format(8.0), "bits: expected an integer, got 8.0"),
        (lambda: E4M3.storage_bytes(-1), "elements: expected ≥ 0, got -1"),
        (lambda: get_format("nf4").storage_bytes(2.5), "elements: expected an integer, got 2.5"),
        (lambda: get_format("mxfp4").storage_bytes(-32), "elements: expected ≥ 0, got -32"),
        (
            lambda: get_format("mxfp4").table(),
            "format 'mxfp4': table: a code's value depends on its block's scale; "
            "expected the element ('e2m1fn') or the scale ('e8m0fnu')",
        ),
    ],
)
def test_a_field_out_of_range_is_named(build, message):
    with pytest.raises(InputError) as caught:
        build()
    assert str(caught.value) == message


def test_numpys_integers_and_booleans_are_kept_as_pythons():
    made = FloatFormat("f", np.int64(4), np.uint8(3), bias=np.int32(7), signed=np.bool_(False), storage_bits=np.int16(8))
    assert made == FloatFormat("f", 4, 3, bias=7, signed=False, storage_bits=8)
    for value in (made.exponent_bits, made.mantissa_bits, made.bias, made.storage_bits):
        assert type(value) is int
    assert made.signed is False
    assert type(IntFormat("i", np.int64(4)).bits) is type(BlockFormat("b", "e4m3fn", np.int8(8), "bf16").block_size) is int
    assert CodebookFormat("c", np.float32([0, 0.5])).values == (0.0, 0.5)


def test_a_block_is_made_of_names():
    made = BlockFormat("a", "e4m3fn", 32, "e8m0fnu")
    assert made == BlockFormat("a", get_format("e4m3fn"), 32, get_format("e8m0fnu"))
    assert BlockFormat("a", "q2.6", 32, "float8_e8m0fnu").scale is get_format("e8m0fnu")


def test_the_range_of_blocks_and_steps():
    mxfp4, own = get_format("mxfp4"), BlockFormat("own", "int4", 8, "fp16")
    assert (mxfp4.min, mxfp4.max, mxfp4.smallest_subnormal) == (-6 * 2.0**127, 6 * 2.0**127, 0.5 * 2.0**-127)
    assert (own.min, own.max, own.smallest_subnormal) == (-8 * 65504.0, 7 * 65504.0, 2.0**-24)
    assert (get_format("int8").eps, get_format("q4.12").eps) == (1, 2.0**-12)


def test_the_documentation_names_every_format():
    page = Path(__file__).parents[2] / "docs" / "number-formats.md"
    assert set(NAMES) <= set(re.findall(r"`(\w+)`", page.read_text(encoding="utf-8")))


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


@pytest.mark.parametrize("name", ["q0.0", "q4", "uq4.", "int33", "e12m3", "e5m0", "e0m4", "E4M3", ""])
def test_what_only_resembles_a_format_is_refused(name):
    with pytest.raises(InputError, match=f"^format: unknown name '{name}'; "):
        get_format(name)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("q40.40", "fixed point has 1 to 64 bits, this 80"),
        ("uq0.0", "fixed point has 1 to 64 bits, this 0"),
        ("e12m3", "a float has 1 to 11 exponent and 1 to 52 mantissa bits, this 12 and 3"),
        ("int17", "integers of up to 16, of 32 and of 64 bits have names; others are made, as IntFormat('int17', bits) is"),
        ("uint33", "integers of up to 16, of 32 and of 64 bits have names; others are made, as IntFormat('uint33', bits) is"),
        ("E4M3", "did you mean 'e4m3fn' (OCP) or 'e4m3' (IEEE-like)?"),
        ("E2M1", "did you mean 'e2m1fn' (OCP) or 'e2m1' (IEEE-like)?"),
        ("float8_e2m1fn", "did you mean 'e2m1fn' or 'e2m3fn'?"),
    ],
)
def test_a_name_close_to_a_rule_is_told_the_rule(name, hint):
    with pytest.raises(InputError) as caught:
        get_format(name)
    assert str(caught.value) == f"format: unknown name {name!r}; {hint}"


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("float64", "fp64"), ("double", "fp64"), ("float32", "fp32"), ("float", "fp32"), ("tfloat32", "tf32"),
        ("bfloat16", "bf16"), ("float16", "fp16"), ("half", "fp16"), ("float8_e4m3fn", "e4m3fn"), ("float8_e5m2", "e5m2"),
        ("float8_e4m3fnuz", "e4m3fnuz"), ("float8_e5m2fnuz", "e5m2fnuz"), ("float8_e4m3", "e4m3"), ("float8_e3m4", "e3m4"),
        ("float8_e4m3b11fnuz", "e4m3b11fnuz"), ("float8_e8m0fnu", "e8m0fnu"), ("float4_e2m1fn", "e2m1fn"),
        ("float6_e2m3fn", "e2m3fn"), ("float6_e3m2fn", "e3m2fn"), ("E4M3FN", "e4m3fn"), ("BF16", "bf16"), ("E5M2", "e5m2"),
        ("MXFP4", "mxfp4"), ("Q4.12", "q4.12"), ("Float16", "fp16"),
        *((dtype, name) for table in (TORCH_FLOATS, TORCH_INTS) for name, dtype in table.items()),
        (torch.bool, "bool"), (torch.float8_e8m0fnu, "e8m0fnu"),
        (np.float16, "fp16"), (np.float32, "fp32"), (np.double, "fp64"), (np.int8, "int8"), (np.bool_, "bool"),
        (np.dtype("float64"), "fp64"), (np.dtype(">f4"), "fp32"), (np.dtype(np.uint16), "uint16"),
        *((getattr(ml_dtypes, n), n.partition("_")[2]) for n in dir(ml_dtypes) if n.startswith("float")),
        (ml_dtypes.bfloat16, "bf16"), (np.dtype(ml_dtypes.float8_e4m3), "e4m3"), (ml_dtypes.int4, "int4"),
    ],
    ids=str,
)  # fmt: skip
def test_what_dtypes_are_called_is_understood(spelling, name):
    found = get_format(spelling)
    assert found == get_format(name)
    assert found.name == name


@pytest.mark.usefixtures("registry")
def test_another_spelling_of_a_name_is_taken():
    with pytest.raises(
        InputError, match=r"^format: the name 'BFloat16' belongs to FloatFormat\(name='bf16', .*; give yours another$"
    ):
        register_format(IntFormat("BFloat16", 5))


@pytest.mark.parametrize("given", [16, float, np.float32(1), None, torch.zeros(1)], ids=str)
def test_a_format_is_asked_for_by_name(given):
    with pytest.raises(InputError) as caught:
        get_format(given)
    assert str(caught.value) == f"format: expected a name such as 'bf16', got {given!r}"
