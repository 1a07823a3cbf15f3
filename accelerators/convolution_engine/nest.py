"""A matrix operator as the loop nest that a convolution engine runs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hwsim.operators import Convolution, Matmul
from hwsim.workload import Workload


@dataclass(frozen=True)
class Layer:
    """One group of one image, and how many of them there are.

    Attributes:
        groups, images: outermost; a group has weights of its own, an image shares them.
        kernels, channels: of a group.
        taps: of the kernel, as (rows, columns, …).
        positions: outputs of a kernel in one image.
        out_rows: rows of them; a window of input rows makes one.
        feature_bytes, weight_bytes: input of one group and image; weights of one group.
        window_bytes: input that one output row needs.
        row_bytes: input that one more output row needs.
        packed: whether a cycle may hold channels of several columns.
    """

    groups: int
    images: int
    kernels: int
    channels: int
    taps: tuple[int, ...]
    positions: int
    out_rows: int
    feature_bytes: int
    weight_bytes: int
    window_bytes: int
    row_bytes: int
    packed: bool = False


def layer_of(workload: Workload, op: Matmul | Convolution, *, image_channels: int) -> Layer:
    """The nest of an operator; a gradient or transposed convolution is the matmul of its unrolled operands.

    Args:
        image_channels: a network's input of at most so many channels is packed.
    """
    features, weights = workload.read_bytes(op, 0), workload.read_bytes(op, 1)
    if not isinstance(op, Convolution) or op.computes != "output":
        groups, rows, kernels, inner = (op.batch, op.m, op.n, op.k) if isinstance(op, Matmul) else op.matmul_dims
        each, line = -(-features // groups), -(-features // (groups * rows))
        return Layer(groups, 1, kernels, inner, (1,), rows, rows, each, -(-weights // groups), line, line)
    channels = op.in_channels // op.groups
    each = -(-features // (op.groups * op.batch))
    line = -(-each // op.input_size[0])
    window = min(op.input_size[0], (op.kernel[0] - 1) * op.dilation[0] + 1)
    packed = channels <= image_channels and op.groups == 1 and workload.tensors[op.inputs[0]].role == "input"
    return Layer(
        groups=op.groups,
        images=op.batch,
        kernels=op.out_channels // op.groups,
        channels=channels,
        taps=op.kernel,
        positions=math.prod(op.output_size),
        out_rows=op.output_size[0],
        feature_bytes=each,
        weight_bytes=-(-weights // op.groups),
        window_bytes=window * line,
        row_bytes=min(op.stride[0], op.input_size[0]) * line,
        packed=packed,
    )
