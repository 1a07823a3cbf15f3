"""Faults in emulated modules: against weights, operands and sums that are corrupted by hand."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import numerics
from numerics import AdamW, InputError, Override, Recipe, Scaling
from numerics.faults import BitFaults, Burst, FaultMap, corrupt, inject

INT8 = "int8"
ORDERED = Recipe(name="ordered", formats={"weight": "bf16", "activation": "bf16", "accumulator": "fp32"}, accumulation="fp32")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(7, 6)
        self.conv = nn.Conv1d(6, 4, 3, padding=1)
        self.head = nn.Linear(4, 3)

    def forward(self, tokens):
        x = self.table(tokens).mT
        return self.head(torch.relu(self.conv(x)).mean(-1))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net().eval(), torch.arange(14).reshape(2, 7) % 7


def run(emulation, x, *faults, **options):
    with inject(emulation, faults, **options) as injection, torch.no_grad():
        return emulation(x), injection


def linear(fmt, **more):
    torch.manual_seed(1)
    formats = {"weight": fmt, "activation": fmt, "elementwise": "fp32", **more.pop("formats", {})}
    recipe = Recipe(name="own", formats=formats, **more)
    return numerics.emulate(nn.Linear(5, 4, bias=False), recipe).eval(), torch.randn(3, 5)


@pytest.mark.parametrize("recipe", [INT8, "bf16", "fp8", "mxfp8", ORDERED])
def test_no_fault_changes_nothing(net, recipe):
    module, tokens = net
    emulation = numerics.emulate(module, recipe)
    found, injection = run(emulation, tokens)
    with torch.no_grad():
        assert torch.equal(found, emulation(tokens))
    assert injection.hits == []


@pytest.mark.parametrize("target", ["weight", "activation"])
@pytest.mark.parametrize("fmt", ["bf16", "fp16", "fp32", "e5m2", "q4.8"])
def test_operands_by_hand(fmt, target):
    emulation, x = linear(fmt)
    faults = BitFaults(target=target, places=((1, 0), (4, 3), (9, 5)))
    found, injection = run(emulation, x, faults)
    weight = numerics.quantize(emulation.module.weight.detach(), fmt)
    x = numerics.quantize(x, fmt)
    drawn = FaultMap.from_places([1, 4, 9], [0, 3, 5])
    if target == "weight":
        weight = corrupt(weight, fmt, drawn)
    else:
        x = corrupt(x, fmt, drawn)
    assert torch.equal(found, x @ weight.T)
    (hit,) = injection.hits
    assert hit.key == ("", 0, target)
    assert hit.faulty_bits == injection.faulty_bits == 3


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_integers_and_their_scales(granularity):
    emulation, x = linear(
        "int8", formats={"accumulator": "int32"}, scaling={"weight": Scaling(granularity), "activation": Scaling("tensor")}
    )
    weight = emulation.module.weight.detach()
    scale = (weight.abs().amax(1, keepdim=True) if granularity == "channel" else weight.abs().max()) / 127
    codes = torch.round(weight / scale)
    step = x.abs().max() / 127
    codes.view(-1)[6] = (int(codes.view(-1)[6]) ^ 64) if codes.view(-1)[6] >= 0 else (int(codes.view(-1)[6]) & 255 ^ 64) - 256
    found, _ = run(emulation, x, BitFaults(places=((6, 6),)))
    expected = (torch.round(x / step) @ codes.T) * step * (scale.T if granularity == "channel" else scale)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    # The scale's exponent: everything it scales grows.
    clean, _ = run(emulation, x)
    grown, injection = run(emulation, x, BitFaults(bits="scale", places=((0, 23),)))
    which = slice(0, 1) if granularity == "channel" else slice(None)
    ratio = grown[:, which] / clean[:, which]
    torch.testing.assert_close(ratio, torch.full_like(ratio, float(ratio.flatten()[0])))
    assert float(ratio.flatten()[0]) in (2.0, 0.5)
    assert torch.equal(grown[:, 1:], clean[:, 1:]) == (granularity == "channel")
    assert injection.hits[0].scale_faults.bits_affected == 1


def test_asymmetric_codes():
    emulation, x = linear("uint8", formats={"accumulator": "int32", "weight": "int8"},
                          scaling={"activation": Scaling("tensor", symmetric=False), "weight": Scaling("tensor")})  # fmt: skip
    clean, _ = run(emulation, x)
    found, injection = run(emulation, x, BitFaults(target="activation", places=((7, 2),)))
    step = (x.max().clamp(min=0) - x.min().clamp(max=0)) / 255
    zero = torch.round(-x.min().clamp(max=0) / step)
    code = int(torch.round(x.view(-1)[7] / step) + zero)
    weight = numerics.quantize(emulation.module.weight.detach(), "int8", scale=float(emulation.module.weight.abs().max() / 127))
    moved = ((code ^ 4) - code) * step * weight[:, 2]
    torch.testing.assert_close(found[1] - clean[1], moved, rtol=1e-4, atol=1e-5)
    assert torch.equal(found[[0, 2]], clean[[0, 2]])
    assert injection.faulty_bits == 1


def test_a_block_format_and_its_shared_scale():
    torch.manual_seed(0)
    emulation = numerics.emulate(nn.Linear(64, 2, bias=False), "mxfp8").eval()
    x = torch.eye(64)
    clean, _ = run(emulation, x)
    weight = clean.T  # what the quantised weights are
    found, _ = run(emulation, x, BitFaults(bits="scale", places=((1, 0),)))
    ratio = found.T / weight
    halves = ratio[0, 32:]
    assert set(halves[weight[0, 32:] != 0].tolist()) <= {2.0, 0.5}
    assert len(set(halves[weight[0, 32:] != 0].tolist())) == 1
    assert torch.equal(found.T[0, :32], weight[0, :32])
    assert torch.equal(found.T[1], weight[1])
    found, _ = run(emulation, x, BitFaults(bits="sign", places=((40, 7),)))
    expected = weight.clone()
    expected[0, 40] *= -1
    assert torch.equal(found.T, expected)


def test_embedding_tables_are_weights(net):
    module, tokens = net
    emulation = numerics.emulate(module, "bf16")
    sign = BitFaults(places=((6 * 2, 15),), modules="table")  # the first number of the third row
    found, injection = run(emulation, tokens, sign)
    twin = copy.deepcopy(module)
    twin.table.weight.data[2, 0] *= -1
    with torch.no_grad():
        assert torch.equal(found, numerics.emulate(twin, "bf16").eval()(tokens))
    assert [hit.key.module for hit in injection.hits] == ["table"]


def test_where_and_how_often():
    module = nn.Sequential(nn.Linear(30, 40), nn.ReLU(), nn.Linear(40, 50))
    emulation = numerics.emulate(module, INT8).eval()
    x = torch.randn(2, 30)
    _, injection = run(emulation, x, BitFaults(rate=0.01, modules="2"), seed=5)
    (hit,) = injection.hits
    assert hit.key == ("2", 0, "weight")
    assert 60 < hit.faulty_bits < 260  # 160 of 16,000, within 8 standard deviations
    exact, _ = run(emulation, x, BitFaults(count=7, modules="2"), BitFaults(count=5, modules="0", bits="sign"))
    _, both = run(emulation, x, BitFaults(count=7, modules="2"), BitFaults(count=5, modules="0", bits="sign"))
    assert [hit.faulty_bits for hit in both.hits] == [5, 7]
    assert set(both.hits[0].faults.flip.tolist()) == {128}
    assert torch.equal(exact, run(emulation, x, BitFaults(count=7, modules="2"), BitFaults(count=5, modules="0", bits="sign"))[0])


def test_stored_faults_stay_and_others_do_not():
    emulation, x = linear("bf16")
    weights, activations = BitFaults(rate=0.1), BitFaults(rate=0.1, target="activation")
    with inject(emulation, [weights, activations], seed=2) as injection, torch.no_grad():
        for _ in range(3):
            emulation(x)
    by_role = {role: [h.faults.flip.tolist() for h in injection.hits if h.key.role == role] for role in ("weight", "activation")}
    assert len(by_role["weight"]) == len(by_role["activation"]) == 3
    assert by_role["weight"][0] == by_role["weight"][1] == by_role["weight"][2]
    assert by_role["activation"][0] != by_role["activation"][1] != by_role["activation"][2]
    with inject(emulation, [weights, activations], seed=2) as again, torch.no_grad():
        emulation(x)
    assert again.hits[1].faults.flip.tolist() == injection.hits[1].faults.flip.tolist()
    stuck = BitFaults(kind="stuck_at_1", rate=0.1, target="activation")
    with inject(emulation, stuck) as held, torch.no_grad():
        emulation(x)
        emulation(x)
    assert held.hits[0].faults.set.tolist() == held.hits[1].faults.set.tolist()


def test_a_weight_that_two_operators_read_fails_once():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(9, 6)
            self.head = nn.Linear(6, 9, bias=False)
            self.head.weight = self.table.weight

        def forward(self, tokens):
            return self.head(self.table(tokens))

    emulation = numerics.emulate(Tied(), "bf16").eval()
    with inject(emulation, BitFaults(rate=0.05)) as injection, torch.no_grad():
        emulation(torch.arange(9)[None])
    assert [hit.key.module for hit in injection.hits] == ["table", "head"]
    first, second = (hit.faults for hit in injection.hits)
    assert first.elements.tolist() == second.elements.tolist()
    assert first.flip.tolist() == second.flip.tolist()


def test_a_burst_in_a_weight():
    emulation, x = linear("bf16")
    _, injection = run(emulation, x, BitFaults(places=((2, 15),), burst=Burst(3, "column")))
    assert injection.hits[0].faults.elements.tolist() == [2, 7, 12]


# --- sums ---------------------------------------------------------------------------------------------------------------------


def step_by_step(a, b, step, bit, kind, bits=32):
    """A dot product of integers with one fault in its accumulator, in Python's integers."""
    total = 0
    for i, (x, y) in enumerate(zip(a, b, strict=True)):
        total += int(x) * int(y)
        code = total & ((1 << bits) - 1)
        if kind == "flip":
            code ^= (1 << bit) if i == step else 0
        else:
            code = code | (1 << bit) if kind == "stuck_at_1" else code & ~(1 << bit)
        total = code - (1 << bits) if code >> (bits - 1) else code
    return total


@pytest.mark.parametrize("kind", ["flip", "stuck_at_0", "stuck_at_1"])
@pytest.mark.parametrize("bit", [0, 5, 14, 31])
def test_integer_sums_step_by_step(kind, bit):
    emulation, x = linear(
        "int8", formats={"accumulator": "int32"}, scaling={role: Scaling("tensor") for role in ("weight", "activation")}
    )
    clean, _ = run(emulation, x)
    found, injection = run(emulation, x, BitFaults(kind=kind, target="accumulator", places=((5, bit),)))
    weight, scales = emulation.module.weight.detach(), []
    codes = []
    for values in (x, weight):
        scales.append(float(values.abs().max() / 127))
        codes.append(torch.round(values / values.abs().max() * 127).numpy())
    steps = range(5) if kind == "flip" else (0,)
    possible = [step_by_step(codes[0][1], codes[1][1], step, bit, kind) * scales[0] * scales[1] for step in steps]
    assert min(abs(float(found[1, 1]) - value) for value in possible) < 1e-5 * max(map(abs, possible)) + 1e-6
    others = torch.ones_like(clean, dtype=torch.bool)
    others[1, 1] = False
    assert torch.equal(found[others], clean[others])
    assert injection.hits[0].key.role == "accumulator"


def test_a_flip_strikes_every_step_as_often():
    emulation, x = linear(
        "int8", formats={"accumulator": "int32"}, scaling={role: Scaling("tensor") for role in ("weight", "activation")}
    )
    x[:] = 1.0
    emulation.module.weight.data[:] = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0])
    # Sums are 16129, 0, 16129, 0, 16129: setting or clearing bit 0 tells odd from even steps.
    with torch.no_grad():
        seen = []
        for seed in range(200):
            with inject(emulation, BitFaults(target="accumulator", places=((0, 0),)), seed=seed):
                seen.append(round(float(emulation(x)[0, 0]) * 16129))
    even = seen.count(16129 - 1)  # after steps 0, 2 and 4
    assert even + seen.count(16129 + 1) == 200
    assert 90 < even < 150  # 120 expected


@pytest.mark.parametrize("group", [None, 2])
def test_float_sums_step_by_step(group):
    accumulation = (
        numerics.Accumulator(format="fp32") if group is None else numerics.Accumulator(format="fp32", order="systolic", group=2)
    )
    emulation, x = linear("bf16", accumulation=accumulation)
    clean, _ = run(emulation, x)
    found, _ = run(emulation, x, BitFaults(kind="stuck_at_1", target="accumulator", places=((0, 24),)))
    a, b = (numerics.quantize(v, "bf16").numpy() for v in (x[0], emulation.module.weight.detach()[0]))
    parts, total = [], np.float32(0)
    for i in range(5):
        if group and i % group == 0 and i:
            parts.append(total)
            total = np.float32(0)
        total = np.float32(total + np.float32(a[i] * b[i]))
        total = (np.float32([total]).view(np.uint32) | np.uint32(1 << 24)).view(np.float32)[0]
    expected = parts[0] if parts else total
    for part in [*parts[1:], total] if parts else []:
        expected = np.float32(expected + part)
    assert float(found[0, 0]) == float(expected) != float(clean[0, 0])
    assert torch.equal(found[1:], clean[1:])


def test_sums_of_no_defined_order_are_refused():
    emulation, x = linear("bf16")
    with (
        inject(emulation, BitFaults(target="accumulator", rate=0.1)),
        pytest.raises(InputError, match="order of its sums is not defined"),
    ):
        emulation(x)


def test_sums_of_a_convolution_by_the_library_are_refused():
    emulation = numerics.emulate(nn.Conv2d(1, 2, 3), "bf16").eval()
    with inject(emulation, BitFaults(target="accumulator", rate=0.5)), pytest.raises(InputError, match="is not defined"):
        emulation(torch.randn(1, 1, 5, 5))


@pytest.mark.parametrize(
    ("faults", "text"),
    [
        ({"modules": "nope"}, "modules: no module of 'Linear' matches 'nope'"),
        (
            {"operand": "nope"},
            "faults: no tensor was the weight of a module that matches '\\*', operand 'nope'; nothing could fail",
        ),
        ({"target": "kv_cache"}, "faults: no tensor was the kv_cache of a module"),
        ({"operator": 3}, "operator 3; nothing could fail"),
        ({"call": 1, "target": "activation"}, "call 1; nothing could fail"),
    ],
)
def test_faults_that_meet_nothing_are_refused(faults, text):
    emulation, x = linear("int8")
    with pytest.raises(InputError, match=text), inject(emulation, BitFaults(rate=0.5, **faults)):
        emulation(x)
    # What never had its turn is no error, nor is a rate of 0.
    with inject(emulation, BitFaults(rate=0.5, operand="nope")):
        pass
    with inject(emulation, [BitFaults(rate=0.0), BitFaults(rate=0.1, target="gradient")]), torch.no_grad():
        emulation(x)
    gradients = BitFaults(rate=0.1, target="gradient", operand="nope")
    with pytest.raises(InputError, match="was the gradient"), inject(emulation, gradients):
        emulation(x).sum().backward()


@pytest.mark.parametrize("options", [{"formats": {"accumulator": "bf16"}}, {"accumulation": "fp32"}])
def test_block_formats_run_as_without_faults(options):
    formats = {"weight": "mxfp8_e4m3", "activation": "mxfp8_e4m3", **options.get("formats", {})}
    recipe = Recipe(name="mx", formats=formats, accumulation=options.get("accumulation"))
    emulation = numerics.emulate(nn.Linear(64, 4), recipe).eval()
    x = torch.randn(3, 64)
    with torch.no_grad():
        assert torch.equal(run(emulation, x)[0], emulation(x))


def test_one_run_of_an_operator():
    layer = nn.Linear(4, 4)
    twice = nn.Sequential(layer, nn.ReLU(), layer)
    emulation = numerics.emulate(twice, "bf16").eval()
    _, both = run(emulation, torch.ones(1, 4), BitFaults(target="activation", places=((0, 15),)))
    _, one = run(emulation, torch.ones(1, 4), BitFaults(target="activation", places=((0, 15),), call=1))
    assert (len(both.hits), len(one.hits)) == (2, 1)
    _, stored = run(emulation, torch.ones(1, 4), BitFaults(count=3))
    assert [hit.faulty_bits for hit in stored.hits] == [3, 3]
    assert stored.faulty_bits == 3


# --- training -----------------------------------------------------------------------------------------------------------------


def trained(faults, *, steps=3, seed=0, state="fp32"):
    torch.manual_seed(3)
    recipe = Recipe(name="train", formats={"weight": "bf16", "activation": "bf16", "gradient": "bf16", "optimizer_state": state})
    emulation = numerics.emulate(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), recipe)
    optimizer = AdamW(emulation.module.named_parameters(), lr=1e-2, recipe=recipe)
    x, y = torch.randn(16, 4), torch.randn(16, 2)
    with inject(emulation, faults, seed=seed, optimizer=optimizer) as injection:
        for _ in range(steps):
            optimizer.zero_grad()
            nn.functional.mse_loss(emulation(x), y).backward()
            optimizer.step()
    return [p.detach().clone() for p in emulation.module.parameters()], injection, optimizer


@pytest.mark.parametrize("target", ["gradient", "optimizer_state", "master_weight", "weight", "activation"])
def test_faults_during_training(target):
    clean, none, _ = trained([])
    faulty, injection, _ = trained([BitFaults(target=target, rate=0.01, bits="mantissa")])
    again, _, _ = trained([BitFaults(target=target, rate=0.01, bits="mantissa")])
    other, _, _ = trained([BitFaults(target=target, rate=0.01, bits="mantissa")], seed=1)
    assert not none.hits
    assert {hit.key.recipe_role for hit in injection.hits} == {target}
    assert all(torch.equal(a, b) for a, b in zip(faulty, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(faulty, clean, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(faulty, other, strict=True))


@pytest.mark.parametrize("state", ["fp32", "bf16", "int8", "dynamic8"])
def test_state_keeps_its_format(state):
    """What is not struck stays bit for bit; what is, becomes another value of its format with the run's scale."""
    _, injection, faulty = trained([BitFaults(target="optimizer_state", count=2, bits=(0,))], state=state, steps=1)
    _, _, clean = trained([], state=state, steps=1)
    hits = iter(injection.hits)
    for (_, _, struck, storage, role), (_, _, before, _, _) in zip(faulty.stored_tensors(), clean.stored_tensors(), strict=True):
        if role == "master_weight":
            continue
        at = next(hits).faults.elements
        changed = np.flatnonzero((struck != before).reshape(-1).numpy())
        assert at.size == 2
        assert set(changed) <= set(at.tolist())
        assert changed.size
        if storage.granularity == "none":
            assert torch.equal(storage.store(struck, seed=0, what="state"), struck)
        else:
            scale = before.abs().max() / float(storage.fmt.max)
            expected = corrupt(before, storage.fmt, injection_map(at), scale=scale)
            torch.testing.assert_close(struck, expected, rtol=1e-5, atol=0)


def injection_map(elements):
    return FaultMap.from_places(elements, np.zeros_like(elements))


def test_one_bit_of_the_state_by_hand():
    torch.manual_seed(0)
    layer = nn.Linear(2, 1, bias=False)
    optimizer = AdamW(layer.named_parameters(), lr=0.1)
    emulation = numerics.emulate(layer, "fp32")
    with inject(emulation, BitFaults(target="master_weight", places=((1, 31),)), optimizer=optimizer):
        layer.weight.grad = torch.zeros(1, 2)
        before = layer.weight.detach().clone()
        optimizer.step()
    decayed = before * (1 - 0.1 * 0.01)
    torch.testing.assert_close(layer.weight.detach(), decayed * torch.tensor([1.0, -1.0]))


# --- refusals -----------------------------------------------------------------------------------------------------------------


def test_bad_injections():
    emulation, x = linear("bf16")
    for arguments, text in (
        (([1],), r"^faults: expected BitFaults objects, got int$"),
        ((BitFaults(rate=0.1, target="optimizer_state"),), r"^optimizer: faults in 'optimizer_state' need an optimizer"),
    ):
        with pytest.raises(InputError, match=text), inject(emulation, *arguments):
            pass
    with (
        pytest.raises(InputError, match=r"^emulation: expected a module from numerics\.emulate, got Linear$"),
        inject(nn.Linear(1, 1)),
    ):
        pass
    with inject(emulation, []), pytest.raises(InputError, match="has an injection at work"), inject(emulation, []):
        pass
    layer = nn.Linear(2, 2)
    optimizer = AdamW(layer.named_parameters())
    scale = BitFaults(target="optimizer_state", rate=0.1, bits="scale")
    with pytest.raises(InputError, match="not those of 'optimizer_state'"), inject(emulation, scale, optimizer=optimizer):
        pass
    with inject(emulation, BitFaults(rate=0.1, bits="scale")), pytest.raises(InputError, match="has no scale"):
        emulation(x)
    with (
        inject(emulation, BitFaults(rate=0.1, bits="index")),
        pytest.raises(InputError, match=r"^bits \(bf16\): unknown name 'index'"),
    ):
        emulation(x)
    assert emulation._context.injection is None


def test_overrides_and_paths():
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    recipe = Recipe(
        name="mixed", formats={"weight": "bf16", "activation": "bf16"}, overrides=(Override("1", {"weight": "e4m3fn"}),)
    )
    emulation = numerics.emulate(module, recipe).eval()
    _, injection = run(emulation, torch.ones(1, 4), BitFaults(count=1, bits="sign"))
    assert [hit.faults.flip.tolist() for hit in injection.hits] == [[1 << 15], [1 << 7]]
