"""Base and tuned rows share one call of the U-Net, and the base rows never notice."""

import pytest
import torch
from torch import Tensor

from sine_cli.method.guidance import Branch
from sine_cli.method.position import FREQUENCIES, WHOLE
from sine_cli.models.adapter import Adapter, attach_adapter
from sine_cli.models.backbone import UNetBackbone
from sine_cli.models.base import Base
from sine_cli.models.text import Conditioning

T = 500
BOX = torch.tensor(WHOLE)


def noise(count: int = 2, cells: int = 16, seed: int = 0) -> Tensor:
    return torch.randn(count, 4, cells, cells, generator=torch.Generator().manual_seed(seed))


def prompt(seed: int) -> Conditioning:
    return Conditioning(torch.randn(24, 32, generator=torch.Generator().manual_seed(seed)))


NULL, TARGET, SOURCE = prompt(1), prompt(2), prompt(3)


def attach(base: Base, *, filled: bool) -> Adapter:
    """A fresh adapter; `filled` with random values, as if tuned long and hard."""
    adapter = attach_adapter(base.unet, rank=4, targets="attention+resnet", frequencies=FREQUENCIES, seed=0)
    generator = torch.Generator().manual_seed(4)
    for parameter in [*adapter.lora_parameters(), *adapter.position_parameters()] if filled else []:
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return adapter


def predict(backbone: UNetBackbone, *branches: Branch, x_t: Tensor | None = None) -> list[Tensor]:
    return backbone(noise() if x_t is None else x_t, T, list(branches))


def test_base_rows_are_bit_identical_with_an_adapter_attached(base: Base) -> None:
    rows = [Branch(NULL), Branch(TARGET), Branch(SOURCE)]
    before = predict(UNetBackbone(base.unet, factor=base.autoencoder.factor), *rows)
    backbone = UNetBackbone(base.unet, attach(base, filled=True).position, factor=base.autoencoder.factor)
    alone = predict(backbone, *rows)
    mixed = predict(backbone, Branch(NULL), Branch(TARGET), Branch(SOURCE, BOX, tuned=True))
    assert all(torch.equal(*pair) for pair in zip(alone, before, strict=True))
    assert torch.equal(mixed[0], before[0])
    assert torch.equal(mixed[1], before[1])
    assert not torch.allclose(mixed[2], before[2], atol=1e-2), "the adapter does something"


def test_base_rows_are_bit_identical_in_every_place_of_a_batch(base: Base) -> None:
    rows = [Branch(NULL), Branch(TARGET), Branch(SOURCE)]
    before = predict(UNetBackbone(base.unet, factor=base.autoencoder.factor), *rows)
    backbone = UNetBackbone(base.unet, attach(base, filled=True).position, factor=base.autoencoder.factor)
    for place in range(3):
        branches = [*rows]
        branches[place] = Branch(rows[place].prompt, BOX, tuned=True)
        after = predict(backbone, *branches)
        for i in range(3):
            assert torch.equal(after[i], before[i]) == (i != place)


def test_an_adapter_at_its_start_leaves_tuned_rows_as_the_base_has_them(base: Base) -> None:
    before = predict(UNetBackbone(base.unet, factor=base.autoencoder.factor), Branch(TARGET), Branch(SOURCE))
    backbone = UNetBackbone(base.unet, attach(base, filled=False).position, factor=base.autoencoder.factor)
    after = predict(backbone, Branch(TARGET), Branch(SOURCE, BOX, tuned=True))
    assert all(torch.equal(*pair) for pair in zip(after, before, strict=True))


def test_the_position_reaches_rows_with_a_box_alone(base: Base) -> None:
    adapter = attach(base, filled=False)
    backbone = UNetBackbone(base.unet, adapter.position, factor=base.autoencoder.factor)
    before = predict(backbone, Branch(TARGET), Branch(SOURCE, tuned=True), Branch(SOURCE, BOX, tuned=True))
    torch.nn.init.constant_(adapter.position.projection.weight, 0.5)
    after = predict(backbone, Branch(TARGET), Branch(SOURCE, tuned=True), Branch(SOURCE, BOX, tuned=True))
    assert torch.equal(after[0], before[0])
    assert torch.equal(after[1], before[1])
    assert not torch.allclose(after[2], before[2], atol=1e-3)


def test_a_tuned_row_in_a_mixed_batch_equals_the_tuned_model_alone(base: Base) -> None:
    backbone = UNetBackbone(base.unet, attach(base, filled=True).position, factor=base.autoencoder.factor)
    x_t = noise()
    tuned = Branch(SOURCE, BOX, tuned=True)
    mixed = predict(backbone, Branch(NULL), tuned, Branch(TARGET), x_t=x_t)[1]
    alone = predict(backbone, tuned, x_t=x_t)[0]
    in_tuning = backbone.tuned(x_t, torch.full((2,), T), SOURCE, BOX.expand(2, 4))
    torch.testing.assert_close(mixed, alone, rtol=0, atol=1e-5)
    torch.testing.assert_close(mixed, in_tuning.detach(), rtol=0, atol=1e-5)


def test_a_base_row_in_a_mixed_batch_equals_the_base_alone(base: Base) -> None:
    alone = predict(UNetBackbone(base.unet, factor=base.autoencoder.factor), Branch(TARGET))[0]
    backbone = UNetBackbone(base.unet, attach(base, filled=True).position, factor=base.autoencoder.factor)
    mixed = predict(backbone, Branch(SOURCE, BOX, tuned=True), Branch(TARGET))[1]
    torch.testing.assert_close(mixed, alone, rtol=0, atol=1e-5)


def test_each_picture_of_a_batch_is_predicted_by_itself(base: Base) -> None:
    backbone = UNetBackbone(base.unet, attach(base, filled=True).position, factor=base.autoencoder.factor)
    branches = [Branch(TARGET), Branch(SOURCE, BOX, tuned=True)]
    both = predict(backbone, *branches, x_t=noise(2))
    for i in range(2):
        alone = predict(backbone, *branches, x_t=noise(2)[i : i + 1])
        for together, single in zip(both, alone, strict=True):
            torch.testing.assert_close(together[i : i + 1], single, rtol=0, atol=1e-5)


def test_in_tuning_each_row_has_the_position_of_its_own_box(base: Base) -> None:
    backbone = UNetBackbone(base.unet, attach(base, filled=True).position, factor=base.autoencoder.factor)
    boxes = torch.tensor([WHOLE, (0.1, 0.5, 0.4, 0.9)])
    x_t, t = noise(1).expand(2, -1, -1, -1), torch.tensor([T, T])
    rows = backbone.tuned(x_t, t, SOURCE, boxes)
    assert not torch.allclose(rows[0], rows[1], atol=1e-3)
    swapped = backbone.tuned(x_t, t, SOURCE, boxes.flip(0))
    torch.testing.assert_close(swapped.flip(0), rows, rtol=0, atol=1e-5)
    torch.testing.assert_close(
        backbone.tuned(x_t, t, SOURCE, None), predict(backbone, Branch(SOURCE, tuned=True), x_t=x_t)[0]
    )


def test_gradients_reach_the_adapter_and_nothing_of_the_base(base: Base) -> None:
    adapter = attach(base, filled=True)
    backbone = UNetBackbone(base.unet, adapter.position, factor=base.autoencoder.factor)
    backbone.tuned(noise(), torch.tensor([T, 3]), SOURCE, BOX.expand(2, 4)).square().mean().backward()
    trained = [*adapter.lora_parameters(), *adapter.position_parameters()]
    assert all(p.grad is not None and torch.count_nonzero(p.grad) > 0 for p in trained)
    ids = {id(p) for p in trained}
    assert all(p.grad is None for p in base.unet.parameters() if id(p) not in ids)


def test_sampling_makes_no_gradients_and_gives_float32(base: Base) -> None:
    backbone = UNetBackbone(
        base.unet.to(torch.bfloat16), attach(base, filled=True).position, factor=base.autoencoder.factor
    )
    for prediction in predict(backbone, Branch(TARGET), Branch(SOURCE, BOX, tuned=True)):
        assert prediction.dtype == torch.float32
        assert not prediction.requires_grad


def test_what_a_failing_call_was_given_is_forgotten(base: Base) -> None:
    adapter = attach(base, filled=True)
    backbone = UNetBackbone(base.unet, adapter.position, factor=base.autoencoder.factor)
    expected = predict(backbone, Branch(TARGET))[0]
    with pytest.raises(RuntimeError):
        predict(backbone, Branch(Conditioning(torch.zeros(24, 5)), BOX, tuned=True))
    assert torch.equal(predict(backbone, Branch(TARGET))[0], expected)
