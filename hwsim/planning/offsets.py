"""Where buffers lie: placements without overlap, by first fit and by exhaustive search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from hwsim.planning.buffers import Buffer

ORDERS: dict[str, Callable[[Buffer], Any]] = {
    "size": lambda b: (-b.bytes, b.first, b.name),
    "size, short-lived first": lambda b: (-b.bytes, b.last - b.first, b.first, b.name),
    "area": lambda b: (-b.bytes * (b.last - b.first + 1), b.first, b.name),
    "start": lambda b: (b.first, -b.bytes, b.name),
}
"""Orders that first fit is tried in: largest first (Pisarchyk, Lee, arXiv 2001.03288, "greedy by size"), among equals the
short-lived first, so that those that last lie above the gaps that these leave; largest in bytes × operators first; and as they
are written."""

EFFORT = 20_000
"""Buffers that first fit lays down at most to improve on its orders."""

NODES = 200_000
"""Placements that the exhaustive search tries before it gives up."""


def aligned(size: int, alignment: int) -> int:
    """The next multiple of ``alignment``."""
    return -(-size // alignment) * alignment


def lowest_offset(buffer: Buffer, placed: Sequence[Buffer], alignment: int = 1) -> int:
    """The lowest aligned offset at which the buffer meets none of those placed."""
    at = 0
    for other in sorted((p for p in placed if p.meets(buffer)), key=lambda p: p.offset):
        if at + buffer.bytes <= other.offset:
            break
        at = max(at, aligned(other.end, alignment))
    return at


def height(placed: Sequence[Buffer]) -> int:
    """Bytes from the first to the last byte used."""
    return max((b.end for b in placed), default=0)


def lay_down(buffers: Sequence[Buffer], alignment: int = 1) -> list[Buffer]:
    """The buffers in this order, each at the lowest offset that is free."""
    placed: list[Buffer] = []
    for buffer in buffers:
        placed.append(replace(buffer, offset=lowest_offset(buffer, placed, alignment)))
    return placed


def first_fit(buffers: Sequence[Buffer], *, alignment: int = 1, bound: int = 0, effort: int = EFFORT) -> list[Buffer]:
    """The lowest of the placements in the orders of ``ORDERS``, improved by laying down earlier what lies on top.

    Args:
        bound: a height that no placement goes below; the search ends there.
        effort: buffers to lay down for the improvement, besides one placement of each order.
    """
    best: list[Buffer] = []
    tried: list[tuple[int, int, list[Buffer], list[Buffer]]] = []
    for order in ORDERS.values():
        waiting = sorted(buffers, key=order)
        placed = lay_down(waiting, alignment)
        tried.append((height(placed), len(tried), waiting, placed))
        if not best or height(placed) < height(best):
            best = placed
    rounds = effort // max(1, len(ORDERS) * len(buffers))
    for _, _, waiting, placed in sorted(tried, key=lambda t: t[:2]):
        seen: set[tuple[str, ...]] = set()
        for _ in range(rounds):
            if height(best) <= bound:
                return best
            names = tuple(b.name for b in waiting)
            if names in seen:
                break
            seen.add(names)
            top = next(b for b in placed if b.end == height(placed))
            place = next(i for i, b in enumerate(waiting) if b.name == top.name)
            if place == 0:
                break
            earlier = max((i for i in range(place) if waiting[i].meets(top)), default=0)
            waiting.insert(earlier, waiting.pop(place))
            placed = lay_down(waiting, alignment)
            if height(placed) < height(best):
                best = placed
    return best


def best_placement(
    buffers: Sequence[Buffer], *, alignment: int = 1, bound: int = 0, nodes: int = NODES
) -> tuple[list[Buffer], bool]:
    """(a placement, whether it is known to be the lowest).

    Branch and bound over the orders in which buffers are laid down, each at its lowest free offset at or above the one before.
    Some such order gives the lowest placement of all: take the lowest one's buffers by offset; laid down in that order, none
    comes to lie higher than it did, because whatever it meets lies no higher either.

    Args:
        bound: a height that no placement goes below, such as the most bytes alive at once.
        nodes: placements to try; when they are used up, the best so far is returned.
    """
    best = first_fit(buffers, alignment=alignment, bound=bound)
    lowest = height(best)
    left = nodes
    order = sorted(buffers, key=ORDERS["size"])

    def descend(placed: list[Buffer], rest: list[Buffer], top: int) -> None:
        nonlocal best, lowest, left
        if lowest <= bound or left <= 0:
            return
        if not rest:
            best, lowest = list(placed), top
            return
        seen: set[tuple[int, int, int]] = set()
        options = [(lowest_offset(b, placed, alignment), i) for i, b in enumerate(rest)]
        for at, i in sorted(options):
            buffer = rest[i]
            shape = (buffer.bytes, buffer.first, buffer.last)
            if shape in seen or max(top, at + buffer.bytes) >= lowest:
                continue
            seen.add(shape)
            left -= 1
            if left <= 0:
                return
            placed.append(replace(buffer, offset=at))
            descend(placed, rest[:i] + rest[i + 1 :], max(top, at + buffer.bytes))
            placed.pop()

    descend([], order, 0)
    return best, lowest <= bound or left > 0
