"""``mac_int8`` against ``numerics.multiply_add`` with an integer accumulator."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from numerics import multiply_add
from rtl.bench import Bench, Latency, Port, Trace, Values
from rtl.benches.probes import OPERANDS, probe, probed, taken

_LIMITS = np.array([-(1 << 31), -(1 << 31) + 16383, -1, 0, 1, (1 << 31) - 16384, (1 << 31) - 1])
"""Sums that products leave beyond the range by as little as one, or just within it."""

_ENDS = np.array([-128, -127, -1, 0, 1, 126, 127])

_PROBE = np.arange(OPERANDS) * 100
"""Sums c of the probe, whose products are all 3 · 5."""


class MacInt8Bench(Bench):
    """Every pair of operands on the largest and the smallest sum, pairs of small and large ones on sums near these; random ones,
    some of them held back."""

    unit = "mac_int8"

    def inputs(self, parameters: Mapping[str, int]) -> tuple[Port, ...]:
        return Port("rst_ni"), Port("enable_i"), Port("a_i", 8), Port("b_i", 8), Port("c_i", 32)

    def outputs(self, parameters: Mapping[str, int]) -> tuple[Port, ...]:
        return (Port("sum_o", 32),)

    def trace(self, parameters: Mapping[str, int], cases: int, rng: np.random.Generator) -> Trace:
        every = np.arange(-128, 128)
        grids = np.meshgrid(every, every, _LIMITS[[0, -1]]), np.meshgrid(_ENDS, _ENDS, _LIMITS)
        crossed = np.concatenate([np.reshape(grid, (3, -1)) for grid in grids], axis=1)
        # In random order: one sum comes after any other.
        crossed = rng.permutation(crossed, axis=1)
        drawn = rng.integers(-128, 128, cases), rng.integers(-128, 128, cases), rng.integers(-(1 << 31), 1 << 31, cases)
        first = probe(np.full(OPERANDS, 3)), probe(np.full(OPERANDS, 5)), probe(_PROBE)
        a, b, c = (np.concatenate(parts) for parts in zip(first, crossed, drawn, strict=True))
        enable = np.concatenate([taken, np.full(crossed.shape[1], True), rng.random(cases) < 0.9])
        accumulator = "int32_saturate" if parameters["Saturate"] else "int32"
        sums = multiply_add(c, a, b, accumulator=accumulator)
        # What shows in a cycle is the sum of the last cycle that was enabled before it.
        last = np.maximum.accumulate(np.where(enable, np.arange(a.size), -1))
        shown = np.where(last >= 0, sums[last], 0)
        outputs = np.concatenate([[0], shown[:-1]])
        inputs = {"rst_ni": np.arange(a.size) > 0, "enable_i": enable, "a_i": a, "b_i": b, "c_i": c}
        return Trace(inputs, {"sum_o": outputs}, int(enable.sum()), compared_from=1)

    def latency(self, parameters: Mapping[str, int], trace: Trace, observed: Values) -> Latency:
        return probed(observed["sum_o"], (15 + _PROBE).tolist(), "enable_i low keeps the sum")
