"""Packed codes against Python's integers."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numerics import InputError, decode, encode, get_format, pack, quantize, unpack


@given(st.integers(1, 16), st.integers(0, 100), st.integers(0, 1 << 30))
def test_codes_lie_in_one_integer_the_first_lowest(bits, count, seed):
    codes = np.random.default_rng(seed).integers(0, 1 << bits, count)
    whole = sum(int(code) << (i * bits) for i, code in enumerate(codes))
    packed = pack(codes, bits)
    assert packed.tobytes() == whole.to_bytes(-(-count * bits // 8), "little")
    back = unpack(packed, bits, count)
    np.testing.assert_array_equal(back, codes)
    assert back.dtype == (np.uint8 if bits <= 8 else np.uint16)


@pytest.mark.parametrize("bits", range(1, 17))
def test_many_codes_are_packed_piece_by_piece(bits):
    """Beyond one piece, and not a whole number of them; the codes at either side of each seam are read from one integer."""
    codes = np.random.default_rng(bits).integers(0, 1 << bits, 3 * (1 << 16) + 5).astype(np.uint8 if bits <= 8 else np.uint16)
    packed = pack(codes, bits)
    np.testing.assert_array_equal(unpack(packed, bits, codes.size), codes)
    whole = int.from_bytes(packed.tobytes(), "little")
    for place in (0, (1 << 16) - 1, 1 << 16, (2 << 16) - 1, 2 << 16, codes.size - 1):
        assert (whole >> (place * bits)) & ((1 << bits) - 1) == codes[place]
    assert whole >> (codes.size * bits) == 0


@pytest.mark.parametrize("bits", [1, 4, 6, 12])
def test_packing_takes_at_most_twice_its_result(bits):
    codes = np.zeros(1 << 23, np.uint8 if bits <= 8 else np.uint16)
    pack(codes[:8], bits)
    tracemalloc.start()
    packed = pack(codes, bits)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.2 * packed.nbytes


def test_any_shape_and_layout_is_taken_in_c_order():
    codes = np.arange(24).reshape(4, 6) % 16
    np.testing.assert_array_equal(pack(codes.T, 4), pack(np.ascontiguousarray(codes.T), 4))
    np.testing.assert_array_equal(pack(codes, 4), pack(codes.ravel(), 4))


@pytest.mark.parametrize(
    "name", ["e2m1fn", "e2m3fn", "e3m2fn", "e4m3fn", "fp16", "int2", "int3", "int12", "uint1", "q4.3", "nf4", "binary", "ternary"]
)
def test_encode_packs_and_decode_unpacks(name):
    x = np.random.default_rng(0).normal(0, 1, (7, 9)).astype(np.float32)
    packed = encode(x, name, packed=True)
    assert packed.dtype == np.uint8
    assert packed.nbytes == get_format(name).storage_bytes(x.size)
    np.testing.assert_array_equal(packed, pack(encode(x, name), get_format(name).bits))
    np.testing.assert_array_equal(decode(packed, name, shape=x.shape), quantize(x, name))


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("name", ["mxfp4", "mxfp6_e2m3", "mxfp8_e4m3", "mxint8", "nvfp4"])
def test_blocks_pack_with_their_axis_last(name, axis):
    x = np.random.default_rng(0).normal(0, 1, (64, 96)).astype(np.float32)
    packed, plain = encode(x, name, axis=axis, packed=True), encode(x, name, axis=axis)
    assert packed.codes.nbytes + packed.scales.nbytes == packed.storage_bytes == get_format(name).storage_bytes(x.size)
    np.testing.assert_array_equal(packed.codes, pack(np.moveaxis(plain.codes, axis, -1), packed.format.element.bits))
    np.testing.assert_array_equal(decode(packed), quantize(x, name, axis=axis))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pack(np.array([3, 4]), 2), "codes: expected 0 to 3 (2 bits), got 4"),
        (lambda: pack(np.array([-1]), 5), "codes: expected 0 to 31 (5 bits), got -1"),
        (lambda: pack(np.array([1.0]), 5), "codes: expected integers, got float64"),
        (lambda: pack(np.array([1]), 17), "bits: expected 1 to 16, got 17"),
        (lambda: pack(np.array([1]), 2.0), "bits: expected an integer, got 2.0"),
        (lambda: pack(np.array([1]), True), "bits: expected an integer, got True"),
        (lambda: unpack(np.zeros(1, np.uint8), 2.0, 4), "bits: expected an integer, got 2.0"),
        (lambda: unpack(np.zeros(1, np.uint8), 2, 4.0), "count: expected an integer, got 4.0"),
        (lambda: unpack(np.zeros(0, np.uint8), 2, -1), "count: expected ≥ 0, got -1"),
        (lambda: unpack(np.zeros(1, np.uint8), 0, 8), "bits: expected 1 to 16, got 0"),
        (lambda: unpack(np.zeros(3, np.uint8), 6, 5), "packed: 5 codes of 6 bits take 4 bytes, got 3"),
        (lambda: unpack(np.zeros(4, np.uint16), 8, 4), "packed: expected bytes (uint8), got uint16"),
        (lambda: encode(np.zeros(4), "fp32", packed=True), "bits: expected 1 to 16, got 32"),
        (
            lambda: decode(np.zeros(2, np.uint8), "e2m1fn", shape=(2, 3)),
            "packed: 6 codes of 4 bits take 3 bytes, got 2",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError) as caught:
        call()
    assert str(caught.value) == message
