"""Threshold cells against a conventional engine: energy, time and area of the same binary layers, with what they rest on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwsim.views.display import displayed

if TYPE_CHECKING:
    from accelerators.binary.device import BinaryEngine
    from hwsim.workload import Workload

PUBLISHED_ENERGY_RATIO = 3.0
"""What the paper reports, conventional engine over TULIP, at no loss of performance or area (Wagle et al., arXiv 2104.01699,
abstract; TSMC 40 nm). Nothing here is computed from it."""

_ELEMENTS = ("cells", "registers", "products", "accumulate")


@displayed
@dataclass(frozen=True)
class Comparison:
    """A baseline over an engine.

    Attributes:
        element_energy: energy of the processing elements alone.
        energy: of everything, off-chip memory and static energy among it.
        time: latency.
        area: logic of the processing elements.
        calibration: what the energies of both rest on.
    """

    element_energy: float
    energy: float
    time: float
    area: float
    calibration: str

    def __str__(self) -> str:
        return (
            f"element energy {self.element_energy:.2f}, energy {self.energy:.2f}, time {self.time:.2f}, area {self.area:.2f} "
            f"(published: energy {PUBLISHED_ENERGY_RATIO:g}) [{self.calibration}]"
        )


def compare_engines(workload: Workload, engine: BinaryEngine, baseline: BinaryEngine) -> Comparison:
    """What ``baseline`` takes over what ``engine`` takes.

    Args:
        workload: with the formats of a binary network (``bnn_recipe``).
    """
    ours, theirs = engine.simulate(workload), baseline.simulate(workload)
    elements = [sum(r.energy_by_component_j.get(part, 0.0) for part in _ELEMENTS) for r in (ours, theirs)]
    return Comparison(
        element_energy=elements[1] / elements[0] if elements[0] else 1.0,
        energy=theirs.energy_j / ours.energy_j,
        time=theirs.time_s / ours.time_s,
        area=_area(baseline) / _area(engine),
        calibration=f"{engine.name}: {engine.spec.energy_source}; {baseline.name}: {baseline.spec.energy_source}",
    )


def _area(engine: BinaryEngine) -> float:
    return engine.spec.pe.count * engine.spec.pe.logic_area_mac_int8
