"""Gradients through meshes, as torch functions, by the adjoint: light and the loss's gradient run backwards together.

What a mesh does without loss it can undo, so nothing but its output is kept: O(ports · batch). With o the light and g the
gradient at the same place, the gradient of a phase is Σ Im(g·conj(o)) over the batch, which is what intensity measurements in
the mesh itself give (T. W. Hughes et al., Optica 5(7), 864, 2018). Loss that every path shares is a number in front of a mesh.
Loss that differs between paths cannot be undone without amplifying rounding: there the light is kept every √depth columns and
computed again between, O(ports · batch · √depth).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from numerics._fields import check_flag
from numerics.errors import InputError
from photonic._numbers import finite, is_one_of
from photonic.layouts import MeshLayout
from photonic.propagation import CellChain, UnitaryChain

UNITARY = 1e-5
"""How far from unitary a cell may be that is run backwards."""


def apply_mesh(
    layout: MeshLayout, theta: torch.Tensor, phi: torch.Tensor, output_phase: torch.Tensor, vectors: torch.Tensor
) -> torch.Tensor:
    """``Mesh.apply``, bit for bit, with gradients with respect to all phases and the vectors.

    Args:
        layout: of the mesh.
        theta, phi: (MZIs,) real, radians.
        output_phase: (ports,) real, radians.
        vectors: (ports,) or (ports, batch), real or complex; complex64 and float32 are computed in single precision.

    Raises:
        InputError: no layout; a tensor of another shape or kind, not on the CPU, or with numbers that are not finite.
    """
    is_one_of("layout", layout, MeshLayout)
    for name, phases, size in (
        ("theta", theta, layout.mzis),
        ("phi", phi, layout.mzis),
        ("output_phase", output_phase, layout.ports),
    ):
        is_one_of(name, phases, torch.Tensor)
        if phases.shape != (size,) or not phases.is_floating_point():
            raise InputError(f"{name}: expected real numbers of shape ({size},), got {phases.dtype} of {tuple(phases.shape)}")
        _on_cpu(name, phases)
        _finite(name, phases)
    given = _light(vectors, layout)
    out: torch.Tensor = _Mesh.apply(theta, phi, output_phase, given.reshape(layout.ports, -1), layout)
    return out.reshape(given.shape)


def apply_cells(
    layout: MeshLayout, cells: torch.Tensor, output: torch.Tensor, vectors: torch.Tensor, *, unitary: bool = False
) -> torch.Tensor:
    """``mesh.propagate`` with gradients with respect to the cells, the outputs' factors and the vectors.

    Args:
        layout: of the mesh.
        cells: (MZIs, 2, 2) complex.
        output: (ports,) complex.
        vectors: (ports,) or (ports, batch), as for ``apply_mesh``.
        unitary: the cells are unitary (unequal splitters are, unequal losses are not): their light is run backwards, in
            O(ports · batch), and their gradient is the part along the unitary matrices, which is all that parameters that keep
            them unitary see.

    Raises:
        InputError: no layout; a tensor of another shape or kind, not on the CPU, or with numbers that are not finite; with
            ``unitary``, a cell that is not, or an output's factor of 0.
    """
    is_one_of("layout", layout, MeshLayout)
    check_flag("unitary", unitary)
    for name, numbers, shape in (("cells", cells, (layout.mzis, 2, 2)), ("output", output, (layout.ports,))):
        is_one_of(name, numbers, torch.Tensor)
        if numbers.shape != shape or not numbers.is_complex():
            raise InputError(f"{name}: expected complex numbers of shape {shape}, got {numbers.dtype} of {tuple(numbers.shape)}")
        _on_cpu(name, numbers)
        _finite(name, numbers)
    given = _light(vectors, layout)
    if unitary:
        values = cells.detach().to(torch.complex128)
        off = float((values.mH @ values - torch.eye(2)).abs().max()) if layout.mzis else 0.0
        if not off <= UNITARY:
            raise InputError(f"cells: expected unitary matrices, got one with |U†U − 1| = {off:.3g}")
        if not bool((output.detach().abs() > 0).all()):
            raise InputError("output: expected factors other than 0, because light is run backwards through them")
    function: Any = _UnitaryCells if unitary else _Cells
    out: torch.Tensor = function.apply(cells, output, given.reshape(layout.ports, -1), layout)
    return out.reshape(given.shape)


class _Mesh(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, theta: Any, phi: Any, output_phase: Any, vectors: Any, layout: MeshLayout) -> Any:
        chain = UnitaryChain.of_phases(layout, _real(theta), _real(phi))
        ctx.chain, ctx.factor = chain, np.exp(1j * _real(output_phase))
        ctx.kinds = theta.dtype, phi.dtype, output_phase.dtype
        out = torch.from_numpy(chain.forward(_array(vectors), ctx.factor))
        ctx.save_for_backward(out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Any) -> Any:
        (out,) = ctx.saved_tensors
        inputs, moments, ends = ctx.chain.backward(_array(out), _array(gradient), ctx.factor)
        theta = 0.5 * (moments[:, 0] + moments[:, 1] + moments[:, 2])
        phases = (torch.from_numpy(v).to(kind) for v, kind in zip((theta, moments[:, 4].copy(), ends), ctx.kinds, strict=True))
        return (*phases, torch.from_numpy(inputs), None)


class _UnitaryCells(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, cells: Any, output: Any, vectors: Any, layout: MeshLayout) -> Any:
        ctx.cells, ctx.factor = _complex(cells), _complex(output)
        ctx.chain, ctx.kinds = UnitaryChain.of_cells(layout, ctx.cells), (cells.dtype, output.dtype)
        out = torch.from_numpy(ctx.chain.forward(_array(vectors), ctx.factor))
        ctx.save_for_backward(out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Any) -> Any:
        (out,) = ctx.saved_tensors
        light, given = _array(out), _array(gradient)
        inputs, moments, _ = ctx.chain.backward(light, given, ctx.factor)
        # A change K·cell, K anti-Hermitian, changes the loss by Re tr(M†·K), M the anti-Hermitian part of Σ g·o† behind the cell.
        cross = moments[:, 2] + 1j * moments[:, 3]
        along = np.empty((len(cross), 2, 2), np.complex128)
        along[:, 0, 0], along[:, 1, 1] = 1j * moments[:, 0], 1j * moments[:, 1]
        along[:, 0, 1], along[:, 1, 0] = cross.conj() / 2, -cross / 2
        ends = np.einsum("pb,pb->p", given, light.conj()) / ctx.factor.conj()
        change = (torch.from_numpy(v).to(kind) for v, kind in zip((along @ ctx.cells, ends), ctx.kinds, strict=True))
        return (*change, torch.from_numpy(inputs), None)


class _Cells(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, cells: Any, output: Any, vectors: Any, layout: MeshLayout) -> Any:
        ctx.chain, ctx.factor = CellChain(layout, _complex(cells)), _complex(output)
        ctx.kinds = cells.dtype, output.dtype
        out, ctx.saved = ctx.chain.forward(_array(vectors), ctx.factor, keep=any(ctx.needs_input_grad))
        return torch.from_numpy(out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Any) -> Any:
        inputs, cells, ends = ctx.chain.backward(ctx.saved, _array(gradient), ctx.factor)
        change = (torch.from_numpy(v).to(kind) for v, kind in zip((cells, ends), ctx.kinds, strict=True))
        return (*change, torch.from_numpy(inputs), None)


def _light(vectors: torch.Tensor, layout: MeshLayout) -> torch.Tensor:
    is_one_of("vectors", vectors, torch.Tensor)
    _on_cpu("vectors", vectors)
    if vectors.dim() not in (1, 2) or vectors.shape[0] != layout.ports:
        raise InputError(f"vectors: expected shape ({layout.ports},) or ({layout.ports}, batch), got {tuple(vectors.shape)}")
    single = vectors.dtype in (torch.complex64, torch.float32, torch.float16, torch.bfloat16)
    light = vectors.to(torch.complex64 if single else torch.complex128)
    _finite("vectors", light)
    return light


def _finite(name: str, tensor: torch.Tensor) -> None:
    finite(name, _array(tensor) if tensor.is_complex() else _real(tensor))


def _on_cpu(name: str, tensor: torch.Tensor) -> None:
    if tensor.device.type != "cpu":
        raise InputError(f"{name}: expected a tensor on the CPU, got one on {tensor.device}")


def _array(tensor: torch.Tensor) -> Any:
    """Complex (ports, batch) as numpy has it."""
    return tensor.detach().resolve_conj().resolve_neg().contiguous().numpy()


def _real(tensor: torch.Tensor) -> Any:
    return tensor.detach().double().numpy()


def _complex(tensor: torch.Tensor) -> Any:
    return _array(tensor.to(torch.complex128))
