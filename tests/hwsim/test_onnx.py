"""ONNX files as workloads: whole models against counters of their own, shape arithmetic, batches, errors."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx_models import conformance_models, ints, node, value, weight, write
from torch.utils.flop_counter import FlopCounterMode

from hwsim.operators import Unmodelled
from hwsim.tracing.onnx import load
from hwsim.workload import Workload
from numerics.errors import InputError

LIGHT = sorted((Path(onnx.__file__).parent / "backend/test/data/light").glob("*.onnx"))

# --- whole models -------------------------------------------------------------------------------------------


def independent_macs(path):
    """MACs of the convolutions and Gemms of a file, from ONNX's own shapes and nothing of hwsim's."""
    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    graph = model.graph
    shapes = {t.name: list(t.dims) for t in graph.initializer}
    for v in [*graph.input, *graph.value_info, *graph.output]:
        shapes[v.name] = [d.dim_value for d in v.type.tensor_type.shape.dim]
    total = 0
    for n in graph.node:
        if n.op_type == "Conv":
            total += math.prod(shapes[n.output[0]]) * math.prod(shapes[n.input[1]][1:])
        elif n.op_type == "Gemm":
            k = shapes[n.input[0]][not any(a.name == "transA" and a.i for a in n.attribute)]
            total += math.prod(shapes[n.output[0]]) * k
    return total


@pytest.mark.parametrize("path", LIGHT, ids=lambda p: p.stem)
def test_a_published_model_has_the_macs_an_independent_counter_finds(path):
    workload = load(path)
    assert workload.macs == independent_macs(path)
    assert not [op.name for op in workload.ops if isinstance(op, Unmodelled)]
    assert workload.metadata == {"source": path.name, "opset": 9, "batch": 1}


@pytest.mark.parametrize(
    ("name", "macs", "parameters"),
    [
        ("bvlc_alexnet", 0.655e9, 60_965_224),
        ("resnet50", 4.09e9, None),
        ("vgg19", 19.6e9, 143_667_240),
        ("squeezenet", 0.35e9, 1_235_496),
        ("zfnet512", 1.48e9, None),
        ("densenet121", 2.83e9, None),
    ],
)
def test_published_counts(name, macs, parameters):
    # The parameter counts are those of the Caffe and torchvision model zoos (SqueezeNet 1.1).
    workload = load(next(p for p in LIGHT if p.stem == f"light_{name}"))
    assert workload.macs == pytest.approx(macs, rel=0.02)
    assert parameters is None or workload.parameters == parameters


def test_all_published_models_are_there():
    assert len(LIGHT) == 9


def test_every_case_of_the_conformance_suite_loads_or_is_refused_for_a_shape(tmp_path):
    cases = conformance_models()
    refused = []
    for name, model in cases.items():
        onnx.save(model, tmp_path / "case.onnx")
        try:
            workload = load(tmp_path / "case.onnx")
        except InputError as error:
            assert "cannot be inferred" in str(error), name  # noqa: PT017
            refused.append(name)
        else:
            assert workload.peak_memory().bytes >= 0
            assert len(workload.dependencies) == len(workload)
    # What is refused takes its reduced axes, sizes or ranges from an input.
    assert len(refused) < 0.05 * len(cases)


def test_the_same_network_in_torch_has_the_same_macs(tmp_path):
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, stride=2, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(8, 16, 3, groups=4, dilation=2),
        torch.nn.Flatten(),
        torch.nn.Linear(16 * 12 * 12, 10),
    )
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(2, 3, 32, 32))
    path = write(
        tmp_path,
        [
            node("Conv", "x w0 b0", "a", strides=[2, 2], pads=[1, 1, 1, 1]),
            node("Relu", "a", "b"),
            node("Conv", "b w1 b1", "c", group=4, dilations=[2, 2]),
            node("Flatten", "c", "d"),
            node("Gemm", "d w2 b2", "y", transB=1),
        ],
        [value("x", ["n", 3, 32, 32])],
        [value("y", ["n", 10])],
        [
            weight("w0", 8, 3, 3, 3), weight("b0", 8), weight("w1", 16, 2, 3, 3), weight("b1", 16),
            weight("w2", 10, 16 * 12 * 12), weight("b2", 10),
        ],
    )  # fmt: skip
    workload = load(path, batch=2)
    assert workload.flops == counter.get_total_flops()
    assert workload.parameters == sum(p.numel() for p in network.parameters())
    assert [op.kind for op in workload.ops] == ["convolution", "elementwise", "convolution", "matmul"]
    assert workload.tensors["d"].storage == "c"
    assert workload.bytes_by_role()["weight"] == 4 * workload.parameters
    assert Workload.from_json(workload.to_json()) == workload


# --- graphs -----------------------------------------------------------------------------------------------


def test_slices_and_splits_share_memory(tmp_path):
    path = write(
        tmp_path,
        [
            node("Split", "x", "a b", axis=1, num_outputs=2),
            node("Slice", "a from to", "c"),
            node("Relu", "c", "y"),
            node("Neg", "b", "z"),
        ],
        [value("x", [8, 6])],
        [value("y", [2, 3]), value("z", [8, 3])],
        [ints("from", 0), ints("to", 2)],
    )
    workload = load(path)
    assert [op.name for op in workload.ops] == ["Relu_2", "Neg_3"]
    assert workload.tensors["c"].storage == "x"
    assert workload.read_bytes(workload.ops[0], 0) == 2 * 3 * 4


def test_shape_arithmetic_costs_nothing(tmp_path):
    # What exporters write for x.view(x.size(0), -1): the batch is looked up, a shape put together.
    path = write(
        tmp_path,
        [
            node("Conv", "x w", "a"),
            node("Shape", "a", "s"),
            node("Gather", "s zero", "n"),
            node("Unsqueeze", "n axis", "n1"),
            node("Concat", "n1 rest", "shape", axis=0),
            node("Reshape", "a shape", "flat"),
            node("MatMul", "flat v", "m"),
            node("Cast", "n", "nf", to=TensorProto.FLOAT),
            node("Div", "m nf", "y"),
        ],
        [value("x", ["batch", 3, 6, 6])],
        [value("y", ["batch", 5])],
        [
            weight("w", 4, 3, 3, 3), weight("v", 64, 5), numpy_helper.from_array(np.int64(0), "zero"),
            ints("axis", 0), ints("rest", -1),
        ],
    )  # fmt: skip
    workload = load(path, batch=7)
    assert [op.kind for op in workload.ops] == ["convolution", "matmul", "elementwise"]
    assert workload.tensors["flat"].shape == (7, 64)
    assert workload.ops[1].m == 7
    assert workload.metadata["batch"] == 7
    assert load(path).macs * 7 == workload.macs


def test_a_range_and_an_expand_that_depend_on_a_shape_are_folded(tmp_path):
    path = write(
        tmp_path,
        [
            node("Shape", "x", "s", start=1, end=2),
            node("Squeeze", "s", "n"),
            node("Range", "zero n one", "r"),
            node("Gather", "t r", "e"),
            node("Add", "x e", "y"),
        ],
        [value("x", [1, 6, 4])],
        [value("y", [1, 6, 4])],
        [
            weight("t", 10, 4),
            *(numpy_helper.from_array(np.int64(v), n) for v, n in ((0, "zero"), (1, "one"))),
        ],
    )
    workload = load(path)
    assert [op.name for op in workload.ops] == ["Add_4"]
    assert workload.tensors["e"].shape == (6, 4)
    assert workload.tensors["e"].role == "weight"


def test_names_modules_formats_and_roles(tmp_path):
    path = write(
        tmp_path,
        [
            helper.make_node("MatMul", ["x", "w"], ["a"], name="/encoder/layer.0/dense/MatMul"),
            helper.make_node("Relu", ["a"], ["b"], name="same"),
            helper.make_node("Relu", ["b"], ["c"], name="same"),
            helper.make_node("Gather", ["c", "i"], ["y"]),
        ],
        [value("x", [2, 4], TensorProto.FLOAT16)],
        [value("y", [3, 4], TensorProto.FLOAT16)],
        [weight("w", 4, 4, dtype=np.float16), ints("i", 0, 1, 1)],
        name="net",
    )
    workload = load(path)
    assert workload.name == "net"
    assert [(op.name, op.module, op.source) for op in workload.ops] == [
        ("/encoder/layer.0/dense/MatMul", "encoder.layer.0.dense", "onnx.MatMul"),
        ("Relu_1", "", "onnx.Relu"),
        ("Relu_2", "", "onnx.Relu"),
        ("Gather_3", "", "onnx.Gather"),
    ]
    assert {n: (t.format, t.role) for n, t in workload.tensors.items()} == {
        "x": ("fp16", "input"), "w": ("fp16", "weight"), "a": ("fp16", "activation"),
        "b": ("fp16", "activation"), "c": ("fp16", "activation"), "i": ("int64", "index"),
        "y": ("fp16", "activation"),
    }  # fmt: skip


def test_control_flow_is_carried_with_every_tensor_it_touches(tmp_path):
    branch = [helper.make_graph([node(kind, "h w", "r")], kind, [], [value("r", [2, 4])]) for kind in ("Add", "Sub")]
    path = write(
        tmp_path,
        [
            node("Relu", "x", "h"),
            helper.make_node("If", ["c"], ["z"], then_branch=branch[0], else_branch=branch[1]),
            node("Relu", "z", "y"),
        ],
        [value("x", [2, 4]), value("c", [], TensorProto.BOOL)],
        [value("y", [2, 4])],
        [weight("w", 2, 4)],
    )
    workload = load(path)
    op = workload.ops[1]
    assert isinstance(op, Unmodelled)
    assert (op.name, op.inputs, op.outputs) == ("If_1", ("c", "h", "w"), ("z",))
    assert workload.dependencies == ((), (0,), (1,))


def test_an_unknown_operator_is_unmodelled_but_what_needs_its_shape_is_an_error(tmp_path):
    odd = helper.make_node("Odd", ["x"], ["z"], domain="vendor")
    inputs, outputs = [value("x", [2, 4])], [value("y", [2, 4])]
    graph = helper.make_graph([odd, node("Relu", "z", "y")], "g", inputs, outputs)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("vendor", 1)]
    path = tmp_path / "odd.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    with pytest.raises(InputError, match=r"odd.onnx: node 'Relu_1' \(Relu\): the shape of 'z' cannot be inferred"):
        load(path)
    graph.value_info.append(value("z", [2, 4]))
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    workload = load(path)
    assert [(op.kind, op.source) for op in workload.ops] == [
        ("unmodelled", "vendor.Odd"), ("elementwise", "onnx.Relu"),
    ]  # fmt: skip


def test_a_data_dependent_shape_is_listed_as_a_scalar(tmp_path):
    outputs = [value("y", [2, "n"], TensorProto.INT64)]
    workload = load(write(tmp_path, [node("NonZero", "x", "y")], [value("x", [2, 4])], outputs))
    assert workload.ops[0].kind == "unmodelled"
    assert workload.tensors["y"].shape == ()


# --- batch and errors ---------------------------------------------------------------------------------------


def test_a_fixed_batch_is_changed_where_the_graph_follows(tmp_path):
    made = [node("Flatten", "x", "f"), node("MatMul", "f w", "y")]
    path = write(tmp_path, made, [value("x", [1, 3, 4])], [value("y", [1, 5])], [weight("w", 12, 5)])
    assert load(path, batch=8).macs == 8 * load(path).macs


def test_a_batch_spelled_out_in_a_reshape_is_refused(tmp_path):
    made = [node("Reshape", "x shape", "f"), node("MatMul", "f w", "y")]
    initializers = [weight("w", 12, 5), ints("shape", 1, 12)]
    path = write(tmp_path, made, [value("x", [1, 3, 4])], [value("y", [1, 5])], initializers)
    assert load(path, batch=1).macs == 60
    with pytest.raises(InputError, match="the file fixes its batch at 1; batch=8 does not fit: node 'Reshape_0'"):
        load(path, batch=8)
    with pytest.raises(InputError, match="batch must be an integer ≥ 1, got 0"):
        load(path, batch=0)


def test_a_batch_that_a_reshape_swallows_is_refused(tmp_path):
    made = [node("Reshape", "x shape", "f"), node("Relu", "f", "y")]
    path = write(tmp_path, made, [value("x", [2, 12])], [value("y", [2, 12])], [ints("shape", 2, -1)])
    with pytest.raises(InputError, match=r"fixes its batch at 2; batch=4 .*output 'y' has the shape \(2, 24\)"):
        load(path, batch=4)


def test_an_open_dimension_is_named(tmp_path):
    path = write(tmp_path, [node("Relu", "x", "y")], [value("x", ["n", "time", 3])], [value("y", ["n", "time", 3])])
    with pytest.raises(InputError, match=r"m.onnx: input 'x' has 'time' in dimension 1; only the first dimension"):
        load(path)


def test_the_batch_symbol_is_set_wherever_it_appears(tmp_path):
    inputs = [value("x", ["n", 3]), value("z", [3, "n"])]
    path = write(tmp_path, [node("MatMul", "x z", "y")], inputs, [value("y", ["n", "n"])])
    assert load(path, batch=5).macs == 75


def test_files_that_are_no_models(tmp_path):
    with pytest.raises(InputError, match=r"none.onnx: cannot be read: No such file or directory"):
        load(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("not a model\n")
    with pytest.raises(InputError, match=r"text.onnx: not an ONNX model: "):
        load(tmp_path / "text.onnx")
    (tmp_path / "empty.onnx").write_bytes(b"")
    with pytest.raises(InputError, match=r"empty.onnx: not a valid ONNX model: .*ir_version"):
        load(tmp_path / "empty.onnx")
    broken = LIGHT[0].read_bytes()[:-200]
    (tmp_path / "broken.onnx").write_bytes(broken)
    with pytest.raises(InputError, match=r"broken.onnx: not a") as caught:
        load(tmp_path / "broken.onnx")
    assert "\n" not in str(caught.value)


def test_weights_kept_in_a_missing_file_are_not_needed(tmp_path):
    graph = helper.make_graph(
        [node("MatMul", "x w", "y")],
        "g",
        [value("x", [1, 128])],
        [value("y", [1, 64])],
        [weight("w", 128, 64)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path = tmp_path / "external.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    (tmp_path / "weights.bin").unlink()
    assert load(path).macs == 128 * 64


def test_without_onnx_the_error_says_what_to_install(tmp_path):
    code = (
        "import sys; sys.modules['onnx'] = None\n"
        "from hwsim.tracing.onnx import load\n"
        "try: load('x.onnx')\n"
        "except ValueError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "onnx: pip install 'hwsim[onnx]'"
