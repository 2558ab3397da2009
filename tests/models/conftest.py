"""The tiny bases, written once; every test that changes one makes a copy."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sine_cli.models.base import Base, load_base
from tests.tiny import MINI, write_tiny_base


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers folder: epsilon, AutoencoderKL, float32 weights."""
    return write_tiny_base(tmp_path_factory.mktemp("bases") / "tiny")


@pytest.fixture(scope="session")
def tiny_v(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of v-prediction, with float32 and fp16 weights side by side."""
    return write_tiny_base(tmp_path_factory.mktemp("bases") / "tiny-v", "v_prediction", (None, "fp16"))


@pytest.fixture
def copy_of_tiny(tiny: Path, tmp_path: Path) -> Path:
    """A tiny base that may be damaged."""
    return Path(shutil.copytree(tiny, tmp_path / "base"))


@pytest.fixture
def load() -> Callable[[Path], Base]:
    return lambda folder: load_base(folder, None, torch.device("cpu"), torch.float32)


@pytest.fixture
def base(tiny: Path, load: Callable[[Path], Base]) -> Base:
    """The tiny base in float32."""
    return load(tiny)


@pytest.fixture(scope="session")
def mini() -> Base:
    """The bundled base in float32, loaded once: tests leave it as it is."""
    return load_base(MINI, None, torch.device("cpu"), torch.float32)
