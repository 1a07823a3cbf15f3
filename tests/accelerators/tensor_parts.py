"""Parts of tensor processing engines, synthesised for area and energy: ``python tests/accelerators/tensor_parts.py``.

Prints ``accelerators/bit_serial/parts.csv``, or writes it with ``--write``. Needs what ``python -m rtl.synthesis`` needs.
"""

from __future__ import annotations

import csv
import io
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np

from numerics import booth_digits
from rtl.bench import Port
from rtl.synthesis.activity import OPERANDS, PRODUCTS, operand_pairs
from rtl.synthesis.command import LIBERTY
from rtl.synthesis.liberty import read_library
from rtl.synthesis.netlist import GateLevelRun
from rtl.synthesis.yosys import synthesise, yosys_version
from rtl.verification import SOURCES

FILE = Path(__file__).with_suffix(".sv")
TABLE = Path(__file__).parents[2] / "accelerators" / "bit_serial" / "parts.csv"
STREAMS = 64
CYCLES = 1024
LANES = 8


@dataclass(frozen=True)
class Part:
    """A module with its parameters, and what plays on it: ``stream(data)`` → (values by port, multiply-accumulates)."""

    name: str
    module: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    parameters: dict[str, int] = field(default_factory=dict)
    stream: str = ""


def _part(name: str, module: str, inputs: dict, outputs: dict, parameters: dict | None = None, stream: str = "") -> Part:
    ports = [tuple(Port(n, *([w] if isinstance(w, int) else w)) for n, w in given.items()) for given in (inputs, outputs)]
    return Part(name, module, *ports, parameters or {}, stream)


def _source(name: str, lanes: int, encoding: int) -> Part:
    return _part(
        name, "part_digit_source", {"rst_ni": 1, "valid_i": 1, "b_i": (8, lanes)},
        {"ready_o": 1, "valid_o": 1, "digit_o": (3, lanes), "place_o": 2 if encoding == 0 else 3},
        {"Lanes": lanes, "Encoding": encoding}, "source",
    )  # fmt: skip


TWO = {"a_i": 32, "b_i": 32}
THREE = {**TWO, "c_i": 32}
HALVES = {"sum_o": 32, "carry_o": 32}
PARTS = (
    _part("multiplier", "part_multiplier", {"a_i": 8, "b_i": 8}, {"product_o": 16}, stream="multiplier"),
    _part("half_multiplier", "part_half_multiplier", {"a_i": 8, "b_i": 8}, {"sum_o": 16, "carry_o": 16}, stream="multiplier"),
    _part("tree_adder", "part_adder", {"a_i": 17, "b_i": 17}, {"sum_o": 17}, {"Width": 17}, "products"),
    _part("sum_adder", "part_adder", TWO, {"sum_o": 32}, stream="sum"),
    _part("sum_compressor", "part_compressor", THREE, HALVES, stream="halves"),
    _part("sum_clear", "part_clear", {"clear_i": 1, "data_i": 32}, {"data_o": 32}, stream="clear"),
    _part("sum_register", "part_register", {"enable_i": 1, "data_i": 32}, {"data_o": 32}, stream="register"),
    _part("carry_register", "part_register", {"enable_i": 1, "data_i": 32}, {"data_o": 32}, stream="carry"),
    _part("select", "part_select", {"select_i": 1, **TWO}, {"data_o": 32}),
    _part("operand_register", "part_register", {"enable_i": 1, "data_i": 8}, {"data_o": 8}, {"Width": 8}, "operand"),
    _part("digit_product", "part_digit_product", {"a_i": 8, "digit_i": 3}, {"product_o": 10, "carry_o": 1}, stream="digit"),
    _part(
        "unit_digit_product", "part_digit_product", {"a_i": 8, "digit_i": 3}, {"product_o": 10, "carry_o": 1}, {"Twos": 0},
    ),
    _part("digit_tree_adder", "part_adder", {"a_i": 11, "b_i": 11}, {"sum_o": 11}, {"Width": 11}, "digit_products"),
    _part("shifter", "part_shifter", {"data_i": 10, "place_i": 2}, {"data_o": 32}, stream="shift"),
    _part("tree_shifter", "part_shifter", {"data_i": 13, "place_i": 2}, {"data_o": 32}, {"Width": 13}, "tree_shift"),
    _part("binary_shifter", "part_shifter", {"data_i": 10, "place_i": 3}, {"data_o": 32}, {"Places": 8, "Steps": 1}),
    _part("binary_tree_shifter", "part_shifter", {"data_i": 13, "place_i": 3}, {"data_o": 32},
          {"Width": 13, "Places": 8, "Steps": 1}),
    _part("digit_sum_adder", "part_adder", TWO, {"sum_o": 32}, stream="digit_sum"),
    _part("digit_sum_compressor", "part_compressor", THREE, HALVES, stream="digit_halves"),
    _part("digit_sum_clear", "part_clear", {"clear_i": 1, "data_i": 32}, {"data_o": 32}, stream="digit_clear"),
    _part("digit_sum_register", "part_register", {"enable_i": 1, "data_i": 32}, {"data_o": 32}, stream="digit_register"),
    _part("digit_carry_register", "part_register", {"enable_i": 1, "data_i": 32}, {"data_o": 32}, stream="digit_carry"),
    _source("booth_source", 1, 0), _source("booth_source_shared", LANES, 0),
    _source("naf_source", 1, 1), _source("naf_source_shared", LANES, 1),
    _source("magnitude_source", 1, 2), _source("magnitude_source_shared", LANES, 2),
)  # fmt: skip


@cache
def operands(data: str) -> tuple[np.ndarray, np.ndarray]:
    """Codes of two operands, (CYCLES, STREAMS, LANES) each, the same for every part."""
    rng = np.random.default_rng([0, OPERANDS.index(data)])
    return tuple(np.rint(v * 127).astype(np.int64) for v in operand_pairs(data, (CYCLES, STREAMS, LANES), rng))


@cache
def digit_steps(data: str, lanes: int) -> dict[str, np.ndarray]:
    """Step by step, what a digit element sees whose lanes are at one weight: a, digit, place, first of a sum, product."""
    a, b = (v[:, :, :lanes] for v in operands(data))
    digits = booth_digits(b, 8).astype(np.int64)
    taken = (digits != 0).any(axis=2)
    taken[..., 0] |= ~taken.any(axis=-1)  # a product without digits takes a cycle
    found = {name: np.zeros((CYCLES, STREAMS, *shape), np.int64) for name, shape in (("a", (lanes,)), ("digit", (lanes,)))}
    found |= {name: np.zeros((CYCLES, STREAMS), np.int64) for name in ("place", "first", "product")}
    for stream in range(STREAMS):
        product, place = (index[:CYCLES] for index in np.nonzero(taken[:, stream]))
        found["a"][:, stream], found["digit"][:, stream] = a[product, stream], digits[product, stream, :, place]
        found["place"][:, stream], found["product"][:, stream] = place, product
        found["first"][:, stream] = (product % PRODUCTS == 0) & (np.diff(product, prepend=-1) > 0)
    return found


def code(digit: np.ndarray) -> np.ndarray:
    """{negative, two, one}."""
    return (digit < 0) * 4 + (abs(digit) == 2) * 2 + (abs(digit) == 1)


def sums(terms: np.ndarray, first: np.ndarray, carry_save: bool) -> tuple[np.ndarray, ...]:
    """What an accumulator holds before each cycle: (sum, carry), 32 bits; the terms likewise."""
    mask = np.int64(0xFFFFFFFF)
    total, carry = np.zeros_like(terms), np.zeros_like(terms)
    s = c = np.zeros(terms.shape[1], np.int64)
    for t in range(len(terms)):
        total[t], carry[t] = s, c
        s, c, x = np.where(first[t], 0, s), np.where(first[t], 0, c), terms[t] & mask
        s, c = (s ^ c ^ x, (((s & c) | (s & x) | (c & x)) << 1) & mask) if carry_save else ((s + x) & mask, c)
    return total, carry, terms & mask


def stimulus(part: Part, data: str) -> tuple[dict[str, np.ndarray], float]:
    """Values by port, (cycles, streams[, lanes]), and the multiply-accumulates (additions for adders of trees) they are."""
    a, b = operands(data)
    kind, whole = part.stream, float(CYCLES * STREAMS)
    first = np.broadcast_to((np.arange(CYCLES) % PRODUCTS == 0)[:, None], (CYCLES, STREAMS))
    lanes = LANES if kind in ("digit_products", "tree_shift") else 1
    if kind.startswith("digit") or kind.endswith("shift"):
        steps = digit_steps(data, lanes)
        whole = float((steps["product"][-1] + 1).sum())
        products = steps["a"] * steps["digit"]
    if kind == "multiplier":
        return {"a_i": a[..., 0], "b_i": b[..., 0]}, whole
    if kind == "products":
        return {"a_i": (a * b)[..., 0], "b_i": (a * b)[..., 1]}, whole
    if kind == "operand":
        return {"enable_i": np.ones_like(first), "data_i": a[..., 0]}, whole
    if kind == "digit":
        return {"a_i": steps["a"][..., 0], "digit_i": code(steps["digit"][..., 0])}, whole
    if kind == "digit_products":
        return {"a_i": products[..., 0], "b_i": products[..., 1]}, whole
    if kind.endswith("shift"):
        return {"data_i": products.sum(axis=2), "place_i": steps["place"]}, whole
    if kind == "source":
        return {}, whole
    terms = (a * b)[..., 0]
    if kind.startswith("digit_"):
        terms, first, kind = products[..., 0] << (2 * steps["place"]), steps["first"], kind.removeprefix("digit_")
    total, carry, term = sums(terms, first, kind in ("halves", "carry"))
    if kind == "sum":
        return {"a_i": np.where(first, 0, total), "b_i": term}, whole
    if kind == "halves":
        return {"a_i": np.where(first, 0, total), "b_i": np.where(first, 0, carry), "c_i": term}, whole
    if kind == "clear":
        return {"clear_i": first, "data_i": total}, whole
    held = carry if kind == "carry" else total
    return {"enable_i": np.ones_like(first), "data_i": np.roll(held, -1, axis=0)}, whole


def signals(part: Part, run: GateLevelRun, data: str) -> float:
    """Switching energy a multiply-accumulate, in pJ of the library, the clock left out."""
    if part.stream != "source":
        values, whole = stimulus(part, data)
        run.play(values)
        return run.signal_pj / whole
    lanes, b = part.parameters["Lanes"], operands(data)[1]
    on, streams = np.ones((1, STREAMS), np.uint8), np.arange(STREAMS)
    at = np.zeros(STREAMS, np.int64)
    run.play({"rst_ni": on * 0, "valid_i": on, "b_i": b[at, streams, :lanes][None]})
    run.clear()
    for _ in range(CYCLES // 4):
        shown = run.play({"rst_ni": on, "valid_i": on, "b_i": b[at, streams, :lanes][None]})
        at += shown["ready_o"][0].astype(np.int64)
    return run.signal_pj / (at.sum() * lanes)


@cache
def netlist(name: str):
    """A part in the library's cells."""
    part = next(p for p in PARTS if p.name == name)
    clock = "clk_i" if part.module in ("part_register", "part_digit_source") else None
    made = synthesise(part.module, [FILE], parameters=part.parameters, clock=clock, library=(read_library(LIBERTY), LIBERTY))
    return made.mapped


def start(name: str, streams: int = STREAMS) -> GateLevelRun:
    """A part's netlist, ready to play."""
    part = next(p for p in PARTS if p.name == name)
    return GateLevelRun(netlist(name), part.inputs, part.outputs, streams=streams)


def reference() -> tuple[float, float]:
    """Area of mac_int8 and its energy a multiply-accumulate of random operands, in the library's units."""
    from rtl.synthesis.activity import ACTIVITIES
    from rtl.verification import benches

    made = synthesise("mac_int8", [SOURCES / "mac_int8.sv"], library=(read_library(LIBERTY), LIBERTY))
    bench = benches()["mac_int8"]
    run = GateLevelRun(made.mapped, bench.inputs({}), bench.outputs({}), streams=256)
    operations = ACTIVITIES["mac_int8"].play(run, {}, "random", 512, np.random.default_rng(0))
    return made.mapped.area, run.energy_pj / operations


HEAD = """\
# Parts of tensor processing engines: area, flip-flops and switching energy. Printed again by:
# python tests/accelerators/tensor_parts.py --write
# {version}, osu035_stdcells, least area, as hwsim/data/rtl_ratios.csv, whose head says what such figures are not. Areas are
# relative to mac_int8 wrapping; signal_energy (without the clock at the flip-flops) to the energy, clock included, of its
# multiply-accumulate of random operands. It is per multiply-accumulate of one lane; of tree adders per addition (of the digits'
# ones: over all steps of a product of 8 lanes at one weight), of tree shifters per product of 8 lanes, of sources per operand.
# data: random, uniform over full scale; sparse, the same with 80 % of the second operands zero; small, Gaussian with a deviation
# of 1/16 of full scale; sums of 64 products. {streams} streams of {cycles} cycles. The second operand is the one recoded.
"""


def table() -> str:
    """The file."""
    area, energy = reference()
    text = io.StringIO()
    text.write(HEAD.format(version=yosys_version(), streams=STREAMS, cycles=CYCLES))
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["part", "quantity", "data", "value"])
    for part in PARTS:
        made = netlist(part.name)
        writer.writerow([part.name, "area", "", f"{made.area / area:.4g}"])
        writer.writerow([part.name, "flipflops", "", made.flipflops])
        for data in OPERANDS if part.stream else ():
            run = start(part.name)
            writer.writerow([part.name, "signal_energy", data, f"{signals(part, run, data) / energy:.4g}"])
    return text.getvalue()


if __name__ == "__main__":
    found = table()
    if "--write" in sys.argv[1:]:
        TABLE.write_text(found, encoding="utf-8")
    else:
        sys.stdout.write(found)
