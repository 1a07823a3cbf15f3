"""The operations that round a map to a format, as an emulation does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hwsim.faults.incremental import layout
from hwsim.faults.incremental.recording import Unsupported
from numerics.formats import BlockFormat, FixedFormat, FloatFormat, IntFormat

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from numerics.emulation import Emulation, OperandKey
    from numerics.emulation.quantised import Rule

Operation = tuple[int, int, int]


class Tables:
    """Constants, operations and float formats, as they are collected."""

    def __init__(self) -> None:
        self.constants: list[NDArray[np.float32]] = []
        self.formats: list[tuple[int, ...]] = []
        self._size = 0

    def add(self, values: Any) -> int:
        """Put numbers of 32 bits (floats, or integers as they are) among the constants; where they begin."""
        array = np.ascontiguousarray(values).reshape(-1)
        start, self._size = self._size, self._size + array.size
        self.constants.append(array.view(np.float32))
        return start

    def times(self, factor: float) -> list[Operation]:
        """Multiply by a constant."""
        return [] if factor == 1.0 else [(layout.TIMES, self.add(np.array([factor], np.float32)), 0)]

    def channels(self, kind: int, values: torch.Tensor) -> list[Operation]:
        """Multiply by, or add, one number a channel."""
        return [(kind, self.add(values.detach().float().cpu().numpy()), 0)]

    def rounding(
        self, rule: Rule, scale: float | None, zero_point: float, *, back: bool, keep: bool, where: str
    ) -> list[Operation]:
        """Round to a format.

        Args:
            rule: format and rounding mode.
            scale: what x is divided by before; None for nothing.
            zero_point: the code of 0.
            back: whether the result is multiplied by the scale again.
            keep: whether ±Inf stays where the format has none.
            where: how errors call the operator.

        Raises:
            Unsupported: a format or a mode that these kernels lack.
        """
        from numerics._arrays import has_every_float, plan
        from numerics.rounding import overflow_policy

        fmt = rule.fmt
        if rule.rounding != "nearest_even":
            raise Unsupported(f"{where}: {rule.role} rounds by {rule.rounding!r}; incremental runs round by 'nearest_even'")
        if not isinstance(fmt, FloatFormat | IntFormat | FixedFormat):
            kind = "blocks" if isinstance(fmt, BlockFormat) else "a codebook"
            raise Unsupported(
                f"{where}: {rule.role} is in {kind} ({fmt.name!r}); incremental runs take floats and integers there"
            )
        known = [1.0 if scale is None else scale, float(scale is not None), float(back and scale is not None)]
        if isinstance(fmt, IntFormat | FixedFormat):
            low, high = ((code - zero_point) * fmt.step for code in (fmt.code_min, fmt.code_max))
            magic = 1.5 * 2.0**23 * fmt.step
            if max(-low, high) > magic / 4:
                raise Unsupported(f"{where}: {fmt.name!r} has more integers than incremental runs round; expected fewer bits")
            values = np.array([*known, keep, low, high, magic], np.float32)
            return [(layout.TO_STEPS, self.add(values), 0)]
        if scale is None and has_every_float(fmt, 32):
            return []
        overflow = None if scale is None else "saturate"
        chosen = plan(fmt, rule.rounding, overflow, 32)
        if chosen.width != 32 or not (fmt.signed and fmt.zero):
            raise Unsupported(f"{where}: {fmt.name!r} does not round in 32-bit floats; incremental runs need a narrower format")
        lacks_nan = overflow_policy(fmt, overflow).nan is None
        self.formats.append((*chosen.parameters, chosen.how, int(lacks_nan)))
        values = np.array([*known, keep and not fmt.has_inf, 0, 0, 0], np.float32)
        return [(layout.TO_FLOAT, self.add(values), len(self.formats) - 1)]

    def elementwise(self, emulation: Emulation, key: OperandKey | None, where: str) -> list[Operation]:
        """What rounds a map that is no operand of a product; nothing for None."""
        if key is None:
            return []
        rule = emulation._context.rule(key.recipe_role, key.module)
        if isinstance(rule.fmt, FloatFormat) and rule.identity(_single()):
            return []
        scale, zero_point = static_scale(emulation, key, where)
        return self.rounding(rule, scale, zero_point, back=True, keep=True, where=where)


def _single() -> torch.dtype:
    import torch

    return torch.float32


def static_scale(emulation: Emulation, key: OperandKey, where: str) -> tuple[float | None, float]:
    """The one scale of an operand, None for none, and its zero point.

    Raises:
        Unsupported: a scale that is found from the values, which a fault changes, or several of them.
        InputError: a static scale that no calibration has found.
    """
    import torch

    context = emulation._context
    scaling = context.rule(key.recipe_role, key.module).scaling
    if scaling.granularity == "none":
        return None, 0.0
    if scaling.update != "static":
        raise Unsupported(
            f"{where}: {key.role} has a {scaling.update} scale, which a fault anywhere in it changes; incremental runs need a "
            "static one (Scaling(update='static') and numerics.calibrate)"
        )
    found = context.static_scales(key, torch.zeros(())) if _is_single(emulation, key) else None
    if found is None:
        raise Unsupported(f"{where}: {key.role} has several scales; incremental runs take one for the tensor")
    return float(found.scale), 0.0 if found.zero_point is None else float(found.zero_point)


def _is_single(emulation: Emulation, key: OperandKey) -> bool:
    known = emulation._context.static.get(key)
    return known is None or known.scale.numel() == 1


def table(operations: list[Operation]) -> NDArray[np.int64]:
    """Operations as kernels take them."""
    return np.array(operations, np.int64).reshape(-1, 3)
