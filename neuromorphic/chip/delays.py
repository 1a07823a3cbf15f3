"""Delays on a chip, where a spike arrives in the next step at the earliest, for a network in which it may arrive at once."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np

from neuromorphic.network import SpikingNetwork
from numerics.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt

Timing = Literal["aligned", "pipelined"]
"""``aligned``: a population is late by the same number of steps on each way to it, and delays grow where a way is shorter, so
that spikes are those of the network, shifted. ``pipelined``: each delay is what it was, but at least 1; ways that were equally
long may then differ."""


def lateness(network: SpikingNetwork) -> dict[str, int]:
    """Population → steps by which it must be late, so that no delay is below one step; inputs are not late.

    The fewest that satisfy late(target) − late(source) ≥ 1 − delay for each projection (longest paths, as in a schedule).

    Raises:
        InputError: a loop whose delay is below its number of projections: it cannot be late by itself.
    """
    late = {one.name: 0 for one in network.populations}
    before: dict[str, str] = {}
    edges = [(p.source, p.target, 1 - int(p.delays.min())) for p in network.projections]
    for _ in range(len(late)):
        moved = None
        for source, target, least in edges:
            if late[source] + least > late[target]:
                late[target], before[target], moved = late[source] + least, source, target
        if moved is None:
            return late
    name = moved or ""
    for _ in late:
        name = before[name]
    loop = [name]
    while before[loop[-1]] != name:
        loop.append(before[loop[-1]])
    loop = [*reversed(loop), loop[-1]]
    delay = sum(min(1 - least for s, t, least in edges if (s, t) == pair) for pair in pairwise(loop))
    raise InputError(
        f"timing: the loop {' → '.join(loop)} takes {delay} step{'' if delay == 1 else 's'} in the network, and at least "
        f"{len(loop) - 1} on a chip; timing='pipelined' makes it longer"
    )


def chip_delays(
    network: SpikingNetwork, timing: Timing, most: int | None
) -> tuple[dict[str, int], dict[str, npt.NDArray[np.int64]]]:
    """Lateness of each population, and the delays of each projection on the chip, (sources,).

    Args:
        most: largest delay that the chip has; None: any.

    Raises:
        InputError: an unknown timing, a loop that is too short, a delay beyond ``most``.
    """
    if timing not in ("aligned", "pipelined"):
        raise InputError(f"timing: expected 'aligned' or 'pipelined', got {timing!r}")
    late = lateness(network) if timing == "aligned" else {one.name: 0 for one in network.populations}
    found = {}
    for p in network.projections:
        delays = p.delays + late[p.target] - late[p.source] if timing == "aligned" else np.maximum(p.delays, 1)
        if most is not None and delays.size and delays.max() > most:
            raise InputError(f"projection {p.name!r}: delay_steps: expected at most {most} on this chip, got {int(delays.max())}")
        found[p.name] = delays
    return late, found
