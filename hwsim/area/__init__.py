"""Area of a machine, and what its die costs.

>>> from hwsim.registry import get_device
>>> round(get_device("gemmini_16x16").area().total_mm2, 2)
0.86
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from numerics._lazy import lazy_names

if TYPE_CHECKING:
    from hwsim.area.arithmetic import element_area, mac_area
    from hwsim.area.components import Area, Budget, Component
    from hwsim.area.cost import DieCost, die_cost, die_yield, dies_per_wafer
    from hwsim.area.process import Process, get_process, process_nodes
    from hwsim.area.published import PublishedArea, compare_published, published_areas

_HOME = {
    ".arithmetic": ("element_area", "mac_area"),
    ".components": ("Area", "Budget", "Component"),
    ".cost": ("DieCost", "die_cost", "die_yield", "dies_per_wafer"),
    ".process": ("Process", "get_process", "process_nodes"),
    ".published": ("PublishedArea", "compare_published", "published_areas"),
}

__all__ = [
    "Area",
    "Budget",
    "Component",
    "DieCost",
    "Process",
    "PublishedArea",
    "compare_published",
    "die_cost",
    "die_yield",
    "dies_per_wafer",
    "element_area",
    "get_process",
    "mac_area",
    "process_nodes",
    "published_areas",
]

__getattr__, __dir__ = lazy_names(__name__, _HOME)
