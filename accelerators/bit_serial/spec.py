"""The spec of a tensor processing engine: what its YAML file may say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, field_validator, model_validator

from accelerators.bit_serial.distributions import GAUSSIAN_SAMPLES
from accelerators.bit_serial.encodings import EncodingName
from hwsim.engine import EngineSpec
from hwsim.spec import Count, Positive, SpecPart
from numerics.formats import IntFormat, get_format

TopologyName = Literal["systolic", "cube", "adder_tree", "matrix_2d"]
TOPOLOGIES: tuple[TopologyName, ...] = ("systolic", "cube", "adder_tree", "matrix_2d")


class Topology(SpecPart):
    """How multipliers are laid out over the loops of C[m, n] = Σ_k A[m, k] · B[k, n].

    Attributes:
        name: ``systolic``: rows × columns of elements, operands pass from one to the next; ``matrix_2d``: the same, operands
            broadcast along rows and columns; ``cube``: rows × columns of adder trees, ``depth`` multipliers under each;
            ``adder_tree``: one row of them.
        rows: results of neighbouring m at a time.
        columns: results of neighbouring n at a time.
        depth: products of neighbouring k that are added at a time.
    """

    name: TopologyName
    rows: Count
    columns: Count
    depth: Count = 1

    @model_validator(mode="after")
    def _shape_of_the_topology(self) -> Topology:
        if self.name in ("systolic", "matrix_2d") and self.depth != 1:
            raise ValueError(f"depth: an element of topology {self.name!r} has one multiplier, expected 1, got {self.depth}")
        if self.name == "adder_tree" and self.rows != 1:
            raise ValueError(f"rows: topology 'adder_tree' has one row of trees, expected 1, got {self.rows}")
        return self

    @property
    def multipliers(self) -> int:
        """Products that are made at a time."""
        return self.rows * self.columns * self.depth


class BitWeightLoop(SpecPart):
    """The loop over the digits of one operand, taken out of the multiplier: one digit a cycle, digits of 0 skipped.

    Attributes:
        encoding: how the operand is written as digits: ``booth``, ``naf`` or ``sign_magnitude``.
        encoded_operand: ``a`` or ``b``, the first or the second operand of a product (feature maps or weights).
        lockstep_lanes: different digits' streams that take their operands together; all of the engine's where it is left out.
        shared_weight: the lanes of a group are at the same bit weight, so that one shift serves those that are summed.
        window_steps: operands after which the groups wait for one another; more than 1 needs queues of as many.
    """

    encoding: EncodingName = "booth"
    encoded_operand: Literal["a", "b"] = "b"
    lockstep_lanes: Count | None = None
    shared_weight: bool = False
    window_steps: int = Field(default=1, ge=1, le=1024, strict=True)


class ArraySpec(SpecPart):
    """The array.

    Attributes:
        topology: its layout.
        accumulation: ``carry_propagate``: an adder in each accumulator; ``carry_save``: sums as two numbers, added once as they
            leave.
        output_drain: ``serial``: sums are shifted out of the accumulators before the next ones begin; ``overlapped``: they move
            to registers of their own first.
        bit_weight: the loop over digits; whole multipliers without it.
    """

    topology: Topology
    accumulation: Literal["carry_propagate", "carry_save"] = "carry_propagate"
    output_drain: Literal["serial", "overlapped"] = "serial"
    bit_weight: BitWeightLoop | None = None

    @model_validator(mode="after")
    def _groups_fit(self) -> ArraySpec:
        loop, depth = self.bit_weight, self.topology.depth
        if loop is None:
            return self
        if depth > 1 and not loop.shared_weight:
            raise ValueError(f"bit_weight.shared_weight: one shift stands behind each tree of {depth} products, expected true")
        if self.group_lanes % depth or self.digit_lanes % self.group_lanes:
            raise ValueError(
                f"bit_weight.lockstep_lanes: expected whole trees of {depth} that divide {self.digit_lanes} lanes, "
                f"got {self.group_lanes}"
            )
        return self

    @property
    def across(self) -> int:
        """Rows or columns whose operands are recoded side by side; 1 without a loop over digits."""
        if self.bit_weight is None:
            return 1
        return self.topology.columns if self.bit_weight.encoded_operand == "b" else self.topology.rows

    @property
    def digit_lanes(self) -> int:
        """Different operands that are recoded at a time."""
        return self.across * self.topology.depth

    @property
    def group_lanes(self) -> int:
        """Of them, those that take their operands together."""
        loop = self.bit_weight
        return self.digit_lanes if loop is None or loop.lockstep_lanes is None else loop.lockstep_lanes


class Distribution(SpecPart):
    """What the recoded operands are taken to be where their values are not given.

    Attributes:
        name: ``uniform`` over all codes or ``gaussian``, scaled to the largest of ``samples`` numbers.
        samples: of the tensor that the scale belongs to.
    """

    name: Literal["uniform", "gaussian"] = "gaussian"
    samples: Count = GAUSSIAN_SAMPLES


class Prices(SpecPart):
    """What the relative figures of ``parts.csv`` are multiplied by.

    Attributes:
        mac_int8_energy_pj: energy of a multiply-accumulate of the library's ``mac_int8`` on random operands.
        mac_int8_area_um2: its area.
    """

    mac_int8_energy_pj: Positive
    mac_int8_area_um2: Positive


class IntegerMac(SpecPart):
    """A pair of signed integer formats of at most 8 bits; how long a product takes follows from the digits."""


class TensorEngineSpec(EngineSpec):
    """A tensor processing engine with its buffer, memory and vector unit.

    Attributes:
        kind: ``tensor_processing_engine``.
        array: the multipliers and their loops.
        mac_formats: ``"int8"`` (both operands) or ``"int4*int8"`` → nothing further.
        operands: distribution of recoded operands.
        prices: energy and area of one unit of the relative figures.
    """

    kind: Literal["tensor_processing_engine"]
    array: ArraySpec
    mac_formats: Mapping[str, IntegerMac] = Field(min_length=1)
    operands: Distribution = Distribution()
    prices: Prices

    @field_validator("mac_formats")
    @classmethod
    def _integers(cls, value: Mapping[str, IntegerMac]) -> Mapping[str, IntegerMac]:
        for key in value:
            for name in key.split("*"):
                fmt = get_format(name)
                if not isinstance(fmt, IntFormat) or not fmt.signed or not 2 <= fmt.bits <= 8:
                    raise ValueError(f"{key!r}: expected signed integers of 2 to 8 bits, got {name!r}")
        return value
