"""`mini`'s words: a tokenizer, and a CLIP text tower that learns what captions mean before any picture is
seen.

The tower is trained to read noun, style, place and number off a caption: minutes of text alone, where
learning the same through pictures takes hours. Then it is frozen: the scorer's image tower and the U-Net
learn against it, and every caption is encoded once.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sine_cli.mini.training import DEVICE, Length, Loop, Report, autocast
from sine_cli.mini.vocabulary import COLOURS, NOUNS, PLACES, STYLES

LENGTH = 24
"""Tokens a caption, begin and end included."""
WIDTH = 192


def new_tokenizer(captions: Iterable[str]) -> Any:
    """A byte-pair tokenizer of the captions' words; letters, digits and `[ * ]` are always in it."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(
        captions,
        trainers.BpeTrainer(
            vocab_size=2048,
            special_tokens=["<unk>", "<bos>", "<pad>", "<eos>"],
            end_of_word_suffix="</w>",
            initial_alphabet=list("abcdefghijklmnopqrstuvwxyz0123456789[]*.,'-"),
            show_progress=False,
        ),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 1), ("<eos>", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        pad_token="<eos>",
        model_max_length=LENGTH,
    )


def text_config(vocabulary: int) -> dict[str, Any]:
    """Of transformers' CLIPTextConfig."""
    return {
        "vocab_size": vocabulary,
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_hidden_layers": 4,
        "num_attention_heads": 6,
        "max_position_embeddings": LENGTH,
        "projection_dim": WIDTH,
        "bos_token_id": 1,
        "eos_token_id": 3,  # 2 would make transformers pool the highest token instead of the end
        "pad_token_id": 3,
    }


def tokens(tokenizer: Any, captions: list[str]) -> Tensor:
    """(N, LENGTH) token numbers."""
    return tokenizer(
        captions, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt"
    ).input_ids


class _Reader(nn.Module):
    """The tower, and a linear reading of each label off its pooled output."""

    def __init__(self, vocabulary: int):
        super().__init__()
        from transformers import CLIPTextConfig, CLIPTextModel

        self.tower = CLIPTextModel(CLIPTextConfig(**text_config(vocabulary)))
        self.heads = nn.ModuleList(nn.Linear(WIDTH, len(words)) for words in _CLASSES)

    def forward(self, ids: Tensor) -> list[Tensor]:
        pooled = self.tower(ids).pooler_output
        return [head(pooled) for head in self.heads]


_CLASSES: tuple[list[str], ...] = (list(NOUNS), list(STYLES), [*PLACES, *COLOURS], ["one", "two", "three"])


def _targets(texts: list[dict[str, str]]) -> Tensor:
    """(N, 4): noun, style, place or colour, number; -100 where the caption does not say."""
    rows = []
    for text in texts:
        caption = text["caption"]
        number = "two" if " two " in f" {caption}" else "three" if " three " in f" {caption}" else "one"
        said = {
            0: text["noun"],
            1: text["style"] if " of " in caption.replace(text["noun"], "") else "",
            2: text["place"] if text["place"] != "white" or "white background" in caption else "",
            3: number if text["noun"] else "",
        }
        rows.append([words.index(said[i]) if said[i] else -100 for i, words in enumerate(_CLASSES)])
    return torch.tensor(rows)


def train(
    tokenizer: Any, texts: list[dict[str, str]], checkpoint: Path, length: Length, report: Report
) -> tuple[Any, Loop]:
    """Train the tower on captions and their labels. Returns the averaged tower, in eval mode."""
    torch.manual_seed(0)
    reader = _Reader(len(tokenizer)).to(DEVICE)
    loop = Loop(reader, checkpoint, steps=length.steps, learning_rate=1e-3, warmup=50, average=0.99)
    ids = tokens(tokenizer, [text["caption"] for text in texts]).to(DEVICE)
    targets = _targets(texts).to(DEVICE)

    def loss(step: int) -> tuple[Tensor, int]:
        generator = torch.Generator().manual_seed(step)
        chosen = torch.randint(0, len(ids), (length.batch,), generator=generator)
        with autocast():
            logits = reader(ids[chosen])
        parts = [
            F.cross_entropy(logit.float(), targets[chosen, i], ignore_index=-100)
            for i, logit in enumerate(logits)
        ]
        return torch.stack(parts).sum(), length.batch

    loop.run(loss, report)
    with loop.averaged():
        tower = reader.tower.eval()
        state = {name: tensor.clone() for name, tensor in tower.state_dict().items()}
    tower.load_state_dict(state)
    return tower.requires_grad_(False), loop
