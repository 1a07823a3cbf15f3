"""Colours that the pictures and the pages share: Okabe and Ito's palette, safe for colour-blind readers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

INK = "#1f2430"
MUTED = "#5b6472"
GRID = "#dfe3e8"
PAPER = "#ffffff"

PART_COLOURS = {"compute": "#0072b2", "stall": "#e69f00", "overhead": "#999999"}
PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999999", "#f0e442")

OTHER = "other"


def components(energies: Iterable[Mapping[str, float]]) -> dict[str, str]:
    """Energy component → colour, the largest first; those past the palette share one entry, ``other``."""
    total: dict[str, float] = {}
    for energy in energies:
        for component, joules in energy.items():
            total[component] = total.get(component, 0.0) + joules
    order = sorted(total, key=lambda c: -total[c])
    if len(order) > len(PALETTE):
        order = [*order[: len(PALETTE) - 1], OTHER]
    return dict(zip(order, PALETTE, strict=False))


def component_joules(energy: Mapping[str, float], component: str, shown: Iterable[str]) -> float:
    """Joules of one entry of ``components``; ``other`` gathers all that are not shown."""
    if component == OTHER and OTHER not in energy:
        names = set(shown)
        return sum(joules for name, joules in energy.items() if name not in names)
    return energy.get(component, 0.0)
