"""A project that the first release made opens, is sound, makes its pictures again, and tunes on; for ever."""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import yaml
from PIL import Image

from sine_cli.project.manifest import load_manifest
from sine_cli.workflow.record import versions
from tests.alike import are_alike

if TYPE_CHECKING:
    from tests.cli.conftest import Sine

FIXTURE = Path(__file__).parents[1] / "fixtures" / "project-v1"
EDIT = Path("boat/edits/2026-11-25_024508_a-stone-sculpture-of-a-boat")
CELL = Path("boat/grids/2026-11-25_024516_a-pencil-sketch-of-a-boat/cells/K0200_v0.65.png")
MIGRATED = (
    "boat/sine.yaml was of an older form (schema 1) and now has schema 2; as it was: boat/sine.yaml.v1\n"
)


@pytest.fixture
def boat(isolated: Path) -> Path:
    shutil.copytree(FIXTURE, isolated / "boat")
    return Path("boat")


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(float)


def test_it_is_shown_and_sound_and_reading_changes_nothing(sine: "Sine", boat: Path) -> None:
    before = {path: path.read_bytes() for path in boat.rglob("*") if path.is_file()}
    shown = json.loads(sine("show", "--json").out)
    assert shown["manifest"]["schema"] == 1
    assert (shown["tuned"], len(shown["edits"]), len(shown["grids"])) == (True, 1, 1)
    assert sine("verify", "-p", boat) == (
        0,
        "note: boat/sine.yaml does not have the hash of source.png; "
        "the next `sine tune` or `sine edit` writes it\n"
        "boat is sound: manifest, picture, adapter with its shapes, 2 runs with 5 pictures\n",
        "",
    )
    assert {path: path.read_bytes() for path in boat.rglob("*") if path.is_file()} == before


def test_its_pictures_are_made_again_and_what_differs_is_told(sine: "Sine", boat: Path) -> None:
    manifest = (boat / "sine.yaml").read_bytes()
    first = sine("edit", "--from", EDIT, "--json", "--quiet")
    (run,) = json.loads(first.out)["runs"]
    again = sine("edit", "--from", run["images"][1]["file"], "--json")
    assert "warning" not in again.err, "migrated once, and nothing differs from a moment ago"
    (picture,) = json.loads(again.out)["runs"][0]["images"]
    assert are_alike(Path(picture["file"]), Path(run["images"][1]["file"]))

    record = yaml.safe_load((EDIT / "run.yaml").read_text("utf-8"))
    now = yaml.safe_load(Path(run["folder"], "run.yaml").read_text("utf-8"))
    assert {**now["adapter"]} == record["adapter"]
    for place, name in enumerate(("0001.png", "0002.png")):
        made = pixels(Path(run["images"][place]["file"]))
        # Other machines compute a little otherwise: float32 instead of bfloat16 moves these by 2.4 levels,
        # another seed by 32.
        assert np.abs(made - pixels(EDIT / name)).mean() < 8
    assert np.abs(pixels(EDIT / "0001.png") - pixels(EDIT / "0002.png")).mean() > 24

    assert (boat / "sine.yaml.v1").read_bytes() == manifest
    kept = (boat / "sine.yaml").read_text("utf-8")
    assert "# A remark of the owner." in kept
    assert load_manifest(boat / "sine.yaml").schema_version == 2
    assert sine("verify", "-p", boat).code == 0

    told = sine("edit", "--from", CELL).err
    same = {"versions": versions(), "device": now["device"], "dtype": now["dtype"]}
    differs = any(record[name] != value for name, value in same.items())
    assert (f"warning: not quite as {CELL} was made: " in told) == differs


def test_it_tunes_on_and_says_that_its_manifest_was_migrated(sine: "Sine", boat: Path) -> None:
    there = sine("tune", "-p", boat, "--steps", "3")
    assert there.code == 0
    assert there.err.startswith(MIGRATED)
    assert yaml.safe_load((boat / "adapter" / "record.yaml").read_text("utf-8"))["tune"]["steps"] == 3
    made = sine("edit", "a boat at night", "-p", boat, "--size", "48x64")
    assert made.code == 0
    assert MIGRATED not in made.err
    assert (FIXTURE / "sine.yaml").read_bytes() == (boat / "sine.yaml.v1").read_bytes()
