"""Where an event-driven chip and a GPU break even: the chip pays for each event, the GPU reads its weights once for a batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from numerics.errors import InputError, unknown_name

Quantity = Literal["energy_j", "time_s"]


class Costs(Protocol):
    """What a ``Report`` says of a run."""

    @property
    def energy_j(self) -> float: ...

    @property
    def time_s(self) -> float: ...


@dataclass(frozen=True)
class Cost:
    """Energy and time of a run."""

    energy_j: float
    time_s: float


def amortised(first: tuple[int, Costs], second: tuple[int, Costs]) -> Callable[[int], Cost]:
    """Cost at any batch on the line through two reports, (batch, report) each: what is paid once, and what each example adds.

    Raises:
        InputError: both of one batch, or a line that falls with the batch.
    """
    (small, one), (large, other) = sorted((first, second), key=lambda pair: pair[0])
    if small == large:
        raise InputError(f"second: expected another batch than {small}")
    each = Cost((other.energy_j - one.energy_j) / (large - small), (other.time_s - one.time_s) / (large - small))
    if each.energy_j < 0 or each.time_s < 0:
        raise InputError(f"second: costs less at batch {large} than at batch {small}")

    def cost(batch: int) -> Cost:
        more = batch - small
        return Cost(one.energy_j + more * each.energy_j, one.time_s + more * each.time_s)

    return cost


def break_even_batch(
    chip: Costs, gpu: Callable[[int], Costs], *, quantity: Quantity = "energy_j", largest: int = 1 << 20
) -> int | None:
    """The smallest batch at which the GPU costs less than the chip, on which a batch of B costs B times one example.

    Found by doubling and bisection, so the GPU's cost an example must not rise with the batch.

    Args:
        chip: report of one example.
        gpu: batch → report (or ``amortised`` cost) of that many examples at once.
        quantity: ``energy_j`` or ``time_s``.
        largest: batch up to which it is looked for.

    Returns:
        The batch; None where the chip wins up to ``largest``.

    Raises:
        InputError: an unknown quantity, a cost that is not > 0.
    """
    if quantity not in get_args(Quantity):
        raise unknown_name("quantity", str(quantity), get_args(Quantity))
    if largest < 1:
        raise InputError(f"largest: expected an integer ≥ 1, got {largest!r}")
    one = float(getattr(chip, quantity))
    if not one > 0:
        raise InputError(f"chip: expected {quantity} > 0, got {one!r}")

    def wins(batch: int) -> bool:
        cost = float(getattr(gpu(batch), quantity))
        if not cost > 0:
            raise InputError(f"gpu: expected {quantity} > 0 at batch {batch}, got {cost!r}")
        return cost < batch * one

    high = 1
    while not wins(high):
        if high >= largest:
            return None
        high = min(2 * high, largest)
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if wins(middle) else (middle, high)
    return high
