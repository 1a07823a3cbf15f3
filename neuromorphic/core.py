"""A time-multiplexed core of Loihi neurons, cycle by cycle: the model of the RTL unit ``lif_core``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hwsim.views.display import displayed
from neuromorphic._arrays import flags, integers
from neuromorphic.neurons import LoihiNeuron, LoihiState, synaptic_weight
from numerics.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt

PIPELINE_CYCLES = 3
"""Cycles of an update beyond one a neuron."""


@displayed
@dataclass(frozen=True)
class CoreTrace:
    """What a core shows, of shape (cycles,) each; without ``state_valid`` the state is 0.

    Attributes:
        ready: it takes a synaptic event and a tick.
        state_valid: a neuron's new state shows.
        neuron, u, v, refractory: of which neuron, and its state.
        spike: and it spikes.
    """

    ready: npt.NDArray[np.bool_]
    state_valid: npt.NDArray[np.bool_]
    neuron: npt.NDArray[np.int64]
    u: npt.NDArray[np.int32]
    v: npt.NDArray[np.int32]
    refractory: npt.NDArray[np.int32]
    spike: npt.NDArray[np.bool_]


@displayed
class LifCore:
    """Neurons that share one datapath, one neuron a cycle.

    A tick starts the update of all neurons: neuron n's new state shows 4 + n cycles later, and the core is not ready for
    ``neurons`` + 3 cycles. A spike that is not taken stalls all of it. After a reset, which is how a core begins, it is not ready
    for ``neurons`` cycles, in which it clears its memory.

    Attributes:
        neuron: what all of them are.
        neurons: how many.
        weight_exponent: of all synapses, −6 to 7.
        state: of the neurons, as of the last tick.
        synaptic_input: what has arrived since, (neurons,).

    Raises:
        InputError: fewer than 1 neuron.
    """

    def __init__(self, neuron: LoihiNeuron, neurons: int, *, weight_exponent: int = 0) -> None:
        if isinstance(neurons, bool) or not isinstance(neurons, int | np.integer) or neurons < 1:
            raise InputError(f"neurons: expected an integer ≥ 1, got {neurons!r}")
        self.neuron, self.neurons, self.weight_exponent = neuron, int(neurons), weight_exponent
        synaptic_weight(1, weight_exponent)  # checks the exponent
        self.reset()

    def reset(self) -> None:
        """As at power-up: all state 0, busy with clearing its memory."""
        self.state: LoihiState = self.neuron.state(self.neurons)
        self.synaptic_input = np.zeros(self.neurons, np.int64)
        self._clearing, self._age, self._spikes = self.neurons, 0, np.zeros(self.neurons, np.bool_)

    def cycles(self, ticks: int, *, stalls: int = 0) -> int:
        """Cycles of so many time steps, each with its tick in the first cycle in which the core is ready."""
        return ticks * (self.neurons + PIPELINE_CYCLES + 1) + stalls

    def run(
        self,
        *,
        event: npt.ArrayLike,
        target: npt.ArrayLike,
        weight: npt.ArrayLike,
        tick: npt.ArrayLike,
        spike_ready: npt.ArrayLike,
    ) -> CoreTrace:
        """Cycles in a row.

        Args:
            event: whether a synaptic event is offered, (cycles,); it is taken if the core is ready.
            target, weight: its neuron (an event of one that is not there is dropped) and mantissa, −255 to 255.
            tick: whether a time step is to end, (cycles,); an event of the same cycle still belongs to it.
            spike_ready: whether a spike that shows is taken, (cycles,).

        Raises:
            InputError: arrays of different length, targets or weights that are no integers, a weight out of range, flags that are
                neither 0 nor 1.
        """
        events, ticks, ready_in = flags("event", event), flags("tick", tick), flags("spike_ready", spike_ready)
        targets = integers("target", target)
        weights = synaptic_weight(weight, self.weight_exponent)
        for name, given in (("target", targets), ("weight", weights), ("tick", ticks), ("spike_ready", ready_in)):
            if given.shape != events.shape or given.ndim != 1:
                raise InputError(f"{name}: expected shape ({events.size},) as event has, got {given.shape}")
        cycles = events.size
        shown: dict[str, Any] = {name: np.zeros(cycles, np.int64) for name in ("neuron", "u", "v", "refractory")}
        shown |= {name: np.zeros(cycles, np.bool_) for name in ("ready", "state_valid", "spike")}
        for t in range(cycles):
            n = self._age - PIPELINE_CYCLES - 1
            spike = n >= 0 and bool(self._spikes[n])
            if n >= 0:
                shown["state_valid"][t], shown["neuron"][t], shown["spike"][t] = True, n, spike
                for name in ("u", "v", "refractory"):
                    shown[name][t] = getattr(self.state, name)[n]
            if self._clearing:
                self._clearing -= 1
            elif self._age:
                if not spike or ready_in[t]:
                    self._age = 0 if n == self.neurons - 1 else self._age + 1
            else:
                shown["ready"][t] = True
                if events[t] and 0 <= targets[t] < self.neurons:
                    self.synaptic_input[targets[t]] += weights[t]
                if ticks[t]:
                    self._spikes = self.neuron.step(self.state, self.synaptic_input)
                    self.synaptic_input[:] = 0
                    self._age = 1
        for name in ("u", "v", "refractory"):
            shown[name] = shown[name].astype(np.int32)
        return CoreTrace(**shown)
