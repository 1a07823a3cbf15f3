"""The sparse distributed memory: recall, similarity of codes, and bit faults against exact probabilities."""

import numpy as np
import pytest
from scipy import stats

from neuromorphic.learning.associative_memory import SparseMemory, overlap
from numerics.errors import InputError
from numerics.faults import BitFaults, FaultMap, draw_map, stream

INPUTS, ACTIVE, MODULES, UNITS = 400, 40, 60, 10


def random_items(rng, count):
    items = np.zeros((count, INPUTS), bool)
    for row in items:
        row[rng.choice(INPUTS, ACTIVE, replace=False)] = True
    return items


def filled(seed, count):
    """A memory with items, the items and their codes."""
    items = random_items(np.random.default_rng(seed), count)
    memory = SparseMemory(INPUTS, modules=MODULES, units=UNITS, seed=seed)
    return memory, items, np.array([memory.store(x) for x in items])


def failed(memory, faults):
    other = SparseMemory(memory.inputs, modules=memory.modules, units=memory.units)
    other.weights = memory.weights.copy()
    other.fail(faults)
    return other


def test_equations_written_plainly():
    memory, items, _ = filled(0, 8)
    x = items[0] & (np.arange(INPUTS) % 3 > 0) | items[1] & (np.arange(INPUTS) % 3 == 0)
    v = np.array([[memory.weights[x, q * UNITS + k].sum() / x.sum() for k in range(UNITS)] for q in range(MODULES)])
    g = sum(max(row) for row in v) / MODULES
    eta = 1 + 100 * UNITS * (max(g - 0.1, 0) / 0.9) ** 2
    psi = 1 + (eta - 1) / (1 + np.exp(-10 * (v - 1)))
    assert memory.familiarity(x) == pytest.approx(g, abs=1e-12)
    np.testing.assert_allclose(memory.chances(x), psi / psi.sum(axis=1, keepdims=True), atol=1e-12)
    assert 0.2 < g < 0.9


def test_winners_are_drawn_with_their_chances():
    memory, items, _ = filled(1, 3)
    x = random_items(np.random.default_rng(5), 1)[0]
    x[np.flatnonzero(x)[:26]] = False
    x[np.flatnonzero(items[0])[:26]] = True
    chances, found = memory.chances(x), np.zeros((MODULES, UNITS))
    for seed in range(400):
        other = SparseMemory(INPUTS, modules=MODULES, units=UNITS, seed=seed)
        other.weights = memory.weights.copy()
        found[np.arange(MODULES), other.store(x)] += 1
    assert 0.3 < chances.max() < 0.95
    expected = 400 * chances
    deviates = (found - expected) / np.sqrt(expected * (1 - chances))
    assert np.abs(deviates).max() < 4.5
    assert deviates[expected > 20].std() == pytest.approx(1, abs=0.25)


def test_what_was_stored_is_familiar_and_comes_back():
    memory, items, codes = filled(2, 40)
    assert (np.array([memory.recall(x) for x in items]) == codes).mean() > 0.999
    assert min(memory.familiarity(x) for x in items) == 1
    new = random_items(np.random.default_rng(99), 20)
    assert max(memory.familiarity(x) for x in new) < 0.8
    # A third of an item brings the whole back.
    exact = 0
    for x, code in zip(items, codes, strict=True):
        part = np.zeros(INPUTS, bool)
        part[np.flatnonzero(x)[:13]] = True
        exact += np.array_equal(memory.pattern(memory.recall(part), ACTIVE), x)
        assert (memory.recall(part) == code).mean() > 0.6
    assert exact > 36
    assert memory.counts.weight_updates == memory.weights.sum()


def test_overlap_of_codes_tracks_similarity_of_inputs():
    """Inputs that share 0 to 40 of an item's 40 active bits, each stored beside others: rank correlation, and its rise."""
    for others in (1, 10, 40):
        shared, codes = [], []
        for seed in range(2):
            memory, items, stored = filled(seed, others)
            weights, rng = memory.weights.copy(), np.random.default_rng(seed + 50)
            for keep in range(0, ACTIVE + 1, 4):
                for _ in range(3):
                    x = np.zeros(INPUTS, bool)
                    x[rng.choice(np.flatnonzero(items[0]), keep, replace=False)] = True
                    x[rng.choice(np.flatnonzero(~items[0]), ACTIVE - keep, replace=False)] = True
                    memory.weights = weights.copy()
                    shared.append(keep)
                    codes.append(overlap([memory.store(x), stored[0]])[0, 1])
        rank = stats.spearmanr(shared, codes)[0]
        means = [np.mean([c for s, c in zip(shared, codes, strict=True) if s == k]) for k in range(0, ACTIVE + 1, 4)]
        print(f"{others} stored: rank correlation {rank:.3f}, overlap {means[0]:.2f} to {means[-1]:.2f}")
        assert rank > 0.85
        assert means[0] < 0.15
        assert means[-1] > 0.85


def read_as(stay, rise):
    """P(n of 40 bits are read as 1 | k of them are), and P(fewer than n), for a 1 that stays with ``stay`` and a 0 that rises."""
    n = np.arange(ACTIVE + 1)
    kept, risen = (stats.binom.pmf(n, n[:, None], p) for p in (stay, rise))
    table = np.array([np.convolve(kept[k, : k + 1], risen[ACTIVE - k, : ACTIVE - k + 1]) for k in n])
    return table, np.concatenate([np.zeros((ACTIVE + 1, 1)), np.cumsum(table, axis=1)], axis=1)


def chance_of_recall(memory, x, code, table, below):
    """Exact mean share of a code that faulty weights bring back: each winner's count must beat the other units' of its module."""
    n = np.arange(ACTIVE + 1)
    ones = memory.weights[np.flatnonzero(x)].sum(axis=0, dtype=int).reshape(MODULES, UNITS)
    total = 0.0
    for q, winner in enumerate(code):
        wins = table[ones[q, winner]].copy()
        for k in range(UNITS):
            if k != winner:
                wins *= below[ones[q, k], n] if k < winner else below[ones[q, k], n + 1]  # the first of equal units wins
        total += wins.sum()
    return total / MODULES


@pytest.mark.parametrize("kind", ["flip", "stuck_at_0", "stuck_at_1"])
def test_recall_falls_gracefully_with_bit_faults(kind):
    memory, items, codes = filled(3, 40)
    rates = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
    measured, expected, named = [], [], []
    for rate in rates:
        shares, found = [], []
        for draw in range(2):
            faults = draw_map(BitFaults(kind=kind, rate=rate), memory.weights.shape, "uint1", stream(draw, kind, rate))
            faulty = failed(memory, faults)
            back = np.array([faulty.recall(x) for x in items])
            shares.append((back == codes).mean())
            found.append(((back[:, None] == codes[None]).mean(axis=2).argmax(axis=1) == np.arange(40)).mean())
        measured.append(np.mean(shares))
        named.append(np.mean(found))
        stay, rise = {"flip": (1 - rate, rate), "stuck_at_0": (1 - rate, 0.0), "stuck_at_1": (1.0, rate)}[kind]
        chances = read_as(stay, rise)
        expected.append(np.mean([chance_of_recall(memory, x, code, *chances) for x, code in zip(items, codes, strict=True)]))
    for rate, share, exact, which in zip(rates, measured, expected, named, strict=True):
        print(f"{kind} {100 * rate:g} %: {share:.3f} of the units, {exact:.3f} expected, {which:.2f} of the items named")
    np.testing.assert_allclose(measured, expected, atol=0.012)
    assert measured[0] > 0.999
    assert (np.diff(measured) <= 0.003).all()
    assert measured[3] > 0.95  # a tenth of all bits
    assert min(named[:5]) == 1  # which item it was is still plain at a fifth
    assert np.abs(np.diff(measured[:5])).max() < 0.12  # no cliff on the way


def test_stuck_bits_stay_when_more_is_stored():
    memory = SparseMemory(INPUTS, modules=MODULES, units=UNITS, seed=4)
    elements = np.arange(0, memory.weights.size, 7)
    memory.fail(FaultMap.from_places(elements, np.zeros_like(elements), "stuck_at_0"))
    memory.fail(FaultMap.from_places([1], [0], "stuck_at_1"))
    memory.fail(FaultMap.from_places([2], [0], "flip"))
    assert memory.weights.ravel()[1:3].tolist() == [1, 1]
    items = random_items(np.random.default_rng(4), 30)
    codes = np.array([memory.store(x) for x in items])
    assert not memory.weights.ravel()[::7].any()
    assert memory.weights.sum() > 10_000
    assert (np.array([memory.recall(x) for x in items]) == codes).mean() > 0.9


def test_same_seed_same_codes():
    assert np.array_equal(filled(6, 10)[2], filled(6, 10)[2])
    assert not np.array_equal(filled(6, 10)[2], filled(7, 10)[2])


def test_errors_name_what_is_wrong():
    memory = SparseMemory(4, modules=2, units=3)
    for call, text in (
        (lambda: SparseMemory(4, modules=0, units=3), "modules: expected an integer ≥ 1, got 0"),
        (lambda: SparseMemory(4, modules=2, units=3, slope=0.0), "slope: expected a number > 0, got 0.0"),
        (lambda: SparseMemory(4, modules=2, units=3, centre=2.0), "centre: expected 0 to 1, got 2.0"),
        (
            lambda: SparseMemory(4, modules=2, units=3, least_familiarity=1.0),
            "least_familiarity: expected 0 to below 1, got 1.0",
        ),
        (lambda: memory.store([1, 0, 2, 0]), "x: expected (4,) of 0 and 1, got int64 (4,)"),
        (lambda: memory.store([1, 0, 0]), "x: expected (4,) of 0 and 1, got int64 (3,)"),
        (lambda: memory.recall(np.zeros(4)), "x: expected at least one active input"),
        (lambda: memory.pattern([0, 3], 1), "code: expected 2 integers from 0 to 2, got [0, 3]"),
        (lambda: memory.pattern([0, 2], 5), "active: expected 1 to 4, got 5"),
        (lambda: memory.fail(FaultMap.from_places([0], [1], "flip")), "faults: a weight has bit 0 only"),
        (lambda: memory.fail(FaultMap.from_places([24], [0], "flip")), "elements: the tensor has 24, 0 to 23, got 24"),
    ):
        with pytest.raises(InputError) as error:
            call()
        assert str(error.value) == text
