"""Area of neuromorphic chips: one chip, pads and links between chips left out."""

from __future__ import annotations

from hwsim.area.components import Area, Component, area_of
from hwsim.area.parts import memory
from hwsim.area.process import Process
from hwsim.rtl_ratios import ratio
from neuromorphic.chip.spec import ChipSpec

STATE = ("current", "voltage", "threshold", "bias")
"""Widths that a neuron keeps: its state, and the parameters that most chips give each neuron."""


def device_area(name: str, spec: ChipSpec, process: Process) -> Area:
    """The area of the device that a spec describes. The datapath of a core is the RTL's ``lif_core`` without its neurons'
    registers; a core that runs programs is a processor, of which nothing is known. Tables of axons and learning are part of what
    is unnamed."""
    cores = spec.cores
    parts = [_synapses(spec, process)]
    if not spec.synapses.state_bytes_per_neuron:
        widths = {field: getattr(spec.bits, field) for field in STATE}
        if widths["voltage"] is None:
            parts.append(Component.unknown("neurons", "bits.voltage is not published"))
        else:
            bits = sum(width or 0 for width in widths.values())
            parts.append(memory("neurons", cores * spec.neurons_per_core * bits / 8, process))
    if spec.arithmetic == "float32":
        parts.append(Component.unknown("logic", "its cores run programs; the spec does not describe their processors"))
    else:
        one, sixteen = (ratio("area", "lif_core", f"neurons{n}") for n in (1, 16))
        relative = one - (sixteen - one) / 15
        logic = process.logic_mm2(cores * relative)
        parts.append(Component("logic", logic, "guess", f"{cores:,} × {relative:.3g} mac_int8: lif_core of rtl"))
    tiles = spec.mesh.columns * spec.mesh.rows if spec.cores > 1 else 0
    if tiles:
        relative = ratio("area", "spike_router", "depth2")
        how = f"{tiles:,} × {relative:.3g} mac_int8: spike_router of rtl"
        parts.append(Component("routers", process.logic_mm2(tiles * relative), "guess", how))
    return area_of(name, process.node_nm, parts, notes=("one chip",) if spec.chips.count > 1 else ())


def _synapses(spec: ChipSpec, process: Process) -> Component:
    if spec.synapse_memory_bytes_per_core is not None:
        return memory("synapses", spec.cores * spec.synapse_memory_bytes_per_core, process)
    if spec.synapses_per_core is not None:
        bits = spec.synapses.weight_bits or spec.bits.weight
        return memory("synapses", spec.cores * spec.synapses_per_core * bits / 8, process)
    return Component.unknown("synapses", "neither synapse_memory_bytes_per_core nor synapses_per_core is published")
