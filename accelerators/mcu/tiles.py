"""How a product's operands pass through L1: tile sizes, the bytes they move, and what each candidate takes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from hwsim.operators import Convolution, Matmul

Ints = np.ndarray[Any, np.dtype[np.int64]]
Floats = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Operands:
    """A product as its tiles see it.

    Attributes:
        shape: batch, m, n, k.
        a_bytes, b_bytes: of one matrix of each operand; an image where the product is a convolution.
        sum_bytes: of one sum while it is not complete.
        result_bytes: of one element that leaves L1 (0 where none does).
        row: rows of m that are loaded together (a row of the image).
        window: (rows of the image, stride, reach of the kernel) of a convolution; a tile's rows overlap by the reach.
        a_here, b_here: the operand is in L1 already.
    """

    shape: tuple[int, int, int, int]
    a_bytes: float
    b_bytes: float
    sum_bytes: float
    result_bytes: float
    row: int = 1
    window: tuple[int, int, int] | None = None
    a_here: bool = False
    b_here: bool = False

    def a_tile_bytes(self, rows: Ints | int) -> Floats:
        """Bytes of the first operand that ``rows`` of m need, all of k."""
        _, m, _, _ = self.shape
        if self.window is None:
            return np.asarray(rows) * (self.a_bytes / m)
        height, stride, reach = self.window
        lines = np.minimum(height, (np.ceil(np.asarray(rows) / self.row) - 1) * stride + reach)
        return lines * (self.a_bytes / height)


def operands_of(
    op: Matmul | Convolution,
    shape: tuple[int, int, int, int],
    *,
    a_bytes: float,
    b_bytes: float,
    sum_bytes: float,
    result_bytes: float,
    a_here: bool = False,
    b_here: bool = False,
) -> Operands:
    """The operands of an operator; ``a_bytes`` and ``b_bytes`` are those of its whole first two inputs."""
    batch = shape[0]
    row, window, shared = 1, None, batch
    if isinstance(op, Convolution):
        shared = op.groups  # the weights serve all images
        if op.computes == "output":
            row = math.prod(op.output_size[1:])
            window = (op.input_size[0], op.stride[0], (op.kernel[0] - 1) * op.dilation[0] + 1)
        elif op.computes == "weight":
            shared = batch
    return Operands(shape, a_bytes / batch, b_bytes / shared, sum_bytes, result_bytes, row, window, a_here=a_here, b_here=b_here)


@dataclass(frozen=True)
class Tiles:
    """Candidate tilings, one an element of each array.

    Attributes:
        group, m, n, k: sizes of a tile: matrices of the batch, rows, columns, inner products.
        counts: how many tiles along each.
        tile_bytes: of L1 that the three parts of a tile take.
        a_loaded, b_loaded: bytes moved into L1.
        first_bytes: loaded before the first tile can start, and stored after the last has ended.
        transfers: times the DMA is set up.
    """

    group: Ints
    m: Ints
    n: Ints
    k: Ints
    counts: tuple[Ints, Ints, Ints, Ints]
    tile_bytes: Floats
    a_loaded: Floats
    b_loaded: Floats
    first_bytes: Floats
    transfers: Ints


def _steps(size: int, base: int = 1, factor: int = 2) -> list[int]:
    """The whole, and ``base`` times the powers of ``factor`` below it."""
    found, step = [size], base
    while step < size:
        found.append(step)
        step *= factor
    return sorted(set(found))


def candidates(parts: Operands) -> Tiles:
    """Every tiling that the mapper considers, whatever the capacity: so a machine with more keeps what a smaller one has.

    Of the two loop orders (columns innermost, rows innermost) each candidate takes the one that loads less. A tile of the
    operand that the inner loop does not change stays where k is whole; all of the other stays where one tile holds it all.
    """
    batch, m, n, k = parts.shape
    axes = np.meshgrid(_steps(batch, 1, 4), _steps(m, parts.row), _steps(n), _steps(k, 1, 4), indexing="ij")
    group, tm, tn, tk = (np.asarray(a, dtype=np.int64).ravel() for a in axes)
    ng, nm, nn, nk = (-(-size // tile) for size, tile in ((batch, group), (m, tm), (n, tn), (k, tk)))
    a_tile = parts.a_tile_bytes(tm) * tk / k
    b_tile = parts.b_bytes * (tn / n) * (tk / k)
    c_tile = tm * tn * np.where(nk > 1, parts.sum_bytes, max(parts.result_bytes, 1e-9))
    last = m - (nm - 1) * tm
    a_once = batch * ((nm - 1) * parts.a_tile_bytes(tm) + parts.a_tile_bytes(last))
    b_once = np.full(len(tm), batch * parts.b_bytes)
    whole = nk == 1
    rows_outer = a_once * np.where(whole, 1, nn), b_once * np.where(whole & (nn == 1), 1, nm)
    columns_outer = a_once * np.where(whole & (nm == 1), 1, nn), b_once * np.where(whole, 1, nm)
    a_keep, b_keep = float(not parts.a_here), float(not parts.b_here)
    pick = rows_outer[0] * a_keep + rows_outer[1] * b_keep <= columns_outer[0] * a_keep + columns_outer[1] * b_keep
    return Tiles(
        group=group,
        m=tm,
        n=tn,
        k=tk,
        counts=(ng, nm, nn, nk),
        tile_bytes=group * (a_tile * a_keep + b_tile * b_keep + c_tile),
        a_loaded=np.where(pick, rows_outer[0], columns_outer[0]) * a_keep,
        b_loaded=np.where(pick, rows_outer[1], columns_outer[1]) * b_keep,
        first_bytes=group * (a_tile * a_keep + b_tile * b_keep + tm * tn * parts.result_bytes),
        transfers=ng * nm * nn * (nk * int(a_keep + b_keep) + int(parts.result_bytes > 0)),
    )


def tile_units(tiles: Tiles, parts: Operands, block: tuple[int, int]) -> list[tuple[Ints, Ints]]:
    """(blocks of sums in a tile, how many such tiles), for whole tiles and the smaller ones at the ends of the loops.

    Args:
        block: rows and columns of a block.
    """
    batch, m, n, _ = parts.shape
    ng, nm, nn, nk = tiles.counts
    axes = []
    for size, tile, count, side in ((batch, tiles.group, ng, 1), (m, tiles.m, nm, block[0]), (n, tiles.n, nn, block[1])):
        rest = size - (count - 1) * tile
        axes.append(((-(-tile // side), count - 1), (-(-rest // side), np.ones_like(count))))
    found = []
    for groups, many_g in axes[0]:
        for rows, many_m in axes[1]:
            for columns, many_n in axes[2]:
                found.append((groups * rows * columns, many_g * many_m * many_n * nk))
    return found
