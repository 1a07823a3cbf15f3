"""Area of sparse engines."""

from __future__ import annotations

from accelerators.sparse.spec import SparseSpec
from hwsim.area.components import Area, Component, area_of
from hwsim.area.parts import buffer, elements, lanes
from hwsim.area.process import Process, figures


def device_area(name: str, spec: SparseSpec, process: Process) -> Area:
    """The area of the device that a spec describes. Finding the operands of a stored or skipped block takes an adder of 32 bits
    a lane (guess); crossbars that bring them there are part of what is unnamed."""
    count = spec.lanes.count * spec.lanes.width
    rates = {pair: 1 / mac.cycles_per_mac for pair, mac in spec.mac_formats.items()}
    parts = [elements("elements", count, rates, spec.default_recipe.format_for("accumulator"), process)]
    if spec.sparsity.skip != "none" or spec.sparsity.weights != "dense":
        adder, multiplier = (figures()[name].value for name in ("add_int32_um2", "multiply_int8_um2"))
        found = process.logic_mm2(spec.lanes.count * adder / (adder + multiplier))
        parts.append(Component("index_logic", found, "guess", f"{spec.lanes.count:,} adders of 32 bits"))
    parts += [
        buffer("operands", spec.operands, process),
        buffer("buffer", spec.buffer, process),
        lanes(spec.vector_unit, process),
    ]
    return area_of(name, process.node_nm, parts)
