"""Compiled loops of what a run costs (numba)."""

from __future__ import annotations

from numba import njit


@njit(cache=True, nogil=True)
def releases(step, turn, source, update_s, neurons, found):
    """When each packet is ready: its neuron's share of the time in which its core updates all of its neurons."""
    for i in range(step.size):
        core = source[i]
        found[i] = update_s[step[i], core] * turn[i] / neurons[core] if turn[i] > 0 else 0.0


@njit(cache=True, nogil=True)
def last_arrivals(step, target, delivered_s, found):
    """The latest delivery to each core in each step, (steps, cores)."""
    for i in range(step.size):
        if delivered_s[i] > found[step[i], target[i]]:
            found[step[i], target[i]] = delivered_s[i]
