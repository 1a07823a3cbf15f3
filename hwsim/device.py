"""What every machine offers: the protocol."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from pydantic import BaseModel

from hwsim.report import Report
from hwsim.workload import Workload
from numerics.errors import InputError, unknown_name
from numerics.recipes import Recipe

if TYPE_CHECKING:
    from torch import nn


@runtime_checkable
class Device(Protocol):
    """A machine: a validated spec, what workloads cost on it and what modules compute on it.

    A class that implements it is named in the entry-point group ``hwsim.devices`` under its ``kind``; it also has a class method
    ``bundled()`` (spec name → file) and is built from a spec's data by ``from_data(data, source)``.
    """

    kind: ClassVar[str]
    fidelities: ClassVar[tuple[str, ...]]
    default_fidelity: ClassVar[str]

    @property
    def name(self) -> str:
        """Name of the device, from its spec."""
        ...

    @property
    def spec(self) -> BaseModel:
        """The validated spec."""
        ...

    @classmethod
    def bundled(cls) -> Mapping[str, Path]:
        """Specs that come with the package: name → YAML file."""
        ...

    @classmethod
    def from_data(cls, data: Mapping[str, Any], *, source: str) -> Device:
        """The device that a spec's data describes; ``source`` names it in errors."""
        ...

    def simulate(
        self,
        workload: Workload,
        *,
        fidelity: str | None = None,
        inputs: Any = None,
        parameters: Any = None,
    ) -> Report:
        """What the workload costs on this machine.

        Args:
            workload: formats applied or not; the device's default formats apply where no recipe was.
            fidelity: a rung of ``fidelities``; the default is the cheapest that sees stalls.
            inputs, parameters: values, for rungs that compute them.

        Raises:
            InputError: unknown fidelity, a format the device lacks, an operator that cannot be mapped, values given to a rung
                that does not use them.
        """
        ...

    def emulate(
        self,
        module: nn.Module,
        recipe: str | Recipe | None = None,
        *,
        fidelity: str | None = None,
        example_inputs: Any = None,
        seed: int = 0,
    ) -> nn.Module:
        """A module that computes as this machine does: in its formats, with its sums.

        Args:
            module: what to emulate; it is copied, not changed.
            recipe: formats by role, scales and rounding; the device's default formats otherwise.
            fidelity: a rung that computes values its own way, with the same result; the fastest way otherwise.
            example_inputs: a tuple of inputs to run once, so that the list of emulated operators is complete.
            seed: of stochastic rounding.

        Raises:
            InputError: a format that the device neither computes in nor converts.
        """
        ...


def check_request(device: Device, fidelity: str | None, inputs: Any, parameters: Any, valued: tuple[str, ...] = ()) -> str:
    """The rung asked for, after checking it and the values given with it. ``valued`` are the rungs that compute values."""
    chosen = fidelity or device.default_fidelity
    if chosen not in device.fidelities:
        raise unknown_name(f"fidelity (device {device.name!r})", chosen, device.fidelities)
    if (inputs is not None or parameters is not None) and chosen not in valued:
        which = "inputs" if inputs is not None else "parameters"
        raise InputError(f"{which}: fidelity {chosen!r} computes no values; leave {which} out")
    return chosen
