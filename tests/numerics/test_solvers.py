"""Factorisations and iterations against exact rationals, LAPACK, and the theory of rounding errors."""

import math
from fractions import Fraction

import numpy as np
import pytest
import scipy.linalg
from exact_rounding import rounded
from hypothesis import given
from hypothesis import strategies as st

from numerics import solvers
from numerics.errors import InputError
from numerics.formats import get_format
from numerics.rounded import RoundedArithmetic
from numerics.solvers import conjugate_gradients, equilibrate, iterative_refinement, lu_factor, solve_lu, solve_triangular


def with_condition(n, condition, seed=0):
    """A matrix with singular values evenly spaced on a logarithmic scale from 1 to 1/condition."""
    rng = np.random.default_rng(seed)
    left, right = (scipy.linalg.qr(rng.standard_normal((n, n)))[0] for _ in range(2))
    return left @ np.diag(np.logspace(0, -math.log10(condition), n)) @ right


def poisson(m):
    """The five-point Laplacian on an m × m grid."""
    line = 2 * np.eye(m) - np.eye(m, k=1) - np.eye(m, k=-1)
    return np.kron(line, np.eye(m)) + np.kron(np.eye(m), line)


# --- LU -----------------------------------------------------------------------------------------------------------------


def scalar_lu(a, fmt):
    """Row by row (i, k, j), in Python floats that hold values of the format; products and differences rounded by exact rationals.

    Another loop order than the package's; each element still sees the same operations in the same sequence."""

    def rnd(value):
        return rounded(float(value), fmt, "nearest_even", "ieee")

    a = [[rnd(v) for v in row] for row in a]
    n, order = len(a), list(range(len(a)))
    for k in range(n):
        pivot = max(range(k, n), key=lambda i: (abs(a[i][k]), -i))
        a[k], a[pivot] = a[pivot], a[k]
        order[k], order[pivot] = order[pivot], order[k]
        for i in range(k + 1, n):
            a[i][k] = rnd(Fraction(a[i][k]) / Fraction(a[k][k]))
            for j in range(k + 1, n):
                a[i][j] = rnd(Fraction(a[i][j]) - Fraction(rnd(Fraction(a[i][k]) * Fraction(a[k][j]))))
    return a, order


@pytest.mark.parametrize("name", ["fp16", "bf16", "e5m2", "fp32"])
def test_lu_is_that_of_a_scalar_loop(name):
    fmt = get_format(name)
    a = np.random.default_rng(1).standard_normal((7, 7))
    factors = lu_factor(a, fmt)
    expected, order = scalar_lu(a.tolist(), fmt)
    assert factors.lu.tolist() == expected
    assert factors.order.tolist() == order


def test_lu_in_fp64_is_lapacks():
    a = np.random.default_rng(2).standard_normal((60, 60))
    factors = lu_factor(a, "fp64")
    lu, swaps = scipy.linalg.lu_factor(a)
    order = np.arange(60)
    for k, other in enumerate(swaps):
        order[[k, other]] = order[[other, k]]
    assert np.array_equal(factors.order, order)
    np.testing.assert_allclose(factors.lu, lu, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["fp32", "fp16", "bf16"])
def test_backward_error_of_lu_keeps_its_bound(name):
    # Higham, Accuracy and Stability, 2nd ed., theorem 9.3: |A − LU| ≤ γ_n |L||U|, for A as the format has it.
    a = with_condition(80, 100)
    factors = lu_factor(a, name)
    u = factors.format.eps / 2
    stored = RoundedArithmetic(name).round(a)[factors.order]
    gamma = 80 * u / (1 - 80 * u)
    assert (np.abs(stored - factors.lower @ factors.upper) <= gamma * np.abs(factors.lower) @ np.abs(factors.upper) + 1e-14).all()
    assert np.abs(factors.lower).max() <= 1  # partial pivoting
    assert factors.growth == np.abs(factors.upper).max() / np.abs(stored).max()


def test_the_matrix_of_greatest_growth():
    # Wilkinson: 1 on the diagonal and in the last column, −1 below: growth 2^(n − 1).
    a = np.tril(-np.ones((10, 10)), -1) + np.eye(10)
    a[:, -1] = 1
    assert lu_factor(a, "fp16").growth == 2**9


def test_a_pivot_that_vanishes_by_rounding_is_reported():
    a = np.array([[1.0, 1.0], [1.0, 1.0 + 2.0**-9]])  # regular, but not in bf16
    factors = lu_factor(a, "bf16")
    assert (factors.failure, factors.column) == ("zero pivot", 1)
    assert lu_factor(a, "fp16").failure is None
    with pytest.raises(InputError, match=r"^factors: expected those of a factorisation that succeeded, got 'zero pivot'$"):
        solve_lu(factors, np.ones(2))
    result = iterative_refinement(a, np.ones(2), factor_format="bf16")
    assert (result.converged, result.end, result.backward_errors) == (False, "zero pivot", ())
    assert np.isnan(result.x).all()


def test_an_overflow_is_reported():
    a = np.array([[6e4, -6e4], [6e4, 6e4]])  # the update makes 12e4
    factors = lu_factor(a, "fp16")
    assert (factors.failure, factors.column) == ("overflow", 1)
    assert iterative_refinement(a, np.ones(2), factor_format="fp16").end == "overflow"
    assert iterative_refinement(a, np.ones(2), factor_format="fp16", scaled=True).converged


# --- triangular solves --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize("unit", [False, True])
def test_triangular_solve_in_fp64_is_lapacks(lower, unit):
    rng = np.random.default_rng(3)
    t = rng.standard_normal((20, 20)) / 5 + 2 * np.eye(20)
    b = rng.standard_normal((20, 3))
    expected = scipy.linalg.solve_triangular(t, b, lower=lower, unit_diagonal=unit)
    np.testing.assert_allclose(solve_triangular(t, b, "fp64", lower=lower, unit_diagonal=unit), expected, rtol=1e-9)
    one = solve_triangular(t, b[:, 0], "fp64", lower=lower, unit_diagonal=unit)
    np.testing.assert_allclose(one, expected[:, 0], rtol=1e-9)


@pytest.mark.parametrize("lower", [False, True])
def test_triangular_solve_keeps_its_backward_error(lower):
    # Higham, theorem 8.5: (T + E) x = b with |E| ≤ γ_n |T|; hence |T x − b| ≤ γ_n |T||x|.
    rng = np.random.default_rng(4)
    fmt = get_format("bf16")
    t = RoundedArithmetic(fmt).round(np.tril(rng.standard_normal((30, 30))) / 8 + np.eye(30))
    t = t if lower else t.T
    b = RoundedArithmetic(fmt).round(rng.standard_normal(30))
    x = solve_triangular(t, b, fmt, lower=lower)
    gamma = 30 * fmt.eps / 2 / (1 - 30 * fmt.eps / 2)
    assert (np.abs(t @ x - b) <= gamma * np.abs(t) @ np.abs(x) + 1e-14).all()


def test_small_systems_by_hand():
    assert solve_triangular([[2.0, 1.0], [0.0, 4.0]], [4.0, 8.0], "e4m3fn").tolist() == [1.0, 2.0]
    with pytest.raises(InputError, match=r"^t: expected no zero on the diagonal \(in 'e4m3fn'\), got one in row 1$"):
        solve_triangular([[2.0, 1.0], [0.0, 1e-4]], [4.0, 8.0], "e4m3fn")


# --- refinement ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("factor", "condition", "converges"),
    [
        ("fp32", 1e6, True),
        ("fp16", 1e2, True),
        ("bf16", 1e1, True),
        ("fp32", 1e12, False),
        ("fp16", 1e7, False),
        ("bf16", 1e6, False),
    ],
)
def test_refinement_converges_where_theory_says(factor, condition, converges):
    # Carson and Higham 2018, table 1.1: u_f · κ well below 1.
    a = with_condition(60, condition)
    truth = np.random.default_rng(5).standard_normal(60)
    result = iterative_refinement(a, a @ truth, factor_format=factor)
    assert result.converged is converges
    assert (result.end == "converged") is converges
    assert len(result.backward_errors) == result.iterations + 1 or result.end == "diverged"
    if converges:
        assert result.backward_errors[-1] <= result.tolerance == math.sqrt(60) * 2.0**-53
        # Forward error: κ times the backward error of float64, as a direct solution has it.
        assert np.abs(result.x - truth).max() / np.abs(truth).max() < 20 * condition * 2.0**-53
        assert result.backward_errors[0] > 1e3 * result.backward_errors[-1]


def test_each_step_gains_what_the_factors_are_worth():
    a = with_condition(60, 10)
    b = a @ np.ones(60)
    steps = {f: iterative_refinement(a, b, factor_format=f).iterations for f in ("fp64", "fp32", "fp16", "bf16")}
    assert steps["fp64"] <= 1 < steps["fp32"] < steps["fp16"] < steps["bf16"]


def test_fp8_factors_solve_what_is_well_conditioned():
    n = 40
    a = np.eye(n) + np.random.default_rng(6).standard_normal((n, n)) / (6 * math.sqrt(n))
    for name in ("e4m3fn", "e5m2"):
        plain = iterative_refinement(a, a @ np.ones(n), factor_format=name, most_iterations=100)
        careful = iterative_refinement(a, a @ np.ones(n), factor_format=name, solve_format="fp32", most_iterations=100)
        assert plain.converged
        assert careful.converged
        assert careful.iterations <= plain.iterations


def test_three_precisions():
    # fp16 factors, fp32 iterates: residuals in fp64 give a forward error of fp32 whatever the condition; in fp32 they do not.
    a = with_condition(60, 300)
    truth = np.ones(60)
    stored = RoundedArithmetic("fp32").round(a)
    b = RoundedArithmetic("fp32").round(stored @ truth)
    exact = np.linalg.solve(stored, b)
    forward = {}
    for residual in ("fp32", "fp64"):
        result = iterative_refinement(
            stored, b, factor_format="fp16", working_format="fp32", residual_format=residual, tolerance=1e-12, most_iterations=30
        )
        assert result.end in ("stagnated", "iterations")  # 1e-12 is out of fp32's reach
        assert np.array_equal(result.x, RoundedArithmetic("fp32").round(result.x))
        forward[residual] = np.abs(result.x - exact).max() / np.abs(exact).max()
    assert forward["fp64"] < 3 * 2.0**-24
    assert forward["fp32"] > 3 * forward["fp64"]
    assert iterative_refinement(stored, b, factor_format="fp16", working_format="fp32").converged


def test_backward_errors_are_those_of_their_definition():
    a = with_condition(30, 50)
    b = np.random.default_rng(7).standard_normal(30)
    result = iterative_refinement(a, b, factor_format="fp16", most_iterations=0)
    assert result.end == "iterations"
    expected = solve_lu(lu_factor(a, "fp16"), b * 2.0 ** -math.ceil(math.log2(np.abs(b).max())))
    expected *= 2.0 ** math.ceil(math.log2(np.abs(b).max()))
    assert np.array_equal(result.x, expected)
    error = np.linalg.norm(b - a @ expected, np.inf)
    error /= np.linalg.norm(a, np.inf) * np.linalg.norm(expected, np.inf) + np.linalg.norm(b, np.inf)
    assert result.backward_errors == (pytest.approx(error, rel=1e-12),)


def test_scaling_lets_short_formats_hold_a_matrix():
    a = np.diag(10.0 ** np.arange(-9, 11)) @ with_condition(20, 10)
    truth = np.ones(20)
    assert iterative_refinement(a, a @ truth, factor_format="fp16", tolerance=1e-12).end in ("overflow", "zero pivot")
    result = iterative_refinement(a, a @ truth, factor_format="fp16", scaled=True, tolerance=1e-14)
    assert result.converged


@given(st.integers(0, 1000))
def test_equilibrate_scales_exactly_into_one_octave(seed):
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((5, 5)) * 10.0 ** rng.integers(-20, 20, (5, 5))
    a[rng.random((5, 5)) < 0.2] = 0
    rows, columns = equilibrate(a)
    assert (np.log2(rows) % 1 == 0).all()
    assert (np.log2(columns) % 1 == 0).all()
    scaled = np.abs(rows[:, None] * a * columns)
    for axis in (0, 1):
        largest = scaled.max(axis=axis)
        assert ((largest <= 1) | (largest == 0)).all()
    largest = scaled.max(axis=0)
    assert ((largest > 0.5) | (largest == 0)).all()


def test_a_right_side_of_zeros():
    result = iterative_refinement(np.eye(3), np.zeros(3), factor_format="bf16")
    assert result.converged
    assert result.x.tolist() == [0, 0, 0]


def test_stochastic_rounding_is_repeatable():
    a, b = with_condition(20, 10), np.ones(20)
    runs = [
        iterative_refinement(a, b, factor_format="bf16", rounding="stochastic", seed=seed, tolerance=1e-12) for seed in (1, 1, 2)
    ]
    assert all(run.converged for run in runs)
    assert np.array_equal(runs[0].factors.lu, runs[1].factors.lu)
    assert not np.array_equal(runs[0].factors.lu, runs[2].factors.lu)


# --- conjugate gradients ------------------------------------------------------------------------------------------------


def test_cg_in_fp64_is_scipys():
    from scipy.sparse.linalg import cg

    a, b = poisson(8), np.random.default_rng(8).standard_normal(64)
    iterates = []
    cg(a, b, rtol=1e-10, atol=0, callback=lambda x: iterates.append(x.copy()))
    result = conjugate_gradients(a, b, "fp64", tolerance=1e-10)
    assert result.converged
    assert abs(result.iterations - len(iterates)) <= 1
    np.testing.assert_allclose(result.x, iterates[-1], rtol=1e-7)
    mine = conjugate_gradients(a, b, "fp64", tolerance=1e-10, most_iterations=10)
    assert (mine.end, mine.iterations) == ("iterations", 10)
    np.testing.assert_allclose(mine.x, iterates[9], rtol=1e-9)


def test_cg_one_step_by_hand():
    # A = diag(1, 3), b = (1, 1): α = 2/4, x = (½, ½), r = (½, −½), |r|² / |b|² = ¼.
    result = conjugate_gradients(np.diag([1.0, 3.0]), [1.0, 1.0], "bf16", most_iterations=1)
    assert result.x.tolist() == [0.5, 0.5]
    assert result.residual_norms == (1.0, 0.5)
    assert result.true_residual_norms == (1.0, 0.5)
    # Two dimensions, two steps.
    assert conjugate_gradients(np.diag([1.0, 3.0]), [1.0, 1.0], "fp64", tolerance=1e-14).iterations == 2


@pytest.mark.parametrize(("name", "u"), [("fp32", 2.0**-24), ("fp16", 2.0**-11), ("bf16", 2.0**-8)])
def test_attainable_accuracy_is_that_of_the_format(name, u):
    a = poisson(10)
    b = a @ np.ones(100)
    result = conjugate_gradients(a, b, name, tolerance=1e-9, most_iterations=150)
    # Greenbaum 1997: the gap is of the order of u · κ-independent factors · ‖A‖ max‖x‖ / ‖b‖.
    level = u * np.linalg.norm(a, 2) * np.linalg.norm(np.ones(100)) / np.linalg.norm(b)
    assert 0.05 * level < min(result.true_residual_norms) < 30 * level
    assert not result.converged
    true = np.linalg.norm(b - a @ result.x) / np.linalg.norm(b)
    assert result.true_residual_norms[-1] == pytest.approx(true, rel=1e-12)


def test_the_recurrence_may_claim_what_is_not_so():
    a = poisson(10)
    result = conjugate_gradients(a, a @ np.ones(100), "bf16", tolerance=1e-2)
    assert result.end == "residual gap"
    assert result.residual_norms[-1] <= 1e-2 < result.true_residual_norms[-1]
    assert not result.converged


def test_sums_in_a_wider_format_help():
    a = poisson(12)
    b = np.random.default_rng(9).standard_normal(144)
    steps = {s: conjugate_gradients(a, b, "fp32", sum_format=s, tolerance=1e-5, order="sequential") for s in ("fp32", "e8m5")}
    assert steps["fp32"].converged
    assert not steps["e8m5"].converged


def test_a_matrix_that_is_not_positive_breaks_down():
    result = conjugate_gradients(np.diag([1.0, -1.0]), [1.0, 1.0], "fp64")
    assert (result.end, result.converged, result.iterations) == ("breakdown", False, 0)


def test_an_overflowing_format_breaks_down():
    result = conjugate_gradients(np.eye(4) * 3, np.full(4, 300.0), "fp16", tolerance=1e-3)
    assert result.end == "breakdown"
    assert conjugate_gradients(np.eye(4) * 3, np.full(4, 300.0), "fp16", sum_format="fp32", tolerance=1e-3).converged


def test_no_right_side_has_no_solution_but_zero():
    result = conjugate_gradients(np.eye(3), np.zeros(3), "bf16")
    assert (result.x.tolist(), result.converged, result.end, result.iterations) == ([0.0] * 3, True, "converged", 0)
    assert result.residual_norms == result.true_residual_norms == (0.0,)


# --- bad input ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lu_factor(np.ones((2, 3)), "bf16"), r"^a: expected real numbers of shape \(n, n\), got float64 of"),
        (lambda: lu_factor(np.array([[np.nan]]), "bf16"), "^a: expected finite numbers, got nan$"),
        (lambda: lu_factor(np.eye(2), "int8"), "^format: expected a float format"),
        (lambda: solve_triangular(np.eye(2), np.ones(3), "bf16"), r"^b: expected real numbers of shape \(2,\) or \(2, m\), got"),
        (lambda: iterative_refinement(np.eye(2), np.ones((2, 1)), factor_format="bf16"), r"^b: expected shape \(2,\), got"),
        (lambda: iterative_refinement(np.eye(2), np.ones(2), factor_format="bf16", tolerance=0), "^tolerance: expected a number"),
        (lambda: iterative_refinement(np.eye(2), np.ones(2), factor_format="bf16", most_iterations=-1), "^most_iterations: "),
        (lambda: iterative_refinement(np.eye(2) * 1e5, np.ones(2), factor_format="bf16", working_format="fp16"),
         "^a, rounded to 'fp16': expected finite numbers, got inf$"),
        (lambda: conjugate_gradients(np.array([[1.0, 2.0], [0.0, 1.0]]), np.ones(2), "bf16"),
         "^a: expected a symmetric matrix, got one that differs by up to 2$"),
        (lambda: conjugate_gradients(np.eye(2), np.zeros((2, 1)), "bf16"), r"^b: expected shape \(2,\), got shape \(2, 1\)$"),
        (lambda: iterative_refinement(np.eye(2), np.ones(2), factor_format="bf16", tolerance="a"), "^tolerance: .* got 'a'$"),
        (lambda: solve_lu(np.eye(2), np.ones(2)), "^factors: expected the LUFactors that lu_factor gives, got ndarray$"),
        (lambda: lu_factor([[1, 2], [3]], "bf16"), "^a: expected an array of real numbers, rows of one length, got a list$"),
        (lambda: conjugate_gradients(np.eye(2), np.ones(2), "bf16", order="tree"), "^order: unknown name 'tree'"),
    ],
)  # fmt: skip
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_a_tensor_with_a_gradient_is_refused():
    torch = pytest.importorskip("torch")
    matrix = torch.eye(2, requires_grad=True)
    with pytest.raises(InputError, match=r"^a: requires a gradient, which a solver does not pass; expected detached"):
        lu_factor(matrix, "bf16")
    assert lu_factor(matrix.detach(), "bf16").upper.tolist() == np.eye(2).tolist()


def test_patience_is_what_it_says():
    a = with_condition(40, 1e6)
    result = iterative_refinement(a, a @ np.ones(40), factor_format="bf16")
    assert result.end == "stagnated"
    best = int(np.argmin(result.backward_errors))
    assert len(result.backward_errors) - 1 - best == solvers.PATIENCE
