"""Networks of ReLU as spiking networks: accuracy against steps on digits, and the law of the error."""

import copy

import numpy as np
import pytest
import torch
from digit_networks import accuracy, digits, trained_cnn, trained_mlp
from torch import nn

from neuromorphic.cells.conversion import accuracy_by_step, constant_input, convert, fold_batch_norm
from neuromorphic.cells.torch_network import to_network
from neuromorphic.dynamics import simulate
from neuromorphic.encoders import bernoulli_events
from numerics.errors import InputError


@pytest.mark.parametrize(("network", "shape"), [(trained_mlp, (64,)), (trained_cnn, (1, 8, 8))])
@pytest.mark.parametrize("percentile", [100.0, 99.9])
def test_digits_lose_less_than_a_point(network, shape, percentile):
    x, _, x_test, y_test = digits()
    module = network()
    wanted = accuracy(module(x_test.reshape(-1, *shape)), y_test)
    assert wanted > 0.96
    spiking = convert(module, x.reshape(-1, *shape), percentile=percentile)
    found = accuracy_by_step(spiking, x_test.reshape(-1, *shape), y_test, steps=64)
    assert found[63] > wanted - 0.01
    assert found[15] > wanted - 0.02
    assert found[0] < wanted - 0.05  # one step is not enough


def test_percentile_and_start_voltage_shorten_the_run():
    x, _, x_test, y_test = (part if part.ndim == 1 else part.reshape(-1, 1, 8, 8) for part in digits())
    at_4 = {
        (percentile, start): accuracy_by_step(
            convert(trained_cnn(), x, percentile=percentile, v_init=start), x_test, y_test, steps=4
        )[3]
        for percentile in (100.0, 99.0)
        for start in (0.0, 0.5)
    }
    assert at_4[100.0, 0.0] < at_4[99.0, 0.0] < at_4[99.0, 0.5]
    assert at_4[100.0, 0.0] < at_4[100.0, 0.5] < at_4[99.0, 0.5] + 1e-9


def test_one_layer_counts_its_activation_to_half_a_spike():
    """A constant drive a from 0 to 1 gives round(a·T) spikes: the rate is off by at most 1/(2T); without the half, by 1/T."""
    values = torch.linspace(0, 1, 1001, dtype=torch.float64)[:, None]
    module = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU()).double()
    nn.init.ones_(module[0].weight)
    for steps in (4, 16, 64, 256):
        for start, bound in ((0.5, 0.5), (0.0, 1.0)):
            spiking = convert(module, values, percentile=100, v_init=start)
            with torch.no_grad():
                counts = spiking(constant_input(values, steps)).sum(0)
            error = (counts / steps - values).abs().max().item()
            assert error <= bound / steps + 1e-9
            assert error > 0.8 * bound / steps


def test_reset_to_zero_loses_what_a_spike_leaves_over():
    """A constant drive a gives a spike every ⌈1/a⌉ steps, so rates stay below a for ever; the digits still come out."""
    values = torch.tensor([[0.3], [0.45], [0.6], [1.0]], dtype=torch.float64)
    module = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU()).double()
    nn.init.ones_(module[0].weight)
    spiking = convert(module, values, percentile=100, v_init=0.0, reset="zero")
    spiking[1].fires_at_threshold = True
    counts = spiking(constant_input(values, 1200)).sum(0)[:, 0]
    assert counts.tolist() == [1200 / 4, 1200 / 3, 1200 / 2, 1200]
    x, _, x_test, y_test = (part if part.ndim == 1 else part.reshape(-1, 1, 8, 8) for part in digits())
    kept, lost = (
        accuracy_by_step(convert(trained_cnn(), x, reset=how), x_test, y_test, steps=64)[63] for how in ("subtract", "zero")
    )
    assert 0.9 < lost < kept - 0.02


def in_double(module):
    return copy.deepcopy(module).double()


def test_error_falls_as_one_over_steps():
    """Outputs of two hidden layers against the network's: doubling the steps halves the error, within the noise of spikes."""
    _, _, x_test, _ = digits()
    x = x_test.double()
    double = in_double(trained_mlp())
    with torch.no_grad():
        wanted = double(x)
        outputs = convert(double, x, percentile=100)(constant_input(x, 512))
    steps = np.array([32, 64, 128, 256, 512])
    errors = [float((outputs[t - 1] / t - wanted).abs().mean()) for t in steps]
    slope = np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert -1.15 < slope < -0.85
    assert errors[-1] < 0.02 * float(wanted.abs().mean())


def test_values_in_the_reference_simulator():
    """The converted network as populations and synapses gives the readout that torch gives."""
    x, _, x_test, _ = digits()
    spiking = convert(in_double(trained_cnn()), x.double().reshape(-1, 1, 8, 8))
    image = x_test[3].double()
    with torch.no_grad():
        expected = spiking(constant_input(image.reshape(1, 1, 8, 8), 24))[:, 0].numpy()
    network = to_network(spiking, (1, 8, 8))
    activity = simulate(network, {"input": np.tile(image.numpy(), (24, 1))})
    np.testing.assert_allclose(activity.values[network.outputs[0]], expected, rtol=0, atol=1e-11)


def test_input_as_spikes_of_a_rate():
    x, _, x_test, y_test = digits()
    spiking = convert(trained_mlp(), x)
    given = x_test[:60]
    events = bernoulli_events(given.numpy().ravel(), steps=100, seed=0).dense().reshape(100, 60, 64)
    with torch.no_grad():
        outputs = spiking(torch.tensor(events, dtype=torch.float32))
    assert accuracy(outputs[-1], y_test[:60]) >= accuracy(trained_mlp()(given), y_test[:60]) - 0.04


@pytest.mark.parametrize("layer", [nn.Linear(5, 4), nn.Conv2d(5, 4, 3, bias=False), nn.Conv1d(5, 4, 2)])
def test_folding_a_norm_changes_nothing(layer):
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4) if isinstance(layer, nn.Conv2d) else nn.BatchNorm1d(4)
    x = torch.randn(16, 5, *[6] * (layer.weight.ndim - 2))
    with torch.no_grad():
        norm.weight.uniform_(-2, 2)
        norm.bias.normal_()
        norm(layer(x))
        norm.eval()
        folded = fold_batch_norm(layer, norm)
        torch.testing.assert_close(folded(x), norm(layer(x)), rtol=1e-5, atol=1e-5)
        assert not torch.equal(folded.weight, layer.weight)


def test_the_network_given_is_left_alone():
    module, x = trained_mlp(), digits()[0]
    before = [p.clone() for p in module.state_dict().values()]
    convert(module, x)
    assert all(torch.equal(a, b) for a, b in zip(before, module.state_dict().values(), strict=True))


@pytest.mark.parametrize(
    ("module", "options", "text"),
    [
        (nn.Sequential(nn.Linear(3, 2), nn.Sigmoid()), {}, "layer '1' (Sigmoid): has no spiking counterpart"),
        (nn.Sequential(nn.Linear(3, 2), nn.MaxPool1d(2)), {}, "layer '1' (MaxPool1d): has no spiking counterpart"),
        (nn.Sequential(nn.Linear(3, 2)), {}, "module: no ReLU to convert"),
        (nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2), nn.ReLU()), {}, "layer '0' (BatchNorm1d): expected right behind"),
        (nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.ReLU()), {}, "statistics of a batch; call eval()"),
        (nn.Sequential(nn.ReLU(), nn.Linear(3, 2)), {}, "layer '0' (ReLU): expected weights between it and the ReLU before"),
        (nn.Sequential(nn.Linear(3, 2), nn.ReLU()), {"percentile": 0}, "percentile: expected 0 < percentile ≤ 100, got 0"),
        (nn.Sequential(nn.Linear(3, 2), nn.ReLU()), {"reset": "none"}, "reset: unknown name 'none'"),
        (nn.Sequential(nn.Linear(3, 2), nn.ReLU()), {"v_init": 1}, "v_init: expected 0 ≤ v_init < 1 thresholds, got 1"),
    ],
)
def test_errors(module, options, text):
    with pytest.raises(InputError) as raised:
        convert(module, torch.ones(4, 3), **options)
    assert str(raised.value).startswith(text)


def test_a_layer_that_is_never_active():
    module = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    nn.init.constant_(module[0].weight, -1.0)
    nn.init.zeros_(module[0].bias)
    with pytest.raises(InputError, match=r"layer '1' \(ReLU\): percentile 99.9 of its activations on data is 0"):
        convert(module, torch.ones(4, 3))
