"""RTL units against their models, every bit in every cycle: model ``arithmetic`` of ``rtl/configurations.yaml``."""

import pytest
from unit_checks import check, check_latencies, names, under_icarus


@pytest.mark.parametrize("name", names("arithmetic"), ids=" ".join)
def test_the_unit_is_its_model(name):
    check("arithmetic", "verilator", name)


@pytest.mark.parametrize("name", under_icarus("arithmetic"))
def test_icarus_agrees(name):
    check("arithmetic", "icarus", name)


def test_latencies_are_documented():
    check_latencies("arithmetic")
