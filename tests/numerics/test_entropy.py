"""Entropy coding: every code of every format comes back, sizes are near the entropy, damage is found."""

import dataclasses
import math

import ml_dtypes
import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from numerics import _entropy_kernels as k
from numerics import entropy
from numerics.encoding import encode
from numerics.entropy import compress, decompress, entropy_bits, field_entropy, float_codes, truncate_mantissa
from numerics.errors import InputError
from numerics.formats import FloatFormat, get_format

FORMATS = (
    "bf16", "fp16", "e5m2", "e4m3fn", "e4m3", "e3m4", "e5m2fnuz", "e4m3fnuz", "e8m0fnu", "e2m1fn", "e3m2fn", "e2m3fn", "e11m4",
)  # fmt: skip


def every_code(fmt):
    return np.arange(1 << fmt.code_bits).astype(np.uint8 if fmt.code_bits <= 8 else np.uint16)


# --- lossless -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_every_code_comes_back(name):
    fmt = get_format(name)
    codes = np.random.default_rng(0).permutation(every_code(fmt))
    result = decompress(compress(codes, fmt))
    assert result.dtype == codes.dtype
    assert np.array_equal(result, codes)


@pytest.mark.parametrize("name", FORMATS)
def test_every_code_comes_back_among_many_of_few(name):
    # Such that the exponents are worth coding, and each is met at least once.
    fmt = get_format(name)
    rng = np.random.default_rng(1)
    codes = rng.permutation(
        np.concatenate([every_code(fmt), np.full(600_000, 1 << fmt.mantissa_bits).astype(every_code(fmt).dtype)])
    )
    packed = compress(codes, fmt)
    assert np.array_equal(decompress(packed), codes)
    assert len(packed.data) < packed.original_bytes


@given(st.integers(0, 10_000), st.sampled_from(FORMATS), st.integers(0, 300))
def test_any_length_comes_back(seed, name, length):
    fmt = get_format(name)
    rng = np.random.default_rng(seed)
    pool = rng.choice(every_code(fmt), min(1 + seed % 7, 1 << fmt.code_bits))
    codes = rng.choice(pool, length)
    assert np.array_equal(decompress(compress(codes, fmt)), codes)


@pytest.mark.parametrize("length", [(1 << 18) - 1, 1 << 18, (1 << 18) + 1, 3 * (1 << 18) + 5])
def test_blocks_join(length):
    codes = encode(np.random.default_rng(2).standard_normal(length).astype(np.float32), "bf16")
    assert np.array_equal(decompress(compress(codes, "bf16")), codes)


def test_threads_do_not_change_the_bytes():
    import numba

    codes = encode(np.random.default_rng(3).standard_normal(1 << 20).astype(np.float32), "bf16")
    before = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        one = compress(codes, "bf16").data
    finally:
        numba.set_num_threads(before)
    assert compress(codes, "bf16").data == one


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (2, 3, 4), (1,)])
def test_shapes_come_back(shape):
    codes = np.full(shape, 0x3F80, np.uint16)
    result = decompress(compress(codes, "bf16").data)
    assert result.shape == shape
    assert np.array_equal(result, codes)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2fnuz])
def test_numpy_floats_come_back_with_their_nans(dtype):
    bits = np.dtype(dtype).itemsize * 8
    x = np.arange(1 << bits).astype(f"u{bits // 8}").view(dtype).reshape(16, -1)
    packed = compress(x)
    assert decompress(packed).view(dtype).tobytes() == x.tobytes()
    assert packed.shape == x.shape


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e8m0fnu])
def test_torch_floats_come_back(dtype):
    integers = (
        torch.arange(-(1 << 15), 1 << 15).to(torch.int16) if dtype.itemsize == 2 else torch.arange(-128, 128).to(torch.int8)
    )
    x = integers.view(dtype).reshape(4, -1).t()  # not contiguous
    codes = decompress(compress(x))
    back = torch.from_numpy(codes.view(np.int16 if dtype.itemsize == 2 else np.int8)).view(dtype)
    signed = torch.int16 if dtype.itemsize == 2 else torch.int8
    assert torch.equal(back.view(signed), x.contiguous().view(signed))


def test_a_view_copies_nothing():
    x = np.ones(4, np.float16)
    codes, fmt = float_codes(x)
    assert fmt == get_format("fp16")
    assert np.shares_memory(codes, x)


# --- size ---------------------------------------------------------------------------------------------------------------


def gaussian_exponent_entropy(sigma, fmt):
    """Of a Gaussian rounded to a format: probabilities of its intervals from the normal distribution function."""
    edges = [0.0]
    for field in range(1, 1 << fmt.exponent_bits):
        # A magnitude rounds up into an octave from half a step below it.
        edges.append(2.0 ** (field - fmt.bias) * (1 - fmt.eps / 4))
    p = 2 * np.diff(scipy.stats.norm.cdf(np.array([*edges, math.inf]) / sigma))
    return scipy.stats.entropy(p[p > 0], base=2)


@pytest.mark.parametrize(("name", "sigma"), [("bf16", 1.0), ("bf16", 0.02), ("fp16", 0.02), ("e4m3fn", 1.0), ("e5m2", 1.0)])
def test_entropy_is_that_of_the_normal_distribution(name, sigma):
    fmt = get_format(name)
    codes = encode(np.random.default_rng(4).standard_normal(1 << 20) * sigma, fmt)
    found = field_entropy(codes, fmt)
    assert found.exponent == pytest.approx(gaussian_exponent_entropy(sigma, fmt), abs=0.01)
    assert found.sign == pytest.approx(1, abs=1e-5)
    assert found.exponent_ratio == (fmt.code_bits - fmt.exponent_bits + found.exponent) / fmt.code_bits


def test_entropy_of_few_symbols():
    assert entropy_bits([5, 5, 5]) == 0
    assert math.copysign(1, entropy_bits([5, 5, 5])) == 1
    assert entropy_bits([0, 1, 2, 3]) == 2
    values = np.random.default_rng(5).poisson(3, 1000)
    assert entropy_bits(values) == pytest.approx(scipy.stats.entropy(np.bincount(values), base=2), abs=1e-12)
    assert field_entropy(np.array([0x3F80] * 4, np.uint16), "bf16").exponent == 0


@pytest.mark.parametrize("name", ["bf16", "fp16", "e4m3fn", "e5m2"])
def test_size_is_within_a_thousandth_of_the_entropy(name):
    fmt = get_format(name)
    codes = encode(np.random.default_rng(6).standard_normal(1 << 20), fmt)
    packed = compress(codes, fmt)
    ideal = field_entropy(codes, fmt).exponent_ratio
    assert ideal <= packed.ratio < 1.001 * ideal
    assert packed.ratio == len(packed.data) / (codes.size * fmt.code_bits / 8)
    assert packed.bits_per_element == 8 * len(packed.data) / codes.size


def test_what_does_not_compress_only_grows_by_the_header():
    fmt = get_format("bf16")
    codes = np.random.default_rng(7).integers(0, 1 << 16, 100_000).astype(np.uint16)
    packed = compress(codes, fmt)
    assert 0 < len(packed.data) - packed.original_bytes < 32
    assert np.array_equal(decompress(packed), codes)
    assert compress(np.array([0x3F80], np.uint16), "bf16").ratio > 1  # a header for one number


def test_one_exponent_costs_nothing():
    codes = np.full(1 << 17, 0x3F80, np.uint16) | np.random.default_rng(8).integers(0, 128, 1 << 17).astype(np.uint16)
    assert len(compress(codes, "bf16").data) == pytest.approx(1 << 17, abs=100)  # a byte each: sign and mantissa


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=300).filter(any))
def test_frequencies_keep_what_occurs_and_add_up(counts):
    counts = np.array(counts)
    frequencies = entropy._normalised(counts, 14)
    assert frequencies.sum() == 1 << 14
    assert ((frequencies > 0) == (counts > 0)).all()


@given(st.lists(st.integers(1, 1000), min_size=4, max_size=4))
def test_frequencies_are_the_best_there_are(counts):
    def length(frequencies):
        return -sum(n * math.log2(f) for n, f in zip(counts, frequencies, strict=True))

    # By trying all of them.
    every = ((a, b, c, 16 - a - b - c) for a in range(1, 14) for b in range(1, 15 - a) for c in range(1, 16 - a - b))
    assert length(entropy._normalised(np.array(counts), 4)) == pytest.approx(min(map(length, every)), rel=1e-9)


def test_the_coder_knows_how_many_words_it_needs():
    frequencies = np.array([9, 4, 2, 1], np.uint32)
    cumulated = np.array([0, 9, 13, 15], np.uint32)
    symbols = np.random.default_rng(13).choice(4, 500, p=frequencies / 16).astype(np.uint8)
    words, states = np.empty(500, np.uint16), np.empty(k.LANES, np.uint32)
    words = words[k.encode_block(symbols, frequencies, cumulated, 4, words, states) :]
    assert 16 * len(words) == pytest.approx(500 * entropy_bits(symbols), rel=0.1)
    symbol_of = np.repeat(np.arange(4, dtype=np.uint8), frequencies)

    def decoded(words, states):
        result = np.empty_like(symbols)
        return k.decode_block(words, states, symbol_of, frequencies, cumulated, 4, result), result

    good, result = decoded(words, states)
    assert good
    assert np.array_equal(result, symbols)
    assert not decoded(words[:-1], states)[0]
    assert not decoded(np.append(words, np.uint16(0)), states)[0]
    assert not decoded(words, states + np.uint32(1))[0]


# --- lossy --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rounding", ["toward_zero", "nearest_even"])
@pytest.mark.parametrize(("name", "keep"), [("bf16", 3), ("bf16", 1), ("fp16", 4), ("e5m2", 1), ("e4m3fnuz", 1), ("e3m4", 2)])
def test_fewer_bits_are_those_of_the_shorter_format(name, keep, rounding):
    fmt = get_format(name)
    codes = every_code(fmt)
    table = fmt.table()
    short = FloatFormat("short", fmt.exponent_bits, keep, bias=fmt.bias, specials=fmt.specials)
    magnitudes = np.unique(np.abs(short.table()[np.isfinite(short.table())]))
    result = table[truncate_mantissa(codes, fmt, keep_bits=keep, rounding=rounding)]
    nan = np.isnan(table)
    assert np.array_equal(np.isnan(result), nan)
    infinite = np.isinf(table)
    assert np.array_equal(result[infinite], table[infinite])
    x, y = table[~nan & ~infinite], result[~nan & ~infinite]
    at = np.searchsorted(magnitudes, np.abs(x), side="right") - 1
    smaller, larger = magnitudes[at], magnitudes[np.minimum(at + 1, len(magnitudes) - 1)]
    # Values of the shorter format ascend with their codes: every other one is even.
    expected = smaller
    if rounding == "nearest_even":
        below, above = np.abs(x) - smaller, larger - np.abs(x)
        expected = np.where((above < below) | ((above == below) & (at % 2 == 1)), larger, smaller)
        expected[np.abs(x) >= magnitudes[-1]] = magnitudes[-1]
    assert np.array_equal(np.abs(y), expected)
    kept = np.signbit(x) == np.signbit(y)
    assert (kept | ((y == 0) & (not fmt.has_negative_zero))).all()


def test_lossy_mode_stores_what_it_keeps():
    codes = encode(np.random.default_rng(9).standard_normal(1 << 18).astype(np.float32), "bf16")
    lossless = compress(codes, "bf16")
    sizes = []
    for keep in (7, 3, 1, 0):
        packed = compress(codes, "bf16", mantissa_bits=keep)
        assert packed.mantissa_bits == keep
        assert np.array_equal(decompress(packed), truncate_mantissa(codes, "bf16", keep_bits=keep))
        sizes.append(packed.bits_per_element)
    assert sizes[0] == lossless.bits_per_element
    assert np.diff(sizes).tolist() == pytest.approx([-4, -2, -1], abs=1e-3)


def test_nan_stays_nan_or_is_an_error():
    nan = np.array([0x7F81, 0xFF81], np.uint16)  # the payload is in the bits that go
    assert truncate_mantissa(nan, "bf16", keep_bits=2).tolist() == [0x7FC0, 0xFFC0]
    with pytest.raises(InputError, match=r"^x: holds a NaN, which 'bf16' with 0 mantissa bits cannot tell from another value$"):
        truncate_mantissa(nan, "bf16", keep_bits=0)
    with pytest.raises(InputError, match=r"^x: holds a NaN, which 'e4m3fn' with 2 mantissa bits"):
        truncate_mantissa(np.array([0x7F], np.uint8), "e4m3fn", keep_bits=2)
    assert truncate_mantissa(np.array([0x7E], np.uint8), "e4m3fn", keep_bits=2).tolist() == [0x7E]  # 448 has two bits


def test_flushed_subnormals_do_not_rise():
    fmt = dataclasses.replace(get_format("e4m3"), name="flushed", subnormals=False)
    assert truncate_mantissa(np.array([7], np.uint8), fmt, keep_bits=1, rounding="nearest_even").tolist() == [4]  # 0, as 7 was
    assert fmt.table()[4] == 0


# --- damage -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bf16", "e4m3fn"])
def test_any_changed_byte_is_found(name):
    rng = np.random.default_rng(10)
    data = compress(encode(rng.standard_normal((50, 40)), name), name).data
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1 << rng.integers(8)
        with pytest.raises(InputError, match=r"^data: expected what compress wrote, but it "):
            decompress(bytes(changed))


def test_data_cut_short_or_longer_is_found():
    data = compress(encode(np.random.default_rng(11).standard_normal(2000), "bf16"), "bf16").data
    for length in range(0, len(data), 7):
        with pytest.raises(InputError, match=r"^data: "):
            decompress(data[:length])
    with pytest.raises(InputError, match=r"goes on for 1 bytes after its end$"):
        decompress(data + b"\0")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: compress(np.ones(3, np.float32)), r"^x: expected floats of 8 or 16 bits \(float16, .*\), or codes and"),
        (lambda: compress(torch.ones(3)), "^x: expected floats of 8 or 16 bits .*; got float32$"),
        (lambda: compress(np.ones(3, np.float16), "fp16"), "^x: expected integer codes beside a format, got float16; encode"),
        (lambda: compress(np.array([256]), "e4m3fn"), r"^codes: expected 0 to 255 \(8 bits\), got 256$"),
        (lambda: compress(np.array([1]), "int8"), "^format: expected a float format, which has exponents, got 'int8'$"),
        (lambda: compress(np.array([1]), "fp32"), r"^format: expected one of at most 16 bits, got 'fp32' \(32 bits\)$"),
        (lambda: compress(np.array([1]), "bf16", mantissa_bits=8), r"^keep_bits: expected an integer from 0 to 7 \(bf16\), got"),
        (lambda: truncate_mantissa(np.array([1]), "bf16", keep_bits=2, rounding="up"), "^rounding: unknown name 'up'; known: "),
        (lambda: decompress("x"), "^data: expected CompressedFloats or bytes, got str$"),
        (lambda: entropy_bits([]), "^symbols: expected integers, got float64$"),
        (lambda: entropy_bits(np.array([], int)), "^symbols: expected at least one, got an empty array$"),
        (lambda: field_entropy(np.array([], np.float16)), "^x: expected at least one element, got an empty array$"),
    ],
)  # fmt: skip
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()
