"""What goes into a linear layer or a convolution has to fit it and be finite."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from numerics.errors import InputError
from photonic._numbers import is_one_of

CONVOLUTIONS = nn.modules.conv._ConvNd
SIDES = (("length",), ("height", "width"), ("depth", "height", "width"))


def check_layer_input(layer: nn.Module, x: object, name: str = "x") -> None:
    """Refuses a tensor of another width or number of channels than the layer's; of another kind of layer nothing is asked.

    Raises:
        InputError: the field, what was expected and what was given.
    """
    if not isinstance(layer, nn.Linear | CONVOLUTIONS):
        return
    is_one_of(name, x, torch.Tensor)
    assert isinstance(x, torch.Tensor)
    if x.is_complex() or x.dtype == torch.bool:
        raise InputError(f"{name}: expected real numbers, got {x.dtype}")
    if isinstance(layer, nn.Linear):
        if not x.dim() or x.shape[-1] != layer.in_features:
            raise InputError(f"{name}: expected shape (…, {layer.in_features}), got {tuple(x.shape)}")
        return
    sides = SIDES[len(layer.kernel_size) - 1]
    if x.dim() - len(sides) not in (1, 2) or x.shape[-len(sides) - 1] != layer.in_channels:
        raise InputError(
            f"{name}: expected shape (batch, {layer.in_channels}, {', '.join(sides)}), or without the batch, got {tuple(x.shape)}"
        )


@dataclass(frozen=True)
class InputCheck:
    """A hook in front of a layer: refuses what does not fit it, and numbers of its input and parameters that are not finite.

    Attributes:
        path: of the layer in its model, for the error.
    """

    path: str

    def __call__(self, layer: nn.Module, given: tuple[Any, ...]) -> None:
        of = f" (of {self.path!r})" if self.path else ""
        if given:
            check_layer_input(layer, given[0], f"x{of}")
            _check_numbers(f"x{of}", given[0])
        for name in ("weight", "bias"):
            _check_numbers(name + of, getattr(layer, name, None))


def _check_numbers(name: str, values: object) -> None:
    """Formats of integers would take inf for their largest number; torch multiplies no integers by floats."""
    if not isinstance(values, torch.Tensor) or values.is_meta:
        return
    if not values.is_floating_point():
        raise InputError(f"{name}: expected floating-point numbers, got {values.dtype}")
    values = values.detach()
    sound = torch.isfinite(values)
    if not sound.all():
        raise InputError(f"{name}: expected finite numbers, got {values[~sound].flatten()[0].item()}")


def check_inputs_of(model: nn.Module) -> None:
    """Have every linear layer and convolution of a model refuse what does not fit it, and nan and inf, by its path."""
    for path, layer in model.named_modules():
        lazy = isinstance(layer, nn.modules.lazy.LazyModuleMixin) and layer.has_uninitialized_params()  # type: ignore[misc]
        if isinstance(layer, nn.Linear | CONVOLUTIONS) and not lazy:
            layer.register_forward_pre_hook(InputCheck(path))
