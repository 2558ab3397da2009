"""The authors' sampler, written out plainly, gives the picture that an edit gives.

Theirs: a second U-Net a picture (here with the adapter merged into its weights), four evaluations a guided
step of which the tuned model's unconditional one is thrown away, DDIM with 100 steps. Ours: one U-Net.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor

from sine_cli.method.position import FREQUENCIES, WHOLE, Position
from sine_cli.method.schedule import Prediction
from sine_cli.models.adapter import Adapter, attach_adapter, tuned_models
from sine_cli.models.backbone import UNetBackbone
from sine_cli.models.base import Base, load_base
from sine_cli.models.rows import TUNED
from sine_cli.workflow.guides import GuideRecipe
from sine_cli.workflow.render import Recipe, Renderer, embed
from sine_cli.workflow.size import Size
from tests.tiny import write_tiny_base

W, V = 3.0, 0.6
STYLE = GuideRecipe("../stripes", "a painting in the sks style", weight=0.25, switch_step=200)


@dataclass(frozen=True)
class Model:
    """A tuned model of the authors': a whole U-Net, what it is told, and how it guides."""

    unet: Any
    prompt: Tensor
    weight: float
    switch_step: int


@torch.no_grad()
def merged(folder: Path, adapter: Adapter) -> Any:
    """A U-Net of its own whose weights hold the LoRA, and whose first features hold the position."""
    unet = load(folder).unet
    state = adapter.unet_state()
    for name in [key.removesuffix(".lora_A.weight") for key in state if key.endswith(".lora_A.weight")]:
        a, b = state[f"{name}.lora_A.weight"], state[f"{name}.lora_B.weight"]
        weight = unet.get_submodule(name).weight
        weight += (b.flatten(1) @ a.flatten(1)).reshape(weight.shape)
    position: Position = adapter.position
    whole = torch.tensor([WHOLE])
    unet.conv_in.register_forward_hook(
        lambda module, inputs, features: features + position(whole, *features.shape[-2:])
    )
    return unet


@torch.no_grad()
def authors_picture(
    base: Base, folder: Path, tuned: list[Model], null: Tensor, target: Tensor, x_T: Tensor
) -> Tensor:
    """Their picture, (1, 3, H, W), in [0, 1]."""
    scheduler: Any = DDIMScheduler.from_pretrained(folder / "scheduler")
    scheduler.set_timesteps(100)
    x = x_T
    for t in scheduler.timesteps:
        uncond, cond = base.unet(torch.cat([x, x]), t, torch.stack([null, target])).sample.chunk(2)
        guiding = [model for model in tuned if t > model.switch_step]
        share = 1 - sum(model.weight for model in guiding)
        mixed = share * cond
        for model in guiding:
            rows = model.unet(torch.cat([x, x]), t, torch.stack([null, model.prompt])).sample
            _thrown_away, its_cond = rows.chunk(2)
            mixed = mixed + model.weight * its_cond
        x = scheduler.step(uncond + W * (mixed - uncond), t, x).prev_sample
    return decoded(base, x)


@torch.no_grad()
def decoded(base: Base, z_0: Tensor) -> Tensor:
    return (base.autoencoder.model.decode(z_0 / base.autoencoder.scale).sample / 2 + 0.5).clamp(0, 1)


def load(folder: Path) -> Base:
    return load_base(folder, None, torch.device("cpu"), torch.float32)


def attach(base: Base, name: str, seed: int) -> Adapter:
    """An adapter with random values, about as large as tuning makes them."""
    adapter = attach_adapter(
        base.unet, rank=4, targets="attention+resnet", frequencies=FREQUENCIES, seed=seed, name=name
    )
    generator = torch.Generator().manual_seed(seed)
    for parameter in [*adapter.unet_parameters(), *adapter.position_parameters()]:
        parameter.data = 0.08 * torch.randn(parameter.shape, generator=generator)
    return adapter


@pytest.fixture(scope="module", params=["epsilon", "v_prediction"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    prediction: Prediction = request.param
    return write_tiny_base(tmp_path_factory.mktemp("bases") / prediction, prediction)


@pytest.fixture(scope="module")
def ours(folder: Path) -> tuple[Base, list[Adapter]]:
    base = load(folder)
    return base, [attach(base, TUNED, 1), attach(base, "guide_1", 2)]


@pytest.fixture(scope="module")
def theirs(folder: Path, ours: tuple[Base, list[Adapter]]) -> tuple[Base, list[Any]]:
    return load(folder), [merged(folder, adapter) for adapter in ours[1]]


@pytest.mark.parametrize("K", [0, 400, 1000])
@pytest.mark.parametrize("guides", [(), (STYLE,)], ids=["one guide", "two guides"])
def test_an_edit_is_the_authors_picture(
    folder: Path,
    ours: tuple[Base, list[Adapter]],
    theirs: tuple[Base, list[Any]],
    K: int,
    guides: tuple[GuideRecipe, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = Recipe(
        prompt="painting of a girl",
        source_prompt="a picture of a sks girl",
        negative="",
        seed=3,
        size=Size(32, 40),
        switch_step=K,
        base_weight=V,
        guidance_scale=W,
        steps=100,
        solver="ddim",
        position=True,
        guides=guides,
        exact_switch=False,  # as the authors have it
    )
    base, adapters = ours
    embeddings = embed(base, recipe.readings)
    backbone = UNetBackbone(base.unet, tuned_models(*adapters), factor=base.autoencoder.factor)
    renderer = Renderer(base, backbone, embeddings)
    latents: list[Tensor] = []
    monkeypatch.setattr(base.autoencoder, "decode", keeping(base.autoencoder.decode, latents))
    renderer.picture(recipe)

    their_base, unets = theirs
    null, target, *sources = (embeddings[reading].embedding for reading in recipe.readings)
    how = [(1 - V, K), *((guide.weight, guide.switch_step) for guide in guides)]
    tuned = [Model(unet, source, *part) for unet, source, part in zip(unets, sources, how, strict=False)]
    expected = authors_picture(their_base, folder, tuned, null, target, renderer.noise(recipe))

    difference = (decoded(their_base, latents[0]) - expected).abs().max()
    assert difference < 1e-3
    if K == 0:
        plain = authors_picture(their_base, folder, [], null, target, renderer.noise(recipe))
        assert (plain - expected).abs().max() > 0.05, "the guides decide about the picture"


def keeping(decode: Callable[[Tensor], Any], latents: list[Tensor]) -> Callable[[Tensor], Any]:
    """As `decode`, and the latents are kept."""

    def kept(z: Tensor) -> Any:
        latents.append(z)
        return decode(z)

    return kept
