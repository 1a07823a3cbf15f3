"""Chains of operators that run tile by tile, so that what lies between them needs the memory of one tile only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from hwsim.operators import Convolution, Elementwise, Matmul, Normalization, Op, Softmax
from hwsim.planning.buffers import Buffer
from hwsim.views.display import displayed
from hwsim.workload import Workload
from numerics.errors import InputError


@displayed
@dataclass(frozen=True, kw_only=True)
class Tiling:
    """How much of a chain is done at a time; None leaves chains of that kind as they are.

    Attributes:
        heads: heads of an attention (matrices of a batch): scores, softmax and weighted values.
        tokens: rows of a chain of products with weights, such as the two of an MLP.
        image_rows: output rows of a chain of convolutions; lines that the next step needs again are kept.
        span: which operators a chain of products takes in. ``products``: from its first product to its last, with what lies
            between them reading weights only; ``rows``: every operator that works row by row, normalisations and residuals too.

    Raises:
        InputError: a size that is no integer of one or above, an unknown span.
    """

    heads: int | None = None
    tokens: int | None = None
    image_rows: int | None = None
    span: Literal["products", "rows"] = "products"

    def __post_init__(self) -> None:
        for name in ("heads", "tokens", "image_rows"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise InputError(f"tiling: {name}: expected an integer ≥ 1 or None, got {value!r}")
        if self.span not in ("products", "rows"):
            raise InputError(f"tiling: span: expected 'products' or 'rows', got {self.span!r}")


@displayed
@dataclass(frozen=True)
class Chain:
    """Operators ``first`` to ``last`` run tile by tile.

    Attributes:
        kind: ``heads``, ``tokens`` or ``image_rows``.
        first, last: indices of the operators.
        tiles: how many tiles there are.
        sizes: memory owner between the operators → bytes of one tile of it.
        lasting: those of ``sizes`` that stay from one tile to the next (lines of an image).
        result: memory owner of what the chain makes.
        over: memory owners that its result may overwrite tile by tile.
    """

    kind: str
    first: int
    last: int
    tiles: int
    sizes: Mapping[str, int]
    lasting: frozenset[str]
    result: str
    over: tuple[str, ...] = ()


def chains_at(workload: Workload, start: int, tiling: Tiling) -> list[Chain]:
    """The chains that begin with operator ``start``, the longest first; each of them may be taken or left."""
    for build in (_heads, _tokens, _images):
        found = build(workload, start, tiling)
        if found:
            return found
    return []


def tiled(buffers: Mapping[str, Buffer], chain: Chain) -> dict[str, Buffer]:
    """Buffers with those inside the chain cut to one tile, and those around it alive during all of it."""
    found = dict(buffers)
    for name, buffer in buffers.items():
        if name in chain.sizes:
            size = min(buffer.bytes, chain.sizes[name])
            lasts = name in chain.lasting
            first, last = (chain.first, chain.last) if lasts else (buffer.first, buffer.last)
            found[name] = replace(buffer, bytes=size, first=first, last=last)
        elif buffer.first <= chain.last and chain.first <= buffer.last:
            found[name] = replace(buffer, first=min(buffer.first, chain.first), last=max(buffer.last, chain.last))
    return found


# --- finding them ---------------------------------------------------------------------------------------------------------


def _extend(workload: Workload, start: int, joins: Callable[[Op, set[str]], bool]) -> int:
    """Index of the last operator of the run from ``start`` in which each reads what the run made and ``joins``."""
    made = {workload.tensors[t].owner for t in workload.ops[start].outputs}
    last = start
    for index in range(start + 1, len(workload.ops)):
        op = workload.ops[index]
        if not {workload.tensors[t].owner for t in op.inputs} & made or not joins(op, made):
            break
        made |= {workload.tensors[t].owner for t in op.outputs}
        last = index
    return last


def _between(workload: Workload, first: int, last: int) -> list[str]:
    """Memory owners that are written and used up within the operators, in order; what the last one writes is not."""
    results = {workload.tensors[t].owner for t in workload.ops[last].outputs}
    owners: dict[str, None] = {}
    for op in workload.ops[first : last + 1]:
        for name in op.outputs:
            owner = workload.tensors[name].owner
            born, dies = workload.lifetimes[owner]
            if born >= first and dies <= last and owner not in results:
                owners[owner] = None
    return list(owners)


def _dying(workload: Workload, first: int, last: int, result: str) -> tuple[str, ...]:
    """Tensors from outside, as large as the result, that are read within the operators row by row and for the last time."""
    size = workload.tensors[result].bytes
    found: dict[str, bool] = {}
    for op in workload.ops[first : last + 1]:
        for name in op.inputs:
            owner = workload.tensors[name].owner
            seen = workload.tensors[name]
            born, dies = workload.lifetimes[owner]
            in_rows = not isinstance(op, Matmul) or (seen.shape[-1:] == (op.k,) and name == op.inputs[0])
            if born < first and dies <= last and workload.tensors[owner].bytes == size == seen.bytes:
                found[owner] = found.get(owner, True) and in_rows
    return tuple(owner for owner, in_rows in found.items() if in_rows)


def _result(workload: Workload, last: int) -> str:
    return workload.tensors[workload.ops[last].outputs[0]].owner


def _heads(workload: Workload, start: int, tiling: Tiling) -> list[Chain]:
    """Batched products with element-wise operators and softmax between them (attention written out)."""
    op = workload.ops[start]
    if tiling.heads is None or not isinstance(op, Matmul) or op.batch <= tiling.heads:
        return []
    batch, rows, width = op.batch, op.batch * op.m, op.n

    def joins(other: Op, made: set[str]) -> bool:
        if isinstance(other, Matmul):
            left = workload.tensors[other.inputs[0]].owner in made
            return left and other.batch == batch and other.m == op.m and other.k == width
        if isinstance(other, Softmax):
            return other.aligned and other.rows == rows
        return isinstance(other, Elementwise) and other.aligned and other.elements == rows * width

    last = start
    for index in range(start + 1, _extend(workload, start, joins) + 1):
        if isinstance(workload.ops[index], Matmul):
            last = index
            break
    if last == start:
        return []
    tiles = -(-batch // tiling.heads)
    sizes = {o: -(-workload.tensors[o].bytes // batch) * tiling.heads for o in _between(workload, start, last)}
    result = _result(workload, last)
    return [Chain("heads", start, last, tiles, sizes, frozenset(), result, _queries(workload, start, last, result))]


def _queries(workload: Workload, first: int, last: int, result: str) -> tuple[str, ...]:
    """The memory of the first operand, if the result may go over it: head by head, where operands do not overlap."""
    queries = workload.tensors[workload.ops[first].inputs[0]]
    held = workload.tensors[queries.owner]
    names = {t for op in workload.ops[first : last + 1] for t in op.inputs if workload.tensors[t].owner == queries.owner}
    inside = sum(workload.tensors[name].bytes for name in names)
    born, dies = workload.lifetimes[queries.owner]
    fits = queries.bytes == workload.tensors[result].bytes and inside <= held.bytes
    return (queries.owner,) if fits and born < first and dies <= last else ()


def _tokens(workload: Workload, start: int, tiling: Tiling) -> list[Chain]:
    """Products with weights that follow one another on the same rows."""
    if tiling.tokens is None:
        return []
    op = workload.ops[start]
    wide = tiling.span == "rows"
    rows = op.m if isinstance(op, Matmul) and op.batch == 1 and _by_weight(workload, op) else 0
    if wide and isinstance(op, Normalization) and op.operation in ("layer_norm", "rms_norm"):
        rows = op.rows
    if rows <= tiling.tokens:
        return []

    def joins(other: Op, made: set[str]) -> bool:
        outside = [workload.tensors[t] for t in other.inputs if workload.tensors[t].owner not in made]
        if not wide and any(t.role != "weight" for t in outside):
            return False
        if isinstance(other, Matmul):
            follows = workload.tensors[other.inputs[0]].owner in made and _by_weight(workload, other)
            return follows and other.batch == 1 and other.m == rows
        if isinstance(other, Softmax) or (wide and isinstance(other, Normalization)):
            return other.rows == rows and getattr(other, "aligned", True)
        if not isinstance(other, Elementwise) or not other.aligned or other.elements % rows:
            return False
        return all(t.role == "weight" or t.elements == other.elements for t in outside)

    end = _extend(workload, start, joins)
    products = [i for i in range(start, end + 1) if isinstance(workload.ops[i], Matmul)]
    if not products:
        return []
    found = []
    for last in range(end, start, -1) if wide else products[:0:-1]:
        between = _between(workload, start, last)
        if products[0] <= last and between:
            sizes = {o: -(-workload.tensors[o].bytes // rows) * tiling.tokens for o in between}
            result = _result(workload, last)
            over = _dying(workload, start, last, result)
            found.append(Chain("tokens", start, last, -(-rows // tiling.tokens), sizes, frozenset(), result, over))
    return found


def _by_weight(workload: Workload, op: Matmul) -> bool:
    """Whether the product is one of values with a weight, so that a row of the result needs a row of the values."""
    left, right = (workload.tensors[t] for t in op.inputs[:2])
    return right.role == "weight" and left.role != "weight"


def _images(workload: Workload, start: int, tiling: Tiling) -> list[Chain]:
    """Convolutions in sequence, with element-wise operators and batch normalisation between them."""
    op = workload.ops[start]
    if tiling.image_rows is None or not isinstance(op, Convolution) or op.computes != "output" or op.batch != 1:
        return []

    def joins(other: Op, made: set[str]) -> bool:
        reads = [workload.tensors[t] for t in other.inputs]
        if any(t.owner not in made and t.role not in ("weight", "state") for t in reads):
            return False
        if isinstance(other, Convolution):
            return other.computes == "output" and other.batch == 1 and reads[0].owner in made
        if isinstance(other, Normalization):
            return other.operation == "batch_norm"
        return isinstance(other, Elementwise) and other.aligned

    end = _extend(workload, start, joins)
    found = []
    for last in range(end, start, -1):
        final = workload.ops[last]
        if isinstance(final, Convolution) and final.output_size[0] > tiling.image_rows:
            sizes = _lines(workload, start, last, tiling.image_rows)
            if sizes:
                tiles = -(-final.output_size[0] // tiling.image_rows)
                found.append(Chain("image_rows", start, last, tiles, sizes, frozenset(sizes), _result(workload, last)))
    return found


def _lines(workload: Workload, start: int, last: int, rows: int) -> dict[str, int]:
    """Memory owner inside a chain of convolutions → bytes of the lines kept of it, for ``rows`` rows of the result at a time.

    From the result back: ``fresh`` rows of an operator's result take (fresh − 1)·stride + (kernel − 1)·dilation + 1 rows of what
    it reads, of which fresh·stride are new each time.
    """
    between = set(_between(workload, start, last))
    sizes: dict[str, int] = {}
    kept = fresh = rows
    for index in range(last, start, -1):
        op = workload.ops[index]
        if isinstance(op, Convolution):
            kept = (fresh - 1) * op.stride[0] + (op.kernel[0] - 1) * op.dilation[0] + 1
            fresh = fresh * op.stride[0]
        owner = _made(workload, index - 1)
        if owner not in between:
            continue
        height = _height(workload, index - 1)
        sizes[owner] = -(-workload.tensors[owner].bytes // height) * min(height, max(kept, fresh))
    return sizes


def _made(workload: Workload, index: int) -> str:
    return workload.tensors[workload.ops[index].outputs[0]].owner


def _height(workload: Workload, index: int) -> int:
    """Rows of the image that an operator of a chain of convolutions makes: those of the last convolution before it."""
    while not isinstance(op := workload.ops[index], Convolution):
        index -= 1
    return op.output_size[0]
