"""What a language model's user sees on a device: time to the first token, time per token, tokens a second, bytes of cache."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from hwsim.api import workload_from
from hwsim.device import Device
from hwsim.registry import get_device
from hwsim.report import Report
from hwsim.views.display import displayed_by
from hwsim.workload import Workload
from numerics.errors import InputError
from numerics.recipes import Recipe


@displayed_by("hwsim.views.study_cards:serving")
@dataclass(frozen=True)
class Serving:
    """Figures of serving ``batch`` requests together: the prompt at once, then one token after another.

    Attributes:
        model, device, recipe, fidelity: what ran on what.
        batch: requests.
        prompt_tokens, output_tokens: of each request; the prompt yields the first output token.
        time_to_first_token_s: the whole prompt.
        time_per_output_token_s: mean of the further steps (0 for one output token).
        first_step_s, last_step_s: the shortest and the longest cache.
        latency_s: from the prompt to the last token.
        tokens_per_s: output tokens of all requests over the latency.
        decode_tokens_per_s: those after the first, over their own time.
        kv_cache_bytes: keys and values of all requests at the last step.
        weight_bytes: distinct parameters.
        prefill_mfu, decode_mfu: model FLOPs over what the machine could do in that time, in the formats used.
        decode_bandwidth_use: off-chip bytes of a middle step over what the memory could move in its time; None at a rung whose
            memory is ideal.
        prefill_energy_j, decode_energy_j: energy of the prompt, and of all further steps.
        energy_per_token_j: both over the output tokens of all requests.
        origin: whether times are ``calibrated`` or ``predicted``.
        notes: what a reader must know, as in the reports of the steps.
    """

    model: str
    device: str
    recipe: str
    fidelity: str
    batch: int
    prompt_tokens: int
    output_tokens: int
    time_to_first_token_s: float
    time_per_output_token_s: float
    first_step_s: float
    last_step_s: float
    latency_s: float
    tokens_per_s: float
    decode_tokens_per_s: float
    kv_cache_bytes: int
    weight_bytes: int
    prefill_mfu: float
    decode_mfu: float
    decode_bandwidth_use: float | None
    prefill_energy_j: float
    decode_energy_j: float
    energy_per_token_j: float
    origin: str
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {f.name: getattr(self, f.name) for f in fields(self)} | {"notes": list(self.notes)}


def serve(
    model: str,
    *,
    device: str | Path | Mapping[str, Any] | Device,
    batch: int = 1,
    prompt_tokens: int = 512,
    output_tokens: int = 128,
    recipe: str | Recipe | None = None,
    fidelity: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Serving:
    """What serving a language model costs.

    Three steps are simulated, with the shortest, the middle and the longest cache; all steps together follow from them by
    Simpson's rule, which is exact where a step's time is a straight line or parabola in the length of the cache.

    Args:
        model: a language model of the zoo, or ``package.module:callable`` that takes batch, seq_len, kv_len and phase.
        device, recipe, fidelity, overrides: as in ``hwsim.simulate``.
        batch, prompt_tokens, output_tokens: sizes, each at least 1.

    Raises:
        InputError: a size below one, a model that has no phases, anything the device refuses.
    """
    for name, size in (("batch", batch), ("prompt_tokens", prompt_tokens), ("output_tokens", output_tokens)):
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise InputError(f"{name}: expected an integer ≥ 1, got {size!r}")
    _check_phases(model)
    machine = get_device(device, overrides=overrides)

    def run(workload: Workload) -> Report:
        return machine.simulate(workload if recipe is None else workload.with_formats(recipe), fidelity=fidelity)

    prompt = run(workload_from(model, batch=batch, seq_len=prompt_tokens, phase="prefill"))
    steps = output_tokens - 1
    lengths = [prompt_tokens + round(share * max(0, steps - 1)) for share in (0.0, 0.5, 1.0)]
    cached = {length: workload_from(model, batch=batch, kv_len=length, phase="decode") for length in dict.fromkeys(lengths)}
    reports = {length: run(workload) for length, workload in cached.items()}
    first, middle, last = (reports[length] for length in lengths)

    def all_steps(begin: float, half: float, end: float) -> float:
        return steps * (begin + 4 * half + end) / 6

    decode = all_steps(first.time_s, middle.time_s, last.time_s)
    decode_energy = all_steps(first.energy_j, middle.energy_j, last.energy_j)
    latency = prompt.time_s + decode
    bandwidth_use = middle.bytes_offchip / (middle.time_s * middle.offchip_bandwidth_bytes_per_s)
    roles = _placed(machine, cached[lengths[-1]], recipe).bytes_by_role()
    return Serving(
        model=model,
        device=machine.name,
        recipe=prompt.recipe,
        fidelity=prompt.fidelity,
        batch=batch,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        time_to_first_token_s=prompt.time_s,
        time_per_output_token_s=decode / steps if steps else 0.0,
        first_step_s=first.time_s,
        last_step_s=last.time_s,
        latency_s=latency,
        tokens_per_s=batch * output_tokens / latency,
        decode_tokens_per_s=batch * steps / decode if steps else 0.0,
        kv_cache_bytes=roles.get("kv_cache", 0),
        weight_bytes=roles.get("weight", 0),
        prefill_mfu=prompt.utilization,
        decode_mfu=middle.utilization,
        decode_bandwidth_use=bandwidth_use if bandwidth_use <= 1 + 1e-9 else None,
        prefill_energy_j=prompt.energy_j,
        decode_energy_j=decode_energy,
        energy_per_token_j=(prompt.energy_j + decode_energy) / (batch * output_tokens),
        origin=prompt.origin["time"],
        notes=tuple(dict.fromkeys((*prompt.notes, *last.notes))),
    )


def _check_phases(model: str) -> None:
    """See that a model of the zoo is a language model."""
    from hwsim import zoo

    if model in zoo.names() and "phase" not in zoo.get(model).options:
        able = [name for name in zoo.names() if "phase" in zoo.get(name).options]
        raise InputError(f"model: {model!r} does not answer token by token; language models of the zoo: {', '.join(able)}")


def _placed(machine: Device, workload: Workload, recipe: str | Recipe | None) -> Workload:
    """The workload in the formats in which the device stores it."""
    if recipe is not None:
        return workload.with_formats(recipe)
    default = getattr(machine.spec, "default_recipe", None)
    return workload if workload.recipe or default is None else workload.with_formats(default)
