"""Torch's linear layers as ``linear_maps``: what one step's input becomes, both without batch."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from neuromorphic import linear_maps
from neuromorphic.linear_maps import LinearMap, Shape
from numerics.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt

LINEAR = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.AvgPool1d, nn.AvgPool2d, nn.BatchNorm1d, nn.BatchNorm2d, nn.Flatten)
"""Layers that ``linear_map`` knows."""


def linear_map(layer: nn.Module, shape: Shape) -> LinearMap:
    """The map of one of ``LINEAR`` for inputs of ``shape``.

    Raises:
        InputError: a shape that the layer does not take, statistics of a batch, a padding that is not of zeros.
    """
    if isinstance(layer, nn.Flatten):
        return linear_maps.flatten(shape, start=layer.start_dim - 1, end=layer.end_dim - (layer.end_dim > 0))
    if isinstance(layer, nn.Linear):
        if shape != (layer.in_features,):
            raise InputError(f"takes shape ({layer.in_features},), got {shape}")
        return linear_maps.dense(_float64(layer.weight), _optional(layer.bias))
    if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
        return _batch_norm(layer, shape)
    if isinstance(layer, nn.AvgPool1d | nn.AvgPool2d):
        return pooling_windows(layer, shape)
    if isinstance(layer, nn.Conv1d | nn.Conv2d):
        if layer.padding_mode != "zeros":
            raise InputError(f"expected padding_mode 'zeros', got {layer.padding_mode!r}")
        return linear_maps.convolution(
            _float64(layer.weight),
            shape,
            bias=_optional(layer.bias),
            stride=layer.stride,
            padding=layer.padding,
            dilation=layer.dilation,
            groups=layer.groups,
        )
    raise InputError("not a linear layer that is known")


def pooling_windows(layer: nn.AvgPool1d | nn.AvgPool2d | nn.MaxPool2d, shape: Shape) -> LinearMap:
    """Average pooling; of a maximum pooling its windows, each weight 1.

    Raises:
        InputError: a shape that the layer does not take; ``ceil_mode``; dilation.
    """
    pool: Any = layer
    flat = isinstance(layer, nn.AvgPool1d)
    if pool.ceil_mode or np.max(getattr(pool, "dilation", 1)) > 1:
        raise InputError("ceil_mode and dilation are not supported")
    if flat and len(shape) != 2:
        raise InputError(f"takes shape (channels, length), got {shape}")
    image = (shape[0], 1, shape[1]) if flat else shape

    def pair(value: Any, other: int) -> Any:
        return (other, *value) if flat else value

    windows = linear_maps.pooling(
        image,
        kernel=pair(pool.kernel_size, 1),
        stride=pair(pool.stride, 1),
        padding=pair(pool.padding, 0),
        average=isinstance(layer, nn.AvgPool1d | nn.AvgPool2d),
    )
    divisor = getattr(pool, "divisor_override", None)
    if divisor is not None or not getattr(pool, "count_include_pad", True):
        taps = np.diff(windows.matrix.indptr)
        weight = 1 / np.repeat(taps if divisor is None else np.full_like(taps, divisor), taps)
        windows.matrix.data[:] = weight
        windows = replace(windows, stored=np.unique(weight).size)
    return replace(windows, shape=(shape[0], windows.shape[2])) if flat else windows


def batch_norm_affine(layer: nn.BatchNorm1d | nn.BatchNorm2d) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Scale and shift a channel of a batch normalisation with stored statistics: γ/√(σ² + ε), β − μ·scale.

    Raises:
        InputError: it uses statistics of a batch.
    """
    if layer.training or layer.running_mean is None or layer.running_var is None:
        raise InputError("statistics of a batch; call eval() on a layer that tracks them")
    mean, variance = _float64(layer.running_mean), _float64(layer.running_var)
    scale = (1.0 if layer.weight is None else _float64(layer.weight)) / np.sqrt(variance + layer.eps)
    return scale, (0.0 if layer.bias is None else _float64(layer.bias)) - mean * scale


def _batch_norm(layer: nn.BatchNorm1d | nn.BatchNorm2d, shape: Shape) -> LinearMap:
    scale, shift = batch_norm_affine(layer)
    if not shape or shape[0] != layer.num_features:
        raise InputError(f"takes {layer.num_features} channels, got {shape}")
    each = int(np.prod(shape[1:]))
    return replace(linear_maps.scale(np.repeat(scale, each), shape), offset=np.repeat(shift, each))


def _float64(tensor: Any) -> npt.NDArray[np.float64]:
    found: npt.NDArray[np.float64] = tensor.detach().double().cpu().numpy()
    return found


def _optional(tensor: Any) -> npt.NDArray[np.float64] | None:
    return None if tensor is None else _float64(tensor)
