"""What a report says about where a photonic engine's time, energy and precision go, from its own rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from photonic.engines import MeshEngine

if TYPE_CHECKING:
    from hwsim.report import Report
    from photonic.spec import PhotonicSpec

CONVERSION = ("dac", "modulators", "adc")
WEIGHTS = ("heaters", "settings")
OPTICS = (*CONVERSION, *WEIGHTS, "laser", "receivers")


def findings(spec: PhotonicSpec, report: Report, set_at_run_time: int) -> list[str]:
    """Notes for the report.

    Args:
        spec: of the machine.
        report: its rows and its tables ``mapping`` and ``power_budget``.
        set_at_run_time: products whose weights are results of other operators.
    """
    if not any(op.unit == "array" and op.macs for op in report.ops):
        return []
    found = [_energy(report), _time(spec, report), *_precision(report), _light(spec)]
    stack = _stack(spec, len(report.tables["power_budget"]))
    found += [stack] if stack else []
    if spec.unknown_losses:
        found.append(f"light: loss of {', '.join(spec.unknown_losses)} is not known and left out: laser power is a lower bound")
    if set_at_run_time and isinstance(spec.engine, MeshEngine):
        found.append(
            f"weights made at run time in {set_at_run_time} of {len(report.tables['power_budget'])} products: decomposing them "
            "into phases is not charged"
        )
    return found


def shares(report: Report) -> dict[str, float]:
    """Share of the energy that goes into conversion, weights, laser, receivers, and everything digital."""
    parts, total = report.energy_by_component_j, report.energy_j or 1.0

    def share(names: Sequence[str]) -> float:
        return sum(parts.get(name, 0.0) for name in names) / total

    return {
        "conversion (DAC, modulators, ADC)": share(CONVERSION),
        "holding and setting weights": share(WEIGHTS),
        "lasers": share(("laser",)),
        "receivers": share(("receivers",)),
        "off-chip memory": share(("off_chip",)),
        "digital part and on-chip memory": 1 - share((*OPTICS, "off_chip")),
    }


def _energy(report: Report) -> str:
    parts = sorted(shares(report).items(), key=lambda item: -item[1])
    return "energy: " + ", ".join(f"{share:.1%} {name}" for name, share in parts if share >= 5e-4)


def _time(spec: PhotonicSpec, report: Report) -> str:
    mapping = report.tables["mapping"]
    launch = spec.launch_overhead_cycles
    setting = sum(op.overhead_cycles - launch for op in report.ops if op.unit == "array") / report.cycles
    launches = sum(op.overhead_cycles for op in report.ops) / report.cycles - setting
    symbols = min(1.0, sum(row["symbol_cycles"] for row in mapping) / report.cycles)
    stalls = sum(op.stall_cycles for op in report.ops) / report.cycles
    digital = max(0.0, 1 - symbols - setting - launches - stalls)
    text = f"time: {symbols:.1%} light carries inputs, {setting:.1%} weights settle, {digital:.1%} digital part, "
    text += f"{launches:.1%} operators are launched, " if launch else ""
    text += f"{stalls:.1%} stalled by off-chip memory"
    text += f"; {report.utilization:.2%} of the peak of {report.peak_macs_per_s:.3g} MAC/s"
    if spec.tuning is None or not setting:
        return text
    count = sum(row["settings"] for row in mapping)
    other = sum(row["settings_if_inputs_stayed"] for row in mapping)
    return f"{text}; {count} settings one after the other, {other / count:.3g} times as many if inputs stayed instead of weights"


def _precision(report: Report) -> list[str]:
    light = report.tables["power_budget"]
    short = [row for row in light if row["margin_bits"] < -5e-3]
    if not short:
        return [f"precision: light and ADC give the bits of the operands in every product ({len(light)})"]
    worst = min(short, key=lambda row: row["margin_bits"])
    given = min(worst["light_bits"], worst["adc_bits"])
    return [
        f"precision: {len(short)} of {len(light)} products ask for more bits than light and ADC give; most short is "
        f"{worst['op']!r}: {worst['asked_bits']} asked, {given:g} given ({worst['detector_w']:.3g} W on a detector, limited by "
        f"{worst['limit'] if worst['light_bits'] < worst['adc_bits'] else 'the ADC'})"
    ]


def _light(spec: PhotonicSpec) -> str:
    budget = spec.budget
    launched = budget.optical_j_per_mac
    return (
        f"light: {budget.signal.total_db:.3g} dB from laser to detector, {budget.optical_w:.3g} W launched "
        f"({budget.line_w:.3g} W in the strongest path), "
        f"{budget.electrical_w:.3g} W electrical; at full use {launched * 1e18:.4g} aJ/MAC launched, "
        f"{launched / budget.wall_plug_efficiency * 1e18:.4g} aJ/MAC electrical; shot-noise limit "
        f"{budget.shot_limit_j_per_mac * 1e18:.4g} aJ/MAC at {budget.wanted_bits:g} bits"
    )


def _stack(spec: PhotonicSpec, layers: int) -> str:
    """What would be left were all layers one optical path."""
    budget = spec.budget
    if layers < 2 or not budget.signal.layer_db:
        return ""
    enough = budget.layers_until_starved(budget.wanted_bits)
    if enough >= layers:
        return ""
    return (
        f"stack: light that is not restored between layers keeps {budget.wanted_bits:g} bits through {enough} of these {layers} "
        f"products ({budget.bits_after(layers):.2g} bits behind the last, {budget.signal.layer_db:.3g} dB a layer); it is "
        "detected and launched anew after each"
    )
