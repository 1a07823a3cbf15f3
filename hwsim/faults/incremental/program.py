"""The compiler: an emulated network's recorded calls as steps on maps."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hwsim.faults.incremental import layout
from hwsim.faults.incremental.layout import LANES, TILE_ROWS
from hwsim.faults.incremental.recording import RecordedCall, Unsupported, record
from hwsim.faults.incremental.rounding_steps import Operation, Tables, table

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from hwsim.faults.incremental.product_steps import ProductOperands
    from numerics.emulation import Emulation

Shape = tuple[int, int, int]
"""Rows, columns and channels of a map of one image."""


@dataclass
class Step:
    """One step.

    Attributes:
        kind: of ``layout``.
        inputs: numbers of the values that it takes.
        output: number of the value that it makes.
        post: operations on its result.
        fields: columns of the table of steps.
        pre: operations that quantise a product's operand.
        product: of a product.
    """

    kind: int
    inputs: tuple[int, ...]
    output: int
    post: list[Operation] = field(default_factory=list)
    fields: dict[int, int] = field(default_factory=dict)
    pre: list[Operation] = field(default_factory=list)
    product: ProductOperands | None = None


@dataclass(frozen=True)
class Program:
    """A compiled network.

    Attributes:
        shapes: of the values; the first is the input, the last the output.
        steps: in order; value i + 1 is made by step i.
        values, table: as kernels take them, see ``layout``.
        constants, operations, formats: likewise.
        golden_size: numbers that a golden run keeps of an image.
        areas: where the areas of a thread's scratch array begin, and its size.
        most_indices: of a thread's index arrays.
        own_order: operators that are computed in an order of these kernels' own.
    """

    shapes: list[Shape]
    steps: list[Step]
    values: NDArray[np.int64]
    table: NDArray[np.int64]
    constants: NDArray[np.float32]
    operations: NDArray[np.int64]
    formats: NDArray[np.uint32]
    golden_size: int
    areas: NDArray[np.int64]
    most_indices: int
    own_order: tuple[str, ...]


class Compiler:
    """Turns calls into steps, one after the other.

    Attributes:
        emulation: the network.
        tables: constants and formats so far.
        shapes: of the values so far.
        steps: so far.
        own_order: see ``Program``.
    """

    def __init__(self, emulation: Emulation) -> None:
        self.emulation = emulation
        self.tables = Tables()
        self.shapes: list[Shape] = []
        self.steps: list[Step] = []
        self.own_order: list[str] = []
        self._value_of: dict[int, int] = {}
        self._kept: list[Any] = []

    # --- values -------------------------------------------------------------------------------------------------------------

    def see(self, x: torch.Tensor, value: int) -> None:
        """A tensor holds a value from now on."""
        self._value_of[id(x)] = value
        self._kept.append(x)

    def value(self, x: Any) -> int | None:
        """The value that a tensor holds; None for one that does not depend on the input."""
        return self._value_of.get(id(x))

    def needs(self, x: Any, call: RecordedCall) -> int:
        """The value that an operator computes from.

        Raises:
            Unsupported: it is none.
        """
        found = self.value(x)
        if found is None:
            raise Unsupported(f"{call.where}: has an operand that does not come from the images; incremental runs need it to")
        return found

    def step(self, kind: int, inputs: tuple[int, ...], shape: Shape, post: list[Operation], **more: Any) -> int:
        """Append a step; the number of its result."""
        self.shapes.append(shape)
        self.steps.append(Step(kind, inputs, len(self.shapes) - 1, post, **more))
        return len(self.shapes) - 1

    def result(self, call: RecordedCall) -> list[Operation]:
        """What rounds a call's result."""
        return self.tables.elementwise(self.emulation, call.key("elementwise"), call.where)

    def operand(self, call: RecordedCall, x: Any, number: int) -> int:
        """An operand of what is no product (its first is number 1), rounded where it has not been."""
        value = self.needs(x, call)
        post = self.tables.elementwise(self.emulation, call.key(f"elementwise_{number + 1}"), call.where)
        return self.step(layout.POINT, (value,), self.shapes[value], post) if post else value

    def shape_of(self, x: torch.Tensor, call: RecordedCall) -> Shape:
        """The map that a tensor of all images is for one.

        Raises:
            Unsupported: another number of axes.
        """
        if x.ndim == 4:
            return (x.shape[2], x.shape[3], x.shape[1])
        if x.ndim == 2:
            return (1, 1, x.shape[1])
        raise Unsupported(f"{call.where}: incremental runs take maps and vectors, got shape {tuple(x.shape)}")

    # --- the network --------------------------------------------------------------------------------------------------------

    def compile(self, images: torch.Tensor) -> Program:
        """The network as it computes these images.

        Raises:
            Unsupported: something that incremental runs do not take.
        """
        from hwsim.faults.incremental.operator_steps import HANDLERS, passes

        calls, given, result = record(self.emulation, images)
        start = RecordedCall("input", "", (), {}, given)
        self.shapes.append(self.shape_of(given, start))
        self.see(given, 0)
        for call in calls:
            if not _depends(self, call):
                continue
            handler = HANDLERS.get(call.name)
            if handler is not None:
                self.see(call.result, handler(self, call))
            elif not passes(call):
                raise Unsupported(f"{call.where}: incremental runs have no such operator")
        end = self.value(result)
        if end is None or result.ndim != 2:
            raise Unsupported(f"model: incremental runs need an output (images, classes), got {tuple(result.shape)}")
        return finish(self, end)


def _depends(compiler: Compiler, call: RecordedCall) -> bool:
    """Whether a call takes or gives a tensor that depends on the input."""
    import torch

    pending: list[Any] = [call.args, call.kwargs]
    while pending:
        item = pending.pop()
        if isinstance(item, torch.Tensor) and compiler.value(item) is not None:
            return True
        if isinstance(item, dict):
            pending += item.values()
        elif isinstance(item, tuple | list):
            pending += item
    return False


# --- the tables -------------------------------------------------------------------------------------------------------------


def _fuse(steps: list[Step], end: int) -> tuple[list[Step], int]:
    """Operations on a value that nothing else needs join the step that makes it; steps whose result nothing needs go."""
    while True:
        uses: dict[int, int] = {end: 1}
        for step in steps:
            for value in step.inputs:
                uses[value] = uses.get(value, 0) + 1
        kept = [step for step in steps if uses.get(step.output)]
        makers = {step.output: step for step in kept}
        alone = {value for value in makers if uses[value] == 1 and value != end}
        joined = next((step for step in kept if step.kind == layout.POINT and step.inputs[0] in alone), None)
        if joined is None and len(kept) == len(steps):
            return kept, end
        steps = kept
        if joined is not None:
            maker = makers[joined.inputs[0]]
            at = steps.index(maker)
            steps[at] = replace(maker, post=[*maker.post, *joined.post], output=joined.output)
            steps.remove(joined)


def finish(compiler: Compiler, end: int) -> Program:
    """The program whose output is the value ``end``."""
    steps, end = _fuse(compiler.steps, end)
    if not steps:
        raise Unsupported("model: has no operators; incremental runs need some")
    if steps[-1].output != end:
        raise Unsupported("model: computes something after its output; incremental runs need the output last")
    number = {0: 0, **{step.output: i + 1 for i, step in enumerate(steps)}}
    shapes = [compiler.shapes[0], *(compiler.shapes[step.output] for step in steps)]
    steps = [replace(s, inputs=tuple(number[v] for v in s.inputs), output=number[s.output]) for s in steps]
    values = np.zeros((len(shapes), layout.VALUE_COLUMNS), np.int64)
    golden = scratch = 0
    for i, shape in enumerate(shapes):
        values[i] = (*shape, golden, scratch)
        golden += math.prod(shape)
        scratch += math.prod(shape)
    rows = np.zeros((len(steps), layout.STEP_COLUMNS), np.int64)
    operations: list[Operation] = []
    operand = patch = sums = block = indices = 0
    for row, step in zip(rows, steps, strict=True):
        for column, entry in step.fields.items():
            row[column] = entry
        row[layout.KIND], row[layout.INPUT], row[layout.OUTPUT] = step.kind, step.inputs[0], step.output
        row[layout.OTHER] = step.inputs[-1]
        for first, last, some in ((layout.POST, layout.POST_END, step.post), (layout.PRE, layout.PRE_END, step.pre)):
            row[first], row[last] = len(operations), len(operations) + len(some)
            operations += some
        if step.product is None:
            continue
        (height, width, channels), out = shapes[step.inputs[0]], shapes[step.output]
        row[layout.OPERAND] = golden
        golden += height * width * channels
        if row[layout.MODE] != layout.FLOATS:
            row[layout.SUMS] = golden
            golden += math.prod(out)
        reach_y = (out[0] - 1) * row[layout.STRIDE_Y] + (row[layout.KERNEL_Y] - 1) * row[layout.DILATION_Y] + 1
        reach_x = (out[1] - 1) * row[layout.STRIDE_X] + (row[layout.KERNEL_X] - 1) * row[layout.DILATION_X] + 1
        positions = out[0] * out[1] + TILE_ROWS
        operand = max(operand, height * width * channels)
        patch = max(patch, int(reach_y * (reach_x + row[layout.STRIDE_X])) * channels + LANES)
        sums = max(sums, positions * int(max(row[layout.GROUPS] * row[layout.PADDED], out[2], LANES)))
        block = max(block, int(row[layout.DEPTH]))
        indices = max(indices, int(row[layout.DEPTH]), positions, out[2])
    # The last place is spare: views that end there are never empty.
    areas = np.cumsum([scratch, operand, patch, sums, block + 1])
    constants = np.concatenate([*compiler.tables.constants, np.zeros(1, np.float32)])
    formats = np.array(compiler.tables.formats, np.uint32).reshape(-1, layout.FORMAT_COLUMNS)
    return Program(
        shapes, steps, values, rows, constants, table(operations), formats, golden, areas, indices, tuple(compiler.own_order)
    )  # fmt: skip
