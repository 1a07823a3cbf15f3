"""Layers on single-instruction processing elements: outputs at a time, how often operands are read, cycles."""

from __future__ import annotations

from dataclasses import dataclass

from accelerators.binary.node_program import NodeProgram, node_program
from accelerators.binary.spec import PopcountPe, ThresholdPe
from hwsim.views.display import displayed


@displayed
@dataclass(frozen=True)
class NodeCost:
    """What one output of ``k`` products takes on one unit.

    Attributes:
        cycles: of the unit.
        energy_pj: component → energy.
    """

    cycles: int
    energy_pj: dict[str, float]


@displayed
@dataclass(frozen=True)
class Layer:
    """A layer on units that all work on one wave of outputs: ``rows`` × ``columns`` of the result at a time.

    Attributes:
        rows, columns: of a wave; a unit has one output of it.
        waves: that follow one another.
        unit_cycles: of the units, waves × cycles of a node.
        operand_bits: read from the operands' memory: a row's operand serves all its columns, and the other way round.
    """

    rows: int
    columns: int
    waves: int
    unit_cycles: int
    operand_bits: int


def program_of(pe: ThresholdPe, k: int) -> NodeProgram:
    """The program of a node of ``k`` inputs on these processing elements."""
    return node_program(k, cell_inputs=pe.cell_inputs, cells=pe.cells, register_bits=pe.register_bits)


def binary_node(pe: ThresholdPe | PopcountPe, k: int) -> NodeCost:
    """A node of ``k`` products of ±1."""
    if isinstance(pe, ThresholdPe):
        program = program_of(pe, k)
        registers = program.register_accesses * pe.register_energy_pj_per_bit
        return NodeCost(program.cycles, {"cells": program.instructions * pe.instruction_energy_pj, "registers": registers})
    counting = -(-k // pe.products_per_cycle)
    energy = {"products": k * pe.product_energy_pj, "accumulate": (counting + 1) * pe.accumulate_energy_pj}
    return NodeCost(counting + pe.compare_cycles, energy)


def place_layer(
    batch: int, m: int, n: int, k: int, *, units: int, node_cycles: int, bits: tuple[int, int], bits_per_cycle: float
) -> Layer:
    """The wave with the least cycles, of those whose columns are powers of two (and among equals the one that reads least).

    Args:
        batch, m, n, k: sizes of the product.
        units: that work side by side.
        node_cycles: cycles of one output.
        bits: bits of an element of the two operands.
        bits_per_cycle: that the operands' memory delivers.
    """
    found = []
    columns = 1
    while columns <= units:
        rows = units // columns
        across, down = -(-n // columns), -(-m // rows)
        waves = batch * across * down
        read = batch * k * (across * m * bits[0] + down * n * bits[1])
        found.append(Layer(rows, columns, waves, waves * node_cycles, read))
        columns *= 2
    return min(found, key=lambda each: (max(each.unit_cycles, each.operand_bits / bits_per_cycle), each.operand_bits))
