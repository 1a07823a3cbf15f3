"""RTL units against their models, every bit in every cycle: model ``floating_point`` of ``rtl/configurations.yaml``."""

import pytest
from unit_checks import check, check_latencies, names


@pytest.mark.parametrize("name", names("floating_point"), ids=" ".join)
def test_the_unit_is_its_model(name):
    check("floating_point", "verilator", name)


def test_latencies_are_documented():
    check_latencies("floating_point")
