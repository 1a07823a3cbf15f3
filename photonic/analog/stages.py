"""What all stages of an analog chain have in common: a stated backward, and random numbers whose state is saved."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import nn

from hwsim.views.display import displayed
from numerics._fields import check_flag, check_integer
from numerics.errors import InputError
from numerics.faults.maps import stream
from photonic._numbers import is_one_of, shown

Backward = Literal["exact", "straight_through", "none"]

_NARROW = (torch.float16, torch.bfloat16)
_NUMPY: dict[torch.dtype, Any] = {torch.float32: np.float32, torch.float64: np.float64}


class _StraightThrough(torch.autograd.Function):
    """Forward: the result given. Backward: the gradient as it comes, to the tensor it was made of."""

    @staticmethod
    def forward(x: torch.Tensor, result: torch.Tensor) -> torch.Tensor:
        return result.view_as(result)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing is kept for the backward pass."""

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0], None


def passed_through(x: torch.Tensor, result: torch.Tensor) -> torch.Tensor:
    """``result``, whose gradient goes to ``x`` as it comes; both of one shape and dtype."""
    through: torch.Tensor = _StraightThrough.apply(x, result.detach())
    return through


@displayed
class Stage(nn.Module, ABC):
    """A function of a real tensor, element by element or by rows, with a backward of its own.

    ``exact``: the derivative of the function. ``straight_through``: the gradient passes as it comes. ``none``: no gradient
    passes. Tensors of 16 bits are computed in 32 and rounded back.

    Attributes:
        backward: one of those in ``backwards``.

    Raises:
        InputError: another.
    """

    backwards: ClassVar[tuple[str, ...]] = ("exact", "straight_through", "none")

    def __init__(self, backward: Backward) -> None:
        super().__init__()
        if not isinstance(backward, str) or backward not in self.backwards:
            known = " or ".join(repr(kind) for kind in self.backwards)
            raise InputError(f"backward: expected {known} for {type(self).__name__}, got {shown(backward)}")
        self.backward = backward

    @abstractmethod
    def value(self, x: torch.Tensor) -> torch.Tensor:
        """The function of a tensor of 32 or 64 bits."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: real, any shape; the result has its shape, dtype and device.

        Raises:
            InputError: another kind of numbers.
        """
        wide = widened(x)
        return self.with_backward(wide, self.value).to(x.dtype)

    def with_backward(self, x: torch.Tensor, function: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """``function(x)`` with the backward that was asked for."""
        if self.backward == "exact":
            return function(x)
        with torch.no_grad():
            result = function(x.detach())
        return result if self.backward == "none" else passed_through(x, result)


class RandomStage(Stage):
    """A stage that draws. Call k is drawn from a stream of its own, made of the seed, the mode and k.

    Training and evaluation are counted apart, so that evaluating between two steps leaves the draws of training as they were.
    Seed and counts are in the ``state_dict``: a run that goes on from it draws what it would have drawn. The numbers are numpy's,
    drawn on the CPU: the same bits at any number of threads and on any device.

    Attributes:
        seed: None: none yet, and the stage refuses to run.
        fixed_in_eval: in evaluation every call draws the same numbers.

    Raises:
        InputError: a seed that is no integer from 0 to below 2^63, a flag that is none.
    """

    def __init__(self, backward: Backward, *, seed: int | None, fixed_in_eval: bool) -> None:
        super().__init__(backward)
        self.fixed_in_eval = check_flag("fixed_in_eval", fixed_in_eval)
        self.seed: int | None = None
        self._calls = {"train": 0, "eval": 0}
        if seed is not None:
            self.reseed(seed)

    def reseed(self, seed: int) -> None:
        """Draw from the beginning of another seed's stream."""
        if check_integer("seed", seed, 0) >= 1 << 63:
            raise InputError(f"seed: expected below 2^63, got {seed}")
        self.seed = int(seed)
        self._calls = {"train": 0, "eval": 0}

    def generator(self) -> np.random.Generator:
        """That of this call.

        Raises:
            InputError: no seed.
        """
        if self.seed is None:
            raise InputError(f"seed: expected one for {type(self).__name__}, which draws random numbers, got None")
        mode = "train" if self.training else "eval"
        if mode == "eval" and self.fixed_in_eval:
            return stream(self.seed, "analog", "fixed")
        call = self._calls[mode]
        self._calls[mode] = call + 1
        return stream(self.seed, "analog", mode, call)

    def drawn(self, like: torch.Tensor, draw: Callable[[np.random.Generator, tuple[int, ...], Any], Any]) -> torch.Tensor:
        """Numbers ``draw(generator, shape, dtype)`` in the shape, dtype and device of ``like``."""
        kind = _NUMPY[like.dtype]
        numbers = np.asarray(draw(self.generator(), tuple(like.shape), kind), kind)
        return torch.from_numpy(numbers).to(like.device)

    def get_extra_state(self) -> torch.Tensor:
        """(3,) int64: seed (−1: none), calls in training and in evaluation."""
        seed = -1 if self.seed is None else self.seed
        return torch.tensor([seed, self._calls["train"], self._calls["eval"]], dtype=torch.int64)

    def set_extra_state(self, state: torch.Tensor) -> None:
        """What ``get_extra_state`` gave."""
        seed, train, evaluation = (int(number) for number in state)
        self.seed = None if seed < 0 else seed
        self._calls = {"train": train, "eval": evaluation}


def widened(x: torch.Tensor) -> torch.Tensor:
    """``x`` in 32 bits at least.

    Raises:
        InputError: no tensor of real floating-point numbers.
    """
    is_one_of("x", x, torch.Tensor)
    if x.dtype in _NARROW:
        return x.float()
    if x.dtype not in _NUMPY:
        raise InputError(f"x: expected real numbers of 16, 32 or 64 bits, got {x.dtype}")
    return x
