"""Mistakes and failures: `error:` says what and where, `hint:` what to type, and nothing is left behind."""

import hashlib
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from sine_cli.cli.grid import columns_of
from sine_cli.errors import UserError
from sine_cli.project.manifest import load_manifest

if TYPE_CHECKING:
    from tests.cli.conftest import Listing, Sine

Look = Callable[[], "Listing"]
RANGES = "`--help` shows each option with its range"
SIZES = "give HEIGHTxWIDTH in pixels, for example `--size 640x512` (640 high, 512 wide)"
COLUMNS = "give a list such as `-K 200,400`, or start:stop:step"
ROWS = "give a list such as `-v 0.5,0.7`, or start:stop:step"
PRESETS = "presets: mini, sd15, sd21, sdxl; a hub id, a folder or a .safetensors file will do as well"
BASES = "`sine bases` shows the presets and what is on this disk; "
CROP = "give h1,w1,h2,w2, top left and bottom right corner, for example `--crop 0,0.5,0.5,1`"
GUIDES = "give PROJECT:WEIGHT, for example `--guide ../starry-night:0.3`, or PROJECT:WEIGHT:K:PROMPT"
MEMORY = "for example `--memory low`"
STEPS = "for example `--steps 800`"
METHODS = "methods: sine, dreambooth, textual-inversion, sdedit, ilvr, prompt-to-prompt"
RESUMED = "--resume goes on with what was asked for then; it takes no {}"
SCORERS = "give `mini`, a hub id or a CLIP model's folder as `--scorer`"
LORAS = "give a file and, if you like, a strength: `--lora ink.safetensors:0.8`"
SPEAK = 'say what the picture shall become: `sine edit "a sculpture of a girl"`'
AGAIN = "run `sine tune` again"
MEND = "then `sine show` checks it again"


def told(message: str, hint: str) -> str:
    return f"error: {message}\n\nhint: {hint}\n"


BESIDE_FROM = "cannot stand beside --from, which makes a picture as its record says"
APART = "leave one of them out"

# ---------------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("command", "message", "hint"),
    [
        ("frobnicate", "No such command 'frobnicate'.", "`sine --help` shows what it takes"),
        ("--frobnicate", "No such option: --frobnicate", "`sine --help` shows what it takes"),
        ("show --frobnicate", "No such option: --frobnicate", "`sine show --help` shows what it takes"),
        ("edit", "a prompt is missing", SPEAK),
        (
            "edit a castle in snow",
            "4 prompts of one word each",
            "put a prompt in quotes: `sine edit 'a castle in snow'`; "
            "`sine edit -` reads prompts of one word, one a line",
        ),
        ("edit x --from girl -K 3", f"a prompt {BESIDE_FROM}", APART),
        ("edit --from girl -K 3", f"-K {BESIDE_FROM}", APART),
        ("edit --from girl -n 1", f"-n {BESIDE_FROM}", APART),
        ("edit --from girl --seed 0", f"--seed {BESIDE_FROM}", APART),
        ("edit --from girl --no-position", f"--no-position {BESIDE_FROM}", APART),
        ("edit --from girl --guide x:0.3", f"--guide {BESIDE_FROM}", APART),
        ("edit --from girl --best 1", f"--best {BESIDE_FROM}", APART),
        ("init girl.jpg", "Missing option '--class' / '-c'.", "`sine init --help` shows what it takes"),
        (
            "edit x -K 1.5",
            "-K: must be a whole number",
            "`sine edit --help` shows what it takes",
        ),
        ("tune --steps", "Option '--steps' requires an argument.", "`sine tune --help` shows what it takes"),
        ("edit x -v high", "-v: must be a number", "`sine edit --help` shows what it takes"),
        (
            "grid a castle",
            "Got unexpected extra argument(s) (castle)",
            'put a prompt in quotes: `sine grid "a castle at night"`; `sine grid --help` shows what it takes',
        ),
        (
            "init my photo.jpg -c dog",
            "Got unexpected extra argument(s) (photo.jpg)",
            'put a name or noun of several words in quotes: `-c "red house"`; '
            "`sine init --help` shows what it takes",
        ),
        (
            "show a castle",
            "Got unexpected extra argument(s) (a castle)",
            "`sine show --help` shows what it takes",
        ),
        (
            "export -p girl --out no/such/lora.safetensors",
            "no such folder: no/such",
            "make it first: `mkdir -p no/such`",
        ),
        *[
            (
                f"{command} - -p girl",
                '"-" is no prompt here',
                "`sine edit -` reads prompts from stdin, one a line",
            )
            for command in ("grid", "compare")
        ],
        (
            "edit x -p girl --source-prompt=",
            "--source-prompt is empty",
            "leave it out for the one in sine.yaml",
        ),
        ("edit x -p girl --negative \a", '--negative: "\\x07" has control characters', "type it anew"),
        ("edit x -p girl -K -1", "-K: must be at least 0, got -1", RANGES),
        ("edit x -p girl --lora ink:strong", '--lora: "strong" is not a strength', LORAS),
        ("edit x -p girl --lora ink:11", "--lora: the strength must be from -10 to 10, got 11", LORAS),
        ("edit x -p girl --lora ink:nan", "--lora: the strength must be from -10 to 10, got nan", LORAS),
        ("edit x -p girl --lora ink:0.5", "--lora: no such file: ink", LORAS),
        (
            "export -p girl --format lycoris",
            '--format: must be diffusers or kohya, got "lycoris"',
            "type `sine export --format kohya`",
        ),
        (
            "export -p girl --merge --format kohya",
            "--merge writes a whole base; it takes no --format",
            "type `sine export --merge`",
        ),
        ("edit x -p girl -K 1001", "-K: must be at most 1000, got 1001", RANGES),
        ("edit x -p girl -v nan", "-v: must be a finite number, got nan", RANGES),
        ("edit x -p girl -v -0.1", "-v: must be at least 0, got -0.1", RANGES),
        ("edit x -p girl -v 1.01", "-v: must be at most 1, got 1.01", RANGES),
        ("edit x -p girl -v 70", "-v: must be at most 1, got 70", RANGES),
        ("edit x -p girl -w 0", "-w: must be at least 1, got 0", RANGES),
        ("edit x -p girl -w inf", "-w: must be a finite number, got inf", RANGES),
        ("edit x -p girl --steps 0", "--steps: must be at least 1, got 0", RANGES),
        ("edit x -p girl --steps 1001", "--steps: must be at most 1000, got 1001", RANGES),
        ("edit x -p girl --solver heun", "--solver: must be ddim, euler, dpm++ or unipc, got heun", RANGES),
        ("edit x -p girl -n 0", "-n: must be from 1 to 1000, got 0", "for example `-n 4`"),
        ("edit x -p girl -n 1001", "-n: must be from 1 to 1000, got 1001", "for example `-n 4`"),
        (
            "edit x -p girl --seed -1",
            "--seed: must be from 0 to 4611686018427387904, got -1",
            "for example `--seed 1`",
        ),
        (
            "edit x -p girl -n 2 --seed 4611686018427387905",
            "--seed: must be from 0 to 4611686018427387904, got 4611686018427387905",
            "for example `--seed 1`",
        ),
        (
            "edit x -p girl --size 0x64",
            "--size: each side must be from 1 to 8192 pixels, got 0 high, 64 wide",
            SIZES,
        ),
        (
            "edit x -p girl --size 64x8193",
            "--size: each side must be from 1 to 8192 pixels, got 64 high, 8193 wide",
            SIZES,
        ),
        ("edit x -p girl --size large", '--size: "large" is not a size', SIZES),
        ("edit x -p girl --size 64", '--size: "64" is not a size', SIZES),
        ("edit x -p girl --size -1x64", '--size: "-1x64" is not a size', SIZES),
        ("edit x -p girl --size 6.5x64", '--size: "6.5x64" is not a size', SIZES),
        ("edit x -p girl --size ²x64", '--size: "²x64" is not a size', SIZES),
        (f"edit x -p girl --size {'9' * 5000}x64", f'--size: "{"9" * 5000}x64" is not a size', SIZES),
        ("edit x -p girl --crop 0,1", '--crop: "0,1" is not four numbers', CROP),
        ("edit x -p girl --crop a,b,c,d", '--crop: "a,b,c,d" is not four numbers', CROP),
        (
            "edit x -p girl --crop 0.5,0,0.5,1",
            '--crop: "0.5,0,0.5,1" is empty: h1 must be less than h2, w1 less than w2',
            CROP,
        ),
        (
            "edit x -p girl --crop nan,0,1,1",
            '--crop: "nan,0,1,1" is empty: h1 must be less than h2, w1 less than w2',
            CROP,
        ),
        ("edit x -p girl --crop 0,0,2.5,1", "--crop: each must be from -1 to 2, got 0,0,2.5,1", CROP),
        (
            "edit x -p girl --crop 0,0,1,0.5 --no-position",
            "--crop says where things lie, and --no-position keeps that from the tuned models",
            "leave one of them out",
        ),
        ("edit x -p girl --guide girl", '--guide: "girl" is not PROJECT:WEIGHT', GUIDES),
        ("edit x -p girl --guide girl:2", "--guide: a weight must be from 0 to 1, got 2", GUIDES),
        ("edit x -p girl --guide gril:0.2", "--guide: no such project: gril", "did you mean `--guide girl`?"),
        (
            "edit x -p girl --guide girl:0.2,0.3",
            "--guide: an edit takes one weight a guide, got 2",
            "`sine grid` takes several, as its rows",
        ),
        (
            "edit x -p girl --guide girl:0.5 --guide girl:0.25 -v 0.5",
            "--guide: the weights sum to 1.25: 0.75 of the guides and 0.5 (1 - v) of the picture's own; "
            "at most 1 is there to share",
            "lower the guides' weights, or raise -v to 0.75 at least",
        ),
        (
            "grid x -p girl --guide girl:0.1,0.2 -v 0.5,0.7",
            "a grid has one kind of rows: several -v, or several weights of one guide",
            "give the others one value each, for example `-v 0.7 --guide ../starry-night:0,0.2,0.4`",
        ),
        ("grid --resume --guide girl:0.1", RESUMED.format("--guide"), "type `sine grid --resume`"),
        ("compare", "Missing argument 'PROMPT'.", "`sine compare --help` shows what it takes"),
        ("compare x -p girl --methods sine,magic", '--methods: no method called "magic"', METHODS),
        ("compare x -p girl --methods sine,,sdedit", '--methods: no method called ""', METHODS),
        ("compare x -p girl -n 101", "-n: must be from 1 to 100, got 101", "for example `-n 4`"),
        (
            "compare x -p girl --strength 2",
            "--strength: must be from 0 to 1, got 2",
            "for example `--strength 0.5`",
        ),
        ("compare x -p girl --factor 0", "--factor: must be at least 1, got 0", "for example `--factor 4`"),
        ("compare x -p girl -K 1001", "-K: must be at most 1000, got 1001", RANGES),
        ("tune -p girl --steps 0", "--steps: must be at least 1, got 0", RANGES),
        ("tune -p girl --steps 1.5", '--steps: must be a whole number or auto, got "1.5"', STEPS),
        ("tune -p girl --steps automatic", '--steps: must be a whole number or auto, got "automatic"', STEPS),
        ("tune -p girl --prior -1", "--prior: must be at least 0, got -1", RANGES),
        (
            "tune -p girl --preset paper",
            'no way of tuning called "paper"',
            "did you mean `--preset paper-plain`? there are: paper-patches, paper-plain",
        ),
        ("tune -p girl --memory tiny", '--memory: must be normal or low, got "tiny"', MEMORY),
        ("edit x -p girl --memory tiny", '--memory: must be normal or low, got "tiny"', MEMORY),
        ("grid x -p girl --memory tiny", '--memory: must be normal or low, got "tiny"', MEMORY),
        ("compare x -p girl --memory tiny", '--memory: must be normal or low, got "tiny"', MEMORY),
        ("tune -p girl --seed -1", "--seed: must be at least 0, got -1", RANGES),
        ("grid", "a prompt is missing", 'for example `sine grid "a sculpture of a girl"`'),
        (
            "grid x --resume",
            "--resume goes on with what was asked for then; it takes no prompt",
            "type `sine grid --resume`",
        ),
        ("grid --resume --steps 5", RESUMED.format("--steps"), "type `sine grid --resume`"),
        ("grid --resume -p girl -K 5 -q", RESUMED.format("-K"), "type `sine grid --resume`"),
        ("grid --resume -v 0.5", RESUMED.format("-v"), "type `sine grid --resume`"),
        ("grid --resume -s 0", RESUMED.format("--seed"), "type `sine grid --resume`"),
        ("grid --resume --no-position", RESUMED.format("--no-position"), "type `sine grid --resume`"),
        ("grid --resume --scorer mini --json", RESUMED.format("--scorer"), "type `sine grid --resume`"),
        ("grid x -p girl --scorer clip", 'no scorer called "clip"', SCORERS),
        ("grid x -p girl --scorer ./clip", "no such folder: clip", SCORERS),
        ("edit x -p girl --best 1 --scorer clip", 'no scorer called "clip"', SCORERS),
        (
            "edit x -p girl --scorer mini",
            "--scorer says what finds the best pictures, and without --best none are looked for",
            "for example `-n 8 --best 1 --scorer mini`",
        ),
        (
            "edit x -p girl -n 4 --best 5",
            "--best: must be from 1 to 4, the pictures a prompt (-n), got 5",
            "for example `-n 8 --best 1`",
        ),
        (
            "edit x -p girl --best 0",
            "--best: must be from 1 to 1, the pictures a prompt (-n), got 0",
            "for example `-n 8 --best 1`",
        ),
        (
            "grid --resume -p girl",
            "no interrupted grid in girl/grids",
            'start one: `sine grid "a sculpture of a girl"`',
        ),
        ("grid x -p girl -K abc", '-K: "abc" is not a list of numbers', COLUMNS),
        ("grid x -p girl -K 1,,2", '-K: "1,,2" is not a list of numbers', COLUMNS),
        ("grid x -p girl -K 0:10", '-K: "0:10" is not a list of numbers', COLUMNS),
        ("grid x -p girl -K 0:10:0", '-K: "0:10:0" goes nowhere', COLUMNS),
        ("grid x -p girl -K 10:0:1", '-K: "10:0:1" goes nowhere', COLUMNS),
        ("grid x -p girl -K 0:nan:1", '-K: "0:nan:1" goes nowhere', COLUMNS),
        ("grid x -p girl -v 0:1:1e-9", '-v: "0:1:1e-9" has more than 400 values', "give a larger step"),
        ("grid x -p girl -K nan", "-K: each must be from 0 to 1000, got nan", COLUMNS),
        ("grid x -p girl -K 0,1001", "-K: each must be from 0 to 1000, got 1001", COLUMNS),
        ("grid x -p girl -K 0.5", "-K: each must be a whole number, got 0.5", "for example `-K 200,400`"),
        ("grid x -p girl -v 2", "-v: each must be from 0 to 1, got 2", ROWS),
        (
            "grid x -p girl -K 0:1000:10 -v 0:1:0.2",
            "a grid of 101 K by 6 v has more than 400 cells",
            "give fewer values",
        ),
    ],
)
def test_a_wrong_option_is_told_and_nothing_is_written(
    sine: "Sine", girl: Path, listing: Look, command: str, message: str, hint: str
) -> None:
    before = listing()
    assert sine(*command.split()) == (2, "", told(message, hint))
    assert listing() == before


def test_a_prompt_in_a_command_s_place_is_told(sine: "Sine") -> None:
    message = told(
        "No such command 'a photo of a cat'.",
        "did you mean `sine edit 'a photo of a cat'`? `sine --help` shows what it takes",
    )
    assert sine("a photo of a cat") == (2, "", message)


@pytest.mark.parametrize("command", ["edit", "grid"])
@pytest.mark.parametrize("prompt", ["", "  \n "])
def test_an_empty_prompt_is_refused(
    sine: "Sine", girl: Path, listing: Look, command: str, prompt: str
) -> None:
    before = listing()
    assert sine(command, prompt, "-p", girl) == (2, "", told("the prompt is empty", SPEAK))
    assert listing() == before


def test_one_empty_prompt_among_others_is_refused_before_any_work(
    sine: "Sine", girl: Path, listing: Look
) -> None:
    before = listing()
    assert sine("edit", "a boat", "", "-p", girl) == (2, "", told("the prompt is empty", SPEAK))
    assert listing() == before


@pytest.mark.parametrize(
    ("K", "columns"),
    [
        (0, [0, 1000]),
        (160, [0, 80, 160, 240, 320, 1000]),
        (400, [0, 200, 400, 600, 800, 1000]),
        (600, [0, 300, 600, 900, 1000]),
        (1000, [0, 500, 1000]),
    ],
)
def test_the_columns_of_a_grid_lie_around_the_manifest_s_K(girl: Path, K: int, columns: list[int]) -> None:
    manifest = load_manifest(girl / "sine.yaml")
    edit = manifest.edit.model_copy(update={"switch_step": K})
    assert columns_of(None, manifest.model_copy(update={"edit": edit})) == columns


NO_STDIN = "stdin has no prompt"
LINES = "for example `sine edit - < prompts.txt`, one a line"


@pytest.mark.parametrize("stdin", [b"", b"\n  \n"])
def test_a_stdin_without_prompts_is_refused(sine: "Sine", girl: Path, stdin: bytes) -> None:
    assert sine("edit", "-", "-p", girl, stdin=stdin) == (2, "", told(NO_STDIN, LINES))


def test_a_stdin_that_is_no_text_is_refused(sine: "Sine", girl: Path) -> None:
    message = told("stdin is not UTF-8 text", "save the prompts as UTF-8, one a line")
    assert sine("edit", "-", "-p", girl, stdin=b"caf\xe9\n") == (2, "", message)


@pytest.mark.parametrize(
    "arguments", [["edit", "caf\udce9"], ["grid", "caf\udce9"], ["edit", "x", "--source-prompt", "caf\udce9"]]
)
def test_a_prompt_that_is_no_text_is_refused(
    sine: "Sine", girl: Path, listing: Look, arguments: list[str]
) -> None:
    before = listing()
    expected = told('the prompt "caf\\udce9" is not UTF-8 text', "type it anew")
    assert sine(*arguments, "-p", girl) == (2, "", expected)
    assert listing() == before


# ------------------------------------------------------------------------------------------------------- init


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("gril.jpg", "no such file: gril.jpg", "did you mean `girl.jpg`?"),
        (
            "away/girl.jpg",
            "no such file: away/girl.jpg",
            "there is no folder away either; `ls` shows what there is",
        ),
        ("folder", "folder is a folder", "name a file"),
        (
            "notes.txt",
            "notes.txt is not a picture that can be read",
            "name a picture, for example a JPEG, PNG, WebP or TIFF file",
        ),
        ("empty.png", "empty.png is empty (0 bytes)", "copy or download the picture again"),
        ("half.jpg", "half.jpg is truncated or damaged", "copy or download the picture again"),
        (
            "dot.png",
            "dot.png is 1x1 pixels (height x width), too small",
            "take a picture of at least 16x16 pixels",
        ),
    ],
)
def test_what_is_no_picture_makes_no_project(
    sine: "Sine", picture: Path, listing: Look, name: str, message: str, hint: str
) -> None:
    Path("folder").mkdir()
    Path("notes.txt").write_text("not a picture\n" * 100, "utf-8")
    Path("empty.png").touch()
    Path("half.jpg").write_bytes(picture.read_bytes()[:900])
    Image.new("RGB", (1, 1)).save("dot.png")
    before = listing()
    assert sine("init", name, "--class", "girl", "--base", "mini") == (2, "", told(message, hint))
    assert listing() == before


def test_a_decompression_bomb_makes_no_project(
    sine: "Sine", picture: Path, listing: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # refused from twice that: the picture has 6,912
    before = listing()
    assert sine("init", picture, "--class", "girl", "--base", "mini") == (
        2,
        "",
        told(
            "girl.jpg has 6,912 pixels, more than the limit of 2,000",
            "make it smaller in a picture editor, then try again",
        ),
    )
    assert listing() == before


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["--class", ""], "--class is empty", "type, for example, `--class castle`"),
        (["--class", "a\nb"], "--class has control characters", "type, for example, `--class castle`"),
        (
            ["--class", "girl", "--token", "two words"],
            '--token must be one word, got "two words"',
            "type a rare word: `--token sks`",
        ),
        (
            ["--class", "girl", "--kind", "paintin"],
            'no kind of picture called "paintin"',
            "did you mean `painting`? "
            "kinds: photo, painting, drawing, sculpture, render, icon, picture, style",
        ),
        (
            ["--class", "girl", "--prompt", " "],
            "--prompt is empty",
            'type, for example, `--prompt "a photo of a sks castle"`',
        ),
        (
            ["--class", "girl", "--prompt", "x" * 10_001],
            "--prompt has 10001 characters, at most 10000 are allowed",
            'type, for example, `--prompt "a photo of a sks castle"`',
        ),
        (["--class", "girl", "--base", "castle"], 'no base preset called "castle"', PRESETS),
        (
            ["--class", "girl", "--base", "mnii"],
            'no base preset called "mnii"',
            f"did you mean `--base mini`? {PRESETS}",
        ),
        (
            ["--class", "girl", "--base", "./weights"],
            "no such folder or file: weights",
            f"{BASES}a hub id will do as well",
        ),
        (
            ["--class", "girl", "--base", "a--b/c"],
            "a--b/c is not a hub id (owner/name)",
            f"{BASES}a folder or a .safetensors file will do as well: `--base path/to/it`",
        ),
        (
            ["--class", "girl", "--base", "mini", "--dir", "a/b"],
            "no such folder: a",
            "make it first: `mkdir -p a`",
        ),
        (
            ["--class", "girl", "--base", "mini", "--dir", "."],
            "the working folder itself cannot become a project",
            "type `--dir NAME` for a new folder",
        ),
    ],
)
def test_unfit_words_for_init_make_no_project(
    sine: "Sine", picture: Path, listing: Look, arguments: list[str], message: str, hint: str
) -> None:
    before = listing()
    assert sine("init", picture, *arguments) == (2, "", told(message, hint))
    assert listing() == before


def test_a_folder_that_exists_is_left_alone(
    sine: "Sine", picture: Path, untuned: Path, listing: Look
) -> None:
    before = listing()
    assert sine("init", picture, "--class", "girl", "--base", "mini") == (
        2,
        "",
        told("girl already exists", "choose another folder with `--dir NAME`, or remove that one first"),
    )
    assert listing() == before


def test_a_hub_that_cannot_be_reached_is_a_failure_not_a_mistake(
    sine: "Sine", picture: Path, listing: Look
) -> None:
    before = listing()
    for base, repository in [
        ("someone/something", "someone/something"),
        ("sd15", "stable-diffusion-v1-5/stable-diffusion-v1-5"),
    ]:
        assert sine("init", picture, "--class", "girl", "--base", base) == (
            1,
            "",
            told(
                f"{repository} is not on this disk and the hub cannot be reached",
                "connect to the network and try again, or use the bundled base: `--base mini`",
            ),
        )
    assert listing() == before


# --------------------------------------------------------------------------------------- manifest and adapter


def edit_manifest(project: Path, before: str, after: str) -> int:
    """Change a line of sine.yaml; its number."""
    path = project / "sine.yaml"
    lines = path.read_text("utf-8").splitlines()
    number = next(i for i, line in enumerate(lines, start=1) if line.startswith(before))
    lines[number - 1] = after
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return number


@pytest.mark.parametrize(
    ("before", "after", "what"),
    [
        ("  steps: 4", "  steps: -5", "tune.steps: must be at least 1, got -5"),
        ("  steps: 4", "  step: 4", "tune.step: unknown key; did you mean `steps`? (and 1 more)"),
        ("  switch_step:", "  switch_step: 2000", "edit.switch_step: must be at most 1000, got 2000"),
        ("  solver:", "  solver: heun", 'edit.solver: must be ddim, euler, dpm++ or unipc, got "heun"'),
        ("  patches:", "  patches: maybe", 'tune.patches: must be true or false, got "maybe"'),
        ("base: mini", "base: ''", 'base: must not be empty, got ""'),
    ],
)
@pytest.mark.parametrize("command", [["show"], ["tune"], ["edit", "a boat"], ["grid", "a boat"]])
def test_a_mistake_in_the_manifest_is_told_with_its_line(
    sine: "Sine", girl: Path, listing: Look, command: list[str], before: str, after: str, what: str
) -> None:
    number = edit_manifest(girl, before, after)
    there = listing()
    hint = f"mend line {number} of girl/sine.yaml, {MEND}"
    assert sine(*command, "-p", girl) == (2, "", told(f"girl/sine.yaml:{number}: {what}", hint))
    assert listing() == there


@pytest.mark.parametrize("command", ["edit boat", "grid boat", "compare boat", "export", "export --merge"])
def test_an_untuned_project_says_so(sine: "Sine", untuned: Path, listing: Look, command: str) -> None:
    before = listing()
    assert sine(*command.split(), "-p", untuned) == (
        2,
        "",
        told("girl is not tuned yet", "run `sine tune` first"),
    )
    assert listing() == before


@pytest.mark.parametrize("command", ["edit", "grid"])
def test_an_adapter_of_another_base_is_refused(sine: "Sine", girl: Path, listing: Look, command: str) -> None:
    edit_manifest(girl, "base: mini", "base: sd15")
    before = listing()
    assert sine(command, "a boat", "-p", girl) == (
        2,
        "",
        told(
            "girl/adapter was tuned on `mini`, this project uses `sd15`",
            "run `sine tune` again, or set `base: mini` in girl/sine.yaml",
        ),
    )
    assert listing() == before


def test_a_picture_that_is_gone_is_told(sine: "Sine", girl: Path) -> None:
    (girl / "source.png").rename(girl / "sauce.png")
    for command in (["edit", "a boat"], ["grid", "a boat"], ["tune"]):
        assert sine(*command, "-p", girl) == (
            2,
            "",
            told("no such file: girl/source.png", "did you mean `girl/sauce.png`?"),
        )


def test_another_picture_than_the_tuned_one_is_refused(sine: "Sine", girl: Path) -> None:
    Image.new("RGB", (72, 96)).save(girl / "source.png")
    message = told(
        "girl/source.png is not the picture whose hash girl/sine.yaml has",
        "bring the picture back, or make a new project: `sine init PICTURE --class NOUN`",
    )
    assert sine("edit", "a boat", "-p", girl) == (2, "", message)


def put_nan(path: Path) -> None:
    """Spoil the first number of a safetensors file."""
    tensors = load_file(path)
    name = sorted(tensors)[0]
    tensors[name].view(-1)[0] = torch.nan
    save_file(tensors, path)


def mend_record(adapter: Path) -> None:
    """Make the record name the files that lie there, so that only what is in them can be wrong."""
    path = adapter / "record.yaml"
    record = yaml.safe_load(path.read_text("utf-8"))
    for name in record["files"]:
        record["files"][name] = hashlib.sha256((adapter / name).read_bytes()).hexdigest()
    path.write_text(yaml.safe_dump(record, sort_keys=False), "utf-8")


@pytest.mark.parametrize("name", ["adapter.safetensors", "position.safetensors"])
def test_weights_that_are_not_numbers_make_no_picture(
    sine: "Sine", girl: Path, listing: Look, name: str
) -> None:
    put_nan(girl / "adapter" / name)
    before = listing()
    changed = told(f"girl/adapter/{name} is not the file that girl/adapter/record.yaml names", AGAIN)
    assert sine("edit", "a boat", "-p", girl) == (2, "", changed)
    assert listing() == before

    mend_record(girl / "adapter")
    before = listing()
    spoiled = told(f"girl/adapter/{name} holds values that are not numbers (NaN or infinite)", AGAIN)
    for command in ("edit", "grid"):
        assert sine(command, "a boat", "-p", girl) == (2, "", spoiled)
    assert listing() == before


def test_a_damaged_adapter_file_is_told(sine: "Sine", girl: Path) -> None:
    (girl / "adapter" / "position.safetensors").write_bytes(b"damaged")
    mend_record(girl / "adapter")
    done = sine("edit", "a boat", "-p", girl)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: girl/adapter/position.safetensors is damaged: ")
    assert done.err.endswith(f"\n\nhint: {AGAIN}\n")

    (girl / "adapter" / "position.safetensors").unlink()
    missing = told("girl/adapter/position.safetensors is missing", AGAIN)
    assert sine("edit", "a boat", "-p", girl) == (2, "", missing)


def test_a_damaged_record_is_told(sine: "Sine", girl: Path) -> None:
    (girl / "adapter" / "record.yaml").write_text("base: mini\n", "utf-8")
    done = sine("edit", "a boat", "-p", girl)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: girl/adapter/record.yaml is damaged")
    assert done.err.endswith(f"\n\nhint: {AGAIN}\n")


# --------------------------------------------------------------------------------------------- a failing disk


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """The system refuses to make any file of this process larger, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))  # Python ignores the signal that comes with it
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def without_times(text: str) -> str:
    """The text with the time in a run's name taken out."""
    return re.sub(r"\d{4}-\d\d-\d\d_\d{6}", "TIME", text)


def test_a_disk_that_refuses_an_edit_leaves_no_run(sine: "Sine", girl: Path, listing: Look) -> None:
    before = listing()
    with largest_file(4096):
        done = sine("edit", "a boat", "-p", girl, "--size", "64x64", "--steps", "1", "-q")
    hidden = "girl/edits/.TIME_a-boat.partial/run"
    assert (done.code, done.out, without_times(done.err)) == (
        1,
        "",
        told(
            f"cannot write {hidden}/0001.png: File too large",
            f"look at `ls -ld {hidden}`, then run the same command again",
        ),
    )
    assert listing().keys() - before.keys() == {"girl/edits"}
    assert [*(girl / "edits").iterdir()] == []


def test_a_disk_that_refuses_init_leaves_no_folder(sine: "Sine", picture: Path, listing: Look) -> None:
    before = listing()
    with largest_file(1000):
        done = sine("init", picture, "--class", "girl", "--base", "mini")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("error: cannot write .girl.")
    assert "File too large\n\nhint: look at `ls -ld " in done.err
    assert listing() == before


def test_a_disk_that_refuses_the_adapter_leaves_the_project_untuned(sine: "Sine", untuned: Path) -> None:
    with largest_file(1_000_000):
        done = sine("tune", "-p", untuned, "-q")
    assert done == (
        1,
        "",
        told(
            "cannot write girl/adapter/adapter.safetensors: File too large",
            "look at `ls -ld girl/adapter`, then run the same command again",
        ),
    )
    assert [*(untuned / "adapter").iterdir()] == []
    assert "tuned          no; `sine tune` does it\n" in sine("show", "-p", untuned).out
    assert sine("tune", "-p", untuned, "-q").code == 0


@pytest.mark.parametrize("name", ["adapter", "tuning"])
def test_a_file_where_a_folder_belongs_is_told(sine: "Sine", untuned: Path, name: str) -> None:
    (untuned / name).write_text("mine", "utf-8")
    done = sine("tune", "-p", untuned, "-q")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(f"error: cannot write girl/{name}")
    assert (untuned / name).read_text("utf-8") == "mine"


def test_a_process_whose_disk_is_full_says_so_without_a_traceback(untuned: Path) -> None:
    program = (
        "import resource, sys; from sine_cli.cli.main import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "main(['init', 'girl/source.png', '--class', 'girl', '--base', 'mini', '--dir', 'new'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: cannot write ") and "Traceback" not in done.stderr
    assert [path.name for path in Path.cwd().iterdir()] == ["girl"]


# ------------------------------------------------------------------------------------------------- tracebacks


def test_debugging_shows_the_traceback(sine: "Sine", monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SINE_DEBUG", "1")
    with pytest.raises(UserError, match=r"^no such file: girl\.jpg$"):
        sine("init", "girl.jpg", "--class", "girl")


def test_debugging_shows_the_traceback_to_a_person_too(monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-m", "sine_cli", "init", "girl.jpg", "--class", "girl"]
    plain = subprocess.run(command, capture_output=True, text=True)
    assert (plain.returncode, plain.stdout) == (2, "")
    assert plain.stderr.startswith("error: no such file: girl.jpg\n\nhint: ")
    monkeypatch.setenv("SINE_DEBUG", "1")
    debugged = subprocess.run(command, capture_output=True, text=True)
    assert debugged.returncode == 1
    assert "Traceback (most recent call last)" in debugged.stderr
    assert "sine_cli.errors.UserError: no such file: girl.jpg" in debugged.stderr


@pytest.mark.parametrize(
    "where", ["sine_cli.workflow.open.load_base", "sine_cli.models.autoencoder.Autoencoder.decode"]
)
def test_memory_that_ran_out_anywhere_is_told_without_a_traceback(
    sine: "Sine", girl: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def full(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    monkeypatch.setattr(where, full)
    done = sine("edit", "a boat", "-p", girl, "--size", "16x16", "--steps", "1")
    assert done.code == 1
    hint = "try `--memory low`, a smaller `--size`, or a smaller base"
    assert done.err.endswith(told("memory ran out", hint))


def test_another_failure_of_a_library_is_not_taken_for_it(
    sine: "Sine", girl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("sine_cli.workflow.open.load_base", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        sine("edit", "a boat", "-p", girl)


def test_a_folder_that_is_there_is_told_before_a_base_is_fetched(
    sine: "Sine", picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(*_: object) -> None:
        raise AssertionError("asked for a base")

    monkeypatch.setattr("sine_cli.workflow.init.choose_base", fetch)
    Path("girl").mkdir()
    Path("girl", "a file").touch()
    done = sine("init", picture, "--class", "girl", "--base", "sdxl", "--dir", "girl")
    assert done.err == told(
        "girl already exists", "choose another folder with `--dir NAME`, or remove that one first"
    )
