"""Columns as a page holds them, and data that is no exploration."""

import re
import struct
from base64 import b64decode

import pytest
from exploration_samples import sample_data

from hwsim.views.exploration_columns import fields_of, packed, unit_of
from hwsim.views.exploration_page import page
from numerics.errors import InputError


@pytest.fixture(scope="module")
def data():
    return sample_data()


def test_columns_come_back_bit_for_bit(data):
    widths = {"u1": "B", "u2": "H", "u4": "I", "f4": "f", "f8": "d"}
    kinds = set()
    fields = fields_of(data)
    for field in fields:
        stored = packed(field)
        raw = b64decode(stored["data"])
        code = widths[stored["type"]]
        values = list(struct.unpack(f"<{len(raw) // struct.calcsize(code)}{code}", raw))
        if "values" in stored:
            values = [stored["values"][code] for code in values]
        assert [None if v != v else v for v in values] == list(field.values)
        assert [type(v) is bool for v in values] == [type(v) is bool for v in field.values]
        kinds.add(stored["type"])
    assert kinds >= {"u1", "u4", "f8"}


def test_a_number_takes_four_bytes_only_where_that_loses_nothing(data):
    columns = {**data["columns"], "time_s": [i / 1024 for i in range(240)], "energy_j": [i / 10 for i in range(240)]}
    types = {field.name: packed(field)["type"] for field in fields_of({**data, "columns": columns})}
    assert (types["time_s"], types["energy_j"]) == ("f4", "f8")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"columns": {}}, "exploration: columns: expected a mapping from names to lists with at least one, got none"),
        ({"space": []}, "exploration: space: expected a mapping from parameters to what they may be, got list"),
        ({"objectives": [{"metric": "speed", "direction": "max"}]}, "exploration: objectives: speed is no column of numbers"),
    ],
)
def test_damaged_data_is_refused(data, change, message):
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        page({**data, **change})


def test_missing_and_short_columns_are_named(data):
    columns = dict(data["columns"])
    del columns["array.rows"]
    with pytest.raises(InputError, match=r"^exploration: columns: array\.rows is missing$"):
        page({**data, "columns": columns})
    with pytest.raises(InputError, match=r"^exploration: columns: time_s: expected 240 values as in trial, got 2$"):
        page({**data, "columns": {**data["columns"], "time_s": [1.0, 2.0]}})


def test_units_follow_from_names():
    names = {"time_s": "s", "edp_js": "J·s", "a.bandwidth_bytes_per_s": "B/s", "area_mm2": "mm²", "accuracy": "%", "rows": ""}
    assert {name: unit_of(name) for name in names} == names


def test_a_name_is_cut_to_what_tells_it_from_others(data):
    space = {name: {"kind": "choice", "values": [1]} for name in ("input.capacity_bytes", "weight.capacity_bytes", "array.rows")}
    columns = {
        **{name: data["columns"][name] for name in ("trial", "stage", "error", "feasible", "front")},
        **dict.fromkeys(space, [1] * 240),
    }
    labels = {f.name: f.label for f in fields_of({"space": space, "columns": {**columns, "peak_power_w": [1.0] * 240}})}
    assert labels["array.rows"] == "rows"
    assert labels["input.capacity_bytes"] == "input.capacity_bytes"
    assert labels["peak_power_w"] == "peak power"


@pytest.mark.parametrize(
    ("values", "log"),
    [
        ([8, 16, 32, 64], True),
        ([8, 16, 24, 32], False),
        ([1, 2], False),
        ([1, 20], True),
        ([0, 1, 100], False),
        ([-1, 1, 100], False),
    ],
)
def test_values_that_multiply_are_shown_by_their_logarithm(data, values, log):
    columns = {**data["columns"], "array.rows": (values * 240)[:240]}
    (rows,) = [
        field for field in fields_of({**data, "columns": columns, "space": {"array.rows": {}}}) if field.name == "array.rows"
    ]
    assert rows.log is log
