"""A hint to the processor in compiled loops (numba): what will soon be read from memory."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LINE_BYTES = 64


@intrinsic
def prefetch(typing_context, array, index):
    """Have the cache line of ``array[index]`` fetched; nothing waits for it, and no value depends on it. 0 ≤ index < size."""

    def generate(context, builder, signature, arguments):
        kind = signature.args[0]
        data = context.make_array(kind)(context, builder, arguments[0])
        pointer = cgutils.get_item_pointer(context, builder, kind, data, [arguments[1]], wraparound=False)
        byte_pointer, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        hint = builder.module.declare_intrinsic(
            "llvm.prefetch", (byte_pointer,), ir.FunctionType(ir.VoidType(), (byte_pointer, number, number, number))
        )
        # To read; to be kept in the second-level cache; data.
        builder.call(hint, (builder.bitcast(pointer, byte_pointer), *(ir.Constant(number, n) for n in (0, 2, 1))))
        return context.get_dummy_value()

    return types.void(array, index), generate
