"""SCALE-Sim topology files, read and written: convolutions one a row, or matmuls as M, N, K.

The formats are those of SCALE-Sim 3.0.0 (``scalesim/topology_utils.py``) and of the topologies its
repository ships:

- convolutions: ``Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter,
  Strides,``;
- matmuls: ``Layer, M, N, K,``.

Both may carry a ``Sparsity`` column (``N:M``, N of every M weights are not zero) and a ``Batch Size``
column; convolutions may have two stride columns (``Stride height, Stride width``), as SCALE-Sim itself
writes them. A layer whose name contains ``DP`` is depth-wise: every channel is convolved on its own with
the row's number of filters.

The IFMAP includes its padding. SCALE-Sim counts output positions as ``ceil((IFMAP − filter + stride) /
stride)``: where the stride does not divide evenly, the last position reaches past the edge. Such a layer is
loaded with as much padding after the input as that position needs, so that its output size and MACs are
SCALE-Sim's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Literal

from hwsim.operators import Convolution, Matmul, Op
from hwsim.workload import Tensor, Workload, chain
from numerics.errors import InputError, unknown_name

CONV_COLUMNS = (
    "Layer name",
    "IFMAP Height",
    "IFMAP Width",
    "Filter Height",
    "Filter Width",
    "Channels",
    "Num Filter",
    "Strides",
)
GEMM_COLUMNS = ("Layer", "M", "N", "K")
DEPTHWISE_MARK = "DP"
FORMS = ("conv", "gemm")
_LARGEST_BLOCK = 64
"""The largest M of an N:M ratio that ``write`` looks for behind a density."""

_CONV_HEADER = ("layer", "ifmap", "ifmap", "filter", "filter", "channel", "num", "stride")
_RATIO = re.compile(r"^(\d+)\s*:\s*(\d+)$")


def output_positions(size: int, kernel: int, stride: int) -> int:
    """Output positions along one dimension, as SCALE-Sim's ``topo_calc_hyperparams`` counts them."""
    return -(-(size - kernel + stride) // stride)


@dataclass(frozen=True)
class _Header:
    form: Literal["conv", "gemm"]
    columns: tuple[str, ...]
    strides: int = 1
    extra: dict[str, int] = field(default_factory=dict)
    """Optional column ("sparsity", "batch") → its position."""

    @property
    def required(self) -> int:
        """Columns that every row must have."""
        return len(GEMM_COLUMNS) if self.form == "gemm" else len(CONV_COLUMNS) - 1 + self.strides


def load(path: str | Path) -> Workload:
    """The layers of a SCALE-Sim topology file, as independent operators.

    Blank lines, trailing commas, spaces and comments after a ``#`` are skipped. A layer name that was used
    before gets the suffix ``_2``, ``_3``, …

    Args:
        path: a convolution or a GEMM topology; its header line tells which.

    Raises:
        InputError: the file cannot be read, its header is not a topology's, or a row has a wrong number of
            columns, a value that is not an integer ≥ 1, or a filter larger than its input. The message gives
            the line.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None

    header: _Header | None = None
    layers: list[Matmul | Convolution] = []
    densities: dict[str, float] = {}
    names: set[str] = set()
    for number, line in enumerate(lines, 1):
        fields = _fields(line)
        if not fields:
            continue
        where = f"{path}, line {number}"
        if header is None:
            header = _parse_header(fields, where)
            continue
        layer, density = _parse_row(fields, header, where)
        name = _unused(layer.name, names)
        names.add(name)
        layers.append(replace(layer, name=name))
        if density is not None:
            densities[f"{name}.weight"] = density
    if not layers or header is None:
        raise InputError(f"{path}: no layers; expected {_expected_headers()}, then one layer a line")

    metadata = {"source": path.name, "form": header.form}
    workload = chain(path.stem, layers, metadata=metadata)
    if not densities:
        return workload
    tensors = {n: replace(t, density=densities.get(n, t.density)) for n, t in workload.tensors.items()}
    return replace(workload, tensors=tensors)


def _fields(line: str) -> list[str]:
    fields = [text.strip() for text in line.split(",")]
    for index, text in enumerate(fields):
        if text.startswith("#"):
            fields = fields[:index]
            break
    while fields and not fields[-1]:
        fields.pop()
    return fields


def _expected_headers() -> str:
    return f"'{', '.join(CONV_COLUMNS)},' or '{', '.join(GEMM_COLUMNS)},'"


def _parse_header(fields: Sequence[str], where: str) -> _Header:
    words = [" ".join(text.lower().split()) for text in fields]
    strides = 1
    form: Literal["conv", "gemm"]
    if words[0].startswith("layer") and words[1:4] == ["m", "n", "k"]:
        form, used = "gemm", len(GEMM_COLUMNS)
    elif len(words) >= len(_CONV_HEADER) and all(w.startswith(p) for w, p in zip(words, _CONV_HEADER, strict=False)):
        form, used = "conv", len(CONV_COLUMNS)
        if len(words) > used and words[used].startswith("stride"):
            strides, used = 2, used + 1
    else:
        raise InputError(f"{where}: unknown header {', '.join(fields)!r}; expected {_expected_headers()}")
    extra: dict[str, int] = {}
    for position, word in enumerate(words[used:], used):
        kind = next((kind for kind in ("sparsity", "batch") if word.startswith(kind)), None)
        if kind is None or kind in extra:
            raise InputError(
                f"{where}: unknown column {fields[position]!r} (number {position + 1}); "
                "after the layer's sizes only 'Sparsity' and 'Batch Size' are known"
            )
        extra[kind] = position
    return _Header(form, tuple(fields), strides, extra)


def _parse_row(fields: list[str], header: _Header, where: str) -> tuple[Matmul | Convolution, float | None]:
    extra = dict(header.extra)
    if "sparsity" not in extra and len(fields) == len(header.columns) + 1 and _RATIO.match(fields[-1]):
        # SCALE-Sim finds the ratio by its position, whether or not the header names it.
        extra["sparsity"] = len(header.columns)
    most = max([header.required, *(position + 1 for position in extra.values())])
    if not header.required <= len(fields) <= most:
        wanted = str(most) if most == header.required else f"{header.required} to {most}"
        raise InputError(f"{where}: {len(fields)} columns; expected {wanted}: {', '.join(header.columns)}")
    name = fields[0]
    if not name:
        raise InputError(f"{where}, column {header.columns[0]!r}: the layer has no name")

    def integer(position: int) -> int:
        column, text = header.columns[position], fields[position]
        value = int(text) if re.fullmatch(r"[+-]?[0-9]+", text) else 0
        if value < 1:
            raise InputError(f"{where}, column {column!r}: {text!r} is not an integer ≥ 1 (layer {name!r})")
        return value

    def optional(kind: str) -> str:
        position = extra.get(kind)
        return fields[position] if position is not None and position < len(fields) else ""

    sizes = [integer(position) for position in range(1, header.required)]
    batch = integer(extra["batch"]) if optional("batch") else 1
    density = _parse_density(optional("sparsity"), name, where)
    if header.form == "gemm":
        m, n, k = sizes
        return Matmul(name=name, m=m, n=n, k=k, batch=batch, source="scalesim.gemm"), density
    return _convolution(name, sizes, batch, where), density


def _parse_density(text: str, name: str, where: str) -> float | None:
    if not text:
        return None
    ratio = _RATIO.match(text)
    if ratio is None or not 1 <= int(ratio[1]) <= int(ratio[2]):
        raise InputError(f"{where}, column 'Sparsity': {text!r} is not a ratio N:M with 1 ≤ N ≤ M (layer {name!r})")
    if ratio[1] == ratio[2]:
        return None
    return int(ratio[1]) / int(ratio[2])


def _convolution(name: str, sizes: Sequence[int], batch: int, where: str) -> Convolution:
    height, width, filter_height, filter_width, channels, filters, *strides = sizes
    size, kernel, stride = (height, width), (filter_height, filter_width), (strides[0], strides[-1])
    for axis, side in enumerate(("Height", "Width")):
        if kernel[axis] > size[axis]:
            raise InputError(
                f"{where}, column 'Filter {side}': {kernel[axis]} is larger than the IFMAP {side} {size[axis]} (layer {name!r})"
            )
    output = tuple(output_positions(*one) for one in zip(size, kernel, stride, strict=True))
    reached = ((o - 1) * s + k for o, s, k in zip(output, stride, kernel, strict=True))
    depthwise = DEPTHWISE_MARK in name
    return Convolution(
        name=name,
        batch=batch,
        in_channels=channels,
        out_channels=channels * filters if depthwise else filters,
        input_size=size,
        output_size=output,
        kernel=kernel,
        stride=stride,
        padding=tuple((0, max(0, reach - have)) for reach, have in zip(reached, size, strict=True)),
        dilation=(1, 1),
        groups=channels if depthwise else 1,
        source="scalesim.conv",
    )


def _unused(name: str, names: set[str]) -> str:
    unused, count = name, 1
    while unused in names:
        count += 1
        unused = f"{name}_{count}"
    return unused


def write(workload: Workload, path: str | Path, *, form: Literal["conv", "gemm"] = "conv") -> list[str]:
    """Write the matmuls and convolutions of ``workload`` as a SCALE-Sim topology file.

    A weight's ``density`` that is a ratio of small integers becomes the ``Sparsity`` column; other
    densities are dense to SCALE-Sim. Attention is written as the matmuls it consists of.

    Args:
        workload: what to write.
        path: the file.
        form: ``"conv"`` writes a matmul as a 1×1 convolution of an M×1 input and a one-dimensional
            convolution with width 1; padding is folded into the IFMAP, which is cut to what the layer
            reads; a batch is one row a matrix or image; depth-wise convolutions get ``DP`` into their name.
            ``"gemm"`` writes a convolution as the matmul of its unrolled operands, one row a group; it has
            room for every convolution.

    Returns:
        Names of the operators left out. They do no MACs (activations, normalisations, copies), so the
        file's MACs are the workload's.

    Raises:
        InputError: unknown form, no operator with MACs, or a convolution that the ``conv`` form has no
            columns for (dilation, several groups that are not depth-wise, two different strides, three
            dimensions, gradients).
    """
    if form not in FORMS:
        raise unknown_name("form", str(form), FORMS)
    rows: list[tuple[str, str]] = []
    left_out: list[str] = []
    for op in workload.expanded().ops:
        if isinstance(op, Matmul):
            sizes = [op.m, op.n, op.k] if form == "gemm" else [op.m, 1, 1, 1, op.k, op.n, 1]
            repeated, name = op.batch, op.name
        elif isinstance(op, Convolution) and form == "gemm":
            repeated, *sizes = op.matmul_dims
            name = op.name
        elif isinstance(op, Convolution):
            repeated, name, sizes = op.batch, *_conv_row(op)
        else:
            left_out.append(op.name)
            continue
        if form == "conv" and not (isinstance(op, Convolution) and op.groups > 1):
            name = name.replace(DEPTHWISE_MARK, DEPTHWISE_MARK.title())
        name = re.sub(r"[,#\r\n]", "_", name.strip())
        ratio = _ratio(workload.tensors[op.inputs[1]]) if len(op.inputs) > 1 else ""
        for index in range(repeated):
            unique = name if repeated == 1 else f"{name}.{index}"
            rows.append((", ".join([unique, *map(str, sizes)]), ratio))
    if not rows:
        raise InputError(f"workload {workload.name!r}: no matmul or convolution to write")

    columns = CONV_COLUMNS if form == "conv" else GEMM_COLUMNS
    sparse = any(ratio for _, ratio in rows)
    lines = [", ".join(columns) + (", Sparsity," if sparse else ",")]
    lines += [f"{row}, {ratio or '1:1'}," if sparse else f"{row}," for row, ratio in rows]
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return left_out


def _ratio(weight: Tensor) -> str:
    if weight.density is None or not 0 < weight.density < 1:
        return ""
    ratio = Fraction(weight.density).limit_denominator(_LARGEST_BLOCK)
    return f"{ratio.numerator}:{ratio.denominator}" if float(ratio) == weight.density else ""


def _conv_row(op: Convolution) -> tuple[str, list[int]]:
    def refuse(op: Op, why: str) -> InputError:
        return InputError(f"op {op.name!r}: {why}, which SCALE-Sim's conv form cannot say; form='gemm' can")

    if op.computes != "output":
        raise refuse(op, f"the convolution computes its {op.computes}")
    if len(op.kernel) > 2:
        raise refuse(op, f"the convolution has {len(op.kernel)} spatial dimensions")
    if any(d != 1 and k > 1 for d, k in zip(op.dilation, op.kernel, strict=True)):
        raise refuse(op, f"dilation {op.dilation}")
    if op.groups not in (1, op.in_channels):
        raise refuse(op, f"{op.groups} groups of {op.in_channels // op.groups} channels")
    # Where there is one position along a dimension, its stride is never taken.
    taken = {s for s, positions in zip(op.stride, op.output_size, strict=True) if positions > 1}
    if len(taken) > 1:
        raise refuse(op, f"stride {op.stride}")
    stride = taken.pop() if taken else op.stride[0]

    ifmap = []
    for size, (before, after), kernel, positions in zip(op.input_size, op.padding, op.kernel, op.output_size, strict=True):
        reached = (positions - 1) * stride + kernel
        choices = [size + before + after, reached]
        if before == 0:
            choices.insert(0, size)
        ifmap.append(next(c for c in choices if c >= kernel and output_positions(c, kernel, stride) == positions))
    kernel_size = list(op.kernel)
    if len(ifmap) == 1:
        ifmap, kernel_size = [*ifmap, 1], [*kernel_size, 1]

    depthwise = op.groups > 1
    name = op.name
    if depthwise and DEPTHWISE_MARK not in name:
        name = f"{name}_{DEPTHWISE_MARK}"
    filters = op.out_channels // op.groups
    return name, [*ifmap, *kernel_size, op.in_channels, filters, stride]
