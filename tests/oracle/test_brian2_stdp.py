"""Plasticity against Brian2 (CeCILL 2.1): event-driven traces of its own, each spike its own event."""

import numpy as np
import pytest

from neuromorphic.learning.plastic_simulation import PlasticSimulation
from neuromorphic.learning.plasticity import STDP
from neuromorphic.network import Neurons, Population, Projection, SpikingNetwork, Synapses

b2 = pytest.importorskip("brian2")

STEPS, SOURCES, TARGETS = 400, 20, 5
TRACES = """
    w : 1
    dx/dt = -x / tau_plus : 1 (event-driven)
    dy/dt = -y / tau_minus : 1 (event-driven)
"""
RULES = {
    "additive": STDP(plus=0.05, minus=0.055, tau_plus_s=0.017, tau_minus_s=0.034, low=0.0, high=1.0),
    "multiplicative": STDP(plus=0.1, minus=0.12, tau_plus_s=0.017, tau_minus_s=0.034, low=0.0, high=1.0, exponent=1.0),
    "in between": STDP(plus=0.1, minus=0.12, tau_plus_s=0.017, tau_minus_s=0.034, low=0.0, high=1.0, exponent=0.3),
    "nearest": STDP(plus=0.05, minus=0.055, tau_plus_s=0.017, tau_minus_s=0.034, low=0.0, high=1.0, pairing="nearest"),
}


def brian(rule, sent, weights, delay_steps):
    """(weights, spikes of the targets): what arrives is weighed with the weights of the step's beginning, then learned from."""
    b2.prefs.codegen.target = "numpy"
    b2.start_scope()
    b2.defaultclock.dt = 1 * b2.ms
    step, neuron = np.nonzero(sent)
    source = b2.SpikeGeneratorGroup(sent.shape[1], neuron, step * b2.ms)
    cells = b2.NeuronGroup(TARGETS, "dv/dt = -v / (9*ms) : 1", threshold="v > 1", reset="v = 0", method="exact", name="cells")
    names = {
        "tau_plus": rule.tau_plus_s * b2.second,
        "tau_minus": rule.tau_minus_s * b2.second,
        "plus": rule.plus,
        "minus": rule.minus,
        "low": rule.low,
        "high": rule.high,
        "mu": rule.exponent,
    }
    bump = "{0} = 1" if rule.pairing == "nearest" else "{0} += 1"
    synapses = b2.Synapses(
        source,
        cells,
        TRACES,
        on_pre={
            "send": "v_post += w",
            "learn": "w = clip(w - minus*y*((w - low)/(high - low))**mu, low, high); " + bump.format("x"),
        },
        on_post={"post": "w = clip(w + plus*x*((high - w)/(high - low))**mu, low, high); " + bump.format("y")},
        delay={"send": (delay_steps - 1) * b2.ms, "learn": delay_steps * b2.ms},
        namespace=names,
        method="exact",
    )
    synapses.learn.order, synapses.post.order, synapses.send.order = 0, 1, 2
    synapses.connect()
    synapses.w = weights.ravel()  # by source
    monitor = b2.SpikeMonitor(cells)
    network = b2.Network(source, cells, synapses, monitor)
    network.schedule = ["start", "groups", "thresholds", "resets", "synapses", "end"]
    network.run(STEPS * b2.ms)
    fired = np.zeros((STEPS, TARGETS), bool)
    fired[np.round(np.asarray(monitor.t / b2.ms)).astype(int), np.asarray(monitor.i)] = True
    return np.asarray(synapses.w[:]), fired


@pytest.mark.parametrize("delay_steps", [1, 4])
@pytest.mark.parametrize("name", RULES)
def test_a_network_that_fires_by_the_weights_it_learns(name, delay_steps):
    rng = np.random.default_rng(11)
    rule = RULES[name]
    sent = rng.random((STEPS, SOURCES)) < 0.06
    weights = rng.uniform(0.2, 0.8, (SOURCES, TARGETS))
    theirs, their_spikes = brian(rule, sent, weights, delay_steps)
    keep = float(np.exp(-1 / 9))
    network = SpikingNetwork(
        "cells",
        (
            Population("in", (SOURCES,), Neurons("input")),
            Population("cells", (TARGETS,), Neurons("integrate_and_fire", decay_v=keep, gain=keep)),
        ),
        (Projection("learns", "in", "cells", Synapses.from_dense(weights.T), delay_steps),),
        ("cells",),
    )
    run = PlasticSimulation(network, {"learns": rule})
    ours = run.run({"in": sent}).events["cells"].dense() > 0
    assert np.array_equal(ours, their_spikes)
    assert ours.sum() > 50
    np.testing.assert_allclose(run.weights("learns"), theirs, rtol=0, atol=1e-12)
    assert np.abs(theirs - weights.ravel()).mean() > 0.05
