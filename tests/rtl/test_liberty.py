"""Liberty files: syntax, expressions against Python's own, energies against hand-worked ones."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest

from numerics.errors import InputError
from rtl.synthesis.command import LIBERTY
from rtl.synthesis.liberty import parse_function, parse_library, pin_names, read_library
from rtl.synthesis.liberty_syntax import parse_groups

TEXT = """
/* a comment { */
library (small) {
  voltage_unit : "1V";
  capacitive_load_unit (1, ff);
  nom_voltage : 2.0;
  power_lut_template(by_load) { variable_1 : total_output_net_capacitance; variable_2 : input_transition_time;
    index_1 ("10, 30"); index_2 ("1, 2, 3"); }
  power_lut_template(by_slope) { variable_1 : input_transition_time; index_1 ("1, 2, 3"); }
  cell (NOR) {
    area : 3.5
    pin(A) { direction : input; capacitance : 4; internal_power() { rise_power(by_slope) { values ("1, 2, 3"); }
                                                                    fall_power(by_slope) { values ("3, 6, 9"); } } }
    pin(B) { direction : input; capacitance : 6; }
    pin(Y) { direction : output; function : "!(A + B)";
      internal_power() { related_pin : "A";
        rise_power(by_load) { values ( \\
          "1, 2, 3", \\
          "11, 12, 13"); } }
      internal_power() { related_pin : "B"; fall_power(by_load) { index_1 ("10, 50"); values ("4, 4, 4", "8, 8, 8"); } } }
  }
  cell (FF) { area : 9; ff (IQ, IQN) { next_state : "D"; clocked_on : "C"; }
    pin(D) { direction : input; capacitance : 1; } pin(C) { direction : input; capacitance : 2; clock : true; }
    pin(Q) { direction : output; function : "IQ"; } pin(QN) { direction : output; function : "IQN"; } }
  cell (FALLING) { ff (IQ, IQN) { next_state : "D"; clocked_on : "!C"; } pin(D) { direction : input; }
    pin(C) { direction : input; } pin(Q) { direction : output; function : "IQ"; } }
  cell (DRIVER) { pin(A) { direction : input; } pin(E) { direction : input; }
    pin(Y) { direction : output; function : "A"; three_state : "!E"; } }
  cell (PAD) { area : 27000; dont_touch : true; }
}
"""


def evaluate(expression, pins):
    kind, *rest = expression
    if kind == "pin":
        return pins[rest[0]]
    if kind == "constant":
        return rest[0]
    values = [evaluate(e, pins) for e in rest]
    return {"not": lambda x: 1 - x, "and": lambda x, y: x & y, "or": lambda x, y: x | y, "xor": lambda x, y: x ^ y}[kind](*values)


@pytest.mark.parametrize(
    ("function", "python"),
    [
        ("(A B)+C", "A & B | C"),
        ("A B + C D", "A & B | C & D"),
        ("A * !B ^ C", "A & ((1 - B) ^ C)"),  # exclusive or binds before and
        ("A ^ B & C | D", "(A ^ B) & C | D"),
        ("!(A+B)' C", "(A | B) & C"),
        ("A'B", "(1 - A) & B"),
        ("(!((S A) + (!S B)))", "1 - (S & A | (1 - S) & B)"),
        ("(((A B)+(B C))+(C A))", "1 if A + B + C > 1 else 0"),
        ("1 A + 0", "A"),
    ],
)
def test_expressions(function, python):
    expression = parse_function(function)
    names = sorted(pin_names(expression))
    for values in product((0, 1), repeat=len(names)):
        pins = dict(zip(names, values, strict=True))
        assert evaluate(expression, pins) == eval(python, {}, pins), pins


@pytest.mark.parametrize(
    ("function", "told"), [("(A", "lacks a closing bracket"), ("A +", "ends early"), ("A # B", "'# B'"), ("A)", "')'")]
)
def test_a_wrong_expression_is_told(function, told):
    with pytest.raises(InputError, match=told.replace("(", r"\(").replace(")", r"\)")):
        parse_function(function)


def test_cells():
    library = parse_library(TEXT)
    assert (library.name, library.voltage_v) == ("small", 2.0)
    assert list(library.cells) == ["NOR", "FF"]
    assert library.others == ("FALLING", "DRIVER", "PAD")
    assert library.cells["NOR"].area == 3.5
    flipflop = library.cells["FF"].flipflop
    assert flipflop is not None
    assert (flipflop.states, flipflop.clock, flipflop.next_state) == (("IQ", "IQN"), "C", ("pin", "D"))


def test_energy_of_a_toggle():
    library = parse_library(TEXT)
    nor = library.cells["NOR"]
    a, b, y = nor.inputs["A"], nor.inputs["B"], nor.outputs["Y"]
    # Middle column, unit fF V²: at 10 fF rise 2 and fall 4, at 30 fF rise 12 and fall 6 (of 4 at 10 fF and 8 at 50 fF).
    np.testing.assert_allclose([y.energy_pj(load) for load in (0.005, 0.010, 0.020, 0.030, 1.0)], [3e-3, 3e-3, 6e-3, 9e-3, 9e-3])
    # Pins A and B on one net: 10 fF at 2 V; inside A (2 + 6) / 2 fJ.
    assert library.toggle_pj(y, [a, b]) == pytest.approx(3e-3 + 4e-3 + 0.5 * 10e-3 * 4)
    assert library.toggle_pj(None, [b]) == pytest.approx(0.5 * 6e-3 * 4)


def test_the_installed_library():
    if not LIBERTY.is_file():
        pytest.skip("no liberty file: apt-get install qflow-tech-osu035")
    library = read_library(LIBERTY)
    assert library.voltage_v == 3.3
    assert library.cells["INVX1"].area == 64
    assert {"LATCH", "DFFSR", "TBUFX1", "PADINOUT"} <= set(library.others)
    # Energies inside cells are of the order of a picojoule in 0.35 µm.
    assert all(0 < o.energy_pj(0.04) < 5 for n, c in library.cells.items() if n[:3] != "PAD" for o in c.outputs.values())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "line 1: expected library"),
        ("module x();\nendmodule", "'module'|expected"),
        ("library (x) {\n area : ;\n}", "line 2: expected a value of area"),
        ("library (x) {\n cell (", r"line 2: expected '\)'"),
        ("library (x) {\n}", "lacks 'nom_voltage'"),
        ("library (x) { nom_voltage : high; }", "expected a number, got 'high'"),
        ('library (x) { nom_voltage : 1; voltage_unit : "1mV"; }', "expected voltages in 1V"),
    ],
)
def test_what_is_no_liberty_is_told(text: str, told: str, tmp_path: Path):
    file = tmp_path / "x.lib"
    file.write_text(text)
    with pytest.raises(InputError, match=told) as caught:
        read_library(file)
    assert "\n" not in str(caught.value)
    assert "x.lib" in str(caught.value)


def test_groups_keep_every_statement():
    group = parse_groups('library (x) { a (1, "2 3"); a (4); b : c; g (y) { d : "e;f"; } }')
    assert group.attributes == {"a": [["1", "2 3"], ["4"]], "b": [["c"]]}
    assert group.groups[0].attributes == {"d": [["e;f"]]}
