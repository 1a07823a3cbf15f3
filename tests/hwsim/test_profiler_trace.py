"""Traces of ``torch.profiler`` as workloads with times: against the same program traced by ``hwsim.trace``, the profiler's own
table, and traces put together by hand."""

import gzip
import json
from collections import Counter

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

import hwsim
from hwsim.cli import main
from hwsim.registry import read_spec, spec_file
from hwsim.tracing._profiler_events import busy_us, read_events
from hwsim.tracing.profiler import load_profile, measured_points


class Network(nn.Module):
    """A CNN, an MLP and attention."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 8, 3, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, groups=8, bias=False)
        self.batch_norm = nn.BatchNorm2d(8)
        self.embedding = nn.Embedding(10, 32)
        self.hidden = nn.Linear(8, 32)
        self.layer_norm = nn.LayerNorm(32)
        self.attention = nn.MultiheadAttention(32, 4, batch_first=True)

    def forward(self, x, tokens):
        h = torch.relu(self.batch_norm(self.depthwise(self.convolution(x))))
        h = nn.functional.adaptive_avg_pool2d(nn.functional.max_pool2d(h, 2), 1).flatten(1)
        h = nn.functional.gelu(self.layer_norm(self.hidden(h)))[:, None] * 0.5 + self.embedding(tokens)
        q = h.view(h.shape[0], -1, 4, 8).transpose(1, 2)
        h = torch.cat([h, nn.functional.scaled_dot_product_attention(q, q, q, is_causal=True).sum(1).repeat(1, 1, 4)], 1)
        h = h + self.attention(h, h, h, need_weights=True)[0]
        return torch.softmax(torch.einsum("bij,bkj->bik", h, h), -1) / 3


INPUTS = (torch.randn(4, 3, 32, 32), torch.randint(0, 10, (4, 6)))


def profiled(run, path, **options):
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        run()
        with profile(activities=[ProfilerActivity.CPU], **{"record_shapes": True, **options}) as found:
            run()
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    found.export_chrome_trace(str(path))
    return found


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return Network().eval()


@pytest.fixture(scope="module")
def inference(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("trace") / "run.json"

    @torch.no_grad()
    def run():
        network(*INPUTS)

    return path, profiled(run, path)


def described(workload):
    """How often each operator occurs: kind, operation, MACs, bytes read and written, phase."""
    tensors = workload.tensors
    return Counter(
        (
            op.kind,
            getattr(op, "operation", ""),
            op.macs,
            sum(tensors[t].bytes for t in op.inputs),
            sum(tensors[t].bytes for t in op.outputs),
            op.phase,
        )
        for op in workload.ops
    )


def test_operators_are_those_of_the_tracer(network, inference):
    found = load_profile(inference[0])
    assert described(found.workload) == described(hwsim.trace(network, *INPUTS))
    assert found.workload.macs > 0


def test_times_are_the_profilers_own(inference):
    path, profiler = inference
    found = load_profile(path)
    table = profiler.key_averages()
    assert found.total_s == pytest.approx(sum(row.self_cpu_time_total for row in table) * 1e-6, rel=1e-3)
    assert sum(c.time_s for c in found.calls) + sum(s.time_s for s in found.skipped) == pytest.approx(found.total_s, rel=1e-6)
    assert all(seconds > 0 for seconds in found.measured.values())
    assert sum(call.time_s for call in found.calls) > 0.6 * found.total_s
    convolutions = sum(row.cpu_time_total for row in table if row.key == "aten::conv2d") * 1e-6
    ours = sum(found.measured[op.name] for op in found.workload.ops if op.kind == "convolution")
    assert ours == pytest.approx(convolutions, rel=1e-3)


def test_training_has_its_phases_and_modules(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, foreach=False)
    x = torch.randn(2, 3, 8, 8)

    def run():
        optimizer.zero_grad(set_to_none=True)
        model(x).sum().backward()
        optimizer.step()

    profiled(run, tmp_path / "train.json", with_stack=True)
    found = load_profile(tmp_path / "train.json")
    reference = hwsim.trace(
        model, x, mode="training", optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1, foreach=False)
    )
    # The first gradient, a one, is made before any node of autograd runs: the trace has no phase for it.
    there, here = (
        Counter(key[0] for key in described(w).elements() if key[5] == "backward") for w in (reference, found.workload)
    )
    there.subtract({"data_movement": 1})
    assert +there == here
    assert sum(op.phase == "update" for op in found.workload.ops) == 4  # one step for each parameter
    backward = [op for op in found.workload.ops if op.phase == "backward" and op.is_matrix]
    assert {op.module for op in backward} == {"Sequential_0.Conv2d_0", "Sequential_0.Linear_0"}
    matrix = [key for key in described(reference) if key[2]]
    assert {key: described(found.workload)[key] for key in matrix} == {key: described(reference)[key] for key in matrix}
    together = [call for call in found.calls if call.source == "aten::convolution_backward"]
    assert [len(call.ops) for call in together] == [2]  # weight and bias: one call, one time
    assert not set(together[0].ops) & set(found.measured)


def test_a_composite_of_unknown_kernels_has_one_time(tmp_path):
    lstm = nn.LSTM(8, 8).eval()

    @torch.no_grad()
    def run():
        lstm(torch.ones(4, 1, 8))

    profiled(run, tmp_path / "lstm.json")
    found = load_profile(tmp_path / "lstm.json")
    (call,) = [call for call in found.calls if call.source == "aten::lstm"]
    ops = [op for op in found.workload.ops if op.name in call.ops]
    assert sum(op.macs for op in ops) == 4 * 2 * 8 * 32
    (point,) = [p for p in measured_points(tmp_path / "lstm.json") if p.label == call.ops[0]]
    assert point.measured["time_s"] == call.time_s
    assert len(point.workload.ops) == len(ops)


def test_what_a_trace_does_not_tell_is_listed(tmp_path, capsys):
    x, index = torch.randn(64, 64), torch.tensor([0, 1])

    def run():
        x[index]
        torch.stack([x] * 40)
        x[x > 0]
        x @ x

    profiled(run, tmp_path / "odd.json")
    found = load_profile(tmp_path / "odd.json")
    reasons = {part.name: part.reason for part in found.skipped}
    assert "'indices'" in reasons["aten::index"]
    assert reasons["aten::stack"] == "the trace leaves out the sizes of a list of more than 30 tensors"
    assert reasons["aten::nonzero"] == "the size of its result depends on values"
    assert any(op.kind == "matmul" for op in found.workload.ops)
    measured_points(tmp_path / "odd.json")
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    share = 100 * sum(part.time_s for part in found.skipped) / found.total_s
    assert f"{share:.1f} % of the time is not compared" in line
    assert "aten::index" in line


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16"])
def test_formats_are_those_of_the_run(tmp_path, dtype):
    kind = getattr(torch, dtype)
    layer = nn.Linear(32, 16).to(kind)

    @torch.no_grad()
    def run():
        layer(torch.ones(8, 32, dtype=kind)).float()

    profiled(run, tmp_path / "formats.json")
    found = load_profile(tmp_path / "formats.json").workload
    short = {"float64": "fp64", "bfloat16": "bf16", "float16": "fp16"}[dtype]
    (matmul,) = [op for op in found.ops if op.kind == "matmul"]
    assert matmul.formats.operands == (short,) * 3
    assert matmul.formats.accumulator == ("fp64" if short == "fp64" else "fp32")
    (cast,) = [op for op in found.ops if op.kind == "data_movement" and op.operation == "cast"]
    assert [found.tensors[t].format for t in (*cast.inputs, *cast.outputs)] == [short, "fp32"]


def test_gzip_is_read(inference, tmp_path):
    zipped = tmp_path / "run.json.gz"
    zipped.write_bytes(gzip.compress(inference[0].read_bytes()))
    assert load_profile(zipped) == load_profile(inference[0])


# --- a GPU's trace ------------------------------------------------------------------------------------------------------


def call(name, ts, dur, dims=(), **args):
    shaped = {
        "Input Dims": [list(d) for d in dims],
        "Input type": ["float"] * len(dims),
        "Concrete Inputs": [""] * len(dims),
    }
    return {"ph": "X", "cat": "cpu_op", "name": name, "pid": 1, "tid": 1, "ts": ts, "dur": dur, "args": {**shaped, **args}}


def launch(ts, correlation):
    args = {"correlation": correlation}
    return {"ph": "X", "cat": "cuda_runtime", "name": "cudaLaunchKernel", "pid": 1, "tid": 1, "ts": ts, "dur": 1, "args": args}


def kernel(ts, dur, name="gemm", cat="kernel", **args):
    return {"ph": "X", "cat": cat, "name": name, "pid": 0, "tid": 7, "ts": ts, "dur": dur, "args": args}


SQUARE = ([64, 64], [64, 64])
GPU = [
    call("aten::mm", 0, 20, SQUARE),
    launch(5, 1),
    launch(8, 2),
    kernel(100, 30, correlation=1),
    kernel(120, 20, "reduce", correlation=2),  # overlaps the one before by 10 µs
    call("aten::add", 30, 10, SQUARE, **{"External id": 9}),
    kernel(150, 6, "add", **{"External id": 9}),  # its launch was not recorded
    call("aten::mul", 50, 10, SQUARE),  # ran on the host
    call("aten::copy_", 60, 10, ([64, 64], [64, 64])),
    launch(62, 3),
    kernel(200, 40, "Memcpy HtoD (Pinned -> Device)", "gpu_memcpy", correlation=3),
    kernel(300, 11, "graph"),  # belongs to nothing
]
GPU[5]["args"] |= {"Input Dims": [[64, 64], [64, 64], []], "Input type": ["float", "float", "Scalar"]}
GPU[5]["args"]["Concrete Inputs"] = ["", "", "1"]
GPU[8]["args"] |= {"Input Dims": [[64, 64], [64, 64], []], "Input type": ["float", "float", "Scalar"]}
GPU[8]["args"]["Concrete Inputs"] = ["", "", "False"]


def written(path, events):
    path.write_text(json.dumps({"schemaVersion": 1, "traceEvents": events}))
    return path


def test_a_gpus_times_are_those_of_the_kernels(tmp_path):
    found = load_profile(written(tmp_path / "gpu.json", GPU))
    assert found.on_gpu
    times = {call.source: call.time_s for call in found.calls}
    assert times == {"aten::mm": pytest.approx(40e-6), "aten::add": pytest.approx(6e-6)}
    left = {part.name: (part.reason, part.time_s) for part in found.skipped}
    assert left["aten::copy_"] == ("copies between host and GPU", pytest.approx(40e-6))
    assert left["host work"] == ("ran no kernel on the GPU", 0)
    assert left["kernels"][1] == pytest.approx(11e-6)
    assert found.total_s == pytest.approx((40 + 6 + 40 + 11) * 1e-6)


@pytest.mark.parametrize(
    ("intervals", "length"),
    [([], 0), ([(0, 2), (1, 3)], 3), ([(5, 6), (0, 10)], 10), ([(0, 1), (1, 2), (4, 5)], 3)],
)
def test_overlapping_kernels_count_once(intervals, length):
    assert busy_us(intervals) == length


def test_calls_nest_by_thread(tmp_path):
    events = [call("aten::mm", 0, 10, SQUARE), call("aten::mm", 2, 4, SQUARE), call("aten::mm", 10, 5, SQUARE)]
    other = call("aten::mm", 3, 2, SQUARE)
    other["tid"] = 2
    roots = read_events(written(tmp_path / "t.json", [*events, other])).roots
    assert [(root.start_us, len(root.children)) for root in roots] == [(0, 1), (3, 0), (10, 0)]


# --- in the scoreboard --------------------------------------------------------------------------------------------------


@pytest.fixture
def machine(tmp_path):
    """A systolic array that multiplies in FP32."""
    import yaml

    data = read_spec(spec_file("tpu_v1"))
    data["mac_formats"] = {"fp32": {"cycles_per_mac": 1, "energy_pj": 4.6}}
    data["default_formats"] = {"weight": "fp32", "activation": "fp32", "accumulator": "fp32"}
    path = tmp_path / "fp32.yaml"
    path.write_text(yaml.safe_dump({**data, "name": "fp32_array"}))
    return path


def test_predicted_beside_measured(inference, machine, capsys):
    assert main(["validate", "--trace", str(inference[0]), "--device", str(machine), "--json"]) == 0
    whole = json.loads(capsys.readouterr().out)["targets"][0]
    found = load_profile(inference[0])
    assert {entry["label"]: entry["measured"] for entry in whole["data"]} == found.measured
    assert whole["points"] == len(found.calls)
    assert all(entry["modelled"] > 0 for entry in whole["data"])
    assert main(["validate", "--trace", str(inference[0]), "--device", str(machine)]) == 0
    assert "run/time/convolution" in capsys.readouterr().out


def test_a_points_prediction_is_that_of_its_operator_alone(inference, machine):
    device = hwsim.get_device(machine)
    for point in measured_points(inference[0]):
        (op,) = point.workload.ops
        report = device.simulate(point.workload)
        assert sum(cost.macs for cost in report.ops) == op.macs
        assert point.row == {"operator": op.kind}


# --- bad files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"{", "not valid JSON"),
        (b"\x1f\x8b\x00", "cannot be read"),
        (b'{"schema": "hwsim.workload"}', "not a torch.profiler trace: expected a list 'traceEvents'"),
        (b'{"traceEvents": []}', "holds no operators"),
        (json.dumps({"traceEvents": [call("aten::mm", 0, 1)]}).encode(), "profile with record_shapes=True"),
        (b'{"traceEvents": [{"ph": "X", "cat": "cpu_op", "name": "aten::mm", "ts": "0", "dur": 1}]}', "expected numbers"),
        (
            json.dumps({"traceEvents": [call("my::kernel", 0, 1, SQUARE)]}).encode(),
            "no operator that can be replayed (my::kernel",
        ),
        (None, "cannot be read"),
    ],
)
def test_bad_traces(tmp_path, capsys, content, error):
    path = tmp_path / "bad.json"
    if content is not None:
        path.write_bytes(content)
    assert main(["validate", "--trace", str(path), "--device", "tpu_v1"]) == 2
    line = capsys.readouterr().err
    assert error in line
    assert line.count("\n") == 1


def shaped(**args):
    return call("aten::mm", 0, 1, SQUARE, **args)


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (shaped() | {"args": []}, "args: expected an object of names and values, got []"),
        (shaped() | {"args": "x"}, "args: expected an object of names and values, got 'x'"),
        (launch(0, [1]), "correlation: expected an integer or text, got [1]"),
        (kernel(0, 1, correlation={}), "correlation: expected an integer or text, got {}"),
        (kernel(0, 1, **{"External id": [1]}), "External id: expected an integer or text, got [1]"),
        (shaped(**{"External id": None}), "External id: expected an integer or text, got None"),
        (shaped(**{"Sequence number": {"a": 1}}), "Sequence number: expected an integer or text, got {'a': 1}"),
        (shaped() | {"pid": [1]}, "pid: expected an integer or text, got [1]"),
        (shaped() | {"tid": {}}, "tid: expected an integer or text, got {}"),
        (shaped() | {"cat": ["cpu_op"]}, "cat: expected text, got ['cpu_op']"),
        (shaped() | {"name": 5}, "name: expected text, got 5"),
        (shaped() | {"name": "a::\ud800"}, "name: expected text that is valid Unicode, got 'a::\\ud800'"),
        (shaped(**{"Module Hierarchy": [1]}), "Module Hierarchy: expected text, got [1]"),
        (shaped(**{"Input Dims": 5}), "Input Dims: expected a list with a list of integers ≥ 0 an argument, got 5"),
        (shaped(**{"Input Dims": "[[2]]"}), "Input Dims: expected a list with a list of integers ≥ 0 an argument, got '[[2]]'"),
        (shaped(**{"Input Dims": [5, 5]}), "Input Dims: expected a list with a list of integers ≥ 0 an argument, got [5, 5]"),
        (shaped(**{"Input Dims": [["a"], [2]]}), "Input Dims[0]: expected integers ≥ 0, got ['a']"),
        (shaped(**{"Input Dims": [[2], [2, -3]]}), "Input Dims[1]: expected integers ≥ 0, got [2, -3]"),
        (shaped(**{"Input Dims": [[2], [True]]}), "Input Dims[1]: expected integers ≥ 0, got [True]"),
        (shaped(**{"Input Dims": [[2], [[2]]]}), "Input Dims[1]: expected integers ≥ 0, got [[2]]"),
        (
            shaped(**{"Input type": ["TensorList", "float"]}),
            "Input Dims[0]: expected a list of integers ≥ 0 for each tensor of the list, got [64, 64]",
        ),
        (shaped(**{"Input Strides": [[1.5, 1], [1, 1]]}), "Input Strides[0]: expected integers, got [1.5, 1]"),
        (shaped(**{"Input type": 5}), "Input type: expected a list of texts, one an argument, got 5"),
        (
            shaped(**{"Input type": [["float"], "float"]}),
            "Input type: expected a list of texts, one an argument, got [['float'], ",
        ),
        (shaped(**{"Concrete Inputs": 7}), "Concrete Inputs: expected a list of texts, one an argument, got 7"),
        (shaped(**{"Concrete Inputs": ["", 7]}), "Concrete Inputs: expected a list of texts, one an argument, got ['', 7]"),
        (shaped() | {"ts": 10**400}, "ts: expected microseconds from -2^63 to 2^63, got 1000"),
        (shaped() | {"ts": float("inf")}, "ts: expected microseconds from -2^63 to 2^63, got inf"),
        (shaped() | {"ts": float("nan")}, "ts: expected microseconds from -2^63 to 2^63, got nan"),
        (shaped() | {"ts": True}, "ts: expected numbers for 'ts' and 'dur', got True"),
        (shaped() | {"dur": -5}, "dur: expected microseconds from 0 to 2^63, got -5"),
        (shaped() | {"dur": float("inf")}, "dur: expected microseconds from 0 to 2^63, got inf"),
        (shaped() | {"dur": None}, "dur: expected numbers for 'ts' and 'dur', got None"),
        (kernel(0, -1), "dur: expected microseconds from 0 to 2^63, got -1"),
    ],
)
def test_a_malformed_event_is_named(tmp_path, capsys, event, message):
    path = written(tmp_path / "bad.json", [call("aten::mm", 10, 5, SQUARE), {"ph": "i"}, event])
    assert main(["validate", "--trace", str(path), "--device", "tpu_v1"]) == 2
    line = capsys.readouterr().err
    assert f"{path}: event 2 ({event['name']!r}): {message}" in line
    assert line.count("\n") == 1
    assert len(line) < 600


def test_endless_nesting_is_one_line(tmp_path, capsys):
    path = tmp_path / "deep.json"
    path.write_text('{"traceEvents": ' + "[" * 200_000 + "]" * 200_000 + "}")
    assert main(["validate", "--trace", str(path), "--device", "tpu_v1"]) == 2
    line = capsys.readouterr().err
    assert f"{path}: not a torch.profiler trace: its lists and objects are nested too deeply" in line
    assert line.count("\n") == 1
    written(path, [call("aten::mm", i, 10**6 - 2 * i, SQUARE) for i in range(2000)])
    assert main(["validate", "--trace", str(path), "--device", "tpu_v1"]) == 2
    line = capsys.readouterr().err
    assert f"{path}: event 201 ('aten::mm'): ts: expected at most 200 operators around it" in line
    assert line.count("\n") == 1
    assert len(read_events(written(path, [call("aten::mm", i, 10**6 - 2 * i, SQUARE) for i in range(200)])).roots) == 1


def test_what_an_event_may_leave_out_is_no_error(tmp_path):
    bare = {key: value for key, value in call("aten::mm", -3.5, 2, SQUARE).items() if key not in ("pid", "tid")}
    bare["args"]["Input Strides"] = [[64, 1], [1, 64]]
    other = {"ph": "X", "cat": "Trace", "name": "Spans", "pid": "Spans", "tid": "PyTorch", "ts": 0, "dur": 0, "args": None}
    joined = call("aten::cat", 5, 1, ([], []), **{"Concrete Inputs": ["", "0"], "Input type": ["TensorList", "Scalar"]})
    joined["args"]["Input Dims"] = [[[64, 64], [64, 64]], []]
    found = load_profile(written(tmp_path / "bare.json", [bare, other, joined]))
    assert {call.source: call.time_s for call in found.calls} == {
        "aten::mm": pytest.approx(2e-6),
        "aten::cat": pytest.approx(1e-6),
    }
