"""Adapters beyond a LoRA on the U-Net: a U-Net of its own, tuned whole, and a LoRA on the text encoders."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sine_cli.method.guidance import Branch
from sine_cli.method.position import FREQUENCIES, WHOLE
from sine_cli.models.adapter import FULL, Adapter, attach_adapter, load_state, merge, tuned_models
from sine_cli.models.backbone import UNetBackbone
from sine_cli.models.base import Base
from sine_cli.models.rows import BASE, TUNED
from sine_cli.models.text import Conditioning

Load = Callable[[Path], Base]
T = 400
PROMPT = Conditioning(torch.randn(24, 32, generator=torch.Generator().manual_seed(3)))
X_T = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(2))


def attach(base: Base, targets: str = FULL, *, text: bool = False, name: str = TUNED) -> Adapter:
    return attach_adapter(
        base.unet,
        rank=3,
        targets=targets,
        frequencies=FREQUENCIES,
        seed=0,
        name=name,
        text=base.text if text else None,
    )


def change(parameters: list[torch.nn.Parameter]) -> None:
    generator = torch.Generator().manual_seed(1)
    for parameter in parameters:
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)


def predicted(base: Base, adapters: list[Adapter], *names: str | None) -> list[Tensor]:
    backbone = UNetBackbone(base.unet, tuned_models(*adapters), factor=base.autoencoder.factor)
    box = torch.tensor(WHOLE)
    return backbone(X_T, T, [Branch(PROMPT, box if name else None, name) for name in names])


# ---------------------------------------------------------------------------------- a U-Net of its own


def test_a_fresh_unet_of_its_own_predicts_as_the_base(base: Base) -> None:
    untuned, tuned = predicted(base, [attach(base)], None, TUNED)
    assert torch.equal(untuned, tuned)


def test_tuning_it_whole_leaves_the_base_s_rows_alone(base: Base) -> None:
    (before,) = predicted(base, [], None)
    adapter = attach(base)
    change(adapter.unet_parameters())
    tuned, untuned, again = predicted(base, [adapter], TUNED, None, TUNED)
    assert torch.equal(untuned, before)
    assert torch.equal(tuned, again)
    assert not torch.allclose(tuned, before, atol=1e-2)


def test_a_lora_and_a_unet_of_its_own_go_together_in_any_order(tiny: Path, load: Load) -> None:
    """A guide tuned whole beside a LoRA: each row is what its model alone predicts, the base's too."""
    first, second = load(tiny), load(tiny)
    whole, lora = attach(first), attach(first, "attention", name="guide_1")
    lora_2 = attach(second, "attention", name="guide_1")
    whole_2 = attach(second)
    for adapter in (whole, whole_2, lora, lora_2):
        change(adapter.unet_parameters())
    rows = predicted(first, [whole, lora], None, TUNED, "guide_1")
    for row, again in zip(rows, predicted(second, [lora_2, whole_2], None, TUNED, "guide_1"), strict=True):
        torch.testing.assert_close(row, again, rtol=0, atol=1e-5)
    assert not torch.allclose(rows[1], rows[2], atol=1e-2)


def test_gradients_reach_all_of_it_and_nothing_of_the_base(base: Base) -> None:
    adapter = attach(base)
    backbone = UNetBackbone(base.unet, tuned_models(adapter), factor=base.autoencoder.factor)
    backbone.prepare_tuning()
    backbone.tuned(
        X_T, torch.tensor([T, 3]), PROMPT, torch.tensor(WHOLE).expand(2, 4)
    ).square().sum().backward()
    assert all(p.grad is not None for p in adapter.unet_parameters())
    assert all(p.grad is None for p in base.unet.parameters())


def test_what_is_saved_comes_back_and_merges(tiny: Path, load: Load) -> None:
    first, second = load(tiny), load(tiny)
    adapter, again = attach(first), attach(second)
    change([*adapter.unet_parameters(), *adapter.position_parameters()])
    load_state(again, adapter.unet_state(), {}, adapter.position_state(), where="adapter")
    (tuned,), (loaded,) = predicted(first, [adapter], TUNED), predicted(second, [again], TUNED)
    assert torch.equal(loaded, tuned)
    assert merge(again, second.unet, []) is again.unet


# ------------------------------------------------------------------------------------- the text encoder


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_the_base_reads_as_before_and_the_tuned_model_in_its_own_way(
    families: dict[str, Path], load: Load, family: str
) -> None:
    base = load(families[family])
    prompts = ["a sks castle", "a castle"]
    before = base.text.encode(prompts)
    adapter = attach(base, "attention", text=True)
    for reader in (BASE, TUNED, "guide_1"):
        for fresh, old in zip(base.text.encode(prompts, reader), before, strict=True):
            torch.testing.assert_close(fresh.embedding, old.embedding, rtol=0, atol=1e-6)
    change(adapter.text_parameters())
    for reader, is_same in ((BASE, True), ("guide_1", True), (TUNED, False)):
        read = base.text.encode(prompts, reader)
        for now, old in zip(read, before, strict=True):
            assert torch.allclose(now.embedding, old.embedding, atol=1e-5) is is_same
            if old.pooled is not None and now.pooled is not None:
                assert torch.allclose(now.pooled, old.pooled, atol=1e-5) is is_same


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_a_saved_text_lora_comes_back_and_merges(families: dict[str, Path], load: Load, family: str) -> None:
    first, second = load(families[family]), load(families[family])
    adapter, again = attach(first, "attention", text=True), attach(second, "attention", text=True)
    change([*adapter.text_parameters(), *adapter.unet_parameters()])
    states = adapter.unet_state(), adapter.text_state(), adapter.position_state()
    load_state(again, *states, where="adapter")
    (expected,) = first.text.encode(["a sks castle"], TUNED)
    (read,) = second.text.encode(["a sks castle"], TUNED)
    assert torch.equal(read.embedding, expected.embedding)
    encoders = second.text.encoders
    merge(again, second.unet, [encoder.model for encoder in encoders])
    (merged,) = second.text.encode(["a sks castle"])
    torch.testing.assert_close(merged.embedding, expected.embedding, rtol=0, atol=1e-4)
    assert not any("lora" in name for encoder in encoders for name in encoder.model.state_dict())


def test_gradients_reach_the_text_lora_alone(base: Base) -> None:
    adapter = attach(base, "attention", text=True)
    change(adapter.text_parameters())
    base.text.encode_for_learning(["a sks castle"], TUNED)[0].embedding.square().sum().backward()
    assert all(p.grad is not None for p in adapter.text_parameters())
    learning = {id(p) for p in adapter.text_parameters()}
    (encoder,) = base.text.encoders
    assert all(p.grad is None for p in encoder.model.parameters() if id(p) not in learning)
