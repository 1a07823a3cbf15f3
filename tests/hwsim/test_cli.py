"""The command line: what it prints and writes, and one clear line for whatever it is given wrongly."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hwsim import progress, zoo
from hwsim.cli import main
from hwsim.registry import device_classes, device_names, get_device
from hwsim.workload import load_json
from numerics import format_names

SPIKING = Path(__file__).parents[1] / "neuromorphic" / "data" / "lif.nir"

FILES = {
    "broken.onnx": "this is no protobuf",
    "empty.onnx": "",
    "broken.json": "{",
    "broken.csv": "a, b\n1, 2\n",
    "negative.csv": "Layer, M, N, K,\nfc, 4, -5, 6,\n",
    "gemm.csv": "Layer, M, N, K,\nfirst, 4, 5, 6,\nsecond, 7, 8, 9,\n",
    "occupied": "a file where a folder should go",
    "mhz.yaml": "kind: systolic_array\nname: mine\nclock_mhz: 700\n",
    "list.yaml": "- 1\n",
    "sample_models.py": """
import torch
from torch import nn


class Raises(nn.Module):
    def forward(self, x):
        print("chatter")
        raise RuntimeError("on\\npurpose")


class Branches(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x

def linear(batch=2):
    print("chatter")
    return nn.Linear(4, 8), torch.ones(batch, 4)


def raises():
    return Raises(), torch.ones(2, 4)


def branches():
    return Branches(), torch.ones(2, 4)


def mismatched():
    return nn.Linear(3, 3), torch.ones(2, 4)


def fails():
    raise ValueError("two\\nlines")


def number():
    return 3
""",
    "broken_module.py": "import does_not_exist\n",
}
TOTALS = ("time_s", "cycles", "macs", "energy_j", "bytes_offchip", "utilization")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with a file of each kind; commands run in it."""
    folder = tmp_path_factory.mktemp("cli")
    for name, content in FILES.items():
        (folder / name).write_text(content)
    mine = get_device("tpu_v1").spec.model_dump(mode="json")
    (folder / "mine.yaml").write_text(json.dumps({**mine, "name": "mine", "clock_hz": 1.4e9}))
    (folder / "text.yaml").write_text(json.dumps({**mine, "clock_hz": "700 MHz"}))
    (folder / "short.yaml").write_text(json.dumps({key: mine[key] for key in mine if key != "array"}))
    return folder


@pytest.fixture
def run(files, monkeypatch, capsys):
    """Run a command; (exit code, stdout, stderr)."""

    def call(*words):
        monkeypatch.chdir(files)
        code = main([str(word) for word in words])
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def report(run):
    """Run a command with --json; the data it prints."""

    def call(*words):
        code, out, _ = run(*words, "--json")
        assert code == 0
        return json.loads(out)  # which fails if anything but JSON is there

    return call


# --- run ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "macs"),
    [
        ("mlp0", 4_000_000_000),
        ("lstm_small", None),
        ("gemm.csv", 4 * 5 * 6 + 7 * 8 * 9),
        ("sample_models:linear", 2 * 4 * 8),
    ],
)
def test_run_reports_any_kind_of_model(report, model, macs):
    data = report("run", model, "--device", "tpu_v1")
    assert {"device", "workload", "fidelity", "totals", "ops"} <= set(data)
    assert (data["device"], data["fidelity"]) == ("tpu_v1", "tile")
    assert set(TOTALS) <= set(data["totals"])
    assert macs is None or data["totals"]["macs"] == macs
    for op in data["ops"]:
        assert {"name", "kind", "compute_cycles", "stall_cycles", *TOTALS} <= set(op)
    for key in ("time_s", "cycles", "macs", "energy_j", "bytes_offchip"):
        assert sum(op[key] for op in data["ops"]) == pytest.approx(data["totals"][key], rel=1e-9)
    assert 0 < data["totals"]["utilization"] <= 1


def test_run_prints_a_table(run):
    code, out, err = run("run", "mlp0", "--device", "tpu_v1")
    assert (code, err) == (0, "")
    assert "layers.0" in out
    assert "tpu_v1" in out
    assert len(out.splitlines()) > 12  # nine operators and a frame


def test_run_shows_the_slowest_first_operators_asked_for(run):
    _, few, _ = run("run", "lstm_small", "--device", "tpu_v1", "--top", "3")
    _, all_of_them, _ = run("run", "lstm_small", "--device", "tpu_v1", "--top", "0")
    assert len(all_of_them.splitlines()) - len(few.splitlines()) > 400


def test_sizes_mode_phase_and_fidelity_reach_the_workload(report):
    assert report("run", "mlp0", "--device", "tpu_v1", "--batch", "10")["totals"]["macs"] == 200_000_000
    long = report("run", "lstm_small", "--device", "tpu_v1", "--seq-len", "40")
    assert long["totals"]["macs"] == 2 * report("run", "lstm_small", "--device", "tpu_v1")["totals"]["macs"]
    trained = report("run", "sample_models:linear", "--device", "tpu_v1", "--mode", "training")
    assert {op["phase"] for op in trained["ops"]} == {"forward", "backward", "update"}
    decode = ("run", "gpt2", "--device", "tpu_v1", "--phase", "decode", "--kv-len", "10", "--fidelity", "analytic")
    assert report(*decode)["fidelity"] == "analytic"
    assert report(*decode)["totals"]["macs"] == 123_532_032 + 12 * 2 * 768 * 11


def test_formats_reach_the_workload(report):
    data = report("run", "mlp0", "--device", "tpu_v1", "--formats", "int16")
    assert {op["format"] for op in data["ops"] if op["kind"] == "matmul"} == {"int16→int32"}


@pytest.mark.parametrize(
    ("words", "path", "expected"),
    [
        (("--set", "rows=128"), ("array", "rows"), 128),
        (("--set", "array.dataflow=os"), ("array", "dataflow"), "output_stationary"),
        (("--set", "off_chip.bandwidth_bytes_per_s=68e9"), ("memory", "off_chip", "bandwidth_bytes_per_s"), 68e9),
        (("--set", "rows=64", "--set", "columns=32"), ("array", "columns"), 32),
    ],
)
def test_set_changes_the_machine(report, words, path, expected):
    data = report("run", "mlp0", "--device", "tpu_v1", *words)
    value = data["spec"]
    for part in path:
        value = value[part]
    assert value == expected
    assert data["totals"]["cycles"] != report("run", "mlp0", "--device", "tpu_v1")["totals"]["cycles"]


def test_a_spec_of_ones_own_runs(report):
    mine = report("run", "gemm.csv", "--device", "mine.yaml", "--fidelity", "analytic")
    theirs = report("run", "gemm.csv", "--device", "tpu_v1", "--fidelity", "analytic")
    assert mine["device"] == "mine"
    assert mine["totals"]["cycles"] == theirs["totals"]["cycles"]
    assert mine["totals"]["time_s"] == pytest.approx(theirs["totals"]["time_s"] / 2)


def test_what_a_model_prints_is_kept_from_the_json(run):
    code, out, err = run("run", "sample_models:linear", "--device", "tpu_v1", "--json")
    assert code == 0
    assert json.loads(out)["totals"]["macs"] == 64
    assert err == "chatter\n"


def test_out_writes_the_report(run, tmp_path):
    code, out, _ = run("run", "mlp0", "--device", "tpu_v1", "--out", tmp_path / "new" / "folder")
    assert code == 0
    written = {path.name for path in (tmp_path / "new" / "folder").iterdir()}
    assert {"report.json", "report.csv", "report.html", "timeline.json", "time.png", "energy.png"} <= written
    assert all(name in out for name in written)
    data = json.loads((tmp_path / "new" / "folder" / "report.json").read_text())
    rows = list(csv.DictReader(io.StringIO((tmp_path / "new" / "folder" / "report.csv").read_text())))
    assert [row["name"] for row in rows] == [op["name"] for op in data["ops"]]


def test_out_and_json_go_together(report, tmp_path):
    data = report("run", "gemm.csv", "--device", "tpu_v1", "--out", tmp_path)
    assert json.loads((tmp_path / "report.json").read_text()) == data


# --- the other commands -------------------------------------------------------------------------------------


def test_compare_reports_each_device(report, run, tmp_path):
    both = ("compare", "mlp0", "--device", "tpu_v1", "--device", "mine.yaml")
    data = report(*both, "--out", tmp_path)
    assert [r["device"] for r in data["reports"]] == ["tpu_v1", "mine"]
    alone = report("run", "mlp0", "--device", "tpu_v1")
    assert data["reports"][0]["totals"] == alone["totals"]
    assert {"comparison.json", "comparison.csv", "comparison.html", "comparison.png"} <= {
        path.name for path in tmp_path.iterdir()
    }
    code, out, err = run(*both)
    assert (code, err) == (0, "")
    assert "tpu_v1" in out
    assert "mine" in out


def test_devices_lists_shows_and_gives_templates(run, report, files):
    _, listed, _ = run("devices")
    assert [line.split()[0] for line in listed.splitlines()] == device_names()
    assert [row["name"] for row in report("devices")] == device_names()
    _, shown, _ = run("devices", "tpu_v1")
    assert "clock_hz: 700e6" in shown
    assert report("devices", "tpu_v1")["clock_hz"] == 700e6
    for kind, device in device_classes().items():
        code, text, _ = run("devices", "--template", kind)
        (files / "template.yaml").write_text(text)
        assert code == 0
        if device.event_driven:
            found = report("run", str(SPIKING), "--device", "template.yaml", "--steps", "5")
            assert [op["kind"] for op in found["ops"]] == ["spiking_layer"]
        else:
            assert report("run", "gemm.csv", "--device", "template.yaml")["totals"]["macs"] == 624


def test_spiking_networks_take_events_steps_and_rates(run, report):
    given = ("run", str(SPIKING), "--device", "loihi", "--steps", "20")
    quiet, busy = (report(*given, "--rate", rate)["totals"]["energy_j"] for rate in ("0", "0.9"))
    assert busy > quiet
    assert report(*given, "--seed", "1") == report(*given, "--seed", "1")
    assert report(*given, "--seed", "1") != report(*given, "--seed", "2")
    for options, text in (
        (("--rate", "2"), "rate: expected at most 1 spike a neuron and step, got 2"),
        (("--input", "none.npz"), "none.npz: no such file"),
        (("--dt", "-1"), "dt_s: expected a finite number > 0, got -1"),
    ):
        code, _, errors = run(*given, *options)
        assert code == 2
        assert errors.rstrip().splitlines()[-1] == f"hwsim run: error: {text}" or text in errors
    code, _, errors = run("run", "gemm.csv", "--device", "tpu_v1", "--steps", "3")
    assert (code, "steps: a .csv file leaves no such choice" in errors) == (2, True)


def test_formats_lists_shows_and_tabulates(run, report):
    _, listed, _ = run("formats")
    names = [line.split()[0] for line in listed.splitlines()[1:] if line and not line.startswith("q4.12")]
    assert sorted(names) == format_names()
    assert names.index("int9") < names.index("int10")
    assert [row["name"] for row in report("formats")] == names
    assert report("formats", "e4m3fn")["max"] == 448
    _, shown, _ = run("formats", "q4.12")
    assert dict(line.split(maxsplit=1) for line in shown.splitlines())["max"] == "7.99976"
    _, table, _ = run("formats", "e2m1fn", "--table")
    assert table.splitlines()[:8] == [f"0x{i}  {v}" for i, v in enumerate([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])]
    assert report("formats", "e5m2", "--table")[0x7C:0x7E] == ["inf", "nan"]


def test_models_lists_the_zoo(run, report):
    _, listed, _ = run("models")
    assert [line.split()[0] for line in listed.splitlines()[1 : 1 + len(zoo.names())]] == list(zoo.names())
    assert [row["name"] for row in report("models")] == list(zoo.names())
    assert "random" in listed.splitlines()[-1]


def test_a_traced_file_runs_as_the_model_does(run, report, tmp_path):
    code, out, _ = run("trace", "lstm_small", "-o", tmp_path / "w.json")
    assert code == 0
    assert "lstm_small" in out
    assert len(load_json(tmp_path / "w.json")) == 450
    again = report("run", tmp_path / "w.json", "--device", "tpu_v1")
    assert again["totals"] == report("run", "lstm_small", "--device", "tpu_v1")["totals"]


def test_a_traced_csv_keeps_the_matrix_work(run, report, tmp_path):
    code, out, _ = run("trace", "mlp0", "-o", tmp_path / "w.csv")
    assert code == 0
    assert "4 operators" in out  # the ReLUs, which SCALE-Sim does not know
    assert report("run", tmp_path / "w.csv", "--device", "tpu_v1")["totals"]["macs"] == 4_000_000_000


def test_formats_travel_in_a_traced_file(run, report, tmp_path):
    run("trace", "mlp0", "-o", tmp_path / "w.json", "--formats", "int16")
    data = report("run", tmp_path / "w.json", "--device", "tpu_v1")
    assert data["recipe"] == "int16"


def test_help_names_every_command(run):
    code, out, _ = run("--help")
    assert code == 0
    for name in ("compare", "devices", "formats", "models", "run", "trace"):
        assert re.search(rf"^  {name} +\w", out, re.MULTILINE)
    code, out, _ = run()
    assert code == 2
    assert out.startswith("usage: hwsim COMMAND")
    assert run("--version")[1].startswith("hwsim ")
    code, out, _ = run("run", "--help")
    assert code == 0
    assert "--kv-len" in out


# --- bad input: one line, exit code 2 -----------------------------------------------------------------------

ON_TPU = ("--device", "tpu_v1")
BAD = {
    # What is wrong: (words, what the line says)
    "command": (("runn", "mlp0"), "command: unknown name 'runn'; did you mean 'run'?"),
    "no device": (("run", "mlp0"), "the following arguments are required: --device"),
    "option": (("run", "mlp0", *ON_TPU, "--bacth", "3"), "unrecognized arguments: --bacth 3"),
    "model": (
        ("run", "resnet51", *ON_TPU),
        "model: unknown name 'resnet51'; did you mean 'resnet50' or 'resnet18' or 'alexnet'?",
    ),
    "device": (
        ("run", "mlp0", "--device", "tpu_v3"),
        "device: unknown name 'tpu_v3'; did you mean 'tpu_v4' or 'tpu_v1' or 'tpu_v5e'?",
    ),
    "format name": (("formats", "e4m3fb"), "format: unknown name 'e4m3fb'; did you mean 'e4m3fn' or "),
    "table alone": (("formats", "--table"), "--table: expected the name of a format beside it"),
    "table of blocks": (("formats", "mxfp4", "--table"), "--table: 'mxfp4' has codes for elements and scales; ask for "),
    "table too long": (("formats", "fp32", "--table"), "format 'fp32': table: 32 bits have too many codes to list"),
    "template": (("devices", "--template", "systolic"), "device kind: unknown name 'systolic'; did you mean"),
    "field": (("run", "mlp0", *ON_TPU, "--set", "rwos=3"), "unknown field 'rwos'; did you mean 'array.rows'?"),
    "no value": (("run", "mlp0", *ON_TPU, "--set", "rows"), "--set: expected FIELD=VALUE"),
    "no field": (("run", "mlp0", *ON_TPU, "--set", "=3"), "--set: expected FIELD=VALUE"),
    "value": (("run", "mlp0", *ON_TPU, "--set", "rows=[1"), "--set: rows: cannot read the value '[1'"),
    "negative": (("run", "mlp0", *ON_TPU, "--set", "rows=-3"), "array.rows: input should be greater than"),
    "unit": (("run", "mlp0", "--device", "mhz.yaml"), "unknown field 'clock_mhz'; did you mean 'clock_hz'?"),
    "unit in text": (
        ("run", "mlp0", "--device", "text.yaml"),
        "text.yaml: clock_hz: input should be a valid number, unable to parse string as a number (got '700 MHz')",
    ),
    "missing field": (("run", "mlp0", "--device", "short.yaml"), "short.yaml: field 'array' is missing"),
    "no mapping": (("run", "mlp0", "--device", "list.yaml"), "a device spec must be a mapping"),
    "no spec": (("run", "mlp0", "--device", "none.yaml"), "none.yaml: cannot be read: No such file"),
    "small buffer": (
        ("run", "mlp0", *ON_TPU, "--set", "memory.weight.capacity_bytes=64"),
        "memory.weight.capacity_bytes: 64 bytes (half of it, double-buffered) cannot hold one tile of op 'layers.0', "
        "which takes 65536 bytes",
    ),
    "recipe": (("run", "mlp0", *ON_TPU, "--formats", "bf61"), "recipe: unknown name 'bf61'; did you mean 'bf16'"),
    "format": (("run", "mlp0", *ON_TPU, "--formats", "bf16"), "no multiply-accumulate for bf16×bf16"),
    "fidelity": (("run", "mlp0", *ON_TPU, "--fidelity", "tiles"), "unknown name 'tiles'; did you mean 'tile'?"),
    "batch": (("run", "mlp0", *ON_TPU, "--batch", "0"), "batch: expected an integer ≥ 1, got 0"),
    "number": (("run", "mlp0", *ON_TPU, "--batch", "two"), "argument --batch: invalid int value: 'two'"),
    "seq_len": (("run", "resnet50", *ON_TPU, "--seq-len", "4"), "seq_len: not an option of resnet50"),
    "kv_len": (("run", "gpt2", *ON_TPU, "--kv-len", "4"), "kv_len: an option of phase decode only"),
    "too long": (("run", "gpt2", *ON_TPU, "--seq-len", "4000"), "sequences hold at most 1024 tokens, got 4000"),
    "phase": (("run", "gpt2", *ON_TPU, "--phase", "prefil"), "argument --phase: invalid choice: 'prefil'"),
    "checkpoint": (("run", "mlp0", *ON_TPU, "--checkpoint", "none.pt"), "none.pt: cannot read the checkpoint"),
    "broken onnx": (("run", "broken.onnx", *ON_TPU), "broken.onnx: not "),
    "empty onnx": (("run", "empty.onnx", *ON_TPU), "empty.onnx: not a valid ONNX model"),
    "no onnx": (("run", "none.onnx", *ON_TPU), "none.onnx: no such file"),
    "broken json": (("run", "broken.json", *ON_TPU), "broken.json: not valid JSON"),
    "broken csv": (("run", "broken.csv", *ON_TPU), "broken.csv, line 1: unknown header"),
    "negative csv": (("run", "negative.csv", *ON_TPU), "negative.csv, line 2"),
    "file with batch": (("run", "gemm.csv", *ON_TPU, "--seq-len", "3"), "seq_len: a file fixes its own sizes"),
    "file trained": (("run", "gemm.csv", *ON_TPU, "--mode", "training"), "mode: only PyTorch models"),
    "no module": (("run", "no_module:f", *ON_TPU), "model: cannot import 'no_module'"),
    "broken module": (("run", "broken_module:f", *ON_TPU), "model: cannot import 'broken_module': No module named"),
    "callable": (("run", "sample_models:linaer", *ON_TPU), "unknown name 'linaer'; did you mean 'linear'"),
    "callable fails": (("run", "sample_models:fails", *ON_TPU), "sample_models:fails raised ValueError: two lines"),
    "callable number": (("run", "sample_models:number", *ON_TPU), "must return a Workload or (module, example_inputs)"),
    "callable batch": (("run", "sample_models:raises", *ON_TPU, "--batch", "3"), "takes no such argument"),
    "model branches": (
        ("run", "sample_models:branches", *ON_TPU),
        "trace: control flow or a shape depends on tensor values at {files}/sample_models.py:14: ",
    ),
    "model mismatched": (("run", "sample_models:mismatched", *ON_TPU), "trace: RuntimeError at "),
    "out": (("run", "mlp0", *ON_TPU, "--out", "occupied"), "out: cannot write to occupied"),
    # Before the model is even made, which would print:
    "out early": (("run", "sample_models:linear", *ON_TPU, "--out", "occupied"), "out: cannot write to occupied"),
    "out below": (("run", "mlp0", *ON_TPU, "--out", "occupied/a/b"), "out: cannot write to occupied/a/b"),
    "compare out": (("compare", "mlp0", *ON_TPU, "--out", "occupied"), "out: cannot write to occupied"),
    "trace suffix": (("trace", "mlp0", "-o", "w.txt"), "--output: expected a .json or .csv file, got 'w.txt'"),
    "trace folder": (("trace", "mlp0", "-o", "nowhere/w.json"), "--output: no folder 'nowhere'"),
    "trace twice": (("devices", "tpu_v1", "--template", "systolic_array"), "--template: give either"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_one_clear_line(run, files, what):
    words, text = BAD[what]
    code, out, err = run(*words)
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert re.match(r"hwsim( \w+)?: error: ", err)
    assert text.replace("{files}", str(files)) in err
    assert "Traceback" not in err


def test_a_model_that_raises_is_one_line_beside_what_it_printed(run):
    code, out, err = run("run", "sample_models:raises", *ON_TPU)
    assert (code, out) == (2, "chatter\n")
    assert err.count("\n") == 1
    assert re.search(r'trace: RuntimeError at .*sample_models\.py:9: raise RuntimeError\("on\\npurpose"\): on$', err.strip())


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("run", "sample_models:mismatched", *ON_TPU), 2),
        (("run", "broken.onnx", *ON_TPU), 2),
        (("run", "gemm.csv", *ON_TPU, "--json"), 0),
    ],
)
def test_a_process_of_its_own_says_no_more(files, words, code):
    # Logging handlers, warnings and progress bars would show here and not under the test's own capture.
    done = subprocess.run([sys.executable, "-m", "hwsim.cli", *words], cwd=files, capture_output=True, text=True)
    assert done.returncode == code
    assert done.stderr.count("\n") == (1 if code else 0)
    assert "Traceback" not in done.stderr
    assert (json.loads(done.stdout)["totals"]["macs"] == 624) if code == 0 else done.stdout == ""


def test_a_closed_pipe_ends_quietly(files):
    command = f"{sys.executable} -m hwsim.cli devices tpu_v1 | head -c 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=files, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("#", "")


# --- progress -----------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("screen", "patience", "shown"), [(Terminal, 0.01, True), (Terminal, 60, False), (io.StringIO, 0, False)]
)
def test_progress_shows_on_a_terminal_after_a_while(monkeypatch, screen, patience, shown):
    monkeypatch.setattr(sys, "stderr", screen())
    monkeypatch.setattr(progress, "PATIENCE_S", patience)
    with progress.stage("at work"):
        time.sleep(0.3)
    assert ("at work" in sys.stderr.getvalue()) is shown


def test_the_module_is_the_command():
    done = subprocess.run([sys.executable, "-m", "hwsim", "run", "nosuch"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("hwsim run: error: ")
