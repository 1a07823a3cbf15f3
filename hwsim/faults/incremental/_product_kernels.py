"""Products (numba): the sums of an output window from a patch of the operand, from what changed, or with faulty weights.

Arrays of sums, patches and weights are 32-bit floats or 32-bit integers, alike in one call.
"""

from __future__ import annotations

import numpy as np

from hwsim.faults.incremental import layout
from hwsim.faults.incremental._tile_kernels import LANES, TILE_ROWS, add_scaled, apart, bits, fused, inner, row_tile, tile
from hwsim.faults.incremental._window_kernels import set_box, size_of


@inner
def gather(patch, golden, value, y0, x0, rows, columns, first, channels):
    """A patch (rows, columns, channels) of a golden map from (y0, x0, first) on, zeros outside it."""
    apart()
    height, width, depth = value[layout.ROWS], value[layout.COLUMNS], value[layout.CHANNELS]
    left = min(max(-x0, 0), columns)
    right = max(min(width - x0, columns), left)
    for i in range(rows):
        y = y0 + i
        line = patch[i * columns * channels : (i + 1) * columns * channels]
        if y < 0 or y >= height:
            for c in range(line.size):
                line[c] = 0
            continue
        for c in range(left * channels):
            line[c] = 0
        for c in range(right * channels, line.size):
            line[c] = 0
        start = (y * width + x0 + left) * depth + first
        inside = line[left * channels : right * channels]
        if channels == depth:
            source = golden[start : start + inside.size]
            for c in range(inside.size):
                inside[c] = source[c]
            continue
        for j in range(right - left):
            row, source = inside[j * channels : (j + 1) * channels], golden[start + j * depth : start + j * depth + channels]
            for c in range(channels):
                row[c] = source[c]


@inner
def overlay(patch, window, box, y0, x0, rows, columns, first, channels):
    """The window of a box over a patch."""
    apart()
    depth = box[layout.LAST] - box[layout.FIRST]
    low, high = max(box[layout.FIRST], first), min(box[layout.LAST], first + channels)
    width = box[layout.RIGHT] - box[layout.LEFT]
    for y in range(max(box[layout.TOP], y0), min(box[layout.BOTTOM], y0 + rows)):
        for x in range(max(box[layout.LEFT], x0), min(box[layout.RIGHT], x0 + columns)):
            start = ((y - box[layout.TOP]) * width + x - box[layout.LEFT]) * depth - box[layout.FIRST]
            at = ((y - y0) * columns + x - x0) * channels - first
            for c in range(low, high):
                patch[at + c] = window[start + c]


@inner
def patch_of(step, target):
    """Where the patch that an output box sees begins, and its size: (y, x, rows, columns)."""
    y0 = target[layout.TOP] * step[layout.STRIDE_Y] - step[layout.PAD_Y]
    x0 = target[layout.LEFT] * step[layout.STRIDE_X] - step[layout.PAD_X]
    rows = (target[layout.BOTTOM] - target[layout.TOP] - 1) * step[layout.STRIDE_Y]
    columns = (target[layout.RIGHT] - target[layout.LEFT] - 1) * step[layout.STRIDE_X]
    rows += (step[layout.KERNEL_Y] - 1) * step[layout.DILATION_Y] + 1
    columns += (step[layout.KERNEL_X] - 1) * step[layout.DILATION_X] + 1
    return y0, x0, rows, columns


@inner
def _offsets(step, columns, channels, offsets):
    """Where the operands of a sum lie from its first on, in the order of the sum: channel, kernel row, kernel column."""
    apart()
    ky_count, kx_count = step[layout.KERNEL_Y], step[layout.KERNEL_X]
    positions = ky_count * kx_count
    each = step[layout.DEPTH] // positions
    if positions == 1:
        for c in range(each):
            offsets[c] = c
        return
    for ky in range(ky_count):
        for kx in range(kx_count):
            start = (ky * step[layout.DILATION_Y] * columns + kx * step[layout.DILATION_X]) * channels
            k = ky * kx_count + kx
            for c in range(each):
                offsets[k + c * positions] = start + c


@inner
def _bases(step, target, columns, channels, first, stride, bases, where):
    """Where the patch of each output position begins, and where its sums go; the last is repeated to whole tiles."""
    apart()
    place = 0
    width = target[layout.RIGHT] - target[layout.LEFT]
    for i in range(target[layout.BOTTOM] - target[layout.TOP]):
        for j in range(width):
            at = (i * step[layout.STRIDE_Y] * columns + j * step[layout.STRIDE_X]) * channels + first
            bases[place], where[place] = at, place * stride
            place += 1
    while place % TILE_ROWS:
        bases[place], where[place] = bases[place - 1], where[place - 1]
        place += 1
    return place


@inner
def dense(step, target, patch, columns, channels, weights, sums, width, offsets, bases, where, group, groups):
    """All sums of an output box from its patch, for ``groups`` groups of channels from ``group`` on.

    Args:
        patch: (rows, columns, channels) of those groups.
        sums: (positions, width) in whole vectors.
    """
    apart()
    depth, padded = step[layout.DEPTH], step[layout.PADDED]
    each = depth // (step[layout.KERNEL_Y] * step[layout.KERNEL_X])
    positions, _ = size_of(target)
    if positions == 1 and each == depth:
        for g in range(groups):
            start = step[layout.WEIGHTS] + (group + g) * depth * padded
            operands, part = patch[g * each : (g + 1) * each], sums[g * padded : (g + 1) * padded]
            _dense_vector(depth, padded, operands, weights, start, part, offsets, bases)
        return
    _offsets(step, columns, channels, offsets)
    for g in range(groups):
        count = _bases(step, target, columns, channels, g * each, width, bases, where)
        start = step[layout.WEIGHTS] + (group + g) * depth * padded
        for column in range(0, padded, LANES):
            for first in range(0, count, TILE_ROWS):
                tile(
                    patch, offsets, depth, weights, start + column, padded, sums, bases, where, first, g * padded + column,
                    TILE_ROWS,
                )  # fmt: skip


@inner
def _dense_vector(depth, padded, operands, weights, start, sums, offsets, bases):
    """All sums of a vector: weights (depth, padded) from ``start`` on."""
    vectors = padded // LANES
    for k in range(depth):
        offsets[k] = k * padded
    for v in range(vectors):
        bases[v] = start + v * LANES
    whole = vectors // TILE_ROWS * TILE_ROWS
    for first in range(0, whole, TILE_ROWS):
        row_tile(weights, offsets, depth, operands, sums, bases, first, TILE_ROWS)
    for first in range(whole, vectors):
        row_tile(weights, offsets, depth, operands, sums, bases, first, 1)


@inner
def gather_planes(planes, golden, value, step, y0, x0, rows, columns, first, channels):
    """A patch as ``gather`` gives it, channel by channel, so that outputs beside each other see operands beside each other.

    (channels, rows, phases, columns / phases): column x is column x // s of phase x % s, for a stride of s.
    """
    apart()
    stride = step[layout.STRIDE_X]
    width = (columns + stride - 1) // stride
    for i in range(rows):
        y = y0 + i
        for j in range(columns):
            x = x0 + j
            inside = 0 <= y < value[layout.ROWS] and 0 <= x < value[layout.COLUMNS]
            start = (y * value[layout.COLUMNS] + x) * value[layout.CHANNELS] + first if inside else 0
            at = (i * stride + j % stride) * width + j // stride
            for c in range(channels):
                planes[at + c * rows * stride * width] = golden[start + c] if inside else 0


@inner
def channel_sums(step, planes, rows, columns, row, sums, out_rows, out_columns, offsets, bases):
    """All sums of one output channel, whose weights are ``row``: (vectors, ``LANES``), each row of outputs in whole vectors."""
    apart()
    stride = step[layout.STRIDE_X]
    width = (columns + stride - 1) // stride
    ky_count, kx_count = step[layout.KERNEL_Y], step[layout.KERNEL_X]
    if out_rows * out_columns == 1 and ky_count * kx_count == 1:
        total = sums.dtype.type(0)
        for k in range(step[layout.DEPTH]):
            total = fused(planes[k], row[k], total)
        sums[0] = total
        return
    for k in range(step[layout.DEPTH]):
        c, ky, kx = k // (ky_count * kx_count), k // kx_count % ky_count, k % kx_count * step[layout.DILATION_X]
        line = c * rows + ky * step[layout.DILATION_Y]
        offsets[k] = (line * stride + kx % stride) * width + kx // stride
    count = 0
    for oy in range(out_rows):
        for ox in range(0, out_columns, LANES):
            bases[count] = oy * step[layout.STRIDE_Y] * stride * width + ox
            count += 1
    while count % TILE_ROWS:
        bases[count] = bases[count - 1]
        count += 1
    for first in range(0, count, TILE_ROWS):
        row_tile(planes, offsets, step[layout.DEPTH], row, sums, bases, first, TILE_ROWS)


@inner
def dense_channels(step, target, patch, columns, weights, start, stride, sums):
    """The same where each channel has its own kernel: patch, weights (products, stride) from ``start`` on and sums hold the box's
    channels."""
    apart()
    channels = target[layout.LAST] - target[layout.FIRST]
    place = 0
    for i in range(target[layout.BOTTOM] - target[layout.TOP]):
        for j in range(target[layout.RIGHT] - target[layout.LEFT]):
            total = sums[place : place + channels]
            place += channels
            for c in range(channels):
                total[c] = 0
            for ky in range(step[layout.KERNEL_Y]):
                for kx in range(step[layout.KERNEL_X]):
                    y = i * step[layout.STRIDE_Y] + ky * step[layout.DILATION_Y]
                    x = j * step[layout.STRIDE_X] + kx * step[layout.DILATION_X]
                    at = (y * columns + x) * channels
                    w = start + (ky * step[layout.KERNEL_X] + kx) * stride
                    row, by = patch[at : at + channels], weights[w : w + channels]
                    for c in range(channels):
                        total[c] = fused(row[c], by[c], total[c])


@inner
def count_changes(window, box, golden, width, depth, most):
    """Elements of a window that differ from the golden map in any bit; counted by rows until there are more than ``most``."""
    apart()
    channels = box[layout.LAST] - box[layout.FIRST]
    found, start = np.int64(0), 0
    for y in range(box[layout.TOP], box[layout.BOTTOM]):
        for x in range(box[layout.LEFT], box[layout.RIGHT]):
            at = (y * width + x) * depth + box[layout.FIRST]
            row, other = window[start : start + channels], golden[at : at + channels]
            start += channels
            here = np.uint32(0)
            for c in range(channels):
                here += np.uint32(bits(row[c]) != bits(other[c]))
            found += np.int64(here)
        if found > most:
            break
    return found


@inner
def copy_part(part, box, golden, columns, depth):
    """A box of a golden map, dense (positions, channels)."""
    apart()
    channels = box[layout.LAST] - box[layout.FIRST]
    place = 0
    for y in range(box[layout.TOP], box[layout.BOTTOM]):
        for x in range(box[layout.LEFT], box[layout.RIGHT]):
            at = (y * columns + x) * depth + box[layout.FIRST]
            row, source = part[place : place + channels], golden[at : at + channels]
            place += channels
            for c in range(channels):
                row[c] = source[c]


@inner
def copy_sums(sums, target, golden, columns, depth, groups, padded, outputs):
    """Sums of a box as they are without faults, (positions, groups · padded): as ``dense`` gives them."""
    apart()
    place = 0
    for y in range(target[layout.TOP], target[layout.BOTTOM]):
        for x in range(target[layout.LEFT], target[layout.RIGHT]):
            at = (y * columns + x) * depth + target[layout.FIRST]
            for _ in range(groups):
                row, source = sums[place : place + padded], golden[at : at + outputs]
                for c in range(outputs):
                    row[c] = source[c]
                place += padded
                at += outputs


@inner
def _output_of(place, stride, count):
    """The output whose window begins at a place of the padded map; −1 for none."""
    if stride == 1:
        return place if place < count else -1
    found = place // stride
    return found if found * stride == place and found < count else -1


@inner
def _taps(step, target, y, x, into, kernel):
    """The outputs that an operand is seen from: their positions in the box, and where in the kernel it then is; how many."""
    width = target[layout.RIGHT] - target[layout.LEFT]
    count = 0
    for ky in range(step[layout.KERNEL_Y]):
        t = y + step[layout.PAD_Y] - ky * step[layout.DILATION_Y]
        oy = _output_of(t, step[layout.STRIDE_Y], target[layout.BOTTOM])
        if oy < 0:
            continue
        for kx in range(step[layout.KERNEL_X]):
            s = x + step[layout.PAD_X] - kx * step[layout.DILATION_X]
            ox = _output_of(s, step[layout.STRIDE_X], target[layout.RIGHT])
            if ox >= 0:
                into[count] = (oy - target[layout.TOP]) * width + ox - target[layout.LEFT]
                kernel[count] = ky * step[layout.KERNEL_X] + kx
                count += 1
    return count


@inner
def add_changes(step, target, window, box, golden, value, weights, sums, group, groups, into, kernel):
    """Integer sums with what the changed operands add to them.

    Args:
        target: the box of outputs, of ``groups`` groups from ``group`` on.
        window, box, golden, value: the operand's window, and its map without faults.
        sums: those without faults, as ``copy_sums`` gives them; changed in place.
        into, kernel: scratch.
    """
    apart()
    depth, padded = step[layout.DEPTH], step[layout.PADDED]
    positions = step[layout.KERNEL_Y] * step[layout.KERNEL_X]
    each = depth // positions
    channels = box[layout.LAST] - box[layout.FIRST]
    start = 0
    for y in range(box[layout.TOP], box[layout.BOTTOM]):
        for x in range(box[layout.LEFT], box[layout.RIGHT]):
            at = (y * value[layout.COLUMNS] + x) * value[layout.CHANNELS] + box[layout.FIRST]
            count = _taps(step, target, y, x, into, kernel)
            for j in range(channels):
                new, old = window[start + j], golden[at + j]
                if new == old:
                    continue
                change = change_of(new, old, sums)
                own, c = (box[layout.FIRST] + j) // each, (box[layout.FIRST] + j) % each
                column = (own - group) * padded
                row = step[layout.WEIGHTS] + (own * depth + c * positions) * padded
                for tap in range(count):
                    add_scaled(
                        sums, into[tap] * groups * padded + column, weights, row + kernel[tap] * padded, change, padded // LANES
                    )
            start += channels


@inner
def change_of(new, old, like):
    """The difference of two integers held as floats, of the type of an array."""
    return like.dtype.type(new) - like.dtype.type(old)


@inner
def weight_box(step, elements, rows, columns, target):
    """The box of outputs that faulty weights reach: their output channels, everywhere."""
    apart()
    first = last = elements[0] // step[layout.DEPTH]
    for element in elements:
        channel = element // step[layout.DEPTH]
        first, last = min(first, channel), max(last, channel)
    set_box(target, 0, rows, 0, columns, first, last + 1)


@inner
def weight_place(step, element, outputs):
    """Where a weight, counted as (output channel, product), lies among the packed ones."""
    channel, k = element // step[layout.DEPTH], element % step[layout.DEPTH]
    if step[layout.KIND] == layout.DEPTHWISE:
        return step[layout.WEIGHTS] + k * step[layout.PADDED] + channel
    group, o = channel // outputs, channel % outputs
    return step[layout.WEIGHTS] + (group * step[layout.DEPTH] + k) * step[layout.PADDED] + o


@inner
def add_weights(step, target, elements, values, golden, value, weights, sums, outputs):
    """Integer sums of whole channels with what faulty weights add to them; ``sums`` are those without, changed in place."""
    apart()
    depth, channels = step[layout.DEPTH], target[layout.LAST] - target[layout.FIRST]
    positions = step[layout.KERNEL_Y] * step[layout.KERNEL_X]
    rows, columns = target[layout.BOTTOM], target[layout.RIGHT]
    for number in range(elements.size):
        channel, k = elements[number] // depth, elements[number] % depth
        old = weights[weight_place(step, elements[number], outputs)]
        change = sums.dtype.type(values[number]) - old
        c = channel // outputs * (depth // positions) + k // positions
        ky, kx = k % positions // step[layout.KERNEL_X], k % positions % step[layout.KERNEL_X]
        for oy in range(rows):
            y = oy * step[layout.STRIDE_Y] - step[layout.PAD_Y] + ky * step[layout.DILATION_Y]
            if y < 0 or y >= value[layout.ROWS]:
                continue
            for ox in range(columns):
                x = ox * step[layout.STRIDE_X] - step[layout.PAD_X] + kx * step[layout.DILATION_X]
                if 0 <= x < value[layout.COLUMNS]:
                    code = golden[(y * value[layout.COLUMNS] + x) * value[layout.CHANNELS] + c]
                    sums[(oy * columns + ox) * channels + channel - target[layout.FIRST]] += change * sums.dtype.type(code)


@inner
def place_of(element, value):
    """Channel, row and column of an element of a map, counted in that order."""
    columns = value[layout.COLUMNS]
    place = element % (value[layout.ROWS] * columns)
    return element // (value[layout.ROWS] * columns), place // columns, place % columns


@inner
def operand_box(elements, value, box):
    """The box of some elements of a map, counted in the order (channel, row, column)."""
    apart()
    set_box(box, value[layout.ROWS], 0, value[layout.COLUMNS], 0, value[layout.CHANNELS], 0)
    for element in elements:
        c, y, x = place_of(element, value)
        box[layout.TOP], box[layout.BOTTOM] = min(box[layout.TOP], y), max(box[layout.BOTTOM], y + 1)
        box[layout.LEFT], box[layout.RIGHT] = min(box[layout.LEFT], x), max(box[layout.RIGHT], x + 1)
        box[layout.FIRST], box[layout.LAST] = min(box[layout.FIRST], c), max(box[layout.LAST], c + 1)


@inner
def place_operands(elements, values, value, golden, box, window):
    """The window of a box of a golden map, with other values of some elements."""
    apart()
    copy_part(window, box, golden, value[layout.COLUMNS], value[layout.CHANNELS])
    width, channels = box[layout.RIGHT] - box[layout.LEFT], box[layout.LAST] - box[layout.FIRST]
    for number in range(elements.size):
        c, y, x = place_of(elements[number], value)
        at = ((y - box[layout.TOP]) * width + x - box[layout.LEFT]) * channels
        window[at + c - box[layout.FIRST]] = values[number]
