"""Addresses (numba): where they lie, and the requests of a regular pattern. The tests hold the decoder against plain division."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def decode(bursts, parts, hashes, out):
    """Fields of each burst number.

    Args:
        bursts: (n,) burst numbers.
        parts: (p, 4) field, radix, weight, shift (-1 where the radix is no power of two), lowest part first.
        hashes: banks for the XOR hash (0 for none), banks of a group; channels to rotate (0 for none), pseudo-channels.
        out: (n, 7) in the order of ``mapping.FIELDS``: channel, pseudo, rank, group, bank, row, column.
    """
    for i in range(bursts.size):
        decode_one(bursts[i], parts, hashes, out[i])


@njit(cache=True, nogil=True)
def decode_one(burst, parts, hashes, fields):
    for f in range(7):
        fields[f] = 0
    rest = burst
    above = np.int64(0)
    for p in range(parts.shape[0]):
        shift = parts[p, 3]
        if shift >= 0:
            digit = rest & (parts[p, 1] - 1)
            rest >>= shift
        else:
            digit = rest % parts[p, 1]
            rest //= parts[p, 1]
        fields[parts[p, 0]] += digit * parts[p, 2]
        if parts[p, 0] <= 1:
            above = rest
    if hashes[0] > 0:
        flat = (fields[3] * hashes[1] + fields[4]) ^ (fields[5] & (hashes[0] - 1))
        fields[3] = flat // hashes[1]
        fields[4] = flat % hashes[1]
    if hashes[2] > 0:
        # The golden ratio times what lies above them rotates channels and pseudo-channels: each comes once for each of those.
        turned = np.int64((np.uint64(above) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40))
        fields[0] = (fields[0] + (turned >> 4)) % hashes[2]
        fields[1] = (fields[1] + turned) % hashes[3]


@njit(cache=True, nogil=True)
def route(bursts, writes, arrival, parts, hashes, shape, units):
    """Requests sorted by unit, in their order within a unit.

    Args:
        bursts, writes, arrival: (n,) of each request.
        parts, hashes: as in ``decode``.
        shape: pseudo-channels, bank groups, banks of a group.
        units: how many.

    Returns:
        (n,) request number, bank, row, writes and arrival in the new order, and (units + 1,) where each unit's begin.
    """
    n = bursts.size
    fields = np.zeros(7, dtype=np.int64)
    unit = np.empty(n, dtype=np.int32)
    bank = np.empty(n, dtype=np.int32)
    row = np.empty(n, dtype=np.int64)
    starts = np.zeros(units + 1, dtype=np.int64)
    for i in range(n):
        decode_one(bursts[i], parts, hashes, fields)
        unit[i] = fields[0] * shape[0] + fields[1]
        bank[i] = (fields[2] * shape[1] + fields[3]) * shape[2] + fields[4]
        row[i] = fields[5]
        starts[unit[i] + 1] += 1
    for u in range(units):
        starts[u + 1] += starts[u]
    place = starts[:-1].copy()
    order = np.empty(n, dtype=np.int64)
    banks = np.empty(n, dtype=np.int64)
    rows = np.empty(n, dtype=np.int64)
    writing = np.empty(n, dtype=np.bool_)
    arriving = np.empty(n, dtype=np.int64)
    for i in range(n):
        k = place[unit[i]]
        place[unit[i]] = k + 1
        order[k], banks[k], rows[k], writing[k], arriving[k] = i, bank[i], row[i], writes[i], arrival[i]
    return order, banks, rows, writing, arriving, starts


@njit(cache=True, nogil=True)
def sample(
    bases, limits, run, stride, scattered, writes_of_16, piece, chosen, wanted, most, parts, hashes, shape, out, filled, hits
):
    """The requests that a pattern without end makes to some units, decoded.

    Args:
        bases: (s,) first burst of each operand; the last one is written where some are and others read.
        limits: bursts of the whole memory.
        run, stride: bursts of a contiguous run, and from run to run; a run of 0 never ends.
        scattered: runs begin anywhere instead of a stride apart.
        writes_of_16: sixteenths of the pieces that write.
        piece: bursts an operand moves before the next one's turn.
        chosen: (units,) slot of each sampled unit, -1 for the others.
        wanted: requests to keep of each sampled unit.
        most: bursts to make at most.
        shape: pseudo-channels, bank groups, banks of a group.
        out: (slots, wanted, 3) receives bank, row and whether it writes.
        filled: (slots,) receives how many.
        hits: (units,) receives the requests to each unit.

    Returns:
        Bursts made.
    """
    operands = bases.size
    mixed = 0 < writes_of_16 < 16
    readers = max(1, operands - 1) if mixed else operands
    position = np.zeros(operands, dtype=np.int64)
    fields = np.zeros(7, dtype=np.int64)
    turn = 0
    made = 0
    pieces = 0
    slots = out.shape[0]
    full = 0
    while made < most and full < slots:
        write = (pieces + 1) * writes_of_16 // 16 > pieces * writes_of_16 // 16
        pieces += 1
        if mixed and write and operands > 1:
            operand = operands - 1
        else:
            operand = turn
            turn = (turn + 1) % readers
        left = piece
        while left > 0:
            at = position[operand]
            if run == 0:
                burst = bases[operand] + at
                length = left
            else:
                number, within = at // run, at % run
                length = min(left, run - within)
                if scattered:
                    # A multiplicative generator over the runs that the memory holds.
                    mixed_bits = np.uint64(number * operands + operand + 1) * np.uint64(0x9E3779B97F4A7C15)
                    mixed_bits ^= mixed_bits >> np.uint64(29)
                    mixed_bits *= np.uint64(0xBF58476D1CE4E5B9)
                    mixed_bits ^= mixed_bits >> np.uint64(32)
                    burst = np.int64(mixed_bits % np.uint64(limits // run)) * run + within
                else:
                    burst = bases[operand] + number * stride + within
            for x in range(length):
                decode_one((burst + x) % limits, parts, hashes, fields)
                unit = fields[0] * shape[0] + fields[1]
                hits[unit] += 1
                made += 1
                slot = chosen[unit]
                if slot >= 0 and filled[slot] < wanted:
                    k = filled[slot]
                    out[slot, k, 0] = (fields[2] * shape[1] + fields[3]) * shape[2] + fields[4]
                    out[slot, k, 1] = fields[5]
                    out[slot, k, 2] = write
                    filled[slot] = k + 1
                    if k + 1 == wanted:
                        full += 1
            position[operand] += length
            left -= length
    return made
