"""Compiled steps of a chip (numba): spikes arrive, neurons are updated block by block where anything is to do, spikes leave."""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numpy as np
from numba import njit, types
from numba.extending import overload

from neuromorphic.chip._neuron_kernels import (
    fixed_alike,
    fixed_point,
    floating_point,
    floats_alike,
    loihi_alike,
    loihi_each,
    time_reference,
    to_format,
)
from neuromorphic.chip._tables import (
    ACTIVE,
    ADAPTIVE,
    AT_THRESHOLD,
    AXONS_IN,
    AXONS_OUT,
    BIASED,
    CLIPPED,
    DELAYS,
    FACTOR,
    FIRST_BLOCK,
    FIRST_IN,
    GIVEN,
    INPUT,
    KIND,
    LAGS,
    LAGS_END,
    LAST_BLOCK,
    LAST_IN,
    LOST,
    LOW,
    NONE,
    READOUT,
    RECEPTOR,
    RECORD,
    RESET,
    RESONANT,
    ROWS,
    SECOND,
    SENDER,
    SHIFT,
    SIZE,
    SOURCE,
    SPIKES,
    SPIKING,
    START,
    SUBTRACT,
    UNIFORM,
    VALUE,
    WRAPPED,
    Event,
    Fixed,
    Float,
    Loihi,
)


@njit(cache=True, nogil=True, inline="always")
def mixed(seed, step, sender):
    """A number of 64 bits for a spike: the finaliser of SplitMix64 (Steele et al., OOPSLA 2014), twice."""
    z = np.uint64(seed) + np.uint64(step) * np.uint64(0x9E3779B97F4A7C15)
    for k in range(2):
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
        if k == 0:
            z += np.uint64(sender) * np.uint64(0x9E3779B97F4A7C15)
    return z


@njit(cache=True, nogil=True, inline="always")
def turned(x, bit, bits):
    """x with one bit of its two's complement turned over."""
    half = 1 << (bits - 1)
    return ((((x & ((1 << bits) - 1)) ^ (1 << bit)) + half) & ((1 << bits) - 1)) - half


@njit(cache=True, nogil=True)
def _send_each(low, row, wiring, state, given, times):
    """So many events of a source, each at once into the membranes, which saturate and spike; x only remembers that it came."""
    first = wiring.first
    clips = 0
    for _ in range(times):
        for k in range(first[row], first[row + 1]):
            n = low + wiring.target[k]
            total = state.v[n] + wiring.weight[k]
            voltage = min(max(total, given.lowest), given.highest)
            clips += voltage != total
            state.x[n] = 1
            if voltage > given.threshold[n]:
                voltage = 0
                state.spiked[n] += 1
            state.v[n] = voltage
    return clips


@njit(cache=True, nogil=True)
def _send(x, first, last, solid, target, weight, factor):
    """Synapses first to last of one source into x."""
    if solid:
        weights = weight[first:last]
        begin = np.int64(target[first])
        part = x[begin : begin + weights.size]
        for k in range(weights.size):
            part[k] += weights[k] * factor
    else:
        targets, weights = target[first:last], weight[first:last]
        for k in range(targets.size):
            x[targets[k]] += weights[k] * factor


@njit(cache=True, nogil=True)
def _send_rounded(x, first, last, target, weight, factor, rounded):
    """As ``_send``, in floats: each sum is rounded, so that the order of the events counts."""
    for k in range(first, last):
        share = to_format(np.float32(weight[k] * factor), rounded)
        x[target[k]] = to_format(np.float32(x[target[k]] + share), rounded)


@njit(cache=True, nogil=True)
def _any(x):
    found = False
    for k in range(x.size):
        found |= x[k] != 0
    return found


@njit(cache=True, nogil=True)
def _longer(fired, payload, graded, needed):
    if needed <= fired.size:
        return fired, payload
    size = max(2 * fired.size, needed)
    grown = np.empty(size, fired.dtype)
    for k in range(fired.size):
        grown[k] = fired[k]
    values = np.empty(size if graded else 0, payload.dtype)
    for k in range(payload.size):
        values[k] = payload[k]
    return grown, values


def arrive(low, source, row, share, wiring, state, given):
    """The synapses of one spike, which carries ``share``, into a population's inputs (``source``); sums that were clipped."""


def _arrive_whole(low, x, row, share, wiring, state, given):
    _send(x, wiring.first[row], wiring.first[row + 1], wiring.solid[row], wiring.target, wiring.weight, share)
    return 0


def _arrive_rounded(low, x, row, share, wiring, state, given):
    _send_rounded(x, wiring.first[row], wiring.first[row + 1], wiring.target, wiring.weight, share, given.rounded)
    return 0


def _arrive_each(low, x, row, share, wiring, state, given):
    return _send_each(low, row, wiring, state, given, np.int64(share))


@overload(arrive)
def _arrive(low, x, row, share, wiring, state, given):
    return {Float: _arrive_rounded, Event: _arrive_each}.get(state.instance_class, _arrive_whole)


def update(one, i, j, state, given):
    """A step of the neurons i to j of one block: active ones, those that spike, whether a state is left, wraps, clips."""


def _update_loihi(one, i, j, state, given):
    low, readout = one[LOW], one[KIND] == READOUT
    lowest, highest = np.float64(given.lowest), np.float64(given.highest)
    if one[UNIFORM]:
        threshold = np.float64(given.threshold[low])
        reset = after = np.float64(given.v_reset[low])
        keep = 0.0
        if one[RESET] == SUBTRACT:
            keep, after = 1.0, -np.float64(given.drop[low])
        elif one[RESET] == NONE:
            keep, after = 1.0, np.float64(0)
        active, passed, left, wraps = loihi_alike(
            state.u[i:j], state.v[i:j], state.left[i:j], state.x[i:j], state.spiked[i:j], (4095 - given.decay_u[low]) / 4096.0,
            (4096 - given.decay_v[low]) / 4096.0, np.float64(given.bias[low]), np.inf if readout else threshold,
            given.refractory[low], keep, after, reset, lowest, highest,
        )  # fmt: skip
    else:
        active, passed, left, wraps = loihi_each(
            state.u[i:j], state.v[i:j], state.left[i:j], state.x[i:j], state.spiked[i:j], given.decay_u[i:j], given.decay_v[i:j],
            given.bias[i:j], given.threshold[i:j], given.drop[i:j], given.refractory[i:j], given.v_reset[i:j], one[RESET],
            readout, lowest, highest,
        )  # fmt: skip
    return active, passed, left != 0, wraps, 0


def _update_fixed(one, i, j, state, given):
    if one[ADAPTIVE] or one[RESONANT]:
        active, passed, left, clips = fixed_point(one, i, j, state, given)
    else:
        a, b = (i, j) if one[SECOND] else (0, 0)
        active, passed, left, clips = fixed_alike(
            state.u[i:j], state.u2[a:b], state.v[i:j], state.left[i:j], state.x[i:j], state.x2[a:b], state.spiked[i:j],
            given.decay_u[i:j], given.decay_u2[a:b], given.decay_v[i:j], given.input_bias[i:j], given.bias[i:j],
            given.threshold[i:j], given.drop[i:j], given.v_reset[i:j], given.refractory[i:j], one[RESET], one[SECOND] != 0,
            one[KIND] == READOUT, given.fraction, given.nearest, given.lowest, given.highest, given.low_u, given.high_u,
        )  # fmt: skip
    return active, passed, left, 0, clips


def _update_float(one, i, j, state, given):
    if one[ADAPTIVE] or one[RESONANT]:
        active, passed, left = floating_point(one, i, j, state, given)
    else:
        # Where there is no second current, its arrays are not read.
        a, b = (i, j) if one[SECOND] else (0, 0)
        active, passed, left = floats_alike(
            state.u[i:j], state.u2[a:b], state.v[i:j], state.left[i:j], state.x[i:j], state.x2[a:b], state.spiked[i:j],
            given.decay_u[i:j], given.decay_u2[a:b], given.decay_v[i:j], given.input_bias[i:j], given.bias[i:j],
            given.threshold[i:j], given.v_reset[i:j], given.refractory[i:j], one[RESET], one[SECOND] != 0,
            one[AT_THRESHOLD] != 0, one[KIND] == READOUT, given.rounded,
        )  # fmt: skip
    return active, passed, left, 0, 0


def _update_event(one, i, j, state, given):
    active, passed, left = time_reference(i, j, state, given)
    return active, passed, left, 0, 0


@overload(update)
def _update(one, i, j, state, given):
    return {Loihi: _update_loihi, Fixed: _update_fixed, Event: _update_event, Float: _update_float}[state.instance_class]


def count_moves(one, i, j, state, given, home, counts):
    """Adds to ``counts`` of their cores those of the neurons i to j whose update changes anything, as ``update`` counts them."""


def _count_moves_loihi(one, i, j, state, given, home, counts):
    u, v, left, x, bias = state.u, state.v, state.left, state.x, given.bias
    for k in range(i, j):
        counts[home[k]] += (u[k] != 0) | (v[k] != 0) | (left[k] != 0) | (x[k] != 0) | (bias[k] != 0)


def _count_moves_real(one, i, j, state, given, home, counts):
    u, v, left, x, bias, input_bias = state.u, state.v, state.left, state.x, given.bias, given.input_bias
    u2, x2, w, a = state.u2, state.x2, state.w, state.a
    second, resonant, adaptive = one[SECOND] != 0, one[RESONANT] != 0, one[ADAPTIVE] != 0
    for k in range(i, j):
        found = (u[k] != 0) | (v[k] != 0) | (left[k] != 0) | (x[k] != 0) | (bias[k] != 0) | (input_bias[k] != 0)
        if second:
            found |= (u2[k] != 0) | (x2[k] != 0)
        if resonant:
            found |= w[k] != 0
        if adaptive:
            found |= a[k] != 0
        counts[home[k]] += found


def _count_moves_event(one, i, j, state, given, home, counts):
    for k in range(i, j):
        counts[home[k]] += (state.v[k] != 0) | (state.x[k] != 0)


@overload(count_moves)
def _count_moves(one, i, j, state, given, home, counts):
    return {Loihi: _count_moves_loihi, Event: _count_moves_event}.get(state.instance_class, _count_moves_real)


def flip(register, neuron, bit, bits):
    """One bit of a register turns over: of its two's complement, or of a float32."""


def _flip_whole(register, neuron, bit, bits):
    register[neuron] = turned(np.int64(register[neuron]), bit, bits)


def _flip_float(register, neuron, bit, bits):
    raw = register[neuron : neuron + 1].view(np.uint32)
    raw[0] ^= np.uint32(1 << bit)


@overload(flip)
def _flip(register, neuron, bit, bits):
    return _flip_float if register.dtype == types.float32 else _flip_whole


def shifted(value, bits):
    """What a readout sends of its voltage."""


@overload(shifted)
def _shifted(value, bits):
    return (lambda value, bits: value) if value == types.float32 else (lambda value, bits: value >> bits)


@njit(cache=True, nogil=True)
def _arrivals(t, count, one, wiring, state, given, graded, fired, payload, begin, totals):
    """What arrives at a population in a step, into its inputs; whether anything does."""
    low, size = one[LOW], one[SIZE]
    arrived = False
    for q in range(one[FIRST_IN], one[LAST_IN]):
        wire = wiring.projections[q]
        x = (state.x2 if wire[RECEPTOR] else state.x)[low : low + size]
        rows, own, factor = wire[ROWS], wire[DELAYS], wiring.factor[wire[FACTOR]]
        for g in range(wire[LAGS], wire[LAGS_END]):
            lag = wiring.lag[g]
            if lag > t:
                continue
            at = (t - lag) * count + wire[SOURCE]
            arrived |= begin[at + 1] > begin[at]
            for e in range(begin[at], begin[at + 1]):
                s = fired[e]
                if own < 0 or wiring.delay[own + s] == lag:
                    share = factor * payload[e] if graded else factor
                    totals[CLIPPED] += arrive(low, x, rows + s, share, wiring, state, given)
    return arrived


@njit(cache=True, nogil=True)
def _updates(n, t, one, arrived, cores, state, given, graded, alive, fired, payload, record):
    """A step of a population's neurons; those that spike are added to the list."""
    low = one[LOW]
    for b in range(one[FIRST_BLOCK], one[LAST_BLOCK]):
        i, j = cores.block[b, 0], cores.block[b, 1]
        asleep = alive[b] == 0 and one[BIASED] == 0
        if asleep and not (arrived and (_any(state.x[i:j]) or (one[SECOND] != 0 and _any(state.x2[i:j])))):
            continue
        core = cores.block[b, 3]
        if core < 0:
            count_moves(one, i, j, state, given, cores.home[one[SENDER] - low :], record.counts[t, :, ACTIVE])
        active, passed, left, wraps, clips = update(one, i, j, state, given)
        alive[b] = left
        record.totals[WRAPPED] += wraps
        record.totals[CLIPPED] += clips
        if core >= 0:
            record.counts[t, core, ACTIVE] += active
        if passed:
            for k in range(i, j):
                fired[n] = k - low
                if graded:
                    payload[n] = state.spiked[k]
                n += state.spiked[k] != 0
                state.spiked[k] = 0
    return n


@njit(cache=True, nogil=True)
def _readings(n, t, one, state, faults, fired, payload, record):
    """The voltages of a readout; those that are sent are added to the list."""
    low, dead = one[LOW], faults.dead.size > 0
    for k in range(one[SIZE]):
        value = state.v[low + k]
        if dead and faults.dead[one[SENDER] + k]:
            value -= value
        record.values[t, one[VALUE] + k] = value
        if one[SHIFT] >= 0:
            fired[n] = k
            payload[n] = shifted(value, one[SHIFT])
            n += payload[n] != 0
    return n


@njit(cache=True, nogil=True)
def chip_steps(steps, populations, wiring, cores, state, given, inputs, faults, graded, alive, record, begin):
    """Steps of a chip; returns the neurons that sent, in one list by step, population and number, and what they sent.

    begin: (steps · populations + 1,) where each step's and population's events begin in that list; alive: of each block, whether
    a state is left in it. They, the state and the record are written.
    """
    count = populations.shape[0]
    fired = np.empty(1024, np.int32)
    payload = np.empty(1024 if graded else 0, given.threshold.dtype)
    n = turn = 0
    for t in range(steps):
        while turn < faults.flip.shape[0] and faults.flip[turn, 0] == t:
            neuron, bit = faults.flip[turn, 2], faults.flip[turn, 3]
            flip(state.v if faults.flip[turn, 1] else state.u, neuron, bit, faults.bits)
            for b in range(cores.block.shape[0]):
                if cores.block[b, 0] <= neuron < cores.block[b, 1]:
                    alive[b] = 1
            turn += 1
        for p in range(count):
            one = populations[p]
            kind, low, size = one[KIND], one[LOW], one[SIZE]
            begin[t * count + p] = start = n
            fired, payload = _longer(fired, payload, graded, n + size)
            if kind == INPUT:
                g = one[GIVEN]
                for e in range(inputs.first[g, t], inputs.first[g, t + 1]):
                    fired[n] = inputs.neuron[e]
                    if graded:
                        payload[n] = inputs.value[e] if inputs.value.size else 1
                    n += 1
            else:
                arrived = _arrivals(t, count, one, wiring, state, given, graded, fired, payload, begin, record.totals)
                if t >= one[START]:
                    n = _updates(n, t, one, arrived, cores, state, given, graded, alive, fired, payload, record)
                    if kind == READOUT:
                        n = _readings(n, t, one, state, faults, fired, payload, record)
                if one[RECORD] >= 0:
                    for k in range(size):
                        record.u[t, one[RECORD] + k] = state.u[low + k]
                        record.v[t, one[RECORD] + k] = state.v[low + k]
                        record.left[t, one[RECORD] + k] = state.left[low + k]
            n = _depart(n, start, t, one, cores, faults, graded, fired, payload, record)
    begin[steps * count] = n
    return fired[:n].copy(), payload[: n if graded else 0].copy()


@njit(cache=True, nogil=True)
def _depart(n, start, t, one, cores, faults, graded, fired, payload, record):
    """The spikes of a population's step leave: those of dead neurons and the lost ones do not; the rest is counted."""
    sender = one[SENDER]
    if faults.dead.size or faults.lost > 0:
        kept = start
        for e in range(start, n):
            number = sender + fired[e]
            if faults.dead.size and faults.dead[number]:
                continue
            if faults.lost > 0 and (mixed(faults.seed, t, number) >> np.uint64(11)) < faults.lost:
                record.totals[LOST] += 1
                continue
            fired[kept] = fired[e]
            if graded:
                payload[kept] = payload[e]
            kept += 1
        n = kept
    for e in range(start, n):
        number = sender + fired[e]
        times = np.int64(payload[e]) if one[SHIFT] == -2 else 1
        home = cores.home[number]
        if home >= 0 and one[KIND] == SPIKING:
            record.counts[t, home, SPIKES] += times
        last = -1
        for k in range(cores.first[number], cores.first[number + 1]):
            core = cores.core[k]
            record.operations[t, core, cores.kind[k]] += times * cores.synapses[k]
            if core != last:
                last = core
                record.counts[t, core, AXONS_IN] += times
                if home >= 0:
                    record.counts[t, home, AXONS_OUT] += times
    return n
