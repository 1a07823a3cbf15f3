"""Analog layers: the digital ones where nothing is analog; mean and variance of the noise behind a product against theory."""

from math import inf, sqrt

import numpy as np
import pytest
import torch
from torch import nn

from numerics.errors import InputError
from photonic.analog import (
    AnalogConv1d,
    AnalogConv2d,
    AnalogConv3d,
    AnalogConvTranspose1d,
    AnalogConvTranspose2d,
    AnalogConvTranspose3d,
    AnalogLinear,
    AnalogSettings,
    Chain,
    Clamp,
    FullScale,
    GaussianNoise,
    LaplacianNoise,
    Norm,
    PoissonNoise,
    ReducePrecision,
    UniformNoise,
    fit_full_scales,
    layer_list,
    to_analog,
)

CHANCE = 4.5  # standard errors: one in 150,000
NOISES = (GaussianNoise, LaplacianNoise, UniformNoise, PoissonNoise)

LAYERS = [
    (nn.Linear, AnalogLinear, (6, 5), {}, (4, 6)),
    (nn.Linear, AnalogLinear, (6, 5), {"bias": False}, (4, 3, 6)),
    (nn.Linear, AnalogLinear, (6, 5), {}, (6,)),
    (nn.Conv1d, AnalogConv1d, (4, 6, 3), {"stride": 2, "groups": 2}, (2, 4, 9)),
    (nn.Conv1d, AnalogConv1d, (4, 6, 3), {"padding": "same", "padding_mode": "circular"}, (4, 9)),
    (nn.Conv2d, AnalogConv2d, (4, 6, 3), {"padding": 1, "dilation": 2, "groups": 2}, (2, 4, 9, 8)),
    (nn.Conv2d, AnalogConv2d, (4, 6, (3, 1)), {"padding": (2, 1), "padding_mode": "reflect", "bias": False}, (4, 9, 8)),
    (nn.Conv3d, AnalogConv3d, (2, 3, 2), {}, (2, 2, 4, 3, 3)),
    (nn.ConvTranspose1d, AnalogConvTranspose1d, (4, 6, 3), {"stride": 2, "output_padding": 1}, (2, 4, 5)),
    (nn.ConvTranspose2d, AnalogConvTranspose2d, (4, 6, 3), {"stride": 2, "groups": 2, "dilation": 2}, (2, 4, 5, 4)),
    (nn.ConvTranspose3d, AnalogConvTranspose3d, (2, 3, 2), {"padding": 1}, (2, 4, 3, 3)),
]


def numbers(*shape, seed=0, dtype=torch.float64):
    return torch.tensor(np.random.default_rng(seed).normal(size=shape), dtype=dtype)


def digital_and_analog(kinds, arguments, named, settings, dtype, seed=None):
    torch.manual_seed(0)
    digital = kinds[0](*arguments, **named, dtype=dtype)
    made = kinds[1](*arguments, **named, dtype=dtype, settings=settings, seed=seed)
    made.load_state_dict(digital.state_dict(), strict=False)
    return digital, made


@pytest.mark.parametrize(("base", "kind", "arguments", "named", "shape"), LAYERS)
def test_ideal_layers_are_the_digital_ones_bit_for_bit(base, kind, arguments, named, shape):
    for dtype in (torch.float32, torch.float64):
        digital, made = digital_and_analog((base, kind), arguments, named, AnalogSettings(), dtype)
        given = [numbers(*shape, dtype=dtype).requires_grad_() for _ in range(2)]
        results = [layer(x) for layer, x in zip((digital, made), given, strict=True)]
        assert torch.equal(*results)
        for result in results:
            result.square().sum().backward()
        assert torch.equal(given[0].grad, given[1].grad)
        for name, parameter in digital.named_parameters():
            assert torch.equal(parameter.grad, made.get_parameter(name).grad)


@pytest.mark.parametrize(("base", "kind", "arguments", "named", "shape"), LAYERS)
def test_at_24_bits_without_noise_they_differ_by_rounding(base, kind, arguments, named, shape):
    settings = AnalogSettings.alike(bits=24)
    for dtype in (torch.float32, torch.float64):
        digital, made = digital_and_analog((base, kind), arguments, named, settings, dtype)
        x = numbers(*shape, dtype=dtype)
        want, got = digital(x), made(x)
        assert not torch.equal(got, want)
        assert (got - want).abs().max() <= 1e-6 * want.abs().max()


def test_transposed_convolutions_take_an_output_size():
    digital, made = digital_and_analog(
        (nn.ConvTranspose2d, AnalogConvTranspose2d), (2, 3, 3), {"stride": 2}, AnalogSettings(), torch.float32
    )
    x = torch.ones(1, 2, 4, 4)
    for size in ([10, 9], [9, 10]):
        assert torch.equal(made(x, size), digital(x, size))
        assert made(x, output_size=size).shape[2:] == torch.Size(size)


def test_what_is_computed():
    """Each chain where it belongs, by hand."""
    onto = ReducePrecision(bits=3)
    settings = AnalogSettings(
        input=Chain(Clamp(), ReducePrecision(bits=3)),
        weight=Chain(Norm(inf, over="tensor"), ReducePrecision(bits=3)),
        bias=Chain(reduce_precision=ReducePrecision(precision=2)),
        output=Chain(Norm(2), ReducePrecision(bits=3), rescale=True),
    )
    digital, made = digital_and_analog((nn.Linear, AnalogLinear), (6, 5), {}, settings, torch.float64)
    x = numbers(4, 6).requires_grad_()
    w, b = digital.weight.detach(), digital.bias.detach()
    sums = onto(x.clamp(-1, 1)) @ onto(w / w.abs().max()).T + ReducePrecision(precision=2)(b)
    length = sums.square().sum(1, keepdim=True).sqrt()
    torch.testing.assert_close(made(x), onto(sums / length) * length, rtol=1e-12, atol=1e-12)
    # Straight through: the gradients are those of the same formula with what rounding adds taken as constants.
    made(x).backward(up := numbers(4, 5, seed=2))
    y, v, c = x.detach().requires_grad_(), w.clone().requires_grad_(), b.clone().requires_grad_()
    held = [
        onto(y.clamp(-1, 1)) - y.clamp(-1, 1),
        onto(w / w.abs().max()) - w / w.abs().max(),
        ReducePrecision(precision=2)(b) - b,
    ]
    held = [each.detach() for each in held]
    total = (y.clamp(-1, 1) + held[0]) @ (v / v.abs().max() + held[1]).T + c + held[2]
    norm = total.square().sum(1, keepdim=True).sqrt()
    ((total / norm + (onto(total / norm) - total / norm).detach()) * norm).backward(up)
    for got, want in ((x.grad, y.grad), (made.weight.grad, v.grad), (made.bias.grad, c.grad)):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)


def test_gradients_against_finite_differences():
    """With held noise and no rounding, the layer is a smooth function, the scales of its norms included."""

    def chain(over):
        return Chain(Norm(2, over=over, centred=True), noise=GaussianNoise(std=0.3, fixed_in_eval=True), rescale=True)

    settings = AnalogSettings(input=chain("row"), weight=chain("tensor"), bias=chain("tensor"), output=chain("row"))
    layer = AnalogConv1d(4, 6, 3, groups=2, dtype=torch.float64, settings=settings, seed=1).eval()

    def run(x, weight, bias):
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (x,))

    given = [numbers(2, 4, 5), layer.weight.detach().clone(), layer.bias.detach().clone()]
    assert torch.autograd.gradcheck(run, [x.requires_grad_() for x in given], fast_mode=True)


def test_a_sample_without_a_batch_is_one_row():
    for kind, arguments, shape in ((AnalogLinear, (6, 5), (6,)), (AnalogConv2d, (2, 3, 2), (2, 5, 5))):
        layer = kind(*arguments, settings=AnalogSettings.alike(bits=3))
        x = numbers(*shape, dtype=torch.float32)
        assert torch.equal(layer(x), layer(x[None])[0])


# --- noise ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("noise", NOISES)
def test_mean_and_variance_of_the_output(noise, rounded):
    """E = Σxw + b, var = Σ(x²σw² + w²σx² + σx²σw²) + σb² + σy²: the groups of a convolution are as many independent layers."""
    groups, inputs = 40_000, 5
    sigma = {"input": 0.2, "weight": 0.3, "bias": 0.25, "output": 0.25}
    rounding = {"reduce_precision": ReducePrecision(bits=3)} if rounded else {}
    chains = {part: Chain(noise=noise(std=s), **({} if part == "output" else rounding)) for part, s in sigma.items()}
    settings = AnalogSettings(**chains)
    layer = AnalogConv1d(groups * inputs, groups, 1, groups=groups, dtype=torch.float64, settings=settings, seed=2)
    x, w, b = numbers(inputs).clamp(-1, 1), numbers(inputs, seed=1).clamp(-1, 1), torch.tensor(0.4, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(w.repeat(groups)[:, None].reshape(groups, inputs, 1))
        layer.bias.fill_(b)
        got = layer(x.repeat(groups)[None, :, None])[0, :, 0].numpy()
    if rounded:
        x, w, b = (ReducePrecision(bits=3)(v) for v in (x, w, b))
    vx, vw, vb = (noise(std=sigma[part]).variance(v) for part, v in (("input", x), ("weight", w), ("bias", b)))
    mean = (x * w).sum() + b
    before = (x**2 * vw + w**2 * vx + vx * vw).sum() + vb
    after = sigma["output"] ** 2
    if noise is PoissonNoise:  # |sum|/photons in the mean over the sums
        spread = np.random.default_rng(0).normal(float(mean), sqrt(float(before)), 10_000)
        after *= np.abs(spread).mean()
    variance = float(before) + after
    fourth = np.mean((got - got.mean()) ** 4)
    assert abs(got.mean() - float(mean)) < CHANCE * sqrt(variance / groups)
    assert abs(got.var() - variance) < CHANCE * sqrt((fourth - variance**2) / groups)


def test_noise_of_weights_is_drawn_once_a_call():
    """All samples of a batch meet the same weights: their outputs vary together."""
    settings = AnalogSettings(weight=Chain(noise=GaussianNoise(std=0.2)))
    layer = AnalogLinear(3, 2, bias=False, settings=settings, seed=0, dtype=torch.float64)
    x = torch.ones(50, 3, dtype=torch.float64)
    outputs = torch.stack([layer(x) for _ in range(400)]).detach()
    assert (outputs[:, 0] == outputs[:, 1]).all()
    deviation = outputs[:, 0].std(0)
    assert ((deviation / (0.2 * sqrt(3)) - 1).abs() < CHANCE / sqrt(800)).all()
    fixed = AnalogSettings(weight=Chain(noise=GaussianNoise(std=0.2, fixed_in_eval=True)))
    written = AnalogLinear(3, 2, bias=False, settings=fixed, seed=0, dtype=torch.float64).eval()
    assert torch.equal(written(x), written(x))


# --- full scales ----------------------------------------------------------------------------------------------------------------


def test_full_scales_are_those_of_the_inputs():
    chain = Chain(FullScale(1.0), rescale=True)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    settings = AnalogSettings(input=chain, output=Chain(FullScale(1.0), ReducePrecision(bits=20), rescale=True))
    analog = to_analog(net, settings).train()
    x = 3 * numbers(6, 4)
    largest = {"0.input_chain.normalise": float(x.abs().max())}
    with torch.no_grad():
        for path, cut in (("0.output", net[:1]), ("2.input", net[:2]), ("2.output", net)):
            largest[f"{path}_chain.normalise"] = float(cut(x).abs().max())
    assert fit_full_scales(analog, x) == pytest.approx(largest, rel=1e-5)
    assert analog.training
    torch.testing.assert_close(analog(x), net(x), rtol=1e-4, atol=1e-5)
    # Half the range: the first stage clips, what comes later is fitted to that.
    halves = fit_full_scales(analog, x, share=0.5)
    limit = halves["0.input_chain.normalise"]
    assert limit == pytest.approx(largest["0.input_chain.normalise"] / 2)
    with torch.no_grad():
        clipped = float(net[0](x.clamp(-limit, limit)).abs().max())
    assert halves["0.output_chain.normalise"] == pytest.approx(clipped / 2, rel=1e-5)
    assert float(analog[0].input_chain(x).abs().max()) <= limit * (1 + 1e-12)
    # Limits are saved.
    again = to_analog(net, settings)
    again.load_state_dict(analog.state_dict())
    assert torch.equal(again(x), analog(x))
    with pytest.raises(
        InputError, match=r"inputs: expected finite numbers other than 0 at '0\.input_chain\.normalise', got none"
    ):
        fit_full_scales(analog, 0 * x)
    assert analog[0].input_chain.normalise.limit == limit
    with pytest.raises(InputError, match="module: expected at least one FullScale stage, got none in Sequential"):
        fit_full_scales(net, x)
    with pytest.raises(InputError, match="share: expected above 0 to 1, got 2"):
        fit_full_scales(analog, x, share=2)


# --- bits -----------------------------------------------------------------------------------------------------------------------


def test_same_bits_at_any_number_of_threads():
    torch.manual_seed(0)
    settings = AnalogSettings(
        input=Chain(Norm(2, over="tensor", centred=True), ReducePrecision(bits=5), LaplacianNoise(std=0.01), rescale=True),
        weight=Chain(Norm(1, over="tensor"), ReducePrecision(bits=12), PoissonNoise(std=0.01), rescale=True),
        output=Chain(Norm(2), ReducePrecision(bits=6), UniformNoise(std=0.02)),
    )
    net = nn.Sequential(nn.Conv2d(3, 24, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24 * 30 * 30, 32))
    x = numbers(16, 3, 32, 32, dtype=torch.float32)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            made = to_analog(net, settings, seed=7)
            inner = [made[0].input_chain(x), made[3].weight_chain(made[3].weight), made[0].output_chain(x), made(x)]
            found.append([v.detach() for v in inner])
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_refusals():
    with pytest.raises(InputError, match="settings: expected AnalogSettings, got Chain"):
        AnalogLinear(2, 2, settings=Chain())
    with pytest.raises(InputError, match="weight: expected Chain or Ideal, got GaussianNoise"):
        AnalogSettings(weight=GaussianNoise(std=0.1))
    with pytest.raises(InputError, match="seed: expected one, because the bias chain draws random numbers, got None"):
        AnalogLinear(2, 2, settings=AnalogSettings(bias=Chain(noise=GaussianNoise(std=0.1))))
    with pytest.raises(InputError, match="std: expected either std or leakage"):
        AnalogSettings.alike(bits=4, leakage=0.1, std=0.2)
    assert [row.analog for row in layer_list(AnalogLinear(2, 2, settings=AnalogSettings()))] == [True]
