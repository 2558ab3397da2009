"""Which tuning settings suit the bundled base: the table of the README's "How it was tuned".

    python -m tests.benchmarks.ablation [--work DIR] [VARIANT ...]

Each variant changes the defaults in one respect, but for rank 3 and the paper's two ways of tuning. For each,
over three pictures: the mean absolute pixel distance to the source of the tuned model alone (four seeds), and
the same at 1.5 times the native size with position; alignment and distance of edits to a pencil sketch
(default K and v) by the bundled scorer; the steps of tuning and their seconds. Projects are kept in DIR; an
interrupted run goes on.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

from sine_cli.project.manifest import MOST_AUTO_STEPS, load_manifest, write_manifest
from sine_cli.project.presets import load_tuning_preset
from sine_cli.scoring.scorer import Score
from sine_cli.workflow.scorers import open_scorer
from sine_cli.workflow.tune import tune
from tests.benchmarks.fidelity import PICTURES, SEEDS, Bench, project_of, show

VARIANTS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "attention only": {"targets": "attention"},
    "rank 3, learning rate x 2": {"rank": 3, "learning_rate": 0.012},
    "rank 4": {"rank": 4},
    "rank 64": {"rank": 64},
    "learning rate / 2": {"learning_rate": 0.003},
    "learning rate x 2": {"learning_rate": 0.012},
    "position learning rate / 10": {"position_learning_rate": 0.002},
    "whole picture in 15 % of steps": {"whole": 0.15},
    "no patches": {"patches": False},
    "t from 200": {"min_timestep": 200},
    "half the steps": {"steps": 200},
    "twice the steps": {"steps": 800},
    "steps auto": {"stop_early": True, "steps": MOST_AUTO_STEPS},
    "loss of epsilon": {"loss": "epsilon"},
    "text encoder too": {"text_encoder": True},
    "prior, 50 pictures": {"prior": 50},
    "paper-plain": load_tuning_preset("paper-plain").tune,
    "paper-patches": load_tuning_preset("paper-patches").tune,
}


def edited(bench: Bench) -> list[Score]:
    """Of edits with default K and v, a seed each."""
    scorer = open_scorer("mini")
    recipe = bench.recipe(bench.target)
    pictures = [bench.renderer.picture(replace(recipe, seed=seed)) for seed in SEEDS]
    return scorer.score(pictures, bench.target, bench.source)


def main() -> None:
    parser = argparse.ArgumentParser(description="Which tuning settings suit the bundled base.")
    parser.add_argument("--work", type=Path, default=Path("bench-ablation"))
    parser.add_argument("variants", nargs="*", default=list(VARIANTS), metavar="VARIANT")
    given = parser.parse_args()
    headings = ["mean, x1.5", "edits: alignment, distance", "steps", "seconds"]
    show(["variant", *(f"{noun}, x1.5" for _, noun in PICTURES), *headings], ["---"] * 8)
    for name in given.variants:
        folder = given.work / name.replace(" ", "-").replace("/", "by")
        folder.mkdir(parents=True, exist_ok=True)
        figures: list[tuple[float, float]] = []
        scores: list[Score] = []
        steps: list[int] = []
        seconds: list[float] = []
        for picture, noun in PICTURES:
            project = project_of(picture, noun, folder)
            manifest = load_manifest(project.manifest_path)
            settings = manifest.tune.model_copy(update={**VARIANTS[name], "preview_every": 0})
            write_manifest(project.manifest_path, manifest.model_copy(update={"tune": settings}))
            record = tune(project, manifest, settings).record
            steps.append(record.steps_taken or settings.steps)
            seconds.append(record.seconds)
            bench = Bench(project)
            figures.append((bench.distances(bench.alone()), bench.enlarged(position=True)))
            scores += edited(bench)
        means = (mean(native for native, _ in figures), mean(large for _, large in figures))
        edits = (mean(s.alignment for s in scores), mean(s.distance or 0.0 for s in scores))
        pairs = [*figures, means, edits]
        show(
            [
                name,
                *(f"{a:.3f}, {b:.3f}" for a, b in pairs),
                " ".join(map(str, steps)),
                f"{mean(seconds):.0f}",
            ]
        )


if __name__ == "__main__":
    main()
