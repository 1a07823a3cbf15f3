"""The views of a report: what they say, and that it can be read."""

from __future__ import annotations

import ast
import csv
import io
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from sample_report import large_report, sample_ops, sample_report

import hwsim.views
from hwsim.report import Report, Span
from hwsim.views import files
from hwsim.views.files import save_comparison, save_report
from hwsim.views.html import comparison_html, notebook_html, report_html
from hwsim.views.perfetto import trace_events, validate_trace
from hwsim.views.plots import plot_comparison, plot_energy, plot_roofline, plot_time
from hwsim.views.rows import comparison_labels, comparison_rows, picture_rows
from hwsim.views.table import print_comparison, print_report
from hwsim.views.units import axis_scale, percent, shorten, si
from numerics.errors import InputError

REPORT = sample_report()
SLOWER = replace(
    REPORT,
    device="edge 12x14",
    recipe="bf16",
    ops=tuple(replace(op, time_s=2 * op.time_s, energy_j={"adc": 3 * op.energy_total_j}) for op in REPORT.ops),
    origin={"time": "predicted", "energy": "predicted"},
)
NASTY = "<script>alert(1)</script>"


def nasty_report() -> Report:
    """A report all of whose strings try to break out of where they are written."""
    op = replace(REPORT.ops[0], name=NASTY, module='"><img src=x>', kind="$x_1$", format="<b>", unit="<i>")
    host = replace(REPORT.ops[1], name="$\\frac{$", fused_with=NASTY, modelled=False)
    return sample_report(
        device='dev"><script>',
        workload="_w&\n$y^{$",
        recipe="<r>",
        fidelity="<f>",
        ops=(op, host, replace(REPORT.ops[2], fused_with="$\\frac{$"), *REPORT.ops[3:]),
        notes=("<u>note</u>",),
        spec={"</pre>": "<script>"},
        tables={"<t>": [{"<column>": "<cell>", "n": 1.5}]},
    )


def empty_report() -> Report:
    return sample_report(ops=(), spans=(), tables={}, peak_memory_bytes={}, notes=())


def text_of(report: Report, width: int = 120, **options) -> str:
    from rich.console import Console

    stream = io.StringIO()
    print_report(report, console=Console(file=stream, width=width, color_system=None), **options)
    return stream.getvalue()


# --- units --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (1.23e-3, "s", "1.23 ms"),
        (4.1e9, "MAC", "4.1 GMAC"),
        (25.6e6, "B", "25.6 MB"),
        (0, "J", "0 J"),
        (512, "B", "512 B"),
        (999.6, "s", "1 ks"),
        (0.9996e-6, "s", "1 µs"),
        (-2.5e-12, "J", "-2.5 pJ"),
        (1234, "", "1.23 k"),
        (3e23, "B", "3.00e+05 EB"),
        (2e-25, "J", "2.00e-07 aJ"),
        (math.inf, "B", "∞ B"),
        (math.nan, "B", "– B"),
    ],
)
def test_si(value, unit, expected):
    assert si(value, unit) == expected


def test_axis_scale_brings_the_largest_value_between_1_and_1000():
    factor, unit = axis_scale(2.5e-5, "s")
    assert unit == "µs"
    assert 2.5e-5 * factor == pytest.approx(25)
    assert axis_scale(0.0, "s") == (1.0, "s")


def test_percent_does_not_round_something_to_nothing():
    assert [percent(x) for x in (0.0, 1e-6, 0.1234, 1.0)] == ["0.0 %", "<0.1 %", "12.3 %", "100.0 %"]


def test_shorten_keeps_both_ends_and_one_line():
    assert shorten("transformer.h.10.mlp.fc", 12) == "trans…mlp.fc"
    assert shorten("a\nb\x1b[31m", 20) == "a�b�[31m"
    assert all(len(shorten("x" * 50, n)) == n for n in range(1, 50))


# --- rows ---------------------------------------------------------------------------------------------------


def test_many_operators_are_grouped_by_module_and_none_is_lost():
    report = large_report()
    rows, how = picture_rows(report)
    assert how == "194 operators grouped into 26 modules"
    assert [row.label for row in rows[:3]] == ["embed", "transformer.h.0", "transformer.h.1"]
    assert sum(len(row.ops) for row in rows) == len(report.ops)
    assert sum(row.time_s for row in rows) == pytest.approx(report.time_s)
    assert sum(sum(row.parts_s) for row in rows) == pytest.approx(report.time_s)


def test_phases_are_not_mixed():
    report = large_report(blocks=10)
    back = tuple(replace(op, phase="backward") for op in report.ops)
    rows, _ = picture_rows(replace(report, ops=report.ops + back))
    assert len(rows) == 24
    assert [row.label for row in rows if "h.3" in row.label] == [
        "transformer.h.3 · forward",
        "transformer.h.3 · backward",
    ]


def test_without_modules_the_slowest_operators_are_drawn():
    rows, how = picture_rows(large_report(modules=False))
    assert how == "the 39 slowest of 194 operators"
    assert rows[-1].label == "155 others"
    assert "head" in [row.label for row in rows]


def test_comparison_labels_tell_reports_apart():
    assert comparison_labels([REPORT, SLOWER]) == ["tpu-like 128x128 · int8", "edge 12x14 · bf16"]
    assert comparison_labels([REPORT, REPORT]) == ["tpu-like 128x128 (1)", "tpu-like 128x128 (2)"]


# --- table --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [80, 100, 120, 160])
def test_table_fits_and_holds_the_totals(width):
    text = text_of(REPORT, width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text, "a cell was cut off"
    for op in REPORT.ops:
        assert op.name in text
        assert si(op.time_s, "s") in text
    flat = " ".join(text.split())
    for total in (
        f"latency {si(REPORT.time_s, 's')}",
        "calibrated: ",
        f"energy {si(REPORT.energy_j, 'J')}, predicted",
        f"average power {si(REPORT.average_power_w, 'W')}",
        f"work {si(REPORT.macs, 'MAC')}, {percent(REPORT.utilization)} utilization",
        f"off-chip {si(REPORT.bytes_offchip, 'B')} moved",
        "! unmodelled charged for their bytes only: layer2.0.sort",
        "layer2.0.sort !",
        "relu1 +",
        *REPORT.notes,
    ):
        assert total in flat


def test_wide_table_has_more_columns_than_a_narrow_one():
    narrow, wide = text_of(REPORT, 80).splitlines()[2], text_of(REPORT, 160).splitlines()[2]
    assert narrow.split() == [*("operator", "MACs", "time", "share", "comp", "stall", "ovhd", "off-chip", "energy", "util")]
    assert set(wide.split()) - set(narrow.split()) == {"kind", "format", "unit"}


def test_most_shows_the_slowest_in_execution_order():
    text = text_of(REPORT, most=3)
    shown = [line.split()[0] for line in text.splitlines() if "convolution" in line or "matmul" in line]
    assert shown == ["conv1", "layer1.0.conv1", "layer1.0.conv2"]
    rest = 1 - sum(op.time_s for op in REPORT.ops if op.name in shown) / REPORT.time_s
    assert f"… 10 more operators, {percent(rest)} of the time" in text
    assert "more operator" not in text_of(REPORT, most=13)


def test_most_must_be_positive():
    with pytest.raises(InputError, match=r"^most: must be an integer ≥ 1, got 0$"):
        print_report(REPORT, most=0)


def test_table_is_120_wide_where_the_output_is_no_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    REPORT.print()
    text = capsys.readouterr().out
    assert 100 < max(map(len, text.splitlines())) <= 120
    assert "\x1b" not in text


def test_names_are_not_read_as_markup():
    report = sample_report(ops=(replace(REPORT.ops[0], name="[bold]a[/bold] [/]"),))
    assert "[bold]a[/bold] [/]" in text_of(report)


def test_comparison_table(capsys):
    print_comparison([REPORT, SLOWER])
    lines = capsys.readouterr().out.splitlines()
    fast = next(line for line in lines if line.startswith("tpu-like"))
    slow = next(line for line in lines if line.startswith("edge"))
    assert "1.00×" in fast
    assert "2.00×" in slow
    assert si(SLOWER.energy_j, "J") in slow
    assert "calibrated, predicted" in fast
    assert "bf16" in slow
    with pytest.raises(InputError, match="expected at least one"):
        print_comparison([])


# --- pictures -----------------------------------------------------------------------------------------------

PICTURES = {
    "time": lambda: plot_time(REPORT),
    "energy": lambda: plot_energy(REPORT),
    "roofline": lambda: plot_roofline(REPORT),
    "comparison": lambda: plot_comparison([REPORT, SLOWER] * 3),
    "large time": lambda: plot_time(large_report(36)),
    "large energy": lambda: plot_energy(large_report(36)),
    "sixty": lambda: plot_time(sample_report(ops=(REPORT.ops * 5)[:60])),
    "nasty": lambda: plot_time(nasty_report()),
}


def boxes_overlap(boxes) -> list[tuple[int, int]]:
    """Pairs of boxes that share more than a pixel."""
    return [
        (i, j)
        for i, a in enumerate(boxes)
        for j, b in enumerate(boxes[:i])
        if min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1
    ]


@pytest.mark.parametrize("name", PICTURES)
def test_labels_neither_overlap_nor_leave_the_picture(name):
    figure = PICTURES[name]()
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    edge = figure.bbox
    for ax in figure.axes:
        ticks = []
        for axis, (least, most) in ((ax.yaxis, sorted(ax.get_ylim())), (ax.xaxis, sorted(ax.get_xlim()))):
            shown = [tick.label1 for tick in axis.get_major_ticks() if least <= tick.get_loc() <= most]
            boxes = [label.get_window_extent(renderer) for label in shown if label.get_text()]
            assert boxes or ax is not figure.axes[0]
            assert not boxes_overlap(boxes)
            ticks += boxes
        annotations = [t.get_window_extent(renderer) for t in ax.texts]
        assert not boxes_overlap(annotations)
        titles = [t for t in (ax.title, ax._left_title, ax._right_title) if t.get_text()]
        legend = [ax.get_legend()] if ax.get_legend() else []
        around = [artist.get_window_extent(renderer) for artist in (*titles, *legend)]
        assert not boxes_overlap(around)
        for box in (*annotations, *around, *ticks):
            assert box.x0 >= edge.x0 - 1
            assert box.x1 <= edge.x1 + 1
            assert box.y0 >= edge.y0 - 1
            assert box.y1 <= edge.y1 + 1


def test_the_overlap_check_notices_overlaps():
    figure = plot_time(REPORT)
    figure.set_size_inches(10, 1.6)
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    assert boxes_overlap([t.get_window_extent(renderer) for t in figure.axes[0].get_yticklabels()])


def starts(ax) -> list[list[float]]:
    """Where the bars start, one list a segment."""
    return [[bar.get_x() for bar in container] for container in ax.containers]


def widths(ax) -> list[list[float]]:
    """Widths of the bars, one list a segment."""
    return [[bar.get_width() for bar in container] for container in ax.containers]


def test_time_picture_draws_each_part_of_each_operator():
    figure = plot_time(REPORT)
    (ax,) = figure.axes
    assert ax.get_xlabel() == "time (µs)"
    drawn = np.array(widths(ax))
    assert drawn.shape == (3, len(REPORT.ops))
    cycles = [(op.compute_cycles, op.stall_cycles, op.overhead_cycles) for op in REPORT.ops]
    np.testing.assert_allclose(drawn.T, np.array(cycles) / REPORT.clock_hz * 1e6)
    np.testing.assert_allclose(starts(ax), np.vstack([np.zeros(13), np.cumsum(drawn, axis=0)[:-1]]))
    source = figure.get_supxlabel()
    for part in (REPORT.device, REPORT.workload, REPORT.fidelity, "time calibrated, energy predicted"):
        assert part in source


def test_large_pictures_say_that_they_group():
    (ax,) = plot_time(large_report()).axes
    assert "194 operators grouped into 26 modules" in ax.get_title(loc="left").replace("\n", " ")
    assert len(ax.get_yticklabels()) == 26


def test_energy_picture_adds_up():
    top, ax = plot_energy(REPORT).axes
    assert sum(map(sum, widths(top))) == pytest.approx(REPORT.energy_j * 1e6)
    np.testing.assert_allclose(np.sum(widths(ax), axis=0), [op.energy_total_j * 1e6 for op in REPORT.ops], rtol=1e-12)


def test_energy_components_past_the_palette_share_one_colour():
    ops = tuple(replace(op, energy_j={f"c{i}": 1e-6 / (i + 1) for i in range(12)}) for op in REPORT.ops)
    report = sample_report(ops=ops)
    top, ax = plot_energy(report).axes
    assert [t.get_text() for t in top.get_yticklabels()] == [*(f"c{i}" for i in range(7)), "other"]
    assert sum(map(sum, widths(top))) == pytest.approx(report.energy_j * 1e6)
    assert np.sum(widths(ax)) * 1e-6 * (1 if ax.get_xlabel() == "energy (µJ)" else 0) == pytest.approx(report.energy_j)


def test_roofline_puts_operators_where_they_belong():
    figure = plot_roofline(REPORT)
    (ax,) = figure.axes
    points = np.array([c.get_offsets()[0] for c in ax.collections])
    fc = next(op for op in REPORT.ops if op.name == "fc")
    expected = (fc.macs / fc.bytes_offchip, fc.macs / fc.time_s)
    assert any(np.allclose(point, expected, rtol=1e-9) for point in points)
    assert len(points) == 5, "two operators share a point, those without MACs have none"
    assert "7 operators without MACs left out (19.4 % of the time)" in ax.get_title(loc="left")
    texts = [t.get_text() for t in ax.texts]
    assert "peak 11.5 TMAC/s" in texts
    assert "off-chip 44.8 GB/s" in texts
    assert "fc" in texts
    assert "layer1.0.conv1 (×2)" in texts
    ridge = REPORT.peak_macs_per_s / REPORT.offchip_bandwidth_bytes_per_s
    assert ax.lines[0].get_xdata()[0] == pytest.approx(ridge)


def test_roofline_without_bytes_or_ceilings():
    ops = tuple(replace(op, bytes={"off_chip": 0}) for op in REPORT.ops)
    figure = plot_roofline(sample_report(ops=ops, offchip_bandwidth_bytes_per_s=math.inf, peak_macs_per_s=0.0))
    (ax,) = figure.axes
    title = ax.get_title(loc="left").replace("\n", " ")
    assert "no off-chip bytes" in title
    assert "above the peak" not in title
    assert not ax.lines
    figure.draw_without_rendering()


def test_comparison_picture_has_a_bar_a_report():
    latency, energy, traffic = plot_comparison([REPORT, SLOWER]).axes
    np.testing.assert_allclose(np.sum(widths(latency), axis=0), [REPORT.time_s * 1e6, SLOWER.time_s * 1e6])
    np.testing.assert_allclose(np.sum(widths(energy), axis=0), [REPORT.energy_j * 1e6, SLOWER.energy_j * 1e6])
    np.testing.assert_allclose(widths(traffic)[0], [r.bytes_offchip / 1e6 for r in (REPORT, SLOWER)])


# --- timeline -----------------------------------------------------------------------------------------------


def test_trace_conforms_and_tells_the_spans():
    trace = trace_events(REPORT)
    assert validate_trace(trace) == []
    assert trace["displayTimeUnit"] == "ns"
    spans = [e for e in trace["traceEvents"] if e["ph"] == "X"]
    assert len(spans) == len(REPORT.spans)
    first = next(e for e in spans if e["name"] == "load conv1")
    assert first["ts"] == 0
    assert first["dur"] == pytest.approx(953_000 / 44.8e9 * 1e6, abs=1e-6)
    assert first["args"] == {"bytes": 953_000, "tensor": "conv1.weight"}
    threads = {e["tid"]: e["args"]["name"] for e in trace["traceEvents"] if e["name"] == "thread_name"}
    assert sorted(threads.values()) == ["array", "off_chip", "vector"]
    assert threads[first["tid"]] == "off_chip"


def test_bandwidth_counter_adds_concurrent_transfers():
    spans = (
        Span("off_chip", "a", 0.0, 2e-6, {"bytes": 2000}),
        Span("off_chip", "b", 1e-6, 2e-6, {"bytes": 4000}),
        Span("off_chip", "refresh", 5e-6, 1e-6),
    )
    trace = trace_events(sample_report(spans=spans))
    assert validate_trace(trace) == []
    counters = [(e["ts"], e["args"]["bytes/s"]) for e in trace["traceEvents"] if e["ph"] == "C"]
    assert [ts for ts, _ in counters] == [0, 1, 2, 3]
    np.testing.assert_allclose([rate for _, rate in counters], [1e9, 3e9, 2e9, 0])
    names = [e["args"]["name"] for e in trace["traceEvents"] if e["name"] == "thread_name"]
    assert names == ["off_chip", "off_chip (2)"], "overlapping transfers get a thread of their own"


def test_trace_details_become_json():
    details = {"n": np.int64(3), "x": math.inf, "shape": (1, 2), "path": Path("a")}
    trace = trace_events(sample_report(spans=(Span("array", "s", 0.0, 1e-9, details),)))
    assert validate_trace(trace) == []
    (event,) = [e for e in trace["traceEvents"] if e["ph"] == "X"]
    assert event["args"] == {"n": 3, "x": "inf", "shape": [1, 2], "path": "a"}
    assert event["dur"] == 0.001


def span(**changes) -> dict:
    return {"name": "a", "ph": "X", "ts": 0, "dur": 10, "pid": 1, "tid": 1} | changes


@pytest.mark.parametrize(
    ("events", "problem"),
    [
        ([span(ph="?")], "unknown phase '?'"),
        ([span(ph=None)], "unknown phase None"),
        ([span(name=3)], "name: expected a string"),
        ([span(ts=-1)], "ts: expected a number ≥ 0, got -1"),
        ([span(ts="0")], "ts: expected a number ≥ 0, got '0'"),
        ([span(dur=None)], "dur: expected a number ≥ 0, got None"),
        ([span(dur=math.nan)], "not JSON"),
        ([span(pid="1")], "pid: expected an integer, got '1'"),
        ([span(tid=True)], "tid: expected an integer, got True"),
        ([span(args=[1])], "args: expected an object"),
        ([span(args={"x": object()})], "not JSON"),
        (["X"], "event 0: expected an object"),
        ([span(), span(name="b", ts=5)], "'b' overlaps 'a' without nesting"),
        ([span(dur=2), span(name="b", ts=1), span(name="c", ts=5, dur=1)], "'b' overlaps 'a'"),
        ([{"name": "n", "ph": "C", "ts": 0, "pid": 1, "args": {}}], "a counter needs one or more numbers"),
        ([{"name": "n", "ph": "C", "ts": 0, "pid": 1, "args": {"v": "1"}}], "a counter needs"),
        ([{"name": "n", "ph": "C", "pid": 1, "args": {"v": 1}}], "ts: expected a number"),
        ([{"name": "thread_name", "ph": "M", "pid": 1, "args": {}}], "thread_name needs 'name' (str)"),
        ([{"name": "colour", "ph": "M", "pid": 1, "args": {"name": "x"}}], "unknown metadata 'colour'"),
        ([span(ph="B")], "1 begun and not ended"),
        ([span(ph="E")], "ends what was not begun"),
    ],
)
def test_validate_trace_finds(events, problem):
    problems = validate_trace({"traceEvents": events})
    assert any(problem in found for found in problems), problems


def test_validate_trace_accepts_nested_adjacent_and_parallel_spans():
    events = [span(), span(ts=2, dur=8), span(ts=3, dur=2), span(ts=10), span(ts=5, tid=2), span(ts=5, pid=2)]
    assert validate_trace({"traceEvents": events}) == []
    assert validate_trace([]) == ["expected an object with a list 'traceEvents'"]
    assert validate_trace({"traceEvents": [], "displayTimeUnit": "s"}) == ["displayTimeUnit: expected 'ms' or 'ns', got 's'"]


# --- pages --------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Reads a page: its elements, whether they balance, what they load, and their text."""

    VOID = frozenset({"meta", "input", "br", "img", "link", "hr"})

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.errors: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.loads: list[str] = []
        self.words: list[str] = []
        self.feed(source)
        self.close()
        self.errors += [f"{tag} is not closed" for tag in self.open]

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href", "srcset", "action", "data") and not value.startswith("#"):
                self.loads.append(value)
            if name.startswith("on"):
                self.errors.append(f"{tag} has a handler {name}")

    def handle_endtag(self, tag):
        if not self.open or self.open[-1] != tag:
            self.errors.append(f"</{tag}> closes {self.open[-1:]}")
        else:
            self.open.pop()

    def handle_data(self, data):
        if "script" not in self.open and "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def page_source() -> str:
    return report_html(REPORT)


@pytest.fixture(scope="module")
def nasty_source() -> str:
    return report_html(nasty_report())


def test_page_is_well_formed_and_loads_nothing(page_source):
    page = Page(page_source)
    assert page.errors == []
    assert page.loads == []
    assert not re.search(r"https?://|@import|url\((?!#)", page_source)
    assert len(page.ids) == len(set(page.ids))
    assert page.tags.count("svg") == 3
    assert "prefers-color-scheme: dark" in page_source


def test_pictures_in_the_page_refer_to_what_is_there(page_source):
    ids = set(Page(page_source).ids)
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', page_source))
    assert len(used) > 10
    assert used <= ids


def test_page_says_the_totals_and_every_operator(page_source):
    text = Page(page_source).text
    for words in (
        f"latency calibrated {si(REPORT.time_s, 's')}",
        f"energy predicted {si(REPORT.energy_j, 'J')}",
        si(REPORT.average_power_w, "W"),
        si(REPORT.macs, "MAC"),
        si(REPORT.bytes_offchip, "B"),
        percent(REPORT.utilization),
        *REPORT.notes,
        "layer2.0.sort unmodelled",
        "relu1 fused",
        "fold_counts (2 rows)",
        "weight stationary",
        '"columns": 128',
        "<b>bold</b> & plain",
        "Calibrated figures were fitted to a named measurement.",
    ):
        assert words in text
    assert page_source.count("<tr data-share=") == len(REPORT.ops)
    shares = [float(x) for x in re.findall(r'data-share="([^"]+)"', page_source)]
    assert sum(shares) == pytest.approx(1)


def test_sort_keys_are_the_figures_themselves(page_source):
    row = next(line for line in page_source.splitlines() if "data-share" in line and "fc</td>" in line)
    assert '<td class="l">matmul</td><td class="l">fc</td><td class="l">int8→int32</td>' in row
    keys = [float(x) for x in re.findall(r'data-v="([^"]+)"', row)]
    fc = REPORT.ops[11]
    lost = (fc.stall_cycles + fc.overhead_cycles) / fc.cycles
    expected = [12, fc.macs, fc.time_s, fc.time_s, lost, fc.bytes_offchip, fc.energy_total_j, fc.utilization]
    assert keys == pytest.approx(expected)


@pytest.mark.parametrize("view", ["page", "notebook", "comparison"])
def test_what_users_wrote_is_escaped(view, nasty_source):
    report = nasty_report()
    if view == "page":
        source = nasty_source
    elif view == "notebook":
        source = notebook_html(report)
    else:
        source = comparison_html([report, REPORT])
    page = Page(source)
    assert page.errors == []
    assert page.loads == []
    assert page.tags.count("script") == (1 if view == "page" else 0)
    assert not {"img", "u", "r", "f", "t", "column", "cell"} & set(page.tags)
    assert "<u>note</u>" in page.text
    assert (NASTY in page.text) == (view != "comparison")
    assert 'dev"><script>' in page.text


def test_page_names_the_phase_only_where_there_are_several(page_source):
    assert ">phase<" not in page_source
    ops = tuple(replace(op, phase="backward") for op in REPORT.ops)
    assert ">phase<" in report_html(sample_report(ops=REPORT.ops + ops), figures={})


def test_long_tables_are_cut_and_say_so():
    rows = [{"i": i} for i in range(700)]
    source = report_html(sample_report(tables={"long": rows}), figures={})
    assert "200 more rows in report.json" in source
    assert "<td>499</td>" in source
    assert "<td>500</td>" not in source


def test_notebook_view_is_compact():
    report = large_report()
    source = notebook_html(report)
    page = Page(source)
    assert page.errors == []
    assert page.tags.count("tr") == 16
    assert "style" not in page.tags
    assert "script" not in page.tags
    assert si(report.time_s, "s") in page.text
    assert "… 179 more operators" in page.text
    assert report._repr_html_() == source


def test_comparison_page():
    source = comparison_html([REPORT, SLOWER])
    page = Page(source)
    assert page.errors == []
    assert page.tags.count("svg") == 1
    assert "2.00×" in page.text
    assert si(SLOWER.energy_j, "J") in page.text
    (fastest,) = [line for line in source.splitlines() if line.startswith('<tr style="font-weight:650"')]
    assert REPORT.device in fastest


# --- files --------------------------------------------------------------------------------------------------


def colours(path: Path) -> int:
    """Distinct colours of a picture."""
    from matplotlib.image import imread

    pixels = imread(path)
    assert pixels.ndim == 3
    assert min(pixels.shape[:2]) > 200
    return len(np.unique((pixels[..., :3] * 255).astype(np.uint8).reshape(-1, 3), axis=0))


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("out") / "deep" / "er"
    written = REPORT.save(folder)
    assert sorted(written) == sorted(folder.iterdir())
    return folder


def test_saved_files(saved):
    assert sorted(path.name for path in saved.iterdir()) == [
        "energy.png", "report.csv", "report.html", "report.json", "roofline.png", "time.png", "timeline.json",
    ]  # fmt: skip
    for name in ("energy", "roofline", "time"):
        assert colours(saved / f"{name}.png") > 30
    assert Page((saved / "report.html").read_text("utf-8")).errors == []
    assert validate_trace(json.loads((saved / "timeline.json").read_text())) == []


def test_saved_json_reads_back(saved):
    data = json.loads((saved / "report.json").read_text("utf-8"))
    assert Report.from_dict(data) == REPORT
    assert Report.from_dict(REPORT.to_dict()) == REPORT


def test_saved_csv_reads_back(saved):
    with (saved / "report.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["name"] for row in rows] == [op.name for op in REPORT.ops]
    assert rows[0]["format"] == "int8→int32"
    assert sum(float(row["time_s"]) for row in rows) == pytest.approx(REPORT.time_s, rel=1e-12)
    assert sum(int(row["bytes_off_chip"]) for row in rows) == REPORT.bytes_offchip


def test_tables_with_a_registered_view_have_a_picture(tmp_path, monkeypatch):
    def view(report):
        figure = plot_time(report)
        figure.suptitle(str(len(report.tables["fold_counts"])))
        return figure

    views = {"fold_counts": view, "absent": lambda report: pytest.fail("no such table in the report")}
    asked = []
    monkeypatch.setattr(files, "load_group", lambda group: asked.append(group) or views)
    written = save_report(REPORT, tmp_path)
    assert set(asked) == {"hwsim.views"}
    assert tmp_path / "fold_counts.png" in written
    assert colours(tmp_path / "fold_counts.png") > 30
    assert (tmp_path / "report.html").read_text("utf-8").count("<svg") == 4


def test_a_failing_view_leaves_the_data(tmp_path, monkeypatch):
    def broken(report):
        raise RuntimeError("broken view")

    monkeypatch.setattr(files, "load_group", lambda group: {"fold_counts": broken})
    with pytest.raises(RuntimeError, match="broken view"):
        save_report(REPORT, tmp_path)
    assert Report.from_dict(json.loads((tmp_path / "report.json").read_text())) == REPORT


def test_unwritable_folders(tmp_path, monkeypatch):
    taken = tmp_path / "taken"
    taken.write_text("")
    for folder, reason in (
        (taken, "it exists and is not a folder"),
        (taken / "below", "not a directory"),
    ):
        for save, what in ((save_report, REPORT), (save_comparison, [REPORT])):
            with pytest.raises(InputError) as error:
                save(what, folder)
            assert str(error.value) == f"out: cannot write to {folder}: {reason}"
    (tmp_path / "report.csv").mkdir()
    with pytest.raises(InputError, match=f"^out: cannot write to {tmp_path}: is a directory$"):
        save_report(REPORT, tmp_path)

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(InputError, match=r"cannot write to .*: permission denied$"):
        save_report(REPORT, tmp_path / "new")


def test_saved_comparison(tmp_path):
    written = save_comparison([REPORT, SLOWER], tmp_path)
    assert sorted(p.name for p in written) == [f"comparison.{e}" for e in ("csv", "html", "json", "png")]
    rows = list(csv.DictReader(io.StringIO((tmp_path / "comparison.csv").read_text("utf-8"))))
    assert [row["device"] for row in rows] == [REPORT.device, SLOWER.device]
    assert [float(row["relative_time"]) for row in rows] == [1.0, 2.0]
    data = json.loads((tmp_path / "comparison.json").read_text())
    assert data["reports"] == comparison_rows([REPORT, SLOWER])
    assert data["reports"][1]["compute_s"] == pytest.approx(2 * data["reports"][0]["compute_s"])
    assert colours(tmp_path / "comparison.png") > 30


def test_a_report_without_operators_has_all_views(tmp_path):
    report = empty_report()
    written = save_report(report, tmp_path)
    assert len(written) == 7
    assert "0 s" in text_of(report)
    assert "0 s" in notebook_html(report)
    assert Page((tmp_path / "report.html").read_text("utf-8")).errors == []
    save_comparison([report], tmp_path)
    assert comparison_rows([report])[0]["relative_time"] is None


# --- imports ------------------------------------------------------------------------------------------------


def test_views_import_heavy_libraries_only_when_they_draw():
    folder = Path(hwsim.views.__file__).parent
    modules = sorted(folder.glob("*.py"))
    assert len(modules) >= 8
    for path in modules:
        for node in ast.parse(path.read_text("utf-8")).body:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            heavy = {name.split(".")[0] for name in names} & {"matplotlib", "rich", "pandas", "numpy"}
            assert not heavy, f"{path.name} imports {heavy} at its top"


def test_sample_operators_are_consistent():
    for op in sample_ops():
        assert op.compute_cycles + op.stall_cycles + op.overhead_cycles == op.cycles
        assert op.time_s == pytest.approx(op.cycles / REPORT.clock_hz)
