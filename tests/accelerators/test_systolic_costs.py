"""Many configurations of a systolic array at once: the same bits as one simulation after another."""

from __future__ import annotations

import itertools
import random
import threading
from functools import cache

import numpy as np
import pytest
from effort import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_systolic_device import machines, spec, workloads

from accelerators.systolic import _mapping_kernels as mapping_kernels
from accelerators.systolic import _pipeline_fields as fields
from accelerators.systolic.mapping import Shape
from accelerators.systolic.pipeline import dimensions
from accelerators.systolic.variants import IDLE, Variants, base_row
from hwsim.api import workload_from
from hwsim.costs import full_names, simulated
from hwsim.operators import Elementwise, Matmul
from hwsim.registry import get_device
from hwsim.workload import Tensor, Workload
from numerics.errors import InputError
from numerics.recipes import Recipe

SYSTOLIC = ("gemmini_16x16", "scale_sim_32x32", "edge_tpu", "tpu_v1", "tpu_v4", "tpu_v5e")
"""All bundled ones."""

numbers = st.fixed_dictionaries(
    {},
    optional={
        "clock_hz": st.floats(1e8, 3e9),
        "static_power_w": st.floats(0, 10),
        "memory.off_chip.achieved_fraction": st.sampled_from([1.0, 0.7]),
        "memory.off_chip.energy_pj_per_byte": st.floats(0, 300),
        "memory.input.capacity_bytes": st.sampled_from([40, 600, 5000, 1 << 20]),
        "memory.weight.capacity_bytes": st.sampled_from([40, 700, 16384]),
        "memory.output.capacity_bytes": st.sampled_from([100, 2000, 16384]),
        "memory.output.double_buffered": st.booleans(),
        "memory.output.energy_pj_per_byte": st.floats(0, 9),
        "memory.weight.banks": st.integers(0, 3),
        "vector_unit.lanes": st.integers(1, 33),
        "vector_unit.scan_step_cycles": st.floats(0, 9),
        "vector_unit.cycles_per_operation.exp": st.floats(0.5, 9),
        "vector_unit.energy_pj_per_operation.add": st.floats(-0.1, 3),
        "mac_formats.int8.cycles_per_mac": st.sampled_from([1, 0.5, 3.0]),
        "mac_formats.int8.energy_pj": st.floats(0, 2),
        "conversions.fp32->int8.cycles_per_element": st.floats(0, 3),
        "default_formats.weight": st.sampled_from(["int8", "int16", "fp32"]),
        "summary": st.just("another"),
        "memory.off_chip.capacity_bytes": st.sampled_from([0, 10**6]),
    },
)


def flat(machine):
    """The changes of a draw of ``machines`` by dotted field, without the parts that a machine has or has not."""
    fields = {name.replace("__", "."): value for name, value in machine.items() if name not in ("kernel", "host_link")}
    timing = fields.pop("array.timing")
    return fields | {f"array.timing.{name}": value for name, value in timing.items()}


@st.composite
def changes_of(draw, base):
    """One configuration of a machine that ``base`` describes."""
    change = flat(draw(machines))
    change = {name: change[name] for name in draw(st.sets(st.sampled_from(sorted(change))))} | draw(numbers)
    if "kernel" in base:
        change |= draw(st.fixed_dictionaries({}, optional={
            "kernel.cores": st.sampled_from([1, 2, 3]), "kernel.window": st.floats(1, 50), "kernel.store_fraction": st.just(0.9),
        }))  # fmt: skip
    if "host_link" in base:
        change |= draw(
            st.fixed_dictionaries({}, optional={"link_bytes_per_s": st.floats(1e6, 1e9), "link_pj_per_byte": st.just(2)})
        )
    order = draw(st.permutations(sorted(change)))
    return {name: change[name] for name in order}


@st.composite
def cases(draw):
    base = draw(machines)
    workload = draw(workloads())
    if draw(st.booleans()):
        workload = workload.with_formats(Recipe("mixed", {"weight": "int8", "activation": "fp32", "accumulator": "int32"}))
    return spec(**base), workload, draw(st.lists(changes_of(base), min_size=1, max_size=4))


def same(found, expected):
    assert found.errors == expected.errors
    assert np.array_equal(found.time_s, expected.time_s, equal_nan=True)
    assert np.array_equal(found.energy_j, expected.energy_j, equal_nan=True)
    assert [bool(text) for text in found.errors] == np.isnan(found.time_s).tolist() == np.isnan(found.energy_j).tolist()


def one_by_one(device, workload, changes, fidelity):
    return simulated(device, workload, full_names(device, changes), fidelity)


@pytest.mark.parametrize("fidelity", ["analytic", "tile"])
@settings(max_examples=examples(25), deadline=None, suppress_health_check=list(HealthCheck))
@given(case=cases())
def test_same_bits_as_one_by_one(fidelity, case):
    device, workload, changes = case
    same(device.costs(workload, changes, fidelity=fidelity), one_by_one(device, workload, changes, fidelity))


def alone(cuts, d, which):
    """One of a dimension's cuts, as the search takes them."""
    start, *parts = cuts[4 * d : 4 * d + 4]
    begin, end = start[which], start[which + 1]
    return [np.array([0, end - begin]), *(part[begin:end] for part in parts)]


@pytest.mark.parametrize("overlap", [fields.NONE, fields.WEIGHTS, fields.FULL])
@pytest.mark.parametrize("dataflow", ["weight_stationary", "output_stationary", "input_stationary"])
def test_no_bound_of_the_search_rules_out_the_fastest(dataflow, overlap):
    """What is found among all cuts at once is the best of what is found for each three cuts alone, where nothing is ruled out
    before the first is run."""
    rng = random.Random(overlap)
    number = {"weight_stationary": fields.WS, "output_stationary": fields.OS, "input_stationary": fields.IS}[dataflow]
    for _ in range(examples(40)):
        hw, job = np.zeros(fields.HW_FIELDS), np.zeros(fields.JOB_FIELDS)
        hw[fields.ROWS], hw[fields.COLUMNS], hw[fields.LATENCY] = (
            rng.choice([4, 16, 30]),
            rng.choice([4, 12, 32]),
            rng.randint(1, 3),
        )
        hw[fields.OVERLAP], hw[fields.DATAFLOW], hw[fields.DRAIN_SHIFT] = overlap, number, rng.randrange(2)
        hw[fields.MAC_CYCLES], hw[fields.OFF_BPC] = rng.choice([1, 0.5, 2]), rng.choice([0.5, 3, 17.3, 100])
        hw[fields.OFF_LATENCY], job[fields.BATCH] = rng.choice([0, 25.0, 800.0]), rng.choice([1, 3])
        for place in range(3):
            hw[fields.IN_BPC + place], hw[fields.IN_CAP + place] = rng.choice([2, 32, 256]), rng.choice([2048, 65536])
            hw[fields.IN_DOUBLE + place] = rng.randrange(2)
        job[[fields.A_BYTES, fields.B_BYTES, fields.P_BYTES]] = rng.choice([1, 2]), 1, 4
        job[fields.VECTOR_CYCLES], job[fields.STORE] = rng.choice([0, 0.1, 3.0]), rng.choice([0, 1.2, 4])
        job[fields.EXTRA_LOAD], job[fields.OTHER_OFF] = rng.choice([0, 1.2]), rng.choice([0, 5000])
        shape = Shape(1, rng.randint(1, 150), rng.randint(1, 150), rng.choice([20, 60, 64, rng.randint(1, 150)]))
        cuts = dimensions(shape, int(hw[fields.ROWS]), int(hw[fields.COLUMNS]), dataflow, 1)
        found = mapping_kernels.search_described(hw, job, *cuts)
        best = np.inf
        for which in itertools.product(*(range(cuts[4 * d].size - 1) for d in range(3))):
            parts = [array for d in range(3) for array in alone(cuts, d, which[d])]
            picked, _, _, result = mapping_kernels.search(hw, job, *parts, cuts[12][which[2] : which[2] + 1])
            best = min(best, result[fields.TIME]) if picked[0] >= 0 else best
        assert (found[0][0] >= 0) == (best < np.inf)
        assert best == np.inf or found[3][fields.TIME] == pytest.approx(best, rel=1e-9)


def random_changes(device, count, seed):
    """Configurations around a bundled device's own, with what it may have."""
    rng, own = random.Random(seed), device.spec
    found = []
    for _ in range(count):
        change = {
            "array.rows": rng.choice([8, 16, own.array.rows]), "array.columns": rng.choice([8, 24, own.array.columns]),
            "dataflow": rng.choice(["ws", "os", "is"]), "array.timing": rng.choice(["rtl", "scale_sim", "double_buffered"]),
            "clock_hz": own.clock_hz * rng.uniform(0.5, 2), "vector_unit.lanes": rng.randint(4, 64),
            "memory.off_chip.bandwidth_bytes_per_s": own.memory.off_chip.bandwidth_bytes_per_s * rng.uniform(0.2, 2),
            "memory.input.capacity_bytes": int(own.memory.input.capacity_bytes * rng.uniform(0.5, 2)),
            "memory.input.retained_capacity_bytes": rng.choice([0, 1 << 20]), "static_power_w": rng.random(),
        }  # fmt: skip
        for key in own.mac_formats:
            change[f"mac_formats.{key}.energy_pj"] = rng.random()
        if own.host_link is not None:
            change["link_latency_s"] = rng.uniform(0, 1e-4)
        if own.kernel is not None:
            change["kernel.window"] = rng.uniform(100, 4000)
        found.append({name: value for name, value in change.items() if rng.random() < 0.6})
    return found


NETWORKS = (cache(lambda: workload_from("mobilenet_v2")), cache(lambda: workload_from("gpt2", seq_len=16)))
"""Depthwise convolutions; attention."""


@pytest.mark.parametrize("fidelity", ["analytic", "tile"])
@pytest.mark.parametrize("name", SYSTOLIC)
def test_every_bundled_array(name, fidelity):
    device, workload = get_device(name), NETWORKS[SYSTOLIC.index(name) % 2]()
    changes = [{}, *random_changes(device, 2, 3)]
    same(device.costs(workload, changes, fidelity=fidelity), one_by_one(device, workload, changes, fidelity))


def test_training(tiny_training):
    device = get_device("gemmini_16x16")
    changes = random_changes(device, 3, 5)
    for fidelity in ("analytic", "tile"):
        same(device.costs(tiny_training, changes, fidelity=fidelity), one_by_one(device, tiny_training, changes, fidelity))


@pytest.fixture
def tiny_training():
    from torch import nn, randn

    from hwsim import trace

    net = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10))
    return trace(net, randn(2, 3, 16, 16), mode="training")


def test_cycle_and_banked_memory_go_one_by_one_and_stay_right():
    workload = spec_workload()
    small = spec(memory__off_chip={"dram": {"preset": "ddr4_3200"}})
    changes = [{"array.rows": 4}, {"memory.off_chip.energy_pj_per_byte": 3.0, "array.columns": 16}, {"array.rows": 0}]
    same(small.costs(workload, changes), one_by_one(small, workload, changes, "tile"))
    same(small.costs(workload, changes, fidelity="analytic"), one_by_one(small, workload, changes, "analytic"))
    same(spec().costs(workload, changes, fidelity="cycle"), one_by_one(spec(), workload, changes, "cycle"))


def spec_workload():
    """A product and something streamed behind it."""
    tensors = {"a": Tensor("a", (40, 50), "fp32", "input"), "b": Tensor("b", (50, 30), "fp32", "weight")}
    tensors |= {name: Tensor(name, (40, 30), "fp32", "activation") for name in ("c", "d")}
    product = Matmul(name="mm", m=40, n=30, k=50, inputs=("a", "b"), outputs=("c",))
    behind = Elementwise(name="act", operation="relu", elements=1200, inputs=("c",), outputs=("d",))
    return Workload("two", (product, behind), tensors, ("a",), ("d",))


def test_order_split_and_threads_change_nothing():
    device, workload = get_device("gemmini_16x16"), workload_from("resnet18")
    changes = random_changes(device, 8, 9)
    whole = device.costs(workload, changes)
    order = random.Random(1).sample(range(len(changes)), len(changes))
    shuffled = get_device("gemmini_16x16").costs(workload, [changes[i] for i in order])
    assert np.array_equal(shuffled.time_s, whole.time_s[order])
    assert np.array_equal(shuffled.energy_j, whole.energy_j[order])
    halves: list = [None, None]

    def half(which):
        halves[which] = device.costs(workload, changes[which * 4 : which * 4 + 4])

    threads = [threading.Thread(target=half, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert np.array_equal(np.concatenate([part.time_s for part in halves]), whole.time_s)
    assert np.array_equal(np.concatenate([part.energy_j for part in halves]), whole.energy_j)


# --- what the spec's rules refuse ------------------------------------------------------------------------------------

REFUSED = [
    {"rows": 0}, {"rows": 2.0}, {"rows": True}, {"rows": "16"}, {"clock_hz": float("nan")}, {"clock_hz": 1e70},
    {"dataflow": "sw"},    {"array.timing": "fast"}, {"array.timing": {"fold_overlap": "some"}}, {"achieved_fraction": 1.5},
    {"vector_unit": {"lanes": 3}},     {"memory.weight.retained_capacity_bytes": 5}, {"mac_formats.int8.energy_pj": None},
    {"default_formats.weight": "int3x"},
    {"default_formats.weight": "fp16"}, {"kind": "cpu"}, {"rows": 0, "columns": -1}, {"columns": -1, "rows": 0},
    {"rows": 0, "default_formats.weight": "fp16"}, {"kernel": {"cores": 2, "window": 100.0}}, {"process_nm": 1},
    {"cycles_per_operation": {"add": 1}}, {"memory.off_chip.capacity_bytes": 0},
]  # fmt: skip


def test_a_configuration_in_error_names_what_simulate_names_and_stops_nothing():
    device, workload = spec(), spec_workload()
    changes = [*REFUSED, {"memory.output.capacity_bytes": 1}, {}]
    found = device.costs(workload, changes)
    same(found, one_by_one(device, workload, changes, "tile"))
    assert all(found.errors[:-1])
    assert found.errors[-1] == ""
    assert found.time_s[-1] == device.simulate(workload).time_s


def test_cores_that_do_not_share_the_arrays():
    device, workload = get_device("tpu_v4"), spec_workload()
    changes = [{"kernel.cores": cores, "array.count": count} for cores in (1, 2, 3) for count in (1, 2, 6)]
    for fidelity in ("analytic", "tile"):
        found = device.costs(workload, changes, fidelity=fidelity)
        same(found, one_by_one(device, workload, changes, fidelity))
        assert [bool(e) for e in found.errors] == [c["array.count"] % c["kernel.cores"] > 0 for c in changes]


def test_sections_and_parts_changed_whole():
    device, workload = spec(), spec_workload()
    changes = [
        {"array": {"rows": 4, "columns": 4, "dataflow": "os"}}, {"array.timing": {"fold_overlap": "none"}},
        {"array.timing": "rtl", "array.timing.fold_overlap": "weights"},
        {"array.timing.fold_overlap": "weights", "timing": "rtl"},
        {"kernel": {"window": 20.0}}, {"host_link": {"link_bytes_per_s": 1e9, "link_latency_s": 0.0, "link_pj_per_byte": 1.0}},
        {"rows": 4, "array.rows": 12}, {"conversions": {}}, {"name": "other"}, {"rows": 2**40}, {"rows": np.int64(4)},
    ]  # fmt: skip
    for fidelity in ("analytic", "tile"):
        same(device.costs(workload, changes, fidelity=fidelity), one_by_one(device, workload, changes, fidelity))


@pytest.mark.parametrize(("change", "message"), [
    ({"rowz": 3}, r"unknown field 'rowz'; did you mean 'array.rows'"),
    ({"energy_pj_per_byte": 3.0}, r"field 'energy_pj_per_byte' is ambiguous: memory.input"),
    ({"kernel.cores": 2}, r"unknown field 'kernel.cores'"),
])  # fmt: skip
def test_an_unknown_field_stops_the_batch_with_the_text_of_get_device(change, message):
    device = spec()
    with pytest.raises(InputError, match=message) as batch:
        device.costs(spec_workload(), [{}, change])
    with pytest.raises(InputError) as single:
        get_device(device, overrides=change)
    assert str(batch.value) == str(single.value)


def test_an_unknown_fidelity_stops_the_batch():
    with pytest.raises(InputError, match=r"fidelity \(device 'small'\)"):
        spec().costs(spec_workload(), [{}], fidelity="exact")


def test_no_configurations():
    assert len(spec().costs(spec_workload(), [])) == 0


@pytest.mark.parametrize("name", SYSTOLIC)
def test_every_field_is_a_number_or_known_not_to_be_one(name):
    """A field added to the spec shows up here until someone says what it changes."""
    device = get_device(name)
    structure = ("kind", "name", "default_formats", "calibrated", "conversions", "kernel", "host_link")
    known = Variants(device.spec).columns

    def leaves(place, prefix=""):
        for key, value in place.items():
            if isinstance(value, dict) and value:
                yield from leaves(value, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}"

    for path in leaves(device.spec.model_dump()):
        assert (
            path in known or path in IDLE or path.split(".")[0] in structure
            or path.endswith((".retained_capacity_bytes", "off_chip.dram"))
        ), path  # fmt: skip
    assert np.isfinite(base_row(device.spec)).all()
