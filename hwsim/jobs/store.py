"""The file a run writes: one SQLite database, whole after a kill at any moment.

Results are committed as they come, a batch whole or not at all. The write-ahead log makes a commit of a process that is killed
afterwards last; ``synchronous=NORMAL`` keeps the file whole through a loss of power as well, at the price of the last commits,
which a resumed run simply does again (SQLite documentation, "Write-Ahead Logging").
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwsim.jobs.lock import release_lock, take_lock
from hwsim.jobs.study import JobError, Results, differences
from hwsim.views.display import displayed, displaying
from numerics.errors import InputError

if TYPE_CHECKING:
    import sqlite3

APPLICATION_ID = 0x6877_6A73  # "hwjs", in the file's own header
LAYOUT = 1
PAGE = 4096
MAGIC = b"SQLite format 3\0"
SCHEMA = (
    "CREATE TABLE header (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE results (trial INTEGER PRIMARY KEY, row TEXT NOT NULL)",
    "CREATE TABLE failures (trial INTEGER, stop INTEGER, attempt INTEGER, final INTEGER NOT NULL, error TEXT NOT NULL,"
    " traceback TEXT NOT NULL, PRIMARY KEY (trial, stop, attempt)) WITHOUT ROWID",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {LAYOUT}",
)


@displayed
@dataclass(frozen=True, kw_only=True)
class Failure:
    """One attempt at the trials ``trial … stop-1`` that gave no rows.

    Attributes:
        attempt: counts from 1.
        final: no further attempt was made: these trials have no result.
        error: one line, ``ValueError: …`` or how the worker died.
        traceback: of the worker, empty where it died.
    """

    trial: int
    stop: int
    attempt: int
    final: bool
    error: str
    traceback: str = ""


@displaying("path", "identity")
class JobStore:
    """Rows and failures of one study. ``read`` opens a file to look at it, ``write`` to run the study into it."""

    def __init__(self, path: Path, connection: sqlite3.Connection, *, lock: int | None) -> None:
        self.path = path
        self._connection = connection
        self._lock = lock
        header = dict(self._read("SELECT name, value FROM header"))
        try:
            self.identity: dict[str, Any] = dict(json.loads(header["identity"]))
        except (KeyError, ValueError, TypeError):
            raise _damaged(path, "its header cannot be read") from None

    @classmethod
    def read(cls, path: str | Path) -> JobStore:
        """Open a file to read, also while a run is writing it.

        Raises:
            InputError: there is no such file, it is not one of ours, or it is damaged; also later, where that shows later.
        """
        path = Path(path)
        if not path.is_file():
            raise InputError(f"store: no file {str(path)!r}")
        connection = _connect(path)
        try:
            if not _is_ours(path, connection):
                raise InputError(f"store: {str(path)!r} holds no study yet")
            return cls(path, connection, lock=None)
        except BaseException:
            connection.close()
            raise

    @staticmethod
    def holds_study(path: str | Path) -> bool:
        """Whether there is a file with a study.

        Raises:
            InputError: somebody else's file, or a damaged one.
        """
        path = Path(path)
        if not path.is_file():
            return False
        connection = _connect(path)
        try:
            return _is_ours(path, connection)
        finally:
            connection.close()

    @classmethod
    def write(cls, path: str | Path, identity: Mapping[str, Any]) -> JobStore:
        """Open a file for the study of this identity, made if it is not there; nobody else can write it meanwhile.

        Raises:
            InputError: another run is writing the file; it is not one of ours or of another layout; it holds another study; it is
                damaged.
            JobError: the file cannot be made.
        """
        path = Path(path)
        if not path.parent.is_dir():
            raise InputError(f"store: {str(path)!r} lies in no folder that is there")
        if path.is_dir():
            raise InputError(f"store: expected a file, {str(path)!r} is a folder")
        lock = take_lock(path)
        try:
            connection = _connect(path)
            try:
                if _is_ours(path, connection):
                    _check_whole(path, connection)
                else:
                    _create(path, connection, identity)
                connection.execute("PRAGMA synchronous = NORMAL")
                store = cls(path, connection, lock=lock)
                unlike = differences(store.identity, dict(identity))
                if unlike:
                    shown = "; ".join(unlike[:3]) + (f" and {len(unlike) - 3} more" if len(unlike) > 3 else "")
                    raise InputError(f"store: {str(path)!r} holds another study ({shown}); name another file")
                return store
            except BaseException:
                connection.close()
                raise
        except BaseException:
            release_lock(path, lock)
            raise

    def __enter__(self) -> JobStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Fold the log into the file and let others write it. Closing twice is harmless."""
        self._connection.close()
        if self._lock is not None:
            release_lock(self.path, self._lock)
            self._lock = None

    def discard(self) -> None:
        """Close, and delete the file."""
        self._connection.close()
        for end in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + end).unlink(missing_ok=True)
        self.close()

    def _read(self, statement: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        import sqlite3

        try:
            return self._connection.execute(statement, values).fetchall()
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise _damaged(self.path, str(error)) from None

    @property
    def key(self) -> dict[str, Any]:
        """The study's own description."""
        return dict(self.identity["study"])

    @property
    def end(self) -> int | None:
        """The number of trials at which the run ended; ``None`` while it has not."""
        found = self._read("SELECT value FROM header WHERE name = 'end'")
        return int(found[0][0]) if found else None

    def results(self, start: int = 0, stop: int | None = None) -> Results:
        """``(trial, row)`` of the trials ``start … stop-1`` that have one, in trial order.

        A row of an aggregated study stands at the first trial of its batch.
        """
        for trial, text in self.lines(start, stop):
            try:
                row = json.loads(text)
            except (ValueError, TypeError):
                raise _damaged(self.path, f"the row of trial {trial} cannot be read") from None
            yield trial, row

    def lines(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, str]]:
        """As ``results``, each row still the JSON text that is stored."""
        last = (1 << 62) if stop is None else stop
        # Page by page: no read stays open that would hold up the folding of the log.
        while True:
            page = self._read(
                "SELECT trial, row FROM results WHERE trial >= ? AND trial < ? ORDER BY trial LIMIT ?", (start, last, PAGE)
            )
            yield from page
            if len(page) < PAGE:
                return
            start = page[-1][0] + 1

    def failures(self, *, final: bool | None = None) -> Iterator[Failure]:
        """Attempts that failed, by trial; only those that left trials without a result, or only the others."""
        for trial, stop, attempt, ended, error, traceback in self._read(
            "SELECT trial, stop, attempt, final, error, traceback FROM failures ORDER BY trial, stop, attempt"
        ):
            if final is None or final == bool(ended):
                yield Failure(trial=trial, stop=stop, attempt=attempt, final=bool(ended), error=error, traceback=traceback)

    def counts(self) -> tuple[int, int]:
        """Rows, and trials that failed for good."""
        rows = self._read("SELECT count(*) FROM results")[0][0]
        failed = self._read("SELECT coalesce(sum(stop - trial), 0) FROM failures WHERE final")[0][0]
        return rows, failed

    def add(self, rows: Iterable[tuple[int, str]], failures: Sequence[Failure] = ()) -> None:
        """Commit rows (as JSON text) and failures, all or none.

        Raises:
            JobError: the disk is full or fails; what was committed before is kept.
        """
        self._commit(
            ("INSERT OR REPLACE INTO results VALUES (?, ?)", rows),
            (
                "INSERT OR REPLACE INTO failures VALUES (?, ?, ?, ?, ?, ?)",
                [(f.trial, f.stop, f.attempt, f.final, f.error, f.traceback) for f in failures],
            ),
        )

    def done(self) -> Iterator[int]:
        """Increasing numbers of the trials that have a row or failed for good."""
        from heapq import merge

        failed = [trial for (trial,) in self._read("SELECT trial FROM failures WHERE final ORDER BY trial")]
        return merge(self._with_row(), failed)

    def _with_row(self) -> Iterator[int]:
        import sqlite3

        try:
            for (trial,) in self._connection.execute("SELECT trial FROM results ORDER BY trial"):
                yield trial
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise _damaged(self.path, str(error)) from None

    def forget_failures(self) -> None:
        """Trials that failed for good count as not run yet."""
        self._commit(("DELETE FROM failures WHERE final = ?", [(1,)]))

    def reopen(self, gaps: Iterable[tuple[int, int]] = ()) -> None:
        """Note that the run goes on; the trials in the gaps (``start``, ``stop``) are run again and start without failures."""
        ranges = list(gaps)
        if ranges or self.end is not None:
            self._commit(
                ("DELETE FROM header WHERE name = ?", [("end",)]),
                ("DELETE FROM failures WHERE trial >= ? AND trial < ?", ranges),
            )

    def finish(self, end: int) -> None:
        """Note that the study ended after ``end`` trials, and drop what workers had done beyond."""
        self._commit(
            ("DELETE FROM results WHERE trial >= ?", [(end,)]),
            ("DELETE FROM failures WHERE trial >= ?", [(end,)]),
            ("INSERT OR REPLACE INTO header VALUES ('end', ?)", [(str(end),)]),
        )

    def _commit(self, *statements: tuple[str, Iterable[tuple[Any, ...]]]) -> None:
        import sqlite3

        execute = self._connection.execute
        try:
            execute("BEGIN IMMEDIATE")
            for statement, rows in statements:
                self._connection.executemany(statement, rows)
            execute("COMMIT")
        except sqlite3.Error as error:
            # SQLite has often rolled back by itself after a full disk.
            if self._connection.in_transaction:
                execute("ROLLBACK")
            raise _broken(self.path, error) from error


def _connect(path: Path) -> sqlite3.Connection:
    import sqlite3

    # Autocommit: transactions are begun by hand, so nothing is open that is not meant to be.
    try:
        return sqlite3.connect(path, isolation_level=None, timeout=30.0)
    except sqlite3.Error as error:
        raise InputError(f"store: {str(path)!r} cannot be opened: {error}") from None


def _is_ours(path: Path, connection: sqlite3.Connection) -> bool:
    """Whether the file holds a study; False for a new one.

    Raises:
        InputError: somebody else's file, or one of another layout. It is left as it was.
    """
    import sqlite3

    try:
        with path.open("rb") as file:
            start = file.read(len(MAGIC))
    except OSError as error:
        raise InputError(f"store: {str(path)!r} cannot be read: {error.strerror}") from None
    foreign = InputError(f"store: {str(path)!r} is not a file of results; name another file")
    if start and start != MAGIC:
        raise foreign
    try:
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        layout = connection.execute("PRAGMA user_version").fetchone()[0]
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    except (sqlite3.Error, UnicodeDecodeError) as error:  # a name of its schema that is no text
        raise InputError(f"store: {str(path)!r} cannot be read: {error}") from None
    if application == 0 and tables == 0:
        return False
    if application != APPLICATION_ID:
        raise foreign
    if layout != LAYOUT:
        raise InputError(f"store: {str(path)!r} has layout {layout}, this version reads layout {LAYOUT}; name another file")
    return True


def _create(path: Path, connection: sqlite3.Connection, identity: Mapping[str, Any]) -> None:
    import sqlite3

    try:
        connection.execute("PRAGMA journal_mode = WAL")
        # One transaction: after a kill there is a whole study or an empty file.
        connection.execute("BEGIN IMMEDIATE")
        for statement in SCHEMA:
            connection.execute(statement)
        connection.execute("INSERT INTO header VALUES ('identity', ?)", (json.dumps(identity),))
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise _broken(path, error) from error


def _check_whole(path: Path, connection: sqlite3.Connection) -> None:
    """See that a file's pages hang together, before anything is added to them."""
    import sqlite3

    try:
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    except (sqlite3.Error, UnicodeDecodeError) as error:
        found = str(error)
    if found != "ok":
        raise _damaged(path, found)


def _damaged(path: Path, what: str) -> InputError:
    reason = " ".join(what.replace("***", "").split())
    return InputError(f"store: {str(path)!r} is damaged ({reason}); put a copy in its place, or name another file")


def _broken(path: Path, error: sqlite3.Error) -> JobError:
    return JobError(
        f"store: {str(path)!r} cannot be written: {error}; what was stored is kept: "
        "make room on the disk and run the same study again"
    )
