"""Floating-point learning against sums over all pairs of spikes, and the simulation that carries it."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from learning_networks import sparse_synapses, taught

from neuromorphic.dynamics import simulate
from neuromorphic.learning.plastic_simulation import PlasticSimulation
from neuromorphic.learning.plasticity import STDP, ThreeFactor
from neuromorphic.network import Neurons, Population, Projection, SpikingNetwork, Synapses
from numerics.errors import InputError
from numerics.faults import FaultMap

WIDE = {"plus": 0.011, "minus": 0.013, "tau_plus_s": 0.017, "tau_minus_s": 0.034, "low": -50.0, "high": 50.0}


def spike_trains(rng, steps, size, rate):
    return rng.random((steps, size)) < rate


def pairs_of(arrivals, firings, pairing):
    """(arrival, firing) pairs: all, or each spike with the last of the other kind before it; arrivals come first in a step."""
    if pairing == "all":
        return [(a, f) for a in arrivals for f in firings]
    found = [(max(x for x in arrivals if x <= f), f) for f in firings if any(x <= f for x in arrivals)]
    return found + [(a, max(x for x in firings if x < a)) for a in arrivals if any(x < a for x in firings)]


@pytest.mark.parametrize("pairing", ["all", "nearest"])
def test_every_weight_is_the_sum_of_its_pairs(pairing):
    rng = np.random.default_rng(3)
    synapses = sparse_synapses(rng, 12, 7, 0.5)
    delays = rng.integers(0, 6, 12)
    rule = STDP(**WIDE, pairing=pairing)
    sent, fired = spike_trains(rng, 300, 12, 0.08), spike_trains(rng, 300, 7, 0.06)
    run = PlasticSimulation(taught(synapses, 7, delays), {"learns": rule})
    activity = run.run({"in": sent, "teacher": fired})
    assert np.array_equal(activity.events["out"].dense() > 0, fired)
    expected, updates = synapses.weight.copy(), 0
    source = np.repeat(np.arange(12), np.diff(synapses.first))
    for k, (s, n) in enumerate(zip(source, synapses.target, strict=True)):
        arrivals = [a for a in np.flatnonzero(sent[:, s]) + delays[s] if a < 300]
        firings = np.flatnonzero(fired[:, n])
        for a, f in pairs_of(arrivals, firings, pairing):
            delta = (f - a) * 1e-3
            expected[k] += 0.011 * np.exp(-delta / 0.017) if delta >= 0 else -0.013 * np.exp(delta / 0.034)
        updates += sum(any(x <= f for x in arrivals) for f in firings) + sum(any(x < a for x in firings) for a in arrivals)
    np.testing.assert_allclose(run.weights("learns"), expected, rtol=0, atol=1e-12)
    assert np.abs(expected - synapses.weight).min() > 1e-3
    counts = run.counts["learns"]
    assert counts.weight_updates == counts.synapses_read == updates
    arrived = sum(int(sent[: 300 - delays[s], s].sum()) for s in range(12))
    assert counts.trace_updates == arrived + fired.sum()


@pytest.mark.parametrize("exponent", [0.0, 0.4, 1.0])
def test_bounds_in_the_order_of_events(exponent):
    """Soft and hard bounds depend on the order of the changes: the trace is summed afresh from the spikes at each of them."""
    rng = np.random.default_rng(4)
    rule = STDP(plus=0.2, minus=0.23, tau_plus_s=0.01, tau_minus_s=0.02, low=-0.5, high=1.5, exponent=exponent)
    sent, fired = spike_trains(rng, 400, 5, 0.1), spike_trains(rng, 400, 3, 0.1)
    synapses = sparse_synapses(rng, 5, 3, 1.0)
    run = PlasticSimulation(taught(synapses, 3), {"learns": rule})
    history = run.run({"in": sent, "teacher": fired}, record=["learns"]).weights["learns"]
    touched = 0
    for k, (s, n) in enumerate(zip(np.repeat(np.arange(5), 3), synapses.target, strict=True)):
        w = synapses.weight[k]
        for t in range(400):
            if sent[t, s]:
                trace = sum(np.exp(-(t - f) * 1e-3 / 0.02) for f in np.flatnonzero(fired[:t, n]))
                w = max(-0.5, w - 0.23 * trace * ((w + 0.5) / 2) ** exponent)
            if fired[t, n]:
                trace = sum(np.exp(-(t - a) * 1e-3 / 0.01) for a in np.flatnonzero(sent[: t + 1, s]))
                w = min(1.5, w + 0.2 * trace * ((1.5 - w) / 2) ** exponent)
            assert history[t, k] == pytest.approx(w, abs=1e-12)
            touched += w in (-0.5, 1.5)
    assert touched > 100 or exponent == 1.0


def test_window_measured_from_pairs_is_the_formula():
    """One synapse a lag: its one pair moves the weight by the window."""
    lags = np.arange(-40, 41)
    rule = STDP(**WIDE)
    sent, fired = np.zeros((100, 81), bool), np.zeros((100, 81), bool)
    sent[50], fired[50 + lags, np.arange(81)] = True, True
    run = PlasticSimulation(taught(Synapses.from_dense(np.eye(81), keep_zeros=False), 81), {"learns": rule})
    run.run({"in": sent, "teacher": fired})
    measured = run.weights("learns") - 1
    np.testing.assert_allclose(measured, rule.window(lags * 1e-3), rtol=0, atol=1e-15 * 50)
    assert measured[40] == pytest.approx(0.011)
    assert measured[39] < 0 < measured[41] < measured[40]


def test_a_value_counts_as_so_many_spikes():
    rule = STDP(**WIDE)
    sent = np.zeros((20, 1))
    sent[3], sent[12] = 2.5, -1.0
    fired = np.zeros((20, 1))
    fired[7] = 1
    run = PlasticSimulation(taught(Synapses.from_dense([[0.0]]), 1), {"learns": rule})
    run.run({"in": sent, "teacher": fired})
    expected = 2.5 * 0.011 * np.exp(-4 / 17) + 0.013 * np.exp(-5 / 34)
    assert run.weights("learns")[0] == pytest.approx(expected, abs=1e-15)


def test_eligibility_is_turned_into_weight_by_the_modulator():
    """Against explicit sums: every pair's change, decayed to the step of the reward, times the reward of the target."""
    rng = np.random.default_rng(5)
    rule = ThreeFactor(pairs=STDP(**WIDE), tau_eligibility_s=0.05, rate=0.7)
    sent, fired = spike_trains(rng, 200, 6, 0.08), spike_trains(rng, 200, 4, 0.08)
    reward = np.where(rng.random((200, 4)) < 0.05, rng.normal(size=(200, 4)), 0.0)
    synapses = sparse_synapses(rng, 6, 4, 0.8)
    run = PlasticSimulation(taught(synapses, 4), {"learns": rule})
    run.run({"in": sent, "teacher": fired}, modulator={"learns": reward})
    source = np.repeat(np.arange(6), np.diff(synapses.first))
    for k, (s, n) in enumerate(zip(source, synapses.target, strict=True)):
        expected = synapses.weight[k]
        for t in np.flatnonzero(reward[:, n]):
            for a, f in pairs_of(np.flatnonzero(sent[:, s]), np.flatnonzero(fired[:, n]), "all"):
                if max(a, f) <= t:
                    expected += 0.7 * reward[t, n] * np.exp(-(t - max(a, f)) / 50) * rule.pairs.window((f - a) * 1e-3)
        assert run.weights("learns")[k] == pytest.approx(expected, abs=1e-12)
    assert run.counts["learns"].eligibility_updates > 0


def test_reward_tells_two_actions_apart():
    """Two outputs fire by chance with their cue; the reward comes 10 ms later, when the first fired. Its weight rises, the
    other's does not; with a reward that has nothing to do with them, neither does."""

    def change(follows, seed):
        rng = np.random.default_rng(seed)
        rule = ThreeFactor(pairs=STDP(**{**WIDE, "plus": 0.1, "minus": 0.02}), tau_eligibility_s=0.01)
        run = PlasticSimulation(taught(Synapses.from_dense([[0.0], [0.0]]), 2), {"learns": rule})
        for _ in range(60):
            cue, action, reward = np.zeros((40, 1)), np.zeros((40, 2)), np.zeros(40)
            cue[0] = 1
            chosen = int(rng.integers(2))
            action[3, chosen] = 1
            reward[13] = (1.0 if chosen == 0 else -1.0) if follows else rng.choice([-1.0, 1.0])
            run.run({"in": cue, "teacher": action}, modulator={"learns": reward})
        return run.weights("learns")

    told = np.array([change(True, seed) for seed in range(3)])
    blind = np.array([change(False, seed) for seed in range(3)])
    assert (told[:, 0] > 0.5).all()
    assert (told[:, 1] < -0.5).all()
    assert np.abs(blind).max() < 0.35


def recurrent(rng):
    """Inputs, two populations that are joined both ways with delays, and a readout."""
    cells = Neurons(
        "integrate_and_fire", decay_i=0.7, decay_v=0.9, threshold=1.0, refractory_steps=2, adaptation=0.2, decay_a=0.95
    )
    return SpikingNetwork(
        "recurrent",
        (
            Population("in", (10,), Neurons("input")),
            Population("a", (8,), cells),
            Population("b", (6,), Neurons("integrate_and_fire", decay_v=0.8, reset="subtract")),
            Population("out", (3,), Neurons("readout", decay_v=0.9)),
        ),
        (
            Projection("in_a", "in", "a", sparse_synapses(rng, 10, 8, 0.6)),
            Projection("a_b", "a", "b", sparse_synapses(rng, 8, 6, 0.6), rng.integers(0, 4, 8)),
            Projection("b_a", "b", "a", sparse_synapses(rng, 6, 8, 0.3, 0.0, 0.3), 2),
            Projection("b_out", "b", "out", sparse_synapses(rng, 6, 3, 1.0)),
        ),
        ("out",),
    )


RULES = {
    "in_a": STDP(plus=0.05, minus=0.06, tau_plus_s=0.02, tau_minus_s=0.02),
    "b_a": ThreeFactor(pairs=STDP(plus=0.05, minus=0.06, tau_plus_s=0.02, tau_minus_s=0.02, exponent=1), tau_eligibility_s=0.1),
}


def test_runs_go_on_where_the_last_one_ended():
    rng = np.random.default_rng(6)
    network, inputs, reward = recurrent(rng), spike_trains(rng, 200, 10, 0.2), rng.normal(size=200)
    whole, parts = PlasticSimulation(network, RULES), PlasticSimulation(network, RULES)
    activity = whole.run({"in": inputs}, modulator={"b_a": reward})
    pieces = [parts.run({"in": inputs[a:b]}, modulator={"b_a": reward[a:b]}) for a, b in ((0, 1), (1, 90), (90, 90), (90, 200))]
    for name in ("a", "b"):
        joined = np.concatenate([one.events[name].dense() for one in pieces])
        assert np.array_equal(joined, activity.events[name].dense())
        assert joined.any()
    assert np.array_equal(np.concatenate([one.values["out"] for one in pieces]), activity.values["out"])
    for name in RULES:
        assert np.array_equal(whole.weights(name), parts.weights(name))
        assert not np.array_equal(whole.weights(name), network.projections[["in_a", "a_b", "b_a"].index(name)].synapses.weight)
    assert whole.counts == parts.counts
    learned = {one.name: one.synapses.weight for one in whole.learned().projections}
    assert np.array_equal(learned["in_a"], whole.weights("in_a"))
    assert np.array_equal(learned["a_b"], whole.weights("a_b"))


CELLS = {
    "adaptive": Neurons(
        "integrate_and_fire", decay_i=0.6, decay_v=0.9, gain=0.7, threshold=0.8, adaptation=0.3, decay_a=0.9, reset="subtract"
    ),
    "two currents": Neurons(
        "integrate_and_fire", decay_i=0.6, decay_i2=0.3, gain2=0.4, decay_v=0.9, bias=0.01, refractory_steps=3, reset="subtract"
    ),
    "reset later": Neurons(
        "integrate_and_fire", decay_v=0.8, input_bias=0.05, reset_next_step=True, refractory_steps=2, fires_at_threshold=True
    ),
    "resonating": Neurons("resonate_and_fire", decay_v=0.95, angle=0.4, threshold=0.9, v_init=0.2, refractory_steps=1),
    "threshold": Neurons("threshold", gain=0.9, bias=0.1, fires_at_threshold=True),
}


@pytest.mark.parametrize("cell", CELLS)
def test_without_learning_it_is_the_reference_simulator_bit_for_bit(cell):
    rng = np.random.default_rng(12)
    network = SpikingNetwork(
        "reference",
        (
            Population("in", (9,), Neurons("input")),
            Population("a", (7,), CELLS[cell]),
            Population("b", (5,), Neurons("integrate_and_fire", decay_v=rng.uniform(0.5, 1, 5))),
            Population("out", (2,), Neurons("readout", decay_i=0.5, decay_v=0.9)),
        ),
        (
            Projection("in_a", "in", "a", sparse_synapses(rng, 9, 7, 0.6), rng.integers(0, 5, 9), int(cell == "two currents")),
            Projection("b_a", "b", "a", sparse_synapses(rng, 5, 7, 0.6, -0.3, 0.3), 1),
            Projection("a_b", "a", "b", sparse_synapses(rng, 7, 5, 0.6), 0),
            Projection("b_out", "b", "out", sparse_synapses(rng, 5, 2, 1.0), rng.integers(0, 3, 5)),
        ),
        ("out",),
    )
    sent = np.where(rng.random((300, 9)) < 0.2, rng.choice([1.0, 0.5, 1.7], (300, 9)), 0.0)
    still = STDP(plus=0.0, minus=0.0, tau_plus_s=0.02, tau_minus_s=0.02, low=-2.0, high=2.0)
    ours = PlasticSimulation(network, dict.fromkeys(["in_a", "a_b"], still)).run({"in": sent})
    reference = simulate(network, {"in": sent})
    assert ours.events == reference.events
    assert np.array_equal(ours.values["out"], reference.values["out"])
    assert min(reference.events[name].count for name in ("a", "b")) > 40


def test_threads_beside_each_other_change_nothing():
    rng = np.random.default_rng(7)
    network, inputs, reward = recurrent(rng), spike_trains(rng, 150, 10, 0.2), rng.normal(size=150)

    def once(_):
        run = PlasticSimulation(network, RULES)
        run.run({"in": inputs}, modulator={"b_a": reward})
        return np.concatenate([run.weights(name) for name in RULES])

    alone = once(0)
    with ThreadPoolExecutor(4) as pool:
        assert all(np.array_equal(alone, one) for one in pool.map(once, range(8)))


def test_stuck_synapses_keep_their_weight_and_others_learn():
    rng = np.random.default_rng(8)
    synapses = sparse_synapses(rng, 6, 4, 1.0)
    sent, fired = spike_trains(rng, 200, 6, 0.1), spike_trains(rng, 200, 4, 0.1)
    network, rule = taught(synapses, 4), STDP(**WIDE)
    stuck = {3: 0.0, 10: 99.0}  # beyond the bounds: a fault keeps no rule
    clean, faulty = (
        PlasticSimulation(network, {"learns": rule}),
        PlasticSimulation(network, {"learns": rule}, stuck={"learns": stuck}),
    )
    for run in (clean, faulty):
        run.run({"in": sent, "teacher": fired})
    differs = np.flatnonzero(clean.weights("learns") != faulty.weights("learns"))
    assert differs.tolist() == [3, 10]
    assert faulty.weights("learns")[[3, 10]].tolist() == [0.0, 99.0]
    assert faulty.counts["learns"].weight_updates < clean.counts["learns"].weight_updates


def test_learning_makes_up_for_stuck_synapses():
    """A target that the others' weights must carry: multiplicative STDP, 10 of 20 sources are stuck at 0, and it still comes to
    fire with the pattern, later than without faults."""

    def first_firing(stuck):
        cell = Neurons("integrate_and_fire", decay_v=0.5, threshold=2.0)
        network = SpikingNetwork(
            "grows",
            (Population("in", (20,), Neurons("input")), Population("out", (1,), cell), Population("t", (1,), Neurons("input"))),
            (
                Projection("learns", "in", "out", Synapses.from_dense(np.full((1, 20), 0.02))),
                Projection("teaches", "t", "out", Synapses.from_dense([[5.0]])),
            ),
            ("out",),
        )
        rule = STDP(plus=0.02, minus=0.005, tau_plus_s=0.01, tau_minus_s=0.01, exponent=1)
        run = PlasticSimulation(network, {"learns": rule}, stuck={"learns": dict.fromkeys(range(stuck), 0.0)})
        for trial in range(40):
            pattern, teacher = np.zeros((60, 20)), np.zeros((60, 1))
            pattern[5] = 1
            if run.run({"in": pattern, "t": teacher}).events["out"].counts()[5]:
                return trial
            teacher[6] = 1
            run.run({"in": pattern, "t": teacher})
        return 99

    assert first_firing(0) < first_firing(10) < 40
    assert first_firing(20) == 99


def test_errors_name_what_is_wrong():
    synapses = Synapses.from_dense([[0.5]])
    network, rule = taught(synapses, 1), STDP(**WIDE)
    pair = {"in": np.zeros((4, 1)), "teacher": np.zeros((4, 1))}
    with pytest.raises(InputError, match=r"^projection: unknown name 'learn'; did you mean 'learns'\?$"):
        PlasticSimulation(network, {"learn": rule})
    with pytest.raises(InputError, match=r"^projection 'learns': weights 0.5 to 0.5, expected 0 to 0.25$"):
        PlasticSimulation(network, {"learns": STDP(**{**WIDE, "low": 0.0, "high": 0.25})})
    with pytest.raises(InputError, match=r"^stuck: expected synapses 0 to 0, got 1$"):
        PlasticSimulation(network, {"learns": rule}, stuck={"learns": {1: 0.0}})
    with pytest.raises(InputError, match=r"^stuck: projection 'learns' has weights without codes, expected synapse → weight$"):
        PlasticSimulation(network, {"learns": rule}, stuck={"learns": FaultMap.none()})
    with pytest.raises(InputError, match=r"^stuck: projection 'teaches' does not learn; write its weights instead$"):
        PlasticSimulation(network, {"learns": rule}, stuck={"teaches": {0: 0.0}})
    run = PlasticSimulation(network, {"learns": rule})
    with pytest.raises(InputError, match=r"^inputs: 'teacher' is missing$"):
        run.run({"in": pair["in"]})
    with pytest.raises(InputError, match=r"^inputs: unknown name 'inn'; did you mean 'in'\?$"):
        run.run({"inn": pair["in"]})
    with pytest.raises(InputError, match=r"^steps: expected one number of steps, got \[4, 5\]$"):
        run.run(pair, steps=5)
    with pytest.raises(InputError, match=r"^inputs: 'in': expected finite numbers \(steps, 1\), got \(4, 2\)$"):
        run.run({**pair, "in": np.zeros((4, 2))})
    with pytest.raises(InputError, match=r"^modulator: unknown name 'learns'; known: none$"):
        run.run(pair, modulator={"learns": np.zeros(4)})
    three = PlasticSimulation(network, {"learns": ThreeFactor(pairs=rule, tau_eligibility_s=1.0)})
    with pytest.raises(InputError, match=r"^modulator: 'learns' is missing$"):
        three.run(pair)
    with pytest.raises(InputError, match=r"^modulator: 'learns': expected finite numbers \(4,\) or \(4, 1\), got \(3,\)$"):
        three.run(pair, modulator={"learns": np.zeros(3)})
    readout = SpikingNetwork(
        "r",
        (Population("in", (1,), Neurons("input")), Population("out", (1,), Neurons("readout"))),
        (Projection("p", "in", "out", synapses),),
        ("out",),
    )
    with pytest.raises(InputError, match=r"^projection 'p': 'out' never fires, so nothing can be learned$"):
        PlasticSimulation(readout, {"p": rule})


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("tau_plus_s", 0.0, "tau_plus_s: expected seconds > 0, got 0.0"),
        ("tau_minus_s", float("nan"), "tau_minus_s: expected seconds > 0, got nan"),
        ("pairing", "some", "pairing: unknown name 'some'; known: all, nearest"),
        ("exponent", -1.0, "exponent: expected a number ≥ 0, got -1.0"),
        ("high", -60.0, "high: expected more than low = -50, got -60"),
        ("plus", float("inf"), "plus: expected a finite number, got inf"),
    ],
)
def test_fields_out_of_range(field, value, text):
    with pytest.raises(InputError) as error:
        STDP(**{**WIDE, field: value})
    assert str(error.value) == text
