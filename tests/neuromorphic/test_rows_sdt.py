"""Row sdt: attention driven by spikes. Only the first layer multiplies; the products cost (r + r²)/2; what folds away."""

import numpy as np
import pytest
import torch
from digit_networks import accuracy, digits, train
from torch import nn

from neuromorphic.cells.conversion import constant_input
from neuromorphic.cells.cutoff import reduce_steps
from neuromorphic.cells.neuron_cells import LIF, AdaptiveLIF, Readout, SpikingSequential
from neuromorphic.cells.operation_counts import AC_J, MAC_J, SpikeProduct, count_operations, energy_j, energy_ratio
from neuromorphic.cells.spiking_attention import (
    NormedLinear,
    SpikeDrivenAttention,
    SpikeDrivenBlock,
    fold_norms,
    fold_threshold,
    membrane_norm_threshold,
)
from neuromorphic.cells.surrogate import Surrogate
from numerics.errors import InputError

WIDE = Surrogate("arctan", 2.0)


class Patches(nn.Module):
    """Digits of 8×8 as 16 tokens of 2×2."""

    def forward(self, x):
        return x.reshape(-1, 4, 2, 4, 2).transpose(-2, -3).reshape(-1, 16, 4)


class Places(nn.Module):
    """A voltage of each token's own is added."""

    def __init__(self, tokens, features):
        super().__init__()
        self.voltage = nn.Parameter(0.5 * torch.randn(tokens, features))

    def forward(self, x):
        return x + self.voltage


class MeanOverTokens(nn.Module):
    def forward(self, x):
        return x.mean(-2)


def transformer(kind="linear", blocks=2):
    torch.manual_seed(0)
    return SpikingSequential(
        Patches(),
        NormedLinear(4, 32),
        Places(16, 32),
        *(SpikeDrivenBlock(32, 2, hidden=64, kind=kind, surrogate=WIDE) for _ in range(blocks)),
        LIF(0.5, surrogate=WIDE),
        nn.Linear(32, 10),
        MeanOverTokens(),
        Readout(1.0),
    )


def settled(module, x):
    """With the statistics of x in every normalisation, in evaluation."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm1d):
            norm.momentum = 1.0
    with torch.no_grad():
        module.train()(x)
    return module.eval()


def spikes(shape, rate, seed=0):
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < rate).float()


@pytest.mark.parametrize("kind", ["linear", "mask"])
def test_nothing_but_the_first_layer_multiplies(kind):
    module = fold_norms(settled(transformer(kind), constant_input(digits()[0][:128], 4)))
    counts = count_operations(module, constant_input(digits()[2][:20], 4))
    multiplies = {one.layer: one.multiplies for one in counts if one.multiplies}
    assert multiplies == {"1": 4 * 20 * 16 * 4 * 32}
    assert len(counts) == 1 + 2 * (8 if kind == "linear" else 6) + 1
    assert all(one.spikes and 0 < one.rate < 0.9 for one in counts[1:])
    assert not [m for m in module.modules() if isinstance(m, nn.BatchNorm1d)]


@pytest.mark.parametrize(("rate", "published"), [(0.1, 0.056), (0.2, 0.121), (0.3, 0.195)])
def test_attention_costs_the_mean_of_rate_and_its_square(rate, published):
    """KᵀV: both must spike; Q(KᵀV): Q must. Counted on seeded spikes, and pair by pair."""
    keys_values, queries = SpikeProduct(), SpikeProduct(sums=True)

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.keys_values, self.queries = keys_values, queries

        def forward(self, q, k, v):
            return queries(q, keys_values(k.transpose(-1, -2), v))

    q, k, v = (spikes((4, 196, 64), rate, seed) for seed in range(3))
    first, second = count_operations(Attention(), q, k, v)
    found = (first.accumulates + second.accumulates) / (first.dense + second.dense)
    assert found == pytest.approx((rate + rate**2) / 2, rel=0.02)
    assert found == pytest.approx(published, abs=0.002)
    assert first.multiplies == second.multiplies == 0
    pairs = sum(int(np.outer(a, b).sum()) for a, b in zip(k.reshape(-1, 64).numpy(), v.reshape(-1, 64).numpy(), strict=True))
    assert first.accumulates == pairs
    assert second.accumulates == int(q.sum()) * 64
    assert first.dense == second.dense == 4 * 196 * 64 * 64


def test_attention_by_counting_coincidences():
    """Q(KᵀV) of spikes, token by token: how many tokens share a key channel with this one's query, and have the value."""
    torch.manual_seed(0)
    attention = settled(SpikeDrivenAttention(6, 2, threshold=1.5, decay_v=0.5), spikes((40, 1, 5, 6), 0.4, 1))
    seen = {}
    x = spikes((8, 1, 5, 6), 0.4, 2)
    hooks = [
        attention.queries.register_forward_hook(lambda m, given, out: seen.update(q=given[0], product=out)),
        attention.keys_values.register_forward_hook(lambda m, given, out: seen.update(k=given[0].transpose(-1, -2), v=given[1])),
    ]
    with torch.no_grad():
        attention(x)
    for hook in hooks:
        hook.remove()
    q, k, v, product = (seen[name][:, 0].numpy().astype(int) for name in ("q", "k", "v", "product"))
    assert q.shape == (8, 2, 5, 3)
    expected = np.zeros_like(product)
    for t, h, n, c in np.ndindex(product.shape):
        expected[t, h, n, c] = sum(int((q[t, h, n] & k[t, h, m]).sum()) * v[t, h, m, c] for m in range(5))
    np.testing.assert_array_equal(product, expected)
    assert expected.max() > 1


def test_masks_add_no_products():
    torch.manual_seed(0)
    attention = SpikeDrivenAttention(6, kind="mask").eval()
    counts = count_operations(attention, spikes((3, 2, 5, 6), 0.5))
    assert [one.layer for one in counts] == ["to_q.linear", "to_k.linear", "to_v.linear", "out.linear"]


@pytest.mark.parametrize(("steps", "rate"), [(1, 0.1), (4, 0.2), (8, 0.05)])
def test_energy_of_values_over_spikes(steps, rate):
    """E_MAC/(E_AC · T · rate), against counts of the same layers with values once and with spikes T times."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(300, 200))
    dense = energy_j(count_operations(layers, torch.rand(400, 300) + 0.1))
    sparse = energy_j(count_operations(layers, spikes((steps, 400, 300), rate)))
    assert dense / sparse == pytest.approx(energy_ratio(steps, rate), rel=0.01)
    assert energy_ratio(steps, rate) == pytest.approx(4.6 / (0.9 * steps * rate))
    assert (MAC_J, AC_J) == (4.6e-12, 0.9e-12)


@pytest.mark.parametrize(
    "layer", [nn.Conv2d(2, 4, 3, padding=1, stride=2), nn.Conv1d(4, 4, 3, groups=2, dilation=2), nn.Linear(6, 5)]
)
def test_operations_counted_one_by_one(layer):
    """One spike at a time through weights of 1: the outputs that it reaches."""
    shape = {nn.Conv2d: (3, 2, 7, 6), nn.Conv1d: (3, 4, 9), nn.Linear: (3, 6)}[type(layer)]
    x = spikes(shape, 0.3)
    count = count_operations(layer, x)[0]
    reached = 0
    ones = type(layer)(**{**layer_arguments(layer), "bias": False})
    nn.init.ones_(ones.weight)
    with torch.no_grad():
        for place in x.nonzero():
            single = torch.zeros(shape)
            single[tuple(place)] = 1
            reached += int((ones(single) != 0).sum())
    assert count.active == count.accumulates == reached
    assert (count.nonzero, count.inputs) == (int(x.sum()), x.numel())


def layer_arguments(layer):
    if isinstance(layer, nn.Linear):
        return {"in_features": layer.in_features, "out_features": layer.out_features}
    names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
    return {name: getattr(layer, name) for name in names}


def test_folding_norms_keeps_every_spike():
    x = constant_input(digits()[0][:64].double(), 4)
    module = settled(transformer(blocks=1).double(), x)
    with torch.no_grad():
        expected = module(x)
        found = fold_norms(module)(x)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert expected.abs().max() > 0


@pytest.mark.parametrize(
    "cell",
    [
        LIF(0.8, threshold=0.5, v_reset=-0.25, bias=0.01, v_init=0.125, refractory_steps=1),
        LIF(0.8, threshold=2.0, reset="subtract", learn=("threshold",)),
        AdaptiveLIF(0.8, 0.5, 0.5, threshold=0.25),
        LIF(0.8, threshold=torch.tensor([0.5, 1.0, 2.0, 4.0]), input_bias=0.03),
    ],
)
def test_folding_thresholds_keeps_every_spike(cell):
    """Thresholds that are powers of two divide exactly, so nothing may differ; others differ in the last bit of v."""
    torch.manual_seed(0)
    layer = nn.Linear(6, 4)
    x = torch.randn(50, 3, 6)
    folded_layer, folded = fold_threshold(layer, cell)
    expected = cell(layer(x))
    assert torch.equal(folded(folded_layer(x)), expected)
    assert 0.02 < expected.mean() < 0.9
    assert torch.as_tensor(folded.parameter("threshold")).unique().tolist() == [1.0]


def test_membrane_norm_moves_into_the_threshold():
    """Neurons that normalise v before they compare, written out, against thresholds of their own."""
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(5).double()
    with torch.no_grad():
        norm(torch.randn(200, 5, dtype=torch.float64) * 2 + 1)
        norm.weight.uniform_(0.5, 2)
        norm.bias.uniform_(-0.5, 0.5)
    norm.eval()
    x = torch.randn(60, 8, 5, dtype=torch.float64)
    v, expected = torch.zeros(8, 5, dtype=torch.float64), []
    with torch.no_grad():
        for now in x:
            v = 0.9 * v + now
            expected.append((norm(v) > 1.0).double())
            v = torch.where(expected[-1] > 0, 0.0, v)
    cell = LIF(0.9, threshold=membrane_norm_threshold(norm, 1.0)).double()
    cell.decay_v.fill_(0.9)
    cell.threshold.copy_(membrane_norm_threshold(norm, 1.0))
    assert torch.equal(cell(x), torch.stack(expected))
    assert 0.02 < torch.stack(expected).mean() < 0.5
    with torch.no_grad():
        norm.weight[2] = -1.0
    with pytest.raises(InputError, match="norm: expected weights > 0, got -1"):
        membrane_norm_threshold(norm)


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", ["linear", "mask"])
def test_a_spike_driven_transformer_learns_the_digits(kind):
    """About 10 s each: one block, three steps, and nothing but the first layer multiplies."""
    _, _, x_test, y_test = digits()
    module = transformer(kind, blocks=1)

    def loss_of(module, images, labels):
        return nn.functional.cross_entropy(module(constant_input(images, 3))[-1] / 3, labels)

    train(module, loss_of, epochs=24, rate=1e-2)
    module = fold_norms(module.eval())
    with torch.no_grad():
        assert accuracy(module(constant_input(x_test, 3))[-1], y_test) > 0.88
    counts = count_operations(module, constant_input(x_test, 3))
    assert [one.layer for one in counts if one.multiplies] == ["1"]
    assert sum(one.dense for one in counts) / 3 * MAC_J > 3 * energy_j(counts)


def test_fewer_steps_by_training_on():
    """A spiking net on digits: from 6 steps to 1, each stage from the one before, and the energy that this saves."""
    x, y, x_test, y_test = digits()
    torch.manual_seed(0)
    surrogate = Surrogate("arctan", 2.0)
    module = SpikingSequential(nn.Linear(64, 48), LIF(0.7, surrogate=surrogate), nn.Linear(48, 10), Readout(1.0))

    def train_for(module, steps):
        optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
        generator = torch.Generator().manual_seed(0)
        for _ in range(6):
            for chosen in torch.randperm(len(x), generator=generator).split(64):
                optimizer.zero_grad()
                outputs = module(constant_input(x[chosen], steps))[-1] / steps
                nn.functional.cross_entropy(outputs, y[chosen]).backward()
                optimizer.step()

    def score(module, steps):
        with torch.no_grad():
            return accuracy(module(constant_input(x_test, steps))[-1], y_test)

    stages = reduce_steps(module, [6, 3, 1], train=train_for, score=score, lost=0.02)
    assert [stage.steps for stage in stages] == [6, 3, 1]
    assert stages[0].score > 0.93
    assert score(module, 1) == stages[-1].score > stages[0].score - 0.02
    spent = {t: energy_j(count_operations(module, constant_input(x_test, t))) for t in (6, 1)}
    assert spent[6] > 5 * spent[1]


def test_reduction_stops_where_too_much_is_lost():
    module = nn.Linear(1, 1)

    def train_for(module, steps):
        with torch.no_grad():
            module.weight.fill_(float(steps))

    stages = reduce_steps(
        module, [8, 4, 2, 1], train=train_for, score=lambda m, t: {8: 0.9, 4: 0.91, 2: 0.89, 1: 0.5}[t], lost=0.03
    )
    assert [(s.steps, s.score) for s in stages] == [(8, 0.9), (4, 0.91), (2, 0.89)]
    assert module.weight.item() == 2.0


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: SpikeDrivenAttention(6, 4), "heads: expected a divisor of 6 features, got 4"),
        (lambda: SpikeDrivenAttention(6, kind="softmax"), "kind: unknown name 'softmax'"),
        (lambda: energy_ratio(0, 0.1), "steps: expected an integer ≥ 1, got 0"),
        (lambda: energy_ratio(2, 0.0), "rate: expected spikes a step > 0, got 0.0"),
        (lambda: count_operations(nn.ReLU(), torch.ones(1)), "module: no Linear, Conv1d, Conv2d or SpikeProduct was run"),
        (lambda: fold_threshold(nn.Linear(2, 2), LIF(0.5, threshold=0.0)), "threshold: expected numbers > 0, got 0"),
        (lambda: fold_threshold(nn.Linear(2, 2), LIF(0.5, threshold=torch.ones(3))), "threshold: expected one or 2"),
        (lambda: reduce_steps(nn.Linear(1, 1), [2, 2], train=print, score=print, lost=0), "steps: expected falling integers ≥ 1"),
    ],
)
def test_errors(make, text):
    with pytest.raises(InputError) as raised:
        make()
    assert str(raised.value).startswith(text)
