"""Soft Hebbian learning against its equations written plainly, its fixed points, and the adaptation of a digit classifier."""

import numpy as np
import pytest
from scipy import stats
from scipy.ndimage import rotate, shift

from neuromorphic.learning.hebbian import HebbianClassifier, SoftHebbianLayer, centred
from numerics.errors import InputError


def plain(weight, bias, x, sharpness, rate, bias_rate, factor):
    """Sample by sample; factor(t, y): of each unit."""
    weight, bias, answers = weight.copy(), bias.copy(), []
    for t, sample in enumerate(x):
        u = weight @ sample
        y = np.exp(sharpness * u + bias)
        y /= y.sum()
        m = factor(t, y)
        weight += (rate * m * y)[:, None] * (sample[None] - u[:, None] * weight)
        bias += bias_rate * np.exp(-bias) * (y - np.exp(bias))
        answers.append(y)
    return weight, bias, np.array(answers)


@pytest.mark.parametrize("feedback", ["none", "confidence", "class"])
def test_equations(feedback):
    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(60, 9)), rng.normal(size=(5, 9))
    table = rng.dirichlet(np.ones(3), 5)
    modulator = rng.uniform(-0.2, 1, (60, 5))

    def factor(t, y):
        shares = y @ table
        if feedback == "confidence":
            return modulator[t] * (1 + (shares * np.log(shares)).sum() / np.log(3))
        return modulator[t] * (table[:, shares.argmax()] if feedback == "class" else 1)

    layer = SoftHebbianLayer(weight, sharpness=2.0)
    answers = layer.learn(
        x, rate=0.3, bias_rate=0.01, modulator=modulator, table=None if feedback == "none" else table, feedback=feedback
    )
    expected = plain(weight, np.full(5, -np.log(5)), x, 2.0, 0.3, 0.01, factor)
    for ours, theirs in zip((layer.weight, layer.bias, answers), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)
    assert layer.counts.weight_updates == 60 * 45
    np.testing.assert_allclose(layer.activity(x).sum(axis=1), 1)


def test_it_ends_at_the_clusters_and_their_shares():
    """Four directions with unequal shares: rows come to the length of the mean (1 for tight clusters), biases to log shares."""
    rng = np.random.default_rng(1)
    centres, shares = np.linalg.qr(rng.normal(size=(12, 4)))[0].T, np.array([0.4, 0.3, 0.2, 0.1])
    which = rng.choice(4, 20_000, p=shares)
    x = centres[which] + 0.02 * rng.normal(size=(20_000, 12))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    layer = SoftHebbianLayer(centres + 0.3 * rng.normal(size=(4, 12)), sharpness=20.0)
    layer.learn(x, rate=0.02, bias_rate=0.001)
    lengths = np.linalg.norm(layer.weight, axis=1)
    np.testing.assert_allclose(lengths, 1, atol=0.01)
    assert ((layer.weight * centres).sum(axis=1) / lengths > 0.999).all()
    np.testing.assert_allclose(np.exp(layer.bias), shares, atol=0.02)


def test_few_bits_learn_what_floats_learn_on_average():
    rng = np.random.default_rng(2)
    x = centred(rng.normal(size=(400, 10)))
    weight = np.rint(rng.uniform(-0.5, 0.5, (3, 10)) * 127) / 127
    exact = SoftHebbianLayer(weight, sharpness=1.0)
    exact.learn(x, rate=0.01)
    found = []
    for seed in range(60):
        layer = SoftHebbianLayer(weight, sharpness=1.0, bits=8, seed=seed)
        layer.learn(x, rate=0.01)
        np.testing.assert_allclose(layer.weight * 127, np.rint(layer.weight * 127), atol=1e-9)
        found.append(layer.weight)
    mean, spread = np.mean(found, axis=0), np.std(found, axis=0, ddof=1)
    assert (np.abs(exact.weight - weight) > 2 * np.abs(mean - exact.weight)).mean() > 0.7
    assert (np.abs(mean - exact.weight) < 4.5 * spread / 60**0.5).all()
    parts = SoftHebbianLayer(weight, sharpness=1.0, bits=8, seed=0)
    parts.learn(x[:150], rate=0.01)
    parts.learn(x[150:], rate=0.01)
    assert np.array_equal(parts.weight, found[0])


def test_quiet_units_learn_nothing():
    rng = np.random.default_rng(3)
    x = centred(rng.normal(size=(200, 10)))
    layer = SoftHebbianLayer.of_samples(x, 8, sharpness=20.0, least_activity=0.05)
    active = layer.learn(x, rate=0.1) >= 0.05
    assert layer.counts.weight_updates == 10 * active.sum() < 10 * active.size / 2
    one = SoftHebbianLayer(np.eye(2), sharpness=20.0, least_activity=0.05)
    one.learn([[1.0, 0.5]], rate=0.1)
    assert np.array_equal(one.weight[1], [0, 1])
    assert not np.array_equal(one.weight[0], [1, 0])


def digit_gain(kind, end, seed, feedback="class"):
    """Accuracy on held-out digits after a drift: without and with adaptation to 1,800 unlabelled digits that drift that far."""
    from sklearn.datasets import load_digits

    images, labels = load_digits().images / 16, load_digits().target
    rng = np.random.default_rng(seed)
    known, stream, held = np.split(rng.permutation(labels.size), [700, 1300])

    def drifted(at, amount):
        if kind == "rotation":
            moved = [rotate(image, a, reshape=False, order=1) for image, a in zip(images[at], amount, strict=True)]
        else:
            moved = [shift(image, (0, a), order=1) for image, a in zip(images[at], amount, strict=True)]
        return centred(np.array(moved))

    x = centred(images[known])
    layer = SoftHebbianLayer.of_samples(x, 200, sharpness=40.0, seed=seed, bits=8, least_activity=1 / 256)
    for turn in range(6):
        layer.learn(x[rng.permutation(700)], rate=0.05 * (1 - turn / 6))
    classifier = HebbianClassifier(layer, x, labels[known], classes=10)
    clean = (classifier.predict(centred(images[held])) == labels[held]).mean()
    far = drifted(held, np.full(held.size, end))
    before = (classifier.predict(far) == labels[held]).mean()
    order = np.concatenate([rng.permutation(stream) for _ in range(3)])
    classifier.layer = layer.copy()
    classifier.adapt(drifted(order, np.linspace(0, end, order.size)), rate=0.5, feedback=feedback)
    after = (classifier.predict(far) == labels[held]).mean()
    return clean, before, after, classifier.layer.counts.weight_updates / order.size


@pytest.mark.parametrize(("kind", "end"), [("rotation", 45.0), ("shift", 1.5)])
def test_a_classifier_follows_drifting_digits_without_labels(kind, end):
    """8-bit weights; the gain's 95 % interval over seeds is far from 0."""
    found = np.array([digit_gain(kind, end, seed) for seed in range(4)])
    clean, before, after, updates = found.mean(axis=0)
    gain = found[:, 2] - found[:, 1]
    half = stats.t.ppf(0.975, gain.size - 1) * gain.std(ddof=1) / gain.size**0.5
    print(f"{kind}: clean {clean:.3f}, drifted {before:.3f}, adapted {after:.3f}")
    print(f"gain {gain.mean():.3f} ± {half:.3f}, {updates:.0f} weights written a sample")
    assert clean > 0.94
    assert gain.mean() - half > 0.3
    assert after > 0.6
    assert updates < 200 * 64 / 10  # few of the 12,800 weights are written for a sample


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: SoftHebbianLayer(np.eye(2), sharpness=0.0), "sharpness: expected a number > 0, got 0.0"),
        (lambda: SoftHebbianLayer(np.ones(3), sharpness=1.0), "weight: expected finite numbers (units, inputs), got shape (3,)"),
        (lambda: SoftHebbianLayer(np.eye(2), sharpness=1.0, bias=[1.0]), "bias: expected 2 finite numbers, got shape (1,)"),
        (lambda: SoftHebbianLayer(np.eye(2), sharpness=1.0, bits=1), "bits: expected an integer from 2 to 24, got 1"),
        (
            lambda: SoftHebbianLayer(2 * np.eye(2), sharpness=1.0, bits=8),
            "weight: expected −1 to 1 where weights have 8 bits, got 2",
        ),
        (
            lambda: SoftHebbianLayer(np.eye(2), sharpness=1.0, least_activity=1.0),
            "least_activity: expected 0 to below 1, got 1.0",
        ),
        (lambda: SoftHebbianLayer.of_samples(np.eye(2), 3, sharpness=1.0), "units: expected 1 to 2, one sample each, got 3"),
        (
            lambda: SoftHebbianLayer(np.eye(2), sharpness=1.0).learn(np.ones((1, 3)), rate=0.1),
            "x: expected finite numbers (samples, 2), got shape (1, 3)",
        ),
        (lambda: SoftHebbianLayer(np.eye(2), sharpness=1.0).learn(np.eye(2), rate=2.0), "rate: expected 0 to 1, got 2.0"),
        (
            lambda: SoftHebbianLayer(np.eye(2), sharpness=1.0).learn(np.eye(2), rate=0.1, feedback="class"),
            "table: expected with feedback, and only then",
        ),
        (
            lambda: SoftHebbianLayer(np.eye(2), sharpness=1.0).learn(np.eye(2), rate=0.1, modulator=[1.0]),
            "modulator: expected finite numbers (2,) or with 2 units, got (1,)",
        ),
        (
            lambda: HebbianClassifier(SoftHebbianLayer(np.eye(2), sharpness=1.0), np.eye(2), [0, 2], classes=2),
            "labels: expected 0 to 1, got 0 to 2",
        ),
        (lambda: centred(np.ones(3)), "x: expected finite numbers (samples, …), got shape (3,)"),
    ],
)
def test_bad_input(make, text):
    with pytest.raises(InputError) as error:
        make()
    assert str(error.value) == text
