"""Two kinds of features of the same things brought into one space by a pair of linear projections, so that one kind can be
classified by examples of the other, in classes that no projection was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hwsim.views.display import displayed
from neuromorphic._checks import number, whole
from numerics.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]


@displayed
@dataclass(frozen=True, eq=False)
class Embedding:
    """(x − mean)/deviation · weights, at unit length.

    Attributes:
        mean, deviation: (features,).
        weights: (features, dimensions).
    """

    mean: Floats
    deviation: Floats
    weights: Floats

    def place(self, features: npt.ArrayLike) -> Floats:
        """(samples, dimensions)."""
        x = ((np.asarray(features, np.float64) - self.mean) / self.deviation) @ self.weights
        length: Floats = np.linalg.norm(x, axis=1, keepdims=True)
        found: Floats = x / np.where(length > 0, length, 1.0)
        return found


@displayed
@dataclass(frozen=True)
class Alignment:
    """Projections of both kinds of features.

    Attributes:
        first, second: trained together.
        losses: mean loss of each epoch.
    """

    first: Embedding
    second: Embedding
    losses: tuple[float, ...]

    def classify(self, queries: npt.ArrayLike, examples: npt.ArrayLike, labels: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Labels of queries of the first kind: that of the nearest class, a class being the mean of the embeddings of its
        examples of the second kind (J. Snell, K. Swersky, R. Zemel, "Prototypical networks for few-shot learning", NeurIPS 2017,
        eq. 1).

        Raises:
            InputError: a number of labels that is not that of the examples.
        """
        embedded, y = self.second.place(examples), np.asarray(labels)
        if y.shape != embedded.shape[:1]:
            raise InputError(f"labels: expected {len(embedded)}, one an example, got shape {y.shape}")
        classes = np.unique(y)
        prototypes = np.stack([embedded[y == one].mean(axis=0) for one in classes])
        prototypes /= np.linalg.norm(prototypes, axis=1, keepdims=True)
        found: npt.NDArray[np.int64] = classes[(self.first.place(queries) @ prototypes.T).argmax(axis=1)]
        return found


def align(
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    *,
    dimensions: int = 32,
    temperature: float = 0.1,
    epochs: int = 30,
    batch: int = 128,
    rate: float = 3e-3,
    decay: float = 1e-2,
    seed: int,
) -> Alignment:
    """Trains two projections so that the pair (first[k], second[k]) is nearer than all others of its batch.

    The loss is the symmetric cross-entropy of the cosines over the temperature (A. Radford et al., "Learning transferable visual
    models from natural language supervision", ICML 2021, figure 3), minimised by AdamW in double precision on one thread, so that
    the order of sums is fixed; the order of samples and the initial weights are seeded.

    Args:
        first, second: (samples, features), one pair a row.
        dimensions: of the common space.
        temperature: > 0.
        epochs, batch, rate, decay: of the optimiser; a last batch of one pair is left out.
        seed: of initial weights and order.

    Raises:
        InputError: numbers of samples that differ, or a number out of range.
    """
    import torch
    from torch.nn import functional

    given = [np.asarray(one, np.float64) for one in (first, second)]
    if any(one.ndim != 2 for one in given) or len(given[0]) != len(given[1]) or len(given[0]) < 2:
        raise InputError(f"first, second: expected pairs (samples ≥ 2, features), got {given[0].shape} and {given[1].shape}")
    whole("dimensions", dimensions, 1)
    whole("epochs", epochs, 1)
    whole("batch", batch, 2)
    for name, value in (("temperature", temperature), ("rate", rate)):
        number(name, value, above=True)
    generator = torch.Generator().manual_seed(seed)
    means = [one.mean(axis=0) for one in given]
    deviations = [np.where(one.std(axis=0) > 0, one.std(axis=0), 1.0) for one in given]
    x = [torch.from_numpy((one - m) / d) for one, m, d in zip(given, means, deviations, strict=True)]
    weights = [
        torch.nn.Parameter(torch.randn(one.shape[1], dimensions, generator=generator, dtype=torch.float64) / one.shape[1] ** 0.5)
        for one in x
    ]
    optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=decay)
    losses = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(epochs):
            seen = []
            for chosen in torch.randperm(len(x[0]), generator=generator).split(batch):
                if len(chosen) < 2:
                    continue
                a, b = (functional.normalize(one[chosen] @ w, dim=1) for one, w in zip(x, weights, strict=True))
                cosines, own = a @ b.T / temperature, torch.arange(len(chosen))
                loss = (functional.cross_entropy(cosines, own) + functional.cross_entropy(cosines.T, own)) / 2
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                seen.append(loss.item())
            losses.append(float(np.mean(seen)))
    finally:
        torch.set_num_threads(threads)
    both = [Embedding(m, d, w.detach().numpy()) for m, d, w in zip(means, deviations, weights, strict=True)]
    return Alignment(both[0], both[1], tuple(losses))
