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


def threshold_gate(inputs: Any, weights: Any, threshold: Any) -> NDArray[np.bool_]:
    """Whether Σ weights · inputs ≥ threshold.

    Args:
        inputs: bits, shape (..., n).
        weights: integers, shape (n,).
        threshold: integers that broadcast to the shape of the result.

    Returns:
        bool, shape (...).

    Raises:
        InputError: another number of weights than inputs.
    """
    bits, factors = np.asarray(inputs, bool), np.asarray(weights)
    if bits.ndim == 0 or factors.shape != bits.shape[-1:]:
        raise InputError(f"weights: expected one for each of the inputs of shape {bits.shape}, got shape {factors.shape}")
    return np.asarray(bits @ factors >= np.asarray(threshold), bool)


def literals(x: Any, w: Any) -> NDArray[np.bool_]:
    """Products of numbers ±1 that are written as bits (1 for +1): XNOR. A weight of 1 passes an input, 0 inverts it."""
    return np.asarray(np.asarray(x, bool) == np.asarray(w, bool))


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
        InputError: a state of another shape, or a number that is no operation.
    """
    values = np.asarray(bits, bool)
    if values.ndim == 0 or values.shape[-1] == 0:
        raise InputError(f"bits: expected shape (..., inputs) with an input or more, got {values.shape}")
    held = np.asarray(state, bool)
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
