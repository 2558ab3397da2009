"""What SDXL has beyond SD 1 and 2: two text encoders, and a U-Net that is told of size and crop.

References:
    SDXL: Improving Latent Diffusion Models for High-Resolution Image Synthesis,
        Podell et al., 2023, Sec. 2.2.
"""

import torch
from torch import Tensor

from sine_cli.models.rows import BASE
from sine_cli.models.text import Conditioning, TextEncoder


class TextEncoderPair:
    """Two text encoders side by side; a `PromptReader`.

    Their last but one layers make the embedding, of D = D_1 + D_2; the second one's projection is the
    pooled one.

    Args:
        zeros_for_empty: whether the empty prompt is all zeros, as SDXL's own pipeline has it.
    """

    def __init__(self, first: TextEncoder, second: TextEncoder, *, zeros_for_empty: bool) -> None:
        self.first, self.second = first, second
        self.zeros_for_empty = zeros_for_empty
        self.length = first.length

    @property
    def encoders(self) -> list[TextEncoder]:
        return [self.first, self.second]

    @torch.no_grad()
    def encode(self, prompts: list[str], model: str = BASE) -> list[Conditioning]:
        return self.encode_for_learning(prompts, model)

    def encode_for_learning(self, prompts: list[str], model: str = BASE) -> list[Conditioning]:
        one, two = (each.read(prompts, model, output_hidden_states=True) for each in self.encoders)
        embeddings = torch.cat([one.hidden_states[-2], two.hidden_states[-2]], dim=-1).float()
        read = zip(prompts, embeddings, two.text_embeds.float(), strict=True)
        return [
            Conditioning(torch.zeros_like(embedding), torch.zeros_like(pooled))
            if self.zeros_for_empty and not prompt
            else Conditioning(embedding, pooled)
            for prompt, embedding, pooled in read
        ]

    def places_in_common(self, source: str, target: str) -> list[int | None]:
        return self.first.places_in_common(source, target)

    def cut(self, prompt: str) -> str:
        return self.first.cut(prompt)

    def release(self) -> None:
        self.first.release()
        self.second.release()


def size_and_crop(boxes: Tensor, height: int, width: int) -> Tensor:
    """SDXL's size and crop conditioning, (B, 6): original size, top left of the crop, target size.

        original = target / (box's sides),    top left = original * (box's top left)

    The latents show a crop of the picture as large as it would be at their scale, so that the whole
    picture, [0, 0, 1, 1], has its own size and no crop: what SDXL is told while it samples.

    Args:
        boxes: parts of the picture that the latents show, (B, 4), [h1, w1, h2, w2] in shares of it.
        height, width: of what the latents show, in pixels: the target size.
    """
    target = torch.tensor([height, width], device=boxes.device).expand(len(boxes), 2)
    original = target / (boxes[:, 2:] - boxes[:, :2])
    return torch.cat([original, original * boxes[:, :2], target], dim=1)
