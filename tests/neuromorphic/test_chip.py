"""The chip's steps against the silicon trace, the core's model, and a plain loop over dense matrices and Python's integers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from chip_networks import chip
from chip_reference import Reference

from neuromorphic import LifCore, LoihiNeuron
from neuromorphic.chip.arithmetic import get_arithmetic
from neuromorphic.chip.faults import ChipFaults, StateFlip, StuckBit
from neuromorphic.chip.mapping import map_network
from neuromorphic.chip.quantisation import quantise
from neuromorphic.chip.running import run
from neuromorphic.dynamics import simulate
from neuromorphic.events import Events
from neuromorphic.network import Neurons, Population, Projection, SpikingNetwork, Synapses
from numerics.errors import InputError

TRACE = Path(__file__).parent / "data" / "loihi_lif_trace.csv"


def sparse(rng, sources, targets, share=0.5, scale=0.4, mean=0.25):
    there = rng.random((sources, targets)) < share
    source, target = np.nonzero(there)
    return Synapses.from_coo(source, target, rng.normal(mean, scale, source.size), sources=sources)


def net(rng, neurons, *, readout=True, receptor=0, inputs=6, sizes=(9, 7), scale=0.4):
    """An input, two populations with loops and delays of each source's own, and a readout."""
    a, b = sizes
    populations = [
        Population("in", (inputs,), Neurons("input")),
        Population("a", (a,), neurons(a)),
        Population("b", (b,), neurons(b)),
    ]
    projections = [
        Projection("in a", "in", "a", sparse(rng, inputs, a, scale=scale)),
        Projection("a b", "a", "b", sparse(rng, a, b, scale=scale), rng.integers(1, 4, a)),
        Projection("b a", "b", "a", sparse(rng, b, a, scale=scale), 3, receptor),
        Projection("a a", "a", "a", Synapses.from_dense(rng.normal(0, scale, (a, a))), 1),
    ]
    if readout:
        populations.append(Population("out", (3,), Neurons("readout", decay_v=0.9)))
        projections.append(Projection("b out", "b", "out", sparse(rng, b, 3)))
    return SpikingNetwork("net", tuple(populations), tuple(projections), ("out",) if readout else ("b",))


def lif(rng, **more):
    def made(size):
        return Neurons(
            "integrate_and_fire", **{"decay_i": rng.uniform(0, 0.9, size), "decay_v": rng.uniform(0.3, 1, size)} | more
        )

    return made


def events(rng, steps=40, inputs=6, rate=0.3):
    return (rng.random((steps, inputs)) < rate).astype(float)


def check(network, given, *, steps=44, mapping=None, faults=None, **plain):
    """A run against the plain loop, all states and counts; the run."""
    own = [one.name for one in network.populations if one.kind != "input"]
    found = run(
        network,
        {name: Events.from_dense(x) for name, x in given.items()},
        steps=steps,
        record=own,
        mapping=mapping,
        faults=faults,
    )
    expected = Reference(network, given, steps, **plain)
    for name in own:
        assert found.v[name].tolist() == expected.v[name], name
        if network.arithmetic.family != "event":
            assert found.u[name].tolist() == expected.u[name], name
    for one in network.populations:
        assert found.events[one.name].dense().tolist() == [[float(x) for x in row] for row in expected.sent[one.name]], one.name
    assert found.updates_active.sum(axis=1).tolist() == np.sum(list(expected.active.values()), axis=0).tolist()
    return found


def test_silicon_trace():
    """0 of 1000 steps differ, through a network, its quantisation, delays and the chip's run."""
    lines = [line for line in TRACE.read_text().splitlines() if not line.startswith("#")][1:]
    spike_in, register, spike_out = np.array([[float(x) for x in line.split(",")] for line in lines]).T
    neurons = Neurons("integrate_and_fire", decay_v=(4096 - 163) / 4096, threshold=25.0)
    whole = SpikingNetwork(
        "trace",
        (Population("in", (1,), Neurons("input")), Population("n", (1,), neurons)),
        (Projection("p", "in", "n", Synapses.from_dense([[10.0]])),),
        ("n",),
    )
    found = run(quantise(whole, "loihi"), {"in": spike_in[:, None]}, steps=1000, record=["n"])
    assert np.array_equal(found.membrane_register("n")[:, 0], register)
    assert np.array_equal(found.events["n"].dense()[:, 0], spike_out)
    assert spike_out.sum() == 4


@pytest.mark.parametrize("seed", range(3))
def test_a_core_is_the_model_of_the_rtl(seed):
    """``LifCore``, held bit for bit against ``lif_core`` in RTL, gets each spike's synapses one a cycle and then its tick."""
    rng = np.random.default_rng(seed)
    size, sources, steps = 8, 5, 60
    neuron = LoihiNeuron(int(rng.integers(4096)), int(rng.integers(600)), 60, 7, 2, refractory_delay=int(rng.integers(1, 5)))
    neurons = Neurons(
        "integrate_and_fire",
        decay_i=(4095 - neuron.decay_u) / 4096,
        decay_v=(4096 - neuron.decay_v) / 4096,
        threshold=neuron.threshold / 64,
        bias=neuron.bias / 64,
        refractory_steps=neuron.refractory_delay - 1,
    )
    weights = 2 * rng.integers(-30, 60, (size, sources))
    network = SpikingNetwork(
        "core",
        (Population("in", (sources,), Neurons("input")), Population("n", (size,), neurons)),
        (Projection("p", "in", "n", Synapses.from_dense(weights)),),
        ("n",),
    )
    made = quantise(network, "loihi", scale=64.0, timing="pipelined")
    same = made.population("n").loihi_neuron(0)
    assert replace(same, bias_mantissa=0, bias_exponent=0) == replace(neuron, bias_mantissa=0, bias_exponent=0)
    assert same.bias == neuron.bias
    assert np.array_equal(made.dense("p"), weights * 64)
    spikes = events(rng, steps, sources, 0.4)
    found = run(made, {"in": spikes}, steps=steps + 1, record=["n"])
    core = LifCore(neuron, size)
    event, target, weight, tick = [0] * size, [0] * size, [0] * size, [0] * size  # it clears its memory
    for row in np.concatenate([np.zeros((1, sources)), spikes]):  # on the chip a spike arrives in the next step
        for s in np.flatnonzero(row):
            event, target, weight, tick = (
                event + [1] * size,
                target + list(range(size)),
                weight + weights[:, s].tolist(),
                tick + [0] * size,
            )
        idle = size + 4
        event, target, weight, tick = event + [0] * idle, target + [0] * idle, weight + [0] * idle, [*tick, 1, *[0] * (idle - 1)]
    shown = core.run(event=event, target=target, weight=weight, tick=tick, spike_ready=[1] * len(event))
    there = shown.state_valid
    for name, values in (("u", shown.u), ("v", shown.v), ("refractory", shown.refractory)):
        assert np.array_equal(values[there].reshape(steps + 1, size), getattr(found, name)["n"]), name
    assert np.array_equal(shown.spike[there].reshape(steps + 1, size), found.events["n"].dense() > 0)
    assert found.events["n"].count > 10


@pytest.mark.parametrize("seed", range(6))
def test_loihi_networks_equal_loops_of_its_neuron(seed):
    """Recurrent networks of ``LoihiNeuron`` and dense integer matrices; parameters of each neuron, or one for all."""
    rng = np.random.default_rng(seed)
    more = {"threshold": rng.uniform(0.5, 1.5), "bias": rng.normal(0, 0.1), "refractory_steps": int(rng.integers(0, 4))}
    uniform = {"decay_i": 0.6, "decay_v": 0.8} if seed % 2 else {}
    network = quantise(net(rng, lif(rng, **more, **uniform), readout=False), "loihi", timing="pipelined")
    given = {"in": events(rng)}
    found = check(network, given)
    spikes = {one.name: np.zeros((44, one.size), np.int64) for one in network.populations}
    spikes["in"][:40] = given["in"]
    neurons = {name: [network.population(name).loihi_neuron(k) for k in range(network.population(name).size)] for name in "ab"}
    states = {name: [neuron.state(1) for neuron in neurons[name]] for name in "ab"}
    for t in range(44):
        for name in "ab":
            total = np.zeros(network.population(name).size, np.int64)
            for p in network.projections:
                if p.target == name:
                    sent = [spikes[p.source][t - d, s] if t >= d else 0 for s, d in enumerate(p.delays)]
                    total += network.dense(p.name) @ np.array(sent)
            for k, (neuron, state) in enumerate(zip(neurons[name], states[name], strict=True)):
                spikes[name][t, k] = neuron.step(state, total[k : k + 1])[0]
                assert (state.u[0], state.v[0], state.refractory[0]) == tuple(
                    getattr(found, field)[name][t, k] for field in ("u", "v", "refractory")
                )
    for name in "ab":
        assert np.array_equal(found.events[name].dense(), spikes[name])
        assert spikes[name].sum() > 5


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["loihi", "loihi2", "s16.15", "float32", "seneca"])
def test_many_networks_equal_plain_loops(name):
    for seed in range(60):
        rng = np.random.default_rng(seed)
        more = {"threshold": rng.uniform(0.1, 2), "bias": rng.normal(0, 0.2), "refractory_steps": int(rng.integers(0, 5))}
        arithmetic = replace(get_arithmetic(name), delay_steps_max=None)
        scale = 2.0 ** rng.integers(8, 20) if arithmetic.family == "loihi" and seed % 2 else "auto"
        network = net(
            rng, lif(rng, **more), scale=rng.uniform(0.1, 2), sizes=(int(rng.integers(1, 20)), int(rng.integers(1, 20)))
        )
        check(quantise(network, arithmetic, timing="pipelined", scale=scale), {"in": events(rng, rate=rng.random())})


def test_sums_that_wrap():
    """22-bit sums and 24-bit currents wrap as ``LoihiNeuron``'s, and are counted."""
    rng = np.random.default_rng(8)
    made = quantise(net(rng, lif(rng, decay_i=0.95), readout=False), "loihi", scale=2.0**20, timing="pipelined")
    found = check(made, {"in": events(rng, rate=0.8)})
    assert found.wrapped > 20


@pytest.mark.parametrize(
    ("name", "neurons", "receptor"),
    [
        ("loihi2", {"reset": "subtract"}, 0),
        ("loihi2", {"reset": "none", "v_reset": 0.1}, 0),
        ("loihi2", {"v_reset": -0.3, "refractory_steps": 2}, 0),
        ("s16.15", {"adaptation": 0.4, "decay_a": 0.8, "input_bias": 0.05}, 0),
        ("s16.15", {"reset": "subtract", "refractory_steps": 3, "fires_at_threshold": True}, 0),
        ("s16.15", {"decay_i2": 0.7, "gain2": 0.5, "v_init": 0.3}, 1),
        ("s16.15", {"kind": "resonate_and_fire", "angle": 0.7, "decay_v": 0.95, "decay_i": 0.0}, 0),
        ("float32", {"adaptation": 0.4, "decay_a": 0.8, "input_bias": 0.05}, 0),
        ("float32", {"kind": "resonate_and_fire", "angle": 0.7, "decay_v": 0.95, "reset": "subtract", "decay_i": 0.0}, 0),
        ("seneca", {"reset": "subtract", "fires_at_threshold": True}, 0),
        ("seneca", {"adaptation": 0.4, "decay_a": 0.8, "refractory_steps": 1}, 0),
        ("spinnaker2", {"decay_i2": 0.7, "gain2": 0.5}, 1),
    ],
)
def test_arithmetics_equal_plain_loops(name, neurons, receptor):
    rng = np.random.default_rng(len(name) + receptor)
    arithmetic = replace(get_arithmetic(name), delay_steps_max=None)

    def made(size):
        kind = neurons.get("kind", "integrate_and_fire")
        rest = {field: value for field, value in neurons.items() if field != "kind"}
        return Neurons(kind, **{"decay_i": rng.uniform(0, 0.5, size), "decay_v": rng.uniform(0.3, 1, size)} | rest)

    network = quantise(net(rng, made, receptor=receptor), arithmetic, timing="pipelined")
    given = {"in": events(rng)}
    found = check(network, given)
    assert found.events["b"].count > 10
    assert found.values["out"].any()
    # Neurons of one population scattered over cores: the same, and each is counted on its own.
    cores = {one.name: rng.integers(0, 3, one.size) for one in network.populations if one.kind != "input"}
    scattered = check(network, given, mapping=cores)
    lonely = {name: np.arange(some.size) + 100 * k for k, (name, some) in enumerate(cores.items())}
    each = check(network, given, mapping=lonely).updates_active
    for core in range(3):
        own = [number for name, some in lonely.items() for number in some[cores[name] == core]]
        assert np.array_equal(scattered.updates_active[:, core], each[:, own].sum(axis=1))


def test_products_that_round_to_the_nearest():
    rng = np.random.default_rng(11)
    arithmetic = replace(get_arithmetic("s16.15"), nearest=True)
    network = quantise(net(rng, lif(rng)), arithmetic, timing="pipelined")
    down = replace(network, arithmetic=get_arithmetic("s16.15"))
    given = {"in": events(rng)}
    assert not np.array_equal(check(network, given).v["a"], check(down, given).v["a"])


def test_truenorth_saturates():
    """20-bit voltages, no leak but a bias; four weights a neuron; spikes at the threshold."""
    rng = np.random.default_rng(3)
    network = net(rng, lambda size: Neurons("integrate_and_fire", bias=-0.05, reset="subtract", threshold=1.5), readout=False)
    made = quantise(network, "truenorth", timing="pipelined")
    assert all(len(set(row) - {0}) <= 4 for row in made.population("a").numbers["axon_weights"].tolist())
    table = {one.name: one.numbers["axon_weights"] for one in made.populations if one.kind != "input"}
    for p in made.projections:
        assert np.array_equal(made.weight[p.part], table[p.target][made.target[p.part], made.axon_type[p.part]])
    assert check(made, {"in": events(rng)}).events["b"].count > 10
    narrow = replace(made, arithmetic=replace(made.arithmetic, voltage_bits=9))
    assert check(narrow, {"in": events(rng)}).clipped > 0


def test_odin_events_move_the_membrane_one_by_one():
    """Within a step an event may saturate it, or make it spike, before the next: the sum alone would not tell."""
    rng = np.random.default_rng(4)
    synapses = Synapses.from_dense(rng.integers(-7, 8, (9, 6)))
    network = SpikingNetwork(
        "odin",
        (
            Population("in", (6,), Neurons("input")),
            Population(
                "n", (9,), Neurons("integrate_and_fire", threshold=rng.integers(4, 13, 9), bias=-1.0, fires_at_threshold=True)
            ),
        ),
        (Projection("p", "in", "n", synapses),),
        ("n",),
    )
    made = quantise(network, "odin")
    assert np.array_equal(made.dense("p"), synapses.dense(9))
    given = events(rng, rate=0.5) * rng.integers(1, 4, (40, 6))  # up to three events of a source in a step
    found = check(made, {"in": given})
    assert found.events["n"].values.max() > 1
    assert found.clipped > 20
    operations = (given.sum(axis=1) * 9).tolist()
    assert found.synaptic_operations.sum(axis=1).tolist() == [*operations, 0, 0, 0, 0]
    assert found.spikes.sum() == found.events["n"].values.sum()


def test_graded_spikes():
    rng = np.random.default_rng(5)
    network = quantise(net(rng, lif(rng)), "loihi2", timing="pipelined", value_scale={"in": 4})
    given = {"in": events(rng) * rng.integers(-6, 7, (40, 6)) / 4}
    assert check(network, given).events["in"].values.min() == -6
    with pytest.raises(InputError, match=r"^inputs: 'in': value: expected whole numbers of 1/4 from .*, got 0.3$"):
        run(network, {"in": events(rng) * 0.3})
    with pytest.raises(InputError, match=r"^inputs: 'in': value: loihi has spikes without values, got 2$"):
        run(quantise(net(rng, lif(rng)), "loihi", timing="pipelined"), {"in": events(rng) * 2})


@pytest.mark.parametrize("name", ["loihi2", "float32"])
def test_a_readout_that_sends(name):
    rng = np.random.default_rng(6)
    network = SpikingNetwork(
        "values",
        (
            Population("in", (4,), Neurons("input")),
            Population("r", (5,), Neurons("readout", decay_v=0.8)),
            Population("n", (6,), Neurons("integrate_and_fire", decay_v=0.9)),
        ),
        (Projection("p", "in", "r", sparse(rng, 4, 5)), Projection("q", "r", "n", sparse(rng, 5, 6), 1)),
        ("n",),
    )
    made = quantise(network, name)
    given = {"in": events(rng, inputs=4)}
    found = check(made, given)
    exact = simulate(network, given, steps=40)
    assert np.allclose(found.real_values("r")[:40], exact.values["r"], atol=0.02)
    sent = found.aligned("r").dense()[:40]
    assert np.allclose(sent, exact.values["r"], atol=0.02)
    with pytest.raises(InputError, match=r"^population 'r': kind: loihi sends no values, so that a readout sends nothing$"):
        quantise(network, "loihi")


def feedforward(rng, neurons, sizes=(20, 30, 24, 10)):
    populations = [Population("0", (sizes[0],), Neurons("input"))]
    populations += [Population(str(k), (n,), neurons(n)) for k, n in enumerate(sizes) if k]
    ways = [(k, k + 1, 0) for k in range(len(sizes) - 1)] + [(1, 3, 0), (2, 2, 1), (3, 1, 4)]
    projections = [Projection(f"{a} {b}", str(a), str(b), sparse(rng, sizes[a], sizes[b], 0.3), d) for a, b, d in ways]
    return SpikingNetwork("layers", tuple(populations), tuple(projections), (str(len(sizes) - 1),))


def test_aligned_spikes_are_those_of_the_network():
    """A shortcut, a loop and a way back: on the chip every way takes a step, and what is sent is the same, later."""
    rng = np.random.default_rng(7)
    network = feedforward(rng, lif(rng, bias=0.05, v_init=0.2))
    given = {"0": events(rng, 60, 20)}
    exact = simulate(network, given, steps=60)
    made = quantise(network, "float32")
    assert made.shift == {"1": 1, "2": 2, "3": 3}
    found = run(made, given)
    assert found.steps == 63
    for name in "123":
        assert np.array_equal(found.aligned(name).dense()[:60], exact.events[name].dense()), name
        assert exact.events[name].count > 50
    pipelined = run(quantise(network, "float32", timing="pipelined"), given, steps=63)
    assert not np.array_equal(pipelined.events["3"].dense()[3:], exact.events["3"].dense())


def counted(made, found, cores):
    """Counts by brute force: (synaptic operations, spikes, axons out, axons in) by step and core."""
    shape = (found.steps, max(int(c.max()) for c in cores.values()) + 1)
    operations, spikes, out, into = (np.zeros(shape, int) for _ in range(4))
    packets = []
    for t in range(found.steps):
        for one in made.populations:
            dense = found.events[one.name].dense()
            for s in np.flatnonzero(dense[t]):
                home = cores.get(one.name, np.full(one.size, -1))[s]
                if one.kind == "spiking":
                    spikes[t, home] += 1
                reached = set()
                for p in made.projections:
                    if p.source == one.name:
                        for k in range(p.first[s], p.first[s + 1]):
                            core = int(cores[p.target][made.target[k]])
                            operations[t, core] += 1
                            reached.add(core)
                for core in sorted(reached):
                    into[t, core] += 1
                    packets.append((t, max(home, 0), core))
                    if home >= 0:
                        out[t, home] += 1
    return (operations, spikes, out, into), packets


@pytest.mark.parametrize("layout", ["slices", "scattered"])
def test_counts_equal_a_count_by_hand_and_placement_changes_nothing_else(layout):
    rng = np.random.default_rng(9)
    made = quantise(net(rng, lif(rng)), "loihi", timing="pipelined")
    given = {"in": events(rng)}
    sizes = {"a": 9, "b": 7, "out": 3}
    if layout == "slices":
        cores = {"a": np.arange(9) // 4, "b": np.arange(7) // 3 + 2, "out": np.full(3, 6)}
    else:
        cores = {name: rng.integers(0, 5, n) for name, n in sizes.items()}
        cores["in"] = np.full(6, 4)
    found = check(made, given, mapping=cores)
    alone = check(made, given)
    assert all(found.events[name] == alone.events[name] for name in sizes)
    expected, packets = counted(made, found, cores)
    for counts, name in zip(expected, ("synaptic_operations", "spikes", "axons_out", "axons_in"), strict=True):
        assert np.array_equal(getattr(found, name), counts), name
    assert np.array_equal(found.updates_active + found.updates_inactive, np.broadcast_to(found.neurons, found.spikes.shape))
    assert alone.synaptic_operations.sum() == found.synaptic_operations.sum()
    assert np.array_equal(found.operations[:, :, 0].sum(), alone.operations[:, :, 0].sum())
    made_packets = found.packets()
    assert [
        tuple(row)
        for row in zip(
            np.repeat(np.arange(44), np.diff(made_packets.first)), made_packets.source, made_packets.target, strict=True
        )
    ] == packets
    half = found.packets(20, 30, neuron_time_s=1e-9)
    assert np.array_equal(half.source, made_packets.source[made_packets.first[20] : made_packets.first[30]])
    for t, source, release in zip(np.repeat(np.arange(10), np.diff(half.first)), half.source, half.release_s, strict=True):
        assert 0 <= release <= (found.neurons[source] + 1e-6) * 1e-9, t


def test_packets_are_those_of_the_mapping():
    """The ways that a run finds by its synapses are the routes that the mapping states."""
    rng = np.random.default_rng(13)
    network = feedforward(rng, lif(rng), sizes=(300, 900, 700, 50))
    spec = chip("loihi")
    mapping = map_network(network, spec, placement="greedy", neurons_per_core=100)
    made = quantise(network, spec)
    found = run(made, {"0": events(rng, 20, 300, 0.05)}, mapping=mapping)
    packets = found.packets()
    expected = []
    for t in range(found.steps):
        for one in made.populations:
            sent, routes = found.events[one.name], mapping.routes[one.name]
            home = mapping.core_of.get(one.name, np.full(one.size, mapping.input_core))
            for s in sent.neuron[sent.first[t] : sent.first[t + 1]]:
                expected += [(t, home[s], core) for core in sorted(routes.core[routes.first[s] : routes.first[s + 1]])]
    steps = np.repeat(np.arange(found.steps), np.diff(packets.first))
    assert list(zip(steps, packets.source, packets.target, strict=True)) == expected
    assert len(set(packets.spike)) == len({(t, n) for t, n in zip(steps, packets.spike, strict=True)})
    assert len(expected) > 1000


def splitmix(z):
    mask = 2**64 - 1
    z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ z >> 27) * 0x94D049BB133111EB) & mask
    return z ^ z >> 31


@pytest.mark.parametrize("name", ["loihi", "s16.15", "float32"])
def test_faults_equal_a_plain_loop_with_them(name):
    rng = np.random.default_rng(10)
    made = quantise(net(rng, lif(rng)), name, timing="pipelined")
    bits = 32 if name == "float32" else 24
    flips = tuple(
        StateFlip(
            int(rng.integers(44)), str(rng.choice(["a", "b", "out"])), int(rng.integers(3)), str(rng.choice(["u", "v"])), int(bit)
        )
        for bit in rng.integers(0, bits - (9 if name == "float32" else 0), 12)
    )
    stuck = tuple(StuckBit("in a", int(k), int(rng.integers(8)), k % 2) for k in range(10))
    faults = ChipFaults(
        flips=flips,
        dead_neurons={"a": [2], "in": [0], "out": [1]},
        dead_synapses={"a a": [3, 40]},
        stuck=stuck,
        lost_rate=0.2,
        seed=5,
    )
    weight = made.weight.copy()
    for one in stuck:
        if name == "float32":
            code = weight[one.synapse : one.synapse + 1].view(np.uint32)
            code[:] = int(code[0]) & ~(1 << one.bit) | one.value << one.bit
        else:
            value = int(weight[one.synapse])
            size = abs(value) if name == "loihi" else value % 2**17
            size = size & ~(1 << one.bit) | one.value << one.bit
            weight[one.synapse] = np.sign(value) * size if name == "loihi" else size - 2**17 * (size >> 16)
    weight[made.projection("a a").first[0] + np.array([3, 40])] = 0
    assert np.array_equal(faults.weights(made), weight)
    begins = {one.name: sum(before.size for before in made.populations[:k]) for k, one in enumerate(made.populations)}

    def lost(population, neuron, step):
        golden = 0x9E3779B97F4A7C15
        number = splitmix((splitmix((5 + step * golden) % 2**64) + (begins[population] + neuron) * golden) % 2**64)
        return number / 2**64 < 0.2

    given = {"in": events(rng, rate=0.5)}
    own = ["a", "b", "out"]
    found = run(made, given, steps=44, record=own, faults=faults)
    dead = {"a": {2}, "in": {0}}
    expected = Reference(made, given, 44, weight=weight, flips=flips, dead=dead, lost=lost)
    for one in own:
        assert found.v[one].tolist() == expected.v[one], one
        assert found.u[one].tolist() == expected.u[one], one
    assert not found.values["out"][:, 1].any()
    assert found.values["out"][:, [0, 2]].any()
    healthy = run(made, given, steps=44)
    assert found.lost > 20
    assert healthy.lost == 0
    assert healthy.events["a"] != found.events["a"]
    every = run(made, given, steps=44, faults=ChipFaults(lost_rate=1.0))
    assert every.events["a"].count == 0
    assert every.synaptic_operations.sum() == 0


def test_a_flip_wakes_a_neuron_at_rest():
    rng = np.random.default_rng(12)
    made = quantise(net(rng, lif(rng, decay_i=0.0, decay_v=0.5), sizes=(1000, 7)), "loihi", timing="pipelined")
    quiet = {"in": np.zeros((40, 6))}
    found = run(made, quiet, steps=40, record=["a"], faults=ChipFaults(flips=(StateFlip(7, "a", 700, "v", 9),)))
    assert found.v["a"][7, 700] == 256
    assert np.flatnonzero(found.v["a"].any(axis=1)).tolist() == list(range(7, 16))
    assert found.updates_active.sum() == 10  # and one in which it falls to 0


def test_bad_inputs():
    rng = np.random.default_rng(0)
    made = quantise(net(rng, lif(rng)), "loihi", timing="pipelined")
    cores = {"a": np.zeros(9, int), "b": np.zeros(7, int), "out": np.zeros(3, int)}
    for arguments, text in (
        (({},), r"^inputs: expected events of 'in', got those of none$"),
        (({"in": np.zeros((4, 5))},), r"^inputs: 'in': expected 6 neurons, got 5$"),
        (({"im": np.zeros((4, 6))},), r"^inputs: unknown name 'im'; did you mean 'in'\?$"),
    ):
        with pytest.raises(InputError, match=text):
            run(made, *arguments)
    given = {"in": np.zeros((4, 6))}
    for how, text in (
        ({"steps": -1}, r"^steps: expected an integer ≥ 0, got -1$"),
        ({"record": ["in"]}, r"^record: 'in' is an input and has no state$"),
        ({"mapping": {"a": cores["a"]}}, r"^core_of: expected cores of 'b', got those of a$"),
        ({"mapping": {**cores, "a": np.zeros(8, int)}}, r"^core_of: 'a': expected 9 core numbers ≥ 0, got \(8,\), from 0$"),
        ({"faults": ChipFaults(flips=(StateFlip(0, "a", 0, "v", 24),))}, r"^bit: expected an integer from 0 to 23, got 24$"),
        ({"faults": ChipFaults(dead_neurons={"a": [9]})}, r"^neuron: expected an integer from 0 to 8, got 9$"),
        ({"faults": ChipFaults(dead_synapses={"a a": [81]})}, r"^synapse: expected an integer from 0 to 80, got 81$"),
        ({"faults": ChipFaults(stuck=(StuckBit("a a", 0, 9, 1),))}, r"^bit: expected an integer from 0 to 8, got 9$"),
    ):
        with pytest.raises(InputError, match=text):
            run(made, given, **how)
    with pytest.raises(InputError, match=r"^lost_rate: expected 0 to 1, got 1.5$"):
        ChipFaults(lost_rate=1.5)
