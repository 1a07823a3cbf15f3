"""What each family of ONNX operators costs, one small model at a time."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx_models import conformance_models, ints, node, one, value, weight, write
from torch.utils.flop_counter import FlopCounterMode

from hwsim.operators import Attention, Convolution, Elementwise, Matmul, Pooling
from hwsim.tracing.onnx import load

# --- convolutions -------------------------------------------------------------------------------------------


def test_convolution_in_one_and_three_dimensions(tmp_path):
    op = one(tmp_path, "Conv", [[1, 4, 20]], [1, 6, 9], [weight("w", 6, 2, 3)], group=2, strides=[2]).ops[0]
    assert (op.kernel, op.stride, op.groups, op.output_size, op.macs) == ((3,), (2,), 2, (9,), 9 * 6 * 2 * 3)
    op = one(tmp_path, "Conv", [[2, 1, 4, 5, 6]], [2, 3, 3, 4, 5], [weight("w", 3, 1, 2, 2, 2)]).ops[0]
    assert op.macs == 2 * 3 * 60 * 8


@pytest.mark.parametrize(
    ("auto_pad", "padding"),
    [("SAME_UPPER", ((0, 1), (1, 1))), ("SAME_LOWER", ((1, 0), (1, 1))), ("VALID", ((0, 0), (0, 0)))],
)
def test_auto_pad(tmp_path, auto_pad, padding):
    out = [4, 4] if auto_pad != "VALID" else [3, 3]
    w = weight("w", 1, 1, 3, 3)
    op = one(tmp_path, "Conv", [[1, 1, 8, 7]], [1, 1, *out], [w], strides=[2, 2], auto_pad=auto_pad).ops[0]
    assert op.padding == padding
    assert op.output_size == tuple(out)


def test_transposed_convolution_is_the_nest_of_its_inverse(tmp_path):
    w = weight("w", 8, 5, 4, 4)
    kwargs = {"strides": [2, 2], "pads": [1, 1, 1, 1]}
    workload = one(tmp_path, "ConvTranspose", [[2, 8, 7, 7]], [2, 5, 14, 14], [w, weight("b", 5)], **kwargs)
    op = workload.ops[0]
    assert isinstance(op, Convolution)
    assert (op.computes, op.in_channels, op.out_channels, op.bias) == ("input", 5, 8, True)
    assert (op.input_size, op.output_size) == ((14, 14), (7, 7))
    with FlopCounterMode(display=False) as counter:
        torch.nn.ConvTranspose2d(8, 5, 4, stride=2, padding=1)(torch.zeros(2, 8, 7, 7))
    assert workload.flops == counter.get_total_flops()
    assert op.elements_out == 2 * 5 * 14 * 14


def test_quantised_operators_split_into_sums_and_requantisation(tmp_path):
    scale, zero = numpy_helper.from_array(np.float32(0.1), "s"), weight("z", dtype=np.int8)
    path = write(
        tmp_path,
        [
            node("QuantizeLinear", "x s z", "q"),
            node("QLinearConv", "q s z w s z s z b", "c"),
            node("DequantizeLinear", "v s z", "vf"),
            node("DequantizeLinear", "c s z", "d"),
            node("MatMul", "d vf", "y"),
        ],
        [value("x", [1, 3, 6, 6])],
        [value("y", [1, 2, 4, 7])],
        [
            scale, zero, weight("w", 2, 3, 3, 3, dtype=np.int8), weight("b", 2, dtype=np.int32),
            weight("v", 4, 7, dtype=np.int8),
        ],
    )  # fmt: skip
    workload = load(path)
    assert [(op.kind, getattr(op, "operation", "")) for op in workload.ops] == [
        ("elementwise", "quantize"), ("convolution", ""), ("elementwise", "quantize"),
        ("elementwise", "dequantize"), ("elementwise", "dequantize"), ("matmul", ""),
    ]  # fmt: skip
    assert workload.ops[1].macs == 2 * 16 * 27
    formats = {name: (t.format, t.role) for name, t in workload.tensors.items()}
    assert formats["w"] == ("int8", "weight")
    assert formats["b"] == ("int32", "weight")
    assert formats["v"] == ("int8", "weight")
    assert formats["QLinearConv_1.sums"] == ("int32", "activation")


# --- matmuls ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "batch", "m", "n", "k"),
    [
        ((5, 3), (3, 4), 1, 5, 4, 3),
        ((2, 6, 5, 3), (3, 4), 1, 60, 4, 3),
        ((2, 6, 5, 3), (1, 1, 3, 4), 1, 60, 4, 3),
        ((2, 6, 5, 3), (2, 6, 3, 4), 12, 5, 4, 3),
        ((2, 1, 5, 3), (6, 3, 4), 12, 5, 4, 3),
        ((5, 3), (7, 3, 4), 7, 5, 4, 3),
        ((3,), (3, 4), 1, 1, 4, 3),
        ((2, 5, 3), (3,), 1, 10, 1, 3),
    ],
)
def test_matmul_broadcasting(tmp_path, a, b, batch, m, n, k):
    out = np.matmul(np.zeros(a), np.zeros(b)).shape
    op = one(tmp_path, "MatMul", [a, b], out).ops[0]
    assert op == Matmul(name="MatMul_0", inputs=("x0", "x1"), outputs=("y",), source="onnx.MatMul", batch=batch, m=m, n=n, k=k)
    assert op.elements_out == math.prod(out)


@pytest.mark.parametrize(
    ("equation", "shapes", "out", "kind", "macs"),
    [
        ("bhqd,bhkd->bhqk", [[2, 3, 5, 4], [2, 3, 6, 4]], [2, 3, 5, 6], "matmul", 2 * 3 * 5 * 6 * 4),
        ("ij,jk->ik", [[5, 4], [4, 6]], [5, 6], "matmul", 120),
        ("ij,ij->ij", [[5, 4], [5, 4]], [5, 4], "elementwise", 0),
        ("ij->ji", [[5, 4]], [4, 5], "data_movement", 0),
        ("ij->i", [[5, 4]], [5], "reduction", 0),
        ("ij,jk->k", [[5, 4], [4, 6]], [6], "unmodelled", 0),
    ],
)
def test_einsum(tmp_path, equation, shapes, out, kind, macs):
    op = one(tmp_path, "Einsum", shapes, out, equation=equation).ops[0]
    assert (op.kind, op.macs) == (kind, macs)


def test_gemm_transposes(tmp_path):
    op = one(tmp_path, "Gemm", [[3, 5], [4, 3], [4]], [5, 4], transA=1, transB=1).ops[0]
    assert (op.m, op.n, op.k, op.bias) == (5, 4, 3, True)


@pytest.mark.skipif(onnx.defs.onnx_opset_version() < 23, reason="Attention came with opset 23")
def test_attention_appends_to_its_cache(tmp_path):
    made = helper.make_node("Attention", ["q", "k", "v", "", "pk", "pv"], ["y", "nk", "nv"], q_num_heads=8, kv_num_heads=2)
    path = write(
        tmp_path,
        [made],
        [
            value("q", [1, 3, 128]), value("k", [1, 3, 32]), value("v", [1, 3, 32]),
            value("pk", [1, 2, 10, 16]), value("pv", [1, 2, 10, 16]),
        ],
        [value("y", [1, 3, 128]), value("nk", [1, 2, 13, 16]), value("nv", [1, 2, 13, 16])],
        opset=23,
    )  # fmt: skip
    workload = load(path)
    op = workload.ops[-1]
    assert isinstance(op, Attention)
    assert (op.heads, op.kv_heads, op.query_length, op.key_length, op.head_dim) == (8, 2, 3, 13, 16)
    assert op.inputs == ("q", "nk", "nv")
    assert workload.macs == workload.expanded().macs == 8 * 3 * 13 * 32
    assert [o.kind for o in workload.ops[:2]] == ["data_movement"] * 2


def test_attention_does_the_macs_of_onnx_s_own_expansion(tmp_path):
    """ONNX's conformance suite holds each attention twice: as one node, and as the function's matmuls."""
    cases = {name: m for name, m in conformance_models().items() if name.startswith("test_attention")}
    pairs = [name for name in cases if f"{name}_expanded" in cases]
    if not pairs:
        pytest.skip("this onnx has no Attention")
    different = []
    for name in pairs:
        macs = []
        for model in (cases[name], cases[f"{name}_expanded"]):
            onnx.save(model, tmp_path / "case.onnx")
            macs.append(load(tmp_path / "case.onnx").expanded().macs)
        if macs[0] != macs[1] or not macs[0]:
            different.append((name, *macs))
    assert not different
    assert len(pairs) > 50


# --- recurrent layers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
@pytest.mark.parametrize("directions", [1, 2])
def test_recurrent_layers_are_their_matmuls(tmp_path, kind, gates, directions):
    length, batch, width, hidden = 5, 2, 6, 8
    initializers = [
        weight("w", directions, gates * hidden, width), weight("r", directions, gates * hidden, hidden),
        weight("b", directions, 2 * gates * hidden),
    ]  # fmt: skip
    direction = "bidirectional" if directions == 2 else "forward"
    made = node(kind, "x w r b", "y last", hidden_size=hidden, direction=direction)
    outputs = [value("y", [length, directions, batch, hidden]), value("last", [directions, batch, hidden])]
    workload = load(write(tmp_path, [made], [value("x", [length, batch, width])], outputs, initializers))
    assert workload.macs == directions * length * batch * gates * hidden * (width + hidden)
    projections = [op for op in workload.ops if op.name.startswith(f"{kind}_0/projection")]
    assert {(op.m, op.n, op.k) for op in projections} == {(length * batch, gates * hidden, width)}
    assert len(projections) == directions
    # A step waits for the one before it: at least a matmul and a cell each.
    assert workload.depth >= 2 * length
    assert {t.owner for t in workload.tensors.values() if t.role == "weight"} == {"w", "r", "b"}
    assert workload.parameters == sum(math.prod(i.dims) for i in initializers)
    assert workload.bytes_by_role()["weight"] == 4 * workload.parameters


def test_lstm_cell_state_passes_from_step_to_step(tmp_path):
    made = node("LSTM", "x w r", "y", hidden_size=4)
    initializers = [weight("w", 1, 16, 3), weight("r", 1, 16, 4)]
    path = write(tmp_path, [made], [value("x", [2, 1, 3])], [value("y", [2, 1, 1, 4])], initializers)
    second = next(op for op in load(path).ops if op.name == "LSTM_0/cell.1")
    assert "LSTM_0.cell.0" in second.inputs
    assert second.operations == {"add": 36, "multiply": 8, "multiply_add": 12, "divide": 20, "exp": 20}


def test_a_gru_that_resets_first_does_the_same_macs(tmp_path):
    initializers = [weight("w", 1, 12, 3), weight("r", 1, 12, 4)]
    macs = set()
    for late in (0, 1):
        made = node("GRU", "x w r", "y", hidden_size=4, linear_before_reset=late)
        path = write(tmp_path, [made], [value("x", [2, 1, 3])], [value("y", [2, 1, 1, 4])], initializers)
        macs.add(load(path).macs)
    assert macs == {2 * 12 * 7}


# --- everything else ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "shapes", "out", "attributes", "expected"),
    [
        ("Relu", [[2, 3]], [2, 3], {}, {"compare": 6}),
        ("Sigmoid", [[2, 3]], [2, 3], {}, {"add": 6, "divide": 6, "exp": 6}),
        ("Add", [[2, 3], [3]], [2, 3], {}, {"add": 6}),
        ("Sum", [[2, 3], [2, 3], [2, 3]], [2, 3], {}, {"add": 12}),
        ("HardSwish", [[2, 3]], [2, 3], {}, {"multiply": 6, "multiply_add": 6, "compare": 12}),
        ("LogSoftmax", [[2, 3, 4]], [2, 3, 4], {"axis": 1}, {"add": 72, "compare": 24, "exp": 24, "log": 8}),
        ("ReduceL2", [[2, 8]], [1, 1], {}, {"multiply_add": 16, "sqrt": 1}),
        ("ArgMax", [[2, 8]], [2, 1], {"axis": 1}, {"compare": 16}),
        ("GlobalAveragePool", [[1, 3, 4, 4]], [1, 3, 1, 1], {}, {"add": 48, "multiply": 3}),
        ("MaxPool", [[1, 3, 4, 4]], [1, 3, 3, 3], {"kernel_shape": [2, 2]}, {"compare": 108}),
        ("Concat", [[2, 3], [4, 3]], [6, 3], {"axis": 0}, {"move": 18}),
        ("Transpose", [[2, 3]], [3, 2], {"perm": [1, 0]}, {"move": 6}),
        ("DepthToSpace", [[1, 4, 2, 2]], [1, 1, 4, 4], {"blocksize": 2}, {"move": 16}),
        ("Cast", [[2, 3]], [2, 3], {"to": TensorProto.FLOAT}, {}),
        ("Transpose", [[2, 1, 3]], [1, 2, 3], {"perm": [1, 0, 2]}, {}),
        ("Flatten", [[2, 3, 4]], [2, 12], {}, {}),
        ("Dropout", [[2, 3]], [2, 3], {}, {}),
        ("Identity", [[2, 3]], [2, 3], {}, {}),
    ],
)  # fmt: skip
def test_primitive_operations(tmp_path, kind, shapes, out, attributes, expected):
    assert one(tmp_path, kind, shapes, out, **attributes).operations() == expected


def test_softmax_before_opset_13_runs_over_all_axes_from_its_own(tmp_path):
    assert one(tmp_path, "Softmax", [[2, 3, 4]], [2, 3, 4], axis=1, opset=11).ops[0].rows == 2
    assert one(tmp_path, "Softmax", [[2, 3, 4]], [2, 3, 4], axis=1, opset=13).ops[0].rows == 8


def test_normalisations_and_pools(tmp_path):
    parameters = [weight(n, 6) for n in "abcd"]
    op = one(tmp_path, "BatchNormalization", [[2, 6, 5, 5]], [2, 6, 5, 5], parameters).ops[0]
    assert (op.operation, op.elements, op.rows) == ("batch_norm", 300, 6)
    op = one(tmp_path, "LayerNormalization", [[2, 3, 6]], [2, 3, 6], parameters[:2]).ops[0]
    assert (op.operation, op.rows) == ("layer_norm", 6)
    op = one(tmp_path, "InstanceNormalization", [[2, 6, 5]], [2, 6, 5], parameters[:2]).ops[0]
    assert (op.operation, op.rows) == ("group_norm", 12)
    groups = {"num_groups": 3, "opset": 21}
    assert one(tmp_path, "GroupNormalization", [[2, 6, 5]], [2, 6, 5], parameters[:2], **groups).ops[0].rows == 6
    op = one(tmp_path, "AveragePool", [[1, 2, 6, 6]], [1, 2, 4, 4], kernel_shape=[3, 3]).ops[0]
    assert op.dims == Pooling(name="p", operation="pool_average", elements=32, window=9).dims


def test_gather_scatter_top_k_and_cumulative_sums(tmp_path):
    indices = value("i", [2, 3], TensorProto.INT64)
    path = write(tmp_path, [node("Gather", "t i", "y")], [indices], [value("y", [2, 3, 8])], [weight("t", 100, 8)])
    workload = load(path)
    assert (workload.ops[0].elements, workload.ops[0].indices) == (48, 6)
    assert workload.op_bytes(workload.ops[0]) == 48 * 4 + 6 * 8 + 48 * 4

    made = node("ScatterElements", "x i u", "y", axis=0, reduction="add")
    inputs = [value("x", [4, 3]), indices, value("u", [2, 3])]
    workload = load(write(tmp_path, [made], inputs, [value("y", [4, 3])]))
    assert [(op.kind, op.elements_out) for op in workload.ops] == [("data_movement", 12), ("scatter", 6)]
    assert workload.dependencies == ((), (0,))

    made = node("TopK", "x k", "v i", axis=1)
    outputs = [value("v", [2, 5]), value("i", [2, 5], TensorProto.INT64)]
    op = load(write(tmp_path, [made], [value("x", [2, 1000])], outputs, [ints("k", 5)])).ops[0]
    assert (op.operation, op.elements) == ("sort", 2 * 1000 * 10)

    op = one(tmp_path, "CumSum", [[4, 6]], [4, 6], [ints("axis", 1)]).ops[0]
    assert (op.length, op.width) == (6, 4)


def test_elementwise_work_is_counted_once_an_output_element(tmp_path):
    op = one(tmp_path, "Mul", [[2, 1], [3]], [2, 3]).ops[0]
    assert isinstance(op, Elementwise)
    assert op.elements == 6
