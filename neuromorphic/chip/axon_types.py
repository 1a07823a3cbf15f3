"""Weights that synapses share: four of a neuron, chosen by the type of the axon (TrueNorth), or one sign of a source (ODIN).

A source that needs several types, or both signs, takes as many axons, as on the chips.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from neuromorphic.chip.network import ChipNetwork


def with_axon_types(network: ChipNetwork) -> ChipNetwork:
    """The same with so many different weights for each neuron as the chip has, over all that it receives.

    Neurons with more get the values of least mean square error (``numerics.fit_codebook``), rounded to integers.
    """
    from numerics import fit_codebook

    levels = network.arithmetic.weights_per_neuron or 0
    weight, types = network.weight.copy(), np.zeros(network.synapses, np.uint8)
    populations, notes = [], list(network.notes)
    for one in network.populations:
        parts = [p.part for p in network.projections if p.target == one.name]
        if not parts:
            populations.append(one)
            continue
        places = np.concatenate([np.arange(part.start, part.stop) for part in parts])
        order = np.argsort(network.target[places], kind="stable")
        places = places[order]
        ends = np.searchsorted(network.target[places], np.arange(one.size + 1))
        table = np.zeros((one.size, levels), np.int32)
        reduced, worst = 0, 0
        for neuron in range(one.size):
            mine = places[ends[neuron] : ends[neuron + 1]]
            mine = mine[weight[mine] != 0]
            values = np.unique(weight[mine])
            if values.size > levels:
                fit = fit_codebook(weight[mine].astype(np.float64), levels=levels, method="optimal")
                values = np.unique(np.rint(np.asarray(fit.format.values, np.float64))).astype(np.int64)
                values = values[values != 0]
                nearest = values[np.abs(weight[mine].astype(np.int64)[:, None] - values).argmin(axis=1)]
                worst = max(worst, int(np.abs(nearest - weight[mine]).max()))
                weight[mine] = nearest
                reduced += 1
            table[neuron, : values.size] = values
            types[mine] = np.searchsorted(values, weight[mine])
        if reduced:
            notes.append(
                f"{one.name}: {reduced} of {one.size} neurons had more than {levels} weights: moved by {worst} units at most"
            )
        populations.append(replace(one, numbers={**one.numbers, "axon_weights": table}))
    # A weight of 0 is no synapse of a crossbar.
    there = weight != 0
    place = np.concatenate(([0], np.cumsum(there)))
    projections = []
    for p in network.projections:
        source = np.repeat(np.arange(p.first.size - 1), np.diff(p.first))
        axons = np.unique((source * levels + types[p.part])[there[p.part]]).size
        notes.append(f"{p.name}: {p.first.size - 1} sources take {axons} axons, one for each type of weight")
        projections.append(replace(p, first=place[p.first]))
    return replace(
        network, populations=tuple(populations), projections=tuple(projections), target=network.target[there],
        weight=weight[there], axon_type=types[there], notes=tuple(notes),
    )  # fmt: skip


def both_signs(network: ChipNetwork) -> ChipNetwork:
    """The same, its notes with the sources that have both signs."""
    notes = list(network.notes)
    for p in network.projections:
        source = np.repeat(np.arange(p.first.size - 1), np.diff(p.first))
        weight = network.weight[p.part]
        both = np.intersect1d(source[weight < 0], source[weight > 0]).size
        if both:
            notes.append(f"{p.name}: {both} of {p.first.size - 1} sources have both signs and take two axons")
    return replace(network, notes=tuple(notes))
