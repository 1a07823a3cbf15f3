"""Area of clusters of microcontroller cores."""

from __future__ import annotations

from accelerators.mcu.spec import McuClusterSpec
from hwsim.area.arithmetic import mac_area
from hwsim.area.components import Area, Component, area_of
from hwsim.area.parts import memory
from hwsim.area.process import Process


def device_area(name: str, spec: McuClusterSpec, process: Process) -> Area:
    """The area of the device that a spec describes: cores as far as their gates are known, floating-point units as fp32
    multiply-adds, memories. Of flash nothing is known."""
    gates = spec.core.kilo_gates
    if gates is None:
        cores = Component.unknown("cores", "the spec gives no core.kilo_gates")
    else:
        how = f"{spec.cores} cores of {gates:g} thousand gates, cells over placed area 0.7 (guess)"
        cores = Component("cores", process.gates_mm2(spec.cores * gates), "guess", how)
    parts = [cores]
    if spec.fpus is not None:
        unit = mac_area("fp32", "fp32") or 0.0
        how = f"{spec.fpus.count} × an fp32 multiply-add"
        parts.append(Component("fpus", process.logic_mm2(spec.fpus.count * unit), "guess", how))
    parts.append(memory("l1", spec.l1.capacity_bytes + spec.l1.retained_capacity_bytes, process))
    if spec.l2_memory == "sram":
        parts.append(memory("l2", spec.l2_capacity_bytes, process))
    else:
        parts.append(Component.unknown("l2", "no density of embedded flash is published here"))
    return area_of(name, process.node_nm, parts)
