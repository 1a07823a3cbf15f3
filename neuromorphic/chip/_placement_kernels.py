"""Compiled loops of placement (numba).

first, other, packets: what each core exchanges with others, as compressed rows; outside: (cores,) packets that enter at the place
``gate``; x, y: of places. ``place`` (cores,) is written.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True, inline="always")
def _next(state):
    """The next 64 random bits (G. Marsaglia, "Xorshift RNGs", Journal of Statistical Software 8(14), 2003; shifts 13, 7, 17)."""
    value = state[0]
    value ^= value << np.uint64(13)
    value ^= value >> np.uint64(7)
    value ^= value << np.uint64(17)
    state[0] = value
    return value


@njit(cache=True, nogil=True, inline="always")
def _below(state, n):
    """A random number from 0 to n − 1, n far below 2^32."""
    return np.int64((_next(state) >> np.uint64(32)) * np.uint64(n) >> np.uint64(32))


@njit(cache=True, nogil=True)
def grow(first, other, packets, outside, x, y, gate, place):
    """Place the core with the most traffic to those placed (and from outside) where it adds the fewest hops, and so on."""
    cores, places = place.size, x.size
    free = np.ones(places, np.bool_)
    done = np.zeros(cores, np.bool_)
    pull = outside.copy()
    own = np.zeros(cores)
    for c in range(cores):
        for k in range(first[c], first[c + 1]):
            own[c] += packets[k]
    # Where nothing pulls yet, the middle of the places draws the busiest core.
    middle_x, middle_y = x.mean(), y.mean()
    for _ in range(cores):
        chosen = -1
        for c in range(cores):
            if not done[c] and (chosen < 0 or pull[c] > pull[chosen] or (pull[c] == pull[chosen] and own[c] > own[chosen])):
                chosen = c
        best, least, tie = -1, np.inf, np.inf
        for p in range(places):
            if not free[p]:
                continue
            cost = outside[chosen] * (abs(x[p] - x[gate]) + abs(y[p] - y[gate]))
            for k in range(first[chosen], first[chosen + 1]):
                if done[other[k]]:
                    q = place[other[k]]
                    cost += packets[k] * (abs(x[p] - x[q]) + abs(y[p] - y[q]))
                if cost > least:
                    break
            from_middle = abs(x[p] - middle_x) + abs(y[p] - middle_y)
            if cost < least or (cost == least and from_middle < tie):
                best, least, tie = p, cost, from_middle
        place[chosen] = best
        free[best] = False
        done[chosen] = True
        for k in range(first[chosen], first[chosen + 1]):
            pull[other[k]] += packets[k]


@njit(cache=True, nogil=True, inline="always")
def _moved(c, p, apart, first, other, packets, outside, x, y, gate, place):
    """What moving core c to place p adds, its traffic with core ``apart`` left out."""
    q = place[c]
    gain = outside[c] * (abs(x[p] - x[gate]) + abs(y[p] - y[gate]) - abs(x[q] - x[gate]) - abs(y[q] - y[gate]))
    for k in range(first[c], first[c + 1]):
        if other[k] != apart:
            r = place[other[k]]
            gain += packets[k] * (abs(x[p] - x[r]) + abs(y[p] - y[r]) - abs(x[q] - x[r]) - abs(y[q] - y[r]))
    return gain


@njit(cache=True, nogil=True, inline="always")
def _exchanged(c, p, d, first, other, packets, outside, x, y, gate, place):
    """What core c and what lies at p (core d, or nothing: −1) add by changing places; between them nothing changes."""
    gain = _moved(c, p, d, first, other, packets, outside, x, y, gate, place)
    if d >= 0:
        gain += _moved(d, place[c], c, first, other, packets, outside, x, y, gate, place)
    return gain


@njit(cache=True, nogil=True)
def _holders(place, places):
    held = np.full(places, -1, np.int64)
    for c in range(place.size):
        held[place[c]] = c
    return held


@njit(cache=True, nogil=True)
def anneal(first, other, packets, outside, x, y, gate, place, near, row, state, moves, warmth):
    """Exchange places at random, uphill with a probability that falls; ``place`` becomes the best that was met.

    Every other exchange is with a place near a core that the first one talks to: up to ``near`` places before or behind it and up
    to two rows, of ``row`` places, off. The first temperature is ``warmth`` times what an exchange changes in the mean.
    """
    cores, places = place.size, x.size
    if state[0] == 0:
        state[0] = np.uint64(1)
    held = _holders(place, places)
    best = place.copy()
    now = lowest = 0.0
    samples = 200
    total = 0.0
    for _ in range(samples):
        c, p = _below(state, cores), _below(state, places)
        total += abs(_exchanged(c, p, held[p], first, other, packets, outside, x, y, gate, place)) if held[p] != c else 0.0
    hot = total / samples * warmth
    if hot == 0:
        return
    cold = hot * 1e-3
    for move in range(moves):
        heat = hot * (cold / hot) ** (move / moves)
        c = _below(state, cores)
        p = -1
        if move & 1 and first[c + 1] > first[c]:
            q = place[other[first[c] + _below(state, first[c + 1] - first[c])]]
            p = q + _below(state, 2 * near + 1) - near + (_below(state, 5) - 2) * row
            if p < 0 or p >= places:
                continue
        else:
            p = _below(state, places)
        d = held[p]
        if d == c:
            continue
        gain = _exchanged(c, p, d, first, other, packets, outside, x, y, gate, place)
        if gain <= 0 or float(_next(state) >> np.uint64(11)) * 2.0**-53 < np.exp(-gain / heat):
            q = place[c]
            place[c], held[p] = p, c
            held[q] = d
            if d >= 0:
                place[d] = q
            now += gain
            if now < lowest - 1e-9 * hot:  # not by rounding alone
                lowest = now
                best[:] = place
    place[:] = best


@njit(cache=True, nogil=True)
def exchange(first, other, packets, outside, x, y, gate, place):
    """Exchange any two places as long as that saves hops."""
    held = _holders(place, x.size)
    # Sums of the same packets in another order differ by rounding.
    least = 1e-12 * (packets.sum() + np.abs(outside).sum()) * (x.max() - x.min() + y.max() - y.min())
    again = True
    while again:
        again = False
        for c in range(place.size):
            for p in range(x.size):
                d = held[p]
                if d == c:
                    continue
                gain = _exchanged(c, p, d, first, other, packets, outside, x, y, gate, place)
                if gain < -least:
                    q = place[c]
                    place[c], held[p] = p, c
                    held[q] = d
                    if d >= 0:
                        place[d] = q
                    again = True
