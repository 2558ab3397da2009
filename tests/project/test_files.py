"""Files appear whole or not at all, and failures of the disk are told with the path and what to do."""

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sine_cli.errors import SineError, UserError
from sine_cli.project import files


@pytest.fixture
def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_a_written_file_has_its_content_and_no_companion(tmp_path: Path) -> None:
    files.write_text(tmp_path / "a.txt", "Zoë\n")
    files.write_text(tmp_path / "a.txt", "Zoë again\n")
    assert (tmp_path / "a.txt").read_bytes() == "Zoë again\n".encode()
    assert names(tmp_path) == ["a.txt"]


def test_a_failure_in_the_body_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def write_half() -> None:
        with files.replacing(target) as partial:
            partial.write_text("ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize(
    ("number", "message", "hint"),
    [
        (
            errno.ENOSPC,
            "cannot write a.txt: the disk is full",
            "free some space on that disk, then run the same command again",
        ),
        (
            errno.EROFS,
            "cannot write a.txt: permission denied",
            "see who may write there with `ls -ld .`, or work in a folder of your own",
        ),
        (
            errno.EIO,
            "cannot write a.txt: Input/output error",
            "look at `ls -ld .`, then run the same command again",
        ),
    ],
)
def test_what_the_disk_refuses_becomes_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, message: str, hint: str
) -> None:
    monkeypatch.chdir(tmp_path)

    def refuse(self: Path, content: bytes) -> int:
        self.touch()
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(SineError) as caught:
        files.write_text(tmp_path / "a.txt", "text")
    assert (caught.value.message, caught.value.hint) == (message, hint)
    assert caught.value.exit_code == 1
    assert names(tmp_path) == []


def test_a_folder_that_is_missing_is_a_failure_of_the_disk(tmp_path: Path) -> None:
    with pytest.raises(SineError, match="No such file or directory"):
        files.write_text(tmp_path / "gone" / "a.txt", "text")


def test_a_dead_process_s_leftover_goes_and_a_living_one_s_stays(tmp_path: Path, dead_pid: int) -> None:
    (tmp_path / f".a.txt.{dead_pid}-0.partial").touch()
    (tmp_path / f".b.txt.{dead_pid}-0.partial").touch()
    (tmp_path / f".a.txt.{os.getppid()}-0.partial").touch()
    files.write_text(tmp_path / "a.txt", "text")
    assert names(tmp_path) == sorted(
        ["a.txt", f".b.txt.{dead_pid}-0.partial", f".a.txt.{os.getppid()}-0.partial"]
    )


def test_the_hidden_name_of_a_long_name_is_no_longer_than_a_name_may_be(tmp_path: Path) -> None:
    long = "é" * 120 + ".txt"
    files.write_text(tmp_path / long, "text")
    assert names(tmp_path) == [long]


def test_removing_a_link_leaves_what_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    files.remove(tmp_path / "link")
    assert names(tmp_path) == ["kept"]


def test_processes_live_and_die(dead_pid: int) -> None:
    assert files.process_lives(os.getpid())
    assert not files.process_lives(dead_pid)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="only Linux tells when a process began")
def test_a_process_that_began_long_after_is_another() -> None:
    now = time.time()
    assert files.process_lives(os.getpid(), since=now)
    assert files.process_lives(os.getpid(), since=now - 1800)  # clocks may be apart
    assert not files.process_lives(os.getpid(), since=now - 30 * 86400)


def test_paths_are_shown_relative_below_the_working_folder_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert files.shown(tmp_path / "girl" / "sine.yaml") == "girl/sine.yaml"
    assert files.shown(Path("girl/sine.yaml")) == "girl/sine.yaml"
    assert files.shown(tmp_path.parent / "elsewhere") == str(tmp_path.parent / "elsewhere")


def test_names_cannot_break_out_of_a_message() -> None:
    assert files.shown(Path("a\nb\x1b[1m\udcff")) == r"a\nb\x1b[1m\udcff"


def test_paths_in_commands_are_quoted() -> None:
    assert files.typed(Path("my girl")) == "'my girl'"
    assert files.typed(Path("-x")) == "./-x"


def test_reading_a_missing_file_suggests_a_close_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "girl.jpg").touch()
    with pytest.raises(UserError) as caught:
        files.read_bytes(Path("gril.jpg"))
    assert (caught.value.message, caught.value.hint) == (
        "no such file: gril.jpg",
        "did you mean `girl.jpg`?",
    )
    with pytest.raises(UserError) as caught:
        files.read_bytes(Path("zzz"))
    assert caught.value.hint == "`ls .` shows what there is"
    with pytest.raises(UserError) as caught:
        files.read_bytes(Path("pics/girl.jpg"))
    assert caught.value.hint == "there is no folder pics either; `ls` shows what there is"


def test_reading_what_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    (tmp_path / "folder").mkdir()
    for name, message in [("folder", "folder is a folder"), ("pipe", "pipe is not a regular file")]:
        with pytest.raises(UserError) as caught:
            files.read_bytes(Path(name))
        assert caught.value.message == message
    with pytest.raises(UserError, match="File name too long"):
        files.read_bytes(Path("x" * 300))


def test_reading_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.txt").touch()

    def refuse(self: Path, mode: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UserError) as caught:
        files.read_bytes(Path("a.txt"))
    assert (caught.value.message, caught.value.hint) == (
        "cannot read a.txt: permission denied",
        "see who may read it with `ls -ld a.txt`",
    )


def test_reading_more_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_bytes(b"12345")
    assert files.read_bytes(Path("a.txt"), limit=5) == b"12345"
    with pytest.raises(UserError, match=r"^a\.txt is larger than 4 bytes$"):
        files.read_bytes(Path("a.txt"), limit=4)


def test_what_another_machine_is_writing_stays_for_a_day(tmp_path: Path) -> None:
    theirs = tmp_path / f".a.txt.{os.getpid()}@00000000-0.partial"
    theirs.touch()
    files.write_text(tmp_path / "a.txt", "text")
    assert names(tmp_path) == sorted(["a.txt", theirs.name])
    yesterday = time.time() - 25 * 3600
    os.utime(theirs, (yesterday, yesterday))
    files.write_text(tmp_path / "a.txt", "text")
    assert names(tmp_path) == ["a.txt"]


def test_processes_have_names_that_tell_their_machine(dead_pid: int) -> None:
    this = files.Process.this()
    assert files.Process.named(this.name) == this
    assert (this.is_here, str(this)) == (True, f"process {os.getpid()}")
    other = files.Process.named(f"{dead_pid}@00000000")
    assert other and (other.is_here, str(other)) == (False, f"process {dead_pid} of another machine")
    assert files.Process.named(str(dead_pid)) == files.Process(dead_pid)
    assert files.Process(dead_pid).is_here
    for text in ("", "0", "-1", "1@", "1@xyz", "1@0000000", "1 2", "1@00000000x"):
        assert files.Process.named(text) is None
