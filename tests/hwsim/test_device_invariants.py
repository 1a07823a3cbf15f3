"""What must hold on every registered device, whatever it models."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hwsim.api import workload_from
from hwsim.operators import Convolution, Elementwise, Gather, Matmul, Normalization, Softmax
from hwsim.registry import device_names, get_device
from hwsim.report import Report
from hwsim.workload import Tensor, Workload, chain

MODELS = ("resnet18", "mobilenet_v2", "gpt2", "mamba_130m", "dlrm")
"""Convolutions, depthwise ones, attention, a scan, embeddings."""

DEVICES = device_names(event_driven=False)


@cache
def traced(name, **options):
    """The workload of a model: traced once for all devices, none of which can change it."""
    return workload_from(name, **options)


@st.composite
def workloads(draw):
    """A chain of matrix and vector operators with sizes from one to beyond any array's side."""
    size = st.one_of(st.integers(1, 40), st.sampled_from([64, 127, 128, 129, 300, 1000]))
    tensors: dict[str, Tensor] = {}
    ops = []

    def tensor(name, shape, role="activation"):
        density = draw(st.sampled_from([None, None, 0.5, 0.9])) if role in ("weight", "activation") else None
        tensors[name] = Tensor(name, shape, "fp32", role, density)
        return name

    rows, columns = draw(size), draw(size)
    previous = tensor("x", (rows, columns), "input")
    for i in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["matmul", "matmul", "batched", "convolution", "elementwise", "softmax", "norm", "gather"]))
        name, out = f"op{i}", f"t{i}"
        if kind == "matmul":
            n = draw(size)
            weight = tensor(f"w{i}", (columns, n), "weight")
            op = Matmul(name=name, m=rows, n=n, k=columns, inputs=(previous, weight), outputs=(out,))
            columns = n
        elif kind == "batched":
            n, b = draw(size), draw(st.integers(2, 5))
            left, right = tensor(f"a{i}", (b, rows, columns)), tensor(f"b{i}", (b, columns, n))
            op = Matmul(name=name, batch=b, m=rows, n=n, k=columns, inputs=(left, right), outputs=(out,))
            rows, columns = b * rows, n
        elif kind == "convolution":
            groups = draw(st.sampled_from([1, 1, 4]))
            channels, out_channels, edge = 4 * draw(st.integers(1, 9)), 4 * draw(st.integers(1, 9)), draw(st.integers(3, 12))
            image = tensor(f"a{i}", (2, channels, edge, edge))
            weight = tensor(f"w{i}", (out_channels, channels // groups, 3, 3), "weight")
            op = Convolution(
                name=name, batch=2, in_channels=channels, out_channels=out_channels, input_size=(edge, edge),
                output_size=(edge - 2, edge - 2), kernel=(3, 3), stride=(1, 1), padding=((0, 0), (0, 0)), dilation=(1, 1),
                groups=groups, inputs=(image, weight), outputs=(out,),
            )  # fmt: skip
            rows, columns = 2 * out_channels, (edge - 2) ** 2
        elif kind == "elementwise":
            op = Elementwise(name=name, operation="gelu", elements=rows * columns, inputs=(previous,), outputs=(out,))
        elif kind == "softmax":
            op = Softmax(name=name, operation="softmax", elements=rows * columns, rows=rows, inputs=(previous,), outputs=(out,))
        elif kind == "norm":
            op = Normalization(
                name=name, operation="layer_norm", elements=rows * columns, rows=rows, inputs=(previous,), outputs=(out,)
            )
        else:
            picked = draw(st.integers(1, 50))
            index = tensor(f"i{i}", (picked,), "index")
            tensors[index] = Tensor(index, (picked,), "int64", "index")
            op = Gather(name=name, elements=picked * columns, indices=picked, inputs=(previous, index), outputs=(out,))
            rows = picked
        previous = tensor(out, (rows, columns))
        ops.append(op)
    return Workload("random", tuple(ops), tensors, ("x",), (previous,))


def check(report: Report, workload: Workload) -> None:
    assert report.macs == workload.macs
    clock = report.clock_hz
    for op in report.ops:
        parts = op.compute_cycles, op.stall_cycles, op.overhead_cycles
        assert min(parts) >= -1e-9 * max(1.0, op.cycles), op.name
        assert op.cycles == pytest.approx(sum(parts), rel=1e-6, abs=1e-6)
        assert op.time_s == pytest.approx(op.cycles / clock, rel=1e-9)
        assert all(joules >= 0 for joules in op.energy_j.values()), op.name
        assert op.energy_j["static"] == pytest.approx(report.spec["static_power_w"] * op.time_s, rel=1e-9)
        assert all(n >= 0 and isinstance(n, int) for n in op.bytes.values()), op.name
        assert 0 <= op.utilization <= 1 + 1e-9, op.name
    assert report.energy_j == pytest.approx(sum(op.energy_total_j for op in report.ops))
    assert np.isfinite([report.time_s, report.energy_j]).all()
    assert report.time_s > 0
    assert Report.from_dict(report.to_dict()).to_dict() == report.to_dict()


def bandwidth_held(report: Report) -> None:
    """Off-chip bytes fit the bandwidth: in all, and at every prefix of groups (checked on the whole)."""
    assert report.bytes_offchip <= report.offchip_bandwidth_bytes_per_s * report.time_s * (1 + 1e-9)


@pytest.mark.parametrize("name", DEVICES)
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(workload=workloads())
def test_random_workloads(name, workload):
    device = get_device(name)
    report = device.simulate(workload)
    check(report, device.placed(workload))
    bandwidth_held(report)
    assert device.simulate(workload).to_dict() == report.to_dict()
    if "analytic" in device.fidelities:
        quick = device.simulate(workload, fidelity="analytic")
        check(quick, device.placed(workload))
        assert quick.time_s <= report.time_s * (1 + 1e-9)


@pytest.mark.parametrize("name", DEVICES)
def test_networks(name):
    device = get_device(name)
    for model in MODELS:
        workload = traced(model)
        report = device.simulate(workload)
        check(report, workload)
        bandwidth_held(report)
    training = traced("mlp0", batch=2, mode="training")
    check(device.simulate(training), training)


def bandwidth_fields(data, prefix=""):
    """Dotted fields of a spec that are bandwidths or clocks of its memories."""
    for key, value in data.items():
        if isinstance(value, dict):
            yield from bandwidth_fields(value, f"{prefix}{key}.")
        elif key.endswith("bandwidth_bytes_per_s") and isinstance(value, float):
            yield f"{prefix}{key}"


@pytest.mark.parametrize("name", DEVICES)
def test_more_bandwidth_is_never_slower(name):
    device = get_device(name)
    fields = list(bandwidth_fields(device.spec.model_dump()))
    assert fields, "no device has unlimited memory"
    workload = traced("mobilenet_v2")
    before = device.simulate(workload).time_s
    for field in fields:
        data = device.spec.model_dump()
        for part in field.split("."):
            data = data[part]
        faster = get_device(device, overrides={field: 2 * data})
        assert faster.simulate(workload).time_s <= before * (1 + 1e-9), field


@pytest.mark.parametrize("name", DEVICES)
def test_many_matmuls_are_each_one(name):
    device = get_device(name)
    m, n, k, batch = np.array([1, 7, 64, 300, 64]), np.array([1, 130, 64, 17, 64]), 96, np.array([1, 1, 3, 1, 3])
    times = device.matmul_time_s(m, n, k, batch=batch)
    for i in range(5):
        op = Matmul(name="matmul", batch=int(batch[i]), m=int(m[i]), n=int(n[i]), k=96)
        assert times[i] == device.simulate(chain("one", [op])).time_s


def off_chip_field(data, prefix=""):
    """Dotted field of a spec's off-chip memory."""
    for key, value in data.items():
        if key == "off_chip":
            return f"{prefix}{key}"
        if isinstance(value, dict) and (found := off_chip_field(value, f"{prefix}{key}.")):
            return found
    return None


@pytest.mark.parametrize("name", DEVICES)
def test_any_device_can_choose_a_banked_dram(name):
    """A microcontroller without off-chip memory has none to choose."""
    device = get_device(name)
    field = off_chip_field(device.spec.model_dump())
    assert field
    section = device.spec
    for part in field.split("."):
        section = getattr(section, part)
    if section is None:
        pytest.skip("no off-chip memory")
    kept = {k: v for k, v in section.model_dump().items() if k in ("capacity_bytes", "in_flight_bytes_per_unit")}
    banked = get_device(device, overrides={field: {**kept, "dram": {"preset": "lpddr5_6400", "channels": 2}}})
    memory = banked.spec
    for part in field.split("."):
        memory = getattr(memory, part)
    for model in ("resnet18", "gpt2"):
        workload = traced(model)
        report = banked.simulate(workload)
        check(report, workload)
        assert report.bytes_offchip <= memory.dram.peak_bytes_per_s * report.time_s
