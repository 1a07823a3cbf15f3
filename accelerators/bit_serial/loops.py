"""A matrix product as a tensor processing engine makes it: digit by digit, in the order of its topology's loops.

Result and cycles come from carrying the loops out, not from the closed forms of ``schedule``, which the tests hold against them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from accelerators.bit_serial.encodings import encoding
from accelerators.bit_serial.schedule import checked_operands, fold_overheads
from accelerators.bit_serial.spec import ArraySpec
from hwsim.views.display import displayed

if TYPE_CHECKING:
    from numpy.typing import NDArray


@displayed
@dataclass(frozen=True)
class ProductRun:
    """What came of a product.

    Attributes:
        result: int64, shape (m, n), sums modulo 2^32.
        cycles: from the first operands through the last results.
        step_cycles: of them those in which the multipliers step.
        added_digits: digits that are not 0, of all recoded operands as often as they are taken; products of whole multipliers.
    """

    result: NDArray[np.int64]
    cycles: int
    step_cycles: int
    added_digits: int


def run_product(array: ArraySpec, a: Any, b: Any, *, bits: int = 8) -> ProductRun:
    """``a @ b``, fold by fold, cycle by cycle.

    Args:
        a, b: integers of ``bits`` bits, shapes (m, k) and (k, n).
        bits: of the recoded operand.

    Raises:
        InputError: shapes that do not match, a dimension of 0, not integers, or one that does not fit.
    """
    left, right = checked_operands(a, b, bits)
    (m, _), n = left.shape, right.shape[1]
    top, loop = array.topology, array.bit_weight
    result = np.zeros((m, n), np.int64)
    fill, drain, late = fold_overheads(array)
    serial = array.output_drain == "serial"
    now = stepped = added = 0
    free = 0  # when the registers of the results are free again
    # Tiles of the operand that is not recoded come innermost, so that a recoded tile could stay.
    tiles = [(i, j) for i in range(0, m, top.rows) for j in range(0, n, top.columns)]
    if loop is not None and loop.encoded_operand == "b":
        tiles = [(i, j) for j in range(0, n, top.columns) for i in range(0, m, top.rows)]
    for i, j in tiles:
        rows, columns = slice(i, min(i + top.rows, m)), slice(j, min(j + top.columns, n))
        sums, cycles, digits = _fold(array, left[rows], right[:, columns], bits)
        result[rows, columns] = sums
        stepped, added = stepped + cycles, added + digits
        if serial:
            now += cycles + fill + drain + late
        else:
            now = max(now + cycles, free)
            free = now + drain
    ends = now if serial else free + fill + late
    return ProductRun((result + (1 << 31)) % (1 << 32) - (1 << 31), ends, stepped, added)


def _fold(array: ArraySpec, a: NDArray[np.int64], b: NDArray[np.int64], bits: int) -> tuple[NDArray[np.int64], int, int]:
    """(sums, cycles, digits added) of one tile."""
    from accelerators.bit_serial import _kernels

    depth, loop = array.topology.depth, array.bit_weight
    k = a.shape[1]
    if loop is None:
        sums, cycles = np.zeros((a.shape[0], b.shape[1]), np.int64), 0
        for step in range(0, k, depth):
            sums += a[:, step : step + depth] @ b[step : step + depth]
            cycles += 1
        return sums, cycles, a.size * b.shape[1]
    recoded, plain = (b, a.T) if loop.encoded_operand == "b" else (a.T, b)
    how = encoding(loop.encoding, bits)
    sums = np.zeros((recoded.shape[1], plain.shape[1]), np.int64)
    cycles, added = _kernels.run_fold(
        np.ascontiguousarray(plain), np.ascontiguousarray(how.digits(recoded)), sums, depth, array.across,
        array.group_lanes // depth, loop.window_steps, how.shift, loop.shared_weight,
    )  # fmt: skip
    return (sums.T if loop.encoded_operand == "b" else sums), cycles, added
