"""Networks in chips' numbers: what they keep, what they refuse, and delays on a chip."""

from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest
from chip_networks import SPECS, chip

from neuromorphic.chip.arithmetic import ARITHMETICS, get_arithmetic
from neuromorphic.chip.delays import lateness
from neuromorphic.chip.quantisation import quantise
from neuromorphic.chip.running import run
from neuromorphic.dynamics import simulate
from neuromorphic.network import Neurons, Population, Projection, SpikingNetwork, Synapses
from numerics.errors import InputError


def pair(weights, neurons=None, *, delay=0, **more):
    matrix = np.atleast_2d(np.asarray(weights, float))
    one = neurons or Neurons("integrate_and_fire", **more)
    return SpikingNetwork(
        "pair",
        (Population("in", (matrix.shape[1],), Neurons("input")), Population("n", (matrix.shape[0],), one)),
        (Projection("p", "in", "n", Synapses.from_dense(matrix), delay),),
        ("n",),
    )


def layers(rng, integers, sizes=(12, 20, 16, 8), **neurons):
    populations = [Population("l0", (sizes[0],), Neurons("input"))]
    projections = []
    for k, (a, b) in enumerate(pairwise(sizes), 1):
        populations.append(Population(f"l{k}", (b,), Neurons("integrate_and_fire", **neurons)))
        weights = integers((b, a)) if callable(integers) else rng.normal(0.1, 0.5, (b, a))
        projections.append(Projection(f"p{k}", f"l{k - 1}", f"l{k}", Synapses.from_dense(weights)))
    return SpikingNetwork("layers", tuple(populations), tuple(projections), (f"l{len(sizes) - 1}",))


EXACT = [
    (at, reset, name)
    for at, reset, name in product([False, True], ["zero", "subtract"], ["loihi", "loihi2", "truenorth", "s16.15"])
    if (reset, name) != ("subtract", "loihi")  # which Loihi has not
]


@pytest.mark.parametrize(("at", "reset", "name"), EXACT)
def test_integer_networks_without_leak_are_exact(at, reset, name):
    """Where nothing is rounded, a chip's spikes are the network's, whichever way it compares with its threshold."""
    rng = np.random.default_rng(1)
    network = layers(
        rng, lambda shape: 2 * rng.integers(-1, 4, shape), threshold=8.0, reset=reset, fires_at_threshold=at, bias=2.0
    )
    made = quantise(network, name)
    given = {"l0": (rng.random((80, 12)) < 0.3).astype(float)}
    exact, found = simulate(network, given, steps=80), run(made, given)
    if name == "truenorth" and reset == "subtract" and not at:
        # Its threshold register is one more, and it takes that off: one more of its units than the network's.
        unit = made.population("l1").scale
        assert made.population("l1").numbers["drop"][0] == unit * 8 + 1
        raised = {
            one.name: replace(one.neurons, threshold=8.0 + 1 / unit, fires_at_threshold=True) for one in network.populations[1:]
        }
        populations = [replace(one, neurons=raised.get(one.name, one.neurons)) for one in network.populations]
        exact = simulate(replace(network, populations=tuple(populations)), given, steps=80)
        assert any(note.startswith("l1: spikes at the threshold, so that it is one higher") for note in made.notes)
    for k in (1, 2, 3):
        assert found.aligned(f"l{k}").dense()[:80].tolist() == exact.events[f"l{k}"].dense().tolist(), k
        assert exact.events[f"l{k}"].count > 30


def test_a_threshold_met_exactly_tells_the_comparisons_apart():
    given = {"in": np.ones((4, 1))}
    for name in ("loihi", "truenorth", "s16.15", "float32", "seneca", "odin"):
        for at in (False, True):
            network = pair([[3.0]], threshold=6.0, fires_at_threshold=at)
            spikes = run(quantise(network, name), given, steps=5).aligned("n").dense()[:, 0]
            assert spikes.tolist() == ([0, 1, 0, 1] if at else [0, 0, 1, 0]), (name, at)


@pytest.mark.parametrize("name", ["loihi", "s16.15", "spinnaker2", "seneca"])
def test_rounding_is_within_half_a_unit(name):
    """Weights, threshold and bias at magnitudes from 10⁻³ to 10³ are as near as the mantissas allow."""
    chip_of = get_arithmetic(name)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        size = 10.0 ** rng.uniform(-3, 2)
        weights = rng.normal(0, size, (6, 8))
        network = pair(weights, threshold=size * rng.uniform(1, 20), bias=size * rng.normal(), decay_i=0.5, decay_v=0.9)
        made = quantise(network, name)
        one = made.population("n")
        real = made.dense("p") / one.scale
        step = chip_of.mixed_step if name == "loihi" else 1
        factor = made.projection("p").factor / one.scale
        assert np.abs(made.weight).max() <= chip_of.largest_weight
        assert np.abs(real - weights).max() <= factor * step / 2 * (1 + 1e-6)
        if chip_of.fraction_bits:
            # Weights share the voltage's point, unless they are too large for it.
            largest = np.abs(weights).max() * one.scale
            exponent = max(0, int(np.ceil(np.log2(largest / chip_of.largest_weight))))
            assert made.projection("p").factor == 2.0**exponent
        else:
            # The largest weight takes more than half of the mantissa.
            assert np.abs(made.weight).max() > chip_of.largest_weight / 2 - step
        wanted = float(network.population("n").neurons.threshold)
        assert one.numbers["threshold"][0] / one.scale == pytest.approx(wanted, rel=2**-8)
        assert one.numbers["bias"][0] / one.scale == pytest.approx(
            float(network.population("n").neurons.bias), rel=2**-7, abs=factor
        )


def test_loihi_scale_keeps_inputs_within_their_register():
    """All synapses at once do not wrap, unless the threshold needs the bits; the note says when."""
    rng = np.random.default_rng(2)
    for fan_in, wraps in ((20, False), (3000, True)):
        made = quantise(pair(rng.normal(0.02, 0.3, (4, fan_in)), threshold=1.0, decay_v=0.9), "loihi")
        load = np.abs(made.dense("p")).sum(axis=1).max()
        assert (load >= 2**21) == wraps == any("may wrap" in note for note in made.notes)
        assert made.population("n").numbers["threshold"][0] >= 128 * 64


def test_voltages_are_counted_from_the_reset():
    """A chip that resets to 0 has any reset: its leak then takes a bias. Whole numbers stay exact, others near."""
    rng = np.random.default_rng(9)
    given = {"in": (rng.random((60, 8)) < 0.4).astype(float)}
    weights = 2 * rng.integers(-2, 4, (6, 8))
    network = pair(weights, threshold=5.0, v_reset=-4.0, v_init=-2.0, refractory_steps=2)
    found, exact = run(quantise(network, "loihi"), given, record=["n"]), simulate(network, given, record=["n"])
    assert found.aligned("n").dense()[:60].tolist() == exact.events["n"].dense().tolist()
    assert found.real_voltages("n")[:60].tolist() == exact.v["n"].tolist()
    millivolts = pair(weights, threshold=-50.0, v_reset=-60.0, v_init=-60.0, decay_v=0.9, bias=-5.0)
    for name in ("loihi", "s16.15", "float32"):
        found = run(quantise(millivolts, name), given, record=["n"])
        exact = simulate(millivolts, given, record=["n"])
        same = (found.aligned("n").dense()[:60] == exact.events["n"].dense()).mean()
        assert same > 0.97, name
        assert np.median(np.abs(found.real_voltages("n")[:60] - exact.v["n"])) < 0.02, name
    assert exact.events["n"].count > 10


def test_rules_of_scale():
    rng = np.random.default_rng(3)
    weights = rng.normal(0, 1, (10, 100))
    whole = quantise(pair(np.abs(weights), threshold=3.0), "loihi", scale="max")
    assert whole.weight.max() in (254, 255)
    clipped = quantise(pair(np.abs(weights), threshold=3.0), "loihi", scale="percentile", percentile=95)
    assert (clipped.weight == 255).sum() == pytest.approx(50, abs=10)
    assert any("of 1000 weights were clipped" in note for note in clipped.notes)
    with pytest.raises(
        InputError, match=r"^population 'n': scale: weights and threshold are no whole numbers of a unit that loihi can hold$"
    ):
        quantise(pair(weights), "loihi", scale="exact")
    exact = quantise(pair([[0.25, -0.5], [1.0, 0.75]], threshold=1.25), "loihi", scale="exact")
    assert np.array_equal(exact.dense("p") / exact.population("n").scale, [[0.25, -0.5], [1.0, 0.75]])
    assert exact.population("n").numbers["threshold"][0] / exact.population("n").scale == 1.25
    stated = quantise(pair([[10.0]], threshold=25.0), "loihi", scale={"n": 64.0})
    assert (stated.weights("p")[0], stated.population("n").numbers["threshold"][0]) == (640, 1600)


def test_mixed_signs_cost_loihi_a_bit():
    """Michaelis et al. 2022, section 2: in mixed mode weights are even; with one sign every mantissa is there."""
    rng = np.random.default_rng(4)
    weights = rng.normal(0, 1, (10, 30))
    assert not (quantise(pair(weights), "loihi").weight % 2).any()
    assert (quantise(pair(np.abs(weights)), "loihi").weight % 2).any()


def test_truenorth_tables_are_the_best_of_four_weights():
    """Against a search of all ways to divide a neuron's sorted weights into four groups."""
    rng = np.random.default_rng(5)
    weights = rng.normal(0, 1, (3, 9))
    made = quantise(pair(weights, threshold=4.0), "truenorth")
    units = np.rint(weights * made.population("n").scale)
    for row, found in zip(units, made.dense("p"), strict=True):
        best = min(
            sum(((part - part.mean()) ** 2).sum() for part in np.split(np.sort(row), cuts))
            for cuts in product(range(1, 9), repeat=3)
            if cuts[0] < cuts[1] < cuts[2]
        )
        assert ((found - row) ** 2).sum() <= best + 0.25 * row.size  # means are rounded to integers
        assert len(set(found)) <= 4
    assert any("9 sources take" in note for note in made.notes)


def test_gains_are_in_the_weights():
    rng = np.random.default_rng(6)
    gain = rng.uniform(0.1, 2, 5)
    made = quantise(pair(rng.normal(0, 1, (5, 4)), gain=gain, threshold=2.0, input_bias=0.5), "float32")
    plain = quantise(pair(np.zeros((5, 4)), threshold=2.0), "float32")
    rng = np.random.default_rng(6)
    rng.uniform(0.1, 2, 5)
    assert np.allclose(made.dense("p"), rng.normal(0, 1, (5, 4)) * gain[:, None], rtol=1e-6)
    assert np.allclose(made.population("n").numbers["input_bias"], 0.5 * gain)
    assert not plain.weight.any()


def test_a_bias_of_a_current_comes_from_a_neuron_that_always_fires():
    """Loihi's current has no bias: the network gets a source of one, whose spikes arrive as the bias would."""
    rng = np.random.default_rng(7)
    network = pair(rng.normal(0, 0.4, (5, 6)), decay_i=0.6, decay_v=0.8, input_bias=rng.normal(0.1, 0.1, 5))
    given = {"in": (rng.random((80, 6)) < 0.3).astype(float)}
    made = quantise(network, "loihi")
    assert [one.name for one in made.populations] == ["in", "n", "constant"]
    found, exact = run(made, given, record=["n"]), simulate(network, given, record=["n"])
    error = found.real_voltages("n")[:80] - exact.v["n"]
    assert np.median(np.abs(error)) < 0.01
    assert (found.aligned("n").dense()[:80] == exact.events["n"].dense()).mean() > 0.98
    assert exact.events["n"].count > 10


def test_a_linear_leak_in_place_of_an_exponential_one():
    network = pair([[1.0]], decay_v=0.9, threshold=5.0, fires_at_threshold=True)
    with pytest.raises(
        InputError,
        match=r"^population 'n': decay_v: truenorth has a constant leak, so 1 \(exponential_leak=linear .*\), got 0.9$",
    ):
        quantise(network, "truenorth")
    made = quantise(network, "truenorth", exponential_leak="linear", scale=40.0)
    assert made.population("n").numbers["bias"][0] == -10  # 0.1 · 2.5 · 40
    assert "n: decay_v 0.9 became a leak of 0.25 a step" in made.notes


def loop(delays, extra=()):
    """Populations a → b → … → a with these delays, fed by an input."""
    names = "abcdef"[: len(delays)]
    one = Synapses.from_dense([[1.0]])
    ways = [Projection("in", "in", "a", one)]
    ways += [Projection(f"{a}", a, b, one, d) for a, b, d in zip(names, names[1:] + names[0], delays, strict=True)]
    ways += [Projection(f"x{k}", a, b, one, d) for k, (a, b, d) in enumerate(extra)]
    populations = [Population(name, (1,), Neurons("integrate_and_fire")) for name in names]
    return SpikingNetwork("loop", (Population("in", (1,), Neurons("input")), *populations), tuple(ways), ("a",))


def test_lateness_is_the_longest_way():
    assert lateness(loop([0, 0, 3])) == {"in": 0, "a": 1, "b": 2, "c": 3}
    assert lateness(loop([0, 2, 1])) == {"in": 0, "a": 1, "b": 2, "c": 1}
    made = quantise(loop([0, 0, 4], [("a", "c", 0)]), "loihi")
    assert {p.name: int(p.delays[0]) for p in made.projections} == {"in": 1, "a": 1, "b": 1, "c": 2, "x0": 2}
    with pytest.raises(
        InputError,
        match=r"^timing: the loop . → . → . → . takes 2 steps in the network, and at least 3 on a chip; timing='pipelined' makes",
    ):
        quantise(loop([0, 1, 1]), "loihi")
    longer = quantise(loop([0, 1, 1]), "loihi", timing="pipelined")
    assert [int(p.delays[0]) for p in longer.projections] == [1, 1, 1, 1]
    assert longer.latency == 0
    with pytest.raises(InputError, match=r"^projection 'c': delay_steps: expected at most 62 on this chip, got 63$"):
        quantise(loop([0, 0, 65]), "loihi")


@pytest.mark.parametrize(
    ("name", "neurons", "text"),
    [
        ("loihi", {"reset": "subtract"}, r"reset: loihi has zero or none, got 'subtract'"),
        ("loihi", {"adaptation": 0.5}, r"adaptation: loihi has no adaptation, so 0, got 0.5"),
        ("loihi", {"refractory_steps": 63}, r"refractory_steps: loihi has at most 62, got 63"),
        (
            "loihi",
            {"refractory_steps": 1, "reset": "none"},
            r"refractory_steps: loihi has none with a reset other than 'zero', got 1",
        ),
        ("loihi", {"threshold": -1.0}, r"threshold: loihi has thresholds ≥ 0, got -1"),
        ("loihi", {"bias": 1e7, "threshold": 1.0}, None),
        ("odin", {"decay_i": 0.5}, r"decay_i: odin has no synaptic current, so 0, got 0.5"),
        ("odin", {"bias": 1.0}, r"bias: odin has a leak only, so at most 0, got 1"),
        ("odin", {"refractory_steps": 1}, r"refractory_steps: odin has at most 0, got 1"),
        ("s16.15", {"threshold": 1e5}, r"threshold: s16.15 has -65536 to 65536 at this scale, got 100000"),
    ],
)
def test_what_a_chip_has_not(name, neurons, text):
    network = pair([[1.0, 0.5]], **neurons)
    if text is None:
        # A bias that large leaves no room for the weights.
        with pytest.raises(
            InputError, match=r"^projection 'p': weight: loihi has none below .* beside this threshold, got at most 1$"
        ):
            quantise(network, name)
        return
    with pytest.raises(InputError, match=rf"^population 'n': {text}$"):
        quantise(network, name)


def test_more_that_a_chip_has_not():
    spin = pair([[1.0]], Neurons("resonate_and_fire", angle=0.1))
    with pytest.raises(
        InputError, match=r"^population 'n': kind: loihi has neurons of kind integrate_and_fire, threshold, readout, got"
    ):
        quantise(spin, "loihi")
    network = pair([[1.0]], decay_i=0.5, decay_i2=0.6)
    second = network.with_projections([replace(network.projections[0], receptor=1)])
    with pytest.raises(
        InputError, match=r"^population 'n': decay_i2: loihi has one synaptic current, so that of decay_i, got 0.6$"
    ):
        quantise(second, "loihi")
    with pytest.raises(InputError, match=r"^arithmetic: unknown name 'loihy'; did you mean"):
        quantise(network, "loihy")
    with pytest.raises(InputError, match=r"^timing: expected 'aligned' or 'pipelined', got 'late'$"):
        quantise(network, "loihi", timing="late")
    with pytest.raises(InputError, match=r"^scale: unknown name 'most'"):
        quantise(network, "loihi", scale="most")
    with pytest.raises(InputError, match=r"^scale: expected a number > 0, got -1.0$"):
        quantise(network, "loihi", scale=-1.0)


def test_one_current_may_serve_two_receptors():
    network = pair([[1.0, -0.5]], decay_i=0.5, decay_i2=0.5, gain2=2.0)
    made = quantise(network.with_projections([replace(network.projections[0], receptor=1)]), "loihi")
    assert np.allclose(made.dense("p") / made.population("n").scale, [[2.0, -1.0]])
    assert made.projections[0].receptor == 0


def test_arithmetics_of_specs():
    for path in SPECS.glob("*.yaml"):
        spec = chip(path.stem)
        found = get_arithmetic(spec)
        assert found.name == path.stem
        assert found.delay_steps_max == spec.delay_steps_max
        if spec.bits.voltage is not None:
            assert found.voltage_bits == spec.bits.voltage
            assert found.threshold_bits == spec.bits.threshold
            assert found.bias_bits == spec.bits.bias
        assert found.weight_bits == spec.bits.weight
    own = get_arithmetic(chip("loihi2").model_copy(update={"name": "mine"}))
    assert (own.family, own.name, own.spike_value_bits) == ("loihi", "mine", 32)
    own = get_arithmetic(chip("truenorth").model_copy(update={"name": "north"}))
    assert (own.voltage_bits, own.weights_per_neuron, own.threshold_bits) == (20, 4, 18)
    assert get_arithmetic(chip("spinnaker2").model_copy(update={"name": "spin"})).weight_exponents == (-60, 60)
    with pytest.raises(InputError, match=r"^arithmetic: expected a name, an Arithmetic or a chip's spec, got int$"):
        get_arithmetic(3)
    assert all(one.source for one in ARITHMETICS.values())


def decay_notes(name, field, **neurons):
    notes = quantise(pair(np.ones((3, 4)), **neurons), name).notes
    return [note.removeprefix(f"n: {field} was rounded, by ") for note in notes if note.startswith(f"n: {field} was")]


@pytest.mark.parametrize(
    ("name", "field", "wanted", "bits"),
    [
        (name, field, wanted, bits)
        for name, bits in (("loihi", 12), ("s16.15", 15))
        for field, wanted in (("decay_v", 0.9), ("decay_v", 0.99971), ("decay_i", 0.63))
    ]
    + [("seneca", field, wanted, 8) for field, wanted in (("decay_v", 0.998), ("decay_i", 0.63))]
    + [("s16.15", "decay_a", 0.9, 15), ("seneca", "decay_a", 0.9, 8)],
)
def test_notes_tell_what_became_of_a_decay(name, field, wanted, bits):
    """Against the nearest number of so many bits, and the time in which it falls by e."""
    unit = 2.0**-bits  # bfloat16 has 8 bits, and from 1/2 to 1 a unit is 2^-8
    held = float(np.rint(wanted / unit) * unit)
    more = {"adaptation": 0.1} if field == "decay_a" else {}
    (note,) = decay_notes(name, field, **{"decay_v": 0.5, field: wanted, **more})
    times = np.log(wanted) / np.log(held)
    assert note == (
        f"{abs(held - wanted):.2g} at most; {wanted:g} became {held:.6g}: its time constant is {times:.3g} times as long"
    )
    exact = 0.75
    assert decay_notes(name, field, **{"decay_v": 0.5, field: exact, **more}) == []


def test_half_a_second_in_bfloat16():
    """LIF of 0.5 s in steps of 1 ms in bfloat16: half as long."""
    (note,) = decay_notes("seneca", "decay_v", decay_v=0.998)
    assert note == "0.0019 at most; 0.998 became 0.996094: its time constant is 0.512 times as long"
    (note,) = decay_notes("seneca", "decay_v", decay_v=0.9990)
    assert note.endswith("0.999 became 1: it never falls")


@pytest.mark.parametrize("name", ["s16.15", "seneca"])
def test_notes_tell_what_became_of_other_numbers(name):
    made = quantise(
        pair(np.ones((3, 4)), decay_v=0.5, decay_i=0.5, bias=0.123456, input_bias=1e-3, threshold=1.2345, v_reset=-0.3,
             v_init=0.1, adaptation=0.0123, decay_a=0.5), name,
    )  # fmt: skip
    registers = {"bias": 0.123456, "input_bias": 1e-3, "threshold": 1.2345, "v_reset": -0.3, "v_init": 0.1, "adaptation": 0.0123}
    if name == "s16.15":  # whose voltages are counted from the reset
        registers |= {"bias": 0.123456 + 0.15, "threshold": 1.5345, "v_init": 0.4}
        del registers["v_reset"]
    one = made.population("n")
    for field, wanted in registers.items():
        held = float(one.numbers[field][0]) / one.scale
        share = abs(held - wanted) / max(abs(held), abs(wanted))
        assert f"n: {field} was rounded, by {share:.2g} of it at most" in made.notes, field
    exact = quantise(pair(np.ones((3, 4)), decay_v=0.5, decay_i=0.5, bias=0.25, threshold=1.5, v_init=0.125), name)
    assert not [note for note in exact.notes if "was rounded" in note]
    turning = Neurons("resonate_and_fire", decay_v=0.99, angle=0.3, threshold=1.0)
    notes = quantise(pair(np.ones((3, 4)), turning), name).notes
    assert [note.split(" was rounded")[0] for note in notes if "was rounded" in note] == [
        "n: the share that a rotation keeps", "n: angle",
    ]  # fmt: skip
