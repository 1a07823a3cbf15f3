"""ONNX's recurrent layers as matmuls: one over all steps for the inputs, then one a step for the state.

The sequences count as full (``sequence_lens`` shortens none of them) and the activation functions as the
default ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from hwsim.operators import DataMovement, Elementwise, Matmul
from hwsim.tracing._onnx_walk import Node, Walk


@dataclass(frozen=True)
class _Layer:
    """One direction of a recurrent layer: names of its tensors and its sizes."""

    walk: Walk
    node: Node
    tag: str
    recurrence: str
    projected: str
    batch: int
    hidden: int
    gates: int
    format: str

    def tensor(self, part: str, width: int) -> str:
        """A new tensor of one step, ``batch`` × ``width``."""
        return self.walk.new_tensor(self.node, f"{part}{self.tag}", (self.batch, width), format=self.format)

    def slice_of_projection(self, step: int) -> str:
        """The projected inputs of one step."""
        shape = (self.batch, self.gates * self.hidden)
        return self.walk.new_tensor(self.node, f"projected{self.tag}.{step}", shape, format=self.format, view_of=self.projected)

    def matmul(self, part: str, state: str, gates: int) -> str:
        """``gates`` gates' share of the state of one step."""
        output, weight = self.tensor(part, gates * self.hidden), self.recurrence
        if gates < self.gates:
            weight = self.walk.new_tensor(
                self.node,
                f"{part}{self.tag}.weight",
                (gates * self.hidden, self.hidden),
                format="",
                view_of=weight,
            )
        self.walk.emit(
            Matmul, self.node, (state, weight), (output,), part=f"{part}{self.tag}", m=self.batch,
            n=gates * self.hidden, k=self.hidden,
        )  # fmt: skip
        return output

    def cell(self, part: str, operation: str, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> None:
        """The element-wise part of one step."""
        self.walk.emit(
            Elementwise, self.node, inputs, outputs, part=f"{part}{self.tag}", operation=operation,
            elements=self.batch * self.hidden,
        )  # fmt: skip


Step = Callable[[_Layer, int, str, str], tuple[str, str]]
"""(layer, step, hidden state, cell state) → the next two."""


def _lstm_step(layer: _Layer, step: int, hidden: str, cell: str) -> tuple[str, str]:
    recurrent = layer.matmul(f"recurrent.{step}", hidden, 4)
    new_hidden, new_cell = (
        layer.tensor(f"hidden.{step}", layer.hidden),
        layer.tensor(f"cell.{step}", layer.hidden),
    )
    inputs = (layer.slice_of_projection(step), recurrent, cell)
    layer.cell(f"cell.{step}", "lstm_cell", inputs, (new_hidden, new_cell))
    return new_hidden, new_cell


def _gru_step(layer: _Layer, step: int, hidden: str, cell: str) -> tuple[str, str]:
    inputs = layer.slice_of_projection(step)
    gates, reset = layer.tensor(f"gates.{step}", layer.hidden), layer.tensor(f"reset.{step}", layer.hidden)
    new_hidden = layer.tensor(f"hidden.{step}", layer.hidden)
    if layer.node.get("linear_before_reset", 0):
        recurrent = layer.matmul(f"recurrent.{step}", hidden, 3)
        layer.cell(f"gates.{step}", "gru_gates", (inputs, recurrent), (gates, reset))
    else:
        recurrent = layer.matmul(f"recurrent.{step}", hidden, 2)
        layer.cell(f"gates.{step}", "gru_gates", (inputs, recurrent, hidden), (gates, reset))
        reset = layer.matmul(f"candidate.{step}", reset, 1)
    layer.cell(f"update.{step}", "gru_update", (inputs, reset, gates, hidden), (new_hidden,))
    return new_hidden, cell


def _rnn_step(layer: _Layer, step: int, hidden: str, cell: str) -> tuple[str, str]:
    recurrent = layer.matmul(f"recurrent.{step}", hidden, 1)
    new_hidden = layer.tensor(f"hidden.{step}", layer.hidden)
    layer.cell(f"cell.{step}", "rnn_cell", (layer.slice_of_projection(step), recurrent), (new_hidden,))
    return new_hidden, cell


def _expand(walk: Walk, node: Node, gates: int, take_step: Step) -> None:
    x, weight, recurrence, bias = (*node.inputs[:3], node.input(3))
    shape = walk.shape(node, x)
    for name, size in ((x, shape), (recurrence, walk.shape(node, recurrence))):
        if len(size) != 3:
            raise walk.error(node, f"{name!r}: expected three dimensions, got the shape {size}")
    batch, length = shape[:2] if node.get("layout", 0) else (shape[1], shape[0])
    width, (directions, _, hidden) = shape[2], walk.shape(node, recurrence)
    walk.as_weights((weight, recurrence, bias))
    finals: list[tuple[str, str]] = []
    steps: list[str] = []
    for direction in range(directions):
        tag = "" if directions == 1 else f".{direction}"

        def part_of(name: str, part: str, shape: tuple[int, ...], tag: str = tag) -> str:
            """One direction's share of a tensor."""
            if not name or not tag:
                return name
            return walk.new_tensor(node, part + tag, shape, format="", view_of=name)

        rows = gates * hidden
        projected = walk.new_tensor(node, f"projected{tag}", (length, batch, rows), format=walk.format(x))
        own_bias = part_of(bias, "bias", (2 * rows,))
        walk.emit(
            Matmul, node, (x, part_of(weight, "weight", (rows, width)), own_bias), (projected,),
            part=f"projection{tag}", m=length * batch, n=rows, k=width, bias=bool(bias),
        )  # fmt: skip
        own_recurrence = part_of(recurrence, "recurrence", (rows, hidden))
        layer = _Layer(walk, node, tag, own_recurrence, projected, batch, hidden, gates, walk.format(x))

        def initial(position: int, part: str, tag: str = tag, part_of: Callable[..., str] = part_of) -> str:
            """The state before the first step, zeros unless the file gives it."""
            given = part_of(node.input(position), part, (batch, hidden))
            if given:
                return given
            return walk.new_tensor(node, part + tag, (batch, hidden), format=walk.format(x), role="state")

        state = initial(5, "initial_hidden")
        cell = initial(6, "initial_cell") if node.kind == "LSTM" else ""
        order = range(length)
        backward = node.get("direction", "forward") == "reverse" or direction == 1
        for step in reversed(order) if backward else order:
            state, cell = take_step(layer, step, state, cell)
            steps.append(state)
        finals.append((state, cell))

    hiddens, cells = (tuple(dict.fromkeys(part)) for part in zip(*finals, strict=True))
    for position, parts in enumerate((tuple(steps), hiddens, cells)):
        output = node.output(position)
        if output:
            elements = math.prod(walk.shape(node, output))
            walk.emit(DataMovement, node, parts, (output,), part=f"output{position}", elements=elements)


def lstm(walk: Walk, node: Node) -> None:
    """LSTM; the peephole weights, where given, are three more products an element and step."""
    _expand(walk, node, 4, _lstm_step)
    if node.input(7):
        length, batch, _ = walk.shape(node, node.inputs[0])
        elements = length * batch * walk.size(node, node.inputs[7])
        walk.emit(
            Elementwise,
            node,
            node.inputs[7:8],
            (),
            part="peepholes",
            operation="multiply_add",
            elements=elements,
        )


def gru(walk: Walk, node: Node) -> None:
    """GRU: where the reset comes before the state's matmul, that matmul waits for it."""
    _expand(walk, node, 3, _gru_step)


def rnn(walk: Walk, node: Node) -> None:
    """A simple recurrent layer."""
    _expand(walk, node, 1, _rnn_step)
