"""What a large base takes: SD 1.5 and SDXL in their real shapes, random weights, on a picture of 2:3.

    python -m tests.benchmarks.memory [--work DIR] [--bases sd15,sdxl] [--steps 10] [--pool 16]

For each base, with and without `--memory low`: the seconds of a tuning of so many steps, loading and encoding
among them, and of an edit, and the peak memory of each command: the accelerator's where there is one, else
the process's. Weights cost neither more nor less for being random. The bases are kept in DIR, 2 and 7 GB.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from sine_cli.models.single_file import clip_tokenizer
from sine_cli.project.folder import Project
from sine_cli.project.manifest import load_manifest, write_manifest
from sine_cli.project.presets import load_preset
from sine_cli.workflow.init import InitRequest, init
from tests.benchmarks.fidelity import HERE, show
from tests.tiny import scheduler

PICTURE = HERE.parent / "pictures" / "cat.jpg"

UNETS: dict[str, dict[str, Any]] = {
    "sd15": {"sample_size": 64, "cross_attention_dim": 768},  # the rest is the class's default
    "sdxl": {
        "sample_size": 128,
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": (5, 10, 20),
        "transformer_layers_per_block": (1, 2, 10),
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}
AUTOENCODER: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
}
CLIP_L = CLIPTextConfig(
    vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12
)
CLIP_G = CLIPTextConfig(
    vocab_size=49408,
    hidden_size=1280,
    intermediate_size=5120,
    num_hidden_layers=32,
    num_attention_heads=20,
    projection_dim=1280,
    hidden_act="gelu",
)


def write_base(folder: Path, name: str) -> None:
    """The base's own shapes with random weights, in half precision, as diffusers keeps them."""
    large = name == "sdxl"
    towers: list[Any] = [CLIPTextModel(CLIP_L), *([CLIPTextModelWithProjection(CLIP_G)] if large else [])]
    index: dict[str, Any] = {
        "_class_name": "StableDiffusionXLPipeline" if large else "StableDiffusionPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", "DDIMScheduler"],
    }
    for number, tower in enumerate(towers):
        suffix = "_2" if number else ""
        tower.half().save_pretrained(folder / f"text_encoder{suffix}")
        clip_tokenizer("!" if number else "<|endoftext|>", 77).save_pretrained(folder / f"tokenizer{suffix}")
        index[f"text_encoder{suffix}"] = ["transformers", type(tower).__name__]
        index[f"tokenizer{suffix}"] = ["transformers", "CLIPTokenizer"]
    AutoencoderKL(
        **AUTOENCODER,
        sample_size=1024 if large else 512,
        scaling_factor=0.13025 if large else 0.18215,
    ).half().save_pretrained(folder / "vae")
    torch.set_default_dtype(torch.float16)  # at once, as SDXL's U-Net would take 10 GB in float32
    UNet2DConditionModel(**UNETS[name]).save_pretrained(folder / "unet")
    torch.set_default_dtype(torch.float32)
    scheduler("epsilon").save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps(index), "utf-8")


class Figures(NamedTuple):
    """Seconds of one tuning step and of one edit; bytes at the peak of each command."""

    tuning_seconds: float
    tuning_memory: int
    edit_seconds: float
    edit_memory: int


def measured(
    base: Path, name: str, memory: str, work: Path, *, steps: int, pool: int, edit_steps: int
) -> Figures:
    """A project with the values of the base's preset, but for the length of the work, tuned and edited."""
    project, preset = Project(work / f"{name}-{memory}"), load_preset(name)
    shutil.rmtree(project.root, ignore_errors=True)  # what is tuned already is not tuned again
    init(InitRequest(PICTURE, "cat", base=str(base), folder=project.root))
    manifest = load_manifest(project.manifest_path)
    short = {"steps": steps, "pool": pool, "preview_every": 0}
    settings = {
        "tune": preset.tune.model_copy(update=short),
        "edit": preset.edit.model_copy(update={"steps": edit_steps}),
    }
    write_manifest(project.manifest_path, manifest.model_copy(update=settings))
    tuned = sine(project, "tune", "--memory", memory)
    run = sine(project, "edit", "a cat in the snow", "--memory", memory)["runs"][0]
    return Figures(tuned["seconds"], tuned["peak_memory"], run["seconds"], run["peak_memory"])


def sine(project: Project, *arguments: str) -> dict[str, Any]:
    """One command in a process of its own, so that its peak is its own; what `--json` gives."""
    command = [sys.executable, "-m", "sine_cli", *arguments, "--json", "--project", str(project.root)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("bench-memory"))
    parser.add_argument("--bases", default="sd15,sdxl")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--edit-steps", type=int, default=25)
    parser.add_argument("--pool", type=int, default=16)
    options = parser.parse_args()
    show(
        ["base", "memory", f"s a tuning of {options.steps} steps", "tuning, GiB", "s an edit", "edit, GiB"],
        ["---"] * 6,
    )
    for name in options.bases.split(","):
        base = options.work / f"{name}-random"
        if not (base / "model_index.json").exists():
            write_base(base, name)
        for memory in ("normal", "low"):
            figures = measured(
                base,
                name,
                memory,
                options.work,
                steps=options.steps,
                pool=options.pool,
                edit_steps=options.edit_steps,
            )
            peaks = (f"{peak / 2**30:.1f}" for peak in (figures.tuning_memory, figures.edit_memory))
            seconds = (f"{each:.2f}" for each in (figures.tuning_seconds, figures.edit_seconds))
            row = (cell for pair in zip(seconds, peaks, strict=True) for cell in pair)
            show([name, memory, *row])


if __name__ == "__main__":
    main()
