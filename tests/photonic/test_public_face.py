"""Whatever the public functions are given: it works, or one line says which field was wrong."""

import re

import pytest
from public_calls import ABSTRACT, CALLS, NO_ARGUMENTS, ODD, PLAIN_DATA, SLOW

import photonic
from numerics.errors import InputError
from photonic import analog, training

FEW = ("PhotonicCampaign", "PhotonicEngine")
"""That take long: a third of the values are tried."""


def test_every_public_name_is_called():
    called = {re.split(r"[ .]", name)[0] for name in CALLS}
    public = {*photonic.__all__, *analog.__all__, *training.__all__}
    assert public - called == NO_ARGUMENTS | PLAIN_DATA | ABSTRACT
    assert called - public == {"an"}


def what_it_says(call, arguments):
    """The error of a call; empty where it works."""
    try:
        call(**arguments)
    except InputError as error:
        return str(error)
    return ""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CALLS)
def test_odd_values_are_refused_in_one_line(name):
    call, given = CALLS[name]
    call(**given)
    refused, values = 0, list(ODD.items())[:: 3 if name in FEW else 1]
    for argument in given:
        for odd, value in values:
            if (name, argument, odd) in SLOW:
                continue
            said = what_it_says(call, {**given, argument: value})
            refused += bool(said)
            assert re.match(r"([^\n]+: [^\n]+)?$", said), (argument, odd, said)
    assert refused > len(given)


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("name", "argument", "value", "message"),
    [
        ("decompose", "unitary", ODD["ragged"], "unitary: expected an array of numbers, got rows of different lengths"),
        ("decompose", "unitary", ODD["followed"], r"unitary: expected an array of numbers, got a tensor with a gradient to keep"),
        ("DeadDetectors", "ports", 3, "ports: expected a tuple of integers, got 3"),
        ("Mesh.random", "seed", "a", "seed: expected an integer, got 'a'"),
        ("Mesh.random", "seed", 1.5, "seed: expected an integer, got 1.5"),
        ("Mesh.random", "layout", "rectangular", "layout: expected MeshLayout, got 'rectangular'"),
        ("apply_mesh", "theta", photonic.layout("rectangular", 4), "theta: expected Tensor, got MeshLayout"),
        ("AnalogSettings.alike", "noise", "x", "noise: expected a kind of noise such as GaussianNoise, got 'x'"),
        ("to_analog", "kinds", {1: 2}, "kinds: expected classes of layers, got 1"),
        ("an analog layer", "input", ODD["wide"], r"x: expected shape \(…, 4\), got \(3, 9\)"),
        ("an emulated layer", "x", ODD["wide"], r"x \(of '0'\): expected shape \(…, 4\), got \(3, 9\)"),
        ("AnalogConv2d", "x", ODD["wide"], r"x: expected shape \(batch, 1, height, width\), or without the batch, got \(3, 9\)"),
        ("Mesh.apply", "vectors", ODD["(4, 3) nan"], "vectors: expected finite numbers, got nan"),
        ("propagate", "vectors", ODD["(4, 4) inf"], "vectors: expected finite numbers, got inf"),
        ("SvdEngine.apply", "vectors", [NAN, 1], "vectors: expected finite numbers, got nan"),
        ("fidelity", "matrix", ODD["(4, 4) inf"], r"matrix: expected finite numbers, got \(?inf"),
        ("OpticalLayer of numbers", "x", ODD["tensor nan"], "vectors: expected finite numbers, got"),
        ("PhotonicCampaign", "labels", [0, 1, 0, 1, 0, 0.5], "labels: expected a list of integers, one a sample, got float64"),
        ("PhotonicCampaign", "interval", None, "interval: unknown name 'None'"),
        ("fabricate", "seed", -1, "seed: expected ≥ 0, got -1"),
        ("scheme_work", "scheme", "x", "scheme: unknown name 'x'; known: backpropagation"),
        (
            "Receiver",
            "responsivity_a_per_w",
            1.3,
            "responsivity_a_per_w: expected at most 1.25, an electron a photon at 1550 nm, got",
        ),
    ],
)
def test_what_was_raw_or_silent(name, argument, value, message):
    call, given = CALLS[name]
    with pytest.raises(InputError, match=message):
        call(**{**given, argument: value})


def test_the_scheme_comes_first():
    with pytest.raises(InputError, match="scheme: unknown name 'x'"):
        training.scheme_work("x", 4, 4, 4)
