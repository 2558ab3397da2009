"""`sine` as real processes without the seconds of importing: forked from one that has imported it all.

Only for programs that compute nothing with torch themselves: a fork does not take its threads along.
"""

import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

FILE_OPERATIONS = {"open", "os.mkdir", "os.remove", "os.rename", "os.rmdir"}
"""What an audit hook hears of, and what leaves traces in a folder."""


POLL = 0.002
"""Seconds between two looks at a child."""


def import_all() -> list[ModuleType]:
    """Everything that the commands import, so that children need not; before anything imports numpy."""
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    import sine_cli.cli.main
    import sine_cli.scoring.clip
    import sine_cli.workflow.edit
    import sine_cli.workflow.grid
    import sine_cli.workflow.init
    import sine_cli.workflow.tune

    assert len(os.listdir("/proc/self/task")) == 1, "a fork takes one thread along"
    return [sine_cli.cli.main]


def below(path: object, root: str) -> bool:
    """Whether what an audit hook was given is a path in `root`."""
    return isinstance(path, str | bytes | Path) and os.path.abspath(os.fsdecode(path)).startswith(root)


class Child:
    """`sine ARGUMENTS` in the folder `cwd`, whose output goes to the file `log`.

    Args:
        on_operation: called in the child before its n-th file operation in `cwd`, with n, from 1.
        stdin: what it reads there.
    """

    def __init__(
        self,
        arguments: list[str],
        cwd: Path,
        log: Path,
        on_operation: Callable[[int], None] | None = None,
        stdin: bytes = b"",
    ) -> None:
        self.arguments, self.log = arguments, log
        self.started = time.monotonic()
        self.code: int | None = None
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            code = 70  # as for a traceback; whatever comes, the child goes no further than this
            try:
                code = _run(arguments, cwd, log, on_operation, stdin)
            finally:
                os._exit(code)

    def ended(self) -> bool:
        """Whether it has; `code` is then the exit code, negative for the signal that ended it."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code is not None

    def wait(self, seconds: float = 300) -> int:
        """The exit code. Raises TimeoutError, and kills, where it does not end in time."""
        looks = int(seconds / POLL)  # counted, so that a time in which both are stopped is none
        while not self.ended():
            looks -= 1
            if looks < 0:
                os.kill(self.pid, signal.SIGKILL)
                raise TimeoutError(f"sine {' '.join(self.arguments)} did not end")
            time.sleep(POLL)
        assert self.code is not None
        return self.code

    def output(self) -> str:
        """Stdout and stderr so far."""
        return self.log.read_text("utf-8", "replace")


def _run(
    arguments: list[str], cwd: Path, log: Path, on_operation: Callable[[int], None] | None, stdin: bytes
) -> int:
    """What the child does; its exit code."""
    from sine_cli.cli.main import main

    signal.signal(signal.SIGINT, signal.default_int_handler)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    with tempfile.TemporaryFile() as file:
        file.write(stdin)
        file.seek(0)
        os.dup2(file.fileno(), 0)
    os.chdir(cwd)
    if on_operation:
        _count_operations(str(cwd.resolve()), on_operation)
    code = 0
    try:
        main(arguments)
    except SystemExit as done:
        code = done.code if isinstance(done.code, int) else 0
    except BaseException:  # as the interpreter does
        traceback.print_exc()
        code = 70
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def _count_operations(root: str, on_operation: Callable[[int], None]) -> None:
    count = 0

    def hook(event: str, given: tuple[object, ...]) -> None:
        nonlocal count
        if event in FILE_OPERATIONS and below(given[0], root):
            count += 1
            on_operation(count)

    sys.addaudithook(hook)
