"""The spec of an engine for binary neural networks: what its YAML file may say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from hwsim.engine import EngineSpec
from hwsim.memory import Scratchpad
from hwsim.spec import Count, MacFormat, NaturalNumber, NotNegative, Positive, SpecPart

BINARY = "binary"
"""The format of ±1 values, one bit each."""


class ThresholdPe(SpecPart):
    """Processing elements made of programmable threshold cells, all of which do the same instructions on other bits.

    Attributes:
        style: ``threshold``.
        count: processing elements.
        cells: of each.
        cell_inputs: literals that a cell takes a cycle.
        register_bits: local memory of each, for the sums of a node.
        instruction_energy_pj: a cycle of a cell.
        register_energy_pj_per_bit: a bit read from or written to the local memory.
        logic_area_mac_int8: area of one without its memory, in units of the RTL unit ``mac_int8``, for comparisons.
    """

    style: Literal["threshold"]
    count: Count
    cells: Count
    cell_inputs: Annotated[Count, Field(ge=3)]
    register_bits: Count
    instruction_energy_pj: NotNegative
    register_energy_pj_per_bit: NotNegative
    logic_area_mac_int8: Positive


class PopcountPe(SpecPart):
    """Processing elements that multiply and count several products of ±1 a cycle, add the count to a sum and compare it last.

    Attributes:
        style: ``popcount_mac``.
        count: processing elements.
        products_per_cycle: products of each.
        product_energy_pj: a product with its share of the count.
        accumulate_energy_pj: an addition to the sum, and the comparison.
        compare_cycles: cycles at the end of a node.
        logic_area_mac_int8: area of one, in units of the RTL unit ``mac_int8``, for comparisons.
    """

    style: Literal["popcount_mac"]
    count: Count
    products_per_cycle: Count
    product_energy_pj: NotNegative
    accumulate_energy_pj: NotNegative
    logic_area_mac_int8: Positive
    compare_cycles: NaturalNumber = 1


class BinarySpec(EngineSpec):
    """A BNN engine: binary layers on its processing elements, all others on a few integer MACs.

    Attributes:
        kind: ``binary_engine``.
        pe: the processing elements.
        integer_macs: MAC units for layers whose formats are not both ``binary``.
        mac_formats: formats of the integer MACs; products of two ``binary`` operands are those of ``pe`` and not among them.
        operands: memory that holds the operands of the engine.
    """

    kind: Literal["binary_engine"]
    pe: Annotated[ThresholdPe | PopcountPe, Field(discriminator="style")]
    integer_macs: Count
    mac_formats: Mapping[str, MacFormat] = Field(min_length=1)
    operands: Scratchpad

    @model_validator(mode="after")
    def _binary_on_elements(self) -> BinarySpec:
        if self.operands.retained_capacity_bytes:
            raise ValueError("operands.retained_capacity_bytes: only the buffer retains tensors; expected 0")
        if BINARY in self.mac_formats:
            raise ValueError("mac_formats.binary: products of two binary operands are those of pe; leave it out")
        return self

    def mac_format(self, a: str, b: str) -> MacFormat | Literal["pe"] | None:
        """What a product takes: an integer MAC, ``pe`` for two binary operands, None for what the engine lacks."""
        return "pe" if a == b == BINARY else super().mac_format(a, b)
