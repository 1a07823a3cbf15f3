"""Area of engines for binary networks."""

from __future__ import annotations

from accelerators.binary.spec import BinarySpec, ThresholdPe
from hwsim.area.components import Area, Component, area_of
from hwsim.area.parts import buffer, elements, lanes
from hwsim.area.process import Process


def device_area(name: str, spec: BinarySpec, process: Process) -> Area:
    """The area of the device that a spec describes."""
    pe = spec.pe
    logic = process.logic_mm2(pe.count * pe.logic_area_mac_int8)
    parts = [Component("elements", logic, "published", f"{pe.count:,} elements of {pe.logic_area_mac_int8:.3g} mac_int8")]
    if isinstance(pe, ThresholdPe):
        bits = pe.count * pe.register_bits
        parts.append(Component("registers", process.flipflops_mm2(bits), "published", f"{bits:,} flip-flops"))
    rates = {pair: 1 / mac.cycles_per_mac for pair, mac in spec.mac_formats.items()}
    parts += [
        elements("integer_macs", spec.integer_macs, rates, spec.default_recipe.format_for("accumulator"), process),
        buffer("operands", spec.operands, process),
        buffer("buffer", spec.buffer, process),
        lanes(spec.vector_unit, process),
    ]
    return area_of(name, process.node_nm, parts)
