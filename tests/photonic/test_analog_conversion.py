"""``to_analog``: what is converted, what is refused, and that nothing of a model is lost on the way."""

import copy
import io
import re
import time
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize

from numerics.errors import InputError
from photonic.analog import (
    AnalogConv2d,
    AnalogLayer,
    AnalogLinear,
    AnalogSettings,
    Chain,
    GaussianNoise,
    Norm,
    ReducePrecision,
    digital_products,
    layer_list,
    reseed,
    to_analog,
)

NOISY = AnalogSettings.alike(bits=6, leakage=0.2)
COARSE = AnalogSettings.alike(bits=2)


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 10))


def test_every_layer_in_a_copy():
    net = small()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    analog = to_analog(net, NOISY, seed=0)
    assert [type(layer) for layer in net] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.Flatten, nn.Linear]
    assert [type(analog[0]), type(analog[4])] == [AnalogConv2d, AnalogLinear]
    assert isinstance(analog[4], nn.Linear)
    assert [name for name, _ in analog.named_parameters()] == [name for name, _ in net.named_parameters()]
    with torch.no_grad():
        analog[4].weight.zero_()
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    rows = layer_list(analog)
    assert [(r.path, r.kind, r.analog) for r in rows] == [
        ("0", "AnalogConv2d", True),
        ("1", "BatchNorm2d", False),
        ("4", "AnalogLinear", True),
    ]
    assert sum(r.parameters for r in rows) == sum(p.numel() for p in net.parameters())
    assert rows[1].reason == "scales and shifts, no product"
    assert rows[0].reason == ""


def test_a_model_that_is_one_layer():
    analog = to_analog(nn.Linear(3, 2), NOISY, seed=0)
    assert type(analog) is AnalogLinear
    assert analog(torch.ones(3)).shape == (2,)


def test_noise_is_fresh_and_seeded():
    net, x = small(), torch.randn(2, 1, 8, 8)
    one, two = to_analog(net, NOISY, seed=1), to_analog(net, NOISY, seed=1)
    first = one(x)
    assert torch.equal(first, two(x))
    assert not torch.equal(first, one(x))
    assert not torch.equal(first, to_analog(net, NOISY, seed=2)(x))
    held = AnalogSettings(weight=Chain(noise=GaussianNoise(std=0.1, fixed_in_eval=True)))
    chip = to_analog(net.eval(), held, seed=1)
    assert torch.equal(chip(x), chip(x))
    assert not torch.equal(chip(x), reseed(copy.deepcopy(chip), 5)(x))
    # Two layers of one shape do not draw alike.
    twins = to_analog(nn.ModuleList([nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)]), NOISY, seed=0)
    ones = torch.ones(4, 4)
    assert not torch.equal(twins[0].weight_chain(ones), twins[1].weight_chain(ones))


def test_a_resumed_run_draws_the_same():
    net, x = small(), torch.randn(2, 1, 8, 8)
    run = to_analog(net, NOISY, seed=1)
    run(x)
    file = io.BytesIO()
    torch.save(run.state_dict(), file)
    want = run(x)
    file.seek(0)
    again = to_analog(small(), NOISY, seed=99)
    again.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(again(x), want)


def test_a_digital_checkpoint_can_be_loaded():
    analog = to_analog(small(), NOISY, seed=0)
    missing = analog.load_state_dict(small().state_dict(), strict=False)
    assert not missing.unexpected_keys
    assert all(key.endswith("_extra_state") for key in missing.missing_keys)


class Tied(nn.Module):
    """One matrix as two layers', one layer under two names, and a list that refers to a layer."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
        self.second.weight = self.first.weight
        self.again = self.first
        self.order = [self.first, self.second]
        self.table = nn.Embedding(9, 6)
        self.head = nn.Linear(6, 9, bias=False)
        self.head.weight = self.table.weight

    def forward(self, index):
        x = self.table(index)
        for layer in (*self.order, self.again):
            x = torch.relu(layer(x))
        return self.head(x)


def test_what_was_tied_stays_tied():
    net = Tied()
    analog = to_analog(net, COARSE)
    assert analog.first is analog.again is analog.order[0]
    assert analog.first.weight is analog.second.weight
    assert analog.head.weight is analog.table.weight
    assert analog.first.weight is not net.first.weight
    assert len(list(analog.parameters())) == len(list(net.parameters()))
    by_path = {row.path: row for row in layer_list(analog)}
    assert set(by_path) == {"first", "second", "table", "head"}
    assert by_path["table"].reason == "a table, whose rows are looked up"
    assert by_path["head"].parameters == 0  # counted at the table
    assert not torch.equal(analog(torch.arange(9)), net(torch.arange(9)))
    ideal = to_analog(net, AnalogSettings())
    assert torch.equal(ideal(torch.arange(9)), net(torch.arange(9)))


def test_hooks_run_and_modes_stay():
    net, calls = small(), []
    net[4].register_forward_hook(lambda layer, given, out: calls.append(type(layer).__name__))
    net[4].register_forward_pre_hook(lambda layer, given: (2 * given[0],))
    net[4].note = "mine"
    net[4].eval()
    analog = to_analog(net, NOISY, seed=0)
    analog(torch.randn(2, 1, 8, 8))
    assert calls == ["AnalogLinear"]
    assert analog[4].note == "mine"
    assert (analog[0].training, analog[4].training) == (True, False)
    assert not any(part.training for part in analog[4].modules())
    ideal = to_analog(net, AnalogSettings()).eval()
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(ideal(x), net.eval()(x))


@pytest.mark.parametrize("made", [parametrizations.weight_norm, parametrizations.orthogonal, parametrizations.spectral_norm])
def test_parametrized_weights_stay_so(made):
    torch.manual_seed(0)
    net = nn.Sequential(made(nn.Linear(4, 4)), made(nn.Linear(4, 4))).eval()
    ideal, coarse, x = to_analog(net, AnalogSettings()), to_analog(net, COARSE), torch.randn(3, 4)
    assert torch.equal(ideal(x), net(x))
    assert not torch.equal(coarse(x), net(x))
    assert isinstance(coarse[0], AnalogLinear)
    assert [(row.path, row.analog) for row in layer_list(coarse)] == [("0", True), ("1", True)]
    assert sum(row.parameters for row in layer_list(coarse)) == sum(p.numel() for p in net.parameters())
    coarse(x).sum().backward()
    assert all(p.grad is not None for p in coarse.parameters())
    assert torch.equal(copy.deepcopy(coarse)(x), coarse(x))
    parametrize.remove_parametrizations(coarse[0], "weight")
    assert type(coarse[0]) is AnalogLinear
    assert torch.equal(coarse[0].weight_chain(coarse[0].weight), COARSE.weight(net[0].weight))


class Mine(nn.Module):
    def __init__(self):
        super().__init__()
        self.matrix = nn.Parameter(torch.ones(3, 3))
        self.layer = nn.Linear(3, 3)

    def forward(self, x):
        return self.layer(x @ self.matrix)


class Subclass(nn.Linear):
    pass


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_weight_norm_of_the_old_kind_is_refused():
    with pytest.raises(InputError, match=r"Linear: its 'weight' is computed and cannot be copied, use torch\.nn\.utils\.param"):
        to_analog(nn.Sequential(nn.utils.weight_norm(nn.Linear(4, 4))), COARSE)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (nn.Sequential(nn.LSTM(3, 3), nn.Linear(3, 3)), "no analog kind of 0 (LSTM: reads its weights in code of its own); name"),
        (nn.ModuleDict({"a": nn.GRUCell(3, 3)}), "a (GRUCell: reads its weights"),
        (nn.Sequential(nn.Linear(3, 3), Subclass(3, 3)), "1 (Subclass: a subclass of Linear, which may compute something else)"),
        (nn.Sequential(nn.LazyLinear(3)), "0 (LazyLinear: lazy, run it once before)"),
        (nn.Sequential(parametrizations.weight_norm(Subclass(3, 3))), "0 (ParametrizedSubclass: a subclass of Linear"),
        (Mine(), "module: no analog kind of matrix (a matrix that Mine uses in code of its own); name"),
        (nn.ModuleList([Mine(), nn.Linear(2, 2)]), "0.matrix (a matrix"),
        (nn.Sequential(nn.Bilinear(2, 2, 2)), "0 (Bilinear: reads"),
        (nn.Transformer(8, 2, 1, 1, 8), "encoder.layers.0.self_attn (MultiheadAttention: reads"),
        (nn.ReLU(), "module: expected at least one linear layer or convolution to convert, got none"),
        (to_analog(nn.Linear(2, 2), AnalogSettings()), "(root) (AnalogLinear: analog already)"),
    ],
)
def test_what_cannot_be_converted_is_refused_by_name(net, message):
    with pytest.raises(InputError, match=re.escape(message)):
        to_analog(net, COARSE)


def test_exceptions():
    net = nn.Sequential(nn.LSTM(3, 3), nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)))
    analog = to_analog(net, COARSE, except_for=["0", "1.1"])
    assert [(row.path, row.analog, row.reason) for row in layer_list(analog)] == [
        ("0", False, "left digital"),
        ("1.0", True, ""),
        ("1.1", False, "left digital"),
    ]
    with pytest.raises(InputError, match="except_for: no module or parameter of Sequential matches 'attention'"):
        to_analog(net, COARSE, except_for="attention")
    with pytest.raises(InputError, match="got none"):
        to_analog(net, COARSE, except_for="*")
    with pytest.raises(InputError, match="seed: expected one, because the input chain"):
        to_analog(net, NOISY, except_for="0")
    with pytest.raises(InputError, match="settings: expected AnalogSettings, got dict"):
        to_analog(net, {})
    with pytest.raises(InputError, match="module: expected Module, got 'net'"):
        to_analog("net", COARSE)


def test_matrices_of_other_modules_stay_digital_where_one_says_so():
    net, x = nn.ModuleList([Mine(), Mine()]), torch.randn(2, 3)
    with pytest.raises(InputError, match=re.escape("of 1.matrix (a matrix")):
        to_analog(net, COARSE, except_for="0.matrix")
    analog = to_analog(net, COARSE, except_for="*.matrix")
    assert [(row.path, row.analog) for row in layer_list(analog)] == [
        ("0", False),
        ("0.layer", True),
        ("1", False),
        ("1.layer", True),
    ]
    torch.testing.assert_close(analog[0](x), analog[0].layer(x @ net[0].matrix))


class Sideways(nn.Module):
    """Its weight is the other way round, as that of GPT-2's layers."""

    def __init__(self):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(3, 5)), nn.Parameter(torch.randn(5))

    def forward(self, x):
        return x @ self.weight + self.bias


class AnalogSideways(AnalogLayer, Sideways):
    def product(self, x, weight, bias, *more):
        return x @ weight + bias


def test_kinds_of_ones_own():
    net, x = nn.Sequential(Sideways(), nn.Linear(5, 2)), torch.randn(4, 3)
    with pytest.raises(InputError, match=re.escape("0.weight (a matrix that Sideways uses")):
        to_analog(net, COARSE)
    kinds = {Sideways: AnalogSideways}
    assert torch.equal(to_analog(net, AnalogSettings(), kinds=kinds)(x), net(x))
    analog = to_analog(net, COARSE, kinds=kinds)
    assert [(row.path, row.kind, row.analog) for row in layer_list(analog)] == [
        ("0", "AnalogSideways", True),
        ("1", "AnalogLinear", True),
    ]
    assert not torch.equal(analog[0](x), net[0](x))
    with pytest.raises(InputError, match="kinds: expected a subclass of AnalogLayer and of Sideways, got"):
        to_analog(net, COARSE, kinds={Sideways: AnalogLinear})


@pytest.mark.parametrize("padding", [False, True])
def test_fused_transformer_layers_do_not_pass_analog_ones_over(padding):
    """In evaluation torch hands the weights of linear1 and linear2 to one function."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    net = nn.TransformerEncoder(layer, 2).eval()
    analog = to_analog(net, COARSE, except_for="*.self_attn")
    assert [row.path for row in layer_list(analog) if row.analog] == [f"layers.{k}.linear{n}" for k in (0, 1) for n in (1, 2)]
    x, mask = torch.randn(3, 5, 8), torch.zeros(3, 5, dtype=torch.bool)
    if padding:
        mask[0, 3:] = True
    runs = 0

    def count(*_):
        nonlocal runs
        runs += 1

    for row in layer_list(analog):
        if row.analog:
            analog.get_submodule(row.path).weight_chain.reduce_precision.register_forward_hook(count)
    with torch.no_grad():
        for mode in (torch.no_grad(), torch.enable_grad()):
            with mode:
                analog(x, src_key_padding_mask=mask if padding else None)
    assert runs == 8
    ideal = to_analog(net, AnalogSettings(), except_for="*.self_attn")
    with torch.no_grad():
        got, want = (m(x, src_key_padding_mask=mask if padding else None) for m in (ideal, net))
    torch.testing.assert_close(got[~mask], want[~mask], rtol=1e-5, atol=1e-5)


class Attends(nn.Module):
    def __init__(self):
        super().__init__()
        self.query = nn.Linear(4, 4)
        self.table = nn.Embedding(5, 4)

    def forward(self, x):
        q = self.query(x)
        attended = functional.softmax(q @ q.mT, -1) @ q
        return functional.linear(attended, self.table.weight)


def test_products_that_no_layer_makes_are_named():
    net, x = Attends(), torch.randn(2, 3, 4)
    analog = to_analog(net, NOISY, seed=0)
    assert sum(digital_products(analog, x).values()) == 3
    assert sum(digital_products(net, x).values()) == 4
    state = analog.state_dict()
    digital_products(analog, x)
    assert all(torch.equal(state[k], v) for k, v in analog.state_dict().items())
    assert digital_products(to_analog(small(), COARSE), torch.randn(1, 1, 8, 8)) == {}
    assert digital_products(small(), torch.randn(1, 1, 8, 8)) == {"convolution": 1, "addmm": 1}
    assert digital_products(nn.LSTM(3, 3), torch.randn(2, 1, 3))


def test_training_reaches_every_parameter():
    analog = to_analog(small(), AnalogSettings.alike(bits=3, leakage=0.3, stochastic=True), seed=0)
    analog(torch.randn(4, 1, 8, 8)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in analog.parameters())


def test_published_size():
    """AnalogVNN trains up to 9 layers with about 1.7 million parameters: so many are converted, in much less than a second."""
    torch.manual_seed(0)
    widths = [784, 800, 640, 512, 256, 256, 128, 128, 64, 10]
    layers = [layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), nn.GELU())]
    net = nn.Sequential(*layers[:-1])
    parameters = sum(p.numel() for p in net.parameters())
    assert parameters == pytest.approx(1.7e6, rel=0.02)
    start = time.perf_counter()
    analog = to_analog(net, NOISY, seed=0)
    seconds = time.perf_counter() - start
    print(f"{parameters} parameters in 9 layers: {1e3 * seconds:.0f} ms")
    rows = layer_list(analog)
    assert [row.analog for row in rows] == [True] * 9
    assert sum(row.parameters for row in rows) == parameters
    x = torch.randn(8, 784)
    assert analog(x).shape == (8, 10)
    assert torch.equal(to_analog(net, AnalogSettings())(x), net(x))
    exact = to_analog(copy.deepcopy(net).double(), AnalogSettings.alike(bits=24))(x.double())
    want = copy.deepcopy(net).double()(x.double())
    assert (exact - want).abs().max() <= 1e-6 * want.abs().max()


def test_settings_are_not_changed():
    chain = Chain(Norm(2), ReducePrecision(bits=3), GaussianNoise(std=0.1))
    settings = AnalogSettings(input=chain)
    first = to_analog(small(), settings, seed=0)
    first(torch.randn(1, 1, 8, 8))
    assert chain.noise.seed is None
    assert first[0].input_chain is not first[4].input_chain
