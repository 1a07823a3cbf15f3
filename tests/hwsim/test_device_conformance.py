"""What every registered device must do: ``simulate`` and ``emulate`` are of one machine."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import hwsim
from hwsim.operators import Matmul
from hwsim.registry import device_names, get_device
from hwsim.workload import chain
from numerics import InputError, Recipe


class Small(nn.Module):
    """A convolution, a product with weights and one without, with something between them."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.act = nn.ReLU()
        self.mix = nn.Linear(16, 16)
        self.softmax = nn.Softmax(dim=-1)
        self.head = nn.Linear(16, 5, bias=False)

    def forward(self, x):
        tokens = self.act(self.conv(x)).flatten(2)
        weights = self.softmax(self.mix(tokens))
        return self.head(weights @ tokens.transpose(1, 2) @ tokens)


def network():
    torch.manual_seed(3)
    return Small(), torch.randn(2, 2, 4, 4)


@pytest.fixture(params=device_names(event_driven=False))
def device(request):
    return get_device(request.param)


def test_simulate_and_emulate_state_the_same_formats(device):
    model, x = network()
    report = device.simulate(hwsim.trace(model, x))
    emulated = device.emulate(model, example_inputs=x)
    costed = [(row.module, row.format) for row in report.ops if row.kind in ("convolution", "matmul")]
    computed = [(row.module, row.formats) for row in emulated.operators if row.kind in ("conv2d", "linear", "matmul")]
    assert sorted(costed) == sorted(computed)
    assert len(costed) == 5
    assert all(row.emulated for row in emulated.operators)
    between = {row.module: row.formats for row in emulated.operators if row.kind in ("relu", "softmax")}
    for row in report.ops:
        if row.module in between:
            assert between[row.module] == row.format, row.name


def test_emulation_computes_near_the_network_but_not_the_same(device):
    model, x = network()
    # Light that is too weak for a product's bits is no fault of the emulation; tests/photonic hold its noise to the budget.
    formats_alone = "analytic" if device.kind == "photonic_engine" else None
    exact, found = model(x).detach(), device.emulate(model, fidelity=formats_alone)(x).detach()
    error = float((found - exact).norm() / exact.norm())
    assert 0 < error < 0.2
    assert torch.equal(device.emulate(model)(x), device.emulate(model)(x))


def test_the_network_itself_stays_as_it_is(device):
    model, x = network()
    before = model(x)
    device.emulate(model)(x)
    assert torch.equal(model(x), before)


def test_a_format_that_the_device_lacks_is_refused_by_both(device):
    lacking = Recipe("odd", {"weight": "e3m4", "activation": "e3m4"})
    model, _ = network()
    with pytest.raises(InputError, match="no multiply-accumulate for e3m4×e3m4") as costed:
        device.simulate(chain("one", [Matmul(name="mm", m=8, n=8, k=8)]).with_formats(lacking))
    with pytest.raises(InputError) as computed:
        device.emulate(model, lacking)
    assert str(computed.value) == str(costed.value)
