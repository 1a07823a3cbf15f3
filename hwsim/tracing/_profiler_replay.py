"""One operator of a profiler trace dispatched again, on fake tensors of the sizes that the trace tells."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from hwsim.operators import Op, Phase
from hwsim.tracing._modules import Fakes, plain_kernels, quiet
from hwsim.tracing._profiler_events import Event
from hwsim.tracing._recorder import Recorder
from hwsim.workload import Role, Tensor

DTYPES: Mapping[str, torch.dtype] = {
    "float": torch.float32, "double": torch.float64, "c10::Half": torch.float16, "c10::BFloat16": torch.bfloat16,
    "c10::Float8_e4m3fn": torch.float8_e4m3fn, "c10::Float8_e5m2": torch.float8_e5m2,
    "c10::Float8_e4m3fnuz": torch.float8_e4m3fnuz, "c10::Float8_e5m2fnuz": torch.float8_e5m2fnuz,
    "c10::Float8_e8m0fnu": torch.float8_e8m0fnu, "signed char": torch.int8, "unsigned char": torch.uint8,
    "short int": torch.int16, "short": torch.int16, "int": torch.int32, "long int": torch.int64, "long": torch.int64,
    "long long": torch.int64, "unsigned short": torch.uint16, "unsigned int": torch.uint32,
    "unsigned long": torch.uint64, "short unsigned int": torch.uint16, "long unsigned int": torch.uint64,
    "bool": torch.bool, "c10::complex<float>": torch.complex64, "c10::complex<double>": torch.complex128,
    "c10::qint8": torch.qint8, "c10::quint8": torch.quint8, "c10::qint32": torch.qint32,
}  # fmt: skip
"""C++ type that the profiler writes → dtype."""

_NUMBERS = {"double": 1.0, "long int": 1, "long": 1, "long long": 1}
"""Types of the tensors that Python numbers become; the value is not in the trace, and no cost depends on it."""

_WEIGHTS = frozenset({"weight", "bias", "gamma", "beta", "params"})
_STATES = frozenset({"running_mean", "running_var"})

_VIEWS = frozenset(
    {"as_strided", "squeeze", "unsqueeze", "transpose", "t", "swapaxes", "swapdims", "detach", "resize", "resize_as"}
)
"""What, in place, changes how a tensor is seen and none of its values."""


class UnreplayableError(Exception):
    """Why an event cannot be dispatched again."""


@dataclass(frozen=True)
class Replayed:
    """What one event stands for.

    Attributes:
        ops: operators, with names of their own.
        tensors: what they read and write.
        guessed: whether the number format of a list's tensors had to be guessed.
    """

    ops: tuple[Op, ...]
    tensors: Mapping[str, Tensor]
    guessed: bool = False


@dataclass(frozen=True)
class _Operand:
    dims: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype


class Replayer:
    """Dispatches events through the recorder of ``hwsim.trace``; equal events once."""

    def __init__(self) -> None:
        self._done: dict[str, Replayed | UnreplayableError] = {}
        self._seen: dict[tuple[int, ...], torch.dtype] = {}

    def __call__(self, event: Event) -> Replayed:
        """The operators of ``event``.

        Raises:
            UnreplayableError: the trace holds too little to dispatch it again, or a result depends on values.
        """
        kinds = event.args.get("Input type") or []
        dims = event.args.get("Input Dims") or []
        strides = event.args.get("Input Strides") or [[]] * len(dims)
        values = event.args.get("Concrete Inputs") or [""] * len(dims)
        if not len(kinds) == len(dims) == len(strides) == len(values):
            raise UnreplayableError("its arguments in the trace are incomplete")
        lists = [self._list_dtypes(d) if kind == "TensorList" else None for kind, d in zip(kinds, dims, strict=True)]
        key = json.dumps([event.name, kinds, dims, strides, values, str(lists), event.phase])
        if key not in self._done:
            try:
                self._done[key] = self._replay(
                    event.name, event.phase, list(zip(kinds, dims, strides, values, lists, strict=True))
                )
            except UnreplayableError as error:
                self._done[key] = error
        for kind, d in zip(kinds, dims, strict=True):
            if kind in DTYPES and d:
                self._seen[tuple(d)] = DTYPES[kind]
        found = self._done[key]
        if isinstance(found, UnreplayableError):
            raise found
        return found

    def _list_dtypes(self, dims: Any) -> list[torch.dtype | None]:
        """Formats of a list's tensors, which the trace does not tell: those of the last tensors of these sizes."""
        return [self._seen.get(tuple(d)) for d in dims]

    def _replay(self, name: str, phase: Phase, given: list[tuple[Any, ...]]) -> Replayed:
        overload = _overload(name, given)
        recorder = Recorder(values=False)
        recorder.phase = phase
        guessed = any(dtypes is not None and None in dtypes for *_, dtypes in given)
        try:
            with plain_kernels(), quiet(), FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.no_grad():
                recorder.fakes = Fakes(mode)
                alone = not any((kind in DTYPES and kind not in _NUMBERS) or d for kind, d, *_ in given)
                args, kwargs = [], {}
                for argument, entry in zip(overload._schema.arguments, given, strict=True):
                    value = _argument(recorder, argument, entry, alone)
                    if argument.kwarg_only:
                        kwargs[argument.name] = value
                    else:
                        args.append(value)
                with recorder:
                    result = overload(*args, **kwargs)
        except UnreplayableError:
            raise
        except Exception as error:  # whatever an operator raises for arguments that the trace tells in part
            if any(mark in type(error).__name__ for mark in ("DataDependent", "DynamicOutputShape")):
                raise UnreplayableError("the size of its result depends on values") from None
            first = (str(error).strip().splitlines() or [""])[0]
            raise UnreplayableError(f"cannot be dispatched on these sizes: {type(error).__name__}: {first[:120]}") from None
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._seen[tuple(tensor.shape)] = tensor.dtype
        ops = tuple(op for op in recorder.ops if op.source.partition(".")[2].removesuffix("_") not in _VIEWS)
        used = {t for op in ops for t in (*op.inputs, *op.outputs)}
        used |= {recorder.tensors[t].owner for t in used}
        return Replayed(ops, {n: t for n, t in recorder.tensors.items() if n in used}, guessed)


def _overload(name: str, given: list[tuple[Any, ...]]) -> Any:
    """The overload whose arguments are of the kinds that the trace shows (it does not name the overload)."""
    space, _, base = name.partition("::")
    packet = getattr(getattr(torch.ops, space, None), base, None) if base.isidentifier() else None
    if packet is None or not hasattr(packet, "overloads"):
        raise UnreplayableError("no operator of this PyTorch")
    reason = "no overload takes these arguments"
    for label in packet.overloads():
        overload = getattr(packet, label)
        arguments = overload._schema.arguments
        if len(arguments) != len(given):
            continue
        try:
            fits = all(_fits(argument, entry) for argument, entry in zip(arguments, given, strict=True))
        except UnreplayableError as error:
            fits, reason = False, str(error)
        if fits:
            return overload
    raise UnreplayableError(reason)


def _fits(argument: Any, entry: tuple[Any, ...]) -> bool:
    kind, dims, _, value, _ = entry
    wanted = str(argument.type)
    inner = wanted.removeprefix("Optional[").removesuffix("]") if wanted.startswith("Optional[") else wanted
    if kind in DTYPES:
        return inner == "Tensor"
    if kind == "TensorList":
        if inner == "List[Tensor]" and not dims:
            raise UnreplayableError("the trace leaves out the sizes of a list of more than 30 tensors")
        return inner == "List[Tensor]"
    if kind == "Scalar":
        return inner in ("int", "float", "bool", "number")
    if kind == "ScalarList":
        return inner in ("List[int]", "List[float]", "List[bool]") or wanted in ("Optional[List[int]]", "Optional[List[float]]")
    if kind == "" and value == "":
        if wanted.startswith("Optional[") or argument.has_default_value():
            return True
        raise UnreplayableError(f"the trace does not hold its argument {argument.name!r} ({wanted})")
    raise UnreplayableError(f"argument {argument.name!r} of type {kind!r}")


def _argument(recorder: Recorder, argument: Any, entry: tuple[Any, ...], alone: bool) -> Any:
    """The value of an argument, tensors as fakes that the recorder knows by the argument's name.

    ``alone``: no tensor of the call is anything but a number, so that numbers must be tensors.
    """
    kind, dims, strides, value, dtypes = entry
    if kind in DTYPES:
        if kind in _NUMBERS and not dims and not alone:
            return _NUMBERS[kind]
        return _fake(recorder, argument.name, _Operand(tuple(dims), tuple(strides), DTYPES[kind]))
    if kind == "TensorList":
        shown = strides or [[]] * len(dims)
        operands = [_Operand(tuple(d), tuple(s), t or torch.float32) for d, s, t in zip(dims, shown, dtypes, strict=True)]
        return [_fake(recorder, argument.name, operand) for operand in operands]
    if kind == "":
        return argument.default_value if argument.has_default_value() else None
    wanted = str(argument.type)
    if kind == "ScalarList":
        return [_number(part, wanted) for part in value.strip("[]").split(",") if part.strip()]
    return _number(value, wanted)


def _number(text: str, wanted: str) -> int | float | bool:
    word = text.strip()
    try:
        if word in ("True", "False"):
            return word == "True"
        if "float" in wanted or not word.lstrip("-").isdigit():
            return float(word)
        return int(word)
    except ValueError:
        raise UnreplayableError(f"the trace holds {text[:40]!r} where a number is expected") from None


def _fake(recorder: Recorder, name: str, operand: _Operand) -> torch.Tensor:
    """A fake tensor of these sizes; where a stride is 0, a view of the smaller one that it repeats."""
    strides = operand.strides if len(operand.strides) == len(operand.dims) else _contiguous(operand.dims)
    repeated = any(stride == 0 and size > 1 for size, stride in zip(operand.dims, strides, strict=True))
    held = tuple(1 if stride == 0 else size for size, stride in zip(operand.dims, strides, strict=True))
    made = torch.empty_strided(held, strides, dtype=operand.dtype, device="cpu")
    floating = operand.dtype.is_floating_point
    role: Role = "input" if floating else "index"
    if floating and name in _WEIGHTS:
        role = "weight"
    elif floating and name in _STATES:
        role = "state"
    elif floating and recorder.phase == "backward" and "grad" in name:
        role = "gradient"
    recorder.register(made, name, role)
    return made.expand(operand.dims) if repeated else made


def _contiguous(dims: tuple[int, ...]) -> tuple[int, ...]:
    strides: list[int] = []
    step = 1
    for size in reversed(dims):
        strides.insert(0, step)
        step *= max(1, size)
    return tuple(strides)
