"""The loss scaler against torch.amp.GradScaler, and where FP16 needs it."""

from __future__ import annotations

import json
import math
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from numerics import InputError, quantize
from numerics.loss_scaling import LossScaler
from numerics.recipes import LossScaling


def raises(text):
    return pytest.raises(InputError, match="^" + re.escape(text))


@given(
    overflows=st.lists(st.sampled_from([0.0, 0.0, 0.0, math.inf, math.nan]), min_size=1, max_size=40),
    interval=st.integers(1, 5),
    initial=st.sampled_from([1.0, 2.0**16, 2.0**125, 3.0]),
    growth=st.sampled_from([1.5, 2.0, 4.0]),
)
def test_factor_and_steps_are_those_of_torch(overflows, interval, initial, growth):
    ours = LossScaler(LossScaling(initial=initial, growth=growth, interval=interval))
    theirs = torch.amp.GradScaler("cpu", init_scale=initial, growth_factor=growth, growth_interval=interval)
    weights = [nn.Parameter(torch.zeros(3)) for _ in range(2)]
    optimizers = [torch.optim.SGD([w], lr=1.0) for w in weights]
    for bad in overflows:
        for w in weights:
            w.grad = None
        ours.scale((weights[0] * 0.5).sum()).backward()
        theirs.scale((weights[1] * 0.5).sum()).backward()
        for w in weights:
            w.grad[1] += bad
        ours.step(optimizers[0])
        theirs.step(optimizers[1])
        theirs.update()
        assert ours.factor == theirs.get_scale()
        assert torch.equal(*weights)


def test_a_constant_factor_stays():
    scaler = LossScaler(LossScaling(initial=8.0, growth=1.0, backoff=1.0, interval=1))
    for gradient in (1.0, math.inf, 1.0):
        scaler.step(weight_and_optimizer([gradient, 1.0])[1])
        assert scaler.factor == 8.0
    assert scaler.skipped == 1


def weight_and_optimizer(gradient):
    w = nn.Parameter(torch.zeros(2))
    w.grad = torch.tensor(gradient)
    return w, torch.optim.SGD([w], lr=1.0)


def test_unscaled_gradients_can_be_clipped_before_the_step():
    scaler = LossScaler(LossScaling(initial=8.0))
    w, optimizer = weight_and_optimizer([24.0, 32.0])
    scaler.unscale(optimizer)
    assert w.grad.tolist() == [3.0, 4.0]
    nn.utils.clip_grad_norm_([w], 1.0)
    assert scaler.step(optimizer)
    torch.testing.assert_close(w.detach(), torch.tensor([-0.6, -0.8]))


def test_one_overflow_holds_every_optimizer_back():
    scaler = LossScaler(LossScaling(initial=8.0))
    (a, first), (b, second) = weight_and_optimizer([1.0, 1.0]), weight_and_optimizer([1.0, math.inf])
    assert not scaler.step(first, second)
    assert a.tolist() == b.tolist() == [0.0, 0.0]
    assert (scaler.factor, scaler.skipped) == (4.0, 1)


def test_without_a_rule_nothing_is_scaled_or_skipped():
    scaler = LossScaler()
    loss = torch.tensor(3.0)
    assert scaler.scale(loss) is loss
    w, optimizer = weight_and_optimizer([1.0, math.inf])
    assert scaler.step(optimizer)
    assert w.tolist() == [-1.0, -math.inf]
    assert (scaler.factor, scaler.skipped) == (1.0, 0)


def test_gradients_below_fp16_come_back_exactly():
    """2^−26 is less than half of FP16's smallest number; times 2^10 it is a number, and powers of two scale back exactly."""
    tiny = torch.tensor([2.0**-26, -3 * 2.0**-27])
    assert quantize(tiny, "fp16").tolist() == [0.0, -0.0]
    scaler = LossScaler(LossScaling(initial=2.0**10))
    w, optimizer = weight_and_optimizer(quantize(scaler.scale(tiny), "fp16").tolist())
    scaler.step(optimizer)
    assert torch.equal(w.detach(), -tiny)


def test_saved_state_goes_on():
    first = LossScaler(LossScaling(initial=8.0, interval=3))
    for gradient in (1.0, math.inf, 1.0, 1.0):
        first.step(weight_and_optimizer([gradient, 1.0])[1])
    second = LossScaler(LossScaling(initial=8.0, interval=3))
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert (second.factor, second.steps, second.skipped) == (4.0, 2, 1)
    for scaler in (first, second):
        scaler.step(weight_and_optimizer([1.0, 1.0])[1])
    assert first.factor == second.factor == 8.0


def test_gradients_that_overflow_whatever_the_factor_are_an_error():
    scaler = LossScaler(LossScaling(initial=4.0))
    with raises("loss_scaling: gradients overflow even at a factor of 1.17549e-38; expected finite ones"):
        for _ in range(200):
            scaler.step(weight_and_optimizer([math.nan, 0.0])[1])
    assert scaler.skipped == 2 + 126 + 1


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: LossScaler(2.0**16), "scaling: expected a LossScaling or None, got 65536.0"),
        (lambda: LossScaler().step(), "step: expected at least one optimizer, got none"),
        (
            lambda: LossScaler().load_state_dict({"factors": 1}),
            "loss scaler: field: unknown name 'factors'; did you mean 'factor'",
        ),
        (lambda: LossScaler().load_state_dict({"factor": 1, "steps": 0}), "loss scaler: skipped: missing; expected what"),
        (
            lambda: LossScaler().load_state_dict({"factor": 0.0, "steps": 0, "skipped": 0}),
            "loss scaler: factor: expected a positive number, got 0.0",
        ),
    ],
)
def test_bad_input_is_named(make, text):
    with raises(text):
        make()


def test_unscaling_twice_is_an_error():
    scaler = LossScaler(LossScaling())
    _, optimizer = weight_and_optimizer([1.0, 1.0])
    scaler.unscale(optimizer)
    with raises("unscale: the gradients of this optimizer are unscaled already; expected step() before the next"):
        scaler.unscale(optimizer)
