"""Two processes on one project: tunings exclude each other, edits do not, and none takes another's folder."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sine_cli.project.folder import Project
from sine_cli.project.leftovers import remove_leftovers
from sine_cli.project.lock import holder
from sine_cli.project.runs import list_runs
from tests.cli.conftest import Sine, Start, girl, sine, start, tuned_once, untuned

__all__ = ["girl", "sine", "start", "tuned_once", "untuned"]  # fixtures of the command line's tests

LOCK = ".tuning.lock"


def wait_for(path: Path, process: "subprocess.Popen[str]") -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def test_a_second_tuning_is_refused_and_a_dead_one_s_lock_is_taken_over(
    sine: Sine, start: Start, untuned: Path
) -> None:
    checkpoint = untuned / "tuning" / "checkpoint" / "state.safetensors"
    manifest = untuned / "sine.yaml"
    manifest.write_text(manifest.read_text("utf-8").replace("checkpoint_every: 100", "checkpoint_every: 1"))
    first = start("tune", "--steps", "2000", "-q")
    wait_for(checkpoint, first)
    there = holder(untuned / LOCK)
    assert there and there.pid == first.pid
    assert sine("tune", "--steps", "2000") == (
        2,
        "",
        "project: girl\n"
        f"error: girl is being tuned by process {first.pid}, since {there.since}\n\n"
        f"hint: wait for it, or stop it: `kill {first.pid}`\n",
    )
    assert sine("edit", "a boat", "-q") == (
        2,
        "",
        f"error: girl is not tuned yet: process {first.pid} is at it, since {there.since}\n\n"
        "hint: wait for it, then run the same command again\n",
    )
    assert sine("show", "-q").code == 0
    assert first.poll() is None, "nobody disturbed it"
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert (untuned / LOCK).is_file(), "a killed process cannot tidy"
    manifest.write_text(manifest.read_text("utf-8").replace("steps: 4\n", "steps: 2\n"))
    assert sine("tune", "-q").code == 0
    assert [str(path) for path in untuned.rglob(".*")] == []


def test_what_is_asked_to_stop_by_kill_stops_soundly(start: Start, untuned: Path) -> None:
    process = start("tune", "--steps", "2000")
    wait_for(untuned / LOCK, process)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate()
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err and "error: interrupted\n" in err
    assert not (untuned / LOCK).exists()


def test_edits_run_side_by_side_and_get_folders_of_their_own(start: Start, girl: Path) -> None:
    both = [start("edit", "a boat", "--steps", "1", "--size", "16x16", "-n", "3", "--json") for _ in range(2)]
    told = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    folders = {json.loads(out)["runs"][0]["folder"] for out, _ in told}
    assert len(folders) == 2
    runs = list_runs(girl / "edits")
    assert {run.path for run in runs} == {(girl / "edits" / Path(folder).name) for folder in folders}
    assert all(len([*run.path.glob("*.png")]) == 3 for run in runs)


RUNS_OF_ONE_SECOND = """
import sys
from datetime import datetime
from pathlib import Path
from sine_cli.project.runs import start_run, sweep
edits = Path("girl/edits")
sys.stdin.readline()
for number in range(20):
    run = start_run(edits, "a boat", datetime(2026, 11, 23, 9, 10, 11))
    sweep(edits)
    (run.folder / sys.argv[1]).write_text(str(number))
    print(run.finish({"by": sys.argv[1], "number": number}).name)
"""


def test_many_runs_of_the_same_second_get_folders_of_their_own() -> None:
    Path("girl").mkdir()
    pipe = subprocess.PIPE
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RUNS_OF_ONE_SECOND, str(n)],
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            text=True,
        )
        for n in range(3)
    ]
    for process in processes:
        assert process.stdin
        process.stdin.write("now\n")
        process.stdin.flush()
    told = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], told
    names = [out.split() for out, _ in told]
    assert len({name for own in names for name in own}) == 60
    runs = {run.path.name: run for run in list_runs(Path("girl/edits"))}
    assert len(runs) == 60
    for n, own in enumerate(names):
        for number, name in enumerate(own):
            assert runs[name].record == {"by": str(n), "number": number}
            assert [path.name for path in runs[name].path.iterdir() if path.name != "run.yaml"] == [str(n)]
    assert all(re.fullmatch(r"2026-11-23_091011_a-boat(-\d+)?", name) for name in runs)
    assert [path.name for path in Path("girl/edits").glob(".*")] == []


@pytest.fixture
def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_leftovers_of_the_dead_go_and_those_of_the_living_stay(dead_pid: int, tmp_path: Path) -> None:
    project = Project(Path("girl"))
    folders = ["", "adapter", "tuning", "tuning/checkpoint", "tuning/previews", "tuning/prior", "exports"]
    for folder in folders:
        (project.root / folder).mkdir(exist_ok=True)
        (project.root / folder / f".a.{dead_pid}-0.partial").write_text("dead")
        (project.root / folder / f".a.{os.getpid()}-0.partial").write_text("living")
        (project.root / folder / ".mine").write_text("a person's")
    (project.root / LOCK).write_text(f"{dead_pid} 2026-11-23 09:10:11\n")
    (tmp_path / f".a.{dead_pid}-0.partial").write_text("elsewhere")
    project.edits_dir.symlink_to(tmp_path)
    remove_leftovers(project)
    left = list(project.root.rglob(".*"))
    assert len(left) == 2 * len(folders)
    assert {path.name for path in left} == {f".a.{os.getpid()}-0.partial", ".mine"}
    assert len([*tmp_path.glob(".*.partial")]) == 1, "a link is not followed"


KILLED_WHILE_SAVING = """
import os, signal
from pathlib import Path
from sine_cli.workflow import tensors

def save_file(tensors, file, metadata):
    Path(file).with_name(".tmpNAke4x").touch()  # as safetensors does, which renames it when it is whole
    os.kill(os.getpid(), signal.SIGKILL)

tensors.save_file = save_file
tensors.write_tensors(Path("girl/tuning/checkpoint/state.safetensors"), {})
"""


def test_what_safetensors_leaves_when_it_is_killed_goes_too() -> None:
    project = Project(Path("girl"))
    (project.tuning_dir / "checkpoint").mkdir(parents=True)
    killed = subprocess.run([sys.executable, "-c", KILLED_WHILE_SAVING])
    assert killed.returncode == -signal.SIGKILL
    assert [path.name for path in project.root.rglob(".*") if path.is_file()] == [".tmpNAke4x"]
    remove_leftovers(project)
    assert [*project.root.rglob(".*")] == []
