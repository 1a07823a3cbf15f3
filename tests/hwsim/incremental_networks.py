"""Networks, recipes and runs by hand that incremental runs are held against."""

import numpy as np
import torch
from torch import nn

import numerics
from numerics import Recipe
from numerics.faults import BitFaults, inject
from numerics.scaling import Scaling

STATIC = Scaling("tensor", update="static")
CHANNEL = Scaling("channel", update="static")


class Residual(nn.Module):
    """Strides, groups, a kernel a channel, dilation, a kernel of one, residual sums, every pool, batch norm."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.pointwise = nn.Conv2d(8, 8, 1)
        self.grouped = nn.Conv2d(8, 12, 3, padding=2, dilation=2, groups=2)
        self.shortcut = nn.Conv2d(8, 12, 1)
        self.average = nn.AvgPool2d(3, 2, 1)
        self.linear = nn.Linear(48, 5)
        with torch.no_grad():
            self.norm.running_mean.normal_()
            self.norm.running_var.uniform_(0.5, 2)
            self.norm.weight.uniform_(-1, 2)
            self.norm.bias.normal_()

    def forward(self, x):
        x = self.relu(self.norm(self.conv(x)))
        y = torch.clamp(self.pointwise(nn.functional.relu6(self.depthwise(x))), -1, 3) + x
        y = torch.relu(self.grouped(y) + self.shortcut(y))
        y = nn.functional.max_pool2d(self.average(y), 3, 1, 1)
        return self.linear(nn.functional.adaptive_avg_pool2d(y, 2).flatten(1))


def plain_network():
    return nn.Sequential(
        nn.Conv2d(2, 6, (5, 3), stride=(2, 1)), nn.ReLU(), nn.MaxPool2d(2, 1), nn.Conv2d(6, 18, 3, padding=1, bias=False),
        nn.ReLU6(), nn.AvgPool2d(2, 2, count_include_pad=False), nn.Dropout(), nn.Flatten(), nn.Linear(72, 20), nn.ReLU(),
        nn.Linear(20, 4),
    )  # fmt: skip


def networks():
    torch.manual_seed(0)
    return {"residual": (Residual(), torch.randn(3, 3, 15, 15)), "plain": (plain_network(), torch.randn(3, 2, 9, 11))}


def _recipe(name, weight, activation, scales=(None, None), **more):
    formats = {"weight": weight, "activation": activation, **more.pop("formats", {})}
    scaling = {role: scale for role, scale in zip(("weight", "activation"), scales, strict=True) if scale is not None}
    return Recipe(name, formats, scaling=scaling, **more)


SUMMED = {"accumulation": "fp32"}

DEFINED = {
    recipe.name: recipe
    for recipe in (
        _recipe("int8", "int8", "int8", (STATIC, STATIC)),
        _recipe("int8_affine", "int8_symmetric", "int8", (CHANNEL, Scaling(update="static", symmetric=False)),
                formats={"elementwise": "fp32"}),
        _recipe("int4_uint8_wrapping", "int4", "uint8", (Scaling("channel"), STATIC),
                formats={"accumulator": "int12", "elementwise": "bf16"}),
        _recipe("int16", "int16", "int16", (STATIC, STATIC)),
        _recipe("fixed", "q0.7", "q3.4"),
        _recipe("bf16", "bf16", "bf16", **SUMMED),
        _recipe("fp16_between", "fp16", "fp16", formats={"elementwise": "fp32"}, **SUMMED),
        _recipe("fp32", "fp32", "fp32", **SUMMED),
        _recipe("e4m3", "e4m3fn", "e4m3fn", **SUMMED),
        _recipe("e4m3_scaled", "e4m3fn", "e4m3fn", (CHANNEL, STATIC), formats={"elementwise": "bf16"}, **SUMMED),
        _recipe("e5m2_w8", "int8", "e5m2", (CHANNEL, None), **SUMMED),
    )
}  # fmt: skip
"""Recipes in which the order of every sum is defined."""


def emulated(network, images, recipe):
    """An emulation in eval mode, calibrated where it needs to be."""
    emulation = numerics.emulate(network, recipe).eval()
    scaling = [*emulation.recipe.scaling.values()]
    if any(s.update == "static" for s in scaling):
        numerics.calibrate(emulation, [images])
    return emulation


def bits(outputs):
    """The bits of outputs, of the default NaN for all of them."""
    found = np.asarray(outputs, np.float32).copy()
    found[np.isnan(found)] = np.nan
    return found.view(np.int32)


def by_injection(emulation, images, site, image, places, kind="flip"):
    """The outputs of one image, by the emulation with the faults in it."""
    pattern = "".join(f"[{c}]" if c in "*?[" else c for c in site.key.module)
    fault = BitFaults(
        kind=kind, target=site.role, modules=pattern, operator=site.key.operator, operand=site.key.role,
        places=tuple((int(e), int(b)) for e, b in places),
    )  # fmt: skip
    with torch.no_grad(), inject(emulation, fault):
        return emulation(images[image : image + 1]).numpy()[0]


def draw(incremental, images, count, seed, role=None):
    """Sites, images, elements and bits; sites alike."""
    rng = np.random.default_rng(seed)
    sites = [i for i, s in enumerate(incremental.sites) if role in (None, s.role)]
    site = rng.choice(sites, count)
    elements = np.array([rng.integers(incremental.sites[i].elements) for i in site])
    width = np.array([rng.integers(incremental.sites[i].bits) for i in site])
    return site, rng.integers(0, images, count), elements, width
