"""How faithful an adapter is, and how K and v trade fidelity for freedom: the figures of the README.

    python -m tests.benchmarks.fidelity [--work DIR] [PICTURE:NOUN ...]

For each picture, tuned with the defaults of the bundled base, the mean absolute pixel distance to the source
(in [0, 1], at the picture's own size) over four seeds:

    tuned, untuned   the tuned model alone (v = 0, K = 0, source prompt), and the same run without an adapter
    over K, over v   edits to a pencil sketch at v = 0.7, and at K = 400; with Spearman's rank correlation
    x1.5             the tuned model alone at 1.5 times the native size, with and without position

Projects are kept in DIR, and not tuned again.
"""

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean

import numpy as np
from PIL import Image
from scipy.stats import spearmanr

from sine_cli.project.folder import Project
from sine_cli.project.manifest import EditSettings, load_manifest
from sine_cli.workflow.init import InitRequest, init
from sine_cli.workflow.open import Studio, open_studio
from sine_cli.workflow.render import Recipe, Renderer, recipe_of
from sine_cli.workflow.size import Size
from sine_cli.workflow.tune import tune

HERE = Path(__file__).parent
PICTURES = [
    (HERE.parents[1] / "templates" / "demo" / "castle.png", "castle"),
    (HERE.parent / "pictures" / "cat.jpg", "cat"),
    (HERE.parent / "pictures" / "coffee.jpg", "coffee"),
]
SEEDS = range(4)
SWITCH_STEPS = [0, 200, 400, 600, 800, 1000]
BASE_WEIGHTS = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]


def project_of(picture: Path, noun: str, work: Path) -> Project:
    """The picture's project in `work`, made where it is not there."""
    folder = work / picture.stem
    if (folder / "sine.yaml").is_file():
        return Project(folder)
    return init(InitRequest(picture, noun, base="mini", folder=folder)).project


def distance(picture: Image.Image, source: Image.Image) -> float:
    """Mean absolute pixel distance in [0, 1], the source resized to the picture's size."""
    resized = source.resize(picture.size, Image.Resampling.LANCZOS)
    return float(np.abs(np.asarray(picture, np.float32) - np.asarray(resized, np.float32)).mean() / 255)


class Bench:
    """One tuned project, opened once."""

    def __init__(self, project: Project) -> None:
        self.manifest = load_manifest(project.manifest_path)
        self.studio: Studio = open_studio(project, self.manifest, needs_adapter=True)
        self.source = Image.open(project.source(self.manifest)).convert("RGB")
        self.noun = self.manifest.prompts.class_noun
        self.target = f"a pencil sketch of a {self.noun}"
        self.size = self.studio.default_size()
        prompts = [self.recipe(self.target), self.recipe(self.manifest.prompts.source)]
        self.renderer: Renderer = self.studio.renderer(prompts, print)

    def recipe(self, prompt: str, **changes: float) -> Recipe:
        settings: EditSettings = self.manifest.edit.model_copy(update=changes)
        return recipe_of(self.manifest, settings, prompt=prompt, size=self.size)

    def distances(self, recipe: Recipe) -> float:
        """The mean over the seeds."""
        pictures: Iterable[Image.Image] = (
            self.renderer.picture(replace(recipe, seed=seed)) for seed in SEEDS
        )
        return mean(distance(picture, self.source) for picture in pictures)

    def alone(self, **changes: float) -> Recipe:
        """The tuned model alone, given what it was tuned with."""
        return self.recipe(self.manifest.prompts.source, **{"switch_step": 0, "base_weight": 0.0, **changes})

    def reproduction(self) -> tuple[float, float]:
        """Distances of the tuned model alone and of the same run without an adapter."""
        return self.distances(self.alone()), self.distances(self.alone(base_weight=1.0))

    def enlarged(self, *, position: bool) -> float:
        """The distance of the tuned model alone at 1.5 times the native size."""
        size = Size(self.size.height * 3 // 2, self.size.width * 3 // 2)
        return self.distances(replace(self.alone(), size=size, position=position))

    def over_switch_steps(self) -> list[float]:
        return [
            self.distances(self.recipe(self.target, switch_step=K, base_weight=0.7)) for K in SWITCH_STEPS
        ]

    def over_base_weights(self) -> list[float]:
        return [
            self.distances(self.recipe(self.target, switch_step=400, base_weight=v)) for v in BASE_WEIGHTS
        ]


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman's."""
    return float(np.asarray(spearmanr(x, y))[0])


def measure(project: Project) -> list[str]:
    """A table row: every figure of the module's docstring."""
    bench = Bench(project)
    tuned, untuned = bench.reproduction()
    with_position, without = bench.enlarged(position=True), bench.enlarged(position=False)
    over_K, over_v = bench.over_switch_steps(), bench.over_base_weights()
    return [
        bench.noun,
        f"{tuned:.3f}",
        f"{untuned:.3f}",
        f"{tuned / untuned:.2f}",
        f"{with_position:.3f}",
        f"{without:.3f}",
        " ".join(f"{d:.3f}" for d in over_K),
        f"{rank_correlation(SWITCH_STEPS, over_K):.2f}",
        " ".join(f"{d:.3f}" for d in over_v),
        f"{rank_correlation(BASE_WEIGHTS, over_v):.2f}",
    ]


HEADINGS = [
    "picture",
    "tuned",
    "untuned",
    "ratio",
    "x1.5 position",
    "x1.5 without",
    "K = 0, 200, ..., 1000 (v = 0.7)",
    "rho",
    "v = 0, 0.2, ..., 1 (K = 400)",
    "rho",
]


def show(*rows: list[str]) -> None:
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="How faithful an adapter is, over K and v.")
    parser.add_argument("--work", type=Path, default=Path("bench-fidelity"))
    parser.add_argument("pictures", nargs="*", metavar="PICTURE:NOUN")
    given = parser.parse_args()
    pictures = [
        (Path(text.rpartition(":")[0]), text.rpartition(":")[2]) for text in given.pictures
    ] or PICTURES
    given.work.mkdir(parents=True, exist_ok=True)
    show(HEADINGS, ["---"] * len(HEADINGS))
    for picture, noun in pictures:
        project = project_of(picture, noun, given.work)
        manifest = load_manifest(project.manifest_path)
        tune(project, manifest, manifest.tune)
        show(measure(project))


if __name__ == "__main__":
    main()
