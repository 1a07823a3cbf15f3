"""Counts of what training takes: closed forms against what instrumented runs did."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from training_tasks import chip

import hwsim
from numerics.errors import InputError
from photonic.fabrication import fabricate
from photonic.imperfections import Imperfections
from photonic.layouts import layout
from photonic.training import (
    SCHEMES,
    FeedbackNetwork,
    ForwardForward,
    InSituLayer,
    InSituMesh,
    OpticalLayer,
    OpticalProjection,
    PhysicalLayer,
    Tally,
    TwinLayer,
    UnitPower,
    Work,
    light_time_s,
    mesh_macs,
    random_mesh,
    scattering,
    scheme_work,
    work_energy_j,
)
from photonic.training.costs import feedback_work, in_situ_work, phases_of


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


PORTS, CLASSES, BATCH = 8, 3, 5


class Counted:
    """A real number that counts its products."""

    count = 0

    def __init__(self, value):
        self.value = float(value)

    def __mul__(self, other):
        Counted.count += 1
        return Counted(self.value * other.value)

    def __add__(self, other):
        return Counted(self.value + other.value)

    def __sub__(self, other):
        return Counted(self.value - other.value)


class CountedComplex:
    """A complex number of four products a product."""

    def __init__(self, real, imag):
        self.real, self.imag = real, imag

    @classmethod
    def of(cls, number):
        return cls(Counted(number.real), Counted(number.imag))

    def __mul__(self, other):
        return CountedComplex(self.real * other.real - self.imag * other.imag, self.real * other.imag + self.imag * other.real)

    def __add__(self, other):
        return CountedComplex(self.real + other.real, self.imag + other.imag)

    def value(self):
        return complex(self.real.value, self.imag.value)


def run_counted(plan, cells, ends, vector):
    state = [CountedComplex.of(v) for v in vector]
    for upper, lower, cell in zip(plan.upper, plan.lower, cells, strict=True):
        held = [[CountedComplex.of(v) for v in row] for row in cell]
        a, b = state[upper], state[lower]
        state[upper], state[lower] = held[0][0] * a + held[0][1] * b, held[1][0] * a + held[1][1] * b
    return [CountedComplex.of(e) * v for e, v in zip(ends, state, strict=True)]


def test_products_of_a_digital_mesh_one_by_one():
    mesh = random_mesh(6, "triangular", seed=1)
    vector = np.random.default_rng(0).normal(size=6)
    Counted.count = 0
    out = run_counted(mesh.layout, mesh.cells(), np.exp(1j * mesh.output_phase), vector)
    np.testing.assert_allclose([v.value() for v in out], mesh.apply(vector), atol=1e-12)
    forward, backward = mesh_macs(mesh.layout, 1)
    assert Counted.count == forward
    # Backwards: what came out is undone and the gradient goes with it; then Im(g·conj(o)), two products, at each phase.
    Counted.count = 0
    for light in (mesh.apply(vector), np.ones(6)):
        state = [
            CountedComplex.of(np.conj(e)) * CountedComplex.of(v)
            for e, v in zip(np.exp(1j * mesh.output_phase), light, strict=True)
        ]
        for index in range(mesh.layout.mzis - 1, -1, -1):
            upper, lower = mesh.layout.upper[index], mesh.layout.lower[index]
            held = [[CountedComplex.of(v) for v in row] for row in mesh.cells()[index].conj().T]
            a, b = state[upper], state[lower]
            state[upper], state[lower] = held[0][0] * a + held[0][1] * b, held[1][0] * a + held[1][1] * b
        if abs(light - 1).max() > 0:
            np.testing.assert_allclose([v.value() for v in state], vector, atol=1e-12)
    assert backward == Counted.count + 2 * phases_of(mesh.layout)
    assert mesh_macs(mesh.layout, 7) == (7 * forward, 7 * backward)


def data(inputs=PORTS, batch=BATCH):
    x = torch.from_numpy(np.random.default_rng(0).uniform(0.1, 1, (batch, inputs)))
    return x / x.norm(dim=1, keepdim=True), torch.arange(batch) % CLASSES


def step(net, x, labels):
    """Forwards, backwards, update; returns its parameters."""
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
    torch.nn.functional.cross_entropy(net(x), labels).backward()
    optimizer.step()


@pytest.mark.parametrize("way", ["toggled", "subtracted"])
def test_in_situ_counts(way):
    tally = Tally()
    made = [chip(PORTS, seed) for seed in (1, 2)]
    layers = [InSituLayer(InSituMesh(c, way=way, tally=tally), PORTS, out) for c, out in zip(made, (PORTS, CLASSES), strict=True)]
    net, (x, labels) = torch.nn.Sequential(layers[0], UnitPower(), layers[1]), data()
    step(net, x, labels)
    tally.taken()
    step(net, x, labels)  # of which the chips are set to what the first step found
    plan = made[0].layout
    expected = in_situ_work(plan, BATCH, outputs=PORTS, way=way) + in_situ_work(plan, BATCH, outputs=CLASSES, way=way)
    assert replace(tally.work, updates=sum(p.numel() for p in net.parameters())) == expected
    if way == "toggled":
        assert expected == scheme_work("in_situ", PORTS, CLASSES, BATCH)


def test_twin_counts():
    tally = Tally()
    machines = [PhysicalLayer(chip(PORTS, seed), outputs=out, tally=tally) for seed, out in ((1, PORTS), (2, CLASSES))]
    layers = [TwinLayer(m, OpticalLayer(PORTS, m.outputs, chip=m.chip.mesh)) for m in machines]
    net, (x, labels) = torch.nn.Sequential(layers[0], UnitPower(), layers[1]), data()
    step(net, x, labels)
    tally.taken()
    step(net, x, labels)
    found = replace(tally.work, updates=sum(p.numel() for p in net.parameters()))
    assert found == scheme_work("twin", PORTS, CLASSES, BATCH)
    tally.taken()
    with torch.no_grad():
        net(x)
    assert tally.work.macs == 0


def test_forward_forward_counts():
    tally = Tally()
    layers = [PhysicalLayer(chip(PORTS, seed), tally=tally) for seed in (1, 2)]
    net = ForwardForward(layers, CLASSES, units=(PORTS, PORTS), tally=tally)
    x, labels = data(PORTS - CLASSES)
    with FlopCounterMode(display=False) as counter:
        net.step(x, labels)
    assert tally.work == scheme_work("forward_forward", PORTS, CLASSES, BATCH)
    # W·p and its outer product; that of |y| and the direction is a vector's, which is counted as elementwise.
    assert counter.get_total_flops() == 2 * tally.work.macs


@pytest.mark.parametrize("threshold", [None, 0.2])
def test_feedback_counts(threshold):
    tally, sizes = Tally(), (PORTS, PORTS, CLASSES)
    back = OpticalProjection(scattering(CLASSES, PORTS, seed=1), tally=tally)
    net = FeedbackNetwork(sizes, back, threshold=threshold, tally=tally)
    x, labels = data()
    with FlopCounterMode(display=False) as counter:
        net.step(x, labels)
    assert tally.work == feedback_work(sizes, BATCH, ternary=threshold is not None)
    assert counter.get_total_flops() == 2 * tally.work.macs
    if threshold is None:
        assert tally.work == scheme_work("feedback", PORTS, CLASSES, BATCH)


def test_backpropagation_counts():
    net = torch.nn.Sequential(torch.nn.Linear(PORTS, PORTS), torch.nn.Tanh(), torch.nn.Linear(PORTS, CLASSES)).double()
    x, labels = data()
    with FlopCounterMode(display=False) as counter:
        step(net, x, labels)
    expected = scheme_work("backpropagation", PORTS, CLASSES, BATCH)
    assert counter.get_total_flops() == 2 * expected.macs
    assert expected.updates == sum(p.numel() for p in net.parameters())
    # What feedback saves is the way back through the last weights.
    assert expected.macs - scheme_work("feedback", PORTS, CLASSES, BATCH).macs == BATCH * PORTS * CLASSES


def spec(ports=PORTS):
    return hwsim.get_device("coherent_mzi_56", overrides={"engine.ports": ports, "engine.mesh": "rectangular"}).spec


def test_energy_by_hand():
    machine = spec()
    work = Work(
        macs=7, elementwise=3, updates=2, light_vectors=1000, dac_samples=50, adc_samples=60, phase_settings=9, settlings=4
    )
    digital = machine.vector_unit.energy_pj_per_operation
    seconds = 1000 / 10e9 + 4 * 10e-6
    assert light_time_s(work, machine) == pytest.approx(seconds, rel=1e-12)
    found = work_energy_j(work, machine)
    assert found["digital"] == pytest.approx(1e-12 * (7 * digital["multiply_add"] + 5 * digital["multiply"]))
    assert found["dac"] == pytest.approx(1e-12 * 50 * machine.dac.energy_pj_per_sample)
    assert found["modulators"] == pytest.approx(1e-15 * 50 * machine.dac.bits * machine.modulator.energy_fj_per_bit)
    assert found["adc"] == pytest.approx(1e-12 * 60 * machine.adc.energy_pj_per_sample)
    assert found["settings"] == pytest.approx(1e-12 * 9 * machine.tuning.energy_pj_per_setting)
    for part in ("laser", "receivers", "heaters"):
        assert found[part] == pytest.approx(seconds * machine.held_power_w[part])
    assert sum(work_energy_j(Work(), machine).values()) == 0
    twice = work_energy_j(work + work, machine)
    assert all(twice[part] == pytest.approx(2 * found[part]) for part in found)
    assert 2 * work == work + work


def test_schemes_in_order():
    works = {scheme: scheme_work(scheme, 16, 10, 100) for scheme in SCHEMES}
    assert works["backpropagation"].light_vectors == works["backpropagation"].adc_samples == 0
    assert works["in_situ"].macs == 0
    assert works["twin"].macs > works["forward_forward"].macs > 0
    assert works["forward_forward"].phase_settings == works["feedback"].phase_settings == 0
    assert layout("rectangular", 16).mzis == 120


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: scheme_work("guessing", 8, 3, 5), "guessing"),
        (lambda: scheme_work("twin", 8, 8, 5), "classes: expected fewer than 8 ports, got 8"),
        (lambda: scheme_work("twin", 8, 3, 0), "batch"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_a_chip_without_errors_needs_no_more_light():
    made = fabricate(random_mesh(PORTS, seed=1), Imperfections(), seed=1)
    device = InSituMesh(made)
    device.gradient(np.ones((PORTS, 2)) / PORTS, np.ones((PORTS, 2)))
    assert device.tally.work.light_vectors == 2 * 3
