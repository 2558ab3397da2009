"""`sine show`: a project at a glance. Loads no model."""

from dataclasses import dataclass
from pathlib import Path

from sine_cli.errors import UserError
from sine_cli.project.folder import Project
from sine_cli.project.lock import Holder, holder
from sine_cli.project.manifest import Manifest
from sine_cli.project.runs import Run, list_runs, unfinished_runs
from sine_cli.workflow.adapter_record import RECORD, check_record, read_record
from sine_cli.workflow.checkpoint import going_on


@dataclass(frozen=True)
class Overview:
    """What there is.

    Attributes:
        tuned: the adapter's record stands.
        going_on: how a tuning that was interrupted goes on.
        tuner: the process that tunes the project now.
        steps: that the adapter was tuned for; None without a record that can be read.
        problem: why the adapter is of no use here, and what to do; its files are `verify`'s to look at.
        unfinished: grids that can go on.
    """

    project: Project
    manifest: Manifest
    tuned: bool
    going_on: str | None
    tuner: Holder | None
    steps: int | None
    problem: str | None
    edits: list[Run]
    grids: list[Run]
    comparisons: list[Run]
    unfinished: list[Path]


def show(project: Project, manifest: Manifest) -> Overview:
    """The project's state, read from its folder."""
    tuned, steps, problem = (project.adapter_dir / RECORD).is_file(), None, None
    if tuned:
        try:
            record = read_record(project)
            steps = record.tune.steps if record.steps_taken is None else record.steps_taken
            check_record(project, manifest, record)
        except UserError as error:
            problem = f"{error.message}; {error.hint}" if error.hint else error.message
    return Overview(
        project=project,
        manifest=manifest,
        tuned=tuned,
        going_on=going_on(project, manifest),
        tuner=holder(project.tuning_lock),
        steps=steps,
        problem=problem,
        edits=list_runs(project.edits_dir),
        grids=list_runs(project.grids_dir),
        comparisons=list_runs(project.comparisons_dir),
        unfinished=[run.final for run in unfinished_runs(project.grids_dir)],
    )
