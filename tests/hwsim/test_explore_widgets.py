"""Widgets driven from Python, as a hand would: what they show against the evaluator called directly and trials filtered apart."""

import math
import re
import sys

import pytest
from exploration_samples import sample_data
from explore_subjects import SPACE, toy
from test_cards import Page

from hwsim.explore import Exploration, MachineCost, Space
from hwsim.explore.evaluation import evaluate_many
from hwsim.explore.widgets import browse, explorer
from numerics import InputError

pytest.importorskip("ipywidgets", reason="ipywidgets is not installed")

COST = MachineCost("mlp0", device="gemmini_16x16", fidelity="analytic", metrics=("time_s", "energy_j"))


def words(html):
    page = Page(html)
    assert not page.tags & {"script", "img", "u"}
    return page.text


# --- a configuration under the hand -----------------------------------------------------------------------------------


def test_every_configuration_can_be_reached_and_is_evaluated_as_it_stands():
    live = explorer(toy, SPACE)
    assert live.configuration == {"rows": 2, "columns": 1, "style": "a"}
    for configuration in Space(SPACE).grid():
        live.set(configuration)
        assert live.configuration == configuration
        (row,) = evaluate_many(toy, [configuration])
        assert live.error == row.get("error", "")
        assert live.metrics == ({} if live.error else row)
        assert all(word in words(live.table.value) for word in ([live.error] if live.error else row))


def test_widgets_are_sliders_for_numbers_and_lists_for_words():
    live = explorer(toy, {**SPACE, "columns": {"low": 1, "high": 12, "step": 4}})
    kinds = {name: type(control).__name__ for name, control in live.controls.items()}
    assert kinds == {"rows": "SelectionSlider", "columns": "IntSlider", "style": "Dropdown"}
    live.controls["rows"].index = 3
    live.controls["columns"].value = 9
    live.controls["style"].index = 1
    assert live.configuration == {"rows": 16, "columns": 9, "style": "b"}
    assert live.controls["columns"].max == 9  # 1, 5, 9
    assert live.metrics["time_s"] == pytest.approx(1.5 / (16 * 3))


def test_values_of_all_kinds_stay_what_they_are():
    space = {
        "one": [1, True, "1", 1.5],
        "log": {"low": 3, "high": 5000, "log": True},
        "real": {"low": 1e-9, "high": 1e-6, "log": True},
        "plain": {"low": -1.0, "high": 2.0},
        "only": [7],
    }
    seen = []

    def watch(configuration):
        seen.append(configuration)
        return {"sum_s": float(configuration["log"])}

    live = explorer(watch, space, start={"log": 4999, "one": True})
    assert seen[-1] == {"one": True, "log": 4999, "real": 1e-9, "plain": -1.0, "only": 7}
    assert seen[-1]["one"] is True
    for value in (1, True, "1", 1.5):
        live.set({"one": value})
        assert type(live.configuration["one"]) is type(value)
    for name, ends in (("log", (3, 5000)), ("real", (1e-9, 1e-6)), ("plain", (-1.0, 2.0))):
        control = live.controls[name]
        for end, value in zip(ends, (control.min, control.max), strict=True):
            control.value = 10**value if name != "plain" else value
            assert live.configuration[name] == pytest.approx(end)
            Space(space).check(live.configuration)
    live.set({"real": 3.3e-8})
    assert math.isclose(live.configuration["real"], 3.3e-8)
    assert isinstance(live.configuration["log"], int)


def test_several_moves_at_once_are_evaluated_once_and_known_ones_never_again():
    calls = []

    def count(configuration):
        calls.append(dict(configuration))
        return {"time_s": 1.0}

    live = explorer(count, SPACE)
    live.set({"rows": 8, "columns": 5, "style": "b"})
    assert calls == [{"rows": 2, "columns": 1, "style": "a"}, {"rows": 8, "columns": 5, "style": "b"}]
    live.set({"rows": 2, "columns": 1, "style": "a"})
    assert len(calls) == 2


def test_a_machine_shows_its_metrics_and_its_operators():
    live = explorer(COST, {"array.rows": [8, 16, 32], "array.dataflow": ["ws", "os"]}, start={"array.rows": 16})
    live.controls["array.dataflow"].index = 1
    configuration = {"array.rows": 16, "array.dataflow": "os"}
    expected = COST.report(configuration)
    assert live.metrics["time_s"] == pytest.approx(expected.time_s)
    assert live.metrics["energy_j"] == pytest.approx(expected.energy_j)
    assert live.report is not None
    assert [op.name for op in live.report.ops] == [op.name for op in expected.ops]
    assert all(op.name in words(live.operators.value) for op in expected.ops)
    live.with_report.value = False
    assert live.operators.value == ""
    assert live.report is None


def test_metrics_held_are_compared_with():
    live = explorer(toy, SPACE, start={"rows": 4, "columns": 4})
    live.hold_button.click()
    live.set({"rows": 8})
    text = words(live.table.value)
    assert "-50.0 %" in text  # twice the rows, half the time
    area = 100 * (4.8 / 4.4 - 1)
    assert f"+{area:.1f} %" in text


def test_a_function_that_fails_says_so_and_the_next_one_goes_on():
    def broken(configuration):
        if configuration["rows"] == 4:
            raise ZeroDivisionError("<b>half a result</b>")
        return {"time_s": 1.0}

    live = explorer(broken, SPACE)
    live.set({"rows": 4})
    assert "ZeroDivisionError: <b>half a result</b>" in words(live.table.value)
    live.set({"rows": 8})
    assert live.metrics == {"time_s": 1.0}


def test_a_report_that_is_refused_says_why():
    class Refusing:
        def __call__(self, configuration):
            return {"time_s": 1.0}

        def report(self, configuration):
            raise InputError(f"rows: no report of {configuration['rows']}")

    live = explorer(Refusing(), SPACE)
    assert live.report is None
    assert live.metrics == {"time_s": 1.0}
    assert words(live.operators.value) == "rows: no report of 2"


@pytest.mark.parametrize(
    ("evaluate", "space", "start", "told"),
    [
        (toy, SPACE, {"rows": 3}, "rows: expected a value of"),
        (toy, SPACE, {"row": 2}, "unknown name 'row'"),
        (toy, {}, None, "space: expected"),
        ("toy", SPACE, None, "evaluate: expected a function"),
        (COST, {"array.rowz": [1]}, None, "rowz"),
    ],
)
def test_mistakes_are_told_at_once(evaluate, space, start, told):
    with pytest.raises(InputError, match=re.escape(told)):
        explorer(evaluate, space, start=start)


def test_set_takes_what_the_space_holds_only():
    live = explorer(toy, SPACE)
    with pytest.raises(InputError, match="columns: expected"):
        live.set({"rows": 8, "columns": 13})
    assert live.configuration["rows"] == 2  # nothing moved


# --- an exploration to walk through -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exploration():
    return Exploration.from_dict(sample_data())


def numbers(trials):
    return [trial.number for trial in trials]


def test_all_trials_are_shown_at_first_and_the_best_is_picked(exploration):
    walk = browse(exploration)
    assert numbers(walk.shown) == numbers(exploration.trials)
    assert walk.picked == exploration.best()
    assert (walk.x.value, walk.y.value) == ("time_s", "energy_j")
    known = [t for t in exploration.trials if isinstance(t.value("time_s"), float) and isinstance(t.value("energy_j"), float)]
    assert walk.picture.value.count("<title>trial ") == len(known)
    walk.x.value = "array.rows"
    assert walk.picture.value.count("<title>trial ") == sum(isinstance(t.value("energy_j"), float) for t in exploration.trials)
    assert "array.rows" in words(walk.picture.value)


def test_filters_leave_out_what_brute_force_leaves_out(exploration):
    walk = browse(exploration)
    rows = walk.filters["array.rows"]
    rows.index = (1, 2)
    assert numbers(walk.shown) == [t.number for t in exploration.trials if t.configuration["array.rows"] in (16, 32)]
    walk.filters["sparse.enabled"].index = (0,)
    first = exploration.trials[0].configuration["sparse.enabled"]
    expected = [
        t for t in exploration.trials if t.configuration["array.rows"] in (16, 32) and t.configuration["sparse.enabled"] is first
    ]
    assert numbers(walk.shown) == numbers(expected)
    walk.filters["feasible"].value = True
    table = exploration.table.set_index("trial")
    expected = [t for t in expected if table.loc[t.number, "feasible"]]
    assert numbers(walk.shown) == numbers(expected)
    low, high = walk.filters["area_mm2"].options[5][1], walk.filters["area_mm2"].options[60][1]
    walk.filters["area_mm2"].index = (5, 60)
    expected = [t for t in expected if low <= t.value("area_mm2") <= high]
    assert numbers(walk.shown) == numbers(expected)
    walk.filters["stage"].value = ("search",)
    expected = [t for t in expected if t.stage == "search"]
    assert numbers(walk.shown) == numbers(expected)
    walk.filters["front"].value = True
    assert set(numbers(walk.shown)) == set(numbers(expected)) & set(numbers(exploration.front_trials))
    assert f"{len(walk.shown)} of {len(exploration.trials)} trials shown" in words(walk.count.value)


def test_a_trial_is_picked_and_its_layers_are_seen(exploration):
    walk = browse(exploration)
    for number in list(exploration.layers)[:3]:
        trial = walk.pick(number)
        assert walk.picked is trial
        text = words(walk.details.value)
        assert f"trial {number}" in text
        assert all(str(row["name"]) in text for row in exploration.layers[number])
    other = next(t for t in exploration.trials if t.number not in exploration.layers and not t.error)
    walk.point.value = other.number if other.number in [n for _, n in walk.point.options] else walk.pick(other.number).number
    assert walk.picked is other
    assert "operators are kept of" in words(walk.details.value)
    assert walk.picture.value.count('r="8"') == (1 if isinstance(other.value("energy_j"), float) else 0)
    failed = next(t for t in exploration.trials if t.error)
    walk.pick(failed.number)
    assert failed.error in words(walk.details.value)


def test_the_pick_stays_while_it_is_shown_and_moves_when_it_is_not(exploration):
    walk = browse(exploration)
    chosen = walk.pick(exploration.front_trials[-1].number)
    walk.filters["front"].value = True
    assert walk.picked is chosen
    distinct = walk.filters["array.rows"]
    place = [value for _, value in distinct.options].index(chosen.configuration["array.rows"])
    away = 0 if place else len(distinct.options) - 1
    distinct.index = (away, away)
    assert walk.picked is not chosen
    walk.filters["feasible"].value = True
    walk.filters["stage"].value = ()
    assert walk.shown == []
    assert walk.picked is None
    assert "no trial passes the filters" in words(walk.details.value)
    with pytest.raises(InputError, match="trial: expected the number of one of 0 trials shown"):
        walk.pick(0)
    walk.filters["stage"].value = ("random", "search")
    distinct.index = (0, len(distinct.options) - 1)
    assert walk.picked is not None


def test_operators_that_are_not_kept_come_from_the_evaluator():
    import hwsim

    found = hwsim.sweep(COST, {"array.rows": [8, 16], "array.columns": [8, 16]}, layers=1)
    assert len(found.layers) == 1
    walk = browse(found, COST)
    other = next(trial for trial in found.trials if trial.number not in found.layers)
    walk.pick(other.number)
    report = COST.report(other.configuration)
    assert all(op.name in words(walk.details.value) for op in report.ops)


def test_names_and_notes_are_escaped(exploration):
    walk = browse(exploration)
    options = [label for label, _ in walk.filters["array.dataflow"].options]
    assert "it's: <img src=x onerror=alert(1)>" in options  # a widget's option is text
    for trial in exploration.trials[:40]:
        walk.pick(trial.number)
        page = Page(walk.details.value)
        assert not page.tags & {"img", "script", "u", "i"}
        assert trial.configuration["array.dataflow"] in page.text


def test_one_objective_is_drawn_against_a_parameter():
    import hwsim

    walk = browse(hwsim.sweep(toy, SPACE, objectives=["time_s"]))
    assert (walk.x.value, walk.y.value) == ("rows", "time_s")
    with pytest.raises(InputError, match=r"exploration: expected what hwsim\.sweep or hwsim\.search gives, got dict"):
        browse({})


# --- in general -------------------------------------------------------------------------------------------------------


def test_a_notebook_shows_the_box(exploration):
    for made in (explorer(toy, SPACE), browse(exploration)):
        assert type(made.box).__name__ == "VBox"
        assert "\n" not in repr(made)
        assert len(repr(made)) <= 240
        import IPython.display

        shown = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(IPython.display, "display", shown.append)
            made._ipython_display_()
        assert shown == [made.box]


def test_without_ipywidgets_the_extra_is_named(exploration, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    for make in (lambda: explorer(toy, SPACE), lambda: browse(exploration)):
        with pytest.raises(InputError) as caught:
            make()
        assert str(caught.value) == "ipywidgets: not installed; pip install 'hwsim[widgets]'"
