"""A learned word: it begins as the word it is like, learns alone, and leaves all others as they are."""

import pytest
import torch
from torch import Tensor

from sine_cli.models.backbone import UNetBackbone
from sine_cli.models.base import Base
from sine_cli.models.text import TextEncoder
from sine_cli.models.word import NewWord

WORD = "<picture>"


@pytest.fixture
def text(base: Base) -> TextEncoder:
    assert isinstance(base.text, TextEncoder)
    return base.text


def embeddings(text: TextEncoder, *prompts: str) -> Tensor:
    return torch.stack([each.embedding for each in text.encode([*prompts])])


def test_a_new_word_means_what_it_is_like_until_it_learns_and_other_words_stay(text: TextEncoder) -> None:
    before = embeddings(text, "a castle", "a photo of a dog")
    assert len(text.tokenizer("castle", add_special_tokens=False).input_ids) == 1
    word = NewWord(text, WORD, like="castle")
    assert torch.equal(embeddings(text, "a castle", "a photo of a dog"), before)
    as_new = embeddings(text, f"a {WORD}")[0]
    torch.testing.assert_close(as_new, before[0], rtol=0, atol=1e-6)
    word.vector.data += torch.randn(word.vector.shape, generator=torch.Generator().manual_seed(0))
    assert not torch.allclose(embeddings(text, f"a {WORD}")[0], before[0], atol=1e-3)
    assert torch.equal(embeddings(text, "a castle", "a photo of a dog"), before)


def test_gradients_reach_the_word_alone(text: TextEncoder) -> None:
    word = NewWord(text, WORD, like="a red castle")
    (read,) = text.encode_for_learning([f"a photo of a {WORD}"])
    read.embedding.square().sum().backward()
    assert word.vector.grad is not None and torch.count_nonzero(word.vector.grad) > 0
    assert all(parameter.grad is None for parameter in text.model.parameters())


def test_gradients_reach_the_word_through_the_unet(base: Base, text: TextEncoder) -> None:
    word = NewWord(text, WORD, like="castle")
    (prompt,) = text.encode_for_learning([f"a {WORD}"])
    x_t = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    backbone = UNetBackbone(base.unet, factor=base.autoencoder.factor)
    backbone.base(x_t, torch.tensor([3, 900]), prompt).square().mean().backward()
    assert word.vector.grad is not None and torch.count_nonzero(word.vector.grad) > 0


def test_places_in_common_follow_the_words(text: TextEncoder) -> None:
    places = text.places_in_common
    length = text.length
    assert places("a photo of a dog", "a photo of a dog") == [*range(length)]
    swapped = places("a photo of a dog", "a photo of a cat")
    assert swapped == [*range(length)], "one word in the place of another"
    added = places("a dog", "a red dog")
    assert added[:5] == [0, 1, None, 2, 3]
    assert places("a red dog", "a dog")[:4] == [0, 1, 3, 4]
