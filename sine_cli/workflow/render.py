"""Pictures from recipes: noise, guided sampling, decoding, cropping. For edits, cells and previews."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, ClassVar

import torch
from PIL import Image
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError
from torch import Tensor

from sine_cli.method.guidance import Branch, Guidance, Guide, GuidedModel
from sine_cli.method.sampling import SOLVERS, draw_noise
from sine_cli.method.trajectories import follow_together, grow, rows_of
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
from sine_cli.project.prompts import with_token
from sine_cli.workflow.guides import (
    LONGEST_PROMPT,
    TOLERANCE,
    GuideRecipe,
    Prompt,
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
        exact_switch: whether a step that crosses K is guided by the share of it above K, or to its end.
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
    exact_switch: bool = True

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
        """The recipe of such values; older records have no guides, no crop, and no exact switch.

        Raises:
            ValueError: the first that is missing, unknown, of another type or out of range, as `steps: must
                be at most 1000, got 5000`.
        """
        try:
            # As JSON, in which tuples are lists
            recipe = _RECIPE.validate_json(json.dumps({"exact_switch": False, **record}))
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
        **{**settings.model_dump(), "negative": with_token(settings.negative, manifest.prompts.token)},
    )


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
    _branches: dict[tuple[Reading, Box | None], Branch] = field(default_factory=dict, init=False, repr=False)

    def picture(self, recipe: Recipe) -> Image.Image:
        """The picture of a recipe, RGB, of exactly its size.

        Raises:
            SineError: it came out with values that are not numbers.
        """
        return next(iter(self.pictures([recipe])))

    def pictures(
        self,
        recipes: Sequence[Recipe],
        on_rows: Callable[[int, int], None] = lambda *_: None,
        *,
        together: int = 1,
    ) -> Iterator[Image.Image]:
        """The pictures of recipes of one size, number of steps and solver, each as `picture` makes it.

        They are sampled in batches, as many as go through the U-Net at once, and what pictures of a batch
        share is computed once.

        Args:
            on_rows: called after each sampling step with the U-Net's rows that are done, and those of all.
            together: the recipes come in groups of so many, which no batch parts.
        """
        batches = list(self._batches(recipes, together))
        done, total = 0, sum(sum(self.rows(batch)) for batch in batches)

        def on_step(rows: int) -> None:
            nonlocal done
            done += rows
            on_rows(done, total)

        if batches:
            on_rows(done, total)  # a step of a large picture takes long
        for batch in batches:
            for recipe, z_0 in zip(batch, self._sampled(batch, on_step), strict=True):
                yield self.developed(recipe, z_0)

    def rows(self, recipes: Sequence[Recipe]) -> list[int]:
        """The U-Net's rows in each step, where these pictures are made together."""
        pairs = self.base.schedule.pairs(recipes[0].steps)
        models = [self.guided(recipe) for recipe in recipes]
        tree = grow(models, [recipe.seed for recipe in recipes], [t for t, _ in pairs])
        return [len(rows_of(paths)) for paths in tree]

    def _batches(self, recipes: Sequence[Recipe], together: int) -> Iterator[Sequence[Recipe]]:
        if recipes:
            canvas, factor = self.canvas(recipes[0]), self.base.autoencoder.factor
            at_once = self.backbone.rows_at_once(canvas.height // factor, canvas.width // factor)
            size = max(at_once // together, 1) * together
            yield from (recipes[start : start + size] for start in range(0, len(recipes), size))

    def _sampled(self, recipes: Sequence[Recipe], on_step: Callable[[int], None]) -> list[Tensor]:
        """Latents of the pictures, each (1, C, h, w)."""
        first, schedule = recipes[0], self.base.schedule
        noises = {recipe.seed: self.noise(recipe) for recipe in recipes}
        return follow_together(
            [self.guided(recipe) for recipe in recipes],
            [noises[recipe.seed] for recipe in recipes],
            self.backbone.predict,
            SOLVERS[first.solver](schedule),
            schedule.pairs(first.steps),
            on_step,
        )

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
        null, target, *sources = recipe.readings
        own = Guide(1 - recipe.base_weight, recipe.switch_step)
        others = (Guide(guide.weight, guide.switch_step) for guide in recipe.guides)
        box = self._box(recipe) if recipe.position else None
        return GuidedModel(
            backbone=self.backbone,
            guidance=Guidance(recipe.guidance_scale, (own, *others)),
            null=self._branch(null),
            base=self._branch(target),
            guides=tuple(self._branch(source, box) for source in sources),
            ends=dict(self.base.schedule.pairs(recipe.steps)) if recipe.exact_switch else {},
        )

    def _branch(self, reading: Reading, box: Box | None = None) -> Branch:
        """The same object for the same branch, whichever recipe asks for it."""
        if (reading, box) not in self._branches:
            model = None if reading[0] == BASE else reading[0]
            place = None if box is None else torch.tensor(box, device=self.base.device)
            self._branches[reading, box] = Branch(self.embeddings[reading], place, model)
        return self._branches[reading, box]

    def _box(self, recipe: Recipe) -> Box:
        """The recipe's part of the picture, and beyond its lower right edges what will be cropped away."""
        canvas = self.canvas(recipe)
        h1, w1, h2, w2 = recipe.crop or WHOLE
        height = (h2 - h1) * canvas.height / recipe.size.height
        width = (w2 - w1) * canvas.width / recipe.size.width
        return h1, w1, h1 + height, w1 + width


def embed(base: Base, readings: Iterable[Reading]) -> dict[Reading, Conditioning]:
    """What each model reads of its prompts."""
    distinct = sorted(set(readings))
    embeddings: dict[Reading, Conditioning] = {}
    for model in dict.fromkeys(model for model, _ in distinct):
        own = [reading for reading in distinct if reading[0] == model]
        encoded = base.text.encode([text for _, text in own], model)
        embeddings.update(zip(own, (each.to(base.device) for each in encoded), strict=True))
    return embeddings
