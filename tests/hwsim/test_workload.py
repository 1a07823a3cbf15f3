"""The workload: counts, structure, formats and files, against the definitions written out one by one."""

from __future__ import annotations

import json
import pickle
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_graphs import workloads

from hwsim.operators import FLOPS_PER_MAC, Attention, Convolution, Elementwise, Gather, Matmul, Scatter, Unmodelled
from hwsim.workload import DERIVED_LIMIT, ROLES, PeakMemory, Tensor, Workload, chain, load_json
from numerics.errors import InputError
from numerics.recipes import Recipe


def raises(text):
    return pytest.raises(InputError, match=f"^{re.escape(text)}$")


def tensors(*entries):
    return {entry.name: entry for entry in entries}


def owners(workload, names):
    return {workload.tensors[name].owner for name in names}


# --- counts -------------------------------------------------------------------------------------------------


def two_layers():
    """x → fc1 → relu in place → fc2, by hand."""
    return Workload(
        "two",
        (
            Matmul(name="fc1", inputs=("x", "w1", "b1"), outputs=("h",), m=2, k=3, n=4, bias=True, module="fc1"),
            Elementwise(name="relu", inputs=("h",), outputs=("h:1",), operation="relu", elements=8),
            Matmul(name="fc2", inputs=("h:1", "w2"), outputs=("y",), m=2, k=4, n=5, module="fc2"),
        ),
        tensors(
            Tensor("x", (2, 3), "fp32", "input"),
            Tensor("w1", (4, 3), "fp32", "weight"),
            Tensor("b1", (4,), "fp32", "weight"),
            Tensor("h", (2, 4), "fp32"),
            Tensor("h:1", (2, 4), "fp32", storage="h"),
            Tensor("w2", (5, 4), "fp32", "weight"),
            Tensor("y", (2, 5), "fp32"),
        ),
        ("x",),
        ("y",),
    )


def test_counts_by_hand():
    workload = two_layers()
    assert workload.macs == 2 * 3 * 4 + 2 * 4 * 5
    assert workload.flops == FLOPS_PER_MAC * workload.macs == 128
    assert workload.parameters == 12 + 4 + 20
    assert workload.operations() == {"add": 8, "compare": 8}
    assert workload.bytes_by_role() == {"input": 24, "weight": 4 * 36, "activation": 4 * (8 + 10)}
    assert workload.count_by_kind() == {"matmul": 2, "elementwise": 1}
    assert len(workload) == 3


def test_arithmetic_intensity_is_flops_over_every_operand_once_a_use():
    # fc1 moves x, w1, b1 and h, relu reads and writes h, fc2 moves h, w2 and y.
    moved = 4 * ((6 + 12 + 4 + 8) + (8 + 8) + (8 + 20 + 10))
    assert two_layers().arithmetic_intensity == 128 / moved
    assert Workload("empty", (), {}).arithmetic_intensity == 0


def test_tied_and_sliced_weights_count_once():
    workload = two_layers()
    more = {**workload.tensors, "w1[part]": Tensor("w1[part]", (2, 3), "fp32", "weight", storage="w1")}
    assert replace(workload, tensors=more).parameters == workload.parameters
    assert replace(workload, tensors=more).bytes_by_role() == workload.bytes_by_role()


def test_a_gather_reads_only_what_it_selects():
    op = Gather(name="g", inputs=("table", "i"), outputs=("y",), elements=8, indices=2)
    workload = Workload(
        "g",
        (op,),
        tensors(
            Tensor("table", (1000, 4), "fp32", "weight"),
            Tensor("i", (2,), "int64", "index"),
            Tensor("y", (2, 4), "fp32"),
        ),
    )
    assert [workload.read_bytes(op, 0), workload.read_bytes(op, 1), workload.write_bytes(op, 0)] == [32, 16, 32]
    assert workload.op_bytes(op) == 80


def test_a_scatter_writes_only_what_it_changes():
    op = Scatter(name="s", inputs=("x", "i"), outputs=("table:1",), elements=8, indices=2)
    workload = Workload(
        "s",
        (op,),
        tensors(
            Tensor("table", (1000, 4), "fp32", "state"),
            Tensor("table:1", (1000, 4), "fp32", "state", storage="table"),
            Tensor("i", (2,), "int64", "index"),
            Tensor("x", (2, 4), "fp32"),
        ),
    )
    assert workload.write_bytes(op, 0) == 32


def test_a_broadcast_view_reads_no_more_than_is_there():
    op = Elementwise(name="e", inputs=("b[part]",), outputs=("y",), operation="relu", elements=100)
    workload = Workload(
        "e",
        (op,),
        tensors(
            Tensor("b", (10,), "fp32", "weight"),
            Tensor("b[part]", (10, 10), "fp32", "weight", storage="b"),
            Tensor("y", (10, 10), "fp32"),
        ),
    )
    assert (workload.read_bytes(op, 0), workload.write_bytes(op, 0)) == (40, 400)


def test_a_sub_byte_format_packs_its_elements():
    assert Tensor("t", (3, 3), "int4").bytes == 5
    assert Tensor("t", (), "fp32").bytes == 4
    assert Tensor("t", (0, 3), "fp32").bytes == 0


# --- structure ----------------------------------------------------------------------------------------------


def conflicts(workload):
    """For each operator, all earlier ones with which it shares memory that at least one of them writes."""
    found = []
    for i, op in enumerate(workload.ops):
        read, written = owners(workload, op.inputs), owners(workload, op.outputs)
        found.append(
            {
                j
                for j, earlier in enumerate(workload.ops[:i])
                if owners(workload, earlier.outputs) & (read | written) or owners(workload, earlier.inputs) & written
            }
        )
    return found


def closure(needs):
    reached = []
    for direct in needs:
        reached.append(set(direct).union(*(reached[j] for j in direct)))
    return reached


def test_dependencies_by_hand():
    workload = two_layers()
    assert workload.dependencies == ((), (0,), (1,))
    assert workload.depth == 3
    # A later overwriting of x waits for its reader (fc1), and nothing waits for an independent operator.
    more = {**workload.tensors, "x:1": Tensor("x:1", (2, 3), "fp32", "input", storage="x")}
    late = Elementwise(name="late", inputs=("w1",), outputs=("x:1",), operation="relu", elements=6)
    free = Elementwise(name="free", inputs=("w2",), outputs=("y",), operation="relu", elements=6)
    longer = replace(workload, ops=(*workload.ops, late, free), tensors=more)
    assert longer.dependencies[3:] == ((0,), (2,))
    assert longer.depth == 4


@given(workloads())
def test_dependencies_are_the_conflicts_without_the_roundabout_ones(workload):
    expected = conflicts(workload)
    assert all(set(found) <= direct for found, direct in zip(workload.dependencies, expected, strict=True))
    assert closure(workload.dependencies) == closure(expected)


@given(workloads(most_ops=8))
def test_depth_is_the_longest_chain(workload):
    needs = conflicts(workload)

    def longest(i):
        return 1 + max((longest(j) for j in needs[i]), default=0)

    assert workload.depth == max((longest(i) for i in range(len(workload))), default=0)


PERSISTENT = ("weight", "optimizer_state", "kv_cache", "state")


def alive(workload, index):
    """Memory owners that must exist while operator ``index`` runs, from the definition."""
    end = len(workload.ops)
    found = set()
    for name, tensor in workload.tensors.items():
        if tensor.owner != name:
            continue
        touched = [
            (i, "w" if name in owners(workload, op.outputs) and name not in owners(workload, op.inputs) else "r")
            for i, op in enumerate(workload.ops)
            if name in owners(workload, (*op.inputs, *op.outputs))
        ]
        first = touched[0][0] if touched and touched[0][1] == "w" else -1
        last = touched[-1][0] if touched else -1
        if name in owners(workload, workload.inputs):
            first = -1
        if name in owners(workload, workload.outputs):
            last = end
        if tensor.role in PERSISTENT:
            first, last = -1, end
        if first <= index <= last:
            found.add(name)
    return found


@given(workloads())
def test_peak_memory_is_the_largest_sum_of_what_must_exist(workload):
    totals = [sum(workload.tensors[n].bytes for n in alive(workload, i)) for i in range(len(workload))]
    peak = workload.peak_memory()
    if not totals:
        assert peak == PeakMemory(0, "", {})
        return
    assert peak.bytes == max(totals)
    where = totals.index(max(totals))
    assert peak.op == workload.ops[where].name
    by_role = Counter()
    for name in alive(workload, where):
        by_role[workload.tensors[name].role] += workload.tensors[name].bytes
    assert dict(peak.by_role) == {role: n for role, n in by_role.items() if n}


@given(workloads())
def test_lifetimes_say_the_same(workload):
    spans = workload.lifetimes
    for i in range(len(workload)):
        assert {name for name, (first, last) in spans.items() if first <= i <= last} == alive(workload, i)


def test_memory_in_place_is_counted_once():
    peak = two_layers().peak_memory()
    # At fc2: h (overwritten in place by relu), y and the weights; x is gone.
    assert peak == PeakMemory(4 * (8 + 10 + 36), "fc2", {"activation": 72, "weight": 144})


# --- formats ------------------------------------------------------------------------------------------------

EVERY_ROLE = Workload(
    "roles",
    (
        Matmul(name="a", inputs=("in", "w", "bias"), outputs=("act",), m=2, k=2, n=2, bias=True, module="a"),
        Unmodelled(name="b", inputs=("act", "cache", "buf", "i", "w"), outputs=("grad", "opt"), module="b.head"),
    ),
    tensors(
        Tensor("in", (2, 2), "fp32", "input"),
        Tensor("w", (2, 2), "fp32", "weight"),
        Tensor("w[part]", (2,), "fp32", "weight", storage="w"),
        Tensor("bias", (2,), "fp32", "weight"),
        Tensor("act", (2, 2), "fp32"),
        Tensor("grad", (2, 2), "fp32", "gradient"),
        Tensor("opt", (2, 2), "fp32", "optimizer_state"),
        Tensor("cache", (2, 2), "fp32", "kv_cache"),
        Tensor("buf", (2, 2), "fp32", "state"),
        Tensor("i", (2, 2), "int64", "index"),
        Tensor("mask", (2, 2), "fp32", "index"),
        Tensor("z", (2, 2), "complex64"),
    ),
    ("in",),
)
RECIPE = Recipe(
    "r",
    {
        "weight": "int4",
        "activation": "int8",
        "gradient": "e5m2",
        "optimizer_state": "bf16",
        "kv_cache": "e4m3fn",
        "accumulator": "int32",
    },
)


def test_every_role_of_a_tensor_is_there():
    assert {t.role for t in EVERY_ROLE.tensors.values()} == set(ROLES)


def test_each_role_takes_its_format():
    formatted = EVERY_ROLE.with_formats(RECIPE)
    assert {name: tensor.format for name, tensor in formatted.tensors.items()} == {
        "in": "int8",
        "w": "int4",
        "w[part]": "int4",  # a view, whatever its shape, is in the format of its memory
        "bias": "int32",  # one-dimensional parameters are added to accumulators
        "act": "int8",
        "grad": "e5m2",
        "opt": "bf16",
        "cache": "e4m3fn",
        "buf": "int8",
        "i": "int64",
        "mask": "fp32",
        "z": "complex64",
    }
    assert formatted.recipe == "r"
    assert formatted.ops[0].formats.operands == ("int8", "int4", "int32")
    assert formatted.ops[0].formats.accumulator == "int32"
    assert formatted.macs == EVERY_ROLE.macs


def test_a_recipe_halves_the_bytes():
    assert two_layers().with_formats("bf16").bytes_by_role() == {
        "input": 12,
        "weight": 2 * 32 + 4 * 4,  # the bias stays in the fp32 of the accumulator
        "activation": 36,
    }


def test_overrides_decide_by_the_module_that_makes_a_tensor_and_the_one_that_uses_it():
    formatted = EVERY_ROLE.with_formats(RECIPE.excepting("b.*", activation="bf16", weight="int16"))
    # Made in a, and w first read there: stored as a has it.
    assert (formatted.tensors["act"].format, formatted.tensors["w"].format) == ("int8", "int4")
    # But b computes with its own formats, which the device converts to.
    assert formatted.ops[1].formats.operands == ("bf16", "e4m3fn", "bf16", "int64", "int16")
    assert formatted.tensors["buf"].format == "bf16"


FP8 = Recipe("fp8 products", {"weight": "e4m3fn", "activation": "e4m3fn", "gradient": "e5m2", "elementwise": "bf16"})


def test_what_lies_between_products_has_a_format_of_its_own():
    formatted = two_layers().with_formats(FP8)
    # x is read by a product alone; h by the ReLU and by a product, y by nobody.
    assert {name: t.format for name, t in formatted.tensors.items() if t.role != "weight"} == {
        "x": "e4m3fn",
        "h": "bf16",
        "h:1": "bf16",
        "y": "bf16",
    }
    # A product still consumes its operands in the format of its role: the device converts.
    assert [op.formats.operands for op in formatted.ops] == [("e4m3fn", "e4m3fn", "fp32"), ("bf16",), ("e4m3fn", "e4m3fn")]


def test_attention_is_written_out_where_values_between_products_differ():
    whole = attention(1, 2, 2, 3, 5, 4, 4, "output")
    assert [op.kind for op in whole.with_formats("bf16").ops] == ["attention"]
    formatted = whole.with_formats(FP8)
    consumed = {op.name.rpartition("/")[2]: op.formats.operands for op in formatted.ops}
    assert consumed == {"scores": ("e4m3fn", "e4m3fn"), "scale": ("bf16",), "softmax": ("bf16",), "values": ("e4m3fn", "e4m3fn")}
    stored = {name.rpartition(".")[2]: tensor.format for name, tensor in formatted.tensors.items()}
    assert (stored["scores"], stored["scaled"], stored["probabilities"]) == ("bf16", "bf16", "e4m3fn")


def test_the_first_and_the_last_product_with_weights_may_differ():
    workload = chain("three", [Matmul(name=name, m=2, n=2, k=2, module=name) for name in ("first", "middle", "last")])
    recipe = Recipe("ends", {"weight": "int4", "activation": "int4"}, first_and_last={"weight": "int8", "activation": "int8"})
    assert [op.formats.operands for op in workload.with_formats(recipe).ops] == [("int8",) * 2, ("int4",) * 2, ("int8",) * 2]


def test_a_second_recipe_is_refused():
    formatted = two_layers().with_formats("int8")
    with raises("workload 'two' already has the formats of recipe 'int8'; give the one without"):
        formatted.with_formats("bf16")


def test_an_unknown_recipe_is_refused():
    with pytest.raises(InputError, match=r"^recipe: unknown name 'bf61'; did you mean 'bf16'"):
        two_layers().with_formats("bf61")


# --- composites ---------------------------------------------------------------------------------------------


def attention(batch, kv_heads, share, query, key, width, value, computes):
    heads = kv_heads * share
    q, k = (batch, heads, query, width), (batch, kv_heads, key, width)
    v, y = (batch, kv_heads, key, value), (batch, heads, query, value)
    shapes = {"q": q, "k": k, "v": v, "y": y, "gy": y, "gq": q, "gk": k, "gv": v}
    output = computes == "output"
    op = Attention(
        name="att",
        inputs=("q", "k", "v") if output else ("gy", "q", "k", "v"),
        outputs=("y",) if output else ("gq", "gk", "gv"),
        batch=batch,
        heads=heads,
        kv_heads=kv_heads,
        query_length=query,
        key_length=key,
        head_dim=width,
        value_dim=value,
        computes=computes,
        phase="forward" if output else "backward",
        module="m",
    )
    return Workload("att", (op,), {n: Tensor(n, s, "fp32") for n, s in shapes.items()}, ("q",), op.outputs)


@given(
    sizes=st.tuples(*[st.integers(1, 3)] * 7),
    computes=st.sampled_from(["output", "gradients"]),
)
def test_an_expanded_attention_does_the_same_work(sizes, computes):
    workload = attention(*sizes, computes)
    expanded = workload.expanded()
    assert expanded.macs == workload.macs
    assert expanded.operations() == workload.operations()
    assert "attention" not in expanded.count_by_kind()
    assert expanded.outputs == workload.outputs
    # Every matrix product has operands and result of its sizes; nothing is read before it is written.
    made = set(workload.inputs) | {"q", "k", "v", "gy"}
    for op in expanded.ops:
        assert set(op.inputs) <= made, op.name
        made |= set(op.outputs)
        assert (op.module, op.phase) == ("m", workload.ops[0].phase)
        if isinstance(op, Matmul):
            held = [expanded.tensors[t].elements for t in (*op.inputs, *op.outputs)]
            assert held == [op.batch * op.m * op.k, op.batch * op.k * op.n, op.batch * op.m * op.n]
    assert set(workload.ops[0].outputs) <= made


def test_expansion_keeps_formats():
    expanded = attention(1, 2, 2, 3, 5, 4, 4, "output").with_formats("bf16").expanded()
    assert all(op.formats.operands[:1] == ("bf16",) for op in expanded.ops)
    assert expanded.tensors["att.scores"].format == "bf16"


def test_a_workload_without_composites_is_its_own_expansion():
    workload = two_layers()
    assert workload.expanded() is workload


def test_a_chain_gives_each_operator_its_own_tensors():
    nest = {
        "batch": 2,
        "in_channels": 4,
        "out_channels": 6,
        "input_size": (5,),
        "output_size": (3,),
        "kernel": (3,),
        "stride": (1,),
        "padding": ((0, 0),),
        "dilation": (1,),
        "groups": 2,
    }
    x, w, y = (2, 4, 5), (6, 2, 3), (2, 6, 3)
    found = chain(
        "c",
        [
            Matmul(name="mm", m=2, n=3, k=4),
            *(Convolution(name=f"to_{c}", computes=c, **nest) for c in ("output", "input", "weight")),
        ],
    )
    shapes = {op.name: [found.tensors[t].shape for t in (*op.inputs, *op.outputs)] for op in found.ops}
    assert shapes == {
        "mm": [(1, 2, 4), (1, 4, 3), (1, 2, 3)],
        "to_output": [x, w, y],
        "to_input": [y, w, x],
        "to_weight": [x, y, w],
    }
    assert found.dependencies == ((),) * 4
    assert found.depth == 1


# --- files --------------------------------------------------------------------------------------------------


@given(workloads())
def test_a_file_reads_back_the_same(workload):
    assert Workload.from_json(workload.to_json()) == workload


@pytest.mark.parametrize("recipe", ["bf16", "w4a16"])
def test_formats_are_in_the_file(tmp_path, recipe):
    workload = EVERY_ROLE.with_formats(recipe)
    path = tmp_path / "w.json"
    workload.to_json(path)
    again = load_json(path)
    assert again == workload
    assert again.recipe == recipe
    assert again.ops[0].formats == workload.ops[0].formats


def test_density_and_metadata_are_in_the_file():
    workload = replace(
        two_layers(),
        tensors={**two_layers().tensors, "x": Tensor("x", (2, 3), "fp32", "input", density=0.25)},
        metadata={"batch": 2, "source": "test", "nested": {"a": [1, 2]}},
    )
    assert Workload.from_json(workload.to_json()) == workload


DATA = json.loads(two_layers().to_json())


def without(key):
    return {k: v for k, v in DATA.items() if k != key}


def first_tensor(**change):
    entry = {**DATA["tensors"][0], **change}
    return {**DATA, "tensors": [{k: v for k, v in entry.items() if v != "gone"}, *DATA["tensors"][1:]]}


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ([], 'w: not a workload file: expected "schema": "hwsim.workload"'),
        ({**DATA, "schema": "hwsim.report"}, 'w: not a workload file: expected "schema": "hwsim.workload"'),
        ({**DATA, "version": 2}, "w: version 2 of the schema; this hwsim reads 1"),
        (without("version"), "w: version None of the schema; this hwsim reads 1"),
        (without("ops"), "w: field 'ops' is missing"),
        ({**DATA, "tensor": []}, "w: field: unknown name 'tensor'; did you mean 'tensors'?"),
        ({**DATA, "ops": 3}, "w: field 'ops' must be a list, got 3"),
        ({**DATA, "metadata": []}, "w: field 'metadata' must be a mapping, got []"),
        ({**DATA, "tensors": [3]}, "w: a tensor must be a mapping with name, shape and format, got 3"),
        ({**DATA, "tensors": DATA["tensors"] * 2}, "w: two tensors are called 'x'"),
        (first_tensor(shapes=[1]), "w: tensor field: unknown name 'shapes'; did you mean 'shape'?"),
        (
            first_tensor(format="gone"),
            "w: a tensor lacks the field 'format': {'name': 'x', 'shape': [2, 3], 'role': 'input'}",
        ),
        (first_tensor(shape=3), "w: tensor 'x': shape must be a list, got 3"),
        (first_tensor(shape=[2, -3]), "tensor 'x': shape must hold integers ≥ 0, got (2, -3)"),
        (first_tensor(role="activations"), "tensor 'x': role: unknown name 'activations'; did you mean 'activation'?"),
        (first_tensor(density=1.5), "tensor 'x': density must lie in [0, 1], got 1.5"),
        (first_tensor(storage=7), "w: tensor 'x': storage must be text, got 7"),
        (first_tensor(storage="nobody"), "workload 'two': tensor 'x' shares the memory of 'nobody', not listed"),
        (first_tensor(name="xx"), "workload 'two': op 'fc1' names a tensor 'x' that is not listed"),
        ({**DATA, "inputs": ["q"]}, "workload 'two': 'q' is an input or output but not a listed tensor"),
        ({**DATA, "ops": DATA["ops"] * 2}, "workload 'two': two ops are called 'fc1'"),
    ],
)
def test_a_wrong_file_is_named(data, text):
    with raises(text):
        Workload.from_json(json.dumps(data), source="w")


def test_a_file_that_is_no_json_is_named(tmp_path):
    (tmp_path / "w.json").write_text("{")
    with pytest.raises(InputError, match=r"w\.json: not valid JSON: .* line 1 column 2"):
        load_json(tmp_path / "w.json")
    with pytest.raises(InputError, match=r"none\.json: cannot be read: .*No such file"):
        load_json(tmp_path / "none.json")


def test_a_tensor_is_listed_by_its_own_name():
    with raises("workload 'w': tensor 'a' is listed as 'b'"):
        Workload("w", (), {"b": Tensor("a", (1,), "fp32")})


def test_it_says_what_it_is():
    assert repr(two_layers()) == "Workload('two': 3 ops, 64 MACs, 36 parameters)"
    assert repr(two_layers().with_formats("int8")).endswith("36 parameters, formats 'int8')")


# --- what is kept with a workload ---------------------------------------------------------------------------


def test_what_is_derived_is_made_once_for_each_key_and_each_workload():
    made = []

    def make(name):
        return lambda: made.append(name) or name

    first, second = two_layers(), two_layers()
    assert [first.derived("a", make("x")), first.derived("a", make("y")), first.derived("b", make("z"))] == ["x", "x", "z"]
    assert second.derived("a", make("other")) == "other"
    assert replace(first, name="three").derived("a", make("new")) == "new"
    assert first.derived("none", lambda: made.append("none")) is first.derived("none", lambda: made.append("none"))
    assert made == ["x", "z", "other", "new", "none"]


def test_only_so_much_is_kept():
    workload = two_layers()
    for i in range(3 * DERIVED_LIMIT):
        assert workload.derived(i, lambda i=i: [i]) == [i]
    assert len(vars(workload)["_derived"]) == DERIVED_LIMIT
    newest = 3 * DERIVED_LIMIT - 1
    assert workload.derived(newest, list) == [newest]
    assert workload.derived(0, list) == []


def test_threads_get_one_and_the_same():
    workload = two_layers()
    begin = Barrier(8)

    def ask(_):
        begin.wait(timeout=10)
        return [workload.derived(key, object) for key in range(DERIVED_LIMIT)]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, range(8)))
    assert all(a is b for answer in found[1:] for a, b in zip(answer, found[0], strict=True))


@given(workloads())
def test_a_pickle_holds_the_fields_alone(workload):
    before = pickle.dumps(workload)
    workload.expanded(), workload.macs, workload.depth, workload.lifetimes, workload.peak_memory()
    for tensor in workload.tensors.values():
        assert tensor.bytes == 4 * tensor.elements
    assert pickle.dumps(workload) == before
    back = pickle.loads(before)
    assert back == workload
    assert back.peak_memory() == workload.peak_memory()
    assert set(vars(pickle.loads(before))) == {"name", "ops", "tensors", "inputs", "outputs", "recipe", "metadata"}
