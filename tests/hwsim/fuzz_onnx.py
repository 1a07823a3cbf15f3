"""ONNX models for the mutator, and edits of their messages: nodes, sizes, attributes, types, and any field of any message."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from typing import Any

import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from mutations import Mutant
from onnx import TensorProto, helper
from onnx_models import ints, node, value, weight


def _model(nodes: Sequence[Any], inputs: Sequence[Any], outputs: Sequence[Any], initializers: Sequence[Any]) -> bytes:
    graph = helper.make_graph(list(nodes), "m", list(inputs), list(outputs), list(initializers))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()


@cache
def onnx_seeds() -> list[bytes]:
    convolutions = [
        node("Conv", "x w b", "c", pads=[1, 1, 1, 1], strides=[2, 2], kernel_shape=[3, 3]),
        node("Relu", "c", "r"),
        node("MaxPool", "r", "p", kernel_shape=[2, 2], strides=[2, 2]),
        node("Shape", "p", "s"),
        node("Gather", "s zero", "n", axis=0),
        node("Concat", "n rest", "shape", axis=0),
        node("Reshape", "p shape", "flat"),
        node("Gemm", "flat v g", "y", transB=1),
        node("Softmax", "y", "z", axis=-1),
    ]
    tokens = [
        node("MatMul", "x q", "h"),
        node("Add", "h bias", "a"),
        node("LayerNormalization", "a scale shift", "l", axis=-1),
        node("Split", "l parts", "left right", axis=2),
        node("Transpose", "right", "t", perm=[0, 2, 1]),
        node("MatMul", "left t", "scores"),
        node("Cast", "scores", "half", to=TensorProto.FLOAT16),
        node("Identity", "half", "y"),
    ]
    recurrent = [node("LSTM", "x w r", "y h", hidden_size=4), node("Dropout", "h", "d")]
    return [
        _model(
            convolutions, [value("x", ["N", 3, 8, 8])], [value("z", ["a", "b"])],
            [weight("w", 4, 3, 3, 3), weight("b", 4), ints("zero", 0), ints("rest", 16), weight("v", 5, 16), weight("g", 5)],
        ),
        _model(
            tokens, [value("x", [1, 6, 8])], [value("y", [1, 6, 6], TensorProto.FLOAT16)],
            [weight("q", 8, 8), weight("bias", 8), weight("scale", 8), weight("shift", 8), ints("parts", 4, 4)],
        ),
        _model(
            recurrent, [value("x", [3, 2, 5])], [value("y", [3, 1, 2, 4]), value("d", [1, 2, 4])],
            [weight("w", 1, 16, 5), weight("r", 1, 16, 4)],
        ),
    ]  # fmt: skip


def _messages(message: Message) -> list[Message]:
    """A message and all inside it."""
    found = [message]
    for field, inside in message.ListFields():
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for one in inside if field.is_repeated else [inside]:
                found += _messages(one)
    return found


INTEGERS = (0, 1, -1, 2, 3, 7, 255, 2**31 - 1, 2**31, 2**40, 2**62, -(2**62))
WORDS = ("", "x", "y", "w", "Conv", "If", "NoSuchOp", "🦆", "a" * 1000, "auto_pad", "SAME_UPPER", "ai.other", "r")
KINDS = (
    "Conv",
    "MatMul",
    "Reshape",
    "Add",
    "Gemm",
    "Slice",
    "Loop",
    "Resize",
    "Einsum",
    "Expand",
    "Tile",
    "Range",
    "ConstantOfShape",
    "Pad",
)


def edit_onnx(rng: random.Random, data: bytes) -> Mutant:
    model = onnx.load_from_string(data)
    what = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        what.append(_edit_message(rng, model))
    return Mutant(model.SerializeToString(), "; ".join(what))


def _edit_message(rng: random.Random, model: Any) -> str:
    how = rng.choice(("field", "field", "field", "field", "node", "dims", "dims", "attribute", "opset", "cycle", "type"))
    graph = model.graph
    if how == "node" and graph.node:
        place = rng.randrange(len(graph.node))
        change = rng.choice(("gone", "twice", "kind", "input", "first"))
        if change == "gone":
            del graph.node[place]
        elif change == "twice":
            graph.node.add().CopyFrom(graph.node[place])
        elif change == "kind":
            graph.node[place].op_type = rng.choice(KINDS)
        elif change == "input" and graph.node[place].input:
            graph.node[place].input[rng.randrange(len(graph.node[place].input))] = rng.choice(WORDS)
        else:
            moved = onnx.NodeProto()
            moved.CopyFrom(graph.node[place])
            del graph.node[place]
            graph.node.insert(0, moved)
        return f"node {place}: {change}"
    if how == "cycle" and len(graph.node) > 1:
        a, b = rng.sample(range(len(graph.node)), 2)
        if graph.node[a].input and graph.node[b].output:
            graph.node[a].input[0] = graph.node[b].output[0]
        return f"node {a} reads from node {b}"
    if how == "dims" and graph.initializer:
        tensor = rng.choice(graph.initializer)
        if tensor.dims and rng.random() < 0.6:
            tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(INTEGERS)
        else:
            del tensor.dims[:]
            tensor.dims.extend(rng.choices((1, 2, 3, 4, 8, 2**31), k=rng.randrange(5)))
        return f"{tensor.name}: dims {list(tensor.dims)}"
    if how == "attribute":
        one = rng.choice(graph.node) if graph.node else None
        if one is not None:
            name = rng.choice(
                (
                    "kernel_shape",
                    "strides",
                    "pads",
                    "dilations",
                    "group",
                    "axis",
                    "perm",
                    "hidden_size",
                    "to",
                    "auto_pad",
                    "transB",
                )
            )
            value_: Any = rng.choice((rng.choice(INTEGERS), rng.choices(INTEGERS, k=rng.randint(1, 4)), "SAME_UPPER", 1.5))
            for place, attribute in enumerate(one.attribute):
                if attribute.name == name:
                    del one.attribute[place]
                    break
            one.attribute.append(helper.make_attribute(name, value_))
            return f"{one.op_type}.{name}: {value_}"
    if how == "opset":
        model.opset_import[0].version = rng.choice((0, 1, 7, 11, 13, 18, 21, 1000, -1))
        return "opset"
    if how == "type" and graph.input:
        kind = rng.choice((0, 1, 2, 7, 8, 9, 10, 16, 17, 22, 99))
        target = rng.choice([*graph.input, *graph.output])
        target.type.tensor_type.elem_type = kind
        return f"{target.name}: type {kind}"
    message = rng.choice(_messages(model))
    fields = list(message.DESCRIPTOR.fields)
    field = rng.choice(fields)
    if rng.random() < 0.3:
        message.ClearField(field.name)
        return f"{message.DESCRIPTOR.name}.{field.name}: cleared"
    made: Any = _field_value(rng, field)
    if made is not None:
        if field.is_repeated:
            getattr(message, field.name).append(made)
        else:
            setattr(message, field.name, made)
    elif field.is_repeated and len(getattr(message, field.name)):
        inside = getattr(message, field.name)
        inside.add().CopyFrom(inside[rng.randrange(len(inside))])
    return f"{message.DESCRIPTOR.name}.{field.name}: {str(made)[:30]}"


def _field_value(rng: random.Random, field: Any) -> Any:
    if field.type == FieldDescriptor.TYPE_STRING:
        return rng.choice(WORDS)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return rng.choice((b"", b"\xff\x00", rng.randbytes(16)))
    if field.type == FieldDescriptor.TYPE_ENUM:
        return rng.choice([one.number for one in field.enum_type.values])
    if field.type in (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE):
        return rng.choice((0.0, -1.0, float("nan"), float("inf"), 1e30))
    if field.type == FieldDescriptor.TYPE_INT32:
        return rng.choice([number for number in INTEGERS if abs(number) < 2**31])
    if field.type == FieldDescriptor.TYPE_UINT64:
        return rng.choice([number for number in INTEGERS if number >= 0])
    return rng.choice(INTEGERS) if field.type == FieldDescriptor.TYPE_INT64 else None
