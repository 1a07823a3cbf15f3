"""Emulated convolutions: the library's own, of quantised operands, where it sums floats and blocks do not matter, otherwise the
matrix product of patches and kernels."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import Any

import torch

from numerics.emulation.calls import Call, finish, product, quiet, role_of
from numerics.emulation.elementwise import round_gradient
from numerics.emulation.gemm import ProductPlan, add_bias
from numerics.emulation.quantised import estimate, wide
from numerics.formats import IntFormat


@dataclass(frozen=True)
class Geometry:
    """Stride, padding, dilation and output padding along each spatial axis, and the groups of channels."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    output_padding: tuple[int, ...]
    groups: int
    transposed: bool

    @property
    def arguments(self) -> tuple[Any, ...]:
        """As ``aten::convolution`` takes them."""
        return (self.stride, self.padding, self.dilation, self.transposed, self.output_padding, self.groups)


def _each(value: Any, axes: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, tuple | list) else (value,)
    return values * axes if len(values) == 1 else values


def convolution(call: Call) -> Any:
    """``conv1d`` to ``conv3d`` and their transposes."""
    transposed = "transpose" in call.name
    rest = {"groups": 1, "dilation": 1} if transposed else {"dilation": 1, "groups": 1}
    middle = {"output_padding": 0} if transposed else {}
    values = call.bound("input", "weight", **{"bias": None, "stride": 1, "padding": 0, **middle, **rest})
    given = dict(zip(("input", "weight", "bias", "stride", "padding", *middle, *rest), values, strict=True))
    x, weight, bias = given["input"], given["weight"], given["bias"]
    plan = ProductPlan.make(call.context, call.name, role_of(call, x), role_of(call, weight, "weight"))
    if quiet(call, plan, x, weight):
        return call.plain()
    axes = weight.ndim - 2
    batched = x.ndim == weight.ndim
    x = x if batched else x[None]
    stride, dilation = _each(given["stride"], axes), _each(given["dilation"], axes)
    padding = given["padding"]
    if isinstance(padding, str):
        x, padding = _pad(x, padding, weight.shape[2:], dilation)
    geometry = Geometry(
        stride, _each(padding, axes), dilation, _each(given.get("output_padding", 0), axes), given["groups"], transposed
    )
    if _needs_patches(plan):
        y = _by_transposed_patches(plan, x, weight, geometry) if transposed else _by_patches(plan, x, weight, bias, geometry)
        if transposed and bias is not None:
            y = y + bias.reshape(-1, *([1] * axes))
    else:
        y = Convolution.apply(x, weight, bias, plan, geometry)
    return finish(y if batched else y[0], plan.site, call.name)


def _pad(x: torch.Tensor, padding: str, kernel: torch.Size, dilation: tuple[int, ...]) -> tuple[torch.Tensor, int]:
    """``same`` pads so that a stride of 1 keeps the size, the odd one at the end; ``valid`` not at all."""
    if padding == "same":
        total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        sides = [side for t in reversed(total) for side in (t // 2, t - t // 2)]
        x = torch.nn.functional.pad(x, sides)
    return x, 0


def _needs_patches(plan: ProductPlan) -> bool:
    """Whether the sum must be seen term by term: blocks along it, an accumulator of one's own, integers, scales of rows."""
    exact = plan.how.accumulation is not None or not (
        isinstance(plan.how.fmt, IntFormat) or plan.how.fmt.name in ("fp32", "fp64")
    )
    integers = plan.a.integer and plan.b.integer and isinstance(plan.how.fmt, IntFormat)
    rows = plan.a.scaling.granularity == "channel" or plan.gradient.scaling.granularity == "channel"
    return exact or integers or rows or any(r.follows_contraction for r in (plan.a, plan.b, plan.gradient))


class Convolution(torch.autograd.Function):
    """The library's convolution of quantised operands, and its two gradients, of quantised operands as well."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, plan: ProductPlan, geometry: Geometry
    ) -> torch.Tensor:
        """Input (batch, channels, …), weight as torch has it, bias (out channels,)."""
        qx = plan.quantise(x, plan.a, plan.names[0])
        qw = plan.quantise(_channels_first(weight, geometry), plan.b, plan.names[1])
        ctx.save_for_backward(x, weight)
        ctx.plan, ctx.geometry, ctx.qx, ctx.qw = plan, geometry, qx, qw
        dtype = torch.float64 if plan.how.fmt.name == "fp64" else torch.float32
        kernel = _as_weight(qw.values, weight, geometry).to(dtype)
        y = torch.ops.aten.convolution(qx.values.to(dtype), kernel, None, *geometry.arguments).to(wide(x).dtype)
        if bias is not None:
            shaped = bias.reshape(-1, *([1] * (x.ndim - 2))).expand(y.shape[1:])
            y = add_bias(y, shaped, qx, qw, plan.how)
        return y.to(x.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        """By input and weight from the quantised gradient; by the bias its sum."""
        (gradient,), plan, geometry = gradients, ctx.plan, ctx.geometry
        x, weight = ctx.saved_tensors
        dtype = torch.float64 if plan.how.fmt.name == "fp64" else torch.float32
        qg = plan.quantise(gradient, plan.gradient, "gradient")
        kernel = _as_weight(ctx.qw.values, weight, geometry).to(dtype)
        wanted = [ctx.needs_input_grad[0], ctx.needs_input_grad[1], False]
        by_x, by_weight, _ = torch.ops.aten.convolution_backward(
            qg.values.to(dtype), ctx.qx.values.to(dtype), kernel, None, *geometry.arguments, wanted
        )
        if by_x is not None:
            by_x = round_gradient(estimate(by_x.to(wide(x).dtype), x, ctx.qx), plan.site, 3).to(x.dtype)
        if by_weight is not None:
            rows = _channels_first(by_weight.to(wide(weight).dtype), geometry)
            passed = _as_weight(estimate(rows, _channels_first(weight, geometry), ctx.qw), weight, geometry)
            by_weight = round_gradient(passed, plan.site, 4).to(weight.dtype)
        by_bias = None
        if ctx.needs_input_grad[2]:
            summed = wide(gradient).sum(dim=[d for d in range(gradient.ndim) if d != 1])
            by_bias = round_gradient(summed, plan.site, 5).to(gradient.dtype)
        return by_x, by_weight, by_bias, None, None


def _channels_first(weight: torch.Tensor, geometry: Geometry) -> torch.Tensor:
    """A kernel as (output channels, everything summed along), so that each row is one output channel."""
    if not geometry.transposed:
        return weight.reshape(weight.shape[0], -1)
    inputs, outputs = weight.shape[0] // geometry.groups, weight.shape[1]
    grouped = weight.reshape(geometry.groups, inputs, outputs, -1).transpose(1, 2)
    return grouped.reshape(geometry.groups * outputs, -1)


def _as_weight(rows: torch.Tensor, weight: torch.Tensor, geometry: Geometry) -> torch.Tensor:
    """The inverse of ``_channels_first``."""
    if not geometry.transposed:
        return rows.reshape(weight.shape)
    inputs, outputs = weight.shape[0] // geometry.groups, weight.shape[1]
    return rows.reshape(geometry.groups, outputs, inputs, -1).transpose(1, 2).reshape(weight.shape)


# --- as a product of patches ----------------------------------------------------------------------------------------------


def patches(x: torch.Tensor, kernel: tuple[int, ...], geometry: Geometry) -> tuple[torch.Tensor, tuple[int, ...]]:
    """What each output position sees.

    Args:
        x: shape (batch, channels, …).
        kernel: sizes of the kernel.
        geometry: stride, padding and dilation.

    Returns:
        Shape (batch, channels, kernel positions, output positions), and the sizes of the output.
    """
    sides = [side for p in reversed(geometry.padding) for side in (p, p)]
    padded = torch.nn.functional.pad(x, sides)
    out = tuple(
        (size - d * (k - 1) - 1) // s + 1
        for size, k, s, d in zip(padded.shape[2:], kernel, geometry.stride, geometry.dilation, strict=True)
    )
    seen = [padded[_window(position, out, geometry)].flatten(2) for position in itertools.product(*map(range, kernel))]
    return torch.stack(seen, dim=2), out


def _window(position: tuple[int, ...], out: tuple[int, ...], geometry: Geometry) -> Any:
    """The inputs that one kernel position meets, as an index."""
    axes = zip(position, geometry.dilation, geometry.stride, out, strict=True)
    return (..., *(slice(p * d, p * d + s * (n - 1) + 1, s) for p, d, s, n in axes))


def _by_patches(
    plan: ProductPlan, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, geometry: Geometry
) -> torch.Tensor:
    kernel = tuple(weight.shape[2:])
    batch, groups = x.shape[0], geometry.groups

    def rows_of(values: torch.Tensor) -> tuple[torch.Tensor, tuple[int, ...]]:
        # (batch, groups, channels · positions, outputs) → (groups, batch · outputs, channels · positions)
        seen, out = patches(values, kernel, geometry)
        length = seen.shape[1] // groups * seen.shape[2]
        turned = seen.reshape(batch, groups, length, math.prod(out)).permute(1, 0, 3, 2)
        return turned.reshape(groups, batch * math.prod(out), length), out

    rows, out = rows_of(x)
    kernels = weight.reshape(groups, weight.shape[0] // groups, -1)
    stored = None
    if (
        plan.a.scaling.granularity in ("none", "tensor")
        and plan.a.estimator == "straight_through"
        and not plan.a.follows_contraction
    ):
        # Feature maps are stored once, however many windows read them; a code is counted from the zero point, so that the
        # padding's is 0.
        once = plan.quantise(x, plan.a, plan.names[0])
        codes = rows_of(once.codes)[0]
        stored = replace(once, codes=codes[0] if groups == 1 else codes)
    if groups == 1:
        y = product(plan, rows[0], kernels[0], bias, stored=stored)[None]
    else:
        y = product(plan, rows, kernels, stored=stored)
        y = y if bias is None else y + bias.reshape(groups, 1, -1)
    y = y.reshape(groups, batch, math.prod(out), kernels.shape[1]).permute(1, 0, 3, 2)
    return y.reshape(batch, weight.shape[0], *out)


def _by_transposed_patches(plan: ProductPlan, x: torch.Tensor, weight: torch.Tensor, geometry: Geometry) -> torch.Tensor:
    """Each input position times the kernel, added up where they meet."""
    kernel, groups, batch = tuple(weight.shape[2:]), geometry.groups, x.shape[0]
    size = tuple(x.shape[2:])
    inputs, positions = x.shape[1] // groups, math.prod(size)
    rows = x.reshape(batch, groups, inputs, positions).permute(1, 0, 3, 2).reshape(groups, batch * positions, inputs)
    kernels = weight.reshape(groups, weight.shape[0] // groups, -1).mT
    y = product(plan, rows[0], kernels[0])[None] if groups == 1 else product(plan, rows, kernels)
    y = y.reshape(groups, batch, positions, weight.shape[1], math.prod(kernel)).permute(4, 1, 0, 3, 2)
    pieces = y.reshape(y.shape[0], batch, groups * weight.shape[1], *size)
    whole = [
        (n - 1) * s + d * (k - 1) + 1 + o
        for n, s, d, k, o in zip(size, geometry.stride, geometry.dilation, kernel, geometry.output_padding, strict=True)
    ]
    total = pieces.new_zeros(batch, groups * weight.shape[1], *whole)
    for piece, position in zip(pieces, itertools.product(*map(range, kernel)), strict=True):
        placed = torch.zeros_like(total)
        placed[_window(position, size, geometry)] = piece
        total = total + placed
    crop: Any = (..., *(slice(p, n - p) for p, n in zip(geometry.padding, whole, strict=True)))
    return total[crop]
