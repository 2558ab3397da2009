"""What reaches the terminal is the text itself: no markup, no emoji codes, no wrapping, one JSON object."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sine_cli.console import Console, aligned, write_error
from tests.cli.conftest import without_pace

if TYPE_CHECKING:
    from tests.cli.conftest import Sine

Capsys = pytest.CaptureFixture[str]
ODD = "[red]:cat:[/red] https://example.org 0x1F " + "word " * 40 + "ünï"


def test_results_are_printed_as_they_are(capsys: Capsys) -> None:
    Console().result([ODD, "second"], {})
    assert capsys.readouterr() == (f"{ODD}\nsecond\n", "")


def test_notices_and_warnings_go_to_stderr_as_they_are(capsys: Capsys) -> None:
    console = Console()
    console.say(ODD)
    console.warn(ODD)
    assert capsys.readouterr() == ("", f"{ODD}\nwarning: {ODD}\n")


def test_json_is_one_object_with_its_letters_readable(capsys: Capsys) -> None:
    Console(as_json=True).result(["a line for people"], {"prompt": ODD, "file": Path("a/b"), "none": None})
    out, err = capsys.readouterr()
    assert json.loads(out) == {"prompt": ODD, "file": "a/b", "none": None, "warnings": []}
    assert "ünï" in out and out.endswith("}\n")
    assert err == ""


def test_quiet_leaves_results_alone(capsys: Capsys) -> None:
    console = Console(quiet=True)
    console.say("a notice")
    console.warn("a warning")
    with console.progress() as update:
        update(1, 1, "working")
    console.result(["a result"], {})
    assert capsys.readouterr() == ("a result\n", "")


def test_progress_on_a_file_is_a_line_at_each_tenth(capsys: Capsys) -> None:
    with Console().progress() as update:
        for done in range(1, 101):
            update(done, 100, "tuning")
    lines = capsys.readouterr().err.splitlines()
    assert [without_pace(line) for line in lines] == [f"tuning  {done}/100" for done in range(10, 101, 10)]
    assert all(re.fullmatch(r"tuning  \d+/100  \d+\.\d/s, \d+ s left", line) for line in lines)


def test_slow_work_on_a_file_gets_a_line_all_the_same(
    capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 10_000, 12))
    monkeypatch.setattr("time.monotonic", lambda: float(next(clock)))
    with Console().progress() as update:
        for done in range(1, 8):
            update(done, 1000, "tuning")
    lines = [without_pace(line) for line in capsys.readouterr().err.splitlines()]
    assert lines == ["tuning  4/1000", "tuning  7/1000"]


def test_progress_begins_anew_with_new_work(capsys: Capsys) -> None:
    with Console().progress() as update:
        for total in (2, 3):
            for done in range(1, total + 1):
                update(done, total, "work")
    assert without_pace(capsys.readouterr().err).split() == [
        "work",
        "1/2",
        "work",
        "2/2",
        *["work", "1/3", "work", "2/3", "work", "3/3"],
    ]


def test_progress_of_unknown_total_is_a_line_at_every_fiftieth_and_ends_as_any_other(capsys: Capsys) -> None:
    with Console().progress() as update:
        for done in range(1, 4):
            update(done, 3, "encoding")
        for done in range(1, 121):
            update(done, None, "tuning")
        for done in range(121, 141):
            update(done, 140, "tuning")
    lines = capsys.readouterr().err.splitlines()
    assert [without_pace(line) for line in lines] == [
        *(f"encoding  {done}/3" for done in (1, 2, 3)),
        "tuning  50/?",
        "tuning  100/?",
        *(f"tuning  {done}/140" for done in (121, 126, 140)),
    ]
    assert re.fullmatch(r"tuning  100/\?  \d+\.\d/s", lines[4])
    assert re.fullmatch(r"tuning  126/140  \d+\.\d/s, \d+ s left", lines[6])


def test_an_error_is_told_with_a_blank_line_before_its_hint(capsys: Capsys) -> None:
    write_error(f"girl is {ODD}", f"type {ODD}")
    assert capsys.readouterr() == ("", f"error: girl is {ODD}\n\nhint: type {ODD}\n")


def test_an_error_without_a_hint_is_one_line(capsys: Capsys) -> None:
    write_error("interrupted", None)
    assert capsys.readouterr() == ("", "error: interrupted\n")


def test_columns_are_aligned_and_never_wrapped() -> None:
    long = "word " * 30 + "end"
    assert aligned([("project", "girl"), ("source prompt", long), ("", "more")]) == [
        "project        girl",
        f"source prompt  {long}",
        "               more",
    ]


def test_emoji_codes_and_brackets_in_prompts_are_words(sine: "Sine", untuned: Path) -> None:
    manifest = untuned / "sine.yaml"
    text = manifest.read_text("utf-8")
    manifest.write_text(text.replace('source: "a sks painting"', 'source: "[b]a :dog:[/b]"'), "utf-8")
    assert 'source prompt  "[b]a :dog:[/b]"\n' in sine("show", "--project", untuned).out


def on_a_terminal(program: str, environment: dict[str, str]) -> str:
    """What a terminal is sent by a Python program whose stderr it is."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", program], stderr=theirs, env={**os.environ, "TERM": "xterm", **environment}
    ) as process:
        os.close(theirs)
        sent = b""
        try:
            while chunk := os.read(ours, 65536):
                sent += chunk
        except OSError:  # how Linux says that the other end is closed
            pass
        finally:
            os.close(ours)
    assert process.returncode == 0
    return sent.decode("utf-8")


BAR = """
from time import sleep
from sine_cli.console import Console
with Console().progress() as update:
    update(1, 4, "encoding")
    update(4, 4, "encoding")
    update(2, None, "looking")
    sleep(0.5)  # the bar is drawn ten times a second
    update(3, 10, "tuning  loss 0.5000")
"""


def test_progress_on_a_terminal_is_a_bar_that_goes_away() -> None:
    sent = on_a_terminal(BAR, {})
    assert "looking" in sent and "2/?" in sent
    assert "tuning  loss 0.5000" in sent and "3/10" in sent
    assert sent.rstrip().endswith("\x1b[2K")  # the line is cleared at the end


@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {"TERM": "unknown"}])
def test_progress_on_a_terminal_that_cannot_draw_is_lines(environment: dict[str, str]) -> None:
    sent = on_a_terminal(BAR, environment)
    assert [without_pace(line) for line in sent.splitlines()] == [
        "encoding  1/4",
        "encoding  4/4",
        "tuning  loss 0.5000  3/10",
    ]


def test_progress_in_a_file_is_lines_where_colours_are_forced(
    capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with Console().progress() as update:
        update(1, 2, "sampling")
    assert capsys.readouterr().err == "sampling  1/2\n"


ERROR = "from sine_cli.console import write_error; write_error('no such file', 'look')"


def test_an_error_is_red_on_a_terminal_unless_colours_are_unwanted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert on_a_terminal(ERROR, {}) == "error: no such file\r\n\r\nhint: look\r\n"
    monkeypatch.delenv("NO_COLOR")
    assert on_a_terminal(ERROR, {}) == "\x1b[1;31merror: no such file\x1b[0m\r\n\r\nhint: look\r\n"


# ----------------------------------------------------------------------------------------- readers that leave


def piped_to_nobody(*arguments: str, stream: str = "stdout") -> tuple[int, str]:
    """Exit code and the other stream of `sine` whose stdout or stderr has lost its reader."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "sine_cli", *arguments]
    out, err = (writer, subprocess.PIPE) if stream == "stdout" else (subprocess.PIPE, writer)
    try:
        done = subprocess.run(command, text=True, stdout=out, stderr=err)
    finally:
        os.close(writer)
    return done.returncode, done.stderr if stream == "stdout" else done.stdout


@pytest.mark.parametrize("command", ["show", "show --json", "--help", "--version", ""])
def test_a_reader_that_went_away_is_no_error(untuned: Path, command: str) -> None:
    code, err = piped_to_nobody(*command.split())
    assert (code, err) == (0, "project: girl\n" if command.startswith("show") else "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
@pytest.mark.parametrize("json", [[], ["--json"]])
def test_a_full_disk_behind_stdout_is_told(untuned: Path, json: list[str]) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "sine_cli", "show", "-q", *json]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (
        1,
        "error: cannot write to stdout: No space left on device\n\n"
        "hint: send it where there is room; what was made is there\n",
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
def test_work_goes_on_where_notices_find_no_room(picture: Path) -> None:
    command = ["init", str(picture), "--class", "girl", "--base", "mini"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "sine_cli", *command], stderr=full, stdout=subprocess.PIPE, text=True
        )
    assert done.returncode == 0
    assert done.stdout.startswith("girl  made from girl.jpg, 96 high, 72 wide\n")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_process_may_lack_streams(untuned: Path, closed: str) -> None:
    for command in ("show -p girl", "show -p girl --json", "edit - -p girl"):
        line = f"{sys.executable} -m sine_cli {command} {closed}"
        done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        assert done.returncode == (2 if command.startswith("edit") else 0)
        assert "Traceback" not in done.stderr


def test_letters_that_stdout_does_not_have_are_escaped(picture: Path) -> None:
    def ascii_only(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "sine_cli", *arguments],
            env={**os.environ, "PYTHONIOENCODING": "ascii"},
            capture_output=True,
            check=True,
        )
        return done.stdout.decode("ascii")

    init = ("init", str(picture), "--class", "château 🏰", "--base", "mini", "--dir", "été")
    assert ascii_only(*init).splitlines()[1] == 'source prompt  "a photo of a sks ch\\xe2teau \\U0001f3f0"'
    facts = json.loads(ascii_only("show", "-p", "été", "--json"))
    assert facts["manifest"]["prompts"]["class"] == "château 🏰"
    assert Path(facts["project"]).name == "été"


def test_work_goes_on_when_nobody_reads_the_notices(picture: Path) -> None:
    init = ("init", str(picture), "--class", "girl", "--base", "mini")
    code, out = piped_to_nobody(*init, stream="stderr")
    assert code == 0
    assert out.startswith("girl  made from girl.jpg, 96 high, 72 wide\n")
    assert piped_to_nobody(*init, stream="stderr") == (2, "")


def test_json_has_nothing_that_a_terminal_obeys(capsys: Capsys) -> None:
    hostile = "\x9b2J\x1b[2J\x7f\u202eabc\u2066\ud800"
    Console(as_json=True).result([], {"prompt": hostile})
    out = capsys.readouterr().out
    assert out.isascii() and out.replace("\n", "").isprintable()
    assert json.loads(out) == {"prompt": hostile, "warnings": []}
