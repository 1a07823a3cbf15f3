"""The systolic array as a device: invariants on random workloads and specs, formats, errors, energy."""

import itertools
import math

import pytest
from effort import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accelerators.systolic.analytic import compute_cycles
from hwsim.operators import (
    Convolution,
    DataMovement,
    Elementwise,
    Matmul,
    Normalization,
    Pooling,
    Scan,
    Softmax,
    Unmodelled,
)
from hwsim.registry import device_names, get_device
from hwsim.workload import Tensor, Workload, chain
from numerics.errors import InputError
from numerics.recipes import Recipe

BUFFERS = ("input", "weight", "output")


def spec(**changes):
    """A small array with round numbers; ``changes`` are dotted fields with ``__`` for the dot."""
    base = {
        "kind": "systolic_array",
        "name": "small",
        "clock_hz": 1e9,
        "array": {"rows": 8, "columns": 8, "dataflow": "ws", "timing": "back_to_back"},
        "mac_formats": {"int8": {"energy_pj": 0.5}, "int16": {"cycles_per_mac": 4, "energy_pj": 2.0}},
        "default_formats": {"weight": "int8", "activation": "int8", "accumulator": "int32"},
        "conversions": {"fp32->int8": {"cycles_per_element": 2, "energy_pj_per_element": 3}},
        "memory": {
            **{
                name: {
                    "capacity_bytes": 16384,
                    "banks": 2,
                    "bank_bytes_per_cycle": 64,
                    "energy_pj_per_byte": 1.0,
                }
                for name in BUFFERS
            },
            "off_chip": {"bandwidth_bytes_per_s": 8e9, "latency_s": 20e-9, "energy_pj_per_byte": 100},
        },
        "vector_unit": {
            "lanes": 8,
            "cycles_per_operation": dict.fromkeys(PRIMITIVES, 1) | {"exp": 4, "divide": 4},
            "energy_pj_per_operation": dict.fromkeys(PRIMITIVES, 1.0),
        },
        "static_power_w": 0.01,
        "energy_source": "round numbers",
    }
    return get_device(base, overrides={key.replace("__", "."): value for key, value in changes.items()})


PRIMITIVES = ("add", "multiply", "multiply_add", "compare", "divide", "exp", "log", "sqrt", "move")
IDEAL = {
    **{f"memory__{b}__capacity_bytes": 1 << 50 for b in BUFFERS},
    **{f"memory__{b}__bank_bytes_per_cycle": 1e15 for b in BUFFERS},
    "memory__off_chip__bandwidth_bytes_per_s": 1e30,
    "memory__off_chip__latency_s": 0,
}


@st.composite
def workloads(draw):
    """A random chain of layers: matmuls, convolutions and vector operators, with a residual now and then."""
    tensors, ops, previous = {}, [], None
    for index in range(draw(st.integers(1, 5))):
        kind = draw(st.sampled_from(["matmul", "matmul", "convolution", "depthwise"]))
        name = f"op{index}"
        if kind == "matmul":
            m, n, k, batch = (
                (draw(st.integers(1, 90)) for _ in range(3)),
                0,
                0,
                draw(st.sampled_from([1, 1, 1, 6])),
            )
            m, n, k = m
            op = Matmul(name=name, m=m, n=n, k=k, batch=batch)
        else:
            channels = draw(st.sampled_from([3, 8, 20]))
            groups = channels if kind == "depthwise" else 1
            size, kernel, stride = (
                draw(st.integers(3, 14)),
                draw(st.sampled_from([1, 3])),
                draw(st.sampled_from([1, 2])),
            )
            out = (size + 2 * (kernel // 2) - kernel) // stride + 1
            computes = draw(st.sampled_from(["output", "output", "input", "weight"]))
            op = Convolution(
                name=name, batch=draw(st.sampled_from([1, 3])), in_channels=channels,
                out_channels=channels if groups > 1 else draw(st.sampled_from([4, 17])), input_size=(size, size),
                output_size=(out, out), kernel=(kernel, kernel), stride=(stride, stride),
                padding=((kernel // 2,) * 2,) * 2, dilation=(1, 1), groups=groups, computes=computes,
            )  # fmt: skip
        single = chain("one", [op])
        op = single.ops[0]
        tensors.update(single.tensors)
        if previous is not None and draw(st.booleans()):
            # Read what the operator before wrote: its memory, seen in the shape this one wants.
            view = Tensor(f"{name}.view", tensors[op.inputs[0]].shape, "fp32", "activation", None, previous)
            tensors[view.name] = view
            op = Matmul(**{**op.__dict__, "inputs": (view.name, op.inputs[1])}) if isinstance(op, Matmul) else op
        ops.append(op)
        previous, size = op.outputs[0], op.elements_out
        tensors[previous] = Tensor(previous, (size,), "fp32", "activation")
        for extra in range(draw(st.integers(0, 3))):
            after = f"{name}.v{extra}"
            tensors[after] = Tensor(after, (size,), "fp32", "activation")
            what = draw(st.sampled_from(["relu", "gelu", "softmax", "norm", "pool", "copy", "scan", "odd", "alone"]))
            common = {"name": after, "inputs": (previous,), "outputs": (after,)}
            rows = op.batch * op.m if isinstance(op, Matmul) else 1
            kinds = {
                "relu": (Elementwise, {"operation": "relu", "elements": size}),
                "gelu": (Elementwise, {"operation": "gelu", "elements": size}),
                "softmax": (Softmax, {"operation": "softmax", "elements": size, "rows": rows}),
                "norm": (Normalization, {"operation": "layer_norm", "elements": size, "rows": rows}),
                "pool": (Pooling, {"operation": "pool_max", "elements": size, "window": 2}),
                "copy": (DataMovement, {"elements": size}),
                "scan": (Scan, {"operation": "cumulative", "length": size, "width": 1}),
                "odd": (Unmodelled, {}),
                "alone": (Elementwise, {"operation": "exp", "elements": size, "inputs": (f"{op.name}.input",)}),
            }
            cls, dims = kinds[what]
            vector = cls(**{**common, **dims})
            ops.append(vector)
            previous = after
    outputs = (previous,)
    inputs = tuple(t for t in tensors if tensors[t].role == "input" and any(t in o.inputs for o in ops))
    used = {t for o in ops for t in (*o.inputs, *o.outputs)} | {tensors[t].owner for o in ops for t in o.inputs}
    return Workload("random", tuple(ops), {n: t for n, t in tensors.items() if n in used}, inputs, outputs)


machines = st.fixed_dictionaries(
    {
        "array__rows": st.sampled_from([4, 8, 16]),
        "array__columns": st.sampled_from([4, 8, 12]),
        "array__dataflow": st.sampled_from(["ws", "os", "is"]),
        "array__timing": st.fixed_dictionaries(
            {
                "fold_overlap": st.sampled_from(["none", "weights", "full"]),
                "output_drain": st.sampled_from(["hidden", "shift"]),
                "mac_latency_cycles": st.integers(1, 3),
            }
        ),
        "array__group_packing": st.sampled_from(["none", "block_diagonal"]),
        "memory__off_chip__bandwidth_bytes_per_s": st.sampled_from([0.5e9, 3e9, 20e9, 900e9]),
        "memory__off_chip__latency_s": st.sampled_from([0.0, 20e-9, 1e-6]),
        "memory__input__double_buffered": st.booleans(),
        "memory__input__retained_capacity_bytes": st.sampled_from([0, 2000, 1 << 20]),
        "memory__input__bank_bytes_per_cycle": st.sampled_from([1.5, 8.0, 64.0]),
        "memory__weight__bank_bytes_per_cycle": st.sampled_from([1.0, 4.0, 64.0]),
        "memory__output__bank_bytes_per_cycle": st.sampled_from([8.0, 256.0]),
        "launch_overhead_cycles": st.sampled_from([0, 50]),
        "array__count": st.sampled_from([1, 1, 2, 6]),
        "array__streaming_fraction": st.sampled_from([1.0, 1.0, 0.6]),
    },
    optional={
        "kernel": st.fixed_dictionaries(
            {
                "cores": st.sampled_from([1, 2]),
                "window": st.sampled_from([4.0, 16.5, 1000.0]),
                "store_fraction": st.sampled_from([1.0, 0.5]),
            }
        ),
        "host_link": st.just({"link_bytes_per_s": 1e9, "link_latency_s": 1e-7, "link_pj_per_byte": 7.0}),
    },
).filter(lambda changes: "kernel" not in changes or changes["array__count"] % changes["kernel"]["cores"] == 0)
many = settings(
    max_examples=examples(120), deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@many
@given(workloads(), machines)
def test_invariants(workload, changes):
    device = spec(**changes)
    report = device.simulate(workload)
    data, memory = device.spec, device.spec.memory
    assert [op.name for op in report.ops] == [op.name for op in workload.expanded().ops]
    rates = {"off_chip": memory.off_chip.bandwidth_bytes_per_s}
    rates |= {name: getattr(memory, name).bytes_per_cycle * data.clock_hz for name in BUFFERS}
    if data.host_link is not None:
        rates["host"] = data.host_link.link_bytes_per_s
    for level, moved in report.bytes_by_level.items():
        assert moved <= rates[level] * report.time_s * (1 + 1e-9) + len(report.ops), level
    macs_per_s = data.array.places * data.array.streaming_fraction * data.clock_hz
    assert report.time_s >= report.macs / macs_per_s * (1 - 1e-12)
    for op in report.ops:
        assert op.stall_cycles >= -1e-6
        assert op.compute_cycles >= -1e-6
        assert op.cycles == pytest.approx(op.compute_cycles + op.stall_cycles + op.overhead_cycles)
        assert op.utilization <= 1 + 1e-9
    assert sum(op.time_s for op in report.ops) == pytest.approx(report.time_s)
    # energy = Σ events × energy per event + static power × time
    vector = sum(n for op in workload.ops for n in op.operations.values()) * 1e-12
    levels = report.bytes_by_level
    expected = {
        "mac": workload.macs * 0.5e-12,
        "vector_unit": vector,
        "off_chip": levels["off_chip"] * 100e-12,
        **{f"scratchpad_{name}": levels.get(name, 0) * 1e-12 for name in BUFFERS},
        "static": 0.01 * report.time_s,
        **({"host": levels.get("host", 0) * 7e-12} if data.host_link is not None else {}),
    }
    for component, joules in expected.items():
        assert report.energy_by_component_j[component] == pytest.approx(joules, rel=1e-9, abs=1e-18), component
    assert report.energy_j == pytest.approx(sum(expected.values()))
    # Whatever must come from outside or go there at least once has done so.
    for name in workload.outputs:
        assert levels["off_chip" if data.host_link is None else "host"] >= workload.tensors[name].elements
    split = report.tables["cycle_split"]
    assert [row["part"] for row in split] == ["array_active", "weight_stall", "weight_shift", "non_matrix"]
    assert all(row["cycles"] >= 0 for row in split)
    assert sum(row["cycles"] for row in split) == pytest.approx(report.cycles)
    assert sum(row["percent"] for row in split) == pytest.approx(100)


@many
@given(
    workloads(),
    machines,
    st.sampled_from(
        [
            ("memory__off_chip__bandwidth_bytes_per_s", 1.7),
            ("memory__off_chip__bandwidth_bytes_per_s", 1.01),
            ("memory__input__capacity_bytes", 2),
            ("memory__weight__capacity_bytes", 1.5),
            ("memory__output__capacity_bytes", 1.25),
            ("memory__input__retained_capacity_bytes", 3),
            ("memory__input__bank_bytes_per_cycle", 2),
            ("memory__weight__bank_bytes_per_cycle", 2),
            ("memory__output__bank_bytes_per_cycle", 3),
            ("clock_hz", 1.3),
            ("vector_unit__lanes", 2),
        ]
    ),
)
def test_more_of_anything_is_never_slower(workload, changes, more):
    field, factor = more
    device = spec(**changes)
    value = device.spec.model_dump()
    for part in field.split("__"):
        value = value[part]
    larger = spec(**changes, **{} if field in changes else {field: type(value)(value * factor)})
    if field in changes:
        larger = spec(**{**changes, field: type(value)(value * factor)})
    for fidelity in device.fidelities:
        before = device.simulate(workload, fidelity=fidelity).time_s
        after = larger.simulate(workload, fidelity=fidelity)
        # Mappings are compared by the times of ``tile``; stepped, the events of a tile may each wait for the next cycle.
        steps = sum(row.get("tiles", 0) + row["folds"] for row in after.tables["mapping"] if "folds" in row)
        rounded = steps / larger.spec.clock_hz if fidelity == "cycle" else 0.0
        assert after.time_s <= before * (1 + 1e-9) + rounded


@many
@given(workloads(), machines)
def test_tile_is_never_faster_than_analytic(workload, changes):
    device = spec(**changes)
    assert device.simulate(workload).time_s >= device.simulate(workload, fidelity="analytic").time_s * (1 - 1e-9)


@settings(max_examples=examples(200), deadline=None)
@given(st.integers(1, 100), st.integers(1, 100), st.integers(1, 100), st.sampled_from([1, 1, 30]), machines)
def test_tile_equals_analytic_with_ideal_memory(m, n, k, batch, changes):
    changes = {key: value for key, value in changes.items() if key != "host_link"}  # a host link has no ideal
    device = spec(**{**changes, **IDEAL, "memory__input__double_buffered": True})
    workload = chain("one", [Matmul(name="x", m=m, n=n, k=k, batch=batch)])
    tile = device.simulate(workload)
    assert tile.cycles == pytest.approx(device.simulate(workload, fidelity="analytic").cycles, rel=1e-9)
    if device.spec.array.group_packing == "none":
        array = device.spec.array
        closed = compute_cycles(
            m,
            n,
            k,
            rows=array.rows,
            columns=array.columns,
            dataflow=array.dataflow,
            timing=array.timing,
            batch=batch,
            cycles_per_mac=1 / array.streaming_fraction,
            arrays=array.count,
        )
        assert tile.ops[0].compute_cycles == pytest.approx(float(closed), rel=1e-9)


def test_same_bits_at_any_thread_count(monkeypatch):
    from hwsim.api import workload_from

    workload = workload_from("resnet18")
    found = []
    for threads in (1, 2, 7):
        monkeypatch.setattr("os.cpu_count", lambda threads=threads: threads)
        found.append(get_device("gemmini_16x16").simulate(workload).to_json())
    assert found[0] == found[1] == found[2]


# --- mapping ---------------------------------------------------------------------------------------------------------


def brute_force_best(shape, device):
    """The fastest mapping of a matmul by trying every tile of the candidates without bounds or pruning."""
    import numpy as np

    from accelerators.systolic import _pipeline_fields as fields
    from accelerators.systolic import _pipeline_kernels as kernels
    from accelerators.systolic.mapping import Shape, tilings
    from accelerators.systolic.pipeline import TilePipeline

    hw = TilePipeline(device.spec).hw
    job = np.zeros(fields.JOB_FIELDS)
    (
        job[fields.BATCH],
        job[fields.A_BYTES],
        job[fields.B_BYTES],
        job[fields.P_BYTES],
        job[fields.STORE],
    ) = 1, 1, 1, 4, 1
    array, memory = device.spec.array, device.spec.memory
    best = math.inf
    for m, n, k in itertools.product(*tilings(Shape(1, *shape), array.rows, array.columns, array.dataflow)):
        for order in fields.ORDERS:
            for reuse in itertools.product([False, True], repeat=3):
                if not fits(m, n, k, order, reuse, memory):
                    continue
                parts = [a for t in (m, n, k) for a in (t.size, t.first, t.second)]
                result = kernels.simulate(
                    hw, job, order, *parts, np.array(reuse), np.zeros((0, fields.TILE_FIELDS)), fields.UNLIMITED
                )
                moved = {
                    fields.IN_BPC: result[fields.IN_READ] + result[fields.LOAD_A] + m.size.sum() * n.size.sum(),
                    fields.WEIGHT_BPC: result[fields.WEIGHT_READ] + result[fields.LOAD_B],
                    fields.OUT_BPC: result[fields.OUT_READ] + result[fields.OUT_WRITE] + result[fields.LOAD_PARTIAL],
                }
                best = min(best, max(result[fields.TIME], *(size / hw[level] for level, size in moved.items())))
    return best


def fits(m, n, k, order, reuse, memory):
    """Whether the tiles, and what ``reuse`` keeps, fit: counted from the sets of tiles alive during the loop in question."""
    place = {int(d): i for i, d in enumerate(order)}
    tilings = {0: m, 1: n, 2: k}
    for operand, (dims, third, pad, width) in enumerate(
        [((0, 2), 1, memory.input, 1), ((2, 1), 0, memory.weight, 1), ((0, 1), 2, memory.output, 4)]
    ):
        tile = math.prod(float(tilings[d].size.max()) for d in dims) * width
        whole = math.prod(float(tilings[d].size.sum()) for d in dims) * width
        if tile > pad.tile_bytes and not (whole <= pad.capacity_bytes and all(tilings[d].size.size == 1 for d in dims)):
            return False
        if reuse[operand]:
            kept = math.prod(float(tilings[d].size.sum() if place[d] > place[third] else tilings[d].size.max()) for d in dims)
            if kept * width > pad.tile_bytes and whole > pad.capacity_bytes:
                return False
    # A tile stays where it is while only the innermost loop, which does not index it, goes on; sums then never leave.
    return reuse[2] or order[2] != 2


@pytest.mark.parametrize("dataflow", ["ws", "os", "is"])
@pytest.mark.parametrize("shape", [(40, 30, 50), (7, 64, 33), (100, 9, 16), (16, 16, 130)])
@pytest.mark.parametrize("bandwidth", [1e9, 30e9])
@pytest.mark.parametrize("bank", [2, 64])
def test_search_finds_the_best_of_all_candidates(shape, dataflow, bandwidth, bank):
    device = spec(
        memory__input__bank_bytes_per_cycle=bank, memory__weight__bank_bytes_per_cycle=bank,
        array__dataflow=dataflow, memory__off_chip__bandwidth_bytes_per_s=bandwidth, memory__input__capacity_bytes=600,
        memory__weight__capacity_bytes=700, memory__output__capacity_bytes=2000,
    )  # fmt: skip
    m, n, k = shape
    found = device.simulate(chain("one", [Matmul(name="x", m=m, n=n, k=k)])).cycles
    assert found == pytest.approx(brute_force_best(shape, device), rel=1e-9)


# --- formats ---------------------------------------------------------------------------------------------------------

ONE = chain("one", [Matmul(name="x", m=64, n=64, k=64)])


def test_default_formats_apply_and_are_reported():
    report = spec().simulate(ONE)
    assert report.recipe == "default"
    assert report.ops[0].format == "int8→int32"
    assert report.bytes_offchip == 3 * 64 * 64


def test_a_recipe_changes_cycles_energy_and_bytes():
    narrow, wide = spec(**IDEAL).simulate(ONE), spec(**IDEAL).simulate(ONE.with_formats("int16"))
    assert wide.ops[0].format == "int16→int32"
    assert wide.bytes_offchip == 2 * narrow.bytes_offchip
    assert wide.energy_by_component_j["mac"] == pytest.approx(4 * narrow.energy_by_component_j["mac"])
    assert wide.cycles == compute_cycles(64, 64, 64, rows=8, columns=8, dataflow="ws", timing="back_to_back", cycles_per_mac=4)


def test_a_format_the_device_lacks_is_an_error():
    with pytest.raises(InputError, match=r"device 'small': no multiply-accumulate for bf16×bf16 .* and no conversion"):
        spec().simulate(ONE.with_formats("bf16"))


def test_a_conversion_is_charged_its_cycles_and_energy():
    mixed = Recipe("mixed", {"weight": "int8", "activation": "fp32", "accumulator": "int32"})
    plain = spec(**IDEAL).simulate(ONE.with_formats("int8"))
    converted = spec(**IDEAL).simulate(ONE.with_formats(mixed))
    added = 64 * 64 * 3e-12
    assert converted.energy_by_component_j["vector_unit"] - plain.energy_by_component_j["vector_unit"] == pytest.approx(added)
    assert converted.cycles >= 64 * 64 * 2 / 8  # elements × cycles / lanes
    with pytest.raises(InputError, match="no conversion"):
        spec(conversions={}).simulate(ONE.with_formats(mixed))


def test_a_tensor_stored_in_another_format_than_consumed_is_converted():
    tensors = {
        "x": Tensor("x", (8, 8), "fp32", "input"), "w": Tensor("w", (8, 8), "fp32", "weight"),
        "y": Tensor("y", (8, 8), "fp32"), "v": Tensor("v", (8, 8), "fp32", "weight"), "z": Tensor("z", (8, 8), "fp32"),
    }  # fmt: skip
    ops = (
        Matmul(name="first", m=8, n=8, k=8, inputs=("x", "w"), outputs=("y",), module="first"),
        Matmul(name="second", m=8, n=8, k=8, inputs=("y", "v"), outputs=("z",), module="second"),
    )
    workload = Workload("two", ops, tensors, ("x",), ("z",))
    recipe = Recipe("int8", {"weight": "int8", "activation": "int8", "accumulator": "int32"})
    wide_second = recipe.excepting("second", weight="int16", activation="int16")
    with pytest.raises(InputError, match=r"op 'second' needs tensor 'y' converted int8->int16"):
        spec().simulate(workload.with_formats(wide_second))
    able = spec(conversions={"int8->int16": {"cycles_per_element": 1, "energy_pj_per_element": 7}})
    report = able.simulate(workload.with_formats(wide_second))
    assert [op.format for op in report.ops] == ["int8→int32", "int16→int32"]
    assert report.ops[1].energy_j["vector_unit"] == pytest.approx(64 * 7e-12)


# --- behaviour a user expects ------------------------------------------------------------------------------------------


def test_softmax_costs_more_than_relu():
    def on(operation):
        shape = (64, 64)
        tensors = {"x": Tensor("x", shape, "fp32", "input"), "y": Tensor("y", shape, "fp32")}
        common = {"name": "v", "inputs": ("x",), "outputs": ("y",)}
        if operation == "relu":
            op = Elementwise(operation="relu", elements=4096, **common)
        else:
            op = Softmax(operation="softmax", elements=4096, rows=64, **common)
        return spec(**IDEAL).simulate(Workload(operation, (op,), tensors, ("x",), ("y",)))

    relu, softmax = on("relu"), on("softmax")
    assert relu.cycles == 4096 / 8
    # max, subtract, exp (4 cycles), sum, times 1/sum; one divide (4 cycles) a row
    assert softmax.cycles == (4096 * (1 + 1 + 4 + 1 + 1) + 64 * 4) / 8


def test_vector_work_streams_behind_the_array():
    shapes = {"x": (512, 64), "w": (64, 64), "y": (512, 64), "z": (512, 64)}
    tensors = {n: Tensor(n, s, "fp32", {"x": "input", "w": "weight"}.get(n, "activation")) for n, s in shapes.items()}
    matmul = Matmul(name="x", m=512, n=64, k=64, inputs=("x", "w"), outputs=("y",))
    relu = Elementwise(name="relu", operation="relu", elements=512 * 64, inputs=("y",), outputs=("z",))
    both = Workload("both", (matmul, relu), tensors, ("x",), ("z",))
    device = spec(memory__off_chip__bandwidth_bytes_per_s=1e12)
    report = device.simulate(both)
    alone = device.simulate(Workload("one", (matmul,), tensors, ("x",), ("y",)))
    work = 512 * 64 / 8
    assert report.ops[1].fused_with == "x"
    assert report.ops[1].busy_cycles == work
    assert report.cycles < alone.cycles + 0.5 * work  # most of it hidden
    assert report.bytes_offchip == alone.bytes_offchip  # what is between them never leaves the chip


def attention_like(rows, length):
    """Scores of ``rows`` queries against ``length`` keys, and their softmax."""
    shapes = {"q": (rows, 16), "k": (16, length), "s": (rows, length), "p": (rows, length)}
    tensors = {n: Tensor(n, s, "fp32", "input" if n in "qk" else "activation") for n, s in shapes.items()}
    scores = Matmul(name="scores", m=rows, n=length, k=16, inputs=("q", "k"), outputs=("s",))
    softmax = Softmax(name="softmax", operation="softmax", elements=rows * length, rows=rows, inputs=("s",), outputs=("p",))
    return Workload("attention", (scores, softmax), tensors, ("q", "k"), ("p",))


def test_softmax_streams_only_where_whole_rows_of_sums_fit():
    operands = lambda rows, length: 16 * (rows + length)  # noqa: E731
    short = spec().simulate(attention_like(64, 256))  # 8 KiB of the output buffer hold 8 rows of 256 sums
    assert short.ops[1].fused_with == "scores"
    assert short.bytes_offchip == operands(64, 256) + 64 * 256
    tile = short.tables["mapping"][0]
    assert tile["tile_m"] * 256 * 4 <= 8192
    long = spec().simulate(attention_like(64, 4096))  # not one row of 4096 sums does
    assert long.ops[1].fused_with == ""
    assert long.bytes_offchip >= operands(64, 4096) + 3 * 64 * 4096  # scores written, read back, probabilities written
    roomy = spec(memory__output__capacity_bytes=1 << 20).simulate(attention_like(64, 4096))
    assert roomy.ops[1].fused_with == "scores"
    assert roomy.time_s < long.time_s


def test_group_packing_fills_the_array():
    depthwise = Convolution(
        name="d", batch=1, in_channels=64, out_channels=64, input_size=(16, 16), output_size=(16, 16), kernel=(3, 3),
        stride=(1, 1), padding=((1, 1), (1, 1)), dilation=(1, 1), groups=64,
    )  # fmt: skip
    workload = chain("depthwise", [depthwise])
    big = {"array__rows": 64, "array__columns": 64, **IDEAL}
    plain = spec(**big).simulate(workload)
    packed = spec(**big, array__group_packing="block_diagonal").simulate(workload)
    assert plain.tables["mapping"][0]["folds"] == 64
    assert packed.tables["mapping"][0]["folds"] == 64 // 4  # seven groups of nine rows fit; four divides 64
    assert packed.cycles < plain.cycles / 3
    for report in (plain, packed):  # packing lays operands side by side; it moves no byte more
        assert report.tables["mapping"][0]["loads_a_bytes"] == 64 * 16 * 16
        assert report.tables["mapping"][0]["loads_b_bytes"] == 64 * 9


def test_more_batch_amortises_the_weights():
    from hwsim.api import workload_from

    device = get_device("tpu_v1")
    one, many = (device.simulate(workload_from("mlp0", batch=b)) for b in (1, 256))
    assert one.bytes_offchip == 20e6
    assert many.utilization > 50 * one.utilization
    assert many.time_s < 3 * one.time_s


def test_tpu_v1_shift_and_stall_of_mlp0_by_hand():
    """MLP0 at batch 200: five layers of 2000×2000, each 8 × 8 tiles of weights at 34 GB/s; loading them is the time, beside the
    inputs and results that cross PCIe."""
    from hwsim.api import workload_from

    report = get_device("tpu_v1").simulate(workload_from("mlp0"))
    least_s = 5 * 2000 * 2000 / 34e9 + 2 * 200 * 2000 / 15.03e9
    assert least_s < report.time_s < 1.1 * least_s
    busy = sum(op.busy_cycles for op in report.ops if op.unit == "array")
    assert busy == 5 * 8 * 8 * 200


def test_a_buffer_too_small_names_itself():
    with pytest.raises(
        InputError,
        match=r"memory.weight.capacity_bytes: 64 bytes \(half of it, double-buffered\) cannot hold",
    ):
        spec(memory__weight__capacity_bytes=64).simulate(ONE)


def test_values_given_to_a_rung_without_values():
    with pytest.raises(InputError, match="inputs: fidelity 'tile' computes no values; leave inputs out"):
        spec().simulate(ONE, inputs=[1])
    with pytest.raises(InputError, match=r"fidelity .*unknown name 'rtl'"):
        spec().simulate(ONE, fidelity="rtl")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clock_hz": "700 MHz"}, r"clock_hz: input should be a valid number.*\(got '700 MHz'\)"),
        ({"clock_hz": -1}, r"clock_hz: input should be greater than 0 \(got -1\)"),
        ({"array__rows": 2.5}, r"array.rows: input should be a valid integer"),
        ({"array__dataflow": "rs"}, r"array.dataflow: input should be 'weight_stationary'"),
        ({"array__timing": "scalesim"}, r"array.timing: unknown timing 'scalesim'; known: scale_sim"),
        ({"mac_formats": {"int7x": {"energy_pj": 1}}}, r"unknown name 'int7x'; did you mean"),
        (
            {"default_formats": {"weight": "bf16", "activation": "bf16"}},
            r"bf16\*bf16 is not among mac_formats",
        ),
        (
            {"conversions": {"fp32": {"cycles_per_element": 1, "energy_pj_per_element": 1}}},
            r'must read "from->to"',
        ),
        ({"memory__weight__retained_capacity_bytes": 5}, r"only the input scratchpad retains"),
        ({"vector_unit__cycles_per_operation": {"add": 1}}, r"missing: multiply"),
        ({"calibrated": {"a": {"data": "x", "values": {"memory.off_chip.speed": 1}}}}, r"unknown field 'memory.off_chip.speed'"),
    ],
)
def test_a_bad_spec_is_one_clear_line(change, message):
    with pytest.raises(InputError, match=message) as caught:
        spec(**change)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", device_names(event_driven=False))
def test_every_bundled_device_runs_a_network_with_true_labels(name):
    from hwsim.api import workload_from

    device = get_device(name)
    report = device.simulate(workload_from("resnet18"))
    assert report.macs == 1_814_073_344
    fitted = device.spec.fitted_fields
    on_energy = [field for field in fitted if "energy" in field or "power" in field]
    on_time = len(fitted) > len(on_energy)
    static = device.spec.static_power_w > 0  # it is on for the time, fitted or not
    assert report.origin["time"] == ("calibrated" if on_time else "predicted")
    assert report.origin["energy"] == ("calibrated" if on_energy or (on_time and static) else "predicted")
    assert 0 < report.utilization < 1
    assert not report.unmodelled


# --- found by trial -----------------------------------------------------------------------------------------------------


def test_bandwidth_on_a_machine_whose_buffers_are_the_bottleneck():
    """A mapping is chosen with its buffer traffic in sight: doubling the bandwidth once made this layer twice as slow."""
    layer = chain("x", [Matmul(name="x", m=1024, n=2304, k=1024)])
    narrow = {"memory.weight.bank_bytes_per_cycle": 4}
    cycles = [
        get_device("gemmini_16x16", overrides={**narrow, "off_chip.bandwidth_bytes_per_s": b}).simulate(layer).cycles
        for b in (16e9, 32e9, 64e9, 1e12)
    ]
    assert cycles == sorted(cycles, reverse=True)


def test_a_strided_convolution_reads_only_what_its_windows_touch():
    strided = Convolution(
        name="c", batch=1, in_channels=256, out_channels=512, input_size=(56, 56), output_size=(28, 28), kernel=(1, 1),
        stride=(2, 2), padding=((0, 0), (0, 0)), dilation=(1, 1),
    )  # fmt: skip
    for fidelity in ("analytic", "tile"):
        report = spec(**IDEAL).simulate(chain("one", [strided]), fidelity=fidelity)
        assert report.bytes_offchip == 256 * 28 * 28 + 512 * 256 + 512 * 28 * 28


def test_a_vector_parameter_can_be_multiplied():
    tensors = {
        "x": Tensor("x", (32, 64), "fp32", "input"), "w": Tensor("w", (64,), "fp32", "weight"), "y": Tensor("y", (32,), "fp32"),
    }  # fmt: skip
    op = Matmul(name="mv", m=32, n=1, k=64, inputs=("x", "w"), outputs=("y",))
    assert spec().simulate(Workload("mv", (op,), tensors, ("x",), ("y",))).ops[0].format == "int8→int32"


def test_a_workload_without_its_operands_is_refused_in_one_line():
    broken = Workload("broken", (Matmul(name="x", m=2, n=2, k=2),), {})
    with pytest.raises(InputError, match="op 'x': inputs: expected at least 2 tensors, got 0"):
        spec().simulate(broken)
    with pytest.raises(InputError, match="op 'x' has no formats, although the recipe 'int8' was applied"):
        spec().simulate(Workload(ONE.name, ONE.ops, ONE.tensors, recipe="int8"))


def test_a_recipe_for_a_module_that_is_not_there_is_refused():
    recipe = Recipe("typo", {"weight": "int8", "activation": "int8"}).excepting("lm_haed", weight="int16")
    with pytest.raises(InputError, match="recipe 'typo': overrides: no module of 'one' matches 'lm_haed'"):
        ONE.with_formats(recipe)
