"""The kernels of a compiler, in closed form: what a matrix operator takes where windows of it, not a search's tiles, are moved.

A kernel runs on ``cores``, which divide the columns, else the rows, of the result among them, or the products of a batch. Each
reads the whole of the operand that the division does not touch. With L bytes to load (those copies included), L₁ of them in the
first windows, S bytes of results and B bytes a cycle off chip,

    cycles = latency + L₁/B + max(arrays, vector unit, (L − L₁)/B) + S/(B·store_fraction)

where ``arrays`` is the closed form of ``accelerators.systolic.analytic``. The first window of an operand spans all of n, and
``window`` elements of m and of k. Where neither operand fits its buffer, blocks of results that fit the output buffer read both
again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from accelerators.systolic.cycle import step_tiles
from accelerators.systolic.ideal import arrays_time, buffer_elements, on_arrays, operand_elements, shared
from accelerators.systolic.jobs import ArrayCycles, MatrixJob, MatrixRun, VectorJob
from accelerators.systolic.mapping import shape_of
from accelerators.systolic.spec import KernelWindows, SystolicSpec
from numerics.errors import InputError

MOST_BLOCKS_LOG2 = 24
"""Blocks of results are as wide as the array, or this many doublings of it at most."""


class Sizes(NamedTuple):
    """Matrix operators, as numbers or arrays of numbers.

    Attributes:
        batch, m, n, k: products, and sizes of one.
        a, b: bytes of both operands, 0 for one that is on chip.
        other: bytes loaded beside them.
        store: bytes of results.
        buffers: bytes that pass the input, the weight and the output buffer, but for what is loaded of A and B.
        beside: off-chip bytes of operators beside this one.
    """

    batch: Any
    m: Any
    n: Any
    k: Any
    a: Any
    b: Any
    other: Any
    store: Any
    buffers: tuple[Any, Any, Any]
    beside: Any = 0


class Moved(NamedTuple):
    """What the kernel does with them.

    Attributes:
        cycles: from the first load to the last store.
        waiting: those in which neither array nor vector unit works and loads are on their way.
        first: bytes of the first windows.
        load_a, load_b: bytes loaded, copies for other cores and repeated reads included.
    """

    cycles: Any
    waiting: Any
    first: Any
    load_a: Any
    load_b: Any


def copies(kernel: KernelWindows, columns: int, batch: Any, m: Any, n: Any) -> tuple[Any, Any, Any]:
    """(cores that read A, cores that read B, products under way at once): the division of work among the cores."""
    cores = kernel.cores
    by_product = np.asarray(batch) >= cores
    by_column = ~by_product & (np.asarray(n) >= cores * columns)
    by_row = ~by_product & ~by_column
    return np.where(by_column, cores, 1), np.where(by_row, np.minimum(cores, m), 1), np.where(by_product, cores, 1)


def repeats(spec: SystolicSpec, sizes: Sizes, partial_bytes: Any) -> tuple[Any, Any]:
    """How often A and B are read: once, unless neither fits its buffer."""
    memory, columns = spec.memory, spec.array.columns
    m, n = np.asarray(sizes.m), np.asarray(sizes.n)
    a, b = sizes.a / np.asarray(sizes.batch), sizes.b / np.asarray(sizes.batch)
    fits = (a <= memory.input.capacity_bytes) | (b <= memory.weight.capacity_bytes)
    most = memory.output.tile_bytes / partial_bytes
    best: Any = np.inf
    times_a, times_b = np.ones_like(m), np.ones_like(m)
    for doublings in range(MOST_BLOCKS_LOG2):
        width = np.minimum(n, columns << doublings)
        height = np.maximum(1, most // width)
        again_a, again_b = np.ceil(n / width), np.ceil(m / height)
        size = np.where(width <= most, a * again_a + b * again_b, np.inf)
        better = size < best
        best = np.where(better, size, best)
        times_a, times_b = np.where(better, again_a, times_a), np.where(better, again_b, times_b)
        if np.all(width == n):
            break
    return np.where(fits, 1, times_a), np.where(fits, 1, times_b)


def moved(spec: SystolicSpec, sizes: Sizes, partial_bytes: Any, array: Any, vector: Any) -> Moved:
    """What kernels take, given the cycles of the arrays and of the vector unit."""
    kernel, memory, off_chip = spec.kernel, spec.memory, spec.memory.off_chip
    assert kernel is not None
    rate = off_chip.achieved_bytes_per_s / spec.clock_hz
    m, k, batch = np.asarray(sizes.m), np.asarray(sizes.k), np.asarray(sizes.batch)
    copies_a, copies_b, under_way = copies(kernel, spec.array.columns, batch, m, sizes.n)
    times_a, times_b = repeats(spec, sizes, partial_bytes)
    rows, depth = np.minimum(m, kernel.window) / m, np.minimum(k, kernel.window) / k
    first = (sizes.a * copies_a * rows * depth + sizes.b * copies_b * depth) * under_way / batch
    load_a, load_b = sizes.a * copies_a * times_a, sizes.b * copies_b * times_b
    load = load_a + load_b + sizes.other
    before = np.where(load > 0, off_chip.latency_s * spec.clock_hz, 0.0) + first / rate
    work = np.maximum(array, vector)
    body = np.maximum(work, (load - first) / rate)
    cycles = before + body + sizes.store / (rate * kernel.store_fraction)
    inside, weights, sums = sizes.buffers
    for size, per_cycle in (
        (load + sizes.store + sizes.beside, rate),
        (inside + load_a, memory.input.bytes_per_cycle),
        (weights + load_b, memory.weight.bytes_per_cycle),
        (sums, memory.output.bytes_per_cycle),
    ):
        cycles = np.maximum(cycles, size / per_cycle)
    return Moved(cycles, before + body - work, first, load_a, load_b)


def window_run(
    spec: SystolicSpec, matrix: MatrixJob, streamed: Sequence[VectorJob], background: Sequence[VectorJob], *, stepped: bool
) -> MatrixRun:
    """A matrix operator and what streams behind it.

    Args:
        stepped: whether the arrays' control is stepped through every cycle.

    Raises:
        InputError: row-wise operators, and an output buffer that does not hold rows of results.
    """
    op, array, shape = matrix.op, spec.array, shape_of(matrix.op)
    rows = min(shape.m, array.rows)
    if any(job.row_wise for job in streamed) and rows * shape.n * matrix.partial_bytes > spec.memory.output.tile_bytes:
        raise InputError(
            f"device {spec.name!r}: memory.output.capacity_bytes: {spec.memory.output.capacity_bytes} bytes do not hold {rows} "
            f"rows of op {op.name!r}, which a row-wise operator needs"
        )
    time, packed = on_arrays(spec, shape, matrix.cycles_per_mac)
    cycles = float(time.cycles)
    if stepped:
        stream = {"weight_stationary": shape.m, "output_stationary": shape.k, "input_stationary": shape.n}[array.dataflow]
        part, interval = -(-stream // int(time.split)), matrix.cycles_per_mac / array.streaming_fraction
        count = round(float(time.active) / (part * interval))
        cycles = float(step_tiles(array, np.array([[count, part, 0.0, 0.0, array.rows, interval]])))
    once_a, once_b = operand_elements(op)
    read_a, read_b, sums = buffer_elements(array, shape.m, shape.n, shape.k, shape.batch)
    sizes = Sizes(
        batch=shape.batch, m=shape.m, n=shape.n, k=shape.k,
        a=0.0 if matrix.a_resident else once_a * matrix.a_bytes,
        b=0.0 if matrix.b_resident else once_b * matrix.b_bytes,
        other=matrix.extra_load_bytes + sum(job.load_bytes for job in streamed),
        store=matrix.store_bytes + sum(job.store_bytes for job in streamed),
        buffers=(
            read_a * matrix.a_bytes + matrix.result_bytes + sum(job.touched_bytes for job in (*streamed, *background)),
            read_b * matrix.b_bytes, sums * matrix.partial_bytes,
        ),
        beside=sum(job.load_bytes + job.store_bytes for job in background),
    )  # fmt: skip
    vector = matrix.vector_cycles + sum(job.work_cycles for job in streamed)
    found = moved(spec, sizes, matrix.partial_bytes, cycles, vector)
    load_a, load_b = float(found.load_a), float(found.load_b)
    loads = load_a + load_b + sizes.other
    stationary = load_a if array.dataflow == "input_stationary" else load_b
    split = copies(spec.kernel, array.columns, shape.batch, shape.m, shape.n) if spec.kernel is not None else (1, 1, 1)
    return MatrixRun(
        time=float(found.cycles),
        ideal=max(cycles, vector),
        array_only=cycles,
        array=ArrayCycles(
            float(time.active), float(found.waiting) * stationary / loads if loads else 0.0, min(float(time.load), cycles)
        ),
        bytes={
            "off_chip": round(load_a + load_b + matrix.extra_load_bytes + matrix.store_bytes),
            "input": round(float(read_a) * matrix.a_bytes + load_a) + matrix.result_bytes,
            "weight": round(float(read_b) * matrix.b_bytes + load_b),
            "output": round(float(sums) * matrix.partial_bytes),
            **({"host": matrix.host_bytes} if matrix.host_bytes else {}),
        },
        mapping={
            "batch": shape.batch, "m": shape.m, "n": shape.n, "k": shape.k, "groups_per_fold": packed,
            **shared(array, time), "copies_a": int(split[0]), "copies_b": int(split[1]),
            "first_window_bytes": round(float(found.first)), "loads_a_bytes": round(load_a), "loads_b_bytes": round(load_b),
            "array_occupancy": op.macs * matrix.cycles_per_mac / (float(time.active) * array.places),
        },
    )  # fmt: skip


def matmul_cycles(spec: SystolicSpec, sizes: Sizes, partial_bytes: float, cycles_per_mac: float, vector: Any) -> tuple[Any, Any]:
    """(cycles with launches left out, those with ideal memory) of many plain matmuls: what ``window_run`` finds for each, unless
    it packs groups."""
    array = arrays_time(spec.array, sizes.m, sizes.n, sizes.k, sizes.batch, cycles_per_mac).cycles
    return moved(spec, sizes, partial_bytes, array, vector).cycles, np.maximum(array, vector)
