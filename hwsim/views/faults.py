"""A fault campaign as tables for the terminal, as pictures, and as files."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwsim.faults.network import OUTCOMES
from hwsim.views.files import prepare_folder
from hwsim.views.style import GRID, INK, MUTED, PALETTE, PAPER
from hwsim.views.table import WIDTH_OF_FILES
from hwsim.views.units import counted, shorten
from numerics.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.console import Console

    from hwsim.faults.results import CampaignResult

VAGUE = 0.1
"""Half the width of an interval from which on a cell of a heat map is hatched."""

MOST_LAYERS = 40
"""Rows of a heat map; the layers with the most changed predictions are shown."""


def _interval(row: dict[str, Any], name: str, *, scale: float = 100.0) -> str:
    if name not in row:
        return "–"
    value, low, high = (scale * row[key] for key in (name, f"{name}_low", f"{name}_high"))
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def print_campaign(result: CampaignResult, *, most: int | None = 30, console: Console | None = None) -> None:
    """Print what a campaign found: rates by layer of single bits, or scores of fault maps; in percent."""
    from rich import box
    from rich.console import Console as RichConsole
    from rich.table import Table
    from rich.text import Text

    if console is None:
        console = RichConsole() if sys.stdout.isatty() else RichConsole(width=WIDTH_OF_FILES + 40)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    left = 0
    if result.kind == "bits":
        for title in ("layer", "operand", "trials", "prediction changed %", *(f"{name} %" for name in OUTCOMES)):
            table.add_column(title, justify="left" if title in ("layer", "operand") else "right", overflow="fold")
        rows = result.rates("layer", "target")
        shown = rows if most is None else rows[:most]
        left = len(rows) - len(shown)
        for row in [*shown, {"layer": "all bits", "target": "", **result.rates()[0]}]:
            table.add_row(
                Text(shorten(row["layer"], 40)), Text(row["target"]), Text(f"{row['trials']:,}"), Text(_interval(row, "changed")),
                *(Text(f"{100 * row[name]:.2f}" if name in row else "–") for name in OUTCOMES),
            )  # fmt: skip
    else:
        for title in (
            "scenario",
            "maps",
            f"{result.metric} %",
            "drop %",
            "faulty bits a map",
            *(f"{name} %" for name in OUTCOMES),
        ):
            table.add_column(title, justify="left" if title == "scenario" else "right", overflow="fold")
        for row in result.scores():
            table.add_row(
                Text(shorten(row["scenario"], 40)), Text(f"{row['trials']:,}"), Text(_interval(row, "score")),
                Text(_interval(row, "drop")), Text(f"{row['faulty_bits']:,.1f}" if row["trials"] else "–"),
                *(Text(f"{100 * row[name]:.1f}" if name in row else "–") for name in OUTCOMES),
            )  # fmt: skip
    console.print(table)
    lines = [f"… {counted(left, 'more layer')}"] if left > 0 else []
    lines.append(f"without faults: {result.metric} {100 * result.golden_score:.2f} % on {counted(result.images, 'image')}")
    over = "the faults of these images" if result.kind == "bits" else "fault maps on these images"
    lines.append(f"brackets: {100 * result.confidence:g} % intervals over {over}; other images might come out otherwise")
    lines.append("masked: outputs equal in every bit; silent: they differ; detected: by a protection; nan: a new Inf or NaN")
    if result.metric == "agreement":
        lines.append("agreement: share of predictions that are those without faults; there were no labels")
    if result.failures:
        lines.append(f"{counted(len(result.failures), 'trial')} could not be evaluated; the first: {result.failures[0]['error']}")
    for line in lines:
        console.print(Text(line, style="dim"))


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=110, layout="constrained", facecolor=PAPER)
    FigureCanvasAgg(figure)
    ax = figure.subplots()
    ax.set_facecolor(PAPER)
    ax.tick_params(labelsize=8, colors=MUTED)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    return figure, ax


def plot_accuracy(results: CampaignResult | Sequence[CampaignResult], labels: Sequence[str] | None = None) -> Figure:
    """The metric against the bit-error rate, with bands of the intervals; one line a campaign.

    Args:
        results: campaigns over fault maps whose scenarios have a rate.
        labels: of the lines.

    Raises:
        InputError: a campaign over single bits, or without a rate.
    """
    each = [results] if not isinstance(results, Sequence) else list(results)
    names = list(labels) if labels is not None else [""] * len(each)
    if len(names) != len(each):
        raise InputError(f"labels: expected {len(each)}, one a campaign, got {len(names)}")
    figure, ax = _figure(6.2, 4.2)
    every: set[float] = set()
    shown: list[float] = []
    for number, (result, label) in enumerate(zip(each, names, strict=True)):
        points = sorted((float(result.rate_of(row["scenario"])), row) for row in result.scores() if row["trials"])
        rates = [rate for rate, _ in points]
        colour = PALETTE[number % len(PALETTE)]
        low, mid, high = ([100 * row[key] for _, row in points] for key in ("score_low", "score", "score_high"))
        ax.fill_between(rates, low, high, color=colour, alpha=0.18, linewidth=0)
        ax.plot(rates, mid, "o-", color=colour, markersize=4, linewidth=1.6, label=label or None)
        ax.axhline(100 * result.golden_score, color=colour, linewidth=0.8, linestyle=":")
        every.update(rates)
        shown += [*low, *high, 100 * result.golden_score]
    _rate_axis(ax, sorted(every))
    _score_axis(ax, shown)
    ax.grid(axis="y", color=GRID, linewidth=0.6)
    ax.set_xlabel("bit-error rate", fontsize=9, color=INK)
    ax.set_ylabel(f"{each[0].metric} (%)", fontsize=9, color=INK)
    ax.set_title(
        f"band: {100 * each[0].confidence:g} % interval over fault maps, not over images; dotted: without faults",
        fontsize=8,
        loc="left",
        color=MUTED,
    )
    if any(names):
        ax.legend(frameon=False, fontsize=8)
    return figure


def _rate_axis(ax: Axes, rates: Sequence[float]) -> None:
    """Rates by their logarithm; 0, where it is one of them, beside the smallest other."""
    positive = [rate for rate in rates if rate > 0]
    if not positive:
        return
    if len(positive) == len(rates):
        ax.set_xscale("log")
    else:
        ax.set_xscale("symlog", linthresh=positive[0], linscale=0.5)
        ax.set_xlim(left=-0.2 * positive[0])


def _score_axis(ax: Axes, shown: Sequence[float]) -> None:
    """From the lowest to the highest number shown, so that a band can be seen, and a little more on both sides."""
    low, high = (min(shown), max(shown)) if shown else (0.0, 100.0)
    room = max(0.08 * (high - low), 0.1)
    ax.set_ylim(max(low - room, -3.0), min(high + room, 103.0))


def plot_sensitivity(result: CampaignResult, *, what: str = "changed") -> Figure:
    """Share of faulty bits that change the prediction (or end in an outcome), by layer and bit, as a heat map.

    A cell whose interval is wide is pale and hatched: its colour says little.

    Args:
        what: ``changed``, or an outcome.

    Raises:
        InputError: a campaign over fault maps, an unknown outcome.
    """
    import numpy as np
    from matplotlib.patches import Rectangle

    if what not in (*OUTCOMES, "changed"):
        raise InputError(f"what: expected one of {', '.join((*OUTCOMES, 'changed'))}, got {what!r}")
    rows = result.rates("layer", "target", "bit")
    layers = list(dict.fromkeys((row["layer"], row["target"]) for row in rows))
    if len(layers) > MOST_LAYERS:
        worst = {(row["layer"], row["target"]): row.get(what, 0.0) for row in result.rates("layer", "target")}
        kept = set(sorted(layers, key=lambda key: -worst[key])[:MOST_LAYERS])
        layers = [key for key in layers if key in kept]
    bits = sorted({row["bit"] for row in rows}, reverse=True)
    grid = np.full((len(layers), len(bits)), np.nan)
    vague = np.zeros(grid.shape, bool)
    for row in rows:
        if (row["layer"], row["target"]) in layers and what in row:
            at = layers.index((row["layer"], row["target"])), bits.index(row["bit"])
            grid[at] = 100 * row[what]
            vague[at] = row[f"{what}_high"] - row[f"{what}_low"] > 2 * VAGUE
    figure, ax = _figure(max(5.0, 1.8 + 0.42 * len(bits)), max(2.4, 1.2 + 0.3 * len(layers)))
    image = ax.pcolormesh(
        np.arange(len(bits) + 1), np.arange(len(layers) + 1), grid, cmap="YlOrRd", vmin=0, edgecolors=PAPER, linewidth=1
    )
    for y, x in np.argwhere(vague):
        ax.add_patch(Rectangle((x, y), 1, 1, facecolor=PAPER, hatch="////", edgecolor=MUTED, linewidth=0, alpha=0.55))
    ax.invert_yaxis()
    ax.set_xticks(np.arange(len(bits)) + 0.5, [str(bit) for bit in bits])
    ax.set_yticks(np.arange(len(layers)) + 0.5, [f"{shorten(layer, 28)} · {target}" for layer, target in layers])
    ax.set_xlabel("bit, the highest first", fontsize=9, color=INK)
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(False)
    bar = figure.colorbar(image, ax=ax, shrink=0.9, pad=0.02)
    bar.ax.tick_params(labelsize=8, colors=MUTED)
    bar.outline.set_visible(False)
    title = "predictions changed by one faulty bit (%)" if what == "changed" else f"faulty bits that end {what} (%)"
    if vague.any():
        title += f"\nhatched: {100 * result.confidence:g} % interval wider than ±{100 * VAGUE:g} %"
    ax.set_title(title, fontsize=9, loc="left", color=INK)
    return figure


def save_campaign(result: CampaignResult, folder: Path) -> list[Path]:
    """Write ``results.csv``, ``summary.json`` and the pictures into ``folder``; returns the paths.

    Raises:
        InputError: the folder cannot be made or written.
    """
    prepare_folder(folder)
    files = [folder / "results.csv", folder / "summary.json"]
    files[0].write_text(result.to_csv(), encoding="utf-8")
    files[1].write_text(json.dumps(result.to_dict(), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    figures: dict[str, Figure] = {}
    if result.trials:
        if result.kind == "bits":
            figures["sensitivity"] = plot_sensitivity(result)
        elif result.has_rates:
            figures["accuracy"] = plot_accuracy(result)
    for name, figure in figures.items():
        files.append(folder / f"{name}.png")
        figure.savefig(files[-1])
    return files
