"""What a systolic array computes: the order of its sums, against loops over folds and processing elements."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from accelerators.systolic.device import SystolicArray
from hwsim.registry import read_spec, spec_file
from numerics import InputError, Recipe, quantize

ROWS, K = 4, 10


def array(dataflow, **changes):
    """A small array whose sums are so short that their order shows."""
    data = copy.deepcopy(read_spec(spec_file("tpu_v1")))
    data["array"] |= {"rows": ROWS, "columns": 4, "dataflow": dataflow}
    data["mac_formats"] = {"bf16": {"energy_pj": 1.0}}
    data["default_formats"] = {"weight": "bf16", "activation": "bf16", "accumulator": "bf16", "elementwise": "fp32"}
    data["conversions"] = {"fp16->bf16": {"cycles_per_element": 1, "energy_pj_per_element": 0}}
    return SystolicArray.from_data(data | changes, source="test")


def rounded(value):
    return float(quantize(np.float64(value), "bf16"))


def by_folds(a, b):
    """k along the rows: each fold adds its products down a column, then its sum to the stored one."""
    stored = 0.0
    for first in range(0, K, ROWS):
        passing = 0.0
        for k in range(first, min(first + ROWS, K)):
            passing = rounded(passing + a[k] * b[k])
        stored = rounded(stored + passing)
    return stored


def in_place(a, b):
    """Each processing element keeps its sum."""
    stored = 0.0
    for k in range(K):
        stored = rounded(stored + a[k] * b[k])
    return stored


def operands():
    torch.manual_seed(5)
    layer, x = nn.Linear(K, 6, bias=False), torch.randn(8, K) * 10.0 ** torch.randint(-1, 2, (8, K))
    return layer, x, quantize(x, "bf16").double().numpy(), quantize(layer.weight.detach(), "bf16").double().numpy()


@pytest.mark.parametrize(
    ("dataflow", "sum_of"), [("weight_stationary", by_folds), ("input_stationary", by_folds), ("output_stationary", in_place)]
)
def test_sums_are_made_in_the_order_of_the_folds(dataflow, sum_of):
    layer, x, a, b = operands()
    found = array(dataflow).emulate(layer)(x).detach().numpy()
    expected = np.array([[sum_of(row, column) for column in b] for row in a], np.float32)
    assert np.array_equal(found, expected)


def test_the_orders_differ_here():
    _, _, a, b = operands()
    assert any(by_folds(row, column) != in_place(row, column) for row in a for column in b)


def test_a_module_with_another_accumulator_keeps_the_order():
    layer, x, a, b = operands()
    recipe = Recipe("r", {"weight": "bf16", "activation": "bf16", "accumulator": "fp32", "elementwise": "fp32"})
    net = nn.Sequential(layer)
    emulated = array("weight_stationary").emulate(net, recipe.excepting("0", accumulator="bf16"), example_inputs=x)
    expected = np.array([[by_folds(row, column) for column in b] for row in a], np.float32)
    assert np.array_equal(emulated(x).detach().numpy(), expected)
    assert [row.sums for row in emulated.operators] == [f"systolic {ROWS}"]


def test_operands_are_converted_where_the_array_can():
    layer, x, _, _ = operands()
    device = array("weight_stationary")
    half = Recipe("half", {"weight": "bf16", "activation": "fp16", "elementwise": "fp32"})
    emulated = device.emulate(layer, half, example_inputs=x)
    assert [row.formats for row in emulated.operators] == ["bf16→fp32"]
    with pytest.raises(InputError, match="no multiply-accumulate for fp16×bf16"):
        array("weight_stationary", conversions={}).emulate(layer, half)


def test_integers_sum_the_same_in_any_order():
    layer, x, _, _ = operands()
    formats = {"weight": "int8", "activation": "int8", "elementwise": "fp32"}
    results = [
        array(dataflow, mac_formats={"int8": {"energy_pj": 1.0}}, default_formats=formats).emulate(layer)(x)
        for dataflow in ("weight_stationary", "output_stationary")
    ]
    assert torch.equal(*results)
