"""Normalise, reduce the precision, add noise: what happens to numbers on their way into analog hardware, or out of it.

>>> import torch
>>> from photonic.analog.normalisation import Norm
>>> chain = Chain(Norm(torch.inf), ReducePrecision(precision=2), rescale=True)
>>> chain(torch.tensor([[4.0, 1.5, 0.5]])).tolist()
[[4.0, 2.0, 0.0]]
"""

from __future__ import annotations

import copy
import hashlib
from typing import Any

import torch
from torch import nn

from hwsim.views.display import displayed
from numerics._fields import check_flag, check_integer
from numerics.errors import InputError
from photonic._numbers import is_one_of, shown
from photonic.analog.noise import Noise
from photonic.analog.normalisation import Normalise
from photonic.analog.precision import ReducePrecision, StochasticReducePrecision
from photonic.analog.stages import RandomStage, widened
from photonic.imperfections import Ideal

STAGES = ("normalise", "reduce_precision", "noise")


@displayed
class Chain(nn.Module):
    """The three stages in a row, each ``Ideal`` if it is not there; a chain of none of them gives its input as it is.

    Attributes:
        normalise, reduce_precision, noise: the stages.
        rescale: the digital part makes scale · z + shift of the result, with scale and shift of the normalisation.
        order: of the stages. Into the hardware the converter comes before the noise, which is the default; out of it the noise
            comes first: ``("normalise", "noise", "reduce_precision")``.

    Raises:
        InputError: a stage of another class; ``rescale`` where nothing was scaled; an order that is none of the three.
    """

    def __init__(
        self,
        normalise: Normalise | Ideal | None = None,
        reduce_precision: ReducePrecision | StochasticReducePrecision | Ideal | None = None,
        noise: Noise | Ideal | None = None,
        *,
        rescale: bool = False,
        order: tuple[str, ...] = STAGES,
    ) -> None:
        super().__init__()
        given = {"normalise": normalise, "reduce_precision": reduce_precision, "noise": noise}
        given = {name: Ideal() if stage is None else stage for name, stage in given.items()}
        is_one_of("normalise", given["normalise"], Normalise, Ideal)
        is_one_of("reduce_precision", given["reduce_precision"], ReducePrecision, StochasticReducePrecision, Ideal)
        is_one_of("noise", given["noise"], Noise, Ideal)
        self.rescale = check_flag("rescale", rescale)
        if self.rescale and not getattr(given["normalise"], "scales", False):
            raise InputError(f"rescale: expected a stage that scales, got {type(given['normalise']).__name__}")
        if not isinstance(order, tuple | list) or sorted(map(str, order)) != sorted(STAGES):
            got = repr(order) if isinstance(order, tuple | list) else shown(order)
            raise InputError(f"order: expected each of {', '.join(STAGES)} once, got {got}")
        self.order = tuple(order)
        for name, stage in given.items():
            setattr(self, name, stage)

    @property
    def ideal(self) -> bool:
        """Whether it has no stage."""
        return not any(True for _ in self.children())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: real, any shape; the result has its shape, dtype and device.

        Raises:
            InputError: another kind of numbers; a stage that draws and has no seed.
        """
        is_one_of("x", x, torch.Tensor)
        if self.ideal:
            return x
        z, scale, shift = widened(x), 1.0, 0.0
        for name in self.order:
            stage: Any = getattr(self, name)
            if isinstance(stage, Normalise):
                z, scale, shift = stage.split(z)
            elif isinstance(stage, nn.Module):
                z = stage(z)
        if self.rescale:
            normalise: Any = self.normalise
            z = normalise.restored(z, scale, shift)
        return z.to(x.dtype)

    def seeded(self, seed: int) -> Chain:
        """A copy whose stages draw from streams of their own, made of this seed."""
        return reseed(copy.deepcopy(self), seed)

    def extra_repr(self) -> str:
        """What is not a stage."""
        if self.ideal:
            return "ideal"
        return f"rescale={self.rescale}" + ("" if self.order == STAGES else f", order={self.order}")


def reseed(module: Any, seed: int) -> Any:
    """Have every random stage of a module draw from the beginning of a stream made of this seed and the stage's path.

    Another seed is another device. Returns the module.

    Raises:
        InputError: no module; a seed that is no integer ≥ 0.
    """
    is_one_of("module", module, nn.Module)
    check_integer("seed", seed, 0)
    for path, stage in module.named_modules():
        if isinstance(stage, RandomStage):
            stage.reseed(mixed(seed, path))
    return module


def mixed(seed: int, *words: object) -> int:
    """A seed of its own, below 2^63, for every (seed, words)."""
    text = "/".join(map(str, (seed, *words)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1
