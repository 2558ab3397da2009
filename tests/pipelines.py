"""diffusers' own pipelines as oracles: what they make of a prompt, and what their U-Net predicts for it."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.tiny import FACTOR

T = 500


def open_pipeline(folder: Path) -> Any:
    """The pipeline in a diffusers folder, of the class that its index names."""
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def is_sdxl(pipeline: Any) -> bool:
    return hasattr(pipeline, "text_encoder_2")


def noise(count: int = 1, cells: int = 16) -> Tensor:
    return torch.randn(count, 4, cells, cells, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def pipeline_prediction(pipeline: Any, prompt: str) -> Tensor:
    """The U-Net's prediction at `T` for `noise()`, conditioned as the pipeline conditions it."""
    if not is_sdxl(pipeline):
        embedding, _ = pipeline.encode_prompt(prompt, "cpu", 1, False)
        return pipeline.unet(noise(), T, embedding).sample
    embedding, _, pooled, _ = pipeline.encode_prompt(prompt, device="cpu", do_classifier_free_guidance=False)
    side = 16 * FACTOR
    ids = pipeline._get_add_time_ids(
        (side, side), (0, 0), (side, side), embedding.dtype, text_encoder_projection_dim=pooled.shape[-1]
    )
    added = {"text_embeds": pooled, "time_ids": ids}
    return pipeline.unet(noise(), T, embedding, added_cond_kwargs=added).sample
