"""A whole run on Loihi in CPU seconds of one core: spikes, network with contention, energy. Nothing is asserted as a time.

Aim: a network of the size of DVS gestures, 18,500 neurons and 51.5 million synaptic operations in 1000 steps, in 1.4 s and 500 MB
(SANA-FE 2.2.9: 14.1 s and 4.4 GB).
"""

import resource
from time import process_time

import numpy as np
import pytest
from chip_networks import image_network

from hwsim import get_device
from neuromorphic import bernoulli_events


@pytest.mark.benchmark(group="whole run of a chip", timer=process_time)
def test_gestures_on_loihi(benchmark):
    device = get_device("loihi")
    network = image_network((2, 64, 64), [(9, 3, 2), (8, 3, 1), (16, 3, 2)], [11])
    numbers = device.quantise(network)
    mapping = device.map(numbers)
    events = {network.inputs[0]: bernoulli_events(np.full(2 * 64 * 64, 0.038), seed=1, steps=1000)}
    ran = benchmark.pedantic(lambda: device.run(numbers, events, mapping=mapping), rounds=3, warmup_rounds=1)
    counts = {name: int(count.sum()) for name, count in ran.costs.counts.items()}
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    benchmark.extra_info |= {"memory_mb": round(megabytes), "rung": ran.costs.rung, **counts}
    print(
        f"\n{network.neurons:,} neurons, {counts['synaptic_operation']:,} synaptic operations, {counts['spike_within_tile']:,} "
        f"packets ({ran.costs.rung}): {benchmark.stats.stats.min:.2f} s CPU, {megabytes:.0f} MB in all"
    )
