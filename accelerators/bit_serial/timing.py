"""How far a clock may go: the longest path of an array in logic levels, by textbook structures. An estimate, not a synthesis.

A level is an exclusive-or. A 3:2 compressor takes 2; an adder of n bits that propagates its carries in a parallel prefix tree,
⌈log2 n⌉ + 2 (Kogge, Stone, IEEE Trans. Computers C-22(8), 1973); rows of partial products go through as many compressors as
Dadda's sequence 2, 3, 4, 6, 9, 13, … has steps (Alta Frequenza 34, 1965); a register's set-up and delay count as 3 (guess).
Nothing is pipelined: what a step does ends in its cycle.
"""

from __future__ import annotations

from accelerators.bit_serial.encodings import encoding
from accelerators.bit_serial.spec import ArraySpec

COMPRESSOR = 2
REGISTER = 3
DIGIT_PRODUCT = 3
"""Two selections and the sign."""
SUM_BITS = 32


def adder_levels(bits: int) -> int:
    """Of an adder that propagates its carries."""
    return (bits - 1).bit_length() + 2


def compression_levels(rows: int) -> int:
    """From so many numbers to two, by 3:2 compressors."""
    height, steps = 2, 0
    while height < rows:
        height, steps = height * 3 // 2, steps + 1
    return steps * COMPRESSOR


def logic_levels(array: ArraySpec) -> int:
    """Levels of an array's longest path, register to register."""
    depth, saved = array.topology.depth, array.accumulation == "carry_save"
    tree = (depth - 1).bit_length()
    last = COMPRESSOR if saved else adder_levels(SUM_BITS)
    if array.bit_weight is not None:
        how = encoding(array.bit_weight.encoding)
        shift = (how.places - 1).bit_length()
        return DIGIT_PRODUCT + sum(adder_levels(11 + i) for i in range(tree)) + shift + last + REGISTER
    products = 1 + compression_levels(8)
    if saved:
        # The halves of all products, then those of the sum.
        return products + compression_levels(2 * depth + 2) + REGISTER
    return products + adder_levels(16) + sum(adder_levels(17 + i) for i in range(tree)) + last + REGISTER


def clock_ratio(array: ArraySpec, baseline: ArraySpec) -> float:
    """How much faster ``array`` could be clocked than ``baseline``."""
    return logic_levels(baseline) / logic_levels(array)
