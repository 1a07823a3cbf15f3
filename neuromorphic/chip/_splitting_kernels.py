"""Compiled loops of splitting (numba).

Synapses are given by target: those of neuron j, of all projections, are entries first[j] to first[j + 1] of ``axon`` (number of
the source, or of its row in a crossbar; −1: none is needed) and ``projection``. Memory is counted in bits.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def count_targets(target, number, counts):
    """Add to ``counts`` the synapses of every neuron; ``number``: (targets,) of one projection's targets among all neurons."""
    for k in range(target.size):
        counts[number[target[k]]] += 1


@njit(cache=True, nogil=True)
def by_target(first, target, number, source_offset, own, free, axon, projection, weight, weights, keep_weights):
    """Put the synapses of projection ``own`` behind those already there; ``free`` is the next entry of every neuron."""
    for s in range(first.size - 1):
        for k in range(first[s], first[s + 1]):
            neuron = number[target[k]]
            at = free[neuron]
            axon[at] = source_offset + s
            projection[at] = own
            if keep_weights:
                weights[at] = weight[k]
            free[neuron] = at + 1


@njit(cache=True, nogil=True)
def crossbar_rows(first, axon, weights, kinds, by_sign, copies):
    """Turn sources into rows of a crossbar; returns (most rows a source has, −1), or (0, neuron) of one with too many weights.

    A row has one type: the rank of the weight among its target's (``kinds``: most of them), or its sign, or none (0). What a
    synapse of a pair that is there already takes is one more row. Synapses of weight 0 take none. ``copies``: (sources · types,)
    to work on. ``weights`` becomes the number of each synapse's row among those of its source.
    """
    types = kinds if kinds else (2 if by_sign else 1)
    last = np.full(copies.size, -1, np.int64)
    ranks = np.empty(kinds)
    most = 1
    for j in range(first.size - 1):
        known = 0
        for k in range(first[j], first[j + 1] if kinds else first[j]):
            place = 0
            while place < known and ranks[place] < weights[k]:
                place += 1
            if weights[k] == 0 or (place < known and ranks[place] == weights[k]):
                continue
            if known == kinds:
                return 0, j
            for later in range(known, place, -1):
                ranks[later] = ranks[later - 1]
            ranks[place] = weights[k]
            known += 1
        for k in range(first[j], first[j + 1]):
            if weights[k] == 0:
                axon[k] = -1
                continue
            kind = 1 if by_sign and weights[k] < 0 else 0
            while kinds and ranks[kind] != weights[k]:
                kind += 1
            row = axon[k] * types + kind
            if last[row] != j:
                last[row] = j
                copies[row] = 0
            weights[k] = copies[row] * types + kind
            copies[row] += 1
            most = max(most, copies[row])
    return most * types, -1


@njit(cache=True, nogil=True, inline="always")
def _list_bits(n, bits, group, header, word):
    """Of a list of n synapses."""
    if n == 0:
        return 0
    whole, rest = n // group, n % group
    total = whole * (-(-(group * bits + header) // word) * word)
    return total + (-(-(rest * bits + header) // word) * word if rest else 0)


@njit(cache=True, nogil=True, inline="always")
def _add(
    j, core, first, axon, projection, row_bits, bits, shift, stored, group, header, word,
    heard, counted, count, shared_in, shared,
):  # fmt: skip
    """Put neuron j on a core; returns the synapses, bits and input axons that this adds."""
    synapses = added = axons = 0
    for k in range(first[j], first[j + 1]):
        a, p = axon[k], projection[k]
        if a < 0:
            continue
        synapses += 1
        if heard[a] != core:
            heard[a] = core
            axons += 1
            added += row_bits
        if row_bits:
            continue
        if stored[p] >= 0:
            if shared_in[p] != core:
                shared_in[p], shared[p] = core, 0
            n = shared[p]
            if n < stored[p]:
                added += _list_bits(n + 1, bits[p], group, header, word) - _list_bits(n, bits[p], group, header, word)
                shared[p] = n + 1
        else:
            g = a + shift[p]
            if counted[g] != core:
                counted[g], count[g] = core, 0
            n = count[g]
            added += _list_bits(n + 1, bits[p], group, header, word) - _list_bits(n, bits[p], group, header, word)
            count[g] = n + 1
    return synapses, added, axons


@njit(cache=True, nogil=True)
def fill(
    first, axon, projection, row_bits, bits, shift, stored, group, header, word, axons, groups,
    state_bits, out, most_neurons, most_synapses, most_bits, most_axons, most_out, core_of,
):  # fmt: skip
    """Fill cores with neurons in their order, a new one where a limit would be passed; ``core_of`` is written.

    ``out``: (neurons,) axons that each sends to; a neuron with more than ``most_out`` by itself is left to ``cut``.

    Returns (cores, −1, 0, 0), or (core, neuron, limit, need) of a neuron that no core can hold; limits: 1 synapses, 2 bits, 3
    input axons.
    """
    heard, counted, count = np.full(axons, -1, np.int64), np.full(groups, -1, np.int64), np.zeros(groups, np.int64)
    shared_in, shared = np.full(bits.size, -1, np.int64), np.zeros(bits.size, np.int64)
    core = stamp = 0
    neurons = synapses = used = rows = sent = 0
    for j in range(first.size - 1):
        for _attempt in range(2):
            s, b, a = _add(
                j, stamp, first, axon, projection, row_bits, bits, shift, stored, group, header, word,
                heard, counted, count, shared_in, shared,
            )  # fmt: skip
            b += state_bits
            fits = neurons < most_neurons and synapses + s <= most_synapses and used + b <= most_bits and rows + a <= most_axons
            if fits and (neurons == 0 or sent + out[j] <= most_out):
                break
            if neurons == 0:
                if s > most_synapses:
                    return core, j, 1, s
                return (core, j, 2, b) if b > most_bits else (core, j, 3, a)
            core += 1
            stamp += 1
            neurons = synapses = used = rows = sent = 0
        neurons, synapses, used, rows, sent = neurons + 1, synapses + s, used + b, rows + a, sent + out[j]
        core_of[j] = core
    return core + 1, -1, 0, 0


@njit(cache=True, nogil=True)
def use(
    first, axon, projection, row_bits, bits, shift, stored, group, header, word, axons, groups, state_bits, core_of, usage
):  # fmt: skip
    """Count into ``usage`` (cores, 4) the neurons, synapses, bits and input axons of cores that hold neurons in order."""
    heard, counted, count = np.full(axons, -1, np.int64), np.full(groups, -1, np.int64), np.zeros(groups, np.int64)
    shared_in, shared = np.full(bits.size, -1, np.int64), np.zeros(bits.size, np.int64)
    for j in range(first.size - 1):
        core = core_of[j]
        s, b, a = _add(
            j, core, first, axon, projection, row_bits, bits, shift, stored, group, header, word,
            heard, counted, count, shared_in, shared,
        )  # fmt: skip
        usage[core, 0] += 1
        usage[core, 1] += s
        usage[core, 2] += b + state_bits
        usage[core, 3] += a


@njit(cache=True, nogil=True)
def cut(core_of, out, most):
    """Cut cores whose neurons send to more than ``most`` cores in all; ``core_of`` (ascending) is written anew.

    Returns (cores, −1), or (core, neuron) of a neuron that sends to more by itself.
    """
    core, before, total = -1, -1, 0
    for j in range(core_of.size):
        if out[j] > most:
            return core_of[j], j
        if core_of[j] != before or total + out[j] > most:
            core, total = core + 1, 0
        before = core_of[j]
        core_of[j] = core
        total += out[j]
    return core + 1, -1


@njit(cache=True, nogil=True)
def mark_routes(first, target, number, core_of, reached):
    """Set in ``reached`` (sources, words) the bits of the cores that the synapses of one projection lead to."""
    for s in range(first.size - 1):
        for k in range(first[s], first[s + 1]):
            core = core_of[number[target[k]]]
            reached[s, core >> 6] |= np.uint64(1) << np.uint64(core & 63)


@njit(cache=True, nogil=True)
def list_routes(reached, first, core):
    """The cores of every source as a list; ``first`` (sources + 1,) and, where it has room, ``core`` are written."""
    n = 0
    for s in range(reached.shape[0]):
        first[s] = n
        for w in range(reached.shape[1]):
            bits = reached[s, w]
            place = w << 6
            while bits:
                if bits & np.uint64(1):
                    if n < core.size:
                        core[n] = place
                    n += 1
                bits >>= np.uint64(1)
                place += 1
    first[reached.shape[0]] = n
    return n


@njit(cache=True, nogil=True)
def add_traffic(first, core, source_core, sent, matrix):
    """Add to ``matrix`` (cores, cores) the packets from the core of each source to those it sends to."""
    for s in range(first.size - 1):
        for k in range(first[s], first[s + 1]):
            matrix[source_core[s], core[k]] += sent[s]


@njit(cache=True, nogil=True)
def gather(first, other, wires, room, rank):
    """Number neurons so that those that are joined come together; ``rank`` (neurons,) of −1 is written.

    first, other, wires: the synapses between each neuron and others, both ways, as compressed rows. The next neuron is the one
    with the largest share of its synapses to those of the core at hand, which holds ``room``; then, to all numbered before.
    """
    neurons = rank.size
    total, here, before = np.ones(neurons), np.zeros(neurons), np.zeros(neurons)
    for j in range(neurons):
        for k in range(first[j], first[j + 1]):
            total[j] += wires[k]
    for number in range(neurons):
        chosen, most, then = -1, -1.0, -1.0
        for j in range(neurons):
            if rank[j] < 0:
                share = here[j] / total[j]
                if share > most or (share == most and before[j] / total[j] > then):
                    chosen, most, then = j, share, before[j] / total[j]
        rank[chosen] = number
        for k in range(first[chosen], first[chosen + 1]):
            here[other[k]] += wires[k]
            before[other[k]] += wires[k]
        if (number + 1) % room == 0:
            here[:] = 0
