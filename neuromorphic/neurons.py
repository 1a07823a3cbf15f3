"""The leaky integrate-and-fire neuron in Loihi's integer arithmetic, bit for bit.

Sources: M. Davies et al., "Loihi: a neuromorphic manycore processor with on-chip learning", IEEE Micro 38(1), 2018, for the model
(a synaptic current u that feeds a membrane voltage v, both decaying exponentially); the published descriptions of nengo-loihi
(its emulator is tested against chips) and Lava for widths, rounding, overflow and the decay offset of u.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hwsim.views.display import displayed, displaying
from neuromorphic._arrays import integers
from numerics.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt

STATE_BITS = 24
"""Bits of u and of v, the sign among them."""

INPUT_BITS = 22
"""Bits of the synaptic input that a step adds up, the sign among them."""

DECAY_BITS = 12
"""Bits of a decay; 2^12 is all of a value."""

DECAY_U_OFFSET = 1
"""The chip adds this to the decay of u, not to that of v."""

THRESHOLD_BITS = 17
"""Bits of the threshold's mantissa."""

THRESHOLD_EXPONENT = 6
"""A threshold is mantissa · 2^6; so is a weight whose own exponent is 0."""

WEIGHT_BITS = 9
"""Bits of a weight's mantissa, the sign among them."""

WEIGHT_EXPONENTS = (-6, 7)
"""Smallest and largest exponent of a weight. (The chip's field goes to −8; below −6 bits of the mantissa would be lost.)"""

BIAS_BITS = 13
"""Bits of a bias's mantissa, the sign among them."""

BIAS_EXPONENT_BITS = 3
"""Bits of a bias's exponent."""

REFRACTORY_BITS = 6
"""Bits of the refractory delay."""

REFRACTORY_SHIFT = 7
"""While a neuron is refractory its membrane register holds the steps that are left · 2^7."""


@displayed
@dataclass
class LoihiState:
    """State of neurons, of one shape; ``LoihiNeuron.step`` writes it.

    Attributes:
        u: synaptic currents, int32.
        v: membrane voltages, int32; 0 while refractory.
        refractory: steps until a neuron integrates again, int32; 0 or 1: it does in the next step.
    """

    u: npt.NDArray[np.int32]
    v: npt.NDArray[np.int32]
    refractory: npt.NDArray[np.int32]

    def membrane_register(self) -> npt.NDArray[np.int32]:
        """What a probe of the chip's membrane register reads: v, or the refractory steps that are left · 2^7."""
        return np.where(self.refractory > 0, self.refractory << REFRACTORY_SHIFT, self.v)


@displaying("threshold", "bias")
@dataclass(frozen=True)
class LoihiNeuron:
    """A current-based leaky integrate-and-fire neuron of Loihi (v1).

    In a step with synaptic input q, with ⌊·⌋ rounding toward zero:

    - u ← ⌊u · (4096 − decay_u − 1) / 4096⌋ + q, wrapping at 24 bits (q wraps at 22);
    - v ← ⌊v · (4096 − decay_v) / 4096⌋ + u + bias (u + bias wraps at 24 bits), clipped to its limits; 0 while refractory;
    - v > threshold: a spike; v is reset to 0 and stays there until ``refractory_delay`` steps later, while u goes on.

    Attributes:
        decay_u, decay_v: 0 to 4095, in 1/4096 a step. decay_u = 4095 keeps nothing of u.
        threshold_mantissa: 0 to 131071; the threshold is mantissa · 2^6.
        bias_mantissa: −4095 to 4095; the bias is mantissa · 2^exponent.
        bias_exponent: 0 to 7.
        refractory_delay: steps from a spike to the first that integrates again, 1 to 63; 0 is taken as 1 is, but the membrane
            register then shows 0.
        v_min_exponent: v is at least −2^exponent + 1, with 0 (so that v is never negative) to 23.
        v_max_exponent: v is at most 2^exponent − 1, with one of 9, 11, …, 23.

    Raises:
        InputError: a field out of range.
    """

    decay_u: int
    decay_v: int
    threshold_mantissa: int
    bias_mantissa: int = 0
    bias_exponent: int = 0
    refractory_delay: int = 1
    v_min_exponent: int = STATE_BITS - 1
    v_max_exponent: int = STATE_BITS - 1

    def __post_init__(self) -> None:
        largest = (1 << (BIAS_BITS - 1)) - 1
        _check_range("decay_u", self.decay_u, 0, (1 << DECAY_BITS) - 1)
        _check_range("decay_v", self.decay_v, 0, (1 << DECAY_BITS) - 1)
        _check_range("threshold_mantissa", self.threshold_mantissa, 0, (1 << THRESHOLD_BITS) - 1)
        _check_range("bias_mantissa", self.bias_mantissa, -largest, largest)
        _check_range("bias_exponent", self.bias_exponent, 0, (1 << BIAS_EXPONENT_BITS) - 1)
        _check_range("refractory_delay", self.refractory_delay, 0, (1 << REFRACTORY_BITS) - 1)
        _check_range("v_min_exponent", self.v_min_exponent, 0, STATE_BITS - 1)
        _check_range("v_max_exponent", self.v_max_exponent, 9, STATE_BITS - 1)
        if self.v_max_exponent % 2 == 0:
            raise InputError(f"v_max_exponent: expected an odd number from 9 to 23, got {self.v_max_exponent}")

    @property
    def threshold(self) -> int:
        """In the unit of v."""
        return self.threshold_mantissa << THRESHOLD_EXPONENT

    @property
    def bias(self) -> int:
        """In the unit of v."""
        return self.bias_mantissa << self.bias_exponent

    def state(self, shape: int | tuple[int, ...]) -> LoihiState:
        """Neurons at rest: all of it 0."""
        return LoihiState(np.zeros(shape, np.int32), np.zeros(shape, np.int32), np.zeros(shape, np.int32))

    def step(
        self, state: LoihiState, synaptic_input: npt.ArrayLike, *, bias: npt.ArrayLike | None = None
    ) -> npt.NDArray[np.bool_]:
        """One step of all neurons of ``state``, which is written.

        Args:
            state: of any shape.
            synaptic_input: integers of that shape (or one that broadcasts to it): the sum of ``synaptic_weight`` over the
                spikes that arrived.
            bias: integers of that shape, in the unit of v, instead of the neuron's own.

        Returns:
            Which neurons spike, of that shape.

        Raises:
            InputError: input or bias that are no integers or of another shape, a bias beyond 24 bits.
        """
        given = _broadcast("synaptic_input", synaptic_input, state.u.shape)
        return self.run(state, given[None], bias=bias)[0]

    def run(
        self, state: LoihiState, synaptic_inputs: npt.ArrayLike, *, bias: npt.ArrayLike | None = None
    ) -> npt.NDArray[np.bool_]:
        """Steps in a row: ``synaptic_inputs`` and the spikes returned have a first axis of steps. Otherwise as ``step``."""
        from neuromorphic._kernels import lif_steps

        given = np.asarray(synaptic_inputs)
        inputs = _broadcast("synaptic_inputs", given, (given.shape[0] if given.ndim else 1, *state.u.shape))
        constant = _broadcast("bias", self.bias if bias is None else bias, state.u.shape)
        limit = 1 << (STATE_BITS - 1)
        if constant.size and not -limit <= int(constant.min()) <= int(constant.max()) < limit:
            raise InputError(f"bias: expected {STATE_BITS}-bit integers, got {int(constant.min())} to {int(constant.max())}")
        spikes = np.zeros(inputs.shape, np.bool_)
        one = 1 << DECAY_BITS
        arrays = [np.ascontiguousarray(a) for a in (state.u, state.v, state.refractory)]
        lif_steps(
            *(a.reshape(-1) for a in arrays),
            inputs.reshape(inputs.shape[0], -1),
            constant.reshape(-1),
            one - DECAY_U_OFFSET - self.decay_u,
            one - self.decay_v,
            self.threshold,
            self.refractory_delay,
            1 - (1 << self.v_min_exponent),
            (1 << self.v_max_exponent) - 1,
            INPUT_BITS,
            STATE_BITS,
            spikes.reshape(inputs.shape[0], -1),
        )
        state.u[...], state.v[...], state.refractory[...] = arrays
        return spikes


def synaptic_weight(mantissa: npt.ArrayLike, exponent: int = 0) -> npt.NDArray[np.int64]:
    """What a spike adds to its target's synaptic input: mantissa · 2^(6 + exponent).

    Args:
        mantissa: integers from −255 to 255, of any shape.
        exponent: −6 to 7.

    Raises:
        InputError: out of range, or no integers.
    """
    largest = (1 << (WEIGHT_BITS - 1)) - 1
    _check_range("exponent", exponent, *WEIGHT_EXPONENTS)
    values = integers("mantissa", mantissa)
    if values.size and not -largest <= int(values.min()) <= int(values.max()) <= largest:
        raise InputError(f"mantissa: expected {-largest} to {largest}, got {int(values.min())} to {int(values.max())}")
    return values << (THRESHOLD_EXPONENT + exponent)


def _check_range(name: str, value: Any, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not low <= value <= high:
        raise InputError(f"{name}: expected an integer from {low} to {high}, got {value!r}")


def _broadcast(name: str, values: npt.ArrayLike, shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
    array = integers(name, values)
    try:
        return np.ascontiguousarray(np.broadcast_to(array, shape))
    except ValueError:
        raise InputError(f"{name}: expected shape {shape}, got {array.shape}") from None
