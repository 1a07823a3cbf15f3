"""Liberty files: what the cells of a library compute, how large they are and what a toggle of a pin costs.

Read is what a gate-level run needs: areas, pin capacitances, ``function`` expressions, flip-flops and internal power.
Source of the format: Liberty User Guides, volume 1, chapters 5 (cells) and 6 (power).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.views.display import displayed
from numerics.errors import InputError
from rtl.synthesis.liberty_syntax import Group, number, parse_groups

Expression = tuple[Any, ...]
"""("pin", name), ("constant", 0 or 1), ("not", e), ("and" | "or" | "xor", e, f)."""


@dataclass(frozen=True)
class InputPin:
    """An input of a cell.

    Attributes:
        capacitance_pf: that a driver charges.
        toggle_pj: energy inside the cell of a toggle, whatever the outputs do; mean of rise and fall.
    """

    capacitance_pf: float
    toggle_pj: float = 0.0


@dataclass(frozen=True, eq=False)
class OutputPin:
    """An output of a cell.

    Attributes:
        function: of the input pins, or of the flip-flop's state.
        loads_pf: load capacitances of the energies, rising.
        toggle_pj: energy inside the cell of a toggle at those loads, in the middle column of input transitions; mean of rise and
            fall and of the inputs that cause it.
    """

    function: Expression
    loads_pf: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(1))
    toggle_pj: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(1))

    def energy_pj(self, load_pf: float) -> float:
        """Energy inside the cell of a toggle into a load, interpolated, and held beyond the ends of the table."""
        return float(np.interp(load_pf, self.loads_pf, self.toggle_pj))


@dataclass(frozen=True)
class FlipFlop:
    """An edge-triggered flip-flop.

    Attributes:
        states: name of the state in functions, and of its complement.
        next_state: expression of the input pins.
        clock: name of the pin whose rising edge takes it.
    """

    states: tuple[str, str]
    next_state: Expression
    clock: str


@displayed
@dataclass(frozen=True)
class Cell:
    """A cell that a netlist may hold.

    Attributes:
        area: in the library's unit, µm² as a rule.
        flipflop: None for a combinational cell.
    """

    name: str
    area: float
    inputs: Mapping[str, InputPin]
    outputs: Mapping[str, OutputPin]
    flipflop: FlipFlop | None = None


@displayed
@dataclass(frozen=True)
class Library:
    """The cells of a liberty file that are combinational or flip-flops on a rising edge without set and reset.

    Attributes:
        voltage_v: nominal supply.
        cells: by name.
        others: names of all other cells: latches, three-state drivers, pads.
    """

    name: str
    voltage_v: float
    cells: Mapping[str, Cell]
    others: tuple[str, ...] = ()

    def toggle_pj(self, output: OutputPin | None, loads: Sequence[InputPin]) -> float:
        """Energy of one toggle of a net, in pJ: inside its driver, inside the cells it drives, and half of C V² of their pins.

        Args:
            output: pin that drives it; None for an input of the whole, of which only the load counts.
            loads: pins on the net.
        """
        load_pf = sum(pin.capacitance_pf for pin in loads)
        inside = sum(pin.toggle_pj for pin in loads) + (output.energy_pj(load_pf) if output is not None else 0.0)
        return inside + 0.5 * load_pf * self.voltage_v**2


def read_library(file: str | Path) -> Library:
    """A library from a liberty file.

    Raises:
        InputError: no such file, or what is in it is not liberty; the message names the file and the line.
    """
    path = Path(file)
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise InputError(f"liberty: cannot read {str(path)!r}: {error.strerror or error}") from None
    try:
        return parse_library(text)
    except InputError as error:
        raise InputError(f"{error} in {str(path)!r}") from None


def parse_library(text: str) -> Library:
    """A library from the text of a liberty file.

    Raises:
        InputError: the text is not liberty; a unit that is not read (voltages are in volts, loads in farads).
    """
    root = parse_groups(text)
    if root.kind != "library":
        raise InputError(f"liberty: expected a library, got {root.kind!r}")
    voltage = root.number("nom_voltage")
    load = root.list("capacitive_load_unit") if "capacitive_load_unit" in root.attributes else ["1", "pf"]
    if len(load) != 2:
        raise InputError(f"liberty: capacitive_load_unit: expected a number and a unit, got {', '.join(load)}")
    unit, scale = load
    factors = {"pf": 1.0, "ff": 1e-3}
    if scale.lower() not in factors or root.text("voltage_unit", "1V") != "1V":
        raise InputError("liberty: expected voltages in 1V and capacitances in pf or ff")
    to_pf = number(unit, "capacitive_load_unit") * factors[scale.lower()]
    templates = {group.label: group for group in root.groups if group.kind.endswith("_template")}
    cells, others = {}, []
    for group in root.groups:
        if group.kind != "cell":
            continue
        cell = _cell(group, templates, to_pf)
        if cell is None:
            others.append(group.label)
        else:
            cells[cell.name] = cell
    return Library(root.label, voltage, cells, tuple(others))


def _cell(group: Group, templates: Mapping[str, Group], to_pf: float) -> Cell | None:
    """None for a cell that is neither combinational nor a plain flip-flop."""
    name = group.label
    pins = [g for g in group.groups if g.kind == "pin"]
    storage = [g for g in group.groups if g.kind in ("ff", "latch", "statetable", "ff_bank", "latch_bank")]
    if group.text("dont_use", "false") == "true" or group.text("dont_touch", "false") == "true" or not pins:
        return None
    if len(storage) > 1 or any(g.kind != "ff" or "clear" in g.attributes or "preset" in g.attributes for g in storage):
        return None
    inputs, outputs = {}, {}
    for pin in pins:
        direction, label = pin.text("direction", ""), pin.label
        if direction == "input":
            inputs[label] = InputPin(pin.number("capacitance", 0.0) * to_pf, _mean_energy(pin, templates, to_pf)[1][0])
        elif direction == "output" and "function" in pin.attributes and "three_state" not in pin.attributes:
            loads, energies = _mean_energy(pin, templates, to_pf)
            outputs[label] = OutputPin(parse_function(pin.text("function")), loads, energies)
        else:
            return None
    flipflop = None
    if storage:
        if len(storage[0].arguments) != 2:
            raise InputError(f"liberty: cell {name}: ff: expected the names of two states, got {len(storage[0].arguments)}")
        clock = parse_function(storage[0].text("clocked_on"))
        if clock[0] != "pin":
            return None
        states = (storage[0].arguments[0], storage[0].arguments[1])
        flipflop = FlipFlop(states, parse_function(storage[0].text("next_state")), clock[1])
    known = set(inputs) | set(flipflop.states if flipflop else ())
    if not outputs or any(pin_names(output.function) - known for output in outputs.values()):
        return None
    return Cell(name, group.number("area", 0.0), inputs, outputs, flipflop)


def _mean_energy(
    pin: Group, templates: Mapping[str, Group], to_pf: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Loads and energies of a toggle of the pin: over all its tables, of rise and fall, in the middle column of transitions."""
    curves = []
    for power in (g for g in pin.groups if g.kind == "internal_power"):
        for table in (g for g in power.groups if g.kind in ("rise_power", "fall_power")):
            template = templates.get(table.label)
            rows = [_numbers(row, "values") for row in table.list("values")]
            if len({len(row) for row in rows}) > 1:
                raise InputError(f"liberty: pin {pin.label}: values: expected rows of one length")
            values = np.array(rows)
            over_load = template is not None and "capacitance" in template.text("variable_1", "")
            index = "index_1"
            if template is not None and "capacitance" in template.text("variable_2", ""):
                values, over_load, index = values.T, True, "index_2"
            if not over_load:
                curves.append((np.zeros(1), values.reshape(-1)[[values.size // 2]]))
                continue
            assert template is not None
            loads = np.array(_numbers((table if index in table.attributes else template).list(index)[0], index)) * to_pf
            if values.shape[0] != loads.size and values.shape != (1, loads.size):
                raise InputError(f"liberty: pin {pin.label}: values: expected a row for each of {loads.size} loads")
            curves.append((loads, values.reshape(loads.size, -1)[:, values.size // loads.size // 2]))
    if not curves:
        return np.zeros(1), np.zeros(1)
    loads = max((loads for loads, _ in curves), key=len)
    # An energy is in the unit of load times V².
    return loads, np.mean([np.interp(loads, at, energies) for at, energies in curves], axis=0) * to_pf


def _numbers(text: str, name: str) -> list[float]:
    return [number(word, name) for word in re.split(r"[,\s]+", text.strip())]


# --- expressions ----------------------------------------------------------------------------------------------------------

_SYMBOL = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_\[\]]*|[01!'^&*+|()])")


def parse_function(text: str) -> Expression:
    """An expression of a ``function`` attribute. Inversion binds first, then exclusive or, then and (a blank as well), then or.

    Raises:
        InputError: anything else.
    """
    symbols, at = [], 0
    while text[at:].strip():
        found = _SYMBOL.match(text, at)
        if found is None:
            raise InputError(f"liberty: function {text!r} has an unknown symbol at {text[at:].strip()[:8]!r}")
        symbols.append(found[1])
        at = found.end()
    position = 0

    def peek() -> str:
        return symbols[position] if position < len(symbols) else ""

    def take() -> str:
        nonlocal position
        position += 1
        return symbols[position - 1] if position <= len(symbols) else ""

    def unary() -> Expression:
        symbol = take()
        if symbol == "!":
            return ("not", unary())
        if symbol == "(":
            inner = binary(0)
            if take() != ")":
                raise InputError(f"liberty: function {text!r} lacks a closing bracket")
        elif symbol in ("0", "1"):
            inner = ("constant", int(symbol))
        elif symbol and (symbol[0].isalpha() or symbol[0] == "_"):
            inner = ("pin", symbol)
        else:
            raise InputError(f"liberty: function {text!r} ends early or has {symbol!r} where a pin is expected")
        while peek() == "'":
            take()
            inner = ("not", inner)
        return inner

    levels = (("or", ("+", "|")), ("and", ("&", "*")), ("xor", ("^",)))

    def binary(level: int) -> Expression:
        if level == len(levels):
            return unary()
        name, signs = levels[level]
        left = binary(level + 1)
        while peek() in signs or (name == "and" and peek() and (peek() in "!(01" or peek()[0].isalpha() or peek()[0] == "_")):
            if peek() in signs:
                take()
            left = (name, left, binary(level + 1))
        return left

    try:
        result = binary(0)
    except RecursionError:
        raise InputError(f"liberty: function {text!r} has too many brackets inside one another") from None
    if peek():
        raise InputError(f"liberty: function {text!r} has {peek()!r} where nothing more is expected")
    return result


def pin_names(expression: Expression) -> set[str]:
    """Names that an expression uses."""
    if expression[0] == "pin":
        return {expression[1]}
    return set().union(*(pin_names(e) for e in expression[1:] if isinstance(e, tuple)))
