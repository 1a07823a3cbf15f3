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


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """With ``--dist loadscope`` the tests of a file stay on one worker, as they share what they build; pages and notebooks, each
    long and on its own, go one by one to whoever is free."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            path = nodeid.split("::")[0]
            return nodeid if path.startswith(("tests/docs/", "tests/notebooks/")) else path

    return ByFile(config, log) if config.getvalue("dist") == "loadscope" else None
