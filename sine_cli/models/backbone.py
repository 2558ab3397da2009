"""The U-Net as the method sees it: base and tuned rows in one call.

The tuned model is the base with a LoRA and a position. Base rows see neither, bit for bit: peft keeps the
LoRA off the rows named `__base__`, and the position is added to the rows that have a box. SDXL's U-Net is
told of that box in its own words too; rows without one show the whole picture.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.models.attention_processor import AttnProcessor
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from sine_cli.method.guidance import Branch
from sine_cli.method.position import WHOLE, Position
from sine_cli.models.sdxl import size_and_crop
from sine_cli.models.text import Conditioning

TUNED = "tuned"
"""The adapter's name within peft."""

SMALL_LATENTS = 32
"""Cells on a side up to which plain attention takes little memory."""

BASE = "__base__"
"""peft's name for rows without an adapter."""


class UNetBackbone:
    """A diffusers U-Net with, once there is an adapter, LoRA layers and a position.

    Args:
        unet: UNet2DConditionModel.
        position: the position module of the adapter; None gives no row a position.
        factor: s, pixels a latent cell on each side.
        base_rows: peft's name of what base rows get: nothing, or the user's own LoRA.
    """

    def __init__(
        self, unet: Any, position: Position | None = None, *, factor: int, base_rows: str = BASE
    ) -> None:
        self.unet = unet
        self.position = position
        self.factor = factor
        self.base_rows = base_rows
        self._knows_size = unet.config.addition_embed_type == "text_time"
        self._rows: list[str] = []
        self._boxes: Tensor | None = None
        self._with_box: Tensor | None = None
        unet.conv_in.register_forward_hook(self._add_position)
        for module in unet.modules():
            if isinstance(module, LoraLayer) and isinstance(module, nn.Module):
                module.register_forward_pre_hook(self._name_rows, with_kwargs=True)

    @torch.no_grad()
    def __call__(self, x_t: Tensor, t: int, branches: list[Branch]) -> list[Tensor]:
        """A prediction for each branch, (B, C, h, w) in float32, at time t, in one call of the U-Net."""
        count = len(x_t)
        prompts = [b.prompt for b in branches for _ in range(count)]
        names = [TUNED if b.tuned else self.base_rows for b in branches for _ in range(count)]
        boxes = [b.box for b in branches for _ in range(count)]
        with self._condition(names, boxes):
            x = x_t.repeat(len(branches), 1, 1, 1)
            prediction = self._forward(x, torch.full((len(x),), t, device=x.device), prompts, boxes)
        return list(prediction.chunk(len(branches)))

    def prepare_tuning(self) -> None:
        """Take the attention whose backward pass is fast here.

        On the CPU the fused one's is slow: a tuning step of `mini` takes 0.85 of the time with the plain one.
        That one's memory grows with the square of the latents' area, so it is for small latents alone.
        """
        if self.unet.device.type == "cpu" and self.unet.config.sample_size <= SMALL_LATENTS:
            self.unet.set_attn_processor(AttnProcessor())

    def tuned(self, x_t: Tensor, t: Tensor, prompt: Conditioning, boxes: Tensor | None) -> Tensor:
        """The tuned model's prediction with gradients, (B, C, h, w) in float32.

        Args:
            t: times, (B,).  boxes: (B, 4), or None for no position.
        """
        places = [None] * len(x_t) if boxes is None else list(boxes)
        with self._condition([], places):
            return self._forward(x_t, t, [prompt] * len(x_t), places)

    def _forward(
        self, x_t: Tensor, t: Tensor, prompts: list[Conditioning], boxes: Sequence[Tensor | None]
    ) -> Tensor:
        dtype = self.unet.conv_in.weight.dtype
        # The LoRA is in float32 while it is tuned: autocast lets it compute in the U-Net's type.
        with torch.autocast(x_t.device.type, dtype=dtype, enabled=dtype != torch.float32):
            embeddings = torch.stack([prompt.embedding for prompt in prompts]).to(dtype)
            added = self._size_and_pooled(x_t, prompts, boxes) if self._knows_size else None
            return self.unet(x_t.to(dtype), t, embeddings, added_cond_kwargs=added).sample.float()

    def _size_and_pooled(
        self, x_t: Tensor, prompts: list[Conditioning], boxes: Sequence[Tensor | None]
    ) -> dict[str, Tensor]:
        """What SDXL's U-Net is told besides the prompts, row by row."""
        whole = torch.tensor(WHOLE, device=x_t.device)
        places = torch.stack([whole if box is None else box for box in boxes])
        height, width = (cells * self.factor for cells in x_t.shape[-2:])
        pooled = [prompt.pooled for prompt in prompts if prompt.pooled is not None]
        return {"text_embeds": torch.stack(pooled), "time_ids": size_and_crop(places, height, width)}

    @contextmanager
    def _condition(self, names: list[str], boxes: Sequence[Tensor | None]) -> Iterator[None]:
        """What the hooks below read: the adapter of each row ([]: the active one for all), and its box."""
        place = [(row, box) for row, box in enumerate(boxes) if box is not None]
        self._rows = names
        if place and self.position is not None:
            self._with_box = torch.tensor([row for row, _ in place], device=place[0][1].device)
            self._boxes = torch.stack([box for _, box in place])
        try:
            yield
        finally:
            self._rows, self._with_box, self._boxes = [], None, None

    def _add_position(self, module: nn.Module, inputs: Any, features: Tensor) -> Tensor | None:
        if self.position is None or self._boxes is None or self._with_box is None:
            return None
        added = self.position(self._boxes, *features.shape[-2:]).to(features.dtype)
        return features.index_add(0, self._with_box, added)

    def _name_rows(self, module: nn.Module, inputs: Any, kwargs: dict[str, Any]) -> Any:
        return (inputs, {**kwargs, "adapter_names": self._rows}) if self._rows else None
