"""A memory plan as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwsim.views.style import GRID, INK, MUTED, PALETTE, PAPER
from hwsim.views.units import shorten

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hwsim.planning.plan import MemoryPlan

NAMED = 0.06
"""Share of the peak from which a buffer's name is written into it."""


def plot_plan(plan: MemoryPlan) -> Figure:
    """Offset in KiB over operators: a rectangle a buffer, the bytes alive as a line, the peak dashed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    figure = Figure(figsize=(10, 5), dpi=130, layout="constrained", facecolor=PAPER)
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set_facecolor(PAPER)
    for number, buffer in enumerate(plan.buffers):
        start, width, size = buffer.first - 0.5, buffer.last - buffer.first + 1, buffer.bytes / 1024
        colour = PALETTE[number % len(PALETTE)]
        axes.add_patch(Rectangle((start, buffer.offset / 1024), width, size, facecolor=colour, edgecolor=PAPER, alpha=0.75))
        if buffer.bytes >= NAMED * plan.peak_bytes and width >= max(1, len(plan.ops) / 14):
            text = shorten(buffer.name, max(6, int(90 * width / max(1, len(plan.ops)))))
            axes.text(
                start + width / 2, buffer.offset / 1024 + size / 2, text,
                ha="center", va="center", fontsize=6.5, color=INK, parse_math=False,
            )  # fmt: skip
    places = range(len(plan.ops))
    axes.step(places, [n / 1024 for n in plan.live_bytes], where="mid", color=INK, linewidth=1.0, label="alive")
    axes.axhline(plan.peak_bytes / 1024, color=MUTED, linestyle="--", linewidth=1.0, label="peak")
    step = max(1, len(plan.ops) // 30)
    axes.set_xticks(list(places)[::step], [shorten(plan.ops[i], 28) for i in places][::step], rotation=90, fontsize=6)
    for label in axes.get_xticklabels():
        label.set_parse_math(False)
    axes.set_xlim(-0.5, max(1, len(plan.ops)) - 0.5)
    axes.set_ylim(0, max(1.0, 1.05 * plan.peak_bytes / 1024))
    axes.set_ylabel("offset (KiB)", color=INK)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, borderaxespad=0.2)
    title = f"{plan.workload}: peak {plan.peak_bytes / 1024:.1f} KiB, decided by {plan.deciding_op}"
    axes.set_title(shorten(title, 110), loc="left", fontsize=10, color=INK, parse_math=False)
    return figure
