"""From ONNX nodes to operators: one table from operator name to a function that emits what the node costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from hwsim.operators import (
    DataMovement,
    Elementwise,
    Gather,
    Normalization,
    Pooling,
    Reduction,
    Scan,
    Scatter,
    Softmax,
    Unmodelled,
)
from hwsim.tracing import _onnx_matrix as matrix
from hwsim.tracing import _onnx_recurrent as recurrent
from hwsim.tracing._onnx_walk import Node, Walk

Emitter = Callable[[Walk, Node], None]

_OPSET_SOFTMAX_OF_ONE_AXIS = 13
"""Before it, Softmax flattened its input to two dimensions."""

ELEMENTWISE = {
    "Abs": "abs", "Acos": "special", "Acosh": "special", "Add": "add", "And": "logical",
    "Asin": "special", "Asinh": "special", "Atan": "special", "Atanh": "special", "Bernoulli": "random",
    "BitShift": "logical", "BitwiseAnd": "logical", "BitwiseNot": "logical", "BitwiseOr": "logical",
    "BitwiseXor": "logical", "Ceil": "round", "Celu": "elu", "Cos": "sine", "Cosh": "special",
    "DequantizeLinear": "dequantize", "Div": "divide", "Elu": "elu", "Equal": "compare", "Erf": "erf",
    "Exp": "exp", "Floor": "round", "Gelu": "gelu", "Greater": "compare", "GreaterOrEqual": "compare",
    "GridSample": "interpolate", "HardSigmoid": "hardsigmoid", "HardSwish": "hardswish",
    "IsInf": "compare", "IsNaN": "compare", "LeakyRelu": "leaky_relu", "Less": "compare",
    "LessOrEqual": "compare", "Log": "log", "Mish": "mish", "Mod": "divide", "Mul": "multiply",
    "Neg": "negate", "Not": "logical", "Or": "logical", "PRelu": "leaky_relu",
    "QuantizeLinear": "quantize", "RandomNormal": "random", "RandomNormalLike": "random",
    "RandomUniform": "random", "RandomUniformLike": "random", "Reciprocal": "divide", "Relu": "relu",
    "RotaryEmbedding": "rotary", "Round": "round", "Selu": "elu", "Shrink": "threshold",
    "Sigmoid": "sigmoid", "Sign": "sign", "Sin": "sine", "Sinh": "special", "Softplus": "softplus",
    "Softsign": "special", "Sqrt": "sqrt", "Sub": "add", "Swish": "silu", "Tan": "special",
    "Tanh": "tanh", "ThresholdedRelu": "threshold", "Where": "select", "Xor": "logical",
}  # fmt: skip
"""ONNX operator → row of the operation table, once for every output element."""

VARIADIC = {"Sum": "add", "Mean": "add", "Max": "maximum", "Min": "maximum"}

REDUCTIONS = {
    "ReduceSum": "sum", "ReduceMean": "mean", "ReduceMax": "max", "ReduceMin": "max",
    "ReduceProd": "prod", "ReduceL1": "norm_l1", "ReduceL2": "norm", "ReduceLogSum": "log_sum",
    "ReduceLogSumExp": "logsumexp", "ReduceSumSquare": "sum_square", "ArgMax": "max", "ArgMin": "max",
}  # fmt: skip

POOLS = {
    "MaxPool": "pool_max", "AveragePool": "pool_average", "LpPool": "pool_lp",
    "GlobalMaxPool": "pool_max", "GlobalAveragePool": "pool_average", "GlobalLpPool": "pool_lp",
}  # fmt: skip


def emit_node(walk: Walk, node: Node) -> None:
    """Add what ``node`` costs to ``walk``.

    Raises:
        InputError: a shape it needs is unknown, or its shapes do not fit.
    """
    standard = node.domain in ("", "ai.onnx")
    if standard and node.kind in VIEWS:
        VIEWS[node.kind](walk, node)
    elif standard and _is_constant(walk, node):
        walk.prepared.constants.update(filter(None, node.outputs))
    elif standard and node.kind in EMITTERS:
        EMITTERS[node.kind](walk, node)
    else:
        unmodelled(walk, node)


def _is_constant(walk: Walk, node: Node) -> bool:
    """Whether nothing the node reads changes between runs; then it costs nothing."""
    return node.foldable and all(walk.is_constant(name) for name in node.inputs if name)


def unmodelled(walk: Walk, node: Node) -> None:
    """Carry the node with every tensor it touches."""
    inputs = dict.fromkeys((*node.inputs, *node.captured))
    walk.emit(Unmodelled, node, inputs, node.outputs)


# --- views ----------------------------------------------------------------------------------------------


def _view(walk: Walk, node: Node) -> None:
    walk.view(node, node.inputs[0], node.outputs[0])


def _identity(walk: Walk, node: Node) -> None:
    """A sequence or an optional has no shape to view."""
    if node.inputs[0] in walk.prepared.formats:
        _view(walk, node)
    else:
        unmodelled(walk, node)


def _dropout(walk: Walk, node: Node) -> None:
    training = walk.value(node.input(2))
    if training is not None and bool(training.any()):
        walk.emit(Elementwise, node, node.inputs[:1], operation="dropout", elements=walk.size(node, node.outputs[0]))
        return
    _view(walk, node)
    if node.output(1):
        # In inference the mask is all true, whatever the input.
        walk.prepared.constants.add(node.outputs[1])


def _split(walk: Walk, node: Node) -> None:
    for output in node.outputs:
        walk.view(node, node.inputs[0], output, part=True)


def _slice(walk: Walk, node: Node) -> None:
    steps = walk.value(node.input(4))
    if steps is not None and bool((steps < 0).any()):
        _copy_unless_constant(walk, node)
    else:
        walk.view(node, node.inputs[0], node.outputs[0], part=True)


def _transpose(walk: Walk, node: Node) -> None:
    shape = walk.shape(node, node.inputs[0])
    order = node.get("perm", list(reversed(range(len(shape)))))
    moved = [axis for axis in order if shape[axis] != 1]
    if moved == sorted(moved):
        _view(walk, node)
    else:
        _copy_unless_constant(walk, node)


def _same_size_or_copy(walk: Walk, node: Node) -> None:
    if walk.size(node, node.inputs[0]) == walk.size(node, node.outputs[0]):
        _view(walk, node)
    else:
        _copy_unless_constant(walk, node)


def _cast(walk: Walk, node: Node) -> None:
    if walk.format(node.inputs[0]) == walk.format(node.outputs[0]):
        _view(walk, node)
    elif _is_constant(walk, node):
        walk.prepared.constants.update(node.outputs)
    else:
        elements = walk.size(node, node.outputs[0])
        walk.emit(DataMovement, node, node.inputs[:1], elements=elements, operation="cast")


def _copy_unless_constant(walk: Walk, node: Node) -> None:
    if _is_constant(walk, node):
        walk.prepared.constants.update(node.outputs)
    else:
        _copy(walk, node)


def _shape_of(walk: Walk, node: Node) -> None:
    """A shape that is not known beforehand is still no work."""
    walk.prepared.constants.add(node.outputs[0])


VIEWS: dict[str, Emitter] = {
    "BitCast": _view, "Cast": _cast, "CastLike": _cast, "Dropout": _dropout, "Expand": _same_size_or_copy,
    "Flatten": _view, "Identity": _identity, "Pad": _same_size_or_copy, "Reshape": _view, "Shape": _shape_of,
    "Size": _shape_of, "Slice": _slice, "Split": _split, "Squeeze": _view, "Tile": _same_size_or_copy,
    "Transpose": _transpose, "Unsqueeze": _view,
}  # fmt: skip
"""Operators that may only rename their input; they are asked first, so that a view of a weight stays one."""


# --- data movement --------------------------------------------------------------------------------------


def _copy(walk: Walk, node: Node) -> None:
    walk.emit(DataMovement, node, node.inputs[:1], elements=walk.size(node, node.outputs[0]))


def _concat(walk: Walk, node: Node) -> None:
    if len(node.inputs) == 1:
        _view(walk, node)
    else:
        walk.emit(DataMovement, node, elements=walk.size(node, node.outputs[0]))


def _fill(walk: Walk, node: Node) -> None:
    walk.emit(DataMovement, node, node.inputs[:1], elements=walk.size(node, node.outputs[0]), operation="fill")


def _gather(walk: Walk, node: Node) -> None:
    table, indices = node.inputs[:2]
    elements = walk.size(node, node.outputs[0])
    walk.emit(Gather, node, (table, indices), elements=elements, indices=walk.size(node, indices))


def _scatter(walk: Walk, node: Node) -> None:
    """The data is copied, then the updates are written over the copy."""
    data, indices, updates = node.inputs[:3]
    elements = walk.size(node, data)
    accumulate = node.get("reduction", "none") != "none"
    walk.emit(DataMovement, node, (data,), part="copy", elements=elements)
    walk.emit(
        Scatter, node, (updates, indices), elements=walk.size(node, updates),
        indices=walk.size(node, indices), accumulate=accumulate,
    )  # fmt: skip


def _tensor_scatter(walk: Walk, node: Node) -> None:
    """A cache updated in place."""
    cache, update = node.inputs[:2]
    indices = node.input(2)
    walk.view(node, cache, node.outputs[0])
    rows = walk.size(node, indices) if indices else 1
    walk.emit(Scatter, node, (update, indices), elements=walk.size(node, update), indices=rows)


def _max_unpool(walk: Walk, node: Node) -> None:
    elements = walk.size(node, node.inputs[0])
    walk.emit(DataMovement, node, (), part="fill", elements=walk.size(node, node.outputs[0]), operation="fill")
    walk.emit(Scatter, node, node.inputs[:2], elements=elements, indices=elements)


# --- elementwise ----------------------------------------------------------------------------------------


def _elementwise(walk: Walk, node: Node) -> None:
    if node.kind.endswith("Linear"):
        walk.as_weights(node.inputs)
    elements = walk.size(node, node.outputs[0])
    walk.emit(Elementwise, node, operation=ELEMENTWISE[node.kind], elements=elements)


def _clip(walk: Walk, node: Node) -> None:
    walk.emit(Elementwise, node, node.inputs[:1], operation="clamp", elements=walk.size(node, node.outputs[0]))


def _pow(walk: Walk, node: Node) -> None:
    exponent = walk.value(node.input(1))
    simple = {2.0: "multiply", 0.5: "sqrt", -1.0: "divide"}
    operation = simple.get(float(exponent.ravel()[0]), "pow") if exponent is not None and exponent.size == 1 else "pow"
    walk.emit(Elementwise, node, operation=operation, elements=walk.size(node, node.outputs[0]))


def _variadic(walk: Walk, node: Node) -> None:
    """n operands are n − 1 operations an element; a mean's scaling is one more."""
    times = len(node.inputs) - (node.kind != "Mean")
    if len(node.inputs) == 1:
        _view(walk, node)
    else:
        elements = walk.size(node, node.outputs[0]) * times
        walk.emit(Elementwise, node, operation=VARIADIC[node.kind], elements=elements)


def _swiglu(walk: Walk, node: Node) -> None:
    shape = walk.shape(node, node.inputs[0])
    gate = walk.new_tensor(node, "gate", shape, format=walk.format(node.inputs[0]))
    elements = math.prod(shape)
    walk.emit(Elementwise, node, node.inputs[:1], (gate,), part="gate", operation="silu", elements=elements)
    walk.emit(Elementwise, node, (gate, node.inputs[1]), operation="multiply", elements=elements)


def _dynamic_quantize(walk: Walk, node: Node) -> None:
    """Smallest and largest value, then the quantisation with the scale between them."""
    x, elements = node.inputs[0], walk.size(node, node.inputs[0])
    walk.emit(Reduction, node, (x,), node.outputs[1:], part="range", operation="max", elements=2 * elements, rows=2)
    walk.emit(Elementwise, node, (x, *node.outputs[1:]), node.outputs[:1], operation="quantize", elements=elements)


def _interpolate(walk: Walk, node: Node) -> None:
    walk.emit(Elementwise, node, node.inputs[:1], operation="interpolate", elements=walk.size(node, node.outputs[0]))


# --- rows -----------------------------------------------------------------------------------------------


def _reduction(walk: Walk, node: Node) -> None:
    elements, rows = walk.size(node, node.inputs[0]), walk.size(node, node.outputs[0])
    if elements == rows and node.kind in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd"):
        _view(walk, node)
    else:
        walk.emit(Reduction, node, node.inputs[:1], operation=REDUCTIONS[node.kind], elements=elements, rows=rows)


def _top_k(walk: Walk, node: Node) -> None:
    shape = walk.shape(node, node.inputs[0])
    length = shape[node.get("axis", -1)]
    passes = max(1, math.ceil(math.log2(max(1, length))))
    elements = math.prod(shape)
    walk.emit(
        Reduction, node, node.inputs[:1], operation="sort", elements=elements * passes,
        rows=elements // max(1, length),
    )  # fmt: skip


def _softmax(walk: Walk, node: Node) -> None:
    shape = walk.shape(node, node.inputs[0])
    if walk.prepared.opset >= _OPSET_SOFTMAX_OF_ONE_AXIS:
        length = shape[node.get("axis", -1)]
    else:
        length = math.prod(shape[node.get("axis", 1) :])
    elements = math.prod(shape)
    operation = "softmax" if node.kind == "Softmax" else "log_softmax"
    walk.emit(Softmax, node, operation=operation, elements=elements, rows=elements // max(1, length))


def _normalization(operation: str, rows: Callable[[Node, Sequence[int]], int]) -> Emitter:
    def emit(walk: Walk, node: Node) -> None:
        shape = walk.shape(node, node.inputs[0])
        walk.emit(Normalization, node, operation=operation, elements=math.prod(shape), rows=rows(node, shape))

    return emit


def _batch_norm(walk: Walk, node: Node) -> None:
    shape = walk.shape(node, node.inputs[0])
    training = bool(node.get("training_mode", 0))
    walk.emit(
        Normalization, node, outputs=node.outputs if training else node.outputs[:1],
        operation="batch_norm_training" if training else "batch_norm", elements=math.prod(shape),
        rows=shape[1],
    )  # fmt: skip


def _pool(walk: Walk, node: Node) -> None:
    shape = walk.shape(node, node.inputs[0])
    window = math.prod(shape[2:] if node.kind.startswith("Global") else node.get("kernel_shape", ()))
    elements = walk.size(node, node.outputs[0])
    walk.emit(Pooling, node, operation=POOLS[node.kind], elements=elements, window=window)


def _cumulative(walk: Walk, node: Node) -> None:
    shape = walk.shape(node, node.inputs[0])
    axis = walk.value(node.inputs[1])
    length = shape[int(axis.ravel()[0])] if axis is not None else max(shape, default=1)
    width = math.prod(shape) // max(1, length)
    walk.emit(Scan, node, node.inputs[:1], operation="cumulative", length=length, width=width)


def _rows_before(default: int) -> Callable[[Node, Sequence[int]], int]:
    """Rows where everything from ``axis`` on is normalised together."""
    return lambda node, shape: math.prod(shape[: node.get("axis", default) % len(shape)])


def _rows_along(default: int) -> Callable[[Node, Sequence[int]], int]:
    """Rows where one axis is normalised."""
    return lambda node, shape: math.prod(shape) // max(1, shape[node.get("axis", default)])


def _rows_kept(node: Node, shape: Sequence[int]) -> int:
    axes = {int(a) % len(shape) for a in np.atleast_1d(node.get("axes", [0, 2, 3]))}
    return math.prod(size for axis, size in enumerate(shape) if axis not in axes)


EMITTERS: dict[str, Emitter] = {
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **dict.fromkeys(VARIADIC, _variadic),
    **dict.fromkeys(REDUCTIONS, _reduction),
    **dict.fromkeys(POOLS, _pool),
    **dict.fromkeys(("CenterCropPad", "DepthToSpace", "ReverseSequence", "SpaceToDepth", "Trilu"), _copy),
    **dict.fromkeys(("ConstantOfShape", "EyeLike", "OneHot", "Range"), _fill),
    **dict.fromkeys(("Gather", "GatherElements", "GatherND"), _gather),
    **dict.fromkeys(("Scatter", "ScatterElements", "ScatterND"), _scatter),
    **dict.fromkeys(("Resize", "Upsample"), _interpolate),
    **dict.fromkeys(("CumProd", "CumSum"), _cumulative),
    **dict.fromkeys(("LogSoftmax", "Softmax"), _softmax),
    "Attention": matrix.attention,
    "BatchNormalization": _batch_norm,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": matrix.convolution,
    "ConvInteger": matrix.convolution,
    "ConvTranspose": matrix.transposed_convolution,
    "DynamicQuantizeLinear": _dynamic_quantize,
    "Einsum": matrix.einsum,
    "GRU": recurrent.gru,
    "Gemm": matrix.gemm,
    "GroupNormalization": _normalization("group_norm", lambda node, shape: shape[0] * node.get("num_groups", 1)),
    "InstanceNormalization": _normalization("group_norm", lambda _, shape: shape[0] * shape[1]),
    "LRN": _normalization("local_response_norm", lambda _, shape: math.prod(shape) // max(1, shape[1])),
    "LSTM": recurrent.lstm,
    "LayerNormalization": _normalization("layer_norm", _rows_before(-1)),
    "LpNormalization": _normalization("rms_norm", _rows_along(-1)),
    "MatMul": matrix.matmul,
    "MatMulInteger": matrix.matmul,
    "MaxUnpool": _max_unpool,
    "MeanVarianceNormalization": _normalization("layer_norm", _rows_kept),
    "Pow": _pow,
    "QLinearConv": matrix.quantized_convolution,
    "QLinearMatMul": matrix.quantized_matmul,
    "RMSNormalization": _normalization("rms_norm", _rows_before(-1)),
    "RNN": recurrent.rnn,
    "SwiGLU": _swiglu,
    "TensorScatter": _tensor_scatter,
    "TopK": _top_k,
}
"""Standard operators → what they cost; those missing here and in ``VIEWS`` are unmodelled."""
