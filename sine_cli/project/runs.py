"""Run folders: what one `edit` or `grid` made, whole or not at all, every picture with its recipe.

A run that is being made lives in a hidden folder beside its final place:

    .2026-11-23_091011_a-sculpture-of-a-girl.partial/
        owner-1234@5f3a9c1e  the process that works on it, and its machine
        request.yaml    what was asked for, when the run can go on after an interruption
        run/            becomes 2026-11-23_091011_a-sculpture-of-a-girl/
"""

import contextlib
import errno
import itertools
import json
import os
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from sine_cli.errors import SineError, UserError
from sine_cli.project import files
from sine_cli.project.plain_yaml import read_record

if TYPE_CHECKING:
    from PIL import Image

Record = dict[str, Any]

COMPARE_AGAIN = 'make the comparison again: `sine compare "..."`'

_LONGEST_SLUG = 48
_LARGEST_RECORD = 16 * 1024 * 1024  # bytes
_RECIPE_KEY = "sine"
_RECORD = "run.yaml"
_REQUEST = "request.yaml"
_NAME = re.compile(r"\d{4}-\d{2}-\d{2}_\d{6}_[a-z0-9-]+", re.ASCII)
_HIDDEN = re.compile(rf"\.(?P<name>{_NAME.pattern})\.partial", re.ASCII)
_OWNER = "owner-"
_FREE = "owner-none"  # of a run that was let go


def slug(prompt: str) -> str:
    """A prompt as part of a folder's name: ASCII lower-case words joined by `-`, at most 48 characters.

    Cut at a word; `edit` when nothing is left.
    """
    folded = unicodedata.normalize("NFKD", prompt).encode("ascii", "ignore").decode("ascii").lower()
    words = re.findall("[a-z0-9]+", folded.replace("'", ""))
    if not words:
        return "edit"
    joined = words[0][:_LONGEST_SLUG]
    for word in words[1:]:
        if len(joined) + 1 + len(word) > _LONGEST_SLUG:
            break
        joined += f"-{word}"
    return joined


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, and what `run.yaml` says."""

    path: Path
    record: Record


@dataclass(frozen=True)
class UnfinishedRun:
    """A run that is being made. `folder` is where its files go; `final` is where they will be."""

    hidden: Path
    final: Path

    @property
    def folder(self) -> Path:
        return self.hidden / "run"

    @property
    def request(self) -> Record | None:
        """What was asked for, as given to `start_run`; None when the run cannot go on."""
        return _read_record(self.hidden / _REQUEST)

    @property
    def holder(self) -> files.Process | None:
        """Another living process that works on this run, or None."""
        owner = _owner(self.hidden)
        if owner is None or (owner.is_here and owner.pid == os.getpid()):
            return None
        return owner if owner.is_at(self.folder) else None

    def take_over(self) -> None:
        """Go on with a run that another process left; of several that try, one succeeds.

        Raises:
            UserError: a living process works on it.
        """
        owner, own = _owner(self.hidden), self._owner_file(files.Process.this())
        with files.storage_errors(self.hidden):
            if self.holder is None:
                os.utime(self.folder)  # it is worked on from now, by a process that began before
            # Whoever renames it has it. When another process is quicker, the name is gone; the check below
            # then finds that process.
            if owner is None and not (self.hidden / _FREE).exists() and _owner(self.hidden) is None:
                own.touch()
            elif self.holder is None:
                with contextlib.suppress(FileNotFoundError):
                    (self._owner_file(owner) if owner else self.hidden / _FREE).rename(own)
        holder = self.holder
        if holder is not None:
            stop = f"stop it: `kill {holder.pid}`"
            if not holder.is_here:
                stop = f"if it is no more: `rm {files.typed(self._owner_file(holder))}`"
            raise UserError(f"{files.shown(self.final)} is being made by {holder}", f"wait for it, or {stop}")
        for partial in self.folder.rglob(".*.partial"):
            files.remove(partial)

    def save_image(self, name: str, image: "Image.Image", recipe: Mapping[str, Any]) -> Path:
        """Write a picture of the run as PNG, with its whole recipe inside, whole or not at all.

        Args:
            name: the file's name below the run folder, "0001.png" or "cells/K0400_v0.70.png".
            image: RGB.
            recipe: JSON values; its `prompt` is written as the PNG's Description too.

        Returns:
            Where the picture is now, in the hidden folder.

        Raises:
            SineError: disk full, no permission, or another failure of the disk.
        """
        path = self.folder / name
        save_picture(path, image, recipe)
        with contextlib.suppress(OSError):
            os.utime(self.folder)  # what others see of us: pictures may lie in folders below
        return path

    def finish(self, record: Mapping[str, Any]) -> Path:
        """Write `run.yaml` and give the folder its final name. Returns that folder.

        Raises:
            SineError: disk full, no permission, or another failure of the disk.
        """
        files.write_text(self.folder / _RECORD, _as_yaml(record))
        with files.storage_errors(self.final):
            for folder in (path for path in self.folder.rglob("*") if path.is_dir()):
                files.flush_folder(folder)
            self.folder.rename(self.final)
            files.flush_folder(self.final.parent)
        files.remove(self.hidden)
        return self.final

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Whatever ends it early lets go of the run, so that it can go on from another machine too."""
        try:
            yield
        except BaseException:
            with contextlib.suppress(OSError):
                self._owner_file(files.Process.this()).rename(self.hidden / _FREE)
            raise

    def discard(self) -> None:
        """Remove the run and all that it made so far."""
        with contextlib.suppress(FileNotFoundError):
            (self.hidden / _REQUEST).unlink()  # first: half removed, it must not look like one to go on with
        files.remove(self.hidden)

    def _owner_file(self, process: files.Process) -> Path:
        return self.hidden / f"{_OWNER}{process.name}"


def save_picture(path: Path, image: "Image.Image", recipe: Mapping[str, Any]) -> None:
    """Write an RGB picture as PNG with its recipe inside, whole or not at all; its folder is made.

    Raises:
        SineError: disk full, no permission, or another failure of the disk.
    """
    from PIL.PngImagePlugin import PngInfo

    metadata = PngInfo()
    metadata.add_itxt(_RECIPE_KEY, json.dumps(recipe, ensure_ascii=False, allow_nan=False))
    if "prompt" in recipe:
        metadata.add_itxt("Description", str(recipe["prompt"]))
    files.make_folder(path.parent)
    with files.replacing(path) as partial:
        image.save(partial, format="PNG", pnginfo=metadata)


def load_picture(path: Path) -> "Image.Image":
    """A picture that `sine` made a while ago, RGB.

    Raises:
        SineError: it is gone or damaged by now.
    """
    from PIL import Image

    from sine_cli.project.source import DECODER_ERRORS

    try:
        with Image.open(path, formats=["PNG"]) as image:
            return image.convert("RGB")
    except FileNotFoundError as error:
        raise SineError(f"{files.shown(path)} was removed meanwhile", "run the same command again") from error
    except (Image.DecompressionBombError, *DECODER_ERRORS) as error:
        raise SineError(
            f"{files.shown(path)} is damaged", f"`rm {files.typed(path)}`, then run the same command again"
        ) from error


def start_run(
    parent: Path, prompt: str, now: datetime, request: Mapping[str, Any] | None = None
) -> UnfinishedRun:
    """Make the hidden folder of a new run. Two in the same second get two names.

    Args:
        parent: `edits/` or `grids/` of a project; made when it is not there.
        prompt: for the name.
        now: the time for the name; shown as local time.
        request: what is asked for, when the run shall be able to go on after an interruption.

    Raises:
        SineError: disk full, no permission, or another failure of the disk.
    """
    name = f"{now.astimezone():%Y-%m-%d_%H%M%S}_{slug(prompt)}"
    with files.storage_errors(parent / name):
        parent.mkdir(parents=True, exist_ok=True)
        staged = files.partial_path(parent / name)
        try:
            (staged / "run").mkdir(parents=True)
            (staged / f"{_OWNER}{files.Process.this().name}").touch()
            if request is not None:
                files.write_text(staged / _REQUEST, _as_yaml(request))
            return _take_name(staged, parent, name)
        finally:
            files.remove(staged)


def _take_name(staged: Path, parent: Path, name: str) -> UnfinishedRun:
    """Rename `staged` to the first hidden name that is free, as is its final name."""
    for number in itertools.count(1):
        final = parent / (name if number == 1 else f"{name}-{number}")
        hidden = parent / f".{final.name}.partial"
        if os.path.lexists(final):
            continue
        try:
            staged.rename(hidden)  # refused while another run, never empty, has that name
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                continue
            raise
        if not os.path.lexists(final):
            return UnfinishedRun(hidden, final)
        hidden.rename(staged)  # the run that had this name was finished between our two looks
    raise AssertionError("unreachable: there is always another number")


def read_recipe(path: Path) -> Record:
    """The recipe inside a picture that `sine` made.

    Raises:
        UserError: no such file, no PNG, or no recipe in it.
    """
    recipe = find_recipe(path)
    if recipe is None:
        raise UserError(
            f"{files.shown(path)} carries no recipe of sine's",
            "name a PNG as `sine edit` or `sine grid` wrote it, for example `edits/.../0001.png`",
        )
    return recipe


def find_recipe(path: Path) -> Record | None:
    """The recipe inside a file, or None where there is none that can be read.

    Raises:
        UserError: no such file, or it may not be read.
    """
    from PIL import Image

    from sine_cli.project.source import DECODER_ERRORS

    # Nothing of the pixels is read, and Pillow allows 1 MiB of text.
    with files.opened(path) as file:
        try:
            with Image.open(file, formats=["PNG"]) as image:
                text = image.info.get(_RECIPE_KEY)
        except (Image.DecompressionBombError, *DECODER_ERRORS):
            return None
    try:
        recipe = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):  # no JSON, or JSON made to break its reader
        return None
    return recipe if isinstance(recipe, dict) else None


def read_run(folder: Path) -> Record:
    """What `run.yaml` of a run folder says.

    Raises:
        UserError: there is none, or it is not as sine writes it.
    """
    path = folder / _RECORD
    if not path.is_file():
        raise UserError(
            f"{files.shown(folder)} is not a run folder: it has no {_RECORD}",
            "name a folder in `edits/`, or a PNG in it",
        )
    try:
        return read_record(files.read_bytes(path, limit=_LARGEST_RECORD))
    except ValueError as error:
        again = "each PNG beside it can be made again: `sine edit --from PNG`"
        raise UserError(
            f"{files.shown(path)} is damaged ({error})",
            COMPARE_AGAIN if is_comparison(folder) else again,
        ) from error


def is_comparison(folder: Path) -> bool:
    """Whether a run folder is of `sine compare`, by where it lies: its record may be damaged."""
    return folder.resolve().parent.name == "comparisons"


def list_runs(parent: Path) -> list[Run]:
    """The finished runs in `edits/` or `grids/`, oldest first; what has no sound `run.yaml` is no run."""
    runs = [
        Run(path, record)
        for path in _folders(parent)
        if not path.name.startswith(".") and (record := _read_record(path / _RECORD)) is not None
    ]
    return sorted(runs, key=lambda run: _natural(run.path.name))


def run_folders(parent: Path) -> list[Path]:
    """The folders in `edits/` or `grids/` that are runs by their name or by their record, sound or not."""
    return [
        path
        for path in _folders(parent)
        if not path.name.startswith(".") and (_NAME.fullmatch(path.name) or (path / _RECORD).exists())
    ]


def hidden_runs(parent: Path) -> list[UnfinishedRun]:
    """The runs that are being made or were left unfinished, oldest first."""
    runs = [
        UnfinishedRun(path, parent / match["name"])
        for path in _folders(parent)
        if (match := _HIDDEN.fullmatch(path.name))
    ]
    return sorted(runs, key=lambda run: _natural(run.final.name))


def unfinished_runs(parent: Path) -> list[UnfinishedRun]:
    """The runs that can go on after an interruption, oldest first; `holder` tells those still being made."""
    return [run for run in hidden_runs(parent) if run.folder.is_dir() and run.request is not None]


def sweep(parent: Path) -> list[Path]:
    """Remove what dead processes left in `edits/`, `grids/` or another folder, but for runs that can go on.

    A folder that is a link is let be. Returns what was removed.
    """
    if parent.is_symlink():
        return []
    left: list[Path] = []
    with contextlib.suppress(PermissionError):
        for path in _entries(parent):
            with contextlib.suppress(PermissionError):  # another's: not ours to clean
                if files.is_abandoned(path) or _is_dead_run(path):
                    left.append(path)
    for path in left:
        files.remove(path)
    return left


def _is_dead_run(path: Path) -> bool:
    if path.is_symlink() or not path.is_dir() or not _HIDDEN.fullmatch(path.name):
        return False
    if (path / _REQUEST).exists() and (path / "run").is_dir():
        return False
    owner = _owner(path)  # none: half removed already
    return owner is None or not owner.is_at(path / "run")


def _owner(hidden: Path) -> files.Process | None:
    """The process in the name of the owner file."""
    names = (entry.name for entry in _entries(hidden) if entry.name.startswith(_OWNER))
    return next((each for name in names if (each := files.Process.named(name.removeprefix(_OWNER)))), None)


def _entries(folder: Path) -> list[Path]:
    """What is in a folder, by name; nothing when it is not there. Raises PermissionError."""
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _folders(parent: Path) -> list[Path]:
    return [path for path in _entries(parent) if path.is_dir() and not path.is_symlink()]


def _natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts the numbers in names as numbers: `castle`, `castle-2`, `castle-10`."""
    parts = re.findall("[0-9]+|[^0-9]+", name)
    return [(int(part), "") if part[0] in "0123456789" else (-1, part) for part in parts]


class _RecordDumper(yaml.SafeDumper):
    """Writes a value that occurs twice twice, without anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_text(self, text: str) -> yaml.ScalarNode:
        # Left to itself PyYAML writes some rare line ends (U+0085) in a style that loses them.
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


_RecordDumper.add_representer(str, _RecordDumper.represent_text)


def _as_yaml(record: Mapping[str, Any]) -> str:
    return yaml.dump(dict(record), Dumper=_RecordDumper, sort_keys=False, allow_unicode=True, width=2**31)


def _read_record(path: Path) -> Record | None:
    """A record that sine wrote; None when it is not there, or not as sine writes it."""
    try:
        return read_record(files.read_bytes(path, limit=_LARGEST_RECORD))
    except (UserError, ValueError):
        return None
