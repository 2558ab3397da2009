"""Which adapter each row of a call gets, where a model's layers carry the LoRAs of several.

peft leaves the rows to what they have without an adapter, and each LoRA is added to the slice of rows that is
its own: slices are views, where peft's own way for mixed batches copies rows out and in again.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
        self._count = 0
        self._watched: set[nn.Module] = set()

    def watch(self, model: nn.Module) -> None:
        """Name the rows of the model's LoRA layers from now on; those attached later need another call."""
        for module in model.modules():
            if (
                isinstance(module, LoraLayer)
                and isinstance(module, nn.Module)
                and module not in self._watched
            ):
                module.register_forward_pre_hook(self._leave_to_base, with_kwargs=True)
                module.register_forward_hook(self._add_loras)
                self._watched.add(module)

    @contextmanager
    def named(self, names: Sequence[str]) -> Iterator[None]:
        """While it is open, calls have these rows; none gives every row the active adapter, quicker."""
        self._slices, self._count = list(_slices(names)), len(names)
        try:
            yield
        finally:
            self._slices, self._count = [], 0

    def _leave_to_base(self, module: nn.Module, inputs: Any, kwargs: dict[str, Any]) -> Any:
        return (inputs, {**kwargs, "adapter_names": [BASE] * self._count}) if self._count else None

    def _add_loras(self, module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Add each LoRA to its own rows: s B A x. In place, but where something learns."""
        if self._slices and torch.is_grad_enabled():
            output = output.clone()
        for name, rows in self._slices:
            if name in module.lora_A:
                down, up = module.lora_A[name], module.lora_B[name]
                added = up(down(inputs[0][rows].to(down.weight.dtype)))
                output[rows] += (added * module.scaling[name]).to(output.dtype)
        return output


def _slices(names: Sequence[str]) -> Iterator[tuple[str, slice]]:
    """The rows of each adapter; neighbours of one name are one slice."""
    start = 0
    for name, same in groupby(names):
        stop = start + len(list(same))
        if name != BASE:
            yield name, slice(start, stop)
        start = stop
