"""Number formats, rounding, accumulator-exact arithmetic and low-precision training: the ground floor, which knows no machine."""

from __future__ import annotations

from numerics.encoding import BlockCodes, decode, encode
from numerics.errors import InputError
from numerics.formats import (
    BlockFormat,
    CodebookFormat,
    FixedFormat,
    FloatFormat,
    Format,
    IntFormat,
    format_names,
    get_format,
    register_format,
)
from numerics.packing import pack, unpack
from numerics.quantizer import quantize
from numerics.recipes import Override, Recipe, get_recipe, recipe_names

__all__ = [
    "BlockCodes",
    "BlockFormat",
    "CodebookFormat",
    "FixedFormat",
    "FloatFormat",
    "Format",
    "InputError",
    "IntFormat",
    "Override",
    "Recipe",
    "decode",
    "encode",
    "format_names",
    "get_format",
    "get_recipe",
    "pack",
    "quantize",
    "recipe_names",
    "register_format",
    "unpack",
]
