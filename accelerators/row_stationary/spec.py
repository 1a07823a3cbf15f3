"""The spec of a row-stationary array: what its YAML file may say."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from hwsim.engine import EngineSpec
from hwsim.spec import Count, MacFormat, NotNegative, Positive, SpecPart

Objective = Literal["off_chip_traffic", "energy", "latency"]
"""What the mapper minimises, ties going to the next of energy and cycles: words from and to off-chip memory; energy; time."""


SLOWEST_MAC = 2**20
"""Cycles of a MAC at most: beyond any machine, and the mapper's kernels count a pass's cycles in 64-bit integers."""


class PeArray(SpecPart):
    """The processing elements (PEs), one multiply-accumulate unit each."""

    rows: Count
    columns: Count


class Scratchpads(SpecPart):
    """The memories of one PE.

    Attributes:
        ifmap_words: the sliding window of a row of the input, of up to q channels.
        filter_words: rows of p filters and q channels.
        psum_words: partial sums of p filters.
        energy_pj_per_access: of one word read or written, in any of them.
    """

    ifmap_words: Count
    filter_words: Count
    psum_words: Count
    energy_pj_per_access: NotNegative


class Network(SpecPart):
    """The buses between global buffer and PEs, and the links between PEs.

    Attributes:
        ifmap_words_per_cycle, filter_words_per_cycle: words that the buffer sends in a cycle, each to as many PEs as want it.
        psum_words_per_cycle: partial sums in a cycle to the array, and as many back.
        energy_pj_per_word: of one word that one PE takes, from the buffer or from its neighbour.
    """

    ifmap_words_per_cycle: Positive
    filter_words_per_cycle: Positive
    psum_words_per_cycle: Positive
    energy_pj_per_word: NotNegative


class FilterBuffer(SpecPart):
    """The part of the global buffer that holds the filters of the next pass."""

    capacity_bytes: Count
    energy_pj_per_byte: NotNegative


class RunLengthCode(SpecPart):
    """How feature maps are coded off chip: blocks of (run of zeros, value that ends it) pairs.

    Attributes:
        run_bits: of the count of zeros before a value.
        pairs: in a block.
        block_bits: of a block: its pairs, a flag that says whether it is the last, padding.
    """

    run_bits: Count
    pairs: Count
    block_bits: Count


class RowStationarySpec(EngineSpec):
    """A row-stationary array with its buffers, networks and memory.

    Attributes:
        kind: ``row_stationary``.
        clock_hz: clock of array, buffers and networks.
        array: the PEs.
        scratchpads: of each PE.
        network: between buffer and PEs.
        buffer: the global buffer, without the part for filters; each of its banks holds either inputs or partial sums.
        filter_buffer: that part.
        mac_formats: ``"int16"`` → what a MAC takes.
        zero_gating: whether a zero input spares the filter's and the partial sum's scratchpad and the MAC their energy.
        compression: of feature maps off chip; null for none.
        objective: what the mapper minimises.
    """

    kind: Literal["row_stationary"]
    array: PeArray
    scratchpads: Scratchpads
    network: Network
    filter_buffer: FilterBuffer
    mac_formats: Mapping[str, MacFormat] = Field(min_length=1)
    zero_gating: bool
    compression: RunLengthCode | None = None
    objective: Objective = "off_chip_traffic"

    @model_validator(mode="after")
    def _consistent(self) -> RowStationarySpec:
        for formats, mac in self.mac_formats.items():
            if mac.cycles_per_mac > SLOWEST_MAC:
                got = reprlib.repr(mac.cycles_per_mac)
                raise ValueError(f"mac_formats.{formats}.cycles_per_mac: expected at most {SLOWEST_MAC}, got {got}")
        if self.buffer.retained_capacity_bytes:
            raise ValueError("buffer.retained_capacity_bytes: expected 0, a row-stationary array keeps nothing between layers")
        if self.buffer.capacity_bytes % self.buffer.banks:
            raise ValueError(
                f"buffer.capacity_bytes: expected a multiple of its {self.buffer.banks} banks, got {self.buffer.capacity_bytes}"
            )
        if self.buffer.banks < 2:
            raise ValueError(f"buffer.banks: expected at least 2, for inputs and for partial sums, got {self.buffer.banks}")
        return self
