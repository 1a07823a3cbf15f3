"""What the mutants of ``test_fuzzing.py`` have found, each as the smallest case that showed it."""

from __future__ import annotations

import io
import json
import math
import re

import numpy as np
import onnx
import pytest
import torch
from fuzz_binaries import _nir_seeds, _store_seeds
from fuzz_files import _traces, small, spikes
from fuzz_onnx import onnx_seeds
from onnx import TensorProto, helper
from test_liberty import TEXT
from torch import nn

from hwsim.api import load_workload, workload_from
from hwsim.cli import main
from hwsim.commands.faults import read_data
from hwsim.jobs import JobStore
from hwsim.measuring.cpu import CpuBackend
from hwsim.measuring.session import Session
from hwsim.operators import Matmul, SpikingLayer
from hwsim.registry import get_device, read_spec, spec_file
from hwsim.report import Report
from hwsim.scoreboard.points import target_points
from hwsim.scoreboard.target import Target, target_files
from hwsim.spec import validate_spec
from hwsim.tracing.profiler import load_profile
from hwsim.workload import Tensor, Workload, chain
from hwsim.zoo.checkpoint import load as load_checkpoint
from neuromorphic import Events
from numerics.documents import DEEPEST, read_arrays, read_json, read_text, read_yaml
from numerics.emulation import emulate
from numerics.errors import LONGEST, InputError
from numerics.recipes import Recipe, get_recipe
from numerics.scaling import Scaling
from rtl.synthesis.liberty import parse_function, parse_library


def refused(text):
    return pytest.raises(InputError, match=re.escape(text))


# --- errors ---------------------------------------------------------------------------------------------------------------


def test_an_error_is_one_line_of_so_many_characters():
    long = str(InputError("field: expected a number, got " + "9" * 10_000 + "; known: a, b"))
    assert len(long) == LONGEST
    assert long.startswith("field: expected a number, got 999")
    assert long.endswith("; known: a, b")
    assert str(InputError("one\r\n\ttwo\x1b[31m\x00")) == "one two\\x1b[31m\\x00"
    assert str(InputError("≥ 1, “quoted”")) == "≥ 1, “quoted”"


def test_a_long_or_broken_word_on_the_command_line_is_one_line(capsys):
    for words in (["run", "mlp0", "--device", "cpu", "--dt", "a" * 3000], ["run", "mlp0", "--device=x\ny"], ["a\x1b[31m\nb"]):
        assert main(words) == 2
        told = capsys.readouterr().err
        assert told.count("\n") == 1
        assert told[:-1].isprintable()
        assert len(told) < LONGEST + 40


def test_an_option_that_is_given_two_dashes(capsys):
    assert main(["run", "mlp0", "--device=--"]) == 2
    assert capsys.readouterr().err == "hwsim run: error: argument --device: expected one argument, got '--'\n"


# --- YAML and JSON --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [DEEPEST + 1, 5000, 200_000])
def test_deep_nesting_is_refused_before_it_ends_the_process(depth):
    closed = "[" * depth + "]" * depth
    for read, text in ((read_yaml, "a: " + "[" * depth), (read_yaml, closed), (read_json, closed)):
        with pytest.raises(InputError, match="inside one another"):
            read(text)


def test_nesting_that_people_write_is_read():
    tree = json.loads("[" * DEEPEST + "]" * DEEPEST)
    assert read_json(json.dumps(tree)) == read_yaml(json.dumps(tree)) == tree


def test_a_field_given_twice_is_refused_in_json_and_in_recipes(tmp_path):
    with refused("the field 'a' is given twice"):
        read_json('{"a": 1, "b": {"a": 2}, "a": 3}')
    for suffix, text in ((".yaml", "name: x\nformats: {weight: int8, weight: int4}\n"), (".json", '{"name": 1, "name": 2}')):
        (tmp_path / f"r{suffix}").write_text(text)
        with refused("is given twice"):
            get_recipe(tmp_path / f"r{suffix}")
    work = small().to_json()
    with refused("the field 'name' is given twice"):
        Workload.from_json(work.replace('"name"', '"name": "other", "name"', 1))


@pytest.mark.parametrize(
    "text", ["{a: " + "9" * 5000 + "}", "? [a]\n: 1", "a: 2001-99-99", "a: !!int x", "a: &a [*a]", "a: !!python/object:os.x"]
)
def test_yaml_that_no_reader_takes_is_one_line(text):
    with refused("not valid YAML: "):
        read_yaml(text)


def test_references_that_repeat_without_end_are_refused():
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    with refused("those that references repeat counted each time"):
        read_yaml("\n".join(lines))


def test_a_long_row_of_digits_is_read_at_once():
    assert read_yaml("a: x" + "9" * 200_000)["a"].startswith("x9")
    with refused("not valid YAML"):
        read_yaml("a: " + "9" * 200_000)
    assert read_yaml("a: [1e3, 1.5E-3, .5e1, 2.e2, -7e8]") == {"a": [1e3, 1.5e-3, 5.0, 200.0, -7e8]}


def test_json_without_numbers_or_with_half_characters_is_refused():
    for text in ('{"a": NaN}', '{"a": -Infinity}', '{"a": "\\ud800"}'):
        with refused("not valid JSON: "):
            read_json(text)


def test_a_byte_order_mark_changes_nothing(tmp_path):
    path = tmp_path / "w.json"
    path.write_text(small().to_json(), encoding="utf-8-sig")
    assert load_workload(path) == small()
    with refused("cannot be read"):
        read_text("a\0b")


# --- specs ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "field", "value", "text"),
    [
        ("mcu_stm32f746", "arithmetic.int8.cycles_per_operation.add", True, "input should be a number"),
        ("tpu_v1", "vector_unit.cycles_per_operation.exp", True, "input should be a number"),
        ("a100", "sparsity.rate", math.inf, "finite number"),
        ("loihi", "neurons_per_core", 10**25, "less than or equal to"),
        ("truenorth", "synapses.weights_per_neuron", 2**31, "less than or equal to 4096"),
        ("loihi", "chips.rows", 10**6, "at most 2^20 places of cores in all"),
        ("bnn_mac", "integer_macs", 10**400, "less than or equal to"),
        ("tpe_cube_mac", "buffer.banks", 10**400, "less than or equal to"),
    ],
)
def test_a_number_that_is_none_or_beyond_any_machine(device, field, value, text):
    with refused(text):
        get_device(device, overrides={field: value})


def test_what_fitted_values_replace_is_looked_at_as_well(tmp_path):
    data = spec_file("cpu").read_text()
    assert re.search(r"direct_efficiency: [0-9.]+", data)
    path = tmp_path / "mine.yaml"
    path.write_text(re.sub(r"direct_efficiency: [0-9.]+", "direct_efficiency: true", data, count=1))
    with refused("direct_efficiency"):
        get_device(path)


# --- recipes --------------------------------------------------------------------------------------------------------------


def test_a_group_larger_than_the_tensor_is_the_tensor():
    module, x = nn.Linear(8, 4), torch.randn(3, 8)
    base = {"weight": "int8_symmetric", "activation": "int8_symmetric"}
    for granularity, whole, beyond in (("group", 8, 10**25), ("tile", (3, 8), (10**25, 10**25))):
        a, b = (Recipe("r", base, scaling={"activation": Scaling(granularity, given)}) for given in (whole, beyond))
        assert torch.equal(emulate(module, a)(x), emulate(module, b)(x))


@pytest.mark.parametrize("field", [{"rounding": {"weight": {}}}, {"gradient_estimator": []}])
def test_a_mode_that_is_no_name(field):
    with refused("unknown name"):
        Recipe.from_dict({"name": "r", "formats": {"weight": "int8", "activation": "int8"}, **field})


# --- workloads ------------------------------------------------------------------------------------------------------------


def changed(place, value, workload=None):
    data = json.loads((workload or small()).to_json())
    at = data
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = value
    return json.dumps(data)


@pytest.mark.parametrize(
    ("place", "value", "text"),
    [
        (("outputs", 0), {}, "must be a list of tensor names"),
        (("inputs", 0), ["x"], "must be a list of tensor names"),
        (("ops", 0, "kind"), ["matmul"], "op: kind: unknown name"),
        (("tensors", 0, "shape"), [10**25], "2^56 elements"),
        (("tensors", 0, "shape"), [1] * 100, "64 dimensions"),
    ],
)
def test_a_workload_of_other_types_or_sizes(place, value, text):
    with refused(text):
        Workload.from_json(changed(place, value))


def test_work_beyond_what_64_bits_count_is_refused_and_not_a_negative_amount():
    with refused("m must be at most 2^56"):
        Matmul(name="x", m=10**30, n=1, k=1)
    with refused("event_rate must be a number up to 2^56"):
        SpikingLayer(name="x", neurons=1, sources=1, fan_out=1, time_steps=1, event_rate=10**400)
    large = chain("large", [Matmul(name="x", m=2**20, n=2**20, k=2**20)])
    with refused("expected at most 2^56 MACs and operations"):
        get_device("h100").simulate(large)
    tensors = {f"t{i}": Tensor(f"t{i}", (2**56,), "fp64") for i in range(3)}
    with refused("expected at most 2^60 bytes in all tensors"):
        Workload("many", (), tensors).check_operands()


def test_sizes_that_are_no_numbers():
    with refused("batch: expected an integer ≥ 1, got 'two'"):
        workload_from("mlp0", batch="two")


def test_a_spiking_workload_comes_back_from_its_file():
    assert Workload.from_json(spikes().to_json()).to_json() == spikes().to_json()


# --- reports --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "value", "text"),
    [
        (("colour",), 1, "field: unknown name 'colour'"),
        (("ops", 0, "colour"), 1, "ops[0].field: unknown name 'colour'"),
        (("clock_hz",), 7, "its time in cycles of the clock"),
        (("clock_hz",), "fast", "clock_hz: expected a finite number, got 'fast'"),
        (("clock_hz",), 10**400, "clock_hz: expected a finite number"),
        (("ops", 0, "macs"), True, "ops[0].macs: expected a whole number from 0 to 2^64, got True"),
        (("ops", 0, "time_s"), -1.0, "ops[0].time_s: expected a number ≥ 0"),
        (("ops", 0, "energy_j"), 1.0, "as its parts say"),
        (("ops", 0, "bytes_offchip"), 1, "as its parts say"),
        (("ops", 0, "utilization"), 2.0, "at most 1"),
        (("totals", "energy_j"), 1.0, "totals.energy_j: expected"),
        (("origin", "time"), "guessed", "origin.time: expected 'calibrated' or 'predicted'"),
        (("tables",), [], "tables: expected a mapping of names"),
        (("notes",), "x", "notes: expected a list"),
    ],
)
def test_a_report_that_was_changed(place, value, text):
    report = get_device("tpu_v1").simulate(small())
    assert Report.from_json(report.to_json()) == report
    data = json.loads(report.to_json())
    at = data
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = value
    with refused(text):
        Report.from_json(json.dumps(data), source="r.json")


def test_work_in_no_time_divides_nothing():
    report = get_device("truenorth").simulate(spikes())
    assert 0 <= report.utilization <= 1


# --- tables ---------------------------------------------------------------------------------------------------------------


def test_events_far_off_or_of_no_time(tmp_path):
    path = tmp_path / "e.csv"
    path.write_text("step,neuron\n99999999999,1\n")
    with refused("line 2: step: expected one of the first 2^27 steps, got 99999999999"):
        Events.load(path, size=4)
    with refused("steps: expected at most 2^27"):
        Events.from_list([], [], steps=10**12, size=4)
    for time in ("inf", "1e400", "nan"):
        path.write_text(f"time_s,address\n{time},1\n")
        with refused("line 2: time_s: expected a time ≥ 0"):
            Events.load(path, size=4, dt_s=1e-3)
    path.write_text("step,neuron\n0,inf\n")
    with refused("line 2: neuron: expected a whole number from 0 to 3, got inf"):
        Events.load(path, size=4)


def test_blank_lines_of_an_event_file_hold_nothing(tmp_path):
    path = tmp_path / "e.csv"
    path.write_text("step,neuron\n0,1\n  \n3,2\n \n")
    assert Events.load(path, size=4) == Events.from_list([0, 3], [1, 2], steps=4, size=4)
    path.write_text("step,neuron\n0,1\n  \n3,9\n")
    with refused("line 4: neuron"):
        Events.load(path, size=4)


@pytest.mark.parametrize("name", ["size", "first", "neuron"])
def test_stored_events_that_are_no_whole_numbers(name, tmp_path):
    arrays = {"size": np.array([6.0]), "first": np.array([0.0, 1, 2]), "neuron": np.array([1.0, 2])}
    arrays[name][-1] = np.nan
    np.savez(tmp_path / "e.npz", **arrays)
    with refused(f"{name}: expected a whole number ≥ 0, got nan"):
        Events.load(tmp_path / "e.npz")


def test_a_file_of_measurements_to_go_on_with(tmp_path):
    backend, path = CpuBackend(1), tmp_path / "m.csv"
    begin = "".join(f"# {name}: {text}\n" for name, text in Session(backend, path).comments.items())
    for row, text in (("matmul,1,x,64,64,fp32,1e-3", "expected a number, got 'x'"), ("nothing,1,1,1,1,fp32,1e-3", "unknown name"),
                      ("matmul,1,64,64,64,fp32,-1", "expected a time above 0")):  # fmt: skip
        path.write_text(f"{begin}operator,batch,m,n,k,formats,time_s\n{row}\n")
        with refused(text):
            Session(backend, path, resume=True)
    path.write_text(f"{begin}operator,batch,m,n,k,formats,time_s\nmatmul,1,64,64,64,fp32,1e-3\n")
    assert len(Session(backend, path, resume=True).known) == 1


def test_a_target_of_another_column_or_size():
    data = read_spec(target_files()["eyeriss_alexnet"])
    data["points"]["label"] = "nothing"
    with refused("has no column 'nothing'"):
        target_points(validate_spec(Target, data, source="t"))


# --- cells ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ('"1, 2, 3", \\', '"1, x, 3", \\', "values: expected a number, got 'x'"),
        ('"1, 2, 3", \\', '"1, 2", \\', "values: expected rows of one length"),
        ('index_1 ("10, 30")', 'index_1 ("10, 30, 50")', "values: expected a row for each of 3 loads"),
        ("capacitive_load_unit (1, ff)", "capacitive_load_unit (1)", "capacitive_load_unit: expected a number and a unit"),
        ("capacitance : 4", "capacitance : nan", "capacitance: expected a number, got 'nan'"),
        ("ff (IQ, IQN)", "ff (IQ)", "ff: expected the names of two states"),
        ("cell (NOR)", "cell ()", "a cell has no name"),
    ],
)
def test_a_library_that_is_not_whole(old, new, text):
    assert old in TEXT
    with refused(text):
        parse_library(TEXT.replace(old, new, 1))


def test_expressions_and_groups_without_end():
    with refused("too many brackets"):
        parse_function("(" * 5000 + "A" + ")" * 5000)
    with refused("fewer groups inside one another"):
        parse_library("library (x) { " + "a () { " * 5000)


# --- ONNX -----------------------------------------------------------------------------------------------------------------


def test_initializers_whose_values_do_not_fill_their_shape(tmp_path):
    path = tmp_path / "m.onnx"
    for change, text in (
        (lambda t: t.dims.append(2**31 - 1), "for the sizes"), (lambda t: t.dims.append(-1), "expected sizes ≥ 0"),
        (lambda t: setattr(t, "data_type", 2**31 - 1), "expected an element type of ONNX"),
    ):  # fmt: skip
        model = onnx.load_from_string(onnx_seeds()[0])
        change(next(t for t in model.graph.initializer if t.name == "zero"))
        path.write_bytes(model.SerializeToString())
        with refused(text):
            load_workload(path)


ELEMENTS = "FLOAT FLOAT16 BFLOAT16 DOUBLE INT8 UINT4 INT4 INT64 UINT64 BOOL COMPLEX64 FLOAT8E4M3FN"


@pytest.mark.parametrize("kind", ELEMENTS.split())
@pytest.mark.parametrize("raw", [True, False])
def test_initializers_of_every_type_are_taken(kind, raw, tmp_path):
    element = getattr(TensorProto, kind)
    values = np.ones(5, helper.tensor_dtype_to_np_dtype(element))
    weight = onnx.numpy_helper.from_array(values, "w") if raw else helper.make_tensor("w", element, [5], values.tolist())
    made = helper.make_node("Identity", ["w"], ["y"])
    graph = helper.make_graph([made], "m", [], [helper.make_tensor_value_info("y", element, [5])], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]), tmp_path / "m.onnx")
    assert load_workload(tmp_path / "m.onnx").tensors["y"].shape == (5,)


def test_a_recurrent_layer_of_flat_weights(tmp_path):
    model = onnx.load_from_string(onnx_seeds()[2])
    for tensor in model.graph.initializer:
        if tensor.name == "r":
            del tensor.dims[:]
            tensor.dims.extend([64])
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with refused("'r': expected three dimensions"):
        load_workload(tmp_path / "m.onnx")


# --- NIR ------------------------------------------------------------------------------------------------------------------


def test_resistances_beyond_the_range_of_other_numbers(tmp_path):
    nir = pytest.importorskip("nir")
    path = tmp_path / "one.nir"
    path.write_bytes(_nir_seeds()[1])
    graph = nir.read(path)
    graph.nodes["out"].r = np.full(3, 1e300)
    nir.write(path, graph)
    report = get_device("loihi").simulate(load_workload(path, steps=6, seed=1, rate=0.3))
    assert report.energy_j >= 0


# --- arrays, checkpoints, campaigns ---------------------------------------------------------------------------------------


def test_archives_that_numpy_stumbles_over(tmp_path):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, inputs=np.random.default_rng(0).normal(size=(20, 20)))
    data = bytearray(buffer.getvalue())
    data[200:260] = bytes(60)
    path = tmp_path / "a.npz"
    path.write_bytes(bytes(data))
    with pytest.raises(InputError):
        read_arrays(path)
    with refused("expected a .npz file with an array 'inputs'"):
        read_data(path)
    with refused("no readable NPZ archive"):
        Events.load(path, size=3)


def test_labels_that_are_one_number(tmp_path):
    np.savez(tmp_path / "d.npz", inputs=np.zeros((2, 3)), labels=np.array(1))
    with refused("labels: expected one for each image"):
        read_data(tmp_path / "d.npz")


def test_a_checkpoint_of_integers(tmp_path):
    module = nn.Linear(2, 2)
    torch.save({name: tensor.long() for name, tensor in module.state_dict().items()}, tmp_path / "c.pt")
    with refused("'weight': expected floating-point numbers, got int64"):
        load_checkpoint(module, tmp_path / "c.pt")


@pytest.mark.parametrize("text", ["[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}', '{"weight_map": {}}'])
def test_an_index_of_no_files(text, tmp_path):
    (tmp_path / "c.bin.index.json").write_text(text)
    with refused("weight_map: expected a mapping of tensors to files"):
        load_checkpoint(nn.Linear(2, 2), tmp_path / "c.bin.index.json")


def test_a_campaign_whose_schema_is_no_text(tmp_path):
    path = tmp_path / "study.sqlite"
    path.write_bytes(_store_seeds()[0].replace(b"CREATE TABLE results", b"CREATE TABLE res\xd3\xff\xfes", 1))
    with pytest.raises(InputError, match=r"^store: "), JobStore.read(path) as store:
        list(store.results())


def test_a_trace_is_read(tmp_path):
    (tmp_path / "t.json").write_text(json.dumps(_traces()[0]))
    assert load_profile(tmp_path / "t.json").workload.macs == 8 * 16 * 4 + 8 * 4 * 5 + 4 * 2 * 9 * 36
