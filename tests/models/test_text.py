"""Prompts to embeddings, and what of a prompt goes unread."""

import gc
import weakref

import pytest
import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor

from sine_cli.models.adapter import attach_adapter
from sine_cli.models.base import Base
from sine_cli.models.text import PromptReader, TextEncoder

LONG = (
    "A photo of a castle on a hill under a red sky with birds and trees and snow, "
    "many clouds, and lights at Night"
)


@pytest.fixture
def text(mini: Base) -> PromptReader:
    return mini.text


def embeddings(text: PromptReader, *prompts: str) -> Tensor:
    return torch.stack([each.embedding for each in text.encode([*prompts])])


def test_each_prompt_is_embedded_by_itself_whatever_stands_beside_it(text: PromptReader) -> None:
    together = embeddings(text, "a castle", "", LONG)
    assert together.shape[:2] == (3, text.length)
    assert together.dtype == torch.float32
    for row, prompt in zip(together, ["a castle", "", LONG], strict=True):
        torch.testing.assert_close(row, embeddings(text, prompt)[0], rtol=0, atol=1e-5)
    assert not torch.allclose(together[0], together[1], atol=1e-2)


def test_a_prompt_that_fits_is_read_to_its_end(text: PromptReader) -> None:
    assert text.cut("") == ""
    assert text.cut("a photo of a castle") == ""


def test_the_unread_end_of_a_long_prompt_is_told(text: PromptReader) -> None:
    unread = text.cut(LONG)
    assert unread
    assert LONG.endswith(unread)
    read = LONG.removesuffix(unread)
    assert text.cut(read) == ""
    torch.testing.assert_close(embeddings(text, LONG), embeddings(text, read), rtol=0, atol=1e-5)


def test_the_first_word_too_many_is_the_unread_end(text: PromptReader) -> None:
    words = ["dog"] * 100
    fitting = next(n for n in range(100, 0, -1) if not text.cut(" ".join(words[:n])))
    assert text.cut(" ".join([*words[:fitting], "castle"])) == "castle"
    assert fitting >= 10


def test_after_release_the_model_is_gone(base: Base) -> None:
    assert isinstance(base.text, TextEncoder)
    gc.disable()  # as good as so in a command: what is dropped leaves memory without
    try:
        attach_adapter(base.unet, rank=2, targets="attention", frequencies=1, seed=0, text=base.text)
        left = weakref.ref(next(m for m in base.text.model.modules() if isinstance(m, LoraLayer)))
        base.text.release()
        assert base.text.model is None and left() is None
    finally:
        gc.enable()
    assert base.text.cut("a castle") == "", "the tokenizer stays"
