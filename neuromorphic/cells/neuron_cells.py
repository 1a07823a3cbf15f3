"""Trainable spiking cells as torch modules: leaky integrate-and-fire, adaptive, current-based, resonate-and-fire, recurrent.

A cell takes a whole sequence (steps, batch, *features), time first, or one step of it with its state. It computes what
``network.Neurons`` of its kind do, operation for operation, so that ``torch_network.to_network`` gives the same spikes in
float64.

>>> import torch
>>> cell = LIF(0.5, threshold=1.0)
>>> cell(torch.full((4, 1, 1), 0.7)).flatten().tolist()
[0.0, 1.0, 0.0, 1.0]
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from math import exp
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from hwsim.views.display import displayed
from neuromorphic.cells.surrogate import Surrogate
from neuromorphic.network import Kind, Neurons, Reset
from numerics.errors import InputError, unknown_name

_SHARES = ("decay_i", "decay_v", "decay_a")
_DRIVEN = ("gain", "bias", "input_bias")
_FIRING = ("decay_v", *_DRIVEN, "threshold", "v_reset", "v_init", "refractory_steps", "adaptation", "decay_a")
_KNOWN: dict[str, tuple[str, ...]] = {
    "integrate_and_fire": ("decay_i", *_FIRING),
    "resonate_and_fire": ("angle", *_FIRING),
    "threshold": (*_DRIVEN, "threshold"),
    "readout": ("decay_i", "decay_v", *_DRIVEN, "v_init"),
}


def decay(time_constant_s: float, dt_s: float) -> float:
    """Share that a step of ``dt_s`` seconds keeps of what decays with ``time_constant_s`` seconds: exp(−dt/τ).

    Raises:
        InputError: either is not > 0.
    """
    for name, value in (("time_constant_s", time_constant_s), ("dt_s", dt_s)):
        if not value > 0:
            raise InputError(f"{name}: expected seconds > 0, got {value!r}")
    return exp(-dt_s / time_constant_s)


@displayed
class TimeFirst(nn.Module, ABC):
    """A module that takes a whole sequence (steps, batch, …); any other in a ``SpikingSequential`` is applied to each step."""

    @abstractmethod
    def step(self, x: torch.Tensor, state: Any = None) -> tuple[torch.Tensor, Any]:
        """One step: input (batch, …) and the state before it (None: at rest) → output and the state after it."""

    def unroll(self, x: torch.Tensor, state: Any = None) -> tuple[torch.Tensor, Any]:
        """All steps of (steps, batch, …) from a state on: outputs, time first, and the state after the last."""
        if x.ndim < 2 or not x.shape[0]:
            raise InputError(f"x: expected shape (steps, batch, …) with a step or more, got {tuple(x.shape)}")
        outputs = []
        for now in x:
            output, state = self.step(now, state)
            outputs.append(output)
        return torch.stack(outputs), state

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Outputs of all steps, from rest."""
        return self.unroll(x)[0]


class SpikingSequential(nn.Sequential, TimeFirst):
    """Modules one after the other over a sequence (steps, batch, …).

    Those that know time (``TimeFirst``) get the sequence; all others (Linear, Conv2d, Flatten, …) get steps and batch as one
    batch.
    """

    def step(self, x: torch.Tensor, state: Any = None) -> tuple[torch.Tensor, Any]:
        states = dict(state or {})
        for name, module in self.named_children():
            if isinstance(module, TimeFirst):
                x, states[name] = module.step(x, states.get(name))
            else:
                x = module(x)
        return x, states

    def unroll(self, x: torch.Tensor, state: Any = None) -> tuple[torch.Tensor, Any]:
        states = dict(state or {})
        for name, module in self.named_children():
            if isinstance(module, TimeFirst):
                x, states[name] = module.unroll(x, states.get(name))
            else:
                steps = x.shape[0]
                x = module(x.flatten(0, 1)).unflatten(0, (steps, -1))
        return x, states

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.unroll(x)[0]


@displayed
class NeuronState(NamedTuple):
    """What a neuron keeps between steps; None where its kind has none.

    Attributes:
        v: membrane voltage.
        i: synaptic current.
        w: imaginary part of a resonate-and-fire neuron.
        a: adaptation of the threshold.
        left: refractory steps that are left.
        spiked: whether it spiked in the step before, if it is reset only now.
        level: the threshold that it then passed.
    """

    v: torch.Tensor
    i: torch.Tensor | None = None
    w: torch.Tensor | None = None
    a: torch.Tensor | None = None
    left: torch.Tensor | None = None
    spiked: torch.Tensor | None = None
    level: torch.Tensor | float = 0.0


class NeuronCell(TimeFirst):
    """Neurons of one of ``network``'s kinds, with its parameters as tensors.

    Each parameter is a number, or an array that broadcasts to the features (one a channel: (channels, 1, 1)). Those in ``learn``
    are torch parameters; a decay that is learned is held within 0 to 1.

    Attributes:
        kind, reset, reset_next_step, fires_at_threshold: as of ``network.Neurons``.
        surrogate: gradient of a spike.
        detach_reset: no gradient passes through the reset (Zenke and Vogels, Neural Computation 33(4), 2021).

    Raises:
        InputError: as ``network.Neurons``; a parameter that the kind has not, a name in ``learn`` that is none.
    """

    def __init__(
        self,
        kind: Kind,
        *,
        reset: Reset = "zero",
        reset_next_step: bool = False,
        fires_at_threshold: bool = False,
        surrogate: Surrogate | None = None,
        detach_reset: bool = True,
        learn: Collection[str] = (),
        **parameters: Any,
    ) -> None:
        super().__init__()
        if kind not in _KNOWN:
            raise unknown_name("kind", str(kind), _KNOWN)
        for name in parameters:
            if name not in _KNOWN[kind]:
                raise unknown_name(f"parameter of {kind}", name, _KNOWN[kind])
        self.kind, self.reset, self.reset_next_step, self.fires_at_threshold = kind, reset, reset_next_step, fires_at_threshold
        self.surrogate, self.detach_reset = surrogate or Surrogate(), detach_reset
        unknown = [name for name in learn if name not in parameters or name == "refractory_steps"]
        if unknown:
            known = ", ".join(name for name in parameters if name != "refractory_steps")
            raise InputError(f"learn: {unknown[0]!r} is no parameter that this cell can learn; known: {known}")
        for name, value in parameters.items():
            one: dict[str, Any] = {name: np.ravel(_plain(value)) if np.ndim(_plain(value)) else _plain(value)}
            Neurons(kind, reset=reset, **one)
        self.given = tuple(parameters)
        for name, value in parameters.items():
            tensor = torch.as_tensor(_plain(value), dtype=torch.get_default_dtype())
            if name in learn:
                self.register_parameter(name, nn.Parameter(tensor.clone()))
            else:
                self.register_buffer(name, tensor.clone())

    def parameter(self, name: str) -> torch.Tensor | float:
        """The value that counts of a parameter of ``network.Neurons``."""
        if name not in self.given:
            return float(getattr(Neurons, name))
        value: torch.Tensor = getattr(self, name)
        return value.clamp(0, 1) if name in _SHARES and isinstance(value, nn.Parameter) else value

    def neurons(self, shape: tuple[int, ...]) -> Neurons:
        """The same neurons for a ``network.Population`` of ``shape``.

        Raises:
            InputError: a parameter that does not broadcast to it.
        """
        found: dict[str, Any] = {}
        for name in self.given:
            value = torch.as_tensor(self.parameter(name)).detach().cpu().double().numpy()
            try:
                found[name] = float(value) if value.size == 1 else np.ravel(np.broadcast_to(value, shape)).copy()
            except ValueError:
                raise InputError(f"{name}: shape {value.shape} does not broadcast to features {shape}") from None
        return Neurons(
            self.kind,
            reset=self.reset,
            reset_next_step=self.reset_next_step,
            fires_at_threshold=self.fires_at_threshold,
            **found,
        )

    def rest(self, x: torch.Tensor) -> NeuronState:
        """The state at the start, for input like ``x`` (batch, *features)."""
        zero = torch.zeros_like(x)
        has = self.given.__contains__
        return NeuronState(
            v=zero + self.parameter("v_init"),
            i=zero if has("decay_i") else None,
            w=zero if self.kind == "resonate_and_fire" else None,
            a=zero if has("adaptation") else None,
            left=zero if has("refractory_steps") else None,
            spiked=zero if self.reset_next_step else None,
        )

    def step(self, x: torch.Tensor, state: NeuronState | None = None) -> tuple[torch.Tensor, NeuronState]:
        if "input_bias" in self.given:
            x = self.parameter("input_bias") + x
        if self.kind == "threshold":
            drive = self._drive(x, 0.0)
            return self.surrogate(drive - self.parameter("threshold"), at_zero=self.fires_at_threshold), NeuronState(drive)
        s = self.rest(x) if state is None else state
        v, i, w = s.v, s.i, s.w
        if s.spiked is not None:
            v, w = self._reset(v, w, s.spiked, s.level)
        v_before, w_before = v, w
        if i is not None:
            x = i = self.parameter("decay_i") * i + x
        if w is None:
            v = self._drive(x, self.parameter("decay_v") * v)
        else:
            angle = torch.as_tensor(self.parameter("angle"), dtype=v.dtype)
            along, across = self.parameter("decay_v") * angle.cos(), self.parameter("decay_v") * angle.sin()
            v, w = self._drive(x, along * v - across * w), across * v + along * w
        if self.kind == "readout":
            return v, NeuronState(v, i)
        held = None
        if s.left is not None:
            held = s.left > 0
            v = torch.where(held, v_before, v)
            w = None if w is None or w_before is None else torch.where(held, w_before, w)
        threshold = self.parameter("threshold")
        if s.a is not None:
            threshold = threshold + self.parameter("adaptation") * s.a
        spikes = self.surrogate(v - threshold, at_zero=self.fires_at_threshold)
        if held is not None:
            spikes = torch.where(held, torch.zeros_like(spikes), spikes)
        a = None if s.a is None else self.parameter("decay_a") * s.a + spikes
        left = None
        if s.left is not None:
            left = torch.where(spikes.detach() > 0, self.parameter("refractory_steps"), (s.left - 1).clamp(min=0))
        if self.reset_next_step:
            return spikes, NeuronState(v, i, w, a, left, spikes, torch.as_tensor(threshold, dtype=v.dtype).expand_as(v))
        v, w = self._reset(v, w, spikes, threshold)
        return spikes, NeuronState(v, i, w, a, left)

    def _drive(self, x: torch.Tensor, kept: torch.Tensor | float) -> torch.Tensor:
        if "gain" in self.given:
            x = self.parameter("gain") * x
        x = kept + x
        return x + self.parameter("bias") if "bias" in self.given else x

    def _reset(
        self, v: torch.Tensor, w: torch.Tensor | None, spikes: torch.Tensor, level: torch.Tensor | float
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        if self.reset == "none":
            return v, w
        if self.detach_reset:
            spikes = spikes.detach()
        if self.reset == "subtract":
            return v - level * spikes, w
        return v * (1 - spikes) + self.parameter("v_reset") * spikes, None if w is None else w * (1 - spikes)

    def extra_repr(self) -> str:
        numbers = [f"{name}={value.item():g}" for name in self.given if (value := getattr(self, name)).numel() == 1]
        return ", ".join([*numbers, f"reset={self.reset!r}"])


def _plain(value: Any) -> Any:
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value


class LIF(NeuronCell):
    """Leaky integrate-and-fire: v ← decay_v · v + x, spike where v > threshold, reset.

    Args:
        decay_v: share of the voltage that a step keeps; 1: it never leaks.
        threshold: in the unit of v.
        parameters: more of ``network.Neurons`` (gain, bias, v_reset, refractory_steps, v_init, …) and of ``NeuronCell``.
    """

    def __init__(self, decay_v: Any, *, threshold: Any = 1.0, **parameters: Any) -> None:
        super().__init__("integrate_and_fire", decay_v=decay_v, threshold=threshold, **parameters)


class CubaLIF(NeuronCell):
    """Current-based leaky integrate-and-fire: i ← decay_i · i + x; v ← decay_v · v + i. Arguments as of ``LIF``."""

    def __init__(self, decay_i: Any, decay_v: Any, *, threshold: Any = 1.0, **parameters: Any) -> None:
        super().__init__("integrate_and_fire", decay_i=decay_i, decay_v=decay_v, threshold=threshold, **parameters)


class AdaptiveLIF(NeuronCell):
    """Leaky integrate-and-fire whose threshold rises by ``adaptation`` with each spike and falls back with ``decay_a``.

    G. Bellec et al., "Long short-term memory and learning-to-learn in networks of spiking neurons", NeurIPS 2018. Other arguments
    as of ``LIF``.
    """

    def __init__(self, decay_v: Any, adaptation: Any, decay_a: Any, *, threshold: Any = 1.0, **parameters: Any) -> None:
        super().__init__(
            "integrate_and_fire", decay_v=decay_v, adaptation=adaptation, decay_a=decay_a, threshold=threshold, **parameters
        )


class ResonateAndFire(NeuronCell):
    """z ← decay_v · exp(j · angle) · z + x, spike where its real part passes the threshold, reset.

    E. M. Izhikevich, "Resonate-and-fire neurons", Neural Networks 14, 2001. ``angle``: radians a step. Other arguments as of
    ``LIF``.
    """

    def __init__(self, decay_v: Any, angle: Any, *, threshold: Any = 1.0, **parameters: Any) -> None:
        super().__init__("resonate_and_fire", decay_v=decay_v, angle=angle, threshold=threshold, **parameters)


@displayed
class BalancedState(NamedTuple):
    """State of ``BalancedResonateAndFire``: real and imaginary part of u, and the refractory trace q."""

    real: torch.Tensor
    imaginary: torch.Tensor
    q: torch.Tensor


class BalancedResonateAndFire(TimeFirst):
    """A resonator that cannot diverge, and that its spikes damp, not reset: u ← u + δ((b + jω)u + x), spike where Re u > θ + q.

    b = p(ω) − b′ − q with the edge of divergence p(ω) = (√(1 − (δω)²) − 1)/δ; q ← γq + spike. S. Higuchi, S. Kairat, S. M. Bohté,
    S. Otte, "Balanced resonate-and-fire neurons", ICML 2024. No chip neuron of ``network`` computes it.

    Args:
        frequency: ω ≥ 0, radians a unit of time, learned; below 1/dt.
        offset: b′ > 0, learned.
        dt: δ, a step in that unit.
        threshold: θ.
        decay_q: γ.
        surrogate: gradient of a spike.

    Raises:
        InputError: a frequency that the step is too long for.
    """

    threshold: torch.Tensor

    def __init__(
        self,
        frequency: Any,
        offset: Any,
        *,
        dt: float,
        threshold: float = 1.0,
        decay_q: float = 0.9,
        surrogate: Surrogate | None = None,
    ) -> None:
        super().__init__()
        omega = torch.as_tensor(_plain(frequency), dtype=torch.get_default_dtype()).clone()
        if not bool(((omega >= 0) & (omega * dt < 1)).all()):
            low, high = float(omega.min()), float(omega.max())
            raise InputError(f"frequency: expected 0 to 1/dt = {1 / dt:g} radians, got {low:g} to {high:g}")
        self.frequency = nn.Parameter(omega)
        self.offset = nn.Parameter(torch.as_tensor(_plain(offset), dtype=torch.get_default_dtype()).clone())
        self.register_buffer("threshold", torch.tensor(float(threshold)))
        self.dt, self.decay_q, self.surrogate = dt, decay_q, surrogate or Surrogate()

    def edge(self) -> torch.Tensor:
        """p(ω): with a larger b, u would grow without input."""
        return (torch.sqrt(1 - (self.dt * self.frequency) ** 2) - 1) / self.dt

    def step(self, x: torch.Tensor, state: BalancedState | None = None) -> tuple[torch.Tensor, BalancedState]:
        real, imaginary, q = state or BalancedState(*[torch.zeros_like(x)] * 3)
        b = self.edge() - self.offset.abs() - q
        omega = self.frequency
        real, imaginary = (
            real + self.dt * (b * real - omega * imaginary + x),
            imaginary + self.dt * (omega * real + b * imaginary),
        )
        spikes = self.surrogate(real - self.threshold - q)
        return spikes, BalancedState(real, imaginary, self.decay_q * q + spikes)


class Threshold(NeuronCell):
    """No state: spikes where the input passes the threshold."""

    def __init__(self, threshold: Any = 1.0, **parameters: Any) -> None:
        super().__init__("threshold", threshold=threshold, **parameters)


class Readout(NeuronCell):
    """Leaky integration without spikes: its output is v ← decay_v · v + x. With ``decay_v`` 1 it sums over time."""

    def __init__(self, decay_v: Any, **parameters: Any) -> None:
        super().__init__("readout", decay_v=decay_v, **parameters)


@displayed
class RecurrentState(NamedTuple):
    """State of a ``Recurrent``: of its cell, and what that sent in the step before."""

    cell: Any
    sent: torch.Tensor


class Recurrent(TimeFirst):
    """A cell that also gets its own output of the step before, through weights: x + W · s(t − 1).

    Args:
        cell: a cell for features (size,).
        size: number of neurons.
    """

    def __init__(self, cell: NeuronCell, size: int) -> None:
        super().__init__()
        self.cell = cell
        self.weights = nn.Linear(size, size, bias=False)

    def step(self, x: torch.Tensor, state: RecurrentState | None = None) -> tuple[torch.Tensor, RecurrentState]:
        inner, sent = (None, torch.zeros_like(x)) if state is None else state
        sent, inner = self.cell.step(x + self.weights(sent), inner)
        return sent, RecurrentState(inner, sent)
