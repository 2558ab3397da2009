"""A project on a tiny base with random weights (v-prediction, AutoencoderKL), untuned and tuned, made once.

All on the CPU, whose results are the same bit for bit.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sine_cli.project.folder import Project
from sine_cli.project.manifest import EditSettings, Manifest, TuneSettings, load_manifest, write_manifest
from sine_cli.workflow.init import InitRequest, init
from sine_cli.workflow.tune import tune
from tests.tiny import write_tiny_base, write_tiny_clip

TUNE = TuneSettings(
    steps=6,
    batch=2,
    learning_rate=0.02,
    position_learning_rate=0.05,
    rank=4,
    targets="attention",
    patches=True,
    min_patch=0.3,
    whole=0.5,
    pool=4,
    min_timestep=0,
    preview_every=0,
    checkpoint_every=4,
    seed=0,
)
EDIT = EditSettings(switch_step=400, base_weight=0.5, guidance_scale=3.0, steps=4, solver="ddim")


@dataclass(frozen=True)
class Girl:
    """A project in the working folder, `girl` mostly."""

    project: Project

    @property
    def manifest(self) -> Manifest:
        return load_manifest(self.project.manifest_path)

    def read(self, name: str) -> bytes:
        return (self.project.root / name).read_bytes()


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.fixture(scope="session")
def session_on_the_cpu() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        yield


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_base(tmp_path_factory.mktemp("bases") / "tiny-v", "v_prediction")


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_clip(tmp_path_factory.mktemp("scorers") / "tiny-clip")


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """girl.png, 60 high, 80 wide."""
    y, x = np.mgrid[0:60, 0:80]
    pixels = np.stack([3 * x, 4 * y, 128 + 100 * np.sin(x / 5) * np.cos(y / 7)], axis=-1)
    path = tmp_path_factory.mktemp("pictures") / "girl.png"
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


@pytest.fixture(scope="session")
def untuned_once(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, picture: Path) -> Path:
    folder = tmp_path_factory.mktemp("projects") / "girl"
    made = init(InitRequest(picture, "painting", base=str(tiny_base), folder=folder))
    settings = made.manifest.model_copy(update={"tune": TUNE, "edit": EDIT})
    write_manifest(made.project.manifest_path, settings)
    return folder


@pytest.fixture(scope="session")
def tuned_once(
    tmp_path_factory: pytest.TempPathFactory, untuned_once: Path, session_on_the_cpu: None
) -> Path:
    folder = Path(shutil.copytree(untuned_once, tmp_path_factory.mktemp("projects") / "girl"))
    tune(Project(folder), load_manifest(folder / "sine.yaml"), TUNE)
    return folder


@pytest.fixture(scope="session")
def style_once(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, session_on_the_cpu: None) -> Path:
    """Another tuned project of the same base: a style, learned from stripes with other tuning settings."""
    y, x = np.mgrid[0:64, 0:64]
    stripes = np.stack([255 * ((x + y) // 8 % 2), 2 * x, 255 - 3 * y], axis=-1).clip(0, 255)
    picture = tmp_path_factory.mktemp("pictures") / "stripes.png"
    Image.fromarray(stripes.astype(np.uint8)).save(picture)
    folder = tmp_path_factory.mktemp("projects") / "stripes"
    made = init(InitRequest(picture, "painting", kind="style", base=str(tiny_base), folder=folder))
    settings = TUNE.model_copy(update={"rank": 2, "targets": "attention+resnet", "seed": 1})
    manifest = made.manifest.model_copy(update={"tune": settings, "edit": EDIT})
    write_manifest(made.project.manifest_path, manifest)
    tune(made.project, manifest, settings)
    return folder


@pytest.fixture
def style(style_once: Path, isolated: Path) -> Girl:
    """The project `stripes` in the working folder."""
    shutil.copytree(style_once, isolated / "stripes")
    return Girl(Project(Path("stripes")))


@pytest.fixture
def untuned(untuned_once: Path, isolated: Path) -> Girl:
    shutil.copytree(untuned_once, isolated / "girl")
    return Girl(Project(Path("girl")))


@pytest.fixture
def tuned(tuned_once: Path, isolated: Path) -> Girl:
    shutil.copytree(tuned_once, isolated / "girl")
    return Girl(Project(Path("girl")))
