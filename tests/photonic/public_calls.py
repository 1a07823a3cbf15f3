"""Each public name of the three packages with a call that works, and values that do not fit."""

from functools import cache

import numpy as np
import torch
from torch import nn

import hwsim
import photonic
from photonic import analog, training
from photonic.imperfections import Ideal

PLAN = photonic.layout("rectangular", 4)
MESH = photonic.Mesh.random(PLAN, seed=0)
UNITARY = MESH.matrix()
CHIP = photonic.fabricate(MESH, photonic.Imperfections(photonic.PhaseError(0.01)), seed=1)
CELLS, ENDS = torch.tensor(MESH.cells()), torch.ones(4, dtype=torch.complex128)
THETA, PHI, OUTPUT = (torch.tensor(phases) for phases in MESH.phases.values())
VECTORS, ROWS, LIGHT = np.ones((4, 3)), torch.full((3, 4), 0.25), torch.ones(4, 3)
TILES = photonic.SvdEngine.program(np.ones((3, 2)))
NET = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
SETTINGS = analog.AnalogSettings.alike(bits=4, std=0.01)
ANALOG = analog.to_analog(NET, SETTINGS, seed=0)
DEVICE = hwsim.get_device("coherent_mzi_56")
HOMODYNE, RECEIVER = photonic.Homodyne(1e-3), photonic.Receiver()
MEDIUM, LABELS = np.ones((3, 4)) + 0j, torch.tensor([0, 1, 1])
WORK = training.scheme_work("in_situ", 8, 4, 4)


@cache
def emulated():
    return DEVICE.emulate(NET)


def bench(detection=HOMODYNE):
    return photonic.Bench(CHIP, detection)


def machine():
    return training.PhysicalLayer(CHIP)


def forward_forward():
    return training.ForwardForward([machine()], 2, units=(3,))


def projection(medium=MEDIUM):
    return training.OpticalProjection(medium)


def feedback():
    return training.FeedbackNetwork((4, 3, 2), projection(training.scattering(2, 3, seed=0)))


def convolved(kind, shape):
    return getattr(analog, kind)(1, 2, 3, settings=SETTINGS, seed=0), {"x": torch.rand(shape)}


IDEAL = Ideal()
SAMPLES = {"device": DEVICE, "module": NET, "inputs": torch.rand(6, 4), "labels": [0, 1, 0, 1, 0, 1]}

# Name → what is called, and named arguments that are right. A name of a package is that in front of a space or point.
CALLS = {
    "layout": (photonic.layout, {"kind": "rectangular", "ports": 4}),
    "layout.truncated": (lambda columns: PLAN.truncated(columns), {"columns": 2}),
    "MeshLayout": (
        photonic.MeshLayout,
        {"kind": "one", "ports": 2, "upper": [0], "lower": [1], "column": [0], "first_signal": 0, "signals": 2},
    ),
    "Mesh": (photonic.Mesh, {"layout": PLAN, **MESH.phases}),
    "Mesh.random": (photonic.Mesh.random, {"layout": PLAN, "seed": 0}),
    "Mesh.apply": (lambda vectors: MESH.apply(vectors), {"vectors": VECTORS}),
    "Mesh.with_phases": (lambda theta: MESH.with_phases(theta=theta), {"theta": MESH.theta}),
    "mzi_cells": (photonic.mzi_cells, {"theta": 0.1, "phi": 0.2}),
    "propagate": (photonic.propagate, {"layout": PLAN, "cells": MESH.cells(), "output": np.ones(4), "vectors": VECTORS}),
    "CellChain": (photonic.CellChain, {"layout": PLAN, "cells": MESH.cells()}),
    "UnitaryChain": (photonic.UnitaryChain.of_cells, {"layout": PLAN, "cells": MESH.cells()}),
    "UnitaryChain of phases": (photonic.UnitaryChain.of_phases, {"layout": PLAN, "theta": MESH.theta, "phi": MESH.phi}),
    "decompose": (photonic.decompose, {"unitary": UNITARY, "mesh": "rectangular", "tolerance": 1e-8}),
    "SvdEngine": (photonic.SvdEngine.program, {"matrix": np.ones((3, 2)), "size": 2, "mesh": "rectangular"}),
    "SvdEngine.apply": (lambda vectors: TILES.apply(vectors), {"vectors": np.ones((2, 3))}),
    "fidelity": (photonic.fidelity, {"matrix": UNITARY, "target": UNITARY, "common_loss": False}),
    "PhaseError": (photonic.PhaseError, {"sigma_rad": 0.1}),
    "PhaseQuantisation": (photonic.PhaseQuantisation, {"bits": 4, "full_scale_rad": 7.0, "arms": "one", "outputs": True}),
    "PhaseQuantisation.driven": (photonic.PhaseQuantisation(4).driven, {"phases": MESH.theta}),
    "StuckShifters": (photonic.StuckShifters, {"share": 0.1, "phase_rad": 1.0}),
    "Drift": (photonic.Drift, {"rate_rad_per_root_s": 0.1}),
    "ExponentialKernel": (photonic.ExponentialKernel, {"strength": 0.1, "length_um": 3.0}),
    "MeasuredKernel": (photonic.MeasuredKernel, {"distances_um": (1.0, 2.0), "shares": (0.1, 0.05)}),
    "ThermalCrosstalk": (
        photonic.ThermalCrosstalk,
        {"kernel": photonic.ExponentialKernel(0.1, 1.0), "shifter_um": 1.0, "port_um": 1.0},
    ),
    "SplitterError": (photonic.SplitterError, {"sigma": 0.1, "of": "angle"}),
    "InsertionLoss": (
        photonic.InsertionLoss,
        {"splitter_db": 0.1, "phase_shifter_db": 0.1, "crossing_db": 0.1, "column_db": 0.1, "dummy_shifters": False},
    ),
    "Imperfections": (
        photonic.Imperfections,
        dict.fromkeys(
            ("phase_error", "phase_quantisation", "splitter_error", "insertion_loss", "crosstalk", "drift", "stuck"), IDEAL
        ),
    ),
    "fabricate": (photonic.fabricate, {"mesh": MESH, "imperfections": photonic.Imperfections(), "seed": 1}),
    "FabricatedMesh": (lambda vectors: CHIP.apply(vectors), {"vectors": VECTORS}),
    "FabricatedMesh.aged": (lambda seconds: CHIP.aged(seconds), {"seconds": 1.0}),
    "FabricatedMesh.with_phases": (lambda theta: CHIP.with_phases(theta=theta), {"theta": MESH.theta}),
    "Converter": (photonic.Converter, {"bits": 4, "full_scale": 1.0, "signed": True}),
    "Converter.convert": (photonic.Converter(4, 1.0).convert, {"values": VECTORS}),
    "ExtinctionRatio": (photonic.ExtinctionRatio, {"decibel": 20.0}),
    "Modulator": (photonic.Modulator, {"power_w": 1e-3, "extinction": IDEAL, "dac": IDEAL}),
    "Modulator.modulate": (photonic.Modulator(1e-3).modulate, {"values": VECTORS}),
    "Modulator.modulate_power": (photonic.Modulator(1e-3).modulate_power, {"values": VECTORS}),
    "ShotNoise": (photonic.ShotNoise, {"poisson_below": 10.0}),
    "ThermalNoise": (photonic.ThermalNoise, {"resistance_ohm": 50.0, "temperature_k": 300.0}),
    "LaserNoise": (photonic.LaserNoise, {"rin_per_hz": 1e-15}),
    "DeadDetectors": (photonic.DeadDetectors, {"ports": (1,)}),
    "Receiver": (
        photonic.Receiver,
        {
            "responsivity_a_per_w": 1.0,
            "bandwidth_hz": 1e9,
            "dark_a": 0.0,
            "wavelength_nm": 1550.0,
            **dict.fromkeys(("shot", "thermal", "laser", "adc", "dead"), IDEAL),
        },
    ),
    "Receiver.currents": (RECEIVER.currents, {"power_w": VECTORS, "seed": 0}),
    "Receiver.read": (RECEIVER.read, {"power_w": VECTORS, "seed": 0}),
    "Receiver.variances_a2": (photonic.Receiver(shot=photonic.ShotNoise()).variances_a2, {"power_w": VECTORS}),
    "Homodyne": (photonic.Homodyne, {"local_w": 1e-3, "receiver": RECEIVER}),
    "Homodyne.read": (HOMODYNE.read, {"light": VECTORS, "seed": 0}),
    "Homodyne.amplitudes": (HOMODYNE.amplitudes, {"light": VECTORS, "seed": 0}),
    "Bench": (photonic.Bench, {"mesh": CHIP, "detection": HOMODYNE, "power_w": 1e-3, "seed": 0}),
    "Bench.powers": (lambda vectors: bench(RECEIVER).powers(vectors), {"vectors": VECTORS + 0j}),
    "Bench.amplitudes": (lambda vectors: bench().amplitudes(vectors), {"vectors": VECTORS + 0j}),
    "align": (photonic.align, {"bench": bench(), "target": UNITARY}),
    "self_configure": (
        photonic.self_configure,
        {"bench": bench(), "target": UNITARY, "goal": "power", "sweeps": 1, "settings": 3},
    ),
    "descend": (photonic.descend, {"bench": bench(), "target": UNITARY, "goal": "power", "steps": 1, "rate": 0.1}),
    "refine": (photonic.refine, {"bench": bench(), "target": UNITARY, "steps": 1}),
    "apply_mesh": (photonic.apply_mesh, {"layout": PLAN, "theta": THETA, "phi": PHI, "output_phase": OUTPUT, "vectors": LIGHT}),
    "apply_cells": (photonic.apply_cells, {"layout": PLAN, "cells": CELLS, "output": ENDS, "vectors": LIGHT, "unitary": False}),
    "apply_cells of unitary ones": (
        lambda cells, vectors: photonic.apply_cells(PLAN, cells, ENDS, vectors, unitary=True),
        {"cells": CELLS, "vectors": LIGHT},
    ),
    "PhotonicFaults": (
        photonic.PhotonicFaults,
        {
            "stuck_shifters": 0.1,
            "stuck_phase_rad": 1.0,
            "dead_detectors": 0.1,
            "dead_ports": ((0, 1),),
            "drift_s": 1.0,
            "seed": 0,
        },
    ),
    "PhotonicCampaign": (
        photonic.PhotonicCampaign,
        {
            **SAMPLES,
            "faults": {"stuck": photonic.PhotonicFaults(stuck_shifters=0.1)},
            "margin": 0.1,
            "confidence": 0.95,
            "seed": 0,
            "first": 2,
            "maximum": 2,
            "interval": "student",
        },
    ),
    "PhotonicEngine": (DEVICE.emulate, {"module": NET, "recipe": None, "fidelity": None, "seed": 0}),
    "PhotonicEngine.unit": (DEVICE.unit, {"seed": 0, "faults": None}),
    "OpticalUnit": (photonic.OpticalUnit, {"spec": DEVICE.spec, "seed": 0, "faults": None}),
    "an emulated layer": (lambda x: emulated()(x), {"x": ROWS}),
    "AnalogSettings": (analog.AnalogSettings, dict.fromkeys(("input", "weight", "bias", "output"), IDEAL)),
    "AnalogSettings.alike": (
        analog.AnalogSettings.alike,
        {
            "precision": None,
            "bits": 4,
            "leakage": None,
            "std": 0.1,
            "noise": analog.GaussianNoise,
            "stochastic": False,
            "fixed_in_eval": False,
        },
    ),
    "to_analog": (analog.to_analog, {"module": NET, "settings": SETTINGS, "seed": 0, "except_for": (), "kinds": None}),
    "layer_list": (analog.layer_list, {"module": ANALOG}),
    "digital_products": (lambda module: analog.digital_products(module, ROWS), {"module": ANALOG}),
    "reseed": (analog.reseed, {"module": ANALOG, "seed": 1}),
    "an analog layer": (ANALOG, {"input": ROWS}),
    "AnalogLinear": (
        lambda settings, seed, inputs: analog.AnalogLinear(inputs, 2, settings=settings, seed=seed),
        {"settings": SETTINGS, "seed": 0, "inputs": 3},
    ),
    "AnalogConv1d": convolved("AnalogConv1d", (1, 1, 5)),
    "AnalogConv2d": convolved("AnalogConv2d", (1, 1, 5, 5)),
    "AnalogConv3d": convolved("AnalogConv3d", (1, 1, 5, 5, 5)),
    "AnalogConvTranspose1d": convolved("AnalogConvTranspose1d", (1, 1, 5)),
    "AnalogConvTranspose2d": convolved("AnalogConvTranspose2d", (1, 1, 5, 5)),
    "AnalogConvTranspose3d": convolved("AnalogConvTranspose3d", (1, 1, 5, 5, 5)),
    "Chain": (
        analog.Chain,
        {
            "normalise": analog.Norm(2.0),
            "reduce_precision": analog.ReducePrecision(bits=3),
            "noise": None,
            "rescale": True,
            "order": ("normalise", "reduce_precision", "noise"),
        },
    ),
    "Chain of numbers": (analog.Chain(analog.Norm(2.0), analog.ReducePrecision(bits=3)), {"x": ROWS}),
    "Noise": (analog.GaussianNoise, {"leakage": 0.1, "precision": 4, "seed": 0}),
    "GaussianNoise": (analog.GaussianNoise, {"std": 0.1, "seed": 0, "backward": "none", "fixed_in_eval": False}),
    "LaplacianNoise": (analog.LaplacianNoise, {"std": 0.1, "seed": 0}),
    "UniformNoise": (analog.UniformNoise, {"std": 0.1, "seed": 0}),
    "PoissonNoise": (analog.PoissonNoise, {"std": 0.1, "seed": 0}),
    "PoissonNoise of numbers": (analog.PoissonNoise(std=0.1, seed=0), {"x": ROWS}),
    "Norm": (analog.Norm, {"order": 2.0, "over": "row", "centred": False, "largest_one": False, "backward": "exact"}),
    "Normalise": (analog.Norm(2.0), {"x": ROWS}),
    "Clamp": (analog.Clamp, {"least": -1.0, "most": 1.0, "backward": "exact"}),
    "FullScale": (analog.FullScale, {"limit": 1.0, "backward": "exact"}),
    "fit_full_scales": (
        lambda module, share, x: analog.fit_full_scales(module, x, share=share),
        {"module": analog.Chain(analog.FullScale(1.0)), "share": 0.9, "x": ROWS},
    ),
    "ReducePrecision": (analog.ReducePrecision, {"precision": None, "bits": 3}),
    "StochasticReducePrecision": (analog.StochasticReducePrecision, {"precision": None, "bits": 3, "seed": 0}),
    "Stage": (analog.ReducePrecision(bits=3), {"x": ROWS}),
    "random_mesh": (training.random_mesh, {"ports": 4, "kind": "rectangular", "seed": 0}),
    "MeshLinear": (training.MeshLinear, {"mesh": MESH, "redrawn": IDEAL, "seed": 0}),
    "MeshLinear of numbers": (training.MeshLinear(MESH), {"vectors": ROWS}),
    "OpticalLayer": (
        training.OpticalLayer,
        {
            "inputs": 4,
            "outputs": 2,
            "mesh": "rectangular",
            "seen": "power",
            "chip": None,
            "redrawn": IDEAL,
            "reading_sigma": 0.1,
            "seed": 0,
        },
    ),
    "OpticalLayer of numbers": (training.OpticalLayer(4, 2), {"x": ROWS}),
    "PhysicalLayer": (
        training.PhysicalLayer,
        {
            "chip": CHIP,
            "inputs": 4,
            "outputs": 2,
            "modulator": photonic.Modulator(1e-3),
            "detection": RECEIVER,
            "seed": 0,
            "tally": None,
        },
    ),
    "PhysicalLayer of numbers": (lambda x: machine()(x), {"x": ROWS}),
    "PhysicalLayer.program": (lambda theta: machine().program(theta=theta), {"theta": MESH.theta}),
    "PhysicalLayer.advance": (lambda seconds: machine().advance(seconds), {"seconds": 1.0}),
    "PhysicalLayer.measure": (lambda values: machine().measure(values), {"values": np.ones((3, 4))}),
    "TwinLayer": (training.TwinLayer, {"machine": machine(), "twin": training.OpticalLayer(4, 4, chip=MESH)}),
    "deploy": (training.deploy, {"layer": training.OpticalLayer(4, 4, chip=MESH), "machine": machine()}),
    "scheme_work": (training.scheme_work, {"scheme": "in_situ", "ports": 8, "classes": 4, "batch": 4}),
    "mesh_macs": (training.mesh_macs, {"plan": PLAN, "batch": 3}),
    "scattering": (training.scattering, {"inputs": 3, "outputs": 4, "seed": 0}),
    "ternarised": (training.ternarised, {"errors": VECTORS, "threshold": 0.1}),
    "OpticalProjection": (
        training.OpticalProjection,
        {"medium": MEDIUM, "power_w": 1e-3, "camera": RECEIVER, "seed": 0, "tally": None},
    ),
    "OpticalProjection.powers": (projection().powers, {"vectors": np.ones((5, 4))}),
    "OpticalProjection.linear": (projection().linear, {"vectors": np.ones((5, 4))}),
    "OpticalProjection.ternary": (projection().ternary, {"signs": np.ones((5, 4))}),
    "InSituMesh": (training.InSituMesh, {"chip": CHIP, "probes": training.Probes(), "way": "toggled", "seed": 0, "tally": None}),
    "InSituMesh.forward": (training.InSituMesh(CHIP).forward, {"vectors": VECTORS}),
    "Measured": (training.InSituMesh(CHIP).gradient, {"vectors": VECTORS, "gradient": VECTORS + 0j}),
    "Probes": (training.Probes, {"modulator": photonic.Modulator(1e-3), "ends": HOMODYNE, "taps": RECEIVER, "tap_share": 0.5}),
    "InSituLayer": (training.InSituLayer, {"device": training.InSituMesh(CHIP), "inputs": 4, "outputs": 2, "seen": "power"}),
    "InSituLayer of numbers": (training.InSituLayer(training.InSituMesh(CHIP), 4, 2), {"x": ROWS}),
    "ForwardForward": (
        training.ForwardForward,
        {
            "layers": [machine()],
            "classes": 2,
            "units": (3,),
            "rate": 0.1,
            "sharpness": 1.0,
            "label_share": 0.3,
            "seed": 0,
            "tally": None,
        },
    ),
    "ForwardForward.step": (forward_forward().step, {"x": ROWS[:, :2], "labels": LABELS}),
    "ForwardForward.predict": (forward_forward().predict, {"x": ROWS[:, :2]}),
    "cosine_goodness": (training.cosine_goodness, {"outputs": ROWS, "direction": torch.ones(4)}),
    "FeedbackNetwork": (
        training.FeedbackNetwork,
        {
            "sizes": (4, 3, 2),
            "feedback": feedback().feedback,
            "media": None,
            "rate": 0.1,
            "threshold": 0.1,
            "feedback_scale": 1.0,
            "tally": None,
        },
    ),
    "FeedbackNetwork.step": (feedback().step, {"x": ROWS, "labels": LABELS}),
    "FeedbackNetwork.predict": (feedback().predict, {"x": ROWS}),
    "wide_narrow_wide": (
        training.wide_narrow_wide,
        {"inputs": 4, "wide": 6, "narrow": 3, "classes": 2, "camera": None, "rate": 0.1, "seed": 0},
    ),
    "Work": (training.Work, {"macs": 1}),
    "UnitPower": (training.UnitPower(), {"x": ROWS}),
    "work_energy_j": (training.work_energy_j, {"work": WORK, "spec": DEVICE.spec}),
    "light_time_s": (training.light_time_s, {"work": WORK, "spec": DEVICE.spec}),
}

NO_ARGUMENTS = {"Ideal", "Tally"}
PLAIN_DATA = {"LayerRecord", "LayerRow", "Parameters", "PhotonicSpec", "SCHEMES", "Scheme"}
"""What the package fills in itself; a spec is read and checked by ``hwsim.get_device``."""
ABSTRACT = {"AnalogLayer", "RandomStage"}

NAN = float("nan")
ODD = {
    "None": None,
    "text": "a",
    "empty text": "",
    "true": True,
    "negative": -1,
    "half": -1.5,
    "zero": 0,
    "huge": 10**30,
    "nan": NAN,
    "inf": float("inf"),
    "complex": 1j,
    "list": [1, 2],
    "ragged": [[1, 2], [3]],
    "strings": np.array(["a", "b"]),
    "object": object(),
    "mapping": {1: 2},
    "class": int,
    "bytes": b"x",
    "(5,)": np.ones(5),
    "(4, 3) nan": np.full((4, 3), NAN),
    "(4, 4) inf": np.full((4, 4), np.inf),
    "(6,) nan": np.full(6, NAN),
    "(4, 0)": np.ones((4, 0)),
    "(0,)": np.ones(0),
    "(2, 2, 2)": np.ones((2, 2, 2)),
    "tensor": torch.ones(4, 3),
    "followed": torch.ones(4, 4, requires_grad=True),
    "tensor nan": torch.full((3, 4), NAN),
    "tensor of nan": torch.full((4, 3), NAN),
    "integers": torch.ones(3, 4, dtype=torch.int64),
    "wide": torch.ones(3, 9),
    "scalar": torch.ones(()),
    "flags": torch.ones(3, 4, dtype=torch.bool),
    "fields": torch.ones(3, 4, dtype=torch.complex64),
}
SLOW = {("self_configure", "sweeps", "huge"), ("descend", "steps", "huge"), ("refine", "steps", "huge")}
"""Right, and without end."""
