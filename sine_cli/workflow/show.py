"""`sine show`: a project at a glance. Loads no model."""

from dataclasses import dataclass
from pathlib import Path

from sine_cli.project.folder import Project
from sine_cli.project.manifest import Manifest
from sine_cli.project.runs import Run, list_runs, unfinished_runs


@dataclass(frozen=True)
class Overview:
    """What there is.

    Attributes:
        tuned: the adapter's record stands.  checkpoint: a tuning was interrupted.
        unfinished: grids that can go on.
    """

    project: Project
    manifest: Manifest
    tuned: bool
    checkpoint: bool
    edits: list[Run]
    grids: list[Run]
    comparisons: list[Run]
    unfinished: list[Path]


def show(project: Project, manifest: Manifest) -> Overview:
    """The project's state, read from its folder."""
    return Overview(
        project=project,
        manifest=manifest,
        tuned=(project.adapter_dir / "record.yaml").is_file(),
        checkpoint=(project.tuning_dir / "checkpoint" / "state.safetensors").is_file(),
        edits=list_runs(project.edits_dir),
        grids=list_runs(project.grids_dir),
        comparisons=list_runs(project.comparisons_dir),
        unfinished=[run.final for run in unfinished_runs(project.grids_dir)],
    )
