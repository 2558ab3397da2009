"""SDXL: two text encoders and the size and crop conditions, held against diffusers' own pipeline."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sine_cli.method.guidance import Branch
from sine_cli.method.position import FREQUENCIES, WHOLE
from sine_cli.models.adapter import attach_adapter, tuned_models
from sine_cli.models.backbone import UNetBackbone
from sine_cli.models.base import Base, load_base
from sine_cli.models.rows import TUNED
from sine_cli.models.sdxl import TextEncoderPair, size_and_crop
from tests.pipelines import T, noise, open_pipeline, pipeline_prediction

PROMPTS = ["a photo of a castle", "a castle, at night!", ""]


@pytest.fixture
def sdxl(families: dict[str, Path], load: Callable[[Path], Base]) -> Base:
    return load(families["sdxl"])


@pytest.fixture(scope="module")
def pipeline(families: dict[str, Path]) -> Any:
    return open_pipeline(families["sdxl"])


def test_prompts_are_read_as_the_pipeline_reads_them(sdxl: Base, pipeline: Any) -> None:
    for prompt, read in zip(PROMPTS[:2], sdxl.text.encode(PROMPTS[:2]), strict=True):
        embedding, _, pooled, _ = pipeline.encode_prompt(
            prompt, device="cpu", do_classifier_free_guidance=False
        )
        torch.testing.assert_close(read.embedding, embedding[0], rtol=0, atol=1e-5)
        torch.testing.assert_close(read.pooled, pooled[0], rtol=0, atol=1e-5)


def test_the_empty_prompt_is_what_the_pipeline_has_for_no_negative_prompt(sdxl: Base, pipeline: Any) -> None:
    _, nothing, _, pooled = pipeline.encode_prompt("a castle", device="cpu", do_classifier_free_guidance=True)
    (read,) = sdxl.text.encode([""])
    assert read.pooled is not None
    assert torch.equal(read.embedding, nothing[0])
    assert torch.equal(read.pooled, pooled[0])
    assert torch.count_nonzero(read.embedding) == 0


def test_a_base_that_reads_the_empty_prompt_says_so(
    families: dict[str, Path], load: Callable[[Path], Base], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(families["sdxl"], tmp_path / "base"))
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "force_zeros_for_empty_prompt": False}))
    (read,) = load(folder).text.encode([""])
    assert torch.count_nonzero(read.embedding) > 0


def test_after_release_both_models_are_gone_and_the_tokenizer_stays(sdxl: Base) -> None:
    sdxl.text.release()
    assert isinstance(sdxl.text, TextEncoderPair)
    assert (sdxl.text.first.model, sdxl.text.second.model) == (None, None)
    assert sdxl.text.cut("a castle " * 100) != ""


def test_the_whole_picture_has_its_own_size_and_no_crop(pipeline: Any) -> None:
    ids = pipeline._get_add_time_ids(
        (96, 64), (0, 0), (96, 64), torch.float32, text_encoder_projection_dim=48
    )
    assert torch.equal(size_and_crop(torch.tensor([WHOLE]), 96, 64), ids)


def test_a_patch_is_a_crop_of_the_picture_at_its_own_scale() -> None:
    """The lower right quarter, shown at 64x64, is the one of a picture of 128x128."""
    box = torch.tensor([[0.5, 0.5, 1.0, 1.0]])
    assert size_and_crop(box, 64, 64).tolist() == [[128, 128, 64, 64, 64, 64]]


def test_size_and_crop_give_the_box_back() -> None:
    boxes = torch.rand(20, 4, generator=torch.Generator().manual_seed(0)).sort(dim=1).values[:, [0, 1, 2, 3]]
    boxes[:, 2:] += 0.1
    told = size_and_crop(boxes, 48, 80)
    original, top_left, target = told[:, :2], told[:, 2:4], told[:, 4:]
    torch.testing.assert_close(torch.cat([top_left, top_left + target], dim=1) / original.repeat(1, 2), boxes)


def test_a_base_row_is_what_the_pipeline_s_unet_predicts(sdxl: Base, pipeline: Any) -> None:
    backbone = UNetBackbone(sdxl.unet, factor=sdxl.autoencoder.factor)
    (prompt,) = sdxl.text.encode(["a castle"])
    (row,) = backbone(noise(), T, [Branch(prompt)])
    torch.testing.assert_close(row, pipeline_prediction(pipeline, "a castle"), rtol=0, atol=1e-5)


def test_a_row_with_a_box_is_told_of_its_crop_and_the_others_are_not(sdxl: Base) -> None:
    adapter = attach_adapter(sdxl.unet, rank=2, targets="attention", frequencies=FREQUENCIES, seed=0)
    backbone = UNetBackbone(sdxl.unet, tuned_models(adapter), factor=sdxl.autoencoder.factor)
    (prompt,) = sdxl.text.encode(["a castle"])
    box = torch.tensor([0.25, 0.5, 0.75, 1.0])
    base, tuned, whole = backbone(
        noise(), T, [Branch(prompt), Branch(prompt, box, TUNED), Branch(prompt, None, TUNED)]
    )
    told = torch.tensor([[128.0, 128.0, 32.0, 64.0, 64.0, 64.0]])
    assert prompt.pooled is not None
    added = {"text_embeds": prompt.pooled[None], "time_ids": told}
    with torch.no_grad():
        expected = sdxl.unet(noise(), T, prompt.embedding[None], added_cond_kwargs=added).sample
    torch.testing.assert_close(tuned, expected, rtol=0, atol=1e-5)
    assert not torch.allclose(tuned, base, atol=1e-4)
    torch.testing.assert_close(whole, base, rtol=0, atol=1e-5)
    in_tuning = backbone.tuned(noise(), torch.tensor([T]), prompt, box[None])
    torch.testing.assert_close(in_tuning.detach(), expected, rtol=0, atol=1e-5)


def test_a_refiner_is_refused(
    families: dict[str, Path], tmp_path: Path, load: Callable[[Path], Base]
) -> None:
    from sine_cli.errors import UserError

    folder = Path(shutil.copytree(families["sdxl"], tmp_path / "base"))
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "text_encoder": [None, None]}))
    with pytest.raises(UserError) as caught:
        load_base(folder, None, torch.device("cpu"), torch.float32)
    assert caught.value.message == (
        f"{folder}/model_index.json: text_encoder: nothing is not supported (CLIPTextModel)"
    )
