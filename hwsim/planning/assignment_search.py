"""Which machine runs which layer, and when: a list schedule, a local search, branch and bound, and bounds below them all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Goal = Literal["energy_j", "makespan_s"]

SLACK = 1e-9
"""Relative difference below which two sums of floats count as equal."""

SOLVER_SLACK = 1e-7
"""Relative tolerance of the linear programmes."""

BOUND_SLACK = 1e-6
"""Relative difference from a lower bound below which a schedule counts as the best: ten times what the bound is lowered by for
the solver's tolerance."""

EVALUATIONS = 20_000
"""Schedules tried before the heuristic makes no further start at random; of few layers, ``EVALUATIONS_A_PAIR`` for each pair."""

EVALUATIONS_A_PAIR = 50

KICK = 3
"""Layers at most that such a start moves."""

URGENCIES = (0.0, 0.1, 0.5, 1.0)
"""Of its layers, on average."""


@dataclass(frozen=True)
class Problem:
    """Layers to be placed and timed.

    Attributes:
        time_s: (layers, machines); infinite where a machine cannot run a layer.
        energy_j: (layers, machines) without static power; zeros where energy is not known.
        static_w: of all machines together, for as long as the last layer runs.
        needs: for each layer, (earlier layer, seconds, joules): what handing its results to another machine takes.
        goal: what is minimised.
        deadline_s: the last layer ends no later; infinite for none.
    """

    time_s: NDArray[np.float64]
    energy_j: NDArray[np.float64]
    static_w: float
    needs: tuple[tuple[tuple[int, float, float], ...], ...]
    goal: Goal
    deadline_s: float = np.inf

    @cached_property
    def costs(self) -> tuple[list[list[float]], list[list[float]]]:
        """(time, energy) as plain lists."""
        return self.time_s.tolist(), self.energy_j.tolist()

    @cached_property
    def readers(self) -> tuple[tuple[tuple[int, float, float], ...], ...]:
        """For each layer, (later layer that waits for it, seconds, joules)."""
        found: list[list[tuple[int, float, float]]] = [[] for _ in self.needs]
        for layer, waits in enumerate(self.needs):
            for earlier, delay, joules in waits:
                found[earlier].append((layer, delay, joules))
        return tuple(tuple(row) for row in found)

    @cached_property
    def arrays(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
        """For the kernels: where each layer's readers begin; readers, seconds and joules to them; how many each waits for."""
        first = np.cumsum([0, *(len(row) for row in self.readers)])
        flat = [entry for row in self.readers for entry in row]
        later = np.array([entry[0] for entry in flat], dtype=np.int64)
        delay = np.array([entry[1] for entry in flat], dtype=np.float64)
        joules = np.array([entry[2] for entry in flat], dtype=np.float64)
        return first.astype(np.int64), later, delay, joules, np.array([len(waits) for waits in self.needs], dtype=np.int64)

    @cached_property
    def options(self) -> tuple[tuple[int, ...], ...]:
        """For each layer, the machines that can run it."""
        return tuple(tuple(np.flatnonzero(np.isfinite(row)).tolist()) for row in self.time_s)

    def rank(self, energy: float, makespan: float) -> tuple[float, float, float]:
        """What is compared: time beyond the deadline, the goal, the other figure."""
        late = max(0.0, makespan - self.deadline_s * (1 + SLACK))
        return (late, energy, makespan) if self.goal == "energy_j" else (late, makespan, energy)

    def dynamic_energy(self, machines: Sequence[int]) -> float:
        """Joules of the layers and of handing over, without static power."""
        energy = self.costs[1]
        total = 0.0
        for layer, machine in enumerate(machines):
            total += energy[layer][machine]
            for earlier, _, joules in self.needs[layer]:
                if machines[earlier] != machine:
                    total += joules
        return total


@dataclass(frozen=True)
class Timed:
    """A schedule.

    Attributes:
        machines: of each layer.
        start_s: of each layer.
        makespan_s: end of the last one.
        energy_j: with static power.
    """

    machines: tuple[int, ...]
    start_s: tuple[float, ...]
    makespan_s: float
    energy_j: float


def list_schedule(problem: Problem, machines: Sequence[int], urgency: Sequence[float] | None = None) -> Timed:
    """One layer after another, each as soon as it can: next comes the one with the least start − urgency × way to the end, and of
    those alike the one with the longest way (Graham, SIAM Journal on Applied Mathematics 17(2), 1969; the way to the end as
    priority: Topcuoglu, Hariri & Wu, IEEE TPDS 13(3), 2002, equation 8).

    Args:
        urgency: of each layer; 0 everywhere, where it is left out, never leaves a machine idle that has something to do.
    """
    urgent = [0.0] * len(machines) if urgency is None else urgency
    time = problem.costs[0]
    count = len(machines)
    tail = [0.0] * count
    for layer in range(count - 1, -1, -1):
        own = machines[layer]
        after = 0.0
        for later, delay, _ in problem.readers[layer]:
            after = max(after, tail[later] + (delay if machines[later] != own else 0.0))
        tail[layer] = after + time[layer][own]
    missing = [len(waits) for waits in problem.needs]
    ready = [layer for layer in range(count) if not missing[layer]]
    arrival = [0.0] * count
    free = [0.0] * problem.time_s.shape[1]
    start = [0.0] * count
    makespan = 0.0
    while ready:
        chosen = min(
            ready,
            key=lambda layer: (
                max(free[machines[layer]], arrival[layer]) - urgent[layer] * tail[layer], -tail[layer], layer
            ),
        )  # fmt: skip
        ready.remove(chosen)
        own = machines[chosen]
        begin = max(free[own], arrival[chosen])
        end = begin + time[chosen][own]
        start[chosen] = begin
        free[own] = end
        makespan = max(makespan, end)
        for later, delay, _ in problem.readers[chosen]:
            arrival[later] = max(arrival[later], end + (delay if machines[later] != own else 0.0))
            missing[later] -= 1
            if not missing[later]:
                ready.append(later)
    energy = problem.dynamic_energy(machines) + problem.static_w * makespan
    return Timed(tuple(machines), tuple(start), makespan, energy)


def heuristic(problem: Problem, least: float = -np.inf) -> Timed:
    """The best that a local search finds from several starts: every layer on its fastest machine, on its cheapest, on the machine
    on which it would end first, and all on one machine; then from the best so far with a few layers moved and other urgencies,
    drawn at random from a fixed seed (iterated local search: Lourenço, Martin & Stützle, Handbook of Metaheuristics, 2003,
    chapter 11).

    A step moves one layer to another machine, or lets two change theirs, where that is better; with a deadline, a schedule that
    ends late is first made less late.

    Args:
        least: a value of the goal that nothing goes below; a schedule in time that reaches it ends the search.
    """
    time, energy = problem.costs
    starts = [
        [min(options, key=lambda d, row=row: (row[d], d)) for row, options in zip(time, problem.options, strict=True)],  # type: ignore[misc]
        [min(options, key=lambda d, row=row: (row[d], d)) for row, options in zip(energy, problem.options, strict=True)],  # type: ignore[misc]
        _earliest_finish(problem),
    ]
    for machine in range(problem.time_s.shape[1]):
        if all(machine in options for options in problem.options):
            starts.append([machine] * len(problem.options))

    def rank(one: Timed) -> tuple[float, float, float]:
        return problem.rank(one.energy_j, one.makespan_s)

    tried, best = 0, None
    for start in dict.fromkeys(tuple(start) for start in starts):
        found, count = _improved(problem, start)
        tried += count
        best = found if best is None or _less(rank(found), rank(best)) else best
    assert best is not None
    rng = np.random.default_rng(0)
    free = [layer for layer, options in enumerate(problem.options) if len(options) > 1]
    most = min(EVALUATIONS, EVALUATIONS_A_PAIR * len(time) ** 2)
    while tried < most and rank(best)[:2] > (0.0, least * (1 + BOUND_SLACK)):
        moved = list(best.machines)
        for layer in rng.choice(free, size=min(len(free), int(rng.integers(KICK + 1))), replace=False) if free else ():
            moved[layer] = int(rng.choice(problem.options[layer]))
        urgency = rng.choice(URGENCIES) * np.exp(rng.normal(0.0, 0.5, len(moved)))
        found, count = _improved(problem, moved, urgency.tolist())
        tried += count
        best = found if _less(rank(found), rank(best)) else best
    return best


def _improved(problem: Problem, machines: Sequence[int], urgency: Sequence[float] | None = None) -> tuple[Timed, int]:
    """(what single moves and exchanges make of a start, how many schedules that took)."""
    from hwsim.planning._assignment_kernels import improve

    found = np.array(machines, dtype=np.int64)
    urgent = np.zeros(len(found)) if urgency is None else np.array(urgency, dtype=np.float64)
    count = improve(
        problem.time_s, problem.energy_j, found, urgent, *problem.arrays, problem.static_w, problem.deadline_s,
        problem.goal == "energy_j", SLACK,
    )  # fmt: skip
    return list_schedule(problem, found.tolist(), urgency), int(count)


def _earliest_finish(problem: Problem) -> list[int]:
    """Layer after layer on the machine on which it ends first."""
    time = problem.costs[0]
    free = [0.0] * problem.time_s.shape[1]
    machines: list[int] = []
    ends: list[float] = []
    for layer, waits in enumerate(problem.needs):
        found = []
        for machine in problem.options[layer]:
            arrival = max((ends[e] + (delay if machines[e] != machine else 0.0) for e, delay, _ in waits), default=0.0)
            found.append((max(arrival, free[machine]) + time[layer][machine], machine))
        end, machine = min(found)
        free[machine] = end
        machines.append(machine)
        ends.append(end)
    return machines


def _less(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    """Whether ``a`` comes before ``b`` by more than rounding."""
    for x, y in zip(a, b, strict=True):
        if abs(x - y) > SLACK * max(abs(x), abs(y)):
            return x < y
    return False


def lower_bounds(problem: Problem) -> tuple[float, float]:
    """(seconds, joules) that no schedule goes below; the joules with the deadline kept (infinite: none keeps it).

    Seconds, and joules where they are the goal, by the linear programme in which a layer may be divided over machines: no machine
    works longer than the whole takes, no layer starts before those that it waits for have ended (after Lenstra, Shmoys & Tardos,
    Mathematical Programming 46, 1990, section 2). Handing over is free in it. Joules otherwise: every layer on its cheapest
    machine, and static power for those seconds.
    """
    from scipy.optimize import linprog
    from scipy.sparse import coo_matrix

    layers, machines = problem.time_s.shape
    pairs = [(layer, machine) for layer in range(layers) for machine in problem.options[layer]]
    time = np.array([problem.time_s[pair] for pair in pairs])
    energy = np.array([problem.energy_j[pair] for pair in pairs])
    scale = float(time.max()) or 1.0  # the solver's tolerances are absolute
    time = time / scale
    starts, whole = len(pairs), len(pairs) + layers  # x of each pair, start of each layer, the end
    of_layer: list[list[int]] = [[] for _ in range(layers)]
    for column, (layer, _) in enumerate(pairs):
        of_layer[layer].append(column)
    entries: list[tuple[int, int, float]] = []
    row = 0
    for machine in range(machines):
        entries += [(row, column, time[column]) for column, pair in enumerate(pairs) if pair[1] == machine]
        entries.append((row, whole, -1.0))
        row += 1
    for layer, waits in enumerate(problem.needs):
        for earlier, *_ in waits:  # start of the earlier + its time ≤ start of the later
            entries += [(row, starts + earlier, 1.0), (row, starts + layer, -1.0)]
            entries += [(row, column, time[column]) for column in of_layer[earlier]]
            row += 1
        if not problem.readers[layer]:
            entries += [(row, starts + layer, 1.0), (row, whole, -1.0)]
            entries += [(row, column, time[column]) for column in of_layer[layer]]
            row += 1
    r, c, v = zip(*entries, strict=True)
    upper = coo_matrix((v, (r, c)), shape=(row, whole + 1))
    share = [(layer, column, 1.0) for layer, columns in enumerate(of_layer) for column in columns]
    r, c, v = zip(*share, strict=True)
    whole_layers = coo_matrix((v, (r, c)), shape=(layers, whole + 1))

    def solve(cost: NDArray[np.float64], deadline: float) -> float:
        bounds = [(0.0, None)] * whole + [(0.0, deadline / scale * (1 + SLACK) if np.isfinite(deadline) else None)]
        found = linprog(
            cost,
            A_ub=upper.tocsr(),
            b_ub=np.zeros(row),
            A_eq=whole_layers.tocsr(),
            b_eq=np.ones(layers),
            bounds=bounds,
            method="highs",
        )
        if found.status == 2:
            return np.inf
        return float(found.fun) if found.status == 0 else 0.0  # without an answer nothing better is known

    last = np.zeros(whole + 1)
    last[whole] = 1.0
    makespan = solve(last, np.inf) * scale * (1 - SOLVER_SLACK)
    if problem.goal == "makespan_s":
        cheapest = sum(min(problem.energy_j[layer, machine] for machine in own) for layer, own in enumerate(problem.options))
        kept = makespan <= problem.deadline_s * (1 + SLACK)
        return makespan, (float(cheapest) + problem.static_w * makespan) * (1 - SOLVER_SLACK) if kept else np.inf
    joules = np.concatenate([energy, np.zeros(layers), [problem.static_w * scale]])
    unit = float(np.abs(joules).max()) or 1.0
    least = solve(joules / unit, problem.deadline_s) * unit
    return makespan, least if not np.isfinite(least) else least * (1 - SOLVER_SLACK)


def exact(problem: Problem, start: Timed, *, nodes: int) -> tuple[Timed, bool]:
    """(the best schedule, whether it is known to be the best), by branch and bound over layers in the order of their starts, each
    on each machine as soon as it can.

    Of an order of starts nothing is lost: any schedule in which no layer could start sooner on its machine comes up. Of two
    partial schedules of the same layers, one is dropped that is nowhere earlier and no cheaper than the other.

    Args:
        start: a schedule, to do better than.
        nodes: partial schedules to try; when they are used up, the best so far is returned.
    """
    time, energy = problem.costs
    layers, count = len(time), problem.time_s.shape[1]
    least_time = [min(row[d] for d in options) for row, options in zip(time, problem.options, strict=True)]
    least_energy = [min(row[d] for d in options) for row, options in zip(energy, problem.options, strict=True)]
    tail = [0.0] * layers
    for layer in range(layers - 1, -1, -1):
        tail[layer] = least_time[layer] + max((tail[later] for later, *_ in problem.readers[layer]), default=0.0)
    best = start
    aim = problem.rank(start.energy_j, start.makespan_s)
    left = nodes
    machines, begins, ends = [-1] * layers, [0.0] * layers, [0.0] * layers
    free = [0.0] * count
    seen: dict[tuple[int, tuple[int, ...]], list[tuple[float, ...]]] = {}

    def descend(done: int, number: int, last: float, spent: float, rest_energy: float, rest_time: float) -> None:
        nonlocal best, aim, left
        if number == layers:
            makespan = max(ends, default=0.0)
            total = spent + problem.static_w * makespan
            if _less(problem.rank(total, makespan), aim):
                aim = problem.rank(total, makespan)
                best = Timed(tuple(machines), tuple(begins), makespan, total)
            return
        least = max(max(free), (sum(free) + rest_time) / count)
        ready: list[int] = []
        for layer in range(layers):
            if done >> layer & 1:
                continue
            waits = problem.needs[layer]
            known = [ends[earlier] for earlier, *_ in waits if done >> earlier & 1]
            least = max(least, max(known, default=last) + tail[layer], last + tail[layer])
            if len(known) == len(waits):
                ready.append(layer)
        bound = problem.rank(spent + rest_energy + problem.static_w * least, least)
        if not _less(bound[:2], aim[:2]):
            return
        open_layers = tuple(
            layer for layer in range(layers) if done >> layer & 1 and any(not done >> r & 1 for r, *_ in problem.readers[layer])
        )
        key = done, tuple(machines[layer] for layer in open_layers)
        state = (*free, *(ends[layer] for layer in open_layers), last, spent)
        others = seen.setdefault(key, [])
        if any(all(a <= b for a, b in zip(other, state, strict=True)) for other in others):
            return
        others[:] = [o for o in others if not all(b <= a for a, b in zip(o, state, strict=True))]
        others.append(state)
        steps = []
        for layer in ready:
            for machine in problem.options[layer]:
                begin, more = free[machine], energy[layer][machine]
                for earlier, delay, joules in problem.needs[layer]:
                    apart = machines[earlier] != machine
                    begin = max(begin, ends[earlier] + (delay if apart else 0.0))
                    more += joules if apart else 0.0
                if begin >= last:
                    end = begin + time[layer][machine]
                    steps.append(
                        (begin, more - least_energy[layer] if problem.goal == "energy_j" else end, layer, machine, end, more)
                    )
        for begin, _, layer, machine, end, more in sorted(steps):
            left -= 1
            if left <= 0:
                return
            before = free[machine]
            machines[layer], begins[layer], ends[layer], free[machine] = machine, begin, end, end
            descend(
                done | 1 << layer,
                number + 1,
                begin,
                spent + more,
                rest_energy - least_energy[layer],
                rest_time - least_time[layer],
            )
            machines[layer], begins[layer], ends[layer], free[machine] = -1, 0.0, 0.0, before

    descend(0, 0, 0.0, 0.0, sum(least_energy), sum(least_time))
    return best, left > 0
