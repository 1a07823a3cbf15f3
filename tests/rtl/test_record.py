"""What a unit shows to inputs of one's own."""

import numpy as np
import pytest
from simulators import need

from numerics.errors import InputError
from rtl.verification import SOURCES, configurations, record, stimulus, verify


@pytest.mark.parametrize("simulator", ["verilator", "icarus"])
def test_a_recording_is_what_the_unit_computes(simulator):
    need(simulator)
    (unit,) = configurations(["mac_int8:wrapping"])
    rng = np.random.default_rng(1)
    cycles = 60
    inputs = {"rst_ni": np.arange(cycles) > 0, "enable_i": rng.random(cycles) < 0.7}
    inputs |= {name: rng.integers(-128, 128, cycles) for name in ("a_i", "b_i")}
    inputs["c_i"] = rng.integers(-(1 << 31), 1 << 31, cycles)
    shown = record(unit, inputs, simulator=simulator)
    sums, held = shown["sum_o"], 0
    assert sums.shape == (cycles,)
    assert not np.ma.getmaskarray(sums)[1:].any()
    if simulator == "icarus":
        assert np.ma.getmaskarray(sums)[0]  # no register has a value before the reset
    for t in range(1, cycles):
        assert sums[t] == held
        if inputs["enable_i"][t]:
            held = (int(inputs["a_i"][t]) * int(inputs["b_i"][t]) + int(inputs["c_i"][t])) % (1 << 32)


def test_the_stimulus_of_verify_is_recorded_as_the_model_says():
    need("icarus")
    (unit,) = configurations(["systolic_ws:2x2"])
    trace = stimulus(unit, cases=20, seed=5)
    shown = record(unit, trace.inputs, simulator="icarus")
    assert set(shown) == set(trace.outputs)
    for port, expected in trace.outputs.items():
        np.testing.assert_array_equal(shown[port][1:], expected.reshape(shown[port].shape)[1:].astype(np.uint64) & 0xFFFFFFFF)
    again, other = stimulus(unit, cases=20, seed=5), stimulus(unit, cases=20, seed=6)
    np.testing.assert_array_equal(trace.inputs["weights_i"], again.inputs["weights_i"])
    assert not np.array_equal(trace.inputs["weights_i"], other.inputs["weights_i"])


def test_an_unknown_bit_hides_none_beside_it(tmp_path):
    """Of outputs that share a hexadecimal digit only one has no value: it is the one named, and it alone is masked."""
    need("icarus")
    text = (SOURCES / "lif_core.sv").read_text(encoding="utf-8")
    assert text.count("assign spike_valid_o") == 1
    wrong = text.replace("assign spike_valid_o", "assign spike_valid_o = 1'bx; logic unused; assign unused")
    (tmp_path / "lif_core.sv").write_text(wrong, encoding="utf-8")
    (unit,) = configurations(["lif_core:neurons4"])
    trace = stimulus(unit, cases=5)
    shown = record(unit, trace.inputs, simulator="icarus", sources=tmp_path)
    for port, values in shown.items():
        assert np.ma.getmaskarray(values)[1:].all() == np.ma.getmaskarray(values)[1:].any() == (port == "spike_valid_o")
    (result,) = verify(["lif_core:neurons4"], simulator="icarus", cases=5, sources=tmp_path, waves=None)
    assert (result.difference.signal, result.difference.observed) == ("spike_valid_o", "x")


def test_inputs_must_be_those_of_the_ports():
    need("icarus")
    (unit,) = configurations(["mac_int8:wrapping"])
    with pytest.raises(ValueError, match="a trace has ports"):
        record(unit, {"rst_ni": np.ones(3, bool)}, simulator="icarus")
    with pytest.raises(InputError, match="simulator"):
        record(unit, {}, simulator="questa")
