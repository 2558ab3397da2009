"""A CLIP model: how well pictures and words go together, and what a picture's patches look like.

    similarity(picture, prompt) = cos(f(picture), g(prompt))

References:
    Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor
from torch.nn.functional import normalize

from sine_cli.errors import UserError
from sine_cli.scoring.preparation import read_preparation

BATCH = 32
"""Pictures that go through the model at once."""


class Clip:
    """A CLIPModel of transformers with its tokenizer, from a local folder, in float32.

    Raises:
        UserError: a file is missing, damaged, or lacks some of the weights; weights other than safetensors.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        model, self._tokenizer = _load(folder)
        self._model: Any = model.to(device).eval().requires_grad_(False)
        self._prepare = read_preparation(
            folder / "preprocessor_config.json", model.config.vision_config.image_size
        )
        self._length: int = min(
            self._tokenizer.model_max_length, model.config.text_config.max_position_embeddings
        )
        self.device = device

    def alignment(self, pictures: Sequence[Image.Image], prompt: str) -> list[float]:
        """The cosine of each picture's embedding and the prompt's, in [-1, 1]."""
        return self.similarity(pictures, [prompt])[:, 0].tolist()

    @torch.no_grad()
    def similarity(self, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        """The cosines of N pictures and M prompts, (N, M) in [-1, 1]; prompts are cut to what is read."""
        texts = self._text_embeddings(prompts)
        images = [
            normalize(self._model.get_image_features(pixels).pooler_output, dim=-1)
            for pixels in self._batches(pictures, self._prepare.cropped)
        ]
        return (torch.cat(images) @ texts.T).clamp(-1, 1)

    @torch.no_grad()
    def features(self, pictures: Sequence[Image.Image]) -> Tensor:
        """What N pictures look like, patch by patch, (N, layers, patches, channels), channels of length 1.

        Of the layers at a quarter, half and three quarters of the depth: no loss ever saw the patches of the
        last. The whole picture is seen, squashed to the model's square.
        """
        depth = self._model.config.vision_config.num_hidden_layers
        layers = sorted({max(1, round(depth * part)) for part in (0.25, 0.5, 0.75)})
        batches: list[Tensor] = []
        for pixels in self._batches(pictures, self._prepare.squashed):
            states = self._model.vision_model(pixels, output_hidden_states=True).hidden_states
            patches = torch.stack([states[layer][:, 1:] for layer in layers], dim=1)  # [0] is the class token
            batches.append(normalize(patches, dim=-1))
        return torch.cat(batches)

    def reads_whole(self, prompt: str) -> bool:
        """Whether the model reads the prompt to its end."""
        return len(self._tokenizer(prompt).input_ids) <= self._length

    def _batches(
        self, pictures: Sequence[Image.Image], prepare: Callable[[Image.Image], Tensor]
    ) -> Iterator[Tensor]:
        for start in range(0, len(pictures), BATCH):
            batch = [prepare(picture) for picture in pictures[start : start + BATCH]]
            yield torch.stack(batch).to(self.device)

    def _text_embeddings(self, prompts: Sequence[str]) -> Tensor:
        """(M, D), of length 1: the state at each prompt's first end token, projected.

        Not transformers' own pooling: where the configuration says `eos_token_id: 2`, as old ones wrongly do,
        that takes the token of the highest id, which is the end only in CLIP's own vocabulary.
        """
        tokens = self._tokenizer(
            list(prompts), padding=True, truncation=True, max_length=self._length, return_tensors="pt"
        )
        ids = tokens.input_ids.to(self.device)
        states = self._model.text_model(ids).last_hidden_state  # causal: what pads the end is not seen
        ends = (ids == self._tokenizer.eos_token_id).int().argmax(dim=-1)
        pooled = states[torch.arange(len(ids), device=self.device), ends]
        return normalize(self._model.text_projection(pooled), dim=-1)


def _load(folder: Path) -> tuple[Any, Any]:
    """Model and tokenizer."""
    from transformers import AutoTokenizer, CLIPModel
    from transformers.utils import logging

    logging.set_verbosity_error()  # its remarks and bars are not for the users of sine; its errors are
    logging.disable_progress_bar()
    with _told(folder):
        loading: Any = CLIPModel.from_pretrained(
            folder,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            attn_implementation="sdpa",  # else a configuration may name one of the hub's kernels, to be run
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    model, loaded = loading
    if loaded["missing_keys"]:  # transformers would go on with random values there
        raise UserError(
            f"{folder} has no weights for {len(loaded['missing_keys'])} layers, "
            f"{min(loaded['missing_keys'])} among them",
            "fetch or copy the scorer again; it must be a whole CLIP model, image and text",
        )
    if tokenizer.eos_token_id is None or len(tokenizer) > model.config.text_config.vocab_size:
        raise UserError(f"{folder}: the tokenizer does not fit the model", "fetch or copy the scorer again")
    return model, tokenizer


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """What transformers says of missing, damaged or unfit files, said for people. Raises UserError."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        raise UserError(
            f"{folder} does not load: {str(error).splitlines()[0]}",
            "fetch or copy the scorer again; sine reads .safetensors weights only",
        ) from error
