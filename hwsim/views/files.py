"""Reports as files in a folder."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

from hwsim.plugins import load_group
from hwsim.report import Report
from hwsim.views.html import comparison_html, report_html
from hwsim.views.perfetto import trace_events
from hwsim.views.plots import plot_comparison, plot_energy, plot_roofline, plot_time
from hwsim.views.rows import comparison_rows
from numerics.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

VIEWS = "hwsim.views"
"""Entry points that draw a report's extra tables: table name → function from a report to a figure."""

COMPARISON_SCHEMA = "hwsim.comparison"


def report_figures(report: Report) -> dict[str, Figure]:
    """Name → picture: time, energy, roofline, and each extra table for which a view is registered."""
    figures = {"time": plot_time(report), "energy": plot_energy(report)}
    if report.peak_macs_per_s:  # a machine of multiply-accumulates
        figures["roofline"] = plot_roofline(report)
    for table, view in load_group(VIEWS).items():
        if report.tables.get(table) and (figure := view(report)) is not None:
            name = re.sub(r"[^\w.-]+", "_", table)
            figures[f"{name}_table" if name in figures else name] = figure
    return figures


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what goes wrong while writing into the error for the user."""
    try:
        if folder.exists() and not folder.is_dir():
            raise InputError(f"out: cannot write to {folder}: it exists and is not a folder")
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise InputError(f"out: cannot write to {folder}: {(error.strerror or str(error)).lower()}") from error


def prepare_folder(folder: Path) -> None:
    """Make the output folder, and see that a file can be written there, before any long work begins.

    Raises:
        InputError: the folder cannot be made or written.
    """
    with writing(folder), TemporaryFile(dir=folder):
        pass


def _write(folder: Path, texts: dict[str, str], figures: dict[str, Figure]) -> list[Path]:
    """Write the files and return their paths, texts first."""
    written = []
    with writing(folder):
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8", newline="\n")
            written.append(folder / name)
        for name, figure in figures.items():
            path = folder / f"{name}.png"
            figure.savefig(path)
            written.append(path)
    return written


def save_report(report: Report, folder: Path) -> list[Path]:
    """Write the report's data, timeline, page and pictures into ``folder``; returns the paths.

    The data come first, so that a view that fails does not lose them. The folder is made if need be.

    Raises:
        InputError: the folder cannot be made or written.
    """
    data = {
        "report.json": report.to_json(),
        "report.csv": report.to_csv(),
        "timeline.json": json.dumps(trace_events(report), allow_nan=False),
    }
    written = _write(folder, data, {})
    figures = report_figures(report)
    return written + _write(folder, {"report.html": report_html(report, figures=figures)}, figures)


def save_comparison(reports: Sequence[Report], folder: Path) -> list[Path]:
    """Write the comparison of ``reports`` as CSV, JSON, page and picture into ``folder``; returns the paths.

    Raises:
        InputError: no reports, or the folder cannot be made or written.
    """
    rows = comparison_rows(reports)
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    document = {"schema": COMPARISON_SCHEMA, "schema_version": 1, "reports": rows}
    data = {"comparison.csv": buffer.getvalue(), "comparison.json": json.dumps(document, indent=1)}
    written = _write(folder, data, {})
    figure = plot_comparison(reports)
    page = {"comparison.html": comparison_html(reports, figure=figure)}
    return written + _write(folder, page, {"comparison": figure})
