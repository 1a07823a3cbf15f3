"""A processor's cores as a tensor engine: SIMD lanes with a cache each, behind a last-level cache and memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from accelerators.tensor_engine.device import TensorEngine, kernel_fit
from hwsim.machine import Fittable

_CALL = (2e-7, 1e-4)
_SHARE = (0.03, 1.0)
_ROW = (0.5, 2000.0)
"""Ranges: a library call, from one that only checks its arguments to one that makes a primitive; what is reached of a peak, from
plain loops to hand-tuned code; cycles of a core to start and end a row."""

FITTABLE: Mapping[str, Fittable] = {
    "matmul": kernel_fit(
        "matmul",
        ("matmul",),
        {"launch_interval_s": _CALL, "efficiency": _SHARE, "bandwidth_fraction": _SHARE, "pack_bytes_per_cycle": (0.3, 30.0)},
    ),
    "convolution": kernel_fit(
        "convolution",
        ("convolution",),
        # No time of a call: hardly one that is measured is short enough to tell it, and the few would decide. Nor for attention.
        {"efficiency": _SHARE, "direct_efficiency": _SHARE, "bandwidth_fraction": _SHARE},
    ),
    "softmax": kernel_fit("softmax", ("softmax",), {"launch_interval_s": _CALL, "efficiency": _SHARE, "row_cycles": _ROW}),
    "layer_norm": kernel_fit(
        "layer_norm",
        ("layer_norm",),
        {"launch_interval_s": _CALL, "efficiency": _SHARE, "row_cycles": _ROW, "bandwidth_fraction": _SHARE},
    ),
    "gelu": kernel_fit("gelu", ("gelu",), {"launch_interval_s": _CALL, "efficiency": _SHARE, "bandwidth_fraction": _SHARE}),
    "elementwise": kernel_fit(
        "elementwise", ("relu", "silu", "add", "multiply"), {"launch_interval_s": _CALL, "bandwidth_fraction": _SHARE}
    ),
    "attention": Fittable(
        ("attention",),
        {
            "attention.efficiency": _SHARE,
            "kernels.attention.efficiency": _SHARE,
            "kernels.attention.bandwidth_fraction": _SHARE,
        },
    ),
}
"""What measurements of single operators on a processor determine. A range of more than a decade is searched in its logarithm."""


class Processor(TensorEngine):
    """Cores with SIMD lanes: a tensor engine whose kernels are library calls on the host itself.

    The same spec, fidelities and equations; what measurements determine lies in other ranges than on a GPU: calls of one to
    some tens of microseconds, arithmetic and memory that take turns, small products at the edges of register tiles.
    """

    kind: ClassVar[str] = "processor"
    fittable: ClassVar[Mapping[str, Fittable]] = FITTABLE
