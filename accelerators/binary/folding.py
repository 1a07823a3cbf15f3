"""Operators behind a binary product that only move the threshold of the comparison with which a node ends.

sign(γ(s − μ)/σ + β) is whether s lies above (or, for a negative γ, below) one number, and clipping to an interval around 0 leaves
the sign alone: Umuroglu et al., "FINN" (FPGA 2017, arXiv 1612.07119), section 4.2.2.
"""

from __future__ import annotations

from accelerators.binary.spec import BINARY
from hwsim.operators import Elementwise, Normalization, Op
from hwsim.workload import Workload

_CLIPPING = ("hardtanh", "clamp")


def folded_ops(workload: Workload) -> frozenset[str]:
    """Names of operators that cost nothing on the engine: the chain from a binary product to the next sign.

    A chain begins with a product of binary operands and goes on through normalisations with stored statistics and clippings, each
    read by the next alone. It ends with a sign, or where a result is stored as one bit because only products read it.
    """
    readers: dict[str, list[int]] = {}
    for index, op in enumerate(workload.ops):
        for name in set(op.inputs):
            readers.setdefault(workload.tensors[name].owner, []).append(index)
    outputs = {workload.tensors[t].owner for t in workload.outputs}
    found: set[str] = set()
    for op in workload.ops:
        if not op.is_matrix or op.formats is None or op.formats.operands[:2] != (BINARY, BINARY) or not op.outputs:
            continue
        chain: list[str] = []
        tensor = workload.tensors[op.outputs[0]]
        while True:
            if chain and tensor.format == BINARY:
                found.update(chain)
                break
            next_ones = readers.get(tensor.owner, [])
            if len(next_ones) != 1 or tensor.owner in outputs:
                break
            follower = workload.ops[next_ones[0]]
            if not _moves_threshold(follower) or workload.tensors[follower.inputs[0]].owner != tensor.owner:
                break
            chain.append(follower.name)
            tensor = workload.tensors[follower.outputs[0]]
            if isinstance(follower, Elementwise) and follower.operation == "sign":
                found.update(chain)
                break
    return frozenset(found)


def _moves_threshold(op: Op) -> bool:
    if not op.outputs or not op.inputs or op.phase != "forward":
        return False
    if isinstance(op, Normalization):
        return op.operation == "batch_norm"
    return isinstance(op, Elementwise) and op.operation in ("sign", *_CLIPPING)
