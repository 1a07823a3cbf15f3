"""Post-training calibration: static scales from data.

A calibrator sees an operand's values through a histogram and answers with a *threshold*: the magnitude that the format's largest
value shall stand for, so that scale = threshold · 2^margin / largest value. ``Scaling.calibrator`` names it:

- ``minmax``: the largest magnitude; nothing is clipped.
- ``percentile_99.9``, with any number: the magnitude below which that many percent of the values lie.
- ``mse``: the threshold of the least mean squared error between values and quantised values.
- ``entropy``: the threshold whose quantised distribution diverges least from the original one (Kullback-Leibler; Migacz, "8-bit
  Inference with TensorRT", GTC 2017).

For affine integers the threshold becomes a range: of ``minmax``, all values; of a percentile, what is left when half the rest is
cut off at either end; of ``mse``, the whole range shrunk by one factor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from numerics.errors import InputError, unknown_name
from numerics.formats import BlockFormat, Format, IntFormat, get_format
from numerics.histogram import BINS, Histogram
from numerics.quantisation_noise import run, with_recipe
from numerics.quantizer import quantize
from numerics.recipes import Recipe
from numerics.scaling import Scaling, affine_scales

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from numerics.emulation import Emulation, OperandKey

METHODS = ("minmax", "percentile", "mse", "entropy")

_COARSE, _FINE = 128, 33
"""Thresholds that ``mse`` tries: evenly spaced up to the largest magnitude, then between the neighbours of the best."""


def parse_calibrator(name: str) -> tuple[str, float]:
    """Method and percentile (100 where it has none) of a calibrator's name.

    Raises:
        InputError: an unknown name, or a percentile outside 0 to 100.
    """
    method, _, number = name.partition("_")
    if method == "percentile":
        try:
            percentile = float(number)
        except ValueError:
            percentile = math.nan
        if not 0.0 < percentile <= 100.0:
            raise InputError(
                f"calibrator: expected 'percentile_' and a number above 0 up to 100, as 'percentile_99.9', got {name!r}"
            )
        return method, percentile
    if name not in METHODS:
        raise unknown_name("calibrator", name, [m if m != "percentile" else "percentile_99.9" for m in METHODS])
    return method, 100.0


def static_scale(seen: Histogram, fmt: str | Format, scaling: Scaling) -> tuple[float, int | None]:
    """The scale, and for affine integers the zero point, that a calibration gives the values seen.

    Args:
        seen: the values.
        fmt: the format they will have.
        scaling: calibrator, ``power_of_two`` (the next one up for ``minmax`` and percentiles, the best one for ``mse`` and
            ``entropy``), ``symmetric``, and ``margin``, which multiplies the scale found by a power of two.

    Raises:
        InputError: nothing seen; a format that finds its scales itself; a calibrator that has no answer for it.
    """
    found = get_format(fmt)
    method, percentile = parse_calibrator(scaling.calibrator)
    if isinstance(found, BlockFormat):
        if not found.tensor_scale:
            raise InputError(f"calibration: {found.name!r} finds its blocks' scales itself; expected no static scale")
        if method != "minmax":
            raise InputError(f"calibrator: the tensor scale of {found.name!r} comes from 'minmax', got {scaling.calibrator!r}")
    if not scaling.symmetric:
        if not isinstance(found, IntFormat):
            raise InputError(f"calibration: only integers have a zero point, {found.name!r} has not; expected symmetric=True")
        return _affine(seen, found, scaling, method, percentile)
    unsigned = not isinstance(found, BlockFormat) and found.min >= 0
    largest = min(seen.largest(signed=not unsigned), seen.percentile(percentile))
    if largest <= 0.0:
        return 1.0, None
    ideal = largest / float(found.max)
    if method == "mse":
        scale = _least_error(seen, found, ideal, scaling.power_of_two)
    elif method == "entropy":
        scale = _least_divergence(seen, found, ideal, scaling.power_of_two)
    else:
        scale = 2.0 ** _exponent_above(ideal) if scaling.power_of_two else ideal
    return scale * 2.0**scaling.margin, None


def _least_error(seen: Histogram, fmt: Format, largest: float, power_of_two: bool) -> float:
    if power_of_two:
        return _cheapest(_squared_error, seen, fmt, _powers(largest))
    step = largest / _COARSE
    best = _cheapest(_squared_error, seen, fmt, np.linspace(0.0, largest, _COARSE + 1)[1:])
    around = np.linspace(max(best - step, step / _FINE), min(best + step, largest), _FINE)
    return _cheapest(_squared_error, seen, fmt, np.append(around, best))


def _least_divergence(seen: Histogram, fmt: Format, largest: float, power_of_two: bool) -> float:
    # From so many bins on: fewer than a format has levels are told apart whatever their scale.
    least = _COARSE * seen.width / float(fmt.max)
    if power_of_two:
        powers = _powers(largest)
        return _cheapest(_divergence, seen, fmt, powers[powers >= min(least, powers[-1])])
    # Whole bins, so that a threshold splits none.
    last = math.ceil(largest * float(fmt.max) / seen.width)
    thresholds = np.unique(np.linspace(min(_COARSE, last), last, 2 * _COARSE).astype(np.int64)) * seen.width
    return _cheapest(_divergence, seen, fmt, thresholds / float(fmt.max))


def _powers(largest: float) -> NDArray[np.floating[Any]]:
    """Powers of two to choose from, up to the first that clips nothing."""
    exponent = _exponent_above(largest)
    return np.ldexp(1.0, np.arange(exponent - 10, exponent + 1))


def _affine(seen: Histogram, fmt: IntFormat, scaling: Scaling, method: str, percentile: float) -> tuple[float, int]:
    """Scale and zero point of an affine integer (Jacob et al., arXiv 1712.05877, section 3)."""
    if method == "entropy":
        raise InputError("calibrator: 'entropy' compares magnitudes; expected symmetric=True, or another calibrator")
    import torch

    low, high = seen.range(percentile)

    def pair(share: float) -> tuple[float, int]:
        below, above = torch.tensor([share * low, share * high], dtype=torch.float32)
        found = affine_scales(below, above, fmt, scaling)
        assert found.zero_point is not None
        return float(found.scale), int(found.zero_point)

    if method != "mse":
        return pair(1.0)
    centres, counts = seen.centres()

    def cost(share: float) -> float:
        scale, zero_point = pair(share)
        return float((counts * np.square(centres - quantize(centres, fmt, scale=scale, zero_point=zero_point))).sum())

    shares = np.linspace(0.0, 1.0, _COARSE + 1)[:0:-1]
    return pair(min(map(float, shares), key=cost))


def _exponent_above(value: float) -> int:
    """The smallest k with 2^k ≥ value > 0."""
    mantissa, exponent = math.frexp(value)
    return exponent - int(mantissa == 0.5)


Cost = Callable[[Histogram, Format, float], float]


def _cheapest(cost: Cost, seen: Histogram, fmt: Format, scales: NDArray[np.floating[Any]]) -> float:
    """The scale of least cost; of equals, the largest, which clips least."""
    costs = np.array([cost(seen, fmt, float(scale)) for scale in scales])
    return float(scales[len(costs) - 1 - int(np.argmin(costs[::-1]))])


def _squared_error(seen: Histogram, fmt: Format, scale: float) -> float:
    """Σ (x − q)² over the values seen, each taken to lie in the middle of its bin."""
    centres, counts = seen.centres()
    return float((counts * np.square(centres - quantize(centres, fmt, scale=scale, overflow="saturate"))).sum())


def _divergence(seen: Histogram, fmt: Format, scale: float) -> float:
    """KL(P‖Q) of the magnitudes below the threshold: P with what lies above added to its last bin, Q with each level's count
    spread evenly over those of its bins that P uses (Migacz 2017, slides 33 to 38)."""
    counts = seen.magnitudes()
    last = min(max(1, round(scale * float(fmt.max) / seen.width)), len(counts))
    kept = counts[:last].astype(np.float64)
    original = kept.copy()
    original[-1] += counts[last:].sum()
    used = original > 0
    middles = (np.arange(last) + 0.5) * seen.width
    levels = np.unique(quantize(middles, fmt, scale=scale, overflow="saturate"), return_inverse=True)[1]
    held = np.bincount(levels, weights=kept)
    shared = np.bincount(levels, weights=used)
    spread = np.where(used, held[levels] / np.maximum(shared[levels], 1), 0.0)
    if np.any(used & (spread == 0.0)):
        return math.inf
    p, q = original[used] / original.sum(), spread[used] / spread.sum()
    return float((p * np.log(p / q)).sum())


# --- of an emulation ----------------------------------------------------------------------------------------------------------


def calibrate(emulation: Emulation, batches: Iterable[Any]) -> dict[OperandKey, tuple[torch.Tensor, torch.Tensor | None]]:
    """Find the static scales that a recipe asks for, and give them to its emulation.

    The module runs by the recipe with dynamic scales in place of static ones, in evaluation mode and without gradients; the
    emulation is otherwise as it was.

    Args:
        emulation: an emulation whose recipe has ``Scaling(update="static")`` for some role of the forward pass.
        batches: inputs; each a tensor, a tuple of positional or a mapping of keyword arguments.

    Returns:
        Operand → scale and zero point (None for symmetric scales), as ``emulate(…, calibration=…)`` takes them: shape (), or one
        for each row of the operand with ``channel``.

    Raises:
        InputError: nothing static, no batch, values that are not finite, or a format or calibrator that has no answer.
    """
    import torch

    dynamic = with_recipe(emulation, _dynamic(emulation.recipe))
    context = with_recipe(emulation, emulation.recipe)._context
    found: dict[OperandKey, _Rows] = {}

    def look(key: OperandKey, x: torch.Tensor) -> None:
        rule = context.rule(key.recipe_role, key.module)
        if rule.scaling.update != "static" or rule.scaling.granularity == "none":
            return
        if key not in found:
            found[key] = _Rows(key, tuple(x.shape), rule.scaling)
        elif rule.role == "weight":
            return  # the same in every batch
        found[key].add(x)

    ran = False
    for batch in batches:
        ran = True
        with dynamic.observe(look):
            run(dynamic, batch)
    if not ran:
        raise InputError("batches: expected at least one, got none")
    if not found:
        raise InputError(f"recipe {emulation.recipe.name!r}: no operand has a static scale; nothing to calibrate")
    scales: dict[OperandKey, tuple[torch.Tensor, torch.Tensor | None]] = {}
    for key, rows in found.items():
        rule = context.rule(key.recipe_role, key.module)
        pairs = [static_scale(seen, rule.fmt, rule.scaling) for seen in rows.histograms]
        scale = torch.tensor([scale for scale, _ in pairs]).reshape(rows.shape)
        zero = None if rule.scaling.symmetric else torch.tensor([float(zero or 0) for _, zero in pairs]).reshape(rows.shape)
        scales[key] = (scale, zero)
    emulation.calibrate(scales)
    return scales


def _dynamic(recipe: Recipe) -> Recipe:
    """The recipe with every static scale made dynamic."""

    def changed(scaling: Mapping[str, Scaling]) -> dict[str, Scaling]:
        return {role: replace(s, update="dynamic") if s.update == "static" else s for role, s in scaling.items()}

    overrides = tuple(replace(o, scaling=changed(o.scaling)) for o in recipe.overrides)
    return replace(recipe, scaling=changed(recipe.scaling), overrides=overrides)


class _Rows:
    """The values of one operand: together, or one histogram a row for ``channel``."""

    def __init__(self, key: OperandKey, shape: tuple[int, ...], scaling: Scaling) -> None:
        self.key = key
        self.shape = (*shape[:-1], 1) if scaling.granularity == "channel" and shape else ()
        # The ends are kept apart from the bins, and are all that min-max needs.
        bins = 2 if parse_calibrator(scaling.calibrator)[0] == "minmax" else BINS
        self.histograms = [Histogram(bins) for _ in range(math.prod(self.shape))]

    def add(self, x: torch.Tensor) -> None:
        if not self.shape:
            self.histograms[0].add(x)
            return
        if (*x.shape[:-1], 1) != self.shape:
            rows = f"{self.shape[:-1]} rows in one batch and {tuple(x.shape[:-1])} in another"
            raise InputError(
                f"calibration: {self.key.role} of module {self.key.module!r} has {rows}; expected granularity 'tensor'"
            )
        for histogram, row in zip(self.histograms, x.reshape(len(self.histograms), -1), strict=True):
            histogram.add(row)
