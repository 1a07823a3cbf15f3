"""The state of a walk over an ONNX graph: the operators and tensors found so far."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from onnx import AttributeProto, helper

from hwsim.operators import Op, Unmodelled
from hwsim.tracing._onnx_graph import Prepared, is_foldable
from hwsim.workload import Role, Tensor
from numerics.errors import InputError

_INDEX_FORMATS = frozenset({"bool", "int16", "uint16", "int32", "uint32", "int64", "uint64"})


@dataclass(frozen=True)
class Node:
    """One node: ``inputs`` and ``outputs`` hold "" where an optional one is left out."""

    kind: str
    domain: str
    name: str
    module: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    captured: tuple[str, ...] = ()
    """Values that its subgraphs read from the graph around them."""
    foldable: bool = False
    """Whether it does nothing at run time when all its inputs are constants."""

    def input(self, position: int) -> str:
        """Name of an input, "" when it is not given."""
        return self.inputs[position] if position < len(self.inputs) else ""

    def output(self, position: int) -> str:
        """Name of an output, "" when it is not wanted."""
        return self.outputs[position] if position < len(self.outputs) else ""

    def get(self, attribute: str, default: Any) -> Any:
        """An attribute's value."""
        return self.attributes.get(attribute, default)


class Walk:
    """Operators and tensors of a graph, filled node by node."""

    def __init__(self, prepared: Prepared) -> None:
        self.prepared = prepared
        self.ops: list[Op] = []
        self.tensors: dict[str, Tensor] = {}
        self._owners: dict[str, str] = {}
        self._weights: set[str] = set()
        self._op_names: set[str] = set()
        self._own: set[str] = set()
        self._node_names = Counter(node.name for _, node in prepared.nodes)
        for name in prepared.inputs:
            self.register(name)

    # --- what is known of a value ------------------------------------------------------------------------

    def shape(self, node: Node, name: str) -> tuple[int, ...]:
        """The shape of a value that ``node`` needs.

        Raises:
            InputError: it could not be inferred.
        """
        known = self.prepared.shapes.get(name)
        if known is None:
            raise self.error(node, f"the shape of {name!r} cannot be inferred; export the model with its shapes")
        return known

    def size(self, node: Node, name: str) -> int:
        """Elements of a value that ``node`` needs."""
        return math.prod(self.shape(node, name))

    def format(self, name: str) -> str:
        """The format a value is stored in."""
        return self.prepared.formats.get(name, "uint8")

    def value(self, name: str) -> np.ndarray[Any, Any] | None:
        """The value of a small constant, else None."""
        return self.prepared.values.get(name) if name else None

    def is_constant(self, name: str) -> bool:
        """Whether a value is the same in every run."""
        return name in self.prepared.constants

    def error(self, node: Node, detail: str) -> InputError:
        """An error at ``node``."""
        return self.prepared.error(f"node {node.name!r} ({node.kind}): {detail}")

    # --- nodes -------------------------------------------------------------------------------------------

    def node(self, position: int, proto: Any) -> Node:
        """A node's plain form, with a name of its own."""
        given = proto.name
        name = given if given and self._node_names[given] == 1 else f"{proto.op_type}_{position}"
        while name in self._op_names:
            name += "_"
        self._op_names.add(name)
        path = given.rpartition("/")[0].strip("/") if "/" in given else ""
        attributes = {}
        captured: dict[str, None] = {}
        for attribute in proto.attribute:
            if attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS):
                for graph in [attribute.g, *attribute.graphs]:
                    captured.update(dict.fromkeys(_outer_values(graph)))
                continue
            value = helper.get_attribute_value(attribute)
            attributes[attribute.name] = value.decode(errors="replace") if isinstance(value, bytes) else value
        known = self.prepared
        return Node(
            kind=proto.op_type,
            domain=proto.domain,
            name=name,
            module=path.replace("/", "."),
            inputs=tuple(proto.input),
            outputs=tuple(proto.output),
            attributes=attributes,
            captured=tuple(n for n in captured if n in known.formats or n in known.constants),
            foldable=is_foldable(proto),
        )

    # --- tensors and operators ---------------------------------------------------------------------------

    def register(self, name: str) -> Tensor:
        """The tensor of a value, listed from now on; an unknown shape is ``()``."""
        if name not in self.tensors:
            owner = self._owners.get(name, "")
            role: Role = self.register(owner).role if owner else self._role(name)
            shape = self.prepared.shapes.get(name, ())
            self.tensors[name] = Tensor(name, shape, self.format(owner or name), role, storage=owner)
        return self.tensors[name]

    def _role(self, name: str) -> Role:
        if name in self.prepared.inputs:
            return "input"
        if not self.is_constant(name):
            return "activation"
        if name in self._weights:
            return "weight"
        return "index" if self.format(name) in _INDEX_FORMATS else "weight"

    def as_weights(self, names: Iterable[str]) -> None:
        """Note that the constants among ``names`` are weights whatever their format (int32 biases)."""
        for name in filter(self.is_constant, names):
            owner = self._owners.get(name, name)
            self._weights.add(owner)
            for listed in {name, owner} & set(self.tensors):
                self.tensors[listed] = replace(self.tensors[listed], role="weight")

    def new_tensor(
        self,
        node: Node,
        part: str,
        shape: Sequence[int],
        *,
        format: str,
        role: Role = "activation",
        view_of: str = "",
    ) -> str:
        """A tensor the file does not name, between the parts of an expanded node; or a view of another."""
        name = f"{node.name}.{part}"
        while name in self.prepared.formats or name in self.tensors:
            name += "_"
        if view_of:
            source = self.register(view_of)
            self.tensors[name] = replace(source, name=name, shape=tuple(shape), storage=source.owner)
        else:
            self.tensors[name] = Tensor(name, tuple(shape), format, role)
        self._own.add(name)
        return name

    def view(self, node: Node, source: str, output: str, *, part: bool = False) -> None:
        """Make ``output`` share the memory of ``source``: all of it, or a ``part``.

        Raises:
            InputError: not the same number of elements.
        """
        if not output:
            return
        before, after = self.shape(node, source), self.shape(node, output)
        if not part and math.prod(before) != math.prod(after):
            raise self.error(node, f"{before} cannot be viewed as {after}")
        self._owners[output] = self._owners.get(source, source)
        if self.is_constant(source):
            self.prepared.constants.add(output)
        elif output in self.prepared.outputs:
            self.register(output)

    def emit(
        self,
        cls: type[Op],
        node: Node,
        inputs: Iterable[str] | None = None,
        outputs: Iterable[str] | None = None,
        *,
        part: str = "",
        **dims: Any,
    ) -> None:
        """Add an operator; by default it reads and writes what the node does. ``part`` names one of several.

        Raises:
            InputError: a tensor's shape is unknown.
        """
        read = tuple(filter(None, node.inputs if inputs is None else inputs))
        written = tuple(filter(None, node.outputs if outputs is None else outputs))
        for name in (*read, *written):
            if cls is not Unmodelled and name not in self._own:
                self.shape(node, name)
            self.register(name)
        if cls.is_matrix:
            self.as_weights(read)
        name = f"{node.name}/{part}" if part else node.name
        while part and name in self._op_names:
            name += "_"
        self._op_names.add(name)
        source = f"{node.domain or 'onnx'}.{node.kind}"
        self.ops.append(cls(name=name, inputs=read, outputs=written, module=node.module, source=source, **dims))


def _outer_values(graph: Any) -> list[str]:
    """Names that a subgraph reads but does not define."""
    own = {i.name for i in graph.input} | {t.name for t in graph.initializer}
    outer: dict[str, None] = {}
    for node in graph.node:
        read = list(filter(None, node.input))
        for attribute in node.attribute:
            for inner in [attribute.g, *attribute.graphs]:
                read += _outer_values(inner)
        outer.update(dict.fromkeys(name for name in read if name not in own))
        own.update(node.output)
    outer.update(dict.fromkeys(o.name for o in graph.output if o.name not in own))
    return list(outer)
