"""Random projections by light: a scattering medium, or a mesh nobody set, in front of a camera.

What comes out of a medium is M·x with M complex, independent and normal (S. Popoff et al., Phys. Rev. Lett. 104, 100601, 2010). A
camera sees powers: |M·x|², a nonlinear layer; or, with a reference r of one phase beside the light, |M·x + r|² and |M·x − r|²,
whose difference is 4·r·Re(M·x), a linear one. M is nowhere written down, takes no memory, and is never updated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hwsim.views.display import displayed
from numerics._fields import check_integer
from numerics.errors import InputError
from numerics.faults.maps import stream
from photonic._numbers import array, complex_numbers, finite, is_one_of, number, real_numbers, shown
from photonic.detection import Receiver
from photonic.training.tallies import Tally

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Numbers = npt.NDArray[np.complex128]


MOST = 1 << 24
"""Pixels of a modulator or camera, and more than there are."""


def scattering(inputs: int, outputs: int, *, seed: int) -> Numbers:
    """(outputs, inputs) a medium whose outputs have on average the power 1/inputs of each input.

    Raises:
        InputError: a number below 1, a seed that is no integer.
    """
    for name, size in (("outputs", outputs), ("inputs", inputs)):
        if check_integer(name, size, 1) > MOST:
            raise InputError(f"{name}: expected at most {MOST}, got {shown(size)}")
    shape = 2, outputs, inputs
    parts = stream(check_integer("seed", seed, 0), "scattering medium").standard_normal(shape)
    return np.asarray((parts[0] + 1j * parts[1]) / np.sqrt(2 * inputs), np.complex128)


@displayed
class OpticalProjection:
    """A medium between a light modulator and a camera.

    Each vector is scaled so that its light is ``power_w``, and what is read scaled back.

    Args:
        medium: (outputs, inputs) complex, as ``scattering`` or ``Mesh.matrix`` gives.
        power_w: light of a vector; the reference has as much at each output as the medium gives on average.
        camera: its pixels.
        seed: of the noise of all readings.
        tally: where light and conversions are counted; by default a new one.

    Attributes:
        inputs, outputs: sizes.
        clipped: numbers beyond the range of the camera so far.

    Raises:
        InputError: no matrix of finite numbers, a power that is not > 0, an object of another class.
    """

    def __init__(
        self,
        medium: npt.ArrayLike,
        *,
        power_w: float = 1e-3,
        camera: Receiver = Receiver(),  # noqa: B008
        seed: int = 0,
        tally: Tally | None = None,
    ) -> None:
        held = complex_numbers("medium", medium).copy()
        if held.ndim != 2 or not held.size:
            raise InputError(f"medium: expected finite numbers of shape (outputs, inputs), got shape {held.shape}")
        finite("medium", held)
        number("power_w", power_w, above=True)
        is_one_of("camera", camera, Receiver)
        is_one_of("tally", tally, Tally, type(None))
        self.medium, self.power_w, self.camera = held, float(power_w), camera
        self.outputs, self.inputs = held.shape
        self.tally = Tally() if tally is None else tally
        self.clipped = 0
        self._seed, self._shots = check_integer("seed", seed, 0), 0

    def powers(self, vectors: npt.ArrayLike) -> Floats:
        """|M·x|² as read, (batch, outputs), of real or complex vectors (batch, inputs).

        Raises:
            InputError: another shape, or numbers that are not finite.
        """
        light, size = self._light(vectors)
        self._count(light, 1)
        return (self._read(np.abs(light) ** 2).T / self.power_w) * size[:, None] ** 2

    def linear(self, vectors: npt.ArrayLike) -> Floats:
        """Re(M·x) as read with two references, (batch, outputs).

        Raises:
            InputError: as ``powers``.
        """
        light, size = self._light(vectors)
        reference = np.sqrt(self.power_w * np.mean(np.abs(self.medium) ** 2))
        plus, minus = (self._read(np.abs(light + sign * reference) ** 2) for sign in (1, -1))
        self._count(light, 2)
        self.tally.add(elementwise=light.size)
        return ((plus - minus).T / (4 * reference * np.sqrt(self.power_w))) * size[:, None]

    def ternary(self, signs: npt.ArrayLike) -> Floats:
        """``linear`` of −1, 0 and 1, for a modulator of mirrors that are on or off: positive and negative ones in turn.

        Raises:
            InputError: other numbers.
        """
        given = array("signs", signs)
        if not np.isin(given, (-1, 0, 1)).all():
            raise InputError("signs: expected −1, 0 and 1")
        positive, negative = self.linear((given > 0).astype(np.float64)), self.linear((given < 0).astype(np.float64))
        self.tally.add(elementwise=positive.size)
        return positive - negative

    def _light(self, vectors: npt.ArrayLike) -> tuple[Numbers, Floats]:
        """Fields (√W) at the outputs, (outputs, batch), and the norms of the vectors."""
        given = array("vectors", vectors)
        if given.ndim != 2 or given.shape[1] != self.inputs:
            raise InputError(f"vectors: expected numbers of shape (batch, {self.inputs}), got {given.dtype} of {given.shape}")
        finite("vectors", given)
        size = np.linalg.norm(given, axis=1)
        unit = given / np.where(size > 0, size, 1.0)[:, None]
        return np.sqrt(self.power_w) * (self.medium @ unit.T), size

    def _count(self, light: Numbers, sendings: int) -> None:
        batch = light.shape[1]
        self.tally.add(
            light_vectors=sendings * batch, dac_samples=sendings * batch * self.inputs, adc_samples=sendings * light.size
        )

    def _read(self, power_w: Floats) -> Floats:
        self._shots += 1
        reading = self.camera.read(power_w, seed=(self._seed << 40) + self._shots)
        self.clipped += reading.clipped
        return (reading.values - self.camera.dark_a) / self.camera.responsivity_a_per_w


def ternarised(errors: Any, threshold: float) -> npt.NDArray[np.int64]:
    """−1, 0 or 1 where an error is below −threshold, between, or above threshold (J. Launay et al., arXiv 2012.06373).

    Raises:
        InputError: a negative threshold, errors that are no finite real numbers.
    """
    number("threshold", threshold)
    given = real_numbers("errors", errors)
    finite("errors", given)
    return np.where(np.abs(given) > threshold, np.sign(given), 0).astype(np.int64)
