"""Barriers, clocks and cores on their own, against what they must come to."""

import numpy as np
import pytest

from neuromorphic.chip.synchronisation import Asynchronous, Barrier, FixedStep, diameter
from numerics.errors import InputError


def test_loihis_barrier_is_what_was_published():
    """M. Davies et al., IEEE Micro 38(1), 2018, table 2: 113 to 465 ns for 1 to 32 tiles."""
    barrier = Barrier.loihi()
    assert barrier.time_s(1) == pytest.approx(113e-9)
    assert barrier.time_s(32) == pytest.approx(465e-9)
    times = [barrier.time_s(n) for n in range(1, 33)]
    assert times == sorted(times)
    assert barrier.time_s(8) == pytest.approx((113 + 7 * 35.2) * 1e-9)  # one row: 7 hops of the 10 between corners
    assert barrier.known_diameter == 10
    assert barrier.time_s(diameter=20) == pytest.approx((465 + 352) * 1e-9)


def test_a_barrier_with_several_points():
    """SANA-FE's table: numbers of tiles of one diameter count as the largest of them."""
    barrier = Barrier({1: 600, 2: 1000, 4: 1400, 29: 1800, 32: 1900}, 8, 4)
    assert [round(barrier.time_s(n) * 1e9) for n in (1, 2, 4, 32)] == [600, 1000, 1400, 1900]
    assert barrier.time_s(3) == pytest.approx(1200e-9)
    assert Barrier({4: 50.0}, 2, 2).time_s(1) == pytest.approx(50e-9)  # one point says nothing of its slope


def test_diameter_is_the_most_hops_between_two_tiles():
    rng = np.random.default_rng(0)
    for count in (1, 2, 7, 40):
        x, y = rng.integers(0, 16, (2, count))
        pairs = abs(x[:, None] - x) + abs(y[:, None] - y)
        assert diameter(x, y) == pairs.max()


def test_steps_with_a_barrier():
    found = Barrier({1: 100.0, 4: 300.0}, 2, 2).schedule([1e-6, 2e-6, 0.0], tiles=4)
    assert found.begin_s == pytest.approx([0, 1.3e-6, 3.6e-6])
    assert found.end_s == pytest.approx([1e-6, 3.3e-6, 3.6e-6])
    assert found.total_s == pytest.approx(3.9e-6)
    assert not found.overloaded.size
    assert found.note() == ""


def test_an_overloaded_clock_says_by_how_much():
    found = FixedStep(1e-3).schedule([0.5e-3, 2.5e-3, 0.75e-3, 0.25e-3, 0.9e-3, 0.1e-3])
    assert found.begin_s == pytest.approx([0, 1e-3, 3.5e-3, 4.25e-3, 4.5e-3, 5.4e-3])
    assert found.late_s == pytest.approx([0, 1.5e-3, 1.25e-3, 0.5e-3, 0.4e-3, 0])
    assert found.excess_s == pytest.approx([0, 1.5e-3, 0, 0, 0, 0])
    assert (found.overloaded.tolist(), found.steps_late.tolist()) == ([1], [1, 2, 3, 4])
    assert found.total_s == pytest.approx(6e-3)
    assert found.note() == (
        "overload: 1 of 6 steps took longer than their 0.001 s (by up to 0.0015 s); 4 were done late, step 1 by 0.0015 s"
    )


def test_a_clock_that_is_always_too_fast():
    """Then the work decides, and each step is later than the one before."""
    found = FixedStep(1e-3).schedule(np.full(1000, 1.5e-3))
    assert found.total_s == pytest.approx(1.5)
    assert found.late_s == pytest.approx(np.arange(1, 1001) * 0.5e-3)


@pytest.mark.parametrize("step", [1e-3, 1.1e-3, 1 / 3])
def test_a_full_step_is_not_late(step):
    """Whatever the rounding of many sums."""
    found = FixedStep(step).schedule(np.full(20000, step))
    assert not found.overloaded.size
    assert not found.steps_late.size
    assert found.total_s == pytest.approx(20000 * step)


def test_cores_on_their_own():
    rng = np.random.default_rng(1)
    busy = rng.random((40, 5))
    alone = Asynchronous().schedule(busy)
    assert alone.total_s == pytest.approx(busy.sum(axis=0).max())
    sender, receiver = (a.ravel() for a in np.meshgrid(np.arange(5), np.arange(5)))
    together = Asynchronous().schedule(busy, sender=sender, receiver=receiver)
    barrier = Barrier({1: 0.0}, 1, 1).schedule(busy.max(axis=1), tiles=1)
    assert together.total_s == pytest.approx(barrier.total_s)
    assert together.end_s == pytest.approx(barrier.end_s)
    ring = Asynchronous().schedule(busy, sender=np.arange(5), receiver=np.roll(np.arange(5), 1))
    assert alone.total_s <= ring.total_s <= together.total_s
    # By hand: the longest way through work and messages.
    best = np.zeros(5)
    for row in busy:
        best = np.array([max(best[c], best[(c + 1) % 5]) for c in range(5)]) + row
    assert ring.total_s == pytest.approx(best.max())


def test_cores_that_wait_for_the_world():
    found = Asynchronous(step_time_s=1.0).schedule([[0.5, 0.25], [1.5, 0.5], [0.25, 0.25]])
    assert found.end_s == pytest.approx([0.5, 2.5, 2.75])
    assert found.late_s == pytest.approx([0, 0.5, 0])
    assert found.excess_s == pytest.approx([0, 0.5, 0])
    assert found.total_s == pytest.approx(3.0)


def test_no_steps():
    for found in (Barrier.loihi().schedule([], tiles=3), FixedStep(1.0).schedule([]), Asynchronous().schedule(np.zeros((0, 2)))):
        assert found.total_s == 0
        assert found.begin_s.size == 0


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: Barrier({}, 2, 2), "time_ns: expected nanoseconds by number of tiles, got none"),
        (lambda: Barrier({5: 1.0}, 2, 2), "time_ns: expected 1 to 4 tiles, got 5"),
        (lambda: Barrier({1: -1.0}, 2, 2), "time_ns: expected nanoseconds ≥ 0, got -1.0 for 1 tiles"),
        (lambda: Barrier({1: 1.0}, 0, 2), "columns: expected an integer ≥ 1, got 0"),
        (lambda: Barrier.loihi().time_s(33), "tiles: expected 1 to 32, got 33"),
        (lambda: Barrier.loihi().time_s(), "time_s: expected either tiles or a diameter"),
        (lambda: Barrier.loihi().time_s(diameter=-1), "diameter: expected an integer ≥ 0, got -1"),
        (lambda: FixedStep(0.0), "step_time_s: expected seconds > 0, got 0.0"),
        (lambda: FixedStep(1.0).schedule([-1.0]), "busy_s: expected finite seconds ≥ 0, got -1 to -1"),
        (lambda: FixedStep(1.0).schedule([[1.0]]), "busy_s: expected steps as axes, got shape (1, 1)"),
        (lambda: Asynchronous().schedule([1.0]), "busy_s: expected steps and cores as axes, got shape (1,)"),
        (lambda: Asynchronous().schedule([[1.0]], sender=[1], receiver=[0]), "sender: expected cores 0 to 0, got 1 to 1"),
        (lambda: Asynchronous().schedule([[1.0]], sender=[0]), "receiver: expected one core a pair, got shape (0,)"),
        (lambda: diameter([], []), "x: expected as many as y, and at least one, got 0 and 0"),
    ],
)
def test_bad_input(call, text):
    with pytest.raises(InputError) as error:
        call()
    assert str(error.value) == text
