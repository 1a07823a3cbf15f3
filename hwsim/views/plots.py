"""Reports as pictures: each function returns a ``matplotlib.figure.Figure`` free of global state."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hwsim.report import OpCost, Report
from hwsim.views.rows import (
    PARTS,
    Row,
    comparison_labels,
    comparison_rows,
    origin_text,
    picture_rows,
    source_text,
)
from hwsim.views.style import GRID, INK, MUTED, PALETTE, PAPER, PART_COLOURS, component_joules, components
from hwsim.views.units import axis_scale, counted, percent, shorten, si

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_IN = 10.0
ROW_IN = 0.23
NAME_CHARACTERS = 36
_SMALL = 8.0


def _figure(height_in: float, *, title: str, source: str, rows: int = 1, **grid: Any) -> tuple[Figure, Any]:
    """A figure and its axes, with a title at the top left and the source at the bottom left."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(
        figsize=(WIDTH_IN, height_in),
        dpi=130,
        layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08, hspace=0.02),
        facecolor=PAPER,
    )
    FigureCanvasAgg(figure)
    left = {"x": 0.01, "ha": "left", "parse_math": False}
    figure.suptitle(shorten(title, 90), fontsize=13, fontweight="bold", color=INK, **left)
    text = "\n".join(textwrap.wrap(shorten(source, 400), 165))
    figure.supxlabel(text, fontsize=7, color=MUTED, **left)
    axes = figure.subplots(rows, **grid)
    for ax in axes if rows > 1 or grid.get("ncols", 1) > 1 else [axes]:
        _style(ax)
    return figure, axes


def _style(ax: Axes) -> None:
    """Quiet axes: light grid along x, no box."""
    ax.set_facecolor(PAPER)
    ax.set_axisbelow(True)
    ax.grid(False)  # whatever the user's settings say
    ax.grid(axis="x", color=GRID, linewidth=0.8)
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    ax.spines["bottom"].set_color(GRID)
    ax.tick_params(axis="both", length=0, labelsize=_SMALL, colors=INK)
    ax.xaxis.label.set_color(INK)


def _subtitle(ax: Axes, text: str, *, characters: int = 130) -> None:
    ax.set_title("\n".join(textwrap.wrap(text, characters)), loc="left", fontsize=9, color=MUTED, parse_math=False)


def _legend(ax: Axes, colours: Mapping[str, str]) -> None:
    """What the colours mean, above the right end of the axes."""
    from matplotlib.patches import Patch

    handles = [Patch(color=colour, label=name.replace("_", " ")) for name, colour in colours.items()]
    legend = ax.legend(
        handles=handles,
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        ncols=len(handles),
        frameon=False,
        fontsize=_SMALL,
        handlelength=1.0,
        handleheight=1.0,
        columnspacing=1.2,
        borderaxespad=0.2,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
        text.set_color(INK)


def _stacked(ax: Axes, segments: Mapping[str, Sequence[float]], colours: Mapping[str, str], *, height: float = 0.72) -> None:
    """Horizontal bars of ``segments`` (name → one width a bar), the first bar at the top."""
    left: list[float] = []
    for name, widths in segments.items():
        left = left or [0.0] * len(widths)
        ax.barh(
            range(len(widths)),
            widths,
            left=left,
            height=height,
            color=colours[name],
            edgecolor=PAPER,
            linewidth=0.3,
        )
        left = [a + b for a, b in zip(left, widths, strict=True)]


def _name_bars(ax: Axes, labels: Sequence[str]) -> None:
    """Write the names of the bars, one tick each."""
    ax.set_yticks(range(len(labels)), [shorten(label, NAME_CHARACTERS) for label in labels])
    for text in ax.get_yticklabels():
        text.set_parse_math(False)
    ax.set_ylim(len(labels) - 0.4, -0.6)


def _ends(ax: Axes, ends: Sequence[float], texts: Sequence[str], *, inches: float = 6.5) -> None:
    """Write ``texts`` just past the ends of the bars and make room for them on axes about ``inches`` wide."""
    room = [end / max(0.3, 1 - (0.058 * len(text) + 0.1) / inches) for end, text in zip(ends, texts, strict=True)]
    ax.set_xlim(0, max(room, default=0.0) or 1.0)
    for y, (end, text) in enumerate(zip(ends, texts, strict=True)):
        ax.annotate(
            text,
            (end, y),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=7,
            color=MUTED,
            parse_math=False,
        )


def _message(ax: Axes, text: str) -> None:
    """Say why there is nothing to draw."""
    ax.grid(False)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color=MUTED, parse_math=False)


def _height(bars: int) -> float:
    """Inches for that many bars and what surrounds them."""
    return max(2.6, 1.5 + ROW_IN * bars)


def _fusion(row: Row) -> str:
    """Why a bar is short or absent, for one operator that works on another's results."""
    host = row.ops[0].fused_with if len(row.ops) == 1 else ""
    return f" · fused with {shorten(host, 24)}" if host else ""


def plot_time(report: Report) -> Figure:
    """Time of each operator in execution order, split into compute, stall and overhead.

    More than 60 operators are grouped by module; the title says so.
    """
    rows, how = picture_rows(report)
    figure, ax = _figure(_height(len(rows)), title=f"Time of {report.workload} on {report.device}", source=source_text(report))
    total = report.time_s
    _subtitle(ax, f"{si(total, 's')} in all, in execution order" + (f"; {how}" if how else ""), characters=75)
    if not rows:
        _message(ax, "no operators")
        return figure
    factor, unit = axis_scale(max(row.time_s for row in rows), "s")
    segments = {part: [row.parts_s[i] * factor for row in rows] for i, part in enumerate(PARTS)}
    _stacked(ax, segments, PART_COLOURS)
    _name_bars(ax, [row.label for row in rows])
    texts = [percent(row.time_s / total if total else 0.0) + _fusion(row) for row in rows]
    _ends(ax, [row.time_s * factor for row in rows], texts)
    ax.set_xlabel(f"time ({unit})", fontsize=9)
    _legend(ax, PART_COLOURS)
    return figure


def plot_energy(report: Report) -> Figure:
    """Energy by component: the totals above, which serve as legend, and each operator (or module) below."""
    rows, how = picture_rows(report)
    colours = components([report.energy_by_component_j])
    above, below = max(1, len(colours)), max(1, len(rows))
    figure, (top, ax) = _figure(
        _height(above + below) + 1.0,
        title=f"Energy of {report.workload} on {report.device}",
        source=source_text(report),
        rows=2,
        height_ratios=[above + 0.6, below + 0.6],
    )
    total = report.energy_j
    _subtitle(top, f"{si(report.known_energy_j, 'J')} in all, {si(report.average_power_w, 'W')} on average; by component")
    _subtitle(ax, "By operator in execution order" + (f"; {how}" if how else ""))
    if not rows or total <= 0:
        _message(top, "no energy")
        _message(ax, "no operators" if not rows else "no energy")
        return figure

    joules = {c: component_joules(report.energy_by_component_j, c, colours) for c in colours}
    factor, unit = axis_scale(max(joules.values()), "J")
    ends = [value * factor for value in joules.values()]
    top.barh(range(len(ends)), ends, height=0.72, color=[colours[c] for c in joules])
    _name_bars(top, [c.replace("_", " ") for c in joules])
    _ends(top, ends, [f"{si(value, 'J')} · {percent(value / total)}" for value in joules.values()])
    top.set_xlabel(f"energy ({unit})", fontsize=9)

    energies = [row.energy_j for row in rows]
    sums = [sum(energy.values()) for energy in energies]
    factor, unit = axis_scale(max(sums), "J")
    segments = {c: [component_joules(e, c, colours) * factor for e in energies] for c in colours}
    _stacked(ax, segments, colours)
    _name_bars(ax, [row.label for row in rows])
    _ends(ax, [value * factor for value in sums], [percent(value / total) for value in sums])
    ax.set_xlabel(f"energy ({unit})", fontsize=9)
    return figure


@dataclass(frozen=True)
class _Point:
    """Operators that lie on the same spot of the roofline."""

    ops: tuple[OpCost, ...]
    intensity: float
    rate: float

    @property
    def time_s(self) -> float:
        return sum(op.time_s for op in self.ops)

    @property
    def label(self) -> str:
        name = shorten(self.ops[0].name, 28)
        return name if len(self.ops) == 1 else f"{name} (×{len(self.ops)})"


def _with_fused(op: OpCost, report: Report) -> OpCost:
    """An operator with the time and bytes of those fused with it: they share one stretch of time, whoever's bytes come first."""
    others = [other for other in report.ops if other.fused_with == op.name]
    if not others:
        return op
    together = (op, *others)
    parts = {f"{p}_cycles": sum(getattr(o, f"{p}_cycles") for o in together) for p in ("compute", "stall", "overhead")}
    return replace(
        op,
        time_s=sum(o.time_s for o in together),
        cycles=sum(o.cycles for o in together),
        bytes={**op.bytes, "off_chip": sum(o.bytes_offchip for o in together)},
        **parts,
    )


def _points(ops: Sequence[OpCost]) -> list[_Point]:
    """Spots of the roofline, the slowest first; operators within 2 % of each other share one.

    Without bytes the intensity is infinite.
    """
    spots: dict[tuple[str, int | None, int], list[OpCost]] = {}
    for op in ops:
        across = round(math.log(op.macs / op.bytes_offchip, 1.02)) if op.bytes_offchip else None
        spots.setdefault((op.kind, across, round(math.log(op.macs / op.time_s, 1.02))), []).append(op)
    points = []
    for together in spots.values():
        moved = sum(op.bytes_offchip for op in together)
        macs = sum(op.macs for op in together)
        rate = macs / sum(op.time_s for op in together)
        points.append(_Point(tuple(together), macs / moved if moved else math.inf, rate))
    return sorted(points, key=lambda p: -p.time_s)


def _label_points(figure: Figure, ax: Axes, spots: Sequence[tuple[float, float, float, str]], taken: Sequence[Any]) -> None:
    """Write each (x, y, marker area, label) beside its marker, where one of the places tried is free."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.transforms import Bbox

    figure.draw_without_rendering()
    renderer = FigureCanvasAgg(figure).get_renderer()
    frame = ax.get_window_extent(renderer)
    pixels = figure.dpi / 72
    markers = []
    for x, y, area, _ in spots:
        cx, cy = ax.transData.transform((x, y))
        r = math.sqrt(area) / 2 * pixels
        markers.append(Bbox.from_extents(cx - r, cy - r, cx + r, cy + r))
    occupied = [artist.get_window_extent(renderer) for artist in taken]
    for line in ax.lines:
        (x0, y0), (x1, y1) = ax.transData.transform(line.get_xydata())
        steps = [i / 200 for i in range(201)]
        along = [(x0 + (x1 - x0) * t, y0 + (y1 - y0) * t) for t in steps]
        occupied += [Bbox.from_extents(x - 2, y - 2, x + 2, y + 2) for x, y in along]
    for index, (x, y, area, label) in enumerate(spots):
        if not label:
            continue
        gap = math.sqrt(area) / 2 + 3
        places = [
            (gap, 0, "left", "center"),
            (-gap, 0, "right", "center"),
            (0, gap, "center", "bottom"),
            (0, -gap, "center", "top"),
            (gap, 10, "left", "bottom"),
            (gap, -10, "left", "top"),
            (-gap, 10, "right", "bottom"),
            (-gap, -10, "right", "top"),
            (gap, -22, "left", "top"),
            (-gap, 22, "right", "bottom"),
            (gap, -34, "left", "top"),
        ]
        text = ax.annotate(
            label,
            (x, y),
            xytext=(gap, 0),
            textcoords="offset points",
            fontsize=_SMALL,
            color=INK,
            parse_math=False,
        )
        for dx, dy, ha, va in places:
            text.set(position=(dx, dy), ha=ha, va=va)
            box = text.get_window_extent(renderer)
            inside = box.x0 >= frame.x0 and box.x1 <= frame.x1 and box.y0 >= frame.y0 and box.y1 <= frame.y1
            others = markers[:index] + markers[index + 1 :]
            if inside and not any(box.overlaps(other) for other in [*occupied, *others]):
                occupied.append(box)
                break
        else:
            text.remove()


def plot_roofline(report: Report, *, labelled: int = 6) -> Figure:
    """Achieved MACs a second over MACs per off-chip byte, under the device's ceilings.

    After Williams, Waterman and Patterson, "Roofline", CACM 52(4), 2009. The area of a point grows with its
    time and the ``labelled`` slowest have names. Operators without MACs, and those hidden behind others, are
    left out; the title says how many.
    """
    from matplotlib.ticker import LogLocator

    figure, ax = _figure(6.2, title=f"Roofline of {report.workload} on {report.device}", source=source_text(report))
    drawn = [_with_fused(op, report) for op in report.ops if op.macs > 0 and op.time_s > 0]
    left_out = [op for op in report.ops if op.macs <= 0]
    hidden = len(report.ops) - len(drawn) - len(left_out)
    notes = ["The larger a point, the longer its time"]
    if left_out:
        share = percent(sum(op.time_s for op in left_out) / report.time_s) if report.time_s else "0 %"
        notes.append(f"{counted(len(left_out), 'operator')} without MACs left out ({share} of the time)")
    if hidden:
        notes.append(f"{counted(hidden, 'operator')} hidden behind others left out")
    if not drawn:
        _subtitle(ax, "; ".join(notes[1:]))
        _message(ax, "no operator with multiply-accumulates takes time")
        return figure

    peak, bandwidth = report.peak_macs_per_s, report.offchip_bandwidth_bytes_per_s
    has_peak = 0 < peak < math.inf
    has_bandwidth = 0 < bandwidth < math.inf
    points = _points(drawn)
    finite = [p.intensity for p in points if p.intensity < math.inf]
    ridge = peak / bandwidth if has_peak and has_bandwidth else None
    spread = finite + ([ridge] if ridge else []) or [1.0]
    low, high = min(spread) / 4, max(spread) * 6
    rates = [p.rate for p in points] + ([peak] if has_peak else [])
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlim(low, high)
    lowest = min([*(p.rate for p in points), *([bandwidth * min(spread)] if ridge else [])])
    ax.set_ylim(lowest / 2.5, max(rates) * 2.5)
    ax.grid(axis="both", which="major", color=GRID, linewidth=0.8)
    ax.minorticks_off()
    for axis, (least, largest) in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
        decades = math.log10(largest / least)
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 2.5 else (1,), numticks=20))

    taken = []
    line = {"color": INK, "linewidth": 1.6, "zorder": 2}
    if has_peak:
        ax.plot([ridge or low, high], [peak, peak], **line)
        taken.append(
            ax.annotate(
                f"peak {si(peak, 'MAC/s')}",
                (high, peak),
                xytext=(-4, 4),
                textcoords="offset points",
                ha="right",
                va="bottom",
                fontsize=_SMALL,
                color=INK,
            )
        )
    if has_bandwidth:
        end = ridge or high
        ax.plot([low, end], [bandwidth * low, bandwidth * end], **line)
        figure.draw_without_rendering()
        bottom = max(low, ax.get_ylim()[0] / bandwidth)
        middle = math.sqrt(bottom * end)
        (x0, y0), (x1, y1) = ax.transData.transform([(bottom, bandwidth * bottom), (end, bandwidth * end)])
        taken.append(
            ax.annotate(
                f"off-chip {si(bandwidth, 'B/s')}",
                (middle, bandwidth * middle),
                xytext=(-5, 5),
                textcoords="offset points",
                ha="center",
                va="center",
                rotation=math.degrees(math.atan2(y1 - y0, x1 - x0)),
                rotation_mode="anchor",
                fontsize=_SMALL,
                color=INK,
            )
        )

    kinds = list(dict.fromkeys(p.ops[0].kind for p in points))
    colours = {kind: PALETTE[i % len(PALETTE)] for i, kind in enumerate(kinds)}
    slowest = points[0].time_s
    spots = []
    for index, point in enumerate(points):
        onchip = point.intensity == math.inf
        x = high / 1.4 if onchip else point.intensity
        area = 22 + 420 * point.time_s / slowest
        ax.scatter(
            [x],
            [point.rate],
            s=area,
            color=colours[point.ops[0].kind],
            marker=">" if onchip else "o",
            alpha=0.8,
            edgecolors=PAPER,
            linewidths=0.8,
            zorder=3,
        )
        spots.append((x, point.rate, area, point.label if index < labelled else ""))
    if any(p.intensity == math.inf for p in points):
        notes.append("▸ at the right edge: no off-chip bytes")
    if has_peak and any(p.rate > 1.01 * peak for p in points):
        notes.append("points above the peak compute in a faster format than most MACs do")
    _subtitle(ax, "; ".join(notes))
    ax.set_xlabel("operational intensity (MAC per off-chip byte)", fontsize=9)
    ax.set_ylabel("achieved rate (MAC/s)", fontsize=9, color=INK)
    ax.xaxis.set_major_formatter(lambda value, _: si(value))
    ax.yaxis.set_major_formatter(lambda value, _: si(value))
    for side in ("bottom", "left"):
        ax.spines[side].set_visible(True)
        ax.spines[side].set_color(MUTED)
    _legend_below(ax, colours)
    _label_points(figure, ax, spots, taken)
    return figure


def _legend_below(ax: Axes, colours: Mapping[str, str]) -> None:
    """A legend in the corner of a roofline that its ceilings leave empty."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], marker="o", linestyle="", color=c, label=k.replace("_", " ")) for k, c in colours.items()]
    legend = ax.legend(handles=handles, loc="lower right", fontsize=_SMALL, frameon=True, edgecolor=GRID, facecolor=PAPER)
    for text in legend.get_texts():
        text.set_parse_math(False)
        text.set_color(INK)


def _legend_under(ax: Axes, figure: Figure, colours: Mapping[str, str]) -> None:
    """What the colours mean, a fixed distance under the axes so that it clears their label."""
    from matplotlib.patches import Patch
    from matplotlib.transforms import ScaledTranslation

    handles = [Patch(color=colour, label=name.replace("_", " ")) for name, colour in colours.items()]
    legend = ax.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(0.0, 0.0),
        ncols=2 if len(handles) > 3 else 1,
        frameon=False,
        bbox_transform=ax.transAxes + ScaledTranslation(0, -34 / 72, figure.dpi_scale_trans),
        fontsize=7.5,
        handlelength=1.0,
        handleheight=1.0,
        columnspacing=1.2,
        borderaxespad=0.0,
        borderpad=0.0,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
        text.set_color(INK)


def plot_comparison(reports: Sequence[Report]) -> Figure:
    """Latency, energy and off-chip traffic of several reports side by side.

    Raises:
        InputError: no reports.
    """
    data = comparison_rows(reports)
    colours = components([r.energy_by_component_j for r in reports])
    plans: list[tuple[str, str, str, Mapping[str, Sequence[float]], Mapping[str, str]]] = [
        ("Latency", "s", "time_s", {p: [row[f"{p}_s"] for row in data] for p in PARTS}, PART_COLOURS),
        (
            "Energy",
            "J",
            "energy_j",
            {c: [component_joules(r.energy_by_component_j, c, colours) for r in reports] for c in colours},
            colours,
        ),
        (
            "Off-chip traffic",
            "B",
            "bytes_offchip",
            {"moved": [row["bytes_offchip"] for row in data]},
            {"moved": PALETTE[2]},
        ),
    ]
    workloads = list(dict.fromkeys(r.workload for r in reports))
    what = workloads[0] if len(workloads) == 1 else counted(len(workloads), "workload")
    origins = dict.fromkeys(f"{r.device}: {r.fidelity}, {origin_text(r)}" for r in reports)
    legend_rows = max(3, (len(colours) + 1) // 2)
    figure, panels = _figure(
        1.6 + 0.36 * len(reports) + 0.17 * legend_rows + 0.1 * (len(" | ".join(origins)) // 165),
        title=f"{what}: {counted(len(reports), 'report')} compared",
        source=f"hwsim {reports[0].version} · " + " | ".join(origins),
        ncols=3,
        sharey=True,
    )
    for ax, (title, unit, key, segments, paint) in zip(panels, plans, strict=True):
        values = [float(row[key] or 0.0) for row in data]
        factor, scaled = axis_scale(max(values), unit)
        _stacked(ax, {name: [v * factor for v in widths] for name, widths in segments.items()}, paint, height=0.62)
        texts = [si(row[key], unit) for row in data]
        if key == "time_s":
            relative = [row["relative_time"] for row in data]
            texts = [t if r is None else f"{t} · {r:.2f}×" for t, r in zip(texts, relative, strict=True)]
        _ends(ax, [value * factor for value in values], texts, inches=2.4)
        ax.set_xlabel(f"{title.lower()} ({scaled})", fontsize=9)
        ax.set_title(title, loc="left", fontsize=10, color=INK)
        if len(paint) > 1:
            _legend_under(ax, figure, paint)
    _name_bars(panels[0], comparison_labels(reports))
    return figure
