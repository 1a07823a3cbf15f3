"""Faults of optical engines: what each does to a product, by hand; campaigns that give the same table however they run."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from optical_reference import IDEAL, SILENT, codes, engine, multiply
from torch import nn

from numerics import InputError
from photonic.campaign import PhotonicCampaign
from photonic.emulation.faults import PhotonicFaults
from photonic.emulation.weights import MeshWeights

PERFECT = {**SILENT, "imperfections": IDEAL}
DRIFTING = {**SILENT, "imperfections": {**IDEAL, "drift": {"rate_rad_per_root_s": 0.01, "age_s": 0.0}}}


# --- what they do -----------------------------------------------------------------------------------------------------------


def test_a_dead_detector_reads_nothing():
    a, b = codes((3, 8), 1), codes((8, 12), 2)
    device = engine("ideal_photonic", engine__ports=4, engine__count=2)
    found = multiply(device.unit(faults=PhotonicFaults(dead_ports=((1, 2),))), a, b)
    expected = a @ b
    for block in range(3):  # of columns; each has a tile of either half of the inner dimension, on either engine
        column = 4 * block + 2
        expected[:, column] = a[:, :4] @ b[:4, column]
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("sign", ["differential", "two_pass"])
def test_a_dead_detector_of_a_bank_has_no_bias_either(sign):
    a, b = codes((3, 8), 1), codes((8, 4), 2)
    device = engine("mrr_bank", **{**PERFECT, "engine__ports": 4, "engine__count": 2, "engine__sign": sign})
    unit = device.unit(faults=PhotonicFaults(dead_ports=((0, 1),)))
    expected = a @ b
    expected[:, 1] = a[:, 4:] @ b[4:, 1]
    assert np.array_equal(multiply(unit, a, b), expected)
    assert unit.broken == 1


def test_a_dead_detector_of_a_crossbar():
    a, b = codes((40, 9), 1, 6), codes((9, 50), 2, 6)
    device = engine("tempo_like", **PERFECT)
    faults = PhotonicFaults(dead_ports=((0, 3, 5), (6, 0, 1), (1, 2, 2)))  # the last has no amplifier of its own
    unit = device.unit(faults=faults)
    expected = a @ b
    # All row tiles are of the one cluster; column tiles go to the six that share their rows, each of which is six crossbars.
    for top in (0, 32):
        expected[top + 3, 5] = expected[top, 32 + 1] = 0
    assert np.array_equal(multiply(unit, a, b, 6), expected)
    assert unit.broken == 2


def test_a_stuck_ring_keeps_its_weight():
    a, b = codes((5, 4), 1), codes((4, 4), 2)
    device = engine("mrr_bank", **{**PERFECT, "engine__ports": 4, "engine__count": 1})
    unit = device.unit(faults=PhotonicFaults(stuck_shifters=0.3, stuck_phase_rad=np.pi / 2, seed=3))
    stuck = np.isfinite(unit.weights.stuck[0]).T  # by input, then output
    assert 0 < stuck.sum() == unit.broken < 16
    expected = a @ np.where(stuck, -0.5 * 128, b)  # a quarter is dropped
    assert np.array_equal(multiply(unit, a, b), expected)


def test_a_stuck_node_has_its_phase():
    a, b = codes((32, 4), 1, 6), codes((4, 32), 2, 6)
    device = engine("tempo_like", **{**PERFECT, "engine__count": 1, "engine__summed": 1, "engine__shared": 1})
    unit = device.unit(faults=PhotonicFaults(stuck_shifters=0.5, stuck_phase_rad=np.pi / 3, seed=3))
    stuck = ~np.isclose(unit.nodes.sine[0, 0, 0], 0)
    assert 400 < stuck.sum() < 624
    assert np.allclose(multiply(unit, a, b, 6), (a @ b) * np.where(stuck, 0.5, 1), rtol=0, atol=0.5 + 1e-9)


def test_a_stuck_shifter_is_stuck_in_every_tile():
    device = engine("coherent_mzi_56", **{**PERFECT, "engine__meshes": 2})
    faults = PhotonicFaults(stuck_shifters=0.1, stuck_phase_rad=1.0, seed=5)
    weights = MeshWeights(device.spec, 0, faults)
    phases = np.random.default_rng(1).uniform(0, 2 * np.pi, (7, 16))
    met = weights.first.real(phases, np.zeros(7, int))
    stuck = np.isfinite(weights.first.stuck[0])
    assert (met[:, stuck] == 1.0).all()
    assert np.array_equal(met[:, ~stuck], phases[:, ~stuck])
    shares = [np.isfinite(PhotonicFaults(stuck_shifters=0.1, seed=k).stuck((1, 16), "x")).mean() for k in range(300)]
    assert np.mean(shares) == pytest.approx(0.1, abs=4 * np.sqrt(0.09 / 4800))


def test_drift_grows_with_the_root_of_time():
    device = engine(
        "coherent_mzi_56",
        engine__count=400,
        engine__interferometers_on_chip=None,
        accumulators__capacity_bytes=65_536,
        **DRIFTING,
    )
    spread = []
    for seconds in (1.0, 100.0):
        weights = MeshWeights(device.spec, 0, PhotonicFaults(drift_s=seconds, seed=2))
        spread.append(weights.first.added.std())
        assert weights.first.added.std() == pytest.approx(0.01 * np.sqrt(seconds), rel=0.03)
        assert np.array_equal(
            weights.first.added, MeshWeights(device.spec, 9, PhotonicFaults(drift_s=seconds, seed=2)).first.added
        )
    assert spread[1] == pytest.approx(10 * spread[0])


def test_an_old_chip_has_drifted():
    fresh, old = (
        engine("tempo_like", **{**DRIFTING, "imperfections__drift": {"rate_rad_per_root_s": 0.01, "age_s": age}})
        for age in (0.0, 900.0)
    )
    assert not fresh.unit().nodes.cosine.size
    phase = np.arctan2(old.unit().nodes.sine, old.unit().nodes.cosine)
    assert phase.std() == pytest.approx(0.3, rel=0.02)


@pytest.mark.parametrize(
    ("name", "faults", "message"),
    [
        ("mrr_bank", {"drift_s": 5.0}, "drift_s: device 'mrr_bank' has no drift"),
        ("mrr_bank", {"dead_ports": ((16, 0),)}, r"dead_ports: expected places within \(16, 16\), got \(16, 0\)"),
        ("tempo_like", {"dead_ports": ((0, 1),)}, r"dead_ports: expected places within \(36, 32, 32\), got \(0, 1\)"),
        ("mrr_bank", {"stuck_shifters": 1.5}, "stuck_shifters: expected 0 to 1, got 1.5"),
        ("mrr_bank", {"stuck_phase_rad": 7.0}, "stuck_phase_rad: expected 0 to below 2π"),
        ("mrr_bank", {"seed": -1}, "seed: expected ≥ 0"),
    ],
)
def test_refused(name, faults, message):
    with pytest.raises(InputError, match=message):
        engine(name).unit(faults=PhotonicFaults(**faults))


# --- campaigns --------------------------------------------------------------------------------------------------------------


def task():
    """Four groups of inputs, each of which drives an output of its own."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(16, 8, bias=False), nn.ReLU(), nn.Linear(8, 4, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.kron(torch.eye(4), torch.ones(2, 4)) + 0.1 * torch.randn(8, 16))
        model[2].weight.copy_(torch.kron(torch.eye(4), torch.ones(1, 2)) + 0.1 * torch.randn(4, 8))
    labels = torch.arange(24) % 4
    inputs = 0.4 * torch.rand(24, 16) + torch.repeat_interleave(torch.eye(4)[labels], 4, dim=1)
    return model, inputs, labels.tolist()


def campaign(faults, name="coherent_mzi_56", **arguments):
    model, inputs, labels = task()
    return PhotonicCampaign(
        engine(name), model, inputs, faults, **{"labels": labels, "margin": 0.1, "maximum": 24, "seed": 3, **arguments}
    )


def test_more_faults_more_errors_and_the_same_table_however_it_runs(tmp_path):
    faults = {
        "none": PhotonicFaults(),
        "few": PhotonicFaults(stuck_shifters=0.02, dead_detectors=0.01),
        "many": PhotonicFaults(stuck_shifters=0.4, dead_detectors=0.2),
        "hour": PhotonicFaults(drift_s=3600.0),
    }
    one = campaign(faults)
    found = one.run(tmp_path / "one.sqlite", progress="silent")
    scores = {row["scenario"]: row["score"] for row in found.scores()}
    assert found.golden_score == 1.0
    assert scores["none"] == 1.0
    assert scores["none"] >= scores["few"] > scores["many"]
    assert scores["hour"] > scores["many"]
    assert all(row["faulty_bits"] == 0 and row["outcome"] == "masked" for row in found.trials if row["scenario"] == "none")
    assert all(row["faulty_bits"] == 0 and row["outcome"] == "silent" for row in found.trials if row["scenario"] == "hour")
    with ThreadPoolExecutor(2) as pool:
        again = campaign(faults).run(tmp_path / "two.sqlite", progress="silent", executor=pool)
    assert again.trials == found.trials
    with pytest.raises(InputError, match="of another campaign"):
        campaign({"none": PhotonicFaults()}).result(tmp_path / "one.sqlite")


@pytest.mark.parametrize("name", ["mrr_bank", "tempo_like"])
def test_every_style_can_be_broken(name, tmp_path):
    faults = {"few": PhotonicFaults(dead_detectors=0.01), "many": PhotonicFaults(dead_detectors=0.5, stuck_shifters=0.5)}
    found = campaign(faults, name, maximum=8, margin=0.3, labels=None if name == "tempo_like" else task()[2])
    result = found.run(tmp_path / "one.sqlite", progress="silent")
    scores = {row["scenario"]: row["score"] for row in result.scores()}
    assert scores["few"] > scores["many"]


def test_campaigns_refuse():
    model, inputs, labels = task()
    device = engine("mrr_bank")
    for arguments, message in (
        ((device, model, inputs, {}), "faults: expected named scenarios"),
        ((device, model, inputs, {"one": 1}), "faults: one: expected PhotonicFaults, got int"),
        ((device, None, inputs, {"one": PhotonicFaults()}), "module: expected a torch.nn.Module"),
        ((device, model, None, {"one": PhotonicFaults()}), "inputs: expected a tensor"),
        (("mrr_bank", model, inputs, {"one": PhotonicFaults()}), "device: expected a photonic engine"),
        ((device, model, inputs, {"one": PhotonicFaults(drift_s=1.0)}), "drift_s: device 'mrr_bank' has no drift"),
    ):
        with pytest.raises(InputError, match=message):
            PhotonicCampaign(*arguments)
    with pytest.raises(InputError, match="labels: expected 24, one a sample, got 3"):
        PhotonicCampaign(device, model, inputs, {"one": PhotonicFaults()}, labels=labels[:3])
