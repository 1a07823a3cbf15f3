"""What papers found on such chips: where products are bound, what half-width formats, depthwise and partial convolutions gain."""

import pytest
import torch
from torch import nn

import hwsim
import numerics
from hwsim.operators import Convolution, Matmul
from hwsim.registry import get_device
from hwsim.workload import chain
from numerics.scaling import Scaling

CHIPS = ("a100", "h100", "h200", "t4", "mi210", "gaudi2")


def conv(name, channels, out, size, kernel, groups=1, batch=64):
    half = kernel // 2
    return Convolution(
        name=name, batch=batch, in_channels=channels, out_channels=out, input_size=(size, size), output_size=(size, size),
        kernel=(kernel, kernel), stride=(1, 1), padding=((half, half), (half, half)), dilation=(1, 1), groups=groups,
    )  # fmt: skip


def work_s(report):
    """Seconds of the kernels themselves, without their launches."""
    return sum(row["work_s"] for row in report.tables["kernels"])


# --- Faster Inference of LLMs using FP8 on the Intel Gaudi ----------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["bf16", "fp8"])
def test_large_square_products_reach_nine_tenths_of_a_gaudi(recipe):
    report = get_device("gaudi2").simulate(chain("g", [Matmul(name="g", m=8192, n=8192, k=8192)]).with_formats(recipe))
    assert 0.9 < report.utilization < 1


def test_decoding_on_a_gaudi_gains_what_its_bytes_lose():
    device = get_device("gaudi2")
    one = chain("d", [Matmul(name="d", m=1, n=16384, k=16384)])
    wide, narrow = (device.simulate(one.with_formats(r)) for r in ("bf16", "fp8"))
    for report in (wide, narrow):
        row = report.ops[0]
        assert row.stall_cycles > row.compute_cycles * 0.3
        bandwidth = report.bytes_offchip / work_s(report) / device.spec.memory.off_chip.bandwidth_bytes_per_s
        assert bandwidth == pytest.approx(0.8, rel=0.02)
    assert wide.bytes_offchip / narrow.bytes_offchip == pytest.approx(2, rel=1e-3)
    assert work_s(wide) / work_s(narrow) == pytest.approx(2, rel=0.02)


def test_scales_that_are_powers_of_two_cost_a_little_accuracy():
    torch.manual_seed(0)
    model, x = nn.Linear(512, 256, bias=False), torch.randn(64, 512)
    exact = model(x).detach()
    device = get_device("gaudi2")

    def error(**how):
        scaling = {role: Scaling("channel" if role == "weight" else "tensor", **how) for role in ("weight", "activation")}
        recipe = numerics.Recipe(
            "scaled",
            {"weight": "e4m3fn", "activation": "e4m3fn", "accumulator": "fp32", "elementwise": "fp32"},
            scaling=scaling,
        )
        found = device.emulate(model, recipe)(x).detach()
        return float((found - exact).norm() / exact.norm())

    free, powers = error(), error(power_of_two=True)
    assert free < powers < 1.3 * free


# --- YOLOv6 and others: precision and a fixed overhead ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["t4", "a100"])
def test_int8_gains_less_than_twice_on_a_network(name):
    device = get_device(name)
    workload = hwsim.trace(hwsim.zoo.build("resnet18"), *hwsim.zoo.example_inputs("resnet18", batch=32))
    half, byte = (device.simulate(workload.with_formats(recipe)) for recipe in ("fp16", "int8"))
    assert 1 < half.time_s / byte.time_s < 2


def test_fewer_macs_gain_only_on_the_share_of_time_that_scales_with_them():
    # 26 → 45 FPS for 65.8 % fewer MACs: a share f of the time scales with MACs, 1 / (1 − 0.658 f) = 45 / 26.
    share = (1 - 26 / 45) / 0.658
    assert share == pytest.approx(0.64, abs=0.005)
    device = get_device("t4")
    channels = [128, 128, 128, 128]

    def network(width):
        return device.simulate(chain("net", [conv(f"c{i}", c, int(c * width), 40, 3, batch=1) for i, c in enumerate(channels)]))

    whole, slim = network(1.0), network(0.375)
    fewer = 1 - slim.macs / whole.macs
    assert fewer == pytest.approx(0.625)
    scaling = (1 - slim.time_s / whole.time_s) / fewer
    work = work_s(whole) / whole.time_s
    assert 1 < whole.time_s / slim.time_s < 1 / (1 - fewer)
    assert scaling <= work


# --- LowFormer, FasterNet: latency is not MACs -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", CHIPS)
def test_depthwise_and_dense_blocks_of_equal_macs_differ_in_latency(name):
    device = get_device(name)
    dense = chain("dense", [conv("d", 32, 32, 56, 3)])
    depthwise = chain("depthwise", [conv("d", 32 * 32, 32 * 32, 56, 3, groups=32 * 32)])
    assert dense.macs == depthwise.macs
    fast, slow = device.simulate(dense), device.simulate(depthwise)
    assert work_s(slow) > 3 * work_s(fast)


@pytest.mark.parametrize("name", CHIPS)
def test_a_depthwise_convolution_is_bound_by_memory(name):
    device = get_device(name)
    report = device.simulate(chain("depthwise", [conv("d", 256, 256, 56, 3, groups=256)]))
    row = report.ops[0]
    if name != "gaudi2":  # whose lanes are few beside its matrix engines
        assert row.stall_cycles > 0.2 * row.compute_cycles
    assert row.macs / (report.peak_macs_per_s * work_s(report)) < 0.05


@pytest.mark.parametrize("name", CHIPS)
def test_a_partial_convolution_has_a_sixteenth_of_the_macs_and_a_quarter_of_the_traffic(name):
    device = get_device(name)
    full = device.simulate(chain("full", [conv("c", 256, 256, 56, 3)]))
    partial = device.simulate(chain("partial", [conv("c", 64, 64, 56, 3)]))
    assert full.macs == 16 * partial.macs
    assert full.bytes_offchip / partial.bytes_offchip == pytest.approx(4, rel=0.1)
    # So it is slower than its MACs say, and faster a MAC than the depthwise one of the same width.
    assert work_s(partial) >= work_s(full) / 16 * 0.99
    depthwise = device.simulate(chain("depthwise", [conv("c", 256, 256, 56, 3, groups=256)]))
    assert partial.macs / work_s(partial) > depthwise.macs / work_s(depthwise)
