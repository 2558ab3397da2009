"""Where unfinished tunings are kept, and which command goes on with them. Loads no model.

A project's current one is `tuning/checkpoint/state.safetensors`. A tuning with other settings sets it aside,
beside it under a name from what it was made with, and the command that began it takes it up again.
"""

import hashlib
import json
import os
from pathlib import Path

from safetensors import SafetensorError, safe_open

from sine_cli.project.files import remove, storage_errors
from sine_cli.project.folder import Project, typed_for
from sine_cli.project.manifest import Manifest


class Checkpoint:
    """The files of one tuning's checkpoint.

    Args:
        identity: all that decides about the tuning, as JSON; the file has it in its metadata.
    """

    def __init__(self, project: Project, identity: str) -> None:
        self.folder = _folder(project)
        self.file = self.folder / "state.safetensors"
        self.identity = identity

    def exists(self) -> bool:
        """Whether there is one of this tuning, current or set aside."""
        return self.identity in (identity_in(self.file), identity_in(self._aside(self.identity)))

    def take_up(self) -> Path | None:
        """Make this tuning's the current one; where another's was, the file in which that is kept now.

        A damaged one stays, to be replaced.
        """
        there, own, kept = identity_in(self.file), self._aside(self.identity), None
        with storage_errors(self.folder):
            if there not in (None, self.identity):
                kept = self._aside(there)
                os.replace(self.file, kept)
            if there != self.identity and own.is_file():
                os.replace(own, self.file)
        return kept

    def drop(self) -> None:
        """It has served; those of other tunings stay."""
        remove(self._aside(self.identity))
        if identity_in(self.file) in (None, self.identity):
            remove(self.file)
        if self.folder.is_dir() and not unfinished(self.folder):
            remove(self.folder)

    def _aside(self, identity: str | None) -> Path:
        name = hashlib.sha256((identity or "").encode()).hexdigest()[:12]
        return self.folder / f"{name}.safetensors"


def identity_in(file: Path) -> str | None:
    """What a checkpoint was made with; None where there is no sound one."""
    if not file.is_file():
        return None
    try:
        with safe_open(file, framework="np") as opened:
            return (opened.metadata() or {}).get("identity")
    except (SafetensorError, OSError):
        return None


def unfinished(folder: Path) -> list[Path]:
    """The checkpoints in a folder, that of the current tuning and those set aside."""
    return sorted(path for path in folder.glob("*.safetensors") if not path.name.startswith("."))


def going_on(project: Project, manifest: Manifest) -> str | None:
    """How the unfinished tunings of a project go on, in words; None where there is none."""
    files = unfinished(_folder(project))
    if not files:
        return None
    if any(_is_wanted(file, manifest) for file in files):
        return f"`{typed_for(project, 'tune')}` goes on"
    return "the command that began it goes on"


def _is_wanted(file: Path, manifest: Manifest) -> bool:
    """Whether the tuning has the manifest's settings, those of the looks that may end it too."""
    try:
        identity = json.loads(identity_in(file) or "")
    except (ValueError, RecursionError):
        return False
    if not isinstance(identity, dict) or identity.get("tune") != manifest.tune.model_dump():
        return False
    looks, now = identity.get("preview"), manifest.edit.model_dump()
    return looks is None or (isinstance(looks, dict) and looks == {name: now.get(name) for name in looks})


def _folder(project: Project) -> Path:
    return project.tuning_dir / "checkpoint"
