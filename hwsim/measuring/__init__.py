"""Measuring single kernels on the machine at hand: what ``hwsim measure`` writes, and devices are calibrated with."""

from __future__ import annotations

from hwsim.measuring.method import Method, Sample
from hwsim.measuring.session import Kernel, Outcome, Session
from hwsim.measuring.shapes import SHAPE_COUNTS, Limits, sampled_shapes

__all__ = ["SHAPE_COUNTS", "Kernel", "Limits", "Method", "Outcome", "Sample", "Session", "sampled_shapes"]
