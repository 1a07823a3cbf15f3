"""Weight matrices as the engine stores them: blocks in compressed sparse rows, and N:M."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from accelerators.sparse.cost import place_bits
from accelerators.sparse.spec import Block, Sparsity
from hwsim.views.display import displayed
from numerics import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray


SINGLE = Block()
"""Single values."""


@displayed
@dataclass(frozen=True)
class CompressedRows:
    """Blocks that are not all zero, row by row.

    Attributes:
        shape: (rows, k) of the matrix.
        block: sizes of a block; blocks at the edges are filled up with zeros.
        values: shape (blocks, block.outputs, block.inputs).
        columns: of each block, counted in blocks.
        pointers: where each row of blocks begins, and the end.
    """

    shape: tuple[int, int]
    block: Block
    values: NDArray[Any]
    columns: NDArray[np.int64]
    pointers: NDArray[np.int64]

    def bits(self, sparsity: Sparsity, value_bits: float) -> float:
        """Bits in memory."""
        per_block = self.values[0].size if len(self.values) else self.block.outputs * self.block.inputs
        return len(self.values) * (per_block * value_bits + sparsity.index_bits) + len(self.pointers) * sparsity.pointer_bits

    def dense(self) -> NDArray[Any]:
        """The matrix."""
        outputs, inputs = self.block.outputs, self.block.inputs
        rows, k = -(-self.shape[0] // outputs), -(-self.shape[1] // inputs)
        whole = np.zeros((rows, k, outputs, inputs), self.values.dtype)
        whole[np.repeat(np.arange(rows), np.diff(self.pointers)), self.columns] = self.values
        return whole.swapaxes(1, 2).reshape(rows * outputs, k * inputs)[: self.shape[0], : self.shape[1]]


@displayed
@dataclass(frozen=True)
class Structured:
    """At most ``n`` of every ``m`` neighbours.

    Attributes:
        shape: (rows, k) of the matrix.
        n, m: of the structure.
        values: shape (rows, groups, n), zeros where a group has fewer.
        places: of each value in its group, ascending.
    """

    shape: tuple[int, int]
    n: int
    m: int
    values: NDArray[Any]
    places: NDArray[np.int64]

    def bits(self, value_bits: float) -> float:
        """Bits in memory; of a last group that is short, no more values than it has."""
        rows, k = self.shape
        kept = k // self.m * self.n + min(k % self.m, self.n)
        return rows * kept * (value_bits + place_bits(self.m))

    def dense(self) -> NDArray[Any]:
        """The matrix."""
        rows, k = self.shape
        whole = np.zeros((*self.values.shape[:2], self.m), self.values.dtype)
        np.put_along_axis(whole, self.places, self.values, axis=2)
        return whole.reshape(rows, -1)[:, :k]


def compressed_rows(matrix: Any, block: Block = SINGLE) -> CompressedRows:
    """A matrix, dense or of scipy, in compressed rows of blocks.

    Raises:
        InputError: no matrix.
    """
    array = as_matrix("weights", matrix)
    parts = in_blocks(array, block.outputs, block.inputs)
    kept = parts.any(axis=(2, 3))
    pointers = np.concatenate([[0], np.cumsum(kept.sum(axis=1))])
    return CompressedRows(array.shape, block, parts[kept], np.nonzero(kept)[1], pointers)


def structured(matrix: Any, n: int, m: int) -> Structured:
    """A matrix, dense or of scipy, in N:M.

    Raises:
        InputError: no matrix, or a group with more than ``n`` values that are not zero.
    """
    array = as_matrix("weights", matrix)
    groups = in_blocks(array, 1, m)[:, :, 0, :]
    counts = np.count_nonzero(groups, axis=2)
    if counts.size and counts.max() > n:
        row, group = np.argwhere(counts > n)[0]
        raise InputError(
            f"weights: expected at most {n} of every {m} neighbours that are not zero, got {counts[row, group]} in row {row} "
            f"from column {group * m}"
        )
    order = np.argsort(groups == 0, axis=2, kind="stable")[:, :, :n]
    places = np.sort(order, axis=2)
    return Structured(array.shape, n, m, np.take_along_axis(groups, places, axis=2), places)


def as_matrix(name: str, matrix: Any) -> NDArray[Any]:
    """A numpy matrix of what may be one of scipy.

    Raises:
        InputError: another number of dimensions, or none of some.
    """
    array = np.asarray(matrix.toarray() if hasattr(matrix, "toarray") else matrix)
    if array.ndim != 2 or 0 in array.shape:
        raise InputError(f"{name}: expected a matrix, got shape {array.shape}")
    return array


def in_blocks(array: NDArray[Any], rows: int, columns: int) -> NDArray[Any]:
    """The matrix as blocks, filled up with zeros: shape (rows of blocks, columns of blocks, rows, columns)."""
    tall, wide = -(-array.shape[0] // rows), -(-array.shape[1] // columns)
    whole = np.zeros((tall * rows, wide * columns), array.dtype)
    whole[: array.shape[0], : array.shape[1]] = array
    return whole.reshape(tall, rows, wide, columns).swapaxes(1, 2)
