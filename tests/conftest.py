"""Settings for every test."""

import os
import sys
from pathlib import Path

import matplotlib
import pytest
from hypothesis import settings

matplotlib.use("Agg")
# The same examples on every run: a failure in CI is a failure on the desk.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

os.environ.setdefault("NO_COLOR", "1")
for folder in ("accelerators", "hwsim", "neuromorphic", "numerics", "photonic", "rtl"):
    sys.path.insert(0, str(Path(__file__).parent / folder))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """With ``--dist loadgroup`` the tests of a file stay on one worker, as they share what they build; pages and notebooks, each
    long and on its own, go one by one to whoever is free."""
    for item in items:
        if item.path.parent.name not in ("docs", "notebooks"):
            item.add_marker(pytest.mark.xdist_group(str(item.path)))
