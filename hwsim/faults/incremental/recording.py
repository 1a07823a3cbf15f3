"""What an emulated network does: the torch functions that its modules call, and the operands that each of them quantises."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from numerics.errors import InputError

if TYPE_CHECKING:
    import torch

    from numerics.emulation import Emulation, OperandKey


class Unsupported(InputError):  # noqa: N818 (said of a network; the error is that it was asked for)
    """A network that incremental runs do not take; the message says which operator, and why."""


@dataclass(frozen=True)
class RecordedCall:
    """A torch function that a module called.

    Attributes:
        name: of the function, without marks.
        module: path of the module that called it.
        args, kwargs: as given.
        result: what it returned.
        operands: what was quantised meanwhile, before that, in order.
    """

    name: str
    module: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any
    operands: list[tuple[OperandKey, torch.Tensor]] = field(default_factory=list)

    @property
    def where(self) -> str:
        """How errors call it."""
        return f"{self.name} in module {self.module or '(root)'!r}"

    def key(self, role: str) -> OperandKey | None:
        """The key of the operand that is called so; None where it was not quantised."""
        return next((key for key, _ in self.operands if key.role == role), None)

    def bound(self, *names: str, **defaults: Any) -> list[Any]:
        """The arguments by name; positional ones take the names in order."""
        given = dict(zip((*names, *defaults), self.args, strict=False)) | self.kwargs
        return [given.get(name, defaults.get(name)) for name in (*names, *defaults)]


def record(emulation: Emulation, images: torch.Tensor) -> tuple[list[RecordedCall], torch.Tensor, torch.Tensor]:
    """The calls of one forward pass, in order; the input that the module was given, and its result.

    Raises:
        InputError: as the emulation.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    from numerics.emulation.function_names import base_name

    calls: list[RecordedCall] = []
    notes: list[tuple[OperandKey, torch.Tensor]] = []
    context = emulation._context

    class Recorder(TorchFunctionMode):
        """Sees a function before the emulation does."""

        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            notes.clear()
            found = func(*args, **(kwargs or {}))
            module = context.frames[-1].module if context.frames else ""
            calls.append(RecordedCall(base_name(func), module, tuple(args), dict(kwargs or {}), found, list(notes)))
            return found

    recorder = Recorder()

    def enter(*_: Any) -> None:
        recorder.__enter__()

    def leave(*_: Any) -> None:
        recorder.__exit__(None, None, None)

    # The emulation's own mode is entered by the hook before this one and left by the hook after.
    hooks = [
        emulation.module.register_forward_pre_hook(enter),
        emulation.module.register_forward_hook(leave, prepend=True, always_call=True),
    ]
    given = images.clone()
    try:
        with emulation.observe(lambda key, x: notes.append((key, x))), torch.no_grad():
            result = emulation(given)
    finally:
        for hook in hooks:
            hook.remove()
    if not isinstance(result, torch.Tensor):
        raise Unsupported(f"model: incremental runs take one tensor as its output, got {type(result).__name__}")
    return calls, given, result
