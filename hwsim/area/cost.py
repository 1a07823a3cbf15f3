"""What a die costs: dies of a wafer, their yield, the wafer's price."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Literal, get_args

from hwsim.area.process import at_node
from hwsim.views.display import displaying
from numerics.errors import InputError, unknown_name

WAFER_MM = 300.0
RETICLE_MM2 = 26.0 * 33.0
"""The field of a lithography scanner: a larger die cannot be exposed at once."""

YieldModel = Literal["poisson", "murphy", "negative_binomial"]


def _positive(field: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value) or value <= 0:
        raise InputError(f"{field}: expected a number above zero, got {value!r}")
    return float(value)


def die_yield(area_mm2: float, defects_per_cm2: float, *, model: YieldModel = "murphy", clustering: float = 3.0) -> float:
    """Share of dies without a defect, above 0 and at most 1.

    For x = area · density: ``poisson`` e^−x; ``murphy`` ((1 − e^−x)/x)², a triangle of densities (Murphy, Proc. IEEE 52, 1964);
    ``negative_binomial`` (1 + x/c)^−c, defects that cluster (C. Stapper, IBM J. Res. Dev. 27(6), 1983).

    Args:
        area_mm2: of the die.
        defects_per_cm2: that kill it.
        clustering: c of ``negative_binomial``; 3 is a guess.

    Raises:
        InputError: numbers that are not above zero, an unknown model.
    """
    x = _positive("area_mm2", area_mm2) / 100 * _positive("defects_per_cm2", defects_per_cm2)
    if model == "poisson":
        share = math.exp(-x)
    elif model == "murphy":
        share = (-math.expm1(-x) / x) ** 2
    elif model == "negative_binomial":
        c = _positive("clustering", clustering)
        share = math.exp(-c * math.log1p(x / c))
    else:
        raise unknown_name("model", str(model), get_args(YieldModel))
    return max(min(share, 1.0), math.ulp(0.0))


def dies_per_wafer(area_mm2: float, *, wafer_mm: float = WAFER_MM) -> int:
    """Whole square dies of a wafer: π d²/4A − π d/√(2A), rounded down (Hennessy and Patterson, section 1.6).

    Raises:
        InputError: numbers that are not above zero; a die of which none fits.
    """
    area, diameter = _positive("area_mm2", area_mm2), _positive("wafer_mm", wafer_mm)
    count = math.floor(math.pi * diameter**2 / (4 * area) - math.pi * diameter / math.sqrt(2 * area))
    if count < 1:
        raise InputError(f"area_mm2: expected a die that a wafer of {diameter:g} mm holds, got {area:g}")
    return count


@displaying("over_reticle")
@dataclass(frozen=True)
class DieCost:
    """What a working die costs as it leaves the foundry; test, package and memory stacks are left out.

    Attributes:
        area_mm2, node_nm: of the die.
        dies_per_wafer: whole ones.
        yield_fraction: share that works.
        wafer_usd: price of the wafer, an estimate of its time (``process_nodes.csv``).
        cost_usd: wafer over working dies.
        model: of the yield.
    """

    area_mm2: float
    node_nm: float
    dies_per_wafer: int
    yield_fraction: float
    wafer_usd: float
    cost_usd: float
    model: YieldModel

    @property
    def over_reticle(self) -> bool:
        """Whether the die is larger than a scanner's field of 26 × 33 mm, so that it would have to be several."""
        return self.area_mm2 > RETICLE_MM2

    def __str__(self) -> str:
        over = "; larger than a reticle's field" if self.over_reticle else ""
        return (
            f"{self.area_mm2:.4g} mm² at {self.node_nm:g} nm: {self.cost_usd:.4g} dollars a working die "
            f"({self.dies_per_wafer} a wafer, yield {self.yield_fraction:.1%}{over})"
        )


def die_cost(
    area_mm2: float,
    node: float,
    *,
    model: YieldModel = "murphy",
    defects_per_cm2: float | None = None,
    wafer_usd: float | None = None,
    clustering: float = 3.0,
) -> DieCost:
    """What a die of an area costs at a node.

    Args:
        area_mm2: of the die, such as ``device.area().total_mm2``.
        node: nanometres, from 3 to 90.
        model: of the yield; see ``die_yield``.
        defects_per_cm2, wafer_usd: the table's, where left out.
        clustering: of ``negative_binomial``.

    Raises:
        InputError: numbers that are not above zero, a die that no wafer holds, a node without a price.
    """
    node = _positive("node", node)
    price = at_node("wafer_usd", node) if wafer_usd is None else _positive("wafer_usd", wafer_usd)
    density = at_node("defects_per_cm2", node) if defects_per_cm2 is None else defects_per_cm2
    count = dies_per_wafer(area_mm2)
    share = die_yield(area_mm2, density, model=model, clustering=clustering)
    return DieCost(float(area_mm2), node, count, share, price, price / (count * share), model)
