"""Counts of what a step of training takes, digital and optical, written down where it is done."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal

from hwsim.views.display import displayed
from numerics._fields import settle
from photonic._numbers import is_one_of
from photonic.engines import Crossbar

if TYPE_CHECKING:
    from photonic.spec import PhotonicSpec


Way = Literal["toggled", "subtracted"]
"""How a gradient is measured in a mesh; see ``in_situ``."""


@displayed
@dataclass(frozen=True)
class Work:
    """How often something was done.

    Attributes:
        macs: digital multiplications of real numbers with an addition each.
        elementwise: other digital operations on one number: activations and their slopes, errors, sums of readings, scaling.
        updates: digital numbers that an optimizer changed, weights as well as phases.
        light_vectors: vectors of light sent through a mesh or medium, forwards or backwards.
        dac_samples, adc_samples: conversions, two for a complex number.
        phase_settings: phase shifters that were set.
        settlings: times that the machine waited for phases to settle.

    Raises:
        InputError: a number that is no integer.
    """

    macs: int = 0
    elementwise: int = 0
    updates: int = 0
    light_vectors: int = 0
    dac_samples: int = 0
    adc_samples: int = 0
    phase_settings: int = 0
    settlings: int = 0

    def __post_init__(self) -> None:
        settle(self, "work", integers=tuple(part.name for part in fields(self)))

    def __add__(self, other: Work) -> Work:
        return Work(*(getattr(self, part.name) + getattr(other, part.name) for part in fields(self)))

    def __mul__(self, times: int) -> Work:
        return Work(*(times * getattr(self, part.name) for part in fields(self)))

    __rmul__ = __mul__


@displayed
class Tally:
    """A counter that layers and trainers write to as they go.

    Attributes:
        work: so far.
    """

    def __init__(self) -> None:
        self.work = Work()

    def add(self, **counts: int) -> None:
        """Add to some of the fields of ``Work``."""
        self.work += Work(**counts)

    def taken(self) -> Work:
        """``work`` since the last call, and start again from nothing."""
        found, self.work = self.work, Work()
        return found


def light_time_s(work: Work, spec: PhotonicSpec) -> float:
    """Seconds in which light is on: each vector a symbol, and phases that settle.

    Raises:
        InputError: an object of another class.
    """
    from photonic.spec import PhotonicSpec

    is_one_of("work", work, Work)
    is_one_of("spec", spec, PhotonicSpec)
    settling = 0.0 if spec.tuning is None else spec.tuning.settling_s
    return work.light_vectors / spec.engine.symbol_rate_hz + work.settlings * settling


def work_energy_j(work: Work, spec: PhotonicSpec) -> dict[str, float]:
    """Component → joules of ``work`` on the parts of ``spec``; memory is left out, as it is the same kind of cost in all schemes.

    Lasers, receivers and heaters draw their power while light is on (``light_time_s``); the spec's number of ports should be that
    of the layers. Digital operations cost what the spec's vector unit takes: ``multiply_add``, and ``multiply`` for elementwise
    operations and updates.

    Args:
        work: counted.
        spec: of the machine, e.g. ``hwsim.get_device("coherent_mzi_56", overrides={"engine.ports": 64}).spec``.

    Raises:
        InputError: an object of another class.
    """
    seconds = light_time_s(work, spec)
    digital = spec.vector_unit.energy_pj_per_operation
    found = {
        "digital": 1e-12 * (work.macs * digital["multiply_add"] + (work.elementwise + work.updates) * digital["multiply"]),
        "dac": 1e-12 * work.dac_samples * spec.dac.energy_pj_per_sample,
        "modulators": 1e-15 * work.dac_samples * spec.dac.bits * spec.modulator.energy_fj_per_bit,
        "adc": 1e-12 * work.adc_samples * spec.adc.energy_pj_per_sample,
    }
    if spec.tuning is not None and not isinstance(spec.engine, Crossbar):
        found["settings"] = 1e-12 * work.phase_settings * spec.tuning.energy_pj_per_setting
    return found | {part: watts * seconds for part, watts in spec.held_power_w.items()}
