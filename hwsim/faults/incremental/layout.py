"""How a compiled network lies in arrays: the columns of its tables, and the numbers of its kinds of steps and operations.

A *value* is a map of one image, (rows, columns, channels) with the channels innermost; a vector is a map of one position. For
each image the golden run keeps every value, the operand of every product and the sums of integer products in one flat array.
"""

from __future__ import annotations

# Columns of the table of values.
ROWS, COLUMNS, CHANNELS, GOLDEN, SCRATCH = range(5)
"""``GOLDEN``: where the value lies in an image's golden array; ``SCRATCH``: where its changed window lies in a thread's."""
VALUE_COLUMNS = 5

# Columns of the table of steps.
(
    KIND, INPUT, OTHER, OUTPUT, POST, POST_END,  # what it is, its values, the operations on its result
    KERNEL_Y, KERNEL_X, STRIDE_Y, STRIDE_X, PAD_Y, PAD_X, DILATION_Y, DILATION_X,  # of products and pools
    PRE, PRE_END, GROUPS, WEIGHTS, DEPTH, PADDED, MODE, WRAP, OPERAND, SUMS, WEIGHT_ROWS,  # of products
    DIVIDE,  # of averages
) = range(26)  # fmt: skip
"""``PRE``: the operations that quantise a product's operand. ``DEPTH``: products in a sum. ``PADDED``: output channels of a
group, in whole vectors. ``WRAP``: bits that a 32-bit sum has too many. ``OPERAND``, ``SUMS``: where they lie among the
golden. ``WEIGHT_ROWS``: weights of floats once more, (output channels, products)."""
STEP_COLUMNS = 26

# Kinds of steps.
PRODUCT, DEPTHWISE, MAX_POOL, AVERAGE, ADD, FLATTEN, POINT = range(7)

# How a product sums.
FLOATS, SMALL_INTEGERS, INTEGERS = range(3)
"""``FLOATS``: one fused multiply-add after the other. ``SMALL_INTEGERS``: integers that 32-bit floats hold exactly, in any order,
a change of all operands included. ``INTEGERS``: in 32 bits."""

# What an average divides by.
BY_SIZE, BY_INSIDE, BY_SIDES = range(3)
"""The size of the window with what its padding adds; the elements inside the map; rows, then columns."""

# Operations on a window; each has a kind and two numbers.
TIMES, TIMES_CHANNEL, PLUS_CHANNEL, AFFINE, AFFINE_FUSED, RELU, CLAMP, TO_FLOAT, TO_STEPS = range(9)
"""By a constant; by one a channel; plus one a channel; times one and plus another, rounded twice or once; x < 0 → 0; between two
constants; to a float format, to multiples of a step."""

# Constants of TO_FLOAT (beside the parameters in the table of formats) and TO_STEPS.
SCALE, SCALED, BACK, KEEP_INFINITE, LOW, HIGH, MAGIC = range(7)
"""``SCALED``: whether x / scale is rounded; ``BACK``: whether it is multiplied by the scale again."""
ROUND_CONSTANTS = 7

# Columns of the table of float formats, after the parameters of ``numerics._kernels``.
HOW, LACKS_NAN = 17, 18
FORMAT_COLUMNS = 19

# Fields of a box: what of a value changed.
TOP, BOTTOM, LEFT, RIGHT, FIRST, LAST = range(6)
"""First and last + 1 of rows, columns and channels."""

LANES = 16
"""Output channels in a vector."""

TILE_ROWS = 8
"""Output positions in a tile: as many sums as keep two adders of four cycles busy."""
