"""Products of an emulated network as steps: their operands, how they sum, what scales and biases do to the sums."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from hwsim.faults.incremental import layout
from hwsim.faults.incremental.layout import LANES
from hwsim.faults.incremental.recording import RecordedCall, Unsupported
from hwsim.faults.incremental.rounding_steps import Operation, static_scale
from numerics.formats import BlockFormat, FixedFormat, Format, IntFormat

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from hwsim.faults.incremental.program import Compiler
    from numerics.emulation import OperandKey
    from numerics.emulation.gemm import Sum
    from numerics.emulation.quantised import Quantised, Rule


@dataclass(frozen=True)
class OperandCodes:
    """What the numbers that a product multiplies are.

    Attributes:
        key: the operand.
        fmt: its format.
        shape: for one image, as the emulation counts its elements.
        step: what a number of 1 is worth before scaling.
        scale: what the value before scaling was multiplied by; a number, one an output channel, or None.
        zero_point: the code of 0 of integers; a number, or one an output channel.
    """

    key: OperandKey
    fmt: Format
    shape: tuple[int, ...]
    step: float = 1.0
    scale: NDArray[np.float32] | None = None
    zero_point: NDArray[np.float64] = field(default_factory=lambda: np.zeros(()))


@dataclass(frozen=True)
class ProductOperands:
    """The operands of a product.

    Attributes:
        activation, weight: what they are.
        weights: (output channels, products), as multiplied.
    """

    activation: OperandCodes
    weight: OperandCodes
    weights: NDArray[np.float32]


def convolution(compiler: Compiler, call: RecordedCall) -> int:
    """``conv2d``."""
    x, weight, bias, stride, padding, dilation, groups = call.bound(
        "input", "weight", bias=None, stride=1, padding=0, dilation=1, groups=1
    )
    if x.ndim != 4 or weight.ndim != 4:
        raise Unsupported(f"{call.where}: incremental runs take batches of two-dimensional maps")
    stride, dilation = pair(stride), pair(dilation)
    kernel = tuple(weight.shape[2:])
    if isinstance(padding, str):
        total = [d * (k - 1) if padding == "same" else 0 for d, k in zip(dilation, kernel, strict=True)]
        if any(t % 2 for t in total):
            raise Unsupported(f"{call.where}: 'same' pads one side more; incremental runs pad both alike")
        padding = tuple(t // 2 for t in total)
    fields = window_fields(kernel, stride, pair(padding), dilation)
    return _product(compiler, call, x, weight, bias, fields, groups)


def linear(compiler: Compiler, call: RecordedCall) -> int:
    """``linear`` of vectors."""
    x, weight, bias = call.bound("input", "weight", bias=None)
    if x.ndim != 2 or weight.ndim != 2:
        raise Unsupported(f"{call.where}: incremental runs take one vector an image, got shape {tuple(x.shape)}")
    fields = window_fields((1, 1), (1, 1), (0, 0), (1, 1))
    return _product(compiler, call, x, weight, bias, fields, 1)


def pair(value: Any) -> tuple[int, int]:
    """Two numbers, or one for both."""
    values = tuple(value) if isinstance(value, tuple | list) else (value, value)
    return (int(values[0]), int(values[-1]))


def window_fields(kernel: Any, stride: Any, padding: Any, dilation: Any) -> dict[int, int]:
    """A window's numbers for the table of steps."""
    names = (
        layout.KERNEL_Y, layout.KERNEL_X, layout.STRIDE_Y, layout.STRIDE_X, layout.PAD_Y, layout.PAD_X, layout.DILATION_Y,
        layout.DILATION_X,
    )  # fmt: skip
    return dict(zip(names, map(int, (*kernel, *stride, *padding, *dilation)), strict=True))


@dataclass(frozen=True)
class _Given:
    """A product as it was recorded.

    Attributes:
        call: the call.
        keys: of the activation and the weight.
        rules: of both.
        seen: the activation, for all images.
        weight: quantised, (…, products) with all output channels in its rows.
        channels: of the output.
        scale, zero_point: of the activation.
        how: how it is summed.
    """

    call: RecordedCall
    keys: tuple[OperandKey, OperandKey]
    rules: tuple[Rule, Rule]
    seen: torch.Tensor
    weight: Quantised
    channels: int
    scale: float | None
    zero_point: float
    how: Sum


@dataclass(frozen=True)
class _Way:
    """How these kernels sum it.

    Attributes:
        mode: of ``layout``.
        wrap: bits that a 32-bit sum has too many.
        library: whether the emulation leaves it to a library, which multiplies values; an accumulator multiplies codes.
    """

    mode: int
    wrap: int = 0
    library: bool = False


def _given(compiler: Compiler, call: RecordedCall, x: torch.Tensor, weight: torch.Tensor) -> _Given:
    from numerics.emulation.context import Site
    from numerics.emulation.gemm import Sum
    from numerics.emulation.quantised import quantise

    context = compiler.emulation._context
    found = [(key, x) for key, x in call.operands if not key.role.startswith("elementwise")]
    roles = [key.role for key, _ in found]
    if roles != ["activation", "weight"] or compiler.value(weight) is not None:
        raise Unsupported(
            f"{call.where}: incremental runs take an activation times a weight, got {' × '.join(roles) or 'neither'}"
        )
    (a_key, seen), (b_key, rows) = found
    if any(step.product is not None and step.product.weight.key == b_key for step in compiler.steps):
        raise Unsupported(f"{call.where}: runs twice in a forward pass; incremental runs tell faults by module and operator")
    a, b = context.rule("activation", a_key.module), context.rule("weight", b_key.module)
    if isinstance(b.fmt, BlockFormat) or b.scaling.granularity in ("group", "tile"):
        raise Unsupported(
            f"{call.where}: scales of weights change along a sum; incremental runs need one for each output channel"
        )
    if b.rounding == "stochastic":
        raise Unsupported(f"{call.where}: weights are rounded at random; incremental runs need them to stay")
    if seen.shape != x.shape:
        raise Unsupported(f"{call.where}: activations are quantised window by window; incremental runs need it once a map")
    scale, zero_point = static_scale(compiler.emulation, a_key, call.where)
    channels = weight.shape[0]
    # As the emulation gives it to the product: rows a group at a time, where there are groups.
    rows = rows.reshape(channels, -1) if rows.ndim == 4 else rows
    quantised = quantise(rows, b, Site(context, b_key.module, b_key.operator, 0, 0, False), b_key.role)
    how = Sum.of(context, a_key.module)
    return _Given(call, (a_key, b_key), (a, b), seen, quantised, channels, scale, zero_point, how)


def _product(
    compiler: Compiler,
    call: RecordedCall,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    fields: dict[int, int],
    groups: int,
) -> int:
    value, shape = compiler.needs(x, call), compiler.shape_of(call.result, call)
    given = _given(compiler, call, x, weight)
    way = _way(given)
    if way.library:
        compiler.own_order.append(f"sums of {call.where}")
    pre = _before(compiler, given, way)
    post = [*_scales(compiler, given, way), *_bias(compiler, given, bias, groups), *compiler.result(call)]
    floats = way.mode == layout.FLOATS
    numbers = (given.weight.values if way.library else given.weight.codes).reshape(given.channels, -1).numpy()
    weights = numbers.astype(np.float32) if floats else numbers.astype(np.float32) / np.float32(given.weight.step)
    depthwise = groups == given.channels == compiler.shapes[value][2] and groups > 1
    padded = given.channels if depthwise else -(-(given.channels // groups) // LANES) * LANES
    packed = _packed(weights, groups, padded, depthwise, way.mode)
    more = {
        layout.GROUPS: groups,
        layout.MODE: way.mode,
        layout.WRAP: way.wrap,
        layout.DEPTH: weights.shape[1],
        layout.PADDED: padded,
        layout.WEIGHTS: compiler.tables.add(packed),
        layout.WEIGHT_ROWS: compiler.tables.add(weights) if floats else 0,
    }
    a, b = given.rules
    scale = np.array(given.scale, np.float32) if way.library and given.scale is not None else None
    zeros = _per_row(given.weight.zero_point, given.channels)
    operands = ProductOperands(
        OperandCodes(
            given.keys[0], a.fmt, tuple(given.seen.shape[1:]), 1.0 if floats else _step(a.fmt), scale, np.array(given.zero_point)
        ),
        OperandCodes(
            given.keys[1],
            b.fmt,
            (given.channels, weights.shape[1]),
            1.0 if floats else given.weight.step,
            _per_row(given.weight.scale, given.channels) if way.library else None,
            np.zeros(()) if zeros is None else zeros.astype(np.float64),
        ),
        weights,
    )
    kind = layout.DEPTHWISE if depthwise else layout.PRODUCT
    return compiler.step(kind, (value,), shape, post, fields=fields | more, pre=pre, product=operands)


def _step(fmt: Format) -> float:
    return float(fmt.step) if isinstance(fmt, IntFormat | FixedFormat) else 1.0


def _per_row(values: torch.Tensor | None, channels: int) -> NDArray[np.float32] | None:
    """One number, or one a row of the weights."""
    if values is None:
        return None
    found: NDArray[np.float32] = values.detach().cpu().numpy().astype(np.float32)
    return found.reshape(()) if found.size == 1 else found.reshape(channels)


def _way(given: _Given) -> _Way:
    """How a product is summed.

    Raises:
        Unsupported: an accumulator that these kernels lack.
    """
    from numerics.accumulator import get_accumulator
    from numerics.emulation.gemm import _largest_code

    how, (a, b), where = given.how, given.rules, given.call.where
    if how.unit is not None:
        raise Unsupported(f"{where}: a matrix unit computes its products; incremental runs have kernels of their own")
    accumulator = None if how.accumulation is None else get_accumulator(how.accumulation)
    if a.integer and b.integer and isinstance(how.fmt, IntFormat):
        # A faulty code may be the one that a symmetric format does not use.
        bound = given.weight.codes.shape[-1] * (_largest_code(a) + 1) * (_largest_code(b) + 1)
        if accumulator is not None and accumulator.overflow == "saturate" and bound > how.fmt.code_max:
            raise Unsupported(f"{where}: its sums may saturate on the way; incremental runs need an accumulator that wraps")
        if how.fmt.bits > 32 and bound >= 2**31:
            raise Unsupported(f"{where}: its sums may pass 32 bits, the most that incremental runs sum integers in")
        wraps = how.fmt.bits < 32 and bound > how.fmt.code_max
        # Three times: a sum, and what a change of all its operands adds to it.
        if 3 * bound < 2**24 and not wraps:
            return _Way(layout.SMALL_INTEGERS)
        return _Way(layout.INTEGERS, 32 - how.fmt.bits if wraps else 0)
    if how.fmt.name == "fp64":
        raise Unsupported(f"{where}: sums in fp64; incremental runs sum in fp32 or in integers")
    if how._left_to_library(a, b):
        return _Way(layout.FLOATS, library=True)
    if accumulator is None or accumulator != get_accumulator("fp32"):
        name = how.fmt.name if how.accumulation is None else how.accumulation
        raise Unsupported(f"{where}: sums by {name!r}; incremental runs sum by 'fp32' or in integers")
    return _Way(layout.FLOATS)


def _before(compiler: Compiler, given: _Given, way: _Way) -> list[Operation]:
    """Operations that quantise the activation."""
    import torch

    rule, tables = given.rules[0], compiler.tables
    found: list[Operation] = []
    if given.scale is not None or not rule.identity(torch.float32):
        found = tables.rounding(rule, given.scale, given.zero_point, back=way.library, keep=False, where=given.call.where)
    return found if way.mode == layout.FLOATS else [*found, *tables.times(1.0 / _step(rule.fmt))]


def _scales(compiler: Compiler, given: _Given, way: _Way) -> list[Operation]:
    """What multiplies the sums of codes."""
    if way.library:
        return []
    tables = compiler.tables
    found = [] if way.mode == layout.FLOATS else tables.times(_step(given.rules[0].fmt) * given.weight.step)
    if given.scale is not None:
        found += [(layout.TIMES, tables.add(np.array([given.scale], np.float32)), 0)]
    factors = _per_row(given.weight.scale, given.channels)
    if factors is not None:
        found += [(layout.TIMES_CHANNEL if factors.ndim else layout.TIMES, tables.add(factors), 0)]
    return found


def _bias(compiler: Compiler, given: _Given, bias: torch.Tensor | None, groups: int) -> list[Operation]:
    """What is added to the sums, as the emulation rounds it."""
    import torch

    from numerics.emulation.context import Site
    from numerics.emulation.gemm import add_bias
    from numerics.emulation.quantised import quantise

    if bias is None:
        return []
    added = bias.detach().float()
    if groups == 1:
        key = given.keys[0]
        site = Site(compiler.emulation._context, key.module, key.operator, 0, 0, False)
        activation = quantise(torch.zeros(1, 1), given.rules[0], site, key.role)
        # −0 plus anything is that.
        added = add_bias(torch.full((1, given.channels), -0.0), added, activation, given.weight, given.how)
    return compiler.tables.channels(layout.PLUS_CHANNEL, added)


def _packed(weights: NDArray[np.float32], groups: int, padded: int, depthwise: bool, mode: int) -> NDArray[Any]:
    """Weights (output channels, products) as (groups, products, padded) or, with a kernel a channel, (products, channels)."""
    kind = np.int32 if mode == layout.INTEGERS else np.float32
    if depthwise:
        return np.ascontiguousarray(weights.T).astype(kind)
    channels, depth = weights.shape
    found = np.zeros((groups, depth, padded), kind)
    found[:, :, : channels // groups] = weights.reshape(groups, channels // groups, depth).transpose(0, 2, 1)
    return found
