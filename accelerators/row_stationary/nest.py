"""A matrix operator as the loop nest that a row-stationary array runs: a two-dimensional convolution of images.

What is none becomes one. A third spatial dimension: its output positions are images, its kernel taps channels. A matmul: a 1×1
convolution, its k the channels, its n the filters, its m positions a plane of as many rows as the array has columns at most. A
gradient or a transposed convolution: the matmul of its unrolled operands. A row too long for the buffer is cut into several
images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from accelerators.row_stationary import _kernels as kernels
from accelerators.row_stationary.spec import RowStationarySpec
from hwsim.operators import Convolution, Matmul
from hwsim.views.display import displayed

LONGEST_ROW = 64
"""Output positions in a row of a matmul's plane: enough to use a filter often, few enough for several rows in the buffer."""


@displayed
@dataclass(frozen=True)
class Nest:
    """Sizes of the loop nest, of one group where it says so.

    Attributes:
        images, groups: both outermost.
        filters, channels: of a group (M and C in the papers).
        out_rows, out_columns: E and F.
        kernel_rows, kernel_columns: R and S.
        row_stride, column_stride, row_dilation, column_dilation: of the kernel.
        row_padding, column_padding: before the first row and column.
        in_rows, in_columns: H and W, without padding.
        fill: results of the operator over those of the nest; below 1 where a matmul's positions do not fill their plane.
    """

    images: int
    groups: int
    filters: int
    channels: int
    out_rows: int
    out_columns: int
    kernel_rows: int = 1
    kernel_columns: int = 1
    row_stride: int = 1
    column_stride: int = 1
    row_dilation: int = 1
    column_dilation: int = 1
    row_padding: int = 0
    column_padding: int = 0
    in_rows: int = 0
    in_columns: int = 0
    fill: float = 1.0

    @property
    def outputs(self) -> int:
        """Results of the nest."""
        return self.images * self.groups * self.filters * self.out_rows * self.out_columns

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the nest, those on padding included."""
        return self.outputs * self.channels * self.kernel_rows * self.kernel_columns

    @cached_property
    def planned_columns(self) -> int:
        """Input columns that the outputs need, padding included."""
        step, dilation = self.column_stride, self.column_dilation
        return int(kernels.input_rows(self.out_columns, self.kernel_columns, step, dilation))

    @cached_property
    def read_columns(self) -> int:
        """Those of them that are no padding."""
        taps = _positions(self.out_columns, self.kernel_columns, self.column_stride, self.column_dilation, self.column_padding)
        return len(np.unique(taps[(taps >= 0) & (taps < self.in_columns)]))

    def row_pieces(self, pe_rows: int) -> int:
        """Parts into which the kernel's rows are cut for an array of so many rows."""
        return -(-self.kernel_rows // pe_rows)

    def rows_read(self, e: int, pieces: int, *, padding: bool) -> int:
        """Distinct input rows of all tiles of ``e`` output rows and all pieces of the kernel, with or without padding."""
        taps = _positions(self.out_rows, self.kernel_rows, self.row_stride, self.row_dilation, self.row_padding)
        size = -(-self.kernel_rows // pieces)
        total = 0
        for top in range(0, self.out_rows, e):
            for left in range(0, self.kernel_rows, size):
                rows = np.unique(taps[top : top + e, left : left + size])
                total += len(rows) if padding else int(((rows >= 0) & (rows < self.in_rows)).sum())
        return total

    @cached_property
    def row_pairs(self) -> int:
        """Pairs of an output and a kernel row whose input row is no padding."""
        taps = _positions(self.out_rows, self.kernel_rows, self.row_stride, self.row_dilation, self.row_padding)
        return int(((taps >= 0) & (taps < self.in_rows)).sum())

    def array(self, *, pe_rows: int, window_words: int, cycles_per_mac: int) -> np.ndarray:
        """The nest as the kernels read it, for an array of so many rows and scratchpads for so many words of an input row."""
        values = np.zeros(16, dtype=np.int64)
        values[kernels.IMAGES], values[kernels.GROUPS] = self.images, self.groups
        values[kernels.FILTERS], values[kernels.CHANNELS] = self.filters, self.channels
        values[kernels.OUT_ROWS], values[kernels.OUT_COLUMNS] = self.out_rows, self.out_columns
        values[kernels.KERNEL_ROWS], values[kernels.KERNEL_COLUMNS] = self.kernel_rows, self.kernel_columns
        values[kernels.ROW_STRIDE], values[kernels.ROW_DILATION] = self.row_stride, self.row_dilation
        values[kernels.COLUMN_STEP] = self.column_stride // math.gcd(self.column_stride, self.column_dilation)
        values[kernels.COLUMNS_PLANNED] = self.planned_columns
        values[kernels.ROW_PAIRS] = self.row_pairs
        values[kernels.ROW_PIECES] = self.row_pieces(pe_rows)
        values[kernels.COLUMN_PIECES] = -(-self.kernel_columns // window_words)
        values[kernels.MAC_CYCLES] = cycles_per_mac
        return values


def _positions(outputs: int, taps: int, stride: int, dilation: int, padding: int) -> np.ndarray:
    """Input position of each output and tap."""
    return np.arange(outputs)[:, None] * stride + np.arange(taps)[None, :] * dilation - padding


def balanced(size: int) -> list[int]:
    """Sizes of the largest of 1, 2, 3, … equal parts, each once, largest first."""
    sizes = [size]
    while sizes[-1] > 1:
        parts = -(-size // (sizes[-1] - 1))  # the fewest that are smaller
        sizes.append(-(-size // parts))
    return sizes


def nest_of(op: Matmul | Convolution, spec: RowStationarySpec) -> Nest:
    """The loop nest of an operator on this array; see above."""
    if isinstance(op, Convolution) and op.computes == "output":
        return _shortened(_convolution(op), spec)
    groups, positions, filters, channels = (op.batch, op.m, op.n, op.k) if isinstance(op, Matmul) else op.matmul_dims
    return _shortened(_plane(groups, positions, filters, channels, spec), spec)


def _convolution(op: Convolution) -> Nest:
    kernel, stride, dilation = (list(v) for v in (op.kernel, op.stride, op.dilation))
    out, size, padding = list(op.output_size), list(op.input_size), [p[0] for p in op.padding]
    if len(kernel) == 1:
        kernel, stride, dilation, out, size, padding = ([1, *kernel], [1, *stride], [1, *dilation],
                                                        [1, *out], [1, *size], [0, *padding])  # fmt: skip
    deep, high, wide = out if len(kernel) == 3 else (1, *out)
    taps = kernel[0] if len(kernel) == 3 else 1
    return Nest(
        images=op.batch * deep,
        groups=op.groups,
        filters=op.out_channels // op.groups,
        channels=op.in_channels // op.groups * taps,
        out_rows=high,
        out_columns=wide,
        kernel_rows=kernel[-2],
        kernel_columns=kernel[-1],
        row_stride=stride[-2],
        column_stride=stride[-1],
        row_dilation=dilation[-2],
        column_dilation=dilation[-1],
        row_padding=padding[-2],
        column_padding=padding[-1],
        in_rows=size[-2],
        in_columns=size[-1],
    )


def _plane(groups: int, positions: int, filters: int, channels: int, spec: RowStationarySpec) -> Nest:
    """A matmul's positions as images of planes that they fill best."""
    columns = spec.array.columns
    if positions <= columns:
        images, rows, long = 1, positions, 1
    else:
        images = -(-positions // (columns * LONGEST_ROW))
        rows = min(range(columns, columns // 2, -1), key=lambda r: -(-positions // (images * r)) * r)
        long = -(-positions // (images * rows))
    fill = positions / (images * rows * long)
    return Nest(images, groups, filters, channels, rows, long, in_rows=rows, in_columns=long, fill=fill)


def _shortened(nest: Nest, spec: RowStationarySpec) -> Nest:
    """The nest with its rows cut into as many images as let one output row of one channel and filter fit in the buffer."""
    bank_words = spec.buffer.capacity_bytes // spec.buffer.banks // 2
    pieces = nest.row_pieces(spec.array.rows)
    lines = -(-nest.kernel_rows // pieces)
    for parts in range(1, nest.out_columns + 1):
        long = -(-nest.out_columns // parts)
        part = replace(nest, out_columns=long)
        if -(-lines * part.planned_columns // bank_words) + -(-long // bank_words) <= spec.buffer.banks:
            if parts == 1:
                return nest
            span = min(nest.in_columns, part.planned_columns)
            fill = nest.fill * nest.out_columns / (long * parts)
            return replace(part, images=nest.images * parts, in_columns=span, column_padding=0, fill=fill)
    return replace(nest, images=nest.images * nest.out_columns, out_columns=1, in_columns=nest.kernel_columns, column_padding=0)
