"""Studies for the tests of the runner, and a script that runs one: ``python job_studies.py STORE WORKERS``.

Imports nothing heavy: the tests start it often.
"""

import hashlib
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

from hwsim.jobs import JobError, Study, run_study


def value(seed, trial):
    """A number that depends on every bit of the trial's."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{trial}".encode(), digest_size=6).digest(), "big")


def rows(seed, trials, *, sleep_s=0.0):
    found = []
    for trial in trials:
        if sleep_s:
            time.sleep(sleep_s)
        found.append({"value": value(seed, trial), "size_of_call": len(trials), "ratio": value(seed, trial) / 3})
    return found


def seven():
    return 7


def note_process(folder):
    """Setup that leaves a file with the worker's number."""
    (Path(folder) / str(os.getpid())).touch()
    return 7


def plain(size, *, sleep_s=0.0, setup=seven, **more):
    return Study(key={"seed": 7}, size=size, setup=setup, run=partial(rows, sleep_s=sleep_s), **more)


def sums(seed, trials):
    return [{"sum": sum(value(seed, trial) for trial in trials), "trials": len(trials)}]


def half_a_result():
    """What a process does that dies with half of its result written: the rest never comes."""
    frame = sys._getframe()
    while "result_queue" not in frame.f_locals:
        frame = frame.f_back
    os.write(frame.f_locals["result_queue"]._writer.fileno(), (100_000).to_bytes(4, "big") + b"half")
    os.kill(os.getpid(), signal.SIGKILL)


def half_once(folder, bad, seed, trials):
    mark = Path(folder) / "died"
    if bad in trials and not mark.exists():
        mark.touch()
        half_a_result()
    return rows(seed, trials, sleep_s=0.001)


def bad_trials(bad, seed, trials):
    if set(bad) & set(trials):
        raise ValueError(f"no value for {sorted(set(bad) & set(trials))}")
    return rows(seed, trials)


def once(folder, bad, seed, trials):
    """Raises at a trial, the first time."""
    mark = Path(folder) / "raised"
    if bad in trials and not mark.exists():
        mark.touch()
        raise OSError("try again")
    return rows(seed, trials)


def die_once(folder, bad, seed, trials):
    """Takes its worker along, the first time."""
    mark = Path(folder) / "died"
    if bad in trials and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.002 * len(trials))
    return rows(seed, trials)


def die(bad, seed, trials):
    if bad in trials:
        os._exit(3)
    return rows(seed, trials)


def die_at_once():
    os._exit(3)


def fail_setup():
    raise RuntimeError("no such model")


def main():
    store, workers = sys.argv[1], int(sys.argv[2])
    limit, size, sleep_s = (float(os.environ.get(name, "0")) for name in ("JOB_FILE_LIMIT", "JOB_SIZE", "JOB_SLEEP_S"))
    if limit:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), resource.RLIM_INFINITY))
    study = plain(int(size), sleep_s=sleep_s, batch=3, looks=(100, 1000), decide=lambda results, size: False)
    try:
        run_study(study, store=store, workers=workers, progress="silent")
    except (JobError, KeyboardInterrupt) as error:
        print(f"{type(error).__name__}: {error}")
        sys.exit(3)


if __name__ == "__main__":
    main()
