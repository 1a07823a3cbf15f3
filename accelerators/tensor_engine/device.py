"""The tensor engine as a device: workloads in, reports out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np

from accelerators.tensor_engine.spec import KernelSpec, TensorEngineSpec
from hwsim.machine import Fittable, OperatorMachine, format_bytes
from hwsim.operators import Attention, Convolution, Matmul, Op
from hwsim.report import OpCost, Report, Span
from hwsim.schedule import Group, Residency, Schedule, Traffic, form_groups, schedule
from hwsim.workload import Workload, chain
from numerics.errors import unknown_name
from numerics.recipes import Recipe, get_recipe

if TYPE_CHECKING:
    from torch import nn

    from accelerators.tensor_engine.matmul import Job, Product, TileSearch, Work
    from hwsim.area.components import Area
    from hwsim.area.process import Process

ROOFLINE = (
    "analytic: MACs over the peak, bytes that must move over the data sheet's bandwidth, primitive operations over the lanes; "
    "nothing to start an operator"
)
PRUNED = "weights of density ≤ {density:g} count as pruned {n}:{m} (sparsity.enabled)"


_CALL = (5e-6, 100e-6)
_OVERLAPPED = {"launch_interval_s": _CALL, "exposed_fraction": (0.3, 1.0)}
_STREAMED = (0.6, 0.95)
"""Ranges: the host's time for a call, what of it is exposed, the share of the off-chip bandwidth that streaming reaches."""


def kernel_fit(name: str, operators: tuple[str, ...], more: Mapping[str, tuple[float, float]]) -> Fittable:
    """A fit of fields of one entry of ``kernels``."""
    return Fittable(operators, {f"kernels.{name}.{field}": bounds for field, bounds in more.items()})


FITTABLE: Mapping[str, Fittable] = {
    "matmul": Fittable(
        ("matmul",),
        {
            "kernels.matmul.launch_interval_s": _CALL,
            "matrix.efficiency": (0.3, 1.0),
            "memory.l2.achieved_fraction": (0.3, 1.0),
        },
    ),
    "softmax": kernel_fit(
        "softmax", ("softmax",), {"launch_interval_s": _CALL, "bandwidth_fraction": _STREAMED, "reread_fraction": (0.1, 1.0)}
    ),
    "layer_norm": kernel_fit("layer_norm", ("layer_norm",), {**_OVERLAPPED, "bandwidth_fraction": _STREAMED}),
    "gelu": kernel_fit("gelu", ("gelu",), {**_OVERLAPPED, "bandwidth_fraction": _STREAMED}),
    "elementwise": kernel_fit(
        "elementwise", ("relu", "silu", "add", "multiply"), {**_OVERLAPPED, "bandwidth_fraction": _STREAMED}
    ),
    "convolution": kernel_fit("convolution", ("convolution",), {"launch_interval_s": _CALL}),
    "attention": Fittable(("attention",), {"kernels.attention.launch_interval_s": _CALL, "attention.efficiency": (0.2, 1.0)}),
}
"""What measurements of single operators determine."""


LAUNCHES = {
    "waited": "launch.mode waited: the host waits for each operator, as when kernels are measured one by one",
    "queued": "launch.mode queued: the host runs ahead of the device",
    "graph": "launch.mode graph: recorded once, started as a whole",
}
FUSIONS = {
    "none": "; fusion none: a kernel for each operator, as PyTorch runs without a compiler",
    "epilogue": "; fusion epilogue: elementwise operators run in the kernel before them",
}
"""Notes of a report: what it assumes of the software."""


@dataclass(frozen=True)
class _Kernel:
    """Operators that run in one kernel.

    Attributes:
        head: index of the operator that names it.
        fused: elementwise operators on its results.
        spec: how it is run.
    """

    head: int
    fused: tuple[int, ...]
    spec: KernelSpec


class TensorEngine(OperatorMachine[TensorEngineSpec]):
    """Many equal units with matrix units, vector lanes and memories of their own, behind a shared L2 and off-chip memory.

    Fidelities: ``analytic``, the roofline of the data sheet; ``tile``, with tiles and waves, transfers at each level, launches
    and the clock under the limit of power.
    """

    kind: ClassVar[str] = "tensor_engine"
    spec_class = TensorEngineSpec
    fidelities: ClassVar[tuple[str, ...]] = ("analytic", "tile")
    default_fidelity: ClassVar[str] = "tile"
    fittable: ClassVar[Mapping[str, Fittable]] = FITTABLE

    def __init__(self, spec: TensorEngineSpec) -> None:
        super().__init__(spec)
        self._kernel_of: dict[tuple[str, ...], KernelSpec] = {}

    @cached_property
    def _search(self) -> TileSearch:
        from accelerators.tensor_engine.matmul import TileSearch

        return TileSearch(self._spec)

    def _area(self, process: Process) -> Area:
        from accelerators.tensor_engine.area import device_area

        return device_area(self.name, self._spec, process)

    # --- formats and kernels ------------------------------------------------------------------------------------------

    def kernel(self, op: Op) -> KernelSpec:
        """How an operator is run: what ``kernels`` says of its operation, then of its kind, then by default."""
        names = (getattr(op, "operation", ""), op.kind, "matmul" if op.is_matrix else "", "default")
        if names not in self._kernel_of:
            given = [self._spec.kernels[name] for name in dict.fromkeys(names) if name in self._spec.kernels]
            merged = {
                field: next((v for k in given if (v := getattr(k, field)) is not None), None) for field in KernelSpec.model_fields
            }
            self._kernel_of[names] = KernelSpec(**merged)
        return self._kernel_of[names]

    def _product(self, workload: Workload, op: Matmul | Convolution | Attention, stored: Sequence[str]) -> Product:
        """What the tile search needs to know of a product; ``stored`` are the operands' formats as it reads them."""
        from accelerators.tensor_engine.emulation import sums_in
        from accelerators.tensor_engine.matmul import Product

        spec = self._spec
        assert op.formats is not None
        wanted = op.formats.operands
        if isinstance(op, Attention):
            first = 0 if op.computes == "output" else 1
            wanted = wanted[first:]
        pair = spec.compute_formats(*wanted[:2])
        mac = spec.mac_format(*pair)
        sums_in(spec, mac, pair, op.formats.accumulator)
        widen = []
        for name, used in zip(stored, pair, strict=True):
            change = spec.conversions[f"{name}->{used}"] if name != used else None
            widen.append((change.cycles_per_element, change.energy_pj_per_element) if change else (0.0, 0.0))
        return Product(
            name=op.name,
            kernel=self.kernel(op),
            mac=mac,
            pair=pair,
            stored=(stored[0], stored[1]),
            result=workload.tensors[op.outputs[0]].format,
            sums=op.formats.accumulator,
            widen=(widen[0], widen[1]),
            sparse=self._pruned(workload, op, pair),
        )

    def _pruned(self, workload: Workload, op: Op, pair: tuple[str, str]) -> bool:
        sparsity = self._spec.sparsity
        if not sparsity.enabled or isinstance(op, Attention):
            return False
        weight = workload.tensors[op.inputs[1]]
        name = pair[0] if pair[0] == pair[1] else "*".join(pair)
        fits = weight.density is not None and weight.density <= sparsity.density
        return fits and weight.role == "weight" and name in sparsity.formats

    # --- simulation ---------------------------------------------------------------------------------------------------

    def _simulate(self, workload: Workload, fidelity: str) -> Report:
        placed = workload.expanded(attention=self._spec.attention.kernel == "unfused")
        grouping = _with_epilogues if self._spec.fusion == "epilogue" else _one_by_one
        plan = schedule(placed, self._spec.memory.l2.retained_capacity_bytes, grouping=grouping)
        heads = [group.background[0] if group.matrix is None else group.matrix for group in plan.groups]
        kernels = [_Kernel(i, g.streamed, self.kernel(placed.ops[i])) for i, g in zip(heads, plan.groups, strict=True)]
        works = self._works(placed, kernels, plan)
        return self._report(placed, kernels, works, plan.traffic, fidelity)

    def _works(self, workload: Workload, kernels: Sequence[_Kernel], plan: Schedule) -> list[Work]:
        """What each kernel takes, those alike once; matrix products are searched together."""
        from accelerators.tensor_engine.streaming import attention_work, streaming_work

        spec = self._spec
        known: dict[int, Work] = {}
        products: dict[int, _Kernel] = {}
        jobs: list[Job] = []
        for kernel, traffic, alike in zip(kernels, plan.traffic, plan.likeness, strict=True):
            op = workload.ops[kernel.head]
            if alike in known or alike in products:
                continue
            if isinstance(op, Matmul | Convolution):
                products[alike] = kernel
                jobs.append(self._job(workload, op, kernel, traffic, plan.residency))
                continue
            part = _whole(traffic[kernel.head], [traffic[i] for i in kernel.fused])
            change = self.conversions(workload, op)
            if isinstance(op, Attention):
                product = self._attention_product(workload, op)
                work = attention_work(spec, workload, op, part, kernel.spec, product, change)
            else:
                work = streaming_work(spec, workload, op, part, kernel.spec, change)
            known[alike] = self._with_extras(workload, kernel, work, plan.residency)
        for (alike, kernel), work in zip(products.items(), self._search.run(jobs), strict=True):
            known[alike] = self._with_extras(workload, kernel, work, plan.residency)
        return [known[alike] for alike in plan.likeness]

    def _attention_product(self, workload: Workload, op: Attention) -> Product:
        first = 0 if op.computes == "output" else 1
        assert op.formats is not None
        pair = self._spec.compute_formats(*op.formats.operands[first : first + 2])
        return self._product(workload, op, pair)

    def _job(
        self, workload: Workload, op: Matmul | Convolution, kernel: _Kernel, traffic: Mapping[int, Traffic], kept: Residency
    ) -> Job:
        """The job of a product: its operands as they are read, and what moves beside them.

        An operand stored in another format than it is consumed in is converted beforehand (``_quantised``) and read as such; one
        that the engine does not multiply as it is, is widened tile by tile.
        """
        from accelerators.tensor_engine.matmul import Job

        assert op.formats is not None
        a, b = (workload.tensors[name] for name in op.inputs[:2])
        consumed = op.formats.operands[:2]
        product = self._product(workload, op, consumed)
        operands = []
        for position, tensor in enumerate((a, b)):
            elements = min(tensor.elements, workload.tensors[tensor.owner].elements)
            size = math.ceil(elements * format_bytes(consumed[position])) if tensor.format != consumed[position] else None
            size = workload.read_bytes(op, position) if size is None else size
            again = position == 1 and op.inputs[1] == op.inputs[0]
            operands.append(0.0 if again or tensor.owner in kept.kept else float(size))
        if product.sparse:
            from accelerators.tensor_engine.matmul import compressed

            operands[1] *= compressed(self._spec, product.stored[1])
        own = traffic[kernel.head]
        beside = sum(
            workload.read_bytes(op, i)
            for i, name in enumerate(op.inputs)
            if i >= 2 and name not in op.inputs[:i] and workload.tensors[name].owner not in kept.kept
        )
        others = [traffic[i] for i in kernel.fused]
        shape = op.matmul_dims if isinstance(op, Convolution) else (op.batch, op.m, op.n, op.k)
        lane = sum(self._spec.vector_unit.cycles(workload.ops[i].operations) for i in (kernel.head, *kernel.fused))
        lane += sum(self.conversions(workload, workload.ops[i])[0] for i in kernel.fused) / self._spec.vector_unit.lanes
        return Job(
            product=product,
            shape=shape,
            operand_bytes=(operands[0], operands[1]),
            other_bytes=float(beside + own.store_bytes + sum(t.load_bytes + t.store_bytes for t in others)),
            touched_bytes=float(own.touched_bytes + sum(t.outside_bytes + t.result_bytes for t in others)),
            vector_cycles=lane,
            direct=isinstance(op, Convolution) and op.groups > 1,
            inside=inside_padding(op) if isinstance(op, Convolution) and kernel.spec.skips_padding else 1.0,
        )

    def _with_extras(self, workload: Workload, kernel: _Kernel, work: Work, kept: Residency) -> Work:
        """A product's work with the lanes' energy of what runs in its kernel, and the conversion of its operands before it."""
        op = workload.ops[kernel.head]
        product = isinstance(op, Matmul | Convolution)
        members = (kernel.head, *kernel.fused) if product else kernel.fused
        unit = self._spec.vector_unit
        joules = sum(unit.energy_j(workload.ops[i].operations) for i in members)
        joules += sum(self.conversions(workload, workload.ops[i])[1] for i in kernel.fused)
        if joules:
            work = replace(work, energy_j={**work.energy_j, "vector": work.energy_j.get("vector", 0.0) + joules})
        return self._quantised(workload, op, work, kernel.spec, kept) if isinstance(op, Matmul | Convolution) else work

    def _quantised(self, workload: Workload, op: Matmul | Convolution, work: Work, kernel: KernelSpec, kept: Residency) -> Work:
        """A product behind the conversion of operands stored in other formats than it consumes: read, converted, written.

        What lies in L2 stays there, its copy as well.
        """
        from accelerators.tensor_engine.matmul import off_chip_rates

        assert op.formats is not None
        changed = [i for i in (0, 1) if workload.tensors[op.inputs[i]].format != op.formats.operands[i]]
        if not changed:
            return work
        spec, memory = self._spec, self._spec.memory
        cycles, joules = self.conversions(workload, op)
        moved = touched = 0
        for i in changed:
            tensor = workload.tensors[op.inputs[i]]
            elements = min(tensor.elements, workload.tensors[tensor.owner].elements)
            size = workload.read_bytes(op, i) + math.ceil(elements * format_bytes(op.formats.operands[i]))
            touched += size
            moved += 0 if tensor.owner in kept.kept else size
        rate, unit_rate = off_chip_rates(spec, kernel)
        vector_s = cycles / spec.vector_unit.lanes / spec.clock_hz
        l2_s = touched / (memory.l2.bytes_per_cycle * memory.l2.achieved_fraction * spec.clock_hz)
        longer = max(vector_s, moved / min(rate, spec.units * unit_rate), l2_s)
        energy = dict(work.energy_j)
        energy["vector"] += joules
        energy["off_chip"] += moved * memory.off_chip.energy_pj_per_byte * 1e-12
        energy["l2"] += touched * memory.l2.energy_pj_per_byte * 1e-12
        levels = {**work.bytes, "off_chip": work.bytes["off_chip"] + moved, "l2": work.bytes["l2"] + touched}
        return replace(
            work, work_s=work.work_s + longer, compute_s=work.compute_s + vector_s, bytes=levels, energy_j=energy
        )  # fmt: skip

    # --- many matmuls at once -----------------------------------------------------------------------------------------

    def _matmul_times(
        self, shapes: np.ndarray[Any, Any], recipe: str | Recipe | None, fidelity: str | None
    ) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Seconds for each row (batch, m, n, k): the search that ``simulate`` runs, on all of them."""
        from accelerators.tensor_engine import _kernels as kernels
        from numerics.formats import get_format

        chosen = fidelity or self.default_fidelity
        if chosen not in self.fidelities:
            raise unknown_name(f"fidelity (device {self.name!r})", chosen, self.fidelities)
        op = Matmul(name="matmul", batch=1, m=1, n=1, k=1)
        one = chain("matmul", [op])
        workload = one.with_formats(self._spec.default_recipe if recipe is None else recipe)
        op = cast(Matmul, workload.ops[0])
        tensors = [workload.tensors[name] for name in (*op.inputs, *op.outputs)]
        assert op.formats is not None
        sizes = shapes.astype(np.int64)
        batch, m, n, k = sizes.T
        counts = (batch * m * k, batch * k * n, batch * m * n)
        stored = [
            np.array([get_format(t.format).storage_bytes(int(e)) for e in count], dtype=np.float64)
            for t, count in zip(tensors, counts, strict=True)
        ]
        if [t.format for t in tensors[:2]] != list(op.formats.operands[:2]):
            return super()._matmul_times(shapes, recipe, fidelity)
        product = self._product(workload, op, op.formats.operands[:2])
        touched = stored[0] + stored[1] + stored[2]
        clock = self._spec.clock_hz
        if chosen == "analytic":
            macs = sizes.astype(np.float64).prod(axis=1)
            compute = macs / (self._spec.units * product.mac.macs_per_cycle)
            transfer = touched / self._spec.memory.off_chip.bandwidth_bytes_per_s * clock
            return np.asarray((compute + np.maximum(0.0, transfer - compute)) / clock)
        rows = self._search.rows(product, sizes.astype(np.float64), np.stack(stored[:2], axis=1), stored[2], touched)
        found = self._search.search(product, rows)
        work = found[:, kernels.WORK_S]
        # The parts and their sum as in a report's row, to the last bit.
        compute = np.minimum(found[:, kernels.UNIT_CYCLES] / found[:, kernels.RUN_CLOCK], work) * clock
        stall = np.maximum(0.0, work * clock - compute)
        overhead = np.maximum(0.0, self._alone(product.kernel, work) * clock - compute - stall)
        return np.asarray((compute + stall + overhead) / clock)

    def _alone(self, kernel: KernelSpec, work: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Seconds of operators that run alone, from their kernels' work."""
        launch = self._spec.launch
        if launch.mode == "waited":
            interval, exposed = _interval(kernel)
            return np.maximum(interval, exposed + work)
        begin = launch.interval_s if launch.mode == "queued" else 0.0
        return begin + launch.gap_s + work

    # --- from work to the report ----------------------------------------------------------------------------------------

    def _report(
        self,
        workload: Workload,
        kernels: Sequence[_Kernel],
        works: Sequence[Work],
        parts: Sequence[Mapping[int, Traffic]],
        fidelity: str,
    ) -> Report:
        spec = self._spec
        rows: dict[int, OpCost] = {}
        spans: list[Span] = []
        table: list[dict[str, Any]] = []
        peaks: dict[float, int] = {}
        start = called = 0.0
        for kernel, work, traffic in zip(kernels, works, parts, strict=True):
            op = workload.ops[kernel.head]
            if op.macs:
                peaks[work.peak_macs_per_cycle] = peaks.get(work.peak_macs_per_cycle, 0) + op.macs
            if fidelity == "analytic":
                found = self._roofline(workload, kernel, work, traffic, start)
                length = sum(row.time_s for row in found.values())
            else:
                called += spec.launch.interval_s
                length = self._length(kernel.spec, work, start, called)
                found = self._rows(workload, kernel, work, start, length)
                table.append({"op": op.name, "work_s": work.work_s, "clock_hz": work.clock_hz, **work.details})
            rows |= found
            unit = "array" if op.is_matrix else "vector"
            spans.append(Span(unit, op.name, start, length, {"macs": op.macs, "format": found[kernel.head].format}))
            moved = sum(row.bytes_offchip for row in found.values())
            if moved:
                duration = min(length, moved / spec.memory.off_chip.bandwidth_bytes_per_s)
                spans.append(Span("off_chip", op.name, start + length - duration, duration, {"bytes": moved}))
            start += length
        sparsity = spec.sparsity
        notes = [ROOFLINE] if fidelity == "analytic" else [LAUNCHES[spec.launch.mode] + FUSIONS[spec.fusion]]
        if sparsity.enabled:
            notes.append(PRUNED.format(density=sparsity.density, n=sparsity.n, m=sparsity.m))
        return self.report(
            workload,
            [rows[index] for index in range(len(workload.ops))],
            fidelity=fidelity,
            peak_macs_per_s=(max(peaks, key=lambda peak: peaks[peak]) if peaks else self._default_peak()) * spec.clock_hz,
            offchip_bandwidth_bytes_per_s=spec.memory.off_chip.achieved_bytes_per_s
            if fidelity == "tile"
            else spec.memory.off_chip.bandwidth_bytes_per_s,
            spans=spans,
            tables={"kernels": table},
            notes=notes,
        )

    def _default_peak(self) -> float:
        """MACs a cycle in the default formats, for a workload without any."""
        recipe, _ = self._default_formats
        pair = self._spec.compute_formats(recipe.format_for("activation"), recipe.format_for("weight"))
        return float(self._spec.units * self._spec.mac_format(*pair).macs_per_cycle)

    def _length(self, kernel: KernelSpec, work: Work, start: float, called: float) -> float:
        """Seconds from the end of the kernel before to the end of this one.

        Args:
            start: when the one before ended.
            called: when the host has made this one's call, if it never waits.
        """
        launch = self._spec.launch
        if launch.mode == "waited":
            interval, exposed = _interval(kernel)
            return max(interval, exposed + work.work_s)
        begin = max(start, called) if launch.mode == "queued" else start
        return begin + launch.gap_s + work.work_s - start

    def _rows(self, workload: Workload, kernel: _Kernel, work: Work, start: float, length: float) -> dict[int, OpCost]:
        """The rows of one kernel: all of it is charged to its head; what is fused into it costs nothing more."""
        clock = self._spec.clock_hz
        op = workload.ops[kernel.head]
        cycles = length * clock
        compute = min(work.compute_s, work.work_s) * clock
        stall = max(0.0, work.work_s * clock - compute)
        rows = {
            kernel.head: self.row(
                op,
                unit="array" if op.is_matrix else "vector",
                start_s=start,
                compute_cycles=compute,
                stall_cycles=stall,
                overhead_cycles=max(0.0, cycles - compute - stall),
                busy_cycles=compute,
                energy_j=work.energy_j,
                bytes=work.bytes,
                peak_macs_per_cycle=work.peak_macs_per_cycle,
            )
        }
        for index in kernel.fused:
            rows[index] = self._free_row(workload.ops[index], start + length, op.name)
        return rows

    def _free_row(self, op: Op, start: float, head: str) -> OpCost:
        return self.row(
            op, unit="vector", start_s=start, compute_cycles=0.0, stall_cycles=0.0, overhead_cycles=0.0, busy_cycles=0.0,
            energy_j={}, bytes={"off_chip": 0}, fused_with=head,
        )  # fmt: skip

    def _roofline(
        self, workload: Workload, kernel: _Kernel, work: Work, traffic: Mapping[int, Traffic], start: float
    ) -> dict[int, OpCost]:
        """The rows of one kernel by the data sheet."""
        spec, op = self._spec, workload.ops[kernel.head]
        clock = spec.clock_hz
        moved = sum(part.load_bytes + part.store_bytes for part in traffic.values())
        lanes = sum(spec.vector_unit.cycles(workload.ops[i].operations) for i in (kernel.head, *kernel.fused))
        if isinstance(op, Attention):
            lanes = 0.0  # exponentials beside the products
        compute = max(op.macs / work.peak_macs_per_cycle if op.macs else 0.0, lanes)
        transfer = moved / spec.memory.off_chip.bandwidth_bytes_per_s * clock
        energy = {**work.energy_j, "off_chip": moved * spec.memory.off_chip.energy_pj_per_byte * 1e-12}
        rows = {
            kernel.head: self.row(
                op,
                unit="array" if op.is_matrix else "vector",
                start_s=start,
                compute_cycles=compute,
                stall_cycles=max(0.0, transfer - compute),
                overhead_cycles=0.0,
                busy_cycles=compute,
                energy_j=energy,
                bytes={"off_chip": moved},
                peak_macs_per_cycle=work.peak_macs_per_cycle,
            )
        }
        for index in kernel.fused:
            rows[index] = self._free_row(workload.ops[index], start + max(compute, transfer) / clock, op.name)
        return rows

    # --- emulation ----------------------------------------------------------------------------------------------------

    def emulate(
        self,
        module: nn.Module,
        recipe: str | Recipe | None = None,
        *,
        fidelity: str | None = None,
        example_inputs: Any = None,
        seed: int = 0,
    ) -> nn.Module:
        """``module`` as the engine computes it; see ``hwsim.device.Device.emulate``."""
        import numerics
        from accelerators.tensor_engine.emulation import EngineUnits, one_unit

        if fidelity not in (None, *self.fidelities):
            raise unknown_name(f"fidelity (device {self.name!r})", str(fidelity), self.fidelities)
        asked = self._spec.default_recipe if recipe is None else get_recipe(recipe)
        chosen = self.computed_recipe(asked)
        unit = None if one_unit(self._spec, asked) else EngineUnits(self._spec)
        return numerics.emulate(module, chosen, example_inputs=example_inputs, seed=seed, matrix_unit=unit)

    def computed_recipe(self, recipe: Recipe) -> Recipe:
        """The recipe as the engine computes it: operands in formats that it multiplies, sums as its matrix units make them."""
        from accelerators.tensor_engine.emulation import engine_recipe

        return engine_recipe(self._spec, recipe)


def _interval(kernel: KernelSpec) -> tuple[float, float]:
    """(launch interval, the part of it that the work waits for), in seconds."""
    interval, fraction = cast(float, kernel.launch_interval_s), cast(float, kernel.exposed_fraction)
    return interval, fraction * interval


@cache
def _inside(size: int, results: int, taps: int, stride: int, before: int, dilation: int) -> float:
    """Share of (result, tap) pairs along one dimension that lie on the input."""
    at = np.arange(results)[:, None] * stride - before + np.arange(taps) * dilation
    return float(((at >= 0) & (at < size)).mean())


def inside_padding(op: Convolution) -> float:
    """Share of a convolution's MACs whose input is no zero of the padding."""
    edges = zip(op.input_size, op.output_size, op.kernel, op.stride, op.padding, op.dilation, strict=True)
    return math.prod(_inside(size, out, taps, stride, pads[0], dilation) for size, out, taps, stride, pads, dilation in edges)


def _one_by_one(workload: Workload) -> list[Group]:
    """Every operator in a kernel of its own."""
    return [Group(i) if op.is_matrix else Group(None, background=(i,)) for i, op in enumerate(workload.ops)]


def _with_epilogues(workload: Workload) -> list[Group]:
    """Each matrix operator in one kernel with the elementwise operators on its results, in the order of their heads."""
    fused: dict[int, tuple[int, ...]] = {}
    for group in form_groups(workload):
        if group.matrix is None:
            continue
        # A row's statistics need results of other units: what comes behind them is a kernel of its own.
        streamed = list(group.streamed)
        cut = next((i for i, index in enumerate(streamed) if index in group.row_wise), len(streamed))
        fused[group.matrix] = tuple(streamed[:cut])
    taken = {index for members in fused.values() for index in members}
    alone = _one_by_one(workload)
    return [Group(i, fused[i]) if i in fused else alone[i] for i in range(len(workload.ops)) if i not in taken]


def _whole(head: Traffic, fused: Sequence[Traffic]) -> Traffic:
    """What a kernel moves: its head and what is fused into it."""
    if not fused:
        return head
    return replace(
        head,
        load_bytes=head.load_bytes + sum(t.load_bytes for t in fused),
        store_bytes=head.store_bytes + sum(t.store_bytes for t in fused),
        touched_bytes=head.touched_bytes + sum(t.outside_bytes + t.result_bytes for t in fused),
    )
