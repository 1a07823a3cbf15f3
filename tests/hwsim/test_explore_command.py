"""``hwsim sweep``, ``search`` and ``report``."""

import json
import os
import time
from pathlib import Path

import pytest

from hwsim.cli import main
from hwsim.explore import Exploration

SWEEP = ["sweep", "mlp0", "--device", "gemmini_16x16", "--fidelity", "analytic"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(words, capsys):
    assert main(words) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    errors = [line for line in lines if "error:" in line]
    assert len(errors) == 1
    return errors[0]


def test_a_sweep_its_report_and_its_resumption(here, capsys):
    words = [*SWEEP, "--vary", "rows=8,16", "--vary", "clock_hz=5e8:1e9:2.5e8", "--out", "out"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "sweep     6 configurations, 6 keep all constraints" in printed
    found = Exploration.load(here / "out")
    assert [t.value("clock_hz") for t in found.trials[:3]] == [5e8, 7.5e8, 1e9]
    for file in ("table.csv", "table.parquet", "report.html", "study.yaml", "front.png"):
        assert (here / "out" / file).stat().st_size > 0
    assert "holds a study; --resume goes on with it" in refused(words, capsys)
    assert main([*words, "--resume"]) == 0
    other = [*SWEEP, "--vary", "rows=8,32", "--out", "out", "--resume"]
    before = (here / "out" / "study.yaml").read_text()
    assert "holds another study" in refused(other, capsys)
    assert (here / "out" / "study.yaml").read_text() == before
    capsys.readouterr()
    assert main(["report", "out", "--trial", "3", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["configuration"] == {"rows": 16, "clock_hz": 5e8}
    assert sum(row["time_s"] for row in shown["layers"]) == pytest.approx(shown["metrics"]["time_s"], rel=1e-12)


def test_a_report_follows_a_study_that_goes_on(here, capsys):
    assert main([*SWEEP, "--vary", "rows=8,16,32", "--out", "out"]) == 0
    stale = here / "out" / "exploration.json"
    data = json.loads(stale.read_text())
    data["name"] = "stale"
    stale.write_text(json.dumps(data))
    assert main(["report", "out"]) == 0
    assert "stale" in capsys.readouterr().out
    later = time.time() + 10
    os.utime(here / "out" / "trials.sqlite", (later, later))
    assert main(["report", "out"]) == 0
    assert "stale" not in capsys.readouterr().out


def test_a_search_of_a_file(here, capsys):
    Path("study.yaml").write_text(
        """name: small
cost: {model: "explore_subjects:mlp", device: gemmini_16x16, fidelity: analytic}
evaluate: "explore_subjects:width"
space:
  model.width: [8, 16, 32]
  array.rows: [4, 8, 16]
  clock_hz: {low: 5.0e8, high: 1.0e9, log: true}
objectives: {score: max, energy_j: min}
constraints: ["area_mm2 <= 2"]
trials: 12
batch: 6
layers: 3
"""
    )
    assert main(["search", "study.yaml", "--trials", "6", "--out", "out"]) == 0
    found = Exploration.load("out")
    assert [t.stage for t in found.trials] == ["search"] * 6 + ["random"] * 6
    assert len(found.layers) == 3
    assert {"score", "area_mm2", "time_s"} <= set(found.metrics)
    capsys.readouterr()
    assert main(["report", "out", "--json", "--out", "again"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "small"
    (here / "out" / "exploration.json").unlink()
    assert main(["report", "out"]) == 0  # from the study's own file
    assert "small: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ([*SWEEP, "--vary", "rows"], "--vary: expected NAME=VALUES, such as array.rows=16,32, got 'rows'"),
        ([*SWEEP, "--vary", "rows=8,4:16"], "--vary: rows: expected a list or a range, got '4:16' in a list"),
        ([*SWEEP, "--vary", "rows=1:2:3:4"], "--vary: rows: expected low:high, low:high:step or low:high:log, got '1:2:3:4'"),
        ([*SWEEP, "--vary", "rows=9:1:2.5"], "--vary: rows: expected numbers low:high:step with low ≤ high and a step above 0"),
        ([*SWEEP, "--vary", "rows=8", "--vary", "rows=9"], "--vary: rows is given twice"),
        (
            [*SWEEP, "--vary", "rows=8", "--constraint", "area<3"],
            "constraints: expected METRIC <= NUMBER or METRIC >= NUMBER, got 'area<3'",
        ),
        ([*SWEEP, "--vary", "rows=8", "--resume"], "--resume: nothing is kept without --out; name the folder of the study"),
        ([*SWEEP, "--vary", "rows=8", "--evaluate", "no_such:f"], "evaluate: cannot import 'no_such'"),
        (["sweep", "mlp0", "--vary", "rows=8"], "device: none given; expected one, or a parameter 'device'"),
        (["search", "none.yaml"], "none.yaml: cannot be read"),
        (["report", "none"], "none: cannot be read"),
        (["report", "."], "neither exploration.json nor study.yaml there; expected a sweep's or search's folder"),
    ],
)
def test_bad_input_is_one_line(here, capsys, words, error):
    assert error in refused(words, capsys)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("trials: 0", "trials: input should be greater than or equal to 1 (got 0)"),
        ("sampler: best", "sampler: input should be 'nsga2', 'tpe' or 'random' (got 'best')"),
        ("sample: 3", "sample: a search has none; leave it out"),
        ("trils: 3", "unknown field 'trils'; did you mean 'trials'"),
        ("objectives: []", "objectives: expected at least one metric, got none"),
        ("seed: -1", "seed: input should be greater than or equal to 0 (got -1)"),
    ],
)
def test_a_study_that_is_none_says_where(here, capsys, line, error):
    whole = {"name": "name: x", "cost": "cost: {model: mlp0, device: tpu_v1}", "space": "space: {array.rows: [8]}"}
    whole["objectives"] = "objectives: [time_s]"
    whole[line.partition(":")[0]] = line
    Path("study.yaml").write_text("\n".join(whole.values()))
    assert error in refused(["search", "study.yaml"], capsys)
