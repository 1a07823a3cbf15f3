"""What units are given to do in a gate-level run, and how their operations are counted.

Three kinds of data, the same numbers for every number format: ``random``, uniform over the full scale; ``sparse``, the same with
80 % of the second operands zero; ``small``, Gaussian with a standard deviation of 1/16 of full scale. Sums are of 64 products.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.views.display import displayed
from numerics.errors import unknown_name
from rtl.synthesis.netlist import GateLevelRun

OPERANDS = ("random", "sparse", "small")
ZERO_SHARE = 0.8
SMALL_SCALE = 1 / 16
PRODUCTS = 64
"""Products of a sum."""

Array = npt.NDArray[Any]
Play = Callable[[GateLevelRun, Mapping[str, int], str, int, np.random.Generator], int]
"""(run, parameters, data, cycles, rng) → operations done in what the run has counted."""


@displayed
@dataclass(frozen=True)
class Activity:
    """How a unit is kept busy.

    Attributes:
        configurations: names of those that are synthesised.
        per: what one operation is.
        data: kinds of data.
        play: see ``Play``.
    """

    configurations: tuple[str, ...]
    per: str
    data: tuple[str, ...]
    play: Play


def operand_pairs(data: str, shape: tuple[int, ...], rng: np.random.Generator) -> tuple[Array, Array]:
    """First and second operands, of the shape each, between −1 and 1.

    Raises:
        InputError: an unknown kind of data.
    """
    if data not in OPERANDS:
        raise unknown_name("data", data, OPERANDS)
    if data == "small":
        first, second = np.clip(rng.normal(0, SMALL_SCALE, (2, *shape)), -1, 1)
        return first, second
    first, second = rng.uniform(-1, 1, (2, *shape))
    return first, np.where(rng.random(shape) < ZERO_SHARE, 0.0, second) if data == "sparse" else second


# --- the units ------------------------------------------------------------------------------------------------------------


def _reset(run: GateLevelRun) -> None:
    """A cycle of reset with all other inputs at 0; counting begins after it."""
    run.play({port.name: np.zeros((1, run.streams, port.lanes), np.uint8) for port in run.inputs})
    run.clear()


def _mac_int8(run: GateLevelRun, parameters: Mapping[str, int], data: str, cycles: int, rng: np.random.Generator) -> int:
    shape = (cycles, run.streams)
    if data == "binary":
        a, b = rng.choice(np.array([-1, 1]), (2, *shape))
    else:
        a, b = (np.rint(v * 127).astype(np.int64) for v in operand_pairs(data, shape, rng))
    c = np.zeros(shape, np.int64)
    for t in range(1, cycles):
        # The sum goes round, as in an output-stationary element.
        c[t] = 0 if t % PRODUCTS == 0 else c[t - 1] + a[t - 1] * b[t - 1]
    on = np.ones(shape, np.uint8)
    _reset(run)
    run.play({"rst_ni": on, "enable_i": on, "a_i": a, "b_i": b, "c_i": c})
    return a.size


def _fp_mac(run: GateLevelRun, parameters: Mapping[str, int], data: str, cycles: int, rng: np.random.Generator) -> int:
    from numerics import decode, encode, multiply_add

    name, scale = _FLOATS[parameters["ExponentBits"], parameters["MantissaBits"]]
    shape = (cycles, run.streams)
    codes = [encode(v * scale, name) for v in operand_pairs(data, shape, rng)]
    a, b = (decode(code, name).astype(np.float32) for code in codes)
    c = np.zeros(shape, np.float32)
    for t in range(1, cycles):
        c[t] = 0 if t % PRODUCTS == 0 else multiply_add(c[t - 1], a[t - 1], b[t - 1], accumulator="fp32")
    on = np.ones(shape, np.uint8)
    _reset(run)
    run.play({"rst_ni": on, "enable_i": on, "a_i": codes[0], "b_i": codes[1], "c_i": c.view(np.uint32)})
    return a.size


def _fp_convert(run: GateLevelRun, parameters: Mapping[str, int], data: str, cycles: int, rng: np.random.Generator) -> int:
    _, scale = _FLOATS.get((parameters["ExponentBits"], parameters["MantissaBits"]), ("", 1.0))
    x = (operand_pairs(data, (cycles, run.streams), rng)[1] * scale).astype(np.float32).view(np.uint32)
    on, off = np.ones(x.shape, np.uint8), np.zeros(x.shape, np.uint8)
    _reset(run)
    run.play({"rst_ni": on, "valid_i": on, "mode_i": off, "load_i": off, "seed_i": off, "x_i": x})
    return x.size


def _fused_dot(run: GateLevelRun, parameters: Mapping[str, int], data: str, cycles: int, rng: np.random.Generator) -> int:
    from numerics import decode, encode

    name, scale = _FLOATS[parameters["ExponentBits"], parameters["MantissaBits"]]
    shape = (cycles, run.streams, parameters["K"])
    codes = [encode(v * scale, name) for v in operand_pairs(data, shape, rng)]
    dots = np.prod([decode(code, name).astype(np.float64) for code in codes], axis=0).sum(2)
    c = np.zeros(dots.shape, np.float32)
    for t in range(1, cycles):
        c[t] = 0 if t * parameters["K"] % PRODUCTS == 0 else c[t - 1] + dots[t - 1]
    on = np.ones(dots.shape, np.uint8)
    _reset(run)
    # The bench's ports may hold several operands in a word.
    port = next(port for port in run.inputs if port.name == "a_i")
    bits = port.width // parameters["K"]
    places = np.arange(port.bits // bits, dtype=np.uint64) * np.uint64(bits)
    a, b = ((code.astype(np.uint64).reshape(*dots.shape, port.lanes, -1) << places).sum(-1, dtype=np.uint64) for code in codes)
    run.play({"rst_ni": on, "valid_i": on, "a_i": a, "b_i": b, "c_i": c.view(np.uint32)})
    return codes[0].size


def _threshold_neuron(run: GateLevelRun, parameters: Mapping[str, int], data: str, cycles: int, rng: np.random.Generator) -> int:
    n = parameters["Inputs"]
    shape = (cycles, run.streams)
    x, w = rng.integers(0, 1 << n, (2, *shape))
    on, off = np.ones(shape, np.uint8), np.zeros(shape, np.uint8)
    _reset(run)
    values = {"x_i": x, "w_i": w, "threshold_i": np.full(shape, (n + 1) // 2)}
    run.play({"rst_ni": on, "enable_i": on, "operation_i": off, "first_i": off, **values})
    return x.size * n


def _booth_mac(run: GateLevelRun, parameters: Mapping[str, int], data: str, cycles: int, rng: np.random.Generator) -> int:
    largest = (1 << (parameters["Bits"] - 1)) - 1
    shape = (cycles, run.streams, parameters["Lanes"])
    a, b = (np.rint(v * largest).astype(np.int64) for v in operand_pairs(data, shape, rng))
    on, streams = np.ones((1, run.streams), np.uint8), np.arange(run.streams)
    at = np.zeros(run.streams, np.int64)
    _reset(run)
    for _ in range(cycles):
        accumulate = (at % PRODUCTS != 0)[None]
        values = {"valid_i": on, "accumulate_i": accumulate, "a_i": a[at, streams][None], "b_i": b[at, streams][None]}
        shown = run.play({"rst_ni": on, "ready_i": on, **values})
        at += shown["ready_o"][0].astype(np.int64)
    return int(at.sum()) * parameters["Lanes"]


def _secded(run: GateLevelRun, parameters: Mapping[str, int], data: str, cycles: int, rng: np.random.Generator) -> int:
    words = rng.integers(0, (1 << 64) - 1, (2, cycles, run.streams), np.uint64, endpoint=True)
    zeros = np.zeros((cycles, run.streams), np.uint8)
    check = run.play({"data_i": words[1], "received_data_i": words[1], "received_check_i": zeros})["check_o"]
    run.clear()
    run.play({"data_i": words[0], "received_data_i": words[1], "received_check_i": check})
    return words[0].size


def _lif_core(run: GateLevelRun, parameters: Mapping[str, int], data: str, cycles: int, rng: np.random.Generator) -> int:
    neurons = parameters["Neurons"]
    constant = {
        "rst_ni": 1, "decay_u_i": 1024, "decay_v_i": 256, "threshold_i": 400, "bias_mantissa_i": 0, "bias_exponent_i": 0,
        "refractory_i": 1, "v_min_exponent_i": 23, "v_max_exponent_i": 23, "weight_shift_i": 6, "spike_ready_i": 1,
    }  # fmt: skip
    # As many events as neurons, the last one with a tick, then the update, of which all streams take the same time.
    period = 2 * neurons + 3
    cycles = -(-cycles // period) * period
    shape, at = (cycles, run.streams), np.arange(cycles)[:, None] % period
    events = {
        "synapse_valid_i": np.broadcast_to(at < neurons, shape),
        "synapse_neuron_i": rng.integers(0, neurons, shape),
        "synapse_weight_i": rng.integers(-255, 256, shape),
        "tick_i": np.broadcast_to(at == neurons - 1, shape),
    }
    zeros = {name: np.zeros((neurons, run.streams), np.int64) for name in events}
    _reset(run)
    run.play({name: np.full((neurons, run.streams), value) for name, value in constant.items()} | zeros)  # it clears its memory
    run.clear()
    shown = run.play({name: np.full(shape, value) for name, value in constant.items()} | events)
    if not np.array_equal(shown["ready_o"] != 0, np.broadcast_to(at < neurons, shape)):
        raise RuntimeError("lif_core is ready at other times than expected")
    return int(shown["state_valid_o"].sum())


def _spike_router(run: GateLevelRun, parameters: Mapping[str, int], data: str, cycles: int, rng: np.random.Generator) -> int:
    x_bits, y_bits, payload_bits = (parameters[name] for name in ("XBits", "YBits", "PayloadBits"))
    shape = (1, run.streams)
    place = {"x_i": np.full(shape, 1 << x_bits >> 1), "y_i": np.full(shape, 1 << y_bits >> 1)}
    on, lanes = np.ones(shape, np.int64), np.ones((*shape, 5), np.int64)
    flits = rng.integers(0, 1 << (x_bits + y_bits + payload_bits), (*shape, 5))
    hops = 0
    _reset(run)
    for _ in range(cycles):
        shown = run.play({"rst_ni": on, **place, "valid_i": lanes, "ready_i": lanes, "flit_i": flits})
        taken = shown["ready_o"] != 0
        hops += int(shown["valid_o"].sum())
        flits = np.where(taken, rng.integers(0, 1 << (x_bits + y_bits + payload_bits), flits.shape), flits)
    return hops


_FLOATS = {(8, 7): ("bf16", 1.0), (5, 10): ("fp16", 1.0), (5, 2): ("e5m2", 2.0**15), (4, 3): ("e4m3fn", 2.0**8)}
"""Formats by exponent and mantissa bits; full scale is the largest power of two of the 8-bit ones, whose range is narrow."""

ACTIVITIES: dict[str, Activity] = {
    "mac_int8": Activity(("wrapping", "saturating"), "multiply-accumulate", (*OPERANDS, "binary"), _mac_int8),
    "fp_mac": Activity(("bf16", "e4m3", "e5m2"), "multiply-accumulate", OPERANDS, _fp_mac),
    "fused_dot": Activity(("volta_fp16",), "multiply-accumulate", OPERANDS, _fused_dot),
    "fp_convert": Activity(("bf16", "e4m3", "e5m2"), "conversion to nearest even", OPERANDS, _fp_convert),
    "booth_mac": Activity(("int8", "lockstep8", "bit_weight8"), "multiply-accumulate", OPERANDS, _booth_mac),
    "threshold_neuron": Activity(
        ("inputs3", "inputs5", "inputs10"), "binary multiply-accumulate (an input of a neuron)", ("binary",), _threshold_neuron
    ),
    "secded_72_64": Activity(("standard",), "word encoded and word decoded", ("random",), _secded),
    "lif_core": Activity(("neurons1", "neurons16"), "neuron update and synaptic event", ("random",), _lif_core),
    "spike_router": Activity(("depth2",), "flit through a router under full load", ("random",), _spike_router),
}
"""By unit. Units that are not here are not synthesised unless they are named, and then without energy."""
