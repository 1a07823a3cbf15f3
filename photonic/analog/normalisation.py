"""First stage: numbers into the range −1 to 1 that light and converters have.

>>> import torch
>>> Norm(torch.inf, over="row")(torch.tensor([[1.0, -4.0], [0.5, 0.25]])).tolist()
[[0.25, -1.0], [1.0, 0.5]]
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional

from numerics._fields import check_flag
from numerics.errors import InputError
from photonic._numbers import is_one_of, number, shown
from photonic.analog.stages import Backward, Stage, passed_through

CHUNK = 1024
Parts = tuple[torch.Tensor, Any, Any]


class Normalise(Stage):
    """x = scale · z + shift; the stage gives z. A chain that rescales makes x of what became of z.

    Attributes:
        scales: whether scale and shift can be anything but 1 and 0.
    """

    scales = True

    def split(self, x: torch.Tensor) -> Parts:
        """(z, scale, shift) of a tensor of 32 or 64 bits, each with the gradient of ``backward``."""
        if self.backward == "exact":
            return self.parts(x)
        with torch.no_grad():
            z, scale, shift = self.parts(x.detach())
        return (z if self.backward == "none" else passed_through(x, z)), scale, shift

    def restored(self, z: torch.Tensor, scale: Any, shift: Any) -> torch.Tensor:
        """scale · z + shift. Straight through: its gradient passes as it comes, so that all of it does in both."""
        whole = z * scale if isinstance(shift, float) else z * scale + shift
        return passed_through(z, whole) if self.backward == "straight_through" else whole

    @abstractmethod
    def parts(self, x: torch.Tensor) -> Parts:
        """(z, scale, shift), differentiable."""

    def value(self, x: torch.Tensor) -> torch.Tensor:
        """z."""
        return self.parts(x)[0]


class Clamp(Normalise):
    """Numbers beyond ``least`` or ``most`` become that. Exact backward: 1 from ``least`` to ``most``, ends included, 0 beyond.

    Attributes:
        least, most: −1 and 1; light without phase has 0 and 1.
        backward: ``exact``, ``straight_through`` or ``none``.

    Raises:
        InputError: ``most`` ≤ ``least``, numbers that are not finite.
    """

    scales = False

    def __init__(self, least: float = -1.0, most: float = 1.0, *, backward: Backward = "exact") -> None:
        super().__init__(backward)
        number("least", least, -float("inf"))
        number("most", most, least, above=True)
        self.least, self.most = float(least), float(most)

    def parts(self, x: torch.Tensor) -> Parts:
        """(clamped, 1, 0)."""
        return torch.clamp(x, self.least, self.most), 1.0, 0.0

    def extra_repr(self) -> str:
        """Range and backward."""
        return f"{self.least:g}, {self.most:g}, backward={self.backward!r}"


class FullScale(Normalise):
    """Divided by a fixed full scale, then clamped to ±1: the range of a converter. Exact backward: 1/limit within, 0 beyond.

    Attributes:
        limit: what becomes 1; it is in the ``state_dict``.
        backward: ``exact``, ``straight_through`` or ``none``.

    Raises:
        InputError: a limit that is not > 0.
    """

    def __init__(self, limit: float, *, backward: Backward = "exact") -> None:
        super().__init__(backward)
        number("limit", limit, above=True)
        self.limit = float(limit)
        self._fitted: tuple[float, float] | None = None

    def parts(self, x: torch.Tensor) -> Parts:
        """(clamped, limit, 0)."""
        if self._fitted is not None and x.numel():
            share, largest = self._fitted
            self._fitted = share, max(largest, float(x.detach().abs().amax()))
            self.limit = share * self._fitted[1] or self.limit
        return torch.clamp(x / self.limit, -1.0, 1.0), self.limit, 0.0

    def get_extra_state(self) -> torch.Tensor:
        """The limit, a double."""
        return torch.tensor(self.limit, dtype=torch.float64)

    def set_extra_state(self, state: torch.Tensor) -> None:
        """What ``get_extra_state`` gave."""
        self.limit = float(state)

    def extra_repr(self) -> str:
        """Limit and backward."""
        return f"{self.limit:g}, backward={self.backward!r}"


class Norm(Normalise):
    """z = (x − mean) / norm. Exact backward: the derivative, that of norm and mean included.

    Attributes:
        order: 1: Σ|x|; 2: √Σx²; inf: max |x|. A row of zeros is divided by 1.
        over: ``row``: all that one index of the first dimension has, as a sample of a batch or an output of a weight; of a
            tensor of one dimension, all. ``tensor``: all numbers.
        centred: the mean over the same numbers is taken off first; else 0 is.
        largest_one: divided once more by the largest |z| of the tensor.
        backward: ``exact``, ``straight_through`` or ``none``.

    Raises:
        InputError: another order or ``over``, a flag that is none.
    """

    def __init__(
        self,
        order: float,
        *,
        over: Literal["row", "tensor"] = "row",
        centred: bool = False,
        largest_one: bool = False,
        backward: Backward = "exact",
    ) -> None:
        super().__init__(backward)
        if isinstance(order, bool) or not isinstance(order, int | float) or order not in (1, 2, float("inf")):
            raise InputError(f"order: expected 1, 2 or inf, got {shown(order)}")
        if not isinstance(over, str) or over not in ("row", "tensor"):
            raise InputError(f"over: expected 'row' or 'tensor', got {shown(over)}")
        self.order, self.over = float(order), over
        self.centred = check_flag("centred", centred)
        self.largest_one = check_flag("largest_one", largest_one)

    def parts(self, x: torch.Tensor) -> Parts:
        """(z, scale, shift); scale and shift broadcast to x, a shift of 0 is a float."""
        if x.numel() == 0:
            return x, 1.0, 0.0
        by_row = self.over == "row" and x.dim() > 1
        flat = x.flatten(1) if by_row else x.reshape(1, -1)
        shape = (len(x), *[1] * (x.dim() - 1)) if by_row else [1] * x.dim()
        shift: Any = 0.0
        if self.centred:
            mean = _folded(flat, torch.sum) / flat.shape[1]
            flat, shift = flat - mean, mean.reshape(shape)
        scale = _folded(flat, lambda part, dim: torch.linalg.vector_norm(part, self.order, dim=dim))
        scale = torch.where(scale == 0, torch.ones_like(scale), scale)
        if self.largest_one:
            largest = (flat / scale).abs().amax()
            scale = scale * torch.where(largest == 0, torch.ones_like(largest), largest)
        return (flat / scale).reshape(x.shape), scale.reshape(shape), shift

    def extra_repr(self) -> str:
        """All that was given."""
        flags = "".join(f", {name}" for name in ("centred", "largest_one") if getattr(self, name))
        return f"{self.order:g}, over={self.over!r}{flags}, backward={self.backward!r}"


def _folded(flat: torch.Tensor, reduce: Callable[..., torch.Tensor]) -> torch.Tensor:
    """(rows, 1): ``reduce`` of each row, of 1,024 numbers at a time: torch shares a longer sum among threads, in an order that
    depends on their number."""
    while flat.shape[1] > 1:
        pieces = -(-flat.shape[1] // CHUNK)
        flat = functional.pad(flat, (0, pieces * CHUNK - flat.shape[1])) if pieces > 1 else flat
        flat = reduce(flat.reshape(len(flat), pieces, -1), dim=2)
    return flat


def fit_full_scales(module: nn.Module, *inputs: Any, share: float = 1.0) -> dict[str, float]:
    """Set each ``FullScale`` of a module to ``share`` of the largest magnitude that it meets in a pass, and give path → limit.

    Those behind a stage see what it lets pass with its new limit. The pass runs in evaluation mode without gradients; stages that
    draw count it as a call.

    Args:
        module: with ``FullScale`` stages.
        inputs: arguments of one forward pass.
        share: less than 1 clips the largest and makes levels finer.

    Raises:
        InputError: no module; a share that is not from above 0 to 1; no such stage; one that no finite number but 0 reaches (all
            limits are then as they were).
    """
    is_one_of("module", module, nn.Module)
    number("share", share, above=True)
    if share > 1:
        raise InputError(f"share: expected above 0 to 1, got {share!r}")
    stages = {path: stage for path, stage in module.named_modules() if isinstance(stage, FullScale)}
    if not stages:
        raise InputError(f"module: expected at least one FullScale stage, got none in {type(module).__name__}")
    modes = {part: part.training for part in module.modules()}
    before = {path: stage.limit for path, stage in stages.items()}
    module.eval()
    for stage in stages.values():
        stage._fitted = float(share), 0.0
    try:
        with torch.no_grad():
            module(*inputs)
        unseen = [path for path, stage in stages.items() if stage._fitted is None or not 0 < stage._fitted[1] < float("inf")]
    finally:
        for stage in stages.values():
            stage._fitted = None
        for part, training in modes.items():
            part.training = training
    if unseen:
        for path, stage in stages.items():
            stage.limit = before[path]
        raise InputError(f"inputs: expected finite numbers other than 0 at {unseen[0]!r}, got none")
    return {path: stage.limit for path, stage in stages.items()}
