"""What holds for every layout: unitarity, energy, gradients, and the exact mean of fidelity under errors."""

from math import sqrt

import numpy as np
import pytest
import torch
from mesh_reference import haar

from photonic.calibration import fidelity
from photonic.decomposition import decompose
from photonic.fabrication import fabricate
from photonic.gradient import apply_cells, apply_mesh
from photonic.imperfections import Imperfections, PhaseError, SplitterError
from photonic.layouts import layout
from photonic.mesh import Mesh

KINDS = ("rectangular", "triangular", "butterfly", "binary_tree", "diamond")


def plan_of(kind, ports):
    name, _, columns = kind.partition(":")
    return layout(name, ports).truncated(int(columns)) if columns else layout(name, ports)


# --- no light is lost or made ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*KINDS, "rectangular:8"])
def test_unitary_and_of_constant_energy_at_256_ports(kind):
    """As programmed, and as fabricated with everything wrong that loses no light."""
    mesh = Mesh.random(plan_of(kind, 256), seed=1)
    made = fabricate(mesh, Imperfections(PhaseError(0.1), splitter_error=SplitterError(0.1)), seed=2)
    rng = np.random.default_rng(3)
    vectors = rng.standard_normal((mesh.ports, 5)) + 1j * rng.standard_normal((mesh.ports, 5))
    for one in (mesh, made):
        matrix = one.matrix()
        assert np.abs(matrix.conj().T @ matrix - np.eye(mesh.ports)).max() <= 1e-13
        energy = (np.abs(one.apply(vectors)) ** 2).sum(axis=0) / (np.abs(vectors) ** 2).sum(axis=0)
        assert np.abs(energy - 1).max() <= 1e-13


# --- gradients ------------------------------------------------------------------------------------------------------------------


def power(out, weight):
    return (weight * out.abs().square()).sum()


def directional(function, tensors, directions, size):
    """Fourth-order difference along real or complex directions."""
    with torch.no_grad():
        steps = {k: function(*(t + k * size * d for t, d in zip(tensors, directions, strict=True))) for k in (-2, -1, 1, 2)}
    return float((8 * (steps[1] - steps[-1]) - (steps[2] - steps[-2])) / (12 * size))


@pytest.mark.parametrize("kind", [*KINDS, "rectangular:8"])
@pytest.mark.parametrize("way", ["phases", "unitary cells", "cells with loss"])
def test_gradients_against_finite_differences_at_64_ports(kind, way):
    """Along random directions in all phases, cells, output factors and vectors; to 1e-6 of what the largest could be."""
    plan = plan_of(kind, 64)
    mesh = Mesh.random(plan, seed=4)
    generator = torch.Generator().manual_seed(5)
    vectors = torch.randn(plan.ports, 7, generator=generator, dtype=torch.complex128)
    weight = torch.rand(plan.ports, 7, generator=generator, dtype=torch.float64)
    if way == "phases":
        numbers = [torch.tensor(phases) for phases in mesh.phases.values()]

        def function(theta, phi, output, light):
            return power(apply_mesh(plan, theta, phi, output, light), weight)
    else:
        cells = torch.from_numpy(mesh.cells())
        if way == "cells with loss":
            cells = cells * (0.9 + 0.1 * torch.rand(plan.mzis, 2, 1, generator=generator, dtype=torch.float64))
        numbers = [cells, torch.from_numpy(np.exp(1j * mesh.output_phase))]

        def function(cells, output, light):
            return power(apply_cells(plan, cells, output, light, unitary=way == "unitary cells"), weight)

    numbers.append(vectors)
    leaves = [number.clone().requires_grad_() for number in numbers]
    function(*leaves).backward()
    for _ in range(3):
        directions = [torch.randn(number.shape, generator=generator, dtype=number.dtype) for number in numbers]
        if way == "unitary cells":
            # Only changes that keep a cell unitary: K · cell with K anti-Hermitian, and steps along exp(cell⁻¹·K·cell).
            k = directions[0] - directions[0].mH
            directions[0] = k @ numbers[0]

            def moved(first, *others):
                return function(numbers[0] @ torch.linalg.matrix_exp(numbers[0].mH @ first - torch.eye(2)), *others)
        else:
            moved = function
        expected = directional(moved, numbers, directions, 1e-3 / sqrt(plan.ports))
        found = sum(float((leaf.grad.conj() * d).real.sum()) for leaf, d in zip(leaves, directions, strict=True))
        scale = max(float(leaf.grad.abs().square().sum().sqrt()) for leaf in leaves)
        assert abs(found - expected) <= 1e-6 * max(abs(expected), scale)


# --- mean fidelity --------------------------------------------------------------------------------------------------------------


def exact_mean_fidelity(mesh, unitary, *, phase, splitter):
    """E |tr(U†M)|²/N² where errors are independent: E[M ⊗ M*] is a product of what each phase and splitter is on average.

    phase: its σ, E e^{iδ} = e^{−σ²/2}; splitter: σ of its angle π/4 + δ: E r = E t = e^{−σ²/2}/√2, E r² = E t² = 1/2 and E rt =
    e^{−2σ²}/2 of [[r, it], [it, r]].
    """
    phase, r, rt = np.exp(-(phase**2) / 2), np.exp(-(splitter**2) / 2) / sqrt(2), np.exp(-2 * splitter**2) / 2
    mean_splitter = r * np.array([[1, 1j], [1j, 1]])
    straight, crossed = np.eye(2), np.array([[0, 1], [1, 0]])
    pair = (np.kron(straight, straight) + np.kron(crossed, crossed)) / 2
    pair = pair + 1j * rt * (np.kron(crossed, straight) - np.kron(straight, crossed))

    def shifted(angle):
        arm = phase * np.exp(1j * angle)
        return np.diag([1, arm, arm.conjugate(), 1])

    plan, n = mesh.layout, mesh.ports
    # Ports of both copies as two axes; a cell moves four of their pairs among themselves, alone on one copy it is its mean.
    total = np.eye(n * n, dtype=complex).reshape(n, n, n * n)
    for u, w, theta, phi in zip(plan.upper, plan.lower, mesh.theta, mesh.phi, strict=True):
        both = pair @ shifted(theta) @ pair @ shifted(phi)
        arms = [np.diag([phase * np.exp(1j * angle), 1]) for angle in (theta, phi)]
        alone = mean_splitter @ arms[0] @ mean_splitter @ arms[1]
        inside = np.concatenate([total[a, b][None] for a in (u, w) for b in (u, w)])
        ports = [u, w]
        total[ports] = np.einsum("ab,bjk->ajk", alone, total[ports])
        total[:, ports] = np.einsum("ab,jbk->jak", alone.conj(), total[:, ports])
        for place, row in zip([(a, b) for a in (u, w) for b in (u, w)], both @ inside, strict=True):
            total[place] = row
    ends = phase * np.exp(1j * mesh.output_phase)
    outer = np.outer(ends, ends.conj())
    np.fill_diagonal(outer, 1.0)
    total = (outer[:, :, None] * total).reshape(n, n, n, n)
    return float(np.einsum("ij,kl,ikjl->", unitary.conj(), unitary, total).real / n**2)


PHASE, SPLIT = 0.25, 0.15


def cases():
    unitary = haar(4, 6)
    yield "rectangular", decompose(unitary)
    yield "triangular", decompose(unitary, "triangular")
    yield "butterfly", Mesh.random(layout("butterfly", 8), seed=7)
    yield "binary tree", Mesh.random(layout("binary_tree", 5), seed=8)
    yield "truncated", Mesh.random(layout("rectangular", 6).truncated(3), seed=9)


@pytest.mark.parametrize(("name", "mesh"), list(cases()), ids=[name for name, _ in cases()])
@pytest.mark.parametrize(
    "what", [(0.0, 0.0), (PHASE, 0.0), (0.0, SPLIT), (PHASE, SPLIT)], ids=["nothing", "phases", "splitters", "both"]
)
def test_mean_fidelity_is_the_exact_one(name, mesh, what):
    """At errors so large that no expansion holds; 400 chips, within 4.5 standard errors."""
    target = mesh.matrix()
    exact = exact_mean_fidelity(mesh, target, phase=what[0], splitter=what[1])
    if what == (0.0, 0.0):
        assert exact == pytest.approx(1, abs=1e-13)
        return
    assert exact < 0.98
    faults = Imperfections(PhaseError(what[0]), splitter_error=SplitterError(what[1]))
    found = np.array([fidelity(fabricate(mesh, faults, seed=k).matrix(), target) for k in range(400)])
    assert abs(found.mean() - exact) < 4.5 * found.std() / sqrt(len(found))


@pytest.mark.parametrize("kind", ["butterfly", "rectangular:8", "triangular:12", "binary_tree"])
def test_mean_loss_of_fidelity_of_shallow_meshes(kind):
    """σ²·Σ (tr H²/N − (tr H)²/N²) over all errors, H the generator of each: a phase has tr H = tr H² = 1, a splitter's amplitude
    0 and 4. The published convention has one σ for all; phases of the mesh do not matter."""
    ports, sigma, chips = 64, 0.005, 150
    mesh = Mesh.random(plan_of(kind, ports), seed=10)
    phases = 2 * mesh.layout.mzis + ports
    lost = sigma**2 * (phases * (1 / ports - 1 / ports**2) + 2 * mesh.layout.mzis * 4 / ports)
    errors = Imperfections(PhaseError(sigma), splitter_error=SplitterError(sigma, of="amplitude"))
    ideal = mesh.matrix()
    found = np.array([1 - fidelity(fabricate(mesh, errors, seed=k).matrix(), ideal) for k in range(chips)])
    assert abs(found.mean() - lost) < 4.5 * found.std() / sqrt(chips) + 0.5 * lost**2
    assert found.std() / sqrt(chips) < 0.02 * lost
