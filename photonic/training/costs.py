"""What one step of training takes in each scheme, in closed form: the same network, the same batch.

A network has two layers of ``ports`` numbers, the second of which gives the classes:

- ``backpropagation``: both digital, dense.
- ``in_situ``: both meshes, gradients measured (``in_situ``).
- ``twin``: both meshes, gradients of digital twins (``twins``).
- ``forward_forward``: both meshes that are never set, a dense digital layer behind each (``forward_forward``).
- ``feedback``: both digital, errors through a medium (``feedback``).

Digital meshes are counted as 2×2 complex cells, 16 real MACs for each vector and interferometer. Backwards, light and gradient
both run through them, and each phase takes 2 MACs more. Setting up the cells' numbers is left out: it does not grow with the
batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, get_args

from numerics._fields import check_integer
from numerics.errors import InputError
from photonic._numbers import is_one_of, one_of
from photonic.layouts import MeshLayout, layout
from photonic.training.tallies import Way, Work

Scheme = Literal["backpropagation", "in_situ", "twin", "forward_forward", "feedback"]
SCHEMES: tuple[Scheme, ...] = get_args(Scheme)


def phases_of(plan: MeshLayout) -> int:
    """Phase shifters of a mesh."""
    return 2 * plan.mzis + plan.ports


def mesh_macs(plan: MeshLayout, batch: int) -> tuple[int, int]:
    """(forward, backward) real MACs of a digital mesh: complex 2×2 cells and a phase at each output.

    Raises:
        InputError: no layout, a batch below 1.
    """
    is_one_of("plan", plan, MeshLayout)
    check_integer("batch", batch, 1)
    once = 16 * plan.mzis + 4 * plan.ports
    return batch * once, batch * (2 * once + 2 * phases_of(plan))


def backpropagation_work(sizes: Sequence[int], batch: int) -> Work:
    """A step of a dense network with tanh between its layers and a softmax at its end."""
    pairs = list(pairwise(sizes))
    products = sum(a * b for a, b in pairs)
    back = sum(a * b for a, b in pairs[1:])
    hidden = sum(sizes[1:-1])
    return Work(
        macs=batch * (2 * products + back),
        elementwise=batch * (4 * hidden + 2 * sizes[-1]),
        updates=sum((a + 1) * b for a, b in pairs),
    )


def in_situ_work(plan: MeshLayout, batch: int, *, outputs: int, way: Way = "toggled") -> Work:
    """A step of an ``InSituLayer``: it is set, light goes forwards, gradients are measured, phases are updated.

    A vector goes in as real numbers, the adjoint and the interfering ones as complex ones at all ports; ends are read as complex
    numbers, taps as real ones.
    """
    ports, signals, phases = plan.ports, plan.signals or 0, phases_of(plan)
    interfering, tapped, sums = (2, 2, 2) if way == "toggled" else (1, 3, 4)
    return Work(
        elementwise=batch * (2 * outputs + sums * phases),
        updates=phases,
        light_vectors=batch * (2 + interfering),
        dac_samples=batch * ports * (1 + 2 + 2 * interfering),
        adc_samples=batch * (2 * signals + 2 * ports + tapped * phases),
        phase_settings=phases,
        settlings=1,
    )


def twin_work(plan: MeshLayout, batch: int, *, inputs: int, outputs: int) -> Work:
    """A step of a ``TwinLayer``: it is set, light goes forwards, the twin computes both ways, phases are updated."""
    phases = phases_of(plan)
    return Work(
        macs=sum(mesh_macs(plan, batch)),
        updates=phases,
        light_vectors=batch,
        dac_samples=batch * inputs,
        adc_samples=batch * outputs,
        phase_settings=phases,
        settlings=1,
    )


def forward_forward_work(machines: Sequence[tuple[int, int]], units: Sequence[int], batch: int) -> Work:
    """A step of ``ForwardForward``: ``machines`` are the (inputs, outputs) of its physical layers, ``units`` its rows of weights.

    All of it twice, for positive and negative data.
    """
    found = Work()
    for (inputs, outputs), rows in zip(machines, units, strict=True):
        found += Work(
            macs=2 * batch * 2 * rows * outputs,
            elementwise=2 * batch * 8 * rows,
            updates=rows * (outputs + 1),
            light_vectors=2 * batch,
            dac_samples=2 * batch * inputs,
            adc_samples=2 * batch * outputs,
        )
    return found


def feedback_work(sizes: Sequence[int], batch: int, *, ternary: bool = False) -> Work:
    """A step of a ``FeedbackNetwork`` without media: no product goes back through digital weights, the medium does that."""
    products = sum(a * b for a, b in pairwise(sizes))
    hidden, classes, patterns = sum(sizes[1:-1]), sizes[-1], 2 if ternary else 1
    return Work(
        macs=batch * 2 * products,
        elementwise=batch * (hidden * (1 + 4 + patterns + (patterns - 1)) + classes * (2 + (patterns - 1))),
        updates=sum((a + 1) * b for a, b in pairwise(sizes)),
        light_vectors=batch * 2 * patterns,
        dac_samples=batch * 2 * patterns * classes,
        adc_samples=batch * 2 * patterns * hidden,
    )


def scheme_work(scheme: Scheme, ports: int, classes: int, batch: int) -> Work:
    """A step of the network that the module describes, with rectangular meshes.

    What joins two meshes (scaling to norm 1) and the loss behind the last are left out where a scheme leaves them to autograd:
    some numbers of elementwise operations for each port.

    Args:
        scheme: of ``Scheme``.
        ports: of both layers; ``forward_forward`` needs as many for data and label together.
        classes: results of the second layer, below ``ports``.
        batch: samples of the step.

    Raises:
        InputError: an unknown scheme, a number out of range.
    """
    one_of("scheme", scheme, SCHEMES)
    check_integer("ports", ports, 2)
    check_integer("batch", batch, 1)
    if check_integer("classes", classes, 2) >= ports:
        raise InputError(f"classes: expected fewer than {ports} ports, got {classes}")
    sizes, plan = (ports, ports, classes), layout("rectangular", ports)
    if scheme == "backpropagation":
        return backpropagation_work(sizes, batch)
    if scheme == "in_situ":
        return in_situ_work(plan, batch, outputs=ports) + in_situ_work(plan, batch, outputs=classes)
    if scheme == "twin":
        parts = (twin_work(plan, batch, inputs=ports, outputs=outputs) for outputs in (ports, classes))
        return sum(parts, Work())
    if scheme == "forward_forward":
        return forward_forward_work(((ports, ports),) * 2, (ports, ports), batch)
    return feedback_work(sizes, batch)
