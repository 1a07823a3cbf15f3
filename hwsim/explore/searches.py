"""The good configurations of a space too large to try them all: a search, beside random configurations of the same number."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hwsim.explore.batches import Anew, Place, evaluate_batch, places
from hwsim.explore.evaluation import Metrics, identity_of
from hwsim.explore.exploration import Exploration, Trial
from hwsim.explore.goals import Evaluated, Goals, key_of
from hwsim.explore.objectives import (
    Constraint,
    Objectives,
    constraints_from,
    extra,
    objectives_from,
)
from hwsim.explore.space import Configuration, Space
from hwsim.explore.sweeps import Draw, Evaluate, Follow, as_space, check_count, check_names, check_seed, finished
from numerics.errors import InputError, unknown_name

if TYPE_CHECKING:
    from hwsim.explore.predictor import Predictor
    from hwsim.jobs.progress import Update

SAMPLERS = ("nsga2", "tpe", "random")
"""NSGA-II (Deb et al., IEEE Transactions on Evolutionary Computation 6(2), 2002) and the tree-structured Parzen estimator
(Bergstra et al., NeurIPS 2011), both by Optuna; random configurations alone."""

Sampler = Literal["nsga2", "tpe", "random"]

LEAST_TO_LEARN = 10
"""Configurations with metrics that a predictor needs."""


def search(
    evaluate: Evaluate,
    space: Space | Mapping[str, Any],
    *,
    objectives: Objectives,
    constraints: str | Iterable[str | Constraint] = (),
    sampler: Sampler = "nsga2",
    trials: int = 200,
    batch: int = 20,
    seed: int = 0,
    predictor: int | None = None,
    screened: int = 1000,
    rescore: Evaluate | None = None,
    layers: int = 200,
    name: str = "search",
    store: str | Path | None = None,
    workers: int | None = None,
    executor: Executor | Callable[[], Executor] | None = None,
    scheduler: str | None = None,
    progress: str = "silent",
) -> Exploration:
    """Look for the configurations that no other dominates, and say how much better they are than random ones.

    Configurations are proposed ``batch`` at a time, each batch from what all before it came to, so that the result is the same
    for any number of workers and after any kill. As many random configurations, all different where the space allows it, are
    evaluated as the baseline. Configurations that come up again are evaluated once.

    Args:
        evaluate: configuration → metrics; see ``hwsim.explore.Evaluator``.
        space: what varies: a ``Space``, or name → values.
        objectives: ``{"time_s": "min", "accuracy": "max"}``, or names.
        constraints: bounds that must hold, such as ``"area_mm2 <= 10"``; what breaks one is never returned as a result.
        sampler: of ``SAMPLERS``.
        trials: configurations that the search evaluates, and the baseline as well.
        batch: configurations proposed at a time; the population of NSGA-II.
        seed: of the search and the baseline.
        predictor: the search's first so many configurations are random ones; a predictor learns from them (and from each batch
            that follows), the sampler works on its predictions, and the best of these are evaluated.
        screened: predictions for each batch.
        rescore: a second, finer evaluator for the configurations on the front.
        layers: for this many configurations, those on the front first, the operators are kept with the result.
        name: what tables and pages call it.
        store: a file that keeps what is done (an SQLite database of Optuna, which its dashboard reads): the same call goes on
            where it ended.
        workers, executor, scheduler: as in ``hwsim.jobs.run_study``: processes of this machine, any executor, a Dask cluster.
        progress: ``auto``, ``bar``, ``lines`` or ``silent``, on standard error.

    Raises:
        InputError: bad arguments, a store of another search, Optuna (or scikit-learn) not installed.
    """
    from hwsim.jobs.executors import check_workers

    extra("optuna")
    space = as_space(space)
    check_seed(seed)
    for what, count in (("trials", trials), ("batch", batch), ("screened", screened)):
        check_count(what, count)
    if sampler not in SAMPLERS:
        raise unknown_name("sampler", str(sampler), SAMPLERS)
    if predictor is not None:
        check_count("predictor", predictor)
        extra("sklearn")
        if predictor < LEAST_TO_LEARN:
            raise InputError(
                f"predictor: expected at least {LEAST_TO_LEARN} random configurations to learn from, got {predictor}"
            )
        if predictor >= trials:
            raise InputError(f"predictor: expected fewer random configurations than trials ({trials}), got {predictor}")
        if sampler == "random":
            raise InputError("predictor: a random search needs none; take sampler 'nsga2' or 'tpe'")
    check_workers(workers=workers, executor=executor, scheduler=scheduler)
    for one in (evaluate, rescore):
        if hasattr(one, "check"):
            one.check(space)  # type: ignore[union-attr]
    goals = Goals(space, objectives_from(objectives), constraints_from(constraints))
    check_names(space, goals.constraints)
    plan = {
        "explore": "search", "space": space.to_dict(), "order": list(space.names),
        "objectives": [str(o) for o in goals.objectives],
        "constraints": [str(bound) for bound in goals.constraints], "sampler": sampler, "trials": trials, "batch": batch,
        "seed": seed, "predictor": predictor, "screened": screened if predictor else None, "evaluate": identity_of(evaluate),
    }  # fmt: skip
    with places(workers, executor, scheduler) as place, Record.opened(store, plan, goals) as record:
        run = _Run(goals, evaluate, record, place, trials=trials, batch=batch)
        drawn = Draw(space, trials if space.size is None else min(trials, space.size), seed)
        with run.progress(name, progress):
            if sampler == "random":
                run.stage("search", lambda start, count: drawn.configurations(range(start, start + count)), most=drawn.size)
            elif predictor is None:
                run.stage("search", lambda start, count: _asked(goals, sampler, run.history("search", start), start, count, seed))
            else:
                run.stage(
                    "search",
                    lambda start, count: _predicted(
                        goals, sampler, run.history("search", start), drawn, start, count, seed, predictor, screened
                    ),
                    first=predictor,
                )
                run.learn(seed)
            if sampler != "random":
                run.stage("random", lambda start, count: drawn.configurations(range(start, start + count)), most=drawn.size)
        notes = run.notes()
        return finished(
            name, space, run.found(), evaluate=evaluate, rescore=rescore, objectives=goals.objectives,
            constraints=goals.constraints, layers=layers, main="search", notes=notes, predictors=run.predictors,
            anew=Anew(store, place, progress, name),
        )  # fmt: skip


def search_so_far(
    store: str | Path,
    evaluate: Evaluate,
    space: Space | Mapping[str, Any],
    *,
    objectives: Objectives,
    constraints: str | Iterable[str | Constraint] = (),
    layers: int = 200,
    name: str = "search",
) -> Exploration:
    """What the file of a search holds by now; arguments as in ``search``.

    Raises:
        InputError: no such file, another kind of file, or nothing in it yet.
    """
    from hwsim.explore.record_file import read_record

    extra("optuna")
    space = as_space(space)
    goals = Goals(space, objectives_from(objectives), constraints_from(constraints))
    with _quiet():
        studies, plan = read_record(Path(store))
    if plan.get("space") != space.to_dict() or plan.get("objectives") != [str(o) for o in goals.objectives]:
        raise InputError(f"store: {str(store)!r} holds another search; name its own file")
    record = Record(goals, Path(store), studies)
    run = _Run(goals, evaluate, record, Place, trials=plan["trials"], batch=plan["batch"])
    count = sum(len(stage) for stage in record.stages.values())
    notes = [f"the search is not at its end: {count:,} configurations so far"] if len(record.stages["random"]) == 0 else []
    return finished(
        name, space, run.found(), evaluate=evaluate, rescore=None, objectives=goals.objectives, constraints=goals.constraints,
        layers=layers, main="search", notes=notes,
    )  # fmt: skip


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna tells of errors only while the block lasts."""
    import optuna

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)


# --- what is kept -------------------------------------------------------------------------------------------------------------


class Record:
    """Finished trials, in order, in Optuna's storage: a study for each stage."""

    def __init__(self, goals: Goals, path: Path | None, studies: Mapping[str, Any]) -> None:
        self._goals = goals
        self.path = path
        self._studies = dict(studies)
        self.stages: dict[str, list[Evaluated]] = {name: self._read(study) for name, study in studies.items()}
        if path is None:
            self._studies = {}

    @classmethod
    @contextmanager
    def opened(cls, store: str | Path | None, plan: Mapping[str, Any], goals: Goals) -> Iterator[Record]:
        """The record in a file; made where there is none.

        Raises:
            InputError: a file of another search or of another kind, or one in use.
        """
        from hwsim.explore.record_file import STAGES, open_record

        with _quiet():
            if store is None:
                record = cls(goals, None, {})
                record.stages = {stage: [] for stage in STAGES}
                yield record
            else:
                with open_record(Path(store), plan, goals.directions) as studies:
                    yield cls(goals, Path(store), studies)

    def _read(self, study: Any) -> list[Evaluated]:
        return [
            Evaluated(
                self._goals.configuration(trial.params),
                dict(trial.user_attrs["metrics"]),
                dict(trial.user_attrs["sampler"]),
            )
            for trial in study.get_trials(deepcopy=False)
        ]

    def add(self, stage: str, trials: Sequence[Evaluated]) -> None:
        """Keep finished trials."""
        self.stages[stage] += trials
        if stage in self._studies:
            for one in trials:
                self._studies[stage].add_trial(frozen(self._goals, one))


def frozen(goals: Goals, one: Evaluated) -> Any:
    """A finished trial of Optuna."""
    import optuna

    values = goals.values(one.metrics)
    broken = {} if values is None else goals.violations(one.configuration, one.metrics)
    return optuna.trial.create_trial(
        state=optuna.trial.TrialState.FAIL if values is None else optuna.trial.TrialState.COMPLETE,
        values=values,
        params=goals.params(one.configuration),
        distributions=goals.distributions(),
        user_attrs={"configuration": dict(one.configuration), "metrics": one.metrics, "sampler": one.system},
        system_attrs=dict(one.system),  # Optuna adds the constraints to it
        constraints=broken,
    )


# --- proposals ----------------------------------------------------------------------------------------------------------------


def _sampler(name: str, *, seed: int, start: int, population: int) -> Any:
    import numpy as np
    import optuna

    number = int(np.random.SeedSequence([seed, start]).generate_state(1)[0])
    if name == "nsga2":
        return optuna.samplers.NSGAIISampler(population_size=max(2, population), seed=number)
    return optuna.samplers.TPESampler(seed=number)


ASKS = 10
"""Proposals a sampler is asked for at most, for each that is wanted, so that none was evaluated before."""


def _asked(
    goals: Goals, sampler: str, history: Sequence[Evaluated], start: int, count: int, seed: int
) -> list[tuple[Configuration, dict[str, Any]]]:
    """What a sampler of Optuna proposes after the trials so far, and what it noted; what was evaluated already only if it has
    nothing else."""
    study = _in_memory(goals)
    study.add_trials([frozen(goals, one) for one in history])
    study.sampler = _sampler(sampler, seed=seed, start=start, population=count)
    seen = {key_of(one.configuration) for one in history}
    new: list[Any] = []
    again: list[Any] = []
    for _ in range(ASKS * count):
        trial = study.ask(goals.distributions())
        key = key_of(goals.configuration(trial.params))
        (again if key in seen else new).append(trial)
        seen.add(key)
        if len(new) == count:
            break
    chosen = (new + again)[:count]
    noted = {trial.number: dict(trial.system_attrs) for trial in study.get_trials(deepcopy=False)}
    return [(goals.configuration(trial.params), noted[trial.number]) for trial in chosen]


def _in_memory(goals: Goals) -> Any:
    import optuna

    return optuna.create_study(directions=goals.directions)


def _predictor(goals: Goals, history: Sequence[Evaluated], seed: int) -> Predictor:
    """What the trials so far teach about objectives and constraints."""
    import numpy as np

    from hwsim.explore.predictor import Predictor

    wanted = [o.metric for o in goals.objectives]
    wanted += [b.metric for b in goals.constraints if b.metric not in (*wanted, *goals.space.names)]
    known = [one for one in history if "error" not in one.metrics and all(one.metrics.get(name) is not None for name in wanted)]
    if len(known) < LEAST_TO_LEARN:
        raise InputError(
            f"predictor: only {len(known)} of {len(history)} configurations have metrics to learn from; expected {LEAST_TO_LEARN}"
        )
    values = {name: np.array([float(one.metrics[name]) for one in known]) for name in wanted}
    return Predictor.fit(goals.space, [one.configuration for one in known], values, seed=seed)


def _predicted(
    goals: Goals, sampler: str, history: Sequence[Evaluated], drawn: Draw, start: int, count: int, seed: int, first: int,
    screened: int,
) -> list[Configuration]:  # fmt: skip
    """The best by prediction of those that a sampler proposes, none of which was evaluated before; the first ones at random."""
    if start < first:
        return drawn.configurations(range(start, min(start + count, drawn.size)))
    import numpy as np

    from hwsim.explore.objectives import non_dominated

    predictor = _predictor(goals, history, seed)
    seen = {key_of(one.configuration) for one in history}
    population = min(50, screened)
    study = _in_memory(goals)
    candidates: dict[str, tuple[Configuration, list[float], float]] = {}
    for begin in range(0, screened, population):
        study.sampler = _sampler(sampler, seed=seed, start=start * 1_000_003 + begin, population=population)
        asked = [study.ask(goals.distributions()) for _ in range(min(population, screened - begin))]
        configurations = [goals.configuration(trial.params) for trial in asked]
        predicted = predictor.predict(configurations)
        for i, (trial, configuration) in enumerate(zip(asked, configurations, strict=True)):
            metrics = {name: float(values[i]) for name, values in predicted.items()}
            values, violations = goals.values(metrics), goals.violations(configuration, metrics)
            assert values is not None
            for bound, amount in violations.items():
                trial.set_constraint(bound, amount)
            study.tell(trial, values)
            if key_of(configuration) not in seen:
                candidates.setdefault(key_of(configuration), (configuration, values, sum(violations.values())))
    chosen: list[Configuration] = []
    left = list(candidates.values())
    while left and len(chosen) < count:
        # Front after front; of those predicted to break a constraint only when no other is left, the least broken first.
        kept = [one for one in left if not one[2]]
        if kept:
            signs = np.array([o.sign for o in goals.objectives], dtype=float)
            best = non_dominated(np.array([one[1] for one in kept]) * signs)
            layer = [one for one, good in zip(kept, best, strict=True) if good]
            if len(layer) > count - len(chosen):  # evenly along the front
                layer.sort(key=lambda one: one[1])
                places = np.linspace(0, len(layer) - 1, count - len(chosen)).round().astype(int)
                layer = [layer[i] for i in sorted(set(places.tolist()))]
        else:
            layer = sorted(left, key=lambda one: one[2])[: count - len(chosen)]
        chosen += [one[0] for one in layer]
        taken = {id(one) for one in layer}
        left = [one for one in left if id(one) not in taken]
    if not chosen:  # the space is used up as far as the sampler sees it
        return drawn.configurations(range(start, min(start + count, drawn.size)))
    return chosen


# --- the run ------------------------------------------------------------------------------------------------------------------

Proposal = Configuration | tuple[Configuration, dict[str, Any]]


class _Run:
    """One search under way: its trials by stage, and what was evaluated already."""

    def __init__(
        self, goals: Goals, evaluate: Evaluate, record: Record, place: Callable[[], Place], *, trials: int, batch: int
    ) -> None:
        self._goals, self._evaluate, self._record, self._place = goals, evaluate, record, place
        self._trials, self._batch = trials, batch
        self._known: dict[str, Metrics] = {}
        self._update: Update | None = None
        self._follow = Follow(goals.space, goals.objectives, goals.constraints)
        self._resumed = sum(len(stage) for stage in record.stages.values())
        self._again = 0
        self.predictors: tuple[Mapping[str, Any], ...] = ()

    @contextmanager
    def progress(self, label: str, mode: str) -> Iterator[None]:
        """Show how far the run is while the block lasts."""
        from hwsim.jobs.progress import show_progress

        with show_progress(label, 2 * self._trials, done=self._resumed, mode=mode) as update:
            self._update = update
            for stage in self._record.stages.values():
                for one in stage:
                    self._follow.take(one.metrics)
            yield
            self._update = None

    def history(self, stage: str, size: int) -> Sequence[Evaluated]:
        """The first ``size`` trials of a stage."""
        return self._record.stages[stage][:size]

    def stage(
        self, stage: str, propose: Callable[[int, int], Sequence[Proposal]], *, first: int = 0, most: int | None = None
    ) -> None:
        """Bring a stage to its end, batch by batch, from where the record ends.

        Args:
            propose: (trials so far, count) → configurations.
            first: trials of the first batch, where it is another than the rest.
            most: trials of the stage, where the space has fewer than asked for.
        """
        end = self._trials if most is None else min(most, self._trials)
        start = 0
        while start < end:
            count = min(first if start < first else self._batch, end - start)
            stored = len(self._record.stages[stage])
            if stored >= start + count:
                self._recall(stage, start, start + count)
                start += count
                continue
            proposals = propose(start, count)
            made = [one if isinstance(one, tuple) else (one, {}) for one in proposals]
            if stored >= start + len(made):  # a batch that had fewer
                self._recall(stage, start, start + len(made))
                start += len(made)
                continue
            metrics = self._metrics(f"{stage}-{start:06d}", [configuration for configuration, _ in made])
            new = [Evaluated(c, m, system) for (c, system), m in zip(made, metrics, strict=True)]
            for one in new:
                self._goals.values(one.metrics)
                if "error" not in one.metrics:
                    self._goals.violations(one.configuration, one.metrics)
            self._record.add(stage, new[stored - start :])
            self._discard(f"{stage}-{start:06d}")
            start += len(made)
            if self._update is not None:
                self._update(sum(len(stage) for stage in self._record.stages.values()), self._follow.text())

    def _recall(self, stage: str, start: int, stop: int) -> None:
        """Whole batches of the record are known. Of one that was cut short nothing is, so that its own file asks for the same."""
        for one in self._record.stages[stage][start:stop]:
            key = key_of(one.configuration)
            self._again += key in self._known
            self._known[key] = one.metrics
        self._discard(f"{stage}-{start:06d}")

    def _metrics(self, label: str, configurations: Sequence[Configuration]) -> list[Metrics]:
        """Metrics of each, from what is known or evaluated now."""
        new: dict[str, Configuration] = {}
        for configuration in configurations:
            key = key_of(configuration)
            if key in self._known or key in new:
                self._again += 1
            else:
                new[key] = configuration
        if new:
            rows = self._evaluated(label, list(new.values()))
            for key, row in zip(new, rows, strict=True):
                self._known[key] = row
                self._follow.take(row)
        return [dict(self._known[key_of(configuration)]) for configuration in configurations]

    def _batch_file(self, label: str) -> Path | None:
        path = self._record.path
        return None if path is None else path.with_name(f"{path.name}.{label}")

    def _discard(self, label: str) -> None:
        file = self._batch_file(label)
        if file is not None:
            file.unlink(missing_ok=True)

    def _evaluated(self, label: str, configurations: list[Configuration]) -> list[Metrics]:
        """Evaluate a batch on the workers. What is done is kept beside the record until the batch is, so a kill loses none."""
        from hwsim.jobs.runner import Interrupted

        done = sum(len(stage) for stage in self._record.stages.values())

        def note(pairs: Sequence[tuple[int, Any]]) -> str:
            nonlocal done
            done += len(pairs)
            if self._update is not None:
                self._update(min(done, 2 * self._trials), self._follow.text())
            return ""

        try:
            return evaluate_batch(
                self._evaluate, configurations, label=label, path=self._batch_file(label), place=self._place, note=note
            )
        except Interrupted:
            where = f"{str(self._record.path)!r}; run it again to go on" if self._record.path else "no store, and lost"
            raise Interrupted(f"interrupted: {done:,} of {2 * self._trials:,} trials are kept in {where}") from None

    def learn(self, seed: int) -> None:
        """How well the last predictor ranks what it has not seen, for the result."""
        predictor = _predictor(self._goals, self._record.stages["search"], seed)
        self.predictors = tuple(quality.to_dict() for quality in predictor.quality.values())

    def found(self) -> list[Trial]:
        """All trials of all stages."""
        listed = [(stage, one) for stage, trials in self._record.stages.items() for one in trials]
        return [Trial(i, stage, one.configuration, one.metrics) for i, (stage, one) in enumerate(listed)]

    def notes(self) -> list[str]:
        """What a reader of the result must know."""
        size = self._goals.space.size
        notes = []
        if self._again:
            notes.append(f"{self._again:,} configurations came up again and were evaluated once")
        if size is not None and size <= self._trials:
            notes.append(f"the space has {size:,} configurations, no more than the search tried: hwsim.sweep tries them all")
        return notes


def gain(exploration: Exploration) -> float | None:
    """Hypervolume of the search over that of as many random configurations; None where there is no baseline."""
    random = exploration.hypervolume("random")
    return exploration.hypervolume("search") / random if random > 0 and math.isfinite(random) else None
