"""Which base a project uses: chosen once by `sine init`, found again by everything else."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sine_cli.errors import UserError
from sine_cli.models import locate
from sine_cli.models.locate import Location
from sine_cli.project.files import shown
from sine_cli.project.manifest import EditSettings, Manifest, TuneSettings
from sine_cli.project.presets import BasePreset, default_settings, load_preset, presets

BUNDLED = "mini"
PREFERRED = "sd15"
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


@dataclass(frozen=True)
class ChosenBase:
    """A base for a new project.

    Attributes:
        name: as the manifest keeps it: a preset, a hub id, or the absolute path of a folder or file.
        reason: why it was chosen, for people; empty when the user named it.
    """

    name: str
    revision: str
    tune: TuneSettings
    edit: EditSettings
    reason: str = ""


@dataclass(frozen=True)
class KnownBase:
    """A preset, or another base in the hub's cache.

    Attributes:
        name: what `--base` takes.  title, licence: of a preset; empty for another.
        pixels: of a side, the native size.
        state: whether it is on this disk.  size: bytes that it has there, or about to be fetched.
    """

    name: str
    title: str
    licence: str
    hub: str | None
    pixels: int
    state: Literal["bundled", "cached", "cached in part", "not here"]
    size: int


def known_bases() -> list[KnownBase]:
    """The presets, then what else is in the hub's cache. Asks no network and loads no model."""
    cached = {base.repository: base for base in locate.cached_bases()}
    known: list[KnownBase] = []
    for name in presets():
        preset = load_preset(name)
        there = cached.pop(preset.hub, None) if preset.hub else None
        if preset.package and preset.folder:
            state, size = "bundled", locate.folder_size(locate.in_package(preset.package, preset.folder))
        elif there:
            state, size = "cached" if there.whole else "cached in part", there.size
        else:
            state, size = "not here", int((preset.download or 0) * 1e9)
        known.append(
            KnownBase(name, preset.title, preset.licence, preset.hub, preset.native_size, state, size)
        )
    others = [
        KnownBase(name, "", "", name, there.pixels, "cached" if there.whole else "cached in part", there.size)
        for name, there in cached.items()
    ]
    return sorted(known, key=lambda base: base.pixels) + others


def choose_base(name: str | None, on_notice: Callable[[str], None] = lambda _: None) -> ChosenBase:
    """The base called `name`, or where that is None the best one that this machine can use now.

    `on_notice` is told what is fetched, and how large it is.

    Raises:
        UserError: no such preset, folder, file or repository.  SineError: the hub cannot be reached.
    """
    if name is None:
        name, reason = _best_at_hand()
    else:
        reason = ""
        if name not in presets() and Path(name).exists():
            # A link to a file keeps its name: the hub's cache has files as links to bare hashes.
            name = os.path.abspath(name) if Path(name).is_file() else str(Path(name).resolve())
    location = _find(name, None, on_notice)
    recommended = (
        load_preset(name) if name in presets() else default_settings(locate.native_pixels(location.path))
    )
    return ChosenBase(name, location.revision, recommended.tune, recommended.edit, reason)


def find_base(manifest: Manifest, on_notice: Callable[[str], None] = lambda _: None) -> Location:
    """The project's base, weights and all, on this disk; at the very revision that the manifest fixes.

    `on_notice` is told what is fetched, and how large it is.

    Raises:
        UserError: the base is gone, or it is another one by now.  SineError: the hub cannot be reached.
    """
    location = _find(manifest.base, manifest.base_revision, on_notice)
    _check_revision(manifest, location)
    repository = _repository(manifest.base)
    return locate.with_weights(repository, location, on_notice) if repository else location


def base_at_hand(manifest: Manifest) -> Location | None:
    """The project's base where it is on this disk, perhaps without its weights; None where a hub's is not.

    Asks no network.

    Raises:
        UserError: a folder or file is gone, or it is another base by now.
    """
    repository = _repository(manifest.base)
    known = manifest.base_revision
    location = locate.cached(repository, known) if repository else _find(manifest.base, None, lambda _: None)
    if location:
        _check_revision(manifest, location)
    return location


def _check_revision(manifest: Manifest, location: Location) -> None:
    if manifest.base_revision not in (None, location.revision):
        raise UserError(
            f"the base `{manifest.base}` is not the one this project was made with: "
            f"{manifest.base_revision} then, {location.revision} now",
            f"set `base_revision: {location.revision}` in sine.yaml, then run `sine tune` again",
        )


def _best_at_hand() -> tuple[str, str]:
    from sine_cli.models.device import best_device

    device = best_device().type
    other = "choose another with `--base`"
    if device == "cpu":
        return BUNDLED, f"no accelerator here, and {BUNDLED} runs on a CPU; {other}"
    preset = load_preset(PREFERRED)
    if preset.hub and locate.is_at_hand(preset.hub, preset.revision):
        return PREFERRED, f"there is an accelerator ({device}), and {PREFERRED} is at hand; {other}"
    return BUNDLED, f"{PREFERRED} is not cached and the hub does not answer; {other}"


def _find(name: str, revision: str | None, on_notice: Callable[[str], None]) -> Location:
    preset = _preset(name)
    if preset and preset.package and preset.folder:
        return locate.in_folder(locate.in_package(preset.package, preset.folder))
    repository = _repository(name)
    if repository:
        given = preset or None
        return locate.on_hub(
            repository,
            revision or (given.revision if given else None),
            given.variant if given else None,
            on_notice,
        )
    if Path(name).is_file():
        return locate.in_file(Path(name))
    if not Path(name).is_dir():
        if name.startswith(("/", ".", "~")) or name.endswith(".safetensors"):
            raise UserError(
                f"no such folder or file: {shown(Path(name))}",
                "`sine bases` shows the presets and what is on this disk; a hub id will do as well",
            )
        load_preset(name)  # raises, with the names there are
    return locate.in_folder(Path(name))


def _preset(name: str) -> BasePreset | None:
    return load_preset(name) if name in presets() else None


def _repository(name: str) -> str | None:
    """The hub's id of a base; None for a folder or a file."""
    preset = _preset(name)
    if preset:
        return preset.hub
    is_id = HUB_ID.fullmatch(name) and not name.endswith(".safetensors") and not Path(name).exists()
    return name if is_id else None
