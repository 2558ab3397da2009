"""Adapters that gave way to others: in `tuning/adapters/`, each with its record, until a tuning like theirs
is asked for again. Older edits can be made again exactly with no other.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

from sine_cli.errors import UserError
from sine_cli.project.files import partial_path, remove, storage_errors
from sine_cli.project.folder import Project
from sine_cli.workflow.adapter_record import RECORD, AdapterRecord, read_record
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
    for kept in _kept(project):
        record = intact_record(kept)
        if record and is_wanted(record):
            keep_adapter(project)
            copy_adapter(kept, project)
            with storage_errors(kept.root):
                kept.root.rename(going := partial_path(kept.root))  # at once, even where we are killed
            remove(going)
            return record
    return None


def home_of(project: Project, files: dict[str, str] | None) -> Project:
    """Where the adapter with these files (SHA-256 by name) lies, as a project: here, or where it is kept.

    The project itself where none has them, and for None.
    """
    if files is None or _has(project, files):
        return project
    fitting = (each for each in _kept(project) if _has(each, files) and intact_record(each))
    return next(fitting, project)


def _kept(project: Project) -> list[Project]:
    """Those that are kept, each as in a project of its own; links are not followed."""
    folders = sorted(_folder(project).glob("[!.]*"))
    return [Project(folder) for folder in folders if not folder.is_symlink()]


def _has(project: Project, files: dict[str, str]) -> bool:
    """Whether the record of the adapter there names these files."""
    try:
        return read_record(project).files == files
    except (UserError, PermissionError):
        return False


def _folder(project: Project) -> Path:
    return project.tuning_dir / "adapters"
