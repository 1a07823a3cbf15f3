"""Real weights for a model of the zoo."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from numerics.documents import read_json, read_text
from numerics.errors import InputError

_PICKLED = (".pt", ".pth", ".bin")
_INDEX = ".index.json"

Renames = tuple[tuple[str, str | None], ...]
"""See ``ZooModel.renames``."""


def load(module: nn.Module, path: Path, *, renames: Renames = ()) -> None:
    """Give ``module`` the weights in ``path``, strictly: none missing, none left over. They keep their dtype.

    Args:
        module: its parameters may be on the meta device; they are replaced.
        path: ``.pt``, ``.pth`` or ``.bin`` (a pickled state_dict, loaded without running code),
            ``.safetensors``, or the ``.index.json`` of a checkpoint in several such files.
        renames: applied to its keys. Two keys that become one (tied weights) must hold equal values.

    Raises:
        InputError: an unreadable file, a missing or unexpected key, a wrong shape.
    """
    state = _renamed(_read(path), renames, path)
    for key, own in module.state_dict().items():
        if key in state and state[key].shape != own.shape:
            raise InputError(f"{path}: {key!r} has shape {tuple(state[key].shape)}, expected {tuple(own.shape)}")
        if key in state and state[key].is_floating_point() != own.is_floating_point():
            expected = "floating-point numbers" if own.is_floating_point() else "integers"
            raise InputError(f"{path}: {key!r}: expected {expected}, got {str(state[key].dtype).removeprefix('torch.')}")
    # Not torch's own strict mode: it reports every key at once.
    result = module.load_state_dict(state, strict=False, assign=True)
    if result.missing_keys:
        raise InputError(f"{path}: key {result.missing_keys[0]!r} is missing")
    if result.unexpected_keys:
        raise InputError(f"{path}: unexpected key {result.unexpected_keys[0]!r}")


def _read(path: Path) -> Mapping[str, Tensor]:
    try:
        if path.name.endswith(_INDEX):
            shards = _shards(path)
            return {key: tensor for shard in shards for key, tensor in _read(path.parent / shard).items()}
        if path.suffix == ".safetensors":
            state: Any = _read_safetensors(path)
        elif path.suffix in _PICKLED:
            state = torch.load(path, map_location="cpu", weights_only=True)
        else:
            known = ", ".join((*_PICKLED, ".safetensors", _INDEX))
            raise InputError(f"checkpoint: expected a file ending in {known}, got {str(path)!r}")
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot read the checkpoint: {error.strerror or error}") from None
    except Exception as error:  # the unpickler raises whatever the bytes provoke
        reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}".removesuffix(": ")
        if path.suffix in _PICKLED and not isinstance(error, RuntimeError | pickle.UnpicklingError):
            reason = "its bytes are nothing that torch.save writes"  # what the unpickler stumbled over says less
        raise InputError(f"{path}: not a readable checkpoint: {reason}") from None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{path}: expected a state_dict (a mapping of names to tensors)")
    return state


def _shards(path: Path) -> list[str]:
    """Names of the files that an index lists."""
    try:
        found = read_json(read_text(path))
    except InputError as error:
        raise InputError(f"{path}: not a readable checkpoint: {str(error).removeprefix(f'{path}: ')}") from None
    names = found.get("weight_map") if isinstance(found, dict) else None
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise InputError(f"{path}: weight_map: expected a mapping of tensors to files, got {names!r}")
    return sorted(set(names.values()))


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors.torch import load_file
    except ImportError:
        raise InputError(f"{path}: reading .safetensors needs a package: pip install hwsim[safetensors]") from None
    return load_file(path)


def _renamed(state: Mapping[str, Tensor], renames: Renames, path: Path) -> dict[str, Tensor]:
    result: dict[str, Tensor] = {}
    for key, tensor in state.items():
        name = rename(key, renames)
        if name is None:
            continue
        if name in result and not torch.equal(result[name], tensor):
            raise InputError(f"{path}: {key!r} differs from {name!r}, to which this model ties it")
        result[name] = tensor
    return result


def rename(key: str, renames: Renames) -> str | None:
    """The key of the module that a checkpoint calls ``key``, ``None`` to drop it."""
    for pattern, replacement in renames:
        if match := re.fullmatch(pattern, key):
            if replacement is None:
                return None
            key = match.expand(replacement)
    return key
