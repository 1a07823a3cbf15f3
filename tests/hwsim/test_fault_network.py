"""A network under test: outcomes against networks that are corrupted by hand."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import numerics
from hwsim.faults.network import NetworkUnderTest, Place, compared
from numerics import InputError, Recipe
from numerics.faults import BitFaults, FaultMap, SecdedWords, corrupt


@pytest.fixture(scope="module")
def convolutional():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 10))
    return module, torch.randn(12, 1, 8, 8)


@pytest.mark.parametrize("recipe", ["bf16", "fp16", "fp32"])
def test_weight_places_equal_a_corrupted_weight(convolutional, recipe):
    module, x = convolutional
    network = NetworkUnderTest(numerics.emulate(module, recipe), x, batch=5)
    sites = network.sites(["weight"])
    assert [(site.layer, site.elements) for site in sites] == [("0", 36), ("4", 640)]
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(25):
        which = int(rng.integers(2))
        place = Place(
            which, int(rng.integers(sites[which].elements)), int(rng.integers(sites[which].bits)), int(rng.integers(12))
        )
        twin = copy.deepcopy(module)
        weight = twin[0 if which == 0 else 4].weight
        values = numerics.quantize(weight.detach(), recipe) if recipe != "fp32" else weight.detach()
        weight.data = corrupt(values, recipe, FaultMap.from_places([place.element], [place.bit])).view(weight.shape)
        image = x[place.image : place.image + 1]
        with torch.no_grad():
            clean, broken = (numerics.emulate(m, recipe).eval()(image) for m in (module, twin))
        (found,) = network.run_places(sites, [place])
        finite = bool(torch.isfinite(broken).all())
        expected = "masked" if torch.equal(clean, broken) else "silent" if finite else "nan"
        assert found.outcome == expected
        assert found.changed == bool(clean.argmax() != broken.argmax())
        seen.add(expected)
    assert len(seen) > 1


@pytest.mark.parametrize("recipe", ["bf16", "int8"])
def test_places_together_are_places_alone(convolutional, recipe):
    module, x = convolutional
    network = NetworkUnderTest(numerics.emulate(module, recipe), x, batch=7)
    sites = network.sites()
    assert {site.separable for site in sites if site.role == "activation"} == {recipe == "bf16"}
    rng = np.random.default_rng(1)
    places = [
        Place(which, int(rng.integers(sites[which].elements)), int(rng.integers(sites[which].bits)), int(rng.integers(12)))
        for which in rng.integers(len(sites), size=40)
    ]
    together = network.run_places(sites, places)
    assert together == [network.run_places(sites, [place])[0] for place in places]
    assert {outcome.outcome for outcome in together} >= {"masked", "silent"}


def test_a_convolution_in_integers_reads_a_faulty_value_in_every_window(convolutional):
    module, x = convolutional
    recipe = numerics.get_recipe("int8")
    emulation = numerics.emulate(module[:1], recipe).eval()
    image = x[:1]
    scale = image.abs().max() / 127
    codes = torch.round(image / scale)
    code = int(codes[0, 0, 3, 3])
    codes[0, 0, 3, 3] = (code ^ 1 << 5) if code >= 0 else ((code & 255) ^ 1 << 5) - 256
    weight = module[0].weight.detach()
    steps = weight.abs().amax((1, 2, 3), keepdim=True) / 127
    expected = nn.functional.conv2d(codes, torch.round(weight / steps), padding=1) * scale * steps.view(1, -1, 1, 1)
    expected = expected + module[0].bias.detach().view(1, -1, 1, 1)
    from numerics.faults import inject

    place = BitFaults(target="activation", places=((3 * 8 + 3, 5),))
    with torch.no_grad():
        clean = emulation(image)
        with inject(emulation, place):
            found = emulation(image)
    differs = (found != clean).any(1)[0]
    assert {(int(r), int(c)) for r, c in differs.nonzero()} <= {(r, c) for r in (2, 3, 4) for c in (2, 3, 4)}
    assert int(differs.sum()) == 9
    step = float((found - expected).abs().max())
    assert step <= float(expected.abs().max()) / 127  # the result's own rounding


def test_maps():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
    x, labels = torch.randn(50, 16), torch.arange(50) % 4
    network = NetworkUnderTest(numerics.emulate(module, "bf16"), x, labels, batch=16)
    with torch.no_grad():
        predicted = numerics.emulate(module, "bf16").eval()(x).argmax(1)
    assert network.golden_score == pytest.approx(float((predicted == labels).float().mean()))
    none = network.run_map([])
    assert (none.outcome, none.masked, none.changed, none.score) == ("masked", 50, 0, pytest.approx(network.golden_score))
    faults = [BitFaults(rate=0.02)]
    broken = network.run_map(faults, seed=3)
    assert broken == network.run_map(faults, seed=3) != network.run_map(faults, seed=4)
    assert broken.outcome in ("nan", "silent")
    assert broken.faulty_bits > 50
    assert broken.changed > 0
    kept = network.run_map([BitFaults(rate=5e-5)], protections=[SecdedWords()], seed=0)
    assert kept.outcome == "masked" or kept.detected
    agreement = NetworkUnderTest(numerics.emulate(module, "bf16"), x)
    assert agreement.golden_score == 1.0
    assert agreement.run_map(faults, seed=3).score == pytest.approx(1 - broken.changed / 50)


def test_outputs_are_compared_bit_for_bit():
    nan, other = (np.uint32(code).view(np.float32) for code in (0x7FC00000, 0x7FC00001))
    golden = torch.tensor([[0.0, 1.0], [nan, 1.0], [0.0, 1.0], [2.0, 1.0], [3.0, 1.0]])
    out = torch.tensor([[-0.0, 1.0], [nan, 1.0], [0.0, float("inf")], [1.0, 2.0], [3.0, 1.0]])
    out[1, 0] = torch.from_numpy(np.array([other]))[0]
    equal, broken, moved = compared(out, golden)
    assert equal.tolist() == [False, False, False, False, True]
    assert broken.tolist() == [False, False, True, False, False]
    assert moved.tolist()[2:] == [False, True, False]


def test_refusals(convolutional):
    module, x = convolutional
    emulation = numerics.emulate(module, "bf16")
    for arguments, text in (
        ((module, x), r"^model: expected an emulated module"),
        ((emulation, x[:0]), r"^data: expected tensors with as many images"),
        ((emulation, x, [1, 2]), r"^labels: expected 12, one an image, got 2$"),
    ):
        with pytest.raises(InputError, match=text):
            NetworkUnderTest(*arguments)
    with pytest.raises(InputError, match=r"^metric: unknown name 'acc'"):
        NetworkUnderTest(emulation, x, metric="acc")
    with pytest.raises(InputError, match=r"^model: expected one tensor"):
        NetworkUnderTest(numerics.emulate(nn.Flatten(0), "bf16"), x)
    blocks = NetworkUnderTest(
        numerics.emulate(nn.Linear(8, 2), Recipe(name="mx", formats={"weight": "mxfp8_e4m3", "activation": "bf16"})),
        torch.randn(2, 8),
    )
    with pytest.raises(InputError, match="single places need another"):
        blocks.sites()
