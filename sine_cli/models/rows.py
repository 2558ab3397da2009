"""Which adapter each row of a call gets, where a model's layers carry the LoRAs of several.

peft's layers hold the weights; while rows are named they compute here: the base's layer for all rows, and
each LoRA added to the slice of rows that is its own. Slices are views, where peft's own way for mixed batches
copies rows out and in again, and what peft asks itself in every layer is a seventh of a small U-Net's call.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

BASE = "__base__"
"""peft's name for rows without an adapter."""

TUNED = "tuned"
"""The name of the project's own adapter within peft; other projects' have names of their own."""


class Rows:
    """Names the rows of the calls of the models that it watches."""

    def __init__(self) -> None:
        self._slices: list[tuple[str, slice]] = []
        self._named = False
        self._watched: set[nn.Module] = set()

    def watch(self, model: nn.Module) -> None:
        """Name the rows of the model's LoRA layers from now on; those attached later need another call."""
        for module in model.modules():
            if (
                isinstance(module, LoraLayer)
                and isinstance(module, nn.Module)
                and module not in self._watched
            ):
                module.forward = partial(self._forward, module, module.forward)
                self._watched.add(module)

    def forget(self) -> None:
        """Leave the layers that are watched as they were: as long as they are, they do not leave memory."""
        for module in self._watched:
            del module.forward
        self._watched.clear()

    @contextmanager
    def named(self, names: Sequence[str]) -> Iterator[None]:
        """While it is open, calls have these rows; none gives every row the active adapter, quicker."""
        self._slices, self._named = list(_slices(names)), bool(names)
        try:
            yield
        finally:
            self._slices, self._named = [], False

    def _forward(self, module: Any, usual: Callable[..., Tensor], x: Tensor, *rest: Any) -> Tensor:
        """W x, and s B A x added to a LoRA's own rows. In place, but where something learns."""
        if not self._named:
            return usual(x, *rest)
        output = module.base_layer(x, *rest)
        if self._slices and torch.is_grad_enabled():
            output = output.clone()
        for name, rows in self._slices:
            if name in module.lora_A:
                down, up = module.lora_A[name], module.lora_B[name]
                added = up(down(x[rows]))
                output[rows].add_(added.to(output.dtype), alpha=module.scaling[name])
        return output


def _slices(names: Sequence[str]) -> Iterator[tuple[str, slice]]:
    """The rows of each adapter; neighbours of one name are one slice."""
    start = 0
    for name, same in groupby(names):
        stop = start + len(list(same))
        if name != BASE:
            yield name, slice(start, stop)
        start = stop
