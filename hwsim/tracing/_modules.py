"""The modules a traced program runs: found, put on fake tensors, watched, and left as they were."""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from numerics.errors import InputError

if TYPE_CHECKING:
    from hwsim.tracing._recorder import Recorder


@contextlib.contextmanager
def module_paths(roots: Mapping[str, torch.nn.Module], recorder: Recorder) -> Iterator[None]:
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
def plain_kernels() -> Iterator[None]:
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
def quiet() -> Iterator[None]:
    """Keep torch from logging the traceback of an error that we report in one line."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


class Fakes:
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
def fake_parameters(roots: Iterable[torch.nn.Module], fakes: Fakes) -> Iterator[None]:
    """Put fake tensors in the place of all parameters, buffers and tensor attributes of ``roots``, and back."""
    with _untouched(roots) as holders:
        for holder in holders:
            for key, value in list(holder.items()):
                if isinstance(value, torch.Tensor):
                    holder[key] = fakes(value)
        yield


@contextlib.contextmanager
def real_values(roots: Iterable[torch.nn.Module]) -> Iterator[None]:
    """Let ``roots`` run on their own tensors, and give the buffers the values they had."""
    roots = list(roots)
    with _untouched(roots):
        buffers = [(buffer, buffer.clone()) for root in roots for buffer in root.buffers()]
        yield
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)


def roots_of(model: Callable[..., Any]) -> dict[str, torch.nn.Module]:
    """Prefix → module for the modules that run: the model itself, or those a function refers to by name."""
    if isinstance(model, torch.nn.Module):
        return {"": model}
    bound = getattr(model, "__self__", None)
    if isinstance(bound, torch.nn.Module):
        return {"": bound}
    if isinstance(model, functools.partial):
        given = {f"arg{i}": value for i, value in enumerate(model.args)} | dict(model.keywords)
        return {**roots_of(model.func), **{k: v for k, v in given.items() if isinstance(v, torch.nn.Module)}}
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
