"""Protections against the exact outcomes of their codes, over every place of one and of two wrong bits."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

import numerics
from numerics import InputError, Recipe, Secded, get_format
from numerics.faults import BitFaults, Clipping, Duplication, FaultMap, Hardening, Parity, SecdedWords, inject

INT8 = get_format("int8")
CODES = np.random.default_rng(0).integers(0, 256, 20).astype(np.uint64)


def none(name, size, bits):
    return FaultMap.none()


def read(protection, faults, draw=none, codes=CODES, fmt=INT8):
    """The codes that a protection lets through, and what it says."""
    found = protection.read(codes, faults, fmt, draw)
    result = found.faults.apply(codes)
    result[found.zeroed] = 0
    return result, found


def places(bits):
    return FaultMap.from_places([bit // 8 for bit in bits], [bit % 8 for bit in bits])


def checks(bits):
    """Faults in the check bits of the first word."""

    def draw(name, size, width):
        return FaultMap.from_places([0] * len(bits), bits) if bits else FaultMap.none()

    return draw


@pytest.mark.parametrize("data_bits", [8, 16, 32, 64])
def test_secded_over_all_pairs(data_bits):
    """One wrong bit is corrected, two are detected; of three, as many are miscorrected as the code's own count says."""
    code, guard = Secded(data_bits), SecdedWords(data_bits=data_bits)
    for wrong in itertools.combinations(range(code.code_bits), 1):
        data, check = [b for b in wrong if b < data_bits], [b - data_bits for b in wrong if b >= data_bits]
        result, found = read(guard, places(data), checks(check))
        assert result.tolist() == CODES.tolist()
        assert (found.corrected, found.detected) == (1, 0)
    for wrong in itertools.combinations(range(code.code_bits), 2):
        data, check = [b for b in wrong if b < data_bits], [b - data_bits for b in wrong if b >= data_bits]
        result, found = read(guard, places(data), checks(check))
        assert result.tolist() == places(data).apply(CODES).tolist()
        assert (found.corrected, found.detected) == (0, 1)
    if data_bits <= 16:
        detected = [
            read(guard, places([b for b in w if b < data_bits]), checks([b - data_bits for b in w if b >= data_bits]))[1].detected
            for w in itertools.combinations(range(code.code_bits), 3)
        ]
        assert np.mean(detected) == pytest.approx(code.outcomes(3).detected)


def test_words_that_cannot_be_corrected_are_zeroed_whole():
    guard = SecdedWords(data_bits=32, on_detected="zero")
    result, found = read(guard, places([33, 40, 7]))  # two in the second word, one in the first
    expected = CODES.copy()
    expected[4:8] = 0
    assert result.tolist() == expected.tolist()
    assert (found.corrected, found.detected) == (1, 1)


def test_a_last_word_that_is_not_full():
    guard = SecdedWords(data_bits=64, on_detected="zero")
    result, found = read(guard, places([130, 150]))  # elements 16 to 19 are the third word's
    assert result[16:].tolist() == [0, 0, 0, 0]
    assert found.zeroed.tolist() == [16, 17, 18, 19]


def test_stuck_bits_that_agree_are_no_error():
    held = FaultMap.from_places([0, 0, 0], [0, 1, 2], "stuck_at_1")
    codes = np.full(8, 7, np.uint64)
    result, found = read(SecdedWords(), held, codes=codes)
    assert result.tolist() == codes.tolist()
    assert (found.corrected, found.detected) == (0, 0)


def test_parity():
    def draw(name, size, bits):
        assert (name, size, bits) == ("parity", 20, 1)
        return FaultMap.from_places([5, 6], [0, 0])

    result, found = read(Parity(), places([0, 8, 9, 16, 17, 18, 48]), draw)
    expected = CODES.copy()
    expected[[0, 2, 5]] = 0  # one, three wrong bits; a wrong parity bit alone
    expected[1] ^= 3  # two go unseen
    expected[6] ^= 1  # one, and its parity bit
    assert result.tolist() == expected.tolist()
    assert found.detected == 3


@pytest.mark.parametrize(("bits", "kept"), [(None, []), ("sign", [0, 6]), ((6, 7), [0])])
def test_hardened_bits(bits, kept):
    result, _ = read(Hardening(bits=bits), places([0, 6, 7]))
    assert result.tolist() == places(kept).apply(CODES).tolist()


def test_two_copies():
    def draw(name, size, bits):
        return places([9, 24])

    result, found = read(Duplication(on_detected="zero"), places([1, 9]), draw)
    expected = CODES.copy()
    expected[[0, 3]] = 0
    expected[1] ^= 2  # wrong alike in both
    assert result.tolist() == expected.tolist()
    assert found.detected == 2


@pytest.mark.parametrize(
    ("guard", "extra"),
    [(SecdedWords(), 1.0), (SecdedWords(data_bits=16), 3.0), (Parity(), 1.0), (Duplication(), 8.0), (Hardening(), 0.0)],
)
def test_extra_bits(guard, extra):
    assert guard.extra_bits(8) == extra


# --- at work in a module --------------------------------------------------------------------------------------------------------


def emulated(fmt="int8", accumulator="int32"):
    torch.manual_seed(0)
    recipe = numerics.get_recipe("int8") if fmt == "int8" else Recipe(name="own", formats={"weight": fmt, "activation": fmt})
    return numerics.emulate(nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 8)), recipe).eval(), torch.randn(16, 64)


def outputs(emulation, x, faults, *guards, seed=0):
    with inject(emulation, faults, protections=guards, seed=seed) as injection, torch.no_grad():
        return emulation(x), injection


@pytest.mark.parametrize("fmt", ["int8", "bf16"])
def test_secded_repairs_a_network(fmt):
    emulation, x = emulated(fmt)
    faults = BitFaults(rate=2e-4)
    clean, _ = outputs(emulation, x, [])
    broken = repaired = 0
    for seed in range(12):
        bare, _ = outputs(emulation, x, faults, seed=seed)
        kept, injection = outputs(emulation, x, faults, SecdedWords(), seed=seed)
        broken += not torch.equal(bare, clean)
        repaired += torch.equal(kept, clean)
        assert injection.detected or torch.equal(kept, clean)
        assert injection.corrected >= len(injection.hits) - injection.detected
    assert broken >= 10
    assert repaired >= 10


def test_layers_can_be_hardened():
    emulation, x = emulated()
    faults = BitFaults(rate=0.01)
    clean, _ = outputs(emulation, x, [])
    kept, injection = outputs(emulation, x, faults, Hardening())
    assert torch.equal(kept, clean)
    assert injection.faulty_bits > 0
    _, injection = outputs(emulation, x, faults, Hardening(modules="0"))
    left = {hit.key.module: len(hit.faults) for hit in injection.hits}
    assert left["0"] == 0 < left["2"]


@pytest.mark.parametrize("fmt", ["bf16", "fp16", "e4m3fn", "int8"])
def test_ranges_leave_a_run_without_faults_alone(fmt):
    emulation, x = emulated(fmt)
    guard = Clipping.observed(emulation, [x])
    clean, _ = outputs(emulation, x, [])
    same, _ = outputs(emulation, x, [], guard)
    assert torch.equal(same, clean)


def test_ranges_keep_activations_in_bounds():
    emulation, x = emulated("bf16")
    guard = Clipping.observed(emulation, [x])
    faults = BitFaults(target="activation", modules="2", bits=(14,), rate=0.05)
    wild, injection = outputs(emulation, x, faults)
    kept, _ = outputs(emulation, x, faults, guard)
    assert injection.faulty_bits
    assert not bool(wild.abs().max() < 1e6)
    low, high = guard.ranges[next(key for key in guard.ranges if key.module == "2")]
    weight = emulation.module[2].weight.detach()
    bound = weight.abs().sum(1).max() * max(abs(low), abs(high)) + 1
    assert float(kept.abs().max()) <= float(bound)


def test_refusals():
    emulation, _ = emulated()
    with pytest.raises(InputError, match=r"^protections: they guard operands that are read, not 'accumulator'; got Hardening$"):
        outputs(emulation, None, [], Hardening(target="accumulator"))
    with pytest.raises(InputError, match=r"^data_bits: expected 8, 16, 32 or 64, got 24$"):
        SecdedWords(data_bits=24)
    with pytest.raises(InputError, match=r"^on_detected: unknown name 'drop'"):
        Duplication(on_detected="drop")
    with pytest.raises(InputError, match=r"^data_bits: expected a multiple of the 16 bits of 'bf16', got 8$"):
        read(SecdedWords(data_bits=8), places([0]), fmt=get_format("bf16"))
    with pytest.raises(InputError, match=r"^target: unknown name 'weights'"):
        Parity(target="weights")
