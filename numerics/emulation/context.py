"""What an emulation knows while it runs: where it is, which step it is in, its scales, and the list of what it did."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.weak import WeakTensorKeyDictionary

from numerics._display import displayed
from numerics.accumulator import Accumulator, get_accumulator
from numerics.emulation.quantised import OperandKey, Rule, make_rule
from numerics.errors import InputError
from numerics.scaling import AmaxHistory, Scales, Scaling

if TYPE_CHECKING:
    from numerics.emulation.gemm import MatrixUnit
    from numerics.faults.injection import Injection
    from numerics.recipes import Recipe

COMPUTE_ROLES = ("weight", "activation", "gradient", "kv_cache", "elementwise", "accumulator")


@displayed
@dataclass(frozen=True)
class Operator:
    """One line of the list of what an emulation replaced.

    Attributes:
        module: path of the module in whose forward it runs.
        index: its position among the operators of that forward; negative for dropout, which is not there in every mode.
        kind: what it is: ``linear``, ``conv2d``, ``matmul``, ``layer_norm``, …
        formats: operands, and what they are summed or rounded in where that differs, written as a report of ``hwsim`` does:
            ``"e4m3fn→fp32"``, ``"bf16×e4m3fn→fp32"``, ``"bf16"``.
        gradients: the same for the products of the backward pass: that of the first operand, then that of the second.
        emulated: whether it computes in these formats.
        reason: why not.
        seen: whether it ran; otherwise it is expected from the kind of the module.
    """

    module: str
    index: int
    kind: str
    formats: str
    gradients: str = ""
    emulated: bool = True
    reason: str = ""
    seen: bool = True
    sums: str = ""
    """How products are summed: the name of an accumulator, its order, ``exact`` (integers), or ``library``."""


@dataclass(frozen=True)
class Site:
    """One operator at work, for its forward pass and its backward pass.

    Attributes:
        context: the emulation.
        module: path of the module.
        index: position of the operator in the forward of that module.
        call: how often it had run before in this step.
        step: the step it belongs to.
        training: whether delayed scales record what they see.
    """

    context: Context
    module: str
    index: int
    call: int
    step: int
    training: bool

    def key(self, name: str) -> OperandKey:
        """The key of one of its operands."""
        return OperandKey(self.module, self.index, name)

    def seed(self, name: str) -> int:
        """The seed of an operand's random bits: one for each operand of each operator, call and step."""
        text = f"{self.context.seed}/{self.step}/{self.call}/{self.index}/{name}/{self.module}"
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")

    def rule(self, role: str) -> Rule:
        """The rule of a role here."""
        return self.context.rule(role, self.module)


@dataclass
class Frame:
    """A module whose forward is running.

    Attributes:
        module: its path.
        index: operators so far.
        aside: operators so far that are not there in every mode (dropout); numbered −1, −2, …, so that the others keep theirs.
        rows: their positions.
    """

    module: str
    index: int = 0
    aside: int = 0
    rows: list[int] = field(default_factory=list)


@dataclass
class Traits:
    """What is known of a tensor: the role it came with, and whether it has the format of its module already."""

    role: str = "activation"
    rounded: bool = False


@dataclass
class Context:
    """The state of an emulation.

    Attributes:
        recipe: formats and everything else.
        seed: of stochastic rounding.
        step: training steps begun.
        training: whether the forward that runs is one of training.
        rows: operators seen, by module and position.
        histories: largest magnitudes of delayed scales, by operand.
        static: scales that a calibration gave, by operand.
        observer: called with every operand before it is quantised.
        injection: faults at work.
        matrix_unit: computes the products whose accumulator the recipe names, in place of ``numerics.matmul``.
    """

    recipe: Recipe
    seed: int = 0
    step: int = 0
    training: bool = False
    rows: dict[tuple[str, int], Operator] = field(default_factory=dict)
    histories: dict[OperandKey, AmaxHistory] = field(default_factory=dict)
    static: dict[OperandKey, Scales] = field(default_factory=dict)
    observer: Callable[[OperandKey, torch.Tensor], None] | None = None
    injection: Injection | None = None
    matrix_unit: MatrixUnit | None = None
    roles: dict[int, str] = field(default_factory=dict)
    frames: list[Frame] = field(default_factory=list)
    calls: dict[tuple[str, int], int] = field(default_factory=dict)
    traits: Any = field(default_factory=WeakTensorKeyDictionary)
    rules: dict[tuple[str, str], Rule] = field(default_factory=dict)
    quiet: dict[tuple[str, torch.dtype], bool] = field(default_factory=dict)

    def __getstate__(self) -> dict[str, Any]:
        # What belongs to a running forward is neither copied nor saved, nor is who looks on.
        running: dict[str, Any] = {"observer": None, "injection": None, "roles": {}, "frames": [], "calls": {}, "traits": None}
        return {**self.__dict__, **running}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, traits=WeakTensorKeyDictionary())

    # --- rules ------------------------------------------------------------------------------------------------------

    def rule(self, role: str, module: str) -> Rule:
        """The rule of a role in a module."""
        found = self.rules.get((role, module))
        if found is None:
            found = self.rules[role, module] = make_rule(self.recipe, role, module)
        return found

    def result_gradient(self, module: str) -> Rule:
        """The rule for gradients between operators: the elementwise format where the recipe gives one, else the gradient's."""
        override = self.recipe.override_for(module)
        given = "elementwise" in self.recipe.formats or (override is not None and "elementwise" in override.formats)
        return self.rule("elementwise" if given else "gradient", module)

    def accumulation(self, module: str) -> str | Accumulator | None:
        """How products are summed in a module; None leaves it to the library."""
        override, chosen = self.recipe.override_for(module), self.recipe.accumulation
        if override is None or "accumulator" not in override.formats:
            return chosen
        # A named unit has its format in its name; the order of an ``Accumulator`` serves any.
        return replace(chosen, format=override.formats["accumulator"]) if isinstance(chosen, Accumulator) else None

    def block_scaled(self, module: str) -> bool:
        """Whether sums in a module take blocks with their scales."""
        accumulation = self.accumulation(module)
        return accumulation is not None and get_accumulator(accumulation).scale is not None

    def identity(self, module: str, dtype: torch.dtype) -> bool:
        """Whether the recipe changes nothing in a module that computes with this type, and nothing fails there."""
        if self.injection is not None:
            return False
        found = self.quiet.get((module, dtype))
        if found is None:
            found = self.accumulation(module) is None and all(self.rule(r, module).identity(dtype) for r in COMPUTE_ROLES)
            found = found and (dtype != torch.float64 or self.recipe.format_for("accumulator", module) == "fp64")
            self.quiet[module, dtype] = found
        return found

    # --- where we are -------------------------------------------------------------------------------------------------

    def enter(self, module: str) -> None:
        """A module's forward begins."""
        self.frames.append(Frame(module))

    def leave(self) -> None:
        """A module's forward ends: the list has what its last forward ran, in that order."""
        frame = self.frames.pop()
        mine = {key: row for key, row in self.rows.items() if key[0] == frame.module}
        if mine and list(dict.fromkeys(frame.rows)) != [index for _, index in mine]:
            for key in mine:
                del self.rows[key]
            self.rows.update({(frame.module, index): mine[frame.module, index] for index in frame.rows})

    def site(self, *, aside: bool = False) -> Site:
        """The next operator of the module that runs."""
        frame = self.frames[-1]
        if aside:
            frame.aside += 1
            index = -frame.aside
        else:
            index = frame.index
            frame.index += 1
        place = frame.module, index
        call = self.calls.get(place, 0)
        self.calls[place] = call + 1
        return Site(self, *place, call, self.step, self.training)

    def list(self, site: Site, kind: str, formats: str, gradients: str = "", *, reason: str = "", sums: str = "") -> None:
        """Put an operator on the list."""
        self.rows[site.module, site.index] = Operator(
            site.module, site.index, kind, formats, gradients, not reason, reason, sums=sums
        )
        self.frames[-1].rows.append(site.index)

    def begin_step(self) -> None:
        """A training step begins: delayed scales take in what the last step recorded."""
        self.step += 1
        for history in self.histories.values():
            history.advance()

    # --- scales ---------------------------------------------------------------------------------------------------------

    def history(self, key: OperandKey, scaling: Scaling) -> AmaxHistory:
        """The history of an operand's largest magnitudes."""
        if key not in self.histories:
            self.histories[key] = AmaxHistory(scaling.history)
        return self.histories[key]

    def static_scales(self, key: OperandKey, x: torch.Tensor) -> Scales:
        """The scales that a calibration found for an operand.

        Raises:
            InputError: there are none.
        """
        found = self.static.get(key)
        if found is None:
            raise InputError(
                f"calibration: no scale for operator {key.operator} of module {key.module!r}, {key.role}; the recipe "
                f"{self.recipe.name!r} asks for a static one: calibrate first"
            )
        try:
            torch.broadcast_shapes(found.scale.shape, x.shape)
        except RuntimeError:
            shapes = f"shape {tuple(found.scale.shape)} for an operand of shape {tuple(x.shape)}"
            raise InputError(f"calibration: the scale of {key.role} of module {key.module!r} has {shapes}") from None
        zero_point = None if found.zero_point is None else found.zero_point.to(x.device)
        return Scales(found.scale.to(x.device), zero_point)

    def notify(self, key: OperandKey, x: torch.Tensor) -> None:
        """Show an operand to whoever looks on."""
        if self.observer is not None:
            self.observer(key, x)

    # --- tensors ----------------------------------------------------------------------------------------------------------

    def traits_of(self, x: torch.Tensor) -> Traits:
        """What is known of a tensor."""
        role = self.roles.get(id(x))
        if role is not None:
            return Traits(role)
        found: Traits | None = self.traits.get(x)
        return Traits() if found is None else found

    def mark(self, x: torch.Tensor, *, role: str = "activation", rounded: bool) -> None:
        """Note what is known of a tensor."""
        if id(x) not in self.roles:
            self.traits[x] = Traits(role, rounded)


def check_static(scales: Mapping[Any, Any]) -> dict[OperandKey, Scales]:
    """Scales by operand, as tensors.

    Args:
        scales: key (module path, operator, role) → a number or tensor, or a pair of scale and zero point.

    Raises:
        InputError: a key of another form, or a scale that is not positive and finite.
    """
    found: dict[OperandKey, Scales] = {}
    for key, value in scales.items():
        if not isinstance(key, tuple) or len(key) != 3:
            raise InputError(f"calibration: expected keys (module path, operator, role), got {key!r}")
        given, zero_point = value if isinstance(value, tuple | list) else (value, None)
        scale = torch.as_tensor(given, dtype=torch.float32) if not isinstance(given, torch.Tensor) else given.detach()
        if not bool((torch.isfinite(scale) & (scale > 0)).all()):
            raise InputError(f"calibration: scale of {tuple(key)!r}: expected positive, finite numbers, got {given!r}")
        zeros = None if zero_point is None else torch.as_tensor(zero_point, dtype=scale.dtype)
        found[OperandKey(*key)] = Scales(scale, zeros)
    return found
