"""A connectome as a torch module: its weights stay as they are, what leads in and out is trained."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from numerics.errors import InputError

if TYPE_CHECKING:
    from neuromorphic.learning.connectome import Connectome


class _Product(torch.autograd.Function):
    """A fixed sparse matrix times a dense one; backwards by its transpose, which torch would make anew each time."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, matrix: torch.Tensor, transposed: torch.Tensor) -> torch.Tensor:
        ctx.transposed = transposed
        return matrix @ values

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return ctx.transposed @ gradients[0], None, None


class ConnectomeNetwork(nn.Module):
    """r ← max(0, W · r + encoder(x)) from 0, ``steps`` times with x held; the readout reads all neurons.

    After arXiv 2507.10951, where the readout reads the output neurons, which a generated connectome does not name.

    Attributes:
        encoder: nn.Linear from the inputs to the sensory neurons; trained.
        readout: nn.Linear from the neurons to the classes; trained.
        sensory: buffer: neurons that the encoder reaches.
        steps: how many.

    W is in the buffers ``rows``, ``columns`` and ``weights`` (compressed rows, float32), its transpose in three more.

    Raises:
        InputError: fewer than 1 step.
    """

    rows: torch.Tensor
    columns: torch.Tensor
    weights: torch.Tensor
    rows_back: torch.Tensor
    columns_back: torch.Tensor
    weights_back: torch.Tensor
    sensory: torch.Tensor

    def __init__(self, connectome: Connectome, inputs: int, classes: int, *, steps: int) -> None:
        super().__init__()
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise InputError(f"steps: expected an integer ≥ 1, got {steps!r}")
        self.neurons, self.steps = connectome.neurons, steps
        self.encoder = nn.Linear(inputs, connectome.sensory.size)
        self.readout = nn.Linear(connectome.neurons, classes)
        matrix = connectome.matrix()
        for suffix, one in (("", matrix), ("_back", matrix.T.tocsr())):
            one.sort_indices()
            self.register_buffer(f"rows{suffix}", torch.from_numpy(one.indptr.astype(np.int64)))
            self.register_buffer(f"columns{suffix}", torch.from_numpy(one.indices.astype(np.int64)))
            self.register_buffer(f"weights{suffix}", torch.from_numpy(one.data.astype(np.float32)))
        self.register_buffer("sensory", torch.from_numpy(connectome.sensory.astype(np.int64)))

    def states(self, x: torch.Tensor) -> torch.Tensor:
        """What the neurons hold at the end, (samples, neurons), of x (samples, inputs)."""
        shape = (self.neurons, self.neurons)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that compressed rows are new in torch
            matrix = torch.sparse_csr_tensor(self.rows, self.columns, self.weights, shape, check_invariants=False)
            back = torch.sparse_csr_tensor(self.rows_back, self.columns_back, self.weights_back, shape, check_invariants=False)
        drive = torch.zeros(self.neurons, x.shape[0], dtype=x.dtype, device=x.device)
        drive = drive.index_copy(0, self.sensory, self.encoder(x).T)
        r = torch.relu(drive)
        for _ in range(self.steps - 1):
            r = torch.relu(_Product.apply(r, matrix, back) + drive)
        return r.T

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (samples, classes)."""
        logits: torch.Tensor = self.readout(self.states(x))
        return logits
