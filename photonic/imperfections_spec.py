"""The section ``imperfections`` of a spec: what an emulated engine does other than it should, each a section or ``ideal``."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from hwsim.spec import NotNegative, Positive, SpecPart
from photonic._spec_values import section_or
from photonic.imperfections import (
    MOST_TURNS,
    TURN,
    Drift,
    ExponentialKernel,
    Ideal,
    Imperfections,
    InsertionLoss,
    PhaseError,
    PhaseQuantisation,
    SplitterError,
    ThermalCrosstalk,
)

Nothing = Literal["ideal"]
OR_IDEAL = section_or("ideal")
Share = Annotated[float, Field(ge=0, le=1)]

IDEAL = Ideal()


class PhaseErrors(SpecPart):
    """``sigma_rad``: a normal deviate of each phase that the chip keeps. In a crossbar, of a node's two arms."""

    sigma_rad: NotNegative


class SplitterErrors(SpecPart):
    """``sigma_rad``: a normal deviate of each splitter's angle, π/4 where it halves. In a crossbar, of a node's combiner."""

    sigma_rad: NotNegative


class PhaseSteps(SpecPart):
    """Phases of a mesh in steps of ``tuning.bits``; see ``photonic.PhaseQuantisation``.

    Attributes:
        full_scale_rad: range of the converter, 2π at least, 128π at most.
        arms: ``one``: it drives θ on one arm; ``both``: ±θ/2 on two.
        outputs: ``tuning_bits``, as all others, or ``ideal``: output phases as programmed.
    """

    full_scale_rad: Annotated[float, Field(ge=TURN, le=MOST_TURNS * TURN)] = TURN
    arms: Literal["one", "both"] = "one"
    outputs: Literal["tuning_bits", "ideal"] = "tuning_bits"


class PathLosses(SpecPart):
    """Ways through a mesh that meet fewer interferometers lose less: an interferometer's loss in its parts.

    Attributes:
        splitter_db: of each of its two splitters.
        phase_shifter_db: of each of the two phase shifters on its upper arm.
    """

    splitter_db: NotNegative
    phase_shifter_db: NotNegative

    @property
    def interferometer_db(self) -> float:
        """The most that an interferometer loses."""
        return 2 * self.splitter_db + 2 * self.phase_shifter_db


class Crosstalk(SpecPart):
    """Heat of a mesh's other phase shifters: strength·exp(−d/length) of their phase; see ``photonic.ThermalCrosstalk``."""

    strength: Share
    length_um: Positive
    shifter_um: Positive
    port_um: Positive


class PhaseDrift(SpecPart):
    """A random walk of each phase since the chip was last calibrated.

    Attributes:
        rate_rad_per_root_s: standard deviation after a second.
        age_s: seconds gone by.
    """

    rate_rad_per_root_s: NotNegative
    age_s: NotNegative = 0.0


class Rings(SpecPart):
    """Resonances of a weight bank's rings: a Lorentzian passes light of the neighbouring wavelengths too.

    Attributes:
        linewidth_ghz: full width at half maximum.
        channel_spacing_ghz: between the wavelengths of neighbouring inputs; a ring is tuned away from its own by half of it at
            most.
        resonance_error_ghz: a normal deviate of each resonance that the ring keeps.
    """

    linewidth_ghz: Positive
    channel_spacing_ghz: Positive
    resonance_error_ghz: NotNegative = 0.0


class AnalogToDigital(SpecPart):
    """``full_scale``: the range of the ADC over the full scale of a result in the power budget; what is beyond is clipped."""

    full_scale: Positive


class Extinction(SpecPart):
    """``ratio_db``: largest over least power of a modulator."""

    ratio_db: Positive


class ImperfectionSection(SpecPart):
    """What is wrong. Light, its noise and the bits of converters are those of the other sections.

    Attributes:
        phase_error, splitter_error, path_losses, crosstalk, drift: of interferometers, and of the nodes of a crossbar where they
            have such a part.
        setting: of a mesh: ``tuning_bits``: all phases in steps of 2π/2^bits, θ on one arm; or a section that says which phases,
            over which range.
        rings: of a weight bank.
        extinction: of modulators.
        shot_noise: ``counted``, of the light that there really is.
        adc: its range. Thermal and laser noise are those of ``receiver`` and ``laser``.
    """

    phase_error: Annotated[PhaseErrors | Nothing, OR_IDEAL]
    splitter_error: Annotated[SplitterErrors | Nothing, OR_IDEAL]
    path_losses: Annotated[PathLosses | Nothing, OR_IDEAL]
    crosstalk: Annotated[Crosstalk | Nothing, OR_IDEAL]
    drift: Annotated[PhaseDrift | Nothing, OR_IDEAL]
    setting: Annotated[PhaseSteps | Literal["tuning_bits", "ideal"], section_or("tuning_bits", "ideal")]
    rings: Annotated[Rings | Nothing, OR_IDEAL]
    extinction: Annotated[Extinction | Nothing, OR_IDEAL]
    shot_noise: Literal["counted", "ideal"]
    adc: Annotated[AnalogToDigital | Nothing, OR_IDEAL]

    parts: ClassVar[dict[str, tuple[str, ...]]] = {
        "mesh": ("phase_error", "splitter_error", "path_losses", "crosstalk", "drift", "setting"),
        "weight_bank": ("rings",),
        "crossbar": ("phase_error", "splitter_error", "drift"),
    }
    """Style of an engine → what may be wrong with its optics."""

    @model_validator(mode="after")
    def _resolved(self) -> ImperfectionSection:
        rings = self.rings
        if not isinstance(rings, str) and rings.channel_spacing_ghz < rings.linewidth_ghz:
            raise ValueError(
                f"rings.channel_spacing_ghz: expected at least linewidth_ghz {rings.linewidth_ghz:g}, "
                f"got {rings.channel_spacing_ghz:g}"
            )
        return self

    def check(self, style: str, interferometer_db: float | None) -> None:
        """Refuses parts that an engine does not have, and losses that are not those of the power budget.

        Args:
            style: of the engine.
            interferometer_db: loss of one; None where it is not known.

        Raises:
            ValueError: the field, what was expected and what was given.
        """
        every = {name for names in self.parts.values() for name in names}
        for name in sorted(every - set(self.parts[style])):
            if getattr(self, name) != "ideal":
                raise ValueError(f"imperfections.{name}: a {style} has no such part; expected 'ideal'")
        losses = self.path_losses
        if isinstance(losses, str):
            return
        if interferometer_db is None or abs(losses.interferometer_db - interferometer_db) > 1e-9:
            raise ValueError(
                f"imperfections.path_losses: two splitters and two phase shifters lose {losses.interferometer_db:g} dB; expected "
                f"losses_db.interferometer, {'unknown' if interferometer_db is None else f'{interferometer_db:g}'}"
            )

    def of_mesh(self, tuning_bits: int | None) -> Imperfections:
        """Those of a mesh, or of a column of attenuators.

        Args:
            tuning_bits: of the phases.
        """
        heat, losses, walk = self.crosstalk, self.path_losses, self.drift
        quantised: PhaseQuantisation | Ideal = IDEAL
        if self.setting != "ideal" and tuning_bits is not None and tuning_bits <= 32:  # steps of more bits are below 1e-9 rad
            how = PhaseSteps() if isinstance(self.setting, str) else self.setting
            quantised = PhaseQuantisation(
                tuning_bits, full_scale_rad=how.full_scale_rad, arms=how.arms, outputs=how.outputs == "tuning_bits"
            )
        return Imperfections(
            phase_error=IDEAL if isinstance(self.phase_error, str) else PhaseError(self.phase_error.sigma_rad),
            phase_quantisation=quantised,
            splitter_error=IDEAL if isinstance(self.splitter_error, str) else SplitterError(self.splitter_error.sigma_rad),
            insertion_loss=IDEAL
            if isinstance(losses, str)
            else InsertionLoss(splitter_db=losses.splitter_db, phase_shifter_db=losses.phase_shifter_db),
            crosstalk=IDEAL
            if isinstance(heat, str)
            else ThermalCrosstalk(ExponentialKernel(heat.strength, heat.length_um), heat.shifter_um, heat.port_um),
            drift=IDEAL if isinstance(walk, str) else Drift(walk.rate_rad_per_root_s),
        )

    @property
    def age_s(self) -> float:
        """Seconds since the chip was calibrated."""
        return 0.0 if isinstance(self.drift, str) else self.drift.age_s

    @property
    def leak(self) -> float:
        """Least over largest field of a modulator."""
        return 0.0 if isinstance(self.extinction, str) else float(10 ** (-self.extinction.ratio_db / 20))
