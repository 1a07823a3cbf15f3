"""The runs (numba): of one image without faults, and of many faults, each on what it changes.

A fault changes the operand of one step. From there every step sees the windows of its inputs that changed and finds that of its
result; what turns out equal to the golden map, bit for bit, is not carried on.
"""

from __future__ import annotations

import zlib
from functools import cache
from pathlib import Path

import numpy as np
from numba import njit

from hwsim.faults.incremental import _product_kernels, _tile_kernels, _window_kernels, layout
from hwsim.faults.incremental._product_kernels import (
    add_changes,
    add_weights,
    channel_sums,
    copy_part,
    copy_sums,
    count_changes,
    dense,
    dense_channels,
    gather,
    gather_planes,
    operand_box,
    overlay,
    patch_of,
    place_operands,
    weight_box,
)
from hwsim.faults.incremental._tile_kernels import LANES, TILE_ROWS, apart, inner
from hwsim.faults.incremental._window_kernels import (
    add,
    apply,
    clear_box,
    copy_box,
    flatten,
    is_empty,
    output_box,
    pool,
    set_box,
    shrink,
    size_of,
)
from numerics import _kernels

SOURCE = zlib.crc32(
    b"".join(
        Path(str(file)).read_bytes()
        for file in (
            __file__,
            layout.__file__,
            _product_kernels.__file__,
            _tile_kernels.__file__,
            _window_kernels.__file__,
            _kernels.__file__,
        )
    )
)
"""A closure's constants are part of the key in numba's cache: kernels compiled with other sources are not found."""

OPERAND, PATCH, SUMS, BLOCK = range(4)
"""Areas of a thread's scratch array, beside the windows of the values."""

CHANGE, VECTOR = 8, 3
"""What a changed operand costs for each place in the kernel, and each vector of outputs there, where a vector of a tile costs 1
a product."""

NO_FAULT, ACTIVATION, WEIGHT = range(3)
"""What of a step is faulty."""


@inner
def copy(source, target):
    """The first numbers of one array into all of another."""
    apart()
    for i in range(target.size):
        target[i] = source[i]


@inner
def finish_sums(sums, window, positions, groups, padded, outputs, wrap):
    """Sums (positions, groups · padded) as floats (positions, groups · outputs); integers of fewer bits than 32 wrap."""
    apart()
    place = 0
    for i in range(positions):
        for g in range(groups):
            start = (i * groups + g) * padded
            row, target = sums[start : start + outputs], window[place : place + outputs]
            place += outputs
            for o in range(outputs):
                target[o] = np.float32(wrapped(row[o], wrap))


@inner
def wrapped(total, wrap):
    """An integer in two's complement of ``wrap`` bits less than 32; a float is none."""
    spare = np.int64(32 + wrap)
    return np.float32(total) if wrap == 0 else np.float32((np.int64(total) << spare) >> spare)


@inner
def changed_sums(step, value, out_value, box, target, arena, weights, scratch, golden, sums_golden, areas, indices, golden_run):
    """The sums of an output box, from the operand's window, as floats in the output's window.

    ``arena`` and ``weights`` are floats or integers as the sums are; ``scratch`` is the arena of floats.
    """
    apart()
    offsets, bases, where = indices[0], indices[1], indices[2]
    outputs = out_value[layout.CHANNELS] // step[layout.GROUPS]
    positions = step[layout.KERNEL_Y] * step[layout.KERNEL_X]
    each = step[layout.DEPTH] // positions
    size = value[layout.ROWS] * value[layout.COLUMNS] * value[layout.CHANNELS]
    window = scratch[areas[OPERAND] : areas[OPERAND] + size]
    codes = golden[step[layout.OPERAND] : step[layout.OPERAND] + size]
    depthwise = step[layout.KIND] == layout.DEPTHWISE
    first_group, end_group = box[layout.FIRST] // each, (box[layout.LAST] - 1) // each + 1
    groups = end_group - first_group
    output_box(step, box, out_value[layout.ROWS], out_value[layout.COLUMNS], first_group * outputs, end_group * outputs, target)
    if golden_run:  # outputs that see the padding only among them
        set_box(target, 0, out_value[layout.ROWS], 0, out_value[layout.COLUMNS], 0, out_value[layout.CHANNELS])
    if is_empty(target):
        return
    count, channels = size_of(target)
    out = scratch[out_value[layout.SCRATCH] : out_value[layout.SCRATCH] + count * channels]
    padded = step[layout.PADDED]
    # Floats whose channels fill whole vectors are summed where they belong.
    direct = step[layout.MODE] != layout.INTEGERS and (depthwise or groups * padded == channels)
    begin = out_value[layout.SCRATCH] if direct else areas[SUMS]
    sums = arena[begin : begin + count * channels if direct else areas[BLOCK]]
    whole = golden_run or step[layout.MODE] == layout.FLOATS or depthwise
    if not whole:
        vectors = padded // LANES
        # Tiles are whole; one position alone waits for each sum before the next.
        rows = (count + TILE_ROWS - 1) // TILE_ROWS * TILE_ROWS if count > 1 else 4
        most = rows * groups * step[layout.DEPTH] * vectors // (positions * (CHANGE + VECTOR * vectors))
        whole = count_changes(window, box, codes, value[layout.COLUMNS], value[layout.CHANNELS], most) > most
    if not whole:
        from_golden = sums_golden[step[layout.SUMS] :]
        copy_sums(sums, target, from_golden, out_value[layout.COLUMNS], out_value[layout.CHANNELS], groups, padded, outputs)
        add_changes(step, target, window, box, codes, value, weights, sums, first_group, groups, bases, where)
        if not direct:
            finish_sums(sums, out, count, groups, padded, outputs, step[layout.WRAP])
        return
    y0, x0, rows, columns = patch_of(step, target)
    depth = groups * each
    patch = arena[areas[PATCH] : areas[PATCH] + rows * columns * depth]
    gather(patch, codes, value, y0, x0, rows, columns, first_group * each, depth)
    overlay(patch, window, box, y0, x0, rows, columns, first_group * each, depth)
    if depthwise:
        start = step[layout.WEIGHTS] + target[layout.FIRST]
        dense_channels(step, target, patch, columns, weights, start, step[layout.PADDED], sums)
        if not direct:
            finish_sums(sums, out, count, 1, channels, channels, step[layout.WRAP])
    else:
        dense(step, target, patch, columns, depth, weights, sums, groups * padded, offsets, bases, where, first_group, groups)
        if not direct:
            finish_sums(sums, out, count, groups, padded, outputs, step[layout.WRAP])
    if golden_run and step[layout.MODE] != layout.FLOATS:
        start = step[layout.SUMS]
        stride = channels if depthwise else groups * step[layout.PADDED]
        for i in range(count):
            for c in range(channels):
                at = c if depthwise else c // outputs * step[layout.PADDED] + c % outputs
                sums_golden[start + i * channels + c] = sums[i * stride + at]


@inner
def changed_integers(step, value, out_value, target, arena, weights, scratch, golden, sums_golden, areas, elements, faulty):
    """The sums of integers with faulty weights, of the output channels that have such."""
    apart()
    outputs = out_value[layout.CHANNELS] // step[layout.GROUPS]
    sums = arena[areas[SUMS] : areas[BLOCK]]
    weight_box(step, elements, out_value[layout.ROWS], out_value[layout.COLUMNS], target)
    count, channels = size_of(target)
    out = scratch[out_value[layout.SCRATCH] : out_value[layout.SCRATCH] + count * channels]
    copy_part(sums, target, sums_golden[step[layout.SUMS] :], out_value[layout.COLUMNS], out_value[layout.CHANNELS])
    add_weights(step, target, elements, faulty, golden[step[layout.OPERAND] :], value, weights, sums, outputs)
    finish_sums(sums, out, count, 1, channels, channels, step[layout.WRAP])


@inner
def changed_floats(step, value, out_value, target, scratch, weights, golden, areas, indices, elements, faulty, cached, key):
    """The same for floats: these channels are computed anew, everywhere."""
    apart()
    offsets, bases = indices[0], indices[1]
    outputs = out_value[layout.CHANNELS] // step[layout.GROUPS]
    each = step[layout.DEPTH] // (step[layout.KERNEL_Y] * step[layout.KERNEL_X])
    codes = golden[step[layout.OPERAND] :]
    weight_box(step, elements, out_value[layout.ROWS], out_value[layout.COLUMNS], target)
    count, channels = size_of(target)
    out = scratch[out_value[layout.SCRATCH] : out_value[layout.SCRATCH] + count * channels]
    y0, x0, rows, columns = patch_of(step, target)
    sums, patch, row = scratch[areas[SUMS] : areas[BLOCK]], scratch[areas[PATCH] : areas[SUMS]], scratch[areas[BLOCK] :]
    depth, width = step[layout.DEPTH], out_value[layout.COLUMNS]
    vectors = (width + LANES - 1) // LANES * LANES
    for channel in range(target[layout.FIRST], target[layout.LAST]):
        group = channel // outputs
        # Faults are in the order of the images and of the steps, and see the same patch, the whole map.
        if cached[0] != key or cached[1] != group:
            gather_planes(patch, codes, value, step, y0, x0, rows, columns, group * each, each)
            cached[0], cached[1] = key, group
        copy(weights[step[layout.WEIGHT_ROWS] + channel * depth :], row[:depth])
        for number in range(elements.size):
            if elements[number] // depth == channel:
                row[elements[number] % depth] = faulty[number]
        channel_sums(step, patch, rows, columns, row, sums, out_value[layout.ROWS], width, offsets, bases)
        for i in range(out_value[layout.ROWS]):
            for j in range(width):
                out[(i * width + j) * channels + channel - target[layout.FIRST]] = sums[i * vectors + j]


@njit(nogil=True, error_model="numpy", inline="always")
def run_step(
    step, values, boxes, scratch, scratch_integers, golden, golden_integers, constants, integers, operations, formats, areas,
    indices, golden_run, fault, elements, faulty, cached, key,
):  # fmt: skip
    """One step: the window of its result; whether a NaN met a format that has none."""
    value, out_value = values[step[layout.INPUT]], values[step[layout.OUTPUT]]
    box, target = boxes[step[layout.INPUT]], boxes[step[layout.OUTPUT]]
    kind, bad = step[layout.KIND], False
    size = value[layout.ROWS] * value[layout.COLUMNS] * value[layout.CHANNELS]
    window = scratch[value[layout.SCRATCH] : value[layout.SCRATCH] + size]
    original = golden[value[layout.GOLDEN] : value[layout.GOLDEN] + size]
    out_size = out_value[layout.ROWS] * out_value[layout.COLUMNS] * out_value[layout.CHANNELS]
    out = scratch[out_value[layout.SCRATCH] : out_value[layout.SCRATCH] + out_size]
    out_original = golden[out_value[layout.GOLDEN] : out_value[layout.GOLDEN] + out_size]
    if kind == layout.PRODUCT or kind == layout.DEPTHWISE:
        if fault == WEIGHT and step[layout.MODE] == layout.FLOATS:
            changed_floats(
                step, value, out_value, target, scratch, constants, golden, areas, indices, elements, faulty, cached, key
            )
        elif fault == WEIGHT and step[layout.MODE] == layout.INTEGERS:
            changed_integers(
                step,
                value,
                out_value,
                target,
                scratch_integers,
                integers,
                scratch,
                golden,
                golden_integers,
                areas,
                elements,
                faulty,
            )
        elif fault == WEIGHT:
            changed_integers(step, value, out_value, target, scratch, constants, scratch, golden, golden, areas, elements, faulty)
        else:
            operand_window = scratch[areas[OPERAND] : areas[OPERAND] + size]
            codes = golden[step[layout.OPERAND] : step[layout.OPERAND] + size]
            operand = boxes[boxes.shape[0] - 1]
            if fault == ACTIVATION:
                operand_box(elements, value, operand)
                place_operands(elements, faulty, value, codes, operand, operand_window)
            else:
                copy_box(operand, box)
                count, channels = size_of(box)
                part = operand_window[: count * channels]
                copy(window, part)
                bad |= apply(
                    part,
                    count,
                    channels,
                    box[layout.FIRST],
                    operations,
                    step[layout.PRE],
                    step[layout.PRE_END],
                    constants,
                    formats,
                )
            if golden_run:
                copy(operand_window, codes)
            else:
                shrink(operand_window, operand, codes, value[layout.COLUMNS], value[layout.CHANNELS])
                if is_empty(operand):
                    clear_box(target)
                    return bad
            cached[0] = -1
            if step[layout.MODE] == layout.INTEGERS:
                changed_sums(
                    step, value, out_value, operand, target, scratch_integers, integers, scratch, golden, golden_integers, areas,
                    indices, golden_run,
                )  # fmt: skip
            else:
                changed_sums(
                    step,
                    value,
                    out_value,
                    operand,
                    target,
                    scratch,
                    constants,
                    scratch,
                    golden,
                    golden,
                    areas,
                    indices,
                    golden_run,
                )
    elif kind == layout.MAX_POOL or kind == layout.AVERAGE:
        output_box(step, box, out_value[layout.ROWS], out_value[layout.COLUMNS], box[layout.FIRST], box[layout.LAST], target)
        pool(step, box, window, original, value, target, out)
    elif kind == layout.ADD:
        other = values[step[layout.OTHER]]
        other_window = scratch[other[layout.SCRATCH] : other[layout.SCRATCH] + size]
        other_original = golden[other[layout.GOLDEN] : other[layout.GOLDEN] + size]
        add(value, box, window, original, boxes[step[layout.OTHER]], other_window, other_original, target, out)
    elif kind == layout.FLATTEN:
        flatten(value, box, window, out_original, target, out)
    else:
        copy_box(target, box)
        count, channels = size_of(box)
        copy(window, out[: count * channels])
    if is_empty(target):
        return bad
    count, channels = size_of(target)
    bad |= apply(
        out[: count * channels], count, channels, target[layout.FIRST], operations, step[layout.POST], step[layout.POST_END],
        constants, formats,
    )  # fmt: skip
    if golden_run:
        copy(out, out_original)
    else:
        shrink(out, target, out_original, out_value[layout.COLUMNS], out_value[layout.CHANNELS])
    return bad


@cache
def runner(source=SOURCE):
    """The kernel that runs images without faults, and faults."""

    @njit(nogil=True, cache=True, error_model="numpy")
    def run(
        first, last, golden_run, steps, values, constants, integers, operations, formats, golden, golden_integers, areas,
        scratch_size, most_indices, fault_step, fault_kind, fault_image, starts, elements, faulty, outputs, refused,
    ):  # fmt: skip
        """Images ``first`` to ``last`` without faults, their maps into ``golden``; or so many faults, into ``outputs``.

        Args:
            golden_run: which.
            steps, values, constants, integers, operations, formats: the network; see ``layout``.
            golden, golden_integers: (images, …) one array seen as floats and as integers; the inputs are in it.
            areas, scratch_size, most_indices: of a thread's scratch arrays.
            fault_step, fault_kind, fault_image: of each fault.
            starts: where its elements begin among ``elements`` and ``faulty``, its operands' new values.
            outputs: (faults, classes).
            refused: set for faults in which a NaN met a format that has none.

        Returns:
            -1, or the number of the first image in which a NaN met such a format.
        """
        version = source  # part of the cache's key
        scratch = np.empty(scratch_size + version - version, np.float32)
        scratch_integers = scratch.view(np.int32)
        indices = np.empty((3, most_indices), np.int64)
        boxes = np.zeros((values.shape[0] + 1, 6), np.int64)
        cached = np.full(2, -1, np.int64)
        none, no_values = np.empty(0, np.int64), np.empty(0, np.float32)
        result = values[values.shape[0] - 1]
        for number in range(first, last):
            image = number if golden_run else fault_image[number]
            maps, maps_integers = golden[image], golden_integers[image]
            for v in range(boxes.shape[0]):
                clear_box(boxes[v])
            begin = 0
            if golden_run:
                for v in range(values.shape[0]):
                    set_box(boxes[v], 0, values[v, layout.ROWS], 0, values[v, layout.COLUMNS], 0, values[v, layout.CHANNELS])
                entry = values[0]
                size = entry[layout.ROWS] * entry[layout.COLUMNS] * entry[layout.CHANNELS]
                copy(maps[entry[layout.GOLDEN] :], scratch[entry[layout.SCRATCH] : entry[layout.SCRATCH] + size])
            else:
                begin = fault_step[number]
            for s in range(begin, steps.shape[0]):
                step = steps[s]
                here = not golden_run and s == begin
                seen = golden_run or here or not is_empty(boxes[step[layout.INPUT]])
                if not seen and (step[layout.KIND] != layout.ADD or is_empty(boxes[step[layout.OTHER]])):
                    continue
                some, new, kind = none, no_values, NO_FAULT
                if here:
                    some, new = elements[starts[number] : starts[number + 1]], faulty[starts[number] : starts[number + 1]]
                    kind = fault_kind[number]
                    if some.size == 0:
                        break
                bad = run_step(
                    step, values, boxes, scratch, scratch_integers, maps, maps_integers, constants, integers, operations, formats,
                    areas, indices, golden_run, kind, some, new, cached, image * steps.shape[0] + s,
                )  # fmt: skip
                if bad and golden_run:
                    return number
                if bad:
                    refused[number] = True
                    break
            if golden_run:
                continue
            row, box = outputs[number], boxes[values.shape[0] - 1]
            if refused[number]:
                for c in range(row.size):
                    row[c] = np.nan
                continue
            copy(maps[result[layout.GOLDEN] :], row)
            for c in range(box[layout.LAST] - box[layout.FIRST]):
                row[box[layout.FIRST] + c] = scratch[result[layout.SCRATCH] + c]
        return -1

    return run
