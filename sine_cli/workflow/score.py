"""`sine score`: how well pictures go with words, and how far they are from their source."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from sine_cli.errors import UserError
from sine_cli.project.files import shown
from sine_cli.project.folder import project_above
from sine_cli.project.manifest import load_manifest
from sine_cli.project.prompts import check_target_prompts
from sine_cli.project.runs import find_recipe
from sine_cli.project.source import read_picture
from sine_cli.workflow.scorers import open_scorer, part_shown, tell_unread
from sine_cli.workflow.size import Box, is_empty, reaches_too_far

if TYPE_CHECKING:
    from sine_cli.scoring.scorer import Score, ScorerIdentity

_CROP = TypeAdapter(Box)


@dataclass(frozen=True)
class ScoreRequest:
    """What is asked for.

    Args:
        pictures: any that Pillow reads.
        prompt: for all of them; None takes each picture's own target prompt.
        source: for all of them; None takes that of the project each lies in, where it lies in one, and of it
            the part that the picture's record says it shows.
        scorer: a hub id or a folder; None takes the bundled one.
    """

    pictures: list[Path]
    prompt: str | None = None
    source: Path | None = None
    scorer: str | None = None


@dataclass(frozen=True)
class ScoredPicture:
    """A picture, the prompt it was held against, and its score."""

    file: Path
    prompt: str
    score: "Score"


@dataclass(frozen=True)
class ScoreResult:
    """The scores, in the order of the request, and what they were made with."""

    scorer: "ScorerIdentity"
    pictures: list[ScoredPicture]


def score(request: ScoreRequest, on_notice: Callable[[str], None] = lambda _: None) -> ScoreResult:
    """Score pictures against words and source.

    Raises:
        UserError: a picture or source that cannot be read, no prompt for it, no such scorer.
        SineError: the scorer cannot be had.
    """
    # 1. What each picture is held against, before anything is loaded
    prompts = [_prompt_of(picture, request.prompt) for picture in request.pictures]
    check_target_prompts(prompts, example='sine score 0001.png --prompt "a sculpture of a girl"')
    if request.source:
        read_picture(request.source, least=1)
    source_of = cache(_source_of)
    sources = [request.source or source_of(picture.resolve().parent) for picture in request.pictures]

    # 2. The scorer
    scorer = open_scorer(request.scorer, on_notice)
    tell_unread(scorer, prompts, on_notice)

    # 3. Pictures with the same prompt, source and part of it together, in their order
    scored: list[ScoredPicture] = []
    crops = [None if request.source else _crop_of(picture) for picture in request.pictures]
    held_against = zip(request.pictures, prompts, sources, crops, strict=True)
    for (prompt, source, crop), group in groupby(held_against, key=lambda each: each[1:]):
        files = [file for file, *_ in group]
        original = part_shown(read_picture(source, least=1).image, crop) if source else None
        scores = scorer.score((read_picture(file, least=1).image for file in files), prompt, original)
        scored += [ScoredPicture(file, prompt, score) for file, score in zip(files, scores, strict=True)]
    return ScoreResult(scorer.identity, scored)


def _prompt_of(picture: Path, given: str | None) -> str:
    """The prompt given for all, else the target prompt that the picture carries."""
    prompt = (find_recipe(picture) or {}).get("prompt")  # also where one is given: the file must be there
    if given is not None:
        return given
    if not isinstance(prompt, str):
        raise UserError(
            f"{shown(picture)} carries no prompt of sine's", 'say what it shall show: `--prompt "..."`'
        )
    return prompt


def _crop_of(picture: Path) -> Box | None:
    """The part of the source that a picture of sine's shows; None where its record says none."""
    try:
        box = _CROP.validate_python((find_recipe(picture) or {}).get("crop"))
    except ValidationError:
        return None
    return None if is_empty(box) or reaches_too_far(box) else box


def _source_of(folder: Path) -> Path | None:
    """The source of the project that `folder` (absolute) lies in; None where it lies in none.

    Raises:
        UserError: it is not there, or not the picture that the manifest has.
    """
    project = project_above(folder)
    if project is None:
        return None
    manifest = load_manifest(project.manifest_path)
    project.check_picture(manifest)
    return project.source(manifest)
