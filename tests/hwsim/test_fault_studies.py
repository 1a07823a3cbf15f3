"""Known results with bit faults, on small networks that know the digits of scikit-learn.

Where a published figure is for another network, the test holds its shape and says how far our figures are from it.
"""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

import hwsim
import numerics
from hwsim.faults import NetworkUnderTest, VoltagePlan, get_curve, wilson
from hwsim.faults.fingerprint import (
    CLEAN,
    VARIED,
    FingerprintTest,
    SelfTestingNetwork,
    fit_fingerprint,
    head_cost,
    self_test,
)
from hwsim.faults.front_module import FrontedNetwork, FrontModule, map_seed, train_front_module
from numerics import InputError, Recipe
from numerics.calibration import calibrate
from numerics.faults import BitFaults, FaultMap, Hardening, SecdedWords, corrupt, inject, stream
from numerics.scaling import Scaling

IMAGES = 256


@pytest.fixture(scope="module")
def digits():
    """Shuffled: 1,200 images to train with, 597 to test with."""
    torch.set_num_threads(1)
    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))
    x, y = torch.tensor(data.data / 16, dtype=torch.float32)[order], torch.tensor(data.target)[order]
    return x[:1200], y[:1200], x[1200:], y[1200:]


def trained(network, digits, *, steps=200):
    x, y, _, _ = digits
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        batch = torch.randint(len(x), (128,), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x[batch]), y[batch]).backward()
        optimizer.step()
    return network.eval()


def perceptron(width):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)
    )  # fmt: skip


class Normalised(nn.Module):
    """Local response normalisation over five channels, as in AlexNet."""

    def forward(self, x):
        return nn.functional.local_response_norm(x, 5, alpha=1.0, beta=0.75, k=1.0)


def convolutional(normalised):
    torch.manual_seed(0)
    layers, channels = [nn.Unflatten(1, (1, 8, 8))], 1
    for number, wanted in enumerate((8, 8, 16, 16)):
        layers += [nn.Conv2d(channels, wanted, 3, padding=1), nn.ReLU()]
        layers += [Normalised()] if normalised and number < 2 else []
        layers += [nn.MaxPool2d(2)] if number in (1, 3) else []
        channels = wanted
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64, 10))


@pytest.fixture(scope="module")
def wide(digits):
    return trained(perceptron(128), digits, steps=400)


@pytest.fixture(scope="module")
def narrow(digits):
    return trained(perceptron(64), digits)


@pytest.fixture(scope="module")
def convolutions(digits):
    return {normalised: trained(convolutional(normalised), digits, steps=150) for normalised in (False, True)}


def mean_score(network, faults, *, maps=20, protections=()):
    return float(np.mean([network.run_map([faults], protections=protections, seed=seed).score for seed in range(maps)]))


# --- formats and bits -----------------------------------------------------------------------------------------------------------


def test_int8_stands_what_bf16_does_not(wide, digits):
    """Known for an INT8 MLP on other data: clean .979, and .979/.974/.964/.949/.769 at these rates; BF16 collapses at 1e-4."""
    rates, known = (1e-4, 1e-3, 5e-3, 1e-2, 3e-2), np.array([0.979, 0.974, 0.964, 0.949, 0.769])
    found = {}
    for recipe in ("int8", "bf16", "fp16"):
        network = NetworkUnderTest(numerics.emulate(wide, recipe), *digits[2:], batch=1000)
        assert network.golden_score == pytest.approx(0.973, abs=0.005)
        found[recipe] = np.array([mean_score(network, BitFaults(rate=rate)) for rate in rates[: 5 if recipe == "int8" else 2]])
    distance = np.abs(found["int8"] - known)
    assert (distance[:4] < 0.012).all()
    assert distance[4] < 0.09
    assert (np.diff(found["int8"]) <= 0).all()
    for floats in ("bf16", "fp16"):
        # One bit in 10,000 of 26,000 weights: 42 wrong bits, of which 2.6 are the exponent's highest.
        assert found[floats][0] < 0.75
        assert found[floats][1] < 0.25


@pytest.mark.parametrize(("recipe", "exponent"), [("bf16", range(7, 15)), ("fp16", range(10, 15))])
def test_the_highest_exponent_bit_dominates(recipe, exponent, narrow, digits):
    """Li et al., SC 2017: of a float, only high exponent bits corrupt outputs."""
    network = NetworkUnderTest(numerics.emulate(narrow, recipe), *digits[2:], batch=1000)
    drop = [
        network.golden_score - mean_score(network, BitFaults(rate=1e-3, bits=(bit,)), maps=8)
        for bit in range(len(exponent) + exponent[0] + 1)
    ]
    top = exponent[-1]
    assert drop[top] > 0.3
    assert max(drop[:top]) < 0.05
    assert max(drop[: exponent[0]]) < 0.002  # the mantissa
    assert drop[top + 1] < 0.05  # the sign
    hardened = mean_score(network, BitFaults(rate=1e-3), protections=Hardening(bits=(top,)), maps=8)
    assert network.golden_score - hardened < 0.05


def test_high_bits_dominate_in_int8(narrow, digits):
    network = NetworkUnderTest(numerics.emulate(narrow, "int8"), *digits[2:], batch=1000)
    drop = np.array([network.golden_score - mean_score(network, BitFaults(rate=0.05, bits=(bit,)), maps=8) for bit in range(8)])
    assert (drop[:4] < 0.004).all()
    assert drop[7] > 1.5 * drop[6] > 1.5 * drop[5] > 0
    plain = mean_score(network, BitFaults(rate=1e-2), maps=8)
    assert mean_score(network, BitFaults(rate=1e-2), protections=Hardening(bits=(6, 7)), maps=8) > plain + 0.03
    # At this rate half of the words of 72 bits have two wrong ones or more: what corrects one of them is past its use.
    few = BitFaults(rate=1e-3)
    assert mean_score(network, few, protections=SecdedWords(), maps=8) >= mean_score(network, few, maps=8)


# --- Li et al., "Understanding error propagation in deep learning neural network … accelerators and applications", SC 2017 -----


def corruption(network, digits, *, passes=4):
    """Layer → interval of the share of flips in its input that change the prediction; one flip in each image of a pass."""
    emulation, images, every = numerics.emulate(network, "fp16").eval(), digits[2][:IMAGES], np.arange(IMAGES)
    shown, found = {}, []
    with torch.no_grad(), emulation.observe(lambda key, x: shown.setdefault(key, x.numel() // IMAGES)):
        golden = emulation(images).argmax(1)
    for key, elements in shown.items():
        if key.recipe_role != "activation":
            continue
        rng, changed = stream(0, "studies", key.module), 0
        for _ in range(passes):
            element, bit = rng.integers(0, elements, IMAGES), rng.integers(0, 16, IMAGES)
            places = tuple(zip((every * elements + element).tolist(), bit.tolist(), strict=True))
            with torch.no_grad(), inject(emulation, BitFaults(target="activation", modules=key.module, places=places)):
                changed += int((emulation(images).argmax(1) != golden).sum())
        found.append(wilson(changed, passes * IMAGES))
    assert len(found) == 5
    return found


def test_later_layers_and_normalisation(convolutions, digits):
    """Normalisation masks faults before it: in AlexNet, Li et al. find, layers that have it corrupt fewer outputs than
    those after them. The same network without it is less robust there, and its layers are closer to each other."""
    plain, normalised = (corruption(convolutions[kind], digits) for kind in (False, True))
    assert normalised[1].high < plain[1].low  # between the two normalisations
    assert normalised[0].estimate < plain[0].estimate
    assert max(i.high for i in normalised[:2]) < min(i.low for i in normalised[3:])
    assert min(i.estimate for i in plain[2:]) > max(i.estimate for i in plain[:2])
    apart = [max(i.estimate for i in found) / min(i.estimate for i in found) for found in (plain, normalised)]
    assert apart[0] < 3 < 5 < apart[1]


def test_a_value_that_is_read_more_often_does_more_harm(convolutions, digits):
    """A fault in a buffer harms more than one in the datapath: all that reuse the value read it. The same flips in the inputs of
    the second convolution, seen by one product, by one filter, and by all."""
    network, trials = convolutions[False], 4000
    before, layer, after = network[:3], network[3], numerics.emulate(network[4:], "fp16").eval()
    rng = stream(0, "studies", "reuse")
    every = np.arange(trials)
    with torch.no_grad():
        images = torch.from_numpy(rng.integers(0, IMAGES, trials))
        values = torch.from_numpy(numerics.quantize(before(digits[2][:IMAGES]).numpy(), "fp16"))[images]
        element, bit = rng.integers(0, 512, trials), rng.integers(0, 16, trials)
        faults = FaultMap.from_places(every * 512 + element, bit, "flip")
        clean, wrong = layer(values), layer(torch.from_numpy(corrupt(values.numpy(), "fp16", faults)))
        _, row, column = np.unravel_index(element, (8, 8, 8))
        row, column = (np.clip(at + rng.integers(-1, 2, trials), 0, 7) for at in (row, column))
        channel = rng.integers(0, 8, trials)
        product, filtered = clean.clone(), clean.clone()
        product[every, channel, row, column] = wrong[every, channel, row, column]
        filtered[every, channel] = wrong[every, channel]
        golden = after(clean).argmax(1)
        once, some, often = (wilson(int((after(z).argmax(1) != golden).sum()), trials) for z in (product, filtered, wrong))
    assert once.high < often.low
    assert once.estimate < some.estimate <= often.estimate


def test_relu_masks_what_stays_below_zero(narrow, digits):
    """A fault before a ReLU is masked where it leaves the value below zero. Counted from the values themselves."""
    images, every = digits[2][:IMAGES], np.arange(IMAGES)
    emulation = numerics.emulate(narrow, "fp16").eval()
    seen = {}
    with torch.no_grad(), emulation.observe(lambda key, x: seen.setdefault((key.module, key.role), x.clone())):
        golden = emulation(images)
    values = numerics.quantize(seen["0", "elementwise"].numpy(), "fp16")
    rng = stream(0, "studies", "relu")
    stopped, masked = [], []
    for _ in range(8):
        element, bit = rng.integers(0, 64, IMAGES), rng.integers(0, 16, IMAGES)
        right = values[every, element]
        wrong = corrupt(right, "fp16", FaultMap.from_places(every, bit, "flip"))
        stopped.append(np.maximum(wrong, 0) == np.maximum(right, 0))
        places = tuple(zip((64 * every + element).tolist(), bit.tolist(), strict=True))
        with torch.no_grad(), inject(emulation, BitFaults(target="elementwise", modules="0", places=places)):
            masked.append((emulation(images) == golden).all(1).numpy())
    stopped, masked = np.concatenate(stopped), np.concatenate(masked)
    assert masked[stopped].all()
    assert 0.2 < stopped.mean() < 0.5
    assert stopped.mean() > 0.8 * masked.mean()  # the ReLU masks most of what is masked at all


# --- the front module -----------------------------------------------------------------------------------------------------------


def test_front_module_recovers_accuracy(narrow, digits):
    """NeuralFuse (arXiv 2306.16869): maps that training never had, weights at the published rate of 0.50 V."""
    train_x, train_y, x, y = digits
    curve = get_curve("sram_65nm")
    faults = BitFaults(rate=curve.ber(0.50), modules="base*")
    front = FrontModule.dense(64, 32)
    base = numerics.emulate(narrow, "int8").train()
    before = [p.clone() for p in base.parameters()]
    found = train_front_module(
        base, front, (train_x, train_y), BitFaults(rate=curve.ber(0.50)), steps=120, maps=2, learning_rate=5e-3
    )
    assert base.training
    assert all(p.requires_grad and torch.equal(p, q) for p, q in zip(base.parameters(), before, strict=True))
    assert np.mean(found.faulty[-20:]) < 0.6 * np.mean(found.faulty[:20])
    bare, fronted = (
        NetworkUnderTest(numerics.emulate(FrontedNetwork(f, narrow), "int8"), x, y, batch=1000) for f in (nn.Identity(), front)
    )
    assert fronted.golden_score > bare.golden_score - 0.01
    gains = [fronted.run_map([faults], seed=s).score - bare.run_map([faults], seed=s).score for s in range(20)]
    lost = bare.golden_score - mean_score(bare, faults)
    assert np.mean(gains) > 4 * np.std(gains) / np.sqrt(20)
    assert np.mean(gains) > lost / 4

    # Its own energy is charged, at nominal voltage.
    report = hwsim.get_device("gemmini_16x16").simulate(hwsim.trace(FrontedNetwork(front, narrow), x[:64]))
    scaled = VoltagePlan(volts={"base*": 0.50}, curve=curve).energy(report, components=["scratchpad_weight"])
    own = sum(r.after_j for r in scaled.rows if r.module.startswith("front"))
    theirs = sum(r.after_j for r in scaled.rows if r.module.startswith("base"))
    assert own == sum(r.before_j for r in scaled.rows if r.module.startswith("front")) > 0
    assert theirs == pytest.approx(0.25 * sum(r.before_j for r in scaled.rows if r.module.startswith("base")))
    assert scaled.memory_saved == pytest.approx(1 - (own + theirs) / scaled.memory_before_j)


def test_front_modules_start_as_nothing_and_are_reproducible(narrow, digits):
    x, y = digits[0][:64], digits[1][:64]
    base = numerics.emulate(narrow, "int8").eval()
    for make in (lambda: FrontModule.dense(64, 4), lambda: FrontModule.convolutional(1, 2, shape=(1, 8, 8))):
        fronts = [make(), make()]
        assert torch.equal(fronts[0](x), x)
        runs = [train_front_module(base, f, (x, y), BitFaults(rate=0.01), steps=3, maps=2, seed=4) for f in fronts]
        assert runs[0] == runs[1]
        assert all(torch.equal(p, q) for p, q in zip(fronts[0].parameters(), fronts[1].parameters(), strict=True))
        with torch.no_grad():
            changed = fronts[0](x)
        assert not torch.equal(changed, x)
        assert 0 <= float(changed.min()) <= float(changed.max()) <= 1
    assert len({map_seed(0, n) for n in range(1000)}) == 1000


def test_front_module_gradient_is_that_of_the_faulty_weights(digits):
    """One layer in a float format: d loss/d x is the softmax's error times the weights that the injection reads."""
    torch.manual_seed(0)
    layer = nn.Linear(64, 10)
    emulation = numerics.emulate(layer, Recipe(name="w", formats={"weight": "bf16", "activation": "fp32", "gradient": "fp32"}))
    x = digits[0][:8].clone().requires_grad_()
    with inject(emulation.eval(), BitFaults(rate=0.01, bits="mantissa"), seed=3) as injection:
        out = emulation(x)
        nn.functional.cross_entropy(out, digits[1][:8]).backward()
    weights = numerics.quantize(layer.weight.detach().numpy(), "bf16")
    weights = torch.from_numpy(corrupt(weights, "bf16", injection.hits[0].faults)).double()
    error = torch.softmax(out.detach().double(), 1) - nn.functional.one_hot(digits[1][:8], 10)
    torch.testing.assert_close(x.grad.double(), error @ weights / 8, rtol=1e-4, atol=1e-6)


# --- the fingerprint ------------------------------------------------------------------------------------------------------------

STATIC = Recipe(
    name="int8_static",
    formats={"weight": "int8", "activation": "int8", "accumulator": "int32", "elementwise": "fp32"},
    scaling={"activation": Scaling(update="static")},
)
SCENARIOS = {
    "weights, flips": BitFaults(rate=3e-3),
    "weights, stuck at 0": BitFaults(kind="stuck_at_0", rate=1e-2),
    "weights, stuck at 1": BitFaults(kind="stuck_at_1", rate=5e-3),
    "activations, stuck at 1": BitFaults(kind="stuck_at_1", target="activation", rate=2e-3),
    "accumulators, flips": BitFaults(target="accumulator", rate=2e-4),
}


@pytest.fixture(scope="module")
def tested(narrow, digits):
    train_x, _, x, y = digits
    network = SelfTestingNetwork.around(narrow, train_x[:2], taps=("1", "3", "4"))
    emulation = numerics.emulate(network, STATIC).eval()
    calibrate(emulation, [train_x])
    rms = fit_fingerprint(emulation, train_x)
    test = FingerprintTest.calibrated(emulation, x[:250])
    return emulation, rms, test, self_test(emulation, (x[250:], y[250:]), SCENARIOS, test, maps=25, variation=0.01)


def test_fingerprint_is_the_ridge_solution(narrow, digits):
    """In FP32: the weights solve (XᵀX + r n S) w = Xᵀ1 with S the mean squares of the taps."""
    x = digits[0][:300]
    network = SelfTestingNetwork.around(narrow, x[:2], taps=("1", "4"))
    emulation = numerics.emulate(network, "fp32").eval()
    rms = fit_fingerprint(emulation, x, ridge=0.01)
    with torch.no_grad():
        outputs, (hidden, logits) = network.tapped(x)
        assert torch.equal(outputs, narrow(x))
        features = torch.cat([hidden, logits], 1).double().numpy()
        weights = torch.cat([layer.weight for layer in emulation.module.head], 1).double().numpy()[0]
        fingerprints = emulation(x)[1].double().numpy()
    penalty = np.repeat([np.mean(h.double().numpy() ** 2) for h in (hidden, logits)], (64, 10)) * 0.01 * 300
    left = (features.T @ features + np.diag(penalty)) @ weights
    np.testing.assert_allclose(left, features.sum(0), rtol=1e-3, atol=1e-6)
    assert rms == pytest.approx(np.sqrt(np.mean((features @ weights - 1) ** 2)), rel=1e-3)
    np.testing.assert_allclose(fingerprints, features @ weights, atol=1e-5)


def test_fingerprint_finds_harmful_faults(tested, narrow):
    """Up to 100 % coverage is published (arXiv 2401.01458). 125 fault maps here; overhead below 2 %."""
    _, rms, test, result = tested
    assert rms < 0.08
    assert test.centre == pytest.approx(1, abs=0.02)
    assert len(result.chosen()) == 125
    assert len(result.chosen(harmful=True)) > 80
    assert result.coverage().estimate > 0.97
    assert result.coverage().low > 0.93
    for scenario in SCENARIOS:
        assert result.coverage(scenario).estimate > 0.9
    assert result.false_positives(CLEAN).estimate <= 0.04
    assert result.false_positives(VARIED).estimate <= 0.08
    assert result.area() > 0.99
    false, true = result.roc()
    assert (np.diff(false) >= 0).all()
    assert (np.diff(true) >= 0).all()
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)
    cost = head_cost(SelfTestingNetwork.around(narrow, torch.zeros(2, 64), taps=("1", "3", "4")), torch.zeros(1, 64))
    assert (cost.macs, cost.parameters) == (138, 138)
    assert (cost.network_macs, cost.network_parameters) == (64 * 64 * 2 + 640, 64 * 64 * 2 + 640 + 138)
    assert cost.mac_overhead < 0.02


def test_area_under_the_roc_is_the_share_of_ordered_pairs(tested):
    result = tested[3]
    for scenario in (None, "accumulators, flips"):
        good = [max(run.distances) for run in result.chosen(CLEAN)]
        bad = [max(run.distances) for run in result.chosen(scenario, harmful=True)]
        ordered = np.mean([(b > g) + 0.5 * (b == g) for b in bad for g in good])
        assert result.area(scenario) == pytest.approx(ordered)


def test_fingerprints_have_what_they_say(tested, digits):
    """Runs are a function of the seed; a chip of weights that vary leaves the network as it was; NaN raises the alarm."""
    emulation, _, test, result = tested
    x, y = digits[2][250:], digits[3][250:]
    kept = [p.clone() for p in emulation.parameters()]
    few = {"weights, flips": SCENARIOS["weights, flips"]}
    again = self_test(emulation, (x, y), few, test, maps=2, variation=0.01)
    assert again.runs == tuple(r for r in result.runs if r.scenario in (CLEAN, VARIED, *few) and r.number < 2)
    assert all(torch.equal(p, q) for p, q in zip(emulation.parameters(), kept, strict=True))
    run = again.chosen("weights, flips")[1]
    with torch.no_grad(), inject(emulation, few["weights, flips"], seed=int(
        stream(0, "fingerprint map", "weights, flips", 1).integers(0, 1 << 56)
    )):  # fmt: skip
        outputs, fingerprints = emulation(x)
    assert run.accuracy == pytest.approx((outputs.argmax(1) == y).double().mean().item())
    off = np.abs(fingerprints.double().numpy() - test.centre)
    assert off.min() <= min(run.distances)
    assert max(run.distances) <= off.max()
    bf16 = numerics.emulate(emulation.module, "bf16").eval()
    nan = BitFaults(kind="stuck_at_1", bits="exponent", rate=0.05)
    broken = self_test(bf16, (x, y), {"exponents": nan}, test, maps=2)
    assert all(max(r.distances) == np.inf for r in broken.chosen())
    assert broken.coverage().estimate == 1


# --- bad input ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda n, e, x, y: FrontModule(nn.Identity(), low=1, high=0), "low, high: expected low < high"),
        (lambda n, e, x, y: FrontModule.dense(64, 0), "hidden: expected an integer ≥ 1, got 0"),
        (lambda n, e, x, y: train_front_module(n, n, (x, y), BitFaults(rate=0.1)), "emulation: expected a module from"),
        (lambda n, e, x, y: train_front_module(e, n, (x, y[:3]), BitFaults(rate=0.1)), "data: expected as many labels"),
        (lambda n, e, x, y: train_front_module(e, n, (x, y), BitFaults(places=((0, 0),))), "faults: expected BitFaults with a"),
        (lambda n, e, x, y: train_front_module(e, n, (x, y), BitFaults(rate=0.1, modules="base*")), "faults: expected a pattern"),
        (lambda n, e, x, y: train_front_module(e, nn.ReLU(), (x, y), BitFaults(rate=0.1)), "front: expected a module with"),
        (lambda n, e, x, y: train_front_module(e, n, (x, y), BitFaults(rate=0.1), steps=0), "steps: expected an integer ≥ 1"),
        (lambda n, e, x, y: train_front_module(e, n, (x, y), BitFaults(rate=0.1), weight=0), "weight: expected a number above 0"),
        (lambda n, e, x, y: SelfTestingNetwork(n, {}), "taps: expected at least one module path"),
        (lambda n, e, x, y: SelfTestingNetwork(n, {"7": 3}), "taps: expected paths of the network's modules, got '7'"),
        (lambda n, e, x, y: fit_fingerprint(e, x), "emulation: expected one of a SelfTestingNetwork, got Sequential"),
        (lambda n, e, x, y: head_cost(n, x), "network: expected a SelfTestingNetwork, got Sequential"),
    ],
)
def test_bad_input(call, said, narrow, digits):
    emulation = numerics.emulate(narrow, "int8").eval()
    with pytest.raises(InputError, match=said):
        call(narrow, emulation, digits[0][:8], digits[1][:8])


def test_bad_self_tests(tested, digits):
    emulation, _, test, _ = tested
    x, y = digits[2][:40], digits[3][:40]
    with pytest.raises(InputError, match="ridge: expected a number ≥ 0, got -1"):
        fit_fingerprint(emulation, x, ridge=-1)
    with pytest.raises(InputError, match="window: expected an integer from 1 to the 40 inputs, got 41"):
        FingerprintTest.calibrated(emulation, x, window=41)
    with pytest.raises(InputError, match="false_alarms: expected a share between 0 and 1, got 0"):
        FingerprintTest.calibrated(emulation, x, false_alarms=0)
    with pytest.raises(InputError, match="'clean' names the chips without faults"):
        self_test(emulation, (x, y), {"clean": BitFaults(rate=0.1)}, test)
    with pytest.raises(InputError, match="variation: expected a share from 0 to below 1, got 1"):
        self_test(emulation, (x, y), {}, test, variation=1)
    with pytest.raises(InputError, match="maps: expected an integer ≥ 1, got 0"):
        self_test(emulation, (x, y), {}, test, maps=0)
    found = self_test(emulation, (x, y), {}, test, maps=1)
    with pytest.raises(InputError, match="scenario: has no such runs"):
        found.coverage()
