"""The gate-level run against a gate-by-gate one in plain Python, and netlists that are wrong."""

import json

import numpy as np
import pytest

from rtl.bench import Port
from rtl.synthesis.liberty import parse_library
from rtl.synthesis.netlist import GENERIC, GateLevelRun, read_netlist

PYTHON = {
    "$_NOT_": lambda a, b, s: not a,
    "$_BUF_": lambda a, b, s: a,
    "$_AND_": lambda a, b, s: a and b,
    "$_NAND_": lambda a, b, s: not (a and b),
    "$_OR_": lambda a, b, s: a or b,
    "$_NOR_": lambda a, b, s: not (a or b),
    "$_XOR_": lambda a, b, s: a != b,
    "$_XNOR_": lambda a, b, s: a == b,
    "$_ANDNOT_": lambda a, b, s: a and not b,
    "$_ORNOT_": lambda a, b, s: a or not b,
    "$_MUX_": lambda a, b, s: b if s else a,
}
PINS = {"$_NOT_": "A", "$_BUF_": "A", "$_MUX_": "ABS"}


def design(ports, cells):
    """What write_json writes, of ports {name: (direction, bits)} and cells [(type, {pin: bit})]."""
    module = {
        "attributes": {"top": "1"},
        "ports": {name: {"direction": direction, "bits": bits} for name, (direction, bits) in ports.items()},
        "cells": {
            f"c{i}": {"type": kind, "connections": {p: [b] for p, b in pins.items()}} for i, (kind, pins) in enumerate(cells)
        },
    }
    return json.dumps({"modules": {"unit": module}})


def random_cells(rng, inputs, gates, states):
    """Gates that read earlier nets or flip-flops; net 1 is the clock. Returns cells in an order of their own, and their nets."""
    flip_flops = list(range(2 + inputs, 2 + inputs + states))
    nets = [*range(2, 2 + inputs), *flip_flops, "0", "1"]
    cells = []
    for _ in range(gates):
        kind = rng.choice(list(PYTHON))
        out = len(nets)
        cells.append((kind, {**{pin: nets[rng.integers(len(nets))] for pin in PINS.get(kind, "AB")}, "Y": out}))
        nets.append(out)
    flops = [("$_DFF_P_", {"C": 1, "D": nets[rng.integers(len(nets) - gates, len(nets))], "Q": q}) for q in flip_flops]
    return cells, flops


def test_random_netlists_against_python():
    rng = np.random.default_rng(0)
    for _ in range(20):
        inputs, gates, states, cycles, streams = 5, 40, 6, 12, int(rng.integers(1, 140))
        cells, flops = random_cells(rng, inputs, gates, states)
        last = [pins["Y"] for _, pins in cells][-8:]
        ports = {"clk": ("input", [1]), "x": ("input", list(range(2, 2 + inputs))), "y": ("output", last)}
        shuffled = [*cells, *flops]
        rng.shuffle(shuffled)
        netlist = read_netlist(design(ports, shuffled), GENERIC, clock="clk")
        run = GateLevelRun(netlist, [Port("x", inputs)], [Port("y", 8)], streams=streams)
        x = rng.integers(0, 1 << inputs, (cycles, streams))
        y = np.concatenate([run.play({"x": x[:5]})["y"], run.play({"x": x[5:]})["y"]])  # the state goes on between calls

        toggles = {}
        for stream in range(streams):
            state = dict.fromkeys((pins["Q"] for _, pins in flops), False)
            before = None
            for cycle in range(cycles):
                value = {"0": False, "1": True, **state} | {2 + i: bool(x[cycle, stream] >> i & 1) for i in range(inputs)}
                for kind, pins in cells:
                    value[pins["Y"]] = bool(PYTHON[kind](*(value.get(pins.get(p)) for p in "ABS")))
                assert y[cycle, stream] == sum(value[net] << i for i, net in enumerate(last))
                if before is not None:
                    for net in value:
                        toggles[net] = toggles.get(net, 0) + (value[net] != before[net])
                before = value
                state = {pins["Q"]: value[pins["D"]] for _, pins in flops}
        assert run.toggles.sum() == sum(toggles.values())
        assert [run.toggles[s] for s in netlist.ports["y"]] == [toggles[net] for net in last]
        assert run.cycles == cycles


def test_the_energy_of_a_divider_by_hand():
    library = parse_library("""library (l) { nom_voltage : 2; capacitive_load_unit (1, pf);
      cell (INV) { area : 2; pin(A) { direction : input; capacitance : 3; } pin(Y) { direction : output; function : "A'"; } }
      cell (FF) { area : 5; ff (I, N) { next_state : "D"; clocked_on : "C"; } pin(C) { direction : input; capacitance : 7; }
        pin(D) { direction : input; capacitance : 11; } pin(Q) { direction : output; function : "I"; }
        pin(R) { direction : output; function : "N"; } } }""")
    # Q → INV → D: a divider by two; R is the complement.
    cells = [("FF", {"C": 1, "D": 3, "Q": 2, "R": 4}), ("INV", {"A": 2, "Y": 3})]
    ports = {"c": ("input", [1]), "q": ("output", [2, 4])}
    netlist = read_netlist(design({**ports, "x": ("input", [9])}, cells), library, clock="c")
    assert (netlist.area, netlist.flipflops, netlist.cells) == (7, 1, {"FF": 1, "INV": 1})
    run = GateLevelRun(netlist, [Port("x")], [Port("q", 2)])
    shown = run.play({"x": np.zeros((9, 1), int)})["q"][:, 0]
    assert shown.tolist() == [2, 1] * 4 + [2]
    # Each of 8 later cycles: Q charges pin A, the inverter pin D; the clock rises and falls in each of 9.
    assert run.energy_pj == pytest.approx(8 * 0.5 * 4 * (3 + 11) + 9 * 2 * 0.5 * 4 * 7)
    run.clear()
    run.play({"x": np.zeros((1, 1), int)})  # after clear the first cycle counts: what came before is known
    assert run.energy_pj == pytest.approx(0.5 * 4 * (3 + 11) + 2 * 0.5 * 4 * 7)


@pytest.mark.parametrize(
    ("cells", "told"),
    [
        ([("$_AND_", {"A": 2, "B": 4, "Y": 3}), ("$_NOT_", {"A": 3, "Y": 4})], "combinational loop"),
        ([("$_NOT_", {"A": 2, "Y": 3}), ("$_BUF_", {"A": 2, "Y": 3})], "net 3 of the netlist has two drivers"),
        ([("$_NOT_", {"A": 7, "Y": 3})], "net 7 of the netlist has no driver"),
        ([("$_DLATCH_P_", {"D": 2, "Q": 3})], "lacks or is not simulated"),
        ([("$_DFF_P_", {"C": 2, "D": 2, "Q": 3})], "has the clock 2, the unit's is 1"),
    ],
)
def test_what_is_not_simulated_is_told(cells, told):
    text = design({"clk": ("input", [1]), "x": ("input", [2]), "y": ("output", [3])}, cells)
    with pytest.raises(RuntimeError, match=told):
        read_netlist(text, GENERIC, clock="clk")


def test_another_number_of_streams_is_told():
    netlist = read_netlist(
        design({"x": ("input", [2]), "y": ("output", [3])}, [("$_NOT_", {"A": 2, "Y": 3})]), GENERIC, clock=None
    )
    run = GateLevelRun(netlist, [Port("x")], [Port("y")], streams=2)
    with pytest.raises(ValueError, match="expected 2 streams, got 3"):
        run.play({"x": np.zeros((4, 3), int)})
