"""Every energy component and every memory level of small operators against figures worked out by hand from the specs' numbers.

Prices are set to numbers that share no factor, so that no two terms stand in for one another.
"""

from __future__ import annotations

import copy
import csv
import math
from collections.abc import Mapping
from dataclasses import replace
from importlib import resources
from typing import Any

import numpy as np
import pytest

from hwsim.device import Device
from hwsim.operators import Convolution, Elementwise, Matmul, Softmax
from hwsim.registry import get_device, read_spec, spec_file
from hwsim.report import OpCost, Report
from hwsim.rtl_ratios import ratio
from hwsim.spec import set_field
from hwsim.workload import Tensor, Workload, chain
from numerics.recipes import Recipe

PJ = 1e-12
BUFFER, OFF_CHIP, STATIC_W = 5.3, 211.0, 0.037
OPERATIONS = {"add": 0.11, "multiply": 3.7, "multiply_add": 4.3, "compare": 0.13, "move": 0.017, "divide": 12.1, "exp": 14.9,
              "log": 16.3, "sqrt": 18.1}  # fmt: skip


def device(name: str, changes: Mapping[str, Any]) -> Device:
    """A bundled machine with prices of the memories, the vector unit and the static power as above, and ``changes``."""
    data = copy.deepcopy(dict(read_spec(spec_file(name))))
    data["calibrated"] = {}
    prices = {"buffer.energy_pj_per_byte": BUFFER, "off_chip.energy_pj_per_byte": OFF_CHIP, "static_power_w": STATIC_W,
              "vector_unit.energy_pj_per_operation": OPERATIONS}  # fmt: skip
    for field, value in {**prices, **changes}.items():
        set_field(data, field, value)
    return type(get_device(name)).from_data(data, source="test")


def matmul(
    m: int, n: int, k: int, *, densities: tuple[float | None, float | None, float | None] = (None, None, None)
) -> Workload:
    return dense_or_not(chain("one", [Matmul(name="op", m=m, n=n, k=k)]), densities)


def convolution(
    channels: int,
    kernels: int,
    size: int,
    *,
    batch: int = 1,
    densities: tuple[float | None, float | None, float | None] = (None, None, None),
) -> Workload:
    """3×3, no padding."""
    op = Convolution(
        name="op", batch=batch, in_channels=channels, out_channels=kernels, input_size=(size, size),
        output_size=(size - 2, size - 2), kernel=(3, 3), stride=(1, 1), padding=((0, 0),) * 2, dilation=(1, 1), groups=1,
    )  # fmt: skip
    return dense_or_not(chain("one", [op]), densities)


def dense_or_not(workload: Workload, densities: tuple[float | None, float | None, float | None]) -> Workload:
    tensors = dict(workload.tensors)
    for name, density in zip(("op.input", "op.weight", "op.output"), densities, strict=True):
        tensors[name] = replace(tensors[name], density=density)
    return replace(workload, tensors=tensors)


def check(row: OpCost, *, picojoules: Mapping[str, float], levels: Mapping[str, int], cycles: float, clock_hz: float) -> None:
    """All of a row's energies, bytes and cycles; off-chip, static and (none said) vector energy are added here."""
    expected = {name: pj * PJ for name, pj in {"vector": 0.0, **picojoules}.items()}
    expected["off_chip"] = levels["off_chip"] * OFF_CHIP * PJ
    expected["static"] = STATIC_W * cycles / clock_hz
    assert dict(row.bytes) == dict(levels)
    assert dict(row.energy_j) == pytest.approx(expected, rel=1e-9, abs=0)
    assert row.cycles == pytest.approx(cycles, rel=1e-12)
    assert row.time_s == pytest.approx(cycles / clock_hz, rel=1e-12)


def only(report: Report, **mapping: Any) -> OpCost:
    """The one row of a report, once its mapping is the one that the arithmetic is for."""
    found = report.tables["mapping"][0]
    assert {key: found[key] for key in mapping} == mapping
    (row,) = report.ops
    return row


# --- convolution engine (NVDLA) ----------------------------------------------------------------------------------------------

NVDLA = {"mac_formats.int8.energy_pj": 0.7, "convolution_buffer.energy_pj_per_byte": 2.3, "off_chip.bandwidth_bytes_per_s": 64e9}


def test_convolution_engine_one_pass_of_features() -> None:
    """32 channels are two blocks of atomic-C 16; 16 kernels two sets of atomic-K 8; 16 positions one stripe."""
    row = only(device("nvdla_128", NVDLA).simulate(convolution(32, 16, 6)), kept="weights", kernel_sets=2, blocks=18, stripes=36)
    loaded = 32 * 6 * 6 + 16 * 32 * 9
    features = 2 * 18 * 16 * 16  # each set, each block of a tap: 16 channels at 16 positions
    weights = 18 * 16 * 16  # each stripe: 16 channels of each kernel, once over both sets
    moved = loaded + features + weights
    check(
        row,
        picojoules={"mac": 16 * 16 * 32 * 9 * 0.7, "convolution_buffer": moved * 2.3},
        levels={"off_chip": loaded + 16 * 16, "convolution_buffer": moved},
        cycles=2 * 18 * 16,
        clock_hz=1e9,
    )


def test_convolution_engine_reads_again() -> None:
    """A buffer of 256 usable bytes holds 8 kernels of 20 bytes beside a row of 20: features pass twice. 64 positions are two
    stripes, for each of which the weights are read; 12 kernels are two sets, of which the second is half empty."""
    small = device("nvdla_128", {**NVDLA, "convolution_buffer.capacity_bytes": 1024})
    row = only(small.simulate(matmul(64, 12, 20)), kept="kernels", feature_reads=2, weight_reads=1, kernel_sets=2, stripes=8)
    loaded = 2 * 64 * 20 + 12 * 20
    features = 2 * 2 * 64 * 16
    weights = (2 * 2) * 16 * 12
    moved = loaded + features + weights
    check(
        row,
        picojoules={"mac": 64 * 12 * 20 * 0.7, "convolution_buffer": moved * 2.3},
        levels={"off_chip": loaded + 64 * 12, "convolution_buffer": moved},
        cycles=2 * 2 * 64,
        clock_hz=1e9,
    )


# --- row-stationary array (Eyeriss) -----------------------------------------------------------------------------------------

EYERISS = {"mac_formats.int16.energy_pj": 1.9, "scratchpads.energy_pj_per_access": 1.3, "network.energy_pj_per_word": 3.1,
           "filter_buffer.energy_pj_per_byte": 7.7}  # fmt: skip


def coded(density: float) -> float:
    """Share left of 16-bit words: three pairs of a run of up to 31 zeros and a word in 64 bits."""
    words_of_a_pair = sum((1 - density) ** zeros for zeros in range(32))
    return 64 / 3 / words_of_a_pair / 16


def row_stationary_figures(
    *, macs: int, live: float, network: int, buffer: int, filters: int, off_chip: int
) -> tuple[dict[str, float], dict[str, int]]:
    """(energies, bytes) of these words."""
    scratchpads = round(macs * (1 + 3 * live)) + network
    energy = {
        "mac": macs * live * 1.9,
        "scratchpads": scratchpads * 1.3,
        "network": network * 3.1,
        "buffer": 2 * buffer * BUFFER,
        "filter_buffer": 2 * filters * 7.7,
    }
    levels = {"scratchpads": 2 * scratchpads, "network": 2 * network, "buffer": 2 * buffer, "filter_buffer": 2 * filters}
    return energy, {**levels, "off_chip": off_chip}


def test_row_stationary_one_pass_of_coded_maps() -> None:
    """One PE set of 3×4 with 4 channels and 8 filters in each PE does it all. Half of the inputs and a quarter of the outputs
    are not zero."""
    report = device("eyeriss", EYERISS).simulate(convolution(4, 8, 6, densities=(0.5, None, 0.25)))
    row = only(report, m=8, n=1, e=4, p=8, q=4, r=1, t=1, passes=1)
    inputs, filters, outputs = 4 * 36, 8 * 4 * 9, 8 * 16
    to_pes = 4 * (4 * 3) * 6 + filters * 4  # input rows along the diagonals, filter rows to 4 PEs
    sums = outputs * 2 + outputs  # up three PEs, then to the buffer
    off_chip = round(2 * inputs * coded(0.5) + 2 * filters + 2 * outputs * coded(0.25))
    energy, levels = row_stationary_figures(
        macs=outputs * 36,
        live=0.5,
        network=to_pes + sums,
        buffer=inputs + inputs + outputs,
        filters=2 * filters,
        off_chip=off_chip,
    )
    before = filters / 4 + 6 * 4 * 3  # filters, and the first window of 6 rows of 4 channels
    work = 3 * 4 * 8 + 4 * 8 / 4 + 3 * (3 * 4 * 8)  # four positions: MACs of each, sums of the last
    maps = (off_chip - 2 * filters) / 2.4  # the filters come beside the work
    check(row, picojoules=energy, levels=levels, cycles=before + work + maps, clock_hz=200e6)
    assert row.overhead_cycles == pytest.approx(before)
    assert row.stall_cycles == pytest.approx(maps)


def test_row_stationary_reads_again() -> None:
    """A single PE set whose PEs hold 2 channels and 4 filters, as the filter buffer does, and two banks: inputs of 2 channels and
    sums of 4 filters of one image. Filters come once an image, inputs once for each half of the filters, sums wait for the other
    two channels."""
    small = device("eyeriss", {
        **EYERISS, "array": {"rows": 3, "columns": 4}, "buffer.capacity_bytes": 288, "buffer.banks": 2,
        "scratchpads.ifmap_words": 6, "scratchpads.filter_words": 24, "scratchpads.psum_words": 4,
        "filter_buffer.capacity_bytes": 144,
    })  # fmt: skip
    row = only(small.simulate(convolution(4, 8, 6, batch=2)), m=4, n=1, e=4, p=4, q=2, r=1, t=1, passes=8)
    inputs, filters, outputs = 2 * 4 * 36, 8 * 4 * 9, 2 * 8 * 16
    to_pes = 2 * (2 * 4 * (4 * 3) * 6) + 2 * filters * 4
    sums = outputs * 2 * 2 + 2 * outputs + outputs  # twice up three PEs, twice to the buffer, once back
    energy, levels = row_stationary_figures(
        macs=outputs * 36,
        live=1.0,
        network=to_pes + sums,
        buffer=2 * inputs + 2 * inputs + 2 * outputs + outputs,
        filters=2 * (2 * filters),
        off_chip=2 * (2 * inputs + 2 * filters + outputs),
    )
    before = 2 * filters / 4 + 8 * (6 * 2 * 3)
    work = 8 * (3 * 2 * 4 + 4 * 4 / 4 + 3 * (3 * 2 * 4))
    ahead = 2 * 2 * filters / 2.4
    maps = 2 * (2 * inputs + outputs) / 2.4
    check(row, picojoules=energy, levels=levels, cycles=before + max(work, ahead) + maps, clock_hz=200e6)


def test_row_stationary_codes_feature_maps_of_vector_operators() -> None:
    tensors = {"x": Tensor("x", (64, 64), "fp32", "input", 0.5), "y": Tensor("y", (64, 64), "fp32", "activation", 0.25)}
    relu = Elementwise(name="relu", operation="relu", elements=4096, inputs=("x",), outputs=("y",))
    report = device("eyeriss", EYERISS).simulate(Workload("relu", (relu,), tensors, ("x",), ("y",)))
    off_chip = round(2 * 4096 * (coded(0.5) + coded(0.25)))
    check(
        report.ops[0],
        picojoules={"vector": 4096 * 0.13, "buffer": 4 * 4096 * BUFFER},
        levels={"off_chip": off_chip, "buffer": 4 * 4096},
        cycles=4096 + off_chip / 2.4,
        clock_hz=200e6,
    )


# --- BNN engine -------------------------------------------------------------------------------------------------------------

BNN = {"pe.product_energy_pj": 0.19, "pe.accumulate_energy_pj": 0.83, "operands.energy_pj_per_byte": 3.9,
       "off_chip.latency_s": 0, "off_chip.bandwidth_bytes_per_s": 1e15, "mac_formats.int8.energy_pj": 0.61}  # fmt: skip
SIGNS = Recipe("signs", {"weight": "binary", "activation": "binary", "accumulator": "fp32"})


@pytest.mark.parametrize(
    ("m", "waves", "operand_bits", "loaded"),
    [
        # A wave of 8×4 outputs on 32 elements; rows pass once, columns once for each 8 rows.
        (8, 1, 36 * (8 + 4), 36 + 18),
        # 16 rows are 72 bytes, nine parts of the 8 that the operands' memory takes; the 18 of the columns are three.
        (16, 2, 36 * (16 + 2 * 4), 72 + 18 + min(18 * 8, 72 * 2)),
        (24, 3, 36 * (24 + 3 * 4), 108 + 18 + min(18 * 13, 108 * 2)),
    ],
)
def test_binary_engine_popcounts(m: int, waves: int, operand_bits: int, loaded: int) -> None:
    """36 products are two cycles of 18, two additions; a third cycle and addition compare."""
    capacity = {} if m == 8 else {"operands.capacity_bytes": 16}
    report = device("bnn_popcount", {**BNN, **capacity}).simulate(matmul(m, 4, 36).with_formats(SIGNS))
    row = only(report, waves=waves, rows=8, columns=4, node_cycles=3)
    nodes = m * 4
    check(
        row,
        picojoules={
            "products": nodes * 36 * 0.19,
            "accumulate": nodes * 3 * 0.83,
            "operands": operand_bits // 8 * 3.9,
        },
        levels={"operands": operand_bits // 8, "off_chip": loaded + nodes // 8},
        cycles=3 * waves,
        clock_hz=400e6,
    )


def test_binary_engine_integer_layer() -> None:
    row = only(device("bnn_popcount", BNN).simulate(matmul(16, 4, 20)), waves=2, rows=8, columns=4, node_cycles=20)
    moved = 20 * (16 + 2 * 4)
    check(
        row,
        picojoules={"mac": 16 * 4 * 20 * 0.61, "operands": moved * 3.9},
        levels={"operands": moved, "off_chip": 16 * 20 + 20 * 4 + 16 * 4},
        cycles=2 * 20,
        clock_hz=400e6,
    )


# --- sparse engine ----------------------------------------------------------------------------------------------------------

SPARSE = {"mac_formats.int8.energy_pj": 0.7, "operands.energy_pj_per_byte": 4.1, "sparsity.decode_energy_pj_per_block": 0.9,
          "off_chip.latency_s": 0, "off_chip.bandwidth_bytes_per_s": 1e15}  # fmt: skip


@pytest.mark.parametrize(("m", "n", "tiles"), [(16, 16, 1), (40, 20, 3)])
def test_sparse_engine_compressed_rows(m: int, n: int, tiles: int) -> None:
    """A quarter of the weights is stored, each with a column of 16 bits, each row with a pointer of 32. A tile of 16 rows of
    activations reads them all, and for each the activations of its column."""
    csr = device("sparse_csr", {**SPARSE, "sparsity.dense_fallback": False})
    report = csr.simulate(matmul(m, n, 32, densities=(None, 0.25, None)))
    kept = n * 32 // 4
    stored = (kept * (8 + 16) + (n + 1) * 32) // 8
    moved = kept * m + tiles * stored + m * n
    row = only(report, weights="csr", weight_bytes=stored)
    check(
        row,
        picojoules={"mac": kept * m * 0.7, "decode": tiles * kept * 0.9, "operands": moved * 4.1},
        levels={"operands": moved, "off_chip": m * 32 + stored + m * n},
        cycles=row.cycles,  # a maximum of binomial counts; test_sparse_engine.py draws them
        clock_hz=1e9,
    )


def test_sparse_engine_two_of_four() -> None:
    """Half of the weights is stored, two bits each say where; 20 rows of weights are two waves of 16 lanes."""
    report = device("sparse_2_4", SPARSE).simulate(matmul(16, 20, 32, densities=(None, 0.5, None)))
    stored = 20 * 16 * (8 + 2) // 8
    moved = 2 * 32 * 16 + stored + 16 * 20
    check(
        only(report, weights="n_m", weight_bytes=stored),
        picojoules={"mac": 16 * 20 * 16 * 0.7, "decode": 20 * 16 * 0.9, "operands": moved * 4.1},
        levels={"operands": moved, "off_chip": 16 * 32 + stored + 16 * 20},
        cycles=2 * 16,
        clock_hz=1e9,
    )


def test_sparse_engine_skips_activations() -> None:
    """A column is passed over where all 16 activations are zero; a bit says so, read in each of the two waves."""
    report = device("sparse_skip", SPARSE).simulate(matmul(16, 20, 32, densities=(0.1, None, None)))
    seen = 32 * (1 - 0.9**16)
    moved = round(2 * seen * 16 + 2 * 32 / 8 + 20 * 32 + 16 * 20)
    check(
        only(report, weights="dense"),
        picojoules={"mac": 16 * 20 * seen * 0.7, "decode": 0.0, "operands": moved * 4.1},
        levels={"operands": moved, "off_chip": 16 * 32 + 20 * 32 + 16 * 20},
        cycles=2 * seen,
        clock_hz=1e9,
    )


def test_sparse_engine_skips_dense_weights() -> None:
    """Weights lie as they are, and a bit each says which are zero; each tile reads both."""
    engine = device("sparse_skip", {**SPARSE, "sparsity.skip": "weights"})
    report = engine.simulate(matmul(24, 16, 32, densities=(None, 0.5, None)))
    kept = 16 * 32 // 2
    moved = kept * 24 + 2 * (16 * 32 + 16 * 32 // 8) + 24 * 16
    row = only(report, weights="dense")
    check(
        row,
        picojoules={"mac": kept * 24 * 0.7, "decode": 0.0, "operands": moved * 4.1},
        levels={"operands": moved, "off_chip": 24 * 32 + 16 * 32 + 24 * 16},
        cycles=row.cycles,
        clock_hz=1e9,
    )


# --- tensor processing engines -------------------------------------------------------------------------------------------------

UNIT = 0.37
TPE = {"prices.mac_int8_energy_pj": UNIT, "operands": {"name": "uniform"}, "off_chip.latency_s": 0,
       "off_chip.bandwidth_bytes_per_s": 1e15}  # fmt: skip


def booth_digits(code: int) -> int:
    """Non-zero digits of an int8: digit i is b(2i−1) + b(2i) − 2·b(2i+1)."""
    bits = [0, *((code >> i) & 1 for i in range(8))]
    return sum(bits[i] + bits[i + 1] != 2 * bits[i + 2] for i in range(0, 8, 2))


def mean_digits() -> dict[str, float]:
    """Of the data with which the parts were measured: 127·x rounded, x uniform in ±1; 80 % zeros; normal, a deviation of 1/16."""
    random = sum(booth_digits(c) / 254 * (0.5 if abs(c) == 127 else 1.0) for c in range(-127, 128))
    deviation = 127 / 16 * math.sqrt(2)
    edges = [0.5 * (1 + math.erf((c + 0.5) / deviation)) for c in range(-129, 128)]
    small = sum(booth_digits(c) * (b - a) for c, a, b in zip(range(-128, 128), edges, edges[1:], strict=False))
    return {"sparse": 0.2 * random, "small": small, "random": random}


def energies_at(digits: float) -> dict[str, float]:
    """Part → energy of a product whose recoded operand has so many digits: straight lines through nothing and the three data."""
    text = resources.files("accelerators.bit_serial").joinpath("parts.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))
    at, found = mean_digits(), {}
    for part in {row["part"] for row in rows if row["quantity"] == "signal_energy"}:
        points = [(0.0, 0.0)]
        points += [
            (x, float(row["value"]))
            for data, x in sorted(at.items(), key=lambda item: item[1])
            for row in rows
            if (row["part"], row["quantity"], row["data"]) == (part, "signal_energy", data)
        ]
        # The first stretch that reaches so far, or the last.
        place = next((i for i in range(1, 4) if digits <= points[i][0]), 3)
        (x0, y0), (x1, y1) = points[place - 1], points[place]
        slope = (y1 - y0) / (x1 - x0)
        found[part] = y0 + (digits - x0) * (max(0.0, slope) if digits > x1 else slope)
    return found


def clock_of_a_flipflop() -> float:
    """E = clock + share · signal for random and for sparse data of ``mac_int8``, which has 32 flip-flops; E = 1 for random."""
    sparse = ratio("energy", "mac_int8", "wrapping", data="sparse", over_data="random")
    signal = ratio("signal_energy", "mac_int8", "wrapping", data="sparse", over_data="random")
    return (1 - (1 - sparse) / (1 - signal)) / 32


@pytest.mark.parametrize("saved", [False, True])
@pytest.mark.parametrize("overlapped", [False, True])
def test_tensor_processing_engine_of_whole_multipliers(saved: bool, overlapped: bool) -> None:
    """A systolic array of 32×32, four folds of 24 steps. A tenth of the second operand is not zero, of all codes but 0 alike."""
    changes = {"array.accumulation": "carry_save" if saved else "carry_propagate",
               "array.output_drain": "overlapped" if overlapped else "serial"}  # fmt: skip
    report = device("tpe_systolic_mac", {**TPE, **changes}).simulate(matmul(40, 48, 24, densities=(None, 0.1, None)))
    part = energies_at(0.1 * sum(booth_digits(c) for c in range(-128, 128)) / 255)
    full = energies_at(3)
    macs, results, late = 40 * 48 * 24, 40 * 48, int(saved)
    # Sums leave a row a cycle: 32; the last operands come 31 + 31 cycles after the first.
    cycles = 24 + 3 * 32 + 62 + 32 + late if overlapped else 4 * (24 + 62 + 32 + late)
    if saved:
        sums = 2 * part["sum_compressor"] + part["sum_clear"] + part["sum_register"] + part["carry_register"]
        drain = 33 / 2 * 2 * full["sum_register"] + full["sum_adder"] + full["sum_register"]
        flipflops = 2 * 1024 * 8 + 1024 * 64 + 32 * 32 + (1024 * 64 if overlapped else 0)
    else:
        sums = part["sum_adder"] + part["sum_clear"] + part["sum_register"]
        drain = 33 / 2 * full["sum_register"]
        flipflops = 2 * 1024 * 8 + 1024 * 32 + (1024 * 32 if overlapped else 0)
    touched = 24 * (40 * 2 + 48 * 2) + 4 * results
    check(
        only(report, folds=4, steps=96),
        picojoules={
            "multipliers": macs * part["half_multiplier" if saved else "multiplier"] * UNIT,
            "operand_registers": macs * 2 * full["operand_register"] * UNIT,
            "accumulators": macs * sums * UNIT,
            "drain": results * drain * UNIT,
            "clock": cycles * flipflops * clock_of_a_flipflop() * UNIT,
            "buffer": touched * BUFFER,
        },
        levels={"buffer": touched, "off_chip": 40 * 24 + 24 * 48 + results},
        cycles=cycles,
        clock_hz=1e9,
    )


def test_tensor_processing_engine_of_digits() -> None:
    """Broadcast to 32×32 elements, weights as Booth digits: each is 127 = 2·64 − 1, two digits, so that a step takes two cycles.
    The weights of 64 columns are of no more than one block, so that nothing is read again."""
    engine = device("tpe_matrix_2d_bit_weight", TPE)
    report = engine.simulate(matmul(40, 64, 24), parameters={"op.weight": np.full((1, 24, 64), 0.5)})
    part, full = energies_at(2), energies_at(3)
    macs, results = 40 * 64 * 24, 40 * 64
    cycles = 4 * (2 * 24 + 32 + 2)  # one cycle to recode, one to add the halves
    sums = sum(part[f"digit_{name}"] for name in ("sum_compressor", "sum_clear", "sum_register", "carry_register"))
    # Sources, queues of four for the plain operand of each of 4 groups and for the digits, operands, sums, the final adders.
    flipflops = 32 * 19 + 8 * 4 * (32 * 4 + 32) + 8 * 32 + 64 * 1024 + 32 * 32
    touched = 24 * (40 * 2 + 64 * 2) + 4 * results
    check(
        only(report, folds=4, steps=96, cycles_per_step=2.0, mean_digits=2.0),
        picojoules={
            "multipliers": macs * part["digit_product"] * UNIT,
            "shifters": macs * part["shifter"] * UNIT,
            "digit_sources": macs * part["booth_source"] / 32 * UNIT,
            "operand_registers": macs / 32 * full["operand_register"] * UNIT,
            "queues": macs * (1 / 32 + 1 / 8) * full["operand_register"] * UNIT,
            "accumulators": macs * sums * UNIT,
            "drain": results * (33 * full["sum_register"] + full["sum_adder"] + full["sum_register"]) * UNIT,
            "clock": cycles * flipflops * clock_of_a_flipflop() * UNIT,
            "buffer": touched * BUFFER,
        },
        levels={"buffer": touched, "off_chip": 40 * 24 + 24 * 64 + results},
        cycles=cycles,
        clock_hz=1e9,
    )


def test_tensor_processing_engine_reads_again() -> None:
    """Half a buffer of 4,096 bytes holds 32 rows of A and 32 columns of B at k = 32: of 96 × 64 results, two blocks of columns or
    three of rows. A (3,072 bytes) twice is less than B (2,048) three times."""
    small = device("tpe_systolic_mac", {**TPE, "buffer.capacity_bytes": 4096})
    (row,) = small.simulate(matmul(96, 64, 32)).ops
    assert dict(row.bytes) == {
        "buffer": 32 * (96 * 2 + 64 * 3) + 4 * 96 * 64,
        "off_chip": 96 * 32 + 32 * 64 + min(96 * 32, 2 * 32 * 64) + 96 * 64,
    }
    assert row.energy_j["off_chip"] == pytest.approx(row.bytes["off_chip"] * OFF_CHIP * PJ)


# --- the frame ----------------------------------------------------------------------------------------------------------------


def group_of_three() -> Workload:
    """A product of 16 × 64 with 64 × 32, an addition to its results as they come, and a sigmoid that waits for neither."""
    sizes = {"x": (16, 64), "w": (64, 32), "b": (32,), "y": (16, 32), "z": (16, 32), "r": (16, 32), "u": (10, 80), "v": (10, 80)}
    roles = {"x": "input", "w": "weight", "b": "weight", "u": "input", "r": "input"}
    tensors = {name: Tensor(name, size, "fp32", roles.get(name, "activation")) for name, size in sizes.items()}  # type: ignore[arg-type]
    ops = (
        Matmul(name="product", m=16, n=32, k=64, bias=True, inputs=("x", "w", "b"), outputs=("y",)),
        Elementwise(name="add", operation="add", elements=512, inputs=("y", "r"), outputs=("z",)),
        Elementwise(name="sigmoid", operation="sigmoid", elements=800, inputs=("u",), outputs=("v",)),
    )
    return Workload("three", ops, tensors, ("x", "r", "u"), ("z", "v"))


@pytest.mark.parametrize("fidelity", ["tile", "analytic"])
@pytest.mark.parametrize("transfers", ["overlapped", "serial"])
@pytest.mark.parametrize("bandwidth", [8, 64])
def test_frame_of_a_group(transfers: str, bandwidth: int, fidelity: str) -> None:
    """Weights are stored as int4, multiplied as int8: a conversion of 2,048 elements on 8 lanes, longer than the product's two
    waves of 64 cycles. 8 bytes a cycle are slower than that, 64 are faster."""
    engine = device("sparse_skip", {
        **SPARSE, "transfers": transfers, "launch_overhead_cycles": 17, "off_chip.latency_s": 23e-9,
        "off_chip.bandwidth_bytes_per_s": bandwidth * 1e9, "vector_unit.lanes": 8, "sparsity.skip": "none",
        "conversions": {"int4->int8": {"cycles_per_element": 0.75, "energy_pj_per_element": 0.29}},
    })  # fmt: skip
    recipe = Recipe("narrow", {"weight": "int4", "activation": "int8", "accumulator": "int32"})
    workload = group_of_three().with_formats(recipe)
    # The sigmoid's operand too is stored in half the bytes that it is worked on in.
    workload = replace(workload, tensors={**workload.tensors, "u": replace(workload.tensors["u"], format="int4")})
    report = engine.simulate(workload, fidelity=fidelity)

    x, w, z, u, v = 16 * 64, 64 * 32 // 2, 16 * 32, 400, 800
    operands = 2 * 64 * 16 + 64 * 32 + 16 * 32  # both waves read the activations; weights as they are multiplied
    off_chip = {"product": x + w + 4 * 32, "add": z + z, "sigmoid": u + v}  # the product's results go straight to the addition
    picojoules = {
        "product": {"mac": 16 * 32 * 64 * 0.7, "decode": 0.0, "operands": operands * 4.1, "vector": 2048 * 0.29 + 512 * 0.11},
        "add": {"vector": 512 * 0.11, "buffer": 2 * z * BUFFER},
        "sigmoid": {"vector": 800 * (0.11 + 12.1 + 14.9 + 0.29), "buffer": (u + v) * BUFFER},
    }
    levels = {"product": {"operands": operands}, "add": {"buffer": 2 * z}, "sigmoid": {"buffer": u + v}}
    product = 2048 * 0.75 / 8  # the conversion, longer than two waves of 64 cycles
    vector = {"product": 512 / 8, "add": 512 / 8, "sigmoid": 800 * (1 + 4 + 4 + 0.75) / 8}

    moved = busy = ended = 0.0
    for row in report.ops:
        moved += off_chip[row.name] / bandwidth + (0 if moved else 23)
        busy += vector[row.name]
        active, waited = max(product, busy), moved if fidelity == "tile" else 0.0
        body = active + waited if transfers == "serial" else max(active, waited)
        launch = 17 if row.name == "product" else 0
        check(
            row,
            picojoules=picojoules[row.name],
            levels={**levels[row.name], "off_chip": off_chip[row.name]},
            cycles=body - ended + launch,
            clock_hz=1e9,
        )
        assert row.overhead_cycles == launch
        ended = body
    assert [row.name for row in report.ops] == ["product", "add", "sigmoid"]
    assert [row.fused_with for row in report.ops] == ["", "product", ""]
    assert report.time_s == pytest.approx((17 + ended) * 1e-9)
    assert report.bytes_offchip == x + w + 4 * 32 + 2 * z + u + v


@pytest.mark.parametrize(("capacity", "reads"), [(100, 1), (99, 2)])
@pytest.mark.parametrize("transfers", ["overlapped", "serial"])
def test_frame_of_a_softmax(capacity: int, reads: int, transfers: str) -> None:
    """Twelve rows of 100 bytes: one that does not fit in the buffer is read twice."""
    engine = device("sparse_skip", {
        **SPARSE, "buffer.capacity_bytes": capacity, "transfers": transfers, "launch_overhead_cycles": 17,
        "off_chip.latency_s": 23e-9, "off_chip.bandwidth_bytes_per_s": 4e9,
    })  # fmt: skip
    tensors = {"x": Tensor("x", (12, 100), "fp32", "input"), "y": Tensor("y", (12, 100), "fp32")}
    op = Softmax(name="softmax", operation="softmax", elements=1200, rows=12, inputs=("x",), outputs=("y",))
    report = engine.simulate(Workload("softmax", (op,), tensors, ("x",), ("y",)))
    moved = (reads + 1) * 1200
    work = (1200 * (2 + 1 + 1 + 4) + 12 * 4) / 16
    transfer = 23 + moved / 4
    check(
        report.ops[0],
        picojoules={
            "vector": 1200 * (2 * 0.11 + 3.7 + 0.13 + 14.9) + 12 * 12.1,
            "buffer": 2400 * BUFFER,
        },
        levels={"off_chip": moved, "buffer": 2400},
        cycles=17 + (work + transfer if transfers == "serial" else max(work, transfer)),
        clock_hz=1e9,
    )
