"""The scoreboard: data, points, fits and scores."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from hwsim.cli import main
from hwsim.registry import device_classes, get_device, read_spec, spec_file
from hwsim.scoreboard import Errors, load_target, read_measurements, score_points, score_target, single_operator, target_files
from hwsim.scoreboard import target as target_module
from hwsim.scoreboard.calibration import calibrate
from hwsim.scoreboard.fitting import FieldFit
from hwsim.scoreboard.measurements import measurements_text
from hwsim.scoreboard.points import predict, target_points
from hwsim.scoreboard.single import OPERATOR_SIZES
from hwsim.scoreboard.target import Goal, read_rows
from numerics import InputError

# --- data and points ------------------------------------------------------------------------------------------------------


def test_every_target_loads_and_its_data_names_a_source():
    for name in target_files():
        target = load_target(name)
        text = (target_module._folder("measured") / target.data).read_text()
        assert text.startswith("#")
        assert "Source" in text
        points = target_points(target)
        assert len(points) >= 1
        for figure in target.figures:
            assert all(math.isfinite(point.measured[figure.name]) for point in points)
            if figure.fit:
                fit = device_classes()[read_spec(spec_file(target.device))["kind"]].fittable[figure.fit]
                fitted = get_device(target.device).spec.calibrated[figure.fit]
                assert set(fitted.values) <= set(fit.ranges)
                for field, value in fitted.values.items():
                    low, high = fit.ranges[field]
                    assert low <= value <= high, (name, field)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a line of column names and rows of values"),
        ("a,b\n", "expected a line of column names and rows of values"),
        ("a,b\n1\n", "data row 1: expected 2 values, got 1"),
        ("a,a\n1,2\n", "column 'a' is given twice"),
    ],
)
def test_a_bad_data_file_is_one_line(tmp_path, text, message):
    file = tmp_path / "x.csv"
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        read_rows(file)


def test_rows_are_read_either_way_round(tmp_path):
    file = tmp_path / "x.csv"
    file.write_text("# source\nfigure, one, two\n time , 3, 4 \nother,5,6\n\n")
    assert read_rows(file) == [{"figure": "time", "one": "3", "two": "4"}, {"figure": "other", "one": "5", "two": "6"}]
    assert read_rows(file, transposed=True) == [
        {"figure": "one", "time": "3", "other": "5"},
        {"figure": "two", "time": "4", "other": "6"},
    ]


def test_single_operators_do_the_work_that_their_sizes_say():
    assert single_operator("matmul", {"m": 3, "n": 4, "k": 5, "batch": 2}).macs == 120
    conv = {"batch": 2, "in_channels": 4, "out_channels": 6, "height": 9, "width": 7, "kernel": 3, "stride": 2, "groups": 2}
    assert single_operator("convolution", conv).macs == 2 * 6 * 4 * 3 * 2 * 9
    attention = {"batch": 2, "heads": 4, "kv_heads": 2, "query_length": 8, "key_length": 16, "head_dim": 32}
    made = single_operator("attention", attention)
    assert made.macs == 2 * 4 * 8 * 16 * 64
    assert made.tensors["operand1"].shape == (2, 2, 16, 32)
    for name, (needed, _) in OPERATOR_SIZES.items():
        made = single_operator(name, dict.fromkeys(needed, 4))
        made.check_operands()
        assert made.ops[0].elements_out == made.tensors["result"].elements, name


@pytest.mark.parametrize(
    ("operator", "sizes", "message"),
    [
        ("matmull", {}, "operator: unknown name 'matmull'; did you mean 'matmul'"),
        ("matmul", {"m": 1, "n": 1}, "matmul: size 'k' is missing"),
        ("matmul", {"m": 1, "n": 1, "k": 0}, r"matmul: k: expected an integer from 1 to 2\^40, got 0"),
        ("matmul", {"m": 1, "n": 1, "k": 1, "q": 2}, "matmul: size: unknown name 'q'"),
        ("convolution", dict.fromkeys(OPERATOR_SIZES["convolution"][0], 2) | {"kernel": 5}, "kernel 5 does not fit 2×2"),
        ("convolution", dict.fromkeys(OPERATOR_SIZES["convolution"][0], 2) | {"groups": 3}, "multiple of groups"),
    ],
)
def test_a_bad_operator_is_one_line(operator, sizes, message):
    with pytest.raises(InputError, match=message):
        single_operator(operator, sizes)


# --- a user's measurements ------------------------------------------------------------------------------------------------


def own_file(tmp_path, factor=1.1, unit="time_us"):
    """Times of tpu_v1's own model, longer by ``factor``."""
    rows = []
    scale = {"time_us": 1e6, "time_ms": 1e3, "time_s": 1}[unit]
    for sizes in ({"m": 100, "n": 300, "k": 200}, {"m": 1, "n": 2048, "k": 2048}):
        time_s = get_device("tpu_v1").simulate(single_operator("matmul", sizes)).time_s
        rows.append({"operator": "matmul", **sizes, "formats": "", unit: factor * time_s * scale})
    time_s = get_device("tpu_v1").simulate(single_operator("softmax", {"m": 64, "n": 512})).time_s
    rows.append({"operator": "softmax", "m": 64, "n": 512, unit: factor * time_s * scale})
    file = tmp_path / "mine.csv"
    file.write_text(measurements_text(rows, ["made by the test"]))
    return file


@pytest.mark.parametrize("unit", ["time_us", "time_ms", "time_s"])
def test_errors_of_own_measurements_are_what_they_must_be(tmp_path, unit):
    points = read_measurements(own_file(tmp_path, 1.25, unit))
    scores = score_points("mine", points, "tpu_v1")
    assert [score.subset for score in scores] == ["", "matmul", "softmax"]
    for score in scores:
        assert score.errors.mean == pytest.approx(20)
        assert score.errors.worst == pytest.approx(20)
        assert score.errors.bias == pytest.approx(-20)
        assert score.origin == "predicted"
        assert score.met is None


def test_errors_by_hand():
    errors = Errors.of(np.array([11.0, 9.0, 30.0]), np.array([10.0, 10.0, 20.0]))
    assert (errors.mean, errors.worst, errors.bias) == pytest.approx((70 / 3, 50, 50 / 3))
    points = Errors.of(np.array([11.0, 9.0, 30.0]), np.array([10.0, 10.0, 20.0]), "points")
    assert (points.mean, points.worst, points.bias) == pytest.approx((4, 10, 10 / 3))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("m,n,k,time_us\n1,1,1,1\n", "column 'operator' is missing"),
        ("operator,m,n,k\nmatmul,1,1,1\n", "expected one of the columns time_s, time_ms, time_us, got none"),
        ("operator,m,n,k,time_s,time_us\nmatmul,1,1,1,1,1\n", "got time_s, time_us"),
        ("operator,m,n,k,time_us\nmatmul,1,1,1,0\n", "data row 1: column 'time_us': expected a time above 0"),
        ("operator,m,n,k,time_us\nmatmul,1,1,1.5,1\n", "data row 1: column 'k': expected a whole number, got '1.5'"),
        ("operator,m,n,k,time_us\nmatmul,1,1,x,1\n", "data row 1: column 'k': expected a number, got 'x'"),
        ("operator,m,n,k,time_us\nmatmul,1,1,,1\n", "data row 1: matmul: size 'k' is missing"),
        ("operator,m,n,k,formats,time_us\nmatmul,1,1,1,fp17,1\n", "data row 1: .*'fp17'"),
        ("operator,m,n,k,time_us\nconv,1,1,1,1\n", "data row 1: operator: unknown name 'conv'"),
    ],
)
def test_bad_measurements_are_one_line(tmp_path, capsys, text, message):
    file = tmp_path / "mine.csv"
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        read_measurements(file)
    assert main(["validate", "--csv", str(file), "--device", "tpu_v1"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


# --- the search -----------------------------------------------------------------------------------------------------------

TRUE = {"slope": 3e-4, "floor": 0.02}
RANGES = {"slope": (1e-5, 1e-2), "floor": (0.0, 0.1)}
X = np.geomspace(1, 1000, 24)


def kernel(values):
    slope, floor = values
    return np.maximum(floor, slope * X) + 0.001


def test_the_search_finds_the_values_that_made_the_data():
    found = dict(zip(RANGES, FieldFit(RANGES, kernel, kernel(tuple(TRUE.values()))).fit(), strict=True))
    assert found == pytest.approx(TRUE, rel=1e-3)


def test_a_point_is_never_scored_with_itself():
    """A point that is off by far changes the values fitted to the others, but not what is predicted for itself."""
    measured = kernel(tuple(TRUE.values()))
    clean = FieldFit(RANGES, kernel, measured).cross_validated("leave_one_out")
    np.testing.assert_allclose(clean, measured, rtol=1e-3)
    spoilt = measured.copy()
    spoilt[5] *= 40
    scored = FieldFit(RANGES, kernel, spoilt).cross_validated("leave_one_out")
    assert scored[5] == clean[5]


def test_folds_partition_the_points():
    measured = kernel(tuple(TRUE.values()))
    seen = []

    class Recording(FieldFit):
        def fit(self, chosen=None):
            seen.append(set(chosen))
            return tuple(TRUE.values())

    Recording(RANGES, kernel, measured).cross_validated(5)
    left_out = [set(range(24)) - part for part in seen]
    assert len(left_out) == 5
    assert sorted(i for part in left_out for i in part) == list(range(24))
    assert {len(part) for part in left_out} == {4, 5}


def test_too_few_points_are_refused():
    with pytest.raises(InputError, match="2 points in 2 folds cannot hold 2 fitted fields"):
        FieldFit(RANGES, lambda v: kernel(v)[:2], kernel(tuple(TRUE.values()))[:2]).cross_validated("leave_one_out")


# --- scores of the bundled targets ---------------------------------------------------------------------------------------


def test_matmuls_at_once_are_those_one_by_one():
    for name in target_files():
        target = load_target(name)
        if target.points.operator != "matmul":
            continue
        points = target_points(target)[::17]
        data = read_spec(spec_file(target.device))
        one_by_one = [get_device(data).simulate(point.workload).time_s for point in points]
        assert predict(data, points, "time_s").tolist() == one_by_one


def test_a_goal_counts_mean_and_worst():
    score = score_target("nvdla_resnet50")[0]
    for goal, met in (
        (Goal(), None),
        (Goal(mean=score.errors.mean), True),
        (Goal(mean=score.errors.mean - 1e-9), False),
        (Goal(mean=score.errors.mean, worst=score.errors.worst - 1e-9), False),
    ):
        from dataclasses import replace

        assert replace(score, goal=goal).met is met


def test_a_target_is_not_found(capsys):
    assert main(["validate", "a100_matmull"]) == 2
    assert "did you mean 'a100_matmul'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--csv", "x.csv"], "--csv: needs --device"),
        (["--device", "tpu_v1"], "--device: a target names its own device"),
        (["nvdla_resnet50", "--csv", "x.csv", "--device", "tpu_v1"], "leave the targets out"),
        (["--csv", "x.csv", "--trace", "y.json", "--device", "tpu_v1"], "give either --csv or --trace"),
        (["--csv", "x.csv", "--device", "tpu_v1"], "x.csv: cannot be read"),
    ],
)
def test_bad_words_are_one_line(capsys, words, message):
    assert main(["validate", *words]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_strict_is_an_exit_code_and_json_a_list(monkeypatch, capsys, tmp_path):
    text = target_files()["nvdla_resnet50"].read_text()
    missed = tmp_path / "nvdla_resnet50.yaml"
    missed.write_text(text.replace("goal: {mean: 6", "goal: {mean: 0.0001"))
    assert missed.read_text() != text
    words = ["validate", "nvdla_resnet50", "--json", "--out", str(tmp_path / "out")]
    monkeypatch.setattr(target_module, "target_files", lambda: {"nvdla_resnet50": missed})
    assert main([*words, "--strict"]) == 1
    data = json.loads(capsys.readouterr().out)
    assert [entry["goal_met"] for entry in data["targets"]] == [False]
    assert main(words) == 0
    assert json.loads((tmp_path / "out" / "scoreboard.json").read_text())["targets"][0]["points"] == data["targets"][0]["points"]
    assert (tmp_path / "out" / "scoreboard.png").stat().st_size > 10_000


# --- calibrating ----------------------------------------------------------------------------------------------------------


def test_calibrating_finds_the_fields_that_made_the_data(tmp_path, capsys):
    """Data made by a copy of a device with other values: they are found again, written, and the file they are written to
    predicts the data."""
    fit = device_classes()["tensor_engine"].fittable["matmul"]
    data = read_spec(spec_file("t4"))
    wanted = {name: (low * high) ** 0.5 if low > 0 else (low + high) / 2 for name, (low, high) in fit.ranges.items()}
    made = get_device({**data, "calibrated": {"matmul": {"data": "test", "values": wanted}}})
    rng = np.random.default_rng(1)
    rows = []
    for m, n, k in (2 ** rng.uniform(4, 13, (60, 3))).astype(int).tolist():
        time_s = float(made.matmul_time_s(m, n, k))
        rows.append({"operator": "matmul", "m": m, "n": n, "k": k, "time_s": repr(time_s)})
    file = tmp_path / "mine.csv"
    file.write_text(measurements_text(rows, ["made by the test"]))
    fits, skipped, fitted = calibrate(data, read_measurements(file), source="mine.csv")
    assert [f.name for f in fits] == ["matmul"]
    assert not skipped
    assert fits[0].after.mean < 1
    assert fits[0].after.mean < fits[0].before.mean
    assert fits[0].cross_validated.mean < 2
    out = tmp_path / "t4_mine.yaml"
    assert main(["calibrate", "t4", str(file), "--out", str(out)]) == 0
    assert "cross-validated" in capsys.readouterr().out
    written = read_spec(out)
    assert written["calibrated"] == fitted["calibrated"]
    assert {**written, "calibrated": {}} == {**data, "calibrated": {}}
    score = score_points("mine", read_measurements(file), str(out))[0]
    assert score.origin == "calibrated"
    assert score.errors.mean == pytest.approx(fits[0].after.mean, abs=1e-6)


def test_a_device_without_fits_says_so(tmp_path):
    points = read_measurements(own_file(tmp_path))
    with pytest.raises(InputError, match="the measurements bear on none of its fits"):
        calibrate(read_spec(spec_file("scale_sim_32x32")) | {"calibrated": {}}, points[2:], source="x")


# --- fitted values in a spec ----------------------------------------------------------------------------------------------


def test_fitted_values_replace_and_can_be_deleted_and_overridden():
    data = read_spec(spec_file("tpu_v1"))
    data["calibrated"] = {"bandwidth": {"data": "none", "values": {"memory.off_chip.achieved_fraction": 0.5}}}
    device = get_device(data)
    assert device.spec.memory.off_chip.achieved_fraction == 0.5
    assert device.simulate(single_operator("matmul", {"m": 8, "n": 8, "k": 8})).origin["time"] == "calibrated"
    assert get_device(data, calibrated=False).spec.memory.off_chip.achieved_fraction == 1
    other = get_device(data, overrides={"achieved_fraction": 0.7})
    assert other.spec.memory.off_chip.achieved_fraction == 0.7
    assert other.spec.fitted_fields == ()
    assert get_device(device, overrides={"memory.off_chip.achieved_fraction": 0.7}).spec.fitted_fields == ()
    assert get_device(device, overrides={"array.rows": 128}).spec.memory.off_chip.achieved_fraction == 0.5
    with pytest.raises(InputError, match="give its name or file"):
        get_device(device, calibrated=False)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"a": {"data": "x", "values": {"memory.off_chip.speed": 1}}}, "unknown field 'memory.off_chip.speed'"),
        ({"a": {"data": "x", "values": {}}}, "calibrated.a.values"),
        ({"a": {"values": {"clock_hz": 1e9}}}, "field 'calibrated.a.data' is missing"),
        (
            {"a": {"data": "x", "values": {"clock_hz": 1e9}}, "b": {"data": "x", "values": {"clock_hz": 2e9}}},
            r"calibrated.b.values: field 'clock_hz' is fitted already \(by 'a'\)",
        ),
        ({"a": {"data": "x", "values": {"memory.off_chip.achieved_fraction": 2}}}, "achieved_fraction: input should be less"),
    ],
)
def test_bad_fitted_values_are_one_line(section, message):
    data = read_spec(spec_file("tpu_v1")) | {"calibrated": section}
    with pytest.raises(InputError, match=message) as caught:
        get_device(data)
    assert "\n" not in str(caught.value)


# --- extreme input --------------------------------------------------------------------------------------------------------


def test_an_endless_cell_is_one_line(tmp_path):
    file = tmp_path / "x.csv"
    file.write_text("# source\na,b\n1," + "9" * 131_073 + "\n")
    with pytest.raises(InputError, match=r"x\.csv: line 2 \(comments left out\): not valid CSV: field larger than") as caught:
        read_rows(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("operator", "sizes", "message"),
    [
        ("matmul", {"m": 2**40 + 1, "n": 1, "k": 1}, r"matmul: m: expected an integer from 1 to 2\^40, got 1099511627777"),
        ("matmul", {"m": 10**400, "n": 1, "k": 1}, r"matmul: m: expected an integer from 1 to 2\^40, got 1000"),
        (
            "matmul",
            {"m": 2**30, "n": 2**30, "k": 1},
            r"sizes m 1073741824, n 1073741824, k 1: expected at most 2\^56 MACs, got 1.15e",
        ),
        ("softmax", {"m": 2**40, "n": 2**40}, r"softmax: sizes .*: expected at most 2\^56 elements of a tensor, got 1.21e"),
        ("relu", {"n": 0}, r"relu: n: expected an integer from 1 to 2\^40, got 0"),
        ("relu", {"n": True}, r"relu: n: expected an integer from 1 to 2\^40, got True"),
        ("attention", {"causal": 2}, "attention: causal: expected 0 or 1, got 2"),
        ("attention", {"causal": -1}, "attention: causal: expected 0 or 1, got -1"),
        ("attention", {"kv_heads": -1}, r"attention: kv_heads: expected an integer from 0 to 2\^40, got -1"),
    ],
)
def test_sizes_out_of_range_are_one_line(operator, sizes, message):
    sizes = dict.fromkeys(OPERATOR_SIZES[operator][0], 1) | sizes
    with pytest.raises(InputError, match=message) as caught:
        single_operator(operator, sizes)
    assert len(str(caught.value)) < 200


def test_the_largest_size_is_taken():
    assert single_operator("matmul", {"m": 2**40, "n": 1, "k": 1}).macs == 2**40
    attention = dict.fromkeys(OPERATOR_SIZES["attention"][0], 1)
    assert [single_operator("attention", {**attention, "causal": flag}).ops[0].causal for flag in (0, 1)] == [False, True]


@pytest.mark.parametrize("formats", ["fp16*", "*fp16", "*"])
def test_half_a_pair_of_formats_is_one_line(tmp_path, formats):
    file = tmp_path / "x.csv"
    file.write_text(f"operator,m,n,k,formats,time_us\nmatmul,8,8,8,{formats},1\n")
    with pytest.raises(InputError, match=r"x\.csv: data row 1: column 'formats': expected formats on both sides") as caught:
        read_measurements(file)
    assert repr(formats) in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--list", "tpu_v1"], "--list: lists every target; leave 'tpu_v1' out"),
        (["--list", "--strict"], "--list: scores nothing; leave --strict out"),
        (["--list", "--csv", "x.csv"], "--list: scores nothing; leave --csv out"),
        (["--list", "--trace", "x.json", "--device", "tpu_v1"], "--list: scores nothing; leave --trace out"),
        (["--list", "--device", "tpu_v1"], "--list: scores nothing; leave --device out"),
        (["--list", "--json"], "--list: scores nothing; leave --json out"),
        (["--list", "--markdown"], "--list: scores nothing; leave --markdown out"),
        (["--list", "--out", "x"], "--list: scores nothing; leave --out out"),
        (["--json", "--markdown"], "--json: give either --json or --markdown, not both"),
    ],
)
def test_options_that_contradict_are_one_line(capsys, options, message):
    assert main(["validate", *options]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""


@pytest.mark.parametrize("cycles", [2**20 + 1, 10**15])
def test_an_endless_mac_is_one_line(cycles):
    data = read_spec(spec_file("eyeriss"))
    data["mac_formats"] = {"int16": {"cycles_per_mac": cycles, "energy_pj": 1.5}}
    with pytest.raises(InputError, match=r"mac_formats\.int16\.cycles_per_mac: expected at most 1048576, got 10") as caught:
        get_device(data)
    assert "\n" not in str(caught.value)
    data["mac_formats"]["int16"]["cycles_per_mac"] = 2**20
    assert get_device(data).simulate(single_operator("matmul", {"m": 64, "n": 64, "k": 64})).time_s > 0


def test_the_three_errors_of_a_fitted_figure_are_of_three_predictions():
    """As shipped, without the fit, and cross-validated: each by its own route."""
    target = load_target("a100_gelu")
    score = score_target(target)[0]
    points = target_points(target)
    measured = np.array([point.measured["throughput"] for point in points])
    data = read_spec(spec_file("a100"))
    shipped = predict(data, points, "elements_per_s")
    bare = np.array([hwsim_figure(get_device("a100", calibrated=False), point) for point in points])
    assert score.shipped == Errors.of(shipped, measured)
    assert score.uncalibrated == Errors.of(bare, measured)
    assert score.uncalibrated.mean > 10 * score.shipped.mean
    assert score.errors != score.shipped
    left_out = score_without(data, points, measured, 3)
    assert score.modelled[3] == left_out


def hwsim_figure(device, point):
    return point.workload.ops[0].elements_out / device.simulate(point.workload).time_s


def score_without(data, points, measured, index):
    """The point as predicted with the fields fitted to the others alone."""
    from hwsim.scoreboard.scores import field_fit

    target = load_target("a100_gelu")
    others = [point for i, point in enumerate(points) if i != index]
    values = field_fit(data, "gelu", others, target.figures[0]).fit()
    names = list(device_classes()["tensor_engine"].fittable["gelu"].ranges)
    section = {**data["calibrated"], "gelu": {"data": "others", "values": dict(zip(names, values, strict=True))}}
    return hwsim_figure(get_device({**data, "calibrated": section}), points[index])
