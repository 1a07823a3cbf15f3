"""The BNN engine: programs of nodes against counts of ones, layers against numpy, cycles, energies and invariants of reports.

Cells and schedules themselves: ``test_threshold_cell.py`` (every neuron of up to ten inputs at every threshold).
"""

import math

import numpy as np
import pytest
import torch
from effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import hwsim
from accelerators.binary.comparison import PUBLISHED_ENERGY_RATIO, compare_engines
from accelerators.binary.emulation import bnn_recipe
from accelerators.binary.folding import folded_ops
from accelerators.binary.layer import run_layer, sign_threshold
from accelerators.binary.node_program import NodeProgram, _in_pieces, node_program
from accelerators.binary.node_schedule import schedule_count, schedule_max_pool, schedule_neuron
from hwsim.held_operands import loaded_bytes
from hwsim.operators import Convolution, Matmul
from hwsim.registry import get_device
from hwsim.rtl_ratios import ratio
from hwsim.workload import chain
from numerics import InputError, Recipe
from numerics.scaling import Scaling

ENGINES = ("tulip", "bnn_mac", "bnn_popcount")
SIGNS = Recipe(
    "signs",
    {"weight": "binary", "activation": "binary", "accumulator": "fp32", "elementwise": "fp32"},
    scaling={"weight": Scaling("none"), "activation": Scaling("none")},
)


class Sign(nn.Module):
    def forward(self, x):
        return torch.sign(x)


def network():
    """Two integer layers around three binary ones, with every kind of operator between them."""
    torch.manual_seed(0)
    conv = [nn.Conv2d(a, b, 3, padding=1, bias=False) for a, b in ((3, 32), (32, 32), (32, 64), (64, 64))]
    return nn.Sequential(
        conv[0], nn.BatchNorm2d(32), nn.Hardtanh(),
        conv[1], nn.BatchNorm2d(32), Sign(), nn.MaxPool2d(2),
        conv[2], nn.BatchNorm2d(64), nn.Hardtanh(),
        conv[3], nn.BatchNorm2d(64), Sign(), nn.Flatten(), nn.Linear(64 * 16, 10, bias=False),
    ).eval()  # fmt: skip


def traced():
    return hwsim.trace(network(), torch.randn(2, 3, 8, 8)).with_formats(bnn_recipe("5", "6", "12"))


def bits(rng, *shape):
    return rng.random(shape) < rng.random((*shape[:-1], 1))


# --- programs of nodes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cells", [1, 4])
@pytest.mark.parametrize("inputs", [2, 3, 10, 100])
def test_a_count_is_a_count(inputs, cells):
    rng = np.random.default_rng(inputs)
    x, w = bits(rng, 2, 40, inputs)
    assert np.array_equal(schedule_count(inputs, cells=cells).counted(x, w), np.count_nonzero(x == w, axis=1))


def test_pieces_exhaustively_and_near_their_threshold():
    x = (np.arange(1 << 10)[:, None] >> np.arange(10) & 1).astype(bool)
    for threshold in range(12):  # sizes with one, none and some inputs left over
        for size in (3, 7):
            assert np.array_equal(_in_pieces(10, size, 2).run(x, threshold=threshold), x.sum(axis=1) >= threshold)
    rng = np.random.default_rng(1)
    for inputs, size in ((64, 63), (257, 31), (1000, 127)):
        program = _in_pieces(inputs, size, 4)
        x, w = bits(rng, 2, 30, inputs)
        ones = np.count_nonzero(x == w, axis=1)
        for offset in (-1, 0, 1):
            limit = np.clip(ones + offset, 0, inputs + 1)
            found, cycles = program.stepped(x, w, threshold=limit)
            assert np.array_equal(found, ones >= limit)
            assert cycles == program.cycles


def test_cycles_of_pieces_by_hand():
    # 1000 inputs in pieces of 127 on one cell: 7 of them take 2^7 − 1 − 7 full adders each, 111 are left.
    program = _in_pieces(1000, 127, 1)
    left = schedule_count(111)
    totals = [127 * i for i in range(1, 8)]
    additions = sum(total.bit_length() for total in totals)
    assert program.cycles == 7 * (127 - 7) + left.cycles + additions + 10
    assert program.instructions == program.cycles  # one cell is never idle
    # Two operands and a result for each bit that is added, a carry each time, the threshold and the total for the comparison.
    per_piece = schedule_count(127).register_accesses
    assert program.register_accesses == 7 * per_piece + left.register_accesses + 3 * additions + 7 + 2 * 10 + 1


def test_accesses_of_a_full_adder_tree_by_hand():
    # Two adders of three inputs write two bits each (4), which the addition of the two sums and the seventh input reads (4); it
    # writes the three bits of the count.
    schedule = schedule_count(7)
    assert (schedule.cycles, schedule.register_accesses) == (4, 4 + 4 + 3)


@settings(max_examples=examples(60), deadline=None)
@given(st.integers(1, 6000), st.integers(1, 8), st.integers(48, 400))
def test_a_program_fits_its_registers_and_larger_ones_are_no_slower(inputs, cells, registers):
    program = node_program(inputs, cell_inputs=3, cells=cells, register_bits=registers)
    assert program.stored_bits <= registers
    assert node_program(inputs, cell_inputs=3, cells=cells, register_bits=2 * registers).cycles <= program.cycles
    assert program.cycles * cells >= program.instructions
    if inputs > 3:  # every input but one in a group of adders, and a comparison
        assert program.instructions >= inputs - inputs.bit_length() + (inputs + 1).bit_length()


def test_registers_too_small_are_an_error():
    with pytest.raises(
        InputError, match=r"^pe\.register_bits: a node of 1000 inputs keeps \d+ bits at least; expected .* got 8$"
    ):
        node_program(1000, cell_inputs=3, cells=4, register_bits=8)


def test_one_adder_in_software_is_exact_to_the_widest_total():
    program = NodeProgram(4, None, 2, (schedule_count(2), None), (1, 2))
    x = (np.arange(16)[:, None] >> np.arange(4) & 1).astype(bool)
    for threshold in range(6):
        assert np.array_equal(program.run(x, threshold=threshold), x.sum(axis=1) >= threshold)


# --- layers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ENGINES)
@settings(max_examples=examples(12), deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 90), st.integers(0, 2**32 - 1), st.booleans())
def test_a_layer_is_the_sign_of_a_product(name, m, n, k, seed, given_thresholds):
    rng = np.random.default_rng(seed)
    x, w = rng.choice([-1, 1], (m, k)), rng.choice([-1, 1], (n, k))
    small = get_device(name, overrides={"pe.count": 16})
    threshold = rng.integers(0, k + 2, n) if given_thresholds else sign_threshold(k)
    run = run_layer(small.spec, x, w, threshold=threshold if given_thresholds else None)
    total = x @ w.T
    # With c products of +1 the sum is 2c − k.
    wanted = total >= 2 * threshold - k if given_thresholds else total > 0
    assert np.array_equal(run.outputs, np.where(wanted, 1, -1))
    report = small.simulate(chain("layer", [Matmul(name="x", m=m, n=n, k=k)]).with_formats(SIGNS))
    row = report.tables["mapping"][0]
    assert (row["unit_cycles"], row["waves"]) == (run.cycles, run.waves)
    assert report.ops[0].busy_cycles >= run.cycles


def test_cycles_of_a_layer_are_those_of_its_schedule():
    device = get_device("tulip", overrides={"operands.bank_bytes_per_cycle": 1e6})
    report = device.simulate(chain("layer", [Matmul(name="x", m=100, n=100, k=288)]).with_formats(SIGNS), fidelity="analytic")
    node = schedule_neuron(288, cell_inputs=3, cells=4)
    whole = node_program(288, cell_inputs=3, cells=4, register_bits=64)
    assert whole.cycles <= node.cycles
    assert report.cycles == math.ceil(100 / 16) ** 2 * whole.cycles
    baseline = get_device("bnn_mac", overrides={"operands.bank_bytes_per_cycle": 1e6})
    cycles = baseline.simulate(
        chain("layer", [Matmul(name="x", m=128, n=96, k=288)]).with_formats(SIGNS), fidelity="analytic"
    ).cycles
    assert cycles == 128 * 96 / 32 * (288 / 18 + 1)


def test_operands_of_a_layer_by_hand():
    # 256 elements: each wave of 16 × 16 outputs reads 16 rows and 16 columns of 128 bits.
    report = get_device("tulip").simulate(chain("layer", [Matmul(name="x", m=64, n=64, k=128)]).with_formats(SIGNS))
    row = report.tables["mapping"][0]
    assert (row["rows"], row["columns"], row["waves"]) == (16, 16, 16)
    assert report.bytes_by_level["operands"] == 16 * (16 + 16) * 128 // 8
    assert report.bytes_offchip == (64 * 128 + 64 * 128) / 8 + 4 * 64 * 64  # the results are fp32: nobody takes their sign


def test_layers_that_are_not_binary_run_on_the_integer_macs():
    device = get_device("tulip", overrides={"operands.bank_bytes_per_cycle": 1e6})
    work = chain("layer", [Matmul(name="x", m=64, n=64, k=100)])
    assert device.simulate(work, fidelity="analytic").cycles == 64 * 64 / 32 * 100
    mixed = Recipe("mixed", {"weight": "binary", "activation": "int8", "accumulator": "fp32"})
    report = device.simulate(work.with_formats(mixed))
    assert report.energy_by_component_j["mac"] == pytest.approx(64 * 64 * 100 * 0.1e-12)
    assert report.bytes_offchip == 64 * 100 + 64 * 100 / 8 + 64 * 64


# --- between layers ---------------------------------------------------------------------------------------------------


def test_what_is_folded():
    work = traced()
    names = {op.name: op for op in work.ops}
    # Behind the three binary convolutions: normalisation and clipping or sign. Behind the integer one, nothing.
    assert folded_ops(work) == {"4", "5", "8", "9", "11", "12"}
    report = get_device("tulip").simulate(work)
    rows = {row.name: row for row in report.ops}
    for name in folded_ops(work):
        assert rows[name].energy_j["vector"] <= 32 * 64 * 2 * 0.1e-12  # at most the comparison that takes the sign
    assert rows["1"].energy_j["vector"] > 0
    assert names["6"].kind == "pooling"
    window = schedule_max_pool(4, cell_inputs=3)
    assert rows["6"].energy_j["cells"] == pytest.approx(names["6"].elements * window.cycles * 0.015642e-12)
    assert "cells" not in {row.name: row for row in get_device("bnn_mac").simulate(work).ops}["6"].energy_j


def test_a_result_that_somebody_else_reads_is_not_folded():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.norm, self.b = nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1, bias=False)

        def forward(self, x):
            y = self.norm(self.a(x))
            return self.b(y) + y

    work = hwsim.trace(Twice().eval(), torch.randn(1, 8, 4, 4))
    assert folded_ops(work.with_formats(SIGNS)) == frozenset()


def test_folding_is_exact():
    """A normalisation and a sign are a threshold on the count: in the emulation as in the layer on cells."""
    torch.manual_seed(1)
    linear, norm = nn.Linear(75, 40, bias=False), nn.BatchNorm1d(40).eval()
    norm.weight.data = torch.rand(40) + 0.2
    norm.bias.data, norm.running_mean, norm.running_var = torch.randn(40), torch.randn(40) * 5, torch.rand(40) * 30 + 1
    x = torch.randn(50, 75)
    device = get_device("tulip")
    emulated = device.emulate(nn.Sequential(linear, norm, Sign()).eval(), SIGNS)(x)
    # s > μ − β σ / γ, and s = 2 c − k.
    bound = norm.running_mean - norm.bias * torch.sqrt(norm.running_var + norm.eps) / norm.weight
    threshold = torch.floor((bound + 75) / 2).long().clamp(-1, 75) + 1
    signs = [np.where(v.detach().numpy() > 0, 1, -1) for v in (x, linear.weight)]
    run = run_layer(device.spec, *signs, threshold=threshold.numpy())
    assert np.array_equal(run.outputs, emulated.detach().numpy())


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ENGINES)
def test_emulation_is_exact_arithmetic_on_signs(name):
    torch.manual_seed(2)
    layer, x = nn.Linear(301, 33, bias=False), torch.randn(20, 301)
    x[0, :50] = 0  # counts as −1
    found = get_device(name).emulate(layer, SIGNS)(x).detach().numpy()
    left, right = (np.where(v.detach().numpy() > 0, 1, -1) for v in (x, layer.weight))
    assert np.array_equal(found, left @ right.T)


def test_a_network_is_computed_and_costed_in_the_same_formats():
    work = traced()
    device = get_device("tulip")
    emulated = device.emulate(network(), bnn_recipe("5", "6", "12"), example_inputs=torch.randn(2, 3, 8, 8))
    costed = [(row.module, row.format) for row in device.simulate(work).ops if row.kind in ("convolution", "matmul")]
    computed = [(row.module, row.formats) for row in emulated.operators if row.kind in ("conv2d", "linear")]
    assert sorted(costed) == sorted(computed)
    assert [form for _, form in costed] == ["int8→int32", *["binary→fp32"] * 3, "int8→int32"]


# --- energy -----------------------------------------------------------------------------------------------------------


def test_energies_of_the_specs_are_the_rtl_ratios():
    mac = 0.3
    threshold, macs, popcount = (get_device(name).spec.pe for name in ENGINES)
    cell = ratio("energy", "threshold_neuron", "inputs3", data="binary", over_data="random")
    assert threshold.instruction_energy_pj == pytest.approx(3 * cell * mac)
    assert threshold.logic_area_mac_int8 == pytest.approx(4 * ratio("area", "threshold_neuron", "inputs3"))
    assert macs.product_energy_pj == pytest.approx(
        ratio("energy", "mac_int8", "wrapping", data="binary", over_data="random") * mac
    )
    assert macs.logic_area_mac_int8 == 18
    tree = ratio("energy", "threshold_neuron", "inputs10", data="binary", over_data="random")
    assert popcount.product_energy_pj == pytest.approx(tree * mac)
    assert popcount.logic_area_mac_int8 == pytest.approx(18 * ratio("area", "threshold_neuron", "inputs10") / 10)


def test_against_the_baselines():
    work = traced()
    tulip, macs, popcount = (get_device(name) for name in ENGINES)
    against_macs, against_popcount = compare_engines(work, tulip, macs), compare_engines(work, tulip, popcount)
    # What the published chip gains lies between what ordinary gates say against MACs and against the leanest counting trees.
    assert against_popcount.element_energy < 1 < PUBLISHED_ENERGY_RATIO < against_macs.element_energy
    assert against_macs.time >= 1  # no loss of performance
    assert "RTL ratio threshold_neuron" in str(against_macs)
    assert "RTL ratio mac_int8 binary" in str(against_macs)
    assert "published: energy 3" in str(against_macs)
    same = compare_engines(work, tulip, tulip)
    assert (same.element_energy, same.energy, same.time, same.area) == (1, 1, 1, 1)


# --- reports ----------------------------------------------------------------------------------------------------------


@st.composite
def layers(draw):
    ops = []
    for index in range(draw(st.integers(1, 4))):
        if draw(st.booleans()):
            m, n, k = (draw(st.integers(1, 300)) for _ in range(3))
            ops.append(Matmul(name=f"op{index}", m=m, n=n, k=k, batch=draw(st.sampled_from([1, 1, 5]))))
            continue
        channels, size = draw(st.sampled_from([3, 16, 40])), draw(st.integers(3, 12))
        groups = draw(st.sampled_from([1, channels]))
        ops.append(
            Convolution(
                name=f"op{index}", batch=draw(st.integers(1, 3)), in_channels=channels, out_channels=channels * 2,
                input_size=(size, size), output_size=(size, size), kernel=(3, 3), stride=(1, 1), padding=((1, 1), (1, 1)),
                dilation=(1, 1), groups=groups,
            )
        )  # fmt: skip
    return chain("layers", ops)


@settings(max_examples=examples(60), deadline=None)
@given(
    layers(),
    st.sampled_from(ENGINES),
    st.booleans(),
    st.sampled_from(
        [
            ("off_chip.bandwidth_bytes_per_s", 1.7), ("operands.capacity_bytes", 3), ("operands.bank_bytes_per_cycle", 1.5),
            ("clock_hz", 1.4), ("pe.count", 2), ("pe.register_bits", 2), ("integer_macs", 3), ("vector_unit.lanes", 2),
            ("buffer.capacity_bytes", 2),
        ]
    ),
)  # fmt: skip
def test_invariants(work, name, binary, more):
    field, factor = more
    if field == "pe.register_bits" and name != "tulip":
        field = "pe.products_per_cycle"
    device = get_device(name, overrides={"operands.capacity_bytes": 2000, "off_chip.bandwidth_bytes_per_s": 4e8})
    placed = work.with_formats(SIGNS) if binary else work
    report = device.simulate(placed)
    spec = device.spec
    rates = {"off_chip": spec.off_chip.bandwidth_bytes_per_s, "operands": spec.operands.bytes_per_cycle * spec.clock_hz}
    for level, rate in rates.items():
        assert report.bytes_by_level[level] <= rate * report.time_s * (1 + 1e-9) + len(report.ops)
    for row in report.ops:
        assert min(row.compute_cycles, row.stall_cycles, row.overhead_cycles, *row.energy_j.values()) >= -1e-9
        assert row.cycles == pytest.approx(row.compute_cycles + row.stall_cycles + row.overhead_cycles)
        assert row.utilization <= 1 + 1e-9
    assert report.time_s >= report.macs / report.peak_macs_per_s * (1 - 1e-9)
    assert all(0 < row["array_occupancy"] <= 1 for row in report.tables["mapping"])
    assert report.time_s >= device.simulate(placed, fidelity="analytic").time_s * (1 - 1e-9)
    value = spec.model_dump()
    for part in field.split("."):
        value = value[part]
    larger = get_device(device, overrides={field: type(value)(value * factor)})
    assert larger.simulate(placed).time_s <= report.time_s * (1 + 1e-9)


@settings(max_examples=examples(200), deadline=None)
@given(st.integers(100, 5000), st.integers(6000, 20000), st.integers(0, 3), st.integers(1, 900), st.sampled_from([1, 4]))
def test_loads_by_following_the_parts(a, b, which, capacity, batch):
    """One operand in parts, the other passing once a part, by counting both ways; a 7 stands for what else is loaded."""
    a, b = a * batch, b * batch
    loads = (which & 1, which >> 1)
    least = a * loads[0] + b * loads[1] + 7
    options = []
    for held, passing, load_held, load_passing in ((a, b, *loads), (b, a, *loads[::-1])):
        moved = 0
        for _ in range(batch):
            left = held // batch
            parts = 0
            while left > 0:
                left, parts = left - min(left, capacity), parts + 1
            moved += load_held * held // batch + load_passing * parts * (passing // batch)
        options.append(moved + 7)
    found = loaded_bytes(least, (a, b), (a, b), capacity_bytes=capacity, batch=batch)
    assert found == min(options)


@pytest.mark.parametrize(("name", "model"), [("tulip", "resnet18"), ("tulip", "lstm_small"), ("bnn_mac", "gpt2")])
def test_zoo(name, model):
    from hwsim.api import workload_from

    device = get_device(name)
    for mode in ("inference", "training"):
        assert device.simulate(workload_from(model, mode=mode)).time_s > 0
    assert device.simulate(workload_from(model).with_formats(bnn_recipe())).time_s > 0


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"mac_formats": {"binary": {"energy_pj": 1}, "int8": {"energy_pj": 1}}}, r"mac_formats\.binary: products of two binary"),
        (
            {"operands.retained_capacity_bytes": 8},
            r"operands\.retained_capacity_bytes: only the buffer retains tensors; expected 0",
        ),
        ({"pe.cell_inputs": 2}, r"pe\.cell_inputs: input should be greater than or equal to 3 \(got 2\)$"),
        ({"pe.style": "analog"}, r"pe: input tag 'analog' found using 'style' does not match any of the expected tags"),
        ({"pe.cell_count": 4}, r"unknown field 'pe"),
    ],
)
def test_bad_specs_are_one_line(overrides, message):
    with pytest.raises(InputError, match=message) as caught:
        get_device("tulip", overrides=overrides)
    assert "\n" not in str(caught.value)


def test_bad_requests_are_one_line():
    device = get_device("tulip")
    work = chain("one", [Matmul(name="x", m=8, n=8, k=8)])
    wrong = Recipe("wrong", {"weight": "int8", "activation": "int8", "accumulator": "fp32"})
    line = r"^device 'tulip': accumulator: sums of int8×int8 are exact integers, stated as int32; got 'fp32'$"
    with pytest.raises(InputError, match=line):
        device.simulate(work.with_formats(wrong))
    with pytest.raises(InputError, match=line):
        device.emulate(nn.Linear(4, 4), wrong)
    own = Recipe("own", {"weight": "int8", "activation": "int8", "accumulator": "int32"}, accumulation="int32_saturate")
    with pytest.raises(
        InputError, match=r"^device 'tulip': recipe 'own': accumulation: the engine's sums are exact; leave it out$"
    ):
        device.emulate(nn.Linear(4, 4), own)
    spec = device.spec
    with pytest.raises(InputError, match=r"^x: expected \+1 and -1, got 0$"):
        run_layer(spec, [[0, 1]], [[1, 1]])
    with pytest.raises(InputError, match=r"^w: expected shape \(n, 2\), got \(1, 1\)$"):
        run_layer(spec, [[1, 1]], [[1]])
    with pytest.raises(InputError, match=r"^threshold: expected 0 to 3, got 4 to 4$"):
        run_layer(spec, [[1, 1]], [[1, 1]], threshold=4)
    with pytest.raises(InputError, match=r"^count: this node ends with one bit and no count; take schedule_count$"):
        schedule_neuron(4, cell_inputs=3).counted([[1, 0, 1, 1]])


def test_every_spec_field_is_documented():
    import re
    from pathlib import Path

    from accelerators.binary.spec import BinarySpec, PopcountPe, ThresholdPe

    def fields_of(model, prefix=""):
        for name, field in model.model_fields.items():
            if isinstance(field.annotation, type) and hasattr(field.annotation, "model_fields"):
                yield from fields_of(field.annotation, f"{prefix}{name}.")
            elif name != "pe":
                yield f"{prefix}{name}"

    page = (Path(__file__).resolve().parents[2] / "docs" / "binary-engine.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w.]+)`", page[page.index("## The spec") :]))
    fields = {*fields_of(BinarySpec), *fields_of(ThresholdPe, "pe."), *fields_of(PopcountPe, "pe.")}
    assert {field for field in fields if not field.startswith("off_chip.dram.") and field not in named} == set()


def test_a_report_says_where_nothing_is_binary():
    work = chain("layer", [Matmul(name="x", m=8, n=8, k=8)])
    said = [any("none on the binary elements" in note for note in get_device("tulip").simulate(each).notes)
            for each in (work, work.with_formats(SIGNS))]  # fmt: skip
    assert said == [True, False]
