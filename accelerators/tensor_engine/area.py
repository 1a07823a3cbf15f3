"""Area of tensor engines and of processors."""

from __future__ import annotations

from accelerators.tensor_engine.spec import TensorEngineSpec
from hwsim.area.components import SOURCES, Area, Component
from hwsim.area.parts import elements, lanes, memory
from hwsim.area.process import Process, figures


def device_area(name: str, spec: TensorEngineSpec, process: Process) -> Area:
    """The area of the device that a spec describes: what it names and, times a factor fitted to one GPU, what it does not."""
    units, levels = spec.units, spec.memory
    rates = {pair: mac.macs_per_cycle for pair, mac in spec.mac_formats.items() if mac.pipe == "matrix"}
    parts: list[Component] = []
    if rates:
        parts.append(elements("matrix_units", units, rates, spec.default_recipe.format_for("accumulator"), process))
    parts += [
        lanes(spec.vector_unit, process),
        memory("registers", units * levels.register_file.capacity_bytes, process),
        memory("shared", units * levels.shared.capacity_bytes, process),
        memory("l2", levels.l2.capacity_bytes, process),
    ]
    if spec.kind == "processor":
        why = "fetch, decode, renaming and reordering of instructions: the spec does not describe them"
        return Area(name, process.node_nm, (*parts, Component.unknown("cores", why)))
    named = Area(name, process.node_nm, tuple(parts))
    factor = figures()["gpu_unnamed"].value
    how = f"scheduling, load and store, graphics, networks, controllers, pads: {factor:g} times what is named, as on A100"
    rest = Component("unnamed", named.known_mm2 * factor, "guess", how)
    source = "what a GPU's spec does not name: fitted to A100's die (NVIDIA whitepaper, 2020)"
    return Area(name, process.node_nm, (*parts, rest), sources=(*SOURCES, source), chip_factor=1.0)
