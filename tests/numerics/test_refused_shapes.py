"""Emulated products refuse the shapes that torch refuses, with torch's error, and give torch's shape for all others."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional

import numerics
from numerics import InputError
from numerics.faults import BitFaults, inject

RECIPES = {
    "int8": "int8",
    "bf16": "bf16",
    "mxfp8": "mxfp8",
    "accumulation": numerics.Recipe(
        name="accumulation", formats={"weight": "e4m3fn", "activation": "e4m3fn"}, accumulation="fp32"
    ),
}
MATRICES = [
    (2, 3), (3, 2), (3, 4), (1, 3), (3,), (1,), (4,), (2,), (5, 2, 3), (5, 3, 4), (1, 3, 4), (4, 3, 4), (2, 5, 3, 4), (5, 1, 4),
]  # fmt: skip
QUERIES = [(2, 5, 8), (2, 4, 8), (2, 5, 7), (1, 5, 8), (3, 5, 8), (5, 8), (2, 2, 5, 8), (2, 4, 5, 8)]
EQUATIONS = ("ij,jk->ik", "bij,bjk->bik", "ij,kj", "...i,...i->...", "i,i", "bij,bjk->bi", "ij,jk->il", "ij,jk->ii")


class Function(nn.Module):
    """A torch function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *values):
        return self.function(*values)


def _einsum(equation):
    return lambda a, b: torch.einsum(equation, a, b)


def _with(function, **how):
    return lambda *values: function(*values, **how)


def product_cases():
    for x, w in itertools.product(
        [(2, 63), (2, 32), (2, 1), (2, 64), (64,), (2, 64, 1), (3, 2, 64), (0, 64)], [(4, 64), (64,), (4, 63)]
    ):
        yield "linear", functional.linear, (x, w)
        yield from (("linear", functional.linear, (x, w, b)) for b in [(4,), (1,), (3,), (2, 4), ()])
    two = {name: getattr(torch, name) for name in ("matmul", "mm", "bmm", "mv", "dot", "inner")}
    two |= {f"einsum {equation}": _einsum(equation) for equation in EQUATIONS}
    two |= {f"tensordot {dims}": _with(torch.tensordot, dims=dims) for dims in (1, ([0], [0]), ([0, 1], [0, -1]))}
    for (name, function), a, b in itertools.product(two.items(), MATRICES, MATRICES):
        yield name, function, (a, b)
    added = [(2, 4), (4,), (1,), (), (3, 4), (2, 1), (2, 2, 4), (5, 2, 4), (1, 2)]
    for a, b, c in itertools.product([(2, 3), (5, 2, 3)], [(3, 4), (2, 4), (5, 3, 4), (5, 2, 4), (1, 3, 4)], added):
        yield from ((f.__name__, f, (c, a, b)) for f in (torch.addmm, torch.baddbmm, torch.addbmm))
        yield "addmm_", lambda c, a, b: c.clone().addmm_(a, b), (c, a, b)
    for q, k, v in itertools.product(QUERIES, QUERIES, QUERIES):
        yield "attention", functional.scaled_dot_product_attention, (q, k, v)
    for q, m in itertools.product(QUERIES, [(5, 5), (5, 4), (1, 5), (2, 5, 5), (3, 5, 5), (4, 2, 5, 5), (7,), (5,)]):
        yield "masked attention", lambda q, m: functional.scaled_dot_product_attention(q, q, q, attn_mask=m), (q, m)
    for x, h, w in itertools.product([(2, 3), (3,), (2, 4)], [(2, 5), (1, 5), (5,), (2, 3)], [(15, 3), (15, 4)]):
        yield "gru_cell", torch.gru_cell, (x, h, w, (15, 5), (15,), (15,))


def convolution_cases():
    options = ({}, {"padding": 1}, {"stride": 2, "dilation": 2}, {"padding": -1}, {"stride": 0}, {"padding": (1, 1)})
    for axes in (1, 2, 3):
        plain, transposed = getattr(functional, f"conv{axes}d"), getattr(functional, f"conv_transpose{axes}d")
        size = (6,) * axes
        inputs = [
            (2, 4, *size), (2, 3, *size), (2, 1, *size), (2, 8, *size), (4, *size), (2, 4, *(2,) * axes), size, (1, 2, 4, *size),
            (2, 4, *size[1:], 2), (0, 4, *size),
        ]  # fmt: skip
        weights = [(o, i, *(3,) * axes) for o, i in ((6, 4), (6, 2), (4, 6), (6, 1))] + [(6, 4, *(3,) * (axes - 1))]
        for x, w in itertools.product(inputs, weights):
            for groups, how in itertools.product((1, 2, 3, 4), options):
                for function in (plain, transposed):
                    yield f"{function.__name__} {groups} {how}", _with(function, groups=groups, **how), (x, w)
            yield f"conv{axes}d same", _with(plain, padding="same"), (x, w)
            for b in [(6,), (4,), (1,), (2, 3), (6, 1)]:
                yield from ((function.__name__, function, (x, w, b)) for function in (plain, transposed))
        yield "output padding", _with(transposed, output_padding=1), ((2, 4, *size), (4, 6, *(3,) * axes))


def outcome(function, values):
    try:
        return tuple(function(*values).shape), None
    except Exception as error:
        return None, error


def check(cases, recipe):
    refused = 0
    for name, function, shapes in cases:
        values = [torch.randn(shape, generator=torch.Generator().manual_seed(i)) for i, shape in enumerate(shapes)]
        shape, error = outcome(function, values)
        found, raised = outcome(numerics.emulate(Function(function), recipe), values)
        assert (found, type(raised)) == (shape, type(error)), (name, shapes, raised, error)
        assert error is None or str(raised) == str(error) or "expand" in str(raised) + str(error), (name, shapes)
        refused += error is not None
    return refused


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_shapes_that_torch_refuses(recipe):
    """A part of the grid below."""
    assert check(itertools.islice(product_cases(), 0, None, 29), recipe) > 60
    assert check(itertools.islice(convolution_cases(), 0, None, 97), recipe) > 10


@pytest.mark.exhaustive
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_every_shape_that_torch_refuses(recipe):
    assert check(product_cases(), recipe) > 2000
    assert check(convolution_cases(), recipe) > 2000


def run(emulation, x, faults):
    with inject(emulation, faults or ()):
        return emulation(x)


@pytest.mark.parametrize("recipe", ["int8", "int8_static", "bf16", "mxfp8"])
@pytest.mark.parametrize("features", [63, 32, 1])
def test_modules_with_too_few_features(recipe, features):
    torch.manual_seed(0)
    emulation = numerics.emulate(nn.Linear(64, 4), recipe)
    if recipe == "int8_static":
        numerics.calibrate(emulation, [torch.randn(8, 64)])
    x = torch.randn(2, features)
    emulation(torch.randn(2, 64))
    for faults in (None, BitFaults(rate=0.01)):
        with pytest.raises(RuntimeError, match=f"mat1 and mat2 shapes cannot be multiplied \\(2x{features} and 64x4\\)"):
            run(emulation, x, faults)


@pytest.mark.parametrize("shape", [(4, 1, 8, 8), (4, 3, 9, 9), (4, 3, 8, 7), (3, 8, 8, 4)])
def test_convolutional_networks(shape):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(320, 10))
    for recipe in RECIPES.values():
        with pytest.raises(RuntimeError) as expected:
            net(torch.zeros(shape))
        with pytest.raises(RuntimeError) as found:
            numerics.emulate(net, recipe)(torch.zeros(shape))
        assert str(found.value) == str(expected.value)


MODULES = [
    (nn.LSTM(4, 6, 2, batch_first=True, bidirectional=True), [(2, 3, 4)], [(2, 3, 5)], [(2, 3, 4, 1)]),
    (nn.GRU(4, 6), [(3, 2, 4), (1, 2, 6)], [(3, 2, 4), (1, 1, 6)], [(3, 2, 4), (2, 2, 6)], [(3, 2, 1)]),
    (nn.LSTMCell(4, 6), [(2, 4)], [(2, 5)], [(2, 3, 4)]),
    (nn.GRUCell(4, 6), [(2, 4), (2, 6)], [(2, 4), (1, 6)], [(2, 1), (2, 6)]),
    (nn.RNNCell(4, 6), [(2, 4), (2, 6)], [(2, 4), (1, 6)], [(2, 4), (2, 5)]),
    (nn.MultiheadAttention(8, 2, batch_first=True), [(2, 5, 8)] * 3, [(2, 5, 7)] * 3, [(2, 5, 8), (2, 4, 8), (2, 5, 8)]),
    (nn.MultiheadAttention(8, 2, batch_first=True), [(2, 5, 8)] * 3, [(1, 5, 8), (3, 5, 8), (3, 5, 8)]),
]


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
@pytest.mark.parametrize(("module", "right", "wrong"), [(m, r, w) for m, r, *w in MODULES])
def test_modules_of_several_products(module, right, wrong, recipe):
    """Such layers run several products, each of which might take what the layer does not."""
    emulation = numerics.emulate(module, recipe)
    emulation(*(torch.zeros(shape) for shape in right))
    for shapes in wrong:
        values = [torch.zeros(shape) for shape in shapes]
        _, expected = outcome(lambda *given: module(*given)[0], values)
        _, found = outcome(lambda *given: emulation(*given)[0], values)
        assert expected is not None
        assert type(found) is type(expected), (module, shapes)


@pytest.mark.parametrize("accumulator", ["fp32", "int32", "ada.mma.k32.e4m3.f32"])
def test_products_of_arrays(accumulator):
    """``numerics.matmul`` under all of them, fused sums and integers among them, names the shapes."""
    for a, b in [((2, 63), (64, 4)), ((2, 32), (64, 4)), ((2, 1), (64, 4)), ((64, 2), (4, 64))]:
        with pytest.raises(InputError, match="b: expected K ="):
            numerics.matmul(torch.ones(a).numpy(), torch.ones(b).numpy(), accumulator=accumulator)
