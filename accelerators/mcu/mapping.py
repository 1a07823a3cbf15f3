"""How operators pass through the memories: the tiles of each, what they move, and what all of it takes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from accelerators.mcu.spec import McuClusterSpec, McuMac
from accelerators.mcu.tiles import Operands, Tiles, candidates, operands_of, tile_units
from accelerators.mcu.work import Work, product_shape, spread
from hwsim.machine import format_bytes
from hwsim.operators import Convolution, Gather, Matmul, Normalization, Op, Scatter, Softmax
from hwsim.schedule import Residency, Traffic
from hwsim.workload import Workload
from numerics.errors import InputError


@dataclass(frozen=True)
class Places:
    """What lies where between operators.

    Attributes:
        in_l1, in_l2: tensors that stay there.
        resident: everything lies in L2, and nothing is read from or written to outside.
    """

    in_l1: Residency
    in_l2: Residency
    resident: bool


@dataclass(frozen=True)
class Moves:
    """What an operator moves, and how it is cut for that.

    Attributes:
        l2_bytes, off_chip_bytes: through the DMA, and from and to the memory outside.
        transfers: times the DMA is set up.
        first_bytes: bytes that overlap no work: the first tile's and the last result's.
        tiles: (units of work in a tile, how many such tiles); empty for one tile of all.
        row: sizes for the table ``tiles``.
    """

    l2_bytes: float = 0.0
    off_chip_bytes: float = 0.0
    transfers: int = 0
    first_bytes: float = 0.0
    tiles: tuple[tuple[int, int], ...] = ()
    row: Mapping[str, Any] | None = None

    @property
    def count(self) -> int:
        """Number of tiles."""
        return sum(many for _, many in self.tiles) or 1


@dataclass(frozen=True)
class Load:
    """Cycles of cores and their waits for banks, and bytes; numbers, or arrays of one for each candidate."""

    cycles: Any = 0.0
    stalls: Any = 0.0
    l2_bytes: Any = 0.0
    off_chip_bytes: Any = 0.0

    def __add__(self, other: Load) -> Load:
        return Load(
            self.cycles + other.cycles,
            self.stalls + other.stalls,
            self.l2_bytes + other.l2_bytes,
            self.off_chip_bytes + other.off_chip_bytes,
        )

    @staticmethod
    def sum(parts: list[Load]) -> Load:
        total = Load()
        for part in parts:
            total = total + part
        return total


CUTS = 24
"""A vector operator is cut into up to 2^CUTS tiles, or into as many as L1 needs."""


class Mapper:
    """Chooses tiles for a cluster, equal operators once."""

    def __init__(self, spec: McuClusterSpec) -> None:
        self.spec = spec
        self._mapped: dict[Any, Moves] = {}
        self._spreads: dict[Any, tuple[float, float, int]] = {}

    def spread(self, work: Work, tiles: tuple[tuple[int, int], ...]) -> tuple[float, float, int]:
        """``spread`` of the work in these tiles, or all at once."""
        key = ("spread", work, tiles)
        if key not in self._spreads:
            pairs = np.array(tiles or ((max(1, work.units), 1),)).T
            cycles, stalls, cores = spread(self.spec, work, pairs[0], pairs[1])
            self._spreads[key] = float(cycles), float(stalls), int(cores)
        return self._spreads[key]

    def overhead(self, tiles: Any, parted: bool) -> Any:
        """Cycles around the work: for each tile each core's prologue and a barrier; none where a region goes on."""
        spec = self.spec
        barrier = spec.parallel.barrier_cycles if spec.cores > 1 else 0.0
        return (spec.op_setup_cycles + barrier) * (tiles if parted else tiles - 1)

    def body(self, load: Load, transfers: Any, first_bytes: Any) -> Any:
        """Cycles of work and transfers together."""
        spec = self.spec
        per_cycle = spec.off_chip.achieved_bytes_per_s / spec.clock_hz
        some, outside = load.l2_bytes > 0, load.off_chip_bytes > 0
        largest = max if isinstance(load.cycles, float) else np.maximum
        busy = load.cycles + load.stalls
        dma = some * (load.l2_bytes / spec.dma.bytes_per_cycle + transfers * spec.dma.setup_cycles)
        far = outside * (load.off_chip_bytes / per_cycle + spec.off_chip.latency_s * spec.clock_hz)
        if not spec.l1.double_buffered:
            return busy + largest(dma, far)
        fill = some * (first_bytes / spec.dma.bytes_per_cycle + spec.dma.setup_cycles)
        return largest(busy + fill, largest(dma, far))

    def product(
        self,
        workload: Workload,
        head: Op,
        work: Work,
        inner: Traffic,
        outer: Traffic,
        places: Places,
        more: Load,
    ) -> Moves:
        """The tiling that takes least of all that fit L1, together with what streams behind."""
        spec = self.spec
        op = cast(Matmul | Convolution, head)
        a, b = (workload.tensors[t] for t in op.inputs[:2])
        assert op.formats is not None
        mac = cast(McuMac, spec.mac_format(*spec.compute_formats(*op.formats.operands[:2])))
        others = [workload.read_bytes(op, i) for i, t in enumerate(op.inputs) if i >= 2 and t not in op.inputs[:i]]
        stored = float(inner.store_bytes)
        parts = operands_of(
            op, product_shape(op),
            a_bytes=float(workload.read_bytes(op, 0)), b_bytes=float(workload.read_bytes(op, 1)),
            sum_bytes=format_bytes(op.formats.accumulator), result_bytes=stored / max(1, op.elements_out),
            a_here=a.owner in places.in_l1.kept, b_here=b.owner in places.in_l1.kept,
        )  # fmt: skip
        far = self._comes(workload, a.owner, places), self._comes(workload, b.owner, places)
        always = 0.0 if places.resident else float(sum(others) + outer.store_bytes)
        block = (mac.block_rows, mac.block_columns)
        key = (parts, work, block, stored, sum(others), far, always, more)
        if key not in self._mapped:
            self._mapped[key] = self._best_tiles(op, parts, work, block, stored + sum(others), far, always, more)
        return self._mapped[key]

    def _comes(self, workload: Workload, owner: str, places: Places) -> int:
        """How a tensor comes into L2: 0 it is there, 1 once, 2 whenever a tile needs it."""
        if places.resident or owner in places.in_l2.kept or owner in places.in_l2.internal:
            return 0
        return 1 if workload.tensors[owner].bytes <= self.spec.l2_capacity_bytes // 2 else 2

    def _best_tiles(
        self,
        op: Op,
        parts: Operands,
        work: Work,
        block: tuple[int, int],
        near: float,
        far: tuple[int, int],
        always: float,
        more: Load,
    ) -> Moves:
        """Args: near, always: bytes that every tiling moves through the DMA, and from or to outside."""
        spec = self.spec
        tiles = candidates(parts)
        fits = tiles.tile_bytes <= spec.l1.tile_bytes
        if not fits.any():
            least = math.ceil(tiles.tile_bytes.min())
            raise InputError(
                f"device {spec.name!r}: l1.capacity_bytes: op {op.name!r} needs {least} bytes for its smallest tile, "
                f"got {spec.l1.tile_bytes:g}"
            )
        kept = np.flatnonzero(fits)
        units = [(size[kept], many[kept]) for size, many in tile_units(tiles, parts, block)]
        loads = tiles.a_loaded[kept], tiles.b_loaded[kept]
        whole = parts.shape[0] * parts.a_bytes, parts.shape[0] * parts.b_bytes
        outside = np.full(len(kept), always)
        for how, all_bytes, loaded in zip(far, whole, loads, strict=True):
            outside = outside + (loaded if how == 2 else all_bytes if how else 0.0)
        cycles, stalls, _ = spread(spec, work, np.stack([size for size, _ in units]), np.stack([many for _, many in units]))
        load = Load(cycles, stalls, loads[0] + loads[1] + near, outside)
        count = np.prod(tiles.counts, axis=0)[kept]
        total = self.body(load + more, tiles.transfers[kept], tiles.first_bytes[kept]) + self.overhead(count, True)
        best = int(np.lexsort((load.l2_bytes, total))[0])
        return self._moves(tiles, int(kept[best]), units, best, float(load.l2_bytes[best]), float(outside[best]))

    @staticmethod
    def _moves(tiles: Tiles, at: int, units: list[tuple[Any, Any]], best: int, near: float, outside: float) -> Moves:
        sizes = tuple((int(size[best]), int(many[best])) for size, many in units if many[best])
        return Moves(
            l2_bytes=near,
            off_chip_bytes=outside,
            transfers=int(tiles.transfers[at]),
            first_bytes=float(tiles.first_bytes[at]),
            tiles=sizes,
            row={
                "batch": int(tiles.group[at]), "m": int(tiles.m[at]), "n": int(tiles.n[at]), "k": int(tiles.k[at]),
                "tiles": int(np.prod([int(c[at]) for c in tiles.counts])), "tile_bytes": int(tiles.tile_bytes[at]),
                "loaded_bytes": int(tiles.a_loaded[at] + tiles.b_loaded[at]),
            },
        )  # fmt: skip

    def vector(self, op: Op, work: Work, inner: Traffic, outer: Traffic, places: Places, more: Load) -> Moves:
        """Bytes of a vector operator, in the number of tiles that takes least of those that fit L1."""
        spec = self.spec
        load = float(inner.load_bytes)
        far = 0.0 if places.resident else float(outer.load_bytes + outer.store_bytes)
        by_rows = isinstance(op, Softmax | Normalization) and op.operation != "batch_norm" and op.elements
        if by_rows and inner.touched_bytes / 2 / max(1, cast(Softmax, op).rows) > spec.l1.capacity_bytes:
            load *= 2  # a row that does not fit is read once for its statistics and once more to be scaled
        total = load + inner.store_bytes
        if not total or isinstance(op, Gather | Scatter):
            # A gather's addresses are known only as they come: its transfers precede its work.
            return Moves(l2_bytes=total, off_chip_bytes=far, transfers=1, first_bytes=total)
        key = ("vector", work, total, far, more)
        if key not in self._mapped:
            self._mapped[key] = self._best_cut(work, total, far, more)
        return self._mapped[key]

    def _best_cut(self, work: Work, total: float, far: float, more: Load) -> Moves:
        """``total`` bytes in 2^i tiles, no fewer than L1 needs: the number that takes least."""
        units = max(1, work.units)
        least = max(0, math.ceil(math.log2(total / self.spec.l1.tile_bytes)))
        powers = np.arange(least, max(least, CUTS) + 1)
        counts = np.minimum(1 << powers, units)
        small, more_of = np.divmod(units, counts)
        sizes, many = np.stack([small + 1, small]), np.stack([more_of, counts - more_of])
        cycles, stalls, _ = spread(self.spec, work, sizes, many)
        length = self.body(Load(cycles, stalls, total, far) + more, 2.0 * (1 << powers), total / (1 << powers))
        best = int(np.argmin(length + self.overhead(counts, True)))
        tiles = tuple((int(n), int(k)) for n, k in zip(sizes[:, best], many[:, best], strict=True) if k)
        count = 1 << int(powers[best])
        return Moves(total, far, 2 * count, total / count, tiles)
