"""Other tuned projects as guides: what `--guide` says, and what becomes of it in a recipe (Sec. 4.4).

A picture's own tuned model has weight 1 - v and the base v; each further guide takes its weight b_i out of
what the base has, so that base, own and guides have v - sum b_i, 1 - v and b_i.
"""

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field

from sine_cli.errors import UserError
from sine_cli.project.folder import Project, named_project
from sine_cli.project.manifest import EditSettings, Manifest, Share, SwitchStep, load_manifest
from sine_cli.project.prompts import check_text, with_token

if TYPE_CHECKING:
    from sine_cli.workflow.render import Recipe

SYNTAX = re.compile(
    r"(?P<project>.+?):(?P<weights>[0-9.,]+)(?::(?P<K>[0-9]{1,9}))?(?::(?P<prompt>.+))?", re.DOTALL
)
TOLERANCE = 1e-9
"""By which weights may sum to more than one: 0.1 + 0.2 is not 0.3."""


@dataclass(frozen=True)
class GuideRequest:
    """What `--guide` asks for; None takes the picture's own switch step and the prompt it was tuned with.

    Args:
        project: the folder of another project.
        weights: b, each in [0, 1]; several are the rows of a grid.
        switch_step: K in [0, 1000].
    """

    project: Path
    weights: tuple[float, ...]
    switch_step: int | None = None
    source_prompt: str | None = None


LONGEST_PROMPT = 100_000
"""Characters that a record's prompt may have: no base reads a hundredth of them."""

Prompt = Annotated[str, Field(min_length=1, max_length=LONGEST_PROMPT)]


def _is_relative(path: str) -> str:
    if os.path.isabs(path) or "\0" in path:
        raise ValueError("must be relative to the folder of the project")
    return path


@dataclass(frozen=True)
class GuideRecipe:
    """A guide's part in one picture.

    Args:
        project: the path of its folder, from the folder of the project whose picture it is.
        weight: b in [0, 1].  switch_step: K in [0, 1000].
    """

    project: Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_is_relative)]
    source_prompt: Prompt
    weight: Share
    switch_step: SwitchStep


@dataclass(frozen=True)
class FoundGuide:
    """A guide's project and its manifest."""

    project: Project
    manifest: Manifest


def parse_guide(text: str) -> GuideRequest:
    """A guide from PROJECT:WEIGHT[:K][:PROMPT]; WEIGHT may be a list, 0.1,0.2.

    Raises:
        UserError: not of that form, or a value is out of range.
    """
    hint = "give PROJECT:WEIGHT, for example `--guide ../starry-night:0.3`, or PROJECT:WEIGHT:K:PROMPT"
    match = SYNTAX.fullmatch(text)
    if match is None:
        raise UserError(f'--guide: "{text}" is not PROJECT:WEIGHT', hint)
    try:
        weights = tuple(float(weight) for weight in match["weights"].split(","))
    except ValueError as error:
        raise UserError(f'--guide: "{match["weights"]}" is no weight', hint) from error
    for weight in weights:
        if not 0 <= weight <= 1:
            raise UserError(f"--guide: a weight must be from 0 to 1, got {weight:g}", hint)
    switch_step = None if match["K"] is None else int(match["K"])
    if switch_step is not None and switch_step > 1000:
        raise UserError(f"--guide: K must be from 0 to 1000, got {switch_step}", hint)
    check_text(match["project"], "--guide:")
    check_text(match["prompt"] or "", "--guide: the prompt")
    return GuideRequest(Path(match["project"]), weights, switch_step, match["prompt"])


def has_weight(weight: float, switch_step: int) -> bool:
    """Whether a guide has weight at any time: no time lies beyond K = 1000."""
    return weight > 0 and switch_step < 1000


def uses_tuned(settings: "EditSettings | Recipe") -> bool:
    """Whether the project's own tuned model has weight at any time."""
    return has_weight(1 - settings.base_weight, settings.switch_step)


def guide_recipes(
    project: Project,
    requests: Sequence[GuideRequest],
    pictures: Sequence[tuple[EditSettings, Sequence[float]]],
) -> list[tuple[GuideRecipe, ...]]:
    """The guides of each picture.

    Args:
        pictures: the settings of each, and the weight that each guide has in it.

    Raises:
        UserError: a guide is no project, or the weights of a picture sum to more than one.
    """
    found = [find_guide(request.project) for request in requests]
    recipes: list[tuple[GuideRecipe, ...]] = []
    for settings, weights in pictures:
        guides = tuple(
            GuideRecipe(
                project=os.path.relpath(guide.project.root.resolve(), project.root.resolve()),
                source_prompt=source_prompt_of(guide.manifest, request.source_prompt),
                weight=weight,
                switch_step=settings.switch_step if request.switch_step is None else request.switch_step,
            )
            for guide, request, weight in zip(found, requests, weights, strict=True)
        )
        _check_weights(guides, settings)
        recipes.append(guides)
    return recipes


def _check_weights(guides: Sequence[GuideRecipe], settings: EditSettings) -> None:
    """Refuse weights that sum to more than one where all guides that ever guide do. Raises UserError."""
    theirs, own = weights_at_most(guides, settings.base_weight, settings.switch_step)
    if theirs + own > 1 + TOLERANCE:
        at_least = f", or raise -v to {theirs:g} at least" if theirs <= 1 + TOLERANCE else ""
        raise UserError(
            f"--guide: the weights sum to {theirs + own:g}: {theirs:g} of the guides and {own:g} (1 - v) "
            "of the picture's own; at most 1 is there to share",
            f"lower the guides' weights{at_least}",
        )


def weights_at_most(
    guides: Sequence[GuideRecipe], base_weight: float, switch_step: int
) -> tuple[float, float]:
    """The weights of the guides together, and of the picture's own, where all that ever guide do."""
    theirs = math.fsum(guide.weight for guide in guides if has_weight(guide.weight, guide.switch_step))
    own = 1 - base_weight
    return theirs, own if has_weight(own, switch_step) else 0.0


def source_prompt_of(manifest: Manifest, given: str | None) -> str:
    """What a project's tuned model sees: the prompt given, `[*]` being the token, or the one of tuning."""
    return with_token(given, manifest.prompts.token) if given else manifest.prompts.source


def find_guide(folder: Path) -> FoundGuide:
    """The project in `folder`. Raises UserError where there is none, or its manifest has a mistake."""
    project = named_project(folder, "--guide")
    return FoundGuide(project, load_manifest(project.manifest_path))


def guides_in_use(project: Project, pictures: Sequence[tuple[GuideRecipe, ...]]) -> list[FoundGuide | None]:
    """Guide by guide the project that it is; None for one that has weight in none of the pictures.

    Args:
        pictures: the guides of each; all have the same ones, in the same order.
    """
    return [
        find_guide(Path(os.path.normpath(project.root.resolve() / parts[0].project)))
        if any(has_weight(part.weight, part.switch_step) for part in parts)
        else None
        for parts in zip(*pictures, strict=True)
    ]
