"""A learning engine in integers: sums of products of traces, weights of 8 bits, stochastic rounding, epochs.

After the learning rules of Loihi (M. Davies et al., "Loihi: a neuromorphic manycore processor with on-chip learning", IEEE Micro
38(1), 2018, on its learning engine: every rule is a sum of products of spikes, traces, the reward, the weight and a tag of the
synapse, with traces of 7 bits). What the paper leaves open is chosen here and said in ``LearningEngine``; it is not bit-exact
silicon.

>>> stdp = LearningEngine("2^-2*x1*y0 - 2^-2*x0*y1", x1=(16, 0.02), y1=(16, 0.02))
>>> stdp.products("weight")
[('x1 y0', 0.25), ('x0 y1', -0.25)]
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from hwsim.views.display import displayed
from neuromorphic.learning.plasticity import Arrivals, LearningCounts, Stuck, SynapseIndex
from neuromorphic.network import Projection
from numerics.errors import InputError, unknown_name
from numerics.faults.maps import FaultMap

if TYPE_CHECKING:
    import numpy.typing as npt

FACTORS = ("x0", "x1", "x2", "y0", "y1", "y2", "y3", "w", "t", "r")
"""Spike and traces of the source, spike and traces of the target, weight, tag, reward."""

TRACE_BITS = 7
"""Bits of a trace, which is never negative."""

WEIGHT_BITS = 8
"""Bits of a weight: two's complement where synapses are mixed, otherwise a magnitude with one sign for all."""

TAG_LIMIT = 255
"""Largest magnitude of a tag, which has 9 bits."""

REWARD_LIMIT = 127
"""Largest magnitude of the reward of an epoch."""

DECAY_BITS = 12
"""A trace keeps a whole number of 1/4096 of itself in a step."""

COEFFICIENT_BITS = 16
"""Most bits of a rule's coefficient behind the point."""

Sign = Literal["mixed", "excitatory", "inhibitory"]
_LIMITS = {"mixed": (-128, 127, 0), "excitatory": (0, 255, 1), "inhibitory": (-255, 0, -1)}
_TRACES = ("x1", "x2", "y1", "y2", "y3")
Product = tuple[int, ...]
"""The power of each factor."""


@displayed
@dataclass(frozen=True)
class LearningEngine:
    """A rule of a projection whose weights are whole numbers of ``unit``.

    Every step, in this order: traces decay, spikes arrive and fire, the traces of those that spiked rise. A trace keeps
    round(4096 · exp(−dt_s / tau_s)) / 4096 of itself. At the end of every ``epoch_steps`` steps

    - w ← w + Σ of the products of ``weight``, t ← t + Σ of the products of ``tag``, each sum exact, then rounded, then clipped
      (w to its 8 bits, t to ±255), both from the values before;
    - x0 and y0 are 1 where the neuron spiked within the epoch. A product with x0 takes the traces of the step of the source's
      last spike in the epoch, with y0 those of the target's, with both those of the later one, with neither those of the last
      step. A source's traces include that step's spike; a target's do in products with y0 or without x0;
    - r is the sum of the epoch's modulator, an integer from −127 to 127, the same for all synapses.

    Attributes:
        weight: sums of products of ``FACTORS``, numbers, powers of 2 ("2^-3*x1*y0 - 2^-4*x0*y1 + r*t"); brackets are multiplied
            out.
        tag: the same for the tag; empty: tags stay 0.
        x1, x2, y1, y2, y3: of a trace, what a spike adds (0 to 127) and its time constant in seconds; None: unused.
        epoch_steps: steps of an epoch, a power of 2 up to 64.
        unit: value of one step of a weight.
        sign: ``mixed``: −128 to 127; ``excitatory``: 0 to 255; ``inhibitory``: −255 to 0.
        rounding: of sums and traces: ``stochastic`` up with the probability of the fraction, ``nearest`` (a half goes up).

    Raises:
        InputError: a rule that is no sum of products or whose numbers no 16 bits behind the point hold, a trace that is named but
            not given, or given but out of range.
    """

    weight: str
    tag: str = ""
    x1: tuple[int, float] | None = None
    x2: tuple[int, float] | None = None
    y1: tuple[int, float] | None = None
    y2: tuple[int, float] | None = None
    y3: tuple[int, float] | None = None
    epoch_steps: int = 1
    unit: float = 1.0
    sign: Sign = "mixed"
    rounding: Literal["stochastic", "nearest"] = "stochastic"

    def __post_init__(self) -> None:
        if self.sign not in get_args(Sign):
            raise unknown_name("sign", str(self.sign), get_args(Sign))
        if self.rounding not in ("stochastic", "nearest"):
            raise unknown_name("rounding", str(self.rounding), ("stochastic", "nearest"))
        if self.epoch_steps not in (1, 2, 4, 8, 16, 32, 64):
            raise InputError(f"epoch_steps: expected a power of 2 from 1 to 64, got {self.epoch_steps!r}")
        if not (np.isfinite(self.unit) and self.unit > 0):
            raise InputError(f"unit: expected a number > 0, got {self.unit!r}")
        for name in _TRACES:
            given = getattr(self, name)
            if given is None:
                continue
            impulse, tau = given
            if isinstance(impulse, bool) or not isinstance(impulse, int) or not 0 <= impulse < 1 << TRACE_BITS:
                raise InputError(f"{name}: expected an impulse from 0 to {(1 << TRACE_BITS) - 1}, got {impulse!r}")
            if not (np.isfinite(tau) and tau > 0):
                raise InputError(f"{name}: expected a time constant in seconds > 0, got {tau!r}")
        for field in ("weight", "tag"):
            largest = 0
            for product, number in _polynomial(field, getattr(self, field)).items():
                for name, power in zip(FACTORS, product, strict=True):
                    if power and name in _TRACES and getattr(self, name) is None:
                        raise InputError(f"{field}: {name} is not given, expected its impulse and time constant")
                largest += abs(number) * (1 << COEFFICIENT_BITS) * 256 ** sum(product)
            if largest >= 1 << 62:
                raise InputError(f"{field}: {getattr(self, field)!r} does not fit 64 bits, expected fewer factors")
        if not self.tag and any(product[FACTORS.index("t")] for product in _polynomial("weight", self.weight)):
            raise InputError("tag: the weight's rule reads t, expected a rule for it")

    @property
    def modulated(self) -> bool:
        """Whether the rule reads the reward."""
        at = FACTORS.index("r")
        return any(p[at] for field in ("weight", "tag") for p in _polynomial(field, getattr(self, field)))

    def products(self, field: Literal["weight", "tag"]) -> list[tuple[str, float]]:
        """The products of a rule with their coefficients."""
        return [
            (" ".join(n for n, power in zip(FACTORS, product, strict=True) for _ in range(power)) or "1", float(number))
            for product, number in _polynomial(field, getattr(self, field)).items()
        ]

    def start(
        self,
        projection: Projection,
        targets: int,
        *,
        dt_s: float,
        seed: int,
        stuck: Stuck | None = None,
    ) -> EngineLearning:
        """As in ``LearningRule``.

        Raises:
            InputError: first weights that are no whole numbers of ``unit`` or do not fit 8 bits.
        """
        return EngineLearning(self, projection, targets, dt_s, seed, stuck)


@displayed
class EngineLearning:
    """Traces, tags and weights under ``LearningEngine``.

    Attributes:
        code: the weights as integers, (synapses,) int64.
        tag: (synapses,) int64.
        x, y: traces x1, x2 and y1, y2, y3 as they are now, (2, sources) and (3, targets) int64.
        weight: code times the rule's unit.
        counts: since the beginning.
    """

    def __init__(
        self,
        rule: LearningEngine,
        projection: Projection,
        targets: int,
        dt_s: float,
        seed: int,
        stuck: Stuck | None,
    ) -> None:
        from neuromorphic.learning._learning_engine_kernels import store_weights

        self.rule, self.index, self.counts = rule, SynapseIndex.of(projection, targets), LearningCounts()
        low, high, self.sign = _LIMITS[rule.sign]
        self.low, self.high = low, high
        self.code = _codes(projection.synapses.weight / rule.unit, projection.name, low, high)
        self.clear, self.stuck = np.zeros(self.code.size, np.int64), np.zeros(self.code.size, np.int64)
        self._fail(stuck, projection.name)
        store_weights(self.code, self.sign, self.clear, self.stuck)
        self.weight = self.code * rule.unit
        self.tag = np.zeros(self.code.size, np.int64)
        sources, places = projection.synapses.sources, rule.epoch_steps
        self.x, self.y = np.zeros((2, sources), np.int64), np.zeros((3, targets), np.int64)
        self._traces = (np.zeros((places, 2, sources), np.int64), *(np.zeros((places, 3, targets), np.int64) for _ in range(2)))
        self._pre_place, self._post_place = np.full(sources, -1, np.int64), np.full(targets, -1, np.int64)
        self._rules = (_cases(_polynomial("weight", rule.weight)), _cases(_polynomial("tag", rule.tag)))
        self._only_spiked = all(not counts[0] for _, counts in self._rules)
        self._keep = {
            name: round((1 << DECAY_BITS) * float(np.exp(-dt_s / given[1])))
            for name in _TRACES
            if (given := getattr(rule, name)) is not None
        }
        self._seed, self._reward, self._random = seed & (2**63 - 1), 0, rule.rounding == "stochastic"

    def _fail(self, stuck: Stuck | None, name: str) -> None:
        if isinstance(stuck, FaultMap):
            stuck.check(self.code.size)
            if (stuck.clear | stuck.set | stuck.flip).max(initial=0) >> WEIGHT_BITS:
                raise InputError(f"stuck: a weight has bits 0 to {WEIGHT_BITS - 1}")
            codes = self._encoded(self.code)
            codes[stuck.elements] ^= stuck.flip.astype(np.int64)
            self.code = self._decoded(codes)
            self.clear[stuck.elements], self.stuck[stuck.elements] = stuck.clear, stuck.set
            return
        for synapse, value in (stuck or {}).items():
            if not 0 <= synapse < self.code.size:
                raise InputError(f"stuck: expected synapses 0 to {self.code.size - 1}, got {synapse}")
            code = _codes(np.array([value / self.rule.unit]), name, self.low, self.high)
            self.clear[synapse], self.stuck[synapse] = 255, self._encoded(code)[0]

    def _encoded(self, code: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return code & 255 if self.sign == 0 else np.abs(code)

    def _decoded(self, codes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return np.where(codes >= 128, codes - 256, codes) if self.sign == 0 else codes * self.sign

    def step(self, arrivals: Arrivals) -> None:
        """Traces of a step; at an epoch's end the rule."""
        from neuromorphic.learning._learning_engine_kernels import bump_traces, decay_traces, learn_epoch

        place = arrivals.step % self.rule.epoch_steps
        limit = (1 << TRACE_BITS) - 1
        pre_traces, post_before, post_after = self._traces
        for number, name in enumerate(_TRACES):
            if name not in self._keep:
                continue
            traces = self.x[number] if number < 2 else self.y[number - 2]
            spiked = arrivals.source if number < 2 else arrivals.fired
            self.counts.trace_updates += decay_traces(
                traces, self._keep[name], DECAY_BITS, self._random, self._seed, 1 + number, arrivals.step
            )
            if number >= 2:
                post_before[place, number - 2] = traces
            bump_traces(traces, spiked, getattr(self.rule, name)[0], limit)
            self.counts.trace_updates += spiked.size
        pre_traces[place], post_after[place] = self.x, self.y
        self._pre_place[arrivals.source], self._post_place[arrivals.fired] = place, place
        if arrivals.modulator is not None:
            self._reward += self._whole_reward(arrivals.modulator)
        if place != self.rule.epoch_steps - 1:
            return
        if abs(self._reward) > REWARD_LIMIT:
            raise InputError(f"modulator: expected −{REWARD_LIMIT} to {REWARD_LIMIT} in an epoch, got {self._reward}")
        at = self.index
        reads, writes, tags = learn_epoch(
            at.first, at.target, at.column, at.synapse, at.source, self.code, self.tag, self.clear, self.stuck, self.sign,
            self.low, self.high, TAG_LIMIT, self._pre_place, self._post_place,
            np.flatnonzero(self._pre_place >= 0), np.flatnonzero(self._post_place >= 0), pre_traces, post_before, post_after,
            place, *self._rules[0], *self._rules[1], COEFFICIENT_BITS, self._only_spiked, self._reward, self._random, self._seed,
            10, arrivals.step,
        )  # fmt: skip
        self.counts.synapses_read += reads
        self.counts.weight_updates += writes
        self.counts.eligibility_updates += tags
        np.multiply(self.code, self.rule.unit, out=self.weight)
        self._pre_place[:], self._post_place[:], self._reward = -1, -1, 0

    @staticmethod
    def _whole_reward(modulator: npt.NDArray[np.float64]) -> int:
        if (modulator != modulator[0]).any() or modulator[0] % 1:
            raise InputError(f"modulator: expected one integer for all targets, got {modulator[:3].tolist()}")
        return int(modulator[0])


def _codes(steps: npt.NDArray[np.float64], name: str, low: int, high: int) -> npt.NDArray[np.int64]:
    codes = np.rint(steps)
    if (np.abs(steps - codes) > 1e-9 * np.maximum(1, np.abs(steps))).any():
        raise InputError(f"projection {name!r}: weights that are no whole numbers of the rule's unit")
    if codes.size and not low <= codes.min() <= codes.max() <= high:
        raise InputError(f"projection {name!r}: weights {codes.min():g} to {codes.max():g} units, expected {low} to {high}")
    return codes.astype(np.int64)


def _polynomial(field: str, text: str) -> dict[Product, Fraction]:
    """The products of a rule; factors that are spikes count once."""
    if not text.strip():
        return {}
    try:
        tree = ast.parse(text.replace("^", "**"), mode="eval").body
    except (SyntaxError, ValueError):
        raise InputError(f"{field}: expected a sum of products, got {text!r}") from None
    found: dict[Product, Fraction] = {}
    for product, number in _expanded(field, tree).items():
        once = tuple(min(p, 1) if name in ("x0", "y0") else p for name, p in zip(FACTORS, product, strict=True))
        found[once] = found.get(once, Fraction(0)) + number
    for number in found.values():
        if (number * (1 << COEFFICIENT_BITS)).denominator != 1:
            raise InputError(f"{field}: expected numbers of {COEFFICIENT_BITS} bits behind the point, got {float(number)!r}")
    return {product: number for product, number in found.items() if number}


def _expanded(field: str, node: ast.expr) -> dict[Product, Fraction]:
    none = (0,) * len(FACTORS)
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        return {none: Fraction(node.value)}
    if isinstance(node, ast.Name):
        if node.id not in FACTORS:
            raise unknown_name(field, node.id, FACTORS)
        return {tuple(int(name == node.id) for name in FACTORS): Fraction(1)}
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        sign = -1 if isinstance(node.op, ast.USub) else 1
        return {product: sign * number for product, number in _expanded(field, node.operand).items()}
    if isinstance(node, ast.BinOp):
        left, right = _expanded(field, node.left), _expanded(field, node.right)
        total: dict[Product, Fraction] = {}
        if isinstance(node.op, ast.Add | ast.Sub):
            sign = -1 if isinstance(node.op, ast.Sub) else 1
            for product in (*left, *right):
                total[product] = left.get(product, Fraction(0)) + sign * right.get(product, Fraction(0))
            return total
        if isinstance(node.op, ast.Mult):
            for a, m in left.items():
                for b, n in right.items():
                    product = tuple(p + q for p, q in zip(a, b, strict=True))
                    total[product] = total.get(product, Fraction(0)) + m * n
            return total
        if isinstance(node.op, ast.Pow) and set(left) == set(right) == {none}:
            exponent = right[none]
            if exponent.denominator == 1 and abs(exponent) <= 64 and left[none]:
                return {none: left[none] ** int(exponent)}
    raise InputError(f"{field}: expected sums and products of {', '.join(FACTORS)} and numbers, got {ast.unparse(node)!r}")


def _cases(products: Mapping[Product, Fraction]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Products by the spikes that they name, (4, terms, 1 + factors), and how many: neither, x0, y0, both."""
    x0, y0 = FACTORS.index("x0"), FACTORS.index("y0")
    cases: list[list[tuple[int, ...]]] = [[], [], [], []]
    for product, number in products.items():
        cases[(product[x0] > 0) + 2 * (product[y0] > 0)].append((int(number * (1 << COEFFICIENT_BITS)), *product))
    terms = np.zeros((4, max(1, *map(len, cases)), 1 + len(FACTORS)), np.int64)
    for case, rows in enumerate(cases):
        for place, row in enumerate(rows):
            terms[case, place] = row
    return terms, np.array([len(rows) for rows in cases], np.int64)
