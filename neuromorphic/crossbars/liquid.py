"""A liquid state machine whose random weights are those of memristive cells as they were formed (N. Lin et al., "Resistive
memory-based zero-shot liquid state machine for multimodal event data learning", Nature Computational Science 5, 2025): one
crossbar with rows for the inputs and for the neurons themselves, integrate-and-fire neurons at its columns, and a linear probe of
their spike counts, which alone is trained.

>>> from neuromorphic.crossbars.crossbar import Crossbar
>>> from neuromorphic.crossbars.memristor import GaussianProgramming, Memristor
>>> crossbar = Crossbar(512, 512, Memristor(0.0, 100e-6, programming=GaussianProgramming(10e-6)))
>>> liquid = Liquid.form(crossbar, 256, 256, target_siemens=50e-6, seed=1)
>>> liquid.matrix.tiles, crossbar.cell_count // 1024
((1, 1), 256)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from hwsim.views.display import displayed, displaying
from neuromorphic._checks import number, whole
from neuromorphic.crossbars.costs import Counts
from neuromorphic.crossbars.crossbar import Adc, Crossbar, CrossbarMatrix, IdealAdc
from neuromorphic.events import Events
from numerics.errors import InputError
from numerics.faults.maps import stream

if TYPE_CHECKING:
    import numpy.typing as npt

    from neuromorphic.network import SpikingNetwork

    Floats = npt.NDArray[np.float64]


@displayed
@dataclass(frozen=True)
class LiquidRun:
    """What a liquid did with some samples.

    Attributes:
        counts: spikes of each neuron in each window, (samples, windows, neurons).
        reads: what was counted in the crossbar.
        largest_sum: largest magnitude of what a column gave in a step, in the unit of the weights.
    """

    counts: npt.NDArray[np.int64]
    reads: Counts
    largest_sum: float

    @property
    def features(self) -> Floats:
        """(samples, windows · neurons), for a probe."""
        return self.counts.reshape(len(self.counts), -1).astype(np.float64)


@displaying("neurons")
@dataclass(frozen=True, eq=False)
class Liquid:
    """Neurons at the columns of a crossbar whose rows are driven by input spikes and by the neurons' own of the step before.

    A step: x = one read of the crossbar; v ← decay_v · v + x; a neuron spikes where v > threshold, and is then set to 0.

    Attributes:
        matrix: (inputs + neurons, neurons).
        inputs: of the rows, the first.
        decay_v: share of the voltage that a step keeps.
        threshold: in the unit of the weights, whose standard deviation is 1 as formed.
        recurrent_drive: voltage of a neuron's spike on its row, an input spike's being 1.
    """

    matrix: CrossbarMatrix
    inputs: int
    decay_v: float = 0.95
    threshold: float = 2.0
    recurrent_drive: float = 0.1

    def __post_init__(self) -> None:
        for name in ("decay_v", "threshold", "recurrent_drive"):
            number(name, getattr(self, name))
        if self.decay_v > 1:
            raise InputError(f"decay_v: expected 0 to 1, got {self.decay_v:g}")
        whole("inputs", self.inputs, 1)
        if self.matrix.shape[0] != self.inputs + self.matrix.shape[1]:
            raise InputError(
                f"matrix: expected {self.inputs} + {self.matrix.shape[1]} rows, of inputs and neurons, got {self.matrix.shape[0]}"
            )

    @classmethod
    def form(
        cls,
        crossbar: Crossbar,
        inputs: int,
        neurons: int,
        *,
        target_siemens: float,
        seed: int,
        decay_v: float = 0.95,
        threshold: float = 2.0,
        recurrent_drive: float = 0.1,
    ) -> Liquid:
        """A liquid of newly formed cells: all are told to hold ``target_siemens``, and their scatter makes the weights.

        Raises:
            InputError: as ``Crossbar.form`` and the attributes.
        """
        whole("inputs", inputs, 1)
        whole("neurons", neurons, 1)
        matrix = crossbar.form(inputs + neurons, neurons, target_siemens=target_siemens, seed=seed)
        spread = float(matrix.weights().std())
        if spread == 0:
            raise InputError("device: expected cells that differ as formed, but all weights are 0")
        return cls(replace(matrix, scale=1 / spread), inputs, decay_v, threshold, recurrent_drive)

    @property
    def neurons(self) -> int:
        """How many."""
        return self.matrix.shape[1]

    def run(self, events: Sequence[Events] | npt.ArrayLike, *, seed: int, windows: int = 1) -> LiquidRun:
        """All samples, each from rest.

        Args:
            events: of each sample, all of as many steps; or an array (samples, steps, inputs).
            seed: of the read noise. A sample's depends on its place, not on how many follow.
            windows: equal parts of the steps in which spikes are counted.

        Raises:
            InputError: events of another size, fewer steps than windows.
        """
        sent = self._dense(events)
        samples, steps = sent.shape[:2]
        whole("windows", windows, 1)
        if windows > steps:
            raise InputError(f"windows: expected at most {steps}, the steps, got {windows}")
        v = np.zeros((samples, self.neurons))
        spikes = np.zeros(v.shape, np.bool_)
        counts = np.zeros((samples, windows, self.neurons), np.int64)
        reads, largest = Counts(), 0.0
        seeds = stream(seed, "liquid").integers(0, 2**63, size=(steps,)).tolist()
        for t in range(steps):
            rows = np.concatenate((sent[:, t], spikes * self.recurrent_drive), axis=1)
            read = self.matrix.read(rows, seed=seeds[t])
            reads = reads.plus(read.counts)
            largest = max(largest, float(np.abs(read.values).max(initial=0.0)))
            v = self.decay_v * v + read.values
            spikes = v > self.threshold
            v[spikes] = 0.0
            counts[:, t * windows // steps] += spikes
        return LiquidRun(counts, reads, largest)

    def calibrated(self, events: Sequence[Events] | npt.ArrayLike, *, share: float = 1.0) -> Liquid:
        """The same with a converter whose range is ``share`` of the largest sum that these events bring without it.

        Raises:
            InputError: a crossbar without a converter.
        """
        number("share", share, above=True)
        crossbar = self.matrix.crossbar
        if not isinstance(crossbar.adc, Adc):
            raise InputError("adc: expected an Adc, got an ideal one, which has no range")
        bare = replace(self.matrix, crossbar=replace(crossbar, adc=IdealAdc()))
        largest = replace(self, matrix=bare).run(events, seed=0).largest_sum / self.matrix.scale
        adc = replace(crossbar.adc, step=largest * share / crossbar.adc.range[1] or 1.0)
        return replace(self, matrix=replace(self.matrix, crossbar=replace(crossbar, adc=adc)))

    def network(self, *, dt_s: float = 1e-3) -> SpikingNetwork:
        """The liquid with perfect reads and converters as a network: populations ``input`` and ``liquid``."""
        from neuromorphic.network import Neurons, Population, Projection, SpikingNetwork, Synapses

        weights = self.matrix.weights()
        cells = Neurons("integrate_and_fire", decay_v=self.decay_v, threshold=self.threshold)
        return SpikingNetwork(
            "liquid",
            (Population("input", (self.inputs,), Neurons("input")), Population("liquid", (self.neurons,), cells)),
            (
                Projection("input->liquid", "input", "liquid", Synapses.from_dense(weights[: self.inputs].T)),
                Projection(
                    "liquid->liquid",
                    "liquid",
                    "liquid",
                    Synapses.from_dense(weights[self.inputs :].T * self.recurrent_drive),
                    delay_steps=1,
                ),
            ),
            ("liquid",),
            dt_s=dt_s,
        )

    def _dense(self, events: Sequence[Events] | npt.ArrayLike) -> Floats:
        listed = [one for one in events if isinstance(one, Events)] if isinstance(events, list | tuple) else []
        lengths = {one.steps for one in listed}
        if len(lengths) > 1:
            raise InputError(f"events: expected one number of steps, got {' and '.join(map(str, sorted(lengths)))}")
        sent = np.stack([one.dense() for one in listed]) if listed else np.asarray(events, np.float64)
        if sent.ndim != 3 or sent.shape[2] != self.inputs or not sent.shape[1]:
            raise InputError(f"events: expected (samples, steps, {self.inputs}), got shape {sent.shape}")
        return sent


@displayed
@dataclass(frozen=True, eq=False)
class Probe:
    """A linear classifier of features: argmax of (features − mean)/deviation · weights + offset.

    Attributes:
        mean, deviation: (features,), of the training features.
        weights, offset: (features, classes), (classes,).
        classes: their labels.
        ridge: the penalty that was chosen.
    """

    mean: Floats
    deviation: Floats
    weights: Floats
    offset: Floats
    classes: npt.NDArray[np.int64]
    ridge: float

    @classmethod
    def fit(cls, features: npt.ArrayLike, labels: npt.ArrayLike, *, ridges: Sequence[float] | None = None) -> Probe:
        """Ridge regression onto one column a class.

        Args:
            features: (samples, features).
            labels: (samples,) integers.
            ridges: penalties to choose from; None: powers of ten from 0.01 to 10⁵. The one with the least squared error of
                leave-one-out predictions is taken (D. M. Allen, Technometrics 16(1), 1974), so that no sample is set aside.

        Raises:
            InputError: arrays that do not fit together, fewer than two classes.
        """
        x, y = np.asarray(features, np.float64), np.asarray(labels)
        if x.ndim != 2 or y.shape != x.shape[:1] or y.dtype.kind not in "iu":
            raise InputError(f"features, labels: expected (samples, features) and (samples,) integers, got {x.shape}, {y.shape}")
        classes = np.unique(y)
        if classes.size < 2:
            raise InputError(f"labels: expected at least two classes, got {classes.size}")
        mean, deviation = x.mean(axis=0), x.std(axis=0)
        deviation = np.where(deviation > 1e-12 * np.abs(x).max(initial=1.0), deviation, 1.0)
        target = (y[:, None] == classes).astype(np.float64)
        offset = target.mean(axis=0)
        u, s, vt = np.linalg.svd((x - mean) / deviation, full_matrices=False)
        projected = u.T @ (target - offset)
        best = np.inf
        for ridge in 10.0 ** np.arange(-2, 6) if ridges is None else ridges:
            number("ridges", ridge, above=True)
            kept = s * s / (s * s + ridge)
            influence = (u * u) @ kept + 1 / len(x)
            error = float(np.mean(((target - offset - (u * kept) @ projected) / (1 - influence)[:, None]) ** 2))
            if error < best:
                best, chosen = error, float(ridge)
        return cls(mean, deviation, (vt.T * (s / (s * s + chosen))) @ projected, offset, classes, chosen)

    def predict(self, features: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Labels (samples,)."""
        scores = ((np.asarray(features, np.float64) - self.mean) / self.deviation) @ self.weights + self.offset
        return self.classes[scores.argmax(axis=1)]

    def accuracy(self, features: npt.ArrayLike, labels: npt.ArrayLike) -> float:
        """Share of samples whose label is predicted."""
        return float(np.mean(self.predict(features) == np.asarray(labels)))
