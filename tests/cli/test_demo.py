"""`sine demo` runs its whole story for real, with settings cut down, and prints each command."""

import re
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import typer

from sine_cli.cli.demo import STORY
from sine_cli.cli.main import app, follow
from sine_cli.project.templates import template_path

if TYPE_CHECKING:
    from tests.cli.conftest import Sine


@pytest.fixture
def quick_mini(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The preset `mini` recommends two steps of everything."""
    shutil.copytree(template_path("bases"), tmp_path / "bases")
    path = tmp_path / "bases" / "mini.yaml"
    text = path.read_text("utf-8")
    for name, value in {"steps": 2, "batch": 1, "pool": 2, "preview_every": 0}.items():
        text, count = re.subn(rf"(?m)^  {name}: \d+", f"  {name}: {value}", text)
        assert count in (1, 2)  # `steps` are of tune and of edit
    path.write_text(text, "utf-8")
    monkeypatch.setattr("sine_cli.project.presets.template_path", tmp_path.joinpath)


def test_every_line_of_the_story_is_a_command_that_sine_takes() -> None:
    command = typer.main.get_command(app)
    for line in STORY:
        name, *arguments = shlex.split(line.format(folder="'a b'"))
        assert name == "sine"
        with command.make_context("sine", arguments) as context:
            sub = command.commands[arguments[0]]  # pyright: ignore[reportAttributeAccessIssue]
            with sub.make_context(arguments[0], arguments[1:], parent=context) as parsed:
                assert parsed.params
    assert {shlex.split(line)[1] for line in STORY} == {"init", "tune", "edit", "grid", "show"}


def test_the_demo_runs_and_prints_every_command(sine: "Sine", quick_mini: None) -> None:
    done = sine("demo", "--dir", "a demo")
    assert done.code == 0, done.err
    commands = [line for line in done.out.splitlines() if line.startswith("$ ")]
    assert commands == [f"$ {line.format(folder=shlex.quote('a demo'))}" for line in STORY]
    assert done.out.splitlines()[-1] == (
        "all of it is in a demo; next: a picture of your own, `sine init PICTURE --class NOUN`"
    )
    castle = Path("a demo/castle")
    assert sorted(path.name for path in castle.parent.iterdir()) == ["castle", "castle.png"]
    assert len([*castle.glob("edits/*/*.png")]) == 3
    [grid] = castle.glob("grids/*")
    assert len([*(grid / "cells").iterdir()]) == 12
    assert (grid / "grid.png").is_file()
    assert "error" not in done.err


def test_a_demo_where_a_command_fails_stops_there(
    sine: "Sine", quick_mini: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = STORY[0]
    monkeypatch.setattr("sine_cli.cli.demo.STORY", [first, first, STORY[-1]])
    done = sine("demo")
    assert done.code == 2
    assert done.err.endswith(
        "error: sine-demo/castle already exists\n\n"
        "hint: choose another folder with `--dir NAME`, or remove that one first\n"
    )
    assert [line for line in done.out.splitlines() if line.startswith("$ ")] == [
        f"$ {first.format(folder='sine-demo')}"
    ] * 2


def test_the_demo_does_not_touch_a_folder_that_exists(sine: "Sine") -> None:
    Path("sine-demo").mkdir()
    assert sine("demo") == (
        2,
        "",
        "error: sine-demo already exists\n\nhint: choose another: `sine demo --dir NAME`\n",
    )
    assert [*Path("sine-demo").iterdir()] == []


def test_the_demo_s_folder_may_have_any_name(sine: "Sine", monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sine_cli.cli.demo.STORY", [STORY[0], STORY[-1]])
    folder = "my \U0001f469\u200d\U0001f680's {demo}"
    done = sine("demo", "--dir", folder)
    assert (done.code, [path.name for path in Path(folder).iterdir() if path.is_dir()]) == (0, ["castle"])


def test_a_demo_that_nobody_reads_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*arguments: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("sine_cli.cli.demo.STORY", ["sine show --project nowhere", STORY[0]])
    monkeypatch.setattr("sine_cli.cli.show.open_project", gone)
    with pytest.raises(BrokenPipeError):
        follow(["demo"])
    assert [path.name for path in Path("sine-demo").iterdir()] == ["castle.png"]
