"""Compiled loops of the integer learning engine (numba)."""

from __future__ import annotations

import numpy as np
from numba import njit

FACTORS = 10
"""x0 x1 x2 y0 y1 y2 y3 w t r, in this order."""


@njit(cache=True, nogil=True, inline="always")
def random_bits(seed, stream, step, index):
    """32 random bits that depend on nothing but the four numbers (finaliser of splitmix64 over their sum, three times)."""
    z = np.uint64(seed)
    for word in (np.uint64(stream), np.uint64(step), np.uint64(index)):
        z = (z ^ word) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return np.int64(z >> np.uint64(32))


@njit(cache=True, nogil=True)
def decay_traces(traces, factor, fraction_bits, stochastic, seed, stream, step):
    """traces (neurons,) ← traces · factor / 2^fraction_bits, rounded; returns how many were not 0 before."""
    one = 1 << fraction_bits
    written = 0
    for n in range(traces.size):
        if traces[n]:
            up = random_bits(seed, stream, step, n) & (one - 1) if stochastic else one >> 1
            traces[n] = (traces[n] * factor + up) >> fraction_bits
            written += 1
    return written


@njit(cache=True, nogil=True)
def bump_traces(traces, spiked, impulse, limit):
    """The traces of those that spiked rise by ``impulse`` and saturate."""
    for n in range(spiked.size):
        traces[spiked[n]] = min(traces[spiked[n]] + impulse, limit)


@njit(cache=True, nogil=True, inline="always")
def _sum_of_products(terms, factors):
    """Σ coefficient · product of factors; terms (terms, 1 + factors): the coefficient, then the power of each factor."""
    total = np.int64(0)
    for i in range(terms.shape[0]):
        product = terms[i, 0]
        for j in range(FACTORS):
            for _ in range(terms[i, 1 + j]):
                product *= factors[j]
        total += product
    return total


@njit(cache=True, nogil=True, inline="always")
def _stored(weight, sign, clear, stuck):
    """What a memory with stuck bits gives back of a weight: two's complement of 8 bits, or its magnitude."""
    code = weight & 255 if sign == 0 else abs(weight)
    code = (code & ~clear) | stuck
    if sign == 0:
        return code - 256 if code >= 128 else code
    return code if sign > 0 else -code


@njit(cache=True, nogil=True)
def store_weights(weight, sign, clear, stuck):
    """Weights as their memory gives them back, in place."""
    for k in range(weight.size):
        weight[k] = _stored(weight[k], sign, clear[k], stuck[k])


@njit(cache=True, nogil=True)
def learn_epoch(
    first, target, column, synapse, source, weight, tag, clear, stuck, sign, low, high, tag_limit,
    pre_place, post_place, pre_spiked, post_spiked, pre_traces, post_before, post_after, last,
    weight_terms, weight_counts, tag_terms, tag_counts, fraction_bits, only_spiked, reward, stochastic, seed, stream, step,
):  # fmt: skip
    """The rule at the end of an epoch; returns how many synapses were read, how many weights and tags changed.

    pre_place (sources,), post_place (targets,): place of a neuron's last spike within the epoch, −1: none; pre_spiked,
    post_spiked: who has one. pre_traces (places, 2, sources), post_before, post_after (places, 3, targets): traces at each place,
    those of the targets before and after their own spikes; last: the epoch's last place. weight_terms, tag_terms (4, terms,
    1 + factors) with so many terms each: those that name neither x0 nor y0, x0, y0, both. only_spiked: there are none of the
    first kind, so that only synapses of neurons that spiked are read.
    """
    if only_spiked:
        room = 0
        for i in range(pre_spiked.size):
            room += first[pre_spiked[i] + 1] - first[pre_spiked[i]]
        for i in range(post_spiked.size):
            room += column[post_spiked[i] + 1] - column[post_spiked[i]]
        chosen = np.empty(room, np.int64)
        reads = 0
        for i in range(pre_spiked.size):
            for k in range(first[pre_spiked[i]], first[pre_spiked[i] + 1]):
                chosen[reads] = k
                reads += 1
        for i in range(post_spiked.size):
            for j in range(column[post_spiked[i]], column[post_spiked[i] + 1]):
                if pre_place[source[synapse[j]]] < 0:
                    chosen[reads] = synapse[j]
                    reads += 1
    else:
        chosen = np.arange(target.size)
        reads = target.size
    one = 1 << fraction_bits
    writes, tags = 0, 0
    factors = np.zeros(FACTORS, np.int64)
    for i in range(reads):
        k = chosen[i]
        s, n = source[k], target[k]
        change, tag_change = np.int64(0), np.int64(0)
        for case in range(4):
            if (case & 1 and pre_place[s] < 0) or (case & 2 and post_place[n] < 0):
                continue
            if weight_counts[case] + tag_counts[case] == 0:
                continue
            place = last
            if case == 1:
                place = pre_place[s]
            elif case == 2:
                place = post_place[n]
            elif case == 3:
                place = max(pre_place[s], post_place[n])
            factors[0], factors[3] = 1, 1
            factors[1], factors[2] = pre_traces[place, 0, s], pre_traces[place, 1, s]
            for y in range(3):
                factors[4 + y] = post_before[place, y, n] if case == 1 else post_after[place, y, n]
            factors[7], factors[8], factors[9] = weight[k], tag[k], reward
            change += _sum_of_products(weight_terms[case, : weight_counts[case]], factors)
            tag_change += _sum_of_products(tag_terms[case, : tag_counts[case]], factors)
        if tag_change:
            up = random_bits(seed, stream + 1, step, k) & (one - 1) if stochastic else one >> 1
            new = min(max(tag[k] + ((tag_change + up) >> fraction_bits), -tag_limit), tag_limit)
            tags += new != tag[k]
            tag[k] = new
        if change:
            up = random_bits(seed, stream, step, k) & (one - 1) if stochastic else one >> 1
            new = min(max(weight[k] + ((change + up) >> fraction_bits), low), high)
            new = _stored(new, sign, clear[k], stuck[k])
            writes += new != weight[k]
            weight[k] = new
    return reads, writes, tags
