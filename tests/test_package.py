"""The wheel: what it holds, and that `sine` works from it, away from the checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

import sine_cli

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of this checkout, built without a network."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    [built] = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_the_wheel_is_pure_and_of_this_version(wheel: Path) -> None:
    assert wheel.name == f"sine_cli-{sine_cli.__version__}-py3-none-any.whl"


def test_the_wheel_holds_every_module_and_nothing_of_the_tests(names: list[str]) -> None:
    modules = {
        f"sine_cli/{path.relative_to(ROOT / 'sine_cli')}" for path in (ROOT / "sine_cli").rglob("*.py")
    }
    assert modules == {name for name in names if name.endswith(".py")}
    assert {name.split("/")[0] for name in names} == {
        "sine_cli",
        f"sine_cli-{sine_cli.__version__}.dist-info",
    }


def test_the_wheel_holds_the_templates_the_weights_and_the_licence(names: list[str]) -> None:
    templates = {f"sine_cli/templates/{p.relative_to(ROOT / 'templates')}" for p in files_in("templates")}
    weights = {
        str(path.relative_to(ROOT))
        for folder in ("weights", "weights-a6cbb05c", "scorer")
        for path in files_in(f"sine_cli/mini/{folder}")
    }
    assert {"sine_cli/templates/manifest.yaml", "sine_cli/templates/demo/castle.png"} <= templates <= {*names}
    for folder in ("weights/unet/diffusion_pytorch_", "weights-a6cbb05c/unet/diffusion_pytorch_", "scorer/"):
        assert f"sine_cli/mini/{folder}model.safetensors" in weights
    assert weights <= {*names}
    assert {f"sine_cli/models/clip_tokenizer/{name}" for name in ("merges.txt", "ORIGIN.md")} <= {*names}
    assert f"sine_cli-{sine_cli.__version__}.dist-info/licenses/LICENSE" in names


def files_in(folder: str) -> list[Path]:
    return [path for path in (ROOT / folder).rglob("*") if path.is_file()]


def test_the_wheel_names_its_command_its_licence_and_its_pythons(wheel: Path) -> None:
    info = f"sine_cli-{sine_cli.__version__}.dist-info"
    with zipfile.ZipFile(wheel) as archive:
        entry_points = archive.read(f"{info}/entry_points.txt").decode("utf-8")
        metadata = archive.read(f"{info}/METADATA").decode("utf-8")
    assert entry_points == "[console_scripts]\nsine = sine_cli.cli.main:main\n"
    for line in ("Name: sine-cli", "License-Expression: Apache-2.0", "Requires-Python: <3.14,>=3.10"):
        assert f"\n{line}\n" in metadata


def test_sine_works_from_an_installed_wheel(wheel: Path, isolated: Path, tmp_path: Path) -> None:
    pytest.importorskip("pip")
    site = tmp_path / "site"
    install = ["pip", "install", "--no-deps", "--no-index", "--no-compile", "--quiet", "--target", str(site)]
    subprocess.run([sys.executable, "-m", *install, str(wheel)], check=True, capture_output=True)
    Image.new("RGB", (64, 48), "red").save("girl.png")
    program = (
        "import sine_cli; from sine_cli.cli.main import run; print(sine_cli.__file__)\n"
        "assert run(['init', 'girl.png', '--class', 'painting', '--base', 'mini']) == 0\n"
        "assert run(['show']) == 0"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == str(site / "sine_cli" / "__init__.py")
    assert lines[1] == "girl  made from girl.png, 48 high, 64 wide"
    assert done.stderr == "project: girl\n"
    assert sorted(path.name for path in Path("girl").iterdir()) == ["sine.yaml", "source.png"]
    assert (site / "bin" / "sine").is_file()
