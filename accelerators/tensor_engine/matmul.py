"""Matrix products on a tensor engine: from an operator to a job of the tile search, and back to what it takes.

A product is cut into tiles, one a unit; ⌈tiles / units⌉ waves follow one another. Its work takes

    max(waves × tile work / clock + fills, L2 bytes / L2 bandwidth + fill, off-chip bytes / bandwidth + fill) + split sums

where a tile's work is the slowest of MACs, registers, shared memory and the widening of narrow operands, and a fill is
``matrix.tile_latency_s``, once for as many waves as a unit holds at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from accelerators.tensor_engine import _kernels as kernels
from accelerators.tensor_engine.spec import EngineFormat, KernelSpec, TensorEngineSpec
from hwsim.machine import format_bytes
from numerics.errors import InputError

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Product:
    """What the tile search needs to know of a matrix product, besides its shape.

    Attributes:
        name: of the operator.
        kernel: how it is run.
        mac: what a MAC takes.
        pair: formats that are multiplied.
        stored: formats in which the two operands lie in memory.
        result: format of the results.
        sums: format of the sums.
        widen: for each operand, (lane cycles, picojoules) to widen an element as it is used; (0, 0) for none.
        sparse: whether the second operand is stored and multiplied in the sparse pattern.
    """

    name: str
    kernel: KernelSpec
    mac: EngineFormat
    pair: tuple[str, str]
    stored: tuple[str, str]
    result: str
    sums: str
    widen: tuple[tuple[float, float], tuple[float, float]] = ((0.0, 0.0), (0.0, 0.0))
    sparse: bool = False


@dataclass(frozen=True)
class Job:
    """One product with its shape.

    Attributes:
        product: its kind.
        shape: batch, m, n, k.
        operand_bytes: off-chip bytes of the two operands, each read once (0 for one that lies in L2).
        other_bytes: off-chip bytes of further operands and results.
        touched_bytes: of all operands and results, wherever they lie.
        vector_cycles: of all lanes, for what runs in the same kernel.
        direct: whether the vector lanes may compute it without tiles (a grouped convolution).
        inside: share of its MACs that are computed: those with a zero of the padding need not be (``KernelSpec.skips_padding``).
    """

    product: Product
    shape: tuple[int, int, int, int]
    operand_bytes: tuple[float, float]
    other_bytes: float
    touched_bytes: float
    vector_cycles: float = 0.0
    direct: bool = False
    inside: float = 1.0


@dataclass(frozen=True)
class Work:
    """What a kernel takes once it runs.

    Attributes:
        work_s: its duration.
        clock_hz: the clock it runs at.
        compute_s: of this, while units compute.
        bytes: level → bytes read and written.
        energy_j: component → joules, static power apart.
        peak_macs_per_cycle: of the whole chip in its formats.
        details: a row of the report's table ``kernels``.
    """

    work_s: float
    clock_hz: float
    compute_s: float
    bytes: Mapping[str, int]
    energy_j: Mapping[str, float]
    peak_macs_per_cycle: float = 0.0
    details: Mapping[str, Any] = field(default_factory=dict)


class TileSearch:
    """The products of one engine, many at a time."""

    def __init__(self, spec: TensorEngineSpec) -> None:
        self._spec = spec

    @cached_property
    def _tiles(self) -> Array:
        rows = [(t.m, t.n, t.warp_m, t.warp_n, t.rate_fraction) for t in self._spec.matrix.tiles]
        return np.array(rows, dtype=np.float64)

    @cached_property
    def _splits(self) -> Array:
        return np.array(sorted(self._spec.matrix.split_k), dtype=np.float64)

    def machine(self, product: Product) -> Array:
        """The machine vector of ``_kernels`` for products of one kind."""
        mac, kernel = product.mac, product.kernel
        width = max(format_bytes(name) for name in product.pair)
        spec = self._spec
        matrix, memory, instruction = spec.matrix, spec.memory, spec.matrix.instruction
        hw = np.zeros(kernels.HW_FIELDS)
        # A lane of the vector unit multiplies one pair at a time, from its registers.
        lanes = mac.pipe == "vector"
        hw[kernels.UNITS], hw[kernels.CLOCK], hw[kernels.RATE] = spec.units, spec.clock_hz, mac.macs_per_cycle
        hw[kernels.EFFICIENCY], hw[kernels.STAGES] = self._efficiency(kernel), matrix.stages
        hw[kernels.K_STEP] = max(1, int(matrix.k_step_bytes / width))
        hw[kernels.TILE_LATENCY] = matrix.tile_latency_s
        hw[kernels.REG_CAP], hw[kernels.REG_BPC] = memory.register_file.capacity_bytes, memory.register_file.bytes_per_cycle
        hw[kernels.SHARED_CAP], hw[kernels.SHARED_BPC] = memory.shared.capacity_bytes, memory.shared.bytes_per_cycle
        hw[kernels.L2_CAP] = memory.l2.capacity_bytes
        hw[kernels.L2_BPC] = memory.l2.bytes_per_cycle * memory.l2.achieved_fraction
        hw[kernels.L2_UNIT_BPC] = memory.l2.unit_bytes_per_cycle
        hw[kernels.OFF_BPS], hw[kernels.UNIT_OFF_BPS] = off_chip_rates(spec, kernel)
        hw[kernels.INSTR_M] = 1 if lanes else instruction.m
        hw[kernels.INSTR_N] = 1 if lanes else instruction.n
        hw[kernels.INSTR_K] = 1 if lanes else max(1.0, instruction.k_bytes / width)
        hw[kernels.FROM_SHARED] = instruction.operands == "shared" and not lanes
        hw[kernels.SUM_BYTES] = format_bytes(product.sums)
        hw[kernels.E_REG], hw[kernels.E_SHARED] = memory.register_file.energy_pj_per_byte, memory.shared.energy_pj_per_byte
        hw[kernels.E_L2], hw[kernels.E_OFF] = memory.l2.energy_pj_per_byte, memory.off_chip.energy_pj_per_byte
        hw[kernels.STATIC_W], hw[kernels.LIMIT_W] = spec.static_power_w, spec.power.limit_w
        hw[kernels.MIN_CLOCK], hw[kernels.E_EXPONENT] = spec.power.minimum_clock_hz, spec.power.energy_exponent
        hw[kernels.EXPOSED], hw[kernels.PACK_BPC] = 1.0 - kernel.hidden, kernel.pack_bytes_per_cycle or 0.0
        hw[kernels.CUT_EVENLY] = matrix.edges == "even"
        return hw

    def _efficiency(self, kernel: KernelSpec) -> float:
        return self._spec.matrix.efficiency * (kernel.efficiency or 1.0)

    def rows(
        self,
        product: Product,
        shapes: Array,
        operand_bytes: Array,
        other_bytes: Array,
        touched_bytes: Array,
        vector_cycles: Array | float = 0.0,
        direct: bool = False,
        inside: Array | float = 1.0,
    ) -> Array:
        """The jobs of ``_kernels`` for products of one kind: shapes (…, 4) of batch, m, n, k, the rest as in ``Job``."""
        spec, mac = self._spec, product.mac
        jobs = np.zeros((len(shapes), kernels.JOB_FIELDS))
        jobs[:, kernels.BATCH : kernels.K + 1] = shapes
        a, b = (format_bytes(name) for name in product.stored)
        factor = 1.0
        if product.sparse:
            b *= compressed(spec, product.stored[1])
            factor = spec.sparsity.rate
        jobs[:, kernels.A_BYTES], jobs[:, kernels.B_BYTES] = a, b
        jobs[:, kernels.A_USED], jobs[:, kernels.B_USED] = (format_bytes(name) for name in product.pair)
        jobs[:, kernels.A_OFF], jobs[:, kernels.B_OFF] = operand_bytes[:, 0], operand_bytes[:, 1]
        jobs[:, kernels.OTHER_OFF], jobs[:, kernels.TOUCHED] = other_bytes, touched_bytes
        jobs[:, kernels.OUT_BYTES] = format_bytes(product.result)
        (a_cycles, a_pj), (b_cycles, b_pj) = product.widen
        jobs[:, kernels.A_WIDEN], jobs[:, kernels.B_WIDEN] = a_cycles / spec.lanes_per_unit, b_cycles / spec.lanes_per_unit
        jobs[:, kernels.A_WIDEN_PJ], jobs[:, kernels.B_WIDEN_PJ] = a_pj, b_pj
        # A report counts every MAC: skipping some does not bring it above the peak.
        jobs[:, kernels.RATE_FACTOR] = factor * np.minimum(1.0 / np.asarray(inside), 1.0 / self._efficiency(product.kernel))
        macs = shapes.astype(np.float64).prod(axis=1)
        jobs[:, kernels.CORE_J] = macs * mac.energy_pj * 1e-12 * (spec.sparsity.density if product.sparse else 1.0)
        jobs[:, kernels.VECTOR_CYCLES] = vector_cycles
        if direct:
            unit = spec.vector_unit
            reached = product.kernel.direct_efficiency or 1.0
            cycles = macs * unit.cycles_per_operation["multiply_add"] / unit.lanes
            jobs[:, kernels.DIRECT_CYCLES] = cycles * np.maximum(1.0, np.divide(inside, reached))
        return jobs

    def search(self, product: Product, jobs: Array) -> Array:
        """The results of ``_kernels`` for jobs of one kind.

        Raises:
            InputError: no tile fits the engine's memories in these formats.
        """
        out = np.zeros((len(jobs), kernels.RESULT_FIELDS))
        hw = self.machine(product)
        kernels.best_tiles(jobs, hw, self._tiles, self._splits, out)
        none = (out[:, kernels.TILE] < 0) & (jobs[:, kernels.DIRECT_CYCLES] == 0)
        if none.any():
            raise InputError(
                f"device {self._spec.name!r}: op {product.name!r}: matrix.tiles: no tile in {'*'.join(product.pair)} fits "
                f"memory.shared.capacity_bytes and half of memory.register_file.capacity_bytes; expected a smaller tile"
            )
        return out

    def run(self, jobs: Sequence[Job]) -> list[Work]:
        """What each job takes; jobs of one kind are searched together."""
        kinds: dict[tuple[Any, ...], list[int]] = {}
        for index, job in enumerate(jobs):
            kinds.setdefault((*_kind(job.product), job.direct), []).append(index)
        found: list[Work | None] = [None] * len(jobs)
        for members in kinds.values():
            chosen = [jobs[i] for i in members]
            product, direct = chosen[0].product, chosen[0].direct
            rows = self.rows(
                product,
                np.array([j.shape for j in chosen], dtype=np.float64),
                np.array([j.operand_bytes for j in chosen], dtype=np.float64),
                np.array([j.other_bytes for j in chosen], dtype=np.float64),
                np.array([j.touched_bytes for j in chosen], dtype=np.float64),
                np.array([j.vector_cycles for j in chosen], dtype=np.float64),
                direct,
                np.array([j.inside for j in chosen], dtype=np.float64),
            )
            for index, row, result in zip(members, rows, self.search(product, rows), strict=True):
                found[index] = self._work(jobs[index], row, result)
        return [work for work in found if work is not None]

    def _work(self, job: Job, row: Array, result: Array) -> Work:
        spec, product = self._spec, job.product
        clock = float(result[kernels.RUN_CLOCK])
        scale = (clock / spec.clock_hz) ** spec.power.energy_exponent
        tile = int(result[kernels.TILE])
        work = float(result[kernels.WORK_S])
        compute = min(work, float(result[kernels.UNIT_CYCLES]) / clock)
        memory = spec.memory
        levels = {
            "off_chip": int(result[kernels.OFF_BYTES]),
            "l2": int(result[kernels.L2_BYTES]),
            "shared": int(result[kernels.SHARED_BYTES]),
            "register": int(result[kernels.REG_BYTES]),
        }
        energy = {
            "mac": float(row[kernels.CORE_J]) * scale,
            "vector": float(result[kernels.WIDEN_J]) * scale,
            "register": levels["register"] * memory.register_file.energy_pj_per_byte * 1e-12 * scale,
            "shared": levels["shared"] * memory.shared.energy_pj_per_byte * 1e-12 * scale,
            "l2": levels["l2"] * memory.l2.energy_pj_per_byte * 1e-12 * scale,
            "off_chip": levels["off_chip"] * memory.off_chip.energy_pj_per_byte * 1e-12,
        }
        chosen = spec.matrix.tiles[tile] if tile >= 0 else None
        details = {
            "tile": f"{chosen.m}x{chosen.n}" if chosen else "direct",
            "split_k": int(result[kernels.SPLIT]),
            "waves": int(result[kernels.WAVES]),
        }
        peak = spec.units * product.mac.macs_per_cycle * (spec.sparsity.rate if product.sparse else 1.0)
        return Work(work, clock, compute, levels, energy, peak, details)


def _kind(product: Product) -> tuple[Any, ...]:
    """What the search distinguishes products by."""
    return (
        product.pair, product.stored, product.result, product.sums, product.widen, product.sparse,
        id(product.kernel), id(product.mac),
    )  # fmt: skip


def compressed(spec: TensorEngineSpec, name: str) -> float:
    """Bytes of a weight tensor pruned in the pattern, with its indices, over those of the whole."""
    kept = spec.sparsity.density
    return min(1.0, kept + kept * spec.sparsity.index_bits / 8 / format_bytes(name))


def off_chip_rates(
    spec: TensorEngineSpec, kernel: KernelSpec, *, write_fraction: float = 0.0, run_bytes: int | None = None
) -> tuple[float, float]:
    """Bytes a second of all units, and of one: the bandwidth that is reached, and Little's law for what a unit has asked for.

    Args:
        write_fraction: share of the bytes that are written.
        run_bytes: contiguous bytes, of rows that lie anywhere; None for one contiguous block. A banked DRAM asks for both.
    """
    memory = spec.memory.off_chip
    fraction = memory.achieved_fraction if kernel.bandwidth_fraction is None else kernel.bandwidth_fraction
    rate = memory.bandwidth_bytes_per_s * fraction
    if memory.dram is not None:
        rate = min(rate, memory.achieved_bytes_per_s_for(run_bytes=run_bytes, write_fraction=write_fraction))
    unit = memory.in_flight_bytes_per_unit / memory.latency_s if memory.latency_s else np.inf
    return rate, unit
