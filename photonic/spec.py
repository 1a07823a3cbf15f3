"""The spec of a photonic engine: what its YAML file may say."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from hwsim.engine import EngineSpec
from hwsim.memory import Scratchpad
from hwsim.spec import Count, Fraction, NotNegative, Positive, SpecPart
from numerics.errors import InputError, nearest_names
from numerics.formats import IntFormat, get_format
from photonic._spec_values import number_or, section_or
from photonic.engines import Crossbar, MeshEngine, WeightBank
from photonic.imperfections_spec import ImperfectionSection
from photonic.link_budget import BOLTZMANN_J_PER_K, WAVELENGTH_NM, Detection, LinkBudget, Path, check_responsivity, ratio
from photonic.tiling import SUM_BYTES

Ideal = Literal["ideal"]
Unknown = Literal["unknown"]
Tuned = MeshEngine | WeightBank
STYLES: Mapping[str, type[SpecPart]] = {"mesh": MeshEngine, "weight_bank": WeightBank, "crossbar": Crossbar}

NO_LASER_W = 1e3
"""Light in one waveguide that is beyond any chip; a spec that needs it must say where its lasers end."""


class Converter(SpecPart):
    """A digital-to-analog or analog-to-digital converter.

    Attributes:
        bits: of a sample.
        samples_per_s: that one gives at most.
        energy_pj_per_sample: of one.
    """

    bits: Count
    samples_per_s: Positive
    energy_pj_per_sample: NotNegative


class Modulator(SpecPart):
    """What puts numbers onto light. ``energy_fj_per_bit``: of one bit of a symbol."""

    energy_fj_per_bit: NotNegative


class Laser(SpecPart):
    """The light source.

    Attributes:
        wall_plug_efficiency: light over electrical power.
        relative_intensity_noise_db_per_hz: its noise, or ``ideal``: none.
        largest_line_w: light launched into one path at most; None where nothing is said.
        wavelength_nm: of the light; a detector gives an electron a photon at most.
    """

    wall_plug_efficiency: Fraction
    relative_intensity_noise_db_per_hz: Annotated[Annotated[float, Field(lt=0, allow_inf_nan=False)] | Ideal, number_or("ideal")]
    largest_line_w: Positive | None = None
    wavelength_nm: Positive = WAVELENGTH_NM


class ThermalNoise(SpecPart):
    """Johnson noise of a detector's input stage."""

    load_ohm: Positive
    temperature_k: Positive


class Receiver(SpecPart):
    """Detector and input stage.

    Attributes:
        responsivity_a_per_w: current from light.
        bandwidth_hz: of the detector.
        sensitivity_dbm: least light that it is specified for; None where nothing is said.
        thermal_noise: of the input stage, or ``ideal``: none.
        amplifier_power_w: of a transimpedance amplifier, and of an integrator where there is one; each result has its own.
    """

    responsivity_a_per_w: Positive
    bandwidth_hz: Positive
    sensitivity_dbm: Annotated[float, Field(allow_inf_nan=False)] | None
    thermal_noise: Annotated[ThermalNoise | Ideal, section_or("ideal")]
    amplifier_power_w: NotNegative


class Tuning(SpecPart):
    """The phase shifters or rings that hold weights.

    Attributes:
        bits: to which a weight is set.
        power_per_pi_w: of a phase shifter set to π.
        mean_phase_over_pi: of all tuners; 1 where phases are spread evenly over a turn; ``random_weights``: that of a mesh whose
            weights are random.
        settling_s: until new weights hold.
        energy_pj_per_setting: of the converter that sets one.
    """

    bits: Count
    power_per_pi_w: NotNegative
    mean_phase_over_pi: Annotated[NotNegative | Literal["random_weights"], number_or("random_weights")]
    settling_s: NotNegative
    energy_pj_per_setting: NotNegative


class ProductFormat(SpecPart):
    """A pair of formats that the engine multiplies; parts of what converters and weights hold follow from the bits."""


class PhotonicSpec(EngineSpec):
    """A photonic engine with converters, accumulators, buffer, vector unit and off-chip memory.

    Attributes:
        kind: ``photonic_engine``.
        clock_hz: of the digital part; ``engine.symbol_rate_hz`` is that of the optical one.
        engine: what multiplies: a mesh, a weight bank or a crossbar.
        losses_db: part → dB, the parts that the engine names; ``unknown`` is left out of the budget, and said so.
        wanted_bits: at the detectors, at full scale: what the lasers are sized for.
        idle: whether lasers, heaters and amplifiers stay on while the engine waits or other units work.
        accumulators: add up what tiles give, in 32 bits.
        energy_pj_per_sum: of such an addition.
        mac_formats: integers that it multiplies.
        imperfections: what an emulated engine does other than it should.
        area_um2: part → area of one; parts that the engine has and that are not here have no known area.
    """

    kind: Literal["photonic_engine"]
    engine: Annotated[MeshEngine | WeightBank | Crossbar, Field(discriminator="style")]
    losses_db: Mapping[str, Annotated[NotNegative | Unknown, number_or("unknown")]]
    wanted_bits: Positive
    laser: Laser
    modulator: Modulator
    dac: Converter
    adc: Converter
    receiver: Receiver
    tuning: Tuning | None = None
    idle: Literal["on", "off"]
    accumulators: Scratchpad
    energy_pj_per_sum: NotNegative
    mac_formats: Mapping[str, ProductFormat] = Field(min_length=1)
    imperfections: ImperfectionSection
    area_um2: Mapping[str, NotNegative] = Field(default_factory=dict)

    @field_validator("engine", mode="before")
    @classmethod
    def _of_a_style(cls, value: object) -> object:
        if not isinstance(value, Mapping):
            return value
        style = value.get("style")
        if not isinstance(style, str) or style not in STYLES:
            given = "none" if style is None else repr(style)
            raise ValueError(f"style: expected one of {', '.join(STYLES)}, got {given}")
        known = STYLES[style].model_fields
        for name in value:
            if name not in known:
                raise ValueError(f"a {style} has no field {name!r}; {nearest_names(str(name), known)}")
        return value

    @field_validator("mac_formats")
    @classmethod
    def _integers(cls, value: Mapping[str, ProductFormat]) -> Mapping[str, ProductFormat]:
        for key in value:
            for part in key.split("*"):
                if not isinstance(get_format(part), IntFormat):
                    raise ValueError(f"{key!r}: expected integers, light carries fixed-point numbers")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> PhotonicSpec:
        engine, rate = self.engine, self.engine.symbol_rate_hz
        if (self.tuning is None) != isinstance(engine, Crossbar):
            raise ValueError(f"tuning: expected {'none' if self.tuning else 'the section'} for engine.style {engine.style!r}")
        if self.tuning is not None and isinstance(self.tuning.mean_phase_over_pi, str) and not isinstance(engine, MeshEngine):
            raise ValueError(f"tuning.mean_phase_over_pi: 'random_weights' is for a mesh; give the number of the {engine.style}")
        row = SUM_BYTES * engine.ports * engine.count
        if self.tuning is not None and self.accumulators.tile_bytes < row:
            raise ValueError(
                f"accumulators.capacity_bytes: one row of all engines takes {row} bytes, got room for "
                f"{self.accumulators.tile_bytes:g}"
            )
        missing = [part for part in engine.loss_parts if part not in self.losses_db]
        if missing:
            raise ValueError(f"losses_db: {missing[0]!r} is missing (a number of dB or 'unknown')")
        unknown = sorted(set(self.losses_db) - set(engine.loss_parts))
        if unknown:
            raise ValueError(f"losses_db: unknown part {unknown[0]!r}; a {engine.style} has {', '.join(engine.loss_parts)}")
        loss = self.losses_db.get("interferometer")
        self.imperfections.check(engine.style, loss if isinstance(loss, float | int) else None)
        unknown = sorted(set(self.area_um2) - set(engine.parts))
        if unknown:
            raise ValueError(f"area_um2: unknown part {unknown[0]!r}; a {engine.style} has {', '.join(engine.parts)}")
        for name, most, wanted in (
            ("dac.samples_per_s", self.dac.samples_per_s, rate),
            ("adc.samples_per_s", self.adc.samples_per_s, rate / engine.integration),
            ("receiver.bandwidth_hz", self.receiver.bandwidth_hz, rate / 2),
        ):
            if most < wanted:
                raise ValueError(f"{name}: expected at least {wanted:g} for engine.symbol_rate_hz {rate:g}, got {most:g}")
        try:
            check_responsivity(self.receiver.responsivity_a_per_w, self.laser.wavelength_nm)
        except InputError as error:
            raise ValueError(f"receiver.{error}") from None
        try:
            self.budget  # noqa: B018  bits that no light gives are an error of the spec
        except InputError:
            most, rin = self.detection.most_bits, self.laser.relative_intensity_noise_db_per_hz
            if most < 1:
                raise ValueError(
                    "laser.relative_intensity_noise_db_per_hz: expected noise that leaves a bit at least in the "
                    f"{rate / engine.integration / 2:g} Hz of a sample, got {rin:g}"
                ) from None
            raise ValueError(
                f"wanted_bits: expected less than the {most:.2f} that laser.relative_intensity_noise_db_per_hz {rin:g} leaves, "
                f"however much light; got {self.wanted_bits:g}"
            ) from None
        line, lost = self.budget.line_w, max(path.total_db for path in self.budget.paths)
        if line > NO_LASER_W:
            raise ValueError(
                f"laser.largest_line_w: losses of {lost:.4g} dB ask for {line:.3g} W in a path; give what one carries"
            )
        return self

    @property
    def detection(self) -> Detection:
        """What receives a full sample."""
        receiver, noise = self.receiver, self.receiver.thermal_noise
        laser = self.laser.relative_intensity_noise_db_per_hz
        thermal = 0.0 if isinstance(noise, str) else 4 * BOLTZMANN_J_PER_K * noise.temperature_k / noise.load_ohm
        return Detection(
            responsivity_a_per_w=receiver.responsivity_a_per_w,
            noise_bandwidth_hz=self.engine.symbol_rate_hz / self.engine.integration / 2,
            swing=self.engine.swing,
            thermal_a2_per_hz=thermal,
            laser_noise_per_hz=0.0 if isinstance(laser, str) else ratio(laser),
            sensitivity_w=0.0 if receiver.sensitivity_dbm is None else 1e-3 * ratio(receiver.sensitivity_dbm),
        )

    @cached_property
    def budget(self) -> LinkBudget:
        """The light of the machine."""
        engine = self.engine
        known = {part: 0.0 if isinstance(loss, str) else loss for part, loss in self.losses_db.items()}
        paths: tuple[Path, Path | None] = engine.paths(known)
        return LinkBudget(
            signal=paths[0],
            reference=paths[1],
            detection=self.detection,
            wanted_bits=self.wanted_bits,
            wall_plug_efficiency=self.laser.wall_plug_efficiency,
            samples_per_s=engine.symbol_rate_hz / engine.integration * engine.results,
            macs_per_sample=engine.macs_per_sample / engine.passes,
            largest_line_w=self.laser.largest_line_w,
        )

    @property
    def unknown_losses(self) -> tuple[str, ...]:
        """Parts whose loss nobody states."""
        return tuple(part for part, loss in self.losses_db.items() if isinstance(loss, str))

    @property
    def held_power_w(self) -> dict[str, float]:
        """Component → electrical power for as long as the engine is on."""
        engine, tuning = self.engine, self.tuning
        held = {"laser": self.budget.electrical_w, "receivers": engine.results * self.receiver.amplifier_power_w}
        if tuning is not None:
            assert isinstance(engine, Tuned)
            mean = tuning.mean_phase_over_pi
            if isinstance(mean, str):
                assert isinstance(engine, MeshEngine)
                mean = engine.random_phases_over_pi
            held["heaters"] = engine.tuners * tuning.power_per_pi_w * mean
        return held

    def slices(self, pair: tuple[str, str]) -> tuple[int, int]:
        """Parts into which inputs and weights of these formats are cut to fit converters and weights."""
        weight_bits = self.dac.bits if self.tuning is None else self.tuning.bits
        a, b = (int(get_format(name).bits) for name in pair)
        return -(-a // self.dac.bits), -(-b // weight_bits)
