"""The spec of a convolution engine: what its YAML file may say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from hwsim.engine import EngineSpec
from hwsim.spec import Count, Fraction, MacFormat, NotNegative, SpecPart


class MultiplierArray(SpecPart):
    """The multipliers: in a cycle, ``atomic_channels`` input channels meet as many weights of each of ``atomic_kernels`` kernels.

    Attributes:
        multipliers: of 8 bits.
        atomic_channels: channels of a cycle (atomic-C); None makes the array as square as powers of two allow, with more channels
            than kernels.
        shortest_stripe_cycles: cycles that the weights of a stripe take to arrive, beside the stripe before.
        longest_stripe: output positions that the accumulators hold, so that weights serve as many.
        image_channels: a network's input of at most so many channels is packed: neighbouring columns share a cycle.
    """

    multipliers: Count
    atomic_channels: Count | None = None
    shortest_stripe_cycles: Count
    longest_stripe: Count
    image_channels: Count

    @property
    def channels(self) -> int:
        """Atomic-C."""
        if self.atomic_channels is not None:
            return self.atomic_channels
        return min(self.multipliers, int(1 << -(-(self.multipliers.bit_length() - 1) // 2)))

    @property
    def kernels(self) -> int:
        """Atomic-K."""
        return self.multipliers // self.channels

    @model_validator(mode="after")
    def _whole(self) -> MultiplierArray:
        if self.multipliers % self.channels:
            raise ValueError(
                f"multipliers: expected a multiple of {self.channels} channels (atomic_channels), got {self.multipliers}"
            )
        return self


class ConvolutionBuffer(SpecPart):
    """The buffer of input features and weights.

    Attributes:
        capacity_bytes: of all its banks.
        usable_fraction: share of it that the features and weights being worked on may take; the rest is what is being filled.
        energy_pj_per_byte: of one byte read or written.
    """

    capacity_bytes: Count
    usable_fraction: Fraction
    energy_pj_per_byte: NotNegative

    @property
    def usable_bytes(self) -> float:
        """Bytes for the features and weights being worked on."""
        return self.capacity_bytes * self.usable_fraction


class ConvolutionEngineSpec(EngineSpec):
    """A convolution engine with its buffers, memory and post-processors.

    Attributes:
        kind: ``convolution_engine``.
        clock_hz: clock of all parts.
        mac_array: the multipliers.
        mac_formats: ``"int8"`` → energy of a MAC, and how many multipliers of 8 bits it takes (``cycles_per_mac``).
        convolution_buffer: features and weights.
        buffer: the line buffers of the post-processors.
        vector_unit: the post-processors: point by point, planar (pooling), across channels.
    """

    kind: Literal["convolution_engine"]
    mac_array: MultiplierArray
    mac_formats: Mapping[str, MacFormat] = Field(min_length=1)
    convolution_buffer: ConvolutionBuffer

    @model_validator(mode="after")
    def _keeps_nothing(self) -> ConvolutionEngineSpec:
        if self.buffer.retained_capacity_bytes:
            raise ValueError("buffer.retained_capacity_bytes: expected 0, a convolution engine keeps nothing between layers")
        return self
