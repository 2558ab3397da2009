"""The lock of a tuning: one holder at a time, told by name; a dead one's is taken over."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sine_cli.errors import SineError, UserError
from sine_cli.project.lock import held, holder, remove_idle

LOCK = Path(".tuning.lock")
DOING = "girl is being tuned"

HOLD = """
import sys, time
from pathlib import Path
from sine_cli.project.lock import held
with held(Path(".tuning.lock"), "girl is being tuned"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other(isolated: Path) -> "subprocess.Popen[str]":
    """A process that holds the lock until it is killed, or its stdin is closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout and process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_told_who_holds_it_and_since_when(other: "subprocess.Popen[str]") -> None:
    there = holder(LOCK)
    assert there is not None and there.pid == other.pid
    with pytest.raises(UserError) as caught, held(LOCK, DOING):
        pytest.fail("held twice")
    assert caught.value.message == f"girl is being tuned by process {other.pid}, since {there.since}"
    assert caught.value.hint == f"wait for it, or stop it: `kill {other.pid}`"
    assert holder(LOCK) == there, "who is refused leaves the holder's words"
    remove_idle(LOCK)
    assert LOCK.is_file(), "it is not idle"
    other.communicate("")
    assert not LOCK.exists()
    with held(LOCK, DOING):
        assert LOCK.read_text("utf-8").startswith(f"{os.getpid()} ")
    assert not LOCK.exists()


def test_a_dead_holder_s_lock_is_taken_over(other: "subprocess.Popen[str]") -> None:
    other.send_signal(signal.SIGKILL)
    other.communicate()
    assert LOCK.is_file() and holder(LOCK) is None
    with held(LOCK, DOING):
        assert LOCK.read_text("utf-8").startswith(f"{os.getpid()} ")
    assert not LOCK.exists()


def test_a_dead_holder_s_file_is_removed(other: "subprocess.Popen[str]") -> None:
    other.send_signal(signal.SIGKILL)
    other.communicate()
    remove_idle(LOCK)
    assert not LOCK.exists()
    remove_idle(LOCK)
    assert not LOCK.exists(), "none is made"


def test_it_goes_when_the_work_fails() -> None:
    with pytest.raises(RuntimeError), held(LOCK, DOING):
        raise RuntimeError
    assert not LOCK.exists()


@pytest.mark.parametrize(
    "words", [b"", b"mine\n", b"0 2026-01-01 10:00:00\n", b"\xff\xfe", b"1 2026-01-01 10:00:00\n" * 9]
)
def test_words_of_others_name_no_holder(words: bytes) -> None:
    LOCK.write_bytes(words)
    assert holder(LOCK) is None


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    LOCK.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SineError, match=r"^cannot write \.tuning\.lock: "), held(LOCK, DOING):
        pytest.fail("held")
    remove_idle(LOCK)
    assert LOCK.is_symlink() and not (tmp_path / "elsewhere").exists()
