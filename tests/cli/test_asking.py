"""`sine edit -` at a terminal: it asks for one prompt after another, and loads once."""

import os
import re
import select
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image
from torch import Tensor

from sine_cli.errors import Ended
from sine_cli.models.autoencoder import Autoencoder

if TYPE_CHECKING:
    from tests.cli.conftest import Sine

SMALL = ("--project", "girl", "--size", "16x24", "--steps", "2", "-s", "3")
LOADING = "loading `mini`; then a prompt a line, Ctrl-D ends\n"
NOTICE = "warning: 16x24 is less than a quarter .*\n"
"""Given once."""

SAMPLED = r"(?:sampling .*\n)+\d+\.\d s of sampling, peak memory \d+\.\d GiB\n"


def made(out: str) -> list[bytes]:
    """The pixels of the pictures that these lines name."""
    return [Image.open(line.partition("  ")[0]).tobytes() for line in out.splitlines()]


def test_each_line_is_made_at_once_as_by_a_command_of_its_own(sine: "Sine", girl: Path) -> None:
    done = sine("edit", "-", *SMALL, typed=["a boat", "  ", " a [*] tree"])
    assert done.code == 0
    assert [re.sub(r"/\d[\d_-]+_", "/", line) for line in done.out.splitlines()] == [
        f"girl/edits/{name}/0001.png  16 high, 24 wide, seed 3" for name in ("a-boat", "a-sks-tree")
    ]
    said = rf"{LOADING}prompt: {NOTICE}{SAMPLED}prompt: prompt: {SAMPLED}prompt: \n"
    assert re.fullmatch(said, done.err), done.err
    alone = [sine("edit", prompt, *SMALL).out for prompt in ("a boat", "a sks tree")]
    assert made(done.out) == made("".join(alone))


def test_a_line_that_is_no_prompt_is_told_and_the_next_is_asked_for(sine: "Sine", girl: Path) -> None:
    done = sine("edit", "-", *SMALL, "--quiet", typed=["a\x07 boat", "a boat"])
    assert done.code == 0
    assert done.err == 'error: the prompt "a\\x07 boat" has control characters\n\nhint: type it anew\n'
    assert len(done.out.splitlines()) == 1


def test_what_needs_no_prompt_is_checked_before_the_first_is_asked_for(sine: "Sine", untuned: Path) -> None:
    done = sine("edit", "-", *SMALL, typed=["a boat"])
    assert done.code == 2
    assert done.err.startswith("error: girl is not tuned yet\n")


def test_json_reads_all_lines_first(sine: "Sine", girl: Path) -> None:
    done = sine("edit", "-", *SMALL, "--json", stdin=b"a boat\n", typed=[])
    assert done.code == 0
    assert done.out.startswith("{\n")


@pytest.mark.parametrize(("raised", "code", "pictures"), [(KeyboardInterrupt, 0, 1), (Ended, 130, 0)])
def test_ctrl_c_lets_a_picture_go_and_an_end_ends(
    sine: "Sine",
    girl: Path,
    monkeypatch: pytest.MonkeyPatch,
    raised: type[BaseException],
    code: int,
    pictures: int,
) -> None:
    expected = made(sine("edit", "a tree", *SMALL).out)
    decode, calls = Autoencoder.decode, iter([raised])

    def interrupted_once(self: Autoencoder, latents: Tensor) -> list[Image.Image]:
        for error in calls:
            raise error
        return decode(self, latents)

    monkeypatch.setattr(Autoencoder, "decode", interrupted_once)
    done = sine("edit", "-", *SMALL, typed=["a boat", "a tree"])
    assert (done.code, len(done.out.splitlines())) == (code, pictures)
    assert made(done.out) == expected[:pictures]
    assert ("interrupted; Ctrl-D ends\n" in done.err) == (code == 0)
    assert not [*(girl / "edits").glob(".*"), *(girl / "edits").glob("*_a-boat")]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
@pytest.mark.parametrize(("ends", "code"), [(b"\x04", 0), (b"\x03", 130)])
def test_at_a_real_terminal(girl: Path, ends: bytes, code: int) -> None:
    import pty

    process, screen = pty.fork()
    if process == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.execv(sys.executable, [sys.executable, "-m", "sine_cli", "edit", "-", *SMALL])
    try:
        until(screen, "prompt: ")
        os.write(screen, b"a boat\n")
        assert "a-boat/0001.png  16 high, 24 wide, seed 3" in until(screen, "prompt: ")
        time.sleep(0.5)  # a person cannot end it within the call that asks
        os.write(screen, ends)
        rest = until(screen, None)
        assert ("error: interrupted" in rest) == (code == 130)
        assert "Traceback" not in rest
    finally:
        os.kill(process, signal.SIGKILL)
        status = os.waitpid(process, 0)[1]
        os.close(screen)
    assert os.waitstatus_to_exitcode(status) == code


def until(screen: int, text: str | None, seconds: float = 60) -> str:
    """What the terminal shows until it shows the text, None: until the process has ended."""
    shown = ""
    while text is None or text not in shown:
        assert select.select([screen], [], [], seconds)[0], shown
        try:
            shown += os.read(screen, 4096).decode()
        except OSError:  # Linux: the other side is closed
            break
    return shown
