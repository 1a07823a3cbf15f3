"""Components that several kinds of machine have, from the sections of their specs."""

from __future__ import annotations

from collections.abc import Mapping

from hwsim.area.arithmetic import element_area, lane_area
from hwsim.area.components import Component
from hwsim.area.process import Process
from hwsim.memory import Scratchpad
from hwsim.vector import VectorUnit


def memory(name: str, bytes: float, process: Process) -> Component:
    """A buffer of so many bytes in SRAM."""
    return Component(name, process.sram_mm2(bytes), "published", f"{bytes / 1024:,.4g} KiB of SRAM")


def buffer(name: str, pad: Scratchpad, process: Process) -> Component:
    """A scratchpad, with what it retains between operators."""
    return memory(name, pad.capacity_bytes + pad.retained_capacity_bytes, process)


def lanes(vector_unit: VectorUnit, process: Process) -> Component:
    """The lanes of a vector unit."""
    area = process.logic_mm2(vector_unit.lanes * lane_area())
    return Component("vector_unit", area, "guess", f"{vector_unit.lanes:,} lanes, an fp32 multiply-add each")


def elements(name: str, count: float, mac_formats: Mapping[str, float], accumulator: str, process: Process) -> Component:
    """Processing elements.

    Args:
        name: of the component.
        count: elements.
        mac_formats: pair of formats → multiply-accumulates that one makes in a cycle.
        accumulator: format of the sums.
        process: the node.
    """
    area = element_area(mac_formats, accumulator)
    if area is None:
        return Component.unknown(name, f"no multiplier is known for one of {', '.join(mac_formats)}")
    how = f"{count:,.10g} elements of {area:.3g} mac_int8, for {', '.join(mac_formats)}"
    return Component(name, process.logic_mm2(count * area), "published", how)
