"""Adapters that gave way to others: in `tuning/adapters/`, each with its record, until a tuning like theirs
is asked for again. Older edits can be made again exactly with no other.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

from sine_cli.project.files import partial_path, remove, storage_errors
from sine_cli.project.folder import Project
from sine_cli.workflow.adapter_record import RECORD, AdapterRecord
from sine_cli.workflow.adapters import copy_adapter, intact_record, whole_files


def keep_adapter(project: Project) -> Path | None:
    """Keep the project's adapter beside what will take its place; where. None where there is no whole one.

    Raises:
        SineError: disk.
    """
    if not whole_files(project):
        return None
    name = hashlib.sha256((project.adapter_dir / RECORD).read_bytes()).hexdigest()[:12]
    kept = _folder(project) / name
    if not kept.is_symlink() and whole_files(Project(kept)):  # by its name the same one
        return kept
    partial = partial_path(kept)
    try:
        copy_adapter(project, Project(partial))
        with storage_errors(kept):
            remove(kept)
            partial.rename(kept)
    finally:
        remove(partial)
    return kept


def take_up_adapter(project: Project, is_wanted: Callable[[AdapterRecord], bool]) -> AdapterRecord | None:
    """Put a kept adapter in the project's place again, and keep the one that is there; None: none is wanted.

    Raises:
        SineError: disk.
    """
    for folder in sorted(_folder(project).glob("[!.]*")):
        kept = Project(folder)
        record = None if folder.is_symlink() else intact_record(kept)
        if record and is_wanted(record):
            keep_adapter(project)
            copy_adapter(kept, project)
            with storage_errors(folder):
                folder.rename(going := partial_path(folder))  # all of it at once, even where we are killed
            remove(going)
            return record
    return None


def _folder(project: Project) -> Path:
    return project.tuning_dir / "adapters"
