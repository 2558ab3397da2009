"""`sine grid`: one prompt over K and v, or K and a guide's weight: a picture a cell, a sheet, and scores."""

import csv
import io
import shlex
import textwrap
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from itertools import product
from pathlib import Path
from typing import Any

from PIL import Image

from sine_cli.errors import Interrupted, UserError
from sine_cli.project.files import printable, shown, typed, write_bytes, write_text
from sine_cli.project.folder import Project, typed_for
from sine_cli.project.leftovers import remove_leftovers
from sine_cli.project.manifest import Manifest
from sine_cli.project.migration import migrate
from sine_cli.project.prompts import with_token
from sine_cli.project.runs import UnfinishedRun, find_recipe, load_picture, start_run, unfinished_runs
from sine_cli.project.source import is_made
from sine_cli.scoring.scorer import Score, ScorerIdentity
from sine_cli.workflow.adapter_record import read_record
from sine_cli.workflow.asked import MOST_CELLS, GridRequest, check_grid, without_effect
from sine_cli.workflow.bases import find_base
from sine_cli.workflow.guides import guides_in_use, uses_tuned
from sine_cli.workflow.kept_adapters import home_of
from sine_cli.workflow.open import Studio, open_studio
from sine_cli.workflow.plots import tradeoff_plot
from sine_cli.workflow.record import Provenance, differences
from sine_cli.workflow.render import Recipe, recipe_of
from sine_cli.workflow.scorers import (
    LocatedScorer,
    load_scorer,
    locate_scorer,
    score_files,
    tell_unread,
)
from sine_cli.workflow.sheet import draw_sheet
from sine_cli.workflow.size import Size

SCORES = "scores.csv"
TRADEOFF = "tradeoff.png"


@dataclass(frozen=True)
class GridProgress:
    """`saved` of `cells` are there; the U-Net has made `done` of the `total` rows of those to be made now."""

    saved: int
    cells: int
    done: int
    total: int


@dataclass(frozen=True)
class ScoredCell:
    """A cell's picture, its place on the axes, and its score; `guide_weight` where that is the rows' axis."""

    file: Path
    switch_step: int
    base_weight: float
    score: Score
    guide_weight: float | None = None


@dataclass(frozen=True)
class GridResult:
    """The run's folder and what it holds.

    Attributes:
        cells: row by row; `made` of them were made now, the others before.
        scores: the table of the cells' scores.
        tradeoff: the plot of them over both axes; None for a single cell.
        peak_memory: the most bytes held at once.
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
    peak_memory: int


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
            guide or scorer.
        SineError: the base cannot be had, a picture came out as NaN, disk.
    """
    # 1. What is asked for, checked before anything is loaded
    request = replace(request, prompt=with_token(request.prompt, manifest.prompts.token))
    cells = check_grid(project, manifest, request)
    for line in without_effect(request, cells):
        on_notice(line)
    scorer = locate_scorer(request.scorer, on_notice)
    remove_leftovers(project)
    migrate(project, manifest, on_notice)

    # 2. Base and adapters
    studio = open_studio(
        project,
        manifest,
        needs_adapter=any(uses_tuned(settings) for settings, _ in cells),
        guides=[guides for _, guides in cells],
        low_memory=request.low_memory,
        on_notice=on_notice,
    )
    size = studio.size_for(request.size)

    # 3. The cells, as recipes: each the recipe of an edit
    recipes = [
        recipe_of(
            manifest,
            settings,
            prompt=request.prompt,
            source_prompt=request.source_prompt,
            seed=request.seed,
            size=size,
            position=request.position,
            guides=guides,
        )
        for settings, guides in cells
    ]
    # 4. One run folder, hidden until all is done
    asked = {
        "cells": [recipe.as_dict() for recipe in recipes],
        "adapter": studio.adapter_files(),
        "guide_adapters": studio.guide_adapters(),
        "base_revision": studio.location.revision,
        "scorer": scorer.name,
    }
    run = start_run(project.grids_dir, request.prompt, datetime.now(), request=asked)
    with run.at_work():
        return _make(studio, run, recipes, scorer, on_progress, on_notice)


def resume_grid(
    project: Project,
    manifest: Manifest,
    on_progress: Callable[[GridProgress], None] = lambda _: None,
    on_notice: Callable[[str], None] = lambda _: None,
    *,
    low_memory: bool = False,
) -> GridResult:
    """Go on with the newest grid that was interrupted, of those whose base and adapters are still there.

    Raises:
        UserError: there is none, another process works on it, an adapter is another one by now, or a guide
            or the scorer is gone.
    """
    left = unfinished_runs(project.grids_dir)
    left = [run for run in left if run.holder is None] or left  # else who holds them is told below
    if not left:
        begin = typed_for(project, 'grid "a sculpture of a girl"')
        raise UserError(
            f"no interrupted grid in {shown(project.grids_dir)}",
            f"start one: `{begin}`",
        )
    revision = find_base(manifest).revision
    fits = [run for run in left if _fits(project, run, revision)]
    run = (fits or left)[-1]
    recipes, begun_with, scorer_name = _read_request(run)
    scorer = locate_scorer(scorer_name, on_notice, may_fetch=False)
    run.take_over()
    with run.at_work():
        remove_leftovers(project)
        migrate(project, manifest, on_notice)
        studio = open_studio(
            project,
            manifest,
            needs_adapter=begun_with.adapter is not None,
            guides=[recipe.guides for recipe in recipes],
            low_memory=low_memory,
            adapter=begun_with.adapter,
            guide_adapters=begun_with.guide_adapters,
            on_notice=on_notice,
        )
        if begun_with != _Models(studio.adapter_files(), studio.guide_adapters(), studio.location.revision):
            whose = "the project or a guide of it has" if recipes[0].guides else "the project has"
            anew = typed_for(project, f"grid {shlex.quote(printable(recipes[0].prompt))}")
            raise UserError(
                f"{shown(run.final)} was begun with another adapter or base than {whose} now",
                f"start it anew: `{anew}`; this one goes with `rm -r {typed(run.hidden)}`",
            )
        studio.check_fits(recipes[0].size, asked=False)
        for then in _provenances(run, recipes)[:1]:
            with suppress(ValueError):  # not as sine writes it: is told by `verify`
                now = Provenance.from_dict(studio.provenance())
                for line in differences(Provenance.from_dict(then), now):
                    on_notice(f"the cells that are there were made otherwise: {line}")
        return _make(studio, run, recipes, scorer, on_progress, on_notice)


def _make(
    studio: Studio,
    run: UnfinishedRun,
    recipes: list[Recipe],
    located: LocatedScorer,
    on_progress: Callable[[GridProgress], None],
    on_notice: Callable[[str], None],
) -> GridResult:
    first, rows = recipes[0], _Rows(recipes)
    started = time.monotonic()
    try:
        # 5. A picture a cell, made together where they share steps, and saved as they are done
        made = _make_cells(studio, run, recipes, on_progress, on_notice)
        seconds = round(time.monotonic() - started, 2)

        # 6. Every cell held against prompt and source, as a table and a plot
        scorer = load_scorer(located)
        tell_unread(scorer, [first.prompt], on_notice)
        files = [run.folder / _cell_name(recipe, rows) for recipe in recipes]
        scores = score_files(scorer, files, first.prompt, studio.source_picture())
        write_text(run.folder / SCORES, _table(recipes, scores, scorer.identity))
        plot = _plot(recipes, scores, scorer.identity)
        if plot:
            write_bytes(run.folder / TRADEOFF, plot)

        # 7. The sheet
        axes = {"switch_steps": _columns(recipes), f"{rows.field}s": rows.values}
        scored = {
            "seconds": seconds,
            "peak_memory": studio.peak_memory(),
            "scorer": asdict(scorer.identity),
        }
        conditions = _in_common([studio.provenance(), *_provenances(run, recipes)])
        record = {"command": "grid", **_shared(recipes, rows), **axes, **scored, **conditions}
        run.save_image("grid.png", _sheet(studio, run, recipes), record)
    except KeyboardInterrupt:
        kept = sum((run.folder / _cell_name(recipe, rows)).is_file() for recipe in recipes)
        how = typed_for(studio.project, "grid --resume")
        if not kept:
            raise Interrupted(f"no cell was finished yet; `{how}` makes them all") from None
        raise Interrupted(f"{kept} of {len(recipes)} cells are kept; `{how}` goes on") from None

    # 8. The folder appears
    folder = run.finish(record)
    return GridResult(
        prompt=first.prompt,
        folder=folder,
        sheet=folder / "grid.png",
        cells=[
            ScoredCell(
                folder / _cell_name(recipe, rows),
                recipe.switch_step,
                recipe.base_weight,
                score,
                None if rows.guide is None else rows.of(recipe),
            )
            for recipe, score in zip(recipes, scores, strict=True)
        ],
        made=made,
        scores=folder / SCORES,
        tradeoff=folder / TRADEOFF if plot else None,
        scorer=scorer.identity,
        size=first.size,
        seconds=seconds,
        peak_memory=studio.peak_memory(),
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
    rows = _Rows(recipes)
    missing = [
        recipe
        for recipe in recipes
        if not is_made(run.folder / _cell_name(recipe, rows), recipe.size.height, recipe.size.width)
    ]
    saved = len(recipes) - len(missing)

    def on_rows(done: int, total: int) -> None:
        on_progress(GridProgress(saved, len(recipes), done, total))

    # The cells of one row of the sheet share most, so no batch parts them
    pictures = renderer.pictures(missing, on_rows, together=len(_columns(recipes)))
    for recipe, picture in zip(missing, pictures, strict=True):
        run.save_image(_cell_name(recipe, rows), picture, recipe.as_dict() | provenance)
        saved += 1
    return len(missing)


class _Rows:
    """What the rows vary: the base weight v, or the weight b of the guide at place `guide`."""

    def __init__(self, recipes: list[Recipe]) -> None:
        weights = zip(*([part.weight for part in recipe.guides] for recipe in recipes), strict=True)
        self.guide = next((place for place, each in enumerate(weights) if len(set(each)) > 1), None)
        self.letter, self.field, self.label = "v", "base_weight", "base weight v"
        if self.guide is not None:
            name = Path(recipes[0].guides[self.guide].project).name
            self.letter, self.field, self.label = "b", "guide_weight", f"weight b of {name}"
        self.values = list(dict.fromkeys(self.of(recipe) for recipe in recipes))

    def of(self, recipe: Recipe) -> float:
        return recipe.base_weight if self.guide is None else recipe.guides[self.guide].weight


def _shared(recipes: list[Recipe], rows: _Rows) -> dict[str, Any]:
    """What the recipes share besides their axes, which may vary K and weight of guides too."""
    shared = recipes[0].as_dict()
    for axis in ("switch_step", rows.field):
        shared.pop(axis, None)
    parts = zip(*(recipe.as_dict()["guides"] for recipe in recipes), strict=True)
    return {**shared, "guides": [_in_common(each) for each in parts]}


def _in_common(records: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The entries that all records share."""
    first, *others = records
    return {name: value for name, value in first.items() if all(each.get(name) == value for each in others)}


def _provenances(run: UnfinishedRun, recipes: list[Recipe]) -> list[dict[str, Any]]:
    """What each cell that is there was made with: a grid may have gone on under other conditions."""
    rows = _Rows(recipes)
    files = [run.folder / _cell_name(recipe, rows) for recipe in recipes]
    found = [find_recipe(file) for file in files if file.is_file()]
    return [{key: each[key] for key in Provenance.model_fields if key in each} for each in found if each]


@dataclass(frozen=True)
class _Models:
    """What a grid is made with: hashes of the adapter's files and of the guides', the base's revision."""

    adapter: dict[str, str] | None
    guide_adapters: list[dict[str, str] | None]
    base_revision: str


def _read_request(run: UnfinishedRun) -> tuple[list[Recipe], _Models, str | None]:
    """The recipes, what they are made with, and the scorer's name."""
    asked: dict[str, Any] = run.request or {}
    try:
        recipes = [Recipe.from_dict(cell) for cell in asked["cells"]]
        scorer = asked.get("scorer")  # not said before grids were scored
        if not recipes or not isinstance(scorer, str | None):
            raise TypeError("no cells, or a scorer without a name")
        models = _Models(asked["adapter"], asked.get("guide_adapters", []), asked["base_revision"])
        _check_cells(recipes)
        if any(map(uses_tuned, recipes)) and models.adapter is None:
            raise ValueError("no adapter")
        return recipes, models, scorer
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{shown(run.hidden)} is damaged and cannot go on", f"remove it: `rm -r {typed(run.hidden)}`"
        ) from error


def _fits(project: Project, run: UnfinishedRun, revision: str) -> bool:
    """Whether the adapters that a grid was begun with are there or kept, and the base is the one."""
    try:
        recipes, models, _ = _read_request(run)
        guides = guides_in_use(project, [recipe.guides for recipe in recipes])
        wanted = [(project, models.adapter)]
        wanted += [
            (guide.project, files)
            for guide, files in zip(guides, models.guide_adapters, strict=True)
            if guide
        ]
        return models.base_revision == revision and all(
            files is None or read_record(home_of(each, files)).files == files for each, files in wanted
        )
    except (UserError, ValueError):
        return False


def _check_cells(recipes: list[Recipe]) -> None:
    """Raises ValueError where they are not the cells of one grid, row by row."""
    alike = {_but_for_the_axes(recipe) for recipe in recipes}
    if len(recipes) > MOST_CELLS or len(alike) > 1:
        raise ValueError("not the cells of one grid")
    rows = _Rows(recipes)
    if [(rows.of(each), each.switch_step) for each in recipes] != [*product(rows.values, _columns(recipes))]:
        raise ValueError("not a row of every weight and a column of every K")


def _but_for_the_axes(recipe: Recipe) -> Recipe:
    guides = tuple(replace(guide, weight=0.0, switch_step=0) for guide in recipe.guides)
    return replace(recipe, switch_step=0, base_weight=0.0, guides=guides)


def _cell_name(recipe: Recipe, rows: _Rows) -> str:
    return cell_name(recipe.switch_step, rows.letter, rows.of(recipe))


def cell_name(switch_step: int, letter: str, weight: float) -> str:
    """`cells/K0400_v0.70.png`; weights of more than two decimals keep them all."""
    digits = max(f"{weight:.2f}", f"{weight:.10f}".rstrip("0"), key=len)
    return f"cells/K{switch_step:04d}_{letter}{digits}.png"


def _columns(recipes: list[Recipe]) -> list[int]:
    return list(dict.fromkeys(recipe.switch_step for recipe in recipes))


def _sheet(studio: Studio, run: UnfinishedRun, recipes: list[Recipe]) -> Image.Image:
    columns, rows = _columns(recipes), _Rows(recipes)

    def cell(row: int, column: int) -> Image.Image:
        recipe = recipes[row * len(columns) + column]
        return load_picture(run.folder / _cell_name(recipe, rows))

    return draw_sheet(
        source=studio.source_picture(),
        cell=cell,
        columns=[f"K = {K}" for K in columns],
        rows=[f"{rows.letter} = {value:g}" for value in rows.values],
        title=recipes[0].prompt,
        cell_size=recipes[0].size,
    )


def _table(recipes: list[Recipe], scores: list[Score], scorer: ScorerIdentity) -> str:
    """A line a cell, as comma-separated values."""
    rows = _Rows(recipes)
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(["file", "switch_step", rows.field, "alignment", "distance", "scorer", "distance_measure"])
    for recipe, score in zip(recipes, scores, strict=True):
        cell = (_cell_name(recipe, rows), recipe.switch_step, rows.of(recipe))
        table.writerow([*cell, score.alignment, score.distance, scorer.name, scorer.distance])
    return out.getvalue()


def _plot(recipes: list[Recipe], scores: list[Score], scorer: ScorerIdentity) -> bytes | None:
    """The trade-off between the two scores; None for a single cell."""
    rows = _Rows(recipes)
    cells = [(recipe.switch_step, rows.of(recipe)) for recipe in recipes]
    measures = {
        "alignment": dict(zip(cells, (score.alignment for score in scores), strict=True)),
        "distance": dict(zip(cells, (score.distance for score in scores), strict=True)),
    }
    prompt = textwrap.shorten(printable(recipes[0].prompt), 120, placeholder="...")
    return tradeoff_plot(measures, f'"{prompt}": {scorer.described()}', rows.letter, rows.label)
