"""Operators: counts against loops written out, PyTorch's own counter and hand counts."""

from __future__ import annotations

import json
import math
import re
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from hwsim.operations import PRIMITIVES, add_counts, operation_names, primitive_counts, table
from hwsim.operators import (
    OPERATORS,
    Attention,
    Collective,
    Convolution,
    DataMovement,
    Elementwise,
    Gather,
    Matmul,
    Normalization,
    OpFormats,
    Pooling,
    Reduction,
    Scan,
    Scatter,
    Softmax,
    SpikingLayer,
    Unmodelled,
    op_from_dict,
    op_to_dict,
)
from numerics.errors import InputError

CONV = {
    "name": "c",
    "batch": 2,
    "in_channels": 4,
    "out_channels": 6,
    "input_size": (5, 6),
    "output_size": (3, 3),
    "kernel": (3, 2),
    "stride": (2, 2),
    "padding": ((1, 1), (0, 0)),
    "dilation": (1, 1),
    "groups": 2,
}


def raises(text):
    return pytest.raises(InputError, match=f"^{re.escape(text)}$")


# --- matrices -----------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 4), min_size=4, max_size=4))
def test_a_matmul_multiplies_once_each_turn_of_its_loops(sizes):
    batch, m, n, k = sizes
    assert Matmul(name="a", batch=batch, m=m, n=n, k=k).macs == sum(1 for _ in product(*map(range, sizes)))


def test_a_matmuls_bias_adds_one_a_result():
    assert Matmul(name="a", batch=2, m=3, n=5, k=7, bias=True).operations == {"add": 30}
    assert Matmul(name="a", batch=2, m=3, n=5, k=7).operations == {}


@given(
    rank=st.integers(1, 3),
    groups=st.integers(1, 3),
    channels=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    size=st.integers(4, 6),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 2),
    padding=st.integers(0, 1),
    dilation=st.integers(1, 2),
    transposed=st.booleans(),
)
def test_a_convolution_does_the_macs_that_torch_counts(
    rank, groups, channels, size, kernel, stride, padding, dilation, transposed
):
    inner, outer = channels[0] * groups, channels[1] * groups
    if not transposed and size + 2 * padding < dilation * (kernel - 1) + 1:
        return
    family = torch.nn.modules.conv
    layer = getattr(family, f"Conv{'Transpose' if transposed else ''}{rank}d")(
        inner, outer, kernel, stride=stride, padding=padding, dilation=dilation, groups=groups, device="meta"
    )
    x = torch.empty(2, inner, *[size] * rank, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        try:
            y = layer(x)
        except RuntimeError:  # a transposed convolution whose padding leaves nothing
            return
    # A transposed convolution is the nest of the one that would lead from its result back to its input.
    near, far, before, after = (outer, inner, y, x) if transposed else (inner, outer, x, y)
    op = Convolution(
        name="c",
        batch=2,
        in_channels=near,
        out_channels=far,
        input_size=tuple(before.shape[2:]),
        output_size=tuple(after.shape[2:]),
        kernel=(kernel,) * rank,
        stride=(stride,) * rank,
        padding=((padding, padding),) * rank,
        dilation=(dilation,) * rank,
        groups=groups,
        computes="input" if transposed else "output",
    )
    assert 2 * op.macs == counter.get_total_flops()
    assert op.elements_out == y.numel()


@pytest.mark.parametrize(
    ("computes", "elements"),
    [("output", 2 * 6 * 3 * 3), ("input", 2 * 4 * 5 * 6), ("weight", 6 * 2 * 3 * 2)],
)
def test_the_three_convolutions_of_one_nest(computes, elements):
    op = Convolution(**CONV, computes=computes)
    assert op.macs == Convolution(**CONV).macs == 2 * 9 * 6 * 2 * 6
    assert op.elements_out == elements
    batch, m, n, k = op.matmul_dims
    assert batch == 2
    assert batch * m * n * k == op.macs
    # The result of the matmul is the tensor computed, except that the gradient of the input is not yet folded.
    assert batch * m * n == (2 * 9 * 4 * 6 if computes == "input" else elements)


@given(
    batch=st.integers(1, 2),
    kv_heads=st.integers(1, 2),
    share=st.integers(1, 3),
    query=st.integers(1, 4),
    key=st.integers(1, 4),
    width=st.integers(1, 4),
)
def test_attention_does_the_macs_of_its_two_products(batch, kv_heads, share, query, key, width):
    heads = kv_heads * share
    q = torch.empty(batch, heads, query, width, device="meta", requires_grad=True)
    k, v = (torch.empty(batch, heads, key, width, device="meta", requires_grad=True) for _ in range(2))
    op = Attention(
        name="a",
        batch=batch,
        heads=heads,
        kv_heads=kv_heads,
        query_length=query,
        key_length=key,
        head_dim=width,
        value_dim=width,
    )
    with FlopCounterMode(display=False) as counter:
        out = (q @ k.mT).softmax(-1) @ v
    assert 2 * op.macs == counter.get_total_flops()
    assert op.elements_out == out.numel()
    with FlopCounterMode(display=False) as counter:
        out.sum().backward()
    # The fused backward has not kept the scores and computes them once more.
    again = 2 * op.scores * width
    gradients = Attention(name="g", computes="gradients", **op.dims)
    assert 2 * gradients.macs == counter.get_total_flops() + again


# --- everything else ----------------------------------------------------------------------------------------


def test_softmax_by_hand():
    # Two rows of three: a comparison, a subtraction, an exponential, an addition and a product an element; a
    # division a row.
    counts = Softmax(name="s", operation="softmax", elements=6, rows=2).operations
    assert counts == {"compare": 6, "add": 12, "exp": 6, "multiply": 6, "divide": 2}


def test_softmax_costs_more_than_relu():
    relu = Elementwise(name="r", operation="relu", elements=6).operations
    assert relu == {"compare": 6}
    assert sum(Softmax(name="s", operation="softmax", elements=6, rows=1).operations.values()) > 6


def test_attention_adds_softmax_and_scale():
    op = Attention(name="a", batch=1, heads=2, kv_heads=1, query_length=3, key_length=5, head_dim=4, value_dim=4)
    softmax = Softmax(name="s", operation="softmax", elements=30, rows=6).operations
    assert op.operations == add_counts(softmax, {"multiply": 30})


@pytest.mark.parametrize(
    ("op", "elements", "operations"),
    [
        (Elementwise(name="a", operation="add", elements=5), 5, {"add": 5}),
        (Reduction(name="a", operation="mean", elements=12, rows=3), 3, {"add": 12, "multiply": 3}),
        (Reduction(name="a", operation="max", elements=12, rows=3), 3, {"compare": 12}),
        (Pooling(name="a", operation="pool_max", elements=4, window=9), 4, {"compare": 36}),
        (
            Pooling(name="a", operation="pool_average", elements=4, window=9),
            4,
            {"add": 36, "multiply": 4},
        ),
        (Gather(name="a", elements=12, indices=3), 12, {"move": 12}),
        (Scatter(name="a", elements=12, indices=3), 12, {"move": 12}),
        (Scatter(name="a", elements=12, indices=3, accumulate=True), 12, {"move": 12, "add": 12}),
        (Scan(name="a", operation="cumulative", length=5, width=4), 20, {"add": 20}),
        (DataMovement(name="a", elements=7), 7, {"move": 7}),
        (Collective(name="a", operation="all_reduce", elements=7, participants=4), 7, {}),
        (Unmodelled(name="a"), 0, {}),
    ],
)
def test_counts_by_hand(op, elements, operations):
    assert op.macs == 0
    assert op.elements_out == elements
    assert op.operations == operations


def test_normalization_counts_its_statistics_a_row():
    one = Normalization(name="n", operation="layer_norm", elements=64, rows=1).operations
    eight = Normalization(name="n", operation="layer_norm", elements=64, rows=8).operations
    assert (one["sqrt"], eight["sqrt"]) == (1, 8)
    assert one["multiply_add"] == eight["multiply_add"] == 128
    assert Normalization(name="n", operation="layer_norm", elements=64, rows=8).row_length == 8


def test_a_spiking_layer_counts_updates_and_synapses():
    op = SpikingLayer(name="s", neurons=10, sources=20, fan_out=3, time_steps=4, event_rate=0.25)
    assert op.neuron_updates == 40
    assert op.synaptic_operations == 20 * 3  # 20 sources × 4 steps × 1/4 spikes × 3 synapses
    silent = SpikingLayer(name="s", neurons=10, sources=20, fan_out=3, time_steps=4, event_rate=0.0)
    assert silent.synaptic_operations == 0
    difference = op.operations["add"] - silent.operations["add"]
    assert difference == op.synaptic_operations


# --- the operation table ------------------------------------------------------------------------------------


def test_every_row_of_the_table_counts_something_known():
    for (name, per), counts in table().items():
        assert per in ("element", "row"), name
        assert set(counts) <= set(PRIMITIVES)
        assert all(n > 0 for n in counts.values())
    assert all((name, "element") in table() for name in operation_names())


@given(st.sampled_from(sorted(operation_names())), st.integers(0, 100), st.integers(0, 10))
def test_counts_grow_with_elements_and_rows(name, elements, rows):
    counts = primitive_counts(name, elements, rows)
    double = primitive_counts(name, 2 * elements, 2 * rows)
    assert double == {primitive: 2 * n for primitive, n in counts.items()}


def test_the_sigmoid_family_is_made_of_the_same_parts():
    # silu(x) = x · sigmoid(x): one product more; tanh needs a scale and an offset around the same quotient.
    sigmoid, silu = primitive_counts("sigmoid", 1), primitive_counts("silu", 1)
    assert silu == add_counts(sigmoid, {"multiply": 1})


def test_an_unknown_operation_names_the_nearest():
    with pytest.raises(InputError, match=r"^operation: unknown name 'sofmax'; did you mean 'softmax'"):
        primitive_counts("sofmax", 1)


# --- what is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, -1, 2.0, "3", None, True])
def test_a_matrix_side_is_a_whole_number_above_zero(size):
    with raises(f"op 'a': m must be an integer ≥ 1, got {size!r}"):
        Matmul(name="a", m=size, n=1, k=1)


@pytest.mark.parametrize("size", [-1, 2.5, "3", False])
def test_elements_are_a_whole_number(size):
    with raises(f"op 'a': elements must be an integer ≥ 0, got {size!r}"):
        Elementwise(name="a", operation="add", elements=size)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"kernel": (3, 0)}, "op 'c': kernel must hold integers ≥ 1, got (3, 0)"),
        ({"padding": (1, 1)}, "op 'c': padding must hold pairs of integers, got (1, 1)"),
        ({"groups": 4}, "op 'c': out_channels (6) must be a multiple of groups (4)"),
        ({"groups": 3}, "op 'c': in_channels (4) must be a multiple of groups (3)"),
        (
            {"kernel": (3,)},
            "op 'c': a convolution's sizes must all have the same 1 to 3 spatial dimensions",
        ),
        (
            {"computes": "weights"},
            "op 'c': computes: unknown name 'weights'; did you mean 'weight' or 'output'?",
        ),
        ({"bias": 1}, "op 'c': bias must be true or false, got 1"),
    ],
)
def test_a_wrong_convolution_is_named(change, text):
    with pytest.raises(InputError, match="^" + re.escape(text.partition("; ")[0])):
        Convolution(**CONV | change)


def test_other_wrong_fields_are_named():
    with raises("op 'a': operation: unknown name 'sofmax'; did you mean 'softmax' or 'log_softmax' or 'max'?"):
        Softmax(name="a", operation="sofmax", elements=1, rows=1)
    with raises("op 'a': phase: unknown name 'forwards'; did you mean 'forward' or 'backward'?"):
        Unmodelled(name="a", phase="forwards")
    with raises("op 'a': heads (3) must be a multiple of kv_heads (2)"):
        Attention(name="a", batch=1, heads=3, kv_heads=2, query_length=1, key_length=1, head_dim=1, value_dim=1)
    with raises("op 's': event_rate must be ≥ 0 spikes a step, got -0.5"):
        SpikingLayer(name="s", neurons=1, sources=1, fan_out=1, time_steps=1, event_rate=-0.5)


# --- plain data ---------------------------------------------------------------------------------------------

ONE_OF_EACH = [
    Matmul(name="a", m=1, n=2, k=3, batch=4, bias=True, inputs=("x", "w", "b"), outputs=("y",), module="fc"),
    Convolution(**CONV, computes="weight", phase="backward", source="aten.convolution_backward"),
    Attention(
        name="a",
        batch=1,
        heads=4,
        kv_heads=2,
        query_length=3,
        key_length=5,
        head_dim=6,
        value_dim=7,
        causal=True,
    ),
    Elementwise(name="a", operation="gelu", elements=0, formats=OpFormats(("bf16", "int8"), "fp32")),
    Reduction(name="a", operation="sum", elements=4, rows=2),
    Normalization(name="a", operation="rms_norm", elements=4, rows=2, phase="update"),
    Softmax(name="a", operation="log_softmax", elements=4, rows=2),
    Pooling(name="a", operation="pool_max", elements=4, window=9),
    Gather(name="a", elements=4, indices=2),
    Scatter(name="a", elements=4, indices=2, accumulate=True),
    Scan(name="a", operation="selective_scan", length=4, width=2),
    DataMovement(name="a", elements=4, operation="cast"),
    Collective(name="a", operation="all_to_all", elements=4, participants=8),
    SpikingLayer(name="a", neurons=4, sources=3, fan_out=2, time_steps=5, event_rate=0.5),
    Unmodelled(name="a", inputs=("x",), outputs=("y", "z")),
]


def test_one_of_each_is_here():
    assert {op.kind for op in ONE_OF_EACH} == set(OPERATORS)


@pytest.mark.parametrize("op", ONE_OF_EACH, ids=lambda op: op.kind)
def test_plain_data_reads_back_the_same(op):
    assert op_from_dict(json.loads(json.dumps(op_to_dict(op)))) == op


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"kind": "matmull", "name": "a"}, "op: kind: unknown name 'matmull'; did you mean 'matmul'?"),
        (
            {"kind": "matmul", "name": "a", "m": 1},
            "op 'a' (matmul): missing 2 required keyword-only arguments: 'n' and 'k'",
        ),
        (
            {"kind": "matmul", "name": "a", "m": 1, "n": 1, "k": 1, "batc": 1},
            "op 'a': field: unknown name 'batc'; did you mean 'batch' or 'bias'?",
        ),
        ({"kind": "unmodelled", "name": 3}, "op 3: name must be text, got 3"),
        (
            {"kind": "unmodelled", "name": "a", "inputs": "x"},
            "op 'a': inputs must be a list of tensor names, got 'x'",
        ),
        (
            {"kind": "unmodelled", "name": "a", "formats": {"operands": ["fp32"]}},
            "op 'a': formats must hold operands (a list) and accumulator, got {'operands': ['fp32']}",
        ),
        ([], "op: expected a mapping with kind and name, got []"),
    ],
)
def test_wrong_data_is_named(data, text):
    with raises(text):
        op_from_dict(data)


def test_formats_read_as_a_short_text():
    assert str(OpFormats(("int8", "int8", "int32"), "int32")) == "int8→int32"
    assert str(OpFormats(("bf16", "int8"), "fp32")) == "bf16×int8→fp32"
    assert str(OpFormats(("fp32", "fp32"), "fp32")) == "fp32"


def test_dims_are_the_loop_nest():
    assert Matmul(name="a", m=1, n=2, k=3, bias=True).dims == {"m": 1, "n": 2, "k": 3, "batch": 1}
    nest = Convolution(**CONV).dims
    assert math.prod(nest["kernel"]) == 6
    assert "bias" not in nest
    assert "computes" not in nest
