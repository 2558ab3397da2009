"""`sine grid`: one prompt over switch steps K and base weights v, or a guide's weights."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from sine_cli.cli.options import (
    GuideOption,
    JsonOption,
    MemoryOption,
    NegativeOption,
    NoPositionOption,
    ProjectOption,
    QuietOption,
    ScaleOption,
    ScorerOption,
    SizeOption,
    SolverOption,
    SourcePromptOption,
    StepsOption,
    check_seed,
    edit_settings,
    first_typed,
    gigabytes,
    is_low,
    open_project,
    parse_guide_options,
    parse_size_option,
)
from sine_cli.errors import UserError

if TYPE_CHECKING:
    from sine_cli.project.manifest import Manifest
    from sine_cli.workflow.guides import GuideRequest

ROWS = "0.3,0.5,0.7,0.9"
"""Base weights, where neither they nor a guide's are given."""

RESUMED_WITH = ("project", "resume", "memory", "as_json", "quiet")
"""What may be given beside --resume: all else was said when the grid was begun."""


def grid(
    context: typer.Context,
    prompt: Annotated[str | None, typer.Argument(help="What the picture shall become.")] = None,
    project: ProjectOption = None,
    switch_steps: Annotated[
        str | None,
        typer.Option(
            "-K",
            "--switch-steps",
            help="Columns: a list, or start:stop:step, in 0 to 1000; default: 0, 1000 and up to four around "
            "the manifest's K.",
        ),
    ] = None,
    base_weights: Annotated[
        str | None,
        typer.Option(
            "-v", "--base-weights", help=f"Rows: a list, or start:stop:step, in 0 to 1; default: {ROWS}."
        ),
    ] = None,
    size: SizeOption = None,
    seed: Annotated[int, typer.Option("--seed", "-s", help="Seed of every cell, 0 or more.")] = 0,
    guidance_scale: ScaleOption = None,
    steps: StepsOption = None,
    solver: SolverOption = None,
    negative: NegativeOption = None,
    source_prompt: SourcePromptOption = None,
    no_position: NoPositionOption = False,
    guide: GuideOption = None,
    scorer: ScorerOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the newest interrupted grid.")] = False,
    memory: MemoryOption = "normal",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make one prompt over K and v, with a sheet of all.

    A picture for each switch step K (columns) and base weight v (rows), and a table and a plot of how well
    each shows the prompt and how far it is from the source. Several weights of a guide take the place of
    v. Cells that are finished are kept: after an interruption `sine grid --resume` goes on.

    \b
    sine grid "a sculpture of a girl"
    sine grid "a castle in the snow" -K 200:800:200 -v 0.5,0.7
    sine grid "painting of a dog" --guide ../starry-night:0,0.2,0.4
    sine grid --resume
    """
    from sine_cli.console import Console, counted
    from sine_cli.project.files import shown
    from sine_cli.workflow.asked import GridRequest, check_grid

    console = Console(as_json=as_json, quiet=quiet)
    if resume:
        _refuse_others(context)
    if not resume and prompt is None:
        raise UserError("a prompt is missing", 'for example `sine grid "a sculpture of a girl"`')
    opened, manifest = open_project(project, console)
    settings = edit_settings(
        manifest, guidance_scale=guidance_scale, steps=steps, solver=solver, negative=negative
    )
    columns = columns_of(switch_steps, manifest)
    guides = parse_guide_options(guide)
    rows = _base_weights(base_weights, guides, manifest)
    wanted = parse_size_option(size)
    first_seed = check_seed(seed)
    low_memory = is_low(memory)
    request = None
    if prompt is not None:
        request = GridRequest(
            prompt=prompt,
            switch_steps=columns,
            base_weights=rows,
            settings=settings,
            size=wanted,
            seed=first_seed,
            source_prompt=source_prompt,
            position=not no_position,
            scorer=scorer,
            guides=guides,
            low_memory=low_memory,
        )
        check_grid(opened, manifest, request)  # before torch is imported; the workflow asks again
    with console.progress() as update:
        from sine_cli.workflow.grid import GridProgress, grid, resume_grid

        def on_progress(p: GridProgress) -> None:
            update(p.done, p.total, counted(p.cells, "cell") + (f", {p.saved} there" if p.saved else ""))

        if request is None:
            result = resume_grid(opened, manifest, on_progress, console.warn, low_memory=low_memory)
        else:
            result = grid(opened, manifest, request, on_progress, console.warn)
    console.say(f"{result.seconds:.1f} s of sampling, {gigabytes(result.peak_memory)}")
    before = len(result.cells) - result.made
    written = " and ".join(path.name for path in (result.scores, result.tradeoff) if path)
    console.result(
        [
            f"{shown(result.sheet)}  {counted(len(result.cells), 'cell')}, each {result.size.described()}"
            + (f", {before} of them made before" if before else ""),
            f"{written} beside it; {result.scorer.described()}",
        ],
        {
            "project": str(opened.root),
            "prompt": result.prompt,
            "folder": str(result.folder),
            "sheet": str(result.sheet),
            "scores": str(result.scores),
            "tradeoff": str(result.tradeoff) if result.tradeoff else None,
            "scorer": asdict(result.scorer),
            "cells": [
                {
                    "file": str(cell.file),
                    "switch_step": cell.switch_step,
                    "base_weight": cell.base_weight,
                    **({} if cell.guide_weight is None else {"guide_weight": cell.guide_weight}),
                    "alignment": cell.score.alignment,
                    "distance": cell.score.distance,
                }
                for cell in result.cells
            ],
            "made": result.made,
            "height": result.size.height,
            "width": result.size.width,
            "seconds": result.seconds,
            "peak_memory": result.peak_memory,
        },
    )


def _refuse_others(context: typer.Context) -> None:
    """Raises UserError where anything but `RESUMED_WITH` was given on the command line."""
    typed = first_typed(context, RESUMED_WITH)
    if typed is not None:
        raise UserError(
            f"--resume goes on with what was asked for then; it takes no {typed}", "type `sine grid --resume`"
        )


def columns_of(given: str | None, manifest: "Manifest") -> list[int]:
    """The values of -K; by default those around the manifest's, between nothing and all guided."""
    if given is not None:
        return [_whole("-K", K) for K in parse_values("-K", given, 0, 1000)]
    K = manifest.edit.switch_step
    return sorted({0, *(min(half * K // 2, 1000) for half in (1, 2, 3, 4)), 1000})


def _base_weights(given: str | None, guides: "tuple[GuideRequest, ...]", manifest: "Manifest") -> list[float]:
    """The values of -v; the manifest's one where the weights of a guide are the rows."""
    if given is None and any(len(guide.weights) > 1 for guide in guides):
        return [manifest.edit.base_weight]
    return parse_values("-v", given or ROWS, 0, 1)


def parse_values(option: str, text: str, least: float, most: float) -> list[float]:
    """Numbers from `0,200,400` or `start:stop:step` (the stop included), each from `least` to `most`.

    Raises:
        UserError: not of that form, or out of range.
    """
    from sine_cli.workflow.asked import MOST_CELLS

    hint = (
        f"give a list such as `{option} 0.5,0.7`, or start:stop:step"
        if most == 1
        else (f"give a list such as `{option} 200,400`, or start:stop:step")
    )
    try:
        if ":" in text:
            start, stop, step = (float(part) for part in text.split(":"))
            if not (step > 0 and stop >= start):
                raise UserError(f'{option}: "{text}" goes nowhere', hint)
            if (stop - start) / step > MOST_CELLS:
                raise UserError(f'{option}: "{text}" has more than {MOST_CELLS} values', "give a larger step")
            values = [round(start + i * step, 10) for i in range(int((stop - start) / step + 1e-9) + 1)]
        else:
            values = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise UserError(f'{option}: "{text}" is not a list of numbers', hint) from error
    for value in values:
        if not least <= value <= most:  # NaN is not within either
            raise UserError(f"{option}: each must be from {least} to {most}, got {value:g}", hint)
    return values


def _whole(option: str, value: float) -> int:
    if not value.is_integer():
        raise UserError(
            f"{option}: each must be a whole number, got {value:g}", f"for example `{option} 200,400`"
        )
    return int(value)
