"""What the convolution buffer makes a layer read from memory, and how many kernels run at a time.

The buffer holds features and weights of a layer in one of these ways:

- ``weights``: all weights stay; features pass through, a window of rows at a time. Each is read once.
- ``features``: slices of features stay (whole images where they fit), and all weights pass by each slice, one set of kernels at a
  time: weights are read once a slice.
- ``kernels``: some kernels stay, and all features pass by: features are read once for each such part.
- ``neither``: one kernel stays while windows pass by it, and there is room for no more: features are read for each kernel,
  weights for each output row.

A set has as many kernels as the multipliers take, or fewer where it would not fit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from accelerators.convolution_engine.nest import Layer
from hwsim.views.display import displayed


@displayed
@dataclass(frozen=True)
class BufferPlan:
    """How a layer runs.

    Attributes:
        kept: what stays; see above.
        kernel_sets: sets of kernels that run one after another.
        feature_reads, weight_reads: how often features (of each image), and weights, are read.
        load_bytes: from memory, features and weights of all groups and images.
    """

    kept: str
    kernel_sets: int
    feature_reads: int
    weight_reads: int
    load_bytes: int


def buffer_plans(layer: Layer, usable_bytes: float, kernels: int) -> Iterator[BufferPlan]:
    """All ways that fit.

    Args:
        usable_bytes: for features and weights of the layer.
        kernels: that the multipliers take at a time.
    """
    kernel = -(-layer.weight_bytes // layer.kernels)
    full = -(-layer.kernels // kernels)
    if layer.weight_bytes + layer.window_bytes <= usable_bytes:
        yield _plan("weights", layer, full, 1, 1)
    for at_once in _halved(min(kernels, layer.kernels)):
        room = usable_bytes - at_once * kernel
        sets = -(-layer.kernels // at_once)
        if layer.feature_bytes <= room:
            together = layer.images if not layer.feature_bytes else int(room // layer.feature_bytes)
            yield _plan("features", layer, sets, 1, -(-layer.images // together))
        elif layer.window_bytes <= room:
            rows = 1 + int((room - layer.window_bytes) // max(1, layer.row_bytes))
            yield _plan("features", layer, sets, 1, layer.images * -(-layer.out_rows // rows))
    part = int((usable_bytes - layer.window_bytes) // max(1, kernel))
    if part >= 1:
        part = part // kernels * kernels if part >= kernels else part
        sets = -(-layer.kernels // min(part, kernels)) if part < kernels else full
        yield _plan("kernels", layer, sets, -(-layer.kernels // part), 1)
    overlap = -(-layer.window_bytes * layer.out_rows // max(1, layer.feature_bytes))
    yield _plan("neither", layer, layer.kernels, layer.kernels * max(1, overlap), layer.images * layer.out_rows)


def plan_buffer(
    layer: Layer, usable_bytes: float, kernels: int, *, cycles_per_set: float, bytes_per_cycle: float, other_bytes: float = 0.0
) -> BufferPlan:
    """The way that takes the least time, the longer of multipliers and memory; of several, the one that reads least.

    Args:
        cycles_per_set: of the multipliers for one set of kernels, over all groups and images.
        bytes_per_cycle: from memory.
        other_bytes: that the layer moves besides.
    """

    def merit(plan: BufferPlan) -> tuple[float, int]:
        moved = (plan.load_bytes + other_bytes) / bytes_per_cycle
        return max(plan.kernel_sets * cycles_per_set, moved), plan.load_bytes

    return min(buffer_plans(layer, usable_bytes, kernels), key=merit)


def _halved(most: int) -> list[int]:
    """``most`` and its halves, down to 1."""
    found = [most]
    while found[-1] > 1:
        found.append(found[-1] // 2)
    return found


def _plan(kept: str, layer: Layer, sets: int, feature_reads: int, weight_reads: int) -> BufferPlan:
    each = layer.images * layer.feature_bytes * feature_reads + layer.weight_bytes * weight_reads
    return BufferPlan(kept, sets, feature_reads, weight_reads, layer.groups * each)
