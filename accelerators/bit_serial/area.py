"""Area of tensor processing engines."""

from __future__ import annotations

from accelerators.bit_serial.parts import bill
from accelerators.bit_serial.spec import TensorEngineSpec
from hwsim.area.components import Area, Component, area_of
from hwsim.area.parts import buffer, lanes
from hwsim.area.process import Process


def device_area(name: str, spec: TensorEngineSpec, process: Process) -> Area:
    """The area of the device that a spec describes: its bill of parts in units of ``mac_int8``
    (``prices.mac_int8_area_um2`` is one at 45 nm, and does not enter here), buffer and vector unit."""
    parts = [
        Component(part, process.logic_mm2(relative), "published", f"{relative:,.4g} mac_int8 (parts.csv)")
        for part, relative in bill(spec.array).area.items()
        if relative
    ]
    return area_of(name, process.node_nm, [*parts, buffer("buffer", spec.buffer, process), lanes(spec.vector_unit, process)])
