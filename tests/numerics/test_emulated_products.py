"""Emulated products against the same computation written out with ``numerics.quantize``: Y, dX and dW of each operator."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

import numerics
from numerics import InputError, Recipe, get_recipe, quantize
from numerics.emulation import emulate
from numerics.scaling import Scaling

FP8 = {"weight": "e4m3fn", "activation": "e3m4", "gradient": "e5m2", "elementwise": "bf16"}
PLAIN = Recipe("plain", FP8)
"""A format of its own for each role, no scales: a mixed-up role shows."""


def per_tensor(x, fmt):
    return quantize(x, fmt, scale=x.abs().max() / numerics.get_format(fmt).max)


def bf16(x):
    return quantize(x, "bf16")


def run(module, recipe, *inputs, gradient, seed=0):
    """Result, and gradients of inputs and parameters."""
    emulation = emulate(module, recipe, seed=seed)
    leaves = [x.clone().requires_grad_() if x.is_floating_point() else x for x in inputs]
    y = emulation(*leaves)
    y.backward(gradient)
    return emulation, y.detach(), [x.grad for x in leaves], {n: p.grad for n, p in emulation.module.named_parameters()}


class Function(nn.Module):
    """A function of tensors as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *args):
        return self.function(*args)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_linear_without_scales():
    layer = nn.Linear(6, 5)
    x, g = torch.randn(2, 3, 6), torch.randn(2, 3, 5)
    emulation, y, (dx,), grads = run(layer, PLAIN, x, gradient=g)
    qx, qw = quantize(x, "e3m4").reshape(-1, 6), quantize(layer.weight.detach(), "e4m3fn")
    arrived = bf16(g).reshape(-1, 5)
    qg = quantize(arrived, "e5m2")
    assert torch.equal(y, bf16(qx @ qw.T + layer.bias.detach()).reshape(2, 3, 5))
    assert torch.equal(dx, bf16(qg @ qw).reshape(2, 3, 6))
    assert torch.equal(grads["weight"], bf16(qg.T @ qx))
    assert torch.equal(grads["bias"], bf16(arrived.sum(0)))
    (row,) = emulation.operators
    assert (row.formats, row.gradients) == ("e3m4×e4m3fn→fp32", "e5m2×e4m3fn→fp32, e5m2×e3m4→fp32")


def test_linear_with_one_scale_a_tensor():
    recipe = Recipe("scaled", FP8, scaling=dict.fromkeys(("weight", "activation", "gradient"), Scaling("tensor")))
    layer, x, g = nn.Linear(16, 8, bias=False), torch.randn(4, 16) * 3000, torch.randn(4, 8) * 1e-6
    _, y, (dx,), grads = run(layer, recipe, x, gradient=g)
    qx, qw, qg = per_tensor(x, "e3m4"), per_tensor(layer.weight.detach(), "e4m3fn"), per_tensor(bf16(g), "e5m2")
    assert torch.equal(y, bf16(qx @ qw.T))
    assert torch.equal(dx, bf16(qg @ qw))
    assert torch.equal(grads["weight"], bf16(qg.T @ qx))


def test_channel_scales_belong_to_the_tensor():
    """One for each output channel of the weight and each token; the backward products read the same quantised operands."""
    recipe = Recipe("channels", FP8, scaling={"weight": Scaling("channel"), "activation": Scaling("channel")})
    layer, x, g = nn.Linear(16, 8, bias=False), torch.randn(4, 16) * torch.tensor([1, 100, 1e4, 1e-3])[:, None], torch.randn(4, 8)
    _, y, (dx,), grads = run(layer, recipe, x, gradient=g)

    def rows(t, fmt):
        return torch.stack([per_tensor(row, fmt) for row in t])

    qx, qw, qg = rows(x, "e3m4"), rows(layer.weight.detach(), "e4m3fn"), quantize(bf16(g), "e5m2")
    assert torch.equal(y, bf16(qx @ qw.T))
    assert torch.equal(dx, bf16(qg @ qw))
    assert torch.equal(grads["weight"], bf16(qg.T @ qx))


def tiles(x, rows, columns, fmt):
    """Each tile with a scale of its own, the last ones shorter."""
    out = torch.empty_like(x)
    for i in range(0, x.shape[0], rows):
        for j in range(0, x.shape[1], columns):
            out[i : i + rows, j : j + columns] = per_tensor(x[i : i + rows, j : j + columns], fmt)
    return out


def test_tiles_follow_the_sum_of_each_product():
    """1×4 along K forward, along N for dX, along M for dW; weights in 4×4, which are the same either way round."""
    row = Scaling("tile", (1, 4))
    recipe = Recipe("tiles", FP8, scaling={"weight": Scaling("tile", (4, 4)), "activation": row, "gradient": row})
    layer, x, g = nn.Linear(10, 8, bias=False), torch.randn(6, 10), torch.randn(6, 8)
    _, y, (dx,), grads = run(layer, recipe, x, gradient=g)
    w = layer.weight.detach()
    assert torch.equal(y, bf16(tiles(x, 1, 4, "e3m4") @ tiles(w, 4, 4, "e4m3fn").T))
    assert torch.equal(dx, bf16(tiles(bf16(g), 1, 4, "e5m2") @ tiles(w.T, 4, 4, "e4m3fn").T))
    assert torch.equal(
        grads["weight"], bf16(tiles(bf16(g).T.contiguous(), 1, 4, "e5m2") @ tiles(x.T.contiguous(), 1, 4, "e3m4").T)
    )


@pytest.mark.parametrize("name", ["mxfp8_e4m3", "mxfp4", "nvfp4", "mxint8"])
def test_blocks_run_along_the_sum_of_each_of_the_three_products(name):
    layer, x, g = nn.Linear(64, 96, bias=False), torch.randn(128, 64), torch.randn(128, 96)
    with torch.no_grad():  # blocks along one axis and along the other must differ
        layer.weight *= torch.randn(layer.weight.shape).exp()
    x *= torch.randn(x.shape).exp()
    recipe = Recipe("blocks", {"weight": name, "activation": name, "gradient": name, "elementwise": "fp32"})
    _, y, (dx,), grads = run(layer, recipe, x, gradient=g)
    w = layer.weight.detach()
    assert torch.equal(y, quantize(x, name, axis=1) @ quantize(w, name, axis=1).T)
    assert torch.equal(dx, quantize(g, name, axis=1) @ quantize(w, name, axis=0))
    assert torch.equal(grads["weight"], quantize(g, name, axis=0).T @ quantize(x, name, axis=0))
    assert not torch.equal(dx, quantize(g, name, axis=1) @ quantize(w, name, axis=1))


def test_a_last_block_is_filled_up_with_zeros():
    layer, x = nn.Linear(40, 8, bias=False), torch.randn(3, 40)
    recipe = Recipe("blocks", {"weight": "mxfp4", "activation": "mxfp4", "elementwise": "fp32"})
    _, y, _, _ = run(layer, recipe, x, gradient=torch.randn(3, 8))

    def filled(t):
        return quantize(functional.pad(t, (0, 24)), "mxfp4")

    assert torch.equal(y, filled(x)[:, :40] @ filled(layer.weight.detach())[:, :40].T)


def test_groups_along_the_sum():
    layer, x = nn.Linear(12, 5, bias=False), torch.randn(3, 12)
    recipe = Recipe(
        "w4", {"weight": "int4", "activation": "bf16", "accumulator": "fp32"}, scaling={"weight": Scaling("group", 4)}
    )
    _, y, _, _ = run(layer, recipe, x, gradient=torch.randn(3, 5))
    assert torch.equal(y, bf16(bf16(x) @ tiles(layer.weight.detach(), 1, 4, "int4").T))


@pytest.mark.parametrize(
    ("function", "shapes", "explicit"),
    [
        (torch.matmul, [(4, 6), (6, 5)], lambda a, b: a @ b),
        (torch.mm, [(4, 6), (6, 5)], lambda a, b: a @ b),
        (lambda a, b: a @ b, [(2, 3, 4, 6), (2, 3, 6, 5)], lambda a, b: a @ b),
        (torch.matmul, [(2, 1, 4, 6), (3, 6, 5)], lambda a, b: a @ b),
        (torch.matmul, [(4, 6), (3, 6, 5)], lambda a, b: a @ b),
        (torch.bmm, [(3, 4, 6), (3, 6, 5)], lambda a, b: a @ b),
        (torch.mv, [(4, 6), (6,)], lambda a, b: a @ b),
        (torch.dot, [(6,), (6,)], lambda a, b: (a * b).sum()),
        (torch.matmul, [(6,), (2, 6, 5)], lambda a, b: a @ b),
        (torch.inner, [(2, 4, 6), (5, 6)], lambda a, b: a @ b.T),
        (lambda a, b: torch.einsum("bqd,bkd->bqk", a, b), [(2, 4, 6), (2, 5, 6)], lambda a, b: a @ b.mT),
        (lambda a, b: torch.einsum("bhd,hde->bhe", a, b), [(4, 3, 6), (3, 6, 5)], lambda a, b: (a[:, :, None] @ b).squeeze(2)),
        (lambda a, b: torch.einsum("...d,de", a, b), [(2, 3, 6), (6, 5)], lambda a, b: a @ b),
        (lambda a, b: torch.einsum("ij,kj->ki", a, b), [(4, 6), (5, 6)], lambda a, b: b @ a.T),
        (
            lambda a, b: torch.tensordot(a, b, dims=([0, 2], [1, 0])),
            [(2, 3, 4), (4, 2, 5)],
            lambda a, b: torch.einsum("aik,kaj", a, b),
        ),
        (lambda a, b: torch.tensordot(a, b, 1), [(3, 4), (4, 5)], lambda a, b: a @ b),
    ],
)
def test_products_of_any_shape(function, shapes, explicit):
    """Values that BF16 sums hold exactly, so that the order of additions cannot matter: only the operands' rounding does."""
    a, b = (torch.randint(-9, 10, shape).float() for shape in shapes)
    coarse = Recipe("coarse", {"weight": "fp32", "activation": "e3m2fn", "gradient": "fp32", "elementwise": "fp32"})
    qa, qb = (quantize(t, "e3m2fn").requires_grad_() for t in (a, b))
    assert not torch.equal(qa, a)
    expected = explicit(qa, qb)
    g = torch.randint(-3, 4, expected.shape).float()
    expected.backward(g)
    emulation, y, (da, db), _ = run(Function(function), coarse, a, b, gradient=g)
    assert torch.equal(y, expected.detach())
    assert torch.equal(da, qa.grad)
    assert torch.equal(db, qb.grad)
    assert [row.formats for row in emulation.operators] == ["e3m2fn→fp32"]


def test_einsum_of_three_goes_from_left_to_right():
    a, b, c = torch.randn(3, 4), torch.randn(4, 5), torch.randn(5, 2)
    module = Function(lambda *t: torch.einsum("ij,jk,kl->il", *t))
    emulation = emulate(module, Recipe("r", {"weight": "bf16", "activation": "bf16"}))
    assert torch.equal(emulation(a, b, c), bf16(bf16(bf16(a) @ bf16(b)) @ bf16(c)))


@pytest.mark.parametrize("name", ["addmm", "baddbmm", "addbmm"])
def test_products_with_an_addend(name):
    shapes = {
        "addmm": [(4, 5), (4, 6), (6, 5)],
        "baddbmm": [(3, 4, 5), (3, 4, 6), (3, 6, 5)],
        "addbmm": [(4, 5), (3, 4, 6), (3, 6, 5)],
    }
    c, a, b = (torch.randint(-9, 10, shape).float() for shape in shapes[name])
    recipe = Recipe("r", {"weight": "e3m2fn", "activation": "e3m2fn", "elementwise": "fp32"})
    module = Function(lambda *t: getattr(torch, name)(*t, beta=2, alpha=3))
    product = quantize(a, "e3m2fn") @ quantize(b, "e3m2fn")
    product = product.sum(0) if name == "addbmm" else product
    assert torch.equal(emulate(module, recipe)(c, a, b), 2 * c + 3 * product)


def test_attention_is_two_products_a_scale_a_mask_and_a_softmax():
    q, k, v = (torch.randn(2, 3, 5, 8) for _ in range(3))
    module = Function(lambda *t: functional.scaled_dot_product_attention(*t, is_causal=True))
    emulation, y, (dq, dk, dv), _ = run(module, PLAIN, q, k, v, gradient=torch.ones(2, 3, 5, 8))
    qq, qk, qv = (quantize(t, "e3m4") for t in (q, k, v))
    masked = bf16(bf16(qq @ qk.mT) * (1 / math.sqrt(8))).masked_fill(torch.ones(5, 5).triu(1).bool(), -math.inf)
    masked.requires_grad_()
    weights = torch.softmax(masked, -1)
    qp = quantize(bf16(weights.detach()), "e3m4")
    assert torch.equal(y, bf16(qp @ qv))
    assert [row.kind for row in emulation.operators] == ["matmul", "mul", "safe_softmax", "matmul"]
    qg = quantize(torch.ones(2, 3, 5, 8), "e5m2")
    assert torch.equal(dv, bf16(qp.mT @ qg))
    weights.backward(bf16(qg @ qv.mT))
    inner = quantize(bf16(bf16(masked.grad) * (1 / math.sqrt(8))), "e5m2")
    assert torch.equal(dq, bf16(inner @ qk))
    assert torch.equal(dk, bf16(inner.mT @ qq))


@pytest.mark.parametrize("grouped", [False, True])
def test_attention_with_masks_is_near_torch(grouped):
    q, k, v = torch.randn(2, 4, 5, 8), torch.randn(2, 2 if grouped else 4, 6, 8), torch.randn(2, 2 if grouped else 4, 6, 8)
    for mask in (torch.rand(5, 6) > 0.5, torch.randn(2, 1, 5, 6), torch.zeros(5, 6).bool()):
        module = Function(
            lambda q, k, v, mask: functional.scaled_dot_product_attention(q, k, v, mask, scale=0.3, enable_gqa=grouped)
        )
        fine = Recipe("fine", {"weight": "e8m22", "activation": "e8m22"})
        expected = module(q, k, v, mask)
        assert torch.allclose(emulate(module, fine)(q, k, v, mask), expected, atol=1e-5)


CONVOLUTIONS = [
    (nn.Conv1d, (4, 6, 3), {"padding": 1}, (2, 4, 9)),
    (nn.Conv2d, (4, 6, 3), {"padding": (1, 0), "stride": 2, "groups": 2}, (2, 4, 9, 8)),
    (nn.Conv2d, (4, 6, (3, 2)), {"padding": "same", "dilation": 2}, (2, 4, 9, 8)),
    (nn.Conv2d, (4, 8, 3), {"groups": 4, "bias": False}, (4, 9, 8)),
    (nn.Conv3d, (2, 3, 2), {"stride": (1, 2, 1)}, (2, 2, 4, 5, 4)),
    (nn.ConvTranspose1d, (4, 6, 3), {"padding": 1, "stride": 2, "output_padding": 1}, (2, 4, 5)),
    (nn.ConvTranspose2d, (4, 6, 3), {"padding": (1, 0), "stride": 2, "groups": 2, "dilation": 2}, (2, 4, 5, 4)),
]


@pytest.mark.parametrize(("kind", "arguments", "more", "shape"), CONVOLUTIONS)
@pytest.mark.parametrize("accumulation", [None, "fp32"])
def test_convolutions(kind, arguments, more, shape, accumulation):
    """Small integers, whose sums are exact in any order: by the library's convolution, and term by term over patches."""
    layer = kind(*arguments, **more)
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_(torch.randint(-9, 10, p.shape))
    x = torch.randint(-9, 10, shape).float()
    formats = {"weight": "e3m2fn", "activation": "e2m3fn", "gradient": "e5m2", "elementwise": "fp32"}
    recipe = Recipe("r", formats, accumulation=accumulation)
    twin = kind(*arguments, **more)
    twin.load_state_dict({n: quantize(p, "e3m2fn") if n == "weight" else p for n, p in layer.state_dict().items()})
    leaf = quantize(x, "e2m3fn").requires_grad_()
    expected = twin(leaf)
    g = torch.randint(-9, 10, expected.shape).float()
    expected.backward(quantize(g, "e5m2"))
    emulation, y, (dx,), grads = run(layer, recipe, x, gradient=g)
    assert torch.equal(y, expected.detach())
    assert torch.equal(dx, leaf.grad)
    assert torch.equal(grads["weight"], twin.weight.grad)
    if layer.bias is not None:
        assert torch.equal(grads["bias"], g.sum([d for d in range(g.ndim) if d != g.ndim - len(layer.kernel_size) - 1]))
    assert [row.formats for row in emulation.operators] == ["e2m3fn×e3m2fn→fp32"]


def test_convolution_in_blocks_sums_patches_in_the_order_channel_row_column():
    layer, x = nn.Conv2d(8, 5, 3, bias=False), torch.randn(2, 8, 6, 6)
    recipe = Recipe("r", {"weight": "mxfp4", "activation": "mxfp4", "gradient": "fp32", "elementwise": "fp32"})
    cols = functional.unfold(x, 3).transpose(1, 2)  # (2, 16, 72)
    filled = quantize(functional.pad(cols, (0, 24)), "mxfp4")
    w = quantize(functional.pad(layer.weight.detach().reshape(5, 72), (0, 24)), "mxfp4")
    expected = (filled.reshape(32, 96)[:, :72] @ w[:, :72].T).reshape(2, 4, 4, 5).permute(0, 3, 1, 2)
    assert torch.equal(emulate(layer, recipe)(x), expected)


def test_embedding_rows_are_weights():
    layer = nn.Embedding(10, 8, padding_idx=0)
    ids = torch.tensor([[1, 2, 0], [2, 9, 9]])
    g = torch.randn(2, 3, 8)
    emulation, y, _, grads = run(layer, PLAIN, ids, gradient=g)
    assert torch.equal(y, bf16(quantize(layer.weight.detach(), "e4m3fn"))[ids])
    expected = torch.zeros(10, 8).index_add(0, ids.flatten(), bf16(g).reshape(-1, 8))
    expected[0] = 0
    assert torch.equal(grads["weight"], bf16(expected))
    assert emulation.operators[0].formats == "e4m3fn→bf16"


# --- accumulators ---------------------------------------------------------------------------------------------------------


def test_integers_are_summed_exactly_with_an_integer_bias():
    layer, x = nn.Linear(64, 7), torch.randn(5, 64)
    recipe = Recipe(
        "r", {"weight": "int8", "activation": "int8", "accumulator": "int32", "elementwise": "fp32", "gradient": "fp32"}
    )
    _, y, (dx,), _ = run(layer, recipe, x, gradient=(g := torch.randn(5, 7)))
    w = layer.weight.detach()
    sx, sw = x.abs().max() / 127, w.abs().max() / 127
    cx, cw = (x / sx).round().to(torch.int64), (w / sw).round().to(torch.int64)
    bias = torch.round(layer.bias.detach().double() / (sx * sw).double())
    assert torch.allclose(y.double() / (sx * sw).double(), (cx @ cw.T).double() + bias, rtol=1e-6)
    # The gradient is in FP32: no integer product, the values are summed by the library.
    assert torch.equal(dx, g @ (cw.float() * sw))


def test_narrow_integer_accumulators_wrap_and_named_ones_saturate():
    layer = nn.Linear(400, 1, bias=False)
    nn.init.constant_(layer.weight, 1.0)
    x = torch.ones(1, 400)
    formats = {"weight": "int8", "activation": "int8", "gradient": "fp32", "elementwise": "fp32"}
    step = 1 / 127**2
    wrapped = (400 * 127**2 + 2**15) % 2**16 - 2**15
    recipe = Recipe("wraps", {**formats, "accumulator": "int16"})
    assert torch.allclose(emulate(layer, recipe)(x), torch.tensor([[wrapped * step]]), rtol=1e-6)
    recipe = Recipe("saturates", formats, accumulation="int16_saturate")
    assert torch.allclose(emulate(layer, recipe)(x), torch.tensor([[(2**15 - 1) * step]]), rtol=1e-6)


def test_zero_points_are_taken_out_of_the_sum():
    layer, x = nn.Linear(16, 3, bias=False), torch.rand(4, 16) * 5 + 1
    recipe = Recipe(
        "r",
        {"weight": "int8_symmetric", "activation": "uint8", "accumulator": "int32", "elementwise": "fp32", "gradient": "fp32"},
        scaling={"activation": Scaling("tensor", symmetric=False), "weight": Scaling("channel")},
    )
    y = emulate(layer, recipe)(x)
    sx = x.max() / 255  # 0 is in every range, so the lowest code stands for it
    w = layer.weight.detach()
    sw = w.abs().amax(1) / 127
    cx, cw = (x / sx).round().long(), (w / sw[:, None]).round().long()
    assert torch.allclose(y, (cx @ cw.T) * sx * sw, rtol=1e-6)


PRESETS = ["hopper.wgmma.e4m3", "ada.mma.k32.e4m3", "deepseek", "e8m13", "bf16"]


@pytest.mark.parametrize("name", PRESETS)
def test_named_accumulators_are_those_of_matmul(name):
    """All three products, gradients in the other FP8 format."""
    recipe = Recipe(
        "r",
        {"weight": "e4m3fn", "activation": "e4m3fn", "gradient": "e5m2", "elementwise": "fp32"},
        scaling=dict.fromkeys(("weight", "activation", "gradient"), Scaling("tensor")),
        accumulation=name,
    )
    layer, x, g = nn.Linear(256, 12, bias=False), torch.randn(10, 256), torch.randn(10, 12)
    emulation, y, (dx,), grads = run(layer, recipe, x, gradient=g)

    def codes(t, fmt):
        s = t.abs().max() / numerics.get_format(fmt).max
        return quantize(t / s, fmt), s

    from numerics.accumulator import get_accumulator
    from numerics.products import matmul

    mixed = name
    if get_accumulator(name).a_formats:
        from dataclasses import replace

        mixed = replace(get_accumulator(name), a_formats=("e5m2",))
    (cx, sx), (cw, sw), (cg, sg) = codes(x, "e4m3fn"), codes(layer.weight.detach(), "e4m3fn"), codes(g, "e5m2")
    assert torch.equal(y, matmul(cx, cw.T, accumulator=name) * sx * sw)
    assert torch.equal(dx, matmul(cg, cw, accumulator=mixed) * sg * sw)
    assert torch.equal(grads["weight"], matmul(cg.T, cx, accumulator=mixed) * sg * sx)
    assert (emulation.operators[0].formats, emulation.operators[0].sums) == ("e4m3fn→fp32", name)
    assert not torch.equal(y, (cx @ cw.T) * sx * sw)


def test_a_float_accumulator_rounds_every_addition():
    from numerics.products import matmul

    layer, x = nn.Linear(64, 4), torch.randn(3, 64)
    recipe = Recipe("r", {"weight": "bf16", "activation": "bf16", "accumulator": "bf16"})
    y = emulate(layer, recipe)(x)
    total = matmul(bf16(x), bf16(layer.weight.detach()).T, accumulator="bf16")
    assert torch.equal(y, bf16(total + bf16(layer.bias.detach())))


def test_deepseek_adds_scaled_tiles_in_fp32():
    """128 products on the tensor core, times the scales of the tiles, added in FP32 (DeepSeek-V3, section 3.3.2)."""
    from dataclasses import replace

    from numerics.products import matmul

    recipe = replace(get_recipe("fp8_block"), accumulation="hopper.wgmma.e4m3")
    layer, x = nn.Linear(300, 140, bias=False), torch.randn(5, 300)
    y = emulate(layer, recipe)(x)
    w = layer.weight.detach()
    total = None
    for k in range(0, 300, 128):
        part_x, part_w = x[:, k : k + 128], w[:, k : k + 128]
        sx = part_x.abs().amax(1, keepdim=True) / 448
        sw = torch.cat([(part_w[i : i + 128].abs().max() / 448).expand(len(part_w[i : i + 128])) for i in (0, 128)])[:, None]
        part = matmul(quantize(part_x / sx, "e4m3fn"), quantize(part_w / sw, "e4m3fn").T, accumulator="hopper.wgmma.e4m3")
        part = part * sx * sw.T
        total = part if total is None else total + part
    assert torch.equal(y, bf16(total))


@pytest.mark.parametrize(
    ("fmt", "name"), [("mxfp8_e4m3", "blackwell.tcgen05.k32.mxf8f6f4.f32"), ("nvfp4", "blackwell.tcgen05.k64.nvf4.f32")]
)
def test_block_scaled_accumulators_take_codes_and_scales(fmt, name):
    from numerics import encode
    from numerics.products import matmul

    recipe = Recipe("r", {"weight": fmt, "activation": fmt, "gradient": fmt, "elementwise": "fp32"}, accumulation=name)
    layer, x, g = nn.Linear(128, 64, bias=False), torch.randn(64, 128), torch.randn(64, 64)
    _, y, (dx,), _ = run(layer, recipe, x, gradient=g)
    w = layer.weight.detach()
    forward = matmul(encode(x, fmt), encode(w.T.contiguous(), fmt, axis=0), accumulator=name)
    backward = matmul(encode(g, fmt), encode(w, fmt, axis=0), accumulator=name)
    assert torch.equal(y, torch.as_tensor(forward))
    assert torch.equal(dx, torch.as_tensor(backward))


def test_an_excepted_module_leaves_the_accumulator():
    from dataclasses import replace

    net = nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 4))
    recipe = replace(get_recipe("fp8"), accumulation="hopper.wgmma.e4m3").excepting("1", "fp32")
    emulation = emulate(net, recipe, example_inputs=torch.randn(2, 32))
    found = [(row.formats, row.sums) for row in emulation.operators]
    assert found == [("e4m3fn→fp32", "hopper.wgmma.e4m3"), ("fp32", "library")]


def test_operands_outside_the_accumulators_formats_are_an_error():
    from dataclasses import replace

    recipe = replace(get_recipe("bf16"), accumulation="hopper.wgmma.e4m3")
    with pytest.raises(InputError, match="'e4m3fn'"):
        emulate(nn.Linear(32, 4), recipe)(torch.randn(2, 32))
