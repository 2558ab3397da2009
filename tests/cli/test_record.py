"""`sine edit --from` and `sine verify`, as people see them."""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from tests.alike import are_alike

if TYPE_CHECKING:
    from tests.cli.conftest import Sine


def test_a_picture_that_is_not_there_is_told_wherever_one_works(sine: "Sine", girl: Path) -> None:
    shutil.copytree(girl, "another")
    assert sine("edit", "--from", "nosuch.png").err.startswith("error: no such file: nosuch.png\n")


def test_a_picture_is_made_again_from_anywhere_and_the_project_verified(sine: "Sine", girl: Path) -> None:
    made = sine("edit", "a boat", "-p", girl, "--size", "32x32", "--steps", "2", "-n", "2", "--json")
    (run,) = json.loads(made.out)["runs"]
    second = Path(run["images"][1]["file"])

    Path("other").mkdir()
    (Path("other") / "sine.yaml").write_bytes((girl / "sine.yaml").read_bytes())
    again = sine("edit", "--from", second, "--quiet")  # two projects here: the picture says which
    assert (again.code, again.err) == (0, "")
    file, _, about = again.out.partition("  ")
    assert about == "32 high, 32 wide, seed 1\n"
    assert are_alike(Path(file), second)

    both = json.loads(sine("edit", "--from", run["folder"], "--json", "--quiet").out)
    assert [image["seed"] for image in both["runs"][0]["images"]] == [0, 1]
    for one, other in zip(run["images"], both["runs"][0]["images"], strict=True):
        assert Path(one["file"]).read_bytes() == Path(other["file"]).read_bytes()

    sound = sine("verify", "-p", girl)
    assert sound == (
        0,
        "girl is sound: manifest, picture, adapter with its shapes, 3 runs with 5 pictures\n",
        "",
    )


def test_what_verify_finds_goes_to_stdout_with_the_next_command(sine: "Sine", girl: Path) -> None:
    adapter = girl / "adapter" / "adapter.safetensors"
    adapter.write_bytes(adapter.read_bytes()[:-1])
    found = sine("verify", "-p", girl)
    assert found == (
        1,
        "girl/adapter/adapter.safetensors is not the file that girl/adapter/record.yaml names\n"
        "  hint: run `sine tune` again\n",
        "error: girl has 1 problem\n\nhint: mend what is named on stdout, then `sine verify` again\n",
    )
    (girl / "sine.yaml").write_text("schema: 2\n", "utf-8")
    told = sine("verify", "-p", girl, "--json")
    facts = json.loads(told.out)
    assert told.code == 1
    assert (facts["sound"], facts["adapter"], facts["shapes"]) == (False, True, False)
    assert [problem["file"] for problem in facts["problems"]] == [
        str(girl.resolve() / "sine.yaml"),
        str(girl.resolve() / "adapter" / "record.yaml"),
    ]
    assert all(problem["hint"] for problem in facts["problems"])


def test_verify_of_an_untuned_project_notes_it(sine: "Sine", untuned: Path) -> None:
    assert sine("verify") == (
        0,
        "note: girl is not tuned; `sine tune` does it\n"
        "girl is sound: manifest, picture, 0 runs with 0 pictures\n",
        "project: girl\n",
    )


def test_a_forged_picture_is_refused_in_one_line(sine: "Sine", girl: Path) -> None:
    from sine_cli.project.runs import save_picture

    save_picture(Path("forged.png"), Image.fromarray(np.zeros((8, 8, 3), np.uint8)), {"prompt": "a boat"})
    assert sine("edit", "--from", "forged.png", "-p", girl) == (
        2,
        "",
        "error: forged.png: source_prompt: missing\n\n"
        "hint: its record is damaged; `sine edit PROMPT` makes a new one\n",
    )
    assert sine("edit", "--from", "girl/source.png").err.startswith(
        "error: girl/source.png carries no recipe of sine's\n"
    )
