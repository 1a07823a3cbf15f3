"""Cards of formats with their bits drawn, recipes, emulations, faults and optimizers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from numerics._display import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PINK,
    Html,
    anything,
    attributes,
    bar,
    card,
    curve,
    drawing,
    label_of,
    number,
    plain,
    section,
    spelled,
    table,
)

if TYPE_CHECKING:
    from numerics.emulation.module import Emulation
    from numerics.faults.injection import Injection
    from numerics.faults.maps import FaultMap
    from numerics.format_kinds import BlockFormat, CodebookFormat, FixedFormat, FloatFormat, IntFormat
    from numerics.histogram import Histogram
    from numerics.optimizers import LowPrecisionOptimizer, TrainingBytes
    from numerics.recipes import Recipe

_BOX, _TALL, _WIDEST = 15, 18, 640
_DRAWN_VALUES = 512
"""Values that a number line marks one by one."""

# --- formats ----------------------------------------------------------------------------------------------------------


def float_format(value: FloatFormat, *names: str) -> str:
    """A float format: its bits, its range, its special codes, and where its values lie."""
    fields = [
        ("bits", value.bits if value.bits == value.code_bits else f"{value.code_bits}, stored in {value.bits}"),
        ("largest", value.max),
        ("smallest normal", value.smallest_normal),
        ("smallest subnormal", value.smallest_subnormal if value.subnormals and value.zero else "none"),
        ("gap above 1", value.eps),
        ("exponents", f"{value.emin} to {value.emax}"),
        ("bias", value.bias),
        ("infinities", value.has_inf),
        ("NaN", value.has_nan),
        ("−0", value.has_negative_zero),
        *_more(value, names),
    ]
    runs = [("sign", 1, PINK)] if value.signed else []
    runs += [("exponent", value.exponent_bits, ORANGE), ("mantissa", value.mantissa_bits, BLUE)]
    return card(value.name, fields, _bits(runs), _number_line(value), subtitle="floating-point format")


def stepped_format(value: IntFormat | FixedFormat, *names: str) -> str:
    """An integer or fixed-point format: its bits and its range."""
    fields = [
        ("bits", value.bits),
        ("smallest", value.min),
        ("largest", value.max),
        ("step", value.step),
        ("signed", value.signed),
        ("symmetric", value.symmetric),
        *_more(value, names),
    ]
    first = [("sign", 1, PINK)] if value.signed else []
    whole = value.bits - int(value.signed) - max(value.fraction_bits, 0)
    rest = [("integer", max(whole, 0), GREEN), ("fraction", min(max(value.fraction_bits, 0), value.bits), BLUE)]
    kind = "fixed-point format" if hasattr(value, "integer_bits") else "integer format"
    return card(value.name, fields, _bits([*first, *rest]), subtitle=kind)


def codebook_format(value: CodebookFormat, *names: str) -> str:
    """A codebook: its values."""
    fields = [
        ("bits", value.bits),
        ("codes", len(value.values)),
        ("smallest", value.min),
        ("largest", value.max),
        *_more(value, names),
    ]
    if len(value.values) <= 16:
        fields.append(("values", ", ".join(map(number, value.values))))
    return card(value.name, fields, _number_line(value), subtitle="codebook: codes that stand for listed values")


def block_format(value: BlockFormat, *names: str) -> str:
    """A block format: the element, the scale and the bits of both."""
    fields = [
        ("bits an element", value.bits),
        ("elements a block", value.block_size),
        ("element", value.element.name),
        ("scale", value.scale.name),
        ("scale rounded", value.scale_rounding),
        ("scale of the tensor", "fp32" if value.tensor_scale else "none"),
        ("largest", value.max),
        *_more(value, names),
    ]
    element = getattr(value.element, "code_bits", value.element.bits)
    runs = [("scale", value.scale.code_bits, ORANGE)]
    shown = min(value.block_size, 4)
    runs += [(f"element {i}", element, BLUE if i % 2 else GREEN) for i in range(shown)]
    more = f"… {value.block_size - shown:,} more" if value.block_size > shown else ""
    return card(value.name, fields, _bits(runs, more), subtitle="block format: elements that share a scale")


def _more(value: Any, names: Sequence[str]) -> list[tuple[str, Any]]:
    return [plain(name, getattr(value, name)) for name in names]


def _bits(runs: Sequence[tuple[str, int, str]], more: str = "") -> str:
    """Runs of bits as boxes, the most significant first: (what they hold, how many, colour)."""
    runs = [run for run in runs if run[1]]
    total = sum(bits for _, bits, _ in runs)
    box = min(_BOX, (_WIDEST - 10) / total)
    x, parts = 1.0, []
    for what, bits, colour in runs:
        width = bits * box
        if box >= 8:
            lines = "".join(f"M{x + i * box:.1f} 1v{_TALL}" for i in range(1, bits))
            inner = f'<path d="{lines}" stroke="currentColor" opacity=".35"/>' if lines else ""
        else:
            inner = ""
        parts.append(
            f'<rect x="{x:.1f}" y="1" width="{width:.1f}" height="{_TALL}" fill="{colour}" fill-opacity=".45" '
            f'stroke="currentColor" stroke-opacity=".6"><title>{bits} bits of {escape(what)}</title></rect>{inner}'
        )
        text = f"{bits} {what}" if width > 7 * len(what) + 16 else str(bits)
        parts.append(f'<text x="{x + width / 2:.1f}" y="{_TALL + 14}" text-anchor="middle" fill="currentColor">{text}</text>')
        x += width
    if more:
        parts.append(f'<text x="{x + 8:.1f}" y="14" fill="currentColor">{escape(more)}</text>')
    label = ", ".join(f"{bits} bits of {what}" for what, bits, _ in runs)
    return drawing("".join(parts), x + 8 + 8 * len(more), _TALL + 18, label)


def _number_line(value: FloatFormat | CodebookFormat) -> str:
    """Where the finite values lie; nothing for formats with too many."""
    codes = len(value.values) if hasattr(value, "values") else 1 << value.code_bits
    if codes > _DRAWN_VALUES:
        return ""
    finite = sorted({v for v in map(float, value.table()) if math.isfinite(v)})
    low, high = finite[0], finite[-1]
    if low == high:
        return ""
    width, left = 560, 10
    # A float's values crowd at zero: the positive ones are drawn by their logarithm.
    by_log = high / min((v for v in finite if v > 0), default=high) > 64
    if by_log:
        finite = [v for v in finite if v > 0]
        low = finite[0]
        places = [math.log2(v / low) / math.log2(high / low) for v in finite]
    else:
        places = [(v - low) / (high - low) for v in finite]
    ticks = "".join(f"M{left + place * width:.1f} 4v12" for place in places)
    text = 'fill="currentColor" opacity=".75"'
    how = "positive values, by their logarithm" if by_log else "values"
    body = (
        f'<path d="M{left} 10h{width}" stroke="currentColor" opacity=".35"/><path d="{ticks}" stroke="{BLUE}"/>'
        f'<text x="{left}" y="30" {text}>{number(low)}</text>'
        f'<text x="{left + width / 2}" y="30" text-anchor="middle" {text}>{how}</text>'
        f'<text x="{left + width}" y="30" text-anchor="end" {text}>{number(high)}</text>'
    )
    return drawing(body, width + 2 * left, 34, f"{len(finite)} {how} from {number(low)} to {number(high)}")


# --- recipes and emulation --------------------------------------------------------------------------------------------


def recipe(value: Recipe, *names: str) -> str:
    """A recipe: the format of each role, and the exceptions."""
    from numerics.recipes import ROLES

    rows = []
    for role in ROLES:
        scaling = value.scaling_for(role) if role != "accumulator" else None
        rounding = value.rounding_for(role) if role != "accumulator" else ""
        rows.append(
            {
                "role": label_of(role),
                "format": value.format_for(role),
                "given": "yes" if role in value.formats else "",
                "scales": "" if scaling is None else scaling.granularity,
                "rounding": rounding,
            }
        )
    fields: dict[str, Any] = {
        "sums": "by the library" if value.accumulation is None else value.accumulation,
        "gradients through quantisers": value.gradient_estimator,
        "loss scaling": value.loss_scaling,
        "compensated updates": value.compensated,
    }
    if value.first_and_last is not None:
        fields["first and last module"] = ", ".join(f"{role}: {fmt}" for role, fmt in value.first_and_last.items())
    exceptions = [
        {"modules": each.pattern, "formats": ", ".join(f"{role}: {fmt}" for role, fmt in each.formats.items())}
        for each in value.overrides[:12]
    ]
    except_for = section("except in", (), table(exceptions, total=len(value.overrides))) if exceptions else ""
    parts = (table(rows, most=len(rows)), except_for)
    return card(value.name, [*fields.items(), *_more(value, names)], *parts, subtitle="recipe: number formats by role")


def emulation(value: Emulation, *names: str) -> str:
    """An emulated module: what is computed in the recipe's formats, and what is not."""
    operators = value.operators
    rows = [
        {
            "module": row.module or "(root)",
            "operator": row.kind,
            "formats": row.formats,
            "sums": row.sums,
            "gradients": row.gradients,
            "emulated": ("yes" if row.emulated else f"no: {row.reason}") + ("" if row.seen else " (expected)"),
        }
        for row in operators[:20]
    ]
    count = sum(parameter.numel() for parameter in value.parameters())
    fields = [
        ("module", type(value.module).__name__),
        ("recipe", value.recipe.name),
        ("parameters", count),
        ("operators", len(operators)),
        ("emulated", sum(row.emulated for row in operators)),
        *_more(value, names),
    ]
    return card("Emulation", fields, table(rows, most=20, total=len(operators)), subtitle="computes in the recipe's formats")


# --- faults -----------------------------------------------------------------------------------------------------------


def fault_map(value: FaultMap, *names: str) -> str:
    """A fault map: how many bits fail in which way, and which bits of a code they are."""
    import numpy as np

    kinds = (("stuck at 0", value.clear), ("stuck at 1", value.set), ("inverted", value.flip))
    fields = [("faulty bits", value.bits_affected), ("elements hit", len(value))]
    fields += [(name, int(np.bitwise_count(mask).sum())) for name, mask in kinds]
    masks = value.clear | value.set | value.flip
    counts = [int(((masks >> np.uint64(bit)) & np.uint64(1)).sum()) for bit in range(64)]
    top = max((bit for bit, count in enumerate(counts) if count), default=-1)
    picture = (
        _columns(counts[: top + 1], "faulty bits by their place in the code, the least significant first") if top >= 0 else ""
    )
    first = [
        {"element": int(element), **{name: f"{int(mask[i]):#x}" for name, mask in kinds if mask[i]}}
        for i, element in enumerate(value.elements[:6])
    ]
    parts = (picture, table(first, columns=("element", *(name for name, _ in kinds)), total=len(value)) if first else "")
    return card("Fault map", [*fields, *_more(value, names)], *parts, subtitle="the faulty bits of one tensor")


def _columns(counts: Sequence[int], label: str) -> str:
    """Counts as columns, and the number of each below."""
    width, height = 18.0, 60.0
    most = max(counts) or 1
    parts = []
    for i, count in enumerate(counts):
        tall = height * count / most
        box = f'x="{i * width + 2:.0f}" y="{4 + height - tall:.1f}" width="{width - 4:.0f}" height="{tall:.1f}"'
        parts.append(
            f'<rect {box} fill="{BLUE}">'
            f"<title>{i}: {count:,}</title></rect>"
            f'<text x="{i * width + width / 2:.0f}" y="{height + 17:.0f}" text-anchor="middle" fill="currentColor">{i}</text>'
        )
    caption = f'<text x="2" y="{height + 31:.0f}" fill="currentColor" opacity=".75">{escape(label)}</text>'
    return drawing("".join(parts) + caption, max(len(counts) * width, 7 * len(label)), height + 36, label)


def injection(value: Injection, *names: str) -> str:
    """Faults at work: the models, and the tensors that they hit."""
    rows = [
        {
            "pass": hit.pass_number,
            "operand": str(hit.key),
            "faulty bits": hit.faulty_bits,
            "corrected": hit.corrected,
            "detected": hit.detected,
        }
        for hit in value.hits[:12]
    ]
    fields = [
        ("faulty bits", value.faulty_bits),
        ("corrected words", value.corrected),
        ("detected words", value.detected),
        ("seed", value.seed),
        *((f"model {i}", model) for i, model in enumerate(value.faults[:8], 1)),
        *((f"protection {i}", model) for i, model in enumerate(value.protections[:8], 1)),
        *_more(value, names),
    ]
    return card("Injection", fields, table(rows, total=len(value.hits)), subtitle="faults at work in an emulated module")


# --- the rest ---------------------------------------------------------------------------------------------------------


def histogram(value: Histogram, *names: str) -> str:
    """A histogram: its counts as a picture, over the bins that hold anything."""
    import numpy as np

    fields = [("values", value.total), ("zeros", value.zeros), ("bins a side", value.bins), ("width of a bin", value.width)]
    fields += [("smallest", value.low), ("largest", value.high), *_more(value, names)]
    taken = np.nonzero(value.counts)[0]
    picture = ""
    if taken.size:
        first, last = int(taken[0]), int(taken[-1]) + 1
        pieces = np.array_split(value.counts[first:last], min(last - first, 120))
        counts = [float(piece.sum()) for piece in pieces]
        ends = (number((first - value.bins) * value.width), number((last - value.bins) * value.width), "0", number(max(counts)))
        picture = curve(range(len(counts)), counts, "how often each value was seen", ends=ends)
    return card("Histogram", fields, picture, subtitle="counts of a tensor's values in bins of equal width")


def optimizer(value: LowPrecisionOptimizer, *names: str) -> str:
    """An optimizer: its groups, and what it keeps in which format."""
    rows = []
    for group in value.param_groups[:8]:
        settings = {key: entry for key, entry in group.items() if key not in ("params", "param_names")}
        rows.append({"parameters": sum(p.numel() for p in group["params"]), **settings})
    kept = {role: bytes_ for role, bytes_ in (value.state_bytes().by_role if value.param_groups else {}).items() if bytes_}
    fields = [("recipe", value.recipe.name), ("compensated", value.compensated), *_more(value, names)]
    memory = section("bytes", [(label_of(role), size) for role, size in kept.items()]) if kept else ""
    return card(type(value).__name__, fields, table(rows, total=len(value.param_groups)), memory, subtitle="optimizer")


def training_bytes(value: TrainingBytes, *names: str) -> str:
    """Bytes of training, by role."""
    rows = [
        {"role": label_of(role), "bytes": size, "": bar(size / value.total if value.total else 0.0, colour=GREY)}
        for role, size in value.by_role.items()
    ]
    fields = [("bytes", value.total), ("parameters", value.parameters), ("bytes a parameter", value.per_parameter)]
    return card("Training bytes", [*fields, *_more(value, names)], table(rows))


def iterations(value: Any, *names: str) -> str:
    """An iterative solution: its fields, and how the error fell."""
    found = attributes(value, *names)
    for name in ("true_residual_norms", "residual_norms", "backward_errors"):
        errors = found.get(name) or ()
        if len(errors) > 1:
            fields, parts = spelled({key: entry for key, entry in found.items() if key != name})
            positive = [error for error in errors if error > 0] or [1.0]
            ends = ("0", str(len(errors) - 1), number(min(positive)), number(max(positive)))
            picture = curve(range(len(errors)), errors, label_of(name), ends=ends, log_y=True)
            caption = Html(f'<div style="opacity:.65">{escape(label_of(name))}, by its logarithm, after each iteration</div>')
            return card(type(value).__name__, fields, picture, caption, *parts)
    return anything(value, *names)
