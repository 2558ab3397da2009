"""Tiny bases of every family and a tiny CLIP, with random weights, and hub caches of them."""

import json
import shutil
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
)

import sine_cli
from sine_cli.method.schedule import Prediction
from sine_cli.models.single_file import clip_tokenizer

MINI = Path(sine_cli.__file__).parent / "mini" / "weights"
"""The bundled base."""

FACTOR = 4
"""Pixels a latent cell of the tiny base, on each side."""

NATIVE = 16 * FACTOR
"""Pixels on a side that the tiny base is made for."""

INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
    "scheduler": ["diffusers", "DDIMScheduler"],
}


AUTOENCODER: dict[str, Any] = {
    "block_out_channels": (8, 16, 16),
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "latent_channels": 4,
    "norm_num_groups": 4,
    "sample_size": NATIVE,
}


def write_tiny_base(
    folder: Path, prediction: Prediction = "epsilon", variants: tuple[str | None, ...] = (None,)
) -> Path:
    """Write the base as diffusers does; `variants`: None for float32 weights, "fp16" for halved ones."""
    tokens = json.loads((MINI / "tokenizer" / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        parts: dict[str, Any] = {
            "unet": UNet2DConditionModel(
                sample_size=NATIVE // FACTOR,
                in_channels=4,
                out_channels=4,
                layers_per_block=1,
                block_out_channels=(32, 64),
                norm_num_groups=8,
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
                cross_attention_dim=32,
                attention_head_dim=8,
            ),
            "vae": AutoencoderKL(**AUTOENCODER),
            "text_encoder": CLIPTextModel(
                CLIPTextConfig(
                    vocab_size=len(tokens),
                    hidden_size=32,
                    intermediate_size=64,
                    num_attention_heads=4,
                    num_hidden_layers=2,
                    max_position_embeddings=24,
                    bos_token_id=1,
                    eos_token_id=2,
                    pad_token_id=2,
                )
            ),
        }
    for variant in variants:
        for name, model in parts.items():
            (model.half() if variant else model).save_pretrained(folder / name, variant=variant)
    scheduler(prediction).save_pretrained(folder / "scheduler")
    shutil.copytree(MINI / "tokenizer", folder / "tokenizer")
    (folder / "model_index.json").write_text(json.dumps(INDEX), "utf-8")
    return folder


Family = Literal["sd1", "sd2", "sdxl"]
FAMILIES: tuple[Family, ...] = ("sd1", "sd2", "sdxl")

UNETS: dict[Family, dict[str, Any]] = {
    "sd1": {
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "layers_per_block": 2,
        "block_out_channels": (32, 64),
        "attention_head_dim": 8,
        "cross_attention_dim": 64,
    },
    "sd2": {
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "layers_per_block": 1,
        "block_out_channels": (64, 128),
        "attention_head_dim": (1, 2),
        "use_linear_projection": True,
        "cross_attention_dim": 64,
    },
    "sdxl": {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 1,
        "block_out_channels": (32, 64),
        "attention_head_dim": (1, 1),
        "use_linear_projection": True,
        "transformer_layers_per_block": (1, 2),
        "cross_attention_dim": 128,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 48 + 6 * 8,
    },
}
"""Each family's U-Net in small: its kinds of blocks, attention and conditions."""


def write_tiny_family(folder: Path, family: Family) -> Path:
    """Write a base of the family as diffusers does, with CLIP's own vocabulary; SD 2 is of v-prediction."""
    tower: dict[str, Any] = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_attention_heads": 1,
        "vocab_size": 49408,
    }
    clip = CLIPTextConfig(**tower, num_hidden_layers=2, hidden_act="quick_gelu")
    open_clip = CLIPTextConfig(**tower, num_hidden_layers=3, hidden_act="gelu", projection_dim=48)
    first = CLIPTextModel, open_clip if family == "sd2" else clip
    text = [first, (CLIPTextModelWithProjection, open_clip)] if family == "sdxl" else [first]
    index: dict[str, Any] = {
        **INDEX,
        "_class_name": "StableDiffusionXLPipeline" if family == "sdxl" else "StableDiffusionPipeline",
        "safety_checker": [None, None],
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        UNet2DConditionModel(sample_size=NATIVE // FACTOR, **UNETS[family]).save_pretrained(folder / "unet")
        AutoencoderKL(
            **{**AUTOENCODER, "block_out_channels": (32, 32, 32), "norm_num_groups": 32},
            scaling_factor=0.13025 if family == "sdxl" else 0.18215,
        ).save_pretrained(folder / "vae")
        for number, (model_class, config) in enumerate(text, start=1):
            suffix = "" if number == 1 else "_2"
            model_class(config).save_pretrained(folder / f"text_encoder{suffix}")
            pad = "<|endoftext|>" if config is clip else "!"
            clip_tokenizer(pad, 77).save_pretrained(folder / f"tokenizer{suffix}")
            index[f"text_encoder{suffix}"] = ["transformers", model_class.__name__]
            index[f"tokenizer{suffix}"] = ["transformers", "CLIPTokenizer"]
    scheduler("v_prediction" if family == "sd2" else "epsilon").save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps(index), "utf-8")
    return folder


def single_file_metadata(family: Family) -> dict[str, str]:
    """What a file of a tiny base must say of itself, because it differs from the families' own."""
    said = {"modelspec.resolution": f"{NATIVE}x{NATIVE}"}
    return {**said, "modelspec.prediction_type": "v"} if family == "sd2" else said


def scheduler(prediction: Prediction) -> DDIMScheduler:
    """Stable Diffusion's."""
    return DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type=prediction,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def write_tiny_clip(folder: Path) -> Path:
    """Write a CLIP model as transformers does, with mini's tokenizer; it takes pictures of 32x32 pixels."""
    shutil.copytree(MINI / "tokenizer", folder)
    tokens = json.loads((folder / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_hidden_layers": 3}
    text = {
        **tower,
        "vocab_size": len(tokens),
        "max_position_embeddings": 24,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
    }
    vision = {**tower, "image_size": 32, "patch_size": 8}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        # A large factor, so that random embeddings of different pictures and words differ.
        config = CLIPConfig(
            text_config={**text, "initializer_factor": 4.0},
            vision_config={**vision, "initializer_factor": 4.0},
            projection_dim=16,
        )
        CLIPModel(config).save_pretrained(folder)
    preprocessor = {
        "size": {"shortest_edge": 32},
        "crop_size": {"height": 32, "width": 32},
        "image_mean": [0.5, 0.4, 0.3],
        "image_std": [0.2, 0.25, 0.3],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor), "utf-8")
    return folder


def write_hub_cache(cache: Path, repository: str, commit: str, model: Path) -> Path:
    """Lay a model out as the hub's client keeps a repository; its snapshot's folder."""
    root = cache / f"models--{repository.replace('/', '--')}"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(commit)
    snapshot = root / "snapshots" / commit
    shutil.copytree(model, snapshot)
    return snapshot
