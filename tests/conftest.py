"""Settings for every test."""

import os
import sys
from pathlib import Path

import matplotlib
from hypothesis import settings

matplotlib.use("Agg")
# The same examples on every run: a failure in CI is a failure on the desk.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

os.environ.setdefault("NO_COLOR", "1")
for folder in ("accelerators", "hwsim", "neuromorphic", "numerics", "photonic", "rtl"):
    sys.path.insert(0, str(Path(__file__).parent / folder))
