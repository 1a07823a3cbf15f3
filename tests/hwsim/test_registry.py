"""Devices by name, file and data, and the errors of a spec."""

from __future__ import annotations

import copy
import re

import pytest
import torch
import yaml

import hwsim
from accelerators.systolic.device import SystolicArray
from hwsim.device import Device
from hwsim.operators import Matmul
from hwsim.registry import device_classes, device_names, get_device, read_spec, spec_file, template
from hwsim.workload import chain
from numerics.errors import InputError

ONE = chain("one", [Matmul(name="mm", m=8, n=8, k=8)])


def raises(text):
    return pytest.raises(InputError, match=f"^{re.escape(text)}$")


def tpu():
    return copy.deepcopy(read_spec(spec_file("tpu_v1")))


def changed(**fields):
    """The TPU's data with dotted fields (``__`` for the dot) set; ``None`` removes one."""
    data = tpu()
    for path, value in fields.items():
        *parents, leaf = path.split("__")
        place = data
        for part in parents:
            place = place[part]
        if value is None:
            del place[leaf]
        else:
            place[leaf] = value
    return data


# --- finding them -------------------------------------------------------------------------------------------


def test_the_bundled_devices_are_those_of_the_package():
    assert {"tpu_v1", "gemmini_16x16", "scale_sim_32x32", "edge_tpu"} <= set(device_names())
    assert device_names() == sorted(device_names())
    assert hwsim.device_names() == device_names()


@pytest.mark.parametrize("name", device_names())
def test_a_bundled_device_is_what_its_file_says(name):
    device = get_device(name)
    assert isinstance(device, Device)
    assert isinstance(device, device_classes()[device.kind])
    assert device.default_fidelity in device.fidelities
    data = read_spec(spec_file(name))
    assert (data["name"], data["kind"]) == (device.name, device.kind) == (name, device.kind)
    assert device.spec.clock_hz == data["clock_hz"]


def test_a_device_comes_by_name_file_data_or_as_given(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(spec_file("tpu_v1").read_text())
    by_name = get_device("tpu_v1")
    assert get_device(path).spec == get_device(str(path)).spec == get_device(tpu()).spec == by_name.spec
    assert get_device(by_name) is by_name


@pytest.mark.parametrize("kind", sorted(device_classes()))
def test_a_template_is_a_spec_to_start_from(tmp_path, kind):
    path = tmp_path / "mine.yaml"
    path.write_text(template(kind))
    assert get_device(path).kind == kind


def test_numbers_read_as_people_write_them(tmp_path):
    path = tmp_path / "n.yaml"
    path.write_text("a: 700e6\nb: 1.5e-9\nc: 3E8\nd: 8_388_608\ne: 34\nf: e6\n")
    assert read_spec(path) == {"a": 7e8, "b": 1.5e-9, "c": 3e8, "d": 8388608, "e": 34, "f": "e6"}


# --- overrides ----------------------------------------------------------------------------------------------


def leaves(data, prefix=""):
    """Dotted path → value of every field."""
    found = {}
    for key, value in data.items():
        found |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


@pytest.mark.parametrize(
    ("field", "value", "path", "expected"),
    [
        ("array.rows", 128, "array.rows", 128),
        ("rows", 128, "array.rows", 128),
        ("dataflow", "os", "array.dataflow", "output_stationary"),
        ("array.timing", "scale_sim", "array.timing.fold_overlap", "none"),
        ("fold_overlap", "weights", "array.timing.fold_overlap", "weights"),
        ("off_chip.bandwidth_bytes_per_s", 1e12, "memory.off_chip.bandwidth_bytes_per_s", 1e12),
        # Left at its default in the file:
        ("achieved_fraction", 0.5, "memory.off_chip.achieved_fraction", 0.5),
        ("memory.weight.capacity_bytes", 1024, "memory.weight.capacity_bytes", 1024),
        ("vector_unit.cycles_per_operation.exp", 9, "vector_unit.cycles_per_operation.exp", 9),
    ],
)
def test_an_override_sets_one_field_and_no_other(field, value, path, expected):
    before = leaves(get_device("tpu_v1").spec.model_dump())
    after = leaves(get_device("tpu_v1", overrides={field: value}).spec.model_dump())
    assert {key: after[key] for key in after if after[key] != before.get(key)} == {path: expected}


def test_an_override_leaves_the_data_given_alone():
    data = tpu()
    get_device(data, overrides={"array.rows": 128, "off_chip.latency_s": 0})
    assert data == tpu()


def test_several_overrides_apply_together():
    spec = get_device("tpu_v1", overrides={"rows": 16, "columns": 32, "clock_hz": 1e9}).spec
    assert (spec.array.rows, spec.array.columns, spec.clock_hz) == (16, 32, 1e9)


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("array.rwos", "device tpu_v1: unknown field 'array.rwos'; did you mean 'array.rows'?"),
        ("clock_mhz", "device tpu_v1: unknown field 'clock_mhz'; did you mean 'clock_hz'?"),
        (
            "capacity_bytes",
            "device tpu_v1: field 'capacity_bytes' is ambiguous: memory.input.capacity_bytes, "
            "memory.weight.capacity_bytes, memory.output.capacity_bytes, "
            "memory.off_chip.capacity_bytes",
        ),
    ],
)
def test_an_unknown_or_ambiguous_field_is_named(field, text):
    with raises(text):
        get_device("tpu_v1", overrides={field: 1})


def test_an_override_is_validated():
    with raises("device tpu_v1: array.rows: input should be greater than or equal to 1 (got -1)"):
        get_device("tpu_v1", overrides={"rows": -1})


# --- errors of a spec ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (changed(clock_hz=None), "tpu_v1: field 'clock_hz' is missing"),
        (changed(memory__off_chip__latency_s=None), "tpu_v1: field 'memory.off_chip.latency_s' is missing"),
        (changed(clock_mhz=700), "tpu_v1: unknown field 'clock_mhz'; did you mean 'clock_hz'?"),
        # Not that clock_hz is missing:
        (changed(clock_hz=None, clock_mhz=700), "tpu_v1: unknown field 'clock_mhz'; did you mean 'clock_hz'?"),
        (changed(array__row=4), "tpu_v1: unknown field 'array.row'; did you mean 'rows'?"),
        (
            changed(memory__weight__capacity_kb=4),
            "tpu_v1: unknown field 'memory.weight.capacity_kb'; did you mean 'capacity_bytes' or 'retained_capacity_bytes'?",
        ),
        (
            changed(clock_hz="700 MHz"),
            "tpu_v1: clock_hz: input should be a valid number, unable to parse string as a number (got '700 MHz')",
        ),
        (changed(clock_hz=-1), "tpu_v1: clock_hz: input should be greater than 0 (got -1)"),
        (changed(clock_hz=float("inf")), "tpu_v1: clock_hz: input should be a finite number (got inf)"),
        (changed(array__rows=0), "tpu_v1: array.rows: input should be greater than or equal to 1 (got 0)"),
        (changed(array__rows=2.5), "tpu_v1: array.rows: input should be a valid integer (got 2.5)"),
        (
            changed(memory__off_chip__energy_pj_per_byte=-1),
            "tpu_v1: memory.off_chip.energy_pj_per_byte: input should be greater than or equal to 0 (got -1)",
        ),
        (
            changed(array__dataflow="row_stationary"),
            "tpu_v1: array.dataflow: input should be 'weight_stationary', 'output_stationary' or "
            "'input_stationary' (got 'row_stationary')",
        ),
        (changed(array__timing="scalesim"), "tpu_v1: array.timing: unknown timing 'scalesim'; known: "),
        (changed(mac_formats={"int9x": {"energy_pj": 1}}), "tpu_v1: "),
        (
            changed(default_formats__weight="bf16", default_formats__activation="bf16"),
            "tpu_v1: spec: default_formats: bf16*bf16 is not among mac_formats (int8, uint8, int8*uint8, int8*int16, int16)",
        ),
        (changed(kind=None), "tpu_v1: field 'kind' is missing (one of "),
        (changed(kind="systolic"), "tpu_v1: kind: unknown name 'systolic'; did you mean 'systolic_array'?"),
    ],
)
def test_a_wrong_spec_is_named_in_one_line(data, text):
    with pytest.raises(InputError, match="^" + re.escape(text)) as error:
        get_device(data)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("- 1\n", "{path}: a device spec must be a mapping that begins with kind:, got list"),
        ("", "{path}: a device spec must be a mapping that begins with kind:, got NoneType"),
        ("kind: [", "{path}: not valid YAML: "),
        (None, "{path}: cannot be read: No such file or directory"),
    ],
)
def test_a_file_that_is_no_spec_is_named(tmp_path, content, text):
    path = tmp_path / "mine.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match="^" + re.escape(text.format(path=path))) as error:
        get_device(path)
    assert "\n" not in str(error.value)


def test_unknown_names_name_the_nearest():
    with raises("device: unknown name 'tpu_v2'; did you mean 'tpu_v4' or 'tpu_v1' or 'tpu_v5e'?; or give a .yaml file"):
        get_device("tpu_v2")
    with raises("device: unknown name 'edge_tpus'; did you mean 'edge_tpu'?"):
        spec_file("edge_tpus")
    with raises("device kind: unknown name 'systolic'; did you mean 'systolic_array'?"):
        template("systolic")


# --- what a device is asked ---------------------------------------------------------------------------------


def test_a_request_is_checked():
    device = get_device("tpu_v1")
    with raises("fidelity (device 'tpu_v1'): unknown name 'tiles'; did you mean 'tile'?"):
        device.simulate(ONE, fidelity="tiles")
    with raises("inputs: fidelity 'tile' computes no values; leave inputs out"):
        device.simulate(ONE, inputs=(torch.ones(1),))
    with raises("parameters: fidelity 'analytic' computes no values; leave parameters out"):
        device.simulate(ONE, fidelity="analytic", parameters={})


def test_simulate_takes_a_module_a_workload_or_a_name():
    layer = torch.nn.Linear(8, 8, bias=False)
    by_module = hwsim.simulate(layer, torch.ones(4, 8), device="gemmini_16x16", fidelity="analytic")
    workload = hwsim.trace(layer, torch.ones(4, 8))
    assert by_module.totals() == get_device("gemmini_16x16").simulate(workload, fidelity="analytic").totals()
    assert hwsim.simulate(workload, device="gemmini_16x16", fidelity="analytic").totals() == by_module.totals()
    by_name = hwsim.simulate("mlp0", device="tpu_v1", fidelity="analytic", overrides={"rows": 128})
    assert by_name.macs == 4_000_000_000
    assert by_name.spec["array"]["rows"] == 128
    with raises("simulate: 'mlp0' brings its own inputs; leave the example inputs out"):
        hwsim.simulate("mlp0", torch.ones(1), device="tpu_v1")


def test_a_recipe_given_to_simulate_is_the_one_reported():
    report = hwsim.simulate(ONE, device="tpu_v1", recipe="int16", fidelity="analytic")
    assert report.recipe == "int16"
    assert report.ops[0].format.startswith("int16")
    with pytest.raises(InputError, match=r"^device 'tpu_v1': no multiply-accumulate for bf16×bf16"):
        hwsim.simulate(ONE, device="tpu_v1", recipe="bf16")


def test_the_spec_of_a_report_is_the_whole_spec():
    report = hwsim.simulate(ONE, device="tpu_v1", fidelity="analytic")
    assert SystolicArray.from_data(report.spec, source="report").spec == get_device("tpu_v1").spec
    assert yaml.safe_load(yaml.safe_dump(report.spec)) == report.spec
