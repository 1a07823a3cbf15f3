"""A NIR graph made flat, with every shape known: what files leave out or get wrong is inferred, and each repair noted.

Subgraphs dissolve: their nodes are called ``subgraph.node``, and their Input and Output pass on what they get. Shapes go from the
inputs through the graph; an Input without one takes that of the first node behind it that has one. An edge between different
shapes of the same number of elements hands them on in C order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neuromorphic import linear_maps
from neuromorphic._checks import finite_numbers
from neuromorphic.linear_maps import LinearMap, Shape
from numerics.errors import InputError, unknown_name

if TYPE_CHECKING:
    import numpy.typing as npt

PARAMETERS: Mapping[str, tuple[str, ...]] = {
    "I": ("r",),
    "IF": ("r", "v_threshold", "v_reset"),
    "LI": ("tau", "r", "v_leak"),
    "LIF": ("tau", "r", "v_leak", "v_threshold", "v_reset"),
    "CubaLI": ("tau_syn", "tau_mem", "r", "v_leak", "w_in"),
    "CubaLIF": ("tau_syn", "tau_mem", "r", "v_leak", "v_threshold", "v_reset", "w_in"),
    "Threshold": ("threshold",),
}
"""Parameters of the nodes that become populations."""

DEFLATE = 1032
"""Most bytes that one compressed byte stands for."""

LINEAR = ("Affine", "Linear", "Conv1d", "Conv2d", "SumPool2d", "AvgPool2d", "Flatten", "Scale")
KNOWN = ("Input", "Output", "Delay", *LINEAR, *PARAMETERS)


def import_nir() -> Any:
    """The package ``nir``.

    Raises:
        InputError: it is not installed.
    """
    try:
        return import_module("nir")
    except ImportError:
        raise InputError("NIR files need the package nir (1.0.8 or later): pip install 'hwsim[nir]'") from None


@dataclass
class Graph:
    """Nodes by name, edges, and for each node the shape it gets and gives.

    Attributes:
        nodes: name → NIR node; no subgraphs.
        before, after: name → names of the nodes that it gets from, and gives to, in natural order.
        inside: Inputs and Outputs of subgraphs, which only pass on.
        takes, gives: shapes.
        maps: of the linear nodes.
        notes: repairs.
    """

    nodes: dict[str, Any]
    before: dict[str, list[str]]
    after: dict[str, list[str]]
    inside: frozenset[str]
    takes: dict[str, Shape] = field(default_factory=dict)
    gives: dict[str, Shape] = field(default_factory=dict)
    maps: dict[str, LinearMap] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def kind(self, name: str) -> str:
        """Type of a node; ``pass`` where it only passes on."""
        return "pass" if name in self.inside else type(self.nodes[name]).__name__

    def where(self, name: str) -> str:
        """A node in an error."""
        return f"node {name!r} ({type(self.nodes[name]).__name__})"


def natural(name: str) -> tuple[Any, ...]:
    """A key that sorts ``layer9`` before ``layer10``, the same for no two names."""
    parts = [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"([0-9]+)", name) if part]
    return (*parts, (-1, 0, name))


def read(source: str | Path | Any) -> Any:
    """The graph in a file, or that graph itself.

    Raises:
        InputError: no NIR file, no graph.
    """
    nir = import_nir()
    if isinstance(source, nir.NIRGraph):
        return source
    if not isinstance(source, str | Path):
        raise InputError(f"path_or_graph: expected a path or a nir.NIRGraph, got {type(source).__name__}")
    path = Path(source)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        _check_sizes(path)
        # Its own check refuses files that lack shapes, which are repaired here.
        graph = nir.read(str(path), type_check=False)
    except InputError:
        raise
    except Exception as error:
        # h5py and nir raise whatever they stumble over.
        raise InputError(f"{path}: cannot be read as NIR: {line(error)}") from None
    if not isinstance(graph, nir.NIRGraph):
        raise InputError(f"{path}: expected a NIRGraph, got {type(graph).__name__}")
    return graph


def _check_sizes(path: Path) -> None:
    """No array is larger than what its file can unpack to (deflate: at most 1032 times); HDF5 would make it, of zeros."""
    most = DEFLATE * path.stat().st_size

    def check(name: str, one: Any) -> None:
        size = prod(getattr(one, "shape", None) or (1,)) * one.dtype.itemsize if hasattr(one, "dtype") else 0
        if size > most:
            raise InputError(f"{path}: cannot be read as NIR: {name}: {size} bytes do not fit into the file")

    with import_module("h5py").File(path, "r") as file:
        file.visititems(check)


def flat(graph: Any) -> Graph:
    """The graph without subgraphs, with all shapes.

    Raises:
        InputError: nodes that are unknown or do not fit together.
    """
    nodes: dict[str, Any] = {}
    edges: list[tuple[str, str]] = []
    inside: set[str] = set()
    notes: list[str] = []
    _dissolve(graph, "", nodes, edges, inside, notes)
    ordered = sorted(nodes, key=natural)
    before: dict[str, list[str]] = {name: [] for name in ordered}
    after: dict[str, list[str]] = {name: [] for name in ordered}
    for source, target in sorted(set(edges), key=lambda edge: (natural(edge[0]), natural(edge[1]))):
        before[target].append(source)
        after[source].append(target)
    found = Graph({name: nodes[name] for name in ordered}, before, after, frozenset(inside), notes=notes)
    for name in ordered:
        if found.kind(name) == "Input" and before[name]:
            raise InputError(f"{found.where(name)}: an input that gets something, from {before[name][0]!r}")
    _complete(found)
    _infer(found)
    return found


def _dissolve(
    graph: Any, prefix: str, nodes: dict[str, Any], edges: list[tuple[str, str]], inside: set[str], notes: list[str]
) -> None:
    nir = import_nir()
    if not isinstance(graph.nodes, Mapping) or not graph.nodes:
        raise InputError(f"graph {prefix.rstrip('.') or 'NIR'!r}: no nodes")
    doors: dict[str, tuple[list[str], list[str]]] = {}
    for name, node in graph.nodes.items():
        path = f"{prefix}{name}"
        if isinstance(node, nir.NIRGraph):
            _dissolve(node, f"{path}.", nodes, edges, inside, notes)
            doors[name] = tuple(  # type: ignore[assignment]
                [f"{path}.{key}" for key, one in node.nodes.items() if isinstance(one, kind)] for kind in (nir.Input, nir.Output)
            )
            inside.update(doors[name][0], doors[name][1])
            continue
        if type(node).__name__ not in KNOWN:
            raise unknown_name(f"node {path!r}: type", type(node).__name__, KNOWN)
        if path in nodes:
            raise InputError(f"node {path!r}: two nodes have that name")
        nodes[path] = node
    pairs = [tuple(edge) for edge in graph.edges]
    for pair in pairs:
        if len(pair) != 2:
            raise InputError(f"edge {pair!r}: expected two nodes")
        ends = []
        for side, end in enumerate(pair):
            name = end.decode("utf8", "replace") if isinstance(end, bytes) else str(end)
            if name not in graph.nodes:
                raise unknown_name(f"edge {pair!r}: node", name, [str(one) for one in graph.nodes])
            if name in doors:
                door = doors[name][1 - side]
                if len(door) != 1:
                    what = ("Output", "Input")[side]
                    raise InputError(f"edge {pair!r}: subgraph {name!r} has {len(door)} {what} nodes, expected one")
                ends.append(door[0])
            else:
                ends.append(f"{prefix}{name}")
        edges.append((ends[0], ends[1]))
    if len(set(pairs)) < len(pairs):
        notes.append(f"repaired: {len(pairs) - len(set(pairs))} edges were there twice and count once")


def _complete(graph: Graph) -> None:
    """Inputs and Outputs where a graph begins or ends without one, as NIR 1.0.8 adds them.

    Raises:
        InputError: a node that gets nothing in a graph with inputs of its own, or gives nothing in one with outputs: an edge is
            missing, and nobody knows which.
    """
    nir = import_nir()
    kinds = {graph.kind(name) for name in graph.nodes}
    begins, ends_somewhere = "Input" in kinds, "Output" in kinds
    for name in list(graph.nodes):
        kind = graph.kind(name)
        for missing, ends, others, new in (
            (not graph.before[name] and kind != "Input", graph.before, graph.after, f"input_{name}"),
            (not graph.after[name] and kind != "Output", graph.after, graph.before, f"output_{name}"),
        ):
            if not missing:
                continue
            if begins and ends is graph.before:
                raise InputError(f"{graph.where(name)}: gets nothing; expected an edge to it, as the graph has inputs of its own")
            if ends_somewhere and ends is graph.after:
                raise InputError(
                    f"{graph.where(name)}: gives nothing; expected an edge from it, as the graph has outputs of its own"
                )
            if new in graph.nodes:
                raise InputError(f"{graph.where(name)}: is joined to nothing, and the name {new!r} is taken")
            first = ends is graph.before
            graph.nodes[new] = nir.Input(input_type=None) if first else nir.Output(output_type=None)
            graph.before[new], graph.after[new] = [], []
            ends[name], others[new] = [new], [name]
            graph.notes.append(f"repaired: {name} {'gets' if first else 'gives'} nothing; {new} was added")


def _infer(graph: Graph) -> None:
    """Shapes from the inputs on, again and again until none is new."""
    declared = {name: _declared(graph, name) for name in graph.nodes}
    waiting = list(graph.nodes)
    while waiting:
        left = [name for name in waiting if not _settle(graph, name, declared)]
        if len(left) == len(waiting):
            _guess(graph, left, declared)
        waiting = left
    for name in graph.nodes:
        for one in graph.before[name]:
            _check_edge(graph, one, name)


def _settle(graph: Graph, name: str, declared: Mapping[str, Shape | None]) -> bool:
    """Find a node's shapes, if what they depend on is known."""
    if name in graph.gives:
        return True
    own = declared[name]
    arriving = next((graph.gives[one] for one in graph.before[name] if one in graph.gives), None)
    kind = graph.kind(name)
    if kind in ("Affine", "Linear"):
        arriving = own
    elif kind in PARAMETERS or kind in ("Scale", "Delay"):
        if own is not None and prod(own) > 1:
            arriving = own
        elif arriving is not None and own is not None and own != arriving:
            graph.notes.append(f"repaired: {name}: parameters of shape {own} count for all of {arriving}")
    elif kind == "Input":
        arriving = own
    elif kind == "Output" and arriving is not None and own is not None and prod(own) != prod(arriving):
        graph.notes.append(f"repaired: {name} says shape {own}, but gets {arriving}")
    if arriving is None:
        return False
    try:
        _set(graph, name, arriving, own)
    except InputError as error:
        raise InputError(f"{graph.where(name)}: {error}") from None
    return True


def _set(graph: Graph, name: str, arriving: Shape, declared: Shape | None) -> None:
    node, kind = graph.nodes[name], graph.kind(name)
    taken = arriving
    if kind in ("Conv1d", "Conv2d", "SumPool2d", "AvgPool2d"):
        taken = _image(graph, name, arriving, declared)
    if kind in LINEAR:
        if kind == "Flatten" and len(arriving) == 1:
            linear = LinearMap(None, None, arriving)
        else:
            linear = _MAPS[kind](node, taken)
        graph.maps[name] = linear
        graph.gives[name] = linear.shape
    else:
        graph.gives[name] = taken
    graph.takes[name] = taken


def _image(graph: Graph, name: str, shape: Shape, declared: Shape | None) -> Shape:
    """Leading dimensions of 1 (a batch) go, a missing channel comes, a flat image gets the declared shape back."""
    rank = 2 if graph.kind(name) == "Conv1d" else 3
    found = shape
    while len(found) > rank and found[0] == 1:
        found = found[1:]
    if len(found) == rank - 1 and (declared is None or declared[0] == 1):
        found = (1, *found)
    if len(found) != rank and declared is not None and prod(declared) == prod(shape):
        found = declared
    if found != shape:
        graph.notes.append(f"repaired: {name}: takes shape {shape} as {found}")
    return found


def _guess(graph: Graph, left: list[str], declared: Mapping[str, Shape | None]) -> None:
    """A shape for one of the nodes at which inference came to a halt, from what lies behind it."""
    for name in left:
        if graph.kind(name) == "Input":
            for shape in _behind(graph, name, declared):
                graph.takes[name] = graph.gives[name] = shape
                graph.notes.append(f"repaired: {name} had no shape; it takes {shape}, as what follows does")
                return
    for name in left:
        own = declared[name]
        if own is not None:
            _set(graph, name, own, own)
            return
    raise InputError(f"{graph.where(left[0])}: its shape is not given, and nothing around it says one")


def _behind(graph: Graph, name: str, declared: Mapping[str, Shape | None]) -> Iterator[Shape]:
    """Shapes that the nodes behind one take, nearest first; through nodes that leave a shape as it is, large ones before 1."""
    waiting, seen, small = [name], {name}, []
    while waiting:
        one = waiting.pop(0)
        for following in graph.after[one]:
            shape, kind = declared[following], graph.kind(following)
            if shape is not None and prod(shape) > 1:
                yield shape
            elif shape is not None and kind != "pass":
                small.append(shape)
            plain = kind in PARAMETERS or kind in ("Scale", "Delay", "pass")
            if plain and following not in seen:
                seen.add(following)
                waiting.append(following)
    yield from small


def _check_edge(graph: Graph, source: str, target: str) -> None:
    given, taken = graph.gives[source], graph.takes[target]
    if prod(given) != prod(taken):
        raise InputError(f"edge {source!r} to {target!r}: gives shape {given}, takes {taken}")
    if given != taken and graph.kind(target) not in ("Conv1d", "Conv2d", "SumPool2d", "AvgPool2d"):
        graph.notes.append(f"repaired: {source} gives shape {given} and {target} takes {taken}: in C order")


def _declared(graph: Graph, name: str) -> Shape | None:
    """The shape that a node says it takes, where it says one."""
    node, kind = graph.nodes[name], graph.kind(name)
    try:
        if kind in PARAMETERS:
            return _largest(getattr(node, key) for key in PARAMETERS[kind] if getattr(node, key, None) is not None)
        if kind in ("Scale", "Delay"):
            return _largest([node.scale if kind == "Scale" else node.delay])
        if kind in ("Affine", "Linear"):
            *lead, _, inputs = np.shape(node.weight)
            return _shape((*lead, inputs))
        if kind in ("Conv1d", "Conv2d"):
            size = _shape(node.input_shape)
            channels = np.shape(node.weight)[1] * int(np.asarray(node.groups).item())
            return None if size is None else _shape((channels, *size))
        if kind in ("SumPool2d", "AvgPool2d"):
            return None
        if kind == "Output" or (kind == "pass" and type(node).__name__ == "Output"):
            return _shape(node.output_type.get("output"))
        return _shape(node.input_type.get("input"))
    except (TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        raise InputError(f"{graph.where(name)}: {line(error)}") from None


def _largest(parameters: Any) -> Shape:
    """The shape of parameters that may be of one element or of all."""
    shapes = [np.shape(one) or (1,) for one in parameters]
    largest = max(shapes, key=prod)
    if any(prod(shape) not in (1, prod(largest)) for shape in shapes) or not prod(largest):
        raise ValueError(f"parameters of shapes {', '.join(map(str, dict.fromkeys(shapes)))}")
    return tuple(int(n) for n in largest)


def _shape(value: Any) -> Shape | None:
    """Sizes ≥ 1, or None for what says nothing: None, an empty array, dimensions of 0 or less."""
    if value is None:
        return None
    array = np.asarray(value)
    if array.dtype.kind not in "iuf" or not array.size:
        return None
    numbers = [int(n) for n in array.ravel().tolist()]
    return tuple(numbers) if all(0 < n < 2**31 for n in numbers) else None


def line(error: Exception) -> str:
    """An exception in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}" if str(error) else type(error).__name__


def text(value: Any) -> Any:
    """A string that a file may hold as bytes."""
    return value.decode("utf8", "replace") if isinstance(value, bytes) else value


def _convolution(node: Any, shape: Shape) -> LinearMap:
    return linear_maps.convolution(
        node.weight, shape, bias=node.bias, stride=node.stride, padding=text(node.padding), dilation=node.dilation,
        groups=node.groups,
    )  # fmt: skip


def _pool(node: Any, shape: Shape, *, average: bool) -> LinearMap:
    return linear_maps.pooling(shape, kernel=node.kernel_size, stride=node.stride, padding=node.padding, average=average)


_MAPS: Mapping[str, Callable[[Any, Shape], LinearMap]] = {
    "Affine": lambda node, shape: linear_maps.dense(node.weight, node.bias),
    "Linear": lambda node, shape: linear_maps.dense(node.weight),
    "Conv1d": _convolution,
    "Conv2d": _convolution,
    "SumPool2d": lambda node, shape: _pool(node, shape, average=False),
    "AvgPool2d": lambda node, shape: _pool(node, shape, average=True),
    "Flatten": lambda node, shape: linear_maps.flatten(shape, start=int(node.start_dim), end=int(node.end_dim)),
    "Scale": lambda node, shape: linear_maps.scale(node.scale, shape),
}


def parameter(graph: Graph, name: str, key: str) -> npt.NDArray[np.float64]:
    """A parameter of a node whose shape is known, as float64: one number, or one for each that it gives.

    Raises:
        InputError: another number of them, not finite.
    """
    values, count = np.asarray(getattr(graph.nodes[name], key)), prod(graph.gives[name])
    field = f"{graph.where(name)}: {key}"
    if values.dtype.kind not in "biuf" or values.size not in (1, count):
        raise InputError(f"{field}: expected numbers, 1 or {count}, got {values.dtype} of shape {values.shape}")
    finite_numbers(field, values)
    values = values.astype(np.float64).ravel()
    return values[0] if (values == values[0]).all() else values
