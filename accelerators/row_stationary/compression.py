"""Run-length coding of feature maps with zeros (Chen et al., JSSC 2017, section IV-B)."""

from __future__ import annotations

from accelerators.row_stationary.spec import RunLengthCode


def coded_share(density: float, code: RunLengthCode, *, word_bits: int) -> float:
    """Bits after coding over bits before, for words that are non-zero with probability ``density`` each.

    A pair ends at a non-zero word, or at the word after as many zeros as a run can count. With z = 1 − density and runs of up to
    L − 1 zeros (L = 2^run_bits) it takes in 1 + z + z² + … + z^(L−1) words on average. A map that coding would lengthen is
    stored as it is.
    """
    zero, longest = 1.0 - density, 2**code.run_bits
    words = float(longest) if density <= 0.0 else (1.0 - zero**longest) / density
    return min(1.0, code.block_bits / code.pairs / words / word_bits)
