"""The workload: an immutable graph of operators and tensors that knows no machine."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args

from hwsim.expansion import NewTensor, expand_attention, expand_spiking
from hwsim.operators import (
    FLOPS_PER_MAC,
    LARGEST,
    MOST,
    Attention,
    Convolution,
    Gather,
    Matmul,
    Op,
    OpFormats,
    SpikingLayer,
    op_from_dict,
    op_to_dict,
)
from hwsim.views.display import displayed_by
from numerics.documents import read_json, read_text
from numerics.errors import InputError, unknown_name
from numerics.formats import get_format, is_float
from numerics.recipes import Recipe, get_recipe

T = TypeVar("T")

SCHEMA = "hwsim.workload"
SCHEMA_VERSION = 1

Role = Literal["input", "weight", "activation", "gradient", "optimizer_state", "kv_cache", "state", "index"]
ROLES: tuple[str, ...] = get_args(Role)
_RECIPE_ROLE = {
    "input": "activation",
    "weight": "weight",
    "activation": "activation",
    "gradient": "gradient",
    "optimizer_state": "optimizer_state",
    "kv_cache": "kv_cache",
    "state": "activation",
}
_PERSISTENT = frozenset({"weight", "optimizer_state", "kv_cache", "state"})

DERIVED_LIMIT = 32
"""Results that a workload keeps (``Workload.derived``): a sweep over capacities must not fill the memory."""
_MISSING = object()


MOST_DIMENSIONS = 64
"""Of a tensor: as many as torch has."""


@displayed_by("hwsim.views.cards:tensor")
@dataclass(frozen=True)
class Tensor:
    """A tensor of a workload.

    Attributes:
        name: unique in its workload.
        shape: sizes; ``()`` is a scalar.
        format: name of its number format in memory.
        role: ``input``, ``weight``, ``activation``, ``gradient``, ``optimizer_state``, ``kv_cache``, ``state`` (buffers) or
            ``index`` (integers that address).
        density: fraction of non-zero elements, where values were traced.
        storage: name of the tensor that owns its memory ("" for itself): views and in-place results share one.
    """

    name: str
    shape: tuple[int, ...]
    format: str
    role: Role = "activation"
    density: float | None = None
    storage: str = ""

    def __post_init__(self) -> None:
        for size in self.shape:
            if not isinstance(size, int) or isinstance(size, bool) or size < 0:
                raise InputError(f"tensor {self.name!r}: shape must hold integers ≥ 0, got {self.shape!r}")
        if len(self.shape) > MOST_DIMENSIONS or self.elements > LARGEST:
            raise InputError(
                f"tensor {self.name!r}: shape must have ≤ {MOST_DIMENSIONS} dimensions and ≤ 2^56 elements, got {self.shape!r}"
            )
        if self.role not in ROLES:
            raise unknown_name(f"tensor {self.name!r}: role", str(self.role), ROLES)
        if self.density is not None and not (isinstance(self.density, int | float) and 0 <= self.density <= 1):
            raise InputError(f"tensor {self.name!r}: density must lie in [0, 1], got {self.density!r}")

    @cached_property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def owner(self) -> str:
        """Name of the tensor that owns the memory."""
        return self.storage or self.name

    @cached_property
    def bytes(self) -> int:
        """Bytes of its elements in its format."""
        return get_format(self.format).storage_bytes(self.elements)

    def __getstate__(self) -> dict[str, Any]:
        """For pickling: the fields alone, without what was computed from them."""
        return {f.name: self.__dict__[f.name] for f in fields(self)}


@displayed_by("hwsim.views.cards:peak")
@dataclass(frozen=True)
class PeakMemory:
    """The most bytes alive at once, at which operator, and what they are.

    Attributes:
        bytes: the peak.
        op: name of the operator during which it is reached ("" for an empty workload).
        by_role: role → bytes alive then; adds up to ``bytes``.
    """

    bytes: int
    op: str
    by_role: Mapping[str, int]


@displayed_by("hwsim.views.cards:workload")
@dataclass(frozen=True)
class Workload:
    """Operators in execution order, and the tensors they read and write.

    Attributes:
        name: what reports call it.
        ops: operators in the order the program ran them.
        tensors: tensor name → tensor.
        inputs: names of the tensors the caller gives.
        outputs: names of the tensors the caller gets.
        recipe: name of the recipe applied by ``with_formats`` ("" when tensors have the formats they were traced in).
        metadata: anything worth keeping (where it came from, batch size, …), plain data.
    """

    name: str
    ops: tuple[Op, ...]
    tensors: Mapping[str, Tensor]
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    recipe: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for op in self.ops:
            if op.name in seen:
                raise InputError(f"workload {self.name!r}: two ops are called {op.name!r}")
            seen.add(op.name)
            for tensor in (*op.inputs, *op.outputs):
                if tensor not in self.tensors:
                    raise InputError(f"workload {self.name!r}: op {op.name!r} names a tensor {tensor!r} that is not listed")
        for tensor in (*self.inputs, *self.outputs):
            if tensor not in self.tensors:
                raise InputError(f"workload {self.name!r}: {tensor!r} is an input or output but not a listed tensor")
        for name, entry in self.tensors.items():
            if entry.name != name:
                raise InputError(f"workload {self.name!r}: tensor {entry.name!r} is listed as {name!r}")
            if entry.owner not in self.tensors:
                raise InputError(f"workload {self.name!r}: tensor {name!r} shares the memory of {entry.owner!r}, not listed")

    def __getstate__(self) -> dict[str, Any]:
        """For pickling: the fields alone, without what was derived from them."""
        return {f.name: self.__dict__[f.name] for f in fields(self)}

    def check_operands(self) -> None:
        """See that a machine can run it: matrix operators have their operands and a result, and formats, once a recipe was
        applied, belong to the inputs one by one.

        Raises:
            InputError: the first operator of which this is not so.
        """
        self.derived("checked operands", self._check_operands)

    def check_sizes(self) -> None:
        """See that no operator does more work than ``LARGEST``, and all together no more and no more bytes than ``MOST``.

        Raises:
            InputError: the operator, or the tensor, where this ends to be so.
        """
        self.derived("checked sizes", self._check_sizes)

    def _check_sizes(self) -> None:
        total = 0
        for op in self.ops:
            work = op.macs + sum(op.operations.values()) + op.elements_out
            total += work
            if work > LARGEST or total > MOST:
                raise InputError(
                    f"workload {self.name!r}: op {op.name!r}: expected at most 2^56 MACs and operations, and 2^60 up to it, "
                    f"got {work:.3g} and {total:.3g}"
                )
        total = 0
        for tensor in self.tensors.values():
            total += tensor.bytes
            if total > MOST:
                raise InputError(
                    f"workload {self.name!r}: tensor {tensor.name!r}: expected at most 2^60 bytes in all tensors, got {total:.3g}"
                )

    def _check_operands(self) -> None:
        self.check_sizes()
        for op in self.ops:
            where = f"workload {self.name!r}: op {op.name!r}"
            least_in, least_out = (2, 1) if op.is_matrix else (0, 0)
            if isinstance(op, Attention):
                least_in, least_out = (3, 1) if op.computes == "output" else (4, 3)
            for what, names, least in (("inputs", op.inputs, least_in), ("outputs", op.outputs, least_out)):
                if len(names) < least:
                    raise InputError(f"{where}: {what}: expected at least {least} tensors, got {len(names)}")
            if self.recipe and op.formats is None:
                raise InputError(f"{where} has no formats, although the recipe {self.recipe!r} was applied")
            if op.formats is not None and len(op.formats.operands) != len(op.inputs):
                given = len(op.formats.operands)
                raise InputError(f"{where}: formats.operands: expected {len(op.inputs)} names, one an input, got {given}")

    # --- counts -------------------------------------------------------------------------------------------------------

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates of all operators."""
        return sum(op.macs for op in self.ops)

    @property
    def flops(self) -> int:
        """Floating-point operations of the MACs: ``FLOPS_PER_MAC`` each."""
        return FLOPS_PER_MAC * self.macs

    @property
    def parameters(self) -> int:
        """Elements of the distinct weight tensors."""
        return sum(t.elements for t in self.tensors.values() if t.role == "weight" and t.owner == t.name)

    def operations(self) -> dict[str, int]:
        """Primitive operations beside the MACs, over all operators."""
        total: Counter[str] = Counter()
        for op in self.ops:
            total.update(op.operations)
        return dict(total)

    def bytes_by_role(self) -> dict[str, int]:
        """Role → bytes of the distinct tensors (memory owners) of that role."""
        total: Counter[str] = Counter()
        for tensor in self.tensors.values():
            if tensor.owner == tensor.name:
                total[tensor.role] += tensor.bytes
        return dict(total)

    def read_bytes(self, op: Op, position: int) -> int:
        """Bytes that ``op`` reads of its input at ``position``: never more than the memory behind it holds.

        A gather reads only the elements it selects of its table.
        """
        tensor = self.tensors[op.inputs[position]]
        elements = min(tensor.elements, self.tensors[tensor.owner].elements)
        if isinstance(op, Gather) and position == 0:
            elements = min(elements, op.elements)
        if elements == tensor.elements:
            return tensor.bytes
        return get_format(tensor.format).storage_bytes(elements)

    def write_bytes(self, op: Op, position: int) -> int:
        """Bytes that ``op`` writes of its output at ``position``."""
        tensor = self.tensors[op.outputs[position]]
        elements = min(tensor.elements, self.tensors[tensor.owner].elements)
        if op.kind == "scatter":
            elements = min(elements, op.elements_out)
        if elements == tensor.elements:
            return tensor.bytes
        return get_format(tensor.format).storage_bytes(elements)

    def op_bytes(self, op: Op) -> int:
        """Bytes that ``op`` reads and writes when nothing is kept on chip; a tensor named twice is read once."""
        read = sum(self.read_bytes(op, i) for i, name in enumerate(op.inputs) if name not in op.inputs[:i])
        return read + sum(self.write_bytes(op, i) for i in range(len(op.outputs)))

    @property
    def arithmetic_intensity(self) -> float:
        """FLOPs a byte: all FLOPs over the bytes that the operators read and write one by one (0 for no bytes)."""
        moved = sum(self.op_bytes(op) for op in self.ops)
        return self.flops / moved if moved else 0.0

    # --- structure ----------------------------------------------------------------------------------------------------

    @cached_property
    def dependencies(self) -> tuple[tuple[int, ...], ...]:
        """For each operator, the indices of the operators it waits for.

        An operator waits for the latest writer of every memory it reads or writes, and, before it overwrites memory, for
        those who have read it since.
        """
        writer: dict[str, int] = {}
        readers: dict[str, list[int]] = {}
        result: list[tuple[int, ...]] = []
        for index, op in enumerate(self.ops):
            needs: set[int] = set()
            read = {self.tensors[t].owner for t in op.inputs}
            written = {self.tensors[t].owner for t in op.outputs}
            for owner in read | written:
                if owner in writer:
                    needs.add(writer[owner])
            for owner in written:
                needs.update(readers.get(owner, ()))
            needs.discard(index)
            result.append(tuple(sorted(needs)))
            for owner in read:
                readers.setdefault(owner, []).append(index)
            for owner in written:
                writer[owner] = index
                readers[owner] = []
        return tuple(result)

    @cached_property
    def depth(self) -> int:
        """Operators on the longest dependency chain."""
        level: list[int] = []
        for needs in self.dependencies:
            level.append(1 + max((level[i] for i in needs), default=0))
        return max(level, default=0)

    @cached_property
    def lifetimes(self) -> dict[str, tuple[int, int]]:
        """Memory owner → (first, last) operator index at which it must exist.

        Inputs and persistent tensors (weights, optimizer state, caches, buffers) exist from −1, before the first operator;
        persistent ones and outputs until ``len(ops)``, after the last.
        """
        end = len(self.ops)
        spans: dict[str, list[int]] = {}
        for index, op in enumerate(self.ops):
            for name in op.inputs:
                owner = self.tensors[name].owner
                spans.setdefault(owner, [-1, index])[1] = index
            for name in op.outputs:
                owner = self.tensors[name].owner
                spans.setdefault(owner, [index, index])[1] = index
        for name in self.inputs:
            spans.setdefault(self.tensors[name].owner, [-1, -1])[0] = -1
        for name in self.outputs:
            spans.setdefault(self.tensors[name].owner, [-1, end])[1] = end
        for name, tensor in self.tensors.items():
            if tensor.owner == name and tensor.role in _PERSISTENT:
                # Optimizer state exists before a step that updates it, so it too counts from the start.
                spans[name] = [-1, end]
        return {name: (first, last) for name, (first, last) in spans.items()}

    def peak_memory(self) -> PeakMemory:
        """The most bytes alive at once when each tensor lives from its first write to its last use."""
        return self.derived("peak_memory", self._peak_memory)

    def _peak_memory(self) -> PeakMemory:
        self.check_sizes()
        end = len(self.ops)
        if not end:
            return PeakMemory(0, "", {})
        change: list[Counter[str]] = [Counter() for _ in range(end + 1)]
        for name, (first, last) in self.lifetimes.items():
            tensor = self.tensors[name]
            change[max(first, 0)][tensor.role] += tensor.bytes
            change[min(last + 1, end)][tensor.role] -= tensor.bytes
        alive: Counter[str] = Counter()
        best, where, roles = -1, 0, {}
        for index in range(end):
            for role, n in change[index].items():
                alive[role] += n
            total = sum(alive.values())
            if total > best:
                best, where, roles = total, index, {r: n for r, n in alive.items() if n}
        return PeakMemory(best, self.ops[where].name, roles)

    # --- transformations ----------------------------------------------------------------------------------------------

    def with_formats(self, recipe: str | Recipe) -> Workload:
        """A copy whose tensors and operators have the formats that ``recipe`` gives their roles and modules.

        Floating-point tensors are re-formatted; integers and booleans stay. A tensor takes the format of its role in the
        module that writes it (weights and inputs: that first reads it). One-dimensional parameters (biases, gains) are
        added to accumulators and take the accumulator's format. An operator that consumes a tensor in another format than
        it is stored in is charged a conversion by the device.

        A recipe with a format for ``elementwise`` values gives it to what operators other than matrix products consume, and
        to the tensors that any of them reads (or that nobody does); attention is then written out as its products and softmax.

        Raises:
            InputError: an unknown recipe, or a workload that a recipe was applied to before.
        """
        chosen = get_recipe(recipe)
        if self.recipe:
            # What is an integer by its nature and what by the recipe can no longer be told apart.
            raise InputError(f"workload {self.name!r} already has the formats of recipe {self.recipe!r}; give the one without")
        modules = {op.module for op in self.ops}
        for override in chosen.overrides:
            if not any(fnmatchcase(path, override.pattern) for path in modules):
                raise InputError(f"recipe {chosen.name!r}: overrides: no module of {self.name!r} matches {override.pattern!r}")
        weighted = [
            op.module
            for op in self.ops
            if op.is_matrix and op.phase == "forward" and any(self.tensors[t].role == "weight" for t in op.inputs[:2])
        ]
        if weighted:
            chosen = chosen.with_ends(weighted[0], weighted[-1])
        if chosen.has_elementwise:
            return self.expanded()._with_formats(chosen)
        return self._with_formats(chosen)

    def _with_formats(self, chosen: Recipe) -> Workload:
        module: dict[str, str] = {}
        multiplied: set[str] = set()
        between: dict[str, bool] = {}
        for op in self.ops:
            for name in (*op.outputs, *op.inputs):
                module.setdefault(self.tensors[name].owner, op.module)
            for position, name in enumerate(op.inputs):
                owner = self.tensors[name].owner
                operand = op.is_matrix and (position < 2 or isinstance(op, Attention))
                if op.is_matrix and position < 2:
                    multiplied.add(owner)
                between[owner] = between.get(owner, False) or not operand

        def format_in(owner: Tensor, path: str, elementwise: bool) -> str:
            if owner.role == "index" or not is_float(owner.format):
                return owner.format
            if owner.role == "weight" and len(owner.shape) <= 1 and owner.name not in multiplied:
                return chosen.format_for("accumulator", path)
            role = _RECIPE_ROLE[owner.role]
            return chosen.elementwise_for(role, path) if elementwise else chosen.format_for(role, path)

        stored = {
            name: format_in(tensor, module.get(name, ""), between.get(name, True))
            for name, tensor in self.tensors.items()
            if tensor.owner == name
        }
        tensors = {name: replace(tensor, format=stored[tensor.owner]) for name, tensor in self.tensors.items()}
        ops = []
        for op in self.ops:
            owners = [self.tensors[self.tensors[name].owner] for name in op.inputs]
            operands = tuple(
                format_in(owner, op.module, not (op.is_matrix and (position < 2 or isinstance(op, Attention))))
                for position, owner in enumerate(owners)
            )
            ops.append(replace(op, formats=OpFormats(operands, chosen.format_for("accumulator", op.module))))
        return replace(self, ops=tuple(ops), tensors=tensors, recipe=chosen.name)

    def derived(self, key: Hashable, make: Callable[[], T]) -> T:
        """What ``make`` returns, made once for each ``key`` and kept with this workload, which never changes.

        ``make`` must depend on nothing but the workload and the key, and nobody may change what it returns. The oldest of more
        than ``DERIVED_LIMIT`` results go; two threads that ask at once may both make one, and get the same.
        """
        kept: dict[Hashable, Any] = self.__dict__.setdefault("_derived", {})
        found = kept.get(key, _MISSING)
        if found is _MISSING:
            found = make()
            for oldest in list(kept)[: max(0, len(kept) + 1 - DERIVED_LIMIT)]:
                kept.pop(oldest, None)
            found = kept.setdefault(key, found)
        return cast(T, found)

    def expanded(self, *, attention: bool = True) -> Workload:
        """A copy in which every composite is replaced by what it consists of: attention (unless it is left as it is) by matmuls
        and softmax, a spiking layer by the dense products and neuron updates of its time steps."""
        return self.derived("expanded" if attention else "expanded but for attention", lambda: self._with_parts(attention))

    def _with_parts(self, attention: bool) -> Workload:
        kinds = (Attention, SpikingLayer) if attention else (SpikingLayer,)
        if not any(isinstance(op, kinds) for op in self.ops):
            return self
        tensors = dict(self.tensors)
        ops: list[Op] = []
        for op in self.ops:
            new: Iterable[NewTensor] = ()
            if isinstance(op, Attention) and attention:
                parts, new = expand_attention(op, self.tensors)
            elif isinstance(op, SpikingLayer):
                parts, new = expand_spiking(op, self.tensors)
            else:
                parts = [op]
            ops.extend(parts)
            tensors.update(
                {name: Tensor(name, shape, form, role, storage="".join(owner)) for name, shape, form, role, *owner in new}
            )
        return replace(self, ops=tuple(ops), tensors=tensors)

    # --- files --------------------------------------------------------------------------------------------------------

    def to_json(self, path: str | Path | None = None) -> str:
        """The workload as versioned JSON text, also written to ``path`` if given."""
        data = {
            "schema": SCHEMA,
            "version": SCHEMA_VERSION,
            "name": self.name,
            "inputs": self.inputs,
            "outputs": self.outputs,
            "recipe": self.recipe,
            "metadata": dict(self.metadata),
            "tensors": [
                {k: v for k, v in asdict(t).items() if v not in (None, "")} | {"shape": t.shape} for t in self.tensors.values()
            ],
            "ops": [op_to_dict(op) for op in self.ops],
        }
        text = json.dumps(data, indent=1)
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text

    @classmethod
    def from_json(cls, text: str, *, source: str = "workload") -> Workload:
        """The workload that ``to_json`` wrote.

        Raises:
            InputError: not JSON, another schema or version, an unknown or missing field, a wrong size.
        """
        try:
            data = read_json(text)
        except InputError as error:
            raise InputError(f"{source}: {error}") from None
        if not isinstance(data, Mapping) or data.get("schema") != SCHEMA:
            raise InputError(f'{source}: not a workload file: expected "schema": "{SCHEMA}"')
        if data.get("version") != SCHEMA_VERSION:
            raise InputError(f"{source}: version {data.get('version')!r} of the schema; this hwsim reads {SCHEMA_VERSION}")
        known = {"schema", "version", "name", "inputs", "outputs", "recipe", "metadata", "tensors", "ops"}
        if set(data) - known:
            raise unknown_name(f"{source}: field", sorted(set(data) - known)[0], known)
        for key in ("name", "tensors", "ops"):
            if key not in data:
                raise InputError(f"{source}: field {key!r} is missing")
        for key in ("tensors", "ops", "inputs", "outputs"):
            if not isinstance(data.get(key, []), list):
                raise InputError(f"{source}: field {key!r} must be a list, got {data[key]!r}")
        for key in ("inputs", "outputs"):
            if not all(isinstance(name, str) for name in data.get(key, [])):
                raise InputError(f"{source}: field {key!r} must be a list of tensor names, got {data[key]!r}")
        if not isinstance(data.get("metadata", {}), Mapping):
            raise InputError(f"{source}: field 'metadata' must be a mapping, got {data['metadata']!r}")
        allowed = {f.name for f in fields(Tensor)}
        tensors: dict[str, Tensor] = {}
        for entry in data["tensors"]:
            if not isinstance(entry, Mapping):
                raise InputError(f"{source}: a tensor must be a mapping with name, shape and format, got {entry!r}")
            if set(entry) - allowed:
                raise unknown_name(f"{source}: tensor field", sorted(set(entry) - allowed)[0], allowed)
            for key in ("name", "shape", "format"):
                if key not in entry:
                    raise InputError(f"{source}: a tensor lacks the field {key!r}: {entry!r}")
            for key in ("name", "storage"):
                if not isinstance(entry.get(key, ""), str):
                    raise InputError(f"{source}: tensor {entry['name']!r}: {key} must be text, got {entry[key]!r}")
            if not isinstance(entry["shape"], list):
                raise InputError(f"{source}: tensor {entry['name']!r}: shape must be a list, got {entry['shape']!r}")
            if entry["name"] in tensors:
                raise InputError(f"{source}: two tensors are called {entry['name']!r}")
            fmt = get_format(entry["format"]).name
            tensors[entry["name"]] = Tensor(**{**entry, "shape": tuple(entry["shape"]), "format": fmt})
        return cls(
            name=str(data["name"]),
            ops=tuple(op_from_dict(entry) for entry in data["ops"]),
            tensors=tensors,
            inputs=tuple(data.get("inputs", ())),
            outputs=tuple(data.get("outputs", ())),
            recipe=str(data.get("recipe", "")),
            metadata=dict(data.get("metadata", {})),
        )

    # --- views --------------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.ops)

    def __repr__(self) -> str:
        return (
            f"Workload({self.name!r}: {len(self.ops)} ops, {self.macs:,} MACs, {self.parameters:,} parameters"
            + (f", formats {self.recipe!r}" if self.recipe else "")
            + ")"
        )

    def count_by_kind(self) -> dict[str, int]:
        """Kind → number of operators."""
        return dict(Counter(op.kind for op in self.ops))


def chain(
    name: str,
    ops: Iterable[Matmul | Convolution],
    *,
    format: str = "fp32",
    metadata: Mapping[str, Any] | None = None,
) -> Workload:
    """A workload of independent matmuls and convolutions, each with tensors of its own (SCALE-Sim's view of a network)."""
    tensors: dict[str, Tensor] = {}
    placed: list[Op] = []
    inputs: list[str] = []
    outputs: list[str] = []
    for op in ops:
        shapes: list[tuple[int, ...]]
        if isinstance(op, Matmul):
            shapes = [(op.batch, op.m, op.k), (op.batch, op.k, op.n), (op.batch, op.m, op.n)]
        else:
            x = (op.batch, op.in_channels, *op.input_size)
            w = (op.out_channels, op.in_channels // op.groups, *op.kernel)
            y = (op.batch, op.out_channels, *op.output_size)
            shapes = {"output": [x, w, y], "input": [y, w, x], "weight": [x, y, w]}[op.computes]
        names = [f"{op.name}.input", f"{op.name}.weight", f"{op.name}.output"]
        for tensor_name, shape, role in zip(names, shapes, ("input", "weight", "activation"), strict=True):
            tensors[tensor_name] = Tensor(tensor_name, tuple(shape), format, role)  # type: ignore[arg-type]
        inputs.append(names[0])
        outputs.append(names[2])
        placed.append(replace(op, inputs=(names[0], names[1]), outputs=(names[2],)))
    return Workload(name, tuple(placed), tensors, tuple(inputs), tuple(outputs), metadata=dict(metadata or {}))


def load_json(path: str | Path) -> Workload:
    """The workload in a JSON file that ``Workload.to_json`` wrote."""
    return Workload.from_json(read_text(path), source=str(path))
