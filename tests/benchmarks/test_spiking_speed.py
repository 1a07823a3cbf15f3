"""How fast spiking networks run, in CPU seconds of one core, beside Brian2 where it is installed. Nothing is asserted as a time.

Aim: the CUBA network of 4,000 neurons, 10,000 steps, in 0.1 s.
"""

from time import process_time

import numpy as np
import pytest

from neuromorphic.dynamics import simulate
from neuromorphic.network import Neurons, Population, Projection, SpikingNetwork, Synapses
from neuromorphic.standard_networks import cuba_network

STEPS = 10_000


@pytest.mark.benchmark(group="CUBA network", timer=process_time)
def test_cuba(benchmark):
    network = cuba_network(seed=1)
    activity = benchmark.pedantic(simulate, (network,), {"steps": STEPS}, rounds=5, warmup_rounds=1)
    least = benchmark.stats.stats.min
    copied = np.zeros(3 * network.neurons)
    start = process_time()
    for _ in range(STEPS):
        copied[:] = 1.0
    filled = process_time() - start
    spikes = activity.events["neurons"].count
    print(
        f"\nCUBA: {least:.3f} s CPU, {least / STEPS / network.neurons * 1e9:.2f} ns a neuron a step, {spikes} spikes, "
        f"{spikes * network.synapses / network.neurons / 1e6:.1f} M synaptic events; only writing its state: {filled:.3f} s"
    )


@pytest.mark.benchmark(group="CUBA network", timer=process_time)
def test_cuba_in_brian2(benchmark):
    b2 = pytest.importorskip("brian2")
    b2.prefs.codegen.target = "cython"
    network = cuba_network(seed=1)

    def build():
        b2.start_scope()
        b2.defaultclock.dt = network.dt_s * b2.second
        cells = b2.NeuronGroup(
            network.neurons,
            """dv/dt = (ge + gi - (v + 49)) / (20*ms) : 1 (unless refractory)
            dge/dt = -ge / (5*ms) : 1
            dgi/dt = -gi / (10*ms) : 1""",
            threshold="v > -50",
            reset="v = -60",
            refractory=5 * b2.ms,
            method="exact",
        )
        cells.v = network.population("neurons").neurons.v_init
        parts = [cells, b2.SpikeMonitor(cells)]
        for one, weight in zip(network.projections, ("ge += 1.62", "gi -= 9"), strict=True):
            synapses = b2.Synapses(cells, cells, on_pre=weight)
            synapses.connect(i=np.repeat(np.arange(network.neurons), np.diff(one.synapses.first)), j=one.synapses.target)
            parts.append(synapses)
        whole = b2.Network(*parts)
        # Code is generated and compiled when a network first runs, if for no time at all.
        whole.run(0 * b2.second)
        return (whole, parts[1]), {}

    def run(whole, monitor):
        whole.run(STEPS * b2.defaultclock.dt)
        return monitor.num_spikes

    spikes = benchmark.pedantic(run, setup=build, rounds=3, warmup_rounds=1)
    print(f"\nBrian2 {b2.__version__} (cython): {benchmark.stats.stats.min:.3f} s CPU, {spikes} spikes")


@pytest.mark.benchmark(group="layers of neurons", timer=process_time)
@pytest.mark.parametrize("each", [False, True], ids=["one number a parameter", "one number a neuron"])
def test_dense_layers(benchmark, each):
    """784, 1024, 1024 and 10 neurons, every one joined to every one, 5 % of the inputs at each of 500 steps."""
    rng = np.random.default_rng(0)
    sizes = (784, 1024, 1024, 10)
    names = [f"layer{k}" for k in range(4)]
    leaks = [np.full(size, 0.9) + 0.01 * each * rng.random(size) for size in sizes]
    populations = [Population("layer0", (784,), Neurons("input"))]
    populations += [Population(names[k], (sizes[k],), Neurons("integrate_and_fire", decay_v=leaks[k])) for k in (1, 2, 3)]
    projections = [
        Projection(f"to{k}", names[k - 1], names[k], Synapses.from_dense(rng.normal(0, 0.15, (sizes[k], sizes[k - 1]))))
        for k in (1, 2, 3)
    ]
    network = SpikingNetwork("layers", tuple(populations), tuple(projections), (names[3],))
    given = rng.random((500, 784)) < 0.05
    activity = benchmark.pedantic(simulate, (network, {"layer0": given}), rounds=3, warmup_rounds=1)
    events = sum(activity.events[names[k]].count * sizes[k + 1] for k in range(3))
    least = benchmark.stats.stats.min
    print(f"\nlayers: {least:.3f} s CPU, {events / 1e6:.1f} M synaptic events, {least / events * 1e9:.2f} ns each")
