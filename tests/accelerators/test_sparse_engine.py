"""The sparse engine: expectations against random patterns, patterns against plain loops, published figures beside ours."""

import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse
import torch
from effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import hwsim
from accelerators.sparse.break_even import at_density, break_even_density, dense_twin
from accelerators.sparse.cost import Product, kept_share, product_cost
from accelerators.sparse.imbalance import expected_maximum
from accelerators.sparse.matrices import compressed_rows, structured
from accelerators.sparse.spec import Block
from accelerators.sparse.spmm import run_spmm
from hwsim.operators import Convolution, Matmul
from hwsim.registry import get_device
from hwsim.workload import chain
from numerics import InputError, Recipe

DEVICES = ("sparse_csr", "sparse_2_4", "sparse_skip")
IDEAL = {"operands.bank_bytes_per_cycle": 1e9}


def matmul(m, n, k, *, weight=None, activation=None, batch=1):
    work = chain("one", [Matmul(name="x", m=m, n=n, k=k, batch=batch)])
    tensors = dict(work.tensors)
    for name, density in (("x.weight", weight), ("x.input", activation)):
        tensors[name] = replace(tensors[name], density=density)
    return replace(work, tensors=tensors)


def sparse(rng, shape, density):
    return rng.integers(1, 100, shape) * rng.choice([-1, 1], shape) * (rng.random(shape) < density)


def two_of_four(rng, rows, k):
    matrix = rng.integers(1, 100, (rows, k))
    for row in range(rows):
        for at in range(0, k, 4):
            size = min(4, k - at)
            matrix[row, at + rng.permutation(size)[: max(0, size - 2)]] = 0
    return matrix


# --- expectations -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("trials", "p", "lanes"), [(1, 0.3, 3), (5, 0.5, 2), (4, 0.9, 5), (7, 0.05, 4)])
def test_expected_maximum_by_enumeration(trials, p, lanes):
    """Over every outcome of every lane."""
    chance = [math.comb(trials, x) * p**x * (1 - p) ** (trials - x) for x in range(trials + 1)]
    total = 0.0
    for outcome in np.ndindex(*[trials + 1] * lanes):
        total += max(outcome) * math.prod(chance[x] for x in outcome)
    assert expected_maximum(trials, p, lanes) == pytest.approx(total, rel=1e-12)


def test_expected_maximum_of_many_trials():
    rng = np.random.default_rng(0)
    for trials, p, lanes in ((4096, 0.1, 16), (50_000, 0.3, 64), (3000, 0.002, 128)):
        drawn = rng.binomial(trials, p, (4000, lanes)).max(axis=1)
        error = 4 * drawn.std() / math.sqrt(4000)
        assert abs(expected_maximum(trials, p, lanes) - drawn.mean()) < error
    assert expected_maximum(100.5, 1.0, 7) == 100.5
    assert expected_maximum(10, 0.0, 7) == 0
    low, middle, high = (expected_maximum(t, 0.3, 5) for t in (10, 10.25, 11))
    assert middle == pytest.approx(0.75 * low + 0.25 * high)


@settings(max_examples=examples(100), deadline=None)
@given(st.floats(0, 3000), st.floats(0, 1), st.integers(1, 64), st.floats(1, 1.5))
def test_expected_maximum_grows(trials, p, lanes, factor):
    found = expected_maximum(trials, p, lanes)
    slack = 1e-9 * trials
    assert trials * p - slack <= found <= trials + slack
    assert expected_maximum(trials, min(1.0, p * factor), lanes) >= found - slack
    assert expected_maximum(trials * factor, p, lanes) >= found - slack
    assert expected_maximum(trials, p, 2 * lanes) >= found - slack


def test_share_of_blocks_by_enumeration():
    for density in (0.1, 0.5):
        every = [np.array(code) for code in np.ndindex(*[2] * 6)]
        total = sum(density ** code.sum() * (1 - density) ** (6 - code.sum()) for code in every if code.any())
        assert kept_share(density, 6) == pytest.approx(total)
    assert (kept_share(0.0, 3), kept_share(1.0, 3)) == (0, 1)
    assert kept_share(1e-9, 10) == pytest.approx(1e-8, rel=1e-6)


# --- patterns ---------------------------------------------------------------------------------------------------------


@settings(max_examples=examples(40), deadline=None)
@given(st.integers(1, 20), st.integers(1, 30), st.integers(1, 5), st.integers(1, 5), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_stored_matrices_come_back(rows, k, outputs, inputs, density, seed):
    matrix = sparse(np.random.default_rng(seed), (rows, k), density)
    stored = compressed_rows(matrix, Block(outputs=outputs, inputs=inputs))
    assert np.array_equal(stored.dense(), matrix)
    single = compressed_rows(scipy.sparse.csr_matrix(matrix))
    theirs = scipy.sparse.csr_matrix(matrix)
    assert np.array_equal(single.values[:, 0, 0], theirs.data)
    assert np.array_equal(single.columns, theirs.indices)
    assert np.array_equal(single.pointers, theirs.indptr)
    sparsity = get_device("sparse_csr").spec.sparsity
    assert single.bits(sparsity, 8) == theirs.nnz * (8 + 16) + (rows + 1) * 32
    kept = two_of_four(np.random.default_rng(seed), rows, k)
    assert np.array_equal(structured(kept, 2, 4).dense(), kept)
    assert structured(kept, 2, 4).bits(8) == rows * (k // 4 * 2 + min(2, k % 4)) * (8 + 2)


def by_loops(spec, x, w, kind):
    """Cycles and work of a product, one block, lane and tile at a time."""
    lanes, sparsity, block = spec.lanes, spec.sparsity, spec.sparsity.block
    (m, k), n = x.shape, len(w)
    skipped = sparsity.skip in ("weights", "both") and kind == sparsity.weights
    packed = skipped and kind != "dense"
    cycles, executed = 0.0, 0
    for top in range(0, m, lanes.width):
        tile = x[top : top + lanes.width]
        work = []
        for row in range(n):
            first = row // block.outputs * block.outputs
            spent = lanes.row_cycles if packed else 0.0
            for at in range(0, k, block.inputs):
                size = min(block.inputs, k - at)
                goes = True
                if skipped and kind == "n_m":
                    group = at // sparsity.m * sparsity.m
                    zeros = [c for c in range(group, min(k, group + sparsity.m)) if w[row, c] == 0]
                    fill = sparsity.n - sum(w[row, group : group + sparsity.m] != 0)
                    goes = w[row, at] != 0 or at in zeros[:fill]
                elif skipped:
                    goes = w[first : first + block.outputs, at : at + size].any()
                if sparsity.skip in ("activations", "both"):
                    goes = goes and tile[:, at : at + size].any()
                if goes:
                    spent += size + (sparsity.decode_cycles_per_block if packed else 0.0)
                    executed += size * len(tile)
            work.append(spent)
        if lanes.barrier == "row":
            cycles += sum(max(work[at : at + lanes.count]) for at in range(0, n, lanes.count))
        else:
            cycles += max(sum(work[lane :: lanes.count]) for lane in range(min(n, lanes.count)))
    return cycles, executed


@settings(max_examples=examples(60), deadline=None)
@given(
    st.sampled_from(["dense", "csr", "n_m"]), st.sampled_from(["none", "weights", "activations", "both"]),
    st.sampled_from(["row", "tile"]), st.sampled_from([(1, 1), (1, 1), (2, 3), (4, 1)]), st.integers(1, 9), st.integers(1, 13),
    st.integers(1, 23), st.floats(0, 1), st.floats(0, 1), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_a_product_on_the_lanes(weights, skip, barrier, block, m, n, k, d_x, d_w, seed):
    """The result is that of the dense product, exactly; cycles are those of plain loops."""
    outputs, inputs = (1, 1) if weights == "n_m" else block
    sparsity = {"weights": weights, "skip": skip, "block": {"outputs": outputs, "inputs": inputs}, "decode_cycles_per_block": 0.5}
    lanes = {"count": 4, "width": 3, "barrier": barrier, "row_cycles": 2}
    device = get_device("sparse_csr", overrides={"lanes": lanes, "sparsity": sparsity})
    rng = np.random.default_rng(seed)
    x = sparse(rng, (m, k), d_x)
    w = two_of_four(rng, n, k) if weights == "n_m" else sparse(rng, (n, k), d_w)
    run = run_spmm(device.spec, x, scipy.sparse.csr_matrix(w) if seed % 2 else w)
    assert np.array_equal(run.outputs, x @ w.T)
    assert run.outputs.dtype == np.int64
    assert (run.lane_cycles, run.executed_macs) == by_loops(device.spec, x, w, weights)
    if weights == "dense" and skip == "none":
        assert run.executed_macs == m * n * k


SETTINGS = [
    ("csr", "weights", "row", (1, 1)), ("csr", "weights", "tile", (1, 1)), ("csr", "weights", "row", (2, 4)),
    ("csr", "both", "row", (1, 1)), ("dense", "activations", "row", (1, 2)), ("dense", "both", "tile", (1, 1)),
    ("n_m", "both", "row", (1, 1)), ("csr", "activations", "row", (1, 1)),
]  # fmt: skip


@pytest.mark.parametrize(("weights", "skip", "barrier", "block"), SETTINGS)
@pytest.mark.parametrize("density", [0.03, 0.2, 0.6])
def test_expected_costs_are_means_over_patterns(weights, skip, barrier, block, density):
    device = get_device("sparse_csr", overrides={
        "lanes.width": 4, "lanes.barrier": barrier, "sparsity.weights": weights, "sparsity.skip": skip,
        "sparsity.block": {"outputs": block[0], "inputs": block[1]}, "sparsity.dense_fallback": False,
    })  # fmt: skip
    rng = np.random.default_rng(5)
    m, n, k, d_x, repeats = 32, 72, 240, 0.15, 12
    runs = []
    for _ in range(repeats):
        w = two_of_four(rng, n, k) if weights == "n_m" else sparse(rng, (n, k), density)
        run = run_spmm(device.spec, rng.random((m, k)) < d_x, w)
        runs.append((run.lane_cycles, run.executed_macs, run.weight_bits))
    mean, error = np.mean(runs, axis=0), 4 * np.std(runs, axis=0) / math.sqrt(repeats)
    cost = product_cost(device.spec, Product(1, m, n, k, 8, 8, 8, d_x, 0.5 if weights == "n_m" else density), weights)
    expected = np.array([cost.lane_cycles, cost.executed_macs, 8 * cost.stored_bytes])
    # Beside the noise of 12 draws: the number of columns that are seen is taken at its mean.
    assert np.all(np.abs(expected - mean) <= error + np.array([0.02, 1e-9, 1e-9]) * mean), (expected, mean)


# --- the row's checks -------------------------------------------------------------------------------------------------


def test_ninety_percent_of_zeros_are_far_from_ten_times():
    csr = get_device("sparse_csr")
    work = chain("layer", [Matmul(name="x", m=196, n=1024, k=1024)])
    dense = dense_twin(csr).simulate(work).time_s
    gain = {density: dense / at_density(csr, density).simulate(work).time_s for density in (0.3, 0.1, 0.05, 0.01)}
    assert 4 < gain[0.1] < 7
    assert gain[0.3] < 2.4 < gain[0.1]
    assert gain[0.01] < 40
    assert sorted(gain.values()) == [gain[d] for d in (0.3, 0.1, 0.05, 0.01)]


def pointwise_pruned(density):
    """MobileNet V2 as Fast Sparse ConvNets prunes it: pointwise convolutions, all but the first convolution."""
    from hwsim.api import workload_from

    work = workload_from("mobilenet_v2")
    tensors = dict(work.tensors)
    for op in work.ops:
        if isinstance(op, Convolution) and op.kernel == (1, 1):
            tensors[op.inputs[1]] = replace(tensors[op.inputs[1]], density=density)
    return replace(work, tensors=tensors)


def test_a_whole_network_gains_far_less():
    """Fast Sparse ConvNets: 1.3 to 2.4 times at 70 to 95 % zeros in pointwise layers, on a phone. Depthwise layers stay as they
    are, and use a lane each here, which leaves less."""
    csr = get_device("sparse_csr")
    dense = csr.simulate(pointwise_pruned(1.0)).time_s
    gains = [dense / csr.simulate(pointwise_pruned(density)).time_s for density in (0.3, 0.1, 0.05)]
    assert gains == sorted(gains)
    assert all(1.05 < gain < 2.4 for gain in gains), gains


def test_a_perceptron_at_99_percent():
    """Nerva: 4 times in training, on a CPU. Between inference here and training here, whose gradients of weights stay dense."""
    model = nn.Sequential(nn.Linear(3072, 1024), nn.ReLU(), nn.Linear(1024, 512), nn.ReLU(), nn.Linear(512, 10))
    csr, gains = get_device("sparse_csr"), []
    for mode in ("training", "inference"):
        work = hwsim.trace(model, torch.randn(100, 3072), mode=mode)
        pruned = {n: replace(t, density=0.01) if t.role == "weight" and len(t.shape) == 2 else t for n, t in work.tensors.items()}
        gains.append(csr.simulate(work).time_s / csr.simulate(replace(work, tensors=pruned)).time_s)
    assert 1 < gains[0] < 4 < gains[1] < 100


def test_masks_save_nothing():
    """Zeros that are kept as values: the same cycles, bytes and energy whatever the density."""
    for device in (dense_twin(get_device("sparse_csr")), get_device("gemmini_16x16")):
        dense, masked = (device.simulate(matmul(64, 128, 256, weight=d, activation=d)) for d in (1.0, 0.01))
        assert dense.totals() == masked.totals()


def test_break_even_is_where_both_take_as_long():
    csr = get_device("sparse_csr")
    for sizes in ((256, 1024, 1024), (8, 512, 512)):
        density = break_even_density(csr, *sizes)
        work = chain("one", [Matmul(name="x", m=sizes[0], n=sizes[1], k=sizes[2])])
        dense = dense_twin(csr).simulate(work).time_s
        assert 0.2 < density < 0.8
        assert at_density(csr, density).simulate(work).time_s == pytest.approx(dense, rel=1e-5)
        assert (
            at_density(csr, density * 1.01).simulate(work).time_s > dense > at_density(csr, density * 0.99).simulate(work).time_s
        )


def test_break_even_by_hand():
    """One lane and no barrier: k cycles dense against d · k · (1 + decode) + begin."""
    lone = get_device("sparse_csr", overrides={**IDEAL, "lanes.count": 1})
    found = break_even_density(lone, 64, 512, 1024, fidelity="analytic")
    assert found == pytest.approx((1024 - 2) / 1024 / 1.5, rel=1e-6)
    bound = get_device("sparse_csr", overrides={"off_chip.bandwidth_bytes_per_s": 1e8})
    # Where only the weights' bytes count: 8 bits each against 24 bits a kept one and the pointers.
    size, moved = 2048, 2 * 2048
    density = (size * size * 8 - (size + 1) * 32) / (24 * size * size)
    assert break_even_density(bound, 1, size, size) == pytest.approx(density, rel=1e-3)
    assert moved < size * size / 100
    assert break_even_density(get_device("sparse_2_4"), 256, 512, 512) == pytest.approx(0.5, rel=1e-9)
    assert break_even_density(get_device("sparse_skip"), 64, 64, 64) == 0
    costly = get_device("sparse_csr", overrides={"sparsity.decode_cycles_per_block": 1e4, "lanes.row_cycles": 1e4})
    assert break_even_density(costly, 64, 64, 64) == 0


class FeedForward(nn.Module):
    def __init__(self, d, hidden, density):
        super().__init__()
        self.first, self.second, self.density = nn.Linear(d, hidden), nn.Linear(hidden, d, bias=False), density

    def forward(self, x):
        h = torch.relu(self.first(x))
        # As many activations as the fine-tuned model leaves, at places drawn once.
        generator = torch.Generator().manual_seed(0)
        return self.second((h + 1) * (torch.rand(h.shape, generator=generator) < self.density))


@pytest.mark.parametrize(("reduction", "published"), [(0.5072, 2.03), (0.5319, 2.14), (0.9060, 10.6)])
def test_speed_up_of_the_second_layer_from_traced_densities(reduction, published):
    """DEFT (arXiv 2402.01911): activation densities of −50.72 %, −53.19 % and −90.60 %, here of a network that keeps so many."""
    torch.manual_seed(0)
    model = FeedForward(96, 384, 1 - reduction)
    work = hwsim.trace(model, torch.randn(256, 96), values=True)
    second = work.ops[-1]
    density = work.tensors[second.inputs[0]].density
    assert density == pytest.approx(1 - reduction, abs=0.01)
    single = {**IDEAL, "lanes.width": 1}

    def cycles(skip, **more):
        device = get_device("sparse_skip", overrides={**IDEAL, "sparsity.skip": skip, **more})
        return device.simulate(work, fidelity="analytic").ops[-1].busy_cycles

    ideal = cycles("none", **single) / cycles("activations", **single)
    assert ideal == pytest.approx(1 / density, rel=1e-9)
    assert ideal == pytest.approx(published, rel=0.03)
    assert 1 / (1 - reduction) == pytest.approx(published, rel=0.005)
    # An array without skipping is unchanged; a tile of rows lies between: it is passed over if all of it is zero.
    assert cycles("none") == get_device("sparse_skip", overrides=IDEAL).simulate(
        hwsim.trace(model, torch.randn(256, 96)), fidelity="analytic"
    ).ops[-1].busy_cycles  # fmt: skip
    tiled = cycles("none", **{"lanes.width": 4}) / cycles("activations", **{"lanes.width": 4})
    assert 1 < tiled < ideal
    assert tiled == pytest.approx(1 / (1 - (1 - density) ** 4), rel=1e-6)


def test_two_of_four_is_twice_as_fast_and_five_eighths_of_the_bytes():
    device = get_device("sparse_2_4", overrides=IDEAL)
    dense, kept = (device.simulate(matmul(64, 256, 256, weight=d), fidelity="analytic") for d in (1.0, 0.5))
    assert dense.cycles == 2 * kept.cycles
    assert dense.energy_by_component_j["mac"] == 2 * kept.energy_by_component_j["mac"]
    rows = [report.tables["mapping"][0] for report in (dense, kept)]
    assert [row["weights"] for row in rows] == ["dense", "n_m"]
    assert rows[1]["weight_bytes"] == 256 * 256 * 5 // 8
    assert dense.bytes_offchip - kept.bytes_offchip == 256 * 256 * 3 // 8
    assert kept.ops[0].utilization == dense.ops[0].utilization == 1


def test_fallback_takes_the_faster():
    csr = get_device("sparse_csr")
    for density in (0.05, 0.5, 0.9, 1.0):
        work = matmul(64, 512, 512, weight=density)
        both = csr.simulate(work).time_s
        assert both == min(dense_twin(csr).simulate(work).time_s, at_density(csr, density).simulate(work).time_s)


def test_weights_may_come_first_and_activations_have_none():
    csr = get_device("sparse_csr")
    plain = matmul(256, 512, 128, weight=0.1)
    swapped = matmul(512, 256, 128)
    roles = {"x.input": ("weight", 0.1), "x.weight": ("input", None)}
    tensors = {
        name: replace(t, role=roles[name][0], density=roles[name][1]) if name in roles else t
        for name, t in swapped.tensors.items()
    }
    swapped = replace(swapped, tensors=tensors, inputs=("x.weight",))
    assert csr.simulate(swapped).time_s == csr.simulate(plain).time_s
    neither = {name: replace(t, role="input", density=0.1) if name in roles else t for name, t in swapped.tensors.items()}
    report = csr.simulate(replace(swapped, tensors=neither))
    assert report.tables["mapping"][0]["weights"] == "none"
    assert report.time_s == csr.simulate(matmul(512, 256, 128)).time_s


# --- reports and values -----------------------------------------------------------------------------------------------

MORE = (
    ("off_chip.bandwidth_bytes_per_s", 1.7), ("operands.capacity_bytes", 3), ("operands.bank_bytes_per_cycle", 1.5),
    ("clock_hz", 1.4), ("vector_unit.lanes", 2), ("buffer.capacity_bytes", 2),
)  # fmt: skip


@settings(max_examples=examples(80), deadline=None)
@given(
    st.sampled_from(DEVICES), st.integers(1, 400), st.integers(1, 400), st.integers(1, 400), st.sampled_from([1, 6]),
    st.floats(0, 1), st.floats(0, 1), st.sampled_from(["none", "weights", "activations", "both"]), st.sampled_from(MORE),
)  # fmt: skip
def test_invariants(name, m, n, k, batch, d_w, d_x, skip, more):
    tight = {"operands.capacity_bytes": 3000, "off_chip.bandwidth_bytes_per_s": 3e9, "operands.bank_bytes_per_cycle": 4}
    device = get_device(name, overrides={**tight, "sparsity.skip": skip})
    work = matmul(m, n, k, weight=d_w, activation=d_x, batch=batch)
    report, spec = device.simulate(work), device.spec
    rates = {"off_chip": spec.off_chip.bandwidth_bytes_per_s, "operands": spec.operands.bytes_per_cycle * spec.clock_hz}
    for level, rate in rates.items():
        assert report.bytes_by_level[level] <= rate * report.time_s * (1 + 1e-9) + 1
    row, share = report.ops[0], report.tables["mapping"][0]["executed_share"]
    assert min(row.compute_cycles, row.stall_cycles, row.overhead_cycles, *row.energy_j.values()) >= -1e-9
    assert row.utilization <= 1 + 1e-9
    assert row.cycles >= share * row.macs / (spec.lanes.count * spec.lanes.width) * (1 - 1e-9)
    assert row.energy_j["mac"] == pytest.approx(share * row.macs * 0.3e-12)
    assert 0 <= report.tables["mapping"][0]["array_occupancy"] <= report.tables["mapping"][0]["balance"] + 1e-9 <= 1 + 2e-9
    assert report.time_s >= device.simulate(work, fidelity="analytic").time_s * (1 - 1e-9)
    field, factor = more
    value = spec.model_dump()
    for part in field.split("."):
        value = value[part]
    assert get_device(device, overrides={field: type(value)(value * factor)}).simulate(work).time_s <= report.time_s * (1 + 1e-9)
    # Fewer values that are not zero never take longer.
    fewer = matmul(m, n, k, weight=d_w * 0.7, activation=d_x * 0.7, batch=batch)
    assert device.simulate(fewer).time_s <= report.time_s * (1 + 1e-9)


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize(("form", "accumulator"), [("int8", "int32"), ("bf16", "fp32")])
def test_emulation_is_dense_arithmetic(name, form, accumulator):
    torch.manual_seed(3)
    layer, x = nn.Linear(130, 20, bias=False), torch.randn(9, 130) * (torch.rand(9, 130) < 0.4)
    recipe = Recipe("one", {"weight": form, "activation": form, "accumulator": accumulator, "elementwise": "fp32"})
    found = get_device(name).emulate(layer, recipe)(x).detach()
    if form == "bf16":
        # One product after another, each sum rounded: with or without those that are zero.
        left, right = x.bfloat16().float(), layer.weight.detach().bfloat16().float()
        total, skipped = torch.zeros(9, 20), torch.zeros(9, 20)
        for k in range(130):
            product = left[:, k : k + 1].double() * right[:, k].double()
            total = (total.double() + product).float()
            skipped = torch.where(product != 0, (skipped.double() + product).float(), skipped)
        assert torch.equal(total, skipped)
        assert torch.equal(found, total)
        return
    scales = [v.detach().abs().max() / 127 for v in (x, layer.weight)]
    codes = [torch.round(v.detach() / s).long() for v, s in zip((x, layer.weight), scales, strict=True)]
    run = run_spmm(get_device("sparse_csr").spec, codes[0].numpy(), codes[1].numpy())
    assert np.array_equal(torch.round(found / (scales[0] * scales[1])).numpy(), run.outputs)


@pytest.mark.parametrize(("name", "model"), [("sparse_csr", "resnet18"), ("sparse_2_4", "lstm_small"), ("sparse_skip", "gpt2")])
def test_zoo(name, model):
    from hwsim.api import workload_from

    for mode in ("inference", "training"):
        assert get_device(name).simulate(workload_from(model, mode=mode)).time_s > 0


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"sparsity.weights": "n_m", "sparsity.n": 4}, r"sparsity: n: expected less than m \(4\), got 4$"),
        ({"sparsity.weights": "n_m", "sparsity.block": {"outputs": 2}}, r"sparsity: block: n_m keeps single values; expected"),
        ({"sparsity.weight_density": 1.5}, r"sparsity\.weight_density: input should be less than or equal to 1 \(got 1\.5\)$"),
        ({"operands.retained_capacity_bytes": 8}, r"operands\.retained_capacity_bytes: only the buffer retains tensors"),
        ({"sparsity.skip": "all"}, r"sparsity\.skip: input should be 'none', 'weights', 'activations' or 'both' \(got 'all'\)$"),
    ],
)  # fmt: skip
def test_bad_specs_are_one_line(overrides, message):
    with pytest.raises(InputError, match=message) as caught:
        get_device("sparse_csr", overrides=overrides)
    assert "\n" not in str(caught.value)


def test_bad_requests_are_one_line():
    device = get_device("sparse_2_4")
    wrong = Recipe("wrong", {"weight": "int8", "activation": "int8", "accumulator": "fp32"})
    line = r"^device 'sparse_2_4': accumulator: sums of int8×int8 are int32; got 'fp32'$"
    with pytest.raises(InputError, match=line):
        device.simulate(matmul(8, 8, 8).with_formats(wrong))
    with pytest.raises(InputError, match=line):
        device.emulate(nn.Linear(4, 4), wrong)
    own = Recipe("own", {"weight": "int8", "activation": "int8", "accumulator": "int32"}, accumulation="int32_saturate")
    with pytest.raises(InputError, match=r"^device 'sparse_2_4': recipe 'own': accumulation: a lane adds one product at a time"):
        device.emulate(nn.Linear(4, 4), own)
    with pytest.raises(InputError, match=r"^weights: expected at most 2 of every 4 neighbours that are not zero, got 3 in row 1"):
        run_spmm(device.spec, np.ones((1, 8)), [[1, 0, 0, 1, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1, 1, 0]])
    with pytest.raises(InputError, match=r"^weights: expected shape \(n, 3\), got \(1, 2\)$"):
        run_spmm(device.spec, np.ones((1, 3)), [[1, 0]])
    with pytest.raises(InputError, match=r"^activations: expected a matrix, got shape \(3,\)$"):
        run_spmm(device.spec, np.ones(3), [[1, 0, 0]])


def test_every_spec_field_is_documented():
    import re
    from pathlib import Path

    from accelerators.sparse.spec import SparseSpec

    page = (Path(__file__).resolve().parents[2] / "docs" / "sparse-engine.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w.]+)`", page[page.index("## The spec") :]))
    fields = [field for field in fields_of(SparseSpec) if not field.startswith("off_chip.dram.")]
    assert {field for field in fields if field not in named} == set()


def fields_of(model, prefix=""):
    """Dotted names of all fields that have no fields of their own."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and hasattr(field.annotation, "model_fields"):
            yield from fields_of(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


@pytest.mark.parametrize("density", [None, 0.5])
def test_a_report_says_where_no_density_is_known(density):
    notes = get_device("sparse_csr").simulate(matmul(8, 8, 8, weight=density)).notes
    assert any("no density is known" in note for note in notes) == (density is None)
    told = get_device("sparse_csr", overrides={"sparsity.weight_density": 0.5}).simulate(matmul(8, 8, 8))
    assert not any("no density" in note for note in told.notes)
