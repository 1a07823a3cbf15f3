"""RTL units against their models, every bit in every cycle: model ``neuromorphic`` of ``rtl/configurations.yaml``."""

import pytest
from unit_checks import check, check_latencies, names, under_icarus


@pytest.mark.parametrize("name", names("neuromorphic"), ids=" ".join)
def test_the_unit_is_its_model(name):
    check("neuromorphic", "verilator", name)


@pytest.mark.parametrize("name", under_icarus("neuromorphic"))
def test_icarus_agrees(name):
    check("neuromorphic", "icarus", name)


def test_latencies_are_documented():
    check_latencies("neuromorphic")
