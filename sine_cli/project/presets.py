"""What is known by name: base models in `templates/bases/`, each with its origin and good values, and ways of
tuning in `templates/tuning/`.
"""

import difflib
from typing import NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from sine_cli.errors import UserError
from sine_cli.project.files import printable
from sine_cli.project.manifest import EditSettings, TuneSettings
from sine_cli.project.templates import template_path

_SMALL = 256  # pixels: below it a base is of mini's size, not of Stable Diffusion's
_LARGE = 1024  # pixels: from there on it is of SDXL's


class BasePreset(BaseModel):
    """A base model and the values recommended for it; `package` and `folder`, or `hub`, say where it is."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str
    title: str = Field(pattern=r"^[^\n]+$")
    licence: str
    native_size: int = Field(gt=0)  # pixels of a side
    package: str | None = None  # an importable package that carries the model
    folder: str | None = None  # the diffusers folder inside that package
    hub: str | None = None  # a repository id of the hub
    revision: str | None = None  # a branch, tag or commit of that repository
    variant: str | None = None  # "fp16": which of the repository's weight files
    download: float | None = Field(default=None, gt=0)  # GB of these files, about
    tune: TuneSettings
    edit: EditSettings

    @model_validator(mode="after")
    def _has_one_origin(self) -> "BasePreset":
        if (self.package is None) == (self.hub is None):
            raise ValueError("give exactly one of `package` and `hub`")
        if (self.package is None) != (self.folder is None):
            raise ValueError("`package` and `folder` go together")
        if self.hub is None and (self.revision or self.variant or self.download):
            raise ValueError("`revision`, `variant` and `download` go with `hub`")
        return self


class RecommendedSettings(NamedTuple):
    """Tuning and sampling values that suit a base."""

    tune: TuneSettings
    edit: EditSettings


def presets() -> list[str]:
    """The names of all presets, sorted."""
    return sorted(path.stem for path in template_path("bases").glob("*.yaml"))


def load_preset(name: str) -> BasePreset:
    """The preset called `name`. Raises UserError, with the names there are, when there is none."""
    names = presets()
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1)
        guess = f"did you mean `--base {close[0]}`? " if close else ""
        raise UserError(
            f'no base preset called "{printable(name)}"',
            f"{guess}presets: {', '.join(names)}; a hub id, a folder or a .safetensors file will do as well",
        )
    text = template_path("bases", f"{name}.yaml").read_text(encoding="utf-8")
    return BasePreset.model_validate(yaml.safe_load(text))


class TuningPreset(BaseModel):
    """A way of tuning: the settings that it decides, the others being the project's."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    title: str = Field(pattern=r"^[^\n]+$")
    tune: dict[str, bool | int | float | str]


def load_tuning_preset(name: str) -> TuningPreset:
    """The way of tuning called `name`. Raises UserError, with the names there are, when there is none."""
    names = sorted(path.stem for path in template_path("tuning").glob("*.yaml"))
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1)
        guess = f"did you mean `--preset {close[0]}`? " if close else ""
        raise UserError(
            f'no way of tuning called "{printable(name)}"', f"{guess}there are: {', '.join(names)}"
        )
    text = template_path("tuning", f"{name}.yaml").read_text(encoding="utf-8")
    return TuningPreset.model_validate(yaml.safe_load(text))


def default_settings(native_size: int) -> RecommendedSettings:
    """Values for a base that has no preset (a hub id, a folder, a file), by its native size in pixels."""
    preset = load_preset("mini" if native_size < _SMALL else "sd15" if native_size < _LARGE else "sdxl")
    return RecommendedSettings(preset.tune, preset.edit)
