"""Soft Hebbian learning: a layer of units that compete, and a classifier on it that follows a drifting input without labels.

>>> import numpy as np
>>> layer = SoftHebbianLayer(np.eye(2), sharpness=10.0)
>>> layer.activity(np.array([[1.0, 0.0]])).round(4).tolist()
[[1.0, 0.0]]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from hwsim.views.display import displayed
from neuromorphic.learning.plasticity import LearningCounts
from numerics.errors import InputError, unknown_name

if TYPE_CHECKING:
    import numpy.typing as npt

Feedback = Literal["none", "confidence", "class"]


def centred(x: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Samples of any shape as rows (samples, inputs) without their mean and of length 1: what adds or scales all of them is gone.

    Raises:
        InputError: a number that is not finite, or no samples' axis.
    """
    rows = np.asarray(x, np.float64)
    if rows.ndim < 2 or not np.isfinite(rows).all():
        raise InputError(f"x: expected finite numbers (samples, …), got shape {rows.shape}")
    rows = rows.reshape(rows.shape[0], -1)
    rows = rows - rows.mean(axis=1, keepdims=True)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > 0, length, 1.0)


@displayed
class SoftHebbianLayer:
    """Units that share a sample by softmax and learn from it as much as they took.

    With u = weight · x, the activity is y = softmax(sharpness · u + bias), and for every sample

    - weight_k ← weight_k + rate · m_k · y_k · (x − u_k · weight_k), which ends at rows of length 1 for samples of length 1;
    - bias_k ← bias_k + bias_rate · exp(−bias_k) · (y_k − exp(bias_k)), which ends at the logarithm of the unit's share.

    T. Moraitis et al., "SoftHebb: Bayesian inference in unsupervised Hebbian soft winner-take-all networks", Neuromorphic
    Computing and Engineering 2, 044017, 2022, section 2; m is a third factor, 1 there.

    Attributes:
        weight: (units, inputs) float64.
        bias: (units,) float64.
        sharpness: of the softmax: inverse temperature.
        bits: None: weights are floats; otherwise whole numbers of 1 / (2^(bits − 1) − 1) from −1 to 1, rounded stochastically.
        least_activity: units that take less of a sample learn nothing from it, and cost nothing.
        counts: of what was learned.

    Raises:
        InputError: weights of another shape or not finite, or beyond ±1 with ``bits``; a field out of range.
    """

    def __init__(
        self,
        weight: npt.ArrayLike,
        *,
        sharpness: float,
        bias: npt.ArrayLike | None = None,
        bits: int | None = None,
        least_activity: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.weight = np.array(weight, np.float64)
        if self.weight.ndim != 2 or 0 in self.weight.shape or not np.isfinite(self.weight).all():
            raise InputError(f"weight: expected finite numbers (units, inputs), got shape {self.weight.shape}")
        units = self.weight.shape[0]
        self.bias = np.full(units, -np.log(units)) if bias is None else np.array(bias, np.float64)
        if self.bias.shape != (units,) or not np.isfinite(self.bias).all():
            raise InputError(f"bias: expected {units} finite numbers, got shape {self.bias.shape}")
        if not (np.isfinite(sharpness) and sharpness > 0):
            raise InputError(f"sharpness: expected a number > 0, got {sharpness!r}")
        if not 0 <= least_activity < 1:
            raise InputError(f"least_activity: expected 0 to below 1, got {least_activity!r}")
        if bits is not None and (isinstance(bits, bool) or not isinstance(bits, int) or not 2 <= bits <= 24):
            raise InputError(f"bits: expected an integer from 2 to 24, got {bits!r}")
        if bits is not None and np.abs(self.weight).max() > 1:
            raise InputError(f"weight: expected −1 to 1 where weights have {bits} bits, got {np.abs(self.weight).max():g}")
        self.sharpness, self.bits, self.least_activity, self.seed = float(sharpness), bits, float(least_activity), int(seed)
        self.counts = LearningCounts()
        self._samples = 0
        if bits is not None:
            self.weight = np.rint(self.weight * self._limit) / self._limit

    @classmethod
    def of_samples(
        cls,
        x: npt.ArrayLike,
        units: int,
        *,
        sharpness: float,
        seed: int = 0,
        bits: int | None = None,
        least_activity: float = 0.0,
    ) -> SoftHebbianLayer:
        """Units that begin as different samples of x (samples, inputs), drawn with the seed."""
        rows = np.asarray(x, np.float64)
        if not 1 <= units <= rows.shape[0]:
            raise InputError(f"units: expected 1 to {rows.shape[0]}, one sample each, got {units!r}")
        chosen = np.random.default_rng(seed).choice(rows.shape[0], units, replace=False)
        return cls(rows[chosen], sharpness=sharpness, bits=bits, least_activity=least_activity, seed=seed)

    @property
    def _limit(self) -> int:
        return 0 if self.bits is None else (1 << (self.bits - 1)) - 1

    def copy(self) -> SoftHebbianLayer:
        """The same layer as it is now, with its counts at 0."""
        return SoftHebbianLayer(
            self.weight,
            sharpness=self.sharpness,
            bias=self.bias,
            bits=self.bits,
            least_activity=self.least_activity,
            seed=self.seed,
        )

    def activity(self, x: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """(samples, units) of samples (samples, inputs); each row adds up to 1."""
        drive = self.sharpness * (self._rows(x) @ self.weight.T) + self.bias
        drive -= drive.max(axis=1, keepdims=True)
        shares = np.exp(drive)
        return shares / shares.sum(axis=1, keepdims=True)

    def learn(
        self,
        x: npt.ArrayLike,
        *,
        rate: float,
        bias_rate: float = 0.0,
        modulator: npt.ArrayLike | None = None,
        table: npt.ArrayLike | None = None,
        feedback: Feedback = "none",
    ) -> npt.NDArray[np.float64]:
        """Learn from samples one after the other.

        Args:
            x: (samples, inputs).
            rate, bias_rate: as above, 0 to 1.
            modulator: (samples,) or (samples, units); None: 1.
            table: (units, classes): probability of each class given the unit, for ``feedback``.
            feedback: what a readout by that table sends back as a further factor: ``confidence``: 1 − entropy of the classes /
                log(classes), to all units; ``class``: to each unit the probability it gives the class that is named.

        Returns:
            (samples, units): the activity that each sample met, before anything was learned from it.

        Raises:
            InputError: arrays of another shape, a rate out of range, feedback without a table.
        """
        from neuromorphic.learning._plasticity_kernels import soft_hebbian

        rows, units = self._rows(x), self.weight.shape[0]
        for name, value in (("rate", rate), ("bias_rate", bias_rate)):
            if not 0 <= value <= 1:
                raise InputError(f"{name}: expected 0 to 1, got {value!r}")
        if feedback not in get_args(Feedback):
            raise unknown_name("feedback", str(feedback), get_args(Feedback))
        if (feedback != "none") != (table is not None):
            raise InputError("table: expected with feedback, and only then")
        classes = np.zeros((units, 1)) if table is None else np.ascontiguousarray(table, np.float64)
        if classes.ndim != 2 or classes.shape[0] != units or (table is not None and classes.shape[1] < 2):
            raise InputError(f"table: expected ({units}, classes ≥ 2), got {classes.shape}")
        factor = np.zeros((0, 0))
        if modulator is not None:
            given = np.asarray(modulator, np.float64)
            if given.shape not in ((rows.shape[0],), (rows.shape[0], units)) or not np.isfinite(given).all():
                expected = f"({rows.shape[0]},) or with {units} units"
                raise InputError(f"modulator: expected finite numbers {expected}, got {given.shape}")
            whole = given if given.ndim == 2 else given[:, None]
            factor = np.ascontiguousarray(np.broadcast_to(whole, (rows.shape[0], units)))
        answers = np.empty((rows.shape[0], units))
        writes = soft_hebbian(
            rows, self.weight, self.bias, self.sharpness, float(rate), float(bias_rate), self.least_activity, factor, classes,
            get_args(Feedback).index(feedback), self._limit, self.seed & (2**63 - 1), self._samples, answers,
        )  # fmt: skip
        self.counts.weight_updates += writes
        self.counts.synapses_read += writes
        self._samples += rows.shape[0]
        return answers

    def _rows(self, x: npt.ArrayLike) -> npt.NDArray[np.float64]:
        rows = np.ascontiguousarray(x, np.float64)
        if rows.ndim != 2 or rows.shape[1] != self.weight.shape[1] or not np.isfinite(rows).all():
            raise InputError(f"x: expected finite numbers (samples, {self.weight.shape[1]}), got shape {rows.shape}")
        return rows


@displayed
class HebbianClassifier:
    """A soft Hebbian layer whose units vote for classes by a fixed table; only the layer adapts.

    The adaptation without labels by Hebbian learning under a modulator fed back from the output follows the idea of Y. Tang et
    al., "Neuro-Modulated Hebbian Learning for Fully Test-Time Adaptation", CVPR 2023; the modulators here are those of
    ``SoftHebbianLayer.learn``, not that paper's.

    Attributes:
        layer: of units.
        table: (units, classes): probability of each class given the unit.
    """

    def __init__(self, layer: SoftHebbianLayer, x: npt.ArrayLike, labels: npt.ArrayLike, *, classes: int) -> None:
        """Count, over labelled samples, what each unit stands for.

        Raises:
            InputError: labels that do not fit the samples or the classes.
        """
        answers, wanted = layer.activity(x), np.asarray(labels)
        if wanted.shape != answers.shape[:1] or wanted.dtype.kind not in "iu":
            raise InputError(f"labels: expected {answers.shape[0]} integers, got {wanted.dtype} {wanted.shape}")
        if classes < 2 or not 0 <= wanted.min() <= wanted.max() < classes:
            raise InputError(f"labels: expected 0 to {classes - 1}, got {wanted.min()} to {wanted.max()}")
        self.layer = layer
        # A small share for every class: a unit that no sample chose says nothing.
        votes = np.full((answers.shape[1], classes), 1e-3)
        np.add.at(votes.T, wanted, answers)
        self.table = votes / votes.sum(axis=1, keepdims=True)

    def predict(self, x: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """The class of each sample."""
        return (self.layer.activity(x) @ self.table).argmax(axis=1)

    def adapt(self, x: npt.ArrayLike, *, rate: float, feedback: Feedback = "class") -> npt.NDArray[np.int64]:
        """Follow samples one after the other without labels; returns the class that each was given before it was learned from."""
        answers = self.layer.learn(x, rate=rate, table=None if feedback == "none" else self.table, feedback=feedback)
        return (answers @ self.table).argmax(axis=1)
