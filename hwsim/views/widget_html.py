"""What the widgets of an exploration show: metrics beside those held, trials as points, one trial with its operators."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from numerics._display import BLUE, RED, Html, card, cut, drawing, table

if TYPE_CHECKING:
    from hwsim.explore.exploration import Exploration, Trial

_WIDTH, _HEIGHT, _LEFT, _BASE = 520.0, 300.0, 96.0, 262.0
MOST_POINTS = 2000
"""Trials that are drawn; of more, those on the front and every so many of the others."""


def message(text: str) -> str:
    """A sentence in place of a result."""
    return f'<div style="border-left:3px solid {RED};padding-left:8px">{escape(cut(text, 600))}</div>'


def metrics_html(metrics: Mapping[str, Any], held: Mapping[str, Any] | None = None) -> str:
    """Metrics as a table, and how far each is from those held."""
    from hwsim.explore.exploration import readable

    rows = []
    for name, value in metrics.items():
        row: dict[str, Any] = {"metric": name, "value": readable(name, value)}
        if held is not None:
            before = held.get(name)
            row["held"] = readable(name, before)
            row["change"] = _change(value, before)
        rows.append(row)
    return table(rows, most=40)


def _change(value: float | None, before: float | None) -> str:
    if value is None or before is None:
        return "–"
    if value == before:
        return "none"
    return "–" if before == 0 else f"{100 * (value / before - 1):+.1f} %"


def points_html(
    shown: Sequence[Trial], x_name: str, y_name: str, *, front: frozenset[int] = frozenset(), picked: int | None = None
) -> str:
    """Trials by two of their values: those on the front in colour, the one picked within a ring. A trial that has no number for
    one of the two is left out."""
    from hwsim.explore.exploration import readable

    known = [trial for trial in shown if _is_number(trial.value(x_name)) and _is_number(trial.value(y_name))]
    if not known:
        return message(f"no trial has both {x_name} and {y_name}")
    xs, ys = ([float(trial.value(name)) for trial in known] for name in (x_name, y_name))
    across, along = _scale(xs, _LEFT + 8, _WIDTH - 12), _scale(ys, _BASE - 8, 14)
    step = -(-len(known) // MOST_POINTS)
    drawn = [t for i, t in enumerate(known) if i % step == 0 or t.number in front or t.number == picked]
    parts = []
    for trial in sorted(drawn, key=lambda t: (t.number == picked, t.number in front)):
        x, y = float(trial.value(x_name)), float(trial.value(y_name))
        best = trial.number in front
        style = f'r="3.6" fill="{RED}"' if best else f'r="2.6" fill="{BLUE}" fill-opacity=".55"'
        place = f'cx="{across(x):.1f}" cy="{along(y):.1f}"'
        told = f"<title>trial {trial.number}: {escape(readable(x_name, x))}, {escape(readable(y_name, y))}</title>"
        parts.append(f"<circle {place} {style}>{told}</circle>")
        if trial.number == picked:
            parts.append(f'<circle {place} r="8" fill="none" stroke="currentColor" stroke-width="1.8"/>')
    text = 'fill="currentColor" opacity=".8"'
    labels = (
        f'<path d="M{_LEFT} 8V{_BASE}H{_WIDTH - 6}" fill="none" stroke="currentColor" opacity=".45"/>'
        f'<text x="{_LEFT}" y="{_BASE + 16}" {text}>{escape(readable(x_name, min(xs)))}</text>'
        f'<text x="{_WIDTH - 6}" y="{_BASE + 16}" text-anchor="end" {text}>{escape(readable(x_name, max(xs)))}</text>'
        f'<text x="{(_WIDTH + _LEFT) / 2}" y="{_BASE + 32}" text-anchor="middle" {text}>{escape(x_name)}</text>'
        f'<text x="{_LEFT - 6}" y="{_BASE}" text-anchor="end" {text}>{escape(readable(y_name, min(ys)))}</text>'
        f'<text x="{_LEFT - 6}" y="18" text-anchor="end" {text}>{escape(readable(y_name, max(ys)))}</text>'
        f'<text x="14" y="{_BASE / 2}" transform="rotate(-90 14 {_BASE / 2})" text-anchor="middle" {text}>{escape(y_name)}</text>'
    )
    return drawing(labels + "".join(parts), _WIDTH, _HEIGHT, f"{y_name} against {x_name}, {len(known):,} trials")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _scale(values: Sequence[float], start: float, end: float) -> Callable[[float], float]:
    """Value → place; by the logarithm where positive values span more than a factor of ten."""
    low, high = min(values), max(values)
    by_log = low > 0 and high / low > 10
    to = math.log if by_log else float
    first, last = to(low), to(high)
    if last == first:
        return lambda value: (start + end) / 2
    return lambda value: start + (end - start) * (to(value) - first) / (last - first)


def trial_html(exploration: Exploration, trial: Trial, more: str = "") -> str:
    """One configuration: its values, its metrics, and its operators where they are kept; ``more`` stands below."""
    from hwsim.explore.exploration import readable

    on_front = trial.number in {one.number for one in exploration.front_trials}
    sub = trial.stage + (", on the front" if on_front else "")
    fields = [(name, readable(name, value)) for name, value in (*trial.configuration.items(), *trial.metrics.items())]
    rows = exploration.layers.get(trial.number)
    parts = [layers_html(rows)] if rows is not None else []
    if rows is None and not more:
        kept = f"operators are kept of {len(exploration.layers):,} configurations, not of this one"
        parts.append(f'<div style="opacity:.7">{kept}</div>')
    return card(f"trial {trial.number}", fields, *parts, Html(more), subtitle=sub)


def layers_html(rows: Sequence[Mapping[str, Any]], *, most: int = 20) -> str:
    """Operators of one configuration, the slowest first."""
    from hwsim.explore.exploration import readable

    slowest = sorted(rows, key=lambda row: -(row.get("time_s") or 0.0))
    shown = [
        {
            "operator": row.get("name"),
            "kind": row.get("kind"),
            "time": readable("time_s", row.get("time_s")),
            "energy": readable("energy_j", row.get("energy_j")),
            "MACs": readable("macs", row.get("macs")),
            "off-chip": readable("x_bytes", row.get("bytes_offchip")),
            "utilization": readable("utilization", row.get("utilization")),
        }
        for row in slowest[:most]
    ]
    return table(shown, most=most, total=len(rows))
