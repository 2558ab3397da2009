"""The text encoder: prompts to embeddings."""

from typing import Any

import torch
from torch import Tensor


class TextEncoder:
    """Wraps a tokenizer and a CLIP text model of transformers."""

    def __init__(self, tokenizer: Any, model: Any, device: torch.device) -> None:
        self.tokenizer = tokenizer
        self.model: Any = model.to(device).eval().requires_grad_(False)
        self.device = device
        self.length: int = min(tokenizer.model_max_length, model.config.max_position_embeddings)

    def release(self) -> None:
        """Let the model leave memory; nothing can be encoded after."""
        self.model = None

    @torch.no_grad()
    def encode(self, prompts: list[str]) -> Tensor:
        """Embeddings, (N, L, D) in float32, of N prompts padded or cut to L tokens."""
        tokens = self.tokenizer(
            prompts, padding="max_length", truncation=True, max_length=self.length, return_tensors="pt"
        )
        return self.model(tokens.input_ids.to(self.device))[0].float()

    def cut(self, prompt: str) -> str:
        """The end of the prompt that does not fit and goes unread; empty when all is read."""
        with_places = self.tokenizer.is_fast
        tokens = self.tokenizer(prompt, add_special_tokens=False, return_offsets_mapping=with_places)
        room = self.length - self.tokenizer.num_special_tokens_to_add()
        if len(tokens.input_ids) <= room:
            return ""
        if with_places:  # as it was typed; decoding would need a decoder, which not every tokenizer has
            return prompt[tokens.offset_mapping[room][0] :].strip()
        return self.tokenizer.decode(tokens.input_ids[room:]).strip()
