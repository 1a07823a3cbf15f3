"""``emulate``: a module that computes forward and backward in the formats of a recipe.

The module's own code runs. While it does, a torch function mode sees every function it calls: matrix products, convolutions,
attention, embeddings and recurrent layers are computed from quantised operands, gradients included; what lies between them is
rounded. Everything is listed in ``Emulation.operators``.
"""

from __future__ import annotations

import contextlib
import copy
import fnmatch
import inspect
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from numerics._display import Listing, displayed_by
from numerics.emulation.calls import Call, tensors_in
from numerics.emulation.context import Context, Operator, check_static
from numerics.emulation.expected import end_paths, expected_operators
from numerics.emulation.gemm import MatrixUnit
from numerics.emulation.operators import dispatch
from numerics.emulation.quantised import OperandKey
from numerics.errors import InputError
from numerics.recipes import Recipe, get_recipe
from numerics.scaling import AmaxHistory

_CACHES = ("*cache*", "past_key*")
"""Names of inputs and buffers that hold keys and values of earlier tokens."""


class _Mode(TorchFunctionMode):
    """Gives every torch function to the emulation."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.context = context

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """Run one function as the recipe has it."""
        return dispatch(Call(self.context, self, func, args, kwargs or {}))


class _Hook:
    """A hook on a part of an emulated module.

    Attributes:
        path: of the part.
        owner: the emulation; None in a copy of the module alone, which is a module like any other.
    """

    def __init__(self, path: str, owner: Emulation | None) -> None:
        self.path, self.owner = path, owner

    def __deepcopy__(self, memo: dict[int, Any]) -> _Hook:
        return type(self)(self.path, memo.get(id(self.owner)))


class _Enter(_Hook):
    """Before the forward: says where we are."""

    def __call__(self, module: torch.nn.Module, args: Any) -> None:
        if self.owner is not None:
            self.owner._enter(self.path)


class _Leave(_Hook):
    """After it, also where it failed."""

    def __call__(self, module: torch.nn.Module, args: Any, result: Any) -> None:
        if self.owner is not None:
            self.owner._leave()


def _bare_copy(module: torch.nn.Module) -> torch.nn.Module:
    """A copy without the hooks of another emulation."""
    copied = copy.deepcopy(module)
    for part in copied.modules():
        for hooks in (part._forward_pre_hooks, part._forward_hooks):
            for number in [n for n, hook in hooks.items() if isinstance(hook, _Hook)]:
                del hooks[number]
                part._forward_hooks_always_called.pop(number, None)
    return copied


@displayed_by("numerics._cards:emulation")
class Emulation(torch.nn.Module):
    """A module that computes in the formats of a recipe; made by ``emulate``.

    Attributes:
        module: a copy of the module given; its parameters train.
        recipe: formats, scales and sums; ``first_and_last`` resolved to overrides.
    """

    def __init__(self, module: torch.nn.Module, recipe: Recipe, seed: int, matrix_unit: MatrixUnit | None = None) -> None:
        super().__init__()
        self.module = _bare_copy(module)
        self.recipe = recipe
        self._context = Context(recipe, seed, matrix_unit=matrix_unit)
        self._mode: _Mode | None = None
        self._depth = 0
        self._bypassed = False
        self._expected = expected_operators(self.module, self._context)
        for path, part in self.module.named_modules():
            part.register_forward_pre_hook(_Enter(path, self))
            part.register_forward_hook(_Leave(path, self), always_call=True)

    @property
    def matrix_unit(self) -> MatrixUnit | None:
        """What computes products in place of ``numerics.matmul``."""
        return self._context.matrix_unit

    # --- running --------------------------------------------------------------------------------------------------------

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes, in the recipe's formats. In training mode, a forward pass begins a step.

        Raises:
            InputError: under ``torch.autocast``, which would choose formats of its own; an operand without a scale that the
                recipe wants calibrated.
        """
        for device in {x.device.type for x in (*self.module.parameters(), *tensors_in((args, kwargs)))}:
            if torch.is_autocast_enabled(device):
                raise InputError("autocast: emulation chooses the formats itself; expected torch.autocast to be off")
        context = self._context
        if self.training:
            context.begin_step()
        if context.injection is not None:
            context.injection.begin_pass(self.module)
        if self._changes_nothing() and context.observer is None:
            if not context.rows:
                self._list_only(args, kwargs)
            self._bypassed = True
            try:
                return self.module(*args, **kwargs)
            finally:
                self._bypassed = False
        self._note_inputs(args, kwargs)
        result = self.module(*args, **kwargs)
        if context.injection is not None:
            context.injection.end_pass()
        return result

    def _changes_nothing(self) -> bool:
        """Whether the module as it is does what the recipe asks for, in every part and type."""
        types = {x.dtype for x in (*self.module.parameters(), *self.module.buffers()) if x.is_floating_point()}
        paths = [path for path, _ in self.module.named_modules()]
        return all(self._context.identity(path, dtype) for path in paths for dtype in types or {torch.float32})

    def _list_only(self, args: Any, kwargs: Any) -> None:
        """Run a copy for the list alone: nothing of the module, nor of torch's random numbers, changes."""
        devices = sorted({x.device.index for x in self.module.parameters() if x.device.type == "cuda"})
        twin = copy.deepcopy(self)
        twin._context.rows = self._context.rows
        with torch.random.fork_rng(devices), torch.no_grad():
            twin._note_inputs(args, kwargs)
            twin.module(*args, **kwargs)

    def _note_inputs(self, args: Any, kwargs: Any) -> None:
        """Which tensors are weights, buffers or caches."""
        context = self._context
        context.calls.clear()
        context.roles.clear()
        context.roles.update({id(p): "weight" for p in self.module.parameters()})
        for name, buffer in self.module.named_buffers():
            context.roles[id(buffer)] = "kv_cache" if _is_cache(name.rpartition(".")[2]) else "state"
        try:
            named = inspect.signature(self.module.forward).bind(*args, **kwargs).arguments
        except TypeError:
            named = kwargs
        for name, value in named.items():
            for x in tensors_in((value,)) if _is_cache(name) else ():
                context.mark(x, role="kv_cache", rounded=False)

    def _enter(self, path: str) -> None:
        if self._bypassed:
            return
        if self._depth == 0:
            if not self._context.roles:
                self._note_inputs((), {})
            self._context.training = self.training
            self._mode = _Mode(self._context)
            self._mode.__enter__()
        self._depth += 1
        self._context.enter(path)

    def _leave(self) -> None:
        if self._bypassed:
            return
        self._context.leave()
        self._depth -= 1
        if self._depth == 0 and self._mode is not None:
            self._mode.__exit__(None, None, None)
            self._mode = None

    @contextlib.contextmanager
    def observe(self, callback: Callable[[OperandKey, torch.Tensor], None]) -> Iterator[None]:
        """Show every operand, before it is quantised, to ``callback(key, tensor)``.

        Tensors are detached floats of 32 or 64 bits; those of products have the axis they are summed along last, and their rows
        (output channels of a weight) on the one before. Operands of the backward pass are shown as well, where it runs within.
        """
        if self._context.observer is not None:
            raise InputError("callback: this emulation is observed already; expected one observer at a time")
        self._context.observer = callback
        try:
            yield
        finally:
            self._context.observer = None

    def calibrate(self, scales: Mapping[Any, Any]) -> None:
        """Take the scales of a calibration, for roles whose scaling is ``static``.

        Args:
            scales: ``(module path, operator, role)``, as ``observe`` shows them → a scale, or a pair of scale and zero point;
                numbers, or tensors that broadcast to the operand.

        Raises:
            InputError: a key of another form, or a scale that is not positive and finite.
        """
        self._context.static.update(check_static(scales))

    # --- the list -------------------------------------------------------------------------------------------------------

    @property
    def operators(self) -> list[Operator]:
        """What was replaced and what was not, in the order of the modules. Operators that have not run yet are those expected
        from the kinds of modules; a forward pass completes the list."""
        rows = self._context.rows
        ran = {module for module, _ in rows}
        order = {path: i for i, (path, _) in enumerate(self.module.named_modules())}
        every = [*rows.values(), *(row for row in self._expected if row.module not in ran)]
        return Listing(sorted(every, key=lambda row: order[row.module]))

    def __str__(self) -> str:
        return table(self.operators)

    def print(self) -> None:
        """Print the list."""
        print(self)

    # --- state ----------------------------------------------------------------------------------------------------------

    def get_extra_state(self) -> dict[str, Any]:
        """Step, seed, histories of largest magnitudes and static scales: what makes a run go on bit for bit."""
        context = self._context
        return {
            "step": context.step,
            "seed": context.seed,
            "histories": [(*key, h.length, h.values, h.pending) for key, h in context.histories.items()],
            "static": [(*key, s.scale, s.zero_point) for key, s in context.static.items()],
        }

    def set_extra_state(self, state: Any) -> None:
        """Take what ``get_extra_state`` gave."""
        context = self._context
        context.step, context.seed = state["step"], state["seed"]
        context.histories.clear()
        for module, operator, role, length, values, pending in state["histories"]:
            history = context.histories[OperandKey(module, operator, role)] = AmaxHistory(length)
            history.values, history.pending = values, pending
        context.static = check_static({(m, o, r): (scale, zero) for m, o, r, scale, zero in state["static"]})


def _is_cache(name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in _CACHES)


def emulate(
    module: torch.nn.Module,
    recipe: str | Path | Recipe,
    *,
    example_inputs: Any = None,
    calibration: Mapping[Any, Any] | None = None,
    seed: int = 0,
    matrix_unit: MatrixUnit | None = None,
) -> Emulation:
    """A module that computes forward and backward as a recipe says.

    Args:
        module: any module; it is copied.
        recipe: a recipe, its name, or a file.
        example_inputs: a tensor, a tuple of positional or a mapping of keyword arguments for one forward pass without gradients,
            which completes ``operators``; nothing else of the emulation changes.
        calibration: scales for roles with ``static`` ones; see ``Emulation.calibrate``.
        seed: of stochastic rounding. The same seed gives the same bits, on any device.
        matrix_unit: computes the products whose accumulator the recipe names, in place of ``numerics.matmul``: a model of a
            machine's.

    Raises:
        InputError: an unknown recipe; an override that matches no module; scales that a format cannot have; no module with a
            weight for ``first_and_last``.
    """
    chosen = get_recipe(recipe)
    if not isinstance(module, torch.nn.Module):
        raise InputError(f"module: expected a torch.nn.Module, got {type(module).__name__}")
    if any(isinstance(part, Emulation) for part in module.modules()):
        raise InputError("module: holds an emulation already; give the module without (Emulation.module)")
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise InputError(f"seed: expected an integer ≥ 0, got {seed!r}")
    paths = [path for path, _ in module.named_modules()]
    for override in chosen.overrides:
        if not any(fnmatch.fnmatchcase(path, override.pattern) for path in paths):
            kind = type(module).__name__
            raise InputError(f"recipe {chosen.name!r}: overrides: no module of {kind!r} matches {override.pattern!r}")
    if chosen.first_and_last is not None:
        chosen = chosen.with_ends(*end_paths(module, chosen.name))
    emulation = Emulation(module, chosen, seed, matrix_unit)
    emulation.train(module.training)
    if calibration is not None:
        emulation.calibrate(calibration)
    if example_inputs is not None:
        run = emulation._list_only
        if isinstance(example_inputs, Mapping):
            run((), dict(example_inputs))
        else:
            run(tuple(example_inputs) if isinstance(example_inputs, tuple | list) else (example_inputs,), {})
    return emulation


def table(rows: list[Operator]) -> str:
    """The list as text: one line an operator."""
    head = ("module", "operator", "formats", "sums", "gradients", "emulated")
    lines = [head]
    for row in rows:
        state = "yes" if row.emulated else f"no: {row.reason}"
        state = state if row.seen else f"{state} (expected)"
        lines.append((row.module or "(root)", row.kind, row.formats, row.sums, row.gradients, state))
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)
