"""The inputs of docs/conformance.md, on which other libraries err: ours against rational arithmetic, theirs as observed."""

import math
from fractions import Fraction
from importlib.metadata import version

import gfloat
import ml_dtypes
import numpy as np
import pytest
import torch
from exact_rounding import round_to_step, rounded
from gfloat import RoundMode
from gfloat.formats import format_info_ocp_e8m0

from numerics import FloatFormat, decode, encode, get_format, quantize

BELOW_TIE = float(np.uint32(0x3A7FFFFF).view(np.float32))
ROWS = [
    # input, format, the right value, who gives what else
    (272.0, np.float32, "e4m3fn", 256.0, {"QPyTorch 0.3.0": 288.0}),
    (17.0, np.float32, "e4m3fn", 16.0, {"QPyTorch 0.3.0": 18.0}),
    (448.0, np.float32, "e4m3fn", 448.0, {"pychop 0.6.2": 0.0}),
    (256.0, np.float64, "e4m3", math.inf, {"pychop 0.6.2": 0.0}),
    (70000.0, np.float64, "fp16", math.inf, {"pychop 0.6.2": 0.0}),
    (65520.0, np.float64, "fp16", math.inf, {"pychop 0.6.2": 65536.0}),
    (BELOW_TIE, np.float32, "e4m3fn", 0.0, {"microxcaling": 2.0**-9}),
    (math.nextafter(1.0625, 2), np.float64, "e4m3fn", 1.125, {"ml_dtypes 0.6.0": 1.0, "torch 2.13.0": 1.0}),
    (1 + 2.0**-8 + 2.0**-50, np.float64, "bf16", 1 + 2.0**-7, {"ml_dtypes 0.6.0": 1.0, "torch 2.13.0": 1.0}),
    (1 + 2.0**-11 + 2.0**-50, np.float64, "fp16", 1 + 2.0**-10, {"torch 2.13.0": 1.0}),
]
LIVE = {
    "ml_dtypes 0.6.0": {"e4m3fn": ml_dtypes.float8_e4m3fn, "bf16": ml_dtypes.bfloat16},
    "torch 2.13.0": {"e4m3fn": torch.float8_e4m3fn, "bf16": torch.bfloat16, "fp16": torch.float16},
}


@pytest.mark.parametrize(("value", "dtype", "name", "right", "others"), ROWS)
def test_ours_is_exact(value, dtype, name, right, others):
    fmt = get_format(name)
    overflow = "ieee" if fmt.has_inf else "saturate"
    assert rounded(value, fmt, "nearest_even", overflow) == right
    assert quantize(dtype(value), name) == right
    assert decode(encode(dtype(value), name), name) == right
    assert quantize(torch.tensor([value], dtype=torch.from_numpy(np.zeros(1, dtype)).dtype), name).item() == right
    assert right not in others.values()


@pytest.mark.parametrize(("value", "dtype", "name", "right", "others"), ROWS)
def test_what_is_said_of_installed_libraries_is_so(value, dtype, name, right, others):
    for library in others.keys() & LIVE.keys():
        package, observed = library.split()
        if not version(package).startswith(observed):
            continue
        kind = LIVE[library][name]
        if package == "torch":
            theirs = torch.tensor([value], dtype=torch.float64).to(kind).double().item()
        else:
            theirs = float(np.array([value], dtype).astype(kind)[0])
        assert theirs == others[library]


def test_powers_of_two_below_the_smallest_normal_float():
    """1.25 · 2^−127 is nearer to 2^−127 than to 2^−126; ml_dtypes and PyTorch take it up."""
    x = np.float32(1.25 * 2.0**-127)
    assert round_to_step(Fraction(float(x)), Fraction(2) ** -127, "nearest_even") == Fraction(2) ** -127
    assert quantize(x, "e8m0fnu") == 2.0**-127
    assert float(x.astype(ml_dtypes.float8_e8m0fnu)) == 2.0**-126
    assert torch.tensor([x]).to(torch.float8_e8m0fnu).float().item() == 2.0**-126


def test_ties_without_a_mantissa_go_to_the_even_significand():
    """1.5 · 2^k lies between significands 1 and 2 of the step 2^k: up, as in ml_dtypes; gfloat goes by the exponent's parity."""
    x = np.array([1.5, 3.0, 6.0])
    np.testing.assert_array_equal(quantize(x, "e8m0fnu"), [2, 4, 8])
    np.testing.assert_array_equal(x.astype(np.float32).astype(ml_dtypes.float8_e8m0fnu).astype(float), [2, 4, 8])
    theirs = gfloat.round_ndarray(format_info_ocp_e8m0, x, RoundMode.TiesToEven)
    np.testing.assert_array_equal(theirs, [2, 2, 8])


def test_overflow_is_a_choice_not_an_error():
    """Beyond 448, E4M3FN: PyTorch saturates, ml_dtypes gives NaN; both are in the OCP specification."""
    x = np.float32([464.0, 465.0, np.inf])
    np.testing.assert_array_equal(quantize(x, "e4m3fn", overflow="torch"), [448, 448, 448])
    np.testing.assert_array_equal(quantize(x, "e4m3fn", overflow="ml_dtypes"), [448, np.nan, np.nan])


@pytest.mark.parametrize(("exponent", "mantissa", "kind"), [(8, 7, torch.bfloat16), (5, 10, torch.float16)])
def test_custom_formats_are_bf16_and_float16_on_every_code(exponent, mantissa, kind):
    """pychop's (8, 7) and (5, 10), as formats of one's own."""
    fmt = FloatFormat("mine", exponent, mantissa)
    codes = np.arange(1 << 16, dtype=np.uint16)
    values = torch.from_numpy(codes).view(kind).float().numpy()
    np.testing.assert_array_equal(decode(codes, fmt), values)
    numbers = ~np.isnan(values)
    np.testing.assert_array_equal(encode(values, fmt)[numbers], codes[numbers])
    np.testing.assert_array_equal(quantize(values, fmt), values)
