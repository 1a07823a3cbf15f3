"""The vector unit beside a matrix unit: cycles and energy of primitive operations."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import field_validator

from hwsim.operations import PRIMITIVES
from hwsim.operators import Op, Scan
from hwsim.spec import Count, NotNegative, Positive, SpecPart


def _complete(values: Mapping[str, float]) -> Mapping[str, float]:
    missing = [p for p in PRIMITIVES if p not in values]
    if missing:
        raise ValueError(f"needs a figure for each primitive operation; missing: {', '.join(missing)}")
    unknown = sorted(set(values) - set(PRIMITIVES))
    if unknown:
        raise ValueError(f"unknown primitive {unknown[0]!r}; known: {', '.join(PRIMITIVES)}")
    return values


class VectorUnit(SpecPart):
    """``lanes`` lanes, each executing one primitive operation in ``cycles_per_operation`` cycles (pipelined).

    Attributes:
        lanes: operations in flight.
        cycles_per_operation: primitive → cycles a lane is taken by one.
        energy_pj_per_operation: primitive → energy of one.
        scan_step_cycles: cycles from one step of a recurrence to the next that needs it.
    """

    lanes: Count
    cycles_per_operation: Mapping[str, Positive]
    energy_pj_per_operation: Mapping[str, NotNegative]
    scan_step_cycles: NotNegative = 4.0

    _check_cycles = field_validator("cycles_per_operation")(_complete)
    _check_energy = field_validator("energy_pj_per_operation")(_complete)

    def cycles(self, operations: Mapping[str, int]) -> float:
        """Cycles to execute these primitive operations on all lanes."""
        return sum(n * self.cycles_per_operation[p] for p, n in operations.items()) / self.lanes

    def op_cycles(self, op: Op) -> float:
        """Cycles of an operator's primitive operations; a recurrence is no faster than its chain of steps."""
        work = self.cycles(op.operations)
        return max(work, op.length * self.scan_step_cycles) if isinstance(op, Scan) else work

    def energy_j(self, operations: Mapping[str, int]) -> float:
        """Joules to execute these primitive operations."""
        return 1e-12 * sum(n * self.energy_pj_per_operation[p] for p, n in operations.items())
