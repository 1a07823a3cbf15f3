"""What every model of RTL units is tested for; a file a model, so that two build and run at a time."""

import functools
from pathlib import Path

import pytest
from simulators import need

from rtl.verification import configurations, latency_table, verify

PAGE = Path(__file__).parents[2] / "docs" / "rtl.md"

UNDER_ICARUS = {
    "mac_int8": ("saturating",),
    "secded_72_64": ("standard",),
    "booth_mac": ("int4", "lockstep32", "bit_weight8"),
    "threshold_neuron": ("inputs1", "inputs10"),
    "lif_core": ("neurons4", "neurons5"),
    "spike_router": ("depth1", "depth3"),
    "spike_mesh": ("2x2", "1x3", "3x2"),
    "systolic_ws": ("1x16", "2x2", "3x5", "4x4_saturate", "3x5_none", "1x1_weights", "3x5_weights"),
    "systolic_os": ("1x16", "2x2", "3x5", "4x4_saturate", "1x1_none", "3x5_none"),
}
"""What CI runs under Icarus, which takes ten times as long as Verilator, to which no configuration is spared; the others are
exhaustive."""


def sampled(name):
    unit, configuration = name
    return configuration in UNDER_ICARUS[unit]


@functools.cache
def results(simulator, chosen):
    need(simulator)
    return {(r.unit, r.configuration): r for r in verify([f"{u}:{c}" for u, c in chosen], simulator=simulator)}


def names(model, simulator="verilator"):
    return tuple((c.unit, c.name) for c in configurations(simulator=simulator) if c.model == model)


def under_icarus(model):
    """Parameters of a test: the configurations of a model that Icarus runs."""
    return [pytest.param(n, marks=[] if sampled(n) else pytest.mark.exhaustive, id=" ".join(n)) for n in names(model, "icarus")]


def check(model, simulator, name):
    chosen = names(model, simulator)
    if simulator == "icarus":
        chosen = tuple(n for n in chosen if sampled(n) == sampled(name))
    result = results(simulator, chosen)[name]
    assert result.passed, f"{result.difference}, waveform {result.waveform}"
    assert result.mismatching_bits == 0
    assert result.cases > 0
    assert result.cycles > 0
    assert result.latency is not None


def check_latencies(model):
    """The table of the documentation has what the runs of this model give."""
    found = latency_table(results("verilator", names(model)).values()).splitlines()[2:]
    table = PAGE.read_text(encoding="utf-8").partition("<!-- latency -->\n")[2].partition("\n\n")[0].splitlines()[2:]
    units = tuple(f"| `{unit}` |" for unit, _ in names(model))
    assert [row for row in table if row.startswith(units)] == found
