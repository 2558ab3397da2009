"""`sine show`: a project at a glance."""

from dataclasses import asdict
from typing import TYPE_CHECKING

from sine_cli.cli.options import JsonOption, ProjectOption, QuietOption, open_project

if TYPE_CHECKING:
    from sine_cli.project.runs import Run

SHOWN = 5
"""Runs of each kind that are listed; the folders hold them all."""


def show(project: ProjectOption = None, as_json: JsonOption = False, quiet: QuietOption = False) -> None:
    """Show a project at a glance.

    Picture, prompts, base, whether it is tuned, and its runs.

    \b
    sine show
    sine show --project girl --json
    """
    from sine_cli.console import Console, aligned
    from sine_cli.project.files import printable
    from sine_cli.project.folder import typed_for
    from sine_cli.workflow.show import show

    console = Console(as_json=as_json, quiet=quiet)
    opened, manifest = open_project(project, console)
    there = show(opened, manifest)
    source, prompts, edit = manifest.source, manifest.prompts, manifest.edit
    if there.steps is not None:
        state = f"yes, {there.steps} steps" + (f", but {there.problem}" if there.problem else "")
    elif there.problem:
        state = there.problem
    elif there.tuner:
        state = "no"
    elif there.going_on:
        state = f"not finished; {there.going_on}"
    else:
        state = f"no; `{typed_for(opened, 'tune')}` does it"
    if there.tuner:
        state += f"; being tuned by process {there.tuner.pid}, since {there.tuner.since}"
    elif there.tuned and there.going_on:
        state += f"; another tuning is not finished, {there.going_on}"
    rows = [
        ("project", opened.label),
        ("picture", f"{printable(source.original)}, {source.height} high, {source.width} wide"),
        ("source prompt", f'"{prompts.source}"'),
        ("base", manifest.base),
        ("tuned", state),
        (
            "edit",
            f"K = {edit.switch_step}, v = {edit.base_weight:g}, w = {edit.guidance_scale:g}, "
            f"{edit.steps} {edit.solver} steps",
        ),
        *_newest("edits", there.edits),
        *_newest("grids", there.grids),
        *(_newest("comparisons", there.comparisons) if there.comparisons else []),
        *[
            ("unfinished", f"{path.name}  (`{typed_for(opened, 'grid --resume')}`)")
            for path in there.unfinished
        ],
    ]
    console.result(
        aligned(rows),
        {
            "project": str(opened.root),
            "manifest": manifest.model_dump(by_alias=True),
            "tuned": there.tuned,
            "steps": there.steps,
            "problem": there.problem,
            "checkpoint": there.going_on is not None,
            "tuner": there.tuner and asdict(there.tuner),
            "edits": [str(run.path) for run in there.edits],
            "grids": [str(run.path) for run in there.grids],
            "comparisons": [str(run.path) for run in there.comparisons],
            "unfinished": [str(path) for path in there.unfinished],
        },
    )


def _newest(what: str, runs: "list[Run]") -> list[tuple[str, str]]:
    """How many runs there are, and the newest few."""
    if not runs:
        return [(what, "none")]
    from sine_cli.project.files import printable

    lines = [
        printable(f'{run.path.name}  "{run.record.get("prompt", "")}"') for run in reversed(runs[-SHOWN:])
    ]
    if len(runs) > SHOWN:
        lines.append(f"and {len(runs) - SHOWN} older")
    return [(what if i == 0 else "", line) for i, line in enumerate(lines)]
