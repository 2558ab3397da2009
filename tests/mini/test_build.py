"""The recipe in miniature: from icons to a base and a scorer that the tool itself loads."""

from pathlib import Path
from shutil import copytree

import pytest
import torch
from PIL import Image

from sine_cli.mini.build import ON_A_CPU, ON_A_GPU, Plan, build, plan_of
from sine_cli.mini.training import Length
from sine_cli.models.base import load_base
from sine_cli.models.locate import in_folder, native_pixels
from sine_cli.scoring.clip import Clip

PLAN = Plan(
    pictures=300,
    shard=100,
    autoencoder=Length(2, batch=12),
    text=Length(2, batch=64),
    recognition=Length(2, batch=32),
    scorer=Length(2, batch=32),
    unet=Length(2, batch=32),
)


@pytest.fixture(scope="module")
def built(gathered: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[str]]:
    work, out = tmp_path_factory.mktemp("build") / "work", tmp_path_factory.mktemp("out")
    copytree(gathered, work)
    said: list[str] = []
    build(work, out, PLAN, said.append)
    return work, out, said


def test_the_base_loads_like_any_other(built: tuple[Path, Path, list[str]]) -> None:
    _, out, _ = built
    location = in_folder(out / "weights")
    assert native_pixels(location.path) == 128
    base = load_base(location.path, location.variant, torch.device("cpu"), torch.float32)
    z = base.autoencoder.encode([Image.new("RGB", (128, 96))])
    assert z.shape == (1, 32, 6, 8)
    assert base.text.encode(["a dog"])[0].embedding.shape == (24, 192)
    assert sum(file.stat().st_size for file in (out / "weights").rglob("*")) < 64e6


def test_the_scorer_loads_like_any_other(built: tuple[Path, Path, list[str]]) -> None:
    _, out, _ = built
    clip = Clip(out / "scorer", torch.device("cpu"))
    assert clip.similarity([Image.new("RGB", (64, 48))], ["a dog", "a castle"]).shape == (1, 2)
    assert sum(file.stat().st_size for file in (out / "scorer").rglob("*")) < 24e6


def test_a_build_goes_on_by_the_plan_it_was_begun_with(
    built: tuple[Path, Path, list[str]], tmp_path: Path
) -> None:
    work, _, _ = built
    assert plan_of(work) == PLAN
    assert plan_of(tmp_path) in (ON_A_CPU, ON_A_GPU)


def test_what_stands_is_not_made_again(built: tuple[Path, Path, list[str]]) -> None:
    work, out, _ = built
    before = {file: file.stat().st_mtime_ns for file in work.rglob("*") if file.is_file()}
    weights = (out / "weights" / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()
    build(work, out, PLAN, lambda _: None)
    assert {file: file.stat().st_mtime_ns for file in work.rglob("*") if file.is_file()} == before
    assert (out / "weights" / "unet" / "diffusion_pytorch_model.safetensors").read_bytes() == weights
