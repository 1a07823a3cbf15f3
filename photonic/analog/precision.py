"""Second stage: numbers onto the levels that a converter has.

>>> import torch
>>> ReducePrecision(precision=2)(torch.tensor([-0.8, 0.2, 0.3, 0.6])).tolist()
[-1.0, 0.0, 0.5, 0.5]
"""

from __future__ import annotations

from typing import Any

import torch

from numerics._fields import check_integer
from numerics.errors import InputError
from photonic._numbers import number
from photonic.analog.stages import Backward, RandomStage, Stage

MOST_BITS = 52
"""Levels that a double tells apart."""


def levels(precision: int | None, bits: int | None) -> int:
    """Levels between 0 (left out) and 1 (counted): ``precision`` itself, or 2^bits − 1 (the sign is no bit of them).

    Raises:
        InputError: both or none given, no integer ≥ 1, too many.
    """
    if (precision is None) == (bits is None):
        raise InputError(f"precision: expected either precision or bits, got {precision!r} and {bits!r}")
    count = 2 ** min(check_integer("bits", bits, 1), MOST_BITS + 1) - 1 if precision is None else precision
    if check_integer("precision", count, 1) >= 1 << MOST_BITS:
        raise InputError(f"precision: expected fewer than 2^{MOST_BITS} levels, got {precision if bits is None else f'2^{bits}'}")
    return int(count)


class ReducePrecision(Stage):
    """sign(x) · max(⌊|x| · p⌋, ⌈|x| · p − divide⌉) / p, p = precision (AnalogVNN: V. Shah and N. Youngblood, APL Mach. Learn. 1,
    2023, doi 10.1063/5.0134156).

    Levels are k/precision for all integers k, 2 · precision + 1 of them from −1 to 1; beyond ±1 nothing is cut off. At
    ``divide`` = 0.5 the nearest level is taken, the lower of two that are as near; at 0 the one above |x|, at 1 the one below.

    Attributes:
        precision: levels from 0 to 1; 2^bits − 1 where ``bits`` is given.
        divide: part of a step beyond which a number goes up, from 0 to 1.
        backward: ``straight_through`` or ``none``; the derivative is 0 wherever there is one, which is ``none``.

    Raises:
        InputError: a number out of range; both ``precision`` and ``bits``.
    """

    backwards = ("straight_through", "none")

    def __init__(
        self,
        *,
        precision: int | None = None,
        bits: int | None = None,
        divide: float = 0.5,
        backward: Backward = "straight_through",
    ) -> None:
        super().__init__(backward)
        self.precision = levels(precision, bits)
        number("divide", divide)
        if divide > 1:
            raise InputError(f"divide: expected 0 to 1, got {divide!r}")
        self.divide = float(divide)

    def value(self, x: torch.Tensor) -> torch.Tensor:
        """The levels."""
        steps = x.abs().mul_(self.precision)
        if self.divide in (0.0, 1.0):  # where rounding of the product could take a number off its level
            near = steps.round()
            steps = torch.where((steps - near).abs() <= 2 * torch.finfo(x.dtype).eps * near, near, steps)
        # Below 1, ⌈s − divide⌉ is never less than ⌊s⌋; at 1 it is no more.
        steps = steps.floor_() if self.divide == 1 else steps.sub_(self.divide).ceil_()
        return steps.div_(self.precision).copysign_(x)

    def extra_repr(self) -> str:
        """All that was given."""
        return f"precision={self.precision}, divide={self.divide:g}, backward={self.backward!r}"


class StochasticReducePrecision(RandomStage):
    """One of the two levels beside x, the upper of |x| with probability |x| · precision − ⌊|x| · precision⌋: right in the mean.

    Attributes:
        precision: levels from 0 to 1; 2^bits − 1 where ``bits`` is given.
        backward: ``straight_through``, which is the derivative of the mean, or ``none``.
        seed, fixed_in_eval: as for every ``RandomStage``.

    Raises:
        InputError: as ``ReducePrecision``.
    """

    backwards = ("straight_through", "none")

    def __init__(
        self,
        *,
        precision: int | None = None,
        bits: int | None = None,
        backward: Backward = "straight_through",
        seed: int | None = None,
        fixed_in_eval: bool = False,
    ) -> None:
        super().__init__(backward, seed=seed, fixed_in_eval=fixed_in_eval)
        self.precision = levels(precision, bits)

    def value(self, x: torch.Tensor) -> torch.Tensor:
        """The levels drawn."""
        steps = x.abs() * self.precision
        below = steps.floor()
        up = self.drawn(x, _uniform) < steps - below
        return torch.sign(x) * (below + up) / self.precision

    def extra_repr(self) -> str:
        """All that was given."""
        return f"precision={self.precision}, backward={self.backward!r}, seed={self.seed}"


def _uniform(rng: Any, shape: tuple[int, ...], kind: Any) -> Any:
    return rng.random(shape, kind)
