"""Post-training calibration: static scales from data, and what quantisation costs each operand.

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
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from numerics.errors import InputError, unknown_name
from numerics.formats import BlockFormat, Format, IntFormat, get_format
from numerics.histogram import Histogram, as_doubles
from numerics.quantizer import quantize
from numerics.scaling import Scaling

if TYPE_CHECKING:
    from numpy.typing import NDArray

METHODS = ("minmax", "percentile", "mse", "entropy")

_COARSE, _FINE = 128, 33
"""Thresholds that ``mse`` tries: evenly spaced up to the largest magnitude, then between the neighbours of the best."""


def sqnr_db(signal: Any, quantised: Any) -> float:
    """Signal-to-quantisation-noise ratio in dB: 10·log10(Σ x² / Σ (x − q)²). Infinite where the two are equal.

    Args:
        signal, quantised: arrays or tensors of one shape.
    """
    x, q = as_doubles(signal), as_doubles(quantised)
    if x.shape != q.shape:
        raise InputError(f"quantised: expected shape {x.shape}, got {q.shape}")
    return power_ratio_db(float(np.square(x).sum()), float(np.square(x - q).sum()))


def power_ratio_db(signal: float, noise: float) -> float:
    """A ratio of powers in dB; infinite without noise."""
    if noise == 0.0:
        return math.inf
    return 10.0 * math.log10(signal / noise) if signal > 0.0 else -math.inf


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
    if power_of_two:
        return _cheapest(_divergence, seen, fmt, _powers(largest))
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
    low, high = seen.range(percentile)
    low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        return 1.0, min(max(0, fmt.code_min), fmt.code_max)

    def pair(share: float) -> tuple[float, int]:
        scale = share * 2.0**scaling.margin * (high - low) / (fmt.code_max - fmt.code_min)
        scale = 2.0 ** _exponent_above(scale) if scaling.power_of_two else scale
        return scale, min(max(fmt.code_min - round(share * low / scale), fmt.code_min), fmt.code_max)

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
