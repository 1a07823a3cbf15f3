"""Workloads from PyTorch: a module or function captured below autograd, on fake tensors, so that nothing is computed."""

from __future__ import annotations

import contextlib
import copy
import inspect
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any, Literal

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_leaves, tree_map_only

from hwsim.operators import Op
from hwsim.tracing._modules import Fakes, fake_parameters, module_paths, plain_kernels, quiet, real_values, roots_of
from hwsim.tracing._recorder import Recorder
from hwsim.workload import Role, Tensor, Workload
from numerics.errors import InputError

CACHE_ROLES: Mapping[str, Role] = {"*cache*": "kv_cache", "past_key*": "kv_cache"}
"""Input names that hold keys and values of earlier tokens, unless the caller says otherwise."""

Mode = Literal["inference", "training"]


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
    roots = roots_of(model)
    recorder = Recorder(values=values)
    was_training = [(m, m.training) for root in roots.values() for m in root.modules()]
    try:
        for root in roots.values():
            root.train(mode == "training")
        with contextlib.ExitStack() as stack:
            stack.enter_context(plain_kernels())
            inputs: tuple[Any, ...] = example_inputs
            if values:
                _require_values(roots, inputs)
                stack.enter_context(real_values(roots.values()))
            else:
                stack.enter_context(quiet())
                fake_mode = stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
                recorder.fakes = fakes = Fakes(fake_mode)
                inputs = tree_map_only(torch.Tensor, fakes, inputs)
                stack.enter_context(fake_parameters(roots.values(), fakes))
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
    if not isinstance(model, torch.nn.Module) and roots_of(model):
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
    recorder: Recorder,
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
    recorder: Recorder,
    model: Callable[..., Any],
    roots: Mapping[str, torch.nn.Module],
    inputs: tuple[Any, ...],
    mode: Mode,
    loss: Callable[[Any], torch.Tensor] | None,
    optimizer: Callable[[Any], torch.optim.Optimizer] | None,
) -> Any:
    """Run the program under the recorder; any error becomes one line that names the place."""
    try:
        with module_paths(roots, recorder), recorder:
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
    recorder: Recorder,
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
