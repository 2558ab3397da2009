"""How fast: one command, a table, and the ratios that are to hold, each within this one run.

    python -m tests.benchmarks.speed [--work DIR] [--repeat 5] [--bases mini] [PART ...]

Ways of doing the same work (`ways` says what each is) run in turn, A B A B ..., each in a fresh process, and
the medians are compared; evaluations are rows of the U-Net, counted. The parts, all but `paper` where none is
named:

    edit     the authors' way, diffusers' pipeline of as many rows (bare, and with the same LoRA),
             `sine edit`; whole commands too
    grid     `sine grid`, 6 x 6, and its 36 pictures one by one
    step     a step of tuning: the authors', diffusers' DreamBooth-LoRA, `sine tune`
    tune     whole tunings of three pictures, by the earlier default's settings and by today's; once each
    paper    the same of the paper's 10,000 steps with patches (an hour), and when today's was as near
    help     `sine --help`
    floor    seconds against the least that counted FLOPs take at the rate of a matrix product measured beside
             them, for 1, 4 and 8 pictures or examples at once

`--bases sd15,sdxl` takes these bases' real shapes with random weights, for an accelerator; the authors have
no way for SDXL, and what random weights are tuned to means nothing, so `tune` and `paper` are left out.
Everything is kept in DIR.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple

# Nothing heavy is imported here: Linux counts what a process has taken to the peak of those that it starts.
PARTS = ["edit", "grid", "step", "tune", "paper", "help", "floor"]
PICTURES = ["castle", "cat", "coffee"]
TOGETHER = [1, 4, 8]

HEADINGS = [
    "base",
    "way",
    "seconds",
    "least to most",
    "loading, s",
    "evaluations",
    "calls",
    "peak, GiB",
    "artifact, MB",
]

Figures = dict[str, Any]


class Way(NamedTuple):
    """One of `ways` with its options, and what the table calls it."""

    title: str
    arguments: tuple[str, ...]


class Bench:
    """The ways on one base."""

    def __init__(self, base: str, work: Path, repeat: int) -> None:
        self.base, self.work, self.repeat = base, work / base, repeat
        self.made: dict[str, list[Figures]] = {}
        steps = () if base == "mini" else ("--steps", "3")
        self.task = self.run("prepare", "--base", base, *steps)
        self.base_bytes = sum(f.stat().st_size for f in Path(self.task["base"]).rglob("*.safetensors"))

    def run(self, *arguments: str) -> Figures:
        """What a way prints, from a process of its own."""
        return json.loads(_python("-m", "tests.benchmarks.ways", *arguments, "--work", str(self.work)))

    def take_turns(self, ways: list[Way], repeat: int | None = None) -> None:
        """Run each way `repeat` times, one after another, and show the rows of the table."""
        for _ in range(repeat or self.repeat):
            for way in ways:
                self.made.setdefault(way.title, []).append(self.run(*way.arguments))
        for way in ways:
            made = self.made[way.title]
            cells = [
                f"{self.of(way.title):.3f}",
                " to ".join(f"{pick(each['seconds'] for each in made):.3f}" for pick in (min, max)),
                _shown(made, "loading", lambda s: f"{s:.2f}"),
                _shown(made, "rows", lambda rows: f"{rows:g}"),
                _shown(made, "calls", lambda calls: f"{calls:g}"),
                _shown(made, "peak_memory", lambda peak: f"{peak / 2**30:.2f}"),
                _shown(made, "artifact", lambda size: f"{size / 1e6:.1f}"),
            ]
            show([self.base, way.title, *cells])

    def of(self, title: str, name: str = "seconds") -> float:
        """The median of a figure."""
        return median(each[name] for each in self.made[title])


def _shown(made: list[Figures], name: str, as_text: Callable[[float], str]) -> str:
    return as_text(median(each[name] for each in made)) if name in made[0] else ""


def _python(*arguments: str) -> str:
    """What a fresh process prints; its own words where it fails."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"{' '.join(arguments)}: exit code {done.returncode}\n{done.stderr}")
    return done.stdout


def show(cells: list[str]) -> None:
    print("| " + " | ".join(cells) + " |", flush=True)


def heading(*names: str) -> None:
    print()
    show([*names])
    show(["---"] * len(names))


class Target(NamedTuple):
    """A ratio or a number of seconds that is to be at most `most`; None where it is only told."""

    what: str
    value: float
    most: float | None

    def cells(self) -> list[str]:
        if self.most is None:
            return [self.what, f"{self.value:.3g}", "", ""]
        return [self.what, f"{self.value:.3g}", f"{self.most:g}", "yes" if self.value <= self.most else "no"]


# ------------------------------------------------------------------------------------------------------ parts


def edit(bench: Bench) -> list[Target]:
    rows = bench.run("sine-edit")["rows"]  # diffusers takes two a step: as many, or one less
    ways = [
        Way("sine edit", ("sine-edit",)),
        Way(bare := f"pipeline, {rows // 2} steps", ("pipeline", "--steps", str(rows // 2))),
        Way(lora := f"{bare}, with the LoRA", ("pipeline-lora", "--steps", str(rows // 2))),
        Way("sine edit, the command", ("sine-edit-command",)),
    ]
    theirs = [] if bench.base == "sdxl" else ["float32", "bfloat16"]
    for dtype in theirs:
        ways.append(Way(f"authors' edit, {dtype}", ("authors-edit", "--dtype", dtype)))
        ways.append(Way(f"authors' edit, {dtype}, the command", ("authors-edit-command", "--dtype", dtype)))
    bench.take_turns(ways)
    command = bench.of("sine edit, the command")
    return [
        Target("edit, whole command, seconds", command, 8 if bench.base == "mini" else None),
        *(
            Target(
                f"edit, whole command, to the authors' in {dtype}",
                command / bench.of(f"authors' edit, {dtype}, the command"),
                1 / 4,
            )
            for dtype in theirs
        ),
        Target("edit to the pipeline, seconds at as many rows", bench.of("sine edit") / bench.of(bare), 1.1),
        Target("the same to the pipeline with the LoRA", bench.of("sine edit") / bench.of(lora), 1.1),
        Target("artifact to base, bytes", bench.of("sine edit", "artifact") / bench.base_bytes, 1 / 100),
    ]


def grid(bench: Bench) -> list[Target]:
    bench.take_turns([Way("sine grid, 6 x 6", ("sine-grid",)), Way("its 36 pictures", ("sine-edits",))])
    one, all_36 = "sine grid, 6 x 6", "its 36 pictures"
    apart = median(each["seconds"] + each["loading"] for each in bench.made[all_36])
    return [
        Target("grid to 36 edits, rows", bench.of(one, "rows") / bench.of(all_36, "rows"), 0.45),
        Target("grid to 36 edits, seconds", bench.of(one) / bench.of(all_36), 0.5),
        Target("the same with loading, scores and sheet", bench.of(one, "whole_seconds") / apart, None),
    ]


def step(bench: Bench) -> list[Target]:
    ours, theirs = "sine tune, a step", "DreamBooth-LoRA, a step"
    ways = [Way(ours, ("sine-step",)), Way(theirs, ("dreambooth-step",))]
    if bench.base != "sdxl":
        ways.append(Way("authors' tuning, a step of one row, U-Net alone", ("authors-step",)))
    bench.take_turns(ways)
    return [Target("tuning step to DreamBooth-LoRA's", bench.of(ours) / bench.of(theirs), 1.1)]


def tune(bench: Bench) -> list[Target]:
    if bench.base != "mini":
        return []
    today, earlier = (
        [
            Way(f"sine tune, {picture}, {name}", ("sine-tune", "--picture", picture, "--settings", settings))
            for picture in PICTURES
        ]
        for name, settings in (("today's", "default"), ("earlier", "earlier"))
    )
    bench.take_turns([way for pair in zip(today, earlier, strict=True) for way in pair], repeat=1)
    near, was = (
        round(fmean(bench.of(way.title, "distance") for way in ways), 3) for ways in (today, earlier)
    )
    seconds, before = (fmean(bench.of(way.title) for way in ways) for ways in (today, earlier))
    return [
        Target("tuning, whole, mean seconds of three pictures", seconds, 60),
        Target(f"its mean distance ({near:.3f}) to the earlier default's ({was:.3f})", near / was, 1),
        Target("its seconds to the earlier default's", seconds / before, None),
    ]


def paper(bench: Bench) -> list[Target]:
    if bench.base != "mini":
        return []
    theirs, ours = "sine tune --preset paper-patches", "sine tune, a preview every 10 steps"
    bench.take_turns(
        [
            Way(theirs, ("sine-tune", "--settings", "paper-patches")),
            Way(ours, ("sine-tune", "--every", "10")),
        ],
        repeat=1,
    )
    *_, (_, _, reached) = bench.made[theirs][0]["curve"]
    passed = [seconds for _, seconds, off in bench.made[ours][0]["curve"] if off <= reached]
    if not passed:
        return [Target(f"never as near as the paper's setting ({reached:.3f})", float("inf"), 1)]
    return [
        Target(f"seconds to the distance of the paper's setting ({reached:.3f})", passed[0], None),
        Target("the same to the paper's seconds", passed[0] / bench.of(theirs), None),
    ]


def help_text(bench: Bench) -> list[Target]:
    seconds: list[float] = []
    for _ in range(bench.repeat):
        started = time.perf_counter()
        _python("-m", "sine_cli", "--help")
        seconds.append(time.perf_counter() - started)
    return [Target("`sine --help`, seconds", median(seconds), 0.3)]


def floor(bench: Bench) -> list[Target]:
    ways = [Way("pipeline, 1 at once", ("pipeline", "--warm"))]
    for n in map(str, TOGETHER):
        ways.append(Way(f"sine edit, {n} at once", ("sine-edit", "--warm", "--count", n)))
    for n in map(str, TOGETHER[1:]):
        ways.append(Way(f"sine tune, a step of {n}", ("sine-step", "--count", n)))
        ways.append(Way(f"DreamBooth-LoRA, a step of {n}", ("dreambooth-step", "--count", n)))
    flops = {way.title: bench.run(*way.arguments, "--flops")["flops"] for way in ways}
    rates: list[float] = []
    for _ in range(bench.repeat):
        rates.append(bench.run("matmul")["flops"])
        for way in ways:
            bench.made.setdefault(way.title, []).append(bench.run(*way.arguments))
    rate = median(rates)
    least_at = f"floor at {rate / 1e12:.3g} TFLOP/s, {bench.task['dtype']} on {bench.task['device']}"
    heading("base", "way", "seconds", "FLOPs", least_at, "floor / seconds")
    for way in ways:
        least, seconds = flops[way.title] / rate, bench.of(way.title)
        cells = [f"{seconds:.3f}", f"{flops[way.title]:.3g}", f"{least:.3f}", f"{least / seconds:.2f}"]
        show([bench.base, way.title, *cells])
    return []


DO: dict[str, Callable[[Bench], list[Target]]] = {
    "edit": edit,
    "grid": grid,
    "step": step,
    "tune": tune,
    "paper": paper,
    "help": help_text,
    "floor": floor,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("bench-speed"))
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--bases", default="mini")
    parser.add_argument("parts", nargs="*", metavar="PART")
    options = parser.parse_args()
    parts = options.parts or [part for part in PARTS if part != "paper"]
    if unknown := set(parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    targets: list[tuple[str, Target]] = []
    for base in options.bases.split(","):
        bench = Bench(base, options.work, options.repeat)
        if set(parts) - {"help", "floor"}:
            heading(*HEADINGS)
        for part in parts:
            targets += [(base, target) for target in DO[part](bench)]
    if targets:
        heading("base", "what", "is", "at most", "holds")
    for base, target in targets:
        show([base, *target.cells()])


if __name__ == "__main__":
    main()
