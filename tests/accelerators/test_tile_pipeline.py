"""The tile pipeline: against a plain replay, against the closed forms, and against counted elements."""

import itertools
import random

import numpy as np
import pytest
from effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_pipeline import Job, Machine, simulate

from accelerators.systolic import _mapping_kernels as mapping_kernels
from accelerators.systolic import _pipeline_fields as fields
from accelerators.systolic import _pipeline_kernels as kernels
from accelerators.systolic.analytic import compute_cycles
from accelerators.systolic.mapping import ORDER_NAMES, packed_groups, shape_of, tilings
from accelerators.systolic.pipeline import _pack
from accelerators.systolic.spec import Timing
from hwsim.operators import Convolution, Matmul

FULL_NAMES = {"ws": "weight_stationary", "os": "output_stationary", "is": "input_stationary"}


def vector(machine, capacities=(np.inf,) * 3):
    hw = np.zeros(fields.HW_FIELDS)
    hw[fields.ROWS], hw[fields.COLUMNS], hw[fields.LATENCY] = (
        machine.rows,
        machine.columns,
        machine.latency,
    )
    hw[fields.OVERLAP] = ("none", "weights", "full").index(machine.overlap)
    hw[fields.DRAIN_SHIFT] = machine.shift
    hw[fields.DATAFLOW] = ("ws", "os", "is").index(machine.dataflow)
    hw[fields.MAC_CYCLES] = machine.cycles_per_mac
    hw[fields.IN_BPC : fields.OUT_BPC + 1] = machine.bytes_per_cycle
    hw[fields.OFF_BPC], hw[fields.OFF_LATENCY] = machine.off_bytes_per_cycle, machine.off_latency
    hw[fields.IN_CAP : fields.OUT_CAP + 1] = capacities
    hw[fields.IN_DOUBLE : fields.OUT_DOUBLE + 1] = machine.double
    hw[fields.EXTRA_ARRAYS] = machine.arrays - 1
    return hw


def job_vector(job):
    values = np.zeros(fields.JOB_FIELDS)
    values[fields.BATCH] = job.batch
    values[fields.A_BYTES : fields.P_BYTES + 1] = job.bytes
    values[fields.A_HERE], values[fields.B_HERE] = job.here
    values[fields.VECTOR_CYCLES], values[fields.ROW_CYCLES] = job.vector, job.row_vector
    values[fields.EXTRA_LOAD], values[fields.STORE] = job.extra, job.store
    values[[fields.EXTRA_PACKED, fields.EXTRA_BESIDE, fields.EXTRA_SPLIT]] = job.packed - 1, job.beside - 1, job.split - 1
    return values


def run_kernel(machine, job):
    tiles = [np.array([t[f] for t in job.tiles[d]], dtype=float) for d in "mnk" for f in range(3)]
    order = np.array(["mnk".index(d) for d in job.order])
    return kernels.simulate(
        vector(machine),
        job_vector(job),
        order,
        *tiles,
        np.array(job.reuse),
        np.zeros((0, fields.TILE_FIELDS)),
        fields.UNLIMITED,
    )


def cut(total, tile):
    return [(min(tile, total - start),) * 3 for start in range(0, total, tile)]


sizes = st.integers(1, 40)
machines = st.builds(
    Machine,
    rows=st.sampled_from([1, 3, 4, 8]),
    columns=st.sampled_from([1, 2, 4, 9]),
    dataflow=st.sampled_from(["ws", "os", "is"]),
    overlap=st.sampled_from(["none", "weights", "full"]),
    shift=st.booleans(),
    latency=st.integers(1, 3),
    cycles_per_mac=st.integers(1, 2),
    off_bytes_per_cycle=st.sampled_from([0.5, 1.0, 3.0, 16.0, 1000.0, np.inf]),
    off_latency=st.sampled_from([0.0, 7.0, 100.0]),
    double=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    bytes_per_cycle=st.tuples(*[st.sampled_from([1.0, 4.0, 64.0, np.inf])] * 3),
    arrays=st.sampled_from([1, 1, 2, 6]),
)


@st.composite
def jobs(draw):
    tiles = {d: cut(draw(st.integers(1, 60)), draw(st.integers(2, 16))) for d in "mnk"}
    order = draw(st.sampled_from(["".join(p) for p in itertools.permutations("mnk")]))
    reuse = [draw(st.booleans()) for _ in range(3)]
    # A loop over the dimension that does not index an operand leaves its tile in place when it is innermost.
    reuse[2] = reuse[2] or order[2] == "k"
    return Job(
        tiles=tiles,
        order=order,
        reuse=tuple(reuse),
        batch=draw(st.sampled_from([1, 2, 9])),
        bytes=draw(st.sampled_from([(1, 1, 4), (2, 1, 4), (4, 4, 4), (0.5, 0.5, 2)])),
        here=(draw(st.booleans()), draw(st.booleans())),
        vector=draw(st.sampled_from([0.0, 0.25, 3.0])),
        row_vector=draw(st.sampled_from([0.0, 0.5])),
        extra=draw(st.sampled_from([0.0, 1.0])),
        store=draw(st.sampled_from([0.0, 1.0, 4.0])),
        packed=draw(st.sampled_from([1, 1, 3])),
        beside=draw(st.sampled_from([1, 1, 2])),
        split=draw(st.sampled_from([1, 1, 2, 6])),
    )


@settings(max_examples=examples(400), deadline=None)
@given(machines, jobs())
def test_kernel_equals_the_plain_replay(machine, job):
    time, moved, (waited, shown) = simulate(machine, job)
    result = run_kernel(machine, job)
    assert result[fields.TIME] == pytest.approx(time, rel=1e-9)
    assert result[fields.LOAD_WAIT] == pytest.approx(waited, rel=1e-9, abs=1e-6)
    assert result[fields.LOAD_SHOWN] == pytest.approx(shown, rel=1e-9, abs=1e-6)
    assert result[fields.ARRAY_BUSY] + waited + shown <= time * (1 + 1e-9) + 1e-6
    names = {
        "a": fields.LOAD_A, "b": fields.LOAD_B, "p_in": fields.LOAD_PARTIAL, "p_out": fields.STORE_PARTIAL,
        "out": fields.STORE_OUT, "x": fields.LOAD_EXTRA,
    }  # fmt: skip
    for name, place in names.items():
        assert result[place] == pytest.approx(moved[name], rel=1e-12), name


@settings(max_examples=examples(150), deadline=None)
@given(machines, jobs(), st.sampled_from(["off_bytes_per_cycle", "off_latency", "bytes_per_cycle", "double"]))
def test_for_a_fixed_mapping_more_is_never_slower(machine, job, what):
    slow = run_kernel(machine, job)[fields.TIME]
    better = {
        "off_bytes_per_cycle": machine.off_bytes_per_cycle * 1.3,
        "off_latency": machine.off_latency / 2,
        "bytes_per_cycle": tuple(2 * b for b in machine.bytes_per_cycle),
        "double": (True, True, True),
    }
    fast = run_kernel(Machine(**{**machine.__dict__, what: better[what]}), job)[fields.TIME]
    assert fast <= slow * (1 + 1e-12)


def test_a_stall_that_can_be_counted_by_hand():
    """Two tiles of weights, 16 bytes each, over a channel of 1 byte a cycle, on a 4×4 array that needs 4 + 8 cycles a fold."""
    machine = Machine(4, 4, overlap="none", off_bytes_per_cycle=1.0)
    job = Job(
        tiles={"m": cut(2, 2), "n": cut(8, 4), "k": cut(4, 4)},
        order="nmk",
        reuse=(True, True, True),
        store=0.0,
    )
    # B0 arrives at 16, A (8 bytes) at 24; fold 0: weights 16-20, stream from 24, left 24 + 1 + 4 + 3 = 32.
    # B1 is on the channel 24-40; fold 1: weights 40-44, left 44 + 1 + 4 + 3 = 52.
    assert run_kernel(machine, job)[fields.TIME] == 52


def search(shape, machine, capacities, job):
    cuts = tilings(shape, machine.rows, machine.columns, FULL_NAMES[machine.dataflow])
    flat = [*(a for cut in cuts for a in _pack(cut)), np.array([t.taps for t in cuts[2]])]
    picked, reuse, simulated, result = mapping_kernels.search(vector(machine, capacities), job_vector(job), *flat)
    return flat, picked, reuse, simulated, result


def test_with_ideal_memory_the_search_finds_the_closed_form():
    rng = random.Random(5)
    for _ in range(150):
        rows, columns = rng.choice([(4, 4), (8, 4), (4, 8), (16, 16), (3, 7)])
        m, n, k, batch = (*(rng.randint(1, 70) for _ in range(3)), rng.choice([1, 1, 5]))
        latency, interval = rng.choice([1, 2]), rng.choice([1, 2])
        for dataflow, overlap, shift in itertools.product(("ws", "os", "is"), ("none", "weights", "full"), (False, True)):
            machine = Machine(rows, columns, dataflow, overlap, shift, latency, interval)
            job = Job(tiles={}, order="", reuse=(), batch=batch)
            result = search(shape_of(Matmul(name="x", m=m, n=n, k=k, batch=batch)), machine, (np.inf,) * 3, job)[4]
            timing = Timing(fold_overlap=overlap, output_drain="shift" if shift else "hidden", mac_latency_cycles=latency)
            expected = compute_cycles(
                m,
                n,
                k,
                rows=rows,
                columns=columns,
                dataflow=dataflow,
                timing=timing,
                batch=batch,
                cycles_per_mac=interval,
            )
            assert result[fields.TIME] == expected


@pytest.mark.exhaustive
@pytest.mark.parametrize(("rows", "columns"), [(2, 2), (3, 2), (2, 4)])
def test_every_small_matmul_in_every_mode_equals_the_closed_form(rows, columns):
    for m, n, k in itertools.product(range(1, 9), repeat=3):
        shape = shape_of(Matmul(name="x", m=m, n=n, k=k))
        for dataflow, overlap, shift in itertools.product(("ws", "os", "is"), ("none", "weights", "full"), (False, True)):
            machine = Machine(rows, columns, dataflow, overlap, shift)
            found = search(shape, machine, (np.inf,) * 3, Job(tiles={}, order="", reuse=()))[4][fields.TIME]
            timing = Timing(fold_overlap=overlap, output_drain="shift" if shift else "hidden")
            assert found == compute_cycles(m, n, k, rows=rows, columns=columns, dataflow=dataflow, timing=timing)


def brute_force_convolution_traffic(op, tiles, order, reuse, taps_a_tile):
    """Distinct elements of X and W that each loaded tile holds, found by visiting every product of the nest.

    Where tiles take only some kernel taps, the feature map is loaded for a block of channels and stays for all their tiles.
    """
    heights, widths = op.output_size
    positions = list(itertools.product(range(op.batch), range(heights), range(widths)))
    taps = list(itertools.product(range(op.kernel[0]), range(op.kernel[1])))
    channels_in, channels_out = op.in_channels // op.groups, op.out_channels // op.groups

    def spans(sizes, total):
        starts = [0, *(round(x) for x in np.cumsum(sizes))]
        assert starts[-1] == total
        return [range(a, b) for a, b in itertools.pairwise(starts)]

    m = spans(tiles["m"], len(positions))
    n = spans(tiles["n"], channels_out)
    if taps_a_tile:
        parts = [taps[i : i + taps_a_tile] for i in range(0, len(taps), taps_a_tile)]
        blocks = np.reshape(tiles["k"], (-1, len(parts))).sum(axis=1) / len(taps)
        k = [(block, part) for block in spans(blocks, channels_in) for part in parts]
        assert [len(c) * len(t) for c, t in k] == list(tiles["k"])
    else:
        k = [(block, taps) for block in spans(tiles["k"] / len(taps), channels_in)]

    def x_elements(i, channels):
        found = set()
        for p in m[i]:
            image, y, x = positions[p]
            for dy, dx in taps:
                row = y * op.stride[0] + dy * op.dilation[0] - op.padding[0][0]
                column = x * op.stride[1] + dx * op.dilation[1] - op.padding[1][0]
                if 0 <= row < op.input_size[0] and 0 <= column < op.input_size[1]:
                    found.update((image, c, row, column) for c in channels)
        return found

    loads_x = loads_w = 0
    held_x = 0
    once_x, once_w = set(), set()
    now_x = now_w = None
    for picked in itertools.product(*[range(len({"m": m, "n": n, "k": k}[d])) for d in order]):
        at = dict(zip(order, picked, strict=True))
        i, j, (channels, part) = at["m"], at["n"], k[at["k"]]
        if now_x != (i, channels) and not (reuse[0] and (i, channels) in once_x):
            loads_x += len(x_elements(i, channels))
            once_x.add((i, channels))
        if now_w != (at["k"], j) and not (reuse[1] and (at["k"], j) in once_w):
            loads_w += len({(c, o, t) for c in channels for o in n[j] for t in part})
            once_w.add((at["k"], j))
        now_x, now_w = (i, channels), (at["k"], j)
        held_x = max(held_x, len(x_elements(i, channels)))
    return op.groups * loads_x, op.groups * loads_w, held_x


@pytest.mark.parametrize("seed", range(100))
def test_traffic_of_a_small_convolution_equals_distinct_elements_per_tile(seed):
    rng = random.Random(seed)
    kernel = (rng.choice([1, 2, 3]), rng.choice([1, 3]))
    stride, dilation = (rng.choice([1, 2, 3]), rng.choice([1, 2])), (rng.choice([1, 2]), 1)
    padding = ((rng.choice([0, 1]), 1), (rng.choice([0, 2]), 0))
    size = (rng.randint(5, 9), rng.randint(5, 9))
    output = tuple((size[a] + sum(padding[a]) - dilation[a] * (kernel[a] - 1) - 1) // stride[a] + 1 for a in range(2))
    groups = rng.choice([1, 1, 2])
    op = Convolution(
        name="c", batch=rng.choice([1, 2]), in_channels=groups * rng.choice([1, 3, 4]), out_channels=groups * rng.choice([2, 5]),
        input_size=size, output_size=output, kernel=kernel, stride=stride, padding=padding, dilation=dilation, groups=groups,
    )  # fmt: skip
    machine = Machine(4, 2, overlap="full", off_bytes_per_cycle=rng.choice([0.3, 2.0, 20.0]), off_latency=3)
    capacities = (rng.choice([40, 100, 400, 10_000]), rng.choice([80, 200, 4000]), rng.choice([300, 3000]))
    shape = shape_of(op)
    job = Job(tiles={}, order="", reuse=(), batch=shape.batch)
    flat, picked, reuse, _, result = search(shape, machine, capacities, job)
    if picked[0] < 0:
        pytest.fail("every case is meant to fit")
    tiles = {d: flat[4 * i + 1][flat[4 * i][picked[i]] : flat[4 * i][picked[i] + 1]] for i, d in enumerate("mnk")}
    split = int(flat[12][picked[2]])
    x, w, held = brute_force_convolution_traffic(op, tiles, ORDER_NAMES[picked[3]], reuse, split)
    assert result[fields.LOAD_A] == x
    assert result[fields.LOAD_B] == w
    whole = shape.batch == 1 and x == held  # loaded once and for all
    assert held <= (capacities[0] if whole else capacities[0] / 2)


def test_every_tiling_covers_its_dimension():
    op = Convolution(
        name="c", batch=3, in_channels=24, out_channels=10, input_size=(4, 9, 7), output_size=(4, 5, 7), kernel=(3, 3, 1),
        stride=(1, 2, 1), padding=((1, 1), (1, 1), (0, 0)), dilation=(1, 1, 1),
    )  # fmt: skip
    for computes in ("output", "input", "weight"):
        nest = Convolution(**{**op.__dict__, "computes": computes})
        _, m, n, k = nest.matmul_dims
        for total, cuts in zip((m, n, k), tilings(shape_of(nest), 4, 4, "weight_stationary"), strict=True):
            assert len(cuts) > 1
            for tiling in cuts:
                assert tiling.size.sum() == total


def replay_vector_pieces(chunks, load, work, store, latency):
    """Pieces of a vector operator one after another: one channel, and two halves of a buffer."""
    channel = done = done_before = 0.0
    waiting = None
    for _ in range(chunks):
        ready = 0.0
        if load > 0:
            channel = max(channel, done_before) + load
            ready = channel + latency
        if waiting is not None and store > 0:
            channel = max(channel, waiting) + store
        done_before, done = done, max(done, ready) + work
        waiting = done
        channel = max(channel, done_before)
    return max(channel, waiting) + store if store > 0 else max(channel, done)


@settings(max_examples=examples(300), deadline=None)
@given(
    st.integers(1, 300),
    st.sampled_from([0.0, 0.5, 3.4, 20.0]),
    st.floats(0, 10),
    st.sampled_from([0.0, 1.1, 7.3]),
    st.sampled_from([0.0, 5.0, 315.0]),
)
def test_pieces_of_a_vector_operator_equal_their_replay(chunks, load, work, store, latency):
    """Where the latency is long, the halves of the buffer take turns and only every second piece is like the last."""
    found = kernels.vector_pipeline(chunks, load, work, store, latency)
    assert found == pytest.approx(replay_vector_pieces(chunks, load, work, store, latency), rel=1e-9, abs=1e-9)


def test_packed_groups_share_a_fold():
    depthwise = Convolution(
        name="d", batch=1, in_channels=24, out_channels=24, input_size=(8, 8), output_size=(8, 8), kernel=(3, 3),
        stride=(1, 1), padding=((1, 1), (1, 1)), dilation=(1, 1), groups=24,
    )  # fmt: skip
    shape = shape_of(depthwise)
    assert (shape.batch, shape.m, shape.n, shape.k) == (24, 64, 1, 9)
    assert packed_groups(shape, 64, 64, "weight_stationary") == 6  # 7 fit in 64 rows; 6 divides 24
    assert packed_groups(shape, 64, 4, "weight_stationary") == 4
    assert packed_groups(shape, 8, 8, "weight_stationary") == 1
    assert packed_groups(shape, 64, 64, "output_stationary") == 1
