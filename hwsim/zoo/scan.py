"""Mamba's selective scan (Gu, Dao, arXiv:2312.00752, algorithm 2) as one operator, ``hwsim::selective_scan``.

A loop over the sequence would be traced as thousands of small operators; machines run it as one kernel.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


@torch.library.custom_op("hwsim::selective_scan", mutates_args=())
def selective_scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """``h_t = exp(Δ_t A) h_{t−1} + Δ_t B_t u_t`` and ``y_t = C_t h_t + D u_t``, with h_0 = 0.

    Args:
        u: input [batch, channels, length].
        delta: step sizes Δ > 0 [batch, channels, length].
        A: decay rates < 0 [channels, state].
        B: input gates [batch, state, length].
        C: output gates [batch, state, length].
        D: skip gains [channels].

    Returns:
        y [batch, channels, length].
    """
    states = _states(u, delta, A, B)[1:]
    return (torch.einsum("tbdn,bnt->bdt", states, C) + u * D[:, None]).contiguous()


@selective_scan.register_fake
def _(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    return torch.empty_like(u, memory_format=torch.contiguous_format)


@torch.library.custom_op("hwsim::selective_scan_backward", mutates_args=())
def selective_scan_backward(
    grad: Tensor, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of u, delta, A, B, C and D, given y's [batch, channels, length]. Recomputes the states."""
    states = _states(u, delta, A, B)
    before, after = states[:-1], states[1:]
    decay = _decay(delta, A)
    grad_h = torch.empty_like(after)
    carried = torch.zeros_like(states[0])
    for t in reversed(range(u.shape[2])):
        grad_h[t] = grad[:, :, t, None] * C[:, None, :, t] + carried
        carried = decay[t] * grad_h[t]
    decayed = grad_h * decay * before  # the gradient of the exponent Δ_t A
    driven = torch.einsum("tbdn,bnt->bdt", grad_h, B)  # the gradient of the product Δ_t u_t
    gradients = (
        grad * D[:, None] + delta * driven,
        torch.einsum("tbdn,dn->bdt", decayed, A) + u * driven,
        torch.einsum("tbdn,bdt->dn", decayed, delta),
        torch.einsum("tbdn,bdt->bnt", grad_h, delta * u),
        torch.einsum("tbdn,bdt->bnt", after, grad),
        torch.einsum("bdt,bdt->d", grad, u),
    )
    return tuple(gradient.contiguous() for gradient in gradients)  # type: ignore[return-value]  # the six above


@selective_scan_backward.register_fake
def _(grad: Tensor, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> tuple[Tensor, ...]:
    return tuple(torch.empty_like(x, memory_format=torch.contiguous_format) for x in (u, delta, A, B, C, D))


def _decay(delta: Tensor, A: Tensor) -> Tensor:
    return torch.exp(delta.permute(2, 0, 1)[..., None] * A)


def _states(u: Tensor, delta: Tensor, A: Tensor, B: Tensor) -> Tensor:
    """h_0 to h_length: [length + 1, batch, channels, state]."""
    decay = _decay(delta, A)
    states = [torch.zeros_like(decay[0])]
    for t in range(u.shape[2]):
        states.append(decay[t] * states[-1] + (delta[:, :, t] * u[:, :, t])[..., None] * B[:, None, :, t])
    return torch.stack(states)


def _setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
    return selective_scan_backward(grad, *ctx.saved_tensors)


selective_scan.register_autograd(_backward, setup_context=_setup_context)
