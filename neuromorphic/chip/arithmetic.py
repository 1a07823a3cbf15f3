"""The arithmetic of chips as data: the widths and rules that a neuron's state, its weights and its parameters must obey.

>>> from neuromorphic.chip.arithmetic import get_arithmetic
>>> loihi = get_arithmetic("loihi")
>>> loihi.voltage_bits, loihi.decay_bits, loihi.largest_weight
(24, 12, 255)
>>> get_arithmetic("odin").largest_weight
7
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from hwsim.views.display import displayed
from numerics.errors import InputError, unknown_name

Family = Literal["loihi", "fixed", "event", "float"]


@displayed
@dataclass(frozen=True)
class Arithmetic:
    """What a chip computes with.

    Attributes:
        name: of the arithmetic, or of the chip that has it.
        family: ``loihi``: a step is that of ``LoihiNeuron``; ``fixed``: a step adds its input to integers (with ``fraction_bits``
            behind the point) that saturate; ``event``: each event at once moves the membrane, which saturates and may spike,
            then the step's end leaks; ``float``: each operation rounds to ``format``.
        source: where the figures are from.
        kinds: of ``network.Neurons`` that it can be.
        weight_bits: of a weight's mantissa, the sign among them; None: a number of ``format``.
        weight_exponents: smallest and largest exponent e of a projection; its weights are mantissa · 2^(unit_exponent + e).
        unit_exponent: see there; also of a threshold's mantissa.
        twos_complement: how a mantissa is stored; otherwise sign and magnitude.
        mixed_step: what mantissas are multiples of in a projection that has both signs.
        weights_per_neuron: a neuron's synapses share so many weights, chosen by the axon; None: each has its own.
        sign_by_source: all of a source's synapses have one sign; a source of both signs takes two axons.
        voltage_bits: of v, the sign among them where it is ``signed``.
        current_bits: of the synaptic current; None: there is none, input goes into v.
        second_current: whether there is a second one.
        signed: whether v may be negative.
        fraction_bits: of v and of currents, behind the point; 0: the unit is chosen for each population.
        decay_bits: of decays, 2^bits being all; None: the leak is a constant a step (a bias).
        nearest: products are rounded to the nearest, not down.
        threshold_bits: of its mantissa, which is not negative.
        bias_bits: of its mantissa, the sign among them.
        bias_exponent_max: its exponent is 0 to this.
        resets: those that it has.
        refractory_steps_max: steps that v stays as reset after a spike, at most.
        adaptation: whether a threshold may adapt.
        fires_at_threshold: it spikes where v ≥ threshold, otherwise where v > threshold.
        spike_value_bits: of what a spike may carry; 0: spikes are just there or not.
        delay_steps_max: most steps from a spike to its arrival; None: as many as wanted.
        format: of floats.
    """

    name: str
    family: Family
    source: str
    kinds: tuple[str, ...] = ("integrate_and_fire", "threshold", "readout")
    weight_bits: int | None = None
    weight_exponents: tuple[int, int] = (0, 0)
    unit_exponent: int = 0
    twos_complement: bool = True
    mixed_step: int = 1
    weights_per_neuron: int | None = None
    sign_by_source: bool = False
    voltage_bits: int = 32
    current_bits: int | None = None
    second_current: bool = False
    signed: bool = True
    fraction_bits: int = 0
    decay_bits: int | None = None
    nearest: bool = False
    threshold_bits: int = 31
    bias_bits: int = 32
    bias_exponent_max: int = 0
    resets: tuple[str, ...] = ("zero", "subtract", "none")
    refractory_steps_max: int = 2**31 - 1
    adaptation: bool = False
    fires_at_threshold: bool = False
    spike_value_bits: int = 0
    delay_steps_max: int | None = None
    format: str = "fp32"

    @property
    def largest_weight(self) -> int:
        """Of a mantissa, as a positive number.

        Raises:
            InputError: weights are floats.
        """
        if self.weight_bits is None:
            raise InputError(f"{self.name}: its weights are floats without a largest mantissa")
        return int((1 << (self.weight_bits - 1)) - 1)

    @property
    def voltage_range(self) -> tuple[int, int]:
        """Smallest and largest v, in its unit."""
        if not self.signed:
            return 0, (1 << self.voltage_bits) - 1
        half = 1 << (self.voltage_bits - 1)
        return (1 - half if self.family == "loihi" else -half), half - 1


_LOIHI = Arithmetic(
    name="loihi",
    family="loihi",
    source=(
        "Davies et al., IEEE Micro 38(1), 2018; ranges as nengo-loihi and Lava describe them; mixed signs: Michaelis et al., "
        "Frontiers in Neuroinformatics 16, 2022, section 2"
    ),
    weight_bits=9,
    weight_exponents=(-6, 7),
    unit_exponent=6,
    twos_complement=False,
    mixed_step=2,
    voltage_bits=24,
    current_bits=24,
    decay_bits=12,
    threshold_bits=17,
    bias_bits=13,
    bias_exponent_max=7,
    resets=("zero", "none"),
    refractory_steps_max=62,
    delay_steps_max=62,
)

_FLOAT = Arithmetic(
    name="float32",
    family="float",
    source="IEEE 754",
    kinds=("integrate_and_fire", "resonate_and_fire", "threshold", "readout"),
    current_bits=32,
    second_current=True,
    decay_bits=23,
    adaptation=True,
    spike_value_bits=32,
)

ARITHMETICS: dict[str, Arithmetic] = {
    one.name: one
    for one in (
        _LOIHI,
        replace(
            _LOIHI,
            name="loihi2",
            source=(
                "Intel, Loihi 2 technology brief, 2021: programmable neurons and graded spikes; the neuron that is known bit for "
                "bit is Loihi's"
            ),
            resets=("zero", "subtract", "none"),
            spike_value_bits=32,
        ),
        Arithmetic(
            name="odin",
            family="event",
            source="Frenkel et al., IEEE TBioCAS 13(1), 2019, and its open RTL: weights of 3 bits, the sign a row's",
            kinds=("integrate_and_fire",),
            weight_bits=4,
            twos_complement=False,
            sign_by_source=True,
            voltage_bits=8,
            signed=False,
            threshold_bits=8,
            bias_bits=8,
            resets=("zero",),
            refractory_steps_max=0,
            fires_at_threshold=True,
            delay_steps_max=1,
        ),
        Arithmetic(
            name="truenorth",
            family="fixed",
            source="Cassidy et al., IJCNN 2013: deterministic modes, resets 0 to 2, negative threshold at the register's end",
            kinds=("integrate_and_fire",),
            weight_bits=9,
            weights_per_neuron=4,
            voltage_bits=20,
            threshold_bits=18,
            bias_bits=9,
            refractory_steps_max=0,
            fires_at_threshold=True,
            delay_steps_max=15,
        ),
        Arithmetic(
            name="s16.15",
            family="fixed",
            source=(
                "SpiNNaker's software: 32-bit accum, products rounded down (Hopkins et al., Phil. Trans. R. Soc. A 378, 2020, "
                "section 2), 16-bit weights"
            ),
            kinds=("integrate_and_fire", "resonate_and_fire", "threshold", "readout"),
            weight_bits=17,
            weight_exponents=(0, 15),
            current_bits=32,
            second_current=True,
            fraction_bits=15,
            decay_bits=15,
            adaptation=True,
        ),
        replace(
            _FLOAT,
            name="spinnaker2",
            source="software on cores with a single-precision unit: 16-bit weights with an exponent a projection (our choice)",
            weight_bits=16,
            weight_exponents=(-60, 60),
            delay_steps_max=15,
        ),
        replace(
            _FLOAT,
            name="seneca",
            source=(
                "Tang et al., Frontiers in Neuroscience 17, 2023: bfloat16 states, 8-bit weights with a shared scale; each sum "
                "rounds (our reading)"
            ),
            weight_bits=8,
            weight_exponents=(-60, 60),
            format="bf16",
            delay_steps_max=1,
        ),
        _FLOAT,
    )
}


def get_arithmetic(chip: str | Arithmetic | Any) -> Arithmetic:
    """The arithmetic of a name, of itself, or of a ``ChipSpec``.

    A spec whose name is that of an arithmetic has that; any other has what its ``arithmetic`` and ``bits`` say: ``loihi``, the
    same with its value bits; ``float32`` with weights of its bits; ``fixed`` with the widths given, input into a voltage that
    leaks by its bias alone. ``delay_steps_max`` is the spec's.

    Raises:
        InputError: an unknown name, or a ``fixed`` spec without its widths.
    """
    if isinstance(chip, Arithmetic):
        return chip
    if isinstance(chip, str):
        if chip not in ARITHMETICS:
            raise unknown_name("arithmetic", chip, ARITHMETICS)
        return ARITHMETICS[chip]
    for name in ("name", "arithmetic", "bits", "delay_steps_max"):
        if not hasattr(chip, name):
            raise InputError(f"arithmetic: expected a name, an Arithmetic or a chip's spec, got {type(chip).__name__}")
    found = _of_name(chip) if chip.name in ARITHMETICS else _of_bits(chip)
    return replace(found, delay_steps_max=chip.delay_steps_max)


_WIDTHS = {
    "current": "current_bits",
    "voltage": "voltage_bits",
    "decay": "decay_bits",
    "threshold": "threshold_bits",
    "bias": "bias_bits",
}


def _of_name(spec: Any) -> Arithmetic:
    """The arithmetic of a bundled chip, with weights as wide as the spec says; other widths are what they are."""
    found = ARITHMETICS[spec.name]
    for field, width in _WIDTHS.items():
        given, has = getattr(spec.bits, field), getattr(found, width)
        if given is not None and given != has:
            raise InputError(
                f"spec {spec.name}: bits.{field}: expected {has}, as this chip computes, got {given}; a chip of other widths has "
                "arithmetic 'fixed' and a name of its own"
            )
    if found.weight_bits is None or spec.bits.weight == found.weight_bits:
        return found
    if spec.bits.weight > found.weight_bits:
        raise InputError(
            f"spec {spec.name}: bits.weight: expected at most {found.weight_bits}, as this chip computes, got {spec.bits.weight}"
        )
    return replace(found, weight_bits=spec.bits.weight)


def _of_bits(spec: Any) -> Arithmetic:
    bits, source = spec.bits, f"spec {spec.name}"
    if spec.arithmetic == "loihi":
        return replace(_LOIHI, name=spec.name, source=source, spike_value_bits=bits.spike_value)
    if spec.arithmetic == "float32":
        return replace(_FLOAT, name=spec.name, source=source, weight_bits=bits.weight, weight_exponents=(-60, 60))
    for name in ("voltage", "threshold", "bias"):
        if getattr(bits, name) is None:
            raise InputError(f"spec {spec.name}: bits.{name}: expected a width, as its arithmetic is 'fixed'")
    return Arithmetic(
        name=spec.name,
        family="fixed",
        source=source,
        kinds=("integrate_and_fire", "readout"),
        weight_bits=bits.weight,
        weights_per_neuron=spec.synapses.weights_per_neuron,
        sign_by_source=spec.synapses.sign_by_row,
        voltage_bits=bits.voltage,
        threshold_bits=min(bits.threshold, bits.voltage - 1),
        bias_bits=bits.bias,
        spike_value_bits=bits.spike_value,
    )
