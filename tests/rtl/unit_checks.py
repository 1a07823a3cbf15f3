"""What every model of RTL units is tested for; a file a model, so that two build and run at a time."""

import functools

from simulators import need

from rtl.verification import configurations, verify


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
