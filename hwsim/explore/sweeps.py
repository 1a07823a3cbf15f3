"""All configurations of a space, or a sample of them, on any workers and kept in a file that survives a kill."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hwsim.explore.batches import Anew, Evaluate, kept_in, places, same
from hwsim.explore.evaluation import Metrics, evaluate_many, identity_of
from hwsim.explore.exploration import Exploration, Trial
from hwsim.explore.objectives import Constraint, Objectives, constraints_from, known_metrics, objectives_from
from hwsim.explore.space import Configuration, Space
from numerics.errors import InputError

MOST_ON_GRID = 10_000_000
"""Configurations of a grid beyond which a sweep asks for a sample."""

VECTOR_BATCH = 256
"""Configurations that an evaluator of many is given at once, at most."""

LEAST_BATCHES = 64
"""Batches of a sweep where it has as many configurations, so that all workers have some."""


@dataclass(frozen=True)
class Draw:
    """Which configuration a trial is: the grid in its order, or a sample, a function of the seed and the trial's number alone."""

    space: Space
    sample: int | None
    seed: int

    @property
    def size(self) -> int:
        """Number of trials."""
        if self.sample is not None:
            return self.sample
        assert self.space.size is not None
        return self.space.size

    def configurations(self, trials: range) -> list[Configuration]:
        """The configurations of some trials. Those of a sample of a grid are all different."""
        size = self.space.size
        if self.sample is None:
            return [self.space.configuration(index) for index in trials]
        if size is None:
            return [self.space.sample(np.random.default_rng([self.seed, trial])) for trial in trials]
        from hwsim.faults.permutation import permuted

        ranks = np.arange(trials.start, trials.stop, dtype=np.int64)
        key = np.random.default_rng(self.seed).integers(2**63, dtype=np.uint64)
        places = permuted(ranks, np.full(len(ranks), size, dtype=np.int64), np.full(len(ranks), key, dtype=np.uint64))
        return [self.space.configuration(index) for index in places.tolist()]


def check_seed(seed: int) -> None:
    """Raise ``InputError`` for a seed that is no integer of 0 or above."""
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**63:
        raise InputError(f"seed: expected an integer ≥ 0, got {seed!r}")


def check_count(name: str, value: Any) -> None:
    """Raise ``InputError`` for a count that is no integer of 1 or above."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"{name}: expected an integer ≥ 1, got {value!r}")


RESERVED = ("trial", "stage", "error", "feasible", "front")
"""Columns of an exploration's table."""


def check_names(space: Space, constraints: Sequence[Constraint], metrics: Iterable[str] = ()) -> None:
    """Raise ``InputError`` for parameters and metrics that share a name with one another or with a column of the table, and for
    constraints on parameters without an order."""
    for name in (*space.names, *metrics):
        if name in RESERVED:
            raise InputError(f"{name}: a column of the table is called so; name the parameter or metric otherwise")
    for name in metrics:
        if name in space.names:
            raise InputError(f"{name}: a parameter and a metric are called so; name one of them otherwise")
    for bound in constraints:
        parameter = space.parameters.get(bound.metric)
        if parameter is not None and not parameter.ordered:
            raise InputError(f"constraint {bound.metric}: expected a metric or parameter of numbers, got one of {parameter}")


def as_space(space: Space | Mapping[str, Any]) -> Space:
    """A space as it may be given."""
    return space if isinstance(space, Space) else Space(space)


def _evaluated(draw: Draw, evaluate: Evaluate, trials: range) -> list[Metrics]:
    return evaluate_many(evaluate, draw.configurations(trials))


def sweep(
    evaluate: Evaluate,
    space: Space | Mapping[str, Any],
    *,
    objectives: Objectives = None,
    constraints: str | Iterable[str | Constraint] = (),
    sample: int | None = None,
    seed: int = 0,
    rescore: Evaluate | None = None,
    layers: int = 200,
    name: str = "sweep",
    store: str | Path | None = None,
    workers: int | None = None,
    executor: Executor | Callable[[], Executor] | None = None,
    scheduler: str | None = None,
    progress: str = "silent",
) -> Exploration:
    """Evaluate every configuration of a space, or a sample of them.

    Args:
        evaluate: configuration → metrics; see ``Evaluator``. ``MachineCost`` asks a machine.
        space: what varies: a ``Space``, or name → values.
        objectives: what makes a configuration better, ``{"time_s": "min"}`` or names; without, ``time_s`` and ``energy_j`` as far
            as they are given, else the first metric.
        constraints: bounds that must hold, such as ``"area_mm2 <= 10"``. What breaks one, or does not know the metric, is kept in
            the table and never on the front.
        sample: this many random configurations instead of all; on a grid all different.
        seed: of the sample.
        rescore: a second, finer evaluator that configurations on the front are given to; the front is then what it says.
        layers: for this many configurations, those on the front first, the operators are kept with the result.
        name: what tables and pages call it.
        store: a file that keeps what is done: the same call goes on where it ended. Without, nothing outlives the call.
        workers, executor, scheduler: as in ``hwsim.jobs.run_study``: processes of this machine, any executor, a Dask cluster.
        progress: ``auto``, ``bar``, ``lines`` or ``silent``, on standard error.

    Returns:
        All configurations with their metrics.

    Raises:
        InputError: a space without a grid and no sample, an unknown objective, bad arguments.
    """
    from hwsim.jobs.runner import run_study
    from hwsim.jobs.study import Study

    space = as_space(space)
    check_seed(seed)
    bounds = constraints_from(constraints)
    check_names(space, bounds)
    asked = None if objectives is None else objectives_from(objectives)
    if sample is not None:
        check_count("sample", sample)
        if space.size is not None and sample >= space.size:
            sample = None
    draw = Draw(space, sample, seed)
    if sample is None and space.size is None:
        space.configuration(0)  # says which parameter has no grid
    if draw.size > MOST_ON_GRID:
        raise InputError(f"space: {draw.size:,} configurations, more than {MOST_ON_GRID:,}; draw a sample, or use hwsim.search")
    for one in (evaluate, rescore):
        if hasattr(one, "check"):
            one.check(space)  # type: ignore[union-attr]
    follow = Follow(space, asked, bounds)
    study = Study(
        # Trials are places on the grid, which depend on the order of the parameters.
        key={
            "explore": "sweep",
            "space": space.to_dict(),
            "order": list(space.names),
            "sample": sample,
            "seed": seed,
            "evaluate": identity_of(evaluate),
        },
        size=draw.size,
        setup=partial(same, evaluate),
        run=partial(_evaluated, draw),
        batch=min(VECTOR_BATCH, -(-draw.size // LEAST_BATCHES)) if hasattr(evaluate, "many") else 1,
    )
    with kept_in(store) as path:
        run_study(
            study, store=path, workers=workers, executor=executor, scheduler=scheduler, note=follow.note, progress=progress,
            label=name,
        )  # fmt: skip
        trials = _trials_in(path, draw)
    with places(workers, executor, scheduler) as place:
        return finished(
            name, space, trials, evaluate=evaluate, rescore=rescore, objectives=asked, constraints=bounds, layers=layers,
            main="sweep", anew=Anew(store, place, progress, name),
        )  # fmt: skip


def _trials_in(path: Path, draw: Draw, *, whole: bool = True) -> list[Trial]:
    """The trials in a sweep's file; those not yet tried are left out unless it is whole."""
    from hwsim.jobs.store import JobStore

    kept = JobStore.read(path)
    results = dict(kept.results())
    failures = {t: failure for failure in kept.failures(final=True) for t in range(failure.trial, failure.stop)}
    trials = []
    for start in range(0, draw.size, 4096):
        part = range(start, min(draw.size, start + 4096))
        for number, configuration in zip(part, draw.configurations(part), strict=True):
            row = results.get(number)
            if row is None and number in failures:
                row = {"error": f"failed: {failures[number].error}"}
            if row is not None:
                trials.append(Trial(number, "sweep", configuration, row))
            elif whole:
                raise AssertionError(f"trial {number} is neither done nor failed")
    return trials


def sweep_so_far(
    store: str | Path,
    evaluate: Evaluate,
    space: Space | Mapping[str, Any],
    *,
    objectives: Objectives = None,
    constraints: str | Iterable[str | Constraint] = (),
    sample: int | None = None,
    seed: int = 0,
    layers: int = 200,
    name: str = "sweep",
) -> Exploration:
    """What the file of a sweep holds by now; arguments as in ``sweep``.

    Raises:
        InputError: no such file, another study's, or nothing in it yet.
    """
    from hwsim.jobs.store import JobStore

    space = as_space(space)
    draw = Draw(space, None if sample is None or (space.size is not None and sample >= space.size) else sample, seed)
    stored = JobStore.read(store).key
    asked = {"explore": "sweep", "space": space.to_dict(), "order": list(space.names), "sample": draw.sample, "seed": seed}
    if any(stored.get(name) != value for name, value in asked.items()):
        raise InputError(f"store: {str(store)!r} holds another study; name its own file")
    return finished(
        name, space, _trials_in(Path(store), draw, whole=False), evaluate=evaluate, rescore=None,
        objectives=None if objectives is None else objectives_from(objectives), constraints=constraints_from(constraints),
        layers=layers, main="sweep", notes=["the sweep is not at its end"] if JobStore.read(store).end is None else [],
    )  # fmt: skip


def finished(
    name: str,
    space: Space,
    trials: list[Trial],
    *,
    evaluate: Evaluate,
    rescore: Evaluate | None,
    objectives: Sequence[Any] | None,
    constraints: Sequence[Constraint],
    layers: int,
    main: str,
    notes: Sequence[str] = (),
    predictors: Sequence[Mapping[str, Any]] = (),
    anew: Anew | None = None,
) -> Exploration:
    """The exploration of evaluated trials: its front re-scored, its layers looked up."""
    metrics = metric_names(trials)
    if not metrics:
        refused = next((trial.metrics["error"] for trial in trials if "error" in trial.metrics), "nothing was evaluated")
        raise InputError(f"evaluate: no configuration could be evaluated; the first: {refused}")
    if objectives is None:
        usual = [metric for metric in ("time_s", "energy_j") if metric in metrics] or metrics[:1]
        objectives = objectives_from(None, default=usual)
    known_metrics([objective.metric for objective in objectives], metrics, what="objective")
    known_metrics([bound.metric for bound in constraints], [*metrics, *space.names], what="constraint's metric")
    found = Exploration.of(
        name, space, trials, objectives=objectives, constraints=constraints, notes=notes, predictors=predictors, main=main
    )
    if rescore is not None:
        found = found.rescored(rescore, batch=anew)
    return found.with_layers(evaluate, layers, finer=rescore)


def metric_names(trials: Iterable[Trial]) -> list[str]:
    """Metrics that any trial gave, in the order of their first appearance."""
    found: dict[str, None] = {}
    for trial in trials:
        if "error" not in trial.metrics:
            found.update(dict.fromkeys(trial.metrics))
    return list(found)


class Follow:
    """The best so far, for the progress line; the first row shows whether there are such metrics as are asked for."""

    def __init__(self, space: Space, objectives: Sequence[Any] | None, constraints: Sequence[Constraint]) -> None:
        self._space = space
        self._objectives = objectives
        self._checked = False
        self._constraints = tuple(constraints)
        self._best: dict[str, float] = {}
        self._refused = 0

    def take(self, row: Mapping[str, Any]) -> None:
        """Look at the metrics of one configuration."""
        if "error" in row:
            self._refused += 1
            return
        if not self._checked:
            check_names(self._space, self._constraints, row)
            known_metrics([objective.metric for objective in self._objectives or ()], row, what="objective")
            bounded = [bound.metric for bound in self._constraints if bound.metric not in self._space.names]
            known_metrics(bounded, row, what="constraint's metric")
        self._checked = True
        if any(bound.metric in row and bound.violation(row[bound.metric]) for bound in self._constraints):
            return
        if self._objectives is None:
            names = [metric for metric in ("time_s", "energy_j") if metric in row] or list(row)[:1]
            self._objectives = objectives_from(None, default=names)
        for objective in self._objectives:
            value = row.get(objective.metric)
            if value is not None:
                best = self._best.get(objective.metric)
                if best is None or objective.sign * value < objective.sign * best:
                    self._best[objective.metric] = value

    def text(self) -> str:
        """The best value of each objective, each by itself, and how many configurations were refused."""
        from hwsim.explore.exploration import readable

        parts = [f"best {metric} {readable(metric, value)}" for metric, value in self._best.items()]
        return ", ".join(parts + ([f"{self._refused:,} refused"] if self._refused else []))

    def note(self, pairs: Sequence[tuple[int, Mapping[str, Any] | None]]) -> str:
        """What ``hwsim.jobs`` calls with the rows just stored."""
        for _, row in pairs:
            if row is not None:
                self.take(row)
        return self.text()
