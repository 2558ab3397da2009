"""Projects are made whole or not at all, and found from where a person stands."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from sine_cli.errors import SineError, UserError
from sine_cli.project import files, source
from sine_cli.project.folder import Project, create_project, find_project
from sine_cli.project.manifest import Manifest, Prompts, Source, load_manifest
from sine_cli.project.presets import load_preset

IMAGE = Image.new("RGB", (20, 16), "red")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return here


def manifest() -> Manifest:
    preset = load_preset("mini")
    return Manifest(
        schema_version=1,
        source=Source(original="girl.jpg", sha256="0" * 64, height=16, width=20),
        prompts=Prompts(class_noun="girl", kind="photo", token="sks", source="a photo of a sks girl"),
        base="mini",
        tune=preset.tune,
        edit=preset.edit,
    )


def make(path: str) -> Project:
    return create_project(Path(path), manifest(), IMAGE)


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


# ----------------------------------------------------------------------------------------------------- making


def test_a_new_project_has_its_manifest_and_picture(here: Path) -> None:
    project = make("girl")
    assert project == Project(Path("girl"))
    assert project.name == "girl"
    assert names(here) == ["girl"]
    assert names(here / "girl") == ["sine.yaml", "source.png"]
    stored = files.sha256(project.source(manifest()))
    source = manifest().source.model_copy(update={"stored_sha256": stored})
    assert load_manifest(project.manifest_path) == manifest().model_copy(update={"source": source})
    with Image.open(project.root / "source.png") as stored:
        assert stored.tobytes() == IMAGE.tobytes()


def test_where_things_belong() -> None:
    project = Project(Path("girl"))
    belong = [project.adapter_dir, project.tuning_dir, project.edits_dir, project.grids_dir]
    assert [str(path) for path in belong] == ["girl/adapter", "girl/tuning", "girl/edits", "girl/grids"]


def test_an_empty_folder_is_filled(here: Path) -> None:
    Path("girl").mkdir()
    make("girl")
    assert names(here / "girl") == ["sine.yaml", "source.png"]


def test_what_exists_is_not_touched(here: Path) -> None:
    Path("girl").mkdir()
    Path("girl/notes.txt").write_text("mine")
    Path("file").write_text("mine")
    Path("link").symlink_to("nowhere")
    for name, is_folder in (("girl", True), ("file", False), ("link", False)):
        with pytest.raises(UserError) as caught:
            make(name)
        assert caught.value.message == f"{name} already exists"
        assert caught.value.hint == "choose another folder with `--dir NAME`" + (
            ", or remove that one first" if is_folder else ""
        )
    assert names(here) == ["file", "girl", "link"]
    assert names(here / "girl") == ["notes.txt"]


def test_a_project_made_by_another_meanwhile_is_kept(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.rename

    def rename_late(self: Path, target: Path) -> Path:
        target.mkdir()
        (target / "theirs").touch()
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", rename_late)
    with pytest.raises(UserError, match=r"^girl already exists$"):
        make("girl")
    assert names(here) == ["girl"]
    assert names(here / "girl") == ["theirs"]


def test_the_parent_must_exist() -> None:
    with pytest.raises(UserError) as caught:
        make("a b/girl")
    assert caught.value.message == "no such folder: a b"
    assert caught.value.hint == "make it first: `mkdir -p 'a b'`"


def test_the_working_folder_is_no_place_for_a_new_project(here: Path) -> None:
    with pytest.raises(UserError) as caught:
        make(".")
    assert caught.value.message == "the working folder itself cannot become a project"
    assert names(here) == []


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_leaves_nothing(
    here: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    write_source = source.write_source

    def fail(image: Image.Image, path: Path) -> None:
        write_source(image, path)
        raise failure

    monkeypatch.setattr(source, "write_source", fail)
    with pytest.raises((SineError, KeyboardInterrupt)) as caught:
        make("girl")
    if isinstance(caught.value, SineError):
        assert caught.value.message == "cannot write girl: the disk is full"
    assert names(here) == []


def test_what_a_killed_init_left_goes_with_the_next(here: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    abandoned = here / f".girl.{process.pid}-0.partial"
    abandoned.mkdir()
    (abandoned / "source.png").touch()
    make("girl")
    assert names(here) == ["girl"]


# ---------------------------------------------------------------------------------------------------- finding


def refused(start: Path, given: Path | None = None) -> tuple[str, str | None]:
    with pytest.raises(UserError) as caught:
        find_project(start, given)
    return caught.value.message, caught.value.hint


@pytest.mark.parametrize("given", ["girl", "girl/sine.yaml", "girl/"])
def test_given(here: Path, given: str) -> None:
    make("girl")
    found = find_project(here, Path(given))
    assert (found.project.root, found.how) == (here / "girl", "given")


def test_given_wins_over_the_place(here: Path) -> None:
    make("girl")
    make("boy")
    assert find_project(here / "girl", Path("../boy")).project.name == "boy"


@pytest.mark.parametrize("place", ["girl", "girl/edits", "girl/edits/deep"])
def test_above(here: Path, place: str) -> None:
    make("girl")
    (here / "girl/edits/deep").mkdir(parents=True)
    found = find_project(here / place)
    assert (found.project.root, found.how) == (here / "girl", "above")


def test_below(here: Path) -> None:
    make("girl")
    Path("other").mkdir()
    Path(".hidden").mkdir()
    Path(".hidden/sine.yaml").touch()
    found = find_project(here)
    assert (found.project.root, found.how) == (here / "girl", "below")


def test_none(here: Path) -> None:
    (here / "deep" / "girl").mkdir(parents=True)
    (here / "deep" / "girl" / "sine.yaml").touch()
    assert refused(here) == (
        f"no project here ({here}), above or directly below",
        "`sine init PICTURE --class NOUN` makes one",
    )


def test_several_below(here: Path) -> None:
    make("girl")
    make("a boy")
    assert refused(here) == ("2 projects here: a boy, girl", "say which: `--project 'a boy'`")


def test_very_many_below_are_not_all_listed(here: Path) -> None:
    for number in range(10):
        (here / f"p{number}").mkdir()
        (here / f"p{number}" / "sine.yaml").touch()
    assert refused(here)[0] == "10 projects here: p0, p1, p2, p3, p4, p5, p6, p7, ..."


def test_given_what_is_no_project(here: Path) -> None:
    make("girl")
    Path("other").mkdir()
    Path("girl.jpg").touch()
    init = "`sine init PICTURE --class NOUN` makes one"
    assert refused(here, Path("gril")) == (
        "--project: no such project: gril",
        "did you mean `--project girl`?",
    )
    assert refused(here, Path("zzz")) == (
        "--project: no such project: zzz",
        f"there is girl; {init.replace('one', 'another')}",
    )
    assert refused(here, Path("other")) == ("other is not a project: it has no sine.yaml", init)
    assert refused(here, Path("girl.jpg")) == (
        "girl.jpg is not a project",
        "name a project folder or its sine.yaml: `--project girl`",
    )


def test_a_folder_that_may_not_be_looked_into_is_passed_over(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make("girl")
    stat = os.stat

    def refuse(path: os.PathLike[str] | str, *arguments: object, **options: object) -> os.stat_result:
        if "locked" in str(path):
            raise PermissionError(errno.EACCES, "Permission denied")
        return stat(path)

    Path("locked").mkdir()
    monkeypatch.setattr(os, "stat", refuse)
    assert find_project(here).project.name == "girl"
