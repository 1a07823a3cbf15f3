"""Closed forms: compute cycles of a matmul on a systolic array whose memory is ideal.

With F folds on an R×C array, one-cycle MACs and a stream of S operands a fold (S = M weight-stationary, K output-stationary,
N input-stationary):

==================  ==========================================  ===========================================
fold_overlap        weight- and input-stationary                output-stationary
==================  ==========================================  ===========================================
``none``            F·(2R + C + S − 2)                          F·(S + R + C − 2 + D)
``weights``         R + F·(S + R + C − 2)                       as ``none``
``full``            R + (F−1)·max(S, R) + S + R + C − 2         (F−1)·max(S, D) + S + R + C − 2 + D
==================  ==========================================  ===========================================

D = R where outputs are shifted out unhidden, else 0. F = ⌈K/R⌉·⌈N/C⌉ (weight-stationary), ⌈M/R⌉·⌈N/C⌉ (output-stationary),
⌈K/R⌉·⌈M/C⌉ (input-stationary), times the batch. SCALE-Sim (Samajdar et al., ISPASS 2020, section III) prints the ``none``,
hidden form minus one: an off-by-one its users report (SCALE-Sim issue 125), which these forms do not copy. A MAC latency of L
cycles lengthens the way down the array from R to L·R (partial sums of a stationary operand wait in each row) or the last sum by
L − 1 (output-stationary); a MAC that takes q cycles stretches S to q·(S − 1) + 1 and the interval between folds to q·S,
and no fold is over before its q·S cycles are.

Of several arrays, each takes ⌈F/count⌉ folds. Where a stationary operand leaves the vectors of a stream independent, each fold
may be given to ``split`` arrays, which then stream ⌈S/split⌉ each: F·split parts, ⌈F·split/count⌉ for an array. Small products of
a batch run beside one another while their folds do not exceed the arrays.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from accelerators.systolic.spec import DATAFLOWS, TIMINGS, Timing
from numerics.errors import InputError, unknown_name


def _resolve(dataflow: str, timing: str | Timing) -> tuple[str, Timing]:
    full = DATAFLOWS.get(dataflow, dataflow)
    if full not in DATAFLOWS.values():
        raise unknown_name("dataflow", dataflow, [*DATAFLOWS, *DATAFLOWS.values()])
    if isinstance(timing, str):
        if timing not in TIMINGS:
            raise unknown_name("timing", timing, TIMINGS)
        timing = TIMINGS[timing]
    return full, timing


def folds(m: Any, n: Any, k: Any, *, rows: int, columns: int, dataflow: str, batch: Any = 1) -> Any:
    """Folds of a batched matmul: how often the array is filled anew. Integers or integer arrays."""
    dataflow, _ = _resolve(dataflow, "scale_sim")
    m, n, k = np.asarray(m), np.asarray(n), np.asarray(k)
    along_rows, along_columns = {
        "weight_stationary": (k, n),
        "output_stationary": (m, n),
        "input_stationary": (k, m),
    }[dataflow]
    return batch * (-(-along_rows // rows)) * (-(-along_columns // columns))


class ArrayTime(NamedTuple):
    """What an array does for a matmul whose operands are at hand; integers, or integer arrays.

    Attributes:
        cycles: from the first load to the last result.
        active: cycles in which operands stream.
        load: cycles in which the stationary operand is loaded and nothing streams.
        split: arrays that share the stream of a fold.
        beside: products of the batch that run at the same time.
    """

    cycles: Any
    active: Any
    load: Any
    split: Any
    beside: Any


def compute_cycles(
    m: Any,
    n: Any,
    k: Any,
    *,
    rows: int,
    columns: int,
    dataflow: str,
    timing: str | Timing = "scale_sim",
    batch: Any = 1,
    cycles_per_mac: float = 1,
    arrays: int = 1,
) -> Any:
    """Cycles of C[b] = A[b]·B[b] with A m×k and B k×n, all operands at hand.

    Args:
        m, n, k: sizes, integers or integer arrays (broadcast against each other).
        rows, columns: size of the array.
        dataflow: ``ws``, ``os``, ``is`` or the full names.
        timing: a name of ``TIMINGS`` or a ``Timing``.
        batch: number of independent products.
        cycles_per_mac: cycles a processing element is taken by one MAC.
        arrays: equal arrays that share the work.

    Returns:
        An integer (or integer array) of cycles; a real number where ``cycles_per_mac`` is no integer.

    Raises:
        InputError: a size below one, an unknown dataflow or timing.

    >>> int(compute_cycles(2, 2, 2, rows=2, columns=2, dataflow="ws"))
    6
    """
    return array_time(
        m, n, k, rows=rows, columns=columns, dataflow=dataflow, timing=timing, batch=batch, cycles_per_mac=cycles_per_mac,
        arrays=arrays,
    ).cycles  # fmt: skip


def array_time(
    m: Any,
    n: Any,
    k: Any,
    *,
    rows: int,
    columns: int,
    dataflow: str,
    timing: str | Timing = "scale_sim",
    batch: Any = 1,
    cycles_per_mac: float = 1,
    arrays: int = 1,
) -> ArrayTime:
    """``compute_cycles`` with what they are made of, for the fastest way to share the work among the arrays."""
    dataflow, timing = _resolve(dataflow, timing)
    m, n, k = np.asarray(m, dtype=np.int64), np.asarray(n, dtype=np.int64), np.asarray(k, dtype=np.int64)
    for label, value in (
        ("m", m),
        ("n", n),
        ("k", k),
        ("rows", rows),
        ("columns", columns),
        ("batch", batch),
        ("arrays", arrays),
    ):
        if np.any(np.asarray(value) < 1):
            raise InputError(f"{label}: expected an integer ≥ 1, got {value}")
    count = folds(m, n, k, rows=rows, columns=columns, dataflow=dataflow)
    stream = {"weight_stationary": m, "output_stationary": k, "input_stationary": n}[dataflow]
    beside = products_beside(batch, count, arrays)
    steps = np.asarray(batch) // beside
    found: ArrayTime | None = None
    # An output-stationary array's stream is a sum, which arrays could not share without adding up.
    for split in [1] if dataflow == "output_stationary" else [s for s in range(1, arrays + 1) if arrays % s == 0]:
        each = steps * -(-count * beside * split // arrays)
        part = -(-stream // split)
        candidate = ArrayTime(*_fold_cycles(each, part, rows, columns, dataflow, timing, cycles_per_mac), split, beside)
        if found is None:
            found = candidate
        else:
            better = candidate.cycles < found.cycles
            found = ArrayTime(*(np.where(better, new, old) for new, old in zip(candidate, found, strict=True)))
    assert found is not None
    return found


def products_beside(batch: Any, folds_each: Any, arrays: int) -> Any:
    """Products of a batch that run at the same time: the largest divisor of the batch whose folds do not exceed the arrays."""
    beside = np.ones(np.broadcast_shapes(np.shape(batch), np.shape(folds_each)), dtype=np.int64)
    for count in range(2, arrays + 1):
        fits = (np.asarray(batch) % count == 0) & (count * np.asarray(folds_each) <= arrays)
        beside = np.where(fits, count, beside)
    return beside


def _fold_cycles(
    count: Any, stream: Any, rows: int, columns: int, dataflow: str, timing: Timing, cycles_per_mac: float
) -> tuple[Any, Any, Any]:
    """(all cycles, those of streaming, those of loads that nothing hides) of ``count`` folds on one array."""
    interval = cycles_per_mac * stream
    latency = timing.mac_latency_cycles
    active = count * interval
    if dataflow == "output_stationary":
        drain = rows if timing.output_drain == "shift" else 0
        through = np.maximum(interval - cycles_per_mac + rows + columns - 2 + latency + drain, interval)
        if timing.fold_overlap == "full":
            return (count - 1) * np.maximum(interval, drain) + through, active, 0 * active
        return count * through, active, 0 * active
    through = np.maximum(interval - cycles_per_mac + latency * rows + columns - 1, interval)
    if timing.fold_overlap == "none":
        return count * (rows + through), active, count * rows
    if timing.fold_overlap == "weights":
        return rows + count * through, active, rows + 0 * active
    load = rows + (count - 1) * np.maximum(rows - interval, 0)
    return rows + (count - 1) * np.maximum(interval, rows) + through, active, load
