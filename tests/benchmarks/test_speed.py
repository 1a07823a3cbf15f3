"""How fast the models are. Nothing is asserted as a time; ``make bench`` prints the figures."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import hwsim
from hwsim import zoo
from hwsim.api import load_workload, workload_from
from hwsim.registry import get_device
from hwsim.tracing import scalesim

SCALE_SIM = os.environ.get("HWSIM_SCALE_SIM_PYTHON")


@pytest.fixture(scope="module")
def array_256():
    """The 256×256 array, its kernels compiled."""
    device = get_device("tpu_v1")
    device.simulate(workload_from("lstm_small"))
    return device


@pytest.fixture(scope="module")
def whole_zoo():
    return [workload_from(name) for name in zoo.names()]


def test_resnet50_at_tile_fidelity(benchmark, array_256):
    workload = workload_from("resnet50")
    report = benchmark.pedantic(array_256.simulate, (workload,), rounds=20, warmup_rounds=2)
    assert report.macs == 4_089_184_256


def test_whole_zoo_at_tile_fidelity(benchmark, array_256, whole_zoo):
    reports = benchmark.pedantic(lambda: [array_256.simulate(w) for w in whole_zoo], rounds=5, warmup_rounds=1)
    assert len(reports) == len(zoo.names())


def test_trace_of_llama3_70b(benchmark):
    workload = benchmark.pedantic(workload_from, ("llama3_70b",), rounds=3)
    assert workload.parameters > 70e9


def test_command_start_up(benchmark):
    command = [str(Path(sys.executable).with_name("hwsim")), "devices"]
    done = benchmark.pedantic(lambda: subprocess.run(command, capture_output=True, check=True), rounds=10, warmup_rounds=1)
    assert b"tpu_v1" in done.stdout


@pytest.mark.skipif(not SCALE_SIM, reason="make bench-scale-sim installs SCALE-Sim in an environment of its own")
def test_against_scale_sim_on_the_same_layers(benchmark, tmp_path, array_256):
    """Six convolutions of ResNet-50 (the blocks layer3.1 and layer4.1) as the GEMMs that SCALE-Sim takes."""
    resnet = workload_from("resnet50")
    names = [f"{block}.conv{i}" for block in ("layer3.1", "layer4.1") for i in (1, 2, 3)]
    part = hwsim.Workload("part", tuple(op for op in resnet.ops if op.name in names), resnet.tensors, metadata=resnet.metadata)
    topology = tmp_path / "part.csv"
    scalesim.write(part, topology, form="gemm")
    workload = load_workload(topology)
    spec = array_256.spec.array
    size = [str(spec.rows), str(spec.columns)]
    runner = Path(__file__).with_name("scale_sim_run.py")
    run = subprocess.run([SCALE_SIM, str(runner), str(topology), *size, "ws"], capture_output=True, text=True, check=True)
    theirs = float(run.stdout.split()[-1])
    report = benchmark.pedantic(array_256.simulate, (workload,), rounds=20, warmup_rounds=2)
    start = time.perf_counter()
    for _ in range(20):
        array_256.simulate(workload)
    ours = (time.perf_counter() - start) / 20
    assert len(report.ops) == 6
    benchmark.extra_info["scale_sim_s"] = theirs
    benchmark.extra_info["ratio"] = theirs / ours
    print(f"\nSCALE-Sim 3.0.0: {theirs:.1f} s; hwsim, tile: {ours * 1e3:.2f} ms; ratio {theirs / ours:,.0f}")
