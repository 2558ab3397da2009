"""Where unfinished tunings are kept, and which command goes on with them. Loads no model.

A project's current one is `tuning/checkpoint/state.safetensors`. A tuning with other settings sets it aside,
beside it under a name from what it was made with, and the command that began it takes it up again.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from sine_cli.project.files import remove, storage_errors
from sine_cli.project.folder import Project, typed_for
from sine_cli.project.manifest import MOST_AUTO_STEPS, Manifest, TuneSettings


class Checkpoint:
    """The files of one tuning's checkpoint.

    Args:
        identity: what the tuning is made with; the file has it in its metadata, as JSON.
    """

    def __init__(self, project: Project, identity: dict[str, Any]) -> None:
        self.folder = _folder(project)
        self.file = self.folder / "state.safetensors"
        self.identity = _deciding(identity)

    def exists(self) -> bool:
        """Whether there is one of this tuning, current or set aside."""
        return any(identity_in(file) == self.identity for file in unfinished(self.folder))

    def take_up(self) -> Path | None:
        """Make this tuning's the current one; where another's was, the file in which that is kept now.

        A damaged one stays, to be replaced.
        """
        there, own, kept = identity_in(self.file), self._own_aside(), None
        with storage_errors(self.folder):
            if there not in (None, self.identity):
                kept = self._aside(there)
                os.replace(self.file, kept)
            if there != self.identity and own:
                os.replace(own, self.file)
        return kept

    def drop(self) -> None:
        """It has served; those of other tunings stay."""
        if own := self._own_aside():
            remove(own)
        if identity_in(self.file) in (None, self.identity):
            remove(self.file)
        if self.folder.is_dir() and not unfinished(self.folder):
            remove(self.folder)

    def _own_aside(self) -> Path | None:
        """Where this tuning's was set aside, under whatever name; None where it was not."""
        aside = [file for file in unfinished(self.folder) if file != self.file]
        return next((file for file in aside if identity_in(file) == self.identity), None)

    def _aside(self, identity: str | None) -> Path:
        name = hashlib.sha256((identity or "").encode()).hexdigest()[:12]
        return self.folder / f"{name}.safetensors"


LOOSE = {"base", "versions"}
"""Of what a tuning is made with, that which may be another when it goes on: the base's name, for the revision
decides, and the versions of sine and its libraries, which are told."""


def _deciding(identity: dict[str, Any]) -> str:
    """As JSON, which is the same for the same."""
    return json.dumps({name: value for name, value in identity.items() if name not in LOOSE}, sort_keys=True)


def _made_with(about: Mapping[str, str]) -> dict[str, Any]:
    """What the metadata of a checkpoint says; nothing where it is not as sine writes it."""
    try:
        identity = json.loads(about.get("identity", ""))
    except (ValueError, RecursionError):
        return {}
    return identity if isinstance(identity, dict) else {}


def versions_in(about: Mapping[str, str]) -> dict[str, str]:
    """The versions in the metadata of a checkpoint."""
    found = _made_with(about).get("versions")
    return {str(name): str(each) for name, each in found.items()} if isinstance(found, dict) else {}


def identity_in(file: Path) -> str | None:
    """What decides about the tuning of a checkpoint, as JSON; None where there is no sound one."""
    identity = _identity_in(file)
    return _deciding(identity) if identity else None


def _identity_in(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        with safe_open(file, framework="np") as opened:
            return _made_with(opened.metadata() or {})
    except (SafetensorError, OSError):
        return {}


def unfinished(folder: Path) -> list[Path]:
    """The checkpoints in a folder, that of the current tuning and those set aside."""
    return sorted(path for path in folder.glob("*.safetensors") if not path.name.startswith("."))


def going_on(project: Project, manifest: Manifest) -> str | None:
    """How the unfinished tunings of a project go on, in words; None where there is none."""
    files = unfinished(_folder(project))
    if not files:
        return None
    found = [each for file in files if (each := _options(_identity_in(file), manifest)) is not None]
    if not found:
        return "the command that began it goes on"
    return f"`{typed_for(project, ' '.join(['tune', *min(found, key=len)]))}` goes on"


def _options(identity: dict[str, Any], manifest: Manifest) -> list[str] | None:
    """What `sine tune` is to be given to go on with such a tuning; None where no options make it the same."""
    now, edit, looks = manifest.tune, manifest.edit.model_dump(), identity.get("preview", {})
    try:
        then = TuneSettings.model_validate(identity.get("tune"))
    except ValidationError:
        return None
    if not isinstance(looks, dict) or looks != {name: edit.get(name) for name in looks}:
        return None
    decided = {
        "source_prompt": manifest.prompts.source,
        "source_sha256": manifest.source.stored_sha256,
        "base_revision": manifest.base_revision,
    }
    if any(value not in (None, identity.get(name)) for name, value in decided.items()):
        return None
    options: list[str] = []
    given: dict[str, Any] = {"patches": now.patches and then.patches}  # no option gives them back
    if (then.steps, then.stop_early) != (now.steps, now.stop_early):
        options += ["--steps", "auto" if then.stop_early else str(then.steps)]
        given |= {"steps": MOST_AUTO_STEPS if then.stop_early else then.steps, "stop_early": then.stop_early}
    if now.patches and not then.patches:
        options.append("--no-patches")
    for name in ("prior", "seed"):
        value = given[name] = getattr(then, name)
        if value != getattr(now, name):
            options += [f"--{name}", str(value)]
    if identity.get("low_memory"):
        options += ["--memory", "low"]
    return options if now.model_copy(update=given) == then else None


def _folder(project: Project) -> Path:
    return project.tuning_dir / "checkpoint"
