"""An assignment as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwsim.views.style import GRID, INK, MUTED, PALETTE, PAPER
from hwsim.views.units import axis_scale, shorten, si

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hwsim.planning.assignment import Assignment

NAMED = 0.05
"""Share of the whole time from which a layer's name is written into its box."""


def plot_assignment(assignment: Assignment) -> Figure:
    """A bar a machine, a box a layer, a colour a network; the deadline dashed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    figure = Figure(figsize=(10, 1.6 + 0.6 * len(assignment.devices)), dpi=130, layout="constrained", facecolor=PAPER)
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set_facecolor(PAPER)
    whole = max(assignment.makespan_s, assignment.deadline_s or 0.0)
    scale, unit = axis_scale(whole, "s")
    colours = {name: PALETTE[number % len(PALETTE)] for number, name in enumerate(assignment.networks)}
    places = {name: number for number, name in enumerate(assignment.devices)}
    for one in assignment.layers:
        width = (one.end_s - one.start_s) * scale
        left = one.start_s * scale
        axes.barh(
            places[one.device],
            width,
            left=left,
            height=0.7,
            color=colours[one.network],
            edgecolor=PAPER,
            linewidth=0.5,
            alpha=0.75,
        )
        if whole and (one.end_s - one.start_s) / whole >= NAMED:
            text = shorten(one.layer, max(5, int(150 * (one.end_s - one.start_s) / whole)))
            axes.text(
                left + width / 2, places[one.device], text, ha="center", va="center", fontsize=6.5, color=INK, parse_math=False
            )
    if assignment.deadline_s is not None:
        axes.axvline(assignment.deadline_s * scale, color=MUTED, linestyle="--", linewidth=1.0)
    names = [f"{shorten(name, 28)}\n{assignment.utilization[name]:.0%} busy" for name in assignment.devices]
    axes.set_yticks(list(places.values()), names, fontsize=8)
    for label in axes.get_yticklabels():
        label.set_parse_math(False)
    axes.invert_yaxis()
    axes.set_xlim(0, max(whole * scale * 1.02, 1e-9))
    axes.set_xlabel(f"time ({unit})", color=INK)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    handles = [Patch(color=colour, label=shorten(name, 30)) for name, colour in colours.items()]
    legend = axes.legend(
        handles=handles, frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=4, borderaxespad=0.2
    )
    for entry in legend.get_texts():
        entry.set_parse_math(False)
    energy = "energy unknown" if assignment.energy_j is None else si(assignment.energy_j, "J")
    axes.set_title(f"{si(assignment.makespan_s, 's')}, {energy}", loc="left", fontsize=10, color=INK, parse_math=False)
    return figure
