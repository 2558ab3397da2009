"""`sine compare` and guides as a person types them: what is shown and told to scripts."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from sine_cli.cli.compare import METHODS
from sine_cli.project.runs import read_recipe
from sine_cli.workflow import asked, methods
from sine_cli.workflow.methods import SEEDLESS

if TYPE_CHECKING:
    from tests.cli.conftest import Sine


def test_the_default_is_every_method_there_is() -> None:
    assert METHODS.split(",") == list(methods.METHODS) == list(asked.COMPARED)


def test_a_method_that_makes_one_picture_is_told(sine: "Sine", girl: Path) -> None:
    assert {"prompt-to-prompt"} == SEEDLESS
    command = ["compare", "a boat", "--size", "32x24", "--steps", "1", "--methods", "sdedit,prompt-to-prompt"]
    assert re.match(
        r"girl/comparisons/\S+_a-boat/compare\.png  3 pictures, each 32 high, 24 wide; "
        r"prompt-to-prompt draws no noise and makes one\n",
        sine(*command, "-n", "2").out,
    )
    one_each = sine(*command).out.splitlines()[0]
    assert one_each.endswith("  2 pictures, each 32 high, 24 wide")


def test_a_comparison_is_shown_and_told_to_scripts(sine: "Sine", girl: Path) -> None:
    command = ["compare", "a boat", "--methods", "sine,sdedit", "--size", "32x24", "--steps", "1"]
    shown = sine(*command, "--quiet")
    assert shown.code == 0
    assert re.fullmatch(
        r"girl/comparisons/\S+_a-boat/compare\.png  2 pictures, each 32 high, 24 wide\n"
        r"scores\.csv beside it; alignment by mini, distance: features of mini\n"
        r"alignment  distance  method\n"
        r" +-?\d\.\d{3} +\d\.\d{3}  sine\n"
        r" +-?\d\.\d{3} +\d\.\d{3}  sdedit\n",
        shown.out,
    )
    facts = json.loads(sine(*command, "--json").out)
    assert {*facts["means"]} == {"sine", "sdedit"}
    assert [(image["method"], image["seed"]) for image in facts["images"]] == [("sine", 0), ("sdedit", 0)]
    for image in facts["images"]:
        mean = facts["means"][image["method"]]
        assert (image["alignment"], image["distance"]) == (mean["alignment"], mean["distance"])
        assert read_recipe(Path(image["file"]))["prompt"] == "a boat"
    assert all(Path(facts[name]).is_file() for name in ("sheet", "scores"))
    newest = Path(facts["folder"])
    there = json.loads(sine("show", "--json").out)
    assert [Path(folder).name for folder in there["comparisons"]][-1] == newest.name
    assert f'comparisons    {newest.name}  "a boat"\n' in sine("show").out


def test_an_edit_and_a_grid_with_a_guide(sine: "Sine", girl: Path) -> None:
    small = ["--size", "32x24", "--steps", "1", "--json"]
    done = sine("edit", "a boat", "--guide", "girl:0.1:600:a [*] boat", "--crop", "0,0,1,0.5", *small)
    recipe = read_recipe(Path(json.loads(done.out)["runs"][0]["images"][0]["file"]))
    assert recipe["guides"] == [
        {"project": ".", "source_prompt": "a sks boat", "weight": 0.1, "switch_step": 600}
    ]
    assert recipe["crop"] == [0.0, 0.0, 1.0, 0.5]
    done = sine("grid", "a boat", "--guide", "girl:0,0.1", "-K", "400", *small)
    cells = json.loads(done.out)["cells"]
    assert [(cell["base_weight"], cell["guide_weight"]) for cell in cells] == [(0.7, 0.0), (0.7, 0.1)]
