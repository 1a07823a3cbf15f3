"""Memories as parts of a device's spec: validated, with units in every field name."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from hwsim.spec import Count, Fraction, NotNegative, Positive, SpecPart


class Scratchpad(SpecPart):
    """An on-chip buffer that software fills.

    Attributes:
        capacity_bytes: size.
        banks: banks that work at the same time.
        bank_bytes_per_cycle: bytes one bank reads or writes in a cycle.
        double_buffered: one half is filled while the other is used.
        energy_pj_per_byte: energy of one byte read or written.
        retained_capacity_bytes: further bytes that hold whole tensors between operators (0 for none).
    """

    capacity_bytes: Count
    banks: Count = 1
    bank_bytes_per_cycle: Positive
    double_buffered: bool = True
    energy_pj_per_byte: NotNegative
    retained_capacity_bytes: Annotated[int, Field(ge=0, strict=True)] = 0

    @property
    def bytes_per_cycle(self) -> float:
        """Bytes all banks move in a cycle."""
        return self.banks * self.bank_bytes_per_cycle

    @property
    def tile_bytes(self) -> float:
        """Bytes that one tile may take: a half when double-buffered."""
        return self.capacity_bytes / 2 if self.double_buffered else self.capacity_bytes


class OffChip(SpecPart):
    """Off-chip memory: flat bandwidth and latency.

    Attributes:
        bandwidth_bytes_per_s: bytes a second, reads and writes together.
        latency_s: from asking to the first byte.
        energy_pj_per_byte: energy of one byte moved.
        achieved_fraction: share of the bandwidth that transfers reach.
    """

    bandwidth_bytes_per_s: Positive
    latency_s: NotNegative
    energy_pj_per_byte: NotNegative
    achieved_fraction: Fraction = 1.0

    @property
    def achieved_bytes_per_s(self) -> float:
        """Bandwidth that transfers reach."""
        return self.bandwidth_bytes_per_s * self.achieved_fraction


class MemorySystem(SpecPart):
    """The three operand buffers of a matrix unit and the memory behind them."""

    input: Scratchpad
    weight: Scratchpad
    output: Scratchpad
    off_chip: OffChip

    @model_validator(mode="after")
    def _only_input_retains(self) -> MemorySystem:
        for name in ("weight", "output"):
            if getattr(self, name).retained_capacity_bytes:
                raise ValueError(f"{name}.retained_capacity_bytes: only the input scratchpad retains tensors")
        return self
