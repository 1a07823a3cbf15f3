"""Where the tiles of an operator lie in the buffers of a device, step by step of the mapping that the device picks.

The rule of this layout: a tile's elements lie row by row, a word each, from the first word of a half of its buffer on; the tiles
that a loop comes back to lie one behind the other; what is loaded next goes to the other half of a double-buffered memory; an
operand that fits its memory as a whole lies there as a whole. A feature map lies position by position (image, row, column), the
channels of a position side by side, and no position twice.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from accelerators.systolic.mapping import ORDER_NAMES, Shape, shape_of
from hwsim.views.display import displayed
from numerics.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from accelerators.systolic.device import SystolicArray
    from accelerators.systolic.jobs import MatrixJob, VectorJob
    from hwsim.workload import Workload

    Indices = NDArray[np.int64]

_INDEXED = {"input": (0, 2), "weight": (2, 1), "output": (0, 1)}
"""Rows and columns of a buffer's tiles, as numbers of m, n and k."""


@displayed
class Held(NamedTuple):
    """A word while it holds an element.

    Attributes:
        batch, m, n, k: numbers of the tiles of the step.
        position: of the element in its tile.
    """

    batch: int
    m: int
    n: int
    k: int
    position: int


@displayed
@dataclass(frozen=True)
class Buffer:
    """One buffer as a mapping uses it.

    Attributes:
        words: that it has, of the format that it holds.
        double: whether it has two halves.
        reused: whether tiles stay across the loop that does not index them.
        whole: whether the operand lies there as a whole.
        absent: whether the operand comes from elsewhere.
    """

    words: int
    double: bool
    reused: bool
    whole: bool
    absent: bool = False


@displayed
@dataclass(frozen=True)
class TileLayout:
    """The tiles of one operator and their places.

    Attributes:
        shape: of the operator: its sizes and, for a convolution, its nest.
        m, n: sizes of tiles, in order.
        k: indices of each tile of k: a convolution's run over channels, then taps.
        taps: tiles of k that share one tile of the feature map.
        order: loops, outermost first, of the letters m, n and k; products of a batch follow one another.
        buffers: ``input``, ``weight`` and ``output``.
    """

    shape: Shape
    m: Indices
    n: Indices
    k: tuple[Indices, ...]
    taps: int
    order: str
    buffers: dict[str, Buffer]

    def rows(self, tile: int) -> Indices:
        """Indices along m of a tile."""
        return np.arange(self.m[tile]) + self.m[:tile].sum()

    def columns(self, tile: int) -> Indices:
        """Indices along n of a tile."""
        return np.arange(self.n[tile]) + self.n[:tile].sum()

    def held(self, buffer: str, word: int) -> Iterator[Held]:
        """When a word of a buffer holds what, in the order of the steps."""
        memory = self.buffers[buffer]
        if memory.absent:
            return
        steps = self._steps()
        along = [steps[d] // self.taps if (buffer, d) == ("input", 2) else steps[d] for d in _INDEXED[buffer]]
        sizes = self._sizes(buffer)
        place, keys = self._offsets(buffer, sizes), [steps[3], *along]
        third = "mnk"[3 - sum(_INDEXED[buffer])]
        if memory.whole:
            keys = [steps[3]]
        elif memory.reused:
            outside = self.order[: self.order.index(third)]
            keys = [steps[3], *(part for part, d in zip(along, _INDEXED[buffer], strict=True) if "mnk"[d] in outside)]
        new = np.any([np.diff(key, prepend=-1) != 0 for key in keys], axis=0)
        half = memory.words // 2
        base = np.where((np.cumsum(new) - 1) % 2, half, 0) if memory.double and not memory.whole else 0
        position = word - base - place[along[0], along[1]]
        for step in np.flatnonzero((position >= 0) & (position < sizes[along[0], along[1]])):
            batch, m, n, k = (int(steps[d][step]) for d in (3, 0, 1, 2))
            yield Held(batch, m, n, k, int(position[step]))

    def _steps(self) -> list[Indices]:
        """Tiles of m, n and k, and the product of the batch, of each step."""
        trips = dict(zip("mnk", (self.m.size, self.n.size, len(self.k)), strict=True))
        grid = np.indices((self.shape.batch, *(trips[d] for d in self.order))).reshape(4, -1)
        return [grid[1 + self.order.index(d)] for d in "mnk"] + [grid[0]]

    def _sizes(self, buffer: str) -> Indices:
        """Elements of each tile of a buffer."""
        k = np.array([part.size for part in self.k])
        if buffer == "output":
            return np.outer(self.m, self.n)
        if buffer == "weight":
            return np.outer(k, self.n)
        if self.shape.convolution is None:
            return np.outer(self.m, k)
        channels = np.array([self._channels(tile).size for tile in range(0, len(self.k), self.taps)])
        return np.outer([self._positions(tile)[0].size for tile in range(self.m.size)], channels)

    def _offsets(self, buffer: str, sizes: Indices) -> Indices:
        """Words before each tile among those that stay together."""
        memory, (first, second) = self.buffers[buffer], _INDEXED[buffer]
        swapped = self.order.index("mnk"[first]) > self.order.index("mnk"[second])
        table = sizes.T if swapped else sizes  # the outer loop first
        third = self.order.index("mnk"[3 - first - second])
        if memory.whole or (memory.reused and third == 0):
            offsets = (np.cumsum(table) - table.reshape(-1)).reshape(table.shape)
        elif memory.reused and third == 1:
            offsets = np.cumsum(table, axis=1) - table
        else:
            offsets = np.zeros_like(table)
        return offsets.T if swapped else offsets

    def elements(self, buffer: str, found: Held) -> tuple[Indices, Indices]:
        """Rows and columns, in the whole operand of the product, of what a word holds.

        A word of a feature map is an element under each window that covers it, of those of the step.
        """
        if buffer == "output":
            row, column = divmod(found.position, int(self.n[found.n]))
            return self.rows(found.m)[[row]], self.columns(found.n)[[column]]
        k = self.k[found.k]
        if buffer == "weight":
            row, column = divmod(found.position, int(self.n[found.n]))
            return k[[row]], self.columns(found.n)[[column]]
        if self.shape.convolution is None:
            row, column = divmod(found.position, k.size)
            return self.rows(found.m)[[row]], k[[column]]
        channels = self._channels(found.k // self.taps * self.taps)
        position, channel = divmod(found.position, channels.size)
        positions, windows = self._positions(found.m)
        own = np.flatnonzero(k // windows.shape[1] == channels[channel])
        window, tap = np.nonzero(windows[:, k[own] % windows.shape[1]] == positions[position])
        return self.rows(found.m)[window], k[own[tap]]

    def _channels(self, tile: int) -> Indices:
        """Channels of the feature map in a tile of k and those that share it."""
        nest = self.shape.convolution
        assert nest is not None
        parts = np.concatenate(self.k[tile : tile + self.taps])
        return np.unique(parts // math.prod(nest.kernel))

    def _positions(self, tile: int) -> tuple[Indices, Indices]:
        """Positions of the feature map under a tile of m, in order; and those of its windows, (windows, taps), −1 for padding."""
        nest = self.shape.convolution
        assert nest is not None
        image, *output = np.unravel_index(self.rows(tile), (nest.images, *nest.output_size))
        taps = np.unravel_index(np.arange(math.prod(nest.kernel)), nest.kernel)
        where: Any = np.broadcast_to(np.asarray(image)[:, None], (image.size, taps[0].size))
        padding = np.zeros(where.shape, np.bool_)
        for axis, (out, tap) in enumerate(zip(output, taps, strict=True)):
            at = out[:, None] * nest.stride[axis] - nest.padding[axis][0] + tap[None, :] * nest.dilation[axis]
            padding |= (at < 0) | (at >= nest.input_size[axis])
            where = where * nest.input_size[axis] + at
        where = np.where(padding, -1, where)
        found = np.unique(where)
        return found[found >= 0], where


def layer_layouts(device: SystolicArray, workload: Workload) -> dict[str, list[TileLayout]]:
    """The layouts of a workload's matrix operators, by the module that each is of.

    Raises:
        InputError: a device whose buffers hold no tiles of a single product: several arrays or groups at once, or the windows of
            a compiler's kernel.
    """
    from hwsim.schedule import schedule

    placed = device.placed(workload).expanded()
    plan = schedule(placed, device.spec.memory.input.retained_capacity_bytes)
    found: dict[str, list[TileLayout]] = {}
    for group, traffic in zip(plan.groups, plan.traffic, strict=True):
        matrix, streamed, _ = device._job(placed, group, traffic, plan.residency)
        if matrix is not None:
            found.setdefault(matrix.op.module, []).append(_layout(device, matrix, streamed))
    return found


def product_layout(device: SystolicArray, *, batch: int, m: int, n: int, k: int) -> TileLayout:
    """The layout of a product that is alone on the device.

    Raises:
        InputError: as ``layer_layouts``.
    """
    matrix, streamed, _ = device._matmul_job(batch, m, n, k, None)
    assert matrix is not None
    return _layout(device, matrix, streamed)


def _layout(device: SystolicArray, matrix: MatrixJob, streamed: list[VectorJob]) -> TileLayout:
    from dataclasses import replace

    from accelerators.systolic import _mapping_kernels as mapping_kernels
    from accelerators.systolic import _pipeline_fields as fields
    from accelerators.systolic.ideal import on_arrays
    from accelerators.systolic.pipeline import TilePipeline, _candidates, _job_vector

    spec, shape = device.spec, shape_of(matrix.op)
    if spec.kernel is not None:
        raise InputError(f"device {spec.name!r}: a compiler's kernel moves windows; a faulty word needs tiles in its buffers")
    _, packed = on_arrays(spec, shape, matrix.cycles_per_mac)
    if packed > 1 or spec.array.count > 1:
        raise InputError(f"device {spec.name!r}: a faulty word needs one array with one product in a fold")
    pipeline = TilePipeline(spec)
    cost = pipeline.run(matrix, list(streamed), [])
    streamed = list(streamed)
    if cost.apart:
        # Row-wise operators run behind, over results that are written out before.
        head, spilled = streamed[: -cost.apart], streamed[-cost.apart].handed_bytes
        if head:
            last = head[-1]
            head[-1] = replace(last, store_bytes=last.store_bytes + spilled, touched_bytes=last.touched_bytes + spilled)
        else:
            matrix = replace(matrix, store_bytes=matrix.store_bytes + spilled, result_bytes=matrix.result_bytes + spilled)
        streamed = head
    machine = pipeline.hw.copy()
    machine[fields.MAC_CYCLES] = matrix.cycles_per_mac / spec.array.streaming_fraction
    job = _job_vector(matrix, streamed, [], shape.batch, float(matrix.op.elements_out))
    cuts = _candidates(shape, spec.array.rows, spec.array.columns, spec.array.dataflow, 1)
    picked, reuse, _, _ = mapping_kernels.search(machine, job, *cuts)
    sizes = []
    for d in range(3):
        begin, end = cuts[4 * d][picked[d]], cuts[4 * d][picked[d] + 1]
        sizes.append([part[begin:end] for part in cuts[4 * d + 1 : 4 * d + 4]])
    (m, am, _), (n, bn, _), (k, ak, bk) = sizes
    tap = int(cuts[12][picked[2]])
    parts, tiles = _tiles_of_k(shape, k.astype(np.int64), tap)
    wholes = am.sum() * ak.sum(), bk.sum() * bn.sum(), m.sum() * n.sum()
    pads = (spec.memory.input, spec.memory.weight, spec.memory.output)
    widths = (matrix.a_bytes, matrix.b_bytes, matrix.partial_bytes)
    absent = (matrix.a_resident, matrix.b_resident, False)
    buffers = {
        name: Buffer(
            int(pad.capacity_bytes // width), pad.double_buffered, bool(kept),
            shape.batch == 1 and size * width <= pad.capacity_bytes, away,
        )
        for name, pad, width, kept, size, away in zip(_INDEXED, pads, widths, reuse, wholes, absent, strict=True)
    }  # fmt: skip
    return TileLayout(shape, m.astype(np.int64), n.astype(np.int64), tiles, parts, ORDER_NAMES[picked[3]], buffers)


def _tiles_of_k(shape: Shape, sizes: Indices, tap: int) -> tuple[int, tuple[Indices, ...]]:
    """Tiles of k that share a feature map, and the indices of each tile; ``tap``: kernel taps a tile takes, 0 for all."""
    starts = np.cumsum(sizes) - sizes
    if not tap:
        return 1, tuple(np.arange(size) + start for size, start in zip(sizes, starts, strict=True))
    assert shape.convolution is not None
    taps = math.prod(shape.convolution.kernel)
    parts = -(-taps // tap)
    found, channel = [], 0
    for tile in range(0, sizes.size, parts):
        channels = channel + np.arange(sizes[tile : tile + parts].sum() // taps)
        channel += channels.size
        for first in range(0, taps, tap):
            found.append((channels[:, None] * taps + np.arange(first, min(taps, first + tap))).reshape(-1))
    return parts, tuple(found)
