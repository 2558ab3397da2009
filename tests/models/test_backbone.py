"""Base and tuned rows share one call of the U-Net, and the base rows never notice."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sine_cli.errors import SineError
from sine_cli.method.guidance import Branch
from sine_cli.method.position import FREQUENCIES, WHOLE
from sine_cli.models.adapter import Adapter, attach_adapter, tuned_models
from sine_cli.models.backbone import CELLS_AT_ONCE, UNetBackbone
from sine_cli.models.base import Base
from sine_cli.models.rows import TUNED
from sine_cli.models.text import Conditioning

T = 500
BOX = torch.tensor(WHOLE)


def noise(count: int = 2, cells: int = 16, seed: int = 0) -> Tensor:
    return torch.randn(count, 4, cells, cells, generator=torch.Generator().manual_seed(seed))


def prompt(seed: int) -> Conditioning:
    return Conditioning(torch.randn(24, 32, generator=torch.Generator().manual_seed(seed)))


NULL, TARGET, SOURCE = prompt(1), prompt(2), prompt(3)


def attach(
    base: Base, *, filled: bool, name: str = TUNED, seed: int = 4, targets: str = "attention+resnet"
) -> Adapter:
    """A fresh adapter; `filled` with random values, as if tuned long and hard."""
    adapter = attach_adapter(
        base.unet, rank=seed, targets=targets, frequencies=FREQUENCIES, seed=0, name=name
    )
    generator = torch.Generator().manual_seed(seed)
    for parameter in [*adapter.unet_parameters(), *adapter.position_parameters()] if filled else []:
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return adapter


def on(base: Base, *adapters: Adapter) -> UNetBackbone:
    return UNetBackbone(base.unet, tuned_models(*adapters), factor=base.autoencoder.factor)


def predict(backbone: UNetBackbone, *branches: Branch, x_t: Tensor | None = None) -> list[Tensor]:
    return backbone(noise() if x_t is None else x_t, T, list(branches))


def test_base_rows_are_bit_identical_with_an_adapter_attached(base: Base) -> None:
    rows = [Branch(NULL), Branch(TARGET), Branch(SOURCE)]
    before = predict(on(base), *rows)
    backbone = on(base, attach(base, filled=True))
    alone = predict(backbone, *rows)
    mixed = predict(backbone, Branch(NULL), Branch(TARGET), Branch(SOURCE, BOX, tuned=TUNED))
    assert all(torch.equal(*pair) for pair in zip(alone, before, strict=True))
    assert torch.equal(mixed[0], before[0])
    assert torch.equal(mixed[1], before[1])
    assert not torch.allclose(mixed[2], before[2], atol=1e-2), "the adapter does something"


def test_base_rows_are_as_without_an_adapter_in_every_place_of_a_batch(base: Base) -> None:
    """Bit for bit where they keep their place in the call; rows of one adapter are put side by side there."""
    rows = [Branch(NULL), Branch(TARGET), Branch(SOURCE)]
    before = predict(on(base), *rows)
    backbone = on(base, attach(base, filled=True))
    for place in range(3):
        branches = [*rows]
        branches[place] = Branch(rows[place].prompt, BOX, tuned=TUNED)
        after = predict(backbone, *branches)
        for i in range(3):
            assert torch.allclose(after[i], before[i], rtol=0, atol=1e-5) == (i != place)
            assert torch.equal(after[i], before[i]) or i >= place


@pytest.mark.parametrize("boxed", [True, False])
def test_each_of_several_adapters_gives_its_rows_what_it_gives_alone(
    tiny: Path, load: Callable[[Path], Base], boxed: bool
) -> None:
    """Adapters of different ranks and targets on one U-Net, against each on a U-Net of its own."""
    kinds: list[dict[str, Any]] = [
        {"name": TUNED, "seed": 4},
        {"name": "guide_1", "seed": 5, "targets": "attention"},
        {"name": "guide_2", "seed": 6},
    ]
    box = torch.tensor([0.1, 0.2, 0.6, 0.9]) if boxed else None
    together = load(tiny)
    adapters = [attach(together, filled=True, **kind) for kind in kinds]
    rows = [Branch(TARGET), *(Branch(SOURCE, box, tuned=kind["name"]) for kind in kinds), Branch(NULL)]
    base_row, *tuned_rows, null_row = predict(on(together, *adapters), *rows)
    for kind, row in zip(kinds, tuned_rows, strict=True):
        alone = load(tiny)
        backbone = on(alone, attach(alone, filled=True, **kind))
        (expected,) = predict(backbone, Branch(SOURCE, box, tuned=kind["name"]))
        torch.testing.assert_close(row, expected, rtol=0, atol=1e-4)
    plain = predict(on(load(tiny)), Branch(TARGET), Branch(NULL))
    torch.testing.assert_close(base_row, plain[0], rtol=0, atol=1e-4)
    torch.testing.assert_close(null_row, plain[1], rtol=0, atol=1e-4)
    assert min((a - b).abs().max() for a, b in itertools.combinations(tuned_rows, 2)) > 1e-2


def test_an_adapter_at_its_start_leaves_tuned_rows_as_the_base_has_them(base: Base) -> None:
    before = predict(on(base), Branch(TARGET), Branch(SOURCE))
    backbone = on(base, attach(base, filled=False))
    after = predict(backbone, Branch(TARGET), Branch(SOURCE, BOX, tuned=TUNED))
    assert all(torch.equal(*pair) for pair in zip(after, before, strict=True))


def test_the_position_reaches_rows_with_a_box_alone(base: Base) -> None:
    adapter = attach(base, filled=False)
    backbone = on(base, adapter)
    before = predict(backbone, Branch(TARGET), Branch(SOURCE, tuned=TUNED), Branch(SOURCE, BOX, tuned=TUNED))
    torch.nn.init.constant_(adapter.position.projection.weight, 0.5)
    after = predict(backbone, Branch(TARGET), Branch(SOURCE, tuned=TUNED), Branch(SOURCE, BOX, tuned=TUNED))
    assert torch.equal(after[0], before[0])
    assert torch.equal(after[1], before[1])
    assert not torch.allclose(after[2], before[2], atol=1e-3)


def test_a_tuned_row_in_a_mixed_batch_equals_the_tuned_model_alone(base: Base) -> None:
    backbone = on(base, attach(base, filled=True))
    x_t = noise()
    tuned = Branch(SOURCE, BOX, tuned=TUNED)
    mixed = predict(backbone, Branch(NULL), tuned, Branch(TARGET), x_t=x_t)[1]
    alone = predict(backbone, tuned, x_t=x_t)[0]
    in_tuning = backbone.tuned(x_t, torch.full((2,), T), SOURCE, BOX.expand(2, 4))
    torch.testing.assert_close(mixed, alone, rtol=0, atol=1e-5)
    torch.testing.assert_close(mixed, in_tuning.detach(), rtol=0, atol=1e-5)


def test_a_base_row_in_a_mixed_batch_equals_the_base_alone(base: Base) -> None:
    alone = predict(on(base), Branch(TARGET))[0]
    backbone = on(base, attach(base, filled=True))
    mixed = predict(backbone, Branch(SOURCE, BOX, tuned=TUNED), Branch(TARGET))[1]
    torch.testing.assert_close(mixed, alone, rtol=0, atol=1e-5)


def test_each_picture_of_a_batch_is_predicted_by_itself(base: Base) -> None:
    backbone = on(base, attach(base, filled=True))
    branches = [Branch(TARGET), Branch(SOURCE, BOX, tuned=TUNED)]
    both = predict(backbone, *branches, x_t=noise(2))
    for i in range(2):
        alone = predict(backbone, *branches, x_t=noise(2)[i : i + 1])
        for together, single in zip(both, alone, strict=True):
            # Processors may sum a batch in another order than a single row
            torch.testing.assert_close(together[i : i + 1], single, rtol=0, atol=1e-4)


def test_a_call_is_cut_into_as_few_as_memory_allows(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = attach(base, filled=True)
    branches = [Branch(NULL), Branch(SOURCE, BOX, tuned=TUNED), Branch(TARGET)]
    whole = predict(on(base, adapter), *branches)
    calls: list[int] = []
    base.unet.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    monkeypatch.setitem(CELLS_AT_ONCE, "cpu", 4 * 16 * 16)
    for together, cut in zip(predict(on(base, adapter), *branches), whole, strict=True):
        torch.testing.assert_close(cut, together, rtol=0, atol=1e-5)
    assert calls == [4, 2]


def out_of_memory_beyond(rows: int, calls: list[int]) -> Callable[..., None]:
    """A hook before a U-Net that fails as the CPU's allocator does."""

    def refuse(_: Any, inputs: Any) -> None:
        calls.append(len(inputs[0]))
        if len(inputs[0]) > rows:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried too much")

    return refuse


def test_a_call_that_memory_cannot_hold_is_halved_and_stays_so(base: Base) -> None:
    adapter = attach(base, filled=True)
    branches, calls = [Branch(NULL), Branch(TARGET), Branch(SOURCE, BOX, tuned=TUNED)], list[int]()
    whole = predict(on(base, adapter), *branches)
    backbone = on(base, adapter)
    base.unet.register_forward_pre_hook(out_of_memory_beyond(2, calls))
    for _ in range(2):
        for part, together in zip(predict(backbone, *branches), whole, strict=True):
            torch.testing.assert_close(part, together, rtol=0, atol=1e-4)
    assert calls == [6, 3, 1, 1, 1, 1, 1, 1, *([1] * 6)]


def test_one_row_that_memory_cannot_hold_is_told(base: Base) -> None:
    backbone = on(base)
    base.unet.register_forward_pre_hook(out_of_memory_beyond(0, []))
    with pytest.raises(SineError) as caught:
        predict(backbone, Branch(NULL), Branch(TARGET))
    assert caught.value.message == "memory ran out with one row of the U-Net"
    assert caught.value.hint == "try a smaller --size, or `--memory low`"


def test_another_error_of_the_unet_is_not_taken_for_memory(base: Base) -> None:
    calls: list[int] = []
    base.unet.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes cannot be multiplied"):
        predict(on(base), Branch(Conditioning(torch.zeros(24, 5))))
    assert len(calls) == 1


def test_rows_of_different_latents_share_a_call(base: Base) -> None:
    backbone = on(base, attach(base, filled=True))
    rows = [(noise(1, seed=1), Branch(SOURCE, BOX, tuned=TUNED)), (noise(2, seed=2), Branch(TARGET))]
    together = backbone.predict(rows, T)
    for (x_t, branch), prediction in zip(rows, together, strict=True):
        torch.testing.assert_close(prediction, backbone(x_t, T, [branch])[0], rtol=0, atol=1e-4)


def test_in_tuning_each_row_has_the_position_of_its_own_box(base: Base) -> None:
    backbone = on(base, attach(base, filled=True))
    boxes = torch.tensor([WHOLE, (0.1, 0.5, 0.4, 0.9)])
    x_t, t = noise(1).expand(2, -1, -1, -1), torch.tensor([T, T])
    rows = backbone.tuned(x_t, t, SOURCE, boxes)
    assert not torch.allclose(rows[0], rows[1], atol=1e-3)
    swapped = backbone.tuned(x_t, t, SOURCE, boxes.flip(0))
    torch.testing.assert_close(swapped.flip(0), rows, rtol=0, atol=1e-5)
    torch.testing.assert_close(
        backbone.tuned(x_t, t, SOURCE, None), predict(backbone, Branch(SOURCE, tuned=TUNED), x_t=x_t)[0]
    )


def test_gradients_reach_the_adapter_and_nothing_of_the_base(base: Base) -> None:
    adapter = attach(base, filled=True)
    backbone = on(base, adapter)
    backbone.tuned(noise(), torch.tensor([T, 3]), SOURCE, BOX.expand(2, 4)).square().mean().backward()
    trained = [*adapter.unet_parameters(), *adapter.position_parameters()]
    assert all(p.grad is not None and torch.count_nonzero(p.grad) > 0 for p in trained)
    ids = {id(p) for p in trained}
    assert all(p.grad is None for p in base.unet.parameters() if id(p) not in ids)


def test_sampling_makes_no_gradients_and_gives_float32(base: Base) -> None:
    base.unet.to(torch.bfloat16)
    backbone = on(base, attach(base, filled=True))
    for prediction in predict(backbone, Branch(TARGET), Branch(SOURCE, BOX, tuned=TUNED)):
        assert prediction.dtype == torch.float32
        assert not prediction.requires_grad


def test_what_a_failing_call_was_given_is_forgotten(base: Base) -> None:
    adapter = attach(base, filled=True)
    backbone = on(base, adapter)
    expected = predict(backbone, Branch(TARGET))[0]
    with pytest.raises(RuntimeError):
        predict(backbone, Branch(Conditioning(torch.zeros(24, 5)), BOX, tuned=TUNED))
    assert torch.equal(predict(backbone, Branch(TARGET))[0], expected)
