"""Netlists of cells as yosys writes them, and a gate-level run that counts the toggles of every net.

Delays are zero: a net toggles at most once a cycle, so glitches are not counted.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.views.display import displayed
from rtl.bench import Port, Values, from_bits, to_bits
from rtl.synthesis.liberty import Cell, Expression, FlipFlop, InputPin, Library, OutputPin, parse_function

_ZERO, _ONE = 0, 1


def _generic(name: str, function: str) -> Cell:
    pins = [pin for pin in "ABS" if pin in function]
    return Cell(name, 0.0, {pin: InputPin(0.0) for pin in pins}, {"Y": OutputPin(parse_function(function))})


_FUNCTIONS = {
    "$_BUF_": "A", "$_NOT_": "!A", "$_AND_": "A & B", "$_NAND_": "!(A & B)", "$_OR_": "A | B", "$_NOR_": "!(A | B)",
    "$_XOR_": "A ^ B", "$_XNOR_": "!(A ^ B)", "$_ANDNOT_": "A & !B", "$_ORNOT_": "A | !B", "$_MUX_": "(!S & A) | (S & B)",
}  # fmt: skip

GENERIC = Library(
    "generic",
    0.0,
    {name: _generic(name, function) for name, function in _FUNCTIONS.items()}
    | {
        "$_DFF_P_": Cell(
            "$_DFF_P_",
            0.0,
            {"C": InputPin(0.0), "D": InputPin(0.0)},
            {"Q": OutputPin(("pin", "IQ"))},
            FlipFlop(("IQ", "IQN"), ("pin", "D"), "C"),
        )
    },
)
"""Yosys' own gates (``help -cells``, category gate), without area or energy."""


@displayed
@dataclass(frozen=True, eq=False)
class Netlist:
    """A flat netlist, compiled.

    Signals are the constants 0 and 1, the nets, the states of flip-flops, then parts of expressions; the first ``nets`` of them
    (constants included) are counted.

    Attributes:
        cells: how many of each kind.
        area: of all cells, in the library's unit.
        flipflops: how many.
        ports: signal of each bit of each port, lowest first.
        nets: signals that are constants or nets.
        program: rows of the two-input operations in order; see ``rtl.synthesis._kernels.run_cycles``.
        states, next_states: signals of the flip-flops.
        toggle_pj: (nets,), energy of a toggle of each net.
        clock_pj: energy of a cycle of the clock at the flip-flops' clock pins; of the tree to them, nothing.
    """

    cells: Mapping[str, int]
    area: float
    flipflops: int
    ports: Mapping[str, tuple[int, ...]]
    nets: int
    signals: int
    program: tuple[npt.NDArray[Any], ...]
    states: npt.NDArray[np.int64]
    next_states: npt.NDArray[np.int64]
    toggle_pj: npt.NDArray[np.float64]
    clock_pj: float


def read_netlist(text: str, library: Library, *, clock: str | None) -> Netlist:
    """The top module of what ``write_json`` wrote.

    Args:
        text: JSON.
        library: of its cells.
        clock: port at the clock pins of all flip-flops.

    Raises:
        RuntimeError: a cell that the library lacks, a flip-flop on another clock, a net with no driver or two, a loop.
    """
    modules = json.loads(text)["modules"]
    module = next((m for m in modules.values() if int(m["attributes"].get("top", "0"), 2)), None)
    if module is None:
        raise RuntimeError("the netlist has no top module")
    return _Compiler(module, library, clock).netlist()


class _Compiler:
    """Turns cells into two-input operations in an order in which each one's operands are known."""

    def __init__(self, module: Mapping[str, Any], library: Library, clock: str | None) -> None:
        self.library = library
        self.module = module
        self.cells = [(library.cells.get(c["type"]), c) for c in module["cells"].values()]
        for cell, found in self.cells:
            if cell is None:
                raise RuntimeError(f"the netlist has a cell {found['type']!r}, which {library.name} lacks or is not simulated")
        bits = {bit for port in module["ports"].values() for bit in port["bits"] if isinstance(bit, int)}
        bits |= {b for _, c in self.cells for pins in c["connections"].values() for b in pins if isinstance(b, int)}
        # What is undefined is 0, like an unconnected pin.
        self.signal: dict[int | str, int] = {"0": _ZERO, "1": _ONE, "x": _ZERO, "z": _ZERO}
        self.signal |= {bit: 2 + i for i, bit in enumerate(sorted(bits))}
        self.nets = 2 + len(bits)
        self.signals = self.nets
        self.rows: list[tuple[bool, int, int, bool, bool, bool, int]] = []
        self.clock = None if clock is None else module["ports"][clock]["bits"][0]

    def netlist(self) -> Netlist:
        driver: dict[int, tuple[int, str]] = {}
        loads: dict[int, list[InputPin]] = {}
        for index, (cell, found) in enumerate(self.cells):
            assert cell is not None
            for pin, connection in found["connections"].items():
                (bit,) = connection
                signal = self.signal[bit]
                if pin in cell.outputs:
                    if signal in driver or signal < 2:
                        raise RuntimeError(f"net {bit} of the netlist has two drivers")
                    driver[signal] = (index, pin)
                elif cell.flipflop is None or pin != cell.flipflop.clock:
                    loads.setdefault(signal, []).append(cell.inputs[pin])
                elif bit != self.clock:
                    raise RuntimeError(f"a flip-flop of the netlist has the clock {bit}, the unit's is {self.clock}")
        inputs = {self.signal[b] for p in self.module["ports"].values() if p["direction"] == "input" for b in p["bits"]}
        states, next_states = [], []
        pins_of = [{pin: self.signal[bits[0]] for pin, bits in found["connections"].items()} for _, found in self.cells]
        for index, (cell, _) in enumerate(self.cells):
            if cell is not None and cell.flipflop is not None:
                state, inverse = cell.flipflop.states
                states.append(self._new())
                pins_of[index][state] = states[-1]
                for pin, output in cell.outputs.items():
                    if pin in pins_of[index]:
                        function = _without(output.function, inverse, ("not", ("pin", state)))
                        self._write(function, pins_of[index], pins_of[index][pin])
        for index in self._order(driver, inputs):
            cell, _ = self.cells[index]
            assert cell is not None
            for pin, output in cell.outputs.items():
                if pin in pins_of[index]:
                    self._write(output.function, pins_of[index], pins_of[index][pin])
        for index, (cell, _) in enumerate(self.cells):
            if cell is not None and cell.flipflop is not None:
                next_states.append(self._new())
                self._write(cell.flipflop.next_state, pins_of[index], next_states[-1])
        energies = np.zeros(self.nets)
        for signal in set(driver) | set(loads):
            source: OutputPin | None = None
            if signal in driver:
                index, pin = driver[signal]
                cell = self.cells[index][0]
                assert cell is not None
                source = cell.outputs[pin]
            energies[signal] = self.library.toggle_pj(source, loads.get(signal, []))
        clocked = [c.inputs[c.flipflop.clock] for c, _ in self.cells if c is not None and c.flipflop is not None]
        columns = list(zip(*self.rows, strict=True)) if self.rows else [()] * 7
        masks = [np.where(np.array(column, bool), np.uint64(0xFFFFFFFFFFFFFFFF), np.uint64(0)) for column in columns[3:6]]
        program = (
            np.array(columns[0], bool),
            *(np.array(c, np.int64) for c in columns[1:3]),
            *masks,
            np.array(columns[6], np.int64),
        )
        return Netlist(
            dict(sorted(Counter(c.name for c, _ in self.cells if c is not None).items())),
            sum(c.area for c, _ in self.cells if c is not None),
            len(states),
            {n: tuple(self.signal[b] for b in p["bits"]) for n, p in self.module["ports"].items()},
            self.nets,
            self.signals,
            program,
            np.array(states, np.int64),
            np.array(next_states, np.int64),
            energies,
            2 * sum(self.library.toggle_pj(None, [pin]) for pin in clocked),  # it rises and falls
        )

    def _order(self, driver: Mapping[int, tuple[int, str]], inputs: set[int]) -> list[int]:
        """Combinational cells, each after those that drive it."""
        waiting, readers, ready = {}, {}, []  # type: ignore[var-annotated]
        for index, (cell, found) in enumerate(self.cells):
            assert cell is not None
            if cell.flipflop is not None:
                continue
            needed = set()
            for pin in cell.inputs:
                signal = self.signal[found["connections"][pin][0]]
                if signal in driver:
                    source = self.cells[driver[signal][0]][0]
                    if source is not None and source.flipflop is None:
                        needed.add(driver[signal][0])
                elif signal >= 2 and signal not in inputs:
                    raise RuntimeError(f"net {found['connections'][pin][0]} of the netlist has no driver")
            waiting[index] = len(needed)
            for source_index in needed:
                readers.setdefault(source_index, []).append(index)
            if not needed:
                ready.append(index)
        order = []
        while ready:
            index = ready.pop()
            order.append(index)
            for reader in readers.get(index, ()):
                waiting[reader] -= 1
                if not waiting[reader]:
                    ready.append(reader)
        if len(order) < len(waiting):
            raise RuntimeError("the netlist has a combinational loop")
        return order

    def _new(self) -> int:
        self.signals += 1
        return self.signals - 1

    def _write(self, expression: Expression, pins: Mapping[str, int], target: int) -> None:
        """Operations that leave the value of an expression in ``target``."""
        inverted = False
        while expression[0] == "not":
            expression, inverted = expression[1], not inverted
        if expression[0] in ("pin", "constant"):
            signal, _ = self._value(expression, pins)
            self.rows.append((False, signal, signal, False, False, inverted, target))
        else:
            self._operation(expression, pins, inverted, target)

    def _value(self, expression: Expression, pins: Mapping[str, int]) -> tuple[int, bool]:
        """A signal with the value of an expression, and whether it has its complement."""
        kind = expression[0]
        if kind == "pin":
            return pins[expression[1]], False
        if kind == "constant":
            return (_ONE if expression[1] else _ZERO), False
        if kind == "not":
            signal, inverted = self._value(expression[1], pins)
            return signal, not inverted
        target = self._new()
        self._operation(expression, pins, False, target)
        return target, False

    def _operation(self, expression: Expression, pins: Mapping[str, int], inverted: bool, target: int) -> None:
        (x, x_inverted), (y, y_inverted) = (self._value(e, pins) for e in expression[1:])
        if expression[0] == "xor":
            self.rows.append((True, x, y, False, False, inverted ^ x_inverted ^ y_inverted, target))
        elif expression[0] == "and":
            self.rows.append((False, x, y, x_inverted, y_inverted, inverted, target))
        else:  # x + y = !(!x !y)
            self.rows.append((False, x, y, not x_inverted, not y_inverted, not inverted, target))


def _without(expression: Expression, name: str, instead: Expression) -> Expression:
    """The expression with another one in place of a pin."""
    if expression[0] == "pin":
        return instead if expression[1] == name else expression
    return (expression[0], *(_without(e, name, instead) if isinstance(e, tuple) else e for e in expression[1:]))


class GateLevelRun:
    """A netlist at work on independent streams of stimulus; flip-flops begin at 0.

    Attributes:
        toggles: (nets,) of each net, over all streams, from the second cycle on.
        cycles: played, a stream.
    """

    def __init__(self, netlist: Netlist, inputs: Sequence[Port], outputs: Sequence[Port], *, streams: int = 1) -> None:
        self.netlist = netlist
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self.streams = streams
        words = -(-streams // 64)
        self._signals = np.zeros((netlist.signals, words), np.uint64)
        self._signals[_ONE] = np.uint64(0xFFFFFFFFFFFFFFFF)
        self._previous = np.zeros((netlist.nets, words), np.uint64)
        self._at = [
            np.array([s for p in ports for s in reversed(netlist.ports[p.name])], np.int64) for ports in (inputs, outputs)
        ]
        mask = np.zeros(words * 64, np.uint8)
        mask[:streams] = 1
        self._counted = np.packbits(mask).view(np.uint64)
        self._settled = False
        self.clear()

    def clear(self) -> None:
        """Count from here on; what the nets show stays."""
        self.toggles = np.zeros(self.netlist.nets, np.int64)
        self.cycles = 0

    def play(self, values: Values) -> dict[str, npt.NDArray[np.uint64]]:
        """Play stimulus and return what the outputs show in each cycle, before its rising edge.

        Args:
            values: by input port, (cycles, streams) or (cycles, streams, lanes).

        Returns:
            By output port, of the same shapes.
        """
        from rtl.synthesis._kernels import run_cycles

        first = np.asarray(next(iter(values.values())))
        cycles, streams = first.shape[:2]
        if streams != self.streams:
            raise ValueError(f"expected {self.streams} streams, got {streams}")
        flat = {name: np.asarray(v).reshape(cycles * streams, *np.shape(v)[2:]) for name, v in values.items()}
        bits = to_bits(self.inputs, flat).reshape(cycles, streams, -1)
        words = self._signals.shape[1]
        padded = np.zeros((cycles, bits.shape[2], words * 64), np.uint8)
        padded[:, :, :streams] = bits.transpose(0, 2, 1)
        stimulus = np.packbits(padded, axis=2).view(np.uint64)
        recorded = np.zeros((cycles, self._at[1].size, words), np.uint64)
        n = self.netlist
        run_cycles(
            *n.program, n.next_states, n.states, *self._at, stimulus, recorded,
            self._signals, self._previous, self._counted, self.toggles, self._settled,
        )  # fmt: skip
        self._settled = True
        self.cycles += cycles
        shown = np.unpackbits(recorded.view(np.uint8), axis=2)[:, :, :streams].transpose(0, 2, 1)
        found = from_bits(self.outputs, np.ascontiguousarray(shown).reshape(cycles * streams, -1))
        return {name: v.reshape(cycles, streams, *v.shape[1:]) for name, v in found.items()}

    @property
    def signal_pj(self) -> float:
        """Energy of the toggles of nets since ``clear``, over all streams."""
        return float(self.toggles @ self.netlist.toggle_pj)

    @property
    def energy_pj(self) -> float:
        """The same with that of the clock at the flip-flops, in every cycle."""
        return self.signal_pj + self.cycles * self.streams * self.netlist.clock_pj
