"""`sine edit`: pictures from words, with the content of the source (Eq. 2 and 3)."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from sine_cli.errors import UserError
from sine_cli.project.files import printable
from sine_cli.project.folder import Project
from sine_cli.project.manifest import EditSettings, Manifest
from sine_cli.project.runs import start_run, sweep
from sine_cli.workflow.open import open_studio
from sine_cli.workflow.render import Recipe, recipe_of, uses_tuned
from sine_cli.workflow.size import Size

MOST_PICTURES = 1000
"""Of one prompt; more is a slip of the finger."""


@dataclass(frozen=True)
class EditRequest:
    """What is asked for; None takes the manifest's or the source's.

    Args:
        prompts: target prompts; each gets a run folder of its own.
        settings: K, v, w, steps, solver and the negative prompt.
        count: pictures a prompt, 1 to `MOST_PICTURES`; the i-th has the seed `seed` + i.
        source_prompt: what the tuned model is given instead of the prompt it was tuned with.
        position: whether the tuned model is given the position of the whole picture.
    """

    prompts: list[str]
    settings: EditSettings
    size: Size | None = None
    count: int = 1
    seed: int = 0
    source_prompt: str | None = None
    position: bool = True


@dataclass(frozen=True)
class EditProgress:
    """Picture `picture` (from 1) of `pictures` has taken `step` of `steps`."""

    prompt: str
    picture: int
    pictures: int
    step: int
    steps: int


@dataclass(frozen=True)
class EditResult:
    """One prompt's run: its folder, its pictures with their seeds, seconds of sampling and decoding."""

    prompt: str
    folder: Path
    pictures: list[Path]
    seeds: list[int]
    size: Size
    seconds: float


def edit(
    project: Project,
    manifest: Manifest,
    request: EditRequest,
    on_progress: Callable[[EditProgress], None] = lambda _: None,
    on_notice: Callable[[str], None] = lambda _: None,
) -> list[EditResult]:
    """Make the pictures, a run folder for each prompt.

    Raises:
        UserError: an empty prompt, not tuned, an adapter that does not fit.
        SineError: the base cannot be had, a picture came out as NaN, disk.
    """
    # 1. What is asked for, checked before anything is loaded
    check_prompts(request.prompts, request.source_prompt)
    if not 1 <= request.count <= MOST_PICTURES:
        raise UserError(f"-n: must be from 1 to {MOST_PICTURES}, got {request.count}", "for example `-n 4`")
    sweep(project.edits_dir)

    # 2. The base and, where it has weight, the adapter
    studio = open_studio(project, manifest, needs_adapter=uses_tuned(request.settings))

    # 3. The prompts, then the text encoder leaves memory
    size = request.size or studio.default_size()
    recipes = [
        recipe_of(
            manifest,
            request.settings,
            prompt=prompt,
            source_prompt=request.source_prompt,
            seed=request.seed,
            size=size,
            position=request.position,
        )
        for prompt in request.prompts
    ]
    renderer = studio.renderer(recipes, on_notice)
    provenance = studio.provenance()

    # 4. A run folder for each prompt, whole or not at all
    results: list[EditResult] = []
    total = len(recipes) * request.count
    for number, first in enumerate(recipes):
        run = start_run(project.edits_dir, first.prompt, datetime.now())
        started = time.monotonic()
        try:
            for index in range(request.count):
                # 5. Noise, guided sampling while t > K, plain after, decoding, cropping
                each = replace(first, seed=first.seed + index)
                place = number * request.count + index + 1
                step = _stepper(on_progress, each, place, total)
                run.save_image(
                    f"{index + 1:04d}.png", renderer.picture(each, step), each.as_dict() | provenance
                )
            seconds = round(time.monotonic() - started, 2)
            record = {
                "command": "edit",
                **first.as_dict(),
                "count": request.count,
                "seconds": seconds,
                **provenance,
            }
            folder = run.finish(record)
        except BaseException:
            run.discard()
            raise
        pictures = [folder / f"{index + 1:04d}.png" for index in range(request.count)]
        seeds = [first.seed + index for index in range(request.count)]
        results.append(EditResult(first.prompt, folder, pictures, seeds, size, seconds))
    return results


def check_prompts(prompts: list[str], source_prompt: str | None = None) -> None:
    """Refuse no prompt, empty ones, and bytes that are no text. Raises UserError."""
    if not prompts or not all(prompt.strip() for prompt in prompts):
        raise UserError(
            "the prompt is empty", 'say what the picture shall become: `sine edit "a sculpture of a girl"`'
        )
    for prompt in (*prompts, source_prompt or ""):
        try:
            prompt.encode("utf-8")
        except UnicodeEncodeError as error:  # bytes of another encoding, as the shell handed them on
            raise UserError(f'the prompt "{printable(prompt)}" is not UTF-8 text', "type it anew") from error


def _stepper(
    on_progress: Callable[[EditProgress], None], recipe: Recipe, picture: int, pictures: int
) -> Callable[[int], None]:
    taken = 0

    def step(_: int) -> None:
        nonlocal taken
        taken += 1
        on_progress(EditProgress(recipe.prompt, picture, pictures, taken, recipe.steps))

    return step
