"""Operators of a workload: loop nests with named dimensions, one frozen dataclass a kind.

Conventions, said once: a MAC is one multiply and one add into an accumulator; FLOPs are 2·MACs (``FLOPS_PER_MAC``).
Sizes are element counts, never bytes. An operator names the tensors it reads (``inputs``) and writes (``outputs``) in the
order its kind documents.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, ClassVar, Literal

from hwsim.operations import operation_names, primitive_counts
from hwsim.views.display import displayed, displayed_by
from numerics.errors import InputError, unknown_name
from numerics.formats import formats_text, get_format

FLOPS_PER_MAC = 2
"""The one place that says what a FLOP is: a multiply-accumulate counts as two."""

LARGEST = 2**56
"""Of a size of an operator, the elements of a tensor and the work of an operator: beyond any machine's year."""
MOST = 2**60
"""Of a workload's work or bytes in all: what the models count of them stays within 64 bits."""

Phase = Literal["forward", "backward", "update"]
PHASES: tuple[Phase, ...] = ("forward", "backward", "update")

OPERATORS: dict[str, type[Op]] = {}
"""Kind → class, filled as the classes below are defined; the JSON form names the kind."""


@displayed
@dataclass(frozen=True)
class OpFormats:
    """The number formats an operator computes in: one for each input (as consumed), and the accumulator's."""

    operands: tuple[str, ...]
    accumulator: str

    def __str__(self) -> str:
        return formats_text(self.operands[:2], self.accumulator)


@displayed_by("hwsim.views.cards:operator")
@dataclass(frozen=True, kw_only=True)
class Op:
    """What every operator carries.

    Attributes:
        name: unique in its workload.
        inputs: names of the tensors read.
        outputs: names of the tensors written.
        module: path of the module the operator came from ("" for a plain function).
        phase: ``forward``, ``backward`` or ``update`` (the optimizer's step).
        source: the operator of the framework or file it stands for (``aten.addmm``, ``onnx.Gemm``).
        formats: what it computes in, once a recipe was applied.
    """

    kind: ClassVar[str] = ""
    is_matrix: ClassVar[bool] = False
    """Whether its main work is multiply-accumulates on matrices."""

    name: str
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    module: str = ""
    phase: Phase = "forward"
    source: str = ""
    formats: OpFormats | None = None

    def __init_subclass__(cls) -> None:
        OPERATORS[cls.kind] = cls

    def __post_init__(self) -> None:
        if self.phase not in PHASES:
            raise unknown_name(f"op {self.name!r}: phase", str(self.phase), PHASES)
        for key, kind in _own_fields(self.kind):
            self._check(key, kind, getattr(self, key))
        operation = getattr(self, "operation", None)
        if operation is not None and self.kind not in _FREE_OPERATION and operation not in operation_names():
            raise unknown_name(f"op {self.name!r}: operation", operation, operation_names())

    def _check(self, key: str, kind: str, value: Any) -> None:
        """One field against its annotation ``kind``: sizes are whole numbers, at least 1 where they span a matrix."""
        least = 1 if self.is_matrix else 0
        if kind == "int":
            if not _is_whole(value) or value < least:
                raise InputError(f"op {self.name!r}: {key} must be an integer ≥ {least}, got {value!r}")
            if value > LARGEST:
                raise InputError(f"op {self.name!r}: {key} must be at most 2^56, got {value!r}")
        elif kind == "tuple[int, ...]":
            if not isinstance(value, tuple) or not all(_is_whole(number) and number >= least for number in value):
                raise InputError(f"op {self.name!r}: {key} must hold integers ≥ {least}, got {value!r}")
            if max(value, default=0) > LARGEST:
                raise InputError(f"op {self.name!r}: {key} must hold integers up to 2^56, got {value!r}")
        elif kind == _STEPS:
            if not isinstance(value, tuple) or not all(isinstance(part, tuple) for part in value):
                raise InputError(f"op {self.name!r}: {key} must hold operators for each projection, got {value!r}")
            if not all(isinstance(op, Matmul | Convolution | Reduction) for part in value for op in part):
                raise InputError(f"op {self.name!r}: {key} must hold matmuls, convolutions and reductions")
        elif kind.startswith("tuple"):
            pairs = isinstance(value, tuple) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in value)
            if not pairs or not all(_is_whole(number) for pair in value for number in pair):
                raise InputError(f"op {self.name!r}: {key} must hold pairs of integers, got {value!r}")
            if any(abs(number) > LARGEST for pair in value for number in pair):
                raise InputError(f"op {self.name!r}: {key} must hold pairs of integers up to 2^56, got {value!r}")
        elif kind == "bool" and not isinstance(value, bool):
            raise InputError(f"op {self.name!r}: {key} must be true or false, got {value!r}")
        elif kind == "float" and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise InputError(f"op {self.name!r}: {key} must be a number, got {value!r}")
        elif kind == "float" and not abs(value) <= LARGEST:
            raise InputError(f"op {self.name!r}: {key} must be a number up to 2^56, got {value!r}")
        elif kind == "str" and not isinstance(value, str):
            raise InputError(f"op {self.name!r}: {key} must be a name, got {value!r}")

    @property
    def dims(self) -> dict[str, Any]:
        """The loop nest: dimension name → size."""
        return {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if f.name not in _COMMON
            and f.type != _STEPS
            and isinstance(getattr(self, f.name), int | tuple)
            and not isinstance(getattr(self, f.name), bool)
        }

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return 0

    @property
    def operations(self) -> dict[str, int]:
        """Primitive operations (add, multiply, exp, …) beside the MACs: primitive → count."""
        return {}

    @property
    def elements_out(self) -> int:
        """Elements the operator produces, where its kind defines them (0 otherwise)."""
        return 0


_COMMON = frozenset(f.name for f in fields(Op))
_STEPS = "tuple[tuple[Op, ...], ...]"


@cache
def _own_fields(kind: str) -> tuple[tuple[str, str], ...]:
    """(name, annotation) of the fields that a kind adds to those of every operator."""
    return tuple((f.name, str(f.type)) for f in fields(OPERATORS[kind]) if f.name not in _COMMON)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_FREE_OPERATION = frozenset({"collective"})


@displayed_by("hwsim.views.cards:operator")
@dataclass(frozen=True, kw_only=True)
class Matmul(Op):
    """``C[b, m, n] = Σ_k A[b, m, k] · B[b, k, n]``, with a bias row added where ``bias``.

    inputs: A, B, and the bias or added matrix if any. outputs: C.
    """

    kind: ClassVar[str] = "matmul"
    is_matrix: ClassVar[bool] = True
    m: int
    n: int
    k: int
    batch: int = 1
    bias: bool = False

    @property
    def macs(self) -> int:
        return self.batch * self.m * self.n * self.k

    @property
    def operations(self) -> dict[str, int]:
        return primitive_counts("add", self.elements_out) if self.bias else {}

    @property
    def elements_out(self) -> int:
        return self.batch * self.m * self.n


@displayed_by("hwsim.views.cards:operator")
@dataclass(frozen=True, kw_only=True)
class Convolution(Op):
    """A convolution's loop nest: images × groups × output channels × output positions × input channels × kernel.

    The nest relates three tensors: X (``in_channels`` × ``input_size``), W, and Y (``out_channels`` × ``output_size``).
    ``computes`` says which of them it accumulates, the other two being read:

    - ``"output"``: Y from X and W, the forward convolution (inputs X, W, bias);
    - ``"input"``: X from Y and W, a transposed convolution or the gradient of the input (inputs Y, W, bias);
    - ``"weight"``: W from X and Y, the gradient of the weights (inputs X, Y).

    All three do the same MACs. Sizes are 1 to 3 spatial dimensions; ``padding`` holds (before, after) for each.
    """

    kind: ClassVar[str] = "convolution"
    is_matrix: ClassVar[bool] = True
    batch: int
    in_channels: int
    out_channels: int
    input_size: tuple[int, ...]
    output_size: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int = 1
    bias: bool = False
    computes: Literal["output", "input", "weight"] = "output"

    def __post_init__(self) -> None:
        super().__post_init__()
        ranks = {len(getattr(self, f)) for f in ("input_size", "output_size", "kernel", "stride", "padding", "dilation")}
        if len(ranks) != 1 or ranks.pop() not in (1, 2, 3):
            raise InputError(f"op {self.name!r}: a convolution's sizes must all have the same 1 to 3 spatial dimensions")
        if self.computes not in ("output", "input", "weight"):
            raise unknown_name(f"op {self.name!r}: computes", self.computes, ("output", "input", "weight"))
        for which in ("in_channels", "out_channels"):
            if getattr(self, which) % self.groups:
                raise InputError(
                    f"op {self.name!r}: {which} ({getattr(self, which)}) must be a multiple of groups ({self.groups})"
                )

    @property
    def macs(self) -> int:
        positions = self.batch * math.prod(self.output_size)
        return positions * self.out_channels * (self.in_channels // self.groups) * math.prod(self.kernel)

    @property
    def operations(self) -> dict[str, int]:
        return primitive_counts("add", self.elements_out) if self.bias else {}

    @property
    def elements_out(self) -> int:
        if self.computes == "output":
            return self.batch * self.out_channels * math.prod(self.output_size)
        if self.computes == "input":
            return self.batch * self.in_channels * math.prod(self.input_size)
        return self.out_channels * (self.in_channels // self.groups) * math.prod(self.kernel)

    @property
    def matmul_dims(self) -> tuple[int, int, int, int]:
        """(batch, m, n, k) of the same work as ``groups`` matmuls of the unrolled (im2col) operands."""
        positions = self.batch * math.prod(self.output_size)
        inner = self.in_channels // self.groups * math.prod(self.kernel)
        outer = self.out_channels // self.groups
        if self.computes == "output":
            return self.groups, positions, outer, inner
        if self.computes == "input":
            return self.groups, positions, inner, outer
        return self.groups, inner, outer, positions


@displayed_by("hwsim.views.cards:operator")
@dataclass(frozen=True, kw_only=True)
class Attention(Op):
    """Scaled dot-product attention, a composite: ``softmax(Q Kᵀ / √d) V`` per head.

    ``heads`` query heads share ``kv_heads`` key/value heads (grouped-query attention). ``Workload.expanded()`` replaces it
    by its matmuls and softmax. A causal mask is recorded but its MACs are counted in full, as ``torch.utils.flop_counter``
    does. ``computes="gradients"`` is the backward of the fused kernel, which recomputes the scores.

    inputs: Q, K, V (forward); the output's gradient, Q, K, V (gradients). outputs: the output; or the gradients of Q, K, V.
    """

    kind: ClassVar[str] = "attention"
    is_matrix: ClassVar[bool] = True
    batch: int
    heads: int
    kv_heads: int
    query_length: int
    key_length: int
    head_dim: int
    value_dim: int
    causal: bool = False
    computes: Literal["output", "gradients"] = "output"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.heads % self.kv_heads:
            raise InputError(f"op {self.name!r}: heads ({self.heads}) must be a multiple of kv_heads ({self.kv_heads})")
        if self.computes not in ("output", "gradients"):
            raise unknown_name(f"op {self.name!r}: computes", self.computes, ("output", "gradients"))

    @property
    def scores(self) -> int:
        """Elements of the score matrix over batch and heads."""
        return self.batch * self.heads * self.query_length * self.key_length

    @property
    def macs(self) -> int:
        if self.computes == "output":
            return self.scores * (self.head_dim + self.value_dim)
        return self.scores * (3 * self.head_dim + 2 * self.value_dim)

    @property
    def operations(self) -> dict[str, int]:
        rows = self.batch * self.heads * self.query_length
        counts = dict(primitive_counts("softmax", self.scores, rows))
        more = [primitive_counts("multiply", self.scores)]
        if self.computes == "gradients":
            more += [
                primitive_counts("softmax_backward", self.scores, rows),
                primitive_counts("multiply", self.scores),
            ]
        for part in more:
            for primitive, n in part.items():
                counts[primitive] = counts.get(primitive, 0) + n
        return counts

    @property
    def elements_out(self) -> int:
        return self.batch * self.heads * self.query_length * self.value_dim


@displayed_by("hwsim.views.cards:operator")
@dataclass(frozen=True, kw_only=True)
class Elementwise(Op):
    """``operation`` (a row of the operation table) applied to ``elements`` elements. inputs: the operands.

    ``aligned`` unless an operand as large as the result lies in another order in memory (a transposed view).
    """

    kind: ClassVar[str] = "elementwise"
    operation: str
    elements: int
    aligned: bool = True

    @property
    def operations(self) -> dict[str, int]:
        return primitive_counts(self.operation, self.elements)

    @property
    def elements_out(self) -> int:
        return self.elements


@dataclass(frozen=True, kw_only=True)
class _RowWise(Op):
    operation: str
    elements: int
    rows: int

    @property
    def operations(self) -> dict[str, int]:
        return primitive_counts(self.operation, self.elements, self.rows)

    @property
    def elements_out(self) -> int:
        return self.elements

    @property
    def row_length(self) -> int:
        """Elements that are reduced together."""
        return self.elements // max(1, self.rows)


OPERATORS.pop("", None)


@displayed_by("hwsim.views.cards:operator")
@dataclass(frozen=True, kw_only=True)
class Reduction(_RowWise):
    """``elements`` inputs reduced to ``rows`` results (sum, mean, max, …)."""

    kind: ClassVar[str] = "reduction"

    @property
    def elements_out(self) -> int:
        return self.rows


@displayed_by("hwsim.views.cards:operator")
@dataclass(frozen=True, kw_only=True)
class Normalization(_RowWise):
    """Layer, group, batch or RMS normalisation of ``elements`` elements with ``rows`` sets of statistics."""

    kind: ClassVar[str] = "normalization"


@displayed_by("hwsim.views.cards:operator")
@dataclass(frozen=True, kw_only=True)
class Softmax(_RowWise):
    """Softmax or log-softmax over ``rows`` rows, ``aligned`` where a row lies together in memory (the last dimension)."""

    kind: ClassVar[str] = "softmax"
    aligned: bool = True


@displayed_by("hwsim.views.cards:operator")
@dataclass(frozen=True, kw_only=True)
class Pooling(Op):
    """Windows of ``window`` elements reduced to ``elements`` results (``pool_max`` or ``pool_average``)."""

    kind: ClassVar[str] = "pooling"
    operation: str
    elements: int
    window: int

    @property
    def operations(self) -> dict[str, int]:
        return primitive_counts(self.operation, self.elements * self.window, self.elements)

    @property
    def elements_out(self) -> int:
        return self.elements


@displayed_by("hwsim.views.cards:operator")
@dataclass(frozen=True, kw_only=True)
class Gather(Op):
    """``elements`` elements read through ``indices`` indices (embedding, indexing); inputs: the table, the indices.

    Only the gathered elements of the table are charged as traffic, not the table.
    """

    kind: ClassVar[str] = "gather"
    elements: int
    indices: int

    @property
    def operations(self) -> dict[str, int]:
        return primitive_counts("gather", self.elements)

    @property
    def elements_out(self) -> int:
        return self.elements


@displayed_by("hwsim.views.cards:operator")
@dataclass(frozen=True, kw_only=True)
class Scatter(Op):
    """``elements`` elements written (or added, ``accumulate``) through ``indices`` indices. inputs: values, indices."""

    kind: ClassVar[str] = "scatter"
    elements: int
    indices: int
    accumulate: bool = False

    @property
    def operations(self) -> dict[str, int]:
        return primitive_counts("scatter_add" if self.accumulate else "scatter", self.elements)

    @property
    def elements_out(self) -> int:
        return self.elements


@displayed_by("hwsim.views.cards:operator")
@dataclass(frozen=True, kw_only=True)
class Scan(Op):
    """A recurrence over ``length`` steps of a state of ``width`` elements: step t needs step t−1."""

    kind: ClassVar[str] = "scan"
    operation: str
    length: int
    width: int

    @property
    def operations(self) -> dict[str, int]:
        return primitive_counts(self.operation, self.length * self.width)

    @property
    def elements_out(self) -> int:
        return self.length * self.width


@displayed_by("hwsim.views.cards:operator")
@dataclass(frozen=True, kw_only=True)
class DataMovement(Op):
    """A copy, concatenation, padding, layout change or format cast of ``elements`` elements."""

    kind: ClassVar[str] = "data_movement"
    elements: int
    operation: str = "copy"

    @property
    def operations(self) -> dict[str, int]:
        return primitive_counts(self.operation, self.elements)

    @property
    def elements_out(self) -> int:
        return self.elements


@displayed_by("hwsim.views.cards:operator")
@dataclass(frozen=True, kw_only=True)
class Collective(Op):
    """A collective (``all_reduce``, ``all_gather``, …) of ``elements`` elements a participant."""

    kind: ClassVar[str] = "collective"
    operation: str
    elements: int
    participants: int

    @property
    def elements_out(self) -> int:
        return self.elements


@displayed_by("hwsim.views.cards:operator")
@dataclass(frozen=True, kw_only=True)
class SpikingLayer(Op):
    """``neurons`` neurons driven for ``time_steps`` steps by ``sources`` presynaptic neurons.

    ``fan_out`` is the mean number of synapses of a source, ``event_rate`` the mean number of spikes a source sends each step,
    where each source counts as often as it has synapses.

    inputs: for each projection the spikes and its weights, then the neurons' state if any. outputs: the spikes.

    A machine without events computes every synapse in every step (``hwsim.expansion``): ``dense`` holds, for each projection, the
    operators of one step, the first of which reads the spikes (none: one product of all sources with a matrix); ``recurrent`` the
    numbers of the projections whose spikes depend on this layer's, which cannot be computed before the step they belong to.
    """

    kind: ClassVar[str] = "spiking_layer"
    neurons: int
    sources: int
    fan_out: float
    time_steps: int
    event_rate: float = 1.0
    recurrent: tuple[int, ...] = ()
    dense: tuple[tuple[Op, ...], ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.event_rate < float("inf"):
            raise InputError(f"op {self.name!r}: event_rate must be ≥ 0 spikes a step, got {self.event_rate!r}")
        if not 0 <= self.fan_out < float("inf"):
            raise InputError(f"op {self.name!r}: fan_out must be ≥ 0 synapses a spike, got {self.fan_out!r}")
        if len(self.inputs) < 2 * len(self.dense):
            raise InputError(f"op {self.name!r}: inputs: {len(self.dense)} projections need spikes and weights each")
        if any(number >= max(1, len(self.dense)) for number in self.recurrent):
            raise InputError(f"op {self.name!r}: recurrent: expected numbers of projections, got {self.recurrent!r}")

    @property
    def neuron_updates(self) -> int:
        """Neurons × time steps."""
        return self.neurons * self.time_steps

    @property
    def synaptic_operations(self) -> int:
        """Spikes sent × synapses reached, rounded to a whole count."""
        return round(self.sources * self.event_rate * self.time_steps * self.fan_out)

    @property
    def operations(self) -> dict[str, int]:
        counts = primitive_counts("neuron_update", self.neuron_updates)
        for primitive, n in primitive_counts("synaptic_operation", self.synaptic_operations).items():
            counts[primitive] = counts.get(primitive, 0) + n
        return counts

    @property
    def elements_out(self) -> int:
        return self.neuron_updates


@displayed_by("hwsim.views.cards:operator")
@dataclass(frozen=True, kw_only=True)
class Unmodelled(Op):
    """An operator no machine models: carried with its tensors, reported as such, charged only its bytes."""

    kind: ClassVar[str] = "unmodelled"


def op_to_dict(op: Op) -> dict[str, Any]:
    """Plain data of an operator, without the fields at their defaults."""
    data: dict[str, Any] = {"kind": op.kind}
    for f in fields(op):
        value = getattr(op, f.name)
        if value == f.default:
            continue
        if f.type == _STEPS:
            data[f.name] = [[op_to_dict(step) for step in part] for part in value]
            continue
        data[f.name] = {"operands": list(value.operands), "accumulator": value.accumulator} if f.name == "formats" else value
    return data


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def op_from_dict(data: Mapping[str, Any]) -> Op:
    """The operator that ``op_to_dict`` described.

    Raises:
        InputError: an unknown kind or field, a missing field or a wrong size.
    """
    if not isinstance(data, Mapping):
        raise InputError(f"op: expected a mapping with kind and name, got {data!r}")
    kind = data.get("kind")
    if not isinstance(kind, str) or kind not in OPERATORS:
        raise unknown_name("op: kind", str(kind), OPERATORS)
    cls = OPERATORS[kind]
    known = {f.name for f in fields(cls)}
    values: dict[str, Any] = {}
    for key, value in data.items():
        if key == "kind":
            continue
        if key not in known:
            raise unknown_name(f"op {data.get('name')!r}: field", key, known)
        values[key] = _tuples(value)
    if "dense" in values:
        parts = data["dense"]
        if not isinstance(parts, list) or not all(isinstance(part, list) for part in parts):
            raise InputError(f"op {data.get('name')!r}: dense must hold lists of operators, got {parts!r}")
        values["dense"] = tuple(tuple(op_from_dict(step) for step in part) for part in parts)
    if isinstance(values.get("formats"), Mapping):
        formats = values["formats"]
        if set(formats) != {"operands", "accumulator"} or not isinstance(formats["operands"], list):
            raise InputError(f"op {data.get('name')!r}: formats must hold operands (a list) and accumulator, got {formats!r}")
        operands = tuple(get_format(name).name for name in formats["operands"])
        values["formats"] = OpFormats(operands, get_format(formats["accumulator"]).name)
    for key in ("name", "module", "phase", "source"):
        if not isinstance(values.get(key, ""), str):
            raise InputError(f"op {data.get('name')!r}: {key} must be text, got {values[key]!r}")
    for key in ("inputs", "outputs"):
        names = values.get(key, ())
        if not isinstance(names, tuple) or not all(isinstance(name, str) for name in names):
            raise InputError(f"op {data.get('name')!r}: {key} must be a list of tensor names, got {data[key]!r}")
    try:
        return cls(**values)
    except TypeError as error:
        message = str(error).split("__init__() ")[-1]
        raise InputError(f"op {data.get('name')!r} ({kind}): {message}") from None
