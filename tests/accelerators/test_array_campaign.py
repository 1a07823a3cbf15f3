"""Campaigns over stuck bits of a systolic array: against single runs on the faulty array, and their refusals."""

from collections import Counter

import numpy as np
import pytest
import torch
from faulty_cases import small_device
from torch import nn

import numerics
from accelerators.systolic.cycle import Fault
from accelerators.systolic.emulation import array_recipe
from accelerators.systolic.faults.campaign import ArrayCampaign, ArrayFaults, register_widths
from accelerators.systolic.faults.unit import FaultyArrayUnit
from hwsim.faults import Campaign
from hwsim.faults.trials import map_seed
from numerics import InputError


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 4)), torch.randn(10, 8)


def test_trials_are_runs_on_the_faulty_array(tmp_path):
    device = small_device()
    module, x = network()
    faults = {"one": ArrayFaults(), "sums": ArrayFaults(count=3, registers=("sum",), kinds=("stuck_at_1",))}
    campaign = ArrayCampaign(device, module, x, faults, margin=0.4, first=6, maximum=6, seed=2)
    result = campaign.run(tmp_path / "array.sqlite", progress="silent")
    assert len(result.trials) == 12
    array, recipe = device.spec.array, array_recipe(device.spec, numerics.get_recipe(device.spec.default_recipe))
    golden = numerics.emulate(module, recipe, matrix_unit=FaultyArrayUnit(device.spec)).eval()(x)
    widths = register_widths(FaultyArrayUnit(device.spec), recipe)
    for row in result.trials:
        seed = map_seed(2, row["trial"] // 2)
        drawn = faults[row["scenario"]].draw(widths, rows=array.rows, columns=array.columns, seed=seed)
        out = numerics.emulate(module, recipe, matrix_unit=FaultyArrayUnit(device.spec, drawn)).eval()(x)
        assert row["masked"] == int((out == golden).all(1).sum())
        assert row["score"] == pytest.approx(float((out.argmax(1) == golden.argmax(1)).float().mean()))
        assert row["faulty_bits"] == len(drawn) == faults[row["scenario"]].count
    assert 0 < sum(row["masked"] == 10 for row in result.trials) < 12
    again = ArrayCampaign(device, module, x, faults, margin=0.4, first=6, maximum=6, seed=2)
    assert again.run(tmp_path / "two.sqlite", workers=2, progress="silent").to_csv() == result.to_csv()


def test_every_bit_is_as_likely():
    widths = {"weight": 8, "sum": 32}
    drawn = [ArrayFaults().draw(widths, rows=3, columns=2, seed=seed)[0] for seed in range(4000)]
    counts = Counter((f.register, f.row, f.column) for f in drawn)
    assert len(counts) == 12
    for (register, *_), found in counts.items():
        expected = 4000 * widths[register] / 240
        assert abs(found - expected) < 4.5 * np.sqrt(expected)
    every = ArrayFaults(count=240).draw(widths, rows=3, columns=2, seed=0)
    assert len({(f.register, f.row, f.column, f.bit) for f in every}) == 240


def test_refusals():
    device = small_device()
    module, x = network()
    fault = Fault(kind="stuck_at_0", register="weight", row=0, column=0, bit=1)
    with pytest.raises(InputError, match=r"^faults: pe: expected ArrayFaults, got list; .* FaultyArrayUnit$"):
        ArrayCampaign(device, module, x, {"pe": [fault]})
    with pytest.raises(InputError, match=r"^faults: pe: expected BitFaults, got Fault; .*systolic\.faults\.campaign"):
        Campaign(module, x, {"pe": [fault]}, recipe="int8")
    with pytest.raises(InputError, match=r"^registers: unknown name 'carry'"):
        ArrayCampaign(device, module, x, {"pe": ArrayFaults(registers=("carry",))})
    with pytest.raises(InputError, match=r"^data: the model does not run on inputs \(3, 7\)"):
        ArrayCampaign(device, module, torch.zeros(3, 7), {"pe": ArrayFaults()})
    for arguments in ({"count": 0}, {"kinds": ("flip",)}, {"kinds": ()}):
        with pytest.raises(InputError):
            ArrayFaults(**arguments)
    with pytest.raises(InputError, match=r"^count: expected at most the 96 bits"):
        ArrayFaults(count=97).draw({"weight": 8}, rows=3, columns=4, seed=0)
