"""The systolic array as a device: workloads in, reports out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np

from accelerators.systolic.spec import SystolicSpec
from hwsim.device import check_request
from hwsim.machine import Fittable, OperatorMachine, format_bytes
from hwsim.operators import Convolution, Matmul, Normalization, Op, Softmax
from hwsim.report import OpCost, Report, Span
from hwsim.schedule import Group, Residency, Traffic, group_traffic, schedule
from hwsim.workload import Tensor, Workload, chain
from numerics.errors import unknown_name
from numerics.recipes import Recipe, get_recipe

if TYPE_CHECKING:
    from torch import nn

    from accelerators.systolic.jobs import GroupCost, MatrixJob, VectorJob
    from accelerators.systolic.variants import Variants
    from hwsim.area.components import Area
    from hwsim.area.process import Process
    from hwsim.costs import Costs
    from numerics.emulation import Emulation

    Jobs = tuple[MatrixJob | None, list[VectorJob], list[VectorJob]]


class SystolicArray(OperatorMachine[SystolicSpec]):
    """A systolic array with buffers, off-chip memory and a vector unit.

    Fidelities: ``analytic``, the closed forms with ideal memory; ``tile``, the pipeline of loads, folds and write-backs, tile by
    tile, or, where the spec has a ``kernel``, the windows that a compiler's kernels move; ``cycle``, the same with the array's
    control stepped through every cycle. What a module computes, ``emulate`` finds from its formats and sums or, with
    ``fidelity="cycle"``, from every register of every processing element.
    """

    kind: ClassVar[str] = "systolic_array"
    spec_class = SystolicSpec
    fidelities: ClassVar[tuple[str, ...]] = ("analytic", "tile", "cycle")
    default_fidelity: ClassVar[str] = "tile"
    fittable: ClassVar[Mapping[str, Fittable]] = {
        "matmul": Fittable(
            ("matmul",),
            {
                "launch_overhead_cycles": (0.0, 5000.0),
                "memory.off_chip.achieved_fraction": (0.5, 1.0),
                "array.streaming_fraction": (0.2, 1.0),
                "kernel.window": (256.0, 4096.0),
                "kernel.store_fraction": (0.4, 1.0),
            },
        ),
    }

    def __repr__(self) -> str:
        array = self._spec.array
        size = f"{array.count}×" * (array.count > 1) + f"{array.rows}×{array.columns}"
        return f"SystolicArray({self.name!r}: {size} {array.dataflow}, {self._spec.clock_hz / 1e6:g} MHz)"

    def _area(self, process: Process) -> Area:
        from accelerators.systolic.area import device_area

        return device_area(self.name, self._spec, process)

    # --- simulation ---------------------------------------------------------------------------------------------------

    def _simulate(self, workload: Workload, fidelity: str) -> Report:
        placed = workload.expanded()
        plan = schedule(placed, self._spec.memory.input.retained_capacity_bytes)
        alike: dict[int, Jobs] = {}
        for number, group, traffic in zip(plan.likeness, plan.groups, plan.traffic, strict=True):
            if number not in alike:
                alike[number] = self._job(placed, group, traffic, plan.residency)
        costs = dict(zip(alike, self._costs(list(alike.values()), fidelity), strict=True))
        jobs = [alike[number] for number in plan.likeness]
        return self._report(placed, plan.groups, jobs, [costs[number] for number in plan.likeness], fidelity)

    def _costs(self, jobs: list[Jobs], fidelity: str) -> list[GroupCost]:
        """Cost of each group: each distinct one once, several at a time; the result does not depend on how many."""
        if fidelity == "analytic":
            from accelerators.systolic.ideal import analytic_costs

            return [analytic_costs(self._spec, matrix, streamed, background) for matrix, streamed, background in jobs]
        from accelerators.systolic.pipeline import TilePipeline

        pipeline = TilePipeline(self._spec, stepped=fidelity == "cycle")
        keys = [(m.key if m else None, tuple(s), tuple(b)) for m, s, b in jobs]
        distinct = dict(zip(keys, jobs, strict=True))
        pending = list(distinct)
        done = {}
        if pending:  # the first call compiles the kernels
            done[pending[0]] = pipeline.run(*distinct[pending[0]])
        with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
            done.update(zip(pending[1:], pool.map(lambda key: pipeline.run(*distinct[key]), pending[1:]), strict=True))
        return [done[key] for key in keys]

    def _matmul_times(
        self, shapes: np.ndarray[Any, Any], recipe: str | Recipe | None, fidelity: str | None
    ) -> np.ndarray[Any, np.dtype[np.float64]]:
        chosen = check_request(self, fidelity, None, None)
        spec = self._spec
        windows = spec.kernel is not None and spec.host_link is None and chosen == "tile"
        if spec.array.group_packing == "none" and (windows or chosen == "analytic"):
            return self._closed_times(shapes, recipe, windows=windows)
        jobs = [self._matmul_job(batch, m, n, k, recipe) for batch, m, n, k in shapes.tolist()]
        costs = self._costs(jobs, chosen)
        return np.array([sum(part.cycles for part in cost.parts) for cost in costs]) / spec.clock_hz

    def _matmul_job(self, batch: int, m: int, n: int, k: int, recipe: str | Recipe | None) -> Jobs:
        workload = chain("matmul", [Matmul(name="matmul", batch=batch, m=m, n=n, k=k)])
        placed = self.placed(workload if recipe is None else workload.with_formats(recipe))
        return self._alone(placed)

    def _closed_times(
        self, shapes: np.ndarray[Any, Any], recipe: str | Recipe | None, *, windows: bool
    ) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Many matmuls at once, where a closed form gives each one's cycles; formats are those of a smallest one."""
        from accelerators.systolic.ideal import arrays_time, buffer_elements
        from accelerators.systolic.windows import Sizes, matmul_cycles
        from numerics.formats import get_format

        spec = self._spec
        workload = chain("matmul", [Matmul(name="matmul", m=1, n=1, k=1)])
        placed = self.placed(workload if recipe is None else workload.with_formats(recipe))
        job = self._alone(placed)[0]
        assert job is not None
        batch, m, n, k = shapes.T
        a, b = batch * m * k, batch * k * n
        pair = spec.compute_formats(*cast(Any, job.op.formats).operands[:2])
        lanes = spec.vector_unit.lanes
        vector = sum(
            elements * self._conversion_cycles(placed, job.op, position, wanted)
            for position, (elements, wanted) in enumerate(zip((a, b), pair, strict=True))
        )
        vector = np.asarray(vector, dtype=float) / lanes
        if not windows:
            cycles = np.maximum(arrays_time(spec.array, m, n, k, batch, job.cycles_per_mac).cycles, vector)
            return (cycles + spec.launch_overhead_cycles) / spec.clock_hz
        stored = get_format(placed.tensors[job.op.outputs[0]].format)
        store = np.array([stored.storage_bytes(elements) for elements in (batch * m * n).tolist()])
        read_a, read_b, sums = buffer_elements(spec.array, m, n, k, batch)
        buffers = read_a * job.a_bytes + store, read_b * job.b_bytes, sums * job.partial_bytes
        sizes = Sizes(batch, m, n, k, a * job.a_bytes, b * job.b_bytes, 0, store, buffers)
        cycles, ideal = matmul_cycles(spec, sizes, job.partial_bytes, job.cycles_per_mac, vector)
        return (ideal + (cycles - ideal) + spec.launch_overhead_cycles) / spec.clock_hz  # rounded as in a report

    def _conversion_cycles(self, workload: Workload, op: Op, position: int, wanted: str) -> float:
        stored = workload.tensors[op.inputs[position]].format
        return 0.0 if stored == wanted else self._spec.conversions[f"{stored}->{wanted}"].cycles_per_element

    @cached_property
    def variants(self) -> Variants:
        """Reads changes of this spec."""
        from accelerators.systolic.variants import Variants

        return Variants(self._spec)

    def _costs_of_changes(self, workload: Workload, changes: Sequence[Mapping[str, Any]], fidelity: str) -> Costs:
        from accelerators.systolic.many import costs_of_changes

        return costs_of_changes(self, workload, changes, fidelity)

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

    def computed_recipe(self, recipe: Recipe) -> Recipe:
        """The recipe as the array computes it; see ``hwsim.machine.OperatorMachine.computed_recipe``."""
        from accelerators.systolic.emulation import array_recipe

        return array_recipe(self._spec, recipe)

    # --- from a group to what the pipeline needs -------------------------------------------------------------------------

    def _alone(self, workload: Workload) -> Jobs:
        """The one operator of a workload, nothing of it on chip."""
        group, kept = Group(0), Residency(frozenset(), frozenset())
        return self._job(workload, group, group_traffic(workload, group, kept), kept)

    def _job(self, workload: Workload, group: Group, parts: Mapping[int, Traffic], kept: Residency) -> Jobs:
        streamed = [self._vector_job(workload, parts[i], row_wise=i in group.row_wise, streamed=True) for i in group.streamed]
        background = [self._vector_job(workload, parts[i]) for i in group.background]
        if group.matrix is None:
            return None, streamed, background
        return self.matrix_job(workload, parts[group.matrix], kept), streamed, background

    def _vector_job(self, workload: Workload, part: Traffic, *, row_wise: bool = False, streamed: bool = False) -> VectorJob:
        spec, op = self._spec, part.op
        extra_cycles, extra_energy = self.conversions(workload, op)
        job = self.vector_bytes(workload, part, row_wise=row_wise, streamed=streamed)
        # A row that does not fit is read once for its statistics and once more to be scaled.
        again = 2 if row_bytes(part) > spec.memory.input.capacity_bytes else 1
        return replace(
            job,
            work_cycles=spec.vector_unit.op_cycles(op) + extra_cycles / spec.vector_unit.lanes,
            load_bytes=job.load_bytes * again,
            energy_j=spec.vector_unit.energy_j(op.operations) + extra_energy,
        )

    def vector_bytes(self, workload: Workload, part: Traffic, *, row_wise: bool, streamed: bool) -> VectorJob:
        """What a vector operator moves, before its work is known, and where its rows fit the buffer of activations."""
        from accelerators.systolic.jobs import VectorJob

        read, written = self._host_bytes(workload, part)
        return VectorJob(
            work_cycles=0.0,
            load_bytes=part.load_bytes - read,
            store_bytes=part.store_bytes - written,
            touched_bytes=part.outside_bytes + part.result_bytes if streamed else part.touched_bytes,
            handed_bytes=part.handed_bytes if streamed else 0,
            row_wise=row_wise,
            energy_j=0.0,
            host_bytes=read + written,
        )

    def _from_host(self, tensor: Tensor) -> bool:
        """Whether a tensor is handed over by the host."""
        return self._spec.host_link is not None and tensor.role == "input"

    def _host_bytes(self, workload: Workload, part: Traffic) -> tuple[int, int]:
        """Bytes of an operator that come from the host, and that go there."""
        op = part.op
        if self._spec.host_link is None:
            return 0, 0
        read = sum(
            workload.read_bytes(op, position)
            for position, name in enumerate(op.inputs)
            if name not in op.inputs[:position] and self._from_host(workload.tensors[workload.tensors[name].owner])
        )
        results = {workload.tensors[name].owner for name in workload.outputs}
        written = sum(
            workload.write_bytes(op, position)
            for position, name in enumerate(op.outputs)
            if workload.tensors[name].owner in results
        )
        return read, min(written, part.store_bytes)

    def matrix_job(self, workload: Workload, part: Traffic, kept: Residency) -> MatrixJob:
        """What a matmul or convolution asks of the array, ``kept`` being what stays on chip.

        Raises:
            InputError: formats that the array neither multiplies nor converts.
        """
        from accelerators.systolic.jobs import MatrixJob

        spec = self._spec
        op = cast(Matmul | Convolution, part.op)
        a, b = (workload.tensors[t] for t in op.inputs[:2])
        assert op.formats is not None
        pair = spec.compute_formats(*op.formats.operands[:2])
        mac = spec.mac_format(*pair)
        assert mac is not None
        convert_cycles, convert_energy = self.conversions(workload, op, pair)
        extra = [
            workload.read_bytes(op, i)
            for i, name in enumerate(op.inputs)
            if i >= 2
            and workload.tensors[name].owner not in kept.kept
            and not self._from_host(workload.tensors[workload.tensors[name].owner])
        ]
        read, written = self._host_bytes(workload, part)
        vector_cycles = spec.vector_unit.cycles(op.operations) + convert_cycles / spec.vector_unit.lanes
        return MatrixJob(
            op=op,
            a_bytes=format_bytes(a.format),
            b_bytes=format_bytes(b.format),
            partial_bytes=format_bytes(op.formats.accumulator),
            a_resident=a.owner in kept.kept or self._from_host(workload.tensors[a.owner]),
            b_resident=b.owner in kept.kept or self._from_host(workload.tensors[b.owner]),
            cycles_per_mac=mac.cycles_per_mac,
            mac_energy_j=op.macs * mac.energy_pj * 1e-12,
            vector_cycles=vector_cycles,
            vector_energy_j=spec.vector_unit.energy_j(op.operations) + convert_energy,
            extra_load_bytes=sum(extra),
            store_bytes=part.store_bytes - written,
            result_bytes=part.result_bytes,
            host_bytes=read + written,
        )

    # --- from costs to the report ---------------------------------------------------------------------------------------

    def _report(
        self,
        workload: Workload,
        groups: Sequence[Group],
        jobs: list[Jobs],
        costs: list[GroupCost],
        fidelity: str,
    ) -> Report:
        spec = self._spec
        clock = spec.clock_hz
        peak = spec.array.places
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
                placed[index] = self.row(
                    op,
                    unit="array" if is_matrix else "vector",
                    start_s=start,
                    compute_cycles=part.compute_cycles,
                    stall_cycles=part.stall_cycles,
                    overhead_cycles=part.overhead_cycles,
                    busy_cycles=part.busy_cycles,
                    energy_j=part.energy_j,
                    bytes=part.bytes,
                    peak_macs_per_cycle=peak / matrix.cycles_per_mac if is_matrix and matrix else 0.0,
                    fused_with=head if index in fused else "",
                )
            rows |= placed
            if group.matrix is not None and cost.mapping:
                mapping.append({"op": head, **cost.mapping})
            spans += self._spans(placed, group, start, cost.cycles / clock)
            start += cost.cycles / clock
        ideal = "analytic: memory is ideal; bytes are those that must move at least once, and cost no time"
        return self.report(
            workload,
            [rows[index] for index in range(len(workload.ops))],
            fidelity=fidelity,
            peak_macs_per_s=peak * clock / self._usual_mac_cycles(jobs),
            offchip_bandwidth_bytes_per_s=spec.memory.off_chip.achieved_bytes_per_s,
            spans=spans,
            tables={"mapping": mapping, "cycle_split": _cycle_split(costs)},
            notes=[ideal] if fidelity == "analytic" else [],
        )

    @staticmethod
    def _usual_mac_cycles(jobs: list[Jobs]) -> float:
        """Cycles a MAC takes in the format of most MACs."""
        work: dict[float, int] = {}
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


def row_bytes(part: Traffic) -> float:
    """Bytes of one row of an operator that reads its rows twice where they are not kept; 0 for others."""
    op = part.op
    if not isinstance(op, Softmax | Normalization) or op.operation == "batch_norm" or not op.elements:
        return 0.0
    return part.touched_bytes / 2 / max(1, op.rows)


def _cycle_split(costs: list[GroupCost]) -> list[dict[str, Any]]:
    """All cycles in the four parts of table 3 of Jouppi et al., ISCA 2017: the array streams operands; it waits for the operand
    that it loads; it loads it, and nothing streams; the rest."""
    total = sum(cost.cycles for cost in costs)
    parts = {
        "array_active": sum(cost.array.active for cost in costs),
        "weight_stall": sum(cost.array.load_wait for cost in costs),
        "weight_shift": sum(cost.array.load_shown for cost in costs),
    }
    parts["non_matrix"] = max(0.0, total - sum(parts.values()))
    return [{"part": part, "cycles": n, "percent": 100 * n / total} for part, n in parts.items()] if total else []
