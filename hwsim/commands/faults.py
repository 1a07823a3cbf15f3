"""``hwsim faults``: a fault campaign on a model."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwsim.commands import _options
from numerics.errors import InputError, nearest_names, unknown_name

if TYPE_CHECKING:
    import torch

    from hwsim.faults.results import CampaignResult
    from hwsim.faults.single_bits import SingleBits
    from numerics.faults import BitFaults, Protection
    from numerics.recipes import Recipe

SUMMARY = "What bit faults do to a model's predictions: by bit-error rate, or by layer and bit."

STORE = "campaign.sqlite"
IMAGES = 16
TARGETS = {
    "weights": "weight",
    "activations": "activation",
    "accumulators": "accumulator",
    "kv_cache": "kv_cache",
    "elementwise": "elementwise",
}
PROTECTIONS = {"secded": "SecdedWords", "parity": "Parity", "duplication": "Duplication"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    # As argparse has it, a number with an exponent and a minus is an option that there is not.
    parser._negative_number_matcher = re.compile(r"^-\.?\d")
    parser.add_argument(
        "model", metavar="MODEL", help="zoo name (hwsim models), or package.module:callable that returns (module, inputs)"
    )
    parser.add_argument(
        "--format", required=True, metavar="RECIPE", help="number formats: a recipe's name or file, such as int8 or bf16"
    )
    parser.add_argument(
        "--ber", metavar="R,…", help="bit-error rates, one fault map a trial on all images; without it, one faulty bit a trial"
    )
    every = ", ".join(TARGETS)
    parser.add_argument(
        "--targets", default="weights", metavar="T,…", help=f"what fails: {every} (default: weights); accumulators need --ber"
    )
    parser.add_argument("--kind", default="flip", metavar="K", help="flip (default), stuck_at_0 or stuck_at_1")
    parser.add_argument(
        "--bits", metavar="B", help="which bits: sign, exponent, mantissa, magnitude, index, or positions as 14,15"
    )
    parser.add_argument("--modules", default="*", metavar="PATTERN", help="paths of the modules that fail (default: all)")
    parser.add_argument("--protect", metavar="P,…", help=f"protections of what fails: {', '.join(PROTECTIONS)}")
    parser.add_argument(
        "--margin", type=float, default=0.01, metavar="M", help="half the width of the interval that ends it (default: 0.01)"
    )
    parser.add_argument("--confidence", type=float, default=0.95, metavar="C", help="of every interval (default: 0.95)")
    parser.add_argument(
        "--interval",
        default="bernstein",
        metavar="I",
        help="of a mean score: bernstein (any law; default) or student (near normal)",
    )
    parser.add_argument("--max-trials", type=int, metavar="N", help="stop after so many trials (maps of each rate) at the latest")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of all faults (default: 0)")
    parser.add_argument(
        "--data", metavar="FILE", help=".npz with an array 'inputs' (images first) and, if there are any, 'labels'"
    )
    parser.add_argument("--images", type=int, metavar="N", help=f"without data: seeded inputs, so many (default: {IMAGES})")
    parser.add_argument("--checkpoint", metavar="FILE", help="weights of a zoo model (.pt or .safetensors); random otherwise")
    parser.add_argument("--workers", type=int, metavar="N", help="processes on this machine (default: 1)")
    parser.add_argument("--scheduler", metavar="tcp://…", help="a Dask scheduler's address; pip install 'hwsim[cluster]'")
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="the campaign's file, results.csv, summary.json and pictures go there"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the campaign that the folder holds")
    parser.add_argument("--json", action="store_true", help="print JSON on stdout and nothing else")


def run(arguments: argparse.Namespace) -> int:
    """Run the campaign, print what it found, and write it."""
    import json

    from hwsim.faults.campaign import Campaign
    from hwsim.jobs import JobError, JobStore
    from hwsim.jobs.executors import check_workers
    from hwsim.progress import stage

    faults = _faults(arguments)
    protections = _protections(arguments)
    _options.writable(arguments.out)
    if arguments.max_trials is not None and arguments.max_trials < 1:
        raise InputError(f"--max-trials: expected an integer ≥ 1, got {arguments.max_trials}")
    check_workers(workers=arguments.workers, executor=None, scheduler=arguments.scheduler)
    recipe = _recipe(arguments.format)
    store = Path(arguments.out) / STORE
    begun = JobStore.holds_study(store)
    if store.exists() and not arguments.resume:
        raise InputError(f"--out: {arguments.out} holds a campaign; --resume goes on with it, or choose another folder")
    with stage(f"building {arguments.model}"):
        module, inputs, labels = _subject(arguments)
    with stage("running it without faults"):
        campaign = Campaign(
            module, (inputs, labels), faults, recipe=recipe, protections=protections, margin=arguments.margin,
            confidence=arguments.confidence, seed=arguments.seed, maximum=arguments.max_trials, interval=arguments.interval,
        )  # fmt: skip
    if arguments.resume and not begun:
        sys.stderr.write(f"hwsim faults: {store} holds no campaign to resume; it begins with the first trial\n")
    try:
        result = campaign.run(store, workers=arguments.workers, scheduler=arguments.scheduler)
    except JobError as error:
        sys.stderr.write(f"hwsim faults: error: {error}\n")
        return 1
    files = result.save(arguments.out)
    if arguments.json:
        print(json.dumps(result.to_dict(), indent=1, allow_nan=False))
        return 0
    _print(result, campaign.looks.margin, arguments, files)
    if result.kind == "bits" and campaign.whole_passes_because:
        print(f"each fault took a pass of the whole network; {campaign.whole_passes_because}")
    return 0


def _print(result: CampaignResult, margin: float, arguments: argparse.Namespace, files: list[Path]) -> None:
    result.print()
    if arguments.data is None:
        print("inputs: seeded, not data; agreement says nothing of accuracy")
    if not result.within(margin):
        print(f"stopped at the last look: not every interval is within ±{100 * margin:g} %")
    print("\nwritten:")
    for file in [Path(arguments.out) / STORE, *files]:
        print(f"  {file}")


def _faults(arguments: argparse.Namespace) -> SingleBits | dict[str, list[BitFaults]]:
    from hwsim.faults.single_bits import SingleBits
    from numerics.faults import BitFaults

    targets = []
    for word in arguments.targets.split(","):
        if word not in TARGETS:
            raise unknown_name("--targets", word, TARGETS)
        if TARGETS[word] in targets:
            raise InputError(f"--targets: expected each once, got {arguments.targets}")
        targets.append(TARGETS[word])
    if arguments.ber is None and "accumulator" in targets:
        raise InputError("--targets: accumulators fail in fault maps only; give --ber, or other targets")
    bits: Any = arguments.bits
    if bits is not None and bits.replace(",", "").isdigit():
        bits = tuple(int(bit) for bit in bits.split(",") if bit)
    if arguments.ber is None:
        return SingleBits(targets=tuple(targets), kind=arguments.kind, modules=arguments.modules, bits=bits)
    rates = []
    for word in arguments.ber.split(","):
        try:
            rates.append(float(word))
        except ValueError:
            raise InputError(f"--ber: expected rates such as 1e-4,1e-3, got {word!r}") from None
    if len(set(rates)) < len(rates):
        raise InputError(f"--ber: expected each rate once, got {arguments.ber}")
    return {
        word: [BitFaults(kind=arguments.kind, target=t, modules=arguments.modules, rate=rate, bits=bits) for t in targets]
        for word, rate in zip(arguments.ber.split(","), rates, strict=True)
    }


def _recipe(given: str) -> Recipe:
    from numerics import get_recipe

    try:
        return get_recipe(given)
    except InputError as error:
        raise InputError(f"--format: {str(error).removeprefix('recipe: ')}") from None


def _protections(arguments: argparse.Namespace) -> list[Protection]:
    import numerics.faults

    found = []
    for word in (arguments.protect or "").split(",") if arguments.protect else ():
        if word not in PROTECTIONS:
            raise unknown_name("--protect", word, PROTECTIONS)
        for target in arguments.targets.split(","):
            found.append(getattr(numerics.faults, PROTECTIONS[word])(target=TARGETS[target], modules=arguments.modules))
    return found


def _subject(arguments: argparse.Namespace) -> tuple[torch.nn.Module, Any, Any]:
    """The module, its inputs and labels."""
    import torch

    from hwsim import zoo
    from hwsim.api import module_from

    images = arguments.images
    if images is not None and (images < 1 or arguments.data is not None):
        got = f"{images} with --data" if arguments.data is not None else images
        raise InputError(f"--images: expected an integer ≥ 1, without --data, got {got}")
    if ":" in arguments.model:
        if arguments.checkpoint is not None:
            raise InputError(f"--checkpoint: only zoo models load one; {arguments.model} returns its own module")
        module, inputs = module_from(arguments.model, {} if images is None else {"batch": images})
    elif arguments.model in zoo.names():
        _check_memory(arguments.model, zoo.build(arguments.model))
        module = zoo.build(arguments.model, checkpoint=arguments.checkpoint, device="cpu")
        inputs = () if arguments.data else zoo.example_inputs(arguments.model, batch=images or IMAGES, device="cpu")
    else:
        hint = nearest_names(arguments.model, zoo.names())
        raise InputError(f"model: unknown name {arguments.model!r}; {hint}; or give package.module:callable")
    if arguments.data is None:
        return module, tuple(x for x in inputs), None
    loaded = read_data(Path(arguments.data))
    return module, torch.from_numpy(loaded[0]), None if loaded[1] is None else torch.from_numpy(loaded[1])


COPIES = 3
"""Of the weights in memory: the module's, the emulation's and a quantised one."""


def _check_memory(name: str, module: torch.nn.Module) -> None:
    """See that a model's weights fit in memory; ``module`` may live on ``meta``."""
    import os

    needed = COPIES * sum(p.numel() * p.element_size() for p in module.parameters())
    have = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > have:
        raise InputError(f"model: {name} takes {needed / 1e9:.0f} GB with its emulation; this machine has {have / 1e9:.0f} GB")


def read_data(file: Path) -> tuple[Any, Any]:
    """Arrays ``inputs`` and ``labels`` (None without) of an .npz file.

    Raises:
        InputError: no such file, another kind of file, no ``inputs``, numbers of another type.
    """
    import numpy as np

    from numerics.documents import read_arrays

    if not file.is_file():
        raise InputError(f"--data: {file}: no such file")
    try:
        found = read_arrays(file)
    except InputError:
        raise InputError(f"--data: {file}: expected a .npz file with an array 'inputs'") from None
    for name in found:
        if name not in ("inputs", "labels"):
            raise unknown_name(f"--data: array in {file}", name, ("inputs", "labels"))
    if "inputs" not in found:
        raise InputError(f"--data: {file}: expected an array 'inputs', got {', '.join(sorted(found)) or 'none'}")
    inputs, labels = found["inputs"], found.get("labels")
    if inputs.dtype.kind == "f":
        inputs = inputs.astype(np.float32)
    elif inputs.dtype.kind not in "iu":
        raise InputError(f"--data: {file}: inputs: expected numbers, got {inputs.dtype}")
    if labels is not None and labels.dtype.kind not in "iu":
        raise InputError(f"--data: {file}: labels: expected integers, got {labels.dtype}")
    for name, array in (("inputs", inputs), ("labels", labels)):
        if array is not None and array.ndim < 1:
            raise InputError(f"--data: {file}: {name}: expected one for each image, got a single number")
    return inputs, None if labels is None else labels.astype(np.int64)
