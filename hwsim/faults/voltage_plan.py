"""A supply voltage for each layer: its bit error rates, and what a report's memories then take."""

from __future__ import annotations

import fnmatch
import glob
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwsim.faults.error_rates import positive
from hwsim.faults.voltage import SramCurve
from hwsim.views.display import displayed, displaying
from numerics.errors import InputError, unknown_name

if TYPE_CHECKING:
    from hwsim.report import Report
    from numerics.faults import BitFaults


@displayed
@dataclass(frozen=True)
class ScaledComponent:
    """The energy of one component of one operator, before and after.

    Attributes:
        op, module: as in the report.
        component: as in the report.
        volts: of the memory while the operator runs.
        ber: bit error rate there.
        before_j, after_j: energy at the reference voltage and at ``volts``.
    """

    op: str
    module: str
    component: str
    volts: float
    ber: float
    before_j: float
    after_j: float


@displaying("before_j", "after_j", "saved", "memory_saved")
@dataclass(frozen=True)
class ScaledEnergy:
    """What a report's energy becomes.

    Attributes:
        rows: the components that were scaled, an operator each.
        unscaled_j: component → joules of those that were left as they are.
        reference_v: the voltage that the report's figures stand for.
    """

    rows: tuple[ScaledComponent, ...]
    unscaled_j: Mapping[str, float]
    reference_v: float

    @property
    def memory_before_j(self) -> float:
        """Energy of the scaled components at the reference voltage."""
        return sum(row.before_j for row in self.rows)

    @property
    def memory_after_j(self) -> float:
        """Their energy under the plan."""
        return sum(row.after_j for row in self.rows)

    @property
    def before_j(self) -> float:
        """Energy of the whole report."""
        return self.memory_before_j + sum(self.unscaled_j.values())

    @property
    def after_j(self) -> float:
        """Energy of the whole workload under the plan."""
        return self.memory_after_j + sum(self.unscaled_j.values())

    @property
    def memory_saved(self) -> float:
        """Share of the scaled components' energy that is saved."""
        return 1 - self.memory_after_j / self.memory_before_j if self.memory_before_j else 0.0

    @property
    def saved(self) -> float:
        """Share of all energy that is saved."""
        return 1 - self.after_j / self.before_j if self.before_j else 0.0

    def by_component_j(self) -> dict[str, float]:
        """Component → joules under the plan; adds up to ``after_j``."""
        total = dict(self.unscaled_j)
        for row in self.rows:
            total[row.component] = total.get(row.component, 0.0) + row.after_j
        return total


@displayed
@dataclass(frozen=True, kw_only=True)
class VoltagePlan:
    """Supply voltages by layer.

    Attributes:
        volts: pattern of module paths (``fnmatch``) → voltage. The first pattern that fits a path counts, so the particular ones
            come before ``*``; what no pattern fits runs at the nominal voltage, and there without faults.
        curve: the memory's bit error rates.
        extend: see ``SramCurve.ber``.
    """

    volts: Mapping[str, float]
    curve: SramCurve
    extend: bool = False

    def __post_init__(self) -> None:
        for pattern, volts in self.volts.items():
            if isinstance(volts, bool) or not isinstance(volts, int | float):
                raise InputError(f"volts[{pattern!r}]: expected a voltage, got {volts!r}")
            if volts != self.curve.nominal_v:
                self.curve.ber(volts, extend=self.extend)

    def volts_for(self, module: str) -> float:
        """The voltage of a module."""
        fitting = (volts for pattern, volts in self.volts.items() if fnmatch.fnmatchcase(module, pattern))
        return float(next(fitting, self.curve.nominal_v))

    def ber_for(self, module: str) -> float:
        """The bit error rate of a module; 0 at the nominal voltage."""
        volts = self.volts_for(module)
        return 0.0 if volts == self.curve.nominal_v else self.curve.ber(volts, extend=self.extend)

    def rates(self, modules: Iterable[str]) -> dict[str, float]:
        """Module path → bit error rate.

        Raises:
            InputError: a pattern of the plan that fits none of the modules.
        """
        paths = list(modules)
        for pattern in self.volts:
            if not fnmatch.filter(paths, pattern):
                raise InputError(f"volts: pattern {pattern!r} fits none of the {len(paths)} modules")
        return {path: self.ber_for(path) for path in paths}

    def bit_faults(self, modules: Iterable[str], *, target: str = "weight", kind: str = "flip") -> tuple[BitFaults, ...]:
        """Fault models for ``numerics.faults.inject``, one for each module whose rate is above 0.

        Args:
            modules: paths, as ``named_modules`` has them.
            target, kind: as in ``BitFaults``.
        """
        from numerics.faults import BitFaults

        return tuple(
            BitFaults(kind=kind, target=target, modules=glob.escape(path), rate=rate)  # type: ignore[arg-type]
            for path, rate in self.rates(modules).items()
            if rate > 0
        )

    def energy(self, report: Report, *, components: Sequence[str], reference_v: float | None = None) -> ScaledEnergy:
        """The report's energy with the energy of its memories scaled by V².

        Args:
            report: as simulated; its time stays (the memory is read as fast as before).
            components: the energies that are those of accesses to memory at this supply, such as ``scratchpad_weight``. Leakage
                is in none of them, and static power stays as it is.
            reference_v: the voltage that the report's figures stand for (None: the curve's nominal voltage).

        Raises:
            InputError: a component that the report lacks.
        """
        known = report.energy_by_component_j
        for component in components:
            if component not in known:
                raise unknown_name("components", component, known)
        reference = self.curve.nominal_v if reference_v is None else float(positive("reference_v", reference_v))
        rows, rest = [], {name: joules for name, joules in known.items() if name not in components}
        for op in report.ops:
            volts, ber = self.volts_for(op.module), self.ber_for(op.module)
            ratio = self.curve.access_energy_ratio(volts, reference_v=reference)
            for component in dict.fromkeys(components):
                if component in op.energy_j:
                    before = op.energy_j[component]
                    rows.append(ScaledComponent(op.name, op.module, component, volts, ber, before, before * ratio))
        return ScaledEnergy(tuple(rows), rest, reference)
