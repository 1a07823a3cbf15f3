"""A constant input of a current that decays, on chips that have none: synapses from a neuron that fires in every step."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from neuromorphic.network import Neurons, Population, Projection, SpikingNetwork, Synapses

if TYPE_CHECKING:
    import numpy.typing as npt

NAME = "constant"


def with_constant_source(network: SpikingNetwork) -> SpikingNetwork:
    """The network with input biases as synapses, where a current that decays has one; spikes are the same.

    The neuron is called ``constant``; its synapses weigh what the biases were, and their projections are called after
    these, as a user never wrote them.
    """
    driven: list[tuple[Population, npt.NDArray[np.float64]]] = []
    for one in network.populations:
        parameters = one.neurons.arrays(one.size)
        if one.neurons.kind != "input" and (parameters["input_bias"] * parameters["decay_i"]).any():
            driven.append((one, parameters["input_bias"]))
    if not driven:
        return network
    name = NAME
    taken = {one.name for one in network.populations} | {one.name for one in network.projections}
    while name in taken:
        name += "_"
    always = Neurons("integrate_and_fire", bias=2.0, threshold=1.0)
    without = {one.name: replace(one, neurons=replace(one.neurons, input_bias=0.0)) for one, _ in driven}
    synapses = [
        Projection(f"input_bias of {one.name}", name, one.name, Synapses.from_dense(np.asarray(bias)[:, None], keep_zeros=False))
        for one, bias in driven
    ]
    return replace(
        network,
        populations=(*(without.get(one.name, one) for one in network.populations), Population(name, (1,), always)),
        projections=(*network.projections, *synapses),
        notes=(
            *network.notes,
            f"constant inputs of decaying currents ({', '.join(without)}) come from a neuron {name!r} that always fires: its "
            "spikes and synapses cost as others do",
        ),
    )
