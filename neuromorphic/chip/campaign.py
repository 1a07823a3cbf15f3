"""Fault campaigns on spiking chips: what is broken is drawn anew for each trial, and the score is that of all samples.

The trials, their looks and intervals are those of ``hwsim.faults``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from hwsim.faults import MapOutcome
from hwsim.faults.machines import AnswersUnderTest, MapSubject, checked_labels, checked_scenarios
from hwsim.faults.statistics import MeanMethod
from hwsim.faults.trials import TrialCampaign
from hwsim.views.display import displayed
from neuromorphic.chip.faults import ChipFaults, StateFlip, StuckBit, state_bits
from neuromorphic.chip.network import ChipNetwork
from neuromorphic.chip.running import run
from neuromorphic.events import Events
from numerics.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt


@displayed
@dataclass(frozen=True, kw_only=True)
class ChipFaultRates:
    """How likely each part of a chip is to fail, independently of all others.

    Attributes:
        dead_neurons: of each neuron that computes, to send nothing.
        dead_synapses: of each synapse, to weigh 0.
        stuck_bits: of each bit of each stored weight, to be always 0 or always 1, alike likely.
        state_flips: of each bit of each state, in each step, to turn over.
        lost_spikes: of each spike, to be lost as it leaves.

    Raises:
        InputError: a rate outside 0 to 1.
    """

    dead_neurons: float = 0.0
    dead_synapses: float = 0.0
    stuck_bits: float = 0.0
    state_flips: float = 0.0
    lost_spikes: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            rate = getattr(self, field.name)
            if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate <= 1:
                raise InputError(f"{field.name}: expected 0 to 1, got {rate!r}")

    def draw(self, network: ChipNetwork, *, steps: int, seed: int) -> ChipFaults:
        """What a seed breaks in a network that runs for so many steps: a binomial number of places, no place twice."""
        rng = np.random.Generator(np.random.Philox(seed))

        def places(rate: float, count: int) -> npt.NDArray[np.int64]:
            return (
                np.sort(rng.choice(count, rng.binomial(count, rate), replace=False)) if rate and count else np.zeros(0, np.int64)
            )

        computing = [one for one in network.populations if one.kind != "input"]
        dead = {one.name: places(self.dead_neurons, one.size) for one in computing}
        cut = {one.name: places(self.dead_synapses, one.count) for one in network.projections}
        bits = network.arithmetic.weight_bits or 32
        stuck = []
        for projection in network.projections:
            for place in places(self.stuck_bits, projection.count * bits).tolist():
                stuck.append(StuckBit(projection.name, place // bits, place % bits, int(rng.integers(2))))
        width = state_bits(network)
        kept = ("u", "v") if network.arithmetic.current_bits else ("v",)
        flips = []
        for one in computing:
            each = one.size * width
            for register in kept:
                for place in places(self.state_flips, each * steps).tolist():
                    step, rest = divmod(place, each)
                    flips.append(StateFlip(step, one.name, rest // width, register, rest % width))  # type: ignore[arg-type]
        return ChipFaults(
            flips=tuple(flips),
            dead_neurons={name: some for name, some in dead.items() if some.size},
            dead_synapses={name: some for name, some in cut.items() if some.size},
            stuck=tuple(stuck),
            lost_rate=float(self.lost_spikes),
            seed=int(rng.integers(2**63)),
        )


class ChipUnderTest(AnswersUnderTest):
    """A network in a chip's numbers with samples: which output neuron sends most (or has the highest last voltage) is the answer.

    Args:
        network: in the chip's numbers, with one output.
        samples: input population → events, of each sample.
        labels: the right answers; None: those without faults.

    Raises:
        InputError: several outputs, no samples, labels of another number.
    """

    def __init__(
        self, network: ChipNetwork, samples: Sequence[Mapping[str, Events]], labels: Sequence[int] | None = None
    ) -> None:
        if len(network.outputs) != 1:
            raise InputError(f"network: expected one output, got {len(network.outputs)}")
        if not samples:
            raise InputError("samples: expected at least one, got none")
        self.network, self.samples = network, tuple(samples)
        self._golden = [self._outputs(sample, None) for sample in self.samples]
        super().__init__([self._answer(found) for found in self._golden], labels)

    def _outputs(self, sample: Mapping[str, Events], faults: ChipFaults | None) -> npt.NDArray[Any]:
        """(steps, outputs): spikes, or voltages of a readout."""
        name = self.network.outputs[0]
        done = run(self.network, sample, faults=faults)
        return done.values[name] if name in done.values else done.events[name].dense()

    def _answer(self, outputs: npt.NDArray[Any]) -> int:
        reads = self.network.population(self.network.outputs[0]).kind == "readout"
        return int(np.argmax(outputs[-1] if reads else outputs.sum(axis=0))) if len(outputs) else 0

    def run_map(self, faults: ChipFaultRates, *, protections: Sequence[Any] = (), seed: int = 0) -> MapOutcome:
        """What all samples come to with what this seed breaks: the same for all of them."""
        steps = max(max((one.steps for one in sample.values()), default=0) for sample in self.samples) + self.network.latency
        drawn = faults.draw(self.network, steps=steps, seed=seed)
        found = [self._outputs(sample, drawn) for sample in self.samples]
        same = [np.array_equal(some, golden) for some, golden in zip(found, self._golden, strict=True)]
        count = sum(len(some) for some in (drawn.flips, drawn.stuck))
        count += sum(len(np.asarray(some)) for some in (*drawn.dead_neurons.values(), *drawn.dead_synapses.values()))
        return self.outcome([self._answer(some) for some in found], same=same, broken=count)


@dataclass(frozen=True, kw_only=True)
class _Subject(MapSubject):
    chip_network: ChipNetwork
    samples: tuple[Mapping[str, Events], ...]
    labels: tuple[int, ...] | None

    def network(self) -> ChipUnderTest:
        return ChipUnderTest(self.chip_network, self.samples, self.labels)


class ChipCampaign(TrialCampaign):
    """A network on a chip, its samples, and the faults that are tried on it.

    Args:
        network: in the chip's numbers (``NeuromorphicChip.quantise``), with one output: a population that spikes, or a readout.
        samples: for each sample its events: input population → ``Events``.
        faults: scenario → rates.
        labels: of the samples; without them the score is the agreement with the answers without faults.
        margin: half the width of the interval of each scenario's mean score that ends the campaign.
        confidence, seed, first, maximum, interval: as of ``hwsim.faults.Campaign``.

    ``run`` and ``result`` are those of ``hwsim.faults.Campaign``; a trial's faulty bits are what was broken.

    Raises:
        InputError: no samples, labels of another number, rates that are none.
    """

    def __init__(
        self,
        network: ChipNetwork,
        samples: Sequence[Mapping[str, Events]],
        faults: Mapping[str, ChipFaultRates],
        *,
        labels: Sequence[int] | npt.ArrayLike | None = None,
        margin: float = 0.05,
        confidence: float = 0.95,
        seed: int = 0,
        first: int | None = None,
        maximum: int | None = None,
        interval: MeanMethod = "student",
    ) -> None:
        if not isinstance(network, ChipNetwork):
            raise InputError(f"network: expected one in a chip's numbers (its quantise), got {type(network).__name__}")
        subject = _Subject(
            chip_network=network, samples=tuple(samples), labels=checked_labels(labels),
            scenarios=checked_scenarios(faults, ChipFaultRates), seed=seed,
        )  # fmt: skip
        super().__init__(subject, margin=margin, confidence=confidence, first=first, maximum=maximum, interval=interval)

    def _described(self) -> dict[str, Any]:
        subject: _Subject = self.subject
        network: ChipNetwork = subject.chip_network
        digest = hashlib.sha256(network.arithmetic.name.encode())
        for array in (network.target, network.weight):
            digest.update(np.ascontiguousarray(array).tobytes())
        for one in network.populations:
            digest.update(f"{one.name}{one.shape}{one.kind}{one.reset}".encode())
            for name, values in sorted(one.numbers.items()):
                digest.update(name.encode() + np.ascontiguousarray(values).tobytes())
        for projection in network.projections:
            digest.update(f"{projection.name}{projection.source}{projection.target}{projection.factor}".encode())
            digest.update(projection.first.tobytes() + projection.delays.tobytes())
        data = hashlib.sha256(repr(subject.labels).encode())
        for sample in subject.samples:
            for name, events in sorted(sample.items()):
                data.update(name.encode() + events.first.tobytes() + events.neuron.tobytes())
                data.update(b"" if events.value is None else events.value.tobytes())
        return subject.described(model=digest.hexdigest()[:32], recipe=network.arithmetic.name, data=data.hexdigest()[:32])
