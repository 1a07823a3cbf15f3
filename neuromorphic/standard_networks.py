"""Recurrent networks of the literature that simulators are measured with, as seeded builders.

Each membrane equation is linear between spikes, so a step of it is exact: with dv/dt = (E − v + c · exp(−t/τc))/τm,
v(dt) = E + (v − E) · exp(−dt/τm) + c · τc/(τc − τm) · (exp(−dt/τc) − exp(−dt/τm))
(S. Rotter and M. Diesmann, "Exact digital simulation of time-invariant linear systems with applications to neuronal modeling",
Biological Cybernetics 81, 1999).
"""

from __future__ import annotations

from math import exp

import numpy as np

from neuromorphic.network import Neurons, Population, Projection, SpikingNetwork, Synapses
from numerics.errors import InputError


def _random_synapses(rng: np.random.Generator, sources: int, targets: int, probability: float, weight: float) -> Synapses:
    """Each pair is joined with a probability."""
    there = rng.random((sources, targets)) < probability
    first = np.concatenate(([0], np.cumsum(there.sum(axis=1)))).astype(np.int64)
    target = np.nonzero(there)[1].astype(np.int32)
    return Synapses(first, target, np.full(target.size, weight), int(target.size))


def _share(dt_s: float, tau_s: float, tau_current_s: float) -> float:
    """How much of a current at the beginning of a step the voltage has at its end."""
    return tau_current_s / (tau_current_s - tau_s) * (exp(-dt_s / tau_current_s) - exp(-dt_s / tau_s))


def cuba_network(*, seed: int, neurons: int = 4000, probability: float = 0.02, dt_s: float = 1e-4) -> SpikingNetwork:
    """The current-based network of Vogels and Abbott: 4 excitatory neurons to 1 inhibitory, joined at random.

    dv/dt = (g_e + g_i − (v + 49 mV))/20 ms, g_e and g_i fall with 5 and 10 ms, threshold −50 mV, reset −60 mV, 5 ms refractory,
    voltages at first even between reset and threshold. Weights are those of 80 synapses a neuron, 1.62 mV and −9 mV; a spike
    arrives at the end of its step. Neuron 0 to 4/5 of ``neurons`` of the one population are the excitatory ones.

    (T. P. Vogels and L. F. Abbott, "Signal propagation and logic gating in networks of integrate-and-fire neurons", Journal of
    Neuroscience 25(46), 2005, with the parameters of R. Brette et al., "Simulation of networks of spiking neurons: a review of
    tools and strategies", Journal of Computational Neuroscience 23, 2007, benchmark 2.)

    Args:
        seed: of the synapses and first voltages.
        neurons: a multiple of 5.
        probability: of a synapse between two neurons (or of one with itself).
        dt_s: length of a step; the 5 ms must be a whole number of them.

    Returns:
        A network of one population, ``neurons`` (voltages in mV), without inputs.

    Raises:
        InputError: a number out of range.
    """
    _multiple("neurons", neurons, 5)
    if not 0 <= probability <= 1:
        raise InputError(f"probability: expected 0 to 1, got {probability!r}")
    refractory = _refractory(dt_s, 5e-3)
    rng = np.random.default_rng(seed)
    excitatory = neurons * 4 // 5
    parts = {"excitatory": (0, excitatory, 60 * 0.27 / 10), "inhibitory": (excitatory, neurons, -20 * 4.5 / 10)}
    keep = exp(-dt_s / 20e-3)
    model = Neurons(
        "integrate_and_fire",
        decay_i=exp(-dt_s / 5e-3),
        gain=_share(dt_s, 20e-3, 5e-3),
        decay_i2=exp(-dt_s / 10e-3),
        gain2=_share(dt_s, 20e-3, 10e-3),
        decay_v=keep,
        bias=-49.0 * (1 - keep),
        threshold=-50.0,
        v_reset=-60.0,
        # The neuron that fires in step t is free again in step t + 5 ms.
        refractory_steps=refractory - 1,
        v_init=-60 + 10 * rng.random(neurons),
    )
    projections = []
    for receptor, (name, (low, high, weight)) in enumerate(parts.items()):
        synapses = _random_synapses(rng, high - low, neurons, probability, weight)
        first = np.concatenate((np.zeros(low, np.int64), synapses.first, np.full(neurons - high, synapses.count, np.int64)))
        synapses = Synapses(first, synapses.target, synapses.weight, synapses.stored)
        projections.append(Projection(name, "neurons", "neurons", synapses, 1, receptor))
    return SpikingNetwork("cuba", (Population("neurons", (neurons,), model),), tuple(projections), ("neurons",), dt_s)


def brunel_network(
    *,
    seed: int,
    neurons: int = 12_500,
    excitatory_inputs: int = 1000,
    inhibition: float = 5.0,
    external: float = 2.0,
    weight_mv: float = 0.1,
    dt_s: float = 1e-4,
) -> SpikingNetwork:
    """The sparse network of Brunel, model A: 4 excitatory neurons to 1 inhibitory, each with as many inputs as any other.

    A spike moves the voltage at once, by ``weight_mv`` or by −``inhibition`` times that, 1.5 ms after it was sent; the voltage
    falls with 20 ms to 0; threshold 20 mV, reset 10 mV, 2 ms refractory. (N. Brunel, "Dynamics of sparsely connected networks of
    excitatory and inhibitory spiking neurons", Journal of Computational Neuroscience 8, 2000, section 2.)

    Args:
        seed: of the synapses.
        neurons: a multiple of 5.
        excitatory_inputs: of each neuron from the network, a multiple of 4, drawn with repetition; a quarter as many are
            inhibitory.
        inhibition: g of the paper.
        external: rate of the external spikes, in the rate that on average just reaches the threshold; the paper's
            ν_ext/ν_thr, ν_thr = 20 mV/(``weight_mv`` · ``excitatory_inputs`` · 20 ms).
        weight_mv: J of the paper.
        dt_s: length of a step; 0.5 ms must be a whole number of them.

    Returns:
        A network of the populations ``external`` (an input; one to one; it sends how many external spikes a neuron receives in a
        step, on average ``attributes["external_events_a_step"]``) and ``neurons``, the first 4/5 excitatory, in mV.

    Raises:
        InputError: a number out of range.
    """
    _multiple("neurons", neurons, 5)
    _multiple("excitatory_inputs", excitatory_inputs, 4)
    for name, value in (("inhibition", inhibition), ("external", external), ("weight_mv", weight_mv)):
        if not (np.isfinite(value) and value >= 0):
            raise InputError(f"{name}: expected a number ≥ 0, got {value!r}")
    half = _refractory(dt_s, 0.5e-3)
    rng = np.random.default_rng(seed)
    excitatory = neurons * 4 // 5
    model = Neurons(
        "integrate_and_fire", decay_v=exp(-dt_s / 20e-3), threshold=20.0, v_reset=10.0, refractory_steps=4 * half - 1,
        fires_at_threshold=True,
    )  # fmt: skip
    parts = (
        ("excitatory", 0, excitatory, excitatory_inputs, weight_mv),
        ("inhibitory", excitatory, neurons, excitatory_inputs // 4, -inhibition * weight_mv),
    )
    projections = [Projection("external", "external", "neurons", _one_to_one(neurons, weight_mv))]
    for name, low, high, inputs, weight in parts:
        source = rng.integers(low, high, neurons * inputs)
        target = np.repeat(np.arange(neurons), inputs)
        synapses = Synapses.from_coo(source, target, np.full(source.size, weight), sources=neurons)
        projections.append(Projection(name, "neurons", "neurons", synapses, 3 * half))
    return SpikingNetwork(
        "brunel",
        (Population("external", (neurons,), Neurons("input")), Population("neurons", (neurons,), model)),
        tuple(projections),
        ("neurons",),
        dt_s,
        # The external inputs are as many as the excitatory ones, each at external · ν_thr.
        attributes={"external_events_a_step": external * 20.0 / (weight_mv * 20e-3) * dt_s if weight_mv else 0.0},
    )


def _one_to_one(count: int, weight: float) -> Synapses:
    return Synapses(np.arange(count + 1), np.arange(count, dtype=np.int32), np.full(count, weight), count)


def _multiple(name: str, value: object, of: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < of or value % of:
        raise InputError(f"{name}: expected a multiple of {of}, got {value!r}")


def _refractory(dt_s: float, time_s: float) -> int:
    if not np.isfinite(dt_s) or dt_s <= 0 or abs(time_s / dt_s - round(time_s / dt_s)) > 1e-9 or time_s < dt_s * (1 - 1e-9):
        raise InputError(f"dt_s: expected {time_s * 1e3:g} ms divided by a whole number, got {dt_s!r}")
    return round(time_s / dt_s)
