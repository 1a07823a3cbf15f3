"""Memories as parts of a device's spec: validated, with units in every field name."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator


def _no_truth_value(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("input should be a number")
    return value


LARGEST = 1e60
"""Beyond any machine; a bound keeps sums and products of such numbers finite."""


def _not_absurd(value: float) -> float:
    if value > LARGEST or 0 < value < 1 / LARGEST:
        raise ValueError(f"input should lie between {1 / LARGEST:g} and {LARGEST:g}")
    return value


Positive = Annotated[float, BeforeValidator(_no_truth_value), Field(gt=0, allow_inf_nan=False), AfterValidator(_not_absurd)]
"""A finite number above zero."""
NotNegative = Annotated[float, BeforeValidator(_no_truth_value), Field(ge=0, allow_inf_nan=False), AfterValidator(_not_absurd)]
"""A finite number, zero or above."""
Count = Annotated[int, Field(ge=1, strict=True)]
"""A whole number, one or above."""


class SpecPart(BaseModel):
    """A section of a device's spec: immutable, unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


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
    achieved_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0

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
