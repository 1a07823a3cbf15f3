"""Keyed choices of places: without repeats (a permutation of any size) or with (a hash), with nothing kept between calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROUNDS = 12
_CHUNK = 1 << 15
_GOLDEN = 0x9E3779B97F4A7C15
_HALF = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)
_ONE = np.uint64(1)

Places = Callable[["NDArray[np.uint64]", "NDArray[np.uint64]", "NDArray[np.uint64]"], "NDArray[np.uint64]"]


def permuted(ranks: NDArray[np.int64], sizes: NDArray[np.int64], keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Where a keyed permutation of 0 to size - 1 takes each rank; int64, an element each.

    A Feistel network whose halves are numbers below a ≈ √size and b ≈ size/a, added to in turn modulo theirs; what it takes
    beyond the size walks on until it lands within (Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002,
    sections 3 and 4: their generalised Feistel and cycle walking). At most one place in √size walks. For sampling, not for
    secrets.

    Args:
        ranks: 0 to size - 1.
        sizes: 1 to 2⁶³ - 1.
        keys: a permutation each.
    """
    return _chunked(_permuted, ranks, sizes, keys)


def hashed(ranks: NDArray[np.int64], sizes: NDArray[np.int64], keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """A number below each size, uniform and independent from rank to rank as far as a hash can be; int64, an element each.

    Args:
        ranks: 0 to 2⁶³ - 1; a rank may exceed the size.
        sizes, keys: as ``permuted``.
    """
    return _chunked(_hashed, ranks, sizes, keys)


def _chunked(places: Places, ranks: NDArray[np.int64], sizes: NDArray[np.int64], keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    found = np.empty(ranks.shape, np.int64)
    for start in range(0, ranks.size, _CHUNK):  # as much as the cache holds
        part = slice(start, start + _CHUNK)
        found[part] = places(ranks[part].astype(np.uint64), sizes[part].astype(np.uint64), keys[part])
    return found


def _permuted(x: NDArray[np.uint64], sizes: NDArray[np.uint64], keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    a, b = _sides(sizes)
    right, left = np.divmod(x, a)
    for turn in range(ROUNDS):
        if turn % 2 == 0:
            left = _wrapped(left + _below(a, right, keys, turn), a)
        else:
            right = _wrapped(right + _below(b, left, keys, turn), b)
    found = left + a * right
    beyond = np.flatnonzero(found >= sizes)
    if beyond.size:
        found[beyond] = _permuted(found[beyond], sizes[beyond], keys[beyond])
    return found


def _hashed(
    ranks: NDArray[np.uint64], sizes: NDArray[np.uint64], keys: NDArray[np.uint64], attempt: int = 0
) -> NDArray[np.uint64]:
    a, b = _sides(sizes)
    found = _below(a, ranks, keys, 2 * attempt) + a * _below(b, ranks, keys, 2 * attempt + 1)
    beyond = np.flatnonzero(found >= sizes)
    if beyond.size:
        found[beyond] = _hashed(ranks[beyond], sizes[beyond], keys[beyond], attempt + 1)
    return found


def _sides(sizes: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """a = ⌈√size⌉ (one more where the float's root is off) and b = ⌈size/a⌉, so that a b ≥ size."""
    a = np.ceil(np.sqrt(sizes.astype(np.float64))).astype(np.uint64)
    a += a * a < sizes
    return a, (sizes - _ONE) // a + _ONE


def _below(bound: NDArray[np.uint64], words: NDArray[np.uint64], keys: NDArray[np.uint64], turn: int) -> NDArray[np.uint64]:
    """⌊h bound / 2⁶⁴⌋ of a hash h of the words; bounds fit 32 bits."""
    h = words + (keys ^ np.uint64((turn + 1) * _GOLDEN & 0xFFFFFFFFFFFFFFFF))
    # SplitMix64's finaliser (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014, figure 16).
    h ^= h >> np.uint64(30)
    h *= np.uint64(0xBF58476D1CE4E5B9)
    h ^= h >> np.uint64(27)
    h *= np.uint64(0x94D049BB133111EB)
    h ^= h >> np.uint64(31)
    return ((h >> _HALF) * bound + ((h & _LOW) * bound >> _HALF)) >> _HALF


def _wrapped(sums: NDArray[np.uint64], bound: NDArray[np.uint64]) -> NDArray[np.uint64]:
    return sums - bound * (sums >= bound)
