"""The text encoder: prompts to embeddings."""

from difflib import SequenceMatcher
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
        return self.encode_for_learning(prompts)

    def encode_for_learning(self, prompts: list[str]) -> Tensor:
        """The same with gradients, for a word that is learned."""
        return self.model(self._tokens(prompts).input_ids.to(self.device))[0].float()

    def _tokens(self, prompts: list[str]) -> Any:
        return self.tokenizer(
            prompts, padding="max_length", truncation=True, max_length=self.length, return_tensors="pt"
        )

    def places_in_common(self, source: str, target: str) -> list[int | None]:
        """For each of the L places of the target prompt the place in the source prompt of the same word.

        Words that took the place of as many others count as the same; None where a word is new.
        """
        old, new = (self._tokens([prompt]).input_ids[0].tolist() for prompt in (source, target))
        places: list[int | None] = [None] * len(new)
        for kind, start, end, first, last in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
            if kind == "equal" or (kind == "replace" and end - start == last - first):
                places[first:last] = range(start, end)
        return places

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
