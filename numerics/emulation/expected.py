"""What can be said of a module's operators before it has run, from the kinds of its parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from numerics.emulation.context import Context, Operator
from numerics.emulation.gemm import Sum, product_formats
from numerics.errors import InputError
from numerics.formats import formats_text

if TYPE_CHECKING:
    from numerics.emulation.quantised import Rule

_PRODUCTS: tuple[tuple[type[nn.Module], str], ...] = (
    (nn.Linear, "linear"),
    (nn.ConvTranspose1d, "conv_transpose1d"),
    (nn.ConvTranspose2d, "conv_transpose2d"),
    (nn.ConvTranspose3d, "conv_transpose3d"),
    (nn.Conv1d, "conv1d"),
    (nn.Conv2d, "conv2d"),
    (nn.Conv3d, "conv3d"),
    (nn.MultiheadAttention, "multi_head_attention_forward"),
    (nn.LSTM, "lstm"),
    (nn.GRU, "gru"),
    (nn.RNN, "rnn"),
    (nn.LSTMCell, "lstm_cell"),
    (nn.GRUCell, "gru_cell"),
    (nn.RNNCell, "rnn_cell"),
)
_ELEMENTWISE: tuple[tuple[type[nn.Module], str], ...] = (
    (nn.LayerNorm, "layer_norm"),
    (nn.RMSNorm, "rms_norm"),
    (nn.GroupNorm, "group_norm"),
    (nn.modules.batchnorm._BatchNorm, "batch_norm"),
    (nn.ReLU, "relu"),
    (nn.GELU, "gelu"),
    (nn.SiLU, "silu"),
    (nn.Sigmoid, "sigmoid"),
    (nn.Tanh, "tanh"),
    (nn.Softmax, "softmax"),
)


def expected_operators(module: nn.Module, context: Context) -> list[Operator]:
    """Operators that modules of known kinds will run, whoever calls them. Those of other modules are known once they ran."""
    rows: list[Operator] = []
    for path, part in module.named_modules():
        if any(path.startswith(row.module + ".") for row in rows if row.kind == "multi_head_attention_forward"):
            continue  # its output projection is a part of its own forward
        kind = _kind(part, _PRODUCTS)
        if kind is not None:
            a, b, g = (context.rule(role, path) for role in ("activation", "weight", "gradient"))
            how = Sum.of(context, path)
            gradients = f"{product_formats(g, b, how)}, {product_formats(g, a, how)}"
            rows.append(Operator(path, 0, kind, product_formats(a, b, how), gradients, seen=False, sums=how.order_of(a, b)))
            continue
        result: Rule = context.rule("elementwise", path)
        back = context.result_gradient(path).fmt.name
        if isinstance(part, nn.Embedding | nn.EmbeddingBag):
            table = context.rule("weight", path).fmt.name
            name = "embedding" if isinstance(part, nn.Embedding) else "embedding_bag"
            rows.append(Operator(path, 0, name, formats_text([table], result.fmt.name), back, seen=False))
            continue
        kind = _kind(part, _ELEMENTWISE)
        if kind is not None:
            rows.append(Operator(path, 0, kind, result.fmt.name, back, seen=False))
    return rows


def _kind(part: nn.Module, kinds: tuple[tuple[type[nn.Module], str], ...]) -> str | None:
    return next((name for kind, name in kinds if isinstance(part, kind)), None)


def end_paths(module: nn.Module, recipe: str) -> tuple[str, str]:
    """Paths of the first and the last module that owns a weight of two dimensions or more which is no table of embeddings and no
    gain of a norm, in the order in which they were registered.

    Raises:
        InputError: there is none.
    """
    tables = (nn.Embedding, nn.EmbeddingBag, nn.LayerNorm, nn.RMSNorm)
    paths = [
        path
        for path, part in module.named_modules()
        if not isinstance(part, tables) and any(p.ndim >= 2 for p in part.parameters(recurse=False))
    ]
    if not paths:
        kind = type(module).__name__
        raise InputError(f"recipe {recipe!r}: first_and_last: no module of {kind!r} has a weight of two dimensions or more")
    return paths[0], paths[-1]
