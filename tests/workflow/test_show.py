"""What `sine show` knows of the adapter."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from sine_cli.project.lock import held
from sine_cli.project.manifest import MOST_AUTO_STEPS, TuneSettings
from sine_cli.workflow.show import Overview, show
from sine_cli.workflow.tune import TuneInterrupted, TuneProgress, tune
from tests.workflow.conftest import TUNE, Girl


def overview(girl: Girl) -> Overview:
    return show(girl.project, girl.manifest)


def test_before_tuning(untuned: Girl) -> None:
    there = overview(untuned)
    assert (there.tuned, there.going_on, there.steps, there.problem) == (False, None, None, None)


def test_a_tuned_project_tells_its_steps(tuned: Girl) -> None:
    there = overview(tuned)
    assert (there.tuned, there.going_on, there.steps, there.problem) == (True, None, 6, None)


def interrupted(girl: Girl, settings: TuneSettings) -> None:
    """A tuning, stopped after two steps."""
    seen: list[TuneProgress] = []
    with pytest.raises(TuneInterrupted):
        tune(
            girl.project,
            girl.manifest,
            settings,
            seen.append,
            should_stop=lambda: bool(seen) and (seen[-1].what, seen[-1].done) == ("tuning", 2),
        )


def test_another_tuning_that_was_interrupted_is_told_beside_the_adapter(tuned: Girl) -> None:
    interrupted(tuned, TUNE.model_copy(update={"seed": 1}))
    there = overview(tuned)
    assert (there.tuned, there.going_on, there.steps) == (True, "`sine tune --seed 1` goes on", 6)


def test_an_unfinished_tuning_with_the_manifest_s_settings_is_told_its_command(untuned: Girl) -> None:
    other = untuned.manifest.tune.model_copy(update={"seed": 7})
    interrupted(untuned, other)
    assert overview(untuned).going_on == "`sine tune --seed 7` goes on"
    there = show(untuned.project, untuned.manifest.model_copy(update={"tune": other}))
    assert there.going_on == "`sine tune` goes on"


@pytest.mark.parametrize(
    ("changes", "command"),
    [
        ({"steps": 9, "seed": 2}, "`sine tune --steps 9 --seed 2` goes on"),
        ({"patches": False, "prior": 2}, "`sine tune --no-patches --prior 2` goes on"),
        ({"stop_early": True, "steps": MOST_AUTO_STEPS}, "`sine tune --steps auto` goes on"),
        ({"rank": 2}, "the command that began it goes on"),
    ],
)
def test_the_command_that_goes_on_is_told_with_its_options(
    untuned: Girl, changes: dict[str, Any], command: str
) -> None:
    settings = untuned.manifest.tune.model_copy(update=changes)
    interrupted(untuned, settings)
    assert overview(untuned).going_on == command


def test_a_checkpoint_s_words_are_no_options(untuned: Girl) -> None:
    folder = untuned.project.tuning_dir / "checkpoint"
    folder.mkdir(parents=True)
    hostile = {**untuned.manifest.tune.model_dump(), "seed": "1; rm -rf ~"}
    about = {
        "tune": hostile,
        "source_prompt": untuned.manifest.prompts.source,
        "source_sha256": untuned.manifest.source.stored_sha256,
        "base_revision": untuned.manifest.base_revision,
    }
    save_file({"x": np.zeros(1, np.float32)}, folder / "state.safetensors", {"identity": json.dumps(about)})
    assert overview(untuned).going_on == "the command that began it goes on"
    about["tune"] = {**hostile, "seed": 9}
    save_file({"x": np.zeros(1, np.float32)}, folder / "state.safetensors", {"identity": json.dumps(about)})
    assert overview(untuned).going_on == "`sine tune --seed 9` goes on"


@pytest.mark.parametrize("changed", ["source_prompt", "source_sha256", "base_revision"])
def test_what_no_option_gives_back_is_told_no_command(untuned: Girl, changed: str) -> None:
    stop = untuned.manifest.tune.model_copy(update={"seed": 1})
    interrupted(untuned, stop)
    file = untuned.project.tuning_dir / "checkpoint" / "state.safetensors"
    with safe_open(file, framework="np") as opened:
        about = {**json.loads(opened.metadata()["identity"]), changed: "another"}
    save_file({"x": np.zeros(1, np.float32)}, file, {"identity": json.dumps(about)})
    assert overview(untuned).going_on == "the command that began it goes on"


def test_who_tunes_it_now_is_told(untuned: Girl) -> None:
    with held(untuned.project.tuning_lock, "girl is being tuned"):
        tuner = overview(untuned).tuner
    assert tuner is not None
    assert tuner.pid == os.getpid()
    assert overview(untuned).tuner is None


@pytest.mark.parametrize("identity", ["[1]", "{", "[" * 100_000, None])
def test_a_checkpoint_that_says_nothing_of_its_settings_is_no_command(
    untuned: Girl, identity: str | None
) -> None:
    folder = untuned.project.tuning_dir / "checkpoint"
    folder.mkdir(parents=True)
    about = None if identity is None else {"identity": identity}
    save_file({"x": np.zeros(1, np.float32)}, folder / "state.safetensors", about)
    assert overview(untuned).going_on == "the command that began it goes on"


def test_an_adapter_of_another_base_is_no_good_here(tuned: Girl) -> None:
    there = show(tuned.project, tuned.manifest.model_copy(update={"base": "mini", "base_revision": None}))
    assert there.tuned
    assert there.problem is not None
    assert "this project uses `mini`; run `sine tune` again, or set `base: " in there.problem


def test_a_damaged_record_is_told(tuned: Girl) -> None:
    (tuned.project.adapter_dir / "record.yaml").write_text("steps: many", "utf-8")
    there = overview(tuned)
    assert there.tuned
    assert there.steps is None
    assert there.problem is not None
    assert there.problem.startswith(f"{Path('girl/adapter/record.yaml')} is damaged")
