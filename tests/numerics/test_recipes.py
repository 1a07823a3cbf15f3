"""Recipes: which format each role takes in which module."""

from __future__ import annotations

import json
import re

import pytest
import yaml

from numerics import FloatFormat, InputError, Override, Recipe, get_format, get_recipe, recipe_names
from numerics.accumulator import Accumulator, Promotion
from numerics.recipes import ROLES, LossScaling
from numerics.scaling import Scaling

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


# --- scales, rounding and the rest ------------------------------------------------------------------------------------------

FULL = Recipe(
    "full",
    {"weight": "int8", "activation": "e4m3fn", "gradient": "e5m2", "elementwise": "bf16", "master_weight": "bf16"},
    (Override("head", {"weight": "int4"}, {"weight": Scaling("group", 32)}), Override("stem", {"activation": "int8"})),
    scaling={"weight": Scaling("channel"), "activation": Scaling("tensor", update="delayed", history=4)},
    rounding={"gradient": "stochastic"},
    accumulation=Accumulator(format="e8m13", order="fused", group=32, fraction_bits=13, promotion=Promotion(128)),
    gradient_estimator="clipped",
    loss_scaling=LossScaling(initial=1024.0, interval=10),
    compensated=True,
    first_and_last={"weight": "fp16"},
)


@pytest.mark.parametrize("recipe", [FULL, *map(get_recipe, recipe_names())], ids=lambda r: r.name)
def test_every_field_reads_back_the_same(recipe, tmp_path):
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe.to_dict()))
    assert get_recipe(path) == recipe


def test_fields_left_alone_are_not_written():
    assert get_recipe("bf16").to_dict().keys() == {"name", "formats", "overrides"}


@pytest.mark.parametrize(
    ("role", "module", "expected"),
    [
        ("weight", "", Scaling("channel")),
        ("weight", "head", Scaling("group", 32)),
        ("activation", "", Scaling("tensor", update="delayed", history=4)),
        # Another format than the one that the scaling was given for: that format's default.
        ("activation", "stem", Scaling("tensor")),
        # A cache follows the activation; gradients and what lies between have formats of their own, and those need no scale.
        ("kv_cache", "", Scaling("tensor", update="delayed", history=4)),
        ("kv_cache", "stem", Scaling("tensor")),
        ("gradient", "", Scaling("none")),
        ("elementwise", "", Scaling("none")),
        ("accumulator", "", Scaling("none")),
    ],
)
def test_scales_by_role_and_module(role, module, expected):
    assert FULL.scaling_for(role, module) == expected


@pytest.mark.parametrize(
    ("fmt", "granularity"),
    [("int8", "tensor"), ("uint4", "tensor"), ("nf4", "tensor"), ("q4.4", "none"), ("e4m3fn", "none"), ("mxfp4", "none")],
)
def test_integers_and_codebooks_are_scaled_unless_told_otherwise(fmt, granularity):
    assert Recipe("r", {"weight": fmt, "activation": fmt}).scaling_for("weight").granularity == granularity
    told = Recipe("r", {"weight": fmt, "activation": fmt}, scaling={"weight": Scaling("none")})
    assert told.scaling_for("weight") == Scaling("none")


def test_elementwise_follows_the_activation_and_master_weights_are_fp32():
    recipe = Recipe("r", {"weight": "bf16", "activation": "fp16"}).excepting("head", activation="bf16")
    assert recipe.format_for("elementwise") == "fp16"
    assert recipe.format_for("elementwise", "head") == "bf16"
    assert recipe.format_for("master_weight") == "fp32"


def test_rounding_is_to_nearest_unless_told_otherwise():
    assert FULL.rounding_for("gradient") == "stochastic"
    assert FULL.rounding_for("weight") == "nearest_even"


def test_a_module_is_excepted_with_everything_it_computes_with():
    changed = get_recipe("int8").excepting("head", "bf16", weight="fp16")
    found = {role: changed.format_for(role, "head") for role in ROLES}
    everything = dict.fromkeys(("activation", "gradient", "kv_cache", "elementwise"), "bf16")
    assert found == everything | {"weight": "fp16", "accumulator": "fp32", "optimizer_state": "fp32", "master_weight": "fp32"}
    assert get_recipe("int8").excepting("head", "fp64").format_for("accumulator", "head") == "fp64"


def test_first_and_last_become_overrides():
    ends = FULL.with_ends("stem", "layers[0].head")
    assert ends.first_and_last is None
    assert ends.format_for("weight", "stem") == ends.format_for("weight", "layers[0].head") == "fp16"
    # What an override said of other roles stays.
    assert ends.format_for("activation", "stem") == "int8"
    assert ends.format_for("weight", "layers0.head") == "int8"
    assert get_recipe("bf16").with_ends("a", "b") is get_recipe("bf16")


# What the bundled training recipes are, by their sources.
SOURCES = {
    "bf16_mixed": {"weight": "bf16", "gradient": "bf16", "accumulator": "fp32", "master_weight": "fp32"},
    "bf16_pure": {"weight": "bf16", "optimizer_state": "bf16", "master_weight": "bf16"},
    "bf16_pure_sr": {"weight": "bf16", "optimizer_state": "bf16", "master_weight": "bf16"},
    "bf16_pure_kahan": {"weight": "bf16", "optimizer_state": "bf16", "master_weight": "bf16"},
    "fp16_loss_scaled": {"weight": "fp16", "gradient": "fp16", "master_weight": "fp32"},
    "fp8_delayed": {"weight": "e4m3fn", "activation": "e4m3fn", "gradient": "e5m2", "elementwise": "bf16"},
    "fp8_block": {"weight": "e4m3fn", "activation": "e4m3fn", "gradient": "e4m3fn", "elementwise": "bf16"},
    "mxfp8": dict.fromkeys(("weight", "activation", "gradient"), "mxfp8_e4m3"),
    "mxfp4": dict.fromkeys(("weight", "activation", "gradient"), "mxfp4"),
    "nvfp4": dict.fromkeys(("weight", "activation", "gradient"), "nvfp4"),
    "int8_qat": {"weight": "int8_symmetric", "activation": "int8", "gradient": "fp32", "accumulator": "int32"},
}


@pytest.mark.parametrize("name", SOURCES)
def test_bundled_training_recipes(name):
    recipe = get_recipe(name)
    assert {role: recipe.format_for(role) for role in SOURCES[name]} == SOURCES[name]


def test_what_else_the_training_recipes_say():
    assert get_recipe("bf16_pure_sr").rounding_for("master_weight") == "stochastic"
    assert get_recipe("bf16_pure_kahan").compensated
    assert get_recipe("fp16_loss_scaled").loss_scaling == LossScaling(initial=65536.0, growth=2.0, interval=2000, backoff=0.5)
    for role in ("weight", "activation", "gradient"):
        assert get_recipe("fp8_delayed").scaling_for(role) == Scaling("tensor", update="delayed", history=16)
    assert get_recipe("fp8_block").scaling_for("weight") == Scaling("tile", (128, 128))
    assert get_recipe("fp8_block").scaling_for("activation") == get_recipe("fp8_block").scaling_for("gradient")
    assert get_recipe("fp8_block").scaling_for("gradient") == Scaling("tile", (1, 128))
    assert get_recipe("nvfp4").rounding_for("gradient") == get_recipe("mxfp4").rounding_for("gradient") == "stochastic"
    assert get_recipe("int8_qat").gradient_estimator == "clipped"
    assert get_recipe("int8_static").formats == get_recipe("int8").formats
    assert get_recipe("int8_static").scaling_for("weight") == Scaling("channel", update="static")
    assert get_recipe("int8_static").scaling_for("activation") == Scaling("tensor", update="static")


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (
            {"scaling": {"wieght": Scaling()}},
            "recipe 'r': scaling: role: unknown name 'wieght'; did you mean 'weight'?",
        ),
        ({"scaling": {"weight": "tensor"}}, "recipe 'r': scaling.weight: expected a Scaling, got 'tensor'"),
        ({"rounding": {"weight": "nearest"}}, "recipe 'r': rounding.weight: unknown name 'nearest'; did you mean "),
        ({"rounding": {"accumulator": "up"}}, "recipe 'r': rounding: role: unknown name 'accumulator'; known: "),
        ({"gradient_estimator": "ste"}, "recipe 'r': gradient_estimator: unknown name 'ste'; "),
        ({"loss_scaling": 1024.0}, "recipe 'r': loss_scaling: expected a LossScaling or None, got 1024.0"),
        ({"compensated": 1}, "recipe 'r': compensated: expected true or false, got 1"),
        ({"first_and_last": {"weight": "bf61"}}, "format: unknown name 'bf61'; did you mean 'bf16'"),
        ({"accumulation": "hopper.wgmma.e4m4"}, "accumulator: unknown name 'hopper.wgmma.e4m4'; did you mean "),
        ({"accumulation": 3}, "recipe 'r': accumulation: expected the name of an accumulator or an Accumulator, got 3"),
    ],
)
def test_wrong_fields_are_named(fields, text):
    with pytest.raises(InputError, match="^" + re.escape(text)) as error:
        Recipe("r", GOOD, **fields)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"scaling": 3}, "recipe: scaling: expected a mapping by role, got 3"),
        ({"scaling": {"weight": 3}}, "scaling: expected a granularity or a mapping of fields, got 3"),
        ({"rounding": "up"}, "recipe: rounding: expected a mapping by role, got 'up'"),
        ({"loss_scaling": {"initial": 0}}, "loss_scaling: initial: expected a positive number, got 0"),
        ({"loss_scaling": {"growth": 0.5}}, "loss_scaling: growth: expected a number ≥ 1, got 0.5"),
        ({"loss_scaling": {"backoff": 2}}, "loss_scaling: backoff: expected a number in (0, 1], got 2"),
        ({"loss_scaling": {"interval": 0}}, "loss_scaling: interval: expected an integer ≥ 1, got 0"),
        ({"loss_scaling": {"start": 1}}, "loss_scaling: field: unknown name 'start'; "),
        ({"accumulation": {"ordre": "tree"}}, "recipe: accumulation: field: unknown name 'ordre'; did you mean 'order'?"),
        (
            {"accumulation": {"format": "e8m13", "promotion": {"every": 128}}},
            "recipe: accumulation: promotion: expected {interval, format}, got {'every': 128}",
        ),
    ],
)
def test_wrong_plain_data_is_named(fields, text):
    with pytest.raises(InputError, match="^" + re.escape(text)):
        Recipe.from_dict({"name": "r", "formats": GOOD, **fields})


def test_formats_go_by_their_own_names_however_they_were_spelled():
    recipe = Recipe("r", {"weight": "BF16", "activation": "float8_e4m3fn"}, (Override("a", {"weight": "half"}),))
    assert (recipe.formats, recipe.overrides[0].formats) == ({"weight": "bf16", "activation": "e4m3fn"}, {"weight": "fp16"})


def test_a_format_of_ones_own_serves_a_recipe():
    mine = FloatFormat("e5m3_mine", 5, 3, bias=20)
    assert Recipe("r", {"weight": mine, "activation": mine}).format_for("gradient") == "e5m3_mine"
    assert get_format("e5m3_mine") == mine
