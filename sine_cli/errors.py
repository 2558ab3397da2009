"""What can go wrong, said so that a person can act: what, where, and the next thing to type.

Every floor may import this file; it imports nothing. Only `cli` catches these errors.
"""


class SineError(Exception):
    """A failure with a message for people and, where there is one, the next thing to type.

    Args:
        message: what is wrong and where, one line, naming the file or the field.
        hint: what to do about it, one line, with the command to type between backquotes.

    `exit_code` is the process's: 1 for a failure of the work or the machine.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UserError(SineError):
    """A mistake of the user's: a wrong value, a missing file, a project that is not tuned. Exit code 2."""

    exit_code = 2


class Interrupted(KeyboardInterrupt):
    """Ctrl-C where what was done so far is kept; `hint` says how it goes on."""

    def __init__(self, hint: str) -> None:
        super().__init__(hint)
        self.hint = hint


class Ended(KeyboardInterrupt):
    """The process is asked to end, by SIGTERM or SIGHUP; who types Ctrl-C may mean the work at hand alone."""


_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "bad_alloc", "ALLOC_FAILED")


def ran_out(error: RuntimeError | MemoryError) -> bool:
    """Whether memory ran out, on the accelerator or the CPU; what asked for it may be tried again in parts.

    torch says so by a class of its own for CUDA alone; MPS, cuBLAS and the CPU's allocator by the text.
    """
    return isinstance(error, MemoryError) or any(text in str(error) for text in _OUT_OF_MEMORY)
