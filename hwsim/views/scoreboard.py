"""The scoreboard as a table for the terminal, as pictures, and as files."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwsim.scoreboard.scores import Score
from hwsim.views.files import prepare_folder
from hwsim.views.style import GRID, INK, MUTED, PALETTE, PAPER
from hwsim.views.table import WIDTH_OF_FILES
from hwsim.views.units import counted, shorten, si
from numerics.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Console

SCHEMA = "hwsim.scoreboard"

EXPLAINED = {
    "predicted": "predicted: no fitted value bears on the figure",
    "cross-validated": "cross-validated: each point predicted with the fields fitted to the others",
    "calibrated": "calibrated: fields fitted to other measurements, or chosen with these in view, bear on the figure",
}
"""Origin of a score → what it means."""


def scoreboard_data(scores: Sequence[Score]) -> dict[str, Any]:
    """Scores as plain data."""
    return {"schema": SCHEMA, "schema_version": 1, "targets": [score.to_dict() for score in scores]}


def _unit(score: Score) -> str:
    return "%" if score.error == "percent" else "pt"


def _goal(score: Score) -> str:
    parts = [f"≤ {score.goal.mean:g}"] if score.goal.mean is not None else []
    parts += [f"worst ≤ {score.goal.worst:g}"] if score.goal.worst is not None else []
    return ", ".join(parts)


def print_scores(scores: Sequence[Score], console: Console | None = None) -> None:
    """Print the errors of every score, and what the words mean."""
    from rich import box
    from rich.console import Console as RichConsole
    from rich.table import Table
    from rich.text import Text

    if console is None:
        console = RichConsole() if sys.stdout.isatty() else RichConsole(width=WIDTH_OF_FILES + 40)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    for title, justify in (
        ("measured", "left"), ("device", "left"), ("points", "right"), ("mean error", "right"), ("worst", "right"),
        ("bias", "right"), ("goal", "left"), ("", "left"), ("origin", "left"), ("fitted", "right"), ("fit to all", "right"),
        ("no fit", "right"),
    ):  # fmt: skip
        table.add_column(title, justify="left" if justify == "left" else "right", overflow="fold")
    for score in scores:
        unit = _unit(score)
        met = score.met
        name = score.name + (" (estimate)" if score.evidence == "estimate" else "")
        fitted = len(score.fitted_fields)
        table.add_row(
            Text(name), Text(score.device), Text(str(len(score.measured))), Text(f"{score.errors.mean:.1f} {unit}"),
            Text(f"{score.errors.worst:.1f} {unit}"), Text(f"{score.errors.bias:+.1f} {unit}"), Text(_goal(score)),
            Text("" if met is None else "met" if met else "missed", style="" if met is None else "green" if met else "red"),
            Text(score.origin), Text(str(fitted)), Text(f"{score.shipped.mean:.1f} {unit}" if fitted else "–"),
            Text(f"{score.uncalibrated.mean:.1f} {unit}" if score.uncalibrated != score.shipped else "–"),
        )  # fmt: skip
    console.print(table)
    for origin in dict.fromkeys(score.origin for score in scores):
        if origin in EXPLAINED:
            console.print(Text(EXPLAINED[origin], style="dim"))
    console.print(
        Text(
            "errors: mean absolute and worst, of the measured value; bias: mean signed error; fit to all: mean error with the "
            "spec's own fitted values; no fit: with the spec's section `calibrated` deleted",
            style="dim",
        )
    )


def scores_markdown(scores: Sequence[Score]) -> str:
    """The scoreboard as a Markdown table, one line a score."""
    lines = [
        "| measured | device | points | mean error | worst | bias | goal | origin | fitted fields | fit to all | no fit |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for score in scores:
        unit, fitted = _unit(score), len(score.fitted_fields)
        goal = _goal(score) + ("" if score.met is None else ": met" if score.met else ": missed")
        cells = [
            f"`{score.name}`" + (" (estimate)" if score.evidence == "estimate" else ""), f"`{score.device}`",
            str(len(score.measured)), f"{score.errors.mean:.1f} {unit}", f"{score.errors.worst:.1f} {unit}",
            f"{score.errors.bias:+.1f} {unit}", goal, score.origin, str(fitted),
            f"{score.shipped.mean:.1f} {unit}" if fitted else "–",
            f"{score.uncalibrated.mean:.1f} {unit}" if score.uncalibrated != score.shipped else "–",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def print_points(score: Score, *, most: int | None = None, console: Console | None = None) -> None:
    """Print the points of a score, measured beside modelled; ``most`` limits it to the largest measured values."""
    from rich import box
    from rich.console import Console as RichConsole
    from rich.table import Table
    from rich.text import Text

    if console is None:
        console = RichConsole() if sys.stdout.isatty() else RichConsole(width=WIDTH_OF_FILES)
    unit = "s" if score.figure == "time" else ""
    places = list(range(len(score.measured)))
    if most is not None:
        places = sorted(sorted(places, key=lambda i: -score.measured[i])[:most])
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    for title in ("point", "measured", "modelled", "error"):
        table.add_column(title, justify="left" if title == "point" else "right", overflow="fold")
    for i in places:
        measured, modelled = score.measured[i], score.modelled[i]
        error = f"{100 * (modelled / measured - 1):+.0f} %"
        table.add_row(Text(shorten(score.labels[i], 70)), Text(si(measured, unit)), Text(si(modelled, unit)), Text(error))
    console.print(table)
    left = len(score.measured) - len(places)
    if left:
        console.print(Text(f"… {counted(left, 'smaller one')}", style="dim"))
    total = sum(score.measured), sum(score.modelled)
    console.print(Text(f"together: measured {si(total[0], unit)}, modelled {si(total[1], unit)}", style="dim"))


def plot_scores(scores: Sequence[Score]) -> Figure:
    """Measured against modelled, one panel a figure that was measured.

    Raises:
        InputError: no scores.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    whole = [score for score in scores if not score.subset]
    if not whole:
        raise InputError("scoreboard: expected at least one score, got none")
    columns = min(3, len(whole))
    rows = math.ceil(len(whole) / columns)
    figure = Figure(figsize=(4.2 * columns, 4.3 * rows), dpi=110, layout="constrained", facecolor=PAPER)
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.flat[len(whole) :]:
        ax.set_visible(False)
    for ax, score in zip(axes.flat, whole, strict=False):
        values = [*score.measured, *score.modelled]
        log = score.error == "percent" and min(values) > 0 and max(values) > 20 * min(values)
        low, high = min(values), max(values)
        low, high = (low / 1.25, high * 1.25) if log else (0.0, 1.1 * high)
        ax.set_facecolor(PAPER)
        ax.plot([low, high], [low, high], color=INK, linewidth=0.8)
        if log:
            ax.set_xscale("log")
            ax.set_yscale("log")
        if score.error == "percent":
            band = [low, high], [0.9 * low, 0.9 * high], [1.1 * low, 1.1 * high]
        else:
            band = [low, high], [low - 10, high - 10], [low + 10, high + 10]
        ax.fill_between(*band, color=GRID, alpha=0.6, linewidth=0)
        ax.plot(score.measured, score.modelled, "o", color=PALETTE[0], markersize=4, alpha=0.7, markeredgewidth=0)
        ax.set_xlim(low, high)
        ax.set_ylim(low, high)
        ax.set_aspect("equal")
        ax.set_title(
            f"{score.name} on {score.device}\nmean error {score.errors.mean:.1f} {_unit(score)}, worst "
            f"{score.errors.worst:.1f} {_unit(score)}, {score.origin}",
            fontsize=9, loc="left", color=INK, parse_math=False,
        )  # fmt: skip
        ax.set_xlabel("measured", fontsize=8, color=MUTED)
        ax.set_ylabel("modelled", fontsize=8, color=MUTED)
        ax.tick_params(labelsize=7, colors=MUTED)
        for side in ("top", "right"):
            ax.spines[side].set_visible(False)
    unit = "percent" if all(score.error == "percent" for score in whole) else "percent (or points)"
    figure.supxlabel(f"band: ±10 {unit}", fontsize=7, color=MUTED, x=0.01, ha="left")
    return figure


def save_scores(scores: Sequence[Score], folder: Path) -> list[Path]:
    """Write ``scoreboard.json`` and ``scoreboard.png`` into ``folder``; returns the paths.

    Raises:
        InputError: the folder cannot be made or written, no scores.
    """
    prepare_folder(folder)
    data, picture = folder / "scoreboard.json", folder / "scoreboard.png"
    data.write_text(json.dumps(scoreboard_data(scores), indent=1, allow_nan=False), encoding="utf-8")
    plot_scores(scores).savefig(picture)
    return [data, picture]
