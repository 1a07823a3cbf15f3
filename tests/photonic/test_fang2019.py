"""Fidelity of imperfect meshes against published and independently computed figures (the files say where they are from)."""

import csv
from pathlib import Path

import numpy as np
import pytest
from mesh_reference import haar

from photonic.calibration import fidelity
from photonic.decomposition import decompose
from photonic.fabrication import fabricate
from photonic.imperfections import Imperfections, InsertionLoss, PhaseError, SplitterError

DATA = Path(__file__).parent / "data"
FILE_TRIALS = 20


def rows(name):
    lines = [line for line in (DATA / name).read_text().splitlines() if not line.startswith("#")]
    return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(lines)]


def fang(sigma):
    return Imperfections(PhaseError(sigma), splitter_error=SplitterError(sigma, of="amplitude"))


def fidelities(sigmas, trials, size=256):
    """(sigmas, trials): a Haar unitary matrix and a chip of its own in each trial."""
    found = np.empty((len(sigmas), trials))
    for trial in range(trials):
        unitary = haar(size, trial)
        mesh = decompose(unitary)
        for k, sigma in enumerate(sigmas):
            found[k, trial] = fidelity(fabricate(mesh, fang(sigma), seed=1000 * trial + k).matrix(), unitary)
    return found


def test_fidelity_of_256_modes():
    """Fewer trials than the file's: its tolerance, or what chance allows for that number."""
    published = rows("fang2019_grid.csv")
    assert len(published) == 21
    trials = 3
    found = fidelities([row["sigma"] for row in published], trials).mean(axis=1)
    for mean, row in zip(found, published, strict=True):
        chance = 3 * row["fidelity_std"] * np.sqrt(1 / trials + 1 / FILE_TRIALS)
        assert abs(mean - row["fidelity_mean"]) <= max(0.002, chance), row["sigma"]
    assert (np.diff(found) < 0).all()


@pytest.mark.exhaustive
def test_fidelity_of_256_modes_in_20_trials():
    published = rows("fang2019_grid.csv")
    found = fidelities([row["sigma"] for row in published], FILE_TRIALS)
    worst = 0.0
    for trials, row in zip(found, published, strict=True):
        off, allowed = abs(trials.mean() - row["fidelity_mean"]), max(0.002, 3 * row["fidelity_std"] / np.sqrt(FILE_TRIALS))
        fit = np.exp(-5 * 256 * row["sigma"] ** 2)
        print(
            f"sigma {row['sigma']:.3f}: {trials.mean():.6f} ± {trials.std():.6f}, published {row['fidelity_mean']:.6f} ± "
            f"{row['fidelity_std']:.6f}, difference {off:.6f}, exp(-5 N sigma^2) {fit:.6f}"
        )
        worst = max(worst, off / allowed)
    assert worst <= 1


@pytest.mark.parametrize(
    ("faults", "lost"),
    [
        (lambda s: Imperfections(PhaseError(s)), 1),
        (lambda s: Imperfections(splitter_error=SplitterError(s)), 2),
        (lambda s: Imperfections(splitter_error=SplitterError(s, of="amplitude")), 4),
        (fang, 5),
    ],
    ids=["phase", "angle", "amplitude", "all"],
)
def test_mean_loss_of_fidelity_is_known(faults, lost):
    """Of any unitary matrix, to second order in σ: an error that generates H costs σ²·(tr H²/N − (tr H)²/N²).

    A phase in one arm has tr H = tr H² = 1, and there are N² of them: (N − 1)·σ². A splitter's angle has tr H = 0, tr H² = 2, and
    there are N(N − 1): 2(N − 1)·σ²; twice that for amplitudes. Hence the published fit, exp(−5Nσ²).
    """
    size, sigma, chips = 32, 0.002, 60
    unitary = haar(size, 1)
    mesh = decompose(unitary)
    values = np.array([1 - fidelity(fabricate(mesh, faults(sigma), seed=k).matrix(), unitary) for k in range(chips)])
    assert abs(values.mean() - lost * (size - 1) * sigma**2) < 4.5 * values.std() / np.sqrt(chips) + 0.5 * values.mean() ** 2
    assert values.std() / np.sqrt(chips) < 0.02 * values.mean()


def loss_fidelities(size, kind, losses, trials):
    found = np.empty((len(losses), trials))
    for trial in range(trials):
        unitary = haar(size, 10_000 + trial)
        mesh = decompose(unitary, kind)
        for k, loss in enumerate(losses):
            faults = Imperfections(insertion_loss=InsertionLoss(splitter_db=loss / 2))
            found[k, trial] = fidelity(fabricate(mesh, faults, seed=0).matrix(), unitary, common_loss=True)
    return found


def compare_losses(trials):
    """Mean |difference| over the file, and each difference by what chance leaves of both means.

    The file does not say how many matrices it averages; its differences from means over many are those of about twenty.
    """
    published, differences = rows("mesh_loss_fidelity.csv"), []
    for size in (10, 20):
        mine = [row for row in published if row["n"] == size]
        losses = [row["loss_db_per_mzi"] for row in mine]
        for kind, column in (("rectangular", "fidelity_clements"), ("triangular", "fidelity_reck")):
            found = loss_fidelities(size, kind, losses, trials)
            for values, row in zip(found, mine, strict=True):
                off = values.mean() - row[column]
                print(f"{size} {kind} {row['loss_db_per_mzi']} dB: {values.mean():.5f}, file {row[column]:.5f}, off {off:+.5f}")
                assert abs(off) <= max(1e-3, 3 * values.std() * np.sqrt(1 / trials + 1 / FILE_TRIALS))
                differences.append(abs(off))
    print(f"mean |difference| {np.mean(differences):.5f}")
    assert np.mean(differences) <= 1e-3


def test_fidelity_under_loss():
    compare_losses(200)


@pytest.mark.exhaustive
def test_fidelity_under_loss_in_many_trials():
    compare_losses(2000)
