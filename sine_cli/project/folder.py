"""The project folder: where everything in it lies, how it is made, and how a command finds it."""

import difflib
import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sine_cli.errors import UserError
from sine_cli.project import files
from sine_cli.project.inside import check_inside, refuse_links_out

if TYPE_CHECKING:
    from PIL import Image

    from sine_cli.project.manifest import Manifest

_MANIFEST = "sine.yaml"
_FOLDERS = ("adapter", "tuning", "edits", "grids", "comparisons", "exports")
_MOST_LISTED = 8


@dataclass(frozen=True)
class Project:
    """A project folder. The paths are where things belong, whether or not they are there yet."""

    root: Path

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.root.resolve().name

    @property
    def label(self) -> str:
        """How a message names the project: by its path, or as the working folder by its own name."""
        path = files.shown(self.root)
        return files.printable(self.name) if path == "." else path

    @property
    def manifest_path(self) -> Path:
        return self.root / _MANIFEST

    def source(self, manifest: "Manifest") -> Path:
        """The picture that the manifest names. Raises UserError where a link leads out of the project."""
        path = self.root / manifest.source.file
        check_inside(self.root, path)
        return path

    def check_picture(self, manifest: "Manifest") -> None:
        """Raises UserError where the stored picture is gone, or not the one whose hash the manifest has."""
        path, known = self.source(manifest), manifest.source.stored_sha256
        if known is not None and files.sha256(path) != known:
            raise UserError(
                f"{files.shown(path)} is not the picture whose hash {files.shown(self.manifest_path)} has",
                "bring the picture back, or make a new project: `sine init PICTURE --class NOUN`",
            )

    @property
    def adapter_dir(self) -> Path:
        return self.root / "adapter"

    @property
    def tuning_dir(self) -> Path:
        return self.root / "tuning"

    @property
    def tuning_lock(self) -> Path:
        """Held while the project is tuned."""
        return self.root / ".tuning.lock"

    @property
    def edits_dir(self) -> Path:
        return self.root / "edits"

    @property
    def grids_dir(self) -> Path:
        return self.root / "grids"

    @property
    def comparisons_dir(self) -> Path:
        return self.root / "comparisons"

    @property
    def exports_dir(self) -> Path:
        return self.root / "exports"


@dataclass(frozen=True)
class Found:
    """A project and how it was found: named by the user, at or above the working folder, or just below it."""

    project: Project
    how: Literal["given", "above", "below"]


def create_project(root: Path, manifest: "Manifest", image: "Image.Image") -> Project:
    """Make the folder `root` with its manifest and picture (RGB), whole or not at all.

    The manifest in it has the hash of the picture as it is stored there.

    `root` may exist when it is an empty folder; the folder that it lies in must exist.

    Raises:
        UserError: `root` exists already, is the working folder, or lies in a folder that is not there.
        SineError: disk full, no permission, or another failure of the disk.
    """
    from sine_cli.project.manifest import write_manifest
    from sine_cli.project.source import write_source

    check_new_folder(root)
    files.remove_abandoned(root)
    partial = files.partial_path(root)
    with files.storage_errors(root):
        try:
            partial.mkdir()
            stored = partial / manifest.source.file
            write_source(image, stored)
            source = manifest.source.model_copy(update={"stored_sha256": files.sha256(stored)})
            write_manifest(partial / _MANIFEST, manifest.model_copy(update={"source": source}))
            partial.rename(root)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):  # made by someone else meanwhile
                raise _already_exists(root) from error
            raise
        finally:
            files.remove(partial)
        files.flush_folder(root.parent)
    return Project(root)


def check_new_folder(root: Path) -> None:
    """Refuse what cannot become a project's folder. Raises UserError, and SineError where the disk fails."""
    with files.storage_errors(root):
        if os.path.realpath(root) == os.getcwd():
            raise UserError(
                "the working folder itself cannot become a project", "type `--dir NAME` for a new folder"
            )
        if not root.parent.is_dir():
            raise UserError(
                f"no such folder: {files.shown(root.parent)}",
                f"make it first: `mkdir -p {files.typed(root.parent)}`",
            )
        if os.path.lexists(root) and not _is_empty_folder(root):
            raise _already_exists(root)


def _is_empty_folder(path: Path) -> bool:
    if path.is_symlink() or not path.is_dir():
        return False
    with files.storage_errors(path):
        return next(path.iterdir(), None) is None


def _already_exists(root: Path) -> UserError:
    or_remove = ", or remove that one first" if root.is_dir() else ""  # a file may be the picture itself
    return UserError(
        f"{files.shown(root)} already exists", f"choose another folder with `--dir NAME`{or_remove}"
    )


def find_project(start: Path, given: Path | None = None) -> Found:
    """The project that a command is about.

    Args:
        start: the working folder.
        given: what `--project` says, a project folder or its `sine.yaml`, relative to `start`; or None, then
            the first project from `start` upwards, else the only one directly below it.

    Raises:
        UserError: `given` is no project, there is none, there are several below, or a link in it leads out
            of it.
    """
    if given is not None:
        return Found(named_project(start / given, "--project"), "given")
    above = project_above(start)
    if above is not None:
        return Found(above, "above")
    below = _projects_below(start)
    if not below:
        raise UserError(
            f"no project here ({files.printable(str(start))}), above or directly below",
            "`sine init PICTURE --class NOUN` makes one",
        )
    if len(below) > 1:
        raise UserError(
            f"{len(below)} projects here: {_listed([root.name for root in below])}",
            f"say which: `--project {files.typed(below[0])}`",
        )
    return Found(_opened(below[0]), "below")


def project_above(start: Path) -> Project | None:
    """The first project from the folder `start` (absolute) upwards, or None.

    Raises:
        UserError: a link in it leads out of it.
    """
    root = next((folder for folder in (start, *start.parents) if _is_project(folder)), None)
    return _opened(root) if root else None


def typed_for(project: Project, command: str) -> str:
    """How a command for this project is typed here: `sine tune`, with `--project` where it needs that."""
    try:
        is_found = os.path.samefile(find_project(Path.cwd()).project.root, project.root)
    except (UserError, OSError):
        is_found = False
    return f"sine {command}" + ("" if is_found else f" --project {files.typed(project.root)}")


def _opened(root: Path) -> Project:
    """The project in a folder. Raises UserError where a link in it leads out of it."""
    refuse_links_out(root, _FOLDERS)
    return Project(root)


def _is_project(folder: Path) -> bool:
    return os.path.isfile(folder / _MANIFEST)  # unlike Path.is_file, False where we may not look


def named_project(path: Path, option: str) -> Project:
    """The project that `option` names: its folder, or its `sine.yaml`.

    Raises:
        UserError: it is none, or a link in it leads out of it.
    """
    return _opened(_given_root(path, option))


def _given_root(path: Path, option: str) -> Path:
    if path.name == _MANIFEST and os.path.isfile(path):
        return path.parent
    if _is_project(path):
        return path
    if not os.path.exists(path):
        nearby = [root.name for root in _projects_below(path.parent)]
        close = difflib.get_close_matches(path.name, nearby, n=1)
        if close:
            hint = f"did you mean `{option} {files.typed(path.parent / close[0])}`?"
        elif nearby:
            verb = "is" if len(nearby) == 1 else "are"
            hint = f"there {verb} {_listed(nearby)}; `sine init PICTURE --class NOUN` makes another"
        else:
            hint = "`sine init PICTURE --class NOUN` makes one"
        raise UserError(f"{option}: no such project: {files.shown(path)}", hint)
    if os.path.isdir(path):
        raise UserError(
            f"{files.shown(path)} is not a project: it has no {_MANIFEST}",
            "`sine init PICTURE --class NOUN` makes one",
        )
    raise UserError(
        f"{files.shown(path)} is not a project", f"name a project folder or its {_MANIFEST}: `{option} girl`"
    )


def _listed(names: list[str]) -> str:
    """The first few names, for a message."""
    shown = ", ".join(files.printable(name) for name in names[:_MOST_LISTED])
    return shown + (", ..." if len(names) > _MOST_LISTED else "")


def _projects_below(folder: Path) -> list[Path]:
    try:
        children = sorted(folder.iterdir())
    except OSError:  # a folder that we may not list shows no projects
        return []
    return [child for child in children if not child.name.startswith(".") and _is_project(child)]
