"""Reports as pages: one file each, without requests to anywhere, in the reader's light or dark theme."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from hwsim.report import OpCost, Report
from hwsim.views.rows import (
    ORIGINS,
    PARTS,
    comparison_labels,
    comparison_rows,
    origin_text,
    parts_s,
    slowest,
    source_text,
)
from hwsim.views.style import GRID, INK, MUTED, PAPER, PART_COLOURS
from hwsim.views.units import counted, percent, si

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_TABLE_ROWS = 500
"""Rows of an extra table that the page shows; the files hold them all."""

_STYLE = """
:root { color-scheme: light dark; --ink: #1f2430; --muted: #5b6472; --grid: #dfe3e8; --paper: #ffffff;
  --page: #f5f6f8; --hover: #eef3f8; --accent: #0072b2; --warn: #9a4a00; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ee; --muted: #9aa4b2; --grid: #333b47; --paper: #1a1f27;
  --page: #12161c; --hover: #232a35; --accent: #56b4e9; --warn: #e69f00; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem; max-width: 82rem; background: var(--page); color: var(--ink);
  font: 15px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2rem 0 .6rem; }
.sub, .how { color: var(--muted); margin: .2rem 0 1rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .7rem; }
.card, figure, .scroll, details {
  background: var(--paper); border: 1px solid var(--grid); border-radius: .5rem; }
.card { padding: .7rem .9rem; } .card b { display: block; font-size: 1.35rem; font-weight: 650; }
.card span, .card small { display: block; color: var(--muted); font-size: .8rem; }
.tag { display: inline-block; border: 1px solid currentColor; border-radius: 1rem; padding: 0 .5em;
  font-size: .72rem; color: var(--muted); }
.tag.warn { color: var(--warn); }
figure { margin: 0 0 1rem; padding: .8rem; overflow-x: auto; }
figure svg { display: block; width: 100%; max-width: 70rem; height: auto; margin: auto; }
details { padding: .6rem .9rem; margin-bottom: .8rem; } summary { cursor: pointer; font-weight: 600; }
pre { overflow-x: auto; font-size: .82rem; margin: .6rem 0 0; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .84rem; }
th, td { padding: .3rem .5rem; border-bottom: 1px solid var(--grid); text-align: right;
  white-space: nowrap; }
th.l, td.l { text-align: left; } tbody tr:hover { background: var(--hover); }
td.n { max-width: 22rem; overflow: hidden; text-overflow: ellipsis; }
thead th { background: var(--paper); } th button { all: unset; cursor: pointer; font-weight: 650; }
th button:focus-visible { outline: 2px solid var(--accent); }
th[aria-sort=ascending] button::after { content: " ▲"; }
th[aria-sort=descending] button::after { content: " ▼"; }
.bar { display: flex; width: 7rem; height: .75rem; background: var(--hover); border-radius: 2px;
  overflow: hidden; }
.bar i { display: block; height: 100%; }
.key i { display: inline-block; width: .75em; height: .75em; margin: 0 .3em 0 .9em; }
.tools { display: flex; flex-wrap: wrap; gap: .8rem; align-items: center; margin-bottom: .6rem; }
input { font: inherit; padding: .3rem .6rem; width: 20rem; max-width: 100%; border: 1px solid var(--grid);
  border-radius: .4rem; background: var(--paper); color: var(--ink); }
footer { color: var(--muted); font-size: .8rem; margin-top: 2rem; }
"""

_SCRIPT = """
const table = document.getElementById("ops"), body = table.tBodies[0], rows = [...body.rows];
const filter = document.getElementById("filter"), count = document.getElementById("count");
const key = (row, i) => row.cells[i].dataset.v ?? row.cells[i].textContent.trim();
table.tHead.addEventListener("click", event => {
  const th = event.target.closest("th");
  if (!th) return;
  const i = th.cellIndex, numeric = !th.classList.contains("l") || "v" in (rows[0]?.cells[i].dataset ?? {});
  const first = numeric && i ? "descending" : "ascending";
  const next = th.ariaSort === first ? (first === "ascending" ? "descending" : "ascending") : first;
  for (const other of th.parentNode.cells) other.removeAttribute("aria-sort");
  th.setAttribute("aria-sort", next);
  const sign = next === "ascending" ? 1 : -1;
  rows.sort((a, b) => sign * (numeric ? key(a, i) - key(b, i) : key(a, i).localeCompare(key(b, i))));
  body.append(...rows);
});
function apply() {
  const words = filter.value.toLowerCase().split(/\\s+/).filter(Boolean);
  let shown = 0, share = 0;
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every(word => text.includes(word));
    if (!row.hidden) { shown += 1; share += Number(row.dataset.share); }
  }
  count.textContent = `${shown} of ${rows.length} operators, ${(100 * share).toFixed(1)} % of the time`;
}
filter.addEventListener("input", apply);
apply();
"""


def _svg(figure: Figure, label: str, prefix: str) -> str:
    """``figure`` as an inline SVG in the page's neutral colours; its ids start with ``prefix``."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "hwsim"}):
        figure.savefig(buffer, format="svg", metadata={"Creator": None, "Date": None, "Format": None, "Type": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg).replace("xlink:href=", "href=")
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", svg)
    for colour, name in ((INK, "ink"), (MUTED, "muted"), (GRID, "grid"), (PAPER, "paper")):
        svg = svg.replace(colour, f"var(--{name})")
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1).strip()


def _page(title: str, content: str, script: str = "") -> str:
    code = f"<script>{script}</script>\n" if script else ""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{content}\n{code}</body>\n</html>\n"
    )


def _time(report: Report, op: OpCost) -> str:
    return si(None if report.known_time_s is None else op.time_s, "s")


def _energy(report: Report, op: OpCost) -> str:
    return si(None if report.known_energy_j is None else op.energy_total_j, "J")


def _cards(report: Report) -> list[tuple[str, str, str, str]]:
    """The headline totals: title, value, detail, origin."""
    cards = [
        (
            "latency",
            si(report.known_time_s, "s"),
            f"{si(report.cycles)} cycles at {si(report.clock_hz, 'Hz')}" if report.known_time_s is not None else "",
            "time",
        ),
        ("energy", si(report.known_energy_j, "J"), _largest_component(report), "energy"),
        ("average power", si(report.average_power_w, "W"), "energy over latency", ""),
        ("work", si(report.macs, "MAC"), counted(len(report.ops), "operator"), ""),
        ("utilization", percent(report.utilization), f"of {si(report.peak_macs_per_s, 'MAC/s')} peak", ""),
        ("off-chip traffic", si(report.bytes_offchip, "B"), "read and written", ""),
    ]
    if report.peak_memory_bytes:
        largest = max(report.peak_memory_bytes, key=lambda role: report.peak_memory_bytes[role])
        cards.append(
            (
                "peak memory",
                si(sum(report.peak_memory_bytes.values()), "B"),
                f"mostly {largest}",
                "",
            )
        )
    return cards


def _largest_component(report: Report) -> str:
    """Where most of the energy goes."""
    if not report.energy_j:
        return ""
    name, joules = max(report.energy_by_component_j.items(), key=lambda item: item[1])
    return f"{percent(joules / report.energy_j)} {name}"


def _cards_html(report: Report) -> str:
    parts = []
    for title, value, detail, key in _cards(report):
        origin = report.origin.get(key, "")
        tag = f' <em class="tag">{escape(origin)}</em>' if origin else ""
        parts.append(
            f'<div class="card"><span>{escape(title)}{tag}</span><b>{escape(value)}</b><small>{escape(detail)}</small></div>'
        )
    return f'<div class="cards">{"".join(parts)}</div>'


def _bar(op: OpCost, longest: float) -> str:
    """A bar as long as the operator's time against the longest, in the colours of its parts."""
    parts = []
    for name, seconds in zip(PARTS, parts_s(op), strict=True):
        width = 100 * seconds / longest if longest else 0.0
        if width > 0:
            title = f"{name} {si(seconds, 's')}"
            parts.append(f'<i style="width:{width:.2f}%;background:{PART_COLOURS[name]}" title="{escape(title)}"></i>')
    return f'<div class="bar">{"".join(parts)}</div>'


def _tags(op: OpCost) -> str:
    tags = ""
    if op.fused_with:
        tags += f' <span class="tag" title="fused with {escape(op.fused_with)}">fused</span>'
    if not op.modelled:
        tags += ' <span class="tag warn" title="charged for its bytes only">unmodelled</span>'
    return tags


def _operators(report: Report) -> str:
    """The table of operators, for the page's script to sort and filter."""
    phases = len({op.phase for op in report.ops}) > 1
    headers = [
        ("#", False),
        ("operator", True),
        ("kind", True),
        ("module", True),
        *([("phase", True)] if phases else []),
        ("format", True),
        ("unit", True),
        ("MACs", False),
        ("time", False),
        ("share", False),
        ("time split", True),
        ("off-chip", False),
        ("energy", False),
        ("utilization", False),
    ]
    head = "".join(
        f'<th scope="col"{" class=l" if left else ""}><button type="button">{title}</button></th>' for title, left in headers
    )
    longest = max((op.time_s for op in report.ops), default=0.0)
    lines = []
    for index, op in enumerate(report.ops, 1):
        share = op.time_s / report.time_s if report.time_s else 0.0
        _, stall, overhead = parts_s(op)
        lost = (stall + overhead) / op.time_s if op.time_s > 0 else 0.0
        cells = [
            f'<td data-v="{index}">{index}</td>',
            f'<td class="l n" title="{escape(op.name)}">{escape(op.name)}{_tags(op)}</td>',
        ]
        cells += [
            f'<td class="l">{escape(text)}</td>'
            for text in (op.kind, op.module, *([op.phase] if phases else []), op.format, op.unit)
        ]
        cells += [
            f'<td data-v="{op.macs}">{si(op.macs) if op.macs else "–"}</td>',
            f'<td data-v="{op.time_s!r}">{_time(report, op)}</td>',
            f'<td data-v="{op.time_s!r}">{percent(share)}</td>',
            f'<td class="l" data-v="{lost!r}">{_bar(op, longest)}</td>',
            f'<td data-v="{op.bytes_offchip}">{si(op.bytes_offchip, "B")}</td>',
            f'<td data-v="{op.energy_total_j!r}">{_energy(report, op)}</td>',
            f'<td data-v="{op.utilization!r}">{percent(op.utilization) if op.macs else "–"}</td>',
        ]
        lines.append(f'<tr data-share="{share!r}">{"".join(cells)}</tr>')
    count = counted(len(report.ops), "operator")
    key = "".join(f'<i style="background:{PART_COLOURS[part]}"></i>{part}' for part in PARTS)
    return (
        '<div class="tools"><label>Filter '
        '<input id="filter" type="search" placeholder="name, kind, module, format …"></label>'
        f'<span id="count">{count}</span><span class="key">{key}</span></div>\n'
        f'<div class="scroll"><table id="ops"><thead><tr>{head}</tr></thead>\n<tbody>\n'
        + "\n".join(lines)
        + "\n</tbody></table></div>"
    )


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)


def _plain_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as they are, numbers to the right."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    shown = rows[:MOST_TABLE_ROWS]

    def side(values: Iterable[Any]) -> str:
        return "" if all(isinstance(v, int | float) and not isinstance(v, bool) for v in values) else ' class="l"'

    sides = {c: side(row.get(c, 0) for row in shown) for c in columns}
    head = "".join(f"<th{sides[c]}>{escape(c)}</th>" for c in columns)
    body = "\n".join(
        "<tr>" + "".join(f"<td{sides[c]}>{escape(_value(row.get(c, '')))}</td>" for c in columns) + "</tr>" for row in shown
    )
    more = f'<p class="how">{len(rows) - len(shown)} more rows in report.json</p>' if len(rows) > len(shown) else ""
    table = f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table>"
    return f'<div class="scroll">{table}</div>{more}'


def _notes(report: Report) -> str:
    notes = [escape(note) for note in report.notes]
    if report.unmodelled:
        names = ", ".join(escape(name) for name in report.unmodelled)
        many = counted(len(report.unmodelled), "operator")
        notes.append(f"{many} without a model, charged for bytes only: {names}")
    for origin in dict.fromkeys(report.origin.values()):
        if origin in ORIGINS:
            text = ORIGINS[origin]
            notes.append(f"{escape(text[0].upper() + text[1:])}.")
    return f"<ul>{''.join(f'<li>{note}</li>' for note in notes)}</ul>" if notes else ""


def _figures_html(figures: Mapping[str, Figure]) -> str:
    return "\n".join(
        f"<figure>{_svg(figure, name, f'f{index}')}</figure>" for index, (name, figure) in enumerate(figures.items())
    )


def report_html(report: Report, *, figures: Mapping[str, Figure] | None = None) -> str:
    """The report as one page; ``figures`` (name → picture) are ``files.report_figures`` unless given."""
    if figures is None:
        from hwsim.views.files import report_figures

        figures = report_figures(report)
    title = f"{report.workload} on {report.device}"
    sub = " · ".join(x for x in (report.recipe, report.fidelity, origin_text(report), f"hwsim {report.version}") if x)
    tables = "\n".join(
        f"<details><summary>{escape(name)} ({counted(len(rows), 'row')})</summary>{_plain_table(rows)}</details>"
        for name, rows in report.tables.items()
    )
    spec = escape(json.dumps(dict(report.spec), indent=2, ensure_ascii=False, default=str))
    content = "\n".join(
        [
            f'<header><h1>{escape(title)}</h1><p class="sub">{escape(sub)}</p></header>',
            _cards_html(report),
            f"<h2>Notes</h2>\n{_notes(report)}",
            f"<h2>Pictures</h2>\n{_figures_html(figures)}",
            f"<h2>Operators</h2>\n{_operators(report)}",
            f"<h2>Tables</h2>\n{tables}" if tables else "",
            f"<h2>Device</h2>\n<details><summary>Specification of {escape(report.device)}</summary><pre>{spec}</pre></details>",
            f"<footer>{escape(source_text(report))}</footer>",
        ]
    )
    return _page(title, content, _SCRIPT)


def notebook_html(report: Report, *, most: int = 15) -> str:
    """The totals and the ``most`` slowest operators; the styles are inline, as notebooks need."""
    shown, others = slowest(report, most)
    total = report.time_s or 1.0
    scale = 70 / (max((op.time_s for op in shown), default=0.0) or 1.0)
    totals = " &nbsp; ".join(
        f"<span><span style='opacity:.65'>{escape(title)}</span> <b>{escape(value)}</b></span>"
        for title, value, _, _ in _cards(report)
    )
    left, right = "text-align:left;padding:2px 8px", "text-align:right;padding:2px 8px"
    heads = [
        ("operator", left),
        ("kind", left),
        ("format", left),
        ("MACs", right),
        ("time", right),
        ("share", right),
        ("", left),
        ("off-chip", right),
        ("energy", right),
        ("utilization", right),
    ]
    head = "".join(f'<th style="{style}">{title}</th>' for title, style in heads)
    lines = []
    for op in shown:
        bar = "".join(
            f'<span style="display:inline-block;height:9px;width:{scale * seconds:.1f}px;background:{PART_COLOURS[name]}"></span>'
            for name, seconds in zip(PARTS, parts_s(op), strict=True)
        )
        marks = (" · fused" if op.fused_with else "") + ("" if op.modelled else " · unmodelled")
        cells = [
            (f"{escape(op.name)}<span style='opacity:.65'>{marks}</span>", left),
            (escape(op.kind), left),
            (escape(op.format), left),
            (si(op.macs) if op.macs else "–", right),
            (_time(report, op), right),
            (percent(op.time_s / total), right),
            (f'<div style="width:72px;white-space:nowrap;line-height:1">{bar}</div>', left),
            (si(op.bytes_offchip, "B"), right),
            (_energy(report, op), right),
            (percent(op.utilization) if op.macs else "–", right),
        ]
        lines.append("<tr>" + "".join(f'<td style="{style}">{text}</td>' for text, style in cells) + "</tr>")
    rest = ""
    if others:
        share = percent(sum(op.time_s for op in others) / total)
        rest = f'<div style="opacity:.65">… {counted(len(others), "more operator")}, {share} of the time</div>'
    notes = "".join(f'<div style="opacity:.65">{escape(note)}</div>' for note in report.notes)
    if report.unmodelled:
        many = counted(len(report.unmodelled), "operator")
        notes += f'<div style="opacity:.65">{many} charged for bytes only</div>'
    sub = " · ".join(x for x in (report.recipe, report.fidelity, origin_text(report)) if x)
    return (
        f"<div><div><b>{escape(report.workload)} on {escape(report.device)}</b> "
        f"<span style='opacity:.65'>{escape(sub)}</span></div><div style='margin:4px 0'>{totals}</div>"
        f'<table style="border-collapse:collapse"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table>"
        f"{rest}{notes}</div>"
    )


def comparison_html(reports: Sequence[Report], *, figure: Figure | None = None) -> str:
    """Several reports as one small page, the fastest in bold.

    ``figure`` is ``plots.plot_comparison``'s unless given.

    Raises:
        InputError: no reports.
    """
    rows = comparison_rows(reports)
    if figure is None:
        from hwsim.views.plots import plot_comparison

        figure = plot_comparison(reports)
    workloads = list(dict.fromkeys(r.workload for r in reports))
    title = f"{', '.join(workloads)}: {counted(len(reports), 'report')} compared"
    headers = [
        ("device", 1),
        ("workload", 1),
        ("latency", 0),
        ("relative", 0),
        ("energy", 0),
        ("power", 0),
        ("off-chip", 0),
        ("utilization", 0),
        ("recipe", 1),
        ("fidelity", 1),
        ("latency is", 1),
        ("energy is", 1),
        ("unmodelled", 0),
    ]
    head = "".join(f'<th scope="col"{" class=l" if is_left else ""}>{name}</th>' for name, is_left in headers)
    lines = []
    for row in rows:
        relative = row["relative_time"]
        numbers = [
            si(row["time_s"], "s"),
            "–" if relative is None else f"{relative:.2f}×",
            si(row["energy_j"], "J"),
            si(row["average_power_w"], "W"),
            si(row["bytes_offchip"], "B"),
            percent(row["utilization"]),
        ]
        words = [row[key] for key in ("recipe", "fidelity", "time_origin", "energy_origin")]
        cells = "".join(f'<td class="l">{escape(row[key])}</td>' for key in ("device", "workload"))
        cells += "".join(f"<td>{number}</td>" for number in numbers)
        cells += "".join(f'<td class="l">{escape(word)}</td>' for word in words) + f"<td>{row['unmodelled']}</td>"
        weight = ' style="font-weight:650"' if relative == 1.0 else ""
        lines.append(f"<tr{weight}>{cells}</tr>")
    notes = "".join(
        f"<li><b>{escape(label)}</b>: {escape(note)}</li>"
        for label, report in zip(comparison_labels(reports), reports, strict=True)
        for note in report.notes
    )
    labels = "".join(
        f"<li>{escape(text[0].upper() + text[1:])}.</li>"
        for origin, text in ORIGINS.items()
        if any(origin in r.origin.values() for r in reports)
    )
    content = (
        f"<header><h1>{escape(title)}</h1></header>\n<h2>Totals</h2>\n"
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>\n' + "\n".join(lines) + "\n</tbody></table></div>\n"
        f"<h2>Picture</h2>\n{_figures_html({'comparison': figure})}\n"
        + (f"<h2>Notes</h2>\n<ul>{notes}{labels}</ul>" if notes or labels else "")
    )
    return _page(title, content)
