"""The main job from the first command to the last: what each says on stdout and stderr, and leaves behind."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml
from PIL import Image

from sine_cli.project.presets import load_preset

if TYPE_CHECKING:
    from tests.cli.conftest import Sine

BASE_NOTE = "note: base `mini`: " + (
    "sd15 is not cached and the hub does not answer; choose another with `--base`\n"
    if torch.cuda.is_available() or torch.backends.mps.is_available()
    else "no accelerator here, and mini runs on a CPU; choose another with `--base`\n"
)
EDIT = load_preset("mini").edit
SAMPLING = (
    f"K = {EDIT.switch_step}, v = {EDIT.base_weight:g}, w = {EDIT.guidance_scale:g}, "
    f"{EDIT.steps} {EDIT.solver} steps"
)
RUN = r"\d{4}-\d\d-\d\d_\d{6}"
TOOK = r"\d+\.\d s of sampling, peak memory \d+\.\d GiB"


def pixels(path: str | Path) -> bytes:
    with Image.open(path) as image:
        return image.tobytes()


def size(path: str | Path) -> tuple[int, int]:
    """Height, width."""
    with Image.open(path) as image:
        assert image.format == "PNG" and image.mode == "RGB"
        return image.height, image.width


def test_a_picture_that_is_not_shipped_becomes_a_sculpture(
    sine: "Sine", picture: Path, small: Callable[..., None]
) -> None:
    made = sine("init", "girl.jpg", "--class", "painting")
    assert made.code == 0
    assert made.out == (
        "girl  made from girl.jpg, 96 high, 72 wide\n"
        'source prompt  "a sks painting"\n'
        "next           `cd girl`, then `sine tune`\n"
    )
    assert made.err == BASE_NOTE
    small(Path("girl/sine.yaml"), preview_every=2)

    tuned = sine("tune")
    assert tuned.code == 0
    first, *others = tuned.out.splitlines()
    assert re.fullmatch(r"girl/adapter  4 steps in \d+ s, loss \d+\.\d{4}, peak memory \d+\.\d GiB", first)
    assert others == [
        "previews  girl/tuning/previews",
        'next      `sine edit "..."`: say what the picture shall become',
    ]
    losses = r"tuning  loss \d+\.\d{4}  "
    assert re.fullmatch(
        "project: girl\nencoding patches  2/4\nencoding patches  4/4\n"
        + "".join(f"{losses}{step}/4\n" for step in (1, 2, 3, 4)),
        tuned.err,
    )
    assert sorted(path.name for path in Path("girl/adapter").iterdir()) == [
        "adapter.safetensors",
        "position.safetensors",
        "record.yaml",
    ]
    assert sorted(str(path.relative_to("girl/tuning")) for path in Path("girl/tuning").rglob("*.*")) == [
        "loss.csv",
        "loss.png",
        "previews/step-000002.png",
        "previews/step-000004.png",
    ]

    edited = sine("edit", "a sculpture of a girl", "--size", "64x48", "--steps", "3")
    assert edited.code == 0
    match = re.fullmatch(
        rf"(girl/edits/{RUN}_a-sculpture-of-a-girl/0001\.png)  64 high, 48 wide, seed 0\n", edited.out
    )
    assert match
    steps = "".join(f"sampling  {rows}/8\n" for rows in (3, 6, 8))
    assert re.fullmatch(rf"project: girl\n{steps}{TOOK}\n", edited.err)
    assert size(match[1]) == (64, 48)

    shown = sine("show")
    assert shown == (
        0,
        "project        girl\n"
        "picture        girl.jpg, 96 high, 72 wide\n"
        'source prompt  "a sks painting"\n'
        "base           mini\n"
        "tuned          yes, 4 steps\n"
        f"edit           {SAMPLING}\n"
        f'edits          {Path(match[1]).parent.name}  "a sculpture of a girl"\n'
        "grids          none\n",
        "project: girl\n",
    )


def test_a_second_tuning_with_the_same_settings_has_nothing_to_do(sine: "Sine", girl: Path) -> None:
    record = (girl / "adapter" / "record.yaml").read_bytes()
    assert sine("tune", "--project", "girl") == (
        0,
        "girl/adapter  is tuned with these settings already; remove it to tune anew\n",
        "",
    )
    assert (girl / "adapter" / "record.yaml").read_bytes() == record


def test_tuning_ends_by_itself_where_it_is_asked_to(
    sine: "Sine", untuned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sine_cli.method.tuning.LOOK_EVERY", 2)
    monkeypatch.setattr("sine_cli.method.tuning.BEGUN", 2.0)  # a few steps lead nowhere yet
    done = sine("tune", "--project", "girl", "--steps", "auto", "--json")
    assert done.code == 0
    record = yaml.safe_load((untuned / "adapter" / "record.yaml").read_text("utf-8"))
    assert (record["tune"]["stop_early"], record["tune"]["steps"]) == (True, 2000)
    taken = record["steps_taken"]
    assert json.loads(done.out)["steps"] == taken < 100
    assert re.search(rf"(?m)^tuning  loss \d+\.\d{{4}}  distance 0\.\d{{3}}  {taken}/{taken}$", done.err)
    again = sine("tune", "--project", "girl", "--steps", "auto", "--json")
    assert (json.loads(again.out)["already_there"], json.loads(again.out)["steps"]) == (True, taken)
    # A number of steps is one to be taken
    assert json.loads(sine("tune", "--project", "girl", "--steps", "3", "--json").out)["steps"] == 3


def test_tuning_without_previews_promises_none(sine: "Sine", untuned: Path) -> None:
    done = sine("tune", "--project", "girl", "--no-patches", "--steps", "1", "--seed", "5")
    assert done.code == 0
    assert "previews" not in done.out
    assert "encoding" not in done.err
    assert not (untuned / "tuning" / "previews").exists()
    tune = yaml.safe_load((untuned / "adapter" / "record.yaml").read_text("utf-8"))["tune"]
    assert (tune["patches"], tune["steps"], tune["seed"]) == (False, 1, 5)


def test_several_prompts_make_several_run_folders(sine: "Sine", girl: Path) -> None:
    done = sine(
        *("edit", "a boat", "a red tree!", "--project", girl, "-n", "2", "-s", "7"),
        *("--size", "24x40", "--steps", "2"),
    )
    assert done.code == 0
    lines = done.out.splitlines()
    assert len(lines) == 4
    expected = [("a-boat", 1, 7), ("a-boat", 2, 8), ("a-red-tree", 1, 7), ("a-red-tree", 2, 8)]
    for line, (name, number, seed) in zip(lines, expected, strict=True):
        assert re.fullmatch(
            rf"girl/edits/{RUN}_{name}/{number:04d}\.png  24 high, 40 wide, seed {seed}", line
        )
        assert size(line.partition("  ")[0]) == (24, 40)
    assert [line for line in done.err.splitlines() if line.endswith("20/20")] == ["prompt 2 of 2  20/20"]
    assert len([*(girl / "edits").iterdir()]) == 2


def test_prompts_come_from_stdin_one_a_line(sine: "Sine", girl: Path) -> None:
    text = "\ufeffa boat\r\n\r\n  ein grüner Baum  \n"
    done = sine(
        *("edit", "-", "--project", girl, "--size", "16x16", "--steps", "1", "--json"),
        stdin=text.encode("utf-8"),
    )
    assert done.code == 0
    assert [run["prompt"] for run in json.loads(done.out)["runs"]] == ["a boat", "ein grüner Baum"]


def test_stdin_and_the_command_line_mix_in_their_order(sine: "Sine", girl: Path) -> None:
    done = sine(
        *("edit", "first", "-", "last", "--project", girl, "--size", "16x16", "--steps", "1", "--json"),
        stdin=b"second\nthird\n",
    )
    assert [run["prompt"] for run in json.loads(done.out)["runs"]] == ["first", "second", "third", "last"]


def test_the_options_of_edit_reach_the_recipe(sine: "Sine", girl: Path) -> None:
    options = "-K 250 -v 0.25 -w 3.5 --steps 2 --solver ddim --negative fog --size 17x31 -s 3 --no-position"
    done = sine("edit", "a boat", "--project", girl, *options.split(), "--source-prompt", "a girl", "--json")
    [run] = json.loads(done.out)["runs"]
    record = yaml.safe_load(Path(run["folder"], "run.yaml").read_text("utf-8"))
    expected = {
        "command": "edit",
        "prompt": "a boat",
        "source_prompt": "a girl",
        "negative": "fog",
        "seed": 3,
        "size": {"height": 17, "width": 31},
        "switch_step": 250,
        "base_weight": 0.25,
        "guidance_scale": 3.5,
        "steps": 2,
        "solver": "ddim",
        "position": False,
        "count": 1,
        "base": "mini",
    }
    assert {key: record[key] for key in expected} == expected
    assert size(run["images"][0]["file"]) == (17, 31)


def test_the_manifest_gives_what_the_command_line_does_not(sine: "Sine", girl: Path) -> None:
    manifest = girl / "sine.yaml"
    text = manifest.read_text("utf-8").replace(f"  steps: {EDIT.steps}\n", "  steps: 2\n")
    manifest.write_text(text.replace(f"switch_step: {EDIT.switch_step}", "switch_step: 100"), "utf-8")
    done = sine("edit", "a boat", "--project", girl, "--json")
    [run] = json.loads(done.out)["runs"]
    record = yaml.safe_load(Path(run["folder"], "run.yaml").read_text("utf-8"))
    assert (record["steps"], record["switch_step"], record["solver"]) == (2, 100, EDIT.solver)
    # The source's aspect, 96 x 72, at about the base's native area, 128 x 128.
    assert size(run["images"][0]["file"]) == (run["height"], run["width"]) == (144, 112)


def test_an_edit_by_the_base_alone_needs_no_tuning(sine: "Sine", untuned: Path) -> None:
    for alone in (["-v", "1"], ["-K", "1000"]):
        done = sine("edit", "a boat", "--project", untuned, "--size", "16x16", "--steps", "2", *alone)
        assert done.code == 0
    first, second = sorted((untuned / "edits").glob("*/0001.png"))
    assert pixels(first) == pixels(second)


def test_a_prompt_longer_than_the_base_reads_is_warned_of(sine: "Sine", girl: Path) -> None:
    prompt = "a boat on a lake under the stars " * 20
    done = sine("edit", prompt, "--project", girl, "--size", "16x16", "--steps", "1")
    assert done.code == 0
    match = re.fullmatch(
        'warning: "(.*)\\.\\.\\." is longer than this base reads; unread: "(.*)"', done.err.splitlines()[0]
    )
    assert match
    assert prompt.startswith(match[1])
    assert match[2].endswith("…") and match[2][:-1] in prompt


@pytest.mark.parametrize("count", [5, 7])
def test_show_lists_the_newest_five_runs_and_counts_the_others(
    sine: "Sine", untuned: Path, count: int
) -> None:
    for number in range(count):
        folder = untuned / "edits" / f"2026-01-0{number + 1}_101010_boat-{number}"
        folder.mkdir(parents=True)
        (folder / "run.yaml").write_text(f"command: edit\nprompt: boat {number}\n", "utf-8")
    (untuned / "edits" / "notes").mkdir()
    lines = sine("show", "--project", untuned).out.splitlines()
    names = [
        f'2026-01-0{number + 1}_101010_boat-{number}  "boat {number}"' for number in reversed(range(count))
    ]
    older = ["               and 2 older"] if count == 7 else []
    assert lines[-len(older) - 6 :] == [
        f"edits          {names[0]}",
        *(f"               {name}" for name in names[1:5]),
        *older,
        "grids          none",
    ]
    assert "tuned          no; `sine tune` does it" in lines


# ------------------------------------------------------------------------------------------------------- grid


def test_a_grid_has_a_cell_for_each_value_and_a_sheet(sine: "Sine", girl: Path) -> None:
    done = sine(
        *("grid", "a boat", "--project", girl, "-K", "0:1000:500", "-v", "0.5,0.75"),
        *("--size", "16x24", "--steps", "2"),
    )
    assert done.code == 0
    match = re.fullmatch(
        rf"(girl/grids/{RUN}_a-boat)/grid\.png  6 cells, each 16 high, 24 wide\n"
        r"scores\.csv and tradeoff\.png beside it; alignment by mini, distance: features of mini\n",
        done.out,
    )
    assert match
    folder = Path(match[1])
    assert sorted(path.name for path in folder.iterdir()) == [
        *("cells", "grid.png", "run.yaml", "scores.csv", "tradeoff.png")
    ]
    assert sorted(path.name for path in (folder / "cells").iterdir()) == [
        f"K{K:04d}_v{v:.2f}.png" for K in (0, 500, 1000) for v in (0.5, 0.75)
    ]
    assert all(size(cell) == (16, 24) for cell in (folder / "cells").iterdir())
    *_, last, took = done.err.splitlines()
    assert last == "6 cells  15/15"
    assert re.fullmatch(TOOK, took)

    edited = sine(
        *("edit", "a boat", "--project", girl, "-K", "500", "-v", "0.75"),
        *("--size", "16x24", "--steps", "2", "--json"),
    )
    [image] = json.loads(edited.out)["runs"][0]["images"]
    assert pixels(image["file"]) == pixels(folder / "cells" / "K0500_v0.75.png")


def test_a_grid_of_one_cell_has_scores_and_no_plot(sine: "Sine", girl: Path) -> None:
    done = sine("grid", "a boat", "-p", girl, "-K", "0", "-v", "0.5", "--size", "16x24", "--steps", "1")
    assert done.out.splitlines()[1:] == [
        "scores.csv beside it; alignment by mini, distance: features of mini"
    ]


# --------------------------------------------------------------------------------------------- json and quiet


def parsed(text: str) -> dict[str, Any]:
    """The one JSON object that is all of stdout."""
    value = json.loads(text)
    assert isinstance(value, dict)
    return value


def test_every_command_tells_scripts_its_facts_and_is_quiet_when_asked(
    sine: "Sine", picture: Path, small: Callable[..., None]
) -> None:
    here = Path.cwd()
    made = sine("init", picture, "--class", "girl", "--base", "mini", "--json", "--quiet")
    facts = parsed(made.out)
    assert facts.keys() == {
        *("project", "source", "source_prompt", "base", "base_revision", "notes", "warnings")
    }
    assert (made.code, made.err, facts["project"], facts["notes"]) == (0, "", f"{here}/girl", [])
    assert facts["source"].keys() == {"height", "width", "sha256"}
    assert facts["source_prompt"] == "a photo of a sks girl"
    small(Path("girl/sine.yaml"))

    tuned = sine("tune", "--json", "-q")
    facts = parsed(tuned.out)
    assert tuned.code == 0 and tuned.err == ""
    assert facts.keys() == {
        *("project", "adapter", "already_there", "resumed_at", "steps", "loss", "seconds", "peak_memory"),
        "warnings",
    }
    assert (facts["steps"], facts["already_there"], facts["resumed_at"]) == (4, False, 0)
    assert Path(facts["project"]).resolve() == here / "girl"
    assert Path(facts["adapter"]).is_dir()

    edited = sine("edit", "a boat", "--size", "16x24", "--steps", "2", "--json", "-q")
    facts = parsed(edited.out)
    assert edited.code == 0 and edited.err == ""
    assert facts.keys() == {"project", "runs", "warnings"}
    [warning] = facts["warnings"]
    assert warning.startswith("16x24 is less than a quarter")
    [run] = facts["runs"]
    assert run.keys() == {"prompt", "folder", "images", "height", "width", "seconds", "peak_memory"}
    assert (run["prompt"], run["height"], run["width"]) == ("a boat", 16, 24)
    [image] = run["images"]
    assert image == {"file": f"{run['folder']}/0001.png", "seed": 0}
    assert size(image["file"]) == (16, 24)

    grid = sine("grid", "a boat", "-K", "0", "-v", "0.5", "--size", "16x24", "--steps", "1", "--json", "-q")
    facts = parsed(grid.out)
    assert grid.code == 0 and grid.err == ""
    assert facts.keys() == {
        *("project", "prompt", "folder", "sheet", "scores", "tradeoff", "scorer", "cells", "made"),
        *("height", "width", "seconds", "peak_memory", "warnings"),
    }
    assert facts["made"] == 1
    [cell] = facts["cells"]
    assert cell.keys() == {"file", "switch_step", "base_weight", "alignment", "distance"}
    assert (Path(cell["file"]).name, cell["switch_step"], cell["base_weight"]) == ("K0000_v0.50.png", 0, 0.5)
    assert Path(facts["sheet"]).is_file() and Path(facts["scores"]).is_file()
    assert facts["tradeoff"] is None
    assert facts["scorer"].keys() == {"name", "revision", "distance"}

    shown = sine("show", "--json", "-q")
    facts = parsed(shown.out)
    assert shown.code == 0 and shown.err == ""
    runs = {"edits", "grids", "comparisons", "unfinished"}
    assert facts.keys() == {
        "project",
        "manifest",
        "tuned",
        "tuner",
        "checkpoint",
        "steps",
        "problem",
        "warnings",
        *runs,
    }
    assert (facts["tuned"], facts["checkpoint"], facts["unfinished"]) == (True, False, [])
    assert (facts["steps"], facts["problem"]) == (4, None)
    assert facts["manifest"]["prompts"]["class"] == "girl"
    assert facts["manifest"]["schema"] == 2
    assert facts["edits"] == [run["folder"]]
    assert [Path(path).name for path in facts["grids"]] == [Path(grid_folder(grid.out)).name]


def grid_folder(out: str) -> str:
    return json.loads(out)["folder"]


def test_a_size_far_below_the_base_s_is_warned_of(sine: "Sine", girl: Path) -> None:
    assert sine("edit", "a boat", "--size", "31x128", "--steps", "1").err.splitlines()[1] == (
        "warning: 31x128 is less than a quarter of the 128x128 of `mini` on a side: "
        "little will be seen in it; make it larger, then scale it down"
    )


def test_json_keeps_notices_on_stderr(sine: "Sine", girl: Path) -> None:
    done = sine("edit", "a boat", "--size", "32x32", "--steps", "1", "--json")
    assert parsed(done.out)["runs"]
    assert re.fullmatch(rf"project: girl\nsampling  2/2\n{TOOK}\n", done.err)


def test_json_has_the_notices_of_a_tuning(sine: "Sine", girl: Path) -> None:
    done = sine("tune", "--steps", "5", "--json", "--quiet")
    (kept,) = parsed(done.out)["warnings"]
    assert kept.startswith("the adapter that was there")
    assert done.err == ""


def test_json_has_why_a_base_was_chosen(sine: "Sine", picture: Path) -> None:
    facts = parsed(sine("init", picture, "--class", "girl", "--json", "--quiet").out)
    assert [f"note: {note}\n" for note in facts["notes"]] == [BASE_NOTE]


def test_a_prompt_of_two_lines_is_one_row(sine: "Sine", girl: Path) -> None:
    assert sine("edit", "a boat\ntuned  no", "--size", "32x32", "--steps", "1").code == 0
    (row,) = [line for line in sine("show").out.splitlines() if line.startswith("edits")]
    assert row.endswith('"a boat\\ntuned  no"')


def test_a_merged_base_is_a_base(sine: "Sine", girl: Path, picture: Path) -> None:
    folder = sine("export", "--merge", "-q").out.split()[0]
    assert json.loads(Path(folder, "model_index.json").read_text("utf-8"))["tokenizer"] == [
        *("transformers", "PreTrainedTokenizerFast")
    ]
    assert sine("init", picture, "--class", "girl", "--base", folder, "--dir", "again", "-q").code == 0
    made = sine("edit", "a boat", "-p", "again", "-v", "1", "-K", "1000", "--size", "32x32", "--steps", "1")
    assert made.code == 0, made.err


def test_quiet_keeps_the_result_and_the_errors(sine: "Sine", girl: Path) -> None:
    done = sine("edit", "a boat", "--size", "16x16", "--steps", "1", "--quiet")
    assert done.err == ""
    assert done.out.endswith("0001.png  16 high, 16 wide, seed 0\n")
    assert sine("edit", " ", "--quiet").err.startswith("error: the prompt is empty\n\nhint: ")


# ------------------------------------------------------------------------------------------------------- init


def test_what_was_changed_on_the_way_is_noted(sine: "Sine") -> None:
    Image.new("RGBA", (20, 30), (255, 0, 0, 128)).save("Glass Ball.png")
    done = sine("init", "Glass Ball.png", "--class", "ball", "--base", "mini")
    assert done == (
        0,
        "Glass Ball  made from Glass Ball.png, 30 high, 20 wide\n"
        'source prompt  "a photo of a sks ball"\n'
        "next           `cd 'Glass Ball'`, then `sine tune`\n",
        "note: transparency flattened on white\n",
    )


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--class", "castle"], "a photo of a sks castle"),
        (["--class", "oil painting"], "a sks oil painting"),
        (["--class", "castle", "--kind", "drawing"], "a drawing of a sks castle"),
        (["--class", "painting", "--kind", "style"], "a painting in the sks style"),
        (["--class", "castle", "--token", "ohwx"], "a photo of an ohwx castle"),
        (["--class", "castle", "--prompt", " my own castle "], "my own castle"),
    ],
)
def test_the_words_of_init_make_the_source_prompt(
    sine: "Sine", picture: Path, words: list[str], sentence: str
) -> None:
    done = sine("init", picture, *words, "--base", "mini", "--dir", "new", "--json")
    assert parsed(done.out)["source_prompt"] == sentence
    assert parsed(sine("show", "--json").out)["manifest"]["prompts"]["source"] == sentence


def test_a_folder_of_diffusers_is_a_base_too(sine: "Sine", picture: Path) -> None:
    import sine_cli.mini

    folder = Path(str(sine_cli.mini.__file__)).parent / "weights"
    Path("bases").mkdir()
    Path("bases/own").symlink_to(folder)
    facts = parsed(sine("init", picture, "--class", "girl", "--base", "bases/own", "--json").out)
    bundled = parsed(sine("init", picture, "--class", "girl", "--base", "mini", "-d", "b", "--json").out)
    assert facts["base"] == str(folder.resolve())
    assert facts["base_revision"] == bundled["base_revision"]


def test_init_keeps_the_words_without_the_spaces_around_them(sine: "Sine", picture: Path) -> None:
    sine("init", picture, "--class", " castle ", "--token", " sks ", "--prompt", "a photo of a [*] castle")
    prompts = yaml.safe_load(Path("girl/sine.yaml").read_text("utf-8"))["prompts"]
    assert prompts == {
        **prompts,
        "class": "castle",
        "token": "sks",
        "source": "a photo of a sks castle",
    }
