"""Tuning: an adapter from a picture, the same bit for bit however often it was interrupted."""

import csv
import hashlib
import io
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from sine_cli.errors import SineError, UserError
from sine_cli.method.tuning import Examples, Tuning
from sine_cli.models.adapter import attach_adapter
from sine_cli.models.rows import TUNED
from sine_cli.project.files import sha256
from sine_cli.project.folder import Project
from sine_cli.project.manifest import TuneSettings, write_manifest
from sine_cli.workflow.adapter_record import read_record
from sine_cli.workflow.adapters import intact_record, write_adapter
from sine_cli.workflow.init import InitRequest, init
from sine_cli.workflow.open import open_studio
from sine_cli.workflow.record import versions
from sine_cli.workflow.render import recipe_of
from sine_cli.workflow.tune import TuneInterrupted, TuneProgress, TuneResult, tune
from tests.workflow.conftest import TUNE, Girl

RESULTS = ("adapter/adapter.safetensors", "adapter/position.safetensors", "tuning/loss.csv")
CHECKPOINT = Path("girl/tuning/checkpoint/state.safetensors")


def told_of(aside: Path) -> str:
    return (
        f"a tuning with other settings, base or picture is not finished; {aside} "
        "keeps it for the command that began it"
    )


@dataclass
class Told:
    """What a tuning said on its way."""

    progress: list[TuneProgress] = field(default_factory=list[TuneProgress])
    notices: list[str] = field(default_factory=list[str])


def run(girl: Girl, told: Told | None = None, settings: TuneSettings = TUNE) -> TuneResult:
    told = told or Told()
    return tune(girl.project, girl.manifest, settings, told.progress.append, told.notices.append)


class Watch:
    """How many steps a tuning has taken."""

    taken = 0

    def __call__(self, progress: TuneProgress) -> None:
        self.taken = 0 if progress.loss is None else progress.done


def stop_after(girl: Girl, steps: int, settings: TuneSettings = TUNE) -> None:
    """As Ctrl-C does."""
    watch = Watch()
    with pytest.raises(TuneInterrupted) as caught:
        tune(girl.project, girl.manifest, settings, watch, should_stop=lambda: watch.taken == steps)
    assert caught.value.step == steps
    assert caught.value.hint == f"the same command goes on from step {steps}"


def die_after(girl: Girl, steps: int) -> None:
    """As a power cut does: nothing is said in time."""

    def progress(made: TuneProgress) -> None:
        if made.loss is not None and made.done == steps:
            raise SystemExit

    with pytest.raises(SystemExit):
        tune(girl.project, girl.manifest, TUNE, progress)


def results(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in RESULTS]


@pytest.mark.parametrize("stopped_at", [3, 5])
def test_a_tuning_that_was_stopped_goes_on_and_ends_as_the_unbroken_one(
    untuned: Girl, tuned_once: Path, stopped_at: int
) -> None:
    stop_after(untuned, stopped_at)
    assert CHECKPOINT.is_file()
    assert not untuned.project.adapter_dir.exists()
    told = Told()
    assert run(untuned, told).resumed_at == stopped_at
    assert [p.done for p in told.progress if p.loss is not None] == list(range(stopped_at + 1, 7))
    assert told.notices == []
    assert results(untuned.project.root) == results(tuned_once)
    assert not CHECKPOINT.parent.exists()
    assert (untuned.project.tuning_dir / "loss.png").is_file()


def test_a_tuning_that_died_goes_on_from_its_last_checkpoint(untuned: Girl, tuned_once: Path) -> None:
    die_after(untuned, 5)
    assert run(untuned).resumed_at == 4
    assert results(untuned.project.root) == results(tuned_once)


def test_a_tuning_may_be_interrupted_again_and_again(untuned: Girl, tuned_once: Path) -> None:
    stop_after(untuned, 2)
    watch = Watch()
    with pytest.raises(TuneInterrupted) as caught:
        tune(untuned.project, untuned.manifest, TUNE, watch, should_stop=lambda: watch.taken == 4)
    assert caught.value.step == 4
    assert run(untuned).resumed_at == 4
    assert results(untuned.project.root) == results(tuned_once)


def test_a_tuning_that_died_before_its_first_checkpoint_starts_again(untuned: Girl, tuned_once: Path) -> None:
    die_after(untuned, 3)
    assert not CHECKPOINT.exists()
    assert run(untuned).resumed_at == 0
    assert results(untuned.project.root) == results(tuned_once)


def test_being_asked_to_stop_at_the_last_step_still_makes_the_adapter(
    untuned: Girl, tuned_once: Path
) -> None:
    watch = Watch()
    tune(untuned.project, untuned.manifest, TUNE, watch, should_stop=lambda: watch.taken == 6)
    assert results(untuned.project.root) == results(tuned_once)


@pytest.mark.parametrize("change", [{"learning_rate": 0.01}, {"steps": 7}])
def test_a_checkpoint_of_other_settings_is_set_aside_aloud_and_its_own_command_goes_on_with_it(
    untuned: Girl, tuned_once: Path, change: dict[str, float]
) -> None:
    stop_after(untuned, 3)
    told = Told()
    result = run(untuned, told, TUNE.model_copy(update=change))
    (aside,) = CHECKPOINT.parent.iterdir()
    assert told.notices == [told_of(aside)]
    assert result.resumed_at == 0
    assert result.record.tune == TUNE.model_copy(update=change)

    back = Told()
    assert run(untuned, back).resumed_at == 3
    (kept,) = back.notices
    assert re.match("the adapter that was there, .*, is kept in girl/tuning/adapters/", kept)
    assert results(untuned.project.root) == results(tuned_once)
    assert not CHECKPOINT.parent.exists()


def test_a_newer_version_goes_on_and_takes_what_is_tuned_as_it_is(
    untuned: Girl, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = {**versions(), "torch": "99.0"}
    was = versions()["torch"]
    stop_after(untuned, 3)
    monkeypatch.setattr("sine_cli.workflow.tune.versions", lambda: newer)
    told = Told()
    assert run(untuned, told).resumed_at == 3
    assert told.notices == [f"the tuning that goes on was begun with torch {was} then, 99.0 now"]
    monkeypatch.setattr("sine_cli.workflow.tune.versions", versions)
    told = Told()
    assert run(untuned, told).already_there
    assert told.notices == [f"that adapter was tuned with torch 99.0 then, {was} now"]


def test_two_unfinished_tunings_are_both_kept(untuned: Girl, tuned_once: Path) -> None:
    other = TUNE.model_copy(update={"seed": 1})
    stop_after(untuned, 3)
    stop_after(untuned, 2, other)
    told = Told()
    assert run(untuned, told).resumed_at == 3
    (aside,) = CHECKPOINT.parent.iterdir()
    assert told.notices == [told_of(aside)]
    assert results(untuned.project.root) == results(tuned_once)
    assert run(untuned, settings=other).resumed_at == 2


def test_a_checkpoint_of_another_picture_is_set_aside_aloud(untuned: Girl) -> None:
    stop_after(untuned, 3)
    with Image.open("girl/source.png") as source:
        turned = source.rotate(180)
    turned.save("girl/source.png")
    source = untuned.manifest.source.model_copy(update={"stored_sha256": sha256(Path("girl/source.png"))})
    write_manifest(untuned.project.manifest_path, untuned.manifest.model_copy(update={"source": source}))
    told = Told()
    assert run(untuned, told).resumed_at == 0
    (aside,) = CHECKPOINT.parent.iterdir()
    assert told.notices == [told_of(aside)]


@pytest.mark.parametrize("damage", ["empty", "half"])
def test_a_damaged_checkpoint_is_told_and_tuning_starts_again(
    untuned: Girl, tuned_once: Path, damage: str
) -> None:
    stop_after(untuned, 3)
    content = CHECKPOINT.read_bytes()
    CHECKPOINT.write_bytes(content[: len(content) // 2] if damage == "half" else b"")
    told = Told()
    assert run(untuned, told).resumed_at == 0
    (notice,) = told.notices
    assert notice.startswith(f"{CHECKPOINT} is damaged (")
    assert notice.endswith("); starting from step 0")
    assert results(untuned.project.root) == results(tuned_once)


def test_tuning_a_second_time_finds_the_adapter_there(tuned: Girl) -> None:
    before = {path: path.stat().st_mtime_ns for path in Path("girl").rglob("*")}
    told = Told()
    result = run(tuned, told)
    assert result.already_there
    assert result.record == read_record(tuned.project)
    assert (told.progress, told.notices) == ([], [])
    assert {path: path.stat().st_mtime_ns for path in Path("girl").rglob("*")} == before


def test_the_checkpoint_of_a_tuning_that_died_after_its_adapter_goes_and_another_s_stays(
    untuned: Girl, tuned_once: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(path: Path) -> None:
        raise SystemExit

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr("sine_cli.workflow.checkpoint.remove", die)
        run(untuned)
    assert CHECKPOINT.is_file()
    assert run(untuned).already_there
    assert not CHECKPOINT.parent.exists()
    assert results(untuned.project.root) == results(tuned_once)

    stop_after(untuned, 3, TUNE.model_copy(update={"seed": 1}))
    assert run(untuned).already_there
    assert CHECKPOINT.is_file()


def flip_last_byte(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


@pytest.mark.parametrize(
    "damage",
    [
        lambda: flip_last_byte(Path("girl/adapter/adapter.safetensors")),
        lambda: flip_last_byte(Path("girl/adapter/position.safetensors")),
        lambda: Path("girl/adapter/position.safetensors").unlink(),
        lambda: Path("girl/adapter/record.yaml").unlink(),
        lambda: Path("girl/adapter/record.yaml").write_text("base: ["),
        lambda: Path("girl/adapter/record.yaml").write_text("- 1"),
        lambda: Path("girl/adapter/record.yaml").write_bytes(b"\xff"),
        lambda: shutil.rmtree("girl/adapter"),
    ],
    ids=["lora", "position", "no position", "no record", "no yaml", "no mapping", "no text", "no folder"],
)
def test_a_damaged_adapter_does_not_count_as_one(tuned: Girl, damage: Callable[[], object]) -> None:
    assert intact_record(tuned.project) == read_record(tuned.project)
    damage()
    assert intact_record(tuned.project) is None


def test_a_damaged_adapter_is_made_again(tuned: Girl, tuned_once: Path) -> None:
    flip_last_byte(Path("girl/adapter/adapter.safetensors"))
    assert not run(tuned).already_there
    assert results(tuned.project.root) == results(tuned_once)
    assert run(tuned).already_there


def test_other_settings_or_another_prompt_make_the_adapter_anew(tuned: Girl, tuned_once: Path) -> None:
    assert not run(tuned, settings=TUNE.model_copy(update={"seed": 5})).already_there
    assert results(tuned.project.root)[0] != results(tuned_once)[0]
    manifest = tuned.manifest
    prompts = manifest.prompts.model_copy(update={"source": "a castle"})
    again = tune(tuned.project, manifest.model_copy(update={"prompts": prompts}), TUNE)
    assert not again.already_there
    assert again.record.source_prompt == "a castle"


def test_the_record_says_from_what_and_how_the_adapter_was_made(tuned: Girl, tiny_base: Path) -> None:
    record = read_record(tuned.project)
    manifest = tuned.manifest
    assert (record.base, record.base_revision) == (str(tiny_base), manifest.base_revision)
    assert record.source_sha256 == hashlib.sha256(tuned.read("source.png")).hexdigest()
    assert record.source_prompt == manifest.prompts.source == "a sks painting"
    assert record.tune == TUNE
    assert record.files == {
        name: hashlib.sha256(tuned.read(f"adapter/{name}")).hexdigest()
        for name in ("adapter.safetensors", "position.safetensors")
    }
    assert record.device == "cpu"
    assert record.versions == versions()
    assert set(record.versions) == {"sine", "torch", "diffusers", "transformers", "peft"}
    assert record.peak_memory > 100e6
    assert record.seconds >= 0


def test_the_losses_are_written_step_by_step_and_their_mean_is_recorded(tuned: Girl) -> None:
    rows = list(csv.DictReader(io.StringIO(tuned.read("tuning/loss.csv").decode())))
    assert [row["step"] for row in rows] == ["1", "2", "3", "4", "5", "6"]
    losses = [float(row["loss"]) for row in rows]
    assert read_record(tuned.project).loss == pytest.approx(sum(losses) / 6, abs=1e-5)
    with Image.open("girl/tuning/loss.png") as plot:
        assert plot.size == (640, 360)


def test_the_adapter_is_trained(tuned: Girl) -> None:
    lora = load_file("girl/adapter/adapter.safetensors")
    assert all(torch.count_nonzero(tensor) > 0 for tensor in lora.values())
    assert torch.count_nonzero(load_file("girl/adapter/position.safetensors")["projection.weight"]) > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_lora_is_kept_in_half_precision_and_its_pictures_stay(
    untuned: Girl, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    """The last preview is the tuning's own in float32; the edit's tuned model was read from the files."""
    for user in ("tune", "open"):
        monkeypatch.setattr(f"sine_cli.workflow.{user}.best_dtype", lambda _: dtype)
    # The attention of tuning in sampling too, whose rounding else differs
    monkeypatch.setattr("sine_cli.models.backbone.SMALL_LATENTS", 0)
    run(untuned, settings=TUNE.model_copy(update={"preview_every": 6}))
    kept = {"adapter": torch.float16 if dtype == torch.float32 else dtype, "position": torch.float32}
    for name, expected in kept.items():
        state = load_file(f"girl/adapter/{name}.safetensors")
        assert {tensor.dtype for tensor in state.values()} == {expected}
    studio = open_studio(untuned.project, untuned.manifest, needs_adapter=True)
    alone = untuned.manifest.edit.model_copy(update={"switch_step": 0, "base_weight": 0.0})
    prompt = untuned.manifest.prompts.source
    tuned = recipe_of(untuned.manifest, alone, prompt=prompt, size=studio.default_size())
    recipes = [tuned, replace(tuned, base_weight=1.0)]
    renderer = studio.renderer(recipes, print)
    made, without = (np.asarray(renderer.picture(recipe), np.int16) for recipe in recipes)
    with Image.open("girl/tuning/previews/step-000006.png") as preview:
        last = np.asarray(preview, np.int16)
    assert np.abs(made - last).max() <= (1 if dtype == torch.float32 else 0)
    assert np.abs(without - last).max() > 10, "else the adapter would not be in them"


def test_values_beyond_half_precision_are_told_and_no_adapter_is_written(tuned: Girl) -> None:
    studio = open_studio(tuned.project, tuned.manifest, needs_adapter=True)
    before = tuned.read("adapter/record.yaml")
    adapter = attach_adapter(
        studio.base.unet, rank=2, targets="attention", frequencies=8, seed=0, name="huge"
    )
    first, *_ = adapter.unet_parameters()
    first.data.view(-1)[0] = 70_000
    fields = {**yaml.safe_load(before), "dtype": "float32"}
    del fields["files"]
    with pytest.raises(SineError) as caught:
        write_adapter(tuned.project, adapter, fields)
    assert re.fullmatch(
        r"what was tuned cannot be kept: [\w.]+\.lora_A\.weight "
        "has values that are not numbers, or too large",
        caught.value.message,
    )
    assert caught.value.hint == "lower `tune.learning_rate` in sine.yaml, then run `sine tune` again"
    assert tuned.read("adapter/record.yaml") == before


def test_an_adapter_in_float32_as_it_was_kept_before_is_read(tuned: Girl) -> None:
    path, record = Path("girl/adapter/adapter.safetensors"), Path("girl/adapter/record.yaml")
    old = hashlib.sha256(path.read_bytes()).hexdigest()
    wide = {name: tensor.float() + 1e-4 for name, tensor in load_file(path).items()}
    save_file(wide, path)
    record.write_text(record.read_text().replace(old, hashlib.sha256(path.read_bytes()).hexdigest()))
    studio = open_studio(tuned.project, tuned.manifest, needs_adapter=True)
    loaded = dict(studio.base.unet.named_parameters())
    for name, tensor in wide.items():
        layer, _, matrix = name.removesuffix(".weight").rpartition(".")
        weight = loaded[f"{layer}.{matrix}.{TUNED}.weight"]
        assert torch.equal(weight, tensor.to(weight.dtype))


def test_progress_tells_patches_first_then_steps_with_a_loss(untuned: Girl) -> None:
    told = Told()
    run(untuned, told, TUNE.model_copy(update={"pool": 20, "steps": 2}))
    patches = [p for p in told.progress if p.loss is None]
    steps = told.progress[len(patches) :]
    assert patches[-1] == TuneProgress("encoding patches", 20, 20)
    assert [(p.done, p.total) for p in steps] == [(1, 2), (2, 2)]
    assert all(p.loss is not None and p.loss > 0 for p in steps)


def test_without_patches_the_whole_picture_is_all_there_is(untuned: Girl) -> None:
    told = Told()
    result = run(untuned, told, TUNE.model_copy(update={"patches": False, "steps": 2}))
    assert all(p.loss is not None for p in told.progress), "nothing is cut"
    assert not result.record.tune.patches


# ------------------------------------------------------------------------------ adapters that gave way


OTHER = TUNE.model_copy(update={"steps": 3})


def test_a_tuning_with_other_settings_keeps_the_adapter_that_was_there(tuned: Girl) -> None:
    before, told = results(tuned.project.root)[:2], Told()
    assert run(tuned, told, OTHER).record.tune == OTHER
    (kept,) = Path("girl/tuning/adapters").iterdir()
    assert told.notices == [
        f"the adapter that was there, of other settings, base or picture, is kept in {kept}"
    ]
    assert [(kept / name).read_bytes() for name in RESULTS[:2]] == before
    assert results(tuned.project.root)[:2] != before


def test_the_settings_of_a_kept_adapter_take_it_up_again_and_keep_the_other(tuned: Girl) -> None:
    before, there = results(tuned.project.root)[:2], tuned.read("adapter/record.yaml")
    other = run(tuned, settings=OTHER).record
    told = Told()
    result = run(tuned, told)
    assert result.already_there and told.progress == []
    assert told.notices == [
        "an adapter tuned with these settings was kept, and is in its place again; "
        "losses and previews are still those of the other one"
    ]
    assert results(tuned.project.root)[:2] == before
    assert tuned.read("adapter/record.yaml") == there
    (kept,) = Path("girl/tuning/adapters").iterdir()
    assert intact_record(Project(kept)) == other
    assert run(tuned, settings=OTHER).record == other, "and back"


def test_a_kept_adapter_that_is_taken_up_goes_at_once_even_where_its_removal_is_killed(
    tuned: Girl, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(path: Path) -> None:
        if path.exists():
            raise SystemExit

    other = run(tuned, settings=OTHER).record
    monkeypatch.setattr("sine_cli.workflow.kept_adapters.remove", die)
    with pytest.raises(SystemExit):
        run(tuned)
    (kept,) = Path("girl/tuning/adapters").glob("[!.]*")
    assert intact_record(Project(kept)) == other
    assert run(tuned).already_there


def test_what_a_kill_left_of_keeping_an_adapter_is_no_adapter_and_goes(tuned: Girl) -> None:
    there = (tuned.project.adapter_dir / "record.yaml").read_bytes()
    half = Path("girl/tuning/adapters", hashlib.sha256(there).hexdigest()[:12])
    (half / "adapter").mkdir(parents=True)
    (half / "adapter" / "adapter.safetensors").write_bytes(b"half")
    record = read_record(tuned.project)
    run(tuned, settings=OTHER)
    assert [*Path("girl/tuning/adapters").iterdir()] == [half]
    assert intact_record(Project(half)) == record


def test_a_damaged_or_linked_kept_adapter_is_not_taken_up(tuned: Girl, tmp_path: Path) -> None:
    run(tuned, settings=OTHER)
    (kept,) = Path("girl/tuning/adapters").iterdir()
    elsewhere = tmp_path / "elsewhere"
    kept.rename(elsewhere)
    kept.symlink_to(elsewhere)
    assert not run(tuned).already_there, "a link may lead out of the project"
    kept.unlink()
    elsewhere.rename(kept)
    run(tuned, settings=OTHER.model_copy(update={"seed": 5}))
    for folder in Path("girl/tuning/adapters").iterdir():
        flip_last_byte(folder / "adapter" / "adapter.safetensors")
    assert not run(tuned).already_there


def test_an_adapter_of_another_version_is_kept_whatever_its_record_says(tuned: Girl) -> None:
    record = Path("girl/adapter/record.yaml")
    newer = record.read_text("utf-8") + "future: 1\n"
    record.write_text(newer)
    before = results(tuned.project.root)[:2]
    run(tuned, settings=OTHER)
    (kept,) = Path("girl/tuning/adapters").iterdir()
    assert [(kept / name).read_bytes() for name in RESULTS[:2]] == before
    assert (kept / "adapter" / "record.yaml").read_text("utf-8") == newer


def test_of_an_adapter_whose_record_says_nothing_links_are_not_kept(tuned: Girl, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of somebody else")
    Path("girl/adapter/record.yaml").write_text("future: 1\n")
    position = Path("girl/adapter/position.safetensors")
    position.unlink()
    position.symlink_to(tmp_path / "secret")
    run(tuned, settings=OTHER)
    (kept,) = Path("girl/tuning/adapters").iterdir()
    assert sorted(path.name for path in (kept / "adapter").iterdir()) == [
        "adapter.safetensors",
        "record.yaml",
    ]


def test_a_damaged_adapter_is_not_kept(tuned: Girl) -> None:
    flip_last_byte(Path("girl/adapter/adapter.safetensors"))
    run(tuned, settings=OTHER)
    assert not Path("girl/tuning/adapters").exists()


def test_of_a_record_s_files_only_an_adapter_s_own_are_kept(tuned: Girl, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of somebody else")
    record = Path("girl/adapter/record.yaml")
    climbing = os.path.relpath(tmp_path / "secret", record.parent.resolve())
    record.write_text(record.read_text("utf-8").replace("files:\n", f"files:\n  {climbing}: {'a' * 64}\n"))
    run(tuned, settings=OTHER)
    (kept,) = Path("girl/tuning/adapters").iterdir()
    names = {path.name for path in kept.rglob("*") if path.is_file()}
    assert names == {"record.yaml", "adapter.safetensors", "position.safetensors"}


def test_a_read_only_or_linked_adapter_is_kept_as_any_other(tuned: Girl) -> None:
    before = results(tuned.project.root)[:2]
    file = Path("girl/adapter/adapter.safetensors")
    elsewhere = file.rename("girl/adapter/elsewhere.safetensors")
    file.symlink_to(elsewhere.name)
    elsewhere.chmod(0o444)
    run(tuned, settings=OTHER)
    assert run(tuned).already_there
    assert results(tuned.project.root)[:2] == before


def test_what_a_kept_adapter_does_not_have_goes_when_it_is_taken_up(tuned: Girl) -> None:
    run(tuned, settings=TUNE.model_copy(update={"text_encoder": True}))
    assert Path("girl/adapter/text.safetensors").is_file()
    assert run(tuned).already_there
    assert not Path("girl/adapter/text.safetensors").exists()


@pytest.fixture
def learned_from(monkeypatch: pytest.MonkeyPatch) -> list[Examples]:
    """The examples of each tuning."""
    seen: list[Examples] = []

    class Watched(Tuning):
        def __init__(self, **given: Any) -> None:
            seen.append(given["examples"])
            super().__init__(**given)

    monkeypatch.setattr("sine_cli.workflow.tune.Tuning", Watched)
    return seen


def test_half_of_the_patches_are_squares_and_half_have_the_picture_s_own_aspect(
    untuned: Girl, learned_from: list[Examples]
) -> None:
    run(untuned)
    (examples,) = learned_from
    squares, own = examples.patches
    assert squares.latents.shape[1:] == (4, 16, 16)
    assert own.latents.shape[1:] == examples.whole.shape[1:] == (4, 14, 18)
    boxes = torch.cat([squares.boxes, own.boxes])
    assert (len(squares.boxes), len(own.boxes), len(boxes.unique(dim=0))) == (2, 2, TUNE.pool)


def test_all_patches_of_a_square_picture_are_squares(
    isolated: Path, tiny_base: Path, picture: Path, learned_from: list[Examples]
) -> None:
    with Image.open(picture) as opened:
        opened.resize((80, 80)).save("square.png")
    made = init(InitRequest(Path("square.png"), "painting", base=str(tiny_base)))
    tune(made.project, made.manifest, TUNE)
    (examples,) = learned_from
    (squares,) = examples.patches
    assert squares.latents.shape == (TUNE.pool, 4, 16, 16)


def test_previews_show_the_picture_so_far_at_its_own_aspect(untuned: Girl) -> None:
    run(untuned, settings=TUNE.model_copy(update={"preview_every": 4}))
    previews = sorted(Path("girl/tuning/previews").iterdir())
    assert [path.name for path in previews] == ["step-000004.png", "step-000006.png"]
    for path in previews:
        with Image.open(path) as preview:
            assert (preview.size, preview.mode) == ((72, 56), "RGB")
    assert previews[0].read_bytes() != previews[1].read_bytes()


def test_a_new_tuning_begins_with_no_previews_of_an_older_one(untuned: Girl) -> None:
    run(untuned, settings=TUNE.model_copy(update={"preview_every": 4}))
    folder = Path("girl/tuning/previews")
    (folder / "mine.txt").touch()
    run(untuned, settings=TUNE.model_copy(update={"preview_every": 5, "seed": 1}))
    assert sorted(path.name for path in folder.iterdir()) == [
        "mine.txt",
        "step-000005.png",
        "step-000006.png",
    ]


def test_previews_do_not_change_what_is_learned(untuned: Girl, tuned_once: Path) -> None:
    run(untuned, settings=TUNE.model_copy(update={"preview_every": 2}))
    assert results(untuned.project.root) == results(tuned_once)


def test_a_loss_that_is_not_a_number_is_an_error_and_no_adapter(
    tiny_base: Path, picture: Path, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(tiny_base, tmp_path / "base"))
    weights = base / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({**load_file(weights), "conv_in.bias": torch.full((32,), torch.nan)}, weights, {"format": "pt"})
    made = init(InitRequest(picture, "girl", base=str(base), folder=Path("girl")))
    with pytest.raises(SineError) as caught:
        tune(Project(Path("girl")), made.manifest, TUNE)
    assert caught.value.message == "the loss is not a number (NaN) after 0 steps"
    assert caught.value.hint == "lower `tune.learning_rate` in sine.yaml, then run `sine tune` again"
    assert not made.project.adapter_dir.exists()


# --------------------------------------------------------------------------------------------- stopping early

EARLY = TUNE.model_copy(update={"steps": 40, "stop_early": True})


@pytest.fixture
def looking_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """And taking what random weights make of the picture for having begun."""
    monkeypatch.setattr("sine_cli.method.tuning.LOOK_EVERY", 3)
    monkeypatch.setattr("sine_cli.method.tuning.BEGUN", 2.0)


@pytest.fixture
def stopped_early(looking_often: None, untuned: Girl, tmp_path: Path) -> Path:
    """A project of this test's own that was tuned until it settled."""
    folder = Path(shutil.copytree("girl", tmp_path / "stopped"))
    tune(Project(folder), untuned.manifest, EARLY)
    return folder


def test_a_tuning_that_may_stop_early_ends_where_the_preview_comes_no_nearer(
    looking_often: None, untuned: Girl
) -> None:
    told = Told()
    record = run(untuned, told, EARLY).record
    steps = [p for p in told.progress if p.loss is not None]
    unknown = [p for p in steps if p.total is None]
    known = [p for p in steps if p.total is not None]
    assert record.steps_taken == steps[-1].done == len(steps) < 40
    assert record.tune == EARLY
    assert {p.total for p in known} == {record.steps_taken}
    assert [p.done for p in unknown] == list(range(1, len(unknown) + 1))
    seen = [p.distance for p in steps if p.distance is not None]
    assert len(seen) == len(steps) and len({*seen}) == (len(unknown) + 2) // 3 + 1
    assert all(0 < distance < 1 for distance in seen)


@pytest.mark.parametrize("stopped_at", [2, 3, 12, 13])
def test_a_tuning_that_may_stop_early_goes_on_and_ends_as_the_unbroken_one(
    stopped_early: Path, untuned: Girl, stopped_at: int
) -> None:
    stop_after(untuned, stopped_at, EARLY)
    result = run(untuned, settings=EARLY)
    assert result.resumed_at == stopped_at
    assert results(untuned.project.root) == results(stopped_early)
    assert result.record.steps_taken == read_record(Project(stopped_early)).steps_taken


@pytest.mark.parametrize(("changed", "resumed_at"), [({"steps": 3}, 0), ({"switch_step": 7}, 5)])
def test_a_tuning_that_may_stop_early_goes_on_with_the_settings_of_its_looks_alone(
    looking_often: None, untuned: Girl, changed: dict[str, int], resumed_at: int
) -> None:
    stop_after(untuned, 5, EARLY)
    edit = untuned.manifest.edit.model_copy(update=changed)
    manifest = untuned.manifest.model_copy(update={"edit": edit})
    assert tune(untuned.project, manifest, EARLY).resumed_at == resumed_at


def test_a_look_is_the_preview_of_its_step(looking_often: None, untuned: Girl) -> None:
    told = Told()
    run(untuned, told, EARLY.model_copy(update={"preview_every": 3}))
    looked = {p.done: p.distance for p in told.progress if p.loss is not None}
    with (
        Image.open("girl/source.png") as source,
        Image.open("girl/tuning/previews/step-000003.png") as preview,
    ):
        resized = np.asarray(source.resize(preview.size, Image.Resampling.LANCZOS), np.float64)
        apart = np.abs(np.asarray(preview, np.float64) - resized).mean() / 255
    assert looked[4] == pytest.approx(apart, abs=1e-6), "the look at step 3 is told from then on"


def test_a_record_from_before_tunings_could_stop_early_is_read(tuned: Girl) -> None:
    path = Path("girl/adapter/record.yaml")
    kept = [
        line
        for line in path.read_text().splitlines()
        if "stop_early" not in line and "steps_taken" not in line
    ]
    path.write_text("\n".join(kept) + "\n")
    record = read_record(tuned.project)
    assert (record.steps_taken, record.tune) == (None, TUNE)


def test_a_picture_that_was_changed_since_is_not_tuned_on(untuned: Girl) -> None:
    picture = untuned.project.source(untuned.manifest)
    with Image.open(picture) as image:
        changed = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    changed.save(picture)
    with pytest.raises(UserError) as caught:
        tune(untuned.project, untuned.manifest, TUNE)
    assert caught.value.message == "girl/source.png is not the picture whose hash girl/sine.yaml has"
    changed.resize((32, 24)).save(picture)
    with pytest.raises(UserError, match=r"girl/source\.png is 24 high, 32 wide, and girl/sine\.yaml says"):
        tune(untuned.project, untuned.manifest, TUNE)
    assert not untuned.project.tuning_dir.exists()
