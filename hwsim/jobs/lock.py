"""A file that one run at a time may write."""

from __future__ import annotations

import os
from pathlib import Path

from hwsim.jobs.study import JobError
from numerics.errors import InputError


def _lock_path(path: Path) -> Path:
    # Not the database itself: closing any descriptor of it would drop SQLite's own locks (fcntl(2), "record locks").
    return path.with_name(path.name + ".lock")


def take_lock(path: Path) -> int:
    """A lock that the kernel drops when this process ends, however it ends.

    Raises:
        InputError: another process has it.
        JobError: it cannot be made.
    """
    import fcntl

    name = _lock_path(path)
    while True:
        try:
            descriptor = os.open(name, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise JobError(f"store: {str(name)!r} cannot be made: {error.strerror}") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(descriptor, 20).decode(errors="replace").strip()
            os.close(descriptor)
            who = f"process {holder}" if holder else "another process"
            raise InputError(f"store: {str(path)!r} is being written by {who}; wait for it or name another file") from None
        try:
            same = os.path.samestat(os.fstat(descriptor), os.stat(name))
        except FileNotFoundError:
            same = False
        if same:
            break
        # The former holder removed the file between our opening and locking it.
        os.close(descriptor)
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
    except OSError:
        pass  # The number only serves the message; a full disk is reported where it matters.
    return descriptor


def release_lock(path: Path, descriptor: int) -> None:
    """Let others write the file."""
    _lock_path(path).unlink(missing_ok=True)
    os.close(descriptor)
