"""A matrix engine beside a vector unit, one buffer and off-chip memory: the frame for machines whose engine has a closed form.

A group of operators (``hwsim.schedule``) takes

    launch + serial + max(engine, transfers, vector unit)        where transfers overlap the work,
    launch + serial + max(engine, vector unit) + transfers       where they do not,

in cycles; ``engine`` and ``serial`` are what the machine says of the matrix operator (``MatrixWork``).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeVar, cast

from hwsim.machine import OperatorMachine
from hwsim.memory import OffChip, Scratchpad
from hwsim.operators import Convolution, Matmul, Normalization, Op, Softmax
from hwsim.report import OpCost, Report, Span, repeated_rows
from hwsim.schedule import Group, Traffic, schedule
from hwsim.spec import MatrixMachineSpec, NotNegative
from hwsim.vector import VectorUnit
from hwsim.views.display import displayed
from hwsim.workload import Workload

IDEAL_MEMORY = "analytic: memory is ideal; bytes are those that must move, and cost no time"


class EngineSpec(MatrixMachineSpec):
    """What the spec of such a machine says besides.

    Attributes:
        buffer: the on-chip buffer that the vector unit works on, and that holds whole tensors between operators.
        vector_unit: for everything that is no matrix product.
        off_chip: memory behind the buffer.
        transfers: ``overlapped``: beside the work of the same group; ``serial``: before and after it.
        launch_overhead_cycles: fixed cycles to start a group of operators.
    """

    buffer: Scratchpad
    vector_unit: VectorUnit
    off_chip: OffChip
    transfers: Literal["overlapped", "serial"] = "overlapped"
    launch_overhead_cycles: NotNegative = 0.0


@displayed
@dataclass(frozen=True)
class MatrixWork:
    """What a matrix operator takes on the engine.

    Attributes:
        compute_cycles: with its operands on chip; what the engine's own memories cost is part of it.
        load_bytes, store_bytes: from and to off-chip memory, each read again as often as the mapping needs.
        peak_macs_per_cycle: MACs that the whole engine could do in a cycle in these formats.
        serial_cycles: cycles that overlap nothing (counted as overhead).
        energy_j: component → joules of the engine and its memories (off-chip, vector unit and static power apart).
        bytes: on-chip memory level → bytes read and written.
        mapping: a row of the report's table ``mapping``.
        prefetched_bytes: those of ``load_bytes`` that arrive beside the work even where transfers are serial.
    """

    compute_cycles: float
    load_bytes: float
    store_bytes: float
    peak_macs_per_cycle: float
    serial_cycles: float = 0.0
    energy_j: Mapping[str, float] = field(default_factory=dict)
    bytes: Mapping[str, int] = field(default_factory=dict)
    mapping: Mapping[str, Any] = field(default_factory=dict)
    prefetched_bytes: float = 0.0


EngineT = TypeVar("EngineT", bound=EngineSpec)


class MatrixEngine(OperatorMachine[EngineT]):
    """A machine of this frame. A subclass says what a matrix operator takes (``matrix_work``) and how it sums
    (``computed_recipe``).

    Fidelities: ``analytic``, memory is ideal; ``tile``, with the transfers of the mapping's tiles.
    """

    fidelities: ClassVar[tuple[str, ...]] = ("analytic", "tile")
    default_fidelity: ClassVar[str] = "tile"

    @abstractmethod
    def matrix_work(self, workload: Workload, op: Matmul | Convolution, pair: tuple[str, str], traffic: Traffic) -> MatrixWork:
        """What ``op`` takes on the engine.

        Args:
            workload: its tensors hold stored formats and densities.
            pair: formats in which the two operands are multiplied.
            traffic: bytes that must move at least; ``load_bytes`` leaves out what is on chip already.

        Operators that differ in nothing but names are asked for once; see ``distinction``.
        """

    def distinction(self, op: Op) -> Hashable:
        """What the cost of ``op`` depends on besides the operator, its tensors and its group, for a machine with such a thing."""
        return None

    def _notes(self, workload: Workload) -> list[str]:
        """What a reader of the report should know of this workload here."""
        return []

    def _simulate(self, workload: Workload, fidelity: str) -> Report:
        spec = self.spec
        placed = workload.expanded()
        plan = schedule(placed, spec.buffer.retained_capacity_bytes)
        off_chip = spec.off_chip.achieved_bytes_per_s
        costs: dict[Hashable, tuple[list[OpCost], MatrixWork | None]] = {}
        rows: dict[int, OpCost] = {}
        spans: list[Span] = []
        mapping: list[dict[str, Any]] = []
        peaks: dict[float, int] = {}
        start = 0.0
        for group, traffic, likeness in zip(plan.groups, plan.traffic, plan.likeness, strict=True):
            members = _in_order(group)
            key = likeness, tuple(self.distinction(placed.ops[index]) for index in members)
            if key not in costs:
                costs[key] = self._group(placed, group, traffic, fidelity)
            first, work = costs[key]
            found = repeated_rows(first, [placed.ops[index] for index in members], start)
            rows.update(zip(members, found, strict=True))
            if work is not None and group.matrix is not None:
                op = placed.ops[group.matrix]
                peaks[work.peak_macs_per_cycle] = peaks.get(work.peak_macs_per_cycle, 0) + op.macs
                mapping.append({"op": op.name, **work.mapping} if work.mapping else {})
            length = sum(row.time_s for row in found)
            spans += self._spans(found, group, start, length, off_chip)
            start += length
        return self.report(
            placed,
            [rows[index] for index in range(len(placed.ops))],
            fidelity=fidelity,
            peak_macs_per_s=(max(peaks, key=lambda peak: peaks[peak]) if peaks else self._default_peak()) * spec.clock_hz,
            offchip_bandwidth_bytes_per_s=spec.off_chip.achieved_bytes_per_s,
            spans=spans,
            tables={"mapping": [row for row in mapping if row]},
            notes=[*([IDEAL_MEMORY] if fidelity == "analytic" else []), *self._notes(placed)],
        )

    def _default_peak(self) -> float:
        """MACs a cycle in the default formats, for a workload without any."""
        from hwsim.workload import chain

        one = self.placed(chain("one", [Matmul(name="one", m=1, n=1, k=1)]))
        op = cast(Matmul, one.ops[0])
        assert op.formats is not None
        pair = self.spec.compute_formats(*op.formats.operands[:2])
        return self.matrix_work(one, op, pair, Traffic(op, 0, 0, 0, 0, 0, 0)).peak_macs_per_cycle

    def _group(
        self, workload: Workload, group: Group, traffic: Mapping[int, Traffic], fidelity: str
    ) -> tuple[list[OpCost], MatrixWork | None]:
        """The rows of one group, in the order of ``_in_order``, as if it began at 0. Each operator's share is what the group
        takes longer for it."""
        spec = self.spec
        latency = spec.off_chip.latency_s * spec.clock_hz
        serial_transfers = spec.transfers == "serial"
        engine = moved = vector = ended = ahead = 0.0
        work: MatrixWork | None = None
        rows: list[OpCost] = []
        for index in _in_order(group):
            op, part = workload.ops[index], traffic[index]
            overhead = spec.launch_overhead_cycles if not rows else 0.0
            energy: dict[str, float] = {}
            levels: dict[str, int] = {}
            if index == group.matrix:
                op = cast(Matmul | Convolution, op)
                assert op.formats is not None
                pair = spec.compute_formats(*op.formats.operands[:2])
                work = self.matrix_work(workload, op, pair, part)
                convert_cycles, convert_energy = self.conversions(workload, op, pair)
                busy = max(work.compute_cycles, convert_cycles / spec.vector_unit.lanes)
                engine += busy
                vector += spec.vector_unit.cycles(op.operations)
                overhead += work.serial_cycles
                load, store = work.load_bytes, work.store_bytes
                energy.update(work.energy_j)
                energy["vector"] = spec.vector_unit.energy_j(op.operations) + convert_energy
                levels.update(work.bytes)
                peak = work.peak_macs_per_cycle
            else:
                busy, load, store, energy, levels = self._vector_work(workload, op, part, index in group.streamed)
                vector += busy
                peak = 0.0
            off_chip = round(load + store)
            pattern = _pattern(3 if index == group.matrix else 2, load, store)
            per_cycle = spec.off_chip.achieved_bytes_per_s_for(**pattern) / spec.clock_hz
            if index == group.matrix and work is not None and fidelity != "analytic":
                ahead = work.prefetched_bytes / per_cycle
            moved += off_chip / per_cycle + (latency if off_chip and not moved else 0.0)
            transfers = moved if fidelity != "analytic" else 0.0
            active = max(engine, vector)
            body = max(active, ahead) + (transfers - ahead) if serial_transfers else max(active, transfers)
            share = body - ended
            compute = min(share, max(0.0, active - ended)) if not serial_transfers else min(share, busy)
            ended = body
            rows.append(
                self.row(
                    op,
                    unit="array" if index == group.matrix else "vector",
                    start_s=0.0,
                    compute_cycles=compute,
                    stall_cycles=share - compute,
                    overhead_cycles=overhead,
                    busy_cycles=busy,
                    energy_j={**energy, "off_chip": spec.off_chip.transfer_energy_j(off_chip, **pattern)},
                    bytes={"off_chip": off_chip, **levels},
                    peak_macs_per_cycle=peak,
                    fused_with=workload.ops[group.matrix].name if index in group.streamed and group.matrix is not None else "",
                )
            )
        return rows, work

    def _vector_work(
        self, workload: Workload, op: Op, part: Traffic, streamed: bool
    ) -> tuple[float, float, float, dict[str, float], dict[str, int]]:
        """(cycles, bytes loaded, bytes stored, energy, bytes in the buffer) of an operator on the vector unit."""
        spec = self.spec
        convert_cycles, convert_energy = self.conversions(workload, op)
        load = part.load_bytes
        if isinstance(op, Softmax | Normalization) and op.operation != "batch_norm" and op.elements:
            row_bytes = part.touched_bytes / 2 / max(1, op.rows)
            if row_bytes > spec.buffer.capacity_bytes:
                load *= 2  # a row that does not fit is read once for its statistics and once more to be scaled
        touched = part.outside_bytes + part.result_bytes if streamed else part.touched_bytes
        cycles = spec.vector_unit.op_cycles(op) + convert_cycles / spec.vector_unit.lanes
        busy = max(cycles, touched / spec.buffer.bytes_per_cycle)
        energy = {
            "vector": spec.vector_unit.energy_j(op.operations) + convert_energy,
            "buffer": touched * spec.buffer.energy_pj_per_byte * 1e-12,
        }
        return busy, load, part.store_bytes, energy, {"buffer": touched}

    def _spans(self, rows: Sequence[OpCost], group: Group, start: float, length: float, off_chip: float) -> list[Span]:
        """The group on the timeline: the engine all along, vector operators up to its end, transfers from its start, at
        ``off_chip`` bytes a second."""
        clock = self.spec.clock_hz
        found: list[Span] = []
        vector = rows
        if group.matrix is not None:
            row, vector = rows[0], rows[1:]
            details = {"macs": row.macs, "utilization": round(row.utilization, 4), "format": row.format}
            found.append(Span("array", row.name, start, length, details))
        busy = [row.busy_cycles / clock for row in vector]
        total = sum(busy)
        scale = min(1.0, length / total) if total > 0 else 1.0
        at = start + length - total * scale
        for row, duration in zip(vector, busy, strict=True):
            found.append(Span("vector", row.name, at, duration * scale))
            at += duration * scale
        moved = sum(row.bytes_offchip for row in rows)
        if moved:
            duration = min(length, moved / off_chip)
            found.append(Span("off_chip", rows[0].name, start, duration, {"bytes": moved}))
        return found


def _in_order(group: Group) -> tuple[int, ...]:
    """A group's operators in the order in which they are charged: what streams is charged what it adds to the product."""
    return (*(() if group.matrix is None else (group.matrix,)), *group.streamed, *group.background)


def _pattern(tensors: int, load: float, store: float) -> dict[str, Any]:
    """How an operator's bytes come and go: the share written, and how many tensors take turns, each in long runs."""
    return {"write_fraction": store / (load + store), "streams": tensors} if load + store > 0 else {}
