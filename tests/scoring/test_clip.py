"""The cosines are those of transformers' own CLIPModel, and nothing unfit loads."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, CLIPModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from sine_cli.errors import UserError
from sine_cli.scoring import clip as clip_module
from sine_cli.scoring.clip import Clip
from tests.scoring.conftest import noise
from tests.tiny import write_tiny_clip

CPU = torch.device("cpu")
PROMPTS = ["a photo of a cat", "a red castle", "a pencil sketch of a cup of coffee in the snow"]
AGAIN = "fetch or copy the scorer again; sine reads .safetensors weights only"


def their_pixels(folder: Path, pictures: list[Image.Image]) -> torch.Tensor:
    processor = CLIPImageProcessorPil.from_pretrained(folder)
    return processor(pictures, return_tensors="pt")["pixel_values"]


def with_the_end_as_last_token(folder: Path) -> int:
    """Give the end token the highest id of all, as CLIP's own vocabulary has it; that id."""
    path = folder / "tokenizer.json"
    tokenizer: dict[str, Any] = json.loads(path.read_text("utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    last = max(vocabulary.values())
    (other,) = [token for token, number in vocabulary.items() if number == last]
    vocabulary["<eos>"], vocabulary[other] = last, vocabulary["<eos>"]
    (end,) = [token for token in tokenizer["added_tokens"] if token["content"] == "<eos>"]
    end["id"] = last
    tokenizer["post_processor"]["special_tokens"]["<eos>"]["ids"] = [last]
    path.write_text(json.dumps(tokenizer), "utf-8")
    return last


def configure_end(folder: Path, eos_token_id: int) -> None:
    path = folder / "config.json"
    config: dict[str, Any] = json.loads(path.read_text("utf-8"))
    config["text_config"]["eos_token_id"] = eos_token_id
    path.write_text(json.dumps(config), "utf-8")


# ------------------------------------------------------------------------------------------- similarity


@pytest.mark.parametrize("configured", ["as old files say", "rightly"])
def test_the_similarity_is_that_of_transformers(
    tmp_path: Path, cat: Image.Image, coffee: Image.Image, configured: str
) -> None:
    """With a vocabulary like CLIP's own, whichever way the configuration names the end token."""
    folder = write_tiny_clip(tmp_path / "clip")
    end = with_the_end_as_last_token(folder)
    configure_end(folder, end if configured == "rightly" else 2)
    model = CLIPModel.from_pretrained(folder).eval()
    tokens = AutoTokenizer.from_pretrained(folder)(PROMPTS, padding=True, return_tensors="pt")
    pictures = [cat, coffee, noise(50, 80)]
    with torch.no_grad():
        out = model(**tokens, pixel_values=their_pixels(folder, pictures))
    expected = out.logits_per_image / model.logit_scale.exp()
    assert expected.std() > 0.05, "the identity is not one of constants"
    ours = Clip(folder, CPU)
    torch.testing.assert_close(ours.similarity(pictures, PROMPTS), expected, rtol=0, atol=1e-5)
    assert ours.alignment(pictures, PROMPTS[1]) == pytest.approx(expected[:, 1].tolist(), abs=1e-5)


def test_a_prompt_s_embedding_is_the_projected_state_at_its_end(
    tiny_clip: Path, clip: Clip, cat: Image.Image
) -> None:
    """Also where the end token is none of the highest and the configuration does not know it."""
    model: Any = CLIPModel.from_pretrained(tiny_clip).eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_clip)
    cosines: list[float] = []
    with torch.no_grad():
        image = model.get_image_features(their_pixels(tiny_clip, [cat])).pooler_output
        for prompt in PROMPTS:
            ids = tokenizer(prompt, return_tensors="pt").input_ids  # no padding: the last token is the end
            text = model.text_projection(model.text_model(ids).last_hidden_state[:, -1])
            cosines.append(float(torch.cosine_similarity(image, text)))
    assert clip.similarity([cat], PROMPTS)[0].tolist() == pytest.approx(cosines, abs=1e-5)


def test_every_word_counts_up_to_the_last_one_that_is_read(clip: Clip, cat: Image.Image) -> None:
    longest = "cat"
    while clip.reads_whole(f"{longest} cat"):
        longest += " cat"
    assert longest.count("cat") > 3
    of_longest, of_other, of_longer = clip.similarity(
        [cat], [longest, longest[:-3] + "dog", f"{longest} and a dog"]
    )[0].tolist()
    assert of_longest != pytest.approx(of_other, abs=1e-4)
    assert of_longest == pytest.approx(of_longer, abs=1e-6), "what is cut off does not count"


def test_a_prompt_alone_or_among_longer_ones_is_the_same(clip: Clip, cat: Image.Image) -> None:
    together = clip.similarity([cat], PROMPTS)[0].tolist()
    assert together == pytest.approx([clip.alignment([cat], each)[0] for each in PROMPTS], abs=1e-6)


def test_more_pictures_than_a_batch_keep_their_order(
    clip: Clip, monkeypatch: pytest.MonkeyPatch, cat: Image.Image
) -> None:
    pictures = [noise(20 + i, 30, seed=i) for i in range(4)] + [cat]
    at_once = clip.similarity(pictures, PROMPTS), clip.features(pictures)
    monkeypatch.setattr(clip_module, "BATCH", 2)
    sizes: list[int] = []
    batches = clip._batches

    def counted(*arguments: Any) -> Any:
        for batch in batches(*arguments):
            sizes.append(len(batch))
            yield batch

    monkeypatch.setattr(clip, "_batches", counted)
    torch.testing.assert_close(clip.similarity(pictures, PROMPTS), at_once[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(clip.features(pictures), at_once[1], rtol=0, atol=1e-5)
    assert sizes == [2, 2, 1, 2, 2, 1]


def test_features_are_the_patches_of_several_layers_of_length_one(
    tiny_clip: Path, clip: Clip, cat: Image.Image
) -> None:
    features = clip.features([cat])
    assert features.shape == (1, 2, 16, 32), "layers 1 and 2 of 3, 4x4 patches, 32 channels"
    torch.testing.assert_close(features.norm(dim=-1), torch.ones(1, 2, 16))
    model = CLIPModel.from_pretrained(tiny_clip).eval()
    squashed = cat.resize((32, 32), Image.Resampling.BICUBIC)
    with torch.no_grad():
        vision = model.vision_model(their_pixels(tiny_clip, [squashed]), output_hidden_states=True)
    assert vision.hidden_states is not None
    for ours, layer in zip(features[0], (1, 2), strict=True):
        patches = vision.hidden_states[layer][0, 1:]
        torch.testing.assert_close(ours, patches / patches.norm(dim=-1, keepdim=True), rtol=0, atol=1e-5)


# ---------------------------------------------------------------------------------------- what is refused


def refusal(folder: Path) -> tuple[str, str | None]:
    with pytest.raises(UserError) as caught:
        Clip(folder, CPU)
    return caught.value.message, caught.value.hint


def test_half_precision_weights_are_computed_in_float32(copy_of_tiny_clip: Path, cat: Image.Image) -> None:
    weights = copy_of_tiny_clip / "model.safetensors"
    halved = {name: tensor.half() for name, tensor in load_file(weights).items()}
    save_file(halved, weights, {"format": "pt"})
    assert Clip(copy_of_tiny_clip, CPU).similarity([cat], PROMPTS).dtype == torch.float32


def test_a_model_that_lacks_weights_is_refused(copy_of_tiny_clip: Path) -> None:
    weights = copy_of_tiny_clip / "model.safetensors"
    kept = {name: tensor for name, tensor in load_file(weights).items() if "projection" not in name}
    save_file(kept, weights, {"format": "pt"})
    assert refusal(copy_of_tiny_clip) == (
        f"{copy_of_tiny_clip} has no weights for 2 layers, text_projection.weight among them",
        "fetch or copy the scorer again; it must be a whole CLIP model, image and text",
    )


class Bomb:
    """What a pickled weight file may do to those who open it."""

    def __init__(self, ran: Path) -> None:
        self.ran = ran

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return open, (str(self.ran), "w")


def test_pickled_weights_never_load(copy_of_tiny_clip: Path, tmp_path: Path) -> None:
    (copy_of_tiny_clip / "model.safetensors").unlink()
    trap = copy_of_tiny_clip / "pytorch_model.bin"
    trap.write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    message, hint = refusal(copy_of_tiny_clip)
    assert message.startswith(f"{copy_of_tiny_clip} does not load: ")
    assert hint == AGAIN
    assert not (tmp_path / "ran").exists()
    with trap.open("rb") as file:
        pickle.load(file).close()
    assert (tmp_path / "ran").exists(), "the trap itself works"


def test_damaged_weights_are_told(copy_of_tiny_clip: Path) -> None:
    weights = copy_of_tiny_clip / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    message, hint = refusal(copy_of_tiny_clip)
    assert message.startswith(f"{copy_of_tiny_clip} does not load: ")
    assert hint == AGAIN


def test_a_tokenizer_of_another_model_is_refused(copy_of_tiny_clip: Path) -> None:
    path = copy_of_tiny_clip / "tokenizer.json"
    tokenizer = json.loads(path.read_text("utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["a-word-too-many"] = len(vocabulary)
    path.write_text(json.dumps(tokenizer), "utf-8")
    assert refusal(copy_of_tiny_clip) == (
        f"{copy_of_tiny_clip}: the tokenizer does not fit the model",
        "fetch or copy the scorer again",
    )


def test_code_that_a_folder_brings_never_runs(copy_of_tiny_clip: Path, tmp_path: Path) -> None:
    (copy_of_tiny_clip / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n", "utf-8")
    for name in ("config.json", "tokenizer_config.json"):
        path = copy_of_tiny_clip / name
        classes = {"AutoTokenizer": ["own.Own", "own.Own"], "AutoModel": "own.Own"}
        path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"auto_map": classes}), "utf-8")
    Clip(copy_of_tiny_clip, CPU)
    assert not (tmp_path / "ran").exists()
