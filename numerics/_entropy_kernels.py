"""Range asymmetric numeral systems (rANS), the coder of ``numerics.entropy`` (numba).

Duda, arXiv 1311.2540, section 2.3, in the streaming form with 32-bit states and 16-bit words: a state x stays in
[2^16, 2^32); coding a symbol of frequency f and cumulated frequency c out of 2^p takes it to (x div f) · 2^p + c + x mod f, after
its low word has been put out where it would leave that interval. ``LANES`` states take turns, so that a processor works on
several at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

LANES = 8
"""States that take turns: symbol i belongs to state i mod ``LANES``."""

START = 1 << 16
"""What every state starts from, and is again after the last symbol is decoded."""


@njit(nogil=True, cache=True)
def encode_block(
    symbols: NDArray[Any],
    frequencies: NDArray[np.uint32],
    cumulated: NDArray[np.uint32],
    precision: int,
    words: NDArray[np.uint16],
    states: NDArray[np.uint32],
) -> int:
    """Code ``symbols``, the last first, so that decoding meets them in order.

    Args:
        symbols: unsigned integers, shape (n,).
        frequencies, cumulated: of each symbol, uint32; they sum to 2^precision, and those of symbols that occur are positive.
        precision: at most 16.
        words: uint16, shape (≥ n,); filled from its end.
        states: uint32, shape (LANES,); the states to start decoding from.

    Returns:
        Index of the first word.
    """
    at = words.size
    for lane in range(LANES):
        states[lane] = START
    for i in range(symbols.size - 1, -1, -1):
        symbol = symbols[i]
        x = np.uint64(states[i % LANES])
        frequency = np.uint64(frequencies[symbol])
        if x >= frequency << np.uint64(32 - precision):
            at -= 1
            words[at] = x & np.uint64(0xFFFF)
            x >>= np.uint64(16)
        quotient = np.uint32(x) // np.uint32(frequency)
        rest = x - np.uint64(quotient) * frequency
        states[i % LANES] = (np.uint64(quotient) << np.uint64(precision)) + rest + np.uint64(cumulated[symbol])
    return at


@njit(nogil=True, cache=True)
def decode_block(
    words: NDArray[np.uint16],
    states: NDArray[np.uint32],
    symbol_of: NDArray[Any],
    frequencies: NDArray[np.uint32],
    cumulated: NDArray[np.uint32],
    precision: int,
    symbols: NDArray[Any],
) -> bool:
    """The reverse: fill ``symbols``.

    Args:
        words, states: what ``encode_block`` left.
        symbol_of: symbol of each of the 2^precision slots.
        frequencies, cumulated, precision: as given to it.
        symbols: takes the result, shape (n,).

    Returns:
        Whether the words were those of n symbols: none missing, none left over, every state back at its start.
    """
    at = 0
    x = np.empty(LANES, np.uint32)
    for lane in range(LANES):
        x[lane] = states[lane]
    mask = np.uint32((1 << precision) - 1)
    for i in range(symbols.size):
        state = x[i % LANES]
        slot = state & mask
        symbol = symbol_of[slot]
        symbols[i] = symbol
        state = np.uint32(frequencies[symbol] * (state >> np.uint32(precision)) + slot - cumulated[symbol])
        if state < START:
            if at == words.size:
                return False
            state = np.uint32((state << np.uint32(16)) | words[at])
            at += 1
        x[i % LANES] = state
    for lane in range(LANES):
        if x[lane] != START:
            return False
    return at == words.size
