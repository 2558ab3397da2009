"""The command line in process: `sine("edit", "a boat")` gives exit code, stdout and stderr."""

import io
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image, ImageDraw

from sine_cli.cli.main import run


class Outcome(NamedTuple):
    """Exit code, stdout, stderr."""

    code: int
    out: str
    err: str


def without_pace(text: str) -> str:
    """Progress lines without speed and time left, which differ from run to run."""
    return re.sub(r"  [0-9.]+/s(, [0-9]+ s left)?", "", text)


class _Typist:
    """In place of `input`."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = iter(lines)

    def __call__(self, question: str) -> str:
        for line in self._lines:
            return line
        raise EOFError


class Sine:
    """`sine` in this process, as a person would call it."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capsys, self._monkeypatch = capsys, monkeypatch

    def __call__(
        self, *arguments: str | Path, stdin: bytes = b"", typed: Iterable[str] | None = None
    ) -> Outcome:
        """With `typed`, stdin is a terminal where a person types these lines, then Ctrl-D."""
        self._monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        if typed is not None:
            self._monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
            self._monkeypatch.setattr("builtins.input", _Typist(typed))
        self._capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        shown = self._capsys.readouterr()
        return Outcome(code, shown.out, without_pace(shown.err))


@pytest.fixture
def sine(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Sine:
    return Sine(capsys, monkeypatch)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No hub, also where another test had its library read the environment before."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def draw_girl(path: Path) -> Path:
    """A picture that is not shipped: 96 high, 72 wide."""
    image = Image.new("RGB", (72, 96), (150, 190, 220))
    draw = ImageDraw.Draw(image)
    draw.rectangle((12, 60, 60, 96), fill=(170, 40, 50))
    draw.ellipse((20, 12, 52, 60), fill=(230, 190, 160))
    draw.chord((16, 8, 56, 52), 180, 360, fill=(60, 35, 20))
    image.save(path)
    return path


def make_small(manifest: Path, *, preview_every: int = 0) -> None:
    """Edit a manifest as a person would, so that tuning takes a second."""
    text = manifest.read_text("utf-8")
    for name, value in {"steps": 4, "batch": 2, "pool": 4, "preview_every": preview_every}.items():
        text, count = re.subn(rf"(?m)^  {name}: \d+$", f"  {name}: {value}", text, count=1)
        assert count == 1
    manifest.write_text(text, "utf-8")


@pytest.fixture
def small() -> Callable[..., None]:
    """Makes a manifest's tuning tiny: four steps."""
    return make_small


@pytest.fixture
def picture(isolated: Path) -> Path:
    """`girl.jpg` in the working folder."""
    draw_girl(isolated / "girl.jpg")
    return Path("girl.jpg")


@pytest.fixture(scope="session")
def tuned_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project, tuned for four steps. Not to be changed: see `girl`."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HOME", "HF_HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR"):
            patch.setenv(name, str(home))
        patch.chdir(tmp_path_factory.mktemp("once"))
        draw_girl(Path("girl.jpg"))
        assert run(["init", "girl.jpg", "--class", "painting", "--base", "mini", "--quiet"]) == 0
        make_small(Path("girl", "sine.yaml"))
        assert run(["tune", "--project", "girl", "--quiet"]) == 0
        return Path("girl").resolve()


@pytest.fixture
def girl(tuned_once: Path, isolated: Path) -> Path:
    """A tuned project of this test's own, `girl/` in the working folder."""
    shutil.copytree(tuned_once, isolated / "girl")
    return Path("girl")


@pytest.fixture
def untuned(tuned_once: Path, isolated: Path) -> Path:
    """A project as `sine init` leaves it but for the tiny settings, `girl/` in the working folder."""
    (isolated / "girl").mkdir()
    for name in ("sine.yaml", "source.png"):
        shutil.copy(tuned_once / name, isolated / "girl")
    return Path("girl")


Start = Callable[..., "subprocess.Popen[str]"]


def _hears_interrupts() -> None:
    """What a shell starts in the background ignores Ctrl-C, and what `nohup` starts SIGHUP; the tests too,
    and so would their children.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts `sine` as a process of its own; none outlives the test."""
    processes: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "sine_cli", *arguments]
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            command,
            stdout=pipe,
            stderr=pipe,
            text=True,
            env=dict(os.environ),
            preexec_fn=_hears_interrupts,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


Listing = dict[str, tuple[int, int]]


@pytest.fixture
def listing(isolated: Path) -> Callable[[], Listing]:
    """Everything below the working folder, with sizes and times of change."""

    def listing() -> Listing:
        return {
            str(path.relative_to(isolated)): (path.lstat().st_size, path.lstat().st_mtime_ns)
            for path in isolated.rglob("*")
        }

    return listing
