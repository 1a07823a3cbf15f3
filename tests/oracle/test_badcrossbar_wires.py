"""Wires against badcrossbar (MIT; D. Joksas, A. Mehonic, SoftwareX 12, 2020): nodal analysis of the same array."""

import logging
import warnings

import numpy as np
import pytest

from neuromorphic.crossbars.wires import Wires

with warnings.catch_warnings():
    warnings.simplefilter("ignore", ImportWarning)  # its plots want a library of their own
    badcrossbar = pytest.importorskip("badcrossbar")
logging.getLogger("badcrossbar").setLevel(logging.WARNING)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 8), (16, 5), (40, 40), (64, 30)])
@pytest.mark.parametrize(("row_ohm", "column_ohm"), [(0.5, 0.5), (3.0, 11.0), (200.0, 40.0)])
def test_currents_are_the_same(rows, columns, row_ohm, column_ohm):
    rng = np.random.default_rng(rows)
    g, volts = rng.uniform(1e-6, 100e-6, (rows, columns)), rng.uniform(-0.5, 0.5, (rows, 4))
    solution = badcrossbar.compute(volts, 1 / g, r_i_word_line=row_ohm, r_i_bit_line=column_ohm)
    expected = solution.currents.output
    wires = Wires(row_ohm, column_ohm)
    size = np.abs(expected).max()
    np.testing.assert_allclose(volts.T @ wires.effective_direct(g), expected, rtol=0, atol=1e-9 * size)
    np.testing.assert_allclose(volts.T @ wires.effective(g), expected, rtol=0, atol=1e-8 * size)
