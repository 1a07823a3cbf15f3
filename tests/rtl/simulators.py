"""Which simulators are here; where CI must have them, their absence is a failure and not a skip."""

import os

import pytest

from rtl.simulator import missing_tools

REQUIRED = os.environ.get("HWSIM_REQUIRE_RTL", "").split(",")


def need(simulator):
    lacking = missing_tools(simulator)
    if lacking and simulator in REQUIRED:
        pytest.fail(f"CI needs {simulator}: {lacking}")
    if lacking:
        pytest.skip(lacking)
