"""Networks of the Neuromorphic Intermediate Representation (NIR), files or graphs, to ``SpikingNetwork`` and back.

NIR's neurons are equations in continuous time (J. E. Pedersen et al., "Neuromorphic intermediate representation: A unified
instruction set for interoperable brain-inspired computing", Nature Communications 15, 2024, Table 1); a step of dt seconds makes
of them, with x the sum of a step's input, in which a spike is a current of 1 throughout its step:

- ``LIF``, ``LI``: τ dv/dt = v_leak − v + r·x    →  v ← (1 − k) v + k (v_leak + r·x)
- ``CubaLIF``, ``CubaLI``: τ_syn di/dt = w_in·x − i, τ_mem dv/dt = v_leak − v + r·i
  →  i ← (1 − k_syn) i + k_syn w_in·x, then v ← (1 − k_mem) v + k_mem (v_leak + r·i) with the new i
- ``IF``, ``I``: dv/dt = r·x  →  v ← v + r·x whatever dt is: a spike is an impulse of area 1, as all that read NIR take it
- ``Threshold``: a spike where x > threshold.

k = dt/τ (``euler``, which needs dt ≤ τ) or 1 − exp(−dt/τ) (``exponential``: exact while the input is constant). A neuron fires
where v > v_threshold, and v becomes v_reset at once (``immediate``) or in the next step before that begins (``next_step``);
``subtract`` instead takes the threshold off, which NIR cannot say. Voltages begin at v_leak, or 0.

Linear operators between neurons become one projection for each pair of populations, their biases the target's ``input_bias``.
A spike arrives within its step. In a loop, what closes it arrives one step later: of the populations of a loop, those fewer
projections away from an input (then by name) come first, and whatever goes back in that order waits. So a neuron's recurrent
weights carry the spikes of the step before, as in snnTorch and NIRTorch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from neuromorphic import nir_graph
from neuromorphic._checks import number
from neuromorphic.linear_maps import Nest, Signal
from neuromorphic.network import Neurons, Population, Projection, SpikingNetwork, Synapses
from neuromorphic.nir_graph import PARAMETERS, Graph, natural, parameter
from numerics.errors import InputError, unknown_name

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

Integration = Literal["euler", "exponential"]
Timing = Literal["immediate", "next_step"]
ResetMode = Literal["zero", "subtract"]

DEFAULT_DT_S = 1e-3
"""Length of a step, unless a time constant is shorter; then the longest power of ten that is not longer."""

CLOSE = 1 + 1e-6
"""A time constant in single precision may be so much shorter than the step it stands for."""

MOST_DENSE = 2**28
"""Weights of one matrix that ``to_nir`` writes."""

_READOUT_ONLY = ("I", "LI", "CubaLI")


def load_nir(
    path_or_graph: str | Path | Any,
    *,
    dt_s: float | None = None,
    integration: Integration = "euler",
    reset: Timing | None = None,
    reset_mode: ResetMode | None = None,
    name: str | None = None,
) -> SpikingNetwork:
    """The network in a NIR file, or of a ``nir.NIRGraph``; every choice and repair is in its ``notes``.

    Args:
        path_or_graph: all primitives of NIR 1.0.8, nested graphs included.
        dt_s: length of a step, seconds; None: 1 ms, or 0.1 ms, … where a time constant is shorter.
        integration: how the equations become steps, see above.
        reset: when v is reset; None: as ``to_nir`` noted it in the graph, otherwise ``immediate``.
        reset_mode: ``zero``: to the file's v_reset; ``subtract``; None: as ``to_nir`` noted it, otherwise ``zero``.
        name: of the network; None: the file's.

    Returns:
        Populations are named as their nodes, with a dot between graph and node; projections ``source->target``, with ``@delay``
        where a pair has several. An Output that gets one population's spikes or voltages makes that an output, one that gets
        anything else is itself a readout without memory. ``attributes["nests"]`` holds, for each projection, the operators
        that it was made of (``linear_maps.Nest``), or None.

    Raises:
        InputError: the package nir is missing, a file that is no NIR, nodes that do not fit together, numbers out of range.
    """
    for key, value, options in (
        ("integration", integration, Integration),
        ("reset", reset, Timing),
        ("reset_mode", reset_mode, ResetMode),
    ):
        if value is not None and value not in get_args(options):
            raise unknown_name(key, str(value), get_args(options))
    if dt_s is not None:
        number("dt_s", dt_s, above=True)
    source = nir_graph.read(path_or_graph)
    where = Path(path_or_graph).stem if isinstance(path_or_graph, str | Path) else "nir"
    try:
        graph = nir_graph.flat(source)
        step = _default_dt(graph) if dt_s is None else float(dt_s)
        build = _Builder(graph, step, integration, reset, reset_mode)
        return build.network(name or where)
    except InputError as error:
        # Values may be arrays, which print over several lines.
        raise InputError(f"{where}: {' '.join(str(error).split())}") from None
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, OverflowError, RecursionError, MemoryError) as error:
        # What a graph holds is anybody's; nir itself checks little.
        raise InputError(f"{where}: not a valid NIR graph: {nir_graph.line(error)}") from None


def _default_dt(graph: Graph) -> float:
    """Decimal, so that 1e-4 is 1e-4."""
    shortest = DEFAULT_DT_S
    for name, node in graph.nodes.items():
        for key in PARAMETERS.get(graph.kind(name), ()):
            if key.startswith("tau"):
                shortest = min(shortest, float(np.min(_tau(graph, name, node, key))))
    exponent = -3
    while float(f"1e{exponent}") > shortest * CLOSE:
        exponent -= 1
    return float(f"1e{exponent}")


def _tau(graph: Graph, name: str, node: Any, key: str) -> Any:
    values = parameter(graph, name, key)
    if np.min(values) < 1e-12:
        raise InputError(f"{graph.where(name)}: {key}: expected seconds > 0, got {np.min(values):g}")
    return values


class _Builder:
    """Signals at each node, then populations and projections."""

    def __init__(
        self, graph: Graph, dt_s: float, integration: Integration, reset: Timing | None, reset_mode: ResetMode | None
    ) -> None:
        self.graph, self.dt_s, self.integration = graph, dt_s, integration
        self.reset, self.reset_mode = reset, reset_mode
        self.signals: dict[str, Signal] = {}
        self.notes = [f"dt: {dt_s:g} s", f"integration: {integration}"]
        self.resets: dict[str, list[str]] = {}

    def network(self, name: str) -> SpikingNetwork:
        graph = self.graph
        targets = [one for one in graph.nodes if graph.kind(one) in PARAMETERS]
        outputs: list[str] = []
        readouts: list[str] = []
        for one in graph.nodes:
            if graph.kind(one) == "Output":
                sender = self._sender(one)
                outputs.append(one if sender is None else sender)
                readouts += [one] if sender is None else []
        populations = []
        for one in graph.nodes:
            if graph.kind(one) == "Input":
                populations.append(Population(one, graph.gives[one], Neurons("input")))
            elif one in targets:
                populations.append(Population(one, graph.gives[one], self._neurons(one)))
            elif one in readouts:
                offset = self._arriving(one).offset
                neurons = Neurons("readout", decay_v=0.0, input_bias=0.0 if offset is None else offset)
                populations.append(Population(one, graph.gives[one], neurons))
        if not populations:
            raise InputError("no nodes that take, keep or give anything")
        found = [
            (source, target, delay, synapses, nests)
            for target in (*targets, *readouts)
            for source, delay, synapses, nests in self._arriving(target).projections()
        ]
        rank = _ranks([(one.name, one.neurons.kind == "input") for one in populations], [edge[:2] for edge in found])
        projections, nests = self._projections(found, rank)
        self._note_resets()
        if any(graph.kind(one) in ("I", "IF") for one in graph.nodes):
            self.notes.append("IF, I: each step adds r·x to v, whatever dt is")
        return SpikingNetwork(
            name,
            tuple(sorted(populations, key=lambda one: rank[one.name])),
            projections,
            tuple(dict.fromkeys(outputs)),
            dt_s=self.dt_s,
            notes=(*self.notes, *graph.notes),
            attributes={"nests": nests},
        )

    # --- what arrives ---------------------------------------------------------------------------------------------------

    def _arriving(self, name: str) -> Signal:
        """The sum of all that goes into a node."""
        total = Signal(self.graph.takes[name])
        for one in self.graph.before[name]:
            total = total.plus(self._given(one))
        return total

    def _given(self, name: str, above: tuple[str, ...] = ()) -> Signal:
        """What a node gives, in terms of what populations send. Iterative, as chains may be long."""
        waiting = [name]
        opened: set[str] = set()
        while waiting:
            one = waiting[-1]
            if one in self.signals:
                waiting.pop()
                continue
            kind = self.graph.kind(one)
            if kind == "Input" or kind in PARAMETERS:
                self.signals[one] = Signal.of(one, self.graph.gives[one])
                continue
            missing = [before for before in self.graph.before[one] if before not in self.signals]
            if missing:
                if one in opened:
                    raise InputError(f"a loop without neurons through {', '.join(sorted(opened & set(waiting), key=natural))}")
                opened.add(one)
                waiting += missing
                continue
            self.signals[one] = self._behind(one, self._arriving(one))
        return self.signals[name]

    def _behind(self, name: str, signal: Signal) -> Signal:
        kind = self.graph.kind(name)
        if kind in self.graph.maps or name in self.graph.maps:
            try:
                return signal.through(self.graph.maps[name])
            except InputError as error:
                raise InputError(f"{self.graph.where(name)}: {error}") from None
        if kind == "Delay":
            delay = np.asarray(parameter(self.graph, name, "delay"))
            if delay.min() < 0 or delay.max() > self.dt_s * 2**31:
                raise InputError(f"{self.graph.where(name)}: delay: expected seconds ≥ 0, got {delay.min():g} to {delay.max():g}")
            steps = np.rint(delay / self.dt_s)
            off = np.abs(steps - delay / self.dt_s)
            if off.max() > 1e-4:
                worst = delay.ravel()[off.argmax()]
                self.notes.append(
                    f"{name}: delays rounded to whole steps, such as {worst:g} s to {steps.ravel()[off.argmax()]:g}"
                )
            return signal.delayed(steps.astype(np.int64))
        return signal

    def _sender(self, output: str) -> str | None:
        """The population whose spikes or voltages an Output gets as they are."""
        signal = self._arriving(output)
        if len(signal.parts) != 1 or signal.offset is not None:
            return None
        (((source, delay), part),) = signal.parts.items()
        plain = not delay and part.matrix is None and self.graph.kind(source) != "Input"
        return source if plain else None

    # --- populations ----------------------------------------------------------------------------------------------------

    def _neurons(self, name: str) -> Neurons:
        node, kind = self.graph.nodes[name], self.graph.kind(name)
        offset = self._arriving(name).offset
        values = {key: parameter(self.graph, name, key) for key in PARAMETERS[kind] if not key.startswith("tau")}
        common: dict[str, Any] = {"input_bias": 0.0 if offset is None else offset}
        if kind == "Threshold":
            return Neurons("threshold", threshold=values["threshold"], **common)
        if kind.startswith("Cuba"):
            synapse, membrane = self._share(name, "tau_syn"), self._share(name, "tau_mem")
            common |= {
                "decay_i": 1 - synapse, "decay_v": 1 - membrane, "gain": membrane * values["r"] * (synapse * values["w_in"])
            }  # fmt: skip
        elif kind in ("LI", "LIF"):
            membrane = self._share(name, "tau")
            common |= {"decay_v": 1 - membrane, "gain": membrane * values["r"]}
        else:
            common |= {"gain": values["r"]}
        if "v_leak" in values:
            common |= {"bias": membrane * values["v_leak"], "v_init": values["v_leak"]}
        if kind in _READOUT_ONLY:
            return Neurons("readout", **common)
        timing, mode = self._reset(name, node)
        if mode == "subtract" and np.any(values["v_reset"] != 0):
            raise InputError(f"reset_mode: {name} has a v_reset other than 0, so expected 'zero', got 'subtract'")
        self.resets.setdefault(f"{'v_reset' if mode == 'zero' else 'minus the threshold'}, {timing}", []).append(name)
        return Neurons(
            "integrate_and_fire", threshold=values["v_threshold"], v_reset=values["v_reset"], reset=mode,
            reset_next_step=timing == "next_step", **common,
        )  # fmt: skip

    def _share(self, name: str, key: str) -> Any:
        """How much of the way to its goal a state goes in a step."""
        tau = _tau(self.graph, name, self.graph.nodes[name], key)
        if self.integration == "exponential":
            return -np.expm1(-self.dt_s / tau)
        if self.dt_s > np.min(tau) * CLOSE:
            raise InputError(
                f"dt_s: expected at most {np.min(tau):g} s, {key} of {name!r}, as euler needs it (or integration=exponential), "
                f"got {self.dt_s:g}"
            )
        return np.minimum(self.dt_s / tau, 1.0)

    def _reset(self, name: str, node: Any) -> tuple[Timing, ResetMode]:
        kept = node.metadata if isinstance(node.metadata, Mapping) else {}
        timing = self.reset or nir_graph.text(kept.get("reset", "immediate"))
        mode = self.reset_mode or nir_graph.text(kept.get("reset_mode", "zero"))
        for key, value, options in (("reset", timing, Timing), ("reset_mode", mode, ResetMode)):
            if value not in get_args(options):
                raise unknown_name(f"node {name!r}: metadata: {key}", str(value), get_args(options))
        return timing, mode

    def _note_resets(self) -> None:
        for what, names in self.resets.items():
            self.notes.append(f"reset: to {what}" if len(self.resets) == 1 else f"reset of {', '.join(names)}: to {what}")

    # --- projections ----------------------------------------------------------------------------------------------------

    def _projections(
        self, found: list[tuple[str, str, Any, Synapses, tuple[Nest, ...] | None]], rank: Mapping[str, int]
    ) -> tuple[tuple[Projection, ...], dict[str, tuple[Nest, ...] | None]]:
        """Named, and with the step that closes a loop."""
        ahead: dict[str, set[str]] = {}
        for source, target, delay, _, _ in found:
            if np.min(delay) == 0:
                ahead.setdefault(source, set()).add(target)
        pairs = [(source, target) for source, target, *_ in found]
        projections: list[Projection] = []
        nests: dict[str, tuple[Nest, ...] | None] = {}
        for source, target, delay, synapses, made in found:
            steps = delay if isinstance(delay, int) else np.asarray(delay, np.int64)
            if np.min(steps) == 0 and rank[target] <= rank[source] and _reaches(ahead, target, source):
                steps = 1 if isinstance(steps, int) else np.maximum(steps, 1)
                self.notes.append(f"loop: {source}->{target} arrives one step later")
            name = f"{source}->{target}"
            if pairs.count((source, target)) > 1:
                name = f"{name}@{delay}"
            projections.append(Projection(name, source, target, synapses, delay_steps=steps))
            nests[name] = made
        return tuple(projections), nests


def _ranks(nodes: list[tuple[str, bool]], edges: list[tuple[str, str]]) -> dict[str, int]:
    """Populations in order of how few projections they are from an input, then by name."""
    following: dict[str, list[str]] = {}
    for source, target in edges:
        following.setdefault(source, []).append(target)
    depth = {name: 0 for name, is_input in nodes if is_input}
    waiting = list(depth)
    for name in waiting:
        for target in following.get(name, ()):
            if target not in depth:
                depth[target] = depth[name] + 1
                waiting.append(target)
    last = len(nodes)
    ordered = sorted((name for name, _ in nodes), key=lambda name: (depth.get(name, last), natural(name)))
    return {name: place for place, name in enumerate(ordered)}


def _reaches(ahead: Mapping[str, set[str]], start: str, end: str) -> bool:
    """Whether there is a way without delay."""
    seen, waiting = {start}, [start]
    while waiting:
        one = waiting.pop()
        if one == end:
            return True
        fresh = ahead.get(one, set()) - seen
        seen |= fresh
        waiting += fresh
    return False


# --- and back ---------------------------------------------------------------------------------------------------------------


def to_nir(network: SpikingNetwork) -> Any:
    """The network as a ``nir.NIRGraph``, its parameters those that ``load_nir`` with the same ``dt_s`` and ``euler`` turns back.

    Populations become flat, projections ``Linear`` or ``Affine`` matrices with a ``Delay`` before them (none where a population's
    own spikes come back one step later, which is what loops mean). ``reset`` and its timing are kept in the nodes' metadata,
    which other readers of NIR take for a reset to v_reset at once.

    Raises:
        InputError: the package nir is missing, or the network has what NIR cannot say (refractory steps, adaptation, a second
            current, resonance, …), named.
    """
    nir = nir_graph.import_nir()
    nodes: dict[str, Any] = {}
    edges: list[tuple[str, str]] = []
    fed = {projection.target for projection in network.projections}
    flat_of: dict[str, str] = {}
    for population in network.populations:
        label = population.name
        if population.neurons.kind == "input":
            nodes[label] = nir.Input(input_type=np.array(population.shape))
            if len(population.shape) > 1:
                flat_of[label] = f"{label}_flat"
                nodes[flat_of[label]] = nir.Flatten(np.array(population.shape), 0, -1)
                edges.append((label, flat_of[label]))
        else:
            nodes[label] = _node(nir, network, population, label in fed)
    biased: set[str] = set()
    for projection in network.projections:
        if projection.receptor:
            raise InputError(f"projection {projection.name!r}: receptor: NIR has one input a neuron, got {projection.receptor}")
        target = network.population(projection.target)
        bias = None if projection.target in biased else _input_bias(target)
        biased.add(projection.target)
        last = flat_of.get(projection.source, projection.source)
        delays = projection.delays
        own = projection.source == projection.target and (delays == 1).all()
        if delays.any() and not own:
            nodes[f"{projection.name}.delay"] = nir.Delay(delay=delays * network.dt_s)
            edges.append((last, f"{projection.name}.delay"))
            last = f"{projection.name}.delay"
        weight = _matrix(projection, target.size)
        nodes[projection.name] = nir.Linear(weight=weight) if bias is None else nir.Affine(weight=weight, bias=bias)
        edges += [(last, projection.name), (projection.name, projection.target)]
    for label in network.outputs:
        taken = f"{label}_output" if label == "output" or "output" in nodes or len(network.outputs) > 1 else "output"
        nodes[taken] = nir.Output(output_type=np.array([network.population(label).size]))
        edges.append((label, taken))
    if len(nodes) < len(network.populations) + len(flat_of) + len(network.projections) + len(network.outputs):
        raise InputError(f"network {network.name!r}: a population and a projection share a name")
    return nir.NIRGraph(nodes=nodes, edges=edges, type_check=False)


def _matrix(projection: Projection, targets: int) -> Floats:
    if targets * projection.synapses.sources > MOST_DENSE:
        raise InputError(
            f"projection {projection.name!r}: NIR writes {targets} × {projection.synapses.sources} weights in full, "
            f"expected at most {MOST_DENSE}"
        )
    return projection.synapses.dense(targets)


def _input_bias(population: Population) -> Floats | None:
    values = population.neurons.arrays(population.size)["input_bias"]
    return values if values.any() else None


def _node(nir: Any, network: SpikingNetwork, population: Population, fed: bool) -> Any:
    """The NIR node of a population. τ = dt / (1 − decay), r = gain · τ/dt, v_leak = bias · τ/dt, w_in = τ_syn/dt."""
    neurons, dt = population.neurons, network.dt_s
    p = neurons.arrays(population.size)
    where = f"population {population.name!r}"
    for key in ("refractory_steps", "adaptation", "angle"):
        if p[key].any():
            raise InputError(f"{where}: {key}: NIR has none, expected 0")
    if neurons.fires_at_threshold or neurons.kind == "resonate_and_fire" or neurons.reset == "none":
        what = "fires_at_threshold" if neurons.fires_at_threshold else "kind" if neurons.reset != "none" else "reset"
        raise InputError(f"{where}: {what}: NIR has no such neurons, got {getattr(neurons, what)!r}")
    if not fed and p["input_bias"].any():
        raise InputError(f"{where}: input_bias: NIR brings it with a projection, but there is none to this population")
    if neurons.kind == "threshold":
        if (p["gain"] <= 0).any():
            raise InputError(f"{where}: gain: expected > 0, got {p['gain'].min():g}")
        return nir.Threshold(threshold=(p["threshold"] - p["bias"]) / p["gain"])
    leaks, current = p["decay_v"] < 1, p["decay_i"] > 0
    for key, flags in (("decay_v", leaks), ("decay_i", current)):
        if flags.any() != flags.all():
            raise InputError(f"{where}: {key}: NIR has neurons of one kind together, got {p[key].min():g} to {p[key].max():g}")
    if current.any() and not (leaks.all() and (p["decay_i"] < 1).all()):
        raise InputError(f"{where}: decay_i, decay_v: NIR's currents belong to neurons whose current and voltage leak")
    steps = 1 / (1 - p["decay_v"]) if leaks.all() else np.ones(population.size)
    rest = p["bias"] * steps
    if (p["v_init"] != (rest if leaks.all() else 0)).any() and not np.allclose(p["v_init"], rest if leaks.all() else 0):
        raise InputError(f"{where}: v_init: NIR's neurons begin at v_leak, or 0 without leak")
    if not leaks.all() and p["bias"].any():
        raise InputError(f"{where}: bias: NIR has none without leak; use input_bias")
    values: dict[str, Any] = {"r": p["gain"] * steps}
    kind = ("CubaLI" if current.all() else "LI") if leaks.all() else "I"
    if leaks.all():
        values |= {"tau_mem" if current.all() else "tau": dt * steps, "v_leak": rest}
    if current.all():
        synapse = 1 / (1 - p["decay_i"])
        values |= {"tau_syn": dt * synapse, "w_in": synapse}
    if neurons.kind == "integrate_and_fire":
        kind += "F"
        values |= {"v_threshold": p["threshold"], "v_reset": p["v_reset"] if neurons.reset == "zero" else 0 * p["v_reset"]}
        kept = {"reset_mode": neurons.reset, "reset": "next_step" if neurons.reset_next_step else "immediate"}
        values["metadata"] = {key: value for key, value in kept.items() if value not in ("zero", "immediate")}
    return getattr(nir, kind)(**values)
