"""What an exploration found: every configuration with its metrics, the front, and how good the front is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hwsim._distribution import VERSION
from hwsim.explore.evaluation import evaluate_many
from hwsim.explore.objectives import Constraint, Objective, constraints_from, hypervolume, known_metrics, non_dominated
from hwsim.explore.space import Configuration, Space
from hwsim.views.display import displayed
from numerics.documents import read_json, read_text
from numerics.errors import InputError, unknown_name

if TYPE_CHECKING:
    import pandas as pd

    from hwsim.explore.batches import Anew

STAGES = ("sweep", "search", "random", "rescored")
"""Where a trial came from: a sweep; a search; its baseline of random configurations; the front of the others, evaluated anew by a
finer evaluator."""

SCHEMA = "hwsim.exploration"
SCHEMA_VERSION = 1

LAYER_COLUMNS = (
    "name", "kind", "format", "unit", "time_s", "energy_j", "macs", "bytes_offchip", "utilization", "compute_cycles",
    "stall_cycles", "overhead_cycles",
)  # fmt: skip
"""What is kept of an operator."""


def readable(name: str, value: Any) -> str:
    """A metric or parameter as people read it: with the unit that its name says."""
    from hwsim.views.exploration_columns import unit_of
    from hwsim.views.units import percent, si

    if value is None:
        return "unknown"
    if isinstance(value, bool | str):
        return str(value)
    unit = unit_of(name)
    if unit == "%":
        return percent(value)
    if unit.endswith("m²"):
        return f"{value:.4g} {unit}"
    if name.startswith("bytes_"):
        unit = "B"
    return si(value, unit) if unit or abs(value) >= 1e5 else f"{value:g}"


@displayed
@dataclass(frozen=True)
class Trial:
    """One configuration and what it came to.

    Attributes:
        number: counts within the exploration.
        stage: of ``STAGES``.
        configuration: parameter → value.
        metrics: metric → number or None for unknown; ``error`` → why there are none.
    """

    number: int
    stage: str
    configuration: Configuration
    metrics: Mapping[str, Any]

    @property
    def error(self) -> str:
        """Why it has no metrics; empty where it has."""
        return str(self.metrics.get("error", ""))

    def value(self, name: str) -> Any:
        """A metric, or the value of a parameter; None where it is unknown."""
        return self.metrics[name] if name in self.metrics else self.configuration.get(name)


@dataclass(frozen=True)
class Exploration:
    """Configurations with their metrics.

    Attributes:
        name: what tables and pages call it.
        space: what varied.
        objectives: what makes a configuration better.
        constraints: what had to hold.
        trials: in the order of their numbers; those of all stages.
        notes: what a reader must know.
        predictors: how good the predictors were that chose configurations; plain data, one a metric.
        layers: number of a trial → its operators, plain data (``LAYER_COLUMNS``).
        main: the stage that the exploration is about.
        version: of hwsim.
    """

    name: str
    space: Space
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    trials: tuple[Trial, ...]
    notes: tuple[str, ...] = ()
    predictors: tuple[Mapping[str, Any], ...] = ()
    layers: Mapping[int, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    main: str = "sweep"
    version: str = VERSION

    @classmethod
    def of(
        cls,
        name: str,
        space: Space,
        trials: Iterable[Trial],
        *,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint] = (),
        notes: Sequence[str] = (),
        predictors: Sequence[Mapping[str, Any]] = (),
        main: str = "sweep",
    ) -> Exploration:
        """An exploration with the notes that follow from its trials."""
        made = cls(name, space, tuple(objectives), tuple(constraints), tuple(trials), tuple(notes), tuple(predictors), main=main)
        return replace(made, notes=(*made.notes, *made._own_notes()))

    def _own_notes(self) -> list[str]:
        notes = []
        refused = [trial for trial in self.trials if trial.error]
        if refused:
            notes.append(
                f"{len(refused):,} of {len(self.trials):,} configurations have no metrics; the first: {refused[0].error}"
            )
        for objective in self.objectives:
            unknown = sum(not trial.error and trial.value(objective.metric) is None for trial in self.trials)
            if unknown:
                notes.append(f"{objective.metric} is unknown of {unknown:,} configurations, which are left out of the front")
        if not any(self._feasible):
            notes.append("no configuration keeps all constraints: there is no front")
        return notes

    # --- what is feasible, and what is best -----------------------------------------------------------------------------

    @cached_property
    def _feasible(self) -> list[bool]:
        return [
            not trial.error
            and all(bound.violation(trial.value(bound.metric)) == 0 for bound in self.constraints)
            and all(trial.value(objective.metric) is not None for objective in self.objectives)
            for trial in self.trials
        ]

    @property
    def _final_stages(self) -> tuple[str, ...]:
        """Stages whose figures the front is made of: the finest there are."""
        rescored = any(trial.stage == "rescored" for trial in self.trials)
        return ("rescored",) if rescored else tuple(stage for stage in STAGES if stage != "rescored")

    def _costs(self, indices: Sequence[int]) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Objectives of some trials, less is better (trials, objectives)."""
        rows = [
            [objective.sign * float(self.trials[i].value(objective.metric)) for objective in self.objectives] for i in indices
        ]
        return np.array(rows, dtype=np.float64).reshape(len(indices), len(self.objectives))

    def _members(self, stages: Sequence[str]) -> list[int]:
        """Feasible trials of some stages."""
        return [i for i, trial in enumerate(self.trials) if self._feasible[i] and trial.stage in stages]

    @cached_property
    def _front(self) -> list[int]:
        members = self._members(self._final_stages)
        if not members:
            return []
        kept = [members[i] for i in np.flatnonzero(non_dominated(self._costs(members)))]
        seen: set[str] = set()
        found = []
        for i in kept:
            key = repr(sorted(self.trials[i].configuration.items()))
            if key not in seen:  # a configuration that came up twice stands once
                seen.add(key)
                found.append(i)
        first = self.objectives[0]
        return sorted(found, key=lambda i: (first.sign * self.trials[i].value(first.metric), self.trials[i].number))

    @property
    def front_trials(self) -> list[Trial]:
        """The trials on the front, the best by the first objective first."""
        return [self.trials[i] for i in self._front]

    def front(self) -> pd.DataFrame:
        """The configurations that keep all constraints and that none of the others dominates, as rows of ``table``."""
        return self.table.iloc[self._front].reset_index(drop=True)

    def best(self, metric: str | None = None) -> Trial | None:
        """The feasible trial that is best by one objective, the first unless named; None where no trial is feasible.

        Raises:
            InputError: a metric that is no objective.
        """
        names = [objective.metric for objective in self.objectives]
        if metric is not None and metric not in names:
            raise unknown_name("objective", metric, names)
        objective = self.objectives[names.index(metric) if metric else 0]
        members = self._members(self._final_stages)
        found = min(members, key=lambda i: objective.sign * self.trials[i].value(objective.metric), default=None)
        return None if found is None else self.trials[found]

    # --- how good the front is ------------------------------------------------------------------------------------------

    @cached_property
    def _box(self) -> tuple[np.ndarray[Any, np.dtype[np.float64]], np.ndarray[Any, np.dtype[np.float64]]] | None:
        """Best and reference point of the hypervolume: the corners of the box around the fronts of all stages, the worse one
        moved out by a tenth."""
        stages = [stage for stage in STAGES if stage != "rescored"]
        everything = self._members(stages)
        if not everything:
            return None
        fronts = []
        for stage in stages:
            if members := self._members([stage]):
                costs = self._costs(members)
                fronts.append(costs[non_dominated(costs)])
        points, whole = np.concatenate(fronts), self._costs(everything)
        best, worst = points.min(axis=0), points.max(axis=0)
        worst = np.where(worst > best, worst, whole.max(axis=0))
        span = np.where(worst > best, worst - best, np.where(best != 0, np.abs(best), 1.0))
        return best, best + 1.1 * span

    @property
    def reference(self) -> dict[str, float]:
        """The reference point of the hypervolume, metric → value; empty where nothing is feasible."""
        if self._box is None:
            return {}
        return {o.metric: float(o.sign * edge) for o, edge in zip(self.objectives, self._box[1], strict=True)}

    def hypervolume(self, stage: str | None = None, *, trials: int | None = None) -> float:
        """Share of the box between the best values and the reference point that the front of a stage dominates, 0 to 1.

        The box is that of the fronts of all stages together, its worse corner moved out by a tenth, so that the hypervolumes of
        the stages of one exploration compare; those of two explorations do not.

        Args:
            stage: of ``STAGES``; the main one if not given.
            trials: only so many first trials of the stage.

        Raises:
            InputError: an unknown stage, ``moocore`` is not installed.
        """
        stage = stage or self.main
        if stage not in STAGES:
            raise unknown_name("stage", stage, STAGES)
        if self._box is None:
            return 0.0
        chosen = [i for i, trial in enumerate(self.trials) if trial.stage == stage][:trials]
        members = [i for i in chosen if self._feasible[i]]
        if not members:
            return 0.0
        best, edge = self._box
        scaled = (self._costs(members) - best) / (edge - best)
        return hypervolume(scaled[non_dominated(scaled)], np.ones(len(best)).tolist())

    def history(self, stage: str | None = None, *, points: int = 50) -> list[tuple[int, float]]:
        """(trials of the stage, hypervolume of the first so many), at up to ``points`` evenly spaced numbers of trials."""
        stage = stage or self.main
        count = sum(trial.stage == stage for trial in self.trials)
        marks = sorted({math.ceil(count * (i + 1) / points) for i in range(points)} - {0}) if count else []
        return [(mark, self.hypervolume(stage, trials=mark)) for mark in marks]

    # --- a finer look ---------------------------------------------------------------------------------------------------

    def rescored(
        self, evaluate: Callable[[Configuration], Mapping[str, Any]], *, most: int = 500, batch: Anew | None = None
    ) -> Exploration:
        """With configurations evaluated anew by a finer evaluator, whose figures the front is then made of.

        First the configurations on the front, then those that none of the finer results dominates, until none is left. Where the
        first evaluator never exceeds the finer one (as a rung with ideal memory does not), the front is then that of all
        configurations at the finer one.

        Args:
            evaluate: the finer evaluator.
            most: configurations evaluated anew at most; a note says whether it sufficed.
            batch: evaluates configurations elsewhere; here, one after another, otherwise.
        """
        start = max((trial.number for trial in self.trials), default=-1) + 1
        left = {repr(sorted(self.trials[i].configuration.items())): i for i in reversed(self._members(STAGES[:-1]))}
        again: list[Trial] = []
        fine = np.empty((0, len(self.objectives)))
        while left and len(again) < most:
            keys, indices = list(left), list(left.values())
            costs = self._costs(indices)
            beaten = np.zeros(len(keys), dtype=bool)
            for point in fine:
                beaten |= np.all(point <= costs, axis=1) & np.any(point < costs, axis=1)
            keys = [key for key, out in zip(keys, beaten, strict=True) if not out]
            costs = costs[~beaten]
            left = {key: left[key] for key in keys}
            if not left:
                break
            chosen = [keys[i] for i in np.flatnonzero(non_dominated(costs))][: most - len(again)]
            before = [self.trials[left.pop(key)] for key in chosen]
            configurations = [trial.configuration for trial in before]
            finer = evaluate_many(evaluate, configurations) if batch is None else batch(evaluate, configurations)
            # What the finer evaluator does not give stays as it was: an accuracy does not depend on a rung.
            rows = [row if "error" in row else {**trial.metrics, **row} for trial, row in zip(before, finer, strict=True)]
            new = [
                Trial(start + len(again) + i, "rescored", c, row)
                for i, (c, row) in enumerate(zip(configurations, rows, strict=True))
            ]
            again += new
            partly = replace(self, trials=tuple(new))
            fine = np.concatenate([fine, partly._costs(partly._members(("rescored",)))])
            fine = fine[non_dominated(fine)]
        found = replace(self, trials=(*self.trials, *again))
        notes = [f"{len(again):,} configurations were evaluated anew, of which {len(found._front):,} make the front"]
        if left:
            notes.append(f"{len(left):,} more might be on the front, beyond the {most:,} that were to be evaluated anew")
        if refused := [trial for trial in again if trial.error]:
            notes.append(f"{len(refused):,} of those evaluated anew have no metrics; the first: {refused[0].error}")
        return replace(found, notes=(*found.notes, *notes))

    def with_layers(self, evaluate: Any, most: int, *, finer: Any = None) -> Exploration:
        """With the operators of up to ``most`` configurations, those on the front first, where the evaluator has a report.

        Args:
            evaluate: the evaluator.
            most: configurations; more are not looked at.
            finer: the one that evaluated the front anew.
        """
        first = self.objectives[0]
        front = set(self._front)
        rest = [i for i, good in enumerate(self._feasible) if good and i not in front]
        rest.sort(key=lambda i: (self.trials[i].stage != "rescored", first.sign * self.trials[i].value(first.metric)))
        found: dict[int, list[dict[str, Any]]] = {}
        for i in [*self._front, *rest][:most]:
            trial = self.trials[i]
            rows = _layers(finer if trial.stage == "rescored" else evaluate, trial.configuration)
            if rows is not None:
                found[trial.number] = rows
        return replace(self, layers=found)

    # --- as data --------------------------------------------------------------------------------------------------------

    @property
    def metrics(self) -> tuple[str, ...]:
        """Metrics that any trial has."""
        found: dict[str, None] = {}
        for trial in self.trials:
            found.update(dict.fromkeys(name for name in trial.metrics if name != "error"))
        return tuple(found)

    def _columns(self) -> dict[str, list[Any]]:
        front = {*self._front}
        trials = self.trials
        columns: dict[str, list[Any]] = {
            "trial": [trial.number for trial in trials],
            "stage": [trial.stage for trial in trials],
        }
        for name in self.space.names:
            columns[name] = [trial.configuration[name] for trial in trials]
        for name in self.metrics:
            columns[name] = [trial.metrics.get(name) for trial in trials]
        columns["error"] = [trial.error for trial in trials]
        columns["feasible"] = list(self._feasible)
        columns["front"] = [i in front for i in range(len(trials))]
        return columns

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row a trial: its number and stage, its configuration, its metrics, ``error``, ``feasible`` and ``front``."""
        import pandas as pd

        columns = self._columns()
        numbers = {name: np.array([np.nan if v is None else v for v in columns[name]], dtype=float) for name in self.metrics}
        return pd.DataFrame({**columns, **numbers})

    def to_dict(self) -> dict[str, Any]:
        """Plain data; ``from_dict`` reads it back."""
        stages = [stage for stage in STAGES if any(trial.stage == stage for trial in self.trials)]
        return {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "version": self.version,
            "name": self.name,
            "main": self.main,
            "space": self.space.to_dict(),
            "objectives": [{"metric": o.metric, "direction": o.direction} for o in self.objectives],
            "constraints": [str(bound) for bound in self.constraints],
            "metrics": list(self.metrics),
            "columns": self._columns(),
            "stages": stages,
            "reference": self.reference,
            "hypervolume": self._hypervolumes(stages),
            "history": self._histories(stages),
            "notes": list(self.notes),
            "predictors": [dict(one) for one in self.predictors],
            "layers": {str(number): [dict(row) for row in rows] for number, rows in self.layers.items()},
        }

    def _hypervolumes(self, stages: Sequence[str]) -> dict[str, float]:
        try:
            return {stage: self.hypervolume(stage) for stage in stages if stage != "rescored"}
        except InputError:  # moocore is optional
            return {}

    def _histories(self, stages: Sequence[str]) -> dict[str, list[list[float]]]:
        try:
            return {stage: [list(pair) for pair in self.history(stage)] for stage in stages if stage not in ("rescored", "sweep")}
        except InputError:
            return {}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Exploration:
        """The exploration that ``to_dict`` described.

        Raises:
            InputError: data of another kind or version, or damaged.
        """
        if not isinstance(data, Mapping) or data.get("schema") != SCHEMA:
            raise InputError(f"exploration: expected data with schema {SCHEMA!r}, got {_kind_of(data)}")
        if data.get("schema_version") != SCHEMA_VERSION:
            raise InputError(f"exploration: schema_version: expected {SCHEMA_VERSION}, got {data.get('schema_version')!r}")
        try:
            return cls._read(data)
        except InputError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            where = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            raise InputError(f"exploration: damaged ({where})") from None

    @classmethod
    def _read(cls, data: Mapping[str, Any]) -> Exploration:
        space = Space(data["space"])
        columns = data["columns"]
        lengths = {len(values) for values in columns.values()}
        if len(lengths) != 1:
            raise InputError("exploration: columns: expected lists of one length")
        trials = []
        for i in range(lengths.pop()):
            configuration = {name: columns[name][i] for name in space.names}
            space.check(configuration)
            if columns["stage"][i] not in STAGES:
                raise unknown_name("exploration: stage", str(columns["stage"][i]), STAGES)
            metrics = {name: columns[name][i] for name in data["metrics"]}
            for name, value in metrics.items():
                if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
                    raise InputError(f"exploration: {name}: expected a number or null, got {value!r}")
            error = columns["error"][i]
            trials.append(
                Trial(int(columns["trial"][i]), columns["stage"][i], configuration, {"error": error} if error else metrics)
            )
        objectives = tuple(Objective(one["metric"], one["direction"]) for one in data["objectives"])
        constraints = constraints_from(data["constraints"])
        known_metrics([objective.metric for objective in objectives], data["metrics"], what="exploration: objective")
        known_metrics([bound.metric for bound in constraints], [*data["metrics"], *space.names], what="exploration: constraint")
        return cls(
            str(data["name"]),
            space,
            objectives,
            constraints,
            tuple(trials),
            notes=tuple(str(note) for note in data["notes"]),
            predictors=tuple(dict(one) for one in data["predictors"]),
            layers={int(number): [dict(row) for row in rows] for number, rows in data["layers"].items()},
            main=str(data["main"]),
            version=str(data["version"]),
        )

    def save(self, folder: str | Path) -> list[Path]:
        """Write ``exploration.json``, the table (``table.csv``, and ``table.parquet`` where pyarrow is installed), the pictures
        and ``report.html``, one file that works on its own, into ``folder``; gives the paths.

        Raises:
            InputError: the folder cannot be made or written.
        """
        from hwsim.views.exploration_files import save_exploration

        return save_exploration(self, Path(folder))

    @classmethod
    def load(cls, path: str | Path) -> Exploration:
        """The exploration in a folder that ``save`` wrote, or in its ``exploration.json``.

        Raises:
            InputError: no such file, or another kind of file.
        """
        file = Path(path)
        file = file / "exploration.json" if file.is_dir() else file
        text = read_text(file)
        try:
            return cls.from_dict(read_json(text))
        except InputError as error:
            raise InputError(f"{file}: {error}") from None

    # --- views ----------------------------------------------------------------------------------------------------------

    def to_html(self) -> str:
        """The interactive page, self-contained."""
        from hwsim.views.exploration_page import page

        return page(self.to_dict())

    def print(self, *, most: int = 20) -> None:
        """Print the front and how good it is; ``most`` limits its rows."""
        from hwsim.views.exploration_table import print_exploration

        print_exploration(self, most=most)

    def _repr_html_(self) -> str:
        from hwsim.views.exploration_table import exploration_html

        return exploration_html(self)

    def __repr__(self) -> str:
        return (
            f"Exploration({self.name!r}: {len(self.trials):,} trials of {self.space!r}, {len(self._front):,} on the front by "
            f"{', '.join(str(objective) for objective in self.objectives)})"
        )


def _layers(evaluate: Any, configuration: Configuration) -> list[dict[str, Any]] | None:
    """The operators behind a configuration's metrics: the evaluator's own ``layers``, or those of its report; None without."""
    if hasattr(evaluate, "layers"):
        return [dict(row) for row in evaluate.layers(configuration)]
    if not hasattr(evaluate, "report"):
        return None
    rows = [op.to_dict() for op in evaluate.report(configuration).ops]
    return [{name: row[name] for name in LAYER_COLUMNS} for row in rows]


def _kind_of(data: Any) -> str:
    return f"schema {data.get('schema')!r}" if isinstance(data, Mapping) else type(data).__name__
