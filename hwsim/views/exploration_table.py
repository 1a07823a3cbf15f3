"""An exploration as a table in the terminal, and in a notebook with a picture of its front."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, Any

from hwsim.views.table import console_for
from hwsim.views.units import counted, shorten

if TYPE_CHECKING:
    from rich.console import Console

    from hwsim.explore.exploration import Exploration, Trial

_WIDTH, _HEIGHT, _EDGE = 460, 250, 44
_MOST_DOTS = 2000
_TITLES = {
    "name": "operator", "kind": "kind", "unit": "unit", "time_s": "time", "energy_j": "energy", "macs": "MACs",
    "bytes_offchip": "off-chip bytes", "utilization": "utilization",
}  # fmt: skip


def shown_columns(exploration: Exploration) -> list[str]:
    """Parameters, objectives, metrics under a constraint, in this order."""
    bounded = [bound.metric for bound in exploration.constraints]
    names = [*exploration.space.names, *(objective.metric for objective in exploration.objectives), *bounded]
    return list(dict.fromkeys(names))


def summary_lines(exploration: Exploration) -> list[str]:
    """How many configurations there are, how good the front is, and what a reader must know."""
    from hwsim.explore.exploration import STAGES
    from numerics.errors import InputError

    stages = {stage: [t for t in exploration.trials if t.stage == stage] for stage in STAGES}
    feasible = dict(zip((t.number for t in exploration.trials), exploration._feasible, strict=True))
    lines = []
    for stage, trials in stages.items():
        if not trials:
            continue
        good = sum(feasible[trial.number] for trial in trials)
        lines.append(f"{stage:<9} {counted(len(trials), 'configuration')}, {good:,} keep all constraints")
        if stage in ("search", "random"):
            try:
                lines[-1] += f", hypervolume {exploration.hypervolume(stage):.4f}"
            except InputError:  # moocore is optional
                continue
    for quality in exploration.predictors:
        rank = quality.get("spearman")
        if rank is not None:
            lines.append(f"predictor of {quality['metric']}: rank correlation {rank:.3f} on held-out configurations")
    return [*lines, *(f"note: {note}" for note in exploration.notes)]


def print_exploration(exploration: Exploration, *, most: int = 20, console: Console | None = None) -> None:
    """Print the front, the best by the first objective first, and what it was chosen from."""
    from rich.table import Table

    from hwsim.explore.exploration import readable

    out = console_for(console)
    front = exploration.front_trials
    sought = ", ".join(str(objective) for objective in exploration.objectives)
    kept = "".join(f", {bound}" for bound in exploration.constraints)
    out.print(f"{exploration.name}: {counted(len(front), 'configuration')} on the front ({sought}{kept})", markup=False)
    if front:
        columns = shown_columns(exploration)
        table = Table(box=None, pad_edge=False)
        table.add_column("trial", justify="right")
        for name in columns:
            table.add_column(shorten(name, 24), justify="right")
        for trial in front[:most]:
            table.add_row(str(trial.number), *(readable(name, trial.value(name)) for name in columns))
        out.print(table)
        if len(front) > most:
            out.print(f"… and {len(front) - most:,} more", markup=False)
    for line in summary_lines(exploration):
        out.print(line, markup=False, soft_wrap=True)


def exploration_html(exploration: Exploration, *, most: int = 12) -> str:
    """The front as a picture and a table; the styles are inline, as notebooks need."""
    from hwsim.explore.exploration import readable

    front = exploration.front_trials
    columns = shown_columns(exploration)
    cell = "text-align:right;padding:2px 8px"
    head = "".join(f'<th style="{cell}">{escape(name)}</th>' for name in ("trial", *columns))
    rows = "".join(
        f'<tr><td style="{cell}">{trial.number}</td>'
        + "".join(f'<td style="{cell}">{escape(readable(name, trial.value(name)))}</td>' for name in columns)
        + "</tr>"
        for trial in front[:most]
    )
    more = f"<div>… and {len(front) - most:,} more</div>" if len(front) > most else ""
    lines = "".join(f"<div>{escape(line)}</div>" for line in summary_lines(exploration))
    sought = ", ".join(str(objective) for objective in (*exploration.objectives, *exploration.constraints))
    return (
        f'<div style="font-size:.92em"><b>{escape(exploration.name)}</b> <span style="opacity:.65">{escape(sought)}</span>'
        f'<div style="overflow-x:auto">{_scatter(exploration)}<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
        f'</div>{more}<div style="opacity:.75;font-family:monospace;white-space:pre-wrap">{lines}</div></div>'
    )


def _scatter(exploration: Exploration) -> str:
    """The first two objectives of the feasible trials as an SVG picture, the front in colour; nothing for a single objective."""
    from hwsim.explore.exploration import readable

    if len(exploration.objectives) < 2:
        return ""
    x_name, y_name = (objective.metric for objective in exploration.objectives[:2])
    front = {trial.number for trial in exploration.front_trials}
    feasible = [t for t, good in zip(exploration.trials, exploration._feasible, strict=True) if good]
    step = max(1, math.ceil(len(feasible) / _MOST_DOTS))
    drawn = [t for i, t in enumerate(feasible) if t.number in front or i % step == 0]
    if not drawn:
        return ""
    across, along = _axis(drawn, x_name, _EDGE, _WIDTH - 10), _axis(drawn, y_name, _HEIGHT - _EDGE + 10, 8)
    dots = []
    for trial in sorted(drawn, key=lambda t: t.number in front):
        best = trial.number in front
        style = 'r="3.5" fill="#c0392b"' if best else 'r="2" fill="currentColor" opacity=".3"'
        title = f"trial {trial.number}: {readable(x_name, trial.value(x_name))}, {readable(y_name, trial.value(y_name))}"
        place = f'cx="{across(trial.value(x_name)):.1f}" cy="{along(trial.value(y_name)):.1f}"'
        dots.append(f"<circle {place} {style}><title>{escape(title)}</title></circle>")
    xs, ys = ([trial.value(name) for trial in drawn] for name in (x_name, y_name))
    text = 'fill="currentColor" font-size="11"'
    base = _HEIGHT - _EDGE + 10
    bottom = escape(readable(y_name, min(ys)))
    lowest, highest = escape(readable(x_name, min(xs))), escape(readable(x_name, max(xs)))
    labels = (
        f'<text x="{_EDGE}" y="{base + 14}" {text}>{lowest}</text>'
        f'<text x="{_WIDTH - 10}" y="{base + 14}" text-anchor="end" {text}>{highest}</text>'
        f'<text x="{(_WIDTH + _EDGE) / 2}" y="{base + 28}" text-anchor="middle" {text}>{escape(x_name)}</text>'
        f'<text x="{_EDGE}" y="{base - 2}" transform="rotate(-90 {_EDGE - 6} {base})" {text}>{bottom}</text>'
        f'<text x="12" y="{base / 2}" transform="rotate(-90 12 {base / 2})" text-anchor="middle" {text}>{escape(y_name)}</text>'
    )
    frame = f'<path d="M{_EDGE} 8 V{base} H{_WIDTH - 10}" fill="none" stroke="currentColor" opacity=".5"/>'
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" style="max-width:100%" role="img" '
        f'aria-label="{escape(y_name)} against {escape(x_name)}">{frame}{"".join(dots)}{labels}</svg>'
    )


def _axis(trials: list[Trial], name: str, start: float, end: float) -> Any:
    """Value → place between ``start`` and ``end``; by the logarithm where the values span more than a factor of ten."""
    values = [float(trial.value(name)) for trial in trials]
    low, high = min(values), max(values)
    if low > 0 and high / low > 10:
        low, high = math.log(low), math.log(high)
        return lambda value: start + (end - start) * (0.04 + 0.92 * (math.log(value) - low) / (high - low))
    if high == low:
        return lambda value: (start + end) / 2
    return lambda value: start + (end - start) * (0.04 + 0.92 * (value - low) / (high - low))


def print_trial(exploration: Exploration, trial: Trial, *, console: Console | None = None) -> None:
    """Print one configuration: its values, its metrics, and its operators where they are kept."""
    from rich.table import Table

    from hwsim.explore.exploration import readable

    out = console_for(console)
    place = " on the front" if trial.number in {one.number for one in exploration.front_trials} else ""
    out.print(f"{exploration.name}, trial {trial.number} ({trial.stage}){place}", markup=False)
    for name, value in (*trial.configuration.items(), *trial.metrics.items()):
        out.print(f"  {name:<28} {readable(name, value)}", markup=False)
    rows = exploration.layers.get(trial.number)
    if not rows:
        out.print(f"operators are kept of {len(exploration.layers):,} configurations, not of this one (layers: in the study)")
        return
    shown = [
        name for name in ("name", "kind", "unit", "time_s", "energy_j", "macs", "bytes_offchip", "utilization") if name in rows[0]
    ]
    table = Table(box=None, pad_edge=False)
    for name in shown:
        table.add_column(_TITLES[name], justify="left" if name in ("name", "kind", "unit") else "right")
    for row in rows:
        table.add_row(*(shorten(str(row[name]), 32) if name == "name" else readable(name, row[name]) for name in shown))
    out.print(table)
