"""The file: whole after anything, refused where it is another's."""

import os
import random
import sqlite3
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import job_studies
import pytest
from job_studies import plain

from hwsim.jobs import JobError, JobStore, Study, run_study
from hwsim.jobs.store import Failure
from numerics.errors import InputError

quiet = partial(run_study, progress="silent")
SCRIPT = Path(job_studies.__file__)


def table(path):
    with JobStore.read(path) as store:
        return list(store.lines())


def start(store, *, workers=1, size, sleep_s=0.0, limit=0):
    named = {"JOB_SIZE": str(size), "JOB_SLEEP_S": str(sleep_s), "JOB_FILE_LIMIT": str(limit)}
    return subprocess.Popen(
        [sys.executable, SCRIPT, store, str(workers)],
        env=os.environ | named,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def killed_run(folder, *, kills, size, seed):
    """Kill -9 the coordinator at random moments, then let it end. Gives how often there was already a row to lose."""
    moments = random.Random(seed)
    store = folder / "killed"
    progress = []
    for number in range(kills):
        process = start(store, size=size, sleep_s=0.001, workers=2 if number % 5 == 4 else 1)
        if number % 3 == 0:
            time.sleep(moments.uniform(0.0, 0.15))  # at the start: of Python, of the file, of the pool
        else:
            before = progress[-1] if progress else 0
            _wait_for_row(store, before, process)
            time.sleep(moments.uniform(0.0, 0.02))
        assert process.poll() is None, process.stderr.read()
        process.kill()
        process.communicate()
        progress.append(_rows(store))
        assert sqlite3.connect(store).execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert progress == sorted(progress), "a row that was stored stays"
    assert progress[-1] < size
    process = start(store, size=size, workers=2)
    output, errors = process.communicate()
    assert process.returncode == 0, output + errors
    return progress


def _rows(store):
    try:
        with JobStore.read(store) as found:
            return found.counts()[0]
    except InputError:
        return 0


def _wait_for_row(store, before, process):
    end_s = time.monotonic() + 20.0
    while _rows(store) <= before:
        assert process.poll() is None
        assert time.monotonic() < end_s
        time.sleep(0.005)


def test_killed_fifty_times_gives_the_same_table(tmp_path):
    progress = killed_run(tmp_path, kills=50, size=6000, seed=6)
    assert len(set(progress)) > 25, "most kills hit a run that was storing rows"
    start(tmp_path / "undisturbed", size=6000).communicate()
    assert len(table(tmp_path / "undisturbed")) == 6000
    assert table(tmp_path / "killed") == table(tmp_path / "undisturbed")
    with JobStore.read(tmp_path / "killed") as store:
        assert store.end == 6000
        assert list(store.failures()) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_full_disk_is_reported_and_the_run_goes_on_later(tmp_path, workers):
    """The kernel refuses to let a file grow past 150 kB, as a full disk would."""
    process = start(tmp_path / "s", size=6000, workers=workers, limit=150_000)
    output, errors = process.communicate()
    assert process.returncode == 3, output + errors
    assert output.startswith(f"JobError: store: '{tmp_path / 's'}' cannot be written: ")
    assert output.rstrip().endswith("what was stored is kept: make room on the disk and run the same study again")
    assert errors == ""
    kept = table(tmp_path / "s")
    assert 0 < len(kept) < 6000
    process = start(tmp_path / "s", size=6000)
    assert process.wait() == 0
    start(tmp_path / "undisturbed", size=6000).wait()
    whole = table(tmp_path / "s")
    assert whole == table(tmp_path / "undisturbed")
    assert set(kept) < set(whole)


def test_database_full(tmp_path):
    """SQLite's own limit gives its own error for a full disk."""
    with JobStore.write(tmp_path / "s", plain(10).identity()) as store:
        store.add([(0, '{"a":1}')])
        store._connection.execute("PRAGMA max_page_count = 8")
        with pytest.raises(JobError, match="cannot be written: database or disk is full; what was stored is kept"):
            store.add([(trial, '{"a":"' + "x" * 1000 + '"}') for trial in range(1, 100)])
        assert list(store.results()) == [(0, {"a": 1})]
        store._connection.execute("PRAGMA max_page_count = 1000")
        store.add([(1, '{"a":2}')])
    assert table(tmp_path / "s") == [(0, '{"a":1}'), (1, '{"a":2}')]


def test_two_runs_at_once(tmp_path):
    process = start(tmp_path / "s", size=100_000, sleep_s=0.001)
    _wait_for_row(tmp_path / "s", 0, process)
    with pytest.raises(
        InputError, match=f"store: '.*' is being written by process {process.pid}; wait for it or name another file"
    ):
        quiet(plain(100_000, batch=3, looks=(100, 1000), decide=lambda results, size: False), store=tmp_path / "s")
    process.kill()
    process.communicate()
    with JobStore.write(tmp_path / "s", JobStore.read(tmp_path / "s").identity) as store:
        assert store.counts()[0] > 0


def test_another_study_is_refused_by_name_of_what_differs(tmp_path):
    key = {"seed": 7, "model": {"layers": 3}, "formats": ["int8", "bf16"]}
    quiet(Study(key=key, size=5, run=job_studies.rows, setup=job_studies.seven), store=tmp_path / "s")
    before = table(tmp_path / "s")
    other = Study(key={**key, "seed": 8, "model": {"layers": 4}}, size=6, run=job_studies.rows, setup=job_studies.seven)
    with pytest.raises(InputError) as error:
        quiet(other, store=tmp_path / "s")
    assert str(error.value) == (
        f"store: '{tmp_path / 's'}' holds another study (plan.size: stored 5, asked for 6; "
        "study.model.layers: stored 3, asked for 4; study.seed: stored 7, asked for 8); name another file"
    )
    assert table(tmp_path / "s") == before
    assert JobStore.read(tmp_path / "s").key == key


def test_files_of_others_are_refused_and_left_alone(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("a text of somebody")
    database = tmp_path / "other.sqlite"
    connection = sqlite3.connect(database)
    connection.execute("CREATE TABLE precious (a)")
    connection.commit()
    connection.close()
    later = tmp_path / "later"
    quiet(plain(3), store=later)
    connection = sqlite3.connect(later)
    connection.execute("PRAGMA user_version = 2")
    connection.close()
    for path, message in (
        (text, "is not a file of results; name another file"),
        (database, "is not a file of results; name another file"),
        (later, "has layout 2, this version reads layout 1"),
        (tmp_path, "expected a file, '.*' is a folder"),
        (tmp_path / "absent" / "s", "lies in no folder that is there"),
    ):
        before = path.read_bytes() if path.is_file() else None
        with pytest.raises(InputError, match=message):
            quiet(plain(3), store=path)
        assert before == (path.read_bytes() if path.is_file() else None)
    with pytest.raises(InputError, match=r"store: no file '.*absent'"):
        JobStore.read(tmp_path / "absent")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["later", "notes.txt", "other.sqlite"]


def test_store_can_be_read_while_it_is_written(tmp_path):
    with JobStore.write(tmp_path / "s", plain(10_000).identity()) as store:
        store.add([(trial, "{}") for trial in range(9000)], [Failure(trial=3, stop=4, attempt=1, final=False, error="a")])
        with JobStore.read(tmp_path / "s") as other:
            assert other.end is None
            assert [trial for trial, _ in other.results(4000, 8500)] == list(range(4000, 8500))
            store.finish(8192)
            assert (other.end, other.counts()) == (8192, (8192, 0))
            assert [f.error for f in other.failures()] == ["a"]
