"""A spiking network into a chip's integers: scales, mantissas and exponents, and what was lost on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from neuromorphic.chip.arithmetic import Arithmetic, get_arithmetic
from neuromorphic.chip.constant_source import with_constant_source
from neuromorphic.chip.delays import Timing, chip_delays
from neuromorphic.chip.network import ChipNetwork, ChipPopulation, ChipProjection
from neuromorphic.network import Neurons, Population, Projection, SpikingNetwork
from numerics.errors import InputError, unknown_name

if TYPE_CHECKING:
    import numpy.typing as npt

ScaleRule = Literal["auto", "exact", "max", "percentile"]
"""How a population's unit of v is chosen. ``max``: the largest weight takes the whole mantissa. ``percentile``: so does the
weight at that percentile, larger ones are clipped. ``exact``: one in which weights and threshold are whole numbers, an error
where there is none. ``auto``: exact where that is possible, otherwise max."""

GUARD_BITS = 8
"""A threshold's mantissa keeps so many bits, even if sums of inputs may then wrap."""


@dataclass(frozen=True)
class _Incoming:
    """Real weights that a projection brings, with the gain in them; bounds: of the magnitude that its mantissas must hold."""

    projection: Projection
    weight: npt.NDArray[np.float64]
    largest: float
    both_signs: bool


def quantise(
    network: SpikingNetwork,
    arithmetic: str | Arithmetic | Any,
    *,
    timing: Timing = "aligned",
    scale: ScaleRule | float | Mapping[str, float] = "auto",
    percentile: float = 99.9,
    value_scale: Mapping[str, float] | None = None,
    exponential_leak: Literal["refuse", "linear"] | None = None,
) -> ChipNetwork:
    """A network in a chip's numbers.

    Args:
        network: in real numbers.
        arithmetic: a name of ``ARITHMETICS``, an ``Arithmetic`` or a chip's spec.
        timing: as of ``Timing``.
        scale: a rule, or units of v that are 1 of the network: one for all populations, or by name (the others by ``auto``).
        percentile: of the magnitudes of weights, for that rule.
        value_scale: input or sending readout → units of a spike's value that are 1 of the network; 1 by default for inputs, 256
            for readouts. Those of a readout are its scale divided by a power of two.
        exponential_leak: where a chip has only a constant leak: ``linear`` takes off in each step what the leak takes at half the
            threshold; None: what the chip's spec says, ``refuse`` without one.

    Returns:
        The network, whose ``notes`` say what was rounded and clipped.

    Raises:
        InputError: what the chip cannot hold at all: population or projection, field, what was expected.
    """
    chip = get_arithmetic(arithmetic)
    if exponential_leak is None:
        exponential_leak = getattr(arithmetic, "exponential_leak", "refuse")
    if exponential_leak not in ("refuse", "linear"):
        raise unknown_name("exponential_leak", str(exponential_leak), ("refuse", "linear"))
    if isinstance(percentile, bool) or not isinstance(percentile, int | float) or not 0 < percentile <= 100:
        raise InputError(f"percentile: expected above 0, at most 100, got {percentile!r}")
    _check_scales(network, scale, value_scale)
    if chip.family in ("loihi", "event") or chip.current_bits is None:
        network = with_constant_source(network)
    late, delays = chip_delays(network, timing, chip.delay_steps_max)
    scales = scale if isinstance(scale, Mapping) else {}
    rule: Any = "auto" if isinstance(scale, Mapping) else scale
    chosen = rule if isinstance(rule, str) and not scales else "given"
    notes = [*network.notes, f"quantisation: {chip.name}, scale {chosen}, timing {timing}"]
    senders = {p.source for p in network.projections}
    populations: dict[str, ChipPopulation] = {}
    incoming: dict[str, list[_Incoming]] = {one.name: [] for one in network.populations}
    for one in network.populations:
        if one.neurons.kind == "input":
            units = float((value_scale or {}).get(one.name, 1.0))
            populations[one.name] = ChipPopulation(one.name, one.shape, "input", value_scale=_positive("value_scale", units))
    for name in network.order:
        one = network.population(name)
        if one.neurons.kind == "input":
            continue
        real, second = _checked(one, network, chip, exponential_leak, notes)
        wanted = scales.get(name, rule)
        parts = [_incoming(p, real, second) for p in network.projections if p.target == name]
        incoming[name] = parts
        units = _scale(one, real, parts, chip, wanted, percentile, notes)
        made = _population(one, real, second, units, chip, parts, notes)
        if made.kind == "readout" and name in senders:
            made = _sending(made, chip, (value_scale or {}).get(name, 256.0))
        populations[name] = replace(made, start=late[name])
    size = network.synapses
    target = np.empty(size, np.uint32)
    weight = np.empty(size, np.float32 if chip.family == "float" else np.int16 if (chip.weight_bits or 32) <= 16 else np.int32)
    projections = []
    place = 0
    parts_of = {part.projection.name: part for parts in incoming.values() for part in parts}
    for p in network.projections:
        part = parts_of.pop(p.name)
        end = place + p.synapses.count
        units = populations[p.target].scale / _sent_unit(network, populations[p.source])
        mantissas, factor = _mantissas(p, part, units, chip, rule == "percentile", percentile, notes)
        target[place:end], weight[place:end] = p.synapses.target, mantissas
        receptor = p.receptor if "decay_u2" in populations[p.target].numbers else 0
        first, synapses = p.synapses.first + place, p.synapses
        projections.append(
            ChipProjection(p.name, p.source, p.target, first, delays[p.name], factor, receptor, synapses.kind, synapses.stored)
        )
        place = end
    found = ChipNetwork(
        network.name, chip, tuple(populations[one.name] for one in network.populations), tuple(projections), target, weight,
        network.outputs, network.dt_s, {name: steps for name, steps in late.items() if steps}, tuple(notes),
    )  # fmt: skip
    if chip.weights_per_neuron is not None:
        from neuromorphic.chip.axon_types import with_axon_types

        return with_axon_types(found)
    if chip.sign_by_source:
        from neuromorphic.chip.axon_types import both_signs

        return both_signs(found)
    return found


def _positive(name: str, value: float) -> float:
    if not (np.isfinite(value) and value > 0):
        raise InputError(f"{name}: expected a number > 0, got {value!r}")
    return value


def _sent_unit(network: SpikingNetwork, source: ChipPopulation) -> float:
    """Units that a value 1 is sent as."""
    return source.value_scale if source.kind == "input" or source.shift >= 0 else 1.0


def _checked(
    one: Population, network: SpikingNetwork, chip: Arithmetic, leak: str, notes: list[str]
) -> tuple[dict[str, npt.NDArray[np.float64]], bool]:
    """Real parameters as the chip takes them, and whether there is a second current.

    Raises:
        InputError: something that the chip has not.
    """
    neurons: Neurons = one.neurons
    real = neurons.arrays(one.size)

    def refuse(field: str, expected: str, got: Any) -> InputError:
        return InputError(f"population {one.name!r}: {field}: {chip.name} has {expected}, got {got}")

    def extreme(field: str) -> str:
        values = real[field]
        return f"{values[np.argmax(np.abs(values))]:g}"

    if neurons.kind not in chip.kinds:
        raise refuse("kind", f"neurons of kind {', '.join(chip.kinds)}", repr(neurons.kind))
    if neurons.kind == "threshold":
        real["decay_i"], real["decay_v"] = np.zeros(one.size), np.zeros(one.size)
        real["adaptation"], real["refractory_steps"], real["v_init"] = np.zeros((3, one.size))
    spikes = neurons.kind in ("integrate_and_fire", "resonate_and_fire")
    if spikes and neurons.reset not in chip.resets:
        raise refuse("reset", " or ".join(chip.resets), repr(neurons.reset))
    if not spikes:
        real["v_reset"], real["adaptation"], real["refractory_steps"] = np.zeros((3, one.size))
    if neurons.kind == "resonate_and_fire":
        real["decay_i"] = np.zeros(one.size)
    if real["decay_i"].any() and chip.current_bits is None:
        raise refuse("decay_i", "no synaptic current, so 0", extreme("decay_i"))
    if real["adaptation"].any() and not chip.adaptation:
        raise refuse("adaptation", "no adaptation, so 0", extreme("adaptation"))
    longest = float(real["refractory_steps"].max())
    if longest > chip.refractory_steps_max:
        raise refuse("refractory_steps", f"at most {chip.refractory_steps_max}", f"{longest:g}")
    if longest and chip.family == "loihi" and neurons.reset != "zero":
        raise refuse("refractory_steps", "none with a reset other than 'zero'", f"{longest:g}")
    if chip.decay_bits is None and ((real["decay_v"] != 1).any() or real["decay_v"].size == 0):
        if leak != "linear":
            raise refuse("decay_v", "a constant leak, so 1 (exponential_leak=linear approximates it)", extreme("decay_v"))
        fall = (1 - real["decay_v"]) * real["threshold"] / 2
        notes.append(f"{one.name}: decay_v {real['decay_v'].min():g} became a leak of {fall.max():g} a step")
        real["bias"] = real["bias"] - fall
        real["decay_v"] = np.ones(one.size)
    second = any(p.target == one.name and p.receptor == 1 for p in network.projections)
    if second and not chip.second_current:
        if (real["decay_i"] != real["decay_i2"]).any():
            raise refuse("decay_i2", "one synaptic current, so that of decay_i", extreme("decay_i2"))
        second = False
    origin = np.zeros(1)
    if neurons.kind == "integrate_and_fire" and neurons.reset == "zero" and chip.family != "float":
        # Voltages are counted from the reset, which is then 0; what leaks toward 0 now needs a bias.
        origin = real["v_reset"]
        for name in ("threshold", "v_init", "v_reset"):
            real[name] = real[name] - origin
        real["bias"] = real["bias"] - (1 - real["decay_v"]) * origin
    real["input_bias"] = real["input_bias"] * real["gain"]
    if chip.family in ("loihi", "event") or chip.current_bits is None:
        # Of currents that decay none is left: they have a source of their own.
        real["bias"] = real["bias"] + real["input_bias"]
        real["input_bias"] = np.zeros(one.size)
    if neurons.spiking and real["threshold"].min() < 0 and chip.threshold_bits < 31:
        at = int(np.argmin(real["threshold"]))
        found, reset = neurons.arrays(one.size)["threshold"][at], origin[at] if origin.any() else 0.0
        above = f"v_reset, {reset:g}" if reset else "0"
        raise refuse("threshold", f"thresholds ≥ {above}", f"{found:g}")
    return real, second


def _incoming(p: Projection, real: Mapping[str, npt.NDArray[np.float64]], second: bool) -> _Incoming:
    gain = real["gain2" if p.receptor else "gain"]
    weight = p.synapses.weight if (gain == 1).all() else p.synapses.weight * gain[p.synapses.target]
    low, high = (float(weight.min()), float(weight.max())) if weight.size else (0.0, 0.0)
    return _Incoming(p, weight, max(-low, high), low < 0 < high)


def _limit(chip: Arithmetic, both_signs: bool) -> int:
    return chip.largest_weight - chip.largest_weight % chip.mixed_step if both_signs else chip.largest_weight


def _check_scales(network: SpikingNetwork, scale: Any, value_scale: Mapping[str, float] | None) -> None:
    """See that scales are numbers, of populations that have such."""
    sends = {one.name for one in network.populations if not one.neurons.spiking}
    for field, given in (("scale", scale), ("value_scale", value_scale)):
        if not isinstance(given, Mapping):
            continue
        for name, value in given.items():
            one = network.population(name)
            if field == "scale" and one.neurons.kind == "input":
                raise InputError(f"scale: {name!r} is an input and has no voltage")
            if field == "value_scale" and name not in sends:
                raise InputError(f"value_scale: {name!r} sends spikes, which carry no value")
            if isinstance(value, bool) or not isinstance(value, int | float | np.number):
                raise InputError(f"{field}: {name!r}: expected a number > 0, got {value!r}")


def _scale(
    one: Population,
    real: Mapping[str, npt.NDArray[np.float64]],
    parts: list[_Incoming],
    chip: Arithmetic,
    rule: Any,
    percentile: float,
    notes: list[str],
) -> float:
    """Units of v that are 1 of the network."""
    if not isinstance(rule, str):
        return _positive("scale", float(rule))
    if rule not in ("auto", "exact", "max", "percentile"):
        raise unknown_name("scale", rule, ("auto", "exact", "max", "percentile"))
    if chip.family == "float":
        return 1.0
    if chip.fraction_bits:
        return float(1 << chip.fraction_bits)
    unit_size = float(1 << chip.unit_exponent)
    spiking = one.neurons.spiking
    threshold = real["threshold"] if spiking else np.zeros(0)
    if rule in ("auto", "exact"):
        unit = _common_unit(parts, threshold, real["bias"], chip)
        if unit:
            return unit_size / unit
        if rule == "exact":
            raise InputError(
                f"population {one.name!r}: scale: weights and threshold are no whole numbers of a unit that {chip.name} can hold"
            )
    bounds = []
    for part in parts:
        top = _top(part, percentile if rule == "percentile" else 100.0)
        if top:
            bounds.append(_limit(chip, part.both_signs) / top)
    if not bounds:
        bounds = [chip.largest_weight / max(float(np.abs(threshold).max(initial=0)), 1e-30)] if threshold.any() else [1.0]
    # Mantissas of the threshold, and of the bias, must fit as well; a unit is 2^unit_exponent.
    most_threshold = ((1 << chip.threshold_bits) - 1) / max(float(threshold.max(initial=0)), 1e-300)
    largest_bias = ((1 << (chip.bias_bits - 1)) - 1) << chip.bias_exponent_max
    most_bias = largest_bias / max(float(np.abs(real["bias"]).max(initial=0)), 1e-300) / unit_size
    room = min(most_threshold, most_bias, chip.voltage_range[1] / unit_size / max(float(np.abs(real["v_init"]).max()), 1e-300))
    units = min(bounds)
    if chip.family == "loihi":
        units *= 2.0 ** _exponent(units, room, one, real, parts, chip, notes)
    if room < units:
        notes.append(f"{one.name}: weights take {room / units:.3g} of their range, so that threshold and bias fit")
        units = room
    if threshold.size and threshold.min() == threshold.max() > 0 and units * threshold[0] >= 1:
        # A little less, so that the threshold is a whole number of units.
        units = np.floor(units * threshold[0] * (1 + 1e-12)) / threshold[0]
    return float(units * unit_size)


def _top(part: _Incoming, percentile: float) -> float:
    if percentile >= 100 or not part.weight.size:
        return part.largest
    return float(np.percentile(np.abs(part.weight), percentile)) or part.largest


def _exponent(
    units: float,
    room: float,
    one: Population,
    real: Mapping[str, npt.NDArray[np.float64]],
    parts: list[_Incoming],
    chip: Arithmetic,
    notes: list[str],
) -> int:
    """The largest exponent with which no step's input and no current can wrap, but one that leaves the threshold its bits."""
    from neuromorphic.neurons import INPUT_BITS, STATE_BITS

    load = np.zeros(one.size)
    for part in parts:
        load += np.bincount(part.projection.synapses.target, np.abs(part.weight), one.size)
    held = load / np.maximum(1 - real["decay_i"], 1 / 4096) + np.abs(real["bias"])
    low, high = chip.weight_exponents
    unit_size = 2.0**chip.unit_exponent
    safe = min(
        ((1 << (INPUT_BITS - 1)) - 1) / max(float(load.max()), 1e-300),
        ((1 << (STATE_BITS - 1)) - 1) / max(float(held.max()), 1e-300),
    )
    best = int(np.floor(np.log2(max(min(safe / unit_size, room) / units, 2.0**low))))
    threshold = real["threshold"][real["threshold"] > 0]
    least = (
        int(np.ceil(np.log2((1 << GUARD_BITS) / (units * threshold.min())))) if one.neurons.spiking and threshold.size else low
    )
    within = int(np.floor(np.log2(room) - np.log2(units)))  # their ratio may be beyond doubles
    found = min(max(best, min(least, within), low), high)
    share = units * 2.0**found * unit_size / safe
    if share > 1:
        notes.append(f"{one.name}: sums of inputs may wrap: all of them together are {share:.2g} of the range")
    return found


def _common_unit(
    parts: list[_Incoming], threshold: npt.NDArray[np.float64], bias: npt.NDArray[np.float64], chip: Arithmetic
) -> float | None:
    """The unit of which weights, thresholds and biases are whole numbers that the chip holds; None: there is none."""
    values = [np.unique(np.abs(part.weight)) for part in parts]
    if any(found.size > chip.largest_weight + 1 for found in values):
        return None
    every = np.unique(np.concatenate([*values, threshold, np.abs(bias)]))
    every = every[every > 0]
    if not every.size or every.size > 4096:
        return None
    # Numbers that are a chip's integers stay as they are.
    if (every % 1 == 0).all() and _fits(parts, threshold, bias, 1.0, chip):
        return 1.0
    unit = float(every[0])
    for value in every[1:]:
        other = float(value)
        while other > 1e-9 * float(every[-1]):
            unit, other = other, unit % other
            if unit - other < 1e-9 * float(every[-1]):
                other = 0.0
    counts = np.rint(every / unit)
    if np.abs(every - counts * unit).max() > 1e-9 * float(every[-1]):
        return None
    # The finest: decays round less.
    finest = None
    for halving in range(9):
        if _fits(parts, threshold, bias, unit / 2**halving, chip):
            finest = unit / 2**halving
    return finest


def _fits(
    parts: list[_Incoming], threshold: npt.NDArray[np.float64], bias: npt.NDArray[np.float64], unit: float, chip: Arithmetic
) -> bool:
    """Whether mantissas in this unit are within their ranges."""
    for part in parts:
        if part.largest / unit > _limit(chip, part.both_signs) * (1 + 1e-9):
            return False
        if part.both_signs and chip.mixed_step > 1 and (np.rint(np.unique(part.weight) / unit) % chip.mixed_step).any():
            return False
    if threshold.size and np.rint(threshold.max() / unit) > (1 << chip.threshold_bits) - 1:
        return False
    largest = ((1 << (chip.bias_bits - 1)) - 1) << chip.bias_exponent_max
    return not bias.any() or float(np.abs(bias).max()) / unit * (1 << chip.unit_exponent) <= largest


def _mantissas(
    p: Projection, part: _Incoming, units: float, chip: Arithmetic, clip: bool, percentile: float, notes: list[str]
) -> tuple[npt.NDArray[Any], float]:
    """Mantissas of a projection's weights, and what they are multiplied with."""
    if chip.weight_bits is None:
        return part.weight.astype(np.float32), 1.0
    limit = _limit(chip, part.both_signs)
    step = chip.mixed_step if part.both_signs else 1
    top = _top(part, percentile if clip else 100.0) * units
    low, high = chip.weight_exponents
    exponent = low
    if top:
        exponent = int(np.ceil(np.log2(top / limit / 2.0**chip.unit_exponent * (1 - 1e-12))))
        if exponent > high:
            raise InputError(
                f"projection {p.name!r}: weight: {chip.name} has at most {limit * 2.0 ** (high + chip.unit_exponent) / units:g} "
                f"beside this threshold, got {part.largest:g}"
            )
        exponent = max(exponent, low)
        if _integral(part, units, chip, limit, step):
            exponent = 0
    factor = 2.0 ** (exponent + chip.unit_exponent)
    exact = part.weight * (units / factor)
    rounded = np.rint(exact / step) * step
    clipped = int((np.abs(rounded) > limit).sum())
    np.clip(rounded, -limit, limit, out=rounded)
    if top and not rounded.any():
        raise InputError(
            f"projection {p.name!r}: weight: {chip.name} has none below {step * factor / units:g} beside this threshold, got at "
            f"most {part.largest:g}"
        )
    kept = np.abs(exact) <= limit
    error = float(np.abs(rounded - exact)[kept].max(initial=0))
    if clipped:
        notes.append(f"{p.name}: {clipped} of {rounded.size} weights were clipped to ±{limit * factor / units:g}")
    if error > 1e-9:
        notes.append(f"{p.name}: weights were rounded, by {error / max(np.abs(rounded).max(), 1):.2g} of the largest at most")
    return rounded, factor


def _integral(part: _Incoming, units: float, chip: Arithmetic, limit: int, step: int) -> bool:
    """Whether the weights are mantissas with exponent 0 as they are."""
    low, high = chip.weight_exponents
    if not low <= 0 <= high or part.largest * units / 2.0**chip.unit_exponent > limit * (1 + 1e-12):
        return False
    exact = part.weight * (units / (step * 2.0**chip.unit_exponent))
    return bool((np.abs(exact - np.rint(exact)) < 1e-6).all())


def _population(
    one: Population,
    real: Mapping[str, npt.NDArray[np.float64]],
    second: bool,
    units: float,
    chip: Arithmetic,
    parts: list[_Incoming],
    notes: list[str],
) -> ChipPopulation:
    from neuromorphic.chip.numbers import fixed_numbers, float_numbers, loihi_numbers

    kind: Literal["spiking", "readout"] = "spiking" if one.neurons.spiking else "readout"
    make = {"loihi": loihi_numbers, "fixed": fixed_numbers, "event": fixed_numbers, "float": float_numbers}[chip.family]
    weights = [part.weight for part in parts]
    numbers = make(one, real, second, units, chip, weights, notes)
    reset = one.neurons.reset if kind == "spiking" and one.neurons.kind != "threshold" else "zero"
    at = chip.family == "float" and one.neurons.fires_at_threshold
    shifted = one.neurons.kind == "integrate_and_fire" and reset == "zero" and chip.family != "float"
    origin: Any = one.neurons.v_reset if shifted and np.any(one.neurons.v_reset) else 0.0
    return ChipPopulation(one.name, one.shape, kind, scale=units, reset=reset, at_threshold=at, numbers=numbers, origin=origin)


def _sending(made: ChipPopulation, chip: Arithmetic, units: float) -> ChipPopulation:
    if not chip.spike_value_bits:
        raise InputError(f"population {made.name!r}: kind: {chip.name} sends no values, so that a readout sends nothing")
    if chip.family == "float":
        return replace(made, shift=0, value_scale=1.0)
    shift = max(0, round(np.log2(made.scale / _positive("value_scale", float(units)))))
    return replace(made, shift=int(shift), value_scale=made.scale / 2.0**shift)
