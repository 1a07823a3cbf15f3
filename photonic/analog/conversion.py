"""A digital model's linear layers and convolutions made analog, and the list of what was and what was not.

>>> import torch
>>> from photonic.analog.layers import AnalogSettings
>>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.LayerNorm(8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
>>> analog = to_analog(net, AnalogSettings.alike(bits=6, leakage=0.1), seed=0)
>>> for row in layer_list(analog):
...     print(row.path, row.kind, row.analog, row.parameters)
0 AnalogLinear True 40
1 LayerNorm False 16
3 AnalogLinear True 18
"""

from __future__ import annotations

import copy
import fnmatch
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from hwsim.views.display import displayed, listed
from numerics._fields import check_integer
from numerics.errors import InputError
from photonic._numbers import is_one_of, shown
from photonic.analog import layers as analog
from photonic.analog.chain import mixed

ANALOG: dict[type[nn.Module], type[analog.AnalogLayer]] = {
    nn.Linear: analog.AnalogLinear,
    nn.Conv1d: analog.AnalogConv1d,
    nn.Conv2d: analog.AnalogConv2d,
    nn.Conv3d: analog.AnalogConv3d,
    nn.ConvTranspose1d: analog.AnalogConvTranspose1d,
    nn.ConvTranspose2d: analog.AnalogConvTranspose2d,
    nn.ConvTranspose3d: analog.AnalogConvTranspose3d,
}
"""Layer of torch → analog layer."""

TABLES = (nn.Embedding, nn.EmbeddingBag)
"""Their rows are looked up, not multiplied."""


@displayed
@dataclass(frozen=True)
class LayerRow:
    """A module with parameters of its own.

    Attributes:
        path: of it; of a module with several, the first.
        kind: its class.
        analog: whether its product is.
        parameters: numbers in it that no row before has.
        reason: why it is digital; empty where it is not.
    """

    path: str
    kind: str
    analog: bool
    parameters: int
    reason: str


def to_analog(
    module: nn.Module,
    settings: analog.AnalogSettings,
    *,
    seed: int | None = None,
    except_for: str | list[str] | tuple[str, ...] = (),
    kinds: Mapping[type[nn.Module], type[analog.AnalogLayer]] | None = None,
) -> Any:
    """A copy of ``module`` in which every linear layer and convolution is analog; names, hooks and shared parameters are kept.

    Norms, tables of embeddings and other parameters of one dimension stay digital, as do activations and products that the
    model's own code computes outside of these layers (attention's, for one): ``layer_list`` names what is left, and
    ``digital_products`` the products.

    Args:
        module: in training or evaluation mode, which is kept; any class of model.
        settings: chains of all layers; each layer has copies of its own.
        seed: of all noise and stochastic rounding; each stage gets one made of it and of its layer's path.
        except_for: paths, or patterns with * ? [], of modules that stay digital with all that is in them, and of parameters.
        kinds: classes of layers beside torch's, each with a subclass of ``AnalogLayer`` and of itself that has its ``product``.

    Raises:
        InputError: a layer with products of its own that has no analog kind (recurrent layers, attention, subclasses of a linear
            layer, lazy layers), or a matrix that some other module holds, by its path, unless ``except_for`` names it; a pattern
            that matches nothing; nothing to convert; no seed where a stage draws; a kind that is no such pair.
    """
    is_one_of("module", module, nn.Module)
    is_one_of("settings", settings, analog.AnalogSettings)
    if seed is not None:
        check_integer("seed", seed, 0)
    if kinds is not None and not isinstance(kinds, Mapping):
        raise InputError(f"kinds: expected layer class → analog class, got {shown(kinds)}")
    known = {**ANALOG, **(kinds or {})}
    for base, made in known.items():
        if not (isinstance(base, type) and issubclass(base, nn.Module)):
            raise InputError(f"kinds: expected classes of layers, got {base!r}")
        if not (isinstance(made, type) and issubclass(made, analog.AnalogLayer) and issubclass(made, base)):
            raise InputError(f"kinds: expected a subclass of AnalogLayer and of {base.__name__}, got {made!r}")
    if not isinstance(except_for, str | list | tuple):
        raise InputError(f"except_for: expected paths or patterns, got {shown(except_for)}")
    left = _excepted(module, [except_for] if isinstance(except_for, str) else list(except_for))
    parts = list(_parts(module, left))
    refused = [f"{where or '(root)'} ({why})" for path, part in parts for where, why in _refusals(path, part, known, left)]
    if refused:
        more = f" and {len(refused) - 3} more" if len(refused) > 3 else ""
        raise InputError(f"module: no analog kind of {', '.join(refused[:3])}{more}; name what stays digital in except_for")
    chosen = [path for path, part in parts if _kind(part) in known]
    if not chosen:
        raise InputError("module: expected at least one linear layer or convolution to convert, got none")
    converted = copy.deepcopy(module)
    for path in chosen:
        # The object stays and gets another class: whatever refers to it, or hangs on it, still does.
        layer: Any = converted.get_submodule(path)
        layer.__class__ = _analog_class(layer, known[_kind(layer)])
        layer.attach(settings, seed=None if seed is None else mixed(seed, path))
    for part in converted.modules():
        # In evaluation these would hand their layers' weights to one fused function and pass over the layers.
        if isinstance(part, nn.TransformerEncoderLayer):
            part.activation_relu_or_gelu = 0
        elif isinstance(part, nn.TransformerEncoder):
            part.enable_nested_tensor = part.use_nested_tensor = False
    return converted


def layer_list(module: nn.Module) -> list[LayerRow]:
    """Every module with parameters of its own, in the order of ``named_modules``, and whether it is analog.

    Raises:
        InputError: no module.
    """
    is_one_of("module", module, nn.Module)
    rows, seen, inner = [], set(), _parametrizations(module)
    for path, part in module.named_modules():
        if id(part) in inner:
            continue
        own = [p for _, p in _own(part)]
        new = [p for p in own if id(p) not in seen]
        seen |= {id(p) for p in own}
        if own:
            made = isinstance(part, analog.AnalogLayer)
            numbers = sum(p.numel() for p in new)
            rows.append(LayerRow(path, type(part).__name__, made, numbers, "" if made else _reason(part)))
    return listed(rows)


def digital_products(module: nn.Module, *inputs: Any) -> dict[str, int]:
    """Matrix products and convolutions that run in no analog layer → how often, in a forward pass on these inputs.

    The pass runs on a copy without gradients: nothing of the module changes.

    Raises:
        InputError: no module.
    """
    is_one_of("module", module, nn.Module)
    from torch.utils._python_dispatch import TorchDispatchMode

    twin = copy.deepcopy(module)
    depth = 0
    found: dict[str, int] = {}

    def enter(*_: Any) -> None:
        nonlocal depth
        depth += 1

    def leave(*_: Any) -> None:
        nonlocal depth
        depth -= 1

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
            name = func.overloadpacket._qualified_op_name.partition("::")[2]
            if depth == 0 and name.strip("_") in PRODUCTS:
                found[name] = found.get(name, 0) + 1
            return func(*args, **(kwargs or {}))

    for part in twin.modules():
        if isinstance(part, analog.AnalogLayer):
            part.register_forward_pre_hook(enter)
            part.register_forward_hook(leave, always_call=True)
    with torch.no_grad(), Watch():
        twin(*inputs)
    return found


# fmt: off
PRODUCTS = frozenset((
    "mm", "addmm", "bmm", "baddbmm", "addbmm", "mv", "addmv", "dot", "vdot", "addr", "linear", "convolution",
    "convolution_overrideable", "mkldnn_convolution", "scaled_dot_product_attention", "scaled_dot_product_flash_attention",
    "scaled_dot_product_flash_attention_for_cpu", "scaled_dot_product_efficient_attention",
    "scaled_dot_product_cudnn_attention", "scaled_dot_product_attention_math", "native_multi_head_attention",
    "transformer_encoder_layer_fwd", "trilinear", "lstm", "gru", "rnn_tanh", "rnn_relu", "mkldnn_rnn_layer",
))
# fmt: on
"""Functions of torch that are or contain products."""


def _parts(module: nn.Module, left: set[int]) -> Iterator[tuple[str, nn.Module]]:
    """Modules that are not left out, each once."""
    inner = _parametrizations(module)
    return ((path, part) for path, part in module.named_modules() if id(part) not in left and id(part) not in inner)


def _parametrizations(module: nn.Module) -> set[int]:
    """Modules that make the parameters of others."""
    lists = (part.parametrizations for part in module.modules() if parametrize.is_parametrized(part))
    return {id(inner) for made in lists for inner in made.modules()}  # type: ignore[union-attr]


def _own(part: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Parameters of a module itself, and those that its own are made of."""
    own = list(part.named_parameters(recurse=False))
    if parametrize.is_parametrized(part):
        own += list(part.parametrizations.named_parameters())  # type: ignore[union-attr]
    return own


def _kind(part: nn.Module) -> type:
    """The class; of a layer with parametrizations, the one that it had before."""
    return type(part).__bases__[0] if parametrize.is_parametrized(part) else type(part)


def _analog_class(layer: nn.Module, made: type) -> type:
    """The class to become; with parametrizations, one of its own that has their properties, as torch's has."""
    if not parametrize.is_parametrized(layer):
        return made
    kept = {name: value for name, value in vars(type(layer)).items() if name not in ("__dict__", "__weakref__", "__doc__")}
    return type(f"Parametrized{made.__name__}", (made,), kept)


def _excepted(module: nn.Module, patterns: list[str]) -> set[int]:
    """Modules that match, and all in them; parameters that match."""
    left: set[int] = set()
    modules = list(module.named_modules(remove_duplicate=False))
    parameters = list(module.named_parameters(remove_duplicate=False))
    for pattern in patterns:
        is_one_of("except_for", pattern, str)
        found = {id(inner) for path, part in modules if fnmatch.fnmatchcase(path, pattern) for inner in part.modules()}
        found |= {id(held) for path, held in parameters if fnmatch.fnmatchcase(path, pattern)}
        if not found:
            raise InputError(f"except_for: no module or parameter of {type(module).__name__} matches {pattern!r}")
        left |= found
    return left


def _refusals(path: str, part: nn.Module, known: Mapping[Any, Any], left: set[int]) -> Iterator[tuple[str, str]]:
    """Path of what can neither be converted nor be left without saying so, and why."""
    name = type(part).__name__
    if isinstance(part, analog.AnalogLayer):
        yield path, f"{name}: analog already"
        return
    fixed = [each for each, value in vars(part).items() if isinstance(value, torch.Tensor) and not value.is_leaf]
    if fixed:
        yield path, f"{name}: its {fixed[0]!r} is computed and cannot be copied, use torch.nn.utils.parametrizations"
        return
    if _kind(part) in known or isinstance(part, TABLES):
        return
    ours = [base.__name__ for base in known if isinstance(part, base)]
    if isinstance(part, nn.modules.lazy.LazyModuleMixin) and part.has_uninitialized_params():
        yield path, f"{name}: lazy, run it once before"
    elif ours:
        yield path, f"{name}: a subclass of {ours[0]}, which may compute something else"
    elif isinstance(part, nn.MultiheadAttention | nn.RNNBase | nn.RNNCellBase | nn.Bilinear):
        yield path, f"{name}: reads its weights in code of its own"
    elif not _elementwise(part):
        for own, held in _own(part):
            if held.dim() > 1 and id(held) not in left:
                yield f"{path}.{own}".lstrip("."), f"a matrix that {name} uses in code of its own"


def _elementwise(part: nn.Module) -> bool:
    """Layers of torch whose parameters, of any dimension, scale and shift."""
    norms = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase)
    return isinstance(part, (*norms, nn.PReLU))


def _reason(part: nn.Module) -> str:
    if isinstance(part, TABLES):
        return "a table, whose rows are looked up"
    if _elementwise(part):
        return "scales and shifts, no product"
    if _kind(part) not in ANALOG and all(p.dim() <= 1 for _, p in _own(part)):
        return "vectors only"
    return "left digital"
