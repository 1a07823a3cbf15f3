"""``lif_core`` against ``neuromorphic.LifCore``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from neuromorphic.core import LifCore
from neuromorphic.neurons import LoihiNeuron
from rtl.bench import Bench, Latency, Port, Trace, Values

_TICKS = 80
"""Of a run with one neuron's parameters: more than the longest refractory delay."""

_HELD = 4
"""Updates of one neuron while the tick is held."""

_LARGEST = 4095
"""Mantissa of a bias."""

# Neurons at their limits: (neuron, exponent of the weights, smallest and largest mantissa of a weight).
_ADVERSARIAL = [
    (LoihiNeuron(4095, 163, 25), 0, 10, 10),  # that of the silicon trace
    (LoihiNeuron(0, 0, 131071, v_max_exponent=21), 7, 255, 255),  # input and u wrap upwards, v saturates and never spikes
    (LoihiNeuron(0, 0, 131071), 7, -255, -255),  # and downwards
    (LoihiNeuron(0, 4095, 1000), 7, -255, 255),
    (LoihiNeuron(4095, 0, 131071, _LARGEST, 7), 0, 0, 0),  # v saturates above the largest threshold: spikes
    (LoihiNeuron(4095, 0, 131071, _LARGEST, 7, v_max_exponent=21), 0, 0, 0),
    (LoihiNeuron(4095, 0, 131071, -_LARGEST, 7), 0, 0, 0),  # v saturates below
    (LoihiNeuron(0, 0, 131071, -_LARGEST, 7), 7, -255, 255),
    (LoihiNeuron(0, 4095, 131071, -_LARGEST, 7), 6, -255, -200),  # u + bias wraps, and v is little else
    (LoihiNeuron(0, 4095, 131071, _LARGEST, 7, v_max_exponent=21), 6, 200, 255),
    (LoihiNeuron(2048, 64, 500, v_min_exponent=0), 2, -255, 255),  # v never negative
    (LoihiNeuron(2048, 64, 20, v_min_exponent=9, v_max_exponent=9), 1, -255, 255),
    (LoihiNeuron(4095, 0, 0, 1, 0, refractory_delay=0), 0, 0, 0),  # a spike every step
    (LoihiNeuron(4095, 0, 0, 1, 0, refractory_delay=1), 0, 0, 0),
    (LoihiNeuron(4095, 0, 0, 1, 0, refractory_delay=2), 0, 0, 1),
    (LoihiNeuron(100, 0, 0, 1, 0, refractory_delay=63), 0, -255, 255),
    (LoihiNeuron(4095, 4095, 0), -6, -255, 255),
    (LoihiNeuron(1, 1, 3), -6, -255, 255),
]


class LifCoreBench(Bench):
    """Neurons at their limits, then random ones; random events, ticks and back-pressure, also while the core is busy."""

    unit = "lif_core"

    def inputs(self, parameters: Mapping[str, int]) -> tuple[Port, ...]:
        return (
            Port("rst_ni"), Port("decay_u_i", 12), Port("decay_v_i", 12), Port("threshold_i", 17), Port("bias_mantissa_i", 13),
            Port("bias_exponent_i", 3), Port("refractory_i", 6), Port("v_min_exponent_i", 5), Port("v_max_exponent_i", 5),
            Port("weight_shift_i", 4), Port("synapse_valid_i"), Port("synapse_neuron_i", _index_bits(parameters)),
            Port("synapse_weight_i", 9), Port("tick_i"), Port("spike_ready_i"),
        )  # fmt: skip

    def outputs(self, parameters: Mapping[str, int]) -> tuple[Port, ...]:
        return (
            Port("ready_o"), Port("state_valid_o"), Port("state_neuron_o", _index_bits(parameters)), Port("state_u_o", 24),
            Port("state_v_o", 24), Port("state_refractory_o", 6), Port("spike_valid_o"),
        )  # fmt: skip

    def trace(self, parameters: Mapping[str, int], cases: int, rng: np.random.Generator) -> Trace:
        size = parameters["Neurons"]
        runs = [_run(_ADVERSARIAL[0], size, np.zeros(0, int), rng)]  # for the latency
        updates = size
        for setting in _settings(rng):
            if len(runs) > len(_ADVERSARIAL) and updates >= cases:
                break
            gaps = rng.integers(0, size + 12, _TICKS) * (rng.random() < 0.75)
            inputs, outputs = _run(setting, size, gaps, rng)
            runs.append((inputs, outputs))
            updates += int((outputs["state_valid_o"] & ~(outputs["spike_valid_o"] & ~inputs["spike_ready_i"])).sum())
        driven = {name: np.concatenate([run[0][name] for run in runs]) for name in runs[0][0]}
        shown = {name: np.concatenate([run[1][name] for run in runs]) for name in runs[0][1]}
        return Trace(driven, shown, updates, compared_from=1, marks={"tick": _lone_tick(size)})

    def latency(self, parameters: Mapping[str, int], trace: Trace, observed: Values) -> Latency:
        """From a lone tick; between the neurons of an update, or if there is one only, between the updates that follow each other
        when the tick is held."""
        size, tick = parameters["Neurons"], trace.marks["tick"]
        shown = tick + np.flatnonzero(observed["state_valid_o"][tick:])[: size + _HELD]
        steady = shown[:size] if size > 1 else shown[1:]
        per_neuron = float(np.diff(steady).mean())
        last = int(shown[size - 1]) - tick
        return Latency(int(shown[0]) - tick, per_neuron, last, "a spike that is not taken stalls the update")


def _index_bits(parameters: Mapping[str, int]) -> int:
    return max(1, (parameters["Neurons"] - 1).bit_length())


def _lone_tick(size: int) -> int:
    """Cycle of the tick of the first run: some cycles after the reset and the clearing that follows."""
    return size + 4


def _settings(rng: np.random.Generator) -> Iterator[tuple[LoihiNeuron, int, int, int]]:
    yield from _ADVERSARIAL
    while True:
        exponent = int(rng.integers(-6, 8))
        neuron = LoihiNeuron(
            decay_u=_spread(rng, 4095),
            decay_v=_spread(rng, 4095),
            threshold_mantissa=int(min(131071, _spread(rng, 4000) << max(exponent, 0))),
            bias_mantissa=int(rng.integers(-_LARGEST, _LARGEST + 1)) >> int(rng.integers(0, 13)),
            bias_exponent=int(rng.integers(0, 8)),
            refractory_delay=_spread(rng, 63),
            v_min_exponent=int(rng.integers(0, 24)),
            v_max_exponent=int(rng.choice([9, 11, 13, 15, 17, 19, 21, 23, 23, 23])),
        )
        yield neuron, exponent, -255, 255


def _spread(rng: np.random.Generator, limit: int) -> int:
    """0, the limit, or a number of random magnitude."""
    kind = rng.random()
    if kind < 0.3:
        return 0 if kind < 0.15 else limit
    return int(rng.integers(0, limit + 1)) >> int(rng.integers(0, limit.bit_length()))


def _run(
    setting: tuple[LoihiNeuron, int, int, int], size: int, gaps: np.ndarray, rng: np.random.Generator
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """A reset, a tick after each of ``gaps`` (cycles beyond an update's own), and cycles in which the core comes to rest.

    What is offered does not depend on what is taken: many events and some ticks meet a busy core. Without gaps: a lone tick,
    then one that is held.
    """
    neuron, exponent, low, high = setting
    busy = size + 5
    cycles = int((gaps + busy).sum()) + busy
    event, tick, ready = np.zeros(cycles, bool), np.zeros(cycles, bool), np.ones(cycles, bool)
    if gaps.size:
        body = slice(cycles - busy)
        event[body] = rng.random(cycles - busy) < rng.choice([0.1, 0.6, 1.0])
        tick[body] = rng.random(cycles - busy) < 0.02
        tick[np.cumsum(gaps + busy) - 1] = True
        ready[body] = rng.random(cycles - busy) < rng.choice([0.1, 0.5, 0.9, 1.0])
    else:
        lead = _lone_tick(size)
        cycle = np.arange(lead + busy + (_HELD + 2) * busy)
        tick = (cycle == lead - 1) | (cycle >= lead + busy) & (cycle < cycle.size - busy)
        event, ready = np.zeros(cycle.size, bool), np.ones(cycle.size, bool)
    target = rng.integers(0, 1 << _index_bits({"Neurons": size}), event.size)
    weight = rng.integers(low, high + 1, event.size)
    core = LifCore(neuron, size, weight_exponent=exponent)
    shown = core.run(event=event, target=target, weight=weight, tick=tick, spike_ready=ready)
    constants = {
        "decay_u_i": neuron.decay_u, "decay_v_i": neuron.decay_v, "threshold_i": neuron.threshold_mantissa,
        "bias_mantissa_i": neuron.bias_mantissa, "bias_exponent_i": neuron.bias_exponent, "refractory_i": neuron.refractory_delay,
        "v_min_exponent_i": neuron.v_min_exponent, "v_max_exponent_i": neuron.v_max_exponent, "weight_shift_i": exponent + 6,
    }  # fmt: skip
    driven = {
        "rst_ni": np.ones(event.size, bool), "synapse_valid_i": event, "synapse_neuron_i": target, "synapse_weight_i": weight,
        "tick_i": tick, "spike_ready_i": ready, **{name: np.full(event.size, value) for name, value in constants.items()},
    }  # fmt: skip
    showing = {
        "ready_o": shown.ready, "state_valid_o": shown.state_valid, "state_neuron_o": shown.neuron, "state_u_o": shown.u,
        "state_v_o": shown.v, "state_refractory_o": shown.refractory, "spike_valid_o": shown.spike,
    }  # fmt: skip
    # The cycle of the reset comes first; in it the core still rests, as the run before left it.
    inputs = {name: np.concatenate([values[:1] if name != "rst_ni" else [False], values]) for name, values in driven.items()}
    outputs = {name: np.concatenate([np.full(1, name == "ready_o", values.dtype), values]) for name, values in showing.items()}
    return inputs, outputs
