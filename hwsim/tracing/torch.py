"""Workloads from PyTorch: a module or function captured below autograd, on fake tensors, so that nothing is computed."""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import logging
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any, Literal

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map_only

from hwsim.operators import Op, Phase
from hwsim.tracing._aten import NO_COST, Call, Part, describe
from hwsim.workload import Role, Tensor, Workload
from numerics.errors import InputError

_DTYPES = {
    torch.float64: "fp64", torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16",
    torch.float8_e4m3fn: "e4m3fn", torch.float8_e5m2: "e5m2", torch.float8_e4m3fnuz: "e4m3fnuz",
    torch.float8_e5m2fnuz: "e5m2fnuz", torch.float8_e8m0fnu: "e8m0fnu", torch.int8: "int8", torch.uint8: "uint8",
    torch.int16: "int16",
    torch.uint16: "uint16", torch.int32: "int32", torch.uint32: "uint32", torch.int64: "int64", torch.uint64: "uint64",
    torch.bool: "bool", torch.complex64: "complex64", torch.complex128: "complex128", torch.qint8: "int8",
    torch.quint8: "uint8", torch.qint32: "int32",
}  # fmt: skip

CACHE_ROLES: Mapping[str, Role] = {"*cache*": "kv_cache", "past_key*": "kv_cache"}
"""Input names that hold keys and values of earlier tokens, unless the caller says otherwise."""

Mode = Literal["inference", "training"]

_PRIMARY = frozenset({"matmul", "convolution", "attention", "normalization", "pooling", "gather", "elementwise"})
"""Kinds whose operator bears the plain path of the leaf module it is the work of."""


def _format_of(dtype: torch.dtype) -> str:
    if dtype not in _DTYPES:
        raise InputError(f"trace: tensors of dtype {dtype} are not supported")
    return _DTYPES[dtype]


class _Recorder(TorchDispatchMode):
    """Records every dispatched call as operators on named tensors."""

    def __init__(self, *, values: bool) -> None:
        super().__init__()
        self.values = values
        self.fakes: _Fakes | None = None
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


@contextlib.contextmanager
def _module_paths(roots: Mapping[str, torch.nn.Module], recorder: _Recorder) -> Iterator[None]:
    """Keep the recorder's stack of module paths while the modules of ``roots`` run."""
    if not roots:
        yield
        return
    found = [entry for prefix, root in roots.items() for entry in root.named_modules(prefix=prefix)]
    paths = {id(module): path for path, module in reversed(found)}
    recorder.leaves = {path for path, module in found if path and not any(True for _ in module.children())}

    def enter(module: torch.nn.Module, _: Any) -> None:
        recorder.modules.append(paths.get(id(module), recorder.modules[-1] if recorder.modules else ""))

    def leave(module: torch.nn.Module, _: Any, __: Any) -> None:
        recorder.modules.pop()

    register = torch.nn.modules.module
    handles = [
        register.register_module_forward_pre_hook(enter),
        register.register_module_forward_hook(leave, always_call=True),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        recorder.modules.clear()


@contextlib.contextmanager
def _plain_kernels() -> Iterator[None]:
    """Switch off fused fast paths, so that an LSTM or a transformer layer shows the operators it consists of."""
    fast = torch.backends.mha.get_fastpath_enabled()
    onednn = torch._C._get_mkldnn_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        torch._C._set_mkldnn_enabled(onednn)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch from logging the traceback of an error that we report in one line."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


class _Fakes:
    """Fake tensors on a fake CPU for real or meta tensors, one for one."""

    device = torch.device("cpu")

    def __init__(self, mode: FakeTensorMode) -> None:
        self.mode = mode
        self._made: dict[int, torch.Tensor] = {}
        self._originals: list[torch.Tensor] = []

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        made = self._made.get(id(tensor))
        if made is None:
            if torch.nn.parameter.is_lazy(tensor):
                raise InputError("trace: the module has lazy parameters without a shape; run it once on real data first")
            if tensor.layout is not torch.strided:
                raise InputError(f"trace: tensors of layout {tensor.layout} are not supported; convert them with to_dense()")
            with self.mode:
                made = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=self.device)
                if isinstance(tensor, torch.nn.Parameter):
                    made = torch.nn.Parameter(made, requires_grad=tensor.requires_grad)
                else:
                    made.requires_grad_(tensor.requires_grad and tensor.is_floating_point())
            self._made[id(tensor)] = made
            self._originals.append(tensor)
        return made


@contextlib.contextmanager
def _untouched(roots: Iterable[torch.nn.Module]) -> Iterator[list[Any]]:
    """Give the places that hold the attributes of all modules of ``roots``.

    Afterwards every module has the attributes it had before, and every list, dict and set among them its content, whatever the
    program assigned meanwhile.
    """
    modules = {id(module): module for root in roots for module in root.modules()}.values()
    holders: list[Any] = [holder for m in modules for holder in (m._parameters, m._buffers, m.__dict__)]
    saved = [(holder, dict(holder.items())) for holder in holders]
    containers = [(c, copy.copy(c)) for m in modules for c in vars(m).values() if type(c) in (list, dict, set)]
    try:
        yield holders
    finally:
        for container, content in containers:
            container.clear()
            if isinstance(container, list):
                container.extend(content)
            else:
                container.update(content)
        for holder, before in saved:
            after = dict(holder.items())
            for key in after.keys() - before.keys():
                del holder[key]
            for key, value in before.items():
                if key not in after or after[key] is not value:
                    holder[key] = value


@contextlib.contextmanager
def _fake_parameters(roots: Iterable[torch.nn.Module], fakes: _Fakes) -> Iterator[None]:
    """Put fake tensors in the place of all parameters, buffers and tensor attributes of ``roots``, and back."""
    with _untouched(roots) as holders:
        for holder in holders:
            for key, value in list(holder.items()):
                if isinstance(value, torch.Tensor):
                    holder[key] = fakes(value)
        yield


@contextlib.contextmanager
def _real_values(roots: Iterable[torch.nn.Module]) -> Iterator[None]:
    """Let ``roots`` run on their own tensors, and give the buffers the values they had."""
    roots = list(roots)
    with _untouched(roots):
        buffers = [(buffer, buffer.clone()) for root in roots for buffer in root.buffers()]
        yield
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)


def _roots(model: Callable[..., Any]) -> dict[str, torch.nn.Module]:
    """Prefix → module for the modules that run: the model itself, or those a function refers to by name."""
    if isinstance(model, torch.nn.Module):
        return {"": model}
    bound = getattr(model, "__self__", None)
    if isinstance(bound, torch.nn.Module):
        return {"": bound}
    if isinstance(model, functools.partial):
        given = {f"arg{i}": value for i, value in enumerate(model.args)} | dict(model.keywords)
        return {**_roots(model.func), **{k: v for k, v in given.items() if isinstance(v, torch.nn.Module)}}
    if bound is not None and inspect.ismethod(model):
        return _modules_in(vars(bound) if hasattr(bound, "__dict__") else {})
    if not inspect.isfunction(model):
        return _modules_in(getattr(model, "__dict__", {}))
    try:
        names = inspect.getclosurevars(model)
    except ValueError:  # a variable of the closure has no value yet
        return {}
    return _modules_in({**names.globals, **names.nonlocals})


def _modules_in(variables: Mapping[str, Any]) -> dict[str, torch.nn.Module]:
    """The modules among variables, and those in lists, tuples and dicts among them: path → module."""
    found: dict[str, torch.nn.Module] = {}
    for key, value in variables.items():
        if isinstance(value, torch.nn.Module):
            found[key] = value
        elif type(value) in (list, tuple):
            found.update({f"{key}.{i}": v for i, v in enumerate(value) if isinstance(v, torch.nn.Module)})
        elif type(value) is dict:
            found.update({f"{key}.{k}": v for k, v in value.items() if isinstance(v, torch.nn.Module)})
    return found


def _user_line(error: BaseException) -> str:
    """``file:line: code`` of the innermost frame that is neither torch's nor ours."""
    frames = traceback.extract_tb(error.__traceback__)
    for frame in reversed(frames):
        if "/torch/" not in frame.filename and "/hwsim/tracing/" not in frame.filename and not frame.filename.startswith("<"):
            return f"{frame.filename}:{frame.lineno}: {frame.line}"
    return "the traced function"


def _input_names(function: Callable[..., Any], inputs: tuple[Any, ...]) -> list[tuple[str, torch.Tensor]]:
    """A readable name for each tensor among the inputs: parameter name and path (``cache.0.1``)."""
    target = function.forward if isinstance(function, torch.nn.Module) else function
    try:
        bound: Mapping[str, Any] = inspect.signature(target).bind(*inputs).arguments
    except (TypeError, ValueError):
        bound = {f"input{i}": value for i, value in enumerate(inputs)}
    found: list[tuple[str, torch.Tensor]] = []

    def walk(path: str, value: Any) -> None:
        if isinstance(value, torch.Tensor):
            found.append((path, value))
        elif isinstance(value, Mapping):
            for key, item in value.items():
                walk(f"{path}.{key}", item)
        elif isinstance(value, list | tuple):
            for index, item in enumerate(value):
                walk(f"{path}.{index}", item)

    for key, value in bound.items():
        walk(key, value)
    return found


def _default_loss(output: Any) -> torch.Tensor:
    """The sum of the first floating-point output."""
    for leaf in tree_leaves(output):
        if isinstance(leaf, torch.Tensor) and leaf.is_floating_point():
            return leaf.sum()
    raise InputError("trace: mode 'training' needs a floating-point output to differentiate; give loss=")


def trace(
    model: torch.nn.Module | Callable[..., Any],
    *example_inputs: Any,
    mode: Mode = "inference",
    values: bool = False,
    name: str | None = None,
    loss: Callable[[Any], torch.Tensor] | None = None,
    optimizer: Callable[[Any], torch.optim.Optimizer] | None = None,
    roles: Mapping[str, Role] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Workload:
    """Capture a PyTorch module or function as a workload.

    The program runs once, below autograd, on fake tensors: nothing is computed and no memory of its size is taken, wherever its
    parameters live (CPU, GPU, meta). Every dispatched operator is recorded with the path of its module and its phase. Views
    cost nothing; in-place results share memory with what they overwrite.

    Args:
        model: a module (put into eval mode for ``inference``, train mode for ``training``, and back) or a function; the modules
            that a function refers to by name are treated as the module is, with that name before their paths.
        example_inputs: its positional arguments; tensors may be on any device, ``meta`` included.
        mode: ``inference``, or ``training`` for forward, backward and one optimizer step.
        values: run on real tensors instead and record the density (fraction of non-zeros) of each tensor.
        name: name of the workload; the class or function name otherwise.
        loss: for training, output → scalar; the sum of the first floating-point output otherwise.
        optimizer: for training, parameters → optimizer; AdamW otherwise.
        roles: shell pattern of input names → role; inputs called ``*cache*`` or ``past_key*`` are ``kv_cache`` otherwise.
        metadata: kept with the workload.

    Raises:
        InputError: data-dependent control flow (the line is named), values asked of meta tensors, an error inside the model,
            a lazy or sparse tensor, ``values`` in ``training`` of a function's modules.
    """
    if mode not in ("inference", "training"):
        raise InputError(f"mode: expected 'inference' or 'training', got {mode!r}")
    if not callable(model):
        raise InputError(f"trace: expected a torch.nn.Module or a function, got {type(model).__name__}")
    if values and mode == "training":
        model = _copied(model)  # the step must not train the caller's model
    roots = _roots(model)
    recorder = _Recorder(values=values)
    was_training = [(m, m.training) for root in roots.values() for m in root.modules()]
    try:
        for root in roots.values():
            root.train(mode == "training")
        with contextlib.ExitStack() as stack:
            stack.enter_context(_plain_kernels())
            inputs: tuple[Any, ...] = example_inputs
            if values:
                _require_values(roots, inputs)
                stack.enter_context(_real_values(roots.values()))
            else:
                stack.enter_context(_quiet())
                fake_mode = stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
                recorder.fakes = fakes = _Fakes(fake_mode)
                inputs = tree_map_only(torch.Tensor, fakes, inputs)
                stack.enter_context(_fake_parameters(roots.values(), fakes))
            input_names = _register(recorder, model, roots, inputs, {**CACHE_ROLES, **(roles or {})})
            outputs = _run(recorder, model, roots, inputs, mode, loss, optimizer)
            workload_outputs = tuple(dict.fromkeys(recorder.read(t) for t in tree_leaves(outputs) if isinstance(t, torch.Tensor)))
    finally:
        for m, flag in was_training:
            m.training = flag
    recorder.ops = _without_unread(recorder.ops, workload_outputs, recorder.tensors)
    label = name or str(type(model).__name__ if isinstance(model, torch.nn.Module) else getattr(model, "__name__", "function"))
    used = {t for op in recorder.ops for t in (*op.inputs, *op.outputs)} | set(workload_outputs) | set(input_names)
    used |= {recorder.tensors[t].owner for t in used}
    return Workload(
        name=label,
        ops=tuple(recorder.ops),
        tensors={n: t for n, t in recorder.tensors.items() if n in used},
        inputs=tuple(input_names),
        outputs=workload_outputs,
        metadata={"source": "torch", "mode": mode, **(metadata or {})},
    )


def _without_unread(ops: list[Op], outputs: tuple[str, ...], tensors: Mapping[str, Tensor]) -> list[Op]:
    """The operators without their secondary results that nothing reads (statistics and indices kept for a backward pass)."""
    read = {tensors[t].owner for op in ops for t in op.inputs} | {tensors[t].owner for t in outputs}
    return [
        replace(op, outputs=op.outputs[:1] + tuple(t for t in op.outputs[1:] if tensors[t].owner in read))
        if len(op.outputs) > 1
        else op
        for op in ops
    ]


def _copied(model: Callable[..., Any]) -> Callable[..., Any]:
    """A copy of a module, or of a bound method with its module; a function has to look after what it trains."""
    bound = getattr(model, "__self__", None)
    if isinstance(bound, torch.nn.Module):
        return getattr(copy.deepcopy(bound), model.__name__)
    if not isinstance(model, torch.nn.Module) and _roots(model):
        raise InputError("trace: values=True with mode='training' would train the modules of a function; trace the module itself")
    return copy.deepcopy(model) if isinstance(model, torch.nn.Module) else model


def _named(roots: Mapping[str, torch.nn.Module], what: Literal["parameters", "buffers"]) -> list[tuple[str, torch.Tensor]]:
    """(path, tensor) of all parameters or buffers, each once."""
    found = [entry for prefix, root in roots.items() for entry in getattr(root, f"named_{what}")(prefix=prefix)]
    return list({id(tensor): (path, tensor) for path, tensor in reversed(found)}.values())[::-1]


def _require_values(roots: Mapping[str, torch.nn.Module], inputs: tuple[Any, ...]) -> None:
    held = _named(roots, "parameters") + _named(roots, "buffers")
    held += [("an input", t) for t in tree_leaves(inputs) if isinstance(t, torch.Tensor)]
    for label, tensor in held:
        if tensor.device.type == "meta":
            raise InputError(f"trace: values=True needs real tensors, but {label} is on the meta device")


def _register(
    recorder: _Recorder,
    model: Callable[..., Any],
    roots: Mapping[str, torch.nn.Module],
    inputs: tuple[Any, ...],
    roles: Mapping[str, Role],
) -> list[str]:
    """Name parameters, buffers and inputs before the program runs."""
    for path, parameter in _named(roots, "parameters"):
        if recorder.owner(parameter) is None:
            recorder.register(parameter, path, "weight")
    for path, buffer in _named(roots, "buffers"):
        if recorder.owner(buffer) is None:
            recorder.register(buffer, path, "state")
    names = []
    for path, tensor in _input_names(model, inputs):
        if recorder.owner(tensor) is not None:
            continue
        role = next((r for pattern, r in roles.items() if fnmatchcase(path, pattern)), None)
        if role is None:
            role = "input" if tensor.is_floating_point() else "index"
        names.append(recorder.register(tensor, path, role))
    return names


def _run(
    recorder: _Recorder,
    model: Callable[..., Any],
    roots: Mapping[str, torch.nn.Module],
    inputs: tuple[Any, ...],
    mode: Mode,
    loss: Callable[[Any], torch.Tensor] | None,
    optimizer: Callable[[Any], torch.optim.Optimizer] | None,
) -> Any:
    """Run the program under the recorder; any error becomes one line that names the place."""
    try:
        with _module_paths(roots, recorder), recorder:
            if mode == "inference":
                with torch.no_grad():
                    return model(*inputs)
            return _train(recorder, model, roots, inputs, loss, optimizer)
    except InputError:
        raise
    except Exception as error:
        place = _user_line(error)
        if any(mark in type(error).__name__ for mark in ("DataDependent", "DynamicOutputShape")):
            raise InputError(
                f"trace: control flow or a shape depends on tensor values at {place}; "
                "trace a function without it, or use values=True"
            ) from error
        first = str(error).strip().splitlines()
        raise InputError(f"trace: {type(error).__name__} at {place}: {first[0] if first else ''}") from error


def _train(
    recorder: _Recorder,
    model: Callable[..., Any],
    roots: Mapping[str, torch.nn.Module],
    inputs: tuple[Any, ...],
    loss: Callable[[Any], torch.Tensor] | None,
    optimizer: Callable[[Any], torch.optim.Optimizer] | None,
) -> Any:
    with torch.enable_grad():
        output = model(*inputs)
        value = (loss or _default_loss)(output)
        if not isinstance(value, torch.Tensor) or value.numel() != 1:
            raise InputError("trace: loss must return a scalar tensor")
        recorder.phase = "backward"
        value.backward()
    recorder.phase = "update"
    named = [(path, p) for path, p in _named(roots, "parameters") if p.requires_grad]
    if named:
        step = (optimizer or torch.optim.AdamW)([p for _, p in named])
        recorder.paused = True
        step.step()  # makes the optimizer's state; the step recorded is one like all that follow
        recorder.paused = False
        for path, parameter in named:
            where = path.rpartition(".")[0]
            known = [parameter] if parameter.grad is None else [parameter, parameter.grad]
            recorder.module_of.update({recorder.tensors[recorder.read(t)].owner: where for t in known})
            for key, tensor in step.state.get(parameter, {}).items():
                if isinstance(tensor, torch.Tensor) and recorder.owner(tensor) is None:
                    recorder.module_of[recorder.register(tensor, f"{path}.{key}", "optimizer_state")] = where
        step.step()
    return output
