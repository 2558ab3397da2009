"""The text encoder: prompts to what the U-Net is told of them."""

from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, Protocol

import torch
from torch import Tensor

from sine_cli.models.rows import BASE, Rows


@dataclass(frozen=True)
class Conditioning:
    """A prompt as a base reads it; opaque to the method, which only passes it on.

    Args:
        embedding: of every token, (L, D) in float32.
        pooled: of the prompt as a whole, (P,); None where the U-Net has no use for it (SD 1 and 2).
    """

    embedding: Tensor
    pooled: Tensor | None = None

    def to(self, device: torch.device) -> "Conditioning":
        pooled = None if self.pooled is None else self.pooled.to(device)
        return Conditioning(self.embedding.to(device), pooled)


class PromptReader(Protocol):
    """What a base's text encoders are to all else, however many there are."""

    length: int

    @property
    def encoders(self) -> "list[TextEncoder]":
        """Those it consists of; after `release` without their models."""
        ...

    def encode(self, prompts: list[str], model: str = BASE) -> list[Conditioning]:
        """A conditioning for each prompt, padded or cut to L tokens, as the model of that name reads it.

        A tuned model whose text encoder was not tuned reads as the base does.
        """
        ...

    def encode_for_learning(self, prompts: list[str], model: str = BASE) -> list[Conditioning]:
        """`encode` with gradients, for a word or a text encoder that learns."""
        ...

    def places_in_common(self, source: str, target: str) -> list[int | None]:
        """For each of the L places of the target prompt the place in the source prompt of the same word.

        Words that took the place of as many others count as the same; None where a word is new.
        """
        ...

    def cut(self, prompt: str) -> str:
        """The end of the prompt that does not fit and goes unread; empty when all is read."""
        ...

    def release(self) -> None:
        """Let the models leave memory; nothing can be encoded after."""
        ...


class TextEncoder:
    """Wraps a tokenizer and a CLIP text model of transformers; a `PromptReader`."""

    def __init__(self, tokenizer: Any, model: Any, device: torch.device) -> None:
        self.tokenizer = tokenizer
        self.model: Any = model.to(device).eval().requires_grad_(False)
        self.device = device
        self.rows = Rows()
        self.length: int = min(tokenizer.model_max_length, model.config.max_position_embeddings)

    @property
    def encoders(self) -> "list[TextEncoder]":
        return [self]

    def release(self) -> None:
        self.rows.forget()
        self.model = None

    @torch.no_grad()
    def encode(self, prompts: list[str], model: str = BASE) -> list[Conditioning]:
        return self.encode_for_learning(prompts, model)

    def encode_for_learning(self, prompts: list[str], model: str = BASE) -> list[Conditioning]:
        return [Conditioning(embedding) for embedding in self.read(prompts, model).last_hidden_state.float()]

    def read(self, prompts: list[str], model: str, **wanted: bool) -> Any:
        """The text model's own output for N prompts; `wanted` names more of it, as transformers does."""
        with self.rows.named([model] * len(prompts)):
            return self.model(self._tokens(prompts).input_ids.to(self.device), **wanted)

    def places_in_common(self, source: str, target: str) -> list[int | None]:
        old, new = (self._tokens([prompt]).input_ids[0].tolist() for prompt in (source, target))
        places: list[int | None] = [None] * len(new)
        for kind, start, end, first, last in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
            if kind == "equal" or (kind == "replace" and end - start == last - first):
                places[first:last] = range(start, end)
        return places

    def cut(self, prompt: str) -> str:
        with_places = self.tokenizer.is_fast
        tokens = self.tokenizer(prompt, add_special_tokens=False, return_offsets_mapping=with_places)
        room = self.length - self.tokenizer.num_special_tokens_to_add()
        if len(tokens.input_ids) <= room:
            return ""
        if with_places:  # as it was typed; decoding would need a decoder, which not every tokenizer has
            return prompt[tokens.offset_mapping[room][0] :].strip()
        return self.tokenizer.decode(tokens.input_ids[room:]).strip()

    def _tokens(self, prompts: list[str]) -> Any:
        return self.tokenizer(
            prompts, padding="max_length", truncation=True, max_length=self.length, return_tensors="pt"
        )
