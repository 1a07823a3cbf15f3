"""What the classes of devices share: their specs, the formats of a workload on them, and the frame of a report."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

import numpy as np

from hwsim._distribution import VERSION
from hwsim.device import check_request
from hwsim.operators import Matmul, Op
from hwsim.registry import specs_of_kind
from hwsim.report import OpCost, Origin, Report, Span
from hwsim.spec import MachineSpec, validate_spec
from hwsim.views.display import displayed, displayed_by
from hwsim.workload import Workload, chain
from numerics.errors import InputError, unknown_name
from numerics.recipes import Recipe, get_recipe

if TYPE_CHECKING:
    from torch import nn

    from hwsim.area.components import Area
    from hwsim.area.process import Process
    from hwsim.costs import Costs

SpecT = TypeVar("SpecT", bound=MachineSpec)

UNMODELLED = ("unmodelled", "collective")
"""Kinds of operator that are charged only their bytes."""


@displayed
@dataclass(frozen=True)
class Fittable:
    """Fields of a kind of machine that measurements can determine.

    Attributes:
        operators: the measured operators that bear on them (names of ``hwsim.scoreboard``'s single operators; empty: whatever
            a target says).
        ranges: dotted field of the spec → (least, largest) value that makes sense.
    """

    operators: tuple[str, ...]
    ranges: Mapping[str, tuple[float, float]]


@displayed_by("hwsim.views.cards:device")
class Machine(Generic[SpecT]):
    """A device built from a spec, without what it costs and computes (``simulate`` and ``emulate``). A subclass names its
    ``kind``, ``spec_class`` and rungs."""

    kind: ClassVar[str]
    spec_class: ClassVar[type[MachineSpec]]
    package: ClassVar[str] = "accelerators"
    """The package whose folder ``specs`` holds the bundled specs."""
    fidelities: ClassVar[tuple[str, ...]] = ("analytic",)
    default_fidelity: ClassVar[str] = "analytic"
    event_driven: ClassVar[bool] = False
    """Whether it runs spiking networks, and those alone."""
    fittable: ClassVar[Mapping[str, Fittable]] = {}
    """Name of a fit, as under the spec's ``calibrated`` → its fields."""

    def __init__(self, spec: SpecT) -> None:
        self._spec = spec

    @property
    def spec(self) -> SpecT:
        """The validated spec."""
        return self._spec

    @property
    def name(self) -> str:
        """Name of the device."""
        return self._spec.name

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}: {self._spec.summary or self.kind})"

    @classmethod
    def bundled(cls) -> Mapping[str, Path]:
        """Specs of this kind that come with the package: name → YAML file."""
        return specs_of_kind(Path(str(resources.files(cls.package) / "specs")), cls.kind)

    @classmethod
    def from_data(cls, data: Mapping[str, Any], *, source: str) -> Self:
        """The device that a spec's data describes; ``source`` names it in errors."""
        return cls(validate_spec(cls.spec_class, data, source=source))  # type: ignore[arg-type]

    # --- what it takes of a die ---------------------------------------------------------------------------------------

    def area(self, node: float | None = None) -> Area:
        """What the machine takes of a die, by component; off-chip memory is not in it.

        Args:
            node: process in nanometres, from 3 to 130; the spec's ``process_nm`` where it is left out.

        Returns:
            Areas that are None, with the reason, where nothing can be said of them.

        Raises:
            InputError: a node that is not known.
        """
        from hwsim.area.components import Area, Component
        from hwsim.area.process import get_process

        node_nm = self._spec.process_nm if node is None else node
        if node_nm is None:
            why = "the spec has no process_nm, and no node was given"
            return Area(self.name, None, (Component.unknown("all", why),), sources=())
        process = get_process(node_nm)
        found = self._area(process)
        if found is not None:
            return found
        why = f"no model of the area of a {self.kind}"
        return Area(self.name, process.node_nm, (Component.unknown("all", why),), sources=())

    def _area(self, process: Process) -> Area | None:
        """The area at a node; None for a kind of which nothing can be said."""
        return None

    # --- what it costs ------------------------------------------------------------------------------------------------

    def costs(self, workload: Workload, changes: Sequence[Mapping[str, Any]], *, fidelity: str | None = None) -> Costs:
        """Time and energy of ``workload`` on many configurations of this machine: what ``simulate`` reports for each, found at
        once where the kind of machine has a way to.

        Args:
            workload: formats applied or not.
            changes: for each configuration, field → value as ``get_device`` takes ``overrides``; an empty one is the machine as
                it is.
            fidelity: a rung of ``fidelities``.

        Returns:
            One entry a configuration. One that the spec's rules refuse, or that cannot run the workload, is in error.

        Raises:
            InputError: an unknown fidelity, a field that the spec lacks.
        """
        from hwsim.costs import full_names

        chosen = check_request(self, fidelity, None, None)  # type: ignore[arg-type]
        return self._costs_of_changes(workload, full_names(self, changes), chosen)

    def _costs_of_changes(self, workload: Workload, changes: Sequence[Mapping[str, Any]], fidelity: str) -> Costs:
        """The costs where each field has its dotted name: one by one, unless a subclass does it at once."""
        from hwsim.costs import simulated

        return simulated(self, workload, changes, fidelity)

    def conversions(self, workload: Workload, op: Op, computed: Sequence[str] = ()) -> tuple[float, float]:
        """(cycles of one lane, joules) to bring operands from the format they are stored in to the one they are consumed in.

        Args:
            computed: formats of the first operands where the machine computes in others than the workload says.

        Raises:
            InputError: a conversion that the device cannot do.
        """
        cycles = energy = 0.0
        for change, elements in self.converted(workload, op, computed):
            conversion = self._spec.conversions[change]
            cycles += elements * conversion.cycles_per_element
            energy += elements * conversion.energy_pj_per_element * 1e-12
        return cycles, energy

    def converted(self, workload: Workload, op: Op, computed: Sequence[str] = ()) -> list[tuple[str, int]]:
        """What ``conversions`` are made of: the spec's name of each conversion, and its elements."""
        found: list[tuple[str, int]] = []
        if op.formats is None:
            return found
        for position, name in enumerate(op.inputs):
            tensor = workload.tensors[name]
            wanted = computed[position] if position < len(computed) else op.formats.operands[position]
            if tensor.format == wanted:
                continue
            change = f"{tensor.format}->{wanted}"
            if change not in self._spec.conversions:
                raise InputError(
                    f"device {self.name!r}: op {op.name!r} needs tensor {name!r} converted {change}, which the device cannot do "
                    f"(conversions: {', '.join(self._spec.conversions) or 'none'})"
                )
            found.append((change, min(tensor.elements, workload.tensors[tensor.owner].elements)))
        return found

    def row(
        self,
        op: Op,
        *,
        unit: str,
        start_s: float,
        compute_cycles: float,
        stall_cycles: float,
        overhead_cycles: float,
        busy_cycles: float,
        energy_j: Mapping[str, float],
        bytes: Mapping[str, int],
        peak_macs_per_cycle: float = 0.0,
        fused_with: str = "",
    ) -> OpCost:
        """One operator of the report: time, utilization and static energy follow from its cycles.

        Args:
            energy_j: component → joules, static power left out.
            peak_macs_per_cycle: what the machine could do in this operator's formats (0 for none).
        """
        cycles = compute_cycles + stall_cycles + overhead_cycles
        time_s = cycles / self._spec.clock_hz
        possible = peak_macs_per_cycle * cycles
        macs, modelled = op.macs, op.kind not in UNMODELLED
        return OpCost(
            name=op.name,
            kind=op.kind,
            module=op.module,
            phase=op.phase,
            format=computed_format(op),
            unit=unit if modelled else "memory",
            macs=macs,
            time_s=time_s,
            cycles=cycles,
            compute_cycles=compute_cycles,
            stall_cycles=stall_cycles,
            overhead_cycles=overhead_cycles,
            busy_cycles=busy_cycles,
            energy_j={**energy_j, "static": self._spec.static_power_w * time_s},
            bytes=bytes,
            utilization=macs / possible if possible else 0.0,
            start_s=start_s,
            fused_with=fused_with,
            modelled=modelled,
        )

    def report(
        self,
        workload: Workload,
        rows: Sequence[OpCost],
        *,
        fidelity: str,
        peak_macs_per_s: float,
        offchip_bandwidth_bytes_per_s: float,
        spans: Sequence[Span] = (),
        tables: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
        notes: Sequence[str] = (),
    ) -> Report:
        """The report of ``rows``, one an operator in the workload's order."""
        charged = ("operators marked unmodelled are charged only the bytes they read and write",)
        return Report(
            device=self.name,
            workload=workload.name,
            fidelity=fidelity,
            recipe=workload.recipe,
            clock_hz=self._spec.clock_hz,
            ops=tuple(rows),
            peak_macs_per_s=peak_macs_per_s,
            offchip_bandwidth_bytes_per_s=offchip_bandwidth_bytes_per_s,
            origin=self._origin,
            spec=self._plain_spec,
            version=VERSION,
            spans=tuple(spans),
            tables={name: table for name, table in (tables or {}).items() if table},
            peak_memory_bytes=dict(workload.peak_memory().by_role),
            notes=(*(charged if any(not row.modelled for row in rows) else ()), *self._room(workload), *notes),
        )

    def _room(self, workload: Workload) -> list[str]:
        """A note where the workload's live tensors are more than off-chip memory holds."""
        place = getattr(self._spec, "memory", self._spec)
        capacity = getattr(getattr(place, "off_chip", None), "capacity_bytes", None)
        needed = workload.peak_memory().bytes
        if capacity is None or needed <= capacity:
            return []
        return [f"does not fit: needs {needed / 1e9:.1f} GB of off-chip memory, the device has {capacity / 1e9:.1f} GB"]

    @cached_property
    def _plain_spec(self) -> Mapping[str, Any]:
        """The spec as plain data; all reports of this machine share it."""
        return self._spec.model_dump(mode="json")

    @cached_property
    def _origin(self) -> Mapping[str, Origin]:
        """Whether any fitted field of the spec bears on time, and on energy."""
        fitted = {"energy" if "energy" in field or "power" in field else "time" for field in self._spec.fitted_fields}
        if "time" in fitted and self._spec.static_power_w:
            fitted.add("energy")  # static power is on for the time that was fitted
        return {what: "calibrated" if what in fitted else "predicted" for what in ("time", "energy")}


class OperatorMachine(Machine[SpecT], ABC):
    """A machine that runs operators, whose operands have formats. A subclass says what they cost at each rung (``_simulate``) and
    how it sums (``computed_recipe``)."""

    def simulate(
        self,
        workload: Workload,
        *,
        fidelity: str | None = None,
        inputs: Any = None,
        parameters: Any = None,
    ) -> Report:
        """What ``workload`` costs; see ``hwsim.device.Device.simulate``."""
        chosen = check_request(self, fidelity, inputs, parameters)
        return self._simulate(self.placed(workload), chosen)

    @abstractmethod
    def _simulate(self, workload: Workload, fidelity: str) -> Report:
        """What a workload that has its formats costs at one rung."""

    def placed(self, workload: Workload) -> Workload:
        """The workload in the formats it has here: its own, or the device's default formats."""
        workload.check_operands()
        if workload.recipe:
            return workload
        recipe, key = self._default_formats
        return workload.derived(key, lambda: workload.with_formats(recipe))

    @cached_property
    def _default_formats(self) -> tuple[Recipe, Hashable]:
        """The recipe of the default formats, and what it is kept under with a workload."""
        recipe = self._spec.default_recipe
        return recipe, ("formats", tuple(sorted(recipe.formats.items())))

    def matmul_time_s(
        self,
        m: Any,
        n: Any,
        k: Any,
        *,
        batch: Any = 1,
        recipe: str | Recipe | None = None,
        fidelity: str | None = None,
    ) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Latency of each of many matmuls, each a workload of its own: what ``simulate`` reports for it.

        Args:
            m, n, k, batch: sizes, integers or arrays that broadcast against each other.
            recipe: number formats; the device's default formats otherwise.
            fidelity: a rung of ``fidelities``.

        Returns:
            Seconds, in the broadcast shape of the sizes.

        Raises:
            InputError: a size below one, formats the device lacks.
        """
        shapes = matmul_shapes(m, n, k, batch)
        distinct, places = np.unique(shapes.reshape(-1, 4), axis=0, return_inverse=True)
        times = self._matmul_times(distinct, recipe, fidelity)
        return times[places].reshape(shapes.shape[:-1])

    def _matmul_times(
        self, shapes: np.ndarray[Any, Any], recipe: str | Recipe | None, fidelity: str | None
    ) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Seconds for each row (batch, m, n, k) of ``shapes``: one by one, unless a subclass does it at once."""
        times = np.empty(len(shapes))
        for i, (batch, m, n, k) in enumerate(shapes.tolist()):
            workload = chain("matmul", [Matmul(name="matmul", batch=batch, m=m, n=n, k=k)])
            placed = workload if recipe is None else workload.with_formats(recipe)
            times[i] = self.simulate(placed, fidelity=fidelity).time_s
        return times

    # --- what it computes ---------------------------------------------------------------------------------------------

    def emulate(
        self,
        module: nn.Module,
        recipe: str | Recipe | None = None,
        *,
        fidelity: str | None = None,
        example_inputs: Any = None,
        seed: int = 0,
    ) -> nn.Module:
        """``module`` as the machine computes it; see ``hwsim.device.Device.emulate``."""
        import numerics

        if fidelity not in (None, *self.fidelities):
            raise unknown_name(f"fidelity (device {self.name!r})", str(fidelity), self.fidelities)
        chosen = self.computed_recipe(self._spec.default_recipe if recipe is None else get_recipe(recipe))
        return numerics.emulate(module, chosen, example_inputs=example_inputs, seed=seed)

    @abstractmethod
    def computed_recipe(self, recipe: Recipe) -> Recipe:
        """The recipe as the machine computes it: operands in formats that it multiplies, sums made as it makes them.

        Raises:
            InputError: formats that the machine neither multiplies nor converts, sums that it does not make.
        """


def computed_format(op: Op) -> str:
    """What an operator computes in, for the report: operands and accumulator of a product, the operand's format otherwise."""
    if op.formats is None or not op.formats.operands:
        return ""
    return str(op.formats) if op.is_matrix else op.formats.operands[0]


@cache
def format_bytes(name: str) -> float:
    """Bytes of one element in a format."""
    from numerics.formats import get_format

    return float(get_format(name).bits) / 8


def matmul_shapes(m: Any, n: Any, k: Any, batch: Any = 1) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Sizes as one integer array (…, 4) of batch, m, n, k.

    Raises:
        InputError: a size that is no integer of one or above, sizes that do not broadcast.
    """
    named = {"batch": np.asarray(batch), "m": np.asarray(m), "n": np.asarray(n), "k": np.asarray(k)}
    for name, sizes in named.items():
        if not np.issubdtype(sizes.dtype, np.integer) or (sizes < 1).any():
            wrong = sizes if not np.issubdtype(sizes.dtype, np.integer) else sizes[sizes < 1]
            raise InputError(f"{name}: expected integers ≥ 1, got {np.ravel(wrong)[:1].tolist()}")
    try:
        return np.stack(np.broadcast_arrays(*named.values()), axis=-1).astype(np.int64)
    except ValueError:
        shapes = ", ".join(f"{name} {sizes.shape}" for name, sizes in named.items())
        raise InputError(f"sizes: expected shapes that broadcast, got {shapes}") from None
