"""``multiply_add`` against rational arithmetic, chains of it against ``matmul``, what it refuses; codes of sums in registers."""

import math
from fractions import Fraction

import numpy as np
import pytest
from exact_rounding import rounded
from product_reference import exact_product, exact_sum

from numerics import (
    Accumulator,
    FloatFormat,
    InputError,
    decode,
    encode,
    get_accumulator,
    get_format,
    mac_plan,
    matmul,
    multiply_add,
)
from numerics.accumulator import Promotion

FLOATS = {
    "fp32": Accumulator(format="fp32"),
    "bf16": Accumulator(format="bf16"),
    "fp16": Accumulator(format="fp16"),
    "e4m3fn": Accumulator(format="e4m3fn"),
    "e4m3fn_ieee": Accumulator(format="e4m3fn", overflow="ieee"),
    "e8m13": Accumulator(format="e8m13"),
    "e2m3fn": Accumulator(format="e2m3fn", overflow="saturate"),
    "fp32_toward_zero": Accumulator(format="fp32", rounding="toward_zero"),
    "fp16_up": Accumulator(format="fp16", rounding="up"),
    "bf16_to_odd": Accumulator(format="bf16", rounding="to_odd"),
    "fp32_product_bf16": Accumulator(format="fp32", product="bf16"),
    "fp32_product_fp32": Accumulator(format="fp32", product="fp32"),
    "fp16_product_e4m3fn": Accumulator(format="fp16", product="e4m3fn"),
    "fp32_systolic": Accumulator(format="fp32", order="systolic", group=4),
}


def usual_overflow(fmt):
    return "ieee" if fmt.has_inf else "saturate"


def expected(total, a, b, accumulator):
    """One addition in fractions."""
    fmt = get_format(accumulator.format)
    product = exact_product(a, b)
    if accumulator.product != "exact":
        narrow = get_format(accumulator.product)
        product = rounded(product, narrow, "nearest_even", usual_overflow(narrow))
    return rounded(exact_sum([total, product]), fmt, accumulator.rounding, accumulator.overflow or usual_overflow(fmt))


def operands(fmt, count, seed, specials=True):
    """Random codes of a float format, as numbers; some special ones among them."""
    found = get_format(fmt)
    rng = np.random.default_rng(seed)
    values = decode(rng.integers(0, 1 << found.code_bits, count).astype(np.uint32), found)
    return values if specials else np.where(np.isfinite(values), values, 1)


def sums(accumulator, a, b, seed):
    """Numbers that the accumulator holds: any of its codes, near the product, cancelling it."""
    fmt = get_format(accumulator.format)
    rng = np.random.default_rng(seed)
    with np.errstate(all="ignore"):
        product = a.astype(np.float64) * b
        near = product * 2.0 ** rng.integers(-fmt.mantissa_bits - 3, fmt.mantissa_bits + 4, a.size)
        kinds = [near, -near, -product, operands(fmt, a.size, seed + 1).astype(np.float64)]
        chosen = np.choose(rng.integers(0, len(kinds), a.size), kinds)
        finite = np.where(np.isfinite(chosen) | fmt.has_nan, chosen, 0)
        return decode(encode(np.clip(finite, -1e38, 1e38), fmt), fmt)


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("fmt", ["bf16", "e4m3fn", "e5m2"])
def test_floats_are_those_of_rational_arithmetic(name, fmt):
    accumulator = FLOATS[name]
    has_nan = get_format(accumulator.format).has_nan
    a, b = (operands(fmt, 1500, seed, specials=has_nan) for seed in (1, 2))
    total = sums(accumulator, a, b, 3)
    got = multiply_add(total, a, b, accumulator=accumulator)
    assert got.dtype == np.float32
    with np.errstate(over="ignore"):
        want = np.array([expected(*map(float, row), accumulator) for row in zip(total, a, b, strict=True)], np.float64).astype(
            np.float32
        )
    assert np.array_equal(got, want, equal_nan=True)
    # The default NaN, and signs of zero: positive, unless both are negative.
    assert np.all(got.view(np.uint32)[np.isnan(got)] == 0x7FC00000)
    exact_zero = (total == 0) & ((a == 0) | (b == 0))
    negative = np.signbit(total) & (np.signbit(a) ^ np.signbit(b))
    assert np.array_equal(np.signbit(got)[exact_zero & ~np.isnan(got)], negative[exact_zero & ~np.isnan(got)])


def test_products_of_bf16_beyond_fp32_are_rounded_once():
    # 2^-80 · 2^-80 − the smallest number; 2^100 · 2^100 − … : neither product is an fp32.
    tiny, huge, least, most = np.float32(2.0**-80), np.float32(2.0**100), np.float32(2.0**-149), np.finfo(np.float32).max
    assert multiply_add(least, tiny, -tiny) == least
    assert multiply_add(np.float32(0), tiny, -tiny) == 0
    assert np.signbit(multiply_add(np.float32(0), tiny, -tiny))
    assert multiply_add(-most, huge, huge) == np.inf
    # Half the smallest number is a tie, a little more is not.
    assert multiply_add(np.float32(0), np.float32(2.0**-75), np.float32(2.0**-75)) == 0
    assert multiply_add(np.float32(0), np.float32(2.0**-75), np.float32(2.0**-75 * 1.0078125)) == least


@pytest.mark.parametrize("name", ["fp32", "fp64", "bf16", "fp16", "e4m3fn", "e8m13", "int32", "int32_saturate", "int16_saturate"])
def test_a_chain_is_the_sum_that_matmul_has(name):
    rng = np.random.default_rng(4)
    a, b = rng.integers(-128, 128, (2, 50, 37))
    if "int" in name:
        # So large that sums pass the ends of the range.
        a, b = (a * 150, b * 150) if "16" not in name else (a, b)
    else:
        a, b = (decode((v & 0x77).astype(np.uint8), "e4m3fn") * np.sign(v) for v in (a, b))
        assert not np.isnan(a).any()
    total = np.zeros((50, 50), np.int64 if "int" in name else np.float64)
    for k in range(37):
        total = multiply_add(total, a[:, k, None], b[:, k], accumulator=name)
    want = matmul(a, b.T, accumulator=name)
    assert np.array_equal(total, want)
    assert total.dtype.kind == want.dtype.kind


@pytest.mark.parametrize("name", ["fp32_toward_zero", "bf16_to_odd", "fp32_product_bf16", "fp16_product_e4m3fn"])
def test_a_chain_in_other_roundings_is_the_sum_that_matmul_has(name):
    rng = np.random.default_rng(5)
    a, b = (decode(encode(rng.standard_normal((20, 30)), "e4m3fn"), "e4m3fn") for _ in range(2))
    total = np.zeros((20, 20), np.float32)
    for k in range(30):
        total = multiply_add(total, a[:, k, None], b[:, k], accumulator=FLOATS[name])
    assert np.array_equal(total, matmul(a, b.T, accumulator=FLOATS[name]))


@pytest.mark.parametrize("name", ["int32", "int32_saturate", "int16"])
def test_integers_wrap_or_stop_at_the_ends(name):
    bits = 16 if name == "int16" else 32
    rng = np.random.default_rng(6)
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    total = np.concatenate([rng.integers(low, high + 1, 500), [low, high, low, high, 0, low, high]])
    a, b = rng.integers(-(1 << 31) + 1, 1 << 31, (2, total.size))
    a[:250] >>= 24
    b[:250] >>= 24
    a[-7:], b[-7:] = [-1, 1, 0, 0, 1, -128, 127], [1, 1, 5, -5, -1, 127, 127]
    got = multiply_add(total, a, b, accumulator=name)
    for t, x, y, found in zip(total.tolist(), a.tolist(), b.tolist(), got.tolist(), strict=True):
        exact = t + x * y
        wrapped = (exact - low) % (1 << bits) + low
        assert found == (min(max(exact, low), high) if name == "int32_saturate" else wrapped)


def test_operands_broadcast():
    got = multiply_add(np.float32(1), np.float32([[1], [2]]), np.float32([3, 4, 5]))
    assert np.array_equal(got, [[4, 5, 6], [7, 9, 11]])
    assert multiply_add(1.0, 2.0, 3.0).shape == ()


def test_a_plan_says_how_wide_a_sum_is():
    widths = {"fp32": 32, "bf16": 16, "e4m3fn": 8, "e8m13": 22, "int32": 32, "int16_saturate": 16}
    assert {name: mac_plan(name).bits for name in widths} == widths
    assert mac_plan("int32").dtype == np.int32
    assert mac_plan("fp32").dtype == np.float32
    assert mac_plan(FLOATS["fp32_toward_zero"]).dtype == np.float64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"order": "fused", "group": 4, "fraction_bits": 23}, "order: a multiply-accumulate adds one product at a time; expected "
         "'sequential', got 'fused'"),
        ({"order": "pairwise"}, "order: a multiply-accumulate adds one product at a time; expected 'sequential', got 'pairwise'"),
        ({"promotion": Promotion(4)}, "promotion: a multiply-accumulate adds one product at a time; expected None, got"),
        ({"compensated": True}, "compensated: a multiply-accumulate adds one product at a time; expected False, got True"),
        ({"rounding": "stochastic"}, "rounding: a multiply-accumulate draws no random bits; expected another rounding than "
         "'stochastic'"),
    ],
)  # fmt: skip
def test_accumulators_that_need_more_than_one_product_are_refused(change, message):
    with pytest.raises(InputError) as caught:
        multiply_add(0.0, 1.0, 1.0, accumulator=Accumulator(**change))
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("arguments", "accumulator", "message"),
    [
        ((np.zeros(2), np.zeros(3), 1.0), "fp32", "total, a, b: shapes [(2,), (3,), ()] do not broadcast"),
        ((0, 0.5, 1), "int32", "a: an integer accumulator takes integers below 2^31, got others"),
        ((0, 1, 2.0**31), "int32", "b: an integer accumulator takes integers below 2^31, got others"),
        ((0, np.nan, 1), "int32", "a: an integer accumulator takes integers below 2^31, got others"),
        ((0.5, 1, 1), "int32", "total: an integer accumulator takes integers, got other numbers"),
        ((2.0**31, 1, 1), "int32", "total: expected -2147483648 to 2147483647 (int32), got others"),
        ((0.0, 0.1, 1.0), "fp32", "a: expected numbers that fp32 holds; quantise them"),
        ((0.1, 1.0, 1.0), "fp32", "total: the accumulator starts from it, and 'fp32' does not have its values; quantise it"),
        ((1.01, 1.0, 1.0), "bf16", "total: the accumulator starts from it, and 'bf16' does not have its values; quantise it"),
        ((0.0, 1.0, 0.1), "bf16", "b: expected at most 26 significant bits and magnitudes from 2^-500 to 2^250; quantise it"),
        ((0.0, 2.0**300, 1.0), "bf16", "a: expected at most 26 significant bits and magnitudes from 2^-500 to 2^250"),
        ((0.0, 1.0, 1.0), "fp33", "accumulator: unknown name 'fp33'"),
    ],
)
def test_numbers_that_do_not_fit_are_named(arguments, accumulator, message):
    with pytest.raises(InputError) as caught:
        multiply_add(*arguments, accumulator=accumulator)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("name", ["bf16", "fp16", "e4m3fn", "e5m2", "e3m2fn"])
def test_a_register_holds_the_codes_of_the_format(name):
    from numerics._mac_kernels import sum_code, sum_value
    from numerics.mac import sum_bits

    fmt = get_format(name)
    assert isinstance(fmt, FloatFormat)
    kind, bits, mantissa_bits, bias, has_inf, has_nan = sum_bits(get_accumulator(name)).key
    assert bits == fmt.code_bits
    for code in range(0, 1 << bits, 1 if bits <= 8 else 7):
        value = float(decode(np.array([code], np.uint32), fmt, dtype=np.float64)[0])
        found = sum_value(np.uint64(code), np.float64(0), kind, bits, mantissa_bits, bias, has_inf, has_nan)
        assert found == value or (math.isnan(found) and math.isnan(value))
        assert math.copysign(1, found) == math.copysign(1, value) or math.isnan(value)
        if not math.isnan(value):
            assert sum_code(np.float64(value), kind, bits, mantissa_bits, bias) == code
    assert Fraction(fmt.max) == Fraction(sum_value(np.uint64(int(encode(fmt.max, fmt))), np.float64(0), *sum_bits(name).key))
