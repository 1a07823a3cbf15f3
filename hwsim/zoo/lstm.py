"""An LSTM language model: Zaremba et al., arXiv:1409.2329, section 4.1, the non-regularised configuration."""

from __future__ import annotations

from torch import Tensor, nn


class LSTM(nn.Module):
    """Two LSTM layers between an embedding and a linear layer.

    ``nn.LSTM`` has two bias vectors a layer where the paper has one.
    """

    def __init__(self, *, layers: int = 2, width: int = 200, vocabulary: int = 10_000) -> None:
        super().__init__()
        self.encoder = nn.Embedding(vocabulary, width)
        self.rnn = nn.LSTM(width, width, layers, batch_first=True)
        self.decoder = nn.Linear(width, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        """Token ids [batch, n] → logits [batch, n, vocabulary]; the state starts at zero."""
        hidden, _ = self.rnn(self.encoder(tokens))
        return self.decoder(hidden)
