"""Optimizers that keep weights and state in any format: SGD, Adam, AdamW, Lion, Shampoo.

Every step computes in FP32 on the values that the stored codes stand for, then rounds state and weights back to their formats.
A parameter *is* the master weight; where a recipe computes with another format, emulation rounds its working copy. With FP32
throughout, SGD, Adam and AdamW give the bits of ``torch.optim``.

Sources: Adam, Kingma and Ba (arXiv 1412.6980), algorithm 1; AdamW, Loshchilov and Hutter (arXiv 1711.05101), algorithm 2; Lion,
Chen et al. (arXiv 2302.06675), program 1; Shampoo, Gupta et al. (arXiv 1802.09568), algorithm 1; compensated weights, Zamirai et
al. (arXiv 2010.06192), section 4; state in 8 bits with a scale for each block, Dettmers et al. (arXiv 2110.02861).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict, Unpack

import torch

from numerics._display import displayed_by
from numerics.errors import InputError, unknown_name
from numerics.formats import FloatFormat, Format, get_format
from numerics.quantizer import check_fits, stream_key
from numerics.recipes import Recipe, get_recipe
from numerics.scaling import Scaling
from numerics.state_storage import Storage, scaled_bytes

State = str | Format | Storage | Mapping[str, "str | Format | Storage"]
"""How state is kept: a format or its name, a ``Storage``, or one of them for each state by its name."""

_MASK64 = (1 << 64) - 1


class Kept(TypedDict, total=False):
    """What every optimizer takes besides its hyper-parameters.

    ``params`` are FP32 tensors, groups, or, as a recipe with overrides by module needs, ``emulation.module.named_parameters()``.

    Attributes:
        recipe: gives the formats, rounding and scales of ``optimizer_state`` and ``master_weight``, and ``compensated``; its
            other roles count in ``state_bytes``. FP32 without one.
        state: instead of the recipe's; see ``State``. A narrow format without a ``Storage`` has a scale for every 2,048 elements.
        master_weight: instead of the recipe's; a format without a ``Storage`` has no scale.
        compensated: instead of the recipe's: Kahan's sum of weight and update, in the weight's format.
        seed: for stochastic rounding; every step and tensor draws bits of its own from it.
    """

    recipe: str | Path | Recipe | None
    state: State | None
    master_weight: str | Format | Storage | None
    compensated: bool | None
    seed: int | None


@displayed_by("numerics._cards:training_bytes")
@dataclass(frozen=True)
class TrainingBytes:
    """Memory that training keeps, activations apart.

    Attributes:
        by_role: role → bytes, scales included: ``weight`` (the copy that products read), ``gradient``, ``optimizer_state``, and
            where there are any ``master_weight`` (in a format other than the weights') and ``compensation``.
        parameters: how many there are.
    """

    by_role: Mapping[str, int]
    parameters: int

    @property
    def total(self) -> int:
        """All bytes."""
        return sum(self.by_role.values())

    @property
    def per_parameter(self) -> float:
        """Bytes for each parameter."""
        return self.total / self.parameters


@dataclass(frozen=True)
class _Plan:
    """How one parameter and what belongs to it are kept."""

    name: str
    module: str
    number: int
    master: Storage
    state: Mapping[str, Storage]


@displayed_by("numerics._cards:optimizer")
class LowPrecisionOptimizer(torch.optim.Optimizer, ABC):
    """What the optimizers share: where formats come from, rounding, and the count of bytes.

    A subclass names its state and gives one step in FP32.
    """

    def __init__(
        self,
        params: Any,
        defaults: dict[str, Any],
        *,
        recipe: str | Path | Recipe | None = None,
        state: State | None = None,
        master_weight: str | Format | Storage | None = None,
        compensated: bool | None = None,
        seed: int | None = None,
    ) -> None:
        self.recipe = get_recipe("fp32" if recipe is None else recipe)
        if self.recipe.first_and_last is not None:
            raise InputError("recipe: first_and_last names no modules yet; give the recipe of an emulation (emulation.recipe)")
        if seed is not None and (not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed <= _MASK64):
            raise InputError(f"seed: expected an integer from 0 to 2^64 − 1, got {seed!r}")
        self._storages: dict[tuple[str, str], Storage] = {}
        self._state_given = state
        self._master_given = master_weight
        self.compensated = self.recipe.compensated if compensated is None else compensated
        # In the groups, so that a state_dict carries it: a run that goes on draws the bits it would have drawn.
        super().__init__(params, {**defaults, "seed": seed})
        modules = {plan.module for plan in self._plans()}
        if self.recipe.overrides and not any(self.recipe.override_for(module) for module in modules):
            raise InputError(
                "params: no override of the recipe matches their modules; expected emulation.module.named_parameters()"
            )

    # --- what a subclass says -----------------------------------------------------------------------------------------------

    @abstractmethod
    def state_shapes(self, shape: tuple[int, ...], group: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        """Name → shape of the state that a parameter of this shape has."""

    @abstractmethod
    def update(
        self, weight: torch.Tensor, gradient: torch.Tensor, state: dict[str, torch.Tensor], step: int, group: Mapping[str, Any]
    ) -> None:
        """One step in place, in FP32.

        Args:
            weight, gradient: of one parameter.
            state: name → tensor of the shapes that ``state_shapes`` gives; zero before the first step.
            step: from 1.
            group: hyper-parameters.
        """

    # --- formats ------------------------------------------------------------------------------------------------------------

    def _parameters(self) -> Iterator[tuple[dict[str, Any], torch.Tensor, str | None]]:
        for group in self.param_groups:
            names = group.get("param_names") or [None] * len(group["params"])
            for parameter, name in zip(group["params"], names, strict=True):
                yield group, parameter, name

    def _plans(self) -> list[_Plan]:
        return [self._plan(*entry, number) for number, entry in enumerate(self._parameters())]

    def _plan(self, group: Mapping[str, Any], parameter: torch.Tensor, name: str | None, number: int) -> _Plan:
        called = f"parameter {number}" if name is None else f"parameter {name!r}"
        if parameter.dtype != torch.float32:
            raise InputError(f"params: {called} holds the master weight; expected float32, got {parameter.dtype}")
        if name is None and self.recipe.overrides:
            raise InputError("params: the recipe has overrides by module; expected module.named_parameters()")
        module = (name or "").rpartition(".")[0]
        master = self._of_recipe("master_weight", module) if self._master_given is None else _unscaled(self._master_given)
        shapes = self.state_shapes(tuple(parameter.shape), group)
        given = self._state_given
        if isinstance(given, Mapping):
            for key in given:
                if key not in shapes:
                    raise unknown_name("state", str(key), shapes)
        kept: dict[str, Storage] = {}
        for key in shapes:
            chosen = given.get(key) if isinstance(given, Mapping) else given
            kept[key] = self._of_recipe("optimizer_state", module) if chosen is None else _stored(chosen)
        for what, storage in (("master_weight", master), *(("state", s) for s in kept.values())):
            _check_held(what, storage.fmt)
            if storage.rounding == "stochastic" and group["seed"] is None:
                raise InputError(f"seed: stochastic rounding of {what} needs one: an integer")
        return _Plan(called, module, number, master, kept)

    def _of_recipe(self, role: str, module: str) -> Storage:
        found = self._storages.get((role, module))
        if found is None:
            fmt = get_format(self.recipe.format_for(role, module))
            found = Storage(fmt, self.recipe.rounding_for(role), self.recipe.scaling_for(role, module))
            self._storages[role, module] = found
        return found

    # --- steps --------------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step on every parameter that has a gradient; before its first, a weight is rounded to its format, to nearest.

        Raises:
            InputError: a sparse gradient, or a value that a format cannot hold (the parameter and its state are then as before).
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for number, (group, parameter, name) in enumerate(self._parameters()):
            if parameter.grad is not None:
                self._step_one(group, parameter, self._plan(group, parameter, name, number))
        return loss

    def _step_one(self, group: dict[str, Any], parameter: torch.Tensor, plan: _Plan) -> None:
        gradient = parameter.grad
        assert gradient is not None
        if gradient.is_sparse:
            raise InputError(f"gradient of {plan.name}: expected a dense tensor, got a sparse one")
        kept = self.state[parameter]
        step = int(kept.get("step", 0)) + 1
        shapes = self.state_shapes(tuple(parameter.shape), group)
        state = {
            name: kept[name].clone() if name in kept else torch.zeros(shape, device=parameter.device)
            for name, shape in shapes.items()
        }
        what = f"weight of {plan.name}"
        old = parameter.detach()
        if step == 1:
            # What the weights were initialised with need not be a value of their format.
            old = replace(plan.master, rounding="nearest_even").store(old, seed=0, what=what)
        weight = old.clone()
        self.update(weight, gradient.float(), state, step, group)

        def draw(place: int) -> int:
            return _mix(group["seed"] or 0, step, plan.number, place)

        rounded: dict[str, Any] = {"step": step}
        for place, (name, storage) in enumerate(plan.state.items(), 2):
            rounded[name] = storage.store(state[name], seed=draw(place), what=f"state {name} of {plan.name}")
        if self.compensated:
            before = kept.get("compensation", torch.zeros_like(weight))
            weight, rounded["compensation"] = _compensated(old, weight, before, plan.master, draw(0), what)
        else:
            weight = plan.master.store(weight, seed=draw(0), what=what)
        kept.update(rounded)
        parameter.copy_(weight)

    def stored_tensors(self) -> Iterator[tuple[str, str, torch.Tensor, Storage, str]]:
        """What is kept from one step to the next: (name of the parameter, name of its state, tensor, how it is stored, role).

        Roles are ``master_weight`` and ``optimizer_state``. The tensors are the kept ones themselves.
        """
        for number, (group, parameter, name) in enumerate(self._parameters()):
            kept = self.state[parameter]
            if not kept:
                continue
            plan = self._plan(group, parameter, name, number)
            called = name or f"parameter {number}"
            yield called, "weight", parameter.data, plan.master, "master_weight"
            for state, storage in plan.state.items():
                yield called, state, kept[state], storage, "optimizer_state"

    # --- bytes --------------------------------------------------------------------------------------------------------------

    def state_bytes(self) -> TrainingBytes:
        """Bytes that weights, gradients and state take, by role."""
        by_role = dict.fromkeys(("weight", "gradient", "master_weight", "compensation", "optimizer_state"), 0)
        count = 0
        for plan, (group, parameter, _) in zip(self._plans(), self._parameters(), strict=True):
            shape = tuple(parameter.shape)
            count += parameter.numel()
            result = _result_role(self.recipe, plan.module)
            weight, gradient = (get_format(self.recipe.format_for(role, plan.module)) for role in ("weight", result))
            scaling = self.recipe.scaling_for("weight", plan.module)
            by_role["weight"] += scaled_bytes(weight, scaling, shape)
            by_role["gradient"] += scaled_bytes(gradient, self.recipe.scaling_for(result, plan.module), shape)
            if (plan.master.fmt, plan.master.scaling) != (weight, scaling):
                by_role["master_weight"] += plan.master.storage_bytes(shape)
            if self.compensated:
                by_role["compensation"] += plan.master.storage_bytes(shape)
            for name, extent in self.state_shapes(shape, group).items():
                by_role["optimizer_state"] += plan.state[name].storage_bytes(extent)
        return TrainingBytes({role: size for role, size in by_role.items() if size}, count)


def _result_role(recipe: Recipe, module: str) -> str:
    """The role of a parameter's gradient, a result of products: ``elementwise`` where the recipe gives it, else ``gradient``."""
    override = recipe.override_for(module)
    given = {*recipe.formats, *(override.formats if override else ())}
    return "elementwise" if "elementwise" in given else "gradient"


def _stored(given: str | Format | Storage) -> Storage:
    return given if isinstance(given, Storage) else Storage(get_format(given))


def _unscaled(given: str | Format | Storage) -> Storage:
    """Weights have no scales unless they are asked for."""
    return given if isinstance(given, Storage) else Storage(get_format(given), scaling=Scaling("none"))


def _check_held(what: str, fmt: Format) -> None:
    wide = isinstance(fmt, FloatFormat) and fmt.mantissa_bits > 23
    try:
        check_fits(fmt, 32)
    except InputError:
        wide = True
    if wide:
        raise InputError(f"{what}: steps are computed in FP32, which cannot hold {fmt.name!r}")


def _mix(seed: int, *counters: int) -> int:
    """A seed for one tensor of one step: SplitMix64 over the counters, so that streams never meet."""
    key = stream_key(seed)
    for counter in counters:
        key = stream_key(key ^ counter)
    return key


def _compensated(
    old: torch.Tensor, new: torch.Tensor, lost: torch.Tensor, kept: Storage, seed: int, what: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Kahan's sum of the weight and its update, each operation rounded to the weight's format (Zamirai et al., section 4).

    ``lost`` is what earlier sums have added too much. The update, ``new − old``, is exact wherever both are within a factor of
    two (Sterbenz).
    """

    def rounded(x: torch.Tensor, place: int) -> torch.Tensor:
        return kept.store(x, seed=_mix(seed, place), what=what)

    update = rounded(rounded(new - old, 1) - lost, 2)
    total = rounded(old + update, 3)
    return total, rounded(rounded(total - old, 4) - update, 5)


def _check(name: str, value: Any, low: float, high: float = math.inf) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value < high:
        wanted = f"≥ {low:g}" if high == math.inf else f"from {low:g} to below {high:g}"
        raise InputError(f"{name}: expected a number {wanted}, got {value!r}")


def _check_betas(betas: Any) -> tuple[float, float]:
    if not isinstance(betas, tuple | list) or len(betas) != 2:
        raise InputError(f"betas: expected two numbers, got {betas!r}")
    for place, beta in enumerate(betas):
        _check(f"betas[{place}]", beta, 0, 1)
    return float(betas[0]), float(betas[1])


class SGD(LowPrecisionOptimizer):
    """Stochastic gradient descent with momentum, as ``torch.optim.SGD`` without dampening. State: ``momentum_buffer``."""

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        *,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        **kept: Unpack[Kept],
    ) -> None:
        for name, value in (("lr", lr), ("momentum", momentum), ("weight_decay", weight_decay)):
            _check(name, value, 0)
        if nesterov and momentum == 0:
            raise InputError("nesterov: needs momentum > 0, got 0")
        defaults = {"lr": lr, "momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
        super().__init__(params, defaults, **kept)

    def state_shapes(self, shape: tuple[int, ...], group: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        return {"momentum_buffer": shape} if group["momentum"] else {}

    def update(
        self, weight: torch.Tensor, gradient: torch.Tensor, state: dict[str, torch.Tensor], step: int, group: Mapping[str, Any]
    ) -> None:
        if group["weight_decay"]:
            gradient = gradient.add(weight, alpha=group["weight_decay"])
        if group["momentum"]:
            buffer = state["momentum_buffer"].mul_(group["momentum"]).add_(gradient)
            gradient = gradient.add(buffer, alpha=group["momentum"]) if group["nesterov"] else buffer
        weight.add_(gradient, alpha=-group["lr"])


class Adam(LowPrecisionOptimizer):
    """Adam, as ``torch.optim.Adam``: weight decay is added to the gradient. State: ``exp_avg``, ``exp_avg_sq``."""

    decoupled = False

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        **kept: Unpack[Kept],
    ) -> None:
        for name, value in (("lr", lr), ("eps", eps), ("weight_decay", weight_decay)):
            _check(name, value, 0)
        defaults = {"lr": lr, "betas": _check_betas(betas), "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults, **kept)

    def state_shapes(self, shape: tuple[int, ...], group: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        return {"exp_avg": shape, "exp_avg_sq": shape}

    def update(
        self, weight: torch.Tensor, gradient: torch.Tensor, state: dict[str, torch.Tensor], step: int, group: Mapping[str, Any]
    ) -> None:
        lr, (beta1, beta2), decay = group["lr"], group["betas"], group["weight_decay"]
        if decay and self.decoupled:
            weight.mul_(1 - lr * decay)
        elif decay:
            gradient = gradient.add(weight, alpha=decay)
        mean = state["exp_avg"].lerp_(gradient, 1 - beta1)
        square = state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        denominator = (square.sqrt() / (1 - beta2**step) ** 0.5).add_(group["eps"])
        weight.addcdiv_(mean, denominator, value=-(lr / (1 - beta1**step)))


class AdamW(Adam):
    """Adam with decoupled weight decay, as ``torch.optim.AdamW``. State: ``exp_avg``, ``exp_avg_sq``."""

    decoupled = True

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        **kept: Unpack[Kept],
    ) -> None:
        super().__init__(params, lr, betas=betas, eps=eps, weight_decay=weight_decay, **kept)


class Lion(LowPrecisionOptimizer):
    """Lion: the sign of a mean of gradient and momentum. State: ``exp_avg``."""

    def __init__(
        self,
        params: Any,
        lr: float = 1e-4,
        *,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        **kept: Unpack[Kept],
    ) -> None:
        for name, value in (("lr", lr), ("weight_decay", weight_decay)):
            _check(name, value, 0)
        defaults = {"lr": lr, "betas": _check_betas(betas), "weight_decay": weight_decay}
        super().__init__(params, defaults, **kept)

    def state_shapes(self, shape: tuple[int, ...], group: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        return {"exp_avg": shape}

    def update(
        self, weight: torch.Tensor, gradient: torch.Tensor, state: dict[str, torch.Tensor], step: int, group: Mapping[str, Any]
    ) -> None:
        lr, (beta1, beta2), momentum = group["lr"], group["betas"], state["exp_avg"]
        direction = momentum.mul(beta1).add_(gradient, alpha=1 - beta1).sign_()
        weight.mul_(1 - lr * group["weight_decay"]).add_(direction, alpha=-lr)
        momentum.mul_(beta2).add_(gradient, alpha=1 - beta2)


class Shampoo(LowPrecisionOptimizer):
    """Shampoo: a matrix for the rows and one for the columns of each gradient. State: ``left``, ``right``.

    A tensor of more than two dimensions counts as the matrix of its first dimension and the rest; a vector has ``left`` only.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-2,
        *,
        eps: float = 1e-4,
        weight_decay: float = 0.0,
        **kept: Unpack[Kept],
    ) -> None:
        for name, value in (("lr", lr), ("eps", eps), ("weight_decay", weight_decay)):
            _check(name, value, 0)
        if eps == 0:
            raise InputError("eps: expected a number > 0 (the matrices start from eps·I), got 0")
        defaults = {"lr": lr, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults, **kept)

    def state_shapes(self, shape: tuple[int, ...], group: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        rows = shape[0] if shape else 1
        if len(shape) < 2:
            return {"left": (rows, rows)}
        columns = math.prod(shape[1:])
        return {"left": (rows, rows), "right": (columns, columns)}

    def update(
        self, weight: torch.Tensor, gradient: torch.Tensor, state: dict[str, torch.Tensor], step: int, group: Mapping[str, Any]
    ) -> None:
        matrix = gradient.reshape(gradient.shape[0] if gradient.ndim else 1, -1)
        power = -1 / (2 * len(state))
        direction = _matrix_power(state["left"].addmm_(matrix, matrix.T), power, group["eps"]) @ matrix
        if "right" in state:
            direction = direction @ _matrix_power(state["right"].addmm_(matrix.T, matrix), power, group["eps"])
        weight.mul_(1 - group["lr"] * group["weight_decay"]).add_(direction.view(weight.shape), alpha=-group["lr"])


def _matrix_power(matrix: torch.Tensor, power: float, eps: float) -> torch.Tensor:
    """(matrix + eps·I)^power of a symmetric matrix; eigenvalues that rounded state has below 0 count as 0."""
    values, vectors = torch.linalg.eigh(matrix.double())
    return ((vectors * (values.clamp(min=0) + eps) ** power) @ vectors.T).float()
