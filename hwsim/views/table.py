"""Reports as tables for the terminal."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from hwsim.report import OpCost, Report
from hwsim.views.rows import ORIGINS, PARTS, comparison_rows, parts_s, slowest, total_parts_s
from hwsim.views.units import counted, percent, shorten, si

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

WIDTH_OF_FILES = 120
"""Columns where the output is no terminal and so has no width of its own."""

_MARGIN = 14
_BLOCKS = " ▏▎▍▌▋▊▉█"
_STYLES = {"compute": "blue", "stall": "yellow", "overhead": "bright_black"}


def _bar(fraction: float, width: int) -> str:
    """A bar of ``width`` characters filled to ``fraction``, in eighths of a character."""
    eighths = round(min(max(fraction, 0.0), 1.0) * width * 8)
    whole, rest = divmod(eighths, 8)
    return (_BLOCKS[8] * whole + (_BLOCKS[rest] if rest else "")).ljust(width)


def console_for(console: Console | None) -> Console:
    from rich.console import Console

    if console is not None:
        return console
    return Console() if sys.stdout.isatty() else Console(width=WIDTH_OF_FILES)


@dataclass(frozen=True)
class _Column:
    """A column of the table of operators; where room is short, those with the highest ``drop`` go first."""

    title: str
    text: Callable[[OpCost], str]
    drop: int = 0
    style: str = ""
    left: bool = False


def _columns(report: Report) -> list[_Column]:
    """The columns next to the operators' names."""
    known_time, known_energy = report.known_time_s is not None, report.known_energy_j is not None
    total = report.time_s or 1.0
    longest = max((op.time_s for op in report.ops), default=0.0) or 1.0

    def part(index: int) -> Callable[[OpCost], str]:
        return lambda op: f"{100 * parts_s(op)[index] / op.time_s:.0f} %" if op.time_s > 0 else "–"

    return [
        _Column("kind", lambda op: shorten(op.kind, 14), drop=4, style="dim", left=True),
        _Column("format", lambda op: shorten(op.format, 14), drop=3, style="dim", left=True),
        _Column("unit", lambda op: shorten(op.unit, 8), drop=6, style="dim", left=True),
        _Column("MACs", lambda op: si(op.macs) if op.macs else "–"),
        _Column("time", lambda op: si(op.time_s if known_time else None, "s"), style="bold"),
        _Column("share", lambda op: percent(op.time_s / total) if known_time else "–"),
        _Column("", lambda op: _bar(op.time_s / longest, 8), drop=5, style="cyan", left=True),
        _Column("comp", part(0), drop=1, style=_STYLES["compute"]),
        _Column("stall", part(1), style=_STYLES["stall"]),
        _Column("ovhd", part(2), drop=1, style=_STYLES["overhead"]),
        _Column("off-chip", lambda op: si(op.bytes_offchip, "B")),
        _Column("energy", lambda op: si(op.energy_total_j if known_energy else None, "J")),
        _Column("util", lambda op: percent(op.utilization) if op.macs else "–", drop=2),
    ]


def _mark(op: OpCost) -> str:
    """``+`` for an operator that works on another's results, ``!`` for one without a model."""
    mark = ("+" if op.fused_with else "") + ("" if op.modelled else "!")
    return f" {mark}" if mark else ""


def _operators(report: Report, shown: Sequence[OpCost], width: int) -> Table:
    """The table of ``shown``: the columns that fit into ``width`` beside names of a readable length."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    columns = _columns(report)
    cells = [[c.text(op) for op in shown] for c in columns]
    widths = [max([len(c.title), *map(len, texts)]) for c, texts in zip(columns, cells, strict=True)]
    names = max([8, *(len(op.name + _mark(op)) for op in shown)])
    least = min(names, 20)
    kept = list(range(len(columns)))
    gap = 2
    while sum(widths[i] + gap for i in kept) + least > width:
        if gap == 2:
            gap = 1
            continue
        last = max(kept, key=lambda i: columns[i].drop)
        if not columns[last].drop:
            break
        kept.remove(last)
        gap = 2
    room = max(8, min(names, width - sum(widths[i] + gap for i in kept)))

    # The box draws one space between columns; the second comes from padding.
    table = Table(box=box.SIMPLE_HEAD, padding=(0, gap - 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("operator", width=room, no_wrap=True)
    for i in kept:
        justify: Literal["left", "right"] = "left" if columns[i].left else "right"
        table.add_column(columns[i].title, width=widths[i], no_wrap=True, justify=justify, style=columns[i].style)
    for row, op in enumerate(shown):
        name = Text(shorten(op.name, room - len(_mark(op)))).append(_mark(op), style="yellow")
        table.add_row(name, *(Text(cells[i][row]) for i in kept))
    return table


def _fields(report: Report) -> list[tuple[str, str]]:
    """The totals and what a reader must know about them: title, text."""
    total, energy = report.time_s or 1.0, report.energy_j
    origin = {key: report.origin.get(key, "of unknown origin") for key in ("time", "energy")}
    parts = zip(PARTS, total_parts_s(report.ops), strict=True)
    split = ", ".join(f"{percent(seconds / total)} {name}" for name, seconds in parts)
    ranked = sorted(report.energy_by_component_j.items(), key=lambda item: -item[1])
    components = ", ".join(f"{percent(joules / energy)} {name.replace('_', ' ')}" for name, joules in ranked) if energy else ""
    fields = [
        (
            "latency",
            "unknown"
            if report.known_time_s is None
            else f"{si(report.time_s, 's')} ({si(report.cycles)} cycles), {origin['time']}: {split}",
        ),
        (
            "energy",
            "unknown"
            if report.known_energy_j is None
            else f"{si(energy, 'J')}, {origin['energy']}" + (f": {components}" if components else ""),
        ),
        ("average power", si(report.average_power_w, "W")),
        ("work", f"{si(report.macs, 'MAC')}, {percent(report.utilization)} utilization"),
        ("off-chip", f"{si(report.bytes_offchip, 'B')} moved"),
    ]
    if report.peak_memory_bytes:
        roles = ", ".join(f"{si(n, 'B')} {role}" for role, n in report.peak_memory_bytes.items())
        fields.append(("peak memory", f"{si(sum(report.peak_memory_bytes.values()), 'B')} live: {roles}"))
    if any(op.fused_with for op in report.ops):
        fields.append(("+", "works on the results of the operator it is fused with as they come"))
    if report.unmodelled:
        names = ", ".join(shorten(name, 40) for name in report.unmodelled[:8])
        more = f" and {len(report.unmodelled) - 8} more" if len(report.unmodelled) > 8 else ""
        fields.append(("! unmodelled", f"charged for their bytes only: {names}{more}"))
    fields += [("" if index else "notes", note) for index, note in enumerate(report.notes)]
    labels = "; ".join(ORIGINS[o] for o in dict.fromkeys(report.origin.values()) if o in ORIGINS)
    return [*fields, ("labels", labels)] if labels else fields


def print_report(report: Report, *, most: int | None = None, console: Console | None = None) -> None:
    """Print the operators and the totals; ``most`` limits the table to the slowest, in execution order.

    Raises:
        InputError: ``most`` is less than 1.
    """
    from rich.console import Group, RenderableType
    from rich.text import Text

    shown, others = slowest(report, most)
    console = console_for(console)
    width = console.width
    lines: list[RenderableType] = [Text(shorten(f"{report.workload} on {report.device}", width), style="bold")]
    setting = (report.recipe, report.fidelity, f"{si(report.clock_hz, 'Hz')} clock")
    lines.append(Text(shorten(" · ".join(x for x in setting if x), width), style="dim"))
    lines.append(_operators(report, shown, width))
    if others:
        share = percent(sum(op.time_s for op in others) / (report.time_s or 1.0))
        lines.append(Text(f"… {counted(len(others), 'more operator')}, {share} of the time", style="dim"))
    lines.append(Text())
    for title, text in _fields(report):
        wrapped = textwrap.wrap(text, max(20, width - _MARGIN), break_on_hyphens=False)
        for index, line in enumerate(wrapped):
            lines.append(Text(f"{title if index == 0 else '':<{_MARGIN}}", style="dim") + Text(line, style="not dim"))
    console.print(Group(*lines))  # one call: a notebook shows each call as an output of its own


def print_comparison(reports: Sequence[Report], console: Console | None = None) -> None:
    """Print several reports side by side, one row each.

    Raises:
        InputError: no reports.
    """
    from rich import box
    from rich.console import Group, RenderableType
    from rich.table import Table
    from rich.text import Text

    rows = comparison_rows(reports)
    console = console_for(console)
    workloads = list(dict.fromkeys(r.workload for r in reports))
    narrow = console.width < 110
    lines: list[RenderableType] = [Text(shorten(", ".join(workloads), console.width), style="bold")]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    table.add_column("device", overflow="fold", min_width=12)
    if len(workloads) > 1:
        table.add_column("workload", overflow="fold", min_width=10)
    for title in ("latency", "relative", "", "energy", "off-chip", "util"):
        if title or not narrow:
            table.add_column(title, no_wrap=True, justify="right" if title else "left", style="" if title else "cyan")
    table.add_column("recipe", overflow="fold", min_width=6)
    table.add_column("fidelity", overflow="fold", min_width=8)
    if not narrow:
        table.add_column("time, energy", min_width=21, style="dim")
    longest = max(row["time_s"] or 0.0 for row in rows) or 1.0
    for row in rows:
        relative = row["relative_time"]
        fastest = relative == 1.0
        cells = [shorten(row["device"], 24)]
        if len(workloads) > 1:
            cells.append(shorten(row["workload"], 60))
        cells += [si(row["time_s"], "s"), "–" if relative is None else f"{relative:.2f}×"]
        if not narrow:
            cells.append(_bar((row["time_s"] or 0.0) / longest, 10))
        cells += [si(row["energy_j"], "J"), si(row["bytes_offchip"], "B"), percent(row["utilization"])]
        cells += [shorten(row["recipe"], 16), row["fidelity"]]
        if not narrow:
            cells.append(f"{row['time_origin']}, {row['energy_origin']}")
        table.add_row(*(Text(cell) for cell in cells), style="bold" if fastest else "")
    lines.append(table)
    for report in reports:
        if report.unmodelled:
            text = f"{report.device}: {counted(len(report.unmodelled), 'operator')} charged for bytes only"
            lines.append(Text(shorten(text, console.width), style="dim"))
    console.print(Group(*lines))
