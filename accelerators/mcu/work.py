"""What an operator is to the cores: instructions, loads and stores, and into how many pieces it can be cut."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from accelerators.mcu.contention import unit_wait_cycles, wait_cycles
from hwsim.operators import (
    Convolution,
    Elementwise,
    Gather,
    Matmul,
    Normalization,
    Op,
    Reduction,
    Scan,
    Scatter,
    Softmax,
    SpikingLayer,
)

if TYPE_CHECKING:
    from accelerators.mcu.spec import McuClusterSpec, McuMac

WORD_BYTES = 4
"""Bytes of a core's register, of a load and of a bank's port."""


@dataclass(frozen=True)
class Work:
    """The work of one operator.

    Attributes:
        cycles: of one core that does all of it, waiting for nothing.
        accesses: words it loads and stores.
        fpu_cycles: cycles of a floating-point unit.
        units: equal pieces that need nothing of each other.
        pieces: parts that one unit can be cut into, whose results are then combined.
        combine_cycles: to combine one part's result with another's.
        chain_cycles: no number of cores is faster (the steps of a recurrence).
    """

    cycles: float
    accesses: float = 0.0
    fpu_cycles: float = 0.0
    units: int = 1
    pieces: int = 1
    combine_cycles: float = 0.0
    chain_cycles: float = 0.0


def slices(units: Any, cores: int, pieces: int = 1, combine: float = 0.0) -> tuple[Any, Any]:
    """(units of work until the last core is done, cores that have work), for one number of units or an array of them.

    As many whole rounds as there are units for all cores are dealt. The rest is one more round, or, where this is faster, is cut:
    every unit of it into the same number of parts, dealt evenly, and then each unit's other parts are combined with its first
    one by one.

    Args:
        pieces: parts that a unit can be cut into.
        combine: work of combining one part, in units.
    """
    units = np.maximum(1, np.asarray(units))
    rounds, rest = np.divmod(units, cores)
    last, busy = (rest > 0).astype(float), rest
    for parts in range(2, min(pieces, cores) + 1):
        cut = -(-rest * parts // cores) * (-(-pieces // parts) / pieces) + (parts - 1) * combine
        better = (rest > 0) & (cut < last)
        last, busy = np.where(better, cut, last), np.where(better, np.minimum(rest * parts, cores), busy)
    return rounds + last, np.where(rounds > 0, cores, busy)


def spread(spec: McuClusterSpec, work: Work, sizes: Any, counts: Any) -> tuple[Any, Any, Any]:
    """(cycles until the last core is done, cycles that it waits for banks, cores that have work), all work done tile by tile.

    The cycles hold the waits for floating-point units; those for banks are apart.

    Args:
        sizes, counts: arrays (kinds of tiles, …): units of a tile and how many such tiles.
    """
    cores, serial = spec.cores, spec.parallel.serial_fraction
    counts = np.asarray(counts)
    shape = counts.shape[1:]
    if not work.cycles:
        return np.full(shape, work.chain_cycles), np.zeros(shape), np.ones(shape, dtype=int)
    whole = max(1, work.units)
    each = work.combine_cycles * whole / work.cycles
    longest, busy = slices(sizes, cores, work.pieces, each)
    least, _ = slices(whole, cores, work.pieces, each)
    most = np.where(counts > 0, busy, 1).max(axis=0)
    # Tiles that k is cut into hold parts of the same units; and no tiling balances better than all at once.
    share = (longest * counts).sum(axis=0) / (np.asarray(sizes) * counts).sum(axis=0)
    critical = work.cycles * np.maximum(share, least / whole)
    if cores > 1:
        critical = serial * work.cycles + (1 - serial) * critical
    share = critical / work.cycles
    if spec.fpus is not None and work.fpu_cycles:
        density = work.fpu_cycles / work.cycles
        waits = np.array([0.0, *(unit_wait_cycles(-(-n // spec.fpus.count), density) for n in range(1, cores + 1))])
        critical = critical + share * work.fpu_cycles * waits[most]
    critical = np.maximum(critical, work.chain_cycles)
    stall = share * work.accesses * wait_cycles(most, spec.l1.banks, share * work.accesses / critical)
    return critical, stall, most


def product_work(
    spec: McuClusterSpec, mac: McuMac, shape: tuple[int, int, int, int], *, result_bytes: float, unrolled_bytes: float = 0.0
) -> Work:
    """A matrix product: blocks of sums in registers, k in the inner loop.

    For each of ⌈k / macs_per_instruction⌉ steps a block of h × w sums loads h + w words and executes h·w instructions.

    Args:
        shape: batch, m, n, k.
        result_bytes: of one element of the result.
        unrolled_bytes: of a row of the first operand that is copied together before it is used (a convolution's window).
    """
    batch, m, n, k = shape
    core = spec.core
    rows, columns = -(-m // mac.block_rows), -(-n // mac.block_columns)
    steps = -(-k // mac.macs_per_instruction)
    loads = steps * (columns * m + rows * n)
    sums = m * n
    stores = math.ceil(sums * result_bytes / WORD_BYTES)
    copied = m * math.ceil(unrolled_bytes / WORD_BYTES)
    cycles = (
        loads * core.load_cycles
        + steps * (sums * mac.instruction_cycles + rows * columns * core.loop_cycles)
        + sums * mac.output_cycles
        + stores * core.store_cycles
        + copied * (core.load_cycles + core.store_cycles)
    )
    return Work(
        cycles=batch * cycles,
        accesses=float(batch * (loads + stores + 2 * copied)),
        fpu_cycles=float(batch * steps * sums) if mac.on_fpu else 0.0,
        units=batch * rows * columns,
        pieces=steps,
        combine_cycles=mac.block_rows * mac.block_columns * (mac.instruction_cycles + core.load_cycles),
    )


def convolution_window_bytes(op: Op, element_bytes: float) -> float:
    """Bytes of one window that a convolution copies together; none where a window is one pixel."""
    if not isinstance(op, Convolution) or math.prod(op.kernel) == 1:
        return 0.0
    return op.in_channels // op.groups * math.prod(op.kernel) * element_bytes


def vector_work(spec: McuClusterSpec, op: Op, format: str, *, read_bytes: float, written_bytes: float) -> Work:
    """An operator that is no matrix product: its primitive operations, and its operands and results word by word.

    A gather or scatter loads and stores element by element.
    """
    arithmetic, words = spec.arithmetic_for(format)
    core = spec.core
    busy = words * arithmetic.cycles(op.operations)
    loads, stores = math.ceil(read_bytes / WORD_BYTES), math.ceil(written_bytes / WORD_BYTES)
    if isinstance(op, Gather | Scatter):
        loads, stores = op.elements + op.indices, op.elements
    cycles = busy + loads * (core.load_cycles + core.loop_cycles) + stores * core.store_cycles
    add = words * arithmetic.cycles_per_operation["add"] + core.load_cycles + core.store_cycles
    units, pieces = max(1, op.elements_out), 1
    if isinstance(op, Reduction | Softmax | Normalization) and op.operation != "batch_norm":
        units, pieces = max(1, op.rows), max(1, op.row_length)
    chain = 0.0
    if isinstance(op, Scan):
        units, chain = max(1, op.width), op.length * spec.scan_step_cycles
    elif isinstance(op, SpikingLayer):
        units = max(1, op.neurons)
    return Work(
        cycles=cycles,
        accesses=float(loads + stores),
        fpu_cycles=busy if arithmetic.on_fpu else 0.0,
        units=units,
        pieces=pieces,
        combine_cycles=add,
        chain_cycles=chain,
    )


def follows_in_place(op: Op) -> bool:
    """Whether each core needs of a tensor only the slice that it works on itself: so no barrier before it."""
    return (isinstance(op, Elementwise) and op.aligned) or isinstance(op, Gather)


def vector_format(op: Op) -> str:
    """The format that a vector operator computes in: the widest float it reads, otherwise its first operand's."""
    from numerics.formats import FloatFormat, get_format

    if op.formats is None or not op.formats.operands:
        return "int32"
    floats = [name for name in op.formats.operands if isinstance(get_format(name), FloatFormat)]
    return max(floats, key=lambda name: get_format(name).bits) if floats else op.formats.operands[0]


def product_shape(op: Matmul | Convolution) -> tuple[int, int, int, int]:
    """Batch, m, n, k of a product; the images of a convolution count as its batch."""
    if isinstance(op, Matmul):
        return op.batch, op.m, op.n, op.k
    groups, m, n, k = op.matmul_dims
    return (groups, m, n, k) if op.computes == "weight" else (groups * op.batch, m // op.batch, n, k)
