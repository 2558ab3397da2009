"""The U-Net as the method sees it: base and tuned rows in one call.

The tuned model is the base with a LoRA and a position. Base rows see neither, bit for bit: peft keeps the
LoRA off the rows named `__base__`, and the position is added to the rows that have a box.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.models.attention_processor import AttnProcessor
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from sine_cli.method.guidance import Branch
from sine_cli.method.position import Position

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
    """

    def __init__(self, unet: Any, position: Position | None = None) -> None:
        self.unet = unet
        self.position = position
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
        prompts = torch.cat([b.prompt[None].expand(count, -1, -1) for b in branches])
        names = [TUNED if b.tuned else BASE for b in branches for _ in range(count)]
        boxes = [b.box for b in branches for _ in range(count)]
        with self._condition(names, boxes):
            x = x_t.repeat(len(branches), 1, 1, 1)
            prediction = self._forward(x, torch.full((len(x),), t, device=x.device), prompts)
        return list(prediction.chunk(len(branches)))

    def prepare_tuning(self) -> None:
        """Take the attention whose backward pass is fast here.

        On the CPU the fused one's is slow: a tuning step of `mini` takes 0.85 of the time with the plain one.
        That one's memory grows with the square of the latents' area, so it is for small latents alone.
        """
        if self.unet.device.type == "cpu" and self.unet.config.sample_size <= SMALL_LATENTS:
            self.unet.set_attn_processor(AttnProcessor())

    def tuned(self, x_t: Tensor, t: Tensor, prompt: Tensor, boxes: Tensor | None) -> Tensor:
        """The tuned model's prediction with gradients, (B, C, h, w) in float32.

        Args:
            t: times, (B,).  prompt: embedding, (L, D).  boxes: (B, 4), or None for no position.
        """
        with self._condition([], [None] * len(x_t) if boxes is None else list(boxes)):
            return self._forward(x_t, t, prompt.expand(len(x_t), -1, -1))

    def _forward(self, x_t: Tensor, t: Tensor, prompts: Tensor) -> Tensor:
        dtype = self.unet.conv_in.weight.dtype
        # The LoRA is in float32 while it is tuned: autocast lets it compute in the U-Net's type.
        with torch.autocast(x_t.device.type, dtype=dtype, enabled=dtype != torch.float32):
            return self.unet(x_t.to(dtype), t, prompts.to(dtype)).sample.float()

    @contextmanager
    def _condition(self, names: list[str], boxes: list[Tensor | None]) -> Iterator[None]:
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
