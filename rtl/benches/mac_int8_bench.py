"""``mac_int8`` against ``numerics.multiply_add`` with an integer accumulator."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from numerics import multiply_add
from rtl.bench import Bench, Latency, Port, Trace, Values

_LIMITS = np.array([-(1 << 31), -(1 << 31) + 16383, -1, 0, 1, (1 << 31) - 16384, (1 << 31) - 1])


class MacInt8Bench(Bench):
    """Every pair of operands on sums at and near the limits, and random ones, some of them held back."""

    unit = "mac_int8"

    def inputs(self, parameters: Mapping[str, int]) -> tuple[Port, ...]:
        return Port("rst_ni"), Port("enable_i"), Port("a_i", 8), Port("b_i", 8), Port("c_i", 32)

    def outputs(self, parameters: Mapping[str, int]) -> tuple[Port, ...]:
        return (Port("sum_o", 32),)

    def trace(self, parameters: Mapping[str, int], cases: int, rng: np.random.Generator) -> Trace:
        a, b = np.divmod(np.arange(1 << 16), 256) - np.array([[128], [128]])
        limits = _LIMITS[rng.permutation(1 << 16) % _LIMITS.size]
        a, b = np.concatenate([a, rng.integers(-128, 128, cases)]), np.concatenate([b, rng.integers(-128, 128, cases)])
        c = np.concatenate([limits, rng.integers(-(1 << 31), 1 << 31, cases)])
        # A reset, one lone operand for the latency, then all others, of which some random ones are held back.
        a, b, c = (np.concatenate([[0, x, 0], values]) for x, values in ((3, a), (5, b), (0, c)))
        enable = np.concatenate([[False, True, False], np.full(1 << 16, True), rng.random(cases) < 0.9])
        accumulator = "int32_saturate" if parameters["Saturate"] else "int32"
        sums = multiply_add(c, a, b, accumulator=accumulator)
        # What shows in a cycle is the sum of the last cycle that was enabled before it.
        last = np.maximum.accumulate(np.where(enable, np.arange(a.size), -1))
        shown = np.where(last >= 0, sums[last], 0)
        outputs = np.concatenate([[0], shown[:-1]])
        inputs = {"rst_ni": np.arange(a.size) > 0, "enable_i": enable, "a_i": a, "b_i": b, "c_i": c}
        return Trace(inputs, {"sum_o": outputs}, int(enable.sum()), compared_from=1, marks={"operand": 1})

    def latency(self, parameters: Mapping[str, int], trace: Trace, observed: Values) -> Latency:
        operand = trace.marks["operand"]
        first = operand + int(np.argmax(observed["sum_o"][operand:] == 15))
        return Latency(first - operand, 1, first - operand, "enable_i low keeps the sum")
