"""`sine bases` and `sine export`, word for word."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from huggingface_hub import constants

from sine_cli.models.locate import folder_size
from tests.tiny import MINI, write_hub_cache, write_tiny_base

if TYPE_CHECKING:
    from tests.cli.conftest import Sine

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_presets_are_listed_with_what_is_on_this_disk(sine: "Sine", cache: Path, tmp_path: Path) -> None:
    tiny = write_tiny_base(tmp_path / "tiny")
    write_hub_cache(cache, "stable-diffusion-v1-5/stable-diffusion-v1-5", COMMIT, tiny)
    write_hub_cache(cache, "painters/tiny-diffusion", COMMIT, tiny)
    size = f"{folder_size(tiny) / 1e6:.0f} MB"
    bundled = f"bundled, {folder_size(MINI) / 1e6:.0f} MB"
    done = sine("bases")
    assert (done.code, done.err) == (0, "")
    rows = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in done.out.splitlines()]
    assert rows == [
        ["base", "native size", "on this disk", "licence"],
        ["mini", "128x128", bundled, "see sine_cli/mini/CARD.md"],
        ["sd15", "512x512", f"cached, {size}", "CreativeML Open RAIL-M"],
        ["sd21", "768x768", "no, about 2.6 GB to fetch", "CreativeML Open RAIL++-M"],
        ["sdxl", "1024x1024", "no, about 6.9 GB to fetch", "CreativeML Open RAIL++-M"],
        ["painters/tiny-diffusion", "64x64", f"cached, {size}", "see its page"],
    ]


def test_scripts_get_the_same_in_json(sine: "Sine", cache: Path) -> None:
    listed = json.loads(sine("bases", "--json").out)["bases"]
    assert [base["name"] for base in listed] == ["mini", "sd15", "sd21", "sdxl"]
    assert listed[3] == {
        "name": "sdxl",
        "title": "Stable Diffusion XL 1.0, 1024x1024, wants a large accelerator",
        "licence": "CreativeML Open RAIL++-M",
        "hub": "stabilityai/stable-diffusion-xl-base-1.0",
        "pixels": 1024,
        "state": "not here",
        "size": 6_900_000_000,
    }


def test_an_export_says_what_it_is_for_and_what_stays_behind(sine: "Sine", girl: Path) -> None:
    prompt = "a sks painting"
    assert sine("export", "--project", "girl", "--format", "kohya") == (
        0,
        "girl/exports/girl-kohya.safetensors  a LoRA for ComfyUI and A1111\n"
        f'source prompt  "{prompt}"\n'
        "left behind    the position\n",
        "",
    )
    facts = json.loads(sine("export", "--project", "girl", "--out", "mine.safetensors", "--json").out)
    assert (facts["file"], facts["format"], facts["source_prompt"]) == (
        "mine.safetensors",
        "diffusers",
        prompt,
    )
    assert Path("mine.safetensors").is_file()
