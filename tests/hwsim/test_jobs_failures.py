"""Trials that raise and workers that die: retried, blamed on the right trial, recorded, never lost."""

import json
import os
import signal
import subprocess
import sys
import time
from array import array
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import job_studies
import pytest
from job_studies import plain, rows, value

from hwsim.jobs import JobError, JobStore, Study, run_study
from hwsim.jobs.executors import LocalProcesses

quiet = partial(run_study, progress="silent")


def failing(run, size=200, **more):
    return Study(key={"seed": 7}, size=size, setup=more.pop("setup", job_studies.seven), run=run, **more)


def values(path):
    with JobStore.read(path) as store:
        return [(trial, row["value"]) for trial, row in store.results()]


def all_but(size, *missing):
    return [(trial, value(7, trial)) for trial in range(size) if trial not in missing]


@pytest.mark.parametrize(("workers", "batch"), [(1, 1), (1, 16), (2, 16)])
def test_trial_that_always_raises_is_recorded_alone(tmp_path, workers, batch):
    looked = []
    study = failing(
        partial(job_studies.bad_trials, (30, 41)), batch=batch, looks=(100,), decide=lambda results, size: looked.extend(results)
    )
    summary = quiet(study, store=tmp_path / "s", workers=workers)
    assert (summary.end, summary.failed) == (200, 2)
    assert values(tmp_path / "s") == all_but(200, 30, 41)
    assert [trial for trial, _ in looked] == [trial for trial in range(100) if trial not in (30, 41)]
    with JobStore.read(tmp_path / "s") as store:
        final = list(store.failures(final=True))
        tries = list(store.failures(final=False))
    assert [(f.trial, f.stop, f.attempt, f.error) for f in final] == [
        (30, 31, 3, "ValueError: no value for [30]"), (41, 42, 3, "ValueError: no value for [41]"),
    ]  # fmt: skip
    assert "in bad_trials" in final[0].traceback
    assert len(tries) == (4 if batch == 1 else 4 + 6), "two tries of each trial, three of each batch"
    again = quiet(study, store=tmp_path / "s", workers=workers)
    assert (again.ran, again.failed) == (0, 2)


def test_failed_trials_can_be_run_again(tmp_path):
    quiet(failing(partial(job_studies.bad_trials, (30,)), batch=4), store=tmp_path / "s", retries=0)
    summary = quiet(failing(job_studies.rows, batch=4), store=tmp_path / "s", retry_failed=True)
    assert (summary.resumed, summary.ran, summary.failed) == (196, 4, 0)
    assert values(tmp_path / "s") == all_but(200)
    with JobStore.read(tmp_path / "s") as store:
        assert list(store.failures()) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_trial_that_raises_once_is_retried(tmp_path, workers):
    summary = quiet(failing(partial(job_studies.once, tmp_path, 30)), store=tmp_path / "s", workers=workers)
    assert (summary.retried, summary.failed) == (1, 0)
    assert values(tmp_path / "s") == all_but(200)
    with JobStore.read(tmp_path / "s") as store:
        assert [(f.trial, f.final, f.error) for f in store.failures()] == [(30, False, "OSError: try again")]


def test_worker_killed_once_costs_nothing(tmp_path):
    summary = quiet(failing(partial(job_studies.die_once, tmp_path, 60)), store=tmp_path / "s", workers=2)
    assert summary.deaths >= 1
    assert summary.failed == 0
    assert values(tmp_path / "s") == all_but(200)


@pytest.mark.parametrize("workers", [2, 3])
def test_worker_killed_with_half_a_result_written(tmp_path, monkeypatch, workers):
    """The pool's thread waits for the other half, and with it everybody, were it not for a look at who is alive."""
    monkeypatch.setattr("hwsim.jobs.executors.DEATH_SHOWS_S", 0.5)
    study = failing(partial(job_studies.half_once, tmp_path, 60))
    summary = quiet(study, store=tmp_path / "s", workers=workers)
    assert summary.deaths >= 1
    assert values(tmp_path / "s") == all_but(200)


def test_pool_that_is_given_up_with_half_a_result_written(tmp_path):
    pool = LocalProcesses(failing(partial(job_studies.half_once, tmp_path, 0)), workers=1)
    pool.submit(array("q", [0, 1]))
    (process,) = pool._processes()
    process.join()
    manager = pool._pool._executor_manager_thread
    time.sleep(0.2)  # the thread is in the message by now
    pool.close(abandon=True)
    assert not manager.is_alive()


@pytest.mark.parametrize("batch", [1, 8])
def test_trials_that_kill_their_workers_are_found_and_recorded(tmp_path, batch):
    summary = quiet(failing(partial(job_studies.die, 60), batch=batch), store=tmp_path / "s", workers=2)
    assert (summary.end, summary.failed) == (200, 1)
    assert values(tmp_path / "s") == all_but(200, 60)
    with JobStore.read(tmp_path / "s") as store:
        (final,) = store.failures(final=True)
    assert (final.trial, final.stop) == (60, 61)
    assert final.error.startswith("lost with its worker: BrokenProcessPool: ")


def test_last_batch_of_an_aggregated_study_fails_whole(tmp_path):
    study = failing(partial(_bad_sums, 190), batch=32, aggregated=True)
    summary = quiet(study, store=tmp_path / "s")
    assert summary.failed == 8
    with JobStore.read(tmp_path / "s") as store:
        assert [trial for trial, _ in store.results()] == [0, 32, 64, 96, 128, 160]
        assert [(f.trial, f.stop) for f in store.failures(final=True)] == [(192, 200)]
    assert quiet(study, store=tmp_path / "s").ran == 0


def _bad_sums(above, state, trials):
    if trials[0] > above:
        raise ValueError("no sum")
    return job_studies.sums(state, trials)


@pytest.mark.parametrize(
    ("run", "error"),
    [
        (lambda state, trials: [], "ValueError: run gave 0 rows for 1 trials, expected 1"),
        (lambda state, trials: [{"a": object()}], "TypeError: a row holds a object, which JSON cannot; expected numbers"),
    ],
)
def test_rows_that_cannot_be_kept_are_failures(tmp_path, run, error):
    assert quiet(failing(run, size=2), store=tmp_path / "s").failed == 2
    with JobStore.read(tmp_path / "s") as store:
        assert all(f.error.startswith(error) for f in store.failures())


def test_too_many_failures_end_the_run(tmp_path):
    study = failing(partial(job_studies.bad_trials, range(50, 200)))
    with pytest.raises(JobError, match=r"study: \d+ trials failed, more than most_failed = 20; the last: trial \d+: ValueError"):
        quiet(study, store=tmp_path / "s", most_failed=20)
    assert values(tmp_path / "s") == all_but(50)
    summary = quiet(study, store=tmp_path / "s", most_failed=150)
    assert summary.failed == 150


@pytest.mark.parametrize("workers", [1, 2])
def test_setup_that_fails_ends_the_run(tmp_path, workers):
    with pytest.raises(JobError, match="study: setup failed in a worker: RuntimeError: no such model"):
        quiet(failing(rows, setup=job_studies.fail_setup), store=tmp_path / "s", workers=workers)


def test_workers_that_die_at_once_end_the_run(tmp_path):
    with pytest.raises(JobError, match=r"workers: they failed 4 times in a row and finished nothing \(BrokenProcessPool"):
        quiet(failing(rows, setup=job_studies.die_at_once), store=tmp_path / "s", workers=2)
    assert quiet(failing(rows), store=tmp_path / "s").end == 200, "no trial was blamed"


def test_own_executor_is_made_anew_or_the_run_ends(tmp_path):
    def pool():
        return ProcessPoolExecutor(2, mp_context=get_context("spawn"))

    study = failing(partial(job_studies.die_once, tmp_path, 60))
    with pool() as given, pytest.raises(JobError, match=r"executor: it broke .* give a function that makes one"):
        quiet(study, store=tmp_path / "s", executor=given)
    (tmp_path / "died").unlink()
    summary = quiet(study, store=tmp_path / "s", executor=pool)
    assert summary.deaths >= 1
    assert values(tmp_path / "s") == all_but(200)


@pytest.fixture(scope="module")
def cluster():
    distributed = pytest.importorskip("distributed", reason="needs hwsim[cluster]")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", silence_logs=50
    ) as local:
        yield local


def test_dask_cluster_with_a_worker_killed_in_mid_run(tmp_path, cluster):
    """Also: the other worker does not have the study's state and asks for it."""
    killed = []

    def kill(pairs):
        if not killed and len(pairs) > 0:
            first = next(iter(cluster.workers.values()))
            killed.append(first.process.pid)
            os.kill(first.process.pid, signal.SIGKILL)
        return ""

    study = Study(
        key={"seed": 7}, size=1500, setup=partial(_seven_of, b"x" * 50_000), run=partial(rows, sleep_s=0.001), looks=(1000,),
        decide=lambda results, size: True,
    )  # fmt: skip
    summary = quiet(study, store=tmp_path / "s", scheduler=cluster.scheduler_address, note=kill)
    assert killed
    assert (summary.end, summary.failed) == (1000, 0)
    quiet(study, store=tmp_path / "here")
    with JobStore.read(tmp_path / "s") as one, JobStore.read(tmp_path / "here") as other:
        assert list(one.lines()) == list(other.lines())


def _seven_of(data):
    return 7


def test_dask_trial_that_raises(tmp_path, cluster):
    summary = quiet(failing(partial(job_studies.bad_trials, (30,))), store=tmp_path / "s", scheduler=cluster.scheduler_address)
    assert summary.failed == 1
    assert values(tmp_path / "s") == all_but(200, 30)


def test_dask_scheduler_that_is_not_there(tmp_path, monkeypatch):
    pytest.importorskip("distributed", reason="needs hwsim[cluster]")
    from hwsim.jobs import executors
    from numerics.errors import InputError

    monkeypatch.setattr(executors, "CONNECT_S", 0.5)
    for address in ("tcp://127.0.0.1:9", "somewhere"):
        with pytest.raises(InputError, match=f"scheduler: no Dask scheduler at '{address}'"):
            quiet(plain(5), store=tmp_path / "s", scheduler=address)


@pytest.mark.exhaustive
def test_dask_trial_that_kills_its_workers(tmp_path, cluster):
    """Not in every run: Dask waits up to 30 s for the data of a worker that is gone."""
    summary = quiet(failing(partial(job_studies.die, 60), batch=4), store=tmp_path / "s", scheduler=cluster.scheduler_address)
    assert summary.failed == 1
    assert summary.deaths >= 4
    assert values(tmp_path / "s") == all_but(200, 60)
    with JobStore.read(tmp_path / "s") as store:
        (final,) = store.failures(final=True)
    assert final.error.startswith("lost with its worker: KilledWorker: ")


@pytest.mark.exhaustive
def test_dask_scheduler_killed_in_mid_run(tmp_path, monkeypatch):
    pytest.importorskip("distributed", reason="needs hwsim[cluster]")
    from hwsim.jobs import executors

    monkeypatch.setattr(executors, "CONNECT_S", 3.0)
    dask = Path(sys.executable).parent / "dask"
    contact = tmp_path / "contact.json"
    here = os.environ | {"PYTHONPATH": str(Path(job_studies.__file__).parent)}
    scheduler = _dask(dask, "scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", contact)
    worker = _dask(dask, "worker", "--scheduler-file", contact, "--nthreads", "1", "--no-dashboard", env=here)
    try:
        while not contact.exists():
            time.sleep(0.05)
        address = json.loads(contact.read_text())["address"]

        def kill(pairs):
            if pairs and scheduler.poll() is None:
                scheduler.kill()
                scheduler.wait()
            return ""

        study = plain(2000, sleep_s=0.001)
        with pytest.raises(JobError, match=r"scheduler: tcp://.* is gone .* start it and run the same study again"):
            quiet(study, store=tmp_path / "s", scheduler=address, note=kill)
        summary = quiet(study, store=tmp_path / "s")
        assert 0 < summary.resumed < 2000
        assert values(tmp_path / "s") == all_but(2000)
    finally:
        for process in (scheduler, worker):
            process.terminate()
            process.wait()


def _dask(*command, **more):
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **more)
