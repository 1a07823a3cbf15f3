"""What an engine is made of: counts of parts, their areas, the energy of a product. Figures are relative to ``mac_int8``.

Area and switching energy of a part are those of ``parts.csv``, synthesised as the units of ``rtl`` are; the clock's energy at a
flip-flop follows from two rows of ``mac_int8`` in ``hwsim/data/rtl_ratios.csv``. Wires, control and leakage are left out.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources

import numpy as np

from accelerators.bit_serial.distributions import CodeDistribution
from accelerators.bit_serial.spec import ArraySpec
from hwsim.rtl_ratios import ratio
from hwsim.views.display import displaying

SUM_BITS = 32
SOURCE_LANES = 8
"""Lanes of the sources that were synthesised with shared weights."""
DIGIT_BITS = {"booth": 6, "naf": 6, "sign_magnitude": 6}
"""Bits of a digit on its way: negative, two, one and its place (or negative, one and a wider place); a valid bit."""
_SOURCES = {"booth": "booth_source", "naf": "naf_source", "sign_magnitude": "magnitude_source"}
_PRODUCT_BITS, _DIGIT_PRODUCT_BITS = 17, 11  # of the synthesised adders of two products


@cache
def _table() -> Mapping[tuple[str, str, str], float]:
    text = resources.files("accelerators.bit_serial").joinpath("parts.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))
    return {(row["part"], row["quantity"], row["data"]): float(row["value"]) for row in rows}


def part_area(part: str) -> float:
    """Area of a part of ``parts.csv``, relative to ``mac_int8``."""
    return _table()[part, "area", ""]


def part_flipflops(part: str) -> int:
    """Its flip-flops."""
    return int(_table()[part, "flipflops", ""])


@cache
def _data_digits() -> Mapping[str, float]:
    """Kind of data → mean Booth digits of its second operand, of which rint(127 x) is the code."""
    uniform = np.full(256, 1 / 254)
    uniform[0], uniform[[1, 255]] = 0, 0.5 / 254
    random = CodeDistribution(8, tuple(uniform.tolist()))
    # Normal with a deviation of 1/16 of full scale: scaled so that 16 deviations are 127; no number of int8 is clipped.
    from statistics import NormalDist

    normal = NormalDist(0, 127 / 16)
    small = CodeDistribution(8, tuple(np.diff([0.0, *(normal.cdf(c + 0.5) for c in range(-128, 127)), 1.0]).tolist()))
    return {"random": random.mean_digits(), "small": small.mean_digits(), "sparse": 0.2 * random.mean_digits()}


@lru_cache(4096)
def part_energy(part: str, digits: float) -> float:
    """Switching energy of a part for a product whose recoded operand has so many Booth digits on average: along the straight
    lines through nothing, the sparse, the small and the random data of ``parts.csv``.
    """
    at = _data_digits()
    known = sorted((at[data], _table()[part, "signal_energy", data]) for data in at)
    x, y = [0.0, *(d for d, _ in known)], [0.0, *(e for _, e in known)]
    if digits > x[-1]:
        return y[-1] + (digits - x[-1]) * max(0.0, (y[-1] - y[-2]) / (x[-1] - x[-2]))
    return float(np.interp(digits, x, y))


@cache
def clock_energy() -> float:
    """Energy of the clock at one flip-flop in a cycle, relative to a multiply-accumulate of ``mac_int8``.

    With and without the clock, energies of two kinds of data are E = clock + share · signal.
    """
    unit = "mac_int8", "wrapping"
    random, sparse = (ratio("energy", *unit, data=d, over_data="random") for d in ("random", "sparse"))
    share = (random - sparse) / (1 - ratio("signal_energy", *unit, data="sparse", over_data="random"))
    return (random - share) / SUM_BITS


@displaying("total_area")
@dataclass(frozen=True)
class Bill:
    """Parts of an engine.

    Attributes:
        area: component → area, relative to ``mac_int8``.
        flipflops: of the whole engine.
    """

    area: Mapping[str, float]
    flipflops: float

    @property
    def total_area(self) -> float:
        """Of all components."""
        return sum(self.area.values())


def _tree_bits(depth: int, first: int) -> tuple[int, int]:
    """(bits of all adders of a tree of ``depth`` products, bits of its result); ``first``: of the first level's sums."""
    bits, width, count = 0, first - 1, depth
    while count > 1:
        width += 1
        bits += width * (count // 2)
        count = -(-count // 2)
    return bits, width


def bill(array: ArraySpec) -> Bill:
    """The parts of an array: what it takes at the edges and in each element."""
    top, loop = array.topology, array.bit_weight
    sums, flipflops = top.rows * top.columns, 0.0
    area: dict[str, float] = {}

    def add(component: str, part: str, count: float) -> None:
        nonlocal flipflops
        area[component] = area.get(component, 0.0) + count * part_area(part)
        flipflops += count * part_flipflops(part)

    a_lanes, b_lanes = top.rows * top.depth, top.columns * top.depth
    saved = array.accumulation == "carry_save"
    compressors = 1
    if loop is None:
        bits, _ = _tree_bits(top.depth, _PRODUCT_BITS)
        if saved:
            # Products stay two numbers each: twice as many compressors as there would be adders, and one more at each sum.
            add("multipliers", "half_multiplier", top.multipliers)
            add("adder_trees", "sum_compressor", 2 * sums * bits / SUM_BITS)
            compressors = 2
        else:
            add("multipliers", "multiplier", top.multipliers)
            add("adder_trees", "tree_adder", sums * bits / _PRODUCT_BITS)
        entries = 2.0 * sums if top.name == "systolic" else a_lanes + b_lanes
    else:
        binary = loop.encoding != "booth"
        add("multipliers", "unit_digit_product" if binary else "digit_product", top.multipliers)
        bits, width = _tree_bits(top.depth, _DIGIT_PRODUCT_BITS)
        add("adder_trees", "digit_tree_adder", sums * bits / _DIGIT_PRODUCT_BITS)
        narrow, wide = ("binary_shifter", "binary_tree_shifter") if binary else ("shifter", "tree_shifter")
        share = (width - 10) / 3  # the synthesised ones take 10 and 13 bits
        add("shifters", narrow, sums * (1 - share))
        add("shifters", wide, sums * share)
        source = _SOURCES[loop.encoding]
        shared = loop.shared_weight and array.group_lanes > 1
        # A lane's own part and, per group, the counter of digits: area = own · lanes + counter.
        own = 1 - (SOURCE_LANES / array.group_lanes - 1) / (SOURCE_LANES - 1) if shared else 0.0
        add("digit_sources", f"{source}_shared", own * array.digit_lanes / SOURCE_LANES)
        add("digit_sources", source, (1 - own) * array.digit_lanes)
        plain = a_lanes if loop.encoded_operand == "b" else b_lanes
        entries = sums * (1 + DIGIT_BITS[loop.encoding] / 8) if top.name == "systolic" else plain
        if loop.window_steps > 1:
            groups = array.digit_lanes // array.group_lanes
            add("queues", "operand_register", loop.window_steps * (plain * groups + array.digit_lanes))
    add("operand_registers", "operand_register", entries)
    add("accumulators", "sum_compressor" if saved else "sum_adder", sums * compressors)
    for part, count in (("sum_clear", 1 + saved), ("sum_register", 1), ("carry_register", int(saved)), ("select", 1 + saved)):
        add("accumulators", part, sums * count)
    if array.output_drain == "overlapped":
        add("result_registers", "sum_register", sums * (1 + saved))
    if saved:
        add("final_adders", "sum_adder", top.columns)
        add("final_adders", "sum_register", top.columns)
    return Bill(area, flipflops)


def product_energy(array: ArraySpec, digits: float, step_cycles: float) -> dict[str, float]:
    """Switching energy of one multiply-accumulate by component, relative to one of ``mac_int8`` on random operands.

    Args:
        digits: mean non-zero digits of a recoded operand; without a loop over digits, its Booth digits.
        step_cycles: mean cycles of a step.
    """
    top, loop = array.topology, array.bit_weight
    saved = array.accumulation == "carry_save"
    if loop is None:
        bits, _ = _tree_bits(top.depth, _PRODUCT_BITS)
        reads = 2.0 if top.name == "systolic" else 1 / top.columns + 1 / top.rows
        sums = _accumulator_energy("", saved, digits) / top.depth
        multiplier, tree = part_energy("multiplier", digits), part_energy("tree_adder", digits)
        if saved:  # two compressors a sum, and for each adder of a tree, whose energy stands for theirs
            sums += part_energy("sum_compressor", digits) / top.depth
            multiplier, tree = part_energy("half_multiplier", digits), 2 * tree
        return {
            "multipliers": multiplier,
            "adder_trees": tree * bits / _PRODUCT_BITS / top.depth,
            "operand_registers": reads * part_energy("operand_register", 3),
            "accumulators": sums,
        }
    bits, _ = _tree_bits(top.depth, _DIGIT_PRODUCT_BITS)
    # Sums of a tree change in every cycle of a step, those of one product with each of its digits.
    rate = step_cycles if top.depth > 1 else digits
    each = rate / max(digits, 1e-12) / top.depth
    uses = top.rows if loop.encoded_operand == "b" else top.columns
    source = _SOURCES[loop.encoding] + ("_shared" if loop.shared_weight and array.group_lanes > 1 else "")
    reads = 1 + DIGIT_BITS[loop.encoding] / 8 * digits if top.name == "systolic" else 1 / array.across
    queues = (1 / uses + top.depth / array.group_lanes) if loop.window_steps > 1 else 0.0
    return {
        "multipliers": part_energy("digit_product", digits),
        "adder_trees": part_energy("digit_tree_adder", digits) * bits / _DIGIT_PRODUCT_BITS / top.depth,
        "shifters": part_energy("shifter", digits) * each,
        "digit_sources": part_energy(source, digits) / uses,
        "operand_registers": reads * part_energy("operand_register", 3),
        "queues": queues * part_energy("operand_register", 3),
        "accumulators": _accumulator_energy("digit_", saved, digits) * each,
    }


def _accumulator_energy(prefix: str, saved: bool, digits: float) -> float:
    parts = (
        ["sum_compressor", "sum_clear", "sum_register", "carry_register"] if saved else ["sum_adder", "sum_clear", "sum_register"]
    )
    return sum(part_energy(prefix + part, digits) for part in parts)


def result_energy(array: ArraySpec) -> float:
    """Switching energy of bringing one result out: through half the rows on average, and the final adder."""
    saved = array.accumulation == "carry_save"
    shifts = (array.topology.rows + 1) / 2 * (1 + saved)
    final = part_energy("sum_adder", 3) + part_energy("sum_register", 3) if saved else 0.0
    return shifts * part_energy("sum_register", 3) + final
