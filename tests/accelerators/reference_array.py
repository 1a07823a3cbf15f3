"""The systolic array once more, in plain Python: an object for every processing element, whose registers are clocked one by one.

Written from the RTL (``systolic_ws``, ``systolic_os`` and their elements). Beyond it: several cycles a MAC, MAC latencies (the
register of a sum is then the first of a chain, and so is that of a passing weight), results that leave without drain registers,
faults. Registers hold codes; arithmetic is on Python's integers.
"""

from dataclasses import dataclass, field

INF, NAN = "inf", "nan"


# --- numbers --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Integer:
    """Two's complement; a sum wraps or is clipped."""

    bits: int
    saturate: bool = False
    one: int = 1

    def value(self, code):
        return code - (1 << self.bits) if code >> (self.bits - 1) else code

    def is_zero(self, code):
        return code == 0

    def is_nan(self, code):
        return False

    def add(self, total, a, b):
        """The code of total + a · b: a code of this format and two values."""
        exact = self.value(total) + a * b
        if self.saturate:
            exact = max(-(1 << (self.bits - 1)), min((1 << (self.bits - 1)) - 1, exact))
        return exact % (1 << self.bits)


@dataclass(frozen=True)
class Float:
    """A float of sign, exponent and mantissa. A value is (negative, magnitude, exponent): magnitude · 2^exponent, INF or NAN."""

    exponent_bits: int
    mantissa_bits: int
    has_inf: bool = True
    one: tuple = (False, 1, 0)

    @property
    def bits(self):
        return 1 + self.exponent_bits + self.mantissa_bits

    @property
    def bias(self):
        return (1 << (self.exponent_bits - 1)) - 1

    @property
    def inf(self):
        return ((1 << self.exponent_bits) - 1) << self.mantissa_bits

    @property
    def nan(self):
        """The one NaN of what is computed: the quiet one."""
        return self.inf | 1 << (self.mantissa_bits - 1) if self.has_inf else (1 << (self.bits - 1)) - 1

    def value(self, code):
        negative, magnitude = bool(code >> (self.bits - 1)), code & ((1 << (self.bits - 1)) - 1)
        top, fraction = magnitude >> self.mantissa_bits, magnitude & ((1 << self.mantissa_bits) - 1)
        if self.has_inf and magnitude >= self.inf:
            return negative, NAN if fraction else INF, 0
        if not self.has_inf and magnitude == self.nan:
            return negative, NAN, 0
        if top == 0:
            return negative, fraction, 1 - self.bias - self.mantissa_bits
        return negative, fraction | 1 << self.mantissa_bits, top - self.bias - self.mantissa_bits

    def is_zero(self, code):
        return code & ((1 << (self.bits - 1)) - 1) == 0

    def is_nan(self, code):
        return self.value(code)[1] == NAN

    def add(self, total, a, b):
        """The code of total + a · b, rounded once to nearest even: a code of this format and two values."""
        x, product = self.value(total), _product(a, b)
        if NAN in (x[1], product[1]) or (x[1] == product[1] == INF and x[0] != product[0]):
            return self.nan
        for value in (x, product):
            if value[1] == INF:
                return value[0] << (self.bits - 1) | self.inf
        lowest = min(x[2], product[2])
        exact = sum((-m if n else m) << (e - lowest) for n, m, e in (x, product))
        if exact == 0:
            return (x[0] and product[0]) << (self.bits - 1)
        return (exact < 0) << (self.bits - 1) | self._magnitude(abs(exact), lowest)

    def _magnitude(self, magnitude, exponent):
        step = max(magnitude.bit_length() + exponent - 1, 1 - self.bias) - self.mantissa_bits  # what the last place weighs
        if step <= exponent:
            whole = magnitude << (exponent - step)
        else:
            whole, rest = divmod(magnitude, 1 << (step - exponent))
            half = 1 << (step - exponent - 1)
            whole += rest > half or (rest == half and whole & 1)
        # A carry out of the mantissa, and the step from subnormal to normal numbers, run on into the exponent.
        return min(whole + ((step + self.mantissa_bits + self.bias - 1) << self.mantissa_bits), self.inf)


def _product(a, b):
    negative = a[0] != b[0]
    if NAN in (a[1], b[1]) or (INF in (a[1], b[1]) and 0 in (a[1], b[1])):
        return negative, NAN, 0
    if INF in (a[1], b[1]):
        return negative, INF, 0
    return negative, a[1] * b[1], a[2] + b[2]


# --- elements -------------------------------------------------------------------------------------------------------------


class Delay:
    """A chain of registers."""

    def __init__(self, depth, content):
        self.stages = [content] * depth

    def out(self, entering):
        return self.stages[-1] if self.stages else entering

    def clock(self, entering):
        self.stages = [entering, *self.stages][: len(self.stages)]


class Element:
    """What both kinds of elements have."""

    names = ()

    def __init__(self):
        self.toggles = dict.fromkeys(self.names, 0)
        self.zeros = self.macs = 0

    def take(self, name, code):
        """A data register takes what comes."""
        self.toggles[name] += (self.content(name) ^ code).bit_count()
        self.set(name, code)

    def content(self, name):
        return getattr(self, name)

    def set(self, name, code):
        setattr(self, name, code)

    def multiply(self, machine, activation, weight, total):
        a, b = machine.streamed.value(activation), machine.held.value(weight)
        self.macs += 1
        self.zeros += machine.streamed.is_zero(activation) or machine.held.is_zero(weight)
        found = machine.sums.add(total, a, b)
        machine.nans += machine.sums.is_nan(found)
        return found


class StationaryElement(Element):
    """``ws_element``: its sum passes ``latency`` registers on its way down, a weight that passes ``pace``."""

    names = ("activation", "weight_transport", "weight_shadow", "weight", "sum")

    def __init__(self, latency, pace):
        super().__init__()
        self.valid, self.first, self.activation = False, False, 0
        self.weight_shadow = self.weight = 0
        self.kept = False
        self.passing = [(False, False, 0)] * pace  # valid, mark, weight
        self.results = [(False, 0)] * latency

    # The registers that faults strike are the first of a chain.
    @property
    def weight_transport(self):
        return self.passing[0][2]

    @weight_transport.setter
    def weight_transport(self, code):
        self.passing[0] = (*self.passing[0][:2], code)

    @property
    def sum(self):
        return self.results[0][1]

    @sum.setter
    def sum(self, code):
        self.results[0] = self.results[0][0], code

    def shown(self):
        """What neighbours see: to the right, below (weights), below (sums)."""
        return (self.valid, self.first, self.activation), self.passing[-1], self.results[-1]

    def clock(self, machine, left, above, total):
        valid, first, activation = left
        used = self.weight_shadow if first else self.weight
        result = self.multiply(machine, activation, used, total) if valid else self.sum
        self.results = [(False, self.sum), *self.results[:-1]]
        self.passing = [(False, False, self.weight_transport), *self.passing[:-1]]
        self.valid, self.first = valid, first
        if valid:
            self.take("activation", activation)
            self.take("sum", result)
            self.results[0] = True, result
            if first:
                self.take("weight", self.weight_shadow)
        weight_valid, mark, weight = above
        if weight_valid and mark:
            self.take("weight_shadow", weight)
            self.kept = True
        elif weight_valid:
            self.take("weight_transport", weight)
            self.passing[0] = True, self.kept, weight
            self.kept = False


class OutputElement(Element):
    """``os_element``: a finished sum passes ``latency`` − 1 registers on its way to the drain."""

    names = ("activation", "weight", "sum", "drain")

    def __init__(self, latency):
        super().__init__()
        self.valid = self.first = self.last = False
        self.activation = self.weight = self.sum = self.drain = 0
        self.results = Delay(latency - 1, (False, 0))

    def finished(self):
        """Whether there is a finished sum, and it."""
        return self.results.out((self.valid and self.last, self.sum))

    def clock(self, machine, left, weight, shift, drain):
        valid, first, last, activation = left
        done, result = self.finished()
        self.results.clock((self.valid and self.last, self.sum))
        if done and machine.shifts_out:
            self.take("drain", result)
        elif shift:
            self.take("drain", drain)
        self.valid, self.first, self.last = valid, first, last
        if valid:
            self.take("sum", self.multiply(machine, activation, weight, 0 if first else self.sum))
            self.take("activation", activation)
            self.take("weight", weight)


# --- machines -------------------------------------------------------------------------------------------------------------


@dataclass
class Fault:
    kind: str
    register: str
    row: int
    column: int
    bit: int
    cycle: int | None = None
    met_nan: bool = False

    def strike(self, grid, cycle, sums):
        """Change what a register holds at the end of a cycle, and note a NaN there among the sums: it has many codes."""
        element = grid[self.row][self.column]
        code, bit = element.content(self.register), 1 << self.bit
        if self.kind == "stuck_at_1":
            element.set(self.register, code | bit)
        elif self.kind == "stuck_at_0":
            element.set(self.register, code & ~bit)
        elif cycle == self.cycle:
            element.set(self.register, code ^ bit)
        if self.register in ("sum", "drain"):
            self.met_nan |= sums.is_nan(code) or sums.is_nan(element.content(self.register))


@dataclass
class Seen:
    """What a run leaves behind; times in cycles of the clock, stalls included."""

    cycles: int = 0
    stall_cycles: int = 0
    load_begins: list = field(default_factory=list)
    stream_begins: list = field(default_factory=list)
    fold_ends: list = field(default_factory=list)
    signals: list = field(default_factory=list)  # busy, weight_ready, ready, valid, sums


@dataclass
class Machine:
    """An array: ``streamed``, ``held``, ``sums`` are the numbers that its registers hold; ``nans`` counts sums that are none."""

    rows: int
    columns: int
    streamed: Integer | Float
    held: Integer | Float
    sums: Integer | Float
    overlap: str = "full"
    latency: int = 1
    interval: int = 1
    shifts_out: bool = True
    nans: int = 0

    def play(self, array, stalls, faults):
        """Clock an array until it is no longer busy."""
        seen = array.seen
        stalled = bool(len(stalls)) and bool(stalls[0])
        seen.signals.append(array.show(stalled))
        while seen.signals[-1][0]:
            if stalled:
                seen.stall_cycles += 1
            else:
                array.collect()
                array.clock(seen.cycles)
            # Until the array first moves, its registers are those of its reset.
            for flips in (True, False) if array.moved else ():
                for fault in faults:
                    if flips == (fault.kind == "flip"):  # a stuck bit stays so
                        fault.strike(array.grid, seen.cycles, self.sums)
            seen.cycles += 1
            stalled = seen.cycles < len(stalls) and bool(stalls[seen.cycles])
            seen.signals.append(array.show(stalled))
        array.collect()
        return array

    def stationary(self, folds, stalls=(), faults=()):
        """Run weight-stationary folds: pairs of weights (rows × columns) and vectors (length × rows), all codes."""
        return self.play(StationaryArray(self, folds), stalls, faults)

    def output_stationary(self, folds, stalls=(), faults=()):
        """Run folds of pairs of vectors: (length × rows) and (length × columns) codes."""
        return self.play(OutputArray(self, folds), stalls, faults)


class Array:
    """What both kinds of arrays have: a grid, and the times of their folds."""

    def __init__(self, machine, grid, folds, length):
        self.machine, self.grid, self.folds, self.length, self.seen = machine, grid, folds, length, Seen()
        self.moved, self.shown = 0, 0  # cycles of its own, sums of the last column (of its last row) that are in their register
        self.begun = []  # its own cycles in which folds began to stream
        self.leaving_sums = [[] for _ in range(machine.columns)]
        self.align = [Delay(machine.columns - 1 - c, 0) for c in range(machine.columns)]

    @property
    def whole(self):
        """Cycles in which a fold streams."""
        return self.machine.interval * self.length

    def count_ends(self, now, sums_a_fold):
        """After a clock: which fold is over."""
        self.moved += 1
        ended = len(self.seen.fold_ends)
        if ended < len(self.begun) and self.shown >= (ended + 1) * sums_a_fold and self.moved >= self.begun[ended] + self.whole:
            self.seen.fold_ends.append(now + 1)


class StationaryArray(Array):
    """``systolic_ws``. ``leaving_sums``: by column, the sums that left at the bottom, in their order."""

    def __init__(self, machine, folds):
        rows, columns, latency = machine.rows, machine.columns, machine.latency
        pace = max(1, latency - 1)
        grid = [[StationaryElement(latency, pace) for _ in range(columns)] for _ in range(rows)]
        super().__init__(machine, grid, folds, len(folds[0][1]))
        self.to_load, self.load_left, self.stream_left, self.leaving, self.loaded = len(folds), 0, 0, 0, False
        self.row_skew = [Delay(latency * r, (False, False, 0)) for r in range(rows)]
        self.column_skew = [Delay(c, (False, False, 0)) for c in range(columns)]

    def _control(self):
        """Whether a fold begins to load, loads, begins to stream, streams; and the cycles since it began to stream."""
        m, streaming = self.machine, self.stream_left != 0
        begin_stream = self.loaded and not streaming and (m.overlap == "full" or self.leaving == 0)
        if m.overlap == "none":
            may_load = not self.loaded and not streaming and self.leaving == 0
        else:
            may_load = not self.loaded or begin_stream
        begin_load = self.to_load != 0 and self.load_left == 0 and may_load
        since = 0 if begin_stream else self.whole - self.stream_left
        return begin_load, begin_load or self.load_left != 0, begin_stream, begin_stream or streaming, since

    def show(self, stalled):
        """busy, weight_ready, ready, valid, sums."""
        _, load, _, stream, since = self._control()
        busy = self.to_load != 0 or load or self.loaded or stream or self.leaving != 0
        valid = self.grid[-1][-1].results[-1][0]
        sums = [line.out(element.results[-1][1]) for line, element in zip(self.align, self.grid[-1], strict=True)]
        ready = stream and since % self.machine.interval == 0
        return busy, load and not stalled, ready and not stalled, valid, sums if valid else [0] * len(sums)

    def clock(self, now):
        m, seen = self.machine, self.seen
        begin_load, load, begin_stream, stream, since = self._control()
        if begin_load:
            seen.load_begins.append(now)
        if begin_stream:
            seen.stream_begins.append(now)
            self.begun.append(self.moved)
        # What is taken.
        weights, vector = [0] * m.columns, [0] * m.rows
        if load:
            weights = self.folds[len(seen.load_begins) - 1][0][0 if begin_load else m.rows - self.load_left]
        enters = stream and since % m.interval == 0
        if enters:
            vector = self.folds[len(seen.stream_begins) - 1][1][since // m.interval]
        # Elements see what the others showed before the clock.
        shown = [[element.shown() for element in row] for row in self.grid]
        edge = [(enters, begin_stream, vector[r]) for r in range(m.rows)]
        top = [(load, begin_load, weights[c]) for c in range(m.columns)]
        for r, row in enumerate(self.grid):
            for c, element in enumerate(row):
                left = self.row_skew[r].out(edge[r]) if c == 0 else shown[r][c - 1][0]
                above = self.column_skew[c].out(top[c]) if r == 0 else shown[r - 1][c][1]
                element.clock(m, left, above, 0 if r == 0 else shown[r - 1][c][2][1])
        for line, element in zip(self.align, shown[-1], strict=True):
            line.clock(element[2][1])
        for line, entering in [*zip(self.row_skew, edge, strict=True), *zip(self.column_skew, top, strict=True)]:
            line.clock(entering)
        # The control's registers.
        load_end = m.rows == 1 if begin_load else self.load_left == 1
        if begin_load:
            self.to_load, self.load_left = self.to_load - 1, m.rows - 1
        elif self.load_left:
            self.load_left -= 1
        self.loaded = (load and load_end) or (self.loaded and not begin_stream)
        if stream:
            self.stream_left = self.whole - 1 - since
        if enters and since // m.interval == self.length - 1:
            self.leaving = m.latency * m.rows + m.columns - 2
        elif self.leaving:
            self.leaving -= 1
        self.shown += self.grid[-1][-1].results[-1][0]
        self.count_ends(now, self.length)

    def collect(self):
        """What is below the array takes the sums of the bottom row."""
        for sums, element in zip(self.leaving_sums, self.grid[-1], strict=True):
            valid, code = element.results[0]
            if valid:
                sums.append(code)


class OutputArray(Array):
    """``systolic_os``. ``leaving_sums``: by column, the results that left, in their order: a fold's bottom row first. Without
    drains: (row, result), as they are finished; a row's are in the order of the folds."""

    def __init__(self, machine, folds):
        rows, columns = machine.rows, machine.columns
        super().__init__(
            machine, [[OutputElement(machine.latency) for _ in range(columns)] for _ in range(rows)], folds, len(folds[0][0])
        )
        self.to_stream, self.stream_left, self.gap_left, self.leaving = len(folds), 0, 0, 0
        self.row_skew = [Delay(r, (False, False, False, 0)) for r in range(rows)]
        self.column_skew = [Delay(c, 0) for c in range(columns)]
        self.shifting, self.drained, self.shifts = [False] * columns, [False] * columns, [0] * columns

    def _control(self):
        """Whether a fold begins to stream, streams; and the cycles since it began."""
        free = self.gap_left == 0 if self.machine.overlap == "full" else self.leaving == 0
        begin = self.to_stream != 0 and self.stream_left == 0 and free
        return begin, begin or self.stream_left != 0, 0 if begin else self.whole - self.stream_left

    def show(self, stalled):
        """busy, weight_ready (never), ready, valid, sums."""
        _, stream, since = self._control()
        busy = self.to_stream != 0 or stream or self.leaving != 0
        valid = self.drained[-1]
        sums = [line.out(element.drain) for line, element in zip(self.align, self.grid[-1], strict=True)]
        ready = stream and since % self.machine.interval == 0 and not stalled
        return busy, False, ready, valid, sums if valid else [0] * len(sums)

    def clock(self, now):
        m, seen = self.machine, self.seen
        begin, stream, since = self._control()
        if begin:
            seen.load_begins.append(now)
            seen.stream_begins.append(now)
            self.begun.append(self.moved)
        enters, last = stream and since % m.interval == 0, stream and since == m.interval * (self.length - 1)
        vector, weights = [0] * m.rows, [0] * m.columns
        if enters:
            vector, weights = (side[since // m.interval] for side in self.folds[len(seen.stream_begins) - 1])
        edge = [(enters, begin, last, vector[r]) for r in range(m.rows)]
        shown = [[(e.valid, e.first, e.last, e.activation) for e in row] for row in self.grid]
        held = [[(e.weight, e.drain) for e in row] for row in self.grid]
        bottom = [element.finished()[0] for element in self.grid[-1]]
        for r, row in enumerate(self.grid):
            for c, element in enumerate(row):
                left = self.row_skew[r].out(edge[r]) if c == 0 else shown[r][c - 1]
                weight = self.column_skew[c].out(weights[c]) if r == 0 else held[r - 1][c][0]
                shift = self.shifting[c] and self.shifts[c] < r
                element.clock(m, left, weight, shift, held[r - 1][c][1] if r else 0)
        for line, (_, drain) in zip(self.align, held[-1], strict=True):
            line.clock(drain)
        for line, entering in [*zip(self.row_skew, edge, strict=True), *zip(self.column_skew, weights, strict=True)]:
            line.clock(entering)
        # Results move down a column from the cycle after its bottom row has its own.
        for c in range(m.columns if m.shifts_out else 0):
            self.drained[c] = bottom[c] or (self.shifting[c] and self.shifts[c] != m.rows - 1)
            if bottom[c]:
                self.shifting[c], self.shifts[c] = True, 0
            elif self.shifting[c] and self.shifts[c] == m.rows - 1:
                self.shifting[c] = False
            elif self.shifting[c]:
                self.shifts[c] += 1
        # The control's registers.
        drain = m.rows if m.shifts_out else 0
        if begin:
            self.to_stream, self.gap_left = self.to_stream - 1, max(0, drain - 1)
        elif self.gap_left:
            self.gap_left -= 1
        if stream:
            self.stream_left = self.whole - 1 - since
        if last:
            self.leaving = m.rows + m.columns - 3 + m.latency + drain
        elif self.leaving:
            self.leaving -= 1
        if m.shifts_out:
            self.shown += self.drained[-1]
        else:
            self.shown += self.grid[-1][-1].finished()[0]
        self.count_ends(now, m.rows if m.shifts_out else 1)

    def collect(self):
        """What is below the array takes the results."""
        for c, sums in enumerate(self.leaving_sums):
            if self.machine.shifts_out:
                if self.drained[c]:
                    sums.append(self.grid[-1][c].drain)
                continue
            for r, row in enumerate(self.grid):
                if row[c].valid and row[c].last:
                    sums.append((r, row[c].sum))


# --- matmuls --------------------------------------------------------------------------------------------------------------


def _part(matrix, first_row, rows, first_column, columns):
    """A tile of a matrix of codes, filled up with zeros."""
    inside = lambda i, j: matrix[i][j] if i < len(matrix) and j < len(matrix[0]) else 0  # noqa: E731
    return [[inside(first_row + i, first_column + j) for j in range(columns)] for i in range(rows)]


def matmul(machine, dataflow, a, b, stalls=(), faults=()):
    """Batches of A·B on a machine, from lists of codes a[batch][m][k] and b[batch][k][n].

    Returns:
        The codes of the results, and the array.
    """
    if dataflow == "is":
        turn = lambda x: [[list(row) for row in zip(*matrix, strict=True)] for matrix in x]  # noqa: E731
        found, array = matmul(machine, "ws", turn(b), turn(a), stalls, faults)
        return turn(found), array
    rows, columns, add = machine.rows, machine.columns, machine.sums.add
    m, k, n = len(a[0]), len(b[0]), len(b[0][0])
    out = [[[0] * n for _ in range(m)] for _ in a]
    places = []  # of folds: batch, first row or k, first column
    along = k if dataflow == "ws" else m
    for batch in range(len(a)):
        places += [(batch, i, j) for j in range(0, n, columns) for i in range(0, along, rows)]
    if dataflow == "ws":
        folds = [(_part(b[p], i, rows, j, columns), _part(a[p], 0, m, i, rows)) for p, i, j in places]
        array = machine.stationary(folds, stalls, faults)
        for c in range(columns):
            assert len(array.leaving_sums[c]) == m * len(folds)
            for number, code in enumerate(array.leaving_sums[c]):
                (p, _, j), i = places[number // m], number % m
                if j + c < n:
                    out[p][i][j + c] = add(out[p][i][j + c], machine.sums.value(code), machine.sums.one)
        return out, array
    turned = [[list(column) for column in zip(*_part(a[p], i, rows, 0, k), strict=True)] for p, i, _ in places]
    folds = [(vectors, _part(b[p], 0, k, j, columns)) for vectors, (p, _, j) in zip(turned, places, strict=True)]
    array = machine.output_stationary(folds, stalls, faults)
    for c in range(columns):
        assert len(array.leaving_sums[c]) == rows * len(folds)
        left = array.leaving_sums[c]
        if machine.shifts_out:
            left = [(rows - 1 - number % rows, result) for number, result in enumerate(left)]
        done = [0] * rows
        for r, result in left:
            p, i, j = places[done[r]]
            done[r] += 1
            if i + r < m and j + c < n:
                out[p][i + r][j + c] = result
    return out, array
