"""Booth digits: every integer of a width is its digits, and products made of them are exact."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numerics.booth import bit_weight_matmul, booth_digits, lockstep_cycles, nonzero_digits
from numerics.errors import InputError


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 7, 8, 9, 12])
def test_digits_add_up_to_every_code(bits):
    codes = np.arange(-(1 << (bits - 1)), 1 << (bits - 1))
    digits = booth_digits(codes, bits)
    assert digits.shape == (len(codes), -(-bits // 2))
    assert set(np.unique(digits)) <= {-2, -1, 0, 1, 2}
    assert np.array_equal(digits.astype(int) @ 4 ** np.arange(digits.shape[1]), codes)


def test_digits_by_the_encoders_table():
    # A radix-4 encoder's truth table: the bits 2i+1, 2i, 2i−1 → the digit.
    table = {"000": 0, "001": 1, "010": 1, "011": 2, "100": -2, "101": -1, "110": -1, "111": 0}
    for code in range(-128, 128):
        text = f"{code & 0xFF:08b}0"
        assert booth_digits(np.array(code), 8).tolist() == [table[text[6 - 2 * i : 9 - 2 * i]] for i in range(4)]


@given(st.integers(-(1 << 61), (1 << 61) - 1))
def test_wide_integers(code):
    digits = booth_digits(np.array([code]), 62)[0]
    assert sum(int(d) * 4**i for i, d in enumerate(digits)) == code


def test_shapes_and_counts():
    codes = np.array([[0, 1, -1], [2, 85, -86]])
    assert booth_digits(codes, 8).shape == (2, 3, 4)
    assert nonzero_digits(codes, 8).tolist() == [[0, 1, 1], [2, 4, 4]]
    # A width that is larger than needed adds only zeros.
    assert np.array_equal(nonzero_digits(codes, 20), nonzero_digits(codes, 8))


@given(st.integers(0, 10_000))
def test_products_are_exact(seed):
    rng = np.random.default_rng(seed)
    m, k, n = rng.integers(0, 9, 3)
    a = rng.integers(-128, 128, (m, k)).astype(np.int8)
    b = rng.integers(-(1 << 31), 1 << 31, (k, n))
    assert np.array_equal(bit_weight_matmul(a, b), a.astype(np.int64) @ b)


def test_lanes_wait_for_the_slowest():
    assert lockstep_cycles([1, 4, 2, 2, 0, 3], lanes=2) == (4 + 2 + 3) / 3
    assert lockstep_cycles([1, 4, 2], lanes=1) == 7 / 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: booth_digits(np.array([128]), 8), r"^codes: expected -128 to 127 \(8 bits, signed\), got 128$"),
        (lambda: booth_digits(np.array([-3, 1]), 2), r"^codes: expected -2 to 1 \(2 bits, signed\), got -3$"),
        (lambda: booth_digits(np.array([1.0]), 8), "^codes: expected integers, got float64$"),
        (lambda: booth_digits(np.array([1]), 63), "^bits: expected an integer from 1 to 62, got 63$"),
        (lambda: lockstep_cycles([1, 2, 3], lanes=2), "^costs: expected a multiple of 2 operands, one for each lane, got 3$"),
        (lambda: lockstep_cycles([1, 2, 3], lanes=0), "^lanes: expected an integer ≥ 1, got 0$"),
        (lambda: bit_weight_matmul(np.ones((2, 3), int), np.ones((2, 3), int)), r"^a, b: expected shapes \(m, k\) and \(k, n\)"),
        (lambda: bit_weight_matmul(np.ones((1, 1), int), np.ones((1, 1))), "^b: expected integers, got float64$"),
        (
            lambda: bit_weight_matmul(np.ones((1, 1), int), np.array([[1 << 60]])),
            "^b: a product of 8-bit numbers with .* 64 bits$",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()
