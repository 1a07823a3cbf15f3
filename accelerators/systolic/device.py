"""The systolic array as a device: workloads in, reports out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from accelerators.systolic.spec import SystolicSpec
from hwsim._distribution import VERSION
from hwsim.device import check_request, validate_spec
from hwsim.operators import Convolution, Matmul, Normalization, Op, Scan, Softmax
from hwsim.report import OpCost, Report, Span
from hwsim.schedule import Group, Residency, form_groups, plan_residency
from hwsim.workload import Workload
from numerics.errors import InputError, unknown_name
from numerics.formats import get_format
from numerics.recipes import Recipe, get_recipe

if TYPE_CHECKING:
    from torch import nn

    from accelerators.systolic.pipeline import GroupCost, MatrixJob, VectorJob
    from numerics.emulation import Emulation


@cache
def _bits(name: str) -> float:
    return float(get_format(name).bits)


def _format_of(op: Op) -> str:
    """What an operator computes in, for the report: operands and accumulator of a product, the operand's format otherwise."""
    if op.formats is None or not op.formats.operands:
        return ""
    return str(op.formats) if op.is_matrix else op.formats.operands[0]


@dataclass(frozen=True)
class _Part:
    """One operator of a group with what it moves: bytes from and to off-chip memory, all it reads and writes, and, where its
    group hands results on as they come, those that still pass through the buffer of activations."""

    op: Op
    load_bytes: int
    store_bytes: int
    touched_bytes: int
    handed_bytes: int
    outside_bytes: int
    result_bytes: int


class SystolicArray:
    """A systolic array with buffers, off-chip memory and a vector unit.

    Fidelities: ``analytic``, the closed forms with ideal memory; ``tile``, the pipeline of loads, folds and write-backs, tile by
    tile; ``cycle``, that pipeline with the array's control stepped through every cycle. What a module computes, ``emulate`` finds
    from its formats and sums or, with ``fidelity="cycle"``, from every register of every processing element.
    """

    kind: ClassVar[str] = "systolic_array"
    fidelities: ClassVar[tuple[str, ...]] = ("analytic", "tile", "cycle")
    default_fidelity: ClassVar[str] = "tile"

    def __init__(self, spec: SystolicSpec) -> None:
        self._spec = spec

    @property
    def spec(self) -> SystolicSpec:
        """The validated spec."""
        return self._spec

    @property
    def name(self) -> str:
        """Name of the device."""
        return self._spec.name

    def __repr__(self) -> str:
        array = self._spec.array
        return f"SystolicArray({self.name!r}: {array.rows}×{array.columns} {array.dataflow}, {self._spec.clock_hz / 1e6:g} MHz)"

    @classmethod
    def bundled(cls) -> Mapping[str, Path]:
        """Specs of systolic arrays that come with the package."""
        folder = Path(str(resources.files("accelerators") / "specs"))
        return {path.stem: path for path in sorted(folder.glob("*.yaml"))}

    @classmethod
    def from_data(cls, data: Mapping[str, Any], *, source: str) -> SystolicArray:
        """The array that a spec's data describes."""
        return cls(validate_spec(SystolicSpec, data, source=source))

    # --- simulation ---------------------------------------------------------------------------------------------------

    def simulate(
        self,
        workload: Workload,
        *,
        fidelity: str | None = None,
        inputs: Any = None,
        parameters: Any = None,
    ) -> Report:
        """What ``workload`` costs; see ``hwsim.device.Device.simulate``."""
        from accelerators.systolic.pipeline import analytic_costs

        chosen = check_request(self, fidelity, inputs, parameters)
        workload.check_operands()
        spec = self._spec
        placed = workload if workload.recipe else workload.with_formats(spec.default_recipe)
        placed = placed.expanded()
        groups = form_groups(placed)
        kept = plan_residency(placed, groups, spec.memory.input.retained_capacity_bytes)
        jobs = [self._job(placed, group, kept) for group in groups]
        if chosen == "analytic":
            costs = [analytic_costs(spec, matrix, streamed, background) for matrix, streamed, background in jobs]
        else:
            costs = self._run(jobs, stepped=chosen == "cycle")
        return self._report(placed, groups, jobs, costs, chosen)

    def _run(self, jobs: list[tuple[MatrixJob | None, list[VectorJob], list[VectorJob]]], *, stepped: bool) -> list[GroupCost]:
        """Simulate each distinct group once, several at a time; the result does not depend on how many."""
        from accelerators.systolic.pipeline import TilePipeline

        pipeline = TilePipeline(self._spec, stepped=stepped)
        keys = [(m.key if m else None, tuple(s), tuple(b)) for m, s, b in jobs]
        distinct = dict(zip(keys, jobs, strict=True))
        pending = list(distinct)
        done = {}
        if pending:  # the first call compiles the kernels
            done[pending[0]] = pipeline.run(*distinct[pending[0]])
        with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
            done.update(zip(pending[1:], pool.map(lambda key: pipeline.run(*distinct[key]), pending[1:]), strict=True))
        return [done[key] for key in keys]

    # --- emulation ----------------------------------------------------------------------------------------------------

    def emulate(
        self,
        module: nn.Module,
        recipe: str | Recipe | None = None,
        *,
        fidelity: str | None = None,
        example_inputs: Any = None,
        seed: int = 0,
    ) -> Emulation:
        """``module`` as the array computes it; see ``hwsim.device.Device.emulate``.

        Args:
            fidelity: ``cycle`` runs every matrix product on the cycle-level array, whose cycles and activity the emulation's
                ``matrix_unit.products`` then lists; the default gives the same bits faster.
        """
        from accelerators.systolic.emulation import ArrayUnit, emulate

        chosen = self._spec.default_recipe if recipe is None else get_recipe(recipe)
        if fidelity not in (None, *self.fidelities):
            raise unknown_name(f"fidelity (device {self.name!r})", str(fidelity), self.fidelities)
        unit = ArrayUnit(self._spec) if fidelity == "cycle" else None
        return emulate(self._spec, module, chosen, example_inputs=example_inputs, seed=seed, matrix_unit=unit)

    # --- from a group to what the pipeline needs -------------------------------------------------------------------------

    def _part(self, workload: Workload, index: int, members: set[str], kept: Residency, outputs: set[str]) -> _Part:
        """Bytes of one operator: ``members`` are the memories written in its group before it."""
        op = workload.ops[index]
        load = store = touched = handed = outside = result = 0
        for position, name in enumerate(op.inputs):
            if name in op.inputs[:position]:
                continue  # read once, used twice
            owner = workload.tensors[name].owner
            size = workload.read_bytes(op, position)
            touched += size
            if owner in members:
                handed += 0 if owner in kept.kept else size
                continue
            outside += size
            if owner not in kept.kept:
                load += size
        for position, name in enumerate(op.outputs):
            owner = workload.tensors[name].owner
            size = workload.write_bytes(op, position)
            touched += size
            if owner in kept.internal:
                continue
            result += size
            if owner not in kept.kept or owner in outputs:
                store += size
        return _Part(op, load, store, touched, handed, outside, result)

    def _job(
        self, workload: Workload, group: Group, kept: Residency
    ) -> tuple[MatrixJob | None, list[VectorJob], list[VectorJob]]:
        outputs = {workload.tensors[t].owner for t in workload.outputs}
        members: set[str] = set()
        parts: dict[int, _Part] = {}
        for index in group.members:
            parts[index] = self._part(workload, index, members, kept, outputs)
            members |= {workload.tensors[t].owner for t in workload.ops[index].outputs}
        rewritten = self._rewritten(workload, group)
        streamed = [
            self._vector_job(workload, parts[i], row_wise=i in group.row_wise, streamed=True, stored=i not in rewritten)
            for i in group.streamed
        ]
        background = [self._vector_job(workload, parts[i]) for i in group.background]
        if group.matrix is None:
            return None, streamed, background
        return (
            self._matrix_job(workload, parts[group.matrix], kept, group.matrix not in rewritten),
            streamed,
            background,
        )

    @staticmethod
    def _rewritten(workload: Workload, group: Group) -> set[int]:
        """Operators whose results a later one of the group overwrites in place: only the last version is stored."""
        chain = [*([] if group.matrix is None else [group.matrix]), *group.streamed]
        last = {workload.tensors[t].owner: i for i in chain for t in workload.ops[i].outputs}
        return {i for i in chain if all(last[workload.tensors[t].owner] != i for t in workload.ops[i].outputs)}

    def _vector_job(
        self,
        workload: Workload,
        part: _Part,
        *,
        row_wise: bool = False,
        streamed: bool = False,
        stored: bool = True,
    ) -> VectorJob:
        from accelerators.systolic.pipeline import VectorJob

        spec, op = self._spec, part.op
        work = spec.vector_unit.cycles(op.operations)
        if isinstance(op, Scan):
            work = max(work, op.length * spec.vector_unit.scan_step_cycles)
        extra_cycles, extra_energy = self._conversions(workload, op)
        load = part.load_bytes
        if isinstance(op, Softmax | Normalization) and op.operation != "batch_norm" and op.elements:
            row_bytes = part.touched_bytes / 2 / max(1, op.rows)
            if row_bytes > spec.memory.input.capacity_bytes:
                load *= 2  # a row that does not fit is read once for its statistics and once more to be scaled
        return VectorJob(
            work_cycles=work + extra_cycles,
            load_bytes=load,
            store_bytes=part.store_bytes if stored else 0,
            touched_bytes=part.outside_bytes + part.result_bytes * stored if streamed else part.touched_bytes,
            handed_bytes=part.handed_bytes if streamed else 0,
            row_wise=row_wise,
            energy_j=spec.vector_unit.energy_j(op.operations) + extra_energy,
        )

    def _conversions(self, workload: Workload, op: Op, compute: tuple[str, ...] = ()) -> tuple[float, float]:
        """Vector cycles and joules to bring operands from the format they are stored in to the one they are consumed in."""
        cycles = energy = 0.0
        if op.formats is None:
            return cycles, energy
        for position, name in enumerate(op.inputs):
            tensor = workload.tensors[name]
            wanted = compute[position] if position < len(compute) else op.formats.operands[position]
            if tensor.format == wanted:
                continue
            change = f"{tensor.format}->{wanted}"
            if change not in self._spec.conversions:
                raise InputError(
                    f"device {self.name!r}: op {op.name!r} needs tensor {name!r} converted {change}, which the device cannot do "
                    f"(conversions: {', '.join(self._spec.conversions) or 'none'})"
                )
            elements = min(tensor.elements, workload.tensors[tensor.owner].elements)
            conversion = self._spec.conversions[change]
            cycles += elements * conversion.cycles_per_element / self._spec.vector_unit.lanes
            energy += elements * conversion.energy_pj_per_element * 1e-12
        return cycles, energy

    def _matrix_job(self, workload: Workload, part: _Part, kept: Residency, stored: bool) -> MatrixJob:
        from accelerators.systolic.pipeline import MatrixJob

        spec = self._spec
        op = cast(Matmul | Convolution, part.op)
        a, b = (workload.tensors[t] for t in op.inputs[:2])
        assert op.formats is not None
        pair = spec.compute_formats(*op.formats.operands[:2])
        mac = spec.mac_format(*pair)
        assert mac is not None
        convert_cycles, convert_energy = self._conversions(workload, op, pair)
        extra = [
            workload.read_bytes(op, i)
            for i, name in enumerate(op.inputs)
            if i >= 2 and workload.tensors[name].owner not in kept.kept
        ]
        vector_cycles = spec.vector_unit.cycles(op.operations) + convert_cycles
        return MatrixJob(
            op=op,
            a_bytes=_bits(a.format) / 8,
            b_bytes=_bits(b.format) / 8,
            partial_bytes=_bits(op.formats.accumulator) / 8,
            a_resident=a.owner in kept.kept,
            b_resident=b.owner in kept.kept,
            cycles_per_mac=mac.cycles_per_mac,
            mac_energy_j=op.macs * mac.energy_pj * 1e-12,
            vector_cycles=vector_cycles,
            vector_energy_j=spec.vector_unit.energy_j(op.operations) + convert_energy,
            extra_load_bytes=sum(extra),
            store_bytes=part.store_bytes if stored else 0,
            result_bytes=part.result_bytes if stored else 0,
        )

    # --- from costs to the report ---------------------------------------------------------------------------------------

    def _report(
        self,
        workload: Workload,
        groups: list[Group],
        jobs: list[tuple[MatrixJob | None, list[VectorJob], list[VectorJob]]],
        costs: list[GroupCost],
        fidelity: str,
    ) -> Report:
        spec = self._spec
        clock = spec.clock_hz
        peak = spec.array.rows * spec.array.columns
        rows: dict[int, OpCost] = {}
        spans: list[Span] = []
        mapping: list[dict[str, Any]] = []
        start = 0.0
        for group, (matrix, _, _), cost in zip(groups, jobs, costs, strict=True):
            order = [*([] if group.matrix is None else [group.matrix]), *group.streamed, *group.background]
            head = "" if group.matrix is None else workload.ops[group.matrix].name
            fused = group.streamed[: len(group.streamed) - cost.apart]
            placed: dict[int, OpCost] = {}
            for index, part in zip(order, cost.parts, strict=True):
                op = workload.ops[index]
                is_matrix = index == group.matrix
                possible = peak / matrix.cycles_per_mac * part.cycles if is_matrix and matrix else 0.0
                time_s = part.cycles / clock
                energy = {**part.energy_j, "static": spec.static_power_w * time_s}
                placed[index] = OpCost(
                    name=op.name,
                    kind=op.kind,
                    module=op.module,
                    phase=op.phase,
                    format=_format_of(op),
                    unit="array" if is_matrix else "memory" if op.kind in ("unmodelled", "collective") else "vector",
                    macs=op.macs,
                    time_s=time_s,
                    cycles=part.cycles,
                    compute_cycles=part.compute_cycles,
                    stall_cycles=part.stall_cycles,
                    overhead_cycles=part.overhead_cycles,
                    busy_cycles=part.busy_cycles,
                    energy_j=energy,
                    bytes=part.bytes,
                    utilization=op.macs / possible if possible else 0.0,
                    start_s=start,
                    fused_with=head if index in fused else "",
                    modelled=op.kind not in ("unmodelled", "collective"),
                )
            rows |= placed
            if group.matrix is not None and cost.mapping:
                mapping.append({"op": head, **cost.mapping})
            spans += self._spans(placed, group, start, cost.cycles / clock)
            start += cost.cycles / clock
        notes = []
        if any(not row.modelled for row in rows.values()):
            notes.append("operators marked unmodelled are charged only the bytes they read and write")
        if fidelity == "analytic":
            notes.append("analytic: memory is ideal; bytes are those that must move at least once, and cost no time")
        return Report(
            device=spec.name,
            workload=workload.name,
            fidelity=fidelity,
            recipe=workload.recipe,
            clock_hz=clock,
            ops=tuple(rows[index] for index in range(len(workload.ops))),
            peak_macs_per_s=peak * clock / self._usual_mac_cycles(jobs),
            offchip_bandwidth_bytes_per_s=spec.memory.off_chip.achieved_bytes_per_s,
            origin={
                "time": "calibrated" if self._fitted("time") else "predicted",
                "energy": "calibrated" if self._fitted("energy") else "predicted",
            },
            spec=spec.model_dump(mode="json"),
            version=VERSION,
            spans=tuple(spans),
            tables={"mapping": mapping} if mapping else {},
            peak_memory_bytes=dict(workload.peak_memory().by_role),
            notes=tuple(notes),
        )

    def _fitted(self, what: str) -> bool:
        """Whether any fitted field of the spec bears on time or on energy."""
        fields = [f for fit in self._spec.calibrated.values() for f in fit.fields]
        return any(("energy" in f or "power" in f) == (what == "energy") for f in fields)

    @staticmethod
    def _usual_mac_cycles(jobs: list[tuple[MatrixJob | None, list[VectorJob], list[VectorJob]]]) -> int:
        """Cycles a MAC takes in the format of most MACs."""
        work: dict[int, int] = {}
        for matrix, _, _ in jobs:
            if matrix is not None:
                work[matrix.cycles_per_mac] = work.get(matrix.cycles_per_mac, 0) + matrix.op.macs
        return max(work, key=lambda c: work[c]) if work else 1

    def _spans(self, placed: dict[int, OpCost], group: Group, start: float, length: float) -> list[Span]:
        """The group on the timeline: the array all along, streamed operators up to its end, background ones from its start."""
        clock = self._spec.clock_hz
        found: list[Span] = []
        moved = sum(row.bytes_offchip for row in placed.values())
        label = placed[group.matrix].name if group.matrix is not None else placed[group.members[0]].name
        if group.matrix is not None:
            row = placed[group.matrix]
            details = {"macs": row.macs, "utilization": round(row.utilization, 4), "format": row.format}
            found.append(Span("array", row.name, start, length, details))
        busy = [min(placed[i].busy_cycles / clock, length) for i in group.streamed]
        scale = min(1.0, length / sum(busy)) if sum(busy) > 0 else 1.0
        at = start + length - sum(busy) * scale
        for index, duration in zip(group.streamed, busy, strict=True):
            found.append(Span("vector", placed[index].name, at, duration * scale))
            at += duration * scale
        busy = [min(placed[i].busy_cycles / clock, length) for i in group.background]
        scale = min(1.0, length / sum(busy)) if sum(busy) > 0 else 1.0
        at = start
        track = "vector" if group.matrix is None else "vector, background"
        for index, duration in zip(group.background, busy, strict=True):
            found.append(Span(track, placed[index].name, at, duration * scale))
            at += duration * scale
        if moved:
            duration = min(length, moved / self._spec.memory.off_chip.achieved_bytes_per_s)
            found.append(Span("off_chip", label, start, duration, {"bytes": moved}))
        return found
