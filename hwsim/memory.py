"""Memories as parts of a device's spec: validated, with units in every field name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import model_validator

from hwsim.dram.spec import DramSpec
from hwsim.spec import Count, Fraction, NaturalNumber, NotNegative, Positive, SpecPart

if TYPE_CHECKING:
    from hwsim.dram.steady import Achieved

PEAK_TOLERANCE = 0.01
"""Published bandwidths are rounded: one may exceed the DRAM's peak by this share."""


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
    retained_capacity_bytes: NaturalNumber = 0

    @property
    def bytes_per_cycle(self) -> float:
        """Bytes all banks move in a cycle."""
        return self.banks * self.bank_bytes_per_cycle

    @property
    def tile_bytes(self) -> float:
        """Bytes that one tile may take: a half when double-buffered."""
        return self.capacity_bytes / 2 if self.double_buffered else self.capacity_bytes


class OffChip(SpecPart):
    """Off-chip memory: flat bandwidth and latency, or a banked DRAM behind a path of that bandwidth.

    Attributes:
        bandwidth_bytes_per_s: bytes a second, reads and writes together.
        latency_s: from asking to the first byte.
        energy_pj_per_byte: energy of one byte moved.
        achieved_fraction: share of the bandwidth that transfers reach.
        capacity_bytes: size; a workload that needs more is reported with a note (None: not known).
        dram: a DRAM whose banks, rows, refresh and turnarounds say what transfers reach (``hwsim.dram.DramSpec``). The three
            figures above, where they are left out, are then its peak, its idle read and its streaming energy.
    """

    bandwidth_bytes_per_s: Positive
    latency_s: NotNegative
    energy_pj_per_byte: NotNegative
    achieved_fraction: Fraction = 1.0
    capacity_bytes: Count | None = None
    dram: DramSpec | None = None

    @model_validator(mode="before")
    @classmethod
    def _fill_from_dram(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or data.get("dram") is None:
            return data
        try:
            dram = DramSpec.model_validate(data["dram"])
            found = (dram.peak_bytes_per_s, dram.idle_read_s, dram.streaming_pj_per_byte)
        except ValueError:
            found = (1.0, 0.0, 0.0)  # the section's own validation says what is wrong with it
        names = ("bandwidth_bytes_per_s", "latency_s", "energy_pj_per_byte")
        return {**dict(zip(names, found, strict=True)), **data}

    @model_validator(mode="after")
    def _dram_delivers(self) -> OffChip:
        if self.dram is not None and self.bandwidth_bytes_per_s > self.dram.peak_bytes_per_s * (1 + PEAK_TOLERANCE):
            raise ValueError(
                f"bandwidth_bytes_per_s {self.bandwidth_bytes_per_s:g} is more than the {self.dram.peak_bytes_per_s:g} bytes/s "
                f"of dram ({self.dram.channels} × {self.dram.preset or 'own channels'}); leave it out or add channels"
            )
        return self

    @property
    def achieved_bytes_per_s(self) -> float:
        """Bandwidth that long contiguous reads reach."""
        flat = self.bandwidth_bytes_per_s * self.achieved_fraction
        return flat if self.dram is None else min(flat, self._achieved(run_bytes=None).bytes_per_s)

    def achieved_bytes_per_s_for(
        self, *, run_bytes: int | None = None, stride_bytes: int | None = None, write_fraction: float = 0.0, streams: int = 1
    ) -> float:
        """Bandwidth that transfers in a pattern reach, never more than long contiguous reads do.

        Args:
            run_bytes: contiguous bytes of a row of the block that is moved; None for one contiguous block.
            stride_bytes: from row to row; None where rows lie anywhere.
            write_fraction: share of the bytes that are written.
            streams: operands that move at the same time.

        Raises:
            InputError: no pattern, such as rows that overlap.
        """
        whole = self.achieved_bytes_per_s
        if self.dram is None:
            return whole
        found = self._achieved(run_bytes=run_bytes, stride_bytes=stride_bytes, write_fraction=write_fraction, streams=streams)
        return min(whole, found.bytes_per_s)

    def transfer_time_s(
        self,
        bytes: float,
        *,
        run_bytes: int | None = None,
        stride_bytes: int | None = None,
        write_fraction: float = 0.0,
        streams: int = 1,
    ) -> float:
        """Time that ``bytes`` take once the first has come (``latency_s``), in a pattern of ``achieved_bytes_per_s_for``."""
        return bytes / self.achieved_bytes_per_s_for(
            run_bytes=run_bytes, stride_bytes=stride_bytes, write_fraction=write_fraction, streams=streams
        )

    def transfer_energy_j(
        self,
        bytes: float,
        *,
        run_bytes: int | None = None,
        stride_bytes: int | None = None,
        write_fraction: float = 0.0,
        streams: int = 1,
    ) -> float:
        """Energy of moving ``bytes``: ``energy_pj_per_byte``, times what the DRAM takes for the pattern over what it takes for
        long contiguous reads.
        """
        energy_j = bytes * self.energy_pj_per_byte * 1e-12
        if self.dram is None:
            return energy_j
        found = self._achieved(run_bytes=run_bytes, stride_bytes=stride_bytes, write_fraction=write_fraction, streams=streams)
        return energy_j * found.pj_per_byte / self._achieved(run_bytes=None).pj_per_byte

    def _achieved(self, **pattern: Any) -> Achieved:
        from hwsim.dram.steady import Pattern, steady

        assert self.dram is not None
        return steady(self.dram, Pattern(**pattern))


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
