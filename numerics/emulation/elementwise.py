"""Rounding of what operators that are no matrix products read and write, and of the gradients between operators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from numerics.emulation.quantised import Rule, estimate, quantise

if TYPE_CHECKING:
    from numerics.emulation.context import Site


class Round(torch.autograd.Function):
    """Forward: a tensor in the format of one rule. Backward: its gradient in that of another."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, rule: Rule, gradient: Rule, site: Site, name: str) -> torch.Tensor:
        """The rounded tensor, of the type of x."""
        quantised = quantise(x, rule, site, name, codes=False, keep_infinite=True)
        ctx.gradient, ctx.site, ctx.name = gradient, site, name
        ctx.quantised = None if quantised.passes is None else quantised
        if quantised.passes is not None:
            ctx.save_for_backward(x)
        values = quantised.values.to(x.dtype)
        return values.clone() if values.data_ptr() == x.data_ptr() else values

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        """The gradient, rounded, then through the quantiser."""
        (gradient,) = gradients
        # Numbered apart from the operands that the forward pass names.
        number = int(ctx.name.rpartition("_")[2]) if ctx.name[-1].isdigit() else 1
        rounded = round_by(gradient, ctx.gradient, ctx.site, f"{ctx.gradient.role}_{10 + number}")
        if ctx.quantised is not None:
            rounded = estimate(rounded, ctx.saved_tensors[0], ctx.quantised).to(gradient.dtype)
        return rounded, None, None, None, None


def round_by(x: torch.Tensor, rule: Rule, site: Site, name: str) -> torch.Tensor:
    """A tensor in the format of a rule; the same type."""
    if rule.identity(x.dtype) and site.context.injection is None:
        return x
    return quantise(x, rule, site, name, codes=False, keep_infinite=True).values.to(x.dtype)


def round_gradient(x: torch.Tensor, site: Site, number: int) -> torch.Tensor:
    """The gradient that a product computed, in the format of gradients between operators."""
    rule = site.context.result_gradient(site.module)
    return round_by(x, rule, site, f"{rule.role}_{number}")


def rounded(x: torch.Tensor, rule: Rule, site: Site, name: str) -> torch.Tensor:
    """A tensor rounded forward by a rule and backward as gradients are."""
    gradient = site.context.result_gradient(site.module)
    if rule.identity(x.dtype) and gradient.identity(x.dtype) and site.context.injection is None:
        site.context.notify(site.key(name), x.detach())
        return x
    return Round.apply(x, rule, gradient, site, name)
