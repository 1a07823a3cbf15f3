"""An engine beside its baseline of whole multipliers, and what was published of both.

Efficiencies are products a second per area, and products per energy, of the array alone: buffers, memory and vector unit are the
same for both. The published figures are references; nothing here is computed from them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from accelerators.bit_serial.device import TensorProcessingEngine
from accelerators.bit_serial.encodings import encoding
from accelerators.bit_serial.spec import TopologyName
from accelerators.bit_serial.timing import clock_ratio
from hwsim.views.display import displayed
from numerics.errors import InputError

PAPER = (
    "Exploring the Performance Improvement of Tensor Processing Engines through Transformation in the Bit-weight Dimension of "
    "MACs, SMIC 28 nm"
)


@displayed
@dataclass(frozen=True)
class Published:
    """Gains that were published: area efficiency and energy efficiency, times the baseline's."""

    area_efficiency: float
    energy_efficiency: float
    source: str = PAPER


PUBLISHED: Mapping[TopologyName, Published] = {
    "systolic": Published(1.27, 1.04),
    "cube": Published(1.28, 1.56),
    "adder_tree": Published(1.56, 1.49),
    "matrix_2d": Published(1.44, 1.20),
}
PUBLISHED_LACONIC = Published(2.85, 12.10)
"""Over the bit-slice design Laconic, for which no synthesised part stands, so that no figure of ours stands beside it."""

CARRY_SAVE_CLOCKS: Mapping[TopologyName, float] = {"systolic": 900 / 600, "cube": 6.24 / 3.89}
"""How much faster whole multipliers with carry-save sums were clocked than those that propagate carries, as the paper's authors
synthesised both (SAED 32 nm, Design Compiler; the fastest without violations: one element, 900 and 600 MHz, and a cube of
8×8×8, 3.89 and 6.24 ns). Source: "Technical Documentation and Interface Description" of their repository
High-Performance-Tensor-Processing-Engines. References for ``timing``, which is computed without them."""


@displayed
@dataclass(frozen=True)
class Gain:
    """An engine over its baseline, on the same products.

    Attributes:
        area: of the array, over the baseline's.
        cycles: over the baseline's.
        energy: of the array, over the baseline's; per product, whatever the clock.
        clock: how much faster it could be clocked, by ``timing.logic_levels``: an estimate.
    """

    area: float
    cycles: float
    energy: float
    clock: float

    @property
    def area_efficiency(self) -> float:
        """Products a cycle per area, over the baseline's: at one clock."""
        return 1 / (self.area * self.cycles)

    @property
    def area_efficiency_clocked(self) -> float:
        """Products a second per area, each design at the clock that its logic levels allow."""
        return self.area_efficiency * self.clock

    @property
    def energy_efficiency(self) -> float:
        """Products per energy, over the baseline's."""
        return 1 / self.energy

    def clock_for(self, area_efficiency: float) -> float:
        """How much faster it would have to be clocked to reach a gain of area efficiency."""
        return area_efficiency / self.area_efficiency


def gain(engine: TensorProcessingEngine, baseline: TensorProcessingEngine, products: Iterable[tuple[Any, Any]]) -> Gain:
    """``engine`` over ``baseline`` on matrix products, each a pair of int8 matrices (m, k) and (k, n); cycles are exact.

    Raises:
        InputError: no products, or as ``product_cost``.
    """
    loop = engine.spec.array.bit_weight
    operand = "b" if loop is None else loop.encoded_operand
    pairs = list(products)
    (cycles, energy), (base_cycles, base_energy) = (array_totals(m, pairs, operand=operand) for m in (engine, baseline))
    return Gain(
        area=engine.bill.total_area / baseline.bill.total_area,
        cycles=cycles / base_cycles,
        energy=sum(energy.values()) / sum(base_energy.values()),
        clock=clock_ratio(engine.spec.array, baseline.spec.array),
    )


def array_totals(
    machine: TensorProcessingEngine, products: Iterable[tuple[Any, Any]], *, operand: Literal["a", "b"] = "b"
) -> tuple[float, dict[str, float]]:
    """(cycles, component → joules) of products in the array, exactly.

    Args:
        products: pairs of int8 matrices, (m, k) and (k, n).
        operand: the one whose Booth digits say how much whole multipliers switch; that which the engine beside them recodes.

    Raises:
        InputError: no products, or as ``product_cost``.
    """
    cycles, energy = 0.0, dict[str, float]()
    for a, b in products:
        cost = machine.product_cost(a, b)
        digits = encoding("booth").digits(b if operand == "b" else a)
        booth = np.count_nonzero(digits) / (digits.size / digits.shape[-1])
        cycles += cost.cycles
        for part, joules in machine.product_energy_j(cost, results=len(a) * np.shape(b)[1], booth_digits=booth).items():
            energy[part] = energy.get(part, 0.0) + joules
    if not energy:
        raise InputError("products: expected at least one pair of matrices, got none")
    return cycles, energy
