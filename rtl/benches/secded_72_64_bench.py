"""``secded_72_64`` against ``numerics.Secded``."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np

from numerics import Secded
from rtl.bench import Bench, Latency, Port, Trace, Values
from rtl.benches.probes import OPERANDS, probe, probed

_WORDS = 3
"""Random words beside those of all zeros, all ones and alternating bits that every error is tried on."""

_PROBE = np.uint64(0x0123456789ABCDEF) * np.arange(1, 1 + OPERANDS, dtype=np.uint64)
"""Words of the probe, which are received with a wrong bit."""


class Secded7264Bench(Bench):
    """Every word of one and of two wrong bits on several words, triples of wrong bits, and anything that may be received."""

    unit = "secded_72_64"
    clock = None

    def inputs(self, parameters: Mapping[str, int]) -> tuple[Port, ...]:
        return Port("data_i", 64), Port("received_data_i", 64), Port("received_check_i", 8)

    def outputs(self, parameters: Mapping[str, int]) -> tuple[Port, ...]:
        return Port("check_o", 8), Port("data_o", 64), Port("syndrome_o", 8), Port("single_error_o"), Port("double_error_o")

    def trace(self, parameters: Mapping[str, int], cases: int, rng: np.random.Generator) -> Trace:
        code = Secded(64)
        special = np.array([0, (1 << 64) - 1, 0x5555555555555555, 0xAAAAAAAAAAAAAAAA], np.uint64)
        words = np.concatenate([special, _words(rng, _WORDS)])
        # Wrong bits as masks of data and check bits: none, each one, each two, then random threes.
        patterns = [(), *combinations(range(72), 1), *combinations(range(72), 2)]
        patterns += [tuple(rng.choice(72, 3, replace=False).tolist()) for _ in range(1000)]
        masks = [sum(1 << bit for bit in pattern) for pattern in patterns]
        wrong_data = np.array([mask & ((1 << 64) - 1) for mask in masks], np.uint64)
        wrong_check = np.array([mask >> 64 for mask in masks], np.uint8)
        data = (words[:, None] ^ wrong_data).reshape(-1)
        check = (code.encode(words)[:, None] ^ wrong_check).reshape(-1)
        # The probe, each of its words with another data bit wrong; then each data bit alone, which shows a column of the matrix;
        # at the end random words received with anything for check bits.
        lead = probe(_PROBE ^ np.uint64(1) << np.arange(OPERANDS, dtype=np.uint64))
        columns = np.uint64(1) << np.arange(64, dtype=np.uint64)
        data = np.concatenate([lead, columns, data, _words(rng, cases)])
        check = np.concatenate([probe(code.encode(_PROBE)), np.zeros(64, np.uint8), check, rng.integers(0, 256, cases, np.uint8)])
        # The encoder works at the same time on other words, but for the columns.
        written = _words(rng, data.size)
        written[lead.size : lead.size + 64] = columns
        found = code.decode(data, check)
        outputs: dict[str, np.ndarray] = {
            "check_o": code.encode(written),
            "data_o": found.data,
            "syndrome_o": found.syndrome,
            "single_error_o": found.single_error,
            "double_error_o": found.double_error,
        }
        return Trace({"data_i": written, "received_data_i": data, "received_check_i": check}, outputs, data.size)

    def latency(self, parameters: Mapping[str, int], trace: Trace, observed: Values) -> Latency:
        return probed(observed["data_o"], _PROBE.tolist(), "combinational, nothing to stall")


def _words(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.integers(0, (1 << 64) - 1, count, np.uint64, endpoint=True)
