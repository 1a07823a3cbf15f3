"""Fewer steps: stop an example when its answer is clear, run a network of values only now and then, train for fewer steps.

D. Wu et al., "Optimizing event-driven spiking neural network with regularization and cutoff", Frontiers in Neuroscience 19, 2025
(the margin between the two largest outputs); A. Aydin et al., "A hybrid ANN-SNN architecture for low-power and low-latency visual
perception", CVPR workshops 2024 (states handed over); S. S. Chowdhury, N. Rathi, K. Roy, "Towards ultra low latency spiking
neural networks for vision and sequential tasks using temporal pruning", ECCV 2022 (training on from more steps to fewer).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from hwsim.views.display import displayed, listed
from neuromorphic.cells.neuron_cells import SpikingSequential, TimeFirst
from neuromorphic.cells.operation_counts import AC_J, MAC_J, OperationCount, energy_j
from numerics.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt


@displayed
@dataclass(frozen=True, eq=False)
class Stopped:
    """When each example stopped and what it answered.

    Attributes:
        steps: (examples,) how many steps were run, from 1 on.
        answers: (examples,) the largest output then.
    """

    steps: npt.NDArray[np.int64]
    answers: npt.NDArray[np.int64]

    @property
    def mean_steps(self) -> float:
        """Steps an example; energy follows it."""
        return float(self.steps.mean())

    def accuracy(self, labels: npt.ArrayLike) -> float:
        """Share of answers that are the label."""
        return float((self.answers == np.asarray(labels)).mean())


def margins(outputs: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """(steps, examples): the largest output less the second largest.

    Args:
        outputs: (steps, examples, classes) summed up to each step, as a ``Readout`` with decay 1 gives them: sums, not means, so
            that a margin grows with the evidence, and the first spikes of a run are not taken for certainty.
    """
    values = np.asarray(outputs, np.float64)
    if values.ndim != 3 or values.shape[2] < 2 or 0 in values.shape:
        raise InputError(f"outputs: expected shape (steps, examples, classes ≥ 2), got {values.shape}")
    second, first = np.partition(values, -2, axis=-1)[..., -2:].transpose(2, 0, 1)
    found: npt.NDArray[np.float64] = first - second
    return found


def fit_margins(outputs: npt.ArrayLike, *, agreement: float) -> npt.NDArray[np.float64]:
    """(steps,): the smallest margin in each step at which stopping is safe, on examples held for that (no labels are needed).

    Safe: of the examples with that margin or a larger one, at least the share ``agreement`` answers as after the last step.
    Infinite where no margin is; 0 in the last step.

    Args:
        outputs: (steps, examples, classes), as for ``margins``.
        agreement: from 0 to 1.
    """
    if not 0 < agreement <= 1:
        raise InputError(f"agreement: expected 0 < agreement ≤ 1, got {agreement!r}")
    gaps = margins(outputs)
    answers = np.asarray(outputs).argmax(axis=-1)
    found = np.full(len(gaps), np.inf)
    for t, gap in enumerate(gaps):
        order = np.argsort(-gap, kind="stable")
        same = np.cumsum(answers[t, order] == answers[-1, order]) / np.arange(1, len(order) + 1)
        last_of_equals = np.append(np.diff(gap[order]) != 0, True)
        safe = np.flatnonzero((same >= agreement) & last_of_equals)
        if safe.size:
            found[t] = gap[order[safe[-1]]]
    found[-1] = 0.0
    return found


def stop(outputs: npt.ArrayLike, margin: npt.ArrayLike) -> Stopped:
    """Stop each example in the first step in which its margin is reached (at the latest in the last).

    Args:
        outputs: (steps, examples, classes), as for ``margins``.
        margin: a number, or one a step (steps,).
    """
    gaps = margins(outputs)
    clear = gaps >= np.broadcast_to(np.asarray(margin, np.float64), (len(gaps),))[:, None]
    clear[-1] = True
    first = clear.argmax(axis=0)
    answers = np.asarray(outputs).argmax(axis=-1)[first, np.arange(gaps.shape[1])]
    return Stopped(first.astype(np.int64) + 1, answers.astype(np.int64))


def run_until_clear(module: SpikingSequential, inputs: torch.Tensor, margin: npt.ArrayLike) -> Stopped:
    """As ``stop``, but examples that are done are taken out of the batch, so that no work is spent on them.

    Args:
        module: ends in a ``Readout`` with decay 1.
        inputs: (steps, examples, *features).
        margin: a number, or one a step.
    """
    count = inputs.shape[1]
    limits = np.broadcast_to(np.asarray(margin, np.float64), (len(inputs),))
    left = torch.arange(count)
    steps, answers = np.zeros(count, np.int64), np.zeros(count, np.int64)
    state: Any = None
    with torch.no_grad():
        for t, now in enumerate(inputs):
            output, state = module.step(now[left], state)
            two = output.double().topk(2, dim=-1).values
            done = two[:, 0] - two[:, 1] >= limits[t]
            if t == len(inputs) - 1:
                done = torch.ones_like(done)
            stopped = left[done].numpy()
            steps[stopped], answers[stopped] = t + 1, output[done].argmax(-1).numpy()
            left, state = left[~done], _chosen(state, ~done)
            if not left.numel():
                break
    return Stopped(steps, answers)


class MixedRate(nn.Module):
    """A network of values that sees one frame in every K steps and sets the state of a spiking one, which sees all events.

    Args:
        slow: frame (batch, …) → what ``hand_over`` takes.
        fast: the spiking network.
        every: K.
        hand_over: output of ``slow`` → state of ``fast``, as its ``step`` takes it.
    """

    def __init__(self, slow: nn.Module, fast: TimeFirst, *, every: int, hand_over: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise InputError(f"every: expected an integer ≥ 1, got {every!r}")
        self.slow, self.fast, self.every, self.hand_over = slow, fast, every, hand_over

    def forward(self, events: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        """Outputs of the spiking network in each step.

        Args:
            events: (steps, batch, …) for the spiking network.
            frames: (⌈steps/K⌉, batch, …): the frame of steps 0, K, 2K, …, seen before that step's events.
        """
        wanted = -(-len(events) // self.every)
        if len(frames) != wanted:
            raise InputError(f"frames: expected {wanted}, one in {self.every} of {len(events)} steps, got {len(frames)}")
        outputs, state = [], None
        for t, now in enumerate(events):
            if t % self.every == 0:
                state = self.hand_over(self.slow(frames[t // self.every]))
            output, state = self.fast.step(now, state)
            outputs.append(output)
        return torch.stack(outputs)


def mixed_rate_energy_j(
    slow: Iterable[OperationCount], fast: Iterable[OperationCount], *, every: int, mac_j: float = MAC_J, ac_j: float = AC_J
) -> float:
    """Joules a step of both together: E_slow/K + E_fast.

    Args:
        slow: operations of one frame.
        fast: operations of one step.
        every: K.
        mac_j, ac_j: as of ``operation_counts.energy_j``.
    """
    if every < 1:
        raise InputError(f"every: expected an integer ≥ 1, got {every!r}")
    return energy_j(slow, mac_j=mac_j, ac_j=ac_j) / every + energy_j(fast, mac_j=mac_j, ac_j=ac_j)


@displayed
@dataclass(frozen=True)
class Reduction:
    """One stage of ``reduce_steps``: the steps trained for, the score then, and the weights."""

    steps: int
    score: float
    weights: dict[str, torch.Tensor]


def reduce_steps(
    module: nn.Module,
    steps: Iterable[int],
    *,
    train: Callable[[nn.Module, int], None],
    score: Callable[[nn.Module, int], float],
    lost: float,
) -> list[Reduction]:
    """Train on for fewer and fewer steps, each stage from the weights of the one before, until too much is lost.

    Args:
        module: it is trained in place; in the end it holds the weights of the last stage that was good enough.
        steps: falling, such as 8, 4, 2, 1.
        train: trains it for that many steps.
        score: what it reaches with that many steps.
        lost: how far a stage may fall below the best score of the stages before.

    Returns:
        The stages that were good enough; the first always is.
    """
    wanted = list(steps)
    if not wanted or wanted[-1] < 1 or any(b >= a for a, b in pairwise(wanted)):
        raise InputError(f"steps: expected falling integers ≥ 1, got {wanted}")
    stages: list[Reduction] = []
    for count in wanted:
        train(module, count)
        found = score(module, count)
        if stages and found < max(stage.score for stage in stages) - lost:
            break
        stages.append(Reduction(count, found, {name: value.detach().clone() for name, value in module.state_dict().items()}))
    module.load_state_dict(stages[-1].weights)
    return listed(stages)


def _chosen(state: Any, keep: torch.Tensor) -> Any:
    """The state of those examples of a batch."""
    if isinstance(state, torch.Tensor):
        return state[keep] if state.ndim else state
    if isinstance(state, dict):
        return {name: _chosen(value, keep) for name, value in state.items()}
    if isinstance(state, tuple):
        return type(state)(*(_chosen(value, keep) for value in state))
    return state
