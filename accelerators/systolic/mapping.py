"""Mappings: how a matmul or convolution is cut into tiles for an array, and which cut is the fastest.

A convolution is an implicit matmul. Its m (or k, for a weight gradient) runs over output positions, and a tile of positions
needs the *distinct* feature-map elements under its windows, halos included and padding excluded, never the unrolled matrix.
Each dimension's tiling therefore carries, beside the sizes the array sees, the footprint of each tile in the two operands that
dimension indexes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hwsim.operators import Convolution, Matmul
from hwsim.views.display import displayed

Sizes = npt.NDArray[np.float64]

MOST_TILES = 1 << 17
"""Cuts of one dimension into more tiles than this are not considered."""

ORDER_NAMES = ("mnk", "mkn", "nmk", "nkm", "kmn", "knm")
"""Loop orders, outermost first, as the kernel numbers them."""


@dataclass(frozen=True)
class Tiling:
    """One cut of a dimension: for each tile its size and its footprints in the two operands it indexes.

    The operands are (A, C) for m, (B, C) for n, (A, B) for k, with C = A·B. Where ``taps`` is not 0, a tile takes that many of a
    convolution's kernel taps, and the tiles of one block of channels share its feature map: the first of them carries the whole
    footprint, the others none.
    """

    size: Sizes
    first: Sizes
    second: Sizes
    taps: int = 0


@displayed
class Nest(NamedTuple):
    """A convolution's loop nest for one group, as in ``hwsim.operators.Convolution``."""

    computes: str
    images: int
    channels_in: int
    channels_out: int
    input_size: tuple[int, ...]
    output_size: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]


@displayed
@dataclass(frozen=True)
class Shape:
    """What decides the mapping of an operator: hashable, so that equal operators are mapped once.

    Attributes:
        batch: independent products (matmul batch, convolution groups).
        m, n, k: sizes the array sees.
        convolution: the nest, for a convolution (None for a matmul).
    """

    batch: int
    m: int
    n: int
    k: int
    convolution: Nest | None = None


def shape_of(op: Matmul | Convolution) -> Shape:
    """The mapping problem of an operator."""
    if isinstance(op, Matmul):
        return Shape(op.batch, op.m, op.n, op.k)
    batch, m, n, k = op.matmul_dims
    nest = Nest(
        op.computes, op.batch, op.in_channels // op.groups, op.out_channels // op.groups, op.input_size, op.output_size,
        op.kernel, op.stride, op.padding, op.dilation,
    )  # fmt: skip
    return Shape(batch, m, n, k, nest)


def _cut(total: int, tile: int) -> Sizes:
    """``total`` in tiles of ``tile``, the last one smaller."""
    full, rest = divmod(total, tile)
    sizes = np.full(full + (rest > 0), float(tile))
    if rest:
        sizes[-1] = rest
    return sizes


def _tile_sizes(total: int, unit: int = 1) -> list[int]:
    """Candidate tile sizes: the whole, and ``unit`` times every power of two below it."""
    sizes = [total]
    tile = unit << max(0, (total // unit).bit_length())
    while tile > unit:
        tile //= 2
        if tile < total:
            sizes.append(tile)
    return sizes


def _plain(total: int, unit: int = 1) -> list[Tiling]:
    found: list[Tiling] = []
    for tile in _tile_sizes(total, unit):
        if -(-total // tile) > MOST_TILES:
            break
        sizes = _cut(total, tile)
        found.append(Tiling(sizes, sizes, sizes))
    return found


def _channels(channels: int, taps: int, least: int, *, first_is_distinct: bool, second_is_distinct: bool) -> list[Tiling]:
    """Cuts of a dimension that runs over channels × kernel taps: whole channels, down to a tile of at most ``least`` elements.

    An operand that holds a feature map needs each channel once, however many taps use it.
    """
    found: list[Tiling] = []
    for tile in _tile_sizes(channels):
        if found and found[-1].size.max() <= least:
            break
        sizes = _cut(channels, tile)
        unrolled = sizes * taps
        found.append(Tiling(unrolled, sizes if first_is_distinct else unrolled, sizes if second_is_distinct else unrolled))
    return found


def _channels_and_taps(channels: int, taps: int, rows: int) -> list[Tiling]:
    """Cuts of a convolution's k into blocks of channels, and each block into tiles of some kernel taps, about ``rows`` elements
    a tile. They fill the rows of an array where all taps of a channel would leave a rest."""
    found: list[Tiling] = []
    for block in _tile_sizes(channels):
        for part in dict.fromkeys((rows // block, 2 * rows // block)):
            if not 1 <= part < taps:
                continue
            blocks, parts = _cut(channels, block), _cut(taps, part)
            if blocks.size * parts.size > MOST_TILES:
                continue
            unrolled = np.outer(blocks, parts).ravel()
            distinct = np.outer(blocks, np.arange(parts.size) == 0).ravel().astype(float)
            found.append(Tiling(unrolled, distinct, unrolled, part))
    return found


@lru_cache(maxsize=4096)
def touched(start: int, stop: int, stride: int, kernel: int, dilation: int, padding: int, size: int) -> int:
    """Distinct input positions (of ``size``, padding excluded) under outputs ``start`` to ``stop − 1``, one axis."""
    outputs = np.arange(start, stop)[:, None] * stride - padding
    positions = np.unique(outputs + np.arange(kernel)[None, :] * dilation)
    return int(np.count_nonzero((positions >= 0) & (positions < size)))


def written(start: int, stop: int, stride: int, kernel: int, dilation: int, padding: int, size: int, outputs: int) -> int:
    """Input positions (of ``size``) that a transposed convolution writes for outputs ``start`` … ``stop − 1`` along one axis: all
    under their windows, and those between and around windows, which stay zero but must be written as well."""
    first = 0 if start == 0 else max(0, start * stride - padding)
    windows_end = (stop - 1) * stride - padding + dilation * (kernel - 1) + 1
    end = size if stop == outputs else min(size, max(windows_end, stop * stride - padding))
    return max(0, end - first)


@lru_cache(maxsize=128)
def _positions(nest: Nest) -> list[tuple[Sizes, Sizes]]:
    """Cuts of the output positions (images × spatial axes): tile sizes and the input positions of each tile, those it reads or,
    where the input is what is computed, those it writes.

    Whole images first, then parts along one axis after the other: a tile that is a part along an axis spans one index of all
    axes before it and the whole of those after.
    """
    images, output_size = nest.images, nest.output_size
    axes = len(output_size)

    def distinct(axis: int, start: int, stop: int) -> int:
        one_axis = (nest.stride[axis], nest.kernel[axis], nest.dilation[axis], nest.padding[axis][0], nest.input_size[axis])
        if nest.computes == "input":
            return written(start, stop, *one_axis, output_size[axis])
        return touched(start, stop, *one_axis)

    whole = [distinct(a, 0, output_size[a]) for a in range(axes)]
    image_out, image_in = math.prod(output_size), math.prod(whole)
    found: list[tuple[Sizes, Sizes]] = []
    for tile in _tile_sizes(images):
        if -(-images // tile) > MOST_TILES:
            return found
        sizes = _cut(images, tile)
        found.append((sizes * image_out, sizes * image_in))
    outer_out, outer_in = (
        np.ones(1),
        np.ones(1),
    )  # one entry for each index of the axes before the one being cut
    repeat = images
    for axis in range(axes):
        length = output_size[axis]
        rest_out = math.prod(output_size[axis + 1 :])
        rest_in = math.prod(whole[axis + 1 :])
        for tile in _tile_sizes(length)[1:]:
            count = repeat * outer_out.size * -(-length // tile)
            if count > MOST_TILES:
                return found
            sizes = _cut(length, tile)
            starts = np.concatenate(([0], np.cumsum(sizes)[:-1])).astype(int)
            part = np.array([distinct(axis, s, s + int(z)) for s, z in zip(starts, sizes, strict=True)], dtype=float)
            out = np.tile(np.outer(outer_out, sizes * rest_out).ravel(), repeat)
            inside = np.tile(np.outer(outer_in, part * rest_in).ravel(), repeat)
            found.append((out, inside))
        each = np.array([distinct(axis, s, s + 1) for s in range(length)], dtype=float)
        outer_out = np.outer(outer_out, np.ones(length)).ravel()
        outer_in = np.outer(outer_in, each).ravel()
    return found


@lru_cache(maxsize=128)
def _largest(nest: Nest) -> tuple[int, ...]:
    """Output positions of the largest tile of each of ``_positions``."""
    return tuple(int(out.max()) for out, _ in _positions(nest))


def units(rows: int, columns: int, dataflow: str) -> dict[str, int]:
    """Dimension → the tile below which it is not cut: about a fold along the array's rows and columns."""
    along_rows, along_columns = {
        "weight_stationary": ("k", "n"),
        "output_stationary": ("m", "n"),
        "input_stationary": ("k", "m"),
    }[dataflow]
    # A stream shorter than the array is deep leaves it mostly empty.
    least_stream = rows if dataflow == "output_stationary" else max(1, rows // 4)
    return dict.fromkeys("mnk", least_stream) | {along_rows: rows, along_columns: columns}


def tilings(shape: Shape, rows: int, columns: int, dataflow: str) -> tuple[list[Tiling], list[Tiling], list[Tiling]]:
    """All cuts of m, n and k that are considered.

    They depend on the operator and the array, never on a buffer or a bandwidth, so that a machine with more of those tries all
    that a smaller one tries.
    """
    unit = units(rows, columns, dataflow)
    return cuts(shape, "m", unit["m"]), cuts(shape, "n", unit["n"]), cuts(shape, "k", unit["k"])


def over_positions(nest: Nest, dim: str) -> bool:
    """Whether a dimension of a convolution runs over its output positions."""
    return dim == ("k" if nest.computes == "weight" else "m")


def distinct_unit(shape: Shape, dim: str, unit: int) -> int:
    """The least unit that cuts a dimension into the same tiles."""
    if shape.convolution is None or not over_positions(shape.convolution, dim):
        return unit
    return max((largest for largest in _largest(shape.convolution) if largest <= unit), default=0)


def cuts(shape: Shape, dim: str, unit: int) -> list[Tiling]:
    """All cuts of one dimension that are considered, down to tiles of about ``unit``."""
    if shape.convolution is None:
        return _plain({"m": shape.m, "n": shape.n, "k": shape.k}[dim], unit)
    nest = shape.convolution
    if over_positions(nest, dim):
        positions = _positions(nest)
        enough = sum(largest > unit for largest in _largest(nest))
        # Those of the results (C) are as many as the outputs, unless the inputs are what is computed.
        return [Tiling(out, out, inside) if nest.computes == "input" else Tiling(out, inside, out)
                for out, inside in positions[: enough + 1]]  # fmt: skip
    taps = math.prod(nest.kernel)
    if dim == {"output": "k", "input": "n", "weight": "m"}[nest.computes]:
        of_output = nest.computes != "input"
        found = _channels(nest.channels_in, taps, unit, first_is_distinct=of_output, second_is_distinct=not of_output)
        return found + (_channels_and_taps(nest.channels_in, taps, unit) if nest.computes == "output" else [])
    return _plain(nest.channels_out, unit)


def packed_groups(shape: Shape, rows: int, columns: int, dataflow: str) -> int:
    """Groups that one fold can hold side by side, block-diagonally: the largest divisor of the batch that fits.

    Only a stationary operand can be laid out so; an output-stationary array shares its streams among all rows and columns.
    """
    if dataflow == "output_stationary" or shape.batch == 1:
        return 1
    along_columns = shape.n if dataflow == "weight_stationary" else shape.m
    most = min(rows // shape.k, columns // along_columns)
    return max((d for d in range(1, min(most, shape.batch) + 1) if shape.batch % d == 0), default=1)
