"""Closed forms: against SCALE-Sim's formula and its own output, and against a count of when each product happens."""

import csv
import itertools
import math
import random
from pathlib import Path

import numpy as np
import pytest

from accelerators.systolic.analytic import compute_cycles, folds
from accelerators.systolic.spec import Timing
from numerics.errors import InputError

ROWS_FILE = Path(__file__).parent.parent / "oracle" / "data" / "scalesim_compute_cycles.csv"


def scale_sim_formula(m, n, k, rows, columns, dataflow):
    """What SCALE-Sim 3 prints as compute cycles, from its papers' equations and its users' report of the −1 (issue 125)."""
    if dataflow == "os":
        return math.ceil(m / rows) * math.ceil(n / columns) * (k + rows + columns - 2) - 1
    if dataflow == "ws":
        return math.ceil(k / rows) * math.ceil(n / columns) * (2 * rows + columns + m - 2) - 1
    return math.ceil(k / rows) * math.ceil(m / columns) * (2 * rows + columns + n - 2) - 1


@pytest.mark.parametrize("dataflow", ["ws", "os", "is"])
def test_scale_sim_setting_equals_its_formula_on_random_shapes(dataflow):
    rng = random.Random(f"scale-sim {dataflow}")
    for _ in range(1000):
        m, n, k = (rng.randint(1, 4096) for _ in range(3))
        rows, columns = (rng.choice([1, 3, 8, 12, 14, 16, 32, 128, 256]) for _ in range(2))
        ours = compute_cycles(m, n, k, rows=rows, columns=columns, dataflow=dataflow, timing="scale_sim")
        assert ours - 1 == scale_sim_formula(m, n, k, rows, columns, dataflow)


def test_scale_sim_setting_equals_what_scale_sim_printed():
    with ROWS_FILE.open() as file:
        printed = list(csv.DictReader(line for line in file if not line.startswith("#")))
    assert len(printed) >= 300
    assert {row["dataflow"] for row in printed} == {"os", "ws", "is"}
    for row in printed:
        m, n, k = int(row["m"]), int(row["n"]), int(row["k"])
        ours = compute_cycles(m, n, k, rows=int(row["rows"]), columns=int(row["cols"]), dataflow=row["dataflow"])
        assert ours - 1 == int(row["compute_cycles"]), row


def last_product(m, n, k, rows, columns, dataflow, latency, interval):
    """Cycle after which the last sum of one fold has left, by following every product on its way through the array."""
    stream, depth = {"ws": (m, k), "is": (n, k), "os": (k, 0)}[dataflow]
    latest = 0
    for s, r, c in itertools.product(range(stream), range(rows), range(columns)):
        if dataflow == "os":
            # Operand s enters row r after r and column c after c cycles; its product is in the sum `latency` cycles later.
            latest = max(latest, s * interval + r + c + latency)
        else:
            # The partial sum goes down one row every `latency` cycles; operands enter each column one cycle later.
            latest = max(latest, s * interval + r * latency + c + latency)
    del depth
    return latest


@pytest.mark.parametrize("dataflow", ["ws", "os", "is"])
@pytest.mark.parametrize(("latency", "interval"), [(1, 1), (2, 1), (1, 4), (3, 2)])
def test_one_fold_takes_until_its_last_product_has_left(dataflow, latency, interval):
    rows, columns = 3, 4
    for stream in (1, 2, 7):
        m, n, k = {"ws": (stream, 4, 3), "is": (4, stream, 3), "os": (3, 4, stream)}[dataflow]
        through = last_product(m, n, k, rows, columns, dataflow, latency, interval)
        loading = 0 if dataflow == "os" else rows
        for overlap in ("none", "weights", "full"):
            timing = Timing(fold_overlap=overlap, mac_latency_cycles=latency)
            got = compute_cycles(m, n, k, rows=rows, columns=columns, dataflow=dataflow, timing=timing, cycles_per_mac=interval)
            assert got == loading + through


def test_the_table_of_closed_forms():
    m, n, k, rows, columns = 10, 20, 30, 4, 5
    count = math.ceil(k / rows) * math.ceil(n / columns)
    base = {"rows": rows, "columns": columns, "dataflow": "ws"}
    assert compute_cycles(m, n, k, timing=Timing(fold_overlap="none"), **base) == count * (2 * rows + columns + m - 2)
    assert compute_cycles(m, n, k, timing=Timing(fold_overlap="weights"), **base) == rows + count * (m + rows + columns - 2)
    full = rows + (count - 1) * max(m, rows) + m + rows + columns - 2
    assert compute_cycles(m, n, k, timing=Timing(fold_overlap="full"), **base) == full
    count = math.ceil(m / rows) * math.ceil(n / columns)
    base["dataflow"] = "os"
    shift = Timing(output_drain="shift")
    assert compute_cycles(m, n, k, timing="scale_sim", **base) == count * (k + rows + columns - 2)
    assert compute_cycles(m, n, k, timing=shift, **base) == count * (k + rows + columns - 2 + rows)


def test_input_stationary_is_weight_stationary_with_m_and_n_exchanged():
    for m, n, k in ((5, 9, 33), (64, 1, 7), (1, 100, 100)):
        one = compute_cycles(m, n, k, rows=8, columns=8, dataflow="is", timing="back_to_back")
        assert one == compute_cycles(n, m, k, rows=8, columns=8, dataflow="ws", timing="back_to_back")


def test_arrays_of_shapes_equal_one_by_one():
    rng = np.random.default_rng(3)
    m, n, k = rng.integers(1, 500, (3, 50))
    many = compute_cycles(m, n, k, rows=16, columns=8, dataflow="os", timing="double_buffered")
    for i in range(50):
        assert many[i] == compute_cycles(
            int(m[i]), int(n[i]), int(k[i]), rows=16, columns=8, dataflow="os", timing="double_buffered"
        )
    assert folds(m, n, k, rows=16, columns=8, dataflow="os").shape == (50,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"m": 0}, "m: expected an integer ≥ 1, got 0"),
        (
            {"dataflow": "weight_stationery"},
            "dataflow: unknown name 'weight_stationery'; did you mean 'weight_stationary'",
        ),
        ({"timing": "scalesim"}, "timing: unknown name 'scalesim'; did you mean 'scale_sim'"),
        ({"rows": -1}, "rows: expected an integer ≥ 1, got -1"),
    ],
)
def test_bad_input(change, message):
    arguments = {"m": 2, "n": 2, "k": 2, "rows": 2, "columns": 2, "dataflow": "ws"} | change
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        compute_cycles(**arguments)
