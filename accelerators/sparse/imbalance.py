"""How long lanes wait for the slowest: the expected maximum of binomial counts."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np


@lru_cache(maxsize=65536)
def expected_maximum(trials: float, probability: float, lanes: int) -> float:
    """Expected largest of ``lanes`` independent counts, each of so many trials: Σ_{x ≥ 0} 1 − F(x)^lanes.

    F is the binomial distribution function. Between whole numbers of trials along the straight line, so that a probability of 1
    gives the number itself.

    Args:
        trials: 0 or more.
        probability: of each trial.
        lanes: 1 or more.
    """
    if probability >= 1 or trials <= 0 or probability <= 0:
        return trials * min(1.0, max(0.0, probability))
    if lanes == 1:
        return trials * probability
    below = math.floor(trials)
    low = _whole(below, probability, lanes)
    return low if below == trials else low + (trials - below) * (_whole(below + 1, probability, lanes) - low)


def _whole(trials: int, probability: float, lanes: int) -> float:
    from scipy.special import bdtr

    if trials == 0:
        return 0.0
    mean, spread = trials * probability, math.sqrt(trials * probability * (1 - probability))
    # Beyond ten deviations, and the twenty counts that a rare event needs, the sum has no digits left.
    reach = 10 * spread + 20
    first, last = max(0, math.floor(mean - reach)), min(trials, math.ceil(mean + reach))
    counts = np.arange(first, last, dtype=float)
    return first + float(np.sum(1 - bdtr(counts, trials, probability) ** lanes))
