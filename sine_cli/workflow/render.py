"""One picture from one recipe: noise, guided sampling, decoding, cropping. For edits, cells and previews."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import count
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from sine_cli.method.guidance import Branch, Guidance, GuidedModel
from sine_cli.method.sampling import SOLVERS, draw_noise, sample
from sine_cli.models.backbone import UNetBackbone
from sine_cli.models.base import Base
from sine_cli.models.text import Conditioning
from sine_cli.project.manifest import EditSettings, Manifest
from sine_cli.workflow.size import Size, sampled_size

NULL = ""
"""The prompt of the unconditional branch where there is no negative one."""


@dataclass(frozen=True)
class Recipe:
    """All that decides about a picture, given a base and an adapter. Ranges as in the manifest.

    Args:
        prompt: the target prompt (c).  source_prompt: the tuned model's (c^).
        size: of the finished picture.
        position: whether the tuned model is given the position of the whole picture.
    """

    prompt: str
    source_prompt: str
    negative: str
    seed: int
    size: Size
    switch_step: int
    base_weight: float
    guidance_scale: float
    steps: int
    solver: str
    position: bool

    @property
    def texts(self) -> tuple[str, str, str]:
        """The prompts of the null, base and tuned branches."""
        return self.negative or NULL, self.prompt, self.source_prompt

    def as_dict(self) -> dict[str, Any]:
        """Plain values for records."""
        return asdict(self)


def recipe_of(
    manifest: Manifest,
    settings: EditSettings,
    *,
    prompt: str,
    size: Size,
    seed: int = 0,
    source_prompt: str | None = None,
    position: bool = True,
) -> Recipe:
    """The recipe of a picture of this project; without a source prompt, the one it was tuned with."""
    return Recipe(
        prompt=prompt,
        source_prompt=source_prompt or manifest.prompts.source,
        seed=seed,
        size=size,
        position=position,
        **settings.model_dump(),
    )


def uses_tuned(settings: EditSettings) -> bool:
    """Whether the tuned model has weight at any time: no time lies beyond K = 1000."""
    return settings.base_weight < 1 and settings.switch_step < 1000


@dataclass
class Renderer:
    """A base, perhaps with an adapter, ready to make pictures.

    Args:
        embeddings: what the base reads of every text that a recipe will name.
    """

    base: Base
    backbone: UNetBackbone
    embeddings: dict[str, Conditioning]

    def picture(self, recipe: Recipe, on_step: Callable[[int], None] = lambda _: None) -> Image.Image:
        """The picture of a recipe, RGB, of exactly its size.

        `on_step` is called after each sampling step with how many of them are taken.

        Raises:
            SineError: it came out with values that are not numbers.
        """
        factor = self.base.autoencoder.factor
        canvas = sampled_size(recipe.size, factor)
        shape = (self.base.autoencoder.channels, canvas.height // factor, canvas.width // factor)
        x_T = draw_noise(1, shape, recipe.seed).to(self.base.device)
        schedule = self.base.schedule
        taken = count(1)
        z_0 = sample(
            self._guided(recipe, canvas),
            x_T,
            schedule,
            SOLVERS[recipe.solver](schedule),
            recipe.steps,
            lambda _: on_step(next(taken)),
        )
        picture = self.base.autoencoder.decode(z_0)[0]
        return picture.crop((0, 0, recipe.size.width, recipe.size.height))

    def _guided(self, recipe: Recipe, canvas: Size) -> GuidedModel:
        null, target, source = (self.embeddings[text] for text in recipe.texts)
        return GuidedModel(
            backbone=self.backbone,
            guidance=Guidance(recipe.guidance_scale, recipe.base_weight, recipe.switch_step),
            null=Branch(null),
            base=Branch(target),
            tuned=Branch(source, self._box(recipe, canvas) if recipe.position else None, tuned=True),
        )

    def _box(self, recipe: Recipe, canvas: Size) -> Tensor:
        """The whole picture, and beyond its lower right edges what will be cropped away."""
        size = recipe.size
        return torch.tensor(
            [0.0, 0.0, canvas.height / size.height, canvas.width / size.width], device=self.base.device
        )


def embed(base: Base, texts: list[str]) -> dict[str, Conditioning]:
    """What the base reads of each text."""
    distinct = sorted(set(texts))
    return dict(zip(distinct, base.text.encode(distinct), strict=True))
