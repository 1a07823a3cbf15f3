"""SECDED codes: the properties of Hsiao's matrix, every error of one and two bits, and what more of them do."""

from itertools import combinations
from math import comb

import numpy as np
import pytest

from numerics import InputError, Secded
from numerics.ecc import NO_BIT

SIZES = {8: 13, 16: 22, 32: 39, 64: 72}


def words(code, count, seed=0):
    """Random data with all zeros and all ones among them."""
    rng = np.random.default_rng(seed)
    top = (1 << code.data_bits) - 1
    return np.concatenate([np.array([0, top], np.uint64), rng.integers(0, top, count, np.uint64, endpoint=True)])


def flipped(code, data, check, *bits):
    """A word with wrong bits: Python integers of a whole code word, so nothing of the code's own arithmetic."""
    word = int(data) | int(check) << code.data_bits
    for bit in bits:
        word ^= 1 << bit
    return word & ((1 << code.data_bits) - 1), word >> code.data_bits


def received(code, data, patterns):
    """Every pattern of wrong bits on every word: data and check bits of shape (words, patterns)."""
    pairs = [[flipped(code, d, c, *bits) for bits in patterns] for d, c in zip(data, code.encode(data), strict=True)]
    return np.array([[p[0] for p in row] for row in pairs], np.uint64), np.array([[p[1] for p in row] for row in pairs], np.uint8)


@pytest.mark.parametrize(("bits", "length"), SIZES.items())
def test_the_matrix_is_hsiaos(bits, length):
    code = Secded(bits)
    columns = [int(c) for c in code.columns]
    assert code.code_bits == length == len(set(columns))
    weights = [c.bit_count() for c in columns]
    assert all(w % 2 for w in weights)
    # No fewer ones are possible: every column of weight 3 before any of weight 5.
    threes = min(bits, comb(code.check_bits, 3))
    assert (weights.count(1), weights.count(3), weights.count(5)) == (code.check_bits, threes, bits - threes)
    ones = [sum(c >> row & 1 for c in columns) for row in range(code.check_bits)]
    assert max(ones) - min(ones) <= 1


def test_the_72_64_code_has_216_ones_27_in_each_row():
    # Hsiao 1970, on the (72,64) code: 8 + 3 · 56 + 5 · 8 ones.
    columns = Secded().columns
    assert [int(((columns >> row) & 1).sum()) for row in range(8)] == [27] * 8
    # The documented order, written out another way: increasing numbers of three ones, then a ring of five that turns by five.
    assert columns[:56].tolist() == [c for c in range(256) if c.bit_count() == 3]
    assert columns[56:64].tolist() == [int(("00011111" * 3)[8 + 5 * n % 8 :][:8], 2) for n in range(8)]


@pytest.mark.parametrize("bits", SIZES)
def test_check_bits_are_the_parities_of_rows(bits):
    code = Secded(bits)
    for word, check in zip(words(code, 50).tolist(), code.encode(words(code, 50)).tolist(), strict=True):
        slow = [
            sum((word >> d & 1) * (int(code.columns[d]) >> row & 1) for d in range(bits)) % 2 for row in range(code.check_bits)
        ]
        assert check == sum(bit << row for row, bit in enumerate(slow))


@pytest.mark.parametrize("bits", SIZES)
def test_a_word_without_error_passes(bits):
    code = Secded(bits)
    data = words(code, 1000)
    found = code.decode(data, code.encode(data))
    assert np.array_equal(found.data, data)
    assert np.array_equal(found.check, code.encode(data))
    assert not found.syndrome.any()
    assert not found.single_error.any()
    assert not found.double_error.any()
    assert set(found.position.tolist()) == {NO_BIT}


@pytest.mark.parametrize("bits", SIZES)
def test_every_single_error_is_corrected(bits):
    code = Secded(bits)
    data = words(code, 200)
    found = code.decode(*received(code, data, list(combinations(range(code.code_bits), 1))))
    assert (found.data == data[:, None]).all()
    assert (found.check == code.encode(data)[:, None]).all()
    assert (found.position == np.arange(code.code_bits)).all()
    assert found.single_error.all()
    assert not found.double_error.any()


@pytest.mark.parametrize("bits", SIZES)
def test_every_double_error_is_detected_and_left_alone(bits):
    code = Secded(bits)
    patterns = list(combinations(range(code.code_bits), 2))
    data, check = received(code, words(code, 6), patterns)
    assert bits != 64 or data.shape[1] == 2556
    found = code.decode(data, check)
    assert found.double_error.all()
    assert not found.single_error.any()
    assert np.array_equal(found.data, data)
    assert np.array_equal(found.check, check)


@pytest.mark.parametrize("bits", [8, 16, 32, 64])
def test_triple_errors_by_brute_force(bits):
    code = Secded(bits)
    patterns = np.array(list(combinations(range(code.code_bits), 3)))
    masks = np.zeros((len(patterns), 2), np.uint64)
    for bit in patterns.T:
        in_data = bit < bits
        masks[:, 0] ^= np.where(in_data, np.uint64(1) << np.where(in_data, bit, 0).astype(np.uint64), np.uint64(0))
        masks[:, 1] ^= np.where(in_data, np.uint64(0), np.uint64(1) << np.where(in_data, 0, bit - bits).astype(np.uint64))
    found = code.decode(masks[:, 0], masks[:, 1])  # errors on the word of zeros
    shares = code.outcomes(3)
    assert shares.miscorrected == pytest.approx(found.single_error.mean(), abs=1e-12)
    assert shares.detected == pytest.approx(found.double_error.mean(), abs=1e-12)
    assert shares.corrected == shares.undetected == 0
    # None of those that were taken for a single error is right.
    wrong = (found.data != 0) | (found.check != 0)
    assert wrong.all()


def code_words_of_weight(code, weight):
    """How many code words have that many ones: by MacWilliams' identity from the sums of rows of H, all 2^r of them."""
    n, r = code.code_bits, code.check_bits
    rows = [sum((int(c) >> row & 1) << place for place, c in enumerate(code.columns)) for row in range(r)]
    total = 0
    for chosen in range(1 << r):
        word = 0
        for row in range(r):
            word ^= rows[row] if chosen >> row & 1 else 0
        ones = word.bit_count()
        total += sum((-1) ** j * comb(ones, j) * comb(n - ones, weight - j) for j in range(weight + 1))
    assert total % (1 << r) == 0
    return total >> r


@pytest.mark.parametrize("bits", SIZES)
def test_shares_by_counting_code_words(bits):
    code = Secded(bits)
    n = code.code_bits
    assert [code_words_of_weight(code, weight) for weight in (0, 1, 2, 3)] == [1, 0, 0, 0]
    four, six = code_words_of_weight(code, 4), code_words_of_weight(code, 6)
    assert code.outcomes(1).corrected == 1
    assert code.outcomes(2).detected == 1
    # Three errors are taken for one where a fourth would make a code word; four pass where they are one.
    assert code.outcomes(3).miscorrected == pytest.approx(4 * four / comb(n, 3), rel=1e-12)
    assert code.outcomes(4).undetected == pytest.approx(four / comb(n, 4), rel=1e-12)
    assert code.outcomes(6).undetected == pytest.approx(six / comb(n, 6), rel=1e-12)
    # Five: a code word of six without one bit, or one of four with a bit that it lacks.
    assert code.outcomes(5).miscorrected == pytest.approx((6 * six + (n - 4) * four) / comb(n, 5), rel=1e-12)
    for errors in range(1, n + 1):
        shares = code.outcomes(errors)
        assert shares.corrected + shares.detected + shares.miscorrected + shares.undetected == pytest.approx(1)
        assert (shares.undetected if errors % 2 else shares.miscorrected) == 0  # columns of odd weight


def test_shapes_and_types():
    code = Secded(8)
    assert code.encode(5).shape == ()
    assert code.encode(np.zeros((2, 0, 3), int)).shape == (2, 0, 3)
    found = code.decode(np.int32([[1, 2]]), code.encode([[1, 2]]))
    assert (found.data.dtype, found.check.dtype, found.data.shape) == (np.uint64, np.uint8, (1, 2))
    # Of these numpy makes floats, and of the first 2^64.
    mixed = [[(1 << 64) - 1, 1], [0, 1 << 63]]
    assert Secded(64).encode(mixed).tolist() == Secded(64).encode(np.array(mixed, np.uint64)).tolist()
    checks = Secded(64).encode(mixed)
    assert Secded(64).decode(mixed, checks).data.tolist() == mixed
    assert Secded(64).encode(np.array((1 << 64) - 1, np.uint64)) == Secded(64).encode([(1 << 64) - 1])[0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Secded(12), r"^data_bits: expected 8, 16, 32 or 64, got 12$"),
        (lambda: Secded(8).encode([256]), r"^data: expected 0 to 2\^8 - 1, got 256$"),
        (lambda: Secded(64).encode([-1]), r"^data: expected 0 to 2\^64 - 1, got -1$"),
        (lambda: Secded(64).encode([(1 << 64) - 1, -1]), r"^data: expected 0 to 2\^64 - 1, got -1$"),
        (lambda: Secded(64).encode([1 << 64, 1]), r"^data: expected 0 to 2\^64 - 1, got 18446744073709551616$"),
        (lambda: Secded(64).encode([(1 << 64) - 1, 1.0]), r"^data: expected integers, got float64$"),
        (lambda: Secded(64).encode(np.array([1.0])), r"^data: expected integers, got float64$"),
        (lambda: Secded(8).encode([True]), r"^data: expected integers, got bool$"),
        (lambda: Secded(8).encode([0.5]), r"^data: expected integers, got float64$"),
        (lambda: Secded(8).decode([1], [32]), r"^check: expected 0 to 2\^5 - 1, got 32$"),
        (lambda: Secded(8).decode([1], [[1]]), r"^check: expected shape \(1,\), that of data, got \(1, 1\)$"),
        (lambda: Secded(8).outcomes(14), r"^errors: expected an integer from 1 to 13, got 14$"),
    ],
)
def test_bad_input_is_one_line(call, message):
    with pytest.raises(InputError, match=message):
        call()
