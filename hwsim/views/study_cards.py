"""Cards of what is computed about machines: fault campaigns, scores, memory plans, assignments, serving, error-rate curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from hwsim.views.cards import figures, spell
from hwsim.views.style import PALETTE
from hwsim.views.units import counted, percent, si
from numerics._display import (
    BLUE,
    GREEN,
    RED,
    Html,
    attributes,
    bar,
    card,
    curve,
    cut,
    drawing,
    folded,
    number,
    spelled,
    table,
)

if TYPE_CHECKING:
    from hwsim.explore.space import Space
    from hwsim.faults.results import CampaignResult
    from hwsim.faults.retention import RetentionCurve
    from hwsim.faults.statistics import Interval
    from hwsim.faults.trials import TrialCampaign
    from hwsim.faults.voltage import SramCurve
    from hwsim.planning.assignment import Assignment
    from hwsim.planning.plan import MemoryPlan
    from hwsim.scoreboard.scores import Score
    from hwsim.serving import Serving

MOST_BOXES = 300
"""Rectangles of a picture."""

# --- fault campaigns --------------------------------------------------------------------------------------------------


def interval(value: Interval, *names: str) -> str:
    """An estimate with its interval, drawn from 0 to 1 where it lies there."""
    fields = [
        ("estimate", number(value.estimate)),
        (f"{percent(value.confidence)} interval", f"{number(value.low)} to {number(value.high)}"),
        ("half width", number(value.half_width)),
        ("standard error", number(value.standard_error)),
        *figures(value, *names),
    ]
    picture = _interval_bar(value.low, value.estimate, value.high) if 0 <= value.low <= value.high <= 1 else ""
    return card("Interval", fields, str(picture))


def _interval_bar(low: float, middle: float, high: float, width: int = 150) -> Html:
    """An interval between 0 and 1: a line with a mark at the estimate."""
    left, span = width * low, max(width * (high - low), 1.0)
    frame = f"display:inline-block;position:relative;width:{width}px;height:11px;background:rgba(128,128,128,.22)"
    line = f"position:absolute;left:{left:.1f}px;width:{span:.1f}px;top:3px;height:5px;background:{BLUE}"
    mark = f"position:absolute;left:{width * middle - 1:.1f}px;width:2px;top:0;height:11px;background:currentColor"
    return Html(f'<span style="{frame}"><span style="{line}"></span><span style="{mark}"></span></span>')


def _with_interval(row: Mapping[str, Any], name: str) -> str:
    if name not in row:
        return "–"
    return f"{100 * row[name]:.2f} [{100 * row[f'{name}_low']:.2f}, {100 * row[f'{name}_high']:.2f}]"


def campaign_result(value: CampaignResult, *names: str) -> str:
    """What a campaign found: rates by layer, or scores by scenario, with their intervals."""
    fields: list[tuple[str, Any]] = [
        ("trials", len(value.trials)),
        ("failed trials", len(value.failures)),
        ("images", value.images),
        (f"{value.metric} without faults", percent(value.golden_score)),
        ("confidence", percent(value.confidence)),
        *figures(value, *names),
    ]
    if value.kind == "bits":
        total = value.rates()[0]
        rows = [
            _rate_row({"layer": "all bits", "target": "", **total}),
            *(_rate_row(row) for row in _most_changed(value.rates("layer", "target"))),
        ]
        what = "single faulty bits: share of the network's bits, in percent"
        return card("Campaign", fields, table(rows, most=16, total=1 + len({key[:2] for key in value.strata})), subtitle=what)
    rows = []
    scores = value.scores()
    for row in scores[:16]:
        known = bool(row["trials"])
        rows.append(
            {
                "scenario": row["scenario"],
                "maps": row["trials"],
                f"{value.metric} %": _with_interval(row, "score"),
                "": _interval_bar(row["score_low"], row["score"], row["score_high"]) if known else "",
                "drop %": _with_interval(row, "drop"),
                "faulty bits a map": f"{row['faulty_bits']:,.1f}" if known else "–",
                "bit error rate": f"{value.rates_of[row['scenario']]:.3g}" if row["scenario"] in value.rates_of else "–",
            }
        )
    what = "fault maps: the network under each scenario"
    return card("Campaign", fields, table(rows, most=16, total=len(scores)), subtitle=what)


def _most_changed(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: -row.get("changed", -1.0))[:15]


def _rate_row(row: Mapping[str, Any]) -> dict[str, Any]:
    from hwsim.faults.network import OUTCOMES

    known = "changed" in row
    return {
        "layer": row["layer"],
        "operand": row["target"],
        "trials": row["trials"],
        "prediction changed %": _with_interval(row, "changed"),
        "": _interval_bar(row["changed_low"], row["changed"], row["changed_high"]) if known else "",
        **{f"{name} %": f"{100 * row[name]:.2f}" if name in row else "–" for name in OUTCOMES},
    }


def campaign(value: TrialCampaign, *names: str) -> str:
    """A campaign that may be run: what its results depend on."""
    described = value.description
    fields, parts = spelled({str(name): entry for name, entry in described.items()}, spell)
    return card(type(value).__name__, [*fields, *figures(value, *names)], *parts, subtitle="a fault campaign; run it")


def error_curve(value: SramCurve | RetentionCurve, *names: str) -> str:
    """A curve of bit error rates, drawn by the logarithm of the rate."""
    stress = value.volts if hasattr(value, "volts") else value.intervals_s
    unit = "V" if hasattr(value, "volts") else "s"
    found = {key: entry for key, entry in attributes(value, *names).items() if key not in ("name", "technology", "rates")}
    fields, parts = spelled(found, spell)
    rates = value.rates
    ends = (si(min(stress), unit), si(max(stress), unit), f"{min(rates):.2g}", f"{max(rates):.2g}")
    picture = curve(stress, rates, f"bit error rate against {unit}", ends=ends, log_y=True)
    rows = [{unit: f"{x:g}", "bit error rate": f"{rate:.3g}"} for x, rate in zip(stress[:12], rates[:12], strict=True)]
    return card(value.name, fields, picture, *parts, folded("points", table(rows, total=len(stress))), subtitle=value.technology)


# --- scores -----------------------------------------------------------------------------------------------------------


def score(value: Score, *names: str) -> str:
    """A score: the errors, the goal, and each point modelled beside what was measured."""
    unit = "%" if value.error == "percent" else "points"
    goal = ", ".join(
        f"{name} ≤ {bound:g} {unit}"
        for name, bound in (("mean", value.goal.mean), ("worst", value.goal.worst))
        if bound is not None
    )
    fields = [
        ("device", value.device),
        ("points", len(value.measured)),
        ("mean error", f"{value.errors.mean:.1f} {unit}"),
        ("worst", f"{value.errors.worst:.1f} {unit}"),
        ("bias", f"{value.errors.bias:+.1f} {unit}"),
        ("goal", goal or "none"),
        ("met", {True: "yes", False: "no", None: "–"}[value.met]),
        ("origin", value.origin),
        ("fitted fields", ", ".join(value.fitted_fields) or "none"),
        ("mean error without fits", f"{value.uncalibrated.mean:.1f} {unit}"),
        *figures(value, *names),
    ]
    rows = []
    for label, measured, modelled in list(zip(value.labels, value.measured, value.modelled, strict=True))[:12]:
        off = modelled - measured if value.error == "points" else 100 * (modelled / measured - 1) if measured else float("nan")
        rows.append({"point": label, "measured": f"{measured:.4g}", "modelled": f"{modelled:.4g}", "error": f"{off:+.1f} {unit}"})
    points = folded("points", table(rows, total=len(value.measured)))
    picture = _against(value.measured, value.modelled)
    return card(value.name, fields, picture, points, subtitle=f"{value.evidence}: modelled beside measured")


def _against(measured: Sequence[float], modelled: Sequence[float]) -> str:
    """Modelled against measured, by their logarithms where all are positive; equal ones lie on the diagonal."""
    import math

    pairs = list(zip(measured, modelled, strict=True))
    if len(pairs) < 3 or min(min(pair) for pair in pairs) <= 0:
        return ""
    step = -(-len(pairs) // MOST_BOXES)
    logs = [(math.log10(a), math.log10(b)) for a, b in pairs[::step]]
    low, high = min(map(min, logs)), max(map(max, logs))
    scale = 150 / ((high - low) or 1.0)
    dots = "".join(
        f'<circle cx="{12 + (a - low) * scale:.1f}" cy="{162 - (b - low) * scale:.1f}" r="2.6" fill="{BLUE}" fill-opacity=".75"/>'
        for a, b in logs
    )
    frame = (
        '<path d="M8 4v162h162" fill="none" stroke="currentColor" opacity=".4"/>'
        '<path d="M12 162L162 12" stroke="currentColor" opacity=".4" stroke-dasharray="3 3"/>'
    )
    text = '<text x="174" y="162" fill="currentColor" opacity=".75">measured</text>'
    text += '<text x="12" y="10" fill="currentColor" opacity=".75">modelled</text>'
    return drawing(frame + dots + text, 236, 170, "modelled against measured, by their logarithms")


def scores(values: Sequence[Score]) -> str:
    """The scoreboard: a row a score."""
    rows = []
    for one in values[:40]:
        unit = "%" if one.error == "percent" else "pt"
        met = {True: Html(f'<span style="color:{GREEN}">met</span>'), False: Html(f'<span style="color:{RED}">not met</span>')}
        rows.append(
            {
                "measured": one.name + (" (estimate)" if one.evidence == "estimate" else ""),
                "device": one.device,
                "points": len(one.measured),
                "mean error": f"{one.errors.mean:.1f} {unit}",
                "worst": f"{one.errors.worst:.1f} {unit}",
                "bias": f"{one.errors.bias:+.1f} {unit}",
                "goal": met[one.met] if one.met is not None else "–",
                "origin": one.origin,
                "fitted": len(one.fitted_fields),
                "no fit": f"{one.uncalibrated.mean:.1f} {unit}",
            }
        )
    title = f"Scoreboard ({counted(len(values), 'score')})"
    return card(title, (), table(rows, most=40, total=len(values)), subtitle="what devices say beside what was measured")


# --- plans ------------------------------------------------------------------------------------------------------------


def memory_plan(value: MemoryPlan, *names: str) -> str:
    """A plan of working memory: its size, what bounds it, and where each buffer lies when."""
    saved = 1 - value.peak_bytes / value.naive_bytes if value.naive_bytes else 0.0
    fields = [
        ("memory needed", si(value.peak_bytes, "B")),
        ("most alive at once", si(value.lower_bound_bytes, "B")),
        ("without sharing", f"{si(value.naive_bytes, 'B')} ({percent(saved)} saved)"),
        ("optimal", value.optimal),
        ("buffers", len(value.buffers)),
        ("decided by", value.deciding_op or "–"),
        ("chains run tile by tile", len(value.chains)),
        *figures(value, *names),
    ]
    largest = sorted(value.buffers, key=lambda b: (-b.bytes, b.offset))
    rows = [
        {
            "buffer": b.name,
            "size": si(b.bytes, "B"),
            "offset": si(b.offset, "B"),
            "from": value.ops[b.first],
            "to": value.ops[b.last],
        }
        for b in largest[:10]
    ]
    shown = largest[:MOST_BOXES]
    boxes = [(b.first, b.last + 1, b.offset, b.end, f"{b.name}: {si(b.bytes, 'B')}") for b in shown]
    span, tall = max(len(value.ops), 1), max(value.peak_bytes, 1)
    picture = _boxes(boxes, span, tall, f"operators 1 to {len(value.ops):,}", f"offset, up to {si(value.peak_bytes, 'B')}")
    parts = (picture, folded("largest buffers", table(rows, total=len(value.buffers))))
    return card(value.workload, fields, *parts, subtitle="memory plan")


def _boxes(boxes: Sequence[tuple[float, float, float, float, str]], span: float, tall: float, below: str, beside: str) -> str:
    """Rectangles (from, to, bottom, top, title), the time from 0 to ``span``, the height from 0 to ``tall``."""
    if not boxes:
        return ""
    width, height = 560.0, 130.0
    parts = []
    for i, (start, end, bottom, top, title) in enumerate(boxes):
        place = (
            f'x="{8 + width * start / span:.1f}" y="{6 + height * (1 - top / tall):.1f}" '
            f'width="{max(width * (end - start) / span, 0.5):.1f}" height="{max(height * (top - bottom) / tall, 0.5):.1f}"'
        )
        colour = PALETTE[i % 6]
        parts.append(
            f'<rect {place} fill="{colour}" fill-opacity=".55" stroke="{colour}"><title>{escape(cut(title, 80))}</title></rect>'
        )
    text = 'fill="currentColor" opacity=".75"'
    parts.append(f'<path d="M8 4V{6 + height:.0f}H{width + 10:.0f}" fill="none" stroke="currentColor" opacity=".4"/>')
    parts.append(f'<text x="8" y="{height + 20:.0f}" {text}>{escape(below)}</text>')
    parts.append(f'<text x="{width + 8:.0f}" y="{height + 20:.0f}" text-anchor="end" {text}>{escape(beside)}</text>')
    return drawing("".join(parts), width + 16, height + 26, f"{below}; {beside}")


def assignment(value: Assignment, *names: str) -> str:
    """Which machine runs which layer when: the makespan, the energy, and the machines as lanes of a timeline."""
    fields: list[tuple[str, Any]] = [
        spell("makespan_s", value.makespan_s),
        spell("least_makespan_s", value.least_makespan_s),
        spell("energy_j", value.energy_j),
        spell("area_mm2", value.area_mm2),
        ("minimised", value.objective),
        ("deadline", "none" if value.deadline_s is None else si(value.deadline_s, "s")),
        ("kept", value.meets_deadline),
        ("optimal", value.optimal),
        *figures(value, *names),
    ]
    rows = [{"machine": name, "busy": percent(share), "": bar(share)} for name, share in value.utilization.items()]
    ends = [{"network": name, "done after": si(seconds, "s")} for name, seconds in value.latency_s.items()]
    lanes = {name: i for i, name in enumerate(value.devices)}
    height, width, left = 20, 430.0, 130
    parts = []
    for name, lane in lanes.items():
        parts.append(
            f'<text x="{left - 6}" y="{lane * height + 15}" text-anchor="end" fill="currentColor">{escape(cut(name, 20))}</text>'
        )
    colours = {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(value.networks)}
    total = value.makespan_s or 1.0
    for one in sorted(value.layers, key=lambda each: each.start_s - each.end_s)[:MOST_BOXES]:
        title = f"{one.network}: {one.layer}, {si(one.end_s - one.start_s, 's')}"
        place = (
            f'x="{left + width * one.start_s / total:.1f}" y="{lanes[one.device] * height + 4}" '
            f'width="{max(width * (one.end_s - one.start_s) / total, 0.5):.1f}" height="{height - 6}"'
        )
        parts.append(
            f'<rect {place} fill="{colours[one.network]}" fill-opacity=".7" stroke="currentColor" stroke-opacity=".3">'
            f"<title>{escape(cut(title, 90))}</title></rect>"
        )
    label = f"{counted(len(value.layers), 'layer')} on {counted(len(lanes), 'machine')}"
    picture = drawing("".join(parts), left + width + 10, len(lanes) * height + 6, label)
    key = " ".join(f'<span style="color:{colours[name]}">■</span> {escape(cut(name, 30))}' for name in value.networks[:12])
    return card("Assignment", fields, picture, f"<div>{key}</div>", table(rows), table(ends), subtitle=label, notes=value.notes)


def serving(value: Serving, *names: str) -> str:
    """Serving figures: times, rates, memory and energy of prompts and answers."""
    fields: list[tuple[str, Any]] = [
        ("requests at once", value.batch),
        ("prompt", f"{value.prompt_tokens:,} tokens"),
        ("answer", f"{value.output_tokens:,} tokens"),
        ("time to first token", si(value.time_to_first_token_s, "s")),
        ("time per output token", si(value.time_per_output_token_s, "s")),
        ("shortest and longest step", f"{si(value.first_step_s, 's')}, {si(value.last_step_s, 's')}"),
        ("latency of the answer", si(value.latency_s, "s")),
        ("tokens a second", f"{value.tokens_per_s:,.1f}"),
        ("after the first", f"{value.decode_tokens_per_s:,.1f}"),
        ("KV cache", si(value.kv_cache_bytes, "B")),
        ("weights", si(value.weight_bytes, "B")),
        ("energy per output token", si(value.energy_per_token_j, "J")),
    ]
    uses = [("MFU of the prompt", value.prefill_mfu), ("MFU of a step", value.decode_mfu)]
    uses += [] if value.decode_bandwidth_use is None else [("bandwidth use of a step", value.decode_bandwidth_use)]
    rows = [{"": name, "share": percent(share), " ": bar(share)} for name, share in uses]
    sub = f"{value.recipe}, {value.fidelity}; times are {value.origin}"
    title = f"{value.model} served by {value.device}"
    return card(title, [*fields, *figures(value, *names)], table(rows), subtitle=sub, notes=value.notes)


# --- explorations -----------------------------------------------------------------------------------------------------


def space(value: Space, *names: str) -> str:
    """What may vary: each parameter and its values."""
    from hwsim.explore.space import Choice, Integer

    rows = []
    for name, parameter in list(value.parameters.items())[:40]:
        if isinstance(parameter, Choice):
            values = ", ".join(map(str, parameter.values[:12])) + (" …" if len(parameter.values) > 12 else "")
        else:
            step = f" in steps of {parameter.step}" if isinstance(parameter, Integer) and parameter.step != 1 else ""
            values = f"{number(parameter.low)} to {number(parameter.high)}{step}" + (
                ", by the logarithm" if parameter.log else ""
            )
        how_many = "infinitely many" if parameter.size is None else f"{parameter.size:,}"
        rows.append({"parameter": name, "kind": parameter.kind, "values": values, "how many": how_many})
    size = "infinitely many" if value.size is None else f"{value.size:,}"
    fields = [("configurations", size), *figures(value, *names)]
    return card("Space", fields, table(rows, most=40, total=len(value.names)), subtitle="what an exploration may vary")
