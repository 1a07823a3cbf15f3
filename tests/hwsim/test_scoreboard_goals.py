"""Every measured set: its goals are met, and the documentation shows what a run gives."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwsim.scoreboard import load_target, score_target, target_files
from hwsim.views.scoreboard import scores_markdown

PAGE = Path(__file__).resolve().parents[2] / "docs" / "scoreboard.md"


def shown() -> list[str]:
    """Lines of the table in the documentation."""
    text = PAGE.read_text(encoding="utf-8")
    return [line for line in text.split("<!-- scoreboard -->")[1].splitlines() if line.startswith("|")]


@pytest.mark.parametrize("name", target_files())
def test_goals_are_met_and_the_page_is_true(name):
    target = load_target(name)
    scores = score_target(target)
    missed = [score.name for score in scores if score.met is False]
    assert not missed
    assert all(score.evidence == target.evidence for score in scores)
    expected = scores_markdown(scores).splitlines()[2:]
    assert [line for line in shown() if line.startswith(f"| `{name}/")] == expected


def test_the_page_shows_every_target_and_no_other():
    rows = [line.split("`")[1].split("/")[0] for line in shown()[2:]]
    assert list(dict.fromkeys(rows)) == list(target_files())
