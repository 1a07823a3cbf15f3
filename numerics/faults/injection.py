"""Faults in an emulated module while it runs: ``inject``.

A tensor's faulty bits are a function of the seed and of where the tensor is: the module, the operator, the operand, and, for what
is computed anew each time, the forward pass. They are the same on any machine and for any number of workers.
"""

from __future__ import annotations

import contextlib
import fnmatch
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from numerics._display import displayed, displayed_by
from numerics.encoding import BlockCodes, decode, encode
from numerics.errors import InputError
from numerics.faults.fields import SCALE, bit_positions, code_bits, element_format
from numerics.faults.maps import FaultMap, corrupt, place_faults, read_values, stream
from numerics.faults.models import BitFaults
from numerics.faults.protection import Clipping, Protection, Read
from numerics.formats import BlockFormat, Format, IntFormat, get_format
from numerics.quantizer import quantize

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from numerics.accumulator import Accumulator
    from numerics.emulation import Emulation, OperandKey
    from numerics.emulation.context import Site
    from numerics.emulation.gemm import Sum
    from numerics.emulation.quantised import Quantised
    from numerics.optimizers import LowPrecisionOptimizer


@displayed
@dataclass(frozen=True)
class Hit:
    """What faults did to one tensor.

    Attributes:
        key: the tensor.
        pass_number: the forward pass, from 1.
        faulty_bits: bits of its codes that failed, protected or not.
        faults: what was left of them in its codes.
        scale_faults: in the codes of its scales.
        zeroed: elements that a protection read as 0.
        corrected, detected: words that a protection corrected, and that it found wrong, those among its own bits' included.
        again: whether these are bits of a stored tensor that was read before.
    """

    key: OperandKey
    pass_number: int
    faulty_bits: int
    faults: FaultMap
    scale_faults: FaultMap
    zeroed: int = 0
    corrected: int = 0
    detected: int = 0
    again: bool = False


@dataclass(frozen=True)
class _Drawing:
    """A model's faults in one operand, this time.

    Attributes:
        number: of the model in the injection.
        model: the model.
        words: what tells this drawing from all others.
        seed: of the injection.
    """

    number: int
    model: BitFaults
    words: tuple[object, ...]
    seed: int

    def map(self, shape: tuple[int, ...], bits: Sequence[int], width: int, what: str = "codes") -> FaultMap:
        """The faults in codes of ``width`` bits of which ``bits`` can fail; ``what`` names the codes."""
        return place_faults(self.model, shape, bits, stream(self.seed, self.number, what, *self.words), width)


def _merged(maps: Iterable[FaultMap]) -> FaultMap:
    total = FaultMap.none()
    for one in maps:
        total = total.merged(one)
    return total


_ONLY_IN_TRAINING = ("gradient", "optimizer_state", "master_weight")


@displayed_by("numerics._cards:injection")
class Injection:
    """Faults at work in an emulated module; ``inject`` makes one.

    Attributes:
        faults: the fault models.
        protections: what protects the tensors.
        seed: of the faults.
        hits: the tensors that had a faulty bit, in the order in which they were used.
    """

    def __init__(self, faults: Sequence[BitFaults], protections: Sequence[Protection], seed: int) -> None:
        self.faults, self.protections, self.seed = tuple(faults), tuple(protections), seed
        self.hits: list[Hit] = []
        self._pass = 0
        self._passed = False
        self._steps = 0
        self._sums: dict[tuple[Any, ...], int] = {}
        self._parameters: dict[int, tuple[str, torch.Tensor]] = {}
        self._read_before: set[tuple[object, ...]] = set()
        self._met: set[int] = set()
        self._seen: set[str] = set()

    @property
    def faulty_bits(self) -> int:
        """Bits that failed so far; those of a stored tensor count once, however often it is read."""
        return sum(hit.faulty_bits for hit in self.hits if not hit.again)

    @property
    def detected(self) -> int:
        """Words that protections found wrong so far; those of a stored tensor count once, as its faulty bits do."""
        return sum(hit.detected for hit in self.hits if not hit.again)

    @property
    def corrected(self) -> int:
        """Words that protections corrected so far, counted as ``detected`` are."""
        return sum(hit.corrected for hit in self.hits if not hit.again)

    def check_met(self) -> None:
        """See that every fault model met a tensor, once its tensors had their turn: operands in a forward pass, gradients in a
        backward pass, what an optimizer keeps in its step.

        Raises:
            InputError: one that met none.
        """
        for number, model in enumerate(self.faults):
            if model.target in _ONLY_IN_TRAINING:
                had_its_turn = model.target in self._seen
            else:
                had_its_turn = self._passed
            if had_its_turn and number not in self._met:
                given = ((name, getattr(model, name)) for name in ("operator", "operand", "call"))
                named = "".join(f", {name} {value!r}" for name, value in given if value is not None)
                raise InputError(
                    f"faults: no tensor was the {model.target} of a module that matches {model.modules!r}{named}; "
                    "nothing could fail"
                )

    def begin_pass(self, module: torch.nn.Module) -> None:
        """A forward pass of a module begins."""
        self._pass += 1
        self._sums.clear()
        self._parameters = {p.untyped_storage().data_ptr(): (name, p) for name, p in module.named_parameters()}

    def end_pass(self) -> None:
        """A forward pass came to its end."""
        self._passed = True

    def _place(self, x: torch.Tensor, key: OperandKey) -> tuple[object, ...]:
        """Where an operand lies: a parameter, whichever operators read it, else the operand of one of them."""
        name, parameter = self._parameters.get(x.untyped_storage().data_ptr(), ("", None))
        if parameter is None or x.numel() != parameter.numel() or not (x.is_contiguous() and parameter.is_contiguous()):
            return key
        return "parameter", name

    def strikes(self, target: str, module: str) -> bool:
        """Whether any fault is meant for tensors of this role in a module."""
        return bool(self._meant(target, module))

    def _models(
        self, target: str, module: str, operator: int | None = None, operand: str | None = None, call: int | None = None
    ) -> list[tuple[int, BitFaults]]:
        """Models of what a tensor meets, by number."""
        self._seen.add(target)
        found = self._meant(target, module, operator, operand, call)
        self._met.update(number for number, _ in found)
        return found

    def _meant(
        self, target: str, module: str, operator: int | None = None, operand: str | None = None, call: int | None = None
    ) -> list[tuple[int, BitFaults]]:
        return [
            (number, model)
            for number, model in enumerate(self.faults)
            if model.target == target
            and (operator is None or model.operator in (None, operator))
            and (operand is None or model.operand in (None, operand))
            and (call is None or model.call in (None, call))
            and fnmatch.fnmatchcase(module, model.modules)
        ]

    def _when(self, model: BitFaults, site: Site) -> tuple[object, ...]:
        """What tells one drawing of a model's faults in an operand from another."""
        if model.permanent:
            return ()
        if model.persistent:
            return ("step", site.step) if site.training else ()
        return "pass", self._pass, site.call

    # --- operands -----------------------------------------------------------------------------------------------------------

    def operand(self, quantised: Quantised, x: torch.Tensor, site: Site, name: str) -> Quantised:
        """An operand ``x``, quantised, as it is read: faults and protections included."""
        key = site.key(name)
        if key.recipe_role == "accumulator":  # a number beside the sums; what strikes these is in ``sums``
            return quantised
        models = self._models(key.recipe_role, *key, site.call)
        clips = [p for p in self._protecting(key.recipe_role, site.module) if isinstance(p, Clipping)]
        if not (models or clips) or not quantised.codes.numel() or quantised.codes.device.type == "meta":
            return quantised
        if clips and quantised.blocks is not None and site.context.block_scaled(site.module):
            raise InputError(f"module {key.module!r}: its matrix unit takes blocks with their scales; Clipping sees values only")
        place = self._place(x, key)
        drawings = [_Drawing(number, model, (*place, *self._when(model, site)), self.seed) for number, model in models]
        if quantised.blocks is not None:
            found = self._blocks(quantised, quantised.blocks, key, drawings)
        else:
            found = self._codes(quantised, key, drawings)
        for clip in clips:
            found = _clipped(found, clip, key)
        return found

    def _protecting(self, target: str, module: str) -> list[Protection]:
        return [p for p in self.protections if p.target == target and fnmatch.fnmatchcase(module, p.modules)]

    def _codes(self, quantised: Quantised, key: OperandKey, drawings: list[_Drawing]) -> Quantised:
        fmt = quantised.rule.fmt
        shape = tuple(quantised.codes.shape)
        scale, scale_faults = quantised.scale, FaultMap.none()
        shared = quantised.rule.scaling.granularity
        if shared in ("group", "tile") and any(d.model.bits == SCALE for d in drawings):
            raise InputError(
                f"bits: the scales of {key.role} of module {key.module!r} are those of a {shared}; faults strike those of "
                "tensors, channels and block formats"
            )
        if scale is not None:
            scale, scale_faults = _scale(scale, drawings)
        elif any(d.model.bits == SCALE for d in drawings):
            raise InputError(f"bits: {key.role} of module {key.module!r} has no scale; expected a field of {fmt.name!r}")
        drawn = _drawn(shape, fmt, drawings)
        codes = quantised.codes
        if not len(drawn) and not len(scale_faults) and not self._protecting(key.recipe_role, key.module):
            return quantised
        steps = codes.detach().cpu().numpy().reshape(-1)
        zero_point = quantised.zero_point
        zeros = None if zero_point is None else np.broadcast_to(zero_point.cpu().numpy(), shape).reshape(-1)
        read = self._read(key, drawn, fmt, drawings, steps, zeros)
        changed = steps.copy()
        at = read.faults.elements
        changed[at] = read_values(steps[at], fmt, read.faults, None if zeros is None else zeros[at])
        changed[read.zeroed] = 0.0
        self._note(key, drawings, drawn, read, scale_faults)
        return replace(quantised, codes=torch.from_numpy(changed.reshape(shape)).to(codes), scale=scale)

    def _read(
        self,
        key: OperandKey,
        drawn: FaultMap,
        fmt: Format,
        drawings: list[_Drawing],
        steps: NDArray[Any],
        zeros: NDArray[Any] | None,
    ) -> Read:
        """What protections make of the faults of a tensor's codes."""
        found = Read(drawn)
        guards = [p for p in self._protecting(key.recipe_role, key.module) if not isinstance(p, Clipping)]
        if not guards:
            return found
        codes = _codes_of(steps, fmt, zeros)
        for guard in guards:

            def draw(name: str, size: int, bits: int) -> FaultMap:
                # Faults at given places, in a field or so many a tensor are the data's own.
                more = [d for d in drawings if d.model.rate is not None and d.model.bits is None]
                return _merged(d.map((size,), range(bits), bits, name) for d in more)

            read = guard.read(codes, found.faults, fmt, draw)
            zeroed = np.union1d(found.zeroed, read.zeroed)
            found = Read(read.faults, zeroed, found.corrected + read.corrected, found.detected + read.detected)
        return found

    def _note(self, key: OperandKey, drawings: list[_Drawing], drawn: FaultMap, read: Read, scale_faults: FaultMap) -> None:
        bits = drawn.bits_affected + scale_faults.bits_affected
        stored = all(drawing.model.persistent for drawing in drawings)
        words = tuple(drawing.words for drawing in drawings)
        again = stored and words in self._read_before
        self._read_before.add(words)
        if bits or read.corrected or read.detected:
            zeroed = int(read.zeroed.size)
            self.hits.append(Hit(key, self._pass, bits, read.faults, scale_faults, zeroed, read.corrected, read.detected, again))

    def _blocks(self, quantised: Quantised, blocks: BlockCodes, key: OperandKey, drawings: list[_Drawing]) -> Quantised:
        """An operand in a block format: faults in the codes of its elements and of its blocks' scales."""
        fmt = quantised.rule.fmt
        assert isinstance(fmt, BlockFormat)
        element = element_format(fmt)
        given, scales = (np.asarray(torch.as_tensor(v).cpu()) for v in (blocks.codes, blocks.scales))
        drawn = _drawn(given.shape, element, drawings)
        width = code_bits(fmt.scale)
        scale_faults = _merged(d.map(scales.shape, range(width), width, "scale") for d in drawings if d.model.bits == SCALE)
        read = self._read(key, drawn, element, drawings, given.reshape(-1), None)
        codes = read.faults.apply(given).reshape(-1)
        codes[read.zeroed] = int(np.asarray(encode(np.zeros(1, np.float32), element))[0])
        changed = replace(blocks, codes=codes.reshape(given.shape), scales=scale_faults.apply(scales))
        values = torch.from_numpy(np.asarray(decode(changed))).to(quantised.codes)
        values = values[..., : quantised.codes.shape[-1]].reshape(quantised.codes.shape)
        self._note(key, drawings, drawn, read, scale_faults)
        kept = replace(changed, codes=torch.as_tensor(changed.codes), scales=torch.as_tensor(changed.scales))
        return replace(quantised, codes=values, blocks=kept)

    # --- sums ---------------------------------------------------------------------------------------------------------------

    def sums(self, total: Any, a: NDArray[Any], b: NDArray[Any], how: Sum, accumulator: Accumulator) -> Any:
        """Sums with faults in their accumulators while they are made.

        Args:
            total: A·B without faults, shape (…, M, N), before scaling.
            a, b: operands (…, M, K) and (…, K, N) as the accumulator takes them.
            how: says where the product is.
            accumulator: how it is summed.
        """
        site = how.site
        assert site is not None
        models = self._models("accumulator", site.module, site.index, "accumulator", site.call)
        place = site.module, site.index, site.call
        count = self._sums[place] = self._sums.get(place, 0) + 1
        if not models or not total.size:
            return total
        fmt = get_format(accumulator.format)
        shape, length = total.shape, a.shape[-1]
        drawings = [
            _Drawing(n, model, (site.module, site.index, "accumulator", count, *self._when(model, site)), self.seed)
            for n, model in models
        ]
        maps = [(d, d.map(shape, bit_positions(fmt, d.model.bits), code_bits(fmt))) for d in drawings]
        drawn = _merged(one for _, one in maps)
        if not len(drawn):
            return total
        # A flip strikes after one of the products, each as likely; a stuck bit after all.
        steps = np.full((len(maps), len(drawn)), -1)
        for row, (d, one) in enumerate(maps):
            at = np.searchsorted(drawn.elements, one.elements)
            rng = stream(self.seed, d.number, "when", *d.words)
            steps[row, at] = length if d.model.permanent else rng.integers(0, length, len(one))
        index = np.unravel_index(drawn.elements, shape)
        left = np.broadcast_to(a, (*shape[:-2], *a.shape[-2:]))[index[:-1]]
        right = np.broadcast_to(b, (*shape[:-2], *b.shape[-2:])).swapaxes(-1, -2)[(*index[:-2], index[-1])]
        found = _stepped(left, right, accumulator, fmt, drawn.elements, maps, steps)
        result = np.array(total)
        result.reshape(-1)[drawn.elements] = found
        key = site.key("accumulator")
        self.hits.append(Hit(key, self._pass, sum(one.bits_affected for _, one in maps), drawn, FaultMap.none()))
        return result

    # --- what an optimizer keeps ----------------------------------------------------------------------------------------------

    def strike(self, optimizer: LowPrecisionOptimizer) -> None:
        """Faults in the weights and the state that an optimizer of ``numerics`` keeps, as they lie between two steps."""
        from numerics.emulation import OperandKey

        self._steps += 1
        for name, state, tensor, storage, role in optimizer.stored_tensors():
            module = name.rpartition(".")[0]
            models = self._models(role, module)
            when = [() if model.permanent else ("step", self._steps) for _, model in models]
            drawings = [_Drawing(n, m, (name, role, state, *w), self.seed) for (n, m), w in zip(models, when, strict=True)]
            if not drawings:
                continue
            drawn = _drawn(tuple(tensor.shape), storage.fmt, drawings)
            if len(drawn):
                storage.corrupt(tensor, drawn)
                self.hits.append(Hit(OperandKey(module, 0, role), self._steps, drawn.bits_affected, drawn, FaultMap.none()))


def _drawn(shape: tuple[int, ...], fmt: Format, drawings: list[_Drawing]) -> FaultMap:
    own = [d for d in drawings if d.model.bits != SCALE]
    return _merged(d.map(shape, bit_positions(fmt, d.model.bits), code_bits(fmt)) for d in own)


def _scale(scale: torch.Tensor, drawings: list[_Drawing]) -> tuple[torch.Tensor, FaultMap]:
    """Scales as they are read: numbers of 32 bits."""
    faults = _merged(d.map(tuple(scale.shape), range(32), 32, "scale") for d in drawings if d.model.bits == SCALE)
    return (corrupt(scale.float(), "fp32", faults).to(scale.dtype) if len(faults) else scale), faults


def _codes_of(steps: NDArray[Any], fmt: Format, zeros: NDArray[Any] | None) -> NDArray[np.uint64]:
    """Codes of values before scaling; of the codes of blocks, themselves."""
    if steps.dtype.kind in "iu":
        return steps.astype(np.uint64)
    if isinstance(fmt, IntFormat):
        codes = np.rint(steps.astype(np.float64)).astype(np.int64) + (0 if zeros is None else zeros.astype(np.int64))
        return (codes & ((1 << fmt.bits) - 1)).astype(np.uint64)
    return np.asarray(encode(steps, fmt)).astype(np.uint64)


def _clipped(quantised: Quantised, clip: Clipping, key: OperandKey) -> Quantised:
    """An operand within its range, whose ends are rounded as the operand's own values are."""
    if key not in clip.ranges:
        return quantised
    codes, scale, fmt = quantised.codes, quantised.scale, quantised.rule.fmt
    ends = []
    for end in clip.ranges[key]:
        steps = torch.as_tensor(end, dtype=codes.dtype, device=codes.device)
        steps = steps if scale is None else steps / scale
        if isinstance(fmt, BlockFormat):
            ends.append(steps)
        elif quantised.zero_point is not None:
            ends.append(torch.round(steps))
        else:
            ends.append(quantize(steps, fmt, overflow="saturate"))
    bounded = torch.where(torch.isnan(codes), torch.zeros_like(codes), codes)
    bounded = torch.minimum(torch.maximum(bounded, ends[0]), ends[1])
    return quantised if torch.equal(bounded, codes) else replace(quantised, codes=bounded)


def _stepped(
    left: NDArray[Any],
    right: NDArray[Any],
    accumulator: Accumulator,
    fmt: Format,
    elements: NDArray[np.int64],
    maps: list[tuple[_Drawing, FaultMap]],
    steps: NDArray[np.int64],
) -> NDArray[Any]:
    """Sums of products along the rows of two matrices, one product at a time, with faults in them.

    An array that sums in groups adds each group's sum, begun at 0, to the one before; faults are in the sum of the group.
    """
    from numerics.mac import multiply_add

    length, group = left.shape[1], accumulator.group or left.shape[1]
    kept: Any = None
    total: Any = np.zeros(left.shape[0])
    for step in range(length):
        if step % group == 0 and step:
            kept = total if kept is None else multiply_add(kept, total, np.ones_like(total), accumulator=accumulator)
            total = np.zeros_like(total)
        total = multiply_add(total, left[:, step], right[:, step], accumulator=accumulator)
        for row, (drawing, faults) in enumerate(maps):
            struck = steps[row] == step if not drawing.model.permanent else steps[row] == length
            if struck.any():
                at = np.flatnonzero(struck)
                own = np.searchsorted(faults.elements, elements[at])
                masks = (part[own] for part in (faults.clear, faults.set, faults.flip))
                total[at] = read_values(total[at], fmt, FaultMap(elements[at], *masks))
    return total if kept is None else multiply_add(kept, total, np.ones_like(total), accumulator=accumulator)


# --- by hand --------------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def inject(
    emulation: Emulation,
    faults: BitFaults | Sequence[BitFaults] = (),
    *,
    protections: Protection | Sequence[Protection] = (),
    seed: int = 0,
    optimizer: torch.optim.Optimizer | None = None,
) -> Iterator[Injection]:
    """Run an emulated module with faults in it, within a ``with`` block.

    Without faults the block computes what it computes with them, by the same kernels: a run that differs in no bit is *masked*.

    Args:
        emulation: of ``numerics.emulate`` or a device's ``emulate``.
        faults: several at once, if wanted.
        protections: of the tensors.
        seed: of the faults. The first forward pass in a block meets the same faults every time.
        optimizer: of ``numerics``; after each of its steps faults strike its state (``optimizer_state``) and the weights that it
            keeps (``master_weight``).

    Raises:
        InputError: no emulation; another injection at work in it; a target that needs the optimizer; a pattern that matches no
            module; when it runs, a field that a tensor's format lacks, places beyond a tensor, an accumulator whose order of sums
            is not defined; at the end of a block in which it ran, faults that met no tensor.
    """
    from numerics.emulation import Emulation as Emulated
    from numerics.optimizers import LowPrecisionOptimizer

    if not isinstance(emulation, Emulated):
        raise InputError(f"emulation: expected a module from numerics.emulate, got {type(emulation).__name__}")
    models = (faults,) if isinstance(faults, BitFaults) else tuple(faults)
    guards = (protections,) if isinstance(protections, Protection) else tuple(protections)
    for name, given, kind in (("faults", models, BitFaults), ("protections", guards, Protection)):
        for one in given:
            if not isinstance(one, kind):
                raise InputError(f"{name}: expected {kind.__name__} objects, got {type(one).__name__}")
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise InputError(f"seed: expected an integer ≥ 0, got {seed!r}")
    kept = [model.target for model in models if model.target in ("optimizer_state", "master_weight")]
    if kept and not isinstance(optimizer, LowPrecisionOptimizer):
        raise InputError(f"optimizer: faults in {kept[0]!r} need an optimizer of numerics, got {type(optimizer).__name__}")
    for model in models:
        if model.bits == SCALE and model.target in ("optimizer_state", "master_weight", "accumulator"):
            raise InputError(f"bits: faults strike the scales of operands, not those of {model.target!r}")
    for guard in guards:
        if guard.target in ("optimizer_state", "master_weight", "accumulator"):
            raise InputError(f"protections: they guard operands that are read, not {guard.target!r}; got {type(guard).__name__}")
    paths = [path for path, _ in emulation.module.named_modules()]
    for model in models:
        if not any(fnmatch.fnmatchcase(path, model.modules) for path in paths):
            raise InputError(f"modules: no module of {type(emulation.module).__name__!r} matches {model.modules!r}")
    context = emulation._context
    if context.injection is not None:
        raise InputError("emulation: has an injection at work; give all faults to one")
    injection = Injection(models, guards, seed)
    context.injection = injection
    handle = None
    if isinstance(optimizer, LowPrecisionOptimizer):
        handle = optimizer.register_step_post_hook(lambda chosen, *_: injection.strike(chosen))
    try:
        yield injection
        injection.check_met()
    finally:
        context.injection = None
        if handle is not None:
            handle.remove()
