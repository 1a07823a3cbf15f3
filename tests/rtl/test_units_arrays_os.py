"""RTL units against their models, every bit in every cycle: model ``arrays_os`` of ``rtl/configurations.yaml``."""

import pytest
from unit_checks import check, check_latencies, names, under_icarus


@pytest.mark.parametrize("name", names("arrays_os"), ids=" ".join)
def test_the_unit_is_its_model(name):
    check("arrays_os", "verilator", name)


@pytest.mark.parametrize("name", under_icarus("arrays_os"))
def test_icarus_agrees(name):
    check("arrays_os", "icarus", name)


def test_latencies_are_documented():
    check_latencies("arrays_os")
