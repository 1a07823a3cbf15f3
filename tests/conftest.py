"""Settings for every test."""

import os
import sys
from collections import Counter
from pathlib import Path

# Of two workers on two cores each has one: torch's threads spin while they wait, so that more of them work no quicker and take
# three times the processor's time from the other worker (tests/hwsim/test_incremental.py: 33 s instead of 9 s).
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

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


FIRST = (
    "tests/hwsim/test_wheel.py",
    "tests/rtl/test_units_",
    "tests/notebooks/",
    "tests/docs/",
    "tests/rtl/",
    "tests/accelerators/test_tpe_parts.py",
    "tests/hwsim/test_fault_",
    "tests/hwsim/test_incremental.py",
    "tests/numerics/test_products.py",
    "tests/numerics/test_training.py",
    "tests/hwsim/test_scoreboard_goals.py",
    "tests/accelerators/test_cycle.py",
    "tests/accelerators/test_mapped_faults.py",
    "tests/neuromorphic/test_arithmetic.py",
    "tests/neuromorphic/test_rows_",
    "tests/photonic/test_training_",
    "tests/photonic/test_rows_",
)
"""Where paths of long tests begin, the longest first."""


ALONE = ("tests/docs/test_docs.py", "tests/notebooks/test_notebooks.py")
"""Files whose tests share nothing: pages and notebooks, each long and for whoever is free."""


def pytest_collection_modifyitems(config, items):
    """Two workers end together if what is long comes first: what ``FIRST`` names, then files by their number of tests."""
    if not hasattr(config, "workerinput"):
        return
    paths = [item.nodeid.split("::")[0] for item in items]
    tests = Counter(paths)
    places = {path: next((i for i, start in enumerate(FIRST) if path.startswith(start)), len(FIRST)) for path in tests}
    order = sorted(range(len(items)), key=lambda i: (places[paths[i]], 0 if paths[i] in ALONE else -tests[paths[i]]))
    items[:] = [items[i] for i in order]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """With ``--dist loadscope`` the tests of a file stay on one worker, as they share what they build; not those ``ALONE``."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            path = nodeid.split("::")[0]
            return nodeid if path in ALONE else path

    config.option.loadscopereorder = False  # the order is that of the items
    return ByFile(config, log) if config.getvalue("dist") == "loadscope" else None
