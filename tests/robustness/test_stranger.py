"""A hostile project: opened, tuned or edited, it runs nothing, reaches nothing outside, and fetches nothing.

What a stranger's manifest, records, pictures and weights may hold is in the tests of bad values, pictures and
adapters; how much memory a base may ask for is in `tests/models/test_bounds.py`.
"""

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.conftest import Sine
from tests.cli.test_errors import mend_record
from tests.robustness.conftest import Refused
from tests.robustness.test_bad_adapters import Wicked
from tests.tiny import write_tiny_base

COMMANDS: dict[str, list[str]] = {
    "show": ["show"],
    "verify": ["verify"],
    "tune": ["tune", "-q"],
    "edit": ["edit", "a boat", "--steps", "1", "--size", "32x32", "-q"],
    "grid": ["grid", "a boat", "-K", "0,500", "-v", "0.5", "--steps", "1", "--size", "32x32", "-q"],
    "compare": ["compare", "a boat", "--steps", "1", "-q"],
    "export": ["export", "-q"],
}


def refusal(sine: Sine, *arguments: str | Path) -> str:
    """The error of a command that does nothing else than to take and give back the project's lock."""
    done = sine(*arguments)
    assert (done.code, done.out) == (2, "") and "Traceback" not in done.err, done
    return done.err


# ------------------------------------------------------------------------------------------------- links out

LINKS = [
    *("adapter/adapter.safetensors", "adapter/record.yaml", "tuning/loss.csv", ".tuning.lock"),
    *("adapter", "tuning", "edits", "grids", "comparisons", "exports", "tuning/checkpoint"),
]


OUR_OWN = ("os.symlink", "os.scandir", "os.listdir")
"""What these tests do there too; to list a folder tells nobody anything."""


class Opened:
    """Files below a folder that Python opens while it is watched, and what else is done to them."""

    def __init__(self) -> None:
        self.root: str | None = None
        self.seen: list[str] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.root is None or not event.startswith(("open", "os.", "shutil.")) or event in OUR_OWN:
            return
        for path in arguments:
            if isinstance(path, str | bytes | os.PathLike):
                real = os.path.realpath(os.fsdecode(path))
                if real.startswith(self.root):
                    self.seen.append(f"{event} {real}")


OPENED = Opened()  # an audit hook stays for good, so there is one


@pytest.fixture
def outside(isolated: Path, tuned_once: Path) -> Iterator[Path]:
    """Somebody's own folder beside the project, watched: a whole project, which would be of use."""
    folder = Path(shutil.copytree(tuned_once, isolated / "private"))
    for name in ("edits", "grids", "comparisons", "exports"):
        (folder / name).mkdir()
    (folder / "tuning" / "checkpoint").mkdir()
    (folder / "tuning" / "loss.csv").write_text("step,loss\n")
    (folder / ".tuning.lock").touch()
    OPENED.seen.clear()
    OPENED.root = str(folder.resolve())
    yield folder
    OPENED.root = None


def put_link(place: Path, target: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    place.unlink(missing_ok=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(target)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", LINKS)
def test_a_link_that_leads_out_is_refused_and_not_followed(
    refused: Refused, girl: Path, outside: Path, name: str, command: str
) -> None:
    put_link(girl / name, outside / name)
    assert refused(*COMMANDS[command], "-p", "girl") == (
        f"girl/{name} leads out of the project, to {outside.resolve() / name}; "
        "nothing there is read or written"
    )
    assert OPENED.seen == []


@pytest.mark.parametrize("command", ["tune", "edit", "export"])
def test_a_link_in_the_picture_s_place_is_not_followed(
    sine: Sine, girl: Path, outside: Path, command: str
) -> None:
    put_link(girl / "source.png", outside / "source.png")
    assert "girl/source.png leads out of the project" in refusal(sine, *COMMANDS[command], "-p", "girl")
    assert OPENED.seen == []


@pytest.mark.parametrize("name", ["edits", "tuning"])
@pytest.mark.parametrize("target", ["../nowhere", "/nowhere/at/all", "../private/new"])
def test_a_link_to_what_is_not_there_yet_is_not_made_there(
    refused: Refused, girl: Path, outside: Path, name: str, target: str
) -> None:
    put_link(girl / name, Path(target))
    assert " leads out of the project, to " in refused(*COMMANDS["edit"], "-p", "girl")
    assert OPENED.seen == []


def test_links_that_go_round_or_stay_inside_do_no_harm(sine: Sine, girl: Path) -> None:
    (girl / "edits").mkdir()
    (girl / "edits" / "round").symlink_to(girl.resolve())
    (girl / "edits" / "itself").symlink_to(girl.resolve() / "edits" / "itself")
    assert sine("show", "-p", "girl").code == 0
    assert sine(*COMMANDS["edit"], "-p", "girl").code == 0


def test_a_picture_s_own_recipe_leads_nowhere_outside(refused: Refused, sine: Sine, girl: Path) -> None:
    assert sine(*COMMANDS["edit"], "-p", "girl").code == 0
    (run,) = (girl / "edits").iterdir()
    record = yaml.safe_load((run / "run.yaml").read_text())
    for name, value in {"project": "../private", "source": "../private/source.png", "folder": "/etc"}.items():
        (run / "run.yaml").write_text(yaml.safe_dump({**record, name: value}))
        done = sine("edit", "--from", run, "-q")
        assert done.code in (0, 2) and "Traceback" not in done.err
    assert not Path("private").exists()


# -------------------------------------------------------------------------------------- paths in the manifest


@pytest.mark.parametrize(
    "path", ["../girl.jpg", "/etc/passwd", "a/../../x.png", "//host/x", "~/x.png", ".. x"]
)
@pytest.mark.parametrize("command", ["tune", "edit"])
def test_a_picture_elsewhere_is_not_read(
    sine: Sine, girl: Path, outside: Path, path: str, command: str
) -> None:
    manifest = girl / "sine.yaml"
    text, count = re.subn(r"(?m)^  file: .*$", f"  file: '{path}'", manifest.read_text(), count=1)
    assert count == 1
    manifest.write_text(text)
    told = refusal(sine, *COMMANDS[command], "-p", "girl")
    # What POSIX takes for a name in the project's own folder is looked for there.
    assert ("source.file" if ".." in path.split("/") or path[0] == "/" else f"girl/{path}") in told
    assert OPENED.seen == []


def set_base(project: Path, base: str, revision: str = "null") -> None:
    text = (project / "sine.yaml").read_text()
    text = re.sub(r"(?m)^base: .*$", f"base: {json.dumps(base)}", text, count=1)
    text, count = re.subn(r"(?m)^base_revision: .*$", f"base_revision: {revision}", text, count=1)
    assert count == 1
    (project / "sine.yaml").write_text(text)


@pytest.mark.parametrize(
    "base",
    ["./evil", "../evil", "evil.safetensors", "~/evil", "evil/weights", "sd15", "some/../thing", "a/b"],
)
@pytest.mark.parametrize("command", ["tune", "edit"])
def test_a_base_that_the_project_names_is_neither_fetched_nor_looked_for_around(
    sine: Sine, girl: Path, monkeypatch: pytest.MonkeyPatch, base: str, command: str
) -> None:
    def connect(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("socket.socket.connect", connect)
    write_tiny_base(Path("evil"))
    set_base(girl, base)
    if command == "edit":
        mend_record(girl / "adapter")
    refusal(sine, *COMMANDS[command], "-p", "girl")


# ----------------------------------------------------------------------------------------------- nothing runs

TRAP = "import pathlib; pathlib.Path({mark!r}).touch()\nraise SystemExit(9)\n"
MODULES = [
    *("sine_cli", "torch", "numpy", "yaml", "PIL", "diffusers", "transformers", "peft", "matplotlib", "rich"),
    *("sitecustomize", "usercustomize", "json", "typing", "conftest", "evil"),
]


@pytest.fixture
def trapped(isolated: Path, girl: Path) -> Path:
    """A tuned project full of code that marks `ran` when it runs, which is also the working folder."""
    mark = str(isolated / "ran")
    code = TRAP.format(mark=mark)
    for module in MODULES:
        (girl / f"{module}.py").write_text(code)
    (girl / "sine.pth").write_text(code.replace("\n", ";"))
    (girl / "pyproject.toml").write_text("[tool.sine]\nplugins = ['evil']\n")
    (girl / ".env").write_text(f"PYTHONSTARTUP={girl / 'evil.py'}\nSINE_PLUGINS=evil\n")
    (girl / "matplotlibrc").write_text("text.usetex: True\nbackend: module://evil\nfigure.facecolor: red\n")
    for name in (
        "adapter/adapter.bin",
        "adapter/adapter.pt",
        "tuning/checkpoint/state.pt",
        "adapter/more.pkl",
    ):
        (girl / name).parent.mkdir(parents=True, exist_ok=True)
        (girl / name).write_bytes(pickle.dumps(Wicked()))
    programs = isolated / "programs"
    programs.mkdir()
    for name in ("latex", "pdflatex", "dvipng", "kpsewhich", "git", "gs"):
        (programs / name).write_text(f"#!/bin/sh\ntouch {mark}\nexit 1\n")
        (programs / name).chmod(0o755)
    return girl


@pytest.mark.parametrize("command", ["verify", "tune", "grid"])
def test_nothing_in_a_project_runs(trapped: Path, isolated: Path, command: str) -> None:
    sine = Path(sys.executable).with_name("sine")
    if command == "tune":
        shutil.rmtree(trapped / "adapter")
    done = subprocess.run(
        [sine, *COMMANDS[command]],
        cwd=trapped,
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": f"{isolated / 'programs'}:{os.environ['PATH']}"},
    )
    assert done.returncode == 0, done.stderr
    assert not (isolated / "ran").exists()
    assert not (trapped / "pwned").exists()


def test_the_traps_work(trapped: Path, isolated: Path) -> None:
    done = subprocess.run([sys.executable, "-c", "import yaml"], cwd=trapped, capture_output=True)
    assert done.returncode == 9
    assert (isolated / "ran").exists()


def test_tags_in_yaml_make_nothing(refused: Refused, girl: Path) -> None:
    manifest = girl / "sine.yaml"
    whole = manifest.read_text()
    for tag in (
        "!!python/object/apply:os.system ['touch pwned']",
        "!!python/name:os.system",
        "!!python/module:os",
        "!!python/object/new:os.system [touch pwned]",
    ):
        manifest.write_text(re.sub(r"(?m)^base: .*$", f"base: {tag}", whole, count=1))
        refused("show", "-p", "girl")
        assert not Path("pwned").exists()


# ---------------------------------------------------------------------------------------------- hostile bases


def test_a_base_that_asks_for_too_much_is_refused(sine: Sine, girl: Path) -> None:
    base = write_tiny_base(Path("base").resolve())
    config = base / "text_encoder" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "vocab_size": 10**12}))
    set_base(girl, str(base))
    told = refusal(sine, "tune", "-p", "girl", "-q")
    assert "vocab_size: 1000000000000 is more than any model needs\n" in told


def test_a_base_cannot_name_an_attention_of_the_hub(girl: Path, sine: Sine, monkeypatch: Any) -> None:
    def connect(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr("socket.socket.connect", connect)
    base = write_tiny_base(Path("base").resolve())
    config = base / "text_encoder" / "config.json"
    evil = {"attn_implementation": "evil/kernel", "_attn_implementation": "evil/kernel"}
    config.write_text(json.dumps({**json.loads(config.read_text()), **evil}))
    set_base(girl, str(base))
    assert sine("tune", "-p", "girl", "-q").code == 0
