"""Every test alone: its own home, caches and working folder, no colours, 80 columns, no hub."""

import sys
from pathlib import Path

import pytest


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
