"""Spaces, objectives and fronts, against brute force."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsim.explore import Choice, Constraint, Integer, Objective, Real, Space, hypervolume, non_dominated
from hwsim.explore.objectives import objectives_from
from hwsim.explore.sweeps import Draw
from numerics.errors import InputError


def test_the_grid_is_the_product_of_its_parameters():
    space = Space({"a": [3, 1], "b": Integer(low=2, high=9, step=3), "c": ["x", "y"]})
    expected = [dict(zip("abc", values, strict=True)) for values in itertools.product([3, 1], [2, 5, 8], ["x", "y"])]
    assert space.size == 12
    assert list(space.grid()) == expected
    assert Space(space.to_dict()) == space


def test_a_sample_of_a_grid_repeats_nothing_and_depends_on_its_number_alone():
    space = Space({"a": list(range(10)), "b": list(range(9))})
    draw = Draw(space, 90, 5)
    whole = draw.configurations(range(90))
    assert len({tuple(c.values()) for c in whole}) == 90
    assert draw.configurations(range(40, 60)) == whole[40:60]
    assert Draw(space, 90, 6).configurations(range(90)) != whole


def test_a_logarithmic_parameter_is_even_in_the_logarithm():
    space = Space({"clock_hz": Real(low=1e6, high=1e9, log=True), "n": Integer(low=1, high=1000, log=True)})
    draws = [space.sample(np.random.default_rng([1, i])) for i in range(3000)]
    for name, low, high in (("clock_hz", 1e6, 1e9), ("n", 1, 1000)):
        thirds = np.histogram(np.log([d[name] for d in draws]), bins=3, range=(np.log(low), np.log(high)))[0]
        # Of 3,000 draws a third is 1,000 with a standard deviation of 26; whole numbers are coarse near 1.
        assert abs(thirds / 1000 - 1).max() < (0.1 if name == "clock_hz" else 0.2)


def test_encoding_keeps_order_and_splits_what_has_none():
    space = Space({"a": [1, 4], "style": ["x", "y"], "flag": [True, False], "f": Real(low=1, high=100, log=True)})
    assert space.feature_names == ("a", "style=x", "style=y", "flag=True", "flag=False", "f")
    encoded = space.encode([{"a": 4, "style": "y", "flag": False, "f": 100.0}])
    assert encoded.tolist() == [[4, 0, 1, 0, 1, np.log(100)]]


@pytest.mark.parametrize(
    ("parameters", "error"),
    [
        ({}, "space: expected a mapping from names to values with at least one name, got {}"),
        ({"a": []}, "space: a: values: expected at least one, got none"),
        ({"a": [1, 1]}, "space: a: values: 1 is given twice"),
        ({"a": [1, float("nan")]}, "space: a: values: expected finite numbers, texts or truth values, got nan"),
        ({"a": "16,32"}, "space: a: expected a list of values or a mapping with low and high, got '16,32'"),
        ({"a": {"low": 3, "high": 1}}, "space: a: high: expected an integer ≥ low = 3, got 1"),
        ({"a": {"low": 0.0, "high": 1.0, "log": True}}, "space: a: log: needs low above 0, got 0.0"),
        ({"a": {"low": 1}}, "space: a: high: missing from a parameter of kind 'real'"),
        ({"a": {"low": 1, "high": 2, "stp": 1}}, "space: a: field of a parameter of kind 'integer': unknown name 'stp'"),
        ({"a": {"kind": "integer", "low": 1, "high": 2.5}}, "space: a: high: expected an integer, got 2.5"),
    ],
)
def test_a_space_that_is_none_says_where(parameters, error):
    with pytest.raises(InputError) as caught:
        Space(parameters)
    assert str(caught.value).startswith(error)


def test_a_real_parameter_has_no_grid():
    with pytest.raises(InputError, match="x is real, so there is no grid"):
        Space({"x": Real(low=0, high=1)}).configuration(0)


def test_true_is_not_one():
    assert Choice((1, True)).size == 2
    with pytest.raises(InputError, match="a: expected a value of"):
        Space({"a": [1, 2]}).check({"a": True})


def test_objectives_and_constraints_as_they_are_written():
    assert objectives_from(["time_s", "accuracy", "score=max", "min energy_j"]) == (
        Objective("time_s"), Objective("accuracy", "max"), Objective("score", "max"), Objective("energy_j"),
    )  # fmt: skip
    assert Constraint.parse("area_mm2<=10") == Constraint("area_mm2", "<=", 10.0)
    assert Constraint.parse("accuracy ≥ 0.9").violation(0.85) == pytest.approx(0.05)
    assert Constraint.parse("accuracy >= 0.9").violation(0.9) == 0
    assert Constraint.parse("x <= 1").violation(None) == float("inf")
    for wrong in ("area_mm2 < 10", "area_mm2 <= ten", "<= 1", "a <= nan", 7):
        with pytest.raises(InputError):
            Constraint.parse(wrong)


def dominated(costs):
    """Which rows another dominates, by looking at every pair."""
    return [any(all(b <= a) and any(b < a) for b in costs) for a in costs]


@given(
    st.integers(1, 4).flatmap(
        lambda n: st.lists(
            st.lists(st.sampled_from([0.0, 1e-17, 1.0, 2.0, 1e20]), min_size=n, max_size=n), min_size=1, max_size=12
        )
    )
)
def test_the_front_is_what_no_pair_dominates(rows):
    costs = np.array(rows)
    assert non_dominated(costs).tolist() == [not bad for bad in dominated(costs)]


def test_a_point_that_is_not_finite_is_never_on_the_front():
    costs = np.array([[1.0, np.nan], [2.0, 3.0], [np.inf, 0.0]])
    assert non_dominated(costs).tolist() == [False, True, False]


def test_hypervolume_is_the_share_of_the_box_that_chance_hits():
    rng = np.random.default_rng(3)
    for size in (1, 2, 3, 4):
        costs = rng.uniform(0.1, 1, (6, size))
        points = rng.uniform(0, 1, (40_000, size))
        share = (points[:, None] >= costs[None]).all(axis=2).any(axis=1).mean()
        # Five standard deviations of a share of 40,000.
        assert hypervolume(costs, [1.0] * size) == pytest.approx(share, abs=5 * 0.5 / 200)
