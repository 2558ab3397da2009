"""What people and scripts see: results on stdout; progress, notices, warnings and errors on stderr.

The only file that imports rich. `--json` makes stdout one object; `--quiet` keeps stderr to errors.
"""

import json
import os
import re
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from rich.console import Console as RichConsole
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from sine_cli.errors import SineError, UserError

Update = Callable[[int, int | None, str], None]
"""(done, total, description) of the work under way; the total is None where it is not known yet."""

_NOT_PLAIN = "[\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
"""Controls, changes of direction, and halves of characters."""

LONGEST_SILENCE = 30
"""Seconds after which work that goes slowly gets a line all the same."""

LINE_EVERY = 50
"""Of work without a known total, how much is done between two lines."""


BIDI = {*"\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"}
"""Characters that turn the order of others around."""

UNSEEN = ("Cc", "Cs", "Zl", "Zp")
"""Categories of Unicode: control characters, halves of one, and line ends of other kinds."""


class _Plain(RichConsole):
    """Text as it is, but harmless: no markup, no emoji codes (`:cat:` is a word), no wrapping."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)

    def print(self, *objects: Any, **options: Any) -> None:
        try:
            super().print(*(harmless(each) if isinstance(each, str) else each for each in objects), **options)
        except OSError:  # a full disk, a terminal that was closed
            if not self.stderr:
                raise
            self.on_broken_pipe()

    def on_broken_pipe(self) -> None:
        """A result that nobody reads ends the command (see `main`); notices that nobody reads do not."""
        if not self.stderr:
            raise BrokenPipeError
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


class Console:
    """Where a command reports.

    Args:
        as_json: print one JSON object on stdout, and nothing else there.
        quiet: no progress and no notices.
    """

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self.warnings: list[str] = []
        self._out = _Plain()
        self._err = _Plain(stderr=True)

    def result(self, lines: list[str], facts: dict[str, Any]) -> None:
        """The outcome of a command: lines for a person, or the facts as one JSON object for a script."""
        with _stdout_errors():
            if self.as_json:
                facts = {**facts, "warnings": self.warnings}
                utf8 = sys.stdout.encoding.lower().replace("-", "") == "utf8"
                text = json.dumps(facts, ensure_ascii=not utf8, indent=2, default=str)
                # What a terminal obeys, and what in a path is not UTF-8: JSON has a way to write them too.
                sys.stdout.write(re.sub(_NOT_PLAIN, lambda odd: f"\\u{ord(odd[0]):04x}", text) + "\n")
            else:
                for line in lines:
                    self._out.print(line)
            sys.stdout.flush()

    def say(self, text: str) -> None:
        """A notice to a person."""
        if not self.quiet:
            self._err.print(text)

    def note(self, text: str) -> None:
        """A notice that scripts find in the JSON object too."""
        self.warnings.append(text)
        self.say(text)

    def warn(self, text: str) -> None:
        """Something that a person should know and need not act on, told once; scripts find it in the JSON
        object."""
        if text in self.warnings:
            return
        self.warnings.append(text)
        if not self.quiet:
            self._err.print(f"warning: {text}")

    def ask(self, question: str) -> str | None:
        """A line from the terminal, which may be edited as in a shell; None where it ends (Ctrl-D).

        Raises:
            UserError: it is no text.
        """
        with suppress(ImportError):  # not on Windows, whose terminal edits lines itself
            import readline  # noqa: F401 (`input` edits lines by it)
        try:
            if not self.quiet and not sys.stdout.isatty():
                self._err.print(question, end="")
                question = ""
            return input("" if self.quiet else question)
        except (EOFError, KeyboardInterrupt) as end:
            self.say("")  # what follows stands on a line of its own
            if isinstance(end, KeyboardInterrupt):
                raise
            return None
        except UnicodeDecodeError as error:
            raise UserError("stdin is not UTF-8 text", "type it anew") from error

    @contextmanager
    def progress(self) -> Iterator[Update]:
        """A progress bar with the time left; where a line cannot be drawn anew, a line at each tenth.

        Without a known total there is no time left, and a line at every `LINE_EVERY`. Slow work gets a line
        after `LONGEST_SILENCE` too.
        """
        if self.quiet:
            yield lambda done, total, description: None
        elif sys.stderr.isatty() and not self._err.is_dumb_terminal:
            yield from self._bar()
        else:
            yield self._tenths()

    def _bar(self) -> Iterator[Update]:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Speed(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._err, transient=True) as bars:
            task = bars.add_task("", total=None)

            def update(done: int, total: int | None, description: str) -> None:
                nonlocal task
                if bars.tasks[0].total != total or done < bars.tasks[0].completed:
                    bars.remove_task(task)  # `reset` takes no total for the one before
                    task = bars.add_task("", total=total)
                bars.update(task, completed=done, description=description)

            yield update

    def _tenths(self) -> Update:
        known: int | None = 0
        printed = last = first = 0
        started = told = time.monotonic()

        def update(done: int, total: int | None, description: str) -> None:
            nonlocal known, printed, last, first, started, told
            now = time.monotonic()
            if total != known or done < last:  # new work
                known, printed, first, started, told = total, 0, done, now, now
            last = done
            part = done // LINE_EVERY if total is None else 10 * done // total
            if part == printed and now - told < LONGEST_SILENCE:
                return
            printed, told = part, now
            pace = ""
            if done > first:
                speed = (done - first) / max(now - started, 1e-9)
                pace = f"  {speed:.1f}/s"
                if total is not None:
                    pace += f", {(total - done) / speed:.0f} s left"
            self._err.print(f"{description}  {done}/{'?' if total is None else total}{pace}")

        return update


class _Speed(ProgressColumn):
    """Steps a second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f}/s" if task.speed else "")


@contextmanager
def _stdout_errors() -> Iterator[None]:
    """What keeps stdout from being written, in words. Where its reader went away, see `main`."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        # Else Python tries once more as it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SineError(
            f"cannot write to stdout: {error.strerror}", "send it where there is room; what was made is there"
        ) from error


def aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Columns as lines, each column at one place."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]


def counted(number: int, noun: str) -> str:
    """ "1 picture", "3 pictures"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def harmless(text: str) -> str:
    """The text with what a terminal would obey escaped: a stranger's words are shown, not followed."""
    return "".join(
        character.encode("unicode_escape").decode("ascii")
        if character in BIDI or (character != "\n" and unicodedata.category(character) in UNSEEN)
        else character
        for character in text
    )


def write_error(message: str, hint: str | None) -> None:
    """`error: ...`, a blank line, `hint: ...` on stderr."""
    console = _Plain(stderr=True)
    console.print(f"error: {_one_line(message)}", style=None if os.environ.get("NO_COLOR") else "bold red")
    if hint:
        console.print(f"\nhint: {_one_line(hint)}")


def _one_line(text: str) -> str:
    return text.replace("\n", "\\n")
