"""How a tensor that outlives a step is kept: its format, its scales, its rounding, and the bytes they take."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from numerics._display import displayed
from numerics.errors import InputError
from numerics.formats import BlockFormat, CodebookFormat, FloatFormat, Format, IntFormat, get_format
from numerics.quantizer import quantize
from numerics.rounding import check_rounding
from numerics.scaling import Scaling

if TYPE_CHECKING:
    import torch

    from numerics.faults.maps import FaultMap

BLOCK = 2048
"""Elements that share a scale unless told otherwise (Dettmers et al., arXiv 2110.02861, section 2.1)."""

SCALE_BYTES = 4
"""A scale is an FP32 number."""


@displayed
@dataclass(frozen=True)
class Storage:
    """Format, scales and rounding of a stored tensor.

    Attributes:
        fmt: the format, or its name.
        rounding: rounding mode.
        scaling: one scale a tensor, row (``channel``) or ``group`` of consecutive elements of the flattened tensor. Left out,
            formats with ≤ 8 bits and codebooks have one for every 2,048 elements, others none.

    Raises:
        InputError: an unknown format or rounding mode, or scales that stored tensors cannot have.
    """

    fmt: Format
    rounding: str = "nearest_even"
    scaling: Scaling | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "fmt", get_format(self.fmt))
        check_rounding(self.rounding)
        scaling = self.scaling
        if scaling is None:
            scaling = Scaling("group", BLOCK) if _is_narrow(self.fmt) else Scaling("none")
            object.__setattr__(self, "scaling", scaling)
        if scaling.granularity == "none":
            return
        if isinstance(self.fmt, BlockFormat):
            raise InputError(f"scaling: {self.fmt.name!r} finds its blocks' scales itself; expected 'none'")
        if scaling.granularity == "tile":
            raise InputError("scaling: stored tensors have one scale a tensor, channel or group; got granularity 'tile'")
        if scaling.update != "dynamic" or not scaling.symmetric:
            raise InputError(
                "scaling: stored tensors are scaled by their own largest magnitude; expected 'dynamic' and symmetric"
            )

    @property
    def granularity(self) -> str:
        """Of the scales."""
        assert self.scaling is not None
        return self.scaling.granularity

    def rows(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Number and length of the runs of the flattened tensor that share scales; the last run may be padded."""
        assert self.scaling is not None
        elements = math.prod(shape)
        if isinstance(self.fmt, BlockFormat):
            size = self.fmt.block_size
        elif self.granularity == "group":
            assert isinstance(self.scaling.size, int)
            size = min(self.scaling.size, max(elements, 1))
        elif self.granularity == "channel" and len(shape) > 1:
            size = max(elements // max(shape[0], 1), 1)
        else:
            size = max(elements, 1)
        return -(-elements // size), size

    def storage_bytes(self, shape: tuple[int, ...]) -> int:
        """Bytes of codes and scales, densely packed."""
        assert self.scaling is not None
        if self.granularity == "group":
            return scaled_bytes(self.fmt, self.scaling, (math.prod(shape),))
        return scaled_bytes(self.fmt, self.scaling, shape)

    def store(self, x: torch.Tensor, *, seed: int, what: str) -> torch.Tensor:
        """The values that the stored codes of ``x`` stand for, as FP32.

        Args:
            x: FP32 tensor of any shape.
            seed: of stochastic rounding; unused otherwise.
            what: how errors call the tensor.

        Raises:
            InputError: values that the format cannot hold: beyond its largest without a scale, negative in an unsigned one, not
                finite in one that is scaled or has no such codes.
        """
        import torch

        fmt = self.fmt
        self._check(x, what)
        if isinstance(fmt, FloatFormat) and (fmt.exponent_bits, fmt.mantissa_bits) == (8, 23):
            return x
        draw: dict[str, Any] = {"seed": seed} if self.rounding == "stochastic" else {}
        whole = self.granularity == "none" and not isinstance(fmt, BlockFormat)
        if whole or x.numel() == 0:
            return quantize(x, fmt, rounding=self.rounding, **draw)
        count, size = self.rows(tuple(x.shape))
        padded = torch.nn.functional.pad(x.reshape(-1), (0, count * size - x.numel())).view(count, size)
        if self.granularity != "none":
            draw["scale"] = self._scales(padded)
        values = quantize(padded, fmt, rounding=self.rounding, overflow="saturate", **draw)
        return values.view(-1)[: x.numel()].view(x.shape).clone()

    def corrupt(self, stored: torch.Tensor, faults: FaultMap) -> None:
        """Change a stored tensor in place as faults in the codes of its elements do.

        Args:
            stored: values that ``store`` gave.
            faults: in the codes, flat.
        """
        import torch

        from numerics.encoding import decode, encode
        from numerics.faults.maps import corrupt

        if self.granularity == "none" and not isinstance(self.fmt, BlockFormat):
            stored.copy_(corrupt(stored, self.fmt, faults))
            return
        count, size = self.rows(tuple(stored.shape))
        padded = torch.nn.functional.pad(stored.reshape(-1), (0, count * size - stored.numel())).view(count, size)
        if isinstance(self.fmt, BlockFormat):
            codes = encode(padded.cpu().numpy(), self.fmt)
            changed = torch.from_numpy(decode(replace(codes, codes=faults.apply(codes.codes)))).to(stored)
        else:
            # The largest magnitude of a run is the largest value times its scale, as it was when it was stored.
            changed = corrupt(padded, self.fmt, faults, scale=self._scales(padded))
        stored.copy_(changed.reshape(-1)[: stored.numel()].view(stored.shape))

    def _scales(self, rows: torch.Tensor) -> torch.Tensor:
        """One FP32 scale a row: largest magnitude / largest value, at least the smallest normal number."""
        import torch

        assert self.scaling is not None
        largest = rows.abs().amax(dim=1, keepdim=True)
        scales = largest / (self.fmt.max * 2.0**-self.scaling.margin)
        if self.scaling.power_of_two:
            mantissa, exponent = torch.frexp(scales)
            scales = torch.ldexp(torch.ones_like(scales), exponent - (mantissa == 0.5).to(exponent.dtype))
        scales = scales.clamp(min=torch.finfo(torch.float32).tiny)
        return torch.where(largest > 0, scales, torch.ones_like(scales))

    def _check(self, x: torch.Tensor, what: str) -> None:
        import torch

        fmt = self.fmt
        if x.numel() == 0:
            return
        low, high = (float(v) for v in torch.aminmax(x))
        if not (math.isfinite(low) and math.isfinite(high)):
            carried = isinstance(fmt, FloatFormat) and fmt.has_inf and fmt.has_nan and self.granularity == "none"
            if not carried:
                bad = low if not math.isfinite(low) else high
                raise InputError(f"{what}: {fmt.name!r} cannot hold it; expected finite values, got {bad}")
            return
        if not isinstance(fmt, BlockFormat) and fmt.min >= 0 and low < 0:
            raise InputError(f"{what}: {fmt.name!r} has no negative values, got {low:.6g}; expected a signed format")
        limit = fmt.max
        if self.granularity == "none" and max(-low, high) > limit:
            worst = high if high >= -low else low
            raise InputError(
                f"{what}: {worst:.6g} is beyond {limit:g}, the largest of {fmt.name!r}; expected a wider format or a scale"
            )


def _is_narrow(fmt: Format) -> bool:
    if isinstance(fmt, BlockFormat):
        return False
    return isinstance(fmt, IntFormat | CodebookFormat) or fmt.bits <= 8


def scaled_bytes(fmt: Format, scaling: Scaling, shape: tuple[int, ...]) -> int:
    """Bytes of a tensor in a format with these scales, each an FP32 number; an affine one has a zero point of the format's width.

    Groups run along the last dimension; tiles, over the matrix of the first dimension and the rest.
    """
    elements = math.prod(shape)
    rows = shape[0] if len(shape) > 1 else 1
    columns = elements // rows if rows else 0
    if scaling.granularity == "group":
        assert isinstance(scaling.size, int)
        length = shape[-1] if shape else 1
        count = (elements // length if length else 0) * -(-length // scaling.size)
    elif scaling.granularity == "tile":
        assert isinstance(scaling.size, tuple)
        count = -(-rows // scaling.size[0]) * -(-columns // scaling.size[1])
    else:
        count = {"none": 0, "tensor": 1, "channel": rows}[scaling.granularity]
    if isinstance(fmt, BlockFormat) and fmt.tensor_scale:
        count += 1
    zero_point = 0 if scaling.symmetric else math.ceil(fmt.bits / 8)
    return fmt.storage_bytes(elements) + count * (SCALE_BYTES + zero_point)
