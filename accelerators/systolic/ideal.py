"""What a group of operators costs where memory is ideal, in closed form, and what its events cost on every rung."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from accelerators.systolic.analytic import ArrayTime, array_time, folds
from accelerators.systolic.jobs import ArrayCycles, GroupCost, MatrixJob, PartCost, VectorJob
from accelerators.systolic.mapping import Shape, packed_groups, shape_of, touched
from accelerators.systolic.spec import ArraySpec, SystolicSpec
from hwsim.operators import Convolution, Matmul


def on_arrays(spec: SystolicSpec, shape: Shape, cycles_per_mac: float) -> tuple[ArrayTime, int]:
    """An operator on the arrays, all operands at hand, and its groups in a fold."""
    array = spec.array
    packed = packed_groups(shape, array.rows, array.columns, array.dataflow) if array.group_packing == "block_diagonal" else 1
    return arrays_time(array, shape.m, shape.n, shape.k, shape.batch // packed, cycles_per_mac), packed


def arrays_time(array: ArraySpec, m: Any, n: Any, k: Any, batch: Any, cycles_per_mac: float) -> ArrayTime:
    """``array_time`` on the arrays of a spec; sizes are integers or arrays."""
    return array_time(
        m, n, k, rows=array.rows, columns=array.columns, dataflow=array.dataflow, timing=array.timing, batch=batch,
        cycles_per_mac=cycles_per_mac if array.streaming_fraction == 1 else cycles_per_mac / array.streaming_fraction,
        arrays=array.count,
    )  # fmt: skip


def analytic_costs(
    spec: SystolicSpec, matrix: MatrixJob | None, streamed: list[VectorJob], background: list[VectorJob]
) -> GroupCost:
    """Closed form of a group: array and vector unit side by side, memory ideal; each tensor moves once."""
    parts: list[PartCost] = []
    vector = streamed + background
    work = [job.work_cycles for job in vector]
    overhead = spec.launch_overhead_cycles
    hidden = 0.0
    mapping: dict[str, Any] = {}
    used = ArrayCycles()
    if matrix is not None:
        array, shape = spec.array, shape_of(matrix.op)
        time, packed = on_arrays(spec, shape, matrix.cycles_per_mac)
        used = ArrayCycles(float(time.active), 0.0, float(time.load))
        hidden = max(float(time.cycles), matrix.vector_cycles)
        moved = _least_bytes(spec, matrix, shape)
        energy = event_energy(spec, moved, {"mac": matrix.mac_energy_j, "vector_unit": matrix.vector_energy_j})
        parts.append(PartCost(hidden, 0.0, overhead, float(time.cycles), energy, moved))
        sides = {"rows": array.rows, "columns": array.columns, "dataflow": array.dataflow}
        mapping = {
            "batch": shape.batch,
            "m": shape.m,
            "n": shape.n,
            "k": shape.k,
            "folds": int(folds(shape.m, shape.n, shape.k, batch=shape.batch // packed, **sides)),  # type: ignore[arg-type]
            "groups_per_fold": packed,
            **shared(array, time),
        }
    total = max(hidden, sum(work) + (matrix.vector_cycles if matrix else 0.0))
    for job in vector:
        share = job.work_cycles / sum(work) if sum(work) > 0 else 0.0
        sizes = vector_bytes(job)
        parts.append(
            PartCost(
                (total - hidden) * share,
                0.0,
                overhead if matrix is None else 0.0,
                job.work_cycles,
                event_energy(spec, sizes, {"vector_unit": job.energy_j}),
                sizes,
            )
        )
    return GroupCost(sum(p.cycles for p in parts), tuple(parts), mapping, array=used)


def shared(array: ArraySpec, time: ArrayTime) -> dict[str, int]:
    """How several arrays share an operator, for the report's table of mappings."""
    return {"arrays_per_fold": int(time.split), "products_at_once": int(time.beside)} if array.count > 1 else {}


def host_cycles(spec: SystolicSpec, size: int) -> float:
    """Cycles to move ``size`` bytes between the host and the machine; nothing runs beside it."""
    if spec.host_link is None or not size:
        return 0.0
    return (size / spec.host_link.link_bytes_per_s + spec.host_link.link_latency_s) * spec.clock_hz


def event_energy(spec: SystolicSpec, sizes: Mapping[str, int], own: Mapping[str, float]) -> dict[str, float]:
    """Component → joules: what was given, and the bytes moved at each level."""
    memory = spec.memory
    energy = {"mac": 0.0, "vector_unit": 0.0} | dict(own)
    for level, part in (("input", memory.input), ("weight", memory.weight), ("output", memory.output)):
        energy[f"scratchpad_{level}"] = sizes.get(level, 0) * part.energy_pj_per_byte * 1e-12
    energy["off_chip"] = sizes["off_chip"] * memory.off_chip.energy_pj_per_byte * 1e-12
    if spec.host_link is not None:
        energy["host"] = sizes.get("host", 0) * spec.host_link.link_pj_per_byte * 1e-12
    return energy


def vector_bytes(job: VectorJob) -> dict[str, int]:
    """Bytes at each level of an operator on the vector unit."""
    sizes = {"off_chip": job.load_bytes + job.store_bytes, "input": job.touched_bytes}
    return sizes | ({"host": job.host_bytes} if job.host_bytes else {})


def buffer_elements(array: ArraySpec, m: Any, n: Any, k: Any, batch: Any) -> tuple[Any, Any, Any]:
    """Elements of A and B that the arrays read, and sums that they write and read, when the whole problem is one tile; sizes are
    integers or arrays."""
    along = {"weight_stationary": (k, n), "output_stationary": (m, n), "input_stationary": (k, m)}[array.dataflow]
    fold_rows, fold_columns = -(-np.asarray(along[0]) // array.rows), -(-np.asarray(along[1]) // array.columns)
    k_folds = 1 if array.dataflow == "output_stationary" else fold_rows
    a_times, b_times = {
        "weight_stationary": (fold_columns, 1),
        "output_stationary": (fold_columns, fold_rows),
        "input_stationary": (1, fold_columns),
    }[array.dataflow]
    a, b, c = (np.asarray(batch) * 1.0 * x * y for x, y in ((m, k), (k, n), (m, n)))
    return a * a_times, b * b_times, c * 2 * k_folds


def operand_elements(op: Matmul | Convolution) -> tuple[int, int]:
    """Elements of operands A and B that must be read at least once."""
    if isinstance(op, Matmul):
        return op.batch * op.m * op.k, op.batch * op.k * op.n
    axes = zip(op.output_size, op.stride, op.kernel, op.dilation, op.padding, op.input_size, strict=True)
    read = [touched(0, out, stride, kernel, dilation, pad[0], size) for out, stride, kernel, dilation, pad, size in axes]
    x = op.batch * op.in_channels * math.prod(read)  # a stride may skip some of the feature map
    y = op.batch * op.out_channels * math.prod(op.output_size)
    w = op.out_channels * (op.in_channels // op.groups) * math.prod(op.kernel)
    return {"output": (x, w), "input": (y, w), "weight": (x, y)}[op.computes]


def _least_bytes(spec: SystolicSpec, matrix: MatrixJob, shape: Shape) -> dict[str, int]:
    """Bytes at each level when every operand is loaded once and the whole problem is one tile."""
    a, b, sums = buffer_elements(spec.array, shape.m, shape.n, shape.k, shape.batch)
    once_a, once_b = operand_elements(matrix.op)
    load_a = 0.0 if matrix.a_resident else once_a * matrix.a_bytes
    load_b = 0.0 if matrix.b_resident else once_b * matrix.b_bytes
    return {
        "off_chip": round(load_a + load_b + matrix.extra_load_bytes + matrix.store_bytes),
        "input": round(float(a) * matrix.a_bytes + load_a) + matrix.result_bytes,
        "weight": round(float(b) * matrix.b_bytes + load_b),
        "output": round(float(sums) * matrix.partial_bytes),
        **({"host": matrix.host_bytes} if matrix.host_bytes else {}),
    }
