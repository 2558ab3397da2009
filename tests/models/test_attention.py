"""Cross-attention maps: watching changes nothing, replacing puts one prompt's in the place of another's."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from sine_cli.method.guidance import Branch, Guidance, GuidedModel
from sine_cli.method.inversion import invert
from sine_cli.method.prompt_to_prompt import PromptToPrompt
from sine_cli.method.sampling import DDIM, sample
from sine_cli.models.attention import CrossAttentionMaps
from sine_cli.models.backbone import UNetBackbone
from sine_cli.models.base import Base
from sine_cli.models.text import Conditioning

PHOTO = Path(__file__).parents[1] / "pictures" / "cat.jpg"
PLACES = 24
SAME: list[int | None] = [*range(PLACES)]
NONE: list[int | None] = [None] * PLACES
T = 500


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


NULL, SOURCE, TARGET = (Branch(Conditioning(random(seed, PLACES, 32))) for seed in (1, 2, 3))
X = random(0, 1, 4, 16, 16)


def predict(base: Base, branch: Branch, x_t: Tensor = X) -> Tensor:
    return UNetBackbone(base.unet, factor=base.autoencoder.factor)(x_t, T, [branch])[0]


def processors(base: Base) -> dict[str, Any]:
    return {name: type(processor) for name, processor in base.unet.attn_processors.items()}


def test_watching_changes_no_prediction_and_leaves_nothing_behind(base: Base) -> None:
    before, as_before = predict(base, SOURCE), processors(base)
    maps = CrossAttentionMaps(base.unet, SAME)
    with maps.watched():
        torch.testing.assert_close(predict(base, SOURCE), before, rtol=0, atol=1e-5)
        with maps.recorded():
            torch.testing.assert_close(predict(base, SOURCE), before, rtol=0, atol=1e-5)
        assert len(maps.kept) == len(maps.layers) > 0
        for kept in maps.kept.values():
            assert kept.shape[-1] == PLACES
            torch.testing.assert_close(kept.sum(-1), torch.ones(kept.shape[:-1]))
    assert torch.equal(predict(base, SOURCE), before)
    assert processors(base) == as_before
    assert maps.kept == {}


@pytest.mark.parametrize(("places", "changes"), [(SAME, True), (NONE, False), ([*range(4), *NONE[4:]], True)])
def test_the_maps_of_the_words_in_common_are_replaced_and_no_others(
    base: Base, places: list[int | None], changes: bool
) -> None:
    maps = CrossAttentionMaps(base.unet, places)
    with maps.watched():
        own = predict(base, TARGET)
        with maps.recorded():
            predict(base, SOURCE)
        with maps.replaced():
            replaced = predict(base, TARGET)
        assert torch.equal(predict(base, TARGET), own), "only while it is open"
    assert torch.equal(replaced, own) != changes


def test_with_its_own_maps_in_place_of_themselves_a_prediction_stays(base: Base) -> None:
    maps = CrossAttentionMaps(base.unet, SAME)
    with maps.watched():
        with maps.recorded():
            recorded = predict(base, SOURCE)
        with maps.replaced():
            assert torch.equal(predict(base, SOURCE), recorded)


def reconstructed(base: Base, target: Branch, w: float, K: int, places: list[int | None]) -> Tensor:
    """Both rows of Prompt-to-Prompt on inverted latents, (2, 4, 16, 16)."""
    backbone, steps = UNetBackbone(base.unet, factor=base.autoencoder.factor), 10
    unguided = GuidedModel(backbone, Guidance(1.0), NULL, SOURCE)
    x_T = invert(unguided, 0.5 * X, base.schedule, steps)
    maps = CrossAttentionMaps(base.unet, places)
    model = PromptToPrompt(backbone, maps, w, K, NULL, SOURCE, target)
    with maps.watched():
        return sample(model, x_T.repeat(2, 1, 1, 1), base.schedule, DDIM(base.schedule), steps)


@pytest.mark.parametrize("w", [1.0, 3.0])
def test_with_the_source_prompt_as_target_the_edit_is_the_reconstruction(base: Base, w: float) -> None:
    first, second = reconstructed(base, SOURCE, w, 0, SAME)
    torch.testing.assert_close(second, first, rtol=0, atol=1e-4)
    backbone = UNetBackbone(base.unet, factor=base.autoencoder.factor)
    x_T = invert(GuidedModel(backbone, Guidance(1.0), NULL, SOURCE), 0.5 * X, base.schedule, 10)
    plain = GuidedModel(backbone, Guidance(w), NULL, SOURCE)
    alone = sample(plain, x_T, base.schedule, DDIM(base.schedule), 10)
    torch.testing.assert_close(first, alone[0], rtol=0, atol=1e-3)


def test_at_K_of_T_no_map_is_replaced_and_below_it_they_are(base: Base) -> None:
    never, unlike = reconstructed(base, TARGET, 1.0, 1000, SAME), reconstructed(base, TARGET, 1.0, 0, NONE)
    assert torch.equal(never, unlike)
    assert not torch.allclose(reconstructed(base, TARGET, 1.0, 0, SAME)[1], never[1], atol=1e-4)


def test_without_guidance_the_inverted_photo_comes_back(mini: Base) -> None:
    """On a trained model; with as much guidance as edits have it does not."""
    photo = Image.open(PHOTO).convert("RGB").resize((96, 96))
    z_0 = mini.autoencoder.encode([photo])
    null, source = (Branch(each) for each in mini.text.encode(["", "a photo of a cat"]))
    backbone, steps = UNetBackbone(mini.unet, factor=mini.autoencoder.factor), 25

    def model(w: float) -> GuidedModel:
        return GuidedModel(backbone, Guidance(w), null, source)

    x_T = invert(model(1.0), z_0, mini.schedule, steps)
    errors = [
        float((sample(model(w), x_T, mini.schedule, DDIM(mini.schedule), steps) - z_0).abs().mean())
        for w in (1.0, 7.5)
    ]
    spread = float((z_0 - z_0.mean()).abs().mean())
    assert errors[0] < 0.2 * spread
    assert errors[1] > 2 * errors[0]
    assert 0.8 < float(x_T.std()) < 1.2, "noise, as sampling begins with"
