"""The lane group of ``booth`` and the folds of ``loops``, cycle by cycle, compiled."""

import numba
import numpy as np


@numba.njit(cache=True, nogil=True)
def lane_group(
    a, digits, accumulate, modulus_bits, shared_weight, offered, taken,
    sums, accepted, finished, active, counts, presented, flags, shown, adding,
):  # fmt: skip
    """Run until the last sums are taken, or for as many cycles as are recorded.

    Operands: a (products, lanes), digits (products, lanes, digits), accumulate (products,). ``offered`` and ``taken`` hold for
    their own length, then always. Results: sums (products, lanes), accepted and finished (products,), active (lanes,), counts
    (steps, input stalls, output stalls). Recorded, where their first dimension is not 0: presented (cycles,), flags (cycles, 2:
    ready, valid), shown and adding (cycles, lanes). Returns the number of cycles.
    """
    products, lanes, places = digits.shape
    cycles = flags.shape[0]
    recorded = cycles > 0
    total = np.zeros(lanes, np.int64)
    wrap = np.int64(1) << (modulus_bits - 1)
    mask = (np.int64(1) << modulus_bits) - 1
    place = np.zeros(lanes, np.int64)  # the digit that a lane adds next, ``places`` when none is left
    following = np.zeros(lanes, np.int64)
    item = -1  # the product in the lanes
    upcoming = 0
    done = -1  # the product whose sums show
    busy = False
    first = False
    valid = False
    cycle = 0
    while (cycle < cycles) if recorded else (upcoming < products or busy or valid):
        is_offered = upcoming < products and (cycle >= offered.size or offered[cycle])
        is_taken = cycle >= taken.size or taken[cycle]
        step = busy and (not valid or is_taken)
        last = True
        if busy:
            for lane in range(lanes):
                following[lane] = _next_place(digits, item, lane, place[lane] + 1, shared_weight)
                last = last and following[lane] == places
        ready = not busy or (step and last)
        if recorded:
            presented[cycle] = upcoming if is_offered else -1
            flags[cycle, 0] = ready
            flags[cycle, 1] = valid
            shown[cycle] = total
        counts[1] += is_offered and not ready
        counts[2] += busy and not step
        if step:
            counts[0] += 1
            for lane in range(lanes):
                value = np.int64(0) if first and accumulate[item] == 0 else total[lane]
                if place[lane] < places:
                    digit = np.int64(digits[item, lane, place[lane]])
                    if digit != 0:
                        active[lane] += 1
                        if recorded:
                            adding[cycle, lane] = True
                        value += (digit * a[item, lane]) << (2 * place[lane])
                total[lane] = ((value + wrap) & mask) - wrap
                place[lane] = following[lane]
            first = False
            if last:
                busy = False
        if step and last:
            valid = True
            done = item
            finished[done] = cycle + 1
            sums[done] = total
        elif is_taken:
            valid = False
        if is_offered and ready:
            item = upcoming
            accepted[item] = cycle
            upcoming += 1
            busy = True
            first = True
            for lane in range(lanes):
                place[lane] = _next_place(digits, item, lane, 0, shared_weight)
        cycle += 1
    return cycle


@numba.njit(cache=True, nogil=True)
def _next_place(digits, item, lane, start, shared_weight):
    """The lane's first digit from ``start`` on that takes a cycle."""
    lanes, places = digits.shape[1:]
    for place in range(start, places):
        if shared_weight:
            for other in range(lanes):
                if digits[item, other, place] != 0:
                    return place
        elif digits[item, lane, place] != 0:
            return place
    return places


@numba.njit(cache=True, nogil=True)
def run_fold(plain, digits, sums, depth, lanes_across, group_wide, window, shift, shared_weight):
    """One fold: every group of lanes goes through its steps digit by digit, and waits for the others after each window.

    ``plain`` (k, others), ``digits`` (k, across, places) of the recoded operand, ``sums`` (across, others), added to in place.
    Returns (cycles, digits added by any lane in any cycle).
    """
    k, others = plain.shape
    across, places = digits.shape[1:]
    steps = (k + depth - 1) // depth
    groups = (lanes_across + group_wide - 1) // group_wide
    cycles = 0
    added = 0
    step = np.empty(groups, np.int64)
    begun = np.empty(groups, np.bool_)
    done = np.zeros((lanes_across, depth, places), np.bool_)
    start = 0
    while start < steps:
        end = min(start + window, steps)
        step[:] = start
        begun[:] = False
        while step.min() < end:
            cycles += 1
            for g in range(groups):
                if step[g] == end:
                    continue  # waits for the slower groups
                first = g * group_wide
                last = min(first + group_wide, lanes_across)
                if not begun[g]:
                    done[first:last] = False
                    begun[g] = True
                chosen = places
                if shared_weight:
                    chosen = _lowest(digits, done, step[g], depth, first, last)
                for lane in range(first, last):
                    for z in range(depth):
                        row = step[g] * depth + z
                        if lane >= across or row >= k:
                            continue
                        place = chosen
                        if not shared_weight:
                            place = _lowest_of(digits, done, row, lane, z)
                        if place == places:
                            continue
                        digit = np.int64(digits[row, lane, place])
                        done[lane, z, place] = True
                        if digit != 0:
                            added += 1
                            for other in range(others):
                                sums[lane, other] += (digit * plain[row, other]) << (shift * place)
                if shared_weight:
                    left = _lowest(digits, done, step[g], depth, first, last) < places
                else:
                    left = False
                    for lane in range(first, last):
                        for z in range(depth):
                            row = step[g] * depth + z
                            if lane < across and row < k and _lowest_of(digits, done, row, lane, z) < places:
                                left = True
                if not left:
                    step[g] += 1
                    begun[g] = False
        start = end
    return cycles, added


@numba.njit(cache=True, nogil=True)
def _lowest_of(digits, done, row, lane, z):
    """The lowest place of a lane whose digit is not 0 and not yet added."""
    places = digits.shape[2]
    for place in range(places):
        if digits[row, lane, place] != 0 and not done[lane, z, place]:
            return place
    return places


@numba.njit(cache=True, nogil=True)
def _lowest(digits, done, step, depth, first, last):
    """The lowest place at which any lane of a group has a digit that is not yet added."""
    k, across, places = digits.shape
    for place in range(places):
        for lane in range(first, min(last, across)):
            for z in range(depth):
                row = step * depth + z
                if row < k and digits[row, lane, place] != 0 and not done[lane, z, place]:
                    return place
    return places
