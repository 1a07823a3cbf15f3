"""Tiles, rings and nodes as light meets them against dense references, all imperfections on."""

import numpy as np
import pytest
from optical_reference import IDEAL, SILENT, chain, codes, engine, mesh_matrix, multiply, real_phases

from numerics import InputError
from photonic.decomposition import decompose
from photonic.emulation.weights import BankWeights, MeshWeights, _triangle, attenuators, decomposed
from photonic.fabrication import FabricatedMesh
from photonic.layouts import layout

WRONG = {
    **IDEAL,
    "phase_error": {"sigma_rad": 0.05},
    "splitter_error": {"sigma_rad": 0.03},
    "path_losses": {"splitter_db": 0.33, "phase_shifter_db": 0.25},
    "crosstalk": {"strength": 0.03, "length_um": 80.0, "shifter_um": 150.0, "port_um": 90.0},
    "setting": "tuning_bits",
    "extinction": {"ratio_db": 15.0},
    "drift": {"rate_rad_per_root_s": 0.01, "age_s": 0.0},
}


# --- singular values and phases -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 4, 7, 16])
def test_singular_values_are_lapacks(n):
    rng = np.random.default_rng(n)
    tiles = rng.normal(size=(20, n, n))
    tiles[3], tiles[4], tiles[5] = 0, np.eye(n), np.outer(rng.normal(size=n), rng.normal(size=n))
    tiles[6, :, n // 2 :] = 0
    tiles[7] *= 1e-150
    u, values, vt = decomposed(tiles)
    largest = np.maximum(np.linalg.norm(tiles, 2, axis=(1, 2)), 1e-300)[:, None]
    assert np.allclose(values / largest, np.linalg.svd(tiles, compute_uv=False) / largest, atol=1e-13)
    assert np.allclose((u * values[:, None]) @ vt / largest[..., None], tiles / largest[..., None], atol=1e-13)
    for basis in (u, vt):
        assert np.allclose(basis @ basis.transpose(0, 2, 1), np.eye(n), atol=1e-13)


@pytest.mark.parametrize("kind", ["rectangular", "triangular"])
@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_phases_of_many_tiles_are_those_of_each(kind, n):
    weights = MeshWeights(engine("ideal_photonic", engine__ports=n, engine__mesh=kind).spec, 0, None)
    given = np.stack([np.linalg.qr(np.random.default_rng(k).normal(size=(n, n)))[0] for k in range(6)])
    found = weights._phases(given)
    for phases, matrix in zip(found, given, strict=True):
        mesh = decompose(matrix, mesh=kind)
        each = np.concatenate([mesh.theta, mesh.phi, mesh.output_phase])
        assert np.allclose(np.exp(1j * phases), np.exp(1j * each), atol=1e-12)


def test_order_of_a_triangle():
    order, row, rows = _triangle(layout("triangular", 5))
    assert sorted(order.tolist()) == list(range(10))
    assert (row == rows - 1).all()


# --- meshes -----------------------------------------------------------------------------------------------------------------


def reference_tiles(weights, tiles, engines, section, bits):
    """Each tile's passes, dense."""
    u, values, vt = decomposed(tiles)
    gain = values.max()
    plan, losses = weights.engine.layout, section["path_losses"]
    made_up = 1.0
    if losses != "ideal":
        each = 2 * losses["splitter_db"] + 2 * losses["phase_shifter_db"]
        made_up = 10 ** ((weights.engine.depth * each + weights.engine.meshes * losses["phase_shifter_db"]) / 20)
    passes = []
    for t, k in enumerate(engines.ravel()):
        right = mesh_matrix(plan, vt[t], weights.first.chips[k], section, bits)
        left = mesh_matrix(plan, u[t], weights.last.chips[k], section, bits)

        def attenuated(amplitude, k=k):
            """From upper input to upper output; there is no phase shifter behind it."""
            column, theta = attenuators(plan.ports), 2 * np.arcsin(amplitude)
            phases = np.concatenate([theta, (-np.pi / 2 - theta / 2) % (2 * np.pi), np.zeros(2 * plan.ports)])
            chip = weights.between.chips[k]
            full = np.diag(chain(column, phases, chip, section, bits))
            behind = np.exp(1j * real_phases(column, phases, chip, section, bits)[2 * column.mzis :])
            loss = 1.0 if losses == "ideal" else 10 ** (-losses["phase_shifter_db"] / 20)
            return np.diag((full / behind / loss)[::2])

        if weights.engine.meshes == 2:
            passes.append([made_up * left @ attenuated(values[t] / gain) @ right])
        else:
            passes.append(
                [made_up * attenuated(values[t] / gain) @ right, made_up * attenuated(np.ones(plan.ports)) @ left]
            )  # fmt: skip
    return passes, gain


@pytest.mark.parametrize("meshes", [1, 2])
@pytest.mark.parametrize("kind", ["rectangular", "triangular"])
@pytest.mark.parametrize("one", ["all", "phase_error", "splitter_error", "path_losses", "crosstalk", "setting", "both arms"])
def test_tiles_of_meshes_are_those_of_dense_optics(meshes, kind, one):
    both = {"arms": "both", "outputs": "ideal"}
    section = {**WRONG, "setting": both} if one == "both arms" else WRONG if one == "all" else {**IDEAL, one: WRONG[one]}
    device = engine(
        "coherent_mzi_56", engine__mesh=kind, engine__meshes=meshes, engine__count=2, tuning__bits=6, imperfections=section
    )
    weights = MeshWeights(device.spec, 5, None)
    tiles = np.random.default_rng(3).normal(size=(6, 4, 4))
    engines = np.arange(6).reshape(3, 2) % 2
    found = weights.tiles(tiles, engines)
    expected, gain = reference_tiles(weights, tiles, engines, section, 6)
    assert found.gain == pytest.approx(gain, rel=1e-12)
    for number, stage in enumerate(found.stages):
        matrices = stage.straight + (1j * stage.turned if stage.turned.size else 0)
        each = matrices.reshape(3, 4, 2, 4).transpose(0, 2, 3, 1).reshape(6, 4, 4)
        dense = np.stack([one_tile[number] for one_tile in expected])
        assert np.allclose(each, dense, atol=1e-10)
        assert np.abs(each - (tiles / gain if meshes == 2 else dense * 0)).max() > 1e-3  # it did something


@pytest.mark.parametrize("name", ["coherent_mzi_56", "ideal_photonic"])
def test_meshes_are_passive(name):
    """Whatever is wrong, no light comes from nowhere; only where losses are made up for may a shorter way seem to amplify."""
    section = {**WRONG, "path_losses": "ideal"}
    device = engine(name, engine__ports=6, engine__interferometers_on_chip=None, tuning__bits=5, imperfections=section)
    tiles = np.random.default_rng(3).normal(size=(8, 6, 6))
    for stage in MeshWeights(device.spec, 5, None).tiles(tiles, np.zeros((4, 2), int)).stages:
        matrices = (stage.straight + 1j * stage.turned).reshape(4, 6, 2, 6).transpose(0, 2, 3, 1)
        assert np.linalg.norm(matrices, 2, axis=(2, 3)).max() <= 1 + 1e-12


def test_shelf_of_a_rings_weight():
    """Tuned away by half a spacing at most, a ring drops at least 1/(1 + (spacing/linewidth)²) of its light."""
    rings = {"linewidth_ghz": 10.0, "channel_spacing_ghz": 40.0, "resonance_error_ghz": 0.0}
    device = engine("mrr_bank", engine__ports=1, engine__count=1, imperfections={**IDEAL, "rings": rings})
    weights = np.linspace(-1, 1, 9).reshape(-1, 1, 1)
    stage = BankWeights(device.spec, 0, None).tiles(weights, np.zeros((9, 1), int)).stages[0]
    assert np.allclose(stage.straight.ravel(), np.maximum(weights.ravel(), 2 / 17 - 1), atol=1e-12)


def test_heat_of_a_large_mesh_is_that_of_a_small_one(monkeypatch):
    """Beyond DENSE_SHIFTERS heat is a convolution."""
    device = engine("ideal_photonic", engine__ports=6, imperfections={**IDEAL, "crosstalk": WRONG["crosstalk"]})
    tiles, engines = np.random.default_rng(3).normal(size=(4, 6, 6)), np.zeros((2, 2), int)
    dense = MeshWeights(device.spec, 5, None).tiles(tiles, engines).stages[0]
    monkeypatch.setattr("photonic.emulation.weights.DENSE_SHIFTERS", 0)
    sparse = MeshWeights(device.spec, 5, None).tiles(tiles, engines).stages[0]
    assert np.allclose(dense.straight, sparse.straight, atol=1e-12)
    assert np.allclose(dense.turned, sparse.turned, atol=1e-12)


def test_tiles_on_one_engine_share_its_errors():
    """The same weights on the same engine give the same; on another engine, something else."""
    device = engine("coherent_mzi_56", engine__count=3, **SILENT)
    b = np.tile(codes((4, 4), 1), (6, 1))  # six equal tiles, dealt to three engines in turn
    unit = device.unit(seed=4)
    a = np.zeros((6, 24))
    for block in range(6):
        a[block, 4 * block] = 100
    found = multiply(unit, a, b)
    assert np.array_equal(found[:3], found[3:])
    assert not np.array_equal(found[0], found[1])
    assert np.array_equal(multiply(device.unit(seed=4), a, b), found)
    assert not np.array_equal(multiply(device.unit(seed=5), a, b), found)


@pytest.mark.parametrize("meshes", [1, 2])
def test_products_of_meshes_without_noise(meshes):
    """Integers in, fields with their leak through dense passes, real parts out."""
    section = {**WRONG, "path_losses": "ideal", "shot_noise": "ideal", "adc": "ideal"}
    device = engine("coherent_mzi_56", engine__meshes=meshes, **{**SILENT, "imperfections": section})
    a, b = codes((5, 7), 1), codes((7, 6), 2)
    unit = device.unit(seed=3)
    found = multiply(unit, a, b)
    padded = np.zeros((8, 8))
    padded[:7, :6] = b / 128
    blocks = padded.reshape(2, 4, 2, 4).transpose(0, 2, 3, 1).reshape(-1, 4, 4)
    passes, gain = reference_tiles(unit.weights, blocks, np.zeros((2, 2), int), section, device.spec.tuning.bits)
    leak, total = 10 ** (-15 / 20), np.zeros((5, 8))

    def modulated(x, count):
        field = x + 1j * leak * np.sqrt(np.maximum(1 - x**2, 0))
        field[:, count:] = 0
        return field

    for t, (down, across) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        x = np.zeros((5, 4))
        high, wide = (4, 3)[down], (4, 2)[across]
        x[:, :high] = a[:, 4 * down : 4 * down + high] / 128
        for number, matrix in enumerate(passes[t]):
            x = (modulated(x, min(high, wide) if number else high) @ matrix.T).real
            x[:, min(high, wide) if number < len(passes[t]) - 1 else wide :] = 0
        total[:, 4 * across : 4 * across + 4] += x
    assert np.array_equal(found, np.rint(total[:, :6] * gain * 128 * 128))


# --- weight banks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sign", ["differential", "two_pass"])
def test_products_of_banks_without_noise(sign):
    """Ring by ring: Lorentzians of every ring at every wavelength, powers in, the bias taken off."""
    rings = {"linewidth_ghz": 10.0, "channel_spacing_ghz": 60.0, "resonance_error_ghz": 0.5}
    section = {**IDEAL, "rings": rings, "extinction": {"ratio_db": 15.0}}
    device = engine("mrr_bank", engine__ports=4, engine__count=2, engine__sign=sign, **{**SILENT, "imperfections": section})
    unit = device.unit(seed=3)
    a, b = codes((5, 7), 1), codes((7, 6), 2)
    found = multiply(unit, a, b)
    error = BankWeights(device.spec, 3, None).error * 10  # GHz

    def dropped(share, bank, output, wave, ring):
        far = min(5 * np.sqrt(1 / share - 1) if share > 0 else np.inf, 30.0) + error[bank, output, ring]
        return 1 / (1 + (((wave - ring) * 60 - far) / 5) ** 2)

    total, leak = np.zeros((5, 6)), 10 ** (-15 / 10)
    for down in range(2):
        for output in range(6):
            bank = ((output // 4) * 2 + down) % 2
            for sense in (1, -1) if sign == "two_pass" else (0,):
                for wave in range(min(4, 7 - 4 * down)):
                    passed = 1.0
                    for ring in range(4):
                        k = 4 * down + ring
                        w = b[k, output] / 128 if k < 7 else 0.0
                        share = max(sense * w, 0) if sense else (1 + w) / 2
                        passed *= 1 - dropped(share, bank, output % 4, wave, ring)
                    weight = sense * (1 - passed) if sense else 1 - 2 * passed
                    x = a[:, 4 * down + wave] / 128
                    power = (1 + x) / 2 + leak * (1 - x) / 2
                    total[:, output] += 2 * weight * (power - (0.5 + leak / 2))
    assert np.array_equal(found, np.rint(total * 128 * 128))
    assert np.abs(found - a @ b).max() > 100


def test_light_that_modulators_leak_is_part_of_a_banks_bias():
    """Of slices with and without a sign: it makes weights smaller, by ε² of them, and adds nothing."""
    section = {**IDEAL, "extinction": {"ratio_db": 10.0}}
    device = engine("mrr_bank", dac__bits=4, **{**SILENT, "imperfections": section})
    a, b = codes((5, 20), 1), codes((20, 6), 2)
    assert np.allclose(multiply(device.unit(), a, b), 0.9 * (a @ b), rtol=0, atol=0.5 + 1e-9)
    assert (multiply(device.unit(), np.zeros((2, 20)), b) == 0).all()


# --- crossbars --------------------------------------------------------------------------------------------------------------


def test_products_of_crossbars_without_noise():
    """Node by node, symbol by symbol: two fields on a splitter, the difference of its outputs' powers."""
    section = {
        **IDEAL,
        "phase_error": {"sigma_rad": 0.1},
        "splitter_error": {"sigma_rad": 0.05},
        "extinction": {"ratio_db": 15.0},
    }
    changes = {"ports": 3, "count": 24, "summed": 2, "shared": 2, "wavelengths": 2, "integration_symbols": 2}
    device = engine(
        "tempo_like", **{f"engine__{key}": value for key, value in changes.items()}, **{**SILENT, "imperfections": section}
    )
    unit = device.unit(seed=3)
    a, b = codes((7, 11), 1, 6), codes((11, 10), 2, 6)
    found = multiply(unit, a, b, 6)
    rng = unit.nodes
    angle = np.arcsin(-2 * rng.unequal) / 2 + np.pi / 4
    phase = np.arctan2(rng.sine, rng.cosine)
    leak = 10 ** (-15 / 20)

    def field(x):
        return x + 1j * leak * np.sqrt(1 - x**2)

    total = np.zeros((7, 10))
    for i in range(7):
        for j in range(10):
            cluster = ((i // 3) * 2 + (j // 3) // 2) % 6
            for k in range(11):
                place = cluster, (j // 3) % 2, k % 4 // 2, i % 3, j % 3
                splitter = np.array([[np.cos(angle[place]), 1j * np.sin(angle[place])]] * 2)
                splitter[1] = splitter[1, ::-1]
                fields = [field(a[i, k] / 32) * np.exp(1j * phase[place]), -1j * field(b[k, j] / 32)]
                upper, lower = np.abs(splitter @ fields) ** 2
                total[i, j] += (upper - lower) / 2
    assert np.abs(phase).max() > 0.1
    assert np.allclose(found, np.rint(total * 32 * 32), atol=0)


# --- the section ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("mrr_bank", {"imperfections__phase_error": {"sigma_rad": 0.1}}, "phase_error: a weight_bank has no such part"),
        ("tempo_like", {"imperfections__rings": {"linewidth_ghz": 1, "channel_spacing_ghz": 9}}, "a crossbar has no such part"),
        (
            "coherent_mzi_56",
            {"imperfections__path_losses": {"splitter_db": 0.3, "phase_shifter_db": 0.25}},
            "two phase shifters lose 1.1 dB; expected losses_db.interferometer, 1.16",
        ),
        ("mrr_bank", {"imperfections__rings__channel_spacing_ghz": 5}, "channel_spacing_ghz: expected at least linewidth_ghz 10"),
        ("mrr_bank", {"imperfections__adc": {"full_scale": 0}}, "imperfections.adc"),
        ("mrr_bank", {"imperfections__noise": 1}, "imperfections.noise"),
        ("mrr_bank", {"imperfections__shot_noise": None}, "imperfections.shot_noise"),
    ],
)  # fmt: skip
def test_refused(name, changes, message):
    with pytest.raises(InputError) as error:
        engine(name, **changes)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_large_mesh_is_a_fabricated_one():
    """48 ports, heat as a convolution: what ``photonic.fabricate`` makes of the same phases on the same chip."""
    section = {**WRONG, "path_losses": "ideal"}
    device = engine("ideal_photonic", engine__ports=48, tuning__bits=9, imperfections=section)
    weights = MeshWeights(device.spec, 5, None)
    matrix = np.linalg.qr(np.random.default_rng(2).normal(size=(48, 48)))[0]
    found = weights.first.matrices(weights._phases(matrix[None]), np.array([3]))[0]
    made = FabricatedMesh(decompose(matrix), weights.first.chips[3])
    assert np.allclose(found, made.matrix(), atol=1e-9)
    assert 0.05 < np.linalg.norm(found - matrix) / np.sqrt(48) < 2
