"""Photonic engines: counts against tiles walked one by one, energy and time by hand, and what every report keeps to."""

import copy
import itertools
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import hwsim
from hwsim.api import workload_from
from hwsim.operators import Convolution, Matmul
from hwsim.registry import read_spec
from hwsim.report import Report
from hwsim.spec import set_field
from hwsim.views.rows import total_parts_s
from hwsim.workload import chain
from numerics import InputError, Recipe
from photonic.detection import LaserNoise, Receiver, ShotNoise, ThermalNoise
from photonic.device import PhotonicEngine
from photonic.findings import shares
from photonic.tiling import results_kept, weights_kept

NAMES = ("coherent_mzi_56", "ideal_photonic", "mrr_bank", "tempo_like")


def engine(name, **changes):
    found = copy.deepcopy(dict(read_spec(PhotonicEngine.bundled()[name])))
    for field, value in changes.items():
        set_field(found, field.replace("__", "."), value)
    return PhotonicEngine.from_data(found, source="test")


DEVICES = {name: engine(name) for name in NAMES}


def one(m, n, k, batch=1):
    return chain("one", [Matmul(name="op", m=m, n=n, k=k, batch=batch)])


# --- tiling ---------------------------------------------------------------------------------------------------------------


def blocks_of(size, step):
    return [range(i, min(i + step, size)) for i in range(0, size, step)]


def walk_weights(shape, found, *, ports, engines, vectors, passes, slices):
    """The order spelled out: blocks of rows, tiles dealt to engines in turn, vectors one group after the other."""
    batch, m, n, k = shape
    tiles = list(itertools.product(range(batch), blocks_of(n, ports), blocks_of(k, ports), range(slices[1])))
    count = dict.fromkeys(("dac", "adc", "a", "b", "accesses"), 0)
    symbols, set_again, done = [0] * engines, [0] * engines, set()
    for block in blocks_of(m, found.rows):
        for index, (b, columns, inner, part) in enumerate(tiles):
            busy = index % engines
            set_again[busy] += passes
            count["b"] += len(columns) * len(inner) * (part == 0)
            for group in blocks_of(len(block), vectors):
                symbols[busy] += passes * slices[0]
                for row in group:
                    count["dac"] += passes * slices[0] * len(inner)
                    count["adc"] += passes * slices[0] * len(columns)
                    count["a"] += len(inner)
                    count["accesses"] += 2 * len(columns) * slices[0]
                    if part == 0:
                        done |= {(b, block[row], j, i) for j in columns for i in inner}
    assert len(done) == batch * m * n * k
    return count, symbols, set_again, len(tiles)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_kept_weights_are_tiles_walked_one_by_one(data):
    size = lambda most: data.draw(st.integers(1, most))  # noqa: E731
    shape, machine = (size(2), size(9), size(9), size(9)), {"ports": size(4), "engines": size(4), "vectors": size(3)}
    machine |= {"passes": size(2), "slices": (size(2), size(2))}
    capacity = 4 * machine["ports"] * machine["engines"] * data.draw(st.sampled_from([1, 2, 5, 1000]))
    found = weights_kept(
        shape, **machine, sum_capacity_bytes=capacity, buffer_bytes=data.draw(st.sampled_from([8, 40, 10_000])),
        element_bytes=(1.0, 1.0), setting_symbols=data.draw(st.sampled_from([0.0, 100.0])),
        samples=lambda high, wide: (high * machine["passes"], wide * machine["passes"]),
    )  # fmt: skip
    count, symbols, set_again, tiles = walk_weights(shape, found, **machine)
    batch, m, n, k = shape
    assert (found.tiles, found.symbols) == (tiles, max(symbols))
    assert (found.settings, found.all_settings) == (max(set_again), sum(set_again))
    assert (found.dac_samples, found.adc_samples) == (count["dac"], count["adc"])
    assert (found.a_reads, found.b_reads, found.sum_accesses) == (count["a"], count["b"], count["accesses"])
    assert found.sums == count["accesses"] // 2 - batch * m * n
    if k > machine["ports"]:
        columns = n if found.order == "inner" else min(machine["engines"], batch * -(-n // machine["ports"])) * machine["ports"]
        assert 4 * found.rows * columns <= capacity


def test_orders_and_what_they_load():
    """Sums of 8 columns or of all; a block's inputs stay in half the buffer, or come again for each of 8 columns of tiles."""
    machine = {"ports": 8, "engines": 1, "vectors": 1, "passes": 1, "slices": (1, 1), "element_bytes": (1.0, 1.0)}
    machine["samples"] = lambda high, wide: (high, wide)

    def found(settles, sums, room):
        cut = weights_kept(
            (1, 100, 64, 64), **machine, sum_capacity_bytes=4 * sums, buffer_bytes=2 * room, setting_symbols=1000.0 * settles
        )
        return cut.order, cut.rows, cut.settings, cut.a_loads, cut.b_loads

    assert found(True, 100 * 64, 100 * 64) == ("columns", 100, 64, 1, 1)
    assert found(True, 100 * 64, 100 * 63) == ("inner", 100, 64, 1, 1)  # a slice of inputs stays, all sums too
    assert found(True, 100 * 64, 1000) == ("inner", 100, 64, 1, 1)
    assert found(True, 100 * 63, 1000) == ("columns", 100, 64, 8, 1)  # settings are dearer than loads
    assert found(False, 100 * 63, 1000) == ("inner", 98, 128, 1, 2)  # they are not
    assert found(True, 50 * 8, 100 * 64) == ("columns", 50, 128, 1, 1)
    assert found(False, 100 * 8, 25 * 64) == ("columns", 25, 256, 1, 4)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_kept_results_are_symbols_walked_one_by_one(data):
    size = lambda most: data.draw(st.integers(1, most))  # noqa: E731
    (batch, m, n, k), ports, clusters, shared = (size(2), size(9), size(9), size(20)), size(4), size(4), size(3)
    products, integration, slices = size(3), size(4), (size(2), size(2))
    found = results_kept(
        (batch, m, n, k), ports=ports, clusters=clusters, shared=shared, products=products, integration=integration, slices=slices
    )
    symbols, dac, adc, done = [0] * clusters, 0, 0, 0
    for index, (_, top, left) in enumerate(itertools.product(range(batch), range(0, m, ports), range(0, n, ports * shared))):
        high, wide = min(ports, m - top), min(ports * shared, n - left)
        for _ in range(slices[0] * slices[1]):
            waiting = 0
            for start in range(0, k, products):
                terms = min(products, k - start)
                symbols[index % clusters] += 1
                dac += (high + wide) * terms
                waiting += 1
                if waiting == integration or start + products >= k:
                    adc, waiting = adc + high * wide, 0
                done += high * wide * terms
    assert done == batch * m * n * k * slices[0] * slices[1]
    assert (found.symbols, found.dac_samples, found.adc_samples) == (max(symbols), dac, adc)
    assert (found.sums, found.sum_accesses) == (adc - batch * m * n, 2 * adc)


@given(st.data())
@settings(max_examples=80, deadline=None)
def test_more_memory_never_takes_longer(data):
    size = lambda most: data.draw(st.integers(1, most))  # noqa: E731
    shape, ports, engines = (size(3), size(60), size(30), size(30)), size(5), size(4)
    cost = []
    sums, room, setting = size(20), size(60), data.draw(st.sampled_from([0.0, 3.0, 1000.0]))
    for more_sums, more_room in ((1, 1), (1, 3), (3, 3), (7, 3), (7, 30)):
        cut = weights_kept(
            shape, ports=ports, engines=engines, vectors=2, passes=1, slices=(1, 1),
            sum_capacity_bytes=4.0 * ports * engines * sums * more_sums, buffer_bytes=room * more_room,
            element_bytes=(1.0, 1.0), setting_symbols=setting, samples=lambda high, wide: (high, wide),
        )  # fmt: skip
        cost.append(cut.symbols + cut.settings * setting)
    assert cost == sorted(cost, reverse=True)


def test_one_mesh_takes_the_ranks_of_a_tile_out_and_in_again():
    """A tile of 4×2: 4 values in, 2 out after Σ·V†, 2 in again, 2 out."""
    cut = DEVICES["coherent_mzi_56"].tiling((1, 10, 2, 4), ("int8", "int8"))
    assert (cut.dac_samples, cut.adc_samples) == (10 * (4 + 2), 10 * (2 + 2))


# --- time and energy ------------------------------------------------------------------------------------------------------

PRICES = {"buffer__energy_pj_per_byte": 5.3, "off_chip__energy_pj_per_byte": 211.0, "static_power_w": 0.037,
          "accumulators__energy_pj_per_byte": 1.7, "energy_pj_per_sum": 0.19, "dac__energy_pj_per_sample": 3.1,
          "adc__energy_pj_per_sample": 1.3, "modulator__energy_fj_per_bit": 71.0}  # fmt: skip


def check(row, picojoules, held_w, seconds):
    expected = {part: pj * 1e-12 for part, pj in {"vector": 0.0, **picojoules}.items()}
    expected |= {part: power * seconds for part, power in held_w.items()}
    expected["static"] = 0.037 * seconds
    assert row.time_s == pytest.approx(seconds, rel=1e-9)
    assert dict(row.energy_j) == pytest.approx(expected, rel=1e-9, abs=1e-30)


def test_a_product_on_one_mesh_by_hand():
    device = engine("coherent_mzi_56", tuning__energy_pj_per_setting=2.9, **PRICES)
    (row,) = device.simulate(one(100, 6, 8)).ops
    # Two tiles down, two across (the second of two columns): four tiles, each set twice and passed twice.
    seconds = 4 * 2 * 10e-6 + 4 * 2 * 100 / 10e9
    put, taken = 100 * 2 * ((4 + 4) + (4 + 2)), 100 * 2 * ((4 + 4) + (2 + 2))
    moved = 100 * 8 + 8 * 6 + 100 * 6
    read = 100 * 8 * 2 + 8 * 6
    check(
        row,
        {
            "dac": put * 3.1, "modulators": put * 8 * 0.071, "adc": taken * 1.3, "settings": 8 * 24 * 2.9,
            "sums": 600 * 0.19, "accumulators": 2 * 2 * 600 * 4 * 1.7, "buffer": read * 5.3, "off_chip": moved * 211.0,
        },
        device.spec.held_power_w,
        seconds,
    )  # fmt: skip
    assert dict(row.bytes) == {"off_chip": moved, "buffer": read, "accumulators": 9600}
    assert row.utilization == pytest.approx(100 * 6 * 8 / (16 * 10e9 / 2 * seconds))


def test_a_product_on_weight_banks_by_hand():
    device = engine("mrr_bank", tuning__energy_pj_per_setting=2.9, off_chip__latency_s=0.0, **PRICES)
    (row,) = device.simulate(one(50, 16, 40)).ops
    put, taken = 50 * 40, 50 * 16 * 3  # three tiles on three of sixteen banks
    moved = 50 * 40 + 40 * 16 + 50 * 16
    check(
        row,
        {
            "dac": put * 3.1, "modulators": put * 8 * 0.071, "adc": taken * 1.3, "settings": 3 * 256 * 2.9,
            "sums": (50 * 16 * 2 + taken) * 0.19, "accumulators": 2 * taken * 4 * 1.7, "buffer": (50 * 40 + 40 * 16) * 5.3,
            "off_chip": moved * 211.0,
        },
        device.spec.held_power_w,
        10e-6 + 50 / 5e9,
    )  # fmt: skip


def test_a_product_on_crossbars_by_hand():
    device = engine("tempo_like", off_chip__bandwidth_bytes_per_s=1e30, off_chip__latency_s=0.0, **PRICES)
    (row,) = device.simulate(one(32, 64, 6 * 100)).ops
    # Two tiles on two of six groups of six, which share the rows: 100 steps, a sample after 32, 64, 96 and 100.
    put, taken = 32 * 600 + 64 * 600, 32 * 64 * 4
    bytes_in = put * 6 / 8
    moved = (32 * 600 + 64 * 600 + 32 * 64) * 6 / 8
    check(
        row,
        {
            "dac": put * 3.1, "modulators": put * 6 * 0.071, "adc": taken * 1.3, "sums": 32 * 64 * 3 * 0.19,
            "accumulators": 2 * taken * 4 * 1.7, "buffer": bytes_in * 5.3, "off_chip": moved * 211.0,
        },
        device.spec.held_power_w,
        100 / 5e9,
    )  # fmt: skip


def test_two_passes_take_twice_the_settings_and_conversions():
    once, twice = (engine("mrr_bank", engine__sign=sign).simulate(one(64, 256, 256)) for sign in ("differential", "two_pass"))
    a, b = once.tables["mapping"][0], twice.tables["mapping"][0]
    for column in ("symbols", "settings", "dac_samples", "adc_samples"):
        assert b[column] == 2 * a[column], column
    assert twice.ops[0].utilization == pytest.approx(once.ops[0].utilization, rel=1e-3)


def test_bits_are_cut_to_fit_converters():
    whole, cut = (engine("ideal_photonic", dac__bits=bits, tuning__bits=bits) for bits in (8, 4))
    a, b = (device.simulate(one(64, 64, 64)).tables["mapping"][0] for device in (whole, cut))
    assert (b["tiles"], b["dac_samples"]) == (2 * a["tiles"], 4 * a["dac_samples"])
    assert b["symbols"] == 2 * a["symbols"]  # the two halves of the weights are on two engines
    assert cut.simulate(one(64, 64, 64)).peak_macs_per_s == whole.simulate(one(64, 64, 64)).peak_macs_per_s / 4


def test_small_accumulators_set_weights_again():
    times, counts = [], []
    for capacity in (16 * 4, 16 * 40, 16 * 400, 65_536):
        report = engine("coherent_mzi_56", accumulators__capacity_bytes=capacity).simulate(one(1000, 4, 8))
        times.append(report.time_s)
        counts.append(report.tables["mapping"][0]["settings"])
    assert counts == [4 * 250, 4 * 25, 4 * 3, 4]
    assert times == sorted(times, reverse=True)
    alone = engine("coherent_mzi_56", accumulators__capacity_bytes=64).simulate(one(1000, 4, 4))
    assert alone.tables["mapping"][0]["settings"] == 2  # sums of one tile are done as they come


def test_wavelengths_carry_vectors_side_by_side():
    a, b = (engine("ideal_photonic", engine__wavelengths=w).simulate(one(4096, 64, 64)) for w in (1, 4))
    assert a.tables["mapping"][0]["symbols"] == 4 * b.tables["mapping"][0]["symbols"]


def test_idle_light_burns():
    workload = workload_from("resnet18")
    on, off = (engine("tempo_like", idle=idle).simulate(workload) for idle in ("on", "off"))
    power = DEVICES["tempo_like"].spec.held_power_w["laser"]
    assert on.time_s == off.time_s
    assert on.energy_by_component_j["laser"] == pytest.approx(power * on.time_s)
    busy = sum(op.busy_cycles for op in off.ops if op.unit == "array") / off.clock_hz
    assert off.energy_by_component_j["laser"] == pytest.approx(power * busy)
    assert busy < 0.9 * on.time_s


# --- the report -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=15, deadline=None)
@given(st.tuples(*[st.integers(1, 300)] * 3, st.integers(1, 3)), st.booleans())
def test_what_every_report_keeps_to(name, sizes, convolved):
    m, n, k, batch = sizes
    op = Matmul(name="op", m=m, n=n, k=k, batch=batch)
    if convolved:
        op = Convolution(
            name="op", batch=batch, in_channels=k, out_channels=n, input_size=(9, 9), output_size=(4, 4), kernel=(3, 3),
            stride=(2, 2), padding=((0, 0),) * 2, dilation=(1, 1), groups=1,
        )  # fmt: skip
    device = DEVICES[name]
    spec = device.spec
    report, quick = (device.simulate(chain("one", [op]), fidelity=rung) for rung in ("tile", "analytic"))
    (row,) = report.ops
    assert quick.time_s <= report.time_s * (1 + 1e-9)
    assert row.stall_cycles >= 0
    assert 0 < row.utilization <= 1
    assert row.macs <= report.peak_macs_per_s * report.time_s * (1 + 1e-9)
    assert report.bytes_offchip <= spec.off_chip.bandwidth_bytes_per_s * report.time_s * (1 + 1e-9)
    assert row.bytes["buffer"] <= spec.buffer.bytes_per_cycle * row.cycles * (1 + 1e-9) + 1
    assert row.bytes["accumulators"] <= spec.accumulators.bytes_per_cycle * row.cycles * (1 + 1e-9) + 1
    mapping = report.tables["mapping"][0]
    assert mapping["symbol_cycles"] + mapping["setting_cycles"] <= row.cycles * (1 + 1e-9) + 1e-3
    assert Report.from_dict(report.to_dict()).to_dict() == report.to_dict()


@pytest.mark.parametrize("name", NAMES)
def test_resnet50_against_a_systolic_array(name):
    workload = workload_from("resnet50")
    ours, theirs = DEVICES[name].simulate(workload), hwsim.simulate(workload, device="gemmini_16x16")
    assert ours.macs == theirs.macs == workload.macs
    notes = "\n".join(ours.notes)
    parts = shares(ours)
    assert sum(parts.values()) == pytest.approx(1)
    for part, share in parts.items():
        if share >= 5e-4:
            assert f"{share:.1%} {part}" in notes
    setting = sum(row["setting_cycles"] for row in ours.tables["mapping"]) / ours.cycles
    compute, _, overhead = total_parts_s(ours.ops)  # as tables and pictures show it
    assert f"{overhead / ours.time_s:.1%} weights settle" in notes
    assert setting - 5e-4 < overhead / ours.time_s < setting + 1e-9
    if name in ("coherent_mzi_56", "mrr_bank"):  # settling of heaters is what it waits for, and the systolic array is faster
        assert setting > 0.99
        assert compute / ours.time_s < 0.004
        assert ours.time_s > 3 * theirs.time_s
        assert ours.energy_j > 5 * theirs.energy_j
    else:
        assert setting == 0
        assert ours.time_s < theirs.time_s / 50
        assert ours.utilization < 0.3


@pytest.mark.parametrize("name", ["mrr_bank", "tempo_like"])
def test_launches_are_no_digital_part(name):
    """Shares of the time with launches are those without, of so much less, and the launches'."""
    workload = workload_from("mlp0")
    plain = engine(name).simulate(workload)
    slow = engine(name, launch_overhead_cycles=10_000).simulate(workload)

    def time_shares(report):
        (note,) = [note for note in report.notes if note.startswith("time:")]
        return {part: float(share) / 100 for share, part in re.findall(r"([\d.]+)% ([a-z -]+)[,;]", note)}

    without, found = time_shares(plain), time_shares(slow)
    launched = found.pop("operators are launched")
    groups = round((slow.cycles - plain.cycles) / 10_000)
    assert groups > 1
    assert launched == pytest.approx(1e4 * groups / slow.cycles, abs=6e-4)
    assert found == pytest.approx({part: share * plain.cycles / slow.cycles for part, share in without.items()}, abs=1.2e-3)


@pytest.mark.parametrize("name", ["coherent_mzi_56", "mrr_bank"])
def test_settling_is_overhead(name):
    """As far as it adds time: not where the buffer is slower anyway; and loads go on meanwhile."""
    workload, settles = one(40, 24, 24), engine(name).spec.tuning.settling_s
    plain = engine(name).simulate(workload, fidelity="analytic")
    (row,), mapping = plain.ops, plain.tables["mapping"][0]
    assert row.overhead_cycles == pytest.approx(mapping["settings"] * settles * 1e9, rel=1e-9)
    assert row.compute_cycles == pytest.approx(mapping["symbol_cycles"], abs=1e-3)
    (instant,) = engine(name, tuning__settling_s=0.0).simulate(workload, fidelity="analytic").ops
    assert (instant.overhead_cycles, instant.cycles) == (0, pytest.approx(row.cycles - row.overhead_cycles))
    slow = row.bytes["buffer"] / (1.5 * row.cycles)  # bytes a cycle
    (bound,) = engine(name, buffer__banks=1, buffer__bank_bytes_per_cycle=slow).simulate(workload, fidelity="analytic").ops
    assert (bound.compute_cycles, bound.overhead_cycles) == (pytest.approx(1.5 * row.cycles), 0)
    slow = row.bytes["off_chip"] / (2 * row.time_s)
    rates = {"off_chip__bandwidth_bytes_per_s": slow, "off_chip__latency_s": 0.0}
    (loading,) = engine(name, **rates).simulate(workload).ops
    assert loading.overhead_cycles == pytest.approx(row.overhead_cycles)
    assert loading.cycles == pytest.approx(2 * row.cycles, rel=1e-3)


def test_short_sums_are_short_of_light():
    report = DEVICES["tempo_like"].simulate(workload_from("resnet50"))
    rows = {row["op"]: row for row in report.tables["power_budget"]}
    short = [row for row in rows.values() if row["margin_bits"] < 0]
    assert {row["terms"] for row in short} == {64, 128, 147}  # of 192 that a sample takes
    worst = min(short, key=lambda row: row["margin_bits"])
    # 64 products fill 11 of 32 symbols: thermal noise of a wider band, 10·log10(32/11)/2 dB less signal to noise.
    assert worst["light_bits"] == pytest.approx(6 - np.log2(32 / 11) / 2, abs=0.03)
    text = f"precision: {len(short)} of {len(rows)} products ask for more bits than light and ADC give; most short is"
    assert any(note.startswith(text) and f"{worst['light_bits']:g} given" in note for note in report.notes)
    wanted = engine("tempo_like", wanted_bits=7).simulate(workload_from("resnet50"))
    assert any("light and ADC give the bits of the operands in every product (54)" in note for note in wanted.notes)


def test_the_adc_is_a_limit_too():
    report = engine("mrr_bank", adc__bits=6).simulate(one(8, 16, 16))
    assert report.tables["power_budget"][0]["margin_bits"] == -2
    assert any("8 asked, 6 given" in note and "limited by the ADC" in note for note in report.notes)


def test_a_stack_of_layers_starves():
    report = DEVICES["coherent_mzi_56"].simulate(workload_from("mlp0"))
    budget = DEVICES["coherent_mzi_56"].spec.budget
    layers = len(report.tables["power_budget"])
    (note,) = [note for note in report.notes if note.startswith("stack:")]
    assert f"keeps 8 bits through 1 of these {layers} products" in note
    assert budget.signal.layer_db == pytest.approx(2 * 6 * 1.16)  # two passes of six interferometers
    assert budget.bits_after(2) < 8
    for name in ("ideal_photonic", "mrr_bank", "tempo_like"):  # no loss; light that cannot go on to a further layer
        assert not any(note.startswith("stack:") for note in DEVICES[name].simulate(workload_from("mlp0")).notes)


def test_losses_nobody_states_are_named():
    (note,) = [note for note in DEVICES["mrr_bank"].simulate(one(8, 8, 8)).notes if "not known and left out" in note]
    assert "ring_passed" in note
    known = engine("mrr_bank", losses_db__ring_passed=0.1)
    assert known.spec.budget.electrical_w > DEVICES["mrr_bank"].spec.budget.electrical_w
    assert not any("left out" in note for note in known.simulate(one(8, 8, 8)).notes)


def test_weights_made_at_run_time_are_named():
    class Scores(nn.Module):
        def forward(self, x):
            return x @ x.transpose(1, 2)

    workload = hwsim.trace(Scores(), torch.randn(2, 8, 8))
    assert any(
        note.startswith("weights made at run time in 1 of 1 products")
        for note in DEVICES["ideal_photonic"].simulate(workload).notes
    )
    assert not any("run time" in note for note in DEVICES["tempo_like"].simulate(workload).notes)


# --- values ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_emulation_has_the_formats_of_the_report(name):
    torch.manual_seed(1)
    model, x = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 5)), torch.randn(7, 20)
    device = DEVICES[name]
    costed = [row.format for row in device.simulate(hwsim.trace(model, x)).ops if row.kind == "matmul"]
    for fidelity in ("analytic", "tile"):
        emulated = device.emulate(model, fidelity=fidelity, example_inputs=x)
        assert costed == [row.formats for row in emulated.operators if row.kind == "linear"]
    exact = device.emulate(model, fidelity="analytic")
    assert 0 < float((exact(x) - model(x)).norm().detach() / model(x).norm().detach()) < 0.1


def test_costs_do_not_depend_on_what_an_engine_does_wrong():
    """Light, converters and settings are paid for; whether a chip is well made is not in its energy or time."""
    nothing = dict.fromkeys(DEVICES["mrr_bank"].spec.imperfections.model_dump(), "ideal")
    for name, device in DEVICES.items():
        perfect = engine(name, imperfections=nothing)
        one, other = (found.simulate(workload_from("mlp0")).to_dict() for found in (device, perfect))
        assert {**one, "spec": None} == {**other, "spec": None}


def test_the_power_budget_of_a_report_is_what_emulation_finds():
    """Bits of light in the report, beside those of the noise that the same network meets: never fewer, less than one more."""
    torch.manual_seed(1)
    model, x = nn.Sequential(nn.Linear(192, 64), nn.ReLU(), nn.Linear(64, 192)), torch.rand(100, 192)
    for name in ("coherent_mzi_56", "mrr_bank", "tempo_like"):
        device = DEVICES[name]
        told = [row["light_bits"] for row in device.simulate(hwsim.trace(model, x)).tables["power_budget"]]
        emulated = device.emulate(model)
        emulated(x)
        found = [row["noise_bits"] for row in emulated.matrix_unit.table()]
        assert [row["light_bits"] for row in emulated.matrix_unit.table()] == told
        for noise, light in zip(found, told, strict=True):
            assert light - 0.1 < noise < light + 1, name


def test_refused():
    device = DEVICES["coherent_mzi_56"]
    for recipe, message in (
        (Recipe("odd", {"weight": "fp16", "activation": "fp16"}), "no multiply-accumulate for fp16×fp16"),
        (Recipe("odd", {"weight": "int8", "activation": "int8", "accumulator": "fp32"}), "tiles are added in int32; got 'fp32'"),
    ):
        with pytest.raises(InputError, match=message) as costed:
            device.simulate(one(4, 4, 4).with_formats(recipe))
        with pytest.raises(InputError) as computed:
            device.emulate(nn.Linear(4, 4), recipe)
        assert str(computed.value) == str(costed.value)
    with pytest.raises(InputError, match=r"accumulation: sums are int32; leave it out"):
        device.emulate(nn.Linear(4, 4), Recipe("odd", {"weight": "int8", "activation": "int8"}, accumulation="fp32"))


def test_operands_are_converted_in_value_as_in_cost():
    device = engine("coherent_mzi_56", conversions={"int4->int8": {"cycles_per_element": 1, "energy_pj_per_element": 0.1}})
    recipe = Recipe("mixed", {"weight": "int4", "activation": "int8"})
    torch.manual_seed(1)
    model, x = nn.Linear(20, 30), torch.randn(7, 20)
    emulated = device.emulate(model, recipe, example_inputs=x)
    row = device.simulate(hwsim.trace(model, x).with_formats(recipe)).ops[0]
    plain = DEVICES["coherent_mzi_56"].simulate(hwsim.trace(model, x)).ops[0]
    assert row.energy_j["vector"] - plain.energy_j["vector"] == pytest.approx(600 * 0.1e-12)
    assert emulated.operators[0].emulated
    with pytest.raises(InputError, match=r"no multiply-accumulate for int8×int4"):
        DEVICES["coherent_mzi_56"].emulate(model, recipe)


def test_light_of_the_budget_gives_its_bits_on_emulated_detectors():
    """Light launched by the spec, through its losses, onto a balanced pair: the noise of 100,000 samples at full scale."""
    spec = DEVICES["coherent_mzi_56"].spec
    budget, noise = spec.budget, spec.receiver.thermal_noise
    signal, local = (budget.launched_w(path) / 10 ** (path.total_db / 10) for path in (budget.signal, budget.reference))
    receiver = Receiver(
        spec.receiver.responsivity_a_per_w,
        spec.engine.symbol_rate_hz / 2,
        shot=ShotNoise(),
        thermal=ThermalNoise(2 * noise.load_ohm, noise.temperature_k),  # each diode has its half of the one input stage
        laser=LaserNoise(10 ** (spec.laser.relative_intensity_noise_db_per_hz / 10)),
    )
    fields = np.sqrt(signal) * np.array([1.0, -1.0])
    light = np.repeat([(fields + np.sqrt(local)) ** 2 / 2, (fields - np.sqrt(local)) ** 2 / 2], 100_000, axis=1)
    plus, minus = receiver.currents(light, seed=5)
    read = (plus - minus).reshape(2, -1)
    full_scale = read[0].mean() - read[1].mean()
    assert full_scale == pytest.approx(4 * receiver.responsivity_a_per_w * np.sqrt(signal * local), rel=1e-3)
    assert np.log2(full_scale / (np.sqrt(12) * read[0].std())) == pytest.approx(8, abs=0.02)
