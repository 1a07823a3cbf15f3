"""Cores that share a memory of several banks, or a floating-point unit: how long an access waits.

**Banks.** In every cycle a bank serves one of the cores that ask for it; the others hold their request and stall. A core makes
``density`` accesses for each cycle in which it does not stall, and picks a bank at random. With N cores, B banks and ρ the share
of cycles in which a bank is busy:

- A bank's queue in a cycle is what was left before plus what arrives, A; it loses one. Taking expectations of its square in
  the steady state (the discrete M/D/1 queue) gives a mean of L = ρ + E[A(A − 1)] / (2(1 − ρ)). Each core arrives at a given bank
  with probability ρ/N, so that E[A(A − 1)] = (1 − 1/N)·ρ².
- The network is closed: each core is in one of the B queues, or runs one of the 1/density − 1 cycles between two accesses:
  N = B·L + Bρ·(1/density − 1).

The two make a quadratic in ρ. For density 1 and N = B → ∞ it gives ρ = 2 − √2, the known limit of synchronous interleaved
memories (Baskett, Smith, "Interference in multiprocessor computer systems with interleaved memory", CACM 19(6), 1976).

**One unit.** The queues of many banks are nearly independent; the one queue of a single unit is not, and is solved exactly: the
number of cores that wait is a Markov chain.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np


def busy_fraction(cores: Any, banks: int, density: Any) -> Any:
    """Share of cycles in which a bank is busy.

    Args:
        cores, banks: how many.
        density: accesses a core makes for each cycle in which it does not stall, above 0 and at most 1. It and ``cores`` may
            be arrays that broadcast.
    """
    between = banks / np.asarray(density, dtype=float)
    curve = between - banks * (1 - 1 / np.asarray(cores)) / 2
    linear = between + cores
    # curve·ρ² − linear·ρ + cores = 0; the smaller root is the one below 1.
    return 2 * cores / (linear + np.sqrt(np.maximum(0.0, linear * linear - 4 * curve * cores)))


def wait_cycles(cores: Any, banks: int, density: Any) -> Any:
    """Cycles that an access waits on average; 0 for one core or no accesses."""
    some = np.asarray(density, dtype=float) > 0
    busy = busy_fraction(cores, banks, np.clip(density, 1e-12, 1.0))
    return np.where(some, (1 - 1 / np.asarray(cores)) * busy / (2 * np.maximum(1e-12, 1 - busy)), 0.0)


@lru_cache(maxsize=4096)
def unit_wait_cycles(cores: int, density: float) -> float:
    """Cycles that an access to one unit, which serves one a cycle, waits on average.

    Of the cores that do not wait each asks in a cycle with probability ``density``, so that from j waiting cores the next state
    is max(0, j + a − 1) with a ~ Binomial(cores − j, density). The wait is the mean number of waiting cores over the share of
    cycles in which one is served.

    Args:
        cores: that share the unit.
        density: accesses a core makes for each cycle in which it does not wait.
    """
    if cores == 1 or density <= 0:
        return 0.0
    p = min(1.0, density)
    step = np.zeros((cores, cores))
    served = np.ones(cores)
    for waiting in range(cores):
        rest = cores - waiting
        for arrivals in range(rest + 1):
            chance = math.comb(rest, arrivals) * p**arrivals * (1 - p) ** (rest - arrivals)
            step[waiting, max(0, waiting + arrivals - 1)] += chance
        if waiting == 0:
            served[0] = 1 - (1 - p) ** cores
    balance = np.vstack([step.T - np.eye(cores), np.ones(cores)])
    state = np.linalg.lstsq(balance, np.append(np.zeros(cores), 1.0), rcond=None)[0]
    return max(0.0, float(state @ np.arange(cores)) / float(state @ served))
