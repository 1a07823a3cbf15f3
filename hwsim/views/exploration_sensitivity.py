"""How much of a metric each parameter explains by itself.

The main effect of a parameter X on a metric Y is Var(E[Y | X]) / Var(Y), the first-order index of Sobol' (Mathematical Modelling
and Computational Experiments 1(4), 1993); over a table of values it is Pearson's correlation ratio. Effects of several parameters
together are not in it, so those of a metric need not add up to 1.

On a whole grid the ratio of sums of squares is exact. On a random sample the means of the groups scatter, which makes that ratio
too large; Kelley's correction (PNAS 21(9), 1935), 1 − (1 − ratio)(n − 1)/(n − k) for n points in k groups, removes what scatter
adds. A parameter with many values is cut into groups of equally many points (given-data estimator of Plischke, Borgonovo & Smith,
European Journal of Operational Research 226(3), 2013).

Intervals are percentiles of a bootstrap over the points (Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13),
shifted so that they centre on the corrected estimate: a bootstrap sample repeats points, which adds the same scatter a second
time. Of many points m are drawn at a time, and the interval is narrower by √(m/n) (Bickel, Götze & van Zwet, Statistica Sinica
7(1), 1997).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hwsim.views.exploration_columns import SPREAD_FOR_LOG, Field, fields_of

if TYPE_CHECKING:
    import numpy as np

    Floats = np.ndarray[Any, np.dtype[np.float64]]
    Codes = np.ndarray[Any, np.dtype[np.int64]]

LEAST_IN_GROUP = 5
"""Points a group on average, below which an effect is not estimated from a sample."""

MOST_GROUPS = 32
RESAMPLES = 200
MOST_RESAMPLED = 4000
"""Points in a sample of the bootstrap."""


@dataclass(frozen=True)
class Effect:
    """What a parameter explains of a metric.

    Attributes:
        parameter, metric: names.
        effect: share of the variance, 0 to 1.
        low, high: 95 % interval; None where nothing was sampled.
        log: whether the metric's logarithm is explained.
        points: number of points behind it.
    """

    parameter: str
    metric: str
    effect: float
    low: float | None
    high: float | None
    log: bool
    points: int


@dataclass(frozen=True)
class Sensitivity:
    """Effects of all parameters on all metrics.

    Attributes:
        effects: by metric, then parameter.
        note: from which points, by which estimator, and what could not be estimated.
    """

    effects: tuple[Effect, ...]
    note: str


def correlation_ratio(groups: Codes, y: Floats) -> float:
    """Variance between the means of groups over the variance of ``y`` (points,); ``groups`` are codes from 0."""
    import numpy as np

    centred = y - y.mean()
    count, total = np.bincount(groups), np.bincount(groups, weights=centred)
    all_of_it = float(centred @ centred)
    between = float((total**2 / np.maximum(count, 1)).sum())
    return between / all_of_it if all_of_it > 0 else math.nan


def corrected_ratio(groups: Codes, y: Floats) -> float:
    """The correlation ratio without what the scatter of the groups' means adds (Kelley 1935); below 0 for one below chance."""
    import numpy as np

    n, k = len(y), int((np.bincount(groups) > 0).sum())
    return 1 - (1 - correlation_ratio(groups, y)) * (n - 1) / (n - k) if n > k else math.nan


def sensitivity(data: Mapping[str, Any], *, fields: Sequence[Field] | None = None, seed: int = 0) -> Sensitivity:
    """Main effects of the parameters of an exploration (``Exploration.to_dict``) on its metrics.

    They are taken over a whole grid, or over what was drawn at random; only where there is too little of that, over all points,
    which a search has chosen, and the note says so. ``fields`` are ``fields_of(data)`` unless given; ``seed`` is that of the
    bootstrap.

    Raises:
        InputError: damaged columns.
    """
    import numpy as np

    fields = fields_of(data) if fields is None else fields
    stages = next(field for field in fields if field.name == "stage").values
    parameters = [field for field in fields if field.role == "parameter" and len(field.distinct) > 1]
    metrics = [field for field in fields if field.role == "metric" and field.ordered]
    if not parameters or not metrics:
        return Sensitivity((), "Nothing varies, so there is nothing to explain.")
    rows, whole, source = _rows(data, stages, [field for field in fields if field.role == "parameter"])
    groups = {}
    left_out: list[str] = []
    for parameter in parameters:
        codes = _groups(parameter, rows, whole=whole)
        if codes is None:
            left_out.append(parameter.label)
        else:
            groups[parameter.name] = codes
    effects: list[Effect] = []
    missing = False
    for metric in metrics:
        y = metric.numbers[rows]
        known = np.isfinite(y)
        missing |= not known.all()
        if known.sum() < 2 or y[known].min() == y[known].max():
            continue
        log = bool(y[known].min() > 0 and y[known].max() / y[known].min() >= SPREAD_FOR_LOG)
        kept = np.log10(y[known]) if log else y[known]
        chosen = {name: codes[known] for name, codes in groups.items()}
        effects += _effects(chosen, kept, metric.name, log=log, whole=whole, seed=seed)
    note = f"Share of each metric's variance that a parameter explains by itself (first-order Sobol' index), over {source}. "
    note += "Exact, as the grid is whole." if whole and not missing else ""
    if whole and missing:
        note += "Over the points that have the metric: without the others the parameters are no longer independent."
    if not whole:
        note += "Correlation ratio with Kelley's correction; whiskers: 95 % interval by bootstrap."
    if left_out:
        note += f" Too few points to tell for {', '.join(left_out)}."
    return Sensitivity(tuple(effects), note.strip())


def _rows(data: Mapping[str, Any], stages: Sequence[str], parameters: Sequence[Field]) -> tuple[Codes, bool, str]:
    """Rows to look at, whether they are a whole grid, and what they are in words."""
    import numpy as np

    at = {stage: np.array([i for i, own in enumerate(stages) if own == stage], dtype=np.int64) for stage in dict.fromkeys(stages)}
    swept = at.get("sweep", np.array([], dtype=np.int64))
    if len(swept):
        size = math.prod(len(field.distinct) for field in parameters)
        different = {tuple(field.values[i] for field in parameters) for i in swept.tolist()} if size == len(swept) else set()
        if size == len(swept) == len(different):
            return swept, True, f"the whole grid of {size:,} points"
        return swept, False, f"a random sample of {len(swept):,} points"
    drawn = np.sort(np.concatenate([at.get(stage, swept) for stage in ("random", "sample")]))
    if len(drawn) >= 2 * LEAST_IN_GROUP * max(1, min(len(field.distinct) for field in parameters)):
        return drawn, False, f"{len(drawn):,} points drawn at random"
    every = np.array([i for i, stage in enumerate(stages) if stage != "rescored"], dtype=np.int64)
    return every, False, f"{len(every):,} points that the search chose (so of the region it went to, not of the whole space)"


def _groups(parameter: Field, rows: Codes, *, whole: bool) -> Codes | None:
    """The group of each row by a parameter's value; None where the groups would be too small."""
    import numpy as np

    values = parameter.numbers[rows]
    found, codes = np.unique(values, return_inverse=True)
    n = len(rows)
    if whole or (len(found) <= MOST_GROUPS and n >= LEAST_IN_GROUP * len(found)):
        return codes.astype(np.int64) if len(found) > 1 else None
    many = min(MOST_GROUPS, n // (4 * LEAST_IN_GROUP))
    if many < 2 or not parameter.ordered:
        return None
    edges = np.unique(np.quantile(values, np.linspace(0, 1, many + 1)[1:-1]))
    return np.searchsorted(edges, values, side="right").astype(np.int64)


def _effects(groups: Mapping[str, Codes], y: Floats, metric: str, *, log: bool, whole: bool, seed: int) -> list[Effect]:
    import numpy as np

    n = len(y)
    usable = {name: codes for name, codes in groups.items() if whole or n >= LEAST_IN_GROUP * len(np.unique(codes))}
    if whole:
        return [Effect(name, metric, correlation_ratio(codes, y), None, None, log, n) for name, codes in usable.items()]
    again: dict[str, list[float]] = {name: [] for name in usable}
    rng = np.random.default_rng(seed)
    m = min(n, MOST_RESAMPLED)
    for _ in range(RESAMPLES if usable else 0):
        drawn = rng.integers(n, size=m)
        if y[drawn].min() < y[drawn].max():
            for name, codes in usable.items():
                again[name].append(corrected_ratio(codes[drawn], y[drawn]))
    effects = []
    for name, codes in usable.items():
        value = corrected_ratio(codes, y)
        ratios = np.array(again[name]) if again[name] else np.array([value])
        low, high = value + (np.quantile(ratios, (0.025, 0.975)) - ratios.mean()) * math.sqrt(m / n)
        # Below chance means none; the interval keeps its width above it.
        effects.append(
            Effect(name, metric, min(1.0, max(0.0, value)), max(0.0, float(low)), min(1.0, max(0.0, float(high))), log, n)
        )
    return effects
