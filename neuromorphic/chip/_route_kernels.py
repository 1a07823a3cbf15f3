"""Compiled loops over the ways of spikes (numba): which cores a neuron reaches, and the packets of a run."""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numpy as np
from numba import njit

from neuromorphic.chip._tables import SENDER


@njit(cache=True, nogil=True)
def solid_rows(rows, sources, first, target, solid):
    """Rows whose targets follow one another without a gap."""
    for s in range(sources):
        a, b = first[rows + s], first[rows + s + 1]
        whole = b > a
        for k in range(a + 1, b):
            if target[k] != target[k - 1] + 1:
                whole = False
                break
        solid[rows + s] = whole


@njit(cache=True, nogil=True)
def routes(senders, sender_first, out_first, out, rows, kind, target_core, core_base, first, target, cores, kinds):
    """The cores that each sender reaches: (first, core, kind, synapses). ``sender_first``: of each population; ``out``:
    projections of each population from ``out_first``; ``target_core``: of all neurons, a population's from ``core_base``."""
    tally = np.zeros((cores, kinds), np.int64)
    seen = np.empty(cores, np.int64)
    found = np.zeros(senders + 1, np.int64)
    size = 1024
    to, what, many = np.empty(size, np.int32), np.empty(size, np.uint8), np.empty(size, np.int32)
    n = 0
    for p in range(sender_first.size - 1):
        for s in range(sender_first[p + 1] - sender_first[p]):
            touched = 0
            for o in range(out_first[p], out_first[p + 1]):
                q = out[o]
                for k in range(first[rows[q] + s], first[rows[q] + s + 1]):
                    core = target_core[core_base[q] + target[k]]
                    if core >= 0:
                        total = 0
                        for g in range(kinds):
                            total += tally[core, g]
                        if total == 0:
                            seen[touched] = core
                            touched += 1
                        tally[core, kind[q]] += 1
            for k in range(1, touched):
                core, place = seen[k], k
                while place and seen[place - 1] > core:
                    seen[place] = seen[place - 1]
                    place -= 1
                seen[place] = core
            if n + touched * kinds > size:
                size = max(2 * size, n + touched * kinds)
                longer, wider, more = np.empty(size, np.int32), np.empty(size, np.uint8), np.empty(size, np.int32)
                for k in range(n):
                    longer[k], wider[k], more[k] = to[k], what[k], many[k]
                to, what, many = longer, wider, more
            for place in range(touched):
                c = seen[place]
                for g in range(kinds):
                    if tally[c, g]:
                        to[n], what[n], many[n] = c, g, tally[c, g]
                        n += 1
                        tally[c, g] = 0
            found[sender_first[p] + s + 1] = n
    return found, to[:n].copy(), what[:n].copy(), many[:n].copy()


@njit(cache=True, nogil=True)
def expand_packets(
    begin, fired, times, a, b, populations, first, core, home, rank, outside, out_first, out_from, out_to, out_spike, out_rank
):
    """Packets of the steps a to b, in the order of their neurons; where the arrays are empty, only ``out_first`` is written."""
    count = populations.shape[0]
    n = spike = 0
    for t in range(a, b):
        out_first[t - a] = n
        for p in range(count):
            sender = populations[p, SENDER]
            for e in range(begin[t * count + p], begin[t * count + p + 1]):
                number = sender + fired[e]
                for _ in range(times[e] if times.size else 1):
                    before = -1
                    for k in range(first[number], first[number + 1]):
                        if core[k] == before:
                            continue
                        before = core[k]
                        if out_from.size:
                            out_from[n] = home[number] if home[number] >= 0 else outside
                            out_to[n], out_spike[n], out_rank[n] = before, spike, rank[number]
                        n += 1
                    spike += 1
    out_first[b - a] = n
