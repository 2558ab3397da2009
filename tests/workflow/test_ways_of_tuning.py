"""The paper's ways of tuning: every weight, the text encoder too, prior preservation; and with low memory."""

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from sine_cli.errors import Interrupted, UserError
from sine_cli.models.backbone import UNetBackbone
from sine_cli.models.base import load_base
from sine_cli.project.folder import Project
from sine_cli.project.manifest import Manifest, TuneSettings, changed, load_manifest
from sine_cli.project.presets import load_tuning_preset
from sine_cli.project.runs import read_recipe
from sine_cli.workflow.adapter_record import read_record
from sine_cli.workflow.asked import MERGED
from sine_cli.workflow.edit import EditRequest, edit
from sine_cli.workflow.export import export
from sine_cli.workflow.guides import GuideRequest
from sine_cli.workflow.size import Size
from sine_cli.workflow.tune import TuneInterrupted, TuneProgress, TuneResult, tune
from tests.pipelines import open_pipeline
from tests.workflow.conftest import EDIT, TUNE, Girl

FULL = TUNE.model_copy(update={"targets": "full", "learning_rate": 0.003})
TEXT = TUNE.model_copy(update={"text_encoder": True})
PRIOR = TUNE.model_copy(update={"prior": 3})
WAYS = {
    "full": FULL,
    "text": TEXT,
    "prior": PRIOR,
    "all": FULL.model_copy(update={"text_encoder": True, "prior": 2, "loss": "epsilon"}),
}
FILES = {
    "full": {"adapter.safetensors", "position.safetensors"},
    "text": {"adapter.safetensors", "text.safetensors", "position.safetensors"},
    "prior": {"adapter.safetensors", "position.safetensors"},
    "all": {"adapter.safetensors", "text.safetensors", "position.safetensors"},
}


def run(girl: Girl, settings: TuneSettings) -> TuneResult:
    return tune(girl.project, girl.manifest, settings)


def adapter_files(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (root / "adapter").glob("*.safetensors")}


@pytest.mark.parametrize("way", WAYS)
def test_a_stopped_tuning_goes_on_and_ends_as_the_unbroken_one(untuned: Girl, way: str) -> None:
    shutil.copytree("girl", "twin")
    result = run(untuned, WAYS[way])
    assert result.record.tune == WAYS[way]
    assert {*adapter_files(Path("girl"))} == FILES[way] == {*result.record.files}

    twin, taken = Project(Path("twin")), 0

    def progress(made: TuneProgress) -> None:
        nonlocal taken
        taken = made.done if made.what == "tuning" else 0

    with pytest.raises(TuneInterrupted):
        tune(twin, twin_manifest(), WAYS[way], progress, should_stop=lambda: taken == 3)
    assert tune(twin, twin_manifest(), WAYS[way]).resumed_at == 3
    assert adapter_files(Path("twin")) == adapter_files(Path("girl"))


def test_in_8_bits_too_a_stopped_tuning_goes_on_exactly(untuned: Girl) -> None:
    """The LoRA of this rank has matrices large enough for 8 bits; the position has not."""
    pytest.importorskip("bitsandbytes")
    large = TUNE.model_copy(update={"rank": 256, "learning_rate": 0.001})
    shutil.copytree("girl", "twin")
    tune(untuned.project, untuned.manifest, large, low_memory=True)
    twin, taken = Project(Path("twin")), 0

    def progress(made: TuneProgress) -> None:
        nonlocal taken
        taken = made.done if made.what == "tuning" else 0

    with pytest.raises(TuneInterrupted):
        tune(twin, twin_manifest(), large, progress, should_stop=lambda: taken == 3, low_memory=True)
    state = load_file("twin/tuning/checkpoint/state.safetensors")
    assert torch.uint8 in {t.dtype for name, t in state.items() if name.startswith("optimizer")}
    tune(twin, twin_manifest(), large, low_memory=True)
    assert adapter_files(Path("twin")) == adapter_files(Path("girl"))


def twin_manifest() -> Manifest:
    return load_manifest(Path("twin/sine.yaml"))


@pytest.mark.parametrize("way", ["full", "text", "all"])
def test_it_edits_guides_and_is_exported_whole(untuned: Girl, way: str) -> None:
    run(untuned, WAYS[way])
    shutil.copytree("girl", "other")
    plain = EditRequest(["a boat"], EDIT, Size(16, 24))
    (made,) = edit(untuned.project, untuned.manifest, plain)
    assert {*read_recipe(made.pictures[0])["adapter"]} == FILES[way]
    guided = EditRequest(["a boat"], EDIT, Size(16, 24), guides=(GuideRequest(Path("other"), (0.2,)),))
    (with_guide,) = edit(untuned.project, untuned.manifest, guided)
    assert with_guide.pictures[0].read_bytes() != made.pictures[0].read_bytes()
    merged = export(untuned.project, untuned.manifest, MERGED)
    assert not merged.text_stays_behind
    pipeline = open_pipeline(merged.path)
    tuned = load_file("girl/adapter/adapter.safetensors")
    if way != "text":
        weights = pipeline.unet.state_dict()
        assert weights.keys() == tuned.keys()
        for name, tensor in tuned.items():
            torch.testing.assert_close(weights[name], tensor.float(), rtol=0, atol=1e-3)


def test_what_was_tuned_whole_is_no_lora(untuned: Girl) -> None:
    run(untuned, FULL)
    with pytest.raises(UserError) as caught:
        export(untuned.project, untuned.manifest, "kohya")
    assert caught.value.message == "girl/adapter is no LoRA: every weight of the U-Net was tuned"
    assert caught.value.hint == "write the whole base with `sine export --merge`"


def test_a_lora_file_has_no_place_for_the_text_encoder_s(untuned: Girl) -> None:
    run(untuned, TEXT)
    assert export(untuned.project, untuned.manifest, "diffusers").text_stays_behind


def test_a_text_encoder_s_lora_that_is_gone_is_told(untuned: Girl) -> None:
    run(untuned, TEXT)
    Path("girl/adapter/text.safetensors").unlink()
    with pytest.raises(UserError) as caught:
        edit(untuned.project, untuned.manifest, EditRequest(["a boat"], EDIT, Size(16, 24)))
    assert caught.value.message == "girl/adapter/text.safetensors is missing"


def test_the_base_makes_the_pictures_of_the_class_once(untuned: Girl) -> None:
    run(untuned, PRIOR)
    files = sorted(Path("girl/tuning/prior").iterdir())
    assert [file.name for file in files] == ["0001.png", "0002.png", "0003.png"]
    recipe = read_recipe(files[1])
    assert (recipe["prompt"], recipe["seed"], recipe["switch_step"]) == ("a painting", 1, 1000)
    with Image.open(files[0]) as picture:
        assert picture.size == (64, 64)
    before = [file.stat().st_mtime_ns for file in files]
    files[2].unlink()
    told: list[TuneProgress] = []
    more = PRIOR.model_copy(update={"prior": 4, "steps": 2})
    tune(untuned.project, untuned.manifest, more, told.append)
    files = sorted(Path("girl/tuning/prior").iterdir())
    assert [file.stat().st_mtime_ns for file in files[:2]] == before[:2], "those that are there stay"
    assert len(files) == 4
    assert [p.done for p in told if p.what == "pictures of the class"] == [1, 2, 3, 4]


def test_low_memory_keeps_activations_and_large_pictures_out_of_memory(tuned: Girl, tiny_base: Path) -> None:
    device = torch.device("cpu")
    base = load_base(tiny_base, None, device, torch.float32, low_memory=True)
    backbone = UNetBackbone(base.unet, factor=base.autoencoder.factor)
    backbone.prepare_tuning(low_memory=True)
    assert base.unet.is_gradient_checkpointing
    decoder, sizes = base.autoencoder.model.decoder, list[tuple[int, ...]]()
    decoder.register_forward_pre_hook(lambda _, inputs: sizes.append(tuple(inputs[0].shape[-2:])))
    usual = load_base(tiny_base, None, device, torch.float32).autoencoder
    for cells, cut in ((16, False), (40, True)):
        sizes.clear()
        z = torch.randn(1, 4, cells, cells, generator=torch.Generator().manual_seed(0))
        (picture,), (whole,) = base.autoencoder.decode(z), usual.decode(z)
        assert picture.size == whole.size
        assert (max(sizes) < (cells, cells)) is cut


def test_a_checkpoint_of_the_other_kind_of_memory_is_not_gone_on_with(untuned: Girl) -> None:
    taken, notices = 0, list[str]()

    def progress(made: TuneProgress) -> None:
        nonlocal taken
        taken = made.done if made.what == "tuning" else 0

    with pytest.raises(TuneInterrupted):
        tune(untuned.project, untuned.manifest, TUNE, progress, should_stop=lambda: taken == 3)
    result = tune(untuned.project, untuned.manifest, TUNE, on_notice=notices.append, low_memory=True)
    assert result.resumed_at == 0
    assert notices[-1].startswith("a tuning with other settings, base or picture is not finished; ")


def test_another_way_of_sampling_makes_other_pictures_of_the_class(untuned: Girl) -> None:
    run(untuned, PRIOR)
    assert run(untuned, PRIOR).already_there
    changed_edit = untuned.manifest.edit.model_copy(update={"steps": 3})
    manifest = untuned.manifest.model_copy(update={"edit": changed_edit})
    before = Path("girl/tuning/prior/0001.png").read_bytes()
    assert not tune(untuned.project, manifest, PRIOR).already_there
    assert Path("girl/tuning/prior/0001.png").read_bytes() != before


def test_ctrl_c_among_the_pictures_of_the_class_keeps_them(untuned: Girl) -> None:
    made = 0

    def progress(progress: TuneProgress) -> None:
        nonlocal made
        made = progress.done

    with pytest.raises(Interrupted) as caught:
        tune(untuned.project, untuned.manifest, PRIOR, progress, should_stop=lambda: made == 2)
    assert caught.value.hint == "2 of 3 pictures of the class are kept; the same command goes on"
    assert len(list(Path("girl/tuning/prior").iterdir())) == 2


def test_the_prior_changes_what_is_learned(untuned: Girl, tuned_once: Path) -> None:
    run(untuned, PRIOR)
    assert adapter_files(Path("girl")) != adapter_files(tuned_once)


def test_low_memory_learns_and_makes_the_same(untuned: Girl, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32, and with the optimiser of 32 bits."""
    monkeypatch.setattr("sine_cli.workflow.tune.small_optimizer", lambda device: None)
    monkeypatch.setattr("sine_cli.workflow.tune.best_dtype", lambda _: torch.float32)
    shutil.copytree("girl", "twin")
    tune(Project(Path("twin")), twin_manifest(), TUNE)
    notices: list[str] = []
    tune(untuned.project, untuned.manifest, TUNE, on_notice=notices.append, low_memory=True)
    assert notices == ["the optimiser keeps 32 bits; 8 are enough with `pip install 'sine-cli[low-memory]'`"]
    expected = load_file("twin/adapter/adapter.safetensors")
    for name, tensor in load_file("girl/adapter/adapter.safetensors").items():
        # To what half precision tells
        torch.testing.assert_close(tensor, expected[name], rtol=2**-10, atol=1e-4)
    requests = [EditRequest(["a boat"], EDIT, Size(48, 64), low_memory=low) for low in (False, True)]
    usual, low = (edit(untuned.project, untuned.manifest, request)[0] for request in requests)
    with Image.open(usual.pictures[0]) as one, Image.open(low.pictures[0]) as other:
        assert one.tobytes() == other.tobytes()
    assert "low_memory" not in read_recipe(usual.pictures[0])
    assert read_recipe(low.pictures[0])["low_memory"] is True
    record = read_record(untuned.project)
    assert (record.low_memory, record.eight_bits) == (True, False)
    assert not tune(untuned.project, untuned.manifest, TUNE).already_there


@pytest.mark.parametrize(
    ("name", "steps", "patches"), [("paper-patches", 10_000, True), ("paper-plain", 800, False)]
)
def test_the_paper_s_ways_have_its_numbers(name: str, steps: int, patches: bool) -> None:
    decided = load_tuning_preset(name).tune
    settings = changed(TUNE, {field: ("--preset", value) for field, value in decided.items()})
    assert (settings.steps, settings.patches, settings.batch) == (steps, patches, 1)
    assert (settings.learning_rate, settings.targets, settings.prior) == (1e-6, "full", 0)


def test_no_such_way_of_tuning() -> None:
    with pytest.raises(UserError) as caught:
        load_tuning_preset("paper-patch")
    assert caught.value.message == 'no way of tuning called "paper-patch"'
    assert caught.value.hint == "did you mean `--preset paper-patches`? there are: paper-patches, paper-plain"
