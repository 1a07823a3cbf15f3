"""Cores and banks stepped cycle by cycle, for the formula of ``contention``."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True)
def simulate_banks(cores, banks, density, cycles, seed):
    """Accesses served and cycles waited by all cores.

    A core that runs issues an access to a random bank with probability ``density``. A bank serves, of the cores that ask for it,
    the first from a pointer on that moves behind the core it served (round robin).
    """
    np.random.seed(seed)
    wanted = np.full(cores, -1)
    pointer = np.zeros(banks, dtype=np.int64)
    served = 0
    waited = 0
    for _ in range(cycles):
        for core in range(cores):
            if wanted[core] < 0 and np.random.random() < density:
                wanted[core] = np.random.randint(banks)
        for bank in range(banks):
            for step in range(cores):
                core = (pointer[bank] + step) % cores
                if wanted[core] == bank:
                    wanted[core] = -1
                    pointer[bank] = (core + 1) % cores
                    served += 1
                    break
        for core in range(cores):
            if wanted[core] >= 0:
                waited += 1
    return served, waited
