"""``matmul``, ``dot`` and ``conv2d`` as a given accumulator computes them, bit for bit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from numerics import _product_operands as operands
from numerics._product_plan import Product, Stream
from numerics.accumulator import Accumulator, get_accumulator
from numerics.encoding import BlockCodes
from numerics.errors import InputError
from numerics.quantizer import is_tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

CONVOLUTION_COLUMNS = 4096
"""Output positions of a convolution whose inputs are gathered at a time."""


def matmul(
    a: Any,
    b: Any,
    *,
    accumulator: str | Accumulator = "fp32",
    bias: Any = None,
    seed: int | None = None,
    out: Any = None,
    a_scales: Any = None,
    b_scales: Any = None,
) -> Any:
    """``bias + a @ b`` as the accumulator computes it.

    Args:
        a: (…, M, K) real numbers (any float or integer type), or ``BlockCodes`` with blocks along K for a block-scaled
            accumulator.
        b: (…, K, N), likewise; leading axes broadcast.
        accumulator: an ``Accumulator`` or its name; see ``get_accumulator``.
        bias: initial value of the accumulator (the C operand), which it must be able to hold; broadcasts to the result.
        seed: an integer, for stochastic rounding.
        out: array (for tensors a tensor) that takes the result, of a type that holds it; not written where an error is raised.
        a_scales, b_scales: for a block-scaled accumulator and operands given as values: the scales of blocks along K, shapes
            (M, K / block) and (K / block, N).

    Returns:
        (…, M, N): float32, or float64 where the accumulator's format needs it; int32 or int64 for an integer accumulator; ``out``
        if given; for tensors (or ``BlockCodes`` of tensors) a tensor on the device of a, computed on the host. NaN is 0x7FFFFFFF
        for ``fused`` accumulators.

    Raises:
        InputError: shapes that do not match, operands that are not in the accumulator's formats or whose products are not exact
            in 64-bit floats, Inf or NaN for an accumulator without NaN, a seed missing or not needed, a tensor that requires a
            gradient while gradients are recorded.
    """
    found = get_accumulator(accumulator)
    if _holds_tensor(a) or _holds_tensor(b):
        return _tensor_matmul(a, b, found, bias, seed, out, a_scales, b_scales)
    bias = operands.host(bias, "bias", "matmul")
    left = operands.given_operand(a, a_scales, found.a_formats, found, "a", -1)
    right = operands.given_operand(b, b_scales, found.b_formats, found, "b", -2)
    x, y = left.values, right.values
    if x.ndim < 2 or y.ndim < 2:
        raise InputError(f"a, b: expected matrices (numerics.dot takes vectors), got shapes {x.shape} and {y.shape}")
    if x.shape[-1] != y.shape[-2]:
        raise InputError(f"b: expected K = {x.shape[-1]} rows as a has columns, got shape {y.shape}")
    if found.scale is not None and (x.ndim > 2 or y.ndim > 2):
        raise InputError(f"a, b: a block-scaled accumulator takes matrices, got shapes {x.shape} and {y.shape}")
    try:
        batch = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    except ValueError:
        raise InputError(f"b: leading axes {y.shape[:-2]} do not broadcast with those of a, {x.shape[:-2]}") from None
    shape = (*batch, x.shape[-2], y.shape[-1])
    product = Product.plan(found, left, right, seed)
    result = product.start(bias, shape)
    if x.ndim > 2 and y.ndim == 2:
        # One matrix for all: the rows of the batch are rows of one product.
        product.run(x.reshape(-1, x.shape[-1]), y, result.reshape(-1, shape[-1]), Stream(shape[-1], 1, 0))
    else:
        wide_x, wide_y = np.broadcast_to(x, batch + x.shape[-2:]), np.broadcast_to(y, batch + y.shape[-2:])
        for number, index in enumerate(np.ndindex(*batch)):
            stream = Stream(shape[-1], 1, number * shape[-2] * shape[-1])
            product.run(wide_x[index], wide_y[index], result[index], stream)
    finished = product.finish(result)
    tensor_scale = left.tensor_scale * right.tensor_scale
    if tensor_scale != 1:
        if bias is not None:
            raise InputError("bias: operands with a scale for the tensor are scaled after the sum; add the bias to the result")
        finished *= finished.dtype.type(tensor_scale)
    return _deliver(finished, out)


def dot(
    a: Any,
    b: Any,
    *,
    accumulator: str | Accumulator = "fp32",
    bias: Any = None,
    seed: int | None = None,
) -> Any:
    """``bias + Σ a·b`` of two vectors of one length, as the accumulator computes it: a number (for tensors, one of no axes).

    Raises:
        InputError: as ``matmul``.
    """
    for field, v in (("a", a), ("b", b)):
        if isinstance(v, BlockCodes):
            raise InputError(f"{field}: dot takes values; expected an array, or matmul for BlockCodes")
        operands.check_tensor(v, field, "dot")
    row, column = (v if is_tensor(v) else operands.as_values(v, field) for v, field in ((a, "a"), (b, "b")))
    if row.ndim != 1 or row.shape != column.shape:
        raise InputError(f"a, b: expected two vectors of one length, got shapes {tuple(row.shape)} and {tuple(column.shape)}")
    return matmul(row.reshape(1, -1), column.reshape(-1, 1), accumulator=accumulator, bias=bias, seed=seed)[0, 0]


def conv2d(
    x: Any,
    weight: Any,
    *,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    accumulator: str | Accumulator = "fp32",
    bias: Any = None,
    seed: int | None = None,
) -> Any:
    """A two-dimensional convolution (cross-correlation, as ``torch.nn.functional.conv2d``) as the accumulator computes it.

    The products of one output are added in the order of weight's last three axes: channel, row, column; padding adds zeros.

    Args:
        x: (N, C, H, W).
        weight: (O, C / groups, KH, KW).
        stride, padding, dilation: a number, or one for rows and one for columns.
        groups: channels and outputs fall into this many, each with its own weights.
        accumulator, seed: as for ``matmul``.
        bias: (O,), the initial value of each output channel's accumulator.

    Returns:
        (N, O, OH, OW), of the type that ``matmul`` returns.

    Raises:
        InputError: shapes that do not fit, or as ``matmul``.
    """
    found = get_accumulator(accumulator)
    if found.scale is not None:
        raise InputError("accumulator: a block-scaled one takes matrices; expected one without scales for conv2d")
    if is_tensor(x) or is_tensor(weight):
        given = (("x", x), ("weight", weight), ("bias", bias))
        values = [operands.host(v, field, "conv2d") for field, v in given]
        result = conv2d(
            values[0], values[1], stride=stride, padding=padding, dilation=dilation, groups=groups, accumulator=found,
            bias=values[2], seed=seed,
        )  # fmt: skip
        return _as_tensor(result, x if is_tensor(x) else weight)
    left = operands.given_operand(weight, None, found.b_formats, found, "weight", -1)
    right = operands.given_operand(x, None, found.a_formats, found, "x", -1)
    w, image = left.values, right.values
    if image.ndim != 4 or w.ndim != 4:
        raise InputError(f"x, weight: expected 4 axes each, got shapes {image.shape} and {w.shape}")
    if min(w.shape) < 1:
        raise InputError(f"weight: expected at least one output, channel, row and column, got shape {w.shape}")
    if not isinstance(groups, int | np.integer) or isinstance(groups, bool):
        raise InputError(f"groups: expected an integer ≥ 1, got {groups!r}")
    if groups < 1 or image.shape[1] % groups or w.shape[0] % groups or image.shape[1] // groups != w.shape[1]:
        raise InputError(
            f"weight: expected (O, C / groups, KH, KW) with groups = {groups} dividing C and O, "
            f"got {w.shape} for C = {image.shape[1]}"
        )
    window = Window.of(image.shape[2:], w.shape[2:], stride, padding, dilation)
    count, outputs, positions = image.shape[0], w.shape[0], window.rows * window.columns
    product = Product.plan(found, left, right, seed, ("weight", "x"))
    initial = None if bias is None else operands.as_values(operands.host(bias, "bias", "conv2d"), "bias")
    if initial is not None and initial.shape != (outputs,):
        raise InputError(f"bias: expected one number for each of {outputs} output channels, got shape {initial.shape}")
    initial = None if initial is None else initial[:, None]
    result = product.start(initial, (count, outputs, positions))
    padded = np.pad(image, ((0, 0), (0, 0), *((p, p) for p in window.padding)))
    each_in, each_out = w.shape[1], outputs // groups
    for n in range(count):
        for group in range(groups):
            inputs = padded[n, group * each_in : (group + 1) * each_in]
            first = group * each_out
            kernel = w[first : first + each_out].reshape(each_out, -1)
            for begin in range(0, positions, CONVOLUTION_COLUMNS):
                end = min(begin + CONVOLUTION_COLUMNS, positions)
                stream = Stream(positions, 1, (n * outputs + first) * positions + begin)
                part = np.ascontiguousarray(result[n, first : first + each_out, begin:end])
                product.run(kernel, window.gather(inputs, begin, end), part, stream)
                result[n, first : first + each_out, begin:end] = part
    return product.finish(result.reshape(count, outputs, window.rows, window.columns))


@dataclass(frozen=True)
class Window:
    """Where a convolution's kernel lies.

    Attributes:
        rows, columns: of the output.
        kernel, stride, padding, dilation: of rows and columns.
    """

    rows: int
    columns: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]

    @classmethod
    def of(cls, size: Any, kernel: Any, stride: Any, padding: Any, dilation: Any) -> Window:
        """Check the numbers and find the output's size."""
        pairs = []
        for field, value, least in (("stride", stride, 1), ("padding", padding, 0), ("dilation", dilation, 1)):
            pair = tuple(value) if isinstance(value, tuple | list) else (value, value)
            if len(pair) != 2 or not all(isinstance(v, int | np.integer) and v >= least for v in pair):
                raise InputError(f"{field}: expected an integer ≥ {least}, or two, got {value!r}")
            pairs.append((int(pair[0]), int(pair[1])))
        lengths = []
        for axis in range(2):
            reach = pairs[2][axis] * (kernel[axis] - 1) + 1
            length = size[axis] + 2 * pairs[1][axis] - reach
            if length < 0:
                raise InputError(f"x: a kernel that spans {reach} does not fit {size[axis]} + 2 · {pairs[1][axis]} elements")
            lengths.append(length // pairs[0][axis] + 1)
        return cls(lengths[0], lengths[1], (kernel[0], kernel[1]), *pairs)

    def gather(self, padded: NDArray[Any], begin: int, end: int) -> NDArray[Any]:
        """(C · KH · KW, end − begin) inputs of the output positions from ``begin`` to ``end``, of (C, H, W) padded inputs."""
        row, column = np.divmod(np.arange(begin, end), self.columns)
        channels = padded.shape[0]
        result = np.empty((channels, *self.kernel, end - begin), padded.dtype)
        for i in range(self.kernel[0]):
            for j in range(self.kernel[1]):
                rows = row * self.stride[0] + i * self.dilation[0]
                result[:, i, j] = padded[:, rows, column * self.stride[1] + j * self.dilation[1]]
        return result.reshape(channels * self.kernel[0] * self.kernel[1], end - begin)


# --- results and tensors --------------------------------------------------------------------------------------------------


def _deliver(result: NDArray[Any], out: Any) -> Any:
    if out is None:
        return result
    if not isinstance(out, np.ndarray) or out.shape != result.shape:
        raise InputError(f"out: expected an array of shape {result.shape}, got {getattr(out, 'shape', type(out).__name__)}")
    if not out.flags.writeable:
        raise InputError("out: the array is read-only")
    with np.errstate(over="ignore", invalid="ignore"):
        converted = result.astype(out.dtype)
    if not np.array_equal(converted.astype(result.dtype), result, equal_nan=result.dtype.kind == "f"):
        raise InputError(f"out: {out.dtype} cannot hold the result; expected {result.dtype}")
    out[...] = converted
    return out


def _holds_tensor(x: Any) -> bool:
    return is_tensor(x.codes if isinstance(x, BlockCodes) else x)


def _as_tensor(result: Any, like: Any) -> Any:
    import torch

    return torch.from_numpy(np.ascontiguousarray(result)).to(like.device)


def _tensor_matmul(a: Any, b: Any, accumulator: Accumulator, bias: Any, seed: Any, out: Any, a_scales: Any, b_scales: Any) -> Any:
    """By way of arrays on the host."""
    if not all(is_tensor(v) or isinstance(v, BlockCodes) for v in (a, b)):
        raise InputError(f"a, b: expected two tensors or two arrays, got {type(a).__name__} and {type(b).__name__}")
    given = {"a": a, "b": b, "bias": bias, "a_scales": a_scales, "b_scales": b_scales}
    operands.check_tensor(out, "out", "matmul")
    arrays = {field: operands.host(v, field, "matmul") for field, v in given.items()}
    first = a if _holds_tensor(a) else b
    like = first.codes if isinstance(first, BlockCodes) else first
    result = _as_tensor(matmul(**arrays, accumulator=accumulator, seed=seed), like)
    if out is None:
        return result
    if not is_tensor(out) or out.shape != result.shape:
        raise InputError(
            f"out: expected a tensor of shape {tuple(result.shape)}, got {getattr(out, 'shape', type(out).__name__)}"
        )
    converted = result.to(out.dtype)
    back = converted.to(result.dtype)
    if not bool(((back == result) | (back.isnan() & result.isnan())).all()):
        raise InputError(f"out: {out.dtype} cannot hold the result; expected {result.dtype}")
    return out.copy_(converted)
