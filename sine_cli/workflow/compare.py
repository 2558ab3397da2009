"""`sine compare`: one prompt by SINE and by the methods that the paper compares it with (Sec. 4.2, A)."""

import csv
import io
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from itertools import count
from pathlib import Path
from statistics import fmean

import numpy as np
from PIL import Image
from torch import Tensor

from sine_cli.models.attention import CrossAttentionMaps
from sine_cli.project.files import write_text
from sine_cli.project.folder import Project
from sine_cli.project.leftovers import remove_leftovers
from sine_cli.project.manifest import Manifest
from sine_cli.project.migration import migrate
from sine_cli.project.prompts import with_token
from sine_cli.project.runs import UnfinishedRun, load_picture, start_run
from sine_cli.scoring.scorer import Score, ScorerIdentity
from sine_cli.workflow.asked import CompareRequest, check_compare, without_effect
from sine_cli.workflow.methods import METHODS, SEEDLESS, Stage, readings_of, recipe_for
from sine_cli.workflow.open import Studio, open_studio
from sine_cli.workflow.render import Recipe, recipe_of
from sine_cli.workflow.scorers import open_scorer, score_files, tell_unread
from sine_cli.workflow.sheet import draw_sheet
from sine_cli.workflow.size import Size
from sine_cli.workflow.word import can_learn_word, learn_word

CELLS_LEFT = 8
"""Cells on a side that ILVR's low pass leaves of a native latent: N = 8 of Stable Diffusion's 64."""

LEAST_FACTOR = 2
"""Of ILVR, for latents as small as `mini`'s 8: with N = 1 it is SDEdit."""

SHEET = "compare.png"
SCORES = "scores.csv"


@dataclass(frozen=True)
class CompareProgress:
    """`done` of `total` steps of what is being made: the word of Textual Inversion, or a method's picture."""

    what: str
    done: int
    total: int


@dataclass(frozen=True)
class ComparedPicture:
    """A method's picture and its score; `seed` is None where no noise is drawn."""

    method: str
    file: Path
    seed: int | None
    score: Score


@dataclass(frozen=True)
class CompareResult:
    """The run's folder and what it holds; `pictures` method by method, `means` of their scores; `peak_memory`
    is the most bytes held at once.
    """

    prompt: str
    folder: Path
    sheet: Path
    scores: Path
    pictures: list[ComparedPicture]
    means: dict[str, Score]
    scorer: ScorerIdentity
    size: Size
    seconds: float
    peak_memory: int


def compare(
    project: Project,
    manifest: Manifest,
    request: CompareRequest,
    on_progress: Callable[[CompareProgress], None] = lambda _: None,
    on_notice: Callable[[str], None] = lambda _: None,
) -> CompareResult:
    """Make the pictures of every method, their scores and a sheet of all.

    Raises:
        UserError: an empty prompt, a method or value that is none, not tuned, no such scorer.
        SineError: the base cannot be had, a picture came out as NaN, disk.
    """
    # 1. What is asked for, checked before anything is loaded
    request = replace(request, prompt=with_token(request.prompt, manifest.prompts.token))
    check_compare(project, manifest, request)
    for line in without_effect(request):
        on_notice(line)
    scorer = open_scorer(request.scorer, on_notice)
    tell_unread(scorer, [request.prompt], on_notice)
    remove_leftovers(project)
    migrate(project, manifest, on_notice)

    # 2. The base, and the adapter for the methods that have it
    studio = open_studio(
        project,
        manifest,
        needs_adapter=request.needs_adapter,
        low_memory=request.low_memory,
        on_notice=on_notice,
    )
    others = tuple(method for method in request.methods if method != "textual-inversion")
    if others != request.methods and others and not can_learn_word(studio):
        on_notice(f"textual-inversion learns a word of one text encoder, `{manifest.base}` has two: left out")
        request = replace(request, methods=others)
    size = studio.size_for(request.size)
    z_0 = _source_latents(studio, size)

    # 3. The word of Textual Inversion, tuned once
    word = None
    if "textual-inversion" in request.methods:
        whole = z_0 if size == studio.default_size() else _source_latents(studio, studio.default_size())
        word = learn_word(
            studio, whole, lambda *steps: on_progress(CompareProgress("textual-inversion, tuning", *steps))
        )

    # 4. Each method's own recipe, and its prompts
    first = recipe_of(manifest, request.settings, prompt=request.prompt, size=size, seed=request.seed)
    recipes = {method: recipe_for(method, first, manifest, on_notice) for method in request.methods}
    places = studio.base.text.places_in_common(manifest.prompts.of_class, request.prompt)
    stage = Stage(
        renderer=studio.renderer(
            [*recipes.values()],
            on_notice,
            [reading for recipe in recipes.values() for reading in readings_of(recipe)],
        ),
        z_0=z_0,
        maps=CrossAttentionMaps(studio.base.unet, places),
        word=word,
        strength=request.strength,
        factor=request.factor or max(LEAST_FACTOR, studio.base.native_latent_size // CELLS_LEFT),
    )

    # 5. The pictures, method by method
    run = start_run(project.comparisons_dir, request.prompt, datetime.now())
    started = time.monotonic()
    try:
        made = {
            method: _make(studio, stage, run, request, method, recipe, on_progress)
            for method, recipe in recipes.items()
        }
        seconds = round(time.monotonic() - started, 2)

        # 6. Each held against prompt and source
        source = studio.source_picture()
        scored = [
            ComparedPicture(method, file, None if method in SEEDLESS else request.seed + index, score)
            for method, files in made.items()
            for index, (file, score) in enumerate(
                zip(files, score_files(scorer, files, request.prompt, source), strict=True)
            )
        ]
        write_text(run.folder / SCORES, _table(run, scored, scorer.identity))

        # 7. The sheet
        record = {
            "command": "compare",
            "prompt": request.prompt,
            "methods": {method: stage.record(method, recipe) for method, recipe in recipes.items()},
            "count": request.count,
            "means": {method: asdict(score) for method, score in means(scored).items()},
            "scorer": asdict(scorer.identity),
            "seconds": seconds,
            "peak_memory": studio.peak_memory(),
            **studio.provenance(),
        }
        run.save_image(SHEET, _sheet(source, scored, request, size), record)

        # 8. The folder appears
        folder = run.finish(record)
    except BaseException:
        run.discard()
        raise
    return CompareResult(
        prompt=request.prompt,
        folder=folder,
        sheet=folder / SHEET,
        scores=folder / SCORES,
        means=means(scored),
        pictures=[replace(each, file=folder / each.file.relative_to(run.folder)) for each in scored],
        scorer=scorer.identity,
        size=size,
        seconds=seconds,
        peak_memory=studio.peak_memory(),
    )


def _source_latents(studio: Studio, size: Size) -> Tensor:
    """Latents of the source at a size; where that has no whole cells, its last rows and columns go on."""
    factor = studio.base.autoencoder.factor
    pixels = np.asarray(studio.source_picture().resize((size.width, size.height), Image.Resampling.LANCZOS))
    beyond = ((0, -size.height % factor), (0, -size.width % factor), (0, 0))
    return studio.base.autoencoder.encode([Image.fromarray(np.pad(pixels, beyond, mode="edge"))])


def _make(
    studio: Studio,
    stage: Stage,
    run: UnfinishedRun,
    request: CompareRequest,
    method: str,
    recipe: Recipe,
    on_progress: Callable[[CompareProgress], None],
) -> list[Path]:
    """A method's pictures, saved with their recipes."""
    files: list[Path] = []
    for index in range(1 if method in SEEDLESS else request.count):
        seeded = replace(recipe, seed=recipe.seed + index)
        taken = count(1)

        def on_step(_: int, taken: "count[int]" = taken) -> None:
            on_progress(CompareProgress(method, next(taken), recipe.steps))

        z_0 = METHODS[method](stage, seeded, on_step)
        record = {
            "prompt": request.prompt,
            "method": method,
            **stage.record(method, seeded),
            **studio.provenance(),
        }
        picture = stage.renderer.developed(seeded, z_0)
        files.append(run.save_image(f"{method}/{index + 1:04d}.png", picture, record))
    return files


def means(pictures: list[ComparedPicture]) -> dict[str, Score]:
    """The mean scores of each method's pictures."""
    methods = dict.fromkeys(picture.method for picture in pictures)
    scores = {method: [each.score for each in pictures if each.method == method] for method in methods}
    return {
        method: Score(
            fmean(score.alignment for score in each), fmean(score.distance or 0.0 for score in each)
        )
        for method, each in scores.items()
    }


def _table(run: UnfinishedRun, pictures: list[ComparedPicture], scorer: ScorerIdentity) -> str:
    """A line a picture, as comma-separated values."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(["file", "method", "seed", "alignment", "distance", "scorer", "distance_measure"])
    for each in pictures:
        file = each.file.relative_to(run.folder).as_posix()
        seed = "" if each.seed is None else each.seed
        table.writerow(
            [file, each.method, seed, each.score.alignment, each.score.distance, scorer.name, scorer.distance]
        )
    return out.getvalue()


def _sheet(
    source: Image.Image, pictures: list[ComparedPicture], request: CompareRequest, size: Size
) -> Image.Image:
    """A row a method, labelled with its mean scores; a column a seed."""
    by_method = {name: [each.file for each in pictures if each.method == name] for name in request.methods}

    def cell(row: int, column: int) -> Image.Image | None:
        files = by_method[request.methods[row]]
        if column >= len(files):
            return None
        return load_picture(files[column])

    scores = means(pictures)
    return draw_sheet(
        source=source,
        cell=cell,
        columns=[f"seed {request.seed + index}" for index in range(request.count)],
        rows=[
            f"{method}\nalignment {scores[method].alignment:.3f}\ndistance {scores[method].distance:.3f}"
            for method in request.methods
        ],
        title=request.prompt,
        cell_size=size,
    )
