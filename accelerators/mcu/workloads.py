"""Classical machine learning as workloads: support vectors, nearest neighbours, forests, Gaussian mixtures, k-means.

Each kernel is one list of operators with, beside every operator, the few lines of numpy that it stands for: what is costed is
what is computed. The kernels are those of Tabanelli et al., "DNN is not all you need" (arXiv 2107.09448); the formulas are the
usual ones, in the form that a microcontroller runs (squared norms of stored vectors are stored with them).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from hwsim.operators import Elementwise, Gather, Matmul, Op, Reduction, Scatter
from hwsim.views.display import displayed
from hwsim.workload import Role, Tensor, Workload
from numerics.errors import InputError

Array = np.ndarray[Any, np.dtype[Any]]


@displayed
@dataclass(frozen=True)
class Kernel:
    """Operators and what they compute.

    Attributes:
        workload: for any device; apply formats with ``workload.with_formats``.
        functions: for each operator, its result from its operands.
    """

    workload: Workload
    functions: tuple[Callable[..., Array], ...]

    def compute(self, **values: Array) -> dict[str, Array]:
        """The results named in ``workload.outputs``, operator by operator.

        Args:
            values: a value for each tensor that no operator makes, by name, in its shape.

        Raises:
            InputError: a value that lacks, is unknown or has another shape.
        """
        made = {name for op in self.workload.ops for name in op.outputs}
        wanted = [name for name in self.workload.tensors if name not in made]
        if set(values) != set(wanted):
            raise InputError(f"values: expected {', '.join(wanted)}, got {', '.join(values) or 'none'}")
        held = {name: np.asarray(value) for name, value in values.items()}
        for name in wanted:
            self._check(name, held[name])
        for op, function in zip(self.workload.ops, self.functions, strict=True):
            held[op.outputs[0]] = function(*(held[name] for name in op.inputs))
            self._check(op.outputs[0], held[op.outputs[0]])
        return {name: held[name] for name in self.workload.outputs}

    def _check(self, name: str, value: Array) -> None:
        shape = self.workload.tensors[name].shape
        if value.shape != shape:
            raise InputError(f"values: {name}: expected shape {shape}, got {value.shape}")


@dataclass
class _Builder:
    tensors: dict[str, Tensor] = field(default_factory=dict)
    ops: list[Op] = field(default_factory=list)
    functions: list[Callable[..., Array]] = field(default_factory=list)

    def given(self, name: str, *shape: int, role: Role = "weight") -> str:
        """A tensor that no operator makes."""
        self.tensors[name] = Tensor(name, shape, "int32" if role == "index" else "fp32", role)
        return name

    def step(
        self,
        cls: type[Op],
        name: str,
        inputs: tuple[str, ...],
        shape: tuple[int, ...],
        function: Callable[..., Array],
        *,
        role: Role = "activation",
        **dims: Any,
    ) -> str:
        """An operator and the tensor that it makes, both called ``name``."""
        self.tensors[name] = Tensor(name, shape, "int32" if role == "index" else "fp32", role)
        self.ops.append(cls(name=name, inputs=inputs, outputs=(name,), **dims))
        self.functions.append(function)
        return name

    def kernel(self, name: str, *outputs: str) -> Kernel:
        made = {o for op in self.ops for o in op.outputs}
        inputs = tuple(n for n, t in self.tensors.items() if n not in made and t.role != "weight")
        return Kernel(Workload(name, tuple(self.ops), self.tensors, inputs, outputs), tuple(self.functions))

    def map(
        self, operation: str, name: str, inputs: tuple[str, ...], shape: tuple[int, ...], function: Callable[..., Array]
    ) -> str:
        return self.step(Elementwise, name, inputs, shape, function, operation=operation, elements=math.prod(shape))

    def largest(self, name: str, scores: str, rows: int, among: int, *, smallest: bool = False) -> str:
        """The place of the largest (smallest) of each row, the first of equals."""
        pick = np.argmin if smallest else np.argmax
        return self.step(
            Reduction, name, (scores,), (rows,), lambda s: pick(s, axis=1),
            role="index", operation="max", elements=rows * among, rows=rows,
        )  # fmt: skip

    def votes(self, name: str, labels: str, rows: int, each: int, classes: int) -> str:
        """How often each class occurs in a row of labels."""
        return self.step(
            Scatter, name, (labels,), (rows, classes), lambda y: np.stack([(y == c).sum(1) for c in range(classes)], axis=1),
            role="index", elements=rows * each, indices=rows * each, accumulate=True,
        )  # fmt: skip


def _counts(**sizes: int) -> None:
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise InputError(f"{name}: expected an integer ≥ 1, got {size!r}")


def support_vectors(
    *, samples: int = 1, features: int, vectors: int, classes: int, kernel: Literal["rbf", "linear"] = "rbf"
) -> Kernel:
    """A support-vector machine, one decision for each pair of classes, and the class with most votes.

    Values: ``x`` [samples, features]; ``vectors`` [vectors, features]; ``duals`` [vectors, pairs] (0 where a vector takes no
    part); ``intercepts`` [pairs]; ``pair_classes`` [pairs, 2], the class that a positive and a negative decision speak for; of
    kernel ``rbf``, ``vector_norms`` [vectors] (squared) and ``gamma`` [1].
    Results: ``decisions`` [samples, pairs], ``label`` [samples].

    Raises:
        InputError: a size below one (two for classes), an unknown kernel.
    """
    _counts(samples=samples, features=features, vectors=vectors)
    if isinstance(classes, bool) or not isinstance(classes, int) or classes < 2:
        raise InputError(f"classes: expected an integer ≥ 2, got {classes!r}")
    if kernel not in ("rbf", "linear"):
        raise InputError(f"kernel: expected 'rbf' or 'linear', got {kernel!r}")
    b = _Builder()
    pairs = classes * (classes - 1) // 2
    x = b.given("x", samples, features, role="input")
    stored = b.given("vectors", vectors, features)
    duals = b.given("duals", vectors, pairs)
    intercepts = b.given("intercepts", pairs)
    pair_classes = b.given("pair_classes", pairs, 2, role="index")
    grid = (samples, vectors)
    similar = b.step(Matmul, "products", (x, stored), grid, lambda x, v: x @ v.T, m=samples, n=vectors, k=features)
    if kernel == "rbf":
        norms, gamma = b.given("vector_norms", vectors), b.given("gamma", 1)
        own = b.step(
            Reduction, "norms", (x,), (samples,), lambda x: (x * x).sum(1),
            operation="sum_square", elements=samples * features, rows=samples,
        )  # fmt: skip
        part = b.map("multiply_add", "own_minus_twice", (similar, own), grid, lambda p, n: n[:, None] - 2 * p)
        square = b.map("add", "distances", (part, norms), grid, lambda d, n: d + n)
        scaled = b.map("multiply", "scaled", (square, gamma), grid, lambda d, g: -g * d)
        similar = b.map("exp", "similarities", (scaled,), grid, np.exp)
    decisions = b.step(
        Matmul, "decisions", (similar, duals, intercepts), (samples, pairs), lambda s, a, c: s @ a + c,
        m=samples, n=pairs, k=vectors, bias=True,
    )  # fmt: skip
    winners = b.step(
        Elementwise, "winners", (decisions, pair_classes), (samples, pairs), lambda d, c: np.where(d > 0, c[:, 0], c[:, 1]),
        role="index", operation="select", elements=samples * pairs,
    )  # fmt: skip
    votes = b.votes("votes", winners, samples, pairs, classes)
    return b.kernel("svm", decisions, b.largest("label", votes, samples, classes))


def nearest_neighbours(*, samples: int = 1, features: int, stored: int, neighbours: int, classes: int) -> Kernel:
    """The class of most of the nearest stored points; each of them is found by one pass over the distances.

    Values: ``x`` [samples, features]; ``points`` [stored, features]; ``point_norms`` [stored] (squared); ``point_labels``
    [stored].
    Results: ``nearest`` [samples, neighbours], ``label`` [samples].

    Raises:
        InputError: a size below one, more neighbours than points.
    """
    _counts(samples=samples, features=features, stored=stored, neighbours=neighbours, classes=classes)
    if neighbours > stored:
        raise InputError(f"neighbours: expected at most the {stored} stored points, got {neighbours}")
    b = _Builder()
    x = b.given("x", samples, features, role="input")
    points, norms = b.given("points", stored, features), b.given("point_norms", stored)
    labels = b.given("point_labels", stored, role="index")
    grid = (samples, stored)
    products = b.step(Matmul, "products", (x, points), grid, lambda x, p: x @ p.T, m=samples, n=stored, k=features)
    # |x|² is the same for all points and changes no order.
    scores = b.map("multiply_add", "scores", (products, norms), grid, lambda p, n: n - 2 * p)
    nearest = b.step(
        Reduction, "nearest", (scores,), (samples, neighbours), lambda s: np.argsort(s, axis=1, kind="stable")[:, :neighbours],
        role="index", operation="max", elements=samples * neighbours * stored, rows=samples * neighbours,
    )  # fmt: skip
    found = b.step(
        Gather, "found", (labels, nearest), (samples, neighbours), lambda y, i: y[i],
        role="index", elements=samples * neighbours, indices=samples * neighbours,
    )  # fmt: skip
    votes = b.votes("votes", found, samples, neighbours, classes)
    return b.kernel("knn", nearest, b.largest("label", votes, samples, classes))


def random_forest(*, samples: int = 1, features: int, trees: int, nodes: int, depth: int, classes: int) -> Kernel:
    """The class that most of the trees' leaves speak for; every tree is walked ``depth`` levels down, leaves lead to themselves.

    Values: ``x`` [samples, features]; for each of ``nodes`` nodes of all trees ``feature``, ``threshold``, ``left`` and ``right``
    [nodes] and ``leaf`` [nodes, classes] (shares of the classes); ``roots`` [samples, trees].
    Results: ``shares`` [samples, classes], ``label`` [samples].

    Raises:
        InputError: a size below one.
    """
    _counts(samples=samples, features=features, trees=trees, nodes=nodes, depth=depth, classes=classes)
    b = _Builder()
    x = b.given("x", samples, features, role="input")
    feature, left, right = (b.given(n, nodes, role="index") for n in ("feature", "left", "right"))
    threshold, leaf = b.given("threshold", nodes), b.given("leaf", nodes, classes)
    at = b.given("roots", samples, trees, role="index")
    grid, many = (samples, trees), samples * trees

    def read(name: str, table: str, where: str, role: Role = "index") -> str:
        return b.step(Gather, name, (table, where), grid, lambda t, i: t[i], role=role, elements=many, indices=many)

    for level in range(depth):
        wanted = read(f"feature_{level}", feature, at)
        value = b.step(
            Gather, f"value_{level}", (x, wanted), grid, lambda x, f: np.take_along_axis(x, f, axis=1),
            elements=many, indices=many,
        )  # fmt: skip
        limit = read(f"threshold_{level}", threshold, at, role="activation")
        below = b.step(
            Elementwise, f"below_{level}", (value, limit), grid, lambda v, t: (v <= t).astype(np.int32),
            role="index", operation="compare", elements=many,
        )  # fmt: skip
        yes, no = read(f"left_{level}", left, at), read(f"right_{level}", right, at)
        at = b.step(
            Elementwise, f"node_{level}", (below, yes, no), grid, lambda c, yes, no: np.asarray(np.where(c, yes, no)),
            role="index", operation="select", elements=many,
        )  # fmt: skip
    leaves = b.step(
        Gather, "leaves", (leaf, at), (samples, trees, classes), lambda t, i: t[i], elements=many * classes, indices=many
    )
    shares = b.step(
        Reduction, "shares", (leaves,), (samples, classes), lambda p: p.mean(1),
        operation="mean", elements=many * classes, rows=samples * classes,
    )  # fmt: skip
    return b.kernel("random_forest", shares, b.largest("label", shares, samples, classes))


def gaussian_mixture(*, samples: int = 1, features: int, components: int) -> Kernel:
    """Responsibilities of Gaussian components with full covariances.

    With the Cholesky factor P of a component's precision, |(x − µ) P|² = Σ (x P − µ P)². Values: ``x`` [samples, features];
    ``factors`` [features, components × features] (the P side by side); ``centres`` [components × features] (−µ P);
    ``constants`` [components] (log weight + log determinant of P − features / 2 · log 2π).
    Results: ``evidence`` [samples] (log likelihood), ``responsibilities`` [samples, components], ``label`` [samples].

    Raises:
        InputError: a size below one.
    """
    _counts(samples=samples, features=features, components=components)
    b = _Builder()
    wide = components * features
    x = b.given("x", samples, features, role="input")
    factors, centres, constants = b.given("factors", features, wide), b.given("centres", wide), b.given("constants", components)
    whitened = b.step(
        Matmul, "whitened", (x, factors, centres), (samples, wide), lambda x, p, c: x @ p + c,
        m=samples, n=wide, k=features, bias=True,
    )  # fmt: skip
    grid = (samples, components)
    squares = b.step(
        Reduction, "squares", (whitened,), grid, lambda w: (w.reshape(samples, components, features) ** 2).sum(2),
        operation="sum_square", elements=samples * wide, rows=samples * components,
    )  # fmt: skip
    logs = b.map("multiply_add", "log_densities", (squares, constants), grid, lambda s, c: c - 0.5 * s)
    evidence = b.step(
        Reduction, "evidence", (logs,), (samples,), lambda v: np.log(np.exp(v - v.max(1, keepdims=True)).sum(1)) + v.max(1),
        operation="logsumexp", elements=samples * components, rows=samples,
    )  # fmt: skip
    shifted = b.map("add", "log_responsibilities", (logs, evidence), grid, lambda v, e: v - e[:, None])
    shares = b.map("exp", "responsibilities", (shifted,), grid, np.exp)
    return b.kernel("gmm", evidence, shares, b.largest("label", logs, samples, components))


def k_means(*, samples: int, features: int, clusters: int, iterations: int = 1) -> Kernel:
    """Lloyd's iterations: each point to its nearest centre, each centre to the mean of its points.

    Values: ``x`` [samples, features], ``centres`` [clusters, features]. A cluster must not lose all its points.
    Results: ``label`` [samples] (of the last assignment), ``moved`` [clusters, features] (the centres after it).

    Raises:
        InputError: a size below one.
    """
    _counts(samples=samples, features=features, clusters=clusters, iterations=iterations)
    b = _Builder()
    x = b.given("x", samples, features, role="input")
    centres = b.given("centres", clusters, features, role="input")
    grid = (samples, clusters)
    label = ""
    for i in range(iterations):
        last = i == iterations - 1
        norms = b.step(
            Reduction, f"norms_{i}", (centres,), (clusters,), lambda c: (c * c).sum(1),
            operation="sum_square", elements=clusters * features, rows=clusters,
        )  # fmt: skip
        products = b.step(Matmul, f"products_{i}", (x, centres), grid, lambda x, c: x @ c.T, m=samples, n=clusters, k=features)
        scores = b.map("multiply_add", f"scores_{i}", (products, norms), grid, lambda p, n: n - 2 * p)
        label = b.largest("label" if last else f"label_{i}", scores, samples, clusters, smallest=True)
        sums = b.step(
            Scatter, f"sums_{i}", (x, label), (clusters, features),
            lambda x, y: np.stack([x[y == c].sum(0) for c in range(clusters)]),
            elements=samples * features, indices=samples, accumulate=True,
        )  # fmt: skip
        counts = b.step(
            Scatter, f"counts_{i}", (label,), (clusters,), lambda y: np.bincount(y, minlength=clusters),
            role="index", elements=samples, indices=samples, accumulate=True,
        )  # fmt: skip
        centres = b.map(
            "divide", "moved" if last else f"centres_{i}", (sums, counts), (clusters, features), lambda s, n: s / n[:, None]
        )
    return b.kernel("k_means", label, centres)


def classical_kernels() -> dict[str, Kernel]:
    """One of each, small enough for 64 KiB in fp32: ten classes of 8×8 images or of 16 features, one sample to classify.

    (The paper's abstract does not give the sizes behind its averages.)
    """
    return {
        "svm": support_vectors(features=64, vectors=150, classes=10),
        "knn": nearest_neighbours(features=64, stored=200, neighbours=5, classes=10),
        "random_forest": random_forest(features=64, trees=32, nodes=32 * 31, depth=4, classes=10),
        "gmm": gaussian_mixture(features=16, components=10),
        "k_means": k_means(samples=256, features=16, clusters=10),
    }
