"""``fp_convert`` against ``numerics.encode``, its random bits against ``numerics.Lfsr``."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from numerics import Lfsr, encode
from numerics.formats import FloatFormat
from rtl.bench import Bench, Latency, Port, Trace, Values
from rtl.benches.floats import FP32_SPECIALS, Bits, as_bits, as_float32, shown_later, small_format
from rtl.benches.probes import probe, probed, taken

_NEAREST_EVEN, _TOWARD_ZERO, _STOCHASTIC, _ALSO_STOCHASTIC = range(4)
_SEEDS = 8
_PROBE = np.array([1.0, 0.5, 1.5, 2.0, 3.0, 4.0])
"""Numbers that every format has."""


class FpConvertBench(Bench):
    """In each mode: special numbers, every number of the format and every one halfway between two with their neighbours; then
    random ones in random modes, with gaps, while seeds are loaded."""

    unit = "fp_convert"

    def inputs(self, parameters: Mapping[str, int]) -> tuple[Port, ...]:
        return Port("rst_ni"), Port("load_i"), Port("seed_i", 32), Port("valid_i"), Port("mode_i", 2), Port("x_i", 32)

    def outputs(self, parameters: Mapping[str, int]) -> tuple[Port, ...]:
        return Port("valid_o"), Port("code_o", small_format(parameters).code_bits)

    def trace(self, parameters: Mapping[str, int], cases: int, rng: np.random.Generator) -> Trace:
        fmt = small_format(parameters)
        steady = np.concatenate([FP32_SPECIALS, _boundaries(fmt, rng)])
        drawn = _random(fmt, cases, rng)
        x = np.concatenate([probe(as_bits(_PROBE)), np.tile(steady, 3), drawn])
        mode = np.concatenate([np.zeros(taken.size, int), np.repeat([0, 1, 2], steady.size), rng.integers(0, 4, drawn.size)])
        early = x.size - drawn.size
        valid = np.concatenate([taken, np.full(early - taken.size, True), rng.random(drawn.size) < 0.9])
        load, seed = np.zeros(x.size, bool), rng.integers(0, 1 << 32, x.size)
        load[early + rng.choice(drawn.size, min(_SEEDS, drawn.size), replace=False)] = True
        seed[np.flatnonzero(load)[0]] = 0  # which counts as the seed of the reset
        codes = _codes(fmt, parameters, x, mode, valid & (mode >= _STOCHASTIC), load, seed)
        inputs = {
            "rst_ni": np.arange(x.size) > 0, "load_i": load, "seed_i": seed, "valid_i": valid, "mode_i": mode, "x_i": x,
        }  # fmt: skip
        outputs = {"valid_o": np.concatenate([[False], valid[:-1]]), "code_o": shown_later(codes, valid)}
        return Trace(inputs, outputs, int(valid.sum()), compared_from=1)

    def latency(self, parameters: Mapping[str, int], trace: Trace, observed: Values) -> Latency:
        codes = encode(_PROBE.astype(np.float32), small_format(parameters)).tolist()
        return probed(observed["code_o"], codes, "none: a word in every cycle", observed["valid_o"])


def _codes(
    fmt: FloatFormat,
    parameters: Mapping[str, int],
    x: Bits,
    mode: npt.NDArray[np.int64],
    drawing: npt.NDArray[np.bool_],
    load: npt.NDArray[np.bool_],
    seed: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """The code of every word; those in ``drawing`` take their random bits one after the other."""
    # A unit never refuses a word: where a format has no NaN, it does as ml_dtypes.
    overflow = "ml_dtypes" if not parameters["HasNan"] else "saturate" if parameters["Saturate"] else "ieee"
    random_bits, steps, reset_seed = parameters["RandomBits"], parameters.get("Steps", 1), parameters.get("Seed", 1)
    register = Lfsr(32)
    words = np.zeros(x.size, np.uint32)
    begin, state = 0, reset_seed
    for end in [*(np.flatnonzero(load) + 1), x.size]:  # the word of a load's cycle still has the old state
        chosen = begin + np.flatnonzero(drawing[begin:end])
        words[chosen] = register.words(chosen.size, seed=state, bits=random_bits, steps=steps)
        begin, state = end, int(seed[end - 1]) or reset_seed
    values = as_float32(x)
    codes = np.zeros(x.size, np.int64)
    for number, rounding in ((_NEAREST_EVEN, "nearest_even"), (_TOWARD_ZERO, "toward_zero"), (_STOCHASTIC, "stochastic")):
        mine = (mode == number) | (mode == _ALSO_STOCHASTIC) & (number == _STOCHASTIC)
        random = {"seed": words[mine], "random_bits": random_bits} if number == _STOCHASTIC else {}
        codes[mine] = encode(values[mine], fmt, rounding=rounding, overflow=overflow, **random)
    return codes


def _boundaries(fmt: FloatFormat, rng: np.random.Generator) -> Bits:
    """Every number of the format, every one halfway between two, two steps beyond the largest, and their neighbours in FP32."""
    table = fmt.table()[: 1 << (fmt.code_bits - 1)]
    numbers = table[np.isfinite(table)]
    step = numbers[-1] - numbers[-2]
    with np.errstate(over="ignore"):
        numbers = np.concatenate([numbers, numbers[-1] + step * np.array([1.0, 2.0])])
        centres = as_bits(np.concatenate([numbers, (numbers[:-1] + numbers[1:]) / 2]))
    near = (centres[:, None].astype(np.int64) + np.array([-1, 0, 1])).ravel()
    near = np.unique(near[near >= 0])
    # Of either sign.
    return (near | rng.integers(0, 2, near.size) << 31).astype(np.uint32)


def _random(fmt: FloatFormat, cases: int, rng: np.random.Generator) -> Bits:
    """Half of them any codes of FP32, half of them numbers within the range of the format and a little beyond."""
    half = -(-cases // 2)
    low, high = fmt.emin - fmt.mantissa_bits - 6, fmt.emax + 3
    field = np.clip(rng.integers(low, high, half) + 127, 0, 255)
    inside = field << 23 | rng.integers(0, 1 << 23, half) | rng.integers(0, 2, half) << 31
    return rng.permutation(np.concatenate([rng.integers(0, 1 << 32, half), inside])).astype(np.uint32)
