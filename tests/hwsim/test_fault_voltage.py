"""Memories at low voltage and slow refresh: published rates, cells that persist, what plans save and what protection takes."""

import hashlib
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.stats import binom, multivariate_normal, norm

from hwsim.dram.spec import dram_spec
from hwsim.faults.error_rates import published
from hwsim.faults.protection_cost import (
    ProtectionCost,
    clipping_cost,
    cost_of,
    duplication_cost,
    hardening_cost,
    parity_cost,
    secded_cost,
    secded_gates,
)
from hwsim.faults.retention import RetentionCurve, get_retention, refresh_power_w, retention_names
from hwsim.faults.voltage import SramCurve, curve_names, get_curve
from hwsim.faults.voltage_plan import VoltagePlan
from hwsim.faults.weak_cells import Array, LeakyCells, WeakCells, _mix
from numerics.emulation import emulate
from numerics.errors import InputError
from numerics.faults import Duplication, Hardening, Parity, SecdedWords, inject
from tests.hwsim.sample_report import CLOCK_HZ, sample_report

SRAM, BRAM = get_curve("sram_65nm"), get_curve("bram_28nm")
DDR = get_retention("ddr3l_70c")


def within(found, size, rate, chance=1e-6):
    """Whether a count is one that a binomial distribution gives, but for a chance."""
    return binom.ppf(chance, size, rate) <= found <= binom.isf(chance, size, rate)


# --- rates ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", curve_names())
def test_sram_rates_pass_through_their_points_and_fall_with_the_voltage(name):
    curve = get_curve(name)
    entry = published("sram")[name]
    for point in entry["points"]:
        given = point["ber"] if "ber" in point else point["faulty_bits"] / entry["memory_bits"]
        assert curve.ber(point["volts"]) == given
        assert point["origin"] in ("data", "abstract", "secondary", "memory")
    volts = np.linspace(curve.volts[-1], curve.volts[0], 401)
    rates = curve.ber(volts)
    assert (np.diff(rates) < 0).all()
    np.testing.assert_allclose(curve.voltage_for(rates), volts, rtol=1e-12)
    for high, low, a, b in zip(curve.volts, curve.volts[1:], curve.rates, curve.rates[1:], strict=False):
        assert curve.ber((high + low) / 2) == pytest.approx(math.sqrt(a * b), rel=1e-9)
    assert entry["source"]
    assert entry["technology"]


def test_the_whole_bram_fails_as_often_as_its_authors_say():
    assert round(100 * BRAM.ber(0.54), 2) == 0.06  # per cent; the abstract of the FPL paper
    assert BRAM.ber([0.61, 0.8, 1.0]).tolist() == [0, 0, 0]
    assert 0 < BRAM.ber(0.605) < BRAM.ber(0.60)


def test_rates_beyond_the_points_are_asked_for():
    for volts in (0.49, 0.56):
        with pytest.raises(InputError, match=r"^volts: sram_65nm has rates from 0.5 to 0.55 V, got .*; extend=True continues"):
            SRAM.ber(volts)
    assert SRAM.ber(0.45, extend=True) == pytest.approx(0.0156**2 / 0.0023)
    assert SRAM.ber(0.60, extend=True) == pytest.approx(0.0023**2 / 0.0156)
    assert SRAM.ber(0.1, extend=True) == 1
    assert SRAM.voltage_for(SRAM.ber(0.42, extend=True), extend=True) == pytest.approx(0.42)
    with pytest.raises(InputError, match=r"^ber: sram_65nm has rates from 0.0023 to 0.0156, got 0.1; extend"):
        SRAM.voltage_for(0.1)
    with pytest.raises(InputError, match=r"none fail from 0.61 V on"):
        BRAM.ber(0.5)
    assert BRAM.voltage_for(1e-12, extend=True) == 0.61


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"volts": (0.5, 0.6)}, "points: expected rates of"),
        ({"volts": (0.6,), "rates": (0.1,)}, "points: expected two or more"),
        ({"volts": (0.6, -0.5)}, "volts: expected numbers above 0"),
        ({"rates": (0.1, 1.5)}, "points: expected rates of"),
        ({"nominal_v": 0.55}, "nominal_v: expected at least the highest point, 0.6 V"),
        ({"error_free_v": 0.6}, "error_free_v: expected above 0.6 V and at most 1 V"),
        ({"zero_share": 1.1}, "zero_share: expected a share from 0 to 1"),
    ],
)
def test_a_curve_says_what_is_wrong_with_it(changes, told):
    with pytest.raises(InputError, match="^" + told):
        SramCurve(**{"name": "own", "volts": (0.6, 0.5), "rates": (0.01, 0.1), "nominal_v": 1.0, **changes})


def test_wrong_arguments_are_named():
    for call, told in (
        (lambda: get_curve("sram_65"), "curve: unknown name 'sram_65'; did you mean 'sram_65nm'"),
        (lambda: get_retention("lpddr"), "curve: unknown name 'lpddr'"),
        (lambda: SRAM.ber(-0.5), "volts: expected numbers above 0, got -0.5"),
        (lambda: SRAM.voltage_for(0), "ber: expected a rate above 0 and at most 1, got 0"),
        (lambda: SRAM.access_energy_ratio(0), "volts: expected numbers above 0, got 0"),
        (lambda: DDR.ber(4.0), "interval_s: ddr3l_70c has rates from 1.024 to 2.048 s at 70 °C, got 4"),
        (lambda: get_retention("ddr3_32gb").ber(0.2, temperature_c=45), "temperature_c: the source of ddr3_32gb states none"),
    ):
        with pytest.raises(InputError, match="^" + told):
            call()


def test_energy_of_an_access_is_that_of_its_charge():
    assert SRAM.access_energy_ratio(0.5) == 0.25
    assert SRAM.access_energy_ratio(0.5, reference_v=0.625) == pytest.approx(0.64)
    assert SRAM.leakage_power_ratio(0.5) == 0.5


def test_how_far_neuralfuse_is_from_the_65_nm_curve():
    """NeuralFuse (Sun et al., NeurIPS 2024, abstract) has up to 24 % less access energy at 1 % BER, of another memory. Here it is
    74 % less than at the nominal voltage, and 24 % less than at 0.587 V, where the curve's line has 0.06 %.
    """
    volts = SRAM.voltage_for(0.01)
    assert volts == pytest.approx(0.5116, abs=1e-4)
    assert 1 - SRAM.access_energy_ratio(volts) == pytest.approx(0.738, abs=1e-3)
    reference = volts / math.sqrt(0.76)
    assert reference == pytest.approx(0.5869, abs=1e-4)
    assert 1 - SRAM.access_energy_ratio(volts, reference_v=reference) == pytest.approx(0.24)
    assert SRAM.ber(reference, extend=True) == pytest.approx(5.6e-4, rel=0.01)


# --- weak cells -----------------------------------------------------------------------------------------------------------------

GOLDEN, LOW = 0x9E3779B97F4A7C15, (1 << 64) - 1


def plain_mix(x):
    """SplitMix64's finaliser in Python's integers."""
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & LOW
    x = (x ^ x >> 27) * 0x94D049BB133111EB & LOW
    return x ^ x >> 31


def plain_uniform(seed, purpose, *words):
    x = int.from_bytes(hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=8).digest(), "little")
    for word in words:
        x = plain_mix(x + GOLDEN * (word + 1) & LOW)
    return ((x >> 11) + 0.5) / 2**53


def test_the_hash_is_that_of_splitmix64():
    # The first outputs of the generator with seed 1234567, as Rosetta Code's "Pseudo-random numbers/Splitmix64" lists them.
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    states = np.array([(1234567 + GOLDEN * n) & LOW for n in range(1, 6)], np.uint64)
    assert _mix(states).tolist() == expected == [plain_mix(int(s)) for s in states]


@pytest.mark.parametrize(("element_bits", "word_bits", "base"), [(8, 64, 0), (5, 32, 7), (16, 12, 1000)])
def test_cells_are_those_of_a_loop_over_bits(element_bits, word_bits, base):
    """One bit after the other, in Python's integers; elements may lie across words."""
    cells = WeakCells(curve=SRAM, seed=11, array=Array(word_bits=word_bits))
    found = cells.failed_bits(0.5, 3000, element_bits=element_bits, base_address=base)
    expected = []
    for element in range(3000):
        for bit in range(element_bits):
            at = element * element_bits + bit
            cell = base + at // word_bits, at % word_bits
            if plain_uniform(11, "cell", *cell) < 0.0156:
                expected.append((element, bit, int(plain_uniform(11, "preferred", *cell) >= 0.5)))
    assert expected
    assert list(zip(found.elements.tolist(), found.bits.tolist(), found.values.tolist(), strict=True)) == expected


@pytest.mark.parametrize("array", [Array(), Array(words_per_row=4, row_share=0.3, column_share=0.2)])
def test_cells_that_fail_are_among_those_that_fail_lower(array):
    cells = WeakCells(curve=SRAM, seed=3, array=array)
    volts = [0.55, 0.54, 0.53, 0.52, 0.51, 0.50]
    places = []
    for v in volts:
        found = cells.failed_bits(v, 40_000, element_bits=8)
        places.append(set(zip(found.elements.tolist(), found.bits.tolist(), found.values.tolist(), strict=True)))
    assert all(fewer < more for fewer, more in pairwise(places))


@pytest.mark.parametrize("array", [Array(), Array(words_per_row=4, row_share=0.2, column_share=0.2)])
def test_any_part_of_a_memory_has_the_same_cells(array):
    """Two workers with a piece each, in whatever pieces, find what one finds."""
    cells = WeakCells(curve=SRAM, seed=5, array=array)
    whole = cells.failed_bits(0.51, 200_000, element_bits=8)
    for cut in (8, 131_072, 199_992):  # elements, eight a word
        first = cells.failed_bits(0.51, cut, element_bits=8)
        second = cells.failed_bits(0.51, 200_000 - cut, element_bits=8, base_address=cut // 8)
        assert np.concatenate([first.elements, second.elements + cut]).tolist() == whole.elements.tolist()
        assert np.concatenate([first.bits, second.bits]).tolist() == whole.bits.tolist()
        assert np.concatenate([first.values, second.values]).tolist() == whole.values.tolist()
    address, bit = whole.elements // 8, whole.elements % 8 * 8 + whole.bits
    grid = cells.fails(0.51, np.arange(25_000)[:, None], np.arange(64))
    assert np.argwhere(grid).tolist() == np.stack([address, bit], 1).tolist()
    assert cells.preferred(address, bit).tolist() == whole.values.tolist()
    assert (cells.minimal_volts(address[:500], bit[:500]) > 0.51).all()
    standing = np.argwhere(~grid)[:500]
    assert (cells.minimal_volts(standing[:, 0], standing[:, 1]) <= 0.51).all()


@pytest.mark.parametrize("volts", [0.55, 0.525, 0.50])
def test_as_many_cells_fail_as_the_curve_says(volts):
    bits = 8 * 250_000
    found = WeakCells(curve=SRAM, seed=7).failed_bits(volts, bits // 8, element_bits=8)
    assert within(len(found), bits, SRAM.ber(volts))
    assert within(int((found.values == 0).sum()), len(found), SRAM.zero_share)
    for bit in range(8):
        assert within(int((found.bits == bit).sum()), bits // 8, SRAM.ber(volts))
    other = WeakCells(curve=SRAM, seed=8).failed_bits(volts, bits // 8, element_bits=8)
    both = np.intersect1d(found.elements * 8 + found.bits, other.elements * 8 + other.bits).size
    assert within(both, bits, SRAM.ber(volts) ** 2)


@pytest.mark.parametrize("along", ["row", "column"])
def test_rows_and_columns_gather_failures_and_add_none(along):
    """Pairs of cells of a row fail together as often as two normal variables of that correlation lie below the quantile."""
    many, few, rate = 16_000, 64, SRAM.ber(0.5)
    given = norm.ppf(rate)
    expected = {share: multivariate_normal([0, 0], [[1, share], [share, 1]]).cdf([given, given]) for share in (0.0, 0.3)}
    assert expected[0.0] == pytest.approx(rate**2)
    assert expected[0.3] > 4 * rate**2
    for share, together in expected.items():
        shares = {f"{along}_share": share}
        if along == "row":
            cells = WeakCells(curve=SRAM, seed=2, array=Array(**shares))
            fails = cells.fails(0.5, np.arange(many)[:, None], np.arange(few))
        else:
            cells = WeakCells(curve=SRAM, seed=2, array=Array(words_per_row=many // 64, **shares))
            column = np.arange(many)[:, None]
            fails = cells.fails(0.5, np.arange(few) * (many // 64) + column // 64, column % 64)
        each = fails.sum(1)
        assert each.mean() == pytest.approx(few * rate, abs=4 * math.sqrt((few * rate + few**2 * (together - rate**2)) / many))
        assert (each * (each - 1)).sum() / (many * few * (few - 1)) == pytest.approx(together, rel=0.1)


def test_codes_read_what_the_cells_prefer():
    codes = np.random.default_rng(0).integers(0, 256, 30_000).astype(np.uint8)
    cells = WeakCells(curve=SRAM, seed=1)
    found = cells.failed_bits(0.5, codes.size, element_bits=8)
    read = found.fault_map().apply(codes)
    expected = codes.copy()
    for element, bit, value in zip(found.elements, found.bits, found.values, strict=True):
        expected[element] = expected[element] & ~np.uint8(1 << bit) | np.uint8(value << bit)
    assert read.tolist() == expected.tolist()
    wrong = int(np.bitwise_count(read ^ codes).sum())
    assert within(wrong, len(found), 0.5)
    inverted = WeakCells(curve=SRAM, seed=1, reads="inverted").failed_bits(0.5, codes.size, element_bits=8)
    assert int(np.bitwise_count(inverted.fault_map().apply(codes) ^ codes).sum()) == len(inverted) == len(found)
    bram = WeakCells(curve=BRAM, seed=1).failed_bits(0.54, 300_000, element_bits=8)
    assert len(bram)
    assert set(bram.values.tolist()) == {0}
    assert not len(WeakCells(curve=BRAM, seed=1).failed_bits(0.7, 10_000, element_bits=8))
    assert not len(WeakCells(curve=SRAM, seed=1).failed_bits(0.5, 0, element_bits=8))


def test_an_emulated_layer_computes_with_the_cells_of_its_memory():
    """An identity as input gives the weights that the layer uses: codes of 8 bits, read from those cells, times their scales."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(64, 32, bias=False)
    weight = layer.weight.detach().double().numpy()
    scale = np.abs(weight).max(axis=1, keepdims=True) / 127
    codes = np.rint(weight / scale).astype(np.int8)
    found = WeakCells(curve=SRAM, seed=9).failed_bits(0.5, weight.size, element_bits=8)
    read = found.fault_map().apply(codes.view(np.uint8)).view(np.int8)
    assert (read != codes).sum() > 50
    emulation = emulate(torch.nn.Sequential(layer), "w8a16")
    with torch.no_grad():
        clean = emulation(torch.eye(64)).T.double().numpy()
        with inject(emulation, found.bit_faults(modules="0")):
            faulty = emulation(torch.eye(64)).T.double().numpy()
    # Results are rounded to eight bits of mantissa.
    np.testing.assert_allclose(clean, codes * scale, rtol=2**-8)
    np.testing.assert_allclose(faulty, read * scale, rtol=2**-8)


def test_arguments_of_cells_are_checked():
    for call, told in (
        (lambda: Array(word_bits=0), "word_bits: expected an integer ≥ 1, got 0"),
        (lambda: Array(row_share=-0.1), "row_share: expected a share from 0 to below 1"),
        (lambda: Array(row_share=0.5, column_share=0.5), r"row_share \+ column_share: expected below 1, got 1"),
        (lambda: WeakCells(curve=SRAM, seed=0, reads="flip"), "reads: unknown name 'flip'"),
        (lambda: WeakCells(curve=SRAM, seed=0).failed_bits(0.5, 4, element_bits=0), "element_bits: expected an integer ≥ 1"),
        (lambda: WeakCells(curve=SRAM, seed=0).failed_bits(0.7, 4, element_bits=8), "volts: sram_65nm has rates"),
        (lambda: LeakyCells(curve=DDR, seed=0, rows_per_polarity=0), "rows_per_polarity: expected an integer ≥ 1 or None"),
    ):
        with pytest.raises(InputError, match="^" + told):
            call()


# --- retention ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", retention_names())
def test_retention_rates_pass_through_their_points_and_rise_with_the_interval(name):
    curve = get_retention(name)
    entry = published("dram")[name]
    for point in entry["points"]:
        assert curve.ber(point["interval_s"]) == point["faulty_bits"] / entry["memory_bits"]
    intervals = np.geomspace(curve.intervals_s[0], curve.intervals_s[-1], 101)
    rates = curve.ber(intervals)
    assert (np.diff(rates) > 0).all()
    np.testing.assert_allclose([curve.interval_for(r) for r in rates], intervals, rtol=1e-9)
    middle = math.sqrt(curve.intervals_s[0] * curve.intervals_s[1])
    assert curve.ber(middle) == pytest.approx(math.sqrt(curve.rates[0] * curve.rates[1]))
    assert curve.ber(curve.nominal_interval_s) == 0


def test_colder_dram_holds_longer():
    assert DDR.ber(2.048, temperature_c=60) == DDR.ber(1.024)
    assert DDR.interval_for(1e-7, temperature_c=50) == pytest.approx(4 * DDR.interval_for(1e-7))
    # The same module had no failure within 2.048 s at 20 °C.
    assert DDR.ber(2.048, temperature_c=20) == 0
    # Twice as often above 85 °C, as JEDEC asks: what 64 ms are at 85 °C, 32 ms are at 95 °C.
    own = RetentionCurve(name="own", intervals_s=(0.05, 0.1), rates=(1e-9, 1e-8), temperature_c=85.0)
    assert own.ber(0.032, temperature_c=95) == pytest.approx(own.ber(0.064))


def test_refresh_energy_falls_as_the_interval_grows():
    assert DDR.refresh_energy_ratio(0.256) == 0.25
    spec = dram_spec("ddr3_2133")
    by_hand = 64e-3 / (spec.cycles["t_refi"] / spec.clock_hz) * spec.energy.refresh_pj * 1e-12 / 64e-3
    assert refresh_power_w(spec) == pytest.approx(by_hand)
    assert refresh_power_w(spec, 0.256) == pytest.approx(by_hand / 4)
    assert refresh_power_w(dram_spec("ddr3_2133", channels=2, refresh="none")) == 0
    assert refresh_power_w(dram_spec("ddr3_2133", channels=2)) == pytest.approx(2 * by_hand)


def test_leaky_cells_persist_and_lose_their_charge():
    curve = RetentionCurve(name="own", intervals_s=(1.0, 2.0), rates=(0.001, 0.02), temperature_c=45.0)
    cells = LeakyCells(curve=curve, seed=4, array=Array(word_bits=64, words_per_row=2), rows_per_polarity=8)
    short, long = (cells.failed_bits(t, 100_000, element_bits=8) for t in (1.2, 2.0))
    assert within(len(long), 800_000, 0.02)
    assert set(zip(short.elements, short.bits, strict=True)) < set(zip(long.elements, long.bits, strict=True))
    rows = long.elements * 8 // (64 * 2)
    assert long.values.tolist() == (rows // 8 % 2).tolist()
    warm = cells.failed_bits(1.0, 100_000, element_bits=8, temperature_c=55)
    assert warm.elements.tolist() == long.elements.tolist()
    ones = np.full(100_000, 255, np.uint8)
    assert np.bitwise_count(ones ^ long.fault_map().apply(ones)).sum() == (long.values == 0).sum()
    true_only = LeakyCells(curve=curve, seed=4).failed_bits(2.0, 1000, element_bits=8)
    assert set(true_only.values.tolist()) == {0}


# --- plans ----------------------------------------------------------------------------------------------------------------------


def test_the_first_pattern_that_fits_counts():
    plan = VoltagePlan(volts={"layer1.0": 0.55, "layer*": 0.50, "fc": 1.0}, curve=SRAM)
    assert [plan.volts_for(m) for m in ("layer1.0", "layer2.0", "fc", "conv1")] == [0.55, 0.5, 1.0, 1.0]
    assert plan.rates(["layer1.0", "layer2.0", "fc"]) == {"layer1.0": 0.0023, "layer2.0": 0.0156, "fc": 0.0}
    faults = plan.bit_faults(["layer1.0", "layer2.0", "fc", "layer[3]"], target="kv_cache")
    assert [(f.modules, f.rate, f.target, f.kind) for f in faults] == [
        ("layer1.0", 0.0023, "kv_cache", "flip"),
        ("layer2.0", 0.0156, "kv_cache", "flip"),
        ("layer[[]3]", 0.0156, "kv_cache", "flip"),
    ]
    with pytest.raises(InputError, match=r"^volts: pattern 'fc' fits none of the 2 modules"):
        plan.rates(["layer1.0", "layer2"])
    with pytest.raises(InputError, match=r"^volts: sram_65nm has rates"):
        VoltagePlan(volts={"*": 0.7}, curve=SRAM)
    with pytest.raises(InputError, match=r"^volts\['\*'\]: expected a voltage, got '0.5'"):
        VoltagePlan(volts={"*": "0.5"}, curve=SRAM)


def test_a_plan_scales_the_memories_it_is_told_and_hides_nothing():
    report = sample_report()
    plan = VoltagePlan(volts={"layer1.0": 0.55, "layer*": 0.50}, curve=SRAM)
    found = plan.energy(report, components=["scratchpad"])
    expected = 0.0
    for op in report.ops:
        factor = {"layer1.0": 0.3025, "layer2.0": 0.25}.get(op.module, 1.0)
        expected += op.energy_j["scratchpad"] * factor
    assert found.memory_after_j == pytest.approx(expected)
    assert found.memory_before_j == pytest.approx(report.energy_by_component_j["scratchpad"])
    assert found.before_j == pytest.approx(report.energy_j)
    assert found.after_j == pytest.approx(report.energy_j - found.memory_before_j + expected)
    assert sum(found.by_component_j().values()) == pytest.approx(found.after_j)
    assert {name: found.by_component_j()[name] for name in ("mac", "static", "off_chip")} == pytest.approx(
        {name: report.energy_by_component_j[name] for name in ("mac", "static", "off_chip")}
    )
    assert found.saved == pytest.approx(1 - found.after_j / report.energy_j)
    assert {row.ber for row in found.rows} == {0.0, 0.0023, 0.0156}
    everywhere = VoltagePlan(volts={"*": 0.5}, curve=SRAM).energy(report, components=["scratchpad"], reference_v=0.55)
    assert everywhere.memory_saved == pytest.approx(1 - (0.5 / 0.55) ** 2)
    with pytest.raises(InputError, match=r"^components: unknown name 'scratchpads'; did you mean 'scratchpad'"):
        plan.energy(report, components=["scratchpads"])


# --- protection -----------------------------------------------------------------------------------------------------------------


def test_costs_are_those_of_a_count_by_hand():
    # Eight rows of 26 ones: 25 XORs each to encode, 26 to check, and 64 to correct.
    assert secded_gates(64) == 8 * 25 + 8 * 26 + 64
    whole = secded_cost(mac_energy_j=2e-13)
    assert (whole.extra_bits, whole.bits_per_word, whole.storage_factor) == (8, 72, 1.125)
    assert whole.energy_j_per_access == pytest.approx(0.705 * 2e-13)  # the row of rtl_ratios.csv
    small = secded_cost(8, mac_energy_j=2e-13)
    # (13,8): eight columns of three ones; 24 - 5 XORs to encode, 24 to check, 8 to correct.
    assert small.energy_j_per_access == pytest.approx(0.705 * 2e-13 * (19 + 24 + 8) / 472)
    assert small.storage_factor == 1 + 5 / 8
    parity = parity_cost(8, mac_energy_j=2e-13)
    assert parity.storage_factor == 1.125
    assert parity.energy_j_per_access == pytest.approx(0.705 * 2e-13 * 23 / 472)
    assert clipping_cost(8, compare_energy_j=3e-14).energy_j_per_access == pytest.approx(6e-14)
    double = duplication_cost(16, mac_energy_j=2e-13)
    assert (double.storage_factor, double.compute_factor) == (2, 2)
    assert double.energy_j_per_access == pytest.approx(0.705 * 2e-13 * 31 / 472)


def test_hardened_bits_bracket_the_published_hybrid():
    """Srinivasan et al., DATE 2016: 10.41 % more area with the highest bits of weights in 8T cells."""
    two, three = (hardening_cost(8, hardened_bits=n).storage_factor - 1 for n in (2, 3))
    assert two < 0.1041 < three
    assert hardening_cost(8, hardened_bits=8, cell="dice").storage_factor == 2
    assert hardening_cost(8, hardened_bits=0).storage_factor == 1


def test_costs_agree_with_the_protections_that_act_on_values():
    for protection, fmt in ((SecdedWords(data_bits=32), "int8"), (Parity(), "int8"), (Duplication(), "bf16")):
        cost = cost_of(protection, fmt, mac_energy_j=1e-13)
        bits = {"int8": 8, "bf16": 16}[fmt]
        assert cost.extra_bits / cost.word_bits * bits == protection.extra_bits(bits)
    assert cost_of(Hardening(bits="exponent"), "bf16", mac_energy_j=1e-13).cell_factor == pytest.approx(1 + (1 / 3) * 8 / 16)


def test_protection_adds_to_a_report_what_it_is_asked_for():
    report = sample_report()
    layer = [op for op in report.ops if op.module == "layer1.0"]
    moved = sum(op.bytes["scratchpad"] for op in layer)
    cost = secded_cost(mac_energy_j=2e-13)
    found = cost.added_to(report, level="scratchpad", component="scratchpad", modules="layer1.0")
    assert found.extra_bytes == pytest.approx(moved / 8)
    assert found.storage_j == pytest.approx(sum(op.energy_j["scratchpad"] for op in layer) / 8)
    assert found.logic_j == pytest.approx(moved / 8 * 0.705 * 2e-13)
    assert found.compute_j == 0
    assert found.latency_s == pytest.approx(sum(op.bytes["scratchpad"] > 0 for op in layer) / CLOCK_HZ)
    assert found.overhead == pytest.approx((found.storage_j + found.logic_j) / report.energy_j)
    twice = duplication_cost(8, mac_energy_j=2e-13).added_to(report, level="scratchpad", component="scratchpad")
    assert twice.compute_j == pytest.approx(report.energy_by_component_j["mac"])
    assert twice.storage_j == pytest.approx(report.energy_by_component_j["scratchpad"])
    hardened = hardening_cost(8, hardened_bits=8, cell="dice").added_to(report, level="scratchpad", component="scratchpad")
    assert (hardened.storage_j, hardened.extra_bytes, hardened.logic_j) == (pytest.approx(twice.storage_j), 0, 0)


def test_arguments_of_costs_are_checked():
    report, cost = sample_report(), secded_cost(mac_energy_j=1e-13)
    for call, told in (
        (lambda: secded_cost(24, mac_energy_j=1e-13), "data_bits: expected 8, 16, 32 or 64, got 24"),
        (lambda: secded_cost(mac_energy_j=0), "mac_energy_j: expected numbers above 0, got 0"),
        (lambda: hardening_cost(8, hardened_bits=9), "hardened_bits: expected an integer from 0 to 8, got 9"),
        (lambda: hardening_cost(8, hardened_bits=1, cell="10t"), "cell: unknown name '10t'"),
        (lambda: ProtectionCost(scheme="x", word_bits=8, cell_factor=0.5), "cell_factor: expected a number ≥ 1, got 0.5"),
        (lambda: cost.added_to(report, level="l2", component="scratchpad"), "level: unknown name 'l2'"),
        (lambda: cost.added_to(report, level="scratchpad", component="sram"), "component: unknown name 'sram'"),
        (lambda: cost.added_to(report, level="off_chip", component="off_chip", modules="x"), "modules: pattern 'x' fits none"),
    ):
        with pytest.raises(InputError, match="^" + told):
            call()
