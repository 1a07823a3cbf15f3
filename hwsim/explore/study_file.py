"""A study in a YAML file: what is evaluated, what varies, what is sought and how."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from hwsim.explore.evaluation import Evaluator, MachineCost, Together, identity_of
from hwsim.explore.exploration import Exploration
from hwsim.explore.objectives import Constraint, Objective, constraints_from, objectives_from
from hwsim.explore.space import Space
from hwsim.spec import Count, SpecPart, validate_spec
from numerics.documents import read_text, read_yaml
from numerics.errors import InputError, unknown_name

STORES = {"sweep": "trials.sqlite", "search": "search.sqlite"}
"""The file in a study's folder that keeps what is done."""


def _checked(value: Any, make: Callable[[Any], Any], known: str) -> Any:
    """``value``, of which something can be made; ``known`` begins the errors, whose field is named already."""
    try:
        make(value)
    except InputError as error:
        raise ValueError(str(error).removeprefix(known)) from None
    return value


class CostSection(SpecPart):
    """What asks a machine; see ``hwsim.explore.MachineCost``.

    Attributes:
        model: zoo name, file, or ``package.module:callable``; may be left out where the space has ``model``.
        device: name or file; may be left out where the space has ``device``.
        fidelity: rung of the device's ladder; its default otherwise.
        formats: a recipe's name or file; the device's own formats otherwise.
        batch: samples at once.
        seq_len: tokens in a sequence.
        kv_len: tokens already in the KV cache.
        phase: ``prefill`` or ``decode``.
        mode: ``inference`` or ``training``.
    """

    model: str | None = None
    device: str | None = None
    fidelity: str | None = None
    formats: str | None = None
    batch: Count | None = None
    seq_len: Count | None = None
    kv_len: Count | None = None
    phase: Literal["prefill", "decode"] | None = None
    mode: Literal["inference", "training"] = "inference"


class StudyFile(SpecPart):
    """A study.

    Attributes:
        name: what tables and pages call it.
        method: ``search``, or ``sweep``, which tries all configurations or a sample of them.
        cost: what a machine says of a configuration.
        evaluate: ``package.module:callable`` of functions that are called with a configuration and give further metrics (such as
            ``accuracy``), or all of them where there is no ``cost``.
        space: parameter → list of values, or ``low`` and ``high`` (and ``step`` or ``log``).
        objectives: metric → ``min`` or ``max``, or a list of metrics.
        constraints: bounds that must hold, such as ``area_mm2 <= 10``.
        sampler: of a search: ``nsga2``, ``tpe`` or ``random``.
        trials: configurations that a search evaluates.
        batch: configurations that a search proposes at a time.
        predictor: random configurations that a search's predictor learns from first; none: no predictor.
        screened: predictions for each batch.
        sample: random configurations of a sweep; all otherwise.
        seed: of a search or a sample.
        rescore: rung of the device's ladder at which the front is evaluated anew.
        layers: configurations whose operators are kept, those on the front first.
    """

    name: str
    method: Literal["search", "sweep"] = "search"
    cost: CostSection | None = None
    evaluate: str | list[str] = Field(default_factory=list)
    space: Mapping[str, Any]
    objectives: Mapping[str, str] | list[str] | str | None = None
    constraints: str | list[str] = Field(default_factory=list)
    sampler: Literal["nsga2", "tpe", "random"] = "nsga2"
    trials: Count = 200
    batch: Count = 20
    predictor: Count | None = None
    screened: Count = 1000
    sample: Count | None = None
    seed: int = Field(default=0, ge=0, lt=2**63, strict=True)
    rescore: str | None = None
    layers: int = Field(default=200, ge=0, strict=True)

    @model_validator(mode="after")
    def _whole(self) -> StudyFile:
        if self.cost is None and not self.evaluate:
            raise ValueError("a study needs a section cost, or a function to evaluate")
        if self.method == "search" and self.objectives is None:
            raise ValueError("objectives: a search needs at least one metric")
        given = self.model_fields_set
        others = ("sampler", "trials", "batch", "predictor", "screened") if self.method == "sweep" else ("sample",)
        for name in others:
            if name in given:
                raise ValueError(f"{name}: a {self.method} has none; leave it out")
        if self.rescore is not None and self.cost is None:
            raise ValueError("rescore: only a cost has rungs; leave it out")
        return self

    @field_validator("space")
    @classmethod
    def _is_space(cls, value: Mapping[str, Any]) -> Mapping[str, Any]:
        return _checked(value, Space, "space: ")

    @field_validator("constraints")
    @classmethod
    def _are_bounds(cls, value: str | list[str]) -> str | list[str]:
        return _checked(value, constraints_from, "constraint: ")

    @field_validator("objectives")
    @classmethod
    def _are_sought(cls, value: Any) -> Any:
        return value if value is None else _checked(value, objectives_from, "objectives: ")

    @property
    def bounds(self) -> tuple[Constraint, ...]:
        """The constraints."""
        return constraints_from(self.constraints)

    @property
    def sought(self) -> tuple[Objective, ...] | None:
        """The objectives, if the file names any."""
        return None if self.objectives is None else objectives_from(self.objectives)

    @classmethod
    def read(cls, path: str | Path) -> StudyFile:
        """The study in a YAML file.

        Raises:
            InputError: a file that cannot be read or does not say what a study is.
        """
        try:
            data = read_yaml(read_text(path))
        except InputError as error:
            text = str(error)
            raise InputError(text if text.startswith(str(path)) else f"{path}: {text}") from None
        if not isinstance(data, dict):
            raise InputError(f"{path}: a study must be a mapping that begins with name:, got {type(data).__name__}")
        return validate_spec(cls, data, source=str(path))

    def evaluator(self, fidelity: str | None = None) -> Evaluator:
        """What the study evaluates; with a rung, its cost there alone.

        Raises:
            InputError: a function that cannot be imported.
        """
        parts: list[Callable[..., Mapping[str, Any]]] = []
        functions = [self.evaluate] if isinstance(self.evaluate, str) else self.evaluate
        if self.cost is not None:
            cost = self.cost
            options = {name: getattr(cost, name) for name in ("batch", "seq_len", "kv_len", "phase")}
            options = {name: value for name, value in options.items() if value is not None}
            if cost.mode != "inference":
                options["mode"] = cost.mode
            parts.append(
                MachineCost(
                    cost.model,
                    device=cost.device,
                    fidelity=fidelity or cost.fidelity,
                    recipe=cost.formats,
                    options=options,
                    metrics=self._cost_metrics(),
                )
            )
        if fidelity is None:
            parts += [named_function(name) for name in functions]
        return parts[0] if len(parts) == 1 else Together(tuple(parts))

    def _cost_metrics(self) -> tuple[str, ...]:
        """The usual metrics, and those that objectives and constraints name."""
        from hwsim.explore.evaluation import METRICS

        named = [objective.metric for objective in self.sought or ()] + [bound.metric for bound in self.bounds]
        usual = ("time_s", "energy_j", "weight_bytes", "peak_memory_bytes")
        return tuple(dict.fromkeys([*usual, *(name for name in named if name in METRICS)]))

    def run(self, folder: str | Path | None = None, **where: Any) -> Exploration:
        """Run the study, or go on where the folder's file ends.

        Args:
            folder: keeps what is done; nothing outlives the call without.
            where: ``workers``, ``executor``, ``scheduler`` and ``progress`` of ``hwsim.sweep`` and ``hwsim.search``.
        """
        from hwsim.explore.searches import search
        from hwsim.explore.sweeps import sweep

        store = None if folder is None else Path(folder) / STORES[self.method]
        common: dict[str, Any] = {
            "constraints": self.bounds, "seed": self.seed, "layers": self.layers, "name": self.name, "store": store,
            "rescore": None if self.rescore is None else self.evaluator(self.rescore),
        }  # fmt: skip
        if self.method == "sweep":
            return sweep(self.evaluator(), self.space, objectives=self.sought, sample=self.sample, **common, **where)
        return search(
            self.evaluator(), self.space, objectives=self.sought, sampler=self.sampler, trials=self.trials, batch=self.batch,
            predictor=self.predictor, screened=self.screened, **common, **where,
        )  # fmt: skip

    def so_far(self, folder: str | Path) -> Exploration:
        """What the folder's file holds, while the study runs or after it was stopped; the front is not evaluated anew.

        Raises:
            InputError: no file there, or nothing in it yet.
        """
        from hwsim.explore.searches import search_so_far
        from hwsim.explore.sweeps import sweep_so_far

        read = sweep_so_far if self.method == "sweep" else search_so_far
        common: dict[str, Any] = {"constraints": self.bounds, "name": self.name, "layers": self.layers}
        if self.method == "sweep":
            common |= {"sample": self.sample, "seed": self.seed}
        return read(Path(folder) / STORES[self.method], self.evaluator(), self.space, objectives=self.sought, **common)

    def to_yaml(self) -> str:
        """The study as a file, without what is left at its default."""
        import yaml

        data = self.model_dump(mode="json", exclude_defaults=True)
        return str(yaml.safe_dump(data, sort_keys=False, allow_unicode=True))


class _Named:
    """A function by name, so that workers import it rather than unpickle it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._function = _imported(name)

    def __call__(self, configuration: Mapping[str, Any]) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._function(dict(configuration))
        return found

    def __getattr__(self, attribute: str) -> Any:
        if attribute in ("many", "report", "layers", "check"):
            return getattr(self._function, attribute)
        raise AttributeError(attribute)

    def identity(self) -> Any:
        """Its name, or its own identity."""
        return [self.name, identity_of(self._function)]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.name,)


def named_function(name: str) -> _Named:
    """An evaluator by ``package.module:callable``.

    Raises:
        InputError: it cannot be imported, or is none.
    """
    return _Named(name)


def _imported(name: str) -> Callable[..., Any]:
    module_name, colon, attribute = name.partition(":")
    if not colon or not attribute:
        raise InputError(f"evaluate: expected package.module:callable, got {name!r}")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        kind = "" if isinstance(error, ImportError) else f"{type(error).__name__}: "
        raise InputError(f"evaluate: cannot import {module_name!r}: {kind}{error}") from None
    found = getattr(module, attribute, None)
    if not callable(found):
        names = [n for n in vars(module) if callable(getattr(module, n)) and not n.startswith("_")]
        raise unknown_name(f"evaluate: callable in {module_name!r}", attribute, names)
    return found
