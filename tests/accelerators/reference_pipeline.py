"""The tile pipeline once more, in plain Python: every fold and transfer replayed, nothing skipped, state in named fields.

Independent of the kernels except for the rules themselves, which ``docs/systolic-array.md`` states.
"""

from dataclasses import dataclass, field
from itertools import product
from math import ceil, inf


@dataclass
class Machine:
    rows: int
    columns: int
    dataflow: str = "ws"
    overlap: str = "none"
    shift: bool = False
    latency: int = 1
    cycles_per_mac: int = 1
    off_bytes_per_cycle: float = inf
    off_latency: float = 0.0
    double: tuple = (True, True, True)
    bytes_per_cycle: tuple = (inf, inf, inf)
    arrays: int = 1


@dataclass
class Job:
    tiles: dict  # dimension -> list of (size, footprint in its first operand, in its second)
    order: str
    reuse: tuple
    batch: int = 1
    bytes: tuple = (1, 1, 4)
    here: tuple = (False, False)
    vector: float = 0.0
    row_vector: float = 0.0
    extra: float = 0.0
    store: float = 1.0
    packed: int = 1  # groups in a fold
    beside: int = 1  # products at the same time
    split: int = 1  # arrays that share a fold's stream


@dataclass
class Array:
    """When the array's parts are free."""

    load_start: float = 0.0
    load_end: float = 0.0
    begin: float = 0.0
    stream_end: float = 0.0
    left: float = 0.0
    used: bool = field(default=False)
    waited: float = 0.0  # for what is loaded, with nothing streaming
    shown: float = 0.0  # loading it, with nothing streaming


def overlap(one, other):
    """Length of what two spans (start, end) share."""
    return max(0.0, min(one[1], other[1]) - max(one[0], other[0]))


def fold(array, machine, stream, interval, load_cycles, load_ready, stream_ready, out_ready):
    injected = interval * (stream - 1)
    idle_from, left_before, ready_before = array.stream_end, array.left, max(array.load_end, array.begin)
    if machine.dataflow == "os":
        drain = machine.rows if machine.shift else 0
        begin = max(load_ready, stream_ready, out_ready)
        if machine.overlap == "full":
            begin = max(begin, array.stream_end, array.begin + drain if array.used else 0)
        else:
            begin = max(begin, array.left)
        others = max(stream_ready, out_ready, idle_from)
        if machine.overlap == "full":
            others = max(others, array.begin + drain if array.used else 0)
        else:
            others = max(others, left_before)
        array.waited += max(0.0, begin - others)
        array.load_start = array.load_end = array.begin = begin
        array.left = begin + max(injected + machine.rows + machine.columns - 2 + machine.latency + drain, interval * stream)
    else:
        if machine.overlap == "none":
            start = max(array.left, load_ready)
        else:
            start = max(array.load_end, array.begin, load_ready)
        array.load_start, array.load_end = start, start + load_cycles
        begin = max(array.load_end, stream_ready, out_ready)
        if machine.overlap == "weights":
            begin = max(begin, array.left)
        if machine.overlap == "full":
            begin = max(begin, array.stream_end)
        array.begin = begin
        idle = (idle_from, begin)
        array.waited += overlap(idle, (left_before if machine.overlap == "none" else ready_before, array.load_start))
        array.shown += overlap(idle, (array.load_start, array.load_end))
        array.left = begin + max(injected + machine.latency * machine.rows + machine.columns - 1, interval * stream)
    array.stream_end = array.begin + interval * stream
    array.used = True


def simulate(machine, job):
    """(time in cycles, bytes by what they are, cycles of waiting for what is loaded and of loading it in plain sight)."""
    array = Array()
    channel = vector = written = 0.0
    streamed = [0.0, 0.0]  # ends of streaming of the last two steps: the operand buffers' release
    released = [0.0, 0.0]  # the output buffers' release
    ready = {"a": 0.0, "b": 0.0, "p": 0.0, "x": 0.0}
    waiting = None  # (bytes, ready) of the write-back that the step before left
    moved = dict.fromkeys(("a", "b", "p_in", "p_out", "out", "x"), 0.0)
    previous = None
    n_total = sum(t[0] for t in job.tiles["n"])
    groups = job.packed * job.beside

    def load(what, size, double):
        nonlocal channel
        after = streamed[0] if double else streamed[1]
        if machine.off_bytes_per_cycle == inf:
            end = after
        else:
            channel = max(channel, after) + size / machine.off_bytes_per_cycle
            end = channel
        ready[what] = end + machine.off_latency

    def write_back():
        nonlocal channel, waiting, released, written
        size, at = waiting
        waiting = None
        if machine.off_bytes_per_cycle == inf:
            end = at
        else:
            channel += size / machine.off_bytes_per_cycle
            written = end = max(channel, max(at, written) + size / machine.off_bytes_per_cycle)
        released = [released[1], end]

    for _ in range(job.batch):
        previous = None
        ranges = [range(len(job.tiles[d])) for d in job.order]
        for picked in product(*ranges):
            at = dict(zip(job.order, picked, strict=True))
            i, j, h = at["m"], at["n"], at["k"]
            (m, a_m, c_m), (n, b_n, c_n), (k, a_k, b_k) = (job.tiles[d][at[d]] for d in "mnk")
            if not job.here[1] and previous_pair(previous, "nk") != (j, h) and not (job.reuse[1] and i > 0):
                size = b_k * b_n * job.bytes[1]
                load("b", size, machine.double[1])
                moved["b"] += size
            if not job.here[0] and previous_pair(previous, "mk") != (i, h) and not (job.reuse[0] and j > 0):
                size = a_m * a_k * job.bytes[0]
                load("a", size, machine.double[0])
                moved["a"] += size
            fresh = previous_pair(previous, "mn") != (i, j)
            first, last = h == 0, h == len(job.tiles["k"]) - 1
            spilled = len(job.tiles["k"]) > 1 and not job.reuse[2]
            if spilled and fresh and not first:
                load("p", groups * m * n * job.bytes[2], machine.double[2])
                moved["p_in"] += groups * m * n * job.bytes[2]
            if last and job.extra:
                load("x", c_m * c_n * job.extra, True)
                moved["x"] += c_m * c_n * job.extra
            if waiting:
                write_back()
            along = {"ws": (k, n, m), "os": (m, n, k), "is": (k, m, n)}[machine.dataflow]
            fold_rows, fold_columns, stream = (
                ceil(along[0] / machine.rows),
                ceil(along[1] / machine.columns),
                along[2],
            )
            # Parts of folds are dealt to the arrays in turn; the first array gets the most.
            dealt = [0] * machine.arrays
            for part in range(fold_rows * fold_columns * job.beside * job.split):
                dealt[part % machine.arrays] += 1
            count, working = dealt[0], sum(parts > 0 for parts in dealt)
            stream = ceil(stream / job.split)
            used_rows, used_columns = min(machine.rows, along[0]), min(machine.columns, along[1])
            held_rows = min(machine.rows, along[0] * job.packed)
            in_rate, w_rate = (rate / working for rate in machine.bytes_per_cycle[:2])
            interval, load_cycles = machine.cycles_per_mac, machine.rows
            held = used_rows * used_columns * job.packed
            if machine.dataflow == "ws":
                interval = max(interval, held_rows * job.bytes[0] / in_rate)
                load_cycles = max(load_cycles, held * job.bytes[1] / w_rate)
            elif machine.dataflow == "is":
                interval = max(interval, held_rows * job.bytes[1] / w_rate)
                load_cycles = max(load_cycles, held * job.bytes[0] / in_rate)
            else:
                interval = max(interval, used_rows * job.bytes[0] / in_rate, used_columns * job.bytes[1] / w_rate)
            k_folds = 1 if machine.dataflow == "os" else fold_rows
            sums = groups * m * n * job.bytes[2] * (k_folds + k_folds - 1 + (not first))
            interval = max(interval, sums / machine.bytes_per_cycle[2] / (count * stream))
            depth = machine.latency * machine.rows + machine.columns - 1
            if machine.dataflow == "os":
                depth += machine.cycles_per_mac * (stream - 1) + machine.rows
            out_ready = ready["p"]
            if fresh:
                out_ready = max(out_ready, (released[0] if machine.double[2] else released[1]) - depth)
            stationary, flowing = ("a", "b") if machine.dataflow == "is" else ("b", "a")
            for _ in range(count):
                fold(
                    array,
                    machine,
                    stream,
                    interval,
                    load_cycles,
                    ready[stationary],
                    ready[flowing],
                    out_ready,
                )
            streamed = [streamed[1], array.stream_end]
            if last:
                work, leaving = c_m * c_n * job.vector, c_m * c_n
                if job.row_vector:
                    leaving = 0
                    if j == len(job.tiles["n"]) - 1:
                        work += groups * m * n_total * job.row_vector
                        leaving = c_m * sum(t[2] for t in job.tiles["n"])
                done = array.left
                if work or job.extra:
                    vector = done = max(array.left, vector, ready["x"]) + work
                size = leaving * job.store
                moved["out"] += size
                if size:
                    waiting = (size, done)
                elif leaving:
                    released = [released[1], done]
            elif spilled:
                waiting = (groups * m * n * job.bytes[2], array.left)
                moved["p_out"] += groups * m * n * job.bytes[2]
            previous = at
            # Time on the channel that has passed unused is gone.
            channel = max(channel, streamed[0])
    if waiting:
        write_back()
    return max(array.left, vector, channel, written), moved, (array.waited, array.shown)


def previous_pair(previous, dims):
    return None if previous is None else tuple(previous[d] for d in dims)
