"""Steps with a derivative to train with: forward 1 where x > 0, backward a curve that stands for the step's derivative.

E. O. Neftci, H. Mostafa, F. Zenke, "Surrogate gradient learning in spiking neural networks", IEEE Signal Processing Magazine
36(6), 2019, reviews them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite, pi
from typing import Any

import torch

from hwsim.views.display import displayed
from numerics.errors import InputError, unknown_name


def _fast_sigmoid(x: torch.Tensor, slope: float) -> torch.Tensor:
    return (1 + slope * x.abs()) ** -2


def _arctan(x: torch.Tensor, slope: float) -> torch.Tensor:
    return slope / 2 / (1 + (pi / 2 * slope * x) ** 2)


def _triangle(x: torch.Tensor, slope: float) -> torch.Tensor:
    return (1 - slope * x.abs()).clamp(min=0)


def _sigmoid(x: torch.Tensor, slope: float) -> torch.Tensor:
    return slope * torch.sigmoid(slope * x) * torch.sigmoid(-slope * x)


def _straight_through(x: torch.Tensor, slope: float) -> torch.Tensor:
    return torch.full_like(x, slope)


DERIVATIVES: Mapping[str, Callable[[torch.Tensor, float], torch.Tensor]] = {
    "fast_sigmoid": _fast_sigmoid,
    "arctan": _arctan,
    "triangle": _triangle,
    "sigmoid": _sigmoid,
    "straight_through": _straight_through,
}
"""Name of a curve → the curve, a function of x and the slope."""


@displayed
@dataclass(frozen=True)
class Surrogate:
    """A curve that stands for the derivative of the step, with slope k; x is the voltage less the threshold.

    - ``fast_sigmoid``: 1/(1 + k|x|)², the derivative of x/(1 + k|x|) (F. Zenke, S. Ganguli, "SuperSpike", Neural Computation
      30(6), 2018).
    - ``arctan``: (k/2)/(1 + (πkx/2)²), the derivative of arctan(πkx/2)/π + 1/2 (W. Fang et al., "Incorporating learnable membrane
      time constant to enhance learning of spiking neural networks", ICCV 2021).
    - ``triangle``: max(0, 1 − k|x|) (S. K. Esser et al., PNAS 113(41), 2016; G. Bellec et al., "Long short-term memory and
      learning-to-learn in networks of spiking neurons", NeurIPS 2018).
    - ``sigmoid``: kσ(1 − σ) with σ = 1/(1 + exp(−kx)), the derivative of σ (F. Zenke, T. P. Vogels, Neural Computation 33(4),
      2021).
    - ``straight_through``: k everywhere (Y. Bengio, N. Léonard, A. Courville, arXiv 1308.3432, with k = 1).

    Attributes:
        curve: which of them.
        slope: k > 0.
        scale: what the curve is multiplied with (the dampening of Bellec et al.), > 0.

    Raises:
        InputError: an unknown curve, a slope or scale that is not a finite number > 0.
    """

    curve: str = "fast_sigmoid"
    slope: float = 25.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.curve not in DERIVATIVES:
            raise unknown_name("curve", str(self.curve), DERIVATIVES)
        for name in ("slope", "scale"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value) or value <= 0:
                raise InputError(f"{name}: expected a number > 0, got {value!r}")

    def derivative(self, x: torch.Tensor) -> torch.Tensor:
        """The curve at x, of any shape."""
        return self.scale * DERIVATIVES[self.curve](x, self.slope)

    def __call__(self, x: torch.Tensor, *, at_zero: bool = False) -> torch.Tensor:
        """1 where x > 0 (x ≥ 0 with ``at_zero``) and 0 elsewhere, in the type of x; its gradient is ``derivative``."""
        result: torch.Tensor = _Step.apply(x, self, at_zero)
        return result


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, surrogate: Surrogate, at_zero: bool) -> torch.Tensor:
        ctx.save_for_backward(x)
        ctx.surrogate = surrogate
        return (x >= 0 if at_zero else x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (x,) = ctx.saved_tensors
        return grads[0] * ctx.surrogate.derivative(x), None, None
