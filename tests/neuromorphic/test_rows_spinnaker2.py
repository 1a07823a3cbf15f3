"""Row spinnaker2: an event-based language model. Its cost follows its events, and a GPU wins back at some batch."""

from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from neuromorphic.cells.event_costs import Cost, amortised, break_even_batch
from neuromorphic.cells.memory_units import EGRU
from neuromorphic.cells.operation_counts import count_operations
from neuromorphic.cells.surrogate import Surrogate
from numerics.errors import InputError

WORDS = ("the", "cat", "sat", "on", "mat", "dog", "ran", "to", "red", "house", "and", "big", "tree", "sees", "her", "small")
STEPS, HIDDEN = 50, 64


@cache
def text():
    """Characters, as numbers and their count: words drawn by a seeded Markov chain."""
    rng = np.random.default_rng(0)
    follow = rng.dirichlet(np.full(len(WORDS), 0.15), size=len(WORDS))
    word, words = 0, []
    for _ in range(2600):
        word = rng.choice(len(WORDS), p=follow[word])
        words.append(WORDS[word])
    letters = " ".join(words)
    known = sorted(set(letters))
    return torch.tensor([known.index(c) for c in letters]), len(known)


def sequences(first, count):
    """Inputs, one-hot (steps, count, letters), and the letter that follows each (steps, count)."""
    ids, letters = text()
    at = first + torch.arange(count)[None] * STEPS + torch.arange(STEPS)[:, None]
    return nn.functional.one_hot(ids[at], letters).float(), ids[at + 1]


class LanguageModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = EGRU(text()[1], HIDDEN, threshold=0.5)
        self.head = nn.Linear(HIDDEN, text()[1])

    def forward(self, x):
        self.sent = self.cell(x)
        return self.head(self.sent)


def loss_of(model, x, y):
    return nn.functional.cross_entropy(model(x).flatten(0, 1), y.flatten())


@cache
def trained():
    """About 90 % silent: what is sent is part of the loss, more and more (as the activity loss of Subramoney et al. 2023)."""
    torch.manual_seed(0)
    model = LanguageModel()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-2)
    x, y = sequences(0, 160)
    generator = torch.Generator().manual_seed(0)
    for step in range(50):
        chosen = torch.randperm(160, generator=generator)[:40]
        optimizer.zero_grad()
        loss = loss_of(model, x[:, chosen], y[:, chosen])
        (loss + 3 * min(1.0, step / 25) * model.sent.mean()).backward()
        optimizer.step()
    return model.eval()


def test_learns_the_text_with_few_events():
    model = trained()
    x, y = sequences(8200, 30)
    with torch.no_grad():
        loss = loss_of(model, x, y).item()
    share = torch.bincount(text()[0]).double() / len(text()[0])
    letters_alone = -float((share * share.log()).sum())
    assert loss < 0.4 * letters_alone
    assert 0.05 < (model.sent != 0).float().mean() < 0.15


def test_operations_follow_the_events():
    """Run event by event on columns of the weights, counting each: the same output, and about as many times fewer operations
    than dense as units are silent."""
    model = trained().double()
    x, _ = sequences(8200, 4)
    x = x.double()
    counts = {one.layer: one for one in count_operations(model, x)}
    with torch.no_grad():
        expected = model(x).numpy()
        events = float((model.sent != 0).double().mean())
    w = {name: value.detach().numpy() for name, value in model.named_parameters()}
    threshold = model.cell.threshold.detach().numpy()
    operations = dict.fromkeys(counts, 0)

    def gathered(layer, values):
        total = w[f"{layer}.bias"].copy()
        for source in np.flatnonzero(values):
            total += w[f"{layer}.weight"][:, source] * values[source]
            operations[layer] += len(total)
        return total

    def sigmoid(a):
        return 1 / (1 + np.exp(-a))

    for b in range(4):
        c, y = np.zeros(HIDDEN), np.zeros(HIDDEN)
        for t in range(STEPS):
            x_u, x_r, x_z = np.split(gathered("cell.from_input", x[t, b].numpy()), 3)
            y_u, y_r, y_z = np.split(gathered("cell.from_events", y), 3)
            u = sigmoid(x_u + y_u)
            c = u * np.tanh(x_z + sigmoid(x_r + y_r) * y_z) + (1 - u) * c
            sent = c > threshold
            y = np.where(sent, c, 0)
            c = c - sent * threshold
            np.testing.assert_allclose(gathered("head", y), expected[t, b], atol=1e-9)
    assert operations == {name: one.active for name, one in counts.items()}
    dense = sum(one.dense for one in counts.values())
    active = sum(one.active for one in counts.values())
    assert dense / active == pytest.approx(1 / events, rel=0.25)
    model.float()


def test_cost_is_proportional_to_events():
    """At ten times fewer events, ten times fewer operations behind the events; the input's share stays."""
    layer = EGRU(5, 40)
    rng = torch.Generator().manual_seed(0)
    found = []
    for rate in (1.0, 0.1):
        sent = (torch.rand(200, 50, 40, generator=rng) < rate).float()
        found.append(count_operations(layer.from_events, sent)[0])
    assert found[0].active == found[0].dense == 200 * 50 * 40 * 120
    assert found[0].active / found[1].active == pytest.approx(10, rel=0.02)


def test_gate_equations_and_surrogate_gradient_in_one_step():
    """y = c · event by the product rule, the triangle standing for the derivative of the step."""
    torch.manual_seed(0)
    cell = EGRU(3, 2, threshold=0.4, surrogate=Surrogate("triangle", 1.0, scale=0.7)).double()
    x = torch.randn(1, 1, 3, dtype=torch.float64)
    y = cell(x)
    u, _, z = cell.from_input(x[0]).chunk(3, -1)
    y_u, y_r, y_z = cell.from_events.bias.chunk(3)
    r = torch.sigmoid(cell.from_input(x[0]).chunk(3, -1)[1] + y_r)
    c = torch.sigmoid(u + y_u) * torch.tanh(z + r * y_z)
    event = (c > cell.threshold).double()
    torch.testing.assert_close(y[0], c * event)
    y.sum().backward()
    slope = 0.7 * (1 - (c - cell.threshold).abs()).clamp(min=0)
    through = (event + c * slope).detach()  # product rule: c · event, with the triangle for the derivative of event
    inner = torch.autograd.grad((c * through).sum(), cell.from_input.bias)
    torch.testing.assert_close(cell.from_input.bias.grad, inner[0])
    by_threshold = -(c * slope * cell.threshold * (1 - cell.threshold)).sum(0)
    torch.testing.assert_close(cell.threshold_logit.grad, by_threshold.detach())


def test_break_even_batch_is_the_closed_form():
    """GPU a + b·B against c·B: the first whole B above a/(c − b)."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        once, each = rng.uniform(0.1, 50), rng.uniform(0.001, 0.5)
        chip = Cost(each + rng.uniform(0.001, 1.0), 1.0)
        found = break_even_batch(chip, lambda b, a=once, e=each: Cost(a + e * b, 1.0))
        assert found == int(np.floor(once / (chip.energy_j - each))) + 1
    assert break_even_batch(Cost(0.5, 1.0), lambda b: Cost(3 + 0.5 * b, 1.0)) is None
    assert break_even_batch(Cost(1.0, 2e-3), lambda b: Cost(1.0, 1e-2), quantity="time_s") == 6
    assert break_even_batch(Cost(1.0, 1.0), lambda b: Cost(20.0, 1.0), largest=20) is None
    assert break_even_batch(Cost(1.0, 1.0), lambda b: Cost(20.0, 1.0), largest=21) == 21


def test_batch_at_which_an_h100_wins_back():
    """Two reports of the dense model on the GPU; the chip at 10 pJ an operation (SpiNNaker 2, SENECA paper, table 3), with a
    stated 1 W at rest and 1 ms a step. Without the power at rest its events cost less than the GPU's at any batch."""
    import hwsim

    class Dense(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.head = nn.GRU(letters, HIDDEN), nn.Linear(HIDDEN, letters)

        def forward(self, x):
            return self.head(self.cell(x)[0])

    letters = text()[1]
    with torch.device("meta"):
        model = Dense()
        reports = {b: hwsim.simulate(model, torch.empty(STEPS, b, letters), device="h100") for b in (1, 256)}
    x, _ = sequences(8200, 30)
    active = sum(one.active for one in count_operations(trained(), x)) / 30
    gpu = amortised((1, reports[1]), (256, reports[256]))
    assert gpu(256).energy_j == pytest.approx(reports[256].energy_j)
    time_s = STEPS * 1e-3
    batch = break_even_batch(Cost(active * 10e-12 + time_s * 1.0, time_s), gpu)
    assert 10 < batch < 60
    assert break_even_batch(Cost(active * 10e-12, time_s), gpu) is None


@pytest.mark.parametrize(
    ("make", "text_of_error"),
    [
        (lambda: EGRU(2, 3, threshold=1.0), "threshold: expected a number between 0 and 1, got 1.0"),
        (lambda: break_even_batch(Cost(0.0, 1.0), lambda b: Cost(1.0, 1.0)), "chip: expected energy_j > 0, got 0.0"),
        (
            lambda: break_even_batch(Cost(1.0, 1.0), lambda b: Cost(1.0, 1.0), quantity="energy"),
            "quantity: unknown name 'energy'",
        ),
        (lambda: break_even_batch(Cost(1.0, 1.0), lambda b: Cost(0.0, 1.0)), "gpu: expected energy_j > 0 at batch 1, got 0.0"),
        (lambda: amortised((4, Cost(1, 1)), (4, Cost(2, 2))), "second: expected another batch than 4"),
        (lambda: amortised((4, Cost(1, 1)), (8, Cost(0.5, 2))), "second: costs less at batch 8 than at batch 4"),
    ],
)
def test_errors(make, text_of_error):
    with pytest.raises(InputError) as raised:
        make()
    assert str(raised.value).startswith(text_of_error)
