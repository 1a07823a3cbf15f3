"""Mutated files of every kind that a command reads, and random command lines: one line on what is wrong, or a sound answer.

Never another exception, more than ten seconds of the processor, NaN, a negative amount, parts that do not add up, a wrong or
unknown field that is taken, or another answer where the file says the same in other words. ``fuzzed(kind, 1, folder,
start=number)`` shows a mutant again. What was found so is in ``test_fuzzing_found.py``.
"""

from __future__ import annotations

import random
import re
from importlib import metadata
from pathlib import Path

import pytest
from effort import EFFORT, examples
from fuzz_binaries import BINARY_FILES
from fuzz_files import TEXT_FILES
from fuzz_kinds import COMMAND, USUAL, tally_apart, tally_of
from mutations import mutated_json, mutated_text, mutated_yaml

from hwsim.api import loaders
from hwsim.registry import device_classes


@pytest.mark.parametrize("name", USUAL)
def test_mutants(name, tmp_path, record_property):
    count = examples(USUAL[name])
    tally = (tally_of if EFFORT == 1 else tally_apart)(name, count, tmp_path)
    for figure in ("inputs", "refused", "answered"):
        record_property(figure, getattr(tally, figure))
    print(f"{name}: {tally.inputs} inputs, {tally.refused} refused, {tally.answered} answered; slowest {tally.slowest_s:.2f} s")
    shown = "\n".join(tally.defects[:20])
    assert not tally.defects, f"{len(tally.defects)} defects of {count} mutants:\n{shown}"
    assert tally.inputs == count
    # A mutator that breaks every file, or none, tries nothing.
    assert EFFORT == 1 or min(tally.refused, tally.answered) > count / 50


def test_the_long_run_tries_ten_thousand():
    makefile = (Path(__file__).parents[2] / "Makefile").read_text()
    effort = int(re.search(r"HWSIM_EFFORT=(\d+)", makefile)[1])
    assert effort * sum(USUAL.values()) >= 10_000


def test_every_kind_of_file_is_tried():
    assert {*TEXT_FILES, *BINARY_FILES, COMMAND} == set(USUAL)
    assert {f"spec_{kind}" for kind in device_classes()} <= set(USUAL)
    suffixes = {kind.suffix for kind in (*TEXT_FILES.values(), *BINARY_FILES.values())}
    assert {f".{suffix}" for suffix in loaders()} <= suffixes


def test_every_command_is_tried():
    from fuzz_command_line import command_line

    drawn = {command_line(random.Random(f"command/{number}"))[0] for number in range(400)}
    assert {entry.name for entry in metadata.entry_points(group="hwsim.commands")} <= drawn


def test_a_mutant_is_the_same_each_time():
    tree = {"a": 1, "b": {"c": [1, 2.5], "d": "x"}}
    for mutate in (mutated_yaml, mutated_json):
        drawn = [mutate(random.Random(f"one/{number}"), tree) for number in range(60)]
        assert drawn == [mutate(random.Random(f"one/{number}"), tree) for number in range(60)]
        assert len({mutant.data for mutant in drawn}) > 40
    assert mutated_text(random.Random(3), "a,b\n1,2\n") == mutated_text(random.Random(3), "a,b\n1,2\n")
    assert tree == {"a": 1, "b": {"c": [1, 2.5], "d": "x"}}
