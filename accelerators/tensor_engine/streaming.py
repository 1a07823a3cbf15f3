"""Kernels without tiles: elementwise, row-wise, gathers, copies, and fused attention, each a closed form."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from accelerators.tensor_engine import _kernels as kernels
from accelerators.tensor_engine.matmul import Product, Work, off_chip_rates
from accelerators.tensor_engine.spec import KernelSpec, TensorEngineSpec
from hwsim.machine import format_bytes
from hwsim.operators import Attention, Gather, Normalization, Op, Reduction, Scatter, Softmax
from hwsim.schedule import Traffic
from hwsim.workload import Workload


def streaming_work(
    spec: TensorEngineSpec, workload: Workload, op: Op, part: Traffic, kernel: KernelSpec, conversion: tuple[float, float]
) -> Work:
    """What an operator on the vector lanes takes.

    Transfers D off chip, further passes L over rows through L2 and the lanes' work V overlap as far as a unit has several rows
    under way: max(D, L, V) + min(D, L) / rows, all of L beside D where rows are kept in registers.

    Args:
        part: bytes that it must move.
        conversion: (lane cycles, joules) to bring operands to the format they are consumed in.
    """
    clock, memory = spec.clock_hz, spec.memory
    convert_cycles, convert_j = conversion
    lanes = (spec.vector_unit.op_cycles(op) + convert_cycles / spec.vector_unit.lanes) / (kernel.efficiency or 1.0)
    load, store = float(part.load_bytes), float(part.store_bytes)
    read, active, rows = 0.0, spec.units, 1
    if isinstance(op, Softmax | Normalization | Reduction) and op.elements and op.operation != "batch_norm":
        row_bytes = (part.touched_bytes - part.result_bytes) / max(1, op.rows)
        if op.row_length > kernel.kept_row_elements and not isinstance(op, Reduction):  # type: ignore[operator]
            read = (kernel.passes - 1) * float(part.touched_bytes - part.result_bytes)  # type: ignore[operator]
        rows = kernel.rows_per_unit or 1
        active = min(spec.units, max(1, op.rows))
        lanes += math.ceil(op.rows / spec.units) * (kernel.row_cycles or 0.0)
        under_way = min(op.rows, spec.units * rows) * row_bytes
        # Rows under way that L2 cannot hold are evicted before they are read again.
        missed = min(1.0, max(0.0, under_way / memory.l2.capacity_bytes - 1.0))
        load += read * missed if load else 0.0
    run_bytes = None
    if isinstance(op, Gather | Scatter) and op.indices and op.elements:
        width = op.elements * format_bytes(_stored(workload, op)) / op.indices
        whole = math.ceil(width / memory.off_chip.sector_bytes) * memory.off_chip.sector_bytes
        extra = op.indices * (whole - width)
        run_bytes = whole
        if isinstance(op, Gather):
            load += extra
        else:
            store += extra
            load += op.indices * whole if op.accumulate else extra  # a part of a sector is read to be written back
    moved = load + store
    written = round(store / moved, 1) if moved else 0.0
    all_bps, unit_bps = off_chip_rates(spec, kernel, write_fraction=written, run_bytes=run_bytes)
    off_s = moved / min(all_bps, active * unit_bps)
    touched = max(float(part.touched_bytes), moved) + read
    l2_rate = min(memory.l2.bytes_per_cycle * memory.l2.achieved_fraction, active * memory.l2.unit_bytes_per_cycle)
    again_s = read / (l2_rate * (kernel.reread_fraction or 1.0)) / clock
    l2_cycles = max(touched / l2_rate, again_s * clock)
    serial = min(off_s, again_s) / rows
    core_j = spec.vector_unit.energy_j(op.operations) + convert_j
    return finish(
        spec, unit_cycles=lanes, l2_cycles=l2_cycles, off_s=off_s, serial_cycles=serial * clock, hidden=kernel.hidden,
        bytes={"off_chip": int(moved), "l2": int(touched)}, core={"vector": core_j},
    )  # fmt: skip


def _stored(workload: Workload, op: Op) -> str:
    """Format of what a gather reads or a scatter writes."""
    name = op.inputs[0] if isinstance(op, Gather) and op.inputs else (*op.outputs, *op.inputs)[0]
    return workload.tensors[name].format


def finish(
    spec: TensorEngineSpec,
    *,
    unit_cycles: float,
    l2_cycles: float,
    off_s: float,
    serial_cycles: float,
    bytes: Mapping[str, int],
    core: Mapping[str, float],
    fill_s: float = 0.0,
    hidden: float = 1.0,
    peak_macs_per_cycle: float = 0.0,
    details: Mapping[str, object] | None = None,
) -> Work:
    """The work of a kernel from its parts, at the clock that the limit of power leaves it.

    Args:
        unit_cycles, l2_cycles, off_s: of the units, of L2, off chip; they overlap.
        hidden: share of the shorter of units' work and off-chip transfers that the longer one hides.
        serial_cycles: cycles that overlap nothing.
        bytes: level → bytes.
        core: component → joules on the chip at the highest clock; those of L2 and beyond are added.
        fill_s: what must pass before the first result.
    """
    memory = spec.memory
    per_byte = {
        "register": memory.register_file.energy_pj_per_byte,
        "shared": memory.shared.energy_pj_per_byte,
        "l2": memory.l2.energy_pj_per_byte,
    }
    moved = {name: bytes[name] * energy * 1e-12 for name, energy in per_byte.items() if name in bytes}
    core_j = sum(core.values()) + sum(moved.values())
    off_j = bytes["off_chip"] * memory.off_chip.energy_pj_per_byte * 1e-12
    clock = spec.clock_hz
    work = max(unit_cycles / clock + fill_s, l2_cycles / clock + fill_s, off_s + fill_s) + serial_cycles / clock
    work += (1.0 - hidden) * min(unit_cycles / clock, off_s)
    if core_j + off_j > (spec.power.limit_w - spec.static_power_w) * work:
        hw = np.zeros(kernels.HW_FIELDS)
        hw[kernels.CLOCK], hw[kernels.STATIC_W], hw[kernels.LIMIT_W] = clock, spec.static_power_w, spec.power.limit_w
        hw[kernels.MIN_CLOCK], hw[kernels.E_EXPONENT] = spec.power.minimum_clock_hz, spec.power.energy_exponent
        hw[kernels.EXPOSED] = 1.0 - hidden
        parts = (unit_cycles, fill_s, l2_cycles, off_s, fill_s, serial_cycles)
        clock = float(kernels.clock_under_limit(hw, core_j, off_j, *parts))
        work = float(kernels.work_time(clock, *parts, 1.0 - hidden))
    scale = (clock / spec.clock_hz) ** spec.power.energy_exponent
    energy = {name: joules * scale for name, joules in {**core, **moved}.items()} | {"off_chip": off_j}
    compute = min(work, unit_cycles / clock)
    return Work(work, clock, compute, bytes, energy, peak_macs_per_cycle, details or {})


def attention_work(
    spec: TensorEngineSpec, workload: Workload, op: Attention, part: Traffic, kernel: KernelSpec, product: Product,
    conversion: tuple[float, float],
) -> Work:  # fmt: skip
    """What fused attention takes: a tile of query rows a unit, keys and values streamed past it, scores kept on the unit.

    The query heads that share keys and values lie in one tile (``stacks_heads``); where tiles are fewer than units, keys are
    divided among them (Dao, "FlashAttention-2", arXiv 2307.08691, section 3.2, and FlashDecoding). Products and exponentials of a
    unit's ``tiles_per_unit`` tiles overlap: max(MACs, exponentials) + min(MACs, exponentials) / tiles. Masked scores are
    computed too.
    """
    choice, memory, mac = spec.attention, spec.memory, product.mac
    shared_by = op.heads // op.kv_heads
    stacked = op.query_length * (shared_by if choice.stacks_heads else 1)
    tall = min(choice.query_rows, max(choice.least_rows, 1 << (stacked - 1).bit_length()))
    high = math.ceil(stacked / tall) * (1 if choice.stacks_heads else shared_by)
    heads = op.batch * op.kv_heads
    tiles = heads * high
    split = 1
    if op.computes == "output":
        split = max(1, min(math.ceil(op.key_length / choice.key_columns), spec.units // tiles))
    keys = math.ceil(math.ceil(op.key_length / split) / choice.key_columns) * choice.key_columns
    count = tiles * split
    waves = math.ceil(count / spec.units)
    depth = op.macs // op.scores
    scores = waves * tall * keys
    mac_cycles = scores * depth / (mac.macs_per_cycle * spec.matrix.efficiency * choice.efficiency)
    per_score = spec.vector_unit.cycles(op.operations) * spec.units / op.scores
    vector_cycles = (scores * per_score + conversion[0] / spec.vector_unit.lanes) / (kernel.efficiency or 1.0)
    unit_cycles = max(mac_cycles, vector_cycles) + min(mac_cycles, vector_cycles) / choice.tiles_per_unit

    offset = 0 if op.computes == "output" else 1
    kv_bytes = sum(workload.read_bytes(op, i) for i in (offset + 1, offset + 2))
    again = kv_bytes * (high - 1)
    alive = min(heads, math.ceil(spec.units * choice.tiles_per_unit / high))
    missed = min(1.0, max(0.0, alive * kv_bytes / heads / memory.l2.capacity_bytes - 1.0))
    sum_bytes = format_bytes(product.sums)
    partial = 2 * split * op.elements_out * sum_bytes if split > 1 else 0.0
    moved = part.load_bytes + part.store_bytes + (again * missed if part.load_bytes else 0.0)
    moved += partial if partial > memory.l2.capacity_bytes else 0.0
    l2_bytes = max(part.touched_bytes + again, moved) + partial
    active = min(spec.units, count)
    all_bps, unit_bps = off_chip_rates(spec, kernel)
    l2_rate = min(memory.l2.bytes_per_cycle * memory.l2.achieved_fraction, active * memory.l2.unit_bytes_per_cycle)
    fills = math.ceil(waves / choice.tiles_per_unit) + (1 if split > 1 else 0)
    macs = op.macs
    # Scores and probabilities pass through registers once each; keys and values are written to shared memory and read from it
    # for each tile.
    shared = int(2 * count * keys * (op.head_dim + op.value_dim) * format_bytes(product.stored[1]))
    used, instruction = format_bytes(product.pair[0]), spec.matrix.instruction
    registers = int(macs * (used / instruction.n + 2 * sum_bytes * used / instruction.k_bytes))
    unit_cycles = max(
        unit_cycles,
        shared / active / memory.shared.bytes_per_cycle,
        registers / active / memory.register_file.bytes_per_cycle,
    )
    return finish(
        spec, unit_cycles=unit_cycles, l2_cycles=l2_bytes / l2_rate, off_s=moved / min(all_bps, active * unit_bps),
        serial_cycles=0.5 * partial / l2_rate, fill_s=fills * spec.matrix.tile_latency_s, hidden=kernel.hidden,
        bytes={"off_chip": int(moved), "l2": int(l2_bytes), "shared": shared, "register": registers},
        core={"mac": macs * mac.energy_pj * 1e-12, "vector": spec.vector_unit.energy_j(op.operations) + conversion[1]},
        peak_macs_per_cycle=spec.units * mac.macs_per_cycle,
        details={"tile": f"{tall}x{choice.key_columns}", "split_k": split, "waves": waves},
    )  # fmt: skip
