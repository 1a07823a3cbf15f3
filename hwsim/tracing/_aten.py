"""ATen operators as workload operators: one entry a family.

``describe(call)`` gives the operators that one dispatched ATen call stands for; the recorder fills in names and tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hwsim.operators import (
    Attention,
    Collective,
    Convolution,
    DataMovement,
    Elementwise,
    Gather,
    Matmul,
    Normalization,
    Op,
    Pooling,
    Reduction,
    Scan,
    Scatter,
    Softmax,
    Unmodelled,
)


@dataclass(frozen=True)
class Call:
    """One dispatched call: the operator, its arguments, and the tensors it gave."""

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: list[torch.Tensor]
    tensors: list[torch.Tensor]
    pointwise: bool

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """An argument by position or keyword."""
        return self.args[position] if len(self.args) > position else self.kwargs.get(name, default)

    @property
    def elements(self) -> int:
        """Elements of the first output."""
        return self.outputs[0].numel() if self.outputs else 0


@dataclass(frozen=True)
class Part:
    """An operator without its name: class, dimensions, and which tensors it reads and writes (all, where None)."""

    cls: type[Op]
    dims: dict[str, Any]
    inputs: Sequence[torch.Tensor] | None = None
    outputs: Sequence[torch.Tensor] | None = None
    suffix: str = ""


def _part(cls: type[Op], /, **dims: Any) -> list[Part]:
    return [Part(cls, dims)]


_ELEMENTWISE = {
    "add": "add", "sub": "add", "rsub": "add", "neg": "negate",
    "mul": "multiply", "div": "divide", "reciprocal": "divide", "true_divide": "divide", "floor_divide": "divide",
    "remainder": "divide", "fmod": "divide",
    "addcmul": "multiply_add", "lerp": "multiply_add", "addcdiv": "addcdiv", "square": "multiply",
    "relu": "relu", "relu6": "clamp", "leaky_relu": "leaky_relu", "prelu": "leaky_relu", "_prelu_kernel": "leaky_relu",
    "threshold": "threshold", "threshold_backward": "threshold", "leaky_relu_backward": "leaky_relu",
    "hardtanh": "hardtanh", "hardtanh_backward": "hardtanh", "clamp": "clamp", "clamp_min": "relu", "clamp_max": "relu",
    "abs": "abs", "sgn": "sign", "sign": "sign",
    "eq": "compare", "ne": "compare", "lt": "compare", "le": "compare", "gt": "compare", "ge": "compare",
    "isnan": "compare", "isinf": "compare", "where": "select", "masked_fill": "select",
    "maximum": "maximum", "minimum": "maximum", "fmax": "maximum", "fmin": "maximum",
    "logical_and": "logical", "logical_or": "logical", "logical_not": "logical", "logical_xor": "logical",
    "bitwise_and": "logical", "bitwise_or": "logical", "bitwise_not": "logical", "bitwise_xor": "logical",
    "round": "round", "floor": "round", "ceil": "round", "trunc": "round",
    "sqrt": "sqrt", "rsqrt": "rsqrt", "exp": "exp", "exp2": "exp", "expm1": "exp", "log": "log", "log2": "log",
    "log1p": "log", "log10": "log", "sin": "sine", "cos": "sine", "erf": "erf", "pow": "pow",
    "sigmoid": "sigmoid", "tanh": "tanh", "silu": "silu", "gelu": "gelu", "hardsigmoid": "hardsigmoid",
    "hardswish": "hardswish", "softplus": "softplus", "elu": "elu", "mish": "mish",
    "sigmoid_backward": "sigmoid_backward", "tanh_backward": "tanh_backward", "silu_backward": "silu_backward",
    "gelu_backward": "gelu_backward", "hardsigmoid_backward": "hardsigmoid", "hardswish_backward": "hardswish",
    "elu_backward": "elu", "softplus_backward": "softplus", "mish_backward": "mish",
    "native_dropout": "dropout", "native_dropout_backward": "multiply", "bernoulli": "random", "rand": "random",
    "randn": "random", "rand_like": "random", "randn_like": "random", "uniform": "random", "normal": "random",
    "normal_functional": "random", "randint": "random", "random": "random", "exponential": "random",
    "tril": "select", "triu": "select", "sigmoid_focal": "sigmoid",
}  # fmt: skip

_REDUCTION = {
    "sum": "sum", "mean": "mean", "amax": "max", "amin": "max", "max": "max", "min": "max", "argmax": "max",
    "argmin": "max", "any": "max", "all": "max", "prod": "prod", "var": "variance", "var_mean": "variance",
    "std": "variance", "std_mean": "variance", "norm": "norm", "linalg_vector_norm": "norm",
    "logsumexp": "logsumexp", "mse_loss": "norm",
    "binary_cross_entropy": "logsumexp", "binary_cross_entropy_with_logits": "logsumexp", "count_nonzero": "sum",
    "smooth_l1_loss": "norm", "huber_loss": "norm",
}  # fmt: skip

_COPIES = {
    "clone": "copy", "copy": "copy", "cat": "copy", "stack": "copy", "constant_pad_nd": "copy", "repeat": "copy",
    "roll": "copy", "flip": "copy", "im2col": "copy", "unfold_backward": "copy", "slice_backward": "copy",
    "select_backward": "copy", "pixel_shuffle": "copy", "pixel_unshuffle": "copy", "reflection_pad1d": "copy",
    "reflection_pad2d": "copy", "replication_pad2d": "copy", "channel_shuffle": "copy", "split_with_sizes_copy": "copy",
    "_reshape_copy": "copy", "view_copy": "copy", "permute_copy": "copy", "diagonal_copy": "copy", "as_strided_scatter": "copy",
    "slice_scatter": "copy", "select_scatter": "copy", "_to_copy": "cast", "reshape": "copy", "unsafe_split": "copy",
    "zeros": "fill", "ones": "fill", "full": "fill", "zeros_like": "fill", "ones_like": "fill", "full_like": "fill",
    "new_zeros": "fill", "new_ones": "fill", "new_full": "fill", "arange": "fill", "fill": "fill", "zero": "fill",
    "scalar_tensor": "fill", "linspace": "fill", "eye": "fill", "tril_indices": "fill", "triu_indices": "fill",
    "one_hot": "fill", "_efficientzerotensor": "fill",
}  # fmt: skip

_POOLING = {
    "max_pool1d": "pool_max", "max_pool2d_with_indices": "pool_max", "max_pool3d_with_indices": "pool_max",
    "max_pool2d": "pool_max", "avg_pool1d": "pool_average", "avg_pool2d": "pool_average", "avg_pool3d": "pool_average",
}  # fmt: skip

NO_COST = frozenset({
    "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "device", "sym_size", "sym_numel",
    "sym_stride", "sym_storage_offset", "is_same_size", "_local_scalar_dense", "record_stream", "lift_fresh", "lift",
    "set_", "resize_", "_assert_async", "_assert_scalar", "layout", "dim", "_has_compatible_shallow_copy_type",
})  # fmt: skip
"""Calls that neither compute nor move data."""


def _elementwise(call: Call) -> list[Part]:
    operation = _ELEMENTWISE[call.name]
    scalar = len(call.args) > 1 and not isinstance(call.args[1], torch.Tensor)
    if call.name == "pow" and scalar:
        operation = {2: "multiply", 0.5: "sqrt", -0.5: "rsqrt", -1: "divide"}.get(call.args[1], "pow")
    elif call.name == "div" and scalar:
        operation = "multiply"
    elif call.name in ("add", "sub") and call.kwargs.get("alpha", 1) != 1:
        operation = "multiply_add"
    result = call.outputs[0]
    moved = any(t.numel() == result.numel() and t.stride() != result.stride() and t.shape == result.shape for t in call.tensors)
    return _part(Elementwise, operation=operation, elements=call.elements, aligned=not moved)


def _reduction(call: Call) -> list[Part]:
    # max(x, y) on two tensors is elementwise.
    if call.name in ("max", "min") and len(call.tensors) == 2:
        return _part(Elementwise, operation="maximum", elements=call.elements)
    elements = call.tensors[0].numel()
    return _part(Reduction, operation=_REDUCTION[call.name], elements=elements, rows=max(1, call.elements))


def _mm(call: Call) -> list[Part]:
    a, b = call.args[0], call.args[1]
    return _part(Matmul, m=a.shape[0], k=a.shape[1], n=b.shape[1])


def _addmm(call: Call) -> list[Part]:
    c, a, b = call.args[:3]
    return [
        Part(
            Matmul,
            {"m": a.shape[0], "k": a.shape[1], "n": b.shape[1], "bias": call.kwargs.get("beta", 1) != 0},
            (a, b, c),
        )
    ]


def _bmm(call: Call) -> list[Part]:
    a, b = call.args[0], call.args[1]
    batch, m, k = a.shape
    n = b.shape[2]
    # An operand expanded over the batch is one matrix: the products share it, side by side.
    if batch > 1 and b.stride(0) == 0:
        return _part(Matmul, m=batch * m, k=k, n=n)
    if batch > 1 and a.stride(0) == 0:
        return _part(Matmul, m=m, k=k, n=batch * n)
    return _part(Matmul, batch=batch, m=m, k=k, n=n)


def _baddbmm(call: Call) -> list[Part]:
    c, a, b = call.args[:3]
    dims = {
        "batch": a.shape[0],
        "m": a.shape[1],
        "k": a.shape[2],
        "n": b.shape[2],
        "bias": call.kwargs.get("beta", 1) != 0,
    }
    return [Part(Matmul, dims, (a, b, c))]


def _vector_product(call: Call) -> list[Part]:
    """mv, addmv, dot, vdot, ger/outer: matmuls with a side of length one."""
    if call.name == "addmv":
        c, a, b = call.args[:3]
        return [Part(Matmul, {"m": a.shape[0], "k": a.shape[1], "n": 1, "bias": True}, (a, b, c))]
    a, b = call.args[0], call.args[1]
    if call.name == "mv":
        return _part(Matmul, m=a.shape[0], k=a.shape[1], n=1)
    if call.name in ("dot", "vdot"):
        return _part(Matmul, m=1, k=a.shape[0], n=1)
    return _part(Matmul, m=a.shape[0], k=1, n=b.shape[0])


def _scaled_mm(call: Call) -> list[Part]:
    a, b = call.args[0], call.args[1]
    return _part(Matmul, m=a.shape[0], k=a.shape[1], n=b.shape[1])


def _spatial(values: Sequence[int], rank: int) -> tuple[int, ...]:
    values = tuple(values)
    return values * rank if len(values) == 1 else values


def _conv_dims(
    x: Sequence[int],
    w: Sequence[int],
    y: Sequence[int],
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
) -> dict[str, Any]:
    rank = len(x) - 2
    return {
        "batch": x[0],
        "in_channels": x[1],
        "out_channels": y[1],
        "input_size": tuple(x[2:]),
        "output_size": tuple(y[2:]),
        "kernel": tuple(w[2:]),
        "stride": _spatial(stride, rank),
        "padding": tuple((p, p) for p in _spatial(padding, rank)),
        "dilation": _spatial(dilation, rank),
        "groups": groups,
    }


def _convolution(call: Call) -> list[Part]:
    x, w, bias, stride, padding, dilation, transposed, _, groups = call.args[:9]
    y = call.outputs[0]
    xs, ys = tuple(x.shape), tuple(y.shape)
    if x.dim() == w.dim() - 1:  # unbatched
        xs, ys = (1, *xs), (1, *ys)
    if transposed:
        dims = _conv_dims(ys, w.shape, xs, stride, padding, dilation, groups)
        dims["computes"] = "input"
    else:
        dims = _conv_dims(xs, w.shape, ys, stride, padding, dilation, groups)
    dims["bias"] = bias is not None
    return [Part(Convolution, dims, (x, w) if bias is None else (x, w, bias))]


def _convolution_backward(call: Call) -> list[Part]:
    grad, x, w, _, stride, padding, dilation, transposed, _, groups, mask = call.args[:11]
    grad_x, grad_w, grad_bias = _masked(call.outputs, mask)
    nest = (grad.shape, w.shape, x.shape) if transposed else (x.shape, w.shape, grad.shape)
    dims = _conv_dims(*nest, stride, padding, dilation, groups)
    parts = []
    if mask[0]:
        role = "output" if transposed else "input"
        parts.append(Part(Convolution, {**dims, "computes": role}, (grad, w), (grad_x,), "grad_input"))
    if mask[1]:
        operands = (grad, x) if transposed else (x, grad)
        parts.append(Part(Convolution, {**dims, "computes": "weight"}, operands, (grad_w,), "grad_weight"))
    if mask[2]:
        reduce = {"operation": "sum", "elements": grad.numel(), "rows": grad.shape[1]}
        parts.append(Part(Reduction, reduce, (grad,), (grad_bias,), "grad_bias"))
    return parts


def _masked(outputs: list[torch.Tensor], mask: Sequence[bool]) -> tuple[Any, ...]:
    """Outputs in three places, None where the mask is off (a fake kernel may or may not list those)."""
    remaining = iter(outputs)
    return tuple(next(remaining, None) if wanted else None for wanted in mask)


def _attention(call: Call) -> list[Part]:
    backward = call.name.endswith("backward")
    tensors = call.tensors[:4] if backward else call.tensors[:3]
    q, k, v = tensors[1:] if backward else tensors
    if backward:
        causal = next((a for a in call.args[4:] if isinstance(a, bool)), False)
    else:
        causal = bool(next((a for a in call.args[3:] if isinstance(a, bool) and a), call.kwargs.get("is_causal", False)))
    dims = {
        "batch": q.shape[0], "heads": q.shape[1], "kv_heads": k.shape[1], "query_length": q.shape[2],
        "key_length": k.shape[2], "head_dim": q.shape[3], "value_dim": v.shape[3], "causal": causal,
        "computes": "gradients" if backward else "output",
    }  # fmt: skip
    inputs = list(tensors)
    mask = call.kwargs.get("attn_mask")
    if isinstance(mask, torch.Tensor):
        inputs.append(mask)
    return [Part(Attention, dims, inputs, call.outputs[:3] if backward else call.outputs)]


def _softmax(call: Call) -> list[Part]:
    backward = call.name.endswith("backward_data")
    name = call.name.strip("_").removesuffix("_data").removeprefix("safe_")  # safe: rows that are masked as a whole give zeros
    x = call.tensors[0]
    dim = call.args[2 if backward else 1]
    length = x.shape[dim] if x.dim() else 1
    inputs = call.tensors[:2] if backward else None
    aligned = dim % max(1, x.dim()) == x.dim() - 1 and x.is_contiguous()
    dims = {"operation": name, "elements": x.numel(), "rows": x.numel() // max(1, length), "aligned": aligned}
    return [Part(Softmax, dims, inputs)]


def _batch_norm(call: Call) -> list[Part]:
    x = call.tensors[0]
    training = next((a for a in call.args if isinstance(a, bool)), "no_stats" in call.name)
    operation = "batch_norm_training" if training else "batch_norm"
    return _part(Normalization, operation=operation, elements=x.numel(), rows=x.shape[1])


def _layer_norm(call: Call) -> list[Part]:
    x = call.tensors[0]
    rows = x.numel() // max(1, math.prod(call.args[1]))
    operation = "rms_norm" if "rms" in call.name else "layer_norm"
    return _part(Normalization, operation=operation, elements=x.numel(), rows=rows)


def _group_norm(call: Call) -> list[Part]:
    x = call.tensors[0]
    groups = call.argument(6, "group", 1)
    return _part(Normalization, operation="group_norm", elements=x.numel(), rows=x.shape[0] * int(groups))


def _norm_backward(call: Call) -> list[Part]:
    x = call.tensors[1]
    saved = call.tensors[2].numel() if len(call.tensors) > 2 else 1
    return _part(Normalization, operation="norm_backward", elements=x.numel(), rows=saved)


def _pooling(call: Call) -> list[Part]:
    window = math.prod(_spatial(call.args[1], 2 if "2d" in call.name else 3 if "3d" in call.name else 1))
    return _part(Pooling, operation=_POOLING[call.name], elements=call.elements, window=window)


def _adaptive_pooling(call: Call) -> list[Part]:
    x, y = call.tensors[0], call.outputs[0]
    operation = "pool_max" if "max" in call.name else "pool_average"
    window = max(1, math.ceil(x.numel() / max(1, y.numel())))
    return _part(Pooling, operation=operation, elements=y.numel(), window=window)


def _pooling_backward(call: Call) -> list[Part]:
    grad = call.tensors[0]
    window = 1
    if "avg" in call.name and "adaptive" not in call.name:
        window = math.prod(_spatial(call.args[2], 2 if "2d" in call.name else 3))
    return _part(Scatter, elements=grad.numel() * window, indices=grad.numel(), accumulate=True)


def _embedding(call: Call) -> list[Part]:
    table, indices = call.args[0], call.args[1]
    return [Part(Gather, {"elements": call.elements, "indices": indices.numel()}, (table, indices))]


def _embedding_bag(call: Call) -> list[Part]:
    table, indices, offsets = call.args[:3]
    gathered = indices.numel() * table.shape[1]
    parts = [
        Part(
            Gather,
            {"elements": gathered, "indices": indices.numel()},
            (table, indices, offsets),
            call.outputs[:1],
        )
    ]
    if indices.numel() > call.outputs[0].shape[0]:
        operation = ("sum", "mean", "max")[call.argument(4, "mode", 0)]
        dims = {"operation": operation, "elements": gathered, "rows": call.outputs[0].numel()}
        parts.append(Part(Reduction, dims, call.outputs[:1], call.outputs[:1], operation))
    return parts


def _gather(call: Call) -> list[Part]:
    indices = sum(t.numel() for t in call.tensors[1:])
    return _part(Gather, elements=call.elements, indices=max(1, indices))


def _scatter(call: Call) -> list[Part]:
    """scatter and its kin: as many elements as indices (``scatter.src`` may bring more values than it uses)."""
    accumulate = "add" in call.name or "reduce" in call.name or call.kwargs.get("reduce") is not None
    indices = call.args[2].numel()
    return _part(Scatter, elements=indices, indices=indices, accumulate=accumulate)


def _scatter_rows(call: Call) -> list[Part]:
    """index_add, index_copy, index_fill: the rows of one dimension that the indices name."""
    x, dim, index = call.args[:3]
    rows = x.numel() // max(1, x.shape[dim]) if x.dim() else 1
    accumulate = call.name == "index_add"
    return _part(Scatter, elements=index.numel() * rows, indices=index.numel(), accumulate=accumulate)


def _index_put(call: Call) -> list[Part]:
    """``x[indices] = values``; a mask counts as if all of it were set."""
    x = call.args[0]
    places, rest, position = 1, 1, 0
    shapes = []
    for index in call.args[1]:
        if index is None:
            rest *= x.shape[position]
            position += 1
        elif index.dtype in (torch.bool, torch.uint8):
            places *= index.numel()
            position += index.dim()
        else:
            shapes.append(index.shape)
            position += 1
    places *= math.prod(torch.broadcast_shapes(*shapes))
    rest *= math.prod(x.shape[position:])
    return _part(Scatter, elements=places * rest, indices=places, accumulate=bool(call.argument(3, "accumulate", False)))


def _masked_scatter(call: Call) -> list[Part]:
    return _part(Scatter, elements=call.elements, indices=call.elements)


def _embedding_backward(call: Call) -> list[Part]:
    grad, indices = call.args[0], call.args[1]
    dims = {"elements": grad.numel(), "indices": indices.numel(), "accumulate": True}
    clear = Part(DataMovement, {"elements": call.elements, "operation": "fill"}, (), None, "clear")
    return [clear, Part(Scatter, dims, (grad, indices))]


def _scan(call: Call) -> list[Part]:
    x = call.tensors[0]
    length = x.shape[call.args[1]] if x.dim() else 1
    return _part(Scan, operation="cumulative", length=length, width=x.numel() // max(1, length))


def _selective_scan(call: Call) -> list[Part]:
    u, a = call.tensors[0], call.tensors[2]
    batch, channels, length = u.shape
    return _part(Scan, operation="selective_scan", length=length, width=batch * channels * a.shape[1])


def _selective_scan_backward(call: Call) -> list[Part]:
    """The states are computed again, then a scan runs backwards: two scans over the same nest."""
    u = max(call.tensors, key=lambda t: t.dim() * 10**12 + t.numel())
    state = min((t for t in call.tensors if t.dim() == 2), key=lambda t: t.numel())
    batch, channels, length = u.shape
    return _part(Scan, operation="selective_scan", length=2 * length, width=batch * channels * state.shape[1])


def _sort(call: Call) -> list[Part]:
    x = call.tensors[0]
    dim = call.argument(2 if call.name == "topk" else 1, "dim", -1)
    length = x.shape[dim if isinstance(dim, int) else -1] if x.dim() else 1
    passes = max(1, math.ceil(math.log2(max(2, length))))
    return _part(Reduction, operation="sort", elements=x.numel() * passes, rows=max(1, x.numel() // max(1, length)))


def _interpolate(call: Call) -> list[Part]:
    return _part(Elementwise, operation="interpolate", elements=max(call.elements, call.tensors[0].numel()))


def _nll_loss(call: Call) -> list[Part]:
    """One log-probability a target is read, and their mean or sum taken."""
    targets = call.args[1].numel()
    parts = [Part(Gather, {"elements": targets, "indices": targets}, None, call.outputs)]
    results = max(1, call.elements)
    if results < targets:
        dims = {"operation": "mean" if call.args[3] == 1 else "sum", "elements": targets, "rows": results}
        parts.append(Part(Reduction, dims, call.outputs[:1], call.outputs[:1], "reduce"))
    return parts


def _nll_backward(call: Call) -> list[Part]:
    return _part(Elementwise, operation="fill", elements=call.elements)


def _loss_backward(call: Call) -> list[Part]:
    return _part(Elementwise, operation="multiply_add", elements=call.elements)


def _fused_optimizer(call: Call) -> list[Part]:
    operation = "sgd_momentum" if "sgd" in call.name else "adam"
    weights = call.args[0]
    # (params, grads, state lists …); every tensor of the first and the state lists is rewritten, gradients are read.
    written = [t for position, group in enumerate(call.args) if isinstance(group, list | tuple) and position != 1 for t in group]
    return [
        Part(
            Elementwise,
            {"operation": operation, "elements": sum(w.numel() for w in weights)},
            None,
            [t for t in written if isinstance(t, torch.Tensor)],
        )
    ]


def _foreach(call: Call) -> list[Part]:
    base = call.name.removeprefix("_foreach_")
    operation = _ELEMENTWISE.get(base, {"copy": "copy", "zero": "fill", "norm": "norm"}.get(base, "special"))
    lists = [a for a in call.args if isinstance(a, list | tuple) and a and isinstance(a[0], torch.Tensor)]
    if base == "div" and len(lists) == 1:
        operation = "multiply"
    elif base in ("add", "sub") and call.kwargs.get("alpha", 1) != 1:
        operation = "multiply_add"
    return _part(Elementwise, operation=operation, elements=sum(t.numel() for t in lists[0]) if lists else 0)


def _collective(call: Call) -> list[Part]:
    group = next((a for a in reversed(call.args) if isinstance(a, int) and not isinstance(a, bool)), 1)
    return _part(Collective, operation=call.name, elements=call.elements, participants=max(1, group))


_FAMILIES: dict[str, Callable[[Call], list[Part]]] = {
    "mm": _mm, "_int_mm": _mm, "addmm": _addmm, "_addmm_activation": _addmm, "bmm": _bmm, "baddbmm": _baddbmm,
    "mv": _vector_product, "addmv": _vector_product, "dot": _vector_product, "vdot": _vector_product, "ger": _vector_product,
    "_scaled_mm": _scaled_mm, "convolution": _convolution, "_convolution": _convolution,
    "convolution_overrideable": _convolution, "convolution_backward": _convolution_backward,
    "_softmax": _softmax, "_log_softmax": _softmax, "_softmax_backward_data": _softmax,
    "_log_softmax_backward_data": _softmax, "_safe_softmax": _softmax,
    "native_batch_norm": _batch_norm, "cudnn_batch_norm": _batch_norm, "_native_batch_norm_legit": _batch_norm,
    "_native_batch_norm_legit_no_training": _batch_norm, "_native_batch_norm_legit_functional": _batch_norm,
    "_batch_norm_with_update": _batch_norm, "_batch_norm_no_update": _batch_norm,
    "native_layer_norm": _layer_norm, "_fused_rms_norm": _layer_norm, "rms_norm": _layer_norm,
    "native_group_norm": _group_norm,
    "native_batch_norm_backward": _norm_backward, "native_layer_norm_backward": _norm_backward,
    "native_group_norm_backward": _norm_backward, "_fused_rms_norm_backward": _norm_backward,
    "batch_norm_backward": _norm_backward,
    "_adaptive_avg_pool2d": _adaptive_pooling, "_adaptive_avg_pool3d": _adaptive_pooling,
    "adaptive_avg_pool2d": _adaptive_pooling, "adaptive_max_pool2d": _adaptive_pooling, "adaptive_max_pool1d": _adaptive_pooling,
    "adaptive_avg_pool1d": _adaptive_pooling, "max_pool2d_with_indices_backward": _pooling_backward,
    "avg_pool2d_backward": _pooling_backward, "_adaptive_avg_pool2d_backward": _pooling_backward,
    "max_pool3d_with_indices_backward": _pooling_backward, "avg_pool3d_backward": _pooling_backward,
    "embedding": _embedding, "_embedding_bag": _embedding_bag, "_embedding_bag_forward_only": _embedding_bag,
    "embedding_dense_backward": _embedding_backward, "index_select": _gather, "gather": _gather, "index": _gather,
    "take": _gather,
    "scatter": _scatter, "scatter_add": _scatter, "scatter_reduce": _scatter, "masked_scatter": _masked_scatter,
    "index_add": _scatter_rows, "index_copy": _scatter_rows, "index_fill": _scatter_rows,
    "index_put": _index_put, "_index_put_impl": _index_put, "_unsafe_index_put": _index_put, "_unsafe_index": _gather,
    "cumsum": _scan, "cumprod": _scan, "logcumsumexp": _scan, "cummax": _scan, "cummin": _scan,
    "selective_scan": _selective_scan, "selective_scan_backward": _selective_scan_backward,
    "sort": _sort, "topk": _sort, "argsort": _sort,
    "upsample_bilinear2d": _interpolate, "upsample_nearest2d": _interpolate, "upsample_bicubic2d": _interpolate,
    "upsample_nearest1d": _interpolate, "upsample_linear1d": _interpolate, "upsample_trilinear3d": _interpolate,
    "upsample_nearest3d": _interpolate, "upsample_bilinear2d_backward": _interpolate, "grid_sampler_2d": _interpolate,
    "upsample_nearest2d_backward": _interpolate,
    "nll_loss_forward": _nll_loss, "nll_loss2d_forward": _nll_loss, "nll_loss_backward": _nll_backward,
    "nll_loss2d_backward": _nll_backward, "mse_loss_backward": _loss_backward,
    "binary_cross_entropy_backward": _loss_backward, "smooth_l1_loss_backward": _loss_backward,
    "all_reduce": _collective, "all_gather_into_tensor": _collective, "reduce_scatter_tensor": _collective,
    "all_to_all_single": _collective, "broadcast": _collective,
}  # fmt: skip


def describe(call: Call) -> list[Part]:
    """The operators one call stands for; ``Unmodelled`` where no family knows it."""
    name = call.name
    if name in _FAMILIES:
        return _FAMILIES[name](call)
    if name in _POOLING:
        return _pooling(call)
    if name in _REDUCTION:
        return _reduction(call)
    if name in _ELEMENTWISE:
        return _elementwise(call)
    if name in _COPIES:
        operation = _COPIES[name]
        if name == "copy" and len(call.tensors) > 1 and call.tensors[0].dtype != call.tensors[1].dtype:
            operation = "cast"
        if name in ("_to_copy", "clone") and call.tensors and call.tensors[0].dtype == call.outputs[0].dtype:
            operation = "copy"
        inputs = call.tensors[1:] if name == "copy" else ([] if operation == "fill" else None)
        return [Part(DataMovement, {"elements": call.elements, "operation": operation}, inputs)]
    if "scaled_dot_product" in name:
        return _attention(call)
    if name.startswith("_fused_") and name.removeprefix("_fused_").startswith(("adam", "sgd", "adagrad")):
        return _fused_optimizer(call)
    if name.startswith("_foreach_"):
        return _foreach(call)
    if call.pointwise:
        return _part(Elementwise, operation="special", elements=call.elements)
    return _part(Unmodelled)
