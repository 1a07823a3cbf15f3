"""Metrics of configurations that nobody evaluated, learned from those that somebody did, and how well that goes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hwsim.explore.objectives import GROWING, extra
from hwsim.explore.space import Choice, Space
from hwsim.views.display import displayed, displaying
from numerics.errors import InputError, unknown_name

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

Model = Literal["gradient_boosting", "extra_trees", "random_forest", "linear"]

LEAST = 10
"""Distinct configurations with a known value that a metric needs to be learned."""
FOLDS = 5
RESAMPLES = 400
"""Bootstrap samples behind an interval."""

PAIRED = 1000
"""Samples up to which all pairs are held at once for the bootstrap of Kendall's τ; beyond, sorting each resample is faster."""

_MODELS: Mapping[str, Callable[[int], Any]] = {
    "gradient_boosting": lambda seed: extra("sklearn.ensemble").GradientBoostingRegressor(
        n_estimators=300, max_depth=4, learning_rate=0.05, subsample=0.7, random_state=seed
    ),
    "extra_trees": lambda seed: extra("sklearn.ensemble").ExtraTreesRegressor(n_estimators=200, random_state=seed),
    "random_forest": lambda seed: extra("sklearn.ensemble").RandomForestRegressor(n_estimators=200, random_state=seed),
    "linear": lambda seed: extra("sklearn.pipeline").make_pipeline(
        extra("sklearn.preprocessing").StandardScaler(), extra("sklearn.linear_model").RidgeCV(np.logspace(-4, 2, 13))
    ),
}

MODELS: tuple[str, ...] = tuple(_MODELS)
"""Boosted trees (Friedman, Annals of Statistics 29(5), 2001), extremely randomised trees (Geurts, Ernst & Wehenkel, Machine
Learning 63, 2006), random forests (Breiman, Machine Learning 45, 2001), ridge regression; all of one thread."""


@displayed
@dataclass(frozen=True)
class RankCorrelation:
    """How far two lists agree on an order: 1 the same, −1 the reverse, None where one of them has no order.

    Attributes:
        samples: length of the lists.
        spearman: correlation of the ranks, ties at their mean rank.
        kendall: τ_b: pairs in the same order less pairs in opposite order, over the pairs, ties allowed for.
    """

    samples: int
    spearman: float | None
    kendall: float | None


def rank_correlation(a: ArrayLike, b: ArrayLike) -> RankCorrelation:
    """Spearman's and Kendall's rank correlation (Kendall, "The Treatment of Ties in Ranking Problems", Biometrika 33(3), 1945).

    Args:
        a, b: (samples,) finite numbers.

    Raises:
        InputError: lists of different lengths, fewer than two numbers, numbers that are not finite.
    """
    x, y = (_numbers(name, values) for name, values in (("a", a), ("b", b)))
    if len(x) != len(y) or len(x) < 2:
        raise InputError(f"b: expected as many numbers as a has, at least 2, got {len(y)} against {len(x)}")
    for name, values in (("a", x), ("b", y)):
        if not np.isfinite(values).all():
            raise InputError(f"{name}: expected finite numbers, got {values[~np.isfinite(values)][0]}")
    return _ranked(x, y)


def _ranked(x: NDArray[np.float64], y: NDArray[np.float64]) -> RankCorrelation:
    from scipy.stats import kendalltau, spearmanr

    if x.min() == x.max() or y.min() == y.max():
        return RankCorrelation(len(x), None, None)
    return RankCorrelation(len(x), float(spearmanr(x, y)[0]), float(kendalltau(x, y, method="asymptotic")[0]))


def _numbers(name: str, values: ArrayLike) -> NDArray[np.float64]:
    """One row of numbers; None becomes NaN."""
    try:
        found = np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{name}: expected numbers, got {str(values)[:60]!r}") from None
    if found.ndim != 1:
        raise InputError(f"{name}: expected one number a configuration, got an array of shape {found.shape}")
    return found


Interval = tuple[float, float] | None


@displayed
@dataclass(frozen=True, kw_only=True)
class PredictorQuality:
    """How well one metric is predicted.

    Every configuration is predicted by a model that was fitted without it: cross-validation in ``folds`` shuffled parts. The
    intervals hold 95 % of the bootstrap samples of those predictions (Efron & Tibshirani, An Introduction to the Bootstrap, 1993,
    chapter 13); the models are not fitted again for them.

    Attributes:
        metric: its name.
        model: what was fitted.
        samples: distinct configurations whose value is known.
        unknown: distinct configurations whose value is not.
        folds: parts of the cross-validation; 0 where nothing was fitted.
        spearman, kendall: rank correlation of predicted and true values.
        relative_error: mean of \\|predicted − true\\| / \\|true\\|; None where a true value is 0.
        single_feature: the feature whose own order comes nearest to the metric's.
        single_feature_spearman: its rank correlation, without a sign: what a predictor has to better.
        note: why nothing was fitted, or nothing is measured ("" otherwise).
    """

    metric: str
    model: str
    samples: int
    unknown: int
    folds: int = 0
    spearman: float | None = None
    spearman_interval: Interval = None
    kendall: float | None = None
    kendall_interval: Interval = None
    relative_error: float | None = None
    relative_error_interval: Interval = None
    single_feature: str = ""
    single_feature_spearman: float | None = None
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data; intervals are lists of two."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def __str__(self) -> str:
        if self.spearman is None:
            return f"{self.metric}: {self.note} ({self.samples} samples)"

        def with_interval(value: float | None, interval: Interval, form: str) -> str:
            if value is None or interval is None:
                return "unknown"
            return f"{value:{form}} ({interval[0]:{form}} … {interval[1]:{form}})"

        error = with_interval(self.relative_error, self.relative_error_interval, ".1%")
        return (
            f"{self.metric}: Spearman {with_interval(self.spearman, self.spearman_interval, '.3f')}, "
            f"Kendall {with_interval(self.kendall, self.kendall_interval, '.3f')}, mean error {error} "
            f"from {self.samples} samples in {self.folds} folds; best single feature {self.single_feature} "
            f"{self.single_feature_spearman or 0:.3f}"
        )


@dataclass(frozen=True)
class _Fitted:
    """A fitted model of one metric, or the constant that it is."""

    estimator: Any
    logarithm: bool
    constant: float = np.nan

    def predict(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """(configurations, features) → (configurations,)."""
        if self.estimator is None or not len(features):
            return np.full(len(features), self.constant)
        found = np.asarray(self.estimator.predict(features), dtype=np.float64)
        return np.exp(found) if self.logarithm else found


@dataclass(frozen=True)
class _Samples:
    """What a metric is learned from."""

    metric: str
    features: NDArray[np.float64]
    values: NDArray[np.float64]
    unknown: int
    model: str
    seed: int
    folds: int

    @property
    def least(self) -> int:
        """Values that it takes to learn from."""
        return max(LEAST, self.folds)

    @property
    def constant(self) -> bool:
        """Whether all values, enough of them, are the same."""
        return len(self.values) >= self.least and bool(self.values.min() == self.values.max())

    @property
    def obstacle(self) -> str:
        """Why no model can be fitted ("" where one can)."""
        if not len(self.values):
            return "no value is known; nothing is predicted"
        if len(self.values) < self.least:
            return f"too few known values, at least {self.least} are needed; nothing is predicted"
        if self.constant:
            return f"constant, {self.values[0]:.6g} everywhere; there is no order to predict"
        return ""

    def fitted(self, rows: NDArray[np.int64] | None = None) -> _Fitted:
        """A model of all samples, or of some."""
        if self.obstacle:
            return _Fitted(None, False, float(self.values[0]) if self.constant else np.nan)
        logarithm = bool(self.values.min() > 0) and self.metric not in GROWING
        targets = np.log(self.values) if logarithm else self.values
        chosen = np.arange(len(targets)) if rows is None else rows
        return _Fitted(_MODELS[self.model](self.seed).fit(self.features[chosen], targets[chosen]), logarithm)

    def quality(self, names: Sequence[str]) -> PredictorQuality:
        """Cross-validated; ``names`` are those of the features."""
        samples, note = len(self.values), self.obstacle
        if note:
            return PredictorQuality(metric=self.metric, model=self.model, samples=samples, unknown=self.unknown, note=note)
        rng = np.random.default_rng(self.seed)
        held_out = np.empty(samples)
        for part in np.array_split(rng.permutation(samples), self.folds):
            held_out[part] = self.fitted(np.setdiff1d(np.arange(samples), part)).predict(self.features[part])
        measured = _measured(held_out, self.values, rng)
        alone = [abs(_ranked(self.features[:, i], self.values).spearman or 0.0) for i in range(len(names))]
        best = int(np.argmax(alone))
        return PredictorQuality(
            metric=self.metric,
            model=self.model,
            samples=samples,
            unknown=self.unknown,
            folds=self.folds,
            single_feature=names[best],
            single_feature_spearman=alone[best],
            note="" if measured["spearman"] is not None else "all predictions are alike; there is no order to compare",
            **measured,
        )


@displaying("metrics", "quality")
@dataclass(frozen=True)
class Predictor:
    """Predicts metrics of configurations of a space; made by ``fit``.

    Attributes:
        space: where the configurations are from.
        model: which kind.
        seed: of folds, models and bootstrap.
        samples_digest: tells the samples it was fitted to from others.

    >>> from hwsim.explore.space import Space
    >>> space = Space({"rows": [4, 8, 16, 32], "columns": [4, 8, 16, 32]})
    >>> known = list(space.grid())
    >>> time_s = [1 / (c["rows"] * c["columns"]) for c in known]
    >>> predictor = Predictor.fit(space, known, {"time_s": time_s}, model="linear")
    >>> float(predictor.predict([{"rows": 8, "columns": 16}])["time_s"][0].round(5))
    0.00781
    """

    space: Space
    model: str
    seed: int
    samples_digest: str
    _samples: Mapping[str, _Samples] = field(repr=False, compare=False)
    _fitted: Mapping[str, _Fitted] = field(repr=False, compare=False)

    @classmethod
    def fit(
        cls,
        space: Space,
        configurations: Sequence[Mapping[str, Any]],
        metrics: Mapping[str, ArrayLike],
        *,
        seed: int = 0,
        model: Model = "gradient_boosting",
        folds: int = FOLDS,
    ) -> Predictor:
        """Learn each metric from configurations of which it is known. A configuration given twice counts once, as first given.

        Logarithms are learned of metrics that are above zero everywhere (shares such as the accuracy apart), and from features
        that are.

        Args:
            space: parameters become features by its ``encode``.
            configurations: of that space.
            metrics: metric → one value a configuration; NaN or None where it is not known.
            seed: the same one gives the same bits, on any number of threads.
            model: a name of ``MODELS``.
            folds: parts of the cross-validation.

        Raises:
            InputError: an unknown model, fewer than two folds, lists of different lengths, a configuration that is none of the
                space, an infinite value, no metric, scikit-learn is not installed.
        """
        if model not in _MODELS:
            raise unknown_name("model", str(model), MODELS)
        for name, value, least in (("folds", folds, 2), ("seed", seed, 0)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InputError(f"{name}: expected an integer ≥ {least}, got {value!r}")
        if not metrics:
            raise InputError("metrics: expected at least one metric, got none")
        values = {name: _numbers(name, given) for name, given in metrics.items()}
        for name, one in values.items():
            if len(one) != len(configurations):
                raise InputError(f"{name}: expected {len(configurations)} values, one a configuration, got {len(one)}")
            if np.isinf(one).any():
                raise InputError(f"{name}: expected finite values (NaN for unknown), got {one[np.isinf(one)][0]}")
        features = _features(space, configurations)
        distinct = np.sort(np.unique(features, axis=0, return_index=True)[1]) if len(features) else np.arange(0)
        features = features[distinct]
        digest = hashlib.sha256(np.ascontiguousarray(features).tobytes())
        samples = {}
        for name, one in values.items():
            known = ~np.isnan(one[distinct])
            unknown = int((~known).sum())
            samples[name] = _Samples(name, features[known], one[distinct][known], unknown, model, seed, folds)
            digest.update(name.encode() + b"\0" + one[distinct].tobytes())
        with _one_thread():
            fitted = {name: one.fitted() for name, one in samples.items()}
        return cls(space, model, seed, digest.hexdigest(), samples, fitted)

    @property
    def metrics(self) -> tuple[str, ...]:
        """What it was asked to learn."""
        return tuple(self._samples)

    @cached_property
    def quality(self) -> Mapping[str, PredictorQuality]:
        """Metric → how well it is predicted; measured when first asked for, in a few times the time of ``fit``."""
        with _one_thread():
            return {name: one.quality(self.space.feature_names) for name, one in self._samples.items()}

    def predict(self, configurations: Sequence[Mapping[str, Any]]) -> dict[str, NDArray[np.float64]]:
        """Metric → (configurations,) predicted values; NaN where nothing was learned.

        Raises:
            InputError: a configuration that is none of the space.
        """
        features = _features(self.space, configurations)
        with _one_thread():
            return {name: one.predict(features) for name, one in self._fitted.items()}

    def identity(self) -> dict[str, Any]:
        """Plain data that tell it from other predictors: model, seed, space, samples, the library's version."""
        return {
            "model": self.model,
            "seed": self.seed,
            "space": self.space.to_dict(),
            "samples": self.samples_digest,
            "scikit_learn": extra("sklearn").__version__,
        }

    def __repr__(self) -> str:
        learned = ", ".join(f"{name} ({len(one.values)} samples)" for name, one in self._samples.items())
        return f"Predictor({self.model}: {learned})"


def _one_thread() -> Any:
    """Linear algebra on one thread: sums in one order, whatever the machine."""
    extra("sklearn")
    return extra("threadpoolctl").threadpool_limits(limits=1)


def _features(space: Space, configurations: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
    """``encode``, with logarithms of numbers that are above zero throughout: machines answer to ratios."""
    for configuration in configurations:
        space.check(configuration)
    found = space.encode(configurations)
    column = 0
    for parameter in space.parameters.values():
        if isinstance(parameter, Choice):
            if parameter.ordered and min(parameter.values) > 0:
                found[:, column] = np.log(found[:, column])
            column += 1 if parameter.ordered else parameter.size
            continue
        if not parameter.log and parameter.low > 0:
            found[:, column] = np.log(found[:, column])
        column += 1
    return found


def _measured(predicted: NDArray[np.float64], true: NDArray[np.float64], rng: np.random.Generator) -> dict[str, Any]:
    """Rank correlations and relative error with their intervals."""
    ranks = _ranked(predicted, true)
    errors = np.abs(predicted - true) / np.abs(true) if (true != 0).all() else None
    rows = rng.integers(len(true), size=(RESAMPLES, len(true)))
    drawn: dict[str, NDArray[np.float64]] = {
        "spearman": _spearman_of(predicted, true, rows),
        "kendall": _kendall_of(predicted, true, rows),
        "relative_error": np.empty(0) if errors is None else errors[rows].mean(axis=1),
    }
    found: dict[str, Any] = {
        "spearman": ranks.spearman,
        "kendall": ranks.kendall,
        "relative_error": None if errors is None else float(errors.mean()),
    }
    for name, values in drawn.items():
        known = values[np.isfinite(values)]
        given = found[name] is not None and len(known) > 0
        found[f"{name}_interval"] = tuple(float(v) for v in np.quantile(known, (0.025, 0.975))) if given else None
    return found


def _spearman_of(x: NDArray[np.float64], y: NDArray[np.float64], rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Spearman's correlation of each resample (resamples, samples); NaN where one list has no order."""
    from scipy.stats import rankdata

    middle = (rows.shape[1] + 1) / 2
    a, b = rankdata(x[rows], axis=1) - middle, rankdata(y[rows], axis=1) - middle
    scale = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    return np.divide((a * b).sum(axis=1), scale, out=np.full(len(rows), np.nan), where=scale > 0)


def _kendall_of(x: NDArray[np.float64], y: NDArray[np.float64], rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Kendall's τ_b of each resample, from how often each sample is in it; NaN where one list has no order."""
    count = rows.shape[1]
    if count > PAIRED:
        return np.array([np.nan if (k := _ranked(x[one], y[one]).kendall) is None else k for one in rows])
    times = np.zeros((len(rows), count))
    np.add.at(times, (np.arange(len(rows))[:, None], rows), 1.0)
    a, b = np.sign(x[:, None] - x), np.sign(y[:, None] - y)
    agree, untied_a, untied_b = (((times @ signs) * times).sum(axis=1) for signs in (a * b, np.abs(a), np.abs(b)))
    scale = np.sqrt(untied_a * untied_b)
    return np.divide(agree, scale, out=np.full(len(rows), np.nan), where=scale > 0)
