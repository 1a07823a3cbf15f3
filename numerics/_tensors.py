"""Conversion of torch tensors: through numpy's kernels on the CPU, through torch operations elsewhere, with the same bits.

The torch operations are those of ``_kernels.round_magnitude`` itself, on 64-bit integers.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from numerics import _arrays, _blocks, encoding
from numerics import _kernels as k
from numerics.errors import InputError
from numerics.formats import TABLE_BITS, BlockFormat, CodebookFormat, FixedFormat, FloatFormat, Format, IntFormat
from numerics.quantizer import Draw, Request, cannot_hold, check_axis, check_fits, check_scale, make_draw
from numerics.rounding import overflow_policy, step_parameters

_NUMPY: dict[torch.dtype, np.dtype[Any]] = {torch.float32: np.dtype(np.float32), torch.float64: np.dtype(np.float64)}
_NARROW = (torch.float16, torch.bfloat16)
_CHUNK = 1 << 22
"""Elements at a time: a dozen temporaries of eight bytes each."""


class _StraightThrough(torch.autograd.Function):
    """Forward: quantised. Backward: the gradient as it comes."""

    @staticmethod
    def forward(x: torch.Tensor, *rest: Any) -> torch.Tensor:
        return quantize(x.detach(), *rest)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing is kept for the backward pass."""

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0], None, None, None, None, None, None


def quantize(x: torch.Tensor, request: Request, scale: Any, axis: int, seed: Any, random_bits: int, out: Any) -> torch.Tensor:
    """``numerics.quantize`` of a tensor."""
    _check_gradients(x, scale, out)
    if out is None and x.requires_grad and torch.is_grad_enabled():
        return _StraightThrough.apply(x, request, scale, axis, seed, random_bits, None)
    _check_target(x, out, request.fmt)
    check_axis(request.fmt, tuple(x.shape), axis)
    draw = make_draw(request.rounding, seed, random_bits, tuple(x.shape))
    source = x.detach()
    source = (source.float() if x.dtype in _NARROW else source).contiguous()
    factor = check_scale(scale, request.fmt, tuple(x.shape), _NUMPY[source.dtype])
    if x.device.type == "meta":
        return torch.empty_like(x) if out is None else out
    if out is not None and request.lacks_nan and bool(torch.isnan(source).any()):
        raise _arrays.nan_error(request.fmt)  # before anything is overwritten
    fits = out is not None and out.dtype == source.dtype and out.is_contiguous() and out.device == source.device
    direct = fits and (out.data_ptr() == source.data_ptr() or not _share_memory(out, source))
    result = out.detach() if direct else torch.empty_like(source)
    if x.device.type == "cpu":
        _arrays.convert(source.numpy(), result.numpy(), request, factor, axis, draw)
    else:
        convert(source, result, request, factor, axis, draw)
    if direct:
        torch.autograd.graph.increment_version(out)
        return out
    wanted = x.dtype if out is None else out.dtype
    if wanted != result.dtype:
        narrow = result.to(wanted)
        if not bool(((narrow.to(result.dtype) == result) | torch.isnan(result)).all()):
            raise cannot_hold(str(wanted), request.fmt, given=out is not None)
        result = narrow
    return result if out is None else out.copy_(result)


def _share_memory(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()


def _check_gradients(x: torch.Tensor, scale: Any, out: Any) -> None:
    """See that no gradient is wanted that would be dropped."""
    if not torch.is_grad_enabled():
        return
    if out is not None and x.requires_grad:
        raise InputError("out: x requires a gradient, which out would not carry; leave out out, or detach x")
    if isinstance(scale, torch.Tensor) and scale.requires_grad:
        raise InputError("scale: it requires a gradient, which quantize does not pass; expected a detached tensor")


def _check_target(x: torch.Tensor, out: Any, fmt: Format) -> None:
    if x.dtype not in _NUMPY and x.dtype not in _NARROW:
        raise InputError(f"x: expected 16-, 32- or 64-bit floats, got {x.dtype}")
    if out is not None:
        if not isinstance(out, torch.Tensor):
            raise InputError(f"out: expected a torch tensor, got {type(out).__name__}")
        if out.shape != x.shape:
            raise InputError(f"out: expected shape {tuple(x.shape)}, got {tuple(out.shape)}")
        if out.requires_grad and torch.is_grad_enabled():
            raise InputError("out: a tensor that requires a gradient cannot take the result; leave out out, or detach it")
        if out.dtype not in _NUMPY and out.dtype not in _NARROW:
            raise InputError(f"out: expected floats, got {out.dtype}")
    check_fits(fmt, 64 if (x.dtype if out is None else out.dtype) == torch.float64 else 32)


# --- the same steps in torch operations -----------------------------------------------------------------------------------------


def round_tensor(x: torch.Tensor, plan: _arrays.Plan, mode: int, chance: torch.Tensor | None = None) -> torch.Tensor:
    """Each element rounded by ``_kernels.round_magnitude``.

    Args:
        x: 32- or 64-bit floats.
        plan: parameters, and the width of the floats to round in.
        mode: rounding mode.
        chance: 32 random bits an element, as 64-bit integers.
    """
    wide = x.double() if plan.width == 64 else x
    if plan.width == 64:
        bits = wide.view(torch.int64) & ((1 << 63) - 1)
    else:
        bits = wide.view(torch.int32).to(torch.int64) & 0x7FFFFFFF
    p = plan.parameters
    negative = torch.signbit(wide)
    words = bits if chance is None else chance
    result = k.round_magnitude(bits, negative, words, p, mode, plan.width, torch.where)
    value = result.view(torch.float64) if plan.width == 64 else result.to(torch.int32).view(torch.float32)
    if p[k.NAN_FLIP]:
        negative = negative ^ torch.isnan(wide)
    signed = negative & ((result != 0) | bool(p[k.ZERO_SIGN]))
    return torch.where(signed, -value, value).to(x.dtype)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _shift_right(z: torch.Tensor, places: int) -> torch.Tensor:
    return (z >> places) & ((1 << (64 - places)) - 1)


def random_words(draw: Draw, start: int, stop: int, device: torch.device) -> torch.Tensor:
    """The random bits of elements ``start`` to ``stop``, aligned to the top of 32 bits, as 64-bit integers."""
    if draw.words is not None:
        return torch.from_numpy(draw.words[start:stop].astype(np.int64)).to(device)
    index = torch.arange(start + 1, stop + 1, dtype=torch.int64, device=device)
    z = index * _signed(k.GAMMA) + _signed(draw.key)
    z = (z ^ _shift_right(z, 30)) * _signed(k.MIX_1)
    z = (z ^ _shift_right(z, 27)) * _signed(k.MIX_2)
    return _shift_right(z ^ _shift_right(z, 31), 32) & draw.kept


def convert(x: torch.Tensor, out: torch.Tensor, request: Request, scale: Any, axis: int, draw: Draw) -> None:
    """``_arrays.convert`` in torch operations, on any device."""
    if x.numel() == 0:
        return
    if isinstance(request.fmt, BlockFormat):
        _convert_blocks(x, out, request, scale, axis, draw)
        return
    factor = scale
    if isinstance(scale, np.ndarray):
        factor = torch.from_numpy(scale).to(x.device).expand(x.shape).contiguous().view(-1)
    elif scale is not None:
        factor = torch.tensor(float(scale), dtype=x.dtype, device=x.device)
    source, result = x.view(-1), out.view(-1)
    for start in range(0, source.numel(), _CHUNK):
        stop = min(start + _CHUNK, source.numel())
        part = factor[start:stop] if isinstance(scale, np.ndarray) else factor
        values = source[start:stop] if part is None else source[start:stop] / part
        rounded = _round_plain(values, request, draw, start)
        result[start:stop] = rounded if part is None else rounded * part


def _round_plain(x: torch.Tensor, request: Request, draw: Draw, start: int) -> torch.Tensor:
    """A flat part of a tensor in a format that is not a block format."""
    fmt = request.fmt
    nan = torch.isnan(x)
    if isinstance(fmt, CodebookFormat):
        if bool(nan.any()):
            raise _arrays.nan_error(fmt)
        codes = _arrays.codebook_codes(x.cpu().numpy(), fmt, request.rounding)
        return torch.from_numpy(fmt.table().copy()).to(x.device, x.dtype)[torch.from_numpy(codes).to(x.device)]
    stochastic = request.rounding == "stochastic"
    chance = random_words(draw, start, start + x.numel(), x.device) if stochastic else None
    width = 64 if x.dtype == torch.float64 else 32
    if isinstance(fmt, IntFormat | FixedFormat):
        if bool(nan.any()):
            raise _arrays.nan_error(fmt)
        steps = _arrays.Plan(k.GENERAL, width, step_parameters(fmt, width, clipped=True))
        low, high = ((code - request.zero_point) * fmt.step for code in (fmt.code_min, fmt.code_max))
        # Clipped before as well, so that a float too large to have a fraction is no special case.
        return round_tensor(x.clamp(low, high), steps, request.mode, chance).clamp(low, high)
    assert isinstance(fmt, FloatFormat)
    if _arrays.has_every_float(fmt, width):
        return x
    policy = overflow_policy(fmt, request.overflow)
    if policy.nan is None and bool(nan.any()):
        raise _arrays.nan_error(fmt)
    result = round_tensor(x, _arrays.plan(fmt, request.rounding, request.overflow, width), request.mode, chance)
    if fmt.signed and fmt.zero:
        return result
    smallest = fmt.smallest_normal
    if not fmt.signed:
        result = result.abs()
        if policy.negative != "magnitude":
            result = torch.where(x < 0, math.nan if policy.negative == "nan" and fmt.has_nan else fmt.min, result)
    if not fmt.zero:
        low_values = (x != 0) & (result.abs() < smallest)
        result = torch.where(low_values, torch.copysign(torch.full_like(result, smallest), result), result)
        result = torch.where(x == 0, math.nan if policy.zero == "nan" and fmt.has_nan else smallest, result)
    return result


def _powers(exponents: torch.Tensor) -> torch.Tensor:
    """2^exponents as 64-bit floats, made from bits: no library's ``pow`` is trusted."""
    return ((exponents + 1023) << 52).view(torch.float64)


def _floor_log2(x: torch.Tensor) -> torch.Tensor:
    """⌊log2⌋ of positive 64-bit floats that are not subnormal; −1023 for 0."""
    return (x.view(torch.int64) >> 52) - 1023


def _convert_blocks(x: torch.Tensor, out: torch.Tensor, request: Request, scale: Any, axis: int, draw: Draw) -> None:
    fmt = request.fmt
    assert isinstance(fmt, BlockFormat)
    axis = _blocks.check_axis(tuple(x.shape), axis, fmt)
    moved = x.movedim(axis, -1).contiguous()
    if draw.words is not None:
        words = np.ascontiguousarray(np.moveaxis(draw.words.reshape(tuple(x.shape)), axis, -1)).reshape(-1)
        draw = replace(draw, words=words)
    rows = moved.view(-1, fmt.block_size)
    largest = rows.abs().amax(dim=1).double()
    finite = torch.isfinite(largest)
    element = replace(request, fmt=fmt.element, overflow="saturate" if isinstance(fmt.element, FloatFormat) else None)
    result = torch.empty_like(rows)
    if fmt.scale.mantissa_bits == 0 and not fmt.tensor_scale:
        exponents = _shared_exponents(torch.where(finite, largest, 0.0), fmt)
        factors = _powers(exponents)[:, None]
        values = torch.where(finite[:, None], rows.double() / factors, 0.0)
    else:
        scales, whole = _blocks.block_scales(largest.cpu().numpy(), fmt, scale)
        single = (scales * whole).astype(np.float32)
        factors = torch.from_numpy(single).to(x.device, x.dtype)[:, None]
        divisors = torch.where(factors > 0, factors, torch.ones_like(factors))
        values = torch.where(finite[:, None], rows / divisors, torch.zeros_like(rows))
    flat, target = values.reshape(-1), result.view(-1)
    for start in range(0, flat.numel(), _CHUNK):
        stop = min(start + _CHUNK, flat.numel())
        if factors.dtype == torch.float64 and x.dtype != torch.float64:
            rounded = round_tensor(
                flat[start:stop], _wide_plan(element), element.mode, _chance(element, draw, start, stop, x.device)
            )
            values.view(-1)[start:stop] = rounded
        else:
            target[start:stop] = _round_plain(flat[start:stop], element, draw, start)
    product = (values if factors.dtype == torch.float64 and x.dtype != torch.float64 else result) * factors
    result = torch.where(finite[:, None], product, math.nan).to(x.dtype)
    out.copy_(result.view(moved.shape).movedim(-1, axis))


def _wide_plan(request: Request) -> _arrays.Plan:
    fmt = request.fmt
    assert isinstance(fmt, FloatFormat | IntFormat | FixedFormat)
    return _arrays.plan(fmt, request.rounding, request.overflow, 64)


def _chance(request: Request, draw: Draw, start: int, stop: int, device: torch.device) -> torch.Tensor | None:
    return random_words(draw, start, stop, device) if request.rounding == "stochastic" else None


def _shared_exponents(largest: torch.Tensor, fmt: BlockFormat) -> torch.Tensor:
    """``_kernels.shared_exponent`` of every block."""
    lowest, highest = _arrays.exponent_of(fmt.scale.smallest_subnormal), fmt.scale.emax
    top = fmt.element.max
    if fmt.scale_rounding == "nearest":
        ratio = largest / top
        exponents = _floor_log2(ratio) + ((ratio.view(torch.int64) & ((1 << 52) - 1)) >> 51)
    else:
        exponents = _floor_log2(largest) - _arrays.exponent_of(top)
        if fmt.scale_rounding == "up":
            exponents = exponents + (top * _powers(exponents.clamp(min=-1022)) < largest).to(torch.int64)
    exponents = torch.where(largest > 0, exponents, lowest)
    return exponents.clamp(lowest, highest)


# --- codes ----------------------------------------------------------------------------------------------------------------------


def encode(x: torch.Tensor, request: Request, scale: Any, axis: int, seed: Any, random_bits: int, packed: bool) -> Any:
    """``numerics.encode`` of a tensor. On a GPU, values are rounded there; formats of more than 16 bits are coded on the host."""
    arguments: dict[str, Any] = {"overflow": request.overflow, "zero_point": request.zero_point, "packed": packed}
    source = x.detach()
    if isinstance(request.fmt, FloatFormat) and x.device.type != "cpu" and request.fmt.bits <= TABLE_BITS and not packed:
        values = quantize(source.float() if x.dtype in _NARROW else source, request, scale, axis, seed, random_bits, None)
        factor = check_scale(scale, request.fmt, tuple(x.shape), _NUMPY[values.dtype])
        if factor is None:
            return _codes_of_values(values, request)
    array = (source.float() if x.dtype in _NARROW else source).cpu().numpy()
    words = seed.detach().cpu().numpy() if isinstance(seed, torch.Tensor) else seed
    arguments |= {"axis": axis, "seed": words, "random_bits": random_bits}
    codes = encoding.encode(array, request.fmt, rounding=request.rounding, scale=scale, **arguments)
    if isinstance(codes, encoding.BlockCodes):
        return replace(
            codes, codes=torch.from_numpy(codes.codes).to(x.device), scales=torch.from_numpy(codes.scales).to(x.device)
        )
    return torch.from_numpy(codes).to(x.device)


def _codes_of_values(values: torch.Tensor, request: Request) -> torch.Tensor:
    """Codes of values that are in the format already."""
    fmt = request.fmt
    assert isinstance(fmt, FloatFormat)
    p = _arrays.plan(fmt, request.rounding, request.overflow, 64).parameters
    magnitudes = fmt.table()[: 1 << (fmt.exponent_bits + fmt.mantissa_bits)]
    known = torch.from_numpy(magnitudes[~np.isnan(magnitudes)].copy()).to(values.device)
    nan = torch.isnan(values)
    code = torch.searchsorted(known, values.double().abs().nan_to_num(0.0, posinf=math.inf))
    code = torch.where(nan, p[k.NAN_CODE], code)
    sign = torch.signbit(values) & ~(nan & (not p[k.NAN_SIGN]))
    if fmt.signed:
        code = code | (sign.to(torch.int64) << p[k.SIGN_SHIFT])
    return code.to(torch.uint8 if fmt.bits <= 8 else torch.uint16)


def decode(codes: torch.Tensor, fmt: Any, scale: Any, zero_point: int, shape: tuple[int, ...] | None, dtype: Any) -> torch.Tensor:
    """``numerics.decode`` of a tensor of codes."""
    values = encoding.decode(codes.detach().cpu().numpy(), fmt, scale=scale, zero_point=zero_point, shape=shape, dtype=dtype)
    return torch.from_numpy(np.asarray(values)).to(codes.device)


def decode_blocks(codes: encoding.BlockCodes, dtype: Any) -> torch.Tensor:
    """``numerics.decode`` of block codes that are tensors."""
    device = codes.codes.device
    host = replace(codes, codes=codes.codes.cpu().numpy(), scales=codes.scales.cpu().numpy())
    return torch.from_numpy(encoding.decode(host, dtype=dtype)).to(device)
