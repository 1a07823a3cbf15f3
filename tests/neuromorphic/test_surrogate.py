"""Surrogate gradients against their formulas, and against the curves whose derivatives they are."""

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from neuromorphic.cells.surrogate import DERIVATIVES, Surrogate
from numerics.errors import InputError

FORMULAS = {  # written for one number, apart from torch
    "fast_sigmoid": lambda x, k: 1 / (1 + k * abs(x)) ** 2,
    "arctan": lambda x, k: (k / 2) / (1 + (np.pi / 2 * k * x) ** 2),
    "triangle": lambda x, k: max(0.0, 1 - k * abs(x)),
    "sigmoid": lambda x, k: k / (2 + np.exp(k * x) + np.exp(-k * x)),
    "straight_through": lambda x, k: k,
}
RISING = {  # a curve of which it is the derivative, and how far it rises from −∞ to ∞
    "fast_sigmoid": (lambda x, k: x / (1 + k * abs(x)), lambda k: 2 / k),
    "arctan": (lambda x, k: np.arctan(np.pi / 2 * k * x) / np.pi + 0.5, lambda k: 1.0),
    "triangle": (lambda x, k: np.clip(x, -1 / k, 1 / k) * (1 - k * abs(np.clip(x, -1 / k, 1 / k)) / 2), lambda k: 1 / k),
    "sigmoid": (lambda x, k: 1 / (1 + np.exp(-k * x)), lambda k: 1.0),
}


@pytest.mark.parametrize("curve", DERIVATIVES)
@pytest.mark.parametrize(("slope", "scale"), [(1.0, 1.0), (2.0, 0.3), (25.0, 1.0)])
def test_gradient_is_the_formula(curve, slope, scale):
    surrogate = Surrogate(curve, slope, scale=scale)
    x = torch.linspace(-2, 2, 81, dtype=torch.float64, requires_grad=True)
    weights = torch.linspace(-1, 3, 81, dtype=torch.float64)
    step = surrogate(x)
    assert step.tolist() == [float(v > 0) for v in x.tolist()]
    (step * weights).sum().backward()
    expected = [scale * FORMULAS[curve](v, slope) * w for v, w in zip(x.tolist(), weights.tolist(), strict=True)]
    np.testing.assert_allclose(x.grad.numpy(), expected, rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize("curve", RISING)
def test_formula_is_the_derivative_of_the_curve_it_is_named_after(curve):
    rising, height = RISING[curve]
    for slope in (0.7, 5.0):
        at = np.array([-1.3, -0.4, -0.05, 0.02, 0.3, 1.9])
        numeric = (rising(at + 1e-6, slope) - rising(at - 1e-6, slope)) / 2e-6
        found = Surrogate(curve, slope).derivative(torch.tensor(at)).numpy()
        np.testing.assert_allclose(found, numeric, rtol=1e-6, atol=1e-9)
        curve_of = Surrogate(curve, slope)
        # x = t/(1 − t) maps 0 to ∞ onto 0 to 1
        half = quad(lambda t, c=curve_of: float(c.derivative(torch.tensor(t / (1 - t)))) / (1 - t) ** 2, 0, 1, limit=200)[0]
        assert 2 * half == pytest.approx(height(slope), rel=1e-6)


def test_at_zero_and_the_smallest_numbers():
    x = torch.tensor([-0.0, 0.0, 5e-324, -5e-324], dtype=torch.float64)
    assert Surrogate()(x).tolist() == [0, 0, 1, 0]
    assert Surrogate()(x, at_zero=True).tolist() == [1, 1, 1, 0]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"curve": "arctn"}, "curve: unknown name 'arctn'; did you mean 'arctan'?"),
        ({"slope": 0}, "slope: expected a number > 0, got 0"),
        ({"scale": float("nan")}, "scale: expected a number > 0, got nan"),
        ({"slope": True}, "slope: expected a number > 0, got True"),
    ],
)
def test_errors(arguments, text):
    with pytest.raises(InputError) as raised:
        Surrogate(**arguments)
    assert str(raised.value).startswith(text)
