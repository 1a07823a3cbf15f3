"""``booth_mac`` against ``accelerators.bit_serial.booth.LaneGroup``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from accelerators.bit_serial.booth import LaneGroup
from rtl.bench import Bench, Latency, Port, Trace, Values
from rtl.benches.probes import BURST, measured

_IDLE_CYCLES = 20
_SAMPLED_PAIRS = 1 << 13
"""Of operands too wide for all of their pairs."""


class BoothMacBench(Bench):
    """Every pair of operands at full rate, then random ones with gaps and back-pressure; sums that wrap, sums that begin anew."""

    unit = "booth_mac"

    def inputs(self, parameters: Mapping[str, int]) -> tuple[Port, ...]:
        bits, lanes = parameters["Bits"], parameters["Lanes"]
        operands = Port("a_i", bits, lanes), Port("b_i", bits, lanes)
        return Port("rst_ni"), Port("valid_i"), Port("accumulate_i"), *operands, Port("ready_i")

    def outputs(self, parameters: Mapping[str, int]) -> tuple[Port, ...]:
        lanes = parameters["Lanes"]
        return Port("ready_o"), Port("valid_o"), Port("sum_o", parameters["AccumulatorBits"], lanes), Port("active_o", 1, lanes)

    def trace(self, parameters: Mapping[str, int], cases: int, rng: np.random.Generator) -> Trace:
        bits, lanes = parameters["Bits"], parameters["Lanes"]
        group = LaneGroup(bits, lanes, parameters["AccumulatorBits"], bool(parameters["SharedWeight"]))
        low, high = -(1 << (bits - 1)), 1 << (bits - 1)
        # A lone product first and then a few, with no zero digit in any lane: …010101 is 1 in every digit.
        alone = np.full((2, 1 + BURST, lanes), [[[3]], [[sum(1 << i for i in range(0, bits, 2))]]])
        dense = self._dense(bits, lanes, rng)
        # The largest product again and again, which wraps; then small operands, ends of the range, any, and zeros, which take
        # the shortest time.
        extreme = np.full((2, 64, lanes), low)
        mixed = (2, -(-cases // lanes), lanes)
        kind = rng.integers(0, 4, mixed)
        ends = rng.choice([low, low + 1, -1, 0, 1, high - 1], mixed)
        drawn = np.where(kind == 0, rng.integers(-2, 2, mixed), np.where(kind == 1, ends, rng.integers(low, high, mixed)))
        drawn[1, rng.random(mixed[1]) < 0.1] = 0
        left, right = np.concatenate([alone, dense, extreme, drawn], axis=1)
        accumulate = rng.random(len(right)) < 0.9

        # Cycle 0 of the model is the first one after the reset.
        steps = group.step_cycles(right)
        first, begin = alone.shape[1], alone.shape[1] + dense.shape[1]
        rest = np.zeros(_IDLE_CYCLES, bool)
        # Of the burst all but the last stay until the one before is done; the others are taken in the cycle in which they come.
        burst = np.full(1 + int(steps[1 : first - 1].sum()), True)
        quiet = 1 + burst.size + 2 * _IDLE_CYCLES
        quick = quiet + int(steps[first:begin].sum())
        loose = 3 * int(steps[begin:].sum())
        offered = np.concatenate([[True], rest, burst, rest, np.full(quick - quiet, True), rng.random(loose) < 0.8])
        taken = np.concatenate([np.full(quick, True), rng.random(loose) < 0.7])
        cycles = group.run(left, right, accumulate=accumulate, offered=offered, taken=taken).cycles + 3
        run = group.run(left, right, accumulate=accumulate, offered=offered, taken=taken, record_cycles=cycles)
        assert run.signals is not None
        item = run.signals.presented
        valid = item >= 0
        # Whatever lies on the operands when none are offered, and in the cycle of the reset, has no effect.
        noise = rng.integers(low, high, (2, cycles, lanes))
        inputs = {
            "rst_ni": np.arange(cycles + 1) > 0,
            "valid_i": np.concatenate([[True], valid]),
            "accumulate_i": np.concatenate([[True], np.where(valid, accumulate[item], rng.random(cycles) < 0.5)]),
            "a_i": np.concatenate([noise[0, :1], np.where(valid[:, None], left[item], noise[0])]),
            "b_i": np.concatenate([noise[1, :1], np.where(valid[:, None], right[item], noise[1])]),
            "ready_i": np.concatenate([[True], taken[:cycles], np.full(max(0, cycles - taken.size), True)]),
        }
        shown = {
            "ready_o": run.signals.ready,
            "valid_o": run.signals.valid,
            "sum_o": run.signals.sums,
            "active_o": run.signals.active,
        }
        outputs = {name: np.concatenate([np.zeros_like(values[:1]), values]) for name, values in shown.items()}
        if lanes == 1:
            inputs |= {name: inputs[name][:, 0] for name in ("a_i", "b_i")}
            outputs |= {name: outputs[name][:, 0] for name in ("sum_o", "active_o")}
        marks = {"operand": 1, "burst": 2 + _IDLE_CYCLES, "begin": 1 + quiet, "end": 1 + quick}
        return Trace(inputs, outputs, right.size, compared_from=1, marks=marks)

    def _dense(self, bits: int, lanes: int, rng: np.random.Generator) -> np.ndarray:
        """Operands that come without a gap: every pair of 8 bits or fewer, each in one of the lanes, or else many pairs;
        (2, products, lanes)."""
        low, codes = -(1 << (bits - 1)), 1 << bits
        pairs = rng.permutation(codes**2) if bits <= 8 else rng.integers(0, codes**2, _SAMPLED_PAIRS)
        # What the last lanes lack is drawn again.
        pairs = np.concatenate([pairs, rng.choice(pairs, -pairs.size % lanes)]).reshape(-1, lanes)
        return np.stack(np.divmod(pairs, codes)) + low

    def latency(self, parameters: Mapping[str, int], trace: Trace, observed: Values) -> Latency:
        """Fill and drain of products without a zero digit; between results, the mean over every pair of operands, or many."""
        operand, burst, begin, end = (trace.marks[name] for name in ("operand", "burst", "begin", "end"))
        accepted = np.flatnonzero(trace.inputs["valid_i"] & (observed["ready_o"] != 0))
        results = np.flatnonzero(observed["valid_o"])
        found = measured(
            (int(accepted[accepted >= operand][0]), int(results[results > operand][0])),
            accepted[(accepted >= burst) & (accepted < begin)].tolist(),
            results[(results > burst) & (results <= begin)].tolist(),
            "ready_i low with valid_o keeps sums and digits; one cycle a digit, at least one",
        )
        steady = results[(results > begin) & (results <= end)]
        rate = float((steady[-1] - steady[0]) / (steady.size - 1))
        return replace(found, cycles_per_operand=round(rate, 3))
