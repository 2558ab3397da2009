"""Which tuning settings suit the bundled base: the table of the README's "How it was tuned".

    python -m tests.benchmarks.ablation [--work DIR] [VARIANT ...]

Each variant changes the defaults in one respect. For each, over three pictures: the mean absolute pixel
distance to the source of the tuned model alone (four seeds), the same at 1.5 times the native size with
position, and the seconds of tuning. Projects are kept in DIR; an interrupted run goes on.
"""

import argparse
from pathlib import Path
from statistics import mean
from typing import Any

from sine_cli.project.manifest import load_manifest, write_manifest
from sine_cli.workflow.tune import tune
from tests.benchmarks.fidelity import PICTURES, Bench, project_of, show

VARIANTS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "attention only": {"targets": "attention"},
    "rank 4": {"rank": 4},
    "rank 64": {"rank": 64},
    "learning rate / 3": {"learning_rate": 0.001},
    "learning rate x 2": {"learning_rate": 0.006},
    "position learning rate / 10": {"position_learning_rate": 0.002},
    "whole picture in 15 % of steps": {"whole": 0.15},
    "no patches": {"patches": False},
    "t from 200": {"min_timestep": 200},
    "half the steps": {"steps": 150},
    "twice the steps": {"steps": 600},
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Which tuning settings suit the bundled base.")
    parser.add_argument("--work", type=Path, default=Path("bench-ablation"))
    parser.add_argument("variants", nargs="*", default=list(VARIANTS), metavar="VARIANT")
    given = parser.parse_args()
    show(["variant", *(f"{noun}, x1.5" for _, noun in PICTURES), "mean, x1.5", "seconds"], ["---"] * 6)
    for name in given.variants:
        folder = given.work / name.replace(" ", "-").replace("/", "by")
        folder.mkdir(parents=True, exist_ok=True)
        figures: list[tuple[float, float]] = []
        seconds: list[float] = []
        for picture, noun in PICTURES:
            project = project_of(picture, noun, folder)
            manifest = load_manifest(project.manifest_path)
            settings = manifest.tune.model_copy(update={"preview_every": 0, **VARIANTS[name]})
            write_manifest(project.manifest_path, manifest.model_copy(update={"tune": settings}))
            seconds.append(tune(project, manifest, settings).record.seconds)
            bench = Bench(project)
            figures.append((bench.distances(bench.alone()), bench.enlarged(position=True)))
        means = (mean(native for native, _ in figures), mean(large for _, large in figures))
        show([name, *(f"{a:.3f}, {b:.3f}" for a, b in [*figures, means]), f"{mean(seconds):.0f}"])


if __name__ == "__main__":
    main()
