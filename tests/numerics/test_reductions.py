"""Sums, softmax and layer normalisation: one element at a time in Python, and 64-bit floats in the limit."""

import math
from fractions import Fraction

import numpy as np
import pytest
from exact_rounding import rounded
from product_reference import Rounder, sequential

import numerics
from numerics import reductions
from numerics.accumulator import Accumulator
from numerics.errors import InputError
from numerics.formats import get_format

BF16 = get_format("bf16")


def r(x, fmt=BF16):
    return rounded(x, fmt, "nearest_even", "ieee")


def data(shape, seed, name="bf16"):
    return numerics.quantize(np.random.default_rng(seed).standard_normal(shape), name).astype(np.float32)


def one_softmax(row, sums):
    powers = [r(math.exp(r(Fraction(x) - Fraction(max(row))))) for x in row]
    total = sequential(powers, 0.0, Rounder(sums))
    return [r(Fraction(p) / Fraction(total)) for p in powers]


def one_layer_norm(row, weight, bias, eps, sums):
    mean = r(Fraction(sequential(row, 0.0, Rounder(sums))) / len(row))
    centred = [r(Fraction(x) - Fraction(mean)) for x in row]
    squares = sequential([Fraction(c) ** 2 for c in centred], 0.0, Rounder(sums))
    factor = r(1 / math.sqrt(r(Fraction(squares) / len(row)) + eps))
    result = [r(Fraction(c) * Fraction(factor)) for c in centred]
    return [r(Fraction(r(Fraction(v) * Fraction(w))) + Fraction(b)) for v, w, b in zip(result, weight, bias, strict=True)]


@pytest.mark.parametrize("sums", ["bf16", "fp32"])
def test_softmax_and_layer_norm_in_bf16(sums):
    x = data((6, 37), 1)
    found = reductions.softmax(x, accumulator=sums, fmt="bf16")
    assert np.array_equal(found, [one_softmax(row, get_format(sums)) for row in x.tolist()])
    weight, bias = data(37, 2), data(37, 3)
    found = reductions.layer_norm(x, weight=weight, bias=bias, accumulator=sums, fmt="bf16")
    expected = [one_layer_norm(row, weight.tolist(), bias.tolist(), 1e-5, get_format(sums)) for row in x.tolist()]
    assert np.array_equal(found, expected)


def test_in_the_limit_they_are_those_of_64_bit_floats():
    x = data((3, 5, 200), 4, "fp32")
    powers = np.exp(x.astype(np.float64) - x.max(axis=1, keepdims=True))
    assert np.allclose(reductions.softmax(x, axis=1), powers / powers.sum(axis=1, keepdims=True), rtol=1e-6, atol=0)
    wide = x.astype(np.float64)
    expected = (wide - wide.mean(-1, keepdims=True)) / np.sqrt(wide.var(-1, keepdims=True) + 1e-5)
    assert np.allclose(reductions.layer_norm(x), expected, rtol=1e-4, atol=2e-6)


def test_torch_computes_the_same():
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(data((4, 64), 5, "fp32"))
    found = reductions.layer_norm(x, weight=torch.full((64,), 2.0), bias=torch.ones(64))
    assert torch.allclose(found, torch.nn.functional.layer_norm(x, (64,), torch.full((64,), 2.0), torch.ones(64)), atol=1e-5)
    assert torch.allclose(reductions.softmax(x), torch.softmax(x, -1), atol=1e-6)
    assert torch.equal(reductions.sum(x.bfloat16(), axis=0, accumulator="exact"), x.bfloat16().double().sum(0).float())


def test_sums():
    x = data((4, 5, 9), 6)
    for axis in (0, 1, -1):
        found = reductions.sum(x, axis=axis, accumulator="bf16")
        moved = np.moveaxis(x, axis, -1)
        expected = [sequential(moved[i].tolist(), 0.0, Rounder(BF16)) for i in np.ndindex(moved.shape[:-1])]
        assert np.array_equal(found.reshape(-1), expected)
        assert reductions.sum(x, axis=axis, keepdims=True).shape == tuple(
            1 if a == axis % 3 else n for a, n in enumerate(x.shape)
        )
    assert reductions.sum(x, accumulator="exact") == np.float32(math.fsum(x.ravel().tolist()))
    assert reductions.sum(np.ones(1000), accumulator="bf16") == 256
    assert reductions.sum(np.arange(100), accumulator="int32") == 4950
    tree = Accumulator(format="bf16", order="pairwise")
    assert reductions.sum(np.ones(1000), accumulator=tree) == 1000
    assert reductions.sum(data((3, 32), 7, "e4m3fn"), axis=1, accumulator="hopper.wgmma.e4m3").shape == (3,)


def test_stochastic_sums_are_right_in_the_mean():
    stochastic = Accumulator(format="bf16", rounding="stochastic")
    found = reductions.sum(np.ones((500, 1000)), axis=1, accumulator=stochastic, seed=2)
    assert abs(found.mean() - 1000) < 20
    assert np.array_equal(found, reductions.sum(np.ones((500, 1000)), axis=1, accumulator=stochastic, seed=2))
    assert len(set(found.tolist())) > 5


def test_infinite_and_empty():
    x = np.array([[0.0, -np.inf, 1.0], [np.nan, 0.0, 0.0]])
    found = reductions.softmax(x)
    assert found[0, 1] == 0
    assert np.isnan(found[1]).all()
    assert reductions.sum(np.ones((0, 3)), axis=0).tolist() == [0.0] * 3
    assert reductions.softmax(np.ones((2, 0))).shape == (2, 0)


@pytest.mark.parametrize("order", ["sequential", "pairwise", "exact"])
def test_64_bit_floats_add_in_every_order(order):
    x = np.random.default_rng(8).standard_normal(300)
    found = reductions.sum(x, accumulator=Accumulator(format="e8m40", order=order))
    assert found == pytest.approx(math.fsum(x.tolist()), abs=1e-9)


def test_tensors_with_gradients_are_refused():
    torch = pytest.importorskip("torch")
    x = torch.ones(4, requires_grad=True)
    for call, field, name in (
        (lambda: reductions.sum(x), "x", "sum"),
        (lambda: reductions.softmax(x), "x", "softmax"),
        (lambda: reductions.layer_norm(x), "x", "layer_norm"),
        (lambda: reductions.layer_norm(x.detach(), weight=x), "weight", "layer_norm"),
    ):
        with pytest.raises(InputError, match=f"^{field}: requires a gradient, which {name} does not pass; expected detached"):
            call()
    with torch.no_grad():
        assert reductions.sum(x) == 4


def test_eps_of_numpy():
    x = data((2, 9), 9, "fp32")
    expected = reductions.layer_norm(x, eps=float(np.float32(1e-5)))
    assert np.array_equal(reductions.layer_norm(x, eps=np.float32(1e-5)), expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: reductions.sum(np.full(3, 0.5), accumulator="int32"), "^x: an integer accumulator takes integers"),
        (lambda: reductions.sum(np.ones(32), accumulator="blackwell.tcgen05.mxf4"), "^accumulator: a block-scaled one"),
        (lambda: reductions.sum(np.array([1e-300, 1e200]), accumulator="exact"), "^x: elements from 2"),
        (lambda: reductions.sum(np.array([1.0, np.inf]), accumulator="e2m1fn"), "^x: holds Inf or NaN"),
        (lambda: reductions.sum(np.ones(3), axis=0.5), "^axis: expected one of 1 axes, got 0.5"),
        (lambda: reductions.sum(np.ones(3), axis=1), "axis: expected one of 1 axes, got 1"),
        (
            lambda: reductions.sum(np.full(3, 1.01), accumulator="hopper.wgmma.e4m3"),
            "x: holds values that 'e4m3fn' does not have",
        ),
        (lambda: reductions.softmax(np.full(3, 1.001), fmt="bf16"), "x: holds values that 'bf16' does not have"),
        (lambda: reductions.softmax(np.ones(3), fmt="int8"), "fmt: expected a float format"),
        (lambda: reductions.layer_norm(np.ones(3), weight=np.ones(4)), r"weight: expected shape \(3,\)"),
        (lambda: reductions.layer_norm(np.ones(3), eps=-1), "eps: expected a number"),
        (lambda: reductions.layer_norm(np.ones((3, 0))), "x: expected a last axis"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()
