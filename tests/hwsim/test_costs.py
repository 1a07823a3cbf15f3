"""Costs of many configurations of one machine, the way that every kind of device has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hwsim.api import workload_from
from hwsim.operators import Matmul
from hwsim.registry import device_classes, get_device
from hwsim.workload import chain
from numerics.errors import InputError

LINE = {kind: next(iter(cls.bundled())) for kind, cls in device_classes().items()}
"""Kind → one bundled device."""
SPIKING = Path(__file__).parents[1] / "neuromorphic" / "data" / "lif.nir"


@pytest.mark.parametrize("kind", sorted(LINE))
def test_every_kind_of_device(kind):
    device = get_device(LINE[kind])
    workload = chain("one", [Matmul(name="mm", m=20, n=12, k=30)])
    if device.event_driven:
        workload = workload_from(str(SPIKING), steps=5)
    # The third is one that every spec refuses.
    clock = "clock_hz" if "clock_hz" in type(device.spec).model_fields else "name"
    changes = [{}, {"static_power_w": 0.25}, {clock: -1.0}, {"static_power_w": 0.5, clock: getattr(device.spec, clock)}]
    for fidelity in device.fidelities:
        found = device.costs(workload, changes, fidelity=fidelity)
        assert len(found) == len(found.time_s) == len(found.energy_j) == 4
        for i, change in enumerate(changes):
            if i == 2:
                with pytest.raises(InputError) as refused:
                    get_device(device, overrides=change)
                assert found.errors[i] == str(refused.value)
                assert np.isnan([found.time_s[i], found.energy_j[i]]).all()
                continue
            report = get_device(device, overrides=change).simulate(workload, fidelity=fidelity)
            assert found.errors[i] == ""
            assert found.time_s[i] == report.time_s
            assert found.energy_j[i] == report.energy_j
        assert [bool(text) for text in found.errors] == [False, False, True, False]
        assert found.energy_j[3] > found.energy_j[1]
    with pytest.raises(InputError, match="unknown field 'no_such_field'"):
        device.costs(workload, [{}, {"no_such_field": 1}])


def test_what_nobody_published_is_not_a_number():
    """Chips whose figures are lower bounds: where they come to nothing, nothing is known."""
    workload = workload_from(str(SPIKING), steps=5)
    for name in type(get_device(LINE["neuromorphic_chip"])).bundled():
        device = get_device(name)
        report, found = device.simulate(workload, fidelity="analytic"), device.costs(workload, [{}], fidelity="analytic")
        for known, value in ((report.known_time_s, found.time_s[0]), (report.known_energy_j, found.energy_j[0])):
            assert np.isnan(value) if known is None else value == known, (name, known, value)


def test_the_later_of_two_names_of_one_field_counts():
    device, workload = get_device("cpu"), chain("one", [Matmul(name="mm", m=64, n=64, k=64)])
    found = device.costs(workload, [{"static_power_w": 1.0}, {"static_power_w": 5.0}, {}])
    assert found.energy_j[1] - found.energy_j[0] == pytest.approx(4.0 * found.time_s[0])
