"""Groups and residency: what they promise, checked operator by operator and instant by instant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_graphs import workloads

from hwsim.operators import Elementwise, Matmul, Normalization, Softmax
from hwsim.schedule import Group, form_groups, plan_residency
from hwsim.workload import Tensor, Workload


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
