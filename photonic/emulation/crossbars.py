"""Crossbars whose operands are both light: N×N results stay, charge adds up symbol by symbol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from numerics._parallel import run_parts
from numerics.faults.maps import stream
from photonic.engines import Crossbar

if TYPE_CHECKING:
    import numpy.typing as npt

    from photonic.emulation.faults import PhotonicFaults
    from photonic.emulation.layers import LayerRecord
    from photonic.emulation.reading import Reader
    from photonic.spec import PhotonicSpec

    Floats = npt.NDArray[np.float64]

CHUNK_SAMPLES = 1 << 21
"""Samples whose noise is drawn at once."""


class NodeArray:
    """The nodes of all crossbars.

    Fields E of a row and F of a column meet in a splitter of angle a with a phase φ between them; the currents of its two outputs
    differ by sin 2a · 2·Re(E·conj(F)·e^{iφ}) + cos 2a · (|E|² − |F|²).

    Args:
        spec: of the machine; its engine is a crossbar.
        reader: its detectors.
        seed: of what was drawn when it was made.
        faults: what broke.
    """

    def __init__(self, spec: PhotonicSpec, reader: Reader, seed: int, faults: PhotonicFaults | None) -> None:
        assert isinstance(spec.engine, Crossbar)
        self.engine, self.reader, self.section = spec.engine, reader, spec.imperfections
        engine, section = self.engine, spec.imperfections
        # Currents are in products here, not in full scale.
        full = float(engine.macs_per_sample)
        self.adc = np.array([reader.adc[0] * full, reader.adc[1], reader.adc[2]])
        # Noise of a whole sample's charge is that of its products' light, and of its symbols.
        shot, thermal = reader.noise * full**2
        self.noise = np.array([shot / full, thermal / engine.integration_symbols])
        rate = engine.symbol_rate_hz / 2
        self.laser = float(np.sqrt(reader.detection.laser_noise_per_hz * rate))
        shape = (engine.clusters, engine.shared, engine.summed, engine.ports, engine.ports)
        nothing = np.zeros((0, 0, 0, 0, 0))
        self.broken = 0
        """Nodes that are stuck, detectors that are dead."""
        self.cosine, self.sine, self.unequal = nothing, nothing, nothing
        phase, angle = self._phases(shape, seed, faults), np.zeros(shape)
        if not isinstance(section.splitter_error, str):
            angle = section.splitter_error.sigma_rad * stream(seed, "combiners").standard_normal(shape)
        if phase.any() or angle.any():
            self.cosine, self.sine = np.cos(2 * angle) * np.cos(phase), np.cos(2 * angle) * np.sin(phase)
            self.unequal = -np.sin(2 * angle) / 2
        self.alive = np.ones((*shape[:2], *shape[3:]))
        if faults is not None and (faults.dead_detectors or faults.dead_ports):
            every = faults.dead((engine.count, engine.ports, engine.ports)).reshape(shape)
            dead = every[:, :, 0]  # crossbars that are summed have one amplifier
            self.alive = np.where(dead, 0.0, 1.0)
            self.broken += int(dead.sum())

    def _phases(self, shape: tuple[int, ...], seed: int, faults: PhotonicFaults | None) -> Floats:
        """Between the two fields at each node."""
        section, found = self.section, np.zeros(shape)
        if not isinstance(section.phase_error, str):
            found += section.phase_error.sigma_rad * stream(seed, "nodes").standard_normal(shape)
        if not isinstance(section.drift, str):
            rate = section.drift.rate_rad_per_root_s
            found += rate * np.sqrt(section.drift.age_s) * stream(seed, "age").standard_normal(shape)
            if faults is not None:
                found += rate * np.sqrt(faults.drift_s) * stream(faults.seed, "drift").standard_normal(shape)
        if faults is not None and faults.stuck_shifters:
            stuck = faults.stuck(shape, "nodes")
            self.broken += int(np.isfinite(stuck).sum())
            found = np.where(np.isnan(stuck), found, stuck)
        return found

    def product(self, a: Floats, b: Floats, first: int, rng: np.random.Generator, record: LayerRecord) -> Floats:
        """(M, K) times (K, N), both in −1 to 1: product number ``first`` of a batch."""
        from photonic.emulation._reading_kernels import at_nodes, light_of_columns

        engine = self.engine
        n, (rows, inner), columns = engine.ports, a.shape, b.shape[1]
        high, wide = -(-rows // n), -(-columns // n)
        symbols = -(-inner // engine.at_once)
        windows = -(-symbols // engine.integration_symbols)
        place = self._places(high, wide, first)
        b = np.ascontiguousarray(b)
        b_leak = self._leaked(b)
        below = np.empty((windows, engine.summed, columns))
        light_of_columns(b, b_leak, engine.at_once, engine.wavelengths, engine.integration_symbols, below)
        out = np.zeros((rows, columns))
        step = n * max(1, CHUNK_SAMPLES // (n * max(columns * windows, symbols * wide)))
        for start in range(0, rows, step):
            part = np.ascontiguousarray(a[start : start + step])
            some = -(-len(part) // n)
            laser = self.laser * rng.standard_normal((some, wide, symbols)) if self.laser else np.zeros((0, 0, 0))
            shape = (windows, len(part), columns)
            normal = rng.standard_normal(shape, np.float32) if self.noise.any() else np.zeros((0, 0, 0), np.float32)
            counts, mine = np.zeros((len(part), 4)), np.ascontiguousarray(place[start // n : start // n + some])
            found = out[start : start + step]

            given = part, self._leaked(part), b, b_leak, below
            drawn = laser, normal, found, counts

            def work(i: int, j: int, given: Any = given, mine: Any = mine, drawn: Any = drawn) -> None:
                at_nodes(
                    i, j, *given, n, engine.at_once, engine.wavelengths, engine.integration_symbols, self.cosine, self.sine,
                    self.unequal, mine, self.alive, self.noise, self.adc, *drawn,
                )  # fmt: skip

            run_parts(work, len(part), smallest=1 + 200_000 // (inner * columns))
            record.add_counts(counts)
        return out

    def _leaked(self, values: Floats) -> Floats:
        """Beside values in −1 to 1, a quarter turn ahead of them."""
        leak = self.section.leak
        return leak * np.sqrt(np.maximum(1 - values**2, 0)) if leak else np.zeros_like(values)

    def _places(self, high: int, wide: int, first: int) -> npt.NDArray[np.int64]:
        """(row tiles, column tiles, 2) cluster, and which of those that share its rows, that has a tile of results."""
        engine = self.engine
        turns = -(-wide // engine.shared)
        tile = (first * high + np.arange(high)[:, None]) * turns + np.arange(wide)[None, :] // engine.shared
        shared = np.broadcast_to(np.arange(wide) % engine.shared, tile.shape)
        return np.stack([tile % engine.clusters, shared], axis=-1).astype(np.int64)
