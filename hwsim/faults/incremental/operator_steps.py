"""Operators that are no products as steps: pools, sums, activations, normalisation, vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from hwsim.faults.incremental import layout
from hwsim.faults.incremental.product_steps import convolution, linear, pair, window_fields
from hwsim.faults.incremental.recording import RecordedCall, Unsupported
from hwsim.faults.incremental.rounding_steps import Operation

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from hwsim.faults.incremental.program import Compiler

Handler = Callable[["Compiler", RecordedCall], int]


def passes(call: RecordedCall) -> bool:
    """Whether a call computes nothing: what it returns is no tensor of floats."""
    import torch

    return not isinstance(call.result, torch.Tensor) or not call.result.is_floating_point()


def _first(call: RecordedCall) -> Any:
    return call.args[0] if call.args else call.kwargs.get("input")


def _point(compiler: Compiler, call: RecordedCall, operations: list[Operation]) -> int:
    """An operator that looks at each element alone."""
    value = compiler.operand(call, _first(call), 1)
    return compiler.step(layout.POINT, (value,), compiler.shapes[value], [*operations, *compiler.result(call)])


def relu(compiler: Compiler, call: RecordedCall) -> int:
    """``relu``."""
    return _point(compiler, call, [(layout.RELU, 0, 0)])


def _clamp(compiler: Compiler, call: RecordedCall, low: Any, high: Any) -> int:
    for bound in (low, high):
        if bound is not None and not isinstance(bound, int | float):
            raise Unsupported(f"{call.where}: incremental runs clamp between numbers, got {type(bound).__name__}")
    bounds = np.array([-np.inf if low is None else low, np.inf if high is None else high], np.float32)
    return _point(compiler, call, [(layout.CLAMP, compiler.tables.add(bounds), 0)])


def relu6(compiler: Compiler, call: RecordedCall) -> int:
    """``relu6``."""
    return _clamp(compiler, call, 0.0, 6.0)


def hardtanh(compiler: Compiler, call: RecordedCall) -> int:
    """``hardtanh``."""
    _, low, high = call.bound("input", min_val=-1.0, max_val=1.0)
    return _clamp(compiler, call, low, high)


def clamp(compiler: Compiler, call: RecordedCall) -> int:
    """``clamp``."""
    _, low, high = call.bound("input", min=None, max=None)
    return _clamp(compiler, call, low, high)


def unchanged(compiler: Compiler, call: RecordedCall) -> int:
    """What returns its operand, rounded at most: dropout in eval mode, a contiguous copy."""
    return _point(compiler, call, [])


def dropout(compiler: Compiler, call: RecordedCall) -> int:
    """``dropout`` in eval mode."""
    _, p, training, *_ = call.bound("input", p=0.5, training=True)
    if training and p:
        raise Unsupported(f"{call.where}: is at work; incremental runs need the module in eval mode")
    return unchanged(compiler, call)


# --- normalisation ----------------------------------------------------------------------------------------------------------


def batch_norm(compiler: Compiler, call: RecordedCall) -> int:
    """``batch_norm`` in eval mode: x · a + b with two numbers a channel, as torch folds them."""
    from numerics.emulation.context import Site
    from numerics.emulation.quantised import quantise

    x, mean, variance, weight, bias, training, _, eps = call.bound(
        "input", "running_mean", "running_var", weight=None, bias=None, training=False, momentum=0.1, eps=1e-5
    )
    if training or mean is None or compiler.value(mean) is not None:
        raise Unsupported(f"{call.where}: normalises by the batch; incremental runs need running statistics")
    context = compiler.emulation._context
    rounded: dict[int, torch.Tensor] = {}
    for key, tensor in call.operands:
        if key.recipe_role in ("accumulator", "weight"):
            site = Site(context, key.module, key.operator, 0, 0, False)
            number = int(key.role.rpartition("_")[2])
            rounded[number] = quantise(tensor, context.rule(key.recipe_role, key.module), site, key.role).values.float()
    # Operands are numbered from 1, those that are not given left out.
    given = [t for t in (x, mean, variance, weight, bias) if t is not None]
    weight, bias = (
        None if t is None else rounded.get(next(i for i, g in enumerate(given, 1) if g is t), t.detach()) for t in (weight, bias)
    )
    factor, offset, fused = _folded(mean, variance, weight, bias, eps)
    if fused is None:
        compiler.own_order.append(f"rounding of {call.where}")
    tables = compiler.tables
    kind = layout.AFFINE if fused is False else layout.AFFINE_FUSED
    return _point(compiler, call, [(kind, tables.add(factor), tables.add(offset))])


def _folded(mean: Any, variance: Any, weight: Any, bias: Any, eps: float) -> tuple[NDArray[Any], NDArray[Any], bool | None]:
    """Factor and offset of each channel, and whether torch multiplies and adds in one: found by trying; None if nothing fits."""
    import torch

    from numerics.faults import stream

    channels = mean.numel()

    def normalised(x: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.no_grad():
            found = torch.nn.functional.batch_norm(torch.from_numpy(x), mean, variance, weight, bias, False, 0.0, eps)
        return found.numpy()

    root = np.float32(1) / np.sqrt(variance.detach().numpy() + np.float32(eps))
    factor = root if weight is None else root * weight.detach().numpy()
    offset = normalised(np.zeros((1, channels), np.float32))[0]
    tried = stream(0, "batch_norm").standard_normal((256, channels)).astype(np.float32)
    wanted = normalised(tried)
    if np.array_equal((tried.astype(np.float64) * factor + offset).astype(np.float32), wanted):
        return factor, offset, True
    return factor, offset, False if np.array_equal(tried * factor + offset, wanted) else None


# --- pools ------------------------------------------------------------------------------------------------------------------


def max_pool(compiler: Compiler, call: RecordedCall) -> int:
    """``max_pool2d``."""
    x, kernel, stride, padding, dilation, _, indices = call.bound(
        "input", "kernel_size", stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False
    )
    if indices:
        raise Unsupported(f"{call.where}: returns indices; incremental runs take maps")
    fields = window_fields(pair(kernel), pair(stride or kernel), pair(padding), pair(dilation))
    value = compiler.needs(x, call)
    return compiler.step(layout.MAX_POOL, (value,), compiler.shape_of(call.result, call), [], fields=fields)


def average_pool(compiler: Compiler, call: RecordedCall) -> int:
    """``avg_pool2d``."""
    x, kernel, stride, padding, _, include, divisor = call.bound(
        "input", "kernel_size", stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None
    )
    if divisor is not None:
        raise Unsupported(f"{call.where}: divisor_override; incremental runs divide by the size of the window")
    fields = window_fields(pair(kernel), pair(stride or kernel), pair(padding), (1, 1))
    fields[layout.DIVIDE] = layout.BY_SIZE if include else layout.BY_INSIDE
    return _average(compiler, call, x, fields)


def adaptive_average_pool(compiler: Compiler, call: RecordedCall) -> int:
    """``adaptive_avg_pool2d`` to a size that divides the map's."""
    x, _ = call.bound("input", "output_size")
    rows, columns, _ = compiler.shape_of(x, call)
    out = compiler.shape_of(call.result, call)
    if rows % out[0] or columns % out[1]:
        raise Unsupported(f"{call.where}: windows of several sizes; incremental runs need an output whose size divides the map's")
    kernel = (rows // out[0], columns // out[1])
    fields = {**window_fields(kernel, kernel, (0, 0), (1, 1)), layout.DIVIDE: layout.BY_SIDES}
    if out[:2] == (1, 1):
        return _mean(compiler, call, x, kernel)
    return _average(compiler, call, x, fields)


def mean(compiler: Compiler, call: RecordedCall) -> int:
    """``mean`` over rows and columns."""
    x, axes, _ = call.bound("input", dim=None, keepdim=False)
    rows, columns, _ = compiler.shape_of(x, call)
    given = axes if isinstance(axes, tuple | list) else (axes,)
    if x.ndim != 4 or None in given or {a % 4 for a in given} != {2, 3}:
        raise Unsupported(f"{call.where}: incremental runs average over rows and columns, got dim={axes!r}")
    return _mean(compiler, call, x, (rows, columns))


def _mean(compiler: Compiler, call: RecordedCall, x: torch.Tensor, kernel: tuple[int, int]) -> int:
    if kernel != (1, 1):
        compiler.own_order.append(f"sums of {call.where}")
    fields = {**window_fields(kernel, kernel, (0, 0), (1, 1)), layout.DIVIDE: layout.BY_SIZE}
    return _average(compiler, call, x, fields)


def _average(compiler: Compiler, call: RecordedCall, x: torch.Tensor, fields: dict[int, int]) -> int:
    value = compiler.operand(call, x, 1)
    shape = compiler.shape_of(call.result, call)
    return compiler.step(layout.AVERAGE, (value,), shape, compiler.result(call), fields=fields)


# --- two maps, and vectors --------------------------------------------------------------------------------------------------


def add(compiler: Compiler, call: RecordedCall) -> int:
    """The sum of two maps."""
    a, b, alpha = call.bound("input", "other", alpha=1)
    for x in (a, b):
        if compiler.value(x) is None:
            raise Unsupported(f"{call.where}: adds something that does not come from the images; incremental runs need it to")
    if alpha != 1 or a.shape != b.shape:
        raise Unsupported(f"{call.where}: incremental runs add maps of one shape, with alpha=1")
    first = compiler.operand(call, a, 1)
    # A tensor that is added to itself is listed once for each.
    second = compiler.operand(call, b, 2)
    return compiler.step(layout.ADD, (first, second), compiler.shapes[first], compiler.result(call))


def reshape(compiler: Compiler, call: RecordedCall) -> int:
    """What turns maps into vectors, or leaves them as they are."""
    x = _first(call)
    value = compiler.needs(x, call)
    before = compiler.shapes[value]
    shape = compiler.shape_of(call.result, call)
    if call.result.shape[0] != x.shape[0]:
        raise Unsupported(f"{call.where}: mixes images; incremental runs need each apart")
    if shape == before:
        return value
    if shape != (1, 1, before[0] * before[1] * before[2]):
        raise Unsupported(f"{call.where}: incremental runs make maps into vectors, got {before} → {shape}")
    return compiler.step(layout.FLATTEN, (value,), shape, [])


HANDLERS: dict[str, Handler] = {
    "conv2d": convolution,
    "linear": linear,
    "relu": relu,
    "relu6": relu6,
    "hardtanh": hardtanh,
    **dict.fromkeys(("clamp", "clip"), clamp),
    **dict.fromkeys(("dropout", "dropout1d", "dropout2d", "feature_dropout"), dropout),
    "contiguous": unchanged,
    "batch_norm": batch_norm,
    "max_pool2d": max_pool,
    "avg_pool2d": average_pool,
    "adaptive_avg_pool2d": adaptive_average_pool,
    "mean": mean,
    **dict.fromkeys(("add", "iadd", "radd"), add),
    **dict.fromkeys(("flatten", "reshape", "view", "squeeze"), reshape),
}
"""Name of a torch function → what makes a step of it."""
