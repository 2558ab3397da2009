"""The U-Net as the method sees it: base rows and the rows of tuned models, of many pictures, in one call.

A tuned model is the base with a LoRA and a position. Base rows see neither, bit for bit: each row gets the
LoRA of its name, and a position is added to its model's rows alone. Where a model was tuned whole, its rows
go through a U-Net of its own.
SDXL's U-Net is told of a row's box in its own words too; rows without one show the whole picture.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn

from sine_cli.errors import SineError, ran_out
from sine_cli.method.guidance import Branch
from sine_cli.method.position import WHOLE, Position
from sine_cli.method.trajectories import Row
from sine_cli.models.rows import BASE, TUNED, Rows
from sine_cli.models.sdxl import size_and_crop
from sine_cli.models.text import Conditioning

SMALL_LATENTS = 32
"""Cells on a side up to which plain attention takes little memory."""

CELLS_AT_ONCE = {"cuda": 40 * 64**2, "mps": 8 * 64**2, "cpu": 2 * 64**2}
"""Latent cells in one call: as many rows as keep the device busy, in memory that it is likely to have."""


@dataclass(frozen=True)
class _Single:
    """One picture's latents, (C, h, w), the branch to predict for them, and its place among the rows."""

    x_t: Tensor
    branch: Branch
    place: int


@dataclass(frozen=True)
class TunedModel:
    """What a tuned model has beside its LoRA: a position, and a U-Net of its own where it was tuned whole."""

    position: Position
    unet: Any = None


class UNetBackbone:
    """A diffusers U-Net with, once there are adapters, LoRA layers and positions.

    Args:
        unet: UNet2DConditionModel, of the base.
        tuned_models: each adapter by its name; a row of another has no position.
        factor: s, pixels a latent cell on each side.
        base_rows: peft's name of what base rows get: nothing, or the user's own LoRA.
    """

    def __init__(
        self,
        unet: Any,
        tuned_models: Mapping[str, TunedModel] | None = None,
        *,
        factor: int,
        base_rows: str = BASE,
    ) -> None:
        self.unet = unet
        self.tuned_models = tuned_models or {}
        self.factor = factor
        self.base_rows = base_rows
        self._cells_at_once = CELLS_AT_ONCE[unet.device.type]
        self._knows_size = unet.config.addition_embed_type == "text_time"
        self._rows = Rows()
        self._placed: list[tuple[Position, Tensor, Tensor]] = []
        for each in self._unets():
            each.conv_in.register_forward_hook(self._add_position)
            self._rows.watch(each)

    def __call__(self, x_t: Tensor, t: int, branches: list[Branch]) -> list[Tensor]:
        """A prediction for each branch, (B, C, h, w) in float32, at time t, for the same latents."""
        return self.predict([(x_t, branch) for branch in branches], t)

    @torch.no_grad()
    def predict(self, rows: list[Row], t: int) -> list[Tensor]:
        """A prediction for each row, of the shape of its latents, in float32, at time t.

        Args:
            rows: latents, (B, C, h, w), all of one size, with the branch to predict for them. They go through
                each U-Net in one call, or in as few as memory allows.
        """
        singles = [_Single(x, branch, i) for i, (x_t, branch) in enumerate(rows) for x in x_t]
        # Rows of one adapter lie side by side, so that each LoRA is added to one slice
        singles.sort(key=lambda single: (single.branch.tuned or "", single.place))
        predictions: list[list[Tensor]] = [[] for _ in rows]
        for unet in self._unets():
            here = [single for single in singles if self._unet_of(single.branch.tuned) is unet]
            for single, prediction in zip(here, self._predict(unet, here, t), strict=True):
                predictions[single.place].append(prediction)
        return [torch.stack(each) for each in predictions]

    def rows_at_once(self, height: int, width: int) -> int:
        """How many rows of that many latent cells go through a U-Net in one call."""
        return max(1, self._cells_at_once // (height * width))

    def prepare_tuning(self, *, low_memory: bool = False) -> None:
        """Take the attention whose backward pass is fast here, and with low memory compute activations twice.

        On the CPU the fused one's is slow: a tuning step of `mini` takes 0.85 of the time with the plain one.
        That one's memory grows with the square of the latents' area, so it is for small latents alone.
        """
        unet = self._unet_of(TUNED)
        if low_memory:
            unet.enable_gradient_checkpointing()
        elif unet.device.type == "cpu" and unet.config.sample_size <= SMALL_LATENTS:
            unet.set_attn_processor(AttnProcessor())

    def tuned(self, x_t: Tensor, t: Tensor, prompt: Conditioning, boxes: Tensor | None) -> Tensor:
        """The project's own tuned model's prediction with gradients, (B, C, h, w) in float32.

        Args:
            t: times, (B,).  boxes: (B, 4), or None for no position.
        """
        places = [None] * len(x_t) if boxes is None else list(boxes)
        with self._placed_as([TUNED] * len(x_t), places):
            return self._forward(self._unet_of(TUNED), x_t, t, [prompt] * len(x_t), places)

    def base(self, x_t: Tensor, t: Tensor, prompt: Conditioning) -> Tensor:
        """The base's prediction with gradients to the prompt's embedding; as `tuned`, without adapters."""
        with self._rows.named([self.base_rows] * len(x_t)):
            return self._forward(self.unet, x_t, t, [prompt] * len(x_t), [None] * len(x_t))

    def _unets(self) -> list[Any]:
        """The base's, and those of models tuned whole."""
        return [self.unet, *(model.unet for model in self.tuned_models.values() if model.unet is not None)]

    def _unet_of(self, name: str | None) -> Any:
        """Which one predicts for the model of that name; None is the base."""
        tuned = self.tuned_models.get(name) if name else None
        return self.unet if tuned is None or tuned.unet is None else tuned.unet

    def _predict(self, unet: Any, singles: list[_Single], t: int) -> list[Tensor]:
        """Predictions of one U-Net, row by row; half as many at once where memory runs out."""
        predictions: list[Tensor] = []
        while len(predictions) < len(singles):
            start, cells = len(predictions), singles[0].x_t[0].numel()
            here = singles[start : start + max(1, self._cells_at_once // cells)]
            try:
                predictions += self._call(unet, here, t)
            except (RuntimeError, MemoryError) as error:
                if not ran_out(error):
                    raise
                if len(here) == 1:
                    raise SineError(
                        "memory ran out with one row of the U-Net", "try a smaller --size, or `--memory low`"
                    ) from error
                self._cells_at_once = len(here) // 2 * cells
        return predictions

    def _call(self, unet: Any, singles: list[_Single], t: int) -> Tensor:
        names = [single.branch.tuned or self.base_rows for single in singles]
        boxes = [single.branch.box for single in singles]
        prompts = [single.branch.prompt for single in singles]
        with self._rows.named(names), self._placed_as(names, boxes):
            x_t = torch.stack([single.x_t for single in singles])
            times = torch.full((len(singles),), t, device=x_t.device)
            return self._forward(unet, x_t, times, prompts, boxes)

    def _forward(
        self, unet: Any, x_t: Tensor, t: Tensor, prompts: list[Conditioning], boxes: Sequence[Tensor | None]
    ) -> Tensor:
        dtype = self.unet.conv_in.weight.dtype
        # What is tuned is in float32: autocast lets it compute in the base's type.
        with torch.autocast(x_t.device.type, dtype=dtype, enabled=dtype != torch.float32):
            embeddings = torch.stack([prompt.embedding for prompt in prompts]).to(dtype)
            added = self._size_and_pooled(x_t, prompts, boxes) if self._knows_size else None
            return unet(x_t.to(dtype), t, embeddings, added_cond_kwargs=added).sample.float()

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
    def _placed_as(self, names: list[str], boxes: Sequence[Tensor | None]) -> Iterator[None]:
        """What the hook below reads: rows, of which model they are, and their boxes."""
        for name, tuned in self.tuned_models.items():
            place = [
                (row, box)
                for row, (model, box) in enumerate(zip(names, boxes, strict=True))
                if model == name and box is not None
            ]
            if place:
                rows = torch.tensor([row for row, _ in place], device=place[0][1].device)
                self._placed.append((tuned.position, rows, torch.stack([box for _, box in place])))
        try:
            yield
        finally:
            self._placed = []

    def _add_position(self, module: nn.Module, inputs: Any, features: Tensor) -> Tensor:
        for position, rows, boxes in self._placed:
            added = position(boxes, *features.shape[-2:]).to(features.dtype)
            features = features.index_add(0, rows, added)
        return features
