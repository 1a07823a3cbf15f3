"""Transformers driven by spikes: attention whose queries, keys and values are spikes, so that its products are sums.

M. Yao et al., "Spike-driven transformer", NeurIPS 2023 (masks), and "Spike-driven transformer V2: Meta spiking neural network
architecture inspiring the design of next-generation neuromorphic chips", ICLR 2024 (linear attention, shortcuts of membranes).
"""

from __future__ import annotations

import copy
from typing import Any, Literal, get_args

import torch
from torch import nn

from neuromorphic.cells.conversion import fold_batch_norm
from neuromorphic.cells.neuron_cells import LIF, NeuronCell, TimeFirst
from neuromorphic.cells.operation_counts import SpikeProduct
from neuromorphic.cells.surrogate import Surrogate
from numerics.errors import InputError, unknown_name

Attention = Literal["linear", "mask"]


class NormedLinear(nn.Module):
    """A linear layer and a batch normalisation over all else but features; ``folded`` is one linear layer."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias=False)
        self.norm = nn.BatchNorm1d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.linear(x)
        return self.norm(y.reshape(-1, y.shape[-1])).reshape(y.shape)

    def folded(self) -> nn.Linear:
        """The same as weights and a bias."""
        layer = fold_batch_norm(self.linear, self.norm)
        assert isinstance(layer, nn.Linear)
        return layer


class SpikeDrivenAttention(TimeFirst):
    """Self-attention of tokens (steps, batch, tokens, features) of spikes, by additions only.

    Q, K, V are spikes of linear layers. ``linear``: spikes of Q(KᵀV) for each head, whose threshold takes the scale; KᵀV counts
    coincidences, and Q selects which rows of it are added. ``mask``: Q where a neuron that adds K ⊙ V over the tokens spikes.

    Args:
        features: of the tokens.
        heads: that divide them.
        kind: ``linear`` (version 2) or ``mask`` (version 1).
        threshold: of the neurons behind the product, in coincidences.
        decay_v, surrogate: of all neurons here.
    """

    def __init__(
        self,
        features: int,
        heads: int = 1,
        *,
        kind: Attention = "linear",
        threshold: float = 4.0,
        decay_v: float = 0.5,
        surrogate: Surrogate | None = None,
    ) -> None:
        super().__init__()
        if kind not in get_args(Attention):
            raise unknown_name("kind", str(kind), get_args(Attention))
        if heads < 1 or features % heads:
            raise InputError(f"heads: expected a divisor of {features} features, got {heads!r}")
        self.heads, self.kind = heads, kind
        self.to_q, self.to_k, self.to_v = (NormedLinear(features, features) for _ in range(3))
        self.q, self.k, self.v = (LIF(decay_v, surrogate=surrogate) for _ in range(3))
        self.attend = LIF(decay_v, threshold=threshold, surrogate=surrogate)
        if kind == "linear":
            self.keys_values, self.queries = SpikeProduct(), SpikeProduct(sums=True)
        self.out = NormedLinear(features, features)

    def step(self, x: torch.Tensor, state: Any = None) -> tuple[torch.Tensor, Any]:
        outputs, state = self.unroll(x[None], state)
        return outputs[0], state

    def unroll(self, x: torch.Tensor, state: Any = None) -> tuple[torch.Tensor, Any]:
        states = dict(state or {})
        spikes = {}
        for name, layer in (("q", self.to_q), ("k", self.to_k), ("v", self.to_v)):
            spikes[name], states[name] = getattr(self, name).unroll(layer(x), states.get(name))
        q, k, v = spikes["q"], spikes["k"], spikes["v"]
        if self.kind == "mask":
            chosen, states["attend"] = self.attend.unroll((k * v).sum(-2, keepdim=True), states.get("attend"))
            return self.out(q * chosen), states
        q, k, v = (s.unflatten(-1, (self.heads, -1)).transpose(-2, -3) for s in (q, k, v))
        summed = self.queries(q, self.keys_values(k.transpose(-1, -2), v)).transpose(-2, -3).flatten(-2)
        attended, states["attend"] = self.attend.unroll(summed, states.get("attend"))
        return self.out(attended), states


class SpikeDrivenBlock(TimeFirst):
    """Attention and a two-layer perceptron on membranes u (steps, batch, tokens, features): u + attention(spikes of u), then
    u + perceptron(spikes of u). What is added along the shortcuts is voltage; whatever meets a weight is a spike.

    Args:
        features, heads, kind, threshold: as of ``SpikeDrivenAttention``.
        hidden: units of the perceptron.
        decay_v, surrogate: of the neurons.
    """

    def __init__(
        self,
        features: int,
        heads: int = 1,
        *,
        hidden: int,
        kind: Attention = "linear",
        threshold: float = 4.0,
        decay_v: float = 0.5,
        surrogate: Surrogate | None = None,
    ) -> None:
        super().__init__()
        self.spike_in, self.spike_up, self.spike_down = (LIF(decay_v, surrogate=surrogate) for _ in range(3))
        self.attention = SpikeDrivenAttention(
            features, heads, kind=kind, threshold=threshold, decay_v=decay_v, surrogate=surrogate
        )
        self.up, self.down = NormedLinear(features, hidden), NormedLinear(hidden, features)

    def step(self, x: torch.Tensor, state: Any = None) -> tuple[torch.Tensor, Any]:
        outputs, state = self.unroll(x[None], state)
        return outputs[0], state

    def unroll(self, x: torch.Tensor, state: Any = None) -> tuple[torch.Tensor, Any]:
        states = dict(state or {})

        def run(name: str, given: torch.Tensor) -> torch.Tensor:
            output, states[name] = getattr(self, name).unroll(given, states.get(name))
            return output

        x = x + run("attention", run("spike_in", x))
        return x + self.down(run("spike_down", self.up(run("spike_up", x)))), states


def fold_norms(module: nn.Module) -> nn.Module:
    """A copy in which every ``NormedLinear`` is one linear layer, so that no normalisation is left."""
    module = copy.deepcopy(module)
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, NormedLinear):
                setattr(parent, name, child.folded())
    return module.folded() if isinstance(module, NormedLinear) else module


def fold_threshold(layer: nn.Linear | nn.Conv1d | nn.Conv2d, cell: NeuronCell) -> tuple[Any, NeuronCell]:
    """The same spikes with a threshold of 1: weights and everything in the unit of v divided by the threshold.

    Args:
        layer: what feeds ``cell`` and nothing else.
        cell: with one threshold for all, or one an output channel of ``layer``.

    Returns:
        New layer and cell; in floating point a voltage may differ in its last bit.

    Raises:
        InputError: a threshold that is not > 0, or one a neuron behind a convolution.
    """
    threshold = torch.as_tensor(cell.parameter("threshold")).detach()
    if not bool((threshold > 0).all()):
        raise InputError(f"threshold: expected numbers > 0, got {float(threshold.min()):g}")
    channels = layer.weight.shape[0]
    if threshold.numel() not in (1, channels):
        raise InputError(f"threshold: expected one or {channels}, one an output channel, got {threshold.numel()}")
    scaled_layer, scaled = copy.deepcopy(layer), copy.deepcopy(cell)
    with torch.no_grad():
        each = threshold.reshape(-1)
        scaled_layer.weight.div_(each.reshape(-1, *[1] * (layer.weight.ndim - 1)))
        if scaled_layer.bias is not None:
            scaled_layer.bias.div_(each)
        for name in ("threshold", "v_reset", "v_init", "bias", "input_bias", "adaptation"):
            if name in scaled.given:
                value = getattr(scaled, name)
                divided = torch.broadcast_to(value / threshold, torch.broadcast_shapes(value.shape, threshold.shape)).clone()
                if isinstance(value, nn.Parameter):
                    setattr(scaled, name, nn.Parameter(divided))
                else:
                    setattr(scaled, name, divided)
    return scaled_layer, scaled


def membrane_norm_threshold(norm: nn.BatchNorm1d | nn.BatchNorm2d, threshold: float = 1.0) -> torch.Tensor:
    """Thresholds (channels,) of neurons without a normalisation of the membrane before it fires, for the same spikes.

    γ(v − μ)/σ + β > θ where v > (θ − β)σ/γ + μ: Y. Guo et al., "Membrane potential batch normalization for spiking neural
    networks", ICCV 2023.

    Raises:
        InputError: a γ that is not > 0, for which the comparison would turn around; statistics of a batch.
    """
    if norm.training or norm.running_mean is None or norm.running_var is None:
        raise InputError("norm: statistics of a batch; call eval() on a layer that tracks them")
    sigma = torch.sqrt(norm.running_var + norm.eps)
    gamma = torch.ones_like(sigma) if norm.weight is None else norm.weight.detach()
    beta = torch.zeros_like(sigma) if norm.bias is None else norm.bias.detach()
    if not bool((gamma > 0).all()):
        raise InputError(f"norm: expected weights > 0, got {float(gamma.min()):g}")
    return (threshold - beta) * sigma / gamma + norm.running_mean
