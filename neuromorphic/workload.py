"""A spiking network as a ``Workload``: one spiking layer for each population that computes.

A spiking chip runs the network that the workload carries, spike by spike. Any other machine computes every synapse in every step,
as ``hwsim.expansion`` writes the layers out: convolutions as convolutions where the network says what its projections were made
of, anything else as a product with the matrix of the rows and columns that have a synapse.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hwsim.operators import Convolution, Matmul, Op, Reduction, SpikingLayer
from hwsim.views.display import displayed_by
from hwsim.workload import Tensor, Workload
from neuromorphic._checks import number, whole
from neuromorphic.network import Neurons, Projection, SpikingNetwork
from numerics.errors import InputError, unknown_name

if TYPE_CHECKING:
    import numpy.typing as npt

    from neuromorphic.events import Duplicates, Events
    from neuromorphic.nir import Integration, ResetMode, Timing

DEFAULT_STEPS = 100
DEFAULT_DT_S = 1e-3
DEFAULT_RATE = 0.05
"""Spikes a neuron and step that go in where no events are given."""

FORMAT = "fp32"
SPIKE = "uint1"


@displayed_by("neuromorphic.cards:spiking_workload")
@dataclass(frozen=True, repr=False)
class SpikingWorkload(Workload):
    """A workload of spiking layers, with what they are layers of. Its JSON form has the layers only.

    Attributes:
        network: the populations and synapses.
        events: what goes in, by input population; None: not known, only how much.
        notes: how the events came about, to be printed.
    """

    network: SpikingNetwork | None = field(default=None, compare=False, repr=False)
    events: Mapping[str, Events] | None = field(default=None, compare=False, repr=False)
    notes: tuple[str, ...] = ()


def spiking_workload(
    network: SpikingNetwork, *, steps: int, rates: Mapping[str, float] | float, events: Mapping[str, Events] | None = None
) -> SpikingWorkload:
    """The workload of so many time steps.

    Layers are named as their populations. Their synaptic operations are exact where each source of a population sends at the rate
    given for it: ``fan_out`` is synapses over sources, ``event_rate`` the mean over synapses.

    Args:
        network: anything with a population that computes.
        steps: time steps.
        rates: spikes a neuron and step, of each population that sends spikes or is given; or one for all. Readouts that send
            values to others send one each step.
        events: what goes in, for machines that run it.

    Raises:
        InputError: a rate that is missing, unknown or below 0, fewer than one step, nothing that computes.
    """
    whole("steps", steps, 1)
    if not network.neurons:
        raise InputError(f"network {network.name!r}: no population computes anything")
    rate = _rates(network, rates)
    order = [network.population(name) for name in network.order]
    tensors: dict[str, Tensor] = {}

    def tensor(name: str, shape: tuple[int, ...], form: str, role: Any, density: float | None = None) -> str:
        tensors[name] = Tensor(name, shape, form, role, density)
        return name

    sent = {}
    for one in order:
        given = one.neurons.kind == "input"
        form = SPIKE if given or one.neurons.spiking else FORMAT
        sent[one.name] = tensor(f"{one.name}.spikes", (steps, one.size), form, "input" if given else "activation")
    loops = _loops(network)
    ops = []
    for one in order:
        if one.neurons.kind == "input":
            continue
        arriving = [p for p in network.projections if p.target == one.name]
        inputs, dense = [], []
        for projection in arriving:
            steps_of_one, shape, density = _dense(network, projection)
            weight = tensor(f"{projection.name}.weight", shape, FORMAT, "weight", density)
            inputs += [sent[projection.source], weight]
            dense.append(steps_of_one)
        states = _states(one.neurons, any(p.receptor for p in arriving))
        if states:
            inputs.append(tensor(f"{one.name}.state", (states, one.size), FORMAT, "state"))
        sources = sum(p.synapses.sources for p in arriving)
        synapses = sum(p.synapses.count for p in arriving)
        events_a_step = sum(rate[p.source] * p.synapses.count for p in arriving)
        ops.append(
            SpikingLayer(
                name=one.name,
                inputs=tuple(inputs),
                outputs=(sent[one.name],),
                module=one.name,
                source=f"neurons.{one.neurons.kind}",
                neurons=one.size,
                sources=sources,
                fan_out=_plain(synapses / sources) if sources else 0,
                time_steps=steps,
                event_rate=events_a_step / synapses if synapses else 0.0,
                recurrent=tuple(i for i, p in enumerate(arriving) if p.name in loops),
                dense=tuple(dense),
            )
        )
    return SpikingWorkload(
        name=network.name,
        ops=tuple(ops),
        tensors=tensors,
        inputs=tuple(sent[name] for name in network.inputs),
        outputs=tuple(sent[name] for name in network.outputs),
        metadata={"time_steps": steps, "dt_s": network.dt_s, "rates": rate, "notes": list(network.notes)},
        network=network,
        events=events,
    )


def load(
    path: str | Path,
    *,
    events: str | Path | Events | npt.ArrayLike | None = None,
    steps: int | None = None,
    rate: float | None = None,
    seed: int | None = None,
    dt_s: float | None = None,
    duplicates: Duplicates | None = None,
    integration: Integration | None = None,
    reset: Timing | None = None,
    reset_mode: ResetMode | None = None,
) -> SpikingWorkload:
    """The workload of a ``.nir`` file for events, or for random ones; its rates are those of the network in float64 on them.

    Args:
        path: see ``load_nir``.
        events: what goes into the one input: an address-event file (``Events.load``), ``Events``, or an array (steps, size).
        steps: time steps, by default those of the events, or 100; fewer cut the events, more follow in silence.
        rate: without events: the probability of a spike of each input neuron in each step; 0.05 by default.
        seed: of the random events; 0 by default.
        dt_s, integration, reset, reset_mode: see ``load_nir``; None: as there by default.
        duplicates: of a file's events: see ``Events.from_list``; ``refuse`` by default.

    Raises:
        InputError: a file that cannot be read, both events and a rate or seed, events for several inputs or of another size.
    """
    from neuromorphic.nir import load_nir

    if steps is not None:
        whole("steps", steps, 1)
    network = load_nir(path, dt_s=dt_s, integration=integration or "euler", reset=reset, reset_mode=reset_mode)
    return _driven(network, *_given(network, events, steps, rate, seed, duplicates), steps)


def module_workload(
    module: Any,
    *example_inputs: Any,
    name: str | None = None,
    events: str | Path | Events | npt.ArrayLike | None = None,
    steps: int | None = None,
    rate: float | None = None,
    seed: int | None = None,
    dt_s: float | None = None,
    duplicates: Duplicates | None = None,
) -> SpikingWorkload:
    """The workload of a spiking torch module; see ``to_network`` for what it may be made of.

    Args:
        module: in evaluation where that makes a difference.
        example_inputs: one tensor (steps, batch, *features). Unless ``events``, ``rate`` or ``seed`` say what goes in, it does:
            then it has values and a batch of 1.
        name: of the workload; the module's class otherwise.
        events, rate, seed, duplicates: see ``load``.
        steps: time steps, by default those of the example or of the events.
        dt_s: length of a step, seconds; 1 ms by default.

    Raises:
        InputError: a module that is no spiking network, another number of examples, a batch, events of another size.
    """
    import torch

    from neuromorphic.cells.torch_network import to_network

    if not isinstance(module, torch.nn.Module):
        raise InputError(f"module: expected a torch module of spiking cells, got {type(module).__name__}")
    shapes = [tuple(one.shape) for one in example_inputs if isinstance(one, torch.Tensor)]
    if len(example_inputs) != 1 or not shapes or len(shapes[0]) < 3:
        got = " and ".join(str(shape) for shape in shapes) or f"{len(example_inputs)} that are no tensors"
        raise InputError(f"example inputs: expected one tensor (steps, batch, *features) of a spiking module, got {got}")
    if steps is not None:
        whole("steps", steps, 1)
    if dt_s is not None:
        number("dt_s", dt_s, above=True)
    (example,) = example_inputs
    try:
        network = to_network(module, example, dt_s=DEFAULT_DT_S if dt_s is None else dt_s, name=name or type(module).__name__)
    except InputError as error:
        raise InputError(f"{error}; neuromorphic.convert makes a spiking network of a trained one") from None
    if events is None and rate is None and seed is None and not example.is_meta:
        if example.shape[1] != 1:
            raise InputError(
                f"example inputs: expected a batch of 1, as it goes in, got {example.shape[1]}; rate or seed make random events"
            )
        array = example[:, 0].detach().cpu().double().reshape(example.shape[0], -1).numpy()
        given, note = _given(network, array, steps, None, None, duplicates)
        note = note.replace("input: given,", "input: the example's,")
    else:
        length = steps if events is not None or steps is not None else int(example.shape[0])
        given, note = _given(network, events, length, rate, seed, duplicates)
    return _driven(network, given, note, steps)


def _driven(network: SpikingNetwork, given: dict[str, Events], note: str, steps: int | None) -> SpikingWorkload:
    """The workload with the rates that come about."""
    from neuromorphic.dynamics import simulate

    activity = simulate(network, given, steps=steps if given else steps or DEFAULT_STEPS)
    rates = {name: one.count / (one.steps * one.size) for name, one in activity.events.items()}
    found = spiking_workload(network, steps=activity.steps, rates=rates, events=given)
    return replace(found, notes=(note, "rates of the layers: those of the network in float64 on these events"))


def _given(
    network: SpikingNetwork, events: Any, steps: int | None, rate: float | None, seed: int | None, duplicates: Duplicates | None
) -> tuple[dict[str, Events], str]:
    from neuromorphic.encoders import bernoulli_events
    from neuromorphic.events import Events

    if events is not None:
        for name, value in (("rate", rate), ("seed", seed)):
            if value is not None:
                raise InputError(f"{name}: of random events, but events are given; leave {name} out")
        if len(network.inputs) != 1:
            raise InputError(f"events: of one input, but the network has {len(network.inputs)}")
        only = network.inputs[0]
        size = network.population(only).size
        if isinstance(events, str | Path):
            step_s = network.dt_s if Events.is_timed(events) else None
            loaded = Events.load(events, size=size, dt_s=step_s, duplicates=duplicates or "refuse")
            what = Path(events).name
        else:
            if duplicates is not None:
                raise InputError("duplicates: of a file's events, but they are given as they are; leave duplicates out")
            loaded = events if isinstance(events, Events) else Events.from_dense(events)
            what = "given"
            if loaded.size != size:
                raise InputError(f"events: expected {size} neurons, those of input {only!r}, got {loaded.size}")
        note = f"input: {what}, {loaded.count:,} events in {loaded.steps} steps"
        if steps is not None and steps < loaded.steps:
            last = int(loaded.first[steps])
            values = None if loaded.value is None else loaded.value[:last]
            loaded = Events(loaded.size, loaded.first[: steps + 1], loaded.neuron[:last], values)
            note += f", of which the first {steps}"
        return {only: loaded}, note
    if duplicates is not None:
        raise InputError("duplicates: of a file's events, but none is given; leave duplicates out")
    chance = DEFAULT_RATE if rate is None else rate
    number("rate", chance)
    if chance > 1:
        raise InputError(f"rate: expected at most 1 spike a neuron and step, got {chance!r}")
    chosen = 0 if seed is None else seed
    whole("seed", chosen, 0)
    count = DEFAULT_STEPS if steps is None else steps
    made = {
        name: bernoulli_events(np.full(network.population(name).size, chance), seed=chosen + place, steps=count)
        for place, name in enumerate(network.inputs)
    }
    return made, f"input: random events, each neuron spikes in a step with probability {chance:g} (seed {chosen}, {count} steps)"


def _rates(network: SpikingNetwork, rates: Mapping[str, float] | float) -> dict[str, float]:
    """Of every population: given, or 1 for values that are sent each step."""
    found = {}
    if isinstance(rates, Mapping):
        for name in rates:
            network.population(name)
    for one in network.populations:
        spikes = one.neurons.kind == "input" or one.neurons.spiking
        if isinstance(rates, Mapping):
            needed = spikes and any(p.source == one.name for p in network.projections)
            if needed and one.name not in rates:
                raise unknown_name("rates: missing population", one.name, list(rates))
            value = rates.get(one.name, 0.0 if spikes else 1.0)
        else:
            value = rates if spikes else 1.0
        number(f"rates: {one.name}", value)
        found[one.name] = float(value)
    return found


def _states(neurons: Neurons, second: bool) -> int:
    """Numbers that a neuron keeps from step to step: voltages, currents, adaptation, refractory steps."""
    if neurons.kind == "threshold":
        return 0
    own = 2 if neurons.kind == "resonate_and_fire" else int(bool(np.any(neurons.decay_v)) or neurons.spiking)
    more = (neurons.decay_i, neurons.decay_i2 if second else 0.0, neurons.adaptation, neurons.refractory_steps)
    return own + sum(bool(np.any(value)) for value in more)


def _loops(network: SpikingNetwork) -> set[str]:
    """Projections whose source depends on their target: it needs that layer's spikes of an earlier step."""
    following: dict[str, set[str]] = {}
    for p in network.projections:
        following.setdefault(p.source, set()).add(p.target)
    reached: dict[str, set[str]] = {}
    for start in following:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            fresh = following.get(waiting.pop(), set()) - seen
            seen |= fresh
            waiting += fresh
        reached[start] = seen
    return {p.name for p in network.projections if p.source in reached.get(p.target, set()) or p.source == p.target}


def _dense(network: SpikingNetwork, projection: Projection) -> tuple[tuple[Op, ...], tuple[int, ...], float | None]:
    """The operators of one step without events, the shape of their weights, and how many of these there are."""
    nests = network.attributes.get("nests", {}).get(projection.name)
    if nests is not None:
        made = [_operator(nest, place) for place, nest in enumerate(nests)]
        products = [op for op in made if op.is_matrix]
        # A weight tensor belongs to one product, which is the last of its projection.
        if not products:
            return tuple(made), (1, 1), None
        if len(products) == 1 and made[-1].is_matrix:
            return tuple(made), _weight_shape(products[0]), None
    synapses = projection.synapses
    targets = np.zeros(network.population(projection.target).size, np.bool_)
    targets[synapses.target] = True
    rows, columns = max(1, int(targets.sum())), max(1, int(np.count_nonzero(np.diff(synapses.first))))
    share = min(1.0, synapses.count / (rows * columns))
    if synapses.count == rows == columns and (synapses.weight == 1.0).all():
        return (), (1, 1), None  # one to one
    return (Matmul(name="product", m=1, n=rows, k=columns),), (rows, columns), share if share < 1 else None


def _operator(nest: Mapping[str, Any], place: int) -> Op:
    sizes = {key: value for key, value in nest.items() if key != "kind"}
    if nest["kind"] == "sum":
        return Reduction(name=f"sum{place}", operation="sum", **sizes)
    return (Convolution if nest["kind"] == "convolution" else Matmul)(name=f"product{place}", **sizes)


def _weight_shape(op: Op) -> tuple[int, ...]:
    if isinstance(op, Convolution):
        return (op.out_channels, op.in_channels // op.groups, *op.kernel)
    assert isinstance(op, Matmul)
    return (op.n, op.k) if op.batch == 1 else (op.batch, op.n, op.k)


def _plain(value: float) -> float:
    """Whole numbers as such."""
    return int(value) if value == int(value) else value
