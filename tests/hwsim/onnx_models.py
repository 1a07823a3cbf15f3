"""Small ONNX models for the tests, and the workloads of single nodes."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.case.node import collect_testcases

from hwsim.tracing.onnx import load
from hwsim.workload import Workload


def node(kind, inputs, outputs, **attributes):
    """A node; its inputs and outputs are separated by spaces."""
    return helper.make_node(kind, inputs.split(), outputs.split(), **attributes)


def weight(name, *shape, dtype=np.float32):
    """An initializer of zeros."""
    return numpy_helper.from_array(np.zeros(shape, dtype), name)


def ints(name, *values):
    """A vector of int64, as shapes and axes are."""
    return numpy_helper.from_array(np.array(values, np.int64), name)


def value(name, shape, kind=TensorProto.FLOAT):
    """An input's or output's name, shape and type."""
    return helper.make_tensor_value_info(name, kind, shape)


def write(folder, nodes, inputs, outputs, initializers=(), *, opset=18, name="m"):
    """Save a model of these parts; its path."""
    graph = helper.make_graph(list(nodes), name, list(inputs), list(outputs), list(initializers))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    path = Path(folder) / f"{name}.onnx"
    onnx.save(model, path)
    return path


def one(folder, kind, shapes, out, initializers=(), **attributes) -> Workload:
    """The workload of one node: ``shapes`` are its inputs, ``initializers`` follow them."""
    opset = attributes.pop("opset", 18)
    names = [f"x{i}" for i in range(len(shapes))] + [i.name for i in initializers]
    made = node(kind, " ".join(names), "y", **attributes)
    inputs = [value(f"x{i}", s) for i, s in enumerate(shapes)]
    return load(write(folder, [made], inputs, [value("y", out)], initializers, opset=opset))


@cache
def conformance_models():
    """Name → model of every node case in ONNX's conformance suite."""
    with warnings.catch_warnings():
        # Some cases overflow or divide by zero on purpose.
        warnings.simplefilter("ignore")
        return {case.name: case.model for case in collect_testcases(None) if case.model is not None}
