"""The cycle-level array as the matrix unit of an emulation: what recipes and inputs it takes, and in which order it sums."""

import numpy as np
import pytest
import torch
from torch import nn

import hwsim
import numerics
from accelerators.systolic import pipeline
from accelerators.systolic.cycle import Fault, simulate_matmul
from accelerators.systolic.emulation import ArrayUnit, array_recipe
from accelerators.systolic.spec import ArraySpec
from numerics.accumulator import Accumulator
from numerics.errors import InputError
from numerics.recipes import Recipe
from numerics.scaling import Scaling

FORMATS = {"weight": "int8", "activation": "int8", "accumulator": "int32"}


@pytest.fixture(scope="module")
def device():
    return hwsim.get_device("gemmini_16x16")


@pytest.fixture(scope="module")
def layer():
    torch.manual_seed(1)
    return nn.Linear(40, 7)


def test_folds_are_added_without_rounding_their_sums_as_products():
    array = ArraySpec(rows=3, columns=2, dataflow="ws", timing="rtl")
    accumulator = Accumulator(format="fp32", product="bf16", order="systolic", group=3)
    a, b = np.array([[1, 2.0**-10, 1, 1, 2.0**-12]]), np.ones((5, 1))
    run = simulate_matmul(a, b, array=array, a_format="fp32", b_format="fp32", accumulator=accumulator)
    assert run.outputs == numerics.matmul(a, b, accumulator=accumulator)
    assert run.outputs[0, 0] == 3 + 2.0**-10 + 2.0**-12


@pytest.mark.parametrize("accumulation", ["fp16", "bf16", Accumulator(format="fp16", rounding="toward_zero")])
def test_the_array_decides_the_order_of_a_recipes_sums(accumulation, layer):
    spec = hwsim.get_device("gemmini_16x16").spec
    recipe = Recipe("r", {"weight": "int8", "activation": "int8", "accumulator": "int32"}, accumulation="int32")
    sums = array_recipe(spec, recipe).accumulation
    assert (sums.order, sums.group) == ("systolic", 16)
    data = spec.model_dump(mode="json") | {
        "mac_formats": {"bf16": {"energy_pj": 1.0}},
        "default_formats": {"weight": "bf16", "activation": "bf16", "accumulator": "fp32"},
        "conversions": {},
    }
    device = type(hwsim.get_device("gemmini_16x16")).from_data(data, source="test")
    recipe = Recipe("r", {"weight": "bf16", "activation": "bf16", "accumulator": "fp16"}, accumulation=accumulation)
    x = torch.randn(5, 40)
    assert torch.equal(device.emulate(layer, recipe)(x), device.emulate(layer, recipe, fidelity="cycle")(x))


@pytest.mark.parametrize(
    ("accumulation", "message"),
    [
        ("hopper.wgmma.bf16", "expected order 'sequential' without promotion or compensation, got 'fused'"),
        (Accumulator(format="int32", order="systolic", group=4), "got 'systolic' of 4"),
        (Accumulator(format="int32", order="pairwise"), "got 'pairwise'"),
    ],
)  # fmt: skip
def test_sums_that_the_array_does_not_make_are_an_error_at_once(device, layer, accumulation, message):
    with pytest.raises(InputError, match="recipe 'r': accumulation: the array adds one product at a time") as error:
        device.emulate(layer, Recipe("r", FORMATS, accumulation=accumulation))
    assert message in str(error.value)


def test_random_rounding_is_refused_where_the_array_runs(device, layer):
    data = device.spec.model_dump(mode="json") | {
        "mac_formats": {"bf16": {"energy_pj": 1.0}},
        "default_formats": {"weight": "bf16", "activation": "bf16", "accumulator": "bf16"},
        "conversions": {},
    }
    short = type(device).from_data(data, source="test")
    recipe = Recipe(
        "r", {"weight": "bf16", "activation": "bf16", "accumulator": "bf16"},
        accumulation=Accumulator(format="bf16", rounding="stochastic"),
    )  # fmt: skip
    assert short.emulate(layer, recipe)(torch.randn(2, 40)).shape == (2, 7)
    with pytest.raises(InputError, match="draws no random bits"):
        short.emulate(layer, recipe, fidelity="cycle")


def test_asymmetric_integers_and_empty_batches(device, layer):
    recipe = Recipe("r", FORMATS, scaling={"activation": Scaling(symmetric=False)})
    x = torch.rand(6, 40) * 3
    plain, cycle = device.emulate(layer, recipe), device.emulate(layer, recipe, fidelity="cycle")
    assert torch.equal(plain(x), cycle(x))
    assert device.emulate(layer, fidelity="cycle")(torch.zeros(0, 40)).shape == (0, 7)


def test_faults_strike_every_product(device, layer):
    recipe = array_recipe(device.spec, device.spec.default_recipe)
    stuck = Fault(kind="stuck_at_1", register="sum", row=15, column=2, bit=28)
    late = Fault(kind="flip", register="sum", row=0, column=0, bit=0, cycle=10**9)
    broken = numerics.emulate(layer, recipe, matrix_unit=ArrayUnit(device.spec, (stuck, late)))
    x = torch.randn(4, 40)
    errors = (broken(x) - device.emulate(layer)(x)).abs().amax(dim=0)
    assert errors.argmax() == 2
    assert errors[2] > 100 * errors[[0, 1, 3, 4, 5, 6]].max()


def test_flips_lie_within_the_run():
    array = ArraySpec(rows=2, columns=2, dataflow="os", timing="rtl")
    ones = np.ones((2, 2), np.int64)
    cycles = simulate_matmul(ones, ones, array=array).cycles
    fault = Fault(kind="flip", register="drain", row=1, column=1, bit=3, cycle=cycles)
    with pytest.raises(InputError, match=f"cycle: the run has cycles 0 to {cycles - 1}, got {cycles}"):
        simulate_matmul(ones, ones, array=array, faults=[fault])
    hidden = ArraySpec(rows=2, columns=2, dataflow="os", timing="back_to_back")
    stuck = Fault(kind="stuck_at_1", register="drain", row=1, column=1, bit=3)
    with pytest.raises(InputError, match=r"register \(output_stationary\): unknown name 'drain'"):
        simulate_matmul(ones, ones, array=hidden, faults=stuck)


def test_the_cycle_rung_is_what_the_control_says(monkeypatch):
    """A control that is wrong shows, as long as the array and not the memory is what the time goes to."""
    device = hwsim.get_device("scale_sim_32x32")
    data = device.spec.model_dump(mode="json")
    data["memory"]["off_chip"] |= {"bandwidth_bytes_per_s": 1e15, "latency_s": 0.0}
    fast = type(device).from_data(data, source="test")
    workload = hwsim.trace(nn.Linear(256, 256), torch.zeros(64, 256))
    tile, cycle = (fast.simulate(workload, fidelity=f).time_s * data["clock_hz"] for f in ("tile", "cycle"))
    assert tile <= cycle < tile + 10
    real = pipeline.step_tiles
    monkeypatch.setattr(pipeline, "step_tiles", lambda array, tiles: real(array, tiles) // 2)
    assert fast.simulate(workload, fidelity="cycle").time_s * data["clock_hz"] < 0.8 * tile
