"""One picture from one recipe: noise, guided sampling, decoding, cropping. For edits, cells and previews."""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from itertools import count
from typing import Annotated, Any, ClassVar

import torch
from PIL import Image
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError
from torch import Tensor

from sine_cli.method.guidance import Branch, Guidance, Guide, GuidedModel
from sine_cli.method.sampling import SOLVERS, draw_noise, sample
from sine_cli.models.backbone import UNetBackbone
from sine_cli.models.base import Base
from sine_cli.models.rows import BASE, TUNED
from sine_cli.models.text import Conditioning
from sine_cli.project.manifest import (
    EditSettings,
    GuidanceScale,
    Manifest,
    SamplingSteps,
    Seed,
    Share,
    Solver,
    SwitchStep,
    first_mistake,
)
from sine_cli.workflow.guides import (
    LONGEST_PROMPT,
    TOLERANCE,
    GuideRecipe,
    Prompt,
    has_weight,
    source_prompt_of,
    weights_at_most,
)
from sine_cli.workflow.size import WHOLE, Box, Size, is_empty, reaches_too_far, sampled_size

NULL = ""
"""The prompt of the unconditional branch where there is no negative one."""

Reading = tuple[str, str]
"""The name of a model, and a prompt that it reads."""

MOST_GUIDES = 64
"""In a record: each is an adapter in memory."""


def _is_part(box: Box) -> Box:
    if is_empty(box) or reaches_too_far(box):
        raise ValueError("must be a part of the picture, or a little beyond it")
    return box


@dataclass(frozen=True)
class Recipe:
    """All that decides about a picture, given a base and an adapter. Ranges as in the manifest; those that
    stand with the fields are checked by `from_dict`.

    Args:
        prompt: the target prompt (c).  source_prompt: the tuned model's (c^).
        size: of the finished picture.
        position: whether the tuned models are given the position of what they see.
        guides: other tuned models; each takes its weight out of the base's.
        crop: the part of the picture to make, where it is not the whole; it decides by the position, and in
            SDXL by the crop coordinates of the tuned models.
    """

    __pydantic_config__: ClassVar = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    prompt: Prompt
    source_prompt: Prompt
    negative: Annotated[str, Field(max_length=LONGEST_PROMPT)]
    seed: Seed
    size: Size
    switch_step: SwitchStep
    base_weight: Share
    guidance_scale: GuidanceScale
    steps: SamplingSteps
    solver: Solver
    position: bool
    guides: Annotated[tuple[GuideRecipe, ...], Field(max_length=MOST_GUIDES)] = ()
    crop: Annotated[Box, AfterValidator(_is_part)] | None = None

    @property
    def readings(self) -> tuple[Reading, ...]:
        """The prompts of the null, base and tuned branches, and of each guide's."""
        return (
            (BASE, self.negative or NULL),
            (BASE, self.prompt),
            (TUNED, self.source_prompt),
            *((guide_name(place), guide.source_prompt) for place, guide in enumerate(self.guides)),
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values for records."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> "Recipe":
        """The recipe of such values; older records have no guides and no crop.

        Raises:
            ValueError: the first that is missing, unknown, of another type or out of range, as `steps: must
                be at most 1000, got 5000`.
        """
        try:
            recipe = _RECIPE.validate_json(json.dumps(record))  # as JSON, in which tuples are lists
        except ValidationError as error:
            raise ValueError(first_mistake(error)) from error
        except RecursionError as error:
            raise ValueError("nested too deeply") from error
        if sum(weights_at_most(recipe.guides, recipe.base_weight, recipe.switch_step)) > 1 + TOLERANCE:
            raise ValueError("guides: the weights sum to more than 1")
        return recipe


_RECIPE = TypeAdapter(Recipe)


def recipe_of(
    manifest: Manifest,
    settings: EditSettings,
    *,
    prompt: str,
    size: Size,
    seed: int = 0,
    source_prompt: str | None = None,
    position: bool = True,
    guides: tuple[GuideRecipe, ...] = (),
    crop: Box | None = None,
) -> Recipe:
    """The recipe of a picture of this project; without a source prompt, the one it was tuned with."""
    return Recipe(
        prompt=prompt,
        source_prompt=source_prompt_of(manifest, source_prompt),
        seed=seed,
        size=size,
        position=position,
        guides=guides,
        crop=crop,
        **settings.model_dump(),
    )


def uses_tuned(settings: EditSettings | Recipe) -> bool:
    """Whether the project's own tuned model has weight at any time."""
    return has_weight(1 - settings.base_weight, settings.switch_step)


def guide_name(place: int) -> str:
    """The name of a recipe's guide among the U-Net's adapters, by its place from 0."""
    return f"guide_{place + 1}"


@dataclass
class Renderer:
    """A base, perhaps with an adapter, ready to make pictures.

    Args:
        embeddings: of every reading of the recipes to come.
    """

    base: Base
    backbone: UNetBackbone
    embeddings: dict[Reading, Conditioning]

    def picture(self, recipe: Recipe, on_step: Callable[[int], None] = lambda _: None) -> Image.Image:
        """The picture of a recipe, RGB, of exactly its size.

        `on_step` is called after each sampling step with how many of them are taken.

        Raises:
            SineError: it came out with values that are not numbers.
        """
        schedule = self.base.schedule
        taken = count(1)
        z_0 = sample(
            self.guided(recipe),
            self.noise(recipe),
            schedule,
            SOLVERS[recipe.solver](schedule),
            recipe.steps,
            lambda _: on_step(next(taken)),
        )
        return self.developed(recipe, z_0)

    def noise(self, recipe: Recipe) -> Tensor:
        """What the recipe's picture begins with, (1, C, h, w)."""
        canvas, factor = self.canvas(recipe), self.base.autoencoder.factor
        shape = (self.base.autoencoder.channels, canvas.height // factor, canvas.width // factor)
        return draw_noise(1, shape, recipe.seed).to(self.base.device)

    def developed(self, recipe: Recipe, z_0: Tensor) -> Image.Image:
        """The picture of the latents, (1, C, h, w), of exactly the recipe's size."""
        picture = self.base.autoencoder.decode(z_0)[0]
        return picture.crop((0, 0, recipe.size.width, recipe.size.height))

    def canvas(self, recipe: Recipe) -> Size:
        """What is sampled, of which the picture is the upper left part."""
        return sampled_size(recipe.size, self.base.autoencoder.factor)

    def guided(self, recipe: Recipe) -> GuidedModel:
        """The model of the recipe, (x_t, t) -> eps~."""
        null, target, *sources = (self.embeddings[reading] for reading in recipe.readings)
        own = Guide(1 - recipe.base_weight, recipe.switch_step)
        others = (Guide(guide.weight, guide.switch_step) for guide in recipe.guides)
        names = [name for name, _ in recipe.readings[2:]]
        box = self._box(recipe) if recipe.position else None
        return GuidedModel(
            backbone=self.backbone,
            guidance=Guidance(recipe.guidance_scale, (own, *others)),
            null=Branch(null),
            base=Branch(target),
            guides=tuple(Branch(text, box, name) for text, name in zip(sources, names, strict=True)),
        )

    def _box(self, recipe: Recipe) -> Tensor:
        """The recipe's part of the picture, and beyond its lower right edges what will be cropped away."""
        canvas = self.canvas(recipe)
        h1, w1, h2, w2 = recipe.crop or WHOLE
        height = (h2 - h1) * canvas.height / recipe.size.height
        width = (w2 - w1) * canvas.width / recipe.size.width
        return torch.tensor([h1, w1, h1 + height, w1 + width], device=self.base.device)


def embed(base: Base, readings: Iterable[Reading]) -> dict[Reading, Conditioning]:
    """What each model reads of its prompts."""
    distinct = sorted(set(readings))
    embeddings: dict[Reading, Conditioning] = {}
    for model in dict.fromkeys(model for model, _ in distinct):
        own = [reading for reading in distinct if reading[0] == model]
        encoded = base.text.encode([text for _, text in own], model)
        embeddings.update(zip(own, (each.to(base.device) for each in encoded), strict=True))
    return embeddings
