"""Windows of maps (numba): what is done to each element, what differs from the golden map, pools, sums, vectors.

A window is a dense array (rows, columns, channels) of the values inside a box; what lies outside the box is as in the golden map.
Boxes are rows of a table: first and last + 1 of rows, columns and channels. Arrays are flat and are sliced where a loop runs over
them, so that numba sees indices that cannot be negative.
"""

from __future__ import annotations

import numpy as np

from hwsim.faults.incremental import layout
from hwsim.faults.incremental._tile_kernels import LANES, apart, bits, combine, fused, inner
from numerics._kernels import BY_ADDING, BY_SHIFTING, GENERAL, NEAREST_EVEN, round_element


@inner
def is_empty(box):
    """Whether nothing is in a box."""
    return box[layout.BOTTOM] <= box[layout.TOP]


@inner
def size_of(box):
    """Positions and channels of a box."""
    positions = (box[layout.BOTTOM] - box[layout.TOP]) * (box[layout.RIGHT] - box[layout.LEFT])
    return positions, box[layout.LAST] - box[layout.FIRST]


@inner
def clear_box(box):
    """Nothing is in the box."""
    for side in range(6):
        box[side] = 0


@inner
def copy_box(box, other):
    """A box as another."""
    for side in range(6):
        box[side] = other[side]


@inner
def set_box(box, top, bottom, left, right, first, last):
    """Give a box its bounds."""
    box[layout.TOP], box[layout.BOTTOM] = top, bottom
    box[layout.LEFT], box[layout.RIGHT] = left, right
    box[layout.FIRST], box[layout.LAST] = first, last


# --- element by element -----------------------------------------------------------------------------------------------------


@inner
def _to_float(x, constants, row):
    """Round to a float format; whether a NaN met a format without one."""
    apart()
    p = (
        row[0], row[1], row[2], row[3], row[4], row[5], row[6], row[7], row[8], row[9], row[10], row[11], row[12], row[13],
        row[14], row[15], row[16],
    )  # fmt: skip
    scale = constants[layout.SCALE]
    scaled, back = constants[layout.SCALED] != 0, constants[layout.BACK] != 0
    keep, how, chance = constants[layout.KEEP_INFINITE] != 0, row[layout.HOW], np.uint64(0)
    if scaled:
        for i in range(x.size):
            x[i] = x[i] / scale
    bad = np.uint32(0)
    if row[layout.LACKS_NAN]:
        for i in range(x.size):
            bad |= np.uint32((bits(x[i]) & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000))
    if how == BY_ADDING and not keep:
        for i in range(x.size):
            x[i] = round_element(x[i], chance, p, NEAREST_EVEN, BY_ADDING)
    elif how == BY_SHIFTING and not keep:
        for i in range(x.size):
            x[i] = round_element(x[i], chance, p, NEAREST_EVEN, BY_SHIFTING)
    else:
        for i in range(x.size):
            rounded = round_element(x[i], chance, p, NEAREST_EVEN, GENERAL)
            infinite = (bits(x[i]) & np.uint32(0x7FFFFFFF)) == np.uint32(0x7F800000)
            x[i] = x[i] if keep and infinite else rounded
    if back:
        for i in range(x.size):
            x[i] = x[i] * scale
    return bad != 0


@inner
def _to_steps(x, constants):
    """Round to multiples of a step; whether there was a NaN."""
    apart()
    scale, low, high, magic = (
        constants[layout.SCALE], constants[layout.LOW], constants[layout.HIGH], constants[layout.MAGIC],
    )  # fmt: skip
    scaled, back = constants[layout.SCALED] != 0, constants[layout.BACK] != 0
    keep = constants[layout.KEEP_INFINITE] != 0
    bad = np.uint32(0)
    factor = scale if back else np.float32(1.0)
    if not scaled:
        scale = np.float32(1.0)
    for i in range(x.size):
        value = x[i]
        magnitude = bits(value) & np.uint32(0x7FFFFFFF)
        bad |= np.uint32(magnitude > np.uint32(0x7F800000))
        rounded = value / scale
        rounded = rounded if rounded > low else low
        rounded = rounded if rounded < high else high
        rounded = ((rounded + magic) - magic) * factor
        x[i] = value if keep and magnitude == np.uint32(0x7F800000) else rounded
    return bad != 0


_BLOCK = 4096
"""Elements that all operations are done on before the next ones, so that they stay in the first-level cache."""


@inner
def _apply(window, positions, channels, first_channel, operations, begin, end, constants, formats):
    """The same for some positions."""
    apart()
    bad = False
    one = channels == 1
    for number in range(begin, end):
        kind, a, b = operations[number, 0], operations[number, 1], operations[number, 2]
        if kind == layout.TO_STEPS:
            bad |= _to_steps(window, constants[a : a + layout.ROUND_CONSTANTS])
        elif kind == layout.TO_FLOAT:
            bad |= _to_float(window, constants[a : a + layout.ROUND_CONSTANTS], formats[b])
        elif kind == layout.RELU:
            zero = np.float32(0.0)
            for i in range(window.size):
                window[i] = zero if window[i] < zero else window[i]
        elif kind == layout.CLAMP:
            low, high = constants[a], constants[a + 1]
            for i in range(window.size):
                value = low if window[i] < low else window[i]
                window[i] = high if value > high else value
        elif kind == layout.TIMES:
            factor = constants[a]
            for i in range(window.size):
                window[i] *= factor
        elif kind == layout.TIMES_CHANNEL:
            by = constants[a + first_channel : a + first_channel + channels]
            if one:
                for i in range(window.size):
                    window[i] *= by[0]
            else:
                for place in range(positions):
                    row = window[place * channels : place * channels + channels]
                    for j in range(channels):
                        row[j] *= by[j]
        elif kind == layout.PLUS_CHANNEL:
            by = constants[a + first_channel : a + first_channel + channels]
            if one:
                for i in range(window.size):
                    window[i] += by[0]
            else:
                for place in range(positions):
                    row = window[place * channels : place * channels + channels]
                    for j in range(channels):
                        row[j] += by[j]
        else:
            by = constants[a + first_channel : a + first_channel + channels]
            plus = constants[b + first_channel : b + first_channel + channels]
            for place in range(positions):
                row = window[place * channels : place * channels + channels]
                if kind == layout.AFFINE:
                    for j in range(channels):
                        row[j] = row[j] * by[j] + plus[j]
                else:
                    for j in range(channels):
                        row[j] = fused(row[j], by[j], plus[j])
    return bad


@inner
def apply(window, positions, channels, first_channel, operations, begin, end, constants, formats):
    """Operations ``begin`` to ``end`` on a flat window (positions, channels), in place; whether a NaN had no place."""
    apart()
    bad = False
    some = max(1, _BLOCK // channels)
    for first in range(0, positions, some):
        last = min(first + some, positions)
        part = window[first * channels : last * channels]
        bad |= _apply(part, last - first, channels, first_channel, operations, begin, end, constants, formats)
    return bad


# --- against the golden map -------------------------------------------------------------------------------------------------


@inner
def _differs(window, start, golden, at, count):
    """Whether any bit of so many numbers of two arrays differs."""
    row, other = window[start : start + count], golden[at : at + count]
    found = np.uint32(0)
    for i in range(count):
        found |= bits(row[i]) ^ bits(other[i])
    return found != 0


@inner
def shrink(window, box, golden, width, depth):
    """Shrink a window to the rows and columns of what differs in any bit from the golden map (…, width, depth); both are flat."""
    apart()
    y0, x0, c0 = box[layout.TOP], box[layout.LEFT], box[layout.FIRST]
    columns, channels = box[layout.RIGHT] - x0, box[layout.LAST] - c0
    top, bottom, left, right = box[layout.BOTTOM], y0, columns, 0
    for y in range(y0, box[layout.BOTTOM]):
        start, at = (y - y0) * columns * channels, (y * width + x0) * depth + c0
        found = False
        # Columns between two that are known to differ need not be looked at, unless the row's others are equal.
        for j in range(left):
            if _differs(window, start + j * channels, golden, at + j * depth, channels):
                left, found = j, True
                break
        if left == columns:
            continue
        for j in range(columns - 1, max(right, left) - 1, -1):
            if _differs(window, start + j * channels, golden, at + j * depth, channels):
                right, found = j + 1, True
                break
        for j in range(left, 0 if found else right):
            if _differs(window, start + j * channels, golden, at + j * depth, channels):
                found = True
                break
        if found:
            top, bottom = min(top, y), y + 1
    left, right = left + x0, right + x0
    if bottom <= top:
        clear_box(box)
        return
    kept = right - left
    if kept != columns or top != y0:
        target = 0
        for y in range(top, bottom):
            start = ((y - y0) * columns + left - x0) * channels
            for j in range(kept * channels):
                window[target + j] = window[start + j]
            target += kept * channels
    set_box(box, top, bottom, left, right, c0, c0 + channels)


@inner
def row_of(window, box, golden, width, depth, y, x, first, last):
    """Channels ``first`` to ``last`` (inside the box's) at a position: of the window where its box has it, else golden."""
    if box[layout.TOP] <= y < box[layout.BOTTOM] and box[layout.LEFT] <= x < box[layout.RIGHT]:
        channels = box[layout.LAST] - box[layout.FIRST]
        columns = box[layout.RIGHT] - box[layout.LEFT]
        start = ((y - box[layout.TOP]) * columns + x - box[layout.LEFT]) * channels + first - box[layout.FIRST]
        return window[start : start + last - first]
    start = (y * width + x) * depth
    return golden[start + first : start + last]


# --- steps that are no products ---------------------------------------------------------------------------------------------


@inner
def reach(low, high, kernel, stride, pad, dilation, count):
    """The outputs, first and last + 1, that see any of the inputs ``low`` to ``high`` along one axis."""
    first = -((-(low + pad - (kernel - 1) * dilation)) // stride)
    return max(first, 0), min((high - 1 + pad) // stride + 1, count)


@inner
def output_box(step, source, rows, columns, first, last, target):
    """The box of outputs (of ``rows`` × ``columns``) that see a box of inputs."""
    top, bottom = reach(
        source[layout.TOP], source[layout.BOTTOM], step[layout.KERNEL_Y], step[layout.STRIDE_Y], step[layout.PAD_Y],
        step[layout.DILATION_Y], rows,
    )  # fmt: skip
    left, right = reach(
        source[layout.LEFT], source[layout.RIGHT], step[layout.KERNEL_X], step[layout.STRIDE_X], step[layout.PAD_X],
        step[layout.DILATION_X], columns,
    )  # fmt: skip
    if bottom <= top or right <= left:
        clear_box(target)
    else:
        set_box(target, top, bottom, left, right, first, last)


@inner
def pool(step, source, window, golden, value, target, out):
    """The maximum or the average of windows, added up row by row; NaN wins, as in torch."""
    apart()
    channels = target[layout.LAST] - target[layout.FIRST]
    maximum = step[layout.KIND] == layout.MAX_POOL
    place = 0
    for oy in range(target[layout.TOP], target[layout.BOTTOM]):
        y0 = oy * step[layout.STRIDE_Y] - step[layout.PAD_Y]
        for ox in range(target[layout.LEFT], target[layout.RIGHT]):
            x0 = ox * step[layout.STRIDE_X] - step[layout.PAD_X]
            total = out[place : place + channels]
            place += channels
            for j in range(channels):
                total[j] = -np.inf if maximum else 0.0
            inside = 0
            for ky in range(step[layout.KERNEL_Y]):
                y = y0 + ky * step[layout.DILATION_Y]
                if y < 0 or y >= value[layout.ROWS]:
                    continue
                for kx in range(step[layout.KERNEL_X]):
                    x = x0 + kx * step[layout.DILATION_X]
                    if x < 0 or x >= value[layout.COLUMNS]:
                        continue
                    inside += 1
                    row = row_of(
                        window, source, golden, value[layout.COLUMNS], value[layout.CHANNELS], y, x, target[layout.FIRST],
                        target[layout.LAST],
                    )  # fmt: skip
                    whole = channels // LANES
                    combine(total, row, whole, maximum)
                    for j in range(whole * LANES, channels):
                        if maximum:
                            total[j] = row[j] if row[j] > total[j] or row[j] != row[j] else total[j]
                        else:
                            total[j] += row[j]
            if maximum:
                continue
            if step[layout.DIVIDE] == layout.BY_SIDES:
                rows, columns = np.float32(step[layout.KERNEL_Y]), np.float32(step[layout.KERNEL_X])
                for j in range(channels):
                    total[j] = total[j] / rows / columns
            else:
                count = inside
                if step[layout.DIVIDE] == layout.BY_SIZE:
                    bottom = min(y0 + step[layout.KERNEL_Y], value[layout.ROWS] + step[layout.PAD_Y])
                    right = min(x0 + step[layout.KERNEL_X], value[layout.COLUMNS] + step[layout.PAD_X])
                    count = (bottom - y0) * (right - x0)
                by = np.float32(count)
                for j in range(channels):
                    total[j] = total[j] / by


@inner
def add(value, box_a, window_a, golden_a, box_b, window_b, golden_b, target, out):
    """The sum of two maps of one shape, inside the box that holds both changes."""
    apart()
    if is_empty(box_a):
        copy_box(target, box_b)
    elif is_empty(box_b):
        copy_box(target, box_a)
    else:
        for side in range(0, 6, 2):
            target[side], target[side + 1] = min(box_a[side], box_b[side]), max(box_a[side + 1], box_b[side + 1])
    width, depth = value[layout.COLUMNS], value[layout.CHANNELS]
    first, channels = target[layout.FIRST], target[layout.LAST] - target[layout.FIRST]
    columns = target[layout.RIGHT] - target[layout.LEFT]
    place = 0
    for y in range(target[layout.TOP], target[layout.BOTTOM]):
        for x in range(target[layout.LEFT], target[layout.RIGHT]):
            at = (y * width + x) * depth + first
            row, a, b = out[place : place + channels], golden_a[at : at + channels], golden_b[at : at + channels]
            place += channels
            for j in range(channels):
                row[j] = a[j] + b[j]
    # The changed elements over the golden sums: the other operand is read where it has changed too.
    for turn in range(2):
        box, window = (box_a, window_a) if turn == 0 else (box_b, window_b)
        other_box, other_window = (box_b, window_b) if turn == 0 else (box_a, window_a)
        other_golden = golden_b if turn == 0 else golden_a
        own = box[layout.LAST] - box[layout.FIRST]
        start = 0
        for y in range(box[layout.TOP], box[layout.BOTTOM]):
            for x in range(box[layout.LEFT], box[layout.RIGHT]):
                base = ((y - target[layout.TOP]) * columns + x - target[layout.LEFT]) * channels - first
                at = (y * width + x) * depth
                inside = other_box[layout.TOP] <= y < other_box[layout.BOTTOM]
                inside = inside and other_box[layout.LEFT] <= x < other_box[layout.RIGHT]
                other_start = 0
                if inside:
                    line = (y - other_box[layout.TOP]) * (other_box[layout.RIGHT] - other_box[layout.LEFT])
                    other_start = (line + x - other_box[layout.LEFT]) * (other_box[layout.LAST] - other_box[layout.FIRST])
                for j in range(own):
                    c = box[layout.FIRST] + j
                    y_value = other_golden[at + c]
                    if inside and other_box[layout.FIRST] <= c < other_box[layout.LAST]:
                        y_value = other_window[other_start + c - other_box[layout.FIRST]]
                    out[base + c] = window[start + j] + y_value if turn == 0 else y_value + window[start + j]
                start += own


@inner
def flatten(value, source, window, golden_out, target, out):
    """A map as a vector in the order (channel, row, column); ``golden_out`` is the vector without changes."""
    apart()
    rows, columns = value[layout.ROWS], value[layout.COLUMNS]
    y0, x0, c0 = source[layout.TOP], source[layout.LEFT], source[layout.FIRST]
    first = (c0 * rows + y0) * columns + x0
    last = ((source[layout.LAST] - 1) * rows + source[layout.BOTTOM] - 1) * columns + source[layout.RIGHT]
    set_box(target, 0, 1, 0, 1, first, last)
    for i in range(last - first):
        out[i] = golden_out[first + i]
    start, channels = 0, source[layout.LAST] - c0
    for y in range(y0, source[layout.BOTTOM]):
        for x in range(x0, source[layout.RIGHT]):
            at = (c0 * rows + y) * columns + x - first
            for j in range(channels):
                out[at + j * rows * columns] = window[start + j]
            start += channels
