"""Sweeps and searches: what they return, that nothing stops them for good, and that nothing else is returned."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from explore_subjects import GOALS, SPACE, counted, failing, toy

import hwsim
from hwsim.explore import Constraint, Exploration, MachineCost, Space, Together
from hwsim.explore.evaluation import evaluate_many
from hwsim.jobs import Interrupted
from numerics.errors import InputError

LIMIT = "area_mm2 <= 9"


def everything():
    """Configuration and metrics of the whole toy space, without the package."""
    for rows, columns, style in itertools.product([2, 4, 8, 16, 32, 64], range(1, 13), "ab"):
        configuration = {"rows": rows, "columns": columns, "style": style}
        if (rows, columns) != (64, 12):
            yield configuration, toy(configuration)


def brute_front(limit=9.0):
    good = [(c, m["time_s"], m["area_mm2"]) for c, m in everything() if m["area_mm2"] <= limit]
    return [c for c, t, a in good if not any(u <= t and b <= a and (u < t or b < a) for _, u, b in good)]


def as_set(configurations):
    return {tuple(sorted(c.items())) for c in configurations}


@pytest.fixture(scope="module")
def swept():
    return hwsim.sweep(toy, SPACE, objectives=GOALS, constraints=LIMIT)


@pytest.fixture(scope="module")
def searched():
    return hwsim.search(toy, SPACE, objectives=GOALS, constraints=LIMIT, trials=60, batch=12, seed=2)


def test_a_sweep_finds_the_front_that_brute_force_finds(swept):
    assert len(swept.trials) == 144
    assert as_set(t.configuration for t in swept.front_trials) == as_set(brute_front())
    assert swept.front()["front"].all()
    assert swept.best("area_mm2").value("area_mm2") == 1.2


def test_what_is_refused_is_kept_with_its_reason_and_counted(swept):
    refused = [t for t in swept.trials if t.error]
    assert [t.configuration["columns"] for t in refused] == [12, 12]
    assert refused[0].error == "rows: 64 rows do not go with 12 columns"
    assert swept.notes[0] == f"2 of 144 configurations have no metrics; the first: {refused[0].error}"


@pytest.mark.parametrize("sampler", ["nsga2", "tpe", "random"])
def test_no_constraint_is_ever_broken_in_what_a_search_returns(sampler):
    found = hwsim.search(toy, SPACE, objectives=GOALS, constraints=[LIMIT, "rows >= 8"], trials=40, sampler=sampler)
    broken = [t for t in found.trials if not t.error and (t.value("area_mm2") > 9 or t.value("rows") < 8)]
    assert broken  # the search did meet the bounds
    assert not {t.number for t in broken} & {t.number for t in found.front_trials}
    assert found.front_trials
    for trial in [*found.front_trials, found.best("time_s"), found.best("area_mm2")]:
        assert trial.value("area_mm2") <= 9
        assert trial.value("rows") >= 8


def test_bounds_that_nothing_keeps_leave_no_front():
    found = hwsim.sweep(toy, SPACE, objectives=GOALS, constraints="area_mm2 <= 0.5")
    assert found.front_trials == []
    assert found.best() is None
    assert found.hypervolume() == 0
    assert "no configuration keeps all constraints: there is no front" in found.notes


def test_a_metric_that_is_unknown_keeps_a_configuration_off_the_front():
    found = hwsim.sweep(toy, SPACE, objectives={"score": "max", "area_mm2": "min"})
    assert {t.value("rows") for t in found.front_trials} == {4}
    assert "score is unknown of 24 configurations, which are left out of the front" in found.notes


def test_a_search_beats_as_many_random_configurations_and_says_so(searched):
    """On a narrow corner of a space of 8 million, which random configurations do not hit."""
    space = {f"x{i}": list(range(24)) for i in range(5)}
    found = hwsim.search(ridge, space, objectives=["a", "b"], trials=200, batch=20, seed=1)
    assert [t.stage for t in found.trials].count("random") == 200
    assert found.hypervolume("search") > 1.1 * found.hypervolume("random")
    history = [volume for _, volume in found.history("search")]
    assert history == sorted(history)
    assert history[-1] == found.hypervolume("search")


def ridge(configuration):
    far = sum(abs(v - 11) for v in configuration.values())
    return {"a": configuration["x0"] + far, "b": 23 - configuration["x0"] + far}


@pytest.mark.parametrize("sampler", ["nsga2", "tpe"])
def test_the_result_is_the_same_on_any_workers_and_in_a_store(tmp_path, sampler):
    common = {"objectives": GOALS, "constraints": LIMIT, "trials": 24, "batch": 8, "sampler": sampler, "seed": 4}
    alone = hwsim.search(toy, SPACE, **common)
    stored = hwsim.search(toy, SPACE, **common, store=tmp_path / "s.sqlite", workers=2)
    assert stored.table.equals(alone.table)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.sqlite"]


def test_a_search_that_is_killed_goes_on_and_evaluates_nothing_twice(tmp_path):
    marks, store = tmp_path / "marks", tmp_path / "s.sqlite"
    marks.mkdir()
    script = tmp_path / "study.py"
    script.write_text(
        f"""import sys
sys.path[:0] = [{str(Path(__file__).parent)!r}]
from functools import partial
import hwsim
from explore_subjects import GOALS, SPACE, slow
found = hwsim.search(partial(slow, {str(marks)!r}, float(sys.argv[1])), SPACE, objectives=GOALS, constraints={LIMIT!r},
                     trials=24, batch=8, seed=4, store={str(store)!r})
found.table.to_csv({str(tmp_path / "table.csv")!r})
"""
    )
    kills = 0
    for wanted in (3, 13, 30):
        process = subprocess.Popen([sys.executable, str(script), "0.05"])
        deadline = time.monotonic() + 60
        while len(list(marks.iterdir())) < wanted and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills == 3
    # The delay is part of the evaluator's identity; a file of another evaluator is refused.
    refused = subprocess.run([sys.executable, str(script), "0"], capture_output=True, text=True)
    assert "holds another search (evaluate" in refused.stderr
    subprocess.run([sys.executable, str(script), "0.05"], check=True)
    alone = hwsim.search(toy, SPACE, objectives=GOALS, constraints=LIMIT, trials=24, batch=8, seed=4)
    assert (tmp_path / "table.csv").read_text() == alone.table.to_csv()
    # Only what was under way at a kill was begun anew: one configuration a kill.
    again = sum(len(p.read_text()) - 1 for p in marks.iterdir())
    assert again <= kills


def test_a_sweep_goes_on_where_it_ended(tmp_path):
    marks = tmp_path / "marks"
    marks.mkdir()
    evaluate = partial(counted, str(marks))
    first = hwsim.sweep(evaluate, SPACE, objectives=GOALS, store=tmp_path / "t.sqlite")
    second = hwsim.sweep(evaluate, SPACE, objectives=GOALS, store=tmp_path / "t.sqlite")
    assert second.table.equals(first.table)
    assert {len(p.read_text()) for p in marks.iterdir()} == {1}
    with pytest.raises(InputError, match=r"study\.space\.rows\.values: stored"):
        hwsim.sweep(evaluate, {**SPACE, "rows": [2]}, objectives=GOALS, store=tmp_path / "t.sqlite")


def test_what_raises_is_a_failed_configuration_not_a_failed_study():
    found = hwsim.sweep(failing, SPACE, objectives=GOALS, workers=2)
    errors = {t.configuration["columns"]: t.error for t in found.trials if t.error}
    assert errors[3] == "failed: RuntimeError: a defect of the user's"
    assert set(errors) == {3, 12}
    found = hwsim.search(failing, {**SPACE, "columns": [2, 3]}, objectives=GOALS, trials=10)
    assert {t.configuration["columns"] for t in found.trials if t.error} == {3}
    assert found.front_trials


def test_the_front_is_evaluated_anew_by_a_finer_evaluator():
    def coarse(configuration):
        return {"t": configuration["a"], "e": 10 - configuration["a"]}

    def fine(configuration):
        return {"t": configuration["a"], "e": 20 - 2 * configuration["a"] + (50 if configuration["a"] == 3 else 0)}

    found = hwsim.sweep(coarse, {"a": list(range(1, 6)), "b": [0]}, objectives=["t", "e"], rescore=fine)
    assert [t.value("a") for t in found.front_trials] == [1, 2, 4, 5]
    assert {t.stage for t in found.front_trials} == {"rescored"}
    assert [t.value("e") for t in found.front_trials] == [18, 16, 12, 10]


def test_an_exploration_is_what_was_saved(tmp_path, searched):
    files = {p.name: p for p in searched.save(tmp_path)}
    assert {"exploration.json", "table.csv", "table.parquet", "report.html"} < set(files)
    again = Exploration.load(tmp_path)
    assert again.table.equals(searched.table)
    assert again.to_dict() == searched.to_dict()
    import pandas as pd

    assert pd.read_parquet(files["table.parquet"]).equals(searched.table)
    assert list(pd.read_csv(files["table.csv"])["trial"]) == list(searched.table["trial"])


def test_damaged_data_are_refused(searched):
    whole = json.loads(json.dumps(searched.to_dict()))
    for change in (
        {"schema": "else"}, {"schema_version": 9}, {"space": {}}, {"objectives": [{"metric": "nil", "direction": "min"}]},
        {"columns": {**whole["columns"], "rows": [3] * len(whole["columns"]["rows"])}}, {"layers": 3},
        {"columns": {**whole["columns"], "time_s": ["1"] * len(whole["columns"]["rows"])}},
        {"columns": {**whole["columns"], "trial": [0]}}, {"constraints": ["x < 3"]}, {"metrics": None},
    ):  # fmt: skip
        with pytest.raises(InputError):
            Exploration.from_dict({**whole, **change})


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"objectives": ["tim_s"]}, "objective: unknown name 'tim_s'"),
        ({"objectives": []}, "objectives: expected at least one metric, got none"),
        ({"objectives": {"time_s": "least"}}, "objective time_s: expected 'min' or 'max', got 'least'"),
        ({"constraints": "areamm2 <= 3"}, "constraint's metric: unknown name 'areamm2'"),
        ({"trials": 0}, "trials: expected an integer ≥ 1, got 0"),
        ({"sampler": "nsga3"}, "sampler: unknown name 'nsga3'"),
        ({"predictor": 60, "trials": 60}, "predictor: expected fewer random configurations than trials (60), got 60"),
        ({"seed": -1}, "seed: expected an integer ≥ 0, got -1"),
        ({"workers": 0}, "workers: expected a whole number of at least 1, got 0"),
    ],
)
def test_a_search_that_cannot_be_says_so(arguments, error):
    with pytest.raises(InputError) as caught:
        hwsim.search(toy, SPACE, **{"objectives": GOALS, "trials": 60, **arguments})
    assert str(caught.value).startswith(error)


def test_an_evaluator_that_gives_no_numbers_is_refused():
    with pytest.raises(InputError, match="time_s: expected a number or None, got 'fast'"):
        evaluate_many(lambda c: {"time_s": "fast"}, [{}]) and hwsim.sweep(lambda c: {"time_s": "fast"}, {"a": [1]})
    with pytest.raises(InputError, match="no configuration could be evaluated; the first: rows: never"):
        hwsim.sweep(never, {"a": [1, 2]})


def never(configuration):
    raise InputError("rows: never")


def test_a_foreign_file_is_left_alone(tmp_path):
    file = tmp_path / "s.sqlite"
    file.write_text("mine")
    with pytest.raises(InputError, match="is not a file of hwsim"):
        hwsim.search(toy, SPACE, objectives=GOALS, store=file)
    assert file.read_text() == "mine"


def test_together_gives_the_metrics_of_all_and_each_name_once():
    both = Together((toy, lambda c: {"accuracy": 0.5}))
    row = both({"rows": 2, "columns": 1, "style": "a"})
    assert row == {"time_s": 0.5, "area_mm2": 1.2, "score": None, "accuracy": 0.5}
    with pytest.raises(InputError, match="two evaluators give area_mm2"):
        Together((toy, toy))({"rows": 2, "columns": 1, "style": "a"})


# --- with a machine ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cost():
    return MachineCost("explore_subjects:mlp", device="gemmini_16x16", fidelity="analytic")


def test_machine_cost_is_what_simulate_says(cost):
    space = Space({"array.rows": [8, 16], "dataflow": ["ws", "os"], "model.width": [16, 32], "formats": ["int8", "bf16"]})
    configurations = list(space.grid())
    device = hwsim.get_device("gemmini_16x16")
    rows = cost.many(configurations)
    refused = 0
    for configuration, row in zip(configurations, rows, strict=True):
        changes = {name: configuration[name] for name in ("array.rows", "dataflow")}
        workload = cost.workload_of(configuration)
        machine = hwsim.get_device(device, overrides=changes)
        if "error" in row:
            with pytest.raises(InputError) as caught:
                machine.simulate(workload, fidelity="analytic")
            assert str(caught.value) == row["error"]
            refused += 1
            continue
        report = machine.simulate(workload, fidelity="analytic")
        assert row["time_s"] == pytest.approx(report.time_s, rel=1e-12)
        assert row["energy_j"] == pytest.approx(report.energy_j, rel=1e-12)
        assert row["weight_bytes"] == machine.placed(workload).bytes_by_role()["weight"]
        assert cost.report(configuration).to_dict() == report.to_dict()
    assert refused < len(rows)


def test_formats_of_single_layers(cost):
    whole = cost.workload_of({"formats": "int8"})
    layer = cost.workload_of({"formats": "int8", "weights.0": "int4"})
    formats = {op.module: op.formats.operands[:2] for op in layer.ops if op.is_matrix}
    assert formats["0"] == ("int8", "int4")
    assert {f for module, f in formats.items() if module != "0"} == {("int8", "int8")}
    assert layer.bytes_by_role()["weight"] == whole.bytes_by_role()["weight"] - 64 * 32 // 2


def test_a_field_that_is_not_there_is_refused_before_anything_runs(cost):
    with pytest.raises(InputError, match="unknown field 'rowz'"):
        hwsim.sweep(cost, {"rowz": [1]})
    with pytest.raises(InputError, match="device: unknown name 'tpu_v9'"):
        hwsim.sweep(cost, {"device": ["tpu_v1", "tpu_v9"]})
    with pytest.raises(InputError, match="recipe: unknown name 'int7x'"):
        hwsim.sweep(cost, {"formats": ["int7x"]})


def test_values_that_a_spec_refuses_are_errors_of_their_configurations(cost):
    found = hwsim.sweep(cost, {"array.rows": [0, 16]})
    assert [bool(t.error) for t in found.trials] == [True, False]
    assert "array.rows" in found.trials[0].error


def test_layers_of_the_front_come_with_the_result(cost):
    found = hwsim.sweep(cost, {"array.rows": [8, 16, 32], "array.columns": [8, 16, 32]}, rescore=MachineCost(
        "explore_subjects:mlp", device="gemmini_16x16", fidelity="tile"), layers=3)  # fmt: skip
    assert len(found.layers) == min(3, len(found.front_trials))
    number, rows = next(iter(found.layers.items()))
    trial = next(t for t in found.trials if t.number == number)
    assert sum(row["time_s"] for row in rows) == pytest.approx(trial.value("time_s"), rel=1e-12)
    assert sum(row["energy_j"] for row in rows) == pytest.approx(trial.value("energy_j"), rel=1e-12)


def test_one_sweep_over_four_kinds_of_machine():
    found = hwsim.sweep(MachineCost("explore_subjects:mlp"), {"device": ["gemmini_16x16", "a100", "eyeriss", "coherent_mzi_56"]})
    by_device = {t.configuration["device"]: t for t in found.trials}
    assert all(not t.error for t in by_device.values()), {k: t.error for k, t in by_device.items()}
    for name, trial in by_device.items():
        report = hwsim.simulate(MachineCost("explore_subjects:mlp", device=name).workload_of({}), device=name)
        assert trial.value("time_s") == report.time_s


def test_interrupt_names_the_file(tmp_path):
    def stop(configuration):
        os.kill(os.getpid(), signal.SIGINT)
        return toy(configuration)

    with pytest.raises(Interrupted, match=r"trials are kept in '.*s.sqlite'; run it again to go on"):
        hwsim.search(stop, SPACE, objectives=GOALS, trials=24, store=tmp_path / "s.sqlite")


def test_hypervolume_has_its_box_from_all_stages(searched):
    volumes = [searched.hypervolume(stage) for stage in ("search", "random")]
    assert all(0 < volume < 1 for volume in volumes)
    best = {o.metric: min(t.value(o.metric) for t in searched.trials if not t.error and t.value("area_mm2") <= 9)
            for o in searched.objectives}  # fmt: skip
    assert all(searched.reference[name] > value for name, value in best.items())
    assert np.isfinite(list(searched.reference.values())).all()


@pytest.mark.parametrize("recorded", [1, 9, 16, 30])
def test_a_search_cut_short_between_two_records_goes_on(tmp_path, monkeypatch, recorded):
    """A kill while the trials of a batch are written: some of them are in the record, all in the batch's own file."""
    from hwsim.explore.searches import Record

    common = {"objectives": GOALS, "constraints": LIMIT, "trials": 24, "batch": 8, "seed": 4}
    whole = hwsim.search(toy, SPACE, **common)
    add, done = Record.add, itertools.count()

    def cut(self, stage, trials):
        for trial in trials:
            if next(done) == recorded:
                raise KeyboardInterrupt
            add(self, stage, [trial])

    monkeypatch.setattr(Record, "add", cut)
    with pytest.raises(KeyboardInterrupt):
        hwsim.search(toy, SPACE, **common, store=tmp_path / "s.sqlite")
    monkeypatch.setattr(Record, "add", add)
    again = hwsim.search(toy, SPACE, **common, store=tmp_path / "s.sqlite")
    assert again.table.equals(whole.table)
    assert again.notes == whole.notes
    assert [p.name for p in tmp_path.iterdir()] == ["s.sqlite"]


def test_a_store_belongs_to_the_order_of_the_parameters(tmp_path):
    """Trials are places on the grid: with the parameters swapped they would be other configurations."""
    hwsim.sweep(toy, SPACE, objectives=GOALS, store=tmp_path / "t.sqlite")
    turned = dict(reversed(SPACE.items()))
    with pytest.raises(InputError, match=r"study\.order: stored"):
        hwsim.sweep(toy, turned, objectives=GOALS, store=tmp_path / "t.sqlite")


def test_what_is_evaluated_anew_is_kept_too(tmp_path):
    marks = tmp_path / "marks"
    marks.mkdir()
    store = {"store": tmp_path / "t.sqlite", "objectives": GOALS, "rescore": partial(counted, str(marks))}
    first = hwsim.sweep(toy, SPACE, **store, workers=2)
    again = hwsim.sweep(toy, SPACE, **store)
    assert again.table.equals(first.table)
    assert {len(path.read_text()) for path in marks.iterdir()} == {1}


def test_a_finer_evaluator_need_not_give_every_metric():
    def coarse(configuration):
        return {"t": configuration["a"], "e": 10 - configuration["a"], "accuracy": configuration["a"] / 10}

    def fine(configuration):
        return {"t": 2 * configuration["a"], "e": 10 - configuration["a"]}

    found = hwsim.sweep(coarse, {"a": [1, 3, 5]}, objectives=["t", "e"], constraints="accuracy >= 0.2", rescore=fine)
    assert [(t.value("t"), t.value("accuracy")) for t in found.front_trials] == [(6, 0.3), (10, 0.5)]


@pytest.mark.parametrize(
    ("space", "more", "error"),
    [
        ({"rows": [4], "array.rows": [8]}, {}, "space: rows and array.rows are the same field, array.rows; leave one out"),
        (
            {"dataflow": ["ws", "os"]},
            {"constraints": "dataflow <= 3"},
            "constraint dataflow: expected a metric or parameter of numb",
        ),
        ({"stage": [1]}, {}, "stage: a column of the table is called so; name the parameter or metric otherwise"),
        ({"array.rows": [8, 16]}, {"constraints": "tim_s <= 3"}, "constraint's metric: unknown name 'tim_s'"),
    ],
)
def test_names_that_clash_are_refused_at_once(space, more, error):
    cost = MachineCost("explore_subjects:mlp", device="gemmini_16x16", fidelity="analytic")
    with pytest.raises(InputError) as caught:
        hwsim.sweep(cost, space, **more)
    assert str(caught.value).startswith(error)


def test_an_unknown_rung_is_refused_before_the_work():
    cost = MachineCost("explore_subjects:mlp", device="gemmini_16x16", fidelity="bogus")
    for arguments in ({"evaluate": cost}, {"evaluate": MachineCost("explore_subjects:mlp", device="tpu_v1"), "rescore": cost}):
        with pytest.raises(InputError, match=r"fidelity .*: unknown name 'bogus'"):
            hwsim.sweep(space={"array.rows": [8]}, **arguments)


def test_of_patterns_for_the_same_layer_the_first_counts(cost):
    first = cost.workload_of({"formats": "int8", "weights.*": "int4", "weights.0": "int8"})
    other = cost.workload_of({"formats": "int8", "weights.0": "int8", "weights.*": "int4"})
    assert other.bytes_by_role()["weight"] - first.bytes_by_role()["weight"] == 64 * 32 // 2


def test_bounds_and_numbers_alone_survive_as_they_are(tmp_path):
    found = hwsim.sweep(lambda c: c["a"], {"a": [0.3, 0.1 + 0.2]}, constraints=[Constraint("accuracy", "<=", 0.1 + 0.2)])
    assert found.objectives[0].direction == "max"
    again = Exploration.from_dict(found.to_dict())
    assert again.constraints == found.constraints
    assert again.table.equals(found.table)
