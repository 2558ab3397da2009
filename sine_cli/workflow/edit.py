"""`sine edit`: pictures from words, with the content of the source (Eq. 2 and 3)."""

import shlex
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from sine_cli.errors import Ended, Interrupted
from sine_cli.project.files import printable
from sine_cli.project.folder import Project, typed_for
from sine_cli.project.leftovers import remove_leftovers
from sine_cli.project.manifest import Manifest
from sine_cli.project.migration import migrate
from sine_cli.project.prompts import check_target_prompts, with_token
from sine_cli.project.runs import start_run
from sine_cli.scoring.scorer import Score, Scorer, ScorerIdentity, ranking
from sine_cli.workflow.asked import EditRequest, check_edit, without_effect
from sine_cli.workflow.guides import GuideRecipe, uses_tuned
from sine_cli.workflow.open import Studio, open_studio
from sine_cli.workflow.render import Recipe, Renderer, recipe_of
from sine_cli.workflow.scorers import open_scorer, part_shown, score_files, tell_unread
from sine_cli.workflow.size import WHOLE, Size


@dataclass(frozen=True)
class EditProgress:
    """At prompt `number` (from 1) of `prompts`; the U-Net has made `done` of the `total` rows of all."""

    prompt: str
    number: int
    prompts: int
    done: int
    total: int


@dataclass(frozen=True)
class Scores:
    """A run's scores, picture by picture, and the places of its best pictures, best first."""

    scorer: ScorerIdentity
    each: list[Score]
    best: list[int]

    def rank(self, place: int) -> int | None:
        """From 1, of the picture at that place if it is among the best."""
        return self.best.index(place) + 1 if place in self.best else None

    def as_record(self, names: list[str]) -> dict[str, Any]:
        """Plain values for `run.yaml`, with the pictures' names."""
        return {
            "scorer": asdict(self.scorer),
            "scores": [{"file": name, **asdict(score)} for name, score in zip(names, self.each, strict=True)],
            "best": [names[place] for place in self.best],
        }


@dataclass(frozen=True)
class EditResult:
    """One prompt's run: its folder, its pictures with their seeds, seconds of sampling and decoding, and the
    most bytes held at once.
    """

    prompt: str
    folder: Path
    pictures: list[Path]
    seeds: list[int]
    size: Size
    seconds: float
    peak_memory: int
    scores: Scores | None = None


def edit(
    project: Project,
    manifest: Manifest,
    request: EditRequest,
    on_progress: Callable[[EditProgress], None] = lambda _: None,
    on_notice: Callable[[str], None] = lambda _: None,
    on_run: Callable[[EditResult], None] = lambda _: None,
) -> list[EditResult]:
    """Make the pictures, a run folder for each prompt; `on_run` is told of each that is there.

    Raises:
        UserError: an empty prompt, not tuned, an adapter that does not fit, no such guide or scorer, a size
            that no memory is left for.
        SineError: the base cannot be had, a picture came out as NaN, disk.
        Interrupted: among the pictures of a prompt; those that were made are a run.
    """
    check_target_prompts(request.prompts or [""], request.source_prompt)  # none at all: as an empty one
    session = open_session(project, manifest, request, on_notice)
    return session.make(request.prompts, on_progress, on_notice, on_run)


def open_session(
    project: Project,
    manifest: Manifest,
    request: EditRequest,
    on_notice: Callable[[str], None] = lambda _: None,
) -> "EditSession":
    """Ready for prompts, those of the request or others. Raises as `edit`."""
    # 1. What is asked for, checked before anything is loaded
    guides = check_edit(project, manifest, request)
    for line in without_effect(request, [(request.settings, guides)]):
        on_notice(line)
    scorer = open_scorer(request.scorer, on_notice) if request.best is not None else None
    remove_leftovers(project)
    migrate(project, manifest, on_notice)

    # 2. The base and the adapters that have weight
    studio = open_studio(
        project,
        manifest,
        needs_adapter=uses_tuned(request.settings),
        guides=[guides],
        lora=request.lora,
        low_memory=request.low_memory,
        on_notice=on_notice,
    )
    return EditSession(request, studio, guides, scorer)


@dataclass(frozen=True)
class EditSession:
    """All in memory that edits of one request take, but for their prompts."""

    request: EditRequest
    studio: Studio
    guides: tuple[GuideRecipe, ...]
    scorer: Scorer | None

    def make(
        self,
        prompts: list[str],
        on_progress: Callable[[EditProgress], None] = lambda _: None,
        on_notice: Callable[[str], None] = lambda _: None,
        on_run: Callable[[EditResult], None] = lambda _: None,
        *,
        last: bool = True,
    ) -> list[EditResult]:
        """Pictures of these prompts, whatever the request has; `last`: no others follow. Raises as `edit`."""
        # 3. The prompts, then the text encoder leaves memory
        request, studio = self.request, self.studio
        check_target_prompts(prompts, request.source_prompt)
        size = studio.size_for(request.size, request.crop or WHOLE)
        recipes = [
            recipe_of(
                studio.manifest,
                request.settings,
                prompt=with_token(prompt, studio.manifest.prompts.token),
                source_prompt=request.source_prompt,
                seed=request.seed,
                size=size,
                position=request.position,
                guides=self.guides,
                crop=request.crop,
            )
            for prompt in prompts
        ]
        renderer = studio.renderer(recipes, on_notice, last=last)
        if self.scorer:
            tell_unread(self.scorer, [recipe.prompt for recipe in recipes], on_notice)

        # 4. A run folder for each prompt, whole or not at all
        provenance, made = studio.provenance(), list[EditResult]()
        for number, first in enumerate(recipes):
            result = make_run(
                studio,
                renderer,
                first,
                request.count,
                provenance,
                on_progress,
                on_run,
                number=number,
                prompts=len(recipes),
                scorer=self.scorer,
                best=request.best,
            )
            made.append(result)
        return made


def make_run(
    studio: Studio,
    renderer: Renderer,
    first: Recipe,
    count: int,
    provenance: dict[str, Any],
    on_progress: Callable[[EditProgress], None],
    on_run: Callable[[EditResult], None],
    *,
    number: int = 0,
    prompts: int = 1,
    scorer: Scorer | None = None,
    best: int | None = None,
    again: str | None = None,
) -> EditResult:
    """A run folder with `count` pictures, the i-th with the seed of `first` + i; `on_run` is told of it.

    Args:
        provenance: the studio's.
        number: from 0, of the run among those of the `prompts`; for `on_progress`.
        scorer: where the `best` so many are to be marked.
        again: what makes the pictures that an interruption left out; None tells the command for them alone.

    Raises:
        SineError: a picture came out as NaN, disk.
        KeyboardInterrupt: `Interrupted` where some pictures were made, which are a run then, unscored.
    """
    names = [f"{index + 1:04d}.png" for index in range(count)]
    run = start_run(studio.project.edits_dir, first.prompt, datetime.now())
    started, scores, stopped = time.monotonic(), None, None
    try:
        # 5. Noise, guided sampling while t > K, plain after, decoding, cropping
        each = [replace(first, seed=first.seed + index) for index in range(count)]
        pictures = renderer.pictures(each, _counter(on_progress, first.prompt, number, prompts))
        try:
            for name, recipe, picture in zip(names, each, pictures, strict=True):
                run.save_image(name, picture, recipe.as_dict() | provenance)
            seconds = round(time.monotonic() - started, 2)

            # 6. Which are the best, where that is asked
            if scorer:
                files = [run.folder / name for name in names]
                source = part_shown(studio.source_picture(), first.crop)
                scored = score_files(scorer, files, first.prompt, source)
                scores = Scores(scorer.identity, scored, ranking(scored)[:best])
        except KeyboardInterrupt as interrupt:
            stopped, seconds = interrupt, round(time.monotonic() - started, 2)
            names = [name for name in names if (run.folder / name).is_file()]
            if not names:
                raise
        record = {
            "command": "edit",
            **first.as_dict(),
            "count": len(names),
            "seconds": seconds,
            "peak_memory": studio.peak_memory(),
            **provenance,
            **(scores.as_record(names) if scores else {}),
        }
        folder = run.finish(record)
    except BaseException:
        run.discard()
        raise
    result = EditResult(
        first.prompt,
        folder,
        [folder / name for name in names],
        [recipe.seed for recipe in each[: len(names)]],
        first.size,
        seconds,
        studio.peak_memory(),
        scores,
    )
    on_run(result)
    if isinstance(stopped, Ended):
        raise stopped
    if stopped:
        missing = count - len(names)
        command = f"edit {shlex.quote(printable(first.prompt))} -s {first.seed + len(names)} -n {missing}"
        again = again or f"`{typed_for(studio.project, command)}`, with its other options, makes the rest"
        raise Interrupted(
            f"{len(names)} of {count} pictures are there" + (f"; {again}" if missing else ", unscored")
        )
    return result


def _counter(
    on_progress: Callable[[EditProgress], None], prompt: str, number: int, prompts: int
) -> Callable[[int, int], None]:
    """Counts the rows of one prompt among those of all, which take as many each."""
    return lambda done, total: on_progress(
        EditProgress(prompt, number + 1, prompts, number * total + done, prompts * total)
    )
