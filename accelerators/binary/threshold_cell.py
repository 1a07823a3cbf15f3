"""A programmable threshold-logic cell: neuron, addition, comparison and max-pooling as one kind of gate with other thresholds.

The cell of "A Configurable BNN ASIC using a Network of Programmable Threshold Logic Standard Cells" (TULIP; Wagle, Khatri and
Vrudhula, ICCD 2020): a gate whose output is whether a weighted sum of bits reaches a threshold, and a register. One parameter
chooses which operation of a binary neural network it is; words are added and compared bit by bit, the lowest first.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from numerics import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Operation(IntEnum):
    """What a cell is set to; the numbers are those of ``rtl/threshold_neuron.sv``."""

    NEURON = 0
    """Whether as many literals as the threshold are 1."""
    ADD = 1
    """A bit of a + b; the state is the carry."""
    COMPARE = 2
    """Whether a > b, as far as the bits have come; a ≥ b where the state begins as 1."""
    MAX_POOL = 3
    """Whether a literal is or was 1."""


def as_bits(name: str, values: Any) -> NDArray[np.bool_]:
    """``values`` as bool, so that −1 of numbers ±1 is not taken for a 1.

    Raises:
        InputError: anything but booleans, 0 and 1.
    """
    array = np.asarray(values)
    if array.dtype != np.bool_:
        wrong = (array != 0) & (array != 1)
        if wrong.any():
            raise InputError(f"{name}: expected bits, 0 or 1 (+1 is 1 and -1 is 0), got {array[wrong].flat[0]}")
    return array.astype(bool)


def as_integers(name: str, values: Any, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """``values`` as int64 of a shape, to which they broadcast.

    Raises:
        InputError: no integers, or of another shape.
    """
    array = np.asarray(values)
    if array.dtype.kind not in "iu" and array.size:
        raise InputError(f"{name}: expected integers, got {array.dtype}")
    return broadcast(name, array.astype(np.int64), shape)


def broadcast(name: str, array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """``array`` in a shape.

    Raises:
        InputError: it does not broadcast to it.
    """
    try:
        return np.broadcast_to(array, shape)
    except ValueError:
        raise InputError(f"{name}: expected a shape that broadcasts to {shape}, got {array.shape}") from None


def threshold_gate(inputs: Any, weights: Any, threshold: Any) -> NDArray[np.bool_]:
    """Whether Σ weights · inputs ≥ threshold.

    Args:
        inputs: bits, shape (..., n).
        weights: integers, shape (n,).
        threshold: integers that broadcast to the shape of the result.

    Returns:
        bool, shape (...).

    Raises:
        InputError: inputs that are no bits, another number of weights than inputs, weights or thresholds that are no integers or
            thresholds of another shape.
    """
    bits, factors = as_bits("inputs", inputs), np.asarray(weights)
    if bits.ndim == 0 or factors.shape != bits.shape[-1:]:
        raise InputError(f"weights: expected one for each of the inputs of shape {bits.shape}, got shape {factors.shape}")
    limits = as_integers("threshold", threshold, bits.shape[:-1])
    return np.asarray(bits @ as_integers("weights", factors, factors.shape) >= limits, bool)


def literals(x: Any, w: Any) -> NDArray[np.bool_]:
    """Products of numbers ±1 that are written as bits (1 for +1): XNOR. A weight of 1 passes an input, 0 inverts it.

    Args:
        x, w: bits, of shapes that broadcast to each other.

    Raises:
        InputError: anything but bits, or shapes that do not broadcast.
    """
    bits, weights = as_bits("x", x), as_bits("w", w)
    try:
        return np.asarray(bits == weights)
    except ValueError:
        raise InputError(f"w: expected a shape that broadcasts with that of x, {bits.shape}, got {weights.shape}") from None


def step(
    operation: Operation | int, bits: Any, state: Any = False, *, first: bool = False, threshold: Any = 0
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """One cycle of a cell, or of any number of cells that do the same operation on other bits.

    An addition and a comparison read a, b and, if ``first``, the state they begin with from the first three literals; those that
    a cell lacks are 0. A window of a max-pool begins with a state of 0.

    Args:
        operation: what the cell is set to.
        bits: the literals, shape (..., inputs).
        state: of the cells, shape (...).
        first: whether a word or a window begins.
        threshold: of a neuron, integers that broadcast to (...).

    Returns:
        The output bit and the next state, both of shape (...).

    Raises:
        InputError: anything but bits, a state or threshold of another shape, a threshold that is no integer, or a number that is
            no operation.
    """
    values = as_bits("bits", bits)
    if values.ndim == 0 or values.shape[-1] == 0:
        raise InputError(f"bits: expected shape (..., inputs) with an input or more, got {values.shape}")
    held = as_bits("state", state)
    if held.shape not in ((), values.shape[:-1]):
        raise InputError(f"state: expected shape {values.shape[:-1]}, got {held.shape}")
    held = np.broadcast_to(held, values.shape[:-1])
    if operation not in list(Operation):
        raise InputError(f"operation: expected {', '.join(f'{o.value} ({o.name})' for o in Operation)}, got {operation!r}")
    if operation == Operation.NEURON:
        return threshold_gate(values, np.ones(values.shape[-1], int), threshold), held
    if operation == Operation.MAX_POOL:
        window = np.concatenate([values, (held & (not first))[..., None]], axis=-1)
        found = threshold_gate(window, np.ones(window.shape[-1], int), 1)
        return found, found
    absent = np.zeros(values.shape[:-1], bool)
    a, b, begin = (values[..., i] if i < values.shape[-1] else absent for i in range(3))
    carried = begin if first else held
    if operation == Operation.COMPARE:
        greater = threshold_gate(np.stack([a, ~b, carried], axis=-1), [1, 1, 1], 2)
        return greater, greater
    carry = threshold_gate(np.stack([a, b, carried], axis=-1), [1, 1, 1], 2)
    return threshold_gate(np.stack([a, b, carried, ~carry], axis=-1), [1, 1, 1, 2], 3), carry
