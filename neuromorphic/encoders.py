"""Numbers into events: by their rate, by the time of a first spike, by their changes.

>>> latency_events([1.0, 0.5, 0.0], steps=5).step.tolist()
[0, 2]
>>> delta_events([[0.0], [0.25], [0.1]], threshold=0.1).dense().tolist()
[[0.0, 0.0], [2.0, 0.0], [0.0, 1.0]]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from neuromorphic.events import Events
from numerics.errors import InputError, unknown_name

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

Law = Literal["linear", "logarithmic"]
# Steps are drawn in parts, so that the random numbers of a long run are never in memory at once; the stream is the same.
PART = 1 << 20


def bernoulli_events(probability: npt.ArrayLike, *, seed: int, steps: int | None = None) -> Events:
    """Spikes that are each independent of all others.

    A Poisson process of which a step shows only whether anything came in it has probability 1 − exp(−rate · dt).

    Args:
        probability: of a spike in a step, (size,) for every step or (steps, size).
        seed: of the Philox generator.
        steps: how many, for probabilities (size,).

    Raises:
        InputError: a probability outside 0 to 1, another shape, or steps that do not fit it.
    """
    chances = _table("probability", probability, steps, high=1.0)
    return _drawn(chances, seed, lambda rng, part: (rng.random(part.shape) < part).astype(np.float64))


def poisson_events(rate_hz: npt.ArrayLike, *, dt_s: float, seed: int, steps: int | None = None) -> Events:
    """How many events of Poisson processes fall into each step: the value is their number, which may be more than 1.

    Args:
        rate_hz: events a second, (size,) for every step or (steps, size).
        dt_s: length of a step.
        seed: of the Philox generator.
        steps: how many, for rates (size,).

    Raises:
        InputError: a rate below 0 or not finite, another shape, or steps that do not fit it.
    """
    if not (np.isfinite(dt_s) and dt_s > 0):
        raise InputError(f"dt_s: expected seconds > 0, got {dt_s!r}")
    means = _table("rate_hz", rate_hz, steps) * dt_s
    return _drawn(means, seed, lambda rng, part: rng.poisson(part).astype(np.float64))


def latency_events(
    intensity: npt.ArrayLike, *, steps: int, law: Law = "linear", tau_steps: float = 5.0, threshold: float = 0.0
) -> Events:
    """One spike a neuron, the sooner the stronger its intensity.

    Args:
        intensity: (size,).
        steps: how many.
        law: ``linear``: of intensities from 0 to 1, in step (1 − intensity) · (steps − 1), rounded to the nearest (to even);
            ``logarithmic``: in the step that holds the time τ · ln(intensity/(intensity − threshold)), when a membrane of time
            constant τ that a constant current charges towards ``intensity`` reaches ``threshold``.
        tau_steps: τ, in steps; of the logarithmic law.
        threshold: what is not above it stays silent, as does what would come after the last step.

    Raises:
        InputError: an intensity not finite (or outside 0 to 1 for the linear law), a threshold that is not above 0 for the
            logarithmic law, no steps, an unknown law.
    """
    if law not in get_args(Law):
        raise unknown_name("law", str(law), get_args(Law))
    values = np.asarray(intensity, np.float64)
    if values.ndim != 1 or not values.size or not np.isfinite(values).all():
        raise InputError(f"intensity: expected finite numbers (size,), got shape {values.shape}")
    _count("steps", steps)
    if not np.isfinite(threshold) or threshold < 0 or (law == "logarithmic" and threshold == 0):
        raise InputError(f"threshold: expected a number {'> 0' if law == 'logarithmic' else '≥ 0'}, got {threshold!r}")
    fires = values > threshold
    if law == "linear":
        if values.min() < 0 or values.max() > 1:
            raise InputError(f"intensity: expected 0 to 1, got {values.min():g} to {values.max():g}")
        when = np.rint((1 - values[fires]) * (steps - 1))
    else:
        if not (np.isfinite(tau_steps) and tau_steps > 0):
            raise InputError(f"tau_steps: expected a number > 0, got {tau_steps!r}")
        when = np.floor(tau_steps * -np.log1p(-threshold / values[fires]))
    who = np.flatnonzero(fires)
    soon = when < steps
    return Events.from_list(when[soon].astype(np.int64), who[soon], steps=steps, size=values.size)


def delta_events(signal: npt.ArrayLike, *, threshold: float) -> Events:
    """Changes of signals: an event for each ``threshold`` by which a signal has risen, or fallen, since its last event.

    The level that a signal is compared with begins at its first value and moves by one threshold an event, so that
    signal[0] + threshold · (ups − downs so far) is never a whole threshold off. (The temporal contrast of an event camera, of
    the logarithm of intensity: P. Lichtsteiner, C. Posch and T. Delbruck, "A 128×128 120 dB 15 µs latency asynchronous temporal
    contrast vision sensor", IEEE J. Solid-State Circuits 43(2), 2008.)

    Args:
        signal: (steps, channels).
        threshold: of a change.

    Returns:
        Events of 2 · channels neurons, first the rises and then the falls of each channel; the value is how many in that step.

    Raises:
        InputError: a signal of another shape or not finite, a threshold not above 0.
    """
    values = np.asarray(signal, np.float64)
    if values.ndim != 2 or 0 in values.shape or not np.isfinite(values).all():
        raise InputError(f"signal: expected finite numbers (steps, channels), got shape {values.shape}")
    if not (np.isfinite(threshold) and threshold > 0):
        raise InputError(f"threshold: expected a number > 0, got {threshold!r}")
    # Levels are whole numbers of thresholds, which add up without an error.
    height = (values - values[0]) / threshold
    if np.abs(height).max() >= 2**53:
        raise InputError(f"threshold: {threshold!r} is too small for a signal that changes by {np.ptp(values, axis=0).max():g}")
    sent = np.zeros((len(values), 2, values.shape[1]))
    level = np.zeros(values.shape[1])
    for t in range(1, len(values)):
        # A level moves only by whole thresholds towards the signal: up to the one below it, down to the one above.
        rises = np.maximum(np.floor(height[t]) - level, 0)
        falls = np.maximum(level - np.ceil(height[t]), 0)
        sent[t, 0], sent[t, 1] = rises, falls
        level += rises - falls
    return Events.from_dense(sent.reshape(len(values), -1))


def _count(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise InputError(f"{name}: expected an integer ≥ 1, got {value!r}")


def _table(name: str, values: npt.ArrayLike, steps: int | None, *, high: float = np.inf) -> Floats:
    """Values (steps, size); those of (size,) are repeated without a copy."""
    array = np.asarray(values, np.float64)
    if array.ndim not in (1, 2) or not array.shape[-1]:
        raise InputError(f"{name}: expected numbers (size,) or (steps, size), got shape {array.shape}")
    if array.size and not (np.isfinite(array).all() and 0 <= array.min() <= array.max() <= high):
        limits = "0 to 1" if high == 1 else "finite numbers ≥ 0"
        raise InputError(f"{name}: expected {limits}, got {array.min():g} to {array.max():g}")
    if array.ndim == 2:
        if steps is not None and steps != len(array):
            raise InputError(f"steps: expected {len(array)}, as {name} has, got {steps!r}")
        return array
    _count("steps", steps)
    return np.broadcast_to(array, (int(steps or 0), array.size))


def _drawn(table: Floats, seed: int, draw: Callable[[np.random.Generator, Floats], Floats]) -> Events:
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise InputError(f"seed: expected an integer ≥ 0, got {seed!r}")
    rng = np.random.Generator(np.random.Philox(int(seed)))
    steps, size = table.shape
    rows = max(1, PART // size)
    parts = [Events.from_dense(draw(rng, table[low : low + rows])) for low in range(0, steps, rows)]
    if len(parts) == 1:
        return parts[0]
    counts = np.concatenate([np.zeros(1, np.int64)] + [part.counts() for part in parts])
    graded = any(part.value is not None for part in parts)
    return Events(
        size,
        np.cumsum(counts),
        np.concatenate([np.zeros(0, np.int32)] + [part.neuron for part in parts]),
        np.concatenate([part.values for part in parts]) if graded else None,
    )
