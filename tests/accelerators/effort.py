"""How many random examples a test tries: ``make test-exhaustive`` sets HWSIM_EFFORT."""

import os

EFFORT = int(os.environ.get("HWSIM_EFFORT", "1"))


def examples(usual: int) -> int:
    """``usual`` examples, times the effort asked for."""
    return usual * EFFORT
