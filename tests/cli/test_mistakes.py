"""Plain mistakes are told at once: before torch, whose import takes seconds."""

import subprocess
import sys
from pathlib import Path

import pytest

WITHOUT_TORCH = """
import sys
from sine_cli.cli.main import run

code = run(sys.argv[1:])
heavy = sorted({"torch", "diffusers", "transformers", "peft"} & sys.modules.keys())
print(*heavy, sep="\\n")
sys.exit(code)
"""
UNTUNED = "girl is not tuned yet"


def told(*arguments: str) -> str:
    """What a command in a fresh process says of a mistake; it has loaded nothing heavy by then."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert (done.returncode, done.stdout.strip()) == (2, ""), done.stderr
    return done.stderr


@pytest.fixture
def girl(picture: Path) -> Path:
    from sine_cli.workflow.init import InitRequest, init

    return init(InitRequest(picture, "girl", base="mini")).project.root


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["edit", ""], "the prompt is empty"),
        (["edit", "a boat"], UNTUNED),
        (["edit", "a boat", "-n", "0"], "-n: must be from 1 to 1000, got 0"),
        (["edit", "a boat", "-n", "2", "--best", "3"], "--best: must be from 1 to 2"),
        (["edit", "a boat", "--guide", "nowhere:0.3"], "--guide: no such project: nowhere"),
        (["edit", "a boat", "--size", "12"], "--size"),
        (["edit", "a boat", "--lora", "nowhere.safetensors"], "--lora: no such file: nowhere.safetensors"),
        (["grid", ""], "the prompt is empty"),
        (["grid", "a boat"], UNTUNED),
        (["grid", "a boat", "-K", "0:1000:2"], "has more than 400 values"),
        (["grid", "a boat", "-v", "2"], "-v: each must be from 0 to 1, got 2"),
        (["compare", ""], "the prompt is empty"),
        (["compare", "a boat"], UNTUNED),
        (["compare", "a boat", "--methods", "magic"], '--methods: no method called "magic"'),
        (["export"], UNTUNED),
        (["export", "--format", "zip"], '--format: must be diffusers or kohya, got "zip"'),
        (["export", "--merge", "--format", "kohya"], "--merge writes a whole base; it takes no --format"),
        (["export", "--out", "girl"], "girl already exists"),
        (["tune", "--steps", "0"], "--steps: must be at least 1, got 0"),
        (["edit", "--from", "nowhere.png"], "no such file: nowhere.png"),
    ],
)
def test_a_mistake_is_told_before_torch_is_loaded(girl: Path, arguments: list[str], message: str) -> None:
    assert message in told(*arguments)


def test_a_guide_that_is_not_tuned_is_told_before_torch_is_loaded(girl: Path, picture: Path) -> None:
    from sine_cli.workflow.init import InitRequest, init

    init(InitRequest(picture, "girl", base="mini", folder=Path("style")))
    free = ["-v", "1"]  # the picture's own tuned model has no weight
    said = told("edit", "a boat", *free, "--guide", "style:0.3", "--project", str(girl))
    assert "style is not tuned yet" in said
    assert "sine tune --project style" in said
