"""How fast chips are emulated with all their counts, in CPU seconds of one core. Nothing is asserted as a time.

Aims: 18,678 neurons, 1000 steps with 51.5 million synaptic operations, in 0.7 s and 300 MB (SANA-FE 2.2.9, whose authors give
such a network of DVS gestures, takes 14.1 s and 4.4 GB with its network-on-chip); the CUBA network, 10,000 steps, in 0.5 s.
"""

import resource
from itertools import pairwise
from time import process_time

import numpy as np
import pytest

from neuromorphic.chip.quantisation import quantise
from neuromorphic.chip.running import run
from neuromorphic.events import Events
from neuromorphic.network import Neurons, Population, Projection, SpikingNetwork, Synapses
from neuromorphic.standard_networks import cuba_network

CUBA_STEPS = 10_000


def gesture_sized(seed=1):
    """Layers of 18,678 neurons, sparse as convolutions are: 9 neighbours in 16 channels; then two dense ones."""
    rng = np.random.default_rng(seed)
    sizes = [2048, 8192, 4096, 4096, 2048, 235, 11]
    neurons = Neurons("integrate_and_fire", decay_v=0.9)
    populations = [Population("l0", (sizes[0],), Neurons("input"))]
    projections = []
    for k, (a, b) in enumerate(pairwise(sizes), 1):
        populations.append(Population(f"l{k}", (b,), neurons))
        if k <= 4:
            channels = np.arange(16)[:, None] * (b // 16)
            targets = ((np.arange(a) * b // a // 16)[:, None] + (channels + np.arange(9)).ravel()) % b
        else:
            targets = np.broadcast_to(np.arange(b), (a, b))
        sources = np.repeat(np.arange(a), targets.shape[1])
        weights = rng.normal(0.02, 0.12, sources.size)
        kind = "convolution" if k <= 4 else "dense"
        synapses = Synapses.from_coo(sources, targets.ravel(), weights, sources=a, kind=kind)
        projections.append(Projection(f"p{k}", f"l{k - 1}", f"l{k}", synapses))
    return SpikingNetwork("gestures", tuple(populations), tuple(projections), ("l6",))


def slices(network, neurons_a_core):
    cores, first = {}, 0
    for one in network.populations:
        if one.kind != "input":
            cores[one.name] = np.arange(one.size) // neurons_a_core + first
            first = int(cores[one.name].max()) + 1
    return cores


@pytest.mark.benchmark(group="gesture-sized network", timer=process_time)
@pytest.mark.parametrize("arithmetic", ["loihi", "spinnaker2"])
def test_gestures(benchmark, arithmetic):
    made = quantise(gesture_sized(), arithmetic)
    cores = slices(made, 256)
    rate = 0.0365  # so that operations are about those 51.5 million
    given = {"l0": Events.from_dense(np.random.default_rng(2).random((1000, 2048)) < rate)}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run(made, given, steps=10)
    found = benchmark.pedantic(run, (made, given), {"steps": 1000, "mapping": cores}, rounds=3)
    start = process_time()
    packets = found.packets()
    expanded = process_time() - start
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"\n{arithmetic}: {benchmark.stats.stats.min:.3f} s CPU, {made.neurons} neurons, {made.synapses / 1e6:.1f} M synapses, "
        f"{found.synaptic_operations.sum() / 1e6:.1f} M operations, {found.spikes.sum()} spikes on {found.cores} cores; "
        f"{packets.count / 1e6:.1f} M packets in {expanded:.3f} s; {after / 1024:.0f} MB, {before / 1024:.0f} of it before"
    )


@pytest.mark.benchmark(group="CUBA network on a chip", timer=process_time)
@pytest.mark.parametrize("arithmetic", ["loihi", "float32", "s16.15"])
def test_cuba(benchmark, arithmetic):
    network = cuba_network(seed=1)
    if arithmetic == "loihi":
        # Loihi's neuron has one synaptic current: both fall with that of inhibition.
        population = network.populations[0]
        neurons = population.neurons
        single = Neurons(
            "integrate_and_fire", decay_i=neurons.decay_i2, gain=neurons.gain2, decay_i2=neurons.decay_i2, gain2=neurons.gain2,
            decay_v=neurons.decay_v, bias=neurons.bias, threshold=neurons.threshold, v_reset=neurons.v_reset,
            refractory_steps=neurons.refractory_steps, v_init=neurons.v_init,
        )  # fmt: skip
        network = SpikingNetwork(
            "cuba", (Population("neurons", population.shape, single),), network.projections, ("neurons",), network.dt_s
        )
    made = quantise(network, arithmetic)
    run(made, {}, steps=10)
    found = benchmark.pedantic(run, (made, {}), {"steps": CUBA_STEPS, "mapping": slices(made, 128)}, rounds=3)
    least = benchmark.stats.stats.min
    print(
        f"\n{arithmetic}: {least:.3f} s CPU, {least / CUBA_STEPS / made.neurons * 1e9:.2f} ns a neuron a step, "
        f"{found.spikes.sum()} spikes, {found.synaptic_operations.sum() / 1e6:.1f} M operations on {found.cores} cores"
    )
