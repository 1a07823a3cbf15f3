"""Searches over architecture, formats and machine, as published ones have it: SimQ-NAS (Sridhar et al., arXiv 2312.13301),
Once-for-All (Cai et al., ICLR 2020), ProxylessNAS (Cai et al., ICLR 2019), NAS-Bench-201 (Dong & Yang, ICLR 2020)."""

import itertools

import pytest
import torch
from elastic_digits import ARCHITECTURES, BITS, accuracy, architecture, trained

import hwsim
from hwsim.explore import MachineCost, Space, Together, hypervolume
from hwsim.zoo.cells import EDGES, OPERATIONS, CellNetwork, cell_network, cell_space
from numerics.errors import InputError

GOALS = {"accuracy": "max", "energy_j": "min", "time_s": "min"}
LIMITS = ["accuracy >= 0.7", "weight_bytes <= 8000"]


def joint(device="tpe_systolic_bit_weight"):
    return Together((accuracy, MachineCost("elastic_digits:network", device=device, recipe="int8")))


@pytest.fixture(scope="module")
def whole():
    """Every architecture in all formats, on arrays of two sizes."""
    space = {**ARCHITECTURES, **BITS, "array.topology.rows": [8, 32]}
    return hwsim.sweep(joint(), space, objectives=GOALS, constraints=LIMITS)


def held(configuration, **fixed):
    return all(configuration[name] == value for name, value in fixed.items())


def volume(whole, trials):
    """Hypervolume of some trials below the worst feasible values of the whole space."""
    feasible = [t for t, good in zip(whole.trials, whole.table["feasible"], strict=True) if good]
    corner = [-0.7, *(max(t.value(name) for t in feasible) for name in ("energy_j", "time_s"))]
    return hypervolume([[-t.value("accuracy"), t.value("energy_j"), t.value("time_s")] for t in trials], corner)


def test_searching_both_is_at_least_as_good_as_searching_either(whole):
    """The front of the joint space against that of architectures alone (in int8, on the larger array) and that of formats and
    arrays alone (of the largest network), by the hypervolume in one box."""
    largest = {name: max(values) for name, values in ARCHITECTURES.items()}
    given = dict.fromkeys(BITS, "int8") | {"array.topology.rows": 32}
    feasible = [t for t, good in zip(whole.trials, whole.table["feasible"], strict=True) if good]
    both = volume(whole, feasible)
    assert both > 1.05 * volume(whole, [t for t in feasible if held(t.configuration, **given)])
    assert both > 1.05 * volume(whole, [t for t in feasible if held(t.configuration, **largest)])


def test_winners_differ_between_machines():
    """The fastest network of at least 75 % in int8: wide kernels for the array, a deeper network of small ones for the core."""
    devices = ["tpe_systolic_bit_weight", "mcu_stm32f746"]
    found = {}
    for device in devices:
        swept = hwsim.sweep(joint(device), ARCHITECTURES, objectives=["time_s"], constraints="accuracy >= 0.75")
        found[device] = {tuple(t.configuration.values()): t.value("time_s") for t, good in
                         zip(swept.trials, swept.table["feasible"], strict=True) if good}  # fmt: skip
    winners = {device: min(times, key=times.get) for device, times in found.items()}
    assert len(set(winners.values())) == 2
    for mine, other in itertools.permutations(devices):
        assert found[mine][winners[other]] > 1.02 * found[mine][winners[mine]]


@pytest.mark.parametrize("predictor", [None, 20])
def test_a_search_finds_most_of_the_front_and_breaks_no_bound(whole, predictor):
    found = hwsim.search(
        joint(), whole.space, objectives=GOALS, constraints=LIMITS, trials=48, batch=16, predictor=predictor, screened=200, seed=0
    )
    for trial in found.front_trials:
        assert trial.value("accuracy") >= 0.7
        assert trial.value("weight_bytes") <= 8000
    assert any(t.value("weight_bytes") > 8000 for t in found.trials)
    assert volume(whole, found.front_trials) > 0.95 * volume(whole, whole.front_trials)
    if predictor is not None:
        ranks = {quality["metric"]: quality["spearman"] for quality in found.predictors}
        assert ranks["energy_j"] > 0.9
        assert ranks["time_s"] > 0.9


def test_a_sub_network_is_what_the_whole_computes():
    network, images, x, _ = trained()
    for sizes in ((4, 8, 1, 3), (8, 8, 2, 5), (8, 16, 2, 3)):
        chosen = architecture(*sizes)
        cut = network.sub_network(chosen, images)
        with torch.no_grad():
            assert torch.allclose(cut(images), network(images, chosen), atol=1e-4)
        assert cut.stages[0][0].conv.weight.shape[0] == sizes[0]
    with pytest.raises(InputError, match=r"widths: expected 2 integers from 1 to \[8, 16\], got \[9, 8\]"):
        network.sub_network(architecture(9, 8, 1, 3), images)
    with pytest.raises(InputError, match="kernels: expected odd numbers"):
        network(x, architecture(8, 8, 1, 4))


# --- the space of NAS-Bench-201 ------------------------------------------------------------------------------------------------


def code(operations):
    """The text by which NAS-Bench-201 tells cells apart: identities are passed through, what adds nothing is '#'."""
    nodes = ["0"]
    for target in (1, 2, 3):
        parts = []
        for source in range(target):
            operation, inside = operations[f"{target}<{source}"], nodes[source]
            if operation == "none" or inside == "#":
                parts.append("#")
            else:
                parts.append(inside if operation == "skip_connect" else f"({inside})@{operation}")
        nodes.append("+".join(sorted(parts)))
    return nodes[3]


def test_the_space_of_cells_has_15625_members_of_which_6466_differ():
    space = Space(cell_space())
    cells = [{name.removeprefix("model."): value for name, value in c.items()} for c in space.grid()]
    assert space.size == len({tuple(c.values()) for c in cells}) == 15_625
    assert len({code(cell) for cell in cells}) == 6_466  # section 2.1 of the paper


def test_cells_have_the_published_sizes():
    """Parameters of a cell whose edges are all conv_3x3, and of one without weights, as the benchmark's API gives them."""
    sizes = {}
    for operation in OPERATIONS:
        module, (image,) = cell_network(**dict.fromkeys(EDGES, operation))
        sizes[operation] = sum(p.numel() for p in module.parameters()) / 1e6
        assert module(image).shape == (1, 10)
    assert sizes["conv_3x3"] == 1.531546
    assert sizes["none"] == sizes["skip_connect"] == sizes["avg_pool_3x3"] == 0.073306


def test_a_cell_passes_zeros_where_no_edge_leads():
    images = torch.randn(2, 3, 8, 8)
    nothing = CellNetwork(dict.fromkeys(EDGES, "none")).eval()
    zero, one = nothing(images), nothing(images + 1)
    assert torch.equal(zero, one)
    with pytest.raises(InputError, match="edge: unknown name '4<0'"):
        CellNetwork({**dict.fromkeys(EDGES, "none"), "4<0": "none"})
    with pytest.raises(InputError, match="operation: unknown name 'conv_5x5'"):
        CellNetwork({**dict.fromkeys(EDGES, "none"), "3<0": "conv_5x5"})


def test_cells_run_on_machines():
    cost = MachineCost("hwsim.zoo.cells:cell_network", device="gemmini_16x16", fidelity="analytic")
    found = hwsim.sweep(cost, {**cell_space(), "model.repeats": [1]}, sample=6, seed=3)
    assert all(not t.error for t in found.trials)
    assert len({t.value("weight_bytes") for t in found.trials}) > 2
