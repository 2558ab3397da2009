"""Single files: what a diffusers folder holds, told from the shapes alone and with nothing fetched."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sine_cli.errors import UserError
from sine_cli.models import locate
from sine_cli.models.architecture import read_architecture
from sine_cli.models.base import load_base, load_parts
from sine_cli.models.parts import Parts
from sine_cli.models.single_file import clip_tokenizer
from tests.original import original_state
from tests.tiny import FACTOR, FAMILIES, NATIVE, Family

CPU = torch.device("cpu")
State = dict[str, Tensor]
CONVOLUTION = "model.diffusion_model.input_blocks.0.0.weight"


def models(parts: Parts) -> list[Any]:
    return [parts.unet, parts.autoencoder, *(model for _, model in parts.text)]


def written(tmp_path: Path, state: State, metadata: dict[str, str] | None = None) -> Path:
    file = tmp_path / "base.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, file, metadata)
    return file


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.usefixtures("no_network")
def test_a_single_file_is_the_folder_it_was_made_from(
    families: dict[str, Path], family_files: dict[str, Path], family: Family
) -> None:
    folder = load_parts(families[family], None, torch.float32)
    file = load_parts(family_files[family], None, torch.float32)
    for ours, theirs in zip(models(file), models(folder), strict=True):
        state = theirs.state_dict()
        assert ours.state_dict().keys() == state.keys()
        assert all(torch.equal(tensor, state[name]) for name, tensor in ours.state_dict().items())
    assert file.autoencoder.config.scaling_factor == folder.autoencoder.config.scaling_factor
    assert torch.equal(file.scheduler.alphas_cumprod, folder.scheduler.alphas_cumprod)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.usefixtures("no_network")
def test_it_reads_prompts_and_predicts_as_the_folder_does(
    families: dict[str, Path], family_files: dict[str, Path], family: Family
) -> None:
    """What shapes do not show, heads and activations among it, is right too."""
    from sine_cli.method.guidance import Branch
    from sine_cli.models.backbone import UNetBackbone
    from tests.pipelines import noise

    predictions: list[Tensor] = []
    for path in (families[family], family_files[family]):
        base = load_base(path, None, CPU, torch.float32)
        assert (base.native_latent_size, base.autoencoder.factor) == (NATIVE // FACTOR, FACTOR)
        assert base.schedule.prediction == ("v_prediction" if family == "sd2" else "epsilon")
        branches = [Branch(prompt) for prompt in base.text.encode(["", "a castle, at night!"])]
        predictions.append(torch.cat(UNetBackbone(base.unet, factor=FACTOR)(noise(), 300, branches)))
    torch.testing.assert_close(predictions[1], predictions[0], rtol=0, atol=1e-5)


def test_the_tokenizer_is_clip_s_own() -> None:
    """The ids that CLIP's authors give for these words."""
    tokenizer = clip_tokenizer("<|endoftext|>", 77)
    assert len(tokenizer) == 49408
    assert tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert tokenizer("A  Photo of a CAT").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert tokenizer("it's 42 é!").input_ids == [49406, 585, 568, 275, 273, 4166, 256, 49407]
    assert (tokenizer.pad_token_id, clip_tokenizer("!", 77).pad_token_id) == (49407, 0)


def test_averaged_weights_are_taken_where_the_file_has_both(
    families: dict[str, Path], tmp_path: Path
) -> None:
    state = original_state(families["sd1"])
    averaged = {
        "model_ema." + "".join(name.split(".")[1:]): tensor + 1
        for name, tensor in state.items()
        if name.startswith("model.diffusion_model.")
    }
    parts = load_parts(written(tmp_path, {**state, **averaged}), None, torch.float32)
    assert torch.equal(parts.unet.conv_in.weight, state[CONVOLUTION] + 1)


def test_half_precision_files_are_half_and_load_in_what_is_asked_for(
    families: dict[str, Path], tmp_path: Path
) -> None:
    file = written(tmp_path, {name: t.half() for name, t in original_state(families["sd1"]).items()})
    assert read_architecture(file).half
    base = load_base(file, None, CPU, torch.bfloat16)
    assert {p.dtype for p in base.unet.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in base.autoencoder.model.parameters()} == {torch.float32}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("family", "metadata", "bias", "prediction", "pixels"),
    [
        ("sd1", {}, 0.0, "epsilon", 512),
        ("sd2", {}, 0.0, "epsilon", 512),
        ("sd2", {}, 0.2, "v_prediction", 768),
        ("sd2", {"modelspec.prediction_type": "epsilon"}, 0.2, "epsilon", 512),
        ("sdxl", {}, 0.2, "epsilon", 1024),
        ("sdxl", {"modelspec.resolution": "768x640"}, 0.0, "epsilon", 640),
    ],
)
def test_what_shapes_do_not_show(
    families: dict[str, Path],
    tmp_path: Path,
    family: Family,
    metadata: dict[str, str],
    bias: float,
    prediction: str,
    pixels: int,
    dtype: torch.dtype,
) -> None:
    """Two kinds of SD 2 differ in the spread of the last attention's bias."""
    state = original_state(families[family])
    last = {"sd1": 5, "sd2": 3, "sdxl": 1}[family]
    name = f"model.diffusion_model.output_blocks.{last}.1.transformer_blocks.0.norm1.bias"
    state[name] = (bias * torch.tensor([-1.0, 1.0])).repeat(len(state[name]) // 2).to(dtype)
    plan = read_architecture(written(tmp_path, state, metadata))
    assert (plan.scheduler["prediction_type"], plan.native_pixels) == (prediction, pixels)
    assert plan.unet["sample_size"] == pixels // FACTOR


def test_the_marks_of_sdxl_s_trainers_are_read(families: dict[str, Path], tmp_path: Path) -> None:
    marks = {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}
    parts = load_parts(written(tmp_path, {**original_state(families["sdxl"]), **marks}), None, torch.float32)
    assert parts.scheduler.config["prediction_type"] == "v_prediction"
    assert float(parts.scheduler.alphas_cumprod[-1]) == pytest.approx(0, abs=1e-6)


def test_a_file_is_located_with_its_fingerprint(family_files: dict[str, Path]) -> None:
    location = locate.in_file(family_files["sdxl"])
    assert location.path == family_files["sdxl"]
    assert location.revision.startswith("sha256:")
    assert location.revision != locate.in_file(family_files["sd1"]).revision
    assert locate.native_pixels(location.path) == NATIVE


# ------------------------------------------------------------------------------------------------ refusals


def refusal(path: Path) -> tuple[str, str | None]:
    with pytest.raises(UserError) as caught:
        locate.in_file(path)
    return caught.value.message, caught.value.hint


def test_a_pickled_checkpoint_is_never_opened(tmp_path: Path) -> None:
    path = tmp_path / "base.ckpt"
    path.write_bytes(pickle.dumps({}))
    message, _ = refusal(path)
    assert message == (
        f"{path} is not a .safetensors file; what a checkpoint of another kind runs when it is opened, "
        "nobody knows"
    )
    renamed = path.rename(tmp_path / "base.safetensors")
    message, hint = refusal(renamed)
    assert message.startswith(f"{renamed} is not a .safetensors file that can be read: ")
    assert hint == "fetch or copy it again"


def test_a_lora_is_told_from_a_base(tmp_path: Path) -> None:
    path = written(tmp_path, {"lora_unet_mid_block.lora_up.weight": torch.zeros(1)})
    assert refusal(path) == (
        f"{path} is not a base: it has no U-Net under Stable Diffusion's names (model.diffusion_model....)",
        f"a LoRA goes beside a base: `sine edit PROMPT --lora {path}`",
    )


@pytest.mark.parametrize("lost", ["cond_stage_model.", "first_stage_model."])
def test_a_file_of_a_unet_alone_is_refused(families: dict[str, Path], tmp_path: Path, lost: str) -> None:
    state = {n: t for n, t in original_state(families["sd1"]).items() if not n.startswith(lost)}
    path = written(tmp_path, state)
    assert refusal(path)[0] == (
        f"{path} is not a whole base: it lacks the text encoder or the autoencoder of SD 1, SD 2 or SDXL"
    )


def test_a_file_that_lacks_a_layer_is_refused(families: dict[str, Path], tmp_path: Path) -> None:
    state = original_state(families["sd1"])
    del state["model.diffusion_model.out.2.weight"]
    path = written(tmp_path, state)
    assert refusal(path)[0] == f"{path} is not a whole base: it lacks model.diffusion_model.out.2.weight"
    state = original_state(families["sd1"])
    del state["first_stage_model.decoder.mid.attn_1.q.weight"]
    with pytest.raises(UserError) as caught:
        load_parts(written(tmp_path, state), None, torch.float32)
    assert caught.value.message.startswith(f"{path} does not load: ")


def test_an_inpainting_base_is_refused(families: dict[str, Path], tmp_path: Path) -> None:
    state = original_state(families["sd1"])
    state[CONVOLUTION] = torch.zeros(32, 9, 3, 3)
    with pytest.raises(UserError) as caught:
        load_base(written(tmp_path, state), None, CPU, torch.float32)
    assert caught.value.hint == "choose the plain base that it was made from"


def test_a_base_that_takes_pictures_is_refused(families: dict[str, Path], tmp_path: Path) -> None:
    state = {
        **original_state(families["sd2"]),
        "model.diffusion_model.label_emb.0.0.weight": torch.zeros(8, 8),
    }
    path = written(tmp_path, state)
    assert refusal(path)[0] == f"{path} takes pictures beside words (unCLIP), which sine does not"


def test_the_file_on_the_disk_is_left_as_it_is(family_files: dict[str, Path]) -> None:
    before = {name: tensor.clone() for name, tensor in load_file(family_files["sd1"]).items()}
    base = load_base(family_files["sd1"], None, CPU, torch.float32)
    base.unet.conv_in.weight.data.zero_()
    after = load_file(family_files["sd1"])
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
