"""In which order strata take their turns, so that every prefix of the trials is shared out as the whole is."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

EXACT = 2**32  # trial × weight stays below 2⁶⁴ where neither exceeds it


class Turns(Protocol):
    """A fixed sequence of strata."""

    def counts(self, trials: int) -> NDArray[np.int64]:
        """How often each stratum comes among the first so many trials."""
        ...

    def turns(self, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(strata, ranks) of a range of trials: the stratum of each, and how often it came before."""
        ...


class WeightedTurns:
    """Each stratum its weight in every so many trials, and its share in every prefix as nearly as may be; then all over again.

    Strata are the leaves of a Huffman tree. Of n visits to a node the left child, with a of the node's s weights, has ⌊n a/s +
    1/2⌋: half a visit from its share at most. What that is off halves from node to node, more or less, so that a prefix is off by
    a trial or two a stratum; and since the count is a formula, so is the trial at which a child has its n-th visit. No trial
    needs the one before.

    Args:
        weights: at most 2³² together.
    """

    def __init__(self, weights: Sequence[int]) -> None:
        self.total = sum(weights)
        self._weights = np.array(weights, np.int64)
        # A node is (its weight, its stratum) or (its weight, left, right); ties go by age, so that the tree is the same
        # everywhere.
        heap: list[tuple[int, int, tuple[Any, ...]]] = [(weight, h, (weight, h)) for h, weight in enumerate(weights) if weight]
        heapq.heapify(heap)
        age = len(weights)
        while len(heap) > 1:
            light, heavy = heapq.heappop(heap), heapq.heappop(heap)
            weight, age = light[0] + heavy[0], age + 1
            heapq.heappush(heap, (weight, age, (weight, heavy[2], light[2])))
        self._root = heap[0][2]

    def counts(self, trials: int) -> NDArray[np.int64]:
        """As ``Turns``."""
        cycles, rest = divmod(trials, self.total)
        found = cycles * self._weights
        leaves: list[tuple[int, int, int]] = []
        _leaves(self._root, 0, rest, leaves)
        for stratum, _, last in leaves:
            found[stratum] += last
        return found

    def turns(self, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """As ``Turns``."""
        strata, ranks = np.empty(stop - start, np.int64), np.empty(stop - start, np.int64)
        done = start
        while done < stop:
            cycle, first = divmod(done, self.total)
            last = min(first + stop - done, self.total)
            leaves: list[tuple[int, int, int]] = []
            at = _leaves(self._root, first, last, leaves) - np.uint64(first)
            whose = np.repeat([leaf[0] for leaf in leaves], [leaf[2] - leaf[1] for leaf in leaves])
            here = slice(done - start, done - start + last - first)
            strata[here][at] = whose
            ranks[here][at] = np.concatenate([np.arange(low, high) for _, low, high in leaves]) + cycle * self._weights[whose]
            done += last - first
        return strata, ranks


def _leaves(node: tuple[Any, ...], first: int, last: int, leaves: list[tuple[int, int, int]]) -> NDArray[np.uint64]:
    """Note which visits ``first`` to ``last`` - 1 of a node make of each leaf below; returns when those come, leaf by leaf."""
    if len(node) == 2:
        leaves.append((node[1], first, last))
        return np.arange(first, last, dtype=np.uint64)
    s, left, right = node
    a, b, half = left[0], right[0], s // 2
    low, high = (first * a + half) // s, (last * a + half) // s
    found = []
    if high > low:
        visits = _leaves(left, low, high, leaves)
        found.append(((visits + np.uint64(1)) * np.uint64(s) - np.uint64(half + 1)) // np.uint64(a))
    if last - high > first - low:
        visits = _leaves(right, first - low, last - high, leaves)
        found.append((visits * np.uint64(s) + np.uint64(half)) // np.uint64(b))
    return np.concatenate(found) if found else np.zeros(0, np.uint64)


class EqualTurns:
    """A round robin from which strata drop out when they have had as many turns as their size; the smallest comes first.

    Args:
        sizes: at least 1 each, at most 2⁶³ - 1 together.
        endless: nobody drops out.
    """

    def __init__(self, sizes: Sequence[int], *, endless: bool) -> None:
        self._strata = len(sizes)
        self._order = np.arange(len(sizes)) if endless else np.argsort(np.array(sizes, np.int64), kind="stable")
        levels, starts = [0], [0]
        if not endless:
            for gone, size in enumerate(sorted(sizes)[:-1]):
                starts.append(starts[-1] + (size - levels[-1]) * (len(sizes) - gone))
                levels.append(size)
        # Phase p begins at trial starts[p], when everyone left has had levels[p] turns and p strata are gone.
        self._levels, self._starts = np.array(levels, np.int64), np.array(starts, np.int64)

    def counts(self, trials: int) -> NDArray[np.int64]:
        """As ``Turns``."""
        phase = int(np.searchsorted(self._starts, trials, side="right")) - 1
        rounds, more = divmod(trials - int(self._starts[phase]), self._strata - phase)
        place = np.arange(self._strata)
        found = np.empty(self._strata, np.int64)
        gone = self._levels[np.minimum(place + 1, self._levels.size - 1)]
        found[self._order] = np.where(place < phase, gone, self._levels[phase] + rounds)
        found[self._order[phase : phase + more]] += 1
        return found

    def turns(self, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """As ``Turns``."""
        trials = np.arange(start, stop, dtype=np.int64)
        phase = np.searchsorted(self._starts, trials, side="right") - 1
        rounds, place = np.divmod(trials - self._starts[phase], self._strata - phase)
        return self._order[phase + place], self._levels[phase] + rounds
