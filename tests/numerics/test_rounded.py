"""Rounded arithmetic against exact rationals, and sums against one another and against a loop of exact steps."""

import math
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from exact_rounding import rounded
from hypothesis import given
from hypothesis import strategies as st

from numerics.errors import InputError
from numerics.formats import FloatFormat, get_format
from numerics.rounded import RoundedArithmetic, rounded_sum

MODES = ("nearest_even", "nearest_away", "toward_zero", "up", "down", "to_odd")
FORMATS = ("fp32", "bf16", "fp16", "e5m2", "e4m3fn", "e6m9")


def values_of(fmt, count, seed):
    """Values of a format of every magnitude, neighbours of powers of two among them."""
    rng = np.random.default_rng(seed)
    exponents = rng.integers(fmt.emin - fmt.mantissa_bits, fmt.emax + 1, count)
    significands = np.where(rng.random(count) < 0.3, 1 + rng.integers(-2, 3, count) * fmt.eps, rng.uniform(1, 2, count))
    return RoundedArithmetic(fmt).round(rng.choice([-1.0, 1.0], count) * significands * 2.0**exponents)


def exact_root(x, bits=80):
    """√x as a Fraction that differs from it, where it is no square, by less than 2^−bits of it, on the side of zero."""
    shift = 2 * bits + 2 * abs(x.denominator.bit_length() - x.numerator.bit_length())
    number = (x.numerator << shift) // x.denominator
    root = Fraction(math.isqrt(number), 1 << (shift // 2))
    return root if root * root == x else root + Fraction(1, 1 << (shift // 2 + 2))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", FORMATS)
def test_every_operation_is_the_exact_one_rounded_once(name, mode):
    fmt = get_format(name)
    overflow = "ieee" if fmt.has_inf else "saturate"
    arithmetic = RoundedArithmetic(fmt, rounding=mode)
    a, b = values_of(fmt, 300, 1), values_of(fmt, 300, 2)
    near = np.arange(300) % 3 == 0  # so that sums cancel, or are barely inexact
    b[near] = arithmetic.round(a[near] * 2.0 ** np.tile([0, -3, -fmt.mantissa_bits - 1, -fmt.mantissa_bits - 2, -60], 20))
    exact = {
        "add": lambda x, y: x + y,
        "subtract": lambda x, y: x - y,
        "multiply": lambda x, y: x * y,
        "divide": lambda x, y: x / y if y else None,
    }
    for operation, of in exact.items():
        results = getattr(arithmetic, operation)(a, b)
        for x, y, result in zip(a.tolist(), b.tolist(), results.tolist(), strict=True):
            true = of(Fraction(x), Fraction(y)) if math.isfinite(x) and math.isfinite(y) else None
            if true is not None:
                assert result == rounded_fraction(true, fmt, mode, overflow), (operation, x, y)
    roots = arithmetic.sqrt(np.abs(a))
    for x, result in zip(np.abs(a).tolist(), roots.tolist(), strict=True):
        if 0 < x < math.inf:
            assert result == rounded_fraction(exact_root(Fraction(x)), fmt, mode, overflow), ("sqrt", x)


def rounded_fraction(true, fmt, mode, overflow):
    """``exact_rounding.rounded`` takes floats: one that lies on the same side of every value and midpoint of the format."""
    exponent = true.numerator.bit_length() - true.denominator.bit_length() if true else 0
    bits = 200
    scaled = true * Fraction(2) ** (bits - exponent)
    whole = abs(scaled.numerator) // scaled.denominator
    odd = whole | (whole * scaled.denominator != abs(scaled.numerator))
    kept = odd.bit_length() - 53
    if kept > 0:
        odd = ((odd >> kept) | ((odd & ((1 << kept) - 1)) > 0)) << kept
    value = math.copysign(float(Fraction(odd) * Fraction(2) ** (exponent - bits)), true)
    return rounded(value, fmt, mode, overflow)


def test_directed_modes_see_what_float64_loses_of_a_sum():
    tiny = 2.0**-100
    assert RoundedArithmetic("fp32", rounding="up").add(1.0, tiny) == 1 + 2.0**-23
    assert RoundedArithmetic("fp32", rounding="down").add(1.0, -tiny) == 1 - 2.0**-24
    assert RoundedArithmetic("fp32", rounding="toward_zero").subtract(1.0, tiny) == 1 - 2.0**-24
    assert RoundedArithmetic("fp32").add(1.0, tiny) == 1.0


@given(st.lists(st.floats(-1000, 1000, width=16), min_size=2, max_size=2))
def test_half_precision_is_numpys(pair):
    a, b = (np.float16(v) for v in pair)
    arithmetic = RoundedArithmetic("fp16")
    with np.errstate(all="ignore"):
        assert arithmetic.add(float(a), float(b)) == float(a + b)
        assert arithmetic.multiply(float(a), float(b)) == float(a * b)
        if b:
            assert arithmetic.divide(float(a), float(b)) == float(a / b)


def test_infinities_and_nans_pass_through():
    arithmetic = RoundedArithmetic("fp16", rounding="down")
    assert arithmetic.add(math.inf, 1.0) == math.inf
    assert math.isnan(arithmetic.subtract(math.inf, math.inf))
    assert math.isnan(arithmetic.divide(0.0, 0.0))
    assert arithmetic.divide(1.0, 0.0) == math.inf
    assert math.isnan(arithmetic.sqrt(-1.0))


# --- sums ---------------------------------------------------------------------------------------------------------------


def stepwise(terms, fmt, order, block=64):
    """Sums by Python's exact rationals, one number at a time."""

    def add(x, y):
        return rounded_fraction(Fraction(x) + Fraction(y), fmt, "nearest_even", "ieee")

    def sequence(numbers):
        total = numbers[0]
        for number in numbers[1:]:
            total = add(total, number)
        return total

    if order == "sequential":
        return sequence(terms)
    if order == "blocked":
        return sequence([sequence(terms[i : i + block]) for i in range(0, len(terms), block)])
    if order == "pairwise":
        while len(terms) > 1:
            pairs = [add(*terms[i : i + 2]) for i in range(0, len(terms) - 1, 2)]
            terms = pairs + terms[2 * len(pairs) :]
        return terms[0]
    total, carry = 0.0, 0.0
    for term in terms:
        mended = add(term, -carry)
        grown = add(total, mended)
        carry = add(add(grown, -total), -mended)
        total = grown
    return total


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["bf16", "e4m3fn", "e2m1fn", "fp32"])
def test_the_kernel_and_the_loop_are_one(name, mode):
    arithmetic = RoundedArithmetic(name, rounding=mode)
    for scale in (1.0, 1e6):  # the second overflows or saturates in the shorter ones
        x = arithmetic.round(np.random.default_rng(12).standard_normal((70, 5)) * scale)
        assert np.array_equal(arithmetic.sum(x, axis=0, order="sequential"), arithmetic._blocked(x, 70))
        assert np.array_equal(arithmetic.sum(x, axis=0, order="blocked", block=16), arithmetic._blocked(x, 16))
        assert np.array_equal(arithmetic.sum(x, axis=0, order="kahan"), arithmetic._kahan(x), equal_nan=True)


def test_an_overflowing_sum_is_infinite_in_every_order():
    x = np.full(40, 4000.0)
    for order in ("sequential", "pairwise", "blocked", "kahan"):
        assert rounded_sum(x, "fp16", order=order, block=8) == math.inf
    assert rounded_sum(np.full(40, 40.0), "e4m3fn") == 448  # which has no Inf and saturates


def test_a_million_terms_take_no_time():
    assert rounded_sum(np.ones(1 << 20), "fp32") == 1 << 20
    assert rounded_sum(np.ones(1 << 20), "fp16") == 2048


@pytest.mark.parametrize("order", ["sequential", "pairwise", "blocked", "kahan"])
@pytest.mark.parametrize("length", [1, 2, 7, 8, 33])
def test_sums_round_step_by_step(order, length):
    fmt = get_format("bf16")
    x = RoundedArithmetic(fmt).round(np.random.default_rng(length).standard_normal((length, 3)))
    result = rounded_sum(x, fmt, order=order, axis=0, block=4)
    assert result.tolist() == [stepwise(column, fmt, order, block=4) for column in x.T.tolist()]


def test_ones_in_bf16():
    ones = np.ones(1000)
    assert rounded_sum(ones, "bf16") == 256  # 256 + 1 is a tie, and 256 is even
    assert rounded_sum(ones, "fp32") == 1000
    assert rounded_sum(ones, "bf16", order="kahan") == float(ml_dtypes.bfloat16(1000))
    assert rounded_sum(ones, "bf16", order="pairwise") == 1000
    assert rounded_sum(ones, "bf16", order="blocked", block=32) == 1000


def test_stochastic_rounding_of_ones_in_bf16_is_right_in_the_mean():
    totals = rounded_sum(np.ones((1000, 400)), "bf16", axis=0, rounding="stochastic", seed=5)
    # From 256 on the steps are 2 and more: the variance of one addition is below step²/4, at most 16/4 for sums below 2^10.
    error = np.sqrt(1000 * 4 / 400)
    assert abs(totals.mean() - 1000) < 5 * error
    assert totals.std() > 1
    again = rounded_sum(np.ones((1000, 400)), "bf16", axis=0, rounding="stochastic", seed=5)
    assert np.array_equal(totals, again)
    assert not np.array_equal(totals, rounded_sum(np.ones((1000, 400)), "bf16", axis=0, rounding="stochastic", seed=6))


def test_the_error_grows_with_the_order():
    # Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., sections 4.2 and 4.3: bounds (n − 1)u, log2(n)·u and 2u.
    x = RoundedArithmetic("fp16").round(np.random.default_rng(0).random((4096, 50)))
    true = x.sum(axis=0)
    u = 2.0**-11
    errors = {o: np.abs(rounded_sum(x, "fp16", order=o, axis=0) / true - 1).max() for o in ("sequential", "pairwise", "kahan")}
    assert errors["pairwise"] <= 12 * u
    assert errors["kahan"] <= 2 * u * 1.01
    assert errors["sequential"] > 10 * errors["pairwise"]


def test_products_are_rounded_before_they_are_added():
    a = RoundedArithmetic("e4m3fn").round(np.random.default_rng(3).standard_normal((5, 6)))
    x = a[0]
    expected = [stepwise([rounded_fraction(Fraction(p) * Fraction(q), get_format("fp16"), "nearest_even", "ieee")
                          for p, q in zip(row, x.tolist(), strict=True)], get_format("fp16"), "sequential")
                for row in a.tolist()]  # fmt: skip
    arithmetic = RoundedArithmetic("fp16")
    assert arithmetic.matvec(a, x, order="sequential").tolist() == expected
    assert arithmetic.dot(a[0], x, order="sequential") == expected[0]


def test_fp64_is_the_processors():
    x = np.random.default_rng(13).standard_normal((1000, 3))
    assert np.array_equal(rounded_sum(x, "fp64", axis=0), np.cumsum(x, axis=0)[-1])
    exact = [float(sum(map(Fraction, column))) for column in x.T.tolist()]
    assert rounded_sum(x, "fp64", axis=0, order="kahan").tolist() == pytest.approx(exact, rel=1e-13)


def test_an_empty_sum_is_zero():
    assert all(
        rounded_sum(np.ones((0, 2)), "bf16", order=o, axis=0).tolist() == [0, 0] for o in ("sequential", "pairwise", "kahan")
    )


# --- bad input ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fmt", "more", "message"),
    [
        ("int8", {}, "^format: expected a float format with a sign and a zero, got 'int8'$"),
        ("e8m0fnu", {}, "^format: expected a float format with a sign and a zero, got 'e8m0fnu'$"),
        ("e8m25", {}, r"^format: expected at most 25 significant bits, or fp64, got 'e8m25' \(26\)$"),
        ("e11m3", {}, r"^format: expected exponents from -500 to 500, or fp64, got 'e11m3' \(-1025 to 1023\)$"),
        ("fp64", {"rounding": "up"}, "^rounding: fp64 is computed as the processor does; expected 'nearest_even', got 'up'$"),
        ("bf16", {"rounding": "stochastic"}, "^seed: stochastic rounding needs one"),
        ("bf16", {"seed": 1}, "^seed: rounding 'nearest_even' draws no random bits"),
        ("bf16", {"rounding": "stochastic", "seed": 1.5}, "^seed: expected an integer, got float$"),
        ("bf16", {"rounding": "nearest"}, "^rounding: unknown name 'nearest'; did you mean"),
    ],
)
def test_bad_arithmetic(fmt, more, message):
    with pytest.raises(InputError, match=message):
        RoundedArithmetic(fmt, **more)


def test_the_widest_format_taken():
    wide = FloatFormat("wide", 8, 24)
    assert RoundedArithmetic(wide).add(1.0, 2.0**-24) == 1 + 2.0**-24


@pytest.mark.parametrize("overflow", [None, "saturate"])
@pytest.mark.parametrize("terms", [[np.inf, -np.inf], [np.inf, 1.0], [-np.inf, -1.0], [1.0, np.inf]])
def test_sums_of_infinities_are_those_of_add(terms, overflow):
    arithmetic = RoundedArithmetic("fp16", overflow=overflow)
    for order in ("sequential", "pairwise", "blocked"):
        assert np.array_equal(arithmetic.sum(terms, order=order), arithmetic.add(*terms), equal_nan=True)


def test_bad_sums():
    with pytest.raises(InputError, match=r"^axis: expected one of the 1 dimensions of x, got 0.5$"):
        rounded_sum(np.ones(3), "bf16", axis=0.5)
    with pytest.raises(InputError, match=r"^order: unknown name 'recursive'; known: "):
        rounded_sum(np.ones(3), "bf16", order="recursive")
    with pytest.raises(InputError, match=r"^block: expected an integer ≥ 1, got 0$"):
        rounded_sum(np.ones(3), "bf16", order="blocked", block=0)
    with pytest.raises(InputError, match=r"^axis: expected one of the 1 dimensions of x, got 1$"):
        rounded_sum(np.ones(3), "bf16", axis=1)
    with pytest.raises(InputError, match=r"^a, b: expected two vectors of one length, got shapes \(3,\) and \(2,\)$"):
        RoundedArithmetic("bf16").dot(np.ones(3), np.ones(2))
    with pytest.raises(InputError, match=r"^a, x: expected shapes \(m, n\) and \(n,\), got \(3, 3\) and \(2,\)$"):
        RoundedArithmetic("bf16").matvec(np.ones((3, 3)), np.ones(2))
