"""Row aoi: stopping when the answer is clear beats any fixed number of steps; a network of values runs only now and then."""

import numpy as np
import pytest
import torch
from digit_networks import digits, trained_cnn
from torch import nn

from neuromorphic.cells.conversion import constant_input, convert
from neuromorphic.cells.cutoff import MixedRate, fit_margins, margins, mixed_rate_energy_j, run_until_clear, stop
from neuromorphic.cells.neuron_cells import LIF, NeuronState, Readout, SpikingSequential
from neuromorphic.cells.operation_counts import AC_J, MAC_J, count_operations, energy_j
from numerics.errors import InputError

STEPS = 48


@pytest.fixture(scope="module")
def runs():
    """A converted network; its outputs step by step on training images (to choose margins) and on test images."""
    x, _, x_test, y_test = digits()
    spiking = convert(trained_cnn(), x.reshape(-1, 1, 8, 8), percentile=100)
    with torch.no_grad():
        held = spiking(constant_input(x.reshape(-1, 1, 8, 8)[:600], STEPS)).numpy()
        outputs = spiking(constant_input(x_test.reshape(-1, 1, 8, 8), STEPS)).numpy()
    return spiking, held, outputs, x_test.reshape(-1, 1, 8, 8), y_test.numpy()


def test_cutoff_dominates_every_fixed_number_of_steps(runs):
    """Whatever accuracy a fixed T reaches, a cutoff reaches with fewer steps in the mean."""
    _, _, outputs, _, labels = runs
    limits = np.quantile(margins(outputs), np.linspace(0, 1, 60))
    curve = [stop(outputs[:most], limit) for most in (1, 2, 3, 4, 6, 8, 12, 16, 24, STEPS) for limit in limits]
    points = np.array([(one.mean_steps, one.accuracy(labels)) for one in curve])
    fixed = np.array([(outputs[t].argmax(-1) == labels).mean() for t in range(STEPS)])
    needed = np.array([points[points[:, 1] >= accuracy, 0].min() for accuracy in fixed])
    assert (needed <= np.arange(STEPS) + 1).all()
    assert (needed[3:] < 0.9 * np.arange(4, STEPS + 1)).all()
    assert needed[-1] < 0.15 * STEPS  # the accuracy of all steps at a tenth of them


def test_margins_chosen_on_other_images_keep_the_accuracy(runs):
    """Within a point of all steps at a tenth of them."""
    _, held, outputs, _, labels = runs
    full = (outputs[-1].argmax(-1) == labels).mean()
    stopped = stop(outputs, fit_margins(held, agreement=0.999))
    assert stopped.accuracy(labels) > full - 0.01
    assert stopped.mean_steps < STEPS / 10


def test_margins_by_brute_force():
    """The smallest margin of the examples themselves for which those at or above it agree with the end often enough."""
    rng = np.random.default_rng(0)
    outputs = rng.normal(size=(6, 40, 3)).cumsum(axis=0)
    outputs[2, :5] = outputs[2, 5]  # ties
    gaps, answers = margins(outputs), outputs.argmax(-1)
    for agreement in (0.6, 0.8, 1.0):
        found = fit_margins(outputs, agreement=agreement)
        for t in range(5):
            safe = [g for g in gaps[t] if (answers[t] == answers[-1])[gaps[t] >= g].mean() >= agreement]
            assert found[t] == (min(safe) if safe else np.inf)
        assert found[5] == 0
    ordered = np.sort(outputs[3], axis=-1)
    np.testing.assert_allclose(gaps[3], ordered[:, -1] - ordered[:, -2])


def test_examples_that_are_done_cost_nothing(runs):
    """The run that takes them out of the batch stops where the plain one does, with the work of the steps run."""
    spiking, held, _, images, _ = runs
    limits = fit_margins(held, agreement=0.98)
    inputs = constant_input(images[:60], STEPS)
    with torch.no_grad():
        expected = stop(spiking(inputs).numpy(), limits)
    found = run_until_clear(spiking, inputs, limits)
    np.testing.assert_array_equal(found.steps, expected.steps)
    np.testing.assert_array_equal(found.answers, expected.answers)
    seen = []
    hook = spiking[0].register_forward_pre_hook(lambda layer, given: seen.append(len(given[0])))
    run_until_clear(spiking, inputs, limits)
    hook.remove()
    assert sum(seen) == found.steps.sum() < 0.3 * 60 * STEPS


def test_states_of_every_cell_are_cut_to_the_batch():
    torch.manual_seed(0)
    module = SpikingSequential(
        nn.Linear(4, 6),
        LIF(0.8, threshold=torch.full((6,), 0.3), reset_next_step=True, refractory_steps=1),
        nn.Linear(6, 3),
        Readout(1.0),
    )
    inputs = torch.rand(12, 9, 4)
    with torch.no_grad():
        outputs = module(inputs).numpy()
    margin = float(np.quantile(margins(outputs)[4], 0.5))
    found, expected = run_until_clear(module, inputs, margin), stop(outputs, margin)
    np.testing.assert_array_equal(found.steps, expected.steps)
    np.testing.assert_array_equal(found.answers, expected.answers)
    assert len(set(found.steps)) > 2


def tracker(every):
    """Position from events of change (+1, −1), some lost; every K steps a frame tells it again."""
    fast = SpikingSequential(nn.Linear(2, 1, bias=False), Readout(1.0))
    slow = nn.Linear(16, 1, bias=False)
    with torch.no_grad():
        fast[0].weight.copy_(torch.tensor([[1.0, -1.0]]))
        slow.weight.copy_(torch.arange(16.0)[None])
    return MixedRate(slow, fast, every=every, hand_over=lambda position: {"1": NeuronState(position)})


def world(steps=240, batch=32, lost=0.1):
    """A thing that walks on 16 places: events of its moves, of which some are lost, and what a camera sees before each step."""
    rng = np.random.default_rng(0)
    position, events, camera, truth = np.full(batch, 8), [], [], []
    for _ in range(steps):
        camera.append(np.eye(16)[position])
        moved = np.clip(position + rng.integers(-1, 2, batch), 0, 15)
        change = moved - position
        position = moved
        told = rng.random(batch) > lost
        events.append(np.stack([(change > 0) & told, (change < 0) & told], axis=-1))
        truth.append(position)
    return (torch.tensor(np.array(a), dtype=torch.float32) for a in (events, camera, truth))


def test_mixed_rate_corrects_what_lost_events_leave():
    events, camera, truth = world()
    errors = {}
    for every in (1, 10, 40, 240):
        outputs = tracker(every)(events, camera[::every]).detach()
        errors[every] = float(((outputs[..., 0] - truth) ** 2).mean())
    assert errors[1] < errors[10] < errors[40] < errors[240]
    assert errors[240] > 5 * errors[10]
    events, camera, truth = world(lost=0.0)
    assert torch.equal(tracker(240)(events, camera[::240])[..., 0], truth)


@pytest.mark.parametrize("every", [1, 8, 60])
def test_energy_is_that_of_values_over_k_and_that_of_spikes(every):
    """Counted over a run of both, a step: E_ANN/K + E_SNN, each of them counted alone."""
    events, camera, _ = world()
    model = tracker(every)
    together = count_operations(model, events, camera[::every])
    assert {one.layer: one.spikes for one in together} == {"slow": True, "fast.0": True}  # this camera sends spikes
    grey = camera * 0.7
    together = count_operations(model, events, grey[::every])
    per_step = energy_j(together) / len(events)
    slow = count_operations(model.slow, grey[0])
    fast = energy_j(count_operations(model.fast, events)) / len(events)
    assert per_step == pytest.approx(energy_j(slow) / every + fast, rel=1e-12)
    once = count_operations(model.fast, events[:1])
    assert mixed_rate_energy_j(slow, once, every=every) == pytest.approx(energy_j(slow) / every + energy_j(once))
    assert energy_j(slow) == pytest.approx(32 * 16 * MAC_J)
    assert fast * len(events) == pytest.approx(float(events.sum()) * AC_J)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: margins(np.zeros((3, 4))), "outputs: expected shape (steps, examples, classes ≥ 2), got (3, 4)"),
        (lambda: fit_margins(np.zeros((3, 4, 2)), agreement=0), "agreement: expected 0 < agreement ≤ 1, got 0"),
        (lambda: tracker(0), "every: expected an integer ≥ 1, got 0"),
        (lambda: tracker(4)(torch.zeros(9, 1, 2), torch.zeros(2, 1, 16)), "frames: expected 3, one in 4 of 9 steps, got 2"),
        (lambda: mixed_rate_energy_j([], [], every=0), "every: expected an integer ≥ 1, got 0"),
    ],
)
def test_errors(make, text):
    with pytest.raises(InputError) as raised:
        make()
    assert str(raised.value).startswith(text)
