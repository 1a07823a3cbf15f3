"""Pictures of an exploration, and how much of a metric a parameter explains: against closed forms and counts."""

import itertools

import numpy as np
import pytest
from exploration_samples import front_of, sample_data

from hwsim.explore.exploration import Exploration, Trial
from hwsim.explore.objectives import Objective
from hwsim.explore.space import Space
from hwsim.views.exploration_page import page
from hwsim.views.exploration_plots import MOST_LINES, plot_all, plot_front, plot_hypervolume, plot_parallel, plot_sensitivity
from hwsim.views.exploration_sensitivity import corrected_ratio, correlation_ratio, sensitivity


def table(parameters, metrics, *, stage="random", space=None):
    """An exploration of columns alone."""
    n = len(next(iter(parameters.values())))
    listed = {name: {"kind": "choice", "values": sorted(set(values)), "ordered": True} for name, values in parameters.items()}
    marks = {"trial": list(range(n)), "stage": [stage] * n}
    ends = {"error": [""] * n, "feasible": [True] * n, "front": [False] * n}
    return {
        "name": "table", "space": space or listed, "objectives": [{"metric": name, "direction": "min"} for name in metrics],
        "columns": {**marks, **parameters, **metrics, **ends},
    }  # fmt: skip


def effects(data, **options):
    return {(e.parameter, e.metric): e for e in sensitivity(data, **options).effects}


# --- sensitivity ------------------------------------------------------------------------------------------------------


def test_a_whole_grid_is_exact():
    a, b, c = np.array([0.0, 1.0, 3.0]), np.array([0.0, 2.0]), np.array([0.0, 0.5, 1.0, 4.0])
    grid = np.array(list(itertools.product(range(3), range(2), range(4))))
    # Additive: the effects are the shares of the three variances, and add up to 1.
    y = a[grid[:, 0]] + b[grid[:, 1]] + c[grid[:, 2]]
    data = table({"a": grid[:, 0].tolist(), "b": grid[:, 1].tolist(), "c": grid[:, 2].tolist()}, {"y": y.tolist()}, stage="sweep")
    variances = [a.var(), b.var(), c.var()]
    found = effects(data)
    assert [found[name, "y"].effect for name in "abc"] == pytest.approx(np.array(variances) / sum(variances), rel=1e-12)
    assert all(effect.low is None for effect in found.values())
    assert "whole grid of 24 points. Exact" in sensitivity(data).note
    # A product of centred factors is all interaction: no parameter explains anything by itself.
    product = (a - a.mean())[grid[:, 0]] * (b - b.mean())[grid[:, 1]]
    found = effects(table({"a": grid[:, 0].tolist(), "b": grid[:, 1].tolist()}, {"y": product.tolist()}, stage="random"))
    assert correlation_ratio(grid[:, 0], product) == pytest.approx(0, abs=1e-12)


def test_ishigami_has_its_known_indices():
    """Ishigami & Homma 1990, a = 7, b = 0.1: S1 = 0.3139, S2 = 0.4424, S3 = 0 (Saltelli et al., Global Sensitivity Analysis: The
    Primer, 2008, section 4.5 gives the variances)."""
    x = np.random.default_rng(0).uniform(-np.pi, np.pi, (6000, 3))
    y = np.sin(x[:, 0]) + 7 * np.sin(x[:, 1]) ** 2 + 0.1 * x[:, 2] ** 4 * np.sin(x[:, 0])
    space = {f"x{i}": {"kind": "real", "low": -3.15, "high": 3.15, "ordered": True} for i in range(3)}
    found = effects(table({f"x{i}": x[:, i].tolist() for i in range(3)}, {"y": y.tolist()}, space=space))
    for i, known in enumerate((0.3139, 0.4424, 0.0)):
        effect = found[f"x{i}", "y"]
        assert effect.effect == pytest.approx(known, abs=0.02)
        assert effect.low <= effect.effect <= effect.high
        assert effect.high - effect.low < 0.06


def test_intervals_hold_the_truth_as_often_as_they_say():
    a, b = np.array([0.0, 1, 3, 4]), np.array([0.0, 2, 1, 0])
    full = np.array([[p + q + 0.3 * p * q for q in b] for p in a])
    truth = {"a": full.mean(axis=1).var() / full.var(), "b": full.mean(axis=0).var() / full.var()}
    held, plain, corrected = 0, [], []
    for seed in range(40):
        i, j = np.random.default_rng(seed).integers(4, size=(2, 60))
        y = full[i, j]
        found = effects(table({"a": i.tolist(), "b": j.tolist()}, {"y": y.tolist()}))
        held += sum(found[name, "y"].low <= share <= found[name, "y"].high for name, share in truth.items())
        plain.append(correlation_ratio(j, y))
        corrected.append(corrected_ratio(j, y))
    assert 68 <= held <= 80  # of 80; 95 % would be 76
    # The plain ratio is too large by about (k − 1)(1 − S)/(n − 1); the corrected one is not.
    assert np.mean(plain) - truth["b"] > 0.6 * 3 / 59 * (1 - truth["b"])
    assert abs(np.mean(corrected) - truth["b"]) < 0.5 * (np.mean(plain) - truth["b"])


def test_what_was_sampled_is_said():
    data = sample_data()
    note = sensitivity(data).note
    assert "over 80 points drawn at random" in note  # the baseline: the search went where it liked
    searched = {**data, "columns": {**data["columns"], "stage": ["search"] * 240}}
    assert "240 points that the search chose (so of the region it went to, not of the whole space)" in sensitivity(searched).note
    few = {**data, "columns": {name: values[:12] for name, values in data["columns"].items()}}
    assert "Too few points to tell for" in sensitivity(few).note
    assert {e.parameter for e in sensitivity(few).effects}.isdisjoint({"off_chip.bandwidth_bytes_per_s", "array.rows"})
    assert sensitivity(data, seed=1) == sensitivity(data, seed=1) != sensitivity(data, seed=2)


def test_a_metric_over_a_decade_is_explained_by_its_logarithm():
    rows = [1, 10, 100] * 20
    columns = [1, 2] * 30
    y = [r * c for r, c in zip(rows, columns, strict=True)]
    found = effects(table({"rows": rows, "columns": columns}, {"y": y}, stage="sweep"))
    assert found["rows", "y"].log
    shares = np.array([np.log([1, 10, 100]).var(), np.log([1, 2]).var()])
    assert found["rows", "y"].effect == pytest.approx(shares[0] / shares.sum(), rel=0.02)


# --- pictures ---------------------------------------------------------------------------------------------------------


def drawn(ax, label):
    """Points of one entry of the legend."""
    (found,) = [collection for collection in ax.collections if collection.get_label() == label]
    return found.get_offsets().data


def test_the_front_is_drawn_as_steps_over_its_points():
    data = sample_data()
    columns = data["columns"]
    ax = plot_front(data).axes[0]
    on = [(t, e) for t, e, front in zip(columns["time_s"], columns["energy_j"], columns["front"], strict=True) if front]
    assert sorted(map(tuple, drawn(ax, "on the front").tolist())) == sorted(on)
    (line,) = ax.lines
    path = list(zip(*line.get_data(), strict=True))
    assert path[1:-1] == sorted(on)
    assert line.get_drawstyle() == "steps-post"
    feasible = sum(
        f and not front and s == "search"
        for f, front, s in zip(columns["feasible"], columns["front"], columns["stage"], strict=True)
    )
    assert len(drawn(ax, "search")) == feasible
    hollow = [c for c in ax.collections if len(c.get_facecolor()) == 0 and len(c.get_offsets())]
    known = [t is not None and e is not None for t, e in zip(columns["time_s"], columns["energy_j"], strict=True)]
    assert sum(len(c.get_offsets()) for c in hollow) == sum(k and not f for k, f in zip(known, columns["feasible"], strict=True))


def test_three_objectives_are_drawn_in_pairs_with_the_edge_of_each():
    data = sample_data(90)
    columns = data["columns"]
    columns["score"] = [None if t is None else round(100 * t, 2) % 1 for t in columns["time_s"]]
    costs = [
        (t or 0, e or 0, -(s or 0)) for t, e, s in zip(columns["time_s"], columns["energy_j"], columns["score"], strict=True)
    ]
    columns["front"] = front_of(costs, columns["feasible"])
    data["objectives"] = [*data["objectives"], {"metric": "score", "direction": "max"}]
    figure = plot_front(data)
    assert len([ax for ax in figure.axes if ax.get_visible()]) == 3
    for ax, (a, b) in zip(figure.axes, [(0, 1), (0, 2), (1, 2)], strict=True):
        points = [(c[a], c[b]) for c, front in zip(costs, columns["front"], strict=True) if front]
        edge = {p for p, kept in zip(points, front_of(points, [True] * len(points)), strict=True) if kept}
        x, y = ax.lines[0].get_data()
        signs = (1, -1 if b == 2 else 1)
        assert {(float(u), signs[1] * float(v)) for u, v in zip(x[1:-1], y[1:-1], strict=True)} == edge
    assert "more is better" in figure.axes[1].get_ylabel()


def test_one_objective_is_drawn_against_the_trials():
    data = sample_data(60)
    data["objectives"] = [{"metric": "time_s", "direction": "min"}]
    ax = plot_front(data).axes[0]
    columns = data["columns"]
    random = [t for t, f, s in zip(columns["time_s"], columns["feasible"], columns["stage"], strict=True) if f and s == "random"]
    best = [line.get_ydata() for line in ax.lines]
    assert any(np.array_equal(values, np.minimum.accumulate(random)) for values in best)


def test_parallel_coordinates_have_a_line_a_feasible_point():
    data = sample_data()
    figure = plot_parallel(data)
    others, front = figure.axes[0].collections
    columns = data["columns"]
    assert len(front.get_segments()) == sum(columns["front"])
    assert len(others.get_segments()) == sum(columns["feasible"]) - sum(columns["front"])
    first = front.get_segments()[0]
    trial = columns["front"].index(True)
    place = np.log(columns["array.rows"][trial] / 8) / np.log(8)  # rows double: their axis is logarithmic
    assert first[0].tolist() == pytest.approx([0, place])
    large = plot_parallel(sample_data(4000, quadratic=False))
    assert len(large.axes[0].collections[0].get_segments()) == MOST_LINES
    assert "evenly chosen" in large.get_supxlabel()


def test_the_hypervolume_of_a_search_stands_beside_random():
    data = sample_data()
    ax = plot_hypervolume(data).axes[0]
    lines = {line.get_label(): np.array(line.get_data()).T.tolist() for line in ax.lines}
    assert lines == {stage: [[float(n), v] for n, v in points] for stage, points in data["history"].items()}
    assert {text.get_text() for text in ax.texts} == {"search 0.9100", "random 0.8400"}
    assert plot_hypervolume({**data, "history": {}}) is None


def test_sensitivity_bars_are_the_effects():
    data = sample_data()
    figure = plot_sensitivity(data)
    found = effects(data)
    for ax, metric in zip(figure.axes, ("time_s", "energy_j", "area_mm2"), strict=True):
        widths = sorted(bar.get_width() for bar in ax.patches)
        assert widths == pytest.approx(sorted(100 * e.effect for (_, own), e in found.items() if own == metric))
        assert len(ax.lines) == 4  # an interval each


def test_an_exploration_itself_is_taken_and_files_are_written(tmp_path):
    space = Space({"array.rows": [8, 16, 32], "array.dataflow": ["ws", "os"]})
    trials = []
    for number in range(space.size):
        configuration = space.configuration(number)
        time = 1 / configuration["array.rows"]
        trials.append(
            Trial(
                number, "sweep", configuration, {"time_s": time, "energy_j": 1 - time * (configuration["array.dataflow"] == "ws")}
            )
        )
    found = Exploration.of("tiny $x_1$", space, trials, objectives=[Objective("time_s"), Objective("energy_j")])
    written = plot_all(found, tmp_path)
    assert [path.name for path in written] == ["front.png", "parallel.png", "sensitivity.png"]
    assert all(path.stat().st_size > 10_000 for path in written)
    assert "tiny $x_1$" in page(found.to_dict())
