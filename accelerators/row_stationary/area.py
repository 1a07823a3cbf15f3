"""Area of row-stationary arrays."""

from __future__ import annotations

from accelerators.row_stationary.spec import RowStationarySpec
from hwsim.area.components import Area, Component, area_of
from hwsim.area.parts import buffer, elements, lanes, memory
from hwsim.area.process import Process

WORD_BYTES = 2
"""Of a scratchpad."""


def device_area(name: str, spec: RowStationarySpec, process: Process) -> Area:
    """The area of the device that a spec describes. Scratchpads of filters are SRAM, the smaller two flip-flops, as in Eyeriss,
    whose 181.5 KB of SRAM are its buffer and the 448 bytes of filters in each of 168 PEs (Chen et al., JSSC 52(1), 2017)."""
    count, pads = spec.array.rows * spec.array.columns, spec.scratchpads
    rates = {pair: 1 / mac.cycles_per_mac for pair, mac in spec.mac_formats.items()}
    registers = count * (pads.ifmap_words + pads.psum_words) * WORD_BYTES * 8
    parts = [
        elements("elements", count, rates, spec.default_recipe.format_for("accumulator"), process),
        Component("scratchpad_registers", process.flipflops_mm2(registers), "published", f"{registers:,} flip-flops"),
        memory("filter_scratchpads", count * pads.filter_words * WORD_BYTES, process),
        buffer("buffer", spec.buffer, process),
        memory("filter_buffer", spec.filter_buffer.capacity_bytes, process),
        lanes(spec.vector_unit, process),
    ]
    return area_of(name, process.node_nm, parts)
