"""Three optical engines: what multiplies, how many parts it has, and what light passes on its way through it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import model_validator

from hwsim.spec import Count, Positive, SpecPart
from photonic.layouts import MeshLayout, layout
from photonic.link_budget import Path, decibels, interference_swing


def _stages(ways: int) -> int:
    """Splitters of 1:2 in a row that make so many ways."""
    return math.ceil(math.log2(ways)) if ways > 1 else 0


class Engine(SpecPart, ABC):
    """What all have.

    Attributes:
        ports: N; a tile is N×N.
        count: engines side by side.
        symbol_rate_hz: at which inputs change.
    """

    ports: Count
    count: Count = 1
    symbol_rate_hz: Positive

    loss_parts: ClassVar[tuple[str, ...]]

    @property
    def integration(self) -> int:
        """Symbols added up before a sample is taken."""
        return 1

    @property
    def passes(self) -> int:
        """Settings, and passes of each input, that a product takes."""
        return 1

    @property
    @abstractmethod
    def swing(self) -> float:
        """Full scale of the current over that of all light on a detector; see ``photonic.link_budget.Detection``."""

    @property
    @abstractmethod
    def results(self) -> int:
        """Samples taken at the same time."""

    @property
    def macs_per_sample(self) -> int:
        """Products summed in a sample."""
        return self.ports

    @property
    @abstractmethod
    def parts(self) -> dict[str, int]:
        """Part → how many the machine has."""

    @abstractmethod
    def paths(self, losses_db: Mapping[str, float]) -> tuple[Path, Path | None]:
        """The path of signals, and that of light which they interfere with, if any."""

    @abstractmethod
    def fill(self, k: int) -> tuple[float, float]:
        """(share of the light, share of the time) that carries something in a sum of ``k`` products."""

    def samples(self, high: int, wide: int) -> tuple[int, int]:
        """Samples (put in, taken out) for one vector through a tile of which ``high`` rows and ``wide`` columns are used."""
        return high * self.passes, wide * self.passes


class MeshEngine(Engine):
    """Interferometers: U·Σ·V† of a tile as two meshes around attenuators. Fields carry the numbers, so they have signs.

    Attributes:
        mesh: layout of the meshes.
        meshes: 2: V† and U one behind the other; 1: one mesh and its attenuators, set to Σ·V† and then to U, with detection in
            between.
        interferometers_on_chip: all that the chip has, for one that uses a part of them; None: those it uses.
        wavelengths: vectors that pass at the same time.
        local_oscillator_ratio: power of the field that results interfere with, over theirs, at the detectors.
    """

    style: Literal["mesh"]
    mesh: Literal["rectangular", "triangular"]
    meshes: Literal[1, 2]
    interferometers_on_chip: Count | None = None
    wavelengths: Count = 1
    local_oscillator_ratio: Positive

    loss_parts: ClassVar[tuple[str, ...]] = ("laser_coupler", "modulator", "splitter", "interferometer", "combiner")

    @model_validator(mode="after")
    def _enough(self) -> MeshEngine:
        if self.interferometers_on_chip is not None and self.interferometers_on_chip < self.interferometers:
            raise ValueError(
                f"interferometers_on_chip: {self.ports} ports take {self.interferometers}, got {self.interferometers_on_chip}"
            )
        return self

    @property
    def layout(self) -> MeshLayout:
        """Of one mesh."""
        return layout(self.mesh, self.ports)

    @property
    def interferometers(self) -> int:
        """Interferometers of one engine that a product uses; an attenuator is one."""
        return self.meshes * self.layout.mzis + self.ports

    @property
    def depth(self) -> int:
        """Interferometers one behind the other in a pass."""
        return self.meshes * self.layout.depth + 1

    @property
    def tuners(self) -> int:
        """Phase shifters that a product uses, in all engines: two an interferometer, one for each output of a mesh."""
        return self.count * (2 * self.interferometers + self.meshes * self.ports)

    @property
    def random_phases_over_pi(self) -> float:
        """Mean phase of all tuners, over π, where weights are random.

        In the mesh of a random unitary matrix α = 1 … N − 1 has N − α interferometers in which light goes straight with a share R
        of density α·(1 − R)^(α−1) (N. J. Russell et al., New J. Phys. 19, 033007, 2017); R = sin²(θ/2) makes the mean of θ
        π·C(2α, α)/4^α. Other phases are spread over a turn, mean π; attenuators are taken to be half open, θ = π/2.
        """
        inner, mean = 0.0, 1.0
        for alpha in range(1, self.ports):
            mean *= (2 * alpha - 1) / (2 * alpha)
            inner += (self.ports - alpha) * mean
        total = self.meshes * (inner + self.layout.mzis + self.ports) + 1.5 * self.ports
        return total * self.count / self.tuners

    @property
    def passes(self) -> int:
        return 3 - self.meshes

    @property
    def swing(self) -> float:
        return interference_swing(self.local_oscillator_ratio)

    @property
    def results(self) -> int:
        return self.count * self.wavelengths * self.ports

    @property
    def parts(self) -> dict[str, int]:
        chips = self.count * (self.interferometers_on_chip or self.interferometers)
        return {
            "laser_lines": 2 * self.results, "modulators": self.results, "dacs": self.results, "interferometers": chips,
            "detectors": 2 * self.results, "amplifiers": self.results, "adcs": self.results,
        }  # fmt: skip

    def paths(self, losses_db: Mapping[str, float]) -> tuple[Path, Path | None]:
        oscillator = self.local_oscillator_ratio / (1 + self.local_oscillator_ratio)
        stages = _stages(self.results)
        ends = {
            "laser_coupler": losses_db["laser_coupler"],
            "splitter": stages * losses_db["splitter"],
            "combiner": losses_db["combiner"],
        }
        mesh = self.depth * losses_db["interferometer"]
        signal = {**ends, "modulator": losses_db["modulator"], "interferometer": mesh}
        return (
            Path(signal, 1 - oscillator, self.results, layer_db=self.passes * mesh),
            Path(ends, oscillator, self.results),
        )

    def fill(self, k: int) -> tuple[float, float]:
        return 1.0, 1.0  # a result at full scale is the light of one input, whatever the others do

    def samples(self, high: int, wide: int) -> tuple[int, int]:
        if self.meshes == 2:
            return high, wide
        rank = min(high, wide)
        return high + rank, rank + wide


class WeightBank(Engine):
    """Micro-rings: each input has a wavelength, each ring weighs one in intensity. Intensities have no sign: inputs ride on a
    bias that is subtracted digitally, weights have ``sign``.

    Attributes:
        sign: ``differential``: a ring divides its light between the two detectors of a balanced pair; ``two_pass``: positive and
            negative weights one after the other on one detector.
    """

    style: Literal["weight_bank"]
    sign: Literal["differential", "two_pass"]

    loss_parts: ClassVar[tuple[str, ...]] = ("laser_coupler", "modulator", "splitter", "ring_passed", "ring_dropped")

    @property
    def passes(self) -> int:
        return 2 if self.sign == "two_pass" else 1

    @property
    def swing(self) -> float:
        return 2.0 if self.sign == "differential" else 1.0

    @property
    def results(self) -> int:
        return self.count * self.ports

    @property
    def tuners(self) -> int:
        """Rings of all engines."""
        return self.count * self.ports**2

    @property
    def parts(self) -> dict[str, int]:
        detectors = self.results * (2 if self.sign == "differential" else 1)
        return {
            "laser_lines": self.results, "modulators": self.results, "dacs": self.results, "rings": self.tuners,
            "detectors": detectors, "amplifiers": self.results, "adcs": self.results,
        }  # fmt: skip

    def paths(self, losses_db: Mapping[str, float]) -> tuple[Path, Path | None]:
        loss = {
            "laser_coupler": losses_db["laser_coupler"],
            "modulator": losses_db["modulator"],
            "fan-out": decibels(self.ports),
            "splitter": _stages(self.ports) * losses_db["splitter"],
            "ring_passed": (self.ports - 1) * losses_db["ring_passed"],
            "ring_dropped": losses_db["ring_dropped"],
        }
        return Path(loss, 1 / self.ports, self.results), None

    def fill(self, k: int) -> tuple[float, float]:
        return min(k, self.ports) / self.ports, 1.0  # wavelengths of inputs that are not there stay dark


class Crossbar(Engine):
    """N×N nodes at which rows and columns of modulated light interfere, both operands changing with every symbol; charge adds up
    over wavelengths, crossbars and time. Fields carry the numbers, so they have signs.

    Attributes:
        wavelengths: products that meet on a detector at the same time.
        summed: crossbars whose photocurrents flow into one amplifier; each has its part of the inner dimension.
        shared: groups of those that work on the same rows of the first operand, whose light is divided among them.
        integration_symbols: symbols added up before a sample is taken.
    """

    style: Literal["crossbar"]
    wavelengths: Count = 1
    summed: Count = 1
    shared: Count = 1
    integration_symbols: Count

    loss_parts: ClassVar[tuple[str, ...]] = ("laser_coupler", "modulator", "splitter", "crossing", "combiner")

    @model_validator(mode="after")
    def _in_groups(self) -> Crossbar:
        if self.count % (self.summed * self.shared):
            raise ValueError(f"count: expected a multiple of summed × shared ({self.summed} × {self.shared}), got {self.count}")
        return self

    @property
    def clusters(self) -> int:
        """Sets of crossbars that work on rows of their own."""
        return self.count // (self.summed * self.shared)

    @property
    def integration(self) -> int:
        return self.integration_symbols

    @property
    def swing(self) -> float:
        return interference_swing(1.0)

    @property
    def at_once(self) -> int:
        """Products of one result in a symbol."""
        return self.wavelengths * self.summed

    @property
    def results(self) -> int:
        return self.count // self.summed * self.ports**2

    @property
    def macs_per_sample(self) -> int:
        return self.at_once * self.integration_symbols

    @property
    def parts(self) -> dict[str, int]:
        inputs = sum(self._sources)
        return {
            "laser_lines": inputs, "modulators": inputs, "dacs": inputs, "nodes": self.count * self.ports**2,
            "detectors": 2 * self.count * self.ports**2, "amplifiers": self.results, "adcs": self.results,
        }  # fmt: skip

    @property
    def _sources(self) -> tuple[int, int]:
        """Modulators of columns and of rows."""
        columns = self.count * self.ports * self.wavelengths
        return columns, columns // self.shared

    def paths(self, losses_db: Mapping[str, float]) -> tuple[Path, Path | None]:
        columns, rows = (self._path(ways, losses_db) for ways in (self.ports, self.ports * self.shared))
        share = 1 / (2 * self.at_once)
        of_columns, of_rows = self._sources
        return Path(rows, share, of_rows), Path(columns, share, of_columns)

    def _path(self, ways: int, losses_db: Mapping[str, float]) -> dict[str, float]:
        return {
            "laser_coupler": losses_db["laser_coupler"],
            "modulator": losses_db["modulator"],
            "fan-out": decibels(ways),
            "splitter": _stages(ways) * losses_db["splitter"],
            "crossing": (self.ports - 1) * losses_db["crossing"],
            "combiner": losses_db["combiner"],
        }

    def fill(self, k: int) -> tuple[float, float]:
        steps = -(-k // self.at_once)
        return min(k, self.at_once) / self.at_once, min(steps, self.integration_symbols) / self.integration_symbols
