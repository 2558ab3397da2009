"""The `sine` command: its sub-commands, and the one place where errors become words and exit codes.

Exit codes: 0 done, 1 a failure, 2 a mistake of the user's, 130 interrupted (Ctrl-C,
SIGTERM or SIGHUP).
"""

import gc
import io
import os
import re
import shlex
import signal
import sys
from types import FrameType
from typing import Annotated

import typer

from sine_cli.cli import bases, compare, demo, edit, export, grid, init, score, show, tune, verify
from sine_cli.cli.interrupts import ENDING
from sine_cli.errors import Ended, Interrupted, SineError, ran_out

app = typer.Typer(
    name="sine",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _version(wanted: bool) -> None:
    if wanted:
        from sine_cli import __version__

        typer.echo(f"sine {__version__}")
        raise typer.Exit


@app.callback()
def sine(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Edit one picture with words.

    \b
    sine init girl.jpg --class painting      a project folder from a picture
    sine tune                                teach an adapter the picture
    sine edit "a sculpture of a girl"        pictures from words
    sine grid "a sculpture of a girl"        one prompt over K and v
    sine compare "a sculpture of a girl"     the same by other methods
    sine score girl/edits/*/*.png            pictures against words and source
    sine verify                              whether a project is sound
    sine export --format kohya               the adapter for other tools
    sine bases                               base models, and what is on this disk
    sine demo                                all of it on a shipped picture
    """


for command in (init, tune, edit, grid, compare, score, show, verify, export, bases, demo):
    app.command()(getattr(command, command.__name__.rpartition(".")[2]))


def main(arguments: list[str] | None = None, application: typer.Typer = app, name: str = "sine") -> None:
    """Run `sine` (or another application) with these arguments (None: the process's) and exit."""
    # Importing torch makes a million objects that stay: looking through them for garbage takes half a second
    gc.set_threshold(100_000, 50, 50)
    for number in ENDING:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _interrupt)
    _open_streams()
    code = run(sys.argv[1:] if arguments is None else arguments, application, name)
    gc.freeze()  # else Python looks through those million objects once more as it ends: a second
    sys.exit(code)


def _open_streams() -> None:
    """Processes are started without stdin, stdout or stderr too, or with such as do not have all letters."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _interrupt(number: int, frame: FrameType | None) -> None:
    """What is asked to end cleans up as at Ctrl-C."""
    raise Ended


def run(arguments: list[str], application: typer.Typer = app, name: str = "sine") -> int:
    """As `main`; the exit code. With SINE_DEBUG=1 errors come with their traceback."""
    try:
        return follow(arguments, application, name)
    except BrokenPipeError:
        # The reader of stdout went away (`sine show | head`): nothing more to say to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def follow(arguments: list[str], application: typer.Typer = app, name: str = "sine") -> int:
    """As `run`, but raises BrokenPipeError where the reader of stdout went away."""
    command_name = name
    try:
        command = typer.main.get_command(application)
        if arguments and arguments[0] in getattr(command, "commands", {}):
            command_name = f"{name} {arguments[0]}"
        # Not `app(...)`: it would turn an interruption or a closed pipe into a bare exit code.
        with command.make_context(name, list(arguments) or ["--help"]) as context:
            command.invoke(context)
        return 0
    except typer.Exit as done:
        return done.exit_code
    except KeyboardInterrupt as interrupt:
        if os.environ.get("SINE_DEBUG") == "1":
            raise
        _tell("interrupted", interrupt.hint if isinstance(interrupt, Interrupted) else None)
        return 130
    except SineError as error:
        if os.environ.get("SINE_DEBUG") == "1":
            raise
        _tell(error.message, error.hint)
        return error.exit_code
    except typer.TyperException as error:
        _tell(_WRONG_NUMBER.sub(_in_our_words, error.format_message()), _hint_for(error, command_name))
        return error.exit_code
    except (RuntimeError, MemoryError) as error:
        if not ran_out(error) or os.environ.get("SINE_DEBUG") == "1":
            raise
        _tell("memory ran out", "try `--memory low`, a smaller `--size`, or a smaller base")
        return 1
    except PermissionError as error:
        if error.filename is None or os.environ.get("SINE_DEBUG") == "1":
            raise
        from sine_cli.project.files import not_permitted

        told = not_permitted(error.filename)
        _tell(told.message, told.hint)
        return told.exit_code


_WRONG_NUMBER = re.compile(
    r"Invalid value for '(?P<option>[^']+)'.*: Input should be a valid (?P<kind>integer|number).*", re.DOTALL
)


def _in_our_words(match: "re.Match[str]") -> str:
    """What typer says in pydantic's words of an option that wants a number."""
    return f"{match['option']}: must be a {'whole number' if match['kind'] == 'integer' else 'number'}"


def _hint_for(error: typer.TyperException, name: str) -> str:
    """What to type after a mistake that typer found."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else name
    shows = f"`{path} --help` shows what it takes"
    taken = context.command.params if context is not None else []
    takes_prompt = any(each.name == "prompt" and each.param_type_name == "argument" for each in taken)
    if "extra argument" in error.format_message():
        if takes_prompt:
            return f'put a prompt in quotes: `{path} "a castle at night"`; {shows}'
        if any(each.name == "class_noun" for each in taken):
            return f'put a name or noun of several words in quotes: `-c "red house"`; {shows}'
    unknown = re.fullmatch(r"No such command '(?P<words>[^']+ [^']+)'\.", error.format_message())
    if unknown and "edit" in getattr(getattr(context, "command", None), "commands", {}):
        return f"did you mean `{path} edit {shlex.quote(unknown['words'])}`? {shows}"
    return shows


def _tell(message: str, hint: str | None) -> None:
    from sine_cli.console import write_error  # not before: Ctrl-C while it is imported is told too

    write_error(message, hint)
