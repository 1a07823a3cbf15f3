"""Dense references of emulated engines, written from the physics: one tile, one node, one ring at a time, without noise."""

import copy

import numpy as np

from hwsim.registry import read_spec
from hwsim.spec import set_field
from photonic.decomposition import decompose
from photonic.device import PhotonicEngine
from photonic.imperfections import shifter_places

IDEAL = dict.fromkeys(
    ("phase_error", "splitter_error", "path_losses", "crosstalk", "drift", "setting", "rings", "extinction", "shot_noise", "adc"),
    "ideal",
)  # fmt: skip
SILENT = {
    "imperfections__shot_noise": "ideal",
    "imperfections__adc": "ideal",
    "laser__relative_intensity_noise_db_per_hz": "ideal",
    "receiver__thermal_noise": "ideal",
}
"""No noise and no ADC; what the optics do wrong stays."""


def engine(name, **changes):
    found = copy.deepcopy(dict(read_spec(PhotonicEngine.bundled()[name])))
    for field, value in changes.items():
        set_field(found, field.replace("__", "."), value)
    return PhotonicEngine.from_data(found, source="test")


def multiply(unit, a, b, bits=8, module="op"):
    from numerics.accumulator import Accumulator
    from numerics.formats import get_format

    fmt = get_format(f"int{bits}")
    return unit(a, b, accumulator=Accumulator(format="int32"), a_format=fmt, b_format=fmt, module=module)


def codes(shape, seed, bits=8):
    rng = np.random.default_rng(seed)
    return rng.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), shape).astype(np.float64)


def mesh_matrix(plan, unitary, chip, section, bits):
    """What light meets in a mesh that is told to be ``unitary``, interferometer by interferometer."""
    kind = plan.kind
    mesh = decompose(unitary, mesh=kind)
    return chain(plan, np.concatenate([mesh.theta, mesh.phi, mesh.output_phase]), chip, section, bits)


def driven_phases(plan, phases, section, bits):
    how, turn, n = section["setting"], 2 * np.pi, plan.mzis
    if how == "ideal":
        return phases
    how = {} if how == "tuning_bits" else how
    step = turn / 2**bits
    found = np.round(np.mod(phases, turn) / step) * step
    if how.get("arms") == "both":
        found[:n] = 2 * np.round(phases[:n] / 2 / step) * step
    if how.get("outputs") == "ideal":
        found[2 * n :] = phases[2 * n :]
    return found


def real_phases(plan, phases, chip, section, bits):
    turn = 2 * np.pi
    phases = driven_phases(plan, phases, section, bits)
    heat = section["crosstalk"]
    if heat != "ideal":
        step, port = shifter_places(plan)
        driven, phases = np.mod(phases, turn), phases.copy()
        for i in range(len(phases)):
            phases[i] = driven[i]
            for j in range(len(phases)):
                if i != j:
                    distance = np.hypot((step[i] - step[j]) * heat["shifter_um"], (port[i] - port[j]) * heat["port_um"])
                    phases[i] += heat["strength"] * np.exp(-distance / heat["length_um"]) * driven[j]
    return phases + chip.phase_errors


def chain(plan, phases, chip, section, bits):
    losses = section["path_losses"]
    splitter = 1.0 if losses == "ideal" else 10 ** (-losses["splitter_db"] / 20)
    shifter = 1.0 if losses == "ideal" else 10 ** (-losses["phase_shifter_db"] / 20)
    real, count = real_phases(plan, phases, chip, section, bits), plan.mzis
    total = np.eye(plan.ports, dtype=complex)
    for e in range(count):
        first, second = ([[np.cos(x), 1j * np.sin(x)], [1j * np.sin(x), np.cos(x)]] for x in chip.splitter_angles[e])
        inner, outer = (np.diag([shifter * np.exp(1j * x), 1]) for x in (real[e], real[count + e]))
        cell = np.eye(plan.ports, dtype=complex)
        places = np.ix_([plan.upper[e], plan.lower[e]], [plan.upper[e], plan.lower[e]])
        cell[places] = splitter**2 * np.array(second) @ inner @ np.array(first) @ outer
        if section["setting"] not in ("ideal", "tuning_bits") and section["setting"].get("arms") == "both":
            cell[places] *= np.exp(-0.5j * (driven_phases(plan, phases, section, bits)[e] - phases[e]))
        total = cell @ total
    return np.diag(shifter * np.exp(1j * real[2 * count :])) @ total
