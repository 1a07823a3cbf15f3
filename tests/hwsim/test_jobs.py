"""Studies and the runner: the table is that of a plain loop, whatever the workers, looks and batches."""

import io
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import ClassVar

import job_studies
import pytest
from job_studies import plain, rows, value

from hwsim.jobs import Interrupted, JobStore, Study, run_study
from hwsim.jobs.plan import Batch, ChunkSize, Frontier, batches, left_to_do
from hwsim.jobs.progress import pace, show_progress
from numerics.errors import InputError

quiet = partial(run_study, progress="silent")


def table(path):
    with JobStore.read(path) as store:
        return list(store.lines())


def expected(size, *, batch=1, cuts=()):
    """Rows of a plain loop, with the sizes of calls that the batches must have."""
    edges = sorted({0, size, *cuts, *(b for a, z in itertools.pairwise([0, *cuts, size]) for b in range(a, z, batch))})
    found = []
    for start, stop in itertools.pairwise(edges):
        for trial in range(start, stop):
            row = {"value": value(7, trial), "size_of_call": stop - start, "ratio": value(7, trial) / 3}
            found.append((trial, json.dumps(row, separators=(",", ":"))))
    return found


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_table_is_that_of_a_plain_loop(tmp_path, workers):
    summary = quiet(
        plain(1003, batch=7, looks=(10, 500), decide=lambda results, size: False), store=tmp_path / "s", workers=workers
    )
    assert table(tmp_path / "s") == expected(1003, batch=7, cuts=(10, 500))
    assert (summary.end, summary.ran, summary.failed, summary.deaths) == (1003, 1003, 0, 0)
    assert summary.looks == ((10, False), (500, False))
    assert [p.name for p in tmp_path.iterdir()] == ["s"], "the log is folded in, the lock removed"


@pytest.mark.parametrize("workers", [1, 3])
def test_stops_at_a_look_and_drops_what_lies_beyond(tmp_path, workers):
    seen = []

    def decide(results, size):
        found = list(results)
        seen.append((size, [trial for trial, _ in found] == list(range(size)), found[0][1]["value"] == value(7, 0)))
        return size >= 200

    study = plain(10_000, looks=(50, 200, 5000), decide=decide)
    summary = quiet(study, store=tmp_path / "s", workers=workers)
    assert seen == [(50, True, True), (200, True, True)]
    assert (summary.end, summary.looks) == (200, ((50, False), (200, True)))
    assert table(tmp_path / "s") == expected(200)
    seen.clear()
    again = quiet(study, store=tmp_path / "s", workers=workers)
    assert (again.end, again.ran, again.resumed, len(seen)) == (200, 0, 200, 2)


def test_slow_early_trial_does_not_let_later_ones_decide(tmp_path):
    """Completion out of order: the look at 10 waits for trial 0, which ends last."""

    def run(state, trials):
        time.sleep(0.3 if 0 in trials else 0.0)
        return [{"value": trial} for trial in trials]

    asked = []

    def decide(results, size):
        asked.append([trial for trial, _ in results])
        return True

    study = Study(key={}, size=400, run=_Local(run), looks=(10,), decide=decide)
    with ThreadPoolExecutor(2) as pool:
        summary = quiet(study, store=tmp_path / "s", executor=pool)
    assert asked == [list(range(10))]
    assert summary.end == 10
    assert summary.ran > 10, "the other thread went on meanwhile"
    assert [trial for trial, _ in table(tmp_path / "s")] == list(range(10))


class _Local:
    """A function that is pickled by name of a place in this process."""

    known: ClassVar = {}

    def __init__(self, function):
        self.known[id(self)] = function
        self.number = id(self)

    def __call__(self, *arguments):
        return self.known[self.number](*arguments)


def test_aggregated_study_keeps_a_row_a_batch(tmp_path):
    looked = []
    study = Study(
        key={}, size=1000, batch=64, aggregated=True, setup=job_studies.seven, run=job_studies.sums, looks=(100,),
        decide=lambda results, size: looked.append((size, sum(row["trials"] for _, row in results))),
    )  # fmt: skip
    quiet(study, store=tmp_path / "s", workers=2)
    with JobStore.read(tmp_path / "s") as store:
        found = list(store.results())
    assert [trial for trial, _ in found] == [0, 64, *range(100, 1000, 64)]
    assert sum(row["sum"] for _, row in found) == sum(value(7, trial) for trial in range(1000))
    assert looked == [(100, 100)]


def test_threads_keep_a_state_each(tmp_path):
    with ThreadPoolExecutor(3) as pool:
        summary = quiet(plain(500), store=tmp_path / "s", executor=pool)
        assert pool.submit(int, "3").result() == 3, "a caller's executor is left running"
    assert summary.ran == 500
    assert table(tmp_path / "s") == expected(500)


def test_large_kit_is_sent_to_the_workers_that_ask(tmp_path):
    sent = []

    class Counting(ThreadPoolExecutor):
        def submit(self, function, *arguments, **named):
            sent.append(arguments[1])
            return super().submit(function, *arguments, **named)

    study = Study(key={}, size=300, setup=partial(_length, b"x" * 100_000), run=_states)
    with Counting(1) as pool:
        quiet(study, store=tmp_path / "s", executor=pool)
    assert {json.loads(row)["state"] for _, row in table(tmp_path / "s")} == {100_000}
    shipped = [parcel is not None for parcel in sent]
    assert shipped[:4] == [False, False, True, True], "two chunks were under way before the first could ask"
    assert len(shipped) > 4
    assert not any(shipped[4:])
    assert len(sent[2]) > 100_000


def _length(data):
    return len(data)


def _states(state, trials):
    return [{"state": state} for _ in trials]


def test_numpy_numbers_become_json(tmp_path):
    quiet(Study(key={}, size=2, run=_numpy_rows), store=tmp_path / "s")
    with JobStore.read(tmp_path / "s") as store:
        assert list(store.results()) == [(0, {"a": 3, "b": 0.5, "c": True}), (1, {"a": 3, "b": 0.5, "c": True})]


def _numpy_rows(state, trials):
    import numpy as np

    return [{"a": np.int64(3), "b": np.float32(0.5), "c": np.bool_(True)} for _ in trials]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, r"size: expected a whole number of trials of at least 1, got 0"),
        ({"batch": 2.5}, r"batch: expected a whole number of trials of at least 1, got 2.5"),
        ({"looks": (5, 5)}, r"looks: expected increasing whole numbers from 1 to size = 10, got \[5, 5\]"),
        ({"looks": (11,)}, r"looks: expected increasing"),
        ({"looks": (5,)}, r"looks: \[5\] need a decide function"),
        ({"key": {"a": {1, 2}}}, r"key: expected a dict that JSON can hold"),
        ({"key": {"a": float("nan")}}, r"key: expected a dict that JSON can hold"),
    ],
)
def test_study_refuses(arguments, message):
    with pytest.raises(InputError, match=message):
        Study(**{"key": {}, "size": 10, "run": rows, **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"workers": 0}, r"workers: expected a whole number of at least 1, got 0"),
        ({"retries": -1}, r"retries: expected a whole number of at least 0, got -1"),
        ({"executor": lambda: 3}, r"executor: expected a concurrent.futures.Executor or a function that gives one, got int"),
        ({"scheduler": "tcp://a:1", "executor": ThreadPoolExecutor}, r"scheduler: 'tcp://a:1' and an executor were both given"),
        ({"scheduler": "tcp://a:1", "workers": 2}, r"workers: a Dask scheduler has its own"),
        ({"progress": "loud"}, r"progress: unknown name 'loud'"),
    ],
)
def test_run_refuses(tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        run_study(plain(10), **{"store": tmp_path / "s", "progress": "silent", **arguments})


def test_study_that_cannot_be_pickled(tmp_path):
    study = Study(key={}, size=5, run=lambda state, trials: [{} for _ in trials])
    with pytest.raises(InputError, match="setup and run must be picklable to reach the workers, or workers=1"):
        quiet(study, store=tmp_path / "s", workers=2)
    assert quiet(study, store=tmp_path / "s", workers=1).end == 5


def test_batches_are_cut_at_looks_and_gaps_are_found():
    study = plain(23, batch=5, looks=(7, 12), decide=lambda results, size: False)
    assert list(batches(study)) == [(0, 5), (5, 7), (7, 12), (12, 17), (17, 22), (22, 23)]
    frontier = Frontier()
    gaps, position = left_to_do(study, [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 13], frontier)
    assert gaps == [Batch(5, 7), Batch(12, 17)]
    assert (position, frontier.reached) == (17, 5)
    frontier.finish(12, 17)
    assert frontier.reached == 5
    frontier.finish(6, 7)
    frontier.finish(5, 6)
    assert frontier.reached == 17


def test_chunks_grow_to_the_time_they_should_take():
    size = ChunkSize(0.2)
    sizes = []
    for _ in range(8):
        count = size.next(left=10**6, slots=2)
        sizes.append(count)
        size.learn(count, count * 0.001)
    assert sizes == [1, 4, 16, 64, 200, 200, 200, 200]
    assert size.next(left=40, slots=2) == 10, "the end is shared out"


def test_progress_lines_and_bar():
    stream = io.StringIO()
    with show_progress("faults", 1000, done=200, mode="lines", every_s=0.0, stream=stream) as update:
        update(200, "")
        time.sleep(0.01)
        update(600, "accuracy 0.91 ± 0.02")
    first, second = stream.getvalue().splitlines()
    assert first == "faults: 200/1,000 trials"
    assert second.startswith("faults: 600/1,000 trials · ")
    assert second.endswith(" left · accuracy 0.91 ± 0.02")
    assert pace(600, 1000, 200, 2.0) == "600/1,000 trials · 200/s · 2 s left"
    assert pace(20, 10**9, 0, 2.0) == "20/1,000,000,000 trials · 10/s · 1157 days left"
    assert pace(518, 545_042, 0, 2.0, goal=600) == "518 trials, next look at 600 of at most 545,042 · 259/s · 0 s to it"
    assert pace(518, 545_042, 0, 2.0, goal=518) == "518/518 trials · 259/s"
    bar = io.StringIO()
    with show_progress("faults", 10, mode="bar", stream=bar) as update:
        update(7, "interval [0.1, 0.2]")
    assert "7/10 trials" in bar.getvalue()
    assert "interval [0.1, 0.2]" in bar.getvalue()


def test_progress_goes_by_the_looks(tmp_path, capsys):
    study = plain(100_000, looks=(20, 40, 100_000), decide=lambda results, size: size == 40)
    run_study(study, store=tmp_path / "s", progress="lines", note=lambda pairs: "end" if not pairs else "on the way")
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"trials: 40/40 trials · [\d,.]+/s · end", line)


def test_a_refused_run_leaves_no_file(tmp_path):
    for arguments in ({"workers": 0}, {"workers": -2}, {"scheduler": "nonsense"}, {"scheduler": "tcp://h:1", "workers": 2}):
        with pytest.raises(InputError):
            quiet(plain(10), store=tmp_path / "s", **arguments)
        assert not list(tmp_path.iterdir())


def test_note_sees_stored_rows_first_and_every_row_once(tmp_path):
    study = plain(300, looks=(300,), decide=lambda results, size: False)
    for stop_after in (100, 300):
        seen = []

        def note(pairs, seen=seen, stop_after=stop_after):
            seen.extend(pairs)
            if len(seen) >= stop_after and stop_after < 300:
                raise RuntimeError("enough")
            return f"{len(seen)} seen"

        if stop_after < 300:
            with pytest.raises(RuntimeError, match="enough"):
                quiet(study, store=tmp_path / "s", note=note)
        else:
            quiet(study, store=tmp_path / "s", note=note)
    assert sorted(trial for trial, _ in seen) == list(range(300))


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_stores_what_is_done_and_says_how_to_go_on(tmp_path, workers, number):
    def send(pairs):
        if not sent.is_set():
            sent.set()
            os.kill(os.getpid(), number)
        return ""

    sent = threading.Event()
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match=r"interrupted: [\d,]+ of 100,000 trials are kept in '.*'; run it again to go on"):
        quiet(plain(100_000, sleep_s=0.001), store=tmp_path / "s", workers=workers, note=send)
    assert signal.getsignal(number) == before
    kept = table(tmp_path / "s")
    assert 0 < len(kept) < 5000
    assert kept == expected(100_000)[: len(kept)] or workers == 2
    with JobStore.read(tmp_path / "s") as store:
        assert store.end is None


def test_workers_end_with_a_killed_coordinator(tmp_path):
    script = """
import sys
from functools import partial
sys.path.insert(0, sys.argv[1])
import job_studies
from hwsim.jobs import run_study
if __name__ == "__main__":
    study = job_studies.plain(10**6, sleep_s=0.001, setup=partial(job_studies.note_process, sys.argv[2]))
    run_study(study, store=sys.argv[3], workers=2)
"""
    (tmp_path / "pids").mkdir()
    (tmp_path / "script.py").write_text(script)
    command = [sys.executable, tmp_path / "script.py", Path(__file__).parent, tmp_path / "pids", tmp_path / "s"]
    coordinator = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    _wait_until(lambda: len(list((tmp_path / "pids").iterdir())) == 2)
    coordinator.kill()
    coordinator.wait()
    _wait_until(lambda: not any(_alive(int(p.name)) for p in (tmp_path / "pids").iterdir()))


def _wait_until(condition, *, patience_s=20.0):
    end_s = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.02)


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_one_thread_while_trials_run_here(tmp_path):
    import torch

    before, environment = torch.get_num_threads(), dict(os.environ)
    torch.set_num_threads(2)
    try:
        quiet(Study(key={}, size=1, run=_torch_threads), store=tmp_path / "s")
        assert table(tmp_path / "s") == [(0, '{"threads":1}')]
        assert torch.get_num_threads() == 2
        assert dict(os.environ) == environment
    finally:
        torch.set_num_threads(before)


def _torch_threads(state, trials):
    import torch

    return [{"threads": torch.get_num_threads()}]


def test_scaling_table_counts_what_it_measures():
    from hwsim.jobs import scaling

    assert sum(row["hit"] for row in scaling.count_hits(0, False, None, range(4096))) == pytest.approx(256, abs=60)
    rows_each = scaling.measure(2000, workers=1, batch=64)
    summed = scaling.measure(2000, workers=1, batch=64, aggregated=True)
    assert rows_each.trials_per_s > 1000
    assert summed.bytes_per_trial < rows_each.bytes_per_trial
    assert "row a batch" in scaling.table([rows_each, summed])
