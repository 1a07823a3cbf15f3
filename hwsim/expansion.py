"""Composite operators written out as the matmuls, convolutions, row and element operators they consist of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any

from hwsim.operators import (
    Attention,
    Convolution,
    Elementwise,
    Matmul,
    Op,
    OpFormats,
    Reduction,
    Scan,
    Softmax,
    SpikingLayer,
)

if TYPE_CHECKING:
    from hwsim.workload import Tensor

NewTensor = tuple[Any, ...]
"""Name, shape, format and role of a tensor; behind them the owner of its memory, if it may be a view."""


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


def expand_spiking(op: SpikingLayer, tensors: Mapping[str, Tensor]) -> tuple[list[Op], list[NewTensor]]:
    """One spiking layer on a machine without events, and its tensors.

    Every synapse is computed in every step, spike or none. All steps of a projection are one product with ``time_steps`` times
    the rows (or images), as long as its spikes are known beforehand; those of a ``recurrent`` one are computed step by step, each
    with the update of the neurons that the next one waits for. Otherwise the updates of all steps are one scan. Spikes lie in
    memory as activations, in the format of the neurons' state.

    A layer that names no tensors stays as it is, counted by its events.
    """
    chains = op.dense
    if not chains and op.sources:
        chains = ((Matmul(name="product", m=1, n=op.neurons, k=op.sources),),)
    if not op.outputs or len(op.inputs) < 2 * len(chains) or not op.time_steps:
        return [op], []
    stored = {name: tensors[name].format for name in (*op.inputs, *op.outputs)}
    consumed = dict(zip(op.inputs, op.formats.operands, strict=True)) if op.formats else stored
    state = op.inputs[2 * len(chains) : 2 * len(chains) + 1]
    measure = state or op.inputs[1:2]
    between = consumed[measure[0]] if measure else stored[op.outputs[0]]
    kept = stored[measure[0]] if measure else between
    accumulator = op.formats.accumulator if op.formats else "fp32"
    spikes = (*op.inputs[: 2 * len(chains) : 2], op.outputs[0])
    consumed |= dict.fromkeys(spikes, between)
    parts: list[Op] = []
    new: dict[str, NewTensor] = {
        name: (name, tensors[name].shape, kept, tensors[name].role, tensors[name].storage) for name in spikes
    }

    def add(step: Op, name: str, inputs: tuple[str, ...], output: str) -> None:
        formats = OpFormats(tuple(consumed.get(i, between) for i in inputs), accumulator) if op.formats else None
        parts.append(
            replace(
                step, name=f"{op.name}/{name}", inputs=inputs, outputs=(output,), module=op.module, phase=op.phase,
                source=op.source, formats=formats,
            )
        )  # fmt: skip

    def tensor(suffix: str, shape: tuple[int, ...]) -> str:
        new[f"{op.name}.{suffix}"] = (f"{op.name}.{suffix}", shape, kept, "activation", "")
        return f"{op.name}.{suffix}"

    def row(name: str, step: int) -> str:
        """One step of a tensor."""
        view = f"{name}[{step}]"
        owner = new[name][4] if name in new else tensors[name].storage
        shape = new[name][1] if name in new else tensors[name].shape
        new[view] = (view, (1, prod(shape) // op.time_steps), kept, "activation", owner or name)
        return view

    def current(number: int, steps: int, spike: str, suffix: str) -> str:
        """What a projection brings in ``steps`` steps."""
        for place, one in enumerate(chains[number]):
            step = _times(one, steps)
            made = tensor(f"current{number}.{place}{suffix}", (steps, step.elements_out // steps))
            weights = (op.inputs[2 * number + 1],) if step.is_matrix else ()
            add(step, f"{one.kind}{number}.{place}{suffix}", (spike, *weights), made)
            spike = made
        return spike

    def update(currents: list[str], steps: int, output: str, suffix: str) -> None:
        """The neurons of ``steps`` steps; with a state, one after another."""
        elements = steps * op.neurons
        total, *others = currents or [""]
        for place, one in enumerate(others):
            total, addend = tensor(f"sum{place}{suffix}", (steps, op.neurons)), total
            add(Elementwise(name="add", operation="add", elements=elements), f"add{place}{suffix}", (addend, one), total)
        neurons: Op = Elementwise(name="neurons", operation="neuron_update", elements=elements)
        if state and steps > 1:
            neurons = Scan(name="neurons", operation="neuron_update", length=steps, width=op.neurons)
        add(neurons, f"neurons{suffix}", (*((total,) if total else ()), *state), output)

    steps = op.time_steps
    before = [i for i in range(len(chains)) if i not in op.recurrent]
    known = [current(i, steps, op.inputs[2 * i], "") for i in before]
    if len(before) == len(chains):
        update(known, steps, op.outputs[0], "")
        return parts, list(new.values())
    for t in range(steps):
        suffix = f"[{t}]"
        arrived = [row(name, t) for name in known]
        # A layer's own spikes are those of the step before; there are none before the first, which takes as long.
        own = [max(0, t - 1) if op.inputs[2 * i] == op.outputs[0] else t for i in op.recurrent]
        arrived += [current(i, 1, row(op.inputs[2 * i], step), suffix) for i, step in zip(op.recurrent, own, strict=True)]
        update(arrived, 1, row(op.outputs[0], t), suffix)
    return parts, list(new.values())


def _times(op: Op, steps: int) -> Op:
    """An operator of one step for so many."""
    if isinstance(op, Matmul):
        return replace(op, m=op.m * steps)
    if isinstance(op, Convolution):
        return replace(op, batch=op.batch * steps)
    assert isinstance(op, Reduction)
    return replace(op, elements=op.elements * steps, rows=op.rows * steps)
