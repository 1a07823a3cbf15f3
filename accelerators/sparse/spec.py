"""The spec of a sparse engine: what its YAML file may say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from hwsim.engine import EngineSpec
from hwsim.memory import Scratchpad
from hwsim.spec import Count, MacFormat, NotNegative, SpecPart

Storage = Literal["dense", "csr", "n_m"]
Skip = Literal["none", "weights", "activations", "both"]
Density = Annotated[float, Field(ge=0, le=1, strict=True)]


class LaneSpec(SpecPart):
    """The processing elements.

    Attributes:
        count: lanes; each works on a row of the weight matrix (an output) of its own.
        width: multiply-accumulates of a lane a cycle: one weight with as many rows of activations.
        barrier: ``row``: all lanes wait for the slowest after every row; ``tile``: after all rows of a tile of activations.
        row_cycles: cycles to begin a compressed row (its pointers).
    """

    count: Count
    width: Count
    barrier: Literal["row", "tile"] = "row"
    row_cycles: NotNegative = 0.0


class Block(SpecPart):
    """What is skipped or stored as one.

    Attributes:
        outputs: rows of the weight matrix; its lanes go through the row together.
        inputs: neighbours along the sum.
    """

    outputs: Count = 1
    inputs: Count = 1


class Sparsity(SpecPart):
    """How weights are stored, and what is skipped.

    Attributes:
        weights: ``dense``; ``csr``: blocks that are not all zero, with a column index each and a pointer a row of blocks;
            ``n_m``: of every ``m`` neighbours along the sum at most ``n``, each with its place.
        n, m: of ``n_m``.
        index_bits: of a column index of ``csr``.
        pointer_bits: of a row pointer of ``csr``.
        skip: operands whose zeros take no cycle. Compressed weights that are not skipped are unpacked before the lanes.
        block: what must be zero to be skipped; a block of activations has the lane's width and ``block.inputs``.
        decode_cycles_per_block: cycles of a lane to find the operands of a stored block, beside its multiply-accumulates.
        decode_energy_pj_per_block: energy of that.
        dense_fallback: weights lie as ``dense`` where that takes no longer. Those with a density above n/m always do in ``n_m``.
        weight_density, activation_density: where given, in place of what the workload's tensors say.
    """

    weights: Storage = "dense"
    n: Count = 2
    m: Count = 4
    index_bits: Count = 8
    pointer_bits: Count = 32
    skip: Skip = "none"
    block: Block = Block()
    decode_cycles_per_block: NotNegative = 0.0
    decode_energy_pj_per_block: NotNegative = 0.0
    dense_fallback: bool = False
    weight_density: Density | None = None
    activation_density: Density | None = None

    @model_validator(mode="after")
    def _possible(self) -> Sparsity:
        if self.weights == "n_m":
            if self.n >= self.m:
                raise ValueError(f"n: expected less than m ({self.m}), got {self.n}")
            if (self.block.outputs, self.block.inputs) != (1, 1):
                raise ValueError("block: n_m keeps single values; expected outputs 1 and inputs 1")
        return self

    @property
    def skips_weights(self) -> bool:
        """Whether weights of 0 take no cycle."""
        return self.skip in ("weights", "both")

    @property
    def skips_activations(self) -> bool:
        """Whether activations of 0 take no cycle."""
        return self.skip in ("activations", "both")


class SparseSpec(EngineSpec):
    """A sparse engine.

    Attributes:
        kind: ``sparse_engine``.
        lanes: the processing elements.
        sparsity: how weights are stored, and what is skipped.
        mac_formats: ``"int8"`` (both operands) or ``"bf16*int8"`` → what a multiply-accumulate takes.
        operands: memory that holds the operands of the lanes.
    """

    kind: Literal["sparse_engine"]
    lanes: LaneSpec
    sparsity: Sparsity
    mac_formats: Mapping[str, MacFormat] = Field(min_length=1)
    operands: Scratchpad

    @model_validator(mode="after")
    def _only_buffer_retains(self) -> SparseSpec:
        if self.operands.retained_capacity_bytes:
            raise ValueError("operands.retained_capacity_bytes: only the buffer retains tensors; expected 0")
        return self
