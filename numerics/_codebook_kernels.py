"""Cells and centres of small square error for sorted numbers (numba); see ``numerics.codebooks``.

Throughout, ``values`` ascend, shape (n,), and ``weight``, ``first`` and ``second`` are sums of w, w·x and w·x² over the elements
before each, shape (n + 1,). The cell k of ``edges`` holds the elements edges[k] to edges[k + 1].
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(nogil=True, cache=True)
def cell_error(
    weight: NDArray[np.float64], first: NDArray[np.float64], second: NDArray[np.float64], start: int, stop: int
) -> float:
    """Square error of elements ``start`` to ``stop`` about their mean."""
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

    There must be as many elements as cells.
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


# --- iterations ---------------------------------------------------------------------------------------------------------


@njit(nogil=True, cache=True)
def nearest_cells(values: NDArray[np.float64], centres: NDArray[np.float64], edges: NDArray[np.int64]) -> bool:
    """The cells of the elements nearest to each centre, into ``edges``; returns whether any edge moved."""
    moved = False
    at = np.int64(0)
    for k in range(centres.size - 1):
        middle = (centres[k] + centres[k + 1]) / 2
        at += np.searchsorted(values[at:], middle, side="right")
        moved |= edges[k + 1] != at
        edges[k + 1] = at
    moved |= edges[-1] != values.size
    edges[-1] = values.size
    return moved


@njit(nogil=True, cache=True)
def total_error(
    weight: NDArray[np.float64],
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    edges: NDArray[np.int64],
    centres: NDArray[np.float64],
) -> float:
    """Σ w · (x − centre of its cell)²."""
    total = 0.0
    for k in range(centres.size):
        a, b, c = edges[k], edges[k + 1], centres[k]
        total += second[b] - second[a] - 2 * c * (first[b] - first[a]) + c * c * (weight[b] - weight[a])
    return total


@njit(nogil=True, cache=True)
def move_to_means(
    values: NDArray[np.float64],
    weight: NDArray[np.float64],
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    edges: NDArray[np.int64],
    centres: NDArray[np.float64],
) -> None:
    """Centres to the means of their cells. An empty cell's goes where it helps most: into the cell of the largest error."""
    bounds = np.empty(centres.size + 1, np.int64)  # of the cells that are not empty, which touch one another
    bounds[0] = 0
    cells = 0
    for k in range(centres.size):
        if edges[k + 1] > edges[k]:
            cells += 1
            bounds[cells] = edges[k + 1]
    while cells < centres.size:
        worst, most = -1, -1.0
        for k in range(cells):
            error = cell_error(weight, first, second, bounds[k], bounds[k + 1])
            if bounds[k + 1] - bounds[k] > 1 and error > most:
                worst, most = k, error
        a, b = bounds[worst], bounds[worst + 1]
        mean = (first[b] - first[a]) / (weight[b] - weight[a])
        cut = min(max(a + np.searchsorted(values[a:b], mean), a + 1), b - 1)
        for k in range(cells, worst, -1):
            bounds[k + 1] = bounds[k]
        bounds[worst + 1] = cut
        cells += 1
    for k in range(cells):
        a, b = bounds[k], bounds[k + 1]
        centres[k] = (first[b] - first[a]) / (weight[b] - weight[a])


@njit(nogil=True, cache=True)
def move_to_line(
    weight: NDArray[np.float64], first: NDArray[np.float64], edges: NDArray[np.int64], centres: NDArray[np.float64]
) -> None:
    """Centres to the evenly spaced ones of least error for these cells: the regression line of x on the number of its cell."""
    total, middle = weight[-1], 0.0
    for k in range(centres.size):
        middle += (weight[edges[k + 1]] - weight[edges[k]]) * k / total
    spread, product = 0.0, 0.0
    for k in range(centres.size):
        spread += (weight[edges[k + 1]] - weight[edges[k]]) * (k - middle) ** 2
        product += (first[edges[k + 1]] - first[edges[k]]) * (k - middle)
    if spread > 0:  # everything in one cell says nothing about the step
        for k in range(centres.size):
            centres[k] = first[-1] / total + product / spread * (k - middle)


@njit(nogil=True, cache=True)
def alternate(
    values: NDArray[np.float64],
    weight: NDArray[np.float64],
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    centres: NDArray[np.float64],
    evenly: bool,
    tolerance: float,
    most: int,
) -> tuple[int, bool, float]:
    """Cells for the centres, centres for the cells, and so on; the error never grows.

    Args:
        centres: to begin with, ascending, shape (levels ≤ n,); holds the last ones afterwards.
        evenly: whether to keep them evenly spaced.
        tolerance: part of the error that a step must take off.
        most: iterations at most.

    Returns:
        Iterations, whether they came to an end, the error.
    """
    edges = np.zeros(centres.size + 1, np.int64)
    nearest_cells(values, centres, edges)
    error = total_error(weight, first, second, edges, centres)
    for iteration in range(1, most + 1):
        if evenly:
            move_to_line(weight, first, edges, centres)
        else:
            move_to_means(values, weight, first, second, edges, centres)
        moved = nearest_cells(values, centres, edges)
        before, error = error, total_error(weight, first, second, edges, centres)
        if not moved or before - error < tolerance * before:
            return iteration, True, error
    return most, False, error


@njit(nogil=True, cache=True)
def best_even(
    values: NDArray[np.float64],
    weight: NDArray[np.float64],
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    centres: NDArray[np.float64],
    shrinks: NDArray[np.float64],
    tolerance: float,
    most: int,
) -> tuple[int, bool]:
    """Evenly spaced centres: the best of those that ``alternate`` comes to from each part ``shrinks`` of the range.

    Returns:
        Iterations, and whether they came to an end, of the best one; ``centres`` holds it.
    """
    low, high = values[0], values[-1]
    trial = np.empty_like(centres)
    least, iterations, ended = np.inf, 0, False
    for part in shrinks:
        for k in range(centres.size):
            trial[k] = part * (low + (high - low) * k / (centres.size - 1))
        count, done, error = alternate(values, weight, first, second, trial, True, tolerance, most)
        if error < least:
            least, iterations, ended = error, count, done
            centres[:] = trial
    return iterations, ended
