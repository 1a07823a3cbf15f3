"""The kernels themselves: PyTorch calls on tensors of given sizes and formats."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from numerics.errors import InputError

if TYPE_CHECKING:
    import torch

FORMATS: tuple[str, ...] = ("fp64", "fp32", "fp16", "bf16", "fp8", "int8")
"""Formats that kernels are measured in: fp8 is E4M3; it and int8 are matmuls' only, with results in bf16 and int32."""

_MATMUL_ONLY = ("fp8", "int8")


@dataclass(frozen=True)
class Built:
    """A kernel that can be called.

    Attributes:
        call: takes the tensors of one set.
        tensors: one set: operands, and the result where PyTorch can write it in place.
    """

    call: Callable[..., Any]
    tensors: tuple[torch.Tensor, ...]

    @property
    def bytes(self) -> int:
        """Bytes of one set."""
        return sum(t.untyped_storage().nbytes() for t in self.tensors)

    def copy(self) -> tuple[torch.Tensor, ...]:
        """Another set, with memory of its own."""
        return tuple(_clone(t) for t in self.tensors)


def _clone(tensor: torch.Tensor) -> torch.Tensor:
    import torch

    made = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device)
    return made.copy_(tensor)


def why_not(operator: str, formats: str) -> str:
    """Why PyTorch has no such kernel on any machine ("" where it may have)."""
    if formats not in FORMATS:
        raise InputError(f"formats: unknown name {formats!r}; expected some of {', '.join(FORMATS)}")
    return "PyTorch has matmuls only in this format" if formats in _MATMUL_ONLY and operator != "matmul" else ""


def build(operator: str, sizes: Mapping[str, int], formats: str, device: torch.device) -> Built:
    """One kernel with tensors of random values on ``device``.

    Raises:
        InputError: PyTorch has no such kernel.
        RuntimeError: no memory for it.
    """
    reason = why_not(operator, formats)
    if reason:
        raise InputError(f"{operator} in {formats}: {reason}")
    return _BUILDERS[operator](operator, sizes, formats, device)


def _random(formats: str, device: torch.device, *shape: int) -> torch.Tensor:
    import torch

    if formats == "int8":
        return torch.randint(-128, 128, shape, dtype=torch.int8, device=device)
    values = torch.randn(shape, device=device)
    dtypes = {"fp64": torch.float64, "fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
    return values.to(dtypes.get(formats, torch.float8_e4m3fn))


def _matmul(operator: str, sizes: Mapping[str, int], formats: str, device: torch.device) -> Built:
    import torch

    del operator
    batch, m, n, k = (sizes.get("batch", 1), sizes["m"], sizes["n"], sizes["k"])
    lead = (batch,) if batch > 1 else ()
    if lead and formats in _MATMUL_ONLY:
        raise InputError("PyTorch has no batched matmul in this format")
    a = _random(formats, device, *lead, m, k)
    if formats == "fp8":
        # The tensor cores' FP8 instructions take the second operand column by column.
        b, one = _random(formats, device, n, k).t(), torch.ones((), device=device)
        return Built(partial(torch._scaled_mm, scale_a=one, scale_b=one, out_dtype=torch.bfloat16), (a, b))
    if formats == "int8":
        b = _random(formats, device, n, k).t() if device.type == "cuda" else _random(formats, device, k, n)
        return Built(partial(_into, torch._int_mm, ()), (a, b, torch.empty((m, n), dtype=torch.int32, device=device)))
    b = _random(formats, device, *lead, k, n)
    out = torch.empty((*lead, m, n), dtype=a.dtype, device=device)
    return Built(partial(_into, torch.bmm if lead else torch.mm, ()), (a, b, out))


def _into(function: Callable[..., Any], options: tuple[Any, ...], *tensors: torch.Tensor) -> None:
    """Call on operands and options, the last tensor taking the result."""
    *operands, out = tensors
    function(*operands, *options, out=out)


def _convolution(operator: str, sizes: Mapping[str, int], formats: str, device: torch.device) -> Built:
    import torch

    del operator
    kernel, groups = sizes["kernel"], sizes.get("groups", 1)
    x = _random(formats, device, sizes["batch"], sizes["in_channels"], sizes["height"], sizes["width"])
    w = _random(formats, device, sizes["out_channels"], sizes["in_channels"] // groups, kernel, kernel)
    if device.type == "cuda" and formats in ("fp16", "bf16"):  # the layout that the tensor cores' kernels want
        x, w = (t.to(memory_format=torch.channels_last) for t in (x, w))
    call = partial(torch.nn.functional.conv2d, stride=sizes.get("stride", 1), padding=sizes.get("padding", 0), groups=groups)
    return Built(call, (x, w))


def _attention(operator: str, sizes: Mapping[str, int], formats: str, device: torch.device) -> Built:
    import torch

    del operator
    heads = sizes["heads"]
    shared = sizes.get("kv_heads") or heads
    q = _random(formats, device, sizes["batch"], heads, sizes["query_length"], sizes["head_dim"])
    k, v = (_random(formats, device, sizes["batch"], shared, sizes["key_length"], sizes["head_dim"]) for _ in range(2))
    attend = torch.nn.functional.scaled_dot_product_attention
    return Built(partial(attend, is_causal=bool(sizes.get("causal", 0)), enable_gqa=shared != heads), (q, k, v))


def _row_wise(operator: str, sizes: Mapping[str, int], formats: str, device: torch.device) -> Built:
    import torch

    m, n = sizes["m"], sizes["n"]
    x = _random(formats, device, m, n)
    if operator == "softmax":
        return Built(partial(_into, torch.ops.aten._softmax.out, (-1, False)), (x, torch.empty_like(x)))
    gain, shift = (_random(formats, device, n) for _ in range(2))
    norm = torch.nn.functional.layer_norm
    return Built(lambda x, gain, shift: norm(x, (n,), gain, shift), (x, gain, shift))


def _elementwise(operator: str, sizes: Mapping[str, int], formats: str, device: torch.device) -> Built:
    import torch

    aten = torch.ops.aten
    # Writing into a given result: relu has only a variant that copies, which clamp_min, its own kernel, does without.
    functions: dict[str, Callable[..., Any]] = {
        "gelu": aten.gelu.out, "relu": torch.clamp_min, "silu": aten.silu.out, "add": torch.add, "multiply": torch.mul,
    }  # fmt: skip
    operands = [_random(formats, device, sizes["n"]) for _ in range(2 if operator in ("add", "multiply") else 1)]
    options = (0,) if operator == "relu" else ()
    return Built(partial(_into, functions[operator], options), (*operands, torch.empty_like(operands[0])))


_BUILDERS: Mapping[str, Callable[[str, Mapping[str, int], str, Any], Built]] = {
    "matmul": _matmul, "convolution": _convolution, "attention": _attention, "softmax": _row_wise, "layer_norm": _row_wise,
    "gelu": _elementwise, "relu": _elementwise, "silu": _elementwise, "add": _elementwise, "multiply": _elementwise,
}  # fmt: skip
