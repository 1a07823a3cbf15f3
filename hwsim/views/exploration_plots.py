"""Explorations as pictures: the front, parallel coordinates, what matters, the hypervolume against trials."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hwsim.views.exploration_columns import MOST_REPEATED, Field, fields_of
from hwsim.views.exploration_sensitivity import sensitivity
from hwsim.views.style import GRID, INK, MUTED, PALETTE, PAPER
from hwsim.views.units import shorten, si

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from hwsim.explore.exploration import Exploration

FRONT = "#d55e00"
MOST_LINES = 1500
"""Lines of the parallel coordinates; of more points so many are drawn, evenly chosen, and the picture says so."""

MOST_MARKS = 12
"""Values whose names are written along an axis of the parallel coordinates."""

MOST_PAIRED = 4
"""Objectives that are drawn in pairs; the first so many."""

_MARKERS = {"random": "D", "sample": "^", "rescored": "s"}


def _data(exploration: Mapping[str, Any] | Exploration) -> Mapping[str, Any]:
    return exploration if isinstance(exploration, Mapping) else exploration.to_dict()


class _Table:
    """The columns of an exploration with what the pictures ask of them."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        import numpy as np

        self.data = data
        self.fields = {(field.role == "mark", field.name): field for field in fields_of(data)}
        self.stages = self.mark("stage").values
        self.front = np.array(self.mark("front").values, dtype=bool)
        self.feasible = np.array(self.mark("feasible").values, dtype=bool)
        self.failed = np.array([bool(error) for error in self.mark("error").values], dtype=bool)
        self.main = str(data.get("main", "sweep"))
        self.objectives = [(self.fields[False, one["metric"]], one["direction"]) for one in data["objectives"]]

    def mark(self, name: str) -> Field:
        return self.fields[True, name]

    def of(self, role: str) -> list[Field]:
        return [field for field in self.fields.values() if field.role == role]

    def at(self, stage: str) -> np.ndarray[Any, np.dtype[np.bool_]]:
        import numpy as np

        return np.array([own == stage for own in self.stages], dtype=bool)

    @property
    def title(self) -> str:
        return str(self.data.get("name", "exploration"))


def _text(field: Field, value: float) -> str:
    if field.unit == "%":
        return f"{100 * value:.4g} %"
    if field.unit in ("mm²", "m²", ""):
        return f"{value:.4g} {field.unit}".rstrip()
    return si(value, field.unit)


def _figure(width: float, height: float, title: str, rows: int = 1, columns: int = 1, **grid: Any) -> tuple[Figure, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08)
    figure = Figure(figsize=(width, height), dpi=130, layout=layout, facecolor=PAPER)
    FigureCanvasAgg(figure)
    figure.suptitle(
        shorten(title, int(9 * width)), x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK, parse_math=False
    )
    axes = figure.subplots(rows, columns, squeeze=False, **grid)
    for ax in axes.flat:
        ax.set_facecolor(PAPER)
        ax.set_axisbelow(True)
        ax.grid(False)
        ax.tick_params(length=0, labelsize=8, colors=MUTED)
        for side in ("top", "right"):
            ax.spines[side].set_visible(False)
        for side in ("bottom", "left"):
            ax.spines[side].set_color(GRID)
    return figure, axes


def _source(figure: Figure, table: _Table, text: str = "") -> None:
    version = table.data.get("version", "")
    line = " · ".join(part for part in (text, f"{len(table.stages):,} trials", f"hwsim {version}".strip()) if part)
    wide = int(17 * figure.get_figwidth())
    figure.supxlabel("\n".join(textwrap.wrap(line, wide)), x=0.01, ha="left", fontsize=7, color=MUTED, parse_math=False)


def _scale(
    ax: Axes, field: Field, values: np.ndarray[Any, np.dtype[np.float64]], which: Literal["x", "y"], better: str = ""
) -> None:
    """Scale, marks and name of one axis."""
    import numpy as np
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

    axis = ax.xaxis if which == "x" else ax.yaxis
    known = values[np.isfinite(values)]
    if not field.ordered:
        axis.set_ticks(range(len(field.distinct)), [shorten(str(value), 18) for value in field.distinct])
    elif field.log:
        (ax.set_xscale if which == "x" else ax.set_yscale)("log")
        decades = float(np.log10(known.max() / known.min()))
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 2.2 else (1, 3) if decades < 3.5 else (1,), numticks=9))
        axis.set_minor_locator(NullLocator())
    else:
        axis.set_major_locator(MaxNLocator(5))
    if field.ordered:
        axis.set_major_formatter(FuncFormatter(lambda value, _: _text(field, value)))
        axis.set_minor_formatter(NullFormatter())
    note = {"min": " · less is better", "max": " · more is better", "": ""}[better]
    (ax.set_xlabel if which == "x" else ax.set_ylabel)(f"{field.label}{note}", fontsize=9, color=INK, parse_math=False)
    ax.grid(True, axis=which, color=GRID, linewidth=0.7)


def _staircase(
    x: np.ndarray[Any, np.dtype[np.float64]], y: np.ndarray[Any, np.dtype[np.float64]], signs: tuple[int, int]
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Those points (points, 2) of a front, in their order along it, that no other dominates in these two objectives."""
    import numpy as np

    order = np.lexsort((signs[1] * y, signs[0] * x))
    kept, best = [], np.inf
    for i in order.tolist():
        if signs[1] * y[i] < best:
            best = signs[1] * y[i]
            kept.append((x[i], y[i]))
    return np.array(kept, dtype=np.float64).reshape(-1, 2)


def _draw_pair(ax: Axes, table: _Table, first: tuple[Field, str], second: tuple[Field, str]) -> None:
    import numpy as np

    (a, to_a), (b, to_b) = first, second
    x, y = a.numbers, b.numbers
    known = np.isfinite(x) & np.isfinite(y)
    finest = "rescored" in table.stages
    many = int(known.sum())
    area = 26 if many < 400 else 12 if many < 4000 else 5
    for number, stage in enumerate(dict.fromkeys(table.stages)):
        own = known & table.at(stage) & ~table.front
        pale = 0.3 if finest and stage != "rescored" else 0.65
        colour = MUTED if stage == "random" else PALETTE[0] if stage == table.main else PALETTE[(2, 3, 4)[number % 3]]
        style: dict[str, Any] = {"marker": _MARKERS.get(stage, "o"), "s": area, "zorder": 2, "rasterized": many > 5000}
        good, bad = own & table.feasible, own & ~table.feasible
        ax.scatter(x[good], y[good], color=colour, alpha=pale, linewidths=0, label=stage if good.any() else None, **style)
        ax.scatter(x[bad], y[bad], facecolors="none", edgecolors=colour, alpha=0.8 * pale, linewidths=0.7, **style)
        if bad.any():
            ax.scatter(
                [], [], facecolors="none", edgecolors=colour, linewidths=0.7, marker=style["marker"], label=f"{stage}, infeasible"
            )
    _scale(ax, a, x, "x", to_a)
    _scale(ax, b, y, "y", to_b)
    on = known & table.front
    if on.any():
        signs = (1 if to_a == "min" else -1, 1 if to_b == "min" else -1)
        steps = _staircase(x[on], y[on], signs)
        limits = ax.get_xlim(), ax.get_ylim()
        ends = limits[0][1 if signs[0] > 0 else 0], limits[1][1 if signs[1] > 0 else 0]
        path = np.vstack([[steps[0, 0], ends[1]], steps, [ends[0], steps[-1, 1]]])
        ax.step(path[:, 0], path[:, 1], where="post", color=FRONT, linewidth=1.5, zorder=3)
        ax.set_xlim(limits[0])
        ax.set_ylim(limits[1])
        ax.scatter(x[on], y[on], color=FRONT, edgecolors=PAPER, linewidths=0.6, s=max(area, 22), zorder=4, label="on the front")


def plot_front(exploration: Mapping[str, Any] | Exploration) -> Figure:
    """Objectives against each other with the front; three or four of them in pairs. A single one against the trials.

    The line is the edge of what the front reaches in two objectives: steps, as nothing between two of its points has been shown
    to exist. Infeasible points are hollow; where the front was evaluated anew, the coarser figures are pale.

    Raises:
        InputError: damaged columns.
    """
    table = _Table(_data(exploration))
    chosen = table.objectives[:MOST_PAIRED]
    if len(chosen) < 2:
        return _plot_single(table)
    pairs = [(i, j) for j in range(1, len(chosen)) for i in range(j)]
    columns = min(3, len(pairs))
    rows = -(-len(pairs) // columns)
    figure, axes = _figure(
        7.2 if columns == 1 else 4.3 * columns, 4.8 if columns == 1 else 3.9 * rows, table.title, rows, columns
    )
    for ax, (i, j) in zip(axes.flat, pairs, strict=False):
        _draw_pair(ax, table, chosen[i], chosen[j])
    for ax in axes.flat[len(pairs) :]:
        ax.set_visible(False)
    _legend(axes.flat[0])
    text = f"{int(table.front.sum()):,} of {int(table.feasible.sum()):,} feasible points on the front"
    if len(table.objectives) > 2:
        text += f" of {len(table.objectives)} objectives; line: its edge in these two"
    if "rescored" in table.stages:
        text += "; pale: coarser figures"
    _source(figure, table, text)
    return figure


def _legend(ax: Axes) -> None:
    legend = ax.legend(frameon=True, framealpha=0.85, edgecolor=GRID, fontsize=7.5, loc="best")
    for entry in legend.get_texts():
        entry.set_color(INK)
        entry.set_parse_math(False)


def _plot_single(table: _Table) -> Figure:
    """One objective: what each trial came to, and the best so far."""
    import numpy as np

    figure, axes = _figure(7.2, 4.4, table.title)
    ax = axes[0, 0]
    field, direction = table.objectives[0]
    y, number = field.numbers, table.mark("trial").numbers
    for stage in dict.fromkeys(table.stages):
        own = table.at(stage) & table.feasible & np.isfinite(y)
        if not own.any():
            continue
        colour = MUTED if stage == "random" else PALETTE[0] if stage == table.main else PALETTE[2]
        ax.scatter(number[own], y[own], s=10, color=colour, alpha=0.5, linewidths=0, label=stage, marker=_MARKERS.get(stage, "o"))
        best = (np.minimum if direction == "min" else np.maximum).accumulate(y[own])
        ax.step(number[own], best, where="post", color=colour, linewidth=1.6)
    _scale(ax, field, y[table.feasible], "y", direction)
    ax.set_xlabel("trial", fontsize=9, color=INK)
    if table.feasible.any():
        _legend(ax)
    _source(figure, table, "lines: the best so far of each stage")
    return figure


def plot_parallel(exploration: Mapping[str, Any] | Exploration) -> Figure:
    """One axis a parameter or metric, one line a feasible point; the front above the others.

    Raises:
        InputError: damaged columns.
    """
    import numpy as np
    from matplotlib.collections import LineCollection

    table = _Table(_data(exploration))
    shown = [field for field in (*table.of("parameter"), *table.of("metric")) if len(field.distinct) > 1]
    figure, axes = _figure(max(6.0, 1.35 * len(shown)), 4.6, table.title)
    ax = axes[0, 0]
    ax.set_yticks([])
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(False)
    directions = {field.name: direction for field, direction in table.objectives}
    heights = np.array([_draw_axis(ax, at, field, directions.get(field.name, "")) for at, field in enumerate(shown)]).T
    heights = heights.reshape(len(table.stages), len(shown))
    others = np.flatnonzero(table.feasible & ~table.front)
    total = len(others) + int(table.front.sum())
    if len(others) > MOST_LINES:
        others = others[((np.arange(MOST_LINES) + 0.5) * len(others) / MOST_LINES).astype(int)]
    front = np.flatnonzero(table.front)
    across = np.arange(len(shown))
    for rows, colour, alpha, width, above in (
        (others, PALETTE[0], max(0.05, min(0.5, 4 / (len(others) + 1) ** 0.5)), 0.7, 1),
        (front, FRONT, 0.9 if len(front) < 80 else 0.5, 1.3, 2),
    ):
        segments = [np.column_stack([across, heights[i]]) for i in rows]
        ax.add_collection(LineCollection(segments, colors=colour, alpha=alpha, linewidths=width, zorder=above))
    ax.set_xlim(-0.25, len(shown) - 0.35)
    ax.set_ylim(-0.04, 1.06)
    ax.xaxis.tick_top()
    ax.set_xticks(across, ["\n".join(textwrap.wrap(field.label.replace("_", " "), 14)) for field in shown])
    for label, field in zip(ax.get_xticklabels(), shown, strict=True):
        label.set(color=INK, fontsize=8.5, fontweight="bold" if field.name in directions else "normal", parse_math=False)
    drawn = len(others) + len(front)
    count = f"{drawn:,} of {total:,} feasible points, evenly chosen" if drawn < total else f"{total:,} feasible points"
    _source(figure, table, f"{count}; orange: the front; bold: objectives")
    return figure


def _draw_axis(ax: Axes, at: int, field: Field, better: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Draw one axis of the parallel coordinates; gives the heights of all points on it, 0 to 1."""
    import numpy as np

    values = field.numbers
    log = field.log
    place = np.log10(values) if log else np.where(np.isfinite(values), values, np.nan)
    low, high = float(np.nanmin(place)), float(np.nanmax(place))
    span = (high - low) or 1.0
    ax.plot([at, at], [0, 1], color=MUTED, linewidth=0.9, zorder=3)
    distinct = field.distinct
    # Too many names: some of the values, evenly chosen; round places of an axis where values hardly repeat.
    chosen = list(range(len(distinct)))
    if len(distinct) > MOST_MARKS:
        chosen = np.linspace(0, len(distinct) - 1, 5).round().astype(int).tolist()
    if field.ordered and len(distinct) > MOST_REPEATED:
        marks = [((p - low) / span, _text(field, 10**p if log else p)) for p in np.linspace(low, high, 5).tolist()]
    elif field.ordered:
        numbers = [distinct[i] for i in chosen if np.isfinite(distinct[i])]
        marks = [((float(np.log10(v) if log else v) - low) / span, _text(field, v)) for v in numbers]
    else:
        marks = [((i - low) / span, shorten(str(distinct[i]), 16)) for i in chosen]
    for height, text in marks:
        ax.annotate(
            text, (at, height), xytext=(4, 0), textcoords="offset points", fontsize=6.8, va="center", color=INK, zorder=5,
            parse_math=False, bbox={"facecolor": PAPER, "alpha": 0.72, "linewidth": 0, "pad": 0.6},
        )  # fmt: skip
    if better:
        arrow = "↓ better" if better == "min" else "↑ better"
        ax.text(at, -0.035, arrow, ha="center", va="top", fontsize=7, color=MUTED)
    heights: np.ndarray[Any, np.dtype[np.float64]] = (place - low) / span
    return heights


def plot_sensitivity(exploration: Mapping[str, Any] | Exploration, *, seed: int = 0) -> Figure:
    """Share of each metric's variance that each parameter explains by itself, with 95 % intervals where it was sampled.

    See ``exploration_sensitivity`` for the estimator; ``seed`` is that of the bootstrap.

    Raises:
        InputError: damaged columns.
    """
    data = _data(exploration)
    table = _Table(data)
    found = sensitivity(data, seed=seed)
    labels = {field.name: field.label for field in table.fields.values() if field.role != "mark"}
    metrics = list(dict.fromkeys(effect.metric for effect in found.effects))
    parameters = list(dict.fromkeys(effect.parameter for effect in found.effects))
    columns = min(3, max(1, len(metrics)))
    rows = max(1, -(-len(metrics) // columns))
    height = 1.1 + rows * (0.75 + 0.24 * max(1, len(parameters)))
    figure, axes = _figure(max(6.0, 3.9 * columns), height, f"{table.title}: what matters", rows, columns)
    for ax in axes.flat[max(1, len(metrics)) :]:
        ax.set_visible(False)
    if not metrics:
        axes[0, 0].set_axis_off()
    for ax, metric in zip(axes.flat, metrics, strict=False):
        own = sorted((effect for effect in found.effects if effect.metric == metric), key=lambda effect: effect.effect)
        across = range(len(own))
        ax.barh(across, [100 * effect.effect for effect in own], height=0.68, color=PALETTE[0])
        for y, effect in enumerate(own):
            end = effect.effect
            if effect.low is not None and effect.high is not None:
                ax.plot([100 * effect.low, 100 * effect.high], [y, y], color=INK, linewidth=1.2, marker="|", markersize=5)
                end = effect.high
            text = f"{100 * effect.effect:.1f} %"
            ax.annotate(text, (100 * end, y), xytext=(4, 0), textcoords="offset points", va="center", fontsize=7, color=MUTED)
        ax.set_yticks(across, [shorten(labels[effect.parameter], 24) for effect in own])
        for label in ax.get_yticklabels():
            label.set(color=INK, parse_math=False)
        ax.set_xlim(0, 118)
        ax.set_xticks(range(0, 101, 25), [f"{value} %" for value in range(0, 101, 25)])
        ax.grid(True, axis="x", color=GRID, linewidth=0.7)
        what = labels[metric] + (" (logarithm)" if own[0].log else "")
        ax.set_title(what, loc="left", fontsize=9.5, color=INK, parse_math=False)
    _source(figure, table, found.note)
    return figure


def plot_hypervolume(exploration: Mapping[str, Any] | Exploration) -> Figure | None:
    """Share of the box between best values and reference point that the front dominates, against trials: the search beside random
    configurations. None where the exploration has no history.

    Raises:
        InputError: damaged columns.
    """
    import numpy as np

    data = _data(exploration)
    history: Mapping[str, Sequence[Sequence[float]]] = data.get("history") or {}
    stages = [stage for stage, points in history.items() if len(points) > 1]
    if not stages:
        return None
    table = _Table(data)
    figure, axes = _figure(7.2, 4.0, f"{table.title}: hypervolume against trials")
    ax = axes[0, 0]
    ends = []
    for number, stage in enumerate(sorted(stages, key=lambda stage: stage == "random")):
        points = np.array(history[stage], dtype=np.float64)
        colour = MUTED if stage == "random" else PALETTE[0] if stage == table.main else PALETTE[(2, 3, 4)[number % 3]]
        dashes = "--" if stage == "random" else "-"
        ax.plot(points[:, 0], points[:, 1], color=colour, linewidth=1.8, linestyle=dashes, drawstyle="steps-post", label=stage)
        ends.append((points[-1, 1], points[-1, 0], f"{stage} {points[-1, 1]:.4f}", colour))
    low, high = ax.get_ylim()
    last = -np.inf
    for value, trials, text, colour in sorted(ends):
        last = max(value, last + 0.055 * (high - low))  # one name above the other where lines end together
        ax.annotate(
            text, (trials, last), xytext=(5, 0), textcoords="offset points", color=colour, fontsize=8.5, va="center",
            annotation_clip=False,
        )  # fmt: skip
    ax.set_xlim(0, 1.24 * max(end[1] for end in ends))
    ax.set_xlabel("trials of the stage", fontsize=9, color=INK)
    ax.set_ylabel("hypervolume · more is better", fontsize=9, color=INK)
    ax.grid(True, color=GRID, linewidth=0.7)
    reference = ", ".join(f"{name} {value:.4g}" for name, value in (data.get("reference") or {}).items())
    _source(figure, table, f"share of the box between the best values and the reference point ({reference})")
    return figure


def plot_all(exploration: Mapping[str, Any] | Exploration, folder: str | Path) -> list[Path]:
    """Write ``front.png``, ``parallel.png``, ``sensitivity.png``, and ``hypervolume.png`` where there is a history, into a folder
    that is there; gives the paths.

    Raises:
        InputError: damaged columns.
    """
    data = _data(exploration)
    figures = {
        "front": plot_front(data),
        "parallel": plot_parallel(data),
        "sensitivity": plot_sensitivity(data),
        "hypervolume": plot_hypervolume(data),
    }
    written = []
    for name, figure in figures.items():
        if figure is not None:
            written.append(Path(folder) / f"{name}.png")
            figure.savefig(written[-1])
    return written
