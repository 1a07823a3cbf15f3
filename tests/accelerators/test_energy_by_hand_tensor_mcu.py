"""Every joule and byte by hand, from a machine's figures and an operator's sizes: tensor engine, cores, arrays with windows."""

import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from hwsim.operators import Attention, Elementwise, Gather, Matmul, Op, OpFormats, Scatter, Softmax
from hwsim.registry import get_device
from hwsim.report import OpCost, Report
from hwsim.workload import Tensor, Workload

PJ = 1e-12
Operand = tuple[tuple[int, ...], str, str]
"""Shape, format in memory, role."""


def placed(op: Op, operands: list[Operand], result: Operand, consumed: tuple[str, ...], sums: str = "fp32") -> Workload:
    """One operator whose operands lie in one format and are consumed in another."""
    tensors = {f"i{n}": Tensor(f"i{n}", shape, form, role) for n, (shape, form, role) in enumerate(operands)}  # type: ignore[arg-type]
    names = tuple(tensors)
    tensors["o"] = Tensor("o", *result)  # type: ignore[arg-type]
    op = replace(op, inputs=names, outputs=("o",), formats=OpFormats(consumed, sums))
    return Workload("hand", (op,), tensors, names, ("o",), recipe="hand")


def product(
    m: int, n: int, k: int, *, stored: tuple[str, str] = ("fp16", "fp16"), used: tuple[str, str] = ("fp16", "fp16"),
    result: str = "fp16", sums: str = "fp32",
) -> Workload:  # fmt: skip
    op = Matmul(name="p", m=m, n=n, k=k)
    return placed(op, [((m, k), stored[0], "input"), ((k, n), stored[1], "weight")], ((m, n), result, "activation"), used, sums)


def relu(elements: int) -> Workload:
    op = Elementwise(name="r", operation="relu", elements=elements)
    return placed(op, [((elements,), "fp32", "input")], ((elements,), "fp32", "activation"), ("fp32",))


def energies(row: OpCost) -> dict[str, float]:
    return {name: joules for name, joules in row.energy_j.items() if name != "static"}


def agree(row: OpCost, energy: Mapping[str, float], sizes: Mapping[str, int], static_w: float) -> None:
    """All components and levels, no more and no less."""
    assert dict(row.bytes) == dict(sizes)
    assert energies(row) == pytest.approx(dict(energy), rel=1e-9, abs=0)
    assert row.energy_j["static"] == pytest.approx(static_w * row.time_s)


# --- the tensor engine -----------------------------------------------------------------------------------------------------

# Joules a byte: registers 0.5, shared memory 2, L2 8, off chip 64; a MAC 2.4 in fp16 and 1.2 in int8; 1 GHz, 4 units, one tile of
# 64 × 32 from warps' parts of 32 × 16. 100 GB/s off chip, 128 bytes a cycle of L2. Kernels begin at once and one by one.
LITTLE: dict[str, Any] = {
    "clock_hz": 1e9, "units": 4, "static_power_w": 3.0,
    "matrix.tiles": [{"m": 64, "n": 32, "warp_m": 32, "warp_n": 16}], "matrix.efficiency": 0.5, "matrix.split_k": [1],
    "matrix.tile_latency_s": 1e-7, "matrix.stages": 2,
    "memory.register_file.energy_pj_per_byte": 0.5, "memory.shared.energy_pj_per_byte": 2.0,
    "memory.shared.bytes_per_cycle": 128,
    "memory.l2.energy_pj_per_byte": 8.0, "memory.l2.bytes_per_cycle": 256, "memory.l2.achieved_fraction": 0.5,
    "memory.l2.unit_bytes_per_cycle": 1e6, "memory.l2.capacity_bytes": 1 << 20, "memory.l2.retained_capacity_bytes": 0,
    "memory.off_chip.bandwidth_bytes_per_s": 200e9, "memory.off_chip.achieved_fraction": 0.5,
    "memory.off_chip.energy_pj_per_byte": 64.0, "memory.off_chip.in_flight_bytes_per_unit": 1e9,
    "vector_unit.lanes": 128, "launch.mode": "graph", "launch.gap_s": 0.0, "power.limit_w": 1e6,
    "power.minimum_clock_hz": 1e6, "power.energy_exponent": 1.0,
}  # fmt: skip
STATIC = 3.0
L2_BPS, OFF_BPS = 128e9, 100e9


def run(workload: Workload, **changes: Any) -> Report:
    return get_device("t4", overrides={**LITTLE, **{name.replace("__", "."): value for name, value in changes.items()}}).simulate(
        workload
    )


def fp16_product(m: int, n: int, k: int, b_bytes: int = 2) -> tuple[dict[str, float], dict[str, int]]:
    """Joules and bytes of a product whose operands are read once, off chip."""
    macs, high, wide = m * n * k, math.ceil(m / 64), math.ceil(n / 32)
    loaded = m * k * 2 * wide + k * n * b_bytes * high
    sizes = {
        "off_chip": m * k * 2 + k * n * b_bytes + m * n * 2,
        "l2": loaded + m * n * 2,
        "shared": macs * 2 // 16 + macs * b_bytes // 32 + loaded,  # read for every 16 columns and 32 rows, and filled
        "register": int(macs * (2 / 8 + 2 / 16 + 2 * 4 / 8)),  # an instruction is 16 × 8 × 8: operands, and sums in and out
    }
    energy = {"mac": macs * 2.4 * PJ, "vector": 0.0}
    energy |= {level: sizes[level] * pj * PJ for level, pj in (("register", 0.5), ("shared", 2), ("l2", 8), ("off_chip", 64))}
    return energy, sizes


def test_a_product() -> None:
    row = run(product(192, 96, 320)).ops[0]
    energy, sizes = fp16_product(192, 96, 320)
    agree(row, energy, sizes, STATIC)
    unit_s = 3 * 64 * 32 * 320 / (512 * 0.5) / 1e9  # nine tiles, four units: three waves
    assert row.time_s == pytest.approx(1e-7 + max(unit_s, sizes["l2"] / L2_BPS, sizes["off_chip"] / OFF_BPS))


def test_weights_widened_as_they_are_used() -> None:
    """The weights pass three rows of tiles, and are widened again for each; one lane a unit makes that the slowest part."""
    changes = {"vector_unit__lanes": 4, "memory__off_chip__bandwidth_bytes_per_s": 1e13, "memory__l2__bytes_per_cycle": 1e5}
    row = run(product(192, 96, 320, stored=("fp16", "int8"), used=("fp16", "int8")), **changes).ops[0]
    energy, sizes = fp16_product(192, 96, 320, b_bytes=1)
    agree(row, {**energy, "vector": 3 * 320 * 96 * 2 * PJ}, sizes, STATIC)
    assert row.compute_cycles == pytest.approx(3 * 320 * 32)  # three waves, 320 × 32 weights of a tile, a cycle each


@pytest.mark.parametrize("square", [True, False])
def test_panels_that_l2_does_not_hold_are_read_again(square: bool) -> None:
    """One unit, one tile at a time, 2 × 4 tiles. Along a row of tiles A's panel stays, down a column B's; the rest passes by and
    comes from L2 as far as that holds what was read in between."""
    m, n, k = (128, 128, 512) if square else (64, 256, 512)
    capacity = 96 * k
    row = run(
        product(m, n, k), units=1, memory__register_file__capacity_bytes=16384, memory__l2__capacity_bytes=capacity
    ).ops[0]  # fmt: skip
    a, b, high, wide = m * k * 2, k * n * 2, m // 64, n // 32
    between = capacity / ((64 + 32) * k * 2)
    held_a, held_b = min(1, capacity / a), min(1, capacity / b)
    along = a * (1 + (wide - 1) * (1 - between)) + b * (1 + (high - 1) * (1 - held_b))
    down = b * (1 + (high - 1) * (1 - between)) + a * (1 + (wide - 1) * (1 - held_a))
    energy, sizes = fp16_product(m, n, k)
    sizes["off_chip"] = int(min(along, down)) + m * n * 2
    assert sizes["off_chip"] > a + b + m * n * 2
    agree(row, {**energy, "off_chip": sizes["off_chip"] * 64 * PJ}, sizes, STATIC)


INT8 = {"stored": ("fp32", "int8"), "used": ("int8", "int8"), "result": "fp32", "sums": "int32"}
CONVERTED = 192 * 320
"""Elements of the first operand, in fp32, that become int8 in a pass before the product."""


@pytest.mark.parametrize("slowest", ["off_chip", "l2", "vector"])
def test_an_operand_quantised_before_its_product(slowest: str) -> None:
    changes: dict[str, dict[str, Any]] = {
        "off_chip": {}, "l2": {"memory__l2__bytes_per_cycle": 64}, "vector": {"vector_unit__lanes": 4},
    }  # fmt: skip
    row = run(product(192, 96, 320, **INT8), **changes[slowest]).ops[0]  # type: ignore[arg-type]
    macs = 192 * 96 * 320
    loaded, pass_bytes = 192 * 320 * 3 + 320 * 96 * 3, CONVERTED * (4 + 1)
    own_off, own_l2 = 192 * 320 + 320 * 96 + 192 * 96 * 4, loaded + 192 * 96 * 4
    sizes = {
        "off_chip": own_off + pass_bytes, "l2": own_l2 + pass_bytes,
        "shared": macs // 16 + macs // 32 + loaded, "register": int(macs * (1 / 8 + 1 / 16 + 2 * 4 / 16)),
    }  # fmt: skip
    energy = {"mac": macs * 1.2 * PJ, "vector": CONVERTED * 4 * PJ}
    energy |= {level: sizes[level] * pj * PJ for level, pj in (("register", 0.5), ("shared", 2), ("l2", 8), ("off_chip", 64))}
    agree(row, energy, sizes, STATIC)
    l2_bps = 32e9 if slowest == "l2" else L2_BPS
    lanes = 4 if slowest == "vector" else 128
    unit_s = 3 * 64 * 32 * 320 / (1024 * 0.5) / 1e9
    parts = {"off_chip": pass_bytes / OFF_BPS, "l2": pass_bytes / l2_bps, "vector": CONVERTED * 2 / lanes / 1e9}
    assert max(parts, key=lambda name: parts[name]) == slowest
    own = 1e-7 + max(unit_s, own_l2 / l2_bps, own_off / OFF_BPS)
    assert row.time_s == pytest.approx(own + parts[slowest])
    assert row.compute_cycles == pytest.approx((unit_s + parts["vector"]) * 1e9)


def test_a_fused_operator_that_converts_its_operand() -> None:
    """y + r behind a product in one kernel: r lies in fp16 and is added in fp32. Two lanes make the lanes the slowest part."""
    m, n, k = 192, 96, 320
    plain = product(m, n, k, result="fp32")
    tensors = {
        **plain.tensors, "r": Tensor("r", (m, n), "fp16", "input"), "z": Tensor("z", (m, n), "fp32", "activation"),
    }  # fmt: skip
    add = Elementwise(
        name="a", operation="add", elements=m * n, inputs=("o", "r"), outputs=("z",), formats=OpFormats(("fp32", "fp32"), "fp32")
    )
    workload = Workload("hand", (plain.ops[0], add), tensors, ("i0", "i1", "r"), ("z",), recipe="hand")
    head, behind = run(workload, fusion="epilogue", vector_unit__lanes=2).ops
    assert (behind.fused_with, behind.time_s, energies(behind)) == ("p", 0.0, {})
    energy, sizes = fp16_product(m, n, k)
    sizes["off_chip"] += m * n * (4 + 2 - 2)  # r comes, z leaves in fp32, y never does
    sizes["l2"] += m * n * (4 - 2)
    energy |= {"vector": m * n * (3 + 2) * PJ, "l2": sizes["l2"] * 8 * PJ, "off_chip": sizes["off_chip"] * 64 * PJ}
    agree(head, energy, sizes, STATIC)
    assert head.compute_cycles == pytest.approx(m * n * (1 + 1) / 2)


def attention(keys: int, stored: str = "fp16") -> Workload:
    op = Attention(name="a", batch=1, heads=2, kv_heads=2, query_length=64, key_length=keys, head_dim=32, value_dim=32)
    tensors: list[Operand] = [((1, 2, rows, 32), stored, "input") for rows in (64, keys, keys)]
    return placed(op, tensors, ((1, 2, 64, 32), "fp16", "activation"), ("fp16", "fp16", "fp16"))


def attention_by_hand(keys: int, parts: int) -> tuple[dict[str, float], dict[str, int]]:
    """Two heads of 64 queries, a tile each, keys in ``parts`` whose results are added up in fp32 by way of L2."""
    scores = 2 * 64 * keys
    macs, moved = scores * (32 + 32), 2 * (64 + keys + keys + 64) * 32 * 2
    sizes = {
        "off_chip": moved,
        "l2": moved + (2 * parts * 2 * 64 * 32 * 4 if parts > 1 else 0),
        "shared": 2 * 2 * keys * (32 + 32) * 2,  # keys and values of both heads, written and read
        "register": int(macs * (2 / 8 + 2 * 4 / 8)),  # the other operand's and the sums' passes
    }
    # An element of a softmax: max, subtract, exp, sum, times; a divide a row; and the scale of the scores.
    softmax = scores * (3 + 3 + 3 + 12 + 4 + 4) + 2 * 64 * 12
    energy = {"mac": macs * 2.4 * PJ, "vector": softmax * PJ}
    energy |= {level: sizes[level] * pj * PJ for level, pj in (("register", 0.5), ("shared", 2), ("l2", 8), ("off_chip", 64))}
    return energy, sizes


@pytest.mark.parametrize(("keys", "parts"), [(64, 1), (128, 2)])
def test_fused_attention(keys: int, parts: int) -> None:
    row = run(attention(keys)).ops[0]
    energy, sizes = attention_by_hand(keys, parts)
    agree(row, energy, sizes, STATIC)


@pytest.mark.parametrize("level", ["shared", "register"])
def test_attention_takes_as_long_as_its_bytes_on_the_units_where_these_are_slow(level: str) -> None:
    field = {"shared": "memory__shared__bytes_per_cycle", "register": "memory__register_file__bytes_per_cycle"}[level]
    row = run(attention(128), **{field: 0.25}).ops[0]
    _, sizes = attention_by_hand(128, 2)
    assert row.compute_cycles == pytest.approx(sizes[level] / 4 / 0.25)
    assert row.bytes[level] <= 4 * 0.25 * row.cycles


def test_attention_converts_its_operands() -> None:
    plain, converted = run(attention(64)).ops[0], run(attention(64, "int8")).ops[0]
    elements = 2 * (64 + 64 + 64) * 32
    assert converted.energy_j["vector"] - plain.energy_j["vector"] == pytest.approx(elements * 2 * PJ)
    assert plain.bytes["off_chip"] - converted.bytes["off_chip"] == elements
    # Exponentials are slower than MACs; the shorter of both shows by half. Conversions: an element a lane and cycle.
    assert converted.compute_cycles - plain.compute_cycles == pytest.approx(elements / 128)


def test_rows_that_registers_do_not_keep_converted_as_they_are_read() -> None:
    """Softmax over 8 rows of 2048 in fp16, computed in fp32: three passes, two of them through L2 alone."""
    elements = 8 * 2048
    op = Softmax(name="s", operation="softmax", elements=elements, rows=8)
    workload = placed(op, [((8, 2048), "fp16", "input")], ((8, 2048), "fp32", "activation"), ("fp32",))
    row = run(workload, vector_unit__lanes=4).ops[0]
    moved = elements * (2 + 4)
    sizes = {"off_chip": moved, "l2": moved + 2 * elements * 2}
    vector = elements * (3 + 3 + 3 + 12 + 4) + 8 * 12 + elements * 2
    agree(row, {"vector": vector * PJ, "l2": sizes["l2"] * 8 * PJ, "off_chip": moved * 64 * PJ}, sizes, STATIC)
    # A compare, two adds, a multiply and an exponential of four cycles an element, a divide a row, a conversion an element.
    assert row.compute_cycles == pytest.approx((elements * (1 + 2 + 1 + 4) + 8 * 4 + elements) / 4)


@pytest.mark.parametrize("kind", ["gather", "scatter", "scatter_add"])
def test_rows_shorter_than_a_sector(kind: str) -> None:
    """1000 rows of four fp32 values, 16 bytes of a sector of 32."""
    wide, narrow, index = 1000 * 32, 1000 * 16, 1000 * 4
    values: Operand = ((1000, 4), "fp32", "activation")
    table: Operand = ((5000, 4), "fp32", "weight")
    indices: Operand = ((1000,), "int32", "index")
    if kind == "gather":
        workload = placed(Gather(name="g", elements=4000, indices=1000), [table, indices], values, ("fp32", "int32"))
        moved = wide + index + narrow
    else:
        op = Scatter(name="g", elements=4000, indices=1000, accumulate=kind == "scatter_add")
        workload = placed(op, [values, indices], ((5000, 4), "fp32", "activation"), ("fp32", "int32"))
        # Values and indices, the sectors that are written, and of these what is read before: all, or what is not overwritten.
        moved = narrow + index + wide + (wide if kind == "scatter_add" else wide - narrow)
    row = run(workload).ops[0]
    vector = 4000 * (2 + (3 if kind == "scatter_add" else 0))
    agree(
        row,
        {"vector": vector * PJ, "l2": moved * 8 * PJ, "off_chip": moved * 64 * PJ},
        {"off_chip": moved, "l2": moved},
        STATIC,
    )
    assert row.time_s == pytest.approx(moved / OFF_BPS)


# --- the limit of power ----------------------------------------------------------------------------------------------------


def clock_by_hand(cycles: float, core_j: float, off_j: float, watts: float) -> float:
    """The clock f at which core·f/F + off = watts · cycles/f, at F = 1 GHz: a quadratic."""
    a, c = core_j / 1e9, watts * cycles
    return (-off_j + math.sqrt(off_j**2 + 4 * a * c)) / (2 * a)


def limited(workload: Workload, watts: float, cycles: float, energy: dict[str, float], **changes: Any) -> None:
    """A kernel bound by its units' ``cycles`` runs at the clock that its joules at 1 GHz leave, and its power is the limit."""
    free = {
        "matrix__tile_latency_s": 0.0, "memory__off_chip__bandwidth_bytes_per_s": 1e15, "memory__l2__bytes_per_cycle": 1e9,
        **changes,
    }  # fmt: skip
    report = run(workload, power__limit_w=watts + STATIC, **free)
    row, table = report.ops[0], report.tables["kernels"][0]
    off_j = energy["off_chip"]
    clock = clock_by_hand(cycles, sum(energy.values()) - off_j, off_j, watts)
    assert 1e6 < clock < 0.95e9
    assert table["clock_hz"] == pytest.approx(clock, rel=1e-6)
    assert row.time_s == pytest.approx(cycles / clock, rel=1e-6)
    scaled = {name: joules * (1.0 if name == "off_chip" else clock / 1e9) for name, joules in energy.items()}
    assert energies(row) == pytest.approx(scaled, rel=1e-6)
    assert row.energy_total_j / row.time_s == pytest.approx(watts + STATIC, rel=1e-6)


def test_clock_of_a_product_under_the_limit() -> None:
    cycles = 3 * 64 * 32 * 320 / 256
    energy, _ = fp16_product(192, 96, 320)
    assert energy["off_chip"] > 0.1 * sum(energy.values())
    limited(product(192, 96, 320), 0.6 * sum(energy.values()) / cycles * 1e9, cycles, energy)


def test_clock_of_a_product_that_widens_under_the_limit() -> None:
    cycles = 3 * 64 * 32 * 320 / 256
    energy, _ = fp16_product(192, 96, 320, b_bytes=1)
    energy["vector"] = 3 * 320 * 96 * 200 * PJ
    assert energy["vector"] > 0.1 * sum(energy.values())
    watts = 0.6 * sum(energy.values()) / cycles * 1e9
    workload = product(192, 96, 320, stored=("fp16", "int8"), used=("fp16", "int8"))
    limited(workload, watts, cycles, energy, **{"conversions.int8->fp16.energy_pj_per_element": 200})


def test_clock_of_a_vector_kernel_under_the_limit() -> None:
    elements = 1 << 16
    cycles = elements / 4
    energy = {"vector": elements * 3 * PJ, "l2": elements * 8 * 8 * PJ, "off_chip": elements * 8 * 64 * PJ}
    # Off-chip bytes are most of its joules and do not shrink with the clock.
    limited(relu(elements), 0.8 * sum(energy.values()) / cycles * 1e9, cycles, energy, vector_unit__lanes=4)


# --- cores around one memory -----------------------------------------------------------------------------------------------

# A core's cycle 60 pJ, 6 where it waits; bytes: L1 3.4, DMA and L2 12.5, outside 190; a MAC 2 and a conversion 7 here.
CLUSTER = {"mac_formats.int8.energy_pj": 2.0, "conversions.fp32->int8.energy_pj_per_element": 7}
CLUSTER_STATIC = 1e-3


def block_cycles(m: int, n: int, k: int) -> tuple[int, int]:
    """(cycles of one core, words loaded and stored) of int8 sums in blocks of 2 × 4, four products an instruction."""
    steps, sums = k // 4, m * n
    loads, stores = steps * (n // 4 * m + m // 2 * n), sums // 4
    return loads + steps * sums + 5 * sums + stores, loads + stores


@pytest.mark.parametrize("cores", [1, 4, 8])
@pytest.mark.parametrize("stored", ["int8", "fp32"])
def test_a_product_on_the_cores(cores: int, stored: str) -> None:
    """Operands lie in L1, results leave through the DMA; the first operand may be converted as it is read."""
    m, n, k = 8, 16, 32
    work = product(m, n, k, stored=(stored, "int8"), used=("int8", "int8"), result="int8", sums="int32")
    row = get_device("pulp_gap8", overrides={**CLUSTER, "cores": cores}).simulate(work).ops[0]
    cycles, words = block_cycles(m, n, k)
    converted = m * k if stored == "fp32" else 0
    cycles += 160 * converted
    idle = cores * row.cycles - cycles
    assert idle > 0
    sizes = {"off_chip": 0, "l2": m * n, "l1": 4 * words}
    energy = {
        "cores": (60 * cycles + 6 * idle + 7 * converted) * PJ, "mac": m * n * k * 2 * PJ,
        "l1": 4 * words * 3.4 * PJ, "l2": m * n * 12.5 * PJ, "off_chip": 0.0,
    }  # fmt: skip
    agree(row, energy, sizes, CLUSTER_STATIC)
    if cores == 1:  # waits for no bank; the results' way out and the start show
        assert row.compute_cycles == pytest.approx(cycles)


def test_a_vector_operator_on_the_cores_from_outside() -> None:
    """2^20 fp32 elements fit neither L1 nor L2: all come from outside and go there, through L2."""
    elements = 1 << 20
    row = get_device("pulp_gap8", overrides=CLUSTER).simulate(relu(elements)).ops[0]
    cycles, moved = elements * (31 + 1 + 1), 2 * 4 * elements
    energy = {
        "cores": (60 * cycles + 6 * (8 * row.cycles - cycles)) * PJ, "mac": 0.0,
        "l1": moved * 3.4 * PJ, "l2": moved * 12.5 * PJ, "off_chip": moved * 190 * PJ,
    }  # fmt: skip
    agree(row, energy, {"off_chip": moved, "l2": moved, "l1": moved}, CLUSTER_STATIC)
    assert 8 * row.cycles > 1.5 * cycles  # 100 MB/s: the cores wait most of the time


# --- kernels of windows on several arrays ------------------------------------------------------------------------------------

# A byte of a buffer 1.75 pJ, off chip 43.75, a MAC in bf16 0.59, a conversion 0.38; results leave at half the rate.
WINDOWS: dict[str, Any] = {
    "array.streaming_fraction": 1.0, "memory.off_chip.achieved_fraction": 1.0, "memory.off_chip.latency_s": 0.0,
    "launch_overhead_cycles": 0, "kernel.window": 256, "kernel.store_fraction": 0.5,
}  # fmt: skip


@pytest.mark.parametrize(
    ("m", "n", "k", "copies_a", "copies_b", "rate"),
    # The two cores share the columns, or the rows; the rate in bytes a cycle, where loads are the longest and where they are not.
    [(512, 1024, 2048, 2, 1, 1000), (512, 128, 2048, 1, 2, 1000), (512, 128, 2048, 1, 2, 4000)],
)
@pytest.mark.parametrize("stored", ["bf16", "fp32"])
def test_windows(m: int, n: int, k: int, copies_a: int, copies_b: int, rate: int, stored: str) -> None:
    work = product(m, n, k, stored=("bf16", stored), used=("bf16", "bf16"), result="bf16")
    report = get_device("tpu_v4", overrides={**WINDOWS, "memory.off_chip.bandwidth_bytes_per_s": rate * 1.05e9}).simulate(work)
    row, b_bytes = report.ops[0], 4 if stored == "fp32" else 2
    a, b, c = m * k * 2, k * n * b_bytes, m * n * 2
    fold_rows, fold_columns = k // 128, n // 128
    sizes = {
        "off_chip": copies_a * a + copies_b * b + c,
        "input": fold_columns * a + copies_a * a + c,  # streamed for every 128 columns; filled; the results
        "weight": b + copies_b * b,
        "output": 2 * fold_rows * m * n * 4,  # a sum is read and written for every 128 of k
    }
    converted = k * n if stored == "fp32" else 0
    energy = {"mac": m * n * k * 0.59 * PJ, "vector_unit": converted * 0.38 * PJ, "off_chip": sizes["off_chip"] * 43.75 * PJ}
    energy |= {f"scratchpad_{level}": sizes[level] * 1.75 * PJ for level in ("input", "weight", "output")}
    agree(row, energy, sizes, 90)
    if stored == "bf16":
        # Where the arrays wait: the first windows, and what remains to load beyond their work. Weights have a share of that.
        split = {part["part"]: part["cycles"] for part in report.tables["cycle_split"]}
        loads = copies_a * a + copies_b * b
        first = (copies_a * a * 256 / m + copies_b * b) * 256 / k
        rounds = fold_rows * fold_columns // 8  # of folds on eight arrays, one behind the other
        assert split["array_active"] == rounds * m
        work_cycles = 128 + rounds * m + 128 + 128 - 2
        waiting = first / rate + max(0.0, (loads - first) / rate - work_cycles)
        assert split["weight_stall"] == pytest.approx(waiting * copies_b * b / loads)
        assert row.cycles == pytest.approx(waiting + work_cycles + c / (rate / 2))
        assert report.tables["mapping"][0]["first_window_bytes"] == first


# --- where a weight-stationary array's cycles go -------------------------------------------------------------------------------


def mlp(batch: int, widths: tuple[int, ...]) -> Workload:
    tensors = {"y0": Tensor("y0", (batch, widths[0]), "fp32", "input")}
    ops = []
    for i, (k, n) in enumerate(pairwise(widths), 1):
        tensors[f"w{i}"] = Tensor(f"w{i}", (k, n), "fp32", "weight")
        tensors[f"y{i}"] = Tensor(f"y{i}", (batch, n), "fp32", "activation")
        ops.append(Matmul(name=f"m{i}", m=batch, n=n, k=k, inputs=(f"y{i - 1}", f"w{i}"), outputs=(f"y{i}",)))
    return Workload("mlp", tuple(ops), tensors, ("y0",), (f"y{len(ops)}",))


@pytest.mark.parametrize("batch", [100, 2000])
def test_the_cycles_of_tpu_v1_in_two_layers(batch: int) -> None:
    """Layers of 512 × 256 and 256 × 256, two tiles of weights and one. A tile takes 65536 bytes at 34 GB/s after 100 ns; it
    shifts in over 256 cycles, its operands stream in ``batch``. The inputs and the results cross PCIe."""
    report = get_device("tpu_v1").simulate(mlp(batch, (512, 256, 256)))
    tile = 65536 / 34e9 * 700e6
    first, second = 70 + tile, 70 + 2 * tile
    streamed = first + 256 + batch  # the first tile has streamed
    late = max(0.0, second - streamed)
    # The second tile shifts in beside the stream of the first, if it came in time.
    shown = 256 if late else max(0.0, max(second, first + 256) + 256 - streamed)
    split = {row["part"]: row["cycles"] for row in report.tables["cycle_split"]}
    assert split["array_active"] == 3 * batch
    assert split["weight_stall"] == pytest.approx(first + late + first)
    assert split["weight_shift"] == pytest.approx(256 + shown + 256)
    crossing = (512 + 256) * batch / 15.03e9 * 700e6 + 2 * 700
    # The last operand of each layer passes 255 more rows and 255 more columns.
    assert split["non_matrix"] == pytest.approx(crossing + 2 * (255 + 255))
    assert sum(split.values()) == pytest.approx(report.cycles)
