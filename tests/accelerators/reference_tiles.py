"""The tile search of the tensor engine in plain Python: tiles are dealt to units one by one, waves visited one by one."""

import math


def wave_bytes(rows, columns, height, width, strips, sizes, whole, cap, along):
    """Off-chip bytes of both operands when waves of height × width tiles pass over rows × columns tiles, one after another.

    ``strips`` are the bytes of a wave's panels, ``whole`` the bytes of all panels of an operand, ``sizes`` those that one reading
    of the operand takes. ``along``: a row of waves at a time, or a column.
    """
    (strip_a, strip_b), (whole_a, whole_b), (a, b) = strips, whole, sizes
    kept = min(1.0, cap / (strip_a + strip_b))
    tall, wide = math.ceil(rows / height), math.ceil(columns / width)
    read_a = read_b = 0.0  # in readings of the whole operand
    for outer in range(tall if along else wide):
        for inner in range(wide if along else tall):
            row, column = (outer, inner) if along else (inner, outer)
            share_a, share_b = 1 / tall, 1 / wide
            if along:
                read_a += share_a * (1.0 if column == 0 else 1.0 - kept)
                read_b += share_b * (1.0 if row == 0 else 1.0 - min(1.0, cap / whole_b))
            else:
                read_b += share_b * (1.0 if row == 0 else 1.0 - kept)
                read_a += share_a * (1.0 if column == 0 else 1.0 - min(1.0, cap / whole_a))
    return read_a * a + read_b * b


def _even(size, parts):
    """A size in equal whole parts, the first ones larger by one where it does not divide."""
    return [size // parts + (i < size % parts) for i in range(parts)]


def _rounded(size, step):
    return math.ceil(size / step) * step


def best_work(spec, shape, *, macs_per_cycle, off_bps, width=2, kernel=None):
    """Least seconds over all tiles and splits of a product in one format of ``width`` bytes, sums in fp32, no limit of power.

    ``kernel``: a ``KernelSpec`` whose efficiency, overlap and packing count; on the lanes, one result of one product at a time.
    """
    batch, m, n, k = shape
    matrix, memory, clock = spec.matrix, spec.memory, spec.clock_hz
    step = matrix.k_step_bytes // width
    found = []
    packed = 0.0
    if kernel is not None and kernel.pack_bytes_per_cycle and m > 1 and n > 1:
        packed = batch * (m * k + k * n) * width / kernel.pack_bytes_per_cycle / clock
    for tile in matrix.tiles:
        sums = tile.m * tile.n * 4
        staged = matrix.stages * step * (tile.m + tile.n) * width
        if 2 * sums > memory.register_file.capacity_bytes or staged > memory.shared.capacity_bytes:
            continue
        together = int(min(memory.register_file.capacity_bytes / (2 * sums), memory.shared.capacity_bytes / staged))
        rows, columns = math.ceil(m / tile.m), math.ceil(n / tile.n)
        for split in matrix.split_k:
            if split > 1 and (k < split * step or batch * rows * columns * split > spec.units * together):
                continue
            load = [0] * spec.units
            read = 0
            deep = math.ceil(math.ceil(k / split) / step) * step
            for index in range(batch * rows * columns * split):
                load[index % spec.units] += 1
                row, column = index // columns % rows, index % columns
                high, wide = min(tile.m, m - row * tile.m), min(tile.n, n - column * tile.n)
                read += (high + wide) * width * k / split
            most = max(load)
            tall, broad = tile.m, tile.n
            if matrix.edges == "even":
                tall = max(_rounded(part, tile.warp_m) for part in _even(m, rows))
                broad = max(_rounded(part, tile.warp_n) for part in _even(n, columns))
            macs = most * tall * broad * deep
            instruction = matrix.instruction
            per_mac = 8 * width / instruction.k_bytes
            if instruction.operands == "registers":
                per_mac += width / instruction.n + width / instruction.m
            if kernel is not None:
                per_mac = 2 * width + 2 * 4
            shared = macs * width * (1 / tile.warp_m + 1 / tile.warp_n) + most * deep * (tall + broad) * width
            reached = matrix.efficiency * (kernel.efficiency if kernel is not None else 1.0)
            unit = max(
                macs / (macs_per_cycle * tile.rate_fraction * reached),
                macs * per_mac / memory.register_file.bytes_per_cycle,
                shared / memory.shared.bytes_per_cycle,
            )
            partial = 2 * split * batch * m * n * 4 if split > 1 else 0
            l2_rate = memory.l2.bytes_per_cycle * memory.l2.achieved_fraction
            l2 = max(
                (read + batch * m * n * width + partial) / l2_rate,
                most * deep * (tall + broad) * width / memory.l2.unit_bytes_per_cycle,
            )
            fills = math.ceil(most / together) + (split > 1)
            concurrent = max(1, min(rows * columns, spec.units * together // split))
            off = math.inf
            for power in range(20):
                height = min(2**power, rows)
                wide = max(1, min(columns, concurrent // height))
                strips = height * tall * k * width, wide * broad * k * width
                whole = rows * tall * k * width, columns * broad * k * width
                sizes = batch * m * k * width, batch * k * n * width
                for along in (True, False):
                    moved = wave_bytes(rows, columns, height, wide, strips, sizes, whole, memory.l2.capacity_bytes, along)
                    off = min(off, moved)
                if height >= rows or height >= concurrent:
                    break
            off += batch * m * n * width + (partial if partial > memory.l2.capacity_bytes else 0)
            busy = sum(1 for tiles in load if tiles)
            unit_bps = memory.off_chip.in_flight_bytes_per_unit / memory.off_chip.latency_s
            off_s = off / min(off_bps, busy * unit_bps)
            fill = matrix.tile_latency_s
            ahead = fill * (2 if split > 1 else 1)
            work = max(unit / clock + fill * fills, l2 / clock + ahead, off_s + ahead)
            if kernel is not None:
                work += packed / min(spec.units, batch * rows * columns * split)
                work += (1 - kernel.overlap) * min(unit / clock, off_s)
            found.append(work + (partial / 2 / l2_rate / clock if split > 1 else 0))
    return min(found)
