"""Emulated recurrent layers: LSTM, GRU and plain RNN, one time step after the other, every product and every function emulated.

Equations: ``torch.nn.LSTM``, ``torch.nn.GRU`` and ``torch.nn.RNN`` in the documentation of PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import dropout as drop

from numerics.emulation.calls import Call, check_shapes, tensors_in
from numerics.emulation.gemm import ProductPlan

State = tuple[torch.Tensor, ...]


def _linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return torch.nn.functional.linear(x, weight, bias)


def lstm_step(x: torch.Tensor, state: State, weights: list[torch.Tensor | None]) -> State:
    """One step: x holds W_ih·x + b_ih; state h, c; weights W_hh, b_hh and, with a projection, W_hr."""
    h, c = state
    recurrent, bias, *projection = weights
    assert recurrent is not None
    i, f, g, o = (x + _linear(h, recurrent, bias)).chunk(4, dim=-1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    h = torch.sigmoid(o) * torch.tanh(c)
    if projection and projection[0] is not None:
        h = _linear(h, projection[0], None)
    return h, c


def gru_step(x: torch.Tensor, state: State, weights: list[torch.Tensor | None]) -> State:
    """One step: x holds W_ih·x + b_ih; state h; weights W_hh, b_hh."""
    (h,) = state
    recurrent, bias = weights
    assert recurrent is not None
    x_r, x_z, x_n = x.chunk(3, dim=-1)
    h_r, h_z, h_n = _linear(h, recurrent, bias).chunk(3, dim=-1)
    r, z = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)
    n = torch.tanh(x_n + r * h_n)
    return (n + z * (h - n),)


def _rnn_step(function: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor, State, list[Any]], State]:
    def step(x: torch.Tensor, state: State, weights: list[Any]) -> State:
        return (function(x + _linear(state[0], *weights)),)

    return step


STEPS: dict[str, Callable[[torch.Tensor, State, list[Any]], State]] = {
    "lstm": lstm_step,
    "gru": gru_step,
    "rnn_tanh": _rnn_step(torch.tanh),
    "rnn_relu": _rnn_step(torch.relu),
}
"""Name of a layer → its step."""


def cell(call: Call) -> Any:
    """``lstm_cell``, ``gru_cell``, ``rnn_tanh_cell``, ``rnn_relu_cell``."""
    x, hidden, w_ih, w_hh, b_ih, b_hh = call.bound("input", "hx", "w_ih", "w_hh", b_ih=None, b_hh=None)
    if _untouched(call, x):
        return call.plain()
    check_shapes(call)
    state = tuple(hidden) if isinstance(hidden, tuple | list) else (hidden,)
    with call.mode:
        result = STEPS[call.name.removesuffix("_cell")](_linear(x, w_ih, b_ih), state, [w_hh, b_hh])
    return result if len(result) > 1 else result[0]


def _untouched(call: Call, x: torch.Tensor) -> bool:
    """Whether the recipe changes nothing here; the layer is then listed as one."""
    context = call.context
    if context.observer is not None or not context.identity(context.frames[-1].module, x.dtype):
        return False
    ProductPlan.make(context, call.name, "activation", "weight")
    return True


def recurrent(call: Call) -> Any:
    """``lstm``, ``gru``, ``rnn_tanh``, ``rnn_relu``: any number of layers, both directions, packed sequences."""
    x = call.args[0]
    if _untouched(call, tensors_in(x)[0]):
        return call.plain()
    packed = isinstance(call.args[1], torch.Tensor) and call.args[1].dtype == torch.int64
    if not packed:  # the lengths of packed sequences are data, and a wrong one leaves rows that do not fit
        check_shapes(call)
    if packed:
        x, sizes, hidden, flat, biased, layers, dropout, training, both = call.args
        lengths, batch_first = sizes.tolist(), False
    else:
        x, hidden, flat, biased, layers, dropout, training, both, batch_first = call.args
        lengths = None
    with call.mode:
        if lengths is None:
            x = x.transpose(0, 1) if batch_first else x
            lengths, shape = [x.shape[1]] * x.shape[0], x.shape[:2]
            x = x.reshape(-1, x.shape[-1])
        else:
            shape = None
        initial = tuple(hidden) if isinstance(hidden, tuple | list) else (hidden,)
        directions = 2 if both else 1
        per_layer = len(flat) // (layers * directions)
        finals: list[State] = []
        for layer in range(layers):
            outputs = []
            for direction in range(directions):
                number = layer * directions + direction
                weights = list(flat[number * per_layer : (number + 1) * per_layer])
                start = tuple(h[number] for h in initial)
                y, final = _run(call, x, lengths, start, weights, biased, reverse=direction == 1)
                outputs.append(y)
                finals.append(final)
            x = torch.cat(outputs, dim=-1) if both else outputs[0]
            if dropout and training and layer < layers - 1:
                x = drop(x, dropout)
        if shape is not None:
            x = x.reshape(*shape, x.shape[-1])
            x = x.transpose(0, 1) if batch_first else x
        return (x, *(torch.stack(parts) for parts in zip(*finals, strict=True)))


def _run(
    call: Call, x: torch.Tensor, lengths: list[int], state: State, weights: list[torch.Tensor], biased: bool, *, reverse: bool
) -> tuple[torch.Tensor, State]:
    """One layer in one direction.

    Args:
        call: the layer.
        x: rows of all steps, one after the other; shape (Σ lengths, features).
        lengths: sequences that are alive at each step, descending.
        state: shape (sequences, hidden) each.
        weights: W_ih, W_hh, b_ih, b_hh, W_hr, those that there are.
        biased: whether there are biases.
        reverse: from the last step to the first.

    Returns:
        Outputs in the order of x, and the state of each sequence at its end.
    """
    w_ih, w_hh = weights[:2]
    b_ih, b_hh = weights[2:4] if biased else (None, None)
    rest = [w_hh, b_hh, *weights[4 if biased else 2 :]]
    gates = _linear(x, w_ih, b_ih)
    offsets = [sum(lengths[:t]) for t in range(len(lengths))]
    outputs: list[torch.Tensor] = [x] * len(lengths)
    step = STEPS[call.name]
    frame = call.context.frames[-1]
    first = frame.index
    order = range(len(lengths) - 1, -1, -1) if reverse else range(len(lengths))
    for t in order:
        # The operators of a step are listed, calibrated and scaled as the same ones at every step.
        frame.index = first
        alive = lengths[t]
        now = tuple(h[:alive] for h in state)
        after = step(gates[offsets[t] : offsets[t] + alive], now, rest)
        outputs[t] = after[0]
        if alive == state[0].shape[0]:
            state = after
        else:
            state = tuple(torch.cat([new, old[alive:]]) for new, old in zip(after, state, strict=True))
    return torch.cat(outputs), state


HANDLERS: dict[str, Callable[[Call], Any]] = {
    **dict.fromkeys(STEPS, recurrent),
    **{f"{name}_cell": cell for name in STEPS},
}
"""Name of a torch function → what takes its place."""
