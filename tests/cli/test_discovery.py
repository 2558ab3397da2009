"""How a command finds its project: named, from the working folder upwards, or the only one just below."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Sine


def first_line(text: str) -> str:
    return text.splitlines()[0]


def test_the_only_project_just_below_is_taken_and_named(sine: "Sine", untuned: Path) -> None:
    Path("other").mkdir()
    done = sine("show")
    assert (done.code, done.err) == (0, "project: girl\n")
    assert first_line(done.out) == "project        girl"


def test_the_project_of_the_working_folder_is_taken_silently_and_called_by_its_name(
    sine: "Sine", untuned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(untuned)
    done = sine("show")
    assert (done.code, done.err) == (0, "")
    assert first_line(done.out) == "project        girl"
    assert sine("edit", "a boat") == (2, "", "error: girl is not tuned yet\n\nhint: run `sine tune` first\n")


def test_a_hint_names_the_project_where_the_command_must(sine: "Sine", untuned: Path) -> None:
    shutil.copytree("girl", "other girl")
    hint = "run `sine tune --project 'other girl'` first"
    assert sine("edit", "a boat", "-p", "other girl") == (
        2,
        "",
        f"error: other girl is not tuned yet\n\nhint: {hint}\n",
    )


def test_a_project_is_found_from_deep_inside_it(
    sine: "Sine", untuned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = untuned.resolve()
    (root / "edits" / "deep").mkdir(parents=True)
    monkeypatch.chdir(root / "edits" / "deep")
    done = sine("show")
    assert (done.code, done.err) == (0, "")
    assert first_line(done.out) == f"project        {root}"


def test_the_project_around_comes_before_one_below(
    sine: "Sine", untuned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(untuned, untuned / "inner")
    monkeypatch.chdir(untuned)
    assert first_line(sine("show").out) == "project        girl"


def test_several_projects_below_are_a_question(sine: "Sine", untuned: Path) -> None:
    shutil.copytree(untuned, "a boy")
    assert sine("show") == (
        2,
        "",
        "error: 2 projects here: a boy, girl\n\nhint: say which: `--project 'a boy'`\n",
    )


def test_without_any_project_init_is_named(sine: "Sine", isolated: Path) -> None:
    hint = "hint: `sine init PICTURE --class NOUN` makes one\n"
    for command in (["show"], ["tune"], ["edit", "a boat"], ["grid", "a boat"], ["grid", "--resume"]):
        assert sine(*command) == (
            2,
            "",
            f"error: no project here ({isolated}), above or directly below\n\n{hint}",
        )
    assert [*isolated.iterdir()] == []


@pytest.mark.parametrize("option", ["--project", "-p"])
def test_a_project_is_named_by_its_folder_or_its_manifest(sine: "Sine", untuned: Path, option: str) -> None:
    shutil.copytree(untuned, "boy")
    for name in ("girl", "girl/", "girl/sine.yaml", str(untuned.resolve())):
        done = sine("show", option, name)
        assert (done.code, done.err) == (0, "")
        assert first_line(done.out) == "project        girl"


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("gril", "--project: no such project: gril", "did you mean `--project girl`?"),
        (
            "castle",
            "--project: no such project: castle",
            "there is girl; `sine init PICTURE --class NOUN` makes another",
        ),
        (
            "empty",
            "empty is not a project: it has no sine.yaml",
            "`sine init PICTURE --class NOUN` makes one",
        ),
        (
            "girl/source.png",
            "girl/source.png is not a project",
            "name a project folder or its sine.yaml: `--project girl`",
        ),
    ],
)
def test_a_name_that_is_no_project_is_refused(
    sine: "Sine", untuned: Path, name: str, message: str, hint: str
) -> None:
    Path("empty").mkdir()
    assert sine("show", "--project", name) == (2, "", f"error: {message}\n\nhint: {hint}\n")
