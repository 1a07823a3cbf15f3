"""Compiled loops of learning synapses (numba): one step of one projection each."""

from __future__ import annotations

import numpy as np
from numba import njit

from neuromorphic.learning._learning_engine_kernels import random_bits


@njit(cache=True, nogil=True)
def deliver(first, target, weight, arrived, value, total):
    """Add to ``total`` (targets,) what the sources ``arrived`` send: value times weight."""
    for n in range(arrived.size):
        for k in range(first[arrived[n]], first[arrived[n] + 1]):
            total[target[k]] += weight[k] * value[n]


@njit(cache=True, nogil=True, inline="always")
def _changed(weight, change, low, high, exponent):
    """The weight after a change whose size the room up to its bound scales, within low and high."""
    if exponent != 0.0:
        room = high - weight if change > 0 else weight - low
        change *= (max(room, 0.0) / (high - low)) ** exponent
    return min(max(weight + change, low), high)


@njit(cache=True, nogil=True)
def pair_step(
    first, target, column, synapse, source, weight, held, x, y, arrived, value, fired,
    keep_x, keep_y, plus, minus, nearest, exponent, low, high,
):  # fmt: skip
    """One step of pair-based plasticity; returns how many weights and how many traces were written.

    first, target, weight: the synapses by source; column, synapse: the same by target; source: of each synapse; held: synapses
    that never change. x (sources,), y (targets,): traces. arrived, value: sources whose spikes arrive; fired: targets that fire.
    """
    writes = 0
    for s in range(x.size):
        x[s] *= keep_x
    for n in range(y.size):
        y[n] *= keep_y
    for n in range(arrived.size):
        for k in range(first[arrived[n]], first[arrived[n] + 1]):
            trace = y[target[k]]
            if trace != 0.0 and not held[k]:
                weight[k] = _changed(weight[k], -minus * trace * value[n], low, high, exponent)
                writes += 1
    for n in range(arrived.size):
        x[arrived[n]] = value[n] + (0.0 if nearest else x[arrived[n]])
    for n in range(fired.size):
        for j in range(column[fired[n]], column[fired[n] + 1]):
            k = synapse[j]
            trace = x[source[k]]
            if trace != 0.0 and not held[k]:
                weight[k] = _changed(weight[k], plus * trace, low, high, exponent)
                writes += 1
    for n in range(fired.size):
        y[fired[n]] = 1.0 + (0.0 if nearest else y[fired[n]])
    return writes, arrived.size + fired.size


@njit(cache=True, nogil=True)
def eligibility_step(
    first, target, column, synapse, source, eligibility, written, step, x, y, arrived, value, fired,
    keep_x, keep_y, keep_e, plus, minus, nearest,
):  # fmt: skip
    """As ``pair_step``, but what would change a weight is added to its eligibility, which is kept as of step ``written``."""
    writes = 0
    for s in range(x.size):
        x[s] *= keep_x
    for n in range(y.size):
        y[n] *= keep_y
    for n in range(arrived.size):
        for k in range(first[arrived[n]], first[arrived[n] + 1]):
            trace = y[target[k]]
            if trace != 0.0:
                eligibility[k] = eligibility[k] * keep_e ** (step - written[k]) - minus * trace * value[n]
                written[k] = step
                writes += 1
    for n in range(arrived.size):
        x[arrived[n]] = value[n] + (0.0 if nearest else x[arrived[n]])
    for n in range(fired.size):
        for j in range(column[fired[n]], column[fired[n] + 1]):
            k = synapse[j]
            trace = x[source[k]]
            if trace != 0.0:
                eligibility[k] = eligibility[k] * keep_e ** (step - written[k]) + plus * trace
                written[k] = step
                writes += 1
    for n in range(fired.size):
        y[fired[n]] = 1.0 + (0.0 if nearest else y[fired[n]])
    return writes, arrived.size + fired.size


@njit(cache=True, nogil=True)
def modulate(target, weight, held, eligibility, written, step, keep_e, gain, exponent, low, high):
    """Weights move by gain (targets,) times eligibility; returns how many were written."""
    writes = 0
    for k in range(target.size):
        change = gain[target[k]] * eligibility[k]
        if change != 0.0 and not held[k]:
            weight[k] = _changed(weight[k], change * keep_e ** (step - written[k]), low, high, exponent)
            writes += 1
    return writes


@njit(cache=True, nogil=True)
def soft_hebbian(x, weight, bias, sharpness, rate, bias_rate, least, modulator, table, feedback, limit, seed, first, activity):
    """Samples in a row through a soft winner-take-all layer that learns from each; ``activity`` (samples, units) is what it
    answered before. Returns how many weights were written.

    x (samples, inputs), weight (units, inputs), bias (units,). least: units less active than this learn nothing. modulator
    (samples, units) or empty. table (units, classes), feedback: 0: none, 1: confidence, 2: the class that is named. limit > 0:
    weights are whole numbers of 1/limit, rounded up at random with the probability of the fraction, clipped to ±1. first: number
    of the first sample, for the random bits.
    """
    units, inputs = weight.shape
    writes = 0
    drive, share = np.empty(units), np.empty(table.shape[1])
    for t in range(x.shape[0]):
        highest = -np.inf
        for k in range(units):
            total = 0.0
            for d in range(inputs):
                total += weight[k, d] * x[t, d]
            drive[k] = total
            highest = max(highest, sharpness * total + bias[k])
        total = 0.0
        for k in range(units):
            activity[t, k] = np.exp(sharpness * drive[k] + bias[k] - highest)
            total += activity[t, k]
        for k in range(units):
            activity[t, k] /= total
        confidence, named = 1.0, 0
        if feedback:
            share[:] = 0.0
            for k in range(units):
                for c in range(share.size):
                    share[c] += activity[t, k] * table[k, c]
            entropy = 0.0
            for c in range(share.size):
                if share[c] > 0.0:
                    entropy -= share[c] * np.log(share[c])
                if share[c] > share[named]:
                    named = c
            confidence = 1.0 - entropy / np.log(share.size)
        for k in range(units):
            if activity[t, k] < least:
                continue
            gain = rate * activity[t, k]
            if feedback == 1:
                gain *= confidence
            elif feedback == 2:
                gain *= table[k, named]
            if modulator.size:
                gain *= modulator[t, k]
            if gain == 0.0:
                continue
            for d in range(inputs):
                new = weight[k, d] + gain * (x[t, d] - drive[k] * weight[k, d])
                if limit:
                    steps = new * limit
                    below = np.floor(steps)
                    if random_bits(seed, k, first + t, d) < (steps - below) * 4294967296.0:
                        below += 1.0
                    new = min(max(below, -limit), limit) / limit
                weight[k, d] = new
            writes += inputs
        if bias_rate:
            for k in range(units):
                bias[k] += bias_rate * (activity[t, k] * np.exp(-bias[k]) - 1.0)
    return writes
