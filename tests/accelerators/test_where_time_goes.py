"""Latency is not MACs: rows edge-tpu, hardnet, fasternet, lowformer and scan of published systems, on several chips."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

import hwsim
from hwsim.api import workload_from
from hwsim.zoo import blocks

CHIPS = ("a100", "tpu_v1", "edge_tpu", "gemmini_16x16")


def traced(module, channels, size, batch=1):
    return hwsim.trace(module.to("meta").eval(), torch.empty(batch, channels, size, size, device="meta"))


def time_on(chip, workload):
    """Seconds; the GPU replays a recorded graph, so that small kernels do not all take their launch."""
    graph = {"launch.mode": "graph"} if chip == "a100" else None
    return hwsim.get_device(chip, overrides=graph).simulate(workload).time_s


@pytest.mark.parametrize("channels", [16, 32])
def test_a_full_convolution_beats_the_separable_one(channels):
    """Row edge-tpu: the fused block wins at equal output in spite of more MACs, for suitable channel counts."""
    full, separable = (traced(blocks.inverted_bottleneck(channels, fused=fused), channels, 56) for fused in (True, False))
    assert full.macs > 3 * separable.macs
    assert time_on("edge_tpu", full) < time_on("edge_tpu", separable)


def test_a_full_convolution_does_not_always_win():
    """With many channels the MACs decide."""
    full, separable = (traced(blocks.inverted_bottleneck(512, fused=fused), 512, 14) for fused in (True, False))
    assert time_on("edge_tpu", full) > time_on("edge_tpu", separable)


@pytest.mark.parametrize("chip", CHIPS)
def test_equal_macs_differ_in_latency(chip):
    """Row lowformer: a depthwise block of as many MACs as a dense one takes longer on every chip."""
    dense = traced(blocks.convolution(64, 64), 64, 28, batch=8)
    separable = traced(nn.Sequential(*(blocks.depthwise_separable(64, 64) for _ in range(8))), 64, 28, batch=8)
    assert separable.macs == pytest.approx(dense.macs, rel=0.02)
    assert time_on(chip, separable) > 1.5 * time_on(chip, dense)


@pytest.mark.parametrize("channels", [32, 128])
def test_a_partial_convolution_costs_a_sixteenth_of_the_macs_and_a_quarter_of_the_traffic(channels):
    """Row fasternet, at a quarter of the channels."""
    size = 28
    full = traced(nn.Conv2d(channels, channels, 3, 1, 1, bias=False), channels, size)
    partial = traced(blocks.PartialConvolution(channels), channels, size)
    assert full.macs == 16 * partial.macs
    conv = next(op for op in partial.ops if op.kind == "convolution")
    activations = partial.read_bytes(conv, 0) + partial.write_bytes(conv, 0)
    assert 4 * activations == full.read_bytes(full.ops[0], 0) + full.write_bytes(full.ops[0], 0)


@pytest.mark.parametrize("chip", CHIPS)
def test_a_depthwise_convolution_waits_for_memory_where_the_full_one_does_not(chip):
    """Row fasternet: few FLOPs are not fast: what a depthwise convolution achieves is a small part of the full one's rate."""
    rates = []
    for groups in (1, 128):
        workload = traced(nn.Conv2d(128, 128, 3, 1, 1, groups=groups, bias=False), 128, 56, batch=8)
        rates.append(workload.macs / time_on(chip, workload))
    assert rates[1] < 0.2 * rates[0]


@pytest.mark.parametrize("chip", ["a100", "edge_tpu"])
def test_latency_follows_traffic_rather_than_macs(chip):
    """Row hardnet: over blocks of one resolution, concatenation included, latency ranks as traffic does, less as MACs do."""
    candidates = {
        "dense layers": blocks.DenseBlock(64),
        "few dense layers": blocks.DenseBlock(64, layers=4),
        "harmonic": blocks.HarmonicBlock(64, growth=16),
        "harmonic, wider": blocks.HarmonicBlock(64, growth=24),
        "plain": nn.Sequential(*(blocks.convolution(64, 64) for _ in range(4))),
        "plain, wide": nn.Sequential(blocks.convolution(64, 192), blocks.convolution(192, 64)),
        "separable": nn.Sequential(*(blocks.depthwise_separable(64, 64) for _ in range(6))),
        "inverted": nn.Sequential(*(blocks.inverted_bottleneck(64) for _ in range(2))),
        "partial": nn.Sequential(*(blocks.FasterNetBlock(64) for _ in range(3))),
    }
    workloads = [traced(module, 64, 56, batch=32) for module in candidates.values()]
    times = [time_on(chip, w) for w in workloads]
    traffic = [sum(w.op_bytes(op) for op in w.ops) for w in workloads]
    by_traffic, by_macs = spearmanr(times, traffic).statistic, spearmanr(times, [w.macs for w in workloads]).statistic
    assert by_traffic > 0.8
    assert by_traffic > by_macs + 0.1


@pytest.mark.parametrize("chip", ["a100", "tpu_v1"])
def test_a_harmonic_block_moves_less_than_a_dense_one_of_more_macs(chip):
    """Row hardnet: less traffic and time (published: 30 to 45 % less time) at no fewer MACs."""
    dense = traced(blocks.DenseBlock(64, layers=8, growth=32), 64, 56, batch=4)
    harmonic = traced(blocks.HarmonicBlock(64, layers=8, growth=28), 64, 56, batch=4)
    assert harmonic.macs > dense.macs
    assert sum(harmonic.op_bytes(op) for op in harmonic.ops) < 0.6 * sum(dense.op_bytes(op) for op in dense.ops)
    assert time_on(chip, harmonic) < time_on(chip, dense)


@pytest.mark.parametrize("chip", ["a100", "tpu_v1"])
def test_twice_the_length_doubles_a_scan_and_quadruples_attention(chip):
    """Row scan: over long sequences, of the scan's and of the attention's own operators."""

    def share(model, kinds, length):
        report = hwsim.get_device(chip).simulate(workload_from(model, batch=1, seq_len=length).expanded())
        return sum(op.time_s for op in report.ops if any(kind in op.name for kind in kinds))

    scans = [share("mamba_130m", ("scan",), length) for length in (4096, 8192)]
    assert scans[1] / scans[0] == pytest.approx(2, rel=0.1)
    attention = [share("llama3_8b", ("/scores", "/values", "/softmax", "/scale", "/mask"), length) for length in (4096, 8192)]
    assert attention[1] / attention[0] == pytest.approx(4, rel=0.15)


def test_a_state_is_small_beside_a_cache():
    """Row scan: Mamba's state is as large after any number of tokens; a cache grows."""
    cache = [workload_from("gpt2", batch=1, kv_len=length, phase="decode").bytes_by_role()["kv_cache"] for length in (511, 1023)]
    assert cache[1] / cache[0] == pytest.approx(2, rel=0.01)
    mamba = workload_from("mamba_130m", batch=1, seq_len=512)
    scan = next(op for op in mamba.ops if op.kind == "scan")
    layers = sum(op.kind == "scan" for op in mamba.ops)
    assert (layers, scan.width) == (24, 1536 * 16)
    assert 4 * layers * scan.width < cache[1] / 10
