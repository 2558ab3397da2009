"""One process at a time: who tunes a project holds its lock, and who comes second is told who that is.

The lock is the system's own and dies with its holder, so a dead one's is simply taken over. Its file says who
holds it and since when, and goes with the work; what a killed holder leaves of it is idle, and the next
command that writes to the project removes it.
"""

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from filelock import FileLock, SoftFileLock, Timeout

from sine_cli.errors import UserError
from sine_cli.project import files

PATIENCE = 0.5
"""Seconds that a lock is asked for: `remove_idle` may have it for a moment."""

_SIGNATURE = re.compile(r"([1-9][0-9]{0,8}) (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)\n", re.ASCII)
_LONGEST = 64  # bytes of a signature


@dataclass(frozen=True)
class Holder:
    """A living process that holds a lock, and its local time of taking it, `2026-11-23 09:10:11`."""

    pid: int
    since: str


@contextlib.contextmanager
def held(path: Path, doing: str) -> Iterator[None]:
    """Hold the lock whose file is `path` while the body runs.

    Args:
        doing: what holding it means, for who is refused: "girl is being tuned".

    Raises:
        UserError: a living process holds it.  SineError: no permission, or another failure of the disk.
    """
    lock = FileLock(path)
    with files.storage_errors(path):
        try:
            lock.acquire(timeout=PATIENCE)
        except Timeout as error:
            raise _refusal(path, doing) from error
    try:
        if not isinstance(lock, SoftFileLock):  # else: no locks in this file system, and the file is its own
            with files.storage_errors(path):
                path.write_text(f"{os.getpid()} {datetime.now():%Y-%m-%d %H:%M:%S}\n", "utf-8")
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()  # still held: who waits at the nameless file finds out, and asks again
        lock.release()


def _refusal(path: Path, doing: str) -> UserError:
    there = holder(path)
    if there is None:  # another machine's, on a shared disk
        return UserError(f"{doing} by another process", "wait for it, then run the same command again")
    return UserError(
        f"{doing} by process {there.pid}, since {there.since}",
        f"wait for it, or stop it: `kill {there.pid}`",
    )


def holder(path: Path) -> Holder | None:
    """Who holds the lock as far as its file tells; None where nobody alive does. Takes no lock itself."""
    try:
        signature = files.read_bytes(path, limit=_LONGEST).decode("ascii")
    except (UserError, UnicodeDecodeError):
        return None
    match = _SIGNATURE.fullmatch(signature)
    if match is None:
        return None
    try:
        since = datetime.strptime(match[2], "%Y-%m-%d %H:%M:%S").timestamp()
    except ValueError:
        return None
    if not files.process_lives(int(match[1]), since=since):
        return None
    return Holder(int(match[1]), match[2])


def remove_idle(path: Path) -> None:
    """Remove the file of a lock that a dead process held; one that is held, or may not be touched, stays."""
    if not path.is_file() or path.is_symlink() or holder(path) is not None:
        return
    lock = FileLock(path)
    with contextlib.suppress(OSError):  # Timeout is one
        lock.acquire(blocking=False)
        path.unlink()
    lock.release()
