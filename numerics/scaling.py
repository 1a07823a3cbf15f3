"""Scales: what a tensor is divided by before it is rounded, how many of them it has, and when they are found.

Sources: per-tensor scales with a history of largest magnitudes, Micikevicius et al., "FP8 Formats for Deep Learning"
(arXiv 2209.05433), section 3, and NVIDIA Transformer Engine (``DelayedScaling``); tiles of 1×128 and 128×128, DeepSeek-V3
technical report (arXiv 2412.19437), section 3.3.2; affine integers, Jacob et al. (CVPR 2018, arXiv 1712.05877), section 2.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from numerics._display import displayed
from numerics.errors import InputError, unknown_name
from numerics.formats import Format, IntFormat

if TYPE_CHECKING:
    import torch

Granularity = Literal["none", "tensor", "channel", "group", "tile"]
"""How many scales a tensor has: ``none``; ``tensor``, one; ``channel``, one for each output channel of a weight and each row
(token) of anything else; ``group``, one for every ``size`` elements along the contraction of the product; ``tile``, one for
every ``(rows, columns)``, the columns along the contraction."""

GRANULARITIES = ("none", "tensor", "channel", "group", "tile")

Update = Literal["dynamic", "static", "delayed"]
"""When a scale is found: ``dynamic``, from the tensor itself; ``static``, by a calibration before; ``delayed``, from the largest
magnitudes of the steps before."""

UPDATES = ("dynamic", "static", "delayed")


@displayed
@dataclass(frozen=True)
class Scaling:
    """The scales of one role.

    Attributes:
        granularity: how many scales a tensor has; see ``Granularity``.
        size: elements that share one: an integer for ``group``, ``(rows, columns)`` for ``tile``.
        update: when they are found; see ``Update``.
        power_of_two: round every scale up to a power of two.
        symmetric: whether integer codes are centred at 0; otherwise they have a zero point as well.
        history: steps whose largest magnitude counts, for ``delayed``.
        margin: powers of two left free above the largest magnitude.
        calibrator: how a calibration finds ``static`` scales; its name in ``numerics.calibration``.

    Raises:
        InputError: a field outside its range, or a combination that has no meaning.
    """

    granularity: Granularity = "tensor"
    size: int | tuple[int, int] | None = None
    update: Update = "dynamic"
    power_of_two: bool = False
    symmetric: bool = True
    history: int = 16
    margin: int = 0
    calibrator: str = "minmax"

    def __post_init__(self) -> None:
        if self.granularity not in GRANULARITIES:
            raise unknown_name("scaling: granularity", str(self.granularity), GRANULARITIES)
        if self.update not in UPDATES:
            raise unknown_name("scaling: update", str(self.update), UPDATES)
        if self.granularity == "tile" and isinstance(self.size, list):
            object.__setattr__(self, "size", tuple(self.size))
        _check_size(self.granularity, self.size)
        for name in ("power_of_two", "symmetric"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"scaling: {name}: expected true or false, got {getattr(self, name)!r}")
        if not _is_count(self.history):
            raise InputError(f"scaling: history: expected an integer ≥ 1, got {self.history!r}")
        if not isinstance(self.margin, int) or isinstance(self.margin, bool):
            raise InputError(f"scaling: margin: expected an integer, got {self.margin!r}")
        if not isinstance(self.calibrator, str) or not self.calibrator:
            raise InputError(f"scaling: calibrator: expected a name such as 'minmax', got {self.calibrator!r}")
        if self.update == "delayed" and (self.granularity != "tensor" or not self.symmetric):
            got = f"granularity {self.granularity!r}, symmetric={self.symmetric}"
            raise InputError(f"scaling: update: 'delayed' expects granularity 'tensor' and symmetric=True, got {got}")
        if self.update == "static" and self.granularity not in ("tensor", "channel"):
            raise InputError(f"scaling: update: 'static' expects granularity 'tensor' or 'channel', got {self.granularity!r}")

    def to_dict(self) -> dict[str, Any]:
        """Plain data, fields at their default left out; ``Scaling.from_dict`` reads it back."""
        data: dict[str, Any] = {"granularity": self.granularity}
        for entry in fields(self)[1:]:
            value = getattr(self, entry.name)
            if value != entry.default:
                data[entry.name] = list(value) if isinstance(value, tuple) else value
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any] | str) -> Scaling:
        """The scaling described by its fields, or by its granularity alone.

        Raises:
            InputError: an unknown field, or one outside its range.
        """
        if isinstance(data, str):
            return cls(data)  # type: ignore[arg-type]
        if not isinstance(data, Mapping):
            raise InputError(f"scaling: expected a granularity or a mapping of fields, got {data!r}")
        known = [f.name for f in fields(cls)]
        for name in data:
            if name not in known:
                raise unknown_name("scaling: field", str(name), known)
        return cls(**data)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _check_size(granularity: str, size: Any) -> None:
    if granularity == "group":
        if not _is_count(size):
            raise InputError(f"scaling: size: a group takes an integer ≥ 1, got {size!r}")
    elif granularity == "tile":
        if not (isinstance(size, tuple) and len(size) == 2 and all(map(_is_count, size))):
            raise InputError(f"scaling: size: a tile takes (rows, columns), integers ≥ 1, got {size!r}")
    elif size is not None:
        raise InputError(f"scaling: size: only 'group' and 'tile' have one; expected None for {granularity!r}, got {size!r}")


# --- finding them ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scales:
    """Scales of a tensor, and zero points where integer codes are not centred.

    Attributes:
        scale: positive; broadcasts to the tensor.
        zero_point: integers, of the same shape; None for codes centred at 0.
    """

    scale: torch.Tensor
    zero_point: torch.Tensor | None = None


def finite(x: torch.Tensor) -> bool:
    """Whether a tensor holds neither Inf nor NaN; one pass that writes nothing."""
    import torch

    low, high = torch.aminmax(x)
    return bool(torch.isfinite(low) & torch.isfinite(high))


def largest_magnitude(x: torch.Tensor) -> torch.Tensor:
    """The largest finite magnitude of a tensor, 0 for one without elements; shape ()."""
    import torch

    if not x.numel():
        return x.new_zeros(())
    low, high = torch.aminmax(x)
    largest = torch.maximum(high, -low)
    return largest if bool(torch.isfinite(largest)) else x.abs().nan_to_num(0.0, 0.0, 0.0).amax()


def scale_of(largest: torch.Tensor, fmt: Format, scaling: Scaling) -> torch.Tensor:
    """The scale that takes a largest magnitude to the format's largest value: largest · 2^margin / max; 1 for no magnitude."""
    import torch

    smallest = torch.finfo(largest.dtype).tiny
    scale = (largest * 2.0**scaling.margin / float(fmt.max)).clamp(min=smallest, max=torch.finfo(largest.dtype).max)
    if scaling.power_of_two:
        scale = power_of_two_above(scale)
    return torch.where(largest > 0, scale, torch.ones_like(scale))


def power_of_two_above(x: torch.Tensor) -> torch.Tensor:
    """The smallest powers of two that are at least ``x``: positive, normal numbers."""
    import torch

    mantissa, exponent = torch.frexp(x)
    return torch.ldexp(torch.ones_like(x), exponent - (mantissa == 0.5).to(exponent.dtype))


def find_scales(x: torch.Tensor, fmt: Format, scaling: Scaling) -> Scales | None:
    """The dynamic scales of a tensor.

    Args:
        x: shape (…, rows, contraction); 32- or 64-bit floats.
        fmt: format of the values after division.
        scaling: how many scales; ``update`` is not looked at.

    Returns:
        Scales that broadcast to x; None for ``none``.
    """
    if scaling.granularity == "none" or not x.numel():
        return None
    if scaling.symmetric and scaling.granularity == "tensor" and not x.requires_grad:
        return Scales(scale_of(largest_magnitude(x), fmt, scaling))
    numbers = x if finite(x.detach()) else x.nan_to_num(0.0, 0.0, 0.0)
    if scaling.symmetric:
        return Scales(_spread(scale_of(_largest(numbers.abs(), scaling), fmt, scaling), x.shape, scaling))
    assert isinstance(fmt, IntFormat)
    low, high = (_spread(part, x.shape, scaling) for part in (-_largest(-numbers, scaling), _largest(numbers, scaling)))
    return affine_scales(low, high, fmt, scaling)


def affine_scales(low: torch.Tensor, high: torch.Tensor, fmt: IntFormat, scaling: Scaling) -> Scales:
    """Scale and zero point that take [low, high], widened to hold 0, to all codes of an integer (Jacob et al., section 3)."""
    import torch

    low, high = low.clamp(max=0.0), high.clamp(min=0.0)
    codes = float(fmt.code_max - fmt.code_min)
    scale = ((high - low) * 2.0**scaling.margin / codes).clamp(min=torch.finfo(low.dtype).tiny)
    if scaling.power_of_two:
        scale = power_of_two_above(scale)
    scale = torch.where(high > low, scale, torch.ones_like(scale))
    return Scales(scale, (fmt.code_min - torch.round(low / scale)).clamp(fmt.code_min, fmt.code_max))


def _largest(x: torch.Tensor, scaling: Scaling) -> torch.Tensor:
    """The largest value in each part that has a scale of its own; a part at an edge may be shorter."""
    import torch

    if scaling.granularity == "tensor":
        return x.amax()
    if scaling.granularity == "channel":
        return x.amax(dim=-1, keepdim=True)
    x = x.unsqueeze(-2) if x.ndim == 1 else x
    rows, columns = _part(scaling, x.shape)
    padding = (0, -x.shape[-1] % columns, 0, -x.shape[-2] % rows)
    padded = torch.nn.functional.pad(x, padding, value=-torch.inf) if any(padding) else x
    return padded.unflatten(-1, (-1, columns)).unflatten(-3, (-1, rows)).amax(dim=(-3, -1))


def _spread(scale: torch.Tensor, shape: tuple[int, ...], scaling: Scaling) -> torch.Tensor:
    """One scale a part → scales that broadcast to a tensor of this shape."""
    if scaling.granularity in ("tensor", "channel"):
        return scale
    rows, columns = _part(scaling, shape)
    whole = scale.repeat_interleave(columns, dim=-1)[..., : shape[-1]]
    if len(shape) == 1:
        return whole[0]
    return whole.repeat_interleave(rows, dim=-2)[..., : shape[-2], :] if rows > 1 else whole


def _part(scaling: Scaling, shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns that share a scale, in a tensor of this shape at most all."""
    assert scaling.size is not None
    rows, columns = scaling.size if isinstance(scaling.size, tuple) else (1, scaling.size)
    return min(rows, shape[-2]) if len(shape) > 1 else rows, min(columns, shape[-1])


class AmaxHistory:
    """Largest magnitudes of the last steps, for delayed scaling.

    All tensors of one step take the same scale, from the steps before; what they record counts from the next step on. The first
    step, which has no history, takes the magnitudes of the tensor at hand.

    Attributes:
        values: largest magnitude of each step kept, the latest first; shape (≤ length,).
        pending: largest magnitude recorded in this step; None for none.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self.values: torch.Tensor | None = None
        self.pending: torch.Tensor | None = None

    def advance(self) -> None:
        """Begin a step: what the last one recorded becomes history."""
        import torch

        if self.pending is not None:
            latest = self.pending.reshape(1)
            self.values = latest if self.values is None else torch.cat([latest, self.values])[: self.length]
            self.pending = None

    def record(self, largest: torch.Tensor) -> None:
        """Note a tensor's largest magnitude."""
        import torch

        self.pending = largest if self.pending is None else torch.maximum(self.pending, largest)

    def largest(self, otherwise: torch.Tensor) -> torch.Tensor:
        """The largest magnitude of the steps before; ``otherwise`` where there is none."""
        return otherwise if self.values is None else self.values.to(otherwise).amax()
