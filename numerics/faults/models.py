"""Fault models as data: what fails where, how often, and in which bits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from numerics._display import displayed
from numerics.errors import InputError, unknown_name

FaultKind = Literal["flip", "stuck_at_0", "stuck_at_1"]
KINDS: tuple[str, ...] = get_args(FaultKind)

STORED = ("weight", "kv_cache", "optimizer_state", "master_weight")
"""Roles of tensors that lie in memory from one forward pass to the next: a flipped bit stays until it is written again."""

TARGETS = ("weight", "activation", "gradient", "kv_cache", "elementwise", "accumulator", "optimizer_state", "master_weight")


@displayed
@dataclass(frozen=True)
class Burst:
    """One event that hits the same bit of several elements.

    Attributes:
        length: elements, at most; a burst ends where its row or column does.
        axis: ``row`` for elements beside each other (along the last axis), ``column`` for elements below each other (along the
            one before, or the first of two).
    """

    length: int
    axis: Literal["row", "column"] = "row"

    def __post_init__(self) -> None:
        if not isinstance(self.length, int) or isinstance(self.length, bool) or self.length < 1:
            raise InputError(f"burst.length: expected an integer ≥ 1, got {self.length!r}")
        if self.axis not in ("row", "column"):
            raise unknown_name("burst.axis", self.axis, ("row", "column"))


@displayed
@dataclass(frozen=True, kw_only=True)
class BitFaults:
    """Faults in the bits of one kind of tensor.

    How many there are is said by exactly one of ``rate``, ``count`` and ``places``.

    Attributes:
        kind: ``flip`` inverts a bit once; ``stuck_at_0`` and ``stuck_at_1`` hold it all along.
        target: the role of the tensors, as in a recipe: ``weight`` (embedding tables among them), ``activation``, ``gradient``,
            ``kv_cache``, ``elementwise`` (results between products), ``accumulator`` (a sum in the middle of its reduction),
            ``optimizer_state``, ``master_weight``.
        modules: pattern of the paths of the modules whose operators use the tensors (``fnmatch``).
        operator: position of the operator among those of its module's forward, from 0, as in ``OperandKey``; None for all.
        operand: which operand of that role, as in ``OperandKey`` (``weight``, ``weight_2``, …); None for all.
        call: which run of that operator in a forward pass, from 0; None for all.
        rate: probability that a bit fails (with ``burst``: that a burst begins at it).
        count: faulty bits in each tensor (with ``burst``: bursts).
        places: (element, bit) pairs; elements count through the tensor as the product takes it, its last axis summed along,
            so that a weight's rows are its output channels.
        bits: which bits can fail: None for all, a field of the format (``sign``, ``exponent``, ``mantissa``, ``magnitude``,
            ``index``), ``scale`` for the scale that elements share, or positions, 0 the lowest.
        burst: hits neighbours as well.

    Raises:
        InputError: an unknown kind, target or axis; a rate outside 0 to 1; not exactly one of rate, count and places.
    """

    kind: FaultKind = "flip"
    target: str = "weight"
    modules: str = "*"
    operator: int | None = None
    operand: str | None = None
    call: int | None = None
    rate: float | None = None
    count: int | None = None
    places: tuple[tuple[int, int], ...] | None = None
    bits: str | tuple[int, ...] | None = None
    burst: Burst | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise unknown_name("kind", self.kind, KINDS)
        if self.target not in TARGETS:
            raise unknown_name("target", self.target, TARGETS)
        given = [name for name in ("rate", "count", "places") if getattr(self, name) is not None]
        if len(given) != 1:
            raise InputError(f"rate, count, places: expected exactly one of them, got {', '.join(given) or 'none'}")
        if self.rate is not None and not (
            isinstance(self.rate, float | int) and 0 <= self.rate <= 1 and math.isfinite(self.rate)
        ):
            raise InputError(f"rate: expected a probability from 0 to 1, got {self.rate!r}")
        if self.count is not None and (not isinstance(self.count, int) or isinstance(self.count, bool) or self.count < 0):
            raise InputError(f"count: expected an integer ≥ 0, got {self.count!r}")
        if self.places is not None:
            object.__setattr__(self, "places", _pairs(self.places))
        if self.bits is not None and not isinstance(self.bits, str):
            object.__setattr__(self, "bits", tuple(int(bit) for bit in self.bits))

    @property
    def permanent(self) -> bool:
        """Whether the bits stay as they are held."""
        return self.kind != "flip"

    @property
    def persistent(self) -> bool:
        """Whether a forward pass meets the same faulty bits as the one before."""
        return self.permanent or self.target in STORED


def _pairs(places: Sequence[Sequence[int]]) -> tuple[tuple[int, int], ...]:
    found = []
    for place in places:
        if len(place) != 2 or any(int(number) != number or number < 0 for number in place):
            raise InputError(f"places: expected pairs (element, bit) of integers ≥ 0, got {place!r}")
        found.append((int(place[0]), int(place[1])))
    return tuple(found)
