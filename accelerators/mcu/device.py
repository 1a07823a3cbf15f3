"""The cluster of microcontroller cores as a device: workloads in, reports out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, cast

from accelerators.mcu.emulation import check_sums, cluster_recipe
from accelerators.mcu.mapping import Load, Mapper, Places
from accelerators.mcu.spec import McuClusterSpec, McuMac
from accelerators.mcu.work import (
    WORD_BYTES,
    Work,
    convolution_window_bytes,
    follows_in_place,
    product_shape,
    product_work,
    vector_format,
    vector_work,
)
from hwsim.engine import IDEAL_MEMORY
from hwsim.machine import UNMODELLED, OperatorMachine, format_bytes
from hwsim.operators import Convolution, Gather, Matmul, Op, Scatter
from hwsim.report import OpCost, Report, Span, repeated_rows
from hwsim.schedule import Residency, Traffic, group_traffic, schedule
from hwsim.workload import Workload
from numerics.errors import InputError
from numerics.recipes import Recipe

if TYPE_CHECKING:
    from hwsim.area.components import Area
    from hwsim.area.process import Process


def serial_fraction(cores: int, speed_up: float) -> float:
    """Share of the work that one core must do alone for this speed-up (Amdahl, AFIPS 1967): (N/S − 1) / (N − 1).

    Raises:
        InputError: fewer than two cores, a speed-up that is not between 1 and their number.
    """
    if cores < 2 or not 1 <= speed_up <= cores:
        raise InputError(
            f"serial_fraction: expected at least 2 cores and a speed-up from 1 to their number, got {cores}, {speed_up}"
        )
    return (cores / speed_up - 1) / (cores - 1)


class McuCluster(OperatorMachine[McuClusterSpec]):
    """Cores with a shared, banked L1, a DMA from L2, and memory outside.

    Fidelities: ``analytic``, memory is ideal; ``tile``, with the banks' contention and the transfers of tiles.
    """

    kind: ClassVar[str] = "mcu_cluster"
    spec_class = McuClusterSpec
    fidelities: ClassVar[tuple[str, ...]] = ("analytic", "tile")
    default_fidelity: ClassVar[str] = "tile"

    def __init__(self, spec: McuClusterSpec) -> None:
        super().__init__(spec)
        self._mapper = Mapper(spec)
        self._pairs: dict[tuple[str, ...], tuple[str, str]] = {}

    def computed_recipe(self, recipe: Recipe) -> Recipe:
        """The recipe as the cores compute it; see ``accelerators.mcu.emulation.cluster_recipe``."""
        return cluster_recipe(self.spec, recipe)

    def single_core(self) -> McuCluster:
        """The same with one of its cores."""
        fpus = None if self.spec.fpus is None else self.spec.fpus.model_copy(update={"count": 1})
        return McuCluster(self.spec.model_copy(update={"cores": 1, "fpus": fpus}))

    def speed_up(self, workload: Workload, *, fidelity: str | None = None) -> float:
        """Time on one core over time on all."""
        alone = self.single_core().simulate(workload, fidelity=fidelity)
        return alone.time_s / self.simulate(workload, fidelity=fidelity).time_s

    def _area(self, process: Process) -> Area:
        from accelerators.mcu.area import device_area

        return device_area(self.name, self._spec, process)

    # --- simulation ---------------------------------------------------------------------------------------------------

    def _simulate(self, workload: Workload, fidelity: str) -> Report:
        spec = self.spec
        placed = workload.expanded()
        l1, l2 = schedule(placed, spec.l1.retained_capacity_bytes), schedule(placed, spec.l2_capacity_bytes // 2)
        places = self._places(placed, l1.residency, l2.residency)
        rows: dict[int, OpCost] = {}
        spans: list[Span] = []
        tables: dict[str, list[dict[str, Any]]] = {"cores": [], "tiles": []}
        peaks: dict[float, int] = {}
        region = _Region()
        start = 0.0
        works: dict[tuple[int, int], list[tuple[Work, float]]] = {}
        costs: dict[tuple[int, ...], _Together] = {}
        for number, group in enumerate(l1.groups):
            inner = l1.traffic[number] if places.in_l1 is l1.residency else group_traffic(placed, group, places.in_l1)
            outer = inner if places.resident else l2.traffic[number]
            head = [] if group.matrix is None else [group.matrix]
            for part, members in enumerate(([*head, *group.streamed], *([i] for i in group.background))):
                if not members:
                    continue
                ops = [placed.ops[i] for i in members]
                alike = l1.likeness[number], part
                if alike not in works:
                    works[alike] = self._works(placed, members, inner)
                parted = region.enter(placed, ops, [work.units for work, _ in works[alike]])
                key = *alike, l2.likeness[number], parted, not rows
                if key not in costs:
                    costs[key] = self._together(
                        placed, members, works[alike], inner, outer, places, parted, fidelity=fidelity, first=not rows
                    )
                cost = costs[key]
                found = repeated_rows(cost.rows, ops, start)
                rows.update(zip(members, found, strict=True))
                tables["cores"] += [{"op": op.name, **row} for op, row in zip(ops, cost.cores, strict=True)]
                if cost.tiles:
                    tables["tiles"].append({"op": ops[0].name, **cost.tiles})
                length = sum(row.time_s for row in found)
                spans += self._spans(found, start, length)
                start += length
            if group.matrix is not None:
                op = placed.ops[group.matrix]
                peak = self._peak(op)
                peaks[peak] = peaks.get(peak, 0) + op.macs
        default = self._peak_of(self._mac(*self._default_pair()))
        return self.report(
            placed,
            [rows[index] for index in range(len(placed.ops))],
            fidelity=fidelity,
            peak_macs_per_s=max(peaks, key=lambda peak: peaks[peak], default=default) * spec.clock_hz,
            offchip_bandwidth_bytes_per_s=spec.off_chip.achieved_bytes_per_s,
            spans=spans,
            tables=tables,
            notes=[IDEAL_MEMORY] if fidelity == "analytic" else [],
        )

    def _places(self, workload: Workload, in_l1: Residency, in_l2: Residency) -> Places:
        """What stays in L1 and in L2: all of a workload whose live bytes fit, otherwise what was planned."""
        spec = self.spec
        live = workload.peak_memory().bytes
        if live <= spec.l1.capacity_bytes:
            in_l1 = Residency(frozenset(workload.tensors) - in_l1.internal, in_l1.internal)
        if live <= max(spec.l1.capacity_bytes, spec.l2_capacity_bytes):
            return Places(in_l1, in_l1, True)
        return Places(in_l1, in_l2, False)

    def _default_pair(self) -> tuple[str, str]:
        recipe = self.spec.default_recipe
        return recipe.format_for("activation"), recipe.format_for("weight")

    def _mac(self, a: str, b: str) -> McuMac:
        return cast(McuMac, self.spec.mac_format(*self.spec.compute_formats(a, b)))

    def _peak(self, op: Op) -> float:
        assert op.formats is not None
        return self._peak_of(self._mac(*op.formats.operands[:2]))

    def _peak_of(self, mac: McuMac) -> float:
        """MACs a cycle of all cores in one inner loop without loads."""
        rate = self.spec.cores / mac.instruction_cycles
        if mac.on_fpu and self.spec.fpus is not None:
            rate = min(rate, float(self.spec.fpus.count))
        return rate * mac.macs_per_instruction

    def _works(self, workload: Workload, members: list[int], inner: Mapping[int, Traffic]) -> list[tuple[Work, float]]:
        """Instructions, and joules of conversions, of operators that share their tiles."""
        matrix = workload.ops[members[0]].is_matrix
        return [self._work(workload, workload.ops[i], inner[i], n > 0, n == 0 and matrix) for n, i in enumerate(members)]

    def _together(
        self,
        workload: Workload,
        members: list[int],
        done: list[tuple[Work, float]],
        inner: Mapping[int, Traffic],
        outer: Mapping[int, Traffic],
        places: Places,
        parted: bool,
        *,
        fidelity: str,
        first: bool,
    ) -> _Together:
        """The cost of operators that share their tiles. Each one's share is what they take longer for it."""
        spec = self.spec
        ideal = fidelity == "analytic"
        head = workload.ops[members[0]]
        works = [work for work, _ in done]
        streams = [self._streamed(inner[i], outer[i], work, places) for i, work in zip(members[1:], works[1:], strict=True)]
        more = Load.sum(streams)
        if head.is_matrix:
            moves = self._mapper.product(workload, head, works[0], inner[members[0]], outer[members[0]], places, more)
        else:
            moves = self._mapper.vector(head, works[0], inner[members[0]], outer[members[0]], places, more)
        rows: list[OpCost] = []
        table: list[dict[str, Any]] = []
        load, ended = Load(), 0.0
        for number, (index, work) in enumerate(zip(members, works, strict=True)):
            op = workload.ops[index]
            if number:
                added = streams[number - 1]
                cycles, _, cores = self._mapper.spread(work, ())
                overhead = 0.0
            else:
                cycles, stalls, cores = self._mapper.spread(work, () if ideal else moves.tiles)
                added = Load(cycles, stalls, moves.l2_bytes, moves.off_chip_bytes)
                overhead = float(self._mapper.overhead(1 if ideal else moves.count, parted)) + self._fork(first)
            load = load + added
            body = load.cycles if ideal else float(self._mapper.body(load, moves.transfers, moves.first_bytes))
            share, ended = body - ended, body
            compute = min(share, cycles)
            row = self.row(
                op,
                unit="cores",
                start_s=0.0,
                compute_cycles=compute,
                stall_cycles=share - compute,
                overhead_cycles=overhead,
                busy_cycles=cycles + (0.0 if ideal else added.stalls),
                energy_j=self._energy(op, work, added, share + overhead, number == 0 and op.is_matrix, done[number][1]),
                bytes={
                    "off_chip": round(added.off_chip_bytes),
                    "l2": round(added.l2_bytes),
                    "l1": round(work.accesses * WORD_BYTES),
                },
                peak_macs_per_cycle=self._peak(op) if number == 0 and op.is_matrix else 0.0,
                fused_with=head.name if number else "",
            )
            rows.append(row)
            table.append(
                {
                    "units": work.units,
                    "cores": cores,
                    "one_core_cycles": round(work.cycles, 1),
                    "cycles": round(cycles, 1),
                    "bank_stall_cycles": 0.0 if ideal else round(added.stalls, 1),
                    "barrier": bool(number == 0 and parted and spec.cores > 1),
                }
            )
        return _Together(rows, table, moves.row or {})

    def _streamed(self, inner: Traffic, outer: Traffic, work: Work, places: Places) -> Load:
        """What an operator adds that works on another's results in the same tiles."""
        cycles, stalls, _ = self._mapper.spread(work, ())
        far = 0 if places.resident else outer.load_bytes + outer.store_bytes
        return Load(cycles, stalls, float(inner.load_bytes + inner.store_bytes), float(far))

    def _pair(self, op: Op) -> tuple[str, str]:
        """The formats in which a product's operands are multiplied, its sums checked."""
        assert op.formats is not None
        key = (*op.formats.operands[:2], op.formats.accumulator)
        if key not in self._pairs:
            pair = self.spec.compute_formats(*op.formats.operands[:2])
            check_sums(self.spec, pair, op.formats.accumulator)
            self._pairs[key] = pair
        return self._pairs[key]

    def _work(self, workload: Workload, op: Op, part: Traffic, streamed: bool, is_matrix: bool) -> tuple[Work, float]:
        """The instructions of an operator, conversions of its operands among them, and the joules of these conversions."""
        work = self._own_work(workload, op, part, streamed, is_matrix)
        converted, energy = self.conversions(workload, op, self._pair(op) if is_matrix else ())
        return (replace(work, cycles=work.cycles + converted) if converted else work), energy

    def _own_work(self, workload: Workload, op: Op, part: Traffic, streamed: bool, is_matrix: bool) -> Work:
        spec = self.spec
        if is_matrix:
            op = cast(Matmul | Convolution, op)
            assert op.formats is not None
            pair = self._pair(op)
            result = workload.tensors[op.outputs[0]]
            work = product_work(
                spec, cast(McuMac, spec.mac_format(*pair)), product_shape(op),
                result_bytes=format_bytes(result.format), unrolled_bytes=convolution_window_bytes(op, format_bytes(pair[0])),
            )  # fmt: skip
            if op.operations:
                extra, words = spec.arithmetic_for(op.formats.accumulator)
                busy = words * extra.cycles(op.operations)
                work = replace(work, cycles=work.cycles + busy, fpu_cycles=work.fpu_cycles + (busy if extra.on_fpu else 0.0))
            return work
        if op.kind in UNMODELLED:
            return Work(0.0)
        written = part.result_bytes if streamed else sum(workload.write_bytes(op, i) for i in range(len(op.outputs)))
        read = part.outside_bytes if streamed else part.touched_bytes - written
        work = vector_work(spec, op, vector_format(op), read_bytes=max(0, read), written_bytes=max(0, written))
        if isinstance(op, Scatter) and op.accumulate and spec.cores > 1:
            # Each core adds into a copy of its own; the copies are then added up.
            target = sum(workload.tensors[t].elements for t in op.outputs)
            work = replace(work, cycles=work.cycles + (min(spec.cores, work.units) - 1) * target * work.combine_cycles)
        return work

    def _fork(self, first: bool) -> float:
        return self.spec.parallel.fork_cycles if first and self.spec.cores > 1 else 0.0

    # --- rows and pictures ----------------------------------------------------------------------------------------------

    def _energy(self, op: Op, work: Work, load: Load, cycles: float, is_matrix: bool, converted: float) -> dict[str, float]:
        """Component → joules."""
        spec, core = self.spec, self.spec.core
        waiting = max(0.0, spec.cores * cycles - work.cycles)
        mac = cast(McuMac, spec.mac_format(*self._pair(op))).energy_pj if is_matrix else 0.0
        return {
            "cores": 1e-12 * (work.cycles * core.energy_pj_per_cycle + waiting * core.idle_energy_pj_per_cycle) + converted,
            "mac": 1e-12 * op.macs * mac,
            "l1": 1e-12 * work.accesses * WORD_BYTES * spec.l1.energy_pj_per_byte,
            "l2": 1e-12 * round(load.l2_bytes) * spec.dma.energy_pj_per_byte,
            "off_chip": 1e-12 * round(load.off_chip_bytes) * spec.off_chip.energy_pj_per_byte,
        }

    def _spans(self, rows: Sequence[OpCost], start: float, length: float) -> list[Span]:
        """Operators one after another on the cores, and the transfers from their start."""
        found = []
        at = start
        for row in rows:
            found.append(Span("cores", row.name, at, row.time_s))
            at += row.time_s
        clock = self.spec.clock_hz
        for track, rate in (("l2", self.spec.dma.bytes_per_cycle * clock), ("off_chip", self.spec.off_chip.achieved_bytes_per_s)):
            moved = sum(row.bytes.get(track, 0) for row in rows)
            if moved:
                found.append(Span(track, rows[0].name, start, min(length, moved / rate), {"bytes": moved}))
        return found


@dataclass(frozen=True)
class _Together:
    """What operators cost that share their tiles: their rows, and those of the tables ``cores`` and ``tiles`` nameless."""

    rows: Sequence[OpCost]
    cores: Sequence[Mapping[str, Any]]
    tiles: Mapping[str, Any]


class _Region:
    """Operators whose slices stay with their cores: a core needs a barrier only before it reads what another wrote."""

    def __init__(self) -> None:
        self.units = 0
        self.made: set[str] = set()

    def enter(self, workload: Workload, ops: Sequence[Op], units: Sequence[int]) -> bool:
        """Whether operators that share their tiles wait at a barrier for those before them; they begin a new region then."""
        stays = self.units == units[0] and follows_in_place(ops[0])
        for position, name in enumerate(ops[0].inputs):
            tensor = workload.tensors[name]
            if tensor.owner in self.made:
                inside = tensor.elements == units[0] and not (isinstance(ops[0], Gather) and position == 0)
                stays = stays and inside
        if not stays:
            self.units, self.made = units[0], set()
        self.made |= {workload.tensors[t].owner for op in ops for t in op.outputs}
        return not stays
