"""``hwsim faults``: a campaign from the command line, its files, its errors."""

import json
import sys

import numpy as np
import pytest

from hwsim.cli import main

MODEL = """
import torch
from torch import nn


def net(batch=6):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 4)), torch.randn(batch, 8)


def flat():
    return nn.Flatten(0), torch.randn(2, 8)


def work():
    from hwsim.operators import Matmul
    from hwsim.workload import chain

    return chain("one", [Matmul(name="x", m=1, n=1, k=1)])
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "own_nets.py").write_text(MODEL)
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "data.npz", inputs=rng.normal(size=(20, 8)), labels=rng.integers(0, 4, 20))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "own_nets", raising=False)
    return tmp_path


def run(capsys, *words):
    code = main(["faults", *words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


RATES = ["own_nets:net", "--format", "int8", "--ber", "1e-3,1e-2", "--margin", "0.2", "--interval", "student", "--seed", "3"]


def test_rates(here, capsys):
    code, out, _ = run(capsys, *RATES, "--out", "one")
    assert code == 0
    assert "inputs: seeded, not data" in out
    assert "share of predictions that are those without faults" in out
    assert sorted(p.name for p in (here / "one").iterdir() if not p.name.endswith(".lock")) == [
        "accuracy.png", "campaign.sqlite", "results.csv", "summary.json",
    ]  # fmt: skip
    summary = json.loads((here / "one" / "summary.json").read_text())
    assert [row["scenario"] for row in summary["scenarios"]] == ["1e-3", "1e-2"]
    assert summary["metric"] == "agreement"
    # Two runs compare equal, on any number of workers, and one that goes on from nothing left changes nothing.
    assert run(capsys, *RATES, "--out", "two", "--workers", "2")[0] == 0
    tables = [(here / name / "results.csv").read_bytes() for name in ("one", "two")]
    assert tables[0] == tables[1]
    assert run(capsys, *RATES, "--out", "one", "--resume")[0] == 0
    assert (here / "one" / "results.csv").read_bytes() == tables[0]


def test_single_bits_with_data_as_json(here, capsys):
    words = ["own_nets:net", "--format", "bf16", "--targets", "weights,activations", "--bits", "exponent", "--data", "data.npz"]
    code, out, _ = run(capsys, *words, "--margin", "0.2", "--max-trials", "500", "--out", "bits", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["metric"] == "accuracy"
    assert found["images"] == 20
    assert {(row["target"], row["bit"]) for row in found["by_bit"]} == {
        (t, b) for t in ("weight", "activation") for b in range(7, 15)
    }
    assert (here / "bits" / "sensitivity.png").stat().st_size > 5000
    lines = (here / "bits" / "results.csv").read_text().splitlines()
    assert len(lines) == 1 + found["trials"]


def test_protections(here, capsys):
    words = ["own_nets:net", "--format", "bf16", "--margin", "0.3", "--max-trials", "60"]
    code, out, _ = run(capsys, *words, "--protect", "secded", "--out", "kept", "--json")
    assert code == 0
    assert json.loads(out)["total"]["masked"] == pytest.approx(1.0)
    code, out, _ = run(capsys, *words, "--protect", "parity", "--out", "seen", "--json")
    assert json.loads(out)["total"]["detected"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["resnet19", "--format", "int8"], "model: unknown name 'resnet19'; did you mean"),
        (["own_nets:net", "--format", "int9"], "--format: unknown name 'int9'"),
        (["own_nets:net", "--format", "int8", "--ber", "-1e-3"], "rate: expected a probability from 0 to 1, got -0.001"),
        (["own_nets:net", "--format", "int8", "--targets", "accumulators"], "accumulators fail in fault maps only; give --ber"),
        (["own_nets:net", "--format", "int8", "--max-trials", "0"], "--max-trials: expected an integer ≥ 1, got 0"),
        (["own_nets:net", "--format", "int8", "--workers", "0"], "workers: expected a whole number of at least 1, got 0"),
        (["own_nets:net", "--format", "int8", "--workers", "-2"], "workers: expected a whole number of at least 1, got -2"),
        (["own_nets:net", "--format", "int8", "--data", "short.npz"], "data: the model does not run on inputs (4, 7) float32"),
        (["own_nets:net", "--format", "bf16", "--data", "short.npz"], "data: the model does not run on inputs (4, 7) float32"),
        (["own_nets:net", "--format", "int8", "--data", "odd.npz"], "labels: expected 0 to 3 for 4 classes, got 77 to 77"),
        (["own_nets:net", "--format", "int8", "--targets", "weight"], "--targets: unknown name 'weight'"),
        (["own_nets:net", "--format", "int8", "--ber", "1e-3,high"], "--ber: expected rates such as 1e-4,1e-3, got 'high'"),
        (["own_nets:net", "--format", "int8", "--ber", "2"], "rate: expected a probability from 0 to 1, got 2.0"),
        (["own_nets:net", "--format", "int8", "--ber", "0.1,0.10"], "--ber: expected each rate once"),
        (["own_nets:net", "--format", "int8", "--bits", "exponent"], "bits (int8): unknown name 'exponent'"),
        (["own_nets:net", "--format", "int8", "--bits", "9"], "bits: 'int8' has bits 0 to 7, got 9"),
        (["own_nets:net", "--format", "int8", "--margin", "2"], "margin: expected a number between 0 and 1"),
        (["own_nets:net", "--format", "int8", "--kind", "flop"], "kind: unknown name 'flop'"),
        (["own_nets:net", "--format", "int8", "--protect", "ecc"], "--protect: unknown name 'ecc'"),
        (["own_nets:net", "--format", "int8", "--modules", "7"], "in modules that match '7'"),
        (["own_nets:net", "--format", "int8", "--data", "none.npz"], "--data: none.npz: no such file"),
        (["own_nets:net", "--format", "int8", "--data", "own_nets.py"], "--data: own_nets.py: expected a .npz file"),
        (["own_nets:net", "--format", "int8", "--data", "bad.npz"], "--data: bad.npz: expected an array 'inputs', got labels"),
        (
            ["own_nets:net", "--format", "int8", "--data", "data.npz", "--images", "4"],
            "--images: expected an integer ≥ 1, without --data",
        ),
        (["own_nets:net", "--format", "int8", "--checkpoint", "x.pt"], "--checkpoint: only zoo models load one"),
        (["own_nets:work", "--format", "int8"], "returns a workload, which computes nothing"),
        (["own_nets:flat", "--format", "int8"], "model: expected one tensor (images, …, classes) as its output"),
        (["dlrm", "--format", "int8"], "GB with its emulation"),
        (["own_nets:net", "--format", "bf16", "--targets", "accumulators", "--ber", "1e-3"], "order of its sums is not defined"),
    ],
)
def test_errors_are_one_line(words, text, here, capsys):
    np.savez(here / "bad.npz", labels=np.arange(3))
    np.savez(here / "short.npz", inputs=np.zeros((4, 7)))
    np.savez(here / "odd.npz", inputs=np.zeros((4, 8)), labels=np.full(4, 77))
    code, out, err = run(capsys, *words, "--out", "bad")
    assert code == 2
    assert out == ""
    assert err.splitlines()[-1].startswith("hwsim faults: error: ")
    assert text in err.splitlines()[-1]
    assert "Traceback" not in err
    assert not (here / "bad" / "campaign.sqlite").exists()


BITS = ["own_nets:net", "--format", "int8", "--margin", "0.3", "--max-trials", "40", "--out", "mine"]


def test_a_scheduler_that_is_not_there_leaves_nothing(here, capsys):
    pytest.importorskip("distributed")
    code, _, err = run(capsys, *BITS, "--scheduler", "nonsense")
    assert code == 2
    assert "scheduler: no Dask scheduler at 'nonsense'" in err
    assert not list((here / "mine").iterdir())
    assert run(capsys, *BITS)[0] == 0


def test_damaged_and_emptied_stores(here, capsys):
    words = [*RATES, "--out", "mine"]
    assert run(capsys, *words, "--max-trials", "400")[0] == 0
    store = here / "mine" / "campaign.sqlite"
    whole = store.read_bytes()
    table = (here / "mine" / "results.csv").read_bytes()
    for at in (4096, len(whole) // 2, len(whole) - 3000):
        store.write_bytes(whole[:at] + bytes(range(1, 251)) * 12 + whole[at + 3000 :])
        code, out, err = run(capsys, *words, "--max-trials", "400", "--resume")
        assert (code, out) == (2, "")
        assert err.splitlines()[-1].startswith("hwsim faults: error: store: 'mine/campaign.sqlite' is damaged (")
    store.write_bytes(b"")
    code, _, err = run(capsys, *words, "--max-trials", "400", "--resume")
    assert code == 0
    assert "mine/campaign.sqlite holds no campaign to resume; it begins with the first trial" in err
    assert (here / "mine" / "results.csv").read_bytes() == table


def test_a_rate_of_zero_has_its_place(here, capsys, recwarn):
    words = ["own_nets:net", "--format", "int8", "--ber", "0,1e-3", "--interval", "student", "--margin", "0.3"]
    assert run(capsys, *words, "--out", "zero")[0] == 0
    assert run(capsys, *words[:4], "0", *words[5:], "--out", "only")[0] == 0
    assert not [w for w in recwarn if "log" in str(w.message)]
    assert (here / "only" / "accuracy.png").stat().st_size > 5000


def test_a_folder_with_a_campaign_is_not_overwritten(here, capsys):
    words = ["own_nets:net", "--format", "int8", "--margin", "0.3", "--max-trials", "40", "--out", "mine"]
    assert run(capsys, *words)[0] == 0
    code, _, err = run(capsys, *words)
    assert code == 2
    assert "--out: mine holds a campaign; --resume goes on with it" in err
    code, _, err = run(capsys, *words, "--resume", "--seed", "5")
    assert code == 2
    assert "seed: stored 0, asked for 5" in err
