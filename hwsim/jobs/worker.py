"""What happens in a worker: the study's state is made once, then batches are run and their rows turned to text."""

from __future__ import annotations

import json
import os
import pickle
import signal
import sys
import threading
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
MOST_TRACEBACK = 4000

# What a worker needs of a study: setup, run, aggregated.
Kit = tuple[Callable[[], Any], Callable[[Any, range], Sequence[dict[str, Any]]], bool]
# The kit, pickled for another process or as it is for this one; None where the worker should have it by now.
Parcel = bytes | Kit | None

_parcels: dict[str, bytes] = {}
# By thread, not by process: a model whose layers are changed in place serves one thread at a time.
_ready = threading.local()


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one batch: rows as JSON text, or the error."""

    rows: tuple[str, ...] | None
    error: str = ""
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """Of one chunk: its batches in order.

    Attributes:
        missing: the worker has no kit of this study; send it along.
        setup_error: the state could not be made; no batch was run.
        elapsed_s: time in ``run``, setup apart.
    """

    outcomes: tuple[Outcome, ...] = ()
    missing: bool = False
    setup_error: str = ""
    elapsed_s: float = 0.0


def work(token: str, parcel: Parcel, bounds: array[int]) -> Reply:
    """Run batches of the study whose fingerprint is ``token``; never raises for what the study does.

    Args:
        bounds: start and stop of each batch, in turn.
    """
    try:
        kit = _kit(token, parcel)
    except Exception as error:
        return Reply(setup_error=one_line(error))
    if kit is None:
        return Reply(missing=True)
    run, state, aggregated = kit
    start_s = time.perf_counter()
    outcomes = tuple(
        _outcome(run, state, range(start, stop), aggregated) for start, stop in zip(bounds[::2], bounds[1::2], strict=True)
    )
    return Reply(outcomes=outcomes, elapsed_s=time.perf_counter() - start_s)


def start_worker(token: str, parcel: bytes) -> None:
    """First thing in a process of our own pool."""
    # Ctrl-C reaches the whole group of processes; the coordinator alone answers it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()
    use_one_thread()
    _parcels[token] = parcel


def use_one_thread() -> None:
    """One computing thread in this process: workers share the cores, and sums come out the same for any number of them."""
    for name in (*THREAD_VARIABLES, "NUMBA_NUM_THREADS"):
        os.environ[name] = "1"
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    if "numba" in sys.modules:
        sys.modules["numba"].set_num_threads(1)


@contextmanager
def one_thread_here() -> Iterator[None]:
    """As in a worker, for trials run in this very process; undone afterwards."""
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    torch = sys.modules.get("torch")
    threads = torch.get_num_threads() if torch else None
    # Numba is left alone: it refuses a changed variable once its threads run, and its kernels give the same bits on any number.
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    if torch:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if torch and threads is not None:
            torch.set_num_threads(threads)


def _follow_parent() -> None:
    """End with the coordinator: a pool whose owner is killed would otherwise wait for work for ever."""
    import multiprocessing

    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _kit(token: str, parcel: Parcel) -> tuple[Callable[[Any, range], Any], Any, bool] | None:
    if getattr(_ready, "token", None) != token:
        parcel = _parcels.get(token) if parcel is None else parcel
        if parcel is None:
            return None
        _ready.token = None  # The former study's state goes before the new one is made.
        _ready.kit = None
        setup, run, aggregated = pickle.loads(parcel) if isinstance(parcel, bytes) else parcel
        _ready.kit = (run, setup(), aggregated)
        _ready.token = token
    kit: tuple[Callable[[Any, range], Any], Any, bool] = _ready.kit
    return kit


def forget() -> None:
    """Let go of the state kept in this thread."""
    _ready.token = _ready.kit = None


def _outcome(run: Callable[[Any, range], Any], state: Any, trials: range, aggregated: bool) -> Outcome:
    try:
        rows = run(state, trials)
        expected = 1 if aggregated else len(trials)
        if len(rows) != expected:
            raise ValueError(f"run gave {len(rows)} rows for {len(trials)} trials, expected {expected}")
        return Outcome(rows=tuple(_encode(row) for row in rows))
    except (Exception, SystemExit) as error:
        import traceback

        text = "".join(traceback.format_exception(error))
        return Outcome(rows=None, error=one_line(error), traceback=text[-MOST_TRACEBACK:])


def _number(value: Any) -> Any:
    """NumPy's and torch's scalars, as the number they hold."""
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return value.item()
    raise TypeError(f"a row holds a {type(value).__name__}, which JSON cannot; expected numbers, texts, lists and dicts of them")


_encode = json.JSONEncoder(separators=(",", ":"), default=_number, check_circular=False).encode


def one_line(error: BaseException) -> str:
    """``KindOfError: its text``, without line breaks."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
