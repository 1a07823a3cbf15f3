"""Fault maps: every code and bit against the formats' tables; how faults are drawn against the binomial law."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from numerics import InputError, encode, format_names, get_format
from numerics.faults import (
    BitFaults,
    Burst,
    FaultMap,
    bit_fields,
    bit_positions,
    code_bits,
    corrupt,
    draw_map,
    draw_places,
    stream,
)
from numerics.formats import BlockFormat, CodebookFormat, FloatFormat, IntFormat

ELEMENTS = [name for name in format_names() if not isinstance(get_format(name), BlockFormat)]
BYTES_ONLY = ("complex64", "complex128")
TABLED = [name for name in ELEMENTS if code_bits(name) <= 9]


@pytest.mark.parametrize("name", format_names())
def test_fields_share_out_the_bits(name):
    fields = bit_fields(name)
    assert sorted(bit for bits in fields.values() for bit in bits) == list(range(code_bits(name)))
    for field, bits in fields.items():
        assert bit_positions(name, field) == bits


@pytest.mark.parametrize(
    "name", [name for name in ELEMENTS if isinstance(get_format(name), FloatFormat) and name not in BYTES_ONLY]
)
def test_the_fields_of_a_float_mean_what_they_say(name):
    fmt = get_format(name)
    one = np.float64([1.0]) if fmt.emin <= 0 <= fmt.emax else None
    if one is None or not fmt.signed:
        return
    fields = bit_fields(name)
    assert corrupt(one, name, FaultMap.from_places([0], [fields["sign"][0]])).tolist() == [-1.0]
    for place, bit in enumerate(fields.get("mantissa", ())):
        assert corrupt(one, name, FaultMap.from_places([0], [bit])).tolist() == [1 + 2.0 ** (place - fmt.mantissa_bits)]


@pytest.mark.parametrize("name", TABLED)
def test_every_flip_and_stuck_bit_of_every_code(name):
    fmt = get_format(name)
    table, bits = np.asarray(fmt.table(), np.float64), code_bits(name)
    codes = np.arange(len(table), dtype=np.int64)
    if isinstance(fmt, IntFormat):
        # The table of two's complement; a code that a symmetric format leaves out stands for what it says.
        table = (
            np.where(codes >= 1 << (bits - 1), codes - (1 << bits), codes).astype(float) if fmt.signed else codes.astype(float)
        )
    usable = np.isfinite(table)
    values = table[usable].astype(np.float32)
    if not isinstance(fmt, IntFormat):
        own = np.asarray(encode(values, name)).astype(np.int64)  # several codes may stand for one value
    else:
        own = codes[usable]
        if fmt.signed and fmt.symmetric:
            values, own = values[values >= fmt.code_min], own[values >= fmt.code_min]
    everywhere = np.arange(values.size)
    for bit in range(bits):
        for kind, changed in (("flip", own ^ 1 << bit), ("stuck_at_1", own | 1 << bit), ("stuck_at_0", own & ~(1 << bit))):
            found = corrupt(values, name, FaultMap.from_places(everywhere, np.full(values.size, bit), kind))
            inside = changed < len(table)
            expected = np.where(inside, table[np.minimum(changed, len(table) - 1)], 0.0).astype(np.float32)
            np.testing.assert_array_equal(found, expected, err_msg=f"{kind} of bit {bit}")


@pytest.mark.parametrize("kind", ["flip", "stuck_at_0", "stuck_at_1"])
def test_fp32_and_bf16_by_their_own_bits(kind):
    rng = np.random.default_rng(0)
    words = rng.integers(0, 1 << 32, 4000, dtype=np.uint32)
    words = words[np.isfinite(words.view(np.float32))]
    bits = rng.integers(0, 32, words.size).astype(np.uint32)
    mask = np.uint32(1) << bits
    changed = {"flip": words ^ mask, "stuck_at_0": words & ~mask, "stuck_at_1": words | mask}[kind]
    found = corrupt(words.view(np.float32), "fp32", FaultMap.from_places(np.arange(words.size), bits, kind))
    np.testing.assert_array_equal(found, changed.view(np.float32))
    tensor = torch.from_numpy(words.view(np.float32).copy()).bfloat16().float()
    high = np.asarray(tensor.numpy().view(np.uint32)) >> np.uint32(16)
    places = bits % 16
    mask = np.uint32(1) << places
    changed = {"flip": high ^ mask, "stuck_at_0": high & ~mask, "stuck_at_1": high | mask}[kind]
    found = corrupt(tensor, "bf16", FaultMap.from_places(np.arange(words.size), places, kind))
    np.testing.assert_array_equal(found.numpy(), (changed << np.uint32(16)).view(np.float32))


def test_scales_and_zero_points():
    scale = np.float32([[0.5], [0.25]])
    x = np.float32([[1.0, -2.0], [0.25, 0.75]])  # codes 2, −4; 1, 3
    faults = FaultMap.from_places([1, 2], [0, 6])
    assert corrupt(x, "int8", faults, scale=scale).tolist() == [[1.0, -1.5], [(1 + 64) / 4, 0.75]]
    # Code 10 stands for 0: the codes are 12, 6, 11, 13.
    shifted = corrupt(x, "uint8", faults, scale=scale, zero_point=10)
    assert shifted.tolist() == [[1.0, (7 - 10) * 0.5], [((11 ^ 64) - 10) / 4, 0.75]]


def test_a_symmetric_integer_reads_the_code_it_never_writes():
    assert corrupt(np.float32([0.0]), "int8", FaultMap.from_places([0], [7])).tolist() == [-128.0]


def test_a_codebook_entry_that_is_not_there_reads_as_zero():
    book = CodebookFormat("three", (1.0, 2.0, 5.0))
    assert corrupt(np.float32([2.0, 5.0]), book, FaultMap.from_places([0, 1], [1, 0])).tolist() == [0.0, 0.0]


masks = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 7)), max_size=8)


@given(masks, masks, st.sampled_from(["flip", "stuck_at_0", "stuck_at_1"]), st.sampled_from(["flip", "stuck_at_0", "stuck_at_1"]))
def test_maps_together(first, second, kind, other):
    """Flips add up, stuck bits hold against flips, and the first of two stuck values stays."""
    maps = [FaultMap.from_places([e for e, _ in p], [b for _, b in p], k) for p, k in ((first, kind), (second, other))]
    codes = np.arange(6, dtype=np.uint8) * 37
    expected = codes.astype(int)
    for places, k in ((first, kind), (second, other)):
        for element, bit in places if k == "flip" else ():
            expected[element] ^= 1 << bit
    for places, k in ((second, other), (first, kind)):
        for element, bit in places if k != "flip" else ():
            expected[element] = expected[element] | 1 << bit if k == "stuck_at_1" else expected[element] & ~(1 << bit)
    assert maps[0].merged(maps[1]).apply(codes).tolist() == expected.tolist()


# --- drawing ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rate", "bits"), [(1e-4, (0, 1, 2, 3, 4, 5, 6, 7)), (0.03, (7,)), (0.6, (1, 3))])
def test_a_rate_is_a_binomial(rate, bits):
    size, draws = 2000, 400
    counts = np.array([draw_places(size, bits, stream(0, i), rate=rate)[0].size for i in range(draws)])
    total = size * len(bits)
    assert stats.binomtest(int(counts.sum()), draws * total, rate).pvalue > 1e-4
    ratio = counts.var(ddof=1) / (total * rate * (1 - rate))
    assert stats.chi2.sf((draws - 1) * ratio, draws - 1) > 1e-4
    assert stats.chi2.cdf((draws - 1) * ratio, draws - 1) > 1e-4


def test_every_bit_is_as_likely():
    seen = np.zeros((20, 3))
    for i in range(3000):
        elements, bits = draw_places(20, (0, 2, 5), stream(1, i), rate=0.05)
        np.add.at(seen, (elements, np.searchsorted([0, 2, 5], bits)), 1)
    assert stats.chisquare(seen.reshape(-1)).pvalue > 1e-4
    chosen = np.zeros(60)
    for i in range(3000):
        elements, bits = draw_places(20, (0, 2, 5), stream(2, i), count=2)
        np.add.at(chosen, elements * 3 + np.searchsorted([0, 2, 5], bits), 1)
    assert chosen.sum() == 6000
    assert stats.chisquare(chosen).pvalue > 1e-4


def test_ends_of_the_rate():
    assert draw_places(10, range(8), stream(0), rate=0.0)[0].size == 0
    assert draw_places(10, range(8), stream(0), rate=1.0)[0].size == 80
    assert draw_places(0, range(8), stream(0), rate=0.5)[0].size == 0
    assert draw_places(10, range(8), stream(0), rate=1e-300)[0].size == 0


def test_the_same_words_give_the_same_faults():
    first = draw_map(BitFaults(rate=0.1), (5, 7), "int8", stream(3, "layer", 1))
    again = draw_map(BitFaults(rate=0.1), (5, 7), "int8", stream(3, "layer", 1))
    other = draw_map(BitFaults(rate=0.1), (5, 7), "int8", stream(3, "layer", 2))
    assert first.flip.tolist() == again.flip.tolist()
    assert first.elements.tolist() == again.elements.tolist()
    assert (first.elements.tolist(), first.flip.tolist()) != (other.elements.tolist(), other.flip.tolist())


@settings(max_examples=60)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 9), st.sampled_from(["row", "column"]), st.data())
def test_bursts_reach_their_neighbours(rows, columns, length, axis, data):
    element = data.draw(st.integers(0, rows * columns - 1))
    model = BitFaults(places=((element, 3),), burst=Burst(length, axis))
    grid = np.zeros((rows, columns), np.uint8)
    found = draw_map(model, (rows, columns), "int8", stream(0)).apply(grid)
    row, column = divmod(element, columns)
    expected = grid.copy()
    for step in range(length):
        r, c = (row, column + step) if axis == "row" else (row + step, column)
        if r < rows and c < columns:
            expected[r, c] = 8
    np.testing.assert_array_equal(found, expected)


def test_bursts_stay_in_their_matrix():
    model = BitFaults(places=((7, 0),), burst=Burst(5, "column"))  # of shape (2, 3, 2): row 0 of the second matrix
    assert draw_map(model, (2, 3, 2), "int8", stream(0)).elements.tolist() == [7, 9, 11]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"rate": 2.0}, r"^rate: expected a probability from 0 to 1, got 2\.0$"),
        ({"rate": math.nan}, r"^rate: expected a probability"),
        ({}, r"^rate, count, places: expected exactly one of them, got none$"),
        ({"rate": 0.1, "count": 2}, r"^rate, count, places: expected exactly one of them, got rate, count$"),
        ({"count": -1}, r"^count: expected an integer ≥ 0, got -1$"),
        ({"rate": 0.1, "kind": "flips"}, r"^kind: unknown name 'flips'"),
        ({"rate": 0.1, "target": "weights"}, r"^target: unknown name 'weights'"),
        ({"places": ((1,),)}, r"^places: expected pairs \(element, bit\)"),
    ],
)
def test_bad_models(arguments, text):
    with pytest.raises(InputError, match=text):
        BitFaults(**arguments)


def test_bad_places():
    with pytest.raises(InputError, match=r"^bits \(int8\): unknown name 'exponent'"):
        draw_map(BitFaults(rate=0.1, bits="exponent"), (3,), "int8", stream(0))
    with pytest.raises(InputError, match=r"^bits: 'int8' has bits 0 to 7, got 8$"):
        draw_map(BitFaults(rate=0.1, bits=(8,)), (3,), "int8", stream(0))
    with pytest.raises(InputError, match=r"^places: element from 0 to 2 expected, got 3$"):
        draw_map(BitFaults(places=((3, 0),)), (3,), "int8", stream(0))
    with pytest.raises(InputError, match=r"^places: bit from 0 to 7 expected, got 8$"):
        draw_map(BitFaults(places=((0, 8),)), (3,), "int8", stream(0))
    with pytest.raises(InputError, match=r"^count: the tensor has 24 bits that can fail, got 25$"):
        draw_map(BitFaults(count=25), (3,), "int8", stream(0))
    with pytest.raises(InputError, match=r"^elements: the tensor has 2, 0 to 1, got 2$"):
        corrupt(np.zeros(2, np.float32), "bf16", FaultMap.from_places([2], [0]))
    with pytest.raises(InputError, match=r"^burst\.axis: unknown name 'rows'"):
        Burst(2, "rows")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_torch_tensors_of_16_bits(dtype):
    fmt = {"bfloat16": "bf16", "float16": "fp16"}[dtype]
    x = torch.linspace(-3, 3, 64).to(getattr(torch, dtype))
    faults = FaultMap.from_places(np.arange(64), np.arange(64) % 16)
    found = corrupt(x, fmt, faults)
    assert found.dtype == x.dtype
    words = x.view(torch.int16).numpy().view(np.uint16) ^ (1 << (np.arange(64) % 16)).astype(np.uint16)
    numbers = ~torch.isnan(found).numpy()
    assert numbers.sum() > 50
    assert np.array_equal(found.view(torch.int16).numpy().view(np.uint16)[numbers], words[numbers])
    with pytest.raises(InputError, match=rf"^x: 'fp32' has values that {dtype} does not hold; expected float32$"):
        corrupt(torch.ones(4, dtype=getattr(torch, dtype)), "fp32", FaultMap.from_places([0], [0]))
