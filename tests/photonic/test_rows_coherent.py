"""Y. Shen et al., "Deep learning with coherent nanophotonic circuits": its vowels, its count of interferometers, its phase bits.

Published: 91.7 % of 180 test samples on a digital computer, 76.7 % on the chip. Here, over 40 splits, mean ± standard deviation
in per cent (``test_vowels_over_40_splits`` prints them), with the figures that the paper gives for its chip:

    split           network     digital  ideal mesh  the paper's errors  and heat of 0.002  of 0.01
    random          intensity   81 ± 3   81 ± 3      78 ± 4              73 ± 8             47 ± 10
    random          field       90 ± 3   90 ± 3      90 ± 3              90 ± 3             86 ± 5
    by speakers     intensity   67 ± 6   67 ± 6      67 ± 6              61 ± 7             43 ± 12
    by speakers     field       67 ± 8   67 ± 8      67 ± 8              67 ± 8             66 ± 8

So phases off by 5·10⁻³ rad and detection noise of 0.1 % alone do not lose 15 points. Heat does, of which the paper gives no
number: its share is varied here, not fitted, and where intensities are detected little of it is enough. The digital figures
differ from the paper's, whose vowels, coefficients, scaling and training are not known; ``test_choice_of_vowels`` shows what
another four vowels would do. Samples of one speaker are much alike: with all of them on one side of a split, accuracy without
heat is 11 to 14 points lower where intensities are detected, 23 where fields are; with heat of 0.01, 4 and 20.
"""

from itertools import combinations

import numpy as np
import pytest
import torch
from mesh_reference import haar

import hwsim
from numerics.errors import InputError
from photonic.decomposition import decompose
from photonic.fabrication import fabricate
from photonic.imperfections import Imperfections, PhaseQuantisation
from photonic.svd_engine import SvdEngine
from photonic.vowels import (
    CORNERS,
    Errors,
    _Absorbed,
    absorbed,
    accuracies,
    chip,
    digital,
    encoded,
    engines,
    ideal,
    lines,
    samples,
    splits,
    train,
)

CASES = {"digital": None, "ideal": "ideal", "paper": Errors(), "heat 0.002": Errors(heat=0.002), "heat 0.01": Errors(heat=0.01)}
ON_CHIP, GAP = 0.767, 0.917 - 0.767


@pytest.fixture(autouse=True)
def one_thread():
    """Products here are small: threads would wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# --- samples and splits ---------------------------------------------------------------------------------------------------------


def test_samples():
    speakers, coefficients, classes = samples()
    assert coefficients.shape == (360, 9)
    assert np.bincount(classes).tolist() == [90] * 4
    assert np.bincount(speakers).tolist() == [24] * 15


def test_the_speaker_is_never_an_input():
    """Neither by its column, nor by anything that equals it."""
    speakers, coefficients, _ = samples()
    assert not (coefficients == speakers[:, None]).all(axis=0).any()
    for kind, inputs in (("intensity", 4), ("field", 10)):
        given = encoded(kind, coefficients, np.arange(180))
        assert given.shape == (inputs, 360)
        assert all(abs(np.corrcoef(row, speakers)[0, 1]) < 0.8 for row in given if np.ptp(row) > 0)


def test_splits():
    speakers = samples()[0]
    for how, sizes in (("random", (180, 180)), ("speakers", (180, 168))):
        found = list(splits(how, 30))
        for training, test in found:
            assert (len(set(training)), len(set(test))) == sizes
            assert not set(training) & set(test)
            shared = set(speakers[training]) & set(speakers[test])
            assert len(shared) == (0 if how == "speakers" else 15)
        assert len({tuple(sorted(test)) for _, test in found}) > 25


# --- networks -------------------------------------------------------------------------------------------------------------------


def test_saturable_absorber():
    """Transmission solves u = ½·ln(T/T₀)/(1 − T), from T₀ in the dark to 1; the gradient is that of finite differences."""
    u = np.geomspace(1e-6, 1e3, 200)
    transmission = absorbed(u) / u
    solved = transmission < 1 - 1e-9
    np.testing.assert_allclose((0.5 * np.log(transmission / 0.1) / (1 - transmission))[solved], u[solved], rtol=1e-6)
    assert (np.diff(absorbed(u)) > 0).all()
    assert transmission[0] == pytest.approx(0.1, rel=1e-5)
    assert transmission[-1] == pytest.approx(1, abs=2e-3)
    given = torch.tensor(np.geomspace(1e-3, 20, 30), requires_grad=True)
    assert torch.autograd.gradcheck(_Absorbed.apply, given)


@pytest.mark.parametrize(
    ("kind", "how"), [("intensity", "random"), ("field", "random"), ("intensity", "speakers"), ("field", "speakers")]
)
def test_vowels(kind, how):
    found = accuracies(how, kind, 6, CASES, restarts=3)
    mean = {case: values.mean() for case, values in found.items()}
    np.testing.assert_array_equal(found["ideal"], found["digital"])
    expected = {("intensity", "random"): 0.81, ("field", "random"): 0.90}.get((kind, how), 0.67)
    assert abs(mean["digital"] - expected) < 0.06
    assert mean["digital"] - mean["paper"] < GAP / 2
    if kind == "intensity":
        assert mean["digital"] - mean["heat 0.01"] > (GAP if how == "random" else GAP / 2)
        if how == "random":
            assert mean["digital"] > ON_CHIP > mean["heat 0.01"]


def test_cases_have_names():
    with pytest.raises(InputError, match="cases: expected Mapping, got list"):
        accuracies("random", "field", 1, [None])
    with pytest.raises(InputError, match="cases: mine: expected None, 'ideal' or Errors, got int"):
        accuracies("random", "field", 1, {"mine": 3})


@pytest.mark.parametrize("kind", ["intensity", "field"])
def test_ideal_mesh_is_the_digital_network(kind):
    network = train(kind, "random", 1, restarts=1, steps=30)[0]
    rng = np.random.default_rng(1)
    for matrix, plain, on_mesh in zip((network.first, network.second), digital(network), ideal(network), strict=True):
        x = rng.uniform(-1, 1, (matrix.shape[1], 50))
        np.testing.assert_allclose(on_mesh(x), plain(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["intensity", "field"])
def test_noise_of_the_chip_is_as_said(kind):
    """Detection alone: deviations of mean 0 and a thousandth of the largest result, the same at every output."""
    network = train(kind, "random", 1, restarts=1, steps=30)[0]
    given = network.inputs[:, network.training]
    plain = ideal(network)[0](given)
    largest = np.abs(plain).max() if kind == "intensity" else np.abs(engines(network)[0].apply(given)).max()
    off = np.concatenate([chip(network, Errors(phase_rad=0.0), seed)[0](given) - plain for seed in range(40)], axis=1)
    count = off.size
    assert abs(off.mean()) < 4.5 * off.std() / np.sqrt(count)
    assert off.std() == pytest.approx(1e-3 * largest, rel=0.02)
    phases = np.concatenate([chip(network, Errors(detection=1e-12), seed)[0](given) - plain for seed in range(40)], axis=1)
    assert 1e-3 < phases.std() / largest < 0.02


@pytest.mark.exhaustive
def test_vowels_over_40_splits():
    for how in ("random", "speakers"):
        for kind in ("intensity", "field"):
            found = accuracies(how, kind, 40, CASES)
            parts = [f"{case} {100 * values.mean():.1f} ± {100 * values.std():.1f}" for case, values in found.items()]
            print(f"{how}, {kind}: {'; '.join(parts)}")
            np.testing.assert_array_equal(found["ideal"], found["digital"])
            assert abs(found["paper"].mean() - found["digital"].mean()) < GAP / 2
            if kind == "intensity":
                assert found["digital"].mean() - found["heat 0.01"].mean() > GAP


@pytest.mark.exhaustive
def test_choice_of_vowels():
    """Linear discriminants of nine coefficients, ten random halves each: what sets of four vowels differ in."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    words = sorted({line.rsplit(",", 1)[1] for line in lines()} - {"Class"})
    means = {}
    for vowels in combinations(words, 4):
        _, coefficients, classes = samples(vowels)
        rng, scores = np.random.default_rng(0), []
        for _ in range(10):
            order = rng.permutation(360)
            model = LinearDiscriminantAnalysis().fit(coefficients[order[:180]], classes[order[:180]])
            scores.append(model.score(coefficients[order[180:]], classes[order[180:]]))
        means[frozenset(vowels)] = np.mean(scores)
    values = np.array(list(means.values()))
    mine = means[frozenset(CORNERS)]
    print(f"{len(values)} sets: {values.min():.3f} to {values.max():.3f}, mean {values.mean():.3f}; this one {mine:.3f}")
    assert len(values) == 330
    assert 0.6 < values.min() < 0.7 < np.median(values) < mine < values.max() < 0.95


# --- interferometers and phase bits ---------------------------------------------------------------------------------------------


def test_56_interferometers():
    """All of the chip, a test bed of 22 modes, as the spec says; a program has 6 in each of U and V† of a layer, and attenuators.

    An 8×8 matrix by singular values would have as many: twice 28.
    """
    spec = hwsim.get_device("coherent_mzi_56").spec
    assert spec.engine.interferometers_on_chip == 56
    network = train("intensity", "random", 1, restarts=1, steps=5)[0]
    for engine in engines(network):
        assert (engine.mzis, engine.attenuators) == (2 * 6, 4)
    wide = train("field", "random", 1, restarts=1, steps=5)[0]
    assert [engine.mzis for engine in engines(wide)] == [3 * 12, 2 * 12]
    assert SvdEngine.program(np.random.default_rng(0).standard_normal((8, 8))).mzis == 2 * 28 == 56


PUBLISHED = {4: 0.353, 6: 0.090, 8: 0.023, 10: 0.0058}


@pytest.mark.parametrize("bits", PUBLISHED)
def test_error_against_phase_bits(bits):
    """‖error‖/‖matrix‖ of an 8×8 Haar matrix on 28 MZIs, in the convention that gives the published figures.

    An MZI is a rotation by α = θ/2 behind a phase φ, [[e^{iφ}·sin α, cos α], [e^{iφ}·cos α, −sin α]] (W. R. Clements et al.,
    Optica 3(12), 1460, 2016), as if both arms were driven, by ±α: α and φ are rounded to steps of 2π/2^bits, output phases are
    not. An error of α turns two amplitudes, one of φ a single one: for small steps 84 squares of step²/12, over 8. Of θ on one
    arm, φ and output phases there are 64 (``test_imperfections``).
    """
    grid = PhaseQuantisation(bits, arms="both", outputs=False)
    errors = []
    for seed in range(150):
        unitary = haar(8, seed)
        mesh = decompose(unitary)
        assert mesh.layout.mzis == 28
        assert np.linalg.norm(mesh.matrix() - unitary) / np.linalg.norm(unitary) < 1e-14
        coarse = fabricate(mesh, Imperfections(phase_quantisation=grid), seed=0).matrix()
        errors.append(np.linalg.norm(coarse - unitary) / np.linalg.norm(unitary))
    mean, spread = np.mean(errors), np.std(errors)
    print(f"{bits} bits: {mean:.4f} ± {spread:.4f}, published {PUBLISHED[bits]}")
    assert mean == pytest.approx(PUBLISHED[bits], rel=0.04)
    if bits >= 6:
        assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.sqrt(84 / 8 / 12) * grid.step_rad, rel=0.04)
