"""Entropy coding of exponents: floats made smaller without loss, or with fewer mantissa bits.

Trained weights fill their sign and mantissa bits evenly, their exponents hardly: a Gaussian tensor in BF16 has 2.6 bits of
information in the 8 of its exponents. NeuZip (Hao, Cao, Mou, arXiv 2410.20650) codes the exponents and stores the other bits as
they are; ``compress`` does the same, with a coder of its own (``numerics._entropy_kernels``), into bytes that stand alone but for
the meaning of the codes: bias and special codes are those of the format.
"""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from numerics._display import displayed, displaying
from numerics._parallel import run_parts
from numerics.errors import InputError, unknown_name
from numerics.formats import FloatFormat, Format, get_format
from numerics.packing import check_codes, code_dtype, pack, unpack

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FORMAT_OF_DTYPE = {
    "float16": "fp16",
    "bfloat16": "bf16",
    "float8_e3m4": "e3m4",
    "float8_e4m3": "e4m3",
    "float8_e4m3fn": "e4m3fn",
    "float8_e4m3fnuz": "e4m3fnuz",
    "float8_e4m3b11fnuz": "e4m3b11fnuz",
    "float8_e5m2": "e5m2",
    "float8_e5m2fnuz": "e5m2fnuz",
    "float8_e8m0fnu": "e8m0fnu",
}
_MAGIC = b"rANS"
_VERSION = 1
_HEADER = struct.Struct("<4s7B")
"""Magic, version, exponent bits, mantissa bits, mantissa bits kept, signed, precision (0: exponents as they are), dimensions.
The shape and a CRC-32 of all of it and of the codes follow."""
_PRECISION = 14
"""Frequencies are multiples of 2^−14: a decoding table of 16,384 entries stays in a processor's first cache."""
_BLOCK = 1 << 18
"""Symbols coded together: a block begins with its states and the number of its words, so that threads share the blocks."""


# --- entropy ------------------------------------------------------------------------------------------------------------


def entropy_bits(symbols: Any) -> float:
    """Shannon entropy of the values in an array, in bits a value: −Σ p log2 p over the values that occur.

    Args:
        symbols: integers, any shape.

    Raises:
        InputError: not integers, or none.
    """
    values = np.asarray(symbols)
    if values.dtype.kind not in "iub":
        raise InputError(f"symbols: expected integers, got {values.dtype}")
    if values.size == 0:
        raise InputError("symbols: expected at least one, got an empty array")
    return _entropy(np.unique(values, return_counts=True)[1])


def _entropy(counts: NDArray[Any]) -> float:
    p = counts[counts > 0] / counts.sum()
    return abs(float(-(p * np.log2(p)).sum()))  # the sum of one symbol alone is −0


@displayed
@dataclass(frozen=True)
class FieldEntropy:
    """Bits of information in each field of a float format's codes, each field by itself.

    Attributes:
        sign: of 1 bit (0 where the format has none).
        exponent: of ``exponent_bits``.
        mantissa: of ``mantissa_bits``.
        exponent_ratio: size after ideal coding of the exponents over the size before: what ``compress`` approaches.
    """

    sign: float
    exponent: float
    mantissa: float
    exponent_ratio: float


def field_entropy(x: Any, fmt: str | Format | None = None) -> FieldEntropy:
    """How much information the fields of floats hold; see ``compress`` for the arguments."""
    codes, found = _codes_and_format(x, fmt)
    if codes.size == 0:
        raise InputError("x: expected at least one element, got an empty array")
    wide = codes.reshape(-1).astype(np.uint32)
    exponent = entropy_bits(_exponents(wide, found))
    mantissa = entropy_bits(wide & np.uint32((1 << found.mantissa_bits) - 1))
    sign = entropy_bits(wide >> np.uint32(found.code_bits - 1)) if found.signed else 0.0
    ratio = (found.code_bits - found.exponent_bits + exponent) / found.code_bits
    return FieldEntropy(sign, exponent, mantissa, ratio)


# --- codes --------------------------------------------------------------------------------------------------------------


def float_codes(x: Any) -> tuple[NDArray[Any], FloatFormat]:
    """The codes that an array of 8- or 16-bit floats consists of, and their format. Nothing is rounded, nothing copied.

    Args:
        x: numpy array (float16, or a type of ml_dtypes) or torch tensor of any shape.

    Returns:
        Unsigned integers of the shape of x, NaNs with their payload; the format.

    Raises:
        InputError: a type without a format of 8 or 16 bits.
    """
    if hasattr(x, "detach"):
        import torch

        name = str(x.dtype).removeprefix("torch.")
        if name in _FORMAT_OF_DTYPE:
            width = torch.uint8 if x.element_size() == 1 else torch.uint16
            return x.detach().cpu().contiguous().view(width).numpy(), _float(_FORMAT_OF_DTYPE[name])
    else:
        array = np.asarray(x)
        name = str(array.dtype)
        if name in _FORMAT_OF_DTYPE:
            return array.view(np.dtype(f"u{array.dtype.itemsize}")), _float(_FORMAT_OF_DTYPE[name])
    raise InputError(f"x: expected floats of 8 or 16 bits ({', '.join(_FORMAT_OF_DTYPE)}), or codes and their format; got {name}")


def _float(fmt: str | Format) -> FloatFormat:
    found = get_format(fmt)
    if not isinstance(found, FloatFormat):
        raise InputError(f"format: expected a float format, which has exponents, got {found.name!r}")
    if found.code_bits > 16:
        raise InputError(f"format: expected one of at most 16 bits, got {found.name!r} ({found.code_bits} bits)")
    return found


def _codes_and_format(x: Any, fmt: str | Format | None) -> tuple[NDArray[Any], FloatFormat]:
    if fmt is None:
        return float_codes(x)
    found = _float(fmt)
    codes = x.detach().cpu().numpy() if hasattr(x, "detach") else np.asarray(x)
    if str(codes.dtype) in _FORMAT_OF_DTYPE or codes.dtype.kind == "f":
        raise InputError(f"x: expected integer codes beside a format, got {codes.dtype}; encode(x, {found.name!r}) gives them")
    check_codes(codes, found.code_bits)
    return codes.astype(code_dtype(found.code_bits), copy=False), found


def _exponents(codes: NDArray[Any], fmt: FloatFormat) -> NDArray[Any]:
    field = (codes >> codes.dtype.type(fmt.mantissa_bits)) & codes.dtype.type((1 << fmt.exponent_bits) - 1)
    return field.astype(code_dtype(fmt.exponent_bits), copy=False)


def truncate_mantissa(x: Any, fmt: str | Format | None = None, *, keep_bits: int, rounding: str = "toward_zero") -> NDArray[Any]:
    """Codes whose mantissas keep their leading bits only; the others become 0.

    The values are those of a format with ``keep_bits`` mantissa bits and the same exponents: rounded toward zero, or to nearest
    even. Rounding up stops at the largest finite value that has ``keep_bits`` bits. Inf and zeros stay as they are (what
    becomes zero keeps its sign where the format has −0), and NaNs stay NaN, without the rest of their payload.

    Args:
        x, fmt: as for ``compress``.
        keep_bits: 0 to the mantissa bits of the format.
        rounding: ``toward_zero`` or ``nearest_even``.

    Returns:
        Codes of the same format, of the shape of x.

    Raises:
        InputError: ``keep_bits`` out of range; a NaN that fewer bits cannot tell from another value.
    """
    codes, found = _codes_and_format(x, fmt)
    m = found.mantissa_bits
    if not isinstance(keep_bits, int | np.integer) or isinstance(keep_bits, bool) or not 0 <= keep_bits <= m:
        raise InputError(f"keep_bits: expected an integer from 0 to {m} ({found.name}), got {keep_bits!r}")
    if rounding not in ("toward_zero", "nearest_even"):
        raise unknown_name("rounding", str(rounding), ("toward_zero", "nearest_even"))
    if keep_bits == m:
        return codes.copy()
    lost = m - int(keep_bits)
    wide = codes.astype(np.uint32)
    magnitude = wide & np.uint32((1 << (found.exponent_bits + m)) - 1)
    sign = wide - magnitude
    table = found.table()
    nan = np.isnan(table[wide])
    kept = (magnitude >> lost) << lost
    if rounding == "nearest_even":
        # The codes of magnitudes ascend as they do: half a step up, and the carry finds the next exponent by itself.
        nearest = ((magnitude + np.uint32((1 << (lost - 1)) - 1) + ((magnitude >> lost) & np.uint32(1))) >> lost) << lost
        finite = np.flatnonzero(np.isfinite(table[: 1 << (found.exponent_bits + m)]))[-1]
        moves = np.isfinite(table[wide]) & (table[wide] != 0)
        kept = np.where(moves, np.minimum(nearest, (int(finite) >> lost) << lost), kept)
    if found.specials == "ieee":
        kept = np.where(nan, kept | np.uint32(1 << (m - 1)), kept)
    elif found.specials == "negative_zero_is_nan":
        sign = np.where((kept == 0) & ~nan, 0, sign)
    result = (sign | kept).astype(codes.dtype)
    gone = nan & ~np.isnan(table[(sign | ((kept >> lost) << lost)).astype(codes.dtype)])
    if gone.any():
        raise InputError(f"x: holds a NaN, which {found.name!r} with {keep_bits} mantissa bits cannot tell from another value")
    return result


# --- the container ------------------------------------------------------------------------------------------------------


@displaying("original_bytes", "ratio", "bits_per_element")
@dataclass(frozen=True)
class CompressedFloats:
    """Floats with coded exponents.

    Attributes:
        format: of the codes.
        shape: of the tensor.
        mantissa_bits: bits kept of each mantissa.
        data: what a file would hold: header, shape, checksum, frequencies, words, the other bits.
    """

    format: FloatFormat
    shape: tuple[int, ...]
    mantissa_bits: int
    data: bytes

    @property
    def elements(self) -> int:
        """Elements of the tensor."""
        return math.prod(self.shape)

    @property
    def original_bytes(self) -> int:
        """Bytes of the codes as they were, densely packed."""
        return self.format.storage_bytes(self.elements)

    @property
    def ratio(self) -> float:
        """Bytes of ``data`` over the bytes before: below 1 where something was gained."""
        return len(self.data) / self.original_bytes if self.original_bytes else math.inf

    @property
    def bits_per_element(self) -> float:
        """Bits of ``data`` for each element."""
        return 8 * len(self.data) / self.elements if self.elements else math.inf


def compress(
    x: Any, fmt: str | Format | None = None, *, mantissa_bits: int | None = None, rounding: str = "toward_zero"
) -> CompressedFloats:
    """Floats with their exponents entropy coded; sign and mantissa bits are packed as they are.

    Without ``mantissa_bits`` every code comes back as it was, NaN payloads, Inf, −0 and subnormals among them. Where coding the
    exponents gains nothing they are stored as they are, so that only the header is added.

    Args:
        x: codes (unsigned integers, with ``fmt``; ``encode`` gives them), or an array or tensor of 8- or 16-bit floats.
        fmt: float format of the codes, at most 16 bits; left out for floats, which have their own.
        mantissa_bits: mantissa bits to keep: the lossy mode, see ``truncate_mantissa``.
        rounding: how the others are dropped, ``toward_zero`` or ``nearest_even``.

    Raises:
        InputError: neither codes with a format nor such floats; as ``truncate_mantissa``.
    """
    codes, found = _codes_and_format(x, fmt)
    kept = found.mantissa_bits if mantissa_bits is None else mantissa_bits
    codes = truncate_mantissa(codes, found, keep_bits=kept, rounding=rounding) if mantissa_bits is not None else codes
    flat = np.ascontiguousarray(codes).reshape(-1)
    exponents = _exponents(flat, found)
    coded = _coded_exponents(exponents, found.exponent_bits)
    plain = pack(exponents, found.exponent_bits).tobytes()
    precision = _PRECISION if len(coded) < len(plain) else 0
    layout = (found.exponent_bits, found.mantissa_bits, kept, found.signed, precision, codes.ndim)
    header = _HEADER.pack(_MAGIC, _VERSION, *layout) + struct.pack(f"<{codes.ndim}Q", *codes.shape)
    checksum = struct.pack("<I", _checksum(flat, header))
    data = b"".join([header, checksum, coded if precision else plain, _rest_bytes(flat, found, kept)])
    return CompressedFloats(found, codes.shape, int(kept), data)


def _rest_bytes(flat: NDArray[Any], fmt: FloatFormat, kept: int) -> bytes:
    """Signs and kept mantissa bits, packed."""
    bits = int(fmt.signed) + kept
    if bits == 0:
        return b""
    mantissa = (flat & flat.dtype.type((1 << fmt.mantissa_bits) - 1)) >> flat.dtype.type(fmt.mantissa_bits - kept)
    sign = flat >> flat.dtype.type(fmt.code_bits - 1) if fmt.signed else flat * flat.dtype.type(0)
    return pack(mantissa | (sign << flat.dtype.type(kept)), bits).tobytes()


def _checksum(flat: NDArray[Any], header: bytes) -> int:
    return zlib.crc32(flat.astype(flat.dtype.newbyteorder("<"), copy=False).data, zlib.crc32(header))


def _normalised(counts: NDArray[Any], precision: int) -> NDArray[np.uint32]:
    """Frequencies that sum to 2^precision, at least 1 for what occurs: those of least length Σ count · log2(1 / frequency).

    The length is convex in each frequency, so that one from which no unit can move at a gain is the shortest.
    """
    occurs = np.flatnonzero(counts)
    total = 1 << precision
    if len(occurs) > total:
        raise InputError(f"x: has {len(occurs)} different exponents, more than {total}")
    count = counts[occurs].astype(np.float64)
    f = np.maximum(1.0, np.rint(count / count.sum() * total))
    while True:
        gain = count * np.log2((f + 1) / f)
        with np.errstate(divide="ignore"):
            loss = count * np.log2(f / (f - 1))  # infinite for a 1
        excess = f.sum() - total
        more, less = int(np.argmax(gain)), int(np.argmin(loss))
        if excess == 0 and gain[more] <= loss[less] * (1 + 1e-9):
            break
        if excess <= 0:
            f[more] += 1
        if excess >= 0:
            f[less] -= 1
    frequencies = np.zeros(len(counts), np.uint32)
    frequencies[occurs] = f
    return frequencies


def _coded_exponents(exponents: NDArray[Any], bits: int) -> bytes:
    """The frequencies, then each block: its states, the number of its words, its words."""
    if exponents.size == 0:
        return b""
    from numerics import _entropy_kernels as k

    frequencies = _normalised(np.bincount(exponents, minlength=1 << bits), _PRECISION)
    cumulated = (np.cumsum(frequencies) - frequencies).astype(np.uint32)
    occurs = np.flatnonzero(frequencies)
    table = np.stack([occurs, frequencies[occurs] - 1], axis=1).astype("<u2")
    blocks = -(-exponents.size // _BLOCK)
    coded: list[bytes] = [b""] * blocks

    def work(first: int, last: int) -> None:
        words, states = np.empty(min(_BLOCK, exponents.size), np.uint16), np.empty(k.LANES, np.uint32)
        for block in range(first, last):
            part = exponents[block * _BLOCK : (block + 1) * _BLOCK]
            at = k.encode_block(part, frequencies, cumulated, _PRECISION, words, states)
            kept = words[at:].astype("<u2", copy=False)
            coded[block] = states.astype("<u4").tobytes() + struct.pack("<I", kept.size) + kept.tobytes()

    run_parts(work, blocks, smallest=1)
    return struct.pack("<H", len(occurs)) + table.tobytes() + b"".join(coded)


class _Reader:
    """Bytes read in order; running out of them is an error."""

    def __init__(self, data: bytes) -> None:
        self.data = memoryview(data)
        self.at = 0

    def take(self, count: int) -> memoryview:
        if self.at + count > len(self.data):
            raise damaged(f"ends after {len(self.data)} bytes, expected at least {self.at + count}")
        self.at += count
        return self.data[self.at - count : self.at]

    def unpack(self, layout: str | struct.Struct) -> tuple[Any, ...]:
        layout = struct.Struct(layout) if isinstance(layout, str) else layout
        return layout.unpack(self.take(layout.size))

    def array(self, dtype: str, count: int) -> NDArray[Any]:
        kind = np.dtype(dtype)
        return np.frombuffer(self.take(kind.itemsize * count), kind).astype(kind.newbyteorder("="), copy=False)


def damaged(what: str) -> InputError:
    """The error for bytes that ``compress`` did not write."""
    return InputError(f"data: expected what compress wrote, but it {what}")


def decompress(data: CompressedFloats | bytes) -> NDArray[Any]:
    """The codes in the narrowest unsigned type, in their shape; ``.view(numpy.float16)`` and the like make them floats again.

    Args:
        data: what ``compress`` returned, or its ``data``.

    Raises:
        InputError: bytes that it did not write: another file, cut short, or changed.
    """
    if isinstance(data, CompressedFloats):
        data = data.data
    if not isinstance(data, bytes | bytearray | memoryview):
        raise InputError(f"data: expected CompressedFloats or bytes, got {type(data).__name__}")
    reader = _Reader(bytes(data))
    magic, version, e, m, kept, signed, precision, dimensions = reader.unpack(_HEADER)
    if magic != _MAGIC or version != _VERSION:
        raise damaged(f"begins with {bytes(magic)!r}, version {version}")
    bits = e + m + signed
    if not (e >= 1 and kept <= m and signed <= 1 and bits <= 16 and precision in (0, _PRECISION)):
        raise damaged("has a header with impossible fields")
    shape = reader.unpack(f"<{dimensions}Q")
    header = bytes(reader.data[: reader.at])
    (checksum,) = reader.unpack("<I")
    count = math.prod(shape)
    exponents = _decoded_exponents(reader, count, e) if precision else unpack(_packed(reader, count, e), e, count)
    flat = exponents.astype(code_dtype(bits)) << code_dtype(bits).type(m)
    if kept + signed:
        rest = unpack(_packed(reader, count, kept + signed), kept + signed, count).astype(flat.dtype)
        flat |= (rest & flat.dtype.type((1 << kept) - 1)) << flat.dtype.type(m - kept)
        if signed:
            flat |= (rest >> flat.dtype.type(kept)) << flat.dtype.type(bits - 1)
    if reader.at != len(reader.data):
        raise damaged(f"goes on for {len(reader.data) - reader.at} bytes after its end")
    if _checksum(flat, header) != checksum:
        raise damaged("does not agree with its checksum")
    return flat.reshape(shape)


def _packed(reader: _Reader, count: int, bits: int) -> NDArray[np.uint8]:
    return reader.array("u1", -(-count * bits // 8))


def _decoded_exponents(reader: _Reader, count: int, bits: int) -> NDArray[Any]:
    from numerics import _entropy_kernels as k

    (listed,) = reader.unpack("<H")
    table = reader.array("<u2", 2 * listed).reshape(-1, 2)
    if listed == 0 or table[:, 0].max() >> bits or len(set(table[:, 0].tolist())) != listed:
        raise damaged("lists impossible exponents")
    frequencies = np.zeros(1 << bits, np.uint32)
    frequencies[table[:, 0]] = table[:, 1].astype(np.uint32) + 1
    if int(frequencies.sum()) != 1 << _PRECISION:
        raise damaged("has frequencies that do not add up")
    cumulated = (np.cumsum(frequencies) - frequencies).astype(np.uint32)
    blocks: list[tuple[NDArray[np.uint32], NDArray[np.uint16]]] = []
    for _ in range(-(-count // _BLOCK)):
        states = reader.array("<u4", k.LANES)
        (words,) = reader.unpack("<I")
        blocks.append((states, reader.array("<u2", words)))
    exponents = np.empty(count, code_dtype(bits))
    symbol_of = np.repeat(np.arange(1 << bits, dtype=exponents.dtype), frequencies)

    def work(first: int, last: int) -> bool:
        good = True
        for block in range(first, last):
            states, words = blocks[block]
            part = exponents[block * _BLOCK : (block + 1) * _BLOCK]
            good &= k.decode_block(words, states, symbol_of, frequencies, cumulated, _PRECISION, part)
        return good

    if not all(run_parts(work, len(blocks), smallest=1)):
        raise damaged("has words that do not decode")
    return exponents
