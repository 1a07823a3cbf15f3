"""The recorder: every call that PyTorch dispatches, as operators on named tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map_only

from hwsim.operators import Op, Phase
from hwsim.tracing._aten import NO_COST, Call, Part, describe
from hwsim.workload import Role, Tensor
from numerics.errors import InputError

if TYPE_CHECKING:
    from hwsim.tracing._modules import Fakes

_DTYPES = {
    torch.float64: "fp64", torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16",
    torch.float8_e4m3fn: "e4m3fn", torch.float8_e5m2: "e5m2", torch.float8_e4m3fnuz: "e4m3fnuz",
    torch.float8_e5m2fnuz: "e5m2fnuz", torch.float8_e8m0fnu: "e8m0fnu", torch.int8: "int8", torch.uint8: "uint8",
    torch.int16: "int16",
    torch.uint16: "uint16", torch.int32: "int32", torch.uint32: "uint32", torch.int64: "int64", torch.uint64: "uint64",
    torch.bool: "bool", torch.complex64: "complex64", torch.complex128: "complex128", torch.qint8: "int8",
    torch.quint8: "uint8", torch.qint32: "int32",
}  # fmt: skip

_PRIMARY = frozenset({"matmul", "convolution", "attention", "normalization", "pooling", "gather", "elementwise"})
"""Kinds whose operator bears the plain path of the leaf module it is the work of."""


def _format_of(dtype: torch.dtype) -> str:
    if dtype not in _DTYPES:
        raise InputError(f"trace: tensors of dtype {dtype} are not supported")
    return _DTYPES[dtype]


class Recorder(TorchDispatchMode):
    """Records every dispatched call as operators on named tensors."""

    def __init__(self, *, values: bool) -> None:
        super().__init__()
        self.values = values
        self.fakes: Fakes | None = None
        self.phase: Phase = "forward"
        self.paused = False
        self.leaves: set[str] = set()
        self.ops: list[Op] = []
        self.tensors: dict[str, Tensor] = {}
        self.modules: list[str] = []
        self.module_of: dict[str, str] = {}
        self._node_module: dict[int, str] = {}
        self._storages: dict[int, tuple[StorageWeakRef, str]] = {}
        self._current: dict[str, str] = {}
        self._versions: dict[str, int] = {}
        self._views: dict[tuple[Any, ...], str] = {}
        self._names: set[str] = set()
        self._counters: dict[str, int] = {}

    # --- tensors ------------------------------------------------------------------------------------------------------

    def owner(self, tensor: torch.Tensor) -> str | None:
        """Name of the tensor that owns this memory, if it was seen."""
        key = tensor.untyped_storage()._cdata
        known = self._storages.get(key)
        return None if known is None or known[0].expired() else known[1]

    def register(self, tensor: torch.Tensor, name: str, role: Role) -> str:
        """Name new memory."""
        unique = self._unique(name)
        storage = tensor.untyped_storage()
        self._storages[storage._cdata] = (StorageWeakRef(storage), unique)
        if tensor.dtype in (torch.int64, torch.int32, torch.bool) and role in ("activation", "gradient"):
            role = "index"
        self.tensors[unique] = Tensor(
            unique, tuple(int(s) for s in tensor.shape), _format_of(tensor.dtype), role, self._density(tensor)
        )
        self._current[unique] = unique
        return unique

    def read(self, tensor: torch.Tensor) -> str:
        """Name of what is read: the memory's present version, or the part of it that a view shows."""
        owner = self.owner(tensor)
        if owner is None:  # a constant the program holds on to (a plain attribute, a Python number made a tensor)
            return self.register(tensor, "constant", "state")
        current = self._current[owner]
        whole = self.tensors[owner]
        if tensor.numel() == whole.elements:
            return current
        return self._view(tensor, owner, current)

    def _view(self, tensor: torch.Tensor, owner: str, current: str) -> str:
        key = (current, tuple(tensor.shape), tuple(tensor.stride()), tensor.storage_offset())
        name = self._views.get(key)
        if name is None:
            name = self._unique(f"{current}[part]")
            whole = self.tensors[owner]
            self._views[key] = name
            self.tensors[name] = Tensor(
                name,
                tuple(int(s) for s in tensor.shape),
                whole.format,
                whole.role,
                self._density(tensor),
                owner,
            )
        return name

    def write(self, tensor: torch.Tensor, name: str) -> str:
        """Name of what is written: new memory, or a new version of memory already named."""
        owner = self.owner(tensor)
        if owner is None:
            return self.register(tensor, name, "activation" if self.phase == "forward" else "gradient")
        self._versions[owner] = version = self._versions.get(owner, 0) + 1
        whole = self.tensors[owner]
        if tensor.numel() == whole.elements:
            new = self._unique(f"{owner}:{version}")
            self._current[owner] = new
            self.tensors[new] = replace(whole, name=new, storage=owner, density=self._density(tensor))
            return new
        # What is read from now on has new values: new names, so that their densities are measured anew.
        new = self._unique(f"{owner}:{version}")
        self._current[owner] = new
        self.tensors[new] = replace(whole, name=new, storage=owner, density=self._density(self._whole(tensor, whole)))
        return self._view(tensor, owner, new)

    def _whole(self, part: torch.Tensor, whole: Tensor) -> torch.Tensor:
        """The memory behind ``part``, as far as ``whole`` fills it densely (``part`` itself when only shapes are traced)."""
        if not self.values:
            return part
        return part.detach().as_strided((min(whole.elements, part.untyped_storage().nbytes() // part.element_size()),), (1,), 0)

    def _density(self, tensor: torch.Tensor) -> float | None:
        if not self.values or not tensor.numel():
            return None
        with _disable_current_modes():  # counting is no part of the program
            return float(torch.count_nonzero(tensor.detach())) / tensor.numel()

    def _unique(self, name: str) -> str:
        if name not in self._names:
            self._names.add(name)
            return name
        while True:
            self._counters[name] = count = self._counters.get(name, 0) + 1
            candidate = f"{name}_{count}"
            if candidate not in self._names:
                self._names.add(candidate)
                return candidate

    # --- where we are -------------------------------------------------------------------------------------------------

    def _module(self) -> str:
        """Path of the module the present call belongs to.

        In the backward pass, that of the forward call whose autograd node is being run: autograd numbers its nodes, and the
        node of a call is made just before the call is dispatched.
        """
        if self.phase == "forward":
            path = self.modules[-1] if self.modules else ""
            self._node_module.setdefault(torch.autograd._get_sequence_nr() - 1, path)
            return path
        if self.phase == "backward":
            if self.modules:  # a checkpointed module runs forward once more
                return self.modules[-1]
            node = torch._C._current_autograd_node()
            if node is not None:
                return self._node_module.get(node._sequence_nr(), "")
        return ""

    # --- dispatch -----------------------------------------------------------------------------------------------------

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._overloadpacket.__name__
        if name == "_local_scalar_dense" and self.phase == "update" and not self.values:
            return 1000.0  # an optimizer reads its step counter (or a product of decays); no shape depends on it
        if self.paused:
            return func(*args, **kwargs)
        if self.fakes is not None and name not in NO_COST:
            args, kwargs = tree_map_only(torch.Tensor, self._faked, (args, kwargs))
            if kwargs.get("device") is not None:  # all fakes live on one fake device, whatever the program asks for
                kwargs = {**kwargs, "device": self.fakes.device}
        mutable = func._schema.is_mutable
        base = name.removesuffix("_") if mutable and not name.startswith("__") else name
        read_before: list[str] = []
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        if name not in NO_COST:
            # Names of what is read are fixed before the call, which may overwrite it.
            read_before = [self.read(t) for t in tensors]
        result = func(*args, **kwargs)
        if name in NO_COST:
            return result
        outputs = [t for t in tree_leaves(result) if isinstance(t, torch.Tensor)]
        written = self._mutated(func, args, kwargs) if mutable else []
        storages = {t.untyped_storage()._cdata for t in tensors}
        fresh = [t for t in outputs if t.untyped_storage()._cdata not in storages]
        if not written and not fresh:
            return result  # a view
        call = Call(base, tuple(args), kwargs, outputs or written, tensors, torch.Tag.pointwise in func.tags)
        names = {id(t): n for t, n in zip(tensors, read_before, strict=True)}
        results = written + [t for t in fresh if all(t is not w for w in written)]
        for part in describe(call):
            self._add(
                part,
                call,
                names,
                results,
                f"aten.{name}" if func.namespace == "aten" else f"{func.namespace}.{name}",
            )
        return result

    def _faked(self, tensor: torch.Tensor) -> torch.Tensor:
        """The fake for a real or meta tensor that the program holds on to: a list's element, a variable of its surroundings."""
        if isinstance(tensor, FakeTensor):
            return tensor
        assert self.fakes is not None
        made = self.fakes(tensor)
        if self.owner(made) is None:
            self.register(made, "constant", "state")
        return made

    @staticmethod
    def _mutated(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[torch.Tensor]:
        found: list[torch.Tensor] = []
        for position, argument in enumerate(func._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                value = args[position] if position < len(args) else kwargs.get(argument.name)
                found += [t for t in tree_leaves(value) if isinstance(t, torch.Tensor)]
        return found

    def _add(self, part: Part, call: Call, names: dict[int, str], results: list[torch.Tensor], source: str) -> None:
        module = self._module()
        read = part.inputs if part.inputs is not None else call.tensors
        inputs = [names.get(id(t)) or self.read(t) for t in read]
        owners = [self.tensors[n].owner for n in inputs]
        if self.phase == "update":
            found = list(dict.fromkeys(self.module_of[o] for o in owners if o in self.module_of))
            module = found[0] if len(found) == 1 else ""
        label = part.cls.kind if part.cls.is_matrix else call.name.strip("_").removesuffix("_backward")
        suffix = part.suffix or (f"{label}_backward" if self.phase == "backward" else label)
        primary = self.phase == "forward" and module in self.leaves and part.cls.kind in _PRIMARY
        if primary and part.cls.kind == "elementwise":  # not the step counter of a batch norm
            primary = any(self.tensors[o].role in ("activation", "input") for o in owners)
        op_name = self._unique(module if primary else f"{module}/{suffix}" if module else suffix)
        wanted = part.outputs if part.outputs is not None else results
        outputs = tuple(
            self.write(t, f"{op_name}.out" if i == 0 else f"{op_name}.out{i}")
            for i, t in enumerate(wanted)
            if t is not None and t.numel()
        )
        if self.phase == "update" and module:
            self.module_of.update({self.tensors[n].owner: module for n in outputs})
        self.ops.append(
            part.cls(
                name=op_name,
                inputs=tuple(inputs),
                outputs=outputs,
                module=module,
                phase=self.phase,
                source=source,
                **part.dims,
            )
        )
