"""Model-free forward-forward training of physical layers that nobody has a model of.

A layer is a physical transformation p = F(h), which is sent light and read, nothing else, and a matrix W of digital weights
behind it. Its goodness is the cosine between |W·p| and a direction drawn once for the layer. Data with its label embedded is
positive, with another label negative; each layer lowers

    log(1 + exp(−sharpness · (goodness of positive − goodness of negative)))

by its own W alone, of which p does not depend, so that no gradient passes physics or another layer. A sample is told by the label
whose goodness, summed over the layers, is highest (A. Momeni et al., "Backpropagation-free training of deep physical neural
networks", Science 382, 1297, 2023; after G. Hinton, arXiv 2212.13345).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from hwsim.views.display import displayed
from numerics._fields import check_integer
from numerics.errors import InputError
from numerics.faults.maps import stream
from photonic._numbers import is_one_of, number, shown
from photonic.training.optical_layers import check_labels, check_real
from photonic.training.physical_layer import PhysicalLayer
from photonic.training.tallies import Tally


@displayed
@dataclass(frozen=True)
class GoodnessSlope:
    """Goodness of some samples, and how it changes with what they are made of.

    Attributes:
        goodness: (batch,).
        slope: (batch, outputs) derivative with respect to W·p + b.
    """

    goodness: torch.Tensor
    slope: torch.Tensor


def cosine_goodness(outputs: torch.Tensor, direction: torch.Tensor) -> GoodnessSlope:
    """cos(|y|, d) = |y|·d/‖y‖ of y (batch, outputs) and d (outputs,) of norm 1, and its derivative, in closed form.

    A row of zeros has goodness and slope 0.

    Raises:
        InputError: other shapes, or numbers that are not real.
    """
    is_one_of("direction", direction, torch.Tensor)
    check_real(outputs, direction.numel())
    if direction.dim() != 1 or direction.dtype != outputs.dtype:
        raise InputError(f"direction: expected {outputs.dtype} of one dimension, got {direction.dtype} of {direction.dim()}")
    size = outputs.norm(dim=1, keepdim=True)
    there = torch.where(size > 0, size, torch.ones_like(size))
    unit = outputs / there
    goodness = unit.abs() @ direction
    return GoodnessSlope(goodness, (unit.sign() * direction - goodness[:, None] * unit) / there)


@displayed
class ForwardForward:
    """A stack of physical layers with digital weights, trained layer by layer.

    The first layer gets data and label on one vector of norm 1, of ``layers[0].inputs`` numbers; further ones get |W·p| of the
    layer before, scaled to norm 1.

    Args:
        layers: the physical ones; each has as many inputs as the one before has units.
        classes: labels; those embedded are the first so many inputs of the first layer, data the others.
        units: rows of W of each layer.
        rate: of Adam (D. Kingma and J. Ba, arXiv 1412.6980).
        sharpness: see the module.
        label_share: of the light in the label.
        seed: of first weights, directions and negative labels.
        tally: where digital operations are counted; by default a new one. Layers have their own.

    Attributes:
        weights: one (units, outputs) for each layer.
        biases: one (units,) for each layer.
        tally: as given.

    Raises:
        InputError: numbers that do not fit together.
    """

    def __init__(
        self,
        layers: Sequence[PhysicalLayer],
        classes: int,
        *,
        units: Sequence[int],
        rate: float = 0.01,
        sharpness: float = 5.0,
        label_share: float = 0.5,
        seed: int = 0,
        tally: Tally | None = None,
    ) -> None:
        for name, given in (("layers", layers), ("units", units)):
            if not isinstance(given, list | tuple):
                raise InputError(f"{name}: expected a list, got {shown(given)}")
        is_one_of("tally", tally, Tally, type(None))
        if not layers or len(layers) != len(units):
            raise InputError(f"units: expected one number for each of {len(layers)} layers (at least one), got {len(units)}")
        for layer in layers:
            is_one_of("layers", layer, PhysicalLayer)
        self.classes = check_integer("classes", classes, 2)
        self.units = tuple(check_integer("units", count, 2) for count in units)
        if layers[0].inputs <= classes:
            raise InputError(f"layers: expected more than {classes} inputs of the first, got {layers[0].inputs}")
        for k, (layer, count) in enumerate(zip(layers[1:], units[:-1], strict=True), 1):
            if layer.inputs != count:
                raise InputError(f"layers: expected {count} inputs of layer {k}, as the units before, got {layer.inputs}")
        number("rate", rate, above=True)
        number("sharpness", sharpness, above=True)
        number("label_share", label_share, above=True)
        if label_share >= 1:
            raise InputError(f"label_share: expected less than 1, got {label_share!r}")
        self.layers, self.sharpness, self.label_share = tuple(layers), float(sharpness), float(label_share)
        self.tally = Tally() if tally is None else tally
        rng = stream(check_integer("seed", seed, 0), "forward-forward")
        self.weights, self.biases, self.directions = [], [], []
        for layer, count in zip(layers, self.units, strict=True):
            self.weights.append(torch.from_numpy(rng.standard_normal((count, layer.outputs)) / np.sqrt(layer.outputs)))
            self.biases.append(torch.zeros(count, dtype=torch.float64))
            direction = np.abs(rng.standard_normal(count))
            self.directions.append(torch.from_numpy(direction / np.linalg.norm(direction)))
        self._wrong = rng
        # A physical layer has no gradient, nor has autograd any part in this: slopes are set by hand, Adam steps.
        self._optimizers = [torch.optim.Adam(pair, lr=rate) for pair in zip(self.weights, self.biases, strict=True)]

    def step(self, x: torch.Tensor, labels: torch.Tensor) -> tuple[float, ...]:
        """One update of every layer, from positive and negative data; returns each layer's loss before it.

        Args:
            x: (batch, layers[0].inputs − classes) values ≥ 0, rows of which are not all 0.
            labels: (batch,) integers below ``classes``.

        Raises:
            InputError: other shapes, labels out of range.
        """
        check_labels(labels, x, self.classes)
        other = (labels + torch.from_numpy(self._wrong.integers(1, self.classes, len(labels)))) % self.classes
        light = torch.cat([self._embedded(x, labels), self._embedded(x, other)])
        losses = []
        with torch.no_grad():
            for k in range(len(self.layers)):
                read = self.layers[k](light)
                y = self._outputs(k, read)
                found = cosine_goodness(y, self.directions[k])
                positive, negative = found.goodness.chunk(2)
                margin = self.sharpness * (positive - negative)
                losses.append(float(nn.functional.softplus(-margin).mean()))
                pull = -self.sharpness * torch.sigmoid(-margin) / len(x)
                self._update(k, torch.cat([pull, -pull])[:, None] * found.slope, read)
                self.tally.add(elementwise=8 * y.numel())
                light = y.abs() / y.norm(dim=1, keepdim=True).clamp_min(1e-300)
        return tuple(losses)

    def goodness(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, classes) sum over the layers, for each label embedded in turn."""
        check_real(x, self.layers[0].inputs - self.classes)
        columns = []
        with torch.no_grad():
            for label in range(self.classes):
                light = self._embedded(x, torch.full((len(x),), label))
                total = torch.zeros(len(x), dtype=torch.float64)
                for k, layer in enumerate(self.layers):
                    y = self._outputs(k, layer(light))
                    total += cosine_goodness(y, self.directions[k]).goodness
                    light = y.abs() / y.norm(dim=1, keepdim=True).clamp_min(1e-300)
                columns.append(total)
        return torch.stack(columns, dim=1)

    def predict(self, x: torch.Tensor) -> torch.Tensor:
        """(batch,) the label of highest goodness."""
        return self.goodness(x).argmax(dim=1)

    def advance(self, seconds: float) -> None:
        """Let time pass in all layers."""
        for layer in self.layers:
            layer.advance(seconds)

    def _embedded(self, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        check_real(x, self.layers[0].inputs - self.classes)
        size = x.double().norm(dim=1, keepdim=True)
        if not bool((size > 0).all()) or not bool((x >= 0).all()):
            raise InputError("x: expected values ≥ 0, in no row all of them 0")
        marks = nn.functional.one_hot(labels, self.classes).double() * self.label_share**0.5
        return torch.cat([marks, x.double() / size * (1 - self.label_share) ** 0.5], dim=1)

    def _outputs(self, k: int, read: Any) -> torch.Tensor:
        self.tally.add(macs=read.shape[0] * self.weights[k].numel())
        y: torch.Tensor = read @ self.weights[k].T + self.biases[k]
        return y

    def _update(self, k: int, slope: torch.Tensor, read: torch.Tensor) -> None:
        self.weights[k].grad, self.biases[k].grad = slope.T @ read, slope.sum(dim=0)
        self.tally.add(macs=len(read) * self.weights[k].numel(), updates=self.weights[k].numel() + self.biases[k].numel())
        self._optimizers[k].step()
