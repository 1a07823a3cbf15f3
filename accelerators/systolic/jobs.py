"""What the systolic array is asked to do, group by group, and what that costs: plain data between its parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from accelerators.systolic.mapping import shape_of
from hwsim.operators import Convolution, Matmul
from hwsim.views.display import displayed


@displayed
@dataclass(frozen=True)
class MatrixJob:
    """A matmul or convolution with its formats and what stays on chip.

    ``a_bytes``, ``b_bytes`` and ``partial_bytes`` are per element. ``extra_load_bytes`` (bias, mask), ``store_bytes`` (result,
    off chip) and ``result_bytes`` (result, into the buffer of activations) are totals. ``vector_cycles`` is the vector unit's
    share of the operator itself (bias, conversions); ``host_bytes`` come from the host or go there.
    """

    op: Matmul | Convolution
    a_bytes: float
    b_bytes: float
    partial_bytes: float
    a_resident: bool
    b_resident: bool
    cycles_per_mac: float
    mac_energy_j: float
    vector_cycles: float
    vector_energy_j: float
    extra_load_bytes: int
    store_bytes: int
    result_bytes: int
    host_bytes: int = 0

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for operators that cost the same."""
        return (
            shape_of(self.op), self.a_bytes, self.b_bytes, self.partial_bytes, self.a_resident, self.b_resident,
            self.cycles_per_mac, self.mac_energy_j, self.vector_cycles, self.vector_energy_j, self.extra_load_bytes,
            self.store_bytes, self.result_bytes, self.host_bytes,
        )  # fmt: skip


@displayed
@dataclass(frozen=True)
class VectorJob:
    """An operator on the vector unit: cycles of work, and bytes in total.

    ``touched_bytes`` pass through the buffer of activations; ``handed_bytes``, which it takes over from operators of its group as
    they come, do not; neither do ``host_bytes`` on their way.
    """

    work_cycles: float
    load_bytes: int
    store_bytes: int
    touched_bytes: int
    handed_bytes: int
    row_wise: bool
    energy_j: float
    host_bytes: int = 0


@dataclass(frozen=True)
class PartCost:
    """One operator's share of its group."""

    compute_cycles: float
    stall_cycles: float
    overhead_cycles: float
    busy_cycles: float
    energy_j: Mapping[str, float]
    bytes: Mapping[str, int]

    @property
    def cycles(self) -> float:
        """Its share of the group's cycles."""
        return self.compute_cycles + self.stall_cycles + self.overhead_cycles


@dataclass(frozen=True)
class ArrayCycles:
    """What a group's cycles are to the array: the rest of them belongs to neither part.

    Attributes:
        active: operands stream.
        load_wait: it waits for the operand that it loads, as a rule weights.
        load_shown: it loads that operand, and nothing streams meanwhile.
    """

    active: float = 0.0
    load_wait: float = 0.0
    load_shown: float = 0.0


@dataclass(frozen=True)
class MatrixRun:
    """A matrix operator and what streams behind it.

    Attributes:
        time: cycles, without fixed overheads.
        ideal: the same with ideal memory.
        array_only: the array's part of ``ideal``.
        array: how the array spends them.
        bytes: memory level → bytes of the matrix operator alone.
        mapping: its row of the report's table.
    """

    time: float
    ideal: float
    array_only: float
    array: ArrayCycles
    bytes: Mapping[str, int]
    mapping: Mapping[str, Any]


@dataclass(frozen=True)
class GroupCost:
    """A group's cycles and its operators' shares: matrix operator first, then streamed, then background ones.

    ``apart`` of the streamed operators, the last ones, had to run in a pass of their own.
    """

    cycles: float
    parts: tuple[PartCost, ...]
    mapping: Mapping[str, Any] = field(default_factory=dict)
    apart: int = 0
    array: ArrayCycles = ArrayCycles()
