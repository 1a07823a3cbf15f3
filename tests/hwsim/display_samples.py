"""One object of each kind that has a card of its own, made the way a user makes it; and objects whose names are hostile."""

import dataclasses
import typing

import numpy as np
import torch
from torch import nn

import hwsim
import neuromorphic
import numerics
import photonic
import rtl
from hwsim.explore import Space
from hwsim.faults import Campaign, CampaignResult, Interval, curve_names, get_curve, get_retention, retention_names
from hwsim.operators import Elementwise, Matmul
from hwsim.planning import plan_memory
from hwsim.planning.assignment import assign
from hwsim.scoreboard import score_target
from hwsim.workload import Tensor, Workload
from neuromorphic.network import Neurons, Population, Projection, SpikingNetwork, Synapses
from numerics.faults import BitFaults, FaultMap, inject
from numerics.histogram import Histogram

HOSTILE = "<script>alert('&\"')</script>"

HOPS = {"hop_east_west_ns": 4.1, "hop_north_south_ns": 6.5, "within_tile_ns": 2.1, "occupancy_ns": 1.16}


def layers(name="two", count=2, hostile=""):
    """A workload of matmuls, one after another, each followed by a ReLU."""
    tensors = [Tensor(f"x0{hostile}", (4, 8), "fp32", "input")]
    ops = []
    for i in range(count):
        tensors += [
            Tensor(f"w{i}{hostile}", (8, 8), "fp32", "weight"),
            Tensor(f"y{i}{hostile}", (4, 8), "fp32"),
            Tensor(f"x{i + 1}{hostile}", (4, 8), "fp32"),
        ]
        x, w, y, following = (tensor.name for tensor in tensors[-4:])
        ops.append(Matmul(name=f"layer{i}{hostile}", inputs=(x, w), outputs=(y,), m=4, n=8, k=8, module=f"m{i}{hostile}"))
        ops.append(Elementwise(name=f"relu{i}{hostile}", inputs=(y,), outputs=(following,), operation="relu", elements=32))
    ends = (tensors[0].name,), (tensors[-1].name,)
    return Workload(name, tuple(ops), {tensor.name: tensor for tensor in tensors}, *ends, metadata={"source": f"test{hostile}"})


def spiking(name="little", hidden="hidden", inputs=20):
    """Inputs, a recurrent population, a readout."""
    rng = np.random.default_rng(0)
    populations = (
        Population("input", (inputs,), Neurons("input")),
        Population(hidden, (12,), Neurons("integrate_and_fire", decay_v=0.9, threshold=0.5)),
        Population("out", (3,), Neurons("readout")),
    )
    projections = (
        Projection("a", "input", hidden, Synapses.from_dense(rng.normal(0, 0.4, (12, inputs)))),
        Projection("r", hidden, hidden, Synapses.from_dense(rng.normal(0, 0.1, (12, 12))), 1),
        Projection("b", hidden, "out", Synapses.from_dense(rng.normal(0, 0.3, (3, 12)))),
    )
    return SpikingNetwork(name, populations, projections, ("out",))


def campaign_results(layer="0", scenario="1e-4"):
    """What a campaign over bits and one over maps leave."""
    bit_rows = [
        {"layer": layer, "target": "weight", "bit": 7, "outcome": "silent", "changed": int(i < 3), "score": 1.0, "trial": i}
        for i in range(40)
    ]
    map_rows = [
        {"trial": i, "scenario": scenario, "score": 0.9 - i / 100, "outcome": "silent", "faulty_bits": 3, "changed": 1}
        for i in range(4)
    ]
    yield CampaignResult("bits", bit_rows, [], {(layer, "weight", 7): 10_000}, {}, 10, 0.97, "accuracy", 0.95, 0.95)
    yield CampaignResult("maps", map_rows, [], {}, {scenario: 1e-4}, 10, 0.97, "accuracy", 0.95, 0.95)


def of_numerics():
    yield from map(numerics.get_format, ("e4m3fn", "fp32", "tf32", "int8", "uint4", "q4.12", "nf4", "mxfp4", "nvfp4", "e8m0fnu"))
    yield from map(numerics.get_recipe, ("int8", "bf16"))
    yield numerics.get_recipe("bf16").excepting("*.head", "fp32")
    yield numerics.get_accumulator("fp32")
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))
    emulated = numerics.emulate(module, "int8")
    yield from (emulated, emulated.operators)
    with inject(emulated, [BitFaults(kind="flip", target="weight", rate=0.05)], seed=1) as injection:
        emulated(torch.randn(3, 8))
    yield from (injection, *injection.hits[:1])
    rng = np.random.default_rng(0)
    yield FaultMap.from_places(rng.integers(0, 1000, 200), rng.integers(0, 8, 200))
    yield FaultMap.none()
    histogram = Histogram()
    histogram.add(torch.randn(500))
    optimizer = numerics.Adam(emulated.module.named_parameters(), lr=1e-3)
    yield from (histogram, Histogram(), optimizer, optimizer.state_bytes(), numerics.LossScaler(), numerics.Secded(64))
    matrix = rng.normal(size=(6, 6))
    spd = matrix @ matrix.T + np.eye(6)
    yield numerics.conjugate_gradients(spd, np.ones(6), "fp32")
    yield numerics.iterative_refinement(spd, np.ones(6), factor_format="fp16")
    yield numerics.encode(rng.normal(size=(4, 32)), "mxfp4")
    yield numerics.compress(torch.randn(64).bfloat16())
    yield numerics.fit_codebook(rng.normal(size=200), levels=8)
    yield numerics.RoundedArithmetic("bf16")


def of_hwsim():
    workload = layers().with_formats("int8")
    yield from (layers(), workload, *workload.ops[:2], workload.tensors["w0"], workload.peak_memory())
    device = hwsim.get_device("gemmini_16x16")
    yield from (device, device.spec, device.spec.array, device.area())
    yield device.simulate(workload).ops[0]
    yield plan_memory(workload)
    yield assign([layers("one"), layers("other")], [device, hwsim.get_device("tpu_v1")])
    yield hwsim.serve("gpt2", device="h100", prompt_tokens=16, output_tokens=4)
    yield from campaign_results()
    yield Interval(estimate=0.5, low=0.4, high=0.62, confidence=0.95, standard_error=0.05)
    yield from (get_curve(curve_names()[0]), get_retention(retention_names()[0]))
    faults = {"a": BitFaults(kind="flip", target="weight", rate=0.01)}
    yield Campaign(nn.Sequential(nn.Linear(4, 3)), torch.randn(5, 4), faults, recipe="int8")
    yield Space({"rows": [8, 16], "b": {"low": 1, "high": 64, "log": True}, "c": {"low": 0.0, "high": 1.0}})
    scores = score_target("nvdla_resnet50")
    yield from (scores, scores[0])


def of_neuromorphic():
    network = spiking()
    events = neuromorphic.bernoulli_events(np.full((40, 20), 0.1), seed=1)
    yield from (network, network.populations[1], network.populations[1].neurons, *network.projections[:1])
    yield from (network.projections[0].synapses, events, neuromorphic.simulate(network, {"input": events}))
    yield neuromorphic.spiking_workload(network, steps=40, rates=0.1, events={"input": events})
    chip = hwsim.get_device("loihi")
    yield from (chip, chip.spec)
    run = chip.run(network, {"input": events})
    yield from (run, run.network, run.mapping, run.activity, run.costs)
    mesh = neuromorphic.Interconnect(columns=2, rows=2, **HOPS)
    yield mesh.traffic(neuromorphic.Packets.from_arrays([0, 0, 1], [0, 1, 2], [3, 2, 0]), record=True)
    crossbar = neuromorphic.Crossbar(16, 16, neuromorphic.phase_change_memory())
    yield from (crossbar, crossbar.program(np.eye(6), seed=0), neuromorphic.ISAAC, neuromorphic.LIF(decay_v=0.9))


def of_photonic():
    rng = np.random.default_rng(0)
    unitary = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    mesh = photonic.decompose(unitary)
    made = photonic.fabricate(mesh, photonic.Imperfections(photonic.PhaseError(0.01)), seed=1)
    bench = photonic.Bench(made, photonic.Homodyne(1e-3), seed=0)
    yield from (mesh, mesh.layout, made, photonic.self_configure(bench, unitary), bench)
    yield photonic.SvdEngine.program(rng.normal(size=(5, 4)))
    engine = hwsim.get_device("coherent_mzi_56")
    yield from (engine, engine.spec, engine.spec.budget, engine.spec.budget.signal)
    emulated = engine.emulate(nn.Sequential(nn.Linear(4, 3)))
    emulated(torch.randn(2, 4))
    yield from (emulated, emulated.matrix_unit)


def of_rtl():
    listed = rtl.configurations()
    yield from (listed, listed[0])
    yield rtl.Result("mac", "int8", 100, 3, 1, 200, 0.5, rtl.Difference(7, "sum_o", "0x10", "0x11"), None, None)


ROOMS = {"numerics": of_numerics, "hwsim": of_hwsim, "neuromorphic": of_neuromorphic, "photonic": of_photonic, "rtl": of_rtl}


def hostile():
    """Objects whose every name is a script."""
    yield layers(HOSTILE, hostile=HOSTILE)
    workload = layers(HOSTILE, hostile=HOSTILE)
    yield from (workload.ops[0], workload.tensors[f"w0{HOSTILE}"], workload.peak_memory(), plan_memory(workload))
    network = spiking(HOSTILE, HOSTILE)
    events = neuromorphic.bernoulli_events(np.full((10, 20), 0.3), seed=1)
    yield from (network, network.populations[1], network.projections[1], neuromorphic.simulate(network, {"input": events}))
    yield neuromorphic.quantise(network, hwsim.get_device("loihi").spec)
    data = hwsim.get_device("gemmini_16x16").spec.model_dump()
    machine = hwsim.get_device({**data, "name": HOSTILE, "summary": HOSTILE, "energy_source": HOSTILE})
    yield from (machine, machine.spec)
    yield from campaign_results(HOSTILE, HOSTILE)
    yield assign([layers(HOSTILE, hostile=HOSTILE)], [machine])
    yield numerics.CodebookFormat(HOSTILE, (-1.0, 0.0, 1.0))
    yield numerics.Recipe(HOSTILE, {"weight": "int8", "activation": "int8"}).excepting(HOSTILE, "bf16")
    curve = get_curve(curve_names()[0])
    yield dataclasses.replace(curve, name=HOSTILE, technology=HOSTILE, source=HOSTILE)
    score = score_target("nvdla_resnet50")[0]
    yield dataclasses.replace(score, target=HOSTILE, device=HOSTILE, labels=(HOSTILE,) * len(score.labels))
    yield rtl.Result(HOSTILE, HOSTILE, 1, 1, 1, 1, 0.5, rtl.Difference(1, HOSTILE, HOSTILE, HOSTILE), None, None)


def twin(cls):
    """An object of a dataclass or named tuple that no one checked: every field a script, an array, or an awkward value."""
    awkward = (
        HOSTILE,
        np.full((3, 4), np.nan),
        None,
        {HOSTILE: [HOSTILE]},
        (HOSTILE, 1.5),
        float("inf"),
        [{HOSTILE: HOSTILE}] * 3,
    )
    if dataclasses.is_dataclass(cls):
        names = [field.name for field in dataclasses.fields(cls)]
        found = object.__new__(cls)
        for i, name in enumerate(names):
            object.__setattr__(found, name, awkward[i % len(awkward)])
        return found
    names = typing.cast(tuple, getattr(cls, "_fields", ()))
    return cls(*(awkward[i % len(awkward)] for i in range(len(names)))) if names else None
