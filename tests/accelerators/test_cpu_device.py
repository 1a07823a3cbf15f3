"""The processor: its tile search against plain Python, padding by brute force, hand-made kernels, measurements, arithmetic."""

from dataclasses import replace
from importlib import resources

import numpy as np
import pytest
import torch
from effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_tiles import best_work
from torch import nn

import hwsim
from accelerators.tensor_engine.device import inside_padding
from hwsim.operators import Attention, Convolution, Matmul
from hwsim.registry import get_device, read_spec, spec_file
from hwsim.scoreboard import Errors, read_measurements, score_target, single_operator
from hwsim.scoreboard import target as target_module
from hwsim.scoreboard.calibration import calibrate
from hwsim.scoreboard.measurements import row_workload
from hwsim.scoreboard.points import predict, target_points
from hwsim.scoreboard.target import load_target
from hwsim.spec import validate_spec
from hwsim.workload import Tensor, Workload, chain
from numerics import InputError

MEASURED = resources.files("hwsim") / "data" / "measured" / "cpu_epyc_fp32.csv"


def measured(*operators):
    return [point for point in read_measurements(str(MEASURED)) if point.row["operator"] in operators]


def work_s(device, workload):
    return device.simulate(workload).tables["kernels"][0]["work_s"]


# --- products -------------------------------------------------------------------------------------------------------------

sizes = st.one_of(st.integers(1, 200), st.sampled_from([512, 1000, 3000]))


@settings(max_examples=examples(40))
@given(
    st.integers(1, 4), sizes, sizes, sizes, st.sampled_from([1, 4]), st.sampled_from([0.0, 0.5, 1.0]),
    st.sampled_from([0, 5]), st.sampled_from(["even", "whole"]),
)  # fmt: skip
def test_the_search_finds_what_plain_python_finds(batch, m, n, k, cores, overlap, pack, edges):
    device = get_device(
        "cpu",
        overrides={
            "units": cores, "power.limit_w": 1e6, "kernels.matmul.pack_bytes_per_cycle": pack, "matrix.edges": edges,
            "kernels.default.overlap": overlap,
        },
    )  # fmt: skip
    spec = device.spec
    kernel = device.kernel(Matmul(name="x", m=1, n=1, k=1))
    fraction = kernel.bandwidth_fraction or spec.memory.off_chip.achieved_fraction
    found = work_s(device, chain("one", [Matmul(name="one", m=m, n=n, k=k, batch=batch)]))
    expected = best_work(
        spec, (batch, m, n, k), macs_per_cycle=16, width=4, kernel=kernel,
        off_bps=spec.memory.off_chip.bandwidth_bytes_per_s * fraction,
    )  # fmt: skip
    assert found == pytest.approx(expected, rel=1e-9)


def test_a_small_product_by_hand():
    # 12 × 32 × 100 is two rows and two columns of register tiles: 38400 MACs, none lost, 16 a cycle at half the rate.
    device = get_device(
        "cpu", calibrated=False, overrides={"kernels.matmul.efficiency": 0.5, "kernels.matmul.pack_bytes_per_cycle": 8}
    )
    spec = device.spec
    sums = 12 * 32 * 100 / (16 * 0.5) / spec.clock_hz
    copied = (12 * 100 + 100 * 32) * 4 / 8 / spec.clock_hz
    moved = (12 * 100 + 100 * 32 + 12 * 32) * 4 / (0.5 * 38.4e9)
    assert work_s(device, chain("one", [Matmul(name="p", m=12, n=32, k=100)])) == pytest.approx(sums + copied + moved)
    # One column more takes another column of register tiles.
    wider = work_s(device, chain("one", [Matmul(name="p", m=12, n=33, k=100)]))
    assert wider > sums * 48 / 32 + copied + moved
    # A product with a vector is not copied, and its one row is no tile of six; B passes L2 twice, as it comes and as it is used.
    passed = (4096 * 1024 * (1 + 1 / 16) + 1024 * (1 + 4096)) * 4 / 64
    row = work_s(device, chain("one", [Matmul(name="p", m=1, n=4096, k=1024)]))
    assert row == pytest.approx(passed / spec.clock_hz + (1024 + 4096 * 1024 + 4096) * 4 / (0.5 * 38.4e9))


@settings(max_examples=examples(40))
@given(sizes, sizes, sizes)
def test_rows_and_units_never_make_a_product_faster_than_its_macs(m, n, k):
    report = hwsim.simulate(chain("one", [Matmul(name="p", m=m, n=n, k=k)]), device="cpu")
    assert report.time_s >= m * n * k / (16 * 3700e6)
    assert report.ops[0].utilization <= 1


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("kernels.matmul.pack_bytes_per_cycle", 40, "expected at most half of memory.shared.bytes_per_cycle"),
        ("kernels.matmul.overlap", 1.5, "kernels.matmul.overlap"),
        ("kernels.softmax.row_cycles", -1, "kernels.softmax.row_cycles"),
        ("matrix.tiles", [{"m": 8, "n": 16, "warp_m": 6, "warp_n": 16}], "no multiple of 6×16"),
        ("attention.least_rows", 0, "attention.least_rows"),
    ],
)
def test_a_bad_field_is_one_line(field, value, message):
    with pytest.raises(InputError, match=message) as caught:
        get_device("cpu", overrides={field: value})
    assert "\n" not in str(caught.value)


# --- convolutions ---------------------------------------------------------------------------------------------------------


def convolution(size, kernel, stride, padding, dilation=1, channels=(8, 16), groups=1):
    out = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    return Convolution(
        name="c", batch=2, in_channels=channels[0], out_channels=channels[1], input_size=(size, size), output_size=(out, out),
        kernel=(kernel, kernel), stride=(stride, stride), padding=((padding, padding),) * 2, dilation=(dilation, dilation),
        groups=groups,
    )  # fmt: skip


@settings(max_examples=examples(40))
@given(st.integers(5, 12), st.integers(1, 4), st.integers(1, 3), st.integers(0, 3), st.integers(1, 2))
def test_macs_beside_the_padding_by_brute_force(size, kernel, stride, padding, dilation):
    if size + 2 * padding < dilation * (kernel - 1) + 1:
        return
    op = convolution(size, kernel, stride, padding, dilation)
    ones = torch.ones(1, 1, size, size)
    inside = nn.functional.conv2d(ones, torch.ones(1, 1, kernel, kernel), stride=stride, padding=padding, dilation=dilation)
    whole = op.output_size[0] * op.output_size[1] * kernel**2
    assert inside_padding(op) == pytest.approx(float(inside.sum()) / whole)


def placed(op):
    tensors = {
        "x": Tensor("x", (op.batch, op.in_channels, *op.input_size), "fp32", "input"),
        "w": Tensor("w", (op.out_channels, op.in_channels // op.groups, *op.kernel), "fp32", "weight"),
        "y": Tensor("y", (op.batch, op.out_channels, *op.output_size), "fp32"),
    }
    return Workload("one", (replace(op, inputs=("x", "w"), outputs=("y",)),), tensors, ("x",), ("y",))


def test_skipped_padding_saves_its_macs_and_never_passes_the_peak():
    op = convolution(8, 3, 1, 1, channels=(64, 64))
    slow = {"kernels.convolution.efficiency": 0.1}

    def compute(skips, **more):
        changed = {"kernels.convolution.skips_padding": skips, **slow, **more}
        return get_device("cpu", overrides=changed).simulate(placed(op)).ops[0].compute_cycles

    assert compute(True) / compute(False) == pytest.approx(inside_padding(op))
    assert inside_padding(op) == pytest.approx((22 / 24) ** 2)
    peak = compute(True, **{"kernels.convolution.efficiency": 1.0})
    assert peak == pytest.approx(op.macs / 16)


def test_a_depthwise_convolution_runs_on_the_lanes_at_its_own_rate():
    op = convolution(16, 3, 1, 0, channels=(32, 32), groups=32)
    device = get_device("cpu", overrides={"kernels.convolution.direct_efficiency": 0.1})
    report = device.simulate(placed(op))
    assert report.tables["kernels"][0]["tile"] == "direct"
    assert report.ops[0].compute_cycles == pytest.approx(op.macs / 16 / 0.1)


# --- rows, elements, attention --------------------------------------------------------------------------------------------


def test_a_softmax_by_hand():
    given_values = {"kernels.softmax.efficiency": 0.5, "kernels.softmax.row_cycles": 70}
    device = get_device("cpu", calibrated=False, overrides=given_values)
    m, n = 40, 300
    # Two additions, a product, a comparison, an exponential of 8 cycles an element; a division of 10 and 70 cycles a row.
    cycles = (m * n * (2 + 1 + 1 + 8) + m * 10) / 16 / 0.5 + m * 70
    expected = cycles / 3700e6 + 2 * m * n * 4 / (0.5 * 38.4e9)
    assert work_s(device, single_operator("softmax", {"m": m, "n": n})) == pytest.approx(expected, rel=1e-6)
    hidden = get_device("cpu", calibrated=False, overrides={**given_values, "kernels.default.overlap": 1.0})
    assert work_s(hidden, single_operator("softmax", {"m": m, "n": n})) == pytest.approx(cycles / 3700e6, rel=1e-6)


@settings(max_examples=examples(30))
@given(st.floats(0, 1), st.floats(0, 1), st.sampled_from(["matmul", "softmax", "gelu", "attention"]))
def test_more_overlap_is_never_slower(less, more, operator):
    less, more = sorted((less, more))
    point = next(p for p in measured(operator) if p.measured["time_s"] > 2e-4)
    times = [work_s(get_device("cpu", overrides={"kernels.default.overlap": o}), point.workload) for o in (less, more)]
    assert times[1] <= times[0] * (1 + 1e-12)


def test_attention_rows_and_shared_heads_by_hand():
    def run(heads, kv_heads, queries, **overrides):
        op = Attention(
            name="a", batch=1, heads=heads, kv_heads=kv_heads, query_length=queries, key_length=64, head_dim=32, value_dim=32
        )
        q, kv = (1, heads, queries, 32), (1, kv_heads, 64, 32)
        tensors = {name: Tensor(name, shape, "fp32", "input") for name, shape in (("q", q), ("k", kv), ("v", kv))}
        tensors["o"] = Tensor("o", q, "fp32")
        workload = Workload("a", (replace(op, inputs=("q", "k", "v"), outputs=("o",)),), tensors, ("q", "k", "v"), ("o",))
        return get_device("cpu", overrides=overrides).simulate(workload).ops[0]

    # One to four rows take as long; so do four heads of one row each without stacking, a quarter with it.
    assert run(4, 4, 1).compute_cycles == pytest.approx(run(4, 4, 4).compute_cycles)
    assert run(4, 4, 5).compute_cycles == pytest.approx(2 * run(4, 4, 4).compute_cycles)
    apart = run(4, 1, 1).compute_cycles
    stacked = run(4, 1, 1, **{"attention.stacks_heads": True}).compute_cycles
    assert apart == pytest.approx(4 * stacked)
    # The keys that heads share come from memory once, from L2 four times.
    shared, own = run(4, 1, 1), run(4, 4, 1)
    kv = 2 * 64 * 32 * 4
    assert own.bytes_offchip - shared.bytes_offchip == 3 * kv
    assert shared.bytes["l2"] == own.bytes["l2"]


# --- measurements ---------------------------------------------------------------------------------------------------------


def test_without_measurements_it_is_right_within_a_third():
    """What is known without a measurement: each operator's median within a third of the measured times."""
    points = measured("matmul", "convolution", "softmax", "layer_norm", "gelu", "attention")
    bare = {**read_spec(spec_file("cpu")), "calibrated": {}}
    ratio = np.concatenate([predict(bare, [p], "time_s") for p in points]) / [p.measured["time_s"] for p in points]
    kinds = np.array([p.row["operator"] for p in points])
    for kind in set(kinds):
        assert 2 / 3 < np.median(ratio[kinds == kind]) < 1.5, kind


LIMITS = {"matmul": 15, "convolution": 22, "softmax": 8, "layer_norm": 12, "gelu": 9, "attention": 16}


def test_the_fitted_values_follow_the_measurements():
    target = load_target("cpu_epyc")
    points = target_points(target)
    data = read_spec(spec_file("cpu"))
    assert len(points) == 160
    for figure in target.figures:
        chosen = [p for p in points if figure.holds(p.row)]
        wanted = np.array([p.measured[figure.name] for p in chosen])
        assert Errors.of(predict(data, chosen, "time_s"), wanted).mean < LIMITS[figure.name], figure.name
        assert len(data["calibrated"][figure.fit]["values"]) <= 4
    assert sum(sum(f.holds(p.row) for p in points) for f in target.figures) == 160


def test_calibrating_finds_the_fields_that_made_the_data():
    """Times of a copy with other values, with a little noise: the fit predicts the copy, from calls to large kernels."""
    data = read_spec(spec_file("cpu"))
    wanted = {"kernels.gelu.launch_interval_s": 2e-5, "kernels.gelu.efficiency": 0.2, "kernels.gelu.bandwidth_fraction": 0.3}
    data["calibrated"] = {"gelu": {"data": "test", "values": wanted}}
    noise = np.random.default_rng(0)
    points = []
    for n in (100, 1000, 10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000):
        workload = single_operator("gelu", {"n": n})
        time_s = get_device(data).simulate(workload).time_s * noise.uniform(0.99, 1.01)
        points.append(replace(measured("gelu")[0], workload=workload, measured={"time_s": time_s}, label=str(n)))
    found, _, written = calibrate(read_spec(spec_file("cpu")), points, source="test", only=["gelu"], folds=2)
    assert found[0].after.mean < 1.5 < found[0].before.mean
    assert found[0].values["kernels.gelu.launch_interval_s"] == pytest.approx(2e-5, rel=0.05)
    assert get_device(written).spec.kernels["gelu"].launch_interval_s == found[0].values["kernels.gelu.launch_interval_s"]


# --- targets whose rows name their operators ------------------------------------------------------------------------------


def target_of(tmp_path, monkeypatch, **changes):
    (tmp_path / "measured").mkdir()
    (tmp_path / "measured" / "x.csv").write_text(
        "# Source: test\noperator,n,m,formats,time_us\ngelu,1000,,fp32,12\nsoftmax,50,20,fp32,9\ngelu,9000,,fp32,30\n"
    )
    monkeypatch.setattr(target_module, "_folder", lambda name: tmp_path / name)
    figure = {"name": "time", "modelled": "time_s", "column": "time_us", "scale": 1e-6, "where": {"operator": "gelu"}}
    data = {
        "name": "x", "title": "x", "source": "test", "evidence": "silicon", "device": "cpu", "data": "x.csv",
        "points": {"measurements": True}, "figures": [{**figure, **changes}],
    }  # fmt: skip
    return validate_spec(target_module.Target, data, source="x")


def test_a_figure_is_about_the_rows_it_names(tmp_path, monkeypatch):
    score = score_target(target_of(tmp_path, monkeypatch))[0]
    assert score.measured == pytest.approx((12e-6, 30e-6))
    assert score.labels == ("gelu n=1000", "gelu n=9000")
    device = get_device("cpu")
    expected = [device.simulate(single_operator("gelu", {"n": n})).time_s for n in (1000, 9000)]
    assert score.modelled == pytest.approx(expected)
    assert score.origin == "calibrated"


def test_a_figure_about_no_row_is_an_error(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"figure 'time': where: no row of x\.csv matches"):
        score_target(target_of(tmp_path, monkeypatch, where={"operator": "relu"}))


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ({}, "expected either operator, model or measurements"),
        ({"measurements": True, "model": "bert_base"}, "expected either operator, model or measurements"),
        ({"measurements": True, "label": "layer"}, "label: each row of measurements says it"),
    ],
)
def test_points_are_of_one_kind(points, message):
    with pytest.raises(InputError, match=message):
        validate_spec(target_module.Points, points, source="x")


def test_a_row_names_an_operator():
    with pytest.raises(InputError, match="operator"):
        row_workload({"operator": "gelus", "n": "5"})
    label, workload = row_workload({"operator": "gelu", "n": "5", "formats": "fp32"})
    assert label == "gelu n=5"
    assert workload.ops[0].formats is not None


# --- arithmetic -----------------------------------------------------------------------------------------------------------


def test_sums_are_fused_multiply_adds_along_k():
    torch.manual_seed(0)
    model, x = nn.Linear(300, 4, bias=False), torch.randn(5, 300)
    with torch.no_grad():
        found = get_device("cpu").emulate(model)(x).numpy()
    weights = model.weight.detach().numpy().astype(np.float64)
    sums = np.zeros((5, 4), np.float32)
    for k in range(300):
        # The product is exact in double precision; the sum is rounded once.
        sums = (sums + x.numpy()[:, k : k + 1].astype(np.float64) * weights[:, k]).astype(np.float32)
    assert np.array_equal(found, sums)
