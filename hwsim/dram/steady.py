"""What transfers in a regular pattern reach: a bounded sample of their requests, extrapolated."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.dram.spec import DramSpec
from hwsim.dram.streams import PIECE_BYTES
from hwsim.views.display import displayed
from numerics.errors import InputError

SIXTEENTHS = 16
"""Shares of writes are rounded to these."""
MOST_STREAMS = 8
"""Operands beyond this many count as this many."""

_SAMPLED_UNITS = 2
_INTERVALS = 2  # refresh intervals that are measured, after one to settle
_SPREAD = 256  # requests to each unit, on average, that show how evenly a pattern falls on them
_MOST_REQUESTS = 1 << 16  # of a sampled unit
_GOLDEN = 0.6180339887498949


@displayed
@dataclass(frozen=True)
class Pattern:
    """How a transfer walks through memory.

    Attributes:
        run_bytes: contiguous bytes of a row of the block; None for one contiguous block.
        stride_bytes: from row to row; None where rows lie anywhere (a gather).
        write_fraction: share of the bytes that are written.
        streams: operands that move at the same time, taking turns; one of them is written where some bytes are.

    Raises:
        InputError: a size below one, rows that overlap, a share outside 0 to 1.
    """

    run_bytes: int | None = None
    stride_bytes: int | None = None
    write_fraction: float = 0.0
    streams: int = 1

    def __post_init__(self) -> None:
        if self.run_bytes is not None and self.run_bytes < 1:
            raise InputError(f"run_bytes: expected 1 or more, got {self.run_bytes}")
        if self.stride_bytes is not None and (self.run_bytes is None or self.stride_bytes < self.run_bytes):
            raise InputError(f"stride_bytes: expected run_bytes {self.run_bytes} or more, got {self.stride_bytes}")
        if not 0 <= self.write_fraction <= 1:
            raise InputError(f"write_fraction: expected a share from 0 to 1, got {self.write_fraction}")
        if self.streams < 1:
            raise InputError(f"streams: expected 1 or more, got {self.streams}")


@displayed
@dataclass(frozen=True)
class Achieved:
    """What a pattern reaches.

    Attributes:
        bytes_per_s: bytes asked for a second; what bursts move besides does not count.
        pj_per_byte: energy of a byte asked for.
        row_hit_rate: share of the requests that find their row open.
        balance: requests to the mean unit over those to the busiest.
    """

    bytes_per_s: float
    pj_per_byte: float
    row_hit_rate: float
    balance: float


def steady(spec: DramSpec, pattern: Pattern) -> Achieved:
    """What a transfer without end in this pattern reaches.

    Runs begin at bursts, shares of writes are rounded to sixteenths, and runs beyond what all banks hold open count as one
    contiguous block. One unit in a few is simulated over whole refresh intervals; the units' shares of the requests, counted over
    all of them, say what the whole memory does. Start-up is not part of it.
    """
    burst = spec.burst_bytes
    run = 0 if pattern.run_bytes is None else -(-pattern.run_bytes // burst)
    stride = 0 if pattern.stride_bytes is None else max(run, -(-pattern.stride_bytes // burst))
    scattered = run > 0 and pattern.stride_bytes is None
    open_bursts = spec.units * spec.ranks * spec.bank_groups * spec.banks_per_group * spec.row_bytes // burst
    if run >= open_bursts or (run and run == stride):
        run, stride, scattered = 0, 0, False
    writes = round(pattern.write_fraction * SIXTEENTHS)
    found = _sampled(spec, run, stride, scattered, writes, min(pattern.streams, MOST_STREAMS))
    useful = pattern.run_bytes / (run * burst) if run and pattern.run_bytes is not None else 1.0
    return Achieved(found.bytes_per_s * useful, found.pj_per_byte / useful, found.row_hit_rate, found.balance)


@lru_cache(maxsize=4096)
def _sampled(spec: DramSpec, run: int, stride: int, scattered: bool, writes: int, streams: int) -> Achieved:
    """``steady`` in whole bursts."""
    from hwsim.dram import _control_kernels as control
    from hwsim.dram import _kernels as kernels
    from hwsim.dram.controller import mapping_tables, parameters, unit_shape

    par = parameters(spec)
    interval = spec.cycles["t_refi"]
    end = interval * (1 + _INTERVALS)
    wanted = min(end // spec.burst_cycles + spec.window + 64, _MOST_REQUESTS)
    units = spec.units
    limit = spec.capacity_bytes // spec.burst_bytes
    bases = np.array([_base(spec, i, streams) for i in range(streams)], dtype=np.int64)
    piece = PIECE_BYTES // spec.burst_bytes if run == 0 else min(run, PIECE_BYTES // spec.burst_bytes)
    piece = max(1, piece)
    shape = unit_shape(spec)
    tables = mapping_tables(spec)

    def make(chosen: npt.NDArray[np.int64], slots: int, most: int) -> tuple[Any, Any, Any]:
        out = np.zeros((slots, wanted, 3), dtype=np.int64)
        filled = np.zeros(slots, dtype=np.int64)
        hits = np.zeros(units, dtype=np.int64)
        kernels.sample(
            bases, limit, run, stride, scattered, writes, piece, chosen, wanted, most, *tables, shape, out, filled, hits
        )
        return out, filled, hits

    # The unit that a short sample finds busiest, in the long one: its lead there is the pattern's, not the sample's.
    chosen = np.full(units, -1, dtype=np.int64)
    _, _, hits = make(chosen, 1, units * _SPREAD)
    order = np.argsort(-hits, kind="stable")
    order = order[hits[order] > 0]
    picked = [int(order[0]), *order[len(order) // 2 :][: _SAMPLED_UNITS - 1].tolist()][: len(order)]
    chosen[picked] = np.arange(len(picked))
    out, filled, hits = make(chosen, len(picked), 4 * units * wanted)
    share = max(float(hits[picked[0]] / hits.sum()), 1 / units)

    served, cycles = 0, 0
    counts = np.zeros(control.COUNTERS, dtype=np.int64)
    nothing = np.zeros((0, 4), dtype=np.int64)
    for slot in range(len(picked)):
        n = int(filled[slot])
        issued = np.empty(n, dtype=np.int64)
        counter = np.zeros(control.COUNTERS, dtype=np.int64)
        bank, row, write = (np.ascontiguousarray(out[slot, :n, i]) for i in range(3))
        control.schedule(bank, row, write.astype(np.bool_), np.zeros(n, dtype=np.int64), par, end - 1, issued, counter, nothing)
        counts += counter
        issued = issued[issued >= 0]
        last = int(issued.max(initial=0))
        begin, finish = (interval, end) if last >= end - interval else (0, last + spec.burst_cycles)
        served += int(((issued >= begin) & (issued < finish)).sum())
        cycles += finish - begin
    per_unit = served / cycles * spec.clock_hz * spec.burst_bytes
    total = min(per_unit / share, spec.peak_bytes_per_s)
    requests = int(counts[control.READS] + counts[control.WRITES])
    energy = spec.energy
    commands = (
        counts[control.ACTIVATES] * energy.activate_pj
        + counts[control.READS] * energy.read_pj
        + counts[control.WRITES] * energy.write_pj
    )
    refresh = energy.refresh_pj * 1e-12 * spec.clock_hz / interval if spec.refresh != "none" else 0.0
    idle_w = units * spec.ranks * (energy.background_w + refresh)
    pj = float(commands) / (requests * spec.burst_bytes) + idle_w / total * 1e12
    hit_rate = float(counts[control.HITS] / (counts[control.HITS] + counts[control.MISSES] + counts[control.CONFLICTS]))
    return Achieved(total, pj, hit_rate, 1 / (units * share))


def _base(spec: DramSpec, operand: int, operands: int) -> int:
    """First burst of an operand: they lie apart, on pages of 4 KiB, at no special place."""
    page = max(1, PIECE_BYTES // spec.burst_bytes)
    place = (operand * _GOLDEN) % 1.0
    return int(place * spec.capacity_bytes / spec.burst_bytes) // page * page
