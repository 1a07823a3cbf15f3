"""Linear layers in crossbars: equal to torch's without noise, straight-through gradients, training that bears the noise."""

import numpy as np
import pytest
import torch
from digit_networks import digits, train
from torch import nn
from torch.nn import functional

from neuromorphic.crossbars.crossbar import Adc, Crossbar, Dac
from neuromorphic.crossbars.layers import CrossbarLinear, program, to_crossbar
from neuromorphic.crossbars.memristor import GaussianProgramming, GaussianReading, Memristor
from numerics.errors import InputError

PERFECT = Crossbar(48, 32, Memristor(1e-6, 51e-6))
NOISY = Crossbar(
    64, 64, Memristor(1e-6, 51e-6, programming=GaussianProgramming(8e-6), reading=GaussianReading(share=0.02)), Dac(8), Adc(8)
)  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def mlp(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))


def test_without_noise_it_is_the_linear_layer():
    module = mlp().double()
    x = torch.rand(3, 5, 64, dtype=torch.float64)
    converted = to_crossbar(module, PERFECT, inputs=x, seed=0).eval()
    torch.testing.assert_close(converted(x), module(x), rtol=1e-9, atol=1e-9)
    assert all(type(layer) is not CrossbarLinear for layer in module.modules())
    assert len([layer for layer in converted.modules() if isinstance(layer, CrossbarLinear)]) == 2


def test_one_layer_under_two_names_stays_one():
    shared = nn.Linear(6, 6)
    converted = to_crossbar(nn.Sequential(shared, nn.ReLU(), shared), PERFECT, inputs=torch.rand(4, 6), seed=0)
    assert converted[0] is converted[2]
    assert isinstance(to_crossbar(shared, PERFECT, inputs=torch.rand(4, 6), seed=0), CrossbarLinear)


def test_the_gradient_is_straight_through():
    """Of the weight and bias that of the plain layer; of the input through the weights that the cells held."""
    layer = CrossbarLinear(torch.randn(4, 6), torch.randn(4), NOISY, seed=3).double()
    x = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    layer.train()
    out, down = layer(x), torch.randn(5, 4, dtype=torch.float64)
    out.backward(down)
    assert not torch.allclose(out, functional.linear(x, layer.weight, layer.bias))
    torch.testing.assert_close(layer.weight.grad, down.T @ x)
    torch.testing.assert_close(layer.bias.grad, down.sum(0))
    again = CrossbarLinear(layer.weight, layer.bias, NOISY, seed=3).double().train()
    torch.testing.assert_close(again(x), out, rtol=0, atol=0)
    held = torch.linalg.lstsq(down, x.grad).solution  # what the gradient of x says of the weights
    torch.testing.assert_close(down @ held, x.grad)
    assert 0.1 < (held - layer.weight).abs().mean() / layer.weight.abs().mean() < 1


def test_calls_and_seeds():
    """In training every call has new cells; in evaluation the cells stay and reads differ; seeds repeat all of it."""
    weight, x = torch.randn(4, 6), torch.randn(5, 6)
    layer = CrossbarLinear(weight, None, NOISY.calibrated(weight.numpy().T, x.numpy()), seed=3)
    one, two = layer.train()(x), layer(x)
    assert not torch.equal(one, two)
    with pytest.raises(InputError, match=r"its cells are not programmed; call program\(\) after training"):
        layer.eval()(x)
    layer.program()
    cells = layer.matrix.cells.conductance_siemens
    first, second = layer(x), layer(x)
    assert not torch.equal(first, second)
    assert layer.matrix.cells.conductance_siemens is cells
    layer.program()
    assert torch.equal(layer(x), first)
    program(layer, seed=8)
    assert not np.array_equal(layer.matrix.cells.conductance_siemens, cells)


def test_training_with_noise_helps():
    """Against training on as long without it, both into the same 16 draws of cells; the paired gain and its standard error."""
    x_train, _, x_test, y_test = digits()

    def loss(module, x, y):
        return functional.cross_entropy(module(x), y)

    plain = mlp()
    train(plain, loss, epochs=12, rate=5e-3)
    aware = to_crossbar(plain, NOISY, inputs=x_train, seed=1).train()
    train(plain, loss, epochs=8, rate=2e-3, seed=1)
    train(aware, loss, epochs=8, rate=2e-3, seed=1)
    unaware = to_crossbar(plain, NOISY, inputs=x_train, seed=1)
    accuracies = np.zeros((2, 16))
    with torch.no_grad():
        for row, module in zip(accuracies, (unaware.eval(), aware.eval()), strict=True):
            for seed in range(16):
                program(module, seed=seed)
                row[seed] = (module(x_test).argmax(1) == y_test).double().mean()
        digital = (plain(x_test).argmax(1) == y_test).double().mean().item()
    gain = accuracies[1] - accuracies[0]
    print(f"digital {digital:.3f}, in cells {accuracies[0].mean():.3f}, trained for them {accuracies[1].mean():.3f}")
    assert gain.mean() > 3 * gain.std(ddof=1) / 4
    assert digital > accuracies[1].mean() > accuracies[0].mean() + 0.02


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: to_crossbar(nn.ReLU(), PERFECT, inputs=torch.rand(2, 2), seed=0), "module: expected at least one Linear layer"),
        (lambda: program(nn.ReLU(), seed=0), "module: expected at least one crossbar layer"),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_a_layer_that_inputs_do_not_reach():
    class Skips(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.idle = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x):
            return self.used(x)

    with pytest.raises(InputError, match="layer 'idle': the inputs do not reach it"):
        to_crossbar(Skips(), PERFECT, inputs=torch.rand(3, 2), seed=0)
