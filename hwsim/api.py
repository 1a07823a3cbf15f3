"""The short way in: a model and a device's name, a report out."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwsim.device import Device
from hwsim.plugins import load_group
from hwsim.registry import get_device
from hwsim.report import Report
from hwsim.workload import Workload
from numerics.errors import InputError, nearest_names, unknown_name
from numerics.recipes import Recipe

if TYPE_CHECKING:
    from hwsim.tracing.torch import Mode


def simulate(
    model: Any,
    *example_inputs: Any,
    device: str | Path | Mapping[str, Any] | Device,
    recipe: str | Recipe | None = None,
    fidelity: str | None = None,
    mode: Mode = "inference",
    overrides: Mapping[str, Any] | None = None,
) -> Report:
    """What a model costs on a device.

    Args:
        model: a PyTorch module or function (then give example inputs), a workload, or what ``workload_from`` takes: a zoo name,
            a file, ``package.module:callable``.
        example_inputs: tensors on any device, ``meta`` included; nothing is computed with them, but for event-driven devices,
            into which they go.
        device: name of a bundled device, a YAML file, a spec's data or a device.
        recipe: number formats; the device's default formats otherwise.
        fidelity: a rung of the device's ladder.
        mode: ``inference`` or ``training``.
        overrides: dotted spec field → value.

    Raises:
        InputError: anything unknown or impossible, in one line.
    """
    machine = get_device(device, overrides=overrides)
    if isinstance(model, Workload):
        if example_inputs or mode != "inference":
            raise InputError("simulate: a workload is traced already; leave the example inputs and the mode out")
        workload = model
    elif isinstance(model, str | Path):
        if example_inputs:
            raise InputError(f"simulate: {str(model)!r} brings its own inputs; leave the example inputs out")
        workload = workload_from(str(model), mode=mode, device=machine)
    elif (spiking := _spiking(machine)) and mode == "inference":
        workload = spiking(model, *example_inputs)
    else:
        from hwsim.tracing.torch import trace

        workload = trace(model, *example_inputs, mode=mode)
    if recipe is not None:
        workload = workload.with_formats(recipe)
    return machine.simulate(workload, fidelity=fidelity)


def _spiking(device: Device | None) -> Callable[..., Workload] | None:
    """What makes workloads of spiking modules, on a device that runs nothing else."""
    made: Callable[..., Workload] | None = getattr(device, "workload", None)
    return made if getattr(device, "event_driven", False) else None


@cache
def loaders() -> dict[str, Callable[..., Workload]]:
    """File suffix (without the dot) → loader, from the entry-point group ``hwsim.loaders``."""
    return load_group("hwsim.loaders")


def load_workload(path: str | Path, *, batch: int | None = None, **options: Any) -> Workload:
    """The workload in a file: ``.onnx``, SCALE-Sim's ``.csv``, ``.json``, ``.nir``, or a suffix that another package registered.

    Args:
        batch: samples at once.
        options: what only some files leave open, such as ``steps`` and ``rate`` of a spiking network's input; None: left out.

    Raises:
        InputError: no loader for the suffix, a file that cannot be read, an option that such a file does not take.
    """
    suffix = Path(path).suffix.removeprefix(".").lower()
    if suffix not in loaders():
        raise InputError(f"{path}: no loader for {suffix!r} files; known: {', '.join(sorted(loaders()))}")
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file")
    load = loaders()[suffix]
    given = {name: value for name, value in {"batch": batch, **options}.items() if value is not None}
    for name in given:
        if name not in inspect.signature(load).parameters:
            raise InputError(f"{name}: a .{suffix} file leaves no such choice; leave {name} out")
    return load(path, **given)


def workload_from(
    model: str,
    *,
    batch: int | None = None,
    seq_len: int | None = None,
    kv_len: int | None = None,
    phase: str | None = None,
    mode: Mode = "inference",
    values: bool = False,
    checkpoint: str | None = None,
    device: Device | None = None,
    arguments: Mapping[str, Any] | None = None,
    **options: Any,
) -> Workload:
    """A workload by zoo name, file or ``package.module:callable``.

    The callable is given those of ``batch``, ``seq_len``, ``kv_len`` and ``phase`` that were set, and ``arguments``, and returns
    a workload or ``(module, example_inputs)``. ``options`` are those of a file; see ``load_workload``. With a ``device`` that is
    event-driven, the callable's module is a spiking one, and takes those of them that say what goes in.

    Raises:
        InputError: an unknown model (nearest names listed), an option the model does not take, an error while tracing.
    """
    sizes = {"batch": batch, "seq_len": seq_len, "kv_len": kv_len}
    for key, size in sizes.items():
        if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
            raise InputError(f"{key}: expected an integer ≥ 1, got {size!r}")
    given = {key: value for key, value in {**sizes, "phase": phase}.items() if value is not None}
    for key in arguments or {}:
        if ":" not in model:
            raise InputError(f"{key}: only what package.module:callable names takes arguments; {model} is none")
    if Path(model).suffix.removeprefix(".").lower() in loaders():
        for key in given.keys() - {"batch"}:
            raise InputError(f"{key}: a file fixes its own sizes; leave {key} out")
        for key, used in (
            ("mode", mode != "inference"),
            ("values", values),
            ("checkpoint", checkpoint is not None),
        ):
            if used:
                raise InputError(f"{key}: only PyTorch models can be traced with it; {model} is a file")
        return load_workload(model, batch=batch, **options)
    spiking = _spiking(device) if ":" in model else None
    options = {key: value for key, value in options.items() if value is not None}
    for key in options:
        if spiking is None:
            raise InputError(
                f"{key}: files of spiking networks (.nir) take it, and spiking modules for a chip that runs them; {model} is none"
            )
    from hwsim import zoo

    if ":" in model:
        if checkpoint is not None:
            raise InputError(f"checkpoint: only zoo models load one; {model} returns its own module")
        made = _call(model, {**given, **(arguments or {})})
        if isinstance(made, Workload):
            for key in options:
                raise InputError(f"{key}: {model} returns a workload, into which goes what it says; leave {key} out")
            if values or mode != "inference":
                raise InputError(f"{'values' if values else 'mode'}: {model} returns a workload, which is traced already")
            return made
        module, inputs = made
        if spiking is not None and mode == "inference" and not values:
            return spiking(module, *inputs, name=model.partition(":")[2], **options)
    elif model in zoo.names():
        place = "cpu" if values else "meta"
        inputs = zoo.example_inputs(model, batch=batch, seq_len=seq_len, kv_len=kv_len, phase=phase, device=place)
        module = zoo.build(model, checkpoint=checkpoint, device="cpu" if values else None)
    else:
        hint = nearest_names(model, zoo.names())
        raise InputError(
            f"model: unknown name {model!r}; {hint}; or give a file ({', '.join(f'.{s}' for s in sorted(loaders()))}) "
            "or package.module:callable"
        )
    from hwsim.tracing.torch import trace

    label = model.partition(":")[2] or model
    return trace(module, *inputs, mode=mode, values=values, name=label, metadata={"model": model, **given})


def module_from(model: str, given: Mapping[str, Any]) -> tuple[Any, tuple[Any, ...]]:
    """The module and the example inputs that ``package.module:callable`` returns.

    Raises:
        InputError: it cannot be imported or called, or returns something else.
    """
    made = _call(model, given)
    if isinstance(made, Workload):
        raise InputError(f"model: {model} returns a workload, which computes nothing; expected (module, example_inputs)")
    return made


def _call(model: str, given: Mapping[str, Any]) -> Any:
    """What ``package.module:callable`` returns."""
    module_name, _, attribute = model.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise InputError(f"model: cannot import {module_name!r}: {error}") from error
    except Exception as error:
        raise InputError(f"model: importing {module_name!r} raised {type(error).__name__}: {error}") from error
    function = getattr(module, attribute, None)
    if not callable(function):
        names = [n for n in vars(module) if callable(getattr(module, n)) and not n.startswith("_")]
        raise unknown_name(f"model: callable in {module_name!r}", attribute, names)
    return made_by(function, given, name=model)


def made_by(function: Callable[..., Any], given: Mapping[str, Any], *, name: str) -> Any:
    """What a function of the user's makes of the arguments: a workload, or a module and a tuple of example inputs.

    Raises:
        InputError: an argument that it does not take, whatever it raises, anything else that it returns; ``name`` is what the
            errors call it.
    """
    try:
        parameters = dict(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        parameters = {}
    if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        for key in given:
            if key not in parameters:
                raise InputError(f"{key}: {name} takes no such argument")
    try:
        made = function(**given)
    except (Exception, SystemExit) as error:
        raise InputError(f"model: {name} raised {type(error).__name__}: {error}") from error
    if isinstance(made, Workload):
        return made
    if isinstance(made, tuple) and len(made) == 2 and callable(made[0]):
        inputs = made[1]
        return made[0], inputs if isinstance(inputs, tuple) else (inputs,)
    raise InputError(f"model: {name} must return a Workload or (module, example_inputs), got {type(made).__name__}")
