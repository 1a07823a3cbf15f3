"""Emulation as a whole: what it leaves alone, what it lists, where it applies, and how it goes through training."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils.checkpoint import checkpoint

from numerics import InputError, Recipe, calibrate, get_recipe, quantize, recipe_names
from numerics.emulation import emulate
from numerics.scaling import Scaling


class Convolutional(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.act = nn.ReLU(inplace=True)
        self.grouped = nn.Conv2d(8, 8, 3, groups=4, stride=2)
        self.up = nn.ConvTranspose2d(8, 4, 3, stride=2, padding=1)
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        x = functional.max_pool2d(self.act(self.norm(self.stem(x))), 2)
        x = self.up(functional.leaky_relu(self.grouped(x)))
        return self.head(functional.adaptive_avg_pool2d(x, 1).flatten(1))


class Language(nn.Module):
    """Tied embedding, learned positions, an encoder layer."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(20, 16, padding_idx=0)
        self.positions = nn.Parameter(torch.randn(6, 16))
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 1)
        self.head = nn.Linear(16, 20, bias=False)
        self.head.weight = self.table.weight

    def forward(self, ids):
        return self.head(self.encoder(self.table(ids) + self.positions))


class Recurrent(nn.Module):
    def __init__(self, kind, **more):
        super().__init__()
        self.rnn = kind(6, 8, num_layers=2, bidirectional=True, **more)
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        return self.head(self.rnn(x)[0])


def image():
    return torch.randn(2, 3, 16, 16)


def sequence():
    return torch.randn(5, 3, 6)


NETS = {
    "mlp": (lambda: nn.Sequential(nn.Linear(6, 32), nn.GELU(), nn.LayerNorm(32), nn.Dropout(0.5), nn.Linear(32, 4)), sequence),
    "convolutional": (Convolutional, image),
    "language": (Language, lambda: torch.randint(0, 20, (3, 6))),
    "encoder": (lambda: nn.TransformerEncoderLayer(6, 2, 12, batch_first=True), sequence),
    "attention": (lambda: Function(lambda self, x: self.parts[0](x, x, x)[0], nn.MultiheadAttention(6, 2)), sequence),
    "lstm": (lambda: Recurrent(nn.LSTM, dropout=0.3), sequence),
    "gru": (lambda: Recurrent(nn.GRU, batch_first=True), sequence),
    "rnn": (lambda: Recurrent(nn.RNN, nonlinearity="relu"), sequence),
    "norms": (
        lambda: nn.Sequential(
            nn.Conv1d(3, 4, 3, padding="same"), nn.GroupNorm(2, 4), nn.InstanceNorm1d(4), nn.RMSNorm(6), nn.SiLU()
        ),
        sequence,
    ),
}


class Function(nn.Module):
    """A function of the module and tensors as a module."""

    def __init__(self, function, *parts):
        super().__init__()
        self.function = function
        self.parts = nn.ModuleList(parts)

    def forward(self, *args, **kwargs):
        return self.function(self, *args, **kwargs)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def train_once(module, x):
    torch.manual_seed(1)
    y = module(x)
    y.square().sum().backward()
    return y.detach()


# --- what is left alone ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("training", [True, False])
def test_fp32_is_the_module_itself_bit_for_bit(name, training):
    """Results, gradients, running statistics and torch's random numbers; in evaluation the fused paths of torch as well."""
    make, data = NETS[name]
    module, x = make().train(training), data()
    twin, emulation = copy.deepcopy(module), emulate(module, "fp32")
    assert torch.equal(train_once(emulation, x), train_once(twin, x))
    for ours, theirs in zip(emulation.parameters(), twin.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad) if theirs.grad is not None else ours.grad is None
    for ours, theirs in zip(emulation.module.buffers(), twin.buffers(), strict=True):
        assert torch.equal(ours, theirs)
    with torch.no_grad():
        torch.manual_seed(2)
        ours = emulation(x)
        torch.manual_seed(2)
        assert torch.equal(ours, twin(x))
    assert all(row.emulated and row.seen for row in emulation.operators)
    assert {row.formats for row in emulation.operators} == {"fp32"}
    assert all(p.grad is None for p in module.parameters())


@pytest.mark.parametrize("name", NETS)
def test_a_format_finer_than_the_tolerance_changes_little(name):
    """Every operator in its emulated form, against torch's own: formats that keep 22 bits of the significand."""
    make, data = NETS[name]
    module, x = make(), data()
    fine = Recipe("fine", dict.fromkeys(("weight", "activation", "gradient"), "e8m22"))
    twin, emulation = copy.deepcopy(module), emulate(module, fine)
    assert torch.allclose(train_once(emulation, x), train_once(twin, x), atol=1e-4)
    for ours, theirs in zip(emulation.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(ours.grad, theirs.grad, rtol=1e-3, atol=1e-3)
    for ours, theirs in zip(emulation.module.buffers(), twin.buffers(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)
    assert all(row.emulated for row in emulation.operators)


@pytest.mark.parametrize("name", recipe_names())
def test_every_bundled_recipe_trains(name):
    """A few steps downhill on a small network."""
    net = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.LayerNorm(64), nn.Linear(64, 8))
    recipe = get_recipe(name)
    if name == "int16":
        recipe = replace(recipe, formats={**recipe.formats, "accumulator": "int64"})
    emulation = emulate(net, recipe)
    x, target = torch.randn(64, 32), torch.randn(64, 8)
    if name == "int8_static":
        calibrate(emulation, [x])
    optimizer = torch.optim.SGD(emulation.parameters(), lr=0.05)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = functional.mse_loss(emulation(x), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.97 * losses[0]


def test_sixteen_bit_integers_overflow_a_32_bit_accumulator():
    """Two products of full-scale 16-bit codes reach 2^31: what the recipe asks for wraps."""
    layer = nn.Linear(4, 1, bias=False)
    nn.init.ones_(layer.weight)
    assert emulate(layer, "int16")(torch.ones(1, 4)).item() < 0


def test_bf16_is_torchs_own_bf16():
    """Products of BF16 tensors are summed in FP32 and rounded once, in torch as here; few bits: no order of additions shows."""
    net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 8, bias=False))
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randint(-8, 9, p.shape) / 8)
    x = torch.randint(-8, 9, (16, 64)) / 8
    emulation, native = emulate(net, "bf16"), copy.deepcopy(net).bfloat16()
    y, theirs = emulation(x), native(x.bfloat16())
    assert torch.equal(y, theirs.float())
    y.sum().backward()
    theirs.sum().backward()
    for ours, other in zip(emulation.parameters(), native.parameters(), strict=True):
        assert torch.equal(ours.grad, other.grad.float())


def test_bf16_is_torchs_autocast():
    net = nn.Sequential(nn.Linear(64, 32, bias=False), nn.ReLU(), nn.Linear(32, 8, bias=False))
    x = torch.randn(16, 64)
    with torch.autocast("cpu", torch.bfloat16):
        theirs = net(x).float()
    ours = emulate(net, "bf16")(x)
    # Sums in another order may round to the other neighbour.
    assert torch.allclose(ours, theirs, rtol=2**-7, atol=2**-9)
    assert (ours == theirs).float().mean() > 0.9


# --- elementwise operators ----------------------------------------------------------------------------------------------------


FEW = Recipe("few", {"weight": "bf16", "activation": "bf16", "gradient": "e5m2", "accumulator": "fp16", "elementwise": "e4m3fn"})


def few(x):
    return quantize(x, "e4m3fn")


def test_operands_results_and_gradients_of_norms_are_rounded():
    layer = nn.LayerNorm(8)
    nn.init.normal_(layer.weight)
    x, g = torch.randn(4, 8), torch.randn(4, 8)
    leaf = x.clone().requires_grad_()
    emulation = emulate(layer, FEW)
    y = emulation(leaf)
    y.backward(g)
    # Gains and biases are vectors: in the accumulator's format.
    inner = few(x).requires_grad_()
    weight, bias = (quantize(p.detach(), "fp16").requires_grad_() for p in (layer.weight, layer.bias))
    expected = functional.layer_norm(inner, (8,), weight, bias)
    expected.backward(few(g))
    assert torch.equal(y, few(expected.detach()))
    assert torch.equal(leaf.grad, few(inner.grad))
    assert torch.equal(emulation.module.weight.grad, few(weight.grad))
    assert torch.equal(emulation.module.bias.grad, few(bias.grad))


@pytest.mark.parametrize(
    ("function", "explicit"),
    [
        (lambda x: torch.softmax(x, -1), lambda x: torch.softmax(x, -1)),
        (lambda x: functional.gelu(x) + 1, lambda x: few(functional.gelu(x)) + 1),
        (lambda x: 1 / (x * x + 2), lambda x: few(1 / few(few(x * x) + 2))),
        (lambda x: x.clone().mul_(3).add_(1), lambda x: few(few(3 * x) + 1)),
        (lambda x: functional.relu(x + 0.3, inplace=True), lambda x: torch.relu(few(x + 0.3))),
        (lambda x: functional.elu(x + 0.3, 1.0, True), lambda x: functional.elu(few(x + 0.3))),
        (lambda x: torch.add(x, x, out=torch.empty(4, 8)), lambda x: x + x),
        (lambda x: x.reshape(8, 4).T.mean(0), lambda x: x.reshape(8, 4).T.mean(0)),
        (lambda x: torch.cat([x, x]).sum(-1), lambda x: torch.cat([x, x]).sum(-1)),
        (lambda x: x.float().double().float().exp(), lambda x: x.exp()),
    ],
)
def test_results_between_products_are_rounded(function, explicit):
    x = torch.randn(4, 8)
    found = emulate(Function(lambda _, x: function(x)), FEW)(x)
    assert torch.equal(found, few(explicit(few(x))))


def test_what_moves_values_rounds_nothing():
    """Neither views and copies nor selections; they are no operators of the list either."""
    x = torch.randn(2, 3, 8)
    for function in (
        lambda x: x.reshape(6, 8).T[1:3].contiguous(),
        lambda x: torch.cat([x, x.flip(0)]).permute(2, 0, 1),
        lambda x: x.masked_fill(x > 0, 0.0).chunk(2, -1)[1],
        lambda x: torch.where(x > 0, x, torch.zeros_like(x)),
        lambda x: functional.max_pool1d(x, 2),
        lambda x: functional.pad(x, (1, 1)).max(-1).values,
        lambda x: x.detach().clone().unsqueeze(0).expand(4, 2, 3, 8),
    ):
        emulation = emulate(Function(lambda _, x, f=function: f(x)), FEW)
        assert torch.equal(emulation(x), function(x))
        assert emulation.operators == []


def test_what_depends_on_no_input_is_rounded_where_it_is_used():
    """Angles of positions, computed from constants and buffers, are no operators; BF16 would have no position above 256."""

    class Rotary(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("frequencies", 10000.0 ** -(torch.arange(4) / 4))

        def forward(self, x):
            angles = torch.arange(x.shape[0], dtype=torch.float32)[:, None] * self.frequencies
            return x * angles.cos()

    x = torch.randn(1000, 4)
    emulation = emulate(Rotary(), FEW)
    y = emulation(x)
    angles = torch.arange(1000.0)[:, None] * emulation.module.frequencies
    assert torch.equal(y, few(few(x) * few(angles.cos())))
    assert [row.kind for row in emulation.operators] == ["mul"]


def test_masks_stay_infinite_in_formats_without_an_infinity():
    mask = torch.zeros(4, 4).masked_fill(torch.ones(4, 4).triu(1).bool(), -math.inf)
    module = Function(lambda _, x, mask: torch.softmax(x + mask, -1))
    for recipe in (FEW, "int8"):
        y = emulate(module, recipe)(torch.randn(4, 4), mask)
        assert (y.triu(1) == 0).all()
        assert torch.allclose(y.sum(-1), torch.ones(4), atol=0.2)


def test_running_statistics_are_updated():
    layer, x = nn.BatchNorm1d(4), torch.randn(16, 4)
    twin, emulation = copy.deepcopy(layer), emulate(layer, FEW)
    emulation(x)
    twin(few(x))
    assert torch.equal(emulation.module.running_mean, twin.running_mean)
    assert emulation.module.num_batches_tracked == 1


# --- recurrent layers ---------------------------------------------------------------------------------------------------------


def test_lstm_step_by_step():
    layer, x = nn.LSTM(4, 3), torch.randn(5, 2, 4)
    y, (h_n, c_n) = emulate(layer, "bf16")(x)

    def b(t):
        return quantize(t, "bf16")

    w_ih, w_hh, b_ih, b_hh = (p.detach() for p in layer.parameters())
    h = c = torch.zeros(2, 3)
    for t in range(5):
        gates = b(b(b(x[t]) @ b(w_ih).T + b_ih) + b(h @ b(w_hh).T + b_hh))
        i, f, g, o = gates.chunk(4, -1)
        c = b(b(b(torch.sigmoid(f)) * c) + b(b(torch.sigmoid(i)) * b(torch.tanh(g))))
        h = b(b(torch.sigmoid(o)) * b(torch.tanh(c)))
        assert torch.equal(y[t], h)
    assert torch.equal(h_n[0], h)
    assert torch.equal(c_n[0], c)


def test_gru_step_by_step():
    layer, x = nn.GRU(4, 3, batch_first=True, bias=False), torch.randn(2, 5, 4)
    y, h_n = emulate(layer, "bf16")(x)

    def b(t):
        return quantize(t, "bf16")

    w_ih, w_hh = (b(p.detach()) for p in layer.parameters())
    h = torch.zeros(2, 3)
    for t in range(5):
        (xr, xz, xn), (hr, hz, hn) = b(b(x[:, t]) @ w_ih.T).chunk(3, -1), b(h @ w_hh.T).chunk(3, -1)
        r, z = b(torch.sigmoid(b(xr + hr))), b(torch.sigmoid(b(xz + hz)))
        n = b(torch.tanh(b(xn + b(r * hn))))
        h = b(n + b(z * b(h - n)))
        assert torch.equal(y[:, t], h)
    assert torch.equal(h_n[0], h)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_packed_sequences(kind):
    layer = kind(4, 3, 2, bidirectional=True, **({"proj_size": 2} if kind is nn.LSTM else {}))
    packed = pack_padded_sequence(torch.randn(6, 3, 4), torch.tensor([2, 6, 4]), enforce_sorted=False)
    fine = Recipe("fine", {"weight": "e8m22", "activation": "e8m22"})
    (y, state), (expected, their_state) = emulate(layer, fine)(packed), layer(packed)
    assert torch.allclose(y.data, expected.data, atol=1e-5)
    states = zip(state, their_state, strict=True) if kind is nn.LSTM else [(state, their_state)]
    assert all(torch.allclose(ours, theirs, atol=1e-5) for ours, theirs in states)


def test_cells():
    def steps(self, x):
        h, c, g = torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, 3)
        for part in x:
            h, c = self.parts[0](part, (h, c))
            g = self.parts[2](self.parts[1](h, g), g)
        return g

    module = Function(steps, nn.LSTMCell(4, 3), nn.GRUCell(3, 3), nn.RNNCell(3, 3))
    x = torch.randn(5, 2, 4)
    fine = Recipe("fine", {"weight": "e8m22", "activation": "e8m22"})
    assert torch.allclose(emulate(module, fine)(x), module(x), atol=1e-5)
    assert not torch.allclose(emulate(module, "bf16")(x), module(x), atol=1e-5)


def test_time_steps_share_their_keys():
    keys = set()
    emulation = emulate(nn.RNN(4, 3), "int8")
    with emulation.observe(lambda key, _: keys.add(key)):
        emulation(torch.randn(7, 2, 4))
    assert {key.operator for key in keys} == set(range(4))
    assert [row.kind for row in emulation.operators] == ["linear", "linear", "add", "tanh"]


# --- the list -------------------------------------------------------------------------------------------------------------


def test_the_list_before_and_after_a_forward_pass():
    net = Language()
    emulation = emulate(net, "fp8_delayed")
    before = {(row.module, row.kind): row for row in emulation.operators}
    assert not any(row.seen for row in before.values())
    assert before["head", "linear"].formats == "e4m3fn→fp32"
    assert before["head", "linear"].gradients == "e5m2×e4m3fn→fp32, e5m2×e4m3fn→fp32"
    assert before["encoder.layers.0.self_attn", "multi_head_attention_forward"].formats == "e4m3fn→fp32"
    emulation(torch.randint(0, 20, (3, 6)))
    after = emulation.operators
    assert all(row.seen and row.emulated for row in after)
    attention = [row.kind for row in after if row.module == "encoder.layers.0.self_attn"]
    assert attention == ["linear", "matmul", "mul", "softmax", "dropout", "matmul", "linear"]
    emulation.eval()(torch.randint(0, 20, (3, 6)))
    attention = [row.kind for row in emulation.operators if row.module == "encoder.layers.0.self_attn"]
    assert attention == ["linear", "matmul", "mul", "softmax", "matmul", "linear"]


@pytest.mark.parametrize("recipe", ["fp32", "fp8"])
def test_examples_complete_the_list_and_change_nothing_else(recipe):
    net, x = Convolutional(), image()
    state, random = torch.get_rng_state(), None
    emulation = emulate(net, recipe, example_inputs=x)
    random = torch.get_rng_state()
    assert torch.equal(state, random)
    assert all(row.seen for row in emulation.operators)
    assert emulation.get_extra_state()["step"] == 0
    assert emulation.module.norm.num_batches_tracked == 0
    assert [row.kind for row in emulation.operators if row.module == ""] == ["leaky_relu", "adaptive_avg_pool2d"]
    by_name = emulate(net, recipe, example_inputs={"x": x})
    assert by_name.operators == emulation.operators


@pytest.mark.parametrize(
    ("function", "kind", "formats"),
    [
        (lambda x: torch.linalg.inv(x), "linalg_inv", "float32"),
        (lambda x: torch.fft.fft(x).abs(), "fft_fft", "float32→complex64"),
        (lambda x: torch.cdist(x, x), "cdist", "float32"),
        (lambda x: torch.ops.aten.mm(x, x), "mm", "float32"),
        (lambda x: functional.bilinear(x, x, torch.ones(2, 4, 4)), "bilinear", "float32"),
        (lambda x: torch.einsum("ii->i", x), "einsum", "float32"),
        (lambda x: torch.cholesky_inverse(x @ x.T), "cholesky_inverse", "float32"),
    ],
)
def test_what_has_no_rule_is_computed_as_it_is_and_listed_so(function, kind, formats):
    x = torch.randn(4, 4)
    emulation = emulate(Function(lambda _, x: function(x)), "fp8")
    y = emulation(x)
    missing = [row for row in emulation.operators if not row.emulated]
    assert [(row.kind, row.formats) for row in missing][:1] == [(kind, formats)]
    assert "no rule for this function" in str(emulation)
    if kind in ("linalg_inv", "cdist", "mm", "bilinear"):
        assert torch.equal(y, function(x))


def test_tables_that_change_in_place_are_listed():
    layer = nn.Embedding(10, 4, max_norm=0.5)
    emulation = emulate(layer, "fp8")
    ids = torch.arange(10)
    assert torch.equal(emulation(ids), copy.deepcopy(layer)(ids))
    assert emulation.operators[0].reason == "max_norm changes the table in place; computed as it is"


def test_the_list_prints(capsys):
    emulation = emulate(nn.Sequential(nn.Linear(2, 2)), "fp8")
    emulation.print()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["module", "operator", "formats", "sums", "gradients", "emulated"]
    assert lines[1].split() == [
        "0",
        "linear",
        "e4m3fn→fp32",
        "library",
        "e5m2×e4m3fn→fp32,",
        "e5m2×e4m3fn→fp32",
        "yes",
        "(expected)",
    ]


@pytest.mark.parametrize("recipe", ["bf16", "fp8", "w8a16", "int8"])
def test_costs_and_values_state_the_same_formats(recipe):
    """``workload.with_formats`` and ``emulate`` read one recipe: every product of a traced network has the same operands."""
    import hwsim

    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 16), nn.Linear(16, 4))
    x = torch.randn(2, 3, 8, 8)
    chosen = get_recipe(recipe).excepting("4", weight="fp16", activation="fp16", accumulator="fp32")
    workload = hwsim.trace(net, x).with_formats(chosen)
    costs = {op.module: str(op.formats) for op in workload.ops if op.is_matrix}
    emulation = emulate(net, chosen, example_inputs=x)
    values = {row.module: row.formats for row in emulation.operators if row.sums}
    assert set(values) == {"0", "3", "4"}
    assert values == costs


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "bert_base", "gpt2", "llama3_8b", "dlrm", "mlp0", "vit_b_16"])
def test_the_zoo_states_the_same_formats_and_leaves_nothing_out(name):
    """On the meta device: every module's products, and no function without a rule. Attention is one operator there, five here."""
    from hwsim import trace, zoo

    module, inputs = zoo.build(name), zoo.example_inputs(name)
    workload = trace(module, *inputs).with_formats("fp8")
    costs: dict[str, set[str]] = {}
    for op in workload.ops:
        if op.is_matrix and op.kind != "attention":
            costs.setdefault(op.module, set()).add(str(op.formats))
    emulation = emulate(module, "fp8", example_inputs=inputs)
    values: dict[str, set[str]] = {}
    for row in emulation.operators:
        assert row.emulated
        assert row.seen
        if row.sums:
            values.setdefault(row.module, set()).add(row.formats)
    assert costs
    assert {path: values.get(path) for path in costs} == costs


def test_a_cache_has_the_same_format_in_costs_and_values():
    """A token with a cache: its keys and values are joined to the cached ones, and both products of attention read them."""
    from hwsim import trace, zoo

    recipe = Recipe("kv", {"weight": "int8", "activation": "bf16", "kv_cache": "e4m3fn", "accumulator": "fp32"})
    module, inputs = zoo.build("gpt2"), zoo.example_inputs("gpt2", phase="decode", kv_len=64)
    costs = {op.formats.operands for op in trace(module, *inputs).with_formats(recipe).ops if op.kind == "attention"}
    assert costs == {("bf16", "e4m3fn", "e4m3fn")}
    rows = emulate(module, recipe, example_inputs=inputs).operators
    assert {row.formats for row in rows if row.kind == "matmul"} == {"bf16×e4m3fn→fp32"}


# --- where it applies -------------------------------------------------------------------------------------------------------


def test_modules_are_excepted_by_pattern():
    net = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 2))
    emulation = emulate(net, get_recipe("fp8").excepting("[12]", "fp32"), example_inputs=torch.randn(2, 8))
    assert [row.formats for row in emulation.operators] == ["e4m3fn→fp32", "fp32", "fp32"]
    x = torch.randn(4, 8)
    first = emulate(net[:1], "fp8")(x)
    assert torch.equal(emulation(x), net[2](net[1](first)))


def test_a_pattern_without_a_module_is_an_error():
    with pytest.raises(InputError, match=r"^recipe 'fp8': overrides: no module of 'Linear' matches 'lm_haed'$"):
        emulate(nn.Linear(2, 2), get_recipe("fp8").excepting("lm_haed", weight="int8"))


def test_first_and_last_layers_have_their_own_formats():
    net = Language()
    net.head = nn.Linear(16, 20)
    recipe = replace(get_recipe("int8_qat"), first_and_last={"weight": "fp16", "activation": "fp16", "accumulator": "fp32"})
    emulation = emulate(net, recipe, example_inputs=torch.randint(0, 20, (3, 6)))
    formats = {(row.module, row.kind): row.formats for row in emulation.operators}
    assert formats["head", "linear"] == "fp16→fp32"
    assert formats["encoder.layers.0.linear1", "linear"] == "int8×int8_symmetric→int32"
    # The first module with a matrix of its own, in the order of registration; tables of embeddings are none. Here it holds the
    # positions as well, which the root adds.
    assert emulation.recipe.first_and_last is None
    assert [o.pattern for o in emulation.recipe.overrides] == ["", "head"]


def test_first_and_last_need_a_layer():
    recipe = replace(get_recipe("int8_qat"), first_and_last={"weight": "fp16"})
    with pytest.raises(InputError, match=r"^recipe 'int8_qat': first_and_last: no module of 'ReLU' has a weight"):
        emulate(nn.ReLU(), recipe)


def test_caches_have_a_role_of_their_own():
    def attend(_, q, key_cache, v):
        return torch.softmax(q @ key_cache.transpose(-1, -2), -1) @ v

    recipe = Recipe("r", {"weight": "bf16", "activation": "bf16", "kv_cache": "e4m3fn"})
    emulation = emulate(Function(attend), recipe)

    class Named(nn.Module):
        def forward(self, q, key_cache, v):
            return attend(self, q, key_cache, v)

    emulation = emulate(Named(), recipe)
    emulation(torch.randn(2, 4), torch.randn(3, 4), torch.randn(3, 4))
    assert [row.formats for row in emulation.operators] == ["bf16×e4m3fn→fp32", "bf16", "bf16→fp32"]


# --- life of a module -------------------------------------------------------------------------------------------------------


def test_the_original_is_left_alone():
    net = nn.Linear(4, 4)
    emulation = emulate(net, "fp8")
    before = net.weight.clone()
    with torch.no_grad():
        emulation.module.weight.zero_()
    assert torch.equal(net.weight, before)
    assert not net._forward_hooks
    assert emulation.training is net.training
    assert not emulate(net.eval(), "fp8").training


def test_a_copy_is_independent():
    emulation = emulate(nn.Sequential(nn.Linear(4, 4)), "fp8_delayed")
    emulation(torch.ones(1, 4))
    twin = copy.deepcopy(emulation)
    x = torch.full((1, 4), 100.0)
    twin(x)
    with torch.no_grad():
        twin.module[0].weight.zero_()
    assert emulation.get_extra_state()["step"] == 1
    assert twin.get_extra_state()["step"] == 2
    assert emulation.module[0].weight.abs().sum() > 0


def test_it_is_saved_whole(tmp_path):
    emulation = emulate(nn.Sequential(nn.Linear(4, 4), nn.LSTM(4, 2)), "fp8_delayed")
    x = torch.randn(3, 4)
    emulation(x)
    torch.save(emulation, tmp_path / "whole.pt")
    loaded = torch.load(tmp_path / "whole.pt", weights_only=False)
    assert torch.equal(loaded(2 * x)[0], emulation(2 * x)[0])
    assert loaded.operators == emulation.operators


def test_an_emulations_module_is_a_module_like_any_other():
    emulation = emulate(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), "fp8")
    x = torch.randn(3, 4)
    assert torch.equal(copy.deepcopy(emulation.module)(x), emulate(emulation.module, "fp32")(x))
    assert torch.equal(emulate(emulation.module, "bf16")(x), emulate(copy.deepcopy(emulation.module), "bf16")(x))
    assert not torch.equal(emulate(emulation.module, "bf16")(x), emulation(x))


def test_an_error_inside_leaves_nothing_behind():
    emulation = emulate(nn.Sequential(nn.Linear(4, 4), nn.Linear(3, 3)), "fp8")
    with pytest.raises(RuntimeError, match="shapes"):
        emulation(torch.randn(2, 4))
    x = torch.randn(2, 2)
    assert torch.equal(x @ x, torch.mm(x, x))
    assert not torch.overrides._get_current_function_mode_stack()
    assert emulation._depth == 0
    assert emulation._context.frames == []


def test_a_part_called_by_itself_is_emulated():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    emulation = emulate(net, "fp8")
    x = torch.randn(3, 4)
    assert torch.equal(emulation.module[0](x), emulate(net[0], "fp8")(x))


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoints_recompute_in_the_same_formats(reentrant):
    block = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.LayerNorm(16), nn.Linear(16, 8))
    plain = Function(lambda self, x: self.parts[0](x), block)
    saving = Function(lambda self, x: checkpoint(self.parts[0], x, use_reentrant=reentrant), block)
    x = torch.randn(4, 8)
    grads = []
    for module in (plain, saving):
        emulation = emulate(module, "fp8_delayed")
        leaf = x.clone().requires_grad_()
        for _ in range(2):
            emulation.zero_grad()
            emulation(leaf).square().sum().backward()
        grads.append([p.grad for p in emulation.parameters()])
    assert all(map(torch.equal, *grads))


def test_64_bit_modules():
    layer, x = nn.Linear(16, 4).double(), torch.randn(3, 16, dtype=torch.float64)
    y = emulate(layer, "fp8")(x)
    assert y.dtype == torch.float64
    total = (quantize(x, "e4m3fn").float() @ quantize(layer.weight.detach(), "e4m3fn").float().T).double()
    assert torch.equal(y, quantize(total + quantize(layer.bias.detach(), "fp32"), "e4m3fn"))
    double = Recipe("fp64", dict.fromkeys(("weight", "activation", "gradient", "accumulator"), "fp64"))
    assert torch.equal(emulate(layer, double)(x), layer(x))


def test_16_bit_modules():
    layer, x = nn.Linear(16, 4, bias=False).bfloat16(), torch.randn(3, 16).bfloat16()
    y = emulate(layer, get_recipe("fp8_delayed"))(x)
    scales = [(t.float().abs().max() / 448) for t in (x, layer.weight.detach())]
    product = (
        quantize(x.float(), "e4m3fn", scale=scales[0]) @ quantize(layer.weight.detach().float(), "e4m3fn", scale=scales[1]).T
    )
    assert torch.equal(y, product.bfloat16())


SCALING = Scaling("tensor")


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: emulate(nn.Linear(2, 2), "fp9"), "recipe: unknown name 'fp9'; did you mean 'fp8'"),
        (lambda: emulate(torch.relu, "fp8"), "module: expected a torch.nn.Module, got builtin_function_or_method"),
        (lambda: emulate(emulate(nn.Linear(2, 2), "fp8"), "fp8"), "module: holds an emulation already"),
        (lambda: emulate(nn.Linear(2, 2), "fp8", seed=-1), "seed: expected an integer ≥ 0, got -1"),
        (
            lambda: emulate(nn.Linear(2, 2), replace(get_recipe("mxfp8"), scaling={"weight": SCALING})),
            "recipe 'mxfp8': scaling.weight: 'mxfp8_e4m3' finds its blocks' scales itself; "
            "expected granularity 'none', got 'tensor'",
        ),
        (
            lambda: emulate(nn.Linear(2, 2), replace(get_recipe("fp8"), scaling={"weight": replace(SCALING, symmetric=False)})),
            "recipe 'fp8': scaling.weight: symmetric: only integer codes have a zero point, 'e4m3fn' has not; expected true",
        ),
    ],
)
def test_wrong_arguments_are_named(call, text):
    with pytest.raises(InputError, match="^" + "".join(f"[{c}]" if c in "()[]*.?+" else c for c in text)):
        call()


def test_autocast_is_an_error():
    emulation = emulate(nn.Linear(2, 2), "fp8")
    with (
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(InputError, match=r"^autocast: .* expected torch.autocast to be off$"),
    ):
        emulation(torch.randn(2, 2))


def test_one_observer_at_a_time():
    emulation = emulate(nn.Linear(2, 2), "fp8")
    with emulation.observe(print), pytest.raises(InputError, match=r"^callback: "), emulation.observe(print):
        pass


@pytest.mark.parametrize(
    ("activation", "formats", "sums"), [("bf16", "bf16×int8→fp32", "library"), ("int8", "int8→int32", "exact")]
)
def test_the_list_says_who_sums(activation, formats, sums):
    """An integer accumulator takes products of integers; others are summed by the library."""
    recipe = Recipe("r", {"weight": "int8", "activation": activation})
    net, x = nn.Sequential(nn.Linear(4, 3)), torch.randn(2, 4)
    for emulation in (emulate(net, recipe), emulate(net, recipe, example_inputs=x)):
        assert [(row.formats, row.sums) for row in emulation.operators] == [(formats, sums)]


@pytest.mark.parametrize("module", [nn.Linear(4, 3), nn.Conv2d(4, 2, 1)], ids=["linear", "convolution"])
def test_integers_times_floats_are_refused_as_torch_does(module):
    x = torch.ones(1, 4, dtype=torch.int64) if isinstance(module, nn.Linear) else torch.ones(1, 4, 5, 5, dtype=torch.int64)
    with pytest.raises(RuntimeError) as plain:
        module(x)
    with pytest.raises(RuntimeError) as emulated:
        emulate(module, "int8")(x)
    assert str(emulated.value) == str(plain.value)
