"""The tensor engine: its tile search against plain Python, hand-made cases, invariants, errors, arithmetic."""

import csv
import math
import re
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from random_graphs import workloads
from reference_tiles import best_work
from torch import nn

import hwsim
import numerics
from accelerators.tensor_engine.device import TensorEngine
from accelerators.tensor_engine.spec import TensorEngineSpec
from hwsim.operators import (
    Attention,
    Convolution,
    Elementwise,
    Gather,
    Matmul,
    Normalization,
    Scatter,
    Softmax,
    Unmodelled,
)
from hwsim.registry import get_device
from hwsim.spec import SpecPart
from hwsim.workload import Tensor, Workload, chain
from numerics import InputError, Recipe

CHIPS = ("a100", "h100", "h200", "t4", "mi210", "gaudi2")
NO_LIMIT = {"power.limit_w": 1e6}


def product(m, n, k, batch=1):
    return chain("one", [Matmul(name="one", m=m, n=n, k=k, batch=batch)])


def single(op, *shapes, result, roles=("input", "weight", "weight")):
    """A workload of one operator; float32 until it is placed."""
    names = [f"i{i}" for i in range(len(shapes))]
    tensors = {name: Tensor(name, shape, "fp32", role) for name, shape, role in zip(names, shapes, roles, strict=False)}
    tensors["o"] = Tensor("o", result, "fp32")
    return Workload("one", (replace(op, inputs=tuple(names), outputs=("o",)),), tensors, tuple(names[:1]), ("o",))


def softmax(m, n):
    return single(Softmax(name="s", operation="softmax", elements=m * n, rows=m), (m, n), result=(m, n))


def layer_norm(m, n):
    op = Normalization(name="l", operation="layer_norm", elements=m * n, rows=m)
    return single(op, (m, n), result=(m, n))


def gelu(n):
    return single(Elementwise(name="g", operation="gelu", elements=n), (n,), result=(n,))


def attention(batch, heads, queries, keys, width, kv_heads=None):
    kv_heads = kv_heads or heads
    op = Attention(
        name="a", batch=batch, heads=heads, kv_heads=kv_heads, query_length=queries, key_length=keys, head_dim=width,
        value_dim=width,
    )  # fmt: skip
    q, kv = (batch, heads, queries, width), (batch, kv_heads, keys, width)
    return single(op, q, kv, kv, result=q, roles=("input", "input", "input"))


# --- the tile search ------------------------------------------------------------------------------------------------------

sizes = st.one_of(st.integers(1, 300), st.sampled_from([512, 1000, 2048, 5000]))


@settings(max_examples=examples(60))
@given(st.integers(1, 4), sizes, sizes, sizes, st.sampled_from(CHIPS))
def test_the_search_finds_what_plain_python_finds(batch, m, n, k, name):
    device = get_device(name, overrides=NO_LIMIT)
    spec = device.spec
    kernel = device.kernel(Matmul(name="x", m=1, n=1, k=1))
    fraction = kernel.bandwidth_fraction or spec.memory.off_chip.achieved_fraction
    found = device.simulate(product(m, n, k, batch)).tables["kernels"][0]["work_s"]
    rate = spec.mac_format("fp16", "fp16").macs_per_cycle
    expected = best_work(
        spec, (batch, m, n, k), macs_per_cycle=rate, off_bps=spec.memory.off_chip.bandwidth_bytes_per_s * fraction
    )
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("recipe", [None, "int8", "w4a16", "bf16"])
@pytest.mark.parametrize("fidelity", ["analytic", "tile"])
def test_many_at_once_are_those_one_by_one(recipe, fidelity):
    device = get_device("h100")
    rng = np.random.default_rng(1)
    shapes = rng.integers(1, 5000, (25, 4)) // np.array([[1000, 1, 1, 1]]) + 1
    times = device.matmul_time_s(*shapes[:, 1:].T, batch=shapes[:, 0], recipe=recipe, fidelity=fidelity)
    for (batch, m, n, k), time in zip(shapes.tolist(), times, strict=True):
        placed = product(m, n, k, batch)
        placed = placed if recipe is None else placed.with_formats(recipe)
        assert device.simulate(placed, fidelity=fidelity).time_s == time


@settings(max_examples=examples(40))
@given(st.floats(1e-6, 1e-2), st.floats(0, 1e-2), st.floats(0, 5), st.floats(0, 1), st.floats(0, 2))
def test_the_clock_is_the_highest_that_the_limit_of_power_allows(unit_s, off_s, core_j, off_j, exponent):
    from accelerators.tensor_engine import _kernels as kernels

    hw = np.zeros(kernels.HW_FIELDS)
    hw[kernels.CLOCK], hw[kernels.MIN_CLOCK], hw[kernels.STATIC_W], hw[kernels.LIMIT_W] = 1e9, 1e8, 50, 150
    hw[kernels.E_EXPONENT] = exponent
    parts = (unit_s * 1e9, 0.0, 0.0, off_s, 0.0, 0.0)
    found = kernels.clock_under_limit(hw, core_j, off_j, *parts)

    def power(clock):
        return 50 + (core_j * (clock / 1e9) ** exponent + off_j) / max(unit_s * 1e9 / clock, off_s)

    grid = np.linspace(1e8, 1e9, 2001)
    allowed = [clock for clock in grid if power(clock) <= 150 * (1 + 1e-9)]
    if not allowed:
        assert found == pytest.approx(1e8)
    else:
        assert found >= max(allowed) - 1e-3
        assert power(found) <= 150 * (1 + 1e-6)


# --- by hand --------------------------------------------------------------------------------------------------------------


def test_waves_of_a_product_by_hand():
    # 1024 × 12288 results in tiles of 256 × 128: 4 × 96 = 384 tiles on 108 SMs, four waves of 12288 × 256 × 128 MACs.
    device = get_device("a100", calibrated=False, overrides={"matrix.tiles": [_tile(256, 128)], **NO_LIMIT})
    row = device.simulate(product(1024, 12288, 12288)).tables["kernels"][0]
    work = 4 * (256 * 128 * 12288 / (1024 * 0.8) / 1410e6 + 0.5e-6)
    assert (row["tile"], row["waves"], row["split_k"]) == ("256x128", 4, 1)
    assert row["work_s"] == pytest.approx(work)


def _tile(m, n):
    return {"m": m, "n": n, "warp_m": 64, "warp_n": 64}


def test_a_product_with_a_vector_reads_its_weights_once():
    device = get_device("a100", calibrated=False)
    report = device.simulate(product(1, 8192, 8192))
    assert report.bytes_offchip == 2 * (8192 * 8192 + 2 * 8192)
    assert report.time_s == pytest.approx(20e-6 + 0.5e-6 + report.bytes_offchip / (0.89 * 2039e9))


def test_k_is_cut_where_units_would_idle_and_only_there():
    device = get_device("a100")
    few = device.simulate(product(128, 128, 65536)).tables["kernels"][0]
    many = device.simulate(product(8192, 8192, 8192)).tables["kernels"][0]
    assert few["split_k"] > 1
    assert many["split_k"] == 1
    whole = get_device("a100", overrides={"matrix.split_k": [1]})
    assert whole.simulate(product(128, 128, 65536)).time_s > device.simulate(product(128, 128, 65536)).time_s


def test_a_launch_interval_hides_behind_the_kernel():
    device = get_device("a100", overrides={"kernels.default.launch_interval_s": 50e-6, "kernels.default.exposed_fraction": 0.5})
    small, large = (single(Elementwise(name="r", operation="relu", elements=n), (n,), result=(n,)) for n in (100, 1 << 28))
    assert device.simulate(small).time_s == pytest.approx(50e-6)
    assert device.simulate(large).time_s == pytest.approx(25e-6 + 4 * (1 << 28) / (0.8 * 2039e9))


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("waited", lambda works, k: sum(max(k, k + work) for work in works)),
        ("graph", lambda works, k: sum(2e-6 + work for work in works)),
        ("queued", None),
    ],
)
def test_modes_of_launch(mode, expected):
    device = get_device("h100", overrides={"launch.mode": mode, "launch.interval_s": 10e-6, "launch.gap_s": 2e-6})
    work = chain("net", [Matmul(name=f"m{i}", m=64 if i < 3 else 4096, n=64 if i < 3 else 4096, k=4096) for i in range(6)])
    report = device.simulate(work)
    works = [row["work_s"] for row in report.tables["kernels"]]
    if expected is not None:
        assert report.time_s == pytest.approx(expected(works, 20e-6))
        return
    device_free = host = 0.0
    for each in works:
        host += 10e-6
        device_free = max(host, device_free) + 2e-6 + each
    assert report.time_s == pytest.approx(device_free)


def test_rows_too_long_for_registers_are_read_again_from_l2_and_beyond_it_from_memory():
    device = get_device("a100")
    spec = device.spec
    short, fits, thrashes = (device.simulate(layer_norm(4096, n)) for n in (1024, 8192, 32768))
    assert short.bytes_by_level["l2"] == short.bytes_offchip == 4096 * 1024 * 4
    assert fits.bytes_offchip == 4096 * 8192 * 4
    assert fits.bytes_by_level["l2"] == 4096 * 8192 * 8  # mean, variance, scale, and the results
    # 16 rows an SM of 64 KiB each: more than twice L2, so that nothing waits there for the next pass.
    assert 2 * spec.memory.l2.capacity_bytes < 108 * 16 * 32768 * 2
    assert thrashes.bytes_offchip == 4096 * 32768 * 8


def test_gathers_move_whole_sectors():
    def rows(width):
        op = Gather(name="g", elements=1000 * width, indices=1000)
        names = {"t": Tensor("t", (5000, width), "fp32", "weight"), "i": Tensor("i", (1000,), "int32", "index")}
        names["o"] = Tensor("o", (1000, width), "fp32")
        return Workload("g", (replace(op, inputs=("t", "i"), outputs=("o",)),), names, ("i",), ("o",))

    device = get_device("a100")
    assert device.simulate(rows(64)).bytes_offchip == 1000 * (2 * 128 + 4)
    assert device.simulate(rows(4)).bytes_offchip == 1000 * (32 + 8 + 4)


def test_a_scatter_that_adds_reads_what_it_adds_to():
    def scatter(accumulate):
        op = Scatter(name="s", elements=64000, indices=1000, accumulate=accumulate)
        names = {"v": Tensor("v", (1000, 64), "fp32", "input"), "i": Tensor("i", (1000,), "int32", "index")}
        names["o"] = Tensor("o", (5000, 64), "fp32")
        return Workload("s", (replace(op, inputs=("v", "i"), outputs=("o",)),), names, ("v", "i"), ("o",))

    device = get_device("a100")
    plain, adds = (device.simulate(scatter(flag)).bytes_offchip for flag in (False, True))
    assert adds - plain == 1000 * 128


def test_a_banked_dram_slows_short_rows_anywhere():
    flat = get_device("a100")
    banked = get_device("a100", overrides={"memory.off_chip.dram": {"preset": "hbm2e", "channels": 80}})

    def gather(width):
        rows = 1 << 20
        op = Gather(name="g", elements=rows * width, indices=rows)
        tensors = {"t": Tensor("t", (rows, width), "fp32", "weight"), "i": Tensor("i", (rows,), "int32", "index")}
        tensors["o"] = Tensor("o", (rows, width), "fp32")
        return Workload("g", (replace(op, inputs=("t", "i"), outputs=("o",)),), tensors, ("i",), ("o",))

    short, long = gather(16), gather(1024)
    assert banked.simulate(short).time_s / flat.simulate(short).time_s > 1.2
    assert banked.simulate(long).time_s / flat.simulate(long).time_s < banked.simulate(short).time_s / flat.simulate(short).time_s
    assert banked.simulate(product(1, 8192, 8192)).time_s >= flat.simulate(product(1, 8192, 8192)).time_s


def test_an_unknown_operator_is_charged_its_bytes():
    report = get_device("a100").simulate(single(Unmodelled(name="u"), (1 << 20,), result=(1 << 20,)))
    assert report.unmodelled == ("u",)
    assert report.bytes_offchip == 1 << 22
    assert report.time_s >= (1 << 22) / 2039e9


# --- invariants -----------------------------------------------------------------------------------------------------------


def check(report, device):
    spec = device.spec
    memory, clock = spec.memory, spec.clock_hz
    rate = {
        "off_chip": memory.off_chip.bandwidth_bytes_per_s,
        "l2": memory.l2.bytes_per_cycle * clock,
        "shared": spec.units * memory.shared.bytes_per_cycle * clock,
        "register": spec.units * memory.register_file.bytes_per_cycle * clock,
    }
    peak = spec.units * max(mac.macs_per_cycle for mac in spec.mac_formats.values()) * clock * spec.sparsity.rate
    for row in report.ops:
        assert min(row.compute_cycles, row.stall_cycles, row.overhead_cycles) >= 0
        assert row.compute_cycles + row.stall_cycles + row.overhead_cycles == pytest.approx(row.cycles)
        assert row.cycles == pytest.approx(row.time_s * clock)
        for level, moved in row.bytes.items():
            assert moved <= rate[level] * row.time_s * (1 + 1e-9) + 1, (row.name, level)
        assert all(joules >= 0 for joules in row.energy_j.values())
        assert row.macs <= peak * row.time_s * (1 + 1e-9)
        assert 0 <= row.utilization <= 1 + 1e-9
    assert report.energy_j == pytest.approx(sum(row.energy_total_j for row in report.ops))
    assert report.energy_by_component_j.get("static", 0.0) == pytest.approx(spec.static_power_w * report.time_s)


@settings(max_examples=examples(25))
@given(workloads(), st.sampled_from(CHIPS), st.sampled_from(["none", "epilogue"]), st.sampled_from(["waited", "queued", "graph"]))
def test_invariants(workload, name, fusion, mode):
    device = get_device(name, overrides={"fusion": fusion, "launch.mode": mode})
    if any(isinstance(op, Matmul) and len(op.inputs) < 2 for op in workload.ops):
        with pytest.raises(InputError):
            device.simulate(workload)
        return
    tile, analytic = device.simulate(workload), device.simulate(workload, fidelity="analytic")
    check(tile, device)
    check(analytic, device)
    assert tile.time_s >= analytic.time_s * (1 - 1e-9)
    end = max((span.start_s + span.duration_s for span in tile.spans), default=0.0)
    assert end <= tile.time_s * (1 + 1e-9)


more = st.sampled_from(
    [
        {"memory.off_chip.bandwidth_bytes_per_s": 2.0}, {"memory.l2.bytes_per_cycle": 2.0}, {"memory.l2.capacity_bytes": 2},
        {"memory.shared.bytes_per_cycle": 2.0}, {"memory.shared.capacity_bytes": 2}, {"clock_hz": 1.5},
        {"memory.register_file.bytes_per_cycle": 2.0}, {"memory.l2.retained_capacity_bytes": 1.5}, {"power.limit_w": 2.0},
    ]
)  # fmt: skip
operators = st.sampled_from(
    [product(64, 12288, 1200), product(3000, 500, 700, 2), product(1, 4096, 4096), product(128, 128, 30000),
     softmax(64, 30000), layer_norm(4096, 20000), gelu(1 << 22), attention(2, 8, 300, 2000, 64), attention(4, 8, 1, 3000, 128, 2)]
)  # fmt: skip


@settings(max_examples=examples(40))
@given(operators, st.sampled_from(CHIPS), more)
def test_more_of_anything_is_never_slower(workload, name, change):
    # With a limit of power that binds, a faster clock or memory may cost clock: that case is bounded by the analytic rung.
    plain = {} if "power.limit_w" in change else NO_LIMIT
    device = get_device(name, overrides=plain)
    data = device.spec.model_dump()
    grown = {}
    for field, factor in change.items():
        value = data
        for part in field.split("."):
            value = value[part]
        grown[field] = int(value * factor) if isinstance(value, int) else value * factor
    assert (
        get_device(device, overrides=grown).simulate(workload).time_s <= device.simulate(workload).time_s * (1 + 1e-12)
    )  # fmt: skip


def test_a_limit_of_power_lowers_the_clock_and_is_kept():
    free, bound = get_device("t4", overrides=NO_LIMIT), get_device("t4")
    work = product(8192, 8192, 8192)
    fast, slow = free.simulate(work), bound.simulate(work)
    row = slow.tables["kernels"][0]
    assert row["clock_hz"] < 1590e6
    joules = slow.energy_j - slow.energy_by_component_j["static"]
    assert joules / row["work_s"] + 14 == pytest.approx(70, rel=1e-4)
    assert fast.time_s < slow.time_s < fast.time_s * 1590e6 / row["clock_hz"] * 1.02
    # Jia et al., arXiv 1903.07486: half-precision products on a T4 under its limit reach about two thirds of 65 TFLOP/s.
    assert 2 * slow.macs / slow.time_s == pytest.approx(0.64 * 65.1e12, rel=0.1)


@pytest.mark.parametrize("name", CHIPS)
def test_power_of_a_large_product_is_plausible(name):
    device = get_device(name)
    power = device.simulate(product(8192, 8192, 8192)).average_power_w
    assert 0.6 * device.spec.power.limit_w < power <= device.spec.power.limit_w


# --- formats, sparsity, fusion, attention --------------------------------------------------------------------------------


def test_weight_only_formats_pay_off_where_weights_are_read_and_cost_where_they_are_reused():
    device = get_device("a100")
    thin = device.matmul_time_s(1, 16384, 16384, recipe="bf16"), device.matmul_time_s(1, 16384, 16384, recipe="w4a16")
    assert 1.8 < thin[0] / thin[1] < 4
    moved = [device.simulate(product(1, 16384, 16384).with_formats(r)).bytes_offchip for r in ("bf16", "w8a16", "w4a16")]
    assert moved[0] / moved[1] == pytest.approx(2, rel=1e-3)
    assert moved[0] / moved[2] == pytest.approx(4, rel=1e-3)
    wide = device.simulate(product(4096, 4096, 4096).with_formats("w4a16"))
    assert wide.time_s > 0.9 * device.simulate(product(4096, 4096, 4096).with_formats("bf16")).time_s
    slow = {"conversions.int4->bf16.cycles_per_element": 64}
    assert get_device("a100", overrides=slow).simulate(product(4096, 4096, 4096).with_formats("w4a16")).time_s > 1.3 * wide.time_s
    # Each column panel of weights is widened again for each of the 16 or more rows of tiles.
    assert wide.energy_by_component_j["vector"] >= 16 * 4096 * 4096 * 1e-12


def test_fp8_stored_in_bf16_is_converted_in_a_pass_of_its_own():
    device = get_device("h100", overrides={"memory.l2.retained_capacity_bytes": 0})
    recipe = Recipe("mixed", {"weight": "e4m3fn", "activation": "e4m3fn", "accumulator": "fp32", "elementwise": "bf16"})

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4096, 4096, bias=False)

        def forward(self, x):
            return self.linear(x) + x

    workload = hwsim.trace(Residual(), torch.zeros(1024, 4096, device="meta"))
    mixed, whole = device.simulate(workload.with_formats(recipe)), device.simulate(workload.with_formats("fp8"))
    converted, plain = (next(row for row in report.ops if row.kind == "matmul") for report in (mixed, whole))
    # The addition needs x in bf16: it is read in bf16 and written in fp8 for the product, whose results leave in bf16.
    assert converted.bytes_offchip == plain.bytes_offchip + 1024 * 4096 * (2 + 1 + 1)
    assert converted.time_s > plain.time_s
    assert converted.energy_j["vector"] == pytest.approx(1024 * 4096 * 2e-12)


def pruned(density):
    op = Matmul(name="p", m=4096, n=4096, k=4096)
    workload = single(op, (4096, 4096), (4096, 4096), result=(4096, 4096))
    return replace(workload, tensors={**workload.tensors, "i1": replace(workload.tensors["i1"], density=density)})


def test_structured_sparsity_is_used_where_the_spec_says_so_and_the_density_allows():
    plain, sparse = get_device("a100"), get_device("a100", overrides={"sparsity.enabled": True})
    dense = plain.simulate(pruned(0.5))
    assert sparse.simulate(pruned(0.6)).time_s == dense.time_s == sparse.simulate(pruned(None)).time_s
    fast = sparse.simulate(pruned(0.5))
    assert 1.3 < dense.time_s / fast.time_s < 2
    assert fast.energy_by_component_j["mac"] == pytest.approx(dense.energy_by_component_j["mac"] / 2)
    assert any("2:4" in note for note in fast.notes)
    check(fast, sparse)
    # Half of the values in two bytes each, and two bits for each of them: 0.5625 of the weights' bytes.
    op = Matmul(name="p", m=1, n=8192, k=8192)
    thin = single(op, (1, 8192), (8192, 8192), result=(1, 8192))
    thin = replace(thin, tensors={**thin.tensors, "i1": replace(thin.tensors["i1"], density=0.5)})
    assert sparse.simulate(thin).bytes_offchip == pytest.approx(0.5625 * 2 * 8192 * 8192 + 4 * 8192, rel=1e-6)


def test_an_epilogue_runs_in_its_products_kernel():
    net = nn.Sequential(nn.Linear(1024, 4096), nn.GELU(), nn.LayerNorm(4096))
    workload = hwsim.trace(net, torch.zeros(2048, 1024, device="meta"))
    eager, fused = get_device("h100").simulate(workload), get_device("h100", overrides={"fusion": "epilogue"}).simulate(workload)
    by_kind = {row.kind: row for row in fused.ops}
    assert by_kind["elementwise"].time_s == 0
    assert by_kind["elementwise"].fused_with == by_kind["matmul"].name
    assert by_kind["normalization"].time_s > 0  # a row's statistics need the results of other units
    assert fused.time_s < eager.time_s
    assert eager.bytes_offchip - fused.bytes_offchip == pytest.approx(2 * 2 * 2048 * 4096, rel=0.01)


def test_fused_attention_keeps_its_scores_on_the_chip():
    workload = attention(4, 16, 4096, 4096, 128)
    fused = get_device("a100").simulate(workload)
    unfused = get_device("a100", overrides={"attention.kernel": "unfused"}).simulate(workload)
    scores = 4 * 16 * 4096 * 4096 * 2
    assert fused.bytes_offchip == 4 * 4 * 16 * 4096 * 128 * 2
    assert unfused.bytes_offchip > 4 * scores
    assert unfused.time_s > 2 * fused.time_s
    # Dao, FlashAttention-2 (arXiv 2307.08691): the forward reaches up to 73 % of A100's peak.
    assert 0.6 < fused.utilization < 0.8


def test_decode_attention_divides_keys_among_units():
    device = get_device("a100")
    report = device.simulate(attention(1, 32, 1, 65536, 128, kv_heads=8))
    assert report.tables["kernels"][0]["split_k"] > 4
    work = report.tables["kernels"][0]["work_s"]
    bandwidth = device.spec.memory.off_chip.bandwidth_bytes_per_s * device.spec.kernels["matmul"].bandwidth_fraction
    assert report.bytes_offchip / bandwidth < work < 1.5 * report.bytes_offchip / bandwidth


# --- measurements ---------------------------------------------------------------------------------------------------------


def measured(name):
    text = resources.files("hwsim").joinpath(f"data/measured/{name}.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))


MADE = {
    "a100_matmul_fp16_ms": (lambda r: product(int(r["m"]), int(r["n"]), int(r["k"])), 3, 10),
    "a100_softmax": (lambda r: softmax(int(r["m"]), int(r["n"])), 8, 20),
    "a100_layernorm": (lambda r: layer_norm(int(r["m"]), int(r["n"])), 5, 10),
    "a100_gelu": (lambda r: gelu(int(r["n"])), 3, 10),
}


@pytest.mark.parametrize("name", MADE)
def test_calibrated_a100_is_near_its_measurements(name):
    make, mean, worst = MADE[name]
    device, bare = get_device("a100"), get_device("a100", calibrated=False)
    errors, uncalibrated = [], []
    for row in measured(name):
        seconds = float(row["time_ms"]) * 1e-3 if "time_ms" in row else math.prod(
            int(row[key]) for key in ("m", "n") if key in row
        ) / (float(row["gelem_per_s"]) * 1e9)  # fmt: skip
        errors.append(100 * abs(device.simulate(make(row)).time_s / seconds - 1))
        uncalibrated.append(100 * abs(bare.simulate(make(row)).time_s / seconds - 1))
    assert np.mean(errors) < mean
    assert max(errors) < worst
    assert np.mean(errors) < np.mean(uncalibrated) < 65


def test_two_efficiencies_scale_every_kernel_of_a_chip_without_measurements():
    fields = {"matrix.efficiency": 0.4, "memory.off_chip.achieved_fraction": 0.4}
    device, half = get_device("mi210", overrides=NO_LIMIT), get_device("mi210", overrides={**NO_LIMIT, **fields})

    def work(engine, workload):
        return engine.simulate(workload).tables["kernels"][0]["work_s"]

    for workload in (
        product(8192, 8192, 8192),
        product(1, 8192, 8192),
        gelu(1 << 28),
        softmax(1 << 16, 1024),
        layer_norm(1 << 16, 1024),
    ):
        assert work(half, workload) / work(device, workload) == pytest.approx(2, rel=0.03)


# --- arithmetic -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "recipe", "accumulator"),
    [
        ("a100", None, "ampere.mma.k16.f16.f32"), ("a100", "bf16", "ampere.mma.k16.bf16.f32"),
        ("h100", "fp8", "hopper.wgmma.k32.e4m3.f32"),
        ("t4", None, "turing.mma.k8.f16.f32"), ("a100", "fp32", "fp32"), ("gaudi2", "fp8", "fp32"), ("h200", "int8", "int32"),
    ],
)  # fmt: skip
def test_modules_are_computed_as_the_matrix_units_do(name, recipe, accumulator):
    torch.manual_seed(2)
    module, x = nn.Linear(4096, 8, bias=False), torch.randn(4, 4096)
    device = get_device(name)
    chosen = numerics.get_recipe(recipe) if recipe else device.spec.default_recipe
    if accumulator not in ("fp32", "int32"):  # results wide enough to show how they were summed
        chosen = replace(chosen, formats={**chosen.formats, "elementwise": "fp32"})
    found = device.emulate(module, chosen)(x).detach()
    plain = replace(chosen, accumulation=replace(numerics.get_accumulator(accumulator), a_formats=(), b_formats=()))
    assert torch.equal(found, numerics.emulate(module, plain)(x).detach())
    if accumulator not in ("fp32", "int32"):
        exact = numerics.emulate(module, replace(chosen, accumulation="exact"))(x).detach()
        assert not torch.equal(found, exact)


def test_modules_in_other_formats_are_summed_by_their_own_units():
    torch.manual_seed(2)
    model, x = nn.Sequential(nn.Linear(48, 16, bias=False), nn.Linear(16, 8, bias=False)), torch.randn(4, 48)
    device = get_device("h100")
    recipe = numerics.get_recipe("fp8").excepting("1", "bf16")
    both = device.emulate(model, recipe)(x).detach()
    first = device.emulate(model[0], "fp8")(x).detach()
    second = device.emulate(model[1], "bf16")(first).detach()
    assert torch.equal(both, second)


@pytest.mark.parametrize(
    ("accumulation", "fine"), [("deepseek", True), ("hopper.wgmma.k32.e4m3.f32", True), ("fp32", False), ("exact", False)]
)
def test_sums_of_another_machine_are_refused(accumulation, fine):
    recipe = replace(numerics.get_recipe("fp8"), accumulation=accumulation)
    device = get_device("h100")
    if fine:
        device.emulate(nn.Linear(8, 8), recipe)
        return
    with pytest.raises(InputError, match="accumulation: expected that of the device's matrix units"):
        device.emulate(nn.Linear(8, 8), recipe)


def test_sums_in_a_format_the_units_lack_are_refused_by_both():
    recipe = Recipe("odd", {"weight": "bf16", "activation": "bf16", "accumulator": "fp16"})
    device = get_device("a100")
    with pytest.raises(InputError, match="products of bf16×bf16 are summed in fp32, not in 'fp16'") as costed:
        device.simulate(product(8, 8, 8).with_formats(recipe))
    with pytest.raises(InputError) as computed:
        device.emulate(nn.Linear(8, 8), recipe)
    assert str(computed.value) == str(costed.value)


# --- specs ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"units": 0}, "units: input should be greater than or equal to 1"),
        ({"matrix.efficiency": 1.5}, "matrix.efficiency: input should be less than or equal to 1"),
        ({"matrix.split_k": [2]}, "split_k must hold 1"),
        ({"power.limit_w": 10}, "power.limit_w must be above static_power_w"),
        ({"power.minimum_clock_hz": 3e9}, "power.minimum_clock_hz is above clock_hz"),
        ({"memory.l2.retained_capacity_bytes": 1 << 40}, "retained_capacity_bytes is more than capacity_bytes"),
        ({"sparsity.n": 4}, "n must be below m"),
        ({"kernels": {"default": {"latency": 1}}}, "unknown field 'kernels.default.latency'"),
        ({"kernels": {"softmax": {}}}, "kernels needs an entry 'default'"),
        ({"kernels": {"default": {}}}, "kernels.default needs launch_interval_s"),
        ({"mac_formats.fp16.accumulators": {"fp32": "ampere.mma"}}, "accumulator: unknown name 'ampere.mma'"),
        ({"launch.mode": "later"}, "launch.mode: input should be 'waited', 'queued' or 'graph'"),
    ],
)
def test_a_bad_spec_is_one_clear_line(change, message):
    with pytest.raises(InputError) as error:
        get_device("a100", overrides=change)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_tile_that_fits_nowhere_names_itself():
    device = get_device("a100", overrides={"matrix.tiles": [_tile(512, 512)]})
    with pytest.raises(InputError, match=r"no tile in fp16\*fp16 fits memory.shared.capacity_bytes"):
        device.simulate(product(8, 8, 8))


@pytest.mark.parametrize("name", CHIPS)
def test_a_spec_with_its_fits_deleted_still_runs(name):
    device = get_device(name, calibrated=False)
    assert isinstance(device, TensorEngine)
    report = device.simulate(product(256, 256, 256))
    assert report.origin["time"] == "predicted"


def test_a_depthwise_convolution_runs_on_the_lanes():
    op = Convolution(
        name="d", batch=8, in_channels=256, out_channels=256, input_size=(56, 56), output_size=(56, 56), kernel=(3, 3),
        stride=(1, 1), padding=((1, 1), (1, 1)), dilation=(1, 1), groups=256,
    )  # fmt: skip
    image = (8, 256, 56, 56)
    row = get_device("a100").simulate(single(op, image, (256, 1, 3, 3), result=image)).tables["kernels"][0]
    assert row["tile"] == "direct"


def fields(model, prefix=""):
    for name, field in model.model_fields.items():
        inner = [a for a in (field.annotation, *getattr(field.annotation, "__args__", ())) if isinstance(a, type)]
        part = next((a for a in inner if issubclass(a, SpecPart)), None)
        section = {"mac_formats": "mac_formats.PAIR", "kernels": "kernels.KERNEL"}.get(name, f"{prefix}{name}")
        if part is not None and name not in ("conversions", "calibrated", "dram"):
            yield from fields(part, f"{section}.")
        else:
            yield f"{prefix}{name}"


def test_every_spec_field_is_documented():
    text = (Path(__file__).parents[2] / "docs/tensor-engine.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `([\w.]+)` \|", text, re.MULTILINE))
    assert set(fields(TensorEngineSpec)) == documented - {"mac_formats", "kernels", "matrix.tiles"}
