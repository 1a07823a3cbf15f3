"""The cells of least square error of sorted numbers (numba); see ``numerics.codebooks``."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(nogil=True, cache=True)
def cell_error(
    weight: NDArray[np.float64], first: NDArray[np.float64], second: NDArray[np.float64], start: int, stop: int
) -> float:
    """Square error of elements ``start`` to ``stop`` about their mean, from sums of w, w·x and w·x² over those before each."""
    w, s = weight[stop] - weight[start], first[stop] - first[start]
    if w <= 0.0:
        return 0.0
    return max(0.0, second[stop] - second[start] - s * s / w)


@njit(nogil=True, cache=True)
def optimal_edges(
    weight: NDArray[np.float64], first: NDArray[np.float64], second: NDArray[np.float64], levels: int
) -> NDArray[np.int64]:
    """Where the ``levels`` cells of least square error begin and end, as indices; shape (levels + 1,).

    least(m, j), the error of the first j elements in m cells, is min over i of least(m − 1, i) + error(i … j). The best i does
    not fall as j grows, so that each middle j halves the candidates of the others.

    Args:
        weight, first, second: sums of w, w·x and w·x² over the first j elements, shape (n + 1,); x ascends, n ≥ levels.
        levels: cells.
    """
    n = weight.size - 1
    choice = np.zeros((levels, n + 1), np.int32)
    least = np.empty(n + 1)
    for j in range(n + 1):
        least[j] = cell_error(weight, first, second, 0, j)
    stack = np.empty((64, 4), np.int64)
    for cells in range(1, levels):
        before = least.copy()
        least[:] = np.inf
        stack[0, 0], stack[0, 1], stack[0, 2], stack[0, 3] = cells + 1, n, cells, n - 1
        depth = 1
        while depth > 0:
            depth -= 1
            low, high, from_, to = stack[depth, 0], stack[depth, 1], stack[depth, 2], stack[depth, 3]
            if low > high:
                continue
            j = (low + high) // 2
            best = from_
            for i in range(from_, min(to, j - 1) + 1):
                error = before[i] + cell_error(weight, first, second, i, j)
                if error < least[j]:
                    least[j] = error
                    best = i
            choice[cells, j] = best
            stack[depth, 0], stack[depth, 1], stack[depth, 2], stack[depth, 3] = low, j - 1, from_, best
            stack[depth + 1, 0], stack[depth + 1, 1], stack[depth + 1, 2], stack[depth + 1, 3] = j + 1, high, best, to
            depth += 2
    edges = np.empty(levels + 1, np.int64)
    edges[levels] = n
    for cells in range(levels - 1, 0, -1):
        edges[cells] = choice[cells, edges[cells + 1]]
    edges[0] = 0
    return edges
