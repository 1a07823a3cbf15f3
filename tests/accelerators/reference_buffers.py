"""A product tile by tile in plain Python, through buffers whose words are written and read one by one."""

import itertools

import numpy as np


class Walk:
    """A product tile by tile, through buffers in which every word is written and read."""

    def __init__(self, layout, dataflow_rows, a, b, faults):
        self.layout, self.rows, self.faults = layout, dataflow_rows, faults
        self.feature_map = None
        self.a, self.b = a, b
        self.out = np.zeros((layout.shape.batch, layout.shape.m, layout.shape.n), int)
        self.loaded = dict.fromkeys(("input", "weight"), 0)
        self.memory = {name: np.zeros(buffer.words, int) for name, buffer in layout.buffers.items()}
        self.present = {name: {} for name in self.memory}  # tile → where its first word lies
        self.next = {name: [0, 0] for name in self.memory}  # half, first free word
        self.stay = dict.fromkeys(self.memory)

    def write(self, name, word, value):
        bits = 32 if name == "output" else 8
        code = int(value) & ((1 << bits) - 1)
        for fault in self.faults:
            if (fault.buffer, fault.word) == (name, word):
                code = code | (1 << fault.bit) if fault.kind == "stuck_at_1" else code & ~(1 << fault.bit)
        self.memory[name][word] = code - (1 << bits) if code >> (bits - 1) else code

    def place(self, name, tile, size, stays):
        """Where a tile lies; None with it if it has to be written. ``stays``: those it lies together with."""
        buffer = self.layout.buffers[name]
        if stays != self.stay[name]:
            half, _ = self.next[name]
            first = self.stay[name] is None
            half = 0 if first or not buffer.double or buffer.whole else 1 - half
            self.next[name], self.stay[name], self.present[name] = [half, half * (buffer.words // 2)], stays, {}
        if tile in self.present[name]:
            return self.present[name][tile], False
        start = self.next[name][1]
        self.present[name][tile] = start
        self.next[name][1] += size
        return start, True

    def together(self, name, batch, indices, own, third):
        """What a tile stays with: the loops outside the one that does not index it."""
        buffer = self.layout.buffers[name]
        if buffer.whole:
            return (batch,)
        if not buffer.reused:
            return (batch, *(indices[d] for d in own))
        outside = self.layout.order[: self.layout.order.index(third)]
        return (batch, *(indices[d] for d in own if d in outside))

    def tile_of_a(self, batch, indices):
        """The operand's tile as it is read, through its words: matrix elements, or a feature map's."""
        layout, rows = self.layout, self.layout.rows(indices["m"])
        own = layout.k[indices["k"]]
        block = indices["k"] // layout.taps
        stays = self.together("input", batch, {**indices, "k": block}, "mk", "n")
        nest = layout.shape.convolution
        if nest is None:
            start, new = self.place("input", (indices["m"], block), rows.size * own.size, stays)
            if new:
                self.loaded["input"] += rows.size * own.size
                for i, (row, k) in enumerate(itertools.product(rows, own)):
                    self.write("input", start + i, self.a[batch, row, k])
            return self.memory["input"][start : start + rows.size * own.size].reshape(rows.size, own.size)
        taps = list(itertools.product(*(range(size) for size in nest.kernel)))
        places = list(itertools.product(*(range(size) for size in nest.output_size)))
        sharing = layout.k[block * layout.taps : (block + 1) * layout.taps]
        channels = sorted({int(k) // len(taps) for tile in sharing for k in tile})

        def under(row, tap):
            image, out = divmod(int(row), len(places))
            at = [o * s + t * d - p[0] for o, s, t, d, p in
                  zip(places[out], nest.stride, taps[tap], nest.dilation, nest.padding, strict=True)]  # fmt: skip
            inside = all(0 <= x < size for x, size in zip(at, nest.input_size, strict=True))
            return (image, *at) if inside else None

        spots = sorted({spot for row in rows for tap in range(len(taps)) if (spot := under(row, tap)) is not None})
        start, new = self.place("input", (indices["m"], block), len(spots) * len(channels), stays)
        if new:
            self.loaded["input"] += len(spots) * len(channels)
            for i, (spot, channel) in enumerate(itertools.product(spots, channels)):
                self.write("input", start + i, self.feature_map[batch][(spot[0], channel, *spot[1:])])
        tile = np.zeros((rows.size, own.size), int)
        for (i, row), (j, k) in itertools.product(enumerate(rows), enumerate(own)):
            channel, tap = divmod(int(k), len(taps))
            spot = under(row, tap)
            if spot is not None:
                tile[i, j] = self.memory["input"][start + spots.index(spot) * len(channels) + channels.index(channel)]
        return tile

    def tile_of_b(self, batch, indices):
        own, columns = self.layout.k[indices["k"]], self.layout.columns(indices["n"])
        size = own.size * columns.size
        start, new = self.place("weight", (indices["k"], indices["n"]), size, self.together("weight", batch, indices, "kn", "m"))
        if new:
            self.loaded["weight"] += size
            for i, (k, column) in enumerate(itertools.product(own, columns)):
                self.write("weight", start + i, self.b[batch, k, column])
        return self.memory["weight"][start : start + size].reshape(own.size, columns.size)

    def run(self, multiply=lambda a, b: a @ b):
        layout = self.layout
        trips = {"m": layout.m.size, "n": layout.n.size, "k": len(layout.k)}
        for batch in range(layout.shape.batch):
            for steps in itertools.product(*(range(trips[d]) for d in layout.order)):
                indices = dict(zip(layout.order, steps, strict=True))
                a, b = self.tile_of_a(batch, indices), self.tile_of_b(batch, indices)
                rows, columns = layout.rows(indices["m"]), layout.columns(indices["n"])
                stays = self.together("output", batch, indices, "mn", "k")
                start, _ = self.place("output", (indices["m"], indices["n"]), rows.size * columns.size, stays)
                own = layout.k[indices["k"]]
                ends = [own.size] if self.rows is None else [*range(self.rows, own.size, self.rows), own.size]
                for first, last in itertools.pairwise([0, *ends]):
                    part = multiply(a[:, first:last], b[first:last])
                    for i, (r, c) in enumerate(itertools.product(range(rows.size), range(columns.size))):
                        at = batch, rows[r], columns[c]
                        self.write("output", start + i, self.out[at] + part[r, c])
                        self.out[at] = self.memory["output"][start + i]
        return self.out


def unrolled(feature_map, nest):
    """Windows (images · positions, channels · taps) of a feature map (images, channels, height, width)."""
    pad = ((0, 0), (0, 0), *nest.padding)
    wide = np.pad(feature_map, pad)
    rows = []
    for image, y, x in itertools.product(range(nest.images), *(range(size) for size in nest.output_size)):
        top, left = y * nest.stride[0], x * nest.stride[1]
        reach = [slice(at, at + (kernel - 1) * step + 1, step) for at, kernel, step in
                 zip((top, left), nest.kernel, nest.dilation, strict=True)]  # fmt: skip
        rows.append(wide[image][:, reach[0], reach[1]].reshape(-1))
    return np.array(rows)
