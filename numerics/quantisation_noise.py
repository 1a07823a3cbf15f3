"""Signal-to-quantisation-noise ratio: of two tensors, and of every operand and every module of an emulation."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from numerics._display import displayed
from numerics.errors import InputError
from numerics.formats import BlockFormat, FixedFormat, IntFormat
from numerics.histogram import as_doubles
from numerics.recipes import Recipe, get_recipe

if TYPE_CHECKING:
    import torch

    from numerics.emulation import Emulation, OperandKey
    from numerics.emulation.quantised import Quantised

_SLACK = 1e-4
"""What the division by a scale may add to a value that sits on the last one."""


def sqnr_db(signal: Any, quantised: Any) -> float:
    """10·log10(Σ x² / Σ (x − q)²), in dB. Infinite where the two are equal.

    Args:
        signal, quantised: arrays or tensors of one shape.
    """
    x, q = as_doubles(signal), as_doubles(quantised)
    if x.shape != q.shape:
        raise InputError(f"quantised: expected shape {x.shape}, got {q.shape}")
    return _Powers().add(x, q).ratio_db


@dataclass
class _Powers:
    """Sums of squares of a signal and of its error."""

    signal: float = 0.0
    noise: float = 0.0

    def add(self, x: Any, q: Any) -> _Powers:
        x, q = as_doubles(x), as_doubles(q)
        self.signal += float(np.square(x).sum())
        self.noise += float(np.square(x - q).sum())
        return self

    @property
    def ratio_db(self) -> float:
        if self.noise == 0.0:
            return math.inf
        return 10.0 * math.log10(self.signal / self.noise) if self.signal > 0.0 else -math.inf


@displayed
@dataclass(frozen=True)
class SqnrRow:
    """What quantisation costs one operand, or one module.

    Attributes:
        module: path of the module.
        operator: position of the operator in the module's forward; −1 for the module's output.
        role: role of the operand; ``output`` for the module's output.
        format: its format.
        scales: how it is scaled: granularity and when scales are found.
        sqnr_db: of an operand, signal over its own rounding error; of an output, over all that quantisation did up to there.
        clipped: share of the elements beyond the format's range; NaN where it has no scale, or for outputs.
    """

    module: str
    operator: int
    role: str
    format: str
    scales: str
    sqnr_db: float
    clipped: float = math.nan


@displayed
@dataclass(frozen=True)
class SqnrReport:
    """Rows for every operand that is rounded, then for every module without parts."""

    rows: tuple[SqnrRow, ...]

    def to_rows(self) -> list[dict[str, Any]]:
        """Plain data, one mapping a row."""
        return [asdict(row) for row in self.rows]

    def of(self, role: str) -> dict[str, float]:
        """Module → SQNR in dB, of the first operand of a role (or of the ``output``) in each module."""
        found: dict[str, float] = {}
        for row in self.rows:
            if row.role == role:
                found.setdefault(row.module, row.sqnr_db)
        return found

    def __str__(self) -> str:
        head = ("module", "operand", "format", "scales", "SQNR dB", "clipped")
        lines = [head]
        for row in self.rows:
            operand = row.role if row.operator < 0 else f"{row.operator}.{row.role}"
            clipped = "" if math.isnan(row.clipped) else f"{row.clipped:.2%}"
            lines.append((row.module or "(root)", operand, row.format, row.scales, f"{row.sqnr_db:.1f}", clipped))
        widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
        return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def sqnr(emulation: Emulation, batches: Iterable[Any]) -> SqnrReport:
    """What each operand, and each module's output, loses in the formats of an emulation.

    An operand is compared with what it was just before it was rounded, so that its row shows its own quantiser alone; an output,
    with that of the module in FP32. Both run in evaluation mode without gradients, and leave the emulation as it was.

    Args:
        emulation: what to measure; static scales must be there.
        batches: inputs; each a tensor, a tuple of positional or a mapping of keyword arguments.

    Raises:
        InputError: no batch; a static scale that is missing.
    """
    from numerics.emulation.context import Site
    from numerics.emulation.quantised import quantise

    exact, rounded = with_recipe(emulation, get_recipe("fp32")), with_recipe(emulation, emulation.recipe)
    # Quantises once more what the observer is shown; an emulation cannot look at itself.
    context = with_recipe(emulation, emulation.recipe)._context
    operands: dict[OperandKey, _Operand] = {}
    outputs: dict[str, _Powers] = {}

    def look(key: OperandKey, x: torch.Tensor) -> None:
        rule = context.rule(key.recipe_role, key.module)
        if not rule.identity(x.dtype) and key.recipe_role != "accumulator":
            q = quantise(x, rule, Site(context, key.module, key.operator, 0, 0, False), key.role)
            operands.setdefault(key, _Operand(q)).add(x, q)

    seen = False
    for batch in batches:
        seen = True
        wanted = _outputs(exact, batch)
        with rounded.observe(look):
            got = _outputs(rounded, batch)
        for module, tensors in got.items():
            for x, q in zip(wanted[module], tensors, strict=True):
                outputs.setdefault(module, _Powers()).add(x, q)
    if not seen:
        raise InputError("batches: expected at least one, got none")
    rows = [operand.row(key) for key, operand in operands.items()]
    rows += [SqnrRow(module, -1, "output", "", "", powers.ratio_db) for module, powers in outputs.items()]
    return SqnrReport(tuple(rows))


def with_recipe(emulation: Emulation, recipe: Recipe) -> Emulation:
    """A copy of an emulation, in evaluation mode, that computes by another recipe for the same modules."""
    found = copy.deepcopy(emulation).eval()
    found.recipe = found._context.recipe = recipe
    found._context.rules.clear()
    found._context.quiet.clear()
    return found


class _Operand:
    """What is known of one operand so far."""

    def __init__(self, first: Quantised) -> None:
        scaling = first.rule.scaling
        self.format = first.rule.fmt.name
        self.scales = "none" if scaling.granularity == "none" else f"{scaling.granularity}, {scaling.update}"
        self.powers = _Powers()
        self.clipped = self.elements = 0

    def add(self, x: torch.Tensor, quantised: Quantised) -> None:
        self.powers.add(x, quantised.values)
        self.clipped += _beyond(x, quantised)
        self.elements += x.numel()

    def row(self, key: OperandKey) -> SqnrRow:
        share = self.clipped / max(self.elements, 1) if self.scales != "none" else math.nan
        return SqnrRow(*key, self.format, self.scales, self.powers.ratio_db, share)


def run(emulation: Emulation, batch: Any) -> Any:
    """One forward pass without gradients."""
    import torch

    with torch.no_grad():
        if isinstance(batch, Mapping):
            return emulation(**batch)
        return emulation(*batch) if isinstance(batch, tuple | list) else emulation(batch)


def _outputs(emulation: Emulation, batch: Any) -> dict[str, list[torch.Tensor]]:
    """What each module without parts gives out, call by call."""
    import torch

    seen: dict[str, list[torch.Tensor]] = {}

    def catcher(path: str, part: torch.nn.Module) -> Callable[..., None]:
        def catch(module: Any, args: Any, result: Any) -> None:
            if module is not part:
                return  # a copy that lists its operators
            # Hidden from the emulation, which would take it for a part of the module's forward.
            with torch._C.DisableTorchFunction():
                if isinstance(result, torch.Tensor) and result.is_floating_point():
                    seen.setdefault(path, []).append(result.detach().clone())

        return catch

    parts = [(path, part) for path, part in emulation.module.named_modules() if not any(True for _ in part.children())]
    handles = [part.register_forward_hook(catcher(path, part)) for path, part in parts]
    try:
        run(emulation, batch)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _beyond(x: torch.Tensor, quantised: Quantised) -> int:
    """How many elements saturate: integers and fixed-point numbers off by more than half a step, others beyond the last value."""
    fmt, scale = quantised.rule.fmt, quantised.scale
    if scale is None or isinstance(fmt, BlockFormat):
        return 0
    steps = x / scale
    if isinstance(fmt, IntFormat | FixedFormat):
        return int(((steps - quantised.codes).abs() > fmt.step * (0.5 + _SLACK)).sum())
    return int(((steps > fmt.max * (1 + _SLACK)) | (steps < fmt.min * (1 + _SLACK))).sum())
