"""The methods that `sine compare` compares, each from the method floor's parts to a picture's latents."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from sine_cli.method.dreambooth import dreambooth
from sine_cli.method.guidance import Branch, Guidance, GuidedModel
from sine_cli.method.ilvr import ILVR
from sine_cli.method.inversion import invert
from sine_cli.method.prompt_to_prompt import PromptToPrompt
from sine_cli.method.sampling import DDIM, SOLVERS, sample
from sine_cli.method.sdedit import sdedit
from sine_cli.models.attention import CrossAttentionMaps
from sine_cli.models.rows import BASE, TUNED
from sine_cli.project.manifest import Manifest
from sine_cli.project.prompts import naming
from sine_cli.workflow.render import NULL, Reading, Recipe, Renderer
from sine_cli.workflow.word import WORD

MAPS_UNTIL = 200
"""The t down to which Prompt-to-Prompt replaces maps: four fifths of all steps, as its authors have it."""


@dataclass(frozen=True)
class Stage:
    """What the methods make their pictures with.

    Args:
        z_0: latents of the source at the size of the pictures, (1, C, h, w).
        maps: of the U-Net's cross-attention, for the words that prompt and source prompt have in common, its
            token left out.
        word: SHA-256 of the file that keeps Textual Inversion's, where it is among the methods.
        strength: of SDEdit.  factor: N of ILVR.
    """

    renderer: Renderer
    z_0: Tensor
    maps: CrossAttentionMaps
    word: str | None
    strength: float
    factor: int

    def plain(self, recipe: Recipe) -> GuidedModel:
        """The base alone (Eq. 2)."""
        null, target = self.branches(recipe)
        return GuidedModel(self.renderer.backbone, Guidance(recipe.guidance_scale), null, target)

    def branches(self, recipe: Recipe) -> tuple[Branch, Branch]:
        """eps(z_t) and eps(z_t, c) of the base."""
        guided = self.renderer.guided(recipe)
        return guided.null, guided.base

    def record(self, method: str, recipe: Recipe) -> dict[str, Any]:
        """All that decides about the method's pictures; the prompt in the words that the method reads."""
        values = {
            **recipe.as_dict(),
            "own_prompt": recipe.prompt,
            "word": self.word,
            "strength": self.strength,
            "factor": self.factor,
            "maps_until": MAPS_UNTIL,
        }
        return {name: value for name, value in values.items() if name in (*COMMON, *OWN[method])}


Stepped = Callable[[int], None]
"""Called after each step, with its time t."""


def _sine(stage: Stage, recipe: Recipe, on_step: Stepped) -> Tensor:
    return _sampled(stage, stage.renderer.guided(recipe), recipe, on_step)


def _dreambooth(stage: Stage, recipe: Recipe, on_step: Stepped) -> Tensor:
    guided = stage.renderer.guided(recipe)
    (own,) = guided.guides
    null = Branch(stage.renderer.embeddings[TUNED, recipe.negative or NULL])
    model = dreambooth(stage.renderer.backbone, recipe.guidance_scale, null, own)
    return _sampled(stage, model, recipe, on_step)


def _textual_inversion(stage: Stage, recipe: Recipe, on_step: Stepped) -> Tensor:
    return _sampled(stage, stage.plain(recipe), recipe, on_step)


def _sdedit(stage: Stage, recipe: Recipe, on_step: Stepped) -> Tensor:
    schedule, eps = stage.renderer.base.schedule, stage.renderer.noise(recipe)
    solver = SOLVERS[recipe.solver](schedule)
    return sdedit(
        stage.plain(recipe), stage.z_0, eps, schedule, solver, recipe.steps, stage.strength, on_step
    )


def _ilvr(stage: Stage, recipe: Recipe, on_step: Stepped) -> Tensor:
    schedule, eps = stage.renderer.base.schedule, stage.renderer.noise(recipe)
    inner = SOLVERS[recipe.solver](schedule)
    solver = ILVR(inner, schedule, stage.z_0, eps, stage.factor, recipe.switch_step)
    return sample(stage.plain(recipe), eps, schedule, solver, recipe.steps, on_step)


def _prompt_to_prompt(stage: Stage, recipe: Recipe, on_step: Stepped) -> Tensor:
    schedule, backbone = stage.renderer.base.schedule, stage.renderer.backbone
    null, target = stage.branches(recipe)
    source = Branch(stage.renderer.embeddings[BASE, recipe.source_prompt])
    unguided = GuidedModel(backbone, Guidance(1.0), null, source)
    x_T = invert(unguided, stage.z_0, schedule, recipe.steps)
    model = PromptToPrompt(backbone, stage.maps, recipe.guidance_scale, MAPS_UNTIL, null, source, target)
    with stage.maps.watched():
        both = sample(model, x_T.repeat(2, 1, 1, 1), schedule, DDIM(schedule), recipe.steps, on_step)
    return both[1:]


def _sampled(stage: Stage, model: GuidedModel, recipe: Recipe, on_step: Stepped) -> Tensor:
    schedule = stage.renderer.base.schedule
    x_T = stage.renderer.noise(recipe)
    return sample(model, x_T, schedule, SOLVERS[recipe.solver](schedule), recipe.steps, on_step)


METHODS: dict[str, Callable[[Stage, Recipe, Stepped], Tensor]] = {
    "sine": _sine,
    "dreambooth": _dreambooth,
    "textual-inversion": _textual_inversion,
    "sdedit": _sdedit,
    "ilvr": _ilvr,
    "prompt-to-prompt": _prompt_to_prompt,
}

SEEDLESS = {"prompt-to-prompt"}
"""Their noise is the inverted source: one picture a prompt."""

COMMON = ("own_prompt", "negative", "size", "guidance_scale", "steps", "solver")
OWN = {
    "sine": ("seed", "source_prompt", "switch_step", "exact_switch", "base_weight", "position"),
    "dreambooth": ("seed", "position"),
    "textual-inversion": ("seed", "word"),
    "sdedit": ("seed", "strength"),
    "ilvr": ("seed", "factor", "switch_step"),
    "prompt-to-prompt": ("source_prompt", "maps_until"),
}
"""What decides about a method's pictures besides what is common to all."""


def readings_of(recipe: Recipe) -> list[Reading]:
    """What the methods read beside the recipe's own readings."""
    return [(BASE, recipe.source_prompt), (TUNED, recipe.negative or NULL)]


def recipe_for(method: str, recipe: Recipe, manifest: Manifest, on_notice: Callable[[str], None]) -> Recipe:
    """The recipe as the method takes it: with its own words for the picture, and its own solver."""
    prompts = manifest.prompts
    if method == "prompt-to-prompt":
        return replace(recipe, source_prompt=prompts.of_class, solver="ddim")
    names = {"dreambooth": f"{prompts.token} {prompts.class_noun}", "textual-inversion": WORD}
    if method not in names:
        return recipe
    named = naming(recipe.prompt, prompts.class_noun, names[method])
    if named is None:
        on_notice(
            f'"{recipe.prompt}" has no "{prompts.class_noun}" in it: {method} does not know the picture by it'
        )
    named = named or recipe.prompt
    if method == "dreambooth":  # its one model reads the target prompt, as a tuned model does
        return replace(recipe, prompt=named, source_prompt=named)
    return replace(recipe, prompt=named)
