"""Cycles of a matrix product on a tensor processing engine.

C[m, n] is cut into tiles of rows × columns, each a *fold* of S = ⌈K/depth⌉ steps. It takes D cycles: S with whole multipliers,
what its digits take with a loop over digits. With F folds, X rows, and fill = rows + columns − 2 for a systolic array, else 0,

    serial drain         Σ_f (D_f + fill + X) + F·late
    overlapped drain     D_1 + Σ_{f>1} max(D_f, X) + fill + X + late,

as sums leave a row a cycle; ``late`` is one cycle to recode the first operands and one to add halves of carry-save sums. For a
systolic array of whole multipliers these are the output-stationary forms of ``accelerators.systolic.analytic``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from accelerators.bit_serial.booth import check_fits
from accelerators.bit_serial.distributions import CodeDistribution, step_cycles, window_cycles
from accelerators.bit_serial.encodings import encoding
from accelerators.bit_serial.spec import ArraySpec
from hwsim.views.display import displaying
from numerics.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@displaying("cycles_per_step")
@dataclass(frozen=True)
class ProductCost:
    """Cycles of a product.

    Attributes:
        cycles: in all, operands at hand.
        step_cycles: of them those in which the multipliers step.
        folds: tiles of the result.
        steps: of all folds.
        mean_digits: mean non-zero digits of a recoded operand; 1 without a loop over digits.
        macs: multiply-accumulates.
    """

    cycles: float
    step_cycles: float
    folds: int
    steps: int
    mean_digits: float
    macs: int

    @property
    def cycles_per_step(self) -> float:
        """Mean cycles of a step."""
        return self.step_cycles / self.steps


def fold_overheads(array: ArraySpec) -> tuple[int, int, int]:
    """(fill, drain, late) of the equations above, in cycles."""
    top = array.topology
    fill = top.rows + top.columns - 2 if top.name == "systolic" else 0
    return fill, top.rows, (array.bit_weight is not None) + (array.accumulation == "carry_save")


def total_cycles(array: ArraySpec, folds: Any, counts: Any) -> float:
    """Cycles of folds one after another: ``counts[i]`` folds take ``folds[i]`` cycles each."""
    fill, drain, late = fold_overheads(array)
    folds, counts = np.asarray(folds, np.float64), np.asarray(counts, np.float64)
    if array.output_drain == "serial":
        return float(((folds + fill + drain + late) * counts).sum())
    return float((np.maximum(folds, drain) * counts).sum() + folds[0] - max(folds[0], drain) + fill + drain + late)


def expected_cost(array: ArraySpec, m: int, n: int, k: int, *, distribution: CodeDistribution, batch: int = 1) -> ProductCost:
    """Mean cycles of ``batch`` products (m, k) · (k, n) whose recoded operands are drawn from a distribution.

    With overlapped drain and folds about as short as the drain, the maximum of the means stands for the mean of the maximum.
    """
    top, loop = array.topology, array.bit_weight
    down, across = -(-m // top.rows), -(-n // top.columns)
    steps = -(-k // top.depth)
    count = batch * down * across
    macs = batch * m * n * k
    if loop is None:
        return ProductCost(total_cycles(array, [steps], [count]), count * steps, count, count * steps, 1.0, macs)
    lanes, size = array.across, n if loop.encoded_operand == "b" else m
    tiles = -(-size // lanes)
    repeats = count // tiles
    kinds = [(lanes, size // lanes), (size % lanes, 1 if size % lanes else 0)]
    folds = [(_expected_fold(array, used, k, distribution), number * repeats) for used, number in kinds if number]
    cycles, counts = zip(*folds, strict=True)
    stepping = sum(c * number for c, number in folds)
    digits = distribution.mean_digits(loop.encoding)
    return ProductCost(total_cycles(array, cycles, counts), stepping, count, count * steps, digits, macs)


def expected_cycles(array: ArraySpec, shapes: NDArray[np.int64], *, distribution: CodeDistribution) -> NDArray[np.float64]:
    """``expected_cost(…).cycles`` of each row (batch, m, n, k) of ``shapes``."""
    top, loop = array.topology, array.bit_weight
    batch, m, n, k = shapes.T
    down, across = -(-m // top.rows), -(-n // top.columns)
    if loop is None:
        steps, count = (-(-k // top.depth)).astype(np.float64), batch * down * across
        return _total_cycles(array, np.stack([steps, steps]), np.stack([count, 0 * count]))
    lanes, size = array.across, n if loop.encoded_operand == "b" else m
    repeats = batch * (down if loop.encoded_operand == "b" else across)
    used = np.stack([np.full_like(size, lanes), size % lanes])
    counts = np.stack([size // lanes, (used[1] > 0).astype(np.int64)])
    found = np.zeros(used.shape)
    wanted = counts > 0
    pairs, places = np.unique(np.stack([used[wanted], np.broadcast_to(k, used.shape)[wanted]]), axis=1, return_inverse=True)
    values = np.array([_expected_fold(array, width, length, distribution) for width, length in pairs.T.tolist()])
    found[wanted] = values[places.reshape(-1)]
    return _total_cycles(array, found, counts * repeats)


def _total_cycles(array: ArraySpec, folds: NDArray[np.float64], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """``total_cycles`` of many products, each of two kinds of folds: both arguments (2, products)."""
    fill, drain, late = fold_overheads(array)
    if array.output_drain == "serial":
        return np.asarray(((folds + fill + drain + late) * counts).sum(axis=0))
    first = np.where(counts[0] > 0, folds[0], folds[1])
    whole = (np.maximum(folds, drain) * counts).sum(axis=0)
    return np.asarray(whole + first - np.maximum(first, drain) + fill + drain + late)


def _expected_fold(array: ArraySpec, used: int, k: int, distribution: CodeDistribution) -> float:
    """Mean cycles of a fold of which ``used`` rows or columns hold recoded operands."""
    loop, depth = array.bit_weight, array.topology.depth
    assert loop is not None
    how = encoding(loop.encoding, distribution.bits)
    steps, last = -(-k // depth), (k - 1) % depth + 1
    wide = array.group_lanes // depth
    groups = [(used // wide, wide)] if used >= wide else []
    groups += [(1, used % wide)] if used % wide else []

    def window(length: int, last_depth: int) -> float:
        kinds = tuple((number, width * depth, width * last_depth) for number, width in groups)
        return window_cycles(distribution, how, kinds, length, loop.shared_weight)

    whole = (steps - 1) // loop.window_steps
    rest = steps - whole * loop.window_steps
    return (whole * window(loop.window_steps, depth) if whole else 0.0) + window(rest, last)


def product_cost(array: ArraySpec, a: Any, b: Any, *, bits: int = 8) -> ProductCost:
    """Cycles of ``a @ b`` for these operands, exactly.

    Args:
        a, b: integers of ``bits`` bits, shapes (m, k) and (k, n).
        bits: of the recoded operand.

    Raises:
        InputError: shapes that do not match, a dimension of 0, not integers, or one that does not fit.
    """
    left, right = checked_operands(a, b, bits)
    (m, k), n = left.shape, right.shape[1]
    top, loop = array.topology, array.bit_weight
    folds, steps = -(-m // top.rows) * -(-n // top.columns), -(-k // top.depth)
    if loop is None:
        return ProductCost(total_cycles(array, [steps], [folds]), folds * steps, folds, folds * steps, 1.0, m * n * k)
    recoded = right if loop.encoded_operand == "b" else left.T
    cycles = fold_cycles(array, recoded, bits=bits)
    # Tiles of the recoded operand come back for each tile across the other; the first fold is that of its first tile.
    repeats = folds // len(cycles)
    mean = float(np.count_nonzero(encoding(loop.encoding, bits).digits(recoded)) / recoded.size)
    total = total_cycles(array, cycles, np.full(len(cycles), repeats))
    return ProductCost(total, float(cycles.sum() * repeats), folds, folds * steps, mean, m * n * k)


def fold_cycles(array: ArraySpec, recoded: Any, *, bits: int = 8) -> NDArray[np.int64]:
    """Cycles that the steps of each fold take.

    Args:
        recoded: integers, shape (k, n) or, where the first operand is recoded, its transpose (k, m).

    Returns:
        int64, one for each tile of n or m.
    """
    loop, depth = array.bit_weight, array.topology.depth
    if loop is None:
        raise InputError("bit_weight: whole multipliers recode nothing")
    k, size = np.shape(recoded)
    steps, tiles = -(-k // depth), -(-size // array.across)
    # Operands that are missing at the edges are zeros, which take no lane's time.
    padded = np.zeros((steps * depth, tiles * array.across), np.int64)
    padded[:k, :size] = recoded
    wide = array.group_lanes // depth
    lanes = padded.reshape(steps, depth, tiles, array.across // wide, wide).transpose(2, 3, 0, 4, 1)
    nonzero = encoding(loop.encoding, bits).digits(lanes.reshape(*lanes.shape[:3], -1)) != 0
    each = step_cycles(nonzero, shared_weight=loop.shared_weight)  # (tiles, groups, steps)
    starts = np.arange(0, steps, loop.window_steps)
    return np.add.reduceat(each, starts, axis=2).max(axis=1).sum(axis=1)


def checked_operands(a: Any, b: Any, bits: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Two matrices of integers that fit one another and ``bits``, or an ``InputError``."""
    left, right = np.asarray(a), np.asarray(b)
    if left.ndim != 2 or right.ndim != 2 or left.shape[1] != right.shape[0]:
        raise InputError(f"a, b: expected shapes (m, k) and (k, n), got {left.shape} and {right.shape}")
    if 0 in (*left.shape, *right.shape):
        raise InputError(f"a, b: expected no dimension of 0, got {left.shape} and {right.shape}")
    for name, values in (("a", left), ("b", right)):
        check_fits(name, values, bits)
    return left.astype(np.int64), right.astype(np.int64)
