"""Process nodes: what a gate, a bit of SRAM and a wafer are at each, from ``hwsim/data/process_nodes.csv``."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources
from numbers import Real

from hwsim.views.display import displaying
from numerics.errors import InputError, unknown_name


@dataclass(frozen=True)
class Figure:
    """A sourced number: a row of ``process_nodes.csv`` or of ``area_figures.csv``, whose basis is ``published``, ``guess`` or
    ``fitted``."""

    value: float
    basis: str
    source: str


def data_rows(name: str) -> Iterator[Mapping[str, str]]:
    """Rows of a file of ``hwsim/data``, without its head."""
    text = resources.files("hwsim").joinpath(f"data/{name}.csv").read_text(encoding="utf-8")
    yield from csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))


@cache
def figures() -> Mapping[str, Figure]:
    """Rows of ``area_figures.csv`` by name."""
    return {row["name"]: Figure(float(row["value"]), row["basis"], row["source"]) for row in data_rows("area_figures")}


@cache
def node_figures() -> Mapping[str, Mapping[float, Figure]]:
    """Quantity of ``process_nodes.csv`` → node in nm, finest first → figure."""
    found: dict[str, dict[float, Figure]] = {}
    for row in data_rows("process_nodes"):
        basis = "guess" if row["source"] == "guess" else "published"
        found.setdefault(row["quantity"], {})[float(row["node_nm"])] = Figure(float(row["value"]), basis, row["source"])
    return {quantity: dict(sorted(by_node.items())) for quantity, by_node in found.items()}


def at_node(quantity: str, node_nm: float) -> float:
    """A quantity at a node, on a straight line of the logarithms between its neighbours in the table.

    Raises:
        InputError: no such quantity; a node outside of those it is known at.
    """
    table = node_figures()
    if quantity not in table:
        raise unknown_name("quantity", quantity, table)
    nodes = list(table[quantity])
    if not nodes[0] <= node_nm <= nodes[-1]:
        raise InputError(f"node: {quantity} is known from {nodes[0]:g} to {nodes[-1]:g} nm, got {node_nm!r}")
    if node_nm in table[quantity]:
        return table[quantity][node_nm].value
    above = next(i for i, node in enumerate(nodes) if node > node_nm)
    (low, a), (high, b) = ((nodes[i], table[quantity][nodes[i]].value) for i in (above - 1, above))
    share = math.log(node_nm / low) / math.log(high / low)
    return float(a ** (1 - share) * b**share)


def process_nodes() -> tuple[float, ...]:
    """Nodes of the table in nm, finest first; others between them are interpolated."""
    return tuple(node_figures()["logic_area"])


@displaying("mac_um2", "macro_um2_per_bit")
@dataclass(frozen=True)
class Process:
    """A process, and areas of logic and memory in it.

    Two factors turn cells into blocks, registers, wires, control and all; both are fitted to one published floorplan, that of
    Gemmini (Genc et al., DAC 2021): its 16×16 array over 256 bare multiply-accumulates, and its scratchpad over a macro of as
    many bits.

    Attributes:
        node_nm: the node.
    """

    node_nm: float

    @cached_property
    def mac_um2(self) -> float:
        """Cells of an int8 multiplier and a 32-bit adder, which stand for the RTL's ``mac_int8``."""
        known = figures()
        return (known["multiply_int8_um2"].value + known["add_int32_um2"].value) * at_node("logic_area", self.node_nm)

    @cached_property
    def macro_um2_per_bit(self) -> float:
        """A bit of a large SRAM macro."""
        efficiency = [figure.value for figure in node_figures()["sram_efficiency"].values()]
        return at_node("sram_cell_um2", self.node_nm) * len(efficiency) / sum(efficiency)

    def logic_mm2(self, relative: float) -> float:
        """A block of datapaths whose cells are ``relative`` times those of a ``mac_int8``."""
        return relative * self.mac_um2 * logic_overhead() * 1e-6

    def gates_mm2(self, kilo_gates: float) -> float:
        """A synthesised core of so many thousand gate equivalents, registers and control among them, placed."""
        known = figures()
        cells = kilo_gates * 1e3 * known["nand2_um2"].value * at_node("logic_area", self.node_nm)
        return cells / known["placed_share"].value * 1e-6

    def flipflops_mm2(self, bits: float) -> float:
        """A memory of flip-flops."""
        return self.logic_mm2(bits * figures()["flipflop_relative"].value)

    def sram_mm2(self, bytes: float) -> float:
        """A buffer of so many bytes, its macros and what surrounds them."""
        return 8 * bytes * self.macro_um2_per_bit * sram_overhead() * 1e-6


_process = cache(Process)


def get_process(node_nm: float) -> Process:
    """The process of a node.

    Raises:
        InputError: not a number from 3 to 130.
    """
    if isinstance(node_nm, bool) or not isinstance(node_nm, Real) or not math.isfinite(node_nm):
        raise InputError(f"node: expected nanometres, got {node_nm!r}")
    finest, coarsest = process_nodes()[0], process_nodes()[-1]
    if not finest <= node_nm <= coarsest:
        raise InputError(f"node: expected {finest:g} to {coarsest:g} nm, got {node_nm:g}")
    return _process(float(node_nm))


@cache
def logic_overhead() -> float:
    """Area of a processing element over that of its bare multiply-accumulate: fitted to Gemmini's array."""
    known = figures()
    process = Process(known["gemmini_node_nm"].value)
    return known["gemmini_array_um2"].value / (known["gemmini_elements"].value * process.mac_um2)


@cache
def sram_overhead() -> float:
    """Area of a buffer over that of a large macro of as many bits: fitted to Gemmini's scratchpad."""
    known = figures()
    process = Process(known["gemmini_node_nm"].value)
    return known["gemmini_scratchpad_um2"].value / (8 * known["gemmini_scratchpad_bytes"].value * process.macro_um2_per_bit)
