"""Time and energy of one workload on many configurations of one machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hwsim.registry import _near_paths, _paths, get_device
from hwsim.views.display import displayed
from numerics.errors import InputError

if TYPE_CHECKING:
    from hwsim.machine import Machine
    from hwsim.workload import Workload

Changes = Mapping[str, Any]
"""Field of a spec → value, in the order in which they apply."""


@displayed
@dataclass(frozen=True)
class Costs:
    """What a workload costs on each of many configurations.

    Attributes:
        time_s: latency, one a configuration; NaN where it is not known or the configuration is in error.
        energy_j: energy, likewise.
        errors: why a configuration cannot be, or cannot run the workload; "" where it can.
    """

    time_s: npt.NDArray[np.float64]
    energy_j: npt.NDArray[np.float64]
    errors: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.errors)


def full_names(machine: Machine[Any], changes: Iterable[Changes]) -> list[dict[str, Any]]:
    """The changes with each field by its dotted name; of two names of one field the last counts.

    Raises:
        InputError: a field that the machine's spec lacks, or an end that several fields share.
    """
    paths = list(_paths(machine.spec.model_dump()))
    known: dict[str, str] = {}
    named = []
    for change in changes:
        fields: dict[str, Any] = {}
        for field, value in change.items():
            if field not in known:
                known[field] = _full_name(paths, field, f"device {machine.name!r}")
            fields.pop(known[field], None)
            fields[known[field]] = value
        named.append(fields)
    return named


def _full_name(paths: Sequence[str], field: str, source: str) -> str:
    if field in paths:
        return field
    ends = [path for path in paths if path.endswith(f".{field}")]
    if len(ends) > 1:
        raise InputError(f"{source}: field {field!r} is ambiguous: {', '.join(ends)}")
    if not ends:
        raise InputError(f"{source}: unknown field {field!r}; {_near_paths(field, list(paths))}")
    return ends[0]


def simulated(machine: Machine[Any], workload: Workload, changes: Sequence[Changes], fidelity: str) -> Costs:
    """What ``simulate`` finds for each configuration, one after another."""
    time_s, energy_j = np.full(len(changes), np.nan), np.full(len(changes), np.nan)
    errors = []
    for i, change in enumerate(changes):
        try:
            device: Any = get_device(machine, overrides=change) if change else machine  # type: ignore[arg-type]
            report = device.simulate(workload, fidelity=fidelity)
        except InputError as error:
            errors.append(str(error))
            continue
        errors.append("")
        time_s[i] = np.nan if report.known_time_s is None else report.known_time_s
        energy_j[i] = np.nan if report.known_energy_j is None else report.known_energy_j
    return Costs(time_s, energy_j, tuple(errors))
