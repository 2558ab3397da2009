"""Which adapter each row of a call gets, where a model's layers carry the LoRAs of several.

peft gives each row the LoRA of its name, and none to rows named `__base__` or as an adapter that is not on
the layer.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from peft.tuners.lora import LoraLayer
from torch import nn

BASE = "__base__"
"""peft's name for rows without an adapter."""

TUNED = "tuned"
"""The name of the project's own adapter within peft; other projects' have names of their own."""


class Rows:
    """Names the rows of the calls of the models that it watches."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._watched: set[nn.Module] = set()

    def watch(self, model: nn.Module) -> None:
        """Name the rows of the model's LoRA layers from now on; those attached later need another call."""
        for module in model.modules():
            if (
                isinstance(module, LoraLayer)
                and isinstance(module, nn.Module)
                and module not in self._watched
            ):
                module.register_forward_pre_hook(self._name, with_kwargs=True)
                self._watched.add(module)

    @contextmanager
    def named(self, names: Sequence[str]) -> Iterator[None]:
        """While it is open, calls have these rows; none gives every row the active adapter, quicker."""
        self._names = list(names)
        try:
            yield
        finally:
            self._names = []

    def _name(self, module: nn.Module, inputs: Any, kwargs: dict[str, Any]) -> Any:
        return (inputs, {**kwargs, "adapter_names": self._names}) if self._names else None
