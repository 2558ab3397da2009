"""Pictures to latents and back, with both kinds of autoencoder."""

import numpy as np
import pytest
import torch
from PIL import Image

from sine_cli.errors import SineError
from sine_cli.models.autoencoder import Autoencoder
from sine_cli.models.base import Base


def gradient(height: int, width: int) -> Image.Image:
    """Smooth and colourful."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    return Image.fromarray((255 * np.stack([y, x, 1 - (x + y) / 2], axis=-1)).astype(np.uint8))


def test_kl_latents_are_a_fourth_of_the_picture_on_each_side(base: Base) -> None:
    pictures = [gradient(24, 40), gradient(24, 40).rotate(180)]
    z = base.autoencoder.encode(pictures)
    assert z.shape == (2, 4, 6, 10)
    assert z.dtype == torch.float32
    assert [picture.size for picture in base.autoencoder.decode(z)] == [(40, 24), (40, 24)]
    assert [picture.mode for picture in base.autoencoder.decode(z)] == ["RGB", "RGB"]


def test_dc_latents_are_a_sixteenth_of_the_picture_on_each_side(mini: Base) -> None:
    z = mini.autoencoder.encode([gradient(48, 80)])
    assert z.shape == (1, mini.autoencoder.channels, 3, 5)
    assert mini.autoencoder.decode(z)[0].size == (80, 48)


def test_the_bundled_autoencoder_gives_a_picture_back_and_latents_of_about_unit_size(mini: Base) -> None:
    picture = gradient(128, 128)
    z = mini.autoencoder.encode([picture])
    again = np.asarray(mini.autoencoder.decode(z)[0], dtype=float)
    assert np.abs(again - np.asarray(picture, dtype=float)).mean() < 10
    assert 0.3 < float(z.std()) < 3


@pytest.mark.parametrize("name", ["base", "mini"])
def test_a_picture_has_one_latent(name: str, request: pytest.FixtureRequest) -> None:
    autoencoder = request.getfixturevalue(name).autoencoder
    first, again = (autoencoder.encode([gradient(32, 32)]) for _ in range(2))
    assert torch.equal(first, again)


def test_each_picture_is_encoded_and_decoded_by_itself(base: Base) -> None:
    pictures = [gradient(16, 16), gradient(16, 16).rotate(90)]
    z = base.autoencoder.encode(pictures)
    for i, picture in enumerate(pictures):
        torch.testing.assert_close(base.autoencoder.encode([picture]), z[i : i + 1], rtol=0, atol=1e-6)


def test_scale_and_shift_are_taken_off_when_encoding_and_put_back_when_decoding(base: Base) -> None:
    autoencoder = base.autoencoder
    plain = autoencoder.encode([gradient(16, 16)])
    pixels = np.asarray(autoencoder.decode(plain)[0])
    autoencoder.shift, autoencoder.scale = 0.25, 2 * autoencoder.scale
    shifted = autoencoder.encode([gradient(16, 16)])
    torch.testing.assert_close(shifted, 2 * plain - 0.25 * autoencoder.scale)
    assert np.abs(np.asarray(autoencoder.decode(shifted)[0]).astype(int) - pixels).max() <= 1


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["base", "mini"])
def test_latents_that_are_not_numbers_are_an_error_and_no_picture(
    name: str, value: float, request: pytest.FixtureRequest
) -> None:
    autoencoder = request.getfixturevalue(name).autoencoder
    z = torch.zeros(1, autoencoder.channels, 4, 4)
    z[0, 0, 1, 2] = value
    with pytest.raises(SineError) as caught:
        autoencoder.decode(z)
    assert caught.value.message == "the picture came out with values that are not numbers (NaN)"
    assert caught.value.hint == "lower the guidance with `-w 5`; if that does not help, run `sine tune` again"
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("name", ["base", "mini"])
def test_a_large_picture_goes_through_in_tiles_that_leave_no_seams(
    name: str, request: pytest.FixtureRequest
) -> None:
    autoencoder = request.getfixturevalue(name).autoencoder
    side = 16 * autoencoder.factor
    tiled = Autoencoder(autoencoder.model, torch.device("cpu"), tile=side)
    small, large = (autoencoder.encode([gradient(each, 2 * each)]) for each in (side // 2, side))
    whole = [np.asarray(autoencoder.decode(z)[0], dtype=float) for z in (small, large)]
    calls: list[int] = []
    handle = autoencoder.model.decoder.register_forward_pre_hook(lambda _, z: calls.append(z[0].shape[-1]))
    cut = [np.asarray(tiled.decode(z)[0], dtype=float) for z in (small, large)]
    handle.remove()
    assert np.array_equal(cut[0], whole[0]), "what fits goes through whole"
    assert calls[0] == 16 and len(calls) > 2 and max(calls) <= 16
    assert np.abs(cut[1] - whole[1]).mean() < 2
    # A seam would be a jump between neighbours that the whole picture does not have
    of_cut, of_whole = (np.abs(np.diff(each[1], axis=1)).mean(axis=(0, 2)) for each in (cut, whole))
    assert (of_cut - of_whole).max() < 3
