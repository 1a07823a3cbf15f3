"""Predicted latency and energy against simulations that the predictor did not see, and rank correlations counted pair by pair."""

import itertools
import sys

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

import hwsim
from hwsim.explore.predictor import LEAST, MODELS, Predictor, rank_correlation
from hwsim.explore.space import Choice, Integer, Real, Space
from hwsim.zoo import get
from numerics import InputError

SPACE = Space(
    {
        "array.rows": [4, 8, 16, 32, 64],
        "array.columns": [4, 8, 16, 32, 64],
        "array.dataflow": ["ws", "os", "is"],
        "off_chip.bandwidth_bytes_per_s": [2e9, 4e9, 8e9, 16e9, 32e9, 64e9],
        "input.capacity_bytes": [16384, 32768, 65536, 131072, 262144, 524288],
    }
)


def simulated(count, seed=1):
    """Different configurations of Gemmini, with latency and energy of ResNet-18 at the rung that sees stalls."""
    model = get("resnet18")
    with torch.device("meta"):
        workload = hwsim.trace(model.build().eval(), *model.inputs(batch=1))
    chosen = np.random.default_rng(seed).permutation(SPACE.size)[:count]
    configurations = [SPACE.configuration(int(index)) for index in chosen]
    costs = hwsim.get_device("gemmini_16x16").costs(workload, configurations, fidelity="tile")
    assert not any(costs.errors)
    return configurations, np.array(costs.time_s), np.array(costs.energy_j)


def held_out(configurations, values, learned, metric="time_s", model="gradient_boosting"):
    """(Spearman's rank correlation, mean relative error) on all but the first ``learned``, from these."""
    predictor = Predictor.fit(SPACE, configurations[:learned], {metric: values[:learned]}, model=model)
    predicted = predictor.predict(configurations[learned:])[metric]
    rank = rank_correlation(predicted, values[learned:]).spearman
    return rank, float(np.mean(np.abs(predicted / values[learned:] - 1)))


@pytest.fixture(scope="module")
def samples():
    return simulated(160)


@pytest.fixture(scope="module")
def predictor(samples):
    configurations, time_s, energy_j = samples
    return Predictor.fit(SPACE, configurations[:100], {"time_s": time_s[:100], "energy_j": energy_j[:100]})


def test_latency_and_energy_of_unseen_configurations(samples, predictor):
    configurations, time_s, energy_j = samples
    predicted = predictor.predict(configurations[100:])
    quality = predictor.quality
    for metric, true, least in (("time_s", time_s, 0.95), ("energy_j", energy_j, 0.8)):
        unseen = rank_correlation(predicted[metric], true[100:])
        print(quality[metric], "; unseen:", unseen)
        assert unseen.spearman >= least
        low, high = quality[metric].spearman_interval
        assert low <= quality[metric].spearman <= high
        # Cross-validated on 80 of the 100, so a little below what all of them give.
        assert unseen.spearman >= low - 0.02
        assert quality[metric].spearman > quality[metric].single_feature_spearman + 0.1
        assert quality[metric].samples == 100
        assert quality[metric].unknown == 0
    assert np.mean(np.abs(predicted["time_s"] / time_s[100:] - 1)) < 0.1


def test_the_best_tenth_is_found_among_what_was_not_simulated(samples, predictor):
    configurations, time_s, _ = samples
    found = np.argsort(predictor.predict(configurations[100:])["time_s"])[:6]
    best = np.argsort(time_s[100:])[:6]
    assert len(set(found) & set(best)) >= 4
    assert best[0] in found


def test_trees_beat_a_linear_model_and_more_samples_help(samples):
    configurations, time_s, _ = samples
    curve = [held_out(configurations, time_s, n) for n in (20, 50, 100)]
    assert [rank for rank, _ in curve] == sorted(rank for rank, _ in curve)
    assert [error for _, error in curve] == sorted((error for _, error in curve), reverse=True)
    linear = held_out(configurations, time_s, 100, model="linear")
    assert curve[-1][0] > linear[0] + 0.02
    assert curve[-1][1] < linear[1] / 2


@pytest.mark.exhaustive
def test_the_learning_curve_of_every_model():
    configurations, time_s, energy_j = simulated(1000)
    for model in MODELS:
        for metric, values in (("time_s", time_s), ("energy_j", energy_j)):
            curve = [held_out(configurations, values, n, metric, model) for n in (50, 100, 200, 400)]
            print(model, metric, curve)
            if model != "linear":
                assert curve[-1][0] > curve[0][0]
                assert curve[2][0] >= (0.985 if metric == "time_s" else 0.9)
    quality = Predictor.fit(SPACE, configurations[:200], {"time_s": time_s[:200]}).quality["time_s"]
    assert quality.spearman_interval[0] <= held_out(configurations, time_s, 200)[0] + 0.005


def test_operators_too():
    """Matmuls of a TPU v4, by their sizes."""
    space = Space({size: Integer(low=16, high=8192, log=True) for size in ("m", "n", "k")})
    rng = np.random.default_rng(3)
    configurations = [space.sample(rng) for _ in range(400)]
    sizes = {size: np.array([c[size] for c in configurations]) for size in "mnk"}
    time_s = hwsim.get_device("tpu_v4").matmul_time_s(**sizes)
    predicted = Predictor.fit(space, configurations[:200], {"time_s": time_s[:200]}).predict(configurations[200:])["time_s"]
    assert rank_correlation(predicted, time_s[200:]).spearman > 0.95


# --- the same bits, and honest figures -------------------------------------------------------------------------------------


def test_the_same_on_any_number_of_threads(samples):
    configurations, time_s, _ = samples
    for model in MODELS:
        bits = []
        for threads in (1, 2):
            with threadpool_limits(threads):
                one = Predictor.fit(SPACE, configurations[:40], {"time_s": time_s[:40]}, model=model)
                bits.append((one.predict(configurations)["time_s"].tobytes(), one.identity()))
        assert bits[0] == bits[1]
    other = Predictor.fit(SPACE, configurations[:40], {"time_s": time_s[:40] * 2})
    assert other.samples_digest != one.samples_digest


def test_noise_cannot_be_predicted_and_copies_do_not_help():
    """Each configuration four times, with the same value drawn at random: cross-validation must not learn it by heart."""
    space = Space({"a": Real(low=0.0, high=1.0), "b": ["x", "y"]})
    rng = np.random.default_rng(0)
    configurations = [space.sample(rng) for _ in range(80)]
    values = rng.random(80) + 1
    quality = Predictor.fit(space, configurations * 4, {"time_s": np.tile(values, 4)}).quality["time_s"]
    assert quality.samples == 80
    low, high = quality.spearman_interval
    assert low < 0.2
    assert abs(quality.spearman) < 0.35
    assert high - low > 0.2


def test_what_cannot_be_learned_is_said():
    space = Space({"a": Integer(low=1, high=64)})
    configurations = [{"a": a} for a in range(1, 31)]
    some = [None] * 25 + [1.0, 2.0, 3.0, 4.0, 5.0]
    part = [float(a) if a % 2 else None for a in range(1, 31)]
    metrics = {"time_s": np.ones(30), "energy_j": [None] * 30, "area_mm2": some, "weight_bytes": part}
    predictor = Predictor.fit(space, configurations, metrics, model="linear")
    predicted = predictor.predict([{"a": 3}, {"a": 50}])
    assert predictor.quality["time_s"].note == "constant, 1 everywhere; there is no order to predict"
    assert predicted["time_s"].tolist() == [1.0, 1.0]
    assert predictor.quality["energy_j"].note == "no value is known; nothing is predicted"
    assert predictor.quality["area_mm2"].note == f"too few known values, at least {LEAST} are needed; nothing is predicted"
    assert np.isnan(predicted["energy_j"]).all()
    assert np.isnan(predicted["area_mm2"]).all()
    assert (predictor.quality["weight_bytes"].samples, predictor.quality["weight_bytes"].unknown) == (15, 15)
    assert predictor.quality["weight_bytes"].spearman > 0.8
    plain = predictor.quality["weight_bytes"].to_dict()
    assert plain["spearman_interval"][0] <= plain["spearman"]
    assert "no value is known" in str(predictor.quality["energy_j"])
    assert len(repr(predictor).splitlines()) == 1
    assert predictor.predict([])["time_s"].shape == (0,)


def test_a_relative_error_of_nothing_is_none():
    space = Space({"a": Integer(low=0, high=64)})
    quality = Predictor.fit(space, [{"a": a} for a in range(20)], {"stalls": np.arange(20.0)}, model="linear").quality["stalls"]
    assert quality.relative_error is None
    assert quality.spearman is not None


# --- rank correlation ------------------------------------------------------------------------------------------------------


def pair_by_pair(a, b):
    """Kendall's τ_b from every pair, Spearman's from ranks counted one by one."""
    signs = [(np.sign(a[i] - a[j]), np.sign(b[i] - b[j])) for i, j in itertools.combinations(range(len(a)), 2)]
    agree = sum(x * y for x, y in signs)
    kendall = agree / np.sqrt(sum(x != 0 for x, _ in signs) * sum(y != 0 for _, y in signs))
    ranks = [[sum(v < u for v in values) + (sum(v == u for v in values) + 1) / 2 for u in values] for values in (a, b)]
    x, y = (np.array(r) - np.mean(r) for r in ranks)
    return float((x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum())), float(kendall)


def test_rank_correlation_counted_pair_by_pair():
    rng = np.random.default_rng(2)
    for _ in range(20):
        a, b = rng.integers(0, 8, (2, 15)).astype(float)
        found = rank_correlation(a, b)
        assert (found.spearman, found.kendall) == pytest.approx(pair_by_pair(a, b))
    same = rank_correlation([1, 2, 3], [10, 20, 300])
    assert (same.samples, same.spearman, same.kendall) == (3, pytest.approx(1), pytest.approx(1))
    assert rank_correlation([1, 2, 3], [3, 2, 1]).kendall == pytest.approx(-1)
    assert rank_correlation([1, 1, 1], [1, 2, 3]).spearman is None


def test_intervals_are_those_of_the_resamples_one_by_one(monkeypatch):
    """The bootstrap's figures for whole arrays against the plain correlation of each resample."""
    from hwsim.explore import predictor

    rng = np.random.default_rng(4)
    true = rng.integers(0, 12, 40).astype(float)
    guess = true + rng.integers(-4, 5, 40)
    rows = rng.integers(40, size=(25, 40))
    each = [rank_correlation(guess[one], true[one]) for one in rows]
    assert predictor._spearman_of(guess, true, rows) == pytest.approx([one.spearman for one in each])
    at_once = predictor._kendall_of(guess, true, rows)
    assert at_once == pytest.approx([one.kendall for one in each])
    monkeypatch.setattr(predictor, "PAIRED", 10)
    assert predictor._kendall_of(guess, true, rows) == pytest.approx(at_once)
    assert np.isnan(predictor._kendall_of(np.ones(40), true, rows)).all()


# --- bad input --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "boosting"}, "model: unknown name 'boosting'"),
        ({"folds": 1}, "folds: expected an integer ≥ 2, got 1"),
        ({"seed": -1}, "seed: expected an integer ≥ 0, got -1"),
        ({"metrics": {}}, "metrics: expected at least one metric, got none"),
        ({"metrics": {"time_s": [1.0]}}, "time_s: expected 12 values, one a configuration, got 1"),
        ({"metrics": {"time_s": [np.inf] * 12}}, "time_s: expected finite values .*, got inf"),
        ({"metrics": {"time_s": ["a"] * 12}}, "time_s: expected numbers"),
        ({"metrics": {"time_s": [[1.0]] * 12}}, "time_s: expected one number a configuration"),
        ({"configurations": [{"a": 99}] * 12}, "a: expected a value of"),
    ],
)
def test_bad_requests_are_one_line(change, message):
    given = {"configurations": [{"a": a} for a in range(12)], "metrics": {"time_s": np.arange(12.0)}, **change}
    with pytest.raises(InputError, match=message) as caught:
        Predictor.fit(Space({"a": Choice(tuple(range(12)))}), given.pop("configurations"), given.pop("metrics"), **given)
    assert "\n" not in str(caught.value)


def test_lists_that_cannot_be_compared():
    for a, b, message in (
        ([1, 2], [1], "as many"),
        ([1], [1], "at least 2"),
        ([1, np.nan], [1, 2], "a: expected finite numbers"),
    ):
        with pytest.raises(InputError, match=message):
            rank_correlation(a, b)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(InputError, match=r"sklearn: not installed; pip install 'hwsim\[explore\]'"):
        Predictor.fit(Space({"a": Integer(low=1, high=20)}), [{"a": a} for a in range(1, 20)], {"time_s": np.arange(1.0, 20.0)})
