"""The gate-level simulator's loop over cycles: 64 streams of stimulus in each word."""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(cache=True, inline="always")
def _count(word):
    """Ones in a word (Hacker's Delight, figure 5-2)."""
    word = word - ((word >> np.uint64(1)) & np.uint64(0x5555555555555555))
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (word * np.uint64(0x0101010101010101)) >> np.uint64(56)


@numba.njit(cache=True, nogil=True)
def run_cycles(
    is_xor, left, right, left_mask, right_mask, out_mask, target, next_states, states,
    input_signals, output_signals, stimulus, recorded, signals, previous, counted, toggles, settled,
):  # fmt: skip
    """Play ``stimulus`` (cycles, inputs, words) and record (cycles, outputs, words) before each rising edge.

    ``signals`` (signals, words) holds the state between calls, ``previous`` (nets, words) what the nets showed last; toggles
    (nets,) of the nets are added up over the bits of ``counted`` (words,), from the first cycle on where ``settled``, else from
    the second.
    """
    words = signals.shape[1]
    taken = np.empty((states.size, words), np.uint64)
    for cycle in range(stimulus.shape[0]):
        for i in range(input_signals.size):
            for w in range(words):
                signals[input_signals[i], w] = stimulus[cycle, i, w]
        for i in range(target.size):
            x, y, to = left[i], right[i], target[i]
            x_mask, y_mask, to_mask = left_mask[i], right_mask[i], out_mask[i]
            if is_xor[i]:
                for w in range(words):
                    signals[to, w] = signals[x, w] ^ signals[y, w] ^ to_mask
            else:
                for w in range(words):
                    signals[to, w] = ((signals[x, w] ^ x_mask) & (signals[y, w] ^ y_mask)) ^ to_mask
        for i in range(output_signals.size):
            for w in range(words):
                recorded[cycle, i, w] = signals[output_signals[i], w]
        for net in range(toggles.size):
            changed = np.uint64(0)
            for w in range(words):
                if settled:
                    changed += _count((signals[net, w] ^ previous[net, w]) & counted[w])
                previous[net, w] = signals[net, w]
            toggles[net] += changed
        settled = True
        for i in range(states.size):
            for w in range(words):
                taken[i, w] = signals[next_states[i], w]
        for i in range(states.size):
            for w in range(words):
                signals[states[i], w] = taken[i, w]
