"""How the tiles of a mapping lie in off-chip memory, and what a banked DRAM makes of moving them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hwsim.memory import OffChip


@dataclass(frozen=True)
class Moved:
    """Bytes of one operand that a mapping moves, and how they lie.

    Attributes:
        bytes: moved in all.
        run_bytes: of a row of a tile, in one piece.
        stride_bytes: from row to row; a row as long as its stride goes on into the next.
        written: whether they are written.
    """

    bytes: float
    run_bytes: float
    stride_bytes: float
    written: bool = False


def mapped_bytes_per_s(off_chip: OffChip, moved: Iterable[Moved]) -> float:
    """Bandwidth that all these transfers reach together, taking turns in one memory.

    Each operand moves at the rate of its own pattern among the others' (``OffChip.achieved_bytes_per_s_for``); the times add up.
    """
    parts = [part for part in moved if part.bytes > 0]
    total = sum(part.bytes for part in parts)
    if off_chip.dram is None or not parts:
        return off_chip.achieved_bytes_per_s
    share = sum(part.bytes for part in parts if part.written) / total
    seconds = 0.0
    for part in parts:
        broken = part.run_bytes < part.stride_bytes
        seconds += part.bytes / off_chip.achieved_bytes_per_s_for(
            run_bytes=max(1, round(part.run_bytes)) if broken else None,
            stride_bytes=round(part.stride_bytes) if broken else None,
            write_fraction=share,
            streams=len(parts),
        )
    return total / seconds
