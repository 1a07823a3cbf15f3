"""Recurrent units with memory as torch modules: the Legendre memory unit, and the event-based gated recurrent unit (EGRU).

>>> a, b = legendre_system(2, 10.0)
>>> a.tolist(), b.tolist()
([[-0.1, -0.1], [0.3, -0.3]], [0.1, -0.3])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import nn

from hwsim.views.display import displayed
from neuromorphic.cells.neuron_cells import TimeFirst
from neuromorphic.cells.surrogate import Surrogate
from numerics.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt


def legendre_system(order: int, window: float) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """dm/dt = A m + B u, whose state m holds the last ``window`` of u as coefficients of shifted Legendre polynomials.

    A_ij = (2i + 1)/θ · (−1 if i < j else (−1)^(i − j + 1)), B_i = (2i + 1)(−1)^i/θ: A. Voelker, I. Kajić, C. Eliasmith, "Legendre
    memory units", NeurIPS 2019, equations 2 and 3.

    Args:
        order: number of coefficients d.
        window: θ, in any unit of time.

    Returns:
        A (order, order) and B (order,), per that unit.

    Raises:
        InputError: an order below 1, a window that is not > 0.
    """
    if isinstance(order, bool) or not isinstance(order, int | np.integer) or order < 1:
        raise InputError(f"order: expected an integer ≥ 1, got {order!r}")
    if not 0 < window < float("inf"):
        raise InputError(f"window: expected a finite number > 0, got {window!r}")
    i, j = np.arange(order)[:, None], np.arange(order)[None]
    a = (2 * i + 1) * np.where(i < j, -1.0, (-1.0) ** (i - j + 1)) / window
    b = (2 * i[:, 0] + 1) * (-1.0) ** i[:, 0] / window
    return a, b


def zero_order_hold(
    a: npt.ArrayLike, b: npt.ArrayLike, *, step: float = 1.0
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Exact steps of dm/dt = A m + B u for an input that is constant within a step: Ā = exp(A·step), B̄ = A⁻¹(Ā − 1)B.

    Both from one matrix exponential of [[A, B], [0, 0]] (C. Van Loan, IEEE Trans. Automatic Control 23(3), 1978), so A may be
    singular.

    Args:
        a: (order, order).
        b: (order,).
        step: length of a step.

    Returns:
        Ā (order, order) and B̄ (order,).
    """
    from scipy.linalg import expm

    matrix, column = np.asarray(a, np.float64), np.asarray(b, np.float64)
    order = matrix.shape[0]
    both = np.zeros((order + 1, order + 1))
    both[:order, :order], both[:order, order] = matrix, column
    found = expm(both * step)
    return np.ascontiguousarray(found[:order, :order]), np.ascontiguousarray(found[:order, order])


def delay_readout(order: int, delay: float = 1.0) -> npt.NDArray[np.float64]:
    """Weights (order,) that read u as it was ``delay`` windows ago (0 to 1) out of the state: P_i(2·delay − 1).

    Voelker et al. 2019, equation 4.
    """
    from scipy.special import eval_sh_legendre

    if not 0 <= delay <= 1:
        raise InputError(f"delay: expected 0 to 1 windows, got {delay!r}")
    return np.asarray(eval_sh_legendre(np.arange(order), delay), np.float64)


class LegendreMemory(TimeFirst):
    """The linear memory: m ← Ā m + B̄ u for each channel of the input; its output is m.

    Input (…, channels), output (…, channels · order), the coefficients of a channel side by side. Ā and B̄ are fixed
    (``legendre_system`` with ``zero_order_hold`` over one step).

    Args:
        order: coefficients a channel.
        window_steps: θ in steps.
    """

    a: torch.Tensor
    b: torch.Tensor

    def __init__(self, order: int, window_steps: float) -> None:
        super().__init__()
        self.order, self.window_steps = order, window_steps
        a, b = zero_order_hold(*legendre_system(order, window_steps))
        self.register_buffer("a", torch.as_tensor(a, dtype=torch.get_default_dtype()))
        self.register_buffer("b", torch.as_tensor(b, dtype=torch.get_default_dtype()))

    def step(self, x: torch.Tensor, state: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        m = x.new_zeros(*x.shape, self.order) if state is None else state
        m = m @ self.a.T + x[..., None] * self.b
        return m.flatten(-2), m

    def impulse_response(self, steps: int) -> torch.Tensor:
        """(steps, order): what an input of 1 in step 0 leaves in the memory, step by step: Ā^t B̄, in float64."""
        a, m = self.a.double().cpu().numpy(), self.b.double().cpu().numpy()
        rows = np.empty((steps, self.order))
        for t in range(steps):
            rows[t] = m
            m = a @ m
        return torch.as_tensor(rows, device=self.a.device)

    def parallel(self, x: torch.Tensor) -> torch.Tensor:
        """All steps of (steps, batch, channels) at once, as a convolution with the impulse response by FFT.

        N. Chilkuri, C. Eliasmith, "Parallelizing Legendre memory unit training", ICML 2021, section 3.3.
        """
        steps = x.shape[0]
        length = 2 * steps  # zeros behind, so that the circular convolution is a linear one
        response = torch.fft.rfft(self.impulse_response(steps).to(x.dtype), n=length, dim=0)
        spectrum = torch.fft.rfft(x, n=length, dim=0)
        product = spectrum[..., None] * response[:, None, None, :]
        return torch.fft.irfft(product, n=length, dim=0)[:steps].flatten(-2)


@displayed
class LmuState(NamedTuple):
    """State of an ``LMU``: its memory (batch, 1, order) and its hidden units (batch, hidden)."""

    m: torch.Tensor
    h: torch.Tensor


class LMU(TimeFirst):
    """Legendre memory unit: u = e_x·x + e_h·h + e_m·m is written to the memory m; h ← tanh(W_x x + W_h h + W_m m).

    Voelker et al. 2019, equations 6 and 7. Without ``recurrent``, e_h, e_m and W_h are left out (Chilkuri and Eliasmith 2021), so
    that ``parallel`` computes all steps at once; streaming gives the same.

    Args:
        inputs: features of the input.
        hidden: units of the output.
        order: of the memory.
        window_steps: of the memory.
        recurrent: whether h and m lead back.
    """

    def __init__(self, inputs: int, hidden: int, *, order: int, window_steps: float, recurrent: bool = True) -> None:
        super().__init__()
        self.hidden, self.recurrent = hidden, recurrent
        self.memory = LegendreMemory(order, window_steps)
        self.write = nn.Linear(inputs, 1, bias=False)
        self.from_input = nn.Linear(inputs, hidden)
        self.from_memory = nn.Linear(order, hidden, bias=False)
        if recurrent:
            self.write_hidden = nn.Linear(hidden, 1, bias=False)
            self.write_memory = nn.Linear(order, 1, bias=False)
            nn.init.zeros_(self.write_memory.weight)
            self.from_hidden = nn.Linear(hidden, hidden, bias=False)

    def step(self, x: torch.Tensor, state: LmuState | None = None) -> tuple[torch.Tensor, LmuState]:
        if state is None:
            state = LmuState(x.new_zeros(*x.shape[:-1], 1, self.memory.order), x.new_zeros(*x.shape[:-1], self.hidden))
        m, h = state
        u = self.write(x)
        if self.recurrent:
            u = u + self.write_hidden(h) + self.write_memory(m.flatten(-2))
        coefficients, m = self.memory.step(u, m)
        drive = self.from_input(x) + self.from_memory(coefficients)
        if self.recurrent:
            drive = drive + self.from_hidden(h)
        h = torch.tanh(drive)
        return h, LmuState(m, h)

    def parallel(self, x: torch.Tensor) -> torch.Tensor:
        """All steps of (steps, batch, inputs) at once.

        Raises:
            InputError: the unit is recurrent.
        """
        if self.recurrent:
            raise InputError("recurrent: a recurrent LMU has no parallel form; make it with recurrent=False")
        return torch.tanh(self.from_input(x) + self.from_memory(self.memory.parallel(self.write(x))))


@displayed
class EgruState(NamedTuple):
    """State of an ``EGRU``: internal state c after its reset, and what was sent, y, both (batch, hidden)."""

    c: torch.Tensor
    y: torch.Tensor


class EGRU(TimeFirst):
    """Event-based gated recurrent unit: it sends its state only where that passes a threshold, and 0 otherwise.

    With gates u, r = σ(W x + U y + b) and candidate z = tanh(W_z x + b + r·(U_z y)): c ← u·z + (1 − u)·c; y = c where c > ϑ, else
    0; then ϑ is taken off c where it was sent. A. Subramoney et al., "Efficient recurrent architectures through activity sparsity
    and sparse back-propagation through time", ICLR 2023, section 3. Their gradient of an event is a triangle, scaled by 0.7.

    Args:
        inputs: features of the input.
        hidden: units.
        threshold: ϑ at the start, within 0 to 1; learned, one a unit, as the sigmoid of a parameter.
        surrogate: gradient of an event.
    """

    def __init__(self, inputs: int, hidden: int, *, threshold: float = 0.3, surrogate: Surrogate | None = None) -> None:
        super().__init__()
        if not 0 < threshold < 1:
            raise InputError(f"threshold: expected a number between 0 and 1, got {threshold!r}")
        self.hidden = hidden
        self.surrogate = surrogate or Surrogate("triangle", 1.0, scale=0.7)
        self.from_input = nn.Linear(inputs, 3 * hidden)
        self.from_events = nn.Linear(hidden, 3 * hidden)
        self.threshold_logit = nn.Parameter(torch.full((hidden,), float(np.log(threshold / (1 - threshold)))))

    @property
    def threshold(self) -> torch.Tensor:
        """ϑ of each unit, (hidden,)."""
        return torch.sigmoid(self.threshold_logit)

    def step(self, x: torch.Tensor, state: EgruState | None = None) -> tuple[torch.Tensor, EgruState]:
        return self._step(self.from_input(x), state)

    def unroll(self, x: torch.Tensor, state: EgruState | None = None) -> tuple[torch.Tensor, Any]:
        outputs = []
        for driven in self.from_input(x):
            y, state = self._step(driven, state)
            outputs.append(y)
        return torch.stack(outputs), state

    def _step(self, driven: torch.Tensor, state: EgruState | None) -> tuple[torch.Tensor, EgruState]:
        if state is None:
            rest = driven.new_zeros(*driven.shape[:-1], self.hidden)
            state = EgruState(rest, rest)
        x_u, x_r, x_z = driven.chunk(3, dim=-1)
        y_u, y_r, y_z = self.from_events(state.y).chunk(3, dim=-1)
        u, r = torch.sigmoid(x_u + y_u), torch.sigmoid(x_r + y_r)
        z = torch.tanh(x_z + r * y_z)
        c = u * z + (1 - u) * state.c
        threshold = self.threshold
        event = self.surrogate(c - threshold)
        return c * event, EgruState(c - event * threshold, c * event)
