"""Loihi's neuron against the silicon trace and against exact arithmetic written differently."""

from fractions import Fraction
from itertools import pairwise
from math import trunc
from pathlib import Path

import numpy as np
import pytest

from neuromorphic import LoihiNeuron, synaptic_weight
from numerics.errors import InputError

TRACE = Path(__file__).parent / "data" / "loihi_lif_trace.csv"


def wrap(x, bits):
    """Two's complement, by counting turns."""
    turns = (x + 2 ** (bits - 1)) // 2**bits
    return x - turns * 2**bits


def reference(neuron, inputs):
    """(v, u, spike, steps left) a step of one neuron, in fractions and big integers."""
    keep_u, keep_v = Fraction(4095 - neuron.decay_u, 4096), Fraction(4096 - neuron.decay_v, 4096)
    bias = neuron.bias_mantissa * 2**neuron.bias_exponent
    low, high = 1 - 2**neuron.v_min_exponent, 2**neuron.v_max_exponent - 1
    u = v = 0
    integrates_at = 0
    rows = []
    for t, q in enumerate(inputs):
        u = wrap(trunc(u * keep_u) + wrap(int(q), 22), 24)
        v = min(high, max(low, trunc(v * keep_v) + wrap(u + bias, 24)))
        if t < integrates_at:
            v = 0
        spike = v > neuron.threshold_mantissa * 64
        if spike:
            v, integrates_at = 0, t + max(1, neuron.refractory_delay)
        rows.append((u, v, spike))
    return rows


def test_silicon_trace():
    """0 of 1000 steps differ: the membrane register with its refractory count, and the spikes."""
    lines = [line for line in TRACE.read_text().splitlines() if not line.startswith("#")][1:]
    spike_in, register, spike_out = np.array([[float(x) for x in line.split(",")] for line in lines]).T
    assert spike_in.size == 1000
    assert spike_out.sum() == 4
    neuron = LoihiNeuron(decay_u=4095, decay_v=163, threshold_mantissa=25)
    state = neuron.state(1)
    arrives = np.concatenate([[0], spike_in[:-1]]).astype(int)  # the chip delivers in the next step
    different = 0
    for t in range(1000):
        spikes = neuron.step(state, synaptic_weight(arrives[t] * 10))
        different += state.membrane_register()[0] != register[t] or spikes[0] != bool(spike_out[t])
    assert different == 0


@pytest.mark.parametrize(("field", "value"), [("decay_v", 164), ("decay_v", 162), ("decay_u", 4000), ("threshold_mantissa", 26)])
def test_the_trace_tells_parameters_apart(field, value):
    lines = [line for line in TRACE.read_text().splitlines() if not line.startswith("#")][1:]
    spike_in, register, spike_out = np.array([[float(x) for x in line.split(",")] for line in lines]).T
    neuron = LoihiNeuron(**{"decay_u": 4095, "decay_v": 163, "threshold_mantissa": 25, field: value})
    state = neuron.state(1)
    inputs = np.concatenate([[0], spike_in[:-1]]).astype(int)[:, None] * 640
    voltages, spikes = [], []
    for q in inputs:
        spikes.append(neuron.step(state, q)[0])
        voltages.append(state.membrane_register()[0])
    assert np.any(voltages != register) or np.any(spikes != spike_out)


def random_neuron(rng):
    def spread(limit):
        return int(rng.choice([0, limit, rng.integers(0, limit + 1), rng.integers(0, limit + 1) >> rng.integers(0, 10)]))

    return LoihiNeuron(
        decay_u=spread(4095),
        decay_v=spread(4095),
        threshold_mantissa=spread(131071),
        bias_mantissa=spread(4095) * int(rng.choice([-1, 1])),
        bias_exponent=int(rng.integers(0, 8)),
        refractory_delay=spread(63),
        v_min_exponent=int(rng.integers(0, 24)),
        v_max_exponent=int(rng.choice(range(9, 24, 2))),
    )


def test_random_neurons_equal_exact_arithmetic():
    rng = np.random.default_rng(0)
    wrapped = clipped = spiked = held = 0
    for _ in range(150):
        neuron = random_neuron(rng)
        inputs = rng.integers(-(2**22), 2**22, (120, 3)) >> rng.integers(0, 20, 3)
        inputs[:, 0] = abs(inputs[:, 0])
        state = neuron.state(3)
        shown = []
        for q in inputs:
            spikes = neuron.step(state, q)
            shown.append((state.u.copy(), state.v.copy(), spikes))
            held += int(np.sum(state.refractory > 1))
        for n in range(3):
            expected = reference(neuron, inputs[:, n])
            assert [(int(u[n]), int(v[n]), bool(s[n])) for u, v, s in shown] == expected
            u, v, s = zip(*expected, strict=True)
            wrapped += sum(abs(a - b) > 2**23 for a, b in pairwise(u))
            clipped += sum(x in (1 - 2**neuron.v_min_exponent, 2**neuron.v_max_exponent - 1) for x in v)
            spiked += sum(s)
    assert min(wrapped, clipped, spiked, held) > 100  # each of them was met


def test_run_is_steps_for_any_shape():
    rng = np.random.default_rng(1)
    neuron = random_neuron(rng)
    inputs = rng.integers(-50000, 50000, (60, 2, 5))
    bias = rng.integers(-1000, 1000, (2, 5))
    one, many = neuron.state((2, 5)), neuron.state((2, 5))
    steps = np.array([neuron.step(one, q, bias=bias) for q in inputs])
    assert np.array_equal(neuron.run(many, inputs, bias=bias), steps)
    for name in ("u", "v", "refractory"):
        assert np.array_equal(getattr(one, name), getattr(many, name))


def test_state_in_a_view_is_written():
    neuron = LoihiNeuron(0, 0, 100)
    state = neuron.state((4, 2))
    for name in ("u", "v", "refractory"):
        setattr(state, name, getattr(state, name)[:, 0])
    neuron.step(state, [640, 0, 64, 1])
    assert state.u.tolist() == [640, 0, 64, 1]


@pytest.mark.parametrize("delay", [0, 1, 2, 63])
def test_refractory_delay_is_the_shortest_interval(delay):
    neuron = LoihiNeuron(4095, 0, 0, bias_mantissa=1, refractory_delay=delay)
    state = neuron.state(1)
    assert neuron.step(state, [0]).all()
    assert state.membrane_register()[0] == delay * 128
    spikes = np.flatnonzero(neuron.run(state, np.zeros((200, 1), int))[:, 0])
    assert (np.diff(np.concatenate([[-1], spikes])) == max(1, delay)).all()


def test_weights():
    assert synaptic_weight([-255, 0, 255], 7).tolist() == [-255 * 8192, 0, 255 * 8192]
    assert synaptic_weight(10) == 640
    assert synaptic_weight(3, -6) == 3


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("decay_u", 4096, "decay_u: expected an integer from 0 to 4095, got 4096"),
        ("decay_v", -1, "decay_v: expected an integer from 0 to 4095, got -1"),
        ("threshold_mantissa", 131072, "threshold_mantissa: expected an integer from 0 to 131071, got 131072"),
        ("bias_mantissa", -4096, "bias_mantissa: expected an integer from -4095 to 4095, got -4096"),
        ("bias_exponent", 8, "bias_exponent: expected an integer from 0 to 7, got 8"),
        ("refractory_delay", 64, "refractory_delay: expected an integer from 0 to 63, got 64"),
        ("refractory_delay", 1.0, "refractory_delay: expected an integer from 0 to 63, got 1.0"),
        ("v_min_exponent", 24, "v_min_exponent: expected an integer from 0 to 23, got 24"),
        ("v_max_exponent", 10, "v_max_exponent: expected an odd number from 9 to 23, got 10"),
    ],
)
def test_fields_out_of_range(field, value, text):
    with pytest.raises(InputError) as error:
        LoihiNeuron(**{"decay_u": 0, "decay_v": 0, "threshold_mantissa": 1, field: value})
    assert str(error.value) == text


def test_bad_inputs():
    neuron = LoihiNeuron(0, 0, 1)
    with pytest.raises(InputError, match=r"^synaptic_input: expected shape \(3,\), got \(2,\)$"):
        neuron.step(neuron.state(3), [1, 2])
    with pytest.raises(InputError, match=r"^synaptic_input: expected integers, got float64$"):
        neuron.step(neuron.state(3), [1.0, 2.0, 3.0])
    with pytest.raises(InputError, match=r"^bias: expected 24-bit integers, got 0 to 8388608$"):
        neuron.step(neuron.state(2), [1, 2], bias=[0, 1 << 23])
    with pytest.raises(InputError, match=r"^mantissa: expected -255 to 255, got 0 to 256$"):
        synaptic_weight([0, 256])
    with pytest.raises(InputError, match=r"^exponent: expected an integer from -6 to 7, got 8$"):
        synaptic_weight(1, 8)
