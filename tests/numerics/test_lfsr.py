"""Linear feedback shift registers: their periods, leaps against steps, and stochastic rounding with their words."""

import itertools
import math
import random
from fractions import Fraction

import numpy as np
import pytest
from exact_rounding import rounded

from numerics import FloatFormat, InputError, Lfsr, get_format, quantize
from numerics.lfsr import TAPS


def plain_states(lfsr, state):
    """The recurrence of a shift register in Galois's form, written with a list of bits: index 0 leaves the register."""
    bits = [state >> i & 1 for i in range(lfsr.bits)]
    while True:
        yield sum(bit << i for i, bit in enumerate(bits))
        out = bits[0]
        bits = [*bits[1:], 0]
        for tap in lfsr.taps:
            bits[tap - 1] ^= out


@pytest.mark.parametrize("bits", range(2, 19))
def test_every_state_but_zero_comes_once_in_a_period(bits):
    lfsr = Lfsr(bits)
    states = lfsr.states((1 << bits) - 1, seed=1)
    assert np.array_equal(np.sort(states), np.arange(1, 1 << bits))
    assert lfsr.step(int(states[-1])) == 1


def is_prime(n):
    """Miller and Rabin; these bases decide below 2^64 (Sorenson, Webster, 2015)."""
    if n < 2 or any(n % p == 0 and n != p for p in (2, 3, 5, 7, 11, 13)):
        return False
    odd, twos = n - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37):
        x = pow(base, odd, n)
        if base % n and x not in (1, n - 1) and all((x := x * x % n) != n - 1 for _ in range(twos - 1)):
            return False
    return True


def prime_factors(n):
    """Trial division, then Pollard's rho."""
    found = set()
    for p in itertools.chain([2], range(3, 1000, 2)):
        while n % p == 0:
            found.add(p)
            n //= p
    waiting = [n] if n > 1 else []
    while waiting:
        n = waiting.pop()
        if is_prime(n):
            found.add(n)
            continue
        for shift in itertools.count(1):
            x = y = 2
            divisor = 1
            while divisor == 1:
                x = (x * x + shift) % n
                y = (y * y + shift) % n
                y = (y * y + shift) % n
                divisor = math.gcd(x - y, n)
            if divisor != n:
                break
        waiting += [divisor, n // divisor]
    return found


@pytest.mark.parametrize("bits", sorted(TAPS))
def test_the_period_of_every_polynomial_listed_is_the_longest(bits):
    # The order of a step divides 2^bits − 1 and none of its proper divisors.
    lfsr, longest = Lfsr(bits), (1 << bits) - 1
    for state in (1, 2, longest):
        assert lfsr.jump(state, longest) == state
    for prime in prime_factors(longest):
        if prime != longest:
            assert lfsr.jump(1, longest // prime) != 1


def test_a_polynomial_that_is_not_primitive_has_a_shorter_period():
    lfsr = Lfsr(4, (4, 2))  # (x^2 + x + 1)^2
    states = lfsr.states(15, seed=1)
    assert len(set(states.tolist())) == 6
    assert lfsr.jump(1, 6) == 1


@pytest.mark.parametrize("bits", [2, 5, 16, 31, 32, 33, 64])
def test_states_steps_and_leaps_are_those_of_a_list_of_bits(bits):
    lfsr = Lfsr(bits)
    seed = random.Random(bits).randrange(1, 1 << bits)
    plain = list(itertools.islice(plain_states(lfsr, seed), 600))
    assert lfsr.states(600, seed=seed).tolist() == plain
    assert lfsr.states(40, seed=seed, steps=15).tolist() == plain[:600:15]
    assert [lfsr.jump(seed, steps) for steps in (0, 1, 2, 7, 599)] == [plain[i] for i in (0, 1, 2, 7, 599)]
    assert lfsr.step(seed) == plain[1]


def test_known_states():
    # XAPP 052's 8, 6, 5, 4 as a mask, and its first states from 1.
    assert Lfsr(8).mask == 0b10111000
    assert Lfsr(8).states(4, seed=1).tolist() == [0b00000001, 0b10111000, 0b01011100, 0b00101110]
    assert Lfsr(32).mask == 0x80200003


def test_words_are_the_lowest_bits():
    lfsr = Lfsr(32)
    states = lfsr.states(100, seed=7, steps=11)
    words = lfsr.words(100, seed=7, bits=11, steps=11)
    assert words.dtype == np.uint32
    assert np.array_equal(words, states & np.uint64(2047))
    assert np.array_equal(lfsr.words(100, seed=7), lfsr.states(100, seed=7))
    assert Lfsr(48).words(3, seed=1).dtype == np.uint64
    assert lfsr.words(0, seed=1).size == 0


@pytest.mark.parametrize("fmt", ["bf16", "e4m3fn", "e5m2"])
def test_stochastic_rounding_with_words_is_that_of_exact_arithmetic(fmt):
    found = get_format(fmt)
    assert isinstance(found, FloatFormat)
    rng = np.random.default_rng(3)
    x = (rng.standard_normal(2000) * 2.0 ** rng.integers(found.emin - 4, found.emin + 12, 2000)).astype(np.float32)
    words = Lfsr(32).words(2000, seed=0xACE1, bits=12, steps=12)
    values = quantize(x, found, rounding="stochastic", seed=words, random_bits=12)
    # The discarded part counts to 12 bits: adding the word carries where that part and it reach 1.
    expected = [
        rounded(float(v), found, "stochastic", "saturate", Fraction(int(w), 1 << 12)) for v, w in zip(x, words, strict=True)
    ]
    assert np.array_equal(values, np.array(expected, np.float32))


def test_over_a_whole_period_stochastic_rounding_is_unbiased():
    # All 16-bit words but 0 come once: of 2^16 − 1 roundings, as many go up as the discarded bits say.
    lfsr = Lfsr(16)
    words = lfsr.words((1 << 16) - 1, seed=1)
    for discarded in (1, 0x1234, 0x8000, 0xFFFF):
        x = np.full(words.size, (1 << 16 | discarded) / (1 << 16), np.float32)
        up = quantize(x, "q17.0", rounding="stochastic", seed=words, random_bits=16) == 2
        assert up.sum() == discarded


def test_bad_input_is_named():
    with pytest.raises(InputError, match=r"^bits: expected 2 to 64, got 65$"):
        Lfsr(65)
    with pytest.raises(InputError, match=r"^bits: expected an integer, got 3.5$"):
        Lfsr(3.5)
    with pytest.raises(InputError, match=r"^taps: expected different exponents from 1 to 8, 8 among them, got \(6, 5\)$"):
        Lfsr(8, (6, 5))
    with pytest.raises(InputError, match=r"^taps: expected different exponents from 1 to 8, 8 among them, got \(8, 8\)$"):
        Lfsr(8, (8, 8))
    with pytest.raises(InputError, match=r"^taps: expected the exponents of a polynomial, such as \(8, 6, 5, 4\), got 3$"):
        Lfsr(8, 3)
    with pytest.raises(InputError, match=r"^seed: expected 1 to 2\^8 − 1 \(0 never changes\), got 0$"):
        Lfsr(8).states(3, seed=0)
    with pytest.raises(InputError, match=r"^seed: expected 1 to 2\^8 − 1 \(0 never changes\), got 256$"):
        Lfsr(8).words(3, seed=256)
    with pytest.raises(InputError, match=r"^count: expected ≥ 0, got -1$"):
        Lfsr(8).words(-1, seed=1)
    with pytest.raises(InputError, match=r"^steps: expected ≥ 1, got 0$"):
        Lfsr(8).words(3, seed=1, steps=0)
    with pytest.raises(InputError, match=r"^bits: expected 1 to 8, the bits of the register, got 9$"):
        Lfsr(8).words(3, seed=1, bits=9)
    with pytest.raises(InputError, match=r"^steps: expected ≥ 0, got -2$"):
        Lfsr(8).jump(1, -2)
