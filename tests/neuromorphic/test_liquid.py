"""The liquid of memristive cells: spike for spike its network without noise; a probe of it above one of its input."""

from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest

from hwsim.faults.statistics import paired_difference, wilson
from neuromorphic.crossbars.contrastive import align
from neuromorphic.crossbars.crossbar import Adc, Crossbar, IdealAdc
from neuromorphic.crossbars.liquid import Liquid, Probe
from neuromorphic.crossbars.memristor import GaussianProgramming, GaussianReading, LognormalProgramming, Memristor
from neuromorphic.dynamics import simulate
from neuromorphic.encoders import latency_events
from neuromorphic.events import Events
from numerics.errors import InputError

STEPS = 16
TRAINED = 1347
DEVICE = Memristor(0.0, 100e-6, programming=GaussianProgramming(10e-6))
MACRO = Crossbar(512, 512, DEVICE, adc=Adc(8))


@cache
def samples():
    """The digits of scikit-learn in a seeded order, brightness as the time of a pixel's one spike: (1797, steps, 64); labels."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    sent = np.stack([latency_events(image / 16, steps=STEPS).dense() for image in images[order]])
    return sent, labels[order]


@cache
def swept(share, seed):
    """Features of all samples with read noise of that share of each conductance."""
    crossbar = replace(MACRO, device=replace(DEVICE, reading=GaussianReading(share=share)))
    liquid = Liquid.form(crossbar, 64, 256, target_siemens=50e-6, seed=seed, decay_v=1.0, threshold=1.0)
    return liquid.calibrated(samples()[0][:100]).run(samples()[0], seed=seed).features


def right(features):
    """Which test samples a probe of the features has right."""
    labels = samples()[1]
    return Probe.fit(features[:TRAINED], labels[:TRAINED]).predict(features[TRAINED:]) == labels[TRAINED:]


def test_without_noise_it_is_its_network():
    device = Memristor(0.0, 200e-6, programming=LognormalProgramming(0.2))
    liquid = Liquid.form(Crossbar(60, 70, device), 20, 30, target_siemens=50e-6, seed=4, recurrent_drive=0.4)
    assert liquid.matrix.weights().std() == pytest.approx(1)
    sent = np.random.default_rng(0).random((6, 40, 20)) < 0.1
    found = liquid.run(sent, seed=0, windows=5)
    network = liquid.network()
    for one, counts in zip(sent, found.counts, strict=True):
        spikes = simulate(network, {"input": one}).events["liquid"].dense()
        assert np.array_equal(spikes.reshape(5, 8, 30).sum(axis=1), counts)
    assert 0.02 < found.counts.sum() / (6 * 40 * 30) < 0.5
    silent = replace(liquid, recurrent_drive=0.0).run(sent, seed=0, windows=5)
    assert not np.array_equal(silent.counts, found.counts)
    listed = [Events.from_dense(one) for one in sent]
    assert np.array_equal(liquid.run(listed, seed=0, windows=5).counts, found.counts)


def test_the_published_array_holds_the_whole_liquid():
    """512 × 512 cells are 256 Kb: 256 inputs, 256 neurons and a pair of cells a weight."""
    assert MACRO.cell_count == 256 * 1024
    liquid = Liquid.form(MACRO, 256, 256, target_siemens=50e-6, seed=1)
    assert liquid.matrix.tiles == (1, 1)
    run = liquid.run(np.ones((2, 3, 256)), seed=0)
    assert run.reads.vectors == 6
    assert run.reads.cell_reads == 6 * 512 * 512
    assert run.reads.adc_conversions == 6 * 256


def test_a_sample_does_not_depend_on_those_that_follow():
    crossbar = replace(MACRO, device=replace(DEVICE, reading=GaussianReading(share=0.1)))
    liquid = Liquid.form(crossbar, 64, 50, target_siemens=50e-6, seed=1)
    sent = samples()[0][:7]
    whole = liquid.run(sent, seed=2).counts
    assert np.array_equal(liquid.run(sent[:3], seed=2).counts, whole[:3])
    assert not np.array_equal(liquid.run(sent, seed=3).counts, whole)


def test_a_probe_of_the_liquid_beats_one_of_the_mean_input():
    """The mean input says which pixels spiked, not when."""
    baseline = right(samples()[0].mean(axis=1))
    liquid = right(swept(0.02, 1))
    gain = paired_difference(int((liquid & ~baseline).sum()), int((baseline & ~liquid).sum()), len(liquid))
    print(f"mean input {baseline.mean():.3f}, liquid {liquid.mean():.3f}, gain {gain}")
    assert gain.low > 0.02


def test_accuracy_falls_gracefully_with_read_noise():
    shares = (0.0, 0.05, 0.15, 0.4)
    hits = [int(right(swept(share, 1)).sum()) for share in shares]
    intervals = [wilson(hit, 450) for hit in hits]
    print(", ".join(f"{share:g}: {interval}" for share, interval in zip(shares, intervals, strict=True)))
    for less, more in pairwise(intervals):
        assert more.low < less.high, "more noise is not clearly better"
    assert intervals[1].high > intervals[0].low, "a little noise costs nothing that shows"
    assert intervals[3].high < intervals[2].low < intervals[1].high, "much noise does"
    assert intervals[3].low > 0.2, "and twice what chance gives is left"


@pytest.mark.exhaustive
def test_mean_accuracy_of_several_liquids_falls_with_read_noise():
    shares = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4)
    baseline = right(samples()[0].mean(axis=1)).mean()
    accuracies = np.array([[right(swept(share, seed)).mean() for seed in range(1, 6)] for share in shares])
    print([f"{share:g}: {row.mean():.3f} ± {row.std(ddof=1):.3f}" for share, row in zip(shares, accuracies, strict=True)])
    means, error = accuracies.mean(axis=1), accuracies.std(axis=1, ddof=1) / np.sqrt(5)
    assert (means[1:] < means[:-1] + 2 * np.hypot(error[1:], error[:-1])).all()
    assert (accuracies[:3] > baseline).all()
    assert means[-1] < means[0] - 0.3


def test_zero_shot_across_two_modalities():
    """Each digit seen as pixels that spike by brightness and as columns that pass by. Projections are aligned on seven digits;
    three they never saw are then told apart by examples of the other modality. Wrong pairs must teach nothing."""
    sent, labels = samples()
    brightness = swept(0.02, 1)
    # A column every two steps; low and high thresholds make two channels a row.
    columns = (STEPS - sent.argmax(axis=1)).reshape(-1, 8, 8) * sent.any(axis=1).reshape(-1, 8, 8) / STEPS
    passing = np.repeat(columns.transpose(0, 2, 1), 2, axis=1)
    levels = np.where(np.arange(STEPS)[:, None] % 2, [0.45, 0.8], [0.25, 0.6])
    passing = np.concatenate([passing > levels[:, :1], passing > levels[:, 1:]], axis=2).astype(float)
    other = Liquid.form(MACRO, 16, 256, target_siemens=50e-6, seed=2).run(passing, seed=2, windows=4).features
    seen = ~np.isin(labels, (3, 6, 9))
    unseen = np.flatnonzero(~seen)
    examples, queries = unseen[::2], unseen[1::2]
    partners = np.flatnonzero(seen)
    found = []
    for pairs in (partners, *(np.random.default_rng(k).permutation(partners) for k in range(3))):
        aligned = align(brightness[partners], other[pairs], epochs=10, seed=0)
        told = aligned.classify(brightness[queries], other[examples], labels[examples])
        found.append(wilson(int((told == labels[queries]).sum()), len(queries)))
        assert aligned.losses[-1] < aligned.losses[0]
    print(f"right pairs {found[0]}; wrong ones {', '.join(f'{one.estimate:.3f}' for one in found[1:])}")
    assert found[0].low > 0.75
    assert max(one.high for one in found[1:]) < found[0].low
    assert np.mean([one.estimate for one in found[1:]]) == pytest.approx(1 / 3, abs=0.12)


# --- the probe ------------------------------------------------------------------------------------------------------------------


def test_the_probe_is_ridge_regression_chosen_by_leaving_one_out():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((40, 6)) @ rng.standard_normal((6, 6))
    y = (x[:, 0] + rng.standard_normal(40) > 0).astype(int) + 2 * (x[:, 1] > 1)
    ridges = (0.1, 1.0, 10.0, 100.0)
    probe = Probe.fit(x, y, ridges=ridges)
    scaled, target = (x - x.mean(0)) / x.std(0), (y[:, None] == np.unique(y)).astype(float)

    def solved(a, b, ridge):
        """With an unpenalised offset, by the normal equations."""
        a = np.column_stack((a, np.ones(len(a))))
        return np.linalg.solve(a.T @ a + np.diag([ridge] * 6 + [0]), a.T @ b)

    errors = []
    for ridge in ridges:
        left_out = []
        for k in range(40):
            others = np.delete(scaled, k, 0), np.delete(target, k, 0)
            left_out.append(np.append(scaled[k], 1) @ solved(*others, ridge) - target[k])
        errors.append(np.mean(np.square(left_out)))
    assert probe.ridge == ridges[int(np.argmin(errors))]
    expected = np.column_stack((scaled, np.ones(40))) @ solved(scaled, target, probe.ridge)
    np.testing.assert_allclose(scaled @ probe.weights + probe.offset, expected, atol=1e-10)
    assert np.array_equal(probe.predict(x), np.unique(y)[expected.argmax(axis=1)])
    assert probe.accuracy(x, y) == np.mean(probe.predict(x) == y)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Liquid.form(MACRO, 4, 3, target_siemens=5e-5, seed=0, decay_v=2), "decay_v: expected 0 to 1, got 2"),
        (lambda: Liquid.form(MACRO, 0, 3, target_siemens=5e-5, seed=0), "inputs: expected an integer ≥ 1, got 0"),
        (lambda: Liquid(MACRO.form(7, 3, target_siemens=5e-5, seed=0), 3), r"matrix: expected 3 \+ 3 rows, .* got 7"),
        (lambda: liquid().run(np.ones((2, 5, 3)), seed=0), r"events: expected \(samples, steps, 4\), got shape \(2, 5, 3\)"),
        (lambda: liquid().run(np.ones((2, 5, 4)), seed=0, windows=6), "windows: expected at most 5, the steps, got 6"),
        (lambda: liquid().run([Events.from_dense(np.ones((k, 4))) for k in (2, 3)], seed=0), "one number of steps, got 2 and 3"),
        (lambda: liquid(IdealAdc()).calibrated(np.ones((1, 2, 4))), "adc: expected an Adc, got an ideal one"),
        (lambda: Probe.fit(np.ones((4, 2)), [1, 1, 1, 1]), "labels: expected at least two classes, got 1"),
        (lambda: Probe.fit(np.ones((4, 2)), [0.5, 1, 1, 1]), "features, labels: expected"),
        (lambda: align(np.ones((4, 2)), np.ones((3, 2)), seed=0), r"first, second: expected pairs .* got \(4, 2\) and \(3, 2\)"),
        (lambda: align(np.ones((4, 2)), np.ones((4, 2)), temperature=0, seed=0), "temperature: expected a finite number > 0"),
    ],
)  # fmt: skip
def test_what_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


def liquid(adc=None):
    return Liquid.form(replace(MACRO, adc=adc or Adc(8)), 4, 3, target_siemens=5e-5, seed=0)
