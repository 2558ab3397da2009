"""What a single `.safetensors` file holds, told from the names and shapes of its tensors. Torch-free.

Such a file (as Stability AI, Civitai, kohya and A1111 share them) has U-Net, autoencoder and text encoders
under the names of the original code, and no configuration. Nearly all of that is in the shapes; the rest is
fixed by the family, of which there are three:

              text encoders             heads of attention          predicts       pixels
    SD 1      CLIP                      8 in every block            epsilon        512
    SD 2      OpenCLIP, without its     64 channels each            epsilon or v   512 or 768
              last layer
    SDXL      CLIP and OpenCLIP         64 channels each            epsilon        1024

What the file's own metadata says of prediction and pixels (`modelspec.*`) has the last word.
"""

import json
import re
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors import SafetensorError, safe_open

from sine_cli.errors import UserError

UNET = "model.diffusion_model."
AUTOENCODER = "first_stage_model."
CLIP_1, OPEN_CLIP_2 = "cond_stage_model.transformer.", "cond_stage_model.model."
CLIP_XL, OPEN_CLIP_XL = "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."
HEAD = 64
"""Channels of an attention head, in all that has not a fixed number of heads."""

Config = dict[str, Any]
Shapes = dict[str, tuple[int, ...]]
Family = Literal["sd1", "sd2", "sdxl"]


@dataclass(frozen=True)
class Tower:
    """A text encoder in the file.

    Attributes:
        prefix: of its tensors' names.
        kind: whose names they are.  config: for transformers' CLIPTextConfig.
        pad: the token that fills a prompt up.
        projects: whether the projection is read too, for SDXL's pooled prompt.
        skipped: beginnings of the names of tensors that the base has no use for.
    """

    prefix: str
    kind: Literal["clip", "open_clip"]
    config: Config
    pad: str
    projects: bool = False
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True)
class Architecture:
    """A base in a single file, as configurations for diffusers and transformers.

    Attributes:
        text: one text encoder; two for SDXL.
        native_pixels: pixels on a side that the base was trained at.
        half: whether the U-Net's weights are of half precision.
    """

    unet: Config
    autoencoder: Config
    text: list[Tower]
    scheduler: Config
    native_pixels: int
    half: bool


def read_architecture(path: Path) -> Architecture:
    """The architecture of the base in a single file. Reads the file's header and one small tensor.

    Raises:
        UserError: not a safetensors file, or not a whole base of one of the three families.
    """
    try:
        with safe_open(path, framework="np") as file:
            names = list(file.keys())
            shapes: Shapes = {name: tuple(file.get_slice(name).get_shape()) for name in names}
            told = file.metadata() or {}
            _refuse_empty(path, shapes)
            family = _family(path, shapes)
            predicts_v = _predicts_v(path, file, shapes, told, family)
            half = file.get_slice(f"{UNET}input_blocks.0.0.weight").get_dtype() in ("F16", "BF16")
        text, unet, autoencoder = _text(shapes, family), _unet(shapes), _autoencoder(shapes, family)
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path} is not a .safetensors file that can be read: {error}", "fetch or copy it again"
        ) from error
    except KeyError as error:
        raise UserError(
            f"{path} is not a whole base: it lacks {error.args[0]}", "fetch or copy it again"
        ) from error
    factor = 2 ** (len(autoencoder["block_out_channels"]) - 1)
    pixels = _pixels(told) or (1024 if family == "sdxl" else 768 if family == "sd2" and predicts_v else 512)
    return Architecture(
        unet={
            **unet,
            **_added(path, shapes, text),
            "sample_size": pixels // factor,
            "upcast_attention": family == "sd2",  # its attention overflows half precision
        },
        autoencoder={**autoencoder, "sample_size": pixels},
        text=text,
        scheduler=_scheduler(shapes, predicts_v),
        native_pixels=pixels,
        half=half,
    )


def _refuse_empty(path: Path, shapes: Shapes) -> None:
    """A tensor without numbers may have a side of any length, which would become the size of something.

    Marks such as SDXL's `v_pred` have no side at all.
    """
    for name, shape in shapes.items():
        if 0 in shape and max(shape) > 0:
            raise UserError(f"{path} is no sound base: {name} has no numbers", "fetch or copy it again")


def _family(path: Path, shapes: Shapes) -> Family:
    """By the text encoders that are there. Raises UserError where the file is no such base."""
    if not any(name.startswith(UNET) for name in shapes):
        is_lora = any("lora" in name for name in shapes)
        raise UserError(
            f"{path} is not a base: it has no U-Net under Stable Diffusion's names ({UNET}...)",
            f"a LoRA goes beside a base: `sine edit PROMPT --lora {path}`"
            if is_lora
            else "choose a whole Stable Diffusion 1, 2 or XL checkpoint",
        )
    clip, open_clip = "text_model.embeddings.token_embedding.weight", "token_embedding.weight"
    families: dict[Family, list[str]] = {
        "sd1": [CLIP_1 + clip],
        "sd2": [OPEN_CLIP_2 + open_clip],
        "sdxl": [CLIP_XL + clip, OPEN_CLIP_XL + open_clip],
    }
    for family, embeddings in families.items():
        if all(name in shapes for name in (*embeddings, f"{AUTOENCODER}decoder.conv_in.weight")):
            return family
    raise UserError(
        f"{path} is not a whole base: it lacks the text encoder or the autoencoder of SD 1, SD 2 or SDXL",
        "choose a checkpoint that has U-Net, text encoder and autoencoder in one file; refiners are none",
    )


def _predicts_v(path: Path, file: Any, shapes: Shapes, told: dict[str, str], family: Family) -> bool:
    """Whether the model predicts v: as the file says, else by its family."""
    said = told.get("modelspec.prediction_type", "").removesuffix("_prediction")
    if said in ("v", "epsilon"):
        return said == "v"
    if "v_pred" in shapes:  # another such mark
        return True
    if family != "sd2":
        return False
    # Both kinds of SD 2 have the same shapes. This bias is far wider in those of v: ComfyUI's way to tell.
    outputs = _count(shapes, UNET + "output_blocks.{}.0.in_layers.0.weight")
    last = f"{UNET}output_blocks.{outputs - 1}.1.transformer_blocks.0.norm1.bias"
    kind = file.get_slice(last).get_dtype()
    if kind not in ("F32", "F16", "BF16"):
        return True
    bias = _bfloat16(path, last) if kind == "BF16" else file.get_tensor(last).astype(np.float32)
    return float(np.std(bias)) > 0.09


def _bfloat16(path: Path, name: str) -> "np.ndarray[Any, np.dtype[np.float32]]":
    """A tensor that numpy has no type for, from its bytes; the file was found sound before."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        start, end = json.loads(file.read(length))[name]["data_offsets"]
        file.seek(8 + length + start)
        halves = np.frombuffer(file.read(end - start), "<u2")
    return (halves.astype(np.uint32) << 16).view(np.float32)


def _pixels(told: dict[str, str]) -> int | None:
    """Of a side, where the metadata says so, as "1024x1024"."""
    match = re.fullmatch(r"(\d{2,5})x(\d{2,5})", told.get("modelspec.resolution", ""))
    return min(int(match[1]), int(match[2])) if match else None


def _unet(shapes: Shapes) -> Config:
    """The configuration of diffusers' UNet2DConditionModel, but for its native size."""
    levels = _levels(shapes)
    attention = f"{UNET}middle_block.1."
    is_linear = len(shapes[f"{attention}proj_in.weight"]) == 2
    channels = [level.channels for level in levels]
    depths = [*(level.depth for level in levels[:-1]), _depth(shapes, attention)]
    return {
        "in_channels": shapes[f"{UNET}input_blocks.0.0.weight"][1],
        "out_channels": shapes[f"{UNET}out.2.weight"][0],
        "block_out_channels": channels,
        "layers_per_block": levels[0].layers,
        "down_block_types": ["CrossAttnDownBlock2D" if level.depth else "DownBlock2D" for level in levels],
        "up_block_types": [
            "CrossAttnUpBlock2D" if level.depth else "UpBlock2D" for level in reversed(levels)
        ],
        "transformer_layers_per_block": [max(1, depth) for depth in depths],  # the middle has the last one's
        "cross_attention_dim": shapes[f"{attention}transformer_blocks.0.attn2.to_k.weight"][1],
        # The name is diffusers' old slip: these are the numbers of heads.
        "attention_head_dim": [max(1, each // HEAD) for each in channels] if is_linear else 8,
        "use_linear_projection": is_linear,
    }


def _added(path: Path, shapes: Shapes, text: list[Tower]) -> Config:
    """What the U-Net is told besides time and words: SDXL's sizes, crop and pooled prompt."""
    added = shapes.get(f"{UNET}label_emb.0.0.weight")
    if added is None:
        return {}
    if len(text) != 2:
        raise UserError(
            f"{path} takes pictures beside words (unCLIP), which sine does not",
            "choose a plain SD 2 checkpoint",
        )
    return {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": (added[1] - text[1].config["projection_dim"]) // 6,
        "projection_class_embeddings_input_dim": added[1],
    }


@dataclass
class _Level:
    """The blocks of one resolution; `depth` transformer layers in each attention, 0 for none."""

    channels: int = 0
    layers: int = 0
    depth: int = 0


def _levels(shapes: Shapes) -> list[_Level]:
    """From the finest resolution down."""
    levels = [_Level()]
    for index in count(1):
        block = f"{UNET}input_blocks.{index}."
        if f"{block}0.op.weight" in shapes:  # halves the resolution
            levels.append(_Level())
            continue
        convolution = shapes.get(f"{block}0.out_layers.3.weight")
        if convolution is None:
            return levels
        levels[-1].channels = convolution[0]
        levels[-1].layers += 1
        levels[-1].depth = _depth(shapes, f"{block}1.")
    raise AssertionError("unreachable: the file has an end")


def _depth(shapes: Shapes, attention: str) -> int:
    return _count(shapes, attention + "transformer_blocks.{}.norm1.weight")


def _count(shapes: Shapes, name: str) -> int:
    """How many of `name`, with 0, 1, ... in it, there are."""
    return sum(1 for _ in takewhile(lambda index: name.format(index) in shapes, count()))


def _autoencoder(shapes: Shapes, family: Family) -> Config:
    """The configuration of diffusers' AutoencoderKL."""
    encoder = f"{AUTOENCODER}encoder."
    levels = _count(shapes, encoder + "down.{}.block.0.conv1.weight")
    return {
        "in_channels": shapes[f"{encoder}conv_in.weight"][1],
        "block_out_channels": [
            shapes[f"{encoder}down.{level}.block.0.conv1.weight"][0] for level in range(levels)
        ],
        "layers_per_block": _count(shapes, encoder + "down.0.block.{}.conv1.weight"),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "latent_channels": shapes[f"{AUTOENCODER}decoder.conv_in.weight"][1],
        "scaling_factor": 0.13025 if family == "sdxl" else 0.18215,
    }


def _text(shapes: Shapes, family: Family) -> list[Tower]:
    if family == "sd1":
        return [_clip(shapes, CLIP_1)]
    if family == "sd2":
        return [_open_clip(shapes, OPEN_CLIP_2, projects=False)]
    return [_clip(shapes, CLIP_XL), _open_clip(shapes, OPEN_CLIP_XL, projects=True)]


def _clip(shapes: Shapes, prefix: str) -> Tower:
    """OpenAI's CLIP, under transformers' names."""
    inner = f"{prefix}text_model."
    layer = inner + "encoder.layers.{}.mlp.fc1.weight"
    words, width = shapes[f"{inner}embeddings.token_embedding.weight"]
    length = shapes[f"{inner}embeddings.position_embedding.weight"][0]
    sizes = _tower_config(words, width, length, _count(shapes, layer), shapes[layer.format(0)][0])
    return Tower(prefix, "clip", {**sizes, "hidden_act": "quick_gelu"}, pad="<|endoftext|>")


def _open_clip(shapes: Shapes, prefix: str, *, projects: bool) -> Tower:
    """OpenCLIP, under its own names. SD 2 reads its last but one layer: the last is dropped, if it is there.

    It is where the projection is; converters that drop the one drop the other.
    """
    layer = prefix + "transformer.resblocks.{}.mlp.c_fc.weight"
    words, width = shapes[f"{prefix}token_embedding.weight"]
    length = shapes[f"{prefix}positional_embedding"][0]
    layers = _count(shapes, layer)
    skipped: tuple[str, ...] = ()
    if not projects and f"{prefix}text_projection" in shapes:
        layers -= 1
        skipped = (f"{prefix}transformer.resblocks.{layers}.", f"{prefix}text_projection")
    config = {**_tower_config(words, width, length, layers, shapes[layer.format(0)][0]), "hidden_act": "gelu"}
    if projects:
        config["projection_dim"] = shapes[f"{prefix}text_projection"][1]
    return Tower(prefix, "open_clip", config, pad="!", projects=projects, skipped=skipped)


def _tower_config(words: int, width: int, length: int, layers: int, inner: int) -> Config:
    return {
        "vocab_size": words,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": max(1, width // HEAD),
        "max_position_embeddings": length,
        "bos_token_id": words - 2,
        "eos_token_id": words - 1,
    }


def _scheduler(shapes: Shapes, predicts_v: bool) -> Config:
    """The configuration of diffusers' DDIMScheduler: the noise levels that all three families share."""
    to_pure_noise = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return {
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
        "prediction_type": "v_prediction" if predicts_v else "epsilon",
        **(to_pure_noise if "ztsnr" in shapes else {}),  # a mark that the trainers of SDXL leave
    }
