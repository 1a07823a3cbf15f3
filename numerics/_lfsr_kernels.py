"""States of a linear feedback shift register, one after the other (numba)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def run(state: Any, mask: Any, steps: int, out: Any) -> None:
    """Write ``state`` to ``out``, then the states ``steps``, 2 · ``steps``, … steps after it; unsigned, 64 bits."""
    one = np.uint64(1)
    none = np.uint64(0)
    for i in range(out.size):
        out[i] = state
        for _ in range(steps):
            state = (state >> one) ^ (mask if state & one else none)
