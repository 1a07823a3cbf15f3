"""Measuring: the method on clocks that are known, the kernels against plain PyTorch, files that survive, and a real run."""

import csv
import ctypes
import math
import statistics
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.cli import main
from hwsim.measuring import cpu as cpu_backend
from hwsim.measuring import cuda as cuda_backend
from hwsim.measuring import session
from hwsim.measuring.cpu import CpuBackend
from hwsim.measuring.cuda import CudaBackend
from hwsim.measuring.kernels import FORMATS, Built, build, why_not
from hwsim.measuring.method import Method
from hwsim.measuring.nvml import Nvml, open_nvml
from hwsim.measuring.session import COLD_FACTOR, Kernel, Session, planned_kernels
from hwsim.measuring.shapes import OPERATORS, SHAPE_COUNTS, Limits, sampled_shapes
from hwsim.scoreboard import read_measurements, single_operator
from numerics.errors import InputError

CPU = torch.device("cpu")
SMALL = Limits(edge=64, macs=1 << 18, bytes=1 << 18)
QUICK = Method(warm_up_s=2e-4, run_s=1e-4, kernel_s=2e-3, least_runs=3, most_runs=20)


@pytest.fixture
def cpu(monkeypatch):
    """The processor, with small kernels and little time for each."""
    monkeypatch.setattr(CpuBackend, "method", QUICK)
    monkeypatch.setattr(CpuBackend, "limits", SMALL)
    monkeypatch.setattr(CpuBackend, "most_sets", 16)
    return CpuBackend(1)


# --- shapes -------------------------------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(
    chosen=st.lists(st.sampled_from(OPERATORS), min_size=1, max_size=4, unique=True),
    extra=st.integers(0, 12),
    seed=st.integers(0, 2**20),
)
def test_shapes_are_distinct_within_the_limits_and_grow(chosen, extra, seed):
    found = sampled_shapes(chosen, len(chosen) + extra, SMALL, seed=seed)
    assert len(found) == len(chosen) + extra
    assert len({(name, tuple(sizes.items())) for name, sizes in found}) == len(found)
    for name, sizes in found:
        workload = single_operator(name, sizes)
        assert workload.macs <= SMALL.macs
        assert sum(tensor.bytes for tensor in workload.tensors.values()) <= SMALL.bytes
    longer = sampled_shapes(chosen, len(chosen) + extra + 5, SMALL, seed=seed)
    for name in chosen:
        mine, more = ([sizes for other, sizes in listed if other == name] for listed in (found, longer))
        assert more[: len(mine)] == mine


def test_large_set_of_a_gpu():
    found = sampled_shapes(["matmul", "softmax", "layer_norm", "attention"], SHAPE_COUNTS["large"], CudaBackend.limits)
    matmuls = [sizes for name, sizes in found if name == "matmul"]
    assert len(found) >= 400
    assert len(matmuls) == 320
    sides = [side for sizes in matmuls for side in (sizes["m"], sizes["n"], sizes["k"])]
    powers = sum(side & (side - 1) == 0 for side in sides)
    odd = sum(side % 2 == 1 and side > 1 for side in sides)
    assert powers > len(sides) / 3 - 20
    assert odd > len(sides) / 3 - 20
    for name, least in (("m", 0), ("n", 4), ("k", 4)):
        logs = [math.log2(sizes[name]) for sizes in matmuls]
        middle = (least + 14) / 2
        assert len(logs) / 3 < sum(value <= middle for value in logs) < len(logs) * 3 / 4  # even over the logarithms
    assert any(sizes["m"] == 1 for sizes in matmuls)


def test_what_shapes_refuse():
    with pytest.raises(InputError, match="unknown name 'gemm'"):
        sampled_shapes(["gemm"], 4, SMALL)
    with pytest.raises(InputError, match="at least one for each of 2 operators, got 1"):
        sampled_shapes(["gelu", "relu"], 1, SMALL)
    with pytest.raises(InputError, match=r"no more than \d+ shapes of matmul"):
        sampled_shapes(["matmul"], 40, Limits(edge=2, macs=8, bytes=1 << 20))


# --- the method ---------------------------------------------------------------------------------------------------------


class Clock:
    """A kernel whose calls take known times: ``first`` for the first few, then ``steady`` with now and then a disturbed run."""

    def __init__(self, steady, *, first=(), disturbed_every=0, disturbance=0.0):
        self.steady, self.first, self.calls, self.runs = steady, list(first), 0, 0
        self.disturbed_every, self.disturbance = disturbed_every, disturbance
        self.lengths = []

    def __call__(self, calls):
        self.runs += 1
        took = sum(self.first.pop(0) if self.first else self.steady for _ in range(calls))
        self.calls += calls
        self.lengths.append(calls)
        disturbed = self.disturbed_every and self.runs % self.disturbed_every == 0
        return took + (self.disturbance if disturbed else 0.0)


@settings(max_examples=60, deadline=None)
@given(st.floats(1e-7, 0.2))
def test_a_steady_kernel_is_measured_exactly(steady):
    method = Method()
    clock = Clock(steady)
    sample = method.sample(clock)
    assert sample.time_s == pytest.approx(steady, rel=1e-9)
    assert sample.std_s <= 1e-6 * steady
    assert method.least_runs <= sample.repetitions <= method.most_runs
    long_enough = sample.calls * steady >= method.run_s * (1 - 1e-9)
    assert long_enough or sample.calls == method.most_calls
    assert sample.calls == 1 or sample.calls * steady <= 2 * method.run_s + steady
    assert sum(clock.lengths[: -sample.repetitions]) * steady >= min(method.warm_up_s, method.most_calls * steady)


def test_warm_up_is_not_counted():
    slow_start = Clock(2e-5, first=[0.5, 0.01, 0.01])
    sample = Method().sample(slow_start)
    assert sample.time_s == pytest.approx(2e-5)
    assert sample.calls == 50


def test_disturbed_runs_do_not_move_the_median():
    sample = Method().sample(Clock(1e-4, disturbed_every=4, disturbance=0.02))
    assert sample.time_s == pytest.approx(1e-4)
    assert sample.min_s == pytest.approx(1e-4)
    assert sample.std_s > 5e-4  # and are told


def test_a_clock_that_stands_still_ends():
    assert Method().sample(lambda calls: 0.0).time_s == 0


# --- kernels ------------------------------------------------------------------------------------------------------------

SIZES = {
    "matmul": {"m": 5, "n": 7, "k": 3, "batch": 2},
    "convolution": {
        "batch": 2, "in_channels": 4, "out_channels": 6, "height": 9, "width": 8, "kernel": 3, "stride": 2, "padding": 1,
        "groups": 2,
    },
    "attention": {
        "batch": 2, "heads": 4, "query_length": 3, "key_length": 5, "head_dim": 8, "kv_heads": 2, "causal": 0,
    },
    "softmax": {"m": 3, "n": 8},
    "layer_norm": {"m": 3, "n": 8},
}  # fmt: skip


def sizes_of(operator):
    return SIZES.get(operator, {"n": 33})


def reference(operator, operands):
    functional = torch.nn.functional
    plain = {
        "matmul": torch.matmul,
        "convolution": lambda x, w: functional.conv2d(x, w, stride=2, padding=1, groups=2),
        "attention": lambda q, k, v: (
            torch.softmax(q @ k.repeat_interleave(2, 1).transpose(2, 3) / 8**0.5, -1) @ v.repeat_interleave(2, 1)
        ),
        "softmax": lambda x: x.exp() / x.exp().sum(1, keepdim=True),
        "layer_norm": lambda x, g, b: (
            (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, correction=0) + 1e-5) ** 0.5 * g + b
        ),
        "gelu": lambda x: x * (1 + torch.erf(x / 2**0.5)) / 2,
        "relu": lambda x: x.maximum(torch.zeros(())),
        "silu": lambda x: x * torch.sigmoid(x),
        "add": lambda x, y: x + y,
        "multiply": lambda x, y: x * y,
    }
    return plain[operator](*operands)


@pytest.mark.parametrize("operator", OPERATORS)
def test_kernels_compute_the_operator(operator):
    built = build(operator, sizes_of(operator), "fp32", CPU)
    returned = built.call(*built.tensors)
    shape = single_operator(operator, sizes_of(operator)).tensors["result"].shape
    into_given = returned is None
    result = built.tensors[-1] if into_given else returned
    operands = built.tensors[:-1] if into_given else built.tensors
    assert tuple(result.shape) == shape
    torch.testing.assert_close(result, reference(operator, operands), rtol=1e-4, atol=1e-5)
    held = sum(tensor.bytes for name, tensor in single_operator(operator, sizes_of(operator)).tensors.items())
    assert built.bytes == held - (0 if into_given else 4 * math.prod(shape))


@pytest.mark.parametrize(("operator", "formats"), [(o, f) for o in OPERATORS for f in FORMATS if not why_not(o, f)])
def test_sets_have_memory_of_their_own(operator, formats):
    sizes = {"m": 32, "n": 16, "k": 16} if operator == "matmul" else sizes_of(operator)
    built = build(operator, sizes, formats, CPU)
    other = built.copy()
    assert not {t.data_ptr() for t in other} & {t.data_ptr() for t in built.tensors}
    assert [(t.shape, t.stride(), t.dtype) for t in other] == [(t.shape, t.stride(), t.dtype) for t in built.tensors]
    built.call(*other)


def test_eight_bit_products():
    a, b, out = (built := build("matmul", {"m": 32, "n": 16, "k": 48}, "int8", CPU)).tensors
    built.call(a, b, out)
    assert torch.equal(out, (a.long() @ b.long()).int())
    built = build("matmul", {"m": 32, "n": 16, "k": 48}, "fp8", CPU)
    a, b = built.tensors
    torch.testing.assert_close(built.call(a, b).float(), a.float() @ b.float(), rtol=0.02, atol=0.05)
    with pytest.raises(InputError, match="no batched matmul"):
        build("matmul", {"batch": 2, "m": 32, "n": 16, "k": 48}, "int8", CPU)


def test_what_pytorch_lacks_is_said(cpu):
    wanted, without = planned_kernels(cpu, ["matmul", "gelu"], ["fp32", "int8"], 10)
    assert {(kernel.operator, kernel.formats) for kernel in wanted} == {("matmul", "fp32"), ("matmul", "int8"), ("gelu", "fp32")}
    ((reason, left),) = without.items()
    assert reason == "PyTorch has matmuls only in this format"
    assert {(kernel.operator, kernel.formats) for kernel in left} == {("gelu", "int8")}


# --- a GPU that is simulated --------------------------------------------------------------------------------------------


class FakeCuda:
    """Kernels queued on a stream that works them off one by one, and a host that launches them, both on one clock."""

    def __init__(self, kernel_s, launch_s):
        self.kernel_s, self.launch_s = kernel_s, launch_s
        self.now = self.free_at = self.synchronized = 0.0
        self.spun_s = 0.0
        self.properties = SimpleNamespace(
            name="Fake", multi_processor_count=4, total_memory=1 << 30, L2_cache_size=1 << 20, clock_rate=1_000_000, uuid="",
        )  # fmt: skip

    def is_available(self):
        return True

    def current_device(self):
        return 0

    def get_device_properties(self, index):
        return self.properties

    def queue(self, seconds):
        self.free_at = max(self.free_at, self.now) + seconds
        return self.free_at

    def _sleep(self, cycles):
        self.spun_s += cycles / 1e9
        self.queue(cycles / 1e9)

    def Event(self, enable_timing):  # noqa: N802
        cuda = self

        class Event:
            def record(self):
                self.at = cuda.queue(0.0)

            def elapsed_time(self, end):
                assert cuda.synchronized >= end.at
                return (end.at - self.at) * 1e3

        assert enable_timing
        return Event()

    def synchronize(self):
        self.now = self.synchronized = max(self.now, self.free_at)

    def empty_cache(self):
        pass

    def run(self, calls):
        for _ in range(calls):
            self.now += self.launch_s
            self.queue(self.kernel_s)


@pytest.fixture
def fake_cuda(monkeypatch):
    """A GPU, and a host that lives on its clock."""

    def made(kernel_s, launch_s):
        cuda = FakeCuda(kernel_s, launch_s)
        monkeypatch.setattr(cuda_backend, "time", SimpleNamespace(perf_counter=lambda: cuda.now))
        return cuda

    return made


def test_short_kernels_are_timed_at_the_gpus_pace(fake_cuda):
    cuda = fake_cuda(kernel_s=4e-6, launch_s=25e-6)
    backend = CudaBackend(cuda)
    method = Method(warm_up_s=1e-3, run_s=2e-3, kernel_s=5e-3, least_runs=9, most_calls=32)
    sample = method.sample(lambda calls: backend.elapsed(cuda.run, calls))
    assert sample.time_s == pytest.approx(4e-6)
    assert cuda.spun_s > 0
    backend._queueing_s, backend._spin_hz = 0.0, 0.0  # without the spin kernel the host's launches are timed
    assert backend.elapsed(cuda.run, 32) / 32 > 24e-6


def test_long_kernels_are_not_slowed(fake_cuda):
    cuda = fake_cuda(kernel_s=2e-4, launch_s=5e-6)
    backend = CudaBackend(cuda)
    sample = Method(kernel_s=0.02, warm_up_s=1e-3).sample(lambda calls: backend.elapsed(cuda.run, calls))
    assert sample.time_s == pytest.approx(2e-4)


class FakeNvml:
    """A board that draws 100 W and counts energy; the names are those of the C library."""

    def __init__(self, cuda=None, *, counts=True):
        self.cuda, self.counts = cuda or FakeCuda(1e-5, 1e-6), counts

    def nvmlInit_v2(self):  # noqa: N802
        return 0

    def nvmlDeviceGetHandleByUUID(self, uuid, handle):  # noqa: N802
        return 0 if uuid.value == b"GPU-7" else 6

    def nvmlDeviceGetClockInfo(self, handle, kind, cell):  # noqa: N802
        cell._obj.value = 1410 if kind.value == 1 else 0
        return 0

    def nvmlDeviceGetTotalEnergyConsumption(self, handle, cell):  # noqa: N802
        cell._obj.value = round(self.cuda.now * 100e3)
        return 0 if self.counts else 3

    def nvmlDeviceGetEnforcedPowerLimit(self, handle, cell):  # noqa: N802
        cell._obj.value = 400_000
        return 0

    def nvmlSystemGetDriverVersion(self, text, length):  # noqa: N802
        ctypes.memmove(text, b"550.1\0", 6)
        return 0


def test_nvml_readings():
    library = FakeNvml()
    found = open_nvml("GPU-7", library)
    assert (found.clock_hz(), found.power_limit_w(), found.driver()) == (1.41e9, 400.0, "550.1")
    assert found.energy_j() >= 0
    assert open_nvml("GPU-8", library) is None
    silent = Nvml(SimpleNamespace(), ctypes.c_void_p())
    assert (silent.clock_hz(), silent.energy_j(), silent.driver()) == (None, None, "")


def test_energy_is_a_calls_where_the_gpu_was_busy(fake_cuda):
    cuda = fake_cuda(kernel_s=1e-3, launch_s=1e-6)
    backend = CudaBackend(cuda, Nvml(FakeNvml(cuda), ctypes.c_void_p()))
    assert backend.columns == ("clock_hz", "energy_j")
    found = backend.readings(cuda.run, 5, 1e-3)
    assert found["clock_hz"] == 1.41e9
    assert found["energy_j"] == pytest.approx(100 * 1e-3, rel=0.01)  # 100 W for a millisecond
    assert cuda.now > CudaBackend.energy_s
    idle = fake_cuda(kernel_s=1e-6, launch_s=1e-3)
    assert CudaBackend(idle, Nvml(FakeNvml(idle), ctypes.c_void_p())).readings(idle.run, 5, 1e-6)["energy_j"] is None


def test_columns_are_those_that_can_be_read():
    cuda = FakeCuda(1e-5, 1e-6)
    assert CudaBackend(cuda).columns == ()
    assert CudaBackend(cuda, Nvml(FakeNvml(counts=False), ctypes.c_void_p())).columns == ("clock_hz",)
    told = CudaBackend(cuda, Nvml(FakeNvml(), ctypes.c_void_p())).describe()
    assert (told["driver"], told["power limit"]) == ("550.1", "400 W")
    assert CudaBackend(cuda).describe()["clock"] == "not known"


def test_eight_bit_matmuls_of_a_gpu_are_aligned():
    found, _ = planned_kernels(CudaBackend(FakeCuda(1e-5, 1e-6)), ["matmul"], ["bf16", "fp8", "int8"], 40)
    for kernel in found:
        sides = [kernel.sizes[name] for name in "mnk"]
        if kernel.formats != "bf16":
            assert all(side % 16 == 0 for side in sides)
            assert sides[0] > 16
            assert kernel.sizes["batch"] == 1
    assert any(side % 16 for kernel in found if kernel.formats == "bf16" for side in kernel.sizes.values())


def test_no_gpu_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["measure", "--backend", "cuda", "--out", str(tmp_path / "m.csv")]) == 2
    error = capsys.readouterr().err
    assert error == "hwsim measure: error: --backend: PyTorch finds no CUDA GPU here; use --backend cpu\n"
    assert not (tmp_path / "m.csv").exists()


# --- a processor that is shared -----------------------------------------------------------------------------------------


def shared_processor(monkeypatch, *, wall_s, own_s, switches):
    """A run takes ``wall_s`` on the wall, of which its thread had ``own_s``, and that many involuntary switches."""
    state = {"wall": 0, "own": 0, "switches": 0}

    def run(calls):
        state["wall"] += round(wall_s * 1e9)
        state["own"] += round(own_s * 1e9)
        state["switches"] += switches

    clocks = SimpleNamespace(perf_counter_ns=lambda: state["wall"], thread_time_ns=lambda: state["own"])
    monkeypatch.setattr(cpu_backend, "time", clocks)
    monkeypatch.setattr(cpu_backend, "_switches", lambda: state["switches"])
    return run


@pytest.mark.parametrize(
    ("threads", "switches", "expected"),
    [(1, 0, 0.010), (1, 2, 0.004), (2, 0, 0.010), (2, 2, 0.010)],
)
def test_preempted_runs_have_the_time_of_their_thread(monkeypatch, threads, switches, expected):
    run = shared_processor(monkeypatch, wall_s=0.010, own_s=0.004, switches=switches)
    backend = CpuBackend(threads)
    assert backend.elapsed(run, 3) == pytest.approx(expected)
    assert backend.elapsed(run, 3) == pytest.approx(expected)
    assert backend.readings(run, 3, expected)["preempted_share"] == float(switches > 0)
    assert backend.readings(run, 3, expected)["preempted_share"] == 0  # counted anew for each kernel


# --- turns --------------------------------------------------------------------------------------------------------------


def test_operands_take_turns(cpu, tmp_path, monkeypatch):
    touched = []
    tensors = (torch.zeros(1024), torch.zeros(1024))
    made = Built(lambda *given: touched.append(tuple(t.data_ptr() for t in given)), tensors)
    monkeypatch.setattr(session, "build", lambda *arguments: made)
    monkeypatch.setattr(cpu, "elapsed", lambda run, calls: run(calls) or 1e-5 * calls)
    cpu.cache_bytes = 5 * made.bytes // COLD_FACTOR
    row = Session(cpu, tmp_path / "m.csv").row(Kernel("add", {"n": 1024}, "fp32"))
    assert row["rotated_bytes"] == 5 * made.bytes >= COLD_FACTOR * cpu.cache_bytes
    calls = touched[1:]  # one call goes before, to see that it can be made
    assert len(set(calls)) == 5
    assert all(calls[i] == calls[i - 5] for i in range(5, len(calls)))
    touched.clear()
    row = Session(cpu, tmp_path / "m.csv", hot=True).row(Kernel("add", {"n": 1024}, "fp32"))
    assert row["rotated_bytes"] == made.bytes
    assert len(set(touched)) == 1


@given(st.integers(1, 1 << 32), st.integers(1 << 10, 1 << 30))
@settings(max_examples=50, deadline=None)
def test_sets_fit_in_memory(set_bytes, cache_bytes):
    backend = SimpleNamespace(
        cache_bytes=cache_bytes, most_sets=4096, memory_bytes=1 << 32, describe=dict, name="x", method=QUICK
    )
    sets = Session(backend, Path("nowhere.csv")).sets_of(set_bytes)
    assert 1 <= sets <= 4096
    assert sets * set_bytes <= max(1 << 32, set_bytes)
    enough = sets * set_bytes >= COLD_FACTOR * cache_bytes
    assert enough or sets == 4096 or (sets + 1) * set_bytes > 1 << 32


# --- files --------------------------------------------------------------------------------------------------------------


def measured(path):
    with path.open() as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


@pytest.fixture
def first(cpu, tmp_path):
    """Six kernels, and the file of the first four."""
    wanted, _ = planned_kernels(cpu, ["matmul", "softmax", "gelu"], ["fp32"], 6, seed=3)
    path = tmp_path / "m.csv"
    Session(cpu, path, seed=3).measure(wanted[:4])
    return wanted, path


def test_resume_measures_what_is_missing(cpu, first):
    wanted, path = first
    before = path.read_text()
    outcome = Session(cpu, path, seed=3, resume=True).measure(wanted)
    assert (outcome.measured, outcome.before) == (2, 4)
    assert path.read_text().startswith(before)
    assert len(read_measurements(path)) == 6
    assert len({point.label for point in read_measurements(path)}) == 6


@pytest.mark.parametrize("cut", [1, 3, 20])
def test_half_a_row_is_measured_again(cpu, first, cut, capsys):
    wanted, path = first
    path.write_bytes(path.read_bytes()[:-cut])
    outcome = Session(cpu, path, seed=3, resume=True).measure(wanted)
    assert "half a row" in capsys.readouterr().err
    assert (outcome.measured, outcome.before) == (3, 3)
    assert {point.label for point in read_measurements(path)} == {label(kernel) for kernel in wanted}


def label(kernel):
    workload_order = [name for name in ("m", "n", "k", "batch") if name in kernel.sizes]
    return " ".join([kernel.operator, *(f"{name}={kernel.sizes[name]}" for name in workload_order)])


def test_a_killed_run_keeps_its_rows(cpu, tmp_path, monkeypatch):
    wanted, _ = planned_kernels(cpu, ["gelu"], ["fp32"], 5)
    work = Session(cpu, tmp_path / "m.csv")
    rows, plain = iter(range(5)), work.row

    def killed(kernel):
        if next(rows) == 3:
            raise KeyboardInterrupt
        return plain(kernel)

    monkeypatch.setattr(work, "row", killed)
    with pytest.raises(KeyboardInterrupt):
        work.measure(wanted)
    assert len(read_measurements(tmp_path / "m.csv")) == 3
    assert Session(cpu, tmp_path / "m.csv", resume=True).measure(wanted).measured == 2


def test_a_run_killed_at_the_start_resumes(cpu, tmp_path):
    wanted, _ = planned_kernels(cpu, ["gelu"], ["fp32"], 2)
    path = tmp_path / "m.csv"
    Session(cpu, path).measure([])
    for left in (path.read_text().splitlines()[0] + "\n", path.read_text()[:40], ""):
        path.write_text(left)
        assert Session(cpu, path, resume=True).measure(wanted).measured == 2
        assert len(read_measurements(path)) == 2


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda text: text.replace("threads: 1", "threads: 64"), "threads: the file has '64', this run '1'"),
        (lambda text: text.replace("operands: cold", "operands: warm"), "operands: the file has 'warm"),
        (lambda text: "a,b\n1,2\n", "backend: the file has None"),
        (lambda text: "not a file of ours\n", "backend: the file has None"),
        (lambda text: text + "gelu,1\n", "values in a row, got 2: ['gelu', '1']"),
    ],
)
def test_resume_refuses_another_setting(cpu, first, change, error):
    _, path = first
    path.write_text(change(path.read_text()))
    with pytest.raises(InputError, match="--resume: ") as caught:
        Session(cpu, path, seed=3, resume=True)
    assert error in str(caught.value)


def test_resume_needs_the_columns(cpu, first):
    _, path = first
    wanted, _ = planned_kernels(cpu, ["attention"], ["fp32"], 1)
    with pytest.raises(InputError, match="has no column 'heads'"):
        Session(cpu, path, seed=3, resume=True).measure(wanted)


def test_the_time_given_is_kept(cpu, tmp_path):
    wanted, _ = planned_kernels(cpu, ["gelu"], ["fp32"], 5)
    outcome = Session(cpu, tmp_path / "m.csv").measure(wanted, budget_s=0.0)
    assert (outcome.measured, outcome.unreached) == (0, 5)
    assert outcome.lines() == ["not reached in the time given: 5"]


def test_kernels_that_fail_are_reported(cpu, tmp_path, monkeypatch):
    def refuse(operator, *rest):
        if operator == "softmax":
            raise RuntimeError("no kernel for this\nstack")
        return build(operator, *rest)

    monkeypatch.setattr(session, "build", refuse)
    wanted, _ = planned_kernels(cpu, ["gelu", "softmax"], ["fp32"], 4)
    outcome = Session(cpu, tmp_path / "m.csv").measure(wanted)
    assert outcome.lines() == ["left out: 2 (softmax in fp32): no kernel for this"]
    assert outcome.measured == 2


def test_clock_only_where_the_system_tells(tmp_path, monkeypatch):
    monkeypatch.setattr(CpuBackend, "method", QUICK)
    root = tmp_path / "root"
    cpu = root / "sys/devices/system/cpu/cpu0"
    (cpu / "cache/index0").mkdir(parents=True)
    for name, text in {"type": "Unified", "level": "3", "size": "2048K"}.items():
        (cpu / "cache/index0" / name).write_text(text + "\n")
    (root / "proc").mkdir()
    (root / "proc/cpuinfo").write_text("model name\t: Some CPU\ncpu MHz\t: 2000.0\n\nmodel name\t: Other\n")
    plain = CpuBackend(1, root=root)
    assert "clock_hz" not in plain.columns
    assert plain.cache_bytes == 2 << 20
    assert plain.describe()["device"] == "Some CPU"
    assert plain.describe()["clock"] == "/proc/cpuinfo says 2000.0 MHz; not read while measuring"
    (cpu / "cpufreq").mkdir()
    (cpu / "cpufreq/scaling_cur_freq").write_text("3100000\n")
    told = CpuBackend(1, root=root)
    row = Session(told, tmp_path / "m.csv").row(Kernel("gelu", {"n": 64}, "fp32"))
    assert row["clock_hz"] == "3.1e+09"
    assert "energy_j" not in row
    assert "clock" not in told.describe()


# --- for real -----------------------------------------------------------------------------------------------------------


def test_the_command_measures(cpu, tmp_path, capsys):
    path = tmp_path / "cpu.csv"
    words = ["measure", "--backend", "cpu", "--out", str(path), "--threads", "1", "--shapes", "14", "--formats", "fp32,bf16,int8"]
    assert main(words) == 0
    shown = capsys.readouterr()
    points = read_measurements(path)
    assert f"{path}: {len(points)} kernels measured\n" == shown.out
    assert "(convolution, softmax, layer_norm, gelu, attention in int8): PyTorch has matmuls only" in shown.err
    assert {point.row["operator"] for point in points} == {
        "matmul", "convolution", "softmax", "layer_norm", "gelu", "attention",
    }  # fmt: skip
    header = measured(path)[0]
    assert {"time_s", "std_s", "min_s", "repetitions", "calls", "rotated_bytes"} <= set(header)
    assert "energy_j" not in header
    for point in points:
        assert 0 < float(point.row["min_s"]) <= point.measured["time_s"] < 1
        assert int(point.row["repetitions"]) >= QUICK.least_runs
    text = path.read_text()
    for told in ("backend: cpu", f"torch: {torch.__version__}", "threads: 1", "operands: cold", "method: warm-up", "date: 20"):
        assert f"# {told}" in text
    assert main(words) == 2
    assert "exists; go on with it by --resume" in capsys.readouterr().err
    assert main([*words, "--resume"]) == 0
    assert f"0 kernels measured, {len(points)} were there" in capsys.readouterr().out


def test_times_agree_with_pytorchs_own_timer(tmp_path):
    """A matmul that stays in the cache; the band is wide because the tests share their processor."""
    from torch.utils.benchmark import Timer

    backend = CpuBackend(1)
    kernel = Kernel("matmul", {"m": 256, "n": 256, "k": 256}, "fp32")
    a, b, out = (torch.randn(256, 256) for _ in range(3))
    with backend.ready():
        ours = [float(Session(backend, tmp_path / "m.csv", hot=True).row(kernel)["min_s"]) for _ in range(2)]
        timer = Timer("torch.mm(a, b, out=out)", globals={"torch": torch, "a": a, "b": b, "out": out}, num_threads=1)
        theirs = [min(timer.blocked_autorange(min_run_time=0.15).times) for _ in range(2)]
    assert min(ours) == pytest.approx(min(theirs), rel=0.5)


def test_settings_are_given_back(cpu):
    before = torch.get_num_threads()
    with CpuBackend(before + 1).ready():
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--shapes", "0"], "--shapes: unknown name '0'"),
        (["--shapes", "hugee"], "--shapes: unknown name 'hugee'"),
        (["--operators", "matmul,gemm"], "--operators: unknown name 'gemm'"),
        (["--operators", ","], "--operators: expected some of matmul"),
        (["--formats", "int4"], "--formats: unknown name 'int4'"),
        (["--formats", "int8", "--operators", "gelu"], "--formats: nothing to measure: PyTorch has matmuls only in this format"),
        (["--seconds", "0"], "--seconds: expected a number above 0, got 0"),
        (["--seconds", "nan"], "--seconds: expected a number above 0, got nan"),
        (["--threads", "0"], "--threads: expected an integer ≥ 1, got 0"),
        (["--seed", "-1"], "--seed: expected an integer ≥ 0, got -1"),
        (["--out", "m.txt"], "--out: expected a .csv file, got 'm.txt'"),
        (["--out", "nowhere/m.csv"], "--out: no folder 'nowhere'"),
        (["--shapes", "2", "--operators", "gelu,relu,add"], "at least one for each of 3 operators, got 2"),
    ],
)
def test_bad_options_are_one_line(tmp_path, monkeypatch, capsys, words, error):
    monkeypatch.chdir(tmp_path)
    assert main(["measure", "--backend", "cpu", "--out", "m.csv", *words]) == 2
    line = capsys.readouterr().err
    assert error in line
    assert line.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_shipped_set_is_what_the_command_writes():
    from importlib import resources

    path = Path(str(resources.files("hwsim") / "data/measured/cpu_epyc_fp32.csv"))
    points = read_measurements(path)
    assert len(points) >= 150
    assert path.read_text().startswith("# backend: cpu\n")
    spread = [float(p.row["std_s"]) / p.measured["time_s"] for p in points]
    above_fastest = [p.measured["time_s"] / float(p.row["min_s"]) for p in points]
    assert statistics.median(above_fastest) < 1.2
    assert all(math.isfinite(value) for value in spread)
