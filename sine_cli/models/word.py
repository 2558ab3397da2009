"""A new word for the text encoder, whose embedding is learned while all else stays as it is."""

from typing import Any

import torch
from torch import Tensor, nn

from sine_cli.models.text import TextEncoder


class NewWord:
    """A word that the text encoder reads as one token from now on.

    Args:
        word: not a part of other words, such as "<picture>".
        like: what it means at first: the mean of these words' embeddings.

    Attributes:
        vector: its embedding, (D,), in float32.
    """

    def __init__(self, text: TextEncoder, word: str, like: str) -> None:
        text.tokenizer.add_tokens([word])
        self.id: int = text.tokenizer.convert_tokens_to_ids(word)
        text.model.resize_token_embeddings(
            max(self.id + 1, text.model.config.vocab_size), mean_resizing=False
        )
        table = text.model.get_input_embeddings().requires_grad_(False)
        tokens = text.tokenizer(like, add_special_tokens=False).input_ids
        mean = table.weight[torch.tensor(tokens, device=text.device)].mean(dim=0)
        self.vector = nn.Parameter(mean.detach().float().clone())
        table.register_forward_hook(self._read)

    def _read(self, module: nn.Module, inputs: Any, embeddings: Tensor) -> Tensor:
        return torch.where((inputs[0] == self.id)[..., None], self.vector.to(embeddings.dtype), embeddings)
