"""What passes backward through a quantiser, delayed and static scales, and random bits."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

import numerics
from numerics import InputError, Recipe, get_recipe, quantize
from numerics.emulation import emulate
from numerics.scaling import Scaling

WIDE = {"gradient": "fp32", "elementwise": "fp32", "accumulator": "fp32"}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def gradient_of_input(recipe, x, w):
    """dL/dx of L = Σ c·(x @ wᵀ), and the gradient that arrives at the quantised x."""
    layer = nn.Linear(w.shape[1], w.shape[0], bias=False)
    layer.weight.data = w.clone()
    leaf = x.clone().requires_grad_()
    y = emulate(layer, recipe)(leaf)
    c = torch.arange(1.0, y.numel() + 1).reshape(y.shape)
    (y * c).sum().backward()
    return leaf.grad, c @ w


@pytest.mark.parametrize(("fmt", "largest"), [("e4m3fn", 448.0), ("e2m1fn", 6.0), ("q3.2", 3.75), ("ternary", 1.0)])
@pytest.mark.parametrize("estimator", ["straight_through", "clipped", "exact"])
def test_saturated_values_pass_no_gradient_when_clipped(fmt, largest, estimator):
    x = torch.tensor([[0.3, largest * 0.99, largest * 1.3, -largest * 2, -0.1, 0.0]])
    w = torch.randn(3, 6)
    recipe = Recipe(
        "r", {"weight": "fp32", "activation": fmt, **WIDE}, scaling={"activation": Scaling("none")}, gradient_estimator=estimator
    )
    found, arrives = gradient_of_input(recipe, x, w)
    mask = torch.tensor([[1.0, 1, 0, 0, 1, 1]]) if estimator != "straight_through" else 1.0
    assert torch.equal(found, arrives * mask)


def test_blocks_saturate_where_the_scale_was_rounded_down():
    """MXFP4: amax 7.9 gives the scale 2^0, beyond whose 6 values saturate; from 7 on they would round to 8."""
    x = torch.cat([torch.tensor([7.9, -7.1, 6.9, 6.0, 0.1]), torch.zeros(27), torch.tensor([3.0]), torch.zeros(31)])[None]
    recipe = Recipe("r", {"weight": "fp32", "activation": "mxfp4", **WIDE}, gradient_estimator="clipped")
    found, arrives = gradient_of_input(recipe, x, torch.randn(3, 64))
    expected = arrives.clone()
    expected[0, :2] = 0
    assert torch.equal(found, expected)


@pytest.mark.parametrize("fmt", ["int8_symmetric", "int4", "e4m3fn"])
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_exact_estimator_is_the_formula_of_lsq_through_the_scale(fmt, granularity):
    """dL/dx_j = g_j + sign(x_j)/max · Σ g·(q/s − x/s) at the largest magnitude, g elsewhere; one sum for each scale."""
    recipe = Recipe(
        "r",
        {"weight": "fp32", "activation": fmt, **WIDE},
        scaling={"activation": Scaling(granularity)},
        gradient_estimator="exact",
    )
    x, w = torch.randn(4, 6), torch.randn(3, 6)
    found, arrives = gradient_of_input(recipe, x, w)
    expected = arrives.clone()
    top = numerics.get_format(fmt).max
    parts = [(0, 4)] if granularity == "tensor" else [(i, i + 1) for i in range(4)]
    for first, last in parts:
        part, g = x[first:last], arrives[first:last]
        scale = part.abs().max() / top
        at = part.abs().argmax()
        slope = (g * (quantize(part / scale, fmt) - part / scale)).sum()
        expected[first:last].view(-1)[at] += torch.sign(part.view(-1)[at]) / top * slope
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(found, arrives)


def test_exact_estimator_is_the_derivative_by_the_largest_element():
    """Where a small change of the largest element moves the scale but no code, the quantised values are linear in it: finite
    differences see exactly that derivative."""
    recipe = Recipe(
        "r", {"weight": "fp64", "activation": "int8_symmetric", "gradient": "fp64", "elementwise": "fp64", "accumulator": "fp64"},
        scaling={"activation": Scaling("tensor")}, gradient_estimator="exact",
    )  # fmt: skip
    layer = nn.Linear(6, 3, bias=False).double()
    x = torch.tensor([[0.3, -2.0, 0.77, 1.1, -0.2, 0.5]], dtype=torch.float64)
    c = torch.tensor([[1.0, -2.0, 3.0]], dtype=torch.float64)
    emulation = emulate(layer, recipe)
    leaf = x.clone().requires_grad_()
    (emulation(leaf) * c).sum().backward()
    step = torch.zeros_like(x)
    step[0, 1] = 1e-7
    difference = ((emulation(x + step) - emulation(x - step)) * c).sum() / 2e-7
    # Rounding itself is taken as the identity (straight through), which finite differences do not see.
    scale, codes = 2.0 / 127, torch.round(x * 127 / 2.0)
    arrives = (c @ layer.weight.detach())[0]
    assert difference.item() == pytest.approx((-1 / 127 * (arrives * codes[0]).sum()).item(), rel=1e-6)
    through_values = (arrives * (x[0] / scale)).sum() * -1 / 127
    assert leaf.grad[0, 1].item() == pytest.approx(difference.item() + arrives[1].item() - through_values.item(), rel=1e-6)


def test_results_that_saturate_pass_no_gradient_when_clipped():
    recipe = Recipe(
        "r", {"weight": "fp32", "activation": "fp32", "gradient": "fp32", "elementwise": "e2m1fn"}, gradient_estimator="clipped"
    )
    module = nn.ReLU()
    x = torch.tensor([1.0, 9.0, -9.0], requires_grad=True)
    emulate(module, recipe)(x).sum().backward()
    assert torch.equal(x.grad, torch.tensor([1.0, 0.0, 0.0]))


# --- delayed scales -------------------------------------------------------------------------------------------------------


def delayed(history=3, margin=0, **more):
    scaling = Scaling("tensor", update="delayed", history=history, margin=margin)
    formats = {"weight": "fp32", "activation": "e4m3fn", "gradient": "e5m2", "elementwise": "fp32"}
    return Recipe("r", formats, scaling={"activation": scaling, "gradient": scaling}, **more)


def identity_layer():
    layer = nn.Linear(4, 4, bias=False)
    nn.init.eye_(layer.weight)
    return layer


def test_a_step_takes_the_largest_magnitude_of_the_steps_before():
    emulation = emulate(identity_layer(), delayed())
    seen = []
    amaxes = [2.0, 8.0, 1.0, 1.0, 1.0, 0.5]
    for amax in amaxes:
        x = torch.randn(3, 4).clamp(-1, 1) * 0.9 * amax
        x[0, 0] = amax
        # By hand: the first step has no history and takes its own; then the largest of the last three.
        scale = torch.tensor(max(seen[-3:], default=amax)) / 448
        y = emulation(x)
        assert torch.equal(y, quantize(x, "e4m3fn", scale=scale)), amax
        seen.append(amax)
    assert seen == amaxes


def test_gradients_keep_a_history_of_their_own():
    emulation = emulate(identity_layer(), delayed(history=1))
    x = torch.randn(2, 4)
    for step, amax in enumerate([3.0, 5.0, 7.0]):
        leaf = x.clone().requires_grad_()
        g = torch.full((2, 4), amax)
        emulation(leaf).backward(g)
        scale = torch.tensor([3.0, 3.0, 5.0][step]) / 57344
        assert torch.equal(leaf.grad, quantize(g, "e5m2", scale=scale, overflow="saturate"))


def test_evaluation_reads_the_history_and_leaves_it():
    emulation = emulate(identity_layer(), delayed())
    emulation(torch.full((1, 4), 3.0))
    emulation(torch.full((1, 4), 1.0))
    emulation.eval()
    x = torch.tensor([[0.1, 0.2, 0.3, 100.0]])
    for _ in range(3):
        # The first step is history; the second is still under way.
        assert torch.equal(emulation(x), quantize(x, "e4m3fn", scale=torch.tensor(3.0) / 448))
    emulation.train()
    emulation(x)
    assert torch.equal(emulation(x), quantize(x, "e4m3fn", scale=torch.tensor(100.0) / 448))


def test_margin_leaves_room():
    emulation = emulate(identity_layer(), delayed(margin=2))
    x = torch.tensor([[1.0, 0.3, 0.7, 0.01]])
    assert torch.equal(emulation(x), quantize(x, "e4m3fn", scale=torch.tensor(4.0) / 448))


def test_state_goes_on_bit_for_bit():
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    recipe = replace(get_recipe("fp8_delayed"), rounding={"gradient": "stochastic"})
    batches = [torch.randn(4, 8) * 2.0**k for k in (0, 5, 1, 2)]

    def step(emulation, x):
        emulation.zero_grad()
        y = emulation(x)
        y.square().sum().backward()
        return [y.detach(), *(p.grad for p in emulation.parameters())]

    one = emulate(net, recipe, seed=3)
    for x in batches[:2]:
        step(one, x)
    state = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in one.state_dict().items()}
    other = emulate(net, recipe, seed=99)
    other.load_state_dict(state)
    for x in batches[2:]:
        assert all(map(torch.equal, step(one, x), step(other, x)))
    fresh = emulate(net, recipe, seed=3)
    assert not torch.equal(step(fresh, batches[3])[0], step(one, batches[3])[0])


# --- static scales --------------------------------------------------------------------------------------------------------


def static(**scaling):
    entry = Scaling(update="static", **scaling)
    return Recipe("ptq", {"weight": "int8", "activation": "int8", **WIDE, "accumulator": "int32"}, scaling={"activation": entry})


def test_static_scales_come_from_a_calibration():
    layer = nn.Linear(8, 3, bias=False)
    x = torch.randn(4, 8)
    seen = {}
    emulation = emulate(layer, static())
    dynamic = emulate(layer, replace(static(), scaling={}))
    with dynamic.observe(lambda key, tensor: seen.setdefault(key, tensor.clone())):
        dynamic(x)
    assert list(seen) == [("", 0, "activation"), ("", 0, "weight"), ("", 0, "elementwise")]
    assert torch.equal(seen["", 0, "activation"], x)
    assert torch.equal(seen["", 0, "weight"], layer.weight)
    with pytest.raises(InputError, match="no scale for operator 0 of module '', activation"):
        emulation(x)
    emulation.calibrate({("", 0, "activation"): 0.05})
    w = layer.weight.detach()
    qw = quantize(w, "int8", scale=w.abs().max() / 127)
    assert torch.allclose(emulation(x), quantize(x, "int8", scale=0.05) @ qw.T, rtol=1e-5, atol=1e-6)
    again = emulate(layer, static(), calibration={("", 0, "activation"): torch.tensor(0.05)})
    assert torch.equal(again(x), emulation(x))
    restored = emulate(layer, static())
    restored.load_state_dict(emulation.state_dict())
    assert torch.equal(restored(x), emulation(x))


def test_static_zero_points():
    layer = identity_layer()
    x = torch.rand(3, 4) * 4 + 1
    emulation = emulate(layer, static(symmetric=False), calibration={("", 0, "activation"): (0.02, -128)})
    codes = (torch.round(x / 0.02) - 128).clamp(-128, 127)
    assert torch.allclose(emulation(x), (codes + 128) * 0.02, atol=1e-5)


@pytest.mark.parametrize(
    ("scales", "text"),
    [
        ({"activation": 1.0}, r"calibration: expected keys \(module path, operator, role\), got 'activation'"),
        ({("", 0, "activation"): 0.0}, "expected positive, finite numbers, got 0.0"),
        ({("", 0, "activation"): math.nan}, "expected positive, finite numbers, got nan"),
    ],
)
def test_wrong_calibrations_are_named(scales, text):
    with pytest.raises(InputError, match=text):
        emulate(nn.Linear(2, 2), static(), calibration=scales)


def test_both_operands_of_one_role_have_keys():
    class Scores(nn.Module):
        def forward(self, q, k):
            return q @ k.mT

    emulation, keys = emulate(Scores(), "int8"), []
    with emulation.observe(lambda key, _: keys.append(key)):
        emulation(torch.randn(2, 4), torch.randn(3, 4))
    assert [k.role for k in keys] == ["activation", "activation_2", "elementwise"]
    assert [k.recipe_role for k in keys] == ["activation", "activation", "elementwise"]


# --- random bits ------------------------------------------------------------------------------------------------------------


STOCHASTIC = Recipe(
    "sr", {"weight": "e4m3fn", "activation": "e4m3fn", "gradient": "e5m2", "elementwise": "fp32"},
    rounding={"activation": "stochastic", "gradient": "stochastic"},
)  # fmt: skip


def test_a_seed_repeats_and_steps_operators_and_calls_differ():
    net = nn.Sequential(nn.Linear(64, 64, bias=False))
    nn.init.eye_(net[0].weight)
    x = torch.rand(32, 64)
    one, same, other = (emulate(net, STOCHASTIC, seed=s) for s in (1, 1, 2))
    first = one(x)
    assert torch.equal(first, same(x))
    assert not torch.equal(first, other(x))
    assert not torch.equal(first, one(x))
    twice = emulate(nn.Sequential(net[0], net[0]), replace(STOCHASTIC, rounding={"activation": "stochastic"}), seed=1)
    seen = []
    with twice.observe(lambda key, tensor: seen.append(tensor) if key.role == "elementwise" else None):
        twice(x + 0.003)
    # The second call of one layer gets what the first rounded, which is in the format: nothing left to draw for.
    assert torch.equal(seen[0], seen[1])
    parallel = emulate(Twice(net[0]), STOCHASTIC, seed=1)
    a, b = parallel(x)
    assert not torch.equal(a, b)


class Twice(nn.Module):
    """One layer called twice with the same input."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x), self.layer(x)


def test_stochastic_gradients_are_right_on_average():
    layer = identity_layer()
    emulation = emulate(layer, replace(STOCHASTIC, rounding={"gradient": "stochastic"}), seed=7)
    g = torch.full((1000, 4), 1.1)
    leaf = torch.zeros(1000, 4, requires_grad=True)
    emulation(leaf).backward(g)
    assert set(leaf.grad.unique().tolist()) == {1.0, 1.25}
    assert leaf.grad.mean().item() == pytest.approx(1.1, abs=4 * 0.25 * math.sqrt(0.24 / 4000))
