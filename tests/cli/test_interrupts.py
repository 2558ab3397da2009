"""Ctrl-C: the first asks, the second stops; what can go on is kept, and else nothing is left."""

import json
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sine_cli.cli.interrupts import stop_requests

if TYPE_CHECKING:
    from tests.cli.conftest import Sine, Start


def test_the_first_request_is_remembered_and_the_second_raises() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    told: list[str] = []
    with pytest.raises(KeyboardInterrupt), stop_requests(lambda: told.append("stopping")) as asked:
        assert not asked()
        signal.raise_signal(signal.SIGTERM)
        assert asked()
        assert told == ["stopping"]
        signal.raise_signal(signal.SIGINT)
    assert told == ["stopping"]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_what_is_ignored_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as `nohup` does
    try:
        with stop_requests(lambda: None) as asked:
            signal.raise_signal(signal.SIGHUP)
            assert not asked()
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        with stop_requests(lambda: None) as asked:
            signal.raise_signal(signal.SIGHUP)
            assert asked()
    finally:
        signal.signal(signal.SIGHUP, before)


def interrupted_at(
    process: "subprocess.Popen[str]", beginning: str, number: int = signal.SIGINT
) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a process that gets the signal at the line that begins so."""
    assert process.stderr
    heard: list[str] = []
    for line in process.stderr:
        heard.append(line)
        if line.startswith(beginning):
            time.sleep(0.1)  # not within the very call that prints, which no person could hit
            process.send_signal(number)
            break
    out, rest = process.communicate(timeout=60)
    return process.returncode, out, "".join(heard) + rest


def test_an_interrupted_tuning_keeps_a_checkpoint_and_goes_on(
    sine: "Sine", start: "Start", untuned: Path
) -> None:
    code, out, err = interrupted_at(start("tune", "--steps", "40"), "encoding patches")
    assert (code, out) == (130, "")
    match = re.fullmatch(
        r"project: girl\nencoding patches  2/4\nencoding patches  4/4  [\d.]+/s, 0 s left\n(?:tuning .*\n)*"
        r"stopping where it can go on; Ctrl-C again to stop at once\n(?:tuning .*\n)*"
        r"error: interrupted\n\nhint: the same command goes on from step (\d+)\n",
        err,
    )
    assert match, err
    step = int(match[1])
    assert 1 <= step < 40
    assert [path.name for path in (untuned / "tuning" / "checkpoint").iterdir()] == ["state.safetensors"]
    assert not (untuned / "adapter").exists()
    facts = json.loads(sine("show", "--json").out)
    assert (facts["tuned"], facts["checkpoint"]) == (False, True)
    assert "tuned          not finished; `sine tune --steps 40` goes on\n" in sine("show").out

    done = sine("tune", "--steps", "40")
    assert done.code == 0
    assert "40 steps in " in done.out and f" s, went on from step {step}, loss " in done.out
    assert len((untuned / "tuning" / "loss.csv").read_text("utf-8").splitlines()) == 41
    assert not (untuned / "tuning" / "checkpoint").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_an_interrupted_edit_leaves_nothing(start: "Start", girl: Path, number: int) -> None:
    process = start("edit", "a boat", "--steps", "600", "--size", "16x16")
    code, out, err = interrupted_at(process, "sampling", number)
    assert (code, out) == (130, "")
    assert err.endswith("error: interrupted\n")
    assert "Traceback" not in err
    assert [*(girl / "edits").iterdir()] == []


def test_an_interrupted_grid_keeps_its_cells_and_goes_on(sine: "Sine", start: "Start", girl: Path) -> None:
    grid = ["-K", "0,600", "-v", "0.5,0.7", "--size", "768x768", "--steps", "4", "-s", "4"]
    code, out, err = interrupted_at(start("grid", "a red boat", *grid), "4 cells, 2 there")
    assert (code, out) == (130, "")
    match = re.search(
        r"\nerror: interrupted\n\nhint: (\d) of 4 cells are kept; `sine grid --resume` goes on\n\Z", err
    )
    assert match, err
    kept = int(match[1])
    assert 1 <= kept < 4
    shown = sine("show").out.splitlines()[-1]
    assert re.fullmatch(r"unfinished     (\S+_a-red-boat)  \(`sine grid --resume`\)", shown)
    name = shown.split()[1]

    done = sine("grid", "--resume")
    assert done.code == 0
    assert done.out == (
        f"girl/grids/{name}/grid.png  4 cells, each 768 high, 768 wide, {kept} of them made before\n"
        "scores.csv and tradeoff.png beside it; alignment by mini, distance: features of mini\n"
    )
    assert [path.name for path in (girl / "grids").iterdir()] == [name]
    again = json.loads(sine("grid", "a red boat", *grid, "--json").out)
    assert again["made"] == 4
    for cell in again["cells"]:
        twin = girl / "grids" / name / "cells" / Path(cell["file"]).name
        assert twin.read_bytes() == Path(cell["file"]).read_bytes()
    for made in (again["scores"], again["tradeoff"]):
        assert (girl / "grids" / name / Path(made).name).read_bytes() == Path(made).read_bytes()
    assert sine("grid", "--resume").err.startswith(
        "project: girl\nerror: no interrupted grid in girl/grids\n"
    )


@pytest.mark.parametrize("json_too", [False, True])
def test_prompts_that_were_made_before_an_interruption_are_told(
    sine: "Sine", girl: Path, monkeypatch: pytest.MonkeyPatch, json_too: bool
) -> None:
    from sine_cli.workflow import edit

    make_run = edit.make_run

    def interrupted_at_the_third(*arguments: Any, number: int, **named: Any) -> edit.EditResult:
        if number == 2:
            raise KeyboardInterrupt
        return make_run(*arguments, number=number, **named)

    monkeypatch.setattr("sine_cli.workflow.edit.make_run", interrupted_at_the_third)
    options = ("--size", "32x32", "--steps", "1", *(["--json"] if json_too else []))
    done = sine("edit", "a boat", "a tree", "a house", *options)
    assert done.code == 130
    assert done.err.endswith("error: interrupted\n")
    if json_too:
        assert [run["prompt"] for run in json.loads(done.out)["runs"]] == ["a boat", "a tree"]
    else:
        assert [line.split("_")[-1].split("/")[0] for line in done.out.splitlines()] == ["a-boat", "a-tree"]
