"""The adapter: seeded, saved and read back exactly, its shapes known beforehand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from sine_cli.errors import UserError
from sine_cli.method.guidance import Branch
from sine_cli.method.position import FREQUENCIES, WHOLE
from sine_cli.models.adapter import (
    FULL,
    TARGETS,
    Adapter,
    Shapes,
    adapter_shapes,
    attach_adapter,
    load_state,
    tuned_models,
)
from sine_cli.models.backbone import UNetBackbone
from sine_cli.models.base import Base
from sine_cli.models.rows import TUNED
from sine_cli.models.text import Conditioning
from tests.tiny import FAMILIES

Load = Callable[[Path], Base]
AGAIN = "run `sine tune` again"


def attach(base: Base, *, seed: int = 0, rank: int = 4, targets: str = "attention") -> Adapter:
    return attach_adapter(base.unet, rank=rank, targets=targets, frequencies=FREQUENCIES, seed=seed)


def fill(adapter: Adapter) -> Adapter:
    generator = torch.Generator().manual_seed(1)
    for parameter in [*adapter.unet_parameters(), *adapter.position_parameters()]:
        parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)
    return adapter


def in_order(states: dict[str, dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    """As `load_state` takes them."""
    return [states.get(f"{name}.safetensors", {}) for name in ("adapter", "text", "position")]


def tuned_row(base: Base, adapter: Adapter) -> Tensor:
    x_t = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(2))
    prompt = Conditioning(torch.randn(24, 32, generator=torch.Generator().manual_seed(3)))
    backbone = UNetBackbone(base.unet, tuned_models(adapter), factor=base.autoencoder.factor)
    return backbone(x_t, 300, [Branch(prompt, torch.tensor(WHOLE), tuned=TUNED)])[0]


def test_a_saved_adapter_gives_the_same_tuned_rows_on_another_copy_of_the_base(
    tiny: Path, load: Load
) -> None:
    first, second = load(tiny), load(tiny)
    adapter = fill(attach(first, seed=0))
    files = save(adapter.unet_state()), save(adapter.position_state())
    again = attach(second, seed=1)
    assert not torch.equal(tuned_row(second, again), tuned_row(first, adapter))
    load_state(again, load_tensors(files[0]), {}, load_tensors(files[1]), where="adapter")
    assert torch.equal(tuned_row(second, again), tuned_row(first, adapter))
    assert (save(again.unet_state()), save(again.position_state())) == files


def load_tensors(content: bytes) -> dict[str, Tensor]:
    return load(content)


def test_lora_a_is_drawn_from_its_seed_alone_and_b_is_zero(tiny: Path, load: Load) -> None:
    states: list[dict[str, Tensor]] = []
    for seed, disturbance in ((0, 1), (0, 2), (1, 2)):
        torch.manual_seed(disturbance)
        states.append(attach(load(tiny), seed=seed).unet_state())
    first, same, other = states
    assert all(torch.equal(first[name], same[name]) for name in first)
    for name in first:
        if "lora_A" in name:
            assert not torch.equal(first[name], other[name])
        else:
            assert "lora_B" in name
            assert torch.count_nonzero(first[name]) == 0


def test_attaching_leaves_the_global_generator_alone(base: Base) -> None:
    before = torch.get_rng_state()
    attach(base)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("targets", TARGETS)
def test_every_target_gets_a_lora_of_the_asked_rank(base: Base, targets: str) -> None:
    state = attach(base, rank=3, targets=targets).unet_state()
    adapted = {name.rsplit(".lora_", 1)[0] for name in state}
    # proj_in and its like are names of attention blocks, which the tiny base has.
    missing = {target for target in TARGETS[targets] if not any(n.endswith(target) for n in adapted)}
    assert missing == set()
    assert {t.shape[0] for n, t in state.items() if "lora_A" in n} == {3}
    assert {t.shape[1] for n, t in state.items() if "lora_B" in n} == {3}


def test_what_is_trained_is_float32_whatever_the_base_is(tiny: Path, load: Load) -> None:
    base = load(tiny)
    base.unet.to(torch.bfloat16)
    adapter = attach(base)
    trained = [*adapter.unet_parameters(), *adapter.position_parameters()]
    assert {p.dtype for p in trained} == {torch.float32}
    assert all(p.requires_grad for p in trained)
    assert sum(p.requires_grad for p in base.unet.parameters()) == len(adapter.unet_parameters())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("file", ["adapter.safetensors", "position.safetensors"])
def test_values_that_are_not_numbers_are_refused(base: Base, file: str, value: float) -> None:
    adapter = fill(attach(base))
    states = {"adapter.safetensors": adapter.unet_state(), "position.safetensors": adapter.position_state()}
    states = {name: {key: t.clone() for key, t in state.items()} for name, state in states.items()}
    list(states[file].values())[-1].view(-1)[0] = value
    with pytest.raises(UserError) as caught:
        load_state(adapter, *in_order(states), where="girl/adapter")
    assert caught.value.message == f"girl/adapter/{file} holds values that are not numbers (NaN or infinite)"
    assert caught.value.hint == AGAIN


@pytest.mark.parametrize("targets", [*TARGETS, FULL])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_shapes_of_an_adapter_are_known_before_it_is_there(
    families: dict[str, Path], load: Load, family: str, targets: str
) -> None:
    base = load(families[family])
    settings: dict[str, Any] = {"rank": 3, "targets": targets, "frequencies": 5}

    def expected(unet: Any) -> Shapes:
        return adapter_shapes(unet, base.text, **settings)

    alone = expected(base.unet)
    with torch.device("meta"):
        assert expected(type(base.unet).from_config(base.unet.config)) == alone
    adapter = attach_adapter(base.unet, seed=0, text=base.text, **settings)
    states = {
        "adapter.safetensors": adapter.unet_state(),
        "position.safetensors": adapter.position_state(),
        "text.safetensors": adapter.text_state(),
    }
    assert {file: {n: tuple(t.shape) for n, t in state.items()} for file, state in states.items()} == alone
    assert all(alone.values())
    assert expected(base.unet) == alone, "with an adapter on it already"
