"""How benches measure latencies: a lone operand, then a burst at full rate, and the cycles in which their results show.

A trace begins with a reset (for a unit without registers, with zeros), an operand alone, some idle cycles, a burst, and idle
cycles again. Every result is known and differs from those around it, so that the cycle in which it shows is found in what the
unit showed and not where the model has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rtl.bench import Latency

BURST = 5
"""Operands of the burst."""

OPERANDS = 1 + BURST
"""All operands of the probe: the lone one and the burst."""

IDLE = 4
"""Cycles before and after the burst, more than any result takes that these operands give."""

_LONE = 1
_BURST_FROM = _LONE + 1 + IDLE

CYCLES = _BURST_FROM + BURST + IDLE
"""Cycles of the probe, the reset included."""

taken: npt.NDArray[np.bool_] = np.isin(np.arange(CYCLES), [_LONE, *range(_BURST_FROM, _BURST_FROM + BURST)])
"""The probe's cycles with an operand."""


def probe(operands: Any) -> npt.NDArray[Any]:
    """Operands (OPERANDS, ...) in the cycles of the probe, zeros in the idle ones: (CYCLES, ...)."""
    values = np.asarray(operands)
    placed = np.zeros((CYCLES, *values.shape[1:]), values.dtype)
    placed[taken] = values
    return placed


def first_shown(observed: npt.NDArray[Any], value: int, after: int) -> int:
    """The first cycle from ``after`` on in which an output (cycles,) shows a value.

    Raises:
        ValueError: it never does.
    """
    found = np.flatnonzero(observed[after:] == value)
    if not found.size:
        raise ValueError(f"no output shows {value:#x} from cycle {after} on")
    return after + int(found[0])


def measured(lone: tuple[int, int], given: Sequence[int], shown: Sequence[int], stall: str) -> Latency:
    """The latency of what was seen.

    Args:
        lone: cycle of an operand that comes alone, and that of its result.
        given: cycles of operands at full rate.
        shown: cycles of their results, at least two.
        stall: what back-pressure does.
    """
    rate = float(shown[-1] - shown[0]) / (len(shown) - 1)
    return Latency(int(lone[1] - lone[0]), rate, int(shown[-1] - given[-1]), stall)


def probed(observed: npt.NDArray[Any], results: Iterable[int], stall: str, valid: npt.NDArray[Any] | None = None) -> Latency:
    """The latency that an output shows to the probe.

    Args:
        observed: the output, (cycles,).
        results: of the probe's operands, in their order; no two alike.
        stall: what back-pressure does.
        valid: the output that marks results, if the unit has one; without it a result counts from where it shows.
    """
    window = observed[:CYCLES]
    marked = np.ones(len(window), np.bool_) if valid is None else valid[:CYCLES] != 0
    expected = list(results)
    # What is not marked as a result shows nothing.
    codes = np.where(marked, window.astype(object), -1)
    operands = np.flatnonzero(taken)
    cycles = [first_shown(codes, value, int(at)) for value, at in zip(expected, [_LONE] + [_BURST_FROM] * BURST, strict=True)]
    return measured((int(operands[0]), cycles[0]), operands[1:].tolist(), cycles[1:], stall)
