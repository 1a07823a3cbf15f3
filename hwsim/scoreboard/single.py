"""One operator as a workload, by its name and sizes: what measurements of single kernels are held against."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Mapping
from typing import Any

from hwsim.operators import LARGEST, Attention, Convolution, Elementwise, Matmul, Normalization, Op, Softmax
from hwsim.workload import Role, Tensor, Workload
from numerics.errors import InputError, unknown_name

Sizes = Mapping[str, int]
Parts = tuple[type[Op], dict[str, Any], list[tuple[tuple[int, ...], Role]], tuple[int, ...]]
"""Class and fields of an operator, (shape, role) of each operand, shape of the result."""


def _matmul(s: Sizes) -> Parts:
    batch, m, n, k = s["batch"], s["m"], s["n"], s["k"]
    lead = (batch,) if batch > 1 else ()
    operands: list[tuple[tuple[int, ...], Role]] = [((*lead, m, k), "input"), ((*lead, k, n), "weight")]
    return Matmul, {"m": m, "n": n, "k": k, "batch": batch}, operands, (*lead, m, n)


def _convolution(s: Sizes) -> Parts:
    kernel, stride, padding, groups = s["kernel"], s["stride"], s["padding"], s["groups"]
    size = s["height"], s["width"]
    result = tuple((edge + 2 * padding - kernel) // stride + 1 for edge in size)
    if min(result) < 1:
        raise InputError(f"convolution: kernel {kernel} does not fit {size[0]}×{size[1]} with padding {padding}")
    if s["in_channels"] % groups:
        raise InputError(f"convolution: in_channels ({s['in_channels']}) must be a multiple of groups ({groups})")
    fields = {
        "batch": s["batch"], "in_channels": s["in_channels"], "out_channels": s["out_channels"], "input_size": size,
        "output_size": result, "kernel": (kernel, kernel), "stride": (stride, stride), "groups": groups,
        "padding": ((padding, padding), (padding, padding)), "dilation": (1, 1),
    }  # fmt: skip
    image: tuple[int, ...] = (s["batch"], s["in_channels"], *size)
    weight: tuple[int, ...] = (s["out_channels"], s["in_channels"] // groups, kernel, kernel)
    return Convolution, fields, [(image, "input"), (weight, "weight")], (s["batch"], s["out_channels"], *result)


def _attention(s: Sizes) -> Parts:
    kv_heads = s["kv_heads"] or s["heads"]
    query = (s["batch"], s["heads"], s["query_length"], s["head_dim"])
    key = (s["batch"], kv_heads, s["key_length"], s["head_dim"])
    fields = {
        "batch": s["batch"], "heads": s["heads"], "kv_heads": kv_heads, "query_length": s["query_length"],
        "key_length": s["key_length"], "head_dim": s["head_dim"], "value_dim": s["head_dim"], "causal": bool(s["causal"]),
    }  # fmt: skip
    return Attention, fields, [(query, "input"), (key, "input"), (key, "input")], query


def _rows(kind: type[Op], operation: str) -> Callable[[Sizes], Parts]:
    def parts(s: Sizes) -> Parts:
        m, n = s["m"], s["n"]
        operands: list[tuple[tuple[int, ...], Role]] = [((m, n), "input")]
        if operation == "layer_norm":
            operands += [((n,), "weight"), ((n,), "weight")]
        return kind, {"operation": operation, "elements": m * n, "rows": m}, operands, (m, n)

    return parts


def _elementwise(operation: str, operands: int) -> Callable[[Sizes], Parts]:
    def parts(s: Sizes) -> Parts:
        shape = (s["n"],)
        return Elementwise, {"operation": operation, "elements": s["n"]}, [(shape, "input")] * operands, shape

    return parts


_MAKERS: dict[str, tuple[Callable[[Sizes], Parts], tuple[str, ...], dict[str, int]]] = {
    "matmul": (_matmul, ("m", "n", "k"), {"batch": 1}),
    "convolution": (
        _convolution,
        ("batch", "in_channels", "out_channels", "height", "width", "kernel"),
        {"stride": 1, "padding": 0, "groups": 1},
    ),
    "attention": (
        _attention,
        ("batch", "heads", "query_length", "key_length", "head_dim"),
        {"kv_heads": 0, "causal": 0},
    ),
    "softmax": (_rows(Softmax, "softmax"), ("m", "n"), {}),
    "layer_norm": (_rows(Normalization, "layer_norm"), ("m", "n"), {}),
    "gelu": (_elementwise("gelu", 1), ("n",), {}),
    "relu": (_elementwise("relu", 1), ("n",), {}),
    "silu": (_elementwise("silu", 1), ("n",), {}),
    "add": (_elementwise("add", 2), ("n",), {}),
    "multiply": (_elementwise("multiply", 2), ("n",), {}),
}

OPERATOR_SIZES: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    name: (needed, tuple(optional)) for name, (_, needed, optional) in _MAKERS.items()
}
"""Operator → the sizes it needs, and those that may be left out."""


LARGEST_SIZE = 2**40
"""Of one dimension: beyond any machine's memory."""


def single_operator(operator: str, sizes: Mapping[str, int], *, density: float | None = None) -> Workload:
    """A workload of one operator, in fp32 until a recipe is applied.

    Args:
        operator: a name of ``OPERATOR_SIZES``.
        sizes: size → value; ``m`` rows and ``n`` elements a row for softmax and layer_norm, ``n`` elements for the
            element-wise ones, 0 or 1 for ``causal``.
        density: share of non-zero elements of its first operand.

    Raises:
        InputError: an unknown operator or size, one that is missing, below one or above 2^40;
            more work or a larger tensor than 2^56 in all.
    """
    if operator not in _MAKERS:
        raise unknown_name("operator", operator, _MAKERS)
    make, needed, optional = _MAKERS[operator]
    for name in sizes:
        if name not in needed and name not in optional:
            raise unknown_name(f"{operator}: size", name, (*needed, *optional))
    for name in needed:
        if name not in sizes:
            raise InputError(f"{operator}: size {name!r} is missing (needs {', '.join(needed)})")
    for name, value in sizes.items():
        least = optional.get(name, 1) and 1
        if name == "padding":
            least = 0
        expected, most = f"an integer from {least} to 2^40", LARGEST_SIZE
        if name == "causal":
            expected, most = "0 or 1", 1
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise InputError(f"{operator}: {name}: expected {expected}, got {reprlib.repr(value)}")
    cls, fields, operands, result = make({**optional, **sizes})
    sized = [("elements of a tensor", math.prod(shape)) for shape in (*(shape for shape, _ in operands), result)]

    def check(amounts: list[tuple[str, int]]) -> None:
        for what, amount in amounts:
            if amount > LARGEST:
                shown = ", ".join(f"{name} {value}" for name, value in sizes.items())
                raise InputError(f"{operator}: sizes {shown}: expected at most 2^56 {what}, got {amount:.3g}")

    if not cls.is_matrix:  # its own elements are a size of it
        check(sized)
    op = cls(name=operator, inputs=tuple(f"operand{i}" for i in range(len(operands))), outputs=("result",), **fields)
    check([("MACs", op.macs), *sized])
    tensors = {
        f"operand{i}": Tensor(f"operand{i}", shape, "fp32", role, density if i == 0 else None)
        for i, (shape, role) in enumerate(operands)
    }
    tensors["result"] = Tensor("result", result, "fp32", "activation")
    given = tuple(name for name, tensor in tensors.items() if tensor.role == "input")
    return Workload(operator, (op,), tensors, given, ("result",), metadata={"operator": operator, **sizes})
