"""An ONNX model made ready to walk: checked, its batch set, shapes inferred, shape arithmetic evaluated.

Weights are not read: initializers of more than ``SMALL`` elements are replaced by graph inputs of their
type, so that neither their values nor external data files matter.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.checker
import onnx.external_data_helper
import onnx.inliner
import onnx.shape_inference
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from numerics.errors import InputError

SMALL = 4096
"""Constants of at most so many elements are evaluated; larger ones are only known by their shape."""

_FORMAT_NAMES = {
    "FLOAT": "fp32", "FLOAT16": "fp16", "BFLOAT16": "bf16", "DOUBLE": "fp64", "FLOAT8E4M3FN": "e4m3fn",
    "FLOAT8E4M3FNUZ": "e4m3fnuz", "FLOAT8E5M2": "e5m2", "FLOAT8E5M2FNUZ": "e5m2fnuz",
    "FLOAT8E8M0": "e8m0fnu", "FLOAT4E2M1": "e2m1fn", "INT2": "int2", "UINT2": "uint2", "INT4": "int4",
    "UINT4": "uint4", "INT8": "int8", "UINT8": "uint8", "INT16": "int16", "UINT16": "uint16",
    "INT32": "int32", "UINT32": "uint32", "INT64": "int64", "UINT64": "uint64", "BOOL": "bool",
    "COMPLEX64": "complex64", "COMPLEX128": "complex128", "STRING": "uint8",
}  # fmt: skip
FORMATS = {getattr(TensorProto, k): v for k, v in _FORMAT_NAMES.items() if hasattr(TensorProto, k)}
"""ONNX element type → format name (a string counts as a byte)."""

_RANDOM = frozenset({"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"})
# An int8 weight stays int8 in memory and is dequantised each time it is used.
_NOT_FOLDED = _RANDOM | {"DequantizeLinear"}
_CAN_GROW = frozenset({"ConstantOfShape", "Expand", "Tile", "Range", "Resize", "Upsample", "Pad", "OneHot", "EyeLike"})


@dataclass
class Prepared:
    """What a walk over a model needs.

    Attributes:
        path: the file, for messages.
        nodes: the nodes that are left, in execution order, each with its position in the file.
        opset: version of the standard operators.
        inputs: names of the graph's inputs, weights excepted.
        outputs: names of its outputs.
        shapes: value name → shape, where it is known in full.
        formats: value name → format name.
        values: value name → the array, of small constants.
        constants: names of all constants.
        batch: the first dimension of the inputs, or None where no input has one.
        fixed_batch: the batch the file was made for, where another was set.
        declared: output name → the shape the file gives it.
    """

    path: Path
    nodes: list[tuple[int, Any]]
    opset: int
    inputs: list[str]
    outputs: list[str]
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    formats: dict[str, str] = field(default_factory=dict)
    values: dict[str, np.ndarray[Any, Any]] = field(default_factory=dict)
    constants: set[str] = field(default_factory=set)
    batch: int | None = None
    fixed_batch: int | None = None
    declared: dict[str, tuple[int, ...] | None] = field(default_factory=dict)

    def error(self, detail: str) -> InputError:
        """The error for a graph whose shapes do not fit."""
        if self.fixed_batch is not None:
            fixed = f"the file fixes its batch at {self.fixed_batch}; batch={self.batch} does not fit"
            return InputError(f"{self.path}: {fixed}: {detail}")
        return InputError(f"{self.path}: {detail}")


def prepare(path: Path, *, batch: int | None) -> Prepared:
    """Read and prepare the model at ``path``.

    Raises:
        InputError: the file cannot be read, is no valid ONNX model, has an input of unknown size, or its
            shapes do not fit ``batch``.
    """
    if batch is not None and (not isinstance(batch, int) or isinstance(batch, bool) or batch < 1):
        raise InputError(f"batch must be an integer ≥ 1, got {batch!r}")
    model, detached = _read(path)
    inputs = [i for i in model.graph.input if i.name not in detached]
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    prepared = Prepared(path, [], opset, [i.name for i in inputs], [o.name for o in model.graph.output])
    prepared.constants.update(detached)
    declared = {o.name: _shape(o.type) for o in model.graph.output}
    _set_batch(model, inputs, batch, prepared)
    prepared.nodes = _fold(model, prepared)
    prepared.declared = declared
    return prepared


def is_foldable(node: Any) -> bool:
    """Whether a node's outputs are constants when all its inputs are."""
    if node.op_type in _NOT_FOLDED or node.domain not in ("", "ai.onnx"):
        return False
    if any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.attribute):
        return False
    return any(node.input) or node.op_type == "Constant"


# --- reading --------------------------------------------------------------------------------------------


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _read(path: Path) -> tuple[Any, set[str]]:
    """The checked model without its large initializers, and the names of those."""
    try:
        model = onnx.load(str(path), load_external_data=False)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception as error:  # protobuf's DecodeError, without needing its type stubs
        raise InputError(f"{path}: not an ONNX model: {_first_line(error)}") from None
    for tensor in model.graph.initializer:
        _check_data(path, tensor)
    detached = _detach_weights(model.graph, path.parent)
    try:
        onnx.checker.check_model(model)
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
    except Exception as error:  # the checker's and the inliner's C++ errors share no base class
        raise InputError(f"{path}: not a valid ONNX model: {_first_line(error)}") from None

    # From IR version 4 on, an initializer that is also an input is a default value, not a constant.
    known = {t.name for t in model.graph.initializer}
    inputs = [i for i in model.graph.input if i.name not in known]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, 4)
    return model, detached


_TYPED = {
    **dict.fromkeys((TensorProto.FLOAT, TensorProto.COMPLEX64), "float_data"),
    **dict.fromkeys((TensorProto.DOUBLE, TensorProto.COMPLEX128), "double_data"),
    **dict.fromkeys((TensorProto.UINT32, TensorProto.UINT64), "uint64_data"),
    TensorProto.INT64: "int64_data",
    TensorProto.STRING: "string_data",
}
"""Element type → the field of its values where they are not raw; ``int32_data`` for all others."""
_PACKED_BITS = {"int2": 2, "uint2": 2, "int4": 4, "uint4": 4, "e2m1fn": 4}
"""Formats of which a byte holds several."""


def _check_data(path: Path, tensor: Any) -> None:
    """See that an initializer has as many values as its shape says, where they are in the file."""
    if tensor.data_type not in FORMATS:
        raise InputError(f"{path}: initializer {tensor.name!r}: expected an element type of ONNX, got {tensor.data_type}")
    if min(tensor.dims, default=0) < 0:
        raise InputError(f"{path}: initializer {tensor.name!r}: expected sizes ≥ 0, got {list(tensor.dims)}")
    if tensor.data_location == TensorProto.EXTERNAL:
        return
    elements = math.prod(tensor.dims)
    bits = _PACKED_BITS.get(FORMATS[tensor.data_type]) or 8 * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    typed = _TYPED.get(tensor.data_type, "int32_data")
    if tensor.HasField("raw_data"):
        held, needed, what = len(tensor.raw_data), -(-elements * bits // 8), "bytes"
    else:
        parts = 2 if tensor.data_type in (TensorProto.COMPLEX64, TensorProto.COMPLEX128) else 1
        needed = parts * elements if bits >= 8 else -(-elements * bits // 8)
        held, what = len(getattr(tensor, typed)), f"values in {typed}"
    if held != needed:
        raise InputError(
            f"{path}: initializer {tensor.name!r}: expected {needed} {what} for the sizes {list(tensor.dims)}, got {held}"
        )


def _detach_weights(graph: Any, folder: Path) -> set[str]:
    listed = {i.name for i in graph.input}
    detached: set[str] = set()
    kept = []

    def detach(name: str, element_type: int, dims: Iterable[int]) -> None:
        detached.add(name)
        if name not in listed:
            graph.input.append(helper.make_tensor_value_info(name, element_type, list(dims)))

    for tensor in graph.initializer:
        small = math.prod(tensor.dims) <= SMALL
        if small and onnx.external_data_helper.uses_external_data(tensor):
            try:
                onnx.external_data_helper.load_external_data_for_tensor(tensor, str(folder))
                tensor.data_location = TensorProto.DEFAULT
                del tensor.external_data[:]
            except Exception:  # a missing or unsafe data file; the tensor's shape is enough, unless it is a shape itself
                small = False
        if small:
            kept.append(tensor)
        else:
            detach(tensor.name, tensor.data_type, tensor.dims)
    for sparse in graph.sparse_initializer:
        detach(sparse.values.name, sparse.values.data_type, sparse.dims)
    del graph.initializer[:]
    del graph.sparse_initializer[:]
    graph.initializer.extend(kept)
    return detached


# --- sizes of the inputs --------------------------------------------------------------------------------


def _set_batch(model: Any, inputs: list[Any], batch: int | None, prepared: Prepared) -> None:
    shaped = [i for i in inputs if i.type.HasField("tensor_type")]
    for entry in shaped:
        if not entry.type.tensor_type.HasField("shape"):
            raise InputError(f"{prepared.path}: input {entry.name!r} has no shape; export the model with one")
    first = [i.type.tensor_type.shape.dim[0] for i in shaped if i.type.tensor_type.shape.dim]
    free = [d for d in first if not _is_known(d)]
    symbols = {d.dim_param for d in free if d.dim_param}
    if free:
        prepared.batch = batch or 1
    elif first:
        prepared.batch = first[0].dim_value
        if batch is not None and batch != prepared.batch:
            prepared.fixed_batch, prepared.batch = prepared.batch, batch
    elif batch is not None:
        raise InputError(f"{prepared.path}: no input has a first dimension to set batch={batch} to")

    for entry in shaped:
        for axis, dim in enumerate(entry.type.tensor_type.shape.dim):
            unknown = not _is_known(dim)
            if unknown and axis and dim.dim_param not in symbols:
                size = repr(dim.dim_param) if dim.dim_param else "no size"
                raise InputError(
                    f"{prepared.path}: input {entry.name!r} has {size} in dimension {axis}; only the first "
                    "dimension, the batch, may be left open: export the model with a fixed size"
                )
            if unknown or (axis == 0 and dim.dim_value == prepared.fixed_batch):
                dim.dim_value = prepared.batch
    if prepared.fixed_batch is not None:
        # What the file says of its other values was computed for its own batch.
        del model.graph.value_info[:]
        for entry in model.graph.output:
            if entry.type.HasField("tensor_type"):
                entry.type.tensor_type.ClearField("shape")
        return
    for entry in [*model.graph.value_info, *model.graph.output]:
        for dim in entry.type.tensor_type.shape.dim if entry.type.HasField("tensor_type") else ():
            if dim.dim_param in symbols:
                dim.dim_value = prepared.batch


def _is_known(dim: Any) -> bool:
    return bool(dim.HasField("dim_value") and dim.dim_value >= 0)


def check_batch_of_outputs(prepared: Prepared) -> None:
    """Refuse another batch that did not reach an output whose first dimension was the file's batch.

    Raises:
        InputError: some node in between spells the batch out.
    """
    if prepared.fixed_batch is None:
        return
    for name, before in prepared.declared.items():
        after = prepared.shapes.get(name)
        if before and after and before[0] == prepared.fixed_batch and after[0] != prepared.batch:
            raise prepared.error(f"output {name!r} has the shape {after}")


# --- shapes and constants -------------------------------------------------------------------------------


def _fold(model: Any, prepared: Prepared) -> list[tuple[int, Any]]:
    """Infer shapes and evaluate what depends on constants and shapes alone, until nothing more is learnt.

    Returns the nodes that are left, with their positions.
    """
    graph = model.graph
    opsets = {o.domain: o.version for o in model.opset_import}
    for tensor in graph.initializer:
        prepared.constants.add(tensor.name)
        try:
            prepared.values[tensor.name] = numpy_helper.to_array(tensor)
        except (ValueError, TypeError, KeyError) as error:
            raise prepared.error(f"initializer {tensor.name!r}: cannot be read: {_first_line(error)}") from None
    nodes = list(enumerate(graph.node))
    while True:
        try:
            inferred = onnx.shape_inference.infer_shapes(model, strict_mode=False, data_prop=True)
        except Exception as error:  # a C++ error without a public base class
            raise prepared.error(f"shape inference failed: {_first_line(error)}") from None
        _collect(inferred.graph, prepared)
        left = []
        for position, node in nodes:
            results = _evaluate(node, prepared, opsets)
            if results is None:
                left.append((position, node))
                continue
            for name, array in results.items():
                graph.initializer.append(numpy_helper.from_array(array, name))
                prepared.values[name] = array
                prepared.constants.add(name)
                prepared.shapes[name] = array.shape
        if len(left) == len(nodes):
            return nodes
        nodes = left
        del graph.node[:]
        graph.node.extend(node for _, node in nodes)


def _shape(kind: Any) -> tuple[int, ...] | None:
    if not kind.HasField("tensor_type") or not kind.tensor_type.HasField("shape"):
        return None
    dims = kind.tensor_type.shape.dim
    return tuple(d.dim_value for d in dims) if all(_is_known(d) for d in dims) else None


def _collect(graph: Any, prepared: Prepared) -> None:
    for entry in [*graph.input, *graph.value_info, *graph.output]:
        shape = _shape(entry.type)
        if shape is not None:
            prepared.shapes[entry.name] = shape
        if entry.type.HasField("tensor_type"):
            prepared.formats[entry.name] = FORMATS.get(entry.type.tensor_type.elem_type, "uint8")
    for tensor in graph.initializer:
        prepared.shapes[tensor.name] = tuple(tensor.dims)
        prepared.formats[tensor.name] = FORMATS.get(tensor.data_type, "uint8")


def _evaluate(node: Any, prepared: Prepared, opsets: dict[str, int]) -> dict[str, np.ndarray[Any, Any]] | None:
    """The outputs of a node whose inputs are all known and whose outputs are small, else None."""
    if node.op_type in ("Shape", "Size"):
        shape = prepared.shapes.get(node.input[0])
        if shape is None:
            return None
        given = {a.name: a.i for a in node.attribute}
        part = shape[given.get("start", 0) : given.get("end", len(shape))]
        value = np.array(part if node.op_type == "Shape" else math.prod(shape), dtype=np.int64)
        return {node.output[0]: value}
    if not is_foldable(node) or any(name and name not in prepared.values for name in node.input):
        return None
    for name in filter(None, node.output):
        known = prepared.shapes.get(name)
        if (known is None and node.op_type in _CAN_GROW) or (known is not None and math.prod(known) > SMALL):
            return None
    inputs = {name: prepared.values[name] for name in node.input if name}
    graph = helper.make_graph(
        [node],
        "constant",
        [onnx.ValueInfoProto(name=name) for name in inputs],
        [onnx.ValueInfoProto(name=name) for name in node.output if name],
    )
    try:
        results = ReferenceEvaluator(graph, opsets=opsets).run(None, inputs)
    except Exception:  # the reference lacks this operator or type: its outputs stay known by shape only
        return None
    arrays = dict(zip(filter(None, node.output), results, strict=True))
    fits = all(isinstance(a, np.ndarray | np.generic) and a.size <= SMALL for a in arrays.values())
    return {name: np.asarray(a) for name, a in arrays.items()} if fits else None
