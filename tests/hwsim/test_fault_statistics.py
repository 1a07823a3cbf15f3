"""Intervals against exhaustive enumeration and published figures; sampling plans against what a sample has to be."""

import itertools
import math

import numpy as np
import pytest
from scipy import optimize, stats

from hwsim.faults import (
    LookPlan,
    Moments,
    SamplingPlan,
    Stratum,
    allocate,
    clopper_pearson,
    mean_interval,
    paired_difference,
    pilot_deviations,
    sample_size,
    stratified_mean,
    stratified_proportion,
    stratified_sample_size,
    wilson,
)
from hwsim.faults.looks import _critical_values
from hwsim.faults.permutation import hashed, permuted
from hwsim.faults.turns import EqualTurns, WeightedTurns
from numerics import InputError

# --- a proportion ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("successes", "trials", "score", "exact"),
    [
        (81, 263, (0.2553, 0.3662), (0.2527, 0.3676)),
        (15, 148, (0.0624, 0.1605), (0.0578, 0.1617)),
        (0, 20, (0.0, 0.1611), (0.0, 0.1684)),
        (1, 29, (0.0061, 0.1718), (0.0009, 0.1776)),
    ],
)
def test_published_intervals(successes, trials, score, exact):
    """Newcombe, "Two-sided confidence intervals for the single proportion", Statistics in Medicine 17, 1998, table I."""
    for method, (low, high) in ((wilson, score), (clopper_pearson, exact)):
        found = method(successes, trials)
        assert (found.low, found.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))
        assert found.estimate == successes / trials


def binomial_coverage(intervals, p):
    n = len(intervals) - 1
    return sum(stats.binom.pmf(x, n, p) for x, found in enumerate(intervals) if found.covers(p))


def test_coverage_of_a_proportion():
    """Clopper-Pearson never falls below its confidence; Wilson's coverage is right on average (Brown, Cai, DasGupta 2001)."""
    grid = np.linspace(0.0005, 0.9995, 800)
    for n in (1, 2, 7, 30):
        intervals = [clopper_pearson(x, n) for x in range(n + 1)]
        assert min(binomial_coverage(intervals, p) for p in grid) >= 0.95
    intervals = [wilson(x, 50) for x in range(51)]
    covered = [binomial_coverage(intervals, p) for p in grid]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.006)
    assert 0.83 < min(covered) < 0.95


@pytest.mark.parametrize(("population", "n"), [(60, 25), (40, 39), (12, 12), (1, 1)])
def test_coverage_without_replacement(population, n):
    """Over every population of the size, and every sample of it."""
    exact = [clopper_pearson(x, n, population=population) for x in range(n + 1)]
    score = [wilson(x, n, population=population) for x in range(n + 1)]
    shares = []
    for k in range(population + 1):
        chances = stats.hypergeom.pmf(range(n + 1), population, k, n)
        truth = k / population
        assert sum(c for c, found in zip(chances, exact, strict=True) if found.covers(truth)) >= 0.95 - 1e-12
        shares.append(sum(c for c, found in zip(chances, score, strict=True) if found.covers(truth)))
    assert np.mean(shares) > 0.94
    if n == population:
        assert all(found.half_width == 0 for found in (*exact, *score))
    else:
        assert all(found.half_width <= clopper_pearson(x, n).half_width for x, found in enumerate(exact))


# --- strata ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("x", "n", "size"), [(0, 20, 50), (3, 20, 50), (20, 20, 50), (7, 200, 10**9), (1, 1, 2)])
def test_one_stratum_is_wilson(x, n, size):
    for replacement, population in ((False, size), (True, None)):
        found, expected = stratified_proportion([x], [n], [size], replacement=replacement), wilson(x, n, population=population)
        assert (found.low, found.high) == (pytest.approx(expected.low, abs=1e-12), pytest.approx(expected.high, abs=1e-12))
        assert found.standard_error == pytest.approx(expected.standard_error)


@pytest.mark.parametrize(("x", "n", "share"), [((3, 10), (40, 30), 0.3), ((0, 5), (25, 60), 0.5), ((0, 0), (10, 40), 0.8)])
def test_stratified_interval_is_that_of_the_score(x, n, share):
    """By brute force: at each P the likeliest pair of rates on a grid, and whether the score rejects it."""
    weights = np.array([share, 1 - share])
    found = stratified_proportion(x, n, [round(share * 10**9), round((1 - share) * 10**9)], replacement=True)
    estimate = float(weights @ (np.array(x) / n))

    def kept(p):
        first = np.linspace(max(0, (p - weights[1]) / weights[0]), min(1, p / weights[0]), 40001)
        pair = np.stack([first, np.clip((p - weights[0] * first) / weights[1], 0, 1)])
        logs = stats.binom.logpmf(np.array(x)[:, None], np.array(n)[:, None], pair).sum(0)
        best = pair[:, np.argmax(logs)]
        return (estimate - p) ** 2 <= 1.959964**2 * float((weights**2 * best * (1 - best) / n).sum()) + 1e-12

    for end, inwards in ((found.low, 1), (found.high, -1)):
        assert kept(end + inwards * 2e-4)
        assert end == 0 or not kept(end - inwards * 2e-4)


@pytest.mark.parametrize(
    ("sizes", "trials", "replacement", "mean", "least"),
    [
        ((6, 14, 10), (4, 6, 5), False, 0.945, 0.85),
        ((12, 24, 18), (8, 8, 8), False, 0.945, 0.85),
        ((12, 24, 18), (8, 8, 8), True, 0.945, 0.92),
    ],
)
def test_coverage_over_strata(sizes, trials, replacement, mean, least):
    """Every population of three strata, every stratified sample of it."""
    outcomes = list(itertools.product(*(range(n + 1) for n in trials)))
    intervals = [stratified_proportion(x, trials, sizes, replacement=replacement) for x in outcomes]
    pooled = [clopper_pearson(sum(x), sum(trials)) for x in outcomes]
    ends = np.array([[(found.low - 1e-12, found.high + 1e-12) for found in method] for method in (intervals, pooled)])

    def chances(size, n, inside):
        counts = range(n + 1)
        return stats.binom.pmf(counts, n, inside / size) if replacement else stats.hypergeom.pmf(counts, size, inside, n)

    tables = [[chances(size, n, k) for k in range(size + 1)] for size, n in zip(sizes, trials, strict=True)]
    covered = []
    for inside in itertools.product(*(range(size + 1) for size in sizes)):
        truth = sum(inside) / sum(sizes)
        joint = np.einsum("i,j,k->ijk", *(table[k] for table, k in zip(tables, inside, strict=True))).ravel()
        covered.append(((ends[..., 0] <= truth) & (truth <= ends[..., 1])) @ joint)
    score, exact = np.array(covered).T
    assert score.mean() > mean
    assert score.min() > least
    if trials == (4, 6, 5):  # near enough proportional
        assert exact.min() > 0.95


def test_strata_with_many_trials_agree_with_yan_and_su():
    """Statistics in Biopharmaceutical Research 2, 2010: Wilson's interval of each stratum at a common z', weighted."""
    x, n, sizes = np.array([120, 40, 300]), np.array([1000, 800, 1500]), np.array([1e6, 4e6, 2e6])
    weights, p = sizes / sizes.sum(), x / n
    variance = p * (1 - p) / n
    z = 1.959964 * math.sqrt((weights**2 * variance).sum()) / (weights * np.sqrt(variance)).sum()
    centre, half = p + z * z / (2 * n), z * np.sqrt(variance + z * z / (4 * n * n))
    low, high = ((weights * (centre + sign * half) / (1 + z * z / n)).sum() for sign in (-1, 1))
    found = stratified_proportion(x, n, sizes)
    assert (found.low, found.high) == (pytest.approx(low, rel=5e-3), pytest.approx(high, rel=5e-3))


def test_what_is_known_and_what_is_not():
    census = stratified_proportion([2, 7], [10, 10], [10, 10])
    assert (census.low, census.estimate, census.high) == pytest.approx((0.45, 0.45, 0.45), abs=1e-15)
    half_known = stratified_proportion([2, 7], [10, 10], [10, 90])
    other = stratified_proportion([7], [10], [90])
    assert half_known.low == pytest.approx(0.1 * 0.2 + 0.9 * other.low)
    assert half_known.high == pytest.approx(0.1 * 0.2 + 0.9 * other.high)
    unseen = stratified_proportion([2, 0], [10, 0], [20, 20])
    seen = stratified_proportion([2], [10], [20])
    assert unseen.low == pytest.approx(seen.low / 2)
    assert unseen.high == pytest.approx(seen.high / 2 + 0.5)
    # A stratum of great weight and few trials must show, though nothing failed in it.
    assert stratified_proportion([0, 0], [5, 500], [900, 900]).high > 0.15


# --- means ----------------------------------------------------------------------------------------------------------------------


def multinomial_coverage(method, values, chances, n):
    covered, truth = 0.0, float(np.dot(values, chances))
    for first in range(n + 1):
        for second in range(n + 1 - first):
            counts = (first, second, n - first - second)
            mean = np.dot(values, counts) / n
            found = mean_interval(Moments(n, mean, float(np.dot((values - mean) ** 2, counts))), method=method)
            covered += stats.multinomial.pmf(counts, n, chances) * found.covers(truth)
    return covered


def test_coverage_of_a_mean():
    """Over every sample: accuracy drops of 0, a little and all. Bernstein's holds; Student's does where changes are not rare."""
    values = np.array([0.0, 0.05, 1.0])
    for chances in ((0.9, 0.09, 0.01), (0.5, 0.3, 0.2), (0.98, 0.0, 0.02)):
        assert multinomial_coverage("bernstein", values, chances, 60) >= 0.95
    assert multinomial_coverage("student", values, (0.4, 0.2, 0.4), 60) == pytest.approx(0.95, abs=0.01)
    assert multinomial_coverage("student", values, (0.98, 0.0, 0.02), 60) < 0.75


def test_bernstein_by_hand():
    """Fifty zeros and fifty ones, error 0.025 a side: √(2 · 0.252525 · ln 80 / 100) + 7 ln 80 / 297 = 0.148766 + 0.103280."""
    found = mean_interval([0, 1] * 50, bounds=(0, 1))
    assert (found.low, found.high) == (pytest.approx(0.5 - 0.252046, abs=1e-6), pytest.approx(0.5 + 0.252046, abs=1e-6))
    wider = mean_interval([0, 1] * 50, bounds=(-1, 1))
    assert wider.high == pytest.approx(0.5 + 0.148766 + 2 * 0.103280, abs=1e-6)


def test_moments_merge():
    values = np.random.default_rng(1).uniform(-1, 1, 1000)
    parts = [Moments.of(part) for part in np.split(values, [0, 10, 400])]
    whole = parts[0].merged(parts[1]).merged(parts[2]).merged(parts[3])
    assert (whole.count, whole.mean) == (1000, pytest.approx(values.mean()))
    assert whole.variance == pytest.approx(values.var(ddof=1))
    expected = stats.t.interval(0.9, 999, values.mean(), stats.sem(values))
    found = mean_interval(whole, confidence=0.9, method="student")
    assert (found.low, found.high) == (pytest.approx(expected[0]), pytest.approx(expected[1]))


def test_stratified_mean_over_every_sample():
    """Estimate and variance are unbiased: exactly so, over all samples of a small population."""
    population = (np.array([0.1, 0.4, 0.35, 0.9]), np.array([0.0, 0.0, 1.0, 0.2, 0.3]))
    estimates, variances = [], []
    for samples in itertools.product(
        *(itertools.combinations(stratum, n) for stratum, n in zip(population, (2, 3), strict=True))
    ):
        found = stratified_mean([Moments.of(sample) for sample in samples], [4, 5])
        estimates.append(found.estimate)
        variances.append(found.standard_error**2)
    assert np.mean(estimates) == pytest.approx(np.concatenate(population).mean())
    assert np.mean(variances) == pytest.approx(np.var(estimates))
    whole = Moments.of(population[0])
    assert stratified_mean([whole], [4], replacement=True).high == pytest.approx(
        mean_interval(whole, method="student").high
    )  # one stratum


# --- differences ----------------------------------------------------------------------------------------------------------------


def test_paired_difference_is_that_of_the_score():
    """The restricted likelihood maximised by a general optimiser, not by its formula."""

    def score(delta, b, c, n):
        def loss(q):
            return -(b * math.log(q + delta) + c * math.log(q) + (n - b - c) * math.log(1 - 2 * q - delta))

        q = optimize.minimize_scalar(
            loss, bounds=(max(0, -delta) + 1e-9, (1 - delta) / 2 - 1e-9), method="bounded", options={"xatol": 1e-12}
        ).x
        return (b - c - n * delta) / math.sqrt(n * (2 * q + delta * (1 - delta)))

    for b, c, n in ((16, 6, 161), (7, 1, 21), (40, 20, 160), (3, 9, 30)):
        found = paired_difference(b, c, n)
        assert score(found.low, b, c, n) == pytest.approx(1.959964, abs=1e-4)
        assert score(found.high, b, c, n) == pytest.approx(-1.959964, abs=1e-4)
        mirror = paired_difference(c, b, n)
        assert (mirror.low, mirror.high) == (pytest.approx(-found.high), pytest.approx(-found.low))
    # Nothing changed: Wilson's upper limit of none among n.
    assert paired_difference(0, 0, 50).high == pytest.approx(wilson(0, 50).high)


def test_coverage_of_a_paired_difference():
    n = 40
    outcomes = [(b, c) for b in range(n + 1) for c in range(n + 1 - b)]
    intervals = [paired_difference(b, c, n) for b, c in outcomes]
    counts = np.array([(b, c, n - b - c) for b, c in outcomes])
    covered = []
    for lost, gained in itertools.product((0.02, 0.1, 0.3), (0.01, 0.05, 0.3)):
        chances = stats.multinomial.pmf(counts, n, (lost, gained, 1 - lost - gained))
        covered.append(sum(p for p, found in zip(chances, intervals, strict=True) if found.covers(lost - gained)))
    assert np.mean(covered) == pytest.approx(0.95, abs=0.02)
    assert min(covered) > 0.9


# --- sizes ----------------------------------------------------------------------------------------------------------------------


def test_sample_size_is_enough_for_its_margin():
    for margin, population in ((0.05, None), (0.05, 2000), (0.1, 150), (0.02, 10**6)):
        n = sample_size(margin, population=population)
        assert max(wilson(x, n, population=population).half_width for x in range(n + 1)) <= margin
        assert 1.96 * math.sqrt(0.25 / (n - 5)) > margin or population
    # Leveugle et al., equation for n: two confidences' z, the correction, and the limit of a small population.
    assert sample_size(0.01) == math.ceil(1.959964**2 / 4 / 1e-4)
    assert sample_size(0.05, population=1000) == math.ceil(1000 / (1 + 0.05**2 * 999 / (1.959964**2 / 4)))
    assert sample_size(0.001, population=20) == 20


def test_allocation_is_the_best_there_is():
    """Neyman's, against all ways to share 24 trials among three strata."""
    sizes, spread = np.array([40, 7, 100]), np.array([0.5, 0.45, 0.1])
    weights = sizes / sizes.sum()

    def variance(n):
        return float((weights**2 * spread**2 * (1 / n - 1 / sizes)).sum())

    ways = ((a, b, 24 - a - b) for a in range(1, 23) for b in range(1, min(8, 24 - a)))
    best = min(variance(np.array(way)) for way in ways)
    found = allocate(24, sizes, rule="neyman", deviations=spread)
    assert found.sum() == 24
    assert variance(found) <= best * 1.005


def test_allocation_fills_up():
    assert allocate(100, [1000, 100, 10, 5], rule="equal").tolist() == [43, 42, 10, 5]
    assert allocate(100, [1000, 100, 10, 5]).tolist() == [90, 9, 1, 0]
    assert allocate(100, [1000, 100, 10, 5], minimum=3).tolist() == [85, 9, 3, 3]
    assert allocate(1115, [1000, 100, 10, 5], minimum=3).tolist() == [1000, 100, 10, 5]
    rng = np.random.default_rng(3)
    for _ in range(50):
        sizes = rng.integers(1, 10 ** rng.integers(1, 9), rng.integers(1, 40))
        total = int(rng.integers(0, sizes.sum() + 1))
        found = allocate(total, sizes)
        assert found.sum() == total
        assert (np.abs(found - total * (sizes / sizes.sum())) < 1).all()


def test_stratified_sample_size_is_cochrans():
    """Sampling techniques, section 5.12: n = n₀ / (1 + n₀ / N) for proportional shares, (Σ W s)² over them for Neyman's."""
    sizes, spread = np.array([2e5, 6e5, 1e5]), np.array([0.5, 0.1, 0.3])
    weights, wanted = sizes / sizes.sum(), (0.01 / 1.959964) ** 2
    correction = (weights * spread**2).sum() / sizes.sum()
    proportional = (weights * spread**2).sum() / (wanted + correction)
    neyman = (weights * spread).sum() ** 2 / (wanted + correction)
    assert stratified_sample_size(0.01, sizes, deviations=spread) == pytest.approx(proportional, abs=3)
    assert stratified_sample_size(0.01, sizes, deviations=spread, rule="neyman") == pytest.approx(neyman, abs=3)
    assert stratified_sample_size(0.01, [2**50]) == sample_size(0.01)
    assert pilot_deviations([0, 5], [8, 8]).tolist() == [pytest.approx(0.3), pytest.approx(math.sqrt(0.24))]


# --- looks ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("looks", "value"), [(2, 2.178), (3, 2.289), (4, 2.361), (5, 2.413), (10, 2.555)])
def test_pocock_values(looks, value):
    """Jennison and Turnbull, "Group sequential methods", 2000, table 2.1, α = 0.05."""
    assert _critical_values(tuple(range(1, looks + 1)), 0.05, "pocock")[0] == pytest.approx(value, abs=6e-4)


def test_obrien_fleming_values():
    """Five even looks at α = 0.05: the figures that the programs of Lan and DeMets's spending functions print."""
    found = _critical_values((1, 2, 3, 4, 5), 0.05, "obrien_fleming")
    assert found == pytest.approx((4.8769, 3.3569, 2.6803, 2.2898, 2.0310), abs=2e-4)


@pytest.mark.parametrize("spending", ["pocock", "obrien_fleming"])
def test_values_at_uneven_looks(spending):
    """The chance to stay within all of them, by an integral over the joint normal distribution."""
    information = (1.0, 1.3, 4.0)
    values = np.array(_critical_values(information, 0.1, spending))
    covariance = [[math.sqrt(min(a, b) / max(a, b)) for b in information] for a in information]
    joint = stats.multivariate_normal(cov=covariance, allow_singular=False)
    assert joint.cdf(values, lower_limit=-values) == pytest.approx(0.9, abs=2e-4)


def final_intervals(plan, levels, method, p):
    """(probability of stopping there, the interval) over every way a campaign of proportion p can go: exact, not simulated."""
    states, done = {0: 1.0}, 0
    for look, size in enumerate(plan.sizes):
        first, last = min(states), max(states)
        mass = np.array([states.get(x, 0.0) for x in range(first, last + 1)])
        step = stats.binom.pmf(np.arange(size - done + 1), size - done, p)
        useful = np.flatnonzero(step > 1e-13)
        joint = np.convolve(mass, step[useful[0] : useful[-1] + 1])
        states, done = {}, size
        for x, chance in enumerate(joint, start=first + int(useful[0])):
            if chance < 1e-13:
                continue
            found = method(x, size, confidence=levels[look])
            if plan.stops(found) or look == len(plan.sizes) - 1:
                yield chance, found
            else:
                states[x] = chance
        if not states:
            return


def exact_coverage(plan, levels, method, p):
    return sum(chance for chance, found in final_intervals(plan, levels, method, p) if found.covers(p))


def always_covers(plan, levels, method, p):
    """Probability that the intervals of all looks hold p, were none the last."""
    states, done, first = np.ones(1), 0, 0
    for look, size in enumerate(plan.sizes):
        states = np.convolve(states, stats.binom.pmf(np.arange(size - done + 1), size - done, p))
        kept = [chance > 1e-12 and method(first + x, size, confidence=levels[look]).covers(p) for x, chance in enumerate(states)]
        inside = np.flatnonzero(kept)
        if not inside.size:
            return 0.0
        states, first, done = np.where(kept, states, 0.0)[inside[0] : inside[-1] + 1], first + int(inside[0]), size
    return float(states.sum())


@pytest.mark.parametrize("spending", ["pocock", "obrien_fleming", "bonferroni"])
def test_coverage_of_looks(spending):
    """Over every course a campaign can take. Without a share of the error for each look the intervals hold far less often."""
    plan = LookPlan(margin=0.03, first=100, growth=1.6, spending=spending)
    naive = (0.95,) * len(plan.sizes)
    for p in (0.001, 0.01, 0.05, 0.1, 0.5):
        assert exact_coverage(plan, plan.levels, wilson, p) > 0.95
        assert exact_coverage(plan, plan.strict_levels, clopper_pearson, p) > 0.95
        assert always_covers(plan, plan.strict_levels, clopper_pearson, p) > 0.95
    for p in (0.1, 0.5):
        assert always_covers(plan, plan.levels, wilson, p) == pytest.approx(0.95, abs=0.01) or spending == "bonferroni"
        assert always_covers(plan, naive, wilson, p) < 0.85
    assert exact_coverage(plan, naive, wilson, 0.001) < 0.92


RARE_TO_EVEN = np.concatenate([np.geomspace(1e-5, 0.02, 240), np.linspace(0.021, 0.5, 120)])


@pytest.mark.parametrize("points", [slice(None, None, 12), pytest.param(slice(None), marks=pytest.mark.exhaustive)])
def test_least_coverage_of_looks(points):
    """The interval that ends a campaign, at proportions from 10⁻⁵ to 0.5: what the docstring of LookPlan says of the methods."""
    grid = RARE_TO_EVEN[points]

    def least(method, strict, **fields):
        plan = LookPlan(margin=0.02, **fields)
        return min(exact_coverage(plan, plan.strict_levels if strict else plan.levels, method, p) for p in grid)

    assert least(clopper_pearson, True) > 0.95
    assert least(clopper_pearson, True, spending="pocock") > 0.95
    assert least(wilson, False) > 0.949
    assert 0.88 < least(wilson, False, spending="pocock") < 0.9 + 0.03 * (points.step is not None)


@pytest.mark.parametrize("p", [0.001, 0.01, 0.1, 0.5])
def test_simulated_campaigns(p):
    """2,000 seeded campaigns a proportion: the interval they stop with holds p in 95 %, but for 3 standard errors; at p = 0.001
    that of campaigns that look as they please does not; all their looks hold in far fewer."""
    plan = LookPlan(margin=0.02, first=100, growth=1.5)
    naive = (0.95,) * len(plan.sizes)
    held, pleased, always = 0, 0, 0
    for seed in range(2000):
        found = np.random.default_rng((seed, round(p * 1000))).binomial(np.diff(plan.sizes, prepend=0), p).cumsum().tolist()

        def last(levels, found=found):
            for look, size in enumerate(plan.sizes):
                interval = wilson(found[look], size, confidence=levels[look])
                if plan.stops(interval):
                    break
            return interval.covers(p)

        held += last(plan.levels)
        pleased += last(naive)
        always += all(wilson(x, size).covers(p) for x, size in zip(found, plan.sizes, strict=True))
    limit = 2000 * (0.95 - 3 * math.sqrt(0.95 * 0.05 / 2000))
    assert held >= limit
    assert always < 0.85 * 2000
    assert pleased < limit or p != 0.001


def test_look_plans():
    plan = LookPlan(margin=0.02, first=500, growth=2)
    assert wilson(plan.sizes[-1] // 2, plan.sizes[-1], confidence=plan.levels[-1]).half_width <= 0.02
    assert LookPlan(margin=0.02, first=500, growth=2, maximum=2000).sizes == (500, 1000, 2000)
    assert LookPlan(margin=0.1, first=500).sizes == (500,)
    assert LookPlan(margin=0.1, first=500).levels == (pytest.approx(0.95),)
    finite = LookPlan(margin=0.01, first=100, growth=2, population=5000)
    n = finite.sizes[-1]
    assert n < 5000
    assert wilson(n // 2, n, confidence=finite.levels[-1], population=5000).half_width <= 0.01
    census = LookPlan(margin=0.001, first=1000, growth=2, maximum=5000, population=5000)
    assert census.sizes == (1000, 2000, 5000)
    found = census.interval(2, lambda level: wilson(100, 5000, confidence=level, population=5000))
    assert (found.half_width, found.confidence) == (0, 0.95)
    assert sum(1 - level for level in census.strict_levels[:-1]) == pytest.approx(0.05)


# --- sampling -------------------------------------------------------------------------------------------------------------------


def places(pick, size, key, ranks):
    ranks = np.asarray(ranks, np.int64)
    return pick(ranks, np.full(ranks.shape, size), np.full(ranks.shape, key, np.uint64))


def test_permutation_is_a_bijection():
    for size in (*range(1, 200), 255, 256, 257, 4096, 10007):
        for key in (0, 12345, 2**64 - 1):
            assert np.array_equal(np.sort(places(permuted, size, key, np.arange(size))), np.arange(size))
    largest = 2**63 - 1
    found = places(permuted, largest, 7, np.concatenate([np.arange(50_000), largest - 1 - np.arange(50_000)]))
    assert found.min() >= 0
    assert np.unique(found).size == 100_000


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_permutations_are_alike(size):
    """All size! orders come equally often over keys: chi-square."""
    keys = np.random.default_rng(size).integers(0, 2**64, 12_000, dtype=np.uint64)
    columns = [permuted(np.full(keys.shape, rank), np.full(keys.shape, size), keys) for rank in range(size)]
    order = np.ravel_multi_index(columns, (size,) * size)
    counts = np.unique(order, return_counts=True)[1]
    assert counts.size == math.factorial(size)
    assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("size", [7, 10, 12, 30])
def test_pairs_of_places_are_alike(size):
    keys = np.random.default_rng(size).integers(0, 2**64, 40_000, dtype=np.uint64)
    first, last = (permuted(np.full(keys.shape, rank), np.full(keys.shape, size), keys) for rank in (0, size - 1))
    counts = np.bincount(first * size + last, minlength=size * size).reshape(size, size)
    assert (counts.diagonal() == 0).all()
    assert stats.chisquare(counts[~np.eye(size, dtype=bool)]).pvalue > 1e-3


@pytest.mark.parametrize("pick", [permuted, hashed])
@pytest.mark.parametrize("size", [1000, 3 * 2**40 + 1, 2**63 - 1])
def test_places_are_uniform(pick, size):
    """Successive ranks under one key: in 100 equal parts, and two in a row in 10 × 10."""
    ranks = np.arange(size if pick is permuted and size < 50_000 else 50_000)
    parts = (places(pick, size, 99, ranks) // -(-size // 100)).astype(np.int64)
    assert parts.max() == 99
    assert parts.min() == 0
    if ranks.size == 50_000:
        assert stats.chisquare(np.bincount(parts, minlength=100)).pvalue > 1e-3
        assert stats.chisquare(np.bincount(parts[::2] // 10 * 10 + parts[1::2] // 10, minlength=100)).pvalue > 1e-3
    # Which of the places comes first is even too.
    halves = parts[: ranks.size // 2]
    assert stats.chisquare(np.bincount(halves, minlength=100)).pvalue > 1e-3


def layers(sizes, bits=2):
    return tuple(Stratum(f"layer{at}", bit, size) for at, size in enumerate(sizes) for bit in range(bits))


PLANS = [
    SamplingPlan(layers((30, 7, 2)), images=5, seed=3),
    SamplingPlan(layers((30, 7, 2)), images=5, seed=3, allocation="equal"),
    SamplingPlan(layers((30, 7, 2)), images=5, seed=3, allocation=(100, 0, 35, 20, 1, 10)),
    SamplingPlan(layers((30, 7, 2)), images=5, seed=3, replacement=True),
    SamplingPlan(layers((30, 7, 2)), images=5, seed=3, replacement=True, allocation="equal"),
]


@pytest.mark.parametrize("plan", PLANS)
def test_trials_do_not_depend_on_their_chunks(plan):
    stop = min(plan.limit, 1000)
    whole = plan.trials(0, stop)
    assert np.array_equal(whole.numbers, np.arange(stop))
    for pieces in (range(0, stop, 1), range(0, stop, 37), (0, 1, 150, stop - 2)):
        edges = [*pieces, stop]
        parts = [plan.trials(*edge) for edge in itertools.pairwise(edges)]
        joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in vars(whole)}
        assert all(np.array_equal(joined[name], getattr(whole, name)) for name in joined)
    assert len(plan.trials(5, 5)) == 0
    for n in (0, 1, 2, 17, 100, stop):
        assert np.array_equal(plan.counts(n), np.bincount(whole.strata[:n], minlength=len(plan.strata)))
    assert np.array_equal(whole.bits, np.array([s.bit for s in plan.strata])[whole.strata])
    assert (whole.elements < np.array([s.elements for s in plan.strata])[whole.strata]).all()
    assert (whole.images < 5).all()


@pytest.mark.parametrize("plan", PLANS[:2])
def test_a_whole_plan_tries_every_place_once(plan):
    assert plan.limit == plan.population == 390
    trials = plan.trials(0, 390)
    found = set(zip(*(getattr(trials, name).tolist() for name in ("strata", "elements", "images")), strict=True))
    assert len(found) == 390
    assert np.array_equal(plan.counts(390), plan.sizes)


@pytest.mark.parametrize(
    "weights",
    [
        [1] * 7,
        [1, 1000],
        [10**6, *([1] * 500)],
        [2**at for at in range(30)],
        np.random.default_rng(0).integers(1, 10**5, 300).tolist(),
    ],
)
def test_every_prefix_is_balanced(weights):
    """No stratum is ever as much as two trials from its share, and all have theirs at the end."""
    turns, shares = WeightedTurns(weights), np.array(weights) / sum(weights)
    assert turns.counts(sum(weights)).tolist() == weights
    stop = 4000
    strata, ranks = turns.turns(0, stop)
    seen = np.zeros(len(weights), int)
    for n, (h, rank) in enumerate(zip(strata, ranks, strict=True), start=1):
        assert rank == seen[h]
        seen[h] += 1
        assert np.abs(seen - n * shares).max() < 2
    late = 5 * sum(weights) - 100
    assert np.array_equal(
        turns.turns(late, late + 200)[0], np.concatenate([turns.turns(late % sum(weights), sum(weights))[0], strata])[:200]
    )


def test_equal_turns_drop_out():
    turns = EqualTurns([3, 1, 2], endless=False)
    strata, ranks = turns.turns(0, 6)
    assert strata.tolist() == [1, 2, 0, 2, 0, 0]
    assert ranks.tolist() == [0, 0, 0, 1, 1, 2]
    assert [turns.counts(n).tolist() for n in (0, 2, 4, 6)] == [[0, 0, 0], [0, 1, 1], [1, 1, 2], [3, 1, 2]]


def test_plans_of_any_size():
    huge = SamplingPlan((Stratum("a", 0, 2**60), Stratum("b", 0, 2**59), Stratum("c", 0, 3)), seed=1)
    assert 2**31 <= huge.limit <= 2**32
    assert huge.counts(huge.limit)[2] == 1
    late = huge.trials(huge.limit - 1000, huge.limit)
    assert np.bincount(late.strata, minlength=3)[:2] == pytest.approx([667, 333], abs=2)
    assert late.elements.max() > 2**59
    again = SamplingPlan((Stratum("a", 0, 2**60), Stratum("b", 0, 2**59)), replacement=True)
    assert len(again.trials(10**15, 10**15 + 50)) == 50


def test_draws_depend_on_seed_and_stratum():
    def elements(plan, layer):
        trials = plan.trials(0, 200)
        return trials.elements[[plan.strata[s].layer == layer for s in trials.strata]][:20].tolist()

    one = SamplingPlan((Stratum("a", 3, 500), Stratum("b", 3, 500)), seed=1)
    assert elements(one, "b") == elements(SamplingPlan((Stratum("c", 1, 900), Stratum("b", 3, 500)), seed=1), "b")
    assert elements(one, "a") != elements(one, "b")
    assert elements(one, "a") != elements(SamplingPlan(one.strata, seed=2), "a")
    # Stores of trials outlive versions of the code: these never change.
    trials = SamplingPlan((Stratum("conv1", 7, 432), Stratum("conv2", 7, 4608)), images=100, seed=1).trials(0, 4)
    assert trials.strata.tolist() == [1, 1, 1, 1]
    assert trials.elements.tolist() == [2472, 186, 1006, 1258]
    assert trials.images.tolist() == [55, 68, 53, 81]
    for replacement, expected in ((False, 512996545844166), (True, 206629995939501)):
        wide = SamplingPlan((Stratum("x", 0, 2**50),), seed=9, replacement=replacement)
        assert wide.trials(0, 1).elements.tolist() == [expected]


def test_intervals_of_sampled_populations():
    """Whole way round: 400 seeds of a plan over a population whose every place is known to fail or not."""
    rng = np.random.default_rng(5)
    strata = layers((400, 90, 25), bits=3)
    fails = [rng.random(stratum.elements * 4) < rate for stratum, rate in zip(strata, (0, 0.02, 0.6) * 3, strict=True)]
    truth, held, estimates = np.concatenate(fails).mean(), 0, []
    for seed in range(400):
        plan = SamplingPlan(strata, images=4, seed=seed)
        trials = plan.trials(0, 300)
        hits = np.array([fails[s][e * 4 + i] for s, e, i in zip(trials.strata, trials.elements, trials.images, strict=True)])
        found = stratified_proportion(np.bincount(trials.strata, hits, 9), plan.counts(300), plan.sizes)
        held += found.covers(truth)
        estimates.append(found.estimate)
    assert held / 400 >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / 400)
    assert np.mean(estimates) == pytest.approx(truth, abs=4 * np.std(estimates) / 20)
    simple = math.sqrt(truth * (1 - truth) / 300)
    assert np.std(estimates) < 0.8 * simple  # what the strata are for


# --- errors ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: wilson(5, 4), "successes: expected at most the 4 trials, got 5"),
        (lambda: wilson(0, 0), "trials: expected an integer ≥ 1, got 0"),
        (lambda: wilson(1, 4, confidence=95), "confidence: expected a number between 0 and 1, got 95"),
        (lambda: clopper_pearson(1, 4, population=3), "population: expected at least the 4 trials, got 3"),
        (
            lambda: stratified_proportion([1, 2], [3, 3], [9, 2]),
            "trials: stratum 1 of 2 faults cannot have 3 trials with 2 successes",
        ),
        (lambda: stratified_proportion([0], [0], [9]), "trials: expected at least one, got none"),
        (lambda: mean_interval([0.5, 1.5]), "values: expected from -1 to 1, got 1.5"),
        (lambda: mean_interval([0.5]), "values: expected at least 2, got 1"),
        (lambda: mean_interval([0.5, 0.1], method="students"), "method: unknown name 'students'; did you mean 'student'?"),
        (lambda: paired_difference(3, 2, 4), "lost + gained: expected at most 4 trials, got 5"),
        (lambda: sample_size(5), "margin: expected a number between 0 and 1, got 5"),
        (lambda: allocate(12, [5, 6]), "total: expected from 0 to 11 for these strata, got 12"),
        (
            lambda: allocate(2, [5, 6], rule="neyman"),
            "deviations: expected with the rule 'neyman' and with no other, got None with 'neyman'",
        ),
        (lambda: LookPlan(margin=0.1, growth=1), "growth: expected a number ≥ 1.05, got 1"),
        (lambda: LookPlan(margin=0.1, maximum=3), "maximum: expected at least the 400 trials of the first look, got 3"),
        (lambda: Stratum("conv1", 0, 0), "conv1: elements: expected an integer from 1 to 2⁶³ - 1, got 0"),
        (lambda: SamplingPlan(()), "strata: expected at least one, got none"),
        (
            lambda: SamplingPlan((Stratum("a", 1, 5), Stratum("a", 1, 5))),
            "strata: expected each layer and bit once, got 'a', bit 1, more than once",
        ),
        (lambda: SamplingPlan((Stratum("a", 1, 5),), allocation=(6,)), "allocation: a, bit 1, holds 5 places, got 6 trials"),
        (lambda: PLANS[0].trials(300, 400), "stop: expected an integer from 300 to the plan's limit, 390, got 400"),
    ],
)
def test_errors_name_the_field(call, message):
    with pytest.raises(InputError) as error:
        call()
    assert str(error.value) == message
