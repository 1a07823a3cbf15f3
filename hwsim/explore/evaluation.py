"""What a configuration comes to: evaluators, and the bundled one that asks a machine."""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from hwsim._distribution import VERSION
from hwsim.costs import full_names
from hwsim.device import Device
from hwsim.explore.objectives import GROWING
from hwsim.explore.space import Choice, Configuration, Space
from hwsim.registry import get_device
from hwsim.views.display import displayed
from hwsim.workload import Workload
from numerics.errors import InputError, unknown_name
from numerics.recipes import Recipe, get_recipe

if TYPE_CHECKING:
    from hwsim.report import Report

Metrics = dict[str, Any]
"""Metric → number, or None where it is not known; ``error`` → why a configuration is none."""

METRICS = ("time_s", "energy_j", "edp_js", "area_mm2", "weight_bytes", "peak_memory_bytes", "macs")
"""What ``MachineCost`` can give: latency, energy, their product, area, bytes of the weights, most bytes of tensors alive at once,
multiply-accumulates."""

SIZES = ("batch", "seq_len", "kv_len")
"""Parameters that shape a workload."""

LAYER_FORMATS = {
    "formats": ("weight", "activation"),
    "weights": ("weight",),
    "activations": ("activation",),
}
"""First part of a parameter's name → the roles whose format it sets in the modules that match the rest."""


@runtime_checkable
class Evaluator(Protocol):
    """Anything that is called with a configuration and gives metrics. It is pickled to the workers, so a function of a module, a
    ``partial`` or an object of a class of a module; what is costly to make is best kept in a ``functools.cache`` function.

    It may also have:

    - ``many(configurations) -> list``: many at once, where that is faster; a configuration that is none gives ``{"error": why}``;
    - ``report(configuration) -> Report``: the operators behind the figures; or ``layers(configuration)``, them as plain data;
    - ``identity()``: plain data that tell it from other evaluators, so that a file is resumed by the same one only;
    - ``check(space)``: refuses what it cannot evaluate before anything runs.
    """

    def __call__(self, configuration: Configuration, /) -> Mapping[str, float | None]:
        """Metric, with its unit in the name → value; None where it is not known.

        Raises:
            InputError: the configuration is none; it is kept with the reason, and never returned as a result.
        """
        ...


def evaluate_many(
    evaluate: Callable[[Configuration], Mapping[str, Any]], configurations: Sequence[Configuration]
) -> list[Metrics]:
    """Metrics of each configuration, plain numbers; ``{"error": why}`` for one that is refused."""
    many = getattr(evaluate, "many", None)
    if many is not None:
        found = [dict(row) for row in many(configurations)]
        if len(found) != len(configurations):
            raise TypeError(f"many: expected {len(configurations)} rows, one a configuration, got {len(found)}")
        return [_plain(row) for row in found]
    rows: list[Metrics] = []
    for configuration in configurations:
        try:
            rows.append(_plain(evaluate(dict(configuration))))
        except InputError as error:
            rows.append({"error": " ".join(str(error).split())})
    return rows


def _plain(row: Any) -> Metrics:
    if isinstance(row, int | float) and not isinstance(row, bool):
        row = {GROWING[0]: row}
    if not isinstance(row, Mapping):
        raise InputError(f"evaluate: expected a mapping from metrics to numbers, or the accuracy alone, got {type(row).__name__}")
    found: Metrics = {}
    for name, value in row.items():
        if name == "error":
            found[name] = str(value)
            continue
        number = getattr(value, "item", lambda value=value: value)()
        if number is not None and (isinstance(number, bool) or not isinstance(number, int | float)):
            raise InputError(f"evaluate: {name}: expected a number or None, got {value!r}")
        found[str(name)] = number if number is not None and math.isfinite(number) else None
    return found


def identity_of(evaluate: Any) -> Any:
    """Plain data that tell an evaluator from others: its own ``identity``, or the function's name and text. What a function calls
    is not looked into: after a change there, take another file."""
    if hasattr(evaluate, "identity"):
        return evaluate.identity()
    if isinstance(evaluate, partial):
        try:
            arguments = hashlib.sha256(pickle.dumps((evaluate.args, sorted(evaluate.keywords.items())))).hexdigest()
        except Exception:  # what cannot be pickled reaches no worker, and is told apart by its name alone
            arguments = "unknown"
        return [identity_of(evaluate.func), arguments]
    if inspect.isfunction(evaluate):
        try:
            source = hashlib.sha256(inspect.getsource(evaluate).encode()).hexdigest()[:16]
        except (OSError, TypeError):  # typed in at a prompt
            source = ""
        return [f"{evaluate.__module__}.{evaluate.__qualname__}", source]
    kind = evaluate if hasattr(evaluate, "__qualname__") else type(evaluate)
    return f"{kind.__module__}.{kind.__qualname__}"


@displayed
@dataclass(frozen=True)
class Together:
    """Several evaluators as one: the metrics of all. ``Together(cost, accuracy)``, or with them in a tuple.

    Attributes:
        parts: evaluators; none gives a metric that another gives.
    """

    parts: tuple[Callable[[Configuration], Mapping[str, Any]], ...]

    def __init__(self, *parts: Any) -> None:
        given = parts[0] if len(parts) == 1 and isinstance(parts[0], tuple | list) else parts
        for one in given:
            if not callable(one):
                raise InputError(f"Together: expected functions of a configuration, got {one!r}")
        object.__setattr__(self, "parts", tuple(given))

    def __call__(self, configuration: Configuration, /) -> Metrics:
        """The metrics of all parts."""
        row = self.many([configuration])[0]
        if "error" in row:
            raise InputError(row["error"])
        return row

    def many(self, configurations: Sequence[Configuration]) -> list[Metrics]:
        """The metrics of all parts, many configurations at once; a part sees those only that no part before it refused."""
        rows: list[Metrics] = [{} for _ in configurations]
        for part in self.parts:
            left = [i for i, row in enumerate(rows) if "error" not in row]
            for i, more in zip(left, evaluate_many(part, [configurations[i] for i in left]), strict=True):
                for name in sorted(more.keys() & rows[i].keys()):
                    raise InputError(f"evaluate: two evaluators give {name}; leave it out of one")
                rows[i] |= more
        return [{"error": row["error"]} if "error" in row else row for row in rows]

    def __getattr__(self, name: str) -> Any:
        """``report`` and ``layers`` of the first part that has them."""
        if name in ("report", "layers"):
            for part in self.parts:
                if hasattr(part, name):
                    return getattr(part, name)
        raise AttributeError(name)

    def check(self, space: Space) -> None:
        """Every part's check."""
        for part in self.parts:
            if hasattr(part, "check"):
                part.check(space)

    def identity(self) -> list[Any]:
        """The identities of the parts."""
        return [identity_of(part) for part in self.parts]


@displayed
@dataclass(frozen=True)
class MachineCost:
    """What a workload costs on a machine, both as the configuration says.

    Parameters of a configuration: a field of the device's spec by its dotted name or its unique end (``array.rows``, ``rows``);
    ``device``, another device; ``formats``, a recipe; ``formats.PATTERN``, ``weights.PATTERN`` and ``activations.PATTERN``, the
    format of weights and activations, or of one of them, in the modules whose path matches; ``batch``, ``seq_len``, ``kv_len``;
    ``model``, another model; ``model.KEY``, an argument of the function that makes the model.

    Attributes:
        model: zoo name, file, ``package.module:callable``, a function that returns a workload or ``(module, example_inputs)``, or
            a workload.
        device: name, file, spec's data or device; may be left out where the configuration has ``device``.
        fidelity: rung of the device's ladder; its default otherwise.
        recipe: number formats where the configuration does not say.
        options: further arguments of ``hwsim.api.workload_from`` (``batch``, ``mode``, …).
        metrics: which of ``METRICS`` to give; area is left out unless asked for.

    Raises:
        InputError: an unknown metric.
    """

    model: str | Workload | Callable[..., Any] | None = None
    device: str | Path | Mapping[str, Any] | Device | None = field(default=None, kw_only=True)
    fidelity: str | None = field(default=None, kw_only=True)
    recipe: str | Recipe | None = field(default=None, kw_only=True)
    options: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    metrics: tuple[str, ...] = field(default=("time_s", "energy_j", "weight_bytes", "peak_memory_bytes"), kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "metrics", tuple(self.metrics))
        for name in self.metrics:
            if name not in METRICS:
                raise unknown_name("metric", str(name), METRICS)
        if isinstance(self.model, Workload) and self.options:
            raise InputError(f"options: a workload is traced already; leave {', '.join(self.options)} out")

    # --- what a configuration names -----------------------------------------------------------------------------------

    def changes(self, configuration: Mapping[str, Any]) -> dict[str, Any]:
        """The part of a configuration that changes fields of the device."""
        return {name: value for name, value in configuration.items() if not _of_workload(name) and name != "device"}

    def device_of(self, configuration: Mapping[str, Any]) -> Device:
        """The device as the configuration has it.

        Raises:
            InputError: no device, an unknown one, a field it lacks, a value it refuses.
        """
        return get_device(self._base(configuration), overrides=self.changes(configuration))

    def _base(self, configuration: Mapping[str, Any]) -> Device:
        named = configuration.get("device")
        if named is None:
            if self.device is None:
                raise InputError("device: none given; expected one, or a parameter 'device'")
            return self._given_device
        kept: dict[str, Device] = self.__dict__.setdefault("_devices", {})
        if named not in kept:
            kept[named] = get_device(named)
        return kept[named]

    @cached_property
    def _given_device(self) -> Device:
        assert self.device is not None
        return get_device(self.device)

    def recipe_of(self, configuration: Mapping[str, Any]) -> Recipe | None:
        """The number formats as the configuration has them; None for the device's own.

        The same object serves the accuracy: ``device.emulate(module, cost.recipe_of(configuration))``.
        """
        named = configuration.get("formats", self.recipe)
        layers = {name: value for name, value in configuration.items() if _layer_pattern(name)}
        if named is None and not layers:
            return None
        if named is None:
            spec: Any = self._base(configuration).spec
            chosen: Recipe = spec.default_recipe
        else:
            chosen = get_recipe(named)
        for name, value in reversed(layers.items()):  # of overrides, the first that matches wins
            first, _, pattern = name.partition(".")
            chosen = chosen.excepting(pattern, **dict.fromkeys(LAYER_FORMATS[first], value))
        return chosen

    def workload_of(self, configuration: Mapping[str, Any]) -> Workload:
        """The workload as the configuration has it, with its formats where any are said; equal ones are made once."""
        own = {name: value for name, value in configuration.items() if _of_workload(name)}
        event_driven = getattr(self._base(configuration), "event_driven", False)
        needs_default = any(_layer_pattern(name) for name in own) and "formats" not in own and self.recipe is None
        # In their order: of formats for the same module the first counts.
        key = (tuple(own.items()), configuration.get("device") if needs_default else None, event_driven)
        kept: dict[Any, Workload] = self.__dict__.setdefault("_workloads", {})
        if key not in kept:
            if len(kept) >= 64:
                kept.pop(next(iter(kept)))
            traced = self._traced(own, self._base(configuration) if event_driven else None)
            recipe = self.recipe_of(configuration)
            kept[key] = traced if recipe is None else traced.with_formats(recipe)
        return kept[key]

    def _traced(self, own: Mapping[str, Any], device: Device | None) -> Workload:
        from hwsim.api import workload_from

        model = own.get("model", self.model)
        sizes = {name: value for name, value in own.items() if name in SIZES}
        arguments = {name.removeprefix("model."): value for name, value in own.items() if name.startswith("model.")}
        if model is None:
            raise InputError("model: none given; expected one, or a parameter 'model'")
        if isinstance(model, Workload):
            for name in (*sizes, *arguments):
                raise InputError(f"{name}: the model is a workload, which is traced already; give what it is made from")
            return model
        key = (model, tuple(sorted(sizes.items())), tuple(sorted(arguments.items())), device is None)
        kept: dict[Any, Workload] = self.__dict__.setdefault("_unformatted", {})
        if key not in kept:
            if len(kept) >= 64:
                kept.pop(next(iter(kept)))
            if callable(model):
                kept[key] = self._called(model, {**sizes, **arguments}, device)
            else:
                kept[key] = workload_from(model, **{**self.options, **sizes}, arguments=arguments, device=device)
        return kept[key]

    def _called(self, make: Callable[..., Any], arguments: Mapping[str, Any], device: Device | None) -> Workload:
        """The workload that a function makes, traced where it gives a module."""
        from hwsim.api import made_by
        from hwsim.tracing.torch import trace

        options = {name: value for name, value in self.options.items() if name != "mode"}
        name = getattr(make, "__name__", type(make).__name__)
        made = made_by(make, {**options, **arguments}, name=name)
        if isinstance(made, Workload):
            return made
        module, inputs = made
        mode = self.options.get("mode", "inference")
        if device is not None and mode == "inference":
            spiking: Workload = device.workload(module, *inputs, name=name)  # type: ignore[attr-defined]
            return spiking
        return trace(module, *inputs, mode=mode, name=name)

    # --- what it costs ------------------------------------------------------------------------------------------------

    def __call__(self, configuration: Configuration, /) -> Metrics:
        """The metrics of one configuration."""
        row = self.many([configuration])[0]
        if "error" in row:
            raise InputError(row["error"])
        return row

    def many(self, configurations: Sequence[Configuration]) -> list[Metrics]:
        """The metrics of many configurations; those that differ in the machine only are evaluated together."""
        rows: list[Metrics] = [{} for _ in configurations]
        together: dict[tuple[int, int], tuple[Device, Workload, list[int]]] = {}
        for index, configuration in enumerate(configurations):
            try:
                device, workload = self._base(configuration), self.workload_of(configuration)
            except InputError as error:
                rows[index] = {"error": " ".join(str(error).split())}
                continue
            together.setdefault((id(device), id(workload)), (device, workload, []))[2].append(index)
        for device, workload, indices in together.values():
            changes = [self.changes(configurations[i]) for i in indices]
            costs = device.costs(workload, changes, fidelity=self.fidelity)  # type: ignore[attr-defined]
            fixed = self._fixed(device, workload)
            for i, change, time_s, energy_j, refused in zip(
                indices, changes, costs.time_s.tolist(), costs.energy_j.tolist(), costs.errors, strict=True
            ):
                rows[i] = {"error": refused} if refused else self._row(device, change, time_s, energy_j, fixed)
        return rows

    def _fixed(self, device: Device, workload: Workload) -> dict[str, float]:
        """What follows from the workload, in the formats that it has on the device."""
        placed = getattr(device, "placed", None)
        there = workload if placed is None or not {"weight_bytes", "peak_memory_bytes"} & {*self.metrics} else placed(workload)
        found = {
            "weight_bytes": lambda: there.bytes_by_role().get("weight", 0),
            "peak_memory_bytes": lambda: there.peak_memory().bytes,
            "macs": lambda: there.macs,
        }
        return {name: get() for name, get in found.items() if name in self.metrics}

    def _row(
        self, device: Device, change: Mapping[str, Any], time_s: float, energy_j: float, fixed: Mapping[str, float]
    ) -> Metrics:
        found: Metrics = {"time_s": time_s, "energy_j": energy_j, "edp_js": time_s * energy_j, **fixed}
        if "area_mm2" in self.metrics:
            area = get_device(device, overrides=change).area()  # type: ignore[attr-defined]
            found["area_mm2"] = None if area is None else area.total_mm2
        return {name: found[name] for name in self.metrics}

    def report(self, configuration: Configuration) -> Report:
        """The operators behind the metrics of a configuration."""
        return self.device_of(configuration).simulate(self.workload_of(configuration), fidelity=self.fidelity)

    # --- before and between runs ----------------------------------------------------------------------------------------

    def check(self, space: Space) -> None:
        """See that each parameter means something here, and that some configuration can be evaluated.

        Raises:
            InputError: an unknown field, device, model or recipe.
        """
        parameters = space.parameters
        devices: Iterable[Any] = [None]
        if "device" in parameters:
            named = parameters["device"]
            if not isinstance(named, Choice):
                raise InputError("space: device: expected a list of devices")
            devices = named.values
        for device in devices:
            base = self._base({} if device is None else {"device": device})
            if not hasattr(base, "costs"):
                raise InputError(f"device {base.name!r}: has no method 'costs', which an exploration asks")
            if self.fidelity is not None and self.fidelity not in base.fidelities:
                raise unknown_name(f"fidelity (device {base.name!r})", str(self.fidelity), base.fidelities)
            fields: dict[str, str] = {}
            for name in parameters:
                if _of_workload(name) or name == "device":
                    continue
                (field,) = full_names(base, [{name: None}])[0]  # type: ignore[arg-type]
                if field in fields:
                    raise InputError(f"space: {fields[field]} and {name} are the same field, {field}; leave one out")
                fields[field] = name
        first = {name: one.values[0] if isinstance(one, Choice) else one.low for name, one in parameters.items()}
        try:
            self.workload_of(first)
        except InputError as error:
            # Sizes may not go together by themselves; a model that is not there is wrong in any case.
            if str(error).startswith("model:"):
                raise
        for name in ("model", "formats"):
            if name in parameters and not isinstance(parameters[name], Choice):
                raise InputError(f"space: {name}: expected a list of names")
        if "formats" in parameters:
            for value in parameters["formats"].values:  # type: ignore[union-attr]
                get_recipe(value)

    def identity(self) -> dict[str, Any]:
        """Model, machine, formats and rung, and the version that evaluates them."""
        spec: Any = None if self.device is None else self._given_device.spec.model_dump(mode="json")
        model: Any = self.model
        if isinstance(model, Workload):
            model = hashlib.sha256(model.to_json().encode()).hexdigest()
        elif callable(model):
            model = identity_of(model)
        elif model is not None and ":" in model:
            model = [model, _source_of(model)]
        elif model is not None and Path(model).is_file():
            model = [model, hashlib.sha256(Path(model).read_bytes()).hexdigest()]
        recipe = None if self.recipe is None else get_recipe(self.recipe).to_dict()
        plain = {
            "model": model,
            "spec": spec,
            "fidelity": self.fidelity,
            "recipe": recipe,
            "options": {name: self.options[name] for name in sorted(self.options)},
            "metrics": list(self.metrics),
            "version": VERSION,
        }
        return dict(json.loads(json.dumps(plain, default=str)))

    def __getstate__(self) -> dict[str, Any]:
        """Without what was kept: workers make their own."""
        return {name: value for name, value in self.__dict__.items() if not name.startswith("_")}


def _source_of(model: str) -> Any:
    """What tells the function of ``package.module:callable`` from a later version of it."""
    from importlib import import_module

    module, _, name = model.partition(":")
    try:
        return identity_of(getattr(import_module(module), name))
    except Exception:  # the user's module; what is wrong is said when it is called
        return None


def _layer_pattern(name: str) -> bool:
    """Whether a parameter sets the formats of some modules."""
    first, dot, pattern = name.partition(".")
    return bool(dot and pattern) and first in LAYER_FORMATS


def _of_workload(name: str) -> bool:
    """Whether a parameter shapes the workload rather than the machine."""
    return name in SIZES or name in ("model", "formats") or name.startswith("model.") or _layer_pattern(name)
