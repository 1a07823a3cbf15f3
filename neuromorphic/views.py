"""Pictures of what is particular to spiking chips: who fired when, the load of cores and links, energy step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hwsim.views.style import GRID, INK, MUTED, PAPER, component_joules, components
from hwsim.views.units import axis_scale, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from hwsim.report import Report

MOST_NAMES = 14
"""Populations and cores that are named in a picture."""


def plot_raster(report: Report) -> Figure:
    """Spikes: a dot for each, populations one above the other."""
    rows = report.tables["raster"]
    sizes = {row["population"]: row["size"] for row in report.tables["populations"]}
    bases, base = {}, 0
    for name, size in sizes.items():
        bases[name], base = base, base + size
    figure, (axes,) = _figure(report, "spikes", height_in=5.5)
    shown = dict.fromkeys(row["population"] for row in rows)
    colours = dict(zip(shown, _cycle(len(shown)), strict=True))
    for name, colour in colours.items():
        some = [row for row in rows if row["population"] == name]
        steps_of, heights = [row["step"] for row in some], [bases[name] + row["neuron"] for row in some]
        axes.plot(steps_of, heights, ls="", marker="|" if base < 400 else ".", ms=4 if base < 400 else 1.5, color=colour)
    ticks = list(sizes)[:: max(1, -(-len(sizes) // MOST_NAMES))]
    axes.set_yticks(
        [bases[name] + sizes[name] / 2 for name in ticks], [f"{shorten(name, 24)} ({sizes[name]:,})" for name in ticks]
    )
    for name in list(sizes)[1:]:
        axes.axhline(bases[name] - 0.5, color=GRID, lw=0.8)
    steps = len(report.tables["time_steps"])
    axes.set_xlim(-0.5, steps - 0.5)
    axes.set_ylim(-0.5, base - 0.5)
    total = sum(row["spikes"] for row in report.tables["populations"])
    drawn = f"{len(rows):,} of {total:,} spikes drawn" if len(rows) < total else f"{total:,} spikes"
    axes.set_xlabel(f"step ({drawn}, those that enter included)")
    return figure


def plot_core_map(report: Report) -> Figure:
    """Where the work is: how long each router's cores work, and packets on each router's links.

    Where the chip's times are unknown, how many synaptic operations they do.
    """
    cores, links = report.tables["core_map"], report.tables.get("links", ())
    figure, (left, right) = _figure(report, "cores and network", height_in=4.2, columns=2)
    mesh = report.spec["mesh"]
    # Whole chips, as many as are used.
    columns = mesh["columns"] * (1 + max(row["x"] for row in cores) // mesh["columns"])
    rows = mesh["rows"] * (1 + max(row["y"] for row in cores) // mesh["rows"])
    timed = any(row["busy_s"] for row in cores)
    load = _grid(rows, columns)
    for row in cores:
        load[row["y"]][row["x"]] = (load[row["y"]][row["x"]] or 0.0) + row["busy_s" if timed else "synaptic_operations"]
    passed = _grid(rows, columns)
    for row in links:
        passed[row["y"]][row["x"]] = (passed[row["y"]][row["x"]] or 0) + row["packets"]
    most = max(value for line in load for value in line if value is not None)
    factor, unit = axis_scale(most, "s") if timed else (1, "")
    what = f"time the cores work ({unit})" if timed else "synaptic operations (times are unknown)"
    _heat(left, [[None if v is None else v * factor for v in line] for line in load], what)
    _heat(right, passed, "packets over links that leave a router" if links else "no packets leave a router")
    if len(cores) <= MOST_NAMES * 3:
        names: dict[tuple[int, int], list[str]] = {}
        for row in cores:
            names.setdefault((row["x"], row["y"]), []).append(str(row["core"]))
        for (x, y), numbers in names.items():
            colour = PAPER if (load[y][x] or 0.0) > 0.55 * most else INK
            left.text(x, y, "\n".join(numbers), ha="center", va="center", fontsize=6, color=colour, parse_math=False)
    return figure


def plot_steps(report: Report) -> Figure:
    """Energy of each step by component, and how long each step takes beside the time it may take.

    Where the chip's times are unknown, how many synaptic operations each step has.
    """
    steps = report.tables["time_steps"]
    energies = [
        {key.removeprefix("energy_").removesuffix("_j"): value for key, value in row.items() if key.startswith("energy_")}
        for row in steps
    ]
    shown = {name: colour for name, colour in components(energies).items() if any(energy.get(name, 1) for energy in energies)}
    figure, (upper, lower) = _figure(report, "step by step", height_in=6.0, rows=2)
    numbers = [row["step"] for row in steps]
    factor, unit = axis_scale(max((sum(energy.values()) for energy in energies), default=0.0), "J")
    base = [0.0] * len(steps)
    for component, colour in shown.items():
        top = [b + factor * component_joules(energy, component, shown) for b, energy in zip(base, energies, strict=True)]
        upper.fill_between(numbers, base, top, step="mid", color=colour, lw=0, label=component.replace("_", " "))
        base = top
    if shown:
        upper.set_ylabel(f"energy a step ({unit})")
        upper.legend(fontsize=7, ncols=4, frameon=False, loc="upper right")
    else:
        _message(upper, "energy is unknown")
    timed = any(row["busy_s"] for row in steps)
    limits = [row["allowed_s"] for row in steps if row["allowed_s"] is not None and timed]
    factor, unit = axis_scale(max([row["busy_s"] for row in steps] + limits), "s") if timed else (1, "")
    work = [factor * row["busy_s"] if timed else row["synaptic_operation"] for row in steps]
    lower.step(numbers, work, where="mid", color="#0072b2", lw=1)
    if limits:
        lower.axhline(factor * limits[0], color="#d55e00", lw=1, ls="--")
        lower.annotate("a step's time", (numbers[-1], factor * limits[0]), ha="right", va="bottom", fontsize=7, color="#d55e00")
    lower.set_ylabel(f"work of a step ({unit})" if timed else "synaptic operations a step\n(times are unknown)")
    lower.set_xlabel("step")
    for axes in (upper, lower):
        axes.set_xlim(numbers[0] - 0.5, numbers[-1] + 0.5)
        axes.set_ylim(bottom=0)
    return figure


def _grid(rows: int, columns: int) -> list[list[Any]]:
    return [[None] * columns for _ in range(rows)]


def _cycle(count: int) -> list[str]:
    from hwsim.views.style import PALETTE

    return [PALETTE[i % (len(PALETTE) - 1)] for i in range(count)]


def _heat(axes: Axes, values: Sequence[Sequence[Any]], label: str) -> None:
    import numpy as np
    from matplotlib.ticker import EngFormatter

    grid = np.array([[np.nan if v is None else v for v in row] for row in values], np.float64)
    most = float(np.nanmax(grid, initial=0.0))
    image = axes.imshow(np.ma.masked_invalid(grid), cmap="YlOrBr", vmin=0, vmax=most or 1.0)
    axes.set_xlabel("router x")
    axes.set_ylabel("router y")
    axes.set_title(label, fontsize=9, color=INK)
    axes.locator_params(integer=True)
    if most:
        axes.figure.colorbar(image, ax=axes, fraction=0.046, format=EngFormatter() if most >= 1000 else None)


def _message(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", fontsize=9, color=MUTED)
    axes.set_yticks([])


def _figure(report: Report, what: str, *, height_in: float, rows: int = 1, columns: int = 1) -> tuple[Figure, Sequence[Axes]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, height_in), dpi=130, layout="constrained", facecolor=PAPER)
    FigureCanvasAgg(figure)
    left: Mapping[str, Any] = {"x": 0.01, "ha": "left", "parse_math": False}
    title = shorten(f"{report.workload} on {report.device}: {what}", 90)
    figure.suptitle(title, fontsize=13, fontweight="bold", color=INK, **left)
    figure.supxlabel(f"events: set {report.spec.get('event_set', '')}", fontsize=7, color=MUTED, **left)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=rows > 1).reshape(-1)
    for one in axes:
        one.set_facecolor(PAPER)
        one.spines[["top", "right"]].set_visible(False)
        one.tick_params(labelsize=8, colors=MUTED)
    return figure, list(axes)
