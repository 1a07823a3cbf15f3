"""Number formats and recipes: the ground floor, which knows no machine."""

from numerics.errors import InputError
from numerics.formats import BlockFormat, FloatFormat, Format, IntFormat, format_names, get_format
from numerics.recipes import Override, Recipe, get_recipe, recipe_names

__all__ = [
    "BlockFormat",
    "FloatFormat",
    "Format",
    "InputError",
    "IntFormat",
    "Override",
    "Recipe",
    "format_names",
    "get_format",
    "get_recipe",
    "recipe_names",
]
