"""Matmuls, convolutions and attention of ONNX: their loop nests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from hwsim.operators import Attention, Convolution, DataMovement, Elementwise, Matmul, Reduction, Unmodelled
from hwsim.tracing._onnx_walk import Node, Walk


def gemm(walk: Walk, node: Node) -> None:
    """Gemm: one matmul, its third input the bias."""
    a, b = (walk.shape(node, name) for name in node.inputs[:2])
    m, k = reversed(a) if node.get("transA", 0) else a
    inner, n = reversed(b) if node.get("transB", 0) else b
    if k != inner:
        raise walk.error(node, f"{a} and {b} cannot be multiplied")
    walk.emit(Matmul, node, m=m, n=n, k=k, bias=bool(node.input(2)))


def matmul_dims(walk: Walk, node: Node, a: str, b: str) -> dict[str, Any]:
    """The nest of ``a @ b`` with numpy's broadcasting; a batch of ``a`` alone is rows of one matmul."""
    left, right = walk.shape(node, a), walk.shape(node, b)
    if not left or not right:
        raise walk.error(node, "a scalar cannot be multiplied as a matrix")
    (*rows, m, k), (*batch, inner, n) = (1, *left)[-max(2, len(left)) :], (*right, 1)[: max(2, len(right))]
    try:
        both = np.broadcast_shapes(tuple(rows), tuple(batch))
    except ValueError:
        both = None
    if k != inner or both is None:
        raise walk.error(node, f"{left} and {right} cannot be multiplied")
    if math.prod(batch) == 1:
        return {"batch": 1, "m": math.prod(rows) * m, "n": n, "k": k}
    return {"batch": math.prod(both), "m": m, "n": n, "k": k}


def matmul(walk: Walk, node: Node) -> None:
    """MatMul and MatMulInteger; zero points are scalars or rows that do no MACs."""
    a, b = node.inputs[:2]
    walk.emit(Matmul, node, (a, b), **matmul_dims(walk, node, a, b))


def quantized_matmul(walk: Walk, node: Node) -> None:
    """QLinearMatMul: the integer matmul, then the requantisation of its sums."""
    a, b = node.inputs[0], node.inputs[3]
    sums = walk.new_tensor(node, "sums", walk.shape(node, node.outputs[0]), format="int32")
    walk.emit(Matmul, node, (a, b), (sums,), **matmul_dims(walk, node, a, b))
    _requantize(walk, node, sums)


def _requantize(walk: Walk, node: Node, sums: str) -> None:
    elements = walk.size(node, node.outputs[0])
    walk.emit(Elementwise, node, (sums,), part="requantize", operation="quantize", elements=elements)


def einsum(walk: Walk, node: Node) -> None:
    """Einsum: a matmul, a product, a sum or a transposition where it is one of these, else unmodelled."""
    equation = node.get("equation", "").replace(" ", "")
    left, arrow, out = equation.partition("->")
    terms = left.split(",")
    plain = arrow and all(len(set(t)) == len(t) and t.isalpha() for t in terms) and (out.isalpha() or not out)
    if not plain or len(terms) != len(node.inputs) or len(terms) > 2 or not set(out) <= set("".join(terms)):
        walk.emit(Unmodelled, node)
        return
    sizes: dict[str, int] = {}
    for term, name in zip(terms, node.inputs, strict=True):
        sizes.update(zip(term, walk.shape(node, name), strict=True))
    elements = math.prod(sizes[label] for label in out)

    if len(terms) == 1:
        if set(out) == set(terms[0]):
            walk.emit(DataMovement, node, elements=elements)
        else:
            walk.emit(Reduction, node, operation="sum", elements=math.prod(sizes.values()), rows=elements)
        return
    a, b = map(set, terms)
    if (a ^ b) - set(out):
        # A label of one operand alone is summed besides: two operators, in an order ONNX leaves open.
        walk.emit(Unmodelled, node)
        return
    inner = (a & b) - set(out)
    if not inner:
        walk.emit(Elementwise, node, operation="multiply", elements=elements)
        return

    def product(labels: set[str]) -> int:
        return math.prod(sizes[label] for label in labels)

    batch, m, n = product(a & b & set(out)), product(a - b), product(b - a)
    walk.emit(Matmul, node, batch=batch, m=m, n=n, k=product(inner))


# --- convolutions ---------------------------------------------------------------------------------------


def _window(walk: Walk, node: Node, weight: str) -> dict[str, Any]:
    kernel = walk.shape(node, weight)[2:]
    ones = [1] * len(kernel)
    return {
        "kernel": kernel,
        "stride": tuple(node.get("strides", ones)),
        "dilation": tuple(node.get("dilations", ones)),
        "groups": node.get("group", 1),
    }


def _padding(node: Node, window: dict[str, Any], size: Sequence[int], output: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """(before, after) of each dimension of a convolution from ``size`` to ``output``."""
    mode = node.get("auto_pad", "NOTSET")
    rank = len(size)
    if mode == "VALID":
        return ((0, 0),) * rank
    if mode == "NOTSET":
        pads = node.get("pads", [0] * 2 * rank)
        return tuple(zip(pads[:rank], pads[rank:], strict=True))
    padding = []
    for have, out, kernel, stride, dilation in zip(
        size, output, window["kernel"], window["stride"], window["dilation"], strict=True
    ):
        total = max(0, (out - 1) * stride + (kernel - 1) * dilation + 1 - have)
        small, large = total // 2, total - total // 2
        padding.append((small, large) if mode == "SAME_UPPER" else (large, small))
    return tuple(padding)


def _nest(walk: Walk, node: Node, x: str, weight: str, *, bias: bool) -> dict[str, Any]:
    (batch, channels, *size), (out_channels, inner, *_) = walk.shape(node, x), walk.shape(node, weight)
    output = walk.shape(node, node.outputs[0])[2:]
    window = _window(walk, node, weight)
    if channels != inner * window["groups"]:
        expected = inner * window["groups"]
        raise walk.error(node, f"its input has {channels} channels, its weight takes {expected}")
    return {
        **window,
        "batch": batch,
        "in_channels": channels,
        "out_channels": out_channels,
        "input_size": tuple(size),
        "output_size": output,
        "padding": _padding(node, window, size, output),
        "bias": bias,
    }


def convolution(walk: Walk, node: Node) -> None:
    """Conv and ConvInteger (whose third and fourth inputs are zero points, not a bias)."""
    x, weight = node.inputs[:2]
    bias = node.input(2) if node.kind == "Conv" else ""
    walk.emit(Convolution, node, (x, weight, bias), **_nest(walk, node, x, weight, bias=bool(bias)))


def quantized_convolution(walk: Walk, node: Node) -> None:
    """QLinearConv: the integer convolution, then the requantisation of its sums."""
    x, weight, bias = node.inputs[0], node.inputs[3], node.input(8)
    sums = walk.new_tensor(node, "sums", walk.shape(node, node.outputs[0]), format="int32")
    walk.emit(Convolution, node, (x, weight, bias), (sums,), **_nest(walk, node, x, weight, bias=bool(bias)))
    _requantize(walk, node, sums)


def transposed_convolution(walk: Walk, node: Node) -> None:
    """ConvTranspose: the nest of the convolution from its output to its input, computing the former."""
    x, weight = node.inputs[:2]
    (batch, channels, *size), (_, inner, *_) = walk.shape(node, x), walk.shape(node, weight)
    output = walk.shape(node, node.outputs[0])[2:]
    window = _window(walk, node, weight)
    if "output_shape" in node.attributes and node.get("auto_pad", "NOTSET") == "NOTSET":
        # The sizes then decide the padding; ONNX puts the larger half first unless told SAME_UPPER.
        node = Node(**{**node.__dict__, "attributes": {**node.attributes, "auto_pad": "SAME_LOWER"}})
    walk.emit(
        Convolution, node, batch=batch, in_channels=inner * window["groups"], out_channels=channels,
        input_size=output, output_size=tuple(size), padding=_padding(node, window, output, size),
        bias=bool(node.input(2)), computes="input", **window,
    )  # fmt: skip


# --- attention ------------------------------------------------------------------------------------------


def attention(walk: Walk, node: Node) -> None:
    """Attention (opset 23 on) and its cache; padded keys count in full, softcap and score output apart."""
    q, k, v = node.inputs[:3]
    past_k, past_v = node.input(4), node.input(5)
    shapes = [walk.shape(node, name) for name in (q, k, v)]
    if len(shapes[0]) == 3:
        heads = [node.get("q_num_heads", 1), *[node.get("kv_num_heads", 1)] * 2]
        shapes = [(b, h, length, width // h) for (b, length, width), h in zip(shapes, heads, strict=True)]
    (batch, query_heads, query_length, dim), (_, kv_heads, key_length, _), (*_, value_dim) = shapes
    if past_k:
        key_length += walk.shape(node, past_k)[2]
    for position, part, past, new in ((1, "append_key", past_k, k), (2, "append_value", past_v, v)):
        present = node.output(position)
        if past:
            width = dim if position == 1 else value_dim
            shape = (batch, kv_heads, key_length, width)
            present = present or walk.new_tensor(node, part, shape, format=walk.format(new))
            elements = math.prod(shape)
            walk.emit(DataMovement, node, (past, new), (present,), part=part, elements=elements)
        elif present:
            walk.emit(DataMovement, node, (new,), (present,), part=part, elements=walk.size(node, new))
        if present:
            k, v = (present, v) if position == 1 else (k, present)
    scores = batch * query_heads * query_length * key_length
    if node.get("softcap", 0.0):
        walk.emit(Elementwise, node, (q, k), (), part="softcap", operation="tanh", elements=scores)
    if node.output(3):
        walk.emit(DataMovement, node, (q, k), (node.output(3),), part="score_output", elements=scores)
    walk.emit(
        Attention, node, (q, k, v, node.input(3)), node.outputs[:1], batch=batch, heads=query_heads,
        kv_heads=kv_heads, query_length=query_length, key_length=key_length, head_dim=dim,
        value_dim=value_dim, causal=bool(node.get("is_causal", 0)),
    )  # fmt: skip
