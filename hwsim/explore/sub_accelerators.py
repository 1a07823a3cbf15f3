"""Several networks on several sub-accelerators, all of them as a configuration says: an evaluator for sweeps and searches."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hwsim._distribution import VERSION
from hwsim.device import Device
from hwsim.explore.evaluation import Metrics, identity_of
from hwsim.explore.space import Choice, Configuration, Space
from hwsim.planning.assignment import GOALS, Assignment, Handover, scheduled, total_area
from hwsim.planning.assignment_costs import CutNetwork, MachineColumn, common_formats, costs_on, cut, together
from hwsim.planning.assignment_search import Goal
from hwsim.registry import get_device
from hwsim.views.display import displayed
from hwsim.workload import Workload
from numerics.errors import InputError, unknown_name
from numerics.recipes import Recipe, get_recipe

_SUB = re.compile(r"^sub([1-9]\d*)\.(.+)$")

KEPT = 512
"""Networks, machines and costs of networks on machines that an evaluator keeps."""

NetworkSource = str | Workload | Callable[..., Any]
Template = str | Path | Mapping[str, Any] | Device


@displayed
@dataclass(frozen=True)
class SubAccelerators:
    """Latency, energy, area and accuracy of several networks that run at once on several sub-accelerators (Yang et al.,
    "Co-Exploration of Neural Architectures and Heterogeneous ASIC Accelerator Designs Targeting Multiple Tasks", DAC 2020).

    Parameters of a configuration: ``sub1.template``, ``sub2.template``, …: names of ``templates``, or ``none`` for no such
    sub-accelerator; ``sub1.pes``: processing elements, as rows and columns as near to each other as their product allows;
    ``sub1.FIELD``: a field of the template's spec by its dotted name or its unique end; ``NETWORK.KEY``: an argument of the
    function that makes a network. Layers are placed and timed as ``hwsim.planning.assign`` does.

    Metrics: ``time_s``, when the last layer ends; ``energy_j``; ``area_mm2``; ``weight_bytes`` of all networks; ``pes`` and
    ``bandwidth_bytes_per_s`` of all sub-accelerators, for budgets; with ``accuracy``, ``accuracy.NETWORK`` and their mean,
    ``accuracy``.

    Attributes:
        networks: name → a workload, a callable that returns one or ``(module, example_inputs)``, or ``package.module:callable``.
        templates: name → device.
        accuracy: name of a network → what gives its accuracy from the same arguments; for every network, or for none.
        fixed: parameters that no space varies, as in a configuration.
        objective: what the placement minimises.
        deadline_s: that it keeps where it can; what comes later is left to a constraint on ``time_s``.
        recipe: number formats; the templates' own default formats, which are to be the same, otherwise.
        fidelity: a rung of every template; each one's default otherwise.
        handover: what a result takes on its way to another sub-accelerator.
        search: of the placement: ``heuristic`` or ``exact``.
        node_nm: process of all sub-accelerators, for their area; that of each template's spec otherwise.

    Raises:
        InputError: no network or template, a name with a dot or of a sub-accelerator, accuracy for some networks only.
    """

    networks: Mapping[str, NetworkSource]
    templates: Mapping[str, Template]
    accuracy: Mapping[str, Callable[..., float]] = field(default_factory=dict, kw_only=True)
    fixed: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    objective: Goal = field(default="energy_j", kw_only=True)
    deadline_s: float | None = field(default=None, kw_only=True)
    recipe: str | Recipe | None = field(default=None, kw_only=True)
    fidelity: str | None = field(default=None, kw_only=True)
    handover: Handover | None = field(default=None, kw_only=True)
    search: Literal["heuristic", "exact"] = field(default="heuristic", kw_only=True)
    node_nm: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        for what in ("networks", "templates"):
            if not getattr(self, what):
                raise InputError(f"{what}: expected at least one, got none")
        for name in self.networks:
            if "." in name or re.fullmatch(r"sub\d*", name):
                raise InputError(f"networks: expected names without a dot that are not those of sub-accelerators, got {name!r}")
        if "none" in self.templates:
            raise InputError("templates: 'none' stands for no sub-accelerator; expected another name")
        for name in self.accuracy:
            if name not in self.networks:
                raise unknown_name("accuracy: network", name, self.networks)
        missing = [name for name in self.networks if name not in self.accuracy]
        if self.accuracy and missing:
            raise InputError(f"accuracy: expected one for every network, got none for {missing[0]!r}")
        if self.objective not in GOALS:
            raise unknown_name("objective", str(self.objective), GOALS)

    # --- what a configuration names -----------------------------------------------------------------------------------

    def devices_of(self, configuration: Mapping[str, Any]) -> list[Device]:
        """The sub-accelerators as the configuration has them.

        Raises:
            InputError: none at all, an unknown template, a field that it lacks, a value that it refuses.
        """
        subs: dict[int, dict[str, Any]] = {}
        for name, value in {**self.fixed, **configuration}.items():
            match = _SUB.match(name)
            if match is not None:
                subs.setdefault(int(match[1]), {})[match[2]] = value
        found = [self._device(f"sub{number}", changes) for number, changes in sorted(subs.items())]
        present = [device for device in found if device is not None]
        if not present:
            raise InputError("sub1.template: expected at least one sub-accelerator, got none")
        return present

    def _device(self, name: str, changes: Mapping[str, Any]) -> Device | None:
        rest = dict(changes)
        if "template" not in rest and len(self.templates) > 1:
            raise InputError(f"{name}.template: missing; expected one of {', '.join(self.templates)}, none")
        template = rest.pop("template", next(iter(self.templates)))
        if template == "none":
            return None
        if template not in self.templates:
            raise unknown_name(f"{name}.template", str(template), [*self.templates, "none"])
        if "pes" in rest:
            rows, columns = array_of(rest.pop("pes"), name=f"{name}.pes")
            rest |= {"array.rows": rows, "array.columns": columns}
        return self._kept(
            "devices",
            (template, tuple(sorted(rest.items()))),
            lambda: get_device(self._template(template), overrides={**rest, "name": f"{name}: {template}"} if rest else None),
        )

    def _template(self, name: str) -> Device:
        return self._kept("templates", name, lambda: get_device(self.templates[name]))

    def arguments_of(self, configuration: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Network → arguments that the configuration gives it."""
        found: dict[str, dict[str, Any]] = {name: {} for name in self.networks}
        for name, value in {**self.fixed, **configuration}.items():
            network, dot, key = name.partition(".")
            if _SUB.match(name):
                continue
            if not dot or network not in found:
                raise InputError(f"{name}: expected sub1.FIELD, or NETWORK.KEY of one of the networks {', '.join(self.networks)}")
            found[network][key] = value
        return found

    def workload_of(self, network: str, arguments: Mapping[str, Any]) -> Workload:
        """A network, made with these arguments; equal ones are made once.

        Raises:
            InputError: an unknown network, arguments for a workload, something else made than was expected.
        """
        if network not in self.networks:
            raise unknown_name("network", network, self.networks)
        return self._kept("workloads", (network, tuple(sorted(arguments.items()))), lambda: self._made(network, arguments))

    def _made(self, network: str, arguments: Mapping[str, Any]) -> Workload:
        source = self.networks[network]
        if isinstance(source, Workload):
            for key in arguments:
                raise InputError(f"{network}.{key}: the network is a workload, which takes no arguments")
            return source
        if isinstance(source, str):
            from hwsim.api import workload_from

            return workload_from(source, arguments=arguments)
        from hwsim.api import made_by
        from hwsim.tracing.torch import trace

        made = made_by(source, arguments, name=network)
        return made if isinstance(made, Workload) else trace(made[0], *made[1], name=network)

    def _placed(self, network: str, arguments: Mapping[str, Any], devices: Sequence[Device]) -> Workload:
        """A network in the formats that it has on these sub-accelerators."""
        workload = self.workload_of(network, arguments)
        if self.recipe is None:
            return common_formats(workload, devices, None)
        recipe = get_recipe(self.recipe)
        key = network, tuple(sorted(arguments.items()))
        placed: Workload = self._kept("placed", key, lambda: common_formats(workload, devices, recipe))
        return placed

    # --- what it costs ------------------------------------------------------------------------------------------------

    def assignment(self, configuration: Mapping[str, Any]) -> Assignment:
        """Which sub-accelerator runs which layer, and when."""
        devices = self.devices_of(configuration)
        networks: list[CutNetwork] = []
        columns: list[list[MachineColumn]] = []
        for name, arguments in self.arguments_of(configuration).items():
            placed = self._placed(name, arguments, devices)
            key = name, tuple(sorted(arguments.items())), placed.recipe
            network = self._kept("networks", key, lambda placed=placed: cut(placed))  # type: ignore[misc]
            networks.append(network)
            columns.append(
                [
                    self._kept(
                        "columns",
                        (key, _spec_text(device)),
                        lambda network=network, device=device: costs_on(network, device, self.fidelity),  # type: ignore[misc]
                    )
                    for device in devices
                ]
            )
        names = [device.name for device in devices]
        return scheduled(
            together(networks, devices, columns),
            networks=tuple(self.networks),
            devices=[f"{name} ({i + 1})" if names.count(name) > 1 else name for i, name in enumerate(names)],
            area_mm2=total_area(devices, self.node_nm),
            objective=self.objective,
            deadline_s=self.deadline_s,
            handover=self.handover or Handover(),
            search=self.search,
        )

    def __call__(self, configuration: Configuration, /) -> Metrics:
        """The metrics of one configuration.

        Raises:
            InputError: the configuration is none.
        """
        found = self.assignment(configuration)
        devices = self.devices_of(configuration)
        arguments = self.arguments_of(configuration)
        placed = [self._placed(name, own, devices) for name, own in arguments.items()]
        metrics: Metrics = {
            "time_s": found.makespan_s,
            "energy_j": found.energy_j,
            "area_mm2": found.area_mm2,
            "weight_bytes": sum(workload.bytes_by_role().get("weight", 0) for workload in placed),
            "pes": _total(_pes(device) for device in devices),
            "bandwidth_bytes_per_s": _total(_bandwidth(device) for device in devices),
        }
        if self.accuracy:
            each = {name: float(self.accuracy[name](**own)) for name, own in arguments.items()}
            metrics |= {"accuracy": sum(each.values()) / len(each)}
            metrics |= {f"accuracy.{name}": value for name, value in each.items()}
        return metrics

    # --- before and between runs ----------------------------------------------------------------------------------------

    def layers(self, configuration: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The layers of all networks by their start, each with the sub-accelerator that runs it, for an exploration."""
        return [
            {
                "name": f"{row['network']}: {row['layer']}", "unit": row["device"], "start_s": row["start_s"],
                "time_s": row["end_s"] - row["start_s"], "energy_j": row["energy_j"],
            }
            for row in self.assignment(configuration).records()
        ]  # fmt: skip

    def check(self, space: Space) -> None:
        """See that each parameter means something here.

        Raises:
            InputError: a name that is neither a sub-accelerator's nor a network's, an unknown template, a field that no template
                has.
        """
        self.arguments_of(dict.fromkeys(space.names))
        for name, parameter in space.parameters.items():
            match = _SUB.match(name)
            if match is None or match[2] == "pes":
                continue
            values = parameter.values if isinstance(parameter, Choice) else (parameter.low,)
            if match[2] == "template":
                for value in values:
                    if value != "none" and value not in self.templates:
                        raise unknown_name(name, str(value), [*self.templates, "none"])
                continue
            refused = [self._refusal(template, match[2], values[0]) for template in self.templates]
            if all(refused):
                raise InputError(f"{name}: {refused[0]}")

    def _refusal(self, template: str, name: str, value: Any) -> str:
        """Why a template knows no field of this name ("" where it does)."""
        try:
            get_device(self._template(template), overrides={name: value})
        except InputError as error:
            if "unknown field" in str(error) or "is ambiguous" in str(error):
                return str(error)
        return ""

    def identity(self) -> dict[str, Any]:
        """Networks, templates, formats and rung, and the version that evaluates them."""
        networks: dict[str, Any] = {}
        for name, source in self.networks.items():
            if isinstance(source, Workload):
                networks[name] = hashlib.sha256(source.to_json().encode()).hexdigest()
            else:
                networks[name] = source if isinstance(source, str) else identity_of(source)
        plain = {
            "networks": networks,
            "templates": {name: self._template(name).spec.model_dump(mode="json") for name in self.templates},
            "accuracy": {name: identity_of(source) for name, source in self.accuracy.items()},
            "fixed": dict(self.fixed),
            "objective": self.objective,
            "deadline_s": self.deadline_s,
            "recipe": None if self.recipe is None else get_recipe(self.recipe).to_dict(),
            "fidelity": self.fidelity,
            "handover": None if self.handover is None else repr(self.handover),
            "search": self.search,
            "node_nm": self.node_nm,
            "version": VERSION,
        }
        return dict(json.loads(json.dumps(plain, default=str)))

    def __getstate__(self) -> dict[str, Any]:
        """Without what was kept: workers make their own."""
        return {name: value for name, value in self.__dict__.items() if not name.startswith("_")}

    def _kept(self, kind: str, key: Any, make: Callable[[], Any]) -> Any:
        """What ``make`` gives, made once for each key; of each kind the ``KEPT`` first made are kept, then room is made."""
        store: dict[Any, Any] = self.__dict__.setdefault(f"_{kind}", {})
        if key not in store:
            if len(store) >= KEPT:
                store.pop(next(iter(store)))
            store[key] = make()
        return store[key]


def array_of(pes: Any, *, name: str = "pes") -> tuple[int, int]:
    """Rows and columns of an array of so many processing elements, as near to each other as their product allows; no more rows
    than columns.

    Raises:
        InputError: no integer of one or above.

    >>> array_of(128)
    (8, 16)
    """
    if isinstance(pes, bool) or not isinstance(pes, int) or pes < 1:
        raise InputError(f"{name}: expected an integer ≥ 1, got {pes!r}")
    rows = next(rows for rows in range(math.isqrt(pes), 0, -1) if pes % rows == 0)
    return rows, pes // rows


def _spec_text(device: Device) -> str:
    """All that a machine's costs depend on, its name apart."""
    return json.dumps({**device.spec.model_dump(mode="json"), "name": ""}, sort_keys=True)


def _pes(device: Device) -> int | None:
    array = getattr(device.spec, "array", None)
    rows, columns = getattr(array, "rows", None), getattr(array, "columns", None)
    return None if rows is None or columns is None else int(rows * columns * getattr(array, "count", 1))


def _bandwidth(device: Device) -> float | None:
    memory = getattr(device.spec, "memory", device.spec)
    off_chip = getattr(memory, "off_chip", None)
    return None if off_chip is None else float(off_chip.bandwidth_bytes_per_s)


def _total(values: Iterable[float | None]) -> float | None:
    """Sum; None where one is not known."""
    total = 0.0
    for value in values:
        if value is None:
            return None
        total += value
    return total
