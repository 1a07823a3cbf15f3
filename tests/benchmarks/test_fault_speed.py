"""Faults a second: incremental runs of a network of four convolutions on maps of 32 × 32, on one core, beside the emulation with
one fault a forward pass and, where it is installed, PyTorchFI. Nothing is asserted as a time.

Aim: 10,000 faults in activations and 14,000 in weights, in int8.
"""

import numpy as np
import pytest
import torch
from torch import nn

import numerics
from hwsim.faults.incremental import Incremental, SiteFaults
from numerics import Recipe
from numerics.faults import BitFaults, inject
from numerics.scaling import Scaling

STATIC = Scaling("tensor", update="static")
FP32 = {"accumulation": "fp32"}
RECIPES = {
    "int8": Recipe(
        "int8", {"weight": "int8_symmetric", "activation": "int8", "accumulator": "int32"},
        scaling={"weight": Scaling("channel", update="static"), "activation": STATIC},
    ),
    "bf16": Recipe("bf16", {"weight": "bf16", "activation": "bf16"}, **FP32),
    "fp16": Recipe("fp16", {"weight": "fp16", "activation": "fp16"}, **FP32),
    "fp32": Recipe("fp32", {"weight": "fp32", "activation": "fp32"}, **FP32),
}  # fmt: skip
IMAGES, FAULTS = 64, 8192


@pytest.fixture(autouse=True)
def one_core(monkeypatch):
    monkeypatch.setattr("numerics._parallel.thread_count", lambda: 1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(4096, 10),
    ).eval()  # fmt: skip


def images():
    return torch.randn(IMAGES, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def emulated(recipe):
    emulation = numerics.emulate(network(), RECIPES[recipe]).eval()
    if recipe == "int8":
        numerics.calibrate(emulation, [images()])
    return emulation


def draw(sites, role, share):
    """One bit a fault: ``elements``, all elements of the role alike; ``layers``, all layers alike."""
    rng = np.random.default_rng(0)
    chosen = [i for i, s in enumerate(sites) if s.role == role]
    sizes = np.array([sites[i].elements for i in chosen], float)
    weights = sizes if share == "elements" else np.ones_like(sizes)
    site = rng.choice(chosen, FAULTS, p=weights / weights.sum())
    elements = np.array([rng.integers(sites[i].elements) for i in site])
    bits = np.array([rng.integers(sites[i].bits) for i in site])
    return site, rng.integers(0, IMAGES, FAULTS), elements, bits


@pytest.mark.benchmark(group="incremental")
@pytest.mark.parametrize("share", ["elements", "layers"])
@pytest.mark.parametrize("role", ["activation", "weight"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_incremental(benchmark, recipe, role, share):
    incremental = Incremental(emulated(recipe), images())
    assert incremental.own_order == ()
    faults = SiteFaults.from_bits(*draw(incremental.sites, role, share))
    found = benchmark.pedantic(incremental.run, (faults,), rounds=3, warmup_rounds=1)
    rate = FAULTS / benchmark.stats.stats.min
    benchmark.extra_info["faults_per_s"] = round(rate)
    masked = 100 * (1 - found.changed.mean())
    print(f"\n{recipe} {role}, {share} alike: {rate:,.0f} faults/s, {masked:.0f} % masked")


@pytest.mark.benchmark(group="incremental, one layer")
@pytest.mark.parametrize("number", range(10))
@pytest.mark.parametrize("recipe", ["int8", "bf16"])
def test_one_layer(benchmark, recipe, number):
    incremental = Incremental(emulated(recipe), images())
    site = incremental.sites[number]
    rng = np.random.default_rng(0)
    count = FAULTS // 8
    drawn = (rng.integers(0, most, count) for most in (IMAGES, site.elements, site.bits))
    faults = SiteFaults.from_bits(np.full(count, number), *drawn)
    benchmark.pedantic(incremental.run, (faults,), rounds=3, warmup_rounds=1)
    rate = count / benchmark.stats.stats.min
    benchmark.extra_info["faults_per_s"] = round(rate)
    print(f"\n{recipe} {site.role} of layer {site.key.module}: {rate:,.0f} faults/s")


@pytest.mark.benchmark(group="golden run")
@pytest.mark.parametrize("recipe", RECIPES)
def test_golden_run(benchmark, recipe):
    emulation, x = emulated(recipe), images()
    Incremental(emulation, x)
    benchmark.pedantic(Incremental, (emulation, x), rounds=3)
    print(f"\n{recipe}: compiled and {IMAGES / benchmark.stats.stats.min:,.0f} images/s")


@pytest.mark.benchmark(group="emulation, a fault a pass")
@pytest.mark.parametrize("role", ["activation", "weight"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_emulation(benchmark, recipe, role):
    emulation, x = emulated(recipe), images()
    fault = BitFaults(target=role, modules="5", places=((100, 3),))

    def run():
        with torch.no_grad(), inject(emulation, fault):
            emulation(x[:1])

    benchmark.pedantic(run, rounds=10, warmup_rounds=2)
    print(f"\n{recipe} {role}: {1 / benchmark.stats.stats.min:,.0f} faults/s")


@pytest.mark.benchmark(group="PyTorchFI")
@pytest.mark.parametrize("kind", ["activation", "weight", "activation, 64 a batch"])
def test_pytorchfi(benchmark, kind):
    """Its own random faults, in fp32, and the forward pass of the module that it makes for each."""
    neurons = pytest.importorskip("pytorchfi.neuron_error_models")
    weights = pytest.importorskip("pytorchfi.weight_error_models")
    core = pytest.importorskip("pytorchfi.core")
    batch = 64 if "batch" in kind else 1
    layers = [nn.Conv2d] if kind == "weight" else [nn.Conv2d, nn.Linear]
    injector = core.fault_injection(network(), batch, input_shape=[3, 32, 32], layer_types=layers, use_cuda=False)
    x = images()[:batch]
    inject_one = {
        "activation": neurons.random_neuron_inj,
        "weight": weights.random_weight_inj,
        "activation, 64 a batch": neurons.random_neuron_inj_batched,
    }[kind]
    rounds = 30

    def run():
        for _ in range(rounds):
            with torch.no_grad():
                inject_one(injector)(x)

    benchmark.pedantic(run, rounds=3, warmup_rounds=1)
    rate = rounds * batch / benchmark.stats.stats.min
    benchmark.extra_info["faults_per_s"] = round(rate)
    print(f"\nPyTorchFI {kind}: {rate:,.0f} faults/s")
