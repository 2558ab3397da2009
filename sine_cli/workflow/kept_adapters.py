"""Adapters that gave way to others: in `tuning/adapters/`, each with its record, until a tuning with its
settings is asked for again. An edit is made again with the very adapter that it was made with, or not at all.
"""

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from sine_cli.project.files import make_folder, remove, replacing, storage_errors
from sine_cli.project.folder import Project
from sine_cli.workflow.adapter_record import RECORD, AdapterRecord
from sine_cli.workflow.adapters import intact_record


def keep_adapter(project: Project) -> Path | None:
    """Keep the project's adapter beside what will take its place; where. None where there is no whole one.

    Raises:
        SineError: disk.
    """
    record = intact_record(project)
    if record is None:
        return None
    name = hashlib.sha256((project.adapter_dir / RECORD).read_bytes()).hexdigest()[:12]
    kept = _folder(project) / name
    _copy(project, Project(kept), record)
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
            _copy(kept, project, record)
            remove(folder)
            return record
    return None


def _copy(source: Project, target: Project, record: AdapterRecord) -> None:
    """The adapter's files, the record last: without one that names its files there is no adapter."""
    make_folder(target.adapter_dir)
    with storage_errors(target.adapter_dir):
        (target.adapter_dir / RECORD).unlink(missing_ok=True)
    for name in (*record.files, RECORD):
        with replacing(target.adapter_dir / name) as partial:
            _link_or_copy(source.adapter_dir / name, partial)


def _link_or_copy(file: Path, to: Path) -> None:
    """One file by two names where the disk can: adapters are replaced, never written into."""
    try:
        os.link(file, to)
    except OSError:
        shutil.copyfile(file, to)


def _folder(project: Project) -> Path:
    return project.tuning_dir / "adapters"
