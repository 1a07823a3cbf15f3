"""Cycles of the multiplier array (NVDLA hardware manual, unit description, "Direct Convolution").

An *atomic operation* is one cycle: atomic-C channels of one input position against one tap of atomic-K kernels. A *stripe* runs
through output positions with the same weights; those of the next stripe arrive meanwhile. Stripes of all taps and channels, for
one set of kernels, sum up in the accumulators.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from accelerators.convolution_engine.nest import Layer
from accelerators.convolution_engine.spec import MultiplierArray


@dataclass(frozen=True)
class SetWork:
    """What one set of kernels takes on the array, over all groups and images.

    Attributes:
        cycles: of all its stripes.
        stripes: number of them.
        blocks: pairs of a tap and a block of channels, for one group and image.
    """

    cycles: int
    stripes: int
    blocks: int


def set_work(layer: Layer, array: MultiplierArray) -> SetWork:
    """What one set of kernels takes.

    Positions are divided evenly among stripes of at most ``longest_stripe``; none is shorter than its weights take to arrive.
    Packed, the channels of neighbouring columns of a kernel row lie side by side in the atomic-C.
    """
    if layer.packed:
        blocks = math.prod(layer.taps[:-1]) * -(-layer.taps[-1] * layer.channels // array.channels)
    else:
        blocks = math.prod(layer.taps) * -(-layer.channels // array.channels)
    parts = -(-layer.positions // array.longest_stripe)
    shorter, longer = divmod(layer.positions, parts)
    length = longer * max(shorter + 1, array.shortest_stripe_cycles) + (parts - longer) * max(
        shorter, array.shortest_stripe_cycles
    )
    times = layer.groups * layer.images * blocks
    return SetWork(times * length, times * parts, blocks)
