"""Groups and residency: what they promise, checked operator by operator and instant by instant."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_graphs import workloads

from hwsim.api import workload_from
from hwsim.operators import Elementwise, Matmul, Normalization, Softmax
from hwsim.registry import get_device
from hwsim.schedule import Group, form_groups, group_traffic, plan_residency, schedule
from hwsim.workload import Tensor, Workload
from numerics.recipes import Recipe


def chain_of(group):
    """The matrix operator and what works on its results as they come."""
    return [*([] if group.matrix is None else [group.matrix]), *group.streamed]


# --- groups -------------------------------------------------------------------------------------------------


@given(workloads())
def test_groups_partition_the_operators(workload):
    groups = form_groups(workload)
    members = [i for group in groups for i in group.members]
    assert sorted(members) == list(range(len(workload)))
    for group in groups:
        assert (group.matrix is None) == (not any(workload.ops[i].is_matrix for i in group.members))
        assert not any(workload.ops[i].is_matrix for i in (*group.streamed, *group.background))
        assert group.row_wise <= set(group.streamed)
        assert list(group.members) == sorted(group.members)


@given(workloads())
def test_groups_run_after_what_they_wait_for(workload):
    place = {i: g for g, group in enumerate(form_groups(workload)) for i in group.members}
    for i, needs in enumerate(workload.dependencies):
        for j in needs:
            assert (place[j], j) < (place[i], i)


@given(workloads())
def test_within_a_group_only_the_chain_waits_and_only_for_the_chain(workload):
    needs = [set(n) for n in workload.dependencies]
    for group in form_groups(workload):
        chain, background = chain_of(group), set(group.background)
        for position, i in enumerate(chain):
            inside = needs[i] & set(group.members)
            assert inside <= set(chain[:position]), "the chain waits for nothing but itself, in its order"
            assert position == 0 or inside, "what streams works on something made in the group"
        for i in background:
            assert not needs[i] & set(chain), "the background does not wait for the chain"
            assert all(j < i for j in needs[i] & background)


@given(workloads())
def test_what_streams_is_as_large_as_the_result(workload):
    for group in form_groups(workload):
        for i in group.streamed:
            assert workload.ops[i].elements_out == workload.ops[group.matrix].elements_out


def network(*ops):
    """Operators given as (op, names of what it reads) that each write a tensor of their name."""
    tensors = {n: Tensor(n, (4, 6), "fp32", "input") for n in ("x", "r")}
    tensors["w"] = Tensor("w", (6, 6), "fp32", "weight")
    placed = []
    for op, read in ops:
        tensors[op.name] = Tensor(op.name, (4, 6), "fp32")
        placed.append(type(op)(**{**vars(op), "inputs": read, "outputs": (op.name,)}))
    return Workload("n", tuple(placed), tensors, ("x", "r"), (placed[-1].name,))


def matmul(name):
    return Matmul(name=name, m=4, n=6, k=6)


def relu(name):
    return Elementwise(name=name, operation="relu", elements=24)


def test_an_activation_streams_and_a_residual_with_it():
    found = form_groups(network((matmul("fc"), ("x", "w")), (relu("act"), ("fc",)), (relu("add"), ("act", "r"))))
    assert found == [Group(0, streamed=(1, 2))]


def test_rows_of_a_matmul_stream_row_by_row():
    softmax = Softmax(name="s", operation="softmax", elements=24, rows=4)
    assert form_groups(network((matmul("fc"), ("x", "w")), (softmax, ("fc",)))) == [
        Group(0, streamed=(1,), row_wise=frozenset({1}))
    ]
    # A normalisation over rows other than the result's has to wait for all of it.
    across = Normalization(name="s", operation="layer_norm", elements=24, rows=1)
    assert form_groups(network((matmul("fc"), ("x", "w")), (across, ("fc",)))) == [
        Group(0),
        Group(None, background=(1,)),
    ]


def test_a_batch_norm_in_inference_streams_and_in_training_waits():
    for operation, expected in (
        ("batch_norm", [Group(0, streamed=(1,))]),
        ("batch_norm_training", [Group(0), Group(None, background=(1,))]),
    ):
        norm = Normalization(name="bn", operation=operation, elements=24, rows=6)
        assert form_groups(network((matmul("fc"), ("x", "w")), (norm, ("fc",)))) == expected


def test_what_neither_waits_runs_in_the_background():
    groups = form_groups(network((matmul("fc"), ("x", "w")), (relu("side"), ("r",)), (relu("act"), ("fc",))))
    assert groups == [Group(0, streamed=(2,), background=(1,))]
    assert groups[0].members == (0, 1, 2)


def test_what_a_matmul_waits_for_runs_before_it():
    found = form_groups(network((relu("a"), ("x",)), (relu("b"), ("r",)), (relu("c"), ("a",)), (matmul("fc"), ("c", "w"))))
    assert found == [Group(None, background=(0,)), Group(None, background=(2,)), Group(3, background=(1,))]


def test_what_needs_chain_and_background_opens_a_group_of_its_own():
    found = form_groups(network((matmul("fc"), ("x", "w")), (relu("side"), ("r",)), (relu("both"), ("fc", "side"))))
    assert found == [Group(0, background=(1,)), Group(None, background=(2,))]


# --- residency ----------------------------------------------------------------------------------------------


def touched(workload, groups):
    """Memory owner → (groups that write it, groups that read it), from the operators themselves."""
    found = {}
    for g, group in enumerate(groups):
        for i in group.members:
            op = workload.ops[i]
            for position, names in enumerate((op.outputs, op.inputs)):
                for name in names:
                    found.setdefault(workload.tensors[name].owner, (set(), set()))[position].add(g)
    return found


@given(workloads(), st.integers(0, 120))
def test_what_is_kept_fits_at_every_instant(workload, capacity):
    groups = form_groups(workload)
    plan = plan_residency(workload, groups, capacity)
    uses = touched(workload, groups)
    for instant in range(len(groups)):
        held = [owner for owner in plan.kept if min(uses[owner][0]) <= instant <= max(uses[owner][0] | uses[owner][1])]
        assert sum(workload.tensors[owner].bytes for owner in held) <= capacity


@given(workloads(), st.integers(0, 120), st.integers(0, 120))
def test_a_larger_store_keeps_all_that_a_smaller_one_keeps(workload, capacity, more):
    groups = form_groups(workload)
    small = plan_residency(workload, groups, capacity)
    large = plan_residency(workload, groups, capacity + more)
    assert small.kept <= large.kept
    assert small.internal == large.internal


@given(workloads())
def test_what_is_internal_is_seen_by_one_group_only(workload):
    groups = form_groups(workload)
    plan = plan_residency(workload, groups, 10**9)
    uses = touched(workload, groups)
    outside = {workload.tensors[t].owner for t in (*workload.inputs, *workload.outputs)}
    assert not plan.internal & plan.kept
    for owner in plan.internal:
        assert len(uses[owner][0] | uses[owner][1]) == 1
        assert owner not in outside
    for owner in plan.internal | plan.kept:
        assert workload.tensors[owner].role in ("activation", "gradient", "index")


@given(workloads())
def test_an_endless_store_keeps_every_intermediate_result(workload):
    groups = form_groups(workload)
    plan = plan_residency(workload, groups, 10**9)
    for owner, (written, read) in touched(workload, groups).items():
        later = read - {min(written)} if written else set()
        if later and workload.tensors[owner].role in ("activation", "gradient"):
            assert owner in plan.kept


@pytest.mark.parametrize(("capacity", "kept"), [(95, set()), (96, {"b"}), (191, {"b"}), (192, {"a", "b"})])
def test_the_shorter_lived_stays_first(capacity, kept):
    # a lives over three groups, b over two of them; each takes 4 × 6 × 4 = 96 bytes.
    across = Normalization(name="c", operation="layer_norm", elements=24, rows=1)
    workload = network((matmul("a"), ("x", "w")), (matmul("b"), ("x", "w")), (across, ("b", "a")))
    groups = form_groups(workload)
    assert len(groups) == 3
    assert plan_residency(workload, groups, capacity).kept == kept


# --- what is kept with the workload -------------------------------------------------------------------------


@given(workloads(), st.integers(0, 100))
def test_a_schedule_is_what_its_parts_say(workload, capacity):
    found = schedule(workload, capacity)
    assert schedule(workload, capacity) is found
    assert list(found.groups) == form_groups(workload)
    assert found.residency == plan_residency(workload, form_groups(workload), capacity)
    assert list(found.traffic) == [group_traffic(workload, group, found.residency) for group in found.groups]


@given(workloads(), st.integers(0, 100))
def test_groups_alike_move_the_same(workload, capacity):
    found = schedule(workload, capacity)
    first = {}
    for group, traffic, alike in zip(found.groups, found.traffic, found.likeness, strict=True):
        moved = [replace(part, op=None) for _, part in sorted(traffic.items())]
        kinds = [(workload.ops[i].kind, workload.ops[i].elements_out) for i in group.members]
        assert first.setdefault(alike, (kinds, moved)) == (kinds, moved)


def test_likeness_sees_all_but_names():
    def alike(*, second=None, size=(4, 6), role="activation", density=None, outputs=("y",)):
        ops = [Matmul(name=n, m=4, n=6, k=6, inputs=("x", f"w{n}"), outputs=(f"o{n}",), module=n) for n in "ab"]
        end = Elementwise(name="end", operation="add", elements=24, inputs=("oa", "ob"), outputs=("y",), aligned=False)
        weights = [Tensor("wa", (6, 6), "fp32", "weight"), Tensor("wb", (6, 6), "fp32", "weight")]
        made = [Tensor("oa", (4, 6), "fp32"), Tensor("ob", size, "fp32", role, density), Tensor("y", (4, 6), "fp32")]
        tensors = {t.name: t for t in (Tensor("x", (4, 6), "fp32", "input"), *weights, *made)}
        placed = (ops[0], replace(ops[1], **(second or {})), end)
        a, b, _ = schedule(Workload("n", placed, tensors, ("x",), outputs), 0).likeness
        return a == b

    assert alike()
    assert alike(second={"source": "aten.mm"})
    assert not alike(second={"bias": True})
    assert not alike(second={"inputs": ("x", "x")})
    assert not alike(second={"phase": "backward"})
    assert not alike(size=(2, 6))
    assert not alike(role="gradient")
    assert not alike(density=0.5)
    assert not alike(outputs=("y", "ob"))


def binary_chains():
    """Two equal binary layers in groups of their own; the first ends in a sign, which folds its normalisation."""
    tensors = {"x": Tensor("x", (16, 32), "fp32", "input")}
    ops = []

    def add(op, *read):
        for name in read:
            if name.startswith("w"):
                tensors[name] = Tensor(name, (32, 32), "fp32", "weight")
        tensors[op.name] = Tensor(op.name, (16, 32), "fp32")
        ops.append(replace(op, inputs=read, outputs=(op.name,)))

    for n in "ab":
        add(Matmul(name=f"fc_{n}", m=16, n=32, k=32), "x", f"w_{n}")
        add(Normalization(name=f"norm_{n}", operation="batch_norm", elements=512, rows=32), f"fc_{n}")
    add(Matmul(name="fc_c", m=16, n=32, k=32), "x", "w_c")
    add(Elementwise(name="sign_a", operation="sign", elements=512), "norm_a")
    add(Elementwise(name="gelu_b", operation="gelu", elements=512), "norm_b")
    formats = {"weight": "binary", "activation": "binary", "accumulator": "fp32", "elementwise": "fp32"}
    plain = Workload("chains", tuple(ops), tensors, ("x",), ("fc_c", "sign_a", "gelu_b"))
    return plain.with_formats(Recipe("signs", formats))


@pytest.mark.parametrize("name", ["a100", "bnn_popcount", "eyeriss", "nvdla_128", "sparse_csr", "tpe_systolic_mac", "tulip"])
def test_costing_groups_alike_once_changes_no_figure(name, monkeypatch):
    device = get_device(name)
    work = [workload_from("gpt2"), workload_from("mlp0", batch=2, mode="training")]
    work += [binary_chains()] if device.kind == "binary_engine" else []
    for workload in work:
        once = device.simulate(workload).to_dict()
        with monkeypatch.context() as patch:
            patch.setattr("hwsim.schedule._description", lambda *_: object())
            apart = device.simulate(pickle.loads(pickle.dumps(workload))).to_dict()
        assert apart == once


def test_what_a_machine_tells_apart_is_costed_apart():
    placed = binary_chains()
    found = schedule(placed, 0)
    of = {
        placed.ops[group.matrix].name: alike
        for group, alike in zip(found.groups, found.likeness, strict=True)
        if group.matrix is not None
    }
    assert of["fc_a"] == of["fc_b"], "the machine alone knows that one of them is folded"
    cost = {op.name: op for op in get_device("tulip").simulate(placed).ops}
    assert cost["norm_a"].energy_j["vector"] < cost["norm_b"].energy_j["vector"]
