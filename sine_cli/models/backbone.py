"""The U-Net as the method sees it: base rows and the rows of one or more tuned models in one call.

A tuned model is the base with a LoRA and a position. Base rows see neither, bit for bit: peft gives each row
the LoRA of its name and none to rows named `__base__`, and a position is added to its model's rows alone.
SDXL's U-Net is told of a row's box in its own words too; rows without one show the whole picture.
"""

from collections.abc import Iterator, Mapping, Sequence
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
"""The name of the project's own adapter within peft; other projects' have names of their own."""

SMALL_LATENTS = 32
"""Cells on a side up to which plain attention takes little memory."""

BASE = "__base__"
"""peft's name for rows without an adapter."""


class UNetBackbone:
    """A diffusers U-Net with, once there are adapters, LoRA layers and positions.

    Args:
        unet: UNet2DConditionModel.
        positions: the position module of each adapter by its name; a row of another has no position.
        factor: s, pixels a latent cell on each side.
        base_rows: peft's name of what base rows get: nothing, or the user's own LoRA.
    """

    def __init__(
        self,
        unet: Any,
        positions: Mapping[str, Position] | None = None,
        *,
        factor: int,
        base_rows: str = BASE,
    ) -> None:
        self.unet = unet
        self.positions = positions or {}
        self.factor = factor
        self.base_rows = base_rows
        self._knows_size = unet.config.addition_embed_type == "text_time"
        self._rows: list[str] = []
        self._placed: list[tuple[Position, Tensor, Tensor]] = []
        unet.conv_in.register_forward_hook(self._add_position)
        for module in unet.modules():
            if isinstance(module, LoraLayer) and isinstance(module, nn.Module):
                module.register_forward_pre_hook(self._name_rows, with_kwargs=True)

    @torch.no_grad()
    def __call__(self, x_t: Tensor, t: int, branches: list[Branch]) -> list[Tensor]:
        """A prediction for each branch, (B, C, h, w) in float32, at time t, in one call of the U-Net."""
        count = len(x_t)
        prompts = [b.prompt for b in branches for _ in range(count)]
        names = [b.tuned or self.base_rows for b in branches for _ in range(count)]
        boxes = [b.box for b in branches for _ in range(count)]
        with self._condition(names, boxes, mixed=True):
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
        """The project's own tuned model's prediction with gradients, (B, C, h, w) in float32.

        Args:
            t: times, (B,).  boxes: (B, 4), or None for no position.
        """
        places = [None] * len(x_t) if boxes is None else list(boxes)
        with self._condition([TUNED] * len(x_t), places, mixed=False):
            return self._forward(x_t, t, [prompt] * len(x_t), places)

    def base(self, x_t: Tensor, t: Tensor, prompt: Conditioning) -> Tensor:
        """The base's prediction with gradients to the prompt's embedding; as `tuned`, without adapters."""
        places = [None] * len(x_t)
        with self._condition([self.base_rows] * len(x_t), places, mixed=True):
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
    def _condition(self, names: list[str], boxes: Sequence[Tensor | None], *, mixed: bool) -> Iterator[None]:
        """What the hooks below read: the model of each row, and its box.

        Without `mixed` peft gives every row the active adapter, which is quicker.
        """
        self._rows = names if mixed else []
        for name, position in self.positions.items():
            place = [
                (row, box)
                for row, (model, box) in enumerate(zip(names, boxes, strict=True))
                if model == name and box is not None
            ]
            if place:
                rows = torch.tensor([row for row, _ in place], device=place[0][1].device)
                self._placed.append((position, rows, torch.stack([box for _, box in place])))
        try:
            yield
        finally:
            self._rows, self._placed = [], []

    def _add_position(self, module: nn.Module, inputs: Any, features: Tensor) -> Tensor:
        for position, rows, boxes in self._placed:
            added = position(boxes, *features.shape[-2:]).to(features.dtype)
            features = features.index_add(0, rows, added)
        return features

    def _name_rows(self, module: nn.Module, inputs: Any, kwargs: dict[str, Any]) -> Any:
        return (inputs, {**kwargs, "adapter_names": self._rows}) if self._rows else None
