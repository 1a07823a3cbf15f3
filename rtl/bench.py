"""What a bench is: the ports of a unit, stimulus for every cycle, and what the unit's model says its outputs are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from hwsim.views.display import displayed, displaying
from numerics.errors import InputError

Values = Mapping[str, npt.NDArray[Any]]
"""By port: integers of shape (cycles,), or (cycles, lanes) for a port of several lanes. Negative ones stand for their two's
complement."""


@displaying("width")
@dataclass(frozen=True)
class Port:
    """A port of a unit.

    Attributes:
        name: in the SystemVerilog module.
        bits: of a lane, at most 64.
        lanes: lane 0 lies in the lowest bits.

    Raises:
        InputError: bits that are not 1 to 64, or less than a lane.
    """

    name: str
    bits: int = 1
    lanes: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 64:
            raise InputError(f"port {self.name}: expected 1 to 64 bits a lane, got {self.bits}; a wider word has several lanes")
        if self.lanes < 1:
            raise InputError(f"port {self.name}: expected a lane or more, got {self.lanes}")

    @property
    def width(self) -> int:
        """Bits of the port."""
        return self.bits * self.lanes


@displayed
@dataclass(frozen=True)
class Trace:
    """Stimulus of a run and what the model says to it.

    Cycle t of an input is what the unit sees before rising edge t; cycle t of an output is what it shows then, before the edge.

    Attributes:
        inputs: values of every input port but the clock.
        outputs: values that every output port must show.
        cases: how many cases it holds, in the bench's own terms (multiplications, folds, words).
        compared_from: first cycle that is compared; the ones before it reset the unit.
        marks: cycles that the bench needs to read its latencies off the recorded outputs.
    """

    inputs: Values
    outputs: Values
    cases: int
    compared_from: int = 0
    marks: Mapping[str, int] = field(default_factory=dict)


@displayed
@dataclass(frozen=True)
class Latency:
    """When a unit's results appear, as read off its recorded outputs.

    Attributes:
        fill_cycles: from the first operand to the first result that shows.
        cycles_per_operand: between successive results at full rate.
        drain_cycles: from the last operand to the last result.
        stall: what back-pressure does, in a few words.
    """

    fill_cycles: int
    cycles_per_operand: float
    drain_cycles: int
    stall: str


@displayed
class Bench(ABC):
    """How one unit is tested. Benches are stateless; parameters are those of the SystemVerilog module."""

    unit: ClassVar[str]
    """Name of the module; its file is ``<unit>.sv``."""

    clock: ClassVar[str | None] = "clk_i"
    """The clock's port; None for a unit without registers."""

    uses: ClassVar[tuple[str, ...]] = ()
    """Other modules that the unit is built of."""

    def modules(self, parameters: Mapping[str, int]) -> tuple[str, ...]:
        """All modules of a configuration, the unit last."""
        return (*self.uses, self.unit)

    @abstractmethod
    def inputs(self, parameters: Mapping[str, int]) -> tuple[Port, ...]:
        """Input ports without the clock."""

    @abstractmethod
    def outputs(self, parameters: Mapping[str, int]) -> tuple[Port, ...]:
        """Output ports."""

    @abstractmethod
    def trace(self, parameters: Mapping[str, int], cases: int, rng: np.random.Generator) -> Trace:
        """Stimulus: all that is exhaustive, and ``cases`` random cases or more; with the model's answer."""

    @abstractmethod
    def latency(self, parameters: Mapping[str, int], trace: Trace, observed: Values) -> Latency:
        """The unit's latency, read off what it showed."""


# --- bits of a trace ------------------------------------------------------------------------------------------------------


def to_bits(ports: tuple[Port, ...], values: Values) -> npt.NDArray[np.uint8]:
    """The ports side by side, the first in the highest bits: (cycles, bits), highest bit first.

    Raises:
        ValueError: a port without values, or of another shape or width.
    """
    if set(values) != {port.name for port in ports}:
        raise ValueError(f"a trace has ports {sorted(values)}, its unit {sorted(port.name for port in ports)}")
    columns = []
    for port in ports:
        array = np.asarray(values[port.name])
        array = array.reshape(array.shape[0], -1)
        if array.shape[1] != port.lanes:
            raise ValueError(f"port {port.name}: expected {port.lanes} lanes, got {array.shape[1]}")
        if array.size and port.bits < 64 and not (-(1 << (port.bits - 1)) <= array.min() and array.max() < 1 << port.bits):
            raise ValueError(f"port {port.name}: a value does not fit {port.bits} bits")
        words = array.astype(np.uint64 if array.dtype.kind == "u" else np.int64).astype(np.uint64)
        bytes_ = np.ascontiguousarray(words[:, ::-1].astype(">u8")).view(np.uint8).reshape(array.shape[0], port.lanes, 8)
        bits = np.unpackbits(bytes_, axis=2)[:, :, 64 - port.bits :]
        columns.append(bits.reshape(array.shape[0], port.width))
    return np.concatenate(columns, axis=1)


def to_hex(bits: npt.NDArray[np.uint8]) -> str:
    """Lines of hexadecimal digits, one a cycle."""
    cycles, width = bits.shape
    padded = np.zeros((cycles, -(-width // 4) * 4), np.uint8)
    padded[:, padded.shape[1] - width :] = bits
    digits = np.packbits(padded.reshape(cycles, -1, 4), axis=2)[:, :, 0] >> 4
    text = np.frombuffer(b"0123456789abcdef", np.uint8)[digits]
    return np.concatenate([text, np.full((cycles, 1), ord("\n"), np.uint8)], axis=1).tobytes().decode()


def from_binary(text: bytes, width: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Bits (cycles, width) of lines of binary digits, and which are known: an x or z is not, and reads as 0.

    Raises:
        ValueError: a line of another length.
    """
    raw = np.frombuffer(text, np.uint8)
    if raw.size % (width + 1) or (raw[width :: width + 1] != ord("\n")).any():
        raise ValueError(f"expected lines of {width} binary digits, got {text[:80]!r} …")
    digits = raw.reshape(-1, width + 1)[:, :width]
    bits = (digits == ord("1")).astype(np.uint8)
    return bits, (bits == 1) | (digits == ord("0"))


def from_bits(ports: tuple[Port, ...], bits: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.uint64]]:
    """The ports' values, the inverse of ``to_bits``: (cycles,) or (cycles, lanes), unsigned."""
    found = {}
    at = 0
    for port in ports:
        part = bits[:, at : at + port.width].reshape(bits.shape[0], port.lanes, port.bits)
        wide = np.zeros((bits.shape[0], port.lanes, 64), np.uint8)
        wide[:, :, 64 - port.bits :] = part
        words = np.packbits(wide, axis=2).view(">u8")[:, ::-1, 0].astype(np.uint64)
        found[port.name] = words[:, 0] if port.lanes == 1 else words
        at += port.width
    return found
