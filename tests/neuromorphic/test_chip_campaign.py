"""Campaigns on chips: what a rate draws, the same table however it runs, and scores that fall as more is broken."""

import numpy as np
import pytest
from chip_networks import chip, dense, network, population

from neuromorphic import Events, NeuromorphicChip
from neuromorphic.chip.campaign import ChipCampaign, ChipFaultRates, ChipUnderTest
from neuromorphic.chip.running import run
from neuromorphic.encoders import bernoulli_events
from numerics import InputError

CLASSES, EACH = 4, 12


def task():
    """Four groups of inputs, each of which drives an output of its own."""
    size = CLASSES * EACH
    hidden, out = np.zeros((size, size)), np.zeros((CLASSES, size))
    for k in range(size):
        hidden[k, k] = 1.5
        out[k // EACH, k] = 0.25
    net = network(
        [population("in", size, "input"), population("hidden", size), population("out", CLASSES, decay_v=0.875)],
        [dense("in-hidden", "in", "hidden", hidden), dense("hidden-out", "hidden", "out", out)],
    )
    samples, labels = [], []
    for number in range(8):
        chance = np.full(size, 0.02)
        chance[(number % CLASSES) * EACH : (number % CLASSES + 1) * EACH] = 0.5
        samples.append({"in": bernoulli_events(chance, seed=number, steps=20)})
        labels.append(number % CLASSES)
    return NeuromorphicChip(chip("loihi")).quantise(net), samples, labels


def campaign(faults, **arguments):
    numbers, samples, labels = task()
    return ChipCampaign(numbers, samples, faults, labels=labels, **{"margin": 0.1, "maximum": 60, "seed": 3, **arguments})


def test_rates_draw_binomial_numbers_of_places():
    numbers, _, _ = task()
    rates = ChipFaultRates(dead_neurons=0.1, dead_synapses=0.02, stuck_bits=0.001, state_flips=0.0005)
    counts = []
    for seed in range(200):
        drawn = rates.draw(numbers, steps=22, seed=seed)
        dead = sum(len(some) for some in drawn.dead_neurons.values())
        cut = sum(len(some) for some in drawn.dead_synapses.values())
        assert len(set(drawn.flips)) == len(drawn.flips)
        counts.append((dead, cut, len(drawn.stuck), len(drawn.flips)))
    neurons, synapses = 52, 48 * 48 + 4 * 48
    bits, states = synapses * numbers.arithmetic.weight_bits, neurons * 24 * 2 * 22
    for column, (rate, count) in zip(
        np.transpose(counts), ((0.1, neurons), (0.02, synapses), (0.001, bits), (0.0005, states)), strict=True
    ):
        error = np.sqrt(rate * (1 - rate) * count / 200)
        assert abs(column.mean() - rate * count) < 4 * error
        assert abs(column.var() / (rate * (1 - rate) * count) - 1) < 0.45
    one, other = (repr(rates.draw(numbers, steps=22, seed=5)) for _ in range(2))
    assert one == other


def test_what_is_broken_is_what_runs():
    numbers, samples, _ = task()
    under_test = ChipUnderTest(numbers, samples)
    rates = ChipFaultRates(dead_neurons=0.5)
    outcome = under_test.run_map(rates, seed=1)
    drawn = rates.draw(numbers, steps=22, seed=1)
    found = [run(numbers, sample, faults=drawn).events["out"].dense().sum(axis=0).argmax() for sample in samples]
    clean = [run(numbers, sample).events["out"].dense().sum(axis=0).argmax() for sample in samples]
    assert outcome.changed == sum(a != b for a, b in zip(found, clean, strict=True))
    assert outcome.score == np.mean(np.equal(found, clean))
    nothing = under_test.run_map(ChipFaultRates(), seed=1)
    assert (nothing.outcome, nothing.masked, nothing.score, nothing.faulty_bits) == ("masked", len(samples), 1.0, 0)


def test_more_faults_more_errors_and_the_same_table_however_it_runs(tmp_path):
    faults = {
        "none": ChipFaultRates(),
        "few": ChipFaultRates(dead_neurons=0.1, lost_spikes=0.1, state_flips=1e-4, stuck_bits=1e-3),
        "many": ChipFaultRates(dead_neurons=0.7, lost_spikes=0.5),
    }
    tried = campaign(faults)
    result = tried.run(tmp_path / "one", progress="silent")
    scores = {row["scenario"]: row["score"] for row in result.scores()}
    assert scores["none"] == result.golden_score == 1.0
    assert scores["none"] >= scores["few"] > scores["many"]
    other = campaign(faults).run(tmp_path / "two", workers=2, progress="silent")
    assert list(other.trials) == list(result.trials)
    assert [path.name for path in result.save(tmp_path / "report")][:2] == ["results.csv", "summary.json"]
    with pytest.raises(InputError, match="stored"):
        campaign(faults, seed=4).run(tmp_path / "one", progress="silent")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"labels": [1]}, "labels: expected 8"),
        ({"samples": []}, "samples: expected at least one"),
        ({"faults": {}}, "faults: expected named scenarios"),
        ({"faults": {"a": 0.1}}, "faults: a: expected ChipFaultRates, got float"),
        ({"network": "loihi"}, "network: expected one in a chip's numbers"),
        ({"seed": -1}, "seed: expected an integer"),
    ],
)
def test_bad_input(change, text):
    numbers, samples, labels = task()
    given = {"network": numbers, "samples": samples, "faults": {"a": ChipFaultRates()}, "labels": labels, **change}
    with pytest.raises(InputError, match=text):
        ChipCampaign(given.pop("network"), given.pop("samples"), given.pop("faults"), **given)
    with pytest.raises(InputError, match=r"^lost_spikes: expected 0 to 1, got 2$"):
        ChipFaultRates(lost_spikes=2)


def test_events_of_a_sample_are_checked():
    numbers, _, _ = task()
    with pytest.raises(InputError, match="expected 48 neurons, got 3"):
        ChipUnderTest(numbers, [{"in": Events.from_dense(np.zeros((5, 3)))}])
