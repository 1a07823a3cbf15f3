"""Analog layers: normalise, reduce the precision, add noise, on what goes into a layer and what comes out of it.

>>> import torch
>>> from photonic import analog
>>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
>>> analog.to_analog(net, analog.AnalogSettings.alike(bits=4, leakage=0.2), seed=0)(torch.ones(3, 4)).shape
torch.Size([3, 2])
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from numerics._lazy import lazy_names

if TYPE_CHECKING:
    from photonic.analog.chain import Chain, reseed
    from photonic.analog.conversion import LayerRow, digital_products, layer_list, to_analog
    from photonic.analog.layers import (
        AnalogConv1d,
        AnalogConv2d,
        AnalogConv3d,
        AnalogConvTranspose1d,
        AnalogConvTranspose2d,
        AnalogConvTranspose3d,
        AnalogLayer,
        AnalogLinear,
        AnalogSettings,
    )
    from photonic.analog.noise import GaussianNoise, LaplacianNoise, Noise, PoissonNoise, UniformNoise
    from photonic.analog.normalisation import Clamp, FullScale, Norm, Normalise, fit_full_scales
    from photonic.analog.precision import ReducePrecision, StochasticReducePrecision
    from photonic.analog.stages import RandomStage, Stage

_HOME = {
    ".chain": ("Chain", "reseed"),
    ".conversion": ("LayerRow", "digital_products", "layer_list", "to_analog"),
    ".layers": (
        "AnalogConv1d",
        "AnalogConv2d",
        "AnalogConv3d",
        "AnalogConvTranspose1d",
        "AnalogConvTranspose2d",
        "AnalogConvTranspose3d",
        "AnalogLayer",
        "AnalogLinear",
        "AnalogSettings",
    ),
    ".noise": ("GaussianNoise", "LaplacianNoise", "Noise", "PoissonNoise", "UniformNoise"),
    ".normalisation": ("Clamp", "FullScale", "Norm", "Normalise", "fit_full_scales"),
    ".precision": ("ReducePrecision", "StochasticReducePrecision"),
    ".stages": ("RandomStage", "Stage"),
}
__all__ = [
    "AnalogConv1d",
    "AnalogConv2d",
    "AnalogConv3d",
    "AnalogConvTranspose1d",
    "AnalogConvTranspose2d",
    "AnalogConvTranspose3d",
    "AnalogLayer",
    "AnalogLinear",
    "AnalogSettings",
    "Chain",
    "Clamp",
    "FullScale",
    "GaussianNoise",
    "LaplacianNoise",
    "LayerRow",
    "Noise",
    "Norm",
    "Normalise",
    "PoissonNoise",
    "RandomStage",
    "ReducePrecision",
    "Stage",
    "StochasticReducePrecision",
    "UniformNoise",
    "digital_products",
    "fit_full_scales",
    "layer_list",
    "reseed",
    "to_analog",
]

__getattr__, __dir__ = lazy_names(__name__, _HOME)
