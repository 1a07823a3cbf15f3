"""The core's cycles against a pipeline of moving parts, and its states against the neuron's."""

import numpy as np
import pytest

from neuromorphic import LifCore, LoihiNeuron, synaptic_weight
from numerics.errors import InputError


def stimulus(rng, cycles, *, ready=0.7, events=0.5, ticks=0.1, indices=8):
    return {
        "event": rng.random(cycles) < events,
        "target": rng.integers(0, indices, cycles),
        "weight": rng.integers(-255, 256, cycles),
        "tick": rng.random(cycles) < ticks,
        "spike_ready": rng.random(cycles) < ready,
    }


def pipeline(neuron, size, given):
    """The core as a conveyor: a neuron is updated in the register in which it is written, not all at the tick."""
    states = [neuron.state(1) for _ in range(size)]
    inputs = [0] * size
    queue, belt = [], [None, None, None]  # neurons to read; registers read, current, result
    clearing = size
    rows = []
    for t in range(given["event"].size):
        result = belt[2]
        busy = clearing > 0 or bool(queue) or any(slot is not None for slot in belt)
        rows.append((not busy, *(result or (None, 0, 0, 0, False))))
        if clearing:
            clearing -= 1
            continue
        if result is not None and result[-1] and not given["spike_ready"][t]:
            continue
        number = belt[1]
        belt[1], belt[0] = belt[0], queue.pop(0) if queue else None
        belt[2] = None
        if number is not None:
            spike = neuron.step(states[number], [inputs[number]])[0]
            inputs[number] = 0
            state = states[number]
            belt[2] = (number, int(state.u[0]), int(state.v[0]), int(state.refractory[0]), bool(spike))
        if not busy:
            if given["event"][t] and given["target"][t] < size:
                inputs[given["target"][t]] += int(given["weight"][t]) * 64
            if given["tick"][t]:
                queue = list(range(size))
    return rows


@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_cycles_equal_those_of_a_conveyor(size):
    rng = np.random.default_rng(size)
    neuron = LoihiNeuron(2000, 300, 40, bias_mantissa=30, bias_exponent=2, refractory_delay=3)
    given = stimulus(rng, 3000)
    shown = LifCore(neuron, size).run(**given)
    found = [
        (bool(r), int(n) if valid else None, int(u), int(v), int(f), bool(s))
        for r, valid, n, u, v, f, s in zip(
            shown.ready, shown.state_valid, shown.neuron, shown.u, shown.v, shown.refractory, shown.spike, strict=True
        )
    ]
    expected = pipeline(neuron, size, given)
    assert found == expected
    assert sum(row[-1] for row in expected) > 20


def test_a_step_takes_neurons_and_four_cycles():
    """At once after the other: neurons + 4 cycles a step; each cycle in which a spike waits costs one more."""
    rng = np.random.default_rng(3)
    size, steps = 16, 20
    neuron = LoihiNeuron(4095, 100, 50, bias_mantissa=1000)
    core = LifCore(neuron, size)
    cycles = 2000
    given = stimulus(rng, cycles, ready=0.6, events=0)
    given["tick"] = np.ones(cycles, bool)
    shown = core.run(**given)
    ticks = np.flatnonzero(shown.ready)[: steps + 1]
    waits = int((shown.spike & ~given["spike_ready"])[ticks[0] : ticks[-1]].sum())
    assert waits > 20
    assert ticks[0] == size  # cleared its memory
    assert ticks[-1] - ticks[0] == core.cycles(steps, stalls=waits) == steps * (size + 4) + waits


def test_states_equal_the_neurons():
    """Whatever the timing, the states are those of steps with the sums of the events that were taken."""
    rng = np.random.default_rng(4)
    size = 6
    neuron = LoihiNeuron(500, 100, 400, refractory_delay=4)
    given = stimulus(rng, 4000, indices=size)
    shown = LifCore(neuron, size, weight_exponent=2).run(**given)
    state, sums, steps = neuron.state(size), np.zeros(size, int), []
    for t in np.flatnonzero(shown.ready):
        if given["event"][t]:
            sums[given["target"][t]] += synaptic_weight(given["weight"][t], 2)
        if given["tick"][t]:
            spikes = neuron.step(state, sums)
            steps.append((state.u.copy(), state.v.copy(), spikes))
            sums[:] = 0
    written = shown.state_valid & ~(shown.spike & ~given["spike_ready"])
    count = int(written.sum()) // size
    assert count > 40
    assert shown.neuron[written][: count * size].tolist() == list(range(size)) * count
    for values, at in ((shown.u, 0), (shown.v, 1), (shown.spike, 2)):
        assert np.array_equal(values[written][: count * size].reshape(count, size), np.array([s[at] for s in steps[:count]]))


def test_runs_continue_one_another():
    rng = np.random.default_rng(5)
    neuron = LoihiNeuron(500, 100, 30)
    given = stimulus(rng, 1000)
    whole = LifCore(neuron, 8).run(**given)
    core = LifCore(neuron, 8)
    parts = [core.run(**{name: values[a:b] for name, values in given.items()}) for a, b in ((0, 1), (1, 500), (500, 1000))]
    for name in vars(whole):
        assert np.array_equal(np.concatenate([getattr(part, name) for part in parts]), getattr(whole, name))


def test_bad_inputs():
    neuron = LoihiNeuron(0, 0, 1)
    with pytest.raises(InputError, match=r"^neurons: expected an integer ≥ 1, got 0$"):
        LifCore(neuron, 0)
    with pytest.raises(InputError, match=r"^exponent: expected an integer from -6 to 7, got -7$"):
        LifCore(neuron, 1, weight_exponent=-7)
    given = stimulus(np.random.default_rng(0), 4)
    with pytest.raises(InputError, match=r"^tick: expected shape \(4,\) as event has, got \(3,\)$"):
        LifCore(neuron, 1).run(**{**given, "tick": given["tick"][:3]})
    with pytest.raises(InputError, match=r"^target: expected integers, got float64$"):
        LifCore(neuron, 1).run(**{**given, "target": given["target"] * 1.0})
    for name in ("event", "tick", "spike_ready"):
        with pytest.raises(InputError, match=rf"^{name}: expected booleans, or 0 and 1, got -1$"):
            LifCore(neuron, 1).run(**{**given, name: [0, 1, -1, 1]})


def test_flags_may_be_numbers():
    given = stimulus(np.random.default_rng(1), 200)
    numbers = {name: values.astype(int) for name, values in given.items()}
    neuron = LoihiNeuron(0, 0, 1)
    assert np.array_equal(LifCore(neuron, 8).run(**given).v, LifCore(neuron, 8).run(**numbers).v)
