"""Linear feedback shift registers: the random bits of hardware, for stochastic rounding as a circuit does it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from numerics._display import displayed
from numerics._fields import check_integer
from numerics.errors import InputError

TAPS: dict[int, tuple[int, ...]] = {
    2: (2, 1), 3: (3, 2), 4: (4, 3), 5: (5, 3), 6: (6, 5), 7: (7, 6), 8: (8, 6, 5, 4), 9: (9, 5), 10: (10, 7), 11: (11, 9),
    12: (12, 6, 4, 1), 13: (13, 4, 3, 1), 14: (14, 5, 3, 1), 15: (15, 14), 16: (16, 15, 13, 4), 17: (17, 14), 18: (18, 11),
    19: (19, 6, 2, 1), 20: (20, 17), 21: (21, 19), 22: (22, 21), 23: (23, 18), 24: (24, 23, 22, 17), 25: (25, 22),
    26: (26, 6, 2, 1), 27: (27, 5, 2, 1), 28: (28, 25), 29: (29, 27), 30: (30, 6, 4, 1), 31: (31, 28), 32: (32, 22, 2, 1),
    33: (33, 20), 34: (34, 27, 2, 1), 35: (35, 33), 36: (36, 25), 37: (37, 5, 4, 3, 2, 1), 38: (38, 6, 5, 1), 39: (39, 35),
    40: (40, 38, 21, 19), 41: (41, 38), 42: (42, 41, 20, 19), 43: (43, 42, 38, 37), 44: (44, 43, 18, 17), 45: (45, 44, 42, 41),
    46: (46, 45, 26, 25), 47: (47, 42), 48: (48, 47, 21, 20), 49: (49, 40), 50: (50, 49, 24, 23), 51: (51, 50, 36, 35),
    52: (52, 49), 53: (53, 52, 38, 37), 54: (54, 53, 18, 17), 55: (55, 31), 56: (56, 55, 35, 34), 57: (57, 50), 58: (58, 39),
    59: (59, 58, 38, 37), 60: (60, 59), 61: (61, 60, 46, 45), 62: (62, 61, 6, 5), 63: (63, 62), 64: (64, 63, 61, 60),
}  # fmt: skip
"""Bits → exponents of a primitive polynomial without its constant term, so that the period is 2^bits − 1 (Alfke, Xilinx XAPP 052,
table 3; 2 bits: the only one)."""


@displayed
@dataclass(frozen=True)
class Lfsr:
    """A register in Galois's form that shifts to the right: ``state' = (state >> 1) ^ (mask if state & 1 else 0)``.

    Stochastic rounding as a unit with such a register does it:

    >>> import numpy, numerics
    >>> words = numerics.Lfsr(32).words(3, seed=1, bits=16, steps=16)
    >>> numerics.quantize(numpy.float32([1.03, 1.1, 1.2]), "e5m2", rounding="stochastic", seed=words, random_bits=16).tolist()
    [1.0, 1.25, 1.25]

    Attributes:
        bits: 2 to 64.
        taps: exponents of the polynomial, without its constant term: (32, 22, 2, 1) is x^32 + x^22 + x^2 + x + 1; by default one
            of the longest period. A tap t is the mask's bit t − 1.

    Raises:
        InputError: bits or taps out of range; no tap at the highest bit, without which states meet.
    """

    bits: int
    taps: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        bits = check_integer("bits", self.bits)
        if not 2 <= bits <= 64:
            raise InputError(f"bits: expected 2 to 64, got {bits}")
        object.__setattr__(self, "bits", bits)
        if not isinstance(self.taps, Iterable):
            raise InputError(f"taps: expected the exponents of a polynomial, such as {TAPS[bits]}, got {self.taps!r}")
        taps = tuple(check_integer("taps", tap) for tap in self.taps) or TAPS[bits]
        if len(set(taps)) < len(taps) or not all(1 <= tap <= bits for tap in taps) or bits not in taps:
            raise InputError(f"taps: expected different exponents from 1 to {bits}, {bits} among them, got {taps}")
        object.__setattr__(self, "taps", taps)

    @property
    def mask(self) -> int:
        """What is added to the shifted state where its last bit was 1."""
        return sum(1 << (tap - 1) for tap in self.taps)

    def step(self, state: int) -> int:
        """The next state."""
        return (state >> 1) ^ (self.mask if state & 1 else 0)

    def jump(self, state: int, steps: int) -> int:
        """The state ``steps`` ≥ 0 steps on, however many: a step is linear, so that its matrix is squared again and again.

        Raises:
            InputError: a negative number of steps, a state that is 0 or has too many bits.
        """
        state, steps = self._state(state, "state"), check_integer("steps", steps, least=0)
        images = [self.step(1 << place) for place in range(self.bits)]  # of each bit alone
        while steps:
            if steps & 1:
                state = _apply(images, state)
            images = [_apply(images, image) for image in images]
            steps >>= 1
        return state

    def states(self, count: int, *, seed: int, steps: int = 1) -> npt.NDArray[np.uint64]:
        """``count`` states, the first of them ``seed``, each ``steps`` after the last; 64-bit unsigned integers.

        Raises:
            InputError: a negative count, fewer than 1 steps, a seed that is 0 or has too many bits.
        """
        from numerics._lfsr_kernels import run

        found = np.empty(check_integer("count", count, least=0), np.uint64)
        steps = check_integer("steps", steps, least=1)
        run(np.uint64(self._state(seed, "seed")), np.uint64(self.mask), steps, found)
        return found

    def words(self, count: int, *, seed: int, bits: int | None = None, steps: int = 1) -> npt.NDArray[Any]:
        """The lowest ``bits`` bits of ``states``: random words, for instance the ``seed`` of ``quantize``.

        Words of states fewer than ``bits`` steps apart share bits.

        Args:
            count, seed, steps: as for ``states``.
            bits: of a word; all by default.

        Returns:
            (count,), uint32 for up to 32 bits, else uint64.

        Raises:
            InputError: as ``states``; more bits than the register has.
        """
        wanted = self.bits if bits is None else check_integer("bits", bits, least=1)
        if wanted > self.bits:
            raise InputError(f"bits: expected 1 to {self.bits}, the bits of the register, got {wanted}")
        found = self.states(count, seed=seed, steps=steps) & np.uint64((1 << wanted) - 1)
        return found.astype(np.uint32) if wanted <= 32 else found

    def _state(self, given: int, field: str) -> int:
        state = check_integer(field, given)
        if not 1 <= state < 1 << self.bits:
            raise InputError(f"{field}: expected 1 to 2^{self.bits} − 1 (0 never changes), got {state}")
        return state


def _apply(images: list[int], state: int) -> int:
    """The sum (exclusive or) of the images of a state's bits."""
    total = 0
    for place, image in enumerate(images):
        if state >> place & 1:
            total ^= image
    return total
