"""A learned word: it begins as the word it is like, learns alone, and leaves all others as they are."""

import torch

from sine_cli.models.backbone import UNetBackbone
from sine_cli.models.base import Base
from sine_cli.models.word import NewWord

WORD = "<picture>"


def test_a_new_word_means_what_it_is_like_until_it_learns_and_other_words_stay(base: Base) -> None:
    before = base.text.encode(["a castle", "a photo of a dog"])
    assert len(base.text.tokenizer("castle", add_special_tokens=False).input_ids) == 1
    word = NewWord(base.text, WORD, like="castle")
    assert torch.equal(base.text.encode(["a castle", "a photo of a dog"]), before)
    as_new = base.text.encode([f"a {WORD}"])[0]
    torch.testing.assert_close(as_new, before[0], rtol=0, atol=1e-6)
    word.vector.data += torch.randn(word.vector.shape, generator=torch.Generator().manual_seed(0))
    assert not torch.allclose(base.text.encode([f"a {WORD}"])[0], before[0], atol=1e-3)
    assert torch.equal(base.text.encode(["a castle", "a photo of a dog"]), before)


def test_gradients_reach_the_word_alone(base: Base) -> None:
    word = NewWord(base.text, WORD, like="a red castle")
    base.text.encode_for_learning([f"a photo of a {WORD}"]).square().sum().backward()
    assert word.vector.grad is not None and torch.count_nonzero(word.vector.grad) > 0
    assert all(parameter.grad is None for parameter in base.text.model.parameters())


def test_gradients_reach_the_word_through_the_unet(base: Base) -> None:
    word = NewWord(base.text, WORD, like="castle")
    prompt = base.text.encode_for_learning([f"a {WORD}"])[0]
    x_t = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    UNetBackbone(base.unet).base(x_t, torch.tensor([3, 900]), prompt).square().mean().backward()
    assert word.vector.grad is not None and torch.count_nonzero(word.vector.grad) > 0


def test_places_in_common_follow_the_words(base: Base) -> None:
    places = base.text.places_in_common
    length = base.text.length
    assert places("a photo of a dog", "a photo of a dog") == [*range(length)]
    swapped = places("a photo of a dog", "a photo of a cat")
    assert swapped == [*range(length)], "one word in the place of another"
    added = places("a dog", "a red dog")
    assert added[:5] == [0, 1, None, 2, 3]
    assert places("a red dog", "a dog")[:4] == [0, 1, 3, 4]
