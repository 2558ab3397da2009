"""Cross-attention maps of a U-Net, recorded in one call and put in place in another.

diffusers' plain attention asks its module for the maps (`get_attention_scores`): there they are taken, and
given.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from diffusers.models.attention_processor import Attention, AttnProcessor
from torch import Tensor


class CrossAttentionMaps:
    """The maps of every cross-attention layer, while they are watched.

    Args:
        unet: UNet2DConditionModel.
        sources: for each place of the target prompt the place of the source prompt whose map it takes, or
            None where it keeps its own; as `TextEncoder.places_in_common` has it.
    """

    def __init__(self, unet: Any, sources: Sequence[int | None]) -> None:
        self.layers = [
            module for module in unet.modules() if isinstance(module, Attention) and module.is_cross_attention
        ]
        self.targets = [place for place, source in enumerate(sources) if source is not None]
        self.sources = [source for source in sources if source is not None]
        self.kept: dict[Attention, Tensor] = {}
        self.doing: Literal["recording", "replacing"] | None = None

    @contextmanager
    def watched(self) -> Iterator[None]:
        """While it is open, the layers attend in the plain way and show their maps; after it, as before."""
        before = [layer.processor for layer in self.layers]
        for layer in self.layers:
            layer.set_processor(AttnProcessor())
            layer.get_attention_scores = _Watched(self, layer)
        try:
            yield
        finally:
            for layer, processor in zip(self.layers, before, strict=True):
                layer.set_processor(processor)
                del layer.get_attention_scores
            self.kept.clear()

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """While it is open, the maps of a call are kept."""
        self.doing = "recording"
        try:
            yield
        finally:
            self.doing = None

    @contextmanager
    def replaced(self) -> Iterator[None]:
        """While it is open, a call of as many rows has the maps kept in place of its own."""
        self.doing = "replacing"
        try:
            yield
        finally:
            self.doing = None

    def seen(self, layer: Attention, maps: Tensor) -> Tensor:
        """The maps, (rows x heads, pixels, places), that the layer is to go on with."""
        if self.doing == "recording":
            self.kept[layer] = maps
        if self.doing == "replacing":
            maps = maps.clone()
            maps[..., self.targets] = self.kept[layer][..., self.sources]
        return maps


class _Watched:
    """A layer's `get_attention_scores` that shows what it gives."""

    def __init__(self, maps: CrossAttentionMaps, layer: Attention) -> None:
        self.maps, self.layer = maps, layer

    def __call__(self, query: Tensor, key: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        own = Attention.get_attention_scores(self.layer, query, key, attention_mask)
        return self.maps.seen(self.layer, own)
