"""Recipes: which format each role takes in which module."""

from __future__ import annotations

import json
import re

import pytest

from numerics import InputError, Override, Recipe, get_recipe, recipe_names
from numerics.recipes import ROLES

MIXED = Recipe(
    "mixed",
    {"weight": "int8", "activation": "bf16"},
    (
        Override("layer1.0.*", {"weight": "int4"}),
        Override("layer1.*", {"activation": "fp16", "kv_cache": "e4m3fn"}),
        Override("*.head", {"weight": "fp32", "accumulator": "fp64"}),
    ),
)


def raises(text):
    return pytest.raises(InputError, match=f"^{re.escape(text)}$")


@pytest.mark.parametrize("name", recipe_names())
def test_bundled_recipes_answer_for_every_role(name):
    recipe = get_recipe(name)
    assert recipe.name == name
    assert all(recipe.format_for(role) for role in ROLES)


def test_roles_not_given_have_the_documented_defaults():
    recipe = Recipe("r", {"weight": "bf16", "activation": "fp16"})
    assert recipe.format_for("kv_cache") == recipe.format_for("gradient") == "fp16"
    assert recipe.format_for("optimizer_state") == recipe.format_for("accumulator") == "fp32"


@pytest.mark.parametrize(
    ("weight", "accumulator"),
    [
        ("int8", "int32"),
        ("uint4", "int32"),
        ("q4.4", "int32"),
        ("e4m3fn", "fp32"),
        ("mxint8", "fp32"),
    ],
)
def test_integer_weights_accumulate_in_integers(weight, accumulator):
    assert Recipe("r", {"weight": weight, "activation": weight}).format_for("accumulator") == accumulator


@pytest.mark.parametrize(
    ("role", "module", "expected"),
    [
        ("weight", "", "int8"),
        ("weight", "layer2.0.conv1", "int8"),
        ("weight", "layer1.0.conv1", "int4"),
        # The first pattern that matches decides alone: the second would give fp16.
        ("activation", "layer1.0.conv1", "bf16"),
        ("activation", "layer1.1.conv1", "fp16"),
        ("kv_cache", "layer1.1.conv1", "e4m3fn"),
        ("kv_cache", "layer2", "bf16"),
        ("gradient", "layer1.1.conv1", "fp16"),
        ("accumulator", "model.head", "fp64"),
        ("accumulator", "head", "int32"),
    ],
)
def test_overrides_apply_where_their_pattern_matches_first(role, module, expected):
    assert MIXED.format_for(role, module) == expected


def test_an_exception_comes_before_those_there_are():
    changed = MIXED.excepting("layer1.0.conv1", weight="fp64")
    assert changed.format_for("weight", "layer1.0.conv1") == "fp64"
    assert changed.format_for("weight", "layer1.0.conv2") == "int4"
    assert MIXED.format_for("weight", "layer1.0.conv1") == "int4"


def test_plain_data_reads_back_the_same():
    assert Recipe.from_dict(json.loads(json.dumps(MIXED.to_dict()))) == MIXED


@pytest.mark.parametrize("suffix", ["json", "yaml", "yml"])
def test_a_recipe_comes_from_a_file(tmp_path, suffix):
    path = tmp_path / f"mine.{suffix}"
    # JSON is YAML, too.
    path.write_text(json.dumps(MIXED.to_dict()))
    assert get_recipe(path) == get_recipe(str(path)) == MIXED


def test_a_recipe_is_given_as_it_is():
    assert get_recipe(MIXED) is MIXED


@pytest.mark.parametrize(
    ("formats", "text"),
    [
        ({"weight": "int8"}, "recipe 'r': formats.activation is missing (a format name, such as 'bf16')"),
        ({"activation": "int8"}, "recipe 'r': formats.weight is missing (a format name, such as 'bf16')"),
        (
            {"weight": "int8", "activation": "int8", "weights": "int8"},
            "recipe 'r': role: unknown name 'weights'; did you mean 'weight'?",
        ),
        (
            {"weight": "bf61", "activation": "bf16"},
            "format: unknown name 'bf61'; did you mean 'bf16'?",
        ),
    ],
)
def test_wrong_formats_are_named(formats, text):
    with pytest.raises(InputError, match=f"^{re.escape(text[:-1])}"):
        Recipe("r", formats)


GOOD = {"weight": "int8", "activation": "int8"}


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"format": GOOD}, "recipe: field: unknown name 'format'; did you mean 'formats'?"),
        ({"name": "r"}, "recipe: formats must map roles to format names, got None"),
        ({"formats": GOOD, "overrides": 3}, "recipe: overrides: expected a list of {pattern, formats}, got 3"),
        (
            {"formats": GOOD, "overrides": [{"pattern": "a"}]},
            "recipe: overrides: expected {pattern, formats}, got {'pattern': 'a'}",
        ),
        (
            {"formats": GOOD, "overrides": [{"pattern": "a", "formats": 3}]},
            "recipe: overrides: expected {pattern, formats}, got {'pattern': 'a', 'formats': 3}",
        ),
        (
            {"name": "r", "formats": GOOD, "overrides": [{"pattern": "a", "formats": {"wieght": "int4"}}]},
            "recipe 'r', modules 'a': role: unknown name 'wieght'; did you mean 'weight'?",
        ),
    ],
)
def test_wrong_data_is_named(data, text):
    with raises(text):
        Recipe.from_dict(data)


def test_an_unknown_recipe_names_the_nearest():
    with raises("recipe: unknown name 'bf61'; did you mean 'bf16' or 'fp16'?; or give a .json or .yaml file"):
        get_recipe("bf61")


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("a.json", "{", "recipe: '{path}' is not valid JSON: "),
        ("a.yaml", "a: [", "recipe: '{path}' is not valid YAML: "),
        ("a.yaml", "- 1", "recipe: '{path}' must hold a mapping with name and formats"),
        ("b.json", None, "recipe: cannot read '{path}': No such file or directory"),
    ],
)
def test_a_file_that_holds_no_recipe_is_named(tmp_path, name, content, text):
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match="^" + re.escape(text.format(path=path))) as error:
        get_recipe(path)
    assert "\n" not in str(error.value)


def test_a_role_is_one_of_the_list():
    with raises("role: unknown name 'wieght'; did you mean 'weight'?"):
        MIXED.format_for("wieght")
