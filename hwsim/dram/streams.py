"""The address streams of tile transfers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hwsim.views.display import displayed
from numerics.errors import InputError

PIECE_BYTES = 4096
"""Operands that move at the same time take turns in pieces of this size."""


@displayed
@dataclass(frozen=True)
class Stream:
    """Requests in order.

    Attributes:
        addresses: (n,) byte addresses of bursts.
        is_write: (n,) whether each writes.
    """

    addresses: npt.NDArray[np.int64]
    is_write: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return self.addresses.size


def block(
    base: int, *, runs: int, run_bytes: int, burst_bytes: int, stride_bytes: int | None = None, write: bool = False
) -> Stream:
    """A two-dimensional block: ``runs`` rows of ``run_bytes`` contiguous bytes, ``stride_bytes`` apart.

    Args:
        base: address of its first byte.
        burst_bytes: of the DRAM; a row touches every burst that holds a byte of it.
        stride_bytes: from row to row; ``run_bytes`` by default, so that the block is contiguous.

    Raises:
        InputError: a size below one, rows that overlap.
    """
    stride = run_bytes if stride_bytes is None else stride_bytes
    for name, value, least in (
        ("base", base, 0),
        ("runs", runs, 1),
        ("run_bytes", run_bytes, 1),
        ("burst_bytes", burst_bytes, 1),
    ):
        if value < least:
            raise InputError(f"{name}: expected {least} or more, got {value}")
    if stride < run_bytes:
        raise InputError(f"stride_bytes: expected run_bytes {run_bytes} or more, got {stride}")
    if stride == run_bytes:
        runs, run_bytes = 1, runs * run_bytes
    starts = base + stride * np.arange(runs, dtype=np.int64)
    first = starts // burst_bytes
    counts = (starts + run_bytes - 1) // burst_bytes - first + 1
    ends = np.cumsum(counts)
    within = np.arange(ends[-1], dtype=np.int64) - np.repeat(ends - counts, counts)
    addresses = (np.repeat(first, counts) + within) * burst_bytes
    return Stream(addresses, np.full(addresses.size, write))


def interleaved(*streams: Stream, piece_bytes: int = PIECE_BYTES, burst_bytes: int) -> Stream:
    """Streams that move at the same time: a piece of each in turn, those that end earlier drop out.

    Raises:
        InputError: no streams, or a piece smaller than a burst.
    """
    if not streams:
        raise InputError("streams: expected one or more")
    if piece_bytes < burst_bytes:
        raise InputError(f"piece_bytes: expected a burst of {burst_bytes} bytes or more, got {piece_bytes}")
    piece = piece_bytes // burst_bytes
    turn = np.concatenate([np.arange(len(s)) // piece for s in streams])
    owner = np.concatenate([np.full(len(s), i) for i, s in enumerate(streams)])
    order = np.lexsort((owner, turn))  # stable, so that a stream's requests keep their order
    addresses = np.concatenate([s.addresses for s in streams])
    writes = np.concatenate([s.is_write for s in streams])
    return Stream(addresses[order], writes[order])
