"""The spec of a systolic array: what its YAML file may say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from hwsim.memory import MemorySystem
from hwsim.spec import Count, Fraction, MatrixMachineSpec, NotNegative, Positive, SpecPart
from hwsim.vector import VectorUnit

DATAFLOWS = {
    "ws": "weight_stationary",
    "os": "output_stationary",
    "is": "input_stationary",
}
"""Short names of the dataflows."""

Dataflow = Annotated[
    Literal["weight_stationary", "output_stationary", "input_stationary"],
    BeforeValidator(lambda value: DATAFLOWS.get(value, value) if isinstance(value, str) else value),
]


class Timing(SpecPart):
    """How folds follow one another in the array.

    Attributes:
        fold_overlap: ``none``: a fold starts when the one before has left the array; ``weights``: the next fold's stationary
            operand is loaded meanwhile; ``full``: its operands also stream right behind. Output-stationary arrays load nothing
            beforehand, so that ``weights`` is ``none`` for them.
        output_drain: ``hidden``: results leave beside the computation; ``shift``: an output-stationary array shifts them out
            row by row afterwards. In the other dataflows results leave at the bottom and the field has no effect.
        mac_latency_cycles: cycles from a processing element's operands to its sum.
    """

    fold_overlap: Literal["none", "weights", "full"] = "none"
    output_drain: Literal["hidden", "shift"] = "hidden"
    mac_latency_cycles: Count = 1


TIMINGS: Mapping[str, Timing] = {
    "scale_sim": Timing(fold_overlap="none", output_drain="hidden"),
    "double_buffered": Timing(fold_overlap="weights", output_drain="hidden"),
    "back_to_back": Timing(fold_overlap="full", output_drain="hidden"),
    "rtl": Timing(fold_overlap="full", output_drain="shift"),
}
"""Named settings. ``scale_sim`` is the array that SCALE-Sim models, ``rtl`` that of ``systolic_ws`` and ``systolic_os``."""


class ArraySpec(SpecPart):
    """The array of processing elements, or several equal ones that share the work of an operator.

    Attributes:
        rows, columns: size. Weight-stationary: k along rows, n along columns; output-stationary: m along rows, n along
            columns; input-stationary: k along rows, m along columns.
        dataflow: which operand stays in the array (``ws``, ``os``, ``is`` for short).
        timing: how folds follow one another; a name of ``TIMINGS`` or its fields.
        group_packing: ``block_diagonal`` lays several small groups (of a depthwise convolution, of a batch) into one fold,
            with zeros between them; ``none`` gives each a fold of its own.
        count: arrays. They share the folds of an operator and, where what stays allows it, the stream of each fold.
        streaming_fraction: share of the cycles of streaming in which an array takes operands.
    """

    rows: Count
    columns: Count
    dataflow: Dataflow
    timing: Timing = Timing()
    group_packing: Literal["none", "block_diagonal"] = "none"
    count: Count = 1
    streaming_fraction: Fraction = 1.0

    @field_validator("timing", mode="before")
    @classmethod
    def _named_timing(cls, value: Any) -> Any:
        if isinstance(value, str):
            if value not in TIMINGS:
                raise ValueError(f"unknown timing {value!r}; known: {', '.join(TIMINGS)}")
            return TIMINGS[value]
        return value

    @property
    def places(self) -> int:
        """Processing elements of all arrays."""
        return self.count * self.rows * self.columns


class ArrayMac(SpecPart):
    """What a multiply-accumulate in one pair of formats takes.

    Attributes:
        cycles_per_mac: cycles a processing element is taken; below one where it makes several in a cycle.
        energy_pj: energy of one.
    """

    cycles_per_mac: Positive = 1
    energy_pj: NotNegative


class KernelWindows(SpecPart):
    """How the kernels of a compiler move an operator's data, where no search over mappings stands for it.

    Every core waits for its first window of both operands, loads the rest beside the computation, and writes the results at
    the end (``accelerators.systolic.windows``).

    Attributes:
        cores: groups of arrays with memories of their own. They share the columns, rows or products of an operator, and each
            reads the whole of the operand that the division does not touch.
        window: elements along m and along k of the first window; it spans all columns of n.
        store_fraction: share of the off-chip bandwidth that results reach on their way out.
    """

    cores: Count = 1
    window: Positive
    store_fraction: Fraction = 1.0


class HostLink(SpecPart):
    """The way of a workload's inputs and outputs where they do not go through off-chip memory.

    Attributes:
        link_bytes_per_s: bytes a second, in either direction.
        link_latency_s: of a transfer.
        link_pj_per_byte: of a byte moved.
    """

    link_bytes_per_s: Positive
    link_latency_s: NotNegative
    link_pj_per_byte: NotNegative


class SystolicSpec(MatrixMachineSpec):
    """A systolic array with its buffers, memory and vector unit.

    Attributes:
        kind: ``systolic_array``.
        clock_hz: clock of array, buffers and vector unit.
        array: the processing elements.
        mac_formats: ``"int8"`` (both operands) or ``"bf16*int8"`` → what a MAC takes.
        memory: buffers and off-chip memory.
        vector_unit: for everything that is no matrix product.
        launch_overhead_cycles: fixed cycles to start an operator (a group of operators that run together).
        kernel: how a compiler's kernels move data; none where the fastest mapping is searched for.
        host_link: where inputs come from and outputs go; none where both lie in off-chip memory.
    """

    kind: Literal["systolic_array"]
    array: ArraySpec
    mac_formats: Mapping[str, ArrayMac] = Field(min_length=1)
    memory: MemorySystem
    vector_unit: VectorUnit
    launch_overhead_cycles: NotNegative = 0.0
    kernel: KernelWindows | None = None
    host_link: HostLink | None = None

    @model_validator(mode="after")
    def _cores_share_arrays(self) -> SystolicSpec:
        if self.kernel is not None and self.array.count % self.kernel.cores:
            raise ValueError(f"kernel.cores: expected a divisor of array.count ({self.array.count}), got {self.kernel.cores}")
        return self
