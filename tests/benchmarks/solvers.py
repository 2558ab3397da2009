"""How few steps are enough: each solver against DDIM with 500 steps, with the switch at K.

    python -m tests.benchmarks.solvers [--work DIR] [--seeds 2]

Edits of three pictures to three prompts, `--seeds` seeds each, on the bundled base with its defaults of K, v
and w: the mean absolute distance of latents and of pixels (in [0, 1]) to the reference, by solver and steps,
and the bundled scorer's alignment and distance to the source.
At K the model that is followed changes, and a solver that remembers earlier steps may keep what it remembers
or start anew: both are measured. Below, the fewest steps of each solver whose pictures are as near to the
reference as those of DDIM with 100 steps. Projects and references are kept in DIR.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from sine_cli.method.sampling import SOLVERS, Solver, follow
from sine_cli.method.schedule import NoiseSchedule
from sine_cli.mini.vocabulary import phrase
from sine_cli.project.manifest import load_manifest
from sine_cli.scoring.scorer import Scorer
from sine_cli.workflow.open import open_studio
from sine_cli.workflow.render import Recipe, Renderer, recipe_of
from sine_cli.workflow.scorers import open_scorer
from sine_cli.workflow.tune import tune
from tests.benchmarks.fidelity import PICTURES, distance, project_of, show

PROMPTS = ["a pencil sketch of {}", "{} in the snow", "{} at night"]
REFERENCE = ("ddim", 500)
ENOUGH = ("ddim", 100)
STEPS = {"ddim": [10, 15, 20, 25, 50, 100]}
"""Of the others: `FEWER`."""
FEWER = [10, 15, 20, 25, 30]


class Edit(NamedTuple):
    """One picture to be made, and what makes it."""

    name: str
    renderer: Renderer
    recipe: Recipe
    source: Image.Image


class Variant(NamedTuple):
    """A solver, and whether it starts anew at K."""

    solver: str
    restarts: bool

    def __str__(self) -> str:
        return self.solver + (", anew at K" if self.restarts else "")


def remembers(solver: Solver) -> bool:
    """Whether it has a state besides its schedule."""
    return bool(vars(solver).keys() - {"schedule"})


def variants(schedule: NoiseSchedule) -> Iterator[Variant]:
    for name, new in SOLVERS.items():
        yield Variant(name, restarts=False)
        if remembers(new(schedule)):
            yield Variant(name, restarts=True)


@torch.no_grad()
def latents(edit: Edit, variant: Variant, steps: int) -> Tensor:
    """Clean latents of the edit, (1, C, h, w)."""
    schedule, K = edit.renderer.base.schedule, edit.recipe.switch_step
    pairs = schedule.pairs(steps)
    parts = [pairs]
    if variant.restarts:
        parts = [[pair for pair in pairs if pair[0] > K], [pair for pair in pairs if pair[0] <= K]]
    model, x_t = edit.renderer.guided(edit.recipe), edit.renderer.noise(edit.recipe)
    for part in parts:
        x_t = follow(model, x_t, SOLVERS[variant.solver](schedule), part)
    return x_t


def edits_of(picture: Path, noun: str, work: Path, seeds: int) -> list[Edit]:
    project = project_of(picture, noun, work)
    manifest = load_manifest(project.manifest_path)
    tune(project, manifest, manifest.tune)
    studio = open_studio(project, manifest, needs_adapter=True)
    prompts = [prompt.format(phrase(noun)) for prompt in PROMPTS]
    recipes = [
        recipe_of(manifest, manifest.edit, prompt=prompt, size=studio.default_size()) for prompt in prompts
    ]
    renderer = studio.renderer(recipes, print)
    return [
        Edit(f"{noun}-{number}-{seed}", renderer, replace(recipe, seed=seed), studio.source_picture())
        for number, recipe in enumerate(recipes)
        for seed in range(seeds)
    ]


def reference(edit: Edit, work: Path) -> Tensor:
    """Made once: an adapter tuned anew wants another DIR."""
    file = work / "references" / f"{edit.name}.pt"
    if not file.exists():
        file.parent.mkdir(exist_ok=True)
        torch.save(latents(edit, Variant(REFERENCE[0], False), REFERENCE[1]), file)
    return torch.load(file)


class Figures(NamedTuple):
    """Mean absolute distances to the reference; scores."""

    latents: float
    pixels: float
    alignment: float
    distance: float


def figures_of(edit: Edit, z_0: Tensor, wanted: Tensor, scorer: Scorer) -> Figures:
    made, reference = (edit.renderer.developed(edit.recipe, z) for z in (z_0, wanted))
    (score,) = scorer.score([made], edit.recipe.prompt, edit.source)
    apart = float((z_0 - wanted).abs().mean())
    return Figures(apart, distance(made, reference), score.alignment, score.distance or 0.0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("bench-solvers"))
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    edits = [edit for each in PICTURES for edit in edits_of(*each, options.work, options.seeds)]
    wanted = [reference(edit, options.work) for edit in edits]
    scorer = open_scorer("mini")

    headings = ["solver", "steps", "latents", "pixels", "pixels at the most", "alignment", "distance"]
    show(headings, ["---"] * len(headings))
    means: dict[tuple[str, int], float] = {}

    def tell(name: str, steps: int, made: list[Tensor]) -> None:
        every = [
            figures_of(edit, z_0, reference, scorer)
            for edit, z_0, reference in zip(edits, made, wanted, strict=True)
        ]
        mean = Figures(*map(fmean, zip(*every, strict=True)))
        means[name, steps] = mean.pixels
        most = max(each.pixels for each in every)
        apart = (f"{figure:.4f}" for figure in (mean.latents, mean.pixels, most))
        show([name, str(steps), *apart, f"{mean.alignment:.3f}", f"{mean.distance:.3f}"])

    tell(*REFERENCE, wanted)
    for variant in variants(edits[0].renderer.base.schedule):
        for steps in STEPS.get(variant.solver, FEWER):
            tell(str(variant), steps, [latents(edit, variant, steps) for edit in edits])

    enough = means[ENOUGH]
    print(f"\nThe fewest steps as near to the reference as {ENOUGH[1]} of {ENOUGH[0]} ({enough:.4f}):\n")
    for name in dict.fromkeys(name for name, _ in means):
        few = min((steps for (n, steps), d in means.items() if n == name and d <= enough), default=None)
        print(f"{name}: {few or 'none of these'}")


if __name__ == "__main__":
    main()
