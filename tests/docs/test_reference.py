"""What the reference says of fields, options and names is what the code says."""

import argparse
from collections.abc import Mapping
from importlib import metadata
from typing import Annotated, Literal

import catalogue_pages
import pytest
import spec_pages
from equations import mathml, with_equations
from markdown_text import cell, fenced, parsed, table
from pydantic import Field

from hwsim.registry import device_classes
from hwsim.spec import Count, Fraction, NotNegative, SpecPart
from numerics.errors import InputError

NAMES = [
    ("clock_hz", "Hz"),
    ("energy_pj_per_byte", "pJ/byte"),
    ("bandwidth_bytes_per_s", "bytes/s"),
    ("cycles_per_mac", "cycles/MAC"),
    ("relative_intensity_noise_db_per_hz", "dB/Hz"),
    ("rate_rad_per_root_s", "rad/√s"),
    ("temperature_k", "K"),
    ("responsivity_a_per_w", "A/W"),
    ("achieved_fraction", "share of 1"),
    ("bits", "bits"),
    # No units: how many, which one, and the short one of two timings.
    ("split_k", ""),
    ("warp_m", ""),
    ("rows", ""),
    ("t_ccd_s", ""),
    ("synaptic_operation", ""),
]


@pytest.mark.parametrize(("name", "unit"), NAMES)
def test_units_are_read_off_names(name, unit):
    assert spec_pages.unit_of(name) == unit


class Part(SpecPart):
    """A part.

    Attributes:
        rows, columns: its size.
        share: of what there is,
            all of it included.
    """

    rows: Count
    columns: Count = 4
    share: Fraction = 1.0


class Whole(Part):
    """A whole of parts."""

    kind: Literal["whole", "half"]
    parts: Mapping[str, Part] = Field(default_factory=dict, description="by name")
    energy_pj: NotNegative | None = None
    few: Annotated[tuple[int, ...], Field(min_length=1)] = (1,)


def test_a_table_of_fields_says_what_the_model_checks():
    lines = spec_pages.field_table(Whole).splitlines()
    assert lines[2:] == [
        "| `rows` | whole number ≥ 1 |  | *required* | its size. |",
        "| `columns` | whole number ≥ 1 |  | `4` | its size. |",
        "| `share` | number > 0, ≤ 1 |  | `1` | of what there is, all of it included. |",
        "| `kind` | `whole` or `half` |  | *required* |  |",
        "| `parts` | mapping: text → [Part](#part) |  | none | by name |",
        "| `energy_pj` | number ≥ 0 or nothing | pJ | none |  |",
        "| `few` | list of whole number, at least 1 entry |  | `[1]` |  |",
    ]
    assert spec_pages.all_models(Whole) == [Whole, Part]


@pytest.mark.parametrize("kind", sorted(device_classes()))
def test_a_page_of_a_kind_is_whole(kind):
    """The page has a row for each field, says which are required, and has every bundled spec."""
    page = spec_pages.kind_page(kind, device_classes()[kind])
    model = device_classes()[kind].spec_class
    for name, info in model.model_fields.items():
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")][:1]
        assert ("*required*" in row) == info.is_required()
    assert page.count("??? abstract") == len(device_classes()[kind].bundled())


def test_every_option_of_every_command_has_a_text():
    for entry in metadata.entry_points(group="hwsim.commands"):
        if entry.dist is None or entry.dist.name != "hwsim":
            continue
        parser = argparse.ArgumentParser()
        entry.load().add_arguments(parser)
        shown = catalogue_pages.options_table(entry.name)
        for line in shown.splitlines()[2:]:
            assert line.removesuffix("|").split(" | ")[-1].strip(), f"hwsim {entry.name}: {line}"
    shared = {row.split("`")[1].split()[0] for row in catalogue_pages.options_table("model").splitlines()[2:]}
    assert {"--batch", "--phase"} <= shared
    assert "--batch" not in catalogue_pages.options_table("run")
    assert "--device" in catalogue_pages.options_table("run")


def test_docstrings_come_apart():
    about = parsed(
        """What it is, ``a * b``.

        More, with <angles>.

        >>> 1 + 1
        2

        Args:
            x, y: numbers,
                two of them.
            **rest: others.

        Returns:
            int, shape (n,).

        Raises:
            InputError: none.
        """
    )
    assert about.first == "What it is, `a * b`."
    assert "&lt;angles>" in about.text
    assert "```pycon\n>>> 1 + 1\n2\n```" in about.text
    assert about.sections["Args"] == {"x, y": "numbers, two of them.", "**rest": "others."}
    assert about.sections["Returns"] == {"": "int, shape (n,)."}
    assert about.sections["Raises"] == {"InputError": "none."}
    assert parsed(InputError).first


def test_tables_keep_bars_in_code():
    assert cell("a | b `c | d`\n e") == r"a \| b `c | d` e"
    assert table(("a", "b"), [(1, "x|y")], "lr") == "| a | b |\n| --- | --: |\n| 1 | x\\|y |\n"
    assert fenced("```\nx\n```", "md").startswith("````md\n")


def test_equations_become_mathml():
    page = with_equations('<p><span class="arithmatex">\\(a &lt; b\\)</span></p><div class="arithmatex">\\[\\frac{1}{2}\\]</div>')
    assert "arithmatex" not in page
    assert page.count("<math ") == 2
    assert "<mfrac>" in page
    assert 'alttext="a &lt; b"' in page
    assert 'display="block"' in page
    with pytest.raises(ValueError, match="not an equation"):
        mathml(r"\nosuchcommand{x}", "inline")
