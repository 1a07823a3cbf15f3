"""Linear layers and convolutions whose inputs, weights, biases and results pass a chain each.

    y = output(product(input(x), weight(W)) + bias(b))

The chains run anew in every forward pass, also those of weight and bias: the parameters are digital and trained as such, the
gradient reaches them through the chains.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from hwsim.views.display import displayed
from numerics._fields import check_flag, check_integer
from numerics.errors import InputError
from photonic._layer_inputs import check_layer_input
from photonic._numbers import is_one_of, shown
from photonic.analog.chain import Chain, mixed
from photonic.analog.noise import GaussianNoise, Noise
from photonic.analog.normalisation import Norm
from photonic.analog.precision import ReducePrecision, StochasticReducePrecision
from photonic.analog.stages import RandomStage
from photonic.imperfections import Ideal

READ_OUT = ("normalise", "noise", "reduce_precision")
"""Order of stages behind a product: a detector's noise comes before the converter."""


@displayed
@dataclass(frozen=True)
class AnalogSettings:
    """The chains of a layer, copied and seeded anew for each layer.

    Attributes:
        input, weight, bias, output: a ``Chain``, or ``Ideal``: as it is.

    Raises:
        InputError: something else.
    """

    input: Chain | Ideal = field(default_factory=Ideal)
    weight: Chain | Ideal = field(default_factory=Ideal)
    bias: Chain | Ideal = field(default_factory=Ideal)
    output: Chain | Ideal = field(default_factory=Ideal)

    def __post_init__(self) -> None:
        for part in fields(self):
            is_one_of(part.name, getattr(self, part.name), Chain, Ideal)

    @classmethod
    def alike(
        cls,
        *,
        precision: int | None = None,
        bits: int | None = None,
        leakage: float | None = None,
        std: float | None = None,
        noise: type[Noise] = GaussianNoise,
        stochastic: bool = False,
        fixed_in_eval: bool = False,
    ) -> AnalogSettings:
        """One precision and one noise everywhere, and the scale kept, so that a trained network need not be trained again.

        Inputs and results are divided by the largest of each sample, weights and biases by the largest of all; the digital part
        multiplies with it again. Results meet the noise before their converter.

        Args:
            precision, bits: levels from 0 to 1, one of the two.
            leakage, std: of the noise after normalisation, at most one of the two; neither: no noise.
            noise: kind of it.
            stochastic: rounding.
            fixed_in_eval: of noise and stochastic rounding of weights and biases, which are then written once.

        Raises:
            InputError: as the stages.
        """
        check_flag("stochastic", stochastic)
        check_flag("fixed_in_eval", fixed_in_eval)
        if not (isinstance(noise, type) and issubclass(noise, Noise)) or noise.__abstractmethods__:
            raise InputError(f"noise: expected a kind of noise such as GaussianNoise, got {shown(noise)}")
        rounding: Any = StochasticReducePrecision if stochastic else ReducePrecision

        def chain(over: Any, *, fixed: bool = False, **more: Any) -> Chain:
            held: Any = {"fixed_in_eval": True} if fixed else {}
            reduced = rounding(precision=precision, bits=bits, **(held if stochastic else {}))
            added: Noise | Ideal = Ideal()
            if std is not None:
                added = noise(std=std, leakage=leakage, **held)
            elif leakage is not None:
                added = noise(leakage=leakage, precision=reduced.precision, **held)
            return Chain(Norm(float("inf"), over=over), reduced, added, rescale=True, **more)

        return cls(
            input=chain("row"),
            weight=chain("tensor", fixed=fixed_in_eval),
            bias=chain("tensor", fixed=fixed_in_eval),
            output=chain("row", order=READ_OUT),
        )


@displayed
class AnalogLayer(nn.Module, ABC):
    """What analog layers add to those of torch.

    Attributes:
        input_chain, weight_chain, bias_chain, output_chain: modules; a chain of no stage where the settings say ``Ideal``.
    """

    _dims = 1
    """Dimensions of an input without a batch."""

    def attach(self, settings: AnalogSettings, *, seed: int | None) -> None:
        """Give the layer its own copies of the chains.

        Raises:
            InputError: no settings; no seed where a stage draws, or one that is no integer ≥ 0.
        """
        is_one_of("settings", settings, AnalogSettings)
        if seed is not None:
            check_integer("seed", seed, 0)
        for part in fields(settings):
            given = getattr(settings, part.name)
            chain = Chain() if isinstance(given, Ideal) else given
            draws = any(isinstance(stage, RandomStage) for stage in chain.modules())
            if draws and seed is None:
                raise InputError(f"seed: expected one, because the {part.name} chain draws random numbers, got None")
            own = chain.seeded(0 if seed is None else mixed(seed, part.name))
            self.add_module(f"{part.name}_chain", own.train(self.training))

    @abstractmethod
    def product(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, *more: Any) -> torch.Tensor:
        """What the layer of torch computes of them."""

    def forward(self, x: torch.Tensor, *more: Any) -> torch.Tensor:
        """As torch's layer of this kind. A row is what one index of the first dimension has; an input without a batch is one.

        Raises:
            InputError: no tensor of real numbers, or of another shape; as the stages.
        """
        check_layer_input(self, x)
        alone = x.dim() == self._dims
        layer: Any = self
        given = layer.input_chain(x[None])[0] if alone else layer.input_chain(x)
        bias = None if layer.bias is None else layer.bias_chain(layer.bias)
        out = self.product(given, layer.weight_chain(layer.weight), bias, *more)
        result: torch.Tensor = layer.output_chain(out[None])[0] if alone else layer.output_chain(out)
        return result


def _build(layer: Any, base: type[nn.Module], arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
    if "settings" not in named:
        raise InputError("settings: expected AnalogSettings, got none")
    settings, seed = named.pop("settings"), named.pop("seed", None)
    try:
        base.__init__(layer, *arguments, **named)
    except (TypeError, ValueError, RuntimeError) as error:
        why = str(error).split("\n")[0]
        raise InputError(f"{type(layer).__name__}: expected what torch.nn.{base.__name__} takes, got an error: {why}") from None
    layer.attach(settings, seed=seed)


class AnalogLinear(AnalogLayer, nn.Linear):
    """``nn.Linear(…, settings=, seed=)``; the seed is needed where a stage draws."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        _build(self, nn.Linear, arguments, named)

    def product(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, *more: Any) -> torch.Tensor:
        """x · weightᵀ + bias."""
        return functional.linear(x, weight, bias)


class _Convolution(AnalogLayer):
    def product(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, *more: Any) -> torch.Tensor:
        """The convolution with stride, padding, dilation and groups of the layer."""
        layer: Any = self
        result: torch.Tensor = layer._conv_forward(x, weight, bias)
        return result


class _Transposed(AnalogLayer):
    def product(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, *more: Any) -> torch.Tensor:
        """The transposed convolution; ``more`` is ``output_size``, if it is given."""
        layer: Any = self
        size = more[0] if more else None
        dims = self._dims - 1
        extra = layer._output_padding(x, size, layer.stride, layer.padding, layer.kernel_size, dims, layer.dilation)
        function: Any = (functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d)[dims - 1]
        result: torch.Tensor = function(x, weight, bias, layer.stride, layer.padding, extra, layer.groups, layer.dilation)
        return result

    def forward(self, x: torch.Tensor, output_size: Any = None) -> torch.Tensor:
        """As torch's layer of this kind."""
        return super().forward(x, output_size)


class AnalogConv1d(_Convolution, nn.Conv1d):
    """``nn.Conv1d(…, settings=, seed=)``."""

    _dims = 2

    def __init__(self, *arguments: Any, **named: Any) -> None:
        _build(self, nn.Conv1d, arguments, named)


class AnalogConv2d(_Convolution, nn.Conv2d):
    """``nn.Conv2d(…, settings=, seed=)``."""

    _dims = 3

    def __init__(self, *arguments: Any, **named: Any) -> None:
        _build(self, nn.Conv2d, arguments, named)


class AnalogConv3d(_Convolution, nn.Conv3d):
    """``nn.Conv3d(…, settings=, seed=)``."""

    _dims = 4

    def __init__(self, *arguments: Any, **named: Any) -> None:
        _build(self, nn.Conv3d, arguments, named)


class AnalogConvTranspose1d(_Transposed, nn.ConvTranspose1d):
    """``nn.ConvTranspose1d(…, settings=, seed=)``."""

    _dims = 2

    def __init__(self, *arguments: Any, **named: Any) -> None:
        _build(self, nn.ConvTranspose1d, arguments, named)


class AnalogConvTranspose2d(_Transposed, nn.ConvTranspose2d):
    """``nn.ConvTranspose2d(…, settings=, seed=)``."""

    _dims = 3

    def __init__(self, *arguments: Any, **named: Any) -> None:
        _build(self, nn.ConvTranspose2d, arguments, named)


class AnalogConvTranspose3d(_Transposed, nn.ConvTranspose3d):
    """``nn.ConvTranspose3d(…, settings=, seed=)``."""

    _dims = 4

    def __init__(self, *arguments: Any, **named: Any) -> None:
        _build(self, nn.ConvTranspose3d, arguments, named)
