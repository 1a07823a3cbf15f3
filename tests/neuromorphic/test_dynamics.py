"""The compiled dynamics against a brute-force one: one neuron, one synapse, one number at a time. Equal bit for bit."""

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import erfcx

from neuromorphic.dynamics import simulate
from neuromorphic.encoders import poisson_events
from neuromorphic.events import Events
from neuromorphic.network import Neurons, Population, Projection, SpikingNetwork, Synapses
from neuromorphic.standard_networks import brunel_network, cuba_network
from numerics.errors import InputError


class Neuron:
    """One neuron by the docstring of ``Neurons``."""

    def __init__(self, kind, p, flags):
        self.kind, self.p, self.flags = kind, p, flags
        self.v, self.w, self.i, self.i2, self.a = p["v_init"], 0.0, 0.0, 0.0, 0.0
        self.left, self.waiting = 0, None

    def reset(self, passed):
        if self.flags["reset"] == "zero":
            self.v, self.w = self.p["v_reset"], 0.0
        elif self.flags["reset"] == "subtract":
            self.v -= passed

    def step(self, shares, shares2):
        """One step with the input's shares in their order; whether it spikes."""
        p = self.p
        current = self.kind in ("integrate_and_fire", "readout")
        self.i = (p["decay_i"] * self.i if current else 0.0) + p["input_bias"]
        for share in shares:
            self.i += share
        self.i2 = p["decay_i2"] * self.i2
        for share in shares2:
            self.i2 += share
        if self.kind == "threshold":
            self.v = p["gain"] * self.i + p["bias"]
            return self.v >= p["threshold"] if self.flags["fires_at_threshold"] else self.v > p["threshold"]
        if self.waiting is not None:
            self.reset(self.waiting)
            self.waiting = None
        passed = p["threshold"] + p["adaptation"] * self.a
        spike = False
        if self.left > 0:
            self.left -= 1
        else:
            if self.kind == "resonate_and_fire":
                c, s = p["decay_v"] * np.cos(p["angle"]), p["decay_v"] * np.sin(p["angle"])
                kept, self.w = c * self.v - s * self.w, s * self.v + c * self.w
            else:
                kept = p["decay_v"] * self.v
            self.v = kept + p["gain"] * self.i
            if current:
                self.v += p["gain2"] * self.i2
            self.v += p["bias"]
            if self.kind != "readout":
                spike = self.v >= passed if self.flags["fires_at_threshold"] else self.v > passed
        self.a = p["decay_a"] * self.a + float(spike)
        if spike:
            self.left = int(p["refractory_steps"])
            if self.flags["reset_next_step"]:
                self.waiting = passed
            else:
                self.reset(passed)
        return spike


def brute_force(network, inputs, steps):
    """What each population sends by (step, neuron), and all voltages."""
    neurons = {}
    for one in network.populations:
        arrays = one.neurons.arrays(one.size)
        flags = {name: getattr(one.neurons, name) for name in ("reset", "reset_next_step", "fires_at_threshold")}
        neurons[one.name] = [
            Neuron(one.neurons.kind, {name: float(values[k]) for name, values in arrays.items()}, flags) for k in range(one.size)
        ]
    sent = {one.name: defaultdict(dict) for one in network.populations}
    v = {one.name: np.zeros((steps, one.size)) for one in network.populations}
    for t in range(steps):
        for name in network.order:
            if name in network.inputs:
                sent[name][t] = {k: x for k, x in enumerate(inputs[name][t].tolist()) if x} if t < len(inputs[name]) else {}
                continue
            shares = {0: defaultdict(list), 1: defaultdict(list)}
            for projection in network.projections:
                if projection.target != name:
                    continue
                arriving = []
                for source, delay in enumerate(projection.delays.tolist()):
                    value = sent[projection.source][t - delay].get(source) if t >= delay else None
                    if value:
                        arriving.append((-delay, source, value))
                synapses = projection.synapses
                for _, source, value in sorted(arriving):
                    for at in range(synapses.first[source], synapses.first[source + 1]):
                        shares[projection.receptor][int(synapses.target[at])].append(float(synapses.weight[at]) * value)
            for k, neuron in enumerate(neurons[name]):
                if neuron.step(shares[0][k], shares[1][k]):
                    sent[name][t][k] = 1.0
                if neuron.kind == "readout":
                    sent[name][t][k] = neuron.v
                v[name][t, k] = neuron.v
    return sent, v


def random_neurons(rng, kind, size, *, each):
    def of(low, high, *, whole=False):
        values = rng.uniform(low, high, size if each else 1)
        values = np.round(values) if whole else values
        return values if each else float(values[0])

    if kind == "input":
        return Neurons("input")
    found = {
        "gain": of(0.5, 1.5),
        "bias": of(-0.1, 0.2),
        "input_bias": of(-0.1, 0.2),
        "threshold": of(0.5, 1.5),
        "v_init": of(-1, 1),
    }
    found |= {"fires_at_threshold": bool(rng.integers(2))}
    if kind == "threshold":
        return Neurons(kind, **found)
    found |= {"decay_v": of(0, 1) if rng.integers(4) else 0.0, "reset": str(rng.choice(["zero", "subtract", "none"]))}
    found |= {"v_reset": of(-0.5, 0.3), "reset_next_step": bool(rng.integers(2))}
    if rng.integers(2):
        found |= {"refractory_steps": of(0, 4, whole=True)}
    if rng.integers(2):
        found |= {"adaptation": of(0, 0.5), "decay_a": of(0, 1)}
    if kind == "resonate_and_fire":
        found |= {"angle": of(-3, 3)}
    elif rng.integers(3):
        found |= {"decay_i": of(0, 1), "decay_i2": of(0, 1), "gain2": of(-1, 1)}
    return Neurons(kind, **found)


def random_network(seed, *, size=7):
    """Populations of every kind, joined every way: forward, back with delay, multapses, delays of each source, both receptors."""
    rng = np.random.default_rng(seed)
    kinds = ["input", "input", "integrate_and_fire", "resonate_and_fire", "threshold", "readout", "integrate_and_fire"]
    populations = []
    for number, kind in enumerate(kinds):
        count = int(rng.integers(1, size + 1))
        populations.append(Population(f"p{number}", (count,), random_neurons(rng, kind, count, each=bool(rng.integers(2)))))
    projections = []
    for number in range(14):
        a, b = int(rng.integers(len(kinds))), int(rng.integers(2, len(kinds)))
        source, target = populations[a], populations[b]
        pairs = int(rng.integers(0, 3 * size))
        shape = rng.integers(4)
        if shape == 0:
            synapses = Synapses.from_dense(rng.normal(0, 0.7, (target.size, source.size)))
        else:
            weight = rng.normal(0, 0.7, pairs) if shape > 1 else np.full(pairs, 0.4)
            lists = rng.integers(0, source.size, pairs), rng.integers(0, target.size, pairs), weight
            synapses = Synapses.from_coo(*lists, sources=source.size)
        least = 0 if a < b else 1
        delay = int(rng.integers(least, 4)) if rng.integers(2) else rng.integers(least, 5, source.size)
        receptor = int(rng.integers(2)) if target.neurons.kind in ("integrate_and_fire", "readout") else 0
        projections.append(Projection(f"j{number}", source.name, target.name, synapses, delay, receptor))
    order = rng.permutation(len(populations))
    return SpikingNetwork("random", tuple(populations[k] for k in order), tuple(projections), ("p6",))


def random_inputs(seed, network, steps):
    rng = np.random.default_rng((seed, 1))
    found = {}
    for name in sorted(network.inputs):
        spikes = (rng.random((steps, network.population(name).size)) < 0.3).astype(np.float64)
        found[name] = spikes * rng.normal(0, 1, spikes.shape) if rng.integers(2) else spikes
    return found


def assert_equal_to_brute_force(network, inputs, steps):
    names = [one.name for one in network.populations if one.neurons.kind != "input"]
    activity = simulate(network, inputs, steps=steps, record=names)
    sent, v = brute_force(network, inputs, steps)
    spikes = 0
    for one in network.populations:
        assert activity.steps == steps
        if one.neurons.kind == "readout":
            assert one.name not in activity.events
            np.testing.assert_array_equal(activity.values[one.name], v[one.name])
        else:
            dense = activity.events[one.name].dense()
            expected = np.zeros((steps, one.size))
            for t, values in sent[one.name].items():
                for k, value in values.items():
                    expected[t, k] = value
            np.testing.assert_array_equal(dense, expected)
            spikes += int(expected.any(axis=1).sum())
        if one.name in names:
            np.testing.assert_array_equal(activity.v[one.name], v[one.name])
    return spikes


@pytest.mark.parametrize("seed", range(40))
def test_equal_to_brute_force(seed):
    network = random_network(seed)
    assert assert_equal_to_brute_force(network, random_inputs(seed, network, 30), 30) > 30


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(1000, 2000))
def test_equal_to_brute_force_many(seed):
    network = random_network(seed, size=12)
    assert_equal_to_brute_force(network, random_inputs(seed, network, 40), 45)


@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("kind", ["integrate_and_fire", "resonate_and_fire", "threshold"])
def test_blocks_of_many_neurons(kind, each):
    """Sizes beside the block of the loop, and a list of spikes that has to grow."""
    rng = np.random.default_rng(3)
    for size in (511, 512, 1030):
        neurons = random_neurons(rng, kind, size, each=each)
        network = SpikingNetwork(
            "wide",
            (Population("in", (3,), Neurons("input")), Population("out", (size,), neurons)),
            (Projection("j", "in", "out", Synapses.from_dense(rng.normal(0, 1, (size, 3)))),),
            ("out",),
        )
        assert_equal_to_brute_force(network, {"in": rng.normal(0, 2, (9, 3))}, 9)


def one_neuron(**parameters):
    neurons = Neurons("integrate_and_fire", **parameters)
    return SpikingNetwork(
        "one",
        (Population("in", (1,), Neurons("input")), Population("out", (1,), neurons)),
        (Projection("j", "in", "out", Synapses.from_dense([[1.0]])),),
        ("out",),
    )


def ran(network, values):
    activity = simulate(network, {"in": np.asarray(values, float)[:, None]}, record=["out"])
    return activity.events["out"].dense()[:, 0].astype(int).tolist(), activity.v["out"][:, 0].tolist()


def test_resets_by_hand():
    given = [1.5, 0, 0, 2.5, 0]
    assert ran(one_neuron(decay_v=0.5), given) == ([1, 0, 0, 1, 0], [0, 0, 0, 0, 0])
    assert ran(one_neuron(decay_v=0.5, reset="subtract"), given) == ([1, 0, 0, 1, 0], [0.5, 0.25, 0.125, 1.5625, 0.78125])
    assert ran(one_neuron(decay_v=0.5, reset="none"), given) == ([1, 0, 0, 1, 1], [1.5, 0.75, 0.375, 2.6875, 1.34375])
    later = one_neuron(decay_v=0.5, reset="subtract", reset_next_step=True)
    assert ran(later, given) == ([1, 0, 0, 1, 0], [1.5, 0.25, 0.125, 2.5625, 0.78125])
    assert ran(one_neuron(v_reset=-1.0, reset_next_step=True), given) == ([1, 0, 0, 1, 0], [1.5, -1, -1, 1.5, -1])


def test_threshold_itself():
    assert ran(one_neuron(), [1.0, 0, 0])[0] == [0, 0, 0]
    assert ran(one_neuron(fires_at_threshold=True), [1.0, 0, 0])[0] == [1, 0, 0]


def test_refractory_by_hand():
    assert ran(one_neuron(refractory_steps=2), [2.0] * 7)[0] == [1, 0, 0, 1, 0, 0, 1]
    assert ran(one_neuron(refractory_steps=2, reset="subtract"), [1.5] * 4) == ([1, 0, 0, 1], [0.5, 0.5, 0.5, 1.0])


def test_adaptation_by_hand():
    """Each spike raises the threshold by 1, so that ever more inputs of 1.1 are needed."""
    spikes, _ = ran(one_neuron(adaptation=1.0, decay_a=1.0), [1.1] * 9)
    assert spikes == [1, 0, 1, 0, 0, 1, 0, 0, 0]


def test_resonance():
    """Pulses a full turn apart add up; pulses half a turn apart take each other away."""

    def peak(gap):
        neurons = Neurons("resonate_and_fire", decay_v=0.99, angle=2 * np.pi / 20, threshold=100.0)
        network = SpikingNetwork(
            "resonance",
            (Population("in", (1,), Neurons("input")), Population("out", (1,), neurons)),
            (Projection("j", "in", "out", Synapses.from_dense([[1.0]])),),
            ("out",),
        )
        given = np.zeros((100, 1))
        given[[0, gap]] = 1
        return np.abs(simulate(network, {"in": given}, record=["out"]).v["out"][gap:]).max()

    assert peak(20) == pytest.approx(1 + 0.99**20, abs=1e-12)
    assert peak(10) < 0.12


def test_leak_is_the_closed_form():
    """A constant input of x through both decays: the sums of two geometric series."""
    network = one_neuron(decay_i=0.8, decay_v=0.9, gain=0.3, bias=0.01, threshold=1e9)
    _, v = ran(network, [0.5] * 200)
    t = np.arange(1, 201)
    current = 0.5 / (1 - 0.8)
    expected = (0.3 * current + 0.01) * (1 - 0.9**t) / (1 - 0.9) - 0.3 * current * 0.8 * (0.9**t - 0.8**t) / (0.9 - 0.8)
    np.testing.assert_allclose(v, expected, rtol=1e-12)


def test_same_bits_from_many_threads():
    network = cuba_network(seed=5, neurons=400, probability=0.2)
    alone = simulate(network, steps=800, record=["neurons"])
    with ThreadPoolExecutor(4) as pool:
        for run in pool.map(lambda _: simulate(network, steps=800, record=["neurons"]), range(4)):
            assert run.events == alone.events
            np.testing.assert_array_equal(run.v["neurons"], alone.v["neurons"])


def test_inputs_may_end_before():
    network = one_neuron(decay_v=0.5, threshold=9.0)
    activity = simulate(network, {"in": np.ones((2, 1))}, steps=4, record=["out"])
    assert activity.v["out"][:, 0].tolist() == [1, 1.5, 0.75, 0.375]
    assert activity.events["in"] == Events.from_list([0, 1], [0, 0], steps=4, size=1)
    assert simulate(network, {"in": np.ones((0, 1))}).steps == 0


@pytest.mark.parametrize(
    ("inputs", "how", "message"),
    [
        ({}, {}, "input 'in': missing, expected events or an array (steps, 1)"),
        ({"in": np.ones((3, 1)), "on": np.ones((3, 1))}, {}, "input: unknown name 'on'; did you mean 'in'?"),
        ({"in": np.ones((3, 2))}, {}, "input 'in': expected 1 neurons, got 2"),
        ({"in": np.ones((3, 1))}, {"steps": 2}, "input 'in': 3 steps, but 2 are run"),
        ({"in": np.ones((3, 1))}, {"steps": -1}, "steps: expected an integer ≥ 0, got -1"),
        ({"in": np.ones((3, 1))}, {"record": ["in"]}, "record: 'in' is an input and has no voltage"),
        ({"in": np.full((3, 1), np.nan)}, {}, "value: expected 3 finite numbers, one an event"),
    ],
)
def test_errors(inputs, how, message):
    with pytest.raises(InputError) as error:
        simulate(one_neuron(), inputs, **how)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("kind", "parameter"),
    [("threshold", "adaptation"), ("threshold", "refractory_steps"), ("threshold", "decay_i"), ("resonate_and_fire", "decay_i")],
)
def test_parameters_that_a_kind_does_not_have(kind, parameter):
    network = SpikingNetwork("wrong", (Population("n", (2,), Neurons(kind, **{parameter: 1})),), (), ("n",))
    with pytest.raises(InputError, match=f"population 'n': {parameter}: a {kind} neuron has none, expected 0"):
        simulate(network, steps=1)


def test_no_number_of_steps():
    with pytest.raises(InputError, match=r"steps: expected a number, as the inputs do not give one \(no inputs\)"):
        simulate(cuba_network(seed=0, neurons=5))


def test_second_receptor_needs_a_current():
    populations = Population("a", (1,), Neurons("threshold")), Population("b", (1,), Neurons("threshold"))
    with pytest.raises(InputError, match="projection 'j': receptor 1: threshold has one input only"):
        SpikingNetwork("wrong", populations, (Projection("j", "a", "b", Synapses.from_dense([[1.0]]), 1, 1),), ("b",))


def test_cuba_is_the_published_network():
    network = cuba_network(seed=1)
    first, second = network.projections
    assert abs(network.synapses - 320_000) < 4 * np.sqrt(320_000)
    assert (first.synapses.first[3200:] == first.synapses.count).all()
    assert (second.synapses.first[:3201] == 0).all()
    # The published network goes on by itself, at some hertz a neuron.
    events = simulate(network, steps=3000).events["neurons"]
    assert 3 < events.rate / network.dt_s < 10
    neurons = network.population("neurons").neurons
    # Far from spikes, one excitatory spike lifts v to the exact peak of the two exponentials.
    lone = SpikingNetwork(
        "lone",
        (Population("in", (1,), Neurons("input")), Population("out", (1,), Neurons(
            "integrate_and_fire", decay_i=neurons.decay_i, gain=neurons.gain, decay_v=neurons.decay_v, threshold=99.0))),
        (Projection("j", "in", "out", Synapses.from_dense([[1.62]])),),
        ("out",),
    )  # fmt: skip
    given = np.zeros((500, 1))
    given[0] = 1
    t = np.arange(1, 501) * 1e-4
    expected = 1.62 * 5 / (5 - 20) * (np.exp(-t / 5e-3) - np.exp(-t / 20e-3))
    np.testing.assert_allclose(simulate(lone, {"in": given}, record=["out"]).v["out"][:, 0], expected, rtol=1e-11)


def mean_field_rate(network, weight, inhibition, external, inputs):
    """Hertz at which a neuron of Brunel's network fires when all others fire as often, as Gaussian noise (Brunel 2000, section 3;
    e^u² (1 + erf u) is erfcx(−u)).

    A voltage that is looked at only once a step passes as if the threshold were 0.5826 standard deviations of a step higher
    (M. Broadie, P. Glasserman and S. Kou, "A continuity correction for discrete barrier options", Mathematical Finance 7, 1997).
    """
    tau, rest, threshold, reset = 20e-3, 2e-3, 20.0, 10.0
    outside = external * threshold / (weight * tau)

    def fires(rate):
        mean = tau * weight * (outside + inputs * rate * (1 - inhibition / 4))
        noise = weight * np.sqrt(tau * (outside + inputs * rate * (1 + inhibition**2 / 4)))
        barrier = threshold + 0.5826 * noise * np.sqrt(network.dt_s / tau)
        area = quad(lambda u: erfcx(-u), (reset - mean) / noise, (barrier - mean) / noise)[0]
        return 1 / (rest + tau * np.sqrt(np.pi) * area)

    return brentq(lambda rate: fires(rate) - rate, 0.1, 400)


@pytest.mark.parametrize(("inhibition", "external"), [(5.0, 2.0), (6.0, 2.0)])
def test_brunel_fires_as_often_as_its_mean_field(inhibition, external):
    sizes = {"neurons": 2500, "excitatory_inputs": 200, "weight_mv": 0.5}
    network = brunel_network(seed=1, inhibition=inhibition, external=external, **sizes)
    assert (np.bincount(network.projections[1].synapses.target, minlength=2500) == 200).all()
    assert (np.bincount(network.projections[2].synapses.target, minlength=2500) == 50).all()
    mean = np.full(2500, network.attributes["external_events_a_step"] / network.dt_s)
    given = poisson_events(mean, dt_s=network.dt_s, steps=3000, seed=2)
    events = simulate(network, {"external": given}).events["neurons"]
    rate = events.counts()[1000:].mean() / 2500 / network.dt_s
    assert rate == pytest.approx(mean_field_rate(network, 0.5, inhibition, external, 200), rel=0.06)
    # Irregularly, as the paper says of strong inhibition: the intervals spread by about their mean, not by a clock's nothing.
    gaps = np.concatenate([np.diff(events.step[events.neuron == k]) for k in range(0, 2500, 25)])
    assert 0.7 < gaps.std() / gaps.mean() < 1.6


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cuba_network(seed=0, neurons=12), "neurons: expected a multiple of 5, got 12"),
        (lambda: cuba_network(seed=0, probability=1.5), "probability: expected 0 to 1, got 1.5"),
        (lambda: cuba_network(seed=0, dt_s=3e-4), "dt_s: expected 5 ms divided by a whole number, got 0.0003"),
        (lambda: brunel_network(seed=0, excitatory_inputs=3), "excitatory_inputs: expected a multiple of 4, got 3"),
        (lambda: brunel_network(seed=0, external=-1.0), "external: expected a number ≥ 0, got -1.0"),
        (lambda: brunel_network(seed=0, dt_s=1e-3), "dt_s: expected 0.5 ms divided by a whole number, got 0.001"),
    ],
)
def test_networks_out_of_range(make, message):
    with pytest.raises(InputError) as error:
        make()
    assert str(error.value) == message
