"""From light behind tiles to digital sums: detectors with the noise of the light that is there, and the ADC."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from numerics._parallel import run_parts
from numerics.errors import InputError
from photonic.engines import MeshEngine, WeightBank
from photonic.link_budget import ELECTRON_C

if TYPE_CHECKING:
    import numpy.typing as npt

    from photonic.emulation.faults import PhotonicFaults
    from photonic.emulation.layers import LayerRecord
    from photonic.emulation.weights import Stage, Tiles
    from photonic.spec import PhotonicSpec

    Floats = npt.NDArray[np.float64]

CHUNK_SAMPLES = 1 << 21
"""Samples whose noise is drawn at once."""


class Reader:
    """Detectors and ADCs of an engine whose weights stay.

    A current is in units of a result at full scale, light in units of what is on a detector then (the power budget's): of a mesh,
    the local oscillator and the field of one whole input; of a bank, all inputs at their brightest. Shot noise is that of the
    light that is there, with a normal deviate, as counts are thousands; laser noise makes all results of a symbol in a tile
    stronger or weaker by one factor, local oscillator and signals alike.

    Args:
        spec: of the machine.
        faults: what broke.
    """

    def __init__(self, spec: PhotonicSpec, faults: PhotonicFaults | None) -> None:
        self.spec, self.engine = spec, spec.engine
        self.detection, self.light_w = spec.detection, spec.budget.detector_w
        one_diode = isinstance(self.engine, WeightBank) and self.engine.sign == "two_pass"
        self.signed = not one_diode
        self.swing = 1.0 if one_diode else 2.0
        """From the least to the largest current of full scale."""
        self.full_a = self.detection.swing * self.detection.responsivity_a_per_w * self.light_w / self.swing
        bandwidth = self.detection.noise_bandwidth_hz
        shot = 2 * ELECTRON_C * self.detection.responsivity_a_per_w * self.light_w * bandwidth
        counted = spec.imperfections.shot_noise == "counted"
        if not spec.budget.bits:
            raise InputError(
                f"device {spec.name!r}: light on its detectors does not stand out of their noise (losses of "
                f"{spec.budget.signal.total_db:.4g} dB); expected fidelity 'analytic', which computes without light"
            )
        self.noise = np.array([shot if counted else 0.0, self.detection.thermal_a2_per_hz * bandwidth])
        self.noise /= self.full_a**2
        self.laser = float(np.sqrt(self.detection.laser_noise_per_hz * bandwidth))
        self.adc = self._adc()
        shape = (self.engine.count, self.engine.ports)
        self.dead = np.zeros(shape, bool)
        if faults is not None and spec.engine.style != "crossbar":
            self.dead = faults.dead(shape)

    def _adc(self) -> tuple[float, float, float]:
        """Step, largest and least code, for currents of full scale 1; a step of 0 for an ideal one."""
        section = self.spec.imperfections.adc
        if isinstance(section, str):
            return 0.0, 0.0, 0.0
        bits = self.spec.adc.bits
        largest = 2.0 ** (bits - 1) - 1 if self.signed else 2.0**bits - 1
        return section.full_scale / largest, largest, -largest if self.signed else 0.0

    def product(
        self,
        driven: Floats,
        signed: bool,
        tiles: Tiles,
        k: int,
        columns: int,
        engines: npt.NDArray[np.int64],
        rng: np.random.Generator,
        record: LayerRecord,
    ) -> Floats:
        """Inputs (M, K) in −1 to 1 (0 to 1 if not ``signed``) times weights (K, N): (M, N).

        Args:
            driven, signed: inputs.
            tiles: weights as light meets them.
            k, columns: sizes of the weights.
            engines: (K tiles, N tiles) that tiles are set on.
            rng: of noise.
            record: takes in what is counted.
        """
        rows = len(driven)
        n, (down, across) = self.engine.ports, engines.shape
        total = np.zeros((rows, across * n))
        step = max(1, CHUNK_SAMPLES // (across * n))
        used = np.minimum(n, columns - n * np.arange(across))
        for start in range(0, rows, step):
            part = driven[start : start + step]
            for block in range(down):
                high = min(n, k - block * n)
                inputs = np.zeros((len(part), n))
                inputs[:, :high] = part[:, block * n : block * n + high]
                read = _Read(self, np.where(self.dead[engines[block]], 0.0, 1.0).ravel(), rng, record)
                if isinstance(self.engine, MeshEngine):
                    total[start : start + step] += self._mesh(read, inputs, tiles, block, high, used)
                else:
                    total[start : start + step] += self._bank(read, inputs, signed, tiles, block, high, used)
        total = total[:, :columns] * tiles.gain
        if isinstance(self.engine, WeightBank):
            total -= self._bias(tiles, engines, k, signed)[:columns]
            total *= 2 if signed else 1
        return total

    def _bias(self, tiles: Tiles, engines: npt.NDArray[np.int64], k: int, signed: bool) -> Floats:
        """(columns of all tiles,) what a bank gives where all inputs are 0, as measured when its weights were set."""
        n, (down, across) = self.engine.ports, engines.shape
        lit = (np.arange(down * n) < k).reshape(down, n, 1) * self._power(np.zeros(()), signed)
        total = np.zeros((across, n))
        for sign, stage in ((1, tiles.stages[0]), (-1, tiles.minus)):
            if stage is not None:
                each = (stage.straight * lit).sum(axis=1).reshape(down, across, n)
                total += sign * np.where(self.dead[engines], 0.0, each).sum(axis=0)
        return total.ravel()

    def _mesh(self, read: _Read, inputs: Floats, tiles: Tiles, block: int, high: int, used: npt.NDArray[np.int64]) -> Floats:
        ratio = self.engine.local_oscillator_ratio  # type: ignore[union-attr]
        light = ratio / (1 + ratio), 0.0, 1 / (1 + ratio)
        rank = np.minimum(high, used)
        given, found = inputs[:, :, None], inputs
        for number, stage in enumerate(tiles.stages):
            driven = rank if number else np.array([high])
            outputs = used if number == len(tiles.stages) - 1 else rank
            found = read.tiles(given, self._quadrature(given, driven), stage.row(block), outputs, light, 1.0, 1.0)
            # What is launched anew is driven at full scale.
            given = np.ascontiguousarray(found.reshape(len(inputs), len(used), -1).transpose(0, 2, 1)) / read.range
        return found * read.range ** (len(tiles.stages) - 1)

    def _quadrature(self, given: Floats, driven: npt.NDArray[np.int64]) -> Floats:
        """What modulators driven to ``given`` (rows, N, 1 or tiles) leak beside it; the first ``driven`` inputs have light."""
        leak = self.spec.imperfections.leak
        if not leak:
            return np.zeros((0, 0, 0))
        lit = np.arange(given.shape[1])[:, None] < driven
        return leak * np.sqrt(np.maximum(1 - given**2, 0.0)) * lit

    def _power(self, inputs: Floats, signed: bool) -> Floats:
        """Of inputs, on their bias if they are signed; modulators cannot be turned off."""
        wanted = (1 + inputs) / 2 if signed else inputs
        return np.asarray(wanted + self.spec.imperfections.leak**2 * (1 - wanted))

    def _bank(
        self, read: _Read, inputs: Floats, signed: bool, tiles: Tiles, block: int, high: int, used: npt.NDArray[np.int64]
    ) -> Floats:
        n, power = self.engine.ports, self._power(inputs, signed)
        power[:, high:] = 0.0
        given, nothing = power[:, :, None], np.zeros((0, 0, 0))
        if tiles.minus is None:  # all light is on one of both detectors
            light = power.sum(axis=1) / n, 0.0, 0.0
            return read.tiles(given, nothing, tiles.stages[0].row(block), used, light, 1 / n, high / n)
        plus, minus = (
            read.tiles(given, nothing, weights.row(block), used, (0.0, 1 / n, 0.0), 1 / n, high / n)
            for weights in (tiles.stages[0], tiles.minus)
        )
        return plus - minus


class _Read:
    """A row of tiles whose detectors are read.

    Args:
        reader: the detectors.
        alive: (outputs,) 1, or 0 for those that are dead.
        rng: of noise.
        record: takes in what is counted.
    """

    def __init__(self, reader: Reader, alive: Floats, rng: np.random.Generator, record: LayerRecord) -> None:
        self.reader, self.alive, self.rng, self.record = reader, alive, rng, record
        self.range = reader.adc[0] * reader.adc[1] or 1.0

    def tiles(
        self,
        real: Floats,
        imag: Floats,
        weights: Stage,
        used: npt.NDArray[np.int64],
        light: tuple[Any, float, float],
        scale: float,
        full: float,
    ) -> Floats:
        """(rows, outputs) what the ADCs say; see ``_reading_kernels.through_tiles``.

        Args:
            real, imag: inputs (rows, N, 1 or tiles).
            weights: a row of tiles.
            used: (tiles,) outputs that are read.
            light: on a detector, constant, over the result and over the square of the field.
            scale: current of full scale 1 over the result.
            full: the largest current of these tiles.
        """
        from photonic.emulation._reading_kernels import through_tiles

        reader, (n, outputs), rows = self.reader, weights.straight.shape, len(real)
        laser = reader.laser * self.rng.standard_normal((rows, len(used))) if reader.laser else np.zeros((0, 0))
        normal = self.rng.standard_normal((rows, outputs), np.float32) if reader.noise.any() else np.zeros((0, 0), np.float32)
        out, counts = np.empty((rows, outputs)), np.zeros((rows, 4))
        base = np.broadcast_to(np.asarray(light[0], np.float64), (rows,)).copy()
        read = (np.arange(n) < used[:, None]).astype(np.float64).ravel()
        adc = np.array(reader.adc)

        def work(i: int, j: int) -> None:
            through_tiles(
                i, j, real, imag, weights.straight, weights.turned, read, self.alive, base, light[1], light[2], scale,
                reader.noise, adc, full, laser, normal, out, counts,
            )  # fmt: skip

        run_parts(work, rows, smallest=1 + 200_000 // (n * outputs))
        self.record.add_counts(counts)
        return out
