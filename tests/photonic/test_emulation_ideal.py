"""An engine without imperfections computes exactly: every style, every cut of the operands."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from optical_reference import IDEAL, SILENT, codes, engine, multiply
from torch import nn

import hwsim
import numerics
from numerics import InputError, Recipe
from photonic.emulation.slices import bits_needed, slices

NAMES = ("coherent_mzi_56", "ideal_photonic", "mrr_bank", "tempo_like")
PERFECT = {**SILENT, "imperfections": IDEAL}


def perfect(name, **changes):
    return engine(name, **{**PERFECT, **changes})


MACHINES = {
    "one mesh": perfect("coherent_mzi_56"),
    "two meshes": perfect("ideal_photonic", engine__ports=8),
    "two meshes, triangular": perfect("ideal_photonic", engine__ports=5, engine__mesh="triangular", engine__count=3),
    "differential": perfect("mrr_bank", engine__ports=8),
    "two passes": perfect("mrr_bank", engine__sign="two_pass", engine__ports=8),
    "crossbar": perfect("tempo_like", engine__ports=8, engine__wavelengths=2, engine__integration_symbols=3),
    "narrow converters": perfect("mrr_bank", dac__bits=3, tuning__bits=5),
    "narrow crossbar": perfect("tempo_like", dac__bits=4),
    "one bit": perfect("ideal_photonic", engine__ports=4, dac__bits=1, tuning__bits=1),
}


@pytest.mark.parametrize("name", list(MACHINES))
@settings(max_examples=12, deadline=None)
@given(st.tuples(*[st.integers(1, 21)] * 3), st.integers(0, 99))
def test_products_are_exact(name, sizes, seed):
    m, n, k = sizes
    a, b = codes((m, k), seed), codes((k, n), seed + 1000)
    assert np.array_equal(multiply(MACHINES[name].unit(), a, b), a @ b)


def test_batches_and_broadcast():
    unit = MACHINES["two meshes"].unit()
    a, b = codes((2, 3, 7, 9), 1), codes((3, 9, 5), 2)
    assert np.array_equal(multiply(unit, a, b), a @ b)
    assert multiply(unit, np.zeros((0, 9)), b[0]).shape == (0, 5)
    assert np.array_equal(multiply(unit, np.zeros((4, 0)), np.zeros((0, 5))), np.zeros((4, 5)))
    assert np.array_equal(multiply(unit, np.zeros((4, 9)), np.zeros((9, 5))), np.zeros((4, 5)))


def test_integers_without_their_zero_point():
    """Asymmetric integers reach from −255 to 255: a bit more, and a slice more."""
    a, b = codes((5, 9), 1) * 2, codes((9, 4), 2)
    for machine in MACHINES.values():
        assert np.array_equal(multiply(machine.unit(), a, b), a @ b)


def test_sums_wrap_in_32_bits():
    a = np.full((1, 140_000), -128.0)
    found = multiply(perfect("tempo_like").unit(), a, a.T)
    assert found[0, 0] == 140_000 * 128 * 128 - 2**32


@given(st.integers(1, 16), st.integers(1, 9))
def test_slices_are_the_number(bits, most):
    cut = slices(bits, most)
    assert len(cut) == -(-bits // most)
    assert sum(part.bits for part in cut) == bits
    assert max(part.bits for part in cut) <= most
    values = np.arange(-(2 ** (bits - 1)), 2 ** (bits - 1))
    total = sum(part.digits(values) * part.weight for part in cut)
    assert np.array_equal(total, values)
    for part in cut:
        assert (-1 if part.signed else 0) <= part.digits(values).min()
        assert part.digits(values).max() < 1


def test_bits_of_integers():
    assert bits_needed(np.array([-128, 127]), 8) == 8
    assert bits_needed(np.array([-129]), 8) == bits_needed(np.array([128]), 8) == 9
    assert bits_needed(np.zeros((0,)), 8) == 8


# --- as modules ---------------------------------------------------------------------------------------------------------------


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.deep = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, groups=4)
        self.head = nn.Linear(4 * 4, 5)

    def forward(self, x):
        y = torch.relu(self.deep(torch.relu(self.conv(x)))).flatten(2)
        return self.head((y @ y.transpose(1, 2)).flatten(1))


@pytest.mark.parametrize("name", NAMES)
def test_a_perfect_machine_is_the_analytic_one_bit_for_bit(name):
    torch.manual_seed(1)
    model, x = Network(), torch.randn(3, 2, 6, 6)
    device = engine(name) if name == "ideal_photonic" else perfect(name)
    tile, analytic = device.emulate(model), device.emulate(model, fidelity="analytic")
    assert torch.equal(tile(x), analytic(x))
    assert tile.operators == analytic.operators
    assert {record.clipped for record in tile.matrix_unit.layers.values()} == {0}
    assert all(record.result_bits == np.inf for record in tile.matrix_unit.layers.values())
    assert analytic.matrix_unit is None


@pytest.mark.parametrize("name", NAMES)
def test_gradients_pass_straight_through(name):
    torch.manual_seed(2)
    model, x = nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3)), torch.randn(5, 12)
    found, exact = engine(name).emulate(model), engine(name).emulate(model, fidelity="analytic")
    for one in (found, exact):
        (one(x) * torch.arange(3)).sum().backward()
    last, same = (one.module[2].bias.grad for one in (found, exact))
    assert torch.equal(last, same)
    assert found.module[0].weight.grad.abs().sum() > 0
    assert torch.isfinite(found.module[0].weight.grad).all()


def test_default_is_tile_and_others_are_named():
    device, model = engine("ideal_photonic"), nn.Linear(4, 4)
    assert device.emulate(model).matrix_unit is not None
    with pytest.raises(InputError, match="fidelity"):
        device.emulate(model, fidelity="cycle")
    with pytest.raises(InputError, match="seed: expected"):
        device.emulate(model, seed=-1)
    with pytest.raises(InputError, match="tiles are added in int32"):
        device.emulate(model, Recipe("odd", {"weight": "int8", "activation": "int8", "accumulator": "fp32"}))


@pytest.mark.parametrize("fidelity", ["tile", "analytic"])
@pytest.mark.parametrize(
    ("where", "message"), [("x", r"x \(of '0'\)"), ("weight", r"weight \(of '0'\)"), ("bias", r"bias \(of '0'\)")]
)
def test_numbers_that_are_not_finite_are_refused(fidelity, where, message):
    """The largest integer of a format is no inf."""
    for value in (float("inf"), -float("inf"), float("nan")):
        module, x = torch.nn.Sequential(torch.nn.Linear(4, 3)), torch.ones(2, 4)
        emulated = hwsim.get_device("mrr_bank").emulate(module, fidelity=fidelity)
        assert emulated(x).isfinite().all()
        given = x if where == "x" else dict(emulated.module.named_parameters())[f"0.{where}"].data
        given.view(-1)[1] = value
        with pytest.raises(InputError, match=f"{message}: expected finite numbers, got {value}"):
            emulated(x)


def test_no_light_is_refused():
    changes = {"engine__ports": 128, "engine__interferometers_on_chip": None, "laser__largest_line_w": 0.1}
    with pytest.raises(InputError, match="does not stand out of their noise"):
        engine("coherent_mzi_56", **changes).emulate(nn.Linear(4, 4))


def test_one_matrix_is_decomposed_once():
    unit = perfect("coherent_mzi_56").unit()
    a, b = codes((5, 9), 1), codes((9, 4), 2)
    first = multiply(unit, a, b)
    kept = list(unit._kept)
    assert np.array_equal(multiply(unit, a, b), first)
    assert list(unit._kept) == kept
    multiply(unit, a, b + (b < 127))
    assert len(unit._kept) == 2


def test_emulation_is_of_numerics():
    emulated = engine("ideal_photonic").emulate(nn.Linear(4, 4))
    assert isinstance(emulated, numerics.emulation.Emulation)
