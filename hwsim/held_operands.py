"""What a matrix product loads from off-chip memory through a memory that may hold less than its operands."""

from __future__ import annotations

import math


def loaded_bytes(
    load_bytes: float,
    dense: tuple[float, float],
    stored: tuple[float, float],
    *,
    capacity_bytes: float,
    batch: int = 1,
) -> float:
    """Bytes loaded when one operand is held in parts of ``capacity_bytes`` and the other passes once for each part.

    The operand held is the one that makes it less; operands of which one fits are loaded once. What is on chip already (left out
    of ``load_bytes``) is read there again at no cost off chip.

    Args:
        load_bytes: loaded at least, with the operands as ``dense`` has them (``hwsim.schedule.Traffic``).
        dense: bytes of the two operands, as ``load_bytes`` counts them.
        stored: bytes of the two as they lie in memory.
        capacity_bytes: that a part may take.
        batch: products of equal size that follow one another, of which these are the operands together.
    """
    a, b = next(
        (bool(x), bool(y)) for x, y in ((1, 1), (0, 1), (1, 0), (0, 0)) if x * dense[0] + y * dense[1] <= load_bytes + 1e-9
    )
    others = load_bytes - a * dense[0] - b * dense[1]
    passes = [max(1, math.ceil(size / batch / capacity_bytes)) for size in stored]
    moved = a * stored[0], b * stored[1]
    again = min(moved[1] * (passes[0] - 1), moved[0] * (passes[1] - 1))
    return others + moved[0] + moved[1] + again
