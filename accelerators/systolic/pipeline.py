"""What a group of operators costs: the tile pipeline (``TilePipeline``) and the closed form (``analytic_costs``)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from accelerators.systolic import _kernels as kernels
from accelerators.systolic.analytic import compute_cycles, folds
from accelerators.systolic.cycle import step_tiles
from accelerators.systolic.mapping import ORDER_NAMES, Shape, Tiling, packed_groups, shape_of, tilings, touched
from accelerators.systolic.spec import SystolicSpec
from hwsim.operators import Convolution, Matmul
from numerics.errors import InputError

CHUNK_BYTES = 4096
"""Vector operators move data in pieces of this size; load, work and store of successive pieces overlap."""

_DATAFLOW = {"weight_stationary": kernels.WS, "output_stationary": kernels.OS, "input_stationary": kernels.IS}
_OVERLAP = {"none": kernels.NONE, "weights": kernels.WEIGHTS, "full": kernels.FULL}


@dataclass(frozen=True)
class MatrixJob:
    """A matmul or convolution with its formats and what stays on chip.

    ``a_bytes``, ``b_bytes`` and ``partial_bytes`` are per element. ``extra_load_bytes`` (bias, mask), ``store_bytes`` (result,
    off chip) and ``result_bytes`` (result, into the buffer of activations) are totals. ``vector_cycles`` is the vector unit's
    share of the operator itself (bias, conversions).
    """

    op: Matmul | Convolution
    a_bytes: float
    b_bytes: float
    partial_bytes: float
    a_resident: bool
    b_resident: bool
    cycles_per_mac: int
    mac_energy_j: float
    vector_cycles: float
    vector_energy_j: float
    extra_load_bytes: int
    store_bytes: int
    result_bytes: int

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for operators that cost the same."""
        return (
            shape_of(self.op), self.a_bytes, self.b_bytes, self.partial_bytes, self.a_resident, self.b_resident,
            self.cycles_per_mac, self.mac_energy_j, self.vector_cycles, self.vector_energy_j, self.extra_load_bytes,
            self.store_bytes, self.result_bytes,
        )  # fmt: skip


@dataclass(frozen=True)
class VectorJob:
    """An operator on the vector unit: cycles of work, and bytes in total.

    ``touched_bytes`` pass through the buffer of activations; ``handed_bytes``, which it takes over from operators of its group as
    they come, do not.
    """

    work_cycles: float
    load_bytes: int
    store_bytes: int
    touched_bytes: int
    handed_bytes: int
    row_wise: bool
    energy_j: float


@dataclass(frozen=True)
class PartCost:
    """One operator's share of its group."""

    compute_cycles: float
    stall_cycles: float
    overhead_cycles: float
    busy_cycles: float
    energy_j: Mapping[str, float]
    bytes: Mapping[str, int]

    @property
    def cycles(self) -> float:
        """Its share of the group's cycles."""
        return self.compute_cycles + self.stall_cycles + self.overhead_cycles


@dataclass(frozen=True)
class GroupCost:
    """A group's cycles and its operators' shares: matrix operator first, then streamed, then background ones.

    ``apart`` of the streamed operators, the last ones, had to run in a pass of their own.
    """

    cycles: float
    parts: tuple[PartCost, ...]
    mapping: Mapping[str, Any] = field(default_factory=dict)
    apart: int = 0


def _pack(cuts: list[Tiling]) -> tuple[npt.NDArray[Any], ...]:
    starts = np.concatenate(([0], np.cumsum([t.size.size for t in cuts]))).astype(np.int64)
    return (
        starts,
        *(np.concatenate([getattr(t, name) for t in cuts]) for name in ("size", "first", "second")),
    )


@lru_cache(maxsize=256)
def _candidates(shape: Shape, rows: int, columns: int, dataflow: str, packed: int) -> tuple[npt.NDArray[Any], ...]:
    """All cuts of the three dimensions, flat, as the search takes them. Packed groups enlarge every footprint, not the array's
    view of the sizes: the fold is shared."""
    cuts = tilings(shape, rows, columns, dataflow)
    arrays = [a for cut in cuts for a in _pack(cut)]
    arrays.append(np.array([t.taps for t in cuts[2]], dtype=np.int64))
    if packed > 1:
        # A holds m·k, B k·n, C m·n elements a group: one dimension of each operand carries the factor.
        arrays[2], arrays[3], arrays[6] = arrays[2] * packed, arrays[3] * packed, arrays[6] * packed
    return tuple(arrays)


class TilePipeline:
    """The tile-level model of one spec.

    Args:
        spec: of the array.
        stepped: whether the array's control is stepped through every cycle, from the times at which the pipeline has each tile's
            operands at hand (the ``cycle`` rung).
    """

    def __init__(self, spec: SystolicSpec, *, stepped: bool = False) -> None:
        self.spec, self.stepped = spec, stepped
        array, memory = spec.array, spec.memory
        hw = np.zeros(kernels.HW_FIELDS)
        hw[kernels.ROWS], hw[kernels.COLUMNS] = array.rows, array.columns
        hw[kernels.LATENCY] = array.timing.mac_latency_cycles
        hw[kernels.OVERLAP] = _OVERLAP[array.timing.fold_overlap]
        hw[kernels.DRAIN_SHIFT] = array.timing.output_drain == "shift"
        hw[kernels.DATAFLOW] = _DATAFLOW[array.dataflow]
        hw[kernels.MAC_CYCLES] = 1
        for place, pad in enumerate((memory.input, memory.weight, memory.output)):
            hw[kernels.IN_BPC + place] = pad.bytes_per_cycle
            hw[kernels.IN_CAP + place] = pad.capacity_bytes
            hw[kernels.IN_DOUBLE + place] = pad.double_buffered
        hw[kernels.OFF_BPC] = memory.off_chip.achieved_bytes_per_s / spec.clock_hz
        hw[kernels.OFF_LATENCY] = memory.off_chip.latency_s * spec.clock_hz
        self.hw = hw
        ideal = hw.copy()
        ideal[[kernels.IN_BPC, kernels.WEIGHT_BPC, kernels.OUT_BPC, kernels.OFF_BPC]] = np.inf
        ideal[[kernels.IN_CAP, kernels.WEIGHT_CAP, kernels.OUT_CAP]] = np.inf
        ideal[kernels.OFF_LATENCY] = 0.0
        self.ideal = ideal

    def run(self, matrix: MatrixJob | None, streamed: list[VectorJob], background: list[VectorJob]) -> GroupCost:
        """Cost of one group.

        The matrix operator and what streams behind it go through the pipeline together. Background operators run beside them;
        the group ends no earlier than either, than all its vector work one after another, or than all its bytes at each level's
        bandwidth.
        """
        if matrix is None:
            return self._alone(background)
        first = next((i for i, job in enumerate(streamed) if job.row_wise), None)
        if first is None:
            return self._together(matrix, streamed, background)
        # Rows stream only where whole rows fit the output buffer; writing them out and reading them back may also be faster.
        apart = self._apart(matrix, streamed, background, first)
        try:
            together = self._together(matrix, streamed, background)
        except InputError:
            return apart
        return together if together.cycles <= apart.cycles else apart

    def _apart(self, matrix: MatrixJob, streamed: list[VectorJob], background: list[VectorJob], first: int) -> GroupCost:
        """The group with its row-wise operators, from ``first`` on, in a pass of their own over results written out before."""
        head, tail = streamed[:first], streamed[first:]
        spilled = tail[0].handed_bytes
        if head:
            last = head[-1]
            head[-1] = replace(last, store_bytes=last.store_bytes + spilled, touched_bytes=last.touched_bytes + spilled)
        else:
            matrix = replace(matrix, store_bytes=matrix.store_bytes + spilled, result_bytes=matrix.result_bytes + spilled)
        tail[0] = replace(tail[0], load_bytes=tail[0].load_bytes + spilled, touched_bytes=tail[0].touched_bytes + spilled)
        before = self._together(matrix, head, background)
        cut = 1 + len(head)
        after = self._pass(tail)
        parts = (*before.parts[:cut], *after, *before.parts[cut:])
        return GroupCost(sum(p.cycles for p in parts), parts, before.mapping, len(tail))

    def _pass(self, jobs: list[VectorJob]) -> list[PartCost]:
        """Vector operators that share one pass over their data."""
        work = sum(job.work_cycles for job in jobs)
        whole = VectorJob(
            work_cycles=work,
            load_bytes=sum(job.load_bytes for job in jobs),
            store_bytes=sum(job.store_bytes for job in jobs),
            touched_bytes=sum(job.touched_bytes for job in jobs),
            handed_bytes=0,
            row_wise=False,
            energy_j=0.0,
        )
        total = max(self._vector_time(whole), whole.touched_bytes / self.spec.memory.input.bytes_per_cycle)
        parts = []
        for job in jobs:
            sizes = _vector_bytes(job)
            share = sizes["input"] / whole.touched_bytes if whole.touched_bytes else 1 / len(jobs)
            energy = self._energy(sizes, {"vector_unit": job.energy_j})
            parts.append(PartCost(job.work_cycles, (total - work) * share, 0.0, job.work_cycles, energy, sizes))
        return parts

    def _together(self, matrix: MatrixJob, streamed: list[VectorJob], background: list[VectorJob]) -> GroupCost:
        """Everything in one pipeline.

        Raises:
            InputError: a buffer that holds no tile, or, with row-wise operators, no row of results.
        """
        spec = self.spec
        main = _simulate(self.hw, self.ideal, spec, matrix, streamed, background, self.stepped)
        side_time = sum(self._vector_time(job) for job in background)
        side_ideal = sum(job.work_cycles for job in background)
        vector_bytes = [_vector_bytes(job) for job in streamed + background]
        matrix_bytes = main.bytes
        vector_busy = matrix.vector_cycles + sum(j.work_cycles for j in streamed + background)
        ideal = max(main.ideal, side_ideal, vector_busy)
        total = max(main.time, side_time, vector_busy, ideal)
        exposed = ideal - main.array_only
        busy = [j.work_cycles for j in streamed + background]
        shares = [b / sum(busy) if sum(busy) > 0 else 0.0 for b in busy]
        if not sum(busy):
            main_compute, exposed = ideal, 0.0
        else:
            main_compute = main.array_only
        stall = total - ideal
        moved = [matrix_bytes["off_chip"], *(b["off_chip"] for b in vector_bytes)]
        stalls = [stall * x / sum(moved) for x in moved] if sum(moved) else [stall, *(0.0 for _ in busy)]
        parts = [
            PartCost(
                main_compute,
                stalls[0],
                spec.launch_overhead_cycles,
                main.array_busy,
                self._energy(matrix_bytes, {"mac": matrix.mac_energy_j, "vector_unit": matrix.vector_energy_j}),
                matrix_bytes,
            )
        ]
        for job, share, lost, sizes in zip(streamed + background, shares, stalls[1:], vector_bytes, strict=True):
            energy = self._energy(sizes, {"vector_unit": job.energy_j})
            parts.append(PartCost(exposed * share, lost, 0.0, job.work_cycles, energy, sizes))
        return GroupCost(sum(p.cycles for p in parts), tuple(parts), main.mapping)

    def _alone(self, jobs: list[VectorJob]) -> GroupCost:
        overhead = self.spec.launch_overhead_cycles
        parts = [replace(self._pass([job])[0], overhead_cycles=overhead) for job in jobs]
        return GroupCost(sum(p.cycles for p in parts), tuple(parts))

    def _vector_time(self, job: VectorJob) -> float:
        chunks = max(1, -(-job.touched_bytes // CHUNK_BYTES))
        off = self.hw[kernels.OFF_BPC]
        time = kernels.vector_pipeline(
            chunks, job.load_bytes / off / chunks, job.work_cycles / chunks, job.store_bytes / off / chunks,
            self.hw[kernels.OFF_LATENCY],
        )  # fmt: skip
        return max(float(time), job.work_cycles, (job.load_bytes + job.store_bytes) / off)

    def _energy(self, sizes: Mapping[str, int], own: Mapping[str, float]) -> dict[str, float]:
        memory = self.spec.memory
        energy = {"mac": 0.0, "vector_unit": 0.0} | dict(own)
        for level, part in (("input", memory.input), ("weight", memory.weight), ("output", memory.output)):
            energy[f"scratchpad_{level}"] = sizes.get(level, 0) * part.energy_pj_per_byte * 1e-12
        energy["off_chip"] = sizes["off_chip"] * memory.off_chip.energy_pj_per_byte * 1e-12
        return energy


def _vector_bytes(job: VectorJob) -> dict[str, int]:
    return {"off_chip": job.load_bytes + job.store_bytes, "input": job.touched_bytes}


@dataclass(frozen=True)
class _Run:
    time: float
    ideal: float
    array_only: float
    array_busy: float
    bytes: dict[str, int]
    mapping: dict[str, Any]


def _job_vector(
    matrix: MatrixJob, streamed: list[VectorJob], background: list[VectorJob], batch: int, outputs: float
) -> npt.NDArray[np.float64]:
    job = np.zeros(kernels.JOB_FIELDS)
    job[kernels.BATCH] = batch
    job[kernels.A_BYTES], job[kernels.B_BYTES], job[kernels.P_BYTES] = (
        matrix.a_bytes,
        matrix.b_bytes,
        matrix.partial_bytes,
    )
    job[kernels.A_HERE], job[kernels.B_HERE] = matrix.a_resident, matrix.b_resident
    flat = matrix.vector_cycles + sum(v.work_cycles for v in streamed if not v.row_wise)
    job[kernels.VECTOR_CYCLES] = flat / outputs
    job[kernels.ROW_CYCLES] = sum(v.work_cycles for v in streamed if v.row_wise) / outputs
    job[kernels.EXTRA_LOAD] = (matrix.extra_load_bytes + sum(v.load_bytes for v in streamed)) / outputs
    job[kernels.STORE] = (matrix.store_bytes + sum(v.store_bytes for v in streamed)) / outputs
    job[kernels.OTHER_OFF] = sum(v.load_bytes + v.store_bytes for v in background)
    job[kernels.OTHER_IN] = matrix.result_bytes + sum(v.touched_bytes for v in streamed + background)
    return job


def _simulate(
    hw: npt.NDArray[np.float64],
    ideal: npt.NDArray[np.float64],
    spec: SystolicSpec,
    matrix: MatrixJob,
    streamed: list[VectorJob],
    background: list[VectorJob],
    stepped: bool,
) -> _Run:
    op, array = matrix.op, spec.array
    shape = shape_of(op)
    packed = packed_groups(shape, array.rows, array.columns, array.dataflow) if array.group_packing == "block_diagonal" else 1
    batch = shape.batch // packed
    outputs = float(op.elements_out)
    job = _job_vector(matrix, streamed, background, batch, outputs)
    machine, without_memory = hw, ideal
    if matrix.cycles_per_mac != 1:
        machine, without_memory = hw.copy(), ideal.copy()
        machine[kernels.MAC_CYCLES] = without_memory[kernels.MAC_CYCLES] = matrix.cycles_per_mac
    cuts = _candidates(shape, array.rows, array.columns, array.dataflow, packed)
    picked, reuse, simulated, result = kernels.search(machine, job, *cuts)
    if picked[0] < 0:
        raise _too_small(spec, op, job, cuts)
    chosen = []
    for d in range(3):
        starts = cuts[4 * d]
        begin, end = starts[picked[d]], starts[picked[d] + 1]
        chosen += [a[begin:end] for a in cuts[4 * d + 1 : 4 * d + 4]]
    order = kernels.ORDERS[picked[3]]
    bare = job.copy()
    bare[[kernels.VECTOR_CYCLES, kernels.ROW_CYCLES, kernels.EXTRA_LOAD]] = 0.0

    def time(hw: npt.NDArray[np.float64], job: npt.NDArray[np.float64]) -> float:
        if not stepped:
            return float(kernels.simulate(hw, job, order, *chosen, reuse, np.zeros((0, kernels.TILE_FIELDS)))[kernels.TIME])
        # What follows the array's last result, follows it as much later as the control says.
        tiles = np.zeros((int(result[kernels.STEPS]), kernels.TILE_FIELDS))
        found = kernels.simulate(hw, job, order, *chosen, reuse, tiles)
        return float(found[kernels.TIME] + step_tiles(array, tiles) - found[kernels.ARRAY_LEFT])

    with_vector, array_only = time(without_memory, job), time(without_memory, bare)
    a, b = result[kernels.LOAD_A], result[kernels.LOAD_B]
    partial_in, partial_out = result[kernels.LOAD_PARTIAL], result[kernels.STORE_PARTIAL]
    # Streamed operators report their own operands and results; the pipeline moved them all.
    stored = result[kernels.STORE_OUT] - sum(v.store_bytes for v in streamed)
    loaded = result[kernels.LOAD_EXTRA] - sum(v.load_bytes for v in streamed)
    sizes = {
        "off_chip": round(a + b + partial_in + partial_out + stored + loaded),
        "input": round(result[kernels.IN_READ] + a) + matrix.result_bytes,
        "weight": round(result[kernels.WEIGHT_READ] + b),
        "output": round(result[kernels.OUT_READ] + result[kernels.OUT_WRITE] + partial_in),
    }
    mapping = {
        "batch": shape.batch, "m": shape.m, "n": shape.n, "k": shape.k,
        "tile_m": int(chosen[0].max()), "tile_n": int(chosen[3].max()), "tile_k": int(chosen[6].max()),
        "loop_order": ORDER_NAMES[picked[3]], "tiles": int(result[kernels.STEPS]), "folds": int(result[kernels.FOLDS]),
        "groups_per_fold": packed, "mappings_simulated": int(simulated),
        "loads_a_bytes": round(a), "loads_b_bytes": round(b), "partial_sum_bytes": round(partial_in + partial_out),
        "array_occupancy": float(op.macs / (result[kernels.ARRAY_BUSY] * array.rows * array.columns)) * matrix.cycles_per_mac,
    }  # fmt: skip
    return _Run(
        max(time(machine, job), kernels.levels(machine, job, result)) if stepped else float(result[kernels.TIME]),
        with_vector,
        array_only,
        float(result[kernels.ARRAY_BUSY]),
        sizes,
        mapping,
    )


def _too_small(spec: SystolicSpec, op: Matmul | Convolution, job: npt.NDArray[np.float64], cuts: tuple[Any, ...]) -> InputError:
    """Which buffer cannot hold one tile, and what it would take."""

    def least(d: int, which: int) -> float:
        starts, values = cuts[4 * d], cuts[4 * d + which]
        return min(float(values[starts[i] : starts[i + 1]].max()) for i in range(starts.size - 1))

    needs = {
        "input": least(0, 2) * least(2, 2) * job[kernels.A_BYTES],
        "weight": least(2, 3) * least(1, 2) * job[kernels.B_BYTES],
        "output": least(0, 1) * least(1, 1) * job[kernels.P_BYTES],
    }
    for name, need in needs.items():
        pad = getattr(spec.memory, name)
        if need > pad.tile_bytes:
            halves = " (half of it, double-buffered)" if pad.double_buffered else ""
            return InputError(
                f"device {spec.name!r}: memory.{name}.capacity_bytes: {pad.capacity_bytes} bytes{halves} cannot hold one tile of "
                f"op {op.name!r}, which takes {need:.0f} bytes"
            )
    return InputError(f"device {spec.name!r}: op {op.name!r} has more than {kernels.MAX_STEPS} of the largest tiles that fit")


def analytic_costs(
    spec: SystolicSpec, matrix: MatrixJob | None, streamed: list[VectorJob], background: list[VectorJob]
) -> GroupCost:
    """Closed form of a group: array and vector unit side by side, memory ideal; each tensor moves once."""
    pipeline = TilePipeline(spec)
    parts: list[PartCost] = []
    vector = streamed + background
    work = [job.work_cycles for job in vector]
    overhead = spec.launch_overhead_cycles
    hidden = 0.0
    if matrix is not None:
        array, op = spec.array, matrix.op
        shape = shape_of(op)
        packed = packed_groups(shape, array.rows, array.columns, array.dataflow) if array.group_packing == "block_diagonal" else 1
        sizes = {
            "rows": array.rows,
            "columns": array.columns,
            "dataflow": array.dataflow,
            "batch": shape.batch // packed,
        }
        cycles = float(
            compute_cycles(
                shape.m,
                shape.n,
                shape.k,
                timing=array.timing,
                cycles_per_mac=matrix.cycles_per_mac,
                **sizes,  # type: ignore[arg-type]
            )
        )
        count = int(folds(shape.m, shape.n, shape.k, **sizes))  # type: ignore[arg-type]
        hidden = max(cycles, matrix.vector_cycles)
        moved = _least_bytes(matrix, shape, array.dataflow, array.rows, array.columns)
        energy = pipeline._energy(moved, {"mac": matrix.mac_energy_j, "vector_unit": matrix.vector_energy_j})
        parts.append(PartCost(hidden, 0.0, overhead, cycles, energy, moved))
        mapping = {
            "batch": shape.batch,
            "m": shape.m,
            "n": shape.n,
            "k": shape.k,
            "folds": count,
            "groups_per_fold": packed,
        }
    total = max(hidden, sum(work) + (matrix.vector_cycles if matrix else 0.0))
    for job in vector:
        share = job.work_cycles / sum(work) if sum(work) > 0 else 0.0
        sizes_v = _vector_bytes(job)
        parts.append(
            PartCost(
                (total - hidden) * share,
                0.0,
                overhead if matrix is None else 0.0,
                job.work_cycles,
                pipeline._energy(sizes_v, {"vector_unit": job.energy_j}),
                sizes_v,
            )
        )
    return GroupCost(sum(p.cycles for p in parts), tuple(parts), mapping if matrix is not None else {})


def _least_bytes(matrix: MatrixJob, shape: Shape, dataflow: str, rows: int, columns: int) -> dict[str, int]:
    """Bytes at each level when every operand is loaded once and the whole problem is one tile."""
    along = {
        "weight_stationary": (shape.k, shape.n),
        "output_stationary": (shape.m, shape.n),
        "input_stationary": (shape.k, shape.m),
    }
    fold_rows, fold_columns = -(-along[dataflow][0] // rows), -(-along[dataflow][1] // columns)
    a, b, c = (float(shape.batch * x * y) for x, y in ((shape.m, shape.k), (shape.k, shape.n), (shape.m, shape.n)))
    k_folds = 1 if dataflow == "output_stationary" else fold_rows
    reads = {
        "weight_stationary": (fold_columns, 1),
        "output_stationary": (fold_columns, fold_rows),
        "input_stationary": (1, fold_columns),
    }
    once_a, once_b = _operand_elements(matrix.op)
    load_a = 0.0 if matrix.a_resident else once_a * matrix.a_bytes
    load_b = 0.0 if matrix.b_resident else once_b * matrix.b_bytes
    return {
        "off_chip": round(load_a + load_b + matrix.extra_load_bytes + matrix.store_bytes),
        "input": round(a * matrix.a_bytes * reads[dataflow][0] + load_a) + matrix.result_bytes,
        "weight": round(b * matrix.b_bytes * reads[dataflow][1] + load_b),
        "output": round(c * matrix.partial_bytes * 2 * k_folds),
    }


def _operand_elements(op: Matmul | Convolution) -> tuple[int, int]:
    """Elements of operands A and B that must be read at least once."""
    if isinstance(op, Matmul):
        return op.batch * op.m * op.k, op.batch * op.k * op.n
    axes = zip(op.output_size, op.stride, op.kernel, op.dilation, op.padding, op.input_size, strict=True)
    read = [touched(0, out, stride, kernel, dilation, pad[0], size) for out, stride, kernel, dilation, pad, size in axes]
    x = op.batch * op.in_channels * math.prod(read)  # a stride may skip some of the feature map
    y = op.batch * op.out_channels * math.prod(op.output_size)
    w = op.out_channels * (op.in_channels // op.groups) * math.prod(op.kernel)
    return {"output": (x, w), "input": (y, w), "weight": (x, y)}[op.computes]
