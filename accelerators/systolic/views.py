"""Pictures of what is particular to systolic arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hwsim.report import Report

MOST_BARS = 60


def plot_mapping(report: Report) -> Figure | None:
    """How much of the array each operator fills while operands stream: MACs done over places × cycles of streaming."""
    from matplotlib.figure import Figure

    rows = [row for row in report.tables["mapping"] if "array_occupancy" in row]
    if not rows:
        return None  # a machine that says other things of its mapping
    shown = rows if len(rows) <= MOST_BARS else rows[:MOST_BARS]
    figure = Figure(figsize=(9, 1.6 + 0.2 * max(4, len(shown))), layout="constrained")
    axes = figure.subplots()
    places = range(len(shown))
    axes.barh(places, [100 * row["array_occupancy"] for row in shown], color="#0072B2")
    axes.set_yticks(places, [f"{row['op']}  {row['m']}×{row['n']}×{row['k']}" for row in shown], fontsize=7)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlim(0, 100)
    axes.set_xlabel("processing elements in use while operands stream (%)")
    more = f", the first {MOST_BARS} of {len(rows)}" if len(rows) > len(shown) else ""
    axes.set_title(f"{report.workload} on {report.device}: array occupancy by matrix operator (m×n×k){more}", fontsize=10)
    return figure
