"""`sine grid`: one prompt over switch steps K and base weights v: a picture a cell, a sheet, and scores."""

import csv
import io
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from PIL import Image

from sine_cli.errors import Interrupted, UserError
from sine_cli.project.files import shown, write_bytes, write_text
from sine_cli.project.folder import Project
from sine_cli.project.manifest import EditSettings, Manifest
from sine_cli.project.prompts import check_target_prompts
from sine_cli.project.runs import UnfinishedRun, start_run, sweep, unfinished_runs
from sine_cli.scoring.scorer import Score, ScorerIdentity
from sine_cli.workflow.open import Studio, open_studio
from sine_cli.workflow.plots import tradeoff_plot
from sine_cli.workflow.render import Recipe, recipe_of, uses_tuned
from sine_cli.workflow.scorers import (
    LocatedScorer,
    load_scorer,
    locate_scorer,
    score_files,
    tell_unread,
)
from sine_cli.workflow.sheet import draw_sheet
from sine_cli.workflow.size import Size

MOST_CELLS = 400
SCORES = "scores.csv"
TRADEOFF = "tradeoff.png"


@dataclass(frozen=True)
class GridRequest:
    """What is asked for; K and v of `settings` give way to the axes.

    Args:
        switch_steps: columns of the sheet.  base_weights: rows.
        scorer: what scores the cells: a hub id or a folder; None takes the bundled one.
    """

    prompt: str
    switch_steps: list[int]
    base_weights: list[float]
    settings: EditSettings
    size: Size | None = None
    seed: int = 0
    source_prompt: str | None = None
    position: bool = True
    scorer: str | None = None


@dataclass(frozen=True)
class GridProgress:
    """Cell `cell` (from 1) of `cells` has taken `step` of `steps`."""

    cell: int
    cells: int
    step: int
    steps: int


@dataclass(frozen=True)
class ScoredCell:
    """A cell's picture, its place on the axes, and its score."""

    file: Path
    switch_step: int
    base_weight: float
    score: Score


@dataclass(frozen=True)
class GridResult:
    """The run's folder and what it holds.

    Attributes:
        cells: row by row; `made` of them were made now, the others before.
        scores: the table of the cells' scores.
        tradeoff: the plot of them over K and v; None for a single cell.
    """

    prompt: str
    folder: Path
    sheet: Path
    cells: list[ScoredCell]
    made: int
    scores: Path
    tradeoff: Path | None
    scorer: ScorerIdentity
    size: Size
    seconds: float


def grid(
    project: Project,
    manifest: Manifest,
    request: GridRequest,
    on_progress: Callable[[GridProgress], None] = lambda _: None,
    on_notice: Callable[[str], None] = lambda _: None,
) -> GridResult:
    """Make a new grid. What is done of it survives an interruption: `resume_grid` goes on.

    Raises:
        UserError: an empty prompt, a value out of range, not tuned, an adapter that does not fit, no such
            scorer.
        SineError: the base cannot be had, a picture came out as NaN, disk.
    """
    # 1. What is asked for, checked before anything is loaded
    check_target_prompts([request.prompt], request.source_prompt)
    settings = _all_settings(request)
    scorer = locate_scorer(request.scorer)
    sweep(project.grids_dir)

    # 2. Base and adapter
    studio = open_studio(project, manifest, needs_adapter=any(uses_tuned(each) for each in settings))
    size = request.size or studio.default_size()

    # 3. The cells, as recipes: each the recipe of an edit
    recipes = [
        recipe_of(
            manifest,
            each,
            prompt=request.prompt,
            source_prompt=request.source_prompt,
            seed=request.seed,
            size=size,
            position=request.position,
        )
        for each in settings
    ]
    # 4. One run folder, hidden until all is done
    asked = {
        "cells": [recipe.as_dict() for recipe in recipes],
        "adapter": studio.adapter_files(),
        "base_revision": studio.location.revision,
        "scorer": scorer.name,
    }
    run = start_run(project.grids_dir, request.prompt, datetime.now(), request=asked)
    return _make(studio, run, recipes, scorer, on_progress, on_notice)


def resume_grid(
    project: Project,
    manifest: Manifest,
    on_progress: Callable[[GridProgress], None] = lambda _: None,
    on_notice: Callable[[str], None] = lambda _: None,
) -> GridResult:
    """Go on with the newest grid that was interrupted.

    Raises:
        UserError: there is none, another process works on it, the adapter is another one by now, or the
            scorer is gone.
    """
    left = [run for run in unfinished_runs(project.grids_dir) if run.holder is None]
    if not left:
        raise UserError(
            f"no interrupted grid in {shown(project.grids_dir)}",
            'start one: `sine grid "a sculpture of a girl"`',
        )
    run = left[-1]
    recipes, adapter, base_revision, scorer_name = _read_request(run)
    scorer = locate_scorer(scorer_name)
    run.take_over()
    studio = open_studio(project, manifest, needs_adapter=adapter is not None)
    if (studio.adapter_files(), studio.location.revision) != (adapter, base_revision):
        raise UserError(
            f"{shown(run.final)} was begun with another adapter or base than the project has now",
            f'start it anew: `sine grid "{recipes[0].prompt}"`',
        )
    return _make(studio, run, recipes, scorer, on_progress, on_notice)


def _make(
    studio: Studio,
    run: UnfinishedRun,
    recipes: list[Recipe],
    located: LocatedScorer,
    on_progress: Callable[[GridProgress], None],
    on_notice: Callable[[str], None],
) -> GridResult:
    first = recipes[0]
    started = time.monotonic()
    try:
        # 5. A picture a cell, saved as it is done
        made = _make_cells(studio, run, recipes, on_progress, on_notice)
        seconds = round(time.monotonic() - started, 2)

        # 6. Every cell held against prompt and source, as a table and a plot
        scorer = load_scorer(located)
        tell_unread(scorer, [first.prompt], on_notice)
        files = [run.folder / _cell_name(recipe) for recipe in recipes]
        scores = score_files(scorer, files, first.prompt, studio.source_picture())
        write_text(run.folder / SCORES, _table(recipes, scores, scorer.identity))
        plot = _plot(recipes, scores, scorer.identity)
        if plot:
            write_bytes(run.folder / TRADEOFF, plot)

        # 7. The sheet
        shared = {k: v for k, v in first.as_dict().items() if k not in ("switch_step", "base_weight")}
        axes = {
            "switch_steps": _axis(recipes, "switch_step"),
            "base_weights": _axis(recipes, "base_weight"),
        }
        scored = {"seconds": seconds, "scorer": asdict(scorer.identity)}
        record = {"command": "grid", **shared, **axes, **scored, **studio.provenance()}
        run.save_image("grid.png", _sheet(studio, run, recipes), record)
    except KeyboardInterrupt:
        kept = sum((run.folder / _cell_name(recipe)).is_file() for recipe in recipes)
        raise Interrupted(f"{kept} of {len(recipes)} cells are kept; `sine grid --resume` goes on") from None

    # 8. The folder appears
    folder = run.finish(record)
    return GridResult(
        prompt=first.prompt,
        folder=folder,
        sheet=folder / "grid.png",
        cells=[
            ScoredCell(folder / _cell_name(recipe), recipe.switch_step, recipe.base_weight, score)
            for recipe, score in zip(recipes, scores, strict=True)
        ],
        made=made,
        scores=folder / SCORES,
        tradeoff=folder / TRADEOFF if plot else None,
        scorer=scorer.identity,
        size=first.size,
        seconds=seconds,
    )


def _make_cells(
    studio: Studio,
    run: UnfinishedRun,
    recipes: list[Recipe],
    on_progress: Callable[[GridProgress], None],
    on_notice: Callable[[str], None],
) -> int:
    """Make and save the cells that are not there yet; how many these were."""
    renderer = studio.renderer(recipes, on_notice)
    provenance = studio.provenance()
    made = 0
    for number, recipe in enumerate(recipes, start=1):
        if (run.folder / _cell_name(recipe)).is_file():
            continue
        picture = renderer.picture(recipe, _stepper(on_progress, number, len(recipes), recipe.steps))
        run.save_image(_cell_name(recipe), picture, recipe.as_dict() | provenance)
        made += 1
    return made


def _all_settings(request: GridRequest) -> list[EditSettings]:
    """The settings of every cell, row by row."""
    columns, rows = list(dict.fromkeys(request.switch_steps)), list(dict.fromkeys(request.base_weights))
    if len(columns) * len(rows) > MOST_CELLS:
        raise UserError(
            f"a grid of {len(columns)} K by {len(rows)} v has more than {MOST_CELLS} cells",
            "give fewer values",
        )
    return [
        request.settings.model_copy(update={"switch_step": K, "base_weight": v})
        for v in rows
        for K in columns
    ]


def _read_request(run: UnfinishedRun) -> tuple[list[Recipe], dict[str, str] | None, str, str | None]:
    """The recipes, the adapter's files, the base's revision, and the scorer's name."""
    asked: dict[str, Any] = run.request or {}
    try:
        recipes = [Recipe(**{**cell, "size": Size(**cell["size"])}) for cell in asked["cells"]]
        scorer = asked.get("scorer")  # not said before grids were scored
        if not recipes or not isinstance(scorer, str | None):
            raise TypeError("no cells, or a scorer without a name")
        return recipes, asked["adapter"], asked["base_revision"], scorer
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{shown(run.hidden)} is damaged and cannot go on", f"remove it: `rm -r {shown(run.hidden)}`"
        ) from error


def _cell_name(recipe: Recipe) -> str:
    """`cells/K0400_v0.70.png`; weights of more than two decimals keep them all."""
    v = max(f"{recipe.base_weight:.2f}", f"{recipe.base_weight:.10f}".rstrip("0"), key=len)
    return f"cells/K{recipe.switch_step:04d}_v{v}.png"


def _axis(recipes: list[Recipe], field: str) -> list[Any]:
    return list(dict.fromkeys(asdict(recipe)[field] for recipe in recipes))


def _sheet(studio: Studio, run: UnfinishedRun, recipes: list[Recipe]) -> Image.Image:
    columns, rows = _axis(recipes, "switch_step"), _axis(recipes, "base_weight")

    def cell(row: int, column: int) -> Image.Image:
        recipe = replace(recipes[0], switch_step=columns[column], base_weight=rows[row])
        with Image.open(run.folder / _cell_name(recipe)) as image:
            return image.convert("RGB")

    return draw_sheet(
        source=studio.source_picture(),
        cell=cell,
        columns=[f"K = {K}" for K in columns],
        rows=[f"v = {v:g}" for v in rows],
        title=recipes[0].prompt,
        cell_size=recipes[0].size,
    )


def _table(recipes: list[Recipe], scores: list[Score], scorer: ScorerIdentity) -> str:
    """A line a cell, as comma-separated values."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(
        ["file", "switch_step", "base_weight", "alignment", "distance", "scorer", "distance_measure"]
    )
    for recipe, score in zip(recipes, scores, strict=True):
        cell = (_cell_name(recipe), recipe.switch_step, recipe.base_weight)
        table.writerow([*cell, score.alignment, score.distance, scorer.name, scorer.distance])
    return out.getvalue()


def _plot(recipes: list[Recipe], scores: list[Score], scorer: ScorerIdentity) -> bytes | None:
    """The trade-off between the two scores; None for a single cell."""
    cells = [(recipe.switch_step, recipe.base_weight) for recipe in recipes]
    measures = {
        "alignment": dict(zip(cells, (score.alignment for score in scores), strict=True)),
        "distance": dict(zip(cells, (score.distance for score in scores), strict=True)),
    }
    return tradeoff_plot(measures, scorer.described())


def _stepper(
    on_progress: Callable[[GridProgress], None], cell: int, cells: int, steps: int
) -> Callable[[int], None]:
    return lambda taken: on_progress(GridProgress(cell, cells, taken, steps))
