"""LoRA files of other tools: what we write works there at full strength, and theirs works here.

The oracles: diffusers' own loaders for its form and kohya's; and for ComfyUI, its rule of names and weights,
applied to the layers of a single file: `lora_unet_` and the layer's name, W + alpha / rank * up down.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from torch import Tensor

from sine_cli.errors import UserError
from sine_cli.method.guidance import Branch
from sine_cli.method.position import FREQUENCIES, WHOLE
from sine_cli.models.adapter import Adapter, attach_adapter, merge, tuned_models
from sine_cli.models.backbone import UNetBackbone
from sine_cli.models.base import Base, load_parts
from sine_cli.models.lora_files import USER_LORA, State, attach_user_lora, for_diffusers, for_kohya
from sine_cli.models.parts import write_folder
from sine_cli.models.rows import TUNED
from tests.original import original_state
from tests.pipelines import T, noise, open_pipeline, pipeline_prediction
from tests.tiny import FAMILIES, Family

PROMPT = "a photo of sks castle"
Load = Callable[[Path], Base]


def filled_adapter(unet: object, *, rank: int = 4, targets: str = "attention+resnet") -> Adapter:
    """As if tuned long and hard."""
    adapter = attach_adapter(unet, rank=rank, targets=targets, frequencies=FREQUENCIES, seed=0)
    generator = torch.Generator().manual_seed(1)
    for parameter in [*adapter.unet_parameters(), *adapter.position_parameters()]:
        parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    return adapter


def rows(base: Base, adapter: Adapter | None = None, **how: str) -> tuple[Tensor, Tensor]:
    """The base's prediction and, without position, the tuned model's."""
    adapters = [adapter] if adapter else []
    backbone = UNetBackbone(base.unet, tuned_models(*adapters), factor=base.autoencoder.factor, **how)
    (prompt,) = base.text.encode([PROMPT])
    base_row, tuned_row = backbone(noise(), T, [Branch(prompt), Branch(prompt, None, tuned=TUNED)])
    return base_row, tuned_row


def saved(tmp_path: Path, state: State) -> Path:
    file = tmp_path / "lora.safetensors"
    save_file(state, file)
    return file


def lora_of(base: Base, form: str) -> State:
    lora = filled_adapter(base.unet).unet_state()
    return for_diffusers(lora) if form == "diffusers" else for_kohya(lora, base.unet.config)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("form", ["diffusers", "kohya"])
def test_in_a_diffusers_pipeline_the_lora_is_the_tuned_model(
    families: dict[str, Path], load: Load, tmp_path: Path, family: Family, form: str
) -> None:
    base = load(families[family])
    adapter = filled_adapter(base.unet)
    untuned, tuned = rows(base, adapter)
    lora = adapter.unet_state()
    file = saved(tmp_path, for_diffusers(lora) if form == "diffusers" else for_kohya(lora, base.unet.config))
    pipeline = open_pipeline(families[family])
    torch.testing.assert_close(pipeline_prediction(pipeline, PROMPT), untuned, rtol=0, atol=1e-4)
    pipeline.load_lora_weights(tmp_path, weight_name=file.name)
    torch.testing.assert_close(pipeline_prediction(pipeline, PROMPT), tuned, rtol=0, atol=1e-4)
    assert not torch.allclose(tuned, untuned, atol=1e-2)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_merged_folder_is_the_tuned_model(
    families: dict[str, Path], load: Load, tmp_path: Path, family: Family
) -> None:
    base = load(families[family])
    _, tuned = rows(base, filled_adapter(base.unet))
    parts = load_parts(families[family], None, torch.float32)
    merge(filled_adapter(parts.unet), parts.unet, [])
    write_folder(parts, tmp_path / "merged")
    prediction = pipeline_prediction(open_pipeline(tmp_path / "merged"), PROMPT)
    torch.testing.assert_close(prediction, tuned, rtol=0, atol=1e-4)
    again, _ = rows(load(tmp_path / "merged"))
    torch.testing.assert_close(again, tuned, rtol=0, atol=1e-4)


@pytest.mark.parametrize("fresh", [False, True])
def test_a_merged_folder_has_the_text_model_under_the_name_that_all_loaders_know(
    families: dict[str, Path], tmp_path: Path, fresh: bool
) -> None:
    """One that was filled from a single file does not know that its files had a prefix."""
    parts = load_parts(families["sd1"], None, torch.float32)
    ((tokenizer, model),) = parts.text
    if fresh:
        filled = type(model)(model.config)
        filled.load_state_dict(model.state_dict())
        parts.text = [(tokenizer, filled)]
    write_folder(parts, tmp_path / "merged")
    written = load_file(tmp_path / "merged" / "text_encoder" / "model.safetensors")
    assert all(name.startswith("text_model.") for name in written)
    ((_, again),) = load_parts(tmp_path / "merged", None, torch.float32).text
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)


def test_by_comfyui_s_rule_the_kohya_file_makes_sdxl_the_merged_model(
    families: dict[str, Path], tmp_path: Path
) -> None:
    parts = load_parts(families["sdxl"], None, torch.float32)
    adapter = filled_adapter(parts.unet)
    lora = for_kohya(adapter.unet_state(), parts.unet.config)
    merge(adapter, parts.unet, [])
    write_folder(parts, tmp_path / "merged")
    weights, merged = original_state(families["sdxl"]), original_state(tmp_path / "merged")
    names = {
        "lora_unet_"
        + name.removeprefix("model.diffusion_model.").removesuffix(".weight").replace(".", "_"): name
        for name in weights
    }
    layers = {key.partition(".")[0] for key in lora}
    assert layers <= names.keys(), "every layer is found by its name"
    for layer in layers:
        down, up = lora[f"{layer}.lora_down.weight"], lora[f"{layer}.lora_up.weight"]
        scale = float(lora[f"{layer}.alpha"]) / len(down)
        name = names[layer]
        change = (up.flatten(1) @ down.flatten(1)).reshape(weights[name].shape)
        torch.testing.assert_close(weights[name] + scale * change, merged[name], rtol=0, atol=1e-5)
        assert not torch.equal(weights[name], merged[name])


def test_merging_leaves_nothing_of_peft(families: dict[str, Path]) -> None:
    unet = load_parts(families["sd1"], None, torch.float32).unet
    names = set(unet.state_dict())
    merge(filled_adapter(unet), unet, [])
    assert set(unet.state_dict()) == names


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("form", ["diffusers", "kohya"])
def test_a_user_lora_is_on_the_base_rows_alone_at_its_strength(
    families: dict[str, Path], load: Load, tmp_path: Path, family: Family, form: str
) -> None:
    """A LoRA of alpha 2 and rank 4, at a strength of 0.5, is one of scale 0.25; kohya's form says alpha."""
    other, plain = load(families[family]), load(families[family])
    state = lora_of(other, form)
    meant = 1.0
    if form == "kohya":
        state = {name: 0.5 * t if name.endswith(".alpha") else t for name, t in state.items()}
        meant = 0.5
    base = load(families[family])
    assert attach_user_lora(base.unet, saved(tmp_path, state), 0.5) == []
    adapter = filled_adapter(base.unet, targets="attention")
    changed, tuned = rows(base, adapter, base_rows=USER_LORA)
    _, alone = rows(plain, filled_adapter(plain.unet, targets="attention"))
    torch.testing.assert_close(tuned, alone, rtol=0, atol=1e-5)
    expected = load(families[family])
    merged = filled_adapter(expected.unet)
    for name, parameter in expected.unet.named_parameters():
        if "lora_B" in name:
            parameter.data *= 0.5 * meant
    merge(merged, expected.unet, [])
    torch.testing.assert_close(changed, rows(expected)[0], rtol=0, atol=1e-4)


def with_own_strengths(state: State, *, folded: bool) -> State:
    """Each layer of kohya's form with a rank and alpha of its own, or the same strengths in its weights."""
    changed: State = {}
    layers = sorted({name.partition(".")[0] for name in state})
    for number, layer in enumerate(layers):
        rank, alpha = 2 + number % 3, float(1 + number % 4)
        scale = alpha / rank if folded else 1.0
        changed[f"{layer}.lora_down.weight"] = state[f"{layer}.lora_down.weight"][:rank].clone()
        changed[f"{layer}.lora_up.weight"] = scale * state[f"{layer}.lora_up.weight"][:, :rank]
        changed[f"{layer}.alpha"] = torch.tensor(float(rank) if folded else alpha)
    return changed


@pytest.mark.parametrize("family", FAMILIES)
def test_each_layer_of_a_user_lora_has_its_own_alpha(
    families: dict[str, Path], load: Load, tmp_path: Path, family: Family
) -> None:
    state = lora_of(load(families[family]), "kohya")
    several, one = load(families[family]), load(families[family])
    attach_user_lora(several.unet, saved(tmp_path, with_own_strengths(state, folded=False)), 1.0)
    attach_user_lora(one.unet, saved(tmp_path, with_own_strengths(state, folded=True)), 1.0)
    plain, _ = rows(load(families[family]))
    changed, expected = (rows(base, base_rows=USER_LORA)[0] for base in (several, one))
    torch.testing.assert_close(changed, expected, rtol=0, atol=1e-4)
    scales = {
        name: layer.scaling[USER_LORA]
        for name, layer in several.unet.named_modules()
        if USER_LORA in getattr(layer, "lora_A", {})
    }
    assert set(scales.values()) == {1.0}, "in the weights"
    assert not torch.allclose(changed, plain, atol=1e-2)


def test_the_alpha_in_the_header_of_diffusers_form_counts(
    families: dict[str, Path], load: Load, tmp_path: Path
) -> None:
    lora = filled_adapter(load(families["sd1"]).unet).unet_state()
    config = LoraConfig(r=4, lora_alpha=1, target_modules=sorted({n.rpartition(".lora")[0] for n in lora}))
    pipeline = open_pipeline(families["sd1"])
    pipeline.save_lora_weights(tmp_path, lora, unet_lora_adapter_metadata=config.to_dict())
    (file,) = tmp_path.glob("*.safetensors")
    pipeline.load_lora_weights(tmp_path, weight_name=file.name)
    base = load(families["sd1"])
    attach_user_lora(base.unet, file, 1.0)
    changed, _ = rows(base, base_rows=USER_LORA)
    torch.testing.assert_close(changed, pipeline_prediction(pipeline, PROMPT), rtol=0, atol=1e-4)
    full = load(families["sd1"])
    attach_user_lora(full.unet, saved(tmp_path, for_diffusers(lora)), 1.0)
    assert not torch.allclose(changed, rows(full, base_rows=USER_LORA)[0], atol=1e-2)


@pytest.mark.parametrize(
    ("ending", "tensor"),
    [
        (".alpha", torch.ones(2, 2)),
        (".alpha", torch.ones(0)),
        (".lora_up.weight", torch.ones(4)),
        (".lora_up.weight", torch.ones(4, 0)),
    ],
)
def test_a_layer_of_no_use_is_told(
    families: dict[str, Path], load: Load, tmp_path: Path, ending: str, tensor: Tensor
) -> None:
    state = lora_of(load(families["sd1"]), "kohya")
    name = next(name for name in state if name.endswith(ending))
    message = refusal(load(families["sd1"]), saved(tmp_path, {**state, name: tensor}))
    assert message.startswith(f"{tmp_path / 'lora.safetensors'} does not fit this base: ")


@pytest.mark.parametrize("header", ["[" * 100_000, "[]", "{}", '{"unet.r": "x"}', '{"unet.nothing": 1}'])
def test_a_header_of_another_kind_is_told_or_left(
    families: dict[str, Path], load: Load, tmp_path: Path, header: str
) -> None:
    file = tmp_path / "lora.safetensors"
    save_file(lora_of(load(families["sd1"]), "diffusers"), file, {"lora_adapter_metadata": header})
    base = load(families["sd1"])
    if "unet." in header:
        assert "does not fit this base" in refusal(base, file)
    else:
        assert attach_user_lora(base.unet, file, 1.0) == []


def test_a_user_lora_changes_nothing_of_the_adapter_s_own_tensors(
    families: dict[str, Path], load: Load, tmp_path: Path
) -> None:
    state = lora_of(load(families["sd1"]), "diffusers")
    plain, changed = load(families["sd1"]), load(families["sd1"])
    attach_user_lora(changed.unet, saved(tmp_path, state), 1.0)
    before, after = (filled_adapter(base.unet, targets="attention").unet_state() for base in (plain, changed))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_layers_of_text_encoders_are_left_out_aloud(
    families: dict[str, Path], load: Load, tmp_path: Path
) -> None:
    base = load(families["sd1"])
    state = lora_of(load(families["sd1"]), "kohya")
    text = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
    more = {f"{text}.lora_down.weight": torch.ones(4, 64), f"{text}.lora_up.weight": torch.ones(64, 4)}
    file = saved(tmp_path, {**state, **more, f"{text}.alpha": torch.tensor(4.0)})
    assert attach_user_lora(base.unet, file, 1.0) == ["text_encoder"]


def refusal(base: Base, file: Path) -> str:
    with pytest.raises(UserError) as caught:
        attach_user_lora(base.unet, file, 1.0)
    assert (
        caught.value.hint == "give a LoRA for this kind of base, as diffusers or kohya's trainer writes them"
    )
    return caught.value.message


def test_files_that_are_no_lora_for_this_base_are_refused(
    families: dict[str, Path], load: Load, tmp_path: Path
) -> None:
    base = load(families["sd1"])
    file = saved(tmp_path, {"weight": torch.zeros(2)})
    assert refusal(base, file) == f"{file} is not a LoRA"
    saved(tmp_path, {"lora_unet_down_blocks_0_attentions_0_proj_in.hada_w1_a": torch.zeros(2, 2)})
    assert refusal(base, file).startswith(f"{file} does not fit this base: ")
    text = {"text_encoder.layers.0.q_proj.lora_A.weight": torch.zeros(2, 2)}
    saved(tmp_path, text)
    assert refusal(base, file) == f"{file} has nothing for the U-Net"
    dora = f"{file} is a DoRA, whose scaled weights do not fit beside adapters"
    for name in ("lora_unet_mid_block_proj_in.dora_scale", "unet.proj_in.lora_magnitude_vector"):
        saved(tmp_path, {**text, name: torch.zeros(2)})
        assert refusal(base, file) == dora
    file.write_bytes(b"not tensors")
    assert refusal(base, file).startswith(f"{file} is not a .safetensors file that can be read: ")


@pytest.mark.parametrize("form", ["diffusers", "kohya"])
@pytest.mark.parametrize(("theirs", "ours"), [("sd2", "sd1"), ("sdxl", "sd1"), ("sd1", "sdxl")])
def test_a_lora_of_another_family_is_refused(
    families: dict[str, Path], load: Load, tmp_path: Path, theirs: Family, ours: Family, form: str
) -> None:
    file = saved(tmp_path, lora_of(load(families[theirs]), form))
    assert refusal(load(families[ours]), file).startswith(f"{file} does not fit this base: ")


def test_position_is_no_part_of_what_is_written(families: dict[str, Path], load: Load) -> None:
    """With its box the tuned model differs from what other tools make of it: that stays behind."""
    base = load(families["sd1"])
    adapter = filled_adapter(base.unet)
    backbone = UNetBackbone(base.unet, tuned_models(adapter), factor=base.autoencoder.factor)
    (prompt,) = base.text.encode([PROMPT])
    without, with_box = backbone(
        noise(), T, [Branch(prompt, None, tuned=TUNED), Branch(prompt, torch.tensor(WHOLE), tuned=TUNED)]
    )
    assert not torch.allclose(without, with_box, atol=1e-3)
    assert len(for_diffusers(adapter.unet_state())) == len(adapter.unet_parameters())
