"""Linear layers of torch modules computed by crossbars, and trained for them.

>>> import torch
>>> from neuromorphic.crossbars.crossbar import Adc, Crossbar, Dac
>>> from neuromorphic.crossbars.memristor import GaussianProgramming, Memristor
>>> crossbar = Crossbar(64, 64, Memristor(1e-6, 50e-6, programming=GaussianProgramming(1e-6)), Dac(8), Adc(8))
>>> module = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
>>> converted = to_crossbar(module, crossbar, inputs=torch.rand(16, 4), seed=1)
>>> [type(layer).__name__ for layer in converted]
['CrossbarLinear', 'ReLU', 'CrossbarLinear']
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from hwsim.views.display import displayed
from neuromorphic.crossbars.crossbar import Crossbar, CrossbarMatrix
from numerics.errors import InputError


@displayed
class CrossbarLinear(nn.Module):
    """x · weightᵀ + bias with the product in a crossbar, the bias behind its converters.

    In training every forward programs cells anew and reads them once, so that the weights learn to bear the noise. The gradient
    is straight-through: what rounding, clipping and noise add is taken as a constant, the gradient of the input goes through the
    weights that the cells hold. In evaluation the cells keep what :meth:`program` wrote, and only read noise differs from call to
    call.

    Attributes:
        weight, bias: (out_features, in_features), (out_features,) or None: what the cells are told to hold.
        crossbar: the arrays; the largest weight takes their whole range.
        seed: of all noise; the same seed and calls give the same bits.
        matrix: what the cells hold; None: not programmed since the last training step.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, crossbar: Crossbar, *, seed: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach().clone())
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())
        self.crossbar = crossbar
        self.seed = seed
        self.matrix: CrossbarMatrix | None = None
        self._calls = 0

    def program(self, *, seed: int | None = None) -> CrossbarMatrix:
        """Write the weights as they are now into cells; ``seed``: other cells than those of ``self.seed``."""
        self.matrix = self._programmed(self.seed if seed is None else seed)
        self._calls = 0
        return self.matrix

    def _programmed(self, seed: int) -> CrossbarMatrix:
        return self.crossbar.program(self.weight.detach().double().cpu().numpy().T, seed=seed)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (…, in_features).

        Raises:
            InputError: evaluation before :meth:`program`.
        """
        if self.training:
            self.matrix = None
            matrix = self._programmed(_mixed(self.seed, "training", self._calls))
        elif self.matrix is None:
            raise InputError("crossbar layer: its cells are not programmed; call program() after training")
        else:
            matrix = self.matrix
        seed = _mixed(self.seed, "read", self._calls)
        self._calls += 1
        flat = x.detach().double().cpu().numpy().reshape(-1, x.shape[-1])
        read = torch.from_numpy(matrix.apply(flat, seed=seed)).to(x).reshape(*x.shape[:-1], -1)
        held = torch.from_numpy(matrix.weights().T).to(self.weight)
        linear = functional.linear(x, self.weight + (held - self.weight).detach())
        product = linear + (read - linear).detach()
        return product if self.bias is None else product + self.bias

    def extra_repr(self) -> str:
        """Sizes."""
        return f"in_features={self.weight.shape[1]}, out_features={self.weight.shape[0]}, bias={self.bias is not None}"


def to_crossbar(module: nn.Module, crossbar: Crossbar, *, inputs: torch.Tensor, seed: int, share: float = 1.0) -> Any:
    """A copy of ``module`` whose every ``nn.Linear`` is a programmed :class:`CrossbarLinear`; other layers stay digital.

    Args:
        module: in evaluation it is run once on ``inputs``.
        crossbar: of all layers; the steps of its converters are set for each by ``Crossbar.calibrated`` on what the layer gets.
        inputs: examples.
        seed: layer k (in the order of ``named_modules``) gets a seed made of it and k.
        share: of the sums that just fit the converters, as there.

    Raises:
        InputError: no linear layer, or one that ``inputs`` do not reach.
    """
    converted = copy.deepcopy(module)
    # A layer that is there under several names is one matrix.
    names: dict[nn.Linear, list[str]] = {}
    for name, layer in converted.named_modules(remove_duplicate=False):
        if isinstance(layer, nn.Linear):
            names.setdefault(layer, []).append(name)
    if not names:
        raise InputError("module: expected at least one Linear layer")
    seen: dict[nn.Linear, list[torch.Tensor]] = {layer: [] for layer in names}
    hooks = [layer.register_forward_pre_hook(lambda one, given: seen[one].append(given[0].detach())) for layer in names]
    was_training = converted.training
    converted.eval()
    with torch.no_grad():
        converted(inputs)
    for hook in hooks:
        hook.remove()
    for k, (layer, paths) in enumerate(names.items()):
        if not seen[layer]:
            raise InputError(f"layer {paths[0]!r}: the inputs do not reach it")
        vectors = torch.cat([one.reshape(-1, one.shape[-1]) for one in seen[layer]]).double().cpu().numpy()
        fitted = crossbar.calibrated(layer.weight.detach().double().cpu().numpy().T, vectors, share=share)
        new = CrossbarLinear(layer.weight, layer.bias, fitted, seed=_mixed(seed, "layer", k))
        new.program()
        for path in paths:
            parent, _, child = path.rpartition(".")
            if child:
                setattr(converted.get_submodule(parent), child, new)
            else:
                converted = new
    return converted.train(was_training)


def program(module: nn.Module, *, seed: int) -> None:
    """Write all crossbar layers of ``module`` anew, into other cells for another seed.

    Raises:
        InputError: it has none.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, CrossbarLinear)]
    if not layers:
        raise InputError("module: expected at least one crossbar layer")
    for k, layer in enumerate(layers):
        layer.program(seed=_mixed(seed, "layer", k))


def _mixed(seed: int, *words: object) -> int:
    """A seed of its own for every (seed, words)."""
    entropy = [seed, *(word if isinstance(word, int) else int.from_bytes(str(word).encode(), "little") for word in words)]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0])
