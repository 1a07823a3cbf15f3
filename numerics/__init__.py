"""Number formats, rounding, accumulator-exact arithmetic and low-precision training: the ground floor, which knows no machine.

>>> import numpy, numerics
>>> numerics.quantize(numpy.float32([0.3, 272.0, 1e9]), "e4m3fn").tolist()
[0.3125, 256.0, 448.0]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from numerics._lazy import lazy_names

if TYPE_CHECKING:
    from numerics.accumulator import Accumulator, Promotion, accumulator_names, get_accumulator
    from numerics.booth import bit_weight_matmul, booth_digits, lockstep_cycles, nonzero_digits
    from numerics.calibration import calibrate
    from numerics.codebooks import CodebookFit, GroupedCodebooks, fit_codebook, fit_groups
    from numerics.ecc import Secded
    from numerics.emulation import Emulation, OperandKey, Operator, emulate
    from numerics.encoding import BlockCodes, decode, encode
    from numerics.entropy import CompressedFloats, compress, decompress, entropy_bits, field_entropy, truncate_mantissa
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
    from numerics.lfsr import Lfsr
    from numerics.loss_scaling import LossScaler
    from numerics.mac import MacPlan, mac_plan, multiply_add
    from numerics.optimizers import SGD, Adam, AdamW, Lion, Shampoo
    from numerics.packing import pack, unpack
    from numerics.products import conv2d, dot, matmul
    from numerics.quantisation_noise import sqnr, sqnr_db
    from numerics.quantizer import quantize
    from numerics.recipes import LossScaling, Override, Recipe, get_recipe, recipe_names
    from numerics.reductions import layer_norm, softmax
    from numerics.reductions import sum as sum
    from numerics.rounded import RoundedArithmetic, rounded_sum
    from numerics.scaling import Scaling
    from numerics.solvers import conjugate_gradients, iterative_refinement, lu_factor, solve_lu, solve_triangular

_HOME = {
    ".accumulator": ("Accumulator", "Promotion", "accumulator_names", "get_accumulator"),
    ".booth": ("bit_weight_matmul", "booth_digits", "lockstep_cycles", "nonzero_digits"),
    ".calibration": ("calibrate",),
    ".codebooks": ("CodebookFit", "GroupedCodebooks", "fit_codebook", "fit_groups"),
    ".ecc": ("Secded",),
    ".emulation": ("Emulation", "OperandKey", "Operator", "emulate"),
    ".encoding": ("BlockCodes", "decode", "encode"),
    ".entropy": ("CompressedFloats", "compress", "decompress", "entropy_bits", "field_entropy", "truncate_mantissa"),
    ".errors": ("InputError",),
    ".formats": (
        "BlockFormat",
        "CodebookFormat",
        "FixedFormat",
        "FloatFormat",
        "Format",
        "IntFormat",
        "format_names",
        "get_format",
        "register_format",
    ),
    ".lfsr": ("Lfsr",),
    ".loss_scaling": ("LossScaler",),
    ".mac": ("MacPlan", "mac_plan", "multiply_add"),
    ".optimizers": ("Adam", "AdamW", "Lion", "SGD", "Shampoo"),
    ".packing": ("pack", "unpack"),
    ".products": ("conv2d", "dot", "matmul"),
    ".quantisation_noise": ("sqnr", "sqnr_db"),
    ".quantizer": ("quantize",),
    ".recipes": ("LossScaling", "Override", "Recipe", "get_recipe", "recipe_names"),
    ".reductions": ("layer_norm", "softmax", "sum"),
    ".rounded": ("RoundedArithmetic", "rounded_sum"),
    ".scaling": ("Scaling",),
    ".solvers": ("conjugate_gradients", "iterative_refinement", "lu_factor", "solve_lu", "solve_triangular"),
}
__all__ = [
    "SGD",
    "Accumulator",
    "Adam",
    "AdamW",
    "BlockCodes",
    "BlockFormat",
    "CodebookFit",
    "CodebookFormat",
    "CompressedFloats",
    "Emulation",
    "FixedFormat",
    "FloatFormat",
    "Format",
    "GroupedCodebooks",
    "InputError",
    "IntFormat",
    "Lfsr",
    "Lion",
    "LossScaler",
    "LossScaling",
    "MacPlan",
    "OperandKey",
    "Operator",
    "Override",
    "Promotion",
    "Recipe",
    "RoundedArithmetic",
    "Scaling",
    "Secded",
    "Shampoo",
    "accumulator_names",
    "bit_weight_matmul",
    "booth_digits",
    "calibrate",
    "compress",
    "conjugate_gradients",
    "conv2d",
    "decode",
    "decompress",
    "dot",
    "emulate",
    "encode",
    "entropy_bits",
    "field_entropy",
    "fit_codebook",
    "fit_groups",
    "format_names",
    "get_accumulator",
    "get_format",
    "get_recipe",
    "iterative_refinement",
    "layer_norm",
    "lockstep_cycles",
    "lu_factor",
    "mac_plan",
    "matmul",
    "multiply_add",
    "nonzero_digits",
    "pack",
    "quantize",
    "recipe_names",
    "register_format",
    "rounded_sum",
    "softmax",
    "solve_lu",
    "solve_triangular",
    "sqnr",
    "sqnr_db",
    "truncate_mantissa",
    "unpack",
]


# ``numerics.sum`` is there as well, but ``from numerics import *`` leaves Python's own alone.

__getattr__, __dir__ = lazy_names(__name__, _HOME)
