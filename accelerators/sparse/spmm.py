"""A product of given matrices on the lanes: its result and its exact cycles, as the engine's schedule has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from accelerators.sparse.matrices import as_matrix, compressed_rows, in_blocks, structured
from accelerators.sparse.spec import LaneSpec, SparseSpec, Storage
from hwsim.views.display import displayed
from numerics import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@displayed
@dataclass(frozen=True)
class SpmmRun:
    """What came out.

    Attributes:
        outputs: activations · weightsᵀ, of shape (m, n); integers as int64.
        lane_cycles: with all operands at hand.
        executed_macs: multiply-accumulates that were done.
        weight_bits: of the weights in memory, indices and pointers included.
    """

    outputs: NDArray[Any]
    lane_cycles: float
    executed_macs: int
    weight_bits: float


def run_spmm(
    spec: SparseSpec,
    activations: Any,
    weights: Any,
    *,
    cycles_per_mac: int = 1,
    value_bits: float = 8,
    storage: Storage | None = None,
) -> SpmmRun:
    """``activations @ weights.T`` on the lanes, zeros passed over as the spec has it.

    Args:
        spec: of the engine.
        activations: shape (m, k); zeros and ones will do where only cycles are wanted.
        weights: shape (n, k), dense or of scipy.
        cycles_per_mac: of the format.
        value_bits: of a weight.
        storage: ``dense`` where the weights fell back; as the spec says otherwise.

    Raises:
        InputError: no matrices, shapes that do not fit, weights that are not N:M.
    """
    x, given = as_matrix("activations", activations), as_matrix("weights", weights)
    if x.shape[1] != given.shape[1]:
        raise InputError(f"weights: expected shape (n, {x.shape[1]}), got {given.shape}")
    kind = spec.sparsity.weights if storage is None else storage
    lanes, sparsity, block = spec.lanes, spec.sparsity, spec.sparsity.block
    (m, k), n = x.shape, len(given)
    w, stored, bits = _stored(spec, given, kind, value_bits)
    skipped = sparsity.skips_weights and kind == sparsity.weights
    visits = stored if skipped else np.ones_like(stored)
    looked_up = skipped and kind != "dense"
    widths = np.full(visits.shape[1], block.inputs)
    widths[-1] = k - block.inputs * (len(widths) - 1)
    each = widths * cycles_per_mac + (sparsity.decode_cycles_per_block if looked_up else 0.0)
    sums = np.result_type(*(np.int64 if array.dtype.kind in "iub" else array.dtype for array in (x, w)))
    outputs, cycles, executed = np.zeros((m, n), sums), 0.0, 0
    for top in range(0, m, lanes.width):
        tile = x[top : top + lanes.width].astype(sums)
        here = visits
        if sparsity.skips_activations:
            here = visits & in_blocks(tile != 0, len(tile), block.inputs).any(axis=(0, 2, 3))
        work = here @ each + (lanes.row_cycles if looked_up else 0.0)
        cycles += _until_barrier(np.repeat(work, block.outputs)[:n], lanes)
        for row in range(n):
            columns = np.repeat(here[row // block.outputs], widths)
            outputs[top : top + len(tile), row] = tile[:, columns] @ w[row, columns].astype(sums)
            executed += int(np.count_nonzero(columns)) * len(tile)
    return SpmmRun(outputs, cycles, executed, bits)


def _stored(spec: SparseSpec, w: NDArray[Any], kind: Storage, value_bits: float) -> tuple[NDArray[Any], NDArray[np.bool_], float]:
    """The weights as read back from memory, the blocks that are there or not all zero, and the bits in memory."""
    block = spec.sparsity.block
    if kind == "n_m":
        kept = structured(w, spec.sparsity.n, spec.sparsity.m)
        there = np.zeros((*kept.values.shape[:2], kept.m), bool)
        np.put_along_axis(there, kept.places, True, axis=2)
        return kept.dense(), there.reshape(len(w), -1)[:, : w.shape[1]], kept.bits(value_bits)
    rows = compressed_rows(w, block)
    there = np.zeros((len(rows.pointers) - 1, -(-w.shape[1] // block.inputs)), bool)
    there[np.repeat(np.arange(len(there)), np.diff(rows.pointers)), rows.columns] = True
    if kind == "dense":
        return w, there, w.size * value_bits
    return rows.dense(), there, rows.bits(spec.sparsity, value_bits)


def _until_barrier(work: NDArray[np.float64], lanes: LaneSpec) -> float:
    """Cycles of rows that lanes take in turn."""
    waves = np.zeros((-(-len(work) // lanes.count), lanes.count))
    waves.reshape(-1)[: len(work)] = work
    return float(waves.max(axis=1).sum() if lanes.barrier == "row" else waves.sum(axis=0).max())
