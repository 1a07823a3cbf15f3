"""Composite operators written out as the matmuls and row operators they consist of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hwsim.operators import Attention, Elementwise, Matmul, Op, OpFormats, Softmax

if TYPE_CHECKING:
    from hwsim.workload import Tensor

NewTensor = tuple[str, tuple[int, ...], str, Any]


def expand_attention(op: Attention, tensors: Mapping[str, Tensor]) -> tuple[list[Op], list[NewTensor]]:
    """The operators of one attention, and the tensors between them as (name, shape, format, role).

    The query heads that share one key/value head are stacked along m, so that its keys and values are read once:
    batch = batch · kv_heads, m = (heads / kv_heads) · query_length.
    """
    b = op.batch * op.kv_heads
    m = op.heads // op.kv_heads * op.query_length
    key, d, dv = op.key_length, op.head_dim, op.value_dim
    rows = b * m
    scores = rows * key
    offset = 0 if op.computes == "output" else 1
    stored = tensors[op.inputs[offset]].format
    role = "activation" if op.phase == "forward" else "gradient"
    parts: list[Op] = []
    new: list[NewTensor] = []
    accumulator = op.formats.accumulator if op.formats else "fp32"
    consumed = dict(zip(op.inputs, op.formats.operands, strict=True)) if op.formats else {}
    between = consumed.get(op.inputs[offset], stored)

    def tensor(suffix: str) -> str:
        name = f"{op.name}.{suffix}"
        new.append((name, (b, m, key), between if op.formats else stored, role))
        return name

    def add(cls: type[Op], suffix: str, inputs: tuple[str, ...], outputs: tuple[str, ...], **dims: Any) -> None:
        formats = None
        if op.formats:
            formats = OpFormats(tuple(consumed.get(i, between) for i in inputs), accumulator)
        parts.append(
            cls(
                name=f"{op.name}/{suffix}",
                inputs=inputs,
                outputs=outputs,
                module=op.module,
                phase=op.phase,
                source=op.source,
                formats=formats,
                **dims,
            )
        )

    def scores_of(q: str, k: str, masks: tuple[str, ...] = ()) -> str:
        raw, scaled, probabilities = tensor("scores"), tensor("scaled"), tensor("probabilities")
        add(Matmul, "scores", (q, k), (raw,), batch=b, m=m, n=key, k=d)
        add(Elementwise, "scale", (raw,), (scaled,), operation="multiply", elements=scores)
        for mask in masks:
            unmasked, scaled = scaled, tensor("masked")
            add(Elementwise, "mask", (unmasked, mask), (scaled,), operation="add", elements=scores)
        add(Softmax, "softmax", (scaled,), (probabilities,), operation="softmax", elements=scores, rows=rows)
        return probabilities

    if op.computes == "output":
        q, k, v = op.inputs[:3]
        probabilities = scores_of(q, k, op.inputs[3:])
        add(Matmul, "values", (probabilities, v), op.outputs[:1], batch=b, m=m, n=dv, k=key)
        return parts, new

    grad, q, k, v = op.inputs[:4]
    grad_q, grad_k, grad_v = op.outputs[:3]
    probabilities = scores_of(q, k)
    grad_probabilities, grad_scores, grad_scaled = (
        tensor("grad_probabilities"),
        tensor("grad_scores"),
        tensor("grad_scaled"),
    )
    add(Matmul, "grad_value", (probabilities, grad), (grad_v,), batch=b, m=key, n=dv, k=m)
    add(Matmul, "grad_probabilities", (grad, v), (grad_probabilities,), batch=b, m=m, n=key, k=dv)
    add(
        Softmax, "softmax_backward", (grad_probabilities, probabilities), (grad_scores,),
        operation="softmax_backward", elements=scores, rows=rows,
    )  # fmt: skip
    add(Elementwise, "grad_scale", (grad_scores,), (grad_scaled,), operation="multiply", elements=scores)
    add(Matmul, "grad_query", (grad_scaled, k), (grad_q,), batch=b, m=m, n=d, k=key)
    add(Matmul, "grad_key", (grad_scaled, q), (grad_k,), batch=b, m=key, n=d, k=m)
    return parts, new
