"""How much work spikes cause: accumulates where a layer's input is spikes, multiply-accumulates where it is values.

Only weights (and products of spikes in attention) are counted; what a neuron does on its own, its decay and its reset, is a
neuron update, which chips price apart.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from hwsim.views.display import displayed
from numerics.errors import InputError

MAC_J = 4.6e-12
"""A multiply-accumulate of fp32 at 45 nm, joules: 3.7 + 0.9 pJ (M. Horowitz, "Computing's energy problem", ISSCC 2014)."""

AC_J = 0.9e-12
"""An accumulate of fp32 at 45 nm, joules (same source)."""


@displayed
@dataclass(frozen=True)
class OperationCount:
    """What one layer did over all steps and examples of a run.

    Attributes:
        layer: its path in the module.
        dense: products of an input and a weight, zeros included.
        active: those whose inputs are not 0: the synaptic operations of an event-driven machine.
        spikes: whether every input was 0 or 1 (of a product of two tensors: where that selects), so that nothing is multiplied.
        inputs, nonzero: elements of the input, and how many were not 0.
    """

    layer: str
    dense: int
    active: int
    spikes: bool
    inputs: int
    nonzero: int

    @property
    def accumulates(self) -> int:
        """Additions of a weight that a spike selects."""
        return self.active if self.spikes else 0

    @property
    def multiplies(self) -> int:
        """Multiply-accumulates of values; a machine for those does not skip zeros."""
        return 0 if self.spikes else self.dense

    @property
    def rate(self) -> float:
        """Share of inputs that were not 0."""
        return self.nonzero / self.inputs


class SpikeProduct(nn.Module):
    """a @ b for spikes a (…, n, k) and b (…, k, m), of which each spike of a selects a row to add.

    Args:
        sums: whether b holds sums of spikes, whose rows are added whole; otherwise it holds spikes, and only coincidences count.
    """

    def __init__(self, *, sums: bool = False) -> None:
        super().__init__()
        self.sums = sums

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a @ b


def count_operations(module: nn.Module, *inputs: Any) -> tuple[OperationCount, ...]:
    """Run ``module`` and count what its Linear, Conv1d, Conv2d and ``SpikeProduct`` layers do, in the order of first use.

    Args:
        module: any; it is run as it is, without gradients.
        inputs: its arguments.

    Returns:
        One entry a layer, added up over every call of it.

    Raises:
        InputError: no such layer was run.
    """
    found: dict[str, OperationCount] = {}

    def count(path: str) -> Any:
        def hook(layer: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
            new = _count(path, layer, given)
            old = found.get(path)
            if old is not None:
                new = OperationCount(
                    path,
                    old.dense + new.dense,
                    old.active + new.active,
                    old.spikes and new.spikes,
                    old.inputs + new.inputs,
                    old.nonzero + new.nonzero,
                )
            found[path] = new

        return hook

    hooks = [
        layer.register_forward_pre_hook(count(path))
        for path, layer in module.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | SpikeProduct)
    ]
    try:
        with torch.no_grad():
            module(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    if not found:
        raise InputError("module: no Linear, Conv1d, Conv2d or SpikeProduct was run")
    return tuple(found.values())


def energy_j(counts: Iterable[OperationCount], *, mac_j: float = MAC_J, ac_j: float = AC_J) -> float:
    """Joules of the arithmetic: multiply-accumulates and accumulates at a price each."""
    return sum(one.multiplies * mac_j + one.accumulates * ac_j for one in counts)


def energy_ratio(steps: int, rate: float, *, mac_j: float = MAC_J, ac_j: float = AC_J) -> float:
    """Energy of one pass of values over that of ``steps`` steps of spikes: E_MAC / (E_AC · T · rate).

    Raises:
        InputError: steps below 1, a rate that is not > 0.
    """
    if steps < 1:
        raise InputError(f"steps: expected an integer ≥ 1, got {steps!r}")
    if not rate > 0:
        raise InputError(f"rate: expected spikes a step > 0, got {rate!r}")
    return mac_j / (ac_j * steps * rate)


def _count(path: str, layer: nn.Module, given: tuple[torch.Tensor, ...]) -> OperationCount:
    x = given[0].detach()
    spikes = bool(((x == 0) | (x == 1)).all())
    nonzero = (x != 0).double()
    if isinstance(layer, SpikeProduct):
        b = given[1].detach()
        shape = torch.broadcast_shapes(x.shape[:-2], b.shape[:-2])
        dense = shape.numel() * x.shape[-2] * x.shape[-1] * b.shape[-1]
        there = torch.ones_like(b, dtype=torch.float64) if layer.sums else (b != 0).double()
        active = round(float((nonzero @ there).sum()))
        spikes = spikes and (layer.sums or bool(((b == 0) | (b == 1)).all()))
    elif isinstance(layer, nn.Linear):
        dense = x.numel() * layer.out_features
        active = int(nonzero.sum()) * layer.out_features
    else:
        dense, active = _taps(layer, torch.ones_like(nonzero)), _taps(layer, nonzero)
    return OperationCount(path, dense, active, spikes, x.numel(), int(nonzero.sum()))


def _taps(layer: Any, there: torch.Tensor) -> int:
    """Pairs of an input of ``there`` and a weight of the convolution; padding is no input."""
    run = functional.conv1d if isinstance(layer, nn.Conv1d) else functional.conv2d
    ones = torch.ones_like(layer.weight, dtype=there.dtype)
    if layer.padding_mode != "zeros":
        raise InputError(f"padding_mode: expected 'zeros', got {layer.padding_mode!r}")
    pairs = run(there, ones, None, layer.stride, layer.padding, layer.dilation, layer.groups)
    return round(float(pairs.sum()))
