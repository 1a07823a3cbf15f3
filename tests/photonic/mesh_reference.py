"""Meshes the plain way: full matrices, one splitter and one phase after another."""

import numpy as np

SPLITTER = np.array([[1, 1j], [1j, 1]])  # times √2


def mzi(theta, phi):
    """Both splitters' √2 are divided out at once: 1/√2 twice would lose a rounding of power in every MZI."""
    return SPLITTER @ np.diag([np.exp(1j * theta), 1]) @ SPLITTER @ np.diag([np.exp(1j * phi), 1]) / 2


def through_cells(layout, cells, output):
    """The matrix of a mesh of any 2×2 cells."""
    matrix = np.eye(layout.ports, dtype=complex)
    for cell, upper, lower in zip(cells, layout.upper, layout.lower, strict=True):
        matrix[[upper, lower]] = cell @ matrix[[upper, lower]]
    return np.asarray(output)[:, None] * matrix


def mesh_matrix(mesh):
    cells = [mzi(theta, phi) for theta, phi in zip(mesh.theta, mesh.phi, strict=True)]
    return through_cells(mesh.layout, cells, np.exp(1j * mesh.output_phase))


def haar(size, seed):
    """A unitary matrix from the Haar measure (F. Mezzadri, Notices of the AMS 54(5), 2007)."""
    rng = np.random.default_rng(seed)
    q, r = np.linalg.qr(rng.standard_normal((size, size)) + 1j * rng.standard_normal((size, size)))
    return q * (np.diagonal(r) / np.abs(np.diagonal(r)))
