"""Stages of analog chains: values and backward against definitions, finite differences and AnalogVNN, noise against theory."""

from functools import partial
from importlib import import_module
from math import inf, sqrt

import numpy as np
import pytest
import torch
from scipy import stats

from numerics.errors import InputError
from photonic.analog import (
    Chain,
    Clamp,
    FullScale,
    GaussianNoise,
    LaplacianNoise,
    Norm,
    PoissonNoise,
    ReducePrecision,
    StochasticReducePrecision,
    UniformNoise,
    reseed,
)
from photonic.imperfections import Ideal

CHANCE = 4.5  # standard errors: one in 150,000
SAMPLES = 100_000
NOISES = (GaussianNoise, LaplacianNoise, UniformNoise, PoissonNoise)


def numbers(*shape, seed=0, dtype=torch.float64, scale=1.0):
    return torch.tensor(scale * np.random.default_rng(seed).normal(size=shape), dtype=dtype)


def gradient(stage, x, upstream):
    x = x.clone().requires_grad_()
    stage(x).backward(upstream)
    return x.grad


def agrees(samples, mean, variance):
    """Mean and variance of independent samples, each within the chance that its own standard error leaves."""
    samples = np.asarray(samples, np.float64)
    n, fourth = samples.size, np.mean((samples - samples.mean()) ** 4)
    assert abs(samples.mean() - mean) < CHANCE * sqrt(variance / n)
    assert abs(samples.var() - variance) < CHANCE * sqrt((fourth - variance**2) / n)


# --- normalise ------------------------------------------------------------------------------------------------------------------


def test_clamp():
    x = torch.tensor([-3.0, -1.0, -0.5, 0.0, 1.0, 1.5])
    upstream = torch.arange(1.0, 7.0)
    assert Clamp()(x).tolist() == [-1, -1, -0.5, 0, 1, 1]
    assert gradient(Clamp(), x, upstream).tolist() == [0, 2, 3, 4, 5, 0]
    assert gradient(Clamp(backward="straight_through"), x, upstream).tolist() == upstream.tolist()
    assert Clamp(0, 1)(x).tolist() == [0, 0, 0, 0, 1, 1]
    assert FullScale(2.0)(x).tolist() == [-1, -0.5, -0.25, 0, 0.5, 0.75]
    assert gradient(FullScale(2.0), x, upstream).tolist() == [0, 1, 1.5, 2, 2.5, 3]


@pytest.mark.parametrize("order", [1, 2, inf])
@pytest.mark.parametrize("over", ["row", "tensor"])
@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("largest_one", [False, True])
def test_norm_against_numpy_and_finite_differences(order, over, centred, largest_one):
    x = numbers(3, 4, 2)
    stage = Norm(order, over=over, centred=centred, largest_one=largest_one)
    flat = x.numpy().reshape(3, 8) if over == "row" else x.numpy().reshape(1, 24)
    flat = flat - flat.mean(1, keepdims=True) if centred else flat
    want = flat / np.linalg.norm(flat, order, axis=1, keepdims=True)
    want = want / np.abs(want).max() if largest_one else want
    np.testing.assert_allclose(stage(x).numpy(), want.reshape(3, 4, 2), rtol=1e-14)
    assert torch.autograd.gradcheck(stage, x.requires_grad_())
    # What is scaled back is what was there.
    chain = Chain(stage, rescale=True)
    np.testing.assert_allclose(chain(x).detach().numpy(), x.detach().numpy(), rtol=1e-13, atol=1e-14)
    assert torch.autograd.gradcheck(chain, x)


def test_long_rows_and_rows_of_zeros():
    x = numbers(2, 5000)
    for order in (1, 2, inf):
        want = x.numpy() / np.linalg.norm(x.numpy(), order, axis=1, keepdims=True)
        np.testing.assert_allclose(Norm(order)(x).numpy(), want, rtol=1e-13)
    x[1] = 0
    for order in (1, 2, inf):
        stage = Norm(order, largest_one=True)
        assert torch.equal(stage(x)[1], x[1])
        assert gradient(stage, x, torch.ones_like(x)).isfinite().all()
    assert Norm(2)(torch.zeros(0, 3)).shape == (0, 3)
    vector = numbers(7)
    torch.testing.assert_close(Norm(1)(vector), vector / vector.abs().sum())


def test_backward_that_is_not_the_derivative():
    x, upstream = numbers(4, 6), numbers(4, 6, seed=1)
    given = partial(Norm, 2, over="row")
    assert torch.equal(gradient(given(backward="straight_through"), x, upstream), upstream)
    assert torch.equal(given(backward="straight_through")(x), given()(x))
    through = Chain(given(backward="straight_through"), ReducePrecision(bits=3), rescale=True)
    assert torch.equal(gradient(through, x, upstream), upstream)
    for stage in (given(backward="none"), Clamp(backward="none"), ReducePrecision(bits=2, backward="none")):
        assert not stage(x.clone().requires_grad_()).requires_grad
        assert torch.equal(stage(x), type(stage)(**_given(stage))(x))


def _given(stage):
    return {"bits": 2} if isinstance(stage, ReducePrecision) else {"order": 2} if isinstance(stage, Norm) else {}


# --- precision ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("divide", [0.0, 0.25, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("precision", [1, 2, 7, 49, 1000])
def test_levels_by_exact_arithmetic(precision, divide):
    """Against fractions; what is on a level stays there, negative numbers mirror positive ones."""
    from fractions import Fraction
    from math import ceil, floor

    stage = ReducePrecision(precision=precision, divide=divide)
    x = torch.tensor(np.random.default_rng(3).uniform(-1.3, 1.3, 300))
    steps = [abs(Fraction(v)) * precision for v in x.tolist()]
    want = [max(floor(s), ceil(s - Fraction(divide))) for s in steps]
    got = stage(x)
    assert torch.equal(got, torch.sign(x) * torch.tensor(want, dtype=torch.float64) / precision)
    assert torch.equal(stage(-x), -got)
    for dtype in (torch.float32, torch.float64):
        on = torch.arange(-precision, precision + 1, dtype=dtype) / precision
        assert torch.equal(stage(on), on)
    assert torch.equal(gradient(stage, x, 2 * x), 2 * x)


def test_bits_and_narrow_numbers():
    assert [ReducePrecision(bits=b).precision for b in (1, 4, 24)] == [1, 15, 2**24 - 1]
    x = numbers(500, dtype=torch.float16)
    want = ReducePrecision(bits=20)(x.float()).half()  # 2^20 steps are beyond a half's range
    assert torch.equal(ReducePrecision(bits=20)(x), want)
    assert ReducePrecision(bits=3)(x.bfloat16()).dtype == torch.bfloat16


def test_stochastic_rounding_is_right_in_the_mean():
    stage = StochasticReducePrecision(precision=5, seed=1)
    for value in (-0.93, 0.07, 0.5):
        got = stage(torch.full((SAMPLES,), value, dtype=torch.float64)).numpy()
        part = abs(value) * 5 % 1
        agrees(got, value, part * (1 - part) / 25)
        assert np.unique(got).size == 2
    on = torch.arange(-5, 6, dtype=torch.float64) / 5
    assert torch.equal(stage(on), on)
    assert torch.equal(gradient(stage, on, on), on)


# --- noise ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("noise", NOISES)
def test_mean_and_variance(noise, dtype):
    stage = noise(std=0.07, seed=5)
    for value in (-1.0, 0.3):
        x = torch.full((SAMPLES,), value, dtype=dtype)
        want = 0.07**2 * (abs(value) if noise is PoissonNoise else 1)
        torch.testing.assert_close(stage.variance(x[:3]), torch.full((3,), want, dtype=dtype))
        got = stage(x)
        assert got.dtype == dtype
        agrees(got.numpy(), value, want)
    assert torch.equal(gradient(stage, x, 3 * x), 3 * x)


def test_distributions():
    x = torch.zeros(20_000, dtype=torch.float64)
    for noise, law in (
        (GaussianNoise, stats.norm(0, 0.2)),
        (LaplacianNoise, stats.laplace(0, 0.2 / sqrt(2))),
        (UniformNoise, stats.uniform(-0.2 * sqrt(3), 0.4 * sqrt(3))),
    ):
        assert stats.kstest(noise(std=0.2, seed=2)(x).numpy(), law.cdf).pvalue > 1e-4
    counts = PoissonNoise(std=0.5, seed=2)(x - 1).numpy() * -4  # photons = 4
    assert np.array_equal(counts, np.rint(counts))
    expected = stats.poisson(4).pmf(np.arange(10)) * counts.size
    assert (
        stats.chisquare(
            [*np.bincount(counts.astype(int), minlength=30)[:10]], expected * np.sum(counts < 10) / expected.sum()
        ).pvalue
        > 1e-4
    )
    assert not PoissonNoise(std=0.5, seed=2)(x).any()  # in the dark nothing is counted


@pytest.mark.parametrize("leakage", [0.02, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("precision", [1, 4, 15, 100])
@pytest.mark.parametrize("noise", NOISES)
def test_leakage_is_the_share_of_numbers_that_change_level(noise, precision, leakage):
    stage = noise(leakage=leakage, precision=precision, seed=1)
    assert stage.std == noise.std_of(leakage, precision)
    stated = stage.leakage_at(precision)
    if noise is PoissonNoise:  # counts are whole: what is asked for is met as nearly as one count lets it
        step = stats.poisson(stage.photons).pmf(round(stage.photons))
        assert abs(stated - leakage) <= 2 * step
    else:
        assert stated == pytest.approx(leakage, rel=1e-9)
    levels = np.array([precision, -precision]) if noise is PoissonNoise else np.arange(-precision, precision + 1)
    drawn = np.random.default_rng(0).choice(levels, 20_000)
    on = torch.tensor(drawn / precision)
    moved = (ReducePrecision(precision=precision)(stage(on)) - on).abs() > 0.5 / precision
    assert abs(moved.double().mean() - stated) < CHANCE * sqrt(stated * (1 - stated) / len(on)) + 1e-12


def test_uniform_noise_within_a_step_leaks_nothing():
    assert UniformNoise(std=0.1 / sqrt(12)).leakage_at(10) == pytest.approx(0, abs=1e-15)
    assert UniformNoise(std=0.05 / sqrt(12)).leakage_at(10) == 0


# --- AnalogVNN ------------------------------------------------------------------------------------------------------------------


def test_against_analogvnn():
    """Levels, stochastic rounding's set of results, norms and leakage of the package itself."""
    pytest.importorskip("analogvnn")
    from analogvnn.nn.noise.GaussianNoise import GaussianNoise as TheirGaussian
    from analogvnn.nn.noise.LaplacianNoise import LaplacianNoise as TheirLaplacian
    from analogvnn.nn.noise.PoissonNoise import PoissonNoise as TheirPoisson
    from analogvnn.nn.noise.UniformNoise import UniformNoise as TheirUniform
    from analogvnn.nn.normalize.Clamp import Clamp as TheirClamp
    from analogvnn.nn.precision.ReducePrecision import ReducePrecision as TheirPrecision

    their_norms = import_module("analogvnn.nn.normalize.LPNorm")
    x = numbers(50, 40, dtype=torch.float32)
    for precision in (1, 4, 15, 16, 255):
        for divide in (0.1, 0.5, 0.8):
            theirs, ours = TheirPrecision(precision, divide)(x), ReducePrecision(precision=precision, divide=divide)(x)
            assert torch.equal((theirs * precision).round(), (ours * precision).round())
        for leakage in (0.1, 0.5, 0.7):
            given = {"leakage": leakage, "precision": precision}
            assert GaussianNoise(**given).std == pytest.approx(float(TheirGaussian(**given).std), rel=1e-5)
            assert LaplacianNoise(**given).std == pytest.approx(float(TheirLaplacian(**given).stddev), rel=1e-5)
            assert UniformNoise(**given).std == pytest.approx(float(TheirUniform(**given).stddev), rel=1e-5)
            photons = PoissonNoise(**given).photons
            assert TheirPoisson.calc_max_leakage(photons / precision, precision) == pytest.approx(leakage, rel=1e-9)
    assert torch.equal(Clamp()(x), TheirClamp.forward(x))
    for order, over, largest_one, name in (
        (1, "row", False, "L1Norm"),
        (2, "row", False, "L2Norm"),
        (1, "tensor", False, "L1NormW"),
        (2, "tensor", False, "L2NormW"),
        (1, "row", True, "L1NormM"),
        (2, "row", True, "L2NormM"),
        (1, "tensor", True, "L1NormWM"),
        (2, "tensor", True, "L2NormWM"),
    ):
        ours = Norm(order, over=over, largest_one=largest_one)(x)
        torch.testing.assert_close(ours, getattr(their_norms, name)()(x), rtol=1e-5, atol=1e-7)


# --- seeds and state ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*NOISES, StochasticReducePrecision])
def test_seeds(kind):
    def made(**more):
        return kind(bits=4, **more) if kind is StochasticReducePrecision else kind(std=0.1, **more)

    x = numbers(64).clamp(-1, 1)
    first, second = made(seed=3), made(seed=3)
    calls = [first(x) for _ in range(3)]
    assert not torch.equal(calls[0], calls[1])
    assert all(torch.equal(second(x), call) for call in calls)
    assert not torch.equal(made(seed=4)(x), calls[0])
    # A run that is taken up again, and evaluated in between.
    saved = {name: value.clone() for name, value in first.state_dict().items()}
    first.eval()
    first(x)
    first.train()
    later = first(x)
    again = made()
    again.load_state_dict(saved)
    assert torch.equal(again(x), later)
    # Evaluation: fresh, or fixed if asked for.
    first.eval()
    assert not torch.equal(first(x), first(x))
    fixed = made(seed=3, fixed_in_eval=True).eval()
    assert torch.equal(fixed(x), fixed(x))
    fixed.train()
    assert torch.equal(fixed(x), calls[0])
    with pytest.raises(InputError, match=f"seed: expected one for {kind.__name__}"):
        made()(x)
    half = made(seed=3)(x.half())
    assert half.dtype == torch.float16


def test_stages_of_a_module_draw_apart():
    chains = torch.nn.ModuleList(Chain(noise=GaussianNoise(std=1.0)) for _ in range(2))
    x = torch.zeros(8)
    one, two = (chain(x) for chain in reseed(chains, 1))
    assert not torch.equal(one, two)
    assert torch.equal(reseed(chains, 1)[1](x), two)
    assert not torch.equal(reseed(chains, 2)[1](x), two)


def test_global_random_numbers_are_left_alone():
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    Chain(Clamp(), StochasticReducePrecision(bits=2, seed=0), GaussianNoise(std=1.0, seed=0))(torch.zeros(9))
    assert torch.equal(torch.random.get_rng_state(), before)


# --- chains ---------------------------------------------------------------------------------------------------------------------


def test_order_of_stages():
    x = numbers(5, 30)
    stages = Norm(inf), ReducePrecision(bits=2), GaussianNoise(std=0.2)
    scale = x.abs().amax(1, keepdim=True)
    noise = GaussianNoise(std=0.2, seed=1)(torch.zeros_like(x))
    onto = ReducePrecision(bits=2)

    def run(order, rescale):
        chain = Chain(*stages, rescale=rescale, order=order)
        chain.noise.reseed(1)
        return chain(x)

    into = ("normalise", "reduce_precision", "noise")
    torch.testing.assert_close(run(into, False), onto(x / scale) + noise)
    torch.testing.assert_close(run(into, True), (onto(x / scale) + noise) * scale)
    torch.testing.assert_close(run(("normalise", "noise", "reduce_precision"), True), onto(x / scale + noise) * scale)
    first = (x + noise) / (x + noise).abs().amax(1, keepdim=True)
    torch.testing.assert_close(run(("noise", "normalise", "reduce_precision"), False), onto(first))


def test_a_chain_of_nothing_is_its_input():
    x = numbers(3)
    assert Chain()(x) is x
    assert Chain(Ideal(), Ideal(), Ideal())(x) is x


def test_functorch():
    stage = Chain(Norm(2), ReducePrecision(bits=8), rescale=True)
    x = numbers(3, 4)
    got = torch.func.grad(lambda v: stage(v).square().sum())(x)
    y = x.clone().requires_grad_()
    stage(y).square().sum().backward()
    torch.testing.assert_close(got, y.grad)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Clamp(1, 1), "most: expected a finite number > 1, got 1"),
        (
            lambda: Clamp(backward="identity"),
            "backward: expected 'exact' or 'straight_through' or 'none' for Clamp, got 'identity'",
        ),
        (lambda: FullScale(0), "limit: expected a finite number > 0, got 0"),
        (lambda: Norm(3), "order: expected 1, 2 or inf, got 3"),
        (lambda: Norm(2, over="column"), "over: expected 'row' or 'tensor', got 'column'"),
        (lambda: Norm(2, centred=1), "centred: expected True or False, got 1"),
        (lambda: ReducePrecision(), "precision: expected either precision or bits, got None and None"),
        (lambda: ReducePrecision(bits=0), "bits: expected ≥ 1, got 0"),
        (lambda: ReducePrecision(bits=60), r"precision: expected fewer than 2\^52 levels, got 2\^60"),
        (lambda: ReducePrecision(bits=4, divide=1.5), "divide: expected 0 to 1, got 1.5"),
        (lambda: ReducePrecision(bits=4, backward="exact"), "backward: expected 'straight_through' or 'none' for Reduce"),
        (lambda: GaussianNoise(std=0), "std: expected a finite number > 0, got 0"),
        (lambda: GaussianNoise(), "std: expected either std or leakage, got None and None"),
        (lambda: GaussianNoise(std=0.1, bits=4), "precision: expected none beside std"),
        (lambda: GaussianNoise(leakage=0.1), "precision: expected either precision or bits"),
        (lambda: GaussianNoise(leakage=1, bits=4), "leakage: expected above 0 and below 1, got 1"),
        (lambda: GaussianNoise(std=1.0, seed=-1), "seed: expected ≥ 0, got -1"),
        (lambda: GaussianNoise(std=1.0, seed=2**63), r"seed: expected below 2\^63"),
        (lambda: PoissonNoise(std=1e-9), "std: expected at least"),
        (lambda: PoissonNoise(std=0.1, seed=0)(torch.tensor([torch.nan])), "x: expected finite numbers of fewer than"),
        (lambda: Clamp()(torch.tensor([1])), "x: expected real numbers of 16, 32 or 64 bits, got torch.int64"),
        (lambda: Chain(ReducePrecision(bits=2)), "normalise: expected Normalise or Ideal, got ReducePrecision"),
        (lambda: Chain(Clamp(), rescale=True), "rescale: expected a stage that scales, got Clamp"),
        (lambda: Chain(order=("noise", "normalise")), "order: expected each of normalise, reduce_precision, noise once"),
    ],
)
def test_refusals(build, message):
    with pytest.raises(InputError, match=message):
        build()
