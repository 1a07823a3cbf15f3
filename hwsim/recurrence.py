"""Three ways to run a recurrence over a sequence: what each computes, and its work, critical path and traffic.

*Sequential*: one step after another, the state on chip. *Parallel*: a linear recurrence h_t = a_t h_{t−1} + b_t as a prefix
scan over pairs (a, b) (Blelloch, "Prefix sums and their applications", CMU-CS-90-190, section 1.4: up-sweep and down-sweep).
*Newton*: a non-linear recurrence h_t = f(h_{t−1}, x_t) solved for all t at once by Newton's method, each step of which is a
linear recurrence (ParaRNN, Danieli et al., arXiv:2510.21450, section 3; diagonal Jacobians).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from hwsim.views.display import displayed
from numerics.errors import InputError, unknown_name

Array = np.ndarray[Any, np.dtype[np.float64]]
Form = Literal["sequential", "parallel", "newton"]
FORMS: tuple[Form, ...] = ("sequential", "parallel", "newton")

COMBINE_OPERATIONS = 2
"""Primitive operations that combine two pairs, (a, b) after (a', b') = (a a', a b' + b): a multiply and a multiply-add."""


@displayed
@dataclass(frozen=True)
class ScanCost:
    """What a scan takes, in machine-neutral counts.

    Attributes:
        form: how it is run.
        operations: primitive operations (multiplies, multiply-adds) over all steps and elements.
        critical_path: operations that follow one another, each needing the one before.
        elements_moved: elements read and written off chip.
    """

    form: Form
    operations: int
    critical_path: int
    elements_moved: int


def scan_cost(
    form: Form,
    *,
    length: int,
    width: int,
    on_chip_elements: int | None = None,
    iterations: int = 6,
    step_operations: int = 1,
) -> ScanCost:
    """Counts of a scan of ``length`` steps over ``width`` independent elements.

    Args:
        form: a name of ``FORMS``.
        on_chip_elements: elements that fit on chip; where the pairs of a parallel scan do not, they are read twice (once to be
            reduced, once to be scanned) and a carry for each chunk goes out and back. None: everything fits.
        iterations: Newton steps.
        step_operations: primitive operations of one step of the recurrence itself on one element (its Jacobian costs as many
            again, in the Newton form).

    Raises:
        InputError: an unknown form, a size below one.
    """
    if form not in FORMS:
        raise unknown_name("form", form, FORMS)
    for name, value in (
        ("length", length), ("width", width), ("iterations", iterations), ("step_operations", step_operations),
    ):  # fmt: skip
        if value < 1:
            raise InputError(f"{name}: expected an integer ≥ 1, got {value}")
    if on_chip_elements is not None and on_chip_elements < 2 * width:
        raise InputError(f"on_chip_elements: expected room for one step's pair, {2 * width} elements, got {on_chip_elements}")
    cells = length * width
    if form == "sequential":
        return ScanCost(form, step_operations * cells, step_operations * length, 3 * cells)
    levels = (length - 1).bit_length()
    padded = 1 << levels
    combines = 2 * (padded - 1)
    path = 2 * levels * COMBINE_OPERATIONS
    moved = 3 * cells
    if on_chip_elements is not None and 2 * cells > on_chip_elements:
        chunks = -(-2 * cells // on_chip_elements)
        moved += 2 * cells + 4 * width * chunks
    if form == "parallel":
        return ScanCost(form, COMBINE_OPERATIONS * combines * width, path, moved)
    # Each iteration evaluates the step and its derivative at the last guess, forms the residual (one addition), and scans.
    evaluation = 2 * step_operations + 1
    operations = iterations * (evaluation * cells + COMBINE_OPERATIONS * combines * width)
    return ScanCost(form, operations, iterations * (evaluation + path), iterations * (2 * cells + moved))


def sequential_scan(a: Array, b: Array) -> Array:
    """h_t = a_t h_{t−1} + b_t with h_{−1} = 0, step by step. ``a``, ``b``: [length, …]."""
    h = np.zeros_like(b)
    state = np.zeros_like(b[0])
    for t in range(len(b)):
        state = a[t] * state + b[t]
        h[t] = state
    return h


def parallel_scan(a: Array, b: Array) -> Array:
    """The same by an up-sweep and a down-sweep over a binary tree (Blelloch, section 1.4). ``a``, ``b``: [length, …]."""
    length = len(b)
    padded = 1 << (length - 1).bit_length()
    extra = [(0, padded - length)] + [(0, 0)] * (b.ndim - 1)
    pa, pb = np.pad(a, extra, constant_values=1.0), np.pad(b, extra)
    own_a, own_b = pa.copy(), pb.copy()
    stride = 1
    while stride < padded:  # up: each node holds the combination of its leaves
        left, right = slice(stride - 1, None, 2 * stride), slice(2 * stride - 1, None, 2 * stride)
        pb[right] += pa[right] * pb[left]
        pa[right] *= pa[left]
        stride *= 2
    pa[-1], pb[-1] = 1.0, 0.0
    while stride > 1:  # down: each node hands on the combination of all leaves before it
        stride //= 2
        left, right = slice(stride - 1, None, 2 * stride), slice(2 * stride - 1, None, 2 * stride)
        before_a, before_b = pa[right].copy(), pb[right].copy()
        pb[right] = pa[left] * before_b + pb[left]
        pa[right] = pa[left] * before_a
        pa[left], pb[left] = before_a, before_b
    return (own_a * pb + own_b)[:length]


def newton_scan(step: Callable[[Array], tuple[Array, Array]], shape: tuple[int, ...], *, iterations: int) -> list[Array]:
    """h_t = f(h_{t−1}, x_t) with h_{−1} = 0 for all t at once; the guesses after 0, 1, …, ``iterations`` Newton steps.

    Args:
        step: previous states [length, …] → f of each, with its own x_t, and df/dh of each (diagonal).
        shape: of the states, [length, …].
        iterations: Newton steps; the guess before the first is zero.
    """
    guess = np.zeros(shape)
    guesses = [guess]
    for _ in range(iterations):
        before = np.concatenate([np.zeros((1, *shape[1:])), guess[:-1]])
        value, slope = step(before)
        guess = parallel_scan(slope, value - slope * before)
        guesses.append(guess)
    return guesses


def diagonal_gru(weights: Array, inputs: Array) -> Callable[[Array], tuple[Array, Array]]:
    """A GRU whose recurrent matrices are diagonal, as the ``step`` of ``newton_scan``.

    z = σ(w_z h + x_z), r = σ(w_r h + x_r), n = tanh(w_n r h + x_n), h' = (1 − z) n + z h.

    Args:
        weights: w_z, w_r, w_n: [3, width].
        inputs: x_z, x_r, x_n of every step: [3, length, width].
    """
    wz, wr, wn = weights
    xz, xr, xn = inputs

    def sigmoid(x: Array) -> Array:
        return 1 / (1 + np.exp(-x))

    def step(h: Array) -> tuple[Array, Array]:
        z, r = sigmoid(wz * h + xz), sigmoid(wr * h + xr)
        n = np.tanh(wn * r * h + xn)
        dz, dr = wz * z * (1 - z), wr * r * (1 - r)
        dn = (1 - n * n) * wn * (r + h * dr)
        return (1 - z) * n + z * h, (1 - z) * dn - dz * n + dz * h + z

    return step
