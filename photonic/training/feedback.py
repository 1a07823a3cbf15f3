"""Direct feedback alignment: the error goes to every layer at once, through a random matrix that light computes.

With e the error at the outputs, h = tanh(a) the layer and B a fixed random projection, a layer takes (B·e) ⊙ (1 − h²) for the
gradient of a, where backpropagation has the transposes of all later weights (A. Nøkland, NeurIPS 2016). Weights come to align
with B: the angle to the true gradient falls below 90°, which is what makes the loss fall. B·e is one optical
projection for all layers, whatever the depth (J. Launay et al., arXiv 2012.06373).

Layers may be random projections themselves, wide ones, with narrow trained layers between: no gradient has to pass them, and they
cost neither memory nor updates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from hwsim.views.display import displayed
from numerics._fields import check_integer
from numerics.errors import InputError
from photonic._numbers import is_one_of, number, shown
from photonic.detection import Receiver
from photonic.training.optical_layers import check_labels, check_real
from photonic.training.projections import OpticalProjection, scattering, ternarised
from photonic.training.tallies import Tally


@displayed
@dataclass(frozen=True)
class Parameters:
    """Numbers that a network has.

    Attributes:
        trained: digital weights and biases, updated by each step.
        fixed: those of the media that it passes, nowhere stored and never updated.
    """

    trained: int
    fixed: int


@displayed
class FeedbackNetwork:
    """Dense layers with tanh between, and media in front of some; trained by feedback through light.

    Args:
        sizes: of inputs, hidden layers and classes.
        feedback: the projection of errors, from classes to the numbers of all hidden layers together.
        media: for each dense layer, the projection that its inputs pass first, or None. It has one more input, always on, so that
            x and −x differ; what it gives to the layer is power over mean power − 1.
        rate: of Adam (D. Kingma and J. Ba, arXiv 1412.6980).
        threshold: errors are sent as −1, 0 and 1 (see ``projections.ternarised``); None: as they are.
        feedback_scale: factor of what is projected; the default keeps it near the size of the errors.
        tally: where digital operations are counted; by default a new one. Projections have their own.

    Attributes:
        layers: the dense ones.
        tally: as given.

    Raises:
        InputError: numbers that do not fit together.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        feedback: OpticalProjection,
        *,
        media: Sequence[OpticalProjection | None] | None = None,
        rate: float = 1e-3,
        threshold: float | None = None,
        feedback_scale: float = 1.0,
        tally: Tally | None = None,
    ) -> None:
        if not isinstance(sizes, list | tuple) or len(sizes) < 3:
            got = list(sizes) if isinstance(sizes, list | tuple) else shown(sizes)
            raise InputError(f"sizes: expected inputs, at least one hidden layer, and classes, got {got}")
        if media is not None and not isinstance(media, list | tuple):
            raise InputError(f"media: expected a list, got {shown(media)}")
        is_one_of("tally", tally, Tally, type(None))
        self.sizes = tuple(check_integer("sizes", size, 1) for size in sizes)
        is_one_of("feedback", feedback, OpticalProjection)
        if (feedback.inputs, feedback.outputs) != (sizes[-1], sum(sizes[1:-1])):
            raise InputError(
                f"feedback: expected a medium from {sizes[-1]} to {sum(sizes[1:-1])}, got {feedback.inputs} to {feedback.outputs}"
            )
        held = [None] * (len(sizes) - 1) if media is None else list(media)
        if len(held) != len(sizes) - 1:
            raise InputError(f"media: expected {len(sizes) - 1}, one for each dense layer, got {len(held)}")
        for k, medium in enumerate(held):
            is_one_of("media", medium, OpticalProjection, type(None))
            if medium is not None and medium.inputs != sizes[k] + 1:
                raise InputError(f"media: expected {sizes[k] + 1} inputs in front of layer {k}, got {medium.inputs}")
        number("rate", rate, above=True)
        number("feedback_scale", feedback_scale, above=True)
        if threshold is not None:
            number("threshold", threshold)
        self.feedback, self.media = feedback, tuple(held)
        self.threshold, self.feedback_scale = threshold, float(feedback_scale)
        self.tally = Tally() if tally is None else tally
        self.layers: list[nn.Linear] = []
        for k, out in enumerate(self.sizes[1:]):
            medium = self.media[k]
            wide = self.sizes[k] if medium is None else medium.outputs
            layer = nn.Linear(wide, out, dtype=torch.float64)
            # All weights begin at 0, which has no direction that feedback would have to turn first (A. Nøkland, section 3).
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
            self.layers.append(layer)
        self._optimizer = torch.optim.Adam([p for layer in self.layers for p in layer.parameters()], lr=rate)

    @property
    def parameters(self) -> Parameters:
        """Trained and fixed numbers; a fixed one of a medium is complex."""
        trained = sum(p.numel() for layer in self.layers for p in layer.parameters())
        return Parameters(trained, sum(medium.medium.size for medium in self.media if medium is not None))

    def scores(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, classes) before the softmax."""
        with torch.no_grad():
            return self._forward(x)[1][-1]

    def predict(self, x: torch.Tensor) -> torch.Tensor:
        """(batch,) class of the highest score."""
        return self.scores(x).argmax(dim=1)

    def step(self, x: torch.Tensor, labels: torch.Tensor) -> float:
        """One update of all layers; returns the cross-entropy before it.

        Args:
            x: (batch, sizes[0]) real.
            labels: (batch,) integers below the number of classes.

        Raises:
            InputError: other shapes, labels out of range.
        """
        check_labels(labels, x, self.sizes[-1])
        with torch.no_grad():
            given, results = self._forward(x)
            loss, gradients = self._gradients(given, results, labels)
            for layer, (weight, bias) in zip(self.layers, gradients, strict=True):
                layer.weight.grad, layer.bias.grad = weight, bias
        self.tally.add(updates=self.parameters.trained)
        self._optimizer.step()
        return loss

    def angles_deg(self, x: torch.Tensor, labels: torch.Tensor) -> tuple[float, ...]:
        """Angle between the update of each layer's weights and the true gradient, which knows every medium; 0 for the last layer.

        Light that this takes is sent, but counted apart: training does without.

        Raises:
            InputError: as ``step``.
        """
        check_labels(labels, x, self.sizes[-1])
        held = [(self.feedback, self.feedback.tally), *((m, m.tally) for m in self.media if m is not None)]
        mine, self.tally = self.tally, Tally()
        for projection, _ in held:
            projection.tally = Tally()
        try:
            with torch.no_grad():
                given, results = self._forward(x)
                found = [weight for weight, _ in self._gradients(given, results, labels)[1]]
        finally:
            self.tally = mine
            for projection, tally in held:
                projection.tally = tally
        true = self._true_gradients(x, labels)
        return tuple(
            float(torch.rad2deg(torch.arccos(nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0).clamp(-1, 1))))
            for a, b in zip(found, true, strict=True)
        )

    # --- one pass ---------------------------------------------------------------------------------------------------------------

    def _forward(self, x: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """What each dense layer gets, and what it gives (behind tanh, but for the last)."""
        check_real(x, self.sizes[0])
        h, given, results = x.double(), [], []
        for k, (layer, medium) in enumerate(zip(self.layers, self.media, strict=True)):
            if medium is not None:
                powers = torch.from_numpy(medium.powers(lit(h).numpy()))
                h = powers / powers.mean(dim=1, keepdim=True) - 1
                self.tally.add(elementwise=3 * h.numel())
            given.append(h)
            h = h @ layer.weight.T + layer.bias
            self.tally.add(macs=len(x) * layer.weight.numel())
            if k + 1 < len(self.layers):
                h = h.tanh()
                self.tally.add(elementwise=h.numel())
            results.append(h)
        return given, results

    def _gradients(
        self, given: list[torch.Tensor], results: list[torch.Tensor], labels: torch.Tensor
    ) -> tuple[float, list[tuple[torch.Tensor, torch.Tensor]]]:
        """Loss, and what each layer takes for the gradients of its weight and bias."""
        scores = results[-1]
        error = (scores.softmax(dim=1) - nn.functional.one_hot(labels, self.sizes[-1])) / len(labels)
        self.tally.add(elementwise=2 * error.numel())
        unit = error * len(labels)
        if self.threshold is None:
            projected = self.feedback.linear(unit.numpy())
        else:
            projected = self.feedback.ternary(ternarised(unit.numpy(), self.threshold))
            self.tally.add(elementwise=error.numel())
        parts = torch.from_numpy(projected * (self.feedback_scale / len(labels))).split(list(self.sizes[1:-1]), dim=1)
        slopes = [part * (1 - h.square()) for part, h in zip(parts, results[:-1], strict=True)]
        self.tally.add(elementwise=4 * projected.size)
        found = []
        for h, slope in zip(given, [*slopes, error], strict=True):
            found.append((slope.T @ h, slope.sum(dim=0)))
            self.tally.add(macs=len(h) * h.shape[1] * slope.shape[1])
        return float(nn.functional.cross_entropy(scores, labels)), found

    def _true_gradients(self, x: torch.Tensor, labels: torch.Tensor) -> list[torch.Tensor]:
        h = x.double()
        for k, (layer, medium) in enumerate(zip(self.layers, self.media, strict=True)):
            if medium is not None:
                powers = (lit(h).to(torch.complex128) @ torch.from_numpy(medium.medium).T).abs().square()
                h = powers / powers.mean(dim=1, keepdim=True) - 1
            h = nn.functional.linear(h, layer.weight, layer.bias)
            h = h.tanh() if k + 1 < len(self.layers) else h
        loss = nn.functional.cross_entropy(h, labels)
        return list(torch.autograd.grad(loss, [layer.weight for layer in self.layers]))


def lit(h: torch.Tensor) -> torch.Tensor:
    """(batch, n) with an input of 1 before it."""
    return nn.functional.pad(h, (1, 0), value=1.0)


def wide_narrow_wide(
    inputs: int, wide: int, narrow: int, classes: int, *, camera: Receiver | None = None, rate: float = 1e-3, seed: int = 0
) -> FeedbackNetwork:
    """inputs → wide → narrow → wide → classes: both wide layers are media of random numbers, the two dense layers behind them
    are trained, the narrow one by feedback through a third medium.

    Raises:
        InputError: a number below 1, a seed that is no integer ≥ 0.
    """
    check_integer("seed", seed, 0)
    for name, size in (("inputs", inputs), ("wide", wide), ("narrow", narrow), ("classes", classes)):
        check_integer(name, size, 1)
    pixels = Receiver() if camera is None else camera
    first, second, back = (
        OpticalProjection(scattering(a, b, seed=3 * seed + k), camera=pixels, seed=3 * seed + k)
        for k, (a, b) in enumerate(((inputs + 1, wide), (narrow + 1, wide), (classes, narrow)))
    )
    return FeedbackNetwork((inputs, narrow, classes), back, media=(first, second), rate=rate)
