"""Compiled steps of spiking networks (numba): dense over neurons, event-driven over synapses.

The loops over neurons run on slices of one block, so that they vectorise: an index that numba must check for a negative value, or
more arrays than the compiler can prove apart, would keep them scalar. No fast-math: each operation rounds as written.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from neuromorphic._prefetch_kernels import LINE_BYTES, prefetch

BLOCK = 512
# While one source's synapses are added, those of the source so many further on are fetched.
AHEAD = 2
WEIGHTS_A_LINE, TARGETS_A_LINE = LINE_BYTES // 8, LINE_BYTES // 4

# Columns of the table of populations, in the order in which they compute.
KIND, LOW, SIZE, RESET, NEXT_STEP, AT_THRESHOLD, SECOND, ADAPTIVE, RECORD, VALUE, GIVEN = range(11)
FIRST_IN, LAST_IN, FIRST_REST, LAST_REST = range(11, 15)
# Kinds: given from outside; one number a parameter for all its neurons; one a neuron; resonating; sending its voltage.
INPUT, UNIFORM, EACH, RESONATE, READOUT = range(5)
ZERO, SUBTRACT, NONE = range(3)

# Columns of the table of projections, sorted by their target; rows, synapses, weights, delays: where theirs begin.
SOURCE, RECEPTOR, LAYOUT, ROWS, SYNAPSES, WEIGHTS, WIDTH, LAGS, LAGS_END, DELAYS = range(10)
# Layouts: lists; every target of every source in order; lists of one weight.
LISTED, DENSE, SHARED = range(3)


class State(NamedTuple):
    """Of all neurons, (neurons,) each. ``v`` is NaN while a neuron rests after a spike, as that stays so and passes no threshold:
    so the loop over all neurons knows no resting ones. ``held`` and ``held_w`` are what it rests at."""

    v: Any
    w: Any
    i: Any
    i2: Any
    a: Any
    level: Any
    held: Any
    held_w: Any


class Parameters(NamedTuple):
    """Of all neurons, (neurons,) each; cosine and sine are those of the rotation, times its decay."""

    decay_i: Any
    decay_i2: Any
    decay_v: Any
    gain: Any
    gain2: Any
    bias: Any
    input_bias: Any
    threshold: Any
    adaptation: Any
    decay_a: Any
    v_reset: Any
    cosine: Any
    sine: Any
    refractory: Any


class Wiring(NamedTuple):
    """Synapses of all projections end to end; ``lag``: the delays of each projection, longest first; ``rest``: the refractory
    steps of each population."""

    projections: Any
    first: Any
    target: Any
    weight: Any
    lag: Any
    delay: Any
    rest: Any


class Inputs(NamedTuple):
    """Events of the inputs end to end: ``first`` (inputs, steps + 1); value is empty where every one is 1."""

    first: Any
    neuron: Any
    value: Any


@njit(cache=True, nogil=True)
def _uniform(v, i, decay_v, gain, bias, decay_i, input_bias, passes):
    """A step of neurons with one current; how many pass. ``i`` is left as the next step's input finds it."""
    count = 0
    for k in range(v.size):
        current = i[k]
        voltage = decay_v * v[k] + gain * current + bias
        v[k] = voltage
        i[k] = decay_i * current + input_bias
        count += voltage > passes
    return count


@njit(cache=True, nogil=True)
def _uniform_two(v, i, i2, decay_v, gain, gain2, bias, decay_i, decay_i2, input_bias, passes):
    """As ``_uniform``, with a second current."""
    count = 0
    for k in range(v.size):
        current, second = i[k], i2[k]
        voltage = decay_v * v[k] + gain * current + gain2 * second + bias
        v[k] = voltage
        i[k] = decay_i * current + input_bias
        i2[k] = decay_i2 * second
        count += voltage > passes
    return count


@njit(cache=True, nogil=True)
def _scale(x, factor):
    for k in range(x.size):
        x[k] *= factor[k]


@njit(cache=True, nogil=True)
def _add(x, y):
    for k in range(x.size):
        x[k] += y[k]


@njit(cache=True, nogil=True)
def _add_scaled(x, y, factor):
    for k in range(x.size):
        x[k] += factor[k] * y[k]


@njit(cache=True, nogil=True)
def _scale_add(x, factor, y):
    for k in range(x.size):
        x[k] = factor[k] * x[k] + y[k]


@njit(cache=True, nogil=True)
def _rotate(v, w, cosine, sine, turned):
    for k in range(turned.size):
        turned[k] = sine[k] * v[k] + cosine[k] * w[k]
    for k in range(turned.size):
        v[k] = cosine[k] * v[k] - sine[k] * w[k]
    for k in range(turned.size):
        w[k] = turned[k]


@njit(cache=True, nogil=True)
def _level(level, threshold, adaptation, a):
    for k in range(level.size):
        level[k] = threshold[k] + adaptation[k] * a[k]


@njit(cache=True, nogil=True)
def _passing(v, level, at_threshold):
    count = 0
    if at_threshold:
        for k in range(v.size):
            count += v[k] >= level[k]
    else:
        for k in range(v.size):
            count += v[k] > level[k]
    return count


@njit(cache=True, nogil=True)
def _list(v, level, at_threshold, fired, low):
    """Write the numbers of those that pass, counted from ``low``; how many."""
    count = 0
    for k in range(v.size):
        # Every one is written, and the next one over it unless it passes: no branch that is hard to foresee.
        fired[np.uint64(count)] = low + k
        count += v[k] >= level[k] if at_threshold else v[k] > level[k]
    return count


@njit(cache=True, nogil=True)
def _each(kind, second, adaptive, at_threshold, low, high, neurons, state, turned):
    """A step of the neurons low to high, each with parameters of its own; how many pass."""
    v, i = state.v[low:high], state.i[low:high]
    if kind == RESONATE:
        _rotate(v, state.w[low:high], neurons.cosine[low:high], neurons.sine[low:high], turned[: high - low])
    else:
        _scale(v, neurons.decay_v[low:high])
    _add_scaled(v, i, neurons.gain[low:high])
    if second:
        i2 = state.i2[low:high]
        _add_scaled(v, i2, neurons.gain2[low:high])
        _scale(i2, neurons.decay_i2[low:high])
    _add(v, neurons.bias[low:high])
    _scale_add(i, neurons.decay_i[low:high], neurons.input_bias[low:high])
    if kind == READOUT:
        return 0
    if adaptive:
        a = state.a[low:high]
        _level(state.level[low:high], neurons.threshold[low:high], neurons.adaptation[low:high], a)
        _scale(a, neurons.decay_a[low:high])
    return _passing(v, state.level[low:high], at_threshold)


@njit(cache=True, nogil=True)
def _send(x, layout, first, target, weight, width, row, value):
    """One source's share of the input."""
    if layout == DENSE:
        weights = weight[row * width : (row + 1) * width]
        for k in range(weights.size):
            x[k] += weights[k] * value
        return
    targets = target[first[row] : first[row + 1]]
    if layout == SHARED:
        share = weight[0] * value
        for k in range(targets.size):
            x[targets[k]] += share
    else:
        weights = weight[first[row] : first[row + 1]]
        for k in range(targets.size):
            x[targets[k]] += weights[k] * value


@njit(cache=True, nogil=True)
def _fetch(layout, first, target, weight, row):
    if layout == DENSE:
        return
    for k in range(first[row], first[row + 1], TARGETS_A_LINE):
        prefetch(target, k)
    if layout == LISTED:
        for k in range(first[row], first[row + 1], WEIGHTS_A_LINE):
            prefetch(weight, k)


@njit(cache=True, nogil=True)
def _reset(k, how, neurons, state):
    if how == ZERO:
        state.v[k] = neurons.v_reset[k]
        state.w[k] = 0.0
    elif how == SUBTRACT:
        state.v[k] -= state.level[k]


@njit(cache=True, nogil=True)
def _rest(k, neurons, state):
    if neurons.refractory[k] > 0:
        state.held[k], state.held_w[k] = state.v[k], state.w[k]
        state.v[k] = np.nan


@njit(cache=True, nogil=True)
def network_steps(steps, populations, wiring, neurons, state, inputs, values, record, begin):
    """Steps of a network; returns the neurons that fired, in one list by step, population and number.

    begin: (steps · populations + 1,) where the events of each step and population begin in that list; values: (steps, neurons of
    all readouts) what they send; record: (steps, recorded neurons) voltages. All three are written, as is the state.
    """
    count = populations.shape[0]
    largest = populations[:, SIZE].max()
    fired = np.empty(4 * largest + 1024, np.int32)
    turned = np.empty(BLOCK)
    n = 0
    for t in range(steps):
        for p in range(count):
            place = t * count + p
            begin[place] = n
            one = populations[p]
            kind, low, size = one[KIND], one[LOW], one[SIZE]
            if kind == INPUT:
                continue
            if n + size > fired.size:
                longer = np.empty(2 * fired.size, np.int32)
                longer[:n] = fired[:n]
                fired = longer
            # What arrives.
            for q in range(one[FIRST_IN], one[LAST_IN]):
                wire = wiring.projections[q]
                x = (state.i2 if wire[RECEPTOR] else state.i)[low : low + size]
                first, target = wiring.first[wire[ROWS] :], wiring.target[wire[SYNAPSES] :]
                weight, layout, width = wiring.weight[wire[WEIGHTS] :], wire[LAYOUT], wire[WIDTH]
                source = wire[SOURCE]
                sender = populations[source]
                mixed = wire[DELAYS] >= 0
                for g in range(wire[LAGS], wire[LAGS_END]):
                    then = t - wiring.lag[g]
                    if then < 0:
                        continue
                    if sender[KIND] == READOUT:
                        for s in range(sender[SIZE]):
                            value = values[then, sender[VALUE] + s]
                            if value != 0.0 and not (mixed and wiring.delay[wire[DELAYS] + s] != wiring.lag[g]):
                                _send(x, layout, first, target, weight, width, s, value)
                        continue
                    graded = False
                    if sender[KIND] == INPUT:
                        graded = inputs.value.size > 0
                        senders, a, b = inputs.neuron, inputs.first[sender[GIVEN], then], inputs.first[sender[GIVEN], then + 1]
                    else:
                        at = then * count + source
                        senders, a, b = fired, begin[at], begin[at + 1]
                    for e in range(a, b):
                        s = senders[e]
                        if mixed and wiring.delay[wire[DELAYS] + s] != wiring.lag[g]:
                            continue
                        if not mixed and e + AHEAD < b:
                            _fetch(layout, first, target, weight, senders[e + AHEAD])
                        _send(x, layout, first, target, weight, width, s, inputs.value[e] if graded else 1.0)
            # Those that rested long enough go on; those that fired in the step before are reset, if that waited.
            for r in range(one[FIRST_REST], one[LAST_REST]):
                at = place - (wiring.rest[r] + 1) * count
                if at >= 0:
                    for e in range(begin[at], begin[at + 1]):
                        k = low + fired[e]
                        if neurons.refractory[k] == wiring.rest[r]:
                            state.v[k], state.w[k] = state.held[k], state.held_w[k]
            if one[NEXT_STEP] and t > 0:
                for e in range(begin[place - count], begin[place - count + 1]):
                    _reset(low + fired[e], one[RESET], neurons, state)
                    _rest(low + fired[e], neurons, state)
            # The neurons, and which of them fire.
            start = n
            for block in range(0, size, BLOCK):
                a, b = low + block, low + min(block + BLOCK, size)
                if kind == UNIFORM:
                    passes = neurons.threshold[low]
                    if one[AT_THRESHOLD]:
                        # v ≥ threshold, as the next number below it is passed.
                        passes = np.nextafter(passes, -np.inf)
                    if one[SECOND]:
                        passed = _uniform_two(
                            state.v[a:b], state.i[a:b], state.i2[a:b], neurons.decay_v[low], neurons.gain[low],
                            neurons.gain2[low], neurons.bias[low], neurons.decay_i[low],
                            neurons.decay_i2[low], neurons.input_bias[low], passes,
                        )  # fmt: skip
                    else:
                        passed = _uniform(
                            state.v[a:b], state.i[a:b], neurons.decay_v[low], neurons.gain[low], neurons.bias[low],
                            neurons.decay_i[low], neurons.input_bias[low], passes,
                        )  # fmt: skip
                else:
                    passed = _each(kind, one[SECOND], one[ADAPTIVE], one[AT_THRESHOLD], a, b, neurons, state, turned)
                if passed:
                    n += _list(state.v[a:b], state.level[a:b], one[AT_THRESHOLD], fired[n:], block)
            for e in range(start, n):
                k = low + fired[e]
                if one[ADAPTIVE]:
                    state.a[k] += 1.0
                if not one[NEXT_STEP]:
                    _reset(k, one[RESET], neurons, state)
                    _rest(k, neurons, state)
            if one[VALUE] >= 0:
                for k in range(size):
                    values[t, one[VALUE] + k] = state.v[low + k]
            if one[RECORD] >= 0:
                for k in range(size):
                    awake = not np.isnan(state.v[low + k])
                    record[t, one[RECORD] + k] = state.v[low + k] if awake else state.held[low + k]
    begin[steps * count] = n
    return fired[:n]
