"""The model zoo: short definitions of well-known networks with random weights.

Parameter names and shapes are those of the public checkpoints, which ``build`` can load. Listing the models
does not import torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwsim.zoo.registry import ZooModel, get, names
from numerics.errors import InputError, unknown_name

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ZooModel", "build", "example_inputs", "get", "names"]

PHASES = ("prefill", "decode")
_SEED = 0


def build(name: str, *, checkpoint: str | Path | None = None, device: str | None = None) -> nn.Module:
    """The model called ``name`` in eval mode.

    Args:
        name: one of ``names()``.
        checkpoint: a file of weights (see ``hwsim.zoo.checkpoint.load``); without one they are random, the
            same at each call.
        device: where the weights live; by default those of a checkpoint on ``cpu``, random ones on ``meta``,
            which allocates nothing.

    Raises:
        InputError: an unknown model, or a checkpoint that cannot be read or does not fit.
    """
    import torch

    from hwsim.zoo.checkpoint import load

    model = get(name)
    with torch.device("meta" if checkpoint else device or "meta"), torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(_SEED)
        module = model.build().eval()
    if checkpoint:
        load(module, Path(checkpoint), renames=model.renames)
        module.to(device or "cpu")
    return module


def example_inputs(
    name: str,
    *,
    batch: int | None = None,
    seq_len: int | None = None,
    kv_len: int | None = None,
    phase: str | None = None,
    device: str = "meta",
) -> tuple[Any, ...]:
    """Arguments for the ``forward`` of the model called ``name``.

    Args:
        name: one of ``names()``.
        batch: samples.
        seq_len: tokens a sequence.
        kv_len: tokens a sequence already in the cache, of phase ``decode``.
        phase: ``prefill`` (the default: whole sequences) or ``decode`` (one more token each).
        device: ``meta`` for shapes only; elsewhere the values are random, the same at each call.

    Raises:
        InputError: an unknown model or phase, an option it does not take, a size < 1 or too long a sequence.
    """
    import torch

    model = get(name)
    given: dict[str, Any] = {"batch": batch, "seq_len": seq_len, "kv_len": kv_len, "phase": phase}
    for option, value in given.items():
        if value is None:
            continue
        if option not in model.options:
            raise InputError(f"{option}: not an option of {name}, which takes {', '.join(sorted(model.options))}")
        if option != "phase" and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise InputError(f"{option}: expected an integer ≥ 1, got {value!r}")

    chosen: dict[str, Any] = {"batch": batch or model.batch}
    if "phase" in model.options:
        chosen |= _phase_options(model, seq_len, kv_len, phase or "prefill")
    elif "seq_len" in model.options:
        chosen["seq_len"] = seq_len or model.seq_len
    positions = chosen.get("seq_len", 0) + (chosen.get("kv_len") or 0)
    if model.max_positions and positions > model.max_positions:
        raise InputError(f"{name}: sequences hold at most {model.max_positions} tokens, got {positions}")

    with torch.device(device), torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(_SEED)
        return model.inputs(**chosen)


def _phase_options(model: ZooModel, seq_len: int | None, kv_len: int | None, phase: str) -> dict[str, Any]:
    if phase not in PHASES:
        raise unknown_name("phase", phase, PHASES)
    if phase == "decode":
        if seq_len not in (None, 1):
            raise InputError(f"seq_len: phase decode takes 1 token, got {seq_len}")
        return {"seq_len": 1, "kv_len": kv_len or model.kv_len}
    if kv_len is not None:
        raise InputError(f"kv_len: an option of phase decode only, got {kv_len} in phase prefill")
    return {"seq_len": seq_len or model.seq_len, "kv_len": None}
