"""Which base a project uses: chosen once by `sine init`, found again by everything else."""

import re
from dataclasses import dataclass
from pathlib import Path

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
        name: as the manifest keeps it: a preset, a hub id, or the absolute path of a folder.
        reason: why it was chosen, for people; empty when the user named it.
    """

    name: str
    revision: str
    tune: TuneSettings
    edit: EditSettings
    reason: str = ""


def choose_base(name: str | None) -> ChosenBase:
    """The base called `name`, or where that is None the best one that this machine can use now.

    Raises:
        UserError: no such preset, folder or repository.  SineError: the hub cannot be reached.
    """
    if name is None:
        name, reason = _best_at_hand()
    else:
        reason = ""
        if name not in presets() and Path(name).is_dir():
            name = str(Path(name).resolve())
    location = _find(name, None)
    recommended = (
        load_preset(name) if name in presets() else default_settings(locate.native_pixels(location.folder))
    )
    return ChosenBase(name, location.revision, recommended.tune, recommended.edit, reason)


def find_base(manifest: Manifest) -> Location:
    """The project's base, weights and all, on this disk; at the very revision that the manifest fixes.

    Raises:
        UserError: the base is gone, or it is another one by now.  SineError: the hub cannot be reached.
    """
    location = _find(manifest.base, manifest.base_revision)
    if manifest.base_revision not in (None, location.revision):
        raise UserError(
            f"the base `{manifest.base}` is not the one this project was made with: "
            f"{manifest.base_revision} then, {location.revision} now",
            f"set `base_revision: {location.revision}` in sine.yaml, then run `sine tune` again",
        )
    repository = _repository(manifest.base)
    return locate.with_weights(repository, location) if repository else location


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


def _find(name: str, revision: str | None) -> Location:
    preset = _preset(name)
    if preset and preset.package and preset.folder:
        return locate.in_folder(locate.in_package(preset.package, preset.folder))
    repository = _repository(name)
    if repository:
        given = preset or None
        return locate.on_hub(
            repository, revision or (given.revision if given else None), given.variant if given else None
        )
    if not Path(name).is_dir():
        if name.startswith(("/", ".", "~")):
            raise UserError(
                f"no such folder: {shown(Path(name))}",
                "give a preset, a hub id or a diffusers folder as `--base`",
            )
        load_preset(name)  # raises, with the names there are
    return locate.in_folder(Path(name))


def _preset(name: str) -> BasePreset | None:
    return load_preset(name) if name in presets() else None


def _repository(name: str) -> str | None:
    """The hub's id of a base; None for a folder."""
    preset = _preset(name)
    if preset:
        return preset.hub
    return name if HUB_ID.fullmatch(name) and not Path(name).is_dir() else None
