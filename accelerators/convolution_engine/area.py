"""Area of convolution engines."""

from __future__ import annotations

from accelerators.convolution_engine.spec import ConvolutionEngineSpec
from hwsim.area.components import Area, area_of
from hwsim.area.parts import buffer, elements, lanes, memory
from hwsim.area.process import Process
from hwsim.machine import format_bytes


def device_area(name: str, spec: ConvolutionEngineSpec, process: Process) -> Area:
    """The area of the device that a spec describes. A MAC in a wide format is several multipliers, each of which has its share of
    the hardware; the sums of a stripe for each kernel lie in SRAM."""
    array, sums = spec.mac_array, spec.default_recipe.format_for("accumulator")
    rates = {pair: 1 / mac.cycles_per_mac for pair, mac in spec.mac_formats.items()}
    parts = [
        elements("multipliers", array.multipliers, rates, sums, process),
        memory("convolution_buffer", spec.convolution_buffer.capacity_bytes, process),
        memory("accumulators", array.longest_stripe * array.kernels * format_bytes(sums), process),
        buffer("buffer", spec.buffer, process),
        lanes(spec.vector_unit, process),
    ]
    return area_of(name, process.node_nm, parts)
