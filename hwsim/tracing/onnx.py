"""Workloads from ONNX files: the graph of the file, operator by operator, without running it.

What becomes of each node:

- what only depends on constants and on shapes (``Constant``, ``Shape`` and the arithmetic on it) costs
  nothing;
- reshapes, ``Slice``, ``Split``, ``Identity`` and inference's ``Dropout`` are views: tensors that share
  memory, no operator;
- the standard operators become the operator kinds of ``hwsim.operators``; recurrent layers are expanded
  into the matmuls of their steps, fully quantised ones into the matmul and its requantisation;
- anything else (``If``, ``Loop``, other domains, …) is ``Unmodelled``, with every tensor it touches. A
  tensor whose shape ONNX cannot infer is listed there with the shape ``()``; where another operator needs
  it, that is an error.

Initializers and constants are ``weight`` (wide integers and booleans: ``index``), inputs ``input``, the
rest ``activation``.
"""

from __future__ import annotations

from pathlib import Path

from hwsim.workload import Workload
from numerics.errors import InputError


def load(path: str | Path, *, batch: int | None = None) -> Workload:
    """The workload of an ONNX file, in inference.

    An input's first dimension is the batch. Where the file leaves it open it becomes ``batch`` (1 by
    default); where the file fixes it, another ``batch`` is tried and refused if the graph does not follow,
    as when a ``Reshape`` spells it out. Weights are not read, so external data files need not be there.

    Args:
        path: the ``.onnx`` file; any opset that the installed ``onnx`` package checks.
        batch: size of the inputs' first dimension, ≥ 1.

    Raises:
        InputError: ``onnx`` is not installed; the file cannot be read or is no valid model; an input's
            other dimension is open; the batch cannot be set; an operator needs a shape that cannot be
            inferred.
    """
    try:
        import onnx  # noqa: F401
    except ImportError:
        raise InputError("onnx: pip install 'hwsim[onnx]'") from None
    from hwsim.tracing._onnx_graph import check_batch_of_outputs, prepare
    from hwsim.tracing._onnx_operators import emit_node
    from hwsim.tracing._onnx_walk import Walk

    path = Path(path)
    prepared = prepare(path, batch=batch)
    walk = Walk(prepared)
    for position, proto in prepared.nodes:
        try:
            emit_node(walk, walk.node(position, proto))
        except InputError:
            raise
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError) as error:
            # The checker lets through what no operator takes: a shape of other rank, an attribute of other length.
            reason = f"{type(error).__name__}: {error}"
            name = proto.name or f"{proto.op_type}_{position}"
            raise InputError(f"{path}: node {name!r} ({proto.op_type}): its inputs or attributes do not fit: {reason}") from None
    check_batch_of_outputs(prepared)
    for name in prepared.outputs:
        walk.register(name)
    return Workload(
        name=path.stem,
        ops=tuple(walk.ops),
        tensors=walk.tensors,
        inputs=tuple(prepared.inputs),
        outputs=tuple(dict.fromkeys(prepared.outputs)),
        metadata={"source": path.name, "opset": prepared.opset, "batch": prepared.batch},
    )
