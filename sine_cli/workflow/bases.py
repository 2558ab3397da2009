"""Which base a project uses: chosen once by `sine init`, found again by everything else.

Weights are fetched by `sine init` and `sine bases --fetch NAME`, never because a project names them:
strangers send projects.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from sine_cli.errors import UserError
from sine_cli.models import locate
from sine_cli.models.locate import Location
from sine_cli.project.files import printable, shown
from sine_cli.project.manifest import EditSettings, Manifest, TuneSettings, looks_like_hub
from sine_cli.project.plain_yaml import shortened
from sine_cli.project.presets import BasePreset, default_settings, load_preset, presets
from sine_cli.project.prompts import check_text

BUNDLED = "mini"
PREFERRED = "sd15"
HUB_REVISION = re.compile(r"(?!.*\.\.)\w[\w./-]{0,99}", re.ASCII)
"""A branch, tag or commit. The hub's client makes paths of them, which must not climb."""
FINGERPRINT = re.compile(r"sha256:[0-9a-f]{64}")
"""The revision of a base that lies in a folder or file."""


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
    """The base called `name`, or where that is None the best one that this machine can use now; fetched,
    weights and all, where it is not on this disk.

    `on_notice` is told what is fetched, and how large it is.

    Raises:
        UserError: no such preset, folder, file or repository.  SineError: the hub cannot be reached.
    """
    if name is None:
        name, reason = _best_at_hand()
    else:
        reason = ""
        check_text(name, "--base:")
        if name not in presets() and os.path.exists(name):
            # A link to a file keeps its name: the hub's cache has files as links to bare hashes.
            name = os.path.abspath(name) if os.path.isfile(name) else str(Path(name).resolve())
    location = _find(name, on_notice)
    repository = _repository(name)
    if repository:
        location = locate.with_weights(repository, location, on_notice)
    recommended = (
        load_preset(name) if name in presets() else default_settings(locate.native_pixels(location.path))
    )
    return ChosenBase(name, location.revision, recommended.tune, recommended.edit, reason)


def find_base(manifest: Manifest) -> Location:
    """The project's base on this disk, weights and all, at the very revision that the manifest fixes.

    Nothing is fetched.

    Raises:
        UserError: the base is not on this disk, or it is another one by now.
    """
    name, revision = manifest.base, manifest.base_revision
    preset = _preset(name)
    repository = preset.hub if preset else name if looks_like_hub(name) else None
    if repository:
        location = _find_cached(name, repository, revision or (preset.revision if preset else None))
    elif preset:
        location = _bundled(preset, revision)
    else:
        if os.path.isabs(name) and not os.path.exists(name):
            moved = "if it was moved, set `base:` in sine.yaml to where it lies"
            raise UserError(f"the base is gone: {shown(Path(name))}", moved)
        location = _find(name, lambda _: None)
        is_another = revision not in (None, location.revision)
        if is_another and revision == locate.fingerprint(location.path, of_edges=True):
            location = replace(location, revision=revision)
    _check_revision(manifest, location)
    return location


def base_at_hand(manifest: Manifest) -> Location | None:
    """The project's base where it is on this disk, perhaps without its weights; None where a hub's is not.

    Raises:
        UserError: a folder or file is gone, or it is another base by now.
    """
    preset = _preset(manifest.base)
    repository = preset.hub if preset else manifest.base if looks_like_hub(manifest.base) else None
    if repository is None:
        return find_base(manifest)
    _check_is_revision(manifest.base_revision)
    location = locate.cached(repository, manifest.base_revision)
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


def _check_is_revision(revision: str | None) -> None:
    """Raises UserError where the manifest's revision is a name that no commit of the hub has."""
    if revision and not HUB_REVISION.fullmatch(revision):
        raise UserError(
            f'base_revision: "{shortened(printable(revision))}" is no commit of the hub',
            "set `base_revision: null` in sine.yaml for the newest, or a commit; `sine verify` checks it",
        )


def fetch_base(name: str, on_notice: Callable[[str], None] = lambda _: None) -> KnownBase:
    """Fetch a base of the hub, where it is not on this disk yet; `on_notice` is told how large it is.

    Args:
        name: a preset or a hub id; `@` and a revision may follow.

    Raises:
        UserError: no such base.  SineError: the hub cannot be reached, or the disk refuses.
    """
    name, at, revision = name.partition("@")
    preset = _preset(name)
    repository = preset.hub if preset else name if looks_like_hub(name) else None
    if preset and not repository:
        raise UserError(f"--fetch: `{name}` comes along with sine", f"use it: `sine init ... --base {name}`")
    if repository is None:
        raise UserError(
            f'--fetch: "{printable(name)}" is no preset and no hub id',
            f"presets: {', '.join(presets())}; a hub id is owner/name",
        )
    if at and not HUB_REVISION.fullmatch(revision):
        raise UserError(
            f'--fetch: "{printable(revision)}" is no branch, tag or commit', f"`sine bases --fetch {name}`"
        )
    found = _on_hub(repository, revision or None, preset, on_notice)
    location = locate.with_weights(repository, found, on_notice)
    return KnownBase(
        name=name,
        title=preset.title if preset else "",
        licence=preset.licence if preset else "",
        hub=repository,
        pixels=locate.native_pixels(location.path),
        state="cached",
        size=locate.folder_size(location.path),
    )


def _find_cached(name: str, repository: str, revision: str | None) -> Location:
    """A base of the hub in its cache. Raises UserError where it is not, with the command that fetches it."""
    _check_is_revision(revision)
    preset = _preset(name)
    size = f" (about {preset.download:.1f} GB)" if preset and preset.download else ""
    wanted = f"{name}@{revision}" if revision else name
    refusal = UserError(
        f"the base {wanted}{size} is not on this disk, and none is fetched because a project names it",
        f"fetch it yourself: `sine bases --fetch {wanted}`",
    )
    return locate.on_disk(repository, revision, refusal)


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


def _find(name: str, on_notice: Callable[[str], None]) -> Location:
    preset = _preset(name)
    if preset and not preset.hub:
        return _bundled(preset, None)
    repository = _repository(name)
    if repository:
        return _on_hub(repository, None, preset, on_notice)
    if os.path.isfile(name):  # unlike Path's, False for a name that no file can have
        return locate.in_file(Path(name))
    if not os.path.isdir(name):
        if name.startswith(("/", ".", "~")) or name.endswith(".safetensors"):
            raise UserError(
                f"no such folder or file: {shown(Path(name))}",
                "`sine bases` shows the presets and what is on this disk; a hub id will do as well",
            )
        load_preset(name)  # raises, with the names there are
    return locate.in_folder(Path(name))


def _bundled(preset: BasePreset, revision: str | None) -> Location:
    """A bundled base as it is today, or as an earlier sine brought it along: `weights-a6cbb05c` beside
    `weights`, by the first digits of its revision.
    """
    folder = locate.in_package(str(preset.package), str(preset.folder))
    if FINGERPRINT.fullmatch(revision or ""):
        former = folder.with_name(f"{folder.name}-{str(revision).removeprefix('sha256:')[:8]}")
        folder = former if former.is_dir() else folder
    return locate.in_folder(folder)


def _on_hub(
    repository: str, revision: str | None, preset: BasePreset | None, on_notice: Callable[[str], None]
) -> Location:
    return locate.on_hub(
        repository,
        revision or (preset.revision if preset else None),
        preset.variant if preset else None,
        on_notice,
    )


def _preset(name: str) -> BasePreset | None:
    return load_preset(name) if name in presets() else None


def _repository(name: str) -> str | None:
    """The hub's id of a base; None for a folder or a file."""
    preset = _preset(name)
    if preset:
        return preset.hub
    return name if looks_like_hub(name) and not os.path.exists(name) else None
