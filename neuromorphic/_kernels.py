"""Compiled loops of the neurons (numba)."""

from __future__ import annotations

from numba import njit


@njit(cache=True, nogil=True, inline="always")
def decayed(x, factor):
    """x · factor / 4096, rounded toward zero."""
    return (x * factor) >> 12 if x >= 0 else -((-x * factor) >> 12)


@njit(cache=True, nogil=True, inline="always")
def wrapped(x, bits):
    """x in two's complement of so many bits, the sign among them."""
    half = 1 << (bits - 1)
    return ((x + half) & ((1 << bits) - 1)) - half


@njit(cache=True, nogil=True)
def lif_steps(u, v, refractory, inputs, bias, factor_u, factor_v, threshold, delay, lowest, highest, input_bits, bits, spikes):
    """Steps of current-based integrate-and-fire neurons; ``u``, ``v``, ``refractory`` and ``spikes`` are written.

    u, v, refractory, bias: (neurons,); inputs, spikes: (steps, neurons).
    """
    for t in range(inputs.shape[0]):
        for n in range(u.size):
            current = wrapped(decayed(int(u[n]), factor_u) + wrapped(int(inputs[t, n]), input_bits), bits)
            voltage = decayed(int(v[n]), factor_v) + wrapped(current + bias[n], bits)
            voltage = min(max(voltage, lowest), highest)
            left = max(int(refractory[n]) - 1, 0)
            if left > 0:
                voltage = 0
            spike = voltage > threshold
            if spike:
                voltage = 0
                left = delay
            u[n], v[n], refractory[n], spikes[t, n] = current, voltage, left, spike
