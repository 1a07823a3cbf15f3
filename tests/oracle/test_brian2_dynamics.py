"""The dynamics against Brian2 (CeCILL 2.1): the same network from the same first voltages has the same spikes, every one.

Brian2 updates the neurons, finds who fires and only then delivers: what it sends without delay is here one step under way.
"""

import numpy as np
import pytest

from neuromorphic.dynamics import simulate
from neuromorphic.network import Neurons, Population, Projection, SpikingNetwork, Synapses
from neuromorphic.standard_networks import cuba_network

b2 = pytest.importorskip("brian2")


def connect(source, target, projection, on_pre):
    synapses = b2.Synapses(source, target, "w : 1", on_pre=on_pre)
    sources = np.repeat(np.arange(projection.synapses.sources), np.diff(projection.synapses.first))
    synapses.connect(i=sources, j=projection.synapses.target)
    synapses.w = projection.synapses.weight
    synapses.delay = (projection.delays[sources] - 1) * b2.defaultclock.dt
    return synapses


def spikes(monitor):
    step, neuron = np.rint(monitor.t / b2.defaultclock.dt).astype(int), np.asarray(monitor.i)
    order = np.lexsort((neuron, step))
    return step[order].tolist(), neuron[order].tolist()


def assert_same_cuba(seed, steps):
    b2.prefs.codegen.target = "numpy"
    b2.start_scope()
    b2.defaultclock.dt = 0.1 * b2.ms
    network = cuba_network(seed=seed)
    cells = b2.NeuronGroup(
        4000,
        """dv/dt = (ge + gi - (v + 49)) / (20*ms) : 1 (unless refractory)
        dge/dt = -ge / (5*ms) : 1
        dgi/dt = -gi / (10*ms) : 1""",
        threshold="v > -50",
        reset="v = -60",
        refractory=5 * b2.ms,
        method="exact",
    )
    cells.v = network.population("neurons").neurons.v_init
    joined = [connect(cells, cells, one, on) for one, on in zip(network.projections, ("ge += w", "gi += w"), strict=True)]
    monitor = b2.SpikeMonitor(cells)
    b2.Network(cells, joined, monitor).run(steps * b2.defaultclock.dt)
    found = simulate(network, steps=steps).events["neurons"]
    assert found.count > 2 * steps
    assert (found.step.tolist(), found.neuron.tolist()) == spikes(monitor)


def test_cuba():
    assert_same_cuba(1, 1000)


@pytest.mark.exhaustive
def test_cuba_of_a_second():
    for seed in (1, 2):
        assert_same_cuba(seed, 10_000)


def test_adapting_neurons_with_a_delay_for_each_source():
    steps, inputs, size = 1500, 30, 20
    rng = np.random.default_rng(4)
    keep_v, keep_i, keep_a = np.exp(-1 / 20), np.exp(-1 / 5), np.exp(-1 / 80)
    gain = 5 / (5 - 20) * (keep_i - keep_v)
    neurons = Neurons(
        "integrate_and_fire", decay_v=keep_v, decay_i=keep_i, gain=gain, threshold=1.0, v_reset=0.1, adaptation=0.3,
        decay_a=keep_a, v_init=rng.random(size),
    )  # fmt: skip
    feed = Projection("feed", "in", "out", Synapses.from_dense(rng.normal(1.2, 1, (size, inputs))), rng.integers(1, 9, inputs))
    back = Projection("back", "out", "out", Synapses.from_dense(rng.normal(-0.5, 1, (size, size))), rng.integers(1, 9, size))
    network = SpikingNetwork(
        "adapting", (Population("in", (inputs,), Neurons("input")), Population("out", (size,), neurons)), (feed, back), ("out",)
    )
    given = rng.random((steps, inputs)) < 0.03

    b2.prefs.codegen.target = "numpy"
    b2.start_scope()
    b2.defaultclock.dt = 1 * b2.ms
    step, which = np.nonzero(given)
    sender = b2.SpikeGeneratorGroup(inputs, which, step * b2.ms)
    # There the trace falls before the threshold is asked, here after: a jump of 1/keep_a there is one of 1 here.
    cells = b2.NeuronGroup(
        size,
        """dv/dt = (g - v) / (20*ms) : 1
        dg/dt = -g / (5*ms) : 1
        da/dt = -a / (80*ms) : 1""",
        threshold="v > 1 + 0.3*a",
        reset="v = 0.1; a += jump",
        method="exact",
        namespace={"jump": 1 / keep_a},
    )
    cells.v = neurons.v_init
    joined = [connect(sender, cells, feed, "g_post += w"), connect(cells, cells, back, "g_post += w")]
    monitor = b2.SpikeMonitor(cells)
    b2.Network(sender, cells, joined, monitor).run(steps * b2.ms)
    found = simulate(network, {"in": given}).events["out"]
    assert found.count > 1000
    assert (found.step.tolist(), found.neuron.tolist()) == spikes(monitor)
