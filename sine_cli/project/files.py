"""Files that appear whole or not at all, and how paths and failures of the disk are told to people.

Whatever is being written has a hidden name that carries the process, `.sine.yaml.1234@5f3a9c1e-0.partial`,
so that the next process can tell what a dead one left behind.
"""

import contextlib
import difflib
import errno
import functools
import hashlib
import itertools
import math
import os
import re
import shlex
import shutil
import socket
import stat
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from sine_cli.errors import SineError, UserError

_PROCESS = r"(?P<pid>[1-9][0-9]{0,8})(@(?P<machine>[0-9a-f]{8}))?"
_PARTIAL = re.compile(rf"\..+\.(?P<process>{_PROCESS})-[0-9]+\.partial", re.DOTALL)
_FORGOTTEN = 24 * 3600  # seconds after which what another machine left half done counts as abandoned
_NAME_KEPT = 40  # characters: a hidden name stays below the 255 bytes that file systems allow
_PART = 1024 * 1024  # bytes that are hashed at once: adapters can have gigabytes
_CLOCKS_APART = 3600  # seconds that a disk's server may be behind this machine
_serial = itertools.count()


def printable(text: str) -> str:
    """`text` on one line, with every character that a terminal cannot show escaped (`\\n`, `\\x1b`)."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def shown(path: Path) -> str:
    """How a message names `path`: relative to the working folder when it lies below it, else as given."""
    return printable(_from_here(path))


def _from_here(path: Path) -> str:
    if path.is_absolute():
        with contextlib.suppress(ValueError, FileNotFoundError):  # elsewhere; or the working folder is gone
            path = path.relative_to(Path.cwd())
    return str(path)


def typed(path: Path) -> str:
    """How a person types `path` in a command: relative as `shown`, quoted where a shell asks for it."""
    text = _from_here(path)
    text = f"./{text}" if text.startswith("-") else text
    if text.isprintable():
        return shlex.quote(text)
    return f"$'{''.join(map(_in_quotes, text))}'"


def _in_quotes(character: str) -> str:
    """A character between $'...': there a shell reads escapes."""
    if character in "\\'":
        return f"\\{character}"
    if character.isprintable():
        return character
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn what the disk refuses while `path` is written into a SineError that says what to do about it.

    Raises:
        SineError: disk full, no permission, read-only, or any other OSError of the system.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:  # not the system's: a library's own mistake
            raise
        raise _storage_error(path, error) from error


def _storage_error(path: Path, error: OSError) -> SineError:
    if error.errno == errno.ENAMETOOLONG:
        return UserError(f"{shown(path)}: the name is too long", "choose a shorter one")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return SineError(
            f"cannot write {shown(path)}: the disk is full",
            "free some space on that disk, then run the same command again",
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return SineError(
            f"cannot write {shown(path)}: permission denied",
            f"see who may write there with `ls -ld {typed(path.parent)}`, or work in a folder of your own",
        )
    return SineError(
        f"cannot write {shown(path)}: {error.strerror}",
        f"look at `ls -ld {typed(path.parent)}`, then run the same command again",
    )


def read_bytes(path: Path, *, limit: int | None = None) -> bytes:
    """The content of a file that the user named.

    Args:
        path: the file.
        limit: the most bytes it may have; None for no limit.

    Raises:
        UserError: no such file (with a close name of the same folder), not a file, no permission, too large.
    """
    with opened(path) as file:
        content = file.read(-1 if limit is None else limit + 1)
    if limit is not None and len(content) > limit:
        raise UserError(f"{shown(path)} is larger than {limit:,} bytes", "name the file that sine wrote")
    return content


def sha256(path: Path) -> str:
    """The hash of a file, hexadecimal. Raises UserError when it is not there or cannot be read."""
    digest = hashlib.sha256()
    with opened(path) as file:
        while part := file.read(_PART):
            digest.update(part)
    return digest.hexdigest()


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A file that the user named, for reading.

    Raises:
        UserError: as `read_bytes`; also where reading fails.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe or a device could keep us waiting for ever
            kind = "a folder" if path.is_dir() else "not a regular file"
            raise UserError(f"{shown(path)} is {kind}", "name a file")
        with path.open("rb") as file:
            yield file
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"no such file: {shown(path)}", _closest(path)) from error
    except PermissionError as error:
        raise not_permitted(path) from error
    except OSError as error:
        hint = f"look at it with `ls -l {typed(path)}`"
        raise UserError(f"cannot read {shown(path)}: {error.strerror}", hint) from error


def not_permitted(path: "str | Path") -> UserError:
    """What a person is told of a file that may not be read, or lies in a folder that may not be entered."""
    path = closed = Path(path)
    while closed.parent != closed and not os.access(closed.parent, os.X_OK):
        closed = closed.parent
    hint = f"see who may read it with `ls -ld {typed(closed)}`"
    return UserError(f"cannot read {shown(path)}: permission denied", hint)


def _closest(path: Path) -> str:
    """A hint for a name that is not there."""
    folder = path.parent
    if not folder.is_dir():
        return f"there is no folder {shown(folder)} either; `ls` shows what there is"
    try:
        names = [entry.name for entry in folder.iterdir()]
    except PermissionError:
        names = []
    close = difflib.get_close_matches(path.name, names, n=1)
    if close:
        return f"did you mean `{typed(folder / close[0])}`?"
    return f"`ls {typed(folder)}` shows what there is"


@dataclass(frozen=True)
class Process:
    """A process, as hidden names have it: `1234@5f3a9c1e`.

    Attributes:
        machine: a hash of the machine or container that its id belongs to; None is this one.
    """

    pid: int
    machine: str | None = None

    @staticmethod
    def this() -> "Process":
        return Process(os.getpid(), _this_machine())

    @staticmethod
    def named(text: str) -> "Process | None":
        """The one of that name; None where it is no such name."""
        match = re.fullmatch(_PROCESS, text)
        return Process(int(match["pid"]), match["machine"]) if match else None

    @property
    def name(self) -> str:
        return f"{self.pid}@{self.machine}" if self.machine else str(self.pid)

    @property
    def is_here(self) -> bool:
        """Whether it is, or was, of this machine."""
        return self.machine in (None, _this_machine())

    def is_at(self, path: Path) -> bool:
        """Whether it may be working on `path` still; of another machine, if that was changed within a day."""
        if self.is_here:
            with contextlib.suppress(OSError):
                return process_lives(self.pid, since=path.lstat().st_mtime)
            return process_lives(self.pid)
        with contextlib.suppress(OSError):
            return time.time() - path.lstat().st_mtime < _FORGOTTEN
        return False

    def __str__(self) -> str:
        return f"process {self.pid}" + ("" if self.is_here else " of another machine")


@functools.cache
def _this_machine() -> str:
    """Eight digits; hosts and containers that share a disk do not share their processes."""
    about = [socket.gethostname()]
    with contextlib.suppress(OSError):
        about.append(Path("/etc/machine-id").read_text("utf-8"))
    with contextlib.suppress(OSError):
        about.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("\n".join(about).encode()).hexdigest()[:8]


def process_lives(pid: int, *, since: float = math.inf) -> bool:
    """Whether a process of that id runs on this machine. On Windows always True: asking would end it.

    Args:
        since: a time at which it ran, in seconds of the epoch: one that began long after is another, which
            got the id of one that is no more. Only Linux tells when.
    """
    if sys.platform == "win32":
        return True
    if _began(pid) > since + _CLOCKS_APART:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def _began(pid: int) -> float:
    """When the process began, in seconds of the epoch; minus infinity where the system does not tell."""
    try:
        ticks = int(Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[19])
        boot = next(
            line for line in Path("/proc/stat").read_text("utf-8").splitlines() if line[:6] == "btime "
        )
        return int(boot.split()[1]) + ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, StopIteration):
        return -math.inf


def partial_path(path: Path) -> Path:
    """A new hidden name beside `path`, of this process, for what will take its place. Creates nothing."""
    return path.with_name(f".{path.name[:_NAME_KEPT]}.{Process.this().name}-{next(_serial)}.partial")


def remove_abandoned(path: Path) -> None:
    """Remove what dead processes left of writing `path`. What cannot be removed stays, silently."""
    prefix = f".{path.name[:_NAME_KEPT]}."
    with contextlib.suppress(OSError):
        for entry in list(path.parent.iterdir()):
            if entry.name.startswith(prefix) and is_abandoned(entry):
                remove(entry)


def is_abandoned(path: Path) -> bool:
    """Whether `path` is a partial file or folder (see `partial_path`) whose process is no longer there."""
    match = _PARTIAL.fullmatch(path.name)
    process = Process.named(match["process"]) if match else None
    return process is not None and not process.is_at(path)


def remove(path: Path) -> None:
    """Remove a file, a link or a whole folder, as far as the system lets us; links are not followed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A hidden path beside `path` to write a file to; on leaving, it takes `path`'s place, safe on the disk.

    When the body raises, or the disk refuses, `path` is as it was and nothing is left beside it.

    Raises:
        SineError: disk full, no permission, or another failure of the disk.
    """
    remove_abandoned(path)
    partial = partial_path(path)
    with storage_errors(path):
        try:
            yield partial
            flush_file(partial)
            partial.replace(path)
        finally:
            remove(partial)
        flush_folder(path.parent)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all. Raises SineError when the disk refuses."""
    with replacing(path) as partial:
        partial.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, line ends as given, whole or not at all. Raises SineError when the disk refuses."""
    write_bytes(path, text.encode("utf-8"))


def make_folder(path: Path) -> None:
    """Make a folder and those above it where they are not there. Raises SineError when the disk refuses."""
    with storage_errors(path):
        path.mkdir(parents=True, exist_ok=True)


def flush_file(path: Path) -> None:
    """Wait until a file's content is on the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def flush_folder(path: Path) -> None:
    """Wait until a folder's list of names is on the disk, where the system can."""
    if sys.platform == "win32":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot
            raise
    finally:
        os.close(descriptor)
