"""A population's parameters in a chip's numbers, for each family of arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from neuromorphic.chip.arithmetic import Arithmetic
from neuromorphic.network import Population
from numerics.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt

    Reals = Mapping[str, npt.NDArray[np.float64]]
    Numbers = dict[str, npt.NDArray[Any]]


def loihi_numbers(
    one: Population, real: Reals, second: bool, units: float, chip: Arithmetic, weights: list[Any], notes: list[str]
) -> Numbers:
    """As ``LoihiNeuron`` has them; the threshold and the bias are whole, not mantissas."""
    full = 1 << 12
    decay_u = np.rint(full - 1 - full * real["decay_i"])
    decay_v = np.rint(full * (1 - real["decay_v"]))
    found = {"decay_u": np.clip(decay_u, 0, full - 1), "decay_v": np.clip(decay_v, 0, full - 1)}
    _decay_note(one, (full - 1 - found["decay_u"]) / full, real["decay_i"], "decay_i", notes)
    _decay_note(one, (full - found["decay_v"]) / full, real["decay_v"], "decay_v", notes)
    found["bias"] = _bias(one, real["bias"] * units, chip)
    _rounding_note(one, "bias", found["bias"] - real["bias"] * units, found["bias"], notes)
    unit = 1 << chip.unit_exponent
    if one.neurons.spiking:
        mantissa = np.rint(real["threshold"] * units / unit)
        if one.neurons.fires_at_threshold:
            if _whole(real, units, unit, weights):
                mantissa -= 1
            else:
                notes.append(f"{one.name}: spikes above the threshold, not at it")
        _range(one, "threshold", mantissa, 0, (1 << chip.threshold_bits) - 1, units / unit, chip)
        _rounding_note(
            one, "threshold", mantissa + _at(one, real, units, unit, weights) - real["threshold"] * units / unit, mantissa, notes
        )
        found["threshold"] = mantissa * unit
        found["drop"] = (mantissa + _at(one, real, units, unit, weights)) * unit
    else:
        found["threshold"] = found["drop"] = np.zeros(one.size)
    found["refractory"] = real["refractory_steps"] + 1
    low, high = chip.voltage_range
    for name in ("v_reset", "v_init"):
        found[name] = np.rint(real[name] * units)
        _range(one, name, found[name], low, high, units, chip)
        _rounding_note(one, name, found[name] - real[name] * units, found[name], notes)
    _rest_note(one, real, (full - found["decay_v"]) / full, found["bias"] / units, found["threshold"] / units, notes)
    return {name: values.astype(np.int32) for name, values in found.items()}


def _at(one: Population, real: Reals, units: float, unit: int, weights: list[Any]) -> int:
    return int(one.neurons.fires_at_threshold and _whole(real, units, unit, weights))


def _whole(real: Reals, units: float, unit: int, weights: list[Any]) -> bool:
    """Whether v is only ever a multiple of the threshold's unit, so that ≥ m is > m − 1."""
    if real["decay_i"].any() or (real["decay_v"] != 1).any():
        return False
    every = [real["threshold"], real["bias"], real["v_init"], real["v_reset"], *weights]
    return all(bool((np.abs(x * units / unit - np.rint(x * units / unit)) < 1e-6).all()) for x in every)


def fixed_numbers(
    one: Population, real: Reals, second: bool, units: float, chip: Arithmetic, weights: list[Any], notes: list[str]
) -> Numbers:
    """Integers with ``fraction_bits`` behind the point; shares and rotations have ``decay_bits``."""
    one_unit = 1 << (chip.decay_bits or 0)
    found: dict[str, npt.NDArray[np.float64]] = {}
    names = [("decay_i", "decay_u"), ("decay_v", "decay_v")] + ([("decay_i2", "decay_u2")] if second else [])
    for name, field in names:
        found[field] = np.rint(real[name] * one_unit)
        _decay_note(one, found[field] / one_unit, real[name], name, notes)
    found["bias"] = _bias(one, real["bias"] * units, chip)
    if chip.family == "event" and found["bias"].max() > 0:
        raise InputError(f"population {one.name!r}: bias: {chip.name} has a leak only, so at most 0, got {real['bias'].max():g}")
    found["input_bias"] = np.rint(real["input_bias"] * units)
    for name in ("bias", "input_bias"):
        _rounding_note(one, name, found[name] - real[name] * units, found[name], notes)
    low, high = chip.voltage_range
    if one.neurons.spiking:
        register = np.rint(real["threshold"] * units)
        _rounding_note(one, "threshold", register - real["threshold"] * units, register, notes)
        # v > t is v ≥ t + 1.
        if chip.fires_at_threshold and not one.neurons.fires_at_threshold:
            register += 1
            if one.neurons.reset == "subtract":
                notes.append(f"{one.name}: spikes at the threshold, so that it is one higher, and a reset takes off one more")
        elif not chip.fires_at_threshold and one.neurons.fires_at_threshold:
            register -= 1
        _range(one, "threshold", register, 0 if chip.threshold_bits < 31 else low, (1 << chip.threshold_bits) - 1, units, chip)
        found["threshold"] = register - chip.fires_at_threshold
        found["drop"] = register if chip.fires_at_threshold else np.rint(real["threshold"] * units)
    else:
        found["threshold"] = found["drop"] = np.zeros(one.size)
    found["refractory"] = real["refractory_steps"]
    for name in ("v_reset", "v_init"):
        found[name] = np.rint(real[name] * units)
        _range(one, name, found[name], low, high, units, chip)
        _rounding_note(one, name, found[name] - real[name] * units, found[name], notes)
    if real["adaptation"].any():
        found["adaptation"], found["decay_a"] = np.rint(real["adaptation"] * units), np.rint(real["decay_a"] * one_unit)
        _rounding_note(one, "adaptation", found["adaptation"] - real["adaptation"] * units, found["adaptation"], notes)
        _decay_note(one, found["decay_a"] / one_unit, real["decay_a"], "decay_a", notes)
    if one.neurons.kind == "resonate_and_fire":
        found["cosine"] = np.rint(real["decay_v"] * np.cos(real["angle"]) * one_unit)
        found["sine"] = np.rint(real["decay_v"] * np.sin(real["angle"]) * one_unit)
        _rotation_note(one, real, found["cosine"] / one_unit, found["sine"] / one_unit, notes)
    _rest_note(
        one, real, found["decay_v"] / one_unit, found["bias"] / units, found["threshold"] / units, notes,
        found["input_bias"] / units, found["decay_u"] / one_unit,
    )  # fmt: skip
    return {name: values.astype(np.int64 if chip.family == "fixed" else np.int32) for name, values in found.items()}


def float_numbers(
    one: Population, real: Reals, second: bool, units: float, chip: Arithmetic, weights: list[Any], notes: list[str]
) -> Numbers:
    """Each rounded to the format, in float32."""
    from numerics import quantize

    def rounded(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        return np.asarray(quantize(values, chip.format), np.float32)

    found = {"decay_u": rounded(real["decay_i"]), "decay_v": rounded(real["decay_v"])}
    found |= {name: rounded(real[name] * units) for name in ("bias", "input_bias", "threshold", "v_reset", "v_init")}
    if second:
        found["decay_u2"] = rounded(real["decay_i2"])
    if real["adaptation"].any():
        found["adaptation"], found["decay_a"] = rounded(real["adaptation"] * units), rounded(real["decay_a"])
    if one.neurons.kind == "resonate_and_fire":
        found["cosine"] = rounded(real["decay_v"] * np.cos(real["angle"]))
        found["sine"] = rounded(real["decay_v"] * np.sin(real["angle"]))
        _rotation_note(one, real, found["cosine"].astype(np.float64), found["sine"].astype(np.float64), notes)
    for name, field in (("decay_i", "decay_u"), ("decay_v", "decay_v"), ("decay_i2", "decay_u2"), ("decay_a", "decay_a")):
        if field in found:
            _decay_note(one, found[field].astype(np.float64), real[name], name, notes)
    held = {name: values.astype(np.float64) for name, values in found.items()}
    for name in ("bias", "input_bias", "threshold", "v_reset", "v_init", "adaptation"):
        if name in held:
            _rounding_note(one, name, held[name] - real[name] * units, held[name], notes)
    _rest_note(
        one, real, held["decay_v"], held["bias"] / units, held["threshold"] / units, notes, held["input_bias"] / units,
        held["decay_u"],
    )  # fmt: skip
    numbers: Numbers = dict(found)
    numbers["refractory"] = real["refractory_steps"].astype(np.int32)
    return numbers


def _bias(one: Population, wanted: npt.NDArray[np.float64], chip: Arithmetic) -> npt.NDArray[np.float64]:
    """The nearest mantissa · 2^exponent."""
    largest = (1 << (chip.bias_bits - 1)) - 1
    exponent = np.ceil(np.log2(np.maximum(np.abs(np.rint(wanted)) / largest, 1)))
    if exponent.max(initial=0) > chip.bias_exponent_max:
        most = largest << chip.bias_exponent_max
        worst = float(wanted[np.argmax(np.abs(wanted))])
        raise InputError(f"population {one.name!r}: bias: {chip.name} has ±{most} units of v, got {worst:g}")
    step = 2.0**exponent
    return np.clip(np.rint(wanted / step), -largest, largest) * step


def _range(
    one: Population, field: str, values: npt.NDArray[np.float64], low: int, high: int, units: float, chip: Arithmetic
) -> None:
    if values.size and not low <= values.min() <= values.max() <= high:
        worst = values.max() if values.max() > high else values.min()
        limits = f"{low / units:g} to {high / units:g} at this scale"
        raise InputError(f"population {one.name!r}: {field}: {chip.name} has {limits}, got {worst / units:g}")


def _decay_note(
    one: Population, held: npt.NDArray[np.float64], wanted: npt.NDArray[np.float64], field: str, notes: list[str]
) -> None:
    """What rounding a share that is kept each step does to the time in which it falls by e."""
    error = np.abs(held - wanted)
    if (field == "decay_v" and one.neurons.kind == "resonate_and_fire") or error.max(initial=0) <= 1e-12:
        return  # a resonator's share is within its rotation
    own, other = (-np.log(np.clip(values, 1e-300, 1.0)) for values in (wanted, held))
    far = np.abs(np.log(np.maximum(own, 1e-12) / np.maximum(other, 1e-12)))
    at = int(np.argmax(far))
    times = "it never falls" if held[at] >= 1 else f"its time constant is {own[at] / other[at]:.3g} times as long"
    notes.append(
        f"{one.name}: {field} was rounded, by {error.max():.2g} at most; {wanted[at]:.6g} became {held[at]:.6g}: {times}"
    )


def _rotation_note(
    one: Population, real: Reals, cosine: npt.NDArray[np.float64], sine: npt.NDArray[np.float64], notes: list[str]
) -> None:
    """What rounding a resonator's rotation does to the share that is kept each step, and to its frequency."""
    _decay_note(one, np.hypot(cosine, sine), real["decay_v"], "the share that a rotation keeps", notes)
    angle = np.arctan2(sine, cosine)
    error = np.abs((angle - real["angle"] + np.pi) % (2 * np.pi) - np.pi)
    at = int(np.argmax(error))
    if error[at] > 1e-12:
        notes.append(f"{one.name}: angle was rounded, by {error[at]:.2g} at most; {real['angle'][at]:.6g} became {angle[at]:.6g}")


def _rest_note(
    one: Population,
    real: Reals,
    decay: npt.NDArray[np.float64],
    bias: npt.NDArray[np.float64],
    threshold: npt.NDArray[np.float64],
    notes: list[str],
    input_bias: npt.NDArray[np.float64] | float = 0.0,
    decay_i: npt.NDArray[np.float64] | float = 0.0,
) -> None:
    """Where rounding makes neurons silent that fire without input, or the other way round."""
    if one.neurons.kind != "integrate_and_fire":
        return
    wanted = _rest(real["decay_v"], real["bias"] + _rest(real["decay_i"], real["input_bias"]))
    held = _rest(decay, bias + _rest(np.asarray(decay_i), np.asarray(input_bias)))
    fired, fires = wanted > real["threshold"] + 1e-9 * np.abs(real["threshold"]), held > threshold
    for changed, what in ((fired & ~fires, "no longer fire"), (fires & ~fired & (wanted < real["threshold"]), "now fire")):
        if changed.any():
            at = int(np.argmax(changed))
            notes.append(
                f"{one.name}: {int(changed.sum()):,} of {one.size:,} neurons {what} without input: v went toward "
                f"{wanted[at]:.4g} at a threshold of {real['threshold'][at]:.4g}, and with rounded numbers toward {held[at]:.4g}"
            )


def _rest(decay: npt.NDArray[np.float64], drive: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Where a state settles that keeps a share of itself each step and gets as much."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(drive == 0, 0.0, drive / np.maximum(1 - decay, 0.0))


def _rounding_note(
    one: Population, field: str, error: npt.NDArray[np.float64], values: npt.NDArray[np.float64], notes: list[str]
) -> None:
    """How far a value is from the one wanted, beside its own size."""
    wanted = values - error
    share = np.abs(error) / np.maximum(np.maximum(np.abs(wanted), np.abs(values)), 1e-300)
    at = int(np.argmax(share)) if share.size else 0
    if share.size and share[at] > 1e-9:
        notes.append(f"{one.name}: {field} was rounded, by {share[at]:.2g} of it at most")
