"""A base loads from any diffusers folder of the Stable Diffusion kind, and nothing in it runs."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sine_cli.errors import SineError, UserError
from sine_cli.models.base import Base, load_base
from sine_cli.models.locate import in_folder
from sine_cli.models.text import TextEncoder
from tests.tiny import INDEX, MINI

CPU = torch.device("cpu")
Load = Callable[[Path], Base]
FOLDER_HINT = "a base is a preset, a hub id, a diffusers folder, or a Stable Diffusion .safetensors file"
FETCH_AGAIN = "fetch or copy the base again; sine reads .safetensors weights only"


def set_index(folder: Path, **parts: list[str]) -> None:
    (folder / "model_index.json").write_text(json.dumps({**INDEX, **parts}))


def text_model(base: Base) -> Any:
    assert isinstance(base.text, TextEncoder)
    return base.text.model


def refusal(load: Callable[[], object]) -> tuple[str, str | None]:
    with pytest.raises(UserError) as caught:
        load()
    return caught.value.message, caught.value.hint


def test_a_stable_diffusion_folder_says_all_that_the_method_needs(base: Base) -> None:
    assert base.native_latent_size == 16
    assert (base.autoencoder.factor, base.autoencoder.channels) == (4, 4)
    assert base.autoencoder.scale == 0.18215
    assert base.text.length == 24
    schedule = base.schedule
    assert (schedule.T, schedule.prediction, schedule.spacing, schedule.offset) == (
        1000,
        "epsilon",
        "leading",
        1,
    )
    assert schedule.final_alpha_bar == pytest.approx(1 - 0.00085)
    assert float(schedule.alpha_bar[999]) == pytest.approx(0.0047, abs=1e-4)


def test_v_prediction_is_read_from_the_scheduler(tiny_v: Path, load: Load) -> None:
    assert load(tiny_v).schedule.prediction == "v_prediction"


def test_the_bundled_base_loads_by_the_same_path(mini: Base) -> None:
    assert (mini.native_latent_size * mini.autoencoder.factor, mini.autoencoder.factor) == (128, 16)
    (read,) = mini.text.encode(["a castle"])
    assert read.embedding.shape == (mini.text.length, mini.unet.config.cross_attention_dim)
    assert read.pooled is None


def test_no_parameter_of_a_base_can_be_trained(base: Base) -> None:
    models = [base.unet, base.autoencoder.model, text_model(base)]
    parameters = [parameter for model in models for parameter in model.parameters()]
    assert len(parameters) > 100
    assert not any(parameter.requires_grad for parameter in parameters)
    assert not any(model.training for model in models)


def test_the_unet_has_the_asked_type_and_all_else_is_in_float32(tiny: Path) -> None:
    base = load_base(tiny, None, CPU, torch.bfloat16)
    assert {p.dtype for p in base.unet.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in base.autoencoder.model.parameters()} == {torch.float32}
    assert {p.dtype for p in text_model(base).parameters()} == {torch.float32}


def test_the_half_precision_weights_are_the_ones_that_load_when_asked_for(
    tiny_v: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_v, tmp_path / "base"))
    for part in ("unet", "vae"):
        (folder / part / "diffusion_pytorch_model.safetensors").unlink()
    (folder / "text_encoder" / "model.fp16.safetensors").unlink()  # this part has none: the plain one loads
    base = load_base(folder, "fp16", CPU, torch.float32)
    halved = load_file(folder / "unet" / "diffusion_pytorch_model.fp16.safetensors")["conv_in.weight"]
    assert halved.dtype == torch.float16
    assert torch.equal(base.unet.conv_in.weight, halved.float())
    assert text_model(base).dtype == torch.float32


@pytest.mark.parametrize(
    ("part", "class_name", "supported"),
    [
        ("unet", "SD3Transformer2DModel", "UNet2DConditionModel"),
        ("vae", "VQModel", "AutoencoderKL, AutoencoderDC"),
        ("text_encoder", "T5EncoderModel", "CLIPTextModel"),
        ("tokenizer", "T5Tokenizer", "CLIPTokenizer, CLIPTokenizerFast, PreTrainedTokenizerFast"),
    ],
)
def test_a_part_of_another_class_is_refused(
    copy_of_tiny: Path, load: Load, part: str, class_name: str, supported: str
) -> None:
    set_index(copy_of_tiny, **{part: ["diffusers", class_name]})
    assert refusal(lambda: load(copy_of_tiny)) == (
        f"{copy_of_tiny}/model_index.json: {part}: {class_name} is not supported ({supported})",
        "use a base of the Stable Diffusion family",
    )


def test_a_folder_cannot_name_code_of_its_own(copy_of_tiny: Path, load: Load, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (copy_of_tiny / "unet" / "trap.py").write_text(
        f"open({str(ran)!r}, 'w')\nclass UNet2DConditionModel: ..."
    )
    set_index(copy_of_tiny, unet=["trap", "UNet2DConditionModel"])
    assert type(load(copy_of_tiny).unet).__module__.startswith("diffusers.")
    assert not ran.exists()


def test_a_folder_without_an_index_is_refused(copy_of_tiny: Path, load: Load) -> None:
    (copy_of_tiny / "model_index.json").unlink()
    assert refusal(lambda: load(copy_of_tiny)) == (
        f"{copy_of_tiny} is not a diffusers folder: it has no model_index.json",
        FOLDER_HINT,
    )


def test_an_index_that_is_not_json_is_refused(copy_of_tiny: Path, load: Load) -> None:
    (copy_of_tiny / "model_index.json").write_text("{")
    message, hint = refusal(lambda: load(copy_of_tiny))
    assert message.startswith(f"{copy_of_tiny}/model_index.json is not JSON: ")
    assert hint == FOLDER_HINT


@pytest.mark.parametrize("index", ["[]", '"words"', "null"])
def test_an_index_that_is_no_object_is_refused(copy_of_tiny: Path, load: Load, index: str) -> None:
    (copy_of_tiny / "model_index.json").write_text(index)
    assert refusal(lambda: load(copy_of_tiny)) == (
        f"{copy_of_tiny}/model_index.json does not name the parts of a base",
        FOLDER_HINT,
    )


@pytest.mark.parametrize("unet", ["null", '"UNet2DConditionModel"', '["diffusers"]', "7"])
def test_an_index_that_does_not_name_a_class_is_refused(copy_of_tiny: Path, load: Load, unet: str) -> None:
    (copy_of_tiny / "model_index.json").write_text(f'{{"unet": {unet}}}')
    message, _ = refusal(lambda: load(copy_of_tiny))
    assert message == (
        f"{copy_of_tiny}/model_index.json: unet: nothing is not supported (UNet2DConditionModel)"
    )


class Bomb:
    """What a pickled weight file may do to those who open it."""

    def __init__(self, ran: Path) -> None:
        self.ran = ran

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return open, (str(self.ran), "w")


@pytest.mark.parametrize(
    ("part", "file"),
    [
        ("unet", "diffusion_pytorch_model.bin"),
        ("vae", "diffusion_pytorch_model.bin"),
        ("text_encoder", "pytorch_model.bin"),
    ],
)
def test_pickled_weights_never_load(
    copy_of_tiny: Path, load: Load, tmp_path: Path, part: str, file: str
) -> None:
    ran = tmp_path / "ran"
    for weights in (copy_of_tiny / part).glob("*.safetensors"):
        weights.unlink()
    (copy_of_tiny / part / file).write_bytes(pickle.dumps(Bomb(ran)))
    message, hint = refusal(lambda: load(copy_of_tiny))
    assert message.startswith(f"{copy_of_tiny}/{part} does not load: ")
    assert hint == FETCH_AGAIN
    assert refusal(lambda: in_folder(copy_of_tiny)) == (
        f"{copy_of_tiny} is not a whole diffusers folder: {part} lacks config.json or .safetensors weights",
        FOLDER_HINT,
    )
    assert not ran.exists()
    with (copy_of_tiny / part / file).open("rb") as trap:
        pickle.load(trap).close()
    assert ran.exists(), "the trap itself works"


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_damaged_weights_are_told_with_their_part(copy_of_tiny: Path, load: Load, part: str) -> None:
    (weights,) = (copy_of_tiny / part).glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:1000])
    message, hint = refusal(lambda: load(copy_of_tiny))
    assert message.startswith(f"{copy_of_tiny}/{part} does not load: ")
    assert hint == FETCH_AGAIN


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "scheduler"])
def test_a_part_that_is_not_there_is_told(copy_of_tiny: Path, load: Load, part: str) -> None:
    shutil.rmtree(copy_of_tiny / part)
    message, _ = refusal(lambda: load(copy_of_tiny))
    assert message.startswith(f"{copy_of_tiny}/{part} does not load: ")


def test_a_scheduler_of_another_prediction_is_refused(copy_of_tiny: Path, load: Load) -> None:
    config = copy_of_tiny / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "prediction_type": "sample"}))
    with pytest.raises(SineError) as caught:
        load(copy_of_tiny)
    assert caught.value.message == (
        f"{copy_of_tiny}/scheduler: prediction_type sample is not supported (epsilon, v_prediction)"
    )


@pytest.mark.parametrize("scheduler", ["EDMDPMSolverMultistepScheduler", "FlowMatchEulerDiscreteScheduler"])
def test_a_scheduler_of_another_process_is_refused(copy_of_tiny: Path, load: Load, scheduler: str) -> None:
    config = copy_of_tiny / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps({"_class_name": scheduler}))
    assert refusal(lambda: load(copy_of_tiny)) == (
        f"{config}: {scheduler} is of another diffusion process",
        "use a base of the Stable Diffusion family",
    )


def test_latents_with_a_mean_of_their_own_are_refused(copy_of_tiny: Path, load: Load) -> None:
    config = copy_of_tiny / "vae" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "latents_mean": [0.5, 0.5, 0.5, 0.5]}))
    assert refusal(lambda: load(copy_of_tiny)) == (
        f"{copy_of_tiny}/vae: latents with a mean of their own (latents_mean) are not supported",
        "use a base of the Stable Diffusion family",
    )


def test_a_folder_of_unclip_is_refused(copy_of_tiny: Path, load: Load) -> None:
    config = copy_of_tiny / "unet" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "class_embed_type": "identity"}))
    assert refusal(lambda: load(copy_of_tiny)) == (
        f"{copy_of_tiny} takes pictures beside words (unCLIP), which sine does not",
        "choose the plain base that it was made from",
    )


def test_the_bundled_weights_are_safetensors_alone() -> None:
    suffixes = {path.suffix for path in MINI.rglob("*") if path.is_file()}
    assert suffixes == {".json", ".safetensors"}
