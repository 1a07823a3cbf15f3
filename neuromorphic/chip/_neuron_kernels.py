"""Compiled steps of a chip's neurons (numba), a block at a time.

Loihi's registers are at most 24 bits wide and its decays 12, so doubles hold every product exactly; they are what vectorises.
The loops run on slices of one block, or numba's checks for negative indices would keep them scalar.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numpy as np
from numba import njit

from neuromorphic.chip._tables import ADAPTIVE, AT_THRESHOLD, KIND, READOUT, RESET, RESONANT, SECOND, SUBTRACT, ZERO


@njit(cache=True, nogil=True, inline="always")
def product(factor, x, fraction, nearest):
    """factor · x / 2^fraction, rounded down, or to the nearest with ties up."""
    return (factor * x + nearest) >> fraction


@njit(cache=True, nogil=True, inline="always")
def to_format(x, rounded):
    """A float32 with fewer bits, to the nearest, ties to even. (One operation in float32 and this are one correct rounding:
    24 bits are more than 2 · 8 + 2.)"""
    if rounded == 23:
        return x
    drop = 23 - rounded
    bits = np.float32(x).view(np.uint32)
    bits = np.uint32(bits + np.uint32((1 << (drop - 1)) - 1) + ((bits >> np.uint32(drop)) & np.uint32(1)))
    return np.uint32(bits & ~np.uint32((1 << drop) - 1)).view(np.float32)


@njit(cache=True, nogil=True)
def loihi_alike(
    u, v, left, x, spiked, keep_u, keep_v, bias, threshold, delay, keep, after, held, lowest, highest
):  # fmt: skip
    """A step of Loihi neurons of one kind: how many are active, how many spike, whether any state is left, sums that wrap."""
    active = passed = alive = wraps = 0
    for k in range(u.size):
        raw = x[k]
        active += (u[k] != 0) | (v[k] != 0) | (left[k] != 0) | (raw != 0)
        total = np.float64(raw)
        total -= 4194304.0 * np.floor((total + 2097152.0) * (1.0 / 4194304.0))
        wraps += total != raw
        current = np.trunc(u[k] * keep_u) + total
        current -= 16777216.0 * np.floor((current + 8388608.0) * (1.0 / 16777216.0))
        drive = current + bias
        drive -= 16777216.0 * np.floor((drive + 8388608.0) * (1.0 / 16777216.0))
        voltage = min(max(np.trunc(v[k] * keep_v) + drive, lowest), highest)
        count = max(left[k] - 1, 0)
        voltage = held if count > 0 else voltage
        fires = voltage > threshold
        voltage = keep * voltage + after if fires else voltage
        count = delay if fires else count
        u[k], v[k], left[k] = np.int32(current), np.int32(voltage), count
        x[k] = 0
        spiked[k] = fires
        passed += fires
        alive |= np.int32(current) | np.int32(voltage) | count
    return active if bias == 0 else u.size, passed, alive, wraps


@njit(cache=True, nogil=True)
def loihi_each(
    u, v, left, x, spiked, decay_u, decay_v, bias, threshold, drop, delay, v_reset, how, readout, lowest, highest
):  # fmt: skip
    """As ``loihi_alike``, each neuron with parameters of its own."""
    active = passed = alive = wraps = 0
    for k in range(u.size):
        raw = x[k]
        active += (u[k] != 0) | (v[k] != 0) | (left[k] != 0) | (raw != 0) | (bias[k] != 0)
        total = np.float64(raw)
        total -= 4194304.0 * np.floor((total + 2097152.0) * (1.0 / 4194304.0))
        wraps += total != raw
        current = np.trunc(u[k] * ((4095 - decay_u[k]) * (1.0 / 4096))) + total
        current -= 16777216.0 * np.floor((current + 8388608.0) * (1.0 / 16777216.0))
        drive = current + bias[k]
        drive -= 16777216.0 * np.floor((drive + 8388608.0) * (1.0 / 16777216.0))
        voltage = min(max(np.trunc(v[k] * ((4096 - decay_v[k]) * (1.0 / 4096))) + drive, lowest), highest)
        count = max(left[k] - 1, 0)
        voltage = np.float64(v_reset[k]) if count > 0 else voltage
        fires = (voltage > threshold[k]) & (not readout)
        if how == ZERO:
            voltage = np.float64(v_reset[k]) if fires else voltage
        elif how == SUBTRACT:
            voltage = voltage - drop[k] if fires else voltage
        count = delay[k] if fires else count
        u[k], v[k], left[k] = np.int32(current), np.int32(voltage), count
        x[k] = 0
        spiked[k] = fires
        passed += fires
        alive |= np.int32(current) | np.int32(voltage) | count
    return active, passed, alive, wraps


@njit(cache=True, nogil=True)
def not_at_rest(state, n, second, resonant, adaptive):
    """Whether a neuron has any state left, of those that its population has."""
    found = state.u[n] != 0 or state.v[n] != 0 or state.left[n] != 0
    if second:
        found = found or state.u2[n] != 0
    if resonant:
        found = found or state.w[n] != 0
    if adaptive:
        found = found or state.a[n] != 0
    return found


@njit(cache=True, nogil=True)
def fixed_point(one, a, b, state, given):
    """A step of any neurons a to b in fixed point: as ``loihi_alike``, with clipped voltages in place of wrapped sums."""
    active = passed = alive = clips = 0
    how, second, adaptive, resonant, readout = one[RESET], one[SECOND], one[ADAPTIVE], one[RESONANT], one[KIND] == READOUT
    fraction, nearest = given.fraction, given.nearest
    for n in range(a, b):
        before = state.u[n] != 0 or state.v[n] != 0 or state.left[n] != 0 or state.x[n] != 0
        before = before or given.bias[n] != 0 or given.input_bias[n] != 0
        current = product(given.decay_u[n], state.u[n], fraction, nearest) + state.x[n] + given.input_bias[n]
        current = min(max(current, given.low_u), given.high_u)
        state.u[n], state.x[n] = current, 0
        total = current + given.bias[n]
        if second:
            before = before or state.u2[n] != 0 or state.x2[n] != 0
            other = product(given.decay_u2[n], state.u2[n], fraction, nearest) + state.x2[n]
            other = min(max(other, given.low_u), given.high_u)
            state.u2[n], state.x2[n] = other, 0
            total += other
        if resonant:
            v, w = state.v[n], state.w[n]
            before = before or w != 0
            total += product(given.cosine[n], v, fraction, nearest) - product(given.sine[n], w, fraction, nearest)
            imaginary = product(given.sine[n], v, fraction, nearest) + product(given.cosine[n], w, fraction, nearest)
        else:
            total += product(given.decay_v[n], state.v[n], fraction, nearest)
            imaginary = 0
        voltage = min(max(total, given.lowest), given.highest)
        clips += voltage != total
        level, off = given.threshold[n], given.drop[n]
        if adaptive:
            before = before or state.a[n] != 0
            raised = product(given.adaptation[n], state.a[n], fraction, nearest)
            level, off = level + raised, off + raised
        fires = False
        if state.left[n] > 0:
            state.left[n] -= 1
        else:
            fires = voltage > level and not readout
            if fires and how == ZERO:
                voltage, imaginary = given.v_reset[n], 0
            elif fires and how == SUBTRACT:
                voltage = max(voltage - off, given.lowest)
            if fires:
                state.left[n] = given.refractory[n]
            state.v[n] = voltage
            if resonant:
                state.w[n] = min(max(imaginary, given.lowest), given.highest)
        if adaptive:
            one_unit = 1 << fraction
            fallen = product(given.decay_a[n], state.a[n], fraction, nearest) + (one_unit if fires else 0)
            state.a[n] = min(fallen, given.high_u)
        state.spiked[n] = fires
        active += before
        passed += fires
        alive |= not_at_rest(state, n, second, resonant, adaptive)
    return active, passed, alive, clips


@njit(cache=True, nogil=True)
def fixed_alike(
    u, u2, v, left, x, x2, spiked, decay_u, decay_u2, decay_v, input_bias, bias, threshold, drop, v_reset, refractory, how,
    second, readout, fraction, nearest, lowest, highest, low_u, high_u,
):  # fmt: skip
    """A step of neurons in fixed point without adaptation that do not resonate: the common ones, without a branch."""
    active = passed = alive = clips = 0
    for k in range(u.size):
        moves = (u[k] != 0) | (v[k] != 0) | (left[k] != 0) | (x[k] != 0) | (bias[k] != 0) | (input_bias[k] != 0)
        current = min(max(product(decay_u[k], u[k], fraction, nearest) + x[k] + input_bias[k], low_u), high_u)
        total = current + bias[k] + product(decay_v[k], v[k], fraction, nearest)
        u[k], x[k] = current, 0
        held = current != 0
        if second:
            moves = moves | (u2[k] != 0) | (x2[k] != 0)
            other = min(max(product(decay_u2[k], u2[k], fraction, nearest) + x2[k], low_u), high_u)
            u2[k], x2[k] = other, 0
            total += other
            held = held | (other != 0)
        voltage = min(max(total, lowest), highest)
        clips += voltage != total
        rests = left[k] > 0
        fires = (voltage > threshold[k]) & (not readout) & (not rests)
        if how == ZERO:
            after = v_reset[k]
        elif how == SUBTRACT:
            after = max(voltage - drop[k], lowest)
        else:
            after = voltage
        voltage = after if fires else voltage
        voltage = v[k] if rests else voltage
        count = refractory[k] if fires else max(left[k] - 1, 0)
        v[k], left[k], spiked[k] = voltage, count, fires
        active += moves
        passed += fires
        alive |= held | (voltage != 0) | (count != 0)
    return active, passed, alive, clips


@njit(cache=True, nogil=True)
def floats_alike(
    u, u2, v, left, x, x2, spiked, decay_u, decay_u2, decay_v, input_bias, bias, threshold, v_reset, refractory, how, second,
    at_threshold, readout, r,
):  # fmt: skip
    """A step of neurons of floats without adaptation that do not resonate: the common ones, in a loop that vectorises."""
    active = passed = alive = 0
    for k in range(u.size):
        arrived = to_format(np.float32(x[k] + input_bias[k]), r)
        current = to_format(np.float32(to_format(np.float32(decay_u[k] * u[k]), r) + arrived), r)
        voltage = to_format(np.float32(to_format(np.float32(decay_v[k] * v[k]), r) + current), r)
        moves = (u[k] != 0) | (v[k] != 0) | (left[k] != 0) | (x[k] != 0) | (bias[k] != 0) | (input_bias[k] != 0)
        u[k], x[k] = current, np.float32(0)
        held = current != 0
        if second:
            other = to_format(np.float32(to_format(np.float32(decay_u2[k] * u2[k]), r) + x2[k]), r)
            moves = moves | (u2[k] != 0) | (x2[k] != 0)
            u2[k], x2[k] = other, np.float32(0)
            voltage = to_format(np.float32(voltage + other), r)
            held = held | (other != 0)
        voltage = to_format(np.float32(voltage + bias[k]), r)
        rests = left[k] > 0
        passes = (voltage >= threshold[k]) if at_threshold else (voltage > threshold[k])
        fires = passes & (not readout) & (not rests)
        if how == ZERO:
            after = v_reset[k]
        elif how == SUBTRACT:
            after = to_format(np.float32(voltage - threshold[k]), r)
        else:
            after = voltage
        voltage = after if fires else voltage
        voltage = v[k] if rests else voltage
        count = refractory[k] if fires else max(left[k] - 1, 0)
        v[k], left[k], spiked[k] = voltage, count, fires
        active += moves
        passed += fires
        alive |= held | (voltage != 0) | (count != 0)
    return active, passed, alive


@njit(cache=True, nogil=True)
def floating_point(one, a, b, state, given):
    """As ``fixed_point``, in floats, each operation rounded to the format; any neurons."""
    active = passed = alive = 0
    how, second, adaptive, resonant, readout = one[RESET], one[SECOND], one[ADAPTIVE], one[RESONANT], one[KIND] == READOUT
    r, at_threshold = given.rounded, one[AT_THRESHOLD] != 0
    zero = np.float32(0)
    for n in range(a, b):
        before = state.u[n] != 0 or state.v[n] != 0 or state.left[n] != 0 or state.x[n] != 0
        before = before or given.bias[n] != 0 or given.input_bias[n] != 0
        arrived = to_format(np.float32(state.x[n] + given.input_bias[n]), r)
        current = to_format(to_format(np.float32(given.decay_u[n] * state.u[n]), r) + arrived, r)
        state.u[n], state.x[n] = current, zero
        imaginary = zero
        if resonant:
            v, w = state.v[n], state.w[n]
            before = before or w != 0
            along = to_format(np.float32(given.cosine[n] * v), r)
            across = to_format(np.float32(given.sine[n] * w), r)
            voltage = to_format(np.float32(along - across), r)
            along = to_format(np.float32(given.sine[n] * v), r)
            across = to_format(np.float32(given.cosine[n] * w), r)
            imaginary = to_format(np.float32(along + across), r)
        else:
            voltage = to_format(np.float32(given.decay_v[n] * state.v[n]), r)
        voltage = to_format(np.float32(voltage + current), r)
        if second:
            before = before or state.u2[n] != 0 or state.x2[n] != 0
            other = to_format(to_format(np.float32(given.decay_u2[n] * state.u2[n]), r) + state.x2[n], r)
            state.u2[n], state.x2[n] = other, zero
            voltage = to_format(np.float32(voltage + other), r)
        voltage = to_format(np.float32(voltage + given.bias[n]), r)
        level = given.threshold[n]
        if adaptive:
            before = before or state.a[n] != 0
            level = to_format(level + to_format(np.float32(given.adaptation[n] * state.a[n]), r), r)
        fires = False
        if state.left[n] > 0:
            state.left[n] -= 1
        else:
            fires = (voltage > level or (at_threshold and voltage == level)) and not readout
            if fires and how == ZERO:
                voltage, imaginary = given.v_reset[n], zero
            elif fires and how == SUBTRACT:
                voltage = to_format(np.float32(voltage - level), r)
            if fires:
                state.left[n] = given.refractory[n]
            state.v[n] = voltage
            if resonant:
                state.w[n] = imaginary
        if adaptive:
            fallen = to_format(np.float32(given.decay_a[n] * state.a[n]), r)
            state.a[n] = to_format(np.float32(fallen + np.float32(1)), r) if fires else fallen
        state.spiked[n] = fires
        active += before
        passed += fires
        alive |= not_at_rest(state, n, second, resonant, adaptive)
    return active, passed, alive


@njit(cache=True, nogil=True)
def time_reference(a, b, state, given):
    """The time reference event of neurons that are updated by each event: the bias, and nothing else."""
    active = passed = alive = 0
    for n in range(a, b):
        active += state.v[n] != 0 or state.x[n] != 0
        state.x[n] = 0
        state.v[n] = max(state.v[n] + given.bias[n], given.lowest)
        if state.v[n] > given.threshold[n]:
            state.v[n] = 0
            state.spiked[n] += 1
        passed += state.spiked[n] > 0
        alive |= state.v[n] != 0
    return active, passed, alive
