"""Long loads: a thousand edits in one process, and a hundred commands one after the other.

    python -m tests.robustness.loads [--edits 1000] [--commands 100] [--work DIR]

`sine edit -` reads that many prompts and makes a small picture of each, on the bundled base. The memory that
the process holds (resident, in MiB) is read all the time: after the first 50 edits it may not grow by more
than 5 %. Then that many separate `sine edit` leave as many runs. All runs must be whole, none may be lost,
and nothing hidden left.
"""

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from sine_cli.project.runs import find_recipe, list_runs
from tests.robustness.children import Child, import_all
from tests.robustness.kills import COMMANDS, SMALL_PICTURES, flaws, left_behind, make_small

WARM = 50
"""Edits after which memory may grow no more."""

TOLERANCE = 0.05


def resident(pid: int) -> float:
    """MiB that a process holds in memory."""
    lines = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:")), 0.0)


def tuned_project(home: Path) -> Path:
    """A small project in `home`, tuned for a few steps."""
    home.mkdir(parents=True, exist_ok=True)
    project = home / "castle"
    for name in ("init", "tune"):
        if name == "tune":
            make_small(project / "sine.yaml")
        child = Child(COMMANDS[name], home, home / "log")
        if child.wait():
            sys.exit(child.output())
    return project


def many_edits(project: Path, count: int) -> dict[int, float]:
    """One process that makes `count` edits; the memory it held at each number of runs that was seen."""
    prompts = "".join(f"a castle in the year {1000 + number}\n" for number in range(count))
    command = ["edit", "-", "-p", "castle", "-q", *SMALL_PICTURES]
    child = Child(command, project.parent, project.parent / "log", stdin=prompts.encode())
    memory: dict[int, float] = {}
    edits = project / "edits"
    while not child.ended():
        done = sum(not path.name.startswith(".") for path in edits.iterdir()) if edits.is_dir() else 0
        held = resident(child.pid)
        if done and held:
            memory[done] = max(held, memory.get(done, 0))
        time.sleep(0.02)
    if child.code:
        sys.exit(child.output())
    return memory


def growth(memory: dict[int, float]) -> tuple[float, float]:
    """MiB at the first look after `WARM` edits, and the most after it."""
    later = {done: held for done, held in memory.items() if done >= WARM}
    return later[min(later)], max(later.values())


def faults(project: Path, prompts: list[str]) -> list[str]:
    """What is not sound, and edits that were lost."""
    runs = list_runs(project / "edits")
    found = [*flaws(project), *left_behind(project)]
    made = sorted(run.record["prompt"] for run in runs)
    if made != sorted(prompts):
        found.append(f"{len(prompts)} edits asked for, {len(runs)} runs there")
    for run in runs:
        recipe = find_recipe(run.path / "0001.png")
        if recipe is None or recipe["prompt"] != run.record["prompt"]:
            found.append(f"{run.path}: picture and run.yaml do not agree")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Many edits in one process, and many commands.")
    parser.add_argument("--edits", type=int, default=1000, help=f"in one process, more than {WARM}")
    parser.add_argument("--commands", type=int, default=100, help="separate processes")
    parser.add_argument("--work", type=Path, help="an empty folder; default: a temporary one")
    given = parser.parse_args()
    import_all()
    found: list[str] = []
    with tempfile.TemporaryDirectory() as temporary:
        project = tuned_project((given.work or Path(temporary)).resolve())

        memory = many_edits(project, given.edits)
        before, most = growth(memory)
        print(
            f"{given.edits} edits in one process: {before:.0f} MiB after {WARM}, at most {most:.0f} MiB later"
        )
        for done in sorted(memory)[:: max(1, len(memory) // 10)]:
            print(f"  {done} runs: {memory[done]:.0f} MiB")
        if most > before * (1 + TOLERANCE):
            found.append(f"memory grew by {100 * (most / before - 1):.1f} %")
        found += faults(project, [f"a castle in the year {1000 + number}" for number in range(given.edits)])

        shutil.rmtree(project / "edits")
        for number in range(given.commands):
            child = Child(
                ["edit", "a boat", "-p", "castle", *SMALL_PICTURES], project.parent, project.parent / "log"
            )
            if child.wait():
                found.append(f"command {number + 1}: {child.output()[-300:]}")
        found += faults(project, ["a boat"] * given.commands)
        print(f"{given.commands} commands: {len(list_runs(project / 'edits'))} runs")
    for fault in found:
        print(f"fault: {fault}")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
