"""The local search over assignments, compiled. The tests hold its schedules against ``assignment_search.list_schedule``."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def makespan(
    time: Any, machines: Any, urgency: Any, first: Any, later: Any, delay: Any, waits: Any,
    tail: Any, arrival: Any, free: Any, missing: Any,
) -> float:  # fmt: skip
    """End of the last layer of the list schedule.

    Args:
        time: (layers, machines) seconds.
        machines: (layers,) where each runs.
        urgency: (layers,) how much the way to the end counts against a late start.
        first: (layers + 1,) where the readers of each layer begin in ``later``.
        later, delay: readers, and the seconds that a hand-over to another machine takes.
        waits: (layers,) how many layers each waits for.
        tail, arrival, free, missing: room to work in, (layers,) but ``free``, (machines,).
    """
    layers = len(machines)
    for layer in range(layers - 1, -1, -1):
        after = 0.0
        for i in range(first[layer], first[layer + 1]):
            way = tail[later[i]] + (delay[i] if machines[later[i]] != machines[layer] else 0.0)
            after = max(after, way)
        tail[layer] = after + time[layer, machines[layer]]
        arrival[layer] = 0.0
        missing[layer] = waits[layer]
    free[:] = 0.0
    end_of_all = 0.0
    for _ in range(layers):
        chosen = -1
        least = np.inf
        for layer in range(layers):
            if missing[layer] != 0:
                continue
            score = max(free[machines[layer]], arrival[layer]) - urgency[layer] * tail[layer]
            if chosen < 0 or score < least or (score == least and tail[layer] > tail[chosen]):
                chosen, least = layer, score
        own = machines[chosen]
        end = max(free[own], arrival[chosen]) + time[chosen, own]
        missing[chosen] = -1
        free[own] = end
        end_of_all = max(end_of_all, end)
        for i in range(first[chosen], first[chosen + 1]):
            reader = later[i]
            arrival[reader] = max(arrival[reader], end + (delay[i] if machines[reader] != own else 0.0))
            missing[reader] -= 1
    return end_of_all


@njit(cache=True, nogil=True)
def _below(a: float, b: float, slack: float) -> int:
    """−1 where ``a`` is less than ``b`` by more than rounding, 1 where it is more, 0 otherwise."""
    if abs(a - b) <= slack * max(abs(a), abs(b)):
        return 0
    return -1 if a < b else 1


@njit(cache=True, nogil=True)
def improve(
    time: Any, energy: Any, machines: Any, urgency: Any, first: Any, later: Any, delay: Any, joules: Any, waits: Any,
    static_w: float, deadline: float, for_energy: bool, slack: float,
) -> int:  # fmt: skip
    """Move single layers, then let pairs change places, as long as that betters ``machines``, which is overwritten.

    Returns:
        Schedules tried.
    """
    layers, count = time.shape
    tail, arrival, free = np.zeros(layers), np.zeros(layers), np.zeros(count)
    missing = np.zeros(layers, dtype=np.int64)
    best = np.full(3, np.inf)
    tried = np.zeros(3)
    evaluations = 0
    better = True
    pairs = False
    begun = False
    while better or not pairs:
        pairs = begun and not better
        better = False
        for one in range(layers):
            for step in range((layers - one - 1) if pairs else count):
                was, other = machines[one], one + 1 + step
                if not begun:
                    moved = False  # the start itself is the first to be judged
                elif pairs:
                    if machines[other] == was or np.isinf(time[one, machines[other]]) or np.isinf(time[other, was]):
                        continue
                    machines[one], machines[other] = machines[other], was
                    moved = True
                else:
                    if step == was or np.isinf(time[one, step]):
                        continue
                    machines[one] = step
                    moved = True
                span = makespan(time, machines, urgency, first, later, delay, waits, tail, arrival, free, missing)
                dynamic = 0.0
                for layer in range(layers):
                    dynamic += energy[layer, machines[layer]]
                    for i in range(first[layer], first[layer + 1]):
                        if machines[later[i]] != machines[layer]:
                            dynamic += joules[i]
                evaluations += 1
                total = dynamic + static_w * span
                tried[0] = max(0.0, span - deadline * (1 + slack))
                tried[1], tried[2] = (total, span) if for_energy else (span, total)
                order = 0
                for i in range(3):
                    if order == 0:
                        order = _below(tried[i], best[i], slack) if np.isfinite(best[i]) else -1
                if order < 0:
                    best[:] = tried
                    better = True
                elif moved and pairs:
                    machines[one], machines[other] = was, machines[one]
                elif moved:
                    machines[one] = was
                begun = True
    return evaluations
