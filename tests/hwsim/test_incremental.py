"""Incremental runs against the emulation itself with the same faults injected, bit for bit."""

import copy

import numpy as np
import pytest
import torch
from incremental_networks import CHANNEL, DEFINED, STATIC, bits, by_injection, draw, emulated, networks
from torch import nn

import numerics
from hwsim.faults.incremental import Incremental, SiteFaults, Unsupported
from numerics import Accumulator, InputError, Recipe
from numerics.faults import FaultMap, corrupt
from numerics.scaling import Scaling

NETWORKS = networks()
CASES = [(name, recipe) for name in NETWORKS for recipe in DEFINED]


@pytest.fixture(scope="module")
def compiled():
    """(network, recipe) → emulation, images and incremental runs."""
    made = {}

    def make(name, recipe):
        if (name, recipe) not in made:
            network, images = NETWORKS[name]
            images = images.abs() if recipe == "int4_uint8_wrapping" else images
            emulation = emulated(network, images, DEFINED[recipe])
            made[name, recipe] = emulation, images, Incremental(emulation, images)
        return made[name, recipe]

    return make


def compare(emulation, images, incremental, count, seed, kind="flip"):
    site, image, elements, width = draw(incremental, len(images), count, seed)
    found = incremental.run(SiteFaults.from_bits(site, image, elements, width, kind))
    golden = bits(incremental.golden)
    for i in range(count):
        where = incremental.sites[site[i]], image[i], [(elements[i], width[i])]
        expected = by_injection(emulation, images, *where, kind=kind)
        assert np.array_equal(bits(expected), bits(found.outputs[i])), where
        assert found.changed[i] == (not np.array_equal(bits(expected), golden[image[i]])), where
        assert found.top1[i] == int(torch.from_numpy(expected).argmax()), where
        assert found.moved[i] == (found.top1[i] != np.argmax(incremental.golden[image[i]])), where
    return found


@pytest.mark.parametrize(("name", "recipe"), CASES)
def test_outcomes_equal_those_of_injected_faults(compiled, name, recipe):
    emulation, images, incremental = compiled(name, recipe)
    assert incremental.own_order == ()
    with torch.no_grad():
        assert np.array_equal(bits(emulation(images)), bits(incremental.golden))
    found = compare(emulation, images, incremental, 36, seed=1)
    assert 0.2 < found.changed.mean() < 0.95


@pytest.mark.exhaustive
@pytest.mark.parametrize(("name", "recipe"), CASES)
def test_outcomes_of_many_faults(compiled, name, recipe):
    compare(*compiled(name, recipe), 400, seed=2)


@pytest.mark.parametrize("recipe", ["int8", "bf16", "e4m3_scaled"])
@pytest.mark.parametrize("kind", ["stuck_at_0", "stuck_at_1"])
def test_stuck_bits(compiled, recipe, kind):
    found = compare(*compiled("residual", recipe), 20, seed=3, kind=kind)
    assert 0 < found.changed.mean() < 1


@pytest.mark.parametrize("recipe", ["int8", "int16", "bf16", "e4m3_scaled"])
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("per_site", [1, pytest.param(3, marks=pytest.mark.exhaustive)])
def test_faults_of_several_elements(compiled, name, recipe, per_site):
    emulation, images, incremental = compiled(name, recipe)
    rng = np.random.default_rng(4)
    kept, starts = [], [0]
    for number in range(per_site * len(incremental.sites)):
        site = incremental.sites[number % len(incremental.sites)]
        some = rng.choice(site.elements, min(int(rng.integers(2, 7)), site.elements), replace=False)
        kept.append(
            (number % len(incremental.sites), int(rng.integers(len(images))), some, rng.integers(0, site.bits, some.size))
        )
        starts.append(starts[-1] + some.size)
    elements, width = (np.concatenate([fault[i] for fault in kept]) for i in (2, 3))
    none = np.zeros(elements.size, np.uint64)
    faults = SiteFaults(
        np.array([f[0] for f in kept]), np.array([f[1] for f in kept]), elements, none, none,
        np.uint64(1) << width.astype(np.uint64), np.array(starts),
    )  # fmt: skip
    found = incremental.run(faults)
    for i, (site, image, some, places) in enumerate(kept):
        expected = by_injection(emulation, images, incremental.sites[site], image, zip(some, places, strict=True))
        assert np.array_equal(bits(expected), bits(found.outputs[i]))
    assert found.changed.any()


def test_a_fault_without_elements_is_masked(compiled):
    *_, incremental = compiled("plain", "int8")
    nothing = np.zeros(0, np.uint64)
    found = incremental.run(
        SiteFaults(np.array([0]), np.array([1]), np.zeros(0, np.int64), nothing, nothing, nothing, np.array([0, 0]))
    )
    assert not found.changed[0]
    assert np.array_equal(found.outputs[0], incremental.golden[1])


@pytest.mark.parametrize("recipe", ["bf16", "fp16_between"])
def test_exponents_of_floats_overflow_as_in_the_emulation(compiled, recipe):
    emulation, images, incremental = compiled("residual", recipe)
    site = next(i for i, s in enumerate(incremental.sites) if s.role == "weight" and s.key.module == "pointwise")
    count = 16
    # An exponent of ones is Inf or NaN, which meets zeros behind a ReLU.
    mask = np.uint64(0x7F80 if recipe == "bf16" else 0x7C00)
    zero = np.zeros(count, np.uint64)
    elements = np.arange(0, 4 * count, 4)
    found = incremental.run(
        SiteFaults(np.full(count, site), np.zeros(count, np.int64), elements, zero, np.full(count, mask), zero)
    )
    places = [b for b in range(16) if int(mask) >> b & 1]
    for i, element in enumerate(elements):
        where = incremental.sites[site], 0, [(element, b) for b in places]
        assert np.array_equal(bits(by_injection(emulation, images, *where, kind="stuck_at_1")), bits(found.outputs[i]))
    broken = np.isnan(found.outputs).any(1)
    assert broken.any()
    assert (found.top1[broken] == np.isnan(found.outputs[broken]).argmax(1)).all()


# --- sums whose order is the library's --------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["fp32", "bf16", "fp16"])
def test_sums_of_a_library_have_an_order_of_their_own(recipe):
    network, images = NETWORKS["plain"]
    emulation = emulated(network, images, recipe)
    incremental = Incremental(emulation, images)
    assert [text.partition(" in ")[0] for text in incremental.own_order] == ["sums of conv2d"] * 2 + ["sums of linear"] * 2
    with torch.no_grad():
        np.testing.assert_allclose(incremental.golden, emulation(images).numpy(), atol=0.02 if recipe != "fp32" else 1e-5)
    # A faulty weight is another network, whose golden run goes through the same kernels.
    site, image, elements, width = draw(incremental, len(images), 25, seed=5, role="weight")
    found = incremental.run(SiteFaults.from_bits(site, image, elements, width))
    changed = 0
    for i in range(25):
        place = incremental.sites[site[i]]
        twin = copy.deepcopy(network)
        weight = twin[int(place.key.module)].weight
        values = numerics.quantize(weight.detach(), recipe) if recipe != "fp32" else weight.detach()
        broken = corrupt(values, recipe, FaultMap.from_places([elements[i]], [width[i]]))
        weight.data = broken.view(weight.shape)
        if not torch.isfinite(broken).all():
            continue
        try:
            expected = Incremental(emulated(twin, images, recipe), images).golden[image[i]]
        except Unsupported:  # a sum that overflows in one order only
            continue
        assert np.array_equal(bits(expected), bits(found.outputs[i]))
        changed += found.changed[i]
    assert changed > 5


@pytest.mark.parametrize("role", ["weight", "activation"])
def test_values_of_scaled_codes(role):
    network, images = NETWORKS["plain"]
    recipe = Recipe(
        "mixed", {"weight": "e4m3fn", "activation": "int8", "elementwise": "fp32", "accumulator": "fp32"},
        scaling={"weight": CHANNEL, "activation": Scaling(update="static", symmetric=False)},
    )  # fmt: skip
    emulation = emulated(network, images, recipe)
    incremental = Incremental(emulation, images)
    assert len(incremental.own_order) == 4
    site, image, elements, width = draw(incremental, len(images), 40, seed=8, role=role)
    found = incremental.run(SiteFaults.from_bits(site, image, elements, width))
    for i in range(40):
        where = incremental.sites[site[i]], image[i], [(elements[i], width[i])]
        if found.refused[i]:
            with pytest.raises(InputError, match=r"^x: holds a NaN"):
                by_injection(emulation, images, *where)
            continue
        expected = by_injection(emulation, images, *where)
        # A sum that differs in its last bits may round to the next code of 8 bits.
        np.testing.assert_allclose(found.outputs[i], expected, atol=0.02 * np.abs(expected).max())
    assert found.changed.mean() > 0.5
    assert found.refused.any() == (role == "weight")


def test_a_mean_has_an_order_of_its_own():
    torch.manual_seed(1)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    images = torch.randn(2, 1, 9, 9)
    incremental = Incremental(emulated(network, images, DEFINED["fp32"]), images)
    assert incremental.own_order == ("sums of adaptive_avg_pool2d in module '1'",)
    by_hand = network(images).detach().numpy()
    np.testing.assert_allclose(incremental.golden, by_hand, rtol=1e-4, atol=1e-6)


# --- the same on any machine ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["int8", "bf16"])
def test_outcomes_depend_on_neither_threads_nor_order_nor_memory(compiled, recipe, monkeypatch):
    emulation, images, incremental = compiled("residual", recipe)
    drawn = draw(incremental, len(images), 900, seed=6)
    first = incremental.run(SiteFaults.from_bits(*drawn))
    monkeypatch.setattr("hwsim.faults.incremental.engine.FAULTS_A_THREAD", 16)
    for threads in (1, 2, 3, 5):
        monkeypatch.setattr("numerics._parallel.thread_count", lambda threads=threads: threads)
        again = incremental.run(SiteFaults.from_bits(*drawn))
        assert np.array_equal(bits(first.outputs), bits(again.outputs))
        assert np.array_equal(first.changed, again.changed)
    turned = np.random.default_rng(0).permutation(900)
    shuffled = incremental.run(SiteFaults.from_bits(*(part[turned] for part in drawn)))
    assert np.array_equal(bits(first.outputs)[turned], bits(shuffled.outputs))
    with pytest.raises(InputError, match=r"^memory_bytes: one image takes \d+, got 100$") as refused:
        Incremental(emulation, images, memory_bytes=100)
    one = int(str(refused.value).split()[4].rstrip(","))
    in_turns = Incremental(emulation, images, memory_bytes=2 * one + 3)
    for _ in range(2):
        assert np.array_equal(bits(first.outputs), bits(in_turns.run(SiteFaults.from_bits(*drawn)).outputs))


# --- what it refuses --------------------------------------------------------------------------------------------------------


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        return self.linear(self.linear(x))


class Shifted(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.shift = nn.Linear(4, 4), torch.ones(4)

    def forward(self, x):
        return self.linear(x) + self.shift


class Early(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        return torch.softmax(self.linear(x), 1)


@pytest.mark.parametrize(
    ("network", "recipe", "text"),
    [
        (nn.Linear(4, 2), "int8", r"^linear in module '\(root\)': activation has a dynamic scale, which a fault anywhere"),
        (nn.Linear(4, 2), "fp8_delayed", r"^linear in module '\(root\)': activation has a delayed scale"),
        (nn.Linear(4, 2), Recipe("r", {"weight": "bf16", "activation": "bf16"}, accumulation="bf16"), r": sums by 'bf16'; "),
        (
            nn.Linear(4, 2),
            Recipe("r", {"weight": "bf16", "activation": "bf16"}, accumulation=Accumulator(format="fp32", order="pairwise")),
            r": sums by Accumulator",
        ),
        (nn.Linear(4, 2), Recipe("r", {"weight": "bf16", "activation": "bf16", "accumulator": "fp64"}), r": sums in fp64; "),
        (nn.Linear(32, 2), Recipe("r", {"weight": "mxfp8_e4m3", "activation": "bf16"}), r": scales of weights change along"),
        (nn.Linear(32, 2), Recipe("r", {"weight": "bf16", "activation": "mxfp8_e4m3"}), r": activation is in blocks"),
        (nn.Linear(4, 2), Recipe("r", {"weight": "bf16", "activation": "nf4"}, scaling={"activation": Scaling("none")}),
         r": activation is in a codebook \('nf4'\)"),
        (nn.Linear(4, 2), Recipe("r", {"weight": "bf16", "activation": "bf16"}, rounding={"activation": "up"}),
         r": activation rounds by 'up'"),
        (Twice(), DEFINED["fp32"], r"^linear in module 'linear': runs twice in a forward pass"),
        (Shifted(), DEFINED["fp32"], r"^add in module '\(root\)': adds something that does not come from the images"),
        (Early(), DEFINED["fp32"], r"^softmax in module '\(root\)': incremental runs have no such operator$"),
        (nn.Unflatten(1, (2, 2)), DEFINED["fp32"], r"^unflatten in module '\(root\)': incremental runs have no such operator$"),
        (nn.Identity(), DEFINED["fp32"], r"^model: has no operators"),
    ],
)  # fmt: skip
def test_what_incremental_runs_do_not_take(network, recipe, text):
    size = 32 if getattr(network, "in_features", 4) == 32 else 4
    with pytest.raises(Unsupported, match=text):
        Incremental(emulated(network, torch.randn(2, size), recipe), torch.randn(2, size))


def test_saturating_sums_are_refused_only_where_they_can_saturate():
    images = torch.randn(2, 300)

    def run(depth, accumulation):
        recipe = Recipe(
            "r", {"weight": "int8", "activation": "int8", "elementwise": "fp32"}, accumulation=accumulation,
            scaling={"weight": CHANNEL, "activation": STATIC},
        )  # fmt: skip
        return Incremental(emulated(nn.Linear(depth, 3), images[:, :depth], recipe), images[:, :depth])

    assert run(300, "int32_saturate").own_order == ()
    with pytest.raises(Unsupported, match=r": its sums may saturate on the way"):
        run(300, "int16_saturate")
    assert run(300, "int16").own_order == ()


def test_a_nan_in_integers_is_refused_where_the_emulation_raises():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    images = torch.randn(3, 4)
    recipe = Recipe(
        "r", {"weight": "fp16", "activation": "fp16", "elementwise": "int8"}, scaling={"elementwise": STATIC}, accumulation="fp32"
    )
    emulation = emulated(network, images, recipe)
    incremental = Incremental(emulation, images)
    # All bits of the exponent and one of the mantissa.
    mask = np.array([0x7E00], np.uint64)
    zero = np.zeros(1, np.uint64)
    faults = SiteFaults(np.array([1]), np.array([2]), np.array([5]), zero, mask, zero)
    found = incremental.run(faults)
    assert found.refused.tolist() == found.changed.tolist() == [True]
    assert np.isnan(found.outputs).all()
    with pytest.raises(InputError, match=r"^x: holds a NaN"):
        by_injection(emulation, images, incremental.sites[1], 2, [(5, b) for b in range(9, 15)], kind="stuck_at_1")


def test_faults_that_there_are_not(compiled):
    *_, incremental = compiled("plain", "int8")
    count = len(incremental.sites)
    for arguments, text in (
        (([count], [0], [0], [0]), rf"^site: expected 0 to {count - 1}, got {count} to {count}$"),
        (([0], [3], [0], [0]), r"^image: expected 0 to 2, got 3 to 3$"),
        (([0], [-1], [0], [0]), r"^image: expected 0 to 2, got -1 to -1$"),
        (([0], [0], [2 * 9 * 11], [0]), r"^elements: site 0 has 198, got 198$"),
        (([0], [0], [0], [8]), r"^bits: codes of site 0 have 8, got mask 0x100$"),
        (([0], [0, 1], [0], [0]), r"^image: expected 1, one a fault, got 2$"),
        (([0, 0], [0, 1], [0], [0]), r"^starts: expected 3 numbers from 0 up to the 1 elements"),
    ):
        with pytest.raises(InputError, match=text):
            incremental.run(SiteFaults.from_bits(*arguments))
    with pytest.raises(InputError, match=r"^kind: unknown name 'flipped'"):
        SiteFaults.from_bits([0], [0], [0], [0], "flipped")
    with pytest.raises(InputError, match=r"^emulation: expected a module from numerics.emulate, got Linear"):
        Incremental(nn.Linear(2, 2), torch.zeros(1, 2))
    with pytest.raises(InputError, match=r"^images: expected 32-bit floats .* got torch.float32 of shape \(0, 2\)"):
        Incremental(numerics.emulate(nn.Linear(2, 2), "bf16"), torch.zeros(0, 2))
