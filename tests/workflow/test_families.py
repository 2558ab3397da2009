"""Every family of bases, as a folder and as a single file, from the first command to the last, offline."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sine_cli.errors import UserError
from sine_cli.method.guidance import Branch
from sine_cli.models.adapter import tuned_models
from sine_cli.models.backbone import UNetBackbone
from sine_cli.models.base import Base, load_base
from sine_cli.models.rows import TUNED
from sine_cli.project.folder import Project
from sine_cli.project.manifest import load_manifest
from sine_cli.project.runs import read_recipe
from sine_cli.workflow.adapter_record import read_record
from sine_cli.workflow.adapters import load_adapter
from sine_cli.workflow.asked import LORAS, MERGED, CompareRequest
from sine_cli.workflow.compare import compare
from sine_cli.workflow.edit import EditRequest, edit
from sine_cli.workflow.export import export
from sine_cli.workflow.grid import GridRequest, grid
from sine_cli.workflow.guides import GuideRequest
from sine_cli.workflow.init import InitRequest, init
from sine_cli.workflow.size import Size
from sine_cli.workflow.tune import tune
from sine_cli.workflow.user_lora import UserLora
from tests.pipelines import T, noise, open_pipeline, pipeline_prediction
from tests.tiny import FAMILIES, Family
from tests.workflow.conftest import EDIT, TUNE


def load(path: Path) -> Base:
    return load_base(path, None, torch.device("cpu"), torch.float32)


@pytest.mark.parametrize("form", ["folder", "file"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.usefixtures("no_network")
def test_from_the_picture_to_other_tools(
    families: dict[str, Path],
    family_files: dict[str, Path],
    picture: Path,
    tiny_clip: Path,
    family: Family,
    form: str,
) -> None:
    path = families[family] if form == "folder" else family_files[family]

    # init, tune
    project = Project(
        init(InitRequest(picture, "painting", base=str(path), folder=Path("girl"))).project.root
    )
    manifest = load_manifest(project.manifest_path)
    assert manifest.base == str(path)
    record = tune(
        project, manifest, TUNE.model_copy(update={"steps": 3, "targets": "attention+resnet"})
    ).record

    # edit, grid, both to the pixel
    (made,) = edit(project, manifest, EditRequest(["a boat"], EDIT, Size(37, 51)))
    with Image.open(made.pictures[0]) as image:
        assert image.size == (51, 37)
    assert read_recipe(made.pictures[0])["adapter"] == record.files
    cells = grid(
        project, manifest, GridRequest("a boat", [400], [0.5], EDIT, Size(16, 24), scorer=str(tiny_clip))
    )
    assert len(cells.cells) == 1

    # export, and what the tuned model predicts is what other tools predict
    base = load(path)
    adapter = load_adapter(project, read_record(project), base.unet, base.text)
    backbone = UNetBackbone(base.unet, tuned_models(adapter), factor=base.autoencoder.factor)
    (prompt,) = base.text.encode([record.source_prompt])
    untuned, tuned = backbone(noise(), T, [Branch(prompt), Branch(prompt, None, tuned=TUNED)])
    assert not torch.allclose(tuned, untuned, atol=1e-3)
    for lora in LORAS:
        pipeline = open_pipeline(families[family])
        written = export(project, manifest, lora).path
        pipeline.load_lora_weights(written.parent, weight_name=written.name)
        predicted = pipeline_prediction(pipeline, record.source_prompt)
        torch.testing.assert_close(predicted, tuned, rtol=0, atol=1e-4)
    merged = export(project, manifest, MERGED).path
    predicted = pipeline_prediction(open_pipeline(merged), record.source_prompt)
    torch.testing.assert_close(predicted, tuned, rtol=0, atol=1e-4)

    # what was exported is a LoRA for the base side
    lora = UserLora(project.exports_dir / "girl-kohya.safetensors", 0.5)
    (changed,) = edit(project, manifest, EditRequest(["a boat"], EDIT, Size(37, 51), lora=lora))
    assert read_recipe(changed.pictures[0])["lora"] == lora.as_dict()
    assert changed.pictures[0].read_bytes() != made.pictures[0].read_bytes()

    # a guide takes its weight from the base, LoRA and all: guided by itself, the picture has that much more
    shutil.copytree(project.root, "other")
    part = EditRequest(["a boat"], EDIT, Size(37, 51), crop=(0.0, 0.25, 0.5, 1.0), lora=lora)
    guided = replace(part, guides=(GuideRequest(Path("other"), (0.2,)),))
    settings = EDIT.model_copy(update={"base_weight": EDIT.base_weight - 0.2})
    (one,), (two,) = (edit(project, manifest, each) for each in (replace(part, settings=settings), guided))
    assert np.abs(pixels(one.pictures[0]) - pixels(two.pictures[0])).max() <= 2
    (alone,) = edit(project, manifest, part)
    assert np.abs(pixels(alone.pictures[0]) - pixels(two.pictures[0])).max() > 2


@pytest.mark.usefixtures("no_network")
def test_sdxl_is_compared_by_every_method_but_textual_inversion(
    families: dict[str, Path], picture: Path, tiny_clip: Path
) -> None:
    made = init(InitRequest(picture, "painting", base=str(families["sdxl"]), folder=Path("girl")))
    methods = ("sdedit", "ilvr", "prompt-to-prompt")
    request = CompareRequest("a boat", EDIT, methods, Size(37, 51), scorer=str(tiny_clip))
    result = compare(made.project, made.manifest, request)
    assert [each.method for each in result.pictures] == [*methods]
    told: list[str] = []
    both = replace(request, methods=("sdedit", "textual-inversion"))
    result = compare(made.project, made.manifest, both, on_notice=told.append)
    assert [each.method for each in result.pictures] == ["sdedit"]
    name = families["sdxl"]
    assert told == [f"textual-inversion learns a word of one text encoder, `{name}` has two: left out"]
    with pytest.raises(UserError) as caught:
        compare(made.project, made.manifest, replace(request, methods=("textual-inversion",)))
    assert caught.value.message == (
        f"Textual Inversion learns a word of one text encoder, and the base `{families['sdxl']}` has two"
    )
    assert caught.value.hint == "leave it out: `--methods sine,dreambooth,sdedit,ilvr,prompt-to-prompt`"


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image).astype(int)
