"""A layer of a binary neural network, computed by the processing elements as the engine's mapping has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from accelerators.binary.mapping import binary_node, place_layer, program_of
from accelerators.binary.spec import BinarySpec, ThresholdPe
from accelerators.binary.threshold_cell import as_integers
from hwsim.views.display import displayed
from numerics import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@displayed
@dataclass(frozen=True)
class LayerRun:
    """What came out.

    Attributes:
        outputs: +1 or −1, int8 of shape (m, n).
        cycles: that the processing elements took.
        waves: of outputs.
    """

    outputs: NDArray[np.int8]
    cycles: int
    waves: int


def sign_threshold(inputs: int) -> int:
    """The count of products of +1 from which their sum is above 0: with c of them the sum is 2c − inputs."""
    return inputs // 2 + 1


def run_layer(spec: BinarySpec, x: Any, w: Any, *, threshold: Any = None) -> LayerRun:
    """Outputs of a layer, wave by wave; on threshold cells each node instruction by instruction.

    Args:
        spec: of the engine.
        x: activations, +1 and −1, shape (m, k).
        w: weights, +1 and −1, shape (n, k).
        threshold: counts from 0 to k + 1 that broadcast to (n,): an output is +1 where as many of its products are; the sign of
            the sum by default (−1 for a sum of 0, as the format ``binary`` rounds it).

    Raises:
        InputError: anything but ±1, shapes that do not fit, thresholds that are no integers or out of range.
    """
    left, right = _signs("x", x), _signs("w", w)
    if left.shape[1] != right.shape[1]:
        raise InputError(f"w: expected shape (n, {left.shape[1]}), got {right.shape}")
    (m, k), n = left.shape, len(right)
    limit = as_integers("threshold", sign_threshold(k) if threshold is None else threshold, (n,))
    if not 0 <= limit.min() <= limit.max() <= k + 1:
        raise InputError(f"threshold: expected 0 to {k + 1}, got {limit.min()} to {limit.max()}")
    node = binary_node(spec.pe, k)
    layer = place_layer(
        1, m, n, k, units=spec.pe.count, node_cycles=node.cycles, bits=(1, 1), bits_per_cycle=8 * spec.operands.bytes_per_cycle
    )
    found = np.zeros((m, n), bool)
    cycles = waves = 0
    for top in range(0, m, layer.rows):
        for first in range(0, n, layer.columns):
            rows, columns = slice(top, top + layer.rows), slice(first, first + layer.columns)
            found[rows, columns], spent = _wave(spec, left[rows], right[columns], limit[columns])
            cycles, waves = cycles + spent, waves + 1
    return LayerRun(np.where(found, 1, -1).astype(np.int8), cycles, waves)


def _wave(
    spec: BinarySpec, x: NDArray[np.bool_], w: NDArray[np.bool_], limit: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], int]:
    (m, k), n = x.shape, len(w)
    inputs, weights = np.repeat(x, n, axis=0), np.tile(w, (m, 1))
    limits = np.tile(limit, m)
    pe = spec.pe
    if isinstance(pe, ThresholdPe):
        outputs, cycles = program_of(pe, k).stepped(inputs, weights, threshold=limits)
        return outputs.reshape(m, n), cycles
    total, cycles = np.zeros(m * n, np.int64), 0
    for at in range(0, k, pe.products_per_cycle):
        part = slice(at, at + pe.products_per_cycle)
        total += np.count_nonzero(inputs[:, part] == weights[:, part], axis=1)
        cycles += 1
    return (total >= limits).reshape(m, n), cycles + pe.compare_cycles


def _signs(name: str, values: Any) -> NDArray[np.bool_]:
    array = np.asarray(values)
    if array.ndim != 2 or 0 in array.shape:
        raise InputError(f"{name}: expected a matrix, got shape {array.shape}")
    wrong = (array != 1) & (array != -1)
    if wrong.any():
        raise InputError(f"{name}: expected +1 and -1, got {array[wrong].flat[0]}")
    return np.asarray(array > 0)
