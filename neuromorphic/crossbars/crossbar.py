"""A matrix in crossbars of memristive cells: digits of the inputs as voltages on the rows, digits of the weights as conductances
of pairs of cells (w = g⁺ − g⁻), currents of the columns through converters, and the digits put together again.

>>> import numpy as np
>>> from neuromorphic.crossbars.memristor import Levels, Memristor
>>> crossbar = Crossbar(128, 128, Memristor(1e-6, 100e-6, levels=Levels(4)), Dac(8, pulse_bits=1), Adc(10), slices=4)
>>> matrix = crossbar.program(np.arange(-4, 4).reshape(4, 2) * 20, seed=1, scale=1.0)
>>> matrix.apply([[1, -2, 3, 100]], seed=1).tolist()
[[4000.0, 6040.0]]
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from hwsim.views.display import displayed, displayed_by, displaying
from neuromorphic._checks import number, whole
from neuromorphic.crossbars.costs import Counts
from neuromorphic.crossbars.memristor import Cells, IdealLevels, IdealProgramming, IdealReading, IdealYield, Levels, Memristor
from neuromorphic.crossbars.wires import IdealWires, Wires
from numerics.errors import InputError
from numerics.faults.maps import stream

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

Sensing = Literal["differential", "separate"]


# --- converters -----------------------------------------------------------------------------------------------------------------


@displayed
@dataclass(frozen=True)
class IdealDac:
    """Inputs become voltages as they are, in one pulse."""

    def pulses(self, vectors: Floats) -> tuple[list[tuple[Floats, float]], int]:
        """The vectors themselves, of place value 1; none is clipped."""
        return [(vectors, 1.0)], 0


@displaying("range")
@dataclass(frozen=True)
class Dac:
    """Inputs are rounded to integers (ties to even) and applied digit by digit, the lowest first.

    Attributes:
        bits: of an input, the sign among them.
        step: value of the lowest bit.
        pulse_bits: of a digit; fewer than ``bits``: bit-serial. None: all at once.
        signed: two's complement: the top digit is signed. One of a single bit is driven as 0 or 1 and subtracted behind the
            converter, a wider one is driven with a voltage of its sign.

    Raises:
        InputError: a number out of range.
    """

    bits: int
    step: float = 1.0
    pulse_bits: int | None = None
    signed: bool = True

    def __post_init__(self) -> None:
        whole("bits", self.bits, 1)
        number("step", self.step, above=True)
        if self.bits > 53:
            raise InputError(f"bits: expected at most 53, which a double holds, got {self.bits}")
        if self.pulse_bits is not None:
            whole("pulse_bits", self.pulse_bits, 1)

    @property
    def range(self) -> tuple[int, int]:
        """Lowest and highest integer."""
        return (-(1 << self.bits - 1), (1 << self.bits - 1) - 1) if self.signed else (0, (1 << self.bits) - 1)

    def pulses(self, vectors: Floats) -> tuple[list[tuple[Floats, float]], int]:
        """Digits (vectors, rows) and the place value of each pulse; and how many inputs were beyond the range."""
        low, high = self.range
        codes = np.rint(vectors / self.step)
        clipped = int(np.count_nonzero((codes < low) | (codes > high)))
        bits = np.clip(codes, low, high).astype(np.int64) & ((1 << self.bits) - 1)
        width = self.pulse_bits or self.bits
        found = []
        for at in range(0, self.bits, width):
            wide = min(width, self.bits - at)
            digit, place = (bits >> at) & ((1 << wide) - 1), self.step * 2.0**at
            if self.signed and at + wide == self.bits:
                if wide == 1:
                    place = -place
                else:
                    digit = digit - ((digit >> (wide - 1)) << wide)
            found.append((digit.astype(np.float64), place))
        return found, clipped


@displayed
@dataclass(frozen=True)
class IdealAdc:
    """Sums are read as they are."""


@displaying("range")
@dataclass(frozen=True)
class Adc:
    """Sums are rounded to steps (ties to even) and clipped to the range.

    Attributes:
        bits: of a code.
        step: in units of one step of a cell's levels times the lowest digit of an input (the whole range of conductance, and an
            input of 1, where those are ideal). With step 1 and enough bits nothing is lost.
        signed: two's complement codes.

    Raises:
        InputError: a number out of range.
    """

    bits: int
    step: float = 1.0
    signed: bool = True

    def __post_init__(self) -> None:
        whole("bits", self.bits, 1)
        number("step", self.step, above=True)

    @property
    def range(self) -> tuple[float, float]:
        """Lowest and highest code."""
        half = 2.0 ** (self.bits - 1)
        return (-half, half - 1) if self.signed else (0.0, 2 * half - 1)


# --- the array ------------------------------------------------------------------------------------------------------------------


@displaying("outputs", "cell_count")
@dataclass(frozen=True)
class Crossbar:
    """An array of cells with its converters, as many of them as a matrix needs.

    Attributes:
        rows, columns: of cells. A weight takes ``2 · slices`` neighbouring columns.
        device: the cells.
        dac, adc: converters of rows and columns.
        wires: their resistance.
        slices: pairs a weight, each a digit in base ``levels`` of the device, sensed on its own and put together behind the
            converters. More than one needs levels.
        sensing: ``differential``: the currents of a pair are subtracted before the converter. ``separate``: each is converted.
        columns_per_adc: sensed columns (or pairs) that share a converter.

    Raises:
        InputError: a number out of range, no room for a weight, slices without levels, an unsigned converter of differences.
    """

    rows: int
    columns: int
    device: Memristor
    dac: Dac | IdealDac = IdealDac()
    adc: Adc | IdealAdc = IdealAdc()
    wires: Wires | IdealWires = field(default_factory=IdealWires)
    slices: int = 1
    sensing: Sensing = "differential"
    columns_per_adc: int = 1

    def __post_init__(self) -> None:
        for name in ("rows", "columns", "slices", "columns_per_adc"):
            whole(name, getattr(self, name), 1)
        if self.sensing not in ("differential", "separate"):
            raise InputError(f"sensing: expected 'differential' or 'separate', got {self.sensing!r}")
        if not self.outputs:
            raise InputError(f"columns: expected at least {2 * self.slices}, those of one weight, got {self.columns}")
        if self.slices > 1 and isinstance(self.device.levels, IdealLevels):
            raise InputError(f"slices: {self.slices} need a device with levels, whose count is the base of their digits")
        if self.sensing == "differential" and isinstance(self.adc, Adc) and not self.adc.signed:
            raise InputError("adc: expected a signed one, as differences are converted")

    @property
    def cell_count(self) -> int:
        """Cells of one array."""
        return self.rows * self.columns

    @property
    def outputs(self) -> int:
        """Weights in a row of one array."""
        return self.columns // (2 * self.slices)

    @property
    def top(self) -> int:
        """Largest magnitude of a weight, in units of its scale."""
        return int(self._base**self.slices) - 1

    @property
    def _base(self) -> int:
        return self.device.levels.count if isinstance(self.device.levels, Levels) else 2

    def program(self, weights: npt.ArrayLike, *, seed: int, scale: float | None = None) -> CrossbarMatrix:
        """A matrix, cut into as many arrays as it takes.

        Args:
            weights: (inputs, outputs); with levels, they are rounded to multiples of the scale (ties to even).
            seed: of programming noise, stuck cells and drift exponents.
            scale: value of one unit (see ``top``). None: the largest magnitude becomes ``top``.

        Raises:
            InputError: another shape, weights that are not finite or beyond ``top``.
        """
        values = np.asarray(weights, np.float64)
        if values.ndim != 2 or 0 in values.shape or not np.isfinite(values).all():
            raise InputError(f"weights: expected finite numbers (inputs, outputs), got shape {values.shape}")
        if scale is None:
            scale = float(np.abs(values).max()) / self.top or 1.0
        number("scale", scale, above=True)
        units = values / scale
        if not isinstance(self.device.levels, IdealLevels):
            units = np.rint(units)
        elif np.abs(units).max() <= self.top * (1 + 1e-12):
            units = np.clip(units, -self.top, self.top)
        if np.abs(units).max() > self.top:
            raise InputError(f"weights: expected magnitudes up to {self.top * scale:g}, got {np.abs(values).max():g}")
        place = self._base ** np.arange(self.slices)
        digits = np.abs(units)[..., None]
        if self.slices > 1:
            digits = digits // place % self._base
        # (inputs, outputs, slices, sign)
        pairs = np.stack((digits * (units > 0)[..., None], digits * (units < 0)[..., None]), axis=-1)
        low, step = self.device.g_min_siemens, self.device.step_siemens
        return self._matrix(np.minimum(low + pairs * step, self.device.g_max_siemens), scale, seed)

    def form(self, inputs: int, outputs: int, *, target_siemens: float, seed: int, scale: float = 1.0) -> CrossbarMatrix:
        """A matrix of random weights: all cells get the same target, and what the pairs hold differs by the noise of programming
        alone, so that each weight has mean 0 and twice its variance.

        Args:
            inputs, outputs: of the matrix.
            target_siemens: within the device's range.
            seed: as in :meth:`program`.
            scale: value of one unit of weight.

        Raises:
            InputError: an ideal device, several slices, a number out of range.
        """
        whole("inputs", inputs, 1)
        whole("outputs", outputs, 1)
        number("scale", scale, above=True)
        if isinstance(self.device.programming, IdealProgramming):
            raise InputError("device: expected one with programming noise, as it makes the weights")
        if self.slices > 1:
            raise InputError(f"slices: expected 1, as a random weight has no digits, got {self.slices}")
        return self._matrix(np.full((inputs, outputs, 1, 2), float(target_siemens)), scale, seed)

    def calibrated(self, weights: npt.ArrayLike, vectors: npt.ArrayLike, *, share: float = 1.0) -> Crossbar:
        """The same with steps of its converters so that the largest input and the ``share`` quantile of the magnitudes of the
        sums of these vectors just fit. The sums are those of perfect cells and these wires.

        Raises:
            InputError: a share outside 0 to 1, arrays that do not fit.
        """
        number("share", share, above=True)
        if share > 1:
            raise InputError(f"share: expected at most 1, got {share:g}")
        x = np.asarray(vectors, np.float64)
        dac, adc = self.dac, self.adc
        if isinstance(dac, Dac):
            dac = replace(dac, step=float(np.abs(x).max(initial=0.0)) / max(dac.range[1], 1) or 1.0)
        perfect = replace(self.device, programming=IdealProgramming(), reading=IdealReading(), cells=IdealYield())
        if isinstance(adc, Adc):
            matrix = replace(self, dac=dac, device=perfect).program(weights, seed=0)
            sums = np.concatenate([np.abs(one.sums).ravel() for one in matrix._reads(matrix._checked(x), None)[0]])
            adc = replace(adc, step=float(np.quantile(sums, share)) / max(adc.range[1], 1) or 1.0)
        return replace(self, dac=dac, adc=adc)

    def _matrix(self, targets: Floats, scale: float, seed: int) -> CrossbarMatrix:
        """targets: (inputs, outputs, slices, sign)."""
        inputs, outputs = targets.shape[:2]
        tiles = -(-inputs // self.rows), -(-outputs // self.outputs)
        whole_targets = np.full((tiles[0] * self.rows, tiles[1], self.columns), self.device.g_min_siemens)
        used = 2 * self.slices
        for tile in range(tiles[1]):
            part = targets[:, tile * self.outputs : (tile + 1) * self.outputs]
            whole_targets[:inputs, tile, : part.shape[1] * used] = part.reshape(inputs, -1)
        array = whole_targets.reshape(tiles[0], self.rows, tiles[1], self.columns).transpose(0, 2, 1, 3)
        cells = self.device.program(np.ascontiguousarray(array), seed=seed, words=("crossbar",))
        return CrossbarMatrix(self, (inputs, outputs), float(scale), cells)


@displayed
@dataclass(frozen=True)
class CrossbarRead:
    """Outputs of a matrix and what was counted.

    Attributes:
        values: (vectors, outputs).
        counts: of this read.
    """

    values: Floats
    counts: Counts


@dataclass(frozen=True)
class _Read:
    """One pulse of one tile: sums (vectors, sensed columns) in units, place value of the pulse, column of the tile."""

    sums: Floats
    place: float
    tile: int


@displayed_by("neuromorphic.cards:crossbar_matrix")
@dataclass(frozen=True, eq=False)
class CrossbarMatrix:
    """A programmed matrix.

    Attributes:
        crossbar: its arrays.
        shape: (inputs, outputs).
        scale: value of one unit of weight.
        cells: (row tiles, column tiles, rows, columns).
        time_s: since programming; None: at the reference time of the drift.
        gain: that outputs are multiplied with behind the converters.
    """

    crossbar: Crossbar
    shape: tuple[int, int]
    scale: float
    cells: Cells = field(repr=False)
    time_s: float | None = None
    gain: float = 1.0

    @property
    def tiles(self) -> tuple[int, int]:
        """Arrays by inputs and by outputs."""
        rows, columns = self.cells.conductance_siemens.shape[:2]
        return rows, columns

    @cached_property
    def conductance_siemens(self) -> Floats:
        """Of the cells at ``time_s``, (row tiles, column tiles, rows, columns)."""
        if self.time_s is None:
            return self.cells.conductance_siemens
        return self.crossbar.device.drifted(self.cells, self.time_s)

    @cached_property
    def _effective(self) -> Floats:
        """Effective conductances, in units."""
        g = self.conductance_siemens
        found = np.empty(g.shape)
        for tile in np.ndindex(g.shape[:2]):
            found[tile] = self.crossbar.wires.effective(g[tile])
        return found / self.crossbar.device.step_siemens

    @cached_property
    def _variance(self) -> Floats | None:
        """Of a read of each cell, seen at the foot of its column, in units squared.

        With wires it is scaled by (effective / cell's own conductance)²: a fluctuation reaches the column as the cell's current
        does. This is of first order in the drop: at a mean drop of 3 % the deviation is 3 % too large.
        """
        device = self.crossbar.device
        if isinstance(device.reading, IdealReading):
            return None
        g = self.conductance_siemens
        time = device.retention.reference_s if self.time_s is None else self.time_s
        passed = np.divide(self._effective * device.step_siemens, g, out=np.ones(g.shape), where=g > 0)
        found: Floats = (device.reading.deviation(g, device.g_max_siemens, time) * passed / device.step_siemens) ** 2
        return found

    @cached_property
    def _sensed(self) -> tuple[Floats, Floats | None]:
        """Of each sensed column: effective conductances and variances, (row tiles, column tiles, rows, sensed)."""
        g, variance = self._effective, self._variance
        if self.crossbar.sensing == "differential":
            paired = self.crossbar.outputs * self.crossbar.slices * 2
            g = g[..., 0:paired:2] - g[..., 1:paired:2]
            variance = None if variance is None else variance[..., 0:paired:2] + variance[..., 1:paired:2]
        return np.ascontiguousarray(g), None if variance is None else np.ascontiguousarray(variance)

    def weights(self) -> Floats:
        """What the matrix is, with all that is constant from read to read: (inputs, outputs)."""
        crossbar, (inputs, outputs) = self.crossbar, self.shape
        g = self._effective[..., : crossbar.outputs * crossbar.slices * 2]
        g = g.reshape(*g.shape[:3], crossbar.outputs, crossbar.slices, 2)
        pairs = (g[..., 0] - g[..., 1]) @ (float(crossbar._base) ** np.arange(crossbar.slices))
        joined = pairs.transpose(0, 2, 1, 3).reshape(self.tiles[0] * crossbar.rows, -1)
        found: Floats = joined[:inputs, :outputs] * (self.scale * self.gain)
        return found

    def at(self, time_s: float) -> CrossbarMatrix:
        """The same ``time_s`` after programming, drifted.

        Raises:
            InputError: a time before the reference time of the drift.
        """
        self.crossbar.device.drifted(self.cells, time_s)
        return replace(self, time_s=float(time_s))

    def compensated(self, *, seed: int) -> CrossbarMatrix:
        """The same with a gain that undoes the mean drift: the summed current of all columns for ones on all rows, as read right
        after programming, over the same as read now (global drift compensation: M. Le Gallo et al., Advanced Electronic
        Materials 4, 1700627, 2018; V. Joshi et al., Nature Communications 11, 2473, 2020)."""
        then = replace(self, time_s=None)._total(stream(seed, "compensation", "then"))
        now = self._total(stream(seed, "compensation", "now"))
        if now <= 0:
            raise InputError(f"compensated: expected a summed current above 0, got {now:g} units")
        return replace(self, gain=then / now)

    def _total(self, rng: np.random.Generator) -> float:
        noise = 0.0 if self._variance is None else float(np.sqrt(self._variance.sum()) * rng.standard_normal())
        return float(self._effective.sum()) + noise

    def apply(self, vectors: npt.ArrayLike, *, seed: int) -> Floats:
        """``vectors`` (vectors, inputs) times the matrix: (vectors, outputs). As :meth:`read`."""
        return self.read(vectors, seed=seed).values

    def read(self, vectors: npt.ArrayLike, *, seed: int) -> CrossbarRead:
        """``vectors`` times the matrix, through the converters.

        Args:
            vectors: (vectors, inputs).
            seed: of the read noise; the same gives the same bits, another is another read.

        Read noise is drawn a sum, not a cell: sums of independent normal deviates are normal, with the sum of their variances.

        Raises:
            InputError: vectors of another shape, or not finite.
        """
        from neuromorphic.crossbars import _crossbar_kernels as kernels

        crossbar = self.crossbar
        x = self._checked(np.asarray(vectors, np.float64))
        reads, dac_clipped, pulses = self._reads(x, seed)
        out = np.zeros((len(x), self.tiles[1] * crossbar.outputs))
        conversions = adc_clipped = 0
        digits = float(crossbar._base) ** np.arange(crossbar.slices)
        for one in reads:
            used = self._used(one.tile)
            signs = np.ones(1) if crossbar.sensing == "differential" else np.array([1.0, -1.0])
            place = np.tile((digits[:, None] * signs).ravel(), used) * (one.place * self.scale)
            values = np.zeros(one.sums.shape)
            if isinstance(crossbar.adc, Adc):
                adc_clipped += kernels.convert(one.sums, crossbar.adc.step, *crossbar.adc.range, place, values)
            else:
                values += one.sums * place
            conversions += one.sums.size
            first = one.tile * crossbar.outputs
            out[:, first : first + used] += values.reshape(len(x), used, place.size // used).sum(axis=2)
        columns = 2 * crossbar.slices * self.shape[1]
        sensed = 2 * crossbar.slices * crossbar.outputs // (2 if crossbar.sensing == "differential" else 1)
        counts = Counts(
            vectors=len(x),
            pulses=pulses,
            dac_conversions=len(x) * pulses * self.shape[0] * self.tiles[1],
            cell_reads=len(x) * pulses * self.shape[0] * columns,
            adc_conversions=conversions,
            shift_adds=conversions,
            conversions_per_adc=min(crossbar.columns_per_adc, sensed),
            dac_clipped=dac_clipped,
            adc_clipped=int(adc_clipped),
        )
        return CrossbarRead(out[:, : self.shape[1]] * self.gain, counts)

    def _checked(self, x: Floats) -> Floats:
        if x.ndim != 2 or x.shape[1] != self.shape[0] or not np.isfinite(x).all():
            raise InputError(f"vectors: expected finite numbers (vectors, {self.shape[0]}), got shape {x.shape}")
        return x

    def _used(self, tile: int) -> int:
        """Outputs that a column tile holds."""
        return min(self.crossbar.outputs, self.shape[1] - tile * self.crossbar.outputs)

    def _reads(self, x: Floats, seed: int | None) -> tuple[Iterator[_Read], int, int]:
        """Every pulse of every tile, without read noise where there is no seed; inputs clipped; pulses a vector."""
        found, clipped = self.crossbar.dac.pulses(x)
        return self._tile_reads(found, seed), clipped, len(found)

    def _tile_reads(self, pulses: list[tuple[Floats, float]], seed: int | None) -> Iterator[_Read]:
        from neuromorphic.crossbars import _crossbar_kernels as kernels

        crossbar = self.crossbar
        g, variance = self._sensed
        per_output = crossbar.slices * (1 if crossbar.sensing == "differential" else 2)
        for row, column in np.ndindex(self.tiles):
            first = row * crossbar.rows
            height = min(crossbar.rows, self.shape[0] - first)
            width = self._used(column) * per_output
            matrix = np.ascontiguousarray(g[row, column, :height, :width])
            noise = None if variance is None else np.ascontiguousarray(variance[row, column, :height, :width])
            for pulse, (digits, place) in enumerate(pulses):
                inputs = np.ascontiguousarray(digits[:, first : first + height])
                sums = np.empty((len(inputs), width))
                kernels.column_sums(inputs, matrix, sums)
                if noise is not None and seed is not None:
                    spread = np.empty(sums.shape)
                    kernels.column_sums(inputs * inputs, noise, spread)
                    sums += np.sqrt(spread) * stream(seed, "read", row, column, pulse).standard_normal(sums.shape)
                yield _Read(sums, place, column)
