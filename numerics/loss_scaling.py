"""The behaviour of ``recipes.LossScaling``: the factor on the loss, the steps it skips, how it grows and falls.

Source: Micikevicius et al., "Mixed Precision Training" (arXiv 1710.03740), section 3.2; growth and backoff are those of
``torch.amp.GradScaler``.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from numerics._display import displayed
from numerics.errors import InputError, unknown_name
from numerics.recipes import LossScaling

_SMALLEST = torch.finfo(torch.float32).tiny


@displayed
class LossScaler:
    """Scales the loss before ``backward``, and gradients back before a step.

    ::

        scaler = LossScaler(recipe.loss_scaling)
        scaler.scale(loss).backward()
        scaler.step(optimizer)

    Attributes:
        scaling: the rule; None for a factor of 1 and no step skipped, so that one loop serves every recipe.
        factor: on the next loss.
        steps: steps without an overflow since the factor last changed.
        skipped: steps not taken so far.
    """

    def __init__(self, scaling: LossScaling | None = None) -> None:
        if scaling is not None and not isinstance(scaling, LossScaling):
            raise InputError(f"scaling: expected a LossScaling or None, got {scaling!r}")
        self.scaling = scaling
        self.factor = 1.0 if scaling is None else float(scaling.initial)
        self.steps = 0
        self.skipped = 0
        self._unscaled: set[int] = set()

    def scale(self, loss: torch.Tensor) -> torch.Tensor:
        """The loss times the factor."""
        return loss if self.scaling is None else loss * self.factor

    def unscale(self, *optimizers: torch.optim.Optimizer) -> None:
        """Divide the gradients of these optimizers by the factor now, to clip them, say; ``step`` does not do so again.

        Raises:
            InputError: they are unscaled already.
        """
        for optimizer in optimizers:
            if id(optimizer) in self._unscaled:
                raise InputError("unscale: the gradients of this optimizer are unscaled already; expected step() before the next")
            self._unscaled.add(id(optimizer))
            if self.scaling is not None:
                for gradient in _gradients(optimizer):
                    gradient.mul_(1.0 / self.factor)

    def step(self, *optimizers: torch.optim.Optimizer) -> bool:
        """A step of each optimizer, or of none where any gradient is not finite; then the factor of the next step.

        Returns:
            Whether the step was taken.

        Raises:
            InputError: no optimizer; a factor that would fall below 2^−126: then it is not the factor that overflows.
        """
        if not optimizers:
            raise InputError("step: expected at least one optimizer, got none")
        self.unscale(*(o for o in optimizers if id(o) not in self._unscaled))
        self._unscaled.clear()
        taken = self.scaling is None or all(bool(torch.isfinite(g).all()) for o in optimizers for g in _gradients(o))
        if taken:
            for optimizer in optimizers:
                optimizer.step()
        self._adapt(taken)
        return taken

    def _adapt(self, taken: bool) -> None:
        self.skipped += not taken
        if self.scaling is None:
            return
        if not taken:
            lower = self.factor * self.scaling.backoff
            if lower < _SMALLEST:
                raise InputError(f"loss_scaling: gradients overflow even at a factor of {self.factor:g}; expected finite ones")
            self.factor, self.steps = lower, 0
            return
        self.steps += 1
        if self.steps == self.scaling.interval:
            higher = self.factor * self.scaling.growth
            # Beyond FP32 there is no factor; GradScaler stays there as well.
            if higher <= torch.finfo(torch.float32).max:
                self.factor = higher
            self.steps = 0

    def state_dict(self) -> dict[str, Any]:
        """Plain data, for ``load_state_dict``."""
        return {"factor": self.factor, "steps": self.steps, "skipped": self.skipped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what ``state_dict`` gave.

        Raises:
            InputError: a field missing or unknown, or a factor that is not positive.
        """
        expected = ("factor", "steps", "skipped")
        for name in state:
            if name not in expected:
                raise unknown_name("loss scaler: field", str(name), expected)
        for name in expected:
            if name not in state:
                raise InputError(f"loss scaler: {name}: missing; expected what state_dict() gave")
        if not (math.isfinite(state["factor"]) and state["factor"] > 0):
            raise InputError(f"loss scaler: factor: expected a positive number, got {state['factor']!r}")
        self.factor, self.steps, self.skipped = float(state["factor"]), int(state["steps"]), int(state["skipped"])


def _gradients(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
