"""Kills `sine` at random moments and looks at what is left.

    python -m tests.robustness.kills --count 200 [--seed N] [--work DIR]

`init`, `tune` (of a project untuned, of a tuned one with other options, and back to the adapter which that
kept), `edit` and `grid` run on the bundled base as processes of their own and get SIGKILL, SIGTERM or SIGINT,
half of them after a random time and half before a random one of their file operations. After each: the
manifest loads, every picture opens and has its recipe, no run folder is half there, an adapter with a record
is the one recorded, a kept one too; and the same command again succeeds and leaves nothing hidden. A tuning
is killed up to four times; its adapter must then equal, byte for byte, that of one which nobody disturbed.
"""

import argparse
import hashlib
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from sine_cli.errors import UserError
from sine_cli.project.files import sha256
from sine_cli.project.folder import Project
from sine_cli.project.manifest import load_manifest
from sine_cli.project.runs import find_recipe, list_runs, unfinished_runs
from sine_cli.project.templates import template_path
from tests.robustness.children import Child, import_all

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
KILLS_OF_ONE_TUNING = 4
SMALL = {"steps": 12, "batch": 2, "pool": 4, "preview_every": 5, "checkpoint_every": 2}
SMALL_PICTURES = ["--steps", "2", "--size", "32x32"]
COMMANDS = {
    "init": ["init", str(template_path("demo", "castle.png")), "-c", "castle", "-b", "mini", "-d", "castle"],
    "tune": ["tune", "-p", "castle"],
    "tune otherwise": ["tune", "-p", "castle", "--steps", "9"],
    "tune as before": ["tune", "-p", "castle"],
    "edit": ["edit", "a castle at night", "-p", "castle", "-n", "2", *SMALL_PICTURES],
    "grid": ["grid", "a castle at night", "-p", "castle", "-K", "0,500", "-v", "0.5,0.9", *SMALL_PICTURES],
}
TUNINGS = [name for name in COMMANDS if name.startswith("tune")]
RESUME = ["grid", "--resume", "-p", "castle"]


@dataclass(frozen=True)
class Life:
    """Of a command that nobody disturbs: its seconds, and its file operations."""

    seconds: float
    operations: int


@dataclass(frozen=True)
class Kill:
    """A signal after some seconds, or before a file operation (from 1); the other of them is None."""

    signal: signal.Signals
    seconds: float | None
    operation: int | None

    def __str__(self) -> str:
        moment = f"{self.seconds:.3f} s" if self.operation is None else f"file operation {self.operation}"
        return f"{self.signal.name} at {moment}"

    def before_operation(self, number: int) -> None:
        if number == self.operation:
            os.kill(os.getpid(), self.signal)


class Harness:
    """Projects in `work` that are killed and looked at; `flaws` says what was not sound."""

    def __init__(self, work: Path, seed: int) -> None:
        self.work, self.random = work, random.Random(seed)
        self.flaws: list[str] = []
        self.kills: Counter[str] = Counter()
        self.exits: Counter[str] = Counter()
        self.late = 0

    def prepare(self) -> None:
        """A project undisturbed, tuned; the lives of the commands."""
        home = self.work / "whole"
        home.mkdir(parents=True)
        self.lives = {"init": self.life("init", home)}
        make_small(home / "castle" / "sine.yaml")
        self.starts: dict[str, Path] = {}
        self.weights: dict[str, str] = {}
        for name in TUNINGS:
            self.starts[name] = Path(shutil.copytree(home, self.work / f"before {name}"))
            self.lives[name] = self.life(name, home)
            self.weights[name] = weights(home / "castle")
        if self.weights["tune as before"] != self.weights["tune"]:
            self.flaws.append("undisturbed: the adapter of before is not the one that was kept")
        for name in ("edit", "grid"):
            self.starts[name] = self.starts["tune otherwise"]  # as tuned the first time
            self.lives[name] = self.life(name, home)
        for flaw in [*flaws(home / "castle"), *left_behind(home)]:
            self.flaws.append(f"undisturbed: {flaw}")

    def life(self, name: str, home: Path) -> Life:
        operations = self.work / "operations"

        def count(number: int) -> None:
            descriptor = os.open(operations, os.O_WRONLY | os.O_CREAT)
            os.write(descriptor, str(number).encode())
            os.close(descriptor)

        start = time.monotonic()
        self.succeed(Child(COMMANDS[name], home, self.work / "log", count), name)
        life = Life(time.monotonic() - start, int(operations.read_text()))
        operations.unlink()
        return life

    def succeed(self, child: Child, context: str) -> None:
        code = child.wait()
        if code:
            self.flaws.append(f"{context}: exit code {code}: {child.output()[-300:]}")

    def kill(self, name: str, home: Path, context: str) -> bool:
        """Start a command and kill it; whether it was not over before."""
        life = self.lives[name]
        by_time = self.random.random() < 0.5
        kill = Kill(
            self.random.choice(SIGNALS),
            self.random.uniform(0, life.seconds) if by_time else None,
            None if by_time else self.random.randint(1, life.operations),
        )
        child = Child(COMMANDS[name], home, self.work / "log", kill.before_operation)
        if kill.seconds is not None:
            end = time.monotonic() + kill.seconds
            while time.monotonic() < end and not child.ended():
                time.sleep(0.001)
            if not child.ended():
                os.kill(child.pid, kill.signal)
        code = child.wait()
        context = f"{context}, {name}, {kill}"
        # A tuning that is told to stop at its last steps ends as if nobody had.
        if code == 0:
            self.late += 1
        else:
            self.kills[f"{name} {kill.signal.name}"] += 1
            self.exits[f"{kill.signal.name} {code}"] += 1
        sound = {signal.SIGKILL: {0, -9}, signal.SIGTERM: {0, 130, -15}, signal.SIGINT: {0, 130, 70}}
        output = child.output()
        if code not in sound[kill.signal]:
            self.flaws.append(f"{context}: exit code {code}: {output[-300:]}")
        if "Traceback" in output and not _before_run(output) and not _swallowed(output):
            self.flaws.append(f"{context}: {output[-1500:]}")
        self.flaws += [f"{context}: {flaw}" for flaw in flaws(home / "castle")]
        return code != 0

    def again(self, name: str, home: Path, context: str) -> None:
        """The same command succeeds, and a grid that can go on does; nothing hidden is left."""
        context = f"{context}, {name} again"
        there = (home / "castle").is_dir()
        child = Child(COMMANDS[name], home, self.work / "log")
        if name == "init" and there:
            code = child.wait()
            if code != 2 or "castle already exists" not in child.output():
                self.flaws.append(f"{context}: exit code {code}: {child.output()[-300:]}")
        else:
            self.succeed(child, context)
        while name == "grid" and unfinished_runs(home / "castle" / "grids"):
            before = len(self.flaws)
            self.succeed(Child(RESUME, home, self.work / "log"), f"{context}, going on")
            if len(self.flaws) > before:
                break
        self.flaws += [f"{context}: {flaw}" for flaw in [*flaws(home / "castle"), *left_behind(home)]]

    def round(self, number: int) -> None:
        """One command, killed once, a tuning more often."""
        name = self.random.choice(list(COMMANDS))
        home = self.work / f"{number}-{name.replace(' ', '-')}"
        if name == "init":
            home.mkdir()
        else:
            shutil.copytree(self.starts[name], home)
        context = f"round {number}"
        for _ in range(self.random.randint(1, KILLS_OF_ONE_TUNING) if name in TUNINGS else 1):
            if not self.kill(name, home, context):
                break
        self.again(name, home, context)
        if name in TUNINGS and weights(home / "castle") != self.weights[name]:
            self.flaws.append(f"{context}: the adapter is another one than that of a tuning undisturbed")
        shutil.rmtree(home)


def _before_run(output: str) -> bool:
    """Whether the traceback is of a Ctrl-C before `sine` was there to hear it, which no program can help."""
    return output.rstrip().endswith("KeyboardInterrupt") and ", in run\n" not in output


def _swallowed(output: str) -> bool:
    """Whether the signal came in a callback where Python can but print an exception; the command went on."""
    ignored = re.findall(r"Exception ignored in: .*\nTraceback .*\n(?:  .*\n)+KeyboardInterrupt", output)
    return output.count("Traceback") == len(ignored)


def make_small(manifest: Path) -> None:
    """Edit a manifest as a person would, so that a tuning takes seconds."""
    text = manifest.read_text("utf-8")
    for name, value in SMALL.items():
        text, count = re.subn(rf"(?m)^  {name}: \d+$", f"  {name}: {value}", text, count=1)
        assert count == 1
    manifest.write_text(text, "utf-8")


def weights(project: Path) -> str:
    """A hash of the adapter's tensors."""
    files = sorted((project / "adapter").glob("*.safetensors"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def flaws(root: Path) -> Iterator[str]:
    """What is not sound in a project folder; nothing where there is none."""
    if not root.exists():
        return
    project = Project(root)
    try:
        manifest = load_manifest(project.manifest_path)
    except UserError as error:
        yield error.message
        return
    yield from _flaws_of_picture(project.source(manifest), recipe=False)
    for kind, parent in (("edit", project.edits_dir), ("grid", project.grids_dir)):
        runs = {run.path: run.record for run in list_runs(parent)}
        for folder in _visible(parent):
            if folder not in runs:
                yield f"{folder} has no sound run.yaml"
                continue
            names = files_of_edit(runs[folder]) if kind == "edit" else files_of_grid(runs[folder])
            yield from (f"{folder / name} is missing" for name in names if not (folder / name).is_file())
    for picture in (path for path in root.rglob("*.png") if not path.name.startswith(".")):
        made = picture.name not in ("source.png", "loss.png", "tradeoff.png")
        yield from _flaws_of_picture(picture, recipe=made)
    kept = (folder / "adapter" for folder in _visible(project.tuning_dir / "adapters"))
    for adapter in (project.adapter_dir, *kept):
        record = adapter / "record.yaml"
        if record.exists():
            for name, known in yaml.safe_load(record.read_text("utf-8"))["files"].items():
                if not (adapter / name).is_file() or sha256(adapter / name) != known:
                    yield f"{adapter / name} is not the one recorded"
        elif adapter != project.adapter_dir:
            yield f"{adapter} has no record"


def _visible(parent: Path) -> list[Path]:
    return [path for path in parent.glob("*") if not path.name.startswith(".")]


def files_of_edit(record: dict[str, Any]) -> list[str]:
    """What a run folder of `edit` must hold, by its record."""
    return [f"{number:04d}.png" for number in range(1, record["count"] + 1)]


def files_of_grid(record: dict[str, Any]) -> list[str]:
    """Likewise of `grid`."""
    cells = [f"cells/K{K:04d}_v{v:.2f}.png" for K in record["switch_steps"] for v in record["base_weights"]]
    return ["grid.png", "scores.csv", "tradeoff.png", *cells]


def _flaws_of_picture(path: Path, *, recipe: bool) -> Iterator[str]:
    try:
        with Image.open(path) as image:
            image.load()
    except (OSError, SyntaxError) as error:
        yield f"{path} does not open: {error}"
        return
    if recipe and find_recipe(path) is None:
        yield f"{path} has no recipe"


def left_behind(home: Path) -> list[str]:
    """Hidden files and folders; no command leaves any that succeeds."""
    names = [str(path.relative_to(home)) for path in home.rglob(".*")]
    return [f"left behind: {name}" for name in sorted(names)]


def main() -> None:
    parser = argparse.ArgumentParser(description="Kill sine at random moments and look at what is left.")
    parser.add_argument("--count", type=int, default=200, help="kills, of all commands together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help="an empty folder; default: a temporary one")
    given = parser.parse_args()
    import_all()
    with tempfile.TemporaryDirectory() as temporary:
        harness = Harness((given.work or Path(temporary)).resolve(), given.seed)
        harness.prepare()
        for name, life in harness.lives.items():
            print(f"{name}: {life.seconds:.1f} s, {life.operations} file operations undisturbed", flush=True)
        number = 0
        while harness.kills.total() < given.count:
            number += 1
            told = len(harness.flaws)
            harness.round(number)
            if number % 10 == 0:
                print(f"{harness.kills.total()} kills so far, {len(harness.flaws)} flaws", flush=True)
            for flaw in harness.flaws[told:]:
                print(f"flaw: {flaw}", flush=True)
    print(f"kills: {', '.join(f'{what} {count}' for what, count in sorted(harness.kills.items()))}")
    print(f"exits: {', '.join(f'{what}: {count}' for what, count in sorted(harness.exits.items()))}")
    print(f"{harness.kills.total()} kills, {harness.late} came too late, {len(harness.flaws)} flaws")
    sys.exit(1 if harness.flaws else 0)


if __name__ == "__main__":
    main()
