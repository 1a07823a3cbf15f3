"""What every model of RTL units is tested for; a file a model, so that two build and run at a time."""

import functools
from pathlib import Path

from simulators import need

from rtl.verification import configurations, latency_table, verify

PAGE = Path(__file__).parents[2] / "docs" / "rtl.md"


@functools.cache
def results(model, simulator):
    need(simulator)
    units = dict.fromkeys(c.unit for c in configurations(simulator=simulator) if c.model == model)
    return {(r.unit, r.configuration): r for r in verify(tuple(units), simulator=simulator)}


def names(model, simulator="verilator"):
    return [(c.unit, c.name) for c in configurations(simulator=simulator) if c.model == model]


def check(model, simulator, name):
    result = results(model, simulator)[name]
    assert result.passed, f"{result.difference}, waveform {result.waveform}"
    assert result.mismatching_bits == 0
    assert result.cases > 0
    assert result.cycles > 0
    assert result.latency is not None


def check_latencies(model):
    """The table of the documentation has what the runs of this model give."""
    found = latency_table(results(model, "verilator").values()).splitlines()[2:]
    table = PAGE.read_text(encoding="utf-8").partition("<!-- latency -->\n")[2].partition("\n\n")[0].splitlines()[2:]
    units = tuple(f"| `{unit}` |" for unit, _ in names(model))
    assert [row for row in table if row.startswith(units)] == found
