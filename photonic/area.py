"""Area of photonic engines: the optics and converters that the spec knows, and the digital part at a node."""

from __future__ import annotations

from hwsim.area.components import Area, Component
from hwsim.area.parts import buffer, lanes
from hwsim.area.process import Process
from photonic.spec import PhotonicSpec


def device_area(name: str, spec: PhotonicSpec, process: Process | None) -> Area:
    """The area of the device that a spec describes: parts by ``area_um2``, whatever the node; memories and vector unit where a
    node is known. Nothing is added for what is unnamed: no published die says how much that is."""
    parts = [
        Component.unknown(part, "area_um2 does not say")
        if part not in spec.area_um2
        else Component(part, count * spec.area_um2[part] * 1e-6, "published", f"{count:,} × {spec.area_um2[part]:g} µm²")
        for part, count in spec.engine.parts.items()
        if count
    ]
    if process is None:
        parts += [Component.unknown(part, "no process_nm and no node") for part in ("accumulators", "buffer", "vector_unit")]
    else:
        parts += [
            buffer("accumulators", spec.accumulators, process),
            buffer("buffer", spec.buffer, process),
            lanes(spec.vector_unit, process),
        ]
    sources = ("area_um2 of the spec; memories and lanes as for every machine",)
    return Area(name, None if process is None else process.node_nm, tuple(parts), sources=sources, chip_factor=1.0)
