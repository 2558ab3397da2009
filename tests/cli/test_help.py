"""What `sine --help` and its kin show, word for word, and that they never wait for the models."""

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sine_cli import __version__

if TYPE_CHECKING:
    from tests.cli.conftest import Sine

TEXTS = Path(__file__).parent / "help"
COMMANDS = ["init", "tune", "edit", "grid", "compare", "score", "show", "verify", "export", "bases", "demo"]
HEAVY = [
    "torch",
    "diffusers",
    "transformers",
    "peft",
    "PIL",
    "pydantic",
    "numpy",
    "huggingface_hub",
    "matplotlib",
]


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_the_help_of_sine_lists_the_commands(sine: "Sine", arguments: list[str]) -> None:
    assert sine(*arguments) == (0, (TEXTS / "sine.txt").read_text("utf-8"), "")


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_each_command_is_exact(sine: "Sine", command: str) -> None:
    assert sine(command, "--help") == (0, (TEXTS / f"{command}.txt").read_text("utf-8"), "")
    assert sine(command, "-h").out == sine(command, "--help").out


def test_every_command_has_its_help_tested(sine: "Sine") -> None:
    listed = sine("--help").out.partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in listed] == COMMANDS


def test_the_version_is_shown(sine: "Sine") -> None:
    assert sine("--version") == (0, f"sine {__version__}\n", "")


def loaded_by(*commands: list[str]) -> list[str]:
    """The heavy modules that a fresh process has loaded after these commands."""
    program = (
        "import sys; from sine_cli.cli.main import run\n"
        f"assert all(run(command) == 0 for command in {list(commands)!r})\n"
        f"print(*[name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stderr.split()


def test_help_and_version_load_nothing_heavy() -> None:
    assert loaded_by([], ["--help"], ["--version"]) == []


def test_the_help_of_a_command_loads_nothing_heavy_of_ours() -> None:
    loaded = loaded_by(*([command, "--help"] for command in COMMANDS))
    assert {*loaded} <= {"pydantic"}  # typer itself reads the options with it


def test_making_and_showing_a_project_loads_no_torch(picture: Path) -> None:
    init = ["init", str(picture), "--class", "girl", "--base", "mini"]
    loaded = loaded_by(init, ["show", "--project", "girl"])
    assert not {"torch", "diffusers", "transformers", "peft"} & {*loaded}
    assert "PIL" in loaded  # so that the question above is a fair one


def test_python_dash_m_is_sine_too() -> None:
    done = subprocess.run([sys.executable, "-m", "sine_cli", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"sine {__version__}\n", "")
