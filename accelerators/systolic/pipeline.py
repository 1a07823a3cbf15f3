"""What a group of operators costs, tile by tile."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from accelerators.systolic import _mapping_kernels as mapping_kernels
from accelerators.systolic import _pipeline_fields as fields
from accelerators.systolic import _pipeline_kernels as kernels
from accelerators.systolic.cycle import step_tiles
from accelerators.systolic.ideal import event_energy, host_cycles, on_arrays, shared, vector_bytes
from accelerators.systolic.jobs import ArrayCycles, GroupCost, MatrixJob, MatrixRun, PartCost, VectorJob
from accelerators.systolic.mapping import ORDER_NAMES, Shape, Tiling, cuts, distinct_unit, shape_of, units
from accelerators.systolic.spec import SystolicSpec
from accelerators.systolic.transfers import Moved, mapped_bytes_per_s
from accelerators.systolic.windows import window_run
from hwsim.operators import Convolution, Matmul
from numerics.errors import InputError

CHUNK_BYTES = 4096
"""Vector operators move data in pieces of this size, or any power of two of them that fits the buffer, whatever is fastest; load,
work and store of successive pieces overlap."""

_DATAFLOW = {"weight_stationary": fields.WS, "output_stationary": fields.OS, "input_stationary": fields.IS}
_OVERLAP = {"none": fields.NONE, "weights": fields.WEIGHTS, "full": fields.FULL}


def _pack(cuts: list[Tiling]) -> tuple[npt.NDArray[Any], ...]:
    starts = np.concatenate(([0], np.cumsum([t.size.size for t in cuts]))).astype(np.int64)
    return (
        starts,
        *(np.concatenate([getattr(t, name) for t in cuts]) for name in ("size", "first", "second")),
    )


@lru_cache(maxsize=2048)
def _dimension(shape: Shape, dim: str, unit: int, groups: int) -> tuple[tuple[npt.NDArray[Any], ...], npt.NDArray[Any], Any]:
    """All cuts of a dimension, flat, as the search takes them; their kernel taps; what ``describe`` says of them."""
    found = cuts(shape, dim, unit)
    start, size, first, second = _pack(found)
    if groups > 1:
        # A holds m·k, B k·n, C m·n elements a group: one dimension of each operand carries the factor.
        first, second = first * (groups if dim != "k" else 1), second * (groups if dim == "m" else 1)
    flat = start, size, first, second
    return flat, np.array([t.taps for t in found], dtype=np.int64), mapping_kernels.describe(*flat)


def dimensions(shape: Shape, rows: int, columns: int, dataflow: str, groups: int) -> tuple[Any, ...]:
    """All cuts of the three dimensions as ``search_described`` takes them. Groups that run at the same time enlarge every
    footprint, not the array's view of the sizes."""
    unit = units(rows, columns, dataflow)
    m, n, k = (_dimension(shape, dim, distinct_unit(shape, dim, unit[dim]), groups) for dim in "mnk")
    return *m[0], *n[0], *k[0], k[1], m[2], n[2], k[2]


def _candidates(shape: Shape, rows: int, columns: int, dataflow: str, groups: int) -> tuple[npt.NDArray[Any], ...]:
    """All cuts of the three dimensions, without what describes them."""
    return dimensions(shape, rows, columns, dataflow, groups)[:13]


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
        hw = np.zeros(fields.HW_FIELDS)
        hw[fields.ROWS], hw[fields.COLUMNS] = array.rows, array.columns
        hw[fields.LATENCY] = array.timing.mac_latency_cycles
        hw[fields.OVERLAP] = _OVERLAP[array.timing.fold_overlap]
        hw[fields.DRAIN_SHIFT] = array.timing.output_drain == "shift"
        hw[fields.DATAFLOW] = _DATAFLOW[array.dataflow]
        hw[fields.MAC_CYCLES] = 1
        hw[fields.EXTRA_ARRAYS] = array.count - 1
        for place, pad in enumerate((memory.input, memory.weight, memory.output)):
            hw[fields.IN_BPC + place] = pad.bytes_per_cycle
            hw[fields.IN_CAP + place] = pad.capacity_bytes
            hw[fields.IN_DOUBLE + place] = pad.double_buffered
        hw[fields.OFF_BPC] = memory.off_chip.achieved_bytes_per_s / spec.clock_hz
        hw[fields.OFF_LATENCY] = memory.off_chip.latency_s * spec.clock_hz
        self.hw = hw
        ideal = hw.copy()
        ideal[[fields.IN_BPC, fields.WEIGHT_BPC, fields.OUT_BPC, fields.OFF_BPC]] = np.inf
        ideal[[fields.IN_CAP, fields.WEIGHT_CAP, fields.OUT_CAP]] = np.inf
        ideal[fields.OFF_LATENCY] = 0.0
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
        return GroupCost(sum(p.cycles for p in parts), parts, before.mapping, len(tail), before.array)

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
            sizes = vector_bytes(job)
            share = sizes["input"] / whole.touched_bytes if whole.touched_bytes else 1 / len(jobs)
            overhead = host_cycles(self.spec, job.host_bytes)
            energy = event_energy(self.spec, sizes, {"vector_unit": job.energy_j})
            parts.append(PartCost(job.work_cycles, (total - work) * share, overhead, job.work_cycles, energy, sizes))
        return parts

    def _together(self, matrix: MatrixJob, streamed: list[VectorJob], background: list[VectorJob]) -> GroupCost:
        """Everything in one pipeline.

        Raises:
            InputError: a buffer that holds no tile, or, with row-wise operators, no row of results.
        """
        spec = self.spec
        if spec.kernel is not None:
            main = window_run(spec, matrix, streamed, background, stepped=self.stepped)
        else:
            main = _simulate(self.hw, self.ideal, spec, matrix, streamed, background, self.stepped)
        side_time = sum(self._vector_time(job) for job in background)
        side_ideal = sum(job.work_cycles for job in background)
        side_bytes = [vector_bytes(job) for job in streamed + background]
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
        moved = [matrix_bytes["off_chip"], *(b["off_chip"] for b in side_bytes)]
        stalls = [stall * (x / sum(moved)) for x in moved] if sum(moved) else [stall, *(0.0 for _ in busy)]
        parts = [
            PartCost(
                main_compute,
                stalls[0],
                spec.launch_overhead_cycles + host_cycles(spec, matrix.host_bytes),
                main.array.active,
                event_energy(spec, matrix_bytes, {"mac": matrix.mac_energy_j, "vector_unit": matrix.vector_energy_j}),
                matrix_bytes,
            )
        ]
        for job, share, lost, sizes in zip(streamed + background, shares, stalls[1:], side_bytes, strict=True):
            overhead = host_cycles(spec, job.host_bytes)
            energy = event_energy(spec, sizes, {"vector_unit": job.energy_j})
            parts.append(PartCost(exposed * share, lost, overhead, job.work_cycles, energy, sizes))
        return GroupCost(sum(p.cycles for p in parts), tuple(parts), main.mapping, array=main.array)

    def _alone(self, jobs: list[VectorJob]) -> GroupCost:
        parts = [self._pass([job])[0] for job in jobs]
        launch = self.spec.launch_overhead_cycles
        parts = [replace(part, overhead_cycles=part.overhead_cycles + launch) for part in parts]
        return GroupCost(sum(p.cycles for p in parts), tuple(parts))

    def _vector_time(self, job: VectorJob) -> float:
        memory, latency = self.spec.memory.off_chip, self.hw[fields.OFF_LATENCY]
        moved = [Moved(job.load_bytes, 1.0, 1.0), Moved(job.store_bytes, 1.0, 1.0, written=True)]
        off = mapped_bytes_per_s(memory, moved) / self.spec.clock_hz
        least = max(job.work_cycles, (job.load_bytes + job.store_bytes) / off)
        best, piece = np.inf, CHUNK_BYTES
        while True:
            chunks = max(1, -(-job.touched_bytes // piece))
            parts = job.load_bytes / off / chunks, job.work_cycles / chunks, job.store_bytes / off / chunks
            best = min(best, float(kernels.vector_pipeline(chunks, *parts, latency)))
            piece *= 2
            if chunks == 1 or best <= least or piece > self.spec.memory.input.tile_bytes:
                return max(best, least)


def _job_vector(
    matrix: MatrixJob, streamed: list[VectorJob], background: list[VectorJob], batch: int, outputs: float
) -> npt.NDArray[np.float64]:
    job = np.zeros(fields.JOB_FIELDS)
    job[fields.BATCH] = batch
    job[fields.A_BYTES], job[fields.B_BYTES], job[fields.P_BYTES] = (
        matrix.a_bytes,
        matrix.b_bytes,
        matrix.partial_bytes,
    )
    job[fields.A_HERE], job[fields.B_HERE] = matrix.a_resident, matrix.b_resident
    flat = matrix.vector_cycles + sum(v.work_cycles for v in streamed if not v.row_wise)
    job[fields.VECTOR_CYCLES] = flat / outputs
    job[fields.ROW_CYCLES] = sum(v.work_cycles for v in streamed if v.row_wise) / outputs
    job[fields.EXTRA_LOAD] = (matrix.extra_load_bytes + sum(v.load_bytes for v in streamed)) / outputs
    job[fields.STORE] = (matrix.store_bytes + sum(v.store_bytes for v in streamed)) / outputs
    job[fields.OTHER_OFF] = sum(v.load_bytes + v.store_bytes for v in background)
    job[fields.OTHER_IN] = matrix.result_bytes + sum(v.touched_bytes for v in streamed + background)
    return job


def _simulate(
    hw: npt.NDArray[np.float64],
    ideal: npt.NDArray[np.float64],
    spec: SystolicSpec,
    matrix: MatrixJob,
    streamed: list[VectorJob],
    background: list[VectorJob],
    stepped: bool,
) -> MatrixRun:
    op, array = matrix.op, spec.array
    shape = shape_of(op)
    work, packed = on_arrays(spec, shape, matrix.cycles_per_mac)
    beside = int(work.beside)
    outputs = float(op.elements_out)
    job = _job_vector(matrix, streamed, background, shape.batch // (packed * beside), outputs)
    job[[fields.EXTRA_PACKED, fields.EXTRA_BESIDE, fields.EXTRA_SPLIT]] = packed - 1, beside - 1, int(work.split) - 1
    machine, without_memory = hw.copy(), ideal.copy()
    machine[fields.MAC_CYCLES] = without_memory[fields.MAC_CYCLES] = matrix.cycles_per_mac / array.streaming_fraction
    found = dimensions(shape, array.rows, array.columns, array.dataflow, packed * beside)
    picked, reuse, simulated, result = mapping_kernels.search_described(machine, job, *found)
    if picked[0] < 0:
        raise _too_small(spec, op, job, found)
    chosen = []
    for d in range(3):
        starts = found[4 * d]
        begin, end = starts[picked[d]], starts[picked[d] + 1]
        chosen += [a[begin:end] for a in found[4 * d + 1 : 4 * d + 4]]
    order = fields.ORDERS[picked[3]]
    if spec.memory.off_chip.dram is not None:
        # The mapping is the one for long reads; its tiles are then moved as they lie.
        machine[fields.OFF_BPC] = mapped_bytes_per_s(spec.memory.off_chip, _moved(matrix, shape, chosen, result)) / spec.clock_hz
        result = kernels.simulate(machine, job, order, *chosen, reuse, np.zeros((0, fields.TILE_FIELDS)), fields.UNLIMITED)
    bare = job.copy()
    bare[[fields.VECTOR_CYCLES, fields.ROW_CYCLES, fields.EXTRA_LOAD]] = 0.0

    def time(hw: npt.NDArray[np.float64], job: npt.NDArray[np.float64]) -> float:
        if not stepped:
            return float(
                kernels.simulate(hw, job, order, *chosen, reuse, np.zeros((0, fields.TILE_FIELDS)), fields.UNLIMITED)[fields.TIME]
            )
        # What follows the array's last result, follows it as much later as the control says.
        tiles = np.zeros((int(result[fields.STEPS]), fields.TILE_FIELDS))
        run = kernels.simulate(hw, job, order, *chosen, reuse, tiles, fields.UNLIMITED)
        return float(run[fields.TIME] + step_tiles(array, tiles) - run[fields.ARRAY_LEFT])

    with_vector, array_only = time(without_memory, job), time(without_memory, bare)
    a, b = result[fields.LOAD_A], result[fields.LOAD_B]
    partial_in, partial_out = result[fields.LOAD_PARTIAL], result[fields.STORE_PARTIAL]
    # Streamed operators report their own operands and results; the pipeline moved them all.
    stored = result[fields.STORE_OUT] - sum(v.store_bytes for v in streamed)
    loaded = result[fields.LOAD_EXTRA] - sum(v.load_bytes for v in streamed)
    sizes = {
        "off_chip": round(a + b + partial_in + partial_out + stored + loaded),
        "input": round(result[fields.IN_READ] + a) + matrix.result_bytes,
        "weight": round(result[fields.WEIGHT_READ] + b),
        "output": round(result[fields.OUT_READ] + result[fields.OUT_WRITE] + partial_in),
        **({"host": matrix.host_bytes} if matrix.host_bytes else {}),
    }
    mapping = {
        "batch": shape.batch, "m": shape.m, "n": shape.n, "k": shape.k,
        "tile_m": int(chosen[0].max()), "tile_n": int(chosen[3].max()), "tile_k": int(chosen[6].max()),
        "loop_order": ORDER_NAMES[picked[3]], "tiles": int(result[fields.STEPS]), "folds": int(result[fields.FOLDS]),
        "groups_per_fold": packed, **shared(array, work), "mappings_simulated": int(simulated),
        "loads_a_bytes": round(a), "loads_b_bytes": round(b), "partial_sum_bytes": round(partial_in + partial_out),
        "array_occupancy": op.macs * matrix.cycles_per_mac / float(result[fields.ARRAY_BUSY] * array.places),
    }  # fmt: skip
    return MatrixRun(
        max(time(machine, job), kernels.levels(machine, job, result)) if stepped else float(result[fields.TIME]),
        with_vector,
        array_only,
        ArrayCycles(*(float(result[f]) for f in (fields.ARRAY_BUSY, fields.LOAD_WAIT, fields.LOAD_SHOWN))),
        sizes,
        mapping,
    )


def _moved(
    matrix: MatrixJob, shape: Shape, chosen: list[npt.NDArray[np.float64]], result: npt.NDArray[np.float64]
) -> list[Moved]:
    """The operands of a mapping as rows of its tiles. Feature maps lie with channels last, so that a tile of whole channels is in
    one piece; matrices lie row by row."""
    n, k = float(chosen[3].max()), float(chosen[6].max())
    a, b, c = matrix.a_bytes, matrix.b_bytes, matrix.store_bytes / max(1, shape.batch * shape.m * shape.n)
    conv = shape.convolution is not None
    partial = matrix.partial_bytes
    return [
        Moved(result[fields.LOAD_A], shape.k * a if conv else k * a, shape.k * a),
        Moved(result[fields.LOAD_B], shape.n * b if conv else n * b, shape.n * b),
        Moved(result[fields.LOAD_PARTIAL], n * partial, shape.n * partial),
        Moved(result[fields.STORE_PARTIAL], n * partial, shape.n * partial, written=True),
        Moved(result[fields.LOAD_EXTRA], 1.0, 1.0),
        Moved(result[fields.STORE_OUT], n * c, shape.n * c, written=True),
    ]


def _too_small(spec: SystolicSpec, op: Matmul | Convolution, job: npt.NDArray[np.float64], found: tuple[Any, ...]) -> InputError:
    """Which buffer cannot hold one tile, and what it would take."""

    def least(d: int, which: int) -> float:
        starts, values = found[4 * d], found[4 * d + which]
        return min(float(values[starts[i] : starts[i + 1]].max()) for i in range(starts.size - 1))

    groups = (1 + job[fields.EXTRA_PACKED]) * (1 + job[fields.EXTRA_BESIDE])
    needs = {
        "input": least(0, 2) * least(2, 2) * job[fields.A_BYTES],
        "weight": least(2, 3) * least(1, 2) * job[fields.B_BYTES],
        "output": least(0, 1) * least(1, 1) * job[fields.P_BYTES] * groups,
    }
    for name, need in needs.items():
        pad = getattr(spec.memory, name)
        if need > pad.tile_bytes:
            halves = " (half of it, double-buffered)" if pad.double_buffered else ""
            return InputError(
                f"device {spec.name!r}: memory.{name}.capacity_bytes: {pad.capacity_bytes} bytes{halves} cannot hold one tile of "
                f"op {op.name!r}, which takes {need:.0f} bytes"
            )
    return InputError(f"device {spec.name!r}: op {op.name!r} has more than {fields.MAX_STEPS} of the largest tiles that fit")
