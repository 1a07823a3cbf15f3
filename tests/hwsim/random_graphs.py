"""Hypothesis strategies: small workloads with views, in-place results and every role."""

from __future__ import annotations

from hypothesis import strategies as st

from hwsim.operators import DataMovement, Elementwise, Gather, Matmul, Op, Softmax
from hwsim.workload import Tensor, Workload

LEAF_ROLES = ("input", "weight", "optimizer_state", "kv_cache", "state", "index")
MADE_ROLES = ("activation", "gradient")


@st.composite
def workloads(draw: st.DrawFn, *, most_ops: int = 12) -> Workload:
    """A workload of up to ``most_ops`` operators over matrices of one size or of another."""
    tensors: dict[str, Tensor] = {}
    owners: list[str] = []

    def new(name: str, role: str, shape: tuple[int, ...], storage: str = "") -> str:
        tensors[name] = Tensor(name, shape, "fp32", role, storage=storage)
        if not storage:
            owners.append(name)
        return name

    shapes = [(2, 3), (3, 3), (6,)]
    for i in range(draw(st.integers(1, 4))):
        new(f"t{i}", draw(st.sampled_from(LEAF_ROLES)), draw(st.sampled_from(shapes)))
    inputs = tuple(name for name in owners if tensors[name].role in ("input", "index", "kv_cache"))
    ops: list[Op] = []
    for i in range(draw(st.integers(0, most_ops))):
        read = tuple(draw(st.lists(st.sampled_from(list(tensors)), min_size=1, max_size=3)))
        if draw(st.integers(0, 3)) == 0:  # in place: a new version of memory that is there, or a part of it
            owner = draw(st.sampled_from(owners))
            shape = tensors[owner].shape if draw(st.booleans()) else (1,)
            written = new(f"{owner}:{i}", tensors[owner].role, shape, owner)
        else:
            written = new(f"o{i}", draw(st.sampled_from(MADE_ROLES)), draw(st.sampled_from(shapes)))
        size = tensors[written].elements
        common = {"name": f"op{i}", "inputs": read, "outputs": (written,)}
        kind = draw(st.sampled_from(("matmul", "add", "softmax", "copy", "gather")))
        if kind == "matmul":
            ops.append(Matmul(m=1, n=size, k=2, **common))
        elif kind == "add":
            ops.append(Elementwise(operation="add", elements=size, **common))
        elif kind == "softmax":
            ops.append(Softmax(operation="softmax", elements=size, rows=1, **common))
        elif kind == "copy":
            ops.append(DataMovement(elements=size, **common))
        else:
            ops.append(Gather(elements=1, indices=1, **common))
    outputs = tuple(draw(st.lists(st.sampled_from(list(tensors)), max_size=2, unique=True)))
    return Workload("random", tuple(ops), tensors, inputs, outputs)
