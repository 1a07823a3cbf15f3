"""The TPUs: published peaks and counters, measured matmuls, several arrays, kernels of windows, the host's link."""

import csv
import math
from importlib import resources

import numpy as np
import pytest
import torch
from effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import hwsim
from accelerators.systolic.analytic import array_time, compute_cycles, products_beside
from accelerators.systolic.cycle import step_tiles
from accelerators.systolic.spec import ArraySpec, Timing
from hwsim.api import workload_from
from hwsim.operators import Convolution, Elementwise, Matmul
from hwsim.registry import get_device, read_spec, spec_file
from hwsim.workload import Tensor, Workload, chain
from numerics.errors import InputError
from numerics.recipes import Recipe

FP32 = Recipe("fp32 in memory", {"activation": "fp32", "weight": "fp32", "accumulator": "fp32"})
"""What JAX gives a matmul unless told otherwise: fp32 arrays, which the MXUs multiply as bf16."""


def measured(name):
    text = resources.files("hwsim").joinpath("data", "measured", name).read_text(encoding="utf-8")
    return list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))


@pytest.fixture(scope="module")
def matmuls():
    """(m, n, k, seconds) of the measured matmuls."""
    rows = measured("tpu_matmul_us.csv")
    m, n, k = (np.array([int(row[column]) for row in rows]) for column in ("d0", "d1", "d2"))
    return m, n, k, np.array([float(row["time_us"]) for row in rows]) * 1e-6


# --- published figures ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "formats", "tera_operations"),
    [
        ("tpu_v1", "int8", 92),
        ("tpu_v4", "bf16", 275),
        ("tpu_v4", "int8", 275),
        ("tpu_v5e", "bf16", 197),
        ("tpu_v5e", "int8", 393),
    ],
)
def test_published_peaks(name, formats, tera_operations):
    report = get_device(name).simulate(chain("one", [Matmul(name="x", m=8, n=8, k=8)]).with_formats(formats))
    assert 2 * report.peak_macs_per_s == pytest.approx(tera_operations * 1e12, rel=0.01)
    large = chain("large", [Matmul(name="x", m=16384, n=16384, k=16384)]).with_formats(formats)
    assert get_device(name).simulate(large, fidelity="analytic").utilization == pytest.approx(
        get_device(name).spec.array.streaming_fraction, rel=0.01
    )


def test_the_cycles_of_tpu_v1_in_mlp0_go_where_its_counters_say():
    """Nothing is fitted: table 3 of Jouppi et al., ISCA 2017, column MLP0, within ten points, and its TOPS within ten percent."""
    counters = {row["row"]: float(row["MLP0"]) for row in measured("tpu_v1_counters.csv")}
    device = get_device("tpu_v1")
    assert device.spec.fitted_fields == ()
    report = device.simulate(workload_from("mlp0"))
    assert 2 * report.macs / report.time_s == pytest.approx(counters["teraops"] * 1e12, rel=0.1)
    split = {row["part"]: row["percent"] for row in report.tables["cycle_split"]}
    assert sum(split.values()) == pytest.approx(100)
    for part, row in (
        ("array_active", "array_active_pct"),
        ("weight_stall", "weight_stall_pct"),
        ("weight_shift", "weight_shift_pct"),
        ("non_matrix", "non_matrix_pct"),
    ):
        assert split[part] == pytest.approx(counters[row], abs=10), part


# --- measured matmuls ------------------------------------------------------------------------------------------------------


def test_the_chosen_chip_could_have_done_every_measurement(matmuls):
    m, n, k, seconds = matmuls
    fastest, moved = 2 * m * n * k / seconds, 4 * (m * k + k * n + m * n) / seconds
    off_chip = get_device("tpu_v4").spec.memory.off_chip
    assert fastest.max() < 275e12
    assert moved.max() < off_chip.bandwidth_bytes_per_s
    assert fastest.max() > 275e12 / 2  # one TensorCore could not


def test_measured_matmuls(matmuls):
    m, n, k, seconds = matmuls
    device = get_device("tpu_v4")
    assert len(device.spec.fitted_fields) <= 7
    errors = 100 * np.abs(device.matmul_time_s(m, n, k, recipe=FP32) / seconds - 1)
    small = np.maximum(np.maximum(m, n), k) <= 1024
    assert errors[small].mean() < 7.5
    assert errors[~small].mean() < 6
    data = {**read_spec(spec_file("tpu_v4")), "calibrated": {}}
    plain = get_device(data).matmul_time_s(m, n, k, recipe=FP32)
    assert (plain < seconds).mean() > 0.95  # what the data sheets promise is a bound
    assert np.abs(plain / seconds - 1).mean() < 0.4


def test_fields_fitted_to_half_of_the_shapes_hold_on_the_others(matmuls):
    """The search begins at a guess and never sees the other half."""
    from scipy.optimize import minimize

    m, n, k, seconds = matmuls
    data = {**read_spec(spec_file("tpu_v4")), "calibrated": {}}
    fields = {
        "launch_overhead_cycles": 600.0, "memory.off_chip.achieved_fraction": 0.9, "array.streaming_fraction": 0.7,
        "kernel.window": 1024.0, "kernel.store_fraction": 0.8,
    }  # fmt: skip
    largest = np.array([5000.0, 1.0, 1.0, 4096.0, 1.0])
    half = np.random.default_rng(7).permutation(len(m)) % 2 == 0

    def predicted(x, chosen):
        values = np.clip(np.exp(x), 1e-3, largest)
        device = get_device(data, overrides=dict(zip(fields, values.tolist(), strict=True)))
        return device.matmul_time_s(m[chosen], n[chosen], k[chosen], recipe=FP32)

    def loss(x):
        return float(np.abs(predicted(x, half) / seconds[half] - 1).mean())

    found = minimize(loss, np.log(list(fields.values())), method="Nelder-Mead", options={"maxiter": 160})
    errors = 100 * np.abs(predicted(found.x, ~half) / seconds[~half] - 1)
    small = (np.maximum(np.maximum(m, n), k) <= 1024)[~half]
    assert errors[small].mean() < 8
    assert errors[~small].mean() < 6.5


@settings(max_examples=examples(40), deadline=None)
@given(
    st.sampled_from(["tpu_v1", "tpu_v4", "tpu_v5e", "gemmini_16x16"]),
    st.tuples(*[st.integers(1, 3000)] * 3, st.sampled_from([1, 1, 2, 12])),
    st.sampled_from([None, "int8"]),
    st.sampled_from(["analytic", "tile"]),
)
def test_many_matmuls_at_once_have_the_times_of_one(name, shape, recipe, fidelity):
    m, n, k, batch = shape
    device = get_device(name)
    one = chain("one", [Matmul(name="x", m=m, n=n, k=k, batch=batch)])
    alone = device.simulate(one if recipe is None else one.with_formats(recipe), fidelity=fidelity).time_s
    many = device.matmul_time_s([5, m, 700], [7, n, 300], [11, k, 900], batch=[1, batch, 3], recipe=recipe, fidelity=fidelity)
    assert many[1] == pytest.approx(alone, rel=1e-12)


# --- several arrays --------------------------------------------------------------------------------------------------------

TIMING_OF = st.builds(
    Timing,
    fold_overlap=st.sampled_from(["none", "weights", "full"]),
    output_drain=st.sampled_from(["hidden", "shift"]),
    mac_latency_cycles=st.integers(1, 2),
)


@settings(max_examples=examples(150), deadline=None)
@given(
    st.tuples(*[st.integers(1, 40)] * 3),
    st.sampled_from([1, 1, 2, 6, 16]),
    st.sampled_from([1, 2, 4, 6]),
    st.sampled_from(["ws", "os", "is"]),
    TIMING_OF,
)
def test_arrays_share_the_work_as_dealt_by_hand(shape, batch, arrays, dataflow, timing):
    """Parts of folds are dealt to the arrays in turn; the busiest one's control is stepped through every cycle."""
    m, n, k = shape
    array = ArraySpec(rows=4, columns=3, dataflow=dataflow, timing=timing)
    along, across, stream = {"ws": (k, n, m), "os": (m, n, k), "is": (k, m, n)}[dataflow]
    each = math.ceil(along / 4) * math.ceil(across / 3)
    beside = max(d for d in range(1, arrays + 1) if batch % d == 0 and (d == 1 or d * each <= arrays))
    best = math.inf
    for split in range(1, arrays + 1):
        if arrays % split or (dataflow == "os" and split > 1):
            continue
        dealt = [0] * arrays
        for part in range(each * beside * split):
            dealt[part % arrays] += 1
        work = [[max(dealt), math.ceil(stream / split), 0.0, 0.0, 4, 1.0]] * (batch // beside)
        best = min(best, step_tiles(array, np.array(work)))
    sides = {"rows": 4, "columns": 3, "dataflow": dataflow, "timing": timing, "batch": batch}
    assert compute_cycles(m, n, k, arrays=arrays, **sides) == best
    assert products_beside(batch, each, arrays) == beside
    found = array_time(m, n, k, arrays=arrays, **sides)
    assert found.active + found.load <= found.cycles
    assert found.cycles <= compute_cycles(m, n, k, **sides)


@pytest.mark.parametrize("fidelity", ["analytic", "tile", "cycle"])
@pytest.mark.parametrize("name", ["tpu_v4", "gemmini_16x16"])
def test_more_arrays_are_faster_and_never_beyond_their_peak(name, fidelity):
    layer = chain("layer", [Matmul(name="x", m=512, n=512, k=512)])
    ideal = {"off_chip.bandwidth_bytes_per_s": 1e15, "off_chip.latency_s": 0, "array.streaming_fraction": 1.0}
    wide = {f"memory.{pad}.bank_bytes_per_cycle": 1e6 for pad in ("input", "weight", "output")}
    times = []
    for count in (1, 2, 4, 8):
        changes = {"array.count": count, **ideal, **wide} | ({"kernel.cores": 1} if name == "tpu_v4" else {})
        report = get_device(name, overrides=changes).simulate(layer, fidelity=fidelity)
        places = count * report.spec["array"]["rows"] * report.spec["array"]["columns"]
        assert report.cycles - report.ops[0].overhead_cycles >= 512**3 / places
        assert report.peak_macs_per_s == places * report.clock_hz
        times.append(report.cycles - report.ops[0].overhead_cycles)
    assert times == sorted(times, reverse=True)
    assert times[0] > 6 * times[-1]


def test_small_heads_of_a_batch_run_beside_one_another():
    """Eight products of one fold each, on eight arrays: a step for all of them."""
    heads = chain("heads", [Matmul(name="x", m=1024, n=128, k=128, batch=8)])
    bare = {"array.streaming_fraction": 1.0, "launch_overhead_cycles": 0.0}
    report = get_device("tpu_v4", overrides=bare).simulate(heads, fidelity="analytic")
    assert report.cycles == 128 + 1024 + 128 + 128 - 2


# --- kernels of windows ----------------------------------------------------------------------------------------------------


def test_a_kernel_by_hand():
    """512 × 1024 × 2048 in bf16 on two cores that share the columns: both read A, each half of B."""
    changes = {
        "array.streaming_fraction": 1.0, "off_chip.achieved_fraction": 1.0, "off_chip.latency_s": 0.0,
        "off_chip.bandwidth_bytes_per_s": 1.05e12, "launch_overhead_cycles": 100, "kernel.window": 256,
        "kernel.store_fraction": 0.5,
    }  # fmt: skip
    device = get_device("tpu_v4", overrides=changes)
    report = device.simulate(chain("one", [Matmul(name="x", m=512, n=1024, k=2048)]))
    a, b, c = 2 * 512 * 2048, 2 * 2048 * 1024, 2 * 512 * 1024
    per_cycle = 1000
    first = (2 * a * (256 / 512) + b) * (256 / 2048)
    array = 128 + (16 - 1) * 512 + 512 + 128 + 128 - 2  # 16 × 8 folds on 8 arrays
    rest = (2 * a + b - first) / per_cycle
    assert report.cycles == pytest.approx(100 + first / per_cycle + max(array, rest) + c / (0.5 * per_cycle))
    assert report.bytes_offchip == 2 * a + b + c
    row = report.tables["mapping"][0]
    assert (row["copies_a"], row["copies_b"], row["first_window_bytes"]) == (2, 1, first)


@pytest.mark.parametrize(
    ("sizes", "copies"),
    [
        ({"m": 64, "n": 256, "k": 64}, (2, 1)),  # a whole array of columns for each core
        ({"m": 64, "n": 255, "k": 64}, (1, 2)),  # else the rows are shared
        ({"m": 1, "n": 8, "k": 64}, (1, 1)),  # one row keeps one core busy
        ({"m": 64, "n": 256, "k": 64, "batch": 2}, (1, 1)),  # a product for each
    ],
)
def test_what_the_cores_share(sizes, copies):
    row = get_device("tpu_v4").simulate(chain("one", [Matmul(name="x", **sizes)])).tables["mapping"][0]
    assert (row["copies_a"], row["copies_b"]) == copies


def test_operands_that_fit_nowhere_are_read_again_as_blocks_of_results_ask():
    device = get_device("tpu_v4")
    pads = device.spec.memory
    report = device.simulate(chain("one", [Matmul(name="x", m=16384, n=16384, k=1024)]))
    a = b = 2 * 16384 * 1024
    assert a > pads.input.capacity_bytes
    assert b > pads.weight.capacity_bytes
    sums = pads.output.tile_bytes // 4
    blocks = [(width, sums // width) for width in (128 << i for i in range(8)) if width <= sums]
    reads = [(math.ceil(16384 / width), math.ceil(16384 / height)) for width, height in blocks]
    times_a, times_b = min(reads, key=lambda times: a * times[0] + b * times[1])
    row = report.tables["mapping"][0]
    assert (row["loads_a_bytes"], row["loads_b_bytes"]) == (2 * a * times_a, b * times_b)
    assert min(times_a, times_b) > 1
    once = get_device("tpu_v4", overrides={"memory.input.capacity_bytes": a}).simulate(
        chain("one", [Matmul(name="x", m=16384, n=16384, k=1024)])
    )
    assert once.bytes_offchip == 2 * a + b + 2 * 16384**2


def test_a_kernels_cores_divide_its_arrays():
    with pytest.raises(InputError, match=r"kernel.cores: expected a divisor of array.count \(8\), got 3"):
        get_device("tpu_v4", overrides={"kernel.cores": 3})


# --- the host's link ---------------------------------------------------------------------------------------------------------


def test_inputs_and_results_cross_the_hosts_link():
    layer = chain("layer", [Matmul(name="x", m=256, n=512, k=1024)])
    linked, without = get_device("tpu_v1"), get_device({**read_spec(spec_file("tpu_v1")), "host_link": None})
    with_host, off_chip = linked.simulate(layer), without.simulate(layer)
    crossed = 256 * 1024 + 256 * 512
    assert with_host.bytes_by_level["host"] == crossed
    assert with_host.bytes_offchip == 1024 * 512
    assert "host" not in off_chip.bytes_by_level
    assert off_chip.bytes_offchip == crossed + 1024 * 512
    host = linked.spec.host_link
    assert with_host.ops[0].overhead_cycles / linked.spec.clock_hz == pytest.approx(
        crossed / host.link_bytes_per_s + host.link_latency_s
    )
    assert with_host.energy_by_component_j["host"] == pytest.approx(crossed * host.link_pj_per_byte * 1e-12)


# --- operators on arrays ---------------------------------------------------------------------------------------------------


def convolution(channels, size, kernel, groups=1):
    return Convolution(
        name=f"{kernel}x{kernel}/{groups}", batch=1, in_channels=channels, out_channels=channels, input_size=(size, size),
        output_size=(size, size), kernel=(kernel, kernel), stride=(1, 1), padding=((kernel // 2,) * 2,) * 2, dilation=(1, 1),
        groups=groups,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("channels", "fidelity"), [(16, "tile"), (32, "tile"), (16, "analytic"), (64, "analytic"), (128, "analytic")]
)
def test_a_full_convolution_beats_a_separable_one_of_fewer_macs(channels, fidelity):
    """Gupta and Akin, "Accelerator-aware Neural Network Design using AutoML", 2020, section 3: a depthwise convolution fills 9
    rows of one column of a systolic array, the full one fills the array. With the weights on the way over PCIe (``tile``) few
    channels are enough to lose the advantage."""
    device = get_device("edge_tpu")
    full = device.simulate(chain("full", [convolution(channels, 28, 3)]), fidelity=fidelity)
    separable = device.simulate(
        chain("separable", [convolution(channels, 28, 3, channels), convolution(channels, 28, 1)]), fidelity=fidelity
    )
    assert full.macs > 5 * separable.macs
    assert full.time_s < separable.time_s
    assert full.utilization > 5 * separable.utilization
    assert separable.ops[0].utilization < 9 / 64**2


def test_a_vector_operator_hides_the_memorys_latency_behind_larger_pieces():
    shape = (8192, 8192)
    tensors = {"x": Tensor("x", shape, "bf16", "input"), "y": Tensor("y", shape, "bf16")}
    relu = Elementwise(name="relu", operation="relu", elements=8192**2, inputs=("x",), outputs=("y",))
    device = get_device("tpu_v4")
    report = device.simulate(Workload("relu", (relu,), tensors, ("x",), ("y",)))
    least = 4 * 8192**2 / device.spec.memory.off_chip.achieved_bytes_per_s
    assert least < report.time_s < 1.05 * least


def test_emulation_multiplies_bf16_and_sums_fp32_in_the_order_of_the_folds():
    torch.manual_seed(2)
    layer, x = nn.Linear(300, 5, bias=False), torch.randn(3, 300)
    found = get_device("tpu_v4").emulate(layer)(x).detach().numpy()
    a, w = (v.detach().to(torch.bfloat16).float().numpy() for v in (x, layer.weight))
    expected = np.zeros((3, 5), np.float32)
    for start in range(0, 300, 128):
        fold = np.zeros((3, 5), np.float32)
        for i in range(start, min(start + 128, 300)):
            fold = fold + a[:, i, None] * w[None, :, i]
        expected = expected + fold
    assert np.array_equal(found, torch.tensor(expected).to(torch.bfloat16).float().numpy())  # activations leave as bf16


def test_eight_bit_products_at_twice_the_rate_have_the_same_sums_on_the_cycle_level_array():
    torch.manual_seed(4)
    layer, x = nn.Linear(40, 7), torch.randn(5, 40)
    device = get_device("tpu_v5e")
    recipe = Recipe("int8", {"weight": "int8", "activation": "int8", "accumulator": "int32"})
    assert torch.equal(device.emulate(layer, recipe)(x), device.emulate(layer, recipe, fidelity="cycle")(x))
    times = [
        device.simulate(chain("one", [Matmul(name="x", m=4096, n=1024, k=1024)]).with_formats(f), fidelity="cycle").cycles
        for f in ("bf16", "int8")
    ]
    assert 1.7 < times[0] / times[1] < 2.1


@pytest.mark.parametrize("name", ["tpu_v4", "tpu_v5e"])
def test_rungs_agree(name):
    """The control, stepped, takes as long as the closed form says, to the part of a cycle that each fold rounds up."""
    for model in ("mlp0", "resnet18"):
        reports = [hwsim.simulate(workload_from(model), device=name, fidelity=f) for f in ("analytic", "tile", "cycle")]
        assert reports[0].time_s <= reports[1].time_s
        assert reports[2].cycles == pytest.approx(reports[1].cycles, rel=5e-3)
