"""The report: what one workload costs on one machine, as plain data. Views (``hwsim.views``) only read it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hwsim.operators import FLOPS_PER_MAC, Op
from hwsim.views.display import displayed, displaying
from numerics.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = "hwsim.report"
SCHEMA_VERSION = 1

Origin = Literal["calibrated", "predicted", "lower bound"]


def _number(value: Any) -> Any:
    """Whole floats as integers, so that cycle counts read as counts."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


@displaying("bytes_offchip", "energy_total_j")
@dataclass(frozen=True)
class OpCost:
    """What one operator costs.

    Attributes:
        name, kind, module, phase: as in the workload.
        format: number formats it computed in, such as ``int8→int32``.
        unit: the part of the machine that did the work (``array``, ``vector``, ``memory``).
        macs: multiply-accumulates.
        time_s: its share of the total time; the shares of all operators add up to the total.
        cycles: ``time_s`` in cycles of the machine; the sum of the three parts below.
        compute_cycles: cycles it would take with an ideal memory, where not hidden behind another unit.
        stall_cycles: cycles lost to memory.
        overhead_cycles: fixed cost of starting it.
        busy_cycles: cycles its unit works for it, hidden ones included.
        energy_j: component → joules; adds up to the operator's energy.
        bytes: memory level → bytes read and written; ``off_chip`` is always there.
        utilization: MACs done over those the machine could have done in ``cycles`` at this format.
        start_s: when its first event happens.
        fused_with: the operator on whose results it works as they come ("" for none).
        modelled: whether the machine has a model of this operator beyond its bytes.
    """

    name: str
    kind: str
    module: str
    phase: str
    format: str
    unit: str
    macs: int
    time_s: float
    cycles: float
    compute_cycles: float
    stall_cycles: float
    overhead_cycles: float
    busy_cycles: float
    energy_j: Mapping[str, float]
    bytes: Mapping[str, int]
    utilization: float
    start_s: float
    fused_with: str = ""
    modelled: bool = True

    def __post_init__(self) -> None:
        parts = self.compute_cycles + self.stall_cycles + self.overhead_cycles
        if abs(parts - self.cycles) > 1e-6 * max(1.0, abs(self.cycles)):
            raise ValueError(f"op {self.name!r}: compute, stall and overhead add up to {parts}, not to {self.cycles} cycles")

    def repeated(self, *, name: str, module: str, start_s: float, fused_with: str) -> OpCost:
        """The cost of another operator, alike but for its name and place."""
        copy = object.__new__(OpCost)  # the parts add up already
        copy.__dict__.update(self.__dict__, name=name, module=module, start_s=start_s, fused_with=fused_with)
        return copy

    @property
    def energy_total_j(self) -> float:
        """Joules of all components."""
        return sum(self.energy_j.values())

    @property
    def bytes_offchip(self) -> int:
        """Bytes moved to and from off-chip memory."""
        return self.bytes.get("off_chip", 0)

    def to_dict(self) -> dict[str, Any]:
        """Plain data; ``energy_j`` is the total and ``energy_by_component_j`` its parts."""
        data = {f.name: _number(getattr(self, f.name)) for f in fields(self)}
        data["energy_by_component_j"] = dict(self.energy_j)
        data["energy_j"] = self.energy_total_j
        data["bytes_by_level"] = dict(self.bytes)
        data["bytes_offchip"] = self.bytes_offchip
        del data["bytes"]
        return data


def repeated_rows(rows: Sequence[OpCost], ops: Sequence[Op], start_s: float) -> list[OpCost]:
    """The rows of operators that run together, as those of ``ops``, alike, that start at ``start_s``; the first leads them."""
    return [
        row.repeated(name=op.name, module=op.module, start_s=start_s, fused_with=ops[0].name if row.fused_with else "")
        for row, op in zip(rows, ops, strict=True)
    ]


@displayed
@dataclass(frozen=True)
class Span:
    """Something that happens on one track of the timeline (``array``, ``vector``, ``off_chip``, …)."""

    track: str
    name: str
    start_s: float
    duration_s: float
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """What a workload costs on a device.

    Attributes:
        device: name of the device.
        workload: name of the workload.
        fidelity: rung of the ladder that produced it.
        recipe: name of the formats applied.
        clock_hz: clock of the machine; cycles = time × clock.
        ops: one entry an operator, in the workload's order (``start_s`` says when it runs).
        peak_macs_per_s: multiply-accumulates a second of the whole machine in the format of most MACs.
        offchip_bandwidth_bytes_per_s: bandwidth of off-chip memory.
        origin: "time" and "energy" → ``calibrated``, ``predicted``, or ``lower bound`` where figures that nobody
            published are left out.
        spec: the device's validated specification as plain data.
        version: version of hwsim that made it.
        spans: the timeline.
        tables: further named tables (rows as mappings of plain values), each with a view of its own if one is registered.
        peak_memory_bytes: the workload's peak of live bytes, by role.
        notes: what a reader must know about these figures.
    """

    device: str
    workload: str
    fidelity: str
    recipe: str
    clock_hz: float
    ops: tuple[OpCost, ...]
    peak_macs_per_s: float
    offchip_bandwidth_bytes_per_s: float
    origin: Mapping[str, Origin]
    spec: Mapping[str, Any]
    version: str
    spans: tuple[Span, ...] = ()
    tables: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    peak_memory_bytes: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    # --- totals -------------------------------------------------------------------------------------------------------

    @cached_property
    def time_s(self) -> float:
        """Latency of the whole workload."""
        return sum(op.time_s for op in self.ops)

    @cached_property
    def cycles(self) -> float:
        """Latency in cycles."""
        return sum(op.cycles for op in self.ops)

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return sum(op.macs for op in self.ops)

    @cached_property
    def energy_by_component_j(self) -> dict[str, float]:
        """Component → joules, static power included; adds up to ``energy_j``."""
        total: dict[str, float] = {}
        for op in self.ops:
            for component, joules in op.energy_j.items():
                total[component] = total.get(component, 0.0) + joules
        return total

    @property
    def energy_j(self) -> float:
        """Energy of the whole workload."""
        return sum(self.energy_by_component_j.values())

    @cached_property
    def bytes_by_level(self) -> dict[str, int]:
        """Memory level → bytes read and written."""
        total: dict[str, int] = {"off_chip": 0}
        for op in self.ops:
            for level, n in op.bytes.items():
                total[level] = total.get(level, 0) + n
        return total

    @property
    def bytes_offchip(self) -> int:
        """Bytes moved to and from off-chip memory."""
        return self.bytes_by_level["off_chip"]

    @property
    def utilization(self) -> float:
        """MACs done over those the machine could have done in the total time at each operator's format."""
        possible = sum(op.macs / op.utilization for op in self.ops if op.utilization > 0)
        rest = sum(op.time_s for op in self.ops if op.utilization <= 0) * self.peak_macs_per_s
        return self.macs / (possible + rest) if self.macs and possible + rest else 0.0

    @property
    def known_time_s(self) -> float | None:
        """Total time; None where the specification knows nothing of it."""
        return self.time_s if self.time_s or self.origin.get("time") != "lower bound" else None

    @property
    def known_energy_j(self) -> float | None:
        """Total energy; None where the specification knows nothing of it."""
        return self.energy_j if self.energy_j or self.origin.get("energy") != "lower bound" else None

    @property
    def average_power_w(self) -> float | None:
        """Energy over time; None where one of them is a lower bound, over which nothing bounds the other."""
        if "lower bound" in (self.origin.get("time"), self.origin.get("energy")):
            return None
        return self.energy_j / self.time_s if self.time_s else 0.0

    @property
    def unmodelled(self) -> tuple[str, ...]:
        """Operators charged only their bytes."""
        return tuple(op.name for op in self.ops if not op.modelled)

    def totals(self) -> dict[str, Any]:
        """Totals as plain data; None where nothing is known."""
        sums = {
            key: _number(float(sum(getattr(op, key) for op in self.ops)))
            for key in ("compute_cycles", "stall_cycles", "overhead_cycles")
        }
        return {
            "time_s": self.known_time_s,
            "cycles": _number(self.cycles),
            **sums,
            "macs": self.macs,
            "flops": FLOPS_PER_MAC * self.macs,
            "energy_j": self.known_energy_j,
            "energy_by_component_j": self.energy_by_component_j,
            "bytes_offchip": self.bytes_offchip,
            "bytes_by_level": self.bytes_by_level,
            "utilization": self.utilization,
            "average_power_w": self.average_power_w,
            "peak_memory_bytes": sum(self.peak_memory_bytes.values()),
            "peak_memory_by_role_bytes": dict(self.peak_memory_bytes),
        }

    # --- plain forms --------------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """The whole report as plain data; ``from_dict`` reads it back."""
        return {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "hwsim_version": self.version,
            "device": self.device,
            "workload": self.workload,
            "fidelity": self.fidelity,
            "recipe": self.recipe,
            "clock_hz": self.clock_hz,
            "peak_macs_per_s": self.peak_macs_per_s,
            "offchip_bandwidth_bytes_per_s": self.offchip_bandwidth_bytes_per_s,
            "origin": dict(self.origin),
            "notes": list(self.notes),
            "totals": self.totals(),
            "ops": [op.to_dict() for op in self.ops],
            "spans": [asdict(span) for span in self.spans],
            "tables": {name: [dict(row) for row in rows] for name, rows in self.tables.items()},
            "spec": deepcopy(dict(self.spec)),  # reports of one machine share it
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Report:
        """The report that ``to_dict`` described; its totals follow from the operators.

        Raises:
            InputError: another schema or version, a field that is missing, unknown or of another type, parts that do not add up.
        """
        from hwsim.report_file import report_of

        return report_of(data)

    @classmethod
    def from_json(cls, text: str, *, source: str = "report") -> Report:
        """The report that ``to_json`` wrote.

        Raises:
            InputError: not JSON, or as ``from_dict``; ``source`` names the file.
        """
        from hwsim.report_file import report_of
        from numerics.documents import read_json

        try:
            return report_of(read_json(text))
        except InputError as error:
            raise InputError(f"{source}: {str(error).removeprefix('report: ')}") from None

    def to_json(self, path: str | Path | None = None) -> str:
        """The report as JSON text, also written to ``path`` if given."""
        text = json.dumps(self.to_dict(), indent=1, allow_nan=False)
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text

    def records(self) -> list[dict[str, Any]]:
        """One flat mapping an operator, ready for a data frame: ``energy_<component>_j``, ``bytes_<level>``."""
        rows = []
        for op in self.ops:
            row = op.to_dict()
            for component, joules in row.pop("energy_by_component_j").items():
                row[f"energy_{component}_j"] = joules
            for level, n in row.pop("bytes_by_level").items():
                row[f"bytes_{level}"] = n
            row.pop("bytes_offchip")
            rows.append(row)
        return rows

    def to_csv(self, path: str | Path | None = None) -> str:
        """One line an operator as CSV text, also written to ``path`` if given."""
        rows = self.records()
        columns = list(dict.fromkeys(key for row in rows for key in row))
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, columns, restval=0, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        if path is not None:
            Path(path).write_text(buffer.getvalue(), encoding="utf-8")
        return buffer.getvalue()

    def to_pandas(self) -> pd.DataFrame:
        """One row an operator."""
        import pandas as pd

        return pd.DataFrame(self.records())

    # --- views --------------------------------------------------------------------------------------------------------

    def print(self, *, most: int | None = None) -> None:
        """Print the table of operators and totals; ``most`` limits it to the slowest operators."""
        from hwsim.views.table import print_report

        print_report(self, most=most)

    def save(self, folder: str | Path) -> list[Path]:
        """Write ``report.json``, ``report.csv``, ``report.html``, ``timeline.json`` and the pictures into ``folder``.

        Raises:
            InputError: the folder cannot be made or written.
        """
        from hwsim.views.files import save_report

        return save_report(self, Path(folder))

    def _repr_html_(self) -> str:
        from hwsim.views.html import notebook_html

        return notebook_html(self)

    def __repr__(self) -> str:
        return (
            f"Report({self.workload!r} on {self.device!r}, {self.fidelity}: {self.time_s:.6g} s, "
            f"{self.energy_j:.6g} J, {len(self.ops)} ops)"
        )
