"""What an engine found out about each layer: bits of its detectors and of its results, clipped samples, light."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from hwsim.views.display import displaying

if TYPE_CHECKING:
    import numpy.typing as npt


@displaying("mean_detector_w", "noise_bits", "result_bits")
@dataclass
class LayerRecord:
    """All products of one module so far.

    Attributes:
        module: its path.
        products: how many.
        macs: of them.
        light_bits: what the power budget says that a sample gives, at full scale; the least of all products.
        asked_bits: of its operands, the most.
        swing: full scale, from the least to the largest result, over the largest.
        detector_w: light on a detector at full scale.
        samples: that ADCs took.
        clipped: of them, beyond the range.
        noise: squares of noise of the detectors, over the largest result, added up.
        light: on a detector, over that at full scale, added up.
        errors: squares of what results are off by, added up.
        results: how many there are.
        least, largest: of the exact results.
    """

    module: str
    products: int = 0
    macs: int = 0
    light_bits: float = math.inf
    asked_bits: int = 0
    swing: float = 2.0
    detector_w: float = 0.0
    samples: int = 0
    clipped: int = 0
    noise: float = 0.0
    light: float = 0.0
    errors: float = 0.0
    results: int = 0
    least: float = field(default=math.inf)
    largest: float = field(default=-math.inf)

    @property
    def noise_bits(self) -> float:
        """Bits of the samples: full scale over √12 standard deviations of their noise before the ADC; inf without noise."""
        return _bits(self.swing, self.noise, self.samples)

    @property
    def result_bits(self) -> float:
        """Bits of the results: their range over √12 standard deviations of all errors, of detection, weights and converters."""
        return _bits(self.largest - self.least, self.errors, self.results)

    @property
    def mean_detector_w(self) -> float:
        """Light on a detector, on average."""
        return self.detector_w * self.light / self.samples if self.samples else 0.0

    def add_counts(self, counts: npt.NDArray[np.float64]) -> None:
        """Takes in what rows of a kernel counted."""
        noise, light, clipped, samples = counts.sum(axis=0).tolist()
        self.noise += noise
        self.light += light
        self.clipped += round(clipped)
        self.samples += round(samples)

    def add_results(self, found: npt.NDArray[np.float64], exact: npt.NDArray[np.float64]) -> None:
        """Takes in results beside the exact ones."""
        self.errors += float(np.square(found - exact).sum())
        self.results += found.size
        if exact.size:
            self.least, self.largest = min(self.least, float(exact.min())), max(self.largest, float(exact.max()))

    def row(self) -> dict[str, Any]:
        """As plain data, with a digit or two after the point."""
        return {
            "module": self.module,
            "products": self.products,
            "asked_bits": self.asked_bits,
            "light_bits": round(self.light_bits, 2),
            "noise_bits": round(self.noise_bits, 2),
            "result_bits": round(self.result_bits, 2),
            "samples": self.samples,
            "clipped": self.clipped,
            "detector_w": self.mean_detector_w,
        }


def _bits(full_scale: float, squares: float, count: int) -> float:
    """log₂(full scale / (√12 · σ)); inf where there is no error."""
    if not squares or not count:
        return math.inf
    ratio = full_scale / math.sqrt(12 * squares / count)
    return max(0.0, math.log2(ratio)) if ratio > 0 else 0.0
