"""The file of a search: an SQLite database of Optuna with a study for each stage, which its dashboard reads."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from hwsim.jobs.lock import release_lock, take_lock
from hwsim.jobs.study import differences
from numerics.errors import InputError

STAGES = ("search", "random")
PLAN = "hwsim plan"
"""The attribute of a study that says what search it belongs to."""

Direction = Literal["minimize", "maximize"]

_MAGIC = b"SQLite format 3\0"


@contextmanager
def open_record(path: Path, plan: Mapping[str, Any], directions: Sequence[Direction]) -> Iterator[dict[str, Any]]:
    """The studies in a file, made where there is none; nobody else can write it meanwhile.

    Args:
        plan: plain data that everything in the file depends on.
        directions: Optuna's, one an objective.

    Raises:
        InputError: another run is writing the file, it is none of a search or one of another search, or it is damaged.
    """
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    if not path.parent.is_dir():
        raise InputError(f"store: {str(path)!r} lies in no folder that is there")
    if path.is_dir():
        raise InputError(f"store: expected a file, {str(path)!r} is a folder")
    lock = take_lock(path)
    try:
        fresh = _is_fresh(path)
        try:
            _use_log(path)
            storage = optuna.storages.RDBStorage(f"sqlite:///{path.resolve()}")
            try:
                names = optuna.get_all_study_names(storage)
                if not fresh and not set(names) <= set(STAGES):
                    raise InputError(f"store: {str(path)!r} is not a file of hwsim.search; name another file")
                plain = json.loads(json.dumps(dict(plan), allow_nan=False, default=str))
                yield {stage: _study(storage, stage, names, plain, directions, path) for stage in STAGES}
            finally:
                storage.engine.dispose()
        except (SQLAlchemyError, optuna.exceptions.OptunaError) as error:
            reason = " ".join(str(getattr(error, "orig", None) or error).split())
            raise InputError(f"store: {str(path)!r} cannot be used: {reason}; name another file") from None
    finally:
        release_lock(path, lock)


def read_record(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The studies in a file, also while it is being written, and the plan they follow.

    Raises:
        InputError: no such file, or none of a search.
    """
    import optuna

    if not path.is_file() or _is_fresh(path):
        raise InputError(f"store: {str(path)!r} holds no search yet")
    storage = optuna.storages.RDBStorage(f"sqlite:///{path.resolve()}")
    if not set(optuna.get_all_study_names(storage)) >= set(STAGES):
        raise InputError(f"store: {str(path)!r} holds no search yet")
    studies = {stage: optuna.load_study(storage=storage, study_name=stage) for stage in STAGES}
    return studies, dict(studies[STAGES[0]].user_attrs.get(PLAN) or {})


def _use_log(path: Path) -> None:
    """Commits to a write-ahead log: tens of times faster, and as whole after a kill; the mode stays with the file."""
    import sqlite3

    connection = sqlite3.connect(path)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
    except sqlite3.Error as error:
        raise InputError(f"store: {str(path)!r} cannot be written: {error}") from None
    finally:
        connection.close()


def _is_fresh(path: Path) -> bool:
    """Whether there is nothing in the file yet.

    Raises:
        InputError: it is no database, or one of another program.
    """
    import sqlite3

    if not path.exists():
        return True
    try:
        with path.open("rb") as file:
            start = file.read(len(_MAGIC))
    except OSError as error:
        raise InputError(f"store: {str(path)!r} cannot be read: {error.strerror}") from None
    if not start:
        return True
    foreign = InputError(f"store: {str(path)!r} is not a file of hwsim.search; name another file")
    if start != _MAGIC:
        raise foreign
    try:
        connection = sqlite3.connect(path)
        try:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise InputError(f"store: {str(path)!r} is damaged ({error}); put a copy in its place, or name another file") from None
    if tables and not {"studies", "trials", "trial_params"} <= tables:
        raise foreign
    return not tables


def _study(
    storage: Any, stage: str, names: Sequence[str], plan: Mapping[str, Any], directions: Sequence[Direction], path: Path
) -> Any:
    import optuna

    if stage not in names:
        study = optuna.create_study(storage=storage, study_name=stage, directions=list(directions))
        study.set_user_attr(PLAN, dict(plan))
        return study
    study = optuna.load_study(storage=storage, study_name=stage)
    stored = study.user_attrs.get(PLAN)
    if stored is None:  # stopped between the two steps above
        study.set_user_attr(PLAN, dict(plan))
        return study
    unlike = differences(stored, dict(plan))
    if unlike:
        shown = "; ".join(unlike[:3]) + (f" and {len(unlike) - 3} more" if len(unlike) > 3 else "")
        raise InputError(f"store: {str(path)!r} holds another search ({shown}); name another file")
    return study
