"""`sine grid`: one prompt over switch steps K and base weights v, a picture a cell, and a sheet of all."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from PIL import Image

from sine_cli.errors import Interrupted, UserError
from sine_cli.project.files import shown
from sine_cli.project.folder import Project
from sine_cli.project.manifest import EditSettings, Manifest
from sine_cli.project.runs import UnfinishedRun, start_run, sweep, unfinished_runs
from sine_cli.project.source import read_picture
from sine_cli.workflow.edit import check_prompts
from sine_cli.workflow.open import Studio, open_studio
from sine_cli.workflow.render import Recipe, recipe_of, uses_tuned
from sine_cli.workflow.sheet import draw_sheet
from sine_cli.workflow.size import Size

MOST_CELLS = 400


@dataclass(frozen=True)
class GridRequest:
    """What is asked for; K and v of `settings` give way to the axes.

    Args:
        switch_steps: columns of the sheet.  base_weights: rows.
    """

    prompt: str
    switch_steps: list[int]
    base_weights: list[float]
    settings: EditSettings
    size: Size | None = None
    seed: int = 0
    source_prompt: str | None = None
    position: bool = True


@dataclass(frozen=True)
class GridProgress:
    """Cell `cell` (from 1) of `cells` has taken `step` of `steps`."""

    cell: int
    cells: int
    step: int
    steps: int


@dataclass(frozen=True)
class GridResult:
    """The run's folder, its sheet and cells; `made` of the cells were made now, the others before."""

    prompt: str
    folder: Path
    sheet: Path
    cells: list[Path]
    made: int
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
        UserError: an empty prompt, a value out of range, not tuned, an adapter that does not fit.
        SineError: the base cannot be had, a picture came out as NaN, disk.
    """
    # 1. What is asked for, checked before anything is loaded
    check_prompts([request.prompt], request.source_prompt)
    settings = _all_settings(request)
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
    }
    run = start_run(project.grids_dir, request.prompt, datetime.now(), request=asked)
    return _make_cells(studio, run, recipes, on_progress, on_notice)


def resume_grid(
    project: Project,
    manifest: Manifest,
    on_progress: Callable[[GridProgress], None] = lambda _: None,
    on_notice: Callable[[str], None] = lambda _: None,
) -> GridResult:
    """Go on with the newest grid that was interrupted.

    Raises:
        UserError: there is none, another process works on it, or the adapter is another one by now.
    """
    left = [run for run in unfinished_runs(project.grids_dir) if run.holder is None]
    if not left:
        raise UserError(
            f"no interrupted grid in {shown(project.grids_dir)}",
            'start one: `sine grid "a sculpture of a girl"`',
        )
    run = left[-1]
    recipes, adapter, base_revision = _read_request(run)
    run.take_over()
    studio = open_studio(project, manifest, needs_adapter=adapter is not None)
    if (studio.adapter_files(), studio.location.revision) != (adapter, base_revision):
        raise UserError(
            f"{shown(run.final)} was begun with another adapter or base than the project has now",
            f'start it anew: `sine grid "{recipes[0].prompt}"`',
        )
    return _make_cells(studio, run, recipes, on_progress, on_notice)


def _make_cells(
    studio: Studio,
    run: UnfinishedRun,
    recipes: list[Recipe],
    on_progress: Callable[[GridProgress], None],
    on_notice: Callable[[str], None],
) -> GridResult:
    # 5. A picture a cell, saved as it is done
    renderer = studio.renderer(recipes, on_notice)
    provenance = studio.provenance()
    started = time.monotonic()
    made = 0
    for number, recipe in enumerate(recipes, start=1):
        if (run.folder / _cell_name(recipe)).is_file():
            continue
        step = _stepper(on_progress, number, len(recipes), recipe.steps)
        try:
            picture = renderer.picture(recipe, step)
            run.save_image(_cell_name(recipe), picture, recipe.as_dict() | provenance)
        except KeyboardInterrupt:
            kept = f"{number - 1} of {len(recipes)} cells are kept"
            raise Interrupted(f"{kept}; `sine grid --resume` goes on") from None
        made += 1

    # 6. The sheet, and the folder appears
    seconds = round(time.monotonic() - started, 2)
    first = recipes[0]
    sheet = _sheet(studio, run, recipes)
    shared = {k: v for k, v in first.as_dict().items() if k not in ("switch_step", "base_weight")}
    axes = {"switch_steps": _axis(recipes, "switch_step"), "base_weights": _axis(recipes, "base_weight")}
    record = {"command": "grid", **shared, **axes, "seconds": seconds, **provenance}
    run.save_image("grid.png", sheet, record)
    folder = run.finish(record)
    return GridResult(
        prompt=first.prompt,
        folder=folder,
        sheet=folder / "grid.png",
        cells=[folder / _cell_name(recipe) for recipe in recipes],
        made=made,
        size=first.size,
        seconds=seconds,
    )


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


def _read_request(run: UnfinishedRun) -> tuple[list[Recipe], dict[str, str] | None, str]:
    asked: dict[str, Any] = run.request or {}
    try:
        recipes = [Recipe(**{**cell, "size": Size(**cell["size"])}) for cell in asked["cells"]]
        if not recipes:
            raise KeyError("cells")
        return recipes, asked["adapter"], asked["base_revision"]
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
        source=read_picture(studio.project.source(studio.manifest)).image,
        cell=cell,
        columns=[f"K = {K}" for K in columns],
        rows=[f"v = {v:g}" for v in rows],
        title=recipes[0].prompt,
        cell_size=recipes[0].size,
    )


def _stepper(
    on_progress: Callable[[GridProgress], None], cell: int, cells: int, steps: int
) -> Callable[[int], None]:
    taken = 0

    def step(_: int) -> None:
        nonlocal taken
        taken += 1
        on_progress(GridProgress(cell, cells, taken, steps))

    return step
