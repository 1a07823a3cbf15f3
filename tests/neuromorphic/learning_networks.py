"""Networks whose targets fire when they are told to, so that spike trains can be laid down."""

import numpy as np

from neuromorphic.network import Neurons, Population, Projection, SpikingNetwork, Synapses

TEACHER = 1e6


def taught(synapses, targets, delay_steps=0, dt_s=1e-3):
    """``in`` → ``out`` by the projection ``learns``; ``out`` fires in the steps in which ``teacher`` sends, and in no other."""
    return SpikingNetwork(
        "taught",
        (
            Population("in", (synapses.sources,), Neurons("input")),
            Population("teacher", (targets,), Neurons("input")),
            Population("out", (targets,), Neurons("threshold", threshold=TEACHER / 2)),
        ),
        (
            Projection("learns", "in", "out", synapses, delay_steps),
            Projection("teaches", "teacher", "out", Synapses.from_dense(np.eye(targets) * TEACHER, keep_zeros=False)),
        ),
        ("out",),
        dt_s=dt_s,
    )


def sparse_synapses(rng, sources, targets, density, low=0.2, high=0.8):
    there = rng.random((targets, sources)) < density
    return Synapses.from_dense(np.where(there, rng.uniform(low, high, there.shape), 0.0), keep_zeros=False)
