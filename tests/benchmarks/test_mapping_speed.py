"""Mapping a network of the size of a gesture recogniser, on one core; nothing is asserted as a time.

Aim: a second for 18,678 neurons and several million synapses.
"""

import pytest
from chip_networks import chip, connectome, image_network

from neuromorphic.chip.mapping import map_network

GESTURES = ((2, 32, 32), [(16, 3, 1), (16, 3, 1), (8, 5, 2)], [256, 11])


@pytest.mark.parametrize("name", ["loihi", "spinnaker2"])
@pytest.mark.parametrize("placement", ["annealed", "greedy"])
def test_gestures(benchmark, name, placement):
    net, spec = image_network(*GESTURES), chip(name)
    mapping = benchmark(map_network, net, spec, placement=placement)
    benchmark.extra_info.update(neurons=net.neurons, synapses=net.synapses, cores=int(mapping.used.size), hops=mapping.hops)


def test_connectome_spread_over_loihi(benchmark):
    net, spec = connectome(), chip("loihi")
    mapping = benchmark(map_network, net, spec, neurons_per_core=32)
    benchmark.extra_info.update(cores=int(mapping.used.size), hops=mapping.hops)
