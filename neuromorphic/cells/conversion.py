"""A trained network of rectified linear units becomes a spiking one: each unit a neuron whose rate of spikes is its activation.

Weights are balanced so that a spike a step stands for the largest activation, or a high percentile, that data reach in each
layer: P. U. Diehl et al., "Fast-classifying, high-accuracy spiking deep networks through weight and threshold balancing", IJCNN
2015; B. Rueckauer et al., "Conversion of continuous-valued deep networks to efficient event-driven networks for image
classification", Frontiers in Neuroscience 11, 2017 (reset by subtraction and the error that it leaves, percentiles).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import nn

from neuromorphic.cells.neuron_cells import LIF, Readout, SpikingSequential
from neuromorphic.cells.torch_maps import batch_norm_affine
from numerics.errors import InputError, unknown_name

if TYPE_CHECKING:
    import numpy.typing as npt

Weighted = nn.Linear | nn.Conv1d | nn.Conv2d
_PASSED = (nn.AvgPool1d, nn.AvgPool2d, nn.Flatten)
_DROPPED = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Identity)


def fold_batch_norm(layer: Weighted, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> Weighted:
    """A copy of ``layer`` that computes it and the normalisation behind it, with the stored statistics.

    Raises:
        InputError: the normalisation uses statistics of a batch, or has another number of channels.
    """
    scale, shift = (torch.as_tensor(a, dtype=layer.weight.dtype) for a in batch_norm_affine(norm))
    if scale.numel() != layer.weight.shape[0]:
        raise InputError(f"norm: {scale.numel()} channels behind a layer of {layer.weight.shape[0]}")
    folded = copy.deepcopy(layer)
    with torch.no_grad():
        folded.weight.mul_(scale.reshape(-1, *[1] * (layer.weight.ndim - 1)))
        bias = shift if layer.bias is None else layer.bias * scale + shift
    folded.bias = nn.Parameter(bias.detach().clone())
    return folded


def convert(
    module: nn.Module,
    data: torch.Tensor,
    *,
    percentile: float = 99.9,
    v_init: float = 0.5,
    reset: Literal["subtract", "zero"] = "subtract",
) -> SpikingSequential:
    """The spiking counterpart of a network of ReLU.

    Each ReLU becomes ``LIF(1.0, threshold=1.0, reset="subtract")``; if weights are last, a ``Readout`` sums them up, so that its
    value after T steps, over T, approaches the network's output. It wants the input in every step (``constant_input``), or spikes
    whose rate is the input.

    Args:
        module: (nested) ``nn.Sequential`` of Linear, Conv1d, Conv2d, BatchNorm behind one of them (folded), ReLU, AvgPool,
            Flatten, Dropout and Identity (left out), in evaluation.
        data: inputs (examples, *features) on which the activations are measured.
        percentile: of a layer's activations over data and units that becomes a rate of 1: 100 is the largest (Diehl et al.),
            99.9 that of Rueckauer et al.
        v_init: voltage at the start, in thresholds: 1/2 rounds the spike count instead of cutting it (T. Bu et al., "Optimal
            ANN-SNN conversion for high-accuracy and ultra-low-latency spiking neural networks", ICLR 2022).
        reset: ``subtract`` keeps what a spike leaves over; ``zero``, for chips that have nothing else, loses it, so that rates
            stay below the activations however long the run.

    Raises:
        InputError: a layer that has no counterpart, a layer never active on ``data``, numbers out of range.
    """
    if not 0 < percentile <= 100:
        raise InputError(f"percentile: expected 0 < percentile ≤ 100, got {percentile!r}")
    if not 0 <= v_init < 1:
        raise InputError(f"v_init: expected 0 ≤ v_init < 1 thresholds, got {v_init!r}")
    if reset not in ("subtract", "zero"):
        raise unknown_name("reset", str(reset), ("subtract", "zero"))
    if data.ndim < 2 or not data.shape[0]:
        raise InputError(f"data: expected shape (examples, *features), got {tuple(data.shape)}")
    layers = _folded(module)
    maxima = _maxima(layers, data, percentile)
    found: list[nn.Module] = []
    scale = 1.0  # an activation over the rate that stands for it
    for index, (path, layer) in enumerate(layers):
        if isinstance(layer, nn.ReLU):
            found.append(LIF(1.0, threshold=1.0, reset=reset, v_init=v_init).to(data.dtype))
        elif isinstance(layer, Weighted):
            rest = [kind for _, kind in layers[index + 1 :] if isinstance(kind, Weighted | nn.ReLU)]
            following = maxima[path] if rest and isinstance(rest[0], nn.ReLU) else (scale if rest else 1.0)
            balanced = copy.deepcopy(layer)
            with torch.no_grad():
                balanced.weight.mul_(scale / following)
                if balanced.bias is not None:
                    balanced.bias.div_(following)
            found.append(balanced)
            scale = following
        else:
            found.append(copy.deepcopy(layer))
    if isinstance(layers[-1][1], Weighted):
        found.append(Readout(1.0).to(data.dtype))
    return SpikingSequential(*found)


def constant_input(x: torch.Tensor, steps: int) -> torch.Tensor:
    """(steps, …): the same input in every step."""
    return x.expand(steps, *x.shape)


def accuracy_by_step(module: SpikingSequential, x: torch.Tensor, labels: torch.Tensor, *, steps: int) -> npt.NDArray[np.float64]:
    """(steps,): share of examples whose largest output is their label, were the run stopped after each step.

    Args:
        module: ends in a ``Readout``, or in spikes, which are then summed.
        x: (examples, *features), given in every step.
        labels: (examples,) integers.
        steps: how many.
    """
    with torch.no_grad():
        outputs = module(constant_input(x, steps))
    if not isinstance(list(module.children())[-1], Readout):
        outputs = outputs.cumsum(0)
    return np.asarray((outputs.argmax(-1) == labels).double().mean(1))


def _flat(module: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    if isinstance(module, nn.Sequential):
        for name, child in module.named_children():
            yield from _flat(child, f"{path}.{name}" if path else name)
    else:
        yield path, module


def _folded(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Layers with normalisations folded into the weights before them, and without those that do nothing."""
    found: list[tuple[str, nn.Module]] = []
    for path, layer in _flat(module):
        where = f"layer {path!r} ({type(layer).__name__})"
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            if not found or not isinstance(found[-1][1], Weighted):
                raise InputError(f"{where}: expected right behind a Linear or a convolution")
            found[-1] = (found[-1][0], fold_batch_norm(found[-1][1], layer))
        elif isinstance(layer, (Weighted, nn.ReLU, *_PASSED)):
            found.append((path, layer))
        elif not isinstance(layer, _DROPPED):
            raise InputError(f"{where}: has no spiking counterpart; known: Linear, Conv, BatchNorm, ReLU, AvgPool, Flatten")
    if not any(isinstance(layer, nn.ReLU) for _, layer in found):
        raise InputError("module: no ReLU to convert")
    return found


def _maxima(layers: list[tuple[str, nn.Module]], data: torch.Tensor, percentile: float) -> dict[str, float]:
    """Path of the weights before each ReLU → the percentile of what it lets through."""
    found: dict[str, float] = {}
    last = ""
    with torch.no_grad():
        x = data
        for path, layer in layers:
            x = layer(x)
            if isinstance(layer, Weighted):
                last = path
            elif isinstance(layer, nn.ReLU):
                if not last or last in found:
                    raise InputError(f"layer {path!r} (ReLU): expected weights between it and the ReLU before")
                found[last] = float(np.percentile(x.double().numpy(), percentile))
                if found[last] <= 0:
                    raise InputError(f"layer {path!r} (ReLU): percentile {percentile:g} of its activations on data is 0")
    return found
