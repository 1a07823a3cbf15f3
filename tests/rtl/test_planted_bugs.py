"""A bug planted in a copy of a unit is caught by its bench, named, and drawn."""

import shutil

import pytest
from simulators import need

from rtl.simulator import missing_tools
from rtl.verification import SOURCES, benches, verify

# What is run, the file, a text that lies on one of its lines, and what becomes of it.
BUGS = [
    ("mac_int8:saturating", "mac_int8", "exact[32] != exact[31]", "exact[32] && !exact[31]"),
    ("systolic_ws:3x5", "ws_element", "assign used = first_i ? shadow : active;", "assign used = active;"),
    ("systolic_ws:3x5", "systolic_ws", "LoadRest == 0 : load_left == 1;", "LoadRest == 0 : load_left == 2;"),
    ("systolic_os:3x5", "systolic_os", "g_drain[c].shifts < CountBits'(r)", "g_drain[c].shifts < CountBits'(r - 1)"),
    ("booth_mac:int4", "booth_mac", "assign last     = left == '0;", "assign last     = 1'b1;"),
    ("threshold_neuron:inputs5", "threshold_neuron", "operation_i == Compare);", "operation_i != Compare);"),
    ("secded_72_64:standard", "secded_72_64", "= ^(data_i & row[r]);", "= |(data_i & row[r]);"),
    ("lif_core:neurons4", "lif_core", "assign spike     = $signed(voltage) >", "assign spike     = $signed(voltage) >="),
    ("spike_router:depth2", "spike_router", "choice == 3'd4 ? 3'd0 : choice + 3'd1", "choice == 3'd4 ? 3'd0 : choice"),
    ("spike_mesh:2x2", "fifo", "push_i && !pop_i", "push_i"),
    ("fp_mac:e4m3", "fp_mac", "assign differ     = product_sign != c_i[31];", "assign differ     = 1'b0;"),
    # What little shows: sums beyond the range by one, a single pair of operands, counters that lack bits, starts that must not be
    # taken, a seed, an infinity in the last lane.
    ("mac_int8:saturating", "mac_int8", "= exact[32] != exact[31];", "= exact[32] != exact[31] && exact != 33'h17fffffff;"),
    ("mac_int8:saturating", "mac_int8", "= exact[32] != exact[31];", "= exact[32] != exact[31] && exact != 33'h080000000;"),
    ("booth_mac:lockstep32", "booth_mac", "3'b100:         partial_product = -(shifted << 1);",
     "3'b100: partial_product = -(shifted << 1) + (2*Bits)'(a == Bits'(77) && b == Bits'(-38));"),
    ("systolic_ws:2x2", "systolic_ws", "stream_left <= length - 1;", "stream_left <= {10'd0, 6'(length - 1)};"),
    ("systolic_ws:2x2", "systolic_ws", "to_load <= folds_i;", "to_load <= {9'd0, folds_i[6:0]};"),
    ("systolic_ws:1x1", "systolic_ws", "to_load <= folds_i;", "to_load <= {1'b0, folds_i[14:0]};"),
    ("systolic_ws:2x2", "systolic_ws", "start_i && length_i != 0", "start_i"),
    ("systolic_ws:2x2", "systolic_ws", "enable       = !stall_i;", "enable = !stall_i || !busy_o;"),
    ("systolic_os:2x2", "systolic_os", "stream_left <= length - 1;", "stream_left <= {10'd0, 6'(length - 1)};"),
    ("systolic_os:2x2", "systolic_os", "to_stream <= folds_i;", "to_stream <= {9'd0, folds_i[6:0]};"),
    ("systolic_os:1x1", "systolic_os", "to_stream <= folds_i;", "to_stream <= {1'b0, folds_i[14:0]};"),
    ("systolic_os:2x2", "systolic_os", "start_i && length_i != 0", "start_i"),
    ("systolic_os:2x2", "systolic_os", "enable       = !stall_i;", "enable = !stall_i || !busy_o;"),
    ("fp_convert:e5m2_seeded", "fp_convert", "if (!rst_ni) state <= Seed;", "if (!rst_ni) state <= 32'd1;"),
    ("fused_dot:hopper_e5m2", "fused_dot", "(infinite && negative);", "(infinite && negative && k != K - 1);"),
]  # fmt: skip


def plant(folder, name, text, wrong):
    file = folder / f"{name}.sv"
    before = file.read_text(encoding="utf-8")
    assert before.count(text) == 1, f"{file.name} has {text!r} {before.count(text)} times"
    file.write_text(before.replace(text, wrong), encoding="utf-8")


def copy(folder):
    for path in SOURCES.glob("*.sv"):
        shutil.copy(path, folder)


@pytest.mark.parametrize(("run", "name", "text", "wrong"), BUGS, ids=[f"{b[0]}-{i}" for i, b in enumerate(BUGS)])
def test_a_bug_is_caught(tmp_path, run, name, text, wrong):
    unit = run.partition(":")[0]
    # Icarus builds at once; Verilator takes seconds.
    quick = unit not in ("fp_mac", "fp_convert", "fused_dot") and not missing_tools("icarus")
    simulator = "icarus" if quick else "verilator"
    need(simulator)
    copy(tmp_path)
    plant(tmp_path, name, text, wrong)
    (result,) = verify([run], simulator=simulator, cases=300, sources=tmp_path, waves=None)
    assert not result.passed
    assert result.mismatching_bits >= result.mismatching_cycles > 0
    assert result.latency is None
    assert result.difference is not None
    assert result.difference.expected != result.difference.observed


def test_every_unit_has_a_bug_planted():
    assert {run.partition(":")[0] for run, *_ in BUGS} == set(benches())


@pytest.mark.parametrize("simulator", ["verilator", "icarus"])
def test_a_difference_is_named_and_drawn(tmp_path, simulator):
    need(simulator)
    copy(tmp_path)
    plant(tmp_path, "mac_int8", "if (!rst_ni) begin", "if (!rst_ni || a_i == 8'd7) begin")
    (result,) = verify(["mac_int8:wrapping"], simulator=simulator, cases=100, sources=tmp_path, waves=tmp_path / "waves")
    difference = result.difference
    assert difference.signal == "sum_o"
    assert difference.observed == "00000000"
    assert result.waveform.parent == tmp_path / "waves"
    if simulator == "verilator":
        text = result.waveform.read_text()
        assert "sum_o" in text
        # Ten nanoseconds a cycle, to a little past the difference.
        last = max(int(line[1:]) for line in text.splitlines() if line.startswith("#"))
        assert difference.cycle * 10_000 <= last <= (difference.cycle + 40) * 10_000
    else:
        assert result.waveform.stat().st_size > 100
