"""Run folders appear whole or not at all; pictures carry their recipe; interrupted runs go on."""

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sine_cli.errors import SineError, UserError
from sine_cli.project.files import Process
from sine_cli.project.runs import (
    UnfinishedRun,
    list_runs,
    read_recipe,
    read_run,
    slug,
    start_run,
    sweep,
    unfinished_runs,
)

NOW = datetime(2026, 11, 23, 9, 10, 11)
PROMPT = "a sculpture of a girl"
NAME = "2026-11-23_091011_a-sculpture-of-a-girl"
IMAGE = Image.new("RGB", (20, 16), "red")


@pytest.fixture
def edits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path("girl/edits")


@pytest.fixture
def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def give_to(run: UnfinishedRun, pid: int) -> None:
    """Make it look as if another process had started the run."""
    (run.hidden / f"owner-{Process.this().name}").rename(run.hidden / f"owner-{pid}")


# ------------------------------------------------------------------------------------------------------- slug


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        (PROMPT, "a-sculpture-of-a-girl"),
        ("The Girl's  CAFÉ, by night!", "the-girls-cafe-by-night"),
        ("猫", "edit"),
        ("", "edit"),
        ("../../etc/passwd", "etc-passwd"),
        ("x" * 60, "x" * 48),
        ("word " * 20, "word-word-word-word-word-word-word-word-word"),
        ("a" * 40 + " " + "b" * 7, "a" * 40 + "-" + "b" * 7),
        ("a" * 40 + " " + "b" * 8, "a" * 40),
    ],
)
def test_slug(prompt: str, expected: str) -> None:
    assert slug(prompt) == expected


@given(st.text(max_size=200))
def test_a_slug_is_always_a_fit_name(prompt: str) -> None:
    made = slug(prompt)
    assert 1 <= len(made) <= 48
    assert all(word.isascii() and word.isalnum() and word == word.lower() for word in made.split("-"))
    assert slug(made) == made


# ---------------------------------------------------------------------------------------------- start, finish


def test_a_run_appears_when_it_is_finished(edits: Path) -> None:
    run = start_run(edits, PROMPT, NOW)
    assert names(edits) == [f".{NAME}.partial"]
    assert run.final == edits / NAME
    run.save_image("0001.png", IMAGE, {"prompt": PROMPT})
    assert list_runs(edits) == []
    assert run.finish({"prompt": PROMPT, "seed": 0}) == edits / NAME
    assert names(edits) == [NAME]
    assert names(edits / NAME) == ["0001.png", "run.yaml"]
    (found,) = list_runs(edits)
    assert (found.path, found.record) == (edits / NAME, {"prompt": PROMPT, "seed": 0})


def test_the_name_shows_local_time(edits: Path) -> None:
    aware = NOW.astimezone(timezone(timedelta(hours=5)))
    assert start_run(edits, PROMPT, aware).final.name == NAME


def test_two_in_the_same_second_get_two_names(edits: Path) -> None:
    first, second = start_run(edits, PROMPT, NOW), start_run(edits, PROMPT, NOW)
    first.finish({})
    third = start_run(edits, PROMPT, NOW)
    assert [run.final.name for run in (first, second, third)] == [NAME, f"{NAME}-2", f"{NAME}-3"]
    third.finish({})
    second.finish({})
    assert names(edits) == [NAME, f"{NAME}-2", f"{NAME}-3"]


def test_many_at_once_all_get_names_of_their_own(edits: Path) -> None:
    made: list[Path] = []

    def work() -> None:
        for _ in range(5):
            made.append(start_run(edits, PROMPT, NOW).finish({}))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 40
    assert names(edits) == sorted(path.name for path in made)


def test_a_discarded_run_leaves_nothing(edits: Path) -> None:
    run = start_run(edits, PROMPT, NOW, request={"prompt": PROMPT})
    run.save_image("cells/a.png", IMAGE, {})
    run.discard()
    assert names(edits) == []


def test_a_full_disk_at_the_start_leaves_nothing(edits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Path) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(SineError) as caught:
        start_run(edits, PROMPT, NOW)
    assert caught.value.message == f"cannot write girl/edits/{NAME}: the disk is full"
    assert names(edits) == []


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(record=st.dictionaries(st.text(max_size=10), json_values, max_size=5))
def test_records_are_read_back(tmp_path: Path, record: dict[str, Any]) -> None:
    path = start_run(tmp_path, PROMPT, NOW).finish(record)
    assert [run.record for run in list_runs(tmp_path)] == [record]
    shutil.rmtree(path)


def test_a_record_has_no_anchors(edits: Path) -> None:
    shared = {"a": 1}
    path = start_run(edits, PROMPT, NOW).finish({"one": shared, "two": shared})
    assert (path / "run.yaml").read_text() == "one:\n  a: 1\ntwo:\n  a: 1\n"


ODD_WORDS = ["1e5", "1.0e+5", "2020-01-01", "1:30", "0x1f", "1_0", "yes", "~", "", "=", "<<", ".inf", "*a"]


@pytest.mark.parametrize("text", ODD_WORDS)
def test_words_that_look_like_something_else_stay_words(edits: Path, text: str) -> None:
    start_run(edits, PROMPT, NOW).finish({"prompt": text, "text": {text: [text]}})
    (found,) = list_runs(edits)
    assert found.record == {"prompt": text, "text": {text: [text]}}


def test_a_date_of_another_writer_is_a_word(edits: Path) -> None:
    folder = start_run(edits, PROMPT, NOW).finish({})
    (folder / "run.yaml").write_text("prompt: 2020-01-01\n", "utf-8")
    assert read_run(folder) == {"prompt": "2020-01-01"}


# ---------------------------------------------------------------------------------------------------- recipes


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(recipe=st.dictionaries(st.text(max_size=10), json_values, max_size=5))
def test_a_recipe_is_read_back(tmp_path: Path, recipe: dict[str, Any]) -> None:
    run = start_run(tmp_path, PROMPT, NOW)
    path = run.save_image("0001.png", IMAGE, recipe)
    assert read_recipe(path) == recipe
    run.discard()


def test_what_the_picture_says_to_other_programs(edits: Path) -> None:
    recipe = {"prompt": "a café at night", "seed": 3}
    path = start_run(edits, PROMPT, NOW).save_image("cells/K0400_v0.70.png", IMAGE, recipe)
    with Image.open(path) as image:
        assert image.info["Description"] == "a café at night"
        assert json.loads(image.info["sine"]) == recipe
        assert image.tobytes() == IMAGE.tobytes()
    content = path.read_bytes()
    assert b"iTXtsine\0\0\0" in content
    assert '"a café at night"'.encode() in content
    assert names(path.parent) == ["K0400_v0.70.png"]


def plain_png(path: Path, **chunks: str) -> Path:
    info = PngInfo()
    for key, text in chunks.items():
        info.add_itxt(key, text)
    IMAGE.save(path, pnginfo=info)
    return path


def test_pictures_without_a_recipe(edits: Path) -> None:
    Path("not.png").write_bytes(b"hello")
    Path("cut.png").write_bytes(plain_png(Path("x.png")).read_bytes()[:20])
    IMAGE.save("photo.jpg")
    plain_png(Path("none.png"), Description="a girl")
    plain_png(Path("broken.png"), sine="{")
    plain_png(Path("list.png"), sine="[1]")
    plain_png(Path("deep.png"), sine="[" * 200_000)
    for name in ("not.png", "cut.png", "photo.jpg", "none.png", "broken.png", "list.png", "deep.png"):
        with pytest.raises(UserError) as caught:
            read_recipe(Path(name))
        assert caught.value.message == f"{name} carries no recipe of sine's"
        assert caught.value.hint == (
            "name a PNG as `sine edit` or `sine grid` wrote it, for example `edits/.../0001.png`"
        )
    with pytest.raises(UserError, match=r"^no such file: gone\.png$"):
        read_recipe(Path("gone.png"))


# --------------------------------------------------------------------------------------------------- listings


def test_runs_are_listed_oldest_first(edits: Path) -> None:
    for _ in range(11):
        start_run(edits, PROMPT, NOW).finish({})
    start_run(edits, PROMPT, datetime(2026, 11, 22, 9, 10, 11)).finish({})
    found = [run.path.name for run in list_runs(edits)]
    numbered = [NAME, *(f"{NAME}-{number}" for number in range(2, 12))]
    assert found == ["2026-11-22_091011_a-sculpture-of-a-girl", *numbered]


def test_digits_of_other_scripts_are_letters(edits: Path) -> None:
    run = start_run(edits, "a boat", NOW).finish({"prompt": "a boat"})
    run.rename(edits / "5²")
    assert [run.path.name for run in list_runs(edits)] == ["5²"]


def test_strange_folders_are_no_runs(edits: Path) -> None:
    assert list_runs(edits) == []
    start_run(edits, PROMPT, NOW).finish({"fine": True})
    contents = {
        "bad-yaml": "{",
        "a-list": "- 1",
        "a-tag": "!!python/object/apply:os.system [x]",
        "no-date": "2026-99-99",
        "deep": "[" * 5000,
        "nested": "a: " + "[" * 40 + "]" * 40,
        "alias": "a: &a [x]\nb: *a",
        "anchor": "a: &a 1",
        "empty": "",
    }
    for name, content in contents.items():
        (edits / name).mkdir()
        (edits / name / "run.yaml").write_text(content)
    (edits / "binary").mkdir()
    (edits / "binary" / "run.yaml").write_bytes(b"\xff\xfe\xff")
    (edits / "nothing").mkdir()
    (edits / "file").touch()
    (edits / "folder" / "run.yaml").mkdir(parents=True)
    assert [run.record for run in list_runs(edits)] == [{"fine": True}]


# ------------------------------------------------------------------------------------------------ interrupted


def test_an_interrupted_run_goes_on(edits: Path, dead_pid: int) -> None:
    request = {"prompt": PROMPT, "switch_steps": [0, 400]}
    started = start_run(edits, PROMPT, NOW, request=request)
    started.save_image("cells/a.png", IMAGE, {})
    give_to(started, dead_pid)
    (started.folder / "cells" / f".b.png.{dead_pid}-0.partial").touch()

    (run,) = unfinished_runs(edits)
    assert (run.request, run.holder, run.final) == (request, None, edits / NAME)
    run.take_over()
    assert names(run.hidden) == [f"owner-{Process.this().name}", "request.yaml", "run"]
    assert names(run.folder / "cells") == ["a.png"]
    run.finish({"done": True})
    assert names(edits) == [NAME]
    assert names(edits / NAME) == ["cells", "run.yaml"]
    assert unfinished_runs(edits) == []


def test_a_run_that_is_being_made_is_not_taken(edits: Path) -> None:
    started = start_run(edits, PROMPT, NOW, request={})
    give_to(started, os.getppid())
    (run,) = unfinished_runs(edits)
    assert run.holder == Process(os.getppid())
    with pytest.raises(UserError) as caught:
        run.take_over()
    assert caught.value.message == f"girl/edits/{NAME} is being made by process {os.getppid()}"
    assert caught.value.hint == f"wait for it, or stop it: `kill {os.getppid()}`"


def test_a_run_that_another_takes_at_the_same_moment_is_not_taken(
    edits: Path, dead_pid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start_run(edits, PROMPT, NOW, request={})
    give_to(run, dead_pid)
    rename = Path.rename

    def rename_late(self: Path, target: Path) -> Path:
        rename(self, run.hidden / f"owner-{os.getppid()}")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", rename_late)
    with pytest.raises(UserError, match=f"is being made by process {os.getppid()}$"):
        run.take_over()


def test_a_process_may_go_on_with_its_own(edits: Path) -> None:
    start_run(edits, PROMPT, NOW, request={"a": 1})
    (run,) = unfinished_runs(edits)
    run.take_over()
    assert run.holder is None


def test_a_run_that_lay_for_long_is_held_by_who_takes_it(edits: Path, dead_pid: int) -> None:
    run = start_run(edits, PROMPT, NOW, request={"cells": 2})
    give_to(run, dead_pid)
    long_ago = time.time() - 30 * 86400
    os.utime(run.folder, (long_ago, long_ago))
    (left,) = unfinished_runs(edits)
    left.take_over()
    code = (
        "import sys; from pathlib import Path; from sine_cli.project.runs import unfinished_runs; "
        "(run,) = unfinished_runs(Path(sys.argv[1])); print(run.holder)"
    )
    seen = subprocess.run(
        [sys.executable, "-c", code, str(edits)], capture_output=True, text=True, check=True
    )
    assert seen.stdout == f"process {os.getpid()}\n"


def test_a_run_without_a_request_cannot_go_on(edits: Path, dead_pid: int) -> None:
    give_to(start_run(edits, PROMPT, NOW), dead_pid)
    assert unfinished_runs(edits) == []


# ------------------------------------------------------------------------------------------------------ sweep


def test_sweep_removes_what_the_dead_left_and_nothing_else(
    edits: Path, dead_pid: int, tmp_path: Path
) -> None:
    dead = start_run(edits, "dead", NOW)
    dead.save_image("0001.png", IMAGE, {})
    give_to(dead, dead_pid)
    give_to(start_run(edits, "resumable", NOW, request={}), dead_pid)
    give_to(start_run(edits, "another", NOW), os.getppid())
    start_run(edits, "own", NOW)
    start_run(edits, "finished", NOW).finish({})
    staged = edits / f".2026-11-23_091011_x.{dead_pid}-0.partial"
    staged.mkdir()
    (staged / "request.yaml").touch()
    (edits / ".mine.partial").mkdir()
    (edits / "mine.partial").mkdir()
    outside = tmp_path / "outside"
    outside.mkdir()
    (edits / ".2026-11-23_091011_link.partial").symlink_to(outside)

    assert sorted(sweep(edits)) == sorted([staged, dead.hidden])
    assert names(edits) == [
        ".2026-11-23_091011_another.partial",
        ".2026-11-23_091011_link.partial",
        ".2026-11-23_091011_own.partial",
        ".2026-11-23_091011_resumable.partial",
        ".mine.partial",
        "2026-11-23_091011_finished",
        "mine.partial",
    ]
    assert outside.is_dir()


def test_sweep_finishes_what_a_killed_finish_began(edits: Path, dead_pid: int) -> None:
    run = start_run(edits, PROMPT, NOW, request={})
    (run.folder / "run.yaml").write_text(yaml.safe_dump({"a": 1}))
    run.folder.rename(run.final)
    give_to(run, dead_pid)
    assert unfinished_runs(edits) == []
    assert sweep(edits) == [run.hidden]
    assert [found.record for found in list_runs(edits)] == [{"a": 1}]


def test_sweep_finds_nothing_where_there_is_nothing(edits: Path) -> None:
    assert sweep(edits) == []


def test_a_killed_process_leaves_no_run(edits: Path) -> None:
    code = (
        "import datetime, os, pathlib, signal\n"
        "from PIL import Image\n"
        "from sine_cli.project.runs import start_run\n"
        f"run = start_run(pathlib.Path({str(edits)!r}), 'x', datetime.datetime.now())\n"
        "run.save_image('0001.png', Image.new('RGB', (16, 16)), {})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = Path(__file__).resolve().parents[2]
    ended = subprocess.run(
        [sys.executable, "-c", code], check=False, env={**os.environ, "PYTHONPATH": str(root)}
    )
    assert ended.returncode == -9
    assert list_runs(edits) == []
    assert len(sweep(edits)) == 1
    assert names(edits) == []


def test_a_run_that_is_ended_early_is_let_go_and_goes_on_from_another_machine(
    edits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start_run(edits, "a", NOW, request={"K": 1})
    with pytest.raises(KeyboardInterrupt), run.at_work():
        raise KeyboardInterrupt
    monkeypatch.setattr("sine_cli.project.files._this_machine", lambda: "00000000")
    (left,) = unfinished_runs(edits)
    assert left.holder is None
    left.take_over()
    assert [path.name for path in left.hidden.glob("owner-*")] == [f"owner-{os.getpid()}@00000000"]


def test_of_two_that_take_a_run_that_was_let_go_one_has_it(
    edits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start_run(edits, "a", NOW, request={})
    with pytest.raises(KeyboardInterrupt), run.at_work():
        raise KeyboardInterrupt
    rename = Path.rename

    def after_another(path: Path, target: Path) -> Path:
        rename(path, run.hidden / f"owner-{os.getppid()}")  # between our look and our claim
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", after_another)
    with pytest.raises(UserError, match=f"is being made by process {os.getppid()}$"):
        run.take_over()
    assert [path.name for path in run.hidden.glob("owner-*")] == [f"owner-{os.getppid()}"]


def test_a_picture_below_the_run_s_folder_shows_that_it_is_worked_on(edits: Path, dead_pid: int) -> None:
    run = start_run(edits, "a", NOW, request={})
    long_ago = time.time() - 3 * 24 * 3600
    run.save_image("cells/1.png", IMAGE, {})
    os.utime(run.folder, (long_ago, long_ago))
    (run.hidden / f"owner-{Process.this().name}").rename(run.hidden / f"owner-{dead_pid}@00000000")
    assert run.holder is None
    run.save_image("cells/2.png", IMAGE, {})
    assert run.holder == Process(dead_pid, "00000000")


def test_a_run_of_another_machine_is_neither_taken_nor_removed(edits: Path, dead_pid: int) -> None:
    going_on, lost = start_run(edits, "a", NOW, request={}), start_run(edits, "b", NOW)
    for run in (going_on, lost):
        (run.hidden / f"owner-{Process.this().name}").rename(run.hidden / f"owner-{dead_pid}@00000000")
    assert sweep(edits) == []
    with pytest.raises(UserError) as caught:
        going_on.take_over()
    assert caught.value.message.endswith(f" is being made by process {dead_pid} of another machine")
    command = f"rm {going_on.hidden}/owner-{dead_pid}@00000000"
    assert caught.value.hint == f"wait for it, or if it is no more: `{command}`"
    subprocess.run(command, shell=True, check=True)
    going_on.take_over()
    yesterday = NOW.timestamp() - 25 * 3600
    os.utime(lost.folder, (yesterday, yesterday))
    assert sweep(edits) == [lost.hidden]
