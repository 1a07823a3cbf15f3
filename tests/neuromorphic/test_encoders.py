"""Encoders against the laws that they are named after."""

import numpy as np
import pytest
from scipy import stats

from neuromorphic import encoders
from neuromorphic.dynamics import simulate
from neuromorphic.encoders import bernoulli_events, delta_events, latency_events, poisson_events
from neuromorphic.events import Events
from neuromorphic.network import Neurons, Population, Projection, SpikingNetwork, Synapses
from numerics.errors import InputError


def test_bernoulli_law():
    """Counts of each neuron within what the binomial law allows one in 10⁹ times, and no neighbours in time joined."""
    chances = np.array([0.0, 0.01, 0.3, 0.5, 0.99, 1.0])
    events = bernoulli_events(chances, seed=1, steps=20_000)
    dense = events.dense()
    assert set(np.unique(dense)) == {0.0, 1.0}
    assert events.value is None
    low, high = stats.binom.interval(1 - 1e-9, 20_000, chances)
    assert ((low <= dense.sum(axis=0)) & (dense.sum(axis=0) <= high)).all()
    pairs = (dense[1:, 2:5] * dense[:-1, 2:5]).sum(axis=0)
    np.testing.assert_allclose(pairs / 19_999, chances[2:5] ** 2, atol=0.02)
    together = np.corrcoef(dense[:, 1:5].T) - np.eye(4)
    assert np.abs(together).max() < 6 / np.sqrt(20_000)


def test_bernoulli_of_each_step():
    chances = np.tile([[0.0, 1.0], [1.0, 0.0]], (50, 1))
    assert bernoulli_events(chances, seed=3) == Events.from_dense(chances)


def test_poisson_law():
    """The counts' histogram against the Poisson law (chi-squared), and the mean against its interval."""
    rates = np.array([0.0, 20.0, 700.0, 2500.0])
    dense = poisson_events(rates, dt_s=1e-3, seed=5, steps=20_000).dense()
    assert not dense[:, 0].any()
    for k, mean in enumerate(rates[1:] * 1e-3, 1):
        low, high = stats.poisson.interval(1 - 1e-9, mean * 20_000)
        assert low <= dense[:, k].sum() <= high
        most = int(stats.poisson.ppf(1 - 1e-3, mean))
        seen = np.append(np.bincount(dense[:, k].astype(int), minlength=most + 1)[: most + 1], (dense[:, k] > most).sum())
        law = np.append(stats.poisson.pmf(np.arange(most + 1), mean), stats.poisson.sf(most, mean)) * 20_000
        assert stats.chisquare(seen, law).pvalue > 1e-6


@pytest.mark.parametrize("how", [bernoulli_events, lambda rate, **more: poisson_events(rate * 1e3, dt_s=1e-3, **more)])
def test_one_stream_however_it_is_cut(monkeypatch, how):
    rates = np.linspace(0, 1, 37)
    whole = how(rates, seed=9, steps=100)
    assert how(rates, seed=9, steps=100) == whole
    assert how(rates, seed=10, steps=100) != whole
    monkeypatch.setattr(encoders, "PART", 37 * 7 + 1)
    assert how(rates, seed=9, steps=100) == whole


def test_latency_linear():
    events = latency_events([0.0, 0.1, 0.25, 0.5, 1.0], steps=9)
    assert dict(zip(events.neuron.tolist(), events.step.tolist(), strict=True)) == {4: 0, 3: 4, 2: 6, 1: 7}
    assert latency_events([0.0, 0.1, 0.25, 0.5, 1.0], steps=9, threshold=0.25).neuron.tolist() == [4, 3]


def test_latency_logarithmic_is_a_charging_membrane():
    """The neuron that is given the intensities as a constant current fires first in the same steps."""
    values = np.random.default_rng(2).uniform(0.5, 9, 300)
    tau, steps = 12.0, 60
    keep = np.exp(-1 / tau)
    cells = Neurons("integrate_and_fire", decay_v=keep, gain=1 - keep, threshold=1.0, fires_at_threshold=True, reset="none")
    network = SpikingNetwork(
        "charging",
        (Population("in", (300,), Neurons("input")), Population("out", (300,), cells)),
        (Projection("j", "in", "out", Synapses.from_coo(range(300), range(300), np.ones(300), sources=300)),),
        ("out",),
    )
    fired = simulate(network, {"in": np.tile(values, (steps, 1))}).events["out"].dense().astype(bool)
    events = latency_events(values, steps=steps, law="logarithmic", tau_steps=tau, threshold=1.0)
    assert sorted(events.neuron.tolist()) == np.flatnonzero(fired.any(axis=0)).tolist()
    np.testing.assert_array_equal(events.step, fired.argmax(axis=0)[events.neuron])
    assert 200 < events.count < 300


def test_delta_follows_the_signal():
    rng = np.random.default_rng(7)
    signal = np.cumsum(rng.normal(0, 0.4, (500, 6)), axis=0)
    sent = delta_events(signal, threshold=0.3).dense()
    followed = signal[0] + 0.3 * np.cumsum(sent[:, :6] - sent[:, 6:], axis=0)
    assert np.abs(followed - signal).max() < 0.3
    assert not (sent[:, :6] * sent[:, 6:]).any()
    # No event comes unless the signal left the last level by a threshold: at each, it passed what it is said to have passed.
    before = np.vstack((signal[:1], followed[:-1]))
    assert (np.abs(signal - before)[(sent[:, :6] + sent[:, 6:]) > 0] >= 0.3 * (1 - 1e-12)).all()


def test_delta_does_not_chatter():
    """To and fro by less than a threshold around a level, once there: nothing is sent."""
    signal = np.array([0, 1.0, 0.6, 1.3, 0.2, 1.9, 0.1, 0.0, -0.9])[:, None]
    sent = delta_events(signal, threshold=1.0).dense()
    assert sent.T.tolist() == [[0, 1, 0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 1, 0]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bernoulli_events([0.5, 1.5], seed=0, steps=3), "probability: expected 0 to 1, got 0.5 to 1.5"),
        (lambda: bernoulli_events([0.5], seed=0), "steps: expected an integer ≥ 1, got None"),
        (lambda: bernoulli_events([[0.5]], seed=0, steps=2), "steps: expected 1, as probability has, got 2"),
        (lambda: bernoulli_events([0.5], seed=-1, steps=2), "seed: expected an integer ≥ 0, got -1"),
        (lambda: poisson_events([-1.0], dt_s=1e-3, seed=0, steps=2), "rate_hz: expected finite numbers ≥ 0, got -1 to -1"),
        (lambda: poisson_events([1.0], dt_s=0.0, seed=0, steps=2), "dt_s: expected seconds > 0, got 0.0"),
        (lambda: latency_events([1.5], steps=4), "intensity: expected 0 to 1, got 1.5 to 1.5"),
        (lambda: latency_events([0.5], steps=4, law="log"), "law: unknown name 'log'; known: linear, logarithmic"),
        (lambda: latency_events([0.5], steps=4, law="logarithmic"), "threshold: expected a number > 0, got 0.0"),
        (lambda: delta_events([1.0], threshold=1.0), "signal: expected finite numbers (steps, channels), got shape (1,)"),
        (lambda: delta_events([[1.0]], threshold=0.0), "threshold: expected a number > 0, got 0.0"),
        (lambda: delta_events([[0.0], [1.0]], threshold=1e-300), "threshold: 1e-300 is too small for a signal that changes by 1"),
    ],
)
def test_errors(call, message):
    with pytest.raises(InputError) as error:
        call()
    assert str(error.value) == message
