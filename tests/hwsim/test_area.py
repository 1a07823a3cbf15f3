"""Areas and costs: against published dies, the RTL's ratios, counted dies and what must hold of any of them."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelerators.bit_serial.parts import part_area
from accelerators.systolic.area import systolic_area, systolic_element
from hwsim.area import (
    Area,
    Component,
    compare_published,
    die_cost,
    die_yield,
    dies_per_wafer,
    element_area,
    get_process,
    mac_area,
    process_nodes,
    published_areas,
)
from hwsim.area.process import at_node, figures, logic_overhead, node_figures, sram_overhead
from hwsim.cli import main
from hwsim.machine import Machine
from hwsim.registry import device_names, get_device
from hwsim.rtl_ratios import ratio
from numerics.errors import InputError

NODES = st.floats(3, 130)
SIZES = st.integers(1, 2**24)
KINDS = {  # a device of each kind, and fields of which a larger value is more hardware
    "tpu_v1": ("array.rows", "array.columns", "array.count", "memory.input.capacity_bytes", "memory.weight.capacity_bytes",
               "memory.input.retained_capacity_bytes", "memory.output.capacity_bytes", "vector_unit.lanes"),
    "a100": ("units", "memory.register_file.capacity_bytes", "memory.shared.capacity_bytes", "memory.l2.capacity_bytes"),
    "eyeriss": ("array.rows", "array.columns", "scratchpads.ifmap_words", "scratchpads.filter_words", "scratchpads.psum_words",
                "filter_buffer.capacity_bytes"),
    "nvdla_512": ("mac_array.multipliers", "convolution_buffer.capacity_bytes", "mac_array.longest_stripe",
                  "buffer.capacity_bytes", "vector_unit.lanes"),
    "tpe_systolic_mac": ("array.topology.rows", "array.topology.columns", "buffer.capacity_bytes"),
    "tulip": ("pe.count", "pe.register_bits", "integer_macs", "operands.capacity_bytes", "buffer.retained_capacity_bytes"),
    "sparse_skip": ("lanes.count", "lanes.width", "operands.capacity_bytes", "buffer.capacity_bytes"),
    "pulp_open": ("cores", "core.kilo_gates", "l1.capacity_bytes", "l2_capacity_bytes"),
    "odin": ("neurons_per_core", "synapse_memory_bytes_per_core", "bits.voltage"),
}  # fmt: skip


# --- published dies ----------------------------------------------------------------------------------------------------


def test_published_areas():
    rows = {(r["device"], r["part"], r["node_nm"]): r for r in compare_published()}
    ratios = {key: row["ratio"] for key, row in rows.items()}
    tested = {key: r for key, r in ratios.items() if rows[key]["use"] == "test"}
    # What each factor is fitted to, it gives back.
    fitted = {key: r for key, r in ratios.items() if key not in tested}
    assert set(fitted) == {
        ("gemmini_16x16", "elements", 22),
        ("gemmini_16x16", "input_buffer+weight_buffer", 22),
        ("tpu_v1", "die", 28),
        ("a100", "die", 7),
    }
    assert all(math.isclose(r, 1, rel_tol=1e-3) for r in fitted.values())
    # Chips of their own: within a third.
    dies = {key: r for key, r in tested.items() if key[1] == "die"}
    assert len(dies) == 8
    assert all(0.75 < r < 1.31 for key, r in dies.items() if key[0] != "tpu_v4")
    assert dies["tpu_v4", "die", 7] < 1  # "less than 600 mm²"
    # Blocks and parts of them: mostly too small, by up to 2.5.
    blocks = [r for key, r in tested.items() if key[1] != "die"]
    assert len(blocks) == 15
    assert min(blocks) > 0.4
    assert max(blocks) < 1.25
    assert 0.6 < np.median(blocks) < 0.7
    # The order of sizes over five decades.
    predicted, published = ([float(rows[key][of]) for key in tested] for of in ("predicted_mm2", "published_mm2"))
    ranks = [np.argsort(np.argsort(values)) for values in (predicted, published)]
    assert np.corrcoef(ranks)[0, 1] > 0.97


def test_the_same_block_at_two_nodes():
    # NVIDIA's own estimates shrink by 1.64 to 1.67 from 28 to 16 nm; the published scaling by somewhat more.
    for name in ("nvdla_2048", "nvdla_512", "nvdla_128", "nvdla_32"):
        coarse, fine = (next(p.mm2 for p in published_areas() if (p.device, p.node_nm) == (name, node)) for node in (28, 16))
        device = get_device(name)
        ours = device.area(28).total_mm2 / device.area(16).total_mm2
        assert 1 < ours / (coarse / fine) < 1.16


def test_macros_against_another_account():
    # WikiChip on IEDM 2022: 31.8 Mib/mm² of 0.021 µm² cells (5 nm), 33.55 of 0.0199 (3 nm), peripheral circuits included.
    for node, density in ((5, 31.8), (3, 33.55)):
        assert 1e6 / get_process(node).macro_um2_per_bit / 2**20 == pytest.approx(density, rel=0.06)


def test_buffers_against_memory_chips():
    # Intel's test chips, decoders, pads and all: 52 Mbit on 109 mm² at 90 nm, 70 Mbit on 110 mm² at 65 nm (press releases of
    # March 2002 and August 2004). The factor for buffers comes from a scratchpad at 22 nm.
    for node, megabits, published, largest in ((90, 52, 109, 1.4), (65, 70, 110, 1.1)):
        assert 0.9 < get_process(node).sram_mm2(megabits * 1e6 / 8) / published < largest


def test_fitted_factors_are_the_published_floorplans():
    assert logic_overhead() == pytest.approx(116e3 / 256 / (419 * at_node("logic_area", 22)))
    assert sram_overhead() == pytest.approx(544e3 / (2**21 * get_process(22).macro_um2_per_bit))
    tpu, gpu = get_device("tpu_v1").area(), get_device("a100").area()
    assert figures()["chip_factor"].value == pytest.approx(331 / tpu.total_mm2, rel=1e-3)
    named = gpu.total_mm2 - gpu["unnamed"]
    assert figures()["gpu_unnamed"].value == pytest.approx(826 / named - 1, rel=1e-3)
    assert {name for name, figure in figures().items() if figure.basis == "fitted"} == {
        "gemmini_array_um2", "gemmini_elements", "gemmini_scratchpad_um2", "gemmini_scratchpad_bytes", "gemmini_node_nm",
        "gemmini_unnamed_share", "chip_factor", "gpu_unnamed",
    }  # fmt: skip


# --- formats -----------------------------------------------------------------------------------------------------------


def test_macs_against_the_rtl():
    for name, unit in (("e4m3fn", "e4m3"), ("e5m2", "e5m2"), ("bf16", "bf16")):
        assert mac_area(name, name) == pytest.approx(ratio("area", "fp_mac", unit), rel=0.06)
    # Shares of multiplier and adder, from a 45 nm library and from the RTL's 0.35 µm one.
    of_adder = 1 - mac_area("int8", "int8", "int16") / mac_area("int8", "int8")
    adder = part_area("sum_adder") / (part_area("multiplier") + part_area("sum_adder"))
    assert 2 * of_adder == pytest.approx(adder, rel=0.25)
    assert figures()["flipflop_relative"].value == pytest.approx(part_area("sum_register") / 32, rel=1e-3)


def test_known_macs():
    assert mac_area("int8", "int8") == pytest.approx(1)
    assert mac_area("int32", "int32") == pytest.approx((3495 + 137) / 419)
    assert mac_area("uint8", "int8") == mac_area("int8", "uint8") == mac_area("int8", "int8")
    assert mac_area("nf4", "int8") is None  # codes of a table
    assert element_area(["int8", "nf4"]) is None
    # Sixteen bits in four passes through the same hardware.
    assert element_area({"int8": 1, "int16": 0.25}) == pytest.approx(1)
    assert element_area({"int8": 1, "bf16": 1}) == mac_area("bf16", "bf16")
    with pytest.raises(InputError, match="mac_formats: expected at least one"):
        element_area([])
    with pytest.raises(InputError, match="unknown name 'int99'"):
        element_area(["int99*int8"])


@given(
    st.sampled_from([["int2", "int4", "int8", "int16", "int32"], ["e5m2", "e4m3fn", "bf16", "fp16", "fp32", "fp64"]]), st.data()
)
def test_wider_formats_are_larger(formats, data):
    a, b = (data.draw(st.integers(0, len(formats) - 1)) for _ in range(2))
    wider = data.draw(st.integers(a, len(formats) - 1))
    narrow, wide = data.draw(st.sampled_from([("int16", "int32"), ("fp16", "fp32"), ("int32", "int32")]))
    small, large = mac_area(formats[a], formats[b], narrow), mac_area(formats[wider], formats[b], wide)
    assert 0 < small <= large
    assert mac_area(formats[b], formats[wider], wide) == large


# --- invariants --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in device_names() if isinstance(get_device(name), Machine)])
def test_every_device_has_an_area_or_a_reason(name):
    device = get_device(name)
    for area in (device.area(), device.area(28), device.area(7)):
        assert all((part.mm2 is None) == (part.basis == "unknown") and part.how for part in area.components)
        assert all(part.mm2 > 0 for part in area.components if part.mm2 is not None)
        assert sum(part.mm2 or 0 for part in area.components) == pytest.approx(area.known_mm2)
        assert (area.total_mm2 is None) == bool(area.unknown)
        json.dumps(area.to_dict(), allow_nan=False)
        assert name in str(area)
        assert "<table>" in area._repr_html_()


@given(st.sampled_from(sorted(KINDS)), st.data(), NODES, NODES)
@settings(max_examples=60, deadline=None)
def test_more_is_never_smaller(name, data, node, other):
    field = data.draw(st.sampled_from(KINDS[name]))
    value = get_device(name).spec
    for part in field.split("."):
        value = getattr(value, part)
    more = max(1, round(value)) * data.draw(st.integers(1, 5))
    plain, grown = get_device(name).area(node), get_device(name, overrides={field: more}).area(node)
    for part in plain.components:
        assert (grown[part.name] or 0) >= (part.mm2 or 0)
    assert grown.total_mm2 > plain.total_mm2 if more > value else grown.total_mm2 == plain.total_mm2
    fine, coarse = sorted((node, other))
    assert get_device(name).area(fine).total_mm2 <= get_device(name).area(coarse).total_mm2


def test_nodes():
    for quantity in ("logic_area", "sram_cell_um2"):
        values = [figure.value for figure in node_figures()[quantity].values()]
        assert values == sorted(values)
        for node, figure in node_figures()[quantity].items():
            assert at_node(quantity, node) == figure.value
            assert figure.source
    assert at_node("logic_area", math.sqrt(32 * 20)) == pytest.approx(math.sqrt(0.46 * 0.21))
    assert process_nodes()[0] == 3
    assert process_nodes()[-1] == 130
    for node, message in (
        (2, "3 to 130 nm, got 2"),
        (True, "expected nanometres, got True"),
        (math.nan, "expected nanometres"),
        ([28], "got"),
    ):
        with pytest.raises(InputError, match=message):
            get_device("tpu_v1").area(node)
    with pytest.raises(InputError, match="process_nm"):
        get_device("tpu_v1", overrides={"process_nm": 180})


# --- many systolic arrays at once --------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(*[st.integers(1, 512)] * 2, *[SIZES] * 3, st.integers(1, 256), st.integers(1, 8)), min_size=1, max_size=4),
    NODES,
    st.sampled_from(["tpu_v1", "scale_sim_32x32", "gemmini_16x16"]),
)
@settings(max_examples=15, deadline=None)
def test_arrays_equal_the_device(sizes, node, name):
    element = systolic_element(get_device(name).spec)
    rows, columns, inputs, weights, outputs, lanes, arrays = np.array(sizes).T
    found = systolic_area(
        rows, columns, input_bytes=inputs, weight_bytes=weights, output_bytes=outputs, lanes=lanes, element=element, node=node,
        arrays=arrays,
    )  # fmt: skip
    fields = ("array.rows", "array.columns", "memory.input.capacity_bytes", "memory.weight.capacity_bytes",
              "memory.output.capacity_bytes", "vector_unit.lanes", "array.count")  # fmt: skip
    for i, size in enumerate(sizes):
        over = {**dict(zip(fields, size, strict=True)), "memory.input.retained_capacity_bytes": 0}
        area = get_device(name, overrides=over).area(node)
        assert {part.name: part.mm2 for part in area.components} == {part: float(values[i]) for part, values in found.items()}


def test_arrays_broadcast():
    common = {"input_bytes": 1024, "weight_bytes": 1024, "output_bytes": 1024, "lanes": 16, "element": 1.0, "node": 28}
    found = systolic_area(np.array([[8], [16]]), np.array([8, 16, 32]), **common)
    assert {values.shape for values in found.values()} == {(2, 3)}
    assert (np.diff(found["elements"], axis=1) > 0).all()
    with pytest.raises(InputError, match=r"rows: expected numbers above zero, got \[0.0\]"):
        systolic_area([8, 0], 8, **common)
    with pytest.raises(InputError, match="expected shapes that broadcast"):
        systolic_area([8, 16], [8, 16, 32], **common)


# --- dies, yield, cost -------------------------------------------------------------------------------------------------


def counted_dies(area_mm2, wafer_mm=300.0):
    """Most whole squares in a circle, over grids at 8 × 8 offsets."""
    side, best = math.sqrt(area_mm2), 0
    lines = np.arange(-int(wafer_mm / side) - 2, int(wafer_mm / side) + 3)
    for dx in np.arange(8) / 8:
        for dy in np.arange(8) / 8:
            x, y = np.meshgrid((lines + dx) * side, (lines + dy) * side)
            corners = [np.hypot(x + i * side, y + j * side) <= wafer_mm / 2 for i in (0, 1) for j in (0, 1)]
            best = max(best, int(np.all(corners, axis=0).sum()))
    return best


@pytest.mark.parametrize("area", [10, 60, 100, 331, 610, 826])
def test_dies_per_wafer_against_counting(area):
    # The formula allows for the edge by an estimate: fewer than fit in the best place, by a tenth for the largest dies.
    assert 0.89 < dies_per_wafer(area) / counted_dies(area) <= 1


def test_yields_by_sampling():
    # Poisson: a die of mean x defects has none. Negative binomial: the mean itself varies, as a gamma variate of shape 3.
    # Murphy: it varies as a triangle from 0 to 2 x.
    rng = np.random.default_rng(0)
    x, draws = 0.8, 400_000
    means = {"poisson": x, "negative_binomial": rng.gamma(3, x / 3, draws), "murphy": rng.triangular(0, x, 2 * x, draws)}
    for model, mean in means.items():
        clean = float((rng.poisson(mean, draws) == 0).mean())
        assert die_yield(800, 0.1, model=model) == pytest.approx(clean, abs=4 * math.sqrt(clean * (1 - clean) / draws))


@given(st.floats(1e-3, 1e5), st.floats(1e-4, 1e3), st.sampled_from(["poisson", "murphy", "negative_binomial"]), st.floats(1, 4))
def test_yield_lies_in_its_range(area, density, model, factor):
    share = die_yield(area, density, model=model)
    assert 0 < share <= 1
    assert die_yield(area * factor, density, model=model) <= share
    assert die_yield(area, density, model="poisson") <= share * (1 + 1e-9)  # defects that cluster spare more dies


@given(st.floats(0.5, 2000), st.floats(3, 90), st.floats(1.01, 3))
def test_a_larger_die_costs_more(area, node, factor):
    cost = die_cost(area, node)
    assert cost.cost_usd == pytest.approx(cost.wafer_usd / (cost.dies_per_wafer * cost.yield_fraction))
    assert die_cost(area * factor, node).cost_usd >= cost.cost_usd
    assert cost.over_reticle == (area > 858)


def test_published_cost():
    # Khan and Mann: 238 dollars for a chip of 610 mm² at 5 nm, so 71.4 of a wafer. Less, had all whole dies worked; more, with
    # the yield of the process' first year.
    perfect = die_cost(610, 5, defects_per_cm2=1e-9)
    assert perfect.wafer_usd == 16_988
    assert perfect.cost_usd < 238 < die_cost(610, 5).cost_usd < 1.6 * 238
    cost = get_device("tpu_v1").area().cost()
    assert cost == die_cost(get_device("tpu_v1").area().die_mm2, 28)
    assert "dollars a working die" in str(cost)
    assert "reticle" not in str(cost)
    assert "larger than a reticle's field" in str(die_cost(900, 7))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: die_cost(0, 7), "area_mm2: expected a number above zero, got 0"),
        (lambda: die_cost(1e6, 7), "area_mm2: expected a die that a wafer of 300 mm holds"),
        (lambda: die_cost(100, 130), "node: wafer_usd is known from 3 to 90 nm, got 130"),
        (lambda: die_cost(100, 7, model="seeds"), "model: unknown name 'seeds'"),
        (lambda: die_yield(100, -1), "defects_per_cm2: expected a number above zero, got -1"),
        (lambda: get_device("tpu_v1").area().budget(0), "mm2: expected a budget above zero, got 0"),
        (lambda: get_device("tpu_v1").area()["caches"], "component: unknown name 'caches'"),
        (lambda: get_device("cpu").area().cost(), "device 'cpu': no area of cores"),
    ],
)  # fmt: skip
def test_mistakes(call, message):
    with pytest.raises(InputError, match=message):
        call()


# --- what users see ----------------------------------------------------------------------------------------------------


def test_budget():
    area = get_device("gemmini_16x16").area()
    assert area.budget(1.0)
    assert not area.budget(0.5)
    assert not area.budget(1.0, die=True)
    assert area.budget(0.5).spare_mm2 == pytest.approx(0.5 - area.total_mm2)
    partly = Area("x", 28, (Component("a", 2.0, "guess", "one"), Component.unknown("b", "nobody says")), chip_factor=1.0)
    assert partly.budget(3).fits is None
    assert partly.budget(1).fits is False
    assert not partly.budget(3)
    assert str(partly.budget(3)) == "2 of 3 mm²: not known: parts without an area"
    assert partly.summary() == "2 mm² at 28 nm (predicted), without b, of which nothing is known"
    assert partly.die_mm2 is None


def test_a_spec_without_a_node_says_so():
    area = get_device("edge_tpu").area()
    assert area.total_mm2 is None
    assert area.node_nm is None
    assert area.summary() == "not known: the spec has no process_nm, and no node was given"
    assert get_device("edge_tpu").area(16).total_mm2 > 0


def test_the_command_line_prints_it(tmp_path, capsys):
    (tmp_path / "one.csv").write_text("Layer, M, N, K,\none, 4, 4, 4,\n")
    assert main(["run", str(tmp_path / "one.csv"), "--device", "gemmini_16x16"]) == 0
    assert "area: 0.9124 mm² at 22 nm, 2.191 mm² as a chip of its own (predicted)" in capsys.readouterr().out
    assert main(["run", str(tmp_path / "one.csv"), "--device", "edge_tpu"]) == 0
    assert "area:" not in capsys.readouterr().out
    assert main(["run", str(tmp_path / "one.csv"), "--device", "edge_tpu", "--set", "process_nm=16", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["spec"]["process_nm"] == 16
