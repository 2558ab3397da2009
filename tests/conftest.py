"""Every test alone: its own home, caches and working folder, no colours, 80 columns, no hub."""

import os
import sys
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # before torch is imported: workers share the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def isolated(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of the test, empty."""
    home = tmp_path_factory.mktemp("home")
    work = tmp_path_factory.mktemp("work")
    for name, value in {
        "HOME": str(home),
        "HF_HOME": str(home / "huggingface"),
        "HF_HUB_OFFLINE": "1",
        "XDG_CACHE_HOME": str(home / "cache"),
        "MPLCONFIGDIR": str(home / "matplotlib"),
        "NO_COLOR": "1",
        "COLUMNS": "80",
        "TERM": "dumb",
        "TZ": "UTC",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("SINE_DEBUG", raising=False)
    monkeypatch.setitem(sys.modules, "lpips", None)  # not importable, whether or not the extra is installed
    monkeypatch.chdir(work)
    return work


@pytest.fixture(scope="session")
def families(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny base of each family, `sd1`, `sd2` and `sdxl`, as a diffusers folder. Not to be changed."""
    from tests.tiny import FAMILIES, write_tiny_family

    root = tmp_path_factory.mktemp("families")
    return {family: write_tiny_family(root / family, family) for family in FAMILIES}


@pytest.fixture(scope="session")
def family_files(families: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same as single files, under the original code's names. Not to be changed."""
    from tests.original import write_single_file
    from tests.tiny import FAMILIES, single_file_metadata

    root = tmp_path_factory.mktemp("files")
    return {
        family: write_single_file(
            families[family], root / f"{family}.safetensors", single_file_metadata(family)
        )
        for family in FAMILIES
    }


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever tries to connect fails."""

    def refuse(*arguments: object) -> None:
        raise AssertionError(f"asked the network: {arguments[1:]}")

    monkeypatch.setattr("socket.socket.connect", refuse)
